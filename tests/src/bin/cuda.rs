//! Every fixture for CUDA: exported twice (the same bytes, in less than ten seconds), assembled by `ptxas`
//! for every architecture without spills, and run by the driver, its answers beside the golden. On a GPU,
//! where there is one, with times; else on a stand-in for libcuda that interprets PTX, which takes so
//! long that only small ones are run there, or with `--run` all.
//! Each as its model says, in f16 and in bf16.
//! `cargo run --release -p hub-tests --bin cuda [--run] [NAME…]`. Exits with 1 if anything is off.

use hub_models::Case;
use hub_passes::Precision;
use hub_tests::cuda;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Seconds that an export may take.
const MOST: f64 = 10.0;
/// Operations of a run that the stand-in is given unasked.
const SMALL: i64 = 1_000_000_000;

/// How answers are got.
struct On {
    /// A GPU, not the stand-in.
    gpu: bool,
    /// Operations of a run at most, and at a low precision.
    most: i64,
    most_narrow: i64,
}

fn main() -> ExitCode {
    match std::env::var(cuda::ON) {
        Ok(on) => fixtures(on == "gpu"),
        Err(_) => start(),
    }
}

/// This program again, in surroundings where the driver finds a device.
fn start() -> ExitCode {
    let gpu = cuda::gpu();
    match &gpu {
        Ok(name) => println!("on {name}"),
        Err(why) => println!("no GPU ({why}): a stand-in that interprets PTX"),
    }
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(e) => return failed(&e.to_string()),
    };
    let child = cuda::again(dir.path(), gpu.is_err())
        .and_then(|mut c| c.args(std::env::args_os().skip(1)).status().map_err(|e| e.to_string()));
    match child {
        Ok(status) => ExitCode::from(status.code().map_or(70, |c| c as u8)),
        Err(e) => failed(&e),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(8)
}

fn fixtures(gpu: bool) -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = wanted.iter().position(|w| w == "--run").map(|at| wanted.remove(at)).is_some();
    let up_to = |n: i64| if gpu || all { i64::MAX } else { n };
    let on = On { gpu, most: up_to(SMALL), most_narrow: up_to(SMALL / 4) };
    let ptxas = cuda::ptxas();
    if ptxas.is_none() {
        println!("ignored: ptxas (HUB_PTXAS may name it; it is not on the path)");
    }
    let (Ok(cases), Ok(dir)) = (hub_models::cases(), tempfile::tempdir()) else {
        return failed("no fixtures, or no folder for them");
    };
    println!(
        "{:<42} {:<4} {:>7} {:>7} {:>6} {:>5} {:>8}",
        "model", "", "export", "kernels", "steps", "host", "PTX"
    );
    let asked = |c: &&Case| wanted.is_empty() || wanted.iter().any(|w| c.name.contains(w));
    let (mut right, mut rows, mut skipped) = (0, 0, vec![]);
    let each = [Precision::F32, Precision::F16, Precision::Bf16];
    for (case, precision) in cases.iter().filter(asked).flat_map(|c| each.map(|p| (c, p))) {
        rows += 1;
        match row(case, precision, dir.path(), ptxas.as_deref(), &on) {
            Ok(ran) => {
                right += 1;
                let once = precision == Precision::F32;
                skipped.extend((!ran && once).then_some(&case.name[..]));
            }
            Err(e) => println!("    {e}"),
        }
    }
    println!("{right} of {rows} right");
    if !skipped.is_empty() {
        println!("not run, too large for the stand-in: {}", skipped.join(", "));
    }
    ExitCode::from(u8::from(right != rows || rows == 0))
}

/// One fixture; was it run?
fn row(
    case: &Case,
    precision: Precision,
    dir: &Path,
    ptxas: Option<&Path>,
    on: &On,
) -> Result<bool, String> {
    let (a, b) = (dir.join("a.hub"), dir.join("b.hub"));
    let start = Instant::now();
    let report = cuda::export(case, &a, precision).map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    cuda::export(case, &b, precision).map_err(|e| e.to_string())?;
    let same = std::fs::read(&a).ok() == std::fs::read(&b).ok();
    let text = cuda::ptx(&a).map_err(|e| e.to_string())?;
    let t = report.tiers.first().ok_or("no tier")?;
    println!(
        "{:<42} {:<4} {seconds:>6.1}s {:>7} {:>6} {:>5} {:>7}k",
        case.name,
        precision.dtype().map_or("f32", |d| d.name()),
        t.kernels,
        t.steps,
        t.host.len(),
        text.len() >> 10
    );
    t.host.iter().for_each(|(node, why)| println!("    host: {node}: {why}"));
    if let Some((node, _)) = t.host.iter().find(|(_, why)| why.contains("no schedule fits")) {
        return Err(format!("{node} has a kernel at another precision"));
    }
    if let Some(p) = ptxas {
        cuda::assemble(p, &text, dir)?;
    }
    let ran = answer(case, precision, &a, on)?;
    match (same, seconds < MOST) {
        (false, _) => Err("two exports differ".into()),
        (_, false) => Err(format!("longer than {MOST} s")),
        _ => Ok(ran),
    }
}

/// Runs a fixture and compares; was it run?
fn answer(case: &Case, precision: Precision, bundle: &Path, on: &On) -> Result<bool, String> {
    let (mut o, inputs) = cuda::open(case, bundle).map_err(|e| e.to_string())?;
    let operations = cuda::operations(&o);
    // The stand-in takes its time: of tensor cores it is shown small models.
    let most = if precision == Precision::F32 { on.most } else { on.most_narrow };
    if operations > most {
        println!("    not run: {} million operations", operations / 1_000_000);
        return Ok(false);
    }
    let ms = match on.gpu {
        true => Some(cuda::time(&mut o, &inputs).map_err(|e| e.to_string())?),
        false => None,
    };
    let start = Instant::now();
    let c = cuda::check_on(case, o, &inputs).map_err(|e| e.to_string())?;
    // (What a comparison says of itself is for f32.)
    let said = match precision {
        Precision::F32 => c.to_string(),
        _ => format!("off by {:.1e}", c.error()),
    };
    match ms {
        Some(ms) => println!("    {said}, median {ms:.3} ms"),
        None => println!("    {said}, two runs in {:.1} s", start.elapsed().as_secs_f64()),
    }
    cuda::wrong(&c, precision).map_or(Ok(true), |_| Err("wrong answers".into()))
}
