//! Recurrent operators on sequences (LoD), whose input projection lies outside: lstm, gru, and a
//! step of each.

use super::lod::{Sequences, scan, sequences};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, UnaryOp, Value};

/// A function by its name, or by its number in `gru_unit`.
fn act(c: &mut Ctx<'_, '_>, attr: &str, default: &'static str, v: Value) -> Res<Value> {
    let names = ["identity", "sigmoid", "tanh", "relu"];
    let number = usize::try_from(c.int(attr, -1)).ok();
    let name = match number.and_then(|n| names.get(n)) {
        Some(name) => name.to_string(),
        None => c.text(attr, default).to_string(),
    };
    Ok(match name.as_str() {
        "identity" | "linear" => v,
        "sigmoid" => c.b.un(UnaryOp::Sigmoid, v)?,
        "tanh" => c.b.un(UnaryOp::Tanh, v)?,
        "relu" => c.b.bin_scalar(BinaryOp::Max, v, 0.0)?,
        other => return c.refuse(format!("the function {other} of a gate")),
    })
}

/// Columns `k*d..(k+1)*d`.
fn part(c: &mut Ctx<'_, '_>, v: Value, k: i64, d: &Dim) -> Res<Value> {
    let last = c.last(v)?;
    Ok(c.b.narrow(v, last, d.times(k), d.clone())?)
}

/// Time first, sequences beside each other, and how far each goes.
struct Steps {
    s: Sequences,
    /// `[L, N, …]`.
    x: Value,
    /// Bool `[L, N, 1]`.
    filled: Value,
    reverse: bool,
}

fn steps(c: &mut Ctx<'_, '_>, lod: Value, x: Value) -> Res<Steps> {
    let s = sequences(c, lod)?;
    let reverse = c.flag("is_reverse", false);
    let longest = s.longest(c)?;
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let v = s.padded(c, x, &longest, zero, reverse)?;
    let v = c.b.transpose(v, &[1, 0, 2])?;
    let filled = s.filled(c, &longest)?;
    let filled = c.b.transpose(filled, &[1, 0])?;
    let filled = c.b.unsqueeze(filled, 2)?;
    Ok(Steps { s, x: v, filled, reverse })
}

/// Results `[L, N, D]` as rows again.
fn rows(c: &mut Ctx<'_, '_>, t: &Steps, v: Value) -> Res<Value> {
    let v = c.b.transpose(v, &[1, 0, 2])?;
    t.s.flat(c, v, t.reverse)
}

fn state(c: &mut Ctx<'_, '_>, slot: &str, like: Value, n: &Dim, d: &Dim) -> Res<Value> {
    match c.opt(slot) {
        Some(v) => Ok(v),
        None => {
            let zero = c.b.scalar(c.b.g.dtype(like), 0.0);
            Ok(c.b.broadcast(zero, vec![n.clone(), d.clone()])?)
        }
    }
}

/// lstm: Input `[T, 4D]` (gates c, i, f, o), Weight `[D, 4D]`, Bias `[1, 4D]`, with peepholes
/// (i, f, o) `[1, 7D]`.
pub fn lstm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("Weight")?);
    lstm_of(c, x, x, w)
}

/// fusion_lstm: lstm with its projection.
pub fn fusion_lstm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, wx, w) = (c.tensor("X")?, c.tensor("WeightX")?, c.tensor("WeightH")?);
    let v = c.b.matmul(x, wx)?;
    lstm_of(c, x, v, w)
}

/// lstmp: an lstm whose state is a projection `[D, P]` of what it gives.
pub fn lstmp(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("Weight")?);
    lstm_of(c, x, x, w)
}

/// The number, if it is above 0, that bounds magnitudes.
fn bounded(c: &mut Ctx<'_, '_>, attr: &str, v: Value) -> Res<Value> {
    let most = c.float(attr, 0.0);
    if most <= 0.0 {
        return Ok(v);
    }
    let v = c.b.bin_scalar(BinaryOp::Max, v, -most)?;
    Ok(c.b.bin_scalar(BinaryOp::Min, v, most)?)
}

fn lstm_of(c: &mut Ctx<'_, '_>, lod: Value, x: Value, w: Value) -> Res {
    c.ranked(&[x, w], 2)?;
    let p = c.dim(w, 0)?;
    let d = c.dim(w, 1)?.div(&4i64.into());
    let projection = c.opt("ProjWeight");
    let bias = c.tensor("Bias")?;
    let gate_bias = c.b.narrow(bias, 1, 0i64.into(), d.times(4))?;
    let x = c.b.add(x, gate_bias)?;
    let mut peep = vec![];
    if c.flag("use_peepholes", true) {
        for k in 4..7 {
            peep.push(part(c, bias, k, &d)?);
        }
    }
    let t = steps(c, lod, x)?;
    let (h, s) = (state(c, "H0", x, &t.s.n, &p)?, state(c, "C0", x, &t.s.n, &d)?);
    let outs = scan(c, &[h, s], &[t.x, t.filled], false, &mut |c, carried, row| {
        let (h, s) = (carried[0], carried[1]);
        let r = c.b.matmul(h, w)?;
        let g = c.b.add(row[0], r)?;
        let candidate = part(c, g, 0, &d)?;
        let candidate = act(c, "candidate_activation", "tanh", candidate)?;
        let gate = |c: &mut Ctx<'_, '_>, k: i64, s: Value| -> Res<Value> {
            let mut v = part(c, g, k, &d)?;
            if let Some(&p) = peep.get(k as usize - 1) {
                let p = c.b.mul(s, p)?;
                v = c.b.add(v, p)?;
            }
            act(c, "gate_activation", "sigmoid", v)
        };
        let (i, f) = (gate(c, 1, s)?, gate(c, 2, s)?);
        let (old, new) = (c.b.mul(f, s)?, c.b.mul(i, candidate)?);
        let next = c.b.add(old, new)?;
        let next = bounded(c, "cell_clip", next)?;
        let o = gate(c, 3, next)?;
        let y = act(c, "cell_activation", "tanh", next)?;
        let mut y = c.b.mul(o, y)?;
        if let Some(w) = projection {
            y = c.b.matmul(y, w)?;
            y = act(c, "proj_activation", "tanh", y)?;
            y = bounded(c, "proj_clip", y)?;
        }
        let (h, s) = (c.b.select(row[1], y, h)?, c.b.select(row[1], next, s)?);
        Ok((vec![h, s], vec![h, s]))
    })?;
    let hidden = rows(c, &t, outs[2])?;
    let cell = rows(c, &t, outs[3])?;
    for v in [hidden, cell] {
        c.lods.insert(v, t.s.offsets);
    }
    c.put("Hidden|Projection", hidden);
    c.put("Cell", cell);
    Ok(())
}

/// attention_lstm: each step of an lstm reads a mean of its sequence's rows, weighted by what rows
/// and cell say of each. Gates f, i, o, candidate; weights of the state before those of the input.
pub fn attention_lstm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, cell) = (c.tensor("X")?, c.tensor("C0")?);
    let (attend, w, bias) =
        (c.tensor("AttentionWeight")?, c.tensor("LSTMWeight")?, c.tensor("LSTMBias")?);
    c.ranked(&[x, cell], 2)?;
    let (m, d) = (c.dim(x, 1)?, c.dim(cell, 1)?);
    let s = sequences(c, x)?;
    let longest = s.longest(c)?;
    let dtype = c.b.g.dtype(x);
    let (zero, low) = (c.b.scalar(dtype, 0.0), c.b.scalar(dtype, f64::NEG_INFINITY));
    let own = c.b.narrow(attend, 0, 0i64.into(), m.clone())?;
    let of_cell = c.b.narrow(attend, 0, m.clone(), d.clone())?;
    let mut score = c.b.matmul(x, own)?;
    if let Some(b) = c.opt("AttentionBias") {
        score = c.b.add(score, b)?;
    }
    let rows_of = s.padded(c, x, &longest, zero, false)?;
    let score = s.padded(c, score, &longest, zero, false)?;
    let score = c.b.squeeze(score, 2)?;
    let filled = s.filled(c, &longest)?;
    let steps = c.b.transpose(filled, &[1, 0])?;
    let steps = c.b.unsqueeze(steps, 2)?;
    let (scalar, scalar_bias) = (c.opt("AttentionScalar"), c.opt("AttentionScalarBias"));
    let h = state(c, "H0", x, &s.n, &d)?;
    let (w_h, w_x) =
        (c.b.narrow(w, 0, 0i64.into(), d.clone())?, c.b.narrow(w, 0, d.clone(), m.clone())?);
    let outs = scan(c, &[h, cell], &[steps], false, &mut |c, carried, row| {
        let (h, s) = (carried[0], carried[1]);
        let more = c.b.matmul(s, of_cell)?;
        let mut v = c.b.add(score, more)?;
        v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
        if let Some(k) = scalar {
            v = c.b.mul(v, k)?;
            if let Some(b) = scalar_bias {
                v = c.b.add(v, b)?;
            }
            v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
        }
        let v = c.b.select(filled, v, low)?;
        let p = c.b.source(hub_ir::ops::norm::Softmax { axis: 1, log: false }, &[v])?;
        let p = c.b.unsqueeze(p, 1)?;
        let mean = c.b.matmul(p, rows_of)?;
        let mean = c.b.squeeze(mean, 1)?;
        let (a, b) = (c.b.matmul(mean, w_x)?, c.b.matmul(h, w_h)?);
        let g = c.b.add(a, b)?;
        let g = c.b.add(g, bias)?;
        let gate = |c: &mut Ctx<'_, '_>, k: i64| -> Res<Value> {
            let v = part(c, g, k, &d)?;
            act(c, "gate_activation", "sigmoid", v)
        };
        let (f, i, o) = (gate(c, 0)?, gate(c, 1)?, gate(c, 2)?);
        let candidate = part(c, g, 3, &d)?;
        let candidate = act(c, "candidate_activation", "tanh", candidate)?;
        let (old, new) = (c.b.mul(f, s)?, c.b.mul(i, candidate)?);
        let next = c.b.add(old, new)?;
        let y = act(c, "cell_activation", "tanh", next)?;
        let y = c.b.mul(o, y)?;
        let (h, s) = (c.b.select(row[0], y, h)?, c.b.select(row[0], next, s)?);
        Ok((vec![h, s], vec![h, s]))
    })?;
    for (slot, v) in [("Hidden", outs[2]), ("Cell", outs[3])] {
        let v = c.b.transpose(v, &[1, 0, 2])?;
        let v = s.flat(c, v, false)?;
        c.lods.insert(v, s.offsets);
        c.put(slot, v);
    }
    Ok(())
}

/// The weights of a gru: memory of `[D, 2D]` for update and reset, then `[D, D]`.
fn gru_weights(c: &mut Ctx<'_, '_>, w: Value) -> Res<(Value, Value, Dim)> {
    c.ranked(&[w], 2)?;
    let d = c.dim(w, 0)?;
    let square = d.mul(&d);
    let flat = c.b.reshape(w, vec![square.times(3)])?;
    let gates = c.b.narrow(flat, 0, 0i64.into(), square.times(2))?;
    let gates = c.b.reshape(gates, vec![d.clone(), d.times(2)])?;
    let own = c.b.narrow(flat, 0, square.times(2), square)?;
    Ok((gates, c.b.reshape(own, vec![d.clone(), d.clone()])?, d))
}

/// One step: gates u, r, candidate in `x [N, 3D]`.
fn gru_step(
    c: &mut Ctx<'_, '_>,
    x: Value,
    h: Value,
    (gates, own, d): &(Value, Value, Dim),
    default: &'static str,
) -> Res<Value> {
    let first = c.b.narrow(x, 1, 0i64.into(), d.times(2))?;
    let r = c.b.matmul(h, *gates)?;
    let g = c.b.add(first, r)?;
    let g = act(c, "gate_activation", "sigmoid", g)?;
    let (u, r) = (part(c, g, 0, d)?, part(c, g, 1, d)?);
    let reset = c.b.mul(r, h)?;
    let reset = c.b.matmul(reset, *own)?;
    let candidate = part(c, x, 2, d)?;
    let candidate = c.b.add(candidate, reset)?;
    let candidate = act(c, "activation", default, candidate)?;
    // u weighs the candidate, in the original form the old state.
    let (a, b) = match c.flag("origin_mode", false) {
        true => (h, candidate),
        false => (candidate, h),
    };
    let diff = c.b.sub(a, b)?;
    let moved = c.b.mul(u, diff)?;
    Ok(c.b.add(b, moved)?)
}

/// gru: Input `[T, 3D]`, Weight `[D, 3D]`, Bias `[1, 3D]`.
pub fn gru(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("Weight")?);
    gru_of(c, x, x, w)
}

/// fusion_gru: gru with its projection.
pub fn fusion_gru(c: &mut Ctx<'_, '_>) -> Res {
    let (x, wx, w) = (c.tensor("X")?, c.tensor("WeightX")?, c.tensor("WeightH")?);
    let v = c.b.matmul(x, wx)?;
    gru_of(c, x, v, w)
}

fn gru_of(c: &mut Ctx<'_, '_>, lod: Value, x: Value, w: Value) -> Res {
    let w = gru_weights(c, w)?;
    let x = match c.opt("Bias") {
        Some(bias) => c.b.add(x, bias)?,
        None => x,
    };
    let t = steps(c, lod, x)?;
    let h = state(c, "H0", x, &t.s.n, &w.2)?;
    let outs = scan(c, &[h], &[t.x, t.filled], false, &mut |c, carried, row| {
        let y = gru_step(c, row[0], carried[0], &w, "tanh")?;
        let h = c.b.select(row[1], y, carried[0])?;
        Ok((vec![h], vec![h]))
    })?;
    let hidden = rows(c, &t, outs[1])?;
    c.lods.insert(hidden, t.s.offsets);
    c.put("Hidden", hidden);
    Ok(())
}

/// gru_unit: one step of a gru.
pub fn gru_unit(c: &mut Ctx<'_, '_>) -> Res {
    let (x, h, w) = (c.tensor("Input")?, c.tensor("HiddenPrev")?, c.tensor("Weight")?);
    let w = gru_weights(c, w)?;
    let x = match c.opt("Bias") {
        Some(bias) => c.b.add(x, bias)?,
        None => x,
    };
    let v = gru_step(c, x, h, &w, "tanh")?;
    c.put("Hidden", v);
    Ok(())
}

/// lstm_unit: X `[N, 4D]` with gates i, f, o, candidate.
pub fn lstm_unit(c: &mut Ctx<'_, '_>) -> Res {
    let (x, s) = (c.tensor("X")?, c.tensor("C_prev")?);
    let d = c.dim(s, 1)?;
    let mut g = vec![];
    for k in 0..4 {
        let mut v = part(c, x, k, &d)?;
        if k == 1 {
            v = c.b.bin_scalar(BinaryOp::Add, v, c.float("forget_bias", 0.0))?;
        }
        g.push(c.b.un(if k == 3 { UnaryOp::Tanh } else { UnaryOp::Sigmoid }, v)?);
    }
    let (old, new) = (c.b.mul(s, g[1])?, c.b.mul(g[0], g[3])?);
    let s = c.b.add(old, new)?;
    let t = c.b.un(UnaryOp::Tanh, s)?;
    let h = c.b.mul(t, g[2])?;
    c.put("C", s);
    c.put("H", h);
    Ok(())
}
