//! Special functions. Each is computed in f64, whatever its operand is, so that no step loses what
//! the result needs: logarithms of the gamma function near its zeros, tails of the error function's
//! inverse. All series here follow from the functions' definitions: Stirling's with Bernoulli
//! numbers, the trapezoidal rule for Bessel's integral, Hankel's expansion behind it.

use super::lod::scan;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};
use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// From here on Stirling's series is exact to f64.
const STIRLING: f64 = 8.0;

/// Bernoulli numbers B2, B4, …
const BERNOULLI: [f64; 8] = [
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
];

/// Runs a function in f64.
fn wide(c: &mut Ctx<'_, '_>, f: impl FnOnce(&mut Ctx<'_, '_>, Value) -> Res<Value>) -> Res {
    let x = c.tensor("X|x")?;
    let dtype = c.b.g.dtype(x);
    if !dtype.is_float() {
        return c.refuse("a special function of integers");
    }
    let v = c.b.cast(x, Dtype::F64)?;
    let v = f(c, v)?;
    let v = c.b.cast(v, dtype)?;
    c.put("Out|out", v);
    Ok(())
}

/// `Σ list[k] x^k`.
fn polynomial(c: &mut Ctx<'_, '_>, x: Value, list: &[f64]) -> Res<Value> {
    let (last, rest) = list.split_last().unwrap_or((&0.0, &[]));
    let mut v = c.b.scalar(Dtype::F64, *last);
    for &k in rest.iter().rev() {
        v = c.b.mul(v, x)?;
        v = c.b.bin_scalar(BinaryOp::Add, v, k)?;
    }
    Ok(v)
}

/// `k - x`.
fn less(c: &mut Ctx<'_, '_>, k: f64, x: Value) -> Res<Value> {
    let k = c.b.scalar(Dtype::F64, k);
    Ok(c.b.sub(k, x)?)
}

/// The argument of a reflected function: x where it is at least a half, else `1 - x`; and whether
/// it was reflected.
fn reflected(c: &mut Ctx<'_, '_>, x: Value) -> Res<(Value, Value)> {
    let low = c.b.bin_scalar(BinaryOp::Lt, x, 0.5)?;
    let other = less(c, 1.0, x)?;
    Ok((c.b.select(low, other, x)?, low))
}

/// `pi * (x - round(x))`, which keeps a sine's zeros exact.
fn turn(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let whole = c.b.un(UnaryOp::Round, x)?;
    let part = c.b.sub(x, whole)?;
    Ok(c.b.bin_scalar(BinaryOp::Mul, part, PI)?)
}

/// x moved up by [`STIRLING`] where it is below that; and whether it was.
fn lifted(c: &mut Ctx<'_, '_>, x: Value) -> Res<(Value, Value)> {
    let small = c.b.bin_scalar(BinaryOp::Lt, x, STIRLING)?;
    let up = c.b.bin_scalar(BinaryOp::Add, x, STIRLING)?;
    Ok((c.b.select(small, up, x)?, small))
}

/// digamma, lgamma, erfinv, i0, i0e, i1, i1e.
pub fn special(c: &mut Ctx<'_, '_>) -> Res {
    match c.op.kind.trim_end_matches('_') {
        "digamma" => wide(c, digamma),
        "lgamma" | "gammaln" => wide(c, lgamma),
        "erfinv" => wide(c, erf_inverse),
        "i0" => wide(c, |c, x| bessel(c, x, false, false)),
        "i0e" => wide(c, |c, x| bessel(c, x, false, true)),
        "i1" => wide(c, |c, x| bessel(c, x, true, false)),
        "i1e" => wide(c, |c, x| bessel(c, x, true, true)),
        _ => c.refuse("no such function"),
    }
}

/// `ln |Γ(x)|`.
pub fn lgamma(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let (p, low) = reflected(c, x)?;
    let (z, small) = lifted(c, p)?;
    // (z - 1/2) ln z - z + ln(2π)/2 + Σ B2k / (2k (2k - 1) z^(2k-1))
    let r = c.b.un(UnaryOp::Recip, z)?;
    let q = c.b.mul(r, r)?;
    let weights: Vec<f64> =
        (1..).zip(BERNOULLI).map(|(k, b)| b / f64::from(2 * k * (2 * k - 1))).collect();
    let tail = polynomial(c, q, &weights)?;
    let tail = c.b.mul(tail, r)?;
    let l = c.b.un(UnaryOp::Log, z)?;
    let half = c.b.bin_scalar(BinaryOp::Sub, z, 0.5)?;
    let v = c.b.mul(half, l)?;
    let v = c.b.sub(v, z)?;
    let v = c.b.bin_scalar(BinaryOp::Add, v, (2.0 * PI).ln() / 2.0)?;
    let v = c.b.add(v, tail)?;
    // Γ(p + 8) = p (p + 1) … (p + 7) Γ(p)
    let mut product = p;
    for k in 1..STIRLING as i64 {
        let next = c.b.bin_scalar(BinaryOp::Add, p, k as f64)?;
        product = c.b.mul(product, next)?;
    }
    let moved = c.b.un(UnaryOp::Log, product)?;
    let moved = c.b.sub(v, moved)?;
    let v = c.b.select(small, moved, v)?;
    // Γ(x) Γ(1 - x) = π / sin(πx)
    let s = turn(c, x)?;
    let s = c.b.un(UnaryOp::Sin, s)?;
    let s = c.b.un(UnaryOp::Abs, s)?;
    let s = c.b.un(UnaryOp::Log, s)?;
    let s = less(c, PI.ln(), s)?;
    let mirror = c.b.sub(s, v)?;
    let v = c.b.select(low, mirror, v)?;
    // Both infinities give infinity.
    let a = c.b.un(UnaryOp::Abs, x)?;
    let ends = c.b.un(UnaryOp::IsInf, x)?;
    Ok(c.b.select(ends, a, v)?)
}

/// The derivative of `ln Γ`.
fn digamma(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let (p, low) = reflected(c, x)?;
    let (z, small) = lifted(c, p)?;
    // ln z - 1/(2z) - Σ B2k / (2k z^2k)
    let r = c.b.un(UnaryOp::Recip, z)?;
    let q = c.b.mul(r, r)?;
    let weights: Vec<f64> = (1..).zip(BERNOULLI).map(|(k, b)| b / f64::from(2 * k)).collect();
    let tail = polynomial(c, q, &weights)?;
    let tail = c.b.mul(tail, q)?;
    let l = c.b.un(UnaryOp::Log, z)?;
    let half = c.b.bin_scalar(BinaryOp::Mul, r, 0.5)?;
    let v = c.b.sub(l, half)?;
    let v = c.b.sub(v, tail)?;
    // ψ(p + 8) = ψ(p) + 1/p + … + 1/(p + 7)
    let mut sum = c.b.un(UnaryOp::Recip, p)?;
    for k in 1..STIRLING as i64 {
        let next = c.b.bin_scalar(BinaryOp::Add, p, k as f64)?;
        let next = c.b.un(UnaryOp::Recip, next)?;
        sum = c.b.add(sum, next)?;
    }
    let moved = c.b.sub(v, sum)?;
    let v = c.b.select(small, moved, v)?;
    // ψ(1 - x) - ψ(x) = π / tan(πx)
    let t = turn(c, x)?;
    let t = c.b.un(UnaryOp::Tan, t)?;
    let pi = c.b.scalar(Dtype::F64, PI);
    let t = c.b.div(pi, t)?;
    let mirror = c.b.sub(v, t)?;
    Ok(c.b.select(low, mirror, v)?)
}

/// The inverse of erf: a start that is right to three digits, then Halley's steps, each of which
/// triples their number.
pub fn erf_inverse(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    const A: f64 = 0.147;
    let square = c.b.mul(x, x)?;
    let l = less(c, 1.0, square)?;
    let l = c.b.un(UnaryOp::Log, l)?;
    let half = c.b.bin_scalar(BinaryOp::Mul, l, 0.5)?;
    let t = c.b.bin_scalar(BinaryOp::Add, half, 2.0 / (PI * A))?;
    let inner = c.b.mul(t, t)?;
    let scaled = c.b.bin_scalar(BinaryOp::Mul, l, 1.0 / A)?;
    let inner = c.b.sub(inner, scaled)?;
    let root = c.b.un(UnaryOp::Sqrt, inner)?;
    let v = c.b.sub(root, t)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    let v = c.b.un(UnaryOp::Sqrt, v)?;
    let sign = c.b.un(UnaryOp::Sign, x)?;
    let start = c.b.mul(sign, v)?;
    let mut y = start;
    for _ in 0..3 {
        let e = c.b.un(UnaryOp::Erf, y)?;
        let e = c.b.sub(e, x)?;
        let s = c.b.mul(y, y)?;
        let s = c.b.un(UnaryOp::Exp, s)?;
        let r = c.b.mul(e, s)?;
        let r = c.b.bin_scalar(BinaryOp::Mul, r, 1.0 / FRAC_2_SQRT_PI)?;
        let d = c.b.mul(y, r)?;
        let d = c.b.bin_scalar(BinaryOp::Add, d, 1.0)?;
        let r = c.b.div(r, d)?;
        y = c.b.sub(y, r)?;
    }
    let ends = c.b.un(UnaryOp::IsInf, start)?;
    Ok(c.b.select(ends, start, y)?)
}

/// Nodes of Bessel's integral; with them the trapezoidal rule is exact to f64 below [`FAR`].
const NODES: i64 = 32;
const FAR: f64 = 30.0;

/// The modified Bessel functions of order 0 and 1, times `e^-|x|` if scaled:
/// `1/π ∫ e^(x cos t) cos(nt) dt` from 0 to π.
fn bessel(c: &mut Ctx<'_, '_>, x: Value, one: bool, scaled: bool) -> Res<Value> {
    let a = c.b.un(UnaryOp::Abs, x)?;
    let near = c.b.bin_scalar(BinaryOp::Min, a, FAR)?;
    let mut sum: Option<Value> = None;
    for k in 0..NODES {
        let node = (PI * (k as f64 + 0.5) / NODES as f64).cos();
        let e = c.b.bin_scalar(BinaryOp::Mul, near, node - 1.0)?;
        let e = c.b.un(UnaryOp::Exp, e)?;
        let weight = if one { node } else { 1.0 } / NODES as f64;
        let e = c.b.bin_scalar(BinaryOp::Mul, e, weight)?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, e)?,
            None => e,
        });
    }
    let Some(v) = sum else { return c.refuse("no nodes") };
    // Hankel: Σ (-1)^k (m - 1)(m - 9)…(m - (2k-1)²) / (k! (8x)^k) / sqrt(2πx), m = 4n².
    let m = if one { 4.0 } else { 0.0 };
    let mut weights = vec![1.0];
    for k in 1..10 {
        let odd = f64::from(2 * k - 1);
        let last = weights[weights.len() - 1];
        weights.push(-last * (m - odd * odd) / f64::from(8 * k));
    }
    let big = c.b.bin_scalar(BinaryOp::Max, a, FAR)?;
    let r = c.b.un(UnaryOp::Recip, big)?;
    let far = polynomial(c, r, &weights)?;
    let root = c.b.bin_scalar(BinaryOp::Mul, r, 0.5 / PI)?;
    let root = c.b.un(UnaryOp::Sqrt, root)?;
    let far = c.b.mul(far, root)?;
    let is_near = c.b.bin_scalar(BinaryOp::Le, a, FAR)?;
    let mut v = c.b.select(is_near, v, far)?;
    if !scaled {
        let e = c.b.un(UnaryOp::Exp, a)?;
        v = c.b.mul(v, e)?;
    }
    if one {
        let sign = c.b.un(UnaryOp::Sign, x)?;
        v = c.b.mul(v, sign)?;
    }
    Ok(v)
}

/// nextafter: the neighbour of x on the way to y. Magnitudes count up as their bits do.
pub fn next_after(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let dtype = c.b.g.dtype(x);
    let bits = match dtype {
        Dtype::F32 => Dtype::I32,
        Dtype::F64 => Dtype::I64,
        Dtype::F16 | Dtype::BF16 => Dtype::I16,
        other => return c.refuse(format!("neighbours of {other}")),
    };
    let i = c.b.prim(Prim::Bitcast { to: bits }, &[x])?;
    let (up, down) =
        (c.b.bin_scalar(BinaryOp::Add, i, 1.0)?, c.b.bin_scalar(BinaryOp::Sub, i, 1.0)?);
    let (higher, positive) = (c.b.bin(BinaryOp::Gt, y, x)?, c.b.bin_scalar(BinaryOp::Gt, x, 0.0)?);
    let away = c.b.bin(BinaryOp::Eq, higher, positive)?;
    let step = c.b.select(away, up, down)?;
    let step = c.b.prim(Prim::Bitcast { to: dtype }, &[step])?;
    // From zero: the least number of y's sign.
    let least = c.b.scalar(bits, 1.0);
    let least = c.b.prim(Prim::Bitcast { to: dtype }, &[least])?;
    let minus = c.b.un(UnaryOp::Neg, least)?;
    let first = c.b.select(higher, least, minus)?;
    let zero = c.b.bin_scalar(BinaryOp::Eq, x, 0.0)?;
    let v = c.b.select(zero, first, step)?;
    let same = c.b.bin(BinaryOp::Eq, x, y)?;
    let v = c.b.select(same, y, v)?;
    // Neither is a number: their sum is none.
    let sum = c.b.add(x, y)?;
    let (p, q) = (c.b.un(UnaryOp::IsNan, x)?, c.b.un(UnaryOp::IsNan, y)?);
    let none = c.b.bin(BinaryOp::Or, p, q)?;
    let v = c.b.select(none, sum, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// `ln(e^a + e^b)`.
fn add_logs(c: &mut Ctx<'_, '_>, a: Value, b: Value) -> Res<Value> {
    let top = c.b.max(a, b)?;
    let d = c.b.sub(a, b)?;
    let d = c.b.un(UnaryOp::Abs, d)?;
    let d = c.b.un(UnaryOp::Neg, d)?;
    let e = c.b.un(UnaryOp::Exp, d)?;
    let l = c.b.un(UnaryOp::Log1p, e)?;
    let v = c.b.add(top, l)?;
    // Infinities of one sign have no difference.
    let same = c.b.bin(BinaryOp::Eq, a, b)?;
    let ends = c.b.un(UnaryOp::IsInf, a)?;
    let ends = c.b.bin(BinaryOp::And, same, ends)?;
    Ok(c.b.select(ends, a, v)?)
}

/// logcumsumexp: a scan, since a sum of exponentials over all would lose small beginnings.
pub fn log_cum_sum_exp(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X|x")?;
    let mut axis = c.int_or("Axis", "axis", -1)?;
    if c.flag("flatten", false) {
        let n = c.b.g.tensor(x).count();
        x = c.b.reshape(x, vec![n])?;
        axis = 0;
    }
    if c.rank(x) == 0 {
        c.put("Out|out", x);
        return Ok(());
    }
    let (rank, axis) = (c.rank(x), axis_of(axis, c.rank(x))?);
    let first: Vec<usize> = [axis].into_iter().chain((0..rank).filter(|&i| i != axis)).collect();
    let rows = c.b.transpose(x, &first)?;
    let dtype = c.b.g.dtype(x);
    let least = if dtype == Dtype::F64 { f64::MIN } else { f32::MIN.into() };
    let none = c.b.scalar(dtype, least);
    let shape: Vec<Dim> = c.dims_from(rows, 1)?;
    let start = c.b.broadcast(none, shape)?;
    let (exclusive, reverse) = (c.flag("exclusive", false), c.flag("reverse", false));
    let outs = scan(c, &[start], &[rows], reverse, &mut |c, carried, row| {
        let next = add_logs(c, carried[0], row[0])?;
        Ok((vec![next], vec![if exclusive { carried[0] } else { next }]))
    })?;
    let mut back = vec![0; rank];
    for (i, &p) in first.iter().enumerate() {
        back[p] = i;
    }
    let v = c.b.transpose(outs[1], &back)?;
    c.put("Out|out", v);
    Ok(())
}

/// polygamma: the n-th derivative of digamma, of arguments above 0: with `m = n + 1`,
/// `(-1)^m n! Σ 1 / (x + k)^m`, its tail by Euler and Maclaurin.
pub fn polygamma(c: &mut Ctx<'_, '_>) -> Res {
    let n = c.int("n", 1);
    match n {
        0 => return wide(c, digamma),
        1..=16 => {}
        _ => return c.refuse(format!("the polygamma function {n}")),
    }
    let m = (n + 1) as f64;
    let factorial: f64 = (1..=n).map(|k| k as f64).product();
    wide(c, |c, x| {
        let power = |c: &mut Ctx<'_, '_>, v: Value| c.b.bin_scalar(BinaryOp::Pow, v, -m);
        let mut sum = power(c, x)?;
        for k in 1..2 * STIRLING as i64 {
            let next = c.b.bin_scalar(BinaryOp::Add, x, k as f64)?;
            let next = power(c, next)?;
            sum = c.b.add(sum, next)?;
        }
        // z^(1-m) / (m - 1) + z^-m / 2 + Σ B2k / (2k)! m (m + 1) … (m + 2k - 2) z^(1-m-2k)
        let z = c.b.bin_scalar(BinaryOp::Add, x, 2.0 * STIRLING)?;
        let r = c.b.un(UnaryOp::Recip, z)?;
        let q = c.b.mul(r, r)?;
        let mut rising = m / 2.0;
        let mut weights = vec![1.0 / (m - 1.0)];
        for (k, b) in (1..).zip(BERNOULLI) {
            weights.push(b * rising);
            let k = f64::from(2 * k);
            rising *= (m + k - 1.0) * (m + k) / ((k + 1.0) * (k + 2.0));
        }
        let tail = polynomial(c, q, &weights)?;
        let tail = c.b.mul(tail, z)?;
        let tail = c.b.bin_scalar(BinaryOp::Add, tail, 0.5)?;
        let last = power(c, z)?;
        let tail = c.b.mul(tail, last)?;
        let v = c.b.add(sum, tail)?;
        let sign = if n % 2 == 0 { -1.0 } else { 1.0 };
        Ok(c.b.bin_scalar(BinaryOp::Mul, v, sign * factorial)?)
    })
}
