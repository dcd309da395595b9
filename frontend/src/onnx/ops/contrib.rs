//! com.microsoft: fused normalisations, embeddings, activations and layouts that ONNX Runtime's
//! optimiser writes into exported models. Meanings are those of its ContribOperators.md.

use super::attention::fused_conv;
use super::generate::{range, trilu};
use super::nn::conv;
use super::pool::max_pool;
use super::sample::grid_sample;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{ImportFn, Row, op_of};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::activation::Activation;
use hub_ir::ops::conv::channel_vector;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::norm::{LayerNorm, RmsNorm, Softmax};

/// The domain.
pub(super) const MS: &str = "com.microsoft";

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "SkipSimplifiedLayerNormalization", skip_rms_norm),
    op_of(MS, "SimplifiedLayerNormalization", super::nn::rms_norm),
    op_of(MS, "LayerNormalization", super::nn::layer_norm),
    op_of(MS, "EmbedLayerNormalization", embed_layer_norm),
    op_of(MS, "BiasSoftmax", bias_softmax),
    op_of(MS, "BiasAdd", |c| {
        let y = summed(c, &[0, 1, 2])?;
        one(y)
    }),
    op_of(MS, "BiasDropout", |c| {
        let y = summed(c, &[0, 1, 2])?;
        one(y)
    }),
    op_of(MS, "BiasSplitGelu", |c| {
        let x = summed(c, &[0, 1])?;
        let dims = c.dims(x);
        let Some(axis) = dims.len().checked_sub(1) else { return invalid("x is a scalar") };
        let half = dims[axis].div(&2i64.into());
        let a = c.b.narrow(x, axis, 0i64.into(), half.clone())?;
        let b = c.b.narrow(x, axis, half.clone(), half)?;
        let b = c.source(Activation::Gelu, &[b])?;
        one(c.bin(BinaryOp::Mul, a, b)?)
    }),
    op_of(MS, "GemmFastGelu", |c| {
        let (x, w) = (c.tensor(0)?, c.tensor(1)?);
        let mut y = c.source(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
        if let Some(bias) = c.opt(2) {
            y = c.bin(BinaryOp::Add, y, bias)?;
        }
        one(c.source(Activation::GeluTanh, &[y])?)
    }),
    op_of(MS, "FusedMatMulActivation", |c| {
        let y = super::linalg::fused_matmul(c)?[0];
        one(super::activation::fused(c, y, &[])?)
    }),
    op_of(MS, "GroupNorm", |c| {
        let x = c.tensor(0)?;
        one(group_norm(c, x, [1, 2])?)
    }),
    op_of(MS, "SkipGroupNorm", skip_group_norm),
    op_of(MS, "GridSample", grid_sample),
    op_of(MS, "Trilu", trilu),
    op_of(MS, "Range", range),
    op_of(MS, "Unique", |c| {
        let all = super::index::uniques(c, false)?;
        Ok(vec![all[0], all[2], all[3]])
    }),
    op_of(MS, "GatherND", super::index::gather_nd),
    op_of(MS, "Pad", |c| {
        // As ONNX's of version 13.
        c.version = 13;
        super::shape::pad(c)
    }),
    op_of(MS, "UnfoldTensor", unfold),
    op_of(MS, "ExpandDims", expand_dims),
    op_of(MS, "CDist", cdist),
    op_of(MS, "NhwcConv", |c| nhwc(c, conv)),
    op_of(MS, "NhwcFusedConv", |c| nhwc(c, fused_conv)),
    op_of(MS, "NhwcMaxPool", |c| nhwc(c, max_pool)),
];

/// The sum of the operands that are there.
fn summed(c: &mut Cx<'_, '_, '_>, at: &[usize]) -> Got {
    let mut sum = c.tensor(at[0])?;
    for &i in &at[1..] {
        if let Some(v) = c.opt(i) {
            sum = c.bin(BinaryOp::Add, sum, v)?;
        }
    }
    Ok(sum)
}

/// `RmsNorm(x + skip + bias)`; the fourth output is the sum.
fn skip_rms_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let sum = summed(c, &[0, 1, 3])?;
    let gain = c.tensor(2)?;
    let eps = c.float("epsilon", 1e-12)?;
    let Some(axis) = c.rank(sum).checked_sub(1) else { return invalid("x is a scalar") };
    let y = c.source(RmsNorm { axis, eps }, &[sum, gain])?;
    Ok(vec![y, Value::NONE, Value::NONE, sum])
}

/// Words, positions and segments looked up, added and normalised; how many tokens a row has; the sum.
fn embed_layer_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let ids = c.tensor(0)?;
    let dims = c.dims(ids);
    let [batch, length] = &dims[..] else { return invalid("input_ids must be [batch, length]") };
    let look_up = Prim::Gather { axis: 0 };
    let words = c.tensor(2)?;
    let mut sum = c.prim(look_up.clone(), &[words, ids])?;
    let places = c.tensor(3)?;
    let at = match c.opt(8) {
        Some(at) => at,
        None => {
            let i = Prim::Iota { dtype: Dtype::I64, shape: vec![length.clone()], axis: 0 };
            c.prim(i, &[])?
        }
    };
    let place = c.prim(look_up.clone(), &[places, at])?;
    sum = c.bin(BinaryOp::Add, sum, place)?;
    if let (Some(at), Some(segments)) = (c.opt(1), c.opt(4)) {
        let segment = c.prim(look_up, &[segments, at])?;
        sum = c.bin(BinaryOp::Add, sum, segment)?;
    }
    let eps = c.float("epsilon", 1e-12)?;
    let ins = [sum, c.tensor(5)?, c.tensor(6)?];
    let y = c.source(LayerNorm { axis: 2, eps }, &ins)?;
    let count = match c.opt(7) {
        Some(mask) => {
            let some = c.cast(mask, Dtype::Bool)?;
            let some = c.cast(some, Dtype::I32)?;
            c.reduce(ReduceOp::Sum, some, &[1], false)?
        }
        None => {
            let zero = c.scalar(Dtype::I32, 0.0);
            c.b.broadcast(zero, vec![batch.clone()])?
        }
    };
    Ok(vec![y, count, sum])
}

/// `softmax(x + bias)` over all axes from `axis` on.
fn bias_softmax(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, mut bias) = (c.tensor(0)?, c.tensor(1)?);
    let dims = c.dims(x);
    let axis = c.axis(c.int("axis", 1)?, dims.len())?;
    let db = c.dims(bias);
    let lead = db.len().saturating_sub(dims.len() - axis);
    // A bias of fewer leading axes repeats over the inner ones or the outer ones.
    if db.len() < dims.len() && c.flag("is_inner_broadcast", false)? {
        let mut shape = db[..lead].to_vec();
        shape.resize(axis, 1i64.into());
        shape.extend_from_slice(&db[lead..]);
        bias = c.reshape(bias, shape)?;
    }
    let y = c.bin(BinaryOp::Add, x, bias)?;
    let flat = vec![Dim::product(&dims[..axis]), Dim::product(&dims[axis..])];
    let y = c.reshape(y, flat)?;
    let y = c.source(Softmax { axis: 1, log: false }, &[y])?;
    one(c.reshape(y, dims)?)
}

/// Normalised over groups of channels, with a gain and bias a channel (the operands at `at`), and a
/// SiLU if asked; channels are last by default.
fn group_norm(c: &mut Cx<'_, '_, '_>, x: Value, at: [usize; 2]) -> Got {
    let (gain, bias) = (c.tensor(at[0])?, c.tensor(at[1])?);
    let last = c.flag("channels_last", true)?;
    let groups = c.int("groups", 0)?;
    let (rank, dtype) = (c.rank(x), c.dtype(x));
    if groups < 1 || rank < 3 {
        return invalid(format!("{groups} groups for rank {rank}"));
    }
    let mut first: Vec<usize> = (0..rank).collect();
    if last {
        first.remove(rank - 1);
        first.insert(1, rank - 1);
    }
    let wide = c.cast(x, Dtype::F32)?;
    let t = c.b.transpose(wide, &first)?;
    let dims = c.dims(t);
    let size = Dim::product(&dims[1..]).div(&groups.into());
    let y = c.reshape(t, vec![dims[0].clone(), groups.into(), size])?;
    let eps = c.float("epsilon", 1e-5)?;
    let y = c.source(LayerNorm { axis: 2, eps }, &[y])?;
    let mut y = c.reshape(y, dims)?;
    for (op, v) in [(BinaryOp::Mul, gain), (BinaryOp::Add, bias)] {
        let v = c.cast(v, Dtype::F32)?;
        let v = channel_vector(c.b, v, rank)?;
        y = c.bin(op, y, v)?;
    }
    let mut back = vec![0; rank];
    first.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    let mut y = c.b.transpose(y, &back)?;
    if c.int("activation", 0)? == 1 {
        y = c.source(Activation::Swish { beta: 1.0 }, &[y])?;
    }
    c.cast(y, dtype)
}

/// `GroupNorm(x + skip + bias)`; the second output is the sum.
fn skip_group_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, mut skip) = (c.tensor(0)?, c.tensor(3)?);
    if c.rank(skip) == 2 && c.rank(x) == 4 {
        let d = c.dims(skip);
        skip = c.reshape(skip, vec![d[0].clone(), 1i64.into(), 1i64.into(), d[1].clone()])?;
    }
    let mut sum = c.bin(BinaryOp::Add, x, skip)?;
    if let Some(bias) = c.opt(4) {
        sum = c.bin(BinaryOp::Add, sum, bias)?;
    }
    Ok(vec![group_norm(c, sum, [1, 2])?, sum])
}

/// Windows along an axis, `step` apart, as a new last axis.
fn unfold(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("dim", -1)?, c.rank(x))?;
    let (size, step) = (c.int("size", 0)?, c.int("step", 1)?);
    if size < 1 || step < 1 {
        return invalid(format!("windows of {size} every {step}"));
    }
    let windows = c.dim(x, axis)?.plus(-size).div(&step.into()).plus(1);
    let from = Prim::Iota { dtype: Dtype::I64, shape: vec![windows, 1i64.into()], axis: 0 };
    let from = c.prim(from, &[])?;
    let from = c.bin_scalar(BinaryOp::Mul, from, step as f64)?;
    let within = Prim::Iota { dtype: Dtype::I64, shape: vec![1i64.into(), size.into()], axis: 1 };
    let within = c.prim(within, &[])?;
    let at = c.bin(BinaryOp::Add, from, within)?;
    let y = c.prim(Prim::Gather { axis: axis as u32 }, &[x, at])?;
    let mut perm: Vec<usize> = (0..c.rank(y)).collect();
    let window = perm.remove(axis + 1);
    perm.push(window);
    one(c.b.transpose(y, &perm)?)
}

fn expand_dims(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, axis) = (c.tensor(0)?, c.tensor(1)?);
    let Some(&[axis]) = c.known_ints(axis).as_deref().and_then(|a| a.first_chunk::<1>()) else {
        return unsupported("an axis computed when the model runs");
    };
    let axis = c.axis(axis, c.rank(x) + 1)?;
    one(c.b.unsqueeze(x, axis)?)
}

/// Distances of each row of a to each row of b.
fn cdist(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    if c.rank(a) != 2 || c.rank(b) != 2 {
        return invalid("both operands must be matrices");
    }
    let (a, b) = (c.b.unsqueeze(a, 1)?, c.b.unsqueeze(b, 0)?);
    let d = c.bin(BinaryOp::Sub, a, b)?;
    let d = c.bin(BinaryOp::Mul, d, d)?;
    let d = c.reduce(ReduceOp::Sum, d, &[2], false)?;
    match &*c.string("metric", "sqeuclidean")? {
        "sqeuclidean" => one(d),
        "euclidean" => one(c.un(UnaryOp::Sqrt, d)?),
        other => unsupported(format!("metric '{other}'")),
    }
}

/// x with its last axis second, or the other way.
pub(super) fn channels(c: &mut Cx<'_, '_, '_>, x: Value, first: bool) -> Got {
    let rank = c.rank(x);
    if rank < 3 {
        return invalid(format!("an image of rank {rank}"));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    let (from, to) = if first { (rank - 1, 1) } else { (1, rank - 1) };
    let axis = perm.remove(from);
    perm.insert(to, axis);
    Ok(c.b.transpose(x, &perm)?)
}

/// An operator whose x (and whose fourth operand, which is added) and result have channels last.
fn nhwc(c: &mut Cx<'_, '_, '_>, import: ImportFn) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    c.ins[0] = channels(c, x, true)?;
    if let Some(z) = c.opt(3) {
        c.ins[3] = channels(c, z, true)?;
    }
    let y = import(c)?[0];
    one(channels(c, y, false)?)
}
