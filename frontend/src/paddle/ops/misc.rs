//! Assignments to slices, patches, shifts, einsum, sampling grids.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, MOST_SIZES, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, PadMode, Prim, ReduceOp, Value};

/// unfold: the patches of an image as columns, `[N, C*kh*kw, L]`.
pub fn unfold(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let pair = |l: Option<Vec<i64>>, d: i64| match l.as_deref() {
        Some([a]) => [*a, *a],
        Some([a, b]) => [*a, *b],
        _ => [d, d],
    };
    let k = pair(c.ints("kernel_sizes"), 1);
    let (stride, dil) = (pair(c.ints("strides"), 1), pair(c.ints("dilations"), 1));
    // up, left, down, right.
    let pads = match c.ints("paddings").as_deref() {
        Some([a]) => [*a; 4],
        Some([a, b]) => [*a, *b, *a, *b],
        Some([a, b, d, e]) => [*a, *b, *d, *e],
        _ => [0; 4],
    };
    let v = patches(c, x, k, stride, dil, pads)?;
    c.put("Y", v);
    Ok(())
}

/// The patches of `[N, C, H, W]` as columns `[N, C*kh*kw, L]`; pads are up, left, down, right.
pub fn patches(
    c: &mut Ctx<'_, '_>,
    x: Value,
    k: [i64; 2],
    stride: [i64; 2],
    dil: [i64; 2],
    pads: [i64; 4],
) -> Res<Value> {
    let dims = c.dims(x);
    let small = |v: &[i64]| v.iter().all(|&n| (1..=1 << 16).contains(&n));
    if dims.len() != 4 || !small(&k) || !small(&stride) || !small(&dil) || k[0] * k[1] > 1024 {
        return c.refuse("patches of such sizes");
    }
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let none = Dim::from(0i64);
    let before = vec![none.clone(), none.clone(), pads[0].into(), pads[1].into()];
    let after = vec![none.clone(), none.clone(), pads[2].into(), pads[3].into()];
    let p = c.b.prim(Prim::Pad { before, after, mode: PadMode::Constant }, &[x, zero])?;
    let padded = c.dims(p);
    let out = |i: usize| {
        let span = (k[i] - 1) * dil[i] + 1;
        padded[i + 2].plus(-span).div(&stride[i].into()).plus(1)
    };
    let (oh, ow) = (out(0), out(1));
    let mut taps = vec![];
    for i in 0..k[0] {
        for j in 0..k[1] {
            let start = vec![none.clone(), none.clone(), (i * dil[0]).into(), (j * dil[1]).into()];
            let len = vec![dims[0].clone(), dims[1].clone(), oh.clone(), ow.clone()];
            let step = vec![1, 1, stride[0], stride[1]];
            let tap = c.b.prim(Prim::Slice { start, len, step }, &[p])?;
            taps.push(c.b.unsqueeze(tap, 2)?);
        }
    }
    let v = c.b.concat(&taps, 2)?;
    let shape = vec![dims[0].clone(), dims[1].times(k[0] * k[1]), oh.mul(&ow)];
    Ok(c.b.reshape(v, shape)?)
}

/// temporal_shift: some channels come from the frame before, some from the one after.
pub fn temporal_shift(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let vs = super::conv::channels_second(c, x, |c, x| Ok(vec![shifted(c, x)?]))?;
    c.put("Out", vs[0]);
    Ok(())
}

fn shifted(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let t = c.int("seg_num", 1);
    let ratio = c.float("shift_ratio", 0.25);
    let d = c.dims(x);
    let (4, Some(ch), 1..) = (d.len(), d.get(1).and_then(Dim::as_const), t) else {
        return c.refuse("such a shape");
    };
    let first = ((ch as f64 * f64::from(ratio as f32)) as i64).clamp(0, ch);
    let second = ((ch as f64 * 2.0 * f64::from(ratio as f32)) as i64).clamp(first, ch);
    let frames = vec![d[0].div(&t.into()), t.into(), ch.into(), d[2].clone(), d[3].clone()];
    let v = c.b.reshape(x, frames)?;
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let mut parts = vec![];
    for (from, to, shift) in [(0, first, 1i64), (first, second, -1), (second, ch, 0)] {
        if from == to {
            continue;
        }
        let mut part = c.b.narrow(v, 2, from.into(), (to - from).into())?;
        if shift != 0 {
            let mut before = vec![Dim::from(0i64); 5];
            before[1] = shift.into();
            let after = before.iter().map(|b| b.times(-1)).collect();
            let pad = Prim::Pad { before, after, mode: PadMode::Constant };
            part = c.b.prim(pad, &[part, zero])?;
        }
        parts.push(part);
    }
    let v = c.b.concat(&parts, 2)?;
    Ok(c.b.reshape(v, d)?)
}

/// repeat_interleave by one number.
pub fn repeat_interleave(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    if let Some(times) = c.opt("RepeatsTensor") {
        return repeat_by_tensor(c, x, times);
    }
    let n = c.int("Repeats|repeats", 1);
    if n < 0 {
        return c.refuse(format!("{n} repeats"));
    }
    let dims = c.dims(x);
    let at = axis_of(c.int("dim|axis", 0), dims.len())?;
    let v = c.b.unsqueeze(x, at + 1)?;
    let mut wide = dims.clone();
    wide.insert(at + 1, n.into());
    let v = c.b.broadcast(v, wide)?;
    let mut joined = dims;
    joined[at] = joined[at].times(n);
    let v = c.b.reshape(v, joined)?;
    c.put("Out", v);
    Ok(())
}

/// As often as a vector says of each.
fn repeat_by_tensor(c: &mut Ctx<'_, '_>, x: Value, times: Value) -> Res {
    use super::lod;
    let at = axis_of(c.int("dim|axis", 0), c.rank(x))?;
    let times = c.b.cast(times, Dtype::I64)?;
    let offsets = lod::offsets_of(c, times)?;
    let rows = lod::total(c, times, "repeated")?;
    let (owner, _) = lod::of_offsets(c, offsets, rows)?.owners(c)?;
    let v = c.b.prim(Prim::Gather { axis: at as u32 }, &[x, owner])?;
    c.put("Out", v);
    Ok(())
}

/// sequence_mask: `i < length` for `i` up to the greatest length.
pub fn sequence_mask(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let most = match c.dims_or("MaxLenTensor", "maxlen", (-1, DIM_MAX))?.as_deref() {
        Some([d]) if !d.is(-1) => d.clone(),
        _ => {
            let all: Vec<usize> = (0..c.rank(x)).collect();
            let top = c.b.reduce(ReduceOp::Max, x, &all, false)?;
            let dims = c.b.dims_of(top, "maxlen", 0, DIM_MAX)?;
            dims.into_iter().next().unwrap_or(0i64.into())
        }
    };
    let dtype = c.b.g.dtype(x);
    let at = c.b.prim(Prim::Iota { dtype, shape: vec![most], axis: 0 }, &[])?;
    let rank = c.rank(x);
    let x = c.b.unsqueeze(x, rank)?;
    let v = c.b.bin(BinaryOp::Lt, at, x)?;
    let to = c.dtype("out_dtype")?.unwrap_or(Dtype::I64);
    let v = c.b.cast(v, to)?;
    c.put("Y", v);
    Ok(())
}

/// partial_concat, partial_sum: columns of each operand.
pub fn partial(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let (start, length) = (c.int("start_index", 0), c.int("length", -1));
    let mut parts = vec![];
    for x in xs.into_iter().take(MOST_SIZES) {
        let d = c.dims(x);
        let [_, width] = &d[..] else { return c.refuse("operands of rank other than 2") };
        let start = if start < 0 { width.plus(start) } else { start.into() };
        let len = if length < 0 { width.sub(&start) } else { length.into() };
        parts.push(c.b.narrow(x, 1, start, len)?);
    }
    let Some((&first, rest)) = parts.split_first() else { return c.refuse("no operand") };
    let v = if c.op.kind == "partial_concat" {
        c.b.concat(&parts, 1)?
    } else {
        let mut v = first;
        for &p in rest {
            v = c.b.add(v, p)?;
        }
        v
    };
    c.put("Out", v);
    Ok(())
}

/// maxout: the greatest of each group of neighbouring channels.
pub fn maxout(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let mut dims = c.dims(x);
    let groups = c.int("groups", 1);
    let at = axis_of(c.int("axis", 1), dims.len())?;
    if groups < 1 {
        return c.refuse(format!("{groups} groups"));
    }
    dims[at] = dims[at].div(&groups.into());
    dims.insert(at + 1, groups.into());
    let v = c.b.reshape(x, dims)?;
    let v = c.b.reduce(ReduceOp::Max, v, &[at + 1], false)?;
    c.put("Out", v);
    Ok(())
}

/// equal_all: are all elements equal?
pub fn equal_all(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let same = c.b.bin(BinaryOp::Eq, x, y)?;
    let axes: Vec<usize> = (0..c.rank(same)).collect();
    let v = c.b.reduce(ReduceOp::And, same, &axes, false)?;
    c.put("Out", v);
    Ok(())
}

/// decode_jpeg: a file's bytes as `[channels, height, width]`.
pub fn decode_jpeg(c: &mut Ctx<'_, '_>) -> Res {
    use hub_abi::prim::Pixel;
    let x = c.tensor("X|x")?;
    let pixel = match c.text("mode", "unchanged") {
        "gray" => Pixel::Grey,
        "rgb" => Pixel::Rgb,
        other => return c.refuse(format!("a picture decoded as '{other}'")),
    };
    let height = c.b.g.new_sym("height", 0, DIM_MAX);
    let width = c.b.g.new_sym("width", 0, DIM_MAX);
    let v = c.b.prim(Prim::DecodeImage { pixel, height, width }, &[x])?;
    let v = c.b.transpose(v, &[2, 0, 1])?;
    c.put("Out", v);
    Ok(())
}
