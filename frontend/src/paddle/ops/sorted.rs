//! Operators that follow from sorting: unique values, thresholds, ranks.

use super::index::rows_of_non_zero;
use super::lod::{at, iota};
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, Value};

/// All elements of an axis in order, and where they were.
fn sorted(c: &mut Ctx<'_, '_>, x: Value, axis: usize, largest: bool) -> Res<(Value, Value)> {
    let k: Dim = c.dims(x)[axis].clone();
    let outs = c.b.prim_n(Prim::TopK { k, axis: axis as u32, largest, sorted: true }, &[x])?;
    Ok((outs[0], outs[1]))
}

/// Runs of equal neighbours in a vector: which elements start one (as indices), and of each element
/// the run.
fn runs(c: &mut Ctx<'_, '_>, v: Value) -> Res<(Value, Value)> {
    let n = c.dims(v)[0].clone();
    let row = iota(c, &n)?;
    let before = c.b.bin_scalar(BinaryOp::Sub, row, 1.0)?;
    let before = super::lod::within(c, before, &n)?;
    let before = at(c, v, before)?;
    let differs = c.b.bin(BinaryOp::Ne, v, before)?;
    let first = c.b.bin_scalar(BinaryOp::Eq, row, 0.0)?;
    let starts = c.b.bin(BinaryOp::Or, differs, first)?;
    let ones = c.b.cast(starts, Dtype::I64)?;
    let sum = Prim::Cumulative { op: ReduceOp::Sum, axis: 0, exclusive: false, reverse: false };
    let run = c.b.prim(sum, &[ones])?;
    let run = c.b.bin_scalar(BinaryOp::Sub, run, 1.0)?;
    let rows = rows_of_non_zero(c, starts)?;
    Ok((c.b.squeeze(rows, 1)?, run))
}

/// Lengths of runs that start at indices of a vector of n.
fn lengths(c: &mut Ctx<'_, '_>, starts: Value, n: &Dim) -> Res<Value> {
    let end = c.b.dims_vector(vec![n.clone()]);
    let bounds = c.b.concat(&[starts, end], 0)?;
    let count = c.dims(starts)[0].clone();
    let ends = c.b.narrow(bounds, 0, 1i64.into(), count)?;
    Ok(c.b.sub(ends, starts)?)
}

/// The permutation that undoes one.
fn inverse(c: &mut Ctx<'_, '_>, order: Value) -> Res<Value> {
    Ok(sorted(c, order, 0, false)?.1)
}

/// unique of all elements, in order of value or of first appearance.
pub fn unique(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    if c.ints("axis").is_some_and(|a| !a.is_empty()) && c.rank(x) != 1 {
        return c.refuse("unique parts along an axis");
    }
    let n = c.b.g.tensor(x).count();
    let flat = c.b.reshape(x, vec![n.clone()])?;
    let (values, order) = sorted(c, flat, 0, false)?;
    let (starts, run) = runs(c, values)?;
    let mut out = at(c, values, starts)?;
    let mut first = at(c, order, starts)?;
    let mut counts = lengths(c, starts, &n)?;
    let back = inverse(c, order)?;
    let mut group = at(c, run, back)?;
    if !c.flag("is_sorted", false) && c.op.kind == "unique" {
        let (by_place, perm) = sorted(c, first, 0, false)?;
        let rank = inverse(c, perm)?;
        out = at(c, out, perm)?;
        counts = at(c, counts, perm)?;
        group = at(c, rank, group)?;
        first = by_place;
    }
    give(c, out, Some(first), group, counts)
}

/// unique_consecutive: one of each run of equals.
pub fn unique_consecutive(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    if c.ints("axis").is_some_and(|a| !a.is_empty()) && c.rank(x) != 1 {
        return c.refuse("unique parts along an axis");
    }
    let n = c.b.g.tensor(x).count();
    let flat = c.b.reshape(x, vec![n.clone()])?;
    let (starts, run) = runs(c, flat)?;
    let out = at(c, flat, starts)?;
    let counts = lengths(c, starts, &n)?;
    give(c, out, None, run, counts)
}

fn give(c: &mut Ctx<'_, '_>, out: Value, first: Option<Value>, group: Value, counts: Value) -> Res {
    let to = c.dtype("dtype")?.filter(|d| d.is_int()).unwrap_or(Dtype::I64);
    c.put("Out|out", out);
    if let Some(first) = first {
        let first = c.b.cast(first, to)?;
        c.put("Indices", first);
    }
    let (group, counts) = (c.b.cast(group, to)?, c.b.cast(counts, to)?);
    c.put("Index", group);
    c.put("Counts", counts);
    Ok(())
}

/// kthvalue: the k-th least along an axis.
pub fn kth_value(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let (values, order) = sorted(c, x, axis, false)?;
    let k = c.int("k", 1).saturating_sub(1);
    let mut outs = vec![];
    for v in [values, order] {
        let v = c.b.narrow(v, axis, k.into(), 1i64.into())?;
        outs.push(if c.flag("keepdim", false) { v } else { c.b.squeeze(v, axis)? });
    }
    c.put("Out|out", outs[0]);
    c.put("Indices|indices", outs[1]);
    Ok(())
}

/// searchsorted: how many of a sorted row lie before each value.
pub fn search_sorted(c: &mut Ctx<'_, '_>) -> Res {
    let (row, v) = (c.tensor("SortedSequence")?, c.tensor("Values")?);
    let op = if c.flag("right", false) { BinaryOp::Le } else { BinaryOp::Lt };
    let rank = c.rank(v);
    let column = c.b.unsqueeze(v, rank)?;
    let row = match c.rank(row) {
        1 => row,
        r => c.b.unsqueeze(row, r - 1)?,
    };
    let below = c.b.bin(op, row, column)?;
    let to = if c.flag("out_int32", false) { Dtype::I32 } else { Dtype::I64 };
    let below = c.b.cast(below, to)?;
    let v = c.b.reduce(ReduceOp::Sum, below, &[rank], false)?;
    c.put("Out", v);
    Ok(())
}

/// cummax, cummin: the greatest so far, and the last place where it was.
pub fn running(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x|X")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let op = if c.op.kind == "cummax" { ReduceOp::Max } else { ReduceOp::Min };
    let most = Prim::Cumulative { op, axis: axis as u32, exclusive: false, reverse: false };
    let v = c.b.prim(most, &[x])?;
    let shape = c.dims(x);
    let place = Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 };
    let place = c.b.prim(place, &[])?;
    let here = c.b.bin(BinaryOp::Eq, x, v)?;
    let none = c.b.scalar(Dtype::I64, 0.0);
    let place = c.b.select(here, place, none)?;
    let last =
        Prim::Cumulative { op: ReduceOp::Max, axis: axis as u32, exclusive: false, reverse: false };
    let place = c.b.prim(last, &[place])?;
    let to = c.dtype("dtype")?.filter(|d| d.is_int()).unwrap_or(Dtype::I64);
    let place = c.b.cast(place, to)?;
    c.put("out|Out", v);
    c.put("indices|Indices", place);
    Ok(())
}

/// bincount: how often each number occurs, or the sum of its weights.
pub fn bin_count(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let x = c.b.cast(x, Dtype::I64)?;
    let most = c.b.reduce(ReduceOp::Max, x, &[0], false)?;
    let most = c.b.bin_scalar(BinaryOp::Add, most, 1.0)?;
    let least = c.int_or("minlength", "minlength", 0)?;
    let most = c.b.bin_scalar(BinaryOp::Max, most, least as f64)?;
    let n = c.b.dims_of(most, "bins", 0, crate::options::DIM_MAX)?.remove(0);
    let weights = c.opt("Weights|weights");
    let dtype = weights.map_or(Dtype::I64, |w| c.b.g.dtype(w));
    let zero = c.b.scalar(dtype, 0.0);
    let bins = c.b.broadcast(zero, vec![n])?;
    let each = match weights {
        Some(w) => w,
        None => {
            let one = c.b.scalar(dtype, 1.0);
            c.b.broadcast(one, c.dims(x))?
        }
    };
    let index = c.b.unsqueeze(x, 1)?;
    let op = hub_abi::prim::ScatterOp::Add;
    let v = c.b.prim(Prim::ScatterNd { op }, &[bins, index, each])?;
    c.put("Out|out", v);
    Ok(())
}
