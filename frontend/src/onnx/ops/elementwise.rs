//! Elementwise operators, casts and selection.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use crate::onnx::tensor::dtype;
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Distribution, Prim, UnaryOp};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("Neg", 1, |c| unary(c, UnaryOp::Neg)),
    op("Abs", 1, |c| unary(c, UnaryOp::Abs)),
    op("Sign", 9, |c| unary(c, UnaryOp::Sign)),
    op("Floor", 1, |c| unary(c, UnaryOp::Floor)),
    op("Ceil", 1, |c| unary(c, UnaryOp::Ceil)),
    op("Round", 11, |c| unary(c, UnaryOp::Round)),
    op("Sqrt", 1, |c| unary(c, UnaryOp::Sqrt)),
    op("Reciprocal", 1, |c| unary(c, UnaryOp::Recip)),
    op("Exp", 1, |c| unary(c, UnaryOp::Exp)),
    op("Log", 1, |c| unary(c, UnaryOp::Log)),
    op("Sin", 7, |c| unary(c, UnaryOp::Sin)),
    op("Cos", 7, |c| unary(c, UnaryOp::Cos)),
    op("Tan", 7, |c| unary(c, UnaryOp::Tan)),
    op("Asin", 7, |c| unary(c, UnaryOp::Asin)),
    op("Acos", 7, |c| unary(c, UnaryOp::Acos)),
    op("Atan", 7, |c| unary(c, UnaryOp::Atan)),
    op("Sinh", 9, |c| unary(c, UnaryOp::Sinh)),
    op("Cosh", 9, |c| unary(c, UnaryOp::Cosh)),
    op("Tanh", 1, |c| unary(c, UnaryOp::Tanh)),
    op("Asinh", 9, |c| unary(c, UnaryOp::Asinh)),
    op("Acosh", 9, |c| unary(c, UnaryOp::Acosh)),
    op("Atanh", 9, |c| unary(c, UnaryOp::Atanh)),
    op("Erf", 9, |c| unary(c, UnaryOp::Erf)),
    op("Sigmoid", 1, |c| unary(c, UnaryOp::Sigmoid)),
    op("Not", 1, |c| unary(c, UnaryOp::Not)),
    op("BitwiseNot", 18, |c| unary(c, UnaryOp::BitNot)),
    op("IsNaN", 9, |c| unary(c, UnaryOp::IsNan)),
    op("IsInf", 10, is_inf),
    op("Identity", 1, |c| one(c.input(0)?)),
    op("BitCast", 26, bit_cast),
    op("Add", 1, |c| binary(c, BinaryOp::Add)),
    op("Sub", 1, |c| binary(c, BinaryOp::Sub)),
    op("Mul", 1, |c| binary(c, BinaryOp::Mul)),
    op("Div", 1, |c| binary(c, BinaryOp::Div)),
    op("And", 1, |c| binary(c, BinaryOp::And)),
    op("Or", 1, |c| binary(c, BinaryOp::Or)),
    op("Xor", 1, |c| binary(c, BinaryOp::Xor)),
    op("BitwiseAnd", 18, |c| binary(c, BinaryOp::BitAnd)),
    op("BitwiseOr", 18, |c| binary(c, BinaryOp::BitOr)),
    op("BitwiseXor", 18, |c| binary(c, BinaryOp::BitXor)),
    op("BitShift", 11, bit_shift),
    op("Equal", 1, |c| binary(c, BinaryOp::Eq)),
    op("Less", 1, |c| binary(c, BinaryOp::Lt)),
    op("LessOrEqual", 12, |c| binary(c, BinaryOp::Le)),
    op("Greater", 1, |c| binary(c, BinaryOp::Gt)),
    op("GreaterOrEqual", 12, |c| binary(c, BinaryOp::Ge)),
    op("Mod", 10, |c| {
        let rem = c.flag("fmod", false)?;
        binary(c, if rem { BinaryOp::Rem } else { BinaryOp::Mod })
    }),
    op("Pow", 1, pow),
    op("Max", 1, |c| variadic(c, BinaryOp::Max)),
    op("Min", 1, |c| variadic(c, BinaryOp::Min)),
    op("Sum", 1, |c| variadic(c, BinaryOp::Add)),
    op("Mean", 1, mean),
    op("Where", 9, |c| {
        let (cond, a, b) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
        one(c.b.select(cond, a, b)?)
    }),
    op("Cast", 1, cast),
    op("CastLike", 15, |c| {
        let to = c.tensor(1)?;
        let to = c.dtype(to);
        cast_to(c, to)
    }),
    op("Dropout", 1, dropout),
];

pub(super) fn unary(c: &mut Cx<'_, '_, '_>, op: UnaryOp) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    one(c.un(op, x)?)
}

fn binary(c: &mut Cx<'_, '_, '_>, op: BinaryOp) -> Got<Vec<Value>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let b = old_broadcast(c, a, b)?;
    one(c.bin(op, a, b)?)
}

/// Before version 7 the second operand's axes start at attribute `axis` of the first's.
fn old_broadcast(c: &mut Cx<'_, '_, '_>, a: Value, b: Value) -> Got {
    if c.version >= 7 || !c.has("axis") || !c.flag("broadcast", false)? {
        return Ok(b);
    }
    let (ra, rb) = (c.rank(a), c.rank(b));
    let at = c.int("axis", 0)?;
    let at = if at < 0 { at + ra as i64 } else { at };
    if at < 0 || at as usize + rb > ra {
        return invalid(format!("axis {at} does not fit ranks {ra} and {rb}"));
    }
    let mut dims = c.dims(b);
    dims.resize(ra - at as usize, 1i64.into());
    c.reshape(b, dims)
}

fn is_inf(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (neg, pos) = (c.flag("detect_negative", true)?, c.flag("detect_positive", true)?);
    let inf = c.un(UnaryOp::IsInf, x)?;
    if neg && pos {
        return one(inf);
    }
    let side = match (neg, pos) {
        (true, _) => c.bin_scalar(BinaryOp::Lt, x, 0.0)?,
        (_, true) => c.bin_scalar(BinaryOp::Gt, x, 0.0)?,
        _ => c.scalar(Dtype::Bool, 0.0),
    };
    one(c.bin(BinaryOp::And, inf, side)?)
}

fn bit_shift(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    match &*c.string("direction", "")? {
        "LEFT" => binary(c, BinaryOp::Shl),
        "RIGHT" => binary(c, BinaryOp::Shr),
        d => invalid(format!("direction '{d}'")),
    }
}

/// The exponent may have another dtype; the result has the base's.
fn pow(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, e) = (c.tensor(0)?, c.tensor(1)?);
    let e = old_broadcast(c, x, e)?;
    let (to, from) = (c.dtype(x), c.dtype(e));
    if to.is_int() && from.is_float() {
        let x = c.cast(x, from)?;
        let y = c.bin(BinaryOp::Pow, x, e)?;
        return one(c.cast(y, to)?);
    }
    let e = c.cast(e, to)?;
    one(c.bin(BinaryOp::Pow, x, e)?)
}

fn variadic(c: &mut Cx<'_, '_, '_>, op: BinaryOp) -> Got<Vec<Value>> {
    let mut y = c.tensor(0)?;
    for i in 1..c.ins.len() {
        let x = c.tensor(i)?;
        y = c.bin(op, y, x)?;
    }
    one(y)
}

fn mean(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let n = c.ins.len();
    let sum = variadic(c, BinaryOp::Add)?[0];
    one(c.bin_scalar(BinaryOp::Div, sum, n as f64)?)
}

fn cast(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    // Version 1 names the type.
    let to = match c.any_attr("to") {
        Some(a) if !a.s().is_empty() => match a.s() {
            b"FLOAT" => Dtype::F32,
            b"DOUBLE" => Dtype::F64,
            b"FLOAT16" => Dtype::F16,
            b"INT64" => Dtype::I64,
            b"INT32" => Dtype::I32,
            b"BOOL" => Dtype::Bool,
            b"UINT8" => Dtype::U8,
            b"INT8" => Dtype::I8,
            b"UINT16" => Dtype::U16,
            b"INT16" => Dtype::I16,
            b"UINT32" => Dtype::U32,
            b"UINT64" => Dtype::U64,
            b"STRING" => Dtype::Str,
            other => return unsupported(format!("to {}", String::from_utf8_lossy(other))),
        },
        Some(a) => dtype(a.i() as i32)?,
        None => return invalid("attribute 'to' is missing"),
    };
    cast_to(c, to)
}

fn cast_to(c: &mut Cx<'_, '_, '_>, to: Dtype) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    if c.dtype(x) == to {
        return one(x);
    }
    let saturate = c.flag("saturate", true)?;
    let x = match to {
        Dtype::F8E8M0 => power_of_two(c, x)?,
        _ => x,
    };
    one(c.prim(Prim::Cast { to, saturate }, &[x])?)
}

/// x as f32, rounded to a power of two as `round_mode` says (`up` is what the cast itself does).
fn power_of_two(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    const HALF: f64 = (1 << 22) as f64;
    const EXPONENT: f64 = 0x7F80_0000 as f64;
    let mode = c.string("round_mode", "up")?;
    if mode == "up" {
        return Ok(x);
    }
    let x = c.cast(x, Dtype::F32)?;
    let mut bits = c.prim(Prim::Bitcast { to: Dtype::I32 }, &[x])?;
    match &*mode {
        "down" => {}
        "nearest" => bits = c.bin_scalar(BinaryOp::Add, bits, HALF)?,
        other => return invalid(format!("round_mode '{other}'")),
    }
    let bits = c.bin_scalar(BinaryOp::BitAnd, bits, EXPONENT)?;
    let y = c.prim(Prim::Bitcast { to: Dtype::F32 }, &[bits])?;
    let nan = c.un(UnaryOp::IsNan, x)?;
    Ok(c.b.select(nan, x, y)?)
}

/// The same bits as another type of as many bits.
fn bit_cast(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, to) = (c.tensor(0)?, dtype(c.int("to", 0)? as i32)?);
    let from = c.dtype(x);
    if from.packed_bits() != to.packed_bits() {
        return invalid(format!("{from} and {to} differ in bits"));
    }
    match to.packed_bits() {
        // One value a byte: signed ones are extended, others are not.
        Some(bits) => {
            let x = c.prim(Prim::Bitcast { to: Dtype::U8 }, &[x])?;
            let x = c.bin_scalar(BinaryOp::BitAnd, x, f64::from((1u32 << bits) - 1))?;
            if to.is_int() {
                return one(c.cast(x, to)?);
            }
            one(c.prim(Prim::Bitcast { to }, &[x])?)
        }
        None => one(c.prim(Prim::Bitcast { to }, &[x])?),
    }
}

/// `x * mask / (1 - ratio)` with a random mask; for `mode` false, x and a mask of ones.
fn dropout_training(c: &mut Cx<'_, '_, '_>, x: Value, mode: Option<Value>) -> Got<Vec<Value>> {
    let (shape, dtype) = (c.dims(x), c.dtype(x));
    let ratio = match c.opt(1) {
        Some(r) => {
            let r = c.reshape(r, vec![])?;
            c.cast(r, Dtype::F32)?
        }
        None => c.scalar(Dtype::F32, 0.5),
    };
    let seed = super::random::seed(c)?;
    let dist = Distribution::Uniform { lo: 0.0, hi: 1.0 };
    let u = c.prim(Prim::Random { dist, dtype: Dtype::F32, shape, seed }, &[])?;
    let mut mask = c.bin(BinaryOp::Ge, u, ratio)?;
    let rest = c.un(UnaryOp::Neg, ratio)?;
    let rest = c.bin_scalar(BinaryOp::Add, rest, 1.0)?;
    let zero = c.scalar(dtype, 0.0);
    let rest = c.cast(rest, dtype)?;
    let kept = c.bin(BinaryOp::Div, x, rest)?;
    let mut y = c.b.select(mask, kept, zero)?;
    if let Some(mode) = mode {
        let mode = c.reshape(mode, vec![])?;
        let off = c.un(UnaryOp::Not, mode)?;
        mask = c.bin(BinaryOp::Or, mask, off)?;
        y = c.b.select(mode, y, x)?;
    }
    Ok(vec![y, mask])
}

/// The identity at inference; a mask is all true.
fn dropout(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let training = match c.opt(2) {
        Some(t) => c.known_ints(t).is_none_or(|t| t != [0]),
        None => c.version < 7 && c.has("is_test") && !c.flag("is_test", false)?,
    };
    let ratio = match c.opt(1) {
        Some(r) => c.known_float(r),
        None => Some(0.5),
    };
    if training && ratio != Some(0.0) {
        let mode = c.opt(2).filter(|&m| c.known_ints(m).is_none());
        return dropout_training(c, x, mode);
    }
    let mut outs = vec![x];
    if c.wants(1) {
        let dtype = if c.version >= 10 { Dtype::Bool } else { c.dtype(x) };
        let yes = c.scalar(dtype, 1.0);
        let shape = c.dims(x);
        outs.push(c.b.broadcast(yes, shape)?);
    }
    Ok(outs)
}
