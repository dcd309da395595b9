//! Source operators that are one node or few: products, normalisations, activations.

use super::cx::{Got, Writer, X, float, int, string};
use hub_abi::Dtype;
use hub_ir::Value;
use hub_ir::ops::activation::Activation;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::norm::{BatchNorm, LayerNorm, Softmax};

/// Names of an operator's outputs; none where its expansion is to be written.
type Outs = Got<Option<Vec<String>>>;

fn one(x: X) -> Outs {
    Ok(Some(vec![x.name]))
}

/// NumPy's product; a Gemm where matrices are transposed.
pub(super) fn matmul(w: &mut Writer, op: &MatMul, ins: &[Value]) -> Outs {
    let (a, b) = (w.x(ins[0])?, w.x(ins[1])?);
    let (ra, rb) = (w.dims(ins[0]).len(), w.dims(ins[1]).len());
    let (ta, tb) = (op.trans_a && ra > 1, op.trans_b && rb > 1);
    if a.ty.is_float() && (ta || tb) && ra == 2 && rb == 2 {
        let attrs = vec![int("transA", ta.into()), int("transB", tb.into())];
        return one(w.op_with("Gemm", &[&a, &b], &[], attrs)?);
    }
    let bytes = |x: &X| matches!(x.ty, Dtype::I8 | Dtype::U8);
    let integer = bytes(&a) && bytes(&b);
    let (a, b) = (w.swapped(&a, ra, ta)?, w.swapped(&b, rb, tb)?);
    if integer {
        return Ok(Some(vec![w.raw("MatMulInteger", &[&a.name, &b.name], vec![])]));
    }
    one(w.op("MatMul", &[&a, &b])?)
}

/// Inference batch normalisation.
pub(super) fn batch_norm(w: &mut Writer, op: &BatchNorm, ins: &[Value]) -> Outs {
    let xs = ins.iter().map(|&v| w.x(v)).collect::<Got<Vec<X>>>()?;
    let xs: Vec<&X> = xs.iter().collect();
    one(w.op_with("BatchNormalization", &xs, &[], vec![float("epsilon", op.eps.into())])?)
}

/// Normalisation over the trailing axes; ONNX wants a scale.
pub(super) fn layer_norm(w: &mut Writer, op: &LayerNorm, ins: &[Value]) -> Outs {
    let dims = w.dims(ins[0]);
    let Some(inner) = dims.get(op.axis..).filter(|d| !d.is_empty()) else { return Ok(None) };
    let inner = inner.to_vec();
    let mut xs = vec![w.x(ins[0])?];
    for at in [1, 2] {
        let Some(v) = ins.get(at).and_then(|v| v.some()) else {
            if at == 1 {
                let unit = w.scalar(xs[0].ty, 1.0);
                xs.push(w.expand(&unit, &[], &inner)?);
            }
            continue;
        };
        let own = w.dims(v);
        if own.len() != 1 && own != inner {
            return Ok(None);
        }
        let v = w.x(v)?;
        xs.push(w.reshape(&v, &own, &inner)?);
    }
    let xs: Vec<&X> = xs.iter().collect();
    let attrs = vec![int("axis", op.axis as i64), float("epsilon", op.eps.into())];
    one(w.op_with("LayerNormalization", &xs, &[], attrs)?)
}

/// Softmax or its logarithm.
pub(super) fn softmax(w: &mut Writer, op: &Softmax, ins: &[Value]) -> Outs {
    let name = if op.log { "LogSoftmax" } else { "Softmax" };
    let x = w.x(ins[0])?;
    one(w.op_with(name, &[&x], &[], vec![int("axis", op.axis as i64)])?)
}

/// Activation functions.
pub(super) fn activation(w: &mut Writer, op: Activation, ins: &[Value]) -> Outs {
    let x = w.x(ins[0])?;
    let (name, attrs) = match op {
        Activation::Relu => ("Relu", vec![]),
        Activation::Clip { lo, hi } => return clip(w, &x, lo, hi),
        Activation::LeakyRelu { alpha } => ("LeakyRelu", vec![float("alpha", alpha)]),
        Activation::Elu { alpha } => ("Elu", vec![float("alpha", alpha)]),
        Activation::Gelu => ("Gelu", vec![]),
        Activation::GeluTanh => ("Gelu", vec![string("approximate", "tanh")]),
        Activation::HardSigmoid { alpha, beta } => {
            ("HardSigmoid", vec![float("alpha", alpha), float("beta", beta)])
        }
        Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 } => ("HardSwish", vec![]),
        Activation::Softplus => ("Softplus", vec![]),
        Activation::Mish => ("Mish", vec![]),
        Activation::Swish { .. } | Activation::HardSwish { .. } => return Ok(None),
    };
    one(w.op_with(name, &[&x], &[], attrs)?)
}

fn clip(w: &mut Writer, x: &X, lo: f64, hi: f64) -> Outs {
    let ty = w.compute_type("Clip", x.ty)?;
    let bound = |w: &mut Writer, k: f64, none: f64| {
        if k == none { String::new() } else { w.scalar(ty, k).name }
    };
    let (lo, hi) = (bound(w, lo, f64::NEG_INFINITY), bound(w, hi, f64::INFINITY));
    one(w.op_with("Clip", &[x], &[&lo, &hi], vec![])?)
}
