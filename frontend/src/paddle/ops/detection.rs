//! Operators of detectors.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::detection::YoloBox;
use hub_ir::{BinaryOp, UnaryOp, Value};

/// yolo_box.
pub fn yolo_box(c: &mut Ctx<'_, '_>) -> Res {
    let (x, size) = (c.tensor("X")?, c.tensor("ImgSize")?);
    let iou = c.flag("iou_aware", false);
    let op = YoloBox {
        anchors: c.ints("anchors").unwrap_or_default(),
        classes: c.int("class_num", 1),
        threshold: c.float("conf_thresh", 0.01),
        downsample: c.int("downsample_ratio", 32),
        clip: c.flag("clip_bbox", true),
        scale_xy: c.float("scale_x_y", 1.0),
        iou_aware: iou.then(|| c.float("iou_aware_factor", 0.5)),
    };
    let outs = c.b.source_n(op, &[x, size])?;
    c.put("Boxes", outs[0]);
    c.put("Scores", outs[1]);
    Ok(())
}

/// prior_box: anchors of every cell of a map of known size, `[H, W, P, 4]`, and their variances.
pub fn prior_box(c: &mut Ctx<'_, '_>) -> Res {
    let (map, image) = (c.tensor("Input")?, c.tensor("Image")?);
    let size = |v: Value| -> Option<(i64, i64)> {
        let d = c.dims(v);
        Some((d.get(2)?.as_const()?, d.get(3)?.as_const()?))
    };
    let (Some((h, w)), Some((ih, iw))) = (size(map), size(image)) else {
        return c.refuse("a map or image of unknown size");
    };
    let sides = prior_sides(c);
    let count = (h * w).checked_mul(4 * sides.len() as i64);
    if h < 1 || w < 1 || count.is_none_or(|n| n > 1 << 24) {
        return c.refuse("too many anchors");
    }
    let step = |name: &str, image: i64, cells: i64| match c.float(name, 0.0) {
        0.0 => image as f64 / cells as f64,
        s => s,
    };
    let (sw, sh) = (step("step_w", iw, w), step("step_h", ih, h));
    let offset = c.float("offset", 0.5);
    let clip = c.flag("clip", false);
    let mut boxes = vec![];
    for y in 0..h {
        for x in 0..w {
            let (cx, cy) = ((x as f64 + offset) * sw, (y as f64 + offset) * sh);
            for (bw, bh) in &sides {
                let edges = [
                    (cx - bw / 2.0) / iw as f64,
                    (cy - bh / 2.0) / ih as f64,
                    (cx + bw / 2.0) / iw as f64,
                    (cy + bh / 2.0) / ih as f64,
                ];
                let edge = |e: f64| if clip { e.clamp(0.0, 1.0) } else { e };
                boxes.extend(edges.map(|e| edge(e) as f32));
            }
        }
    }
    let dims = [h, w, sides.len() as i64, 4];
    let variances = c.floats("variances").unwrap_or(vec![0.1, 0.1, 0.2, 0.2]);
    if variances.len() != 4 {
        return c.refuse("other than four variances");
    }
    let v4: Vec<f32> = variances.iter().map(|&v| v as f32).collect();
    let v = c.b.floats(&[4], &v4);
    let v = c.b.broadcast(v, dims.iter().map(|&d| d.into()).collect())?;
    let boxes = c.b.floats(&dims, &boxes);
    c.put("Boxes", boxes);
    c.put("Variances", v);
    Ok(())
}

/// Widths and heights of a cell's anchors, in order.
fn prior_sides(c: &Ctx<'_, '_>) -> Vec<(f64, f64)> {
    let list = |n: &str| c.floats(n).unwrap_or_default();
    let (least, most) = (list("min_sizes"), list("max_sizes"));
    let mut ratios = vec![1.0];
    for r in list("aspect_ratios").into_iter().take(64) {
        if ratios.iter().all(|k: &f64| (k - r).abs() > 1e-6) {
            ratios.push(r);
            if c.flag("flip", false) {
                ratios.push(1.0 / r);
            }
        }
    }
    let mut sides = vec![];
    for (i, &s) in least.iter().take(64).enumerate() {
        let square = most.get(i).map(|m| (s * m).sqrt());
        let shaped = |r: &f64| (s * r.sqrt(), s / r.sqrt());
        if c.flag("min_max_aspect_ratios_order", false) {
            sides.push((s, s));
            sides.extend(square.map(|q| (q, q)));
            sides.extend(ratios.iter().filter(|r| (*r - 1.0).abs() >= 1e-6).map(shaped));
        } else {
            sides.extend(ratios.iter().map(shaped));
            sides.extend(square.map(|q| (q, q)));
        }
    }
    sides
}

/// box_coder, decoding: boxes from offsets to prior boxes.
pub fn box_coder(c: &mut Ctx<'_, '_>) -> Res {
    if !c.text("code_type", "encode_center_size").starts_with("decode") {
        return c.refuse("encoding");
    }
    let (prior, target) = (c.tensor("PriorBox")?, c.tensor("TargetBox")?);
    let extra = if c.flag("box_normalized", true) { 0.0 } else { 1.0 };
    // Priors are of the second axis of the targets, or of the first.
    let at = if c.int("axis", 0) == 0 { 0 } else { 1 };
    if c.rank(target) != 3 || c.rank(prior) != 2 {
        return c.refuse("priors of rank other than 2, or targets of rank other than 3");
    }
    let part = |c: &mut Ctx<'_, '_>, v: Value, i: i64| -> Res<Value> {
        let last = c.rank(v) - 1;
        Ok(c.b.narrow(v, last, i.into(), 1i64.into())?)
    };
    let spread = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> { Ok(c.b.unsqueeze(v, at)?) };
    let prior = spread(c, prior)?;
    let variance = match (c.opt("PriorBoxVar"), c.floats("variance").filter(|l| l.len() == 4)) {
        (Some(v), _) => Some(spread(c, v)?),
        (None, Some(l)) => {
            let l: Vec<f32> = l.into_iter().map(|x| x as f32).collect();
            Some(c.b.floats(&[1, 1, 4], &l))
        }
        (None, None) => None,
    };
    let target = match variance {
        Some(v) => c.b.mul(target, v)?,
        None => target,
    };
    let (mut low, mut high) = (vec![], vec![]);
    for i in 0..2 {
        let (from, to) = (part(c, prior, i)?, part(c, prior, i + 2)?);
        let size = c.b.sub(to, from)?;
        let size = c.b.bin_scalar(BinaryOp::Add, size, extra)?;
        let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
        let centre = c.b.add(from, half)?;
        let (shift, scale) = (part(c, target, i)?, part(c, target, i + 2)?);
        let shift = c.b.mul(shift, size)?;
        let centre = c.b.add(centre, shift)?;
        let scale = c.b.un(UnaryOp::Exp, scale)?;
        let size = c.b.mul(scale, size)?;
        let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
        low.push(c.b.sub(centre, half)?);
        let end = c.b.add(centre, half)?;
        high.push(c.b.bin_scalar(BinaryOp::Sub, end, extra)?);
    }
    low.extend(high);
    let v = c.b.concat(&low, 2)?;
    c.put("OutputBox", v);
    Ok(())
}
