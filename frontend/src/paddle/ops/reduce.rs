//! Reductions, cumulative sums, softmax, sorting.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use crate::paddle::program::Dialect;
use hub_ir::ops::norm::Softmax;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// Reduced axes: an operand or attribute, empty or `reduce_all` for all.
fn axes(c: &mut Ctx<'_, '_>, rank: usize) -> Res<Vec<usize>> {
    let mut list = c.ints_or("Axis|AxisTensor", "dim|axis")?;
    // ProgramDesc's reductions are along the first axis by default.
    if c.dialect == Dialect::Legacy && c.op.kind.starts_with("reduce_") {
        list = list.or(Some(vec![0]));
    }
    let list = list.unwrap_or_default();
    if list.is_empty() || c.flag("reduce_all", false) {
        return Ok((0..rank).collect());
    }
    if rank == 0 {
        return Ok(vec![]);
    }
    list.into_iter().map(|a| axis_of(a, rank)).collect()
}

/// reduce_sum, sum, mean, max, amax, prod, any, all and their like.
pub fn reduce(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X")?;
    let name = c.op.kind.clone();
    let op = match name.strip_prefix("reduce_").unwrap_or(&name) {
        "sum" | "nansum" => ReduceOp::Sum,
        "mean" | "mean_all" => ReduceOp::Mean,
        "max" | "amax" => ReduceOp::Max,
        "min" | "amin" => ReduceOp::Min,
        "prod" => ReduceOp::Prod,
        "all" => ReduceOp::And,
        "any" => ReduceOp::Or,
        _ => return c.refuse("no such reduction"),
    };
    let from = c.b.g.dtype(x);
    let logical = matches!(op, ReduceOp::And | ReduceOp::Or);
    let asked = c.dtype("out_dtype|dtype")?;
    let to = match (op, from) {
        _ if logical => Dtype::Bool,
        (ReduceOp::Sum | ReduceOp::Prod, Dtype::Bool | Dtype::I32) => {
            asked.or(c.declared_dtype("Out")).filter(|d| *d != Dtype::Bool).unwrap_or(Dtype::I64)
        }
        _ => asked.unwrap_or(from),
    };
    if name == "nansum" && from.is_float() {
        let none = c.b.un(UnaryOp::IsNan, x)?;
        let zero = c.b.scalar(from, 0.0);
        x = c.b.select(none, zero, x)?;
    }
    x = c.b.cast(x, to)?;
    let axes = axes(c, c.rank(x))?;
    let v = c.b.reduce(op, x, &axes, c.flag("keep_dim|keepdim", false))?;
    let v = legacy_scalar(c, v)?;
    c.put("Out", v);
    Ok(())
}

/// Before 2.5 a full reduction gave one element of rank 1; the declared type says which.
fn legacy_scalar(c: &mut Ctx<'_, '_>, v: Value) -> Res<Value> {
    use crate::paddle::program::VarType;
    let declared = c.declared.iter().find(|(s, _)| *s == "Out").and_then(|(_, t)| t.first());
    match declared {
        Some(VarType::Tensor(_, d)) if d[..] == [1] && c.rank(v) == 0 => {
            Ok(c.b.reshape(v, vec![1i64.into()])?)
        }
        _ => Ok(v),
    }
}

/// Mean of all elements.
pub fn mean_all(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let v = c.b.reduce(ReduceOp::Mean, x, &axes, false)?;
    let v = legacy_scalar(c, v)?;
    c.put("Out", v);
    Ok(())
}

/// logsumexp.
pub fn logsumexp(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axes = axes(c, c.rank(x))?;
    let top = c.b.reduce(ReduceOp::Max, x, &axes, true)?;
    let d = c.b.sub(x, top)?;
    let e = c.b.un(UnaryOp::Exp, d)?;
    let s = c.b.reduce(ReduceOp::Sum, e, &axes, true)?;
    let l = c.b.un(UnaryOp::Log, s)?;
    let mut v = c.b.add(l, top)?;
    if !c.flag("keep_dim|keepdim", false) {
        let dims = c.dims(v).into_iter().enumerate();
        let kept = dims.filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d).collect();
        v = c.b.reshape(v, kept)?;
    }
    c.put("Out", v);
    Ok(())
}

/// p_norm along an axis.
pub fn p_norm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let p = c.float("porder", 2.0);
    let axes = match c.flag("asvector", false) {
        true => (0..c.rank(x)).collect(),
        false => vec![axis_of(c.int("axis", -1), c.rank(x))?],
    };
    let keep = c.flag("keepdim", false);
    let a = c.b.un(UnaryOp::Abs, x)?;
    let v = if p == f64::INFINITY {
        c.b.reduce(ReduceOp::Max, a, &axes, keep)?
    } else if p == f64::NEG_INFINITY {
        c.b.reduce(ReduceOp::Min, a, &axes, keep)?
    } else if p == 2.0 {
        let q = c.b.mul(x, x)?;
        let s = c.b.reduce(ReduceOp::Sum, q, &axes, keep)?;
        c.b.un(UnaryOp::Sqrt, s)?
    } else if p == 0.0 {
        let some = c.b.bin_scalar(BinaryOp::Gt, a, 0.0)?;
        let some = c.b.cast(some, c.b.g.dtype(a))?;
        c.b.reduce(ReduceOp::Sum, some, &axes, keep)?
    } else {
        let q = c.b.bin_scalar(BinaryOp::Pow, a, p)?;
        let s = c.b.reduce(ReduceOp::Sum, q, &axes, keep)?;
        c.b.bin_scalar(BinaryOp::Pow, s, 1.0 / p)?
    };
    let v = legacy_scalar(c, v)?;
    c.put("Out", v);
    Ok(())
}

/// softmax, log_softmax.
pub fn softmax(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let log = c.op.kind.starts_with("log_");
    if c.rank(x) == 0 {
        return c.refuse("a softmax of a scalar");
    }
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let v = c.b.source(Softmax { axis, log }, &[x])?;
    c.put("Out", v);
    Ok(())
}

/// fused_softmax_mask: of the sum with a mask; or of what does not lie above the diagonal.
pub fn masked_softmax(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let rank = c.rank(x);
    if rank < 2 {
        return c.refuse("scores of rank below 2");
    }
    let v = match c.opt("Mask|mask") {
        Some(mask) => {
            let mask = c.b.cast(mask, c.b.g.dtype(x))?;
            c.b.add(x, mask)?
        }
        None => {
            let shape = c.dims_from(x, rank - 2)?;
            let iota = |axis| Prim::Iota { dtype: Dtype::I64, shape: shape.clone(), axis };
            let (i, j) = (c.b.prim(iota(0), &[])?, c.b.prim(iota(1), &[])?);
            let seen = c.b.bin(BinaryOp::Le, j, i)?;
            let low = c.b.scalar(c.b.g.dtype(x), f64::NEG_INFINITY);
            c.b.select(seen, x, low)?
        }
    };
    let v = c.b.source(Softmax { axis: rank - 1, log: false }, &[v])?;
    c.put("Out", v);
    Ok(())
}

/// cumsum.
pub fn cumsum(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X")?;
    let axis = c.int_or("Axis", "axis|dim", -1)?;
    if c.flag("flatten", false) {
        let n = c.b.g.tensor(x).count();
        x = c.b.reshape(x, vec![n])?;
    }
    let axis = if c.flag("flatten", false) { 0 } else { axis_of(axis, c.rank(x))? };
    let op = if c.op.kind == "cumprod" { ReduceOp::Prod } else { ReduceOp::Sum };
    let (exclusive, reverse) = (c.flag("exclusive", false), c.flag("reverse", false));
    let p = Prim::Cumulative { op, axis: axis as u32, exclusive, reverse };
    let v = c.b.prim(p, &[x])?;
    c.put("Out", v);
    Ok(())
}

/// arg_max, arg_min.
pub fn arg(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X")?;
    let axis = c.int_or("Axis", "axis", -1)?;
    let flat = c.flag("flatten", false);
    if flat {
        let n = c.b.g.tensor(x).count();
        x = c.b.reshape(x, vec![n])?;
    }
    let axis = if flat { 0 } else { axis_of(axis, c.rank(x))? as u32 };
    let max = c.op.kind.ends_with("max");
    let keep = c.flag("keepdims|keepdim", false);
    let v = c.b.prim(Prim::ArgReduce { max, axis, keep, last: false }, &[x])?;
    let to = c.dtype("dtype")?.filter(|d| d.is_int()).unwrap_or(Dtype::I64);
    let v = c.b.cast(v, to)?;
    c.put("Out", v);
    Ok(())
}

/// top_k, top_k_v2, topk.
pub fn top_k(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let k = c.dims_or("K", "k", (0, i64::from(i32::MAX)))?;
    let Some([k]) = k.as_deref() else { return c.refuse("how many is not one number") };
    let (largest, sorted) = (c.flag("largest", true), c.flag("sorted", true));
    let p = Prim::TopK { k: k.clone(), axis: axis as u32, largest, sorted };
    let outs = c.b.prim_n(p, &[x])?;
    c.put("Out", outs[0]);
    c.put("Indices", outs[1]);
    Ok(())
}

/// argsort: all elements, in order.
pub fn argsort(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let k: Dim = c.dim(x, axis)?;
    let largest = c.flag("descending", false);
    let outs = c.b.prim_n(Prim::TopK { k, axis: axis as u32, largest, sorted: true }, &[x])?;
    c.put("Out", outs[0]);
    c.put("Indices", outs[1]);
    Ok(())
}

/// dist: the p-norm of a difference, as one number.
pub fn dist(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let d = c.b.sub(x, y)?;
    let a = c.b.un(UnaryOp::Abs, d)?;
    let axes: Vec<usize> = (0..c.rank(a)).collect();
    let p = c.float("p", 2.0);
    let v = if p == f64::INFINITY {
        c.b.reduce(ReduceOp::Max, a, &axes, false)?
    } else if p == f64::NEG_INFINITY {
        c.b.reduce(ReduceOp::Min, a, &axes, false)?
    } else if p == 0.0 {
        let some = c.b.bin_scalar(BinaryOp::Gt, a, 0.0)?;
        let some = c.b.cast(some, c.b.g.dtype(a))?;
        c.b.reduce(ReduceOp::Sum, some, &axes, false)?
    } else {
        let q = c.b.bin_scalar(BinaryOp::Pow, a, p)?;
        let s = c.b.reduce(ReduceOp::Sum, q, &axes, false)?;
        c.b.bin_scalar(BinaryOp::Pow, s, 1.0 / p)?
    };
    let v = legacy_scalar(c, v)?;
    c.put("Out", v);
    Ok(())
}
