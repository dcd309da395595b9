//! ONNX's conformance suite, every test on every path, beside the table of those that are not
//! expected to pass: `cargo run --release -p hub-tests --bin conformance -- SUITE`.
//!
//! Exits with 1 if the table is wrong in either direction, 2 for a wrong call, 8 where files cannot
//! be read.

use clap::Parser;
use hub_tests::conformance::expected::{self, Table};
use hub_tests::conformance::report::Run;
use hub_tests::conformance::workers::{self, How, Work};
use hub_tests::conformance::{Engine, discover};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Runs ONNX's conformance suite through the reference path and the compiled path.
///
/// Prints each failure with its reason, the tests that are judged by distribution (random draws
/// without a seed), and pass counts a group and path. The table of expected failures is wrong, and
/// the exit code 1, if a test fails that is not in it, or one in it passes or does not exist.
#[derive(Parser)]
#[command(name = "conformance")]
struct Args {
    /// The folder `onnx/backend/test/data` of the Python package onnx (1.17.0)
    #[arg(required_unless_present = "worker")]
    suite: Option<PathBuf>,
    /// Only tests with this in GROUP/NAME (may be repeated)
    #[arg(long)]
    only: Vec<String>,
    /// Only this path: reference, compiled, or written (out to ONNX again, then as reference)
    #[arg(long, value_parser = engine)]
    path: Option<Engine>,
    /// Tier of compiled models: avx512, avx2 or portable [default: the best of this machine]
    #[arg(long)]
    cpu: Option<String>,
    /// Tests at once [default: the processor's cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Seconds that one test may take on one path
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// The table of expected failures [default: tests/conformance.txt of this project]
    #[arg(long)]
    expect: Option<PathBuf>,
    /// Rewrite the table as a whole run went; its first lines of comment and its reasons are kept
    #[arg(long)]
    bless: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Be a worker that writes bundles to this folder (used by the program itself)
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
}

fn engine(text: &str) -> Result<Engine, String> {
    let mut all = Engine::ALL.into_iter().chain([Engine::Written]);
    let found = all.find(|e| e.to_string() == text);
    found.ok_or_else(|| "reference, compiled or written".into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.worker {
        Some(folder) => workers::serve(folder, args.cpu.as_deref())
            .map(|()| true)
            .map_err(|e| (8, format!("worker: {e}"))),
        None => run(&args),
    };
    match done {
        Ok(right) => ExitCode::from(u8::from(!right)),
        Err((code, what)) => {
            eprintln!("error: {what}");
            ExitCode::from(code)
        }
    }
}

/// Runs the suite; true if the table is right. An error has its exit code.
fn run(args: &Args) -> Result<bool, (u8, String)> {
    let start = Instant::now();
    let suite = args.suite.clone().unwrap_or_default();
    let tests = discover(&suite).map_err(|e| (8, e))?;
    let file = args.expect.clone().unwrap_or_else(default_table);
    let table = read_table(&file)?;
    let whole = args.only.is_empty() && args.path.is_none();
    if args.bless && !whole {
        return Err((2, "--bless needs a whole run, without --only and --path".into()));
    }
    let asked = |id: &str| args.only.is_empty() || args.only.iter().any(|o| id.contains(o));
    let engines: Vec<Engine> = args.path.map_or(Engine::ALL.to_vec(), |e| vec![e]);
    let work: Vec<Work> = tests
        .iter()
        .filter(|t| asked(&t.id()))
        .flat_map(|t| engines.iter().map(|&engine| Work { test: t.clone(), engine }))
        .collect();
    if work.is_empty() {
        return Err((2, format!("no test has {} in its name", args.only.join(" or "))));
    }
    let how = How {
        tier: args.cpu.clone(),
        jobs: args.jobs.unwrap_or_else(hub_runtime::cores),
        limit: Duration::from_secs(args.limit),
    };
    let program = std::env::current_exe().map_err(|e| (8, format!("this program: {e}")))?;
    let outcomes = workers::run_all(&program, &how, &work).map_err(|e| (8, e.to_string()))?;
    if args.bless {
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let head = old.lines().take_while(|l| l.starts_with('#'));
        let mut text: String = head.map(|l| format!("{l}\n")).collect();
        text += &table.bless(&work, &outcomes);
        std::fs::write(&file, text).map_err(|e| (8, format!("{}: {e}", file.display())))?;
    }
    let table = if args.bless { read_table(&file)? } else { table };
    let wrong = expected::check(&table, &work, &outcomes, whole);
    let own = whole && !args.json && args.expect.is_none();
    let foreign = !own || onnx_runtime(&program, &suite);
    let report = Run {
        suite: suite.display().to_string(),
        tier: args.cpu.as_deref().or(hub_runtime::best_tier()).unwrap_or("portable").into(),
        work: &work,
        outcomes: &outcomes,
        table: &table,
        wrong: &wrong,
        seconds: start.elapsed().as_secs_f64(),
    };
    match args.json {
        true => println!("{}", report.json()),
        false => print!("{}", report.text()),
    }
    Ok(wrong.nothing() && foreign)
}

/// Every model out to ONNX again and through ONNX Runtime, by `tests/convert.py`; true if it answers as
/// it should, or is not installed for `HUB_PYTHON` (`python3` where that is not set).
fn onnx_runtime(program: &Path, suite: &Path) -> bool {
    let hubc = program.with_file_name("hubc");
    if !hubc.is_file() {
        println!("ignored: converted files in ONNX Runtime (no hubc beside this program)");
        return true;
    }
    let python = std::env::var("HUB_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("convert.py");
    let mut call = Command::new(&python);
    call.arg(script).arg("--suite").arg("--data").arg(suite).arg("--hubc").arg(hubc);
    match call.status() {
        Ok(done) => done.success(),
        Err(e) => {
            println!("ignored: converted files in ONNX Runtime ({python}: {e})");
            true
        }
    }
}

fn default_table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance.txt")
}

fn read_table(file: &Path) -> Result<Table, (u8, String)> {
    let text =
        std::fs::read_to_string(file).map_err(|e| (8, format!("{}: {e}", file.display())))?;
    Table::parse(&text).map_err(|e| (2, format!("{}: {e}", file.display())))
}
