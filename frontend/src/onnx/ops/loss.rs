//! Losses: NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_ir::Value;
use hub_ir::ops::norm::Softmax;

pub(crate) const OPS: &[Row] = &[
    op("NegativeLogLikelihoodLoss", 12, |c| {
        let x = c.tensor(0)?;
        one(nll(c, x)?)
    }),
    op("SoftmaxCrossEntropyLoss", 12, |c| {
        let x = c.tensor(0)?;
        let log = c.source(Softmax { axis: 1, log: true }, &[x])?;
        Ok(vec![nll(c, log)?, log])
    }),
];

/// Log-probabilities `[N, C, …]`, targets `[N, …]`, weights `[C]`?.
fn nll(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let target = c.tensor(1)?;
    if c.rank(x) < 2 || c.rank(target) + 1 != c.rank(x) {
        return invalid(format!("ranks {} and {}", c.rank(x), c.rank(target)));
    }
    let dtype = c.dtype(x);
    let target = c.cast(target, Dtype::I64)?;
    let ignored = match c.has("ignore_index") {
        true => {
            let k = c.int("ignore_index", 0)?;
            let k = c.b.constant(Dtype::I64, &[], k.to_le_bytes().to_vec().into());
            Some(c.bin(BinaryOp::Eq, target, k)?)
        }
        false => None,
    };
    let zero = c.scalar(Dtype::I64, 0.0);
    let at = match ignored {
        Some(i) => c.b.select(i, zero, target)?,
        None => target,
    };
    let column = c.b.unsqueeze(at, 1)?;
    let picked = c.prim(Prim::GatherElements { axis: 1 }, &[x, column])?;
    let picked = c.b.squeeze(picked, 1)?;
    let loss = c.un(UnaryOp::Neg, picked)?;
    let mut weight = match c.opt(2) {
        Some(w) => Some(c.prim(Prim::Gather { axis: 0 }, &[w, at])?),
        None => None,
    };
    if let Some(i) = ignored {
        let (none, whole) = (c.scalar(dtype, 0.0), c.scalar(dtype, 1.0));
        let w = weight.unwrap_or(whole);
        weight = Some(c.b.select(i, none, w)?);
    }
    let loss = match weight {
        Some(w) => c.bin(BinaryOp::Mul, loss, w)?,
        None => loss,
    };
    let axes: Vec<usize> = (0..c.rank(loss)).collect();
    match (&*c.string("reduction", "mean")?, weight) {
        ("none", _) => Ok(loss),
        ("sum", _) => c.reduce(ReduceOp::Sum, loss, &axes, false),
        ("mean", None) => c.reduce(ReduceOp::Mean, loss, &axes, false),
        ("mean", Some(w)) => {
            let shape = c.dims(loss);
            let w = c.b.broadcast(w, shape)?;
            let sum = c.reduce(ReduceOp::Sum, loss, &axes, false)?;
            let total = c.reduce(ReduceOp::Sum, w, &axes, false)?;
            c.bin(BinaryOp::Div, sum, total)
        }
        (r, _) => invalid(format!("reduction '{r}'")),
    }
}
