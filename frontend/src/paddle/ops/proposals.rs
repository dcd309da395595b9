//! Proposals of a region network, and their division among levels of a pyramid.

use super::lod::{at, iota, offsets_of, offsets_of_all};
use super::nms::{Greedy, greedy};
use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// Greatest logarithm by which a box grows.
const LOG_MOST: f64 = 4.135_166_556_742_356;

/// Columns of `[…, 4]`, kept as `[…, 1]`.
fn columns(c: &mut Ctx<'_, '_>, v: Value) -> Res<[Value; 4]> {
    let last = c.last(v)?;
    let mut out = [v; 4];
    for (k, o) in out.iter_mut().enumerate() {
        *o = c.b.narrow(v, last, (k as i64).into(), 1i64.into())?;
    }
    Ok(out)
}

/// `[N, A*k, H, W]` as `[N, H*W*A, k]`.
fn by_place(c: &mut Ctx<'_, '_>, v: Value, k: i64) -> Res<Value> {
    let d = c.at_least(v, 4)?;
    let each = d[1].div(&k.into());
    let split = vec![d[0].clone(), each.clone(), k.into(), d[2].clone(), d[3].clone()];
    let v = c.b.reshape(v, split)?;
    let v = c.b.transpose(v, &[0, 3, 4, 1, 2])?;
    let rows = d[2].mul(&d[3]).mul(&each);
    Ok(c.b.reshape(v, vec![d[0].clone(), rows, k.into()])?)
}

/// Boxes `[N, K, 4]` from anchors and offsets to them.
fn decoded(
    c: &mut Ctx<'_, '_>,
    anchor: Value,
    variance: Value,
    delta: Value,
    offset: f64,
) -> Res<Value> {
    let delta = c.b.mul(delta, variance)?;
    let (a, d) = (columns(c, anchor)?, columns(c, delta)?);
    let (mut low, mut high) = (vec![], vec![]);
    for i in 0..2 {
        let size = c.b.sub(a[i + 2], a[i])?;
        let size = c.b.bin_scalar(BinaryOp::Add, size, offset)?;
        let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
        let centre = c.b.add(a[i], half)?;
        let shift = c.b.mul(d[i], size)?;
        let centre = c.b.add(centre, shift)?;
        let grow = c.b.bin_scalar(BinaryOp::Min, d[i + 2], LOG_MOST)?;
        let grow = c.b.un(UnaryOp::Exp, grow)?;
        let size = c.b.mul(grow, size)?;
        let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
        low.push(c.b.sub(centre, half)?);
        let end = c.b.add(centre, half)?;
        high.push(c.b.bin_scalar(BinaryOp::Sub, end, offset)?);
    }
    low.extend(high);
    Ok(c.b.concat(&low, 2)?)
}

/// Boxes within their image, and which of them are large enough and centred in it.
fn clipped(c: &mut Ctx<'_, '_>, boxes: Value, info: Value, offset: f64) -> Res<(Value, Value)> {
    let first = c.op.kind == "generate_proposals" && c.opt("ImInfo").is_some();
    let part = |c: &mut Ctx<'_, '_>, k: i64| -> Res<Value> {
        let v = c.b.narrow(info, 1, k.into(), 1i64.into())?;
        Ok(c.b.unsqueeze(v, 1)?)
    };
    let ends = [part(c, 1)?, part(c, 0)?];
    let mut sides = columns(c, boxes)?;
    for (k, v) in sides.iter_mut().enumerate() {
        let last = c.b.bin_scalar(BinaryOp::Sub, ends[k % 2], offset)?;
        *v = c.b.min(*v, last)?;
        *v = c.b.bin_scalar(BinaryOp::Max, *v, 0.0)?;
    }
    let boxes = c.b.concat(&sides, 2)?;
    let least = c.float("min_size", 0.1).max(1.0);
    let mut valid: Option<Value> = None;
    for i in 0..2 {
        let span = c.b.sub(sides[i + 2], sides[i])?;
        let size = c.b.bin_scalar(BinaryOp::Add, span, offset)?;
        let measured = if first {
            let scale = part(c, 2)?;
            let span = c.b.div(span, scale)?;
            c.b.bin_scalar(BinaryOp::Add, span, 1.0)?
        } else {
            size
        };
        let mut ok = c.b.bin_scalar(BinaryOp::Ge, measured, least)?;
        if offset != 0.0 {
            let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
            let centre = c.b.add(sides[i], half)?;
            let inside = c.b.bin(BinaryOp::Le, centre, ends[i])?;
            ok = c.b.bin(BinaryOp::And, ok, inside)?;
        }
        valid = Some(match valid {
            Some(v) => c.b.bin(BinaryOp::And, v, ok)?,
            None => ok,
        });
    }
    let Some(valid) = valid else { return c.refuse("no sides") };
    Ok((boxes, c.b.squeeze(valid, 2)?))
}

/// generate_proposals, generate_proposals_v2: the best boxes of each image after suppression.
pub fn generate(c: &mut Ctx<'_, '_>) -> Res {
    let (scores, deltas) = (c.tensor("Scores")?, c.tensor("BboxDeltas")?);
    let (anchors, variances) = (c.tensor("Anchors")?, c.tensor("Variances")?);
    let info = c.tensor("ImShape|ImInfo")?;
    if c.rank(scores) != 4 || c.rank(deltas) != 4 {
        return c.refuse("scores or offsets of rank other than 4");
    }
    let offset = if c.flag("pixel_offset", true) { 1.0 } else { 0.0 };
    let scores = by_place(c, scores, 1)?;
    let deltas = by_place(c, deltas, 4)?;
    let (n, all) = (c.dim(scores, 0)?, c.dim(scores, 1)?);
    let mut table =
        |v: Value| -> Res<Value> { Ok(c.b.reshape(v, vec![all.clone(), 4i64.into()])?) };
    let (anchors, variances) = (table(anchors)?, table(variances)?);
    let scores = c.b.squeeze(scores, 2)?;
    let k = match c.int("pre_nms_topN|pre_nms_top_n", 6000) {
        most @ 1.. => all.min_of(&most.into()),
        _ => all,
    };
    let p = Prim::TopK { k: k.clone(), axis: 1, largest: true, sorted: true };
    let top = c.b.prim_n(p, &[scores])?;
    let (scores, index) = (top[0], top[1]);
    let (anchor, variance) = (at(c, anchors, index)?, at(c, variances, index)?);
    let index = c.b.unsqueeze(index, 2)?;
    let delta = c.b.prim(Prim::GatherNd { batch: 1 }, &[deltas, index])?;
    let boxes = decoded(c, anchor, variance, delta, offset)?;
    let (boxes, valid) = clipped(c, boxes, info, offset)?;
    let (four, flags) = (c.b.unsqueeze(boxes, 1)?, c.b.unsqueeze(valid, 1)?);
    let threshold = c.float("nms_thresh", 0.5);
    let how = Greedy { extra: offset, threshold, eta: c.float("eta", 1.0) };
    let kept = greedy(c, four, flags, &how)?;
    let kept = c.b.squeeze(kept, 1)?;
    // No more than so many of each image.
    let ones = c.b.cast(kept, Dtype::I64)?;
    let sum = Prim::Cumulative { op: ReduceOp::Sum, axis: 1, exclusive: false, reverse: false };
    let rank = c.b.prim(sum, &[ones])?;
    let most = c.int("post_nms_topN|post_nms_top_n", 1000);
    let kept = match most {
        1.. => {
            let few = c.b.bin_scalar(BinaryOp::Le, rank, most as f64)?;
            c.b.bin(BinaryOp::And, kept, few)?
        }
        _ => kept,
    };
    // An image of which nothing stays gives one box of zeros.
    let some = c.b.reduce(ReduceOp::Or, kept, &[1], true)?;
    let none = c.b.un(UnaryOp::Not, some)?;
    let place = iota(c, &k)?;
    let head = c.b.bin_scalar(BinaryOp::Eq, place, 0.0)?;
    let stand_in = c.b.bin(BinaryOp::And, none, head)?;
    let kept = c.b.bin(BinaryOp::Or, kept, stand_in)?;
    let kept = c.b.broadcast(kept, vec![n, k])?;
    let zero = c.b.scalar(c.b.g.dtype(boxes), 0.0);
    let column = c.b.unsqueeze(some, 2)?;
    let boxes = c.b.select(column, boxes, zero)?;
    let scores = c.b.select(some, scores, zero)?;
    let rows = super::index::rows_of_non_zero(c, kept)?;
    let out = c.b.prim(Prim::GatherNd { batch: 0 }, &[boxes, rows])?;
    let scores = c.b.prim(Prim::GatherNd { batch: 0 }, &[scores, rows])?;
    let scores = c.b.unsqueeze(scores, 1)?;
    let each = c.b.cast(kept, Dtype::I32)?;
    let each = c.b.reduce(ReduceOp::Sum, each, &[1], false)?;
    let offsets = offsets_of(c, each)?;
    c.lods.insert(out, offsets);
    c.lods.insert(scores, offsets);
    c.put("RpnRois", out);
    c.put("RpnRoiProbs", scores);
    c.put("RpnRoisNum", each);
    Ok(())
}

/// How many of the rows are of each image: int32 `[N]`.
fn of_images(c: &mut Ctx<'_, '_>, image: Value, n: &Dim) -> Res<Value> {
    let images = iota(c, n)?;
    let image = c.b.unsqueeze(image, 1)?;
    let own = c.b.bin(BinaryOp::Eq, image, images)?;
    let own = c.b.cast(own, Dtype::I32)?;
    Ok(c.b.reduce(ReduceOp::Sum, own, &[0], false)?)
}

/// distribute_fpn_proposals: boxes by the level of the pyramid that suits their size.
pub fn distribute(c: &mut Ctx<'_, '_>) -> Res {
    let boxes = c.tensor("FpnRois")?;
    let (least, most) = (c.int("min_level", 2), c.int("max_level", 5));
    if !(0..=32).contains(&(most.saturating_sub(least))) {
        return c.refuse(format!("levels {least} to {most}"));
    }
    let count = c.dim(boxes, 0)?;
    let offsets = match (c.opt("RoisNum"), c.lods.get(&boxes)) {
        (Some(n), _) => offsets_of_all(c, n, &count, "RoisNum")?,
        (None, Some(&offsets)) => offsets,
        (None, None) => {
            let n = c.b.dims_vector(vec![count.clone()]);
            offsets_of(c, n)?
        }
    };
    let s = super::lod::of_offsets(c, offsets, count.clone())?;
    let (image, _) = s.owners(c)?;
    let offset = if c.flag("pixel_offset", true) { 1.0 } else { 0.0 };
    let e = columns(c, boxes)?;
    let (w, h) = (c.b.sub(e[2], e[0])?, c.b.sub(e[3], e[1])?);
    let (w, h) =
        (c.b.bin_scalar(BinaryOp::Add, w, offset)?, c.b.bin_scalar(BinaryOp::Add, h, offset)?);
    let area = c.b.mul(w, h)?;
    let side = c.b.un(UnaryOp::Sqrt, area)?;
    let side = c.b.bin_scalar(BinaryOp::Div, side, c.int("refer_scale", 224) as f64)?;
    let side = c.b.bin_scalar(BinaryOp::Add, side, 1e-6)?;
    let level = c.b.un(UnaryOp::Log, side)?;
    let level = c.b.bin_scalar(BinaryOp::Mul, level, 1.0 / std::f64::consts::LN_2)?;
    let level = c.b.un(UnaryOp::Floor, level)?;
    let level = c.b.bin_scalar(BinaryOp::Add, level, c.int("refer_level", 4) as f64)?;
    let level = c.b.bin_scalar(BinaryOp::Min, level, most as f64)?;
    let level = c.b.bin_scalar(BinaryOp::Max, level, least as f64)?;
    let level = c.b.reshape(level, vec![count.clone()])?;
    let (mut parts, mut orders, mut counts) = (vec![], vec![], vec![]);
    for l in least..=most {
        let here = c.b.bin_scalar(BinaryOp::Eq, level, l as f64)?;
        let rows = super::index::rows_of_non_zero(c, here)?;
        let rows = c.b.squeeze(rows, 1)?;
        let part = at(c, boxes, rows)?;
        let images = at(c, image, rows)?;
        let each = of_images(c, images, &s.n)?;
        let own = offsets_of(c, each)?;
        c.lods.insert(part, own);
        parts.push(part);
        orders.push(rows);
        counts.push(each);
    }
    // Where each box of the input went.
    let order = c.b.concat(&orders, 0)?;
    let k = c.dim(order, 0)?;
    let p = Prim::TopK { k, axis: 0, largest: false, sorted: true };
    let back = c.b.prim_n(p, &[order])?[1];
    let back = c.b.cast(back, Dtype::I32)?;
    let back = c.b.reshape(back, vec![count, 1i64.into()])?;
    c.put_all("MultiFpnRois", parts);
    c.put("RestoreIndex", back);
    c.put_all("MultiLevelRoIsNum", counts);
    Ok(())
}

/// collect_fpn_proposals: the best boxes of all levels, by image.
pub fn collect(c: &mut Ctx<'_, '_>) -> Res {
    let (boxes, scores) = (c.all("MultiLevelRois")?, c.all("MultiLevelScores")?);
    let numbers = c.all("MultiLevelRoIsNum")?;
    let mut images = vec![];
    let mut n = Dim::from(1i64);
    for (k, &b) in boxes.iter().enumerate() {
        let rows = c.dim(b, 0)?;
        let offsets = match (numbers.get(k), c.lods.get(&b)) {
            (Some(&each), _) => offsets_of_all(c, each, &rows, "MultiLevelRoIsNum")?,
            (None, Some(&offsets)) => offsets,
            (None, None) => return c.refuse("boxes without their number in each image"),
        };
        let s = super::lod::of_offsets(c, offsets, rows)?;
        images.push(s.owners(c)?.0);
        n = s.n;
    }
    let mut flat = vec![];
    for &s in &scores {
        let count = c.b.g.tensor(s).count();
        flat.push(c.b.reshape(s, vec![count])?);
    }
    if boxes.is_empty() || boxes.len() != scores.len() {
        return c.refuse("boxes and scores of different numbers of levels");
    }
    let (boxes, scores) = (c.b.concat(&boxes, 0)?, c.b.concat(&flat, 0)?);
    let image = c.b.concat(&images, 0)?;
    let total = c.dim(scores, 0)?;
    let most = c.int("post_nms_topN|post_nms_topn", 1000).clamp(0, DIM_MAX);
    let k = total.min_of(&most.into());
    let p = Prim::TopK { k: k.clone(), axis: 0, largest: true, sorted: true };
    let best = c.b.prim_n(p, &[scores])?[1];
    let image = at(c, image, best)?;
    // By image, and there by score: equals come in the order they had.
    let p = Prim::TopK { k, axis: 0, largest: false, sorted: true };
    let order = c.b.prim_n(p, &[image])?[1];
    let best = at(c, best, order)?;
    let v = at(c, boxes, best)?;
    let each = of_images(c, image, &n)?;
    let offsets = offsets_of(c, each)?;
    c.lods.insert(v, offsets);
    c.put("FpnRois", v);
    c.put("RoisNum", each);
    Ok(())
}
