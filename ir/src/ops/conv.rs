//! Convolutions with bias.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim};
use serde::{Deserialize, Serialize};

/// `(x: [N, C, spatial…], w: [M, C/groups, kernel…], bias: [M]?) -> [N, M, spatial…]`.
/// ONNX Conv; Paddle conv2d, depthwise_conv2d, conv3d.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Conv {
    /// Strides, dilations, pads (auto_pad and padding_algorithm are resolved on import).
    pub geo: Geometry,
    /// Channel groups.
    pub groups: i64,
}

/// `(x: [N, C, spatial…], w: [C, M/groups, kernel…], bias: [M]?) -> [N, M, spatial…]`.
/// ONNX ConvTranspose; Paddle conv2d_transpose.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// Strides, dilations, crops (output_padding taken off `after`).
    pub geo: Geometry,
    /// Channel groups.
    pub groups: i64,
}

impl SourceOp for Conv {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let p = Prim::Conv { geo: self.geo.clone(), groups: self.groups };
        let y = b.prim(p, &ins[..2])?;
        add_channel_bias(b, y, ins.get(2).and_then(|v| v.some())).map(|y| vec![y])
    }
}

impl SourceOp for ConvTranspose {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let p = Prim::ConvTranspose { geo: self.geo.clone(), groups: self.groups };
        let y = b.prim(p, &ins[..2])?;
        add_channel_bias(b, y, ins.get(2).and_then(|v| v.some())).map(|y| vec![y])
    }
}

/// A per-channel vector as a tensor that broadcasts against `[N, C, spatial…]`.
pub fn channel_vector(b: &mut Builder<'_>, v: Value, rank: usize) -> Built {
    if rank < 2 {
        return Err(OpError::new(format!("a tensor of rank {rank} has no channels")));
    }
    let mut shape = vec![Dim::from(1i64); rank];
    shape[1] = b.g.tensor(v).count();
    b.reshape(v, shape)
}

fn add_channel_bias(b: &mut Builder<'_>, y: Value, bias: Option<Value>) -> Built {
    let Some(bias) = bias else { return Ok(y) };
    let rank = b.g.dims(y).len();
    let bias = channel_vector(b, bias, rank)?;
    b.add(y, bias)
}
