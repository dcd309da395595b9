//! Every small model changed in every way that one change can ([`hub_tests::mutate`]):
//! `cargo run --release -p hub-tests --bin mutate -- --suite FOLDER`.
//!
//! Exits with 1 where there is a fault, 8 where files cannot be read.

use clap::Parser;
use hub_ir::Graph;
use hub_tests::conformance::discover;
use hub_tests::mutate::cases::{Known, committed, suite};
use hub_tests::mutate::judge::{Depth, judge};
use hub_tests::mutate::{How, run};
use hub_tests::whole;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Changes every small model in every way that one change can, and says what is not as it should be.
#[derive(Parser)]
#[command(name = "mutate")]
struct Args {
    /// The folder `onnx/backend/test/data` of the Python package onnx (1.17.0), whose models are
    /// changed too
    #[arg(long)]
    suite: Option<PathBuf>,
    /// Only models with this in their names (may be repeated)
    #[arg(long)]
    only: Vec<String>,
    /// Only one change of so many
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Optimise one changed model of so many
    #[arg(long, default_value_t = 2)]
    passes: usize,
    /// Interpret, compile and write one changed model of so many
    #[arg(long, default_value_t = 16)]
    whole: usize,
    /// Models at once [default: the processor's cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Make only the change of that number, of the models that `--only` names, all the way
    #[arg(long)]
    nth: Option<usize>,
    /// With `--nth`: write the changed model to this file
    #[arg(long, requires = "nth")]
    write: Option<PathBuf>,
    /// Name each model before it is changed, for what ends the whole process
    #[arg(long)]
    names: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match changed(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::from(8)
        }
    }
}

/// Goes on with a graph that was read.
fn further(mut g: Graph, depth: Depth) {
    match depth {
        Depth::Read => {}
        Depth::Passes => {
            whole::optimised(&mut g);
        }
        Depth::Whole => whole::whole(g),
    }
}

fn changed(args: &Args) -> Result<bool, String> {
    let mut cases = committed();
    if let Some(folder) = &args.suite {
        let tests = discover(folder)?.into_iter().filter(|t| t.group != "light");
        cases.extend(suite(tests.map(|t| (t.id(), t.model(), t.at))));
    }
    let known = Known::of(&cases);
    let asked = |name: &str| args.only.is_empty() || args.only.iter().any(|o| name.contains(o));
    cases.retain(|c| asked(&c.name));
    if let Some(n) = args.nth {
        for case in &cases {
            let Ok((model, what)) = case.changed(n, &known) else { continue };
            if let Some(file) = &args.write {
                std::fs::write(file, model.bytes().0).map_err(|e| e.to_string())?;
            }
            let end = match model.load() {
                Err(e) => format!("{}: {e}", e.exit_code()),
                Ok(_) => "accepted".into(),
            };
            println!("{} #{n}: {what}\n    {end}", case.name);
            println!("    {:?}", judge(&model, Depth::Whole, &further));
        }
        return Ok(true);
    }
    let how = How {
        stride: args.stride.max(1),
        passes: args.passes.max(1),
        whole: args.whole.max(1),
        jobs: args.jobs.unwrap_or_else(hub_runtime::cores),
    };
    let start = Instant::now();
    let report = match args.names {
        false => run(&cases, &known, &how, &further),
        true => {
            for c in &cases {
                eprintln!("{}: {} changes", c.name, c.changes(&known));
                let report = run(std::slice::from_ref(c), &known, &how, &further);
                for (at, f) in &report.faults {
                    eprintln!("    {at}: {} #{}", f.what, f.first.1);
                }
            }
            return Ok(true);
        }
    };
    println!("{} models in {:.0} s", cases.len(), start.elapsed().as_secs_f64());
    println!("{report}");
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = memory.lines().find(|l| l.starts_with("VmHWM")) {
        println!("most memory: {}", peak.trim_start_matches("VmHWM:").trim());
    }
    Ok(report.faults.is_empty())
}
