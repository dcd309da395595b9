//! Reductions, arg-reductions, running sums.

use super::dynamic;
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("ReduceSum", 1, |c| plain(c, ReduceOp::Sum, 13)),
    op("ReduceMean", 1, |c| plain(c, ReduceOp::Mean, 18)),
    op("ReduceProd", 1, |c| plain(c, ReduceOp::Prod, 18)),
    op("ReduceMax", 1, |c| plain(c, ReduceOp::Max, 18)),
    op("ReduceMin", 1, |c| plain(c, ReduceOp::Min, 18)),
    op("ReduceL1", 1, |c| {
        let x = c.tensor(0)?;
        let x = c.un(UnaryOp::Abs, x)?;
        one(over_axes(c, x, ReduceOp::Sum, 18)?)
    }),
    op("ReduceL2", 1, |c| {
        let s = sum_square(c)?;
        let (dtype, wide) = (c.dtype(s), widened(c.dtype(s)));
        let s = c.cast(s, wide)?;
        let s = c.un(UnaryOp::Sqrt, s)?;
        one(c.cast(s, dtype)?)
    }),
    op("ReduceSumSquare", 1, |c| one(sum_square(c)?)),
    op("ReduceLogSum", 1, |c| {
        let x = c.tensor(0)?;
        let s = over_axes(c, x, ReduceOp::Sum, 18)?;
        one(c.un(UnaryOp::Log, s)?)
    }),
    op("ReduceLogSumExp", 1, log_sum_exp),
    op("ArgMax", 1, |c| arg(c, true)),
    op("ArgMin", 1, |c| arg(c, false)),
    op("CumSum", 11, |c| cumulative(c, ReduceOp::Sum)),
    op("CumProd", 26, |c| cumulative(c, ReduceOp::Prod)),
];

fn widened(d: Dtype) -> Dtype {
    if d.is_float() { d } else { Dtype::F64 }
}

/// The operand that holds the axes, where they are known only when the model runs.
fn computed_axes(c: &Cx<'_, '_, '_>, moved: i64) -> Option<Value> {
    let v = c.opt(1).filter(|_| c.version >= moved)?;
    c.known_ints(v).is_none().then_some(v)
}

/// The axes of a reduction: attribute, or an operand from version `moved` on. None: no reduction.
fn axes(c: &mut Cx<'_, '_, '_>, rank: usize, moved: i64) -> Got<Option<Vec<usize>>> {
    let given = if c.version >= moved { c.ints_or_input("axes", 1)? } else { c.ints("axes")? };
    match given {
        Some(a) if !a.is_empty() => Ok(Some(c.axes(&a, rank)?)),
        _ if c.flag("noop_with_empty_axes", false)? => Ok(None),
        _ => Ok(Some((0..rank).collect())),
    }
}

fn over_axes(c: &mut Cx<'_, '_, '_>, x: Value, op: ReduceOp, moved: i64) -> Got {
    let rank = c.rank(x);
    if let Some(v) = computed_axes(c, moved) {
        return dynamic::reduce(c, x, op, v);
    }
    match axes(c, rank, moved)? {
        None => Ok(x),
        Some(axes) => {
            let keep = c.flag("keepdims", true)?;
            c.reduce(op, x, &axes, keep)
        }
    }
}

fn plain(c: &mut Cx<'_, '_, '_>, op: ReduceOp, moved: i64) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let op = match (c.dtype(x), op) {
        (Dtype::Bool, ReduceOp::Max) => ReduceOp::Or,
        (Dtype::Bool, ReduceOp::Min) => ReduceOp::And,
        (_, op) => op,
    };
    one(over_axes(c, x, op, moved)?)
}

fn sum_square(c: &mut Cx<'_, '_, '_>) -> Got {
    let x = c.tensor(0)?;
    let x = c.bin(BinaryOp::Mul, x, x)?;
    over_axes(c, x, ReduceOp::Sum, 18)
}

/// `max + log(sum(exp(x - max)))`, the max taken as 0 where it is not finite.
fn log_sum_exp(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    if let Some(v) = computed_axes(c, 18) {
        let e = c.un(UnaryOp::Exp, x)?;
        let s = dynamic::reduce(c, e, ReduceOp::Sum, v)?;
        return one(c.un(UnaryOp::Log, s)?);
    }
    let Some(axes) = axes(c, c.rank(x), 18)? else { return one(x) };
    let keep = c.flag("keepdims", true)?;
    let (dtype, wide) = (c.dtype(x), widened(c.dtype(x)));
    let x = c.cast(x, wide)?;
    let top = c.reduce(ReduceOp::Max, x, &axes, true)?;
    let (inf, nan) = (c.un(UnaryOp::IsInf, top)?, c.un(UnaryOp::IsNan, top)?);
    let odd = c.bin(BinaryOp::Or, inf, nan)?;
    let zero = c.scalar(wide, 0.0);
    let top = c.b.select(odd, zero, top)?;
    let d = c.bin(BinaryOp::Sub, x, top)?;
    let e = c.un(UnaryOp::Exp, d)?;
    let s = c.reduce(ReduceOp::Sum, e, &axes, true)?;
    let l = c.un(UnaryOp::Log, s)?;
    let mut y = c.bin(BinaryOp::Add, l, top)?;
    if !keep {
        let dims = c.dims(y);
        let kept = dims.into_iter().enumerate().filter(|(i, _)| !axes.contains(i));
        y = c.reshape(y, kept.map(|(_, d)| d).collect())?;
    }
    one(c.cast(y, dtype)?)
}

fn arg(c: &mut Cx<'_, '_, '_>, max: bool) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", 0)?, c.rank(x))? as u32;
    let keep = c.flag("keepdims", true)?;
    let last = c.flag("select_last_index", false)?;
    one(c.prim(Prim::ArgReduce { max, axis, keep, last }, &[x])?)
}

fn cumulative(c: &mut Cx<'_, '_, '_>, op: ReduceOp) -> Got<Vec<Value>> {
    let (x, axis) = (c.tensor(0)?, c.tensor(1)?);
    let (exclusive, reverse) = (c.flag("exclusive", false)?, c.flag("reverse", false)?);
    let along = |axis: usize| Prim::Cumulative { op, axis: axis as u32, exclusive, reverse };
    match c.known_ints(axis).as_deref() {
        Some([a]) => {
            let axis = c.axis(*a, c.rank(x))?;
            one(c.prim(along(axis), &[x])?)
        }
        Some(_) => invalid("'axis' is not one number"),
        None => {
            let at = dynamic::mask(c, axis, c.rank(x))?;
            let mut y = x;
            for i in 0..c.rank(x) {
                y = dynamic::where_axis(c, at, i, y, |b| Ok(b.prim(along(i), &[x])?))?;
            }
            one(y)
        }
    }
}
