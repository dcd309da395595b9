//! Simulated and stored quantisation, as PaddleSlim writes it. A scale is the greatest magnitude;
//! `2^(bits-1) - 1` steps lie between it and zero.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, ReduceOp, UnaryOp, Value};

/// Steps between zero and the greatest magnitude.
fn steps(c: &Ctx<'_, '_>) -> Res<f64> {
    match c.int("bit_length", 8) {
        bits @ 2..=16 => Ok(((1i64 << (bits - 1)) - 1) as f64),
        bits => c.refuse(format!("{bits} bits")),
    }
}

/// Rounded: `round_type` 0 takes halves to even, 1 away from zero.
fn rounded(c: &mut Ctx<'_, '_>, v: Value, default: i64) -> Res<Value> {
    if c.int("round_type", default) == 0 {
        return Ok(c.b.un(UnaryOp::Round, v)?);
    }
    let (sign, a) = (c.b.un(UnaryOp::Sign, v)?, c.b.un(UnaryOp::Abs, v)?);
    let a = c.b.bin_scalar(BinaryOp::Add, a, 0.5)?;
    let a = c.b.un(UnaryOp::Floor, a)?;
    Ok(c.b.mul(sign, a)?)
}

/// A scale, one or one a channel, that broadcasts against x.
fn aligned(c: &mut Ctx<'_, '_>, scale: Value, x: Value) -> Res<Value> {
    let count = c.b.g.tensor(scale).count();
    if count.is(1) {
        return Ok(c.b.reshape(scale, vec![])?);
    }
    let mut shape = vec![Dim::from(1i64); c.rank(x)];
    let at = axis_of(c.int("quant_axis", 0).max(0), shape.len())?;
    shape[at] = count;
    Ok(c.b.reshape(scale, shape)?)
}

/// fake_quantize_dequantize_*: x on the grid of its quantised values.
pub fn fake_quantize(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let n = steps(c)?;
    let scale = match c.opt("InScale") {
        Some(s) => aligned(c, s, x)?,
        None => {
            // The greatest magnitude of x itself, or of each channel.
            let a = c.b.un(UnaryOp::Abs, x)?;
            let rank = c.rank(x);
            let channel = c.op.kind.contains("channel_wise");
            let keep = if channel { Some(axis_of(c.int("quant_axis", 0), rank)?) } else { None };
            let axes: Vec<usize> = (0..rank).filter(|&i| Some(i) != keep).collect();
            c.b.reduce(ReduceOp::Max, a, &axes, true)?
        }
    };
    let low = c.b.un(UnaryOp::Neg, scale)?;
    let v = c.b.max(x, low)?;
    let v = c.b.min(v, scale)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, v, n)?;
    let v = c.b.div(v, scale)?;
    let v = rounded(c, v, 1)?;
    let v = c.b.mul(v, scale)?;
    let v = c.b.bin_scalar(BinaryOp::Div, v, n)?;
    c.put("Out", v);
    Ok(())
}

/// quantize_linear: steps, in x's element type.
pub fn quantize(c: &mut Ctx<'_, '_>) -> Res {
    let (x, scale) = (c.tensor("X")?, c.tensor("Scale")?);
    let n = steps(c)?;
    let scale = aligned(c, scale, x)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, x, n)?;
    let v = c.b.div(v, scale)?;
    let v = rounded(c, v, 0)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, -n - 1.0)?;
    let v = c.b.bin_scalar(BinaryOp::Min, v, n)?;
    c.put("Y", v);
    Ok(())
}

/// dequantize_linear: `x * scale / steps`.
pub fn dequantize(c: &mut Ctx<'_, '_>) -> Res {
    let (x, scale) = (c.tensor("X")?, c.tensor("Scale")?);
    let n = steps(c)?;
    let to = c.b.g.dtype(scale);
    let x = c.b.cast(x, if to.is_float() { to } else { Dtype::F32 })?;
    let scale = aligned(c, scale, x)?;
    let v = c.b.mul(x, scale)?;
    let v = c.b.bin_scalar(BinaryOp::Div, v, n)?;
    c.put("Y", v);
    Ok(())
}

/// moving_average_abs_max_scale: x, observed.
pub fn observed(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.get("X")?;
    c.put("Out", x);
    Ok(())
}
