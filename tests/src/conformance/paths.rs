//! The two paths that a test takes.

use super::data::{self, Set};
use super::judge;
use super::{Engine, Kind, Outcome, Test};
use hub_abi::bundle::IoInfo;
use hub_abi::shape::Type;
use hub_frontend::onnx::write::WriteOptions;
use hub_frontend::{ErrorKind, FrontendError, LoadOptions, onnx};
use hub_ir::portable;
use hub_portable::{BytesStore, Limits, Value};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Runs a test on a path. `tier` is that of compiled models (the best of this machine if `None`),
/// `scratch` a folder for bundles.
pub fn run(test: &Test, engine: Engine, tier: Option<&str>, scratch: &Path) -> Outcome {
    let work = || match engine {
        Engine::Reference => reference(test, false),
        Engine::Written => reference(test, true),
        Engine::Compiled => compiled(test, tier, scratch),
    };
    // Which file it was in goes without saying, and lies elsewhere on another machine.
    let place = format!("{}: ", test.model().display());
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(o)) | Ok(Err(o)) => Outcome { why: o.why.replace(&place, ""), ..o },
        Err(e) => {
            let text = e.downcast_ref::<String>().map(|s| s.as_str());
            let text = text.or_else(|| e.downcast_ref::<&str>().copied());
            Outcome::fail(Kind::Panic, text.unwrap_or("no message"))
        }
    }
}

/// The portable interpreter's answer; `written` takes the model out to ONNX and in again first.
fn reference(test: &Test, written: bool) -> Result<Outcome, Outcome> {
    let options = LoadOptions::default();
    let mut g = onnx::load(&test.model(), &options).map_err(refused)?.graph;
    if written {
        let out = onnx::write::convert(&g, &WriteOptions::default()).map_err(refused)?;
        let back = onnx::load_bytes(out.to_bytes().into(), Path::new(""), &options);
        g = back.map_err(|e| Outcome::fail(Kind::Import, format!("read again: {e}")))?.graph;
    }
    let root = &g.regions[g.root()];
    let types = |values: &[hub_ir::Value]| -> Vec<Type> {
        values.iter().map(|&v| g.ty(v).clone()).collect()
    };
    let (inputs, outputs) = (types(&root.params), types(&root.results));
    let expanded = portable::to_portable(&g);
    let (p, store) = expanded.map_err(|e| Outcome::fail(Kind::Compile, e.to_string()))?;
    let mut bytes = vec![0u8; store.len as usize];
    for (at, data) in &store.pieces {
        bytes[*at as usize..*at as usize + data.len()].copy_from_slice(data);
    }
    let store = BytesStore::new(Arc::new(bytes));
    judge_sets(test, &inputs, &outputs, &mut |values| {
        hub_portable::run(&p, &store, values, &Limits::default()).map_err(|e| e.to_string())
    })
}

fn compiled(test: &Test, tier: Option<&str>, scratch: &Path) -> Result<Outcome, Outcome> {
    let bundle = scratch.join("model.hub");
    let tiers = tier.as_slice();
    let tiers = if tier == Some("portable") { &[] } else { tiers };
    let exported = crate::export_for(&test.model(), &bundle, tier.is_some().then_some(tiers));
    exported.map_err(|e| match e.code {
        hub_cli::failure::UNSUPPORTED => Outcome::fail(Kind::Unsupported, e.what),
        hub_cli::failure::INVALID => Outcome::fail(Kind::Import, e.what),
        _ => Outcome::fail(Kind::Compile, e.what),
    })?;
    let failed = |e: hub_runtime::Error| Outcome::fail(Kind::Run, e.to_string());
    let model = Model::open(&bundle, &OpenOptions::default()).map_err(failed)?;
    let options =
        SessionOptions { threads: 1, tier: tier.map(str::to_string), ..SessionOptions::default() };
    let mut session = Session::new(&model, &options).map_err(failed)?;
    let steps = session.steps();
    let host = steps.iter().filter(|s| s.tier == "portable").count();
    let types = |io: &[IoInfo]| -> Vec<Type> { io.iter().map(|i| i.ty.clone()).collect() };
    let (inputs, outputs) = (types(&model.manifest().inputs), types(&model.manifest().outputs));
    let mut outcome = judge_sets(test, &inputs, &outputs, &mut |values| {
        session.run_values(values).map_err(|e| e.to_string())
    });
    let (Ok(o) | Err(o)) = &mut outcome;
    o.steps = Some((steps.len() - host, host));
    outcome
}

fn refused(e: FrontendError) -> Outcome {
    match e.kind {
        ErrorKind::Unsupported(_) => Outcome::fail(Kind::Unsupported, e.to_string()),
        _ => Outcome::fail(Kind::Import, e.to_string()),
    }
}

type Runner<'a> = &'a mut dyn FnMut(&[Value]) -> Result<Vec<Value>, String>;

/// Runs every data set and compares with its answers.
fn judge_sets(
    test: &Test,
    inputs: &[Type],
    outputs: &[Type],
    run: Runner<'_>,
) -> Result<Outcome, Outcome> {
    let sets = data::sets(test, inputs, outputs).map_err(|e| Outcome::fail(Kind::Data, e))?;
    let drawn = std::fs::read(test.model()).is_ok_and(|m| judge::draws_unseeded(&m));
    for set in &sets {
        judge_set(set, drawn, test.tolerance(), run)?;
    }
    Ok(match drawn {
        true => Outcome::fail(Kind::PassByDistribution, "drawn at random without a seed"),
        false => Outcome::fail(Kind::Pass, ""),
    })
}

fn judge_set(
    set: &Set,
    drawn: bool,
    tolerance: (f64, f64),
    run: Runner<'_>,
) -> Result<(), Outcome> {
    let got = run(&set.inputs).map_err(|e| Outcome::fail(Kind::Run, e))?;
    if got.len() != set.outputs.len() {
        let what = format!("{} outputs, {} are right", got.len(), set.outputs.len());
        return Err(Outcome::fail(Kind::Mismatch, what));
    }
    for (i, (got, want)) in got.iter().zip(&set.outputs).enumerate() {
        let Some(want) = want else { continue };
        let compared = match drawn {
            true => judge::compare_drawn(got, want),
            false => judge::compare(got, want, tolerance),
        };
        compared.map_err(|e| Outcome::fail(Kind::Mismatch, format!("output {i}: {e}")))?;
    }
    Ok(())
}
