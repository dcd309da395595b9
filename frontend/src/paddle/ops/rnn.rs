//! rnn: layers of one or two directions.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::rnn::{Gru, Lstm, Rnn, RnnAct};
use hub_ir::{Builder, Value};

/// Kinds of cells.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    Gru,
    Simple(RnnAct),
}

/// Row `i` of a `[layers, B, H]` state.
fn state(b: &mut Builder<'_>, all: Option<Value>, i: usize) -> Res<Value> {
    let Some(all) = all else { return Ok(Value::NONE) };
    let one = b.narrow(all, 0, (i as i64).into(), 1i64.into())?;
    Ok(b.squeeze(one, 0)?)
}

/// rnn: Input `[T, B, I]`, PreState (h, for an LSTM c), WeightList: two weights for each layer and
/// direction, then two biases for each.
pub fn rnn(c: &mut Ctx<'_, '_>) -> Res {
    let cell = match c.text("mode", "") {
        "LSTM" => Cell::Lstm,
        "GRU" => Cell::Gru,
        "RNN_TANH" => Cell::Simple(RnnAct::Tanh),
        "RNN_RELU" => Cell::Simple(RnnAct::Relu),
        other => return c.refuse(format!("an rnn of mode '{other}'")),
    };
    let weights = c.all("WeightList")?;
    let pre = c.all("PreState")?;
    let (y, states) = layered(c, cell, &weights, &pre)?;
    c.put("Out", y);
    c.put_all("State", states);
    Ok(())
}

/// cudnn_lstm: an rnn whose weights may come as one vector.
pub fn cudnn_lstm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let pre = [c.tensor("InitH")?, c.tensor("InitC")?];
    let mut weights = c.all("WeightList")?;
    if weights.is_empty() {
        let (layers, dirs) = shape(c)?;
        let Some(width) = c.dim(x, 2)?.as_const() else { return c.refuse("rows of unknown width") };
        let h = c.int("hidden_size", 100);
        if !(1..=1 << 16).contains(&h) {
            return c.refuse(format!("a state of {h}"));
        }
        let flat = c.tensor("W")?;
        let n = c.b.g.tensor(flat).count();
        let flat = c.b.reshape(flat, vec![n])?;
        let mut sizes = vec![];
        for layer in 0..layers {
            let own = if layer == 0 { width } else { h * dirs as i64 };
            for _ in 0..dirs {
                sizes.extend([vec![4 * h, own], vec![4 * h, h]]);
            }
        }
        sizes.extend(vec![vec![4 * h]; 2 * layers * dirs]);
        let mut at = 0;
        for size in sizes {
            let Some(count) = size.iter().try_fold(1i64, |n, &d| n.checked_mul(d)) else {
                return c.refuse(format!("weights of {size:?}"));
            };
            let w = c.b.narrow(flat, 0, at.into(), count.into())?;
            weights.push(c.b.reshape(w, size.into_iter().map(Into::into).collect())?);
            at += count;
        }
    }
    let (y, states) = layered(c, Cell::Lstm, &weights, &pre)?;
    c.put("Out", y);
    c.put("LastH", states[0]);
    c.put("LastC", states[1]);
    Ok(())
}

/// Layers and directions.
fn shape(c: &Ctx<'_, '_>) -> Res<(usize, usize)> {
    match c.int("num_layers", 1) {
        n @ 1..=1024 => Ok((n as usize, if c.flag("is_bidirec", false) { 2 } else { 1 })),
        n => c.refuse(format!("{n} layers")),
    }
}

/// All layers: what they give, and their last states.
fn layered(
    c: &mut Ctx<'_, '_>,
    cell: Cell,
    weights: &[Value],
    pre: &[Value],
) -> Res<(Value, Vec<Value>)> {
    let (layers, dirs) = shape(c)?;
    let total = layers * dirs;
    let biased = weights.len() == 4 * total;
    if !biased && weights.len() != 2 * total {
        return c.refuse(format!("{} weights for {total} cells", weights.len()));
    }
    let (h0, c0) = (pre.first().copied(), pre.get(1).copied());
    let lengths = c.opt("SequenceLength").unwrap_or(Value::NONE);
    let mut x = c.tensor("Input")?;
    let (mut last_h, mut last_c) = (vec![], vec![]);
    for layer in 0..layers {
        let mut ys = vec![];
        for dir in 0..dirs {
            let i = layer * dirs + dir;
            let (w, r) = (weights[2 * i], weights[2 * i + 1]);
            let bias = biased.then(|| (weights[2 * (total + i)], weights[2 * (total + i) + 1]));
            let h = state(c.b, h0, i)?;
            let reverse = dir == 1;
            let sum = |c: &mut Ctx<'_, '_>| -> Res<Value> {
                bias.map_or(Ok(Value::NONE), |(own, rec)| Ok(c.b.add(own, rec)?))
            };
            let outs = match cell {
                Cell::Lstm => {
                    let s = c0.filter(|_| cell == Cell::Lstm);
                    let s = state(c.b, s, i)?;
                    let bias = sum(c)?;
                    let acts = [RnnAct::Sigmoid, RnnAct::Tanh, RnnAct::Tanh];
                    let gates = [0, 1, 2, 3];
                    let op = Lstm { reverse, gates, acts, clip: None, couple: false };
                    c.b.source_n(op, &[x, w, r, bias, h, s, lengths])?
                }
                Cell::Gru => {
                    let (own, rec) = bias.unwrap_or((Value::NONE, Value::NONE));
                    let acts = [RnnAct::Sigmoid, RnnAct::Tanh];
                    let gates = [1, 0, 2];
                    let op = Gru { reverse, gates, reset_after: true, acts, clip: None };
                    c.b.source_n(op, &[x, w, r, own, rec, h, lengths])?
                }
                Cell::Simple(act) => {
                    let bias = sum(c)?;
                    let op = Rnn { reverse, act, clip: None };
                    c.b.source_n(op, &[x, w, r, bias, h, lengths])?
                }
            };
            ys.push(outs[0]);
            last_h.push(c.b.unsqueeze(outs[1], 0)?);
            if let Some(&s) = outs.get(2) {
                last_c.push(c.b.unsqueeze(s, 0)?);
            }
        }
        x = c.b.concat(&ys, 2)?;
    }
    let mut states = vec![c.b.concat(&last_h, 0)?];
    if !last_c.is_empty() {
        states.push(c.b.concat(&last_c, 0)?);
    }
    Ok((x, states))
}
