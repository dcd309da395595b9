//! Operators that Paddle's passes and incubator fuse: normalisations with what comes before them,
//! biased activations, linear layers, quantised weights.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::ops::activation::Activation;
use hub_ir::ops::norm::{LayerNorm, RmsNorm};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// An activation by its name in fused operators; the empty name is none.
pub fn activated(c: &mut Ctx<'_, '_>, name: &str, v: Value) -> Res<Value> {
    let a = match name {
        "" | "identity" | "none" | "linear" => return Ok(v),
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        "gelu_tanh" | "fast_gelu" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Swish { beta: 1.0 },
        "relu6" => Activation::Clip { lo: 0.0, hi: 6.0 },
        "hard_swish" => Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 },
        "sigmoid" => return Ok(c.b.un(UnaryOp::Sigmoid, v)?),
        "tanh" => return Ok(c.b.un(UnaryOp::Tanh, v)?),
        "leaky_relu" => Activation::LeakyRelu { alpha: c.float("fuse_alpha", 0.02) },
        other => return c.refuse(format!("a fused activation {other}")),
    };
    Ok(c.b.source(a, &[v])?)
}

/// Refuses results that are quantised.
fn whole_results(c: &Ctx<'_, '_>) -> Res {
    match c.float("quant_scale|out_scale", -1.0) > 0.0 {
        true => c.refuse("quantised results"),
        false => Ok(()),
    }
}

/// A layer norm whose parameters may be wider than x, given flat.
fn layer_norm(
    c: &mut Ctx<'_, '_>,
    x: Value,
    axis: usize,
    (scale, bias): (Option<Value>, Option<Value>),
    eps: f64,
) -> Res<Value> {
    let dtype = c.b.g.dtype(x);
    let wide = match scale.or(bias).map(|v| c.b.g.dtype(v)) {
        Some(d) if dtype.is_small_float() && d.is_float() => d,
        _ => dtype,
    };
    let x = c.b.cast(x, wide)?;
    let shape = c.dims_from(x, axis)?;
    let mut param = |v: Option<Value>| -> Res<Value> {
        match v {
            Some(v) => {
                let v = c.b.cast(v, wide)?;
                Ok(c.b.reshape(v, shape.clone())?)
            }
            None => Ok(Value::NONE),
        }
    };
    let ins = [x, param(scale)?, param(bias)?];
    let v = c.b.source(LayerNorm { axis, eps: eps as f32 }, &ins)?;
    Ok(c.b.cast(v, dtype)?)
}

/// skip_layernorm: of a sum.
pub fn skip_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let params = (c.opt("Scale"), c.opt("Bias"));
    let v = c.b.add(x, y)?;
    let axis = axis_of(c.int("begin_norm_axis", 2), c.rank(v))?;
    let v = layer_norm(c, v, axis, params, c.float("epsilon", 1e-5))?;
    c.put("Out", v);
    Ok(())
}

/// fast_ln: over the last axis.
pub fn fast_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x")?;
    let params = (c.opt("scale"), c.opt("bias"));
    let axis = axis_of(-1, c.rank(x))?;
    let v = layer_norm(c, x, axis, params, c.float("epsilon", 1e-5))?;
    c.put("y", v);
    Ok(())
}

/// fused_embedding_eltwise_layernorm: of the sum of several embeddings.
pub fn embedding_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let (ids, tables) = (c.all("Ids")?, c.all("Embs")?);
    let params = (c.opt("Scale"), c.opt("Bias"));
    let mut sum: Option<Value> = None;
    for (mut at, table) in ids.into_iter().zip(tables) {
        let rank = c.rank(at);
        if rank == 3 && c.dim(at, 2)?.is(1) {
            at = c.b.squeeze(at, 2)?;
        }
        let v = c.b.prim(Prim::Gather { axis: 0 }, &[table, at])?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, v)?,
            None => v,
        });
    }
    let Some(v) = sum else { return c.refuse("no embedding") };
    let axis = axis_of(-1, c.rank(v))?;
    let v = layer_norm(c, v, axis, params, c.float("epsilon", 1e-5))?;
    c.put("Out", v);
    Ok(())
}

/// fused_fc_elementwise_layernorm: a linear layer, a sum, a layer norm.
pub fn fc_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w, y) = (c.tensor("X")?, c.tensor("W")?, c.tensor("Y")?);
    let bias = c.opt("Bias0");
    let params = (c.opt("Scale"), c.opt("Bias1"));
    let name = c.text("activation_type", "").to_string();
    let v = linear(c, x, w, bias)?;
    let v = activated(c, &name, v)?;
    let v = c.b.reshape(v, c.dims(y))?;
    let v = c.b.add(v, y)?;
    let axis = axis_of(c.int("begin_norm_axis", 1), c.rank(v))?;
    let v = layer_norm(c, v, axis, params, c.float("epsilon", 1e-5))?;
    c.put("Out", v);
    Ok(())
}

/// `x w + bias`, x being rows as wide as w is high.
fn linear(c: &mut Ctx<'_, '_>, x: Value, w: Value, bias: Option<Value>) -> Res<Value> {
    let v = c.b.matmul(x, w)?;
    match bias {
        Some(bias) => Ok(c.b.add(v, bias)?),
        None => Ok(v),
    }
}

/// fused_gemm_epilogue, gemm_epilogue, linear_v2, fused_linear: a product, a bias, an activation.
pub fn gemm_epilogue(c: &mut Ctx<'_, '_>) -> Res {
    let (mut x, mut w) = (c.tensor("X|Input|input")?, c.tensor("Y|W|weight")?);
    let bias = c.opt("Bias|bias");
    let name = c.text("activation|activation_type", "none").to_string();
    if c.flag("trans_x", false) {
        x = swapped(c, x)?;
    }
    if c.flag("trans_y|transpose_weight", false) {
        w = swapped(c, w)?;
    }
    let v = linear(c, x, w, bias)?;
    let v = activated(c, &name, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// The last two axes exchanged.
fn swapped(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let rank = c.rank(x);
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank >= 2 {
        perm.swap(rank - 1, rank - 2);
    }
    Ok(c.b.transpose(x, &perm)?)
}

/// rms_norm: of all axes from the normalised ones on. Before 3.1 its operands were (x, bias,
/// residual, scale, norm_bias), with the sum as a second result.
pub fn rms_norm(c: &mut Ctx<'_, '_>) -> Res {
    whole_results(c)?;
    let x = c.tensor("x")?;
    let (scale, norm_bias) = match c.opt("norm_weight") {
        Some(v) => (Some(v), c.opt("norm_bias")),
        None => (c.opt("scale"), None),
    };
    let mut v = x;
    if let Some(bias) = c.opt("bias") {
        v = c.b.add(v, bias)?;
    }
    if let Some(residual) = c.opt("residual") {
        v = c.b.add(v, residual)?;
    }
    c.put("residual_out", v);
    let axis = match c.ints("normalized_shape") {
        Some(l) if !l.is_empty() => -(l.len() as i64),
        _ => c.int("begin_norm_axis", -1),
    };
    let axis = axis_of(axis, c.rank(v))?;
    let v = rms(c, v, axis, scale)?;
    let v = match norm_bias {
        Some(bias) => c.b.add(v, bias)?,
        None => v,
    };
    c.put("y|out", v);
    Ok(())
}

/// x over the root of its mean square, times a scale given flat; halves in the scale's dtype.
fn rms(c: &mut Ctx<'_, '_>, x: Value, axis: usize, scale: Option<Value>) -> Res<Value> {
    let dtype = c.b.g.dtype(x);
    let x = c.b.cast(x, if dtype.is_small_float() { Dtype::F32 } else { dtype })?;
    let mut ins = vec![x];
    if let Some(scale) = scale {
        let scale = c.b.cast(scale, c.b.g.dtype(x))?;
        ins.push(c.b.reshape(scale, c.dims_from(x, axis)?)?);
    }
    let eps = c.float("epsilon", 1e-5) as f32;
    let v = c.b.source(RmsNorm { axis, eps }, &ins)?;
    Ok(c.b.cast(v, dtype)?)
}

/// fused_bias_act: a bias, and an activation; those of two halves gate one with the other.
pub fn bias_act(c: &mut Ctx<'_, '_>) -> Res {
    whole_results(c)?;
    let mut v = c.tensor("x")?;
    if let Some(bias) = c.opt("bias") {
        v = c.b.add(v, bias)?;
    }
    let name = c.text("act_method", "gelu").to_string();
    let gate = match name.as_str() {
        "geglu" => "gelu",
        "swiglu" => "silu",
        _ => {
            let v = activated(c, &name, v)?;
            c.put("out", v);
            return Ok(());
        }
    };
    let last = c.last(v)?;
    let half = c.dim(v, last)?.div(&2i64.into());
    let a = c.b.narrow(v, last, 0i64.into(), half.clone())?;
    let b = c.b.narrow(v, last, half.clone(), half)?;
    let a = activated(c, gate, a)?;
    let v = c.b.mul(a, b)?;
    c.put("out", v);
    Ok(())
}

/// fused_dropout_add: at inference the sum, x scaled where training did not scale it.
pub fn dropout_add(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("x")?, c.tensor("y")?);
    c.ignore("seed_tensor");
    let kept = dropped(c, x, "mode", "p");
    let v = kept?;
    let v = c.b.add(v, y)?;
    c.put("out", v);
    Ok(())
}

/// What dropout leaves of x at inference.
fn dropped(c: &mut Ctx<'_, '_>, x: Value, mode: &str, rate: &str) -> Res<Value> {
    match c.text(mode, "upscale_in_train") {
        "downgrade_in_infer" => Ok(c.b.bin_scalar(BinaryOp::Mul, x, 1.0 - c.float(rate, 0.5))?),
        _ => Ok(x),
    }
}

/// fused_bias_dropout_residual_layer_norm: the layer norm of `residual + dropout(x + bias)`.
pub fn bias_residual_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    let (x, residual) = (c.tensor("X")?, c.tensor("Residual")?);
    let (bias, params) = (c.opt("Bias"), (c.opt("LnScale"), c.opt("LnBias")));
    let v = match bias {
        Some(bias) => c.b.add(x, bias)?,
        None => x,
    };
    let v = match c.text("dropout_implementation", "downgrade_in_infer") {
        "downgrade_in_infer" => {
            c.b.bin_scalar(BinaryOp::Mul, v, 1.0 - c.float("dropout_rate", 0.5))?
        }
        _ => v,
    };
    let v = c.b.add(residual, v)?;
    c.put("BiasDropoutResidualOut", v);
    let axis = axis_of(-1, c.rank(v))?;
    let v = layer_norm(c, v, axis, params, c.float("ln_epsilon", 1e-5))?;
    c.put("Y", v);
    Ok(())
}

/// fused_bias_residual_layernorm: the layer norm of `x + bias + alpha * residual`.
pub fn bias_scaled_layer_norm(c: &mut Ctx<'_, '_>) -> Res {
    whole_results(c)?;
    let mut v = c.tensor("x")?;
    if let Some(bias) = c.opt("bias") {
        v = c.b.add(v, bias)?;
    }
    if let Some(residual) = c.opt("residual") {
        let r = c.b.bin_scalar(BinaryOp::Mul, residual, c.float("residual_alpha", 1.0))?;
        v = c.b.add(v, r)?;
    }
    c.put("residual_out", v);
    let params = (c.opt("norm_weight"), c.opt("norm_bias"));
    let axis = axis_of(c.int("begin_norm_axis", 1), c.rank(v))?;
    let v = layer_norm(c, v, axis, params, c.float("epsilon", 1e-5))?;
    c.put("out", v);
    Ok(())
}

/// fused_feedforward: two linear layers with an activation between them, a residual, and layer
/// norms before or behind.
pub fn feed_forward(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    for slot in ["Dropout1Seed", "Dropout2Seed"] {
        c.ignore(slot);
    }
    let [w1, w2] = ["Linear1Weight", "Linear2Weight"].map(|s| c.tensor(s));
    let (w1, w2) = (w1?, w2?);
    let (b1, b2) = (c.opt("Linear1Bias"), c.opt("Linear2Bias"));
    let first = (c.opt("Ln1Scale"), c.opt("Ln1Bias"));
    let second = (c.opt("Ln2Scale"), c.opt("Ln2Bias"));
    let before = c.flag("pre_layer_norm", false);
    let axis = axis_of(-1, c.rank(x))?;
    let mut v = x;
    if before {
        v = layer_norm(c, v, axis, first, c.float("ln1_epsilon", 1e-5))?;
    }
    let name = c.text("act_method", "gelu").to_string();
    v = linear(c, v, w1, b1)?;
    v = activated(c, &name, v)?;
    v = dropped(c, v, "dropout1_implementation", "dropout1_rate|dropout1_prob")?;
    v = linear(c, v, w2, b2)?;
    v = dropped(c, v, "dropout2_implementation", "dropout2_rate|dropout2_prob")?;
    if c.flag("add_residual", true) {
        v = c.b.add(x, v)?;
    }
    if !before {
        v = layer_norm(c, v, axis, second, c.float("ln2_epsilon", 1e-5))?;
    }
    c.put("Out", v);
    Ok(())
}

/// weight_dequantize, weight_only_linear: weights `[N, K]` of int8 by a scale a row (or a group of
/// columns).
fn weights(c: &mut Ctx<'_, '_>, w: Value, scale: Value, to: Dtype) -> Res<Value> {
    if c.text("weight_dtype|algo", "int8").contains("int4") {
        return c.refuse("weights of four bits");
    }
    let d = c.dims(w);
    let [n, k] = &d[..] else { return c.refuse("weights of rank other than 2") };
    let w = c.b.cast(w, to)?;
    let scale = c.b.cast(scale, to)?;
    let group = c.int("group_size", -1);
    if group <= 0 {
        let scale = c.b.reshape(scale, vec![n.clone(), 1i64.into()])?;
        return Ok(c.b.mul(w, scale)?);
    }
    // Scales [K / group, N].
    let groups = k.div(&group.into());
    let scale = c.b.reshape(scale, vec![groups.clone(), n.clone()])?;
    let scale = c.b.transpose(scale, &[1, 0])?;
    let scale = c.b.unsqueeze(scale, 2)?;
    let w = c.b.reshape(w, vec![n.clone(), groups, group.into()])?;
    let w = c.b.mul(w, scale)?;
    Ok(c.b.reshape(w, d)?)
}

/// weight_only_linear, llm_int8_linear: x times the transpose of quantised weights.
pub fn weight_only_linear(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w, scale) = (c.tensor("x")?, c.tensor("weight")?, c.tensor("weight_scale")?);
    let bias = c.opt("bias");
    let dtype = c.b.g.dtype(x);
    let wide = if dtype.is_small_float() { Dtype::F32 } else { dtype };
    let w = weights(c, w, scale, wide)?;
    let w = c.b.transpose(w, &[1, 0])?;
    let x = c.b.cast(x, wide)?;
    let v = c.b.matmul(x, w)?;
    let mut v = c.b.cast(v, dtype)?;
    if let Some(bias) = bias {
        v = c.b.add(v, bias)?;
    }
    c.put("out", v);
    Ok(())
}

/// fused_elementwise_add and its like: scaled operands, and an activation.
pub fn fused_binary(c: &mut Ctx<'_, '_>) -> Res {
    let (mut x, mut y) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let op = match c.op.kind.rsplit('_').next() {
        Some("add") => BinaryOp::Add,
        Some("sub") => BinaryOp::Sub,
        Some("mul") => BinaryOp::Mul,
        _ => BinaryOp::Div,
    };
    for (v, name) in [(&mut x, "scale_x"), (&mut y, "scale_y")] {
        let k = c.float(name, 1.0);
        if k != 1.0 {
            *v = c.b.bin_scalar(BinaryOp::Mul, *v, k)?;
        }
    }
    let axis = c.int("axis", -1);
    let (rx, ry) = (c.rank(x), c.rank(y));
    if axis >= 0 && ry < rx {
        let mut shape: Vec<Dim> = c.dims(y);
        shape.resize((rx).saturating_sub(axis as usize).max(ry), 1i64.into());
        y = c.b.reshape(y, shape)?;
    }
    let v = c.b.bin(op, x, y)?;
    let name = c.text("fuse_activation", "").to_string();
    let v = activated(c, &name, v)?;
    let k = c.float("scale_out", 1.0) * c.float("fused_output_scale", 1.0);
    let v = if k == 1.0 { v } else { c.b.bin_scalar(BinaryOp::Mul, v, k)? };
    c.put("Out|out", v);
    Ok(())
}
