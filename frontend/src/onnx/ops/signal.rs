//! Window functions and Fourier transforms, as matrix products with cosines and sines.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op, op_of};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("HannWindow", 17, |c| window(c, &[0.5, -0.5])),
    op("HammingWindow", 17, |c| window(c, &[25.0 / 46.0, -21.0 / 46.0])),
    op("BlackmanWindow", 17, |c| window(c, &[0.42, -0.5, 0.08])),
    op("DFT", 17, dft),
    op("STFT", 17, stft),
    op_of("ai.onnx.ml", "ArrayFeatureExtractor", |c| {
        let (x, at) = (c.tensor(0)?, c.tensor(1)?);
        let n = Dim::product(&c.dims(at));
        let at = c.reshape(at, vec![n])?;
        let Some(axis) = c.rank(x).checked_sub(1) else { return invalid("x is a scalar") };
        let y = c.prim(Prim::Gather { axis: axis as u32 }, &[x, at])?;
        let shape = c.dims(y);
        one(if shape.len() == 1 { c.reshape(y, [&[1i64.into()], &shape[..]].concat())? } else { y })
    }),
    op_of("ai.onnx.ml", "Binarizer", |c| {
        let x = c.tensor(0)?;
        let (t, dtype) = (c.float("threshold", 0.0)?, c.dtype(x));
        let hit = c.bin_scalar(BinaryOp::Gt, x, t.into())?;
        one(c.cast(hit, dtype)?)
    }),
];

/// `sum of a[i] * cos(2 pi i k / n)`, n one less where the window is symmetric.
fn window(c: &mut Cx<'_, '_, '_>, a: &[f64]) -> Got<Vec<Value>> {
    let size = c.tensor(0)?;
    let Some(n) = c.sizes(size, "size")?.pop() else { return invalid("no size") };
    let to = tensor::dtype(c.int("output_datatype", 1)? as i32)?;
    let period = if c.flag("periodic", true)? { n.clone() } else { n.plus(-1) };
    let k = c.prim(Prim::Iota { dtype: Dtype::F64, shape: vec![n], axis: 0 }, &[])?;
    let period = c.b.dim_scalar(period);
    let period = c.cast(period, Dtype::F64)?;
    let mut sum = c.scalar(Dtype::F64, a[0]);
    for (i, &a) in a.iter().enumerate().skip(1) {
        let t = c.bin_scalar(BinaryOp::Mul, k, 2.0 * std::f64::consts::PI * i as f64)?;
        let t = c.bin(BinaryOp::Div, t, period)?;
        let t = c.un(UnaryOp::Cos, t)?;
        let t = c.bin_scalar(BinaryOp::Mul, t, a)?;
        sum = c.bin(BinaryOp::Add, sum, t)?;
    }
    one(c.cast(sum, to)?)
}

/// Cosines and sines of `2 pi j k / n` as [bins, n] matrices.
fn waves(c: &mut Cx<'_, '_, '_>, bins: &Dim, n: &Dim, dtype: Dtype) -> Got<(Value, Value)> {
    let iota = |c: &mut Cx<'_, '_, '_>, shape: Vec<Dim>, axis: u32| {
        c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis }, &[])
    };
    let j = iota(c, vec![bins.clone(), 1i64.into()], 0)?;
    let k = iota(c, vec![1i64.into(), n.clone()], 1)?;
    let size = c.b.dim_scalar(n.clone());
    // Exact in integers: only the phase matters.
    let p = c.bin(BinaryOp::Mul, j, k)?;
    let p = c.bin(BinaryOp::Mod, p, size)?;
    let (p, size) = (c.cast(p, Dtype::F64)?, c.cast(size, Dtype::F64)?);
    let p = c.bin(BinaryOp::Div, p, size)?;
    let p = c.bin_scalar(BinaryOp::Mul, p, 2.0 * std::f64::consts::PI)?;
    let (cos, sin) = (c.un(UnaryOp::Cos, p)?, c.un(UnaryOp::Sin, p)?);
    Ok((c.cast(cos, dtype)?, c.cast(sin, dtype)?))
}

/// x [A, n, B, parts] to [A, bins, B, 2]; an inverse has the sign turned and is divided by n.
fn transform(c: &mut Cx<'_, '_, '_>, x: Value, bins: &Dim, inverse: bool) -> Got {
    let (d, dtype) = (c.dims(x), c.dtype(x));
    let n = d[1].clone();
    let (cos, sin) = waves(c, bins, &n, dtype)?;
    let times = |c: &mut Cx<'_, '_, '_>, m: Value, part: i64| -> Got {
        let x = c.b.narrow(x, 3, part.into(), 1i64.into())?;
        let p = Prim::Contract { a: vec![4, 1], b: vec![0, 1, 2, 3], out: vec![0, 4, 2, 3] };
        c.prim(p, &[m, x])
    };
    let (mut re, s) = (times(c, cos, 0)?, times(c, sin, 0)?);
    let mut im = if inverse { s } else { c.un(UnaryOp::Neg, s)? };
    if d[3].is(2) {
        // (a + ib)(cos -+ i sin)
        let (cb, sb) = (times(c, cos, 1)?, times(c, sin, 1)?);
        let op = if inverse { BinaryOp::Sub } else { BinaryOp::Add };
        re = c.bin(op, re, sb)?;
        im = c.bin(BinaryOp::Add, im, cb)?;
    }
    let y = c.b.concat(&[re, im], 3)?;
    if !inverse {
        return Ok(y);
    }
    let size = c.b.dim_scalar(n);
    let size = c.cast(size, dtype)?;
    c.bin(BinaryOp::Div, y, size)
}

fn dft(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let d = c.dims(x);
    let rank = d.len();
    let axis = match c.opt(2) {
        Some(a) => match c.known_ints(a).as_deref() {
            Some([a]) => *a,
            _ => return unsupported("an axis computed when the model runs"),
        },
        None if c.version >= 20 => -2,
        None => c.int("axis", 1)?,
    };
    let at = c.axis(axis, rank)?;
    if rank < 2 || at + 1 == rank || !(d[rank - 1].is(1) || d[rank - 1].is(2)) {
        return invalid(format!("a transform along axis {axis} of {d:?}"));
    }
    let (inverse, onesided) = (c.flag("inverse", false)?, c.flag("onesided", false)?);
    if inverse && onesided {
        return unsupported("a one-sided inverse transform");
    }
    let n = match c.opt(1) {
        Some(v) => c.sizes(v, "dft_length")?.pop().unwrap_or(d[at].clone()),
        None => d[at].clone(),
    };
    // Cut or padded with zeros to the length.
    let mut x = x;
    if n != d[at] {
        let (zero, dtype) = (vec![Dim::from(0i64); rank], c.dtype(x));
        let mut after = zero.clone();
        after[at] = n.sub(&d[at]);
        let value = c.scalar(dtype, 0.0);
        let mode = hub_abi::prim::PadMode::Constant;
        x = c.prim(Prim::Pad { before: zero, after, mode }, &[x, value])?;
    }
    let flat = vec![
        Dim::product(&d[..at]),
        n.clone(),
        Dim::product(&d[at + 1..rank - 1]),
        d[rank - 1].clone(),
    ];
    let t = c.reshape(x, flat)?;
    let bins = if onesided { n.div(&2i64.into()).plus(1) } else { n };
    let y = transform(c, t, &bins, inverse)?;
    let mut shape = d;
    (shape[at], shape[rank - 1]) = (bins, 2i64.into());
    one(c.reshape(y, shape)?)
}

/// Frames of the signal [B, L] or [B, L, 1|2], windowed and transformed: [B, frames, bins, 2].
fn stft(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, step) = (c.tensor(0)?, c.tensor(1)?);
    let d = c.dims(x);
    let (parts, x) = match d.len() {
        2 => (Dim::from(1i64), c.b.unsqueeze(x, 2)?),
        3 => (d[2].clone(), x),
        r => return invalid(format!("a signal of rank {r}")),
    };
    let Some(step) = c.sizes(step, "frame_step")?.pop() else { return invalid("no frame_step") };
    let win = c.opt(2);
    let n = match (c.opt(3), win) {
        (Some(v), _) => c.sizes(v, "frame_length")?.pop(),
        (None, Some(w)) => c.dims(w).first().cloned(),
        _ => None,
    };
    let Some(n) = n else { return invalid("neither a window nor a frame length") };
    let frames = d[1].sub(&n).div(&step).plus(1);
    // Indices [frames, n].
    let (a, b) = (vec![frames.clone(), 1i64.into()], vec![1i64.into(), n.clone()]);
    let i = c.prim(Prim::Iota { dtype: Dtype::I64, shape: a, axis: 0 }, &[])?;
    let step = c.b.dim_scalar(step);
    let i = c.bin(BinaryOp::Mul, i, step)?;
    let j = c.prim(Prim::Iota { dtype: Dtype::I64, shape: b, axis: 1 }, &[])?;
    let at = c.bin(BinaryOp::Add, i, j)?;
    let mut t = c.prim(Prim::Gather { axis: 1 }, &[x, at])?;
    if let Some(w) = win {
        let w = c.reshape(w, vec![n.clone(), 1i64.into()])?;
        t = c.bin(BinaryOp::Mul, t, w)?;
    }
    let rows = d[0].mul(&frames);
    let t = c.reshape(t, vec![rows, n.clone(), 1i64.into(), parts])?;
    let bins = if c.flag("onesided", true)? { n.div(&2i64.into()).plus(1) } else { n };
    let y = transform(c, t, &bins, false)?;
    one(c.reshape(y, vec![d[0].clone(), frames, bins, 2i64.into()])?)
}
