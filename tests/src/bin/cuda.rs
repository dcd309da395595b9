//! Every fixture for CUDA, without a GPU: exported twice (the same bytes, in less than ten seconds),
//! assembled by `ptxas` for every architecture without spills. With `--run`, the software GPU's answers
//! beside the golden, which takes long for all but small ones.
//! `cargo run --release -p hub-tests --bin cuda [--run] [NAME…]`. Exits with 1 if anything is off.

use hub_models::{Case, Tolerance};
use hub_tests::cuda;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Seconds that an export may take.
const MOST: f64 = 10.0;

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let run = wanted.iter().position(|w| w == "--run").map(|at| wanted.remove(at)).is_some();
    let ptxas = cuda::ptxas();
    if ptxas.is_none() {
        println!("ignored: ptxas (HUB_PTXAS may name it; it is not on the path)");
    }
    let (Ok(cases), Ok(dir)) = (hub_models::cases(), tempfile::tempdir()) else {
        eprintln!("error: no fixtures, or no folder for them");
        return ExitCode::from(8);
    };
    println!(
        "{:<42} {:>7} {:>7} {:>6} {:>5} {:>8}",
        "model", "export", "kernels", "steps", "host", "PTX"
    );
    let asked = |c: &&Case| wanted.is_empty() || wanted.iter().any(|w| c.name.contains(w));
    let (mut right, mut rows) = (0, 0);
    for case in cases.iter().filter(asked) {
        rows += 1;
        match row(case, dir.path(), ptxas.as_deref(), run) {
            Ok(()) => right += 1,
            Err(e) => println!("    {e}"),
        }
    }
    println!("{right} of {rows} right");
    ExitCode::from(u8::from(right != rows || rows == 0))
}

fn row(case: &Case, dir: &Path, ptxas: Option<&Path>, run: bool) -> Result<(), String> {
    let (a, b) = (dir.join("a.hub"), dir.join("b.hub"));
    let start = Instant::now();
    let report = cuda::export(case, &a).map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    cuda::export(case, &b).map_err(|e| e.to_string())?;
    let same = std::fs::read(&a).ok() == std::fs::read(&b).ok();
    let text = cuda::ptx(&a).map_err(|e| e.to_string())?;
    let t = report.tiers.first().ok_or("no tier")?;
    println!(
        "{:<42} {seconds:>6.1}s {:>7} {:>6} {:>5} {:>7}k",
        case.name,
        t.kernels,
        t.steps,
        t.host.len(),
        text.len() >> 10
    );
    t.host.iter().for_each(|(node, why)| println!("    host: {node}: {why}"));
    if let Some(p) = ptxas {
        cuda::assemble(p, &text, dir)?;
    }
    if run {
        let c = cuda::check(case, &a, Tolerance::default()).map_err(|e| e.to_string())?;
        println!("    {c}");
        if !c.ok() {
            return Err("wrong answers".into());
        }
    }
    match (same, seconds < MOST) {
        (false, _) => Err("two exports differ".into()),
        (_, false) => Err(format!("longer than {MOST} s")),
        _ => Ok(()),
    }
}
