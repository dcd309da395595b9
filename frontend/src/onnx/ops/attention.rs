//! Attention and rotary embeddings (version 23), and ONNX Runtime's fused normalisations.

use super::activation;
use super::generate::rows_and_columns;
use super::nn::conv_geometry;
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op, op_of};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, PadMode, Prim, ReduceOp, UnaryOp};
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

/// What hides keys from queries.
struct Mask {
    /// Added to the scores, broadcasting to `[B, H, S, T]`.
    bias: Option<Value>,
    /// May it hide every key of a query?
    whole_rows: bool,
}

/// Attention of versions 23 to 25, as the specification's errata of 1.23 have it: the cap comes before
/// the mask, causal masks align with the last valid key, and a query that sees no key gives zeros.
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
    // Queries that share a head of K and V stand on an axis of their own.
    let (kv, s, t) = (dk[1].clone(), dq[2].clone(), dk[2].clone());
    let share = dq[1].div(&kv);
    let q5 = vec![dq[0].clone(), kv.clone(), share.clone(), s.clone(), dq[3].clone()];
    let mut q5 = c.reshape(q, q5)?;
    let (mut k5, v5) = (c.b.unsqueeze(k, 2)?, c.b.unsqueeze(v, 2)?);
    // Small floats scale both operands, as the specification says: their product might overflow.
    let early = dtype.is_small_float();
    if early {
        (q5, k5) = (scaled(c, q5, &dq[3], true)?, scaled(c, k5, &dq[3], true)?);
    }
    let scores = c.source(MatMul { trans_a: false, trans_b: true }, &[q5, k5])?;
    let whole = vec![dq[0].clone(), dq[1].clone(), s.clone(), t.clone()];
    let mut scores = c.reshape(scores, whole.clone())?;
    if !early {
        scores = scaled(c, scores, &dq[3], false)?;
    }
    let mut shown = vec![scores];
    let cap = f64::from(c.float("softcap", 0.0)?);
    if cap > 0.0 {
        let u = c.bin_scalar(BinaryOp::Div, scores, cap)?;
        let u = c.un(UnaryOp::Tanh, u)?;
        scores = c.bin_scalar(BinaryOp::Mul, u, cap)?;
    }
    shown.push(scores);
    let mask = mask(c, &s, &t, &past, dtype)?;
    if let Some(bias) = mask.bias {
        scores = c.bin(BinaryOp::Add, scores, bias)?;
    }
    shown.push(scores);
    let precise = match c.int("softmax_precision", 0)? {
        0 => dtype,
        n => tensor::dtype(n as i32)?,
    };
    let p = c.cast(scores, precise)?;
    let p = c.source(Softmax { axis: 3, log: false }, &[p])?;
    let p = c.cast(p, dtype)?;
    let p5 = c.reshape(p, vec![dq[0].clone(), kv, share, s.clone(), t])?;
    let y = c.source(MatMul { trans_a: false, trans_b: false }, &[p5, v5])?;
    let size = c.dims(y).last().cloned().unwrap_or(1i64.into());
    let y = c.reshape(y, vec![dq[0].clone(), dq[1].clone(), s.clone(), size.clone()])?;
    let [mut y, p] = unless_hidden(c, [y, p], &mask)?;
    shown.push(p);
    if flat {
        y = c.b.transpose(y, &[0, 2, 1, 3])?;
        y = c.reshape(y, vec![dq[0].clone(), s, dq[1].mul(&size)])?;
    }
    let mode = usize::try_from(c.int("qk_matmul_output_mode", 0)?).unwrap_or(usize::MAX);
    let Some(&shown) = shown.get(mode) else { return invalid("qk_matmul_output_mode") };
    Ok(vec![y, k, v, shown])
}

/// x times the scale (one over the root of the head's size where none is given), or the scale's root.
fn scaled(c: &mut Cx<'_, '_, '_>, x: Value, size: &Dim, root: bool) -> Got {
    let known = match c.has("scale") {
        true => Some(f64::from(c.float("scale", 1.0)?)),
        false => size.as_const().filter(|&d| d > 0).map(|d| 1.0 / (d as f64).sqrt()),
    };
    if let Some(scale) = known {
        return c.bin_scalar(BinaryOp::Mul, x, if root { scale.sqrt() } else { scale });
    }
    let d = c.b.dim_scalar(size.clone());
    let mut d = c.cast(d, Dtype::F32)?;
    for _ in 0..1 + u8::from(root) {
        d = c.un(UnaryOp::Sqrt, d)?;
    }
    let d = c.cast(d, c.dtype(x))?;
    c.bin(BinaryOp::Div, x, d)
}

/// Zeros in rows whose every key is hidden: there the softmax is of nothing.
fn unless_hidden(c: &mut Cx<'_, '_, '_>, parts: [Value; 2], mask: &Mask) -> Got<[Value; 2]> {
    let Some(bias) = mask.bias.filter(|_| mask.whole_rows) else { return Ok(parts) };
    let dtype = c.dtype(bias);
    let last = c.rank(bias).saturating_sub(1);
    let top = c.reduce(ReduceOp::Max, bias, &[last], true)?;
    let hidden = c.bin_scalar(BinaryOp::Eq, top, f64::NEG_INFINITY)?;
    let zero = c.scalar(dtype, 0.0);
    let [y, p] = parts;
    Ok([c.b.select(hidden, zero, y)?, c.b.select(hidden, zero, p)?])
}

/// Both conditions, where the first may be absent.
fn and(c: &mut Cx<'_, '_, '_>, a: Option<Value>, b: Value) -> Got<Option<Value>> {
    Ok(Some(match a {
        Some(a) => c.bin(BinaryOp::And, a, b)?,
        None => b,
    }))
}

/// The mask given, the causal one, the window's, and that of each batch's number of keys.
fn mask(c: &mut Cx<'_, '_, '_>, s: &Dim, t: &Dim, past: &Dim, dtype: Dtype) -> Got<Mask> {
    let (mut bias, mut seen, mut whole_rows) = (None, None, false);
    if let Some(m) = c.opt(3) {
        let m = lengthened(c, m, t)?;
        whole_rows = true;
        match c.dtype(m) {
            Dtype::Bool => seen = Some(m),
            _ => bias = Some(m),
        }
    }
    let (rows, columns) = rows_and_columns(c, &[s.clone(), t.clone()])?;
    // The place of the first query among the keys.
    let mut first = c.b.dim_scalar(past.clone());
    if let Some(len) = c.opt(6) {
        let len = c.cast(len, Dtype::I64)?;
        let n = Dim::product(&c.dims(len));
        let len = c.reshape(len, vec![n, 1i64.into(), 1i64.into(), 1i64.into()])?;
        // Keys past a batch's own number are padding.
        let real = c.bin(BinaryOp::Lt, columns, len)?;
        seen = and(c, seen, real)?;
        whole_rows = true;
        if c.opt(4).is_none() {
            let own = c.b.dim_scalar(s.clone());
            first = c.bin(BinaryOp::Sub, len, own)?;
        }
    }
    let at = c.bin(BinaryOp::Add, rows, first)?;
    if c.flag("is_causal", false)? {
        let before = c.bin(BinaryOp::Le, columns, at)?;
        seen = and(c, seen, before)?;
    }
    let (left, right) = (c.int("left_window_size", -1)?, c.int("right_window_size", -1)?);
    if left >= 0 {
        let from = c.bin_scalar(BinaryOp::Sub, at, left as f64)?;
        let near = c.bin(BinaryOp::Ge, columns, from)?;
        (seen, whole_rows) = (and(c, seen, near)?, true);
    }
    if right >= 0 {
        let to = c.bin_scalar(BinaryOp::Add, at, right as f64)?;
        let near = c.bin(BinaryOp::Le, columns, to)?;
        (seen, whole_rows) = (and(c, seen, near)?, true);
    }
    if let Some(seen) = seen {
        let (zero, low) = (c.scalar(dtype, 0.0), c.scalar(dtype, f64::NEG_INFINITY));
        let own = c.b.select(seen, zero, low)?;
        bias = Some(match bias {
            Some(b) => c.bin(BinaryOp::Add, b, own)?,
            None => own,
        });
    }
    Ok(Mask { bias, whole_rows })
}

/// A mask that ends before the last key hides the rest.
fn lengthened(c: &mut Cx<'_, '_, '_>, mask: Value, t: &Dim) -> Got {
    let dims = c.dims(mask);
    let (Some(last), Some(t)) = (dims.last().and_then(Dim::as_const), t.as_const()) else {
        return Ok(mask);
    };
    if last >= t {
        return Ok(mask);
    }
    let before = vec![Dim::from(0i64); dims.len()];
    let mut after = before.clone();
    after[dims.len() - 1] = (t - last).into();
    let dtype = c.dtype(mask);
    let hidden = if dtype == Dtype::Bool { 0.0 } else { f64::NEG_INFINITY };
    let hidden = c.scalar(dtype, hidden);
    c.prim(Prim::Pad { before, after, mode: PadMode::Constant }, &[mask, hidden])
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
    let d = c.at_least(t, 4)?;
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
    let d = c.at_least(t, 4)?;
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
