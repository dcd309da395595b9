//! Transcendental functions: the kernel IR's expansions, in the terms of a lowering.

use super::cx::{LowerCx, Made, unsupported};
use crate::kir::Reg;
use hub_abi::prim::{BinaryOp, UnaryOp};

/// A function of one float argument that takes more than a few instructions.
pub fn unary(cx: &mut LowerCx<'_>, op: UnaryOp, x: Reg) -> Made<Reg> {
    unsupported(format!("{op:?} of {}", cx.b.ty(x)))
}

/// A function of two float arguments that takes more than a few instructions.
pub fn binary(cx: &mut LowerCx<'_>, op: BinaryOp, a: Reg, _b: Reg) -> Made<Reg> {
    unsupported(format!("{op:?} of {}", cx.b.ty(a)))
}
