//! What crosses crates: fixtures through every tier, crate directions, tidiness.
#![forbid(unsafe_code)]

use hub_cli::args::Running;
use hub_cli::compile::{Job, compile};
use hub_cli::report::Report;
use hub_cli::{Failure, tensors};
use hub_models::{Case, Comparison, Tolerance};
use std::path::Path;

/// Tiers that a fixture is checked on: those this machine has, and portable.
pub fn tiers() -> Vec<&'static str> {
    let native = ["avx512", "avx2"].into_iter().filter(|t| hub_runtime::supports(t));
    native.chain(["portable"]).collect()
}

/// Exports a case's model for every native tier.
pub fn export(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    let mut job = Job::plain(&case.model, bundle);
    job.tiers = vec!["avx512".into(), "avx2".into()];
    job.check_ir = true;
    compile(&job)
}

/// Runs a case's inputs on a tier and compares with its golden.
pub fn check(
    case: &Case,
    bundle: &Path,
    tier: &str,
    threads: i32,
    tolerance: Tolerance,
) -> Result<Comparison, Failure> {
    let cpu = Some(tier.to_string());
    let how = Running { threads, device: "cpu".into(), cpu, no_verify: true };
    let mut o = tensors::open(bundle, &how)?;
    let inputs = tensors::inputs_for(&o, &case.inputs)?;
    let got = o.run(&inputs)?;
    let compared = match &case.fixture {
        Some(f) => f.compare(&got, tolerance),
        None => hub_models::compare(&case.golden, &got, tolerance),
    };
    compared.map_err(|e| Failure::new(hub_cli::failure::INVALID, e.to_string()))
}
