//! Determinants and inverses, by Gauss and Jordan's elimination with the largest pivot of a column.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x: [.., n, n]) -> [..]`: determinants. ONNX Det.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Det {}

/// `(x: [.., n, n])`: inverses; of a singular matrix, any finite numbers. ONNX Runtime's Inverse.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Inverse {}

/// x as `[batch, n, n]` of f32 or f64, with its leading axes.
fn square(b: &mut Builder<'_>, ins: &[Value]) -> Built<(Value, Vec<Dim>)> {
    let &[x, ..] = ins else { return Err(OpError::new("x is needed")) };
    let dims = b.g.dims(x).to_vec();
    let [lead @ .., n, m] = &dims[..] else {
        return Err(OpError::new("a matrix is needed"));
    };
    b.g.constraints.equal(n, m)?;
    let x = if b.g.dtype(x) == Dtype::F64 { x } else { b.cast(x, Dtype::F32)? };
    let flat = vec![Dim::product(lead), n.clone(), n.clone()];
    Ok((b.reshape(x, flat)?, lead.to_vec()))
}

/// Rows of `a` `[batch, n, m]` combined until its first n columns are the unit matrix; and the
/// determinants `[batch]` of these columns.
fn eliminate(b: &mut Builder<'_>, a: Value) -> Built<[Value; 2]> {
    let dtype = b.g.dtype(a);
    let dims = b.g.dims(a).to_vec();
    let unit = b.scalar(dtype, 1.0);
    let det = b.broadcast(unit, vec![dims[0].clone()])?;
    let trip = b.dim_scalar(dims[1].clone());
    let types = [a, det].map(|v| b.g.ty(v).clone());
    let body = b.g.new_region();
    let k = b.g.add_param(body, Type::tensor(Dtype::I64, vec![]));
    let state = types.clone().map(|t| b.g.add_param(body, t));
    let mut inner = b.nested();
    let on = inner.scalar(Dtype::Bool, 1.0);
    let [next, det_next] = step(&mut inner, k, state, &dims)?;
    inner.into_region(body);
    b.g.regions[body].results = vec![on, next, det_next];
    let control = Control::Loop { body: body.0, has_trip: true, has_cond: false, carried: 2 };
    let outs = b.control(control, &[trip, a, det], types.to_vec());
    Ok([outs[0], outs[1]])
}

/// One column: the row of its largest element at or below the diagonal comes up, and is taken off
/// the others.
fn step(b: &mut Builder<'_>, k: Value, [a, det]: [Value; 2], dims: &[Dim]) -> Built<[Value; 2]> {
    use BinaryOp::{Eq, Ge, Ne};
    let dtype = b.g.dtype(a);
    let at = b.reshape(k, vec![1i64.into()])?;
    let column = |b: &mut Builder<'_>, a| b.prim(Prim::Gather { axis: 2 }, &[a, at]);
    let rows = Prim::Iota { dtype: Dtype::I64, shape: vec![dims[1].clone()], axis: 0 };
    let rows = b.prim(rows, &[])?;
    let col = column(b, a)?;
    let col = b.squeeze(col, 2)?;
    let size = b.un(UnaryOp::Abs, col)?;
    let below = b.bin(Ge, rows, at)?;
    let none = b.scalar(dtype, -1.0);
    let size = b.select(below, size, none)?;
    let best = Prim::ArgReduce { max: true, axis: 1, keep: true, last: false };
    let best = b.prim(best, &[size])?;
    // Rows k and best change places.
    let (is_k, is_best) = (b.bin(Eq, rows, at)?, b.bin(Eq, rows, best)?);
    let from = b.select(is_best, at, rows)?;
    let from = b.select(is_k, best, from)?;
    let from = b.unsqueeze(from, 2)?;
    let from = b.broadcast(from, dims.to_vec())?;
    let a = b.prim(Prim::GatherElements { axis: 1 }, &[a, from])?;
    let row = b.prim(Prim::Gather { axis: 1 }, &[a, at])?;
    let pivot = column(b, row)?;
    let moved = b.bin(Ne, best, at)?;
    let (minus, unit) = (b.scalar(dtype, -1.0), b.scalar(dtype, 1.0));
    let sign = b.select(moved, minus, unit)?;
    let batch = vec![dims[0].clone()];
    let (sign, factor) = (b.reshape(sign, batch.clone())?, b.reshape(pivot, batch)?);
    let det = b.mul(det, sign)?;
    let det = b.mul(det, factor)?;
    let flat = b.bin_scalar(Eq, pivot, 0.0)?;
    let pivot = b.select(flat, unit, pivot)?;
    let row = b.div(row, pivot)?;
    // Of row k itself all but once is taken off.
    let col = column(b, a)?;
    let is_k = b.reshape(is_k, vec![dims[1].clone(), 1i64.into()])?;
    let less = b.sub(col, unit)?;
    let times = b.select(is_k, less, col)?;
    let off = b.mul(times, row)?;
    Ok([b.sub(a, off)?, det])
}

impl SourceOp for Det {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let (x, lead) = square(b, ins)?;
        let [_, det] = eliminate(b, x)?;
        let det = b.reshape(det, lead)?;
        Ok(vec![b.cast(det, b.g.dtype(ins[0]))?])
    }
}

impl SourceOp for Inverse {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let (x, _) = square(b, ins)?;
        let dims = b.g.dims(x).to_vec();
        let side = |axis: u32| {
            let mut shape = vec![Dim::from(1i64); 2];
            shape[axis as usize] = dims[1].clone();
            Prim::Iota { dtype: Dtype::I64, shape, axis }
        };
        let (i, j) = (b.prim(side(0), &[])?, b.prim(side(1), &[])?);
        let unit = b.bin(BinaryOp::Eq, i, j)?;
        let unit = b.cast(unit, b.g.dtype(x))?;
        let unit = b.broadcast(unit, dims.clone())?;
        let both = b.concat(&[x, unit], 2)?;
        let [y, _] = eliminate(b, both)?;
        let y = b.narrow(y, 2, dims[1].clone(), dims[1].clone())?;
        let whole = b.g.dims(ins[0]).to_vec();
        let y = b.reshape(y, whole)?;
        Ok(vec![b.cast(y, b.g.dtype(ins[0]))?])
    }
}
