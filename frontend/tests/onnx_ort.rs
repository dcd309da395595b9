//! Operators of com.microsoft and ai.onnx.ml against ONNX Runtime's own answers: the models beside
//! `ort/make.py`, which made them, hold inputs and outputs as initializers that nothing uses.

use hub_frontend::onnx::proto::{ModelProto, TensorProto};
use hub_frontend::{LoadOptions, onnx};
use hub_ir::{Prim, Tensor, portable};
use hub_portable::{BytesStore, Limits, Value};
use prost::Message;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn tensor(t: &TensorProto) -> Tensor {
    let c = onnx::tensor_of(t).expect("a sound tensor");
    let dims: Vec<usize> = t.dims.iter().map(|&d| d as usize).collect();
    match c.ty.dtype {
        hub_ir::Dtype::Str => Tensor::strings(&dims, c.strings),
        dtype => Tensor::from_bytes(dtype, &dims, &c.data),
    }
    .expect("as many as the shape says")
}

fn floats(t: &Tensor) -> Vec<f64> {
    let to = Prim::Cast { to: hub_ir::Dtype::F64, saturate: true };
    let out = hub_portable::fold(&to, std::slice::from_ref(t), &Limits::default());
    out.expect("numbers")[0].view::<f64>().expect("numbers").into_owned()
}

/// What is wrong, if anything. Quantised results may differ by one step where a value lies between
/// two; others by 1e-4 of the largest. Probabilities of support vector machines are exact here, where
/// ONNX Runtime stops iterating within 0.005 over the number of classes.
fn compare(got: &Tensor, want: &Tensor, iterated: bool) -> Result<(), String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        return Err(format!("{got:?} is not {want:?}"));
    }
    if got.dtype() == hub_ir::Dtype::Str {
        return if got == want { Ok(()) } else { Err(format!("{got:?} is not {want:?}")) };
    }
    let (a, b) = (floats(got), floats(want));
    let top = b.iter().fold(0f64, |m, v| m.max(v.abs()));
    let room = match got.dtype() {
        d if d.is_float() && iterated => 0.005 / 2.0,
        d if d.is_float() => 1e-4 * top + 1e-6,
        d if d.size() == 1 => 1.0,
        _ => 0.0,
    };
    let far = |(x, y): &(&f64, &f64)| !(x == y || (*x - *y).abs() <= room);
    match a.iter().zip(&b).position(|p| far(&p)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} of {:?}: {} is not {}", got.dims(), a[i], b[i])),
    }
}

fn run(path: &Path) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let bytes = std::fs::read(path).map_err(|e| text(&e))?;
    let model = ModelProto::decode(&bytes[..]).map_err(|e| text(&e))?;
    let held = &model.graph.as_ref().ok_or("no graph")?.initializer;
    let part = |prefix: &str| -> Vec<(String, Tensor)> {
        let own = held.iter().filter_map(|t| Some((t.name.strip_prefix(prefix)?, t)));
        own.map(|(n, t)| (n.to_string(), tensor(t))).collect()
    };
    let loaded = onnx::load_bytes(bytes.clone().into(), path, &LoadOptions::default());
    let g = loaded.map_err(|e| text(&e))?.graph;
    let (p, store) = portable::to_portable(&g).map_err(|e| text(&e))?;
    let mut all = vec![0u8; store.len as usize];
    for (at, data) in &store.pieces {
        all[*at as usize..*at as usize + data.len()].copy_from_slice(data);
    }
    let given = part("in:");
    let find = |n: &String| given.iter().find(|g| g.0 == *n).map(|g| Value::Tensor(g.1.clone()));
    let ins: Option<Vec<Value>> = p.inputs.iter().map(find).collect();
    let store = BytesStore::new(Arc::new(all));
    let outs =
        hub_portable::run(&p, &store, &ins.ok_or("an input is missing")?, &Limits::default());
    let outs = outs.map_err(|e| text(&e))?;
    let iterated = path.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("_prob"));
    for (name, want) in part("out:") {
        let at = p.outputs.iter().position(|o| *o == name).ok_or("an output is missing")?;
        let got = outs[at].tensor().map_err(|e| text(&e))?;
        compare(got, &want, iterated).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

#[test]
fn answers_are_onnx_runtimes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ort");
    let files = std::fs::read_dir(&dir).expect("a folder");
    let mut files: Vec<PathBuf> = files.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    assert!(files.len() > 100, "{} files", files.len());
    let mut wrong = vec![];
    for f in &files {
        if let Err(e) = run(f) {
            let name = f.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            wrong.push(format!("{name}: {e}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        files.len(),
        wrong.join("\n")
    );
}
