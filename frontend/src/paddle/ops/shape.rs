//! Operators that move elements or ask for sizes.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, MOST_SIZES, Res, axis_of};
use hub_ir::{Dim, Dtype, PadMode, Prim};

/// Bounds of a size in a tensor that may also say −1.
const SIZE: (i64, i64) = (-1, DIM_MAX);

/// Past any tensor, and far from where integers overflow.
const FAR: i64 = 1 << 40;

/// reshape: 0 copies a dim, −1 is what is left.
pub fn reshape(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let slots = "ShapeTensor|Shape";
    let Some(asked) = c.dims_or(slots, "shape", SIZE)? else {
        return c.refuse("no shape is given");
    };
    let dims = c.dims(x);
    let mut shape = vec![];
    let mut left = None;
    for (i, d) in asked.into_iter().enumerate() {
        match d.as_const() {
            Some(0) if i < dims.len() => shape.push(dims[i].clone()),
            Some(-1) if left.is_none() => {
                left = Some(i);
                shape.push(1i64.into());
            }
            Some(-1) => return Err(crate::FrontendError::invalid("a new shape with two -1 in it")),
            Some(k) if k < 0 => {
                return Err(crate::FrontendError::invalid(format!("a new shape with {k} in it")));
            }
            _ => shape.push(d),
        }
    }
    if let Some(i) = left {
        let known = Dim::product(&shape);
        if known.is(0) {
            return c.refuse("the size of an axis of an empty tensor is asked for");
        }
        shape[i] = Dim::product(&dims).div(&known);
    }
    let v = c.b.reshape(x, shape)?;
    c.put("Out", v);
    Ok(())
}

/// flatten2: two axes.
pub fn flatten2(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let at = usize::try_from(c.int("axis", 1)).unwrap_or(usize::MAX).min(dims.len());
    let shape = vec![Dim::product(&dims[..at]), Dim::product(&dims[at..])];
    let v = c.b.reshape(x, shape)?;
    c.put("Out", v);
    Ok(())
}

/// flatten_contiguous_range: axes start..=stop become one.
pub fn flatten(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    if dims.is_empty() {
        let v = c.b.reshape(x, vec![1i64.into()])?;
        c.put("Out", v);
        return Ok(());
    }
    let from = axis_of(c.int("start_axis", 1), dims.len())?;
    let to = axis_of(c.int("stop_axis", 1), dims.len())?;
    if from > to {
        return c.refuse("start_axis lies behind stop_axis");
    }
    let one = Dim::product(&dims[from..=to]);
    let shape = [&dims[..from], &[one], &dims[to + 1..]].concat();
    let v = c.b.reshape(x, shape)?;
    c.put("Out", v);
    Ok(())
}

/// transpose.
pub fn transpose(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let rank = c.rank(x);
    let perm = c.ints("axis|perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
    let perm = perm.into_iter().map(|a| axis_of(a, rank)).collect::<Res<Vec<_>>>()?;
    let v = c.b.transpose(x, &perm)?;
    c.put("Out", v);
    Ok(())
}

/// squeeze: the given axes where their size is 1, else all of size 1.
pub fn squeeze(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let axes = c.ints_or("AxesTensor|AxesTensorList|Axes", "axes")?.unwrap_or_default();
    let axes = axes.into_iter().map(|a| axis_of(a, dims.len())).collect::<Res<Vec<_>>>()?;
    // An unknown size that is squeezed by name is taken to be 1.
    let gone = |i: usize, d: &Dim| match axes.is_empty() {
        true => d.is(1),
        false => axes.contains(&i) && d.as_const().is_none_or(|k| k == 1),
    };
    let kept = dims.iter().enumerate().filter(|(i, d)| !gone(*i, d)).map(|(_, d)| d.clone());
    let v = c.b.reshape(x, kept.collect())?;
    c.put("Out", v);
    Ok(())
}

/// unsqueeze.
pub fn unsqueeze(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let mut dims = c.dims(x);
    let axes = c.ints_or("AxesTensor|AxesTensorList|Axes", "axes")?.unwrap_or_default();
    for a in axes {
        let at = axis_of(a, dims.len() + 1)?;
        dims.insert(at, 1i64.into());
    }
    let v = c.b.reshape(x, dims)?;
    c.put("Out", v);
    Ok(())
}

/// concat.
pub fn concat(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let Some(&first) = xs.first() else { return c.refuse("a concatenation of nothing") };
    let axis = c.int_or("AxisTensor|Axis", "axis", 0)?;
    let at = axis_of(axis, c.rank(first))?;
    let v = c.b.concat(&xs, at)?;
    c.put("Out", v);
    Ok(())
}

/// stack.
pub fn stack(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let Some(&first) = xs.first() else { return c.refuse("a stack of nothing") };
    let at = axis_of(c.int("axis", 0), c.rank(first) + 1)?;
    let mut rows = vec![];
    for x in xs {
        rows.push(c.b.unsqueeze(x, at)?);
    }
    let v = c.b.concat(&rows, at)?;
    c.put("Y", v);
    Ok(())
}

/// split by number or by sizes, one of which may be −1.
pub fn split(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let axis = c.int_or("AxisTensor|Axis", "axis", 0)?;
    let at = axis_of(axis, c.rank(x))?;
    let size = c.dim(x, at)?;
    let sections = c.dims_or("SectionsTensorList|Sections", "sections", SIZE)?.unwrap_or_default();
    let sizes = if sections.is_empty() {
        let n = match c.int("num", 0) {
            0 => c.declared_count("Out") as i64,
            n => n,
        };
        if !(1..=MOST_SIZES as i64).contains(&n) {
            return c.refuse(format!("{n} parts"));
        }
        vec![size.div(&n.into()); n as usize]
    } else {
        let known = sections.iter().filter(|s| !s.is(-1)).fold(Dim::from(0i64), |a, s| a.add(s));
        let left = size.sub(&known);
        sections.into_iter().map(|s| if s.is(-1) { left.clone() } else { s }).collect()
    };
    let mut start = Dim::from(0i64);
    let mut parts = vec![];
    for s in sizes {
        parts.push(c.b.narrow(x, at, start.clone(), s.clone())?);
        start = start.add(&s);
    }
    c.put_all("Out", parts);
    Ok(())
}

/// unbind, unstack: slices along an axis of known size, without it.
pub fn unbind(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|Input")?;
    let at = axis_of(c.int("axis", 0), c.rank(x))?;
    let n = c.dim(x, at)?.as_const().unwrap_or(c.declared_count("Out|Y") as i64);
    if !(0..=MOST_SIZES as i64).contains(&n) {
        return c.refuse(format!("{n} parts"));
    }
    let mut parts = vec![];
    for i in 0..n {
        let part = c.b.narrow(x, at, i.into(), 1i64.into())?;
        parts.push(c.b.squeeze(part, at)?);
    }
    c.put_all("Out|Y", parts);
    Ok(())
}

/// First element and count of `from..to` on an axis of a size, as Python slices.
pub fn range(c: &Ctx<'_, '_>, size: &Dim, from: &Dim, to: &Dim) -> (Dim, Dim) {
    let zero = Dim::from(0i64);
    let clamp = |d: &Dim| {
        let at = match d.as_const() {
            Some(k) if k < 0 => size.plus(k).max_of(&zero),
            // Ends of 2^31-1 and more mean the end.
            Some(k) if k >= DIM_MAX => return size.clone(),
            _ => d.clone(),
        };
        let (least, _) = size.bounds(&c.b.g.syms);
        match at.as_const() {
            Some(k) if k <= least => at,
            _ if size.sub(&at).bounds(&c.b.g.syms).0 >= 0 => at,
            _ => at.min_of(size),
        }
    };
    let (start, end) = (clamp(from), clamp(to));
    let len = end.distance_from(&start);
    let len = if len.bounds(&c.b.g.syms).0 >= 0 { len } else { len.max_of(&zero) };
    (start, len)
}

/// slice.
pub fn slice(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let dims = c.dims(x);
    let all = (-DIM_MAX, DIM_MAX);
    let starts = c.dims_or("StartsTensor|StartsTensorList", "starts", all)?.unwrap_or_default();
    let ends = c.dims_or("EndsTensor|EndsTensorList", "ends", all)?.unwrap_or_default();
    let axes = c.ints("axes").unwrap_or_default();
    if axes.len() != starts.len() || axes.len() != ends.len() {
        return c.refuse("axes, starts and ends differ in number");
    }
    let drop = c.ints("decrease_axis").unwrap_or_default();
    let drop = drop.into_iter().map(|a| axis_of(a, dims.len())).collect::<Res<Vec<_>>>()?;
    let mut v = x;
    for ((&a, s), e) in axes.iter().zip(&starts).zip(&ends) {
        let at = axis_of(a, dims.len())?;
        let (start, len) = range(c, &dims[at], s, e);
        if drop.contains(&at) {
            // One element, which must be there.
            let start = if s.as_const().is_some_and(|k| k >= 0) { s.clone() } else { start };
            v = c.b.narrow(v, at, start, 1i64.into())?;
        } else if len != dims[at] || !start.is(0) {
            v = c.b.narrow(v, at, start, len)?;
        }
    }
    let kept = (0..dims.len()).filter(|i| !drop.contains(i));
    let shape = kept.map(|i| c.dim(v, i)).collect::<Res<_>>()?;
    let v = c.b.reshape(v, shape)?;
    c.put("Out", v);
    Ok(())
}

/// First element and count of a slice with a step.
pub fn strided(c: &Ctx<'_, '_>, size: &Dim, from: &Dim, to: &Dim, step: i64) -> Res<(Dim, Dim)> {
    if step > 0 {
        let (start, n) = range(c, size, from, to);
        return Ok((start, n.div_ceil(&step.into())));
    }
    let known = (size.as_const(), from.as_const(), to.as_const());
    let ((Some(d @ 0..=FAR), Some(s), Some(e)), true) = (known, step < 0) else {
        return c.refuse("a backward slice of unknown sizes");
    };
    let k = step.max(-FAR);
    let (s, e) = (s.clamp(-FAR, FAR), e.clamp(-FAR, FAR));
    let s = if s < 0 { s + d } else { s }.clamp(-1, d - 1);
    let e = if e < 0 && e >= -d { e + d } else { e }.clamp(-1, d - 1);
    let n = ((s - e).max(0) + (-k) - 1) / -k;
    Ok((s.max(0).into(), n.into()))
}

/// strided_slice.
pub fn strided_slice(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let dims = c.dims(x);
    let all = (-DIM_MAX, DIM_MAX);
    let starts = c.dims_or("StartsTensor|StartsTensorList", "starts", all)?.unwrap_or_default();
    let ends = c.dims_or("EndsTensor|EndsTensorList", "ends", all)?.unwrap_or_default();
    let steps = c.ints_or("StridesTensor|StridesTensorList", "strides")?.unwrap_or_default();
    let axes = c.ints("axes").unwrap_or_default();
    if [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] {
        return c.refuse("axes, starts, ends and strides differ in number");
    }
    let (mut start, mut len) = (vec![Dim::from(0i64); dims.len()], dims.clone());
    let mut step = vec![1; dims.len()];
    for (i, &a) in axes.iter().enumerate() {
        let at = axis_of(a, dims.len())?;
        let k = steps[i];
        (start[at], len[at]) = strided(c, &dims[at], &starts[i], &ends[i], k)?;
        step[at] = k;
    }
    let v = c.b.prim(Prim::Slice { start, len, step }, &[x])?;
    let drop = c.ints("decrease_axis").unwrap_or_default();
    let drop = drop.into_iter().map(|a| axis_of(a, dims.len())).collect::<Res<Vec<_>>>()?;
    let kept = (0..dims.len()).filter(|i| !drop.contains(i));
    let shape = kept.map(|i| c.dim(v, i)).collect::<Res<_>>()?;
    let v = c.b.reshape(v, shape)?;
    c.put("Out", v);
    Ok(())
}

/// shape (int32), shape64.
pub fn shape(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|input")?;
    let dims = c.dims(x);
    let v = c.b.dims_vector(dims);
    let to = c.declared_dtype("Out").filter(|d| d.is_int());
    let to = if c.op.kind == "shape64" { Dtype::I64 } else { to.unwrap_or(Dtype::I32) };
    let v = c.b.cast(v, to)?;
    c.put("Out|out", v);
    Ok(())
}

/// size, numel: number of elements, int64.
pub fn size(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let n = c.b.g.tensor(x).count();
    let v = c.b.dim_scalar(n);
    c.put("Out", v);
    Ok(())
}

/// expand_v2 (−1 keeps a dim), expand_as.
pub fn expand(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let like = c.op.kind.starts_with("expand_as").then(|| c.opt("Y")).flatten();
    let shape = match like {
        Some(y) => Some(c.dims(y)),
        None => c.dims_or("expand_shapes_tensor|Shape", "shape|target_shape", SIZE)?,
    };
    let Some(mut shape) = shape else { return c.refuse("no shape is given") };
    let Some(lead) = shape.len().checked_sub(dims.len()) else {
        return c.refuse("the new shape has fewer axes");
    };
    for (i, d) in dims.iter().enumerate() {
        if shape[lead + i].is(-1) {
            shape[lead + i] = d.clone();
        }
    }
    let v = c.b.broadcast(x, shape)?;
    c.put("Out", v);
    Ok(())
}

/// tile, and the first expand: repeats along each axis.
pub fn tile(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let slots = "RepeatTimes|repeat_times_tensor|ExpandTimes|expand_times_tensor";
    let times = c.dims_or(slots, "repeat_times|expand_times", (0, DIM_MAX))?;
    let Some(mut times) = times else { return c.refuse("no repeats are given") };
    let mut dims = c.dims(x);
    while dims.len() < times.len() {
        dims.insert(0, 1i64.into());
    }
    while times.len() < dims.len() {
        times.insert(0, 1i64.into());
    }
    // [a, b] -> [1, a, 1, b] -> [m, a, n, b] -> [m*a, n*b]
    let apart = dims.iter().flat_map(|d| [1i64.into(), d.clone()]).collect();
    let wide = times.iter().zip(&dims).flat_map(|(t, d)| [t.clone(), d.clone()]).collect();
    let joined = times.iter().zip(&dims).map(|(t, d)| t.mul(d)).collect();
    let v = c.b.reshape(x, apart)?;
    let v = c.b.broadcast(v, wide)?;
    let v = c.b.reshape(v, joined)?;
    c.put("Out", v);
    Ok(())
}

/// pad (all axes), pad2d and pad3d (spatial axes).
pub fn pad(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let rank = c.rank(x);
    let pads = c.dims_or("Paddings", "paddings", (-DIM_MAX, DIM_MAX))?.unwrap_or_default();
    let mode = match c.text("mode", "constant") {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "replicate" | "edge" => PadMode::Edge,
        "circular" => PadMode::Wrap,
        other => return c.refuse(format!("padding by {other}")),
    };
    let zero = Dim::from(0i64);
    let (mut before, mut after) = (vec![zero.clone(); rank], vec![zero; rank]);
    let first = usize::from(c.text("data_format", "NCHW").starts_with("NC")) + 1;
    // Which axis each pair of numbers is for.
    let axes: Vec<usize> = match c.op.kind.as_str() {
        "pad" => (0..rank).collect(),
        // top, bottom, left, right.
        "pad2d" => (first..first + 2).collect(),
        // left, right, top, bottom, front, back.
        _ => (first..first + rank.saturating_sub(2)).rev().collect(),
    };
    if pads.len() != 2 * axes.len() || axes.iter().any(|&a| a >= rank) {
        return c.refuse(format!("{} paddings for rank {rank}", pads.len()));
    }
    for (i, &a) in axes.iter().enumerate() {
        (before[a], after[a]) = (pads[2 * i].clone(), pads[2 * i + 1].clone());
    }
    let value = c.float_or("PadValue", "pad_value|value", 0.0)?;
    let value = c.b.scalar(c.b.g.dtype(x), value);
    let v = c.b.prim(Prim::Pad { before, after, mode }, &[x, value])?;
    c.put("Out", v);
    Ok(())
}

/// expand_as of the first version: as often along each axis as the target is longer.
pub fn expand_as_first(c: &mut Ctx<'_, '_>) -> Res {
    let (x, like) = (c.tensor("X")?, c.tensor("target_tensor|Y")?);
    let (d, to) = (c.dims(x), c.dims(like));
    if d.len() != to.len() {
        return c.refuse("a target of another rank");
    }
    // Each axis as (times, own), so that copies follow each other whole.
    let mut v = x;
    for (at, (own, all)) in d.iter().zip(&to).enumerate() {
        if own == all {
            continue;
        }
        let times = all.div(own);
        let mut wide = c.dims(v);
        v = c.b.unsqueeze(v, at)?;
        wide.insert(at, times.clone());
        v = c.b.broadcast(v, wide.clone())?;
        let joined = times.mul(&wide[at + 1]);
        wide.splice(at..=at + 1, [joined]);
        v = c.b.reshape(v, wide)?;
    }
    let v = c.b.reshape(v, to)?;
    c.put("Out", v);
    Ok(())
}
