//! Every fixture's NPU plan in the emulation of an NPU, beside its golden.
//! `cargo run --release -p hub-tests --bin ascend [NAME…]`. Exits with 1 if an answer is wrong.

use hub_models::Tolerance;
use hub_tests::{ascend, check_memory};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (Ok(cases), Ok(dir)) = (hub_models::cases(), tempfile::tempdir()) else {
        eprintln!("error: no fixtures, or no folder for them");
        return ExitCode::from(8);
    };
    if let Some(why) = ascend::absent() {
        println!("ignored: fixtures in the NPU's emulation ({why})");
        return ExitCode::SUCCESS;
    }
    let bundle = dir.path().join("m.hub");
    let (mut right, mut rows) = (0, 0);
    for case in &cases {
        if !wanted.is_empty() && !wanted.iter().any(|w| case.name.contains(w)) {
            continue;
        }
        rows += 1;
        let start = Instant::now();
        let report = match ascend::export(case, &bundle) {
            Ok(r) => r,
            Err(e) => {
                println!("{:<42} {e}", case.name);
                continue;
            }
        };
        let exported = start.elapsed().as_secs_f64();
        let t = &report.tiers[0];
        let what = format!("{} steps, {} of them on the host", t.steps, t.host.len());
        let checked = check_memory(&bundle);
        match checked.and_then(|_| ascend::check(case, &bundle, Tolerance::default())) {
            Ok(c) => {
                let seconds = start.elapsed().as_secs_f64() - exported;
                println!(
                    "{:<42} export {exported:>4.1} s, {what}, run {seconds:>5.1} s, {c}",
                    case.name
                );
                right += usize::from(c.ok());
            }
            Err(e) => println!("{:<42} {e}", case.name),
        }
    }
    println!("{right} of {rows} right (emulated: not run on an NPU)");
    ExitCode::from(u8::from(right != rows || rows == 0))
}
