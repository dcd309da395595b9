//! Attention as Paddle fuses it: packed projections, flash attention and its relatives, rotary
//! embeddings. All become the source operator [`Attention`], with what each calls a mask.

use super::lod::{iota, of_offsets};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::attention::{Adjust, Attention, Zero};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// What attention is given, heads before steps: `[B, H, S, D]`.
struct Heads {
    q: Value,
    k: Value,
    v: Value,
}

/// `[B, S, H, D]` with heads first; keys and values that query heads share are repeated.
fn heads(c: &mut Ctx<'_, '_>, q: Value, k: Value, v: Value) -> Res<Heads> {
    if [q, k, v].iter().any(|&x| c.rank(x) != 4) {
        return c.refuse("queries, keys or values of rank other than 4");
    }
    let mut first = |x: Value| -> Res<Value> { Ok(c.b.transpose(x, &[0, 2, 1, 3])?) };
    let (q, k, v) = (first(q)?, first(k)?, first(v)?);
    shared(c, Heads { q, k, v })
}

/// Repeats the heads of keys and values that several heads of queries share.
fn shared(c: &mut Ctx<'_, '_>, h: Heads) -> Res<Heads> {
    let (own, of) = (c.dim(h.q, 1)?, c.dim(h.k, 1)?);
    if own == of {
        return Ok(h);
    }
    let (Some(n), Some(m @ 1..)) = (own.as_const(), of.as_const()) else {
        return c.refuse("unknown numbers of heads");
    };
    if n % m != 0 {
        return c.refuse(format!("{n} heads of queries for {m} of keys"));
    }
    let mut each = |x: Value| -> Res<Value> {
        let mut d = c.at_least(x, 2)?;
        let x = c.b.unsqueeze(x, 2)?;
        let wide = [&d[..2], &[(n / m).into()], &d[2..]].concat();
        let x = c.b.broadcast(x, wide)?;
        d[1] = n.into();
        Ok(c.b.reshape(x, d)?)
    };
    Ok(Heads { q: h.q, k: each(h.k)?, v: each(h.v)? })
}

/// `1 / sqrt(D)`.
fn root_scale(c: &Ctx<'_, '_>, q: Value) -> Res<f64> {
    match c.dims(q).last().and_then(Dim::as_const) {
        Some(d @ 1..) => Ok(1.0 / (d as f64).sqrt()),
        _ => c.refuse("heads of unknown width"),
    }
}

/// Attends and puts steps before heads again.
fn attend(
    c: &mut Ctx<'_, '_>,
    h: &Heads,
    scale: f64,
    adjust: Vec<Adjust>,
    masks: &[Value],
) -> Res<Value> {
    let ins = [&[h.q, h.k, h.v], masks].concat();
    let v = c.b.source(Attention { scale, adjust, zero: Zero::Never }, &ins)?;
    Ok(c.b.transpose(v, &[0, 2, 1, 3])?)
}

/// A causal mask whose last query sees the last key.
fn causal(c: &Ctx<'_, '_>, h: &Heads) -> Res<Adjust> {
    Ok(Adjust::Causal { past: c.dim(h.k, 2)?.sub(&c.dim(h.q, 2)?) })
}

/// A mask as it is added, in the scores' dtype.
fn added(c: &mut Ctx<'_, '_>, h: &Heads, mask: Value) -> Res<(Adjust, Value)> {
    if c.b.g.dtype(mask) == Dtype::Bool {
        return Ok((Adjust::Seen { fill: f64::NEG_INFINITY }, mask));
    }
    Ok((Adjust::Add, c.b.cast(mask, c.b.g.dtype(h.q))?))
}

/// flash_attn, memory_efficient_attention, fused_dot_product_attention: q, k, v `[B, S, H, D]`.
pub fn flash(c: &mut Ctx<'_, '_>) -> Res {
    let (q, k, v) = (c.tensor("q|query")?, c.tensor("k|key")?, c.tensor("v|value")?);
    c.ignore("fixed_seed_offset");
    for slot in ["max_seqlen_q", "max_seqlen_k"] {
        c.ignore(slot);
    }
    let h = heads(c, q, k, v)?;
    flash_of(c, &h)
}

fn flash_of(c: &mut Ctx<'_, '_>, h: &Heads) -> Res {
    let scale = match c.float("scale|scaling_factor", -1.0) {
        s if s > 0.0 => s,
        _ => root_scale(c, h.q)?,
    };
    let (mut adjust, mut masks) = (vec![], vec![]);
    if let Some(mask) = c.opt("attn_mask|bias") {
        let (how, mask) = added(c, h, mask)?;
        adjust.push(how);
        masks.push(mask);
    }
    let kind = c.text("mask_type_str", "none").to_string();
    if c.flag("causal", false) || kind == "causal" {
        // xformers counts from the first key, FlashAttention from the last.
        let first = c.op.kind == "memory_efficient_attention";
        adjust.push(if first { Adjust::Causal { past: 0i64.into() } } else { causal(c, h)? });
    } else if kind != "none" {
        return c.refuse(format!("a mask called {kind}"));
    }
    let v = attend(c, h, scale, adjust, &masks)?;
    c.put("out|output", v);
    Ok(())
}

/// flash_attn_qkvpacked: `[B, S, 3, H, D]`.
pub fn flash_packed(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("qkv")?;
    c.ignore("fixed_seed_offset");
    if c.rank(x) != 5 || !c.dim(x, 2)?.is(3) {
        return c.refuse("queries, keys and values packed otherwise than one of each");
    }
    let mut one = |k: i64| -> Res<Value> {
        let v = c.b.narrow(x, 2, k.into(), 1i64.into())?;
        Ok(c.b.squeeze(v, 2)?)
    };
    let (q, k, v) = (one(0)?, one(1)?, one(2)?);
    let h = heads(c, q, k, v)?;
    flash_of(c, &h)
}

/// flash_attn_unpadded: sequences end to end, `[T, H, D]`, their offsets in `cu_seqlens_q` and `_k`.
pub fn flash_unpadded(c: &mut Ctx<'_, '_>) -> Res {
    let [q, k, v] = ["q", "k", "v"].map(|s| c.tensor(s));
    let (q, k, v) = (q?, k?, v?);
    for slot in ["fixed_seed_offset", "max_seqlen_q", "max_seqlen_k"] {
        c.ignore(slot);
    }
    if [q, k, v].iter().any(|&x| c.rank(x) != 3) {
        return c.refuse("queries, keys or values of rank other than 3");
    }
    let mut place = |slot: &str, x: Value| -> Res<(Value, Value, Value)> {
        let offsets = c.tensor(slot)?;
        let offsets = c.b.cast(offsets, Dtype::I64)?;
        let rows = c.dim(x, 0)?;
        let s = of_offsets(c, offsets, rows)?;
        let (owner, at) = s.owners(c)?;
        let len = super::lod::at(c, s.lens, owner)?;
        // Counted from the end, since the last query sees the last key.
        Ok((owner, c.b.sub(at, len)?, offsets))
    };
    let (of_q, at_q, _) = place("cu_seqlens_q", q)?;
    let (of_k, at_k, _) = place("cu_seqlens_k", k)?;
    let column = c.b.unsqueeze(of_q, 1)?;
    let mut seen = c.b.bin(BinaryOp::Eq, column, of_k)?;
    if c.flag("causal", false) {
        let at_q = c.b.unsqueeze(at_q, 1)?;
        let before = c.b.bin(BinaryOp::Le, at_k, at_q)?;
        seen = c.b.bin(BinaryOp::And, seen, before)?;
    }
    let mut whole = |x: Value| -> Res<Value> { Ok(c.b.unsqueeze(x, 0)?) };
    let (q, k, v) = (whole(q)?, whole(k)?, whole(v)?);
    let h = heads(c, q, k, v)?;
    let scale = match c.float("scale", -1.0) {
        s if s > 0.0 => s,
        _ => root_scale(c, q)?,
    };
    let (mut adjust, mut masks) = (vec![], vec![]);
    if let Some(mask) = c.opt("attn_mask") {
        let (how, mask) = added(c, &h, mask)?;
        adjust.push(how);
        masks.push(mask);
    }
    adjust.push(Adjust::Seen { fill: f64::NEG_INFINITY });
    masks.push(seen);
    let v = attend(c, &h, scale, adjust, &masks)?;
    let v = c.b.squeeze(v, 0)?;
    c.put("out", v);
    Ok(())
}

/// variable_length_memory_efficient_attention: `[B, H, S, D]`, of which each row has so many real
/// queries and keys.
pub fn variable_length(c: &mut Ctx<'_, '_>) -> Res {
    let [q, k, v] = ["query", "key", "value"].map(|s| c.tensor(s));
    let h = shared(c, Heads { q: q?, k: k?, v: v? })?;
    if c.int("pre_cache_length", 0) != 0 {
        return c.refuse("keys of a cache before the others");
    }
    let scale = match c.float("scale", -1.0) {
        s if s > 0.0 => s,
        _ => root_scale(c, h.q)?,
    };
    let (n, s, t) = (c.dim(h.q, 0)?, c.dim(h.q, 2)?, c.dim(h.k, 2)?);
    let mut inside = |slot: &str, steps: &Dim, shape: [Dim; 4]| -> Res<Value> {
        let lens = c.tensor(slot)?;
        let lens = c.b.cast(lens, Dtype::I64)?;
        let lens = c.b.reshape(lens, vec![n.clone(), 1i64.into()])?;
        let place = iota(c, steps)?;
        let v = c.b.bin(BinaryOp::Lt, place, lens)?;
        Ok(c.b.reshape(v, shape.to_vec())?)
    };
    let one = Dim::from(1i64);
    let keys = inside("kv_seq_lens", &t, [n.clone(), one.clone(), one.clone(), t.clone()])?;
    let rows = inside("seq_lens", &s, [n.clone(), s.clone(), one.clone(), one.clone()])?;
    let (mut adjust, mut masks) = (vec![], vec![]);
    if let Some(mask) = c.opt("mask") {
        let (how, mask) = added(c, &h, mask)?;
        adjust.push(how);
        masks.push(mask);
    }
    adjust.push(Adjust::Seen { fill: f64::from(f32::MIN) });
    masks.push(keys);
    if c.flag("causal", false) {
        adjust.push(Adjust::Causal { past: 0i64.into() });
    }
    let v = attend(c, &h, scale, adjust, &masks)?;
    let zero = c.b.scalar(c.b.g.dtype(v), 0.0);
    let v = c.b.select(rows, v, zero)?;
    let v = c.b.transpose(v, &[0, 2, 1, 3])?;
    c.put("out", v);
    Ok(())
}

/// multihead_matmul: Input `[B, S, N]` with its projections W `[N, 3, N]`, Bias `[3, N]`, and what
/// is added to the scores, BiasQK.
pub fn multihead_matmul(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w, bias) = (c.tensor("Input")?, c.tensor("W")?, c.tensor("Bias")?);
    let n = c.int("head_number", 1);
    let d = c.dims(x);
    let ([b, s, width], 1..=0xFFFF) = (&d[..], n) else { return c.refuse("such a shape") };
    if c.flag("transpose_Q|transpose_q", false) || !c.flag("transpose_K|transpose_k", true) {
        return c.refuse("queries or keys the other way round");
    }
    let all = c.b.g.tensor(w).count().div(width);
    let w = c.b.reshape(w, vec![width.clone(), all.clone()])?;
    let bias = c.b.reshape(bias, vec![all.clone()])?;
    let v = c.b.matmul(x, w)?;
    let v = c.b.add(v, bias)?;
    let own = all.div(&(3 * n).into());
    let v = c.b.reshape(v, vec![b.clone(), s.clone(), 3i64.into(), n.into(), own.clone()])?;
    let mut part = |k: i64| -> Res<Value> {
        let v = c.b.narrow(v, 2, k.into(), 1i64.into())?;
        Ok(c.b.squeeze(v, 2)?)
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let h = heads(c, q, k, v)?;
    let (mut adjust, mut masks) = (vec![], vec![]);
    if let Some(mask) = c.opt("BiasQK") {
        let (how, mask) = added(c, &h, mask)?;
        adjust.push(how);
        masks.push(mask);
    }
    let v = attend(c, &h, c.float("alpha", 1.0), adjust, &masks)?;
    let v = c.b.reshape(v, vec![b.clone(), s.clone(), own.times(n)])?;
    c.put("Out", v);
    Ok(())
}

/// Sines and cosines `[1, S, 1, D]` where none are given: neighbours have one angle.
fn angles(c: &mut Ctx<'_, '_>, at: Value, width: i64) -> Res<(Value, Value)> {
    let base = c.float("rotary_emb_base", 10000.0);
    let one = |j: i64| base.powf(-((j / 2 * 2) as f64) / width as f64) as f32;
    let list: Vec<f32> = (0..width).map(one).collect();
    let list = c.b.floats(&[width], &list);
    let at = c.b.cast(at, Dtype::F32)?;
    let rank = c.rank(at);
    let at = c.b.unsqueeze(at, rank)?;
    let angle = c.b.mul(at, list)?;
    Ok((c.b.un(UnaryOp::Sin, angle)?, c.b.un(UnaryOp::Cos, angle)?))
}

/// fused_rotary_position_embedding: pairs of q, k and v turned by angles that grow with the step.
/// Pairs are neighbours, or (not `use_neox_rotary_style`) lie half the width apart.
pub fn rotary(c: &mut Ctx<'_, '_>) -> Res {
    let q = c.tensor("q")?;
    let d = c.dims(q);
    let (4, Some(width @ 2..=0xFFFF)) = (d.len(), d.last().and_then(Dim::as_const)) else {
        return c.refuse("such a shape");
    };
    let time_major = c.flag("time_major", false);
    let (batch, steps) = match time_major {
        true => (d[1].clone(), d[0].clone()),
        false => (d[0].clone(), d[1].clone()),
    };
    let ids = c.opt("position_ids");
    let (sin, cos) = match (c.opt("sin"), c.opt("cos")) {
        (Some(sin), Some(cos)) => {
            let mut table = |x: Value| -> Res<Value> {
                let rows = c.b.g.tensor(x).count().div(&width.into());
                let x = c.b.reshape(x, vec![rows, width.into()])?;
                match ids {
                    Some(ids) => Ok(c.b.prim(Prim::Gather { axis: 0 }, &[x, ids])?),
                    None => Ok(c.b.narrow(x, 0, 0i64.into(), steps.clone())?),
                }
            };
            (table(sin)?, table(cos)?)
        }
        _ => {
            let at = match ids {
                Some(ids) => ids,
                None => iota(c, &steps)?,
            };
            angles(c, at, width)?
        }
    };
    // As [B, S, 1, D], or with steps first.
    let rows = if ids.is_some() { batch } else { 1i64.into() };
    let mut placed = |x: Value| -> Res<Value> {
        let shape = vec![rows.clone(), steps.clone(), 1i64.into(), width.into()];
        let x = c.b.reshape(x, shape)?;
        Ok(if time_major { c.b.transpose(x, &[1, 0, 2, 3])? } else { x })
    };
    let (sin, cos) = (placed(sin)?, placed(cos)?);
    let near = c.flag("use_neox_rotary_style", true);
    for (slot, out) in [("q", "out_q"), ("k", "out_k"), ("v", "out_v")] {
        if let Some(x) = c.opt(slot) {
            let v = turned(c, x, sin, cos, near)?;
            c.put(out, v);
        }
    }
    Ok(())
}

/// `x cos + y sin`, y being `(-b, a)` of each pair `(a, b)` of x.
fn turned(c: &mut Ctx<'_, '_>, given: Value, sin: Value, cos: Value, near: bool) -> Res<Value> {
    let dtype = c.b.g.dtype(given);
    let x = c.b.cast(given, c.b.g.dtype(sin))?;
    c.ranked(&[x], 4)?;
    let d = c.dims(x);
    let half = d[3].div(&2i64.into());
    let (shape, axis) = match near {
        true => ([&d[..3], &[half, 2i64.into()]].concat(), 4),
        false => ([&d[..3], &[2i64.into(), half]].concat(), 3),
    };
    let pairs = c.b.reshape(x, shape)?;
    let a = c.b.narrow(pairs, axis, 0i64.into(), 1i64.into())?;
    let b = c.b.narrow(pairs, axis, 1i64.into(), 1i64.into())?;
    let b = c.b.un(UnaryOp::Neg, b)?;
    let y = c.b.concat(&[b, a], axis)?;
    let y = c.b.reshape(y, d)?;
    let (p, q) = (c.b.mul(x, cos)?, c.b.mul(y, sin)?);
    let v = c.b.add(p, q)?;
    Ok(c.b.cast(v, dtype)?)
}
