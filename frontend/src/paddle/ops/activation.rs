//! Activations: source operators, and those that a few primitives make.

use crate::paddle::ctx::{Ctx, Res};
use crate::paddle::program::Dialect;
use hub_ir::ops::activation::Activation;
use hub_ir::{BinaryOp, Dim, UnaryOp};

/// Activations that are a source operator.
pub fn activation(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let legacy = c.dialect == Dialect::Legacy;
    let a = match c.op.kind.trim_end_matches('_') {
        "relu" => Activation::Relu,
        // Paddle itself reads no threshold here, nor any attribute of hard_swish.
        "relu6" => Activation::Clip { lo: 0.0, hi: 6.0 },
        "brelu" | "hardtanh" => Activation::Clip {
            lo: c.float("t_min|min", if legacy { 0.0 } else { -1.0 }),
            hi: c.float("t_max|max", if legacy { 24.0 } else { 1.0 }),
        },
        "leaky_relu" => Activation::LeakyRelu { alpha: c.float("alpha|negative_slope", 0.02) },
        "elu" => Activation::Elu { alpha: c.float("alpha", 1.0) },
        "gelu" if c.flag("approximate", false) => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "silu" => Activation::Swish { beta: 1.0 },
        "swish" => Activation::Swish { beta: c.float("beta", 1.0) },
        "hard_sigmoid" | "hardsigmoid" => {
            Activation::HardSigmoid { alpha: c.float("slope", 0.2), beta: c.float("offset", 0.5) }
        }
        "hard_swish" | "hardswish" => {
            Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 }
        }
        "mish" => Activation::Mish,
        _ => return c.refuse("no such activation"),
    };
    if !c.b.g.dtype(x).is_float() && a != Activation::Relu {
        return c.refuse("an activation of integers");
    }
    let v = c.b.source(a, &[x])?;
    c.put("Out", v);
    Ok(())
}

/// softplus with slope `beta` and its linear part past `threshold`.
pub fn softplus(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let (beta, threshold) = (c.float("beta", 1.0), c.float("threshold", 20.0));
    let scaled = if beta == 1.0 { x } else { c.b.bin_scalar(BinaryOp::Mul, x, beta)? };
    let mut v = c.b.source(Activation::Softplus, &[scaled])?;
    if beta != 1.0 {
        v = c.b.bin_scalar(BinaryOp::Div, v, beta)?;
    }
    if beta != 1.0 || threshold < 20.0 {
        let past = c.b.bin_scalar(BinaryOp::Gt, scaled, threshold)?;
        v = c.b.select(past, x, v)?;
    }
    c.put("Out", v);
    Ok(())
}

/// Activations composed of primitives: selu, celu, softsign, logsigmoid, shrinks, thresholds, stanh,
/// square, log2, log10.
pub fn composed(c: &mut Ctx<'_, '_>) -> Res {
    use BinaryOp::*;
    let x = c.tensor("X|x")?;
    let v = match c.op.kind.trim_end_matches('_') {
        "square" => c.b.mul(x, x)?,
        "log2" | "log10" => {
            let base: f64 = if c.op.kind.starts_with("log2") { 2.0 } else { 10.0 };
            let l = c.b.un(UnaryOp::Log, x)?;
            c.b.bin_scalar(Mul, l, 1.0 / base.ln())?
        }
        "softsign" => {
            let a = c.b.un(UnaryOp::Abs, x)?;
            let d = c.b.bin_scalar(Add, a, 1.0)?;
            c.b.div(x, d)?
        }
        "logsigmoid" => {
            let n = c.b.un(UnaryOp::Neg, x)?;
            let s = c.b.source(Activation::Softplus, &[n])?;
            c.b.un(UnaryOp::Neg, s)?
        }
        "tanh_shrink" => {
            let t = c.b.un(UnaryOp::Tanh, x)?;
            c.b.sub(x, t)?
        }
        "stanh" => {
            let s = c.b.bin_scalar(Mul, x, c.float("scale_a", 0.67))?;
            let t = c.b.un(UnaryOp::Tanh, s)?;
            c.b.bin_scalar(Mul, t, c.float("scale_b", 1.7159))?
        }
        "selu" => {
            let scale = c.float("scale", 1.050_700_987_355_480_5);
            let alpha = c.float("alpha", 1.673_263_242_354_377_2);
            let e = c.b.source(Activation::Elu { alpha }, &[x])?;
            c.b.bin_scalar(Mul, e, scale)?
        }
        "celu" => {
            let alpha = c.float("alpha", 1.0);
            let s = c.b.bin_scalar(Div, x, alpha)?;
            let e = c.b.source(Activation::Elu { alpha: 1.0 }, &[s])?;
            c.b.bin_scalar(Mul, e, alpha)?
        }
        "hard_shrink" | "hardshrink" | "softshrink" => {
            let t = c.float("threshold|lambda", 0.5);
            let soft = c.op.kind.starts_with("soft");
            let zero = c.b.bin_scalar(Mul, x, 0.0)?;
            let up = if soft { c.b.bin_scalar(Sub, x, t)? } else { x };
            let down = if soft { c.b.bin_scalar(Add, x, t)? } else { x };
            let above = c.b.bin_scalar(Gt, x, t)?;
            let below = c.b.bin_scalar(Lt, x, -t)?;
            let low = c.b.select(below, down, zero)?;
            c.b.select(above, up, low)?
        }
        "logit" => {
            let (mut v, eps) = (x, c.float("eps", 1e-6));
            if eps > 0.0 {
                v = c.b.bin_scalar(Max, v, eps)?;
                v = c.b.bin_scalar(Min, v, 1.0 - eps)?;
            }
            let one = c.b.scalar(c.b.g.dtype(v), 1.0);
            let rest = c.b.sub(one, v)?;
            let odds = c.b.div(v, rest)?;
            c.b.un(UnaryOp::Log, odds)?
        }
        "rrelu" => {
            let alpha = (c.float("lower", 0.125) + c.float("upper", 1.0 / 3.0)) / 2.0;
            c.b.source(Activation::LeakyRelu { alpha }, &[x])?
        }
        "soft_relu" => {
            let t = c.float("threshold", 40.0);
            let v = c.b.bin_scalar(Max, x, -t)?;
            let v = c.b.bin_scalar(Min, v, t)?;
            c.b.source(Activation::Softplus, &[v])?
        }
        "thresholded_relu" => {
            let above = c.b.bin_scalar(Gt, x, c.float("threshold", 1.0))?;
            let other = c.b.scalar(c.b.g.dtype(x), c.float("value", 0.0));
            c.b.select(above, x, other)?
        }
        _ => return c.refuse("no such activation"),
    };
    c.put("Out|out", v);
    Ok(())
}

/// `x > 0 ? x : alpha * x` with one alpha, one a channel, or one an element.
pub fn prelu(c: &mut Ctx<'_, '_>) -> Res {
    let (x, alpha) = (c.tensor("X")?, c.tensor("Alpha")?);
    let dims = c.dims(x);
    let mut shape = vec![Dim::from(1i64); dims.len()];
    let last = c.text("data_format", "NCHW").ends_with('C');
    match c.text("mode", "all") {
        "channel" if dims.len() > 1 => {
            let at = if last { dims.len() - 1 } else { 1 };
            shape[at] = c.b.g.tensor(alpha).count();
        }
        "element" if dims.len() > 1 => shape[1..].clone_from_slice(&dims[1..]),
        _ => {}
    }
    let alpha = c.b.reshape(alpha, shape)?;
    let low = c.b.mul(x, alpha)?;
    let below = c.b.bin_scalar(BinaryOp::Lt, x, 0.0)?;
    let v = c.b.select(below, low, x)?;
    c.put("Out", v);
    Ok(())
}
