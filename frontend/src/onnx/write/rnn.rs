//! Recurrent layers: one direction of ONNX's LSTM, GRU or RNN each.

use super::cx::{Got, Writer, X, float, floats, int, string, strings};
use crate::onnx::proto::AttributeProto;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::rnn::{Gru, Lstm, Rnn, RnnAct};

type Outs = Got<Option<Vec<String>>>;

/// What the kinds share.
struct Layer {
    op: &'static str,
    /// Which block of rows is ONNX's first, second…
    order: Vec<usize>,
    reverse: bool,
    clip: Option<f64>,
    acts: Vec<RnnAct>,
}

/// Operands of a layer, by what they are.
struct Operands {
    biases: [Option<Value>; 2],
    lengths: Option<Value>,
    /// Hidden state, cell state.
    states: Vec<Option<Value>>,
    peephole: Option<Value>,
}

fn at(ins: &[Value], i: usize) -> Option<Value> {
    ins.get(i).and_then(|v| v.some())
}

/// One direction of an LSTM.
pub(super) fn lstm(w: &mut Writer, op: &Lstm, ins: &[Value]) -> Outs {
    let [i, f, c, o] = op.gates;
    let (order, acts) = (vec![i, o, f, c], op.acts.to_vec());
    let l = Layer { op: "LSTM", order, reverse: op.reverse, clip: op.clip, acts };
    let operands = Operands {
        biases: [at(ins, 3), None],
        lengths: at(ins, 6),
        states: vec![at(ins, 4), at(ins, 5)],
        peephole: at(ins, 7),
    };
    let extra = if op.couple { vec![int("input_forget", 1)] } else { vec![] };
    l.write(w, ins, operands, extra)
}

/// One direction of a GRU.
pub(super) fn gru(w: &mut Writer, op: &Gru, ins: &[Value]) -> Outs {
    let (order, acts) = (op.gates.to_vec(), op.acts.to_vec());
    let l = Layer { op: "GRU", order, reverse: op.reverse, clip: op.clip, acts };
    let operands = Operands {
        biases: [at(ins, 3), at(ins, 4)],
        lengths: at(ins, 6),
        states: vec![at(ins, 5)],
        peephole: None,
    };
    l.write(w, ins, operands, vec![int("linear_before_reset", op.reset_after.into())])
}

/// One direction of a simple layer.
pub(super) fn rnn(w: &mut Writer, op: &Rnn, ins: &[Value]) -> Outs {
    let l =
        Layer { op: "RNN", order: vec![0], reverse: op.reverse, clip: op.clip, acts: vec![op.act] };
    let operands = Operands {
        biases: [at(ins, 3), None],
        lengths: at(ins, 5),
        states: vec![at(ins, 4)],
        peephole: None,
    };
    l.write(w, ins, operands, vec![])
}

impl Layer {
    fn write(
        &self,
        w: &mut Writer,
        ins: &[Value],
        operands: Operands,
        extra: Vec<AttributeProto>,
    ) -> Outs {
        let hidden = w.dims(ins[2]).get(1).and_then(Dim::as_const).filter(|&h| h > 0);
        let ranks = |w: &Writer, vs: &[Option<Value>], rank: usize| {
            vs.iter().flatten().all(|&v| w.dims(v).len() == rank)
        };
        let fits = ranks(w, &operands.states, 2)
            && ranks(w, &operands.biases, 1)
            && ranks(w, &[operands.peephole], 1);
        let Some(hidden) = hidden.filter(|_| fits) else { return Ok(None) };
        let own = w.g.dtype(ins[0]);
        let ty = w.compute_type(self.op, own)?;
        let mut names = vec![];
        for (k, &v) in ins[..3].iter().enumerate() {
            let x = w.x(v)?;
            let x = w.cast(&x, ty);
            let x =
                if k == 0 { x } else { self.ordered(w, &x, hidden, w.dims(v).get(1).cloned())? };
            names.push(if k == 0 { x.name } else { w.unsqueeze(&x, 0).name });
        }
        names.push(self.bias(w, operands.biases, hidden, ty)?);
        names.push(match operands.lengths {
            Some(v) => {
                let n = w.x(v)?;
                w.cast(&n, Dtype::I32).name
            }
            None => String::new(),
        });
        for v in operands.states.iter().chain([&operands.peephole]) {
            names.push(match v {
                Some(v) => {
                    let x = w.x(*v)?;
                    let x = w.cast(&x, ty);
                    w.unsqueeze(&x, 0).name
                }
                None => String::new(),
            });
        }
        let count = operands.states.len() + 1;
        let mut attrs = self.attributes(hidden);
        attrs.extend(extra);
        let names: Vec<&str> = names.iter().map(|s| &**s).collect();
        let outs = w.raw_n(self.op, &names, attrs, count);
        let mut given = vec![];
        for (i, name) in outs.into_iter().enumerate() {
            let y = w.squeeze(&X { name, ty }, i64::from(i == 0))?;
            given.push(w.cast(&y, own).name);
        }
        Ok(Some(given))
    }

    /// Rows in ONNX's order of gates; `width` is the size of the second axis, if there is one.
    fn ordered(&self, w: &mut Writer, x: &X, hidden: i64, width: Option<Dim>) -> Got<X> {
        if self.order.iter().enumerate().all(|(i, &o)| i == o) {
            return Ok(x.clone());
        }
        let gates = self.order.len() as i64;
        let tail: Vec<Dim> = width.into_iter().collect();
        let flat = [&[Dim::from(gates * hidden)], &tail[..]].concat();
        let apart = [&[Dim::from(gates), Dim::from(hidden)], &tail[..]].concat();
        let order: Vec<i64> = self.order.iter().map(|&o| o as i64).collect();
        let order = w.ints(&order);
        let y = w.reshape(x, &flat, &apart)?;
        let y = w.op_with("Gather", &[&y], &[&order], vec![int("axis", 0)])?;
        w.reshape(&y, &apart, &flat)
    }

    /// The input's and the state's part in one row.
    fn bias(
        &self,
        w: &mut Writer,
        parts: [Option<Value>; 2],
        hidden: i64,
        ty: Dtype,
    ) -> Got<String> {
        if parts == [None, None] {
            return Ok(String::new());
        }
        let rows = hidden * self.order.len() as i64;
        let mut both = vec![];
        for p in parts {
            both.push(match p {
                Some(v) => {
                    let x = w.x(v)?;
                    let x = w.cast(&x, ty);
                    self.ordered(w, &x, hidden, None)?
                }
                None => {
                    let zeros = vec![0; rows as usize * ty.size()];
                    X { name: w.constant(ty, &[rows], zeros), ty }
                }
            });
        }
        let row = w.concat(&both, 0)?;
        Ok(w.unsqueeze(&row, 0).name)
    }

    fn attributes(&self, hidden: i64) -> Vec<AttributeProto> {
        let mut attrs = vec![int("hidden_size", hidden)];
        if self.reverse {
            attrs.push(string("direction", "reverse"));
        }
        attrs.extend(self.clip.map(|c| float("clip", c)));
        let default: &[RnnAct] = match self.op {
            "LSTM" => &[RnnAct::Sigmoid, RnnAct::Tanh, RnnAct::Tanh],
            "GRU" => &[RnnAct::Sigmoid, RnnAct::Tanh],
            _ => &[RnnAct::Tanh],
        };
        if self.acts == default {
            return attrs;
        }
        let (mut names, mut alphas, mut betas) = (vec![], vec![], vec![]);
        for act in &self.acts {
            let (name, alpha, beta) = described(*act);
            names.push(name);
            alphas.extend(alpha);
            betas.extend(beta);
        }
        attrs.push(strings("activations", &names));
        for (name, xs) in [("activation_alpha", alphas), ("activation_beta", betas)] {
            if !xs.is_empty() {
                attrs.push(floats(name, &xs));
            }
        }
        attrs
    }
}

/// ONNX's name of a function, and its parameters.
fn described(act: RnnAct) -> (&'static str, Option<f64>, Option<f64>) {
    match act {
        RnnAct::Sigmoid => ("Sigmoid", None, None),
        RnnAct::Tanh => ("Tanh", None, None),
        RnnAct::Relu => ("Relu", None, None),
        RnnAct::Affine { alpha, beta } => ("Affine", Some(alpha), Some(beta)),
        RnnAct::LeakyRelu { alpha } => ("LeakyRelu", Some(alpha), None),
        RnnAct::ThresholdedRelu { alpha } => ("ThresholdedRelu", Some(alpha), None),
        RnnAct::ScaledTanh { alpha, beta } => ("ScaledTanh", Some(alpha), Some(beta)),
        RnnAct::HardSigmoid { alpha, beta } => ("HardSigmoid", Some(alpha), Some(beta)),
        RnnAct::Elu { alpha } => ("Elu", Some(alpha), None),
        RnnAct::Softsign => ("Softsign", None, None),
        RnnAct::Softplus => ("Softplus", None, None),
    }
}
