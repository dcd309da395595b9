//! NonMaxSuppression; Col2Im, MaxUnpool.

use super::spatial::kernel_attr;
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use crate::options::DIM_MAX;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Geometry, Prim, ScatterOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::build::Built;
use hub_ir::{Builder, Value};

pub(crate) const OPS: &[Row] = &[
    op("NonMaxSuppression", 10, non_max_suppression),
    op("Col2Im", 18, col2im),
    op("MaxUnpool", 9, max_unpool),
];

/// Boxes as four [B, N] vectors y1, x1, y2, x2 with the first corner the lesser.
fn corners(c: &mut Cx<'_, '_, '_>, boxes: Value) -> Got<[Value; 4]> {
    let centre = c.int("center_point_box", 0)? != 0;
    let mut v = vec![];
    for i in 0..4usize {
        let t = c.b.narrow(boxes, 2, i.into(), 1i64.into())?;
        v.push(c.b.squeeze(t, 2)?);
    }
    let (first, second) = if centre {
        let mut ends = vec![];
        for (at, len) in [(1, 3), (0, 2)] {
            let half = c.bin_scalar(BinaryOp::Mul, v[len], 0.5)?;
            let a = c.bin(BinaryOp::Sub, v[at], half)?;
            ends.push((a, c.bin(BinaryOp::Add, v[at], half)?));
        }
        ((ends[0].0, ends[1].0), (ends[0].1, ends[1].1))
    } else {
        ((v[0], v[1]), (v[2], v[3]))
    };
    let y1 = c.bin(BinaryOp::Min, first.0, second.0)?;
    let x1 = c.bin(BinaryOp::Min, first.1, second.1)?;
    let y2 = c.bin(BinaryOp::Max, first.0, second.0)?;
    let x2 = c.bin(BinaryOp::Max, first.1, second.1)?;
    Ok([y1, x1, y2, x2])
}

/// One number of an operand, or a default where it is left out.
fn number(c: &mut Cx<'_, '_, '_>, i: usize, default: f64) -> Got {
    match c.opt(i) {
        Some(v) => c.reshape(v, vec![]),
        None => Ok(c.scalar(Dtype::F32, default)),
    }
}

/// Greedy suppression: in each round every (image, class) takes its best box that is left, and
/// boxes that overlap it leave. Gives [count, 3] (image, class, box).
fn non_max_suppression(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (boxes, scores) = (c.tensor(0)?, c.tensor(1)?);
    let d = c.dims(scores);
    if d.len() != 3 || c.rank(boxes) != 3 {
        return invalid("boxes [B, N, 4] and scores [B, C, N] are expected");
    }
    let n = c.b.dim_scalar(d[2].clone());
    let Some(most) = c.opt(2) else {
        let shape = vec![0i64.into(), 3i64.into()];
        let zero = c.scalar(Dtype::I64, 0.0);
        return one(c.b.broadcast(zero, shape)?);
    };
    let most = c.reshape(most, vec![])?;
    let trip = c.bin(BinaryOp::Min, most, n)?;
    let trip = c.bin_scalar(BinaryOp::Max, trip, 0.0)?;
    let overlap = number(c, 3, 0.0)?;
    let corners = corners(c, boxes)?;
    let low = c.scalar(Dtype::F32, f64::NEG_INFINITY);
    let start = match c.opt(4) {
        Some(t) => {
            let t = c.reshape(t, vec![])?;
            let keep = c.bin(BinaryOp::Gt, scores, t)?;
            c.b.select(keep, scores, low)?
        }
        None => scores,
    };
    let region = c.b.g.new_region();
    let params = [Type::tensor(Dtype::I64, vec![]), c.b.g.ty(start).clone()];
    let given: Vec<Value> = params.iter().map(|t| c.b.g.add_param(region, t.clone())).collect();
    let mut b = c.b.nested();
    let results = round(&mut b, given[1], &corners, overlap, low)?;
    b.into_region(region);
    c.b.g.regions[region].results = results;
    let count = Dim::from(c.b.g.new_sym("rounds", 0, DIM_MAX));
    let rows = |dtype| Type::tensor(dtype, vec![count.clone(), d[0].clone(), d[1].clone()]);
    let types = vec![params[1].clone(), rows(Dtype::I64), rows(Dtype::Bool)];
    let control = Control::Loop { body: region.0, has_trip: true, has_cond: false, carried: 1 };
    let outs = c.b.control(control, &[trip, start], types);
    // Rounds last, so that a class's boxes stay together.
    let at = c.b.transpose(outs[1], &[1, 2, 0])?;
    let taken = c.b.transpose(outs[2], &[1, 2, 0])?;
    let found = super::index::non_zero(c, taken)?;
    let found = c.b.transpose(found, &[1, 0])?;
    let boxes = c.prim(Prim::GatherNd { batch: 0 }, &[at, found])?;
    let boxes = c.b.unsqueeze(boxes, 1)?;
    let pairs = c.b.narrow(found, 1, 0i64.into(), 2i64.into())?;
    one(c.b.concat(&[pairs, boxes], 1)?)
}

/// One round: (go on, scores left, box taken [B, C], was one left).
fn round(
    b: &mut Builder<'_>,
    scores: Value,
    corners: &[Value; 4],
    overlap: Value,
    low: Value,
) -> Built<Vec<Value>> {
    let arg = Prim::ArgReduce { max: true, axis: 2, keep: true, last: false };
    let best = b.prim(arg, &[scores])?;
    let top = b.prim(Prim::GatherElements { axis: 2 }, &[scores, best])?;
    let taken = b.bin(BinaryOp::Gt, top, low)?;
    let [y1, x1, y2, x2] = *corners;
    let flat = b.squeeze(best, 2)?;
    let mut mine = vec![];
    for v in [y1, x1, y2, x2] {
        let v = b.prim(Prim::GatherElements { axis: 1 }, &[v, flat])?;
        mine.push(b.unsqueeze(v, 2)?);
    }
    let mut all = vec![];
    for v in [y1, x1, y2, x2] {
        all.push(b.unsqueeze(v, 1)?);
    }
    let side = |b: &mut Builder<'_>, lo: usize, hi: usize| {
        let from = b.max(mine[lo], all[lo])?;
        let to = b.min(mine[hi], all[hi])?;
        let len = b.sub(to, from)?;
        b.bin_scalar(BinaryOp::Max, len, 0.0)
    };
    let (h, w) = (side(b, 0, 2)?, side(b, 1, 3)?);
    let shared = b.mul(h, w)?;
    let area = |b: &mut Builder<'_>, v: &[Value]| {
        let (h, w) = (b.sub(v[2], v[0])?, b.sub(v[3], v[1])?);
        b.mul(h, w)
    };
    let (a, z) = (area(b, &mine)?, area(b, &all)?);
    let both = b.add(a, z)?;
    let both = b.sub(both, shared)?;
    let iou = b.div(shared, both)?;
    let near = b.bin(BinaryOp::Gt, iou, overlap)?;
    let count = Prim::Iota { dtype: Dtype::I64, shape: b.g.dims(scores).to_vec(), axis: 2 };
    let count = b.prim(count, &[])?;
    let same = b.bin(BinaryOp::Eq, count, best)?;
    let gone = b.bin(BinaryOp::Or, near, same)?;
    let left = b.select(gone, low, scores)?;
    let on = b.scalar(Dtype::Bool, 1.0);
    let taken = b.squeeze(taken, 2)?;
    Ok(vec![on, left, flat, taken])
}

/// A list of positive numbers of an attribute, `n` of them, 1 by default.
fn list(c: &Cx<'_, '_, '_>, name: &str, n: usize, default: i64) -> Got<Vec<i64>> {
    let v = c.ints(name)?.unwrap_or_else(|| vec![default; n]);
    if v.len() != n || v.iter().any(|x| !(default..1 << 31).contains(x)) {
        return invalid(format!("{name} {v:?} for {n} axes"));
    }
    Ok(v)
}

/// Columns added up where they came from: a transposed convolution by unit vectors.
fn col2im(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, image, block) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (Some(image), Some(block)) = (c.known_ints(image), c.known_ints(block)) else {
        return columns_added(c, [x, image, block]);
    };
    let n = image.len();
    let taps =
        block.iter().try_fold(1i64, |a, &b| a.checked_mul(b)).filter(|t| (1..=1 << 12).contains(t));
    let (Some(taps), true) = (taps, block.len() == n && c.rank(x) == 3) else {
        return invalid(format!("blocks {block:?} of an image {image:?}"));
    };
    let stride = list(c, "strides", n, 1)?;
    let dilation = list(c, "dilations", n, 1)?;
    let pads = list(c, "pads", 2 * n, 0)?;
    let d = c.at_least(x, 2)?;
    let channels = d[1].div(&taps.into());
    // Channels that cannot be groups are entries of the batch.
    let groups = channels.as_const().filter(|g| (1..=1 << 16).contains(g)).unwrap_or(1);
    let entries = if channels.is(groups) { d[0].clone() } else { d[0].mul(&channels) };
    let mut shape = vec![entries, (taps * groups).into()];
    let mut geo = Geometry { stride, dilation, before: vec![], after: vec![] };
    for i in 0..n {
        let span = (block[i] - 1).saturating_mul(geo.dilation[i]).saturating_add(1);
        let room =
            image[i].saturating_add(pads[i]).saturating_add(pads[n + i]).saturating_sub(span);
        let columns = room.div_euclid(geo.stride[i]) + 1;
        shape.push(columns.into());
        geo.before.push(pads[i].into());
        let full = (columns - 1).saturating_mul(geo.stride[i]).saturating_add(span);
        geo.after.push((full - pads[i]).saturating_sub(image[i]).into());
    }
    let t = c.reshape(x, shape)?;
    let dtype = c.dtype(x);
    let unit: Vec<u8> = (0..taps * taps)
        .flat_map(|i| {
            hub_ir::build::scalar_bytes(dtype, if i % (taps + 1) == 0 { 1.0 } else { 0.0 })
        })
        .collect();
    let dims: Vec<i64> = [taps, 1].into_iter().chain(block.iter().copied()).collect();
    let w = c.b.constant(dtype, &dims, unit.into());
    let w = c.b.unsqueeze(w, 0)?;
    let mut wide: Vec<Dim> = vec![groups.into()];
    wide.extend(dims.iter().map(|&d| Dim::from(d)));
    let w = c.b.broadcast(w, wide)?;
    let mut all: Vec<Dim> = dims.iter().map(|&d| Dim::from(d)).collect();
    all[0] = (taps * groups).into();
    let w = c.reshape(w, all)?;
    let y = c.prim(Prim::ConvTranspose { geo, groups }, &[t, w])?;
    let image = image.into_iter().map(Dim::from);
    one(c.reshape(y, [d[0].clone(), channels].into_iter().chain(image).collect())?)
}

/// The same where the image's or blocks' sizes are known only when the model runs: by indices.
fn columns_added(c: &mut Cx<'_, '_, '_>, [x, image, block]: [Value; 3]) -> Got<Vec<Value>> {
    use BinaryOp::{Add, And, Ge, Lt, Mul};
    let (image, block) = (c.sizes(image, "image")?, c.sizes(block, "block")?);
    let (n, d) = (image.len(), c.dims(x));
    if block.len() != n || d.len() != 3 {
        return invalid(format!("blocks of {} axes of an image of {n}", block.len()));
    }
    let stride = list(c, "strides", n, 1)?;
    let dilation = list(c, "dilations", n, 1)?;
    let pads = list(c, "pads", 2 * n, 0)?;
    // Taps of each axis, then columns of each axis: where each lies, and whether that is inside.
    let (mut grid, mut place, mut inside) = (block.clone(), None, None);
    for i in 0..n {
        let span = block[i].plus(-1).times(dilation[i]).plus(1);
        let room = image[i].plus(pads[i]).plus(pads[n + i]).sub(&span);
        grid.push(room.div(&stride[i].into()).plus(1));
    }
    for i in 0..n {
        let mut at = c.scalar(Dtype::I64, -(pads[i] as f64));
        for (axis, step) in [(i, dilation[i]), (n + i, stride[i])] {
            let mut shape = vec![Dim::from(1i64); 2 * n];
            shape[axis] = grid[axis].clone();
            let k = Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 };
            let k = c.prim(k, &[])?;
            let k = c.bin_scalar(Mul, k, step as f64)?;
            at = c.bin(Add, at, k)?;
        }
        let size = c.b.dim_scalar(image[i].clone());
        let (low, high) = (c.bin_scalar(Ge, at, 0.0)?, c.bin(Lt, at, size)?);
        let own = c.bin(And, low, high)?;
        inside = Some(inside.map_or(Ok(own), |all| c.bin(And, all, own))?);
        place = Some(match place {
            Some(place) => {
                let up = c.bin(Mul, place, size)?;
                c.bin(Add, up, at)?
            }
            None => at,
        });
    }
    let (Some(place), Some(inside)) = (place, inside) else { return invalid("no axes") };
    // What is outside goes to one element more, which is dropped.
    let pixels = Dim::product(&image);
    let none = c.b.dim_scalar(pixels.clone());
    let place = c.b.select(inside, place, none)?;
    let rows = d[0].mul(&d[1].div(&Dim::product(&block)));
    let each = Dim::product(&grid);
    let place = c.reshape(place, vec![1i64.into(), each.clone()])?;
    let place = c.b.broadcast(place, vec![rows.clone(), each.clone()])?;
    let x2 = c.reshape(x, vec![rows.clone(), each])?;
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0);
    let zeros = c.b.broadcast(zero, vec![rows, pixels.plus(1)])?;
    let add = Prim::ScatterElements { axis: 1, op: ScatterOp::Add };
    let y = c.prim(add, &[zeros, place, x2])?;
    let y = c.b.narrow(y, 1, 0i64.into(), pixels)?;
    let mut shape = vec![d[0].clone(), d[1].div(&Dim::product(&block))];
    shape.extend(image);
    one(c.reshape(y, shape)?)
}

/// Values put back where a max pool found them, in a tensor of zeros.
fn max_unpool(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, at) = (c.tensor(0)?, c.tensor(1)?);
    let d = c.at_least(x, 2)?;
    let n = d.len().saturating_sub(2);
    let Some(kernel) = kernel_attr(c, n)? else { return invalid("kernel_shape is missing") };
    let stride = list(c, "strides", n, 1)?;
    let pads = list(c, "pads", 2 * n, 0)?;
    let mut out = d[..2].to_vec();
    for i in 0..n {
        let full = d[i + 2].plus(-1).times(stride[i]).plus(kernel[i]);
        out.push(full.plus(-(pads[i] + pads[n + i])));
    }
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0);
    let base = c.b.broadcast(zero, vec![Dim::product(&out)])?;
    let count = Dim::product(&d);
    let values = c.reshape(x, vec![count.clone()])?;
    let at = c.reshape(at, vec![count])?;
    let put = Prim::ScatterElements { axis: 0, op: ScatterOp::Set };
    let y = c.prim(put, &[base, at, values])?;
    let y = c.reshape(y, out.clone())?;
    let Some(shape) = c.opt(2) else { return one(y) };
    // Indices count in the size that the pool implies; a size that is given has more at the ends.
    let shape = c.sizes(shape, "output_shape")?;
    if shape.len() != out.len() {
        return invalid(format!("an output_shape of {} axes", shape.len()));
    }
    let after = shape.iter().zip(&out).map(|(s, o)| s.sub(o)).collect();
    let before = vec![Dim::from(0i64); out.len()];
    let mode = hub_abi::prim::PadMode::Constant;
    one(c.prim(Prim::Pad { before, after, mode }, &[y, zero])?)
}
