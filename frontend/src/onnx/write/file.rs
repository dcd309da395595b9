//! Tensors, types, and the finished file: dead nodes left out, outputs named, external data beside.

use super::cx::Got;
use crate::error::FrontendError;
use crate::onnx::proto::{
    DimensionProto, ElemTypeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto,
};
use bytes::Bytes;
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype};
use hub_ir::graph::ConstData;
use std::collections::{HashMap, HashSet};

/// A constant as a tensor. Elements of 2 and 4 bits are packed, the first in the lowest bits.
pub(super) fn tensor(name: &str, c: &ConstData) -> Got<TensorProto> {
    let dims: Option<Vec<i64>> = c.ty.dims.iter().map(Dim::as_const).collect();
    let dims = dims.ok_or_else(|| FrontendError::invalid("a constant of unknown size").at(name))?;
    let mut t = TensorProto {
        dims,
        data_type: c.ty.dtype as i32,
        name: name.to_string(),
        ..TensorProto::default()
    };
    match c.ty.dtype {
        Dtype::Str => {
            t.string_data = c.strings.iter().map(|s| Bytes::from(s.as_bytes().to_vec())).collect();
        }
        d => {
            t.raw_data = Some(match d.packed_bits() {
                Some(bits) => {
                    let place = |i: usize, v: u8| (v & ((1 << bits) - 1)) << (i as u32 * bits);
                    let pack =
                        |p: &[u8]| p.iter().enumerate().fold(0, |b, (i, &v)| b | place(i, v));
                    let packed = c.data.chunks(8 / bits as usize).map(pack);
                    packed.collect::<Vec<u8>>().into()
                }
                None => c.data.clone(),
            });
        }
    }
    Ok(t)
}

/// A tensor type without sizes.
pub(super) fn bare_type(dtype: Dtype, rank: usize) -> TypeProto {
    let dim = vec![DimensionProto::default(); rank];
    let shape = Some(TensorShapeProto { dim });
    TypeProto {
        tensor_type: Some(TensorTypeProto { elem_type: dtype as i32, shape }),
        ..TypeProto::default()
    }
}

/// A type within a body: sizes that are symbols may change from step to step.
pub(super) fn inner_type(t: &Type) -> TypeProto {
    type_of(t, &|_| None)
}

/// A type with names for some sizes that are no numbers.
pub(super) fn type_of(t: &Type, name: &dyn Fn(&Dim) -> Option<String>) -> TypeProto {
    let boxed = |elem: TypeProto| Some(Box::new(ElemTypeProto { elem_type: Some(Box::new(elem)) }));
    match t {
        Type::Tensor(TensorType { dtype, dims }) => {
            let dim = |d: &Dim| DimensionProto { dim_value: d.as_const(), dim_param: name(d) };
            let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
            TypeProto {
                tensor_type: Some(TensorTypeProto { elem_type: *dtype as i32, shape }),
                ..TypeProto::default()
            }
        }
        Type::Seq(t) => TypeProto { sequence_type: boxed(element(t)), ..TypeProto::default() },
        Type::Opt(t) => {
            TypeProto { optional_type: boxed(type_of(t, name)), ..TypeProto::default() }
        }
    }
}

/// Elements of a sequence differ in sizes. One that nothing is known of has rank 0 and no shape.
fn element(t: &Type) -> TypeProto {
    match t {
        Type::Tensor(t) if t.dims.is_empty() => {
            let tensor = TensorTypeProto { elem_type: t.dtype as i32, shape: None };
            TypeProto { tensor_type: Some(tensor), ..TypeProto::default() }
        }
        Type::Tensor(t) => bare_type(t.dtype, t.dims.len()),
        t => inner_type(t),
    }
}

/// Keeps the nodes whose results are used, in this graph and its bodies.
pub(super) fn prune(g: &mut GraphProto) {
    let mut used: HashSet<String> = HashSet::new();
    live(g, &mut used);
    g.initializer.retain(|t| used.contains(&t.name));
}

/// Keeps the nodes whose results are used; `used` gains what they and the outputs use.
pub(super) fn live(g: &mut GraphProto, used: &mut HashSet<String>) {
    used.extend(g.output.iter().map(|o| o.name.clone()));
    let mut kept: Vec<NodeProto> = vec![];
    for mut n in std::mem::take(&mut g.node).into_iter().rev() {
        if !n.output.iter().any(|o| used.contains(o)) {
            continue;
        }
        used.extend(n.input.iter().cloned());
        for a in &mut n.attribute {
            if let Some(body) = &mut a.g {
                live(body, used);
            }
        }
        kept.push(n);
    }
    kept.reverse();
    g.node = kept;
}

/// Gives values other names, everywhere.
pub(super) fn rename(g: &mut GraphProto, to: &HashMap<String, String>) {
    let swap = |s: &mut String| {
        if let Some(new) = to.get(s) {
            s.clone_from(new);
        }
    };
    for n in &mut g.node {
        n.input.iter_mut().chain(&mut n.output).for_each(swap);
        for a in &mut n.attribute {
            if let Some(body) = &mut a.g {
                rename(body, to);
            }
        }
    }
    g.output.iter_mut().for_each(|o| swap(&mut o.name));
}

/// Tensors of fewer bytes stay in the file.
const LEAST: usize = 1024;
/// Where external tensors start: pages, so that they can be mapped.
const ALIGN: u64 = 4096;

/// Moves large tensors out of the model: pieces of a file, each with its offset.
pub(super) fn externalise(tensors: &mut [TensorProto], file: &str) -> Vec<(u64, Bytes)> {
    let (mut pieces, mut end) = (vec![], 0u64);
    for t in tensors {
        let Some(data) = t.raw_data.take_if(|d| d.len() >= LEAST) else { continue };
        let at = end.next_multiple_of(ALIGN);
        end = at + data.len() as u64;
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        t.external_data = vec![
            entry("location", file.to_string()),
            entry("offset", at.to_string()),
            entry("length", data.len().to_string()),
        ];
        t.data_location = 1;
        pieces.push((at, data));
    }
    pieces
}
