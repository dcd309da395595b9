//! deformable_conv: a convolution whose taps are moved by learnt offsets.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// Sizes that the steps share.
struct Shape {
    /// Images.
    n: Dim,
    /// Groups of channels that move together, channels of each.
    groups: i64,
    each: i64,
    /// Taps.
    kh: i64,
    kw: i64,
    /// Input and output.
    h: Dim,
    w: Dim,
    oh: Dim,
    ow: Dim,
}

/// deformable_conv (with or without a mask), convolution groups 1.
pub fn deformable_conv(c: &mut Ctx<'_, '_>) -> Res {
    let (x, offset, w) = (c.tensor("Input")?, c.tensor("Offset")?, c.tensor("Filter")?);
    let (dx, dw, d_o) = (c.dims(x), c.dims(w), c.dims(offset));
    let known = [&dx[..], &dw[..], &d_o[..]].map(<[Dim]>::len) == [4; 3];
    let sizes: Option<Vec<i64>> = match known {
        true => [&dx[1], &dw[2], &dw[3]].into_iter().map(Dim::as_const).collect(),
        false => None,
    };
    let groups = c.int("deformable_groups", 1);
    let Some([channels, kh @ 1..=64, kw @ 1..=64]) = sizes.as_deref() else {
        return c.refuse("unknown channels or taps");
    };
    if groups < 1 || channels % groups != 0 {
        return c.refuse(format!("{channels} channels in {groups} groups"));
    }
    let s = Shape {
        n: dx[0].clone(),
        groups,
        each: channels / groups,
        kh: *kh,
        kw: *kw,
        h: dx[2].clone(),
        w: dx[3].clone(),
        oh: d_o[2].clone(),
        ow: d_o[3].clone(),
    };
    let (py, px) = places(c, offset, &s)?;
    let taps = sampled(c, x, py, px, &s)?;
    // Channels by the groups of the convolution: [N, K, L, H, C] and [H, M, C, K] give [N, H, M, L].
    let own = c.int("groups", 1);
    if own < 1 || channels % own != 0 || dw[0].as_const().is_none_or(|m| m % own != 0) {
        return c.refuse(format!("{channels} channels in {own} groups"));
    }
    let taps = c.b.transpose(taps, &[0, 2, 3, 1, 4])?;
    let mut apart = c.at_least(taps, 5)?;
    (apart[3], apart[4]) = (own.into(), (channels / own).into());
    let taps = c.b.reshape(taps, apart)?;
    let outs = dw[0].div(&own.into());
    let split = [own.into(), outs, (channels / own).into(), (kh * kw).into()];
    let w = c.b.reshape(w, split.to_vec())?;
    let p = Prim::Contract { a: vec![0, 1, 2, 3, 4], b: vec![3, 5, 4, 1], out: vec![0, 3, 5, 2] };
    let v = c.b.prim(p, &[taps, w])?;
    let v = c.b.reshape(v, vec![s.n.clone(), dw[0].clone(), s.oh.clone(), s.ow.clone()])?;
    c.put("Output", v);
    Ok(())
}

/// Where each tap of each output lies: rows and columns, `[N, G, K, oh, ow]`.
fn places(c: &mut Ctx<'_, '_>, offset: Value, s: &Shape) -> Res<(Value, Value)> {
    let pair = |l: Option<Vec<i64>>, d: i64| match l.as_deref() {
        Some([a]) => [*a, *a],
        Some([a, b]) => [*a, *b],
        _ => [d, d],
    };
    let (stride, pad) = (pair(c.ints("strides"), 1), pair(c.ints("paddings"), 0));
    let dilation = pair(c.ints("dilations"), 1);
    let shape = [
        s.n.clone(),
        s.groups.into(),
        (s.kh * s.kw).into(),
        2i64.into(),
        s.oh.clone(),
        s.ow.clone(),
    ];
    let offset = c.b.reshape(offset, shape.to_vec())?;
    let mut found = vec![];
    for (i, count) in [&s.oh, &s.ow].into_iter().enumerate() {
        let moved = c.b.narrow(offset, 3, (i as i64).into(), 1i64.into())?;
        let moved = c.b.squeeze(moved, 3)?;
        let mut shape = vec![Dim::from(1i64); 5];
        shape[3 + i] = count.clone();
        let at = Prim::Iota { dtype: Dtype::F32, shape, axis: 3 + i as u32 };
        let at = c.b.prim(at, &[])?;
        let at = c.b.bin_scalar(BinaryOp::Mul, at, stride[i] as f64)?;
        let at = c.b.bin_scalar(BinaryOp::Sub, at, pad[i] as f64)?;
        let tap = |k: i64| (if i == 0 { k / s.kw } else { k % s.kw }).saturating_mul(dilation[i]);
        let taps: Vec<f32> = (0..s.kh * s.kw).map(|k| tap(k) as f32).collect();
        let taps = c.b.floats(&[1, 1, s.kh * s.kw, 1, 1], &taps);
        let at = c.b.add(at, taps)?;
        let at = c.b.cast(at, c.b.g.dtype(moved))?;
        found.push(c.b.add(moved, at)?);
    }
    Ok((found[0], found[1]))
}

/// Bilinear samples, zero outside, times the mask: `[N, G, K, L, C]`.
fn sampled(c: &mut Ctx<'_, '_>, x: Value, py: Value, px: Value, s: &Shape) -> Res<Value> {
    let flat = [s.n.clone(), s.groups.into(), s.each.into(), s.h.mul(&s.w)];
    let flat = c.b.reshape(x, flat.to_vec())?;
    let flat = c.b.transpose(flat, &[0, 1, 3, 2])?;
    let (k, l) = (Dim::from(s.kh * s.kw), s.oh.mul(&s.ow));
    let rows = vec![s.n.clone(), s.groups.into(), k.mul(&l), 1i64.into()];
    let (y0, x0) = (c.b.un(UnaryOp::Floor, py)?, c.b.un(UnaryOp::Floor, px)?);
    let (fy, fx) = (c.b.sub(py, y0)?, c.b.sub(px, x0)?);
    let mask = c.opt("Mask");
    let mut sum: Option<Value> = None;
    for (dy, dx) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
        let (y, y_in) = corner(c, y0, dy, &s.h)?;
        let (x, x_in) = corner(c, x0, dx, &s.w)?;
        let inside = c.b.bin(BinaryOp::And, y_in, x_in)?;
        let mut weight = c.b.cast(inside, c.b.g.dtype(fy))?;
        for (f, d) in [(fy, dy), (fx, dx)] {
            let part = if d == 0.0 {
                let one = c.b.scalar(c.b.g.dtype(f), 1.0);
                c.b.sub(one, f)?
            } else {
                f
            };
            weight = c.b.mul(weight, part)?;
        }
        let width = c.b.dim_scalar(s.w.clone());
        let at = c.b.mul(y, width)?;
        let at = c.b.add(at, x)?;
        let at = c.b.reshape(at, rows.clone())?;
        let v = c.b.prim(Prim::GatherNd { batch: 2 }, &[flat, at])?;
        let weight = c.b.reshape(weight, rows.clone())?;
        let v = c.b.mul(v, weight)?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, v)?,
            None => v,
        });
    }
    let Some(mut v) = sum else { return c.refuse("no corners") };
    if let Some(mask) = mask {
        let mask = c.b.reshape(mask, rows)?;
        v = c.b.mul(v, mask)?;
    }
    let apart = [s.n.clone(), s.groups.into(), k, l, s.each.into()];
    Ok(c.b.reshape(v, apart.to_vec())?)
}

/// A corner's coordinate as a valid int64 index, and whether it lies on the axis.
fn corner(c: &mut Ctx<'_, '_>, at: Value, step: f64, n: &Dim) -> Res<(Value, Value)> {
    let at = c.b.bin_scalar(BinaryOp::Add, at, step)?;
    let last = c.b.dim_scalar(n.plus(-1));
    let last = c.b.cast(last, c.b.g.dtype(at))?;
    let near = c.b.min(at, last)?;
    let near = c.b.bin_scalar(BinaryOp::Max, near, 0.0)?;
    let inside = c.b.bin(BinaryOp::Eq, at, near)?;
    Ok((c.b.cast(near, Dtype::I64)?, inside))
}
