//! Pooling of regions of an image: roi_align, roi_pool, psroi_pool.
//!
//! A bin's value is a product of what its rows and its columns weigh, so that roi_align and
//! psroi_pool are two contractions with weights `[rois, bins, size]`.

use super::lod::{iota, offsets_of, offsets_of_all};
use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// Regions and what they are of.
struct Rois {
    x: Value,
    /// `[R, 4]`.
    boxes: Value,
    /// Of each region, the image: int64 `[R]`.
    image: Value,
    dims: Vec<Dim>,
    count: Dim,
    /// Bins down and across.
    bins: [i64; 2],
    scale: f64,
}

fn rois(c: &mut Ctx<'_, '_>) -> Res<Rois> {
    let (x, boxes) = (c.tensor("X")?, c.tensor("ROIs")?);
    let dims = c.dims(x);
    if dims.len() != 4 || c.rank(boxes) != 2 {
        return c.refuse("an image of rank other than 4, or regions of rank other than 2");
    }
    let count = c.dim(boxes, 0)?;
    let offsets = match (c.opt("RoisNum"), c.lods.get(&boxes)) {
        (Some(n), _) => offsets_of_all(c, n, &count, "RoisNum")?,
        (None, Some(&offsets)) => offsets,
        (None, None) if dims[0].is(1) => {
            let n = c.b.dims_vector(vec![c.dim(boxes, 0)?]);
            offsets_of(c, n)?
        }
        _ => return c.refuse("regions without their number in each image"),
    };
    let s = super::lod::of_offsets(c, offsets, count.clone())?;
    let (image, _) = s.owners(c)?;
    let bins = [c.int("pooled_height", 1), c.int("pooled_width", 1)];
    if bins.iter().any(|b| !(1..=1024).contains(b)) {
        return c.refuse(format!("{bins:?} bins"));
    }
    Ok(Rois { x, boxes, image, dims, count, bins, scale: c.float("spatial_scale", 1.0) })
}

/// Column `k` of the boxes, `[R, 1]`.
fn side(c: &mut Ctx<'_, '_>, r: &Rois, k: i64) -> Res<Value> {
    let v = c.b.narrow(r.boxes, 1, k.into(), 1i64.into())?;
    Ok(c.b.bin_scalar(BinaryOp::Mul, v, r.scale)?)
}

/// Numbers `0..n` of the image's type.
fn counted(c: &mut Ctx<'_, '_>, r: &Rois, n: &Dim) -> Res<Value> {
    let dtype = c.b.g.dtype(r.x);
    Ok(c.b.prim(Prim::Iota { dtype, shape: vec![n.clone()], axis: 0 }, &[])?)
}

/// What each row (or column) of the image weighs in each bin: `[R, bins, size]`.
fn align_weights(c: &mut Ctx<'_, '_>, r: &Rois, axis: usize) -> Res<Value> {
    let aligned = c.flag("aligned", false);
    let (from, to) = (side(c, r, 1 - axis as i64)?, side(c, r, 3 - axis as i64)?);
    let shift = if aligned { 0.5 } else { 0.0 };
    let (from, to) =
        (c.b.bin_scalar(BinaryOp::Sub, from, shift)?, c.b.bin_scalar(BinaryOp::Sub, to, shift)?);
    let mut extent = c.b.sub(to, from)?;
    if !aligned {
        extent = c.b.bin_scalar(BinaryOp::Max, extent, 1.0)?;
    }
    let bins = r.bins[axis];
    let bin = c.b.bin_scalar(BinaryOp::Div, extent, bins as f64)?;
    // Samples of a bin: a number, or as many as it has pixels.
    let ratio = c.int("sampling_ratio", -1);
    let (most, each) = if ratio > 0 {
        (Dim::from(ratio), c.b.scalar(c.b.g.dtype(r.x), ratio as f64))
    } else {
        let each = c.b.un(UnaryOp::Ceil, bin)?;
        let top = c.b.reduce(ReduceOp::Max, each, &[0, 1], false)?;
        let top = c.b.bin_scalar(BinaryOp::Max, top, 1.0)?;
        let top = c.b.cast(top, Dtype::I64)?;
        let most = c.b.dims_of(top, "samples", 1, DIM_MAX)?.remove(0);
        (most, c.b.unsqueeze(each, 2)?)
    };
    // [R, bins, samples]
    let p = counted(c, r, &bins.into())?;
    let start = c.b.mul(bin, p)?;
    let start = c.b.add(from, start)?;
    let start = c.b.unsqueeze(start, 2)?;
    let k = counted(c, r, &most)?;
    let middle = c.b.bin_scalar(BinaryOp::Add, k, 0.5)?;
    let bin = c.b.unsqueeze(bin, 2)?;
    let step = c.b.mul(middle, bin)?;
    let step = c.b.div(step, each)?;
    let y = c.b.add(start, step)?;
    let size = c.b.dim_scalar(r.dims[2 + axis].clone());
    let size = c.b.cast(size, c.b.g.dtype(y))?;
    let (low, high) = (c.b.bin_scalar(BinaryOp::Ge, y, -1.0)?, c.b.bin(BinaryOp::Le, y, size)?);
    let used = c.b.bin(BinaryOp::Lt, k, each)?;
    let used = c.b.bin(BinaryOp::And, used, low)?;
    let used = c.b.bin(BinaryOp::And, used, high)?;
    let last = c.b.bin_scalar(BinaryOp::Sub, size, 1.0)?;
    let y = c.b.min(y, last)?;
    let y = c.b.bin_scalar(BinaryOp::Max, y, 0.0)?;
    // A pixel's share falls off linearly with its distance.
    let y = c.b.unsqueeze(y, 3)?;
    let pixel = counted(c, r, &r.dims[2 + axis])?;
    let far = c.b.sub(y, pixel)?;
    let far = c.b.un(UnaryOp::Abs, far)?;
    let one = c.b.scalar(c.b.g.dtype(far), 1.0);
    let share = c.b.sub(one, far)?;
    let share = c.b.bin_scalar(BinaryOp::Max, share, 0.0)?;
    let used = c.b.unsqueeze(used, 3)?;
    let zero = c.b.scalar(c.b.g.dtype(share), 0.0);
    let share = c.b.select(used, share, zero)?;
    let sum = c.b.reduce(ReduceOp::Sum, share, &[2], false)?;
    // Samples that lie outside count as zeros.
    let each = c.b.bin_scalar(BinaryOp::Max, each, 1.0)?;
    Ok(c.b.div(sum, each)?)
}

/// Weights `[R, bins, size]` as `[R, bins, N, size]`, zero but for a region's own image.
fn of_image(c: &mut Ctx<'_, '_>, r: &Rois, w: Value) -> Res<Value> {
    let image = iota(c, &r.dims[0])?;
    let own = c.b.unsqueeze(r.image, 1)?;
    let own = c.b.bin(BinaryOp::Eq, own, image)?;
    let own = c.b.cast(own, c.b.g.dtype(w))?;
    let shape = vec![r.count.clone(), 1i64.into(), r.dims[0].clone(), 1i64.into()];
    let own = c.b.reshape(own, shape)?;
    let w = c.b.unsqueeze(w, 2)?;
    Ok(c.b.mul(w, own)?)
}

/// roi_align: the mean of samples of each bin.
pub fn roi_align(c: &mut Ctx<'_, '_>) -> Res {
    let r = rois(c)?;
    let (down, across) = (align_weights(c, &r, 0)?, align_weights(c, &r, 1)?);
    let down = of_image(c, &r, down)?;
    // Labels: region 0, bin down 1, image 2, row 3, channel 4, column 5, bin across 6.
    let p = Prim::Contract { a: vec![0, 1, 2, 3], b: vec![2, 4, 3, 5], out: vec![0, 1, 4, 5] };
    let v = c.b.prim(p, &[down, r.x])?;
    let p = Prim::Contract { a: vec![0, 1, 4, 5], b: vec![0, 6, 5], out: vec![0, 4, 1, 6] };
    let v = c.b.prim(p, &[v, across])?;
    c.put("Out", v);
    Ok(())
}

/// Which rows (or columns) of the image lie in each bin, bool `[R, bins, size]`: bins from `from`,
/// `extent` wide together, rounded outwards.
fn bin_mask(
    c: &mut Ctx<'_, '_>,
    r: &Rois,
    axis: usize,
    from: Value,
    extent: Value,
    whole: bool,
) -> Res<Value> {
    let bin = c.b.bin_scalar(BinaryOp::Div, extent, r.bins[axis] as f64)?;
    let p = counted(c, r, &r.bins[axis].into())?;
    let next = c.b.bin_scalar(BinaryOp::Add, p, 1.0)?;
    let (low, high) = (c.b.mul(bin, p)?, c.b.mul(bin, next)?);
    // Whole regions are rounded first, so that their bins are rounded from their start.
    let (low, high) = match whole {
        true => {
            let (low, high) = (c.b.un(UnaryOp::Floor, low)?, c.b.un(UnaryOp::Ceil, high)?);
            (c.b.add(low, from)?, c.b.add(high, from)?)
        }
        false => {
            let (low, high) = (c.b.add(low, from)?, c.b.add(high, from)?);
            (c.b.un(UnaryOp::Floor, low)?, c.b.un(UnaryOp::Ceil, high)?)
        }
    };
    let (low, high) = (c.b.unsqueeze(low, 2)?, c.b.unsqueeze(high, 2)?);
    let pixel = counted(c, r, &r.dims[2 + axis])?;
    let (a, b) = (c.b.bin(BinaryOp::Ge, pixel, low)?, c.b.bin(BinaryOp::Lt, pixel, high)?);
    Ok(c.b.bin(BinaryOp::And, a, b)?)
}

/// Rounded, halves away from zero.
fn round(c: &mut Ctx<'_, '_>, v: Value) -> Res<Value> {
    let (sign, a) = (c.b.un(UnaryOp::Sign, v)?, c.b.un(UnaryOp::Abs, v)?);
    let a = c.b.bin_scalar(BinaryOp::Add, a, 0.5)?;
    let a = c.b.un(UnaryOp::Floor, a)?;
    Ok(c.b.mul(sign, a)?)
}

/// roi_pool: the greatest of each bin, 0 of an empty one.
pub fn roi_pool(c: &mut Ctx<'_, '_>) -> Res {
    let r = rois(c)?;
    let mut masks = vec![];
    for axis in 0..2 {
        let (from, to) = (side(c, &r, 1 - axis as i64)?, side(c, &r, 3 - axis as i64)?);
        let (from, to) = (round(c, from)?, round(c, to)?);
        let extent = c.b.sub(to, from)?;
        let extent = c.b.bin_scalar(BinaryOp::Add, extent, 1.0)?;
        let extent = c.b.bin_scalar(BinaryOp::Max, extent, 1.0)?;
        masks.push(bin_mask(c, &r, axis, from, extent, true)?);
    }
    let own = c.b.prim(Prim::Gather { axis: 0 }, &[r.x, r.image])?;
    let low = c.b.scalar(c.b.g.dtype(own), f64::NEG_INFINITY);
    // [R, 1, C, H, W] by [R, bins, 1, H, 1], then [R, bins, 1, C, W] by [R, 1, bins, 1, W].
    let v = c.b.unsqueeze(own, 1)?;
    let down = c.b.unsqueeze(masks[0], 2)?;
    let down = c.b.unsqueeze(down, 4)?;
    let v = c.b.select(down, v, low)?;
    let v = c.b.reduce(ReduceOp::Max, v, &[3], false)?;
    let v = c.b.unsqueeze(v, 2)?;
    let across = c.b.unsqueeze(masks[1], 1)?;
    let across = c.b.unsqueeze(across, 3)?;
    let v = c.b.select(across, v, low)?;
    let v = c.b.reduce(ReduceOp::Max, v, &[4], false)?;
    let v = c.b.transpose(v, &[0, 3, 1, 2])?;
    let some = c.b.bin_scalar(BinaryOp::Gt, v, f64::NEG_INFINITY)?;
    let zero = c.b.scalar(c.b.g.dtype(v), 0.0);
    let v = c.b.select(some, v, zero)?;
    c.put("Out", v);
    Ok(())
}

/// psroi_pool: the mean of each bin, of the bin's own channels.
pub fn psroi_pool(c: &mut Ctx<'_, '_>) -> Res {
    let r = rois(c)?;
    let mut masks = vec![];
    for axis in 0..2 {
        let mut edge = |k: i64, plus: f64| -> Res<Value> {
            let v = c.b.narrow(r.boxes, 1, k.into(), 1i64.into())?;
            let v = round(c, v)?;
            let v = c.b.bin_scalar(BinaryOp::Add, v, plus)?;
            Ok(c.b.bin_scalar(BinaryOp::Mul, v, r.scale)?)
        };
        let (from, to) = (edge(1 - axis as i64, 0.0)?, edge(3 - axis as i64, 1.0)?);
        let extent = c.b.sub(to, from)?;
        let extent = c.b.bin_scalar(BinaryOp::Max, extent, 0.1)?;
        let mask = bin_mask(c, &r, axis, from, extent, false)?;
        masks.push(c.b.cast(mask, c.b.g.dtype(r.x))?);
    }
    let outputs = c.int("output_channels", 1).max(1);
    let d = &r.dims;
    let split = vec![
        d[0].clone(),
        outputs.into(),
        r.bins[0].into(),
        r.bins[1].into(),
        d[2].clone(),
        d[3].clone(),
    ];
    let x = c.b.reshape(r.x, split)?;
    let down = of_image(c, &r, masks[0])?;
    // Labels: region 0, bin down 1, image 2, row 3, channel 4, column 5, bin across 6.
    let b = vec![2, 4, 1, 6, 3, 5];
    let p = Prim::Contract { a: vec![0, 1, 2, 3], b, out: vec![0, 1, 4, 6, 5] };
    let v = c.b.prim(p, &[down, x])?;
    let p = Prim::Contract { a: vec![0, 1, 4, 6, 5], b: vec![0, 6, 5], out: vec![0, 4, 1, 6] };
    let v = c.b.prim(p, &[v, masks[1]])?;
    let (h, w) = (
        c.b.reduce(ReduceOp::Sum, masks[0], &[2], false)?,
        c.b.reduce(ReduceOp::Sum, masks[1], &[2], false)?,
    );
    let (h, w) = (c.b.unsqueeze(h, 2)?, c.b.unsqueeze(w, 1)?);
    let area = c.b.mul(h, w)?;
    let area = c.b.bin_scalar(BinaryOp::Max, area, 1.0)?;
    let area = c.b.unsqueeze(area, 1)?;
    let v = c.b.div(v, area)?;
    c.put("Out", v);
    Ok(())
}
