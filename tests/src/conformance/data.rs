//! A test's inputs and answers: protobuf messages, read by the type that the model gives the value.

use super::Test;
use hub_abi::shape::Type;
use hub_abi::{Dtype, prim::Prim};
use hub_frontend::onnx;
use hub_frontend::onnx::proto::TensorProto;
use hub_portable::{Limits, Tensor, Value};
use prost::Message;
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

/// Inputs and the answers to them.
pub struct Set {
    /// In the model's order.
    pub inputs: Vec<Value>,
    /// In the model's order; `None` where the suite has no answer.
    pub outputs: Vec<Option<Value>>,
}

/// The data sets of a test whose model has these inputs and outputs; at least one.
pub fn sets(test: &Test, inputs: &[Type], outputs: &[Type]) -> Result<Vec<Set>, String> {
    if !test.at.is_dir() {
        return Ok(vec![light(&test.at, inputs, outputs)?]);
    }
    let folder = |n: usize| test.at.join(format!("test_data_set_{n}"));
    let folders = (0..).map(folder).take_while(|p| p.is_dir());
    let sets = folders.map(|dir| folder_set(&dir, inputs, outputs));
    let sets: Vec<Set> = sets.collect::<Result<_, String>>()?;
    match sets.is_empty() {
        true => Err("it has no test_data_set_0".into()),
        false => Ok(sets),
    }
}

fn folder_set(dir: &Path, inputs: &[Type], outputs: &[Type]) -> Result<Set, String> {
    let file = |kind: &str, i: usize| dir.join(format!("{kind}_{i}.pb"));
    let given = inputs.iter().enumerate().map(|(i, ty)| read(&file("input", i), ty));
    let wanted = outputs.iter().enumerate().map(|(i, ty)| {
        let file = file("output", i);
        if file.exists() { read(&file, ty).map(Some) } else { Ok(None) }
    });
    let set = Set {
        inputs: given.collect::<Result<_, _>>()?,
        outputs: wanted.collect::<Result<Vec<_>, _>>()?,
    };
    match set.outputs.iter().all(Option::is_none) {
        true => Err(format!("{}: no answers", dir.display())),
        false => Ok(set),
    }
}

/// The suite's rule for `light`: element `i` of `n` is `i / n`; the answer lies beside the model.
fn light(model: &Path, inputs: &[Type], outputs: &[Type]) -> Result<Set, String> {
    let ramp = |ty: &Type| {
        let dims = ty.as_tensor().filter(|t| t.dtype == Dtype::F32).map(|t| &t.dims);
        let dims = dims.ok_or("an input that is no float tensor")?;
        let size = |d: &hub_abi::Dim| d.as_const().and_then(|d| usize::try_from(d).ok());
        let dims: Vec<usize> = dims.iter().map(|d| size(d).unwrap_or(1)).collect();
        let n: usize = dims.iter().product();
        let data = (0..n).map(|i| (i as f64 / n as f64) as f32).collect();
        Tensor::new(&dims, data).map(Value::from).map_err(|e| e.to_string())
    };
    let stem = model.with_extension("").display().to_string();
    let answer = |(i, ty): (usize, &Type)| {
        let file = PathBuf::from(format!("{stem}_output_{i}.pb"));
        read(&file, ty).map(Some)
    };
    Ok(Set {
        inputs: inputs.iter().map(ramp).collect::<Result<_, String>>()?,
        outputs: outputs.iter().enumerate().map(answer).collect::<Result<_, String>>()?,
    })
}

fn read(file: &Path, ty: &Type) -> Result<Value, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = std::fs::read(file).map_err(|e| format!("{name}: {e}"))?;
    decode(&bytes, ty).map_err(|e| format!("{name}: {e}"))
}

/// Reads a value of a type from its message.
pub fn decode(bytes: &[u8], ty: &Type) -> Result<Value, String> {
    let text = |e: prost::DecodeError| e.to_string();
    match ty {
        Type::Tensor(t) => {
            let v = tensor(&TensorProto::decode(bytes).map_err(text)?)?;
            // The suite stores bfloat16 as its bits.
            if t.dtype == Dtype::BF16 && v.dtype() == Dtype::U16 {
                let to = Prim::Bitcast { to: t.dtype };
                let out = hub_portable::fold(&to, &[v], &Limits::default());
                return Ok(out.map_err(|e| e.to_string())?.remove(0).into());
            }
            Ok(v.into())
        }
        Type::Seq(_) => sequence(&SequenceProto::decode(bytes).map_err(text)?),
        Type::Opt(_) => {
            let o = OptionalProto::decode(bytes).map_err(text)?;
            let inner = match (&o.tensor, &o.sequence) {
                (Some(t), _) => Some(tensor(t)?.into()),
                (_, Some(s)) => Some(sequence(s)?),
                _ => None,
            };
            Ok(Value::Opt(inner.map(Arc::new)))
        }
    }
}

fn tensor(t: &TensorProto) -> Result<Tensor, String> {
    let c = onnx::tensor_of(t).map_err(|e| e.to_string())?;
    let dims: Result<Vec<usize>, _> = t.dims.iter().map(|&d| usize::try_from(d)).collect();
    let dims = dims.map_err(|e| e.to_string())?;
    let made = match c.ty.dtype {
        Dtype::Str => Tensor::strings(&dims, c.strings),
        dtype => Tensor::from_bytes(dtype, &dims, &c.data),
    };
    made.map_err(|e| e.to_string())
}

fn sequence(s: &SequenceProto) -> Result<Value, String> {
    let tensors = s.tensors.iter().map(|t| tensor(t).map(Value::from));
    Ok(Value::seq(tensors.chain(s.sequences.iter().map(sequence)).collect::<Result<_, _>>()?))
}
