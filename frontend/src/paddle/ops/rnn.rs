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
    let layers = c.int("num_layers", 1);
    let dirs: usize = if c.flag("is_bidirec", false) { 2 } else { 1 };
    if !(1..=1024).contains(&layers) {
        return c.refuse(format!("{layers} layers"));
    }
    let total = layers as usize * dirs;
    let weights = c.all("WeightList")?;
    let biased = weights.len() == 4 * total;
    if !biased && weights.len() != 2 * total {
        return c.refuse(format!("{} weights for {total} cells", weights.len()));
    }
    let pre = c.all("PreState")?;
    let (h0, c0) = (pre.first().copied(), pre.get(1).copied());
    let lengths = c.opt("SequenceLength").unwrap_or(Value::NONE);
    let mut x = c.tensor("Input")?;
    let (mut last_h, mut last_c) = (vec![], vec![]);
    for layer in 0..layers as usize {
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
    c.put("Out", x);
    let mut states = vec![c.b.concat(&last_h, 0)?];
    if !last_c.is_empty() {
        states.push(c.b.concat(&last_c, 0)?);
    }
    c.put_all("State", states);
    Ok(())
}
