//! DeformConv, a convolution whose taps are moved by offsets; MaxRoiPool.

use super::nn::conv_geometry;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::conv::channel_vector;

pub(crate) const OPS: &[Row] =
    &[op("DeformConv", 19, deform_conv), op("MaxRoiPool", 1, max_roi_pool)];

/// What the steps of a deformable convolution share: x `[N, C, H, W]`, taps `K`, groups of channels
/// that move together, and pixels of the output.
struct Shape {
    x: Vec<Dim>,
    taps: Dim,
    moved: i64,
    out: [Dim; 2],
}

fn deform_conv(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, w, offset) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (dx, dw, d_o, dtype) = (c.dims(x), c.dims(w), c.dims(offset), c.dtype(x));
    if [dx.len(), dw.len(), d_o.len()] != [4; 3] {
        return unsupported("a deformable convolution that is not over two axes");
    }
    let (geo, groups) = conv_geometry(c, [0, 1])?;
    let moved = c.int("offset_group", 1)?;
    if moved < 1 {
        return invalid(format!("offset_group {moved}"));
    }
    let taps = dw[2].mul(&dw[3]);
    let out = [d_o[2].clone(), d_o[3].clone()];
    let s = Shape { x: dx.clone(), taps: taps.clone(), moved, out };
    let pixels = s.out[0].mul(&s.out[1]);
    // Offsets as [N, groups, taps, 2 (y, x), pixels].
    let shape = vec![dx[0].clone(), moved.into(), taps.clone(), 2i64.into(), pixels.clone()];
    let offset = c.reshape(offset, shape)?;
    let mut at = vec![];
    for axis in 0..2 {
        let base = places(c, &s, &dw, axis, [geo.stride[axis], geo.dilation[axis]])?;
        let pad = c.b.dim_scalar(geo.before[axis].clone());
        let pad = c.cast(pad, dtype)?;
        let base = c.cast(base, dtype)?;
        let base = c.bin(BinaryOp::Sub, base, pad)?;
        let own = c.b.narrow(offset, 3, axis.into(), 1i64.into())?;
        let own = c.b.squeeze(own, 3)?;
        at.push(c.bin(BinaryOp::Add, own, base)?);
    }
    let mut cols = sampled(c, x, &s, [at[0], at[1]])?;
    if let Some(mask) = c.opt(4) {
        let shape = vec![dx[0].clone(), moved.into(), 1i64.into(), taps.times(1), pixels.clone()];
        let mask = c.reshape(mask, shape)?;
        cols = c.bin(BinaryOp::Mul, cols, mask)?;
    }
    let each = dx[1].div(&groups.into());
    let shape = vec![dx[0].clone(), groups.into(), each.clone(), taps.clone(), pixels];
    let cols = c.reshape(cols, shape)?;
    let filters = dw[0].div(&groups.into());
    let w = c.reshape(w, vec![groups.into(), filters, each, taps])?;
    let p = Prim::Contract { a: vec![0, 1, 2, 3, 4], b: vec![1, 5, 2, 3], out: vec![0, 1, 5, 4] };
    let y = c.prim(p, &[cols, w])?;
    let [oh, ow] = s.out;
    let mut y = c.reshape(y, vec![dx[0].clone(), dw[0].clone(), oh, ow])?;
    if let Some(bias) = c.opt(3) {
        let bias = channel_vector(c.b, bias, 4)?;
        y = c.bin(BinaryOp::Add, y, bias)?;
    }
    one(y)
}

/// Unmoved places of taps along an axis, `[taps, pixels]`: `tap * dilation + pixel * stride`.
fn places(
    c: &mut Cx<'_, '_, '_>,
    s: &Shape,
    w: &[Dim],
    axis: usize,
    [stride, dilation]: [i64; 2],
) -> Got {
    // [kh, kw, oh, ow]
    let grid = [w[2].clone(), w[3].clone(), s.out[0].clone(), s.out[1].clone()];
    let mut sum = c.scalar(Dtype::I64, 0.0);
    for (at, step) in [(axis, dilation), (axis + 2, stride)] {
        let mut shape = vec![Dim::from(1i64); 4];
        shape[at] = grid[at].clone();
        let i = c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: at as u32 }, &[])?;
        let i = c.bin_scalar(BinaryOp::Mul, i, step as f64)?;
        sum = c.bin(BinaryOp::Add, sum, i)?;
    }
    let all = c.b.broadcast(sum, grid.to_vec())?;
    c.reshape(all, vec![s.taps.clone(), s.out[0].mul(&s.out[1])])
}

/// x at places `[N, groups, taps, pixels]`, between pixels linearly and 0 outside:
/// `[N, groups, channels, taps, pixels]`.
fn sampled(c: &mut Cx<'_, '_, '_>, x: Value, s: &Shape, at: [Value; 2]) -> Got {
    let dtype = c.dtype(x);
    let area = s.x[2].mul(&s.x[3]);
    let each = s.x[1].div(&s.moved.into());
    let flat = vec![s.x[0].clone(), s.moved.into(), each.clone(), area];
    let flat = c.reshape(x, flat)?;
    let points = s.taps.mul(&s.out[0]).mul(&s.out[1]);
    let mut near = vec![];
    for (axis, &at) in at.iter().enumerate() {
        let low = c.un(UnaryOp::Floor, at)?;
        let part = c.bin(BinaryOp::Sub, at, low)?;
        let rest = c.un(UnaryOp::Neg, part)?;
        let rest = c.bin_scalar(BinaryOp::Add, rest, 1.0)?;
        let high = c.bin_scalar(BinaryOp::Add, low, 1.0)?;
        near.push([tap(c, low, rest, &s.x[axis + 2])?, tap(c, high, part, &s.x[axis + 2])?]);
    }
    let width = c.b.dim_scalar(s.x[3].clone());
    let mut sum = None;
    for (y, wy) in near[0] {
        for (x, wx) in near[1] {
            let at = c.bin(BinaryOp::Mul, y, width)?;
            let at = c.bin(BinaryOp::Add, at, x)?;
            let row = vec![s.x[0].clone(), s.moved.into(), 1i64.into(), points.clone()];
            let mut wide = row.clone();
            wide[2] = each.clone();
            let at = c.reshape(at, row.clone())?;
            let at = c.b.broadcast(at, wide)?;
            let v = c.prim(Prim::GatherElements { axis: 3 }, &[flat, at])?;
            let w = c.bin(BinaryOp::Mul, wy, wx)?;
            let w = c.reshape(w, row)?;
            let w = c.cast(w, dtype)?;
            let v = c.bin(BinaryOp::Mul, v, w)?;
            sum = Some(sum.map_or(Ok(v), |sum| c.bin(BinaryOp::Add, sum, v))?);
        }
    }
    let Some(sum) = sum else { return invalid("no places") };
    let pixels = s.out[0].mul(&s.out[1]);
    c.reshape(sum, vec![s.x[0].clone(), s.moved.into(), each, s.taps.clone(), pixels])
}

/// An index inside an axis, and the weight, 0 where the place is outside.
fn tap(c: &mut Cx<'_, '_, '_>, at: Value, weight: Value, size: &Dim) -> Got<(Value, Value)> {
    let dtype = c.dtype(at);
    let last = c.b.dim_scalar(size.plus(-1));
    let last = c.cast(last, dtype)?;
    let (low, high) = (c.bin_scalar(BinaryOp::Ge, at, 0.0)?, c.bin(BinaryOp::Le, at, last)?);
    let inside = c.bin(BinaryOp::And, low, high)?;
    let zero = c.scalar(dtype, 0.0);
    let weight = c.b.select(inside, weight, zero)?;
    let at = c.bin(BinaryOp::Min, at, last)?;
    let at = c.bin_scalar(BinaryOp::Max, at, 0.0)?;
    Ok((c.cast(at, Dtype::I64)?, weight))
}

/// To nearest, halves away from zero.
fn rounded(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let (sign, size) = (c.un(UnaryOp::Sign, x)?, c.un(UnaryOp::Abs, x)?);
    let size = c.bin_scalar(BinaryOp::Add, size, 0.5)?;
    let size = c.un(UnaryOp::Floor, size)?;
    c.bin(BinaryOp::Mul, sign, size)
}

/// The greatest elements of each region's bins; an empty bin gives 0.
fn max_roi_pool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    use BinaryOp::{Add, And, Div, Ge, Lt, Max, Mul, Sub};
    let (x, rois) = (c.tensor(0)?, c.tensor(1)?);
    let (d, dr, dtype) = (c.dims(x), c.dims(rois), c.dtype(x));
    let bins = match c.ints("pooled_shape")? {
        Some(b) if b.len() == 2 && b.iter().all(|b| (1..=1 << 12).contains(b)) => b,
        b => return invalid(format!("pooled_shape {b:?}")),
    };
    if d.len() != 4 || dr.len() != 2 || !dr[1].is(5) {
        return invalid("x must be [N, C, H, W] and regions [R, 5]");
    }
    let scale = c.float("spatial_scale", 1.0)?.into();
    let rois = c.cast(rois, Dtype::F32)?;
    let corner = |c: &mut Cx<'_, '_, '_>, i: i64| -> Got {
        let v = c.b.narrow(rois, 1, i.into(), 1i64.into())?;
        c.b.unsqueeze(v, 2).map_err(Into::into)
    };
    // Which rows (or columns) each bin takes: bool [R, bins, size].
    let mut masks = vec![];
    for (axis, first, last) in [(0, 2, 4), (1, 1, 3)] {
        let (a, b) = (corner(c, first)?, corner(c, last)?);
        let (a, b) = (c.bin_scalar(Mul, a, scale)?, c.bin_scalar(Mul, b, scale)?);
        let (a, b) = (rounded(c, a)?, rounded(c, b)?);
        let len = c.bin(Sub, b, a)?;
        let len = c.bin_scalar(Add, len, 1.0)?;
        let len = c.bin_scalar(Max, len, 1.0)?;
        let step = c.bin_scalar(Div, len, bins[axis] as f64)?;
        let shape = vec![bins[axis].into(), 1i64.into()];
        let k = c.prim(Prim::Iota { dtype: Dtype::F32, shape, axis: 0 }, &[])?;
        let start = c.bin(Mul, k, step)?;
        let start = c.un(UnaryOp::Floor, start)?;
        let start = c.bin(Add, start, a)?;
        let next = c.bin_scalar(Add, k, 1.0)?;
        let end = c.bin(Mul, next, step)?;
        let end = c.un(UnaryOp::Ceil, end)?;
        let end = c.bin(Add, end, a)?;
        let shape = vec![d[axis + 2].clone()];
        let at = c.prim(Prim::Iota { dtype: Dtype::F32, shape, axis: 0 }, &[])?;
        let (low, high) = (c.bin(Ge, at, start)?, c.bin(Lt, at, end)?);
        masks.push(c.bin(And, low, high)?);
    }
    let batch = c.b.narrow(rois, 1, 0i64.into(), 1i64.into())?;
    let batch = c.b.squeeze(batch, 1)?;
    let batch = c.cast(batch, Dtype::I64)?;
    let own = c.prim(Prim::Gather { axis: 0 }, &[x, batch])?;
    let none = c.scalar(dtype, f64::NEG_INFINITY);
    let (r, ph, pw) = (dr[0].clone(), Dim::from(bins[0]), Dim::from(bins[1]));
    let one_dim = || Dim::from(1i64);
    // Columns first: [R, C, H, 1, W] by [R, 1, 1, PW, W].
    let wide = c.b.unsqueeze(own, 3)?;
    let shape = vec![r.clone(), one_dim(), one_dim(), pw.clone(), d[3].clone()];
    let mask = c.reshape(masks[1], shape)?;
    let t = c.b.select(mask, wide, none)?;
    let t = c.reduce(ReduceOp::Max, t, &[4], false)?;
    let t = c.b.unsqueeze(t, 2)?;
    let shape = vec![r.clone(), one_dim(), ph.clone(), d[2].clone(), one_dim()];
    let mask = c.reshape(masks[0], shape)?;
    let t = c.b.select(mask, t, none)?;
    let t = c.reduce(ReduceOp::Max, t, &[3], false)?;
    let rows = c.reduce(ReduceOp::Or, masks[0], &[2], false)?;
    let rows = c.reshape(rows, vec![r.clone(), one_dim(), ph, one_dim()])?;
    let columns = c.reduce(ReduceOp::Or, masks[1], &[2], false)?;
    let columns = c.reshape(columns, vec![r, one_dim(), one_dim(), pw])?;
    let some = c.bin(And, rows, columns)?;
    let zero = c.scalar(dtype, 0.0);
    one(c.b.select(some, t, zero)?)
}
