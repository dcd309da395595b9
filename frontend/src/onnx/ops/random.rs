//! Random numbers. Without a seed each node has its own, made of its name, so that runs repeat.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Distribution, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("RandomUniform", 1, |c| {
        let dist = uniform(c)?;
        shaped(c, dist)
    }),
    op("RandomNormal", 1, |c| {
        let dist = normal(c)?;
        shaped(c, dist)
    }),
    op("RandomUniformLike", 1, |c| {
        let dist = uniform(c)?;
        like(c, dist)
    }),
    op("RandomNormalLike", 1, |c| {
        let dist = normal(c)?;
        like(c, dist)
    }),
    op("Bernoulli", 15, |c| {
        let x = c.tensor(0)?;
        let (shape, dtype) = (c.dims(x), wanted(c, c.dtype(x))?);
        let dist = Distribution::Uniform { lo: 0.0, hi: 1.0 };
        let seed = seed(c)?;
        let u = c.prim(Prim::Random { dist, dtype: Dtype::F32, shape, seed }, &[])?;
        let x = c.cast(x, Dtype::F32)?;
        let hit = c.bin(BinaryOp::Lt, u, x)?;
        one(c.cast(hit, dtype)?)
    }),
    op("Multinomial", 7, multinomial),
];

/// The attribute's bits, or a hash of the node's name, past 2^32 so that it is no model's seed.
pub(super) fn seed(c: &Cx<'_, '_, '_>) -> Got<u64> {
    // Version 12 and later of some operators give an integer.
    let given =
        c.any_attr("seed").map(|a| if a.i() != 0 { a.i() as u64 } else { a.f().to_bits().into() });
    let hash = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    let own = || c.b.name.bytes().fold(0xcbf2_9ce4_8422_2325, hash) | 1 << 63;
    Ok(given.unwrap_or_else(own))
}

fn uniform(c: &Cx<'_, '_, '_>) -> Got<Distribution> {
    let (lo, hi) = (c.float("low", 0.0)?.into(), c.float("high", 1.0)?.into());
    Ok(Distribution::Uniform { lo, hi })
}

fn normal(c: &Cx<'_, '_, '_>) -> Got<Distribution> {
    let (mean, std) = (c.float("mean", 0.0)?.into(), c.float("scale", 1.0)?.into());
    Ok(Distribution::Normal { mean, std })
}

fn wanted(c: &Cx<'_, '_, '_>, default: Dtype) -> Got<Dtype> {
    match c.int("dtype", 0)? {
        0 => Ok(default),
        n => tensor::dtype(n as i32),
    }
}

fn shaped(c: &mut Cx<'_, '_, '_>, dist: Distribution) -> Got<Vec<Value>> {
    let Some(shape) = c.ints("shape")? else { return invalid("attribute 'shape' is missing") };
    if shape.iter().any(|&d| d < 0) {
        return invalid(format!("a shape of {shape:?}"));
    }
    let shape = shape.into_iter().map(Dim::from).collect();
    let (dtype, seed) = (wanted(c, Dtype::F32)?, seed(c)?);
    one(c.prim(Prim::Random { dist, dtype, shape, seed }, &[])?)
}

fn like(c: &mut Cx<'_, '_, '_>, dist: Distribution) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (shape, dtype, seed) = (c.dims(x), wanted(c, c.dtype(x))?, seed(c)?);
    one(c.prim(Prim::Random { dist, dtype, shape, seed }, &[])?)
}

/// Samples of unnormalised log-probabilities [B, C]: the arg-max after adding Gumbel noise.
fn multinomial(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let d = c.dims(x);
    let n = c.int("sample_size", 1)?;
    if d.len() != 2 || n < 1 {
        return invalid(format!("{n} samples of rank {}", d.len()));
    }
    let to = wanted(c, Dtype::I32)?;
    let dist = Distribution::Uniform { lo: 1e-12, hi: 1.0 };
    let (shape, seed) = (vec![d[0].clone(), n.into(), d[1].clone()], seed(c)?);
    let u = c.prim(Prim::Random { dist, dtype: Dtype::F32, shape, seed }, &[])?;
    let mut g = u;
    for _ in 0..2 {
        g = c.un(UnaryOp::Log, g)?;
        g = c.un(UnaryOp::Neg, g)?;
    }
    let x = c.cast(x, Dtype::F32)?;
    let x = c.b.unsqueeze(x, 1)?;
    let y = c.bin(BinaryOp::Add, x, g)?;
    let arg = Prim::ArgReduce { max: true, axis: 2, keep: false, last: false };
    let y = c.prim(arg, &[y])?;
    one(c.cast(y, to)?)
}
