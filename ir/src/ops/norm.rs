//! Normalisations.

use super::SourceOp;
use super::conv::channel_vector;
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, ReduceOp, UnaryOp};
use serde::{Deserialize, Serialize};

/// `(x: [N, C, …], scale, bias, mean, var: [C])`: `(x - mean) / sqrt(var + eps) * scale + bias`.
/// ONNX BatchNormalization at inference; Paddle batch_norm with is_test.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f32,
}

/// `(x, scale: x.shape[axis..]?, bias?)`: zero mean and unit variance over `axis..`.
/// ONNX LayerNormalization (first output); Paddle layer_norm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LayerNorm {
    /// First normalised axis (not negative).
    pub axis: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// `(x)`: `exp(x - max) / sum`, or its logarithm, along one axis. ONNX 13+ Softmax, LogSoftmax;
/// Paddle softmax, log_softmax.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis (not negative).
    pub axis: usize,
    /// The logarithm instead.
    pub log: bool,
}

/// `(x, scale: x.shape[axis..]?)`: `x / sqrt(mean(x²) + eps) * scale`, the mean over `axis..`.
/// ONNX RMSNormalization; Paddle rms_norm; what exporters write of Llama's norm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RmsNorm {
    /// First normalised axis (not negative).
    pub axis: usize,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl SourceOp for RmsNorm {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let x = ins[0];
        let axes: Vec<usize> = (self.axis..b.g.dims(x).len()).collect();
        let sq = b.mul(x, x)?;
        let mean = b.reduce(ReduceOp::Mean, sq, &axes, true)?;
        let mean = b.bin_scalar(BinaryOp::Add, mean, self.eps.into())?;
        let inv = b.un(UnaryOp::Rsqrt, mean)?;
        let y = b.mul(x, inv)?;
        match ins.get(1).and_then(|v| v.some()) {
            Some(scale) => Ok(vec![b.mul(y, scale)?]),
            None => Ok(vec![y]),
        }
    }
}

impl SourceOp for BatchNorm {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let rank = b.g.dims(ins[0]).len();
        let var = b.bin_scalar(BinaryOp::Add, ins[4], self.eps.into())?;
        let inv = b.un(UnaryOp::Rsqrt, var)?;
        let gain = b.mul(inv, ins[1])?;
        let shift = b.mul(ins[3], gain)?;
        let shift = b.sub(ins[2], shift)?;
        let gain = channel_vector(b, gain, rank)?;
        let shift = channel_vector(b, shift, rank)?;
        let y = b.mul(ins[0], gain)?;
        Ok(vec![b.add(y, shift)?])
    }
}

impl SourceOp for LayerNorm {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let x = ins[0];
        let axes: Vec<usize> = (self.axis..b.g.dims(x).len()).collect();
        let mean = b.reduce(ReduceOp::Mean, x, &axes, true)?;
        let d = b.sub(x, mean)?;
        let sq = b.mul(d, d)?;
        let var = b.reduce(ReduceOp::Mean, sq, &axes, true)?;
        let var = b.bin_scalar(BinaryOp::Add, var, self.eps.into())?;
        let inv = b.un(UnaryOp::Rsqrt, var)?;
        let mut y = b.mul(d, inv)?;
        for (at, op) in [(1, BinaryOp::Mul), (2, BinaryOp::Add)] {
            if let Some(v) = ins.get(at).and_then(|v| v.some()) {
                let shape = b.g.dims(x).get(self.axis..).unwrap_or_default().to_vec();
                let v = if b.g.dims(v).len() == 1 { b.reshape(v, shape)? } else { v };
                y = b.bin(op, y, v)?;
            }
        }
        Ok(vec![y])
    }
}

impl SourceOp for Softmax {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let axes = [self.axis];
        let top = b.reduce(ReduceOp::Max, ins[0], &axes, true)?;
        let d = b.sub(ins[0], top)?;
        let e = b.un(UnaryOp::Exp, d)?;
        let sum = b.reduce(ReduceOp::Sum, e, &axes, true)?;
        if self.log {
            let log = b.un(UnaryOp::Log, sum)?;
            return Ok(vec![b.sub(d, log)?]);
        }
        Ok(vec![b.div(e, sum)?])
    }
}
