//! Arithmetic on constants while a replacement is built.

use crate::fold::{data_of, tensor};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_ir::build::{Builder, Built};
use hub_ir::{OpError, Value};
use hub_portable::Limits;

/// A primitive on constants, computed at once.
pub fn calc(b: &mut Builder<'_>, p: Prim, ins: &[Value]) -> Built {
    let tensors: Option<Vec<_>> = ins.iter().map(|&v| b.g.as_const(v).and_then(tensor)).collect();
    let tensors = tensors.ok_or_else(|| OpError::new("an operand is not constant"))?;
    let outs = hub_portable::fold(&p, &tensors, &Limits::default());
    let outs = outs.map_err(|e| OpError::new(e.to_string()))?;
    Ok(b.const_data(data_of(&outs[0])))
}

/// Elements of such dims; as many as can be where they are more.
pub fn count(dims: &[i64]) -> i64 {
    dims.iter().fold(1, |n, &d| n.saturating_mul(d))
}

/// A binary function.
pub fn bin(b: &mut Builder<'_>, op: BinaryOp, x: Value, y: Value) -> Built {
    calc(b, Prim::Binary(op), &[x, y])
}

/// A unary function.
pub fn un(b: &mut Builder<'_>, op: UnaryOp, x: Value) -> Built {
    calc(b, Prim::Unary(op), &[x])
}

/// Same elements, other shape.
pub fn reshape(b: &mut Builder<'_>, x: Value, shape: &[i64]) -> Built {
    let shape: Vec<Dim> = shape.iter().map(|&d| d.into()).collect();
    if b.g.dims(x) == shape {
        return Ok(x);
    }
    calc(b, Prim::Reshape { shape }, &[x])
}

/// NumPy's broadcast.
pub fn broadcast(b: &mut Builder<'_>, x: Value, shape: &[i64]) -> Built {
    let shape: Vec<Dim> = shape.iter().map(|&d| d.into()).collect();
    if b.g.dims(x) == shape {
        return Ok(x);
    }
    calc(b, Prim::Broadcast { shape }, &[x])
}

/// Permuted axes.
pub fn transpose(b: &mut Builder<'_>, x: Value, perm: &[usize]) -> Built {
    if perm.is_sorted() {
        return Ok(x);
    }
    calc(b, Prim::Transpose { perm: perm.iter().map(|&p| p as u32).collect() }, &[x])
}

/// Sum over axes, which go.
pub fn sum(b: &mut Builder<'_>, x: Value, axes: &[usize]) -> Built {
    let axes = axes.iter().map(|&a| a as u32).collect();
    calc(b, Prim::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[x])
}

/// Constant dims of a constant.
pub fn dims(b: &Builder<'_>, x: Value) -> Vec<i64> {
    b.g.dims(x).iter().map(|d| d.as_const().unwrap_or(0)).collect()
}
