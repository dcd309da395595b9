//! com.microsoft: attention in its several forms, and rotary embeddings. Meanings are those of ONNX
//! Runtime's ContribOperators.md; heads are `[batch, heads, length, size]` throughout.

use super::attention::{split_heads, turn};
use super::contrib::MS;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, PadMode, Prim, ScatterOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::norm::Softmax;
use hub_ir::ops::quant::Dequantize;

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "Attention", attention),
    op_of(MS, "QAttention", quantised_attention),
    op_of(MS, "MultiHeadAttention", multi_head),
    op_of(MS, "GroupQueryAttention", group_query),
    op_of(MS, "RotaryEmbedding", rotary),
];

/// What happens to scores `[B, H, S, T]` between product and softmax.
#[derive(Default)]
struct Scores {
    /// Factor of the scores; one over the root of the head's size by default.
    scale: Option<f64>,
    /// Added, broadcasting.
    add: Vec<Value>,
    /// Bounds the magnitude.
    cap: f64,
    /// bool, broadcasting: what is seen at all.
    seen: Option<Value>,
    /// `[1, H, 1, 1]`: scores of a key that has no value.
    sink: Option<Value>,
}

/// Attention of queries over keys and values (whose heads several queries' may share), as
/// `[B, S, heads * size]`.
fn attend(c: &mut Cx<'_, '_, '_>, [q, k, v]: [Value; 3], s: Scores) -> Got {
    let (dq, dk, dtype) = (c.dims(q), c.dims(k), c.dtype(q));
    let ([batch, heads, length, size], [_, kv, keys, _]) = (&dq[..], &dk[..]) else {
        return invalid("queries and keys need four axes");
    };
    let scale = match (s.scale, size.as_const()) {
        (Some(s), _) => s,
        (None, Some(d)) if d > 0 => 1.0 / (d as f64).sqrt(),
        _ => return unsupported("heads whose size is not known, without a scale"),
    };
    let share = heads.div(kv);
    let (mut q, mut k, mut v) = (q, k, v);
    let shared = !share.is(1);
    if shared {
        let five = vec![batch.clone(), kv.clone(), share.clone(), length.clone(), size.clone()];
        q = c.reshape(q, five)?;
        (k, v) = (c.b.unsqueeze(k, 2)?, c.b.unsqueeze(v, 2)?);
    }
    let mut y = c.source(MatMul { trans_a: false, trans_b: true }, &[q, k])?;
    let whole = vec![batch.clone(), heads.clone(), length.clone(), keys.clone()];
    y = c.reshape(y, whole.clone())?;
    y = c.bin_scalar(BinaryOp::Mul, y, scale)?;
    if s.cap > 0.0 {
        let t = c.bin_scalar(BinaryOp::Div, y, s.cap)?;
        let t = c.un(UnaryOp::Tanh, t)?;
        y = c.bin_scalar(BinaryOp::Mul, t, s.cap)?;
    }
    for bias in s.add {
        let bias = c.cast(bias, dtype)?;
        y = c.bin(BinaryOp::Add, y, bias)?;
    }
    if let Some(seen) = s.seen {
        let low = c.scalar(dtype, f64::NEG_INFINITY);
        y = c.b.select(seen, y, low)?;
    }
    if let Some(sink) = s.sink {
        let mut wide = whole.clone();
        wide[3] = 1i64.into();
        let sink = c.cast(sink, dtype)?;
        let sink = c.b.broadcast(sink, wide)?;
        y = c.b.concat(&[y, sink], 3)?;
    }
    let mut p = c.source(Softmax { axis: 3, log: false }, &[y])?;
    if s.sink.is_some() {
        p = c.b.narrow(p, 3, 0i64.into(), keys.clone())?;
    }
    if shared {
        let five = vec![batch.clone(), kv.clone(), share, length.clone(), keys.clone()];
        p = c.reshape(p, five)?;
    }
    let y = c.source(MatMul { trans_a: false, trans_b: false }, &[p, v])?;
    let width = c.dims(y).last().cloned().unwrap_or(1i64.into());
    let y = c.reshape(y, vec![batch.clone(), heads.clone(), length.clone(), width.clone()])?;
    let y = c.b.transpose(y, &[0, 2, 1, 3])?;
    c.reshape(y, vec![batch.clone(), length.clone(), heads.mul(&width)])
}

/// `0, 1, …` along axis `axis` of `rank`.
fn count(c: &mut Cx<'_, '_, '_>, n: &Dim, axis: usize, rank: usize) -> Got {
    let mut shape = vec![Dim::from(1i64); rank];
    shape[axis] = n.clone();
    c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 }, &[])
}

/// bool `[1, 1, S, T]`: keys up to the query's own place, which has `past` before the first.
fn causal(c: &mut Cx<'_, '_, '_>, s: &Dim, t: &Dim, past: &Dim) -> Got {
    let (rows, columns) = (count(c, s, 2, 4)?, count(c, t, 3, 4)?);
    let shift = c.b.dim_scalar(past.clone());
    let last = c.bin(BinaryOp::Add, rows, shift)?;
    c.bin(BinaryOp::Le, columns, last)
}

/// A mask of any form that ONNX Runtime takes, as what is added to the scores. It is of integers:
/// `[B, T]`, `[B, S, T]` or `[B, 1, M, M]` with 0 for what is hidden; `[B]` with numbers of keys;
/// `[2 B]` with ends, then starts of keys.
fn padding(
    c: &mut Cx<'_, '_, '_>,
    mask: Value,
    [batch, s, t, past]: [&Dim; 4],
    dtype: Dtype,
) -> Got {
    let filter = f64::from(c.float("mask_filter_value", -10000.0)?);
    let dims = c.dims(mask);
    let one_dim = || Dim::from(1i64);
    let seen = match &dims[..] {
        [n] => {
            let at = count(c, t, 3, 4)?;
            let part = |c: &mut Cx<'_, '_, '_>, from: Dim| -> Got {
                let v = c.b.narrow(mask, 0, from, batch.clone())?;
                let v = c.cast(v, Dtype::I64)?;
                c.reshape(v, vec![batch.clone(), one_dim(), one_dim(), one_dim()])
            };
            let end = part(c, 0i64.into())?;
            let before = c.bin(BinaryOp::Lt, at, end)?;
            if *n == batch.times(2) {
                let start = part(c, batch.clone())?;
                let after = c.bin(BinaryOp::Ge, at, start)?;
                c.bin(BinaryOp::And, before, after)?
            } else {
                c.b.g.constraints.equal(n, batch)?;
                before
            }
        }
        [b, _] => {
            let m = c.bin_scalar(BinaryOp::Gt, mask, 0.0)?;
            c.reshape(m, vec![b.clone(), one_dim(), one_dim(), t.clone()])?
        }
        [b, _, _] => {
            let m = c.bin_scalar(BinaryOp::Gt, mask, 0.0)?;
            c.reshape(m, vec![b.clone(), one_dim(), s.clone(), t.clone()])?
        }
        [_, _, _, _] => {
            let m = c.bin_scalar(BinaryOp::Gt, mask, 0.0)?;
            let m = c.b.narrow(m, 2, past.clone(), s.clone())?;
            c.b.narrow(m, 3, 0i64.into(), t.clone())?
        }
        _ => return invalid("a mask without axes"),
    };
    let (zero, low) = (c.scalar(dtype, 0.0), c.scalar(dtype, filter));
    Ok(c.b.select(seen, zero, low)?)
}

fn scale(c: &Cx<'_, '_, '_>) -> Got<Option<f64>> {
    Ok(Some(f64::from(c.float("scale", 0.0)?)).filter(|&s| s != 0.0))
}

fn heads(c: &Cx<'_, '_, '_>, name: &str) -> Got<i64> {
    match c.int(name, 0)? {
        n @ 1..=65536 => Ok(n),
        n => invalid(format!("{name} is {n}")),
    }
}

/// One projection makes queries, keys and values of the input.
fn attention(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, w) = (c.tensor(0)?, c.tensor(1)?);
    if c.flag("do_rotary", false)? || c.flag("past_present_share_buffer", false)? {
        return unsupported("rotary attention, or a cache that is written in place");
    }
    let bias = c.opt(2);
    projected(c, [x, w], bias, [c.opt(3), c.opt(4), c.opt(5)])
}

fn quantised_attention(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut real = [Value::NONE; 2];
    for (v, [x, scale, zero]) in real.iter_mut().zip([[0, 3, 6], [1, 4, 7]]) {
        let mut ins = vec![c.tensor(x)?, c.tensor(scale)?];
        ins.extend(c.opt(zero));
        *v = c.source(Dequantize { axis: 1, block: None, to: Dtype::F32 }, &ins)?;
    }
    let bias = c.opt(2);
    projected(c, real, bias, [c.opt(5), c.opt(8), None])
}

fn projected(
    c: &mut Cx<'_, '_, '_>,
    [x, w]: [Value; 2],
    bias: Option<Value>,
    [mask, cache, more]: [Option<Value>; 3],
) -> Got<Vec<Value>> {
    let (dx, dtype, n) = (c.dims(x), c.dtype(x), heads(c, "num_heads")?);
    let [batch, s, _] = &dx[..] else { return invalid("the input must be [B, S, hidden]") };
    let mut y = c.source(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
    if let Some(bias) = bias {
        y = c.bin(BinaryOp::Add, y, bias)?;
    }
    let third = c.dim(y, 2)?.div(&3i64.into());
    let sizes: Vec<Dim> = match c.ints("qkv_hidden_sizes")? {
        Some(v) if v.len() == 3 => v.into_iter().map(Dim::from).collect(),
        Some(v) if !v.is_empty() => return invalid(format!("qkv_hidden_sizes {v:?}")),
        _ => vec![third; 3],
    };
    let mut parts = vec![];
    let mut at = Dim::from(0i64);
    for size in sizes {
        let part = c.b.narrow(y, 2, at.clone(), size.clone())?;
        parts.push(split_heads(c, part, n)?);
        at = at.add(&size);
    }
    let [q, mut k, mut v] = [parts[0], parts[1], parts[2]];
    let mut past = Dim::from(0i64);
    if let Some(cache) = cache {
        // [2, B, H, past, size]
        past = c.dims(cache).get(3).cloned().unwrap_or(past);
        for (i, new) in [&mut k, &mut v].into_iter().enumerate() {
            let old = c.b.narrow(cache, 0, i.into(), 1i64.into())?;
            let old = c.b.squeeze(old, 0)?;
            *new = c.b.concat(&[old, *new], 2)?;
        }
    }
    let t = c.dim(k, 2)?;
    let mut scores = Scores { scale: scale(c)?, ..Default::default() };
    if let Some(mask) = mask {
        scores.add.push(padding(c, mask, [batch, s, &t, &past], dtype)?);
    }
    scores.add.extend(more);
    if c.flag("unidirectional", false)? {
        scores.seen = Some(causal(c, s, &t, &past)?);
    }
    let y = attend(c, [q, k, v], scores)?;
    let mut outs = vec![y];
    if c.wants(1) {
        let (k, v) = (c.b.unsqueeze(k, 0)?, c.b.unsqueeze(v, 0)?);
        outs.push(c.b.concat(&[k, v], 0)?);
    }
    Ok(outs)
}

/// Part `i` of `[B, S, H, parts, D]` as heads.
fn unpacked(c: &mut Cx<'_, '_, '_>, x: Value, i: i64) -> Got {
    let part = c.b.narrow(x, 3, i.into(), 1i64.into())?;
    let part = c.b.squeeze(part, 3)?;
    Ok(c.b.transpose(part, &[0, 2, 1, 3])?)
}

/// Queries, keys and values that are already projected (but for their bias).
fn multi_head(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (query, n) = (c.tensor(0)?, heads(c, "num_heads")?);
    let dtype = c.dtype(query);
    if c.opt(8).is_some() || c.opt(9).is_some() {
        return unsupported("a cache that is written in place");
    }
    let mut from = Dim::from(0i64);
    // x plus its part of the bias, as heads.
    let mut split = |c: &mut Cx<'_, '_, '_>, x: Value| -> Got {
        let Some(bias) = c.opt(3) else { return split_heads(c, x, n) };
        let width = c.dim(x, 2)?;
        let own = c.b.narrow(bias, 0, from.clone(), width.clone())?;
        from = from.add(&width);
        let x = c.bin(BinaryOp::Add, x, own)?;
        split_heads(c, x, n)
    };
    let (q, mut k, mut v) = match (c.opt(1), c.opt(2), c.rank(query)) {
        (None, None, 5) => (unpacked(c, query, 0)?, unpacked(c, query, 1)?, unpacked(c, query, 2)?),
        (Some(kv), None, 3) if c.rank(kv) == 5 => {
            (split(c, query)?, unpacked(c, kv, 0)?, unpacked(c, kv, 1)?)
        }
        (Some(k), Some(v), 3) if c.rank(k) == 4 => (split(c, query)?, k, v),
        (Some(k), Some(v), 3) => (split(c, query)?, split(c, k)?, split(c, v)?),
        _ => return unsupported("this form of queries, keys and values"),
    };
    let mut past = Dim::from(0i64);
    if let (Some(pk), Some(pv)) = (c.opt(6), c.opt(7)) {
        past = c.dims(pk).get(2).cloned().unwrap_or(past);
        (k, v) = (c.b.concat(&[pk, k], 2)?, c.b.concat(&[pv, v], 2)?);
    }
    let (dq, t) = (c.dims(q), c.dim(k, 2)?);
    let mut scores = Scores { scale: scale(c)?, ..Default::default() };
    if let Some(mask) = c.opt(4) {
        scores.add.push(padding(c, mask, [&dq[0], &dq[2], &t, &past], dtype)?);
    }
    scores.add.extend(c.opt(5));
    if c.flag("unidirectional", false)? {
        scores.seen = Some(causal(c, &dq[2], &t, &past)?);
    }
    Ok(vec![attend(c, [q, k, v], scores)?, k, v])
}

/// Keys and values of fewer heads than queries, with a cache: the first entries of each batch are
/// old ones, the new ones stand behind them.
fn group_query(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let query = c.tensor(0)?;
    let (hq, hk) = (heads(c, "num_heads")?, heads(c, "kv_num_heads")?);
    for name in ["k_quant_type", "v_quant_type"] {
        if !matches!(&*c.string(name, "NONE")?, "NONE" | "") {
            return unsupported("a quantised cache");
        }
    }
    if c.flag("sliding_window_cache", false)? || c.opt(14).is_some() {
        return unsupported("a cache of a window, or normalised heads");
    }
    let (q, k, v) = match (c.opt(1), c.opt(2)) {
        (Some(k), Some(v)) => (query, k, v),
        _ => {
            // Packed: queries' heads, then keys', then values'.
            let size = c.dim(query, 2)?.div(&(hq + 2 * hk).into());
            let (a, b) = (size.times(hq), size.times(hk));
            let q = c.b.narrow(query, 2, 0i64.into(), a.clone())?;
            let k = c.b.narrow(query, 2, a.clone(), b.clone())?;
            (q, k, c.b.narrow(query, 2, a.add(&b), b)?)
        }
    };
    let (mut q, mut k, v) =
        (split_heads(c, q, hq)?, split_heads(c, k, hk)?, split_heads(c, v, hk)?);
    let d = c.at_least(q, 3)?;
    let (batch, s) = (d[0].clone(), d[2].clone());
    // How many entries each batch has before the new ones: [B, 1].
    let lens = c.tensor(5)?;
    let lens = c.cast(lens, Dtype::I64)?;
    let lens = c.reshape(lens, vec![batch.clone(), 1i64.into()])?;
    let more = c.b.dim_scalar(s.plus(-1));
    let before = c.bin(BinaryOp::Sub, lens, more)?;
    let before = c.bin_scalar(BinaryOp::Max, before, 0.0)?;
    let steps = count(c, &s, 1, 2)?;
    let places = c.bin(BinaryOp::Add, before, steps)?;
    if c.flag("do_rotary", false)? {
        let at = c.opt(9).unwrap_or(places);
        let at = c.b.broadcast(at, vec![batch.clone(), s.clone()])?;
        let angles = [looked_up(c, 7, at)?, looked_up(c, 8, at)?];
        let turned = c.dim(angles[0], 2)?.times(2);
        let pairs = c.flag("rotary_interleaved", false)?;
        q = turn(c, q, angles, turned.clone(), pairs)?;
        k = turn(c, k, angles, turned, pairs)?;
    }
    let (k, v) = (cached(c, 3, k, places)?, cached(c, 4, v, places)?);
    let t = c.dim(k, 2)?;
    // A query sees what lies up to its own place.
    let at = count(c, &t, 3, 4)?;
    let own = c.reshape(places, vec![batch, 1i64.into(), s, 1i64.into()])?;
    let mut seen = match c.flag("causal", true)? {
        true => c.bin(BinaryOp::Le, at, own)?,
        false => {
            let lens = c.b.unsqueeze(lens, 2)?;
            let lens = c.b.unsqueeze(lens, 3)?;
            c.bin(BinaryOp::Le, at, lens)?
        }
    };
    let window = c.int("local_window_size", -1)?;
    if window > 0 {
        let first = c.bin_scalar(BinaryOp::Sub, own, window as f64)?;
        let near = c.bin(BinaryOp::Gt, at, first)?;
        seen = c.bin(BinaryOp::And, seen, near)?;
    }
    let mut scores = Scores { scale: scale(c)?, seen: Some(seen), ..Default::default() };
    scores.cap = c.float("softcap", 0.0)?.into();
    scores.add.extend(c.opt(10));
    scores.sink = match c.opt(11) {
        Some(sink) => {
            Some(c.reshape(sink, vec![1i64.into(), hq.into(), 1i64.into(), 1i64.into()])?)
        }
        None if c.int("smooth_softmax", 0)? == 1 => {
            let zero = c.scalar(Dtype::F32, 0.0);
            Some(c.reshape(zero, vec![1i64.into(); 4])?)
        }
        None => None,
    };
    Ok(vec![attend(c, [q, k, v], scores)?, k, v])
}

/// The new entries `[B, H, S, D]` in the cache at operand `at`, which grows to the total length.
fn cached(c: &mut Cx<'_, '_, '_>, at: usize, new: Value, places: Value) -> Got {
    let d = c.dims(new);
    let total = c.tensor(6)?;
    let total = c.reshape(total, vec![])?;
    let Some(total) = c.sizes(total, "total_sequence_length")?.pop() else {
        return invalid("no total_sequence_length");
    };
    let dtype = c.dtype(new);
    let zero = c.scalar(dtype, 0.0);
    let base = match c.opt(at) {
        Some(old) => {
            let have = c.dim(old, 2)?;
            let mut after = vec![Dim::from(0i64); 4];
            after[2] = total.max_of(&have).sub(&have);
            let before = vec![Dim::from(0i64); 4];
            c.prim(Prim::Pad { before, after, mode: PadMode::Constant }, &[old, zero])?
        }
        None => {
            let mut whole = d.clone();
            whole[2] = total;
            c.b.broadcast(zero, whole)?
        }
    };
    let places = c.b.unsqueeze(places, 1)?;
    let places = c.b.unsqueeze(places, 3)?;
    let places = c.b.broadcast(places, d)?;
    let put = Prim::ScatterElements { axis: 2, op: ScatterOp::Set };
    c.prim(put, &[base, places, new])
}

/// Rows of the table at operand `table`, for places `[B, S]`.
fn looked_up(c: &mut Cx<'_, '_, '_>, table: usize, at: Value) -> Got {
    let table = c.tensor(table)?;
    c.prim(Prim::Gather { axis: 0 }, &[table, at])
}

/// `(x, position_ids: [1] or [B, S], cos, sin)`; one position is the first token's.
fn rotary(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, at, table) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    if c.flag("is_packed_batching", false)? {
        return unsupported("packed batches");
    }
    let flat = c.rank(x) == 3;
    let dims = c.at_least(x, 3)?;
    let half = c.dims(table).last().cloned().unwrap_or(0i64.into());
    let turned = match c.int("rotary_embedding_dim", 0)? {
        0 => half.times(2),
        n => n.into(),
    };
    let t = if flat {
        let size = match c.int("num_heads", 0)? {
            0 => turned.clone(),
            n => dims[2].div(&n.into()),
        };
        let split = vec![dims[0].clone(), dims[1].clone(), dims[2].div(&size), size];
        let t = c.reshape(x, split)?;
        c.b.transpose(t, &[0, 2, 1, 3])?
    } else {
        x
    };
    let d = c.dims(t);
    if d.len() != 4 {
        return invalid(format!("x of rank {}", d.len()));
    }
    let mut at = c.cast(at, Dtype::I64)?;
    if c.rank(at) < 2 {
        let steps = count(c, &d[2], 1, 2)?;
        at = c.bin(BinaryOp::Add, at, steps)?;
    }
    let at = c.b.broadcast(at, vec![d[0].clone(), d[2].clone()])?;
    let angles = [looked_up(c, 2, at)?, looked_up(c, 3, at)?];
    let pairs = c.flag("interleaved", false)?;
    let y = turn(c, t, angles, turned, pairs)?;
    if !flat {
        return one(y);
    }
    let y = c.b.transpose(y, &[0, 2, 1, 3])?;
    one(c.reshape(y, dims)?)
}
