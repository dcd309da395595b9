//! Convolutions, pooling and interpolation.

use crate::FrontendError;
use crate::paddle::ctx::{Ctx, Res};
use crate::paddle::program::Dialect;
use hub_ir::ops::conv::{Conv, ConvTranspose};
use hub_ir::ops::pool::{AdaptivePool, AvgPool, MaxPool, PoolCount, PoolIndices};
use hub_ir::ops::resize::{NearestRound, Resize, ResizeAxis, ResizeCoord, ResizeMode};
use hub_ir::{BinaryOp, Dim, Geometry, Prim, Value};

/// Runs `f` on x with its channels second, whatever the operator's layout is.
pub fn channels_second(
    c: &mut Ctx<'_, '_>,
    x: Value,
    f: impl FnOnce(&mut Ctx<'_, '_>, Value) -> Res<Vec<Value>>,
) -> Res<Vec<Value>> {
    let rank = c.rank(x);
    let last =
        matches!(c.text("data_format|data_layout", "NCHW"), "NHWC" | "NDHWC" | "NWC" | "NLC");
    if !last || rank < 3 {
        return f(c, x);
    }
    let to: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let x = c.b.transpose(x, &to)?;
    let ys = f(c, x)?;
    ys.into_iter().map(|y| Ok(c.b.transpose(y, &back)?)).collect()
}

/// A list of one number a spatial axis; one number stands for all.
fn per_axis(list: Option<Vec<i64>>, n: usize, default: i64) -> Res<Vec<i64>> {
    within_i32(list.as_deref().unwrap_or_default())?;
    match list {
        None => Ok(vec![default; n]),
        Some(l) if l.is_empty() => Ok(vec![default; n]),
        Some(l) if l.len() == n => Ok(l),
        Some(l) if l.len() == 1 => Ok(vec![l[0]; n]),
        Some(l) => {
            let what = format!("{} numbers for {n} spatial axes", l.len());
            Err(FrontendError::invalid(what))
        }
    }
}

/// Paddle's own numbers of a window's geometry have 32 bits; PIR's text could hold more.
fn within_i32(list: &[i64]) -> Res {
    match list.iter().find(|k| i32::try_from(**k).is_err()) {
        Some(k) => Err(FrontendError::invalid(format!("a stride, dilation or padding of {k}"))),
        None => Ok(()),
    }
}

/// Strides, dilations and pads of an operator on `x` (channels second) with a kernel.
fn geometry(c: &Ctx<'_, '_>, x: Value, kernel: &[Dim]) -> Res<Geometry> {
    let n = kernel.len();
    let mut geo = Geometry::unit(n);
    geo.stride = per_axis(c.ints("strides"), n, 1)?;
    geo.dilation = per_axis(c.ints("dilations"), n, 1)?;
    let spatial = &c.dims_from(x, 2)?;
    match c.text("padding_algorithm", "EXPLICIT") {
        "VALID" => {}
        "SAME" => {
            geo.dilation = vec![1; n];
            for i in 0..n {
                let s = Dim::from(geo.stride[i]);
                let need = spatial[i].div_ceil(&s).plus(-1).mul(&s).add(&kernel[i]);
                let total = need.sub(&spatial[i]).max_of(&0i64.into());
                geo.before[i] = total.div(&2i64.into());
                geo.after[i] = total.sub(&geo.before[i]);
            }
        }
        _ => {
            let pads = c.ints("paddings").unwrap_or_default();
            within_i32(&pads)?;
            for i in 0..n {
                let (before, after) = match pads.len() {
                    0 => (0, 0),
                    1 => (pads[0], pads[0]),
                    l if l == n => (pads[i], pads[i]),
                    l if l == 2 * n => (pads[2 * i], pads[2 * i + 1]),
                    l => return c.refuse(format!("{l} paddings for {n} spatial axes")),
                };
                (geo.before[i], geo.after[i]) = (before.into(), after.into());
            }
        }
    }
    Ok(geo)
}

/// conv2d, conv3d, depthwise_conv2d.
pub fn conv(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("Filter")?);
    let bias = c.opt("Bias");
    let y = channels_second(c, x, |c, x| {
        let kernel = c.dims(w).get(2..).unwrap_or_default().to_vec();
        spatial_rank(c, x, kernel.len())?;
        let geo = geometry(c, x, &kernel)?;
        let op = Conv { geo, groups: c.int("groups", 1).max(1) };
        let ins: Vec<Value> = [x, w].into_iter().chain(bias).collect();
        Ok(vec![c.b.source(op, &ins)?])
    })?;
    let mut v = y[0];
    // What fused_conv2d_add_act does besides.
    if c.op.kind.starts_with("fused") {
        if let Some(residual) = c.opt("ResidualData") {
            v = c.b.add(v, residual)?;
        }
        if !c.ints("split_channels").unwrap_or_default().is_empty() {
            return c.refuse("results split by channel");
        }
        let name = c.text("activation", "relu").to_string();
        v = super::fused::activated(c, &name, v)?;
    }
    c.put("Output", v);
    Ok(())
}

fn spatial_rank(c: &Ctx<'_, '_>, x: Value, n: usize) -> Res {
    if n == 0 || c.rank(x) != n + 2 {
        return c.refuse(format!("{n} spatial axes on a tensor of rank {}", c.rank(x)));
    }
    Ok(())
}

/// conv2d_transpose, conv3d_transpose, depthwise_conv2d_transpose.
pub fn conv_transpose(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("Filter")?);
    let bias = c.opt("Bias");
    let size = c.dims_or("OutputSizeTensor|OutputSize", "output_size", (1, i64::from(i32::MAX)))?;
    let y = channels_second(c, x, |c, x| {
        let kernel = c.dims(w).get(2..).unwrap_or_default().to_vec();
        let n = kernel.len();
        spatial_rank(c, x, n)?;
        let mut geo = geometry(c, x, &kernel)?;
        let extra = per_axis(c.ints("output_padding"), n, 0)?;
        let dims = c.dims(x);
        for i in 0..n {
            let more = match size.as_ref().filter(|s| s.len() == n) {
                Some(size) => size[i].sub(&geo.out_transposed(i, &dims[i + 2], &kernel[i])),
                None => extra[i].into(),
            };
            geo.after[i] = geo.after[i].sub(&more);
        }
        let op = ConvTranspose { geo, groups: c.int("groups", 1).max(1) };
        let ins: Vec<Value> = [x, w].into_iter().chain(bias).collect();
        Ok(vec![c.b.source(op, &ins)?])
    })?;
    c.put("Output", y[0]);
    Ok(())
}

/// pool2d, pool3d; with the index of each maximum: max_pool2d_with_index.
pub fn pool(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let ksize = c.ints_or("KernelSize", "ksize|kernel_size")?;
    let with_index = c.op.kind.ends_with("with_index");
    let max = with_index || c.text("pooling_type", "max") == "max";
    let ys = channels_second(c, x, |c, x| {
        let n = c.rank(x).saturating_sub(2);
        spatial_rank(c, x, n)?;
        let kernel = per_axis(ksize, n, 1)?;
        if c.flag("global_pooling", false) || c.flag("adaptive", false) {
            if with_index {
                let bins: Vec<i64> = match c.flag("global_pooling", false) {
                    true => vec![1; n],
                    false => kernel,
                };
                return adaptive_indices(c, x, &bins);
            }
            let global = c.flag("global_pooling", false);
            let out = kernel.iter().map(|&k| match k {
                _ if global => Some(1),
                -1 => None,
                k => Some(k),
            });
            let op = AdaptivePool { max, out: out.collect() };
            return Ok(vec![c.b.source(op, &[x])?]);
        }
        let dims: Vec<Dim> = kernel.iter().map(|&k| k.into()).collect();
        let mut geo = geometry(c, x, &dims)?;
        let pads = geo.after.clone();
        if c.flag("ceil_mode", false) {
            for i in 0..n {
                geo.after[i] = geo.after[i].plus(geo.stride[i].saturating_sub(1));
            }
        }
        if max {
            let indices = with_index.then_some(PoolIndices::Plane);
            return Ok(c.b.source_n(MaxPool { kernel, geo, indices }, &[x])?);
        }
        let count = match c.flag("exclusive", true) {
            true => PoolCount::Valid,
            false => PoolCount::Padded(pads),
        };
        Ok(vec![c.b.source(AvgPool { kernel, geo, count }, &[x])?])
    })?;
    c.put("Out", ys[0]);
    if let Some(&mask) = ys.get(1) {
        let mask = c.b.cast(mask, hub_ir::Dtype::I32)?;
        c.put("Mask", mask);
    }
    Ok(())
}

/// The greatest of each bin and its place in the plane, for few bins over a plane of known size.
fn adaptive_indices(c: &mut Ctx<'_, '_>, x: Value, bins: &[i64]) -> Res<Vec<Value>> {
    let d = c.at_least(x, 2)?;
    let sizes: Option<Vec<i64>> = d[2..].iter().map(Dim::as_const).collect();
    let total = bins.iter().try_fold(1i64, |n, &b| n.checked_mul(b).filter(|_| b > 0));
    let plane = sizes.as_ref().is_none_or(|s| s.iter().all(|&n| n < 1 << 20));
    let (Some(sizes), Some(total @ 1..=1024), true) = (sizes, total, plane) else {
        return c.refuse("indices of an adaptive pool of such bins, or of unknown size");
    };
    let (mut values, mut indices) = (vec![], vec![]);
    for bin in 0..total {
        let (mut part, mut rest) = (x, bin);
        let (mut starts, mut lens) = (vec![0; sizes.len()], vec![0; sizes.len()]);
        for k in (0..sizes.len()).rev() {
            let (i, n) = (rest % bins[k], sizes[k]);
            rest /= bins[k];
            starts[k] = i * n / bins[k];
            lens[k] = ((i + 1) * n + bins[k] - 1) / bins[k] - starts[k];
            part = c.b.narrow(part, k + 2, starts[k].into(), lens[k].into())?;
        }
        let flat = vec![d[0].clone(), d[1].clone(), lens.iter().product::<i64>().into()];
        let flat = c.b.reshape(part, flat)?;
        values.push(c.b.reduce(hub_ir::ReduceOp::Max, flat, &[2], true)?);
        let arg = Prim::ArgReduce { max: true, axis: 2, keep: true, last: false };
        let arg = c.b.prim(arg, &[flat])?;
        // The place within the bin as one within the plane.
        let mut place = c.b.scalar(hub_ir::Dtype::I64, 0.0);
        let (mut inner, mut outer) = (1i64, 1i64);
        for k in (0..sizes.len()).rev() {
            let i = c.b.bin_scalar(BinaryOp::Div, arg, inner as f64)?;
            let i = c.b.bin_scalar(BinaryOp::Mod, i, lens[k] as f64)?;
            let i = c.b.bin_scalar(BinaryOp::Add, i, starts[k] as f64)?;
            let i = c.b.bin_scalar(BinaryOp::Mul, i, outer as f64)?;
            place = c.b.add(place, i)?;
            (inner, outer) = (inner * lens[k], outer * sizes[k]);
        }
        indices.push(place);
    }
    let shape: Vec<Dim> = d[..2].iter().cloned().chain(bins.iter().map(|&b| b.into())).collect();
    let mut join = |parts: &[Value]| -> Res<Value> {
        let v = c.b.concat(parts, 2)?;
        Ok(c.b.reshape(v, shape.clone())?)
    };
    Ok(vec![join(&values)?, join(&indices)?])
}

/// `in * scale`, rounded down, for a scale that is a small fraction or an input of known size.
fn scaled(c: &Ctx<'_, '_>, d: &Dim, scale: f64) -> Res<Dim> {
    if let Some(k) = d.as_const() {
        return Ok(Dim::from((k as f64 * f64::from(scale as f32)) as i64));
    }
    for q in 1..=64i64 {
        let p = scale * q as f64;
        if (p - p.round()).abs() < 1e-6 && p >= 1.0 {
            return Ok(d.times(p.round() as i64).div(&q.into()));
        }
    }
    c.refuse(format!("an unknown size scaled by {scale}"))
}

/// linear_interp, bilinear_interp, trilinear_interp, nearest_interp, bicubic_interp, both versions.
pub fn interp(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let max = i64::from(i32::MAX);
    let listed = c.dims_or("SizeTensor", "", (1, max))?;
    let given = c.dims_or("OutSize", "", (1, max))?;
    let mut scale = c.floats("scale").unwrap_or_default();
    if let Some(v) = c.opt("Scale") {
        let Some(data) = c.b.g.as_const(v) else { return c.refuse("Scale is not constant") };
        let dtype = data.ty.dtype;
        scale = crate::paddle::ctx::read_numbers(dtype, &data.data).unwrap_or_default();
    }
    scale.retain(|&s| s > 0.0);
    let ys = channels_second(c, x, |c, x| {
        let n = c.rank(x).saturating_sub(2);
        spatial_rank(c, x, n)?;
        let names = &["out_d", "out_h", "out_w"][3 - n.min(3)..];
        let attrs: Vec<i64> = names.iter().map(|a| c.int(a, -1)).collect();
        if scale.len() == 1 {
            scale = vec![scale[0]; n];
        }
        let dims = c.dims_from(x, 2)?;
        let sizes = match (listed, given) {
            (Some(s), _) | (None, Some(s)) if s.len() == n => s,
            _ if scale.len() == n => {
                let one = |(d, &s): (&Dim, &f64)| scaled(c, d, s);
                dims.iter().zip(&scale).map(one).collect::<Res<_>>()?
            }
            _ if attrs.iter().all(|&a| a > 0) => attrs.into_iter().map(Dim::from).collect(),
            _ => return c.refuse("neither a size nor a scale is given"),
        };
        let (mut mode, coord) = filter(c)?;
        let antialias = c.op.kind == "interp_antialias";
        if let (true, ResizeMode::Cubic { a }) = (antialias, &mut mode) {
            *a = -0.5;
        }
        // The first versions of these operators step by the ratio of sizes whatever the scale is.
        let first = c.dialect == Dialect::Legacy && !c.op.kind.ends_with("_v2");
        let stepped = scale.len() == n && !first && !antialias;
        // One cubic element lies half a pixel before the first.
        let cubic = matches!(mode, ResizeMode::Cubic { .. }) && coord == ResizeCoord::HalfPixel;
        let scale_of = |i: usize, out: &Dim| match cubic && out.is(1) {
            true => Some(1e30),
            false => scale.get(i).filter(|_| stepped).map(|&s| s as f32),
        };
        let axis = |(i, out): (usize, Dim)| {
            let scale = scale_of(i, &out);
            ResizeAxis { axis: i + 2, out, scale, roi: (0.0, 1.0) }
        };
        let op = Resize {
            axes: sizes.into_iter().enumerate().map(axis).collect(),
            mode,
            coord,
            antialias,
            exclude_outside: antialias,
            extrapolate: 0.0,
        };
        Ok(vec![c.b.source(op, &[x])?])
    })?;
    c.put("Out", ys[0]);
    Ok(())
}

fn filter(c: &Ctx<'_, '_>) -> Res<(ResizeMode, ResizeCoord)> {
    let corners = c.flag("align_corners", true);
    let method = match c.op.kind.as_str() {
        "interp_antialias" => c.text("interp_method", "bilinear"),
        kind => kind.split("_interp").next().unwrap_or_default(),
    };
    // A bilinear output of one element takes the first of the input.
    let half = match method {
        "bilinear" => ResizeCoord::PytorchHalfPixel,
        _ => ResizeCoord::HalfPixel,
    };
    Ok(match (method, corners) {
        ("nearest", true) => {
            (ResizeMode::Nearest { round: NearestRound::PreferCeil }, ResizeCoord::AlignCorners)
        }
        ("nearest", false) => {
            (ResizeMode::Nearest { round: NearestRound::Floor }, ResizeCoord::Asymmetric)
        }
        ("bicubic", true) => (ResizeMode::Cubic { a: -0.75 }, ResizeCoord::AlignCorners),
        ("bicubic", false) => (ResizeMode::Cubic { a: -0.75 }, half),
        ("linear" | "bilinear" | "trilinear", true) => {
            (ResizeMode::Linear, ResizeCoord::AlignCorners)
        }
        ("linear" | "bilinear" | "trilinear", false) if c.int("align_mode", 1) == 0 => {
            (ResizeMode::Linear, half)
        }
        ("linear" | "bilinear" | "trilinear", false) => {
            (ResizeMode::Linear, ResizeCoord::Asymmetric)
        }
        _ => return c.refuse(format!("interpolation by {method}")),
    })
}

/// spp: pools into 1, 2, 4, … bins a side, laid side by side.
pub fn pyramid(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let d = c.dims(x);
    let levels = c.int("pyramid_height", 1);
    let max = c.text("pooling_type", "max") == "max";
    let sizes: Option<Vec<i64>> = d.iter().skip(2).map(Dim::as_const).collect();
    let (4, Some(sizes), 1..=8) = (d.len(), sizes, levels) else {
        return c.refuse("such a pyramid, or an image of unknown size");
    };
    let mut parts = vec![];
    for level in 0..levels {
        let bins = 1i64 << level;
        let mut geo = Geometry::unit(2);
        let mut kernel = vec![];
        for (i, &n) in sizes.iter().enumerate() {
            let k = (n + bins - 1) / bins;
            let pad = (k * bins - n + 1) / 2;
            (geo.stride[i], geo.before[i], geo.after[i]) = (k, pad.into(), pad.into());
            kernel.push(k);
        }
        let v = match max {
            true => c.b.source(MaxPool { kernel, geo, indices: None }, &[x])?,
            false => c.b.source(AvgPool { kernel, geo, count: PoolCount::Valid }, &[x])?,
        };
        let width = Dim::product(&c.dims_from(v, 1)?);
        parts.push(c.b.reshape(v, vec![d[0].clone(), width])?);
    }
    let v = c.b.concat(&parts, 1)?;
    c.put("Out", v);
    Ok(())
}

/// lp_pool2d: `(Σ x^p)^(1/p)` of each window.
pub fn lp_pool(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let p = c.float("norm_type", 0.0);
    if p == 0.0 || !p.is_finite() || c.flag("adaptive", false) {
        return c.refuse(format!("a pool by the norm {p}, or into bins"));
    }
    let ksize = c.ints_or("KernelSize", "ksize|kernel_size")?;
    let ys = channels_second(c, x, |c, x| {
        let n = c.rank(x).saturating_sub(2);
        spatial_rank(c, x, n)?;
        let mut kernel = per_axis(ksize, n, 1)?;
        let dims: Vec<Dim> = kernel.iter().map(|&k| k.into()).collect();
        let mut geo = geometry(c, x, &dims)?;
        if c.flag("global_pooling", false) {
            let sizes: Option<Vec<i64>> = c.dims_from(x, 2)?.iter().map(Dim::as_const).collect();
            let Some(sizes) = sizes else { return c.refuse("a plane of unknown size") };
            (kernel, geo) = (sizes, Geometry::unit(n));
        } else if c.flag("ceil_mode", false) {
            for i in 0..n {
                geo.after[i] = geo.after[i].plus(geo.stride[i].saturating_sub(1));
            }
        }
        let q = match p == 2.0 {
            true => c.b.mul(x, x)?,
            false => c.b.bin_scalar(BinaryOp::Pow, x, p)?,
        };
        let s = c.b.prim(Prim::Window { op: hub_ir::ReduceOp::Sum, kernel, geo }, &[q])?;
        Ok(vec![c.b.bin_scalar(BinaryOp::Pow, s, 1.0 / p)?])
    })?;
    c.put("Out|out", ys[0]);
    Ok(())
}
