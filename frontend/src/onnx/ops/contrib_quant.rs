//! com.microsoft: quantised operators that ONNX Runtime's quantiser writes.

use super::contrib::{MS, channels};
use super::pool::average_pool;
use super::quant::{along, dynamic_quantize, product, qlinear_conv};
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::activation::Activation;
use hub_ir::ops::norm::Softmax;
use hub_ir::ops::quant::{Dequantize, Quantize};

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "QLinearAdd", |c| pair(c, BinaryOp::Add)),
    op_of(MS, "QLinearMul", |c| pair(c, BinaryOp::Mul)),
    op_of(MS, "QLinearSigmoid", |c| single(c, |c, x| c.un(UnaryOp::Sigmoid, x))),
    op_of(MS, "QLinearLeakyRelu", |c| {
        single(c, |c, x| {
            let alpha = c.float("alpha", 0.01)?.into();
            c.source(Activation::LeakyRelu { alpha }, &[x])
        })
    }),
    op_of(MS, "QLinearSoftmax", |c| single(c, softmax)),
    op_of(MS, "QLinearReduceMean", |c| single(c, reduce_mean)),
    op_of(MS, "QLinearGlobalAveragePool", |c| single(c, global_average)),
    op_of(MS, "QLinearAveragePool", |c| single(c, averaged)),
    op_of(MS, "QLinearConcat", concat),
    op_of(MS, "QLinearWhere", select),
    op_of(MS, "QLinearConv", conv),
    op_of(MS, "QGemm", gemm),
    op_of(MS, "DynamicQuantizeMatMul", dynamic_matmul),
    op_of(MS, "MatMulIntegerToFloat", |c| {
        let (a, b) = (c.tensor(0)?, c.tensor(1)?);
        let (sa, sb) = (c.tensor(2)?, c.tensor(3)?);
        let y = scaled_product(c, [a, b], [sa, sb], [c.opt(4), c.opt(5)])?;
        biased(c, y, 6)
    }),
    op_of(MS, "MatMulInteger16", |c| {
        let (a, b) = (c.tensor(0)?, c.tensor(1)?);
        one(product(c, a, b)?)
    }),
];

/// Operand x at `at` with its scale and zero point behind it, as f32.
fn real(c: &mut Cx<'_, '_, '_>, at: usize) -> Got {
    let mut ins = vec![c.tensor(at)?, c.tensor(at + 1)?];
    ins.extend(c.opt(at + 2));
    c.source(Dequantize { axis: 0, block: None, to: Dtype::F32 }, &ins)
}

/// y by the scale and zero point at `at`; of the type of the zero point, or `like`'s.
fn quantised(c: &mut Cx<'_, '_, '_>, y: Value, at: usize, like: Value) -> Got {
    let to = c.opt(at + 1).map_or(c.dtype(like), |z| c.dtype(z));
    let mut ins = vec![y, c.tensor(at)?];
    ins.extend(c.opt(at + 1));
    c.source(Quantize { to, axis: 0, block: None, saturate: true }, &ins)
}

fn pair(c: &mut Cx<'_, '_, '_>, op: BinaryOp) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (a, b) = (real(c, 0)?, real(c, 3)?);
    let y = c.bin(op, a, b)?;
    one(quantised(c, y, 6, x)?)
}

/// `(x, scale, zero?, y_scale, y_zero?)`.
fn single(
    c: &mut Cx<'_, '_, '_>,
    f: impl FnOnce(&mut Cx<'_, '_, '_>, Value) -> Got,
) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let t = real(c, 0)?;
    let y = f(c, t)?;
    one(quantised(c, y, 3, x)?)
}

/// From version 13 of ONNX's operator (attribute `opset`) over one axis, before over all behind it.
fn softmax(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let dims = c.dims(x);
    let axis = c.axis(c.int("axis", -1)?, dims.len())?;
    if c.int("opset", 13)? >= 13 {
        return c.source(Softmax { axis, log: false }, &[x]);
    }
    let flat = vec![Dim::product(&dims[..axis]), Dim::product(&dims[axis..])];
    let y = c.reshape(x, flat)?;
    let y = c.source(Softmax { axis: 1, log: false }, &[y])?;
    c.reshape(y, dims)
}

fn reduce_mean(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let rank = c.rank(x);
    let axes = match c.ints("axes")? {
        Some(a) if !a.is_empty() => c.axes(&a, rank)?,
        _ => (0..rank).collect(),
    };
    c.reduce(ReduceOp::Mean, x, &axes, c.flag("keepdims", true)?)
}

fn global_average(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let rank = c.at_least(x, 2)?.len();
    let last = c.flag("channels_last", false)?;
    let axes: Vec<usize> = if last { (1..rank - 1).collect() } else { (2..rank).collect() };
    c.reduce(ReduceOp::Mean, x, &axes, true)
}

fn averaged(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let last = c.flag("channels_last", false)?;
    c.ins[0] = if last { channels(c, x, true)? } else { x };
    let y = average_pool(c)?[0];
    if last { channels(c, y, false) } else { Ok(y) }
}

/// `(y_scale, y_zero, (x, scale, zero)…)`.
fn concat(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let n = c.ins.len().saturating_sub(2) / 3;
    let parts = (0..n).map(|i| real(c, 2 + 3 * i)).collect::<Got<Vec<_>>>()?;
    let Some(&first) = parts.first() else { return invalid("nothing to join") };
    let axis = c.axis(c.int("axis", 0)?, c.rank(first))?;
    let y = c.b.concat(&parts, axis)?;
    let like = c.tensor(2)?;
    one(quantised(c, y, 0, like)?)
}

fn select(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (cond, like) = (c.tensor(0)?, c.tensor(1)?);
    let (a, b) = (real(c, 1)?, real(c, 4)?);
    let y = c.b.select(cond, a, b)?;
    one(quantised(c, y, 7, like)?)
}

fn conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    if !c.flag("channels_last", false)? {
        return qlinear_conv(c);
    }
    let x = c.tensor(0)?;
    c.ins[0] = channels(c, x, true)?;
    let y = qlinear_conv(c)?[0];
    one(channels(c, y, false)?)
}

/// x less its zero point, along rows or columns of a matrix.
fn shifted(c: &mut Cx<'_, '_, '_>, x: Value, zero: Option<Value>, rows: bool) -> Got {
    let Some(z) = zero else { return Ok(x) };
    if c.known_ints(z).is_some_and(|z| z.iter().all(|&z| z == 0)) {
        return Ok(x);
    }
    let (x, z) = (c.cast(x, Dtype::I32)?, c.cast(z, Dtype::I32)?);
    let z = along(c, z, rows)?;
    c.bin(BinaryOp::Sub, x, z)
}

/// `(a - za)(b - zb) * sa * sb` in f32, exact in integers.
fn scaled_product(
    c: &mut Cx<'_, '_, '_>,
    [a, b]: [Value; 2],
    [sa, sb]: [Value; 2],
    [za, zb]: [Option<Value>; 2],
) -> Got {
    let (a, b) = (shifted(c, a, za, true)?, shifted(c, b, zb, false)?);
    let y = product(c, a, b)?;
    let y = c.cast(y, Dtype::F32)?;
    let (sa, sb) = (c.cast(sa, Dtype::F32)?, c.cast(sb, Dtype::F32)?);
    let (sa, sb) = (along(c, sa, true)?, along(c, sb, false)?);
    let s = c.bin(BinaryOp::Mul, sa, sb)?;
    c.bin(BinaryOp::Mul, y, s)
}

pub(super) fn biased(c: &mut Cx<'_, '_, '_>, y: Value, at: usize) -> Got<Vec<Value>> {
    match c.opt(at) {
        Some(bias) => one(c.bin(BinaryOp::Add, y, bias)?),
        None => one(y),
    }
}

/// `alpha * op(a) op(b) + c`, the bias counting in the product's units; quantised if y has a scale.
fn gemm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut ab = [c.tensor(0)?, c.tensor(3)?];
    for (v, name) in ab.iter_mut().zip(["transA", "transB"]) {
        if c.rank(*v) != 2 {
            return invalid("both operands must be matrices");
        }
        if c.flag(name, false)? {
            *v = c.b.transpose(*v, &[1, 0])?;
        }
    }
    let a = shifted(c, ab[0], c.opt(2), true)?;
    let b = shifted(c, ab[1], c.opt(5), false)?;
    let mut acc = product(c, a, b)?;
    if let Some(bias) = c.opt(6) {
        acc = c.bin(BinaryOp::Add, acc, bias)?;
    }
    let (sa, sb) = (c.tensor(1)?, c.tensor(4)?);
    let (sa, sb) = (along(c, sa, true)?, along(c, sb, false)?);
    let s = c.bin(BinaryOp::Mul, sa, sb)?;
    let s = c.bin_scalar(BinaryOp::Mul, s, c.float("alpha", 1.0)?.into())?;
    let y = c.cast(acc, Dtype::F32)?;
    let y = c.bin(BinaryOp::Mul, y, s)?;
    let like = c.tensor(0)?;
    match c.opt(7) {
        Some(_) => one(quantised(c, y, 7, like)?),
        None => one(y),
    }
}

/// `(a, b, b_scale, b_zero?, bias?)`: a is quantised to u8 over its range.
fn dynamic_matmul(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let q = dynamic_quantize(c)?;
    let (b, sb) = (c.tensor(1)?, c.tensor(2)?);
    let y = scaled_product(c, [q[0], b], [q[1], sb], [Some(q[2]), c.opt(3)])?;
    biased(c, y, 4)
}
