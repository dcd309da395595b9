//! Shapes: reading them, and operators that move elements without looking at values.

use super::dynamic;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, PadMode, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("Shape", 1, shape),
    op("Size", 1, |c| {
        let x = c.tensor(0)?;
        let n = Dim::product(&c.dims(x));
        one(c.b.dim_scalar(n))
    }),
    op("Reshape", 1, reshape),
    op("Flatten", 1, flatten),
    op("Squeeze", 1, squeeze),
    op("Unsqueeze", 1, unsqueeze),
    op("Transpose", 1, transpose),
    op("Expand", 8, expand),
    op("Tile", 1, tile_one),
    op("Tile", 6, tile),
    op("Concat", 1, concat),
    op("Split", 1, split),
    op("Slice", 1, slice),
    op("Pad", 1, pad),
    op("DepthToSpace", 1, depth_to_space),
    op("SpaceToDepth", 1, space_to_depth),
    op("CenterCropPad", 18, center_crop_pad),
];

fn shape(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let n = dims.len() as i64;
    let end = |k: i64| (if k < 0 { k.saturating_add(n) } else { k }).clamp(0, n) as usize;
    let (from, to) = (end(c.int("start", 0)?), end(c.int("end", n)?));
    let part = if from < to { dims[from..to].to_vec() } else { vec![] };
    one(c.b.dims_vector(part))
}

fn reshape(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (dims, zero_is_zero) = (c.dims(x), c.flag("allowzero", false)?);
    let want = match c.opt(1) {
        None => c.ints("shape")?.map(|s| s.into_iter().map(Dim::from).collect()),
        Some(v) => match (c.known_ints(v), c.b.g.content.get(&v)) {
            (Some(ints), _) => Some(ints.into_iter().map(Dim::from).collect()),
            (_, Some(known)) => Some(known.clone()),
            _ => {
                let target = resolved(c, v, &dims, zero_is_zero)?;
                let want = c.sizes(target, "shape")?;
                return one(c.reshape(x, want)?);
            }
        },
    };
    let Some(mut want): Option<Vec<Dim>> = want else { return invalid("no shape is given") };
    let mut unknown = None;
    for (i, d) in want.iter_mut().enumerate() {
        match d.as_const() {
            Some(-1) if unknown.is_some() => return invalid("the shape has two -1"),
            Some(-1) => unknown = Some(i),
            Some(0) if !zero_is_zero => match dims.get(i) {
                Some(same) => *d = same.clone(),
                None => {
                    return invalid(format!("0 at axis {i} of a shape for rank {}", dims.len()));
                }
            },
            Some(k) if k < 0 => return invalid(format!("the shape has {k}")),
            _ => {}
        }
    }
    if let Some(i) = unknown {
        want[i] = 1i64.into();
        let (total, rest) = (Dim::product(&dims), Dim::product(&want));
        want[i] = match (total.as_const(), rest.as_const()) {
            (Some(0), Some(0)) => 0i64.into(),
            (Some(t), Some(r)) if r == 0 || t % r != 0 => {
                return invalid(format!("{t} elements do not fill a shape of {r}"));
            }
            _ => total.div(&rest),
        };
    }
    one(c.reshape(x, want)?)
}

/// A shape operand known only when the model runs, its 0 and -1 replaced.
fn resolved(c: &mut Cx<'_, '_, '_>, shape: Value, dims: &[Dim], zero_is_zero: bool) -> Got {
    let n = match c.dims(shape)[..] {
        [ref n] => n.as_const(),
        _ => None,
    };
    let Some(n) = n.filter(|n| (0..=64).contains(n)) else {
        return unsupported("the rank of the result is known only when the model runs");
    };
    let mut s = c.cast(shape, Dtype::I64)?;
    if !zero_is_zero {
        let mut same: Vec<Dim> = dims.to_vec();
        same.resize(n as usize, 1i64.into());
        let same = c.b.dims_vector(same);
        let zero = c.bin_scalar(BinaryOp::Eq, s, 0.0)?;
        s = c.b.select(zero, same, s)?;
    }
    let unknown = c.bin_scalar(BinaryOp::Lt, s, 0.0)?;
    let ones = c.scalar(Dtype::I64, 1.0);
    let others = c.b.select(unknown, ones, s)?;
    let rest = c.reduce(ReduceOp::Prod, others, &[0], false)?;
    let rest = c.bin_scalar(BinaryOp::Max, rest, 1.0)?;
    let total = c.b.dim_scalar(Dim::product(dims));
    let fill = c.bin(BinaryOp::Div, total, rest)?;
    Ok(c.b.select(unknown, fill, s)?)
}

fn flatten(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let axis = c.int("axis", 1)?;
    let n = dims.len() as i64;
    let at = if axis < 0 { axis + n } else { axis };
    if !(0..=n).contains(&at) {
        return invalid(format!("axis {axis} for rank {n}"));
    }
    let (a, b) = dims.split_at(at as usize);
    one(c.reshape(x, vec![Dim::product(a), Dim::product(b)])?)
}

fn squeeze(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    if let Some(v) = c.opt(1).filter(|&v| c.known_ints(v).is_none()) {
        let shape = dynamic::squeezed(c, x, v)?;
        return one(c.reshape(x, shape)?);
    }
    let axes = match c.ints_or_input("axes", 1)? {
        Some(axes) => c.axes(&axes, dims.len())?,
        None => {
            for d in dims.iter().filter(|d| d.as_const().is_none()) {
                stays(c, d)?;
            }
            (0..dims.len()).filter(|&i| dims[i].is(1)).collect()
        }
    };
    if let Some(&a) = axes.iter().find(|&&a| dims[a].as_const().is_some_and(|d| d != 1)) {
        return invalid(format!("axis {a} of size {:?} cannot be squeezed", dims[a]));
    }
    let kept = dims.into_iter().enumerate().filter(|(i, _)| !axes.contains(i));
    one(c.reshape(x, kept.map(|(_, d)| d).collect())?)
}

/// A size that is not known is taken not to be 1, which is checked when the model runs: a rank must
/// be known.
fn stays(c: &mut Cx<'_, '_, '_>, d: &Dim) -> Got<()> {
    let one = c.b.dim_scalar(d.clone());
    let one = c.bin_scalar(BinaryOp::Eq, one, 1.0)?;
    let one = c.cast(one, Dtype::I64)?;
    let name = format!("whether {}'s axis of unknown size is squeezed", c.b.name);
    let zero = c.b.g.new_sym(&name, 0, 0);
    c.b.prim_n(Prim::BindSyms { syms: vec![zero] }, &[one])?;
    Ok(())
}

fn unsqueeze(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let mut dims = c.dims(x);
    if let Some(v) = c.opt(1).filter(|&v| c.known_ints(v).is_none()) {
        let shape = dynamic::unsqueezed(c, x, v)?;
        return one(c.reshape(x, shape)?);
    }
    let Some(axes) = c.ints_or_input("axes", 1)? else { return invalid("no axes are given") };
    let axes = c.axes(&axes, dims.len() + axes.len())?;
    for a in axes {
        dims.insert(a, 1i64.into());
    }
    one(c.reshape(x, dims)?)
}

fn transpose(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let n = c.rank(x);
    let perm = match c.ints("perm")? {
        None => (0..n).rev().collect(),
        Some(p) if p.len() == n && p.iter().all(|&a| a >= 0) => {
            p.iter().map(|&a| c.axis(a, n)).collect::<Got<Vec<_>>>()?
        }
        Some(p) => return invalid(format!("perm {p:?} for rank {n}")),
    };
    one(c.b.transpose(x, &perm)?)
}

fn expand(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, shape) = (c.tensor(0)?, c.tensor(1)?);
    let want = c.sizes(shape, "shape")?;
    let x = c.b.leveled(x, &want)?;
    let dims = c.dims(x);
    let n = dims.len().max(want.len());
    let at = |v: &[Dim], i: usize| (i + v.len()).checked_sub(n).map(|j| v[j].clone());
    let full = (0..n).map(|i| match (at(&dims, i), at(&want, i)) {
        (Some(d), Some(w)) if d.is(1) => w,
        (Some(d), _) => d,
        (None, Some(w)) => w,
        (None, None) => unreachable!("n is the longer of the two ranks"),
    });
    let full: Vec<Dim> = full.collect();
    // Where the operand is not 1 the shape says 1 or the same.
    for (f, w) in full.iter().rev().zip(want.iter().rev()) {
        if let (Some(f), Some(w)) = (f.as_const(), w.as_const())
            && f != w
            && w != 1
        {
            return invalid(format!("{dims:?} does not expand to {want:?}"));
        }
    }
    one(c.b.broadcast(x, full)?)
}

/// Version 1: one axis, a number of times.
fn tile_one(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, times, axis) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let Some([axis]) = c.known_ints(axis).as_deref().map(<[i64; 1]>::try_from).and_then(Result::ok)
    else {
        return unsupported("an axis computed when the model runs");
    };
    let axis = c.axis(axis, c.rank(x))?;
    let times = c.cast(times, Dtype::I64)?;
    let Some(n) = c.sizes(times, "tiles")?.pop() else { return invalid("tiles is empty") };
    let mut shape = c.dims(x);
    let wide = c.b.unsqueeze(x, axis)?;
    let mut repeated = shape.clone();
    repeated.insert(axis, n.clone());
    let y = c.b.broadcast(wide, repeated)?;
    shape[axis] = shape[axis].mul(&n);
    one(c.reshape(y, shape)?)
}

fn tile(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, repeats) = (c.tensor(0)?, c.tensor(1)?);
    let repeats = c.sizes(repeats, "repeats")?;
    let dims = c.dims(x);
    if repeats.len() != dims.len() {
        return invalid(format!("{} repeats for rank {}", repeats.len(), dims.len()));
    }
    if repeats.iter().all(|r| r.is(1)) {
        return one(x);
    }
    let (mut thin, mut wide) = (vec![], vec![]);
    for (d, r) in dims.iter().zip(&repeats) {
        if !r.is(1) {
            thin.push(1i64.into());
            wide.push(r.clone());
        }
        thin.push(d.clone());
        wide.push(d.clone());
    }
    let t = c.reshape(x, thin)?;
    let t = c.b.broadcast(t, wide)?;
    one(c.reshape(t, dims.iter().zip(&repeats).map(|(d, r)| d.mul(r)).collect())?)
}

fn concat(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let xs = (0..c.ins.len()).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    let Some(&x) = xs.first() else { return invalid("nothing to join") };
    let default = if c.version < 4 { 1 } else { 0 };
    let axis = c.axis(c.int("axis", default)?, c.rank(x))?;
    one(c.b.concat(&xs, axis)?)
}

fn split(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", 0)?, c.rank(x))?;
    let size = c.dim(x, axis)?;
    let n = c.node.output.len();
    let lens: Vec<Dim> = match c.opt(1) {
        Some(v) => c.sizes(v, "split")?,
        None => match c.ints("split")? {
            Some(s) => s.into_iter().map(Dim::from).collect(),
            None => {
                let parts = c.int("num_outputs", n as i64)?;
                if parts != n as i64 || n == 0 {
                    return invalid(format!("{parts} parts for {n} outputs"));
                }
                // The last may be smaller.
                let each = size.div_ceil(&parts.into());
                let mut lens = vec![each.clone(); n];
                lens[n - 1] = size.sub(&each.times(parts - 1));
                lens
            }
        },
    };
    if lens.len() != n {
        return invalid(format!("{} parts for {n} outputs", lens.len()));
    }
    let sum = lens.iter().fold(Dim::from(0i64), |a, d| a.add(d));
    c.b.g.constraints.equal(&sum, &size)?;
    let mut start = Dim::from(0i64);
    let mut outs = vec![];
    for len in lens {
        outs.push(c.b.narrow(x, axis, start.clone(), len.clone())?);
        start = start.add(&len);
    }
    Ok(outs)
}

/// Indices past the ends: `start + dim` for a negative one, then clamped to `lo..=hi`.
fn clamped(c: &Cx<'_, '_, '_>, at: &Dim, dim: &Dim, lo: &Dim, hi: &Dim) -> Dim {
    let syms = &c.b.g.syms;
    let (least, most) = at.bounds(syms);
    let from_start = if least >= 0 {
        at.clone()
    } else if most < 0 {
        at.add(dim)
    } else {
        // `min(max(at, -1), 0)` is -1 for a negative index, else 0.
        let negative = at.max_of(&(-1i64).into()).min_of(&0i64.into());
        at.sub(&dim.mul(&negative))
    };
    let (least, most) = from_start.bounds(syms);
    let above = if least >= lo.bounds(syms).1 { from_start } else { from_start.max_of(lo) };
    let under = hi.sub(&above).bounds(syms).0 >= 0 || most <= hi.bounds(syms).0;
    if under {
        above
    } else if least >= hi.bounds(syms).1 {
        hi.clone()
    } else {
        above.min_of(hi)
    }
}

fn slice(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let rank = dims.len();
    if [3, 4].iter().any(|&i| c.opt(i).is_some_and(|v| c.known_ints(v).is_none())) {
        return one(dynamic::slice(c, x)?);
    }
    let (min, max) = (-(1i64 << 62), 1i64 << 62);
    let (starts, ends, axes, steps) = if c.opt(1).is_some() {
        let (s, e) = (c.tensor(1)?, c.tensor(2)?);
        let starts = c.sizes_in(s, "starts", min, max)?;
        let ends = c.sizes_in(e, "ends", min, max)?;
        (starts, ends, c.ints_or_input("axes", 3)?, c.ints_or_input("steps", 4)?)
    } else {
        let list = |v: Option<Vec<i64>>| v.unwrap_or_default().into_iter().map(Dim::from).collect();
        let (s, e): (Vec<Dim>, Vec<Dim>) = (list(c.ints("starts")?), list(c.ints("ends")?));
        (s, e, c.ints("axes")?, None)
    };
    let n = starts.len();
    let axes = match axes {
        Some(a) => a.iter().map(|&a| c.axis(a, rank)).collect::<Got<Vec<_>>>()?,
        None => (0..n).collect(),
    };
    let steps = steps.unwrap_or_else(|| vec![1; n]);
    if ends.len() != n || axes.len() != n || steps.len() != n || n > rank {
        return invalid("starts, ends, axes and steps differ in length");
    }
    let (mut start, mut len, mut step) = (vec![Dim::from(0i64); rank], dims.clone(), vec![1; rank]);
    for i in 0..n {
        let (a, s) = (axes[i], steps[i]);
        let dim =
            dims.get(a).ok_or_else(|| crate::FrontendError::invalid("an axis past the rank"))?;
        let (zero, last) = (Dim::from(0i64), dim.plus(-1));
        let count = if s > 0 {
            start[a] = clamped(c, &starts[i], dim, &zero, dim);
            let end = clamped(c, &ends[i], dim, &zero, dim);
            end.distance_from(&start[a]).div_ceil(&s.into())
        } else if s < 0 {
            let floor = Dim::from(-1i64);
            start[a] = clamped(c, &starts[i], dim, &zero, &last);
            let end = match ends[i].as_const() {
                // Past the first element.
                Some(e) if dim.bounds(&c.b.g.syms).1 < e.saturating_neg() => floor.clone(),
                _ => clamped(c, &ends[i], dim, &floor, &last),
            };
            start[a].distance_from(&end).div_ceil(&s.saturating_neg().into())
        } else {
            return invalid("a step is 0");
        };
        let sure = count.bounds(&c.b.g.syms).0 >= 0;
        len[a] = if sure { count } else { count.max_of(&zero) };
        step[a] = s;
    }
    if start.iter().all(|s| s.is(0)) && len == dims && step.iter().all(|&s| s == 1) {
        return one(x);
    }
    one(c.prim(Prim::Slice { start, len, step }, &[x])?)
}

pub(super) fn pad(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (rank, dtype) = (c.rank(x), c.dtype(x));
    let pads = match c.opt(1) {
        Some(v) => c.sizes_in(v, "pads", -crate::options::DIM_MAX, crate::options::DIM_MAX)?,
        None => {
            let name = if c.version < 2 { "paddings" } else { "pads" };
            c.ints(name)?.unwrap_or_default().into_iter().map(Dim::from).collect()
        }
    };
    let computed = c.opt(3).filter(|&v| c.known_ints(v).is_none());
    let (pads, axes) = match computed {
        Some(axes) => (dynamic::spread_pads(c, axes, rank)?, (0..rank).collect()),
        None => match c.ints_or_input("axes", 3)? {
            Some(a) => (pads, a.iter().map(|&a| c.axis(a, rank)).collect::<Got<Vec<_>>>()?),
            None => (pads, (0..rank).collect()),
        },
    };
    if pads.len() != 2 * axes.len() {
        return invalid(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![Dim::from(0i64); rank], vec![Dim::from(0i64); rank]);
    for (i, &a) in axes.iter().enumerate() {
        before[a] = pads[i].clone();
        after[a] = pads[axes.len() + i].clone();
    }
    let mode = match &*c.string("mode", "constant")? {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        m => return invalid(format!("mode '{m}'")),
    };
    let value = match c.opt(2) {
        Some(v) if mode == PadMode::Constant => c.reshape(v, vec![])?,
        _ => {
            let value = c.float("value", 0.0)?;
            c.scalar(dtype, value.into())
        }
    };
    one(c.prim(Prim::Pad { before, after, mode }, &[x, value])?)
}

/// x as [N, C, H, W], and the block size.
fn blocks(c: &mut Cx<'_, '_, '_>) -> Got<(Value, Vec<Dim>, i64)> {
    let x = c.tensor(0)?;
    let (dims, size) = (c.dims(x), c.int("blocksize", 0)?);
    if dims.len() != 4 || !(1..=1 << 16).contains(&size) {
        return invalid(format!("blocks of {size} for rank {}", dims.len()));
    }
    Ok((x, dims, size))
}

fn depth_to_space(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, d, s) = blocks(c)?;
    let depth = d[1].div(&(s * s).into());
    let (k, n, h, w) = (Dim::from(s), d[0].clone(), d[2].clone(), d[3].clone());
    let (shape, perm) = match &*c.string("mode", "DCR")? {
        "DCR" => ([n.clone(), k.clone(), k, depth.clone(), h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n.clone(), depth.clone(), k.clone(), k, h, w], [0, 1, 4, 2, 5, 3]),
        m => return invalid(format!("mode '{m}'")),
    };
    let t = c.reshape(x, shape.to_vec())?;
    let t = c.b.transpose(t, &perm)?;
    one(c.reshape(t, vec![n, depth, d[2].times(s), d[3].times(s)])?)
}

fn space_to_depth(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, d, s) = blocks(c)?;
    let k = Dim::from(s);
    let (h, w) = (d[2].div(&k), d[3].div(&k));
    let split = vec![d[0].clone(), d[1].clone(), h.clone(), k.clone(), w.clone(), k];
    let t = c.reshape(x, split)?;
    let perm = match &*c.string("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        m => return invalid(format!("mode '{m}'")),
    };
    let t = c.b.transpose(t, &perm)?;
    one(c.reshape(t, vec![d[0].clone(), d[1].times(s * s), h, w])?)
}

fn center_crop_pad(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, shape) = (c.tensor(0)?, c.tensor(1)?);
    let (dims, want) = (c.dims(x), c.sizes(shape, "shape")?);
    let axes = match c.ints("axes")? {
        Some(a) => a.iter().map(|&a| c.axis(a, dims.len())).collect::<Got<Vec<_>>>()?,
        None => (0..dims.len()).collect(),
    };
    if axes.len() != want.len() {
        return invalid(format!("{} sizes for {} axes", want.len(), axes.len()));
    }
    let zero = || vec![Dim::from(0i64); dims.len()];
    let (mut before, mut after, dtype) = (zero(), zero(), c.dtype(x));
    for (&a, w) in axes.iter().zip(&want) {
        // Odd differences leave the larger part after; crops are negative pads.
        let grow = w.sub(&dims[a]);
        let two = Dim::from(2i64);
        let grown = grow.max_of(&0i64.into()).div(&two);
        let cut = grow.times(-1).max_of(&0i64.into()).div(&two);
        before[a] = grown.sub(&cut);
        after[a] = grow.sub(&before[a]);
    }
    let value = c.scalar(dtype, 0.0);
    one(c.prim(Prim::Pad { before, after, mode: PadMode::Constant }, &[x, value])?)
}
