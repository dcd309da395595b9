//! com.microsoft: mixtures of experts. Every expert answers for every token, and the router's weights,
//! zero for experts that were not chosen, add the answers up.

use super::contrib::MS;
use super::contrib_blocks::unpacked;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, ScatterOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::activation::Activation;
use hub_ir::ops::norm::Softmax;
use hub_ir::ops::quant::Dequantize;

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "MoE", |c| {
        let layers = [[2, 3], [4, 5], [6, 7]];
        let layers = layers.map(|at| at.map(|i| c.opt(i)));
        mixture(c, layers, None)
    }),
    op_of(MS, "QMoE", quantised),
];

/// Weights `[experts, out, in]` and biases `[experts, out]` of a layer.
type Layer = [Option<Value>; 2];

fn quantised(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let kind = c.string("quant_type", "int")?;
    if kind != "int" || c.int("weights_prepacked", 0)? > 0 {
        return unsupported(format!("weights of kind '{kind}', or in an engine's own order"));
    }
    let all = c.int("expert_weight_bits", 4)?;
    let mut layers: [Layer; 3] = [[None; 2]; 3];
    for (i, layer) in layers.iter_mut().enumerate() {
        let at = 2 + 3 * i;
        let bits = c.int(&format!("fc{}_expert_weight_bits", i + 1), all)?;
        if let (Some(w), Some(scales)) = (c.opt(at), c.opt(at + 1)) {
            *layer = [Some(real(c, [w, scales], c.opt(11 + i), bits)?), c.opt(at + 2)];
        }
    }
    let own = c.opt(14);
    mixture(c, layers, own)
}

/// Weights of few bits, packed along the last axis, with a scale a row or a block of it.
fn real(c: &mut Cx<'_, '_, '_>, [w, scales]: [Value; 2], zero: Option<Value>, bits: i64) -> Got {
    if !matches!(bits, 2 | 4 | 8) || c.rank(w) != 3 {
        return invalid(format!("experts of {bits} bits and rank {}", c.rank(w)));
    }
    let w = unpacked(c, w, bits)?;
    let rows = c.rank(scales) == 2;
    let (mut scales, size) = (scales, c.dim(w, 2)?);
    if rows {
        scales = c.b.unsqueeze(scales, 2)?;
    }
    let Some(block) = size.div(&c.dim(scales, 2)?).as_const().filter(|&b| b > 0) else {
        return unsupported("weights whose blocks are not known");
    };
    let grid = c.at_least(scales, 3)?;
    let zero = match zero {
        Some(z) => {
            let last = c.rank(z) - 1;
            let z = unpacked(c, z, bits)?;
            let n = if rows { grid[1].clone() } else { grid[2].clone() };
            let z = c.b.narrow(z, last, 0i64.into(), n)?;
            c.reshape(z, grid)?
        }
        None => {
            let middle = c.scalar(Dtype::U8, (1 << (bits - 1)) as f64);
            c.b.broadcast(middle, grid)?
        }
    };
    let to = c.dtype(scales);
    c.source(Dequantize { axis: 2, block: Some(block), to }, &[w, scales, zero])
}

/// x `[T, in]` (or `[E, T, in]`) through a layer of every expert: `[E, T, out]`.
fn layer(c: &mut Cx<'_, '_, '_>, x: Value, [w, bias]: Layer) -> Got {
    let Some(w) = w else { return invalid("an expert has no weights") };
    let (rank, dtype) = (c.rank(x), c.dtype(x));
    let w = c.cast(w, dtype)?;
    // Labels: expert 0, token 1, out 2, in 3.
    let a = if rank == 3 { vec![0, 1, 3] } else { vec![1, 3] };
    let p = Prim::Contract { a, b: vec![0, 2, 3], out: vec![0, 1, 2] };
    let y = c.prim(p, &[x, w])?;
    let Some(bias) = bias else { return Ok(y) };
    let bias = c.cast(bias, dtype)?;
    let bias = c.b.unsqueeze(bias, 1)?;
    c.bin(BinaryOp::Add, y, bias)
}

/// The weight of every expert for every token `[T, E]`: the router's best k, the others 0.
fn weights(c: &mut Cx<'_, '_, '_>, own: Option<Value>) -> Got {
    let router = c.tensor(1)?;
    let dims = c.dims(router);
    let [tokens, experts] = &dims[..] else { return invalid("router_probs must be a matrix") };
    let k = c.int("k", 1)?;
    if c.flag("use_sparse_mixer", false)? {
        return unsupported("the sparse mixer");
    }
    if k < 1 || experts.as_const().is_some_and(|e| k > e) {
        return invalid(format!("{k} of {experts} experts"));
    }
    let router = c.cast(router, Dtype::F32)?;
    let all = c.source(Softmax { axis: 1, log: false }, &[router])?;
    let best = Prim::TopK { k: k.into(), axis: 1, largest: true, sorted: true };
    let best = c.b.prim_n(best, &[router])?;
    let from = match own {
        Some(v) => c.cast(v, Dtype::F32)?,
        None => all,
    };
    let mut top = c.prim(Prim::GatherElements { axis: 1 }, &[from, best[1]])?;
    if c.flag("normalize_routing_weights", false)? {
        let sum = c.reduce(ReduceOp::Sum, top, &[1], true)?;
        top = c.bin(BinaryOp::Div, top, sum)?;
    }
    let none = c.scalar(Dtype::F32, 0.0);
    let none = c.b.broadcast(none, vec![tokens.clone(), experts.clone()])?;
    let put = Prim::ScatterElements { axis: 1, op: ScatterOp::Set };
    c.prim(put, &[none, best[1], top])
}

/// `clamp(g, max) * sigmoid(alpha * g) * (clamp(l) + beta)`.
fn swiglu(c: &mut Cx<'_, '_, '_>, g: Value, l: Value) -> Got {
    let (alpha, shift) = (c.float("activation_alpha", 1.0)?, c.float("activation_beta", 0.0)?);
    let (mut g, mut l) = (g, l);
    if c.has("swiglu_limit") {
        let limit = f64::from(c.float("swiglu_limit", 0.0)?);
        g = c.bin_scalar(BinaryOp::Min, g, limit)?;
        l = c.bin_scalar(BinaryOp::Min, l, limit)?;
        l = c.bin_scalar(BinaryOp::Max, l, -limit)?;
    }
    let g = c.source(Activation::Swish { beta: alpha.into() }, &[g])?;
    let l = c.bin_scalar(BinaryOp::Add, l, shift.into())?;
    c.bin(BinaryOp::Mul, g, l)
}

fn activated(c: &mut Cx<'_, '_, '_>, x: Value, h: Value, third: Layer) -> Got {
    let kind = c.string("activation_type", "relu")?;
    if kind == "swiglu" {
        let half = c.dim(h, 2)?.div(&2i64.into());
        let (g, l) = match c.int("swiglu_fusion", 0)? {
            0 => (h, layer(c, x, third)?),
            1 => {
                let d = c.at_least(h, 2)?;
                let pairs = vec![d[0].clone(), d[1].clone(), half, 2i64.into()];
                let pairs = c.reshape(h, pairs)?;
                let g = c.b.narrow(pairs, 3, 0i64.into(), 1i64.into())?;
                let l = c.b.narrow(pairs, 3, 1i64.into(), 1i64.into())?;
                (c.b.squeeze(g, 3)?, c.b.squeeze(l, 3)?)
            }
            2 => (
                c.b.narrow(h, 2, 0i64.into(), half.clone())?,
                c.b.narrow(h, 2, half.clone(), half)?,
            ),
            other => return invalid(format!("swiglu_fusion {other}")),
        };
        return swiglu(c, g, l);
    }
    let a = match &*kind {
        "relu" => Activation::Relu,
        "gelu" => Activation::GeluTanh,
        "silu" => Activation::Swish { beta: 1.0 },
        "identity" => return Ok(h),
        other => return unsupported(format!("activation '{other}'")),
    };
    let h = c.source(a, &[h])?;
    if third[0].is_none() {
        return Ok(h);
    }
    let l = layer(c, x, third)?;
    c.bin(BinaryOp::Mul, h, l)
}

fn mixture(
    c: &mut Cx<'_, '_, '_>,
    [first, second, third]: [Layer; 3],
    own: Option<Value>,
) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let Some((width, lead)) = dims.split_last() else { return invalid("x is a scalar") };
    let rows = c.reshape(x, vec![Dim::product(lead), width.clone()])?;
    let h = layer(c, rows, first)?;
    let h = activated(c, rows, h, third)?;
    let y = layer(c, h, second)?;
    let w = weights(c, own)?;
    let w = c.cast(w, c.dtype(y))?;
    // Sum over experts of [T, E] and [E, T, out].
    let p = Prim::Contract { a: vec![1, 0], b: vec![0, 1, 2], out: vec![1, 2] };
    let y = c.prim(p, &[w, y])?;
    one(c.reshape(y, dims)?)
}
