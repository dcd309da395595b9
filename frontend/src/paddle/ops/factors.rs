//! Factors of matrices: QR by Householder's reflections (with LAPACK's signs), LU with each column's
//! largest pivot. Both compute in f64.

use super::lod::{iota, scan};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// A matrix operand as `[batch, m, n]` of f64.
pub(super) struct Matrix {
    pub v: Value,
    pub lead: Vec<Dim>,
    pub m: Dim,
    pub n: Dim,
    pub dtype: Dtype,
}

impl Matrix {
    pub fn get(c: &mut Ctx<'_, '_>, slot: &str) -> Res<Matrix> {
        let x = c.tensor(slot)?;
        let (d, dtype) = (c.dims(x), c.b.g.dtype(x));
        let [lead @ .., m, n] = &d[..] else { return c.refuse("no matrix") };
        if !dtype.is_float() {
            return c.refuse(format!("factors of a matrix of {dtype}"));
        }
        let v = c.b.cast(x, Dtype::F64)?;
        let v = c.b.reshape(v, vec![Dim::product(lead), m.clone(), n.clone()])?;
        Ok(Matrix { v, lead: lead.to_vec(), m: m.clone(), n: n.clone(), dtype })
    }

    /// Gives a result `[batch, tail…]`, in the operand's dtype where it is real.
    pub fn put(&self, c: &mut Ctx<'_, '_>, slot: &'static str, v: Value, tail: &[&Dim]) -> Res {
        let tail: Vec<Dim> = tail.iter().map(|&d| d.clone()).collect();
        let v = c.b.reshape(v, [&self.lead[..], &tail].concat())?;
        let real = c.b.g.dtype(v) == Dtype::F64;
        let v = if real { c.b.cast(v, self.dtype)? } else { v };
        c.put(slot, v);
        Ok(())
    }
}

/// `[n, 1]` (down) or `[n]` (across): 0, 1, …
pub(super) fn down(c: &mut Ctx<'_, '_>, n: &Dim) -> Res<Value> {
    let v = iota(c, n)?;
    Ok(c.b.unsqueeze(v, 1)?)
}

/// `[batch, m, n]` with the last two axes exchanged.
pub(super) fn turned(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    Ok(c.b.transpose(x, &[0, 2, 1])?)
}

/// x where a condition holds, else 0.
pub(super) fn kept(c: &mut Ctx<'_, '_>, cond: Value, x: Value) -> Res<Value> {
    let zero = c.b.scalar(Dtype::F64, 0.0);
    Ok(c.b.select(cond, x, zero)?)
}

/// The sum along an axis of x where a condition holds.
pub(super) fn picked(
    c: &mut Ctx<'_, '_>,
    cond: Value,
    x: Value,
    axis: usize,
    keep: bool,
) -> Res<Value> {
    let own = kept(c, cond, x)?;
    Ok(c.b.reduce(ReduceOp::Sum, own, &[axis], keep)?)
}

/// Unit matrices `[batch, n, n]`.
pub(super) fn unit(c: &mut Ctx<'_, '_>, batch: &Dim, n: &Dim) -> Res<Value> {
    let (i, j) = (down(c, n)?, iota(c, n)?);
    let one = c.b.bin(BinaryOp::Eq, i, j)?;
    let one = c.b.cast(one, Dtype::F64)?;
    Ok(c.b.broadcast(one, vec![batch.clone(), n.clone(), n.clone()])?)
}

/// The triangle of `[batch, m, n]` on which `op` holds between column and row.
pub(super) fn triangle(c: &mut Ctx<'_, '_>, x: Value, op: BinaryOp) -> Res<Value> {
    let d = c.at_least(x, 3)?;
    let (i, j) = (down(c, &d[1])?, iota(c, &d[2])?);
    let keep = c.b.bin(op, j, i)?;
    kept(c, keep, x)
}

/// Q `[batch, m, m]` and R `[batch, m, n]` of `[batch, m, n]`.
pub(super) fn reflections(c: &mut Ctx<'_, '_>, a: Value) -> Res<[Value; 2]> {
    let d = c.at_least(a, 3)?;
    let q = unit(c, &d[0], &d[1])?;
    let steps = iota(c, &d[1].min_of(&d[2]))?;
    let (rows, cols) = (down(c, &d[1])?, iota(c, &d[2])?);
    let outs = scan(c, &[a, q], &[steps], false, &mut |c, carried, step| {
        let (r, q, k) = (carried[0], carried[1], step[0]);
        let own = c.b.bin(BinaryOp::Eq, cols, k)?;
        let column = picked(c, own, r, 2, true)?;
        let head = c.b.bin(BinaryOp::Eq, rows, k)?;
        let under = c.b.bin(BinaryOp::Gt, rows, k)?;
        let first = picked(c, head, column, 1, true)?;
        let rest = kept(c, under, column)?;
        let square = c.b.mul(rest, rest)?;
        let square = c.b.reduce(ReduceOp::Sum, square, &[1], true)?;
        let norm = c.b.mul(first, first)?;
        let norm = c.b.add(norm, square)?;
        let norm = c.b.un(UnaryOp::Sqrt, norm)?;
        let minus = c.b.un(UnaryOp::Neg, norm)?;
        let positive = c.b.bin_scalar(BinaryOp::Ge, first, 0.0)?;
        let beta = c.b.select(positive, minus, norm)?;
        let lead = c.b.sub(first, beta)?;
        let v = c.b.select(head, lead, rest)?;
        let size = c.b.mul(lead, lead)?;
        let size = c.b.add(size, square)?;
        let two = c.b.scalar(Dtype::F64, 2.0);
        let scale = c.b.div(two, size)?;
        // A column that has nothing below is left alone.
        let some = c.b.bin_scalar(BinaryOp::Gt, square, 0.0)?;
        let scale = kept(c, some, scale)?;
        let scaled = c.b.mul(v, scale)?;
        let (across, scaled_across) = (turned(c, v)?, turned(c, scaled)?);
        let off = c.b.matmul(across, r)?;
        let off = c.b.matmul(scaled, off)?;
        let r = c.b.sub(r, off)?;
        let off = c.b.matmul(q, v)?;
        let off = c.b.matmul(off, scaled_across)?;
        Ok((vec![r, c.b.sub(q, off)?], vec![]))
    })?;
    Ok([outs[1], triangle(c, outs[0], BinaryOp::Ge)?])
}

/// qr: modes reduced, complete, r.
pub fn qr(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let [q, r] = reflections(c, a.v)?;
    let k = a.m.min_of(&a.n);
    let mode = c.text("mode", "reduced").to_string();
    if mode == "complete" {
        a.put(c, "Q|q", q, &[&a.m, &a.m])?;
        return a.put(c, "R|r", r, &[&a.m, &a.n]);
    }
    if mode != "r" {
        let q = c.b.narrow(q, 2, 0i64.into(), k.clone())?;
        a.put(c, "Q|q", q, &[&a.m, &k])?;
    }
    let r = c.b.narrow(r, 1, 0i64.into(), k.clone())?;
    a.put(c, "R|r", r, &[&k, &a.n])
}

/// lu: both factors in one matrix, and which row came up at each step, counted from 1.
pub fn lu(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let batch = c.dim(a.v, 0)?;
    let k = a.m.min_of(&a.n);
    let steps = iota(c, &k)?;
    let (rows, flat, cols) = (down(c, &a.m)?, iota(c, &a.m)?, iota(c, &a.n)?);
    let whole = c.dims(a.v);
    let outs = scan(c, &[a.v], &[steps], false, &mut |c, carried, step| {
        let (a, k) = (carried[0], step[0]);
        let here = c.b.bin(BinaryOp::Eq, cols, k)?;
        let column = picked(c, here, a, 2, false)?;
        let size = c.b.un(UnaryOp::Abs, column)?;
        let below = c.b.bin(BinaryOp::Ge, flat, k)?;
        let none = c.b.scalar(Dtype::F64, -1.0);
        let size = c.b.select(below, size, none)?;
        let p = Prim::ArgReduce { max: true, axis: 1, keep: true, last: false };
        let best = c.b.prim(p, &[size])?;
        let (is_best, is_k) = (c.b.bin(BinaryOp::Eq, flat, best)?, c.b.bin(BinaryOp::Eq, flat, k)?);
        let from = c.b.select(is_best, k, flat)?;
        let from = c.b.select(is_k, best, from)?;
        let from = c.b.unsqueeze(from, 2)?;
        let from = c.b.broadcast(from, whole.clone())?;
        let a = c.b.prim(Prim::GatherElements { axis: 1 }, &[a, from])?;
        let at = c.b.bin(BinaryOp::Eq, rows, k)?;
        let row = picked(c, at, a, 1, true)?;
        let pivot = picked(c, here, row, 2, true)?;
        let column = picked(c, here, a, 2, true)?;
        let one = c.b.scalar(Dtype::F64, 1.0);
        let zero = c.b.bin_scalar(BinaryOp::Eq, pivot, 0.0)?;
        let pivot = c.b.select(zero, one, pivot)?;
        let under = c.b.bin(BinaryOp::Gt, rows, k)?;
        let factor = c.b.div(column, pivot)?;
        let factor = kept(c, under, factor)?;
        let right = c.b.bin(BinaryOp::Gt, cols, k)?;
        let off = c.b.mul(factor, row)?;
        let off = kept(c, right, off)?;
        let a = c.b.sub(a, off)?;
        let own = c.b.bin(BinaryOp::And, under, here)?;
        let a = c.b.select(own, factor, a)?;
        let best = c.b.bin_scalar(BinaryOp::Add, best, 1.0)?;
        let best = c.b.reshape(best, vec![batch.clone()])?;
        Ok((vec![a], vec![c.b.cast(best, Dtype::I32)?]))
    })?;
    let pivots = c.b.transpose(outs[1], &[1, 0])?;
    // Where the first pivot that is zero stands, counted from 1.
    let same = c.b.bin(BinaryOp::Eq, rows, cols)?;
    let diagonal = picked(c, same, outs[0], if a.n == k { 1 } else { 2 }, false)?;
    let zero = c.b.bin_scalar(BinaryOp::Eq, diagonal, 0.0)?;
    let count = c.b.cast(zero, Dtype::I32)?;
    let p = Prim::ArgReduce { max: true, axis: 1, keep: false, last: false };
    let at = c.b.prim(p, &[count])?;
    let at = c.b.bin_scalar(BinaryOp::Add, at, 1.0)?;
    let any = c.b.reduce(ReduceOp::Or, zero, &[1], false)?;
    let none = c.b.scalar(Dtype::I64, 0.0);
    let info = c.b.select(any, at, none)?;
    let info = c.b.cast(info, Dtype::I32)?;
    a.put(c, "Out|out", outs[0], &[&a.m, &a.n])?;
    a.put(c, "Pivots|pivots", pivots, &[&k])?;
    a.put(c, "Infos|infos", info, &[])
}

/// lu_unpack: the permutation and the triangles of what lu gives.
pub fn lu_unpack(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let pivots = c.tensor("Pivots|y")?;
    let batch = c.dim(a.v, 0)?;
    let k = a.m.min_of(&a.n);
    if c.flag("unpack_ludata", true) {
        let l = c.b.narrow(a.v, 2, 0i64.into(), k.clone())?;
        let l = triangle(c, l, BinaryOp::Lt)?;
        let (rows, cols) = (down(c, &a.m)?, iota(c, &k)?);
        let same = c.b.bin(BinaryOp::Eq, rows, cols)?;
        let one = c.b.scalar(Dtype::F64, 1.0);
        let l = c.b.select(same, one, l)?;
        let u = c.b.narrow(a.v, 1, 0i64.into(), k.clone())?;
        let u = triangle(c, u, BinaryOp::Ge)?;
        a.put(c, "L|l", l, &[&a.m, &k])?;
        a.put(c, "U|u", u, &[&k, &a.n])?;
    }
    if !c.flag("unpack_pivots", true) {
        return Ok(());
    }
    let pivots = c.b.cast(pivots, Dtype::I64)?;
    let pivots = c.b.bin_scalar(BinaryOp::Sub, pivots, 1.0)?;
    let pivots = c.b.reshape(pivots, vec![batch.clone(), k.clone()])?;
    let pivots = c.b.transpose(pivots, &[1, 0])?;
    let (steps, places) = (iota(c, &k)?, iota(c, &a.m)?);
    let start = c.b.broadcast(places, vec![batch.clone(), a.m.clone()])?;
    let outs = scan(c, &[start], &[steps, pivots], false, &mut |c, carried, step| {
        let (order, k) = (carried[0], step[0]);
        let p = c.b.unsqueeze(step[1], 1)?;
        let at = c.b.broadcast(k, c.dims(p))?;
        let mine = c.b.prim(Prim::GatherElements { axis: 1 }, &[order, at])?;
        let other = c.b.prim(Prim::GatherElements { axis: 1 }, &[order, p])?;
        let (is_k, is_p) = (c.b.bin(BinaryOp::Eq, places, k)?, c.b.bin(BinaryOp::Eq, places, p)?);
        let order = c.b.select(is_p, mine, order)?;
        Ok((vec![c.b.select(is_k, other, order)?], vec![]))
    })?;
    let order = c.b.unsqueeze(outs[0], 1)?;
    let rows = down(c, &a.m)?;
    let own = c.b.bin(BinaryOp::Eq, rows, order)?;
    let p = c.b.cast(own, Dtype::F64)?;
    a.put(c, "Pmat|pmat", p, &[&a.m, &a.m])
}
