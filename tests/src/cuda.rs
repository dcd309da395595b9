//! The CUDA target: `ptxas` as the judge of every kernel's text, the driver on a GPU or, where there is
//! none, on a stand-in for libcuda (`hub_cudaemu`) that interprets PTX, and the interpreter alone.

use crate::compare_on;
use hub_cli::Failure;
use hub_cli::compile::{Job, compile};
use hub_cli::report::Report;
use hub_cli::tensors::{Opened, inputs_for};
use hub_models::{Case, Comparison, NamedTensor, Tolerance};
use hub_passes::Precision;
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Architectures that every kernel is assembled for.
pub const ARCHS: [&str; 2] = ["sm_80", "sm_90a"];

/// The name of the tier.
pub const TIER: &str = "sm80";

/// NVIDIA's assembler: where `HUB_PTXAS` says, or on the path.
pub fn ptxas() -> Option<PathBuf> {
    let named = std::env::var_os("HUB_PTXAS").map(PathBuf::from);
    let runs = |p: &PathBuf| Command::new(p).arg("--version").output().is_ok();
    named.into_iter().chain([PathBuf::from("ptxas")]).find(runs)
}

/// The device that is used.
pub const DEVICE: &str = "cuda:0";

/// What [`DEVICE`] is in a process that [`again`] started: `gpu` or `stand-in`.
pub const ON: &str = "HUB_TESTS_CUDA";

/// A library of the workspace, beside this program.
fn library(name: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let dir = program.parent().ok_or("a program in no folder")?;
    // (What cargo built for this program is in `deps`; beside it may lie an older one.)
    let found = [dir.join("deps").join(name), dir.join(name)].into_iter().find(|p| p.is_file());
    found.ok_or_else(|| format!("{name} is not beside {}", program.display()))
}

/// The driver's library.
///
/// # Errors
/// It was not built.
pub fn driver() -> Result<PathBuf, String> {
    library("libhub_cuda.so")
}

/// The GPU that the driver finds.
///
/// # Errors
/// Why it finds none.
pub fn gpu() -> Result<String, String> {
    hub_runtime::device::name_of(&driver()?, 0).map_err(|e| e.to_string())
}

/// This program once more, whose runtime finds the driver; and the driver a GPU or, with `stand_in`, the
/// stand-in for libcuda, to which a link is made in `dir`.
///
/// # Errors
/// A library was not built.
pub fn again(dir: &Path, stand_in: bool) -> Result<Command, String> {
    let mut c = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    c.env("HUB_DEVICES", driver()?).env(ON, if stand_in { "stand-in" } else { "gpu" });
    if stand_in {
        let libcuda = dir.join("libcuda.so.1");
        std::os::unix::fs::symlink(library("libhub_cudaemu.so")?, &libcuda)
            .map_err(|e| e.to_string())?;
        c.env("LD_LIBRARY_PATH", dir);
    }
    Ok(c)
}

/// A session on [`DEVICE`], with a case's inputs.
///
/// # Errors
/// No driver, no device, or what the device says of the bundle's code.
pub fn open(case: &Case, bundle: &Path) -> Result<(Opened, Vec<NamedTensor>), Failure> {
    let model = Model::open(bundle, &OpenOptions::default())?;
    let options = SessionOptions { device: DEVICE.into(), ..Default::default() };
    let session = Session::new(&model, &options)?;
    let mut o = Opened { model, session };
    let inputs = inputs_for(&o, &case.inputs)?;
    o.session.bind(&inputs.iter().map(|t| &t.shape[..]).collect::<Vec<_>>())?;
    Ok((o, inputs))
}

/// Operations of a run, where its plan says: sums of what its steps do.
pub fn operations(o: &Opened) -> i64 {
    let one = |s: hub_runtime::StepInfo| Some(s.flops?.max(s.bytes? / 4) * s.calls?);
    o.session.steps().into_iter().filter_map(one).sum()
}

/// Compares the device's second answer (which is a replay of what was recorded) with the case's golden.
pub fn check_on(case: &Case, mut o: Opened, inputs: &[NamedTensor]) -> Result<Comparison, Failure> {
    o.run_only(inputs)?;
    compare_on(case, o, Tolerance::default())
}

/// The median of a run's milliseconds, over a second or so.
pub fn time(o: &mut Opened, inputs: &[NamedTensor]) -> Result<f64, Failure> {
    let (start, mut all) = (Instant::now(), vec![]);
    while all.len() < 5 || (all.len() < 1000 && start.elapsed().as_secs() < 1) {
        let t = Instant::now();
        o.run_only(inputs)?;
        all.push(t.elapsed().as_secs_f64() * 1e3);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// Exports a case's model for CUDA.
pub fn export(case: &Case, bundle: &Path, precision: Precision) -> Result<Report, Failure> {
    let mut job = Job::plain(&case.model, bundle);
    (job.tiers, job.precision, job.check_ir) = (vec![TIER.into()], precision, true);
    compile(&job)
}

/// What is wrong with answers: beyond their tolerance, or, at a low precision, less alike than a cosine
/// of 0.999 says.
pub fn wrong(c: &Comparison, precision: Precision) -> Option<String> {
    let right = match precision {
        Precision::F32 => c.ok(),
        _ => c.outputs.iter().all(|o| o.problem.is_none() && o.cosine <= 1e-3),
    };
    (!right).then(|| format!("{precision:?}: {c}"))
}

/// A bundle's PTX.
pub fn ptx(bundle: &Path) -> Result<Vec<u8>, Failure> {
    let model = Model::open(bundle, &OpenOptions::default())?;
    let text = model.bundle().section(&hub_abi::bundle::code_section(TIER));
    Ok(text.map(<[u8]>::to_vec).unwrap_or_default())
}

/// Assembles PTX for every architecture; spills and local memory are errors.
///
/// # Errors
/// What the assembler says.
pub fn assemble(ptxas: &Path, text: &[u8], dir: &Path) -> Result<(), String> {
    let (source, cubin) = (dir.join("m.ptx"), dir.join("m.cubin"));
    std::fs::write(&source, text).map_err(|e| e.to_string())?;
    for arch in ARCHS {
        let mut c = Command::new(ptxas);
        c.arg(format!("-arch={arch}")).args(["-warn-spills", "-warn-lmem-usage", "-Werror"]);
        let out = c.arg("-o").arg(&cubin).arg(&source).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            return Err(format!("{arch}: {}", said.lines().take(8).collect::<Vec<_>>().join("\n")));
        }
    }
    Ok(())
}

/// Runs a bundle's PTX by the interpreter alone, in this process's memory, and compares with the case's
/// golden.
pub fn check(case: &Case, bundle: &Path, tolerance: Tolerance) -> Result<Comparison, Failure> {
    let model = Model::open(bundle, &OpenOptions::default())?;
    let options = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::on(&model, &options, &hub_testrun::ptx::SoftGpu)?;
    compare_on(case, Opened { model, session }, tolerance)
}
