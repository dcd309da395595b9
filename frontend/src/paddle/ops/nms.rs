//! Suppression of overlapping boxes: multiclass_nms and matrix_nms, built of primitives. How many
//! candidates pass the threshold is known only when the graph runs; all work is over that many.

use super::lod::{offsets_of, offsets_of_all, scan};
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
    /// Of boxes of all images in one list, each class having its own: the first of each image.
    list: Option<Value>,
}

/// Rows of `[N, M, …]` at int64 `[N, …]`.
fn rows(c: &mut Ctx<'_, '_>, data: Value, at: Value) -> Res<Value> {
    let rank = c.rank(at);
    let at = c.b.unsqueeze(at, rank)?;
    Ok(c.b.prim(Prim::GatherNd { batch: 1 }, &[data, at])?)
}

/// Boxes, `[N, M, 4]` or of each class `[N, C, M, 4]`, and their scores `[N, C, M]`.
struct Given {
    boxes: Value,
    scores: Value,
    list: Option<Value>,
}

/// The operands; those of images in one list (`[R, C, 4]` and `[R, C]`, their numbers in RoisNum or
/// their offsets as LoD) stand beside each other, with scores that never pass behind their end.
fn given(c: &mut Ctx<'_, '_>) -> Res<Given> {
    let (boxes, scores) = (c.tensor("BBoxes")?, c.tensor("Scores")?);
    let numbers = c.opt("RoisNum");
    if c.rank(scores) == 3 {
        if c.rank(boxes) != 3 {
            return c.refuse("boxes of rank other than 3");
        }
        return Ok(Given { boxes, scores, list: None });
    }
    if c.rank(scores) != 2 || c.rank(boxes) != 3 {
        return c.refuse("boxes or scores of another rank");
    }
    let rows = c.dim(scores, 0)?;
    let offsets = match (numbers, c.lods.get(&scores).or_else(|| c.lods.get(&boxes))) {
        (Some(n), _) => offsets_of_all(c, n, &rows, "RoisNum")?,
        (None, Some(&offsets)) => offsets,
        (None, None) => return c.refuse("boxes without their number in each image"),
    };
    let s = super::lod::of_offsets(c, offsets, rows)?;
    let longest = s.longest(c)?;
    let dtype = c.b.g.dtype(scores);
    let (low, zero) = (c.b.scalar(dtype, f64::NEG_INFINITY), c.b.scalar(dtype, 0.0));
    let scores = s.padded(c, scores, &longest, low, false)?;
    let boxes = s.padded(c, boxes, &longest, zero, false)?;
    let scores = c.b.transpose(scores, &[0, 2, 1])?;
    let boxes = c.b.transpose(boxes, &[0, 2, 1, 3])?;
    Ok(Given { boxes, scores, list: Some(s.starts) })
}

fn candidates(c: &mut Ctx<'_, '_>) -> Res<Candidates> {
    let Given { boxes, scores, list } = given(c)?;
    let ds = c.dims(scores);
    let ([images, classes, total], Some(four)) = (&ds[..], c.dims(boxes).pop()) else {
        return c.refuse("boxes or scores of another rank");
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
    let boxes = match list {
        Some(_) => {
            let at = c.b.unsqueeze(index, 3)?;
            c.b.prim(Prim::GatherNd { batch: 2 }, &[boxes, at])?
        }
        None => rows(c, boxes, index)?,
    };
    let (images, total) = (images.clone(), total.clone());
    Ok(Candidates { scores, valid, index, boxes, images, classes, count, total, list })
}

/// The four sides of boxes `[…, 4]`, without the last axis, and their areas.
fn sides(c: &mut Ctx<'_, '_>, boxes: Value, extra: f64) -> Res<([Value; 4], Value)> {
    let last = c.last(boxes)?;
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
    let shape = c.at_least(valid, 3)?;
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
    let n = c.dim(boxes, 0)?;
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

/// What orders detections (positions among the `n` of an image) by class and then by box.
fn by_place(c: &mut Ctx<'_, '_>, k: &Candidates, at: Value, n: &Dim) -> Res<Value> {
    let index = c.b.reshape(k.index, vec![k.images.clone(), n.clone()])?;
    let index = c.b.prim(Prim::GatherElements { axis: 1 }, &[index, at])?;
    let per_class = c.b.dim_scalar(k.count.clone());
    let class = c.b.div(at, per_class)?;
    let total = c.b.dim_scalar(k.total.clone());
    let key = c.b.mul(class, total)?;
    Ok(c.b.add(key, index)?)
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
        // Those that are kept by class, then by score (which is their position) or, of boxes in one
        // list, by place there; the others behind.
        let key = match k.list {
            None => at,
            Some(_) => by_place(c, k, at, &n)?,
        };
        let real = c.b.bin_scalar(BinaryOp::Gt, top[0], f64::NEG_INFINITY)?;
        let behind = c.b.scalar(Dtype::I64, i64::MAX as f64);
        let key = c.b.select(real, key, behind)?;
        let p = Prim::TopK { k: t.clone(), axis: 1, largest: false, sorted: true };
        let order = c.b.prim_n(p, &[key])?[1];
        at = c.b.prim(Prim::GatherElements { axis: 1 }, &[at, order])?;
    }
    let score = c.b.prim(Prim::GatherElements { axis: 1 }, &[scores, at])?;
    let real = c.b.bin_scalar(BinaryOp::Gt, score, f64::NEG_INFINITY)?;
    let boxes = flat(c, k.boxes, &[4i64.into()])?;
    let boxes = rows(c, boxes, at)?;
    let index = flat(c, k.index, &[])?;
    let index = c.b.prim(Prim::GatherElements { axis: 1 }, &[index, at])?;
    let per_class = c.b.dim_scalar(k.count.clone());
    let class = c.b.div(at, per_class)?;
    let label = c.b.cast(class, dtype)?;
    let (label, score) = (c.b.unsqueeze(label, 2)?, c.b.unsqueeze(score, 2)?);
    let table = c.b.concat(&[label, score, boxes], 2)?;
    let index = match k.list {
        // Box and class as one number.
        Some(first) => {
            let first = c.b.unsqueeze(first, 1)?;
            let row = c.b.add(index, first)?;
            let row = c.b.bin_scalar(BinaryOp::Mul, row, k.classes as f64)?;
            c.b.add(row, class)?
        }
        None => {
            let shape = vec![k.images.clone(), 1i64.into()];
            let image = c.b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: 0 }, &[])?;
            let total = c.b.dim_scalar(k.total.clone());
            let first = c.b.mul(image, total)?;
            c.b.add(index, first)?
        }
    };
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

/// bipartite_match: again and again the nearest pair of a row and a column that are both free;
/// then, if asked, each column that is left with the row nearest to it. Rows may be of several
/// images (LoD).
pub fn bipartite_match(c: &mut Ctx<'_, '_>) -> Res {
    /// No pair is nearer than this.
    const LEAST: f64 = 1e-6;
    let x = c.tensor("DistMat")?;
    let d = c.dims(x);
    let [rows, columns] = &d[..] else { return c.refuse("distances of rank other than 2") };
    let dtype = c.b.g.dtype(x);
    let zero = c.b.scalar(dtype, 0.0);
    // [N, M, K]: columns first, which is the order of equals.
    let (mut v, n, k) = match c.lods.get(&x) {
        Some(_) => {
            let s = super::lod::sequences(c, x)?;
            let longest = s.longest(c)?;
            (s.padded(c, x, &longest, zero, false)?, s.n, longest)
        }
        None => (c.b.unsqueeze(x, 0)?, 1i64.into(), rows.clone()),
    };
    v = c.b.transpose(v, &[0, 2, 1])?;
    let far = c.b.bin_scalar(BinaryOp::Lt, v, LEAST)?;
    let all = c.b.select(far, zero, v)?;
    let none = c.b.scalar(Dtype::I64, -1.0);
    let shape = vec![n.clone(), columns.clone()];
    let start = [all, c.b.broadcast(none, shape.clone())?, c.b.broadcast(zero, shape)?];
    let steps = super::lod::iota(c, &k)?;
    let (column, row) = (super::lod::iota(c, columns)?, steps);
    let flat = vec![n.clone(), columns.mul(&k)];
    let outs = scan(c, &start, &[steps], false, &mut |c, carried, _| {
        let [free, match_of, near] = [carried[0], carried[1], carried[2]];
        let list = c.b.reshape(free, flat.clone())?;
        let best = c.b.reduce(ReduceOp::Max, list, &[1], true)?;
        let arg = Prim::ArgReduce { max: true, axis: 1, keep: true, last: false };
        let arg = c.b.prim(arg, &[list])?;
        let width = c.b.dim_scalar(k.clone());
        let (to, from) = (c.b.div(arg, width)?, c.b.bin(BinaryOp::Mod, arg, width)?);
        let some = c.b.bin_scalar(BinaryOp::Gt, best, 0.0)?;
        let here = c.b.bin(BinaryOp::Eq, column, to)?;
        let here = c.b.bin(BinaryOp::And, here, some)?;
        let match_of = c.b.select(here, from, match_of)?;
        let near = c.b.select(here, best, near)?;
        let own = c.b.bin(BinaryOp::Eq, row, from)?;
        let (own, here) = (c.b.unsqueeze(own, 1)?, c.b.unsqueeze(here, 2)?);
        let used = c.b.bin(BinaryOp::Or, own, here)?;
        let free = c.b.select(used, zero, free)?;
        Ok((vec![free, match_of, near], vec![]))
    })?;
    let (mut match_of, mut near) = (outs[1], outs[2]);
    if c.text("match_type", "bipartite") == "per_prediction" {
        let best = c.b.reduce(ReduceOp::Max, all, &[2], false)?;
        let arg = Prim::ArgReduce { max: true, axis: 2, keep: false, last: false };
        let arg = c.b.prim(arg, &[all])?;
        let close = c.b.bin_scalar(BinaryOp::Ge, best, c.float("dist_threshold", 0.5))?;
        let some = c.b.bin_scalar(BinaryOp::Gt, best, 0.0)?;
        let left = c.b.bin_scalar(BinaryOp::Lt, match_of, 0.0)?;
        let take = c.b.bin(BinaryOp::And, close, left)?;
        let take = c.b.bin(BinaryOp::And, take, some)?;
        (match_of, near) = (c.b.select(take, arg, match_of)?, c.b.select(take, best, near)?);
    }
    let match_of = c.b.cast(match_of, Dtype::I32)?;
    c.put("ColToRowMatchIndices", match_of);
    c.put("ColToRowMatchDist", near);
    Ok(())
}
