//! Paddle's own answers for single operators (`tests/paddle/`) through the compiled path: exported,
//! opened, and run by the runtime's Rust API on this machine's best tier. The reference path is
//! `frontend/tests/paddle_ops.rs`.

#[path = "../../frontend/tests/goldens/mod.rs"]
mod goldens;

use goldens::{Form, Golden};
use hub_portable::{Tensor, Value};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use std::path::Path;

/// One test a family, so that they run beside each other.
const FAMILIES: &[&str] = &[
    "attention",
    "detection",
    "elementwise",
    "flow",
    "fused",
    "linear",
    "nn",
    "quant",
    "reduce",
    "sequence",
    "shape",
];

/// Steps that ran as kernels, and on the host.
#[derive(Default)]
struct Steps {
    kernels: usize,
    host: usize,
}

fn check(golden: &Golden, form: Form, dir: &Path, steps: &mut Steps) -> Result<(), String> {
    let text = |e: hub_runtime::Error| e.to_string();
    let model = golden.write(form, dir)?;
    let bundle = dir.join("m.hub");
    let tier = hub_runtime::best_tier();
    hub_tests::export_for(&model, &bundle, Some(tier.as_slice())).map_err(|e| e.to_string())?;
    let model = Model::open(&bundle, &OpenOptions::default()).map_err(text)?;
    let mut session =
        Session::new(&model, &SessionOptions { threads: 1, ..Default::default() }).map_err(text)?;
    for s in session.steps() {
        *(if s.tier == "portable" { &mut steps.host } else { &mut steps.kernels }) += 1;
    }
    let inputs = &model.manifest().inputs;
    let given = inputs.iter().map(|i| golden.input(&i.name)).collect::<Result<Vec<_>, _>>()?;
    let got = session.run_values(&given).map_err(text)?;
    let tensors = got.iter().map(Value::tensor).map(|t| t.cloned());
    let tensors = tensors.collect::<Result<Vec<Tensor>, _>>().map_err(|e| e.to_string())?;
    golden.judge(form, &tensors)
}

fn family(name: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let cases = goldens::all().remove(name).expect("the family");
    let (mut count, mut steps, mut wrong) = (0, Steps::default(), vec![]);
    for golden in &cases {
        for form in [Form::Legacy, Form::Pir].into_iter().filter(|&f| golden.has(f)) {
            count += 1;
            if let Err(e) = check(golden, form, dir.path(), &mut steps) {
                wrong.push(format!("{} {form:?}: {e}", golden.case));
            }
        }
    }
    println!("{name}: {count} models, {} kernels, {} host steps", steps.kernels, steps.host);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_family_is_here() {
    let found: Vec<String> = goldens::all().into_keys().collect();
    assert_eq!(found, FAMILIES);
}

#[test]
fn attention_when_compiled() {
    family("attention");
}

#[test]
fn detection_when_compiled() {
    family("detection");
}

#[test]
fn elementwise_when_compiled() {
    family("elementwise");
}

#[test]
fn flow_when_compiled() {
    family("flow");
}

#[test]
fn fused_when_compiled() {
    family("fused");
}

#[test]
fn linear_when_compiled() {
    family("linear");
}

#[test]
fn nn_when_compiled() {
    family("nn");
}

#[test]
fn quant_when_compiled() {
    family("quant");
}

#[test]
fn reduce_when_compiled() {
    family("reduce");
}

#[test]
fn sequence_when_compiled() {
    family("sequence");
}

#[test]
fn shape_when_compiled() {
    family("shape");
}
