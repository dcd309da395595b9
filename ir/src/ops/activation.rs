//! Activation functions of one argument.

use super::SourceOp;
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, UnaryOp};
use serde::{Deserialize, Serialize};

/// Functions that are more than one primitive (tanh, sigmoid and the like are primitives).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`.
    Clip {
        /// Least result.
        #[serde(with = "crate::text::float")]
        lo: f64,
        /// Greatest result.
        #[serde(with = "crate::text::float")]
        hi: f64,
    },
    /// `x < 0 ? alpha*x : x`.
    LeakyRelu {
        /// Slope below 0.
        alpha: f64,
    },
    /// `x < 0 ? alpha*(exp(x)-1) : x`.
    Elu {
        /// Scale below 0.
        alpha: f64,
    },
    /// `x/2 * (1 + erf(x/sqrt 2))`.
    Gelu,
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x * sigmoid(beta * x)`; SiLU for beta 1.
    Swish {
        /// Slope of the gate.
        beta: f64,
    },
    /// `min(max(alpha*x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// `x * min(max(x + offset, 0), threshold) / scale`.
    HardSwish {
        /// Added before the clip (3).
        offset: f64,
        /// Upper clip (6).
        threshold: f64,
        /// Divisor (6).
        scale: f64,
    },
    /// `log(1 + exp(x))`, computed without overflow.
    Softplus,
    /// `x * tanh(softplus(x))`.
    Mish,
}

impl SourceOp for Activation {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        use BinaryOp::*;
        let x = ins[0];
        let y = match *self {
            Activation::Relu => b.bin_scalar(Max, x, 0.0)?,
            Activation::Clip { lo, hi } => clip(b, x, lo, hi)?,
            Activation::LeakyRelu { alpha } => {
                let low = b.bin_scalar(Mul, x, alpha)?;
                below_zero(b, x, low)?
            }
            Activation::Elu { alpha } => {
                let e = b.un(UnaryOp::Expm1, x)?;
                let low = b.bin_scalar(Mul, e, alpha)?;
                below_zero(b, x, low)?
            }
            Activation::Gelu => {
                let s = b.bin_scalar(Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
                let e = b.un(UnaryOp::Erf, s)?;
                half_of(b, x, e)?
            }
            Activation::GeluTanh => {
                let x2 = b.mul(x, x)?;
                let x3 = b.mul(x2, x)?;
                let t = b.bin_scalar(Mul, x3, 0.044715)?;
                let t = b.add(x, t)?;
                let t = b.bin_scalar(Mul, t, (2.0 / std::f64::consts::PI).sqrt())?;
                let t = b.un(UnaryOp::Tanh, t)?;
                half_of(b, x, t)?
            }
            Activation::Swish { beta } => {
                let g = if beta == 1.0 { x } else { b.bin_scalar(Mul, x, beta)? };
                let g = b.un(UnaryOp::Sigmoid, g)?;
                b.mul(x, g)?
            }
            Activation::HardSigmoid { alpha, beta } => {
                let t = b.bin_scalar(Mul, x, alpha)?;
                let t = b.bin_scalar(Add, t, beta)?;
                clip(b, t, 0.0, 1.0)?
            }
            Activation::HardSwish { offset, threshold, scale } => {
                let t = b.bin_scalar(Add, x, offset)?;
                let t = clip(b, t, 0.0, threshold)?;
                let t = b.mul(x, t)?;
                b.bin_scalar(Mul, t, 1.0 / scale)?
            }
            Activation::Softplus => softplus(b, x)?,
            Activation::Mish => {
                let s = softplus(b, x)?;
                let t = b.un(UnaryOp::Tanh, s)?;
                b.mul(x, t)?
            }
        };
        Ok(vec![y])
    }
}

fn clip(b: &mut Builder<'_>, x: Value, lo: f64, hi: f64) -> Built {
    let t = b.bin_scalar(BinaryOp::Max, x, lo)?;
    b.bin_scalar(BinaryOp::Min, t, hi)
}

fn below_zero(b: &mut Builder<'_>, x: Value, low: Value) -> Built {
    let c = b.bin_scalar(BinaryOp::Lt, x, 0.0)?;
    b.select(c, low, x)
}

/// `x/2 * (1 + t)`.
fn half_of(b: &mut Builder<'_>, x: Value, t: Value) -> Built {
    let h = b.bin_scalar(BinaryOp::Mul, x, 0.5)?;
    let t = b.bin_scalar(BinaryOp::Add, t, 1.0)?;
    b.mul(h, t)
}

/// `max(x, 0) + log1p(exp(-|x|))`.
fn softplus(b: &mut Builder<'_>, x: Value) -> Built {
    let a = b.un(UnaryOp::Abs, x)?;
    let n = b.un(UnaryOp::Neg, a)?;
    let e = b.un(UnaryOp::Exp, n)?;
    let l = b.un(UnaryOp::Log1p, e)?;
    let p = b.bin_scalar(BinaryOp::Max, x, 0.0)?;
    b.add(p, l)
}
