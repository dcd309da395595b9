//! Window functions and Fourier transforms, as matrix products with cosines and sines.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("HannWindow", 17, |c| window(c, &[0.5, -0.5])),
    op("HammingWindow", 17, |c| window(c, &[25.0 / 46.0, -21.0 / 46.0])),
    op("BlackmanWindow", 17, |c| window(c, &[0.42, -0.5, 0.08])),
    op("DFT", 17, dft),
    op("STFT", 17, stft),
    op("MelWeightMatrix", 17, mel_weights),
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

/// Cosines and sines of `2 pi j k / period` as [rows, columns] matrices.
fn waves(
    c: &mut Cx<'_, '_, '_>,
    [rows, columns, period]: [&Dim; 3],
    dtype: Dtype,
) -> Got<(Value, Value)> {
    let iota = |c: &mut Cx<'_, '_, '_>, shape: Vec<Dim>, axis: u32| {
        c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis }, &[])
    };
    let j = iota(c, vec![rows.clone(), 1i64.into()], 0)?;
    let k = iota(c, vec![1i64.into(), columns.clone()], 1)?;
    let size = c.b.dim_scalar(period.clone());
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
    let (cos, sin) = waves(c, [bins, &n, &n], dtype)?;
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

/// Half of a spectrum [A, n / 2 + 1, B, 2] to the n reals [A, n, B, 1] that it is of: every bin but the
/// first, and the last of an even n, stands for its mirror image too.
fn real_inverse(c: &mut Cx<'_, '_, '_>, x: Value, n: &Dim) -> Got {
    let (d, dtype) = (c.dims(x), c.dtype(x));
    if !d[3].is(2) {
        return invalid("a spectrum has two numbers an element");
    }
    let (cos, sin) = waves(c, [n, &d[1], n], dtype)?;
    let k = c.prim(Prim::Iota { dtype: Dtype::I64, shape: vec![d[1].clone()], axis: 0 }, &[])?;
    let size = c.b.dim_scalar(n.clone());
    let twice = c.bin_scalar(BinaryOp::Mul, k, 2.0)?;
    let twice = c.bin(BinaryOp::Mod, twice, size)?;
    let single = c.bin_scalar(BinaryOp::Eq, twice, 0.0)?;
    let (once, both) = (c.scalar(dtype, 1.0), c.scalar(dtype, 2.0));
    let weight = c.b.select(single, once, both)?;
    let mut parts = vec![];
    for (part, wave) in [(0i64, cos), (1, sin)] {
        let wave = c.bin(BinaryOp::Mul, wave, weight)?;
        let x = c.b.narrow(x, 3, part.into(), 1i64.into())?;
        let p = Prim::Contract { a: vec![4, 1], b: vec![0, 1, 2, 3], out: vec![0, 4, 2, 3] };
        parts.push(c.prim(p, &[wave, x])?);
    }
    let y = c.bin(BinaryOp::Sub, parts[0], parts[1])?;
    let size = c.cast(size, dtype)?;
    c.bin(BinaryOp::Div, y, size)
}

/// The transform's axis, where that is known.
fn known_axis(c: &Cx<'_, '_, '_>) -> Got<Option<i64>> {
    Ok(match c.opt(2) {
        Some(a) => match c.known_ints(a).as_deref() {
            Some([a]) => Some(*a),
            _ => None,
        },
        None if c.version >= 20 => Some(-2),
        None => Some(c.int("axis", 1)?),
    })
}

fn dft(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let d = c.dims(x);
    let rank = d.len();
    if rank < 2 || !(d[rank - 1].is(1) || d[rank - 1].is(2)) {
        return invalid(format!("a transform of {d:?}"));
    }
    let (inverse, onesided) = (c.flag("inverse", false)?, c.flag("onesided", false)?);
    let axis = known_axis(c)?;
    let length = match c.opt(1) {
        Some(v) => c.sizes(v, "dft_length")?.pop(),
        None => None,
    };
    // Sizes before, along and behind the axis.
    let (at, [before, size, behind]) = match axis {
        Some(axis) => {
            let at = c.axis(axis, rank)?;
            if at + 1 == rank {
                return invalid(format!("a transform along axis {axis} of {d:?}"));
            }
            let behind = Dim::product(&d[at + 1..rank - 1]);
            (Ok(at), [Dim::product(&d[..at]), d[at].clone(), behind])
        }
        None => {
            let (hit, sizes) = about(c, &d)?;
            (Err(hit), sizes)
        }
    };
    let real = inverse && onesided;
    let n = match length {
        Some(n) => n,
        None if real => size.plus(-1).times(2),
        None => size.clone(),
    };
    let half = n.div(&2i64.into()).plus(1);
    let given = if real { half.clone() } else { n.clone() };
    let mut t = c.reshape(x, vec![before, size.clone(), behind, d[rank - 1].clone()])?;
    // Cut or padded with zeros to the length.
    if given != size {
        let (zero, dtype) = (vec![Dim::from(0i64); 4], c.dtype(x));
        let mut after = zero.clone();
        after[1] = given.sub(&size);
        let value = c.scalar(dtype, 0.0);
        let mode = hub_abi::prim::PadMode::Constant;
        t = c.prim(Prim::Pad { before: zero, after, mode }, &[t, value])?;
    }
    let mut shape = d.clone();
    let (y, bins) = if real {
        shape[rank - 1] = 1i64.into();
        (real_inverse(c, t, &n)?, n)
    } else {
        shape[rank - 1] = 2i64.into();
        let bins = if onesided { half } else { n };
        (transform(c, t, &bins, inverse)?, bins)
    };
    match at {
        Ok(at) => shape[at] = bins,
        Err(hit) => {
            let own = c.b.dims_vector(d[..rank - 1].to_vec());
            let bins = c.b.dim_scalar(bins);
            let sizes = c.b.select(hit, bins, own)?;
            shape.splice(..rank - 1, c.sizes(sizes, "size")?);
        }
    }
    one(c.reshape(y, shape)?)
}

/// Where an axis that is known only when the model runs stands among all but the last, as bool; and
/// the sizes before, along and behind it.
fn about(c: &mut Cx<'_, '_, '_>, d: &[Dim]) -> Got<(Value, [Dim; 3])> {
    let n = d.len() - 1;
    let axis = c.tensor(2)?;
    let axis = c.reshape(axis, vec![])?;
    let axis = c.cast(axis, Dtype::I64)?;
    let below = c.bin_scalar(BinaryOp::Lt, axis, 0.0)?;
    let wrapped = c.bin_scalar(BinaryOp::Add, axis, d.len() as f64)?;
    let axis = c.b.select(below, wrapped, axis)?;
    let i = c.prim(Prim::Iota { dtype: Dtype::I64, shape: vec![n.into()], axis: 0 }, &[])?;
    let sizes = c.b.dims_vector(d[..n].to_vec());
    let mut parts = vec![];
    for op in [BinaryOp::Lt, BinaryOp::Eq, BinaryOp::Gt] {
        let hit = c.bin(op, i, axis)?;
        let rest = c.scalar(Dtype::I64, 1.0);
        let own = c.b.select(hit, sizes, rest)?;
        parts.push(c.reduce(ReduceOp::Prod, own, &[0], true)?);
    }
    let hit = c.bin(BinaryOp::Eq, i, axis)?;
    let all = c.b.concat(&parts, 0)?;
    let all = c.sizes(all, "size")?;
    match <[Dim; 3]>::try_from(all) {
        Ok(all) => Ok((hit, all)),
        Err(_) => invalid("an axis"),
    }
}

/// Triangles that are even on the mel scale, as `[spectrogram bins, mel bins]`.
fn mel_weights(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    use BinaryOp::{Add, And, Div, Eq, Ge, Gt, Le, Lt, Max, Mul, Sub};
    let (bins, length) = (c.tensor(0)?, c.tensor(1)?);
    let (bins, length) = (c.sizes(bins, "num_mel_bins")?.pop(), c.sizes(length, "length")?.pop());
    let (Some(bins), Some(length)) = (bins, length) else { return invalid("no sizes") };
    let to = tensor::dtype(c.int("output_datatype", 1)? as i32)?;
    let number = |c: &mut Cx<'_, '_, '_>, i: usize| -> Got {
        let v = c.tensor(i)?;
        let v = c.reshape(v, vec![])?;
        c.cast(v, Dtype::F64)
    };
    let mut edges = vec![];
    for i in [3, 4] {
        let hertz = number(c, i)?;
        let t = c.bin_scalar(Div, hertz, 700.0)?;
        let t = c.un(UnaryOp::Log1p, t)?;
        edges.push(c.bin_scalar(Mul, t, 2595.0 / std::f64::consts::LN_10)?);
    }
    // Edges of the triangles as spectrogram bins.
    let count = bins.plus(2);
    let i = Prim::Iota { dtype: Dtype::F64, shape: vec![count.clone()], axis: 0 };
    let i = c.prim(i, &[])?;
    let count = c.b.dim_scalar(count);
    let count = c.cast(count, Dtype::F64)?;
    let step = c.bin(Sub, edges[1], edges[0])?;
    let step = c.bin(Div, step, count)?;
    let mel = c.bin(Mul, i, step)?;
    let mel = c.bin(Add, mel, edges[0])?;
    let hertz = c.bin_scalar(Mul, mel, std::f64::consts::LN_10 / 2595.0)?;
    let hertz = c.un(UnaryOp::Expm1, hertz)?;
    let hertz = c.bin_scalar(Mul, hertz, 700.0)?;
    let n = c.b.dim_scalar(length.plus(1));
    let n = c.cast(n, Dtype::F64)?;
    let at = c.bin(Mul, hertz, n)?;
    let rate = number(c, 2)?;
    let at = c.bin(Div, at, rate)?;
    let at = c.un(UnaryOp::Floor, at)?;
    let part = |c: &mut Cx<'_, '_, '_>, from: i64| -> Got {
        Ok(c.b.narrow(at, 0, from.into(), bins.clone())?)
    };
    let (low, mid, high) = (part(c, 0)?, part(c, 1)?, part(c, 2)?);
    let rows = length.div(&2i64.into()).plus(1);
    let j = Prim::Iota { dtype: Dtype::F64, shape: vec![rows, 1i64.into()], axis: 0 };
    let j = c.prim(j, &[])?;
    // Up to the middle, and down from it.
    let rise = c.bin(Sub, mid, low)?;
    let steep = c.bin_scalar(Eq, rise, 0.0)?;
    let up = c.bin(Sub, j, low)?;
    let run = c.bin_scalar(Max, rise, 1.0)?;
    let up = c.bin(Div, up, run)?;
    let (unit, zero) = (c.scalar(Dtype::F64, 1.0), c.scalar(Dtype::F64, 0.0));
    let up = c.b.select(steep, unit, up)?;
    let (a, b) = (c.bin(Ge, j, low)?, c.bin(Le, j, mid)?);
    let inside = c.bin(And, a, b)?;
    let y = c.b.select(inside, up, zero)?;
    let fall = c.bin(Sub, high, mid)?;
    let down = c.bin(Sub, high, j)?;
    let run = c.bin_scalar(Max, fall, 1.0)?;
    let down = c.bin(Div, down, run)?;
    let (a, b) = (c.bin(Ge, j, mid)?, c.bin(Lt, j, high)?);
    let inside = c.bin(And, a, b)?;
    let some = c.bin_scalar(Gt, fall, 0.0)?;
    let inside = c.bin(And, inside, some)?;
    let y = c.b.select(inside, down, y)?;
    one(c.cast(y, to)?)
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
