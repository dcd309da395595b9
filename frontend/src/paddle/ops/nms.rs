//! Suppression of overlapping boxes: multiclass_nms and matrix_nms, built of primitives. How many
//! candidates pass the threshold is known only when the graph runs; all work is over that many.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Control, Dim, Dtype, Prim, ReduceOp, Region, Type, UnaryOp, Value};

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
fn overlap(c: &mut Ctx<'_, '_>, (a, area_a): Sides, (b, area_b): Sides, extra: f64) -> Res<Value> {
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
    // Two empty boxes do not overlap.
    let some = c.b.bin_scalar(BinaryOp::Gt, both, 0.0)?;
    let ratio = c.b.div(both, union)?;
    let zero = c.b.scalar(c.b.g.dtype(ratio), 0.0);
    Ok(c.b.select(some, ratio, zero)?)
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
    if c.float("nms_eta", 1.0) < 1.0 {
        return c.refuse("an adaptive threshold (nms_eta)");
    }
    if c.opt("RoisNum").is_some() {
        return c.refuse("boxes of all images in one list (RoisNum)");
    }
    let k = candidates(c)?;
    let extra = if c.flag("normalized", true) { 0.0 } else { 1.0 };
    let all = sides(c, k.boxes, extra)?;
    // One step a candidate, best first: it stays unless one before it that stayed overlaps it.
    let class = vec![k.images.clone(), k.classes.into()];
    let shape = [&class[..], std::slice::from_ref(&k.count)].concat();
    let flags = Type::tensor(Dtype::Bool, shape.clone());
    let body = c.b.g.new_region();
    let gone = c.b.g.add_param(body, flags.clone());
    let step_shape = vec![k.count.clone(), 1i64.into()];
    let steps = c.b.prim(Prim::Iota { dtype: Dtype::I64, shape: step_shape, axis: 0 }, &[])?;
    let at = c.b.g.add_param(body, Type::tensor(Dtype::I64, vec![1i64.into()]));
    let (op, dialect) = (c.op, c.dialect);
    let mut nested = c.b.nested();
    let (ins, declared, outs) = (vec![], vec![], vec![]);
    let mut inner = Ctx { b: &mut nested, op, dialect, ins, declared, outs };
    let (next, stays) = step(&mut inner, &k, all, (gone, at), extra)?;
    nested.into_region(body);
    c.b.g.regions[body].results = vec![next, stays];
    let start = c.b.scalar(Dtype::Bool, 0.0);
    let start = c.b.broadcast(start, shape)?;
    let Region(body) = body;
    let control = Control::Scan { body, carried: 1, trip: k.count.clone(), reverse: false };
    let kept = [std::slice::from_ref(&k.count), &class].concat();
    let outs = c.b.control(control, &[start, steps], vec![flags, Type::tensor(Dtype::Bool, kept)]);
    let kept = c.b.transpose(outs[1], &[1, 2, 0])?;
    finish(c, &k, k.scores, kept, true)
}

/// A step of the suppression: which are gone after it, and whether its own candidate stays.
fn step(
    c: &mut Ctx<'_, '_>,
    k: &Candidates,
    all: Sides,
    (gone, at): (Value, Value),
    extra: f64,
) -> Res<(Value, Value)> {
    let pick = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> {
        Ok(c.b.prim(Prim::Gather { axis: 2 }, &[v, at])?)
    };
    let (valid, out) = (pick(c, k.valid)?, pick(c, gone)?);
    let stays = c.b.un(UnaryOp::Not, out)?;
    let stays = c.b.bin(BinaryOp::And, stays, valid)?;
    let mut own = all;
    for v in own.0.iter_mut().chain([&mut own.1]) {
        *v = pick(c, *v)?;
    }
    let iou = overlap(c, own, all, extra)?;
    let hit = c.b.bin_scalar(BinaryOp::Gt, iou, c.float("nms_threshold", 0.3))?;
    let hit = c.b.bin(BinaryOp::And, hit, stays)?;
    let next = c.b.bin(BinaryOp::Or, gone, hit)?;
    Ok((next, c.b.squeeze(stays, 2)?))
}

/// matrix_nms: every score decays by the overlap with better boxes.
pub fn matrix_nms(c: &mut Ctx<'_, '_>) -> Res {
    let k = candidates(c)?;
    let extra = if c.flag("normalized", true) { 0.0 } else { 1.0 };
    let all = sides(c, k.boxes, extra)?;
    let rows = column(c, all, 3)?;
    let columns = column(c, all, 2)?;
    let iou = overlap(c, rows, columns, extra)?;
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
    c.put("Out", out);
    c.put("Index", index);
    c.put("NmsRoisNum|RoisNum", each);
    Ok(())
}
