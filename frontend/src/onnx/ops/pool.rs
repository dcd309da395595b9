//! Pooling.

use super::spatial::{kernel_attr, windows};
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, ReduceOp, UnaryOp};
use hub_ir::Value;
use hub_ir::ops::pool::{AvgPool, LpPool, MaxPool, PoolCount, PoolIndices};

pub(crate) const OPS: &[Row] = &[
    op("MaxPool", 1, max_pool),
    op("AveragePool", 1, average_pool),
    op("LpPool", 1, lp_pool),
    op("GlobalMaxPool", 1, |c| global(c, ReduceOp::Max)),
    op("GlobalAveragePool", 1, |c| global(c, ReduceOp::Mean)),
    op("GlobalLpPool", 1, global_lp_pool),
];

/// x, its spatial sizes, the kernel.
fn operands(c: &mut Cx<'_, '_, '_>) -> Got<(Value, Vec<Dim>, Vec<i64>)> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    if dims.len() < 3 {
        return invalid(format!("pooling needs [N, C, spatial…], not rank {}", dims.len()));
    }
    match kernel_attr(c, dims.len() - 2)? {
        Some(k) => Ok((x, dims[2..].to_vec(), k)),
        None => invalid("attribute 'kernel_shape' is missing"),
    }
}

fn as_dims(k: &[i64]) -> Vec<Dim> {
    k.iter().map(|&k| k.into()).collect()
}

pub(super) fn max_pool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, dims, kernel) = operands(c)?;
    let w = windows(c, &dims, &as_dims(&kernel), c.flag("ceil_mode", false)?)?;
    let column = c.flag("storage_order", false)?;
    let order = if column { PoolIndices::TensorColumnMajor } else { PoolIndices::Tensor };
    let indices = c.wants(1).then_some(order);
    Ok(c.b.source_n(MaxPool { kernel, geo: w.geo, indices }, &[x])?)
}

pub(super) fn average_pool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, dims, kernel) = operands(c)?;
    let w = windows(c, &dims, &as_dims(&kernel), c.flag("ceil_mode", false)?)?;
    let count = if c.flag("count_include_pad", false)? {
        PoolCount::Padded(w.declared_after)
    } else {
        PoolCount::Valid
    };
    one(c.source(AvgPool { kernel, geo: w.geo, count }, &[x])?)
}

/// Which norm; version 1 has it as a float.
fn norm(c: &Cx<'_, '_, '_>) -> Got<i64> {
    if c.version >= 2 {
        return c.int("p", 2);
    }
    match c.float("p", 2.0)? {
        p if p.fract() == 0.0 && p.abs() < 1e6 => Ok(p as i64),
        p => crate::onnx::cx::unsupported(format!("a norm of {p}")),
    }
}

fn lp_pool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, dims, kernel) = operands(c)?;
    let w = windows(c, &dims, &as_dims(&kernel), c.flag("ceil_mode", false)?)?;
    let p = norm(c)?;
    one(c.source(LpPool { kernel, geo: w.geo, p }, &[x])?)
}

fn spatial_axes(c: &Cx<'_, '_, '_>, x: Value) -> Vec<usize> {
    (2..c.rank(x)).collect()
}

fn global(c: &mut Cx<'_, '_, '_>, op: ReduceOp) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axes = spatial_axes(c, x);
    one(c.reduce(op, x, &axes, true)?)
}

fn global_lp_pool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axes = spatial_axes(c, x);
    let p = norm(c)?;
    let a = c.un(UnaryOp::Abs, x)?;
    let a = c.bin_scalar(BinaryOp::Pow, a, p as f64)?;
    let s = c.reduce(ReduceOp::Sum, a, &axes, true)?;
    one(c.bin_scalar(BinaryOp::Pow, s, 1.0 / p as f64)?)
}
