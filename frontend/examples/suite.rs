//! Runs ONNX's conformance tests through import and reference evaluation.
//!
//!     cargo run --release -p hub-frontend --example suite -- DIR [NAME-PART] [--quiet]
//!
//! DIR holds one folder a test (`model.onnx`, `test_data_set_*/input_*.pb`, `output_*.pb`), as
//! `onnx/backend/test/data/node` of the Python package does. Prints what does not pass, and counts.

use hub_frontend::onnx::proto::TensorProto;
use hub_frontend::{ErrorKind, LoadOptions, onnx};
use hub_ir::{Graph, Type, portable};
use hub_portable::{BytesStore, Limits, Tensor, Value};
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `SequenceProto`, as far as tests use it.
#[derive(Clone, PartialEq, Message)]
struct SequenceProto {
    #[prost(message, repeated, tag = "3")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "5")]
    sequences: Vec<SequenceProto>,
}

/// `OptionalProto`, as far as tests use it.
#[derive(Clone, PartialEq, Message)]
struct OptionalProto {
    #[prost(int32, tag = "2")]
    elem_type: i32,
    #[prost(message, optional, tag = "3")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "5")]
    sequence: Option<SequenceProto>,
}

type Fail = (&'static str, String);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quiet = args.iter().any(|a| a == "--quiet");
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let Some(dir) = words.first() else {
        eprintln!("usage: suite DIR [NAME-PART] [--quiet]");
        std::process::exit(2);
    };
    let part = words.get(1).map_or("", |s| s.as_str());
    let mut tests: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a readable folder")
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.join("model.onnx").is_file() && p.to_string_lossy().contains(part))
        .collect();
    tests.sort();
    std::panic::set_hook(Box::new(|_| {}));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &tests {
        let result = std::panic::catch_unwind(|| run_test(test)).unwrap_or_else(|e| {
            let text = e.downcast_ref::<String>().cloned();
            let text = text.or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
            Err(("PANIC", text.unwrap_or_default()))
        });
        let kind = match &result {
            Ok(()) => "pass",
            Err((kind, _)) => kind,
        };
        *counts.entry(kind).or_default() += 1;
        if let (Err((kind, why)), false) = (result, quiet) {
            let name = test.file_name().unwrap_or_default().to_string_lossy();
            let why: String = why.chars().take(300).collect();
            println!("{kind:12} {name}: {why}");
        }
    }
    println!("{} tests: {counts:?}", tests.len());
}

fn run_test(dir: &Path) -> Result<(), Fail> {
    let loaded = onnx::load(&dir.join("model.onnx"), &LoadOptions::default());
    let g = loaded.map_err(|e| match e.kind {
        ErrorKind::Unsupported(_) => ("unsupported", e.what),
        _ => ("import", e.to_string()),
    })?;
    let g = g.graph;
    let (p, store) = portable::to_portable(&g).map_err(|e| ("expand", e.to_string()))?;
    let mut bytes = vec![0u8; store.len as usize];
    for (at, data) in &store.pieces {
        bytes[*at as usize..*at as usize + data.len()].copy_from_slice(data);
    }
    let store = BytesStore::new(Arc::new(bytes));
    for set in 0.. {
        let set = dir.join(format!("test_data_set_{set}"));
        if !set.is_dir() {
            break;
        }
        let inputs = read_values(&set, "input", &input_types(&g))?;
        let limits = Limits::default();
        let outs = hub_portable::run(&p, &store, &inputs, &limits);
        let outs = outs.map_err(|e| ("run", e.to_string()))?;
        let want = read_values(&set, "output", &output_types(&g))?;
        for (i, (got, want)) in outs.iter().zip(&want).enumerate() {
            compare(got, want).map_err(|e| ("mismatch", format!("output {i}: {e}")))?;
        }
    }
    Ok(())
}

fn input_types(g: &Graph) -> Vec<Type> {
    g.regions[g.root()].params.iter().map(|&v| g.ty(v).clone()).collect()
}

fn output_types(g: &Graph) -> Vec<Type> {
    g.regions[g.root()].results.iter().map(|&v| g.ty(v).clone()).collect()
}

fn read_values(set: &Path, kind: &str, types: &[Type]) -> Result<Vec<Value>, Fail> {
    let mut out = vec![];
    for (i, ty) in types.iter().enumerate() {
        let file = set.join(format!("{kind}_{i}.pb"));
        let bytes = std::fs::read(&file).map_err(|e| ("data", e.to_string()))?;
        out.push(decode(&bytes, ty).map_err(|e| ("data", format!("{kind} {i}: {e}")))?);
    }
    Ok(out)
}

fn decode(bytes: &[u8], ty: &Type) -> Result<Value, String> {
    let text = |e: prost::DecodeError| e.to_string();
    match ty {
        Type::Tensor(t) => {
            let v = tensor(&TensorProto::decode(bytes).map_err(text)?)?;
            // The suite stores bfloat16 as its bits.
            match &v {
                Value::Tensor(x) if t.dtype == hub_ir::Dtype::BF16 && x.dtype() != t.dtype => {
                    let to = hub_ir::Prim::Bitcast { to: t.dtype };
                    let out = hub_portable::fold(&to, std::slice::from_ref(x), &Limits::default());
                    Ok(out.map_err(|e| e.to_string())?.remove(0).into())
                }
                _ => Ok(v),
            }
        }
        Type::Seq(_) => sequence(&SequenceProto::decode(bytes).map_err(text)?),
        Type::Opt(_) => {
            let o = OptionalProto::decode(bytes).map_err(text)?;
            let inner = match (&o.tensor, &o.sequence) {
                (Some(t), _) => Some(tensor(t)?),
                (_, Some(s)) => Some(sequence(s)?),
                _ => None,
            };
            Ok(Value::Opt(inner.map(Arc::new)))
        }
    }
}

fn tensor(t: &TensorProto) -> Result<Value, String> {
    let c = onnx::tensor_of(t).map_err(|e| e.to_string())?;
    let dims: Vec<usize> = t.dims.iter().map(|&d| d as usize).collect();
    let made = match c.ty.dtype {
        hub_ir::Dtype::Str => Tensor::strings(&dims, c.strings),
        dtype => Tensor::from_bytes(dtype, &dims, &c.data),
    };
    made.map(Value::Tensor).map_err(|e| e.to_string())
}

fn sequence(s: &SequenceProto) -> Result<Value, String> {
    let tensors = s.tensors.iter().map(tensor);
    Ok(Value::seq(tensors.chain(s.sequences.iter().map(sequence)).collect::<Result<_, _>>()?))
}

fn compare(got: &Value, want: &Value) -> Result<(), String> {
    match (got, want) {
        (Value::Tensor(a), Value::Tensor(b)) => compare_tensors(a, b),
        (Value::Seq(a), Value::Seq(b)) if a.len() == b.len() => {
            a.iter().zip(b.iter()).try_for_each(|(a, b)| compare(a, b))
        }
        (Value::Opt(Some(a)), Value::Opt(Some(b))) => compare(a, b),
        (Value::Opt(None), Value::Opt(None)) => Ok(()),
        _ => Err(format!("{} where {} is right", got.kind(), want.kind())),
    }
}

/// The suite's own rule: |got - want| <= atol + rtol * |want|.
fn compare_tensors(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.dims() != want.dims() {
        return Err(format!(
            "{} {:?} where {} {:?} is right",
            got.dtype(),
            got.dims(),
            want.dtype(),
            want.dims()
        ));
    }
    if got.dtype() == hub_ir::Dtype::Str {
        return if got.as_strings() == want.as_strings() { Ok(()) } else { Err("strings".into()) };
    }
    let (a, b) = (floats(got)?, floats(want)?);
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan());
        let error = (x - y).abs();
        if !same && (error.is_nan() || error > 1e-7 + 1e-3 * y.abs()) {
            return Err(format!("element {i} of {:?}: {x}, not {y}", got.dims()));
        }
    }
    Ok(())
}

fn floats(t: &Tensor) -> Result<Vec<f64>, String> {
    if matches!(t.dtype(), hub_ir::Dtype::C64 | hub_ir::Dtype::C128) {
        return Ok(t.bytes().iter().map(|&b| b.into()).collect());
    }
    let to = hub_ir::Prim::Cast { to: hub_ir::Dtype::F64, saturate: true };
    let out = hub_portable::fold(&to, std::slice::from_ref(t), &Limits::default());
    let out = out.map_err(|e| e.to_string())?;
    Ok(out[0].view::<f64>().map_err(|e| e.to_string())?.into_owned())
}
