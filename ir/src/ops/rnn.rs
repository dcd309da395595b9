//! Recurrent layers, one direction each: ONNX RNN, GRU, LSTM; Paddle's rnn.
//!
//! The input's part of all gates is one contraction over all steps, outside the loop; the loop's
//! body is one contraction with the state (two for a GRU that resets before it) and elementwise
//! arithmetic. Past a sequence's length the state stays and the output is zero, in either direction:
//! a reverse layer therefore starts at each sequence's own last element.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::{Region, Value};
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x: [T, B, I], w: [4H, I], r: [4H, H], bias: [4H]?, h0: [B, H]?, c0: [B, H]?, lengths: [B]?,
/// peephole: [3H]?) -> y: [T, B, H], h: [B, H], c: [B, H]`. The bias is the sum of the input's and
/// the state's. Peepholes are of the input, output and forget gate, in this order (ONNX's).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Lstm {
    /// From the last step to the first.
    pub reverse: bool,
    /// Where the input, forget, cell and output gate lie in the stacked rows: ONNX (iofc) has
    /// `[0, 2, 3, 1]`, Paddle and torch (ifgo) `[0, 1, 2, 3]`.
    pub gates: [usize; 4],
    /// Functions of gates, cell candidate and hidden state.
    pub acts: [RnnAct; 3],
    /// Bound of the magnitude of what goes into a function.
    pub clip: Option<f64>,
    /// The forget gate is one minus the input gate.
    pub couple: bool,
}

/// `(x: [T, B, I], w: [3H, I], r: [3H, H], bias: [3H]?, rbias: [3H]?, h0: [B, H]?, lengths: [B]?)
/// -> y: [T, B, H], h: [B, H]`: `h = (1 - z) * n + z * h'`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gru {
    /// From the last step to the first.
    pub reverse: bool,
    /// Where the update (z), reset (r) and candidate gate lie in the stacked rows: ONNX (zrh) has
    /// `[0, 1, 2]`, Paddle and torch (rzn) `[1, 0, 2]`.
    pub gates: [usize; 3],
    /// `n = f(x + r * (R h + rbias))`, else `f(x + R (r * h) + rbias)`. Paddle and torch reset after.
    pub reset_after: bool,
    /// Functions of gates and candidate.
    pub acts: [RnnAct; 2],
    /// Bound of the magnitude of what goes into a function.
    pub clip: Option<f64>,
}

/// `(x: [T, B, I], w: [H, I], r: [H, H], bias: [H]?, h0: [B, H]?, lengths: [B]?)
/// -> y: [T, B, H], h: [B, H]`: `h = f(W x + R h' + bias)`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rnn {
    /// From the last step to the first.
    pub reverse: bool,
    /// The function.
    pub act: RnnAct,
    /// Bound of the magnitude of what goes into it.
    pub clip: Option<f64>,
}

/// Functions within recurrent layers (ONNX's list).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RnnAct {
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `alpha * x + beta`.
    Affine {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// `x < 0 ? alpha * x : x`.
    LeakyRelu {
        /// Slope below 0.
        alpha: f64,
    },
    /// `x >= alpha ? x : 0`.
    ThresholdedRelu {
        /// Least result but 0.
        alpha: f64,
    },
    /// `alpha * tanh(beta * x)`.
    ScaledTanh {
        /// Scale.
        alpha: f64,
        /// Slope.
        beta: f64,
    },
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// `x < 0 ? alpha * (exp(x) - 1) : x`.
    Elu {
        /// Scale below 0.
        alpha: f64,
    },
    /// `x / (1 + |x|)`.
    Softsign,
    /// `log(1 + exp(x))`.
    Softplus,
}

impl RnnAct {
    fn build(self, b: &mut Builder<'_>, x: Value) -> Built {
        use super::activation::Activation;
        use BinaryOp::*;
        let source = |b: &mut Builder<'_>, a: Activation| Ok(a.expand(b, &[x])?[0]);
        match self {
            RnnAct::Sigmoid => b.un(UnaryOp::Sigmoid, x),
            RnnAct::Tanh => b.un(UnaryOp::Tanh, x),
            RnnAct::Relu => b.bin_scalar(Max, x, 0.0),
            RnnAct::Affine { alpha, beta } => {
                let t = b.bin_scalar(Mul, x, alpha)?;
                b.bin_scalar(Add, t, beta)
            }
            RnnAct::LeakyRelu { alpha } => source(b, Activation::LeakyRelu { alpha }),
            RnnAct::ThresholdedRelu { alpha } => {
                let keep = b.bin_scalar(Ge, x, alpha)?;
                let zero = b.scalar(b.g.dtype(x), 0.0);
                b.select(keep, x, zero)
            }
            RnnAct::ScaledTanh { alpha, beta } => {
                let t = b.bin_scalar(Mul, x, beta)?;
                let t = b.un(UnaryOp::Tanh, t)?;
                b.bin_scalar(Mul, t, alpha)
            }
            RnnAct::HardSigmoid { alpha, beta } => {
                source(b, Activation::HardSigmoid { alpha, beta })
            }
            RnnAct::Elu { alpha } => source(b, Activation::Elu { alpha }),
            RnnAct::Softsign => {
                let a = b.un(UnaryOp::Abs, x)?;
                let d = b.bin_scalar(Add, a, 1.0)?;
                b.div(x, d)
            }
            RnnAct::Softplus => source(b, Activation::Softplus),
        }
    }
}

/// What all three kinds share.
struct Layer<'a> {
    x: Value,
    lengths: Option<Value>,
    steps: Dim,
    batch: Dim,
    hidden: Dim,
    dtype: Dtype,
    reverse: bool,
    clip: Option<f64>,
    ins: &'a [Value],
}

impl<'a> Layer<'a> {
    /// `gates` is how many times the rows of w and r hold the hidden size.
    fn new(
        b: &Builder<'_>,
        ins: &'a [Value],
        gates: i64,
        lengths: usize,
        reverse: bool,
        clip: Option<f64>,
    ) -> Built<Layer<'a>> {
        let [x, w, r] = *ins.first_chunk().ok_or_else(|| OpError::new("x, w and r are needed"))?;
        let (dx, dw, dr) = (b.g.dims(x), b.g.dims(w), b.g.dims(r));
        let ([steps, batch, _], [rows, _], [rows2, hidden]) = (dx, dw, dr) else {
            return Err(OpError::new("x of rank 3 and weights of rank 2 are needed"));
        };
        if *rows != hidden.times(gates) || rows != rows2 {
            return Err(OpError::new(format!(
                "weights of {rows} and {rows2} rows for {gates} gates of size {hidden}"
            )));
        }
        Ok(Layer {
            x,
            lengths: ins.get(lengths).and_then(|v| v.some()),
            steps: steps.clone(),
            batch: batch.clone(),
            hidden: hidden.clone(),
            dtype: b.g.dtype(x),
            reverse,
            clip,
            ins,
        })
    }

    fn opt(&self, i: usize) -> Option<Value> {
        self.ins.get(i).and_then(|v| v.some())
    }

    /// `x · wᵀ + bias` for all steps: `[T, B, rows]`.
    fn projected(&self, b: &mut Builder<'_>, bias: Option<Value>) -> Built {
        let p = Prim::Contract { a: vec![0, 1, 2], b: vec![3, 2], out: vec![0, 1, 3] };
        let y = b.prim(p, &[self.x, self.ins[1]])?;
        match bias {
            Some(bias) => b.add(y, bias),
            None => Ok(y),
        }
    }

    /// The state to start from.
    fn start(&self, b: &mut Builder<'_>, given: Option<Value>) -> Built {
        let shape = vec![self.batch.clone(), self.hidden.clone()];
        match given {
            Some(h) => {
                for (have, want) in b.g.dims(h).to_vec().iter().zip(&shape) {
                    b.g.constraints.equal(have, want)?;
                }
                b.reshape(h, shape)
            }
            None => {
                let zero = b.scalar(self.dtype, 0.0);
                b.broadcast(zero, shape)
            }
        }
    }

    /// Which steps lie within each sequence: bool `[T, B, 1]`.
    fn mask(&self, b: &mut Builder<'_>) -> Built<Option<Value>> {
        let Some(lengths) = self.lengths else { return Ok(None) };
        let shape = vec![self.steps.clone(), 1i64.into(), 1i64.into()];
        let t = b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: 0 }, &[])?;
        let n = b.cast(lengths, Dtype::I64)?;
        let n = b.reshape(n, vec![1i64.into(), self.batch.clone(), 1i64.into()])?;
        Ok(Some(b.bin(BinaryOp::Lt, t, n)?))
    }

    /// Runs the loop: `step(b, state, xt)` gives the new state, whose first is also the output.
    /// Results: all outputs `[T, B, H]`, then the last state.
    fn scan(
        &self,
        b: &mut Builder<'_>,
        state: &[Value],
        projected: Value,
        step: impl Fn(&mut Builder<'_>, &[Value], Value) -> Built<Vec<Value>>,
    ) -> Built<Vec<Value>> {
        let mask = self.mask(b)?;
        let ty = Type::tensor(self.dtype, vec![self.batch.clone(), self.hidden.clone()]);
        let body = b.g.new_region();
        let before: Vec<Value> = state.iter().map(|_| b.g.add_param(body, ty.clone())).collect();
        let slice_of = |b: &mut Builder<'_>, v: Value| {
            let t = b.g.tensor(v).clone();
            b.g.add_param(body, Type::tensor(t.dtype, t.dims[1..].to_vec()))
        };
        let xt = slice_of(b, projected);
        let mt = mask.map(|m| slice_of(b, m));
        let mut inner = b.nested();
        let mut after = step(&mut inner, &before, xt)?;
        let mut y = after[0];
        if let Some(mt) = mt {
            let zero = inner.scalar(self.dtype, 0.0);
            y = inner.select(mt, y, zero)?;
            for (new, &old) in after.iter_mut().zip(&before) {
                *new = inner.select(mt, *new, old)?;
            }
        }
        inner.into_region(body);
        b.g.regions[body].results = after.into_iter().chain([y]).collect();
        let Region(body) = body;
        let all = vec![self.steps.clone(), self.batch.clone(), self.hidden.clone()];
        let outs: Vec<Type> =
            state.iter().map(|_| ty.clone()).chain([Type::tensor(self.dtype, all)]).collect();
        let ins: Vec<Value> = state.iter().copied().chain([projected]).chain(mask).collect();
        let (carried, trip) = (state.len() as u32, self.steps.clone());
        let control = Control::Scan { body, carried, trip, reverse: self.reverse };
        let mut results = b.control(control, &ins, outs);
        results.rotate_right(1);
        Ok(results)
    }

    /// Columns of gate `i`.
    fn gate(&self, b: &mut Builder<'_>, v: Value, i: usize) -> Built {
        let last = b.g.dims(v).len().checked_sub(1);
        let at = last.ok_or_else(|| OpError::new("gates of a scalar"))?;
        b.narrow(v, at, self.hidden.times(i as i64), self.hidden.clone())
    }

    fn act(&self, b: &mut Builder<'_>, f: RnnAct, x: Value) -> Built {
        let x = match self.clip {
            Some(k) => {
                let x = b.bin_scalar(BinaryOp::Max, x, -k)?;
                b.bin_scalar(BinaryOp::Min, x, k)?
            }
            None => x,
        };
        f.build(b, x)
    }
}

/// `h · rᵀ`: `[B, rows]`.
fn recur(b: &mut Builder<'_>, h: Value, r: Value) -> Built {
    b.prim(Prim::Contract { a: vec![0, 1], b: vec![2, 1], out: vec![0, 2] }, &[h, r])
}

impl SourceOp for Lstm {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let l = Layer::new(b, ins, 4, 6, self.reverse, self.clip)?;
        if self.gates.iter().any(|&g| g > 3) {
            return Err(OpError::new("an LSTM has four gates"));
        }
        let x = l.projected(b, l.opt(3))?;
        let state = [l.start(b, l.opt(4))?, l.start(b, l.opt(5))?];
        let peephole = match l.opt(7) {
            Some(p) => {
                let p = b.reshape(p, vec![1i64.into(), l.hidden.times(3)])?;
                Some([l.gate(b, p, 0)?, l.gate(b, p, 1)?, l.gate(b, p, 2)?])
            }
            None => None,
        };
        let [fg, fc, fh] = self.acts;
        l.scan(b, &state, x, |b, state, xt| {
            let &[h, c] = state else { unreachable!("an LSTM carries two states") };
            let rec = recur(b, h, ins[2])?;
            let all = b.add(xt, rec)?;
            let mut parts = [all; 4];
            for (part, &at) in parts.iter_mut().zip(&self.gates) {
                *part = l.gate(b, all, at)?;
            }
            let [mut i, mut f, g, mut o] = parts;
            if let Some([pi, _, pf]) = peephole {
                let (ci, cf) = (b.mul(pi, c)?, b.mul(pf, c)?);
                (i, f) = (b.add(i, ci)?, b.add(f, cf)?);
            }
            let i = l.act(b, fg, i)?;
            let f = match self.couple {
                true => {
                    let one = b.scalar(l.dtype, 1.0);
                    b.sub(one, i)?
                }
                false => l.act(b, fg, f)?,
            };
            let g = l.act(b, fc, g)?;
            let (keep, new) = (b.mul(f, c)?, b.mul(i, g)?);
            let c = b.add(keep, new)?;
            if let Some([_, po, _]) = peephole {
                let co = b.mul(po, c)?;
                o = b.add(o, co)?;
            }
            let o = l.act(b, fg, o)?;
            // Gates are clipped; the cell state is not, as ONNX Runtime and OpenVINO read ONNX.
            let t = fh.build(b, c)?;
            Ok(vec![b.mul(o, t)?, c])
        })
    }
}

impl SourceOp for Gru {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let l = Layer::new(b, ins, 3, 6, self.reverse, self.clip)?;
        let [z_at, r_at, n_at] = self.gates;
        if self.gates.iter().any(|&g| g > 2) {
            return Err(OpError::new("a GRU has three gates"));
        }
        // What the state adds to is known beforehand, but for the candidate's part that is reset.
        let mut bias = l.opt(3);
        let mut late = None;
        if let Some(rb) = l.opt(4) {
            let mut early = rb;
            if self.reset_after {
                late = Some(l.gate(b, rb, n_at)?);
                let zero = b.scalar(l.dtype, 0.0);
                let zero = b.broadcast(zero, vec![l.hidden.clone()])?;
                let mut parts = vec![];
                for i in 0..3 {
                    parts.push(if i == n_at { zero } else { l.gate(b, rb, i)? });
                }
                early = b.concat(&parts, 0)?;
            }
            bias = Some(match bias {
                Some(own) => b.add(own, early)?,
                None => early,
            });
        }
        let x = l.projected(b, bias)?;
        let state = [l.start(b, l.opt(5))?];
        // Reset before: the candidate's rows of r on their own.
        let apart = match self.reset_after {
            true => None,
            false => {
                let row = |b: &mut Builder<'_>, i: usize| {
                    b.narrow(ins[2], 0, l.hidden.times(i as i64), l.hidden.clone())
                };
                let (z, r) = (row(b, z_at)?, row(b, r_at)?);
                Some((b.concat(&[z, r], 0)?, row(b, n_at)?))
            }
        };
        let [fg, fn_] = self.acts;
        l.scan(b, &state, x, |b, state, xt| {
            let h = state[0];
            let (xz, xr, xn) = (l.gate(b, xt, z_at)?, l.gate(b, xt, r_at)?, l.gate(b, xt, n_at)?);
            let (z, n) = if let Some((zr, rn)) = apart {
                let rec = recur(b, h, zr)?;
                let (rz, rr) = (l.gate(b, rec, 0)?, l.gate(b, rec, 1)?);
                let (z, r) = (b.add(xz, rz)?, b.add(xr, rr)?);
                let r = l.act(b, fg, r)?;
                let rh = b.mul(r, h)?;
                let rec = recur(b, rh, rn)?;
                (z, b.add(xn, rec)?)
            } else {
                let rec = recur(b, h, ins[2])?;
                let (rz, rr) = (l.gate(b, rec, z_at)?, l.gate(b, rec, r_at)?);
                let (z, r) = (b.add(xz, rz)?, b.add(xr, rr)?);
                let r = l.act(b, fg, r)?;
                let mut rn = l.gate(b, rec, n_at)?;
                if let Some(late) = late {
                    rn = b.add(rn, late)?;
                }
                let rn = b.mul(r, rn)?;
                (z, b.add(xn, rn)?)
            };
            let z = l.act(b, fg, z)?;
            let n = l.act(b, fn_, n)?;
            // (1 - z) * n + z * h = n + z * (h - n)
            let d = b.sub(h, n)?;
            let d = b.mul(z, d)?;
            Ok(vec![b.add(n, d)?])
        })
    }
}

impl SourceOp for Rnn {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let l = Layer::new(b, ins, 1, 5, self.reverse, self.clip)?;
        let x = l.projected(b, l.opt(3))?;
        let state = [l.start(b, l.opt(4))?];
        l.scan(b, &state, x, |b, state, xt| {
            let rec = recur(b, state[0], ins[2])?;
            let all = b.add(xt, rec)?;
            Ok(vec![l.act(b, self.act, all)?])
        })
    }
}
