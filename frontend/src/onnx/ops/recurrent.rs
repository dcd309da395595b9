//! LSTM, GRU and RNN: one source operator a direction.

use super::contrib::MS;
use crate::onnx::cx::{Cx, Got, invalid, unsupported};
use crate::onnx::table::{Row, op, op_of};
use hub_abi::prim::BinaryOp;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::rnn::{Gru, Lstm, Rnn, RnnAct};

pub(crate) const OPS: &[Row] = &[
    op("LSTM", 1, |c| layer(c, Kind::Lstm)),
    op("GRU", 1, |c| layer(c, Kind::Gru)),
    op("RNN", 1, |c| layer(c, Kind::Rnn)),
    op_of(MS, "DynamicQuantizeLSTM", quantised),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Lstm,
    Gru,
    Rnn,
}

/// Weights of 8 bits `[directions, in, gates]` (which ONNX has the other way), with scales and zero
/// points a direction or a gate. ONNX Runtime rounds what they are multiplied with to 8 bits too, as it
/// comes; here it stays as it is.
fn quantised(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    for (at, scale) in [(1, 8), (2, 10)] {
        let (w, s, z) = (c.tensor(at)?, c.tensor(scale)?, c.tensor(scale + 1)?);
        if c.rank(w) != 3 || !(1..=2).contains(&c.rank(s)) || c.rank(s) != c.rank(z) {
            return invalid("W, R and their scales do not fit");
        }
        let mut parts = [c.cast(s, Dtype::F32)?, c.cast(z, Dtype::F32)?];
        for v in &mut parts {
            *v = c.b.unsqueeze(*v, 1)?;
            if c.rank(*v) == 2 {
                *v = c.b.unsqueeze(*v, 2)?;
            }
        }
        let w = c.cast(w, Dtype::F32)?;
        let w = c.bin(BinaryOp::Sub, w, parts[1])?;
        let w = c.bin(BinaryOp::Mul, w, parts[0])?;
        c.ins[at] = c.b.transpose(w, &[0, 2, 1])?;
    }
    c.ins.truncate(8);
    layer(c, Kind::Lstm)
}

/// How many functions a direction has, and the default ones.
fn defaults(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Kind::Gru => &["Sigmoid", "Tanh"],
        Kind::Rnn => &["Tanh"],
    }
}

/// The functions of all directions, in order.
fn activations(c: &Cx<'_, '_, '_>, kind: Kind, directions: usize) -> Got<Vec<RnnAct>> {
    let each = defaults(kind);
    let names = match c.strings("activations")? {
        Some(n) => n,
        None => each.iter().cycle().take(each.len() * directions).map(|s| s.to_string()).collect(),
    };
    if names.len() != each.len() * directions {
        return invalid(format!("{} activations for {directions} directions", names.len()));
    }
    // Parameters are given in order to the functions that have some.
    let mut alphas = c.floats("activation_alpha")?.unwrap_or_default().into_iter();
    let mut betas = c.floats("activation_beta")?.unwrap_or_default().into_iter();
    let mut alpha = |d: f64| alphas.next().map_or(d, f64::from);
    let mut beta = |d: f64| betas.next().map_or(d, f64::from);
    let mut acts = vec![];
    for n in names {
        acts.push(match &*n.to_lowercase() {
            "sigmoid" => RnnAct::Sigmoid,
            "tanh" => RnnAct::Tanh,
            "relu" => RnnAct::Relu,
            "affine" => RnnAct::Affine { alpha: alpha(1.0), beta: beta(0.0) },
            "leakyrelu" => RnnAct::LeakyRelu { alpha: alpha(0.01) },
            "thresholdedrelu" => RnnAct::ThresholdedRelu { alpha: alpha(1.0) },
            "scaledtanh" => RnnAct::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) },
            "hardsigmoid" => RnnAct::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
            "elu" => RnnAct::Elu { alpha: alpha(1.0) },
            "softsign" => RnnAct::Softsign,
            "softplus" => RnnAct::Softplus,
            other => return unsupported(format!("activation '{other}'")),
        });
    }
    Ok(acts)
}

/// Direction `d` of a stacked operand.
fn part(c: &mut Cx<'_, '_, '_>, v: Option<Value>, d: usize) -> Got<Value> {
    let Some(v) = v else { return Ok(Value::NONE) };
    if c.rank(v) < 2 {
        return invalid("an operand lacks the axis of directions");
    }
    let v = c.b.narrow(v, 0, d.into(), 1i64.into())?;
    Ok(c.b.squeeze(v, 0)?)
}

fn layer(c: &mut Cx<'_, '_, '_>, kind: Kind) -> Got<Vec<Value>> {
    let (mut x, w, r) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let batch_first = c.flag("layout", false)?;
    if c.rank(x) != 3 || c.rank(w) != 3 || c.rank(r) != 3 {
        return invalid("X, W and R need three axes");
    }
    if batch_first {
        x = c.b.transpose(x, &[1, 0, 2])?;
    }
    let direction = c.string("direction", "forward")?;
    let reverse: &[bool] = match &*direction {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        d => return invalid(format!("direction '{d}'")),
    };
    let n = reverse.len();
    let acts = activations(c, kind, n)?;
    let each = acts.len() / n;
    let clip = if c.has("clip") { Some(c.float("clip", 0.0)?.into()) } else { None };
    let hidden = c.dim(r, 2)?;
    let (bias, lengths) = (c.opt(3), c.opt(4).unwrap_or(Value::NONE));
    let (mut h0, mut c0) = (c.opt(5), c.opt(6).filter(|_| kind == Kind::Lstm));
    for s in [&mut h0, &mut c0].into_iter().flatten().filter(|_| batch_first) {
        *s = c.b.transpose(*s, &[1, 0, 2])?;
    }
    let mut outs: Vec<Vec<Value>> = vec![];
    for d in 0..n {
        let acts = &acts[d * each..(d + 1) * each];
        let (w, r) = (part(c, Some(w), d)?, part(c, Some(r), d)?);
        let (wb, rb) = biases(c, bias, d, kind, &hidden)?;
        let (h, s) = (part(c, h0, d)?, part(c, c0, d)?);
        let reverse = reverse[d];
        outs.push(match kind {
            Kind::Lstm => {
                let acts = [acts[0], acts[1], acts[2]];
                let couple = c.flag("input_forget", false)?;
                let op = Lstm { reverse, gates: [0, 2, 3, 1], acts, clip, couple };
                let bias = summed(c, wb, rb)?;
                let p = part(c, c.opt(7), d)?;
                c.b.source_n(op, &[x, w, r, bias, h, s, lengths, p])?
            }
            Kind::Gru => {
                let acts = [acts[0], acts[1]];
                let reset_after = c.flag("linear_before_reset", false)?;
                let op = Gru { reverse, gates: [0, 1, 2], reset_after, acts, clip };
                c.b.source_n(op, &[x, w, r, wb, rb, h, lengths])?
            }
            Kind::Rnn => {
                let bias = summed(c, wb, rb)?;
                let op = Rnn { reverse, act: acts[0], clip };
                c.b.source_n(op, &[x, w, r, bias, h, lengths])?
            }
        });
    }
    joined(c, &outs, batch_first)
}

/// The input's and the state's part of a bias `[directions, 2 * gates * hidden]`.
fn biases(
    c: &mut Cx<'_, '_, '_>,
    bias: Option<Value>,
    d: usize,
    kind: Kind,
    hidden: &Dim,
) -> Got<(Value, Value)> {
    let all = part(c, bias, d)?;
    if all.is_none() {
        return Ok((all, all));
    }
    let gates = match kind {
        Kind::Lstm => 4,
        Kind::Gru => 3,
        Kind::Rnn => 1,
    };
    let half = hidden.times(gates);
    let w = c.b.narrow(all, 0, 0i64.into(), half.clone())?;
    let r = c.b.narrow(all, 0, half.clone(), half)?;
    Ok((w, r))
}

fn summed(c: &mut Cx<'_, '_, '_>, a: Value, b: Value) -> Got {
    if a.is_none() { Ok(a) } else { c.bin(BinaryOp::Add, a, b) }
}

/// Directions put together: Y [T, D, B, H], then the last states [D, B, H].
fn joined(c: &mut Cx<'_, '_, '_>, outs: &[Vec<Value>], batch_first: bool) -> Got<Vec<Value>> {
    let mut all = vec![];
    for i in 0..outs[0].len() {
        let at = usize::from(i == 0);
        let mut parts = vec![];
        for o in outs {
            parts.push(c.b.unsqueeze(o[i], at)?);
        }
        let mut v = c.b.concat(&parts, at)?;
        if batch_first {
            v = c.b.transpose(v, if i == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] })?;
        }
        all.push(v);
    }
    Ok(all)
}
