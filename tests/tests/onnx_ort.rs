//! The models of `frontend/tests/ort`, compiled: ONNX Runtime's answers again.

#[path = "../../frontend/tests/ort/mod.rs"]
mod ort;

use hub_runtime::{Model, OpenOptions, Session, SessionOptions};

fn run(golden: &ort::Golden) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let bundle = dir.path().join("model.hub");
    hub_tests::export_for(&golden.path, &bundle, None).map_err(|e| e.what)?;
    let failed = |e: hub_runtime::Error| e.to_string();
    let model = Model::open(&bundle, &OpenOptions::default()).map_err(failed)?;
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::new(&model, &options).map_err(failed)?;
    let ins = golden.feeds(model.manifest().inputs.iter().map(|i| &*i.name))?;
    let outs = session.run_values(&ins).map_err(failed)?;
    let names: Vec<String> = model.manifest().outputs.iter().map(|o| o.name.clone()).collect();
    golden.check(&names, &outs)
}

#[test]
fn compiled_answers_are_onnx_runtimes() {
    ort::judge(run);
}
