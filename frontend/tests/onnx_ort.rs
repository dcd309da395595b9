//! Operators of com.microsoft and ai.onnx.ml, and the newest of ONNX's own, against ONNX Runtime's own
//! answers: the models in `ort/`, which `ort/make.py` made, hold inputs and outputs as initializers that
//! nothing uses. `tests/tests/onnx_ort.rs` runs them compiled.

mod ort;

use hub_frontend::{LoadOptions, onnx};
use hub_ir::portable;
use hub_portable::{BytesStore, Limits};
use std::sync::Arc;

fn run(golden: &ort::Golden) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let loaded = onnx::load(&golden.path, &LoadOptions::default());
    let g = loaded.map_err(|e| text(&e))?.graph;
    let (p, store) = portable::to_portable(&g).map_err(|e| text(&e))?;
    let mut all = vec![0u8; store.len as usize];
    for (at, data) in &store.pieces {
        all[*at as usize..*at as usize + data.len()].copy_from_slice(data);
    }
    let ins = golden.feeds(p.inputs.iter().map(|n| &**n))?;
    let store = BytesStore::new(Arc::new(all));
    let outs = hub_portable::run(&p, &store, &ins, &Limits::default());
    golden.check(&p.outputs, &outs.map_err(|e| text(&e))?)
}

#[test]
fn answers_are_onnx_runtimes() {
    ort::judge(run);
}
