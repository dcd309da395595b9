//! Normalisations.

use super::conv::channels_second;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::ops::conv::channel_vector;
use hub_ir::ops::norm::{BatchNorm, LayerNorm};
use hub_ir::{BinaryOp, Dim, Geometry, Prim, ReduceOp, UnaryOp, Value};

/// x as its parameters are: halves are normalised with f32 parameters, in f32.
fn widened(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    match c.opt("Scale|Bias").map(|v| c.b.g.dtype(v)) {
        Some(d) if c.b.g.dtype(x).is_small_float() && d.is_float() => Ok(c.b.cast(x, d)?),
        _ => Ok(x),
    }
}

/// batch_norm with its moving statistics, which inference always uses.
pub fn batch_norm(c: &mut Ctx<'_, '_>) -> Res {
    let given = c.tensor("X")?;
    let x = widened(c, given)?;
    let stats = ["Scale", "Bias", "Mean", "Variance"].map(|s| c.tensor(s));
    let [scale, bias, mean, var] = stats;
    let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
    let eps = c.float("epsilon", 1e-5) as f32;
    let vs = channels_second(c, x, |c, x| {
        Ok(vec![c.b.source(BatchNorm { eps }, &[x, scale, bias, mean, var])?])
    })?;
    let v = c.b.cast(vs[0], c.b.g.dtype(given))?;
    c.put("Y", v);
    Ok(())
}

/// layer_norm over the axes from begin_norm_axis on.
pub fn layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let given = c.tensor("X")?;
    let x = widened(c, given)?;
    let axis = axis_of(c.int("begin_norm_axis", 1), c.rank(x))?;
    let param = |s| c.opt(s).unwrap_or(Value::NONE);
    let ins = [x, param("Scale"), param("Bias")];
    let eps = c.float("epsilon", 1e-5) as f32;
    let v = c.b.source(LayerNorm { axis, eps }, &ins)?;
    let v = c.b.cast(v, c.b.g.dtype(given))?;
    c.put("Y", v);
    Ok(())
}

/// Zero mean and unit variance over axes.
fn normal(c: &mut Ctx<'_, '_>, x: Value, axes: &[usize], eps: f64) -> Res<Value> {
    let mean = c.b.reduce(ReduceOp::Mean, x, axes, true)?;
    let d = c.b.sub(x, mean)?;
    let q = c.b.mul(d, d)?;
    let var = c.b.reduce(ReduceOp::Mean, q, axes, true)?;
    let var = c.b.bin_scalar(BinaryOp::Add, var, eps)?;
    let inv = c.b.un(UnaryOp::Rsqrt, var)?;
    Ok(c.b.mul(d, inv)?)
}

fn affine(c: &mut Ctx<'_, '_>, mut v: Value) -> Res<Value> {
    let rank = c.rank(v);
    for (slot, op) in [("Scale", BinaryOp::Mul), ("Bias", BinaryOp::Add)] {
        if let Some(k) = c.opt(slot) {
            let k = channel_vector(c.b, k, rank)?;
            v = c.b.bin(op, v, k)?;
        }
    }
    Ok(v)
}

/// instance_norm over the spatial axes.
pub fn instance_norm(c: &mut Ctx<'_, '_>) -> Res {
    let given = c.tensor("X")?;
    let x = widened(c, given)?;
    let rank = c.rank(x);
    if rank < 3 {
        return c.refuse("no spatial axis");
    }
    let axes: Vec<usize> = (2..rank).collect();
    let v = normal(c, x, &axes, c.float("epsilon", 1e-5))?;
    let v = affine(c, v)?;
    let v = c.b.cast(v, c.b.g.dtype(given))?;
    c.put("Y", v);
    Ok(())
}

/// group_norm over groups of channels and the spatial axes.
pub fn group_norm(c: &mut Ctx<'_, '_>) -> Res {
    let given = c.tensor("X")?;
    let x = widened(c, given)?;
    let vs = channels_second(c, x, |c, x| Ok(vec![grouped(c, x)?]))?;
    let v = c.b.cast(vs[0], c.b.g.dtype(given))?;
    c.put("Y", v);
    Ok(())
}

/// group_norm of what has its channels second.
fn grouped(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let dims = c.dims(x);
    let groups = c.int("groups", 1);
    if dims.len() < 2 || groups < 1 {
        return c.refuse("no channels, or no groups");
    }
    let g = Dim::from(groups);
    let rest = Dim::product(&dims[2..]).mul(&dims[1].div(&g));
    let v = c.b.reshape(x, vec![dims[0].clone(), g, rest])?;
    let v = normal(c, v, &[2], c.float("epsilon", 1e-5))?;
    let v = c.b.reshape(v, dims)?;
    affine(c, v)
}

/// affine_channel: `x * scale + bias` by channel.
pub fn affine_channel(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let vs = channels_second(c, x, |c, x| Ok(vec![affine(c, x)?]))?;
    c.put("Out", vs[0]);
    Ok(())
}

/// data_norm: by the sums that training kept.
pub fn data_norm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let [n, sum, squares] = ["BatchSize", "BatchSum", "BatchSquareSum"].map(|s| c.tensor(s));
    let (n, sum, squares) = (n?, sum?, squares?);
    let mean = c.b.div(sum, n)?;
    let scale = c.b.div(n, squares)?;
    let scale = c.b.un(UnaryOp::Sqrt, scale)?;
    let v = c.b.sub(x, mean)?;
    let mut v = c.b.mul(v, scale)?;
    if let (Some(w), Some(b)) = (c.opt("scale_w"), c.opt("bias")) {
        v = c.b.mul(v, w)?;
        v = c.b.add(v, b)?;
    }
    c.put("Means", mean);
    c.put("Scales", scale);
    c.put("Y", v);
    Ok(())
}

/// norm: x divided by its length along an axis.
pub fn l2_normalize(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let q = c.b.mul(x, x)?;
    let s = c.b.reduce(ReduceOp::Sum, q, &[axis], true)?;
    let s = c.b.bin_scalar(BinaryOp::Add, s, c.float("epsilon", 1e-10))?;
    let n = c.b.un(UnaryOp::Sqrt, s)?;
    let v = c.b.div(x, n)?;
    c.put("Out", v);
    c.put("Norm", n);
    Ok(())
}

/// lrn: x divided by a power of the squares of neighbouring channels.
pub fn lrn(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let (dims, n) = (c.dims(x), c.int("n", 5));
    if dims.len() != 4 || !(1..=1 << 10).contains(&n) || c.text("data_format", "NCHW") == "NHWC" {
        return c.refuse("a layout other than NCHW, or such a window");
    }
    let q = c.b.mul(x, x)?;
    // Channels as rows of a picture, so that a window runs over them.
    let rows = vec![dims[0].clone(), 1i64.into(), dims[1].clone(), dims[2].mul(&dims[3])];
    let q = c.b.reshape(q, rows)?;
    let mut geo = Geometry::unit(2);
    geo.before[0] = ((n - 1) / 2).into();
    geo.after[0] = (n - 1 - (n - 1) / 2).into();
    let q = c.b.prim(Prim::Window { op: ReduceOp::Sum, kernel: vec![n, 1], geo }, &[q])?;
    let q = c.b.reshape(q, dims)?;
    let q = c.b.bin_scalar(BinaryOp::Mul, q, c.float("alpha", 1e-4))?;
    let q = c.b.bin_scalar(BinaryOp::Add, q, c.float("k", 2.0))?;
    let d = c.b.bin_scalar(BinaryOp::Pow, q, c.float("beta", 0.75))?;
    let v = c.b.div(x, d)?;
    c.put("Out", v);
    Ok(())
}

/// renorm: parts along an axis whose p-norm is over a bound, scaled down to it.
pub fn renorm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let (p, most) = (c.float("p", 2.0), c.float("max_norm", 1.0));
    let others: Vec<usize> = (0..c.rank(x)).filter(|&i| i != axis).collect();
    let a = c.b.un(UnaryOp::Abs, x)?;
    let n = if p == f64::INFINITY {
        c.b.reduce(ReduceOp::Max, a, &others, true)?
    } else {
        let q = c.b.bin_scalar(BinaryOp::Pow, a, p)?;
        let s = c.b.reduce(ReduceOp::Sum, q, &others, true)?;
        c.b.bin_scalar(BinaryOp::Pow, s, 1.0 / p)?
    };
    let (bound, one) = (c.b.scalar(c.b.g.dtype(x), most), c.b.scalar(c.b.g.dtype(x), 1.0));
    let long = c.b.bin(BinaryOp::Gt, n, bound)?;
    let scale = c.b.div(bound, n)?;
    let scale = c.b.select(long, scale, one)?;
    let v = c.b.mul(x, scale)?;
    c.put("Out|out", v);
    Ok(())
}

/// A vector divided by its length.
fn unit(c: &mut Ctx<'_, '_>, v: Value, eps: f64) -> Res<Value> {
    let q = c.b.mul(v, v)?;
    let s = c.b.reduce(ReduceOp::Sum, q, &[0], true)?;
    let n = c.b.un(UnaryOp::Sqrt, s)?;
    let n = c.b.bin_scalar(BinaryOp::Add, n, eps)?;
    Ok(c.b.div(v, n)?)
}

/// spectral_norm: a weight divided by its greatest singular value, which power iteration finds.
pub fn spectral_norm(c: &mut Ctx<'_, '_>) -> Res {
    let (w, mut u, mut v) = (c.tensor("Weight")?, c.tensor("U")?, c.tensor("V")?);
    let rank = c.rank(w);
    let axis = axis_of(c.int("dim", 0), rank)?;
    let (times, eps) = (c.int("power_iters", 1), c.float("eps", 1e-12));
    if !(0..=64).contains(&times) {
        return c.refuse(format!("{times} iterations"));
    }
    let perm: Vec<usize> = [axis].into_iter().chain((0..rank).filter(|&i| i != axis)).collect();
    let m = c.b.transpose(w, &perm)?;
    let d = c.at_least(m, 1)?;
    let m = c.b.reshape(m, vec![d[0].clone(), Dim::product(&d[1..])])?;
    for _ in 0..times {
        let next = c.b.matmul(u, m)?;
        v = unit(c, next, eps)?;
        let next = c.b.matmul(m, v)?;
        u = unit(c, next, eps)?;
    }
    let mv = c.b.matmul(m, v)?;
    let sigma = c.b.mul(u, mv)?;
    let sigma = c.b.reduce(ReduceOp::Sum, sigma, &[0], false)?;
    let v = c.b.div(w, sigma)?;
    c.put("Out", v);
    Ok(())
}
