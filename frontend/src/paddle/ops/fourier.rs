//! Fourier transforms, and complex tensors: pairs (real, imaginary) along a last axis of their own,
//! which [`Ctx::pairs`] lists. Operators that do not know them refuse them.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// Operators that take complex operands.
pub const COMPLEX: &[&str] =
    &["real", "imag", "as_real", "fft_c2c", "fft_c2r", "abs", "conj", "angle"];

/// Longest axis that is transformed.
const MOST: i64 = 1 << 13;

/// The real and imaginary parts of an operand.
fn parts(c: &mut Ctx<'_, '_>, x: Value) -> Res<(Value, Value)> {
    if !c.pairs.contains(&x) {
        return c.refuse("a real operand where a complex one is needed");
    }
    let last = c.last(x)?;
    let mut part = |k: i64| -> Res<Value> {
        let v = c.b.narrow(x, last, k.into(), 1i64.into())?;
        Ok(c.b.squeeze(v, last)?)
    };
    Ok((part(0)?, part(1)?))
}

/// Both parts as a complex result.
fn join(c: &mut Ctx<'_, '_>, (re, im): (Value, Value)) -> Res<Value> {
    let last = c.rank(re);
    let (re, im) = (c.b.unsqueeze(re, last)?, c.b.unsqueeze(im, last)?);
    let v = c.b.concat(&[re, im], last)?;
    c.pairs.insert(v);
    Ok(v)
}

/// real, imag, as_real, abs and conj of complex tensors.
pub fn part_of(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    if c.op.kind == "angle" && !c.pairs.contains(&x) {
        // Numbers below 0 point the other way.
        let minus = c.b.bin_scalar(BinaryOp::Lt, x, 0.0)?;
        let zero = c.b.bin_scalar(BinaryOp::Mul, x, 0.0)?;
        let half = c.b.scalar(c.b.g.dtype(x), std::f64::consts::PI);
        let v = c.b.select(minus, half, zero)?;
        c.put("Out|out", v);
        return Ok(());
    }
    let (re, im) = parts(c, x)?;
    let v = match c.op.kind.as_str() {
        "angle" => c.b.bin(BinaryOp::Atan2, im, re)?,
        "real" => re,
        "imag" => im,
        "conj" => {
            let im = c.b.un(UnaryOp::Neg, im)?;
            join(c, (re, im))?
        }
        "abs" => {
            let (a, b) = (c.b.mul(re, re)?, c.b.mul(im, im)?);
            let s = c.b.add(a, b)?;
            c.b.un(UnaryOp::Sqrt, s)?
        }
        _ => {
            // The same pairs, which are real numbers from here on.
            let shape = c.dims(x);
            c.b.prim(Prim::Reshape { shape }, &[x])?
        }
    };
    c.put("Out|out", v);
    Ok(())
}

/// complex: of two real tensors; as_complex: of pairs.
pub fn complex(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let v = match c.opt("Y|y") {
        Some(y) => join(c, (x, y))?,
        None => {
            let shape = c.dims(x);
            let v = c.b.prim(Prim::Reshape { shape }, &[x])?;
            c.pairs.insert(v);
            v
        }
    };
    c.put("Out|out", v);
    Ok(())
}

/// Sums `x_k * table[k, m]` along an axis.
fn along(c: &mut Ctx<'_, '_>, x: Value, axis: usize, table: Value) -> Res<Value> {
    let a: Vec<u8> = (0..c.rank(x) as u8).collect();
    let (from, to) = (axis as u8, c.rank(x) as u8);
    let out = a.iter().map(|&l| if l == from { to } else { l }).collect();
    Ok(c.b.prim(Prim::Contract { a, b: vec![from, to], out }, &[x, table])?)
}

/// How a transform scales, for an axis of n.
fn scale(c: &Ctx<'_, '_>, n: i64) -> f64 {
    let forward = c.flag("forward", true);
    match c.text("normalization", "backward") {
        "ortho" => 1.0 / (n as f64).sqrt(),
        "backward" if !forward => 1.0 / n as f64,
        "forward" if forward => 1.0 / n as f64,
        _ => 1.0,
    }
}

/// Cosines and sines `[rows, columns]` of `2 pi k m / n`, each times a weight of its row.
fn tables(
    c: &mut Ctx<'_, '_>,
    dtype: Dtype,
    (rows, columns, n): (i64, i64, i64),
    weight: &dyn Fn(i64) -> f64,
) -> Res<(Value, Value)> {
    let mut made = vec![];
    for f in [f64::cos, f64::sin] {
        let at = |k: i64, m: i64| {
            let turn = ((k * m) % n) as f64 / n as f64;
            weight(k) * f(std::f64::consts::TAU * turn)
        };
        let data = (0..rows).flat_map(|k| (0..columns).map(move |m| (k, m)));
        let bytes: Vec<u8> =
            data.flat_map(|(k, m)| hub_ir::build::scalar_bytes(dtype, at(k, m))).collect();
        made.push(c.b.constant(dtype, &[rows, columns], bytes.into()));
    }
    Ok((made[0], made[1]))
}

fn size(c: &Ctx<'_, '_>, x: Value, axis: usize) -> Res<i64> {
    match c.dims(x).get(axis).and_then(Dim::as_const) {
        Some(n @ 1..=MOST) => Ok(n),
        _ => c.refuse("a transform of an axis of unknown size, or of a very long one"),
    }
}

/// One axis of a complex tensor.
fn transform(c: &mut Ctx<'_, '_>, (re, im): (Value, Value), axis: usize) -> Res<(Value, Value)> {
    let n = size(c, re, axis)?;
    let k = scale(c, n);
    let sign = if c.flag("forward", true) { -1.0 } else { 1.0 };
    let (cos, sin) = tables(c, c.b.g.dtype(re), (n, n, n), &|_| k)?;
    let (rc, rs) = (along(c, re, axis, cos)?, along(c, re, axis, sin)?);
    let (ic, is) = (along(c, im, axis, cos)?, along(c, im, axis, sin)?);
    // (re + i im)(cos + i sign sin)
    let (rs, is) =
        (c.b.bin_scalar(BinaryOp::Mul, rs, sign)?, c.b.bin_scalar(BinaryOp::Mul, is, sign)?);
    Ok((c.b.sub(rc, is)?, c.b.add(ic, rs)?))
}

fn axes(c: &Ctx<'_, '_>, rank: usize) -> Res<Vec<usize>> {
    let list = c.ints("axes").unwrap_or_default();
    list.into_iter().map(|a| axis_of(a, rank)).collect()
}

/// fft_r2c: of real tensors; of the last axis only the first half, if asked.
pub fn r2c(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let axes = axes(c, c.rank(x))?;
    let Some((&last, rest)) = axes.split_last() else { return c.refuse("a transform of no axis") };
    let n = size(c, x, last)?;
    let columns = if c.flag("onesided", true) { n / 2 + 1 } else { n };
    let k = scale(c, n);
    let (cos, sin) = tables(c, c.b.g.dtype(x), (n, columns, n), &|_| k)?;
    let (re, im) = (along(c, x, last, cos)?, along(c, x, last, sin)?);
    let mut v = match c.flag("forward", true) {
        true => (re, c.b.un(UnaryOp::Neg, im)?),
        false => (re, im),
    };
    for &axis in rest {
        v = transform(c, v, axis)?;
    }
    let v = join(c, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// fft_c2c.
pub fn c2c(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let mut v = parts(c, x)?;
    for axis in axes(c, c.rank(v.0))? {
        v = transform(c, v, axis)?;
    }
    let v = join(c, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// fft_c2r: from the first half of a spectrum whose other half mirrors it.
pub fn c2r(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let mut v = parts(c, x)?;
    let axes = axes(c, c.rank(v.0))?;
    let Some((&last, rest)) = axes.split_last() else { return c.refuse("a transform of no axis") };
    for &axis in rest {
        v = transform(c, v, axis)?;
    }
    let half = size(c, v.0, last)?;
    let n = match c.int("last_dim_size", 0) {
        n @ 1.. => n,
        _ => 2 * (half - 1),
    };
    if !(1..=MOST).contains(&n) || n / 2 + 1 > half {
        return c.refuse(format!("a real axis of {n} from {half} numbers"));
    }
    let rows = n / 2 + 1;
    let need = |c: &mut Ctx<'_, '_>, v: Value| c.b.narrow(v, last, 0i64.into(), rows.into());
    let v = (need(c, v.0)?, need(c, v.1)?);
    let k = scale(c, n);
    // All but the ends stand for their mirror image too.
    let weight = |row: i64| if row == 0 || 2 * row == n { k } else { 2.0 * k };
    let (cos, sin) = tables(c, c.b.g.dtype(v.0), (rows, n, n), &weight)?;
    let (re, im) = (along(c, v.0, last, cos)?, along(c, v.1, last, sin)?);
    let v = match c.flag("forward", true) {
        true => c.b.add(re, im)?,
        false => c.b.sub(re, im)?,
    };
    c.put("Out|out", v);
    Ok(())
}

/// stft: of frames of the last axis, each times a window: `[…, frequencies, frames]`.
pub fn stft(c: &mut Ctx<'_, '_>) -> Res {
    let (x, window) = (c.tensor("X|x")?, c.tensor("Window|window")?);
    let (n, hop) = (c.int("n_fft", 1), c.int("hop_length", 1));
    if !(1..=MOST).contains(&n) || hop < 1 || c.rank(x) == 0 {
        return c.refuse("frames of such a length");
    }
    let last = c.last(x)?;
    let count = c.dim(x, last)?.plus(-n).div(&hop.into()).plus(1);
    let starts = super::lod::iota(c, &count)?;
    let starts = c.b.bin_scalar(BinaryOp::Mul, starts, hop as f64)?;
    let starts = c.b.unsqueeze(starts, 1)?;
    let i = super::lod::iota(c, &n.into())?;
    let place = c.b.add(starts, i)?;
    let v = c.b.prim(Prim::Gather { axis: last as u32 }, &[x, place])?;
    let window = c.b.cast(window, c.b.g.dtype(x))?;
    let v = c.b.mul(v, window)?;
    let columns = if c.flag("onesided", true) { n / 2 + 1 } else { n };
    let k = if c.flag("normalized", false) { 1.0 / (n as f64).sqrt() } else { 1.0 };
    let (cos, sin) = tables(c, c.b.g.dtype(x), (n, columns, n), &|_| k)?;
    let (re, im) = (c.b.matmul(v, cos)?, c.b.matmul(v, sin)?);
    let im = c.b.un(UnaryOp::Neg, im)?;
    // Frequencies before frames.
    let mut perm: Vec<usize> = (0..last + 2).collect();
    perm.swap(last, last + 1);
    let (re, im) = (c.b.transpose(re, &perm)?, c.b.transpose(im, &perm)?);
    let v = join(c, (re, im))?;
    c.put("Out|out", v);
    Ok(())
}
