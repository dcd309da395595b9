//! What crosses crates: fixtures through every tier, ONNX's suite, crate directions, tidiness.
#![forbid(unsafe_code)]

pub mod ascend;
pub mod conformance;
pub mod cuda;
pub mod graphs;
#[path = "../../frontend/tests/mutate/mod.rs"]
pub mod mutate;
pub mod opencl;
pub mod sample;
#[path = "../../fuzz/src/run.rs"]
pub mod whole;

use hub_abi::dim::{Dim, Sym, SymEnv};
use hub_abi::plan::{Buf, Plan};
use hub_abi::trace;
use hub_cli::Failure;
use hub_cli::args::Running;
use hub_cli::compile::{Job, compile};
use hub_cli::report::Report;
use hub_cli::tensors::{self, Inputs};
use hub_models::{Case, Comparison, Tolerance};
use std::path::Path;

/// Tiers that a fixture is checked on: those this machine has, and portable.
pub fn tiers() -> Vec<&'static str> {
    let native = ["avx512", "avx2"].into_iter().filter(|t| hub_runtime::supports(t));
    native.chain(["portable"]).collect()
}

/// As [`tiers`], for bundles of `--precision bf16`.
pub fn tiers_bf16() -> Vec<&'static str> {
    let bf16 = ["avx512bf16"].into_iter().filter(|t| hub_runtime::supports(t));
    bf16.chain(tiers()).collect()
}

/// Exports a case's model for a tier.
pub fn export_one(case: &Case, bundle: &Path, tier: &str) -> Result<Report, Failure> {
    export_for(&case.model, bundle, Some(&[tier]))
}

/// Exports a case's model for every native tier.
pub fn export(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    export_for(&case.model, bundle, Some(&["avx512", "avx2"]))
}

/// Exports a case's model with `--precision bf16`, for every native tier.
pub fn export_bf16(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    let mut job = Job::plain(&case.model, bundle);
    job.set_bf16();
    job.check_ir = true;
    compile(&job)
}

/// Exports a model for native tiers (`None`: what an export without options takes; none at all: a
/// portable bundle), verifying the graph after each pass.
pub fn export_for(model: &Path, bundle: &Path, tiers: Option<&[&str]>) -> Result<Report, Failure> {
    let mut job = Job::plain(model, bundle);
    if let Some(t) = tiers {
        job.tiers = t.iter().map(|t| t.to_string()).collect();
    }
    job.check_ir = true;
    compile(&job)
}

/// Follows every native tier's plan through its arena ([`hub_abi::trace`]), each symbol being each of
/// a few sizes. Gives the most buffers of a tier that take over another's room.
///
/// # Errors
/// Where a step reads what another has overwritten.
pub fn check_memory(bundle: &Path) -> Result<usize, Failure> {
    let model = hub_runtime::Model::open(bundle, &hub_runtime::OpenOptions::default())?;
    let mut most = 0;
    for t in &model.manifest().tiers {
        let plan = model.plan(&t.name)?;
        for size in [1i64, 7, 64] {
            let mut env = SymEnv::default();
            for (i, s) in model.manifest().syms.iter().enumerate() {
                env.set(Sym(i as u32), size.clamp(s.min, s.max));
            }
            let equal = |(a, b): &(Dim, Dim)| a.eval(&env).is_ok_and(|n| b.eval(&env) == Ok(n));
            // Sizes that no inputs have together are left out.
            if model.manifest().constraints.iter().all(equal) && sizes_exist(&plan, &env) {
                trace::place_and_trace(&plan, &env).map_err(|e| {
                    let what = format!("{} of size {size}: {e}", t.name);
                    Failure::new(hub_cli::failure::INTERNAL, what)
                })?;
            }
        }
        let over = |b: &&Buf| matches!(b, Buf::Arena { over: Some(_), .. });
        most = most.max(plan.bufs.iter().filter(over).count());
    }
    Ok(most)
}

/// Are all buffers' sizes numbers that are not negative?
fn sizes_exist(plan: &Plan, env: &SymEnv) -> bool {
    plan.bufs.iter().all(|b| match b {
        Buf::Arena { bytes, .. } | Buf::Output { bytes, .. } => {
            bytes.eval(env).is_ok_and(|n| n >= 0)
        }
        Buf::Const { .. } | Buf::Input(_) => true,
    })
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
    let how =
        Running { threads, device: "cpu".into(), cpu, no_verify: true, limits: Default::default() };
    compare_on(case, tensors::open(bundle, &how, Inputs::Given)?, tolerance)
}

/// As [`check`], on an open session.
pub fn compare_on(
    case: &Case,
    mut o: tensors::Opened,
    tolerance: Tolerance,
) -> Result<Comparison, Failure> {
    let inputs = tensors::inputs_for(&o, &case.inputs)?;
    let got = o.run(&inputs)?;
    let compared = match &case.fixture {
        Some(f) => f.compare(&got, tolerance),
        None => hub_models::compare(&case.golden, &got, tolerance),
    };
    compared.map_err(|e| Failure::new(hub_cli::failure::INVALID, e.to_string()))
}

/// Runs sizes in turn in one session a tier; gives the greatest error beside the portable answer.
/// A dimension that ends in `.0` takes a size's first number, any other dynamic one the second.
pub fn several_sizes(bundle: &Path, tiers: &[&str], sizes: &[(i64, i64)]) -> Result<f64, Failure> {
    let sizes: Vec<(i64, i64, u64)> = sizes.iter().map(|s| (s.0, s.1, 3)).collect();
    sizes_in_turn(bundle, tiers, &sizes)
}

/// As [`several_sizes`], with a seed of the made-up inputs beside each size; a name with a colon is a
/// device's, others are tiers of the processor.
pub fn sizes_in_turn(
    bundle: &Path,
    names: &[&str],
    sizes: &[(i64, i64, u64)],
) -> Result<f64, Failure> {
    let open = |name: &str| {
        let (device, cpu) = match name.contains(':') {
            true => (name, None),
            false => ("cpu", Some(name.to_string())),
        };
        let device = device.into();
        let how = Running { threads: 2, device, cpu, no_verify: true, limits: Default::default() };
        tensors::open(bundle, &how, Inputs::Given)
    };
    let mut portable = open("portable")?;
    let mut worst = 0f64;
    for name in names {
        let mut o = open(name)?;
        for &(batch, other, seed) in sizes {
            let names = o.model.manifest().syms.iter().map(|s| s.name.clone());
            let batches = names.filter(|n| n.ends_with(".0")).map(|n| (n, batch)).collect();
            let inputs = tensors::generated(&o.model, &batches, other, seed)?;
            let want = portable.run(&inputs)?;
            let golden = hub_models::TensorFile {
                tensors: want.into_iter().map(|(n, t)| (format!("out:{n}"), t)).collect(),
                metadata: Default::default(),
            };
            let got = o.run(&inputs)?;
            let c = hub_models::compare(&golden, &got, Tolerance::default())
                .map_err(|e| Failure::new(hub_cli::failure::INVALID, e.to_string()))?;
            worst = worst.max(c.error());
        }
    }
    Ok(worst)
}
