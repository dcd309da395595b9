//! Convolutions, normalisations, softmax.

use super::spatial::{kernel_attr, transposed, windows};
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, Geometry, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::conv::{Conv, ConvTranspose, channel_vector};
use hub_ir::ops::norm::{BatchNorm, LayerNorm, Softmax};

pub(crate) const OPS: &[Row] = &[
    op("Conv", 1, conv),
    op("ConvTranspose", 1, conv_transpose),
    op("BatchNormalization", 1, batch_norm),
    op("InstanceNormalization", 1, instance_norm),
    op("GroupNormalization", 18, group_norm),
    op("LayerNormalization", 1, layer_norm),
    op("RMSNormalization", 23, rms_norm),
    op("SimplifiedLayerNormalization", 1, rms_norm),
    op("LpNormalization", 1, lp_norm),
    op("MeanVarianceNormalization", 9, mean_variance_norm),
    op("LRN", 1, lrn),
    op("Softmax", 1, |c| softmax(c, false)),
    op("LogSoftmax", 1, |c| softmax(c, true)),
    op("Hardmax", 1, hardmax),
];

/// x, filter, their spatial sizes.
fn conv_operands(c: &Cx<'_, '_, '_>, at: [usize; 2]) -> Got<(Value, Value, Vec<Dim>, Vec<Dim>)> {
    let (x, w) = (c.tensor(at[0])?, c.tensor(at[1])?);
    let (dx, dw) = (c.dims(x), c.dims(w));
    if dx.len() < 3 || dx.len() != dw.len() {
        return invalid(format!("ranks {} of x and {} of the filter", dx.len(), dw.len()));
    }
    let given = kernel_attr(c, dx.len() - 2)?;
    let fits = |(g, d): (&i64, &Dim)| d.as_const().is_none_or(|d| d == *g);
    if given.is_some_and(|g| !g.iter().zip(&dw[2..]).all(fits)) {
        return invalid("kernel_shape is not the filter's");
    }
    Ok((x, w, dx[2..].to_vec(), dw[2..].to_vec()))
}

/// Geometry and groups of a convolution whose x and filter are the given operands.
pub(super) fn conv_geometry(c: &Cx<'_, '_, '_>, at: [usize; 2]) -> Got<(Geometry, i64)> {
    let (_, _, x, k) = conv_operands(c, at)?;
    let groups = c.int("group", 1)?;
    if groups < 1 {
        return invalid(format!("group is {groups}"));
    }
    Ok((windows(c, &x, &k, false)?.geo, groups))
}

pub(super) fn conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (geo, groups) = conv_geometry(c, [0, 1])?;
    let mut ins = vec![c.tensor(0)?, c.tensor(1)?];
    ins.extend(c.opt(2));
    one(c.source(Conv { geo, groups }, &ins)?)
}

fn conv_transpose(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, w, dx, dw) = conv_operands(c, [0, 1])?;
    let geo = transposed(c, &dx, &dw)?;
    let groups = c.int("group", 1)?;
    let mut ins = vec![x, w];
    ins.extend(c.opt(2));
    one(c.source(ConvTranspose { geo, groups }, &ins)?)
}

fn batch_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let eps = c.float("epsilon", 1e-5)?;
    let ins = (0..5).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    if c.flag("training_mode", false)? {
        return batch_norm_training(c, &ins, eps);
    }
    if !c.flag("spatial", true)? {
        return per_element(c, &ins, eps);
    }
    let (x, dtype) = (ins[0], c.dtype(ins[0]));
    if c.rank(x) < 2 {
        return invalid("x needs a channel axis");
    }
    let stat = c.dtype(ins[3]);
    if stat == dtype && c.dtype(ins[1]) == dtype {
        return one(c.source(BatchNorm { eps }, &ins)?);
    }
    // Statistics may be wider than x; the widest computes.
    let wide = ins.iter().map(|&v| c.dtype(v)).max_by_key(|d| d.size()).unwrap_or(dtype);
    let ins = ins.iter().map(|&v| c.cast(v, wide)).collect::<Got<Vec<_>>>()?;
    let y = c.source(BatchNorm { eps }, &ins)?;
    one(c.cast(y, dtype)?)
}

/// Before version 9, `spatial = 0`: statistics of every element of a batch's entry.
fn per_element(c: &mut Cx<'_, '_, '_>, ins: &[Value], eps: f32) -> Got<Vec<Value>> {
    let shape = c.dims(ins[0])[1..].to_vec();
    let mut own = vec![];
    for &v in &ins[1..] {
        own.push(c.reshape(v, shape.clone())?);
    }
    let var = c.bin_scalar(BinaryOp::Add, own[3], eps.into())?;
    let inv = c.un(UnaryOp::Rsqrt, var)?;
    let d = c.bin(BinaryOp::Sub, ins[0], own[2])?;
    let y = c.bin(BinaryOp::Mul, d, inv)?;
    let y = c.bin(BinaryOp::Mul, y, own[0])?;
    one(c.bin(BinaryOp::Add, y, own[1])?)
}

/// Statistics of the batch, and running means: outputs y, mean, variance.
fn batch_norm_training(c: &mut Cx<'_, '_, '_>, ins: &[Value], eps: f32) -> Got<Vec<Value>> {
    let momentum = f64::from(c.float("momentum", 0.9)?);
    let x = ins[0];
    let axes: Vec<usize> = (0..c.rank(x)).filter(|&a| a != 1).collect();
    let mean = c.reduce(ReduceOp::Mean, x, &axes, false)?;
    let centre = channel_vector(c.b, mean, c.rank(x))?;
    let d = c.bin(BinaryOp::Sub, x, centre)?;
    let sq = c.bin(BinaryOp::Mul, d, d)?;
    let var = c.reduce(ReduceOp::Mean, sq, &axes, false)?;
    let y = c.source(BatchNorm { eps }, &[x, ins[1], ins[2], mean, var])?;
    let mut outs = vec![y];
    for (old, new) in [(ins[3], mean), (ins[4], var)] {
        let a = c.bin_scalar(BinaryOp::Mul, old, momentum)?;
        let b = c.bin_scalar(BinaryOp::Mul, new, 1.0 - momentum)?;
        outs.push(c.bin(BinaryOp::Add, a, b)?);
    }
    Ok(outs)
}

/// Zero mean and unit variance over `axis..`, per channel gain and bias on axis 1.
fn normalised(c: &mut Cx<'_, '_, '_>, x: Value, axis: usize, eps: f32) -> Got {
    c.source(LayerNorm { axis, eps }, &[x])
}

fn per_channel(c: &mut Cx<'_, '_, '_>, x: Value, gain: Value, bias: Value) -> Got {
    let rank = c.rank(x);
    let gain = channel_vector(c.b, gain, rank)?;
    let bias = channel_vector(c.b, bias, rank)?;
    let y = c.bin(BinaryOp::Mul, x, gain)?;
    c.bin(BinaryOp::Add, y, bias)
}

fn instance_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, gain, bias) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    if c.rank(x) < 3 {
        return invalid("x needs spatial axes");
    }
    let y = normalised(c, x, 2, c.float("epsilon", 1e-5)?)?;
    one(per_channel(c, y, gain, bias)?)
}

fn group_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, mut gain, mut bias) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let groups = c.int("num_groups", 0)?;
    let dims = c.dims(x);
    if groups < 1 || dims.len() < 2 {
        return invalid(format!("{groups} groups for rank {}", dims.len()));
    }
    let size = dims[1].div(&groups.into());
    let mut split = vec![dims[0].clone(), groups.into(), size.clone()];
    split.extend_from_slice(&dims[2..]);
    let y = c.reshape(x, split)?;
    let y = normalised(c, y, 2, c.float("epsilon", 1e-5)?)?;
    let y = c.reshape(y, dims.clone())?;
    if c.version < 21 {
        // A gain and bias per group.
        for v in [&mut gain, &mut bias] {
            let column = c.reshape(*v, vec![groups.into(), 1i64.into()])?;
            let wide = c.b.broadcast(column, vec![groups.into(), size.clone()])?;
            *v = c.reshape(wide, vec![dims[1].clone()])?;
        }
    }
    one(per_channel(c, y, gain, bias)?)
}

pub(super) fn layer_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", -1)?, c.rank(x))?;
    let eps = c.float("epsilon", 1e-5)?;
    let mut ins = vec![x];
    ins.extend(c.opt(1));
    ins.extend(c.opt(2));
    let mut outs = vec![c.source(LayerNorm { axis, eps }, &ins)?];
    if c.wants(1) || c.wants(2) {
        let axes: Vec<usize> = (axis..c.rank(x)).collect();
        let x = c.cast(x, Dtype::F32)?;
        let mean = c.reduce(ReduceOp::Mean, x, &axes, true)?;
        let d = c.bin(BinaryOp::Sub, x, mean)?;
        let sq = c.bin(BinaryOp::Mul, d, d)?;
        let var = c.reduce(ReduceOp::Mean, sq, &axes, true)?;
        let var = c.bin_scalar(BinaryOp::Add, var, eps.into())?;
        outs.extend([mean, c.un(UnaryOp::Rsqrt, var)?]);
    }
    Ok(outs)
}

/// `x / sqrt(mean(x^2) + eps) * gain`.
pub(super) fn rms_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, gain) = (c.tensor(0)?, c.tensor(1)?);
    let dtype = c.dtype(x);
    let axis = c.axis(c.int("axis", -1)?, c.rank(x))?;
    let axes: Vec<usize> = (axis..c.rank(x)).collect();
    let eps = c.float("epsilon", 1e-5)?;
    let wide = if dtype == Dtype::F64 { dtype } else { Dtype::F32 };
    let t = c.cast(x, wide)?;
    let sq = c.bin(BinaryOp::Mul, t, t)?;
    let ms = c.reduce(ReduceOp::Mean, sq, &axes, true)?;
    let ms = c.bin_scalar(BinaryOp::Add, ms, eps.into())?;
    let inv = c.un(UnaryOp::Rsqrt, ms)?;
    let y = c.bin(BinaryOp::Mul, t, inv)?;
    let y = c.cast(y, dtype)?;
    let mut outs = vec![c.bin(BinaryOp::Mul, y, gain)?];
    if c.wants(1) {
        outs.push(inv);
    }
    Ok(outs)
}

fn lp_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", -1)?, c.rank(x))?;
    let norm = match c.int("p", 2)? {
        1 => {
            let a = c.un(UnaryOp::Abs, x)?;
            c.reduce(ReduceOp::Sum, a, &[axis], true)?
        }
        2 => {
            let a = c.bin(BinaryOp::Mul, x, x)?;
            let s = c.reduce(ReduceOp::Sum, a, &[axis], true)?;
            c.un(UnaryOp::Sqrt, s)?
        }
        p => return invalid(format!("p is {p}")),
    };
    // A zero vector stays zero.
    let zero = c.bin_scalar(BinaryOp::Eq, norm, 0.0)?;
    let dtype = c.dtype(x);
    let one_ = c.scalar(dtype, 1.0);
    let norm = c.b.select(zero, one_, norm)?;
    one(c.bin(BinaryOp::Div, x, norm)?)
}

/// `(x - mean) / (sqrt(mean(x^2) - mean^2) + 1e-9)`.
fn mean_variance_norm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axes = c.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = c.axes(&axes, c.rank(x))?;
    let mean = c.reduce(ReduceOp::Mean, x, &axes, true)?;
    let d = c.bin(BinaryOp::Sub, x, mean)?;
    let sq = c.bin(BinaryOp::Mul, d, d)?;
    let var = c.reduce(ReduceOp::Mean, sq, &axes, true)?;
    let std = c.un(UnaryOp::Sqrt, var)?;
    let std = c.bin_scalar(BinaryOp::Add, std, 1e-9)?;
    one(c.bin(BinaryOp::Div, d, std)?)
}

/// `x / (bias + alpha/size * sum of squares over nearby channels)^beta`.
fn lrn(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let size = c.int("size", 0)?;
    let dims = c.dims(x);
    if !(1..=1 << 16).contains(&size) || dims.len() < 2 {
        return invalid(format!("size {size} for rank {}", dims.len()));
    }
    let (alpha, beta) = (f64::from(c.float("alpha", 1e-4)?), f64::from(c.float("beta", 0.75)?));
    let bias = f64::from(c.float("bias", 1.0)?);
    let sq = c.bin(BinaryOp::Mul, x, x)?;
    // As windows of [size, 1] over [N, 1, C, rest].
    let rest = Dim::product(&dims[2..]);
    let flat = c.reshape(sq, vec![dims[0].clone(), 1i64.into(), dims[1].clone(), rest])?;
    let mut geo = Geometry::unit(2);
    geo.before[0] = ((size - 1) / 2).into();
    geo.after[0] = (size / 2).into();
    let sum = c.prim(Prim::Window { op: ReduceOp::Sum, kernel: vec![size, 1], geo }, &[flat])?;
    let sum = c.reshape(sum, dims)?;
    let t = c.bin_scalar(BinaryOp::Mul, sum, alpha / size as f64)?;
    let t = c.bin_scalar(BinaryOp::Add, t, bias)?;
    let t = c.bin_scalar(BinaryOp::Pow, t, beta)?;
    one(c.bin(BinaryOp::Div, x, t)?)
}

/// Before version 13 the axes from `axis` on count as one.
fn as_matrix(c: &mut Cx<'_, '_, '_>) -> Got<(Value, usize, Vec<Dim>)> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let axis = c.axis(c.int("axis", if c.version < 13 { 1 } else { -1 })?, dims.len().max(1))?;
    if c.version >= 13 || axis + 1 == dims.len() {
        return Ok((x, axis, dims));
    }
    let (n, d) = (Dim::product(&dims[..axis]), Dim::product(&dims[axis..]));
    Ok((c.reshape(x, vec![n, d])?, 1, dims))
}

pub(super) fn softmax(c: &mut Cx<'_, '_, '_>, log: bool) -> Got<Vec<Value>> {
    let (x, axis, dims) = as_matrix(c)?;
    let y = c.source(Softmax { axis, log }, &[x])?;
    one(c.reshape(y, dims)?)
}

/// One at the first greatest element, else zero.
fn hardmax(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, axis, dims) = as_matrix(c)?;
    let arg = Prim::ArgReduce { max: true, axis: axis as u32, keep: true, last: false };
    let at = c.prim(arg, &[x])?;
    let shape = c.dims(x);
    let count = c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 }, &[])?;
    let hit = c.bin(BinaryOp::Eq, count, at)?;
    let dtype = c.dtype(x);
    let y = c.cast(hit, dtype)?;
    one(c.reshape(y, dims)?)
}
