//! The main job on a real model: exports the handwritten-digits classifier that the repository
//! carries, runs it on its 540 held-out images, and prints accuracy, parity and speed.
//! `cargo run --release -p hub-tests --example digits`

use hub_cli::args::Running;
use hub_cli::compile::{Job, compile};
use hub_cli::{Failure, failure, tensors};
use hub_models::{Case, Digits, Tolerance};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    hub_cli::finish(run())
}

fn invalid(e: hub_models::Error) -> Failure {
    Failure::new(failure::INVALID, e.to_string())
}

fn run() -> Result<(), Failure> {
    let digits = Digits::load().map_err(invalid)?;
    let bundle = std::env::temp_dir().join(format!("hub-digits-{}.hub", std::process::id()));
    for case in &digits.cases() {
        println!("\n== {}", case.name);
        compile(&Job::plain(&case.model, &bundle))?.print(false);
        for tier in hub_tests::tiers() {
            on_tier(&digits, case, &bundle, tier)?;
        }
    }
    let _gone_already = std::fs::remove_file(&bundle);
    Ok(())
}

fn on_tier(digits: &Digits, case: &Case, bundle: &Path, tier: &str) -> Result<(), Failure> {
    let cpu = Some(tier.to_string());
    let how = Running {
        threads: 1,
        device: "cpu".into(),
        cpu,
        no_verify: false,
        limits: Default::default(),
    };
    let mut o = tensors::open(bundle, &how, tensors::Inputs::Given)?;
    let inputs = tensors::inputs_for(&o, &case.inputs)?;
    let got = o.run(&inputs)?;
    let parity = hub_models::compare(&case.golden, &got, Tolerance::default()).map_err(invalid)?;
    let accuracy = got.values().next().and_then(|l| digits.accuracy(l)).unwrap_or(0.0);
    let n = if tier == "portable" { 3 } else { 50 };
    let start = Instant::now();
    for _ in 0..n {
        o.run_only(&inputs)?;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(n);
    println!(
        "  {tier:<9} accuracy {:.1}%, parity with Paddle {:.1e}, {:.3} ms for 540 images \
         ({:.0} images/s, one thread)",
        accuracy * 100.0,
        parity.error(),
        each * 1e3,
        540.0 / each
    );
    match parity.ok() {
        true => Ok(()),
        false => Err(Failure::new(failure::MISMATCH, format!("{parity}"))),
    }
}
