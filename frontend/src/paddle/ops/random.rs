//! Random numbers: without a seed of its own each operator draws from its place in the program.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_abi::prim::Distribution;
use hub_ir::ops::norm::Softmax;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

fn drawn(c: &mut Ctx<'_, '_>, dist: Distribution, dtype: Dtype, shape: Vec<Dim>) -> Res<Value> {
    let seed = match c.int("seed", 0) {
        0 => c.b.g.nodes.len() as u64,
        s => s as u64,
    };
    Ok(c.b.prim(Prim::Random { dist, dtype, shape, seed }, &[])?)
}

/// Of mean 0 and deviation 1.
pub fn normal(c: &mut Ctx<'_, '_>, dtype: Dtype, shape: Vec<Dim>) -> Res<Value> {
    drawn(c, Distribution::Normal { mean: 0.0, std: 1.0 }, dtype, shape)
}

/// From 0 to 1, neither of them.
pub fn unit(c: &mut Ctx<'_, '_>, dtype: Dtype, shape: Vec<Dim>) -> Res<Value> {
    drawn(c, Distribution::Uniform { lo: 1e-7, hi: 1.0 - 1e-7 }, dtype, shape)
}

/// randint: whole numbers from `low` up to `high`, which is left out.
pub fn integers(c: &mut Ctx<'_, '_>) -> Res {
    let to = c.dtype("dtype")?.unwrap_or(Dtype::I64);
    let slots = "ShapeTensor|ShapeTensorList";
    let shape = c.dims_or(slots, "shape", (0, DIM_MAX))?.unwrap_or_default();
    let (lo, hi) = (c.int("low", 0) as f64, c.int("high", 1) as f64);
    let v = drawn(c, Distribution::Uniform { lo, hi }, Dtype::F64, shape)?;
    let v = c.b.un(UnaryOp::Floor, v)?;
    let v = c.b.bin_scalar(BinaryOp::Min, v, hi - 1.0)?;
    let v = c.b.cast(v, to)?;
    c.put("Out", v);
    Ok(())
}

/// randperm: the order of random numbers.
pub fn permutation(c: &mut Ctx<'_, '_>) -> Res {
    let n = c.int("n", 1);
    if !(0..=1 << 24).contains(&n) {
        return c.refuse(format!("a permutation of {n}"));
    }
    let v = unit(c, Dtype::F64, vec![n.into()])?;
    let p = Prim::TopK { k: n.into(), axis: 0, largest: true, sorted: true };
    let v = c.b.prim_n(p, &[v])?[1];
    let v = c.b.cast(v, c.dtype("dtype")?.unwrap_or(Dtype::I64))?;
    c.put("Out", v);
    Ok(())
}

/// bernoulli: 1 as often as x says.
pub fn bernoulli(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let dtype = c.b.g.dtype(x);
    let v = unit(c, dtype, c.dims(x))?;
    let v = c.b.bin(BinaryOp::Lt, v, x)?;
    let v = c.b.cast(v, dtype)?;
    c.put("Out|out", v);
    Ok(())
}

/// exponential, uniform_inplace, gaussian_inplace: in x's shape.
pub fn in_place(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let (dtype, shape) = (c.b.g.dtype(x), c.dims(x));
    let v = match c.op.kind.trim_end_matches('_') {
        "exponential" => {
            let v = unit(c, dtype, shape)?;
            let v = c.b.un(UnaryOp::Log, v)?;
            c.b.bin_scalar(BinaryOp::Mul, v, -1.0 / c.float("lambda|lam", 1.0))?
        }
        "gaussian_inplace" => {
            let (mean, std) = (c.float("mean", 0.0), c.float("std", 1.0));
            drawn(c, Distribution::Normal { mean, std }, dtype, shape)?
        }
        _ => {
            let (lo, hi) = (c.float("min", -1.0), c.float("max", 1.0));
            drawn(c, Distribution::Uniform { lo, hi }, dtype, shape)?
        }
    };
    c.put("Out|out", v);
    Ok(())
}

/// uniform_random_batch_size_like: of a shape of which one size is x's.
pub fn batch_size_like(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|input")?;
    let mut shape: Vec<Dim> =
        c.ints("shape").unwrap_or_default().into_iter().map(Dim::from).collect();
    let from = axis_of(c.int("input_dim_idx", 0), c.rank(x))?;
    let to = axis_of(c.int("output_dim_idx", 0), shape.len())?;
    shape[to] = c.dim(x, from)?;
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let dist = match c.op.kind.starts_with("gaussian") {
        true => Distribution::Normal { mean: c.float("mean", 0.0), std: c.float("std", 1.0) },
        false => Distribution::Uniform { lo: c.float("min", -1.0), hi: c.float("max", 1.0) },
    };
    let v = drawn(c, dist, dtype, shape)?;
    c.put("Out|out", v);
    Ok(())
}

/// truncated_gaussian_random: normal numbers between `a` and `b` deviations.
pub fn truncated(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let shape = c.ints("shape").unwrap_or_default().into_iter().map(Dim::from).collect();
    let (mean, std) = (c.float("mean", 0.0), c.float("std", 1.0));
    let (a, b) = (c.float("a", -2.0), c.float("b", 2.0));
    // erf of a uniform number's inverse is normal; the bounds' own values bound it.
    let side = |x: f64| c.b.scalar(Dtype::F64, x / std::f64::consts::SQRT_2);
    let (a, b) = {
        let mut side = side;
        (side(a), side(b))
    };
    let (a, b) = (c.b.un(UnaryOp::Erf, a)?, c.b.un(UnaryOp::Erf, b)?);
    let u = unit(c, Dtype::F64, shape)?;
    let width = c.b.sub(b, a)?;
    let v = c.b.mul(u, width)?;
    let v = c.b.add(v, a)?;
    let v = super::special::erf_inverse(c, v)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, v, std * std::f64::consts::SQRT_2)?;
    let v = c.b.bin_scalar(BinaryOp::Add, v, mean)?;
    let v = c.b.cast(v, dtype)?;
    c.put("Out|out", v);
    Ok(())
}

/// gumbel_softmax: a softmax with Gumbel's noise, or 1 where it is greatest.
pub fn gumbel_softmax(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let (dtype, shape) = (c.b.g.dtype(x), c.dims(x));
    let u = unit(c, dtype, shape.clone())?;
    let e = c.b.un(UnaryOp::Log, u)?;
    let e = c.b.un(UnaryOp::Neg, e)?;
    let g = c.b.un(UnaryOp::Log, e)?;
    let v = c.b.sub(x, g)?;
    let v = c.b.bin_scalar(BinaryOp::Div, v, c.float("temperature", 1.0))?;
    let mut v = c.b.source(Softmax { axis, log: false }, &[v])?;
    if c.flag("hard", false) {
        let p = Prim::ArgReduce { max: true, axis: axis as u32, keep: true, last: false };
        let best = c.b.prim(p, &[v])?;
        let place = Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 };
        let place = c.b.prim(place, &[])?;
        let own = c.b.bin(BinaryOp::Eq, place, best)?;
        v = c.b.cast(own, dtype)?;
    }
    c.put("Out|out", v);
    Ok(())
}
