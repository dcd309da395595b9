//! Activation functions.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op, op_of};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, UnaryOp};
use hub_ir::Value;
use hub_ir::ops::activation::Activation;

pub(crate) const OPS: &[Row] = &[
    op("Relu", 1, |c| act(c, Activation::Relu)),
    op("LeakyRelu", 1, |c| {
        let alpha = c.float("alpha", 0.01)?.into();
        act(c, Activation::LeakyRelu { alpha })
    }),
    op("Elu", 1, |c| {
        let alpha = c.float("alpha", 1.0)?.into();
        act(c, Activation::Elu { alpha })
    }),
    op("HardSigmoid", 1, |c| {
        let (alpha, beta) = (c.float("alpha", 0.2)?.into(), c.float("beta", 0.5)?.into());
        act(c, Activation::HardSigmoid { alpha, beta })
    }),
    op("HardSwish", 14, |c| {
        act(c, Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 })
    }),
    op("Softplus", 1, |c| act(c, Activation::Softplus)),
    op("Mish", 18, |c| act(c, Activation::Mish)),
    op("Swish", 24, |c| {
        let beta = c.float("alpha", 1.0)?.into();
        act(c, Activation::Swish { beta })
    }),
    op("SwiGLU", 28, |c| {
        let (x, y) = (c.tensor(0)?, c.tensor(1)?);
        let beta = c.float("alpha", 1.0)?.into();
        let gate = c.source(Activation::Swish { beta }, &[x])?;
        one(c.bin(BinaryOp::Mul, gate, y)?)
    }),
    op("Gelu", 20, |c| match &*c.string("approximate", "none")? {
        "none" => act(c, Activation::Gelu),
        "tanh" => act(c, Activation::GeluTanh),
        other => invalid(format!("approximate '{other}'")),
    }),
    op_of("com.microsoft", "Gelu", |c| act(c, Activation::Gelu)),
    op_of("com.microsoft", "QuickGelu", |c| {
        let beta = c.float("alpha", 1.702)?.into();
        act(c, Activation::Swish { beta })
    }),
    op_of("com.microsoft", "FastGelu", |c| biased(c, Activation::GeluTanh)),
    op_of("com.microsoft", "BiasGelu", |c| biased(c, Activation::Gelu)),
    op("Clip", 1, clip),
    op("Selu", 1, selu),
    op("Celu", 12, celu),
    op("ThresholdedRelu", 10, thresholded_relu),
    op("Shrink", 9, shrink),
    op("Softsign", 1, softsign),
    op("PRelu", 1, prelu),
];

fn act(c: &mut Cx<'_, '_, '_>, a: Activation) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    one(c.source(a, &[x])?)
}

fn biased(c: &mut Cx<'_, '_, '_>, a: Activation) -> Got<Vec<Value>> {
    let mut x = c.tensor(0)?;
    if let Some(bias) = c.opt(1) {
        x = c.bin(BinaryOp::Add, x, bias)?;
    }
    one(c.source(a, &[x])?)
}

fn clip(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (lo, hi) = (c.opt(1), c.opt(2));
    if lo.is_none() && hi.is_none() {
        let lo = c.float("min", f32::NEG_INFINITY)?;
        let hi = c.float("max", f32::INFINITY)?;
        if lo == f32::NEG_INFINITY && hi == f32::INFINITY {
            return one(x);
        }
        return one(c.source(Activation::Clip { lo: lo.into(), hi: hi.into() }, &[x])?);
    }
    let known = |c: &Cx<'_, '_, '_>, v: Option<Value>, open: f64| match v {
        Some(v) => c.known_float(v),
        None => Some(open),
    };
    let bounds = (known(c, lo, f64::NEG_INFINITY), known(c, hi, f64::INFINITY));
    if let (Some(lo), Some(hi)) = bounds
        && c.dtype(x).is_float()
    {
        return one(c.source(Activation::Clip { lo, hi }, &[x])?);
    }
    let mut y = x;
    for (v, op) in [(lo, BinaryOp::Max), (hi, BinaryOp::Min)] {
        if let Some(v) = v {
            y = c.bin(op, y, v)?;
        }
    }
    one(y)
}

/// `gamma * (x > 0 ? x : alpha * (exp(x) - 1))`.
fn selu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (a, g) = if c.version < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let (alpha, gamma) = (c.float("alpha", a)?.into(), c.float("gamma", g)?);
    let y = c.source(Activation::Elu { alpha }, &[x])?;
    one(c.bin_scalar(BinaryOp::Mul, y, gamma.into())?)
}

/// `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`.
fn celu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let alpha: f64 = c.float("alpha", 1.0)?.into();
    let t = c.bin_scalar(BinaryOp::Div, x, alpha)?;
    let t = c.un(UnaryOp::Expm1, t)?;
    let t = c.bin_scalar(BinaryOp::Mul, t, alpha)?;
    let low = c.bin_scalar(BinaryOp::Min, t, 0.0)?;
    let high = c.bin_scalar(BinaryOp::Max, x, 0.0)?;
    one(c.bin(BinaryOp::Add, high, low)?)
}

fn thresholded_relu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let alpha = c.float("alpha", 1.0)?;
    let keep = c.bin_scalar(BinaryOp::Gt, x, alpha.into())?;
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0);
    one(c.b.select(keep, x, zero)?)
}

/// `x < -lambd ? x + bias : x > lambd ? x - bias : 0`.
fn shrink(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (lambd, bias): (f64, f64) = (c.float("lambd", 0.5)?.into(), c.float("bias", 0.0)?.into());
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0);
    let high = c.bin_scalar(BinaryOp::Sub, x, bias)?;
    let above = c.bin_scalar(BinaryOp::Gt, x, lambd)?;
    let y = c.b.select(above, high, zero)?;
    let low = c.bin_scalar(BinaryOp::Add, x, bias)?;
    let below = c.bin_scalar(BinaryOp::Lt, x, -lambd)?;
    one(c.b.select(below, low, y)?)
}

/// `x / (1 + |x|)`.
fn softsign(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let t = c.un(UnaryOp::Abs, x)?;
    let t = c.bin_scalar(BinaryOp::Add, t, 1.0)?;
    one(c.bin(BinaryOp::Div, x, t)?)
}

/// `x < 0 ? slope * x : x`; before version 7 a slope per channel.
fn prelu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, mut slope) = (c.tensor(0)?, c.tensor(1)?);
    let rank = c.rank(x);
    if c.version < 7 && c.rank(slope) == 1 && rank >= 2 {
        let mut dims = vec![Dim::from(1i64); rank];
        dims[1] = c.dim(slope, 0)?;
        slope = c.reshape(slope, dims)?;
    }
    let low = c.bin(BinaryOp::Mul, x, slope)?;
    let below = c.bin_scalar(BinaryOp::Lt, x, 0.0)?;
    one(c.b.select(below, low, x)?)
}

/// The activation that a fused operator names, with its parameters.
pub(super) fn fused(c: &mut Cx<'_, '_, '_>, y: Value, params: &[f32]) -> Got {
    let at = |i: usize, d: f64| params.get(i).map_or(d, |&p| p.into());
    let a = match &*c.string("activation", "")? {
        "" => return Ok(y),
        "Relu" => Activation::Relu,
        "Sigmoid" => return c.un(UnaryOp::Sigmoid, y),
        "Tanh" => return c.un(UnaryOp::Tanh, y),
        "LeakyRelu" => Activation::LeakyRelu { alpha: at(0, 0.01) },
        "Clip" => Activation::Clip { lo: at(0, f64::NEG_INFINITY), hi: at(1, f64::INFINITY) },
        "HardSigmoid" => Activation::HardSigmoid { alpha: at(0, 0.2), beta: at(1, 0.5) },
        other => return crate::onnx::cx::unsupported(format!("activation '{other}'")),
    };
    c.source(a, &[y])
}
