//! The CUDA target without a GPU: `ptxas` as the judge of every kernel's text, and the software GPU of
//! `hub_testrun` to run whole models.

use crate::compare_on;
use hub_cli::Failure;
use hub_cli::compile::{Job, compile};
use hub_cli::report::Report;
use hub_models::{Case, Comparison, Tolerance};
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Exports a case's model for CUDA.
pub fn export(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    let mut job = Job::plain(&case.model, bundle);
    job.tiers = vec![TIER.into()];
    job.check_ir = true;
    compile(&job)
}

/// A bundle's PTX.
pub fn ptx(bundle: &Path) -> Result<Vec<u8>, Failure> {
    let model = hub_runtime::Model::open(bundle, &hub_runtime::OpenOptions::default())?;
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

/// Runs a bundle's PTX on the software GPU and compares with the case's golden.
pub fn check(case: &Case, bundle: &Path, tolerance: Tolerance) -> Result<Comparison, Failure> {
    let model = hub_runtime::Model::open(bundle, &hub_runtime::OpenOptions::default())?;
    let options = hub_runtime::SessionOptions { threads: 1, ..Default::default() };
    let session = hub_runtime::Session::on(&model, &options, &hub_testrun::ptx::SoftGpu)?;
    compare_on(case, hub_cli::tensors::Opened { model, session }, tolerance)
}
