//! com.microsoft: gated norms, crops, repeated n-grams, hashes and other single steps of exported
//! pipelines. Meanings are those of its ContribOperators.md and of ONNX Runtime's answers.

use super::contrib::MS;
use super::spatial::transposed;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, Prim, ScatterOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::conv::ConvTranspose;
use hub_ir::ops::norm::RmsNorm;

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "GatedRMSNorm", gated_rms_norm),
    op_of(MS, "ScaledSiLU", scaled_silu),
    op_of(MS, "NGramRepeatBlock", ngram_repeat_block),
    op_of(MS, "CropAndResize", crop_and_resize),
    op_of(MS, "ConvTransposeWithDynamicPads", conv_transpose_dynamic),
    op_of(MS, "MurmurHash3", murmur_hash),
];

/// `RmsNorm(x) * activation(gate)` in f32, over groups of as many elements as the scale has.
fn gated_rms_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, gain, gate) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (dtype, dims) = (c.dtype(x), c.dims(x));
    let size = Dim::product(&c.dims(gain));
    let Some((last, lead)) = dims.split_last() else { return invalid("x is a scalar") };
    let eps = c.float("epsilon", 1e-5)?;
    let (x, gain, gate) =
        (c.cast(x, Dtype::F32)?, c.cast(gain, Dtype::F32)?, c.cast(gate, Dtype::F32)?);
    let groups = last.div(&size);
    let x = c.reshape(x, [lead, &[groups, size.clone()]].concat())?;
    let gain = c.reshape(gain, vec![size])?;
    let y = c.source(RmsNorm { axis: dims.len(), eps }, &[x, gain])?;
    let y = c.reshape(y, dims)?;
    let s = c.un(UnaryOp::Sigmoid, gate)?;
    let s = match &*c.string("activation", "silu")? {
        "silu" | "swish" => c.bin(BinaryOp::Mul, s, gate)?,
        "sigmoid" => s,
        other => return unsupported(format!("activation '{other}'")),
    };
    let y = c.bin(BinaryOp::Mul, y, s)?;
    one(c.cast(y, dtype)?)
}

/// `z * sigmoid(z)` of `z = scale * x`.
fn scaled_silu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dtype = c.dtype(x);
    let z = match c.opt(1) {
        Some(scale) => {
            let wide = c.cast(x, Dtype::F32)?;
            let scale = c.cast(scale, Dtype::F32)?;
            let scale = c.reshape(scale, vec![])?;
            let z = c.bin(BinaryOp::Mul, wide, scale)?;
            c.cast(z, dtype)?
        }
        None => c.bin_scalar(BinaryOp::Mul, x, c.float("alpha", 1.0)?.into())?,
    };
    let s = c.un(UnaryOp::Sigmoid, z)?;
    one(c.bin(BinaryOp::Mul, z, s)?)
}

/// Scores of tokens that would repeat an n-gram of the row become -inf.
fn ngram_repeat_block(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (ids, scores) = (c.tensor(0)?, c.tensor(1)?);
    let n = c.int("ngram_size", 0)?;
    let (dims, all) = (c.dims(ids), c.dims(scores));
    let ([batch, length], [_, _]) = (&dims[..], &all[..]) else {
        return invalid("input_ids and scores must be matrices");
    };
    if !(1..=1024).contains(&n) {
        return invalid(format!("n-grams of {n} tokens"));
    }
    // Places at which an n-gram may begin, and what follows its first tokens there.
    let places = length.plus(1 - n).max_of(&0i64.into());
    let mut same = c.scalar(Dtype::Bool, 1.0);
    same = c.b.broadcast(same, vec![batch.clone(), places.clone()])?;
    let window = |c: &mut Cx<'_, '_, '_>, k: i64| c.b.narrow(ids, 1, k.into(), places.clone());
    for k in 0..n - 1 {
        let past = window(c, k)?;
        let at = length.plus(k + 1 - n).max_of(&0i64.into());
        let at = c.b.dim_scalar(at);
        let last = c.prim(Prim::Gather { axis: 1 }, &[ids, at])?;
        let last = c.b.unsqueeze(last, 1)?;
        let equal = c.bin(BinaryOp::Eq, past, last)?;
        same = c.bin(BinaryOp::And, same, equal)?;
    }
    let next = window(c, n - 1)?;
    let dtype = c.dtype(scores);
    let (low, high) = (c.scalar(dtype, f64::NEG_INFINITY), c.scalar(dtype, f64::INFINITY));
    let banned = c.b.select(same, low, high)?;
    let op = Prim::ScatterElements { axis: 1, op: ScatterOp::Min };
    one(c.prim(op, &[scores, next, banned])?)
}

/// Where the pixels of crops lie along an axis: `[rois, count]`, corners on corners.
fn crop_places(c: &mut Cx<'_, '_, '_>, [from, to]: [Value; 2], size: &Dim, count: &Dim) -> Got {
    let last = c.b.dim_scalar(size.plus(-1));
    let last = c.cast(last, Dtype::F32)?;
    if count.is(1) {
        let sum = c.bin(BinaryOp::Add, from, to)?;
        let half = c.bin_scalar(BinaryOp::Mul, sum, 0.5)?;
        return c.bin(BinaryOp::Mul, half, last);
    }
    let steps = c.b.dim_scalar(count.plus(-1));
    let steps = c.cast(steps, Dtype::F32)?;
    let span = c.bin(BinaryOp::Sub, to, from)?;
    let span = c.bin(BinaryOp::Mul, span, last)?;
    let step = c.bin(BinaryOp::Div, span, steps)?;
    let i = Prim::Iota { dtype: Dtype::F32, shape: vec![1i64.into(), count.clone()], axis: 1 };
    let i = c.prim(i, &[])?;
    let start = c.bin(BinaryOp::Mul, from, last)?;
    let moved = c.bin(BinaryOp::Mul, i, step)?;
    c.bin(BinaryOp::Add, start, moved)
}

/// Crops of images, each resampled to one size.
fn crop_and_resize(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, rois, image, size) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?, c.tensor(3)?);
    let (dtype, dims) = (c.dtype(x), c.dims(x));
    let [_, _, height, width] = &dims[..] else { return invalid("x must be [N, C, H, W]") };
    let [count, four] = &c.dims(rois)[..] else { return invalid("rois must be a matrix") };
    c.b.g.constraints.equal(four, &4i64.into()).map_err(hub_ir::OpError::from)?;
    let [h, w] = &c.sizes(size, "crop_size")?[..] else { return invalid("crop_size has 2 sizes") };
    let rois = c.cast(rois, Dtype::F32)?;
    let mut sides = vec![];
    for k in 0..4i64 {
        sides.push(c.b.narrow(rois, 1, k.into(), 1i64.into())?);
    }
    let y = crop_places(c, [sides[0], sides[2]], height, h)?;
    let x_at = crop_places(c, [sides[1], sides[3]], width, w)?;
    // Within [rois, h, w]; outside stands the extrapolation's value.
    let places = [(y, height, 2usize), (x_at, width, 1usize)];
    let (mut inside, mut cells) = (None, vec![]);
    for (at, size, axis) in places {
        let at = c.b.unsqueeze(at, axis)?;
        let last = c.b.dim_scalar(size.plus(-1));
        let last = c.cast(last, Dtype::F32)?;
        let zero = c.scalar(Dtype::F32, 0.0);
        let (a, b) = (c.bin(BinaryOp::Ge, at, zero)?, c.bin(BinaryOp::Le, at, last)?);
        let here = c.bin(BinaryOp::And, a, b)?;
        inside = Some(match inside {
            Some(other) => c.bin(BinaryOp::And, other, here)?,
            None => here,
        });
        let at = c.bin(BinaryOp::Max, at, zero)?;
        cells.push(c.bin(BinaryOp::Min, at, last)?);
    }
    let wide = c.cast(x, Dtype::F32)?;
    let pixels = c.b.transpose(wide, &[0, 2, 3, 1])?;
    let grid = vec![count.clone(), h.clone(), w.clone()];
    let pick = |c: &mut Cx<'_, '_, '_>, y: Value, x: Value| -> Got {
        let image = c.cast(image, Dtype::I64)?;
        let image = c.reshape(image, vec![count.clone(), 1i64.into(), 1i64.into()])?;
        let mut parts = vec![];
        for v in [image, y, x] {
            let v = c.cast(v, Dtype::I64)?;
            let v = c.b.broadcast(v, grid.clone())?;
            parts.push(c.b.unsqueeze(v, 3)?);
        }
        let at = c.b.concat(&parts, 3)?;
        c.prim(Prim::GatherNd { batch: 0 }, &[pixels, at])
    };
    let y = match &*c.string("mode", "bilinear")? {
        "bilinear" => {
            let (top, bottom) = (c.un(UnaryOp::Floor, cells[0])?, c.un(UnaryOp::Ceil, cells[0])?);
            let (left, right) = (c.un(UnaryOp::Floor, cells[1])?, c.un(UnaryOp::Ceil, cells[1])?);
            let (down, across) =
                (c.bin(BinaryOp::Sub, cells[0], top)?, c.bin(BinaryOp::Sub, cells[1], left)?);
            let (down, across) = (c.b.unsqueeze(down, 3)?, c.b.unsqueeze(across, 3)?);
            let mix = |c: &mut Cx<'_, '_, '_>, a: Value, b: Value, t: Value| -> Got {
                let d = c.bin(BinaryOp::Sub, b, a)?;
                let d = c.bin(BinaryOp::Mul, d, t)?;
                c.bin(BinaryOp::Add, a, d)
            };
            let (a, b) = (pick(c, top, left)?, pick(c, top, right)?);
            let above = mix(c, a, b, across)?;
            let (a, b) = (pick(c, bottom, left)?, pick(c, bottom, right)?);
            let below = mix(c, a, b, across)?;
            mix(c, above, below, down)?
        }
        "nearest" => {
            let mut whole = vec![];
            for v in cells {
                let v = c.bin_scalar(BinaryOp::Add, v, 0.5)?;
                whole.push(c.un(UnaryOp::Floor, v)?);
            }
            pick(c, whole[0], whole[1])?
        }
        other => return unsupported(format!("mode '{other}'")),
    };
    let fill = c.scalar(Dtype::F32, c.float("extrapolation_value", 0.0)?.into());
    let inside = match inside {
        Some(v) => c.b.unsqueeze(v, 3)?,
        None => return invalid("no places"),
    };
    let y = c.b.select(inside, y, fill)?;
    let y = c.b.transpose(y, &[0, 3, 1, 2])?;
    one(c.cast(y, dtype)?)
}

/// A transposed convolution whose pads are an operand.
fn conv_transpose_dynamic(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, w) = (c.tensor(0)?, c.tensor(1)?);
    let (dx, dw) = (c.dims(x), c.dims(w));
    if dx.len() < 3 || dw.len() != dx.len() {
        return invalid("x and the filters must have spatial axes");
    }
    let n = dx.len() - 2;
    let mut geo = transposed(c, &dx[2..], &dw[2..])?;
    if let Some(pads) = c.opt(2) {
        let pads = c.sizes(pads, "pads")?;
        if pads.len() != 2 * n {
            return invalid(format!("{} pads for {n} spatial axes", pads.len()));
        }
        for i in 0..n {
            geo.before[i] = geo.before[i].add(&pads[i]);
            geo.after[i] = geo.after[i].add(&pads[n + i]);
        }
    }
    let groups = c.int("group", 1)?;
    let mut ins = vec![x, w];
    ins.extend(c.opt(3));
    one(c.source(ConvTranspose { geo, groups }, &ins)?)
}

/// Bits turned left.
fn rotated(c: &mut Cx<'_, '_, '_>, x: Value, by: u32) -> Got {
    let left = c.bin_scalar(BinaryOp::Shl, x, by.into())?;
    let right = c.bin_scalar(BinaryOp::Shr, x, (32 - by).into())?;
    c.bin(BinaryOp::BitOr, left, right)
}

/// MurmurHash3 (x86, 32 bits) of each element's bytes.
fn murmur_hash(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (blocks, bytes) = match c.dtype(x) {
        Dtype::I32 | Dtype::U32 | Dtype::F32 => {
            (vec![c.prim(Prim::Bitcast { to: Dtype::U32 }, &[x])?], 4)
        }
        Dtype::I64 | Dtype::U64 | Dtype::F64 => {
            let whole = c.prim(Prim::Bitcast { to: Dtype::U64 }, &[x])?;
            let high = c.bin_scalar(BinaryOp::Shr, whole, 32.0)?;
            let up = c.bin_scalar(BinaryOp::Shl, high, 32.0)?;
            let low = c.bin(BinaryOp::Sub, whole, up)?;
            (vec![c.cast(low, Dtype::U32)?, c.cast(high, Dtype::U32)?], 8)
        }
        other => return unsupported(format!("hashes of {other}")),
    };
    let mut h = c.scalar(Dtype::U32, c.int("seed", 0)? as u32 as f64);
    for k in blocks {
        let k = c.bin_scalar(BinaryOp::Mul, k, f64::from(0xcc9e_2d51u32))?;
        let k = rotated(c, k, 15)?;
        let k = c.bin_scalar(BinaryOp::Mul, k, f64::from(0x1b87_3593u32))?;
        h = c.bin(BinaryOp::BitXor, h, k)?;
        h = rotated(c, h, 13)?;
        h = c.bin_scalar(BinaryOp::Mul, h, 5.0)?;
        h = c.bin_scalar(BinaryOp::Add, h, f64::from(0xe654_6b64u32))?;
    }
    h = c.bin_scalar(BinaryOp::BitXor, h, bytes.into())?;
    for (shift, times) in [(16.0, 0x85eb_ca6bu32), (13.0, 0xc2b2_ae35), (16.0, 1)] {
        let s = c.bin_scalar(BinaryOp::Shr, h, shift)?;
        h = c.bin(BinaryOp::BitXor, h, s)?;
        if times != 1 {
            h = c.bin_scalar(BinaryOp::Mul, h, times.into())?;
        }
    }
    let to = if c.flag("positive", true)? { Dtype::U32 } else { Dtype::I32 };
    one(c.prim(Prim::Bitcast { to }, &[h])?)
}
