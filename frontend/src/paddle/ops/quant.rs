//! Simulated and stored quantisation, as PaddleSlim writes it. A scale is the greatest magnitude;
//! `2^(bits-1) - 1` steps lie between it and zero.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, ReduceOp, UnaryOp, Value};

/// What only training reads, and zero points, which Paddle leaves alone: its grids are symmetric.
fn without_training(c: &Ctx<'_, '_>) {
    for slot in ["InAccum", "InState", "Iter", "ZeroPoint"] {
        c.ignore(slot);
    }
}

/// Steps between zero and the greatest magnitude.
fn steps(c: &Ctx<'_, '_>) -> Res<f64> {
    match c.int("bit_length", 8) {
        bits @ 2..=16 => Ok(((1i64 << (bits - 1)) - 1) as f64),
        bits => c.refuse(format!("{bits} bits")),
    }
}

/// x in steps of its scale. `round_type` 0 takes halves to even and has one step more below zero,
/// 1 takes x between minus and plus its scale and halves away from zero.
fn stepped(c: &mut Ctx<'_, '_>, x: Value, scale: Value, n: f64, default: i64) -> Res<Value> {
    let even = c.int("round_type", default) == 0;
    let mut v = x;
    if !even {
        let low = c.b.un(UnaryOp::Neg, scale)?;
        v = c.b.max(v, low)?;
        v = c.b.min(v, scale)?;
    }
    let v = c.b.bin_scalar(BinaryOp::Mul, v, n)?;
    let v = c.b.div(v, scale)?;
    if even {
        let v = c.b.un(UnaryOp::Round, v)?;
        let v = c.b.bin_scalar(BinaryOp::Max, v, -n - 1.0)?;
        return Ok(c.b.bin_scalar(BinaryOp::Min, v, n)?);
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

/// fake_quantize_*: x in steps; fake_quantize_dequantize_*: x on the grid of its steps.
pub fn fake_quantize(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let n = steps(c)?;
    without_training(c);
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
    let mut v = stepped(c, x, scale, n, 1)?;
    if c.op.kind.contains("dequantize") {
        v = c.b.mul(v, scale)?;
        v = c.b.bin_scalar(BinaryOp::Div, v, n)?;
    }
    c.put("Out", v);
    let count = c.b.g.tensor(scale).count();
    let scale = c.b.reshape(scale, vec![count])?;
    c.put("OutScale", scale);
    Ok(())
}

/// fake_dequantize_max_abs, dequantize_abs_max: `x * scale / max_range`.
pub fn dequantize_max(c: &mut Ctx<'_, '_>) -> Res {
    let (x, scale) = (c.tensor("X")?, c.tensor("Scale")?);
    let x = c.b.cast(x, c.b.g.dtype(scale))?;
    let scale = c.b.reshape(scale, vec![])?;
    let v = c.b.mul(x, scale)?;
    let v = c.b.bin_scalar(BinaryOp::Div, v, c.float("max_range", 127.0))?;
    c.put("Out", v);
    Ok(())
}

/// fake_channel_wise_dequantize_max_abs: by one scale a channel, and perhaps one of all.
pub fn dequantize_channels(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let bits = c.ints("quant_bits").unwrap_or(vec![8]);
    let scales = c.all("Scales")?;
    let at = match scales.len() {
        1 => c.int("quant_axis", 0),
        _ => c.int("x_num_col_dims", 1),
    };
    let mut v = x;
    for (k, &scale) in scales.iter().enumerate() {
        let bits = bits.get(k).copied().unwrap_or(8).clamp(2, 32);
        let count = c.b.g.tensor(scale).count();
        let mut shape = vec![Dim::from(1i64); c.rank(x)];
        if k == 0 {
            shape[axis_of(at, c.rank(x))?] = count;
        }
        let scale = c.b.reshape(scale, shape)?;
        v = c.b.mul(v, scale)?;
        v = c.b.bin_scalar(BinaryOp::Div, v, ((1i64 << (bits - 1)) - 1) as f64)?;
    }
    c.put("Out", v);
    Ok(())
}

/// dequantize_log: magnitudes by a table, the sign of 8-bit integers apart.
pub fn dequantize_log(c: &mut Ctx<'_, '_>) -> Res {
    let (x, table) = (c.tensor("X")?, c.tensor("Dict")?);
    let x = c.b.cast(x, Dtype::I64)?;
    let negative = c.b.bin_scalar(BinaryOp::Lt, x, 0.0)?;
    let moved = c.b.bin_scalar(BinaryOp::Add, x, 128.0)?;
    let at = c.b.select(negative, moved, x)?;
    let v = super::lod::at(c, table, at)?;
    let minus = c.b.un(UnaryOp::Neg, v)?;
    let v = c.b.select(negative, minus, v)?;
    c.put("Out", v);
    Ok(())
}

/// quantize_linear: steps, in x's element type.
pub fn quantize(c: &mut Ctx<'_, '_>) -> Res {
    let (x, scale) = (c.tensor("X")?, c.tensor("Scale")?);
    without_training(c);
    let n = steps(c)?;
    let scale = aligned(c, scale, x)?;
    let v = stepped(c, x, scale, n, 0)?;
    c.put("Y", v);
    Ok(())
}

/// dequantize_linear: `x * scale / steps`.
pub fn dequantize(c: &mut Ctx<'_, '_>) -> Res {
    let (x, scale) = (c.tensor("X")?, c.tensor("Scale")?);
    without_training(c);
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
    without_training(c);
    let x = c.get("X")?;
    c.put("Out", x);
    Ok(())
}
