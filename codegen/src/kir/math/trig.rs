//! Trigonometric and hyperbolic functions and their inverses.

use super::*;

/// Quadrant and both polynomials at the reduced argument: (q, sin r, cos r).
fn sincos(b: &mut B, x: Reg) -> (Reg, Reg, Reg) {
    // π/2 in four parts of at most 11 bits each but the last
    let parts = [1.570_312_5, 4.837_512_969_970_703e-4, 7.549_533_247_947_693e-8];
    let last = std::f64::consts::FRAC_PI_2 - parts.iter().sum::<f64>();
    let n = mul_c(b, x, std::f64::consts::FRAC_2_PI);
    let n = b.un(UnOp::RoundEven, n);
    let mut r = x;
    for p in parts.into_iter().chain([last]) {
        let k = c(b, x, -p);
        r = b.fma(n, k, r);
    }
    let q = b.cvt_round(n, Elem::I32);
    let z = b.mul(r, r);
    let s = poly(b, z, &SIN);
    let r3 = b.mul(r, z);
    let s = b.fma(s, r3, r);
    let k = poly(b, z, &COS);
    let z2 = b.mul(z, z);
    let h = fma_c(b, z, -0.5, 1.0);
    let k = b.fma(k, z2, h);
    (q, s, k)
}

fn quadrant(b: &mut B, q: Reg, s: Reg, k: Reg) -> Reg {
    let (one, thirty) = (ci(b, s, 1), ci(b, s, 30));
    let odd = b.bin(BinOp::And, q, one);
    let m = b.cmp(CmpOp::Eq, odd, one);
    let v = b.select(m, k, s);
    let two = ci(b, s, 2);
    let sign = b.bin(BinOp::And, q, two);
    let sign = b.bin(BinOp::Shl, sign, thirty);
    let sign = b.bitcast(sign, Elem::F32);
    b.bin(BinOp::Xor, v, sign)
}

/// sin x; absolute error below 1.2e-7 for |x| ≤ 10⁵; meaningless beyond 10⁷.
pub fn sin(b: &mut B, x: Reg) -> Reg {
    let (q, s, k) = sincos(b, x);
    quadrant(b, q, s, k)
}

/// cos x, as [`sin`].
pub fn cos(b: &mut B, x: Reg) -> Reg {
    let (q, s, k) = sincos(b, x);
    let one = ci(b, x, 1);
    let q = b.add(q, one);
    quadrant(b, q, s, k)
}

/// tan x, as [`sin`] over [`cos`].
pub fn tan(b: &mut B, x: Reg) -> Reg {
    let (s, k) = (sin(b, x), cos(b, x));
    b.div(s, k)
}

/// atan x; error below 3 ulp.
pub fn atan(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let one = c(b, x, 1.0);
    let (t3, t1) = (c(b, x, 2.414_213_6), c(b, x, 0.414_213_57));
    let far = b.cmp(CmpOp::Gt, a, t3);
    let mid = b.cmp(CmpOp::Gt, a, t1);
    let (num_mid, den_mid) = (b.sub(a, one), b.add(a, one));
    let mone = c(b, x, -1.0);
    let num = b.select(mid, num_mid, a);
    let num = b.select(far, mone, num);
    let den = b.select(mid, den_mid, one);
    let den = b.select(far, a, den);
    let t = b.div(num, den);
    let z = b.mul(t, t);
    let p = poly(b, z, &ATAN);
    let t3 = b.mul(t, z);
    let r = b.fma(p, t3, t);
    let zero = c(b, x, 0.0);
    let (q, h) = (c(b, x, std::f64::consts::FRAC_PI_4), c(b, x, std::f64::consts::FRAC_PI_2));
    let base = b.select(mid, q, zero);
    let base = b.select(far, h, base);
    let r = b.add(base, r);
    copysign(b, r, x)
}

/// asin x (NaN outside −1..1); error below 3 ulp.
pub fn asin(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let half = c(b, x, 0.5);
    let big = b.cmp(CmpOp::Gt, a, half);
    let one_less = fma_c(b, a, -0.5, 0.5);
    let sq = b.mul(a, a);
    let z = b.select(big, one_less, sq);
    let root = b.un(UnOp::Sqrt, one_less);
    let t = b.select(big, root, a);
    let p = poly(b, z, &ASIN);
    let t3 = b.mul(t, z);
    let r = b.fma(p, t3, t);
    let mtwo = c(b, x, -2.0);
    let h = c(b, x, std::f64::consts::FRAC_PI_2);
    let far = b.fma(r, mtwo, h);
    let r = b.select(big, far, r);
    copysign(b, r, x)
}

/// acos x (NaN outside −1..1); absolute error below 4e-7.
pub fn acos(b: &mut B, x: Reg) -> Reg {
    let s = asin(b, x);
    let h = c(b, x, std::f64::consts::FRAC_PI_2);
    b.sub(h, s)
}

/// sinh x; error below 4 ulp.
pub fn sinh(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let half = c(b, x, 0.5);
    let one = c(b, x, 1.0);
    // (u + u/(u+1))/2 with u = e^a − 1; e^(a−ln2) where that would overflow
    let u = expm1(b, a);
    let u1 = b.add(u, one);
    let v = b.div(u, u1);
    let w = b.add(u, v);
    let w = b.mul(w, half);
    let far = far_half_exp(b, a);
    let lim = c(b, x, 80.0);
    let m = b.cmp(CmpOp::Gt, a, lim);
    let w = b.select(m, far, w);
    copysign(b, w, x)
}

/// cosh x; error below 4 ulp.
pub fn cosh(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let half = c(b, x, 0.5);
    let e = exp(b, a);
    let one = c(b, x, 1.0);
    let r = b.div(one, e);
    let w = b.add(e, r);
    let w = b.mul(w, half);
    let far = far_half_exp(b, a);
    let lim = c(b, x, 80.0);
    let m = b.cmp(CmpOp::Gt, a, lim);
    b.select(m, far, w)
}

/// e^a / 2 as (e^(a/2)/2) e^(a/2), which overflows only where the result does.
fn far_half_exp(b: &mut B, a: Reg) -> Reg {
    let h = mul_c(b, a, 0.5);
    let e = exp(b, h);
    let l = mul_c(b, e, 0.5);
    b.mul(l, e)
}

/// asinh x; error below 4 ulp, for |x| below 10¹⁸.
pub fn asinh(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let one = c(b, x, 1.0);
    let s = b.fma(a, a, one);
    let s = b.un(UnOp::Sqrt, s);
    let s = b.add(s, one);
    let q = b.mul(a, a);
    let q = b.div(q, s);
    let u = b.add(a, q);
    let r = log1p(b, u);
    copysign(b, r, x)
}

/// acosh x (NaN below 1); error below 4 ulp, for x below 10¹⁸.
pub fn acosh(b: &mut B, x: Reg) -> Reg {
    let t = add_c(b, x, -1.0);
    let two = c(b, x, 2.0);
    let t2 = b.add(t, two);
    let (r, r2) = (b.un(UnOp::Sqrt, t), b.un(UnOp::Sqrt, t2)); // NaN below 1
    let u = b.fma(r, r2, t);
    log1p(b, u)
}

/// atanh x (NaN outside −1..1); error below 4 ulp.
pub fn atanh(b: &mut B, x: Reg) -> Reg {
    let a = abs(b, x);
    let one = c(b, x, 1.0);
    let d = b.sub(one, a);
    let n = b.add(a, a);
    let q = b.div(n, d);
    let l = log1p(b, q);
    let r = mul_c(b, l, 0.5);
    copysign(b, r, x)
}
