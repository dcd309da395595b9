//! Operators that follow from sorting: unique values, thresholds, ranks.

use super::index::rows_of_non_zero;
use super::lod::{at, iota, scan};
use crate::FrontendError;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, Value};

/// All elements of an axis in order, and where they were.
fn sorted(c: &mut Ctx<'_, '_>, x: Value, axis: usize, largest: bool) -> Res<(Value, Value)> {
    let k: Dim = c.dim(x, axis)?;
    let outs = c.b.prim_n(Prim::TopK { k, axis: axis as u32, largest, sorted: true }, &[x])?;
    Ok((outs[0], outs[1]))
}

/// Runs of equal neighbours in a vector, or of equal rows: which start one (as indices), and the run
/// of each.
fn runs(c: &mut Ctx<'_, '_>, v: Value) -> Res<(Value, Value)> {
    let n = c.dim(v, 0)?;
    let row = iota(c, &n)?;
    let before = c.b.bin_scalar(BinaryOp::Sub, row, 1.0)?;
    let before = super::lod::within(c, before, &n)?;
    let before = at(c, v, before)?;
    let mut differs = c.b.bin(BinaryOp::Ne, v, before)?;
    if c.rank(v) > 1 {
        differs = c.b.reduce(ReduceOp::Or, differs, &[1], false)?;
    }
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
    let count = c.dim(starts, 0)?;
    let ends = c.b.narrow(bounds, 0, 1i64.into(), count)?;
    Ok(c.b.sub(ends, starts)?)
}

/// The permutation that undoes one.
fn inverse(c: &mut Ctx<'_, '_>, order: Value) -> Res<Value> {
    Ok(sorted(c, order, 0, false)?.1)
}

/// What unique works on: all elements as a vector, or the parts along an axis as rows `[N, M]`, with
/// the axis and the shape of what lies before it and behind it.
struct Parts {
    rows: Value,
    n: Dim,
    /// The axis, and the permutation that puts it first.
    axis: Option<(usize, Vec<usize>)>,
}

fn parts(c: &mut Ctx<'_, '_>, x: Value) -> Res<Parts> {
    let rank = c.rank(x);
    let axis = c.ints("axis").and_then(|a| a.first().copied());
    let Some(axis) = axis.filter(|_| rank > 1) else {
        let n = c.b.g.tensor(x).count();
        let rows = c.b.reshape(x, vec![n.clone()])?;
        return Ok(Parts { rows, n, axis: None });
    };
    let axis = axis_of(axis, rank)?;
    let perm: Vec<usize> = [axis].into_iter().chain((0..rank).filter(|&i| i != axis)).collect();
    let v = c.b.transpose(x, &perm)?;
    let d = c.at_least(v, 1)?;
    let rows = c.b.reshape(v, vec![d[0].clone(), Dim::product(&d[1..])])?;
    Ok(Parts { rows, n: d[0].clone(), axis: Some((axis, perm)) })
}

impl Parts {
    /// The parts at indices, as x has them.
    fn pick(&self, c: &mut Ctx<'_, '_>, x: Value, index: Value) -> Res<Value> {
        match self.axis {
            Some((axis, _)) => Ok(c.b.prim(Prim::Gather { axis: axis as u32 }, &[x, index])?),
            None => at(c, self.rows, index),
        }
    }

    /// Indices of the parts in ascending order; of equals by place.
    fn order(&self, c: &mut Ctx<'_, '_>) -> Res<Value> {
        if self.axis.is_none() {
            return Ok(sorted(c, self.rows, 0, false)?.1);
        }
        // Sorted by each column, from the last to the first, equals keeping their order.
        let columns = c.b.transpose(self.rows, &[1, 0])?;
        let start = iota(c, &self.n)?;
        let outs = scan(c, &[start], &[columns], true, &mut |c, carried, column| {
            let v = at(c, column[0], carried[0])?;
            let (_, perm) = sorted(c, v, 0, false)?;
            Ok((vec![at(c, carried[0], perm)?], vec![]))
        })?;
        Ok(outs[0])
    }
}

/// unique of all elements, or of the parts along an axis, in order of value or of first appearance.
pub fn unique(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let p = parts(c, x)?;
    let order = p.order(c)?;
    let values = at(c, p.rows, order)?;
    let (starts, run) = runs(c, values)?;
    let mut first = at(c, order, starts)?;
    let mut counts = lengths(c, starts, &p.n)?;
    let back = inverse(c, order)?;
    let mut group = at(c, run, back)?;
    if !c.flag("is_sorted", false) && c.op.kind == "unique" {
        let (by_place, perm) = sorted(c, first, 0, false)?;
        let rank = inverse(c, perm)?;
        counts = at(c, counts, perm)?;
        group = at(c, rank, group)?;
        first = by_place;
    }
    let out = p.pick(c, x, first)?;
    give(c, out, Some(first), group, counts)
}

/// unique_consecutive: one of each run of equals.
pub fn unique_consecutive(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let p = parts(c, x)?;
    let (starts, run) = runs(c, p.rows)?;
    let out = p.pick(c, x, starts)?;
    let counts = lengths(c, starts, &p.n)?;
    give(c, out, None, run, counts)
}

/// mode: the most frequent of an axis, of several the least, and its last place.
pub fn mode(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    if c.rank(x) == 0 {
        let zero = c.b.scalar(Dtype::I64, 0.0);
        c.put("Out|out", x);
        c.put("Indices|indices", zero);
        return Ok(());
    }
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let (values, order) = sorted(c, x, axis, false)?;
    let shape = c.dims(x);
    let place = Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 };
    let place = c.b.prim(place, &[])?;
    let before = c.b.bin_scalar(BinaryOp::Sub, place, 1.0)?;
    let before = c.b.bin_scalar(BinaryOp::Max, before, 0.0)?;
    let before = c.b.prim(Prim::GatherElements { axis: axis as u32 }, &[values, before])?;
    let differs = c.b.bin(BinaryOp::Ne, values, before)?;
    let none = c.b.scalar(Dtype::I64, 0.0);
    let start = c.b.select(differs, place, none)?;
    // Where the run of each began, and so its length up to here.
    let last =
        Prim::Cumulative { op: ReduceOp::Max, axis: axis as u32, exclusive: false, reverse: false };
    let start = c.b.prim(last, &[start])?;
    let length = c.b.sub(place, start)?;
    let best = Prim::ArgReduce { max: true, axis: axis as u32, keep: true, last: false };
    let best = c.b.prim(best, &[length])?;
    for (slot, v) in [("Out|out", values), ("Indices|indices", order)] {
        let v = c.b.prim(Prim::GatherElements { axis: axis as u32 }, &[v, best])?;
        let v = if c.flag("keepdim", false) { v } else { c.b.squeeze(v, axis)? };
        c.put(slot, v);
    }
    Ok(())
}

/// histogram: how many elements (or what weight of them) lie in each of even bins.
pub fn histogram(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|input")?;
    let bins = c.int("bins", 100);
    let (lo, hi) = (c.float("min", 0.0), c.float("max", 0.0));
    if !(1..=1 << 20).contains(&bins) {
        return c.refuse(format!("{bins} bins"));
    }
    let n = c.b.g.tensor(x).count();
    let x = c.b.reshape(x, vec![n])?;
    let x = c.b.cast(x, Dtype::F64)?;
    let (mut lo, mut hi) = match lo == hi && lo == 0.0 {
        true => {
            (c.b.reduce(ReduceOp::Min, x, &[0], false)?, c.b.reduce(ReduceOp::Max, x, &[0], false)?)
        }
        false => (c.b.scalar(Dtype::F64, lo), c.b.scalar(Dtype::F64, hi)),
    };
    // Where all are one number, it lies in the middle of a range of two.
    let same = c.b.bin(BinaryOp::Eq, lo, hi)?;
    let same = c.b.cast(same, Dtype::F64)?;
    (lo, hi) = (c.b.sub(lo, same)?, c.b.add(hi, same)?);
    let width = c.b.sub(hi, lo)?;
    let d = c.b.sub(x, lo)?;
    let d = c.b.bin_scalar(BinaryOp::Mul, d, bins as f64)?;
    let d = c.b.div(d, width)?;
    let d = c.b.un(hub_ir::UnaryOp::Floor, d)?;
    let place = c.b.cast(d, Dtype::I64)?;
    let place = super::lod::within(c, place, &bins.into())?;
    let (above, below) = (c.b.bin(BinaryOp::Ge, x, lo)?, c.b.bin(BinaryOp::Le, x, hi)?);
    let inside = c.b.bin(BinaryOp::And, above, below)?;
    let density = c.flag("density", false);
    let weight = c.opt("Weight|weight");
    let dtype = match weight {
        Some(w) => c.b.g.dtype(w),
        None if density => Dtype::F32,
        None => Dtype::I64,
    };
    let (zero, one) = (c.b.scalar(dtype, 0.0), c.b.scalar(dtype, 1.0));
    let each = match weight {
        Some(w) => c.b.reshape(w, c.dims(x))?,
        None => one,
    };
    let each = c.b.select(inside, each, zero)?;
    let base = c.b.broadcast(zero, vec![bins.into()])?;
    let place = c.b.unsqueeze(place, 1)?;
    let op = hub_abi::prim::ScatterOp::Add;
    let mut v = c.b.prim(Prim::ScatterNd { op }, &[base, place, each])?;
    if density {
        let sum = c.b.reduce(ReduceOp::Sum, v, &[0], false)?;
        let one_bin = c.b.bin_scalar(BinaryOp::Div, width, bins as f64)?;
        let one_bin = c.b.cast(one_bin, dtype)?;
        v = c.b.div(v, sum)?;
        v = c.b.div(v, one_bin)?;
    }
    c.put("Out|out", v);
    Ok(())
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
        0 => return Err(FrontendError::invalid("a sorted sequence without an axis")),
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
