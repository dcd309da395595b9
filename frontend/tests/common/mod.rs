//! The reference answer of a loaded model: portable form, interpreted, compared with its golden.

use hub_abi::Dtype;
use hub_frontend::{LoadOptions, load};
use hub_ir::portable::{Store, to_portable};
use hub_models::{Case, Comparison, NamedTensor, Tensors, Tolerance, compare};
use hub_portable::{BytesStore, Limits, Tensor, Value};
use std::sync::Arc;

/// safetensors' name of a dtype.
fn dtype_name(d: Dtype) -> &'static str {
    match d {
        Dtype::F32 => "F32",
        Dtype::F64 => "F64",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::I64 => "I64",
        Dtype::I32 => "I32",
        Dtype::I16 => "I16",
        Dtype::I8 => "I8",
        Dtype::U8 => "U8",
        Dtype::Bool => "BOOL",
        other => panic!("{other} is in no golden"),
    }
}

fn tensor(t: &NamedTensor) -> Result<Tensor, String> {
    let names = Dtype::all().filter(|d| format!("{d}").to_uppercase() == t.dtype);
    let dtype = names.chain([Dtype::Bool]).next().ok_or("unknown dtype")?;
    Tensor::from_bytes(dtype, &t.shape, &t.data).map_err(|e| e.to_string())
}

fn bytes(store: &Store) -> Vec<u8> {
    let mut all = vec![0; store.len as usize];
    for (at, piece) in &store.pieces {
        let at = *at as usize;
        all[at..at + piece.len()].copy_from_slice(piece);
    }
    all
}

/// Loads a case's model, runs it on the case's inputs, and compares.
pub fn check(case: &Case) -> Result<Comparison, String> {
    check_file(case, &case.model)
}

/// As [`check`], for a PIR model, with all dims of its inputs unknown but for channels.
#[allow(dead_code)]
pub fn check_dynamic(case: &Case) -> Result<Comparison, String> {
    let text = std::fs::read(&case.model).map_err(|e| e.to_string())?;
    let mut json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let ops = json["program"]["regions"][0]["blocks"][0]["ops"].as_array_mut();
    for op in ops.into_iter().flatten().filter(|o| o["#"] == "1.data") {
        let dims = op["O"][0]["TT"]["D"][1].as_array_mut().ok_or("an input without dims")?;
        let rank = dims.len();
        for (i, d) in dims.iter_mut().enumerate() {
            let channels = rank == 4 && i == 1;
            let pair = rank == 2 && i == 1 && *d == 2;
            if !channels && !pair {
                *d = (-1).into();
            }
        }
    }
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let model = dir.path().join("inference.json");
    std::fs::write(&model, json.to_string()).map_err(|e| e.to_string())?;
    let params = case.model.with_extension("pdiparams");
    std::fs::hard_link(&params, dir.path().join("inference.pdiparams"))
        .or_else(|_| std::fs::copy(&params, dir.path().join("inference.pdiparams")).map(|_| ()))
        .map_err(|e| e.to_string())?;
    check_file(case, &model)
}

fn check_file(case: &Case, model: &std::path::Path) -> Result<Comparison, String> {
    let loaded = load(model, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let got = answers(&loaded.graph, &case.inputs)?;
    let tolerance = Tolerance::default();
    match &case.fixture {
        Some(f) => f.compare(&got, tolerance),
        None => compare(&case.golden, &got, tolerance),
    }
    .map_err(|e| e.to_string())
}

/// The outputs of a graph for inputs by name.
pub fn answers(graph: &hub_ir::Graph, inputs: &Tensors) -> Result<Tensors, String> {
    let (portable, store) = to_portable(graph).map_err(|e| e.to_string())?;
    let store = BytesStore::new(Arc::new(bytes(&store)));
    let give = |name: &String| -> Result<Value, String> {
        let t = inputs.get(name).ok_or_else(|| format!("there is no input {name}"))?;
        Ok(tensor(t)?.into())
    };
    let inputs = graph.inputs.iter().map(give).collect::<Result<Vec<_>, _>>()?;
    let outs = hub_portable::run(&portable, &store, &inputs, &Limits::default());
    let outs = outs.map_err(|e| e.to_string())?;
    let mut got = Tensors::new();
    for (name, v) in graph.outputs.iter().zip(&outs) {
        let t = v.tensor().map_err(|e| e.to_string())?;
        let dtype = dtype_name(t.dtype()).to_string();
        let (shape, data) = (t.dims().to_vec(), t.bytes().to_vec());
        got.insert(name.clone(), NamedTensor { dtype, shape, data });
    }
    Ok(got)
}
