//! The incomplete gamma function, and random numbers of distributions that rest on it or on each
//! other: Poisson's, gamma, Dirichlet's, binomial. Those compute in f64.

use super::lod::{iota, scan};
use super::random::{normal, unit};
use super::special::lgamma;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, ReduceOp, UnaryOp, Value};

/// Terms of series and fractions: enough to f64 for arguments up to about a thousand.
const TERMS: i64 = 256;
/// Means from which a sum of events is drawn as a rounded normal number.
const MANY: f64 = 64.0;
/// Draws of which one is kept; each is kept at least 95 times of 100.
const TRIES: i64 = 16;

/// gammaincc: the share of `Γ(x)` above y, by its series or by its continued fraction (Lentz).
pub fn upper_gamma(c: &mut Ctx<'_, '_>) -> Res {
    let (a, x) = (c.tensor("x")?, c.tensor("y")?);
    let dtype = c.b.g.dtype(a);
    let (a, x) = (c.b.cast(a, Dtype::F64)?, c.b.cast(x, Dtype::F64)?);
    let both = c.b.add(a, x)?;
    let dims = c.dims(both);
    let (a, x) = (c.b.broadcast(a, dims.clone())?, c.b.broadcast(x, dims.clone())?);
    let steps = iota(c, &TERMS.into())?;
    let steps = c.b.cast(steps, Dtype::F64)?;
    let steps = c.b.bin_scalar(BinaryOp::Add, steps, 1.0)?;
    let first = c.b.un(UnaryOp::Recip, a)?;
    let series = scan(c, &[first, first], &[steps], false, &mut |c, s, k| {
        let below = c.b.add(a, k[0])?;
        let ratio = c.b.div(x, below)?;
        let term = c.b.mul(s[1], ratio)?;
        Ok((vec![c.b.add(s[0], term)?, term], vec![]))
    })?[0];
    let b = c.b.sub(x, a)?;
    let b = c.b.bin_scalar(BinaryOp::Add, b, 1.0)?;
    let d = c.b.un(UnaryOp::Recip, b)?;
    let far = c.b.scalar(Dtype::F64, 1e300);
    let far = c.b.broadcast(far, dims)?;
    let fraction = scan(c, &[b, far, d, d], &[steps], false, &mut |c, s, k| {
        let (b, e, d, h) = (s[0], s[1], s[2], s[3]);
        let off = c.b.sub(a, k[0])?;
        let an = c.b.mul(off, k[0])?;
        let b = c.b.bin_scalar(BinaryOp::Add, b, 2.0)?;
        let d = c.b.mul(an, d)?;
        let d = c.b.add(d, b)?;
        let d = c.b.un(UnaryOp::Recip, d)?;
        let e = c.b.div(an, e)?;
        let e = c.b.add(b, e)?;
        let step = c.b.mul(d, e)?;
        Ok((vec![b, e, d, c.b.mul(h, step)?], vec![]))
    })?[3];
    // e^-x x^a / Γ(a)
    let power = c.b.un(UnaryOp::Log, x)?;
    let power = c.b.mul(power, a)?;
    let power = c.b.sub(power, x)?;
    let l = lgamma(c, a)?;
    let power = c.b.sub(power, l)?;
    let weight = c.b.un(UnaryOp::Exp, power)?;
    let below = c.b.mul(weight, series)?;
    let one = c.b.scalar(Dtype::F64, 1.0);
    let near = c.b.sub(one, below)?;
    let above = c.b.mul(weight, fraction)?;
    let least = c.b.bin_scalar(BinaryOp::Add, a, 1.0)?;
    let is_near = c.b.bin(BinaryOp::Lt, x, least)?;
    let v = c.b.select(is_near, near, above)?;
    let zero = c.b.scalar(Dtype::F64, 0.0);
    let none = c.b.bin_scalar(BinaryOp::Eq, a, 0.0)?;
    let v = c.b.select(none, zero, v)?;
    // Nothing lies below 0, everything below infinity.
    let start = c.b.bin_scalar(BinaryOp::Eq, x, 0.0)?;
    let v = c.b.select(start, one, v)?;
    let end = c.b.un(UnaryOp::IsInf, x)?;
    let v = c.b.select(end, zero, v)?;
    let v = c.b.cast(v, dtype)?;
    c.put("out", v);
    Ok(())
}

/// How many of a distribution's sums lie below a uniform number: `p` is the chance of 0, and `next`
/// gives the ratio of the chance of k + 1 to that of k.
fn counted(
    c: &mut Ctx<'_, '_>,
    p: Value,
    next: &mut dyn FnMut(&mut Ctx<'_, '_>, Value) -> Res<Value>,
) -> Res<Value> {
    let dims = c.dims(p);
    let u = unit(c, Dtype::F64, dims.clone())?;
    let zero = c.b.scalar(Dtype::F64, 0.0);
    let zero = c.b.broadcast(zero, dims)?;
    let steps = iota(c, &TERMS.into())?;
    let steps = c.b.cast(steps, Dtype::F64)?;
    let outs = scan(c, &[zero, p, p], &[steps], false, &mut |c, s, k| {
        let above = c.b.bin(BinaryOp::Gt, u, s[2])?;
        let above = c.b.cast(above, Dtype::F64)?;
        let count = c.b.add(s[0], above)?;
        let ratio = next(c, k[0])?;
        let p = c.b.mul(s[1], ratio)?;
        Ok((vec![count, p, c.b.add(s[2], p)?], vec![]))
    })?;
    Ok(outs[0])
}

/// A rounded normal number, not below 0.
fn rounded(c: &mut Ctx<'_, '_>, mean: Value, variance: Value) -> Res<Value> {
    let z = normal(c, Dtype::F64, c.dims(mean))?;
    let width = c.b.un(UnaryOp::Sqrt, variance)?;
    let z = c.b.mul(z, width)?;
    let v = c.b.add(mean, z)?;
    let v = c.b.un(UnaryOp::Round, v)?;
    Ok(c.b.bin_scalar(BinaryOp::Max, v, 0.0)?)
}

/// poisson: counts of events of which x are expected.
pub fn poisson(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let dtype = c.b.g.dtype(x);
    let x = c.b.cast(x, Dtype::F64)?;
    let few = c.b.bin_scalar(BinaryOp::Min, x, MANY)?;
    let minus = c.b.un(UnaryOp::Neg, few)?;
    let p = c.b.un(UnaryOp::Exp, minus)?;
    let v = counted(c, p, &mut |c, k| {
        let k = c.b.bin_scalar(BinaryOp::Add, k, 1.0)?;
        Ok(c.b.div(few, k)?)
    })?;
    let far = rounded(c, x, x)?;
    let is_near = c.b.bin_scalar(BinaryOp::Lt, x, MANY)?;
    let v = c.b.select(is_near, v, far)?;
    let v = c.b.cast(v, dtype)?;
    c.put("Out|out", v);
    Ok(())
}

/// binomial: how many of `count` trials succeed.
pub fn binomial(c: &mut Ctx<'_, '_>) -> Res {
    let (n, p) = (c.tensor("count")?, c.tensor("prob")?);
    let (n, p) = (c.b.cast(n, Dtype::F64)?, c.b.cast(p, Dtype::F64)?);
    let mean = c.b.mul(n, p)?;
    let dims = c.dims(mean);
    let (n, p) = (c.b.broadcast(n, dims.clone())?, c.b.broadcast(p, dims)?);
    // The rarer of the two outcomes is counted.
    let often = c.b.bin_scalar(BinaryOp::Gt, p, 0.5)?;
    let one = c.b.scalar(Dtype::F64, 1.0);
    let other = c.b.sub(one, p)?;
    let rare = c.b.select(often, other, p)?;
    let rest = c.b.sub(one, rare)?;
    let odds = c.b.div(rare, rest)?;
    let none = c.b.bin(BinaryOp::Pow, rest, n)?;
    let v = counted(c, none, &mut |c, k| {
        let left = c.b.sub(n, k)?;
        let next = c.b.bin_scalar(BinaryOp::Add, k, 1.0)?;
        let ratio = c.b.div(left, next)?;
        Ok(c.b.mul(ratio, odds)?)
    })?;
    let mean = c.b.mul(n, rare)?;
    let variance = c.b.mul(mean, rest)?;
    let far = rounded(c, mean, variance)?;
    let is_near = c.b.bin_scalar(BinaryOp::Lt, mean, MANY)?;
    let v = c.b.select(is_near, v, far)?;
    let v = c.b.min(v, n)?;
    let flipped = c.b.sub(n, v)?;
    let v = c.b.select(often, flipped, v)?;
    let v = c.b.cast(v, Dtype::I64)?;
    c.put("out", v);
    Ok(())
}

/// Gamma's distribution of scale 1, by the first of some cubed normal numbers that is kept
/// (Marsaglia and Tsang).
fn gamma(c: &mut Ctx<'_, '_>, alpha: Value) -> Res<Value> {
    let dims = c.dims(alpha);
    let small = c.b.bin_scalar(BinaryOp::Lt, alpha, 1.0)?;
    let up = c.b.bin_scalar(BinaryOp::Add, alpha, 1.0)?;
    let shape = c.b.select(small, up, alpha)?;
    let d = c.b.bin_scalar(BinaryOp::Sub, shape, 1.0 / 3.0)?;
    let width = c.b.bin_scalar(BinaryOp::Mul, d, 9.0)?;
    let width = c.b.un(UnaryOp::Rsqrt, width)?;
    let all = [&[Dim::from(TRIES)], &dims[..]].concat();
    let (z, u) = (normal(c, Dtype::F64, all.clone())?, unit(c, Dtype::F64, all)?);
    let no = c.b.scalar(Dtype::Bool, 0.0);
    let no = c.b.broadcast(no, dims.clone())?;
    let outs = scan(c, &[d, no], &[z, u], false, &mut |c, s, row| {
        let moved = c.b.mul(width, row[0])?;
        let moved = c.b.bin_scalar(BinaryOp::Add, moved, 1.0)?;
        let positive = c.b.bin_scalar(BinaryOp::Gt, moved, 0.0)?;
        let cube = c.b.mul(moved, moved)?;
        let cube = c.b.mul(cube, moved)?;
        let safe = c.b.bin_scalar(BinaryOp::Max, cube, 1e-300)?;
        let log = c.b.un(UnaryOp::Log, safe)?;
        // ln u < z²/2 + d (1 - v + ln v)
        let part = c.b.sub(log, cube)?;
        let part = c.b.bin_scalar(BinaryOp::Add, part, 1.0)?;
        let part = c.b.mul(part, d)?;
        let square = c.b.mul(row[0], row[0])?;
        let square = c.b.bin_scalar(BinaryOp::Mul, square, 0.5)?;
        let bound = c.b.add(square, part)?;
        let lu = c.b.un(UnaryOp::Log, row[1])?;
        let fits = c.b.bin(BinaryOp::Lt, lu, bound)?;
        let fits = c.b.bin(BinaryOp::And, fits, positive)?;
        let open = c.b.un(UnaryOp::Not, s[1])?;
        let take = c.b.bin(BinaryOp::And, fits, open)?;
        let v = c.b.mul(d, cube)?;
        Ok((vec![c.b.select(take, v, s[0])?, c.b.bin(BinaryOp::Or, s[1], fits)?], vec![]))
    })?;
    // Γ(a) is Γ(a + 1) u^(1/a).
    let u = unit(c, Dtype::F64, dims)?;
    let inverse = c.b.un(UnaryOp::Recip, alpha)?;
    let power = c.b.bin(BinaryOp::Pow, u, inverse)?;
    let less = c.b.mul(outs[0], power)?;
    Ok(c.b.select(small, less, outs[0])?)
}

/// standard_gamma; dirichlet: shares of such numbers along the last axis.
pub fn gammas(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Alpha|alpha|x")?;
    let dtype = c.b.g.dtype(x);
    let alpha = c.b.cast(x, Dtype::F64)?;
    let mut v = gamma(c, alpha)?;
    if c.op.kind == "dirichlet" {
        let Some(last) = c.rank(v).checked_sub(1) else { return c.refuse("no shares") };
        let sum = c.b.reduce(ReduceOp::Sum, v, &[last], true)?;
        v = c.b.div(v, sum)?;
    }
    let v = c.b.cast(v, dtype)?;
    c.put("Out|out", v);
    Ok(())
}
