//! Quantised operators.

use super::nn::conv_geometry;
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op, op_of};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::quant::{Dequantize, Quantize};

pub(crate) const OPS: &[Row] = &[
    op("QuantizeLinear", 10, quantize),
    op("DequantizeLinear", 10, dequantize),
    op_of("com.microsoft", "QuantizeLinear", quantize),
    op_of("com.microsoft", "DequantizeLinear", dequantize),
    op("DynamicQuantizeLinear", 11, dynamic_quantize),
    op("MatMulInteger", 10, |c| {
        let a = shifted(c, 0, 2, true)?;
        let b = shifted(c, 1, 3, false)?;
        one(product(c, a, b)?)
    }),
    op("QLinearMatMul", 10, qlinear_matmul),
    op("ConvInteger", 10, |c| {
        let y = conv_integer(c, [0, 1], [2, 3])?;
        one(y)
    }),
    op("QLinearConv", 10, qlinear_conv),
];

/// The axis, which does not matter (and may be out of range) where the scale is one number.
fn axis(c: &Cx<'_, '_, '_>, x: Value, scale: Value) -> Got<usize> {
    let at = c.int("axis", 1)?;
    if Dim::product(&c.dims(scale)).is(1) {
        return Ok(0);
    }
    c.axis(at, c.rank(x))
}

fn block(c: &Cx<'_, '_, '_>) -> Got<Option<i64>> {
    match c.int("block_size", 0)? {
        0 => Ok(None),
        n if n > 0 => Ok(Some(n)),
        n => invalid(format!("block_size {n}")),
    }
}

fn quantize(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut ins = vec![c.tensor(0)?, c.tensor(1)?];
    let to = match (c.opt(2), c.int("output_dtype", 0)?) {
        (Some(z), _) => c.dtype(z),
        (None, 0) => Dtype::U8,
        (None, n) => tensor::dtype(n as i32)?,
    };
    ins.extend(c.opt(2));
    let saturate = c.flag("saturate", true)?;
    let op = Quantize { to, axis: axis(c, ins[0], ins[1])?, block: block(c)?, saturate };
    one(c.source(op, &ins)?)
}

fn dequantize(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut ins = vec![c.tensor(0)?, c.tensor(1)?];
    ins.extend(c.opt(2));
    let to = match c.int("output_dtype", 0)? {
        0 => c.dtype(ins[1]),
        n => tensor::dtype(n as i32)?,
    };
    let op = Dequantize { axis: axis(c, ins[0], ins[1])?, block: block(c)?, to };
    one(c.source(op, &ins)?)
}

/// To u8 over the range of x (and 0): y, scale, zero point.
pub(super) fn dynamic_quantize(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let hi = c.reduce(ReduceOp::Max, x, &axes, false)?;
    let hi = c.bin_scalar(BinaryOp::Max, hi, 0.0)?;
    let lo = c.reduce(ReduceOp::Min, x, &axes, false)?;
    let lo = c.bin_scalar(BinaryOp::Min, lo, 0.0)?;
    let span = c.bin(BinaryOp::Sub, hi, lo)?;
    let scale = c.bin_scalar(BinaryOp::Div, span, 255.0)?;
    let zero = c.bin(BinaryOp::Div, lo, scale)?;
    let zero = c.un(UnaryOp::Neg, zero)?;
    let zero = c.un(UnaryOp::Round, zero)?;
    let zero = c.bin_scalar(BinaryOp::Max, zero, 0.0)?;
    let zero = c.bin_scalar(BinaryOp::Min, zero, 255.0)?;
    let zero = c.cast(zero, Dtype::U8)?;
    let op = Quantize { to: Dtype::U8, axis: 0, block: None, saturate: true };
    let y = c.source(op, &[x, scale, zero])?;
    Ok(vec![y, scale, zero])
}

/// A zero point or scale as a column (of rows) or a row (of columns) of a matrix.
pub(super) fn along(c: &mut Cx<'_, '_, '_>, v: Value, rows: bool) -> Got {
    match c.rank(v) {
        _ if Dim::product(&c.dims(v)).is(1) => c.reshape(v, vec![]),
        1 if rows => Ok(c.b.unsqueeze(v, 1)?),
        _ => Ok(v),
    }
}

/// Operand `x` less its zero point as i32; the operand itself where that is 0.
fn shifted(c: &mut Cx<'_, '_, '_>, x: usize, zero: usize, rows: bool) -> Got {
    let x = c.tensor(x)?;
    let Some(z) = c.opt(zero) else { return Ok(x) };
    if c.known_ints(z).is_some_and(|z| z.iter().all(|&z| z == 0)) {
        return Ok(x);
    }
    let (x, z) = (c.cast(x, Dtype::I32)?, c.cast(z, Dtype::I32)?);
    let z = along(c, z, rows)?;
    c.bin(BinaryOp::Sub, x, z)
}

/// An i32 product; both operands of 8 bits, or both widened.
pub(super) fn product(c: &mut Cx<'_, '_, '_>, a: Value, b: Value) -> Got {
    let narrow = |d: Dtype| matches!(d, Dtype::I8 | Dtype::U8);
    let (mut a, mut b) = (a, b);
    if !(narrow(c.dtype(a)) && narrow(c.dtype(b))) {
        (a, b) = (c.cast(a, Dtype::I32)?, c.cast(b, Dtype::I32)?);
    }
    c.source(MatMul { trans_a: false, trans_b: false }, &[a, b])
}

/// `clamp(round(acc * factor) + zero)` in the zero point's type.
fn requantize(c: &mut Cx<'_, '_, '_>, acc: Value, factor: Value, zero: Value) -> Got {
    let to = c.dtype(zero);
    let acc = c.cast(acc, Dtype::F32)?;
    let y = c.bin(BinaryOp::Mul, acc, factor)?;
    let unit = c.scalar(Dtype::F32, 1.0);
    let op = Quantize { to, axis: 0, block: None, saturate: true };
    c.source(op, &[y, unit, zero])
}

pub(super) fn qlinear_matmul(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let a = shifted(c, 0, 2, true)?;
    let b = shifted(c, 3, 5, false)?;
    let acc = product(c, a, b)?;
    let (sa, sb, sy) = (c.tensor(1)?, c.tensor(4)?, c.tensor(6)?);
    let (sa, sb) = (c.cast(sa, Dtype::F32)?, c.cast(sb, Dtype::F32)?);
    let (sa, sb) = (along(c, sa, true)?, along(c, sb, false)?);
    let sy = c.cast(sy, Dtype::F32)?;
    let f = c.bin(BinaryOp::Mul, sa, sb)?;
    let f = c.bin(BinaryOp::Div, f, sy)?;
    let zero = c.tensor(7)?;
    one(requantize(c, acc, f, zero)?)
}

/// An i32 convolution of 8-bit operands at `at` with zero points at `zeros`.
fn conv_integer(c: &mut Cx<'_, '_, '_>, at: [usize; 2], zeros: [usize; 2]) -> Got {
    let (geo, groups) = conv_geometry(c, at)?;
    let x = shifted(c, at[0], zeros[0], false)?;
    let w = c.tensor(at[1])?;
    let w = match c.opt(zeros[1]) {
        Some(z) if c.known_ints(z).is_none_or(|z| z.iter().any(|&z| z != 0)) => {
            let (w, z) = (c.cast(w, Dtype::I32)?, c.cast(z, Dtype::I32)?);
            let z = per_filter(c, z, c.rank(w))?;
            c.bin(BinaryOp::Sub, w, z)?
        }
        _ => w,
    };
    let narrow = |d: Dtype| matches!(d, Dtype::I8 | Dtype::U8);
    let (mut x, mut w) = (x, w);
    if !(narrow(c.dtype(x)) && narrow(c.dtype(w))) {
        (x, w) = (c.cast(x, Dtype::I32)?, c.cast(w, Dtype::I32)?);
    }
    c.prim(Prim::Conv { geo, groups }, &[x, w])
}

/// A vector along the first of `rank` axes; one number as a scalar.
pub(super) fn per_filter(c: &mut Cx<'_, '_, '_>, v: Value, rank: usize) -> Got {
    let n = Dim::product(&c.dims(v));
    if n.is(1) {
        return c.reshape(v, vec![]);
    }
    let mut shape = vec![Dim::from(1i64); rank];
    shape[0] = n;
    c.reshape(v, shape)
}

pub(super) fn qlinear_conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut acc = conv_integer(c, [0, 3], [2, 5])?;
    // Channels are the second axis of the output.
    let rank = c.rank(acc) - 1;
    if let Some(bias) = c.opt(8) {
        let bias = per_filter(c, bias, rank)?;
        acc = c.bin(BinaryOp::Add, acc, bias)?;
    }
    let (sx, sw, sy) = (c.tensor(1)?, c.tensor(4)?, c.tensor(6)?);
    let sx = c.reshape(sx, vec![])?;
    let sy = c.reshape(sy, vec![])?;
    let sw = per_filter(c, sw, rank)?;
    let f = c.bin(BinaryOp::Mul, sx, sw)?;
    let f = c.bin(BinaryOp::Div, f, sy)?;
    let zero = c.tensor(7)?;
    one(requantize(c, acc, f, zero)?)
}
