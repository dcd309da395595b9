//! Decoders: conditional random fields, CTC.

use super::lod::{iota, scan, sequences};
use super::sequence::kept;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, Value};

/// Scores on the way through a lattice.
struct Lattice {
    /// `[L, N, D]`.
    emission: Value,
    /// Bool `[L, N, 1]`: steps that a sequence has.
    filled: Value,
    /// `[D, D]`, from row to column.
    transition: Value,
    /// What is added at the start and at the end, `[D]`.
    start: Option<Value>,
    stop: Option<Value>,
}

/// The best path, int64 `[L, N]`, zero behind a sequence's end, and its score `[N]`.
fn viterbi(c: &mut Ctx<'_, '_>, l: &Lattice) -> Res<(Value, Value)> {
    let d = c.dims(l.emission);
    let Some([steps, n, tags]) = <[Dim; 3]>::try_from(d).ok() else {
        return c.refuse("emissions of such a rank");
    };
    let first = c.b.narrow(l.emission, 0, 0i64.into(), 1i64.into())?;
    let mut alpha = c.b.squeeze(first, 0)?;
    if let Some(start) = l.start {
        alpha = c.b.add(alpha, start)?;
    }
    let rest = steps.plus(-1);
    let later = c.b.narrow(l.emission, 0, 1i64.into(), rest.clone())?;
    let filled = c.b.narrow(l.filled, 0, 1i64.into(), rest)?;
    let stay = iota(c, &tags)?;
    let stay = c.b.broadcast(stay, vec![n.clone(), tags.clone()])?;
    let outs = scan(c, &[alpha], &[later, filled], false, &mut |c, carried, row| {
        let from = c.b.unsqueeze(carried[0], 2)?;
        let scores = c.b.add(from, l.transition)?;
        let best = c.b.reduce(ReduceOp::Max, scores, &[1], false)?;
        let arg = Prim::ArgReduce { max: true, axis: 1, keep: false, last: false };
        let arg = c.b.prim(arg, &[scores])?;
        let next = c.b.add(best, row[0])?;
        let next = c.b.select(row[1], next, carried[0])?;
        let back = c.b.select(row[1], arg, stay)?;
        Ok((vec![next], vec![back]))
    })?;
    let mut last = outs[0];
    if let Some(stop) = l.stop {
        last = c.b.add(last, stop)?;
    }
    let score = c.b.reduce(ReduceOp::Max, last, &[1], false)?;
    let tag = Prim::ArgReduce { max: true, axis: 1, keep: false, last: false };
    let tag = c.b.prim(tag, &[last])?;
    let outs = scan(c, &[tag], &[outs[1]], true, &mut |c, carried, row| {
        let column = c.b.unsqueeze(carried[0], 1)?;
        let v = c.b.prim(Prim::GatherElements { axis: 1 }, &[row[0], column])?;
        let v = c.b.squeeze(v, 1)?;
        Ok((vec![v], vec![v]))
    })?;
    let tag = c.b.unsqueeze(tag, 0)?;
    let path = c.b.concat(&[outs[1], tag], 0)?;
    let filled = c.b.squeeze(l.filled, 2)?;
    let zero = c.b.scalar(Dtype::I64, 0.0);
    Ok((c.b.select(filled, path, zero)?, score))
}

/// crf_decoding: Emission as sequences `[T, D]`, or `[N, L, D]` with Length; Transition
/// `[D + 2, D]`, of which the first two rows are those of the start and the end.
pub fn crf(c: &mut Ctx<'_, '_>) -> Res {
    let (x, weights) = (c.tensor("Emission")?, c.tensor("Transition")?);
    c.ranked(&[weights], 2)?;
    c.ranked(&[x], if c.opt("Length").is_some() { 3 } else { 2 })?;
    let d = c.dim(weights, 1)?;
    let row = |c: &mut Ctx<'_, '_>, k: i64| -> Res<Value> {
        let v = c.b.narrow(weights, 0, k.into(), 1i64.into())?;
        Ok(c.b.squeeze(v, 0)?)
    };
    let (start, stop) = (Some(row(c, 0)?), Some(row(c, 1)?));
    let transition = c.b.narrow(weights, 0, 2i64.into(), d)?;
    let mut lod = None;
    let (padded, filled) = match c.opt("Length") {
        Some(lens) => {
            let (n, steps) = (c.dim(x, 0)?, c.dim(x, 1)?);
            let lens = c.b.reshape(lens, vec![n, 1i64.into()])?;
            let lens = c.b.cast(lens, Dtype::I64)?;
            let place = iota(c, &steps)?;
            (x, c.b.bin(BinaryOp::Lt, place, lens)?)
        }
        None => {
            let s = sequences(c, x)?;
            let longest = s.longest(c)?;
            let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
            let padded = s.padded(c, x, &longest, zero, false)?;
            let filled = s.filled(c, &longest)?;
            lod = Some(s);
            (padded, filled)
        }
    };
    let emission = c.b.transpose(padded, &[1, 0, 2])?;
    let filled = c.b.transpose(filled, &[1, 0])?;
    let filled = c.b.unsqueeze(filled, 2)?;
    let (path, _) = viterbi(c, &Lattice { emission, filled, transition, start, stop })?;
    let mut path = c.b.transpose(path, &[1, 0])?;
    if let Some(s) = &lod {
        path = s.flat(c, path, false)?;
        path = c.b.unsqueeze(path, 1)?;
        c.lods.insert(path, s.offsets);
    }
    if let Some(label) = c.opt("Label") {
        let label = c.b.cast(label, Dtype::I64)?;
        let label = c.b.reshape(label, c.dims(path))?;
        let same = c.b.bin(BinaryOp::Eq, path, label)?;
        path = c.b.cast(same, Dtype::I64)?;
    }
    c.put("ViterbiPath", path);
    Ok(())
}

/// viterbi_decode: Input `[N, L, D]`, lengths `[N]`; with tags of begin and end, which are the last
/// two, paths start from one and end in the other.
pub fn viterbi_decode(c: &mut Ctx<'_, '_>) -> Res {
    let (x, transition, lens) = (c.tensor("Input")?, c.tensor("Transition")?, c.tensor("Length")?);
    let (steps, tags) = (c.dim(x, 1)?, c.dim(transition, 0)?);
    let (mut start, mut stop) = (None, None);
    if c.flag("include_bos_eos_tag", true) {
        let of = |c: &mut Ctx<'_, '_>, back: i64| -> Res<Value> {
            let v = c.b.narrow(transition, 0, tags.plus(back), 1i64.into())?;
            Ok(c.b.squeeze(v, 0)?)
        };
        (start, stop) = (Some(of(c, -1)?), Some(of(c, -2)?));
    }
    let lens = c.b.cast(lens, Dtype::I64)?;
    // The longest path is as long as the longest sequence.
    let most = c.b.reduce(ReduceOp::Max, lens, &[0], false)?;
    let (_, bound) = steps.bounds(&c.b.g.syms);
    let most = c.b.dims_of(most, "path", 1, bound.max(1))?.remove(0);
    let x = c.b.narrow(x, 1, 0i64.into(), most.clone())?;
    let lens = c.b.unsqueeze(lens, 1)?;
    let place = iota(c, &most)?;
    let filled = c.b.bin(BinaryOp::Lt, place, lens)?;
    let filled = c.b.transpose(filled, &[1, 0])?;
    let filled = c.b.unsqueeze(filled, 2)?;
    let emission = c.b.transpose(x, &[1, 0, 2])?;
    let l = Lattice { emission, filled, transition, start, stop };
    let (path, score) = viterbi(c, &l)?;
    let path = c.b.transpose(path, &[1, 0])?;
    c.put("Scores", score);
    c.put("Path", path);
    Ok(())
}

/// Which tokens stay: no blanks, and of equal neighbours the first. `before` is each one's neighbour,
/// `first` where there is none.
fn stays(c: &mut Ctx<'_, '_>, x: Value, before: Value, first: Value) -> Res<Value> {
    let real = c.b.bin_scalar(BinaryOp::Ne, x, c.int("blank", 0) as f64)?;
    if !c.flag("merge_repeated", true) {
        return Ok(real);
    }
    let other = c.b.bin(BinaryOp::Ne, x, before)?;
    let new = c.b.bin(BinaryOp::Or, other, first)?;
    Ok(c.b.bin(BinaryOp::And, real, new)?)
}

/// ctc_align: tokens without blanks and repetitions; sequences `[T, 1]`, or `[N, L]` with lengths.
pub fn ctc_align(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let dtype = c.b.g.dtype(x);
    let Some(lens) = c.opt("InputLength") else { return ctc_align_lod(c, x) };
    c.ranked(&[x], 2)?;
    let (n, steps) = (c.dim(x, 0)?, c.dim(x, 1)?);
    let zeros = c.b.narrow(x, 1, 0i64.into(), 1i64.into())?;
    let head = c.b.narrow(x, 1, 0i64.into(), steps.plus(-1))?;
    let before = c.b.concat(&[zeros, head], 1)?;
    let place = iota(c, &steps)?;
    let first = c.b.bin_scalar(BinaryOp::Eq, place, 0.0)?;
    let keep = stays(c, x, before, first)?;
    let lens = c.b.cast(lens, Dtype::I64)?;
    let lens = c.b.reshape(lens, vec![n.clone(), 1i64.into()])?;
    let inside = c.b.bin(BinaryOp::Lt, place, lens)?;
    let keep = c.b.bin(BinaryOp::And, keep, inside)?;
    // Those that stay by place, the others behind them.
    let behind = c.b.dim_scalar(steps.clone());
    let moved = c.b.add(place, behind)?;
    let key = c.b.select(keep, place, moved)?;
    let p = Prim::TopK { k: steps, axis: 1, largest: false, sorted: true };
    let order = c.b.prim_n(p, &[key])?[1];
    let v = c.b.prim(Prim::GatherElements { axis: 1 }, &[x, order])?;
    let ones = c.b.cast(keep, Dtype::I64)?;
    let count = c.b.reduce(ReduceOp::Sum, ones, &[1], true)?;
    let there = c.b.bin(BinaryOp::Lt, place, count)?;
    let pad = c.b.scalar(dtype, c.int("padding_value", 0) as f64);
    let v = c.b.select(there, v, pad)?;
    let count = c.b.cast(count, dtype)?;
    c.put("Output", v);
    c.put("OutputLength", count);
    Ok(())
}

/// As sequences; where nothing stays, one −1.
fn ctc_align_lod(c: &mut Ctx<'_, '_>, x: Value) -> Res {
    let dtype = c.b.g.dtype(x);
    let s = sequences(c, x)?;
    let (_, place) = s.owners(c)?;
    let flat = c.b.reshape(x, vec![s.rows.clone()])?;
    let head = c.b.narrow(flat, 0, 0i64.into(), s.rows.plus(-1))?;
    let zero = c.b.narrow(flat, 0, 0i64.into(), 1i64.into())?;
    let before = c.b.concat(&[zero, head], 0)?;
    let first = c.b.bin_scalar(BinaryOp::Eq, place, 0.0)?;
    let keep = stays(c, flat, before, first)?;
    let (v, offsets) = kept(c, flat, s.offsets, keep)?;
    let none = c.b.scalar(dtype, -1.0);
    let none = c.b.reshape(none, vec![1i64.into()])?;
    let count = c.dim(v, 0)?.max_of(&1i64.into());
    let v = c.b.concat(&[v, none], 0)?;
    let v = c.b.narrow(v, 0, 0i64.into(), count.clone())?;
    let v = c.b.reshape(v, vec![count, 1i64.into()])?;
    c.lods.insert(v, offsets);
    c.put("Output", v);
    Ok(())
}

/// gather_tree: the beams `[T, N, K]` that the last step's ended in, followed back by their parents.
pub fn gather_tree(c: &mut Ctx<'_, '_>) -> Res {
    let (ids, parents) = (c.tensor("Ids|ids")?, c.tensor("Parents|parents")?);
    let d = c.dims(ids);
    let [_, n, k] = &d[..] else { return c.refuse("beams of rank other than 3") };
    let parents = c.b.cast(parents, Dtype::I64)?;
    let start = Prim::Iota { dtype: Dtype::I64, shape: vec![n.clone(), k.clone()], axis: 1 };
    let start = c.b.prim(start, &[])?;
    let outs = scan(c, &[start], &[ids, parents], true, &mut |c, carried, row| {
        let at = |c: &mut Ctx<'_, '_>, v: Value| {
            c.b.prim(Prim::GatherElements { axis: 1 }, &[v, carried[0]])
        };
        Ok((vec![at(c, row[1])?], vec![at(c, row[0])?]))
    })?;
    c.put("Out|out", outs[1]);
    Ok(())
}
