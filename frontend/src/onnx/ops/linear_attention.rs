//! Attention that is a recurrence (version 27), the causal convolution before it, and attention with
//! graphs of the model's own around its softmax.

use super::attention::split_heads;
use super::contrib::MS;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op, op_of};
use crate::onnx::tensor;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Geometry, Prim, UnaryOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::ops::activation::Activation;
use hub_ir::ops::conv::Conv;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::norm::Softmax;
use hub_ir::{Builder, Outside, Value};

pub(crate) const OPS: &[Row] = &[
    op("LinearAttention", 27, linear_attention),
    op("CausalConvWithState", 27, causal_conv),
    op_of("ai.onnx.preview", "FlexAttention", flex_attention),
    op_of(MS, "LinearAttention", |c| {
        plain(c, &[("state_window", 0)])?;
        linear_attention(c)
    }),
    op_of(MS, "CausalConvWithState", |c| {
        plain(c, &[("state_window", 0), ("channels_last", 0), ("dilation", 1), ("ndim", 1)])?;
        causal_conv(c)
    }),
];

/// Refuses attributes that are not at their plain values.
fn plain(c: &Cx<'_, '_, '_>, attrs: &[(&str, i64)]) -> Got<()> {
    for &(name, value) in attrs {
        let given = c.int(name, value)?;
        if given != value {
            return unsupported(format!("{name} {given}"));
        }
    }
    Ok(())
}

/// `[B, T, heads * D]` as rows `[T, B, heads, D]` of f32.
fn rows(c: &mut Cx<'_, '_, '_>, x: Value, heads: i64) -> Got {
    let d = c.dims(x);
    let [batch, steps, width] = &d[..] else {
        return invalid(format!("an operand of rank {}", d.len()));
    };
    let split = vec![batch.clone(), steps.clone(), heads.into(), width.div(&heads.into())];
    let x = c.cast(x, Dtype::F32)?;
    let x = c.reshape(x, split)?;
    Ok(c.b.transpose(x, &[1, 0, 2, 3])?)
}

/// What a step of the recurrence does beside adding `k vᵀ` to the state.
struct Rule {
    gated: bool,
    delta: bool,
}

/// `(q, k, v, state?, decay?, beta?)`: the state `[B, H, dk, dv]` takes in each step's key and value,
/// and queries (of a multiple of its heads) read it.
fn linear_attention(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (hq, hk) = (c.int("q_num_heads", 0)?, c.int("kv_num_heads", 0)?);
    if hk < 1 || hq < 1 || hq % hk != 0 || hq > 1 << 16 {
        return invalid(format!("{hq} heads of queries over {hk}"));
    }
    let rule = match &*c.string("update_rule", "gated_delta")? {
        "linear" => Rule { gated: false, delta: false },
        "gated" => Rule { gated: true, delta: false },
        "delta" => Rule { gated: false, delta: true },
        "gated_delta" => Rule { gated: true, delta: true },
        other => return invalid(format!("update_rule '{other}'")),
    };
    let query = c.tensor(0)?;
    let (q, k, v) = (rows(c, query, hq)?, c.tensor(1)?, c.tensor(2)?);
    let (k, v) = (rows(c, k, hk)?, rows(c, v, hk)?);
    let (dq, dv) = (c.dims(q), c.dims(v));
    let (steps, batch) = (dq[0].clone(), dq[1].clone());
    let groups = vec![steps.clone(), batch.clone(), hk.into(), (hq / hk).into(), dq[3].clone()];
    let mut scans = vec![c.reshape(q, groups)?, k, v];
    if rule.gated {
        let decay = c.tensor(4)?;
        let decay = rows(c, decay, hk)?;
        scans.push(c.un(UnaryOp::Exp, decay)?);
    }
    if rule.delta {
        let beta = c.tensor(5)?;
        let own = c.dims(beta).last().is_some_and(|d| !d.is(1));
        scans.push(rows(c, beta, if own { hk } else { 1 })?);
    }
    let state = vec![batch.clone(), hk.into(), dq[3].clone(), dv[3].clone()];
    let (start, kept) = match c.opt(3) {
        Some(s) => (c.cast(s, Dtype::F32)?, c.dtype(s)),
        None => {
            let zero = c.scalar(Dtype::F32, 0.0);
            (c.b.broadcast(zero, state.clone())?, c.dtype(query))
        }
    };
    let start = c.reshape(start, state.clone())?;
    let [end, y] = scanned(c, start, &scans, &rule, &state)?;
    let scale = match f64::from(c.float("scale", 0.0)?) {
        0.0 => match dq[3].as_const().filter(|&d| d > 0) {
            Some(d) => 1.0 / (d as f64).sqrt(),
            None => return unsupported("heads whose size is not known, without a scale"),
        },
        s => s,
    };
    let y = c.bin_scalar(BinaryOp::Mul, y, scale)?;
    // [T, B, H, G, dv] to [B, T, H G dv].
    let y = c.b.transpose(y, &[1, 0, 2, 3, 4])?;
    let y = c.reshape(y, vec![batch, steps, dv[3].times(hq)])?;
    Ok(vec![c.cast(y, c.dtype(query))?, c.cast(end, kept)?])
}

/// The recurrence over rows: the last state, and what queries read `[T, B, H, G, dv]`.
fn scanned(
    c: &mut Cx<'_, '_, '_>,
    start: Value,
    scans: &[Value],
    rule: &Rule,
    state: &[Dim],
) -> Got<[Value; 2]> {
    let region = c.b.g.new_region();
    let trip = c.dims(scans[0])[0].clone();
    let mut given = vec![c.b.g.add_param(region, Type::tensor(Dtype::F32, state.to_vec()))];
    for &v in scans {
        let row = c.dims_from(v, 1)?;
        given.push(c.b.g.add_param(region, Type::tensor(Dtype::F32, row)));
    }
    let outside = Outside::now(c.b);
    let mut b = c.b.nested();
    let results = step(&mut b, &given, rule, state)?;
    outside.close(&mut b)?;
    b.into_region(region);
    let read = c.b.g.dims(results[1]).to_vec();
    c.b.g.regions[region].results = results.to_vec();
    let whole = [std::slice::from_ref(&trip), &read[..]].concat();
    let types = vec![Type::tensor(Dtype::F32, state.to_vec()), Type::tensor(Dtype::F32, whole)];
    let control = Control::Scan { body: region.0, carried: 1, trip, reverse: false };
    let outs = c.b.control(control, &[&[start], scans].concat(), types);
    Ok([outs[0], outs[1]])
}

/// One step: the new state and what queries read of it. `given` is the state, q, k, v, then what the
/// rule takes.
fn step(b: &mut Builder<'_>, given: &[Value], rule: &Rule, state: &[Dim]) -> Got<[Value; 2]> {
    let [mut s, q, k, mut v] = [given[0], given[1], given[2], given[3]];
    let mut rest = given[4..].iter();
    if let Some(&decay) = rest.next().filter(|_| rule.gated) {
        let decay = b.unsqueeze(decay, 3)?;
        s = b.mul(s, decay)?;
    }
    if rule.delta {
        let beta = given[given.len() - 1];
        // Labels: batch 0, head 1, dk 2, dv 3, group 4.
        let p = Prim::Contract { a: vec![0, 1, 2, 3], b: vec![0, 1, 2], out: vec![0, 1, 3] };
        let known = b.prim(p, &[s, k])?;
        let rest = b.sub(v, known)?;
        v = b.mul(beta, rest)?;
    }
    let (column, row) = (b.unsqueeze(k, 3)?, b.unsqueeze(v, 2)?);
    let new = b.mul(column, row)?;
    let s = b.add(s, new)?;
    let s = b.reshape(s, state.to_vec())?;
    let p = Prim::Contract { a: vec![0, 1, 4, 2], b: vec![0, 1, 2, 3], out: vec![0, 1, 4, 3] };
    Ok([s, b.prim(p, &[q, s])?])
}

/// `(x, filter, bias?, state?)`: each channel convolved with its own filter over what came before,
/// which the state holds from earlier calls; and the state for the next.
fn causal_conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, w) = (c.tensor(0)?, c.tensor(1)?);
    let (dx, dw) = (c.dims(x), c.dims(w));
    let ([batch, channels, length], [filters, _, size]) = (&dx[..], &dw[..]) else {
        return invalid("x [B, C, L] and a filter [C, 1, k] are expected");
    };
    let Some(groups) = filters.as_const() else {
        return unsupported("a number of channels that is not known");
    };
    let before = size.plus(-1);
    let past = match c.opt(3) {
        Some(past) => past,
        None => {
            let zero = c.scalar(c.dtype(x), 0.0);
            c.b.broadcast(zero, vec![batch.clone(), channels.clone(), before.clone()])?
        }
    };
    let whole = c.b.concat(&[past, x], 2)?;
    let mut ins = vec![whole, w];
    ins.extend(c.opt(2));
    let mut y = c.source(Conv { geo: Geometry::unit(1), groups }, &ins)?;
    match &*c.string("activation", "none")? {
        "none" => {}
        "silu" | "swish" => y = c.source(Activation::Swish { beta: 1.0 }, &[y])?,
        other => return invalid(format!("activation '{other}'")),
    }
    Ok(vec![y, c.b.narrow(whole, 2, length.clone(), before)?])
}

/// A value through one of the node's graphs, if it has that one.
fn through<'m>(c: &mut Cx<'_, '_, 'm>, name: &str, x: Value) -> Got {
    let Some(graph) = c.any_attr(name).and_then(|a| a.g.as_ref()) else { return Ok(x) };
    let [input] = &graph.input[..] else { return invalid(format!("{name} must have one input")) };
    let outs = c.imp.body(c.b, graph, vec![(&*input.name, x)])?;
    let shape = c.dims(x);
    match outs[..] {
        [y] => c.reshape(y, shape),
        _ => invalid(format!("{name} must have one output")),
    }
}

/// Attention whose scores and probabilities go through graphs of the model's own.
fn flex_attention(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (q, k, v) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (q, k, v) = (split_heads(c, q, 1)?, split_heads(c, k, 1)?, split_heads(c, v, 1)?);
    let (dq, dk, dtype) = (c.dims(q), c.dims(k), c.dtype(v));
    let scale = match (c.has("scale"), dq[3].as_const().filter(|&d| d > 0)) {
        (true, _) => f64::from(c.float("scale", 1.0)?),
        (_, Some(d)) => 1.0 / (d as f64).sqrt(),
        _ => return unsupported("heads whose size is not known, without a scale"),
    };
    let wide = match c.int("softmax_precision", 0)? {
        0 if dtype.is_small_float() => Dtype::F32,
        0 => dtype,
        n => tensor::dtype(n as i32)?,
    };
    let (kv, s, t) = (dk[1].clone(), dq[2].clone(), dk[2].clone());
    let share = dq[1].div(&kv);
    let five = vec![dq[0].clone(), kv.clone(), share.clone(), s.clone(), dq[3].clone()];
    let q = c.reshape(q, five)?;
    let (k, v) = (c.b.unsqueeze(k, 2)?, c.b.unsqueeze(v, 2)?);
    let q = c.bin_scalar(BinaryOp::Mul, q, scale.sqrt())?;
    let k = c.bin_scalar(BinaryOp::Mul, k, scale.sqrt())?;
    let scores = c.source(MatMul { trans_a: false, trans_b: true }, &[q, k])?;
    let scores = c.reshape(scores, vec![dq[0].clone(), dq[1].clone(), s.clone(), t.clone()])?;
    let scores = c.cast(scores, wide)?;
    let scores = through(c, "score_mod", scores)?;
    let p = c.source(Softmax { axis: 3, log: false }, &[scores])?;
    let p = through(c, "prob_mod", p)?;
    let p = c.reshape(p, vec![dq[0].clone(), kv, share, s.clone(), t])?;
    let v = c.cast(v, wide)?;
    let y = c.source(MatMul { trans_a: false, trans_b: false }, &[p, v])?;
    let size = c.dims(y).last().cloned().unwrap_or(1i64.into());
    let y = c.reshape(y, vec![dq[0].clone(), dq[1].clone(), s, size])?;
    one(c.cast(y, dtype)?)
}
