//! Resize and Upsample, all versions.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::resize::{NearestRound, Resize, ResizeAxis, ResizeCoord, ResizeMode};

pub(crate) const OPS: &[Row] = &[
    op("Upsample", 1, |c| {
        let scales = match c.opt(1) {
            Some(_) => None,
            None => match c.floats("scales")? {
                Some(s) => Some(s),
                None => {
                    let (h, w) = (c.float("height_scale", 1.0)?, c.float("width_scale", 1.0)?);
                    Some(vec![1.0, 1.0, h, w])
                }
            },
        };
        resize(c, Old { scales, scales_at: 1, sizes_at: None, roi_at: None })
    }),
    op("Resize", 10, |c| {
        resize(c, Old { scales: None, scales_at: 1, sizes_at: None, roi_at: None })
    }),
    op("Resize", 11, |c| {
        resize(c, Old { scales: None, scales_at: 2, sizes_at: Some(3), roi_at: Some(1) })
    }),
];

/// Where a version keeps its operands.
struct Old {
    scales: Option<Vec<f32>>,
    scales_at: usize,
    sizes_at: Option<usize>,
    roi_at: Option<usize>,
}

fn resize(c: &mut Cx<'_, '_, '_>, old: Old) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let axes = match c.ints("axes")? {
        Some(a) => a.iter().map(|&a| c.axis(a, dims.len())).collect::<Got<Vec<_>>>()?,
        None => (0..dims.len()).collect(),
    };
    let named: Vec<Dim> = axes.iter().map(|&a| dims[a].clone()).collect();
    let (outs, computed) = match old.sizes_at.and_then(|i| c.opt(i)) {
        Some(v) => from_sizes(c, v, &named)?,
        None => from_scales(c, &old, &named)?,
    };
    if outs.len() != named.len() {
        return invalid(format!("{} sizes for {} axes", outs.len(), named.len()));
    }
    let old_style = old.sizes_at.is_none();
    let default = if old_style { "asymmetric" } else { "half_pixel" };
    let coord = coordinates(&c.string("coordinate_transformation_mode", default)?)?;
    let region = old.roi_at.and_then(|i| c.opt(i));
    let region = region.filter(|_| coord == ResizeCoord::TfCropAndResize);
    let roi = match region {
        Some(v) => roi(c, v, axes.len())?,
        None => None,
    };
    let region = region.filter(|_| roi.is_none());
    let rounding =
        c.string("nearest_mode", if old_style { "floor" } else { "round_prefer_floor" })?;
    let mode = match &*c.string("mode", "nearest")? {
        "nearest" => ResizeMode::Nearest { round: round(&rounding)? },
        "linear" | "bilinear" => ResizeMode::Linear,
        "cubic" => ResizeMode::Cubic { a: c.float("cubic_coeff_a", -0.75)? },
        m => return invalid(format!("mode '{m}'")),
    };
    let mut list = vec![];
    for (i, (out, scale)) in outs.into_iter().enumerate() {
        let roi = roi.as_ref().map_or((0.0, 1.0), |r| r[i]);
        let same = out == named[i] && scale.is_none_or(|s| s == 1.0) && roi == (0.0, 1.0);
        if !same || region.is_some() {
            list.push(ResizeAxis { axis: axes[i], out, scale, roi });
        }
    }
    if list.is_empty() {
        return one(x);
    }
    let mut ins = vec![x];
    // Computed scales make every size a symbol, so every axis is listed.
    ins.extend(computed);
    if let Some(v) = region {
        ins.resize(2, Value::NONE);
        ins.push(c.cast(v, Dtype::F32)?);
    }
    let op = Resize {
        axes: list,
        mode,
        coord,
        antialias: c.flag("antialias", false)?,
        exclude_outside: c.flag("exclude_outside", false)?,
        extrapolate: c.float("extrapolation_value", 0.0)?,
    };
    one(c.source(op, &ins)?)
}

/// Sizes and known scales of the axes; and the scales, as f32, where they are computed.
type Sized = (Vec<(Dim, Option<f32>)>, Option<Value>);

fn from_sizes(c: &mut Cx<'_, '_, '_>, v: Value, named: &[Dim]) -> Got<Sized> {
    let sizes = c.sizes(v, "size")?;
    if sizes.len() != named.len() {
        return invalid(format!("{} sizes for {} axes", sizes.len(), named.len()));
    }
    let policy = c.string("keep_aspect_ratio_policy", "stretch")?;
    if policy == "stretch" {
        return Ok((sizes.into_iter().map(|s| (s, None)).collect(), None));
    }
    let known = |d: &[Dim]| d.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let (Some(sizes), Some(from)) = (known(&sizes), known(named)) else {
        return kept_aspect(c, v, named, &policy);
    };
    let ratios = sizes.iter().zip(&from).map(|(&s, &f)| s as f32 / f as f32);
    let scale = match &*policy {
        "not_larger" => ratios.fold(f32::INFINITY, f32::min),
        "not_smaller" => ratios.fold(0.0, f32::max),
        p => return invalid(format!("keep_aspect_ratio_policy '{p}'")),
    };
    let size = |&f: &i64| (((scale * f as f32) + 0.5).floor() as i64).into();
    Ok((from.iter().map(|f| (size(f), Some(scale))).collect(), None))
}

/// One scale for all axes, of sizes known only when the model runs.
fn kept_aspect(c: &mut Cx<'_, '_, '_>, sizes: Value, named: &[Dim], policy: &str) -> Got<Sized> {
    let op = match policy {
        "not_larger" => ReduceOp::Min,
        "not_smaller" => ReduceOp::Max,
        p => return invalid(format!("keep_aspect_ratio_policy '{p}'")),
    };
    let from = c.b.dims_vector(named.to_vec());
    let (from, sizes) = (c.cast(from, Dtype::F32)?, c.cast(sizes, Dtype::F32)?);
    let ratios = c.bin(BinaryOp::Div, sizes, from)?;
    let scale = c.reduce(op, ratios, &[0], true)?;
    let n = c.bin(BinaryOp::Mul, from, scale)?;
    let n = c.bin_scalar(BinaryOp::Add, n, 0.5)?;
    let n = c.un(UnaryOp::Floor, n)?;
    let n = c.cast(n, Dtype::I64)?;
    let sizes = c.sizes(n, "size")?;
    let scales = c.b.broadcast(scale, vec![named.len().into()])?;
    Ok((sizes.into_iter().map(|d| (d, None)).collect(), Some(scales)))
}

fn from_scales(c: &mut Cx<'_, '_, '_>, old: &Old, named: &[Dim]) -> Got<Sized> {
    let known = match (&old.scales, c.opt(old.scales_at)) {
        (Some(s), _) => Some(s.clone()),
        (None, Some(v)) => c.known_floats(v).map(|f| f.into_iter().map(|x| x as f32).collect()),
        (None, None) => return invalid("neither scales nor sizes are given"),
    };
    let Some(scales) = known else {
        let v = c.tensor(old.scales_at)?;
        return computed_sizes(c, v, named);
    };
    if scales.len() != named.len() {
        return invalid(format!("{} scales for {} axes", scales.len(), named.len()));
    }
    let mut out = vec![];
    for (d, &s) in named.iter().zip(&scales) {
        if !(s > 0.0 && s.is_finite()) {
            return invalid(format!("a scale of {s}"));
        }
        out.push((scaled(d, s), Some(s)));
        if out.last().is_some_and(|(d, _)| d.is(-1)) {
            let v = one_scale(c, d, s)?;
            out.last_mut().expect("just pushed").0 = v;
        }
    }
    Ok((out, None))
}

/// `floor(d * s)`; -1 where no expression says it.
fn scaled(d: &Dim, s: f32) -> Dim {
    if let Some(k) = d.as_const() {
        return ((k as f64 * f64::from(s)).floor() as i64).into();
    }
    if s.fract() == 0.0 && s < 1e9 {
        return d.times(s as i64);
    }
    let inverse = 1.0 / s;
    if inverse.fract() == 0.0 && inverse < 1e9 {
        return d.div(&(inverse as i64).into());
    }
    (-1i64).into()
}

/// A size that floats decide when the model runs.
fn one_scale(c: &mut Cx<'_, '_, '_>, d: &Dim, s: f32) -> Got<Dim> {
    let n = c.b.dim_scalar(d.clone());
    let n = c.cast(n, Dtype::F64)?;
    let n = c.bin_scalar(BinaryOp::Mul, n, s.into())?;
    let n = c.un(UnaryOp::Floor, n)?;
    let n = c.cast(n, Dtype::I64)?;
    Ok(c.sizes(n, "size")?.remove(0))
}

fn computed_sizes(c: &mut Cx<'_, '_, '_>, scales: Value, named: &[Dim]) -> Got<Sized> {
    let n = c.b.dims_vector(named.to_vec());
    let n = c.cast(n, Dtype::F64)?;
    let s = c.cast(scales, Dtype::F64)?;
    let n = c.bin(BinaryOp::Mul, n, s)?;
    let n = c.un(UnaryOp::Floor, n)?;
    let n = c.cast(n, Dtype::I64)?;
    let sizes = c.sizes(n, "size")?;
    let scales = c.cast(scales, Dtype::F32)?;
    Ok((sizes.into_iter().map(|d| (d, None)).collect(), Some(scales)))
}

/// Starts and ends of axes, where these are known.
fn roi(c: &mut Cx<'_, '_, '_>, v: Value, n: usize) -> Got<Option<Vec<(f32, f32)>>> {
    let count = Dim::product(&c.dims(v));
    if !count.is(2 * n as i64) {
        return invalid(format!("a region of {count} numbers for {n} axes"));
    }
    let part = |r: Vec<f64>| (0..n).map(|i| (r[i] as f32, r[n + i] as f32)).collect();
    Ok(c.known_floats(v).map(part))
}

fn coordinates(name: &str) -> Got<ResizeCoord> {
    Ok(match name {
        "half_pixel" => ResizeCoord::HalfPixel,
        "half_pixel_symmetric" => ResizeCoord::HalfPixelSymmetric,
        "pytorch_half_pixel" => ResizeCoord::PytorchHalfPixel,
        "align_corners" => ResizeCoord::AlignCorners,
        "asymmetric" => ResizeCoord::Asymmetric,
        "tf_crop_and_resize" => ResizeCoord::TfCropAndResize,
        m => return invalid(format!("coordinate_transformation_mode '{m}'")),
    })
}

fn round(name: &str) -> Got<NearestRound> {
    Ok(match name {
        "round_prefer_floor" => NearestRound::PreferFloor,
        "round_prefer_ceil" => NearestRound::PreferCeil,
        "floor" => NearestRound::Floor,
        "ceil" => NearestRound::Ceil,
        m => return invalid(format!("nearest_mode '{m}'")),
    })
}
