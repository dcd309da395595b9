//! Transcendental functions: the kernel IR's expansions, in the terms of a lowering.

use super::cx::{LowerCx, Made, unsupported};
use crate::kir::{Elem, Reg, math};
use hub_abi::prim::{BinaryOp, UnaryOp};

/// A function of one float argument that takes more than a few instructions.
pub fn unary(cx: &mut LowerCx<'_>, op: UnaryOp, x: Reg) -> Made<Reg> {
    let near = !cx.target.exact;
    let f = match op {
        UnaryOp::Tanh if near => math::near::tanh,
        UnaryOp::Sigmoid if near => math::near::sigmoid,
        UnaryOp::Exp => math::exp,
        UnaryOp::Expm1 => math::expm1,
        UnaryOp::Log => math::log,
        UnaryOp::Log1p => math::log1p,
        UnaryOp::Sin => math::sin,
        UnaryOp::Cos => math::cos,
        UnaryOp::Tan => math::tan,
        UnaryOp::Asin => math::asin,
        UnaryOp::Acos => math::acos,
        UnaryOp::Atan => math::atan,
        UnaryOp::Sinh => math::sinh,
        UnaryOp::Cosh => math::cosh,
        UnaryOp::Tanh => math::tanh,
        UnaryOp::Asinh => math::asinh,
        UnaryOp::Acosh => math::acosh,
        UnaryOp::Atanh => math::atanh,
        UnaryOp::Erf => math::erf,
        UnaryOp::Sigmoid => math::sigmoid,
        op => return unsupported(format!("{op:?} of a float")),
    };
    if cx.b.ty(x).elem != Elem::F32 {
        return unsupported(format!("{op:?} of {}", cx.b.ty(x)));
    }
    Ok(f(&mut cx.b, x))
}

/// A function of two float arguments that takes more than a few instructions.
pub fn binary(cx: &mut LowerCx<'_>, op: BinaryOp, a: Reg, b: Reg) -> Made<Reg> {
    match op {
        BinaryOp::Pow if cx.b.ty(a).elem == Elem::F32 => Ok(math::pow(&mut cx.b, a, b)),
        op => unsupported(format!("{op:?} of {}", cx.b.ty(a))),
    }
}
