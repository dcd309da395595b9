//! Quantisation and its inverse, with scales per tensor, per axis or per block of an axis.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x, scale, zero?)`: `clamp(round(x / scale) + zero)` to the range of an integer type, halves to
/// even; for 8-bit floats `x / scale` rounded to the type. ONNX QuantizeLinear; Paddle
/// quantize_linear.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Quantize {
    /// The type of the result.
    pub to: Dtype,
    /// Axis of the scales where they are not one.
    pub axis: usize,
    /// Elements of the axis that share a scale; scales then have x's rank.
    pub block: Option<i64>,
    /// For 8-bit floats: what is out of range becomes the greatest value, else NaN or infinity.
    pub saturate: bool,
}

/// `(x, scale, zero?)`: `(x - zero) * scale`. ONNX DequantizeLinear; Paddle dequantize_linear.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dequantize {
    /// As in [`Quantize`].
    pub axis: usize,
    /// As in [`Quantize`].
    pub block: Option<i64>,
    /// The type of the result (the scale's, if the model says nothing else).
    pub to: Dtype,
}

/// Range of an integer type.
pub fn int_range(d: Dtype) -> Option<(f64, f64)> {
    use Dtype::*;
    Some(match d {
        U8 => (0.0, 255.0),
        I8 => (-128.0, 127.0),
        U16 => (0.0, 65535.0),
        I16 => (-32768.0, 32767.0),
        I32 => (-2147483648.0, 2147483647.0),
        U4 => (0.0, 15.0),
        I4 => (-8.0, 7.0),
        U2 => (0.0, 3.0),
        I2 => (-2.0, 1.0),
        _ => return None,
    })
}

/// Scales or zero points in a shape that broadcasts against x.
fn spread(b: &mut Builder<'_>, v: Value, x: Value, axis: usize, block: Option<i64>) -> Built {
    let (dims, from) = (b.g.dims(x).to_vec(), b.g.dims(v).to_vec());
    if b.g.tensor(v).count().is(1) {
        return b.reshape(v, vec![]);
    }
    if axis >= dims.len() {
        return Err(OpError::new(format!("axis {axis} is past rank {}", dims.len())));
    }
    let Some(block) = block else {
        let mut shape = vec![Dim::from(1i64); dims.len()];
        shape[axis] = b.g.tensor(v).count();
        return b.reshape(v, shape);
    };
    if from.len() != dims.len() || block < 1 {
        return Err(OpError::new(format!(
            "blocks of {block} for ranks {} and {}",
            from.len(),
            dims.len()
        )));
    }
    let mut wide = from.clone();
    wide.insert(axis + 1, block.into());
    let v = b.unsqueeze(v, axis + 1)?;
    let v = b.broadcast(v, wide)?;
    let mut whole = from;
    whole[axis] = whole[axis].times(block);
    let v = b.reshape(v, whole.clone())?;
    if whole[axis] == dims[axis] {
        return Ok(v);
    }
    // The last block may be cut off.
    b.narrow(v, axis, 0i64.into(), dims[axis].clone())
}

impl SourceOp for Quantize {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let x = b.cast(ins[0], Dtype::F32)?;
        let scale = b.cast(ins[1], Dtype::F32)?;
        let scale = spread(b, scale, x, self.axis, self.block)?;
        let q = b.div(x, scale)?;
        let Some((lo, hi)) = int_range(self.to) else {
            let cast = Prim::Cast { to: self.to, saturate: self.saturate };
            return Ok(vec![b.prim(cast, &[q])?]);
        };
        let mut q = b.un(UnaryOp::Round, q)?;
        if let Some(zero) = ins.get(2).and_then(|v| v.some()) {
            let zero = b.cast(zero, Dtype::F32)?;
            let zero = spread(b, zero, x, self.axis, self.block)?;
            q = b.add(q, zero)?;
        }
        let q = b.bin_scalar(BinaryOp::Max, q, lo)?;
        let q = b.bin_scalar(BinaryOp::Min, q, hi)?;
        Ok(vec![b.cast(q, self.to)?])
    }
}

impl SourceOp for Dequantize {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let x = ins[0];
        let wide = if b.g.dtype(ins[1]) == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        let scale = b.cast(ins[1], wide)?;
        let scale = spread(b, scale, x, self.axis, self.block)?;
        let mut y = x;
        if let Some(zero) = ins.get(2).and_then(|v| v.some()) {
            let zero = spread(b, zero, x, self.axis, self.block)?;
            let exact = if b.g.dtype(x).is_int() { Dtype::I32 } else { wide };
            let (x, zero) = (b.cast(x, exact)?, b.cast(zero, exact)?);
            y = b.sub(x, zero)?;
        }
        let y = b.cast(y, wide)?;
        let y = b.mul(y, scale)?;
        Ok(vec![b.cast(y, self.to)?])
    }
}
