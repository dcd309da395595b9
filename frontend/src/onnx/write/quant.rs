//! Quantisation and its inverse.

use super::cx::{Got, Writer, X, int};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::quant::{Dequantize, Quantize};

type Outs = Got<Option<Vec<String>>>;

/// Types that ONNX quantises to.
fn small(ty: Dtype) -> bool {
    use Dtype::*;
    let ints = matches!(ty, U8 | I8 | U16 | I16 | U4 | I4 | U2 | I2);
    ints || matches!(ty, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1)
}

/// To integers or small floats.
pub(super) fn quantize(w: &mut Writer, op: &Quantize, ins: &[Value]) -> Outs {
    if !small(op.to) {
        return Ok(None);
    }
    let (x, scale) = (w.x(ins[0])?, w.x(ins[1])?);
    let (x, scale) = (w.cast(&x, Dtype::F32), w.cast(&scale, Dtype::F32));
    let scale = fitted(w, scale, ins[1], op.block)?;
    let mut operands = vec![x.name, scale.name];
    let mut attrs = layout(op.axis, op.block);
    match ins.get(2).and_then(|v| v.some()) {
        Some(v) => {
            let zero = w.x(v)?;
            let zero = w.cast(&zero, op.to);
            operands.push(fitted(w, zero, v, op.block)?.name);
        }
        None => attrs.push(int("output_dtype", op.to as i64)),
    }
    if !op.saturate {
        attrs.push(int("saturate", 0));
    }
    let operands: Vec<&str> = operands.iter().map(|s| &**s).collect();
    Ok(Some(vec![w.raw("QuantizeLinear", &operands, attrs)]))
}

/// Back from them.
pub(super) fn dequantize(w: &mut Writer, op: &Dequantize, ins: &[Value]) -> Outs {
    let (x, scale) = (w.x(ins[0])?, w.x(ins[1])?);
    let zero = ins.get(2).and_then(|v| v.some());
    let same = zero.is_none_or(|z| w.g.dtype(z) == x.ty);
    let takes = small(x.ty) || x.ty == Dtype::I32 && zero.is_none();
    if !takes || !same || scale.ty == Dtype::F64 {
        return Ok(None);
    }
    let scale = w.cast(&scale, Dtype::F32);
    let scale = fitted(w, scale, ins[1], op.block)?;
    let mut operands = vec![x.name, scale.name];
    if let Some(v) = zero {
        let zero = w.x(v)?;
        operands.push(fitted(w, zero, v, op.block)?.name);
    }
    let operands: Vec<&str> = operands.iter().map(|s| &**s).collect();
    let y = w.raw("DequantizeLinear", &operands, layout(op.axis, op.block));
    Ok(Some(vec![w.cast(&X { name: y, ty: Dtype::F32 }, op.to).name]))
}

fn layout(axis: usize, block: Option<i64>) -> Vec<crate::onnx::proto::AttributeProto> {
    let mut attrs = vec![int("axis", axis as i64)];
    attrs.extend(block.map(|b| int("block_size", b)));
    attrs
}

/// Scales or zero points as ONNX wants them: a scalar (or one element), a vector, or in blocks.
fn fitted(w: &mut Writer, x: X, v: Value, block: Option<i64>) -> Got<X> {
    let dims = w.dims(v);
    let count = Dim::product(&dims);
    match block {
        None if dims.len() > 1 && count.is(1) => w.reshape(&x, &dims, &[]),
        None if dims.len() > 1 => w.reshape(&x, &dims, &[count]),
        _ => Ok(x),
    }
}
