//! Every fixture, exported once and run on every tier at one and two threads, beside its golden:
//! one table. `cargo run --release -p hub-tests --bin fixtures [NAME…]`; a name is matched anywhere.
//! Exits with 1 if anything is off. `over` counts results in the room of an operand that dies with
//! them; what a plan does with its memory is followed by a checker of its own.
//!
//! `--precision bf16` exports at that precision; an output of floats is then right where the cosine
//! of golden and answer, plain and about the golden's mean, is at least 0.999 (cells show 1 − cosine).

use hub_models::{Case, Tolerance};
use hub_tests::{check, export, export_bf16, tiers, tiers_bf16};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let bf16 = wanted.windows(2).position(|w| w == ["--precision", "bf16"]);
    if let Some(at) = bf16 {
        wanted.drain(at..at + 2);
    }
    let bf16 = bf16.is_some();
    let cases = match hub_models::cases() {
        Ok(c) => c,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::from(8);
        }
    };
    let tiers = if bf16 { tiers_bf16() } else { tiers() };
    print!("{:<42} {:>7} {:>6} {:>5} {:>5}", "model", "export", "steps", "host", "over");
    tiers.iter().for_each(|t| print!(" {:>10} {:>10}", format!("{t} ×1"), "×2"));
    println!();
    let asked = |c: &&Case| wanted.is_empty() || wanted.iter().any(|w| c.name.contains(w));
    let rows: Vec<bool> = cases.iter().filter(asked).map(|c| row(c, &tiers, bf16)).collect();
    let right = rows.iter().filter(|r| **r).count();
    println!("{right} of {} right", rows.len());
    let dynamic = cases.iter().filter(|c| asked(c) && !bf16);
    let sized: Vec<bool> = dynamic.filter_map(|c| sizes(c, &tiers)).collect();
    let wrong = right != rows.len() || rows.is_empty() || sized.contains(&false);
    ExitCode::from(u8::from(wrong))
}

/// Greatest 1 − cosine at a low precision.
const COSINE: f64 = 1e-3;

/// Sizes that one session serves in turn, for fixtures that were exported with dynamic dims:
/// batch and the other dim.
const SIZES: [(i64, i64); 4] = [(2, 40), (1, 64), (3, 17), (2, 40)];

/// Answers at several sizes in one session, each beside the portable answer; `None` for a static
/// model.
fn sizes(case: &Case, tiers: &[&str]) -> Option<bool> {
    if !["ernie_nano_dyn", "ocr_crnn_dynw"].iter().any(|n| case.name.starts_with(n)) {
        return None;
    }
    let bundle = std::env::temp_dir().join(format!("hub-sizes-{}.hub", std::process::id()));
    print!("{:<42} sizes {SIZES:?}:", case.name);
    let worst = hub_tests::export(case, &bundle)
        .and_then(|_| hub_tests::several_sizes(&bundle, tiers, &SIZES));
    let _gone_already = std::fs::remove_file(&bundle);
    match worst {
        Ok(e) => println!(" {e:.1e} from the portable answer"),
        Err(ref e) => println!(" {e}"),
    }
    Some(worst.is_ok_and(|e| e <= Tolerance::default().rtol))
}

/// Prints one row; true if every cell is right.
fn row(case: &Case, tiers: &[&str], bf16: bool) -> bool {
    let bundle = std::env::temp_dir().join(format!("hub-fixtures-{}.hub", std::process::id()));
    let start = Instant::now();
    print!("{:<42}", case.name);
    let exported = if bf16 { export_bf16(case, &bundle) } else { export(case, &bundle) };
    let report = match exported {
        Ok(r) => r,
        Err(e) => {
            println!(" {e}");
            return false;
        }
    };
    let host = report.tiers.iter().map(|t| t.host.len()).max().unwrap_or(0);
    let steps = report.tiers.iter().map(|t| t.steps).max().unwrap_or(0);
    print!(" {:>5.1} s {steps:>6} {host:>5}", start.elapsed().as_secs_f64());
    let mut problems = vec![];
    match hub_tests::check_memory(&bundle) {
        Ok(n) => print!(" {n:>5}"),
        Err(e) => {
            print!(" {:>5}", "-");
            problems.push(format!("  memory: {e}"));
        }
    }
    for tier in tiers {
        for threads in [1, 2] {
            let cell = match check(case, &bundle, tier, threads, Tolerance::default()) {
                Ok(c) if bf16 => {
                    let off = c.outputs.iter().map(|o| o.cosine).fold(0.0, f64::max);
                    let wrong = c.outputs.iter().any(|o| o.problem.is_some());
                    if wrong || off.is_nan() || off > COSINE {
                        problems.push(format!("  {tier} ×{threads}: 1 - cosine {off:.1e}\n{c}"));
                    }
                    format!("{off:.1e}")
                }
                Ok(c) => {
                    if !c.ok() {
                        problems.push(format!("  {tier} ×{threads}: {c}"));
                    }
                    format!("{:.1e}", c.error())
                }
                Err(e) => {
                    problems.push(format!("  {tier} ×{threads}: {e}"));
                    "fails".to_string()
                }
            };
            print!(" {cell:>10}");
        }
    }
    println!();
    problems.iter().for_each(|p| println!("{p}"));
    let _gone_already = std::fs::remove_file(&bundle);
    problems.is_empty()
}
