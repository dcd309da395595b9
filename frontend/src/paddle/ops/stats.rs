//! Medians, variances, and other reductions that a few primitives make.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// The middle of all elements of axes, in order, NaN last: indices `[…, 1]` of the two middle ones.
fn middles(c: &mut Ctx<'_, '_>, count: Value) -> Res<[Value; 2]> {
    let less = c.b.bin_scalar(BinaryOp::Sub, count, 1.0)?;
    let lower = c.b.bin_scalar(BinaryOp::Max, less, 0.0)?;
    let lower = c.b.bin_scalar(BinaryOp::Div, lower, 2.0)?;
    let upper = c.b.bin_scalar(BinaryOp::Div, count, 2.0)?;
    // Of an odd number both are one; count / 2 is past the end only where there is none.
    let last = c.b.bin_scalar(BinaryOp::Max, less, 0.0)?;
    let upper = c.b.min(upper, last)?;
    Ok([lower, upper])
}

/// median, nanmedian: the middle of axes, of an even number the mean of two (or the lower).
pub fn median(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let skips = c.op.kind.starts_with("nan");
    let rank = c.rank(x);
    let axes = c.ints("axis").unwrap_or_default();
    let mut axes = axes.into_iter().map(|a| c.axis(a, rank)).collect::<Res<Vec<_>>>()?;
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    let kept: Vec<usize> = (0..rank).filter(|i| !axes.contains(i)).collect();
    let d = c.dims(x);
    let v = c.b.transpose(x, &[&kept[..], &axes[..]].concat())?;
    let lead: Vec<Dim> = kept.iter().map(|&i| d[i].clone()).collect();
    let n = Dim::product(axes.iter().map(|&i| &d[i]));
    let v = c.b.reshape(v, [&lead[..], std::slice::from_ref(&n)].concat())?;
    let v = match c.b.g.dtype(v).is_float() {
        true => v,
        false => c.b.cast(v, Dtype::F32)?,
    };
    let last = kept.len();
    let p = Prim::TopK { k: n, axis: last as u32, largest: false, sorted: true };
    let sorted = c.b.prim_n(p, &[v])?;
    let none = c.b.un(UnaryOp::IsNan, v)?;
    let real = c.b.un(UnaryOp::Not, none)?;
    let count = c.b.cast(real, Dtype::I64)?;
    let count = c.b.reduce(ReduceOp::Sum, count, &[last], true)?;
    let [lower, upper] = middles(c, count)?;
    let pick = |c: &mut Ctx<'_, '_>, v: Value, at: Value| {
        c.b.prim(Prim::GatherElements { axis: last as u32 }, &[v, at])
    };
    let (low, high) = (pick(c, sorted[0], lower)?, pick(c, sorted[0], upper)?);
    let place = pick(c, sorted[1], lower)?;
    let least = c.text("mode", "avg") == "min";
    let mut v = if least {
        low
    } else {
        let sum = c.b.add(low, high)?;
        c.b.bin_scalar(BinaryOp::Mul, sum, 0.5)?
    };
    if !skips {
        let any = c.b.reduce(ReduceOp::Or, none, &[last], true)?;
        let nan = c.b.scalar(c.b.g.dtype(v), f64::NAN);
        v = c.b.select(any, nan, v)?;
    }
    let shape = match c.flag("keepdim", true) {
        true => {
            (0..rank).map(|i| if kept.contains(&i) { d[i].clone() } else { 1i64.into() }).collect()
        }
        false => lead,
    };
    let v = c.b.reshape(v, shape.clone())?;
    let place = c.b.reshape(place, shape)?;
    c.put("Out|out", v);
    c.put("MedianIndex|medians", place);
    Ok(())
}

/// masked_fill: a number where the mask holds.
pub fn masked_fill(c: &mut Ctx<'_, '_>) -> Res {
    let [x, mask, v] = ["X|x", "Mask|mask", "Value|value"].map(|s| c.tensor(s));
    let (x, mask, v) = (x?, mask?, v?);
    let v = c.b.cast(v, c.b.g.dtype(x))?;
    let v = match c.b.g.tensor(v).count().is(1) {
        true => c.b.reshape(v, vec![])?,
        false => v,
    };
    let v = c.b.select(mask, v, x)?;
    c.put("Out|out", v);
    Ok(())
}

/// reduce_as: x summed over what it has beyond another's shape.
pub fn reduce_as(c: &mut Ctx<'_, '_>) -> Res {
    let (x, like) = (c.tensor("X|x")?, c.tensor("Target|target")?);
    let (d, to) = (c.dims(x), c.dims(like));
    let more = d.len().saturating_sub(to.len());
    let axes: Vec<usize> =
        (0..d.len()).filter(|&i| i < more || (to[i - more].is(1) && !d[i].is(1))).collect();
    let v = c.b.reduce(ReduceOp::Sum, x, &axes, false)?;
    let v = c.b.reshape(v, to)?;
    c.put("Out|out", v);
    Ok(())
}

/// var, std, variance: with the divisor less its correction.
pub fn variance(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x")?;
    let rank = c.rank(x);
    let axes = c.ints("axis").unwrap_or_default();
    let mut axes = axes.into_iter().map(|a| c.axis(a, rank)).collect::<Res<Vec<_>>>()?;
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    let d = c.dims(x);
    let n = c.b.dim_scalar(Dim::product(axes.iter().map(|&i| &d[i])));
    let dtype = c.b.g.dtype(x);
    let n = c.b.cast(n, dtype)?;
    let less = match (c.op.kind.as_str(), c.flag("unbiased", true)) {
        ("variance", _) | (_, false) => 0.0,
        _ => c.float("correction", 1.0),
    };
    let n = c.b.bin_scalar(BinaryOp::Sub, n, less)?;
    let mean = c.b.reduce(ReduceOp::Mean, x, &axes, true)?;
    let off = c.b.sub(x, mean)?;
    let q = c.b.mul(off, off)?;
    let s = c.b.reduce(ReduceOp::Sum, q, &axes, c.flag("keepdim", false))?;
    let mut v = c.b.div(s, n)?;
    if c.op.kind == "std" {
        v = c.b.un(UnaryOp::Sqrt, v)?;
    }
    c.put("out", v);
    Ok(())
}

/// max_with_index, min_with_index: along one axis, or of all.
pub fn extreme_with_index(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("x")?;
    let max = c.op.kind.starts_with("max");
    let mut axis = c.int("dim", -1);
    if c.flag("flatten", false) {
        let n = c.b.g.tensor(x).count();
        x = c.b.reshape(x, vec![n])?;
        axis = 0;
    }
    let at = c.axis(axis, c.rank(x))?;
    let keep = c.flag("keepdim", false);
    let op = if max { ReduceOp::Max } else { ReduceOp::Min };
    let v = c.b.reduce(op, x, &[at], keep)?;
    let p = Prim::ArgReduce { max, axis: at as u32, keep, last: false };
    let i = c.b.prim(p, &[x])?;
    c.put("values", v);
    c.put("indices", i);
    Ok(())
}
