//! Interpolation that exporters write as repetition, gathers, transposed convolutions or products.
//!
//! Each spelling is a linear map along its axes; it is raised where that map is the one of a
//! [`Resize`](hub_ir::ops::resize::Resize), element by element (so borders count).

mod axis;

use super::{When, rule};
use crate::movement::blocks;
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Any, Const, Prim as P, Slot, Src};
use axis::{AxisMap, Unlike, axis as along, op};
use hub_abi::prim::{PadMode, Prim};
use hub_abi::{Dim, Dtype};
use hub_ir::build::Builder;
use hub_ir::graph::ConstData;
use hub_ir::ops::conv::ConvTranspose;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::resize::{NearestRound, ResizeAxis, ResizeCoord, ResizeMode};
use hub_ir::{Graph, Op, OpError, Source, Value};

/// Slot 0 is the image; 1 and 2 what lies between or constants.
pub const RULES: &[Rule] = &[
    rule("resize-from-repeats", repeats, stretches, from_repeats),
    rule("resize-from-lerp", lerp, |g, m| found(lerped(g, m)), |b, m| from_map(b, m, lerped)),
    rule(
        "resize-from-matmul",
        product,
        |g, m| found(multiplied(g, m)),
        |b, m| from_map(b, m, multiplied),
    ),
    rule(
        "resize-from-conv-transpose",
        deconvolution,
        |g, m| found(deconvolved(g, m)),
        |b, m| from_map(b, m, deconvolved),
    ),
    rule("merge-resizes", two_resizes, mergeable, merge),
];

/// Once no sum of gathers is left.
pub const LATE: &[Rule] = &[
    rule(
        "resize-from-gather",
        || P(is_gather, vec![Slot(0), Const(1)]),
        |g, m| found(gathered(g, m)),
        |b, m| from_map(b, m, gathered),
    ),
    rule("merge-resizes", two_resizes, mergeable, merge),
];

fn is_reshape(p: &Prim) -> bool {
    matches!(p, Prim::Reshape { .. })
}
fn is_broadcast(p: &Prim) -> bool {
    matches!(p, Prim::Broadcast { .. })
}
fn is_gather(p: &Prim) -> bool {
    matches!(p, Prim::Gather { axis } if *axis >= 2)
}
fn is_edge_pad(p: &Prim) -> bool {
    matches!(p, Prim::Pad { mode: PadMode::Edge, .. })
}
fn is_slice(p: &Prim) -> bool {
    matches!(p, Prim::Slice { .. })
}
fn is_conv_transpose(s: &Source) -> bool {
    matches!(s, Source::ConvTranspose(_))
}
fn is_matmul(s: &Source) -> bool {
    matches!(s, Source::MatMul(m) if !m.trans_a && !m.trans_b)
}
fn is_resize(s: &Source) -> bool {
    matches!(s, Source::Resize(_))
}

/// `reshape(broadcast(reshape(x)))`: torch's `expand` and `repeat_interleave`, tiles of axes of 1.
fn repeats() -> Pat {
    P(is_reshape, vec![P(is_broadcast, vec![P(is_reshape, vec![Slot(0)]).named(1)]).named(2)])
}

/// Two gathers of one axis, weighted.
fn lerp() -> Pat {
    let gather = |slot| P(is_gather, vec![Slot(0), Const(slot + 1)]).named(slot);
    let term = |slot, w| Pat::times(gather(slot), Const(w));
    Any(vec![
        Pat::plus(term(1, 5), term(3, 6)),
        Pat::plus(gather(1), Pat::times(Pat::minus(gather(3), gather(1)), Const(6))),
    ])
}

fn product() -> Pat {
    Any(vec![Src(is_matmul, vec![Slot(0), Const(1)]), Src(is_matmul, vec![Const(1), Slot(0)])])
}

/// With an edge that is repeated before and a crop after, perhaps.
fn deconvolution() -> Pat {
    let pad = P(is_edge_pad, vec![Slot(0), Slot(4)]).named(3);
    let conv = Src(is_conv_transpose, vec![Any(vec![pad, Slot(0)]), Const(1)]).named(2);
    Any(vec![P(is_slice, vec![conv.clone()]).named(5), conv])
}

fn two_resizes() -> Pat {
    Src(is_resize, vec![Src(is_resize, vec![Slot(0)]).named(1)])
}

/// The maps along axes that change.
type Maps = Result<Vec<(usize, AxisMap)>, &'static str>;

fn found(maps: Maps) -> When {
    known(&maps?).map(|_| ())
}

/// The interpolation that all maps are.
fn known(maps: &[(usize, AxisMap)]) -> Result<(ResizeMode, ResizeCoord), &'static str> {
    let mut all = None;
    for (_, map) in maps {
        let one = map.interpolation().map_err(|why| match why {
            Unlike::Unknown => "the weights are no known interpolation's",
            Unlike::AtBorders => "beyond the border it has zeros, where a resize repeats the edge",
        })?;
        if *all.get_or_insert(one) != one {
            return Err("the axes are interpolated differently");
        }
    }
    all.ok_or("")
}

fn from_map(b: &mut Builder<'_>, m: &Match, maps: fn(&Graph, &Match) -> Maps) -> Replacement {
    let maps = maps(b.g, m).map_err(OpError::new)?;
    let (mode, coord) = known(&maps).map_err(OpError::new)?;
    let axes = maps.iter().map(|(a, map)| along(*a, map.rows.len() as i64)).collect();
    b.source_n(op(mode, coord, axes), &[m.v(0)])
}

/// Axes that are longer than 1.
fn long(dims: &[Dim]) -> Vec<usize> {
    (0..dims.len()).filter(|&i| !dims[i].is(1)).collect()
}

fn sizes(dims: &[Dim], at: &[usize]) -> Vec<Dim> {
    at.iter().map(|&i| dims[i].clone()).collect()
}

/// Reads of `reshape(broadcast(reshape(x)))` which axes of x are stretched by what.
fn stretched(g: &Graph, m: &Match) -> Result<Vec<ResizeAxis>, &'static str> {
    let (x, thin, wide) = (g.dims(m.v(0)), g.dims(m.v(1)), g.dims(m.v(2)));
    let out = g.dims(m.out(g));
    let (of_x, of_thin) = (long(x), long(thin));
    if x.len() < 3 || thin.len() != wide.len() || sizes(x, &of_x) != sizes(thin, &of_thin) {
        return Err("");
    }
    let mut axes = vec![];
    let (mut i0, mut j0) = (0, 0);
    for (i, j) in blocks(wide, out).ok_or("")? {
        let from: Vec<usize> = long(wide).into_iter().filter(|a| (i0..i).contains(a)).collect();
        let to: Vec<usize> = long(out).into_iter().filter(|a| (j0..j).contains(a)).collect();
        (i0, j0) = (i, j);
        let is_repeat = |i: &usize| thin[*i].is(1);
        if !from.iter().any(is_repeat) {
            if sizes(wide, &from) != sizes(out, &to) {
                return Err("");
            }
            continue;
        }
        let own: Vec<usize> = from.iter().copied().filter(|i| !is_repeat(i)).collect();
        let ([own], [to]) = (&own[..], &to[..]) else { return Err("") };
        if is_repeat(&from[0]) {
            return Err("the whole is repeated, not each element");
        }
        let times = from.iter().filter(|i| is_repeat(i)).map(|&i| &wide[i]);
        let times = Dim::product(times).as_const().ok_or("how often is not known")?;
        let axis = of_thin.iter().position(|i| i == own).map(|n| of_x[n]).ok_or("")?;
        if axis < 2 {
            return Err("another axis than a spatial one is repeated");
        }
        axes.push(ResizeAxis { scale: Some(times as f32), ..along(axis, out[*to].clone()) });
    }
    if axes.is_empty() { Err("") } else { Ok(axes) }
}

fn stretches(g: &Graph, m: &Match) -> When {
    stretched(g, m).map(|_| ())
}

fn from_repeats(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let axes = stretched(b.g, m).map_err(OpError::new)?;
    let mode = ResizeMode::Nearest { round: NearestRound::Floor };
    let y = b.source(op(mode, ResizeCoord::Asymmetric, axes), &[m.v(0)])?;
    let want = b.g.dims(m.out(b.g)).to_vec();
    Ok(vec![b.reshape(y, want)?])
}

/// A size that is known and not too large to look at.
fn size(g: &Graph, v: Value, axis: usize) -> Result<usize, &'static str> {
    let d = g.dims(v).get(axis).and_then(Dim::as_const);
    d.and_then(|d| usize::try_from(d).ok()).filter(|&d| d <= axis::MOST).ok_or("")
}

/// Elements of a f32 constant.
fn floats(c: &ConstData) -> Option<Vec<f64>> {
    let of = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().expect("four bytes")));
    (c.ty.dtype == Dtype::F32).then(|| c.data.chunks_exact(4).map(of).collect())
}

/// A constant vector of indices into an axis.
fn indices(g: &Graph, v: Value, size: usize) -> Result<Vec<usize>, &'static str> {
    let c = g.as_const(v).filter(|c| c.ty.rank() == 1).ok_or("")?;
    let read = |b: &[u8]| match c.ty.dtype {
        Dtype::I64 => b.try_into().ok().map(i64::from_le_bytes),
        Dtype::I32 => b.try_into().ok().map(|b| i64::from(i32::from_le_bytes(b))),
        _ => None,
    };
    let width = c.ty.dtype.size().max(1);
    let all = c.data.chunks_exact(width).map(|b| {
        let i = read(b)?;
        let i = if i < 0 { i + size as i64 } else { i };
        usize::try_from(i).ok().filter(|&i| i < size)
    });
    all.collect::<Option<Vec<usize>>>().ok_or("")
}

fn axis_of(p: &Prim) -> usize {
    match p {
        Prim::Gather { axis } => *axis as usize,
        _ => unreachable!("the pattern says a gather"),
    }
}

fn gathered(g: &Graph, m: &Match) -> Maps {
    let axis = axis_of(m.root_prim(g));
    let size = size(g, m.v(0), axis)?;
    let at = indices(g, m.v(1), size)?;
    // Choices of a few elements are no stretched image.
    if at.len() <= size || size < 2 {
        return Err("");
    }
    let map = AxisMap { size, rows: at.into_iter().map(|i| vec![(i, 1.0)]).collect() };
    match map.interpolation() {
        Ok(_) => Ok(vec![(axis, map)]),
        Err(_) => Err(""),
    }
}

/// A constant that varies along one axis of a result, as one number each element of that axis.
fn weights(
    g: &Graph,
    v: Value,
    rank: usize,
    axis: usize,
    out: usize,
) -> Result<Vec<f64>, &'static str> {
    let c = g.as_const(v).ok_or("")?;
    let dims = g.dims(v);
    let lead = rank.checked_sub(dims.len()).ok_or("")?;
    let plain = |i: usize, d: &Dim| d.is(1) || (i + lead == axis && d.is(out as i64));
    if !dims.iter().enumerate().all(|(i, d)| plain(i, d)) {
        return Err("the weights vary along more than the axis");
    }
    let w = floats(c).ok_or("only f32 weights are looked at")?;
    Ok(if w.len() == 1 { vec![w[0]; out] } else { w })
}

fn lerped(g: &Graph, m: &Match) -> Maps {
    let axis = axis_of(m.prim(g, 1));
    if axis_of(m.prim(g, 3)) != axis || g.dims(m.out(g)).len() != g.dims(m.v(0)).len() {
        return Err("the gathers are along different axes");
    }
    let size = size(g, m.v(0), axis)?;
    let (a, b) = (indices(g, m.v(2), size)?, indices(g, m.v(4), size)?);
    let (rank, out) = (g.dims(m.v(0)).len(), a.len());
    let v = weights(g, m.v(6), rank, axis, out)?;
    let u = match m.get(5) {
        Some(u) => weights(g, u, rank, axis, out)?,
        None => v.iter().map(|v| 1.0 - v).collect(),
    };
    if a.len() != b.len() {
        return Err("the gathers differ in size");
    }
    let rows = (0..out).map(|o| vec![(a[o], u[o]), (b[o], v[o])]).collect();
    Ok(vec![(axis, AxisMap { size, rows })])
}

/// Taps of an interpolation at most.
const MOST_TAPS: usize = 4;

fn multiplied(g: &Graph, m: &Match) -> Maps {
    let Op::Source(Source::MatMul(MatMul { .. })) = g.nodes[m.root].op else { return Err("") };
    let right = g.nodes[m.root].inputs[1] == m.v(1);
    let (x, w) = (g.dims(m.v(0)), g.as_const(m.v(1)).ok_or("")?);
    let [Some(r), Some(c)] = g.dims(m.v(1)).iter().map(Dim::as_const).collect::<Vec<_>>()[..]
    else {
        return Err("");
    };
    let (r, c) = (r as usize, c as usize);
    if x.len() < 4 || w.ty.dtype != Dtype::F32 || r.max(c) > axis::MOST || r == 0 || c == 0 {
        return Err("");
    }
    let at = |i: usize, j: usize| {
        let b = &w.data[(i * c + j) * 4..][..4];
        f64::from(f32::from_le_bytes(b.try_into().expect("four bytes")))
    };
    let (size, out) = if right { (r, c) } else { (c, r) };
    let mut rows = vec![];
    for o in 0..out {
        let one = |i: usize| if right { at(i, o) } else { at(o, i) };
        let row: Vec<(usize, f64)> =
            (0..size).map(|i| (i, one(i))).filter(|t| t.1 != 0.0).collect();
        if row.len() > MOST_TAPS {
            return Err("");
        }
        rows.push(row);
    }
    let map = AxisMap { size, rows };
    match map.interpolation() {
        Ok(_) if !map.is_identity() => Ok(vec![(x.len() - if right { 1 } else { 2 }, map)]),
        _ => Err(""),
    }
}

/// Every channel's own kernel, where all are one product of kernels along the axes.
fn separable(w: &[f64], dims: &[usize], groups: usize) -> Result<[Vec<f64>; 2], &'static str> {
    let &[c_in, per, kh, kw] = dims else { return Err("") };
    let plane = kh * kw;
    let own = |c: usize, o: usize| (per == 1 && groups == c_in) || (groups == 1 && c == o);
    if (per != 1 || groups != c_in) && (groups != 1 || per != c_in) || plane == 0 || c_in == 0 {
        return Err("channels are mixed");
    }
    let first = &w[..plane];
    for (n, k) in w.chunks_exact(plane).enumerate() {
        let (c, o) = (n / per, n % per);
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6;
        if own(c, o) && !k.iter().zip(first).all(near) {
            return Err("the channels' kernels differ");
        }
        if !own(c, o) && k.iter().any(|&x| x != 0.0) {
            return Err("channels are mixed");
        }
    }
    let total: f64 = first.iter().sum();
    let root = total.abs().sqrt();
    if total <= 0.0 {
        return Err("the weights are no known interpolation's");
    }
    let u: Vec<f64> = first.chunks_exact(kw).map(|r| r.iter().sum::<f64>() / root).collect();
    let v: Vec<f64> =
        (0..kw).map(|j| (0..kh).map(|i| first[i * kw + j]).sum::<f64>() / root).collect();
    let product = |(n, x): (usize, &f64)| (u[n / kw] * v[n % kw] - x).abs() <= 1e-6;
    if !first.iter().enumerate().all(product) {
        return Err("the kernel is no product of kernels along the axes");
    }
    Ok([u, v])
}

fn deconvolved(g: &Graph, m: &Match) -> Maps {
    let Source::ConvTranspose(ConvTranspose { geo, groups }) = m.source(g, 2) else {
        return Err("");
    };
    let x = m.v(0);
    let dims = g.tensor(m.v(1)).const_dims().ok_or("")?;
    let dims: Vec<usize> = dims.into_iter().map(|d| d as usize).collect();
    if g.dims(x).len() != 4 || geo.dilation.iter().any(|&d| d != 1) || g.dtype(x) != Dtype::F32 {
        return Err("");
    }
    let w = g.as_const(m.v(1)).and_then(floats).ok_or("")?;
    let mut kernels = separable(&w, &dims, *groups as usize)?;
    // Each kernel sums to its stride where the elements between two are shares of them.
    for (k, &s) in kernels.iter_mut().zip(&geo.stride) {
        let sum: f64 = k.iter().sum();
        k.iter_mut().for_each(|w| *w *= s as f64 / sum);
    }
    let total: f64 = w[..dims[2] * dims[3]].iter().sum();
    let strides = (geo.stride[0] * geo.stride[1]) as f64;
    if (total - strides).abs() > 1e-5 * strides {
        return Err("the weights are no known interpolation's");
    }
    let input = g.nodes[g.def(m.v(2)).ok_or("")?].inputs[0];
    let mut maps = vec![];
    for (i, k) in kernels.iter().enumerate() {
        let (n, out) = (size(g, input, i + 2)?, size(g, m.v(2), i + 2)?);
        let (s, before) = (geo.stride[i], geo.before[i].as_const().ok_or("")?);
        let row = |o: i64| {
            let tap = |j: i64| usize::try_from(o + before - j * s).ok().and_then(|t| k.get(t));
            (0..n as i64).filter_map(|j| Some((j as usize, *tap(j)?))).collect()
        };
        let map = AxisMap { size: n, rows: (0..out as i64).map(row).collect() };
        maps.push((i + 2, cropped(g, m, padded(g, m, map, i + 2)?, i + 2)?));
    }
    maps.retain(|(_, map)| !map.is_identity());
    Ok(maps)
}

/// The map of what the edge was repeated of.
fn padded(g: &Graph, m: &Match, map: AxisMap, axis: usize) -> Result<AxisMap, &'static str> {
    if m.get(3).is_none() {
        return Ok(map);
    }
    let Prim::Pad { before, after, .. } = m.prim(g, 3) else { return Err("") };
    if before[..2].iter().chain(&after[..2]).any(|d| !d.is(0)) {
        return Err("");
    }
    let n = size(g, m.v(0), axis)?;
    let before = before[axis].as_const().ok_or("")?;
    let row = |o: usize| vec![((o as i64 - before).clamp(0, n as i64 - 1) as usize, 1.0)];
    let pad = AxisMap { size: n, rows: (0..map.size).map(row).collect() };
    if n == 0 {
        return Err("");
    }
    map.after(&pad).ok_or("")
}

/// The map of what is kept.
fn cropped(g: &Graph, m: &Match, map: AxisMap, axis: usize) -> Result<AxisMap, &'static str> {
    if m.get(5).is_none() {
        return Ok(map);
    }
    let Prim::Slice { start, len, step } = m.prim(g, 5) else { return Err("") };
    let all = (0..2).all(|i| start[i].is(0) && len[i] == g.dims(m.v(2))[i]);
    let (s, n) = (start[axis].as_const().ok_or("")?, len[axis].as_const().ok_or("")?);
    if !all || step.iter().any(|&s| s != 1) {
        return Err("");
    }
    let rows = map.rows.get(s as usize..(s + n) as usize).ok_or("")?;
    Ok(AxisMap { size: map.size, rows: rows.to_vec() })
}

fn mergeable(g: &Graph, m: &Match) -> When {
    let (Op::Source(Source::Resize(a)), Source::Resize(b)) = (&g.nodes[m.root].op, m.source(g, 1))
    else {
        return Err("");
    };
    let axes = |axes: &[ResizeAxis]| axes.iter().map(|a| a.axis).collect::<Vec<_>>();
    let other = axes(&a.axes).iter().all(|x| !axes(&b.axes).contains(x));
    let like = op(a.mode, a.coord, vec![]);
    let plain = |r: &hub_ir::ops::resize::Resize| {
        op(r.mode, r.coord, vec![]) == like
            && !r.antialias
            && !r.exclude_outside
            && r.coord != ResizeCoord::TfCropAndResize
    };
    if other && plain(a) && plain(b) { Ok(()) } else { Err("the resizes differ") }
}

fn merge(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Op::Source(Source::Resize(last)), Source::Resize(first)) =
        (b.g.nodes[m.root].op.clone(), m.source(b.g, 1).clone())
    else {
        unreachable!("the pattern says two resizes")
    };
    let axes = [first.axes, last.axes].concat();
    b.source_n(op(last.mode, last.coord, axes), &[m.v(0)])
}
