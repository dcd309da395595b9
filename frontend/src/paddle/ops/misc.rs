//! Assignments to slices, patches, shifts, einsum, sampling grids.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, MOST_SIZES, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, PadMode, Prim, ReduceOp, UnaryOp, Value};

/// set_value, set_value_with_tensor: x with a slice of it replaced.
pub fn set_value(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let dims = c.dims(x);
    let all = (-DIM_MAX, DIM_MAX);
    let starts = c.dims_or("StartsTensorList", "starts", all)?.unwrap_or_default();
    let ends = c.dims_or("EndsTensorList", "ends", all)?.unwrap_or_default();
    let steps = c.ints_or("StepsTensorList", "steps")?.unwrap_or_default();
    let axes = c.ints("axes").unwrap_or_default();
    let axes = axes.into_iter().map(|a| axis_of(a, dims.len())).collect::<Res<Vec<_>>>()?;
    if starts.len() != axes.len() || ends.len() != axes.len() || steps.iter().any(|&s| s != 1) {
        return c.refuse("a slice with steps, or whose axes and bounds differ in number");
    }
    if c.ints("none_axes").is_some_and(|l| !l.is_empty()) {
        return c.refuse("new axes in an assignment");
    }
    let mut ranges = vec![];
    for (i, &a) in axes.iter().enumerate() {
        ranges.push((a, super::shape::range(c, &dims[a], &starts[i], &ends[i])));
    }
    let mut region = dims.clone();
    for (a, (_, len)) in &ranges {
        region[*a] = len.clone();
    }
    let mut v = assigned_value(c, x, &region)?;
    // From the last axis on: between what lies before and after it, where the axes before it are
    // still sliced.
    while let Some((a, (start, len))) = ranges.pop() {
        let mut around = x;
        for (o, (s, l)) in &ranges {
            around = c.b.narrow(around, *o, s.clone(), l.clone())?;
        }
        let end = start.add(&len);
        let mut parts = vec![];
        if !start.is(0) {
            parts.push(c.b.narrow(around, a, 0i64.into(), start)?);
        }
        parts.push(v);
        if end != dims[a] {
            let rest = dims[a].sub(&end);
            parts.push(c.b.narrow(around, a, end, rest)?);
        }
        v = c.b.concat(&parts, a)?;
    }
    c.put("Out", v);
    Ok(())
}

/// What is assigned, broadcast to the region; dropped axes are put back.
fn assigned_value(c: &mut Ctx<'_, '_>, x: Value, region: &[Dim]) -> Res<Value> {
    let dtype = c.b.g.dtype(x);
    let mut v = match c.opt("ValueTensor") {
        Some(v) => v,
        None => {
            let names = "values|fp32_values|int32_values|int64_values|fp64_values|bool_values";
            let Some(list) = names.split('|').find_map(|n| c.floats(n).filter(|l| !l.is_empty()))
            else {
                return c.refuse("no value is given");
            };
            let data: Vec<u8> =
                list.iter().flat_map(|&x| hub_ir::build::scalar_bytes(dtype, x)).collect();
            let flat = c.b.constant(dtype, &[list.len() as i64], data.into());
            let shape = c.ints("shape").unwrap_or_default();
            c.b.reshape(flat, shape.into_iter().map(Dim::from).collect())?
        }
    };
    v = c.b.cast(v, dtype)?;
    let mut drop = c.ints("decrease_axes").unwrap_or_default();
    drop.sort_unstable();
    if c.rank(v) > 0 && c.rank(v) + drop.len() <= region.len() {
        // A dropped axis that lies before the value's own axes broadcasts anyway.
        for a in drop {
            let at = axis_of(a, region.len())?;
            let behind = region.len() - 1 - at;
            if behind < c.rank(v) {
                let place = c.rank(v) - behind;
                v = c.b.unsqueeze(v, place)?;
            }
        }
    }
    Ok(c.b.broadcast(v, region.to_vec())?)
}

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
            let tap =
                c.b.prim(Prim::Slice { start, len, step: vec![1, 1, stride[0], stride[1]] }, &[p])?;
            taps.push(c.b.unsqueeze(tap, 2)?);
        }
    }
    let v = c.b.concat(&taps, 2)?;
    let shape = vec![dims[0].clone(), dims[1].times(k[0] * k[1]), oh.mul(&ow)];
    let v = c.b.reshape(v, shape)?;
    c.put("Y", v);
    Ok(())
}

/// temporal_shift: some channels come from the frame before, some from the one after.
pub fn temporal_shift(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let t = c.int("seg_num", 1);
    let ratio = c.float("shift_ratio", 0.25);
    let d = c.dims(x);
    let (4, Some(ch), 1..) = (d.len(), d.get(1).and_then(Dim::as_const), t) else {
        return c.refuse("such a shape");
    };
    if c.text("data_format", "NCHW") != "NCHW" {
        return c.refuse("a layout other than NCHW");
    }
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
    let v = c.b.reshape(v, d)?;
    c.put("Out", v);
    Ok(())
}

/// repeat_interleave by one number.
pub fn repeat_interleave(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
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

/// einsum, without ellipses and repeated labels.
pub fn einsum(c: &mut Ctx<'_, '_>) -> Res {
    let equation: String = c.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l.to_string(), Some(r.to_string())),
        None => (equation, None),
    };
    let terms: Vec<Vec<u8>> = left.split(',').map(|t| t.bytes().collect()).collect();
    let once = |l: &u8| terms.iter().flatten().filter(|m| *m == l).count() == 1;
    let out: Vec<u8> = match right {
        Some(r) => r.bytes().collect(),
        None => {
            let mut free: Vec<u8> = terms.iter().flatten().copied().filter(once).collect();
            free.sort_unstable();
            free
        }
    };
    let plain = |t: &Vec<u8>| {
        t.iter().all(u8::is_ascii_alphabetic) && (1..t.len()).all(|i| !t[..i].contains(&t[i]))
    };
    let xs = c.all("Operands|X")?;
    if !terms.iter().all(plain) || !plain(&out) || xs.len() != terms.len() || xs.is_empty() {
        return c.refuse("an equation with ellipses or repeated labels");
    }
    let (mut v, mut labels) = (xs[0], terms[0].clone());
    for (i, (&x, term)) in xs.iter().zip(&terms).enumerate().skip(1) {
        let later = |l: &u8| out.contains(l) || terms[i + 1..].iter().flatten().any(|m| m == l);
        let mut keep: Vec<u8> = labels.iter().chain(term).copied().filter(later).collect();
        keep =
            (0..keep.len()).filter(|&i| !keep[..i].contains(&keep[i])).map(|i| keep[i]).collect();
        if i + 1 == xs.len() {
            keep.clone_from(&out);
        }
        let p = Prim::Contract { a: labels, b: term.clone(), out: keep.clone() };
        v = c.b.prim(p, &[v, x])?;
        labels = keep;
    }
    let gone: Vec<usize> = (0..labels.len()).filter(|&i| !out.contains(&labels[i])).collect();
    if c.rank(v) != labels.len() {
        return c.refuse("an equation that does not fit its operands");
    }
    v = c.b.reduce(ReduceOp::Sum, v, &gone, false)?;
    labels.retain(|l| out.contains(l));
    let perm = out.iter().map(|l| labels.iter().position(|m| m == l));
    let Some(perm) = perm.collect::<Option<Vec<_>>>() else {
        return c.refuse("an output label that no operand has");
    };
    let v = c.b.transpose(v, &perm)?;
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

/// `-1 … 1` over n points, in f32.
fn spread(c: &mut Ctx<'_, '_>, n: &Dim, corners: bool) -> Res<Value> {
    let i = c.b.prim(Prim::Iota { dtype: Dtype::F32, shape: vec![n.clone()], axis: 0 }, &[])?;
    // Corners: 2i/(n-1) - 1, else (2i + 1)/n - 1.
    let count = if corners { n.plus(-1).max_of(&1i64.into()) } else { n.clone() };
    let count = c.b.dim_scalar(count);
    let count = c.b.cast(count, Dtype::F32)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, i, 2.0)?;
    let v = if corners { v } else { c.b.bin_scalar(BinaryOp::Add, v, 1.0)? };
    let v = c.b.div(v, count)?;
    Ok(c.b.bin_scalar(BinaryOp::Sub, v, 1.0)?)
}

/// affine_grid in two dimensions: `[N, H, W, 2]`.
pub fn affine_grid(c: &mut Ctx<'_, '_>) -> Res {
    let theta = c.tensor("Theta")?;
    let size = c.dims_or("OutputShape", "output_shape", (0, DIM_MAX))?.unwrap_or_default();
    let [_, _, h, w] = &size[..] else { return c.refuse("other than two dimensions") };
    let corners = c.flag("align_corners", true);
    let plane = vec![h.clone(), w.clone()];
    let x = spread(c, w, corners)?;
    let x = c.b.broadcast(x, plane.clone())?;
    let y = spread(c, h, corners)?;
    let y = c.b.unsqueeze(y, 1)?;
    let y = c.b.broadcast(y, plane.clone())?;
    let one = c.b.scalar(Dtype::F32, 1.0);
    let one = c.b.broadcast(one, plane)?;
    let mut parts = vec![];
    for v in [x, y, one] {
        parts.push(c.b.unsqueeze(v, 2)?);
    }
    let base = c.b.concat(&parts, 2)?;
    let base = c.b.cast(base, c.b.g.dtype(theta))?;
    let p = Prim::Contract { a: vec![0, 1, 2], b: vec![3, 4, 2], out: vec![3, 0, 1, 4] };
    let v = c.b.prim(p, &[base, theta])?;
    c.put("Output", v);
    Ok(())
}

/// One coordinate of a grid in pixels of an axis of size n.
fn pixels(c: &mut Ctx<'_, '_>, grid: Value, which: i64, n: &Dim) -> Res<Value> {
    let g = c.b.narrow(grid, 3, which.into(), 1i64.into())?;
    let g = c.b.squeeze(g, 3)?;
    let g = c.b.bin_scalar(BinaryOp::Add, g, 1.0)?;
    let corners = c.flag("align_corners", true);
    let span = c.b.dim_scalar(if corners { n.plus(-1) } else { n.clone() });
    let span = c.b.cast(span, c.b.g.dtype(grid))?;
    let g = c.b.mul(g, span)?;
    let g = if corners { g } else { c.b.bin_scalar(BinaryOp::Sub, g, 1.0)? };
    let g = c.b.bin_scalar(BinaryOp::Mul, g, 0.5)?;
    match c.text("padding_mode", "zeros") {
        "zeros" => Ok(g),
        "border" => within(c, g, n),
        other => c.refuse(format!("sampling with {other} padding")),
    }
}

/// Clamped to `0..=n-1`.
fn within(c: &mut Ctx<'_, '_>, v: Value, n: &Dim) -> Res<Value> {
    let last = c.b.dim_scalar(n.plus(-1));
    let last = c.b.cast(last, c.b.g.dtype(v))?;
    let v = c.b.min(v, last)?;
    Ok(c.b.bin_scalar(BinaryOp::Max, v, 0.0)?)
}

/// grid_sampler in two dimensions: bilinear or nearest, zeros or the border outside.
pub fn grid_sample(c: &mut Ctx<'_, '_>) -> Res {
    let (x, grid) = (c.tensor("X")?, c.tensor("Grid")?);
    let (dx, dg) = (c.dims(x), c.dims(grid));
    let ([n, ch, h, w], [_, oh, ow, _]) = (&dx[..], &dg[..]) else {
        return c.refuse("other than two dimensions");
    };
    let (px, py) = (pixels(c, grid, 0, w)?, pixels(c, grid, 1, h)?);
    let plane = h.mul(w);
    let flat = c.b.reshape(x, vec![n.clone(), ch.clone(), plane])?;
    let flat = c.b.transpose(flat, &[0, 2, 1])?;
    let nearest = c.text("mode", "bilinear") == "nearest";
    let (x0, y0) = match nearest {
        true => (c.b.un(UnaryOp::Round, px)?, c.b.un(UnaryOp::Round, py)?),
        false => (c.b.un(UnaryOp::Floor, px)?, c.b.un(UnaryOp::Floor, py)?),
    };
    let (fx, fy) = (c.b.sub(px, x0)?, c.b.sub(py, y0)?);
    let mut sum: Option<Value> = None;
    let corners: &[(f64, f64)] =
        if nearest { &[(0., 0.)] } else { &[(0., 0.), (0., 1.), (1., 0.), (1., 1.)] };
    for &(dy, dx) in corners {
        let (xi, yi) =
            (c.b.bin_scalar(BinaryOp::Add, x0, dx)?, c.b.bin_scalar(BinaryOp::Add, y0, dy)?);
        let (xc, yc) = (within(c, xi, w)?, within(c, yi, h)?);
        let inside_x = c.b.bin(BinaryOp::Eq, xi, xc)?;
        let inside_y = c.b.bin(BinaryOp::Eq, yi, yc)?;
        let inside = c.b.bin(BinaryOp::And, inside_x, inside_y)?;
        let mut weight = c.b.cast(inside, c.b.g.dtype(x))?;
        if !nearest {
            for (f, d) in [(fx, dx), (fy, dy)] {
                let part = match d {
                    0.0 => {
                        let one = c.b.scalar(c.b.g.dtype(f), 1.0);
                        c.b.sub(one, f)?
                    }
                    _ => f,
                };
                weight = c.b.mul(weight, part)?;
            }
        }
        let (xc, yc) = (c.b.cast(xc, Dtype::I64)?, c.b.cast(yc, Dtype::I64)?);
        let width = c.b.dim_scalar(w.clone());
        let row = c.b.mul(yc, width)?;
        let at = c.b.add(row, xc)?;
        let at = c.b.reshape(at, vec![n.clone(), oh.mul(ow), 1i64.into()])?;
        let v = c.b.prim(Prim::GatherNd { batch: 1 }, &[flat, at])?;
        let weight = c.b.reshape(weight, vec![n.clone(), oh.mul(ow), 1i64.into()])?;
        let v = c.b.mul(v, weight)?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, v)?,
            None => v,
        });
    }
    let Some(v) = sum else { return c.refuse("no corners") };
    let v = c.b.transpose(v, &[0, 2, 1])?;
    let v = c.b.reshape(v, vec![n.clone(), ch.clone(), oh.clone(), ow.clone()])?;
    c.put("Output", v);
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
