//! Operators of detectors.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::detection::YoloBox;
use hub_ir::{BinaryOp, Dtype, Prim, UnaryOp, Value};

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
    let count = h.checked_mul(w).and_then(|n| n.checked_mul(4 * sides.len() as i64));
    if h < 1 || w < 1 || count.is_none_or(|n| n > 1 << 24) {
        return c.refuse("too many anchors");
    }
    let step = |name: &str, image: i64, cells: i64| match c.float(name, 0.0) {
        0.0 => image as f64 / cells as f64,
        s => s,
    };
    let (sw, sh) = (step("step_w", iw, w), step("step_h", ih, h));
    let offset = c.float("offset", 0.5);
    let clip = c.flag("clip", true);
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
            if c.flag("flip", true) {
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

/// Variances of box_coder, if any: `[M, 4]`, or four numbers.
fn box_variance(c: &mut Ctx<'_, '_>) -> Option<Value> {
    let list = c.floats("variance").filter(|l| l.len() == 4);
    c.opt("PriorBoxVar").or_else(|| {
        let list: Vec<f32> = list?.into_iter().map(|x| x as f32).collect();
        Some(c.b.floats(&[1, 4], &list))
    })
}

/// box_coder, encoding: offsets of each target to each prior box, `[N, M, 4]`.
fn encode_boxes(c: &mut Ctx<'_, '_>) -> Res {
    let (prior, target) = (c.tensor("PriorBox")?, c.tensor("TargetBox")?);
    let extra = if c.flag("box_normalized", true) { 0.0 } else { 1.0 };
    let target = c.b.unsqueeze(target, 1)?;
    let (mut shifts, mut scales) = (vec![], vec![]);
    for i in 0..2 {
        let part = |c: &mut Ctx<'_, '_>, v: Value, i: i64| -> Res<Value> {
            let last = c.last(v)?;
            Ok(c.b.narrow(v, last, i.into(), 1i64.into())?)
        };
        let (pf, pt) = (part(c, prior, i)?, part(c, prior, i + 2)?);
        let (tf, tt) = (part(c, target, i)?, part(c, target, i + 2)?);
        let size = c.b.sub(pt, pf)?;
        let size = c.b.bin_scalar(BinaryOp::Add, size, extra)?;
        let half = c.b.bin_scalar(BinaryOp::Mul, size, 0.5)?;
        let centre = c.b.add(pf, half)?;
        let sum = c.b.add(tf, tt)?;
        let middle = c.b.bin_scalar(BinaryOp::Mul, sum, 0.5)?;
        let shift = c.b.sub(middle, centre)?;
        shifts.push(c.b.div(shift, size)?);
        let wide = c.b.sub(tt, tf)?;
        let wide = c.b.bin_scalar(BinaryOp::Add, wide, extra)?;
        let ratio = c.b.div(wide, size)?;
        let ratio = c.b.un(UnaryOp::Abs, ratio)?;
        scales.push(c.b.un(UnaryOp::Log, ratio)?);
    }
    shifts.extend(scales);
    let mut v = c.b.concat(&shifts, 2)?;
    if let Some(variance) = box_variance(c) {
        v = c.b.div(v, variance)?;
    }
    c.put("OutputBox", v);
    Ok(())
}

/// anchor_generator: boxes around every cell of a map, `[H, W, A, 4]`, and their variances.
pub fn anchor_generator(c: &mut Ctx<'_, '_>) -> Res {
    let map = c.tensor("Input")?;
    let d = c.at_least(map, 4)?;
    let stride = c.floats("stride").filter(|s| s.len() == 2).unwrap_or(vec![16.0; 2]);
    let (sizes, ratios) = (
        c.floats("anchor_sizes").unwrap_or_default(),
        c.floats("aspect_ratios").unwrap_or_default(),
    );
    if d.len() != 4 || sizes.len() * ratios.len() > 4096 {
        return c.refuse("a map of rank other than 4, or too many anchors");
    }
    let offset = c.float("offset", 0.5);
    let mut edges = vec![];
    for ratio in &ratios {
        for size in &sizes {
            let width = (stride[0] * stride[1] / ratio).sqrt().round();
            let height = (width * ratio).round();
            let (w, h) = (size / stride[0] * width, size / stride[1] * height);
            let (hw, hh) = (0.5 * (w - 1.0), 0.5 * (h - 1.0));
            edges.extend([-hw, -hh, hw, hh].map(|e| e as f32));
        }
    }
    let count = edges.len() as i64 / 4;
    let around = c.b.floats(&[count, 4], &edges);
    let mut centres = vec![];
    for axis in [1, 0] {
        let n = d[2 + axis].clone();
        let step = stride[1 - axis];
        let v = c.b.prim(Prim::Iota { dtype: Dtype::F32, shape: vec![n], axis: 0 }, &[])?;
        let v = c.b.bin_scalar(BinaryOp::Mul, v, step)?;
        let mut v = c.b.bin_scalar(BinaryOp::Add, v, offset * (step - 1.0))?;
        if axis == 0 {
            v = c.b.unsqueeze(v, 1)?;
        }
        let v = c.b.broadcast(v, vec![d[2].clone(), d[3].clone()])?;
        centres.push(c.b.unsqueeze(v, 2)?);
    }
    let (x, y) = (centres[0], centres[1]);
    let centre = c.b.concat(&[x, y, x, y], 2)?;
    let centre = c.b.unsqueeze(centre, 2)?;
    let v = c.b.add(centre, around)?;
    let variances: Vec<f32> =
        c.floats("variances").unwrap_or(vec![1.0; 4]).into_iter().map(|v| v as f32).collect();
    if variances.len() != 4 {
        return c.refuse("other than four variances");
    }
    let var = c.b.floats(&[4], &variances);
    let var = c.b.broadcast(var, c.dims(v))?;
    c.put("Anchors", v);
    c.put("Variances", var);
    Ok(())
}

/// density_prior_box: grids of anchors in every cell of a map of known size.
pub fn density_prior_box(c: &mut Ctx<'_, '_>) -> Res {
    let (map, image) = (c.tensor("Input")?, c.tensor("Image")?);
    let (dm, di) = (c.dims(map), c.dims(image));
    let known = |d: &[hub_ir::Dim]| Some((d.get(2)?.as_const()?, d.get(3)?.as_const()?));
    let (Some((h, w)), Some((ih, iw))) = (known(&dm), known(&di)) else {
        return c.refuse("a map or image of unknown size");
    };
    let list = |n: &str| c.floats(n).unwrap_or_default();
    let (sizes, ratios, densities) = (list("fixed_sizes"), list("fixed_ratios"), list("densities"));
    let whole = densities.iter().all(|d| (1.0..=64.0).contains(d) && d.fract() == 0.0);
    let each: f64 = densities.iter().map(|d| d * d * ratios.len() as f64).sum();
    if !whole
        || h < 1
        || w < 1
        || sizes.len() != densities.len()
        || h as f64 * w as f64 * each > 4e6
    {
        return c.refuse("too many anchors, or sizes and densities that differ in number");
    }
    let step =
        |s: f64, image: i64, cells: i64| if s == 0.0 { image as f64 / cells as f64 } else { s };
    let (sw, sh) = (step(c.float("step_w", 0.0), iw, w), step(c.float("step_h", 0.0), ih, h));
    let offset = c.float("offset", 0.5);
    let average = ((sw + sh) * 0.5) as i64;
    let mut boxes = vec![];
    for y in 0..h {
        for x in 0..w {
            let (cx, cy) = ((x as f64 + offset) * sw, (y as f64 + offset) * sh);
            for (size, &density) in sizes.iter().zip(&densities) {
                let shift = (average as f64 / density).floor();
                for ratio in &ratios {
                    let (bw, bh) = (size * ratio.sqrt(), size / ratio.sqrt());
                    let first = |centre: f64| centre - average as f64 / 2.0 + shift / 2.0;
                    for i in 0..density as i64 {
                        for j in 0..density as i64 {
                            let px = first(cx) + j as f64 * shift;
                            let py = first(cy) + i as f64 * shift;
                            let edges = [
                                ((px - bw / 2.0) / iw as f64).max(0.0),
                                ((py - bh / 2.0) / ih as f64).max(0.0),
                                ((px + bw / 2.0) / iw as f64).min(1.0),
                                ((py + bh / 2.0) / ih as f64).min(1.0),
                            ];
                            let clip = c.flag("clip", false);
                            boxes.extend(
                                edges.map(|e| if clip { e.clamp(0.0, 1.0) } else { e } as f32),
                            );
                        }
                    }
                }
            }
        }
    }
    let mut dims = vec![h, w, each as i64, 4];
    let variances = c.floats("variances").unwrap_or(vec![0.1, 0.1, 0.2, 0.2]);
    let v4: Vec<f32> = variances.iter().map(|&v| v as f32).collect();
    if v4.len() != 4 {
        return c.refuse("other than four variances");
    }
    if c.flag("flatten_to_2d", false) {
        dims = vec![h * w * each as i64, 4];
    }
    let v = c.b.floats(&[4], &v4);
    let v = c.b.broadcast(v, dims.iter().map(|&d| d.into()).collect())?;
    let boxes = c.b.floats(&dims, &boxes);
    c.put("Boxes", boxes);
    c.put("Variances", v);
    Ok(())
}

/// box_clip: boxes within their image, whose size and scale ImInfo gives.
pub fn box_clip(c: &mut Ctx<'_, '_>) -> Res {
    let (boxes, info) = (c.tensor("Input")?, c.tensor("ImInfo")?);
    let image = match c.lods.contains_key(&boxes) {
        true => super::lod::sequences(c, boxes)?.owners(c)?.0,
        false => super::lod::iota(c, &c.dim(boxes, 0)?)?,
    };
    let info = super::lod::at(c, info, image)?;
    let part = |c: &mut Ctx<'_, '_>, k: i64| c.b.narrow(info, 1, k.into(), 1i64.into());
    let scale = part(c, 2)?;
    let mut ends = vec![];
    for k in [1, 0] {
        let v = part(c, k)?;
        let v = c.b.div(v, scale)?;
        let v = c.b.un(UnaryOp::Round, v)?;
        ends.push(c.b.bin_scalar(BinaryOp::Sub, v, 1.0)?);
    }
    let mut most = c.b.concat(&[ends[0], ends[1], ends[0], ends[1]], 1)?;
    for axis in 2..c.rank(boxes) {
        most = c.b.unsqueeze(most, axis - 1)?;
    }
    let v = c.b.min(boxes, most)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    c.put("Output", v);
    Ok(())
}

/// iou_similarity: overlaps of every box of X with every one of Y.
pub fn iou_similarity(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let extra = if c.flag("box_normalized", true) { 0.0 } else { 1.0 };
    let x = c.b.unsqueeze(x, 1)?;
    let v = super::nms::overlaps(c, x, y, extra)?;
    c.put("Out", v);
    Ok(())
}

/// polygon_box_transform: corners from offsets to pixels four apart.
pub fn polygon_box_transform(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let d = c.dims(x);
    if d.len() != 4 {
        return c.refuse("a map of rank other than 4");
    }
    let dtype = c.b.g.dtype(x);
    let along = |c: &mut Ctx<'_, '_>, axis: u32| -> Res<Value> {
        let v = c.b.prim(Prim::Iota { dtype, shape: d.clone(), axis }, &[])?;
        Ok(c.b.bin_scalar(BinaryOp::Mul, v, 4.0)?)
    };
    let (across, down) = (along(c, 3)?, along(c, 2)?);
    let channel = c.b.prim(Prim::Iota { dtype: Dtype::I64, shape: d.clone(), axis: 1 }, &[])?;
    let odd = c.b.bin_scalar(BinaryOp::Mod, channel, 2.0)?;
    let odd = c.b.cast(odd, Dtype::Bool)?;
    let place = c.b.select(odd, down, across)?;
    let v = c.b.sub(place, x)?;
    c.put("Output", v);
    Ok(())
}

/// box_coder, decoding: boxes from offsets to prior boxes.
pub fn box_coder(c: &mut Ctx<'_, '_>) -> Res {
    if !c.text("code_type", "encode_center_size").starts_with("decode") {
        return encode_boxes(c);
    }
    let (prior, target) = (c.tensor("PriorBox")?, c.tensor("TargetBox")?);
    let extra = if c.flag("box_normalized", true) { 0.0 } else { 1.0 };
    // Priors are of the second axis of the targets, or of the first.
    let at = if c.int("axis", 0) == 0 { 0 } else { 1 };
    if c.rank(target) != 3 || c.rank(prior) != 2 {
        return c.refuse("priors of rank other than 2, or targets of rank other than 3");
    }
    let part = |c: &mut Ctx<'_, '_>, v: Value, i: i64| -> Res<Value> {
        let last = c.last(v)?;
        Ok(c.b.narrow(v, last, i.into(), 1i64.into())?)
    };
    let spread = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> { Ok(c.b.unsqueeze(v, at)?) };
    let prior = spread(c, prior)?;
    let variance = match box_variance(c) {
        Some(v) => Some(spread(c, v)?),
        None => None,
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
