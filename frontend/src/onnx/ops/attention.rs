//! Attention and rotary embeddings (version 23), and ONNX Runtime's fused normalisations.

use super::activation;
use super::generate::rows_and_columns;
use super::nn::conv_geometry;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op, op_of};
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::conv::Conv;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::norm::{LayerNorm, Softmax};

pub(crate) const OPS: &[Row] = &[
    op("Attention", 23, attention),
    op("RotaryEmbedding", 23, rotary),
    op("TensorScatter", 24, tensor_scatter),
    op_of("com.microsoft", "SkipLayerNormalization", skip_layer_norm),
    op_of("com.microsoft", "FusedConv", fused_conv),
];

/// `[B, S, heads * D]` as `[B, heads, S, D]`.
pub(super) fn split_heads(c: &mut Cx<'_, '_, '_>, x: Value, heads: i64) -> Got {
    let d = c.dims(x);
    if d.len() == 4 {
        return Ok(x);
    }
    if d.len() != 3 || heads < 1 {
        return invalid(format!("{heads} heads of rank {}", d.len()));
    }
    let size = d[2].div(&heads.into());
    let t = c.reshape(x, vec![d[0].clone(), d[1].clone(), heads.into(), size])?;
    Ok(c.b.transpose(t, &[0, 2, 1, 3])?)
}

fn attention(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (q, k, v) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let flat = c.rank(q) == 3;
    let (hq, hk) = (c.int("q_num_heads", 0)?, c.int("kv_num_heads", 0)?);
    let q = split_heads(c, q, hq)?;
    let (mut k, mut v) = (split_heads(c, k, hk)?, split_heads(c, v, hk)?);
    let mut past = Dim::from(0i64);
    if let (Some(pk), Some(pv)) = (c.opt(4), c.opt(5)) {
        past = c.dims(pk).get(2).cloned().unwrap_or(past);
        k = c.b.concat(&[pk, k], 2)?;
        v = c.b.concat(&[pv, v], 2)?;
    }
    let (dq, dk, dtype) = (c.dims(q), c.dims(k), c.dtype(q));
    if dq.len() != 4 || dk.len() != 4 {
        return invalid("Q, K and V need three or four axes");
    }
    let scale = match c.has("scale") {
        true => c.float("scale", 1.0)?.into(),
        false => match dq[3].as_const().filter(|&d| d > 0) {
            Some(d) => 1.0 / (d as f64).sqrt(),
            None => return unsupported("heads whose size is not known, without a scale"),
        },
    };
    // Queries that share a head of K and V stand on an axis of their own.
    let (kv, s, t) = (dk[1].clone(), dq[2].clone(), dk[2].clone());
    let share = dq[1].div(&kv);
    let q5 = vec![dq[0].clone(), kv.clone(), share.clone(), s.clone(), dq[3].clone()];
    let q5 = c.reshape(q, q5)?;
    let (k5, v5) = (c.b.unsqueeze(k, 2)?, c.b.unsqueeze(v, 2)?);
    let scores = c.source(MatMul { trans_a: false, trans_b: true }, &[q5, k5])?;
    let whole = vec![dq[0].clone(), dq[1].clone(), s.clone(), t.clone()];
    let mut scores = c.reshape(scores, whole.clone())?;
    scores = c.bin_scalar(BinaryOp::Mul, scores, scale)?;
    let mut shown = vec![scores];
    let cap = f64::from(c.float("softcap", 0.0)?);
    if let Some(bias) = mask(c, &s, &t, &past, dtype)? {
        scores = c.bin(BinaryOp::Add, scores, bias)?;
    }
    shown.push(scores);
    if cap != 0.0 {
        let u = c.bin_scalar(BinaryOp::Div, scores, cap)?;
        let u = c.un(UnaryOp::Tanh, u)?;
        scores = c.bin_scalar(BinaryOp::Mul, u, cap)?;
    }
    shown.push(scores);
    let p = c.source(Softmax { axis: 3, log: false }, &[scores])?;
    shown.push(p);
    let p5 = c.reshape(p, vec![dq[0].clone(), kv, share, s.clone(), t])?;
    let y = c.source(MatMul { trans_a: false, trans_b: false }, &[p5, v5])?;
    let size = c.dims(y).last().cloned().unwrap_or(1i64.into());
    let mut y = c.reshape(y, vec![dq[0].clone(), dq[1].clone(), s.clone(), size.clone()])?;
    if flat {
        y = c.b.transpose(y, &[0, 2, 1, 3])?;
        y = c.reshape(y, vec![dq[0].clone(), s, dq[1].mul(&size)])?;
    }
    let mode = usize::try_from(c.int("qk_matmul_output_mode", 0)?).unwrap_or(usize::MAX);
    let Some(&shown) = shown.get(mode) else { return invalid("qk_matmul_output_mode") };
    Ok(vec![y, k, v, shown])
}

/// What is added to the scores: the mask given, and minus infinity above the causal diagonal.
fn mask(c: &mut Cx<'_, '_, '_>, s: &Dim, t: &Dim, past: &Dim, dtype: Dtype) -> Got<Option<Value>> {
    let (zero, low) = (c.scalar(dtype, 0.0), c.scalar(dtype, f64::NEG_INFINITY));
    let mut bias = match c.opt(3) {
        Some(m) if c.dtype(m) == Dtype::Bool => Some(c.b.select(m, zero, low)?),
        Some(m) => Some(m),
        None => None,
    };
    if let Some(len) = c.opt(6) {
        // Keys past a batch's own number are padding.
        let len = c.cast(len, Dtype::I64)?;
        let n = Dim::product(&c.dims(len));
        let len = c.reshape(len, vec![n, 1i64.into(), 1i64.into(), 1i64.into()])?;
        let at = Prim::Iota { dtype: Dtype::I64, shape: vec![t.clone()], axis: 0 };
        let at = c.prim(at, &[])?;
        let real = c.bin(BinaryOp::Lt, at, len)?;
        let own = c.b.select(real, zero, low)?;
        bias = Some(match bias {
            Some(b) => c.bin(BinaryOp::Add, b, own)?,
            None => own,
        });
    }
    if c.flag("is_causal", false)? {
        let (rows, columns) = rows_and_columns(c, &[s.clone(), t.clone()])?;
        let shift = c.b.dim_scalar(past.clone());
        let last = c.bin(BinaryOp::Add, rows, shift)?;
        let seen = c.bin(BinaryOp::Le, columns, last)?;
        let causal = c.b.select(seen, zero, low)?;
        bias = Some(match bias {
            Some(b) => c.bin(BinaryOp::Add, b, causal)?,
            None => causal,
        });
    }
    Ok(bias)
}

/// New entries of a cache, written from each batch's own place on (around the end where circular).
fn tensor_scatter(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (cache, new) = (c.tensor(0)?, c.tensor(1)?);
    let (dims, shape) = (c.dims(cache), c.dims(new));
    let axis = c.axis(c.int("axis", -2)?, dims.len())?;
    if axis == 0 || shape.len() != dims.len() {
        return invalid("the cache's first axis is the batch");
    }
    let mut own = vec![Dim::from(1i64); shape.len()];
    own[axis] = shape[axis].clone();
    let mut at = c.prim(Prim::Iota { dtype: Dtype::I64, shape: own, axis: axis as u32 }, &[])?;
    if let Some(start) = c.opt(2) {
        let start = c.cast(start, Dtype::I64)?;
        let mut own = vec![Dim::from(1i64); shape.len()];
        own[0] = shape[0].clone();
        let start = c.reshape(start, own)?;
        at = c.bin(BinaryOp::Add, at, start)?;
    }
    match &*c.string("mode", "linear")? {
        "linear" => {}
        "circular" => {
            let size = c.b.dim_scalar(dims[axis].clone());
            at = c.bin(BinaryOp::Mod, at, size)?;
        }
        other => return invalid(format!("mode '{other}'")),
    }
    let at = c.b.broadcast(at, shape)?;
    let op = hub_abi::prim::ScatterOp::Set;
    one(c.prim(Prim::ScatterElements { axis: axis as u32, op }, &[cache, at, new])?)
}

/// Pairs of elements turned by the angles of their position.
fn rotary(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let flat = c.rank(x) == 3;
    let heads = c.int("num_heads", 0)?;
    // [B, heads, S, D]
    let t = split_heads(c, x, heads)?;
    let d = c.dims(t);
    let (mut cos, mut sin) = (c.tensor(1)?, c.tensor(2)?);
    if let Some(at) = c.opt(3) {
        let gather = Prim::Gather { axis: 0 };
        (cos, sin) = (c.prim(gather.clone(), &[cos, at])?, c.prim(gather, &[sin, at])?);
    }
    let turned = match c.int("rotary_embedding_dim", 0)? {
        0 => d[3].clone(),
        n => n.into(),
    };
    let interleaved = c.flag("interleaved", false)?;
    let mut y = turn(c, t, [cos, sin], turned, interleaved)?;
    if flat {
        y = c.b.transpose(y, &[0, 2, 1, 3])?;
        let shape = c.dims(x);
        y = c.reshape(y, shape)?;
    }
    one(y)
}

/// The first `turned` elements of heads `[B, heads, S, D]` turned in pairs (neighbours, or elements of
/// both halves) by angles whose cosines and sines are `[B, S, turned / 2]`.
pub(super) fn turn(
    c: &mut Cx<'_, '_, '_>,
    t: Value,
    [cos, sin]: [Value; 2],
    turned: Dim,
    interleaved: bool,
) -> Got {
    let d = c.dims(t);
    let (cos, sin) = (c.b.unsqueeze(cos, 1)?, c.b.unsqueeze(sin, 1)?);
    let half = turned.div(&2i64.into());
    let part = c.b.narrow(t, 3, 0i64.into(), turned.clone())?;
    let (a, b) = if interleaved {
        let pairs = vec![d[0].clone(), d[1].clone(), d[2].clone(), half.clone(), 2i64.into()];
        let pairs = c.reshape(part, pairs)?;
        let a = c.b.narrow(pairs, 4, 0i64.into(), 1i64.into())?;
        let b = c.b.narrow(pairs, 4, 1i64.into(), 1i64.into())?;
        (c.b.squeeze(a, 4)?, c.b.squeeze(b, 4)?)
    } else {
        let a = c.b.narrow(part, 3, 0i64.into(), half.clone())?;
        (a, c.b.narrow(part, 3, half.clone(), half.clone())?)
    };
    let (ac, bs) = (c.bin(BinaryOp::Mul, a, cos)?, c.bin(BinaryOp::Mul, b, sin)?);
    let (as_, bc) = (c.bin(BinaryOp::Mul, a, sin)?, c.bin(BinaryOp::Mul, b, cos)?);
    let re = c.bin(BinaryOp::Sub, ac, bs)?;
    let im = c.bin(BinaryOp::Add, as_, bc)?;
    let y = if interleaved {
        let (re, im) = (c.b.unsqueeze(re, 4)?, c.b.unsqueeze(im, 4)?);
        let y = c.b.concat(&[re, im], 4)?;
        c.reshape(y, vec![d[0].clone(), d[1].clone(), d[2].clone(), turned.clone()])?
    } else {
        c.b.concat(&[re, im], 3)?
    };
    if turned == d[3] {
        return Ok(y);
    }
    let rest = c.b.narrow(t, 3, turned.clone(), d[3].sub(&turned))?;
    Ok(c.b.concat(&[y, rest], 3)?)
}

/// `LayerNorm(x + skip + bias)`; the fourth output is the sum.
pub(super) fn skip_layer_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, skip) = (c.tensor(0)?, c.tensor(1)?);
    let mut sum = c.bin(BinaryOp::Add, x, skip)?;
    if let Some(bias) = c.opt(4) {
        sum = c.bin(BinaryOp::Add, sum, bias)?;
    }
    let eps = c.float("epsilon", 1e-12)?;
    let Some(axis) = c.rank(sum).checked_sub(1) else { return invalid("x is a scalar") };
    let mut ins = vec![sum, c.tensor(2)?];
    ins.extend(c.opt(3));
    let y = c.source(LayerNorm { axis, eps }, &ins)?;
    Ok(vec![y, Value::NONE, Value::NONE, sum])
}

/// `activation(conv(x, w) + bias + z)`.
pub(super) fn fused_conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (geo, groups) = conv_geometry(c, [0, 1])?;
    let mut ins = vec![c.tensor(0)?, c.tensor(1)?];
    ins.extend(c.opt(2));
    let mut y = c.source(Conv { geo, groups }, &ins)?;
    if let Some(z) = c.opt(3) {
        y = c.bin(BinaryOp::Add, y, z)?;
    }
    let params = c.floats("activation_params")?.unwrap_or_default();
    one(activation::fused(c, y, &params)?)
}
