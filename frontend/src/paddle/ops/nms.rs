//! Suppression of overlapping boxes: multiclass_nms and matrix_nms, built of primitives. How many
//! candidates pass the threshold is known only when the graph runs; all work is over that many.

use super::lod::{offsets_of, scan};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// The candidates of every class of every image, best first.
struct Candidates {
    /// `[N, C, K]`.
    scores: Value,
    /// Which of them pass the threshold: bool `[N, C, K]`.
    valid: Value,
    /// Index of each one's box: int64 `[N, C, K]`.
    index: Value,
    /// `[N, C, K, 4]`.
    boxes: Value,
    images: Dim,
    classes: i64,
    count: Dim,
    /// Boxes of an image.
    total: Dim,
}

/// Rows of `[N, M, …]` at int64 `[N, …]`.
fn rows(c: &mut Ctx<'_, '_>, data: Value, at: Value) -> Res<Value> {
    let rank = c.rank(at);
    let at = c.b.unsqueeze(at, rank)?;
    Ok(c.b.prim(Prim::GatherNd { batch: 1 }, &[data, at])?)
}

fn candidates(c: &mut Ctx<'_, '_>) -> Res<Candidates> {
    let (boxes, scores) = (c.tensor("BBoxes")?, c.tensor("Scores")?);
    let (db, ds) = (c.dims(boxes), c.dims(scores));
    let ([_, _, four], [images, classes, total]) = (&db[..], &ds[..]) else {
        return c.refuse("boxes or scores of rank other than 3");
    };
    let (true, Some(classes @ 1..)) = (four.is(4), classes.as_const()) else {
        return c.refuse("boxes of other than 4 numbers, or an unknown number of classes");
    };
    let most = c.int("nms_top_k", -1);
    let k = if most < 0 { total.clone() } else { total.min_of(&most.into()) };
    let p = Prim::TopK { k: k.clone(), axis: 2, largest: true, sorted: true };
    let top = c.b.prim_n(p, &[scores])?;
    let (mut scores, mut index) = (top[0], top[1]);
    let pass = |c: &mut Ctx<'_, '_>, scores: Value| -> Res<Value> {
        let valid = c.b.bin_scalar(BinaryOp::Gt, scores, c.float("score_threshold", 0.0))?;
        let background = c.int("background_label", 0);
        if !(0..classes).contains(&background) {
            return Ok(valid);
        }
        let shape = vec![1i64.into(), classes.into(), 1i64.into()];
        let label = c.b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: 1 }, &[])?;
        let real = c.b.bin_scalar(BinaryOp::Ne, label, background as f64)?;
        Ok(c.b.bin(BinaryOp::And, valid, real)?)
    };
    // As many as the fullest class has.
    let valid = pass(c, scores)?;
    let ones = c.b.cast(valid, Dtype::I64)?;
    let each = c.b.reduce(ReduceOp::Sum, ones, &[2], false)?;
    let fullest = c.b.reduce(ReduceOp::Max, each, &[0, 1], false)?;
    let most = k.bounds(&c.b.g.syms).1.max(0);
    let count = c.b.dims_of(fullest, "candidates", 0, most)?.remove(0);
    scores = c.b.narrow(scores, 2, 0i64.into(), count.clone())?;
    index = c.b.narrow(index, 2, 0i64.into(), count.clone())?;
    let valid = c.b.narrow(valid, 2, 0i64.into(), count.clone())?;
    let boxes = rows(c, boxes, index)?;
    let (images, total) = (images.clone(), total.clone());
    Ok(Candidates { scores, valid, index, boxes, images, classes, count, total })
}

/// The four sides of boxes `[…, 4]`, without the last axis, and their areas.
fn sides(c: &mut Ctx<'_, '_>, boxes: Value, extra: f64) -> Res<([Value; 4], Value)> {
    let last = c.rank(boxes) - 1;
    let mut s = [boxes; 4];
    for (i, v) in s.iter_mut().enumerate() {
        let one = c.b.narrow(boxes, last, (i as i64).into(), 1i64.into())?;
        *v = c.b.squeeze(one, last)?;
    }
    let extent = |c: &mut Ctx<'_, '_>, lo, hi| -> Res<Value> {
        let d = c.b.sub(hi, lo)?;
        Ok(if extra == 0.0 { d } else { c.b.bin_scalar(BinaryOp::Add, d, extra)? })
    };
    let (w, h) = (extent(c, s[0], s[2])?, extent(c, s[1], s[3])?);
    let (w, h) = (c.b.bin_scalar(BinaryOp::Max, w, 0.0)?, c.b.bin_scalar(BinaryOp::Max, h, 0.0)?);
    let area = c.b.mul(w, h)?;
    Ok((s, area))
}

type Sides = ([Value; 4], Value);

/// Intersection over union of boxes whose sides broadcast.
fn overlap(
    c: &mut Ctx<'_, '_>,
    (a, area_a): Sides,
    (b, area_b): Sides,
    extra: f64,
    apart: bool,
) -> Res<Value> {
    let mut area = None;
    for (lo, hi) in [(0, 2), (1, 3)] {
        let (from, to) = (c.b.max(a[lo], b[lo])?, c.b.min(a[hi], b[hi])?);
        let d = c.b.sub(to, from)?;
        let d = if extra == 0.0 { d } else { c.b.bin_scalar(BinaryOp::Add, d, extra)? };
        let d = c.b.bin_scalar(BinaryOp::Max, d, 0.0)?;
        area = Some(match area {
            Some(w) => c.b.mul(w, d)?,
            None => d,
        });
    }
    let Some(both) = area else { return c.refuse("no axes") };
    let sum = c.b.add(area_a, area_b)?;
    let union = c.b.sub(sum, both)?;
    // Two empty boxes do not overlap, nor, where asked, do two that lie beside each other.
    let mut some = c.b.bin_scalar(BinaryOp::Gt, both, 0.0)?;
    if extra != 0.0 && apart {
        for (lo, hi) in [(0, 2), (1, 3)] {
            for (p, q) in [(a[lo], b[hi]), (b[lo], a[hi])] {
                let meets = c.b.bin(BinaryOp::Le, p, q)?;
                some = c.b.bin(BinaryOp::And, some, meets)?;
            }
        }
    }
    let ratio = c.b.div(both, union)?;
    let zero = c.b.scalar(c.b.g.dtype(ratio), 0.0);
    Ok(c.b.select(some, ratio, zero)?)
}

/// Overlaps of boxes `[…, 4]` that broadcast.
pub fn overlaps(c: &mut Ctx<'_, '_>, a: Value, b: Value, extra: f64) -> Res<Value> {
    let (a, b) = (sides(c, a, extra)?, sides(c, b, extra)?);
    overlap(c, a, b, extra, false)
}

/// An axis of 1 put in front of the last of each.
fn column(c: &mut Ctx<'_, '_>, (mut s, area): Sides, at: usize) -> Res<Sides> {
    for v in &mut s {
        *v = c.b.unsqueeze(*v, at)?;
    }
    Ok((s, c.b.unsqueeze(area, at)?))
}

/// multiclass_nms, multiclass_nms2, multiclass_nms3: greedy suppression in each class.
pub fn multiclass_nms(c: &mut Ctx<'_, '_>) -> Res {
    if c.opt("RoisNum").is_some() {
        return c.refuse("boxes of all images in one list (RoisNum)");
    }
    let k = candidates(c)?;
    let extra = if c.flag("normalized", true) { 0.0 } else { 1.0 };
    let how =
        Greedy { extra, threshold: c.float("nms_threshold", 0.3), eta: c.float("nms_eta", 1.0) };
    let kept = greedy(c, k.boxes, k.valid, &how)?;
    finish(c, &k, k.scores, kept, true)
}

/// How boxes suppress each other.
pub struct Greedy {
    /// What is added to a box's sides: 1 where its last pixel belongs to it.
    pub extra: f64,
    /// Greatest overlap of two that stay.
    pub threshold: f64,
    /// What the threshold shrinks by with each box that stays, while it is over a half.
    pub eta: f64,
}

/// Of boxes `[N, C, K, 4]`, best first, those that stay: each that is valid and that no better one
/// which stays overlaps. Bool `[N, C, K]`.
pub fn greedy(c: &mut Ctx<'_, '_>, boxes: Value, valid: Value, how: &Greedy) -> Res<Value> {
    let all = sides(c, boxes, how.extra)?;
    let shape = c.dims(valid);
    let count = shape[2].clone();
    let no = c.b.scalar(Dtype::Bool, 0.0);
    let start = c.b.broadcast(no, shape.clone())?;
    let dtype = c.b.g.dtype(boxes);
    let threshold = c.b.scalar(dtype, how.threshold);
    let threshold =
        c.b.broadcast(threshold, vec![shape[0].clone(), shape[1].clone(), 1i64.into()])?;
    let place = super::lod::iota(c, &count)?;
    let steps = c.b.unsqueeze(place, 1)?;
    let outs = scan(c, &[start, threshold], &[steps], false, &mut |c, carried, row| {
        let (kept, threshold) = (carried[0], carried[1]);
        let pick = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> {
            Ok(c.b.prim(Prim::Gather { axis: 2 }, &[v, row[0]])?)
        };
        let real = pick(c, valid)?;
        let mut own = all;
        for v in own.0.iter_mut().chain([&mut own.1]) {
            *v = pick(c, *v)?;
        }
        let iou = overlap(c, own, all, how.extra, true)?;
        let hit = c.b.bin(BinaryOp::Gt, iou, threshold)?;
        let hit = c.b.bin(BinaryOp::And, hit, kept)?;
        let hit = c.b.reduce(ReduceOp::Or, hit, &[2], true)?;
        let free = c.b.un(UnaryOp::Not, hit)?;
        let stays = c.b.bin(BinaryOp::And, free, real)?;
        let here = c.b.bin(BinaryOp::Eq, place, row[0])?;
        let here = c.b.bin(BinaryOp::And, here, stays)?;
        let next = c.b.bin(BinaryOp::Or, kept, here)?;
        let mut lower = threshold;
        if how.eta < 1.0 {
            let less = c.b.bin_scalar(BinaryOp::Mul, threshold, how.eta)?;
            let over = c.b.bin_scalar(BinaryOp::Gt, threshold, 0.5)?;
            let shrinks = c.b.bin(BinaryOp::And, over, stays)?;
            lower = c.b.select(shrinks, less, threshold)?;
        }
        Ok((vec![next, lower], vec![]))
    })?;
    Ok(outs[0])
}

/// nms: indices of boxes that stay, in the order given.
pub fn nms(c: &mut Ctx<'_, '_>) -> Res {
    let boxes = c.tensor("Boxes")?;
    let n = c.dims(boxes)[0].clone();
    let four = c.b.reshape(boxes, vec![1i64.into(), 1i64.into(), n.clone(), 4i64.into()])?;
    let yes = c.b.scalar(Dtype::Bool, 1.0);
    let valid = c.b.broadcast(yes, vec![1i64.into(), 1i64.into(), n.clone()])?;
    let how = Greedy { extra: 0.0, threshold: c.float("iou_threshold|threshold", 1.0), eta: 1.0 };
    let kept = greedy(c, four, valid, &how)?;
    let kept = c.b.reshape(kept, vec![n])?;
    let rows = super::index::rows_of_non_zero(c, kept)?;
    let v = c.b.squeeze(rows, 1)?;
    c.put("KeepBoxesIdxs", v);
    Ok(())
}

/// matrix_nms: every score decays by the overlap with better boxes.
pub fn matrix_nms(c: &mut Ctx<'_, '_>) -> Res {
    let k = candidates(c)?;
    let extra = if c.flag("normalized", true) { 0.0 } else { 1.0 };
    let all = sides(c, k.boxes, extra)?;
    let rows = column(c, all, 3)?;
    let columns = column(c, all, 2)?;
    let iou = overlap(c, rows, columns, extra, true)?;
    let square = vec![k.count.clone(), k.count.clone()];
    let iota = |axis| Prim::Iota { dtype: Dtype::I64, shape: square.clone(), axis };
    let (i, j) = (c.b.prim(iota(0), &[])?, c.b.prim(iota(1), &[])?);
    let better = c.b.bin(BinaryOp::Lt, j, i)?;
    let dtype = c.b.g.dtype(iou);
    let (zero, one) = (c.b.scalar(dtype, 0.0), c.b.scalar(dtype, 1.0));
    // How much each is itself overlapped by a better one: 0 for the best, also among none.
    let only = c.b.select(better, iou, zero)?;
    let most = c.b.reduce(ReduceOp::Max, only, &[3], false)?;
    let most = c.b.unsqueeze(most, 2)?;
    let decay = if c.flag("use_gaussian", false) {
        let (m, o) = (c.b.mul(most, most)?, c.b.mul(iou, iou)?);
        let d = c.b.sub(m, o)?;
        let d = c.b.bin_scalar(BinaryOp::Mul, d, c.float("gaussian_sigma", 2.0))?;
        c.b.un(UnaryOp::Exp, d)?
    } else {
        let (a, b) = (c.b.sub(one, iou)?, c.b.sub(one, most)?);
        c.b.div(a, b)?
    };
    let decay = c.b.select(better, decay, one)?;
    let decay = c.b.reduce(ReduceOp::Min, decay, &[3], false)?;
    let decay = c.b.bin_scalar(BinaryOp::Min, decay, 1.0)?;
    let scores = c.b.mul(k.scores, decay)?;
    let above = c.b.bin_scalar(BinaryOp::Gt, scores, c.float("post_threshold", 0.0))?;
    let kept = c.b.bin(BinaryOp::And, above, k.valid)?;
    finish(c, &k, scores, kept, false)
}

/// The best `keep_top_k` of those kept in each image, as rows (label, score, box): by class and then
/// score, or by score alone.
fn finish(c: &mut Ctx<'_, '_>, k: &Candidates, scores: Value, kept: Value, by_class: bool) -> Res {
    let dtype = c.b.g.dtype(scores);
    let low = c.b.scalar(dtype, f64::NEG_INFINITY);
    let scores = c.b.select(kept, scores, low)?;
    let n = k.count.times(k.classes);
    let flat = |c: &mut Ctx<'_, '_>, v: Value, tail: &[Dim]| -> Res<Value> {
        let shape = [&[k.images.clone(), n.clone()], tail].concat();
        Ok(c.b.reshape(v, shape)?)
    };
    let scores = flat(c, scores, &[])?;
    let most = c.int("keep_top_k", -1);
    let t = if most < 0 { n.clone() } else { n.min_of(&most.into()) };
    let p = Prim::TopK { k: t.clone(), axis: 1, largest: true, sorted: true };
    let top = c.b.prim_n(p, &[scores])?;
    let mut at = top[1];
    if by_class {
        // Those that are kept by position, which is class before score; the others behind.
        let real = c.b.bin_scalar(BinaryOp::Gt, top[0], f64::NEG_INFINITY)?;
        let behind = c.b.dim_scalar(n.clone());
        let moved = c.b.add(at, behind)?;
        let key = c.b.select(real, at, moved)?;
        let p = Prim::TopK { k: t.clone(), axis: 1, largest: false, sorted: true };
        let key = c.b.prim_n(p, &[key])?[0];
        let behind = c.b.dim_scalar(n.clone());
        at = c.b.bin(BinaryOp::Mod, key, behind)?;
    }
    let score = c.b.prim(Prim::GatherElements { axis: 1 }, &[scores, at])?;
    let real = c.b.bin_scalar(BinaryOp::Gt, score, f64::NEG_INFINITY)?;
    let boxes = flat(c, k.boxes, &[4i64.into()])?;
    let boxes = rows(c, boxes, at)?;
    let index = flat(c, k.index, &[])?;
    let index = c.b.prim(Prim::GatherElements { axis: 1 }, &[index, at])?;
    let per_class = c.b.dim_scalar(k.count.clone());
    let label = c.b.div(at, per_class)?;
    let label = c.b.cast(label, dtype)?;
    let (label, score) = (c.b.unsqueeze(label, 2)?, c.b.unsqueeze(score, 2)?);
    let table = c.b.concat(&[label, score, boxes], 2)?;
    let shape = vec![k.images.clone(), 1i64.into()];
    let image = c.b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: 0 }, &[])?;
    let total = c.b.dim_scalar(k.total.clone());
    let first = c.b.mul(image, total)?;
    let index = c.b.add(index, first)?;
    // The rows of all images, one after the other.
    let bound = t.mul(&k.images).bounds(&c.b.g.syms).1.clamp(0, crate::options::DIM_MAX);
    let count = c.b.g.new_sym("detections", 0, bound);
    let found = c.b.prim(Prim::NonZero { count }, &[real])?;
    let found = c.b.transpose(found, &[1, 0])?;
    let out = c.b.prim(Prim::GatherNd { batch: 0 }, &[table, found])?;
    let index = c.b.prim(Prim::GatherNd { batch: 0 }, &[index, found])?;
    let index = c.b.cast(index, Dtype::I32)?;
    let index = c.b.unsqueeze(index, 1)?;
    let each = c.b.cast(real, Dtype::I32)?;
    let each = c.b.reduce(ReduceOp::Sum, each, &[1], false)?;
    let offsets = offsets_of(c, each)?;
    c.lods.insert(out, offsets);
    c.put("Out", out);
    c.put("Index", index);
    c.put("NmsRoisNum|RoisNum", each);
    Ok(())
}
