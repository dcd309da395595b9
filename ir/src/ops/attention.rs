//! Scaled dot-product attention.

use super::matmul::MatMul;
use super::norm::Softmax;
use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(q: […, S, D], k: […, T, D], v: […, T, E], masks…) -> [… S, E]`: `softmax(adjusted(scale * q kᵀ)) v`,
/// the softmax along T and the batch axes broadcasting as in a matmul. ONNX Attention (version 23)
/// without its state; what exporters decompose into products and a softmax.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attention {
    /// Factor of the scores; multiplied onto q, which is the smallest tensor that can take it (and
    /// often the result of constant weights, which then hold it).
    pub scale: f64,
    /// What is done to the scores before the softmax, in order. Some take the next mask operand,
    /// which broadcasts to `[…, S, T]`.
    pub adjust: Vec<Adjust>,
    /// Which probabilities are made zero.
    pub zero: Zero,
}

/// A step between the scores and the softmax.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Adjust {
    /// Plus a mask.
    Add,
    /// Minus a mask.
    Subtract,
    /// `fill` where a bool mask is false.
    Seen {
        /// The score of what is not seen.
        #[serde(with = "crate::text::float")]
        fill: f64,
    },
    /// `fill` where a bool mask is true.
    Hidden {
        /// The score of what is hidden.
        #[serde(with = "crate::text::float")]
        fill: f64,
    },
    /// Not less than a number. Takes no mask.
    AtLeast {
        /// The number.
        #[serde(with = "crate::text::float")]
        bound: f64,
    },
    /// `bound * tanh(score / bound)`. Takes no mask.
    Cap {
        /// What the magnitude stays below.
        bound: f64,
    },
    /// Minus infinity where a key's index is more than `past` above the query's. Takes no mask.
    Causal {
        /// Keys before the first query.
        past: Dim,
    },
}

impl Adjust {
    /// Does it take a mask operand?
    pub fn takes_mask(&self) -> bool {
        use Adjust::*;
        matches!(self, Add | Subtract | Seen { .. } | Hidden { .. })
    }
}

/// Probabilities that are made zero after the softmax.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zero {
    /// None.
    Never,
    /// Those that are NaN: rows of which nothing is seen, where hidden scores are minus infinity.
    Nan,
    /// Those that the last bool mask hides.
    Hidden,
}

impl SourceOp for Attention {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let wanted = 3 + self.adjust.iter().filter(|a| a.takes_mask()).count();
        if ins.len() != wanted || ins.iter().any(|v| v.is_none()) {
            return Err(OpError::new(format!("{wanted} operands expected, not {}", ins.len())));
        }
        if ins[..3].iter().any(|&v| b.g.dims(v).len() < 2) {
            return Err(OpError::new("q, k and v need two axes or more"));
        }
        let mut q = ins[0];
        if self.scale != 1.0 {
            q = b.bin_scalar(BinaryOp::Mul, q, self.scale)?;
        }
        let mut s = MatMul { trans_a: false, trans_b: true }.expand(b, &[q, ins[1]])?[0];
        let whole = b.g.dims(s).to_vec();
        let mut masks = ins[3..].iter().copied();
        let mut last = None;
        for a in &self.adjust {
            let mask = if a.takes_mask() { masks.next() } else { None };
            s = a.apply(b, s, mask)?;
            if b.g.dims(s) != whole {
                return Err(OpError::new("a mask does not broadcast to the scores"));
            }
            if let (Adjust::Seen { .. } | Adjust::Hidden { .. }, Some(m)) = (a, mask) {
                last = Some((m, matches!(a, Adjust::Hidden { .. })));
            }
        }
        let p = Softmax { axis: whole.len() - 1, log: false }.expand(b, &[s])?[0];
        let p = match (self.zero, last) {
            (Zero::Never, _) => p,
            (Zero::Nan, _) => {
                let nan = b.un(UnaryOp::IsNan, p)?;
                zero_where(b, nan, p, true)?
            }
            (Zero::Hidden, Some((mask, hides))) => zero_where(b, mask, p, hides)?,
            (Zero::Hidden, None) => return Err(OpError::new("no mask says what is hidden")),
        };
        MatMul { trans_a: false, trans_b: false }.expand(b, &[p, ins[2]])
    }
}

/// Zero where the condition is as said.
fn zero_where(b: &mut Builder<'_>, cond: Value, p: Value, is: bool) -> Built {
    let zero = b.scalar(b.g.dtype(p), 0.0);
    if is { b.select(cond, zero, p) } else { b.select(cond, p, zero) }
}

impl Adjust {
    fn apply(&self, b: &mut Builder<'_>, s: Value, mask: Option<Value>) -> Built {
        let dtype = b.g.dtype(s);
        match (self, mask) {
            (Adjust::Add, Some(m)) => b.add(s, m),
            (Adjust::Subtract, Some(m)) => b.sub(s, m),
            (Adjust::Seen { fill }, Some(m)) => {
                let fill = b.scalar(dtype, *fill);
                b.select(m, s, fill)
            }
            (Adjust::Hidden { fill }, Some(m)) => {
                let fill = b.scalar(dtype, *fill);
                b.select(m, fill, s)
            }
            (Adjust::AtLeast { bound }, _) => b.bin_scalar(BinaryOp::Max, s, *bound),
            (Adjust::Cap { bound }, _) => {
                let t = b.bin_scalar(BinaryOp::Div, s, *bound)?;
                let t = b.un(UnaryOp::Tanh, t)?;
                b.bin_scalar(BinaryOp::Mul, t, *bound)
            }
            (Adjust::Causal { past }, _) => causal(b, s, past),
            (_, None) => Err(OpError::new("a mask is missing")),
        }
    }
}

fn causal(b: &mut Builder<'_>, s: Value, past: &Dim) -> Built {
    let dims = b.g.dims(s).to_vec();
    let (q, k) = (dims[dims.len() - 2].clone(), dims[dims.len() - 1].clone());
    let mut count =
        |shape: Vec<Dim>, axis| b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis }, &[]);
    let (rows, columns) = (count(vec![q, 1i64.into()], 0)?, count(vec![1i64.into(), k], 1)?);
    let last = match past.is(0) {
        true => rows,
        false => {
            let shift = b.dim_scalar(past.clone());
            b.add(rows, shift)?
        }
    };
    let seen = b.bin(BinaryOp::Le, columns, last)?;
    let low = b.scalar(b.g.dtype(s), f64::NEG_INFINITY);
    b.select(seen, s, low)
}
