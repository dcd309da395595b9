//! Interpolation.

use super::cx::{Got, Writer, float, int, string};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::resize::{NearestRound, Resize, ResizeCoord, ResizeMode};

/// As ONNX's Resize, where engines have that form of it.
pub(super) fn resize(w: &mut Writer, op: &Resize, ins: &[Value]) -> Got<Option<Vec<String>>> {
    let dims = w.dims(ins[0]);
    let axes: Vec<usize> = op.axes.iter().map(|a| a.axis).collect();
    let distinct = (1..axes.len()).all(|i| !axes[..i].contains(&axes[i]));
    let images = match (&op.mode, dims.len()) {
        (ResizeMode::Nearest { .. }, _) => !op.antialias,
        (ResizeMode::Linear, 4) => axes.iter().all(|&a| a >= 2),
        (ResizeMode::Linear, 5) => axes.iter().all(|&a| a >= 2) && !op.antialias,
        (ResizeMode::Cubic { .. }, 4) => axes.iter().all(|&a| a >= 2),
        _ => false,
    };
    let cubic = matches!(op.mode, ResizeMode::Cubic { .. });
    let outside = op.exclude_outside && !cubic && !op.antialias;
    if ins[1..].iter().any(|v| !v.is_none()) || !distinct || !images || outside {
        return Ok(None);
    }
    // Either every axis is scaled as ONNX rounds sizes, or every axis has a size.
    let scaled = |(d, s): (&Dim, Option<f32>), out: &Dim| match (s, d.as_const(), out.as_const()) {
        (Some(s), Some(d), Some(out)) => (d as f32 * s).floor() as i64 == out,
        (Some(s), ..) => s.fract() == 0.0 && s < 1e6 && *out == d.times(s as i64),
        _ => false,
    };
    let by_scale = op.axes.iter().all(|a| scaled((&dims[a.axis], a.scale), &a.out));
    let by_size = op.axes.iter().all(|a| a.scale.is_none());
    if !by_scale && !by_size {
        return Ok(None);
    }
    let roi = match op.coord {
        ResizeCoord::TfCropAndResize => {
            let mut ends = vec![0f32; dims.len()];
            ends.resize(dims.len() * 2, 1.0);
            for a in &op.axes {
                (ends[a.axis], ends[dims.len() + a.axis]) = a.roi;
            }
            floats(w, &ends)
        }
        _ => String::new(),
    };
    let (mut scales, mut sizes) = (String::new(), String::new());
    if by_scale {
        let mut all = vec![1f32; dims.len()];
        op.axes.iter().for_each(|a| all[a.axis] = a.scale.unwrap_or(1.0));
        scales = floats(w, &all);
    } else {
        let mut all = dims.clone();
        op.axes.iter().for_each(|a| all[a.axis] = a.out.clone());
        sizes = w.shape(&all)?;
    }
    let x = w.x(ins[0])?;
    Ok(Some(vec![w.op_with("Resize", &[&x], &[&roi, &scales, &sizes], attributes(op))?.name]))
}

fn floats(w: &mut Writer, xs: &[f32]) -> String {
    let bytes = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
    w.constant(Dtype::F32, &[xs.len() as i64], bytes)
}

fn attributes(op: &Resize) -> Vec<crate::onnx::proto::AttributeProto> {
    let coord = match op.coord {
        ResizeCoord::HalfPixel => "half_pixel",
        ResizeCoord::HalfPixelSymmetric => "half_pixel_symmetric",
        ResizeCoord::PytorchHalfPixel => "pytorch_half_pixel",
        ResizeCoord::AlignCorners => "align_corners",
        ResizeCoord::Asymmetric => "asymmetric",
        ResizeCoord::TfCropAndResize => "tf_crop_and_resize",
    };
    let mut attrs = vec![string("coordinate_transformation_mode", coord)];
    match op.mode {
        ResizeMode::Nearest { round } => {
            let round = match round {
                NearestRound::PreferFloor => "round_prefer_floor",
                NearestRound::PreferCeil => "round_prefer_ceil",
                NearestRound::Floor => "floor",
                NearestRound::Ceil => "ceil",
            };
            attrs.extend([string("mode", "nearest"), string("nearest_mode", round)]);
        }
        ResizeMode::Linear => attrs.push(string("mode", "linear")),
        ResizeMode::Cubic { a } => {
            attrs.extend([string("mode", "cubic"), float("cubic_coeff_a", a.into())]);
        }
    }
    for (name, set) in [("antialias", op.antialias), ("exclude_outside", op.exclude_outside)] {
        if set {
            attrs.push(int(name, 1));
        }
    }
    if op.coord == ResizeCoord::TfCropAndResize {
        attrs.push(float("extrapolation_value", op.extrapolate.into()));
    }
    attrs
}
