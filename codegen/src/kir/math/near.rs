//! Activations with a few units more of error than [`super`]'s, for epilogues, where they are most of
//! the work. `--exact` takes the others.
//!
//! Adding 1.5·2²³ + 127 to x·log₂e rounds it to an integer that stands, with a float's exponent
//! bias, in the low bits of the sum: shifted into place these are the power of two. The division is
//! one instruction, which on the machines measured costs less than an estimate and its steps.

use super::super::build::KernelBuilder;
use super::super::inst::{BinOp, CmpOp};
use super::super::types::{Elem, Reg};
use super::{LOG2E, c, ci, clamp, poly};

type B = KernelBuilder;

/// 2^f for |f| ≤ ½, within 9.3e-8.
const EXP2: [f64; 6] =
    [1.0, 0.693_146_977_4, 0.240_222_417_6, 0.055_507_340_01, 0.009_671_533_905, 0.001_326_469_99];

/// 1 + e^−x, x limited to ±87; relative error below 3.2e-7 where |x| < 8 (5 ulp),
/// 1.5e-6 elsewhere. NaN stays.
pub fn one_plus_exp_neg(b: &mut B, x: Reg) -> Reg {
    let x = clamp(b, x, -87.0, 87.0);
    let k = c(b, x, -LOG2E);
    let shift = c(b, x, 12_583_039.0);
    let u = b.fma(x, k, shift);
    let less = b.sub(shift, u);
    let f = b.fma(x, k, less);
    let p = poly(b, f, &EXP2);
    let bits = b.bitcast(u, Elem::I32);
    let places = ci(b, x, 23);
    let bits = b.bin(BinOp::Shl, bits, places);
    let power = b.bitcast(bits, Elem::F32);
    let one = c(b, x, 1.0);
    b.fma(p, power, one)
}

/// 1 / (1 + e^−x), at least 1.6e-38; errors as [`one_plus_exp_neg`]'s.
pub fn sigmoid(b: &mut B, x: Reg) -> Reg {
    let d = one_plus_exp_neg(b, x);
    let one = c(b, x, 1.0);
    b.div(one, d)
}

/// tanh x; error below 4 ulp.
pub fn tanh(b: &mut B, x: Reg) -> Reg {
    let z = b.mul(x, x);
    let p = poly(b, z, &super::TANH);
    let x3 = b.mul(x, z);
    let small = b.fma(p, x3, x);
    let less = c(b, x, -2.0);
    let twice = b.mul(x, less);
    let d = one_plus_exp_neg(b, twice);
    let q = b.div(less, d);
    let one = c(b, x, 1.0);
    let big = b.add(one, q);
    let a = super::abs(b, x);
    let lim = c(b, x, 0.625);
    let m = b.cmp(CmpOp::Lt, a, lim);
    b.select(m, small, big)
}
