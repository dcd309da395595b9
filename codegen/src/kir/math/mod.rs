//! Elementary functions on f32 registers of any lanes, expanded into instructions.
//!
//! Polynomials are minimax fits made for these ranges; what is stated as error was measured against
//! the system's libm in f64 through the interpreter (see the tests). Unless said otherwise NaN gives
//! NaN, results that overflow are infinite, and results below the normal range lose precision
//! gradually. Powers of two are applied by `scale2`, so there is one rounding at the end.

use super::build::KernelBuilder;
use super::inst::{BinOp, CmpOp, UnOp};
use super::types::{Elem, Reg};

pub mod near;
mod trig;

pub use trig::*;

type B = KernelBuilder;

const LOG2E: f64 = std::f64::consts::LOG2_E;
/// ln 2 in two parts; the first has 15 significant bits, so its product with an exponent is exact.
const LN2_HI: f64 = 0.693_145_751_953_125;
const LN2_LO: f64 = std::f64::consts::LN_2 - LN2_HI;
const EXP: [f64; 5] =
    [0.500_000_006_2, 0.166_665_425_5, 0.041_666_280_99, 0.008_366_643_71, 0.001_394_652_806];
const EXPM1: [f64; 6] = [
    0.499_999_997_6,
    0.166_666_667_5,
    0.041_666_551_67,
    0.008_333_286_074,
    0.001_392_897_096,
    0.000_199_077_443_3,
];
const LOG: [f64; 9] = [
    0.333_333_102_4,
    -0.249_999_864_1,
    0.200_022_415_6,
    -0.166_692_713_8,
    0.142_183_406,
    -0.123_837_844_2,
    0.118_749_642_2,
    -0.117_941_423_4,
    0.069_158_968_67,
];
const SIN: [f64; 3] = [-0.166_666_542_3, 0.008_332_131_498, -0.000_195_108_392_4];
const COS: [f64; 3] = [0.041_666_645_65, -0.001_388_730_605, 2.443_120_53e-5];
const ATAN: [f64; 4] = [-0.333_329_267_9, 0.199_767_187_2, -0.138_657_365, 0.080_116_185_95];
const ASIN: [f64; 5] =
    [0.166_667_541_3, 0.074_952_327_32, 0.045_478_337_75, 0.024_141_008_79, 0.042_230_520_38];
const LOGS: [f64; 4] = [0.666_666_656_4, 0.400_003_367_2, 0.285_372_042_1, 0.235_842_562_6];
const TANH: [f64; 5] =
    [-0.333_332_839_3, 0.133_314_912_9, -0.053_743_498_57, 0.020_650_588_99, -0.005_717_046_805];
/// erf x / x − 1 in x².
const ERF: [f64; 7] = [
    0.128_379_166,
    -0.376_126_271_3,
    0.112_836_001_5,
    -0.026_854_443_59,
    0.005_189_533_541,
    -0.000_802_082_630_1,
    7.889_072_247e-5,
];
/// ln erfc on 0.95..3.95.
const LN_ERFC: [f64; 7] = [
    -0.000_256_464_579_5,
    -1.127_426_008,
    -0.637_600_171_5,
    -0.103_566_774_7,
    0.022_051_940_32,
    -0.002_999_526_162,
    0.000_191_502_624_4,
];

fn c(b: &mut B, like: Reg, v: f64) -> Reg {
    let t = b.ty(like).with(Elem::F32);
    b.const_f(t, v)
}

fn ci(b: &mut B, like: Reg, v: i64) -> Reg {
    let t = b.ty(like).with(Elem::I32);
    b.const_i(t, v)
}

/// `c[0] + c[1] x + …` by Horner's rule.
pub fn poly(b: &mut B, x: Reg, coefs: &[f64]) -> Reg {
    let (last, rest) = coefs.split_last().expect("a polynomial has coefficients");
    let mut p = c(b, x, *last);
    for k in rest.iter().rev() {
        let k = c(b, x, *k);
        p = b.fma(p, x, k);
    }
    p
}

/// `a × k + d` with constants.
fn fma_c(b: &mut B, a: Reg, k: f64, d: f64) -> Reg {
    let (k, d) = (c(b, a, k), c(b, a, d));
    b.fma(a, k, d)
}

fn mul_c(b: &mut B, a: Reg, k: f64) -> Reg {
    let k = c(b, a, k);
    b.mul(a, k)
}

fn add_c(b: &mut B, a: Reg, k: f64) -> Reg {
    let k = c(b, a, k);
    b.add(a, k)
}

fn abs(b: &mut B, x: Reg) -> Reg {
    b.un(UnOp::Abs, x)
}

/// |m| with the sign of `s`.
fn copysign(b: &mut B, m: Reg, s: Reg) -> Reg {
    let t = b.ty(m);
    let sign = b.const_bits(t, 0x8000_0000);
    let s = b.bin(BinOp::And, sign, s);
    let m = b.bin(BinOp::AndNot, sign, m);
    b.bin(BinOp::Or, m, s)
}

/// x limited to lo..=hi; NaN stays.
fn clamp(b: &mut B, x: Reg, lo: f64, hi: f64) -> Reg {
    let (lo, hi) = (c(b, x, lo), c(b, x, hi));
    let x = b.min(hi, x);
    b.max(lo, x)
}

/// x = n ln2 + r with |r| ≤ ln2/2: (n, r).
fn reduce_ln2(b: &mut B, x: Reg) -> (Reg, Reg) {
    let n = mul_c(b, x, LOG2E);
    let n = b.un(UnOp::RoundEven, n);
    let hi = c(b, x, -LN2_HI);
    let lo = c(b, x, -LN2_LO);
    let r = b.fma(n, hi, x);
    (n, b.fma(n, lo, r))
}

/// e^x where −104 ≤ x ≤ 89 is known.
fn exp_in_range(b: &mut B, x: Reg) -> Reg {
    let (n, r) = reduce_ln2(b, x);
    exp_reduced(b, n, r)
}

/// 2^n e^r
fn exp_reduced(b: &mut B, n: Reg, r: Reg) -> Reg {
    let mut k = vec![1.0, 1.0];
    k.extend(EXP);
    let p = poly(b, r, &k);
    b.scale2(p, n)
}

/// e^x; error below 1.5 ulp.
pub fn exp(b: &mut B, x: Reg) -> Reg {
    let x = clamp(b, x, -104.0, 89.0);
    exp_in_range(b, x)
}

/// 2^x; error below 1.5 ulp.
pub fn exp2(b: &mut B, x: Reg) -> Reg {
    let x = clamp(b, x, -151.0, 129.0);
    let n = b.un(UnOp::RoundEven, x);
    let f = b.sub(x, n);
    let r = mul_c(b, f, std::f64::consts::LN_2);
    exp_reduced(b, n, r)
}

/// e^x − 1, accurate near 0; error below 2.5 ulp.
pub fn expm1(b: &mut B, x: Reg) -> Reg {
    let xc = clamp(b, x, -104.0, 89.0);
    let (n, r) = reduce_ln2(b, xc);
    let q = poly(b, r, &EXPM1);
    let r2 = b.mul(r, r);
    let p = b.fma(q, r2, r);
    let half = c(b, x, 0.5);
    let one = fma_c(b, r, 0.0, 0.5); // a half, or NaN as n is
    let t = b.scale2(one, n); // 2^(n-1), so that n = 128 does not overflow early
    let u = b.sub(t, half);
    let v = b.fma(t, p, u);
    let v = b.add(v, v);
    // −0 and tiny values pass unchanged
    let a = abs(b, x);
    let tiny = c(b, x, 1e-8);
    let m = b.cmp(CmpOp::Lt, a, tiny);
    b.select(m, x, v)
}

/// x = m 2^e with m in √½..√2, for positive finite x: (m, e as f32).
fn split(b: &mut B, x: Reg) -> (Reg, Reg) {
    let min = c(b, x, f32::MIN_POSITIVE as f64);
    let small = b.cmp(CmpOp::Lt, x, min);
    let up = mul_c(b, x, 33_554_432.0);
    let y = b.select(small, up, x);
    let bits = b.bitcast(y, Elem::I32);
    let base = ci(b, x, 0x3f35_04f3); // √½
    let rel = b.sub(bits, base);
    let s = ci(b, x, 23);
    let e = b.bin(BinOp::Shr, rel, s);
    let sh = b.bin(BinOp::Shl, e, s);
    let m = b.sub(bits, sh);
    let m = b.bitcast(m, Elem::F32);
    let e = b.cvt(e, Elem::F32);
    let less = add_c(b, e, -25.0);
    (m, b.select(small, less, e))
}

/// ln x; −∞ at 0, NaN below; error below 1.5 ulp.
pub fn log(b: &mut B, x: Reg) -> Reg {
    let (m, e) = split(b, x);
    let f = add_c(b, m, -1.0);
    let p = poly(b, f, &LOG);
    let f2 = b.mul(f, f);
    let f3 = b.mul(f2, f);
    let y = b.mul(p, f3);
    let lo = c(b, x, LN2_LO);
    let y = b.fma(e, lo, y);
    let mhalf = c(b, x, -0.5);
    let y = b.fma(f2, mhalf, y);
    let r = b.add(f, y);
    let hi = c(b, x, LN2_HI);
    let r = b.fma(e, hi, r);
    log_edges(b, x, r)
}

/// The logarithm's values where x is not positive and finite.
fn log_edges(b: &mut B, x: Reg, r: Reg) -> Reg {
    let inf = c(b, x, f64::INFINITY);
    let zero = c(b, x, 0.0);
    let finite = b.cmp(CmpOp::Lt, x, inf);
    let r = b.select(finite, r, x); // +∞ and NaN pass
    let minus = c(b, x, f64::NEG_INFINITY);
    let is0 = b.cmp(CmpOp::Eq, x, zero);
    let r = b.select(is0, minus, r);
    let nan = c(b, x, f64::NAN);
    let neg = b.cmp(CmpOp::Lt, x, zero);
    b.select(neg, nan, r)
}

/// log₂ x, as [`log`].
pub fn log2(b: &mut B, x: Reg) -> Reg {
    let l = log(b, x);
    mul_c(b, l, LOG2E)
}

/// ln(1 + x), accurate near 0; error below 2.5 ulp.
pub fn log1p(b: &mut B, x: Reg) -> Reg {
    let one = c(b, x, 1.0);
    let u = b.add(x, one);
    let l = log(b, u);
    let d = b.sub(u, one);
    let d = b.sub(x, d);
    let k = b.div(d, u);
    let a = abs(b, k);
    let inf = c(b, x, f64::INFINITY);
    let ok = b.cmp(CmpOp::Lt, a, inf);
    let zero = c(b, x, 0.0);
    let k = b.select(ok, k, zero);
    let r = b.add(l, k);
    let a = abs(b, x);
    let tiny = c(b, x, 1e-8);
    let m = b.cmp(CmpOp::Lt, a, tiny);
    b.select(m, x, r)
}

/// 1 / (1 + e^−x); error below 2.5 ulp in the normal range.
pub fn sigmoid(b: &mut B, x: Reg) -> Reg {
    let n = b.un(UnOp::Neg, x);
    let e = exp(b, n);
    let one = c(b, x, 1.0);
    let d = b.add(e, one);
    b.div(one, d)
}

/// tanh x; error below 2 ulp.
pub fn tanh(b: &mut B, x: Reg) -> Reg {
    let z = b.mul(x, x);
    let p = poly(b, z, &TANH);
    let x3 = b.mul(x, z);
    let small = b.fma(p, x3, x);
    let a = abs(b, x);
    let ac = clamp(b, a, 0.0, 10.0);
    let t = b.add(ac, ac);
    let e = exp_in_range(b, t);
    let one = c(b, x, 1.0);
    let d = b.add(e, one);
    let two = c(b, x, 2.0);
    let q = b.div(two, d);
    let big = b.sub(one, q);
    let big = copysign(b, big, x);
    let lim = c(b, x, 0.625);
    let m = b.cmp(CmpOp::Lt, a, lim);
    b.select(m, small, big)
}

/// erf x; error below 2 ulp.
pub fn erf(b: &mut B, x: Reg) -> Reg {
    let z = b.mul(x, x);
    let p = poly(b, z, &ERF);
    let small = b.fma(p, x, x);
    let a = abs(b, x);
    let four = c(b, x, 3.95);
    let ac = b.min(four, a); // NaN stays
    let q = poly(b, ac, &LN_ERFC);
    let e = exp_in_range(b, q);
    let one = c(b, x, 1.0);
    let big = b.sub(one, e);
    let big = copysign(b, big, x);
    let m = b.cmp(CmpOp::Lt, a, one);
    b.select(m, small, big)
}

/// ln |x| in two parts for finite non-zero x: (hi, lo), relative error about 2⁻³².
fn log_two(b: &mut B, x: Reg) -> (Reg, Reg) {
    let (m, e) = split(b, x);
    let one = c(b, x, 1.0);
    let f = b.sub(m, one);
    let d = b.add(m, one);
    let dl = b.sub(d, one);
    let dl = b.sub(m, dl);
    let s = b.div(f, d);
    let ns = b.un(UnOp::Neg, s);
    let r = b.fma(ns, d, f);
    let r = b.fma(ns, dl, r);
    let sl = b.div(r, d);
    let z = b.mul(s, s);
    let p = poly(b, z, &LOGS);
    let s3 = b.mul(s, z);
    let lo = b.mul(p, s3);
    let two = c(b, x, 2.0);
    let lo = b.fma(sl, two, lo);
    let k = c(b, x, LN2_LO);
    let a = mul_c(b, e, LN2_HI);
    let s2 = b.add(s, s);
    let hi = b.add(a, s2);
    let err = b.sub(hi, a);
    let err = b.sub(s2, err);
    let lo = b.add(lo, err);
    let lo = b.fma(e, k, lo);
    let h = b.add(hi, lo);
    let l = b.sub(h, hi);
    (h, b.sub(lo, l))
}

/// x^y as C's `powf`; error below 4 ulp.
pub fn pow(b: &mut B, x: Reg, y: Reg) -> Reg {
    let zero = c(b, x, 0.0);
    let one = c(b, x, 1.0);
    let inf = c(b, x, f64::INFINITY);
    let a = abs(b, x);
    let (lh, ll) = log_two(b, a);
    let ph = b.mul(y, lh);
    let nph = b.un(UnOp::Neg, ph);
    let pl = b.fma(y, lh, nph);
    let pl = b.fma(y, ll, pl);
    let size = abs(b, ph);
    let lim = c(b, x, 104.0);
    let inside = b.cmp(CmpOp::Lt, size, lim);
    let pl = b.select(inside, pl, zero);
    let pc = clamp(b, ph, -104.0, 89.0);
    let (n, r) = reduce_ln2(b, pc);
    let r = b.add(r, pl);
    let mag = exp_reduced(b, n, r);
    // |x| of 0 or ∞ with y's sign; |x| of 1
    let up = b.cmp(CmpOp::Gt, y, zero);
    let at0 = b.select(up, zero, inf);
    let atinf = b.select(up, inf, zero);
    let is0 = b.cmp(CmpOp::Eq, a, zero);
    let isinf = b.cmp(CmpOp::Eq, a, inf);
    let is1 = b.cmp(CmpOp::Eq, a, one);
    let mag = b.select(is0, at0, mag);
    let mag = b.select(isinf, atinf, mag);
    let mag = b.select(is1, one, mag);
    let mag = pow_sign(b, x, y, mag);
    // NaN operands, then the two cases that even a NaN does not spoil
    let sum = b.add(x, y);
    let xn = b.cmp(CmpOp::Ne, x, x);
    let yn = b.cmp(CmpOp::Ne, y, y);
    let anyn = b.bin(BinOp::Or, xn, yn);
    let r = b.select(anyn, sum, mag);
    let x1 = b.cmp(CmpOp::Eq, x, one);
    let y0 = b.cmp(CmpOp::Eq, y, zero);
    let sure = b.bin(BinOp::Or, x1, y0);
    b.select(sure, one, r)
}

/// Sign and domain of a power with a negative base.
fn pow_sign(b: &mut B, x: Reg, y: Reg, mag: Reg) -> Reg {
    let zero = c(b, x, 0.0);
    let fl = b.un(UnOp::Floor, y);
    let whole = b.cmp(CmpOp::Eq, fl, y);
    let h = mul_c(b, y, 0.5);
    let hf = b.un(UnOp::Floor, h);
    let halfway = b.cmp(CmpOp::Ne, hf, h);
    let odd = b.bin(BinOp::And, whole, halfway);
    let signed = copysign(b, mag, x);
    let r = b.select(odd, signed, mag);
    let neg = b.cmp(CmpOp::Lt, x, zero);
    let minus_inf = c(b, x, f64::NEG_INFINITY);
    let finite = b.cmp(CmpOp::Gt, x, minus_inf);
    let neg = b.bin(BinOp::And, neg, finite);
    let bad = b.bin(BinOp::AndNot, whole, neg);
    let nan = c(b, x, f64::NAN);
    b.select(bad, nan, r)
}

/// ln(1 + e^x); error below 3 ulp in the normal range.
pub fn softplus(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let n = b.un(UnOp::Neg, a);
    let e = exp(b, n);
    let l = log1p(b, e);
    let zero = c(b, x, 0.0);
    let p = b.max(zero, x); // NaN stays
    b.add(p, l)
}
