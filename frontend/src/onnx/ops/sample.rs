//! Sampling at computed coordinates: GridSample, AffineGrid, RoiAlign.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("GridSample", 16, grid_sample),
    op("AffineGrid", 20, affine_grid),
    op("RoiAlign", 10, roi_align),
];

#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One sampled axis: its size, the coordinates, and how what lies outside is treated.
struct Axis {
    size: Value,
    last: Value,
    /// Ends of the range that reflection mirrors in.
    ends: (Value, Value),
    at: Value,
}

/// A weight and an index (both as floats) of one axis.
type Tap = (Value, Value);

pub(super) fn grid_sample(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, grid) = (c.tensor(0)?, c.tensor(1)?);
    let (dims, gd, dtype) = (c.dims(x), c.dims(grid), c.dtype(x));
    let k = dims.len().saturating_sub(2);
    if k == 0 || gd.len() != k + 2 || !gd[k + 1].is(k as i64) {
        return invalid(format!("a grid of {gd:?} for x of {dims:?}"));
    }
    let padding = match &*c.string("padding_mode", "zeros")? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        p => return invalid(format!("padding_mode '{p}'")),
    };
    let align = c.flag("align_corners", false)?;
    let mode = c.string("mode", "linear")?;
    let points = Dim::product(&gd[1..=k]);
    let flat = c.reshape(grid, vec![gd[0].clone(), points.clone(), k.into()])?;
    let flat = c.cast(flat, Dtype::F32)?;
    let mut axes = vec![];
    for i in 0..k {
        // The last coordinate is of the last axis reversed: x, y, z.
        let g = c.b.narrow(flat, 2, (k - 1 - i).into(), 1i64.into())?;
        axes.push(axis(c, &dims[i + 2], g, align, padding, &mode)?);
    }
    let mut taps: Vec<Vec<Tap>> = vec![];
    for a in &axes {
        taps.push(match &*mode {
            "linear" | "bilinear" => linear_taps(c, a)?,
            "cubic" | "bicubic" => cubic_taps(c, a)?,
            "nearest" => {
                let whole = c.scalar(Dtype::F32, 1.0);
                vec![(whole, a.at)]
            }
            m => return invalid(format!("mode '{m}'")),
        });
    }
    let sum = gathered(c, x, &axes, &taps, padding)?;
    // [N, P, C] to [N, C, out…].
    let y = c.b.transpose(sum, &[0, 2, 1])?;
    let mut shape = dims[..2].to_vec();
    shape.extend_from_slice(&gd[1..=k]);
    let y = c.reshape(y, shape)?;
    one(c.cast(y, dtype)?)
}

fn float_size(c: &mut Cx<'_, '_, '_>, d: Dim) -> Got {
    let v = c.b.dim_scalar(d);
    c.cast(v, Dtype::F32)
}

/// Coordinates -1..1 in elements, brought inside as the padding says.
fn axis(
    c: &mut Cx<'_, '_, '_>,
    size: &Dim,
    g: Value,
    align: bool,
    padding: Padding,
    mode: &str,
) -> Got<Axis> {
    use BinaryOp::{Add, Mul, Sub};
    let n = float_size(c, size.clone())?;
    let last = float_size(c, size.plus(-1))?;
    let t = c.bin_scalar(Add, g, 1.0)?;
    let t = c.bin(Mul, t, if align { last } else { n })?;
    let t = if align { t } else { c.bin_scalar(Sub, t, 1.0)? };
    let mut at = c.bin_scalar(Mul, t, 0.5)?;
    let shift = if align { 0.0 } else { 0.5 };
    let (lo, hi) = (c.scalar(Dtype::F32, -shift), c.bin_scalar(Add, last, shift)?);
    let nearest = mode == "nearest";
    if nearest {
        at = c.un(UnaryOp::Round, at)?;
    }
    let axis = Axis { size: n, last, ends: (lo, hi), at };
    let at = match padding {
        Padding::Zeros => at,
        // A cubic filter about a point outside still reaches inside: only its taps are clamped.
        Padding::Border if mode.ends_with("cubic") => at,
        Padding::Border => clamp(c, at, last)?,
        Padding::Reflection => {
            let moved = reflect(c, at, &axis)?;
            if nearest { c.un(UnaryOp::Round, moved)? } else { moved }
        }
    };
    Ok(Axis { at, ..axis })
}

fn clamp(c: &mut Cx<'_, '_, '_>, x: Value, last: Value) -> Got {
    let x = c.bin(BinaryOp::Min, x, last)?;
    c.bin_scalar(BinaryOp::Max, x, 0.0)
}

/// x mirrored at the ends of the axis until it is inside.
fn reflect(c: &mut Cx<'_, '_, '_>, x: Value, a: &Axis) -> Got {
    let (lo, hi) = a.ends;
    let span = c.bin(BinaryOp::Sub, hi, lo)?;
    // Of one element there is nothing to mirror in.
    let span = c.bin_scalar(BinaryOp::Max, span, 1e-6)?;
    let t = c.bin(BinaryOp::Sub, x, lo)?;
    let t = c.un(UnaryOp::Abs, t)?;
    let n = c.bin(BinaryOp::Div, t, span)?;
    let n = c.un(UnaryOp::Floor, n)?;
    let whole = c.bin(BinaryOp::Mul, n, span)?;
    let r = c.bin(BinaryOp::Sub, t, whole)?;
    let odd = c.bin_scalar(BinaryOp::Mod, n, 2.0)?;
    let odd = c.bin_scalar(BinaryOp::Ne, odd, 0.0)?;
    let up = c.bin(BinaryOp::Add, lo, r)?;
    let down = c.bin(BinaryOp::Sub, hi, r)?;
    Ok(c.b.select(odd, down, up)?)
}

fn linear_taps(c: &mut Cx<'_, '_, '_>, a: &Axis) -> Got<Vec<Tap>> {
    let low = c.un(UnaryOp::Floor, a.at)?;
    let high = c.bin_scalar(BinaryOp::Add, low, 1.0)?;
    let wh = c.bin(BinaryOp::Sub, a.at, low)?;
    let wl = c.bin(BinaryOp::Sub, high, a.at)?;
    Ok(vec![(wl, low), (wh, high)])
}

/// Keys' kernel with a = -0.75.
fn cubic_taps(c: &mut Cx<'_, '_, '_>, a: &Axis) -> Got<Vec<Tap>> {
    use BinaryOp::{Add, Mul};
    const A: f64 = -0.75;
    let low = c.un(UnaryOp::Floor, a.at)?;
    let part = c.bin(BinaryOp::Sub, a.at, low)?;
    let mut taps = vec![];
    for k in [-1.0, 0.0, 1.0, 2.0] {
        let d = c.bin_scalar(BinaryOp::Sub, part, k)?;
        let d = c.un(UnaryOp::Abs, d)?;
        let inner = k == 0.0 || k == 1.0;
        let p =
            if inner { [A + 2.0, -(A + 3.0), 0.0, 1.0] } else { [A, -5.0 * A, 8.0 * A, -4.0 * A] };
        let mut w = c.bin_scalar(Mul, d, p[0])?;
        for (i, &t) in p[1..].iter().enumerate() {
            w = c.bin_scalar(Add, w, t)?;
            if i < 2 {
                w = c.bin(Mul, w, d)?;
            }
        }
        taps.push((w, c.bin_scalar(Add, low, k)?));
    }
    Ok(taps)
}

/// The weighted sum over all combinations of taps: [N, P, C].
fn gathered(
    c: &mut Cx<'_, '_, '_>,
    x: Value,
    axes: &[Axis],
    taps: &[Vec<Tap>],
    padding: Padding,
) -> Got {
    let dims = c.at_least(x, 2)?;
    let all = Dim::product(&dims[2..]);
    let flat = c.reshape(x, vec![dims[0].clone(), dims[1].clone(), all])?;
    let wide = if c.dtype(x) == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
    let flat = c.cast(flat, wide)?;
    let flat = c.b.transpose(flat, &[0, 2, 1])?;
    // Each axis's taps with indices brought inside.
    let mut inside: Vec<Vec<Tap>> = vec![];
    for (a, taps) in axes.iter().zip(taps) {
        let mut list = vec![];
        for &(mut w, mut i) in taps {
            if padding == Padding::Reflection {
                i = reflect(c, i, a)?;
                i = c.un(UnaryOp::Round, i)?;
            }
            if padding == Padding::Zeros {
                let low = c.bin_scalar(BinaryOp::Ge, i, 0.0)?;
                let high = c.bin(BinaryOp::Lt, i, a.size)?;
                let within = c.bin(BinaryOp::And, low, high)?;
                let zero = c.scalar(Dtype::F32, 0.0);
                w = c.b.select(within, w, zero)?;
            }
            let i = clamp(c, i, a.last)?;
            list.push((w, c.cast(i, Dtype::I64)?));
        }
        inside.push(list);
    }
    let counts: Vec<usize> = inside.iter().map(Vec::len).collect();
    let total: usize = counts.iter().product();
    if total > 256 {
        return unsupported("cubic sampling of more than four axes");
    }
    let mut sum = None;
    for combination in 0..total {
        let mut rest = combination;
        let (mut weight, mut at) = (None, None);
        for (i, list) in inside.iter().enumerate() {
            let (w, index) = list[rest % counts[i]];
            rest /= counts[i];
            weight = Some(match weight {
                Some(v) => c.bin(BinaryOp::Mul, v, w)?,
                None => w,
            });
            at = Some(match at {
                Some(v) => {
                    let size = c.b.dim_scalar(dims[i + 2].clone());
                    let v = c.bin(BinaryOp::Mul, v, size)?;
                    c.bin(BinaryOp::Add, v, index)?
                }
                None => index,
            });
        }
        let (Some(w), Some(at)) = (weight, at) else { return invalid("no axis to sample") };
        let v = c.prim(Prim::GatherNd { batch: 1 }, &[flat, at])?;
        let w = c.cast(w, wide)?;
        let term = c.bin(BinaryOp::Mul, v, w)?;
        sum = Some(match sum {
            Some(s) => c.bin(BinaryOp::Add, s, term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| crate::FrontendError::invalid("no axis to sample"))
}

/// theta [N, k, k+1] times the coordinates -1..1 of each output element.
fn affine_grid(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (theta, size) = (c.tensor(0)?, c.tensor(1)?);
    let size = c.sizes(size, "size")?;
    let align = c.flag("align_corners", false)?;
    let dtype = c.dtype(theta);
    let k = size.len().saturating_sub(2);
    if k == 0 || c.rank(theta) != 3 {
        return invalid("a size [N, C, spatial…] and theta [N, k, k+1] are expected");
    }
    let out = &size[2..];
    let mut parts = vec![];
    for i in (0..k).rev() {
        let mut shape = vec![Dim::from(1i64); k];
        shape[i] = out[i].clone();
        let t = c.prim(Prim::Iota { dtype: Dtype::F32, shape, axis: i as u32 }, &[])?;
        let t = if align {
            let last = float_size(c, out[i].plus(-1))?;
            let last = c.bin_scalar(BinaryOp::Max, last, 1.0)?;
            let t = c.bin_scalar(BinaryOp::Mul, t, 2.0)?;
            c.bin(BinaryOp::Div, t, last)?
        } else {
            let n = float_size(c, out[i].clone())?;
            let t = c.bin_scalar(BinaryOp::Mul, t, 2.0)?;
            let t = c.bin_scalar(BinaryOp::Add, t, 1.0)?;
            c.bin(BinaryOp::Div, t, n)?
        };
        let t = c.bin_scalar(BinaryOp::Sub, t, 1.0)?;
        let t = c.b.broadcast(t, out.to_vec())?;
        parts.push(c.b.unsqueeze(t, k)?);
    }
    let whole = c.scalar(Dtype::F32, 1.0);
    let shape = [out, &[1i64.into()]].concat();
    parts.push(c.b.broadcast(whole, shape)?);
    let base = c.b.concat(&parts, k)?;
    let points = Dim::product(out);
    let base = c.reshape(base, vec![points, (k + 1).into()])?;
    let base = c.cast(base, dtype)?;
    let p = Prim::Contract { a: vec![0, 1, 2], b: vec![3, 2], out: vec![0, 3, 1] };
    let grid = c.prim(p, &[theta, base])?;
    let n = c.dim(grid, 0)?;
    one(c.reshape(grid, [&[n], out, &[k.into()]].concat())?)
}

/// Start and bin size of one side of regions, [R, 1].
fn roi_side(
    c: &mut Cx<'_, '_, '_>,
    rois: Value,
    ends: [usize; 2],
    bins: i64,
    half: bool,
) -> Got<(Value, Value)> {
    let scale = f64::from(c.float("spatial_scale", 1.0)?);
    let mut side = vec![];
    for e in ends {
        let v = c.b.narrow(rois, 1, e.into(), 1i64.into())?;
        let v = c.bin_scalar(BinaryOp::Mul, v, scale)?;
        side.push(c.bin_scalar(BinaryOp::Sub, v, if half { 0.5 } else { 0.0 })?);
    }
    let mut len = c.bin(BinaryOp::Sub, side[1], side[0])?;
    if !half {
        len = c.bin_scalar(BinaryOp::Max, len, 1.0)?;
    }
    Ok((side[0], c.bin_scalar(BinaryOp::Div, len, bins as f64)?))
}

/// Samples of each bin along one side of regions.
struct Samples {
    /// The most that any region has.
    most: Dim,
    /// How many each region has, [R, 1]; all have the most where this is none.
    own: Option<Value>,
}

impl Samples {
    /// `ratio` of them; for 0, one for each step that a region's bin is long.
    fn of(c: &mut Cx<'_, '_, '_>, ratio: i64, bin: Value) -> Got<Samples> {
        if ratio > 0 {
            return Ok(Samples { most: ratio.into(), own: None });
        }
        let own = c.un(UnaryOp::Ceil, bin)?;
        let most = c.reduce(ReduceOp::Max, own, &[0], false)?;
        let most = c.bin_scalar(BinaryOp::Max, most, 1.0)?;
        let most = c.cast(most, Dtype::I64)?;
        let most = c.sizes_in(most, "samples", 1, 1 << 20)?.pop();
        Ok(Samples { most: most.unwrap_or(1i64.into()), own: Some(own) })
    }

    /// Where samples lie, in bins from the start, and the weight of each in a bin's mean.
    fn places(&self, c: &mut Cx<'_, '_, '_>, bins: i64) -> Got<(Value, Option<Value>)> {
        let flat = Dim::from(bins).mul(&self.most);
        let Some(own) = self.own else {
            let shape = vec![Dim::from(1i64), flat];
            let i = c.prim(Prim::Iota { dtype: Dtype::F32, shape, axis: 1 }, &[])?;
            let t = c.bin_scalar(BinaryOp::Add, i, 0.5)?;
            let n = self.most.as_const().unwrap_or(1);
            return Ok((c.bin_scalar(BinaryOp::Div, t, n as f64)?, None));
        };
        let iota = |shape: Vec<Dim>, axis: u32| Prim::Iota { dtype: Dtype::F32, shape, axis };
        let b = c.prim(iota(vec![1i64.into(), bins.into(), 1i64.into()], 1), &[])?;
        let s = c.prim(iota(vec![1i64.into(), 1i64.into(), self.most.clone()], 2), &[])?;
        let own = c.b.unsqueeze(own, 2)?;
        let some = c.bin_scalar(BinaryOp::Max, own, 1.0)?;
        let last = c.bin_scalar(BinaryOp::Sub, some, 1.0)?;
        // Past a region's own number its last sample is repeated, which no maximum notices.
        let at = c.bin(BinaryOp::Min, s, last)?;
        let at = c.bin_scalar(BinaryOp::Add, at, 0.5)?;
        let at = c.bin(BinaryOp::Div, at, some)?;
        let at = c.bin(BinaryOp::Add, b, at)?;
        let live = c.bin(BinaryOp::Lt, s, own)?;
        let live = c.cast(live, Dtype::F32)?;
        let weight = c.bin(BinaryOp::Div, live, some)?;
        let whole = c.at_least(at, 1)?;
        let weight = c.b.broadcast(weight, whole.clone())?;
        let shape = vec![whole[0].clone(), flat];
        Ok((c.reshape(at, shape.clone())?, Some(c.reshape(weight, shape)?)))
    }
}

/// Taps of samples along one side: for each of two, weight and index [R, bins*samples].
fn roi_taps(
    c: &mut Cx<'_, '_, '_>,
    (start, bin): (Value, Value),
    (samples, bins): (&Samples, i64),
    size: &Dim,
    mean: bool,
) -> Got<[Tap; 2]> {
    let (t, share) = samples.places(c, bins)?;
    let t = c.bin(BinaryOp::Mul, t, bin)?;
    let at = c.bin(BinaryOp::Add, t, start)?;
    let n = float_size(c, size.clone())?;
    let last = float_size(c, size.plus(-1))?;
    let low = c.bin_scalar(BinaryOp::Ge, at, -1.0)?;
    let high = c.bin(BinaryOp::Le, at, n)?;
    let within = c.bin(BinaryOp::And, low, high)?;
    let mut within = c.cast(within, Dtype::F32)?;
    if let Some(share) = share.filter(|_| mean) {
        within = c.bin(BinaryOp::Mul, within, share)?;
    }
    let at = clamp(c, at, last)?;
    let low = c.un(UnaryOp::Floor, at)?;
    let next = c.bin_scalar(BinaryOp::Add, low, 1.0)?;
    let next = c.bin(BinaryOp::Min, next, last)?;
    let part = c.bin(BinaryOp::Sub, at, low)?;
    let rest = c.un(UnaryOp::Neg, part)?;
    let rest = c.bin_scalar(BinaryOp::Add, rest, 1.0)?;
    let mut taps = [(rest, low), (part, next)];
    for t in &mut taps {
        t.0 = c.bin(BinaryOp::Mul, t.0, within)?;
        t.1 = c.cast(t.1, Dtype::I64)?;
    }
    Ok(taps)
}

fn roi_align(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, rois, batch) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (d, dtype) = (c.dims(x), c.dtype(x));
    if d.len() != 4 || c.rank(rois) != 2 {
        return invalid("x [N, C, H, W] and regions [R, 4] are expected");
    }
    let default = if c.version >= 16 { "half_pixel" } else { "output_half_pixel" };
    let half = c.string("coordinate_transformation_mode", default)? == "half_pixel";
    let (oh, ow) = (c.int("output_height", 1)?, c.int("output_width", 1)?);
    let g = c.int("sampling_ratio", 0)?;
    if ![oh, ow, g.max(1)].iter().all(|v| (1..=1 << 12).contains(v)) || g < 0 {
        return invalid(format!("{oh}x{ow} bins of {g} samples"));
    }
    let rois = c.cast(rois, Dtype::F32)?;
    let ys = roi_side(c, rois, [1, 3], oh, half)?;
    let xs = roi_side(c, rois, [0, 2], ow, half)?;
    let max = c.string("mode", "avg")? == "max";
    let (gy, gx) = (Samples::of(c, g, ys.1)?, Samples::of(c, g, xs.1)?);
    let ys = roi_taps(c, ys, (&gy, oh), &d[2], !max)?;
    let xs = roi_taps(c, xs, (&gx, ow), &d[3], !max)?;
    // Channels last, all pixels of all images in one axis.
    let t = c.b.transpose(x, &[0, 2, 3, 1])?;
    let t = c.reshape(t, vec![d[0].mul(&d[2]).mul(&d[3]), d[1].clone()])?;
    let t = c.cast(t, Dtype::F32)?;
    let batch = c.cast(batch, Dtype::I64)?;
    let batch = c.b.unsqueeze(batch, 1)?;
    let batch = c.b.unsqueeze(batch, 2)?;
    let (h, w) = (c.b.dim_scalar(d[2].clone()), c.b.dim_scalar(d[3].clone()));
    let top = c.bin(BinaryOp::Mul, batch, h)?;
    let mut sum = None;
    for (wy, iy) in ys {
        for (wx, ix) in xs {
            let (iy, wy) = (c.b.unsqueeze(iy, 2)?, c.b.unsqueeze(wy, 2)?);
            let (ix, wx) = (c.b.unsqueeze(ix, 1)?, c.b.unsqueeze(wx, 1)?);
            let row = c.bin(BinaryOp::Add, top, iy)?;
            let row = c.bin(BinaryOp::Mul, row, w)?;
            let at = c.bin(BinaryOp::Add, row, ix)?;
            let v = c.prim(Prim::Gather { axis: 0 }, &[t, at])?;
            let weight = c.bin(BinaryOp::Mul, wy, wx)?;
            let weight = c.b.unsqueeze(weight, 3)?;
            let term = c.bin(BinaryOp::Mul, v, weight)?;
            let op = if max { BinaryOp::Max } else { BinaryOp::Add };
            sum = Some(match sum {
                Some(s) => c.bin(op, s, term)?,
                None => term,
            });
        }
    }
    let Some(sum) = sum else { return invalid("no samples") };
    let r = c.dim(rois, 0)?;
    let shape = vec![r, oh.into(), gy.most, ow.into(), gx.most, d[1].clone()];
    let y = c.reshape(sum, shape)?;
    let op = match (max, g) {
        (true, _) => ReduceOp::Max,
        // Its samples' weights add up to 1.
        (_, 0) => ReduceOp::Sum,
        _ => ReduceOp::Mean,
    };
    let mut y = c.reduce(op, y, &[2, 4], false)?;
    for own in [gy.own, gx.own].into_iter().flatten().filter(|_| max) {
        // A region without samples is zero.
        let some = c.bin_scalar(BinaryOp::Gt, own, 0.0)?;
        let some = c.b.unsqueeze(some, 2)?;
        let some = c.b.unsqueeze(some, 3)?;
        let zero = c.scalar(Dtype::F32, 0.0);
        y = c.b.select(some, y, zero)?;
    }
    let y = c.b.transpose(y, &[0, 3, 1, 2])?;
    one(c.cast(y, dtype)?)
}
