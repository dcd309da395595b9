//! Gathering, scattering, searching, sorting.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, ScatterOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("Gather", 1, |c| {
        let (x, at) = (c.tensor(0)?, index(c, 1)?);
        let axis = axis_of(c, x)?;
        one(c.prim(Prim::Gather { axis }, &[x, at])?)
    }),
    op("GatherElements", 11, |c| {
        let (x, at) = (c.tensor(0)?, index(c, 1)?);
        let axis = axis_of(c, x)?;
        one(c.prim(Prim::GatherElements { axis }, &[x, at])?)
    }),
    op("GatherND", 11, gather_nd),
    op("Scatter", 9, scatter_elements),
    op("ScatterElements", 11, scatter_elements),
    op("ScatterND", 11, |c| {
        let (x, at, updates) = (c.tensor(0)?, index(c, 1)?, c.tensor(2)?);
        let op = scatter_op(c)?;
        one(c.prim(Prim::ScatterNd { op }, &[x, at, updates])?)
    }),
    op("TopK", 1, top_k),
    op("NonZero", 9, |c| {
        let x = c.tensor(0)?;
        one(non_zero(c, x)?)
    }),
    op("Compress", 9, compress),
    op("OneHot", 9, one_hot),
    op("ReverseSequence", 10, reverse_sequence),
    op("Unique", 11, unique),
];

/// Indices must be i32 or i64.
fn index(c: &mut Cx<'_, '_, '_>, i: usize) -> Got {
    let v = c.tensor(i)?;
    match c.dtype(v) {
        Dtype::I32 | Dtype::I64 => Ok(v),
        d if d.is_int() => c.cast(v, Dtype::I64),
        d => invalid(format!("indices are {d}")),
    }
}

fn axis_of(c: &Cx<'_, '_, '_>, x: Value) -> Got<u32> {
    Ok(c.axis(c.int("axis", 0)?, c.rank(x))? as u32)
}

fn scatter_op(c: &Cx<'_, '_, '_>) -> Got<ScatterOp> {
    Ok(match &*c.string("reduction", "none")? {
        "none" => ScatterOp::Set,
        "add" => ScatterOp::Add,
        "mul" => ScatterOp::Mul,
        "max" => ScatterOp::Max,
        "min" => ScatterOp::Min,
        r => return invalid(format!("reduction '{r}'")),
    })
}

fn scatter_elements(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, at, updates) = (c.tensor(0)?, index(c, 1)?, c.tensor(2)?);
    let (axis, op) = (axis_of(c, x)?, scatter_op(c)?);
    one(c.prim(Prim::ScatterElements { axis, op }, &[x, at, updates])?)
}

fn top_k(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", -1)?, c.rank(x))? as u32;
    let k = match c.opt(1) {
        Some(k) => c.sizes(k, "k")?.pop(),
        None => Some(c.int("k", 0)?.into()),
    };
    let Some(k) = k else { return invalid("k has no element") };
    let (largest, sorted) = (c.flag("largest", true)?, c.flag("sorted", true)?);
    Ok(c.b.prim_n(Prim::TopK { k, axis, largest, sorted }, &[x])?)
}

/// [rank, count] indices.
pub(super) fn non_zero(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    // A scalar counts as one element of a vector.
    let x = if c.rank(x) == 0 { c.reshape(x, vec![1i64.into()])? } else { x };
    let most = Dim::product(&c.dims(x)).bounds(&c.b.g.syms).1.max(0);
    let name = format!("{}.count", c.b.name);
    let count = c.b.g.new_sym(&name, 0, most);
    c.prim(Prim::NonZero { count }, &[x])
}

fn compress(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (mut x, keep) = (c.tensor(0)?, c.tensor(1)?);
    let axis = if c.has("axis") {
        axis_of(c, x)?
    } else {
        let n = Dim::product(&c.dims(x));
        x = c.reshape(x, vec![n])?;
        0
    };
    let found = non_zero(c, keep)?;
    let count = c.dim(found, 1)?;
    let at = c.reshape(found, vec![count])?;
    one(c.prim(Prim::Gather { axis }, &[x, at])?)
}

fn one_hot(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (at, depth, values) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let rank = c.rank(at);
    let axis = c.axis(c.int("axis", -1)?, rank + 1)?;
    let depth = c.cast(depth, Dtype::I64)?;
    let Some(n) = c.sizes(depth, "depth")?.pop() else { return invalid("depth is empty") };
    let at = c.cast(at, Dtype::I64)?;
    let below = c.bin_scalar(BinaryOp::Lt, at, 0.0)?;
    let size = c.b.dim_scalar(n.clone());
    let wrapped = c.bin(BinaryOp::Add, at, size)?;
    let at = c.b.select(below, wrapped, at)?;
    let at = c.b.unsqueeze(at, axis)?;
    let mut shape = vec![Dim::from(1i64); rank + 1];
    shape[axis] = n;
    let count = c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 }, &[])?;
    let hit = c.bin(BinaryOp::Eq, at, count)?;
    let mut pick = |i: i64| {
        let at = c.b.constant(Dtype::I64, &[], i.to_le_bytes().to_vec().into());
        c.prim(Prim::Gather { axis: 0 }, &[values, at])
    };
    let (off, on) = (pick(0)?, pick(1)?);
    one(c.b.select(hit, on, off)?)
}

/// Elements before a row's length in reverse order, the others in place.
fn reverse_sequence(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, lens) = (c.tensor(0)?, c.tensor(1)?);
    let (time, batch) = (c.int("time_axis", 0)?, c.int("batch_axis", 1)?);
    let dims = c.dims(x);
    if dims.len() < 2 || !matches!((time, batch), (0, 1) | (1, 0)) {
        return invalid(format!("time axis {time} and batch axis {batch}"));
    }
    let (t, b) = (time as usize, batch as usize);
    let mut shape = vec![Dim::from(1i64); dims.len()];
    shape[b] = dims[b].clone();
    let lens = c.cast(lens, Dtype::I64)?;
    let lens = c.reshape(lens, shape)?;
    let mut shape = vec![Dim::from(1i64); dims.len()];
    shape[t] = dims[t].clone();
    let at = c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: t as u32 }, &[])?;
    let mirror = c.bin(BinaryOp::Sub, lens, at)?;
    let mirror = c.bin_scalar(BinaryOp::Sub, mirror, 1.0)?;
    let inside = c.bin(BinaryOp::Lt, at, lens)?;
    let at = c.b.select(inside, mirror, at)?;
    let at = c.b.broadcast(at, dims)?;
    one(c.prim(Prim::GatherElements { axis: t as u32 }, &[x, at])?)
}

/// Distinct elements of the flattened tensor, or slices along an axis: values, first places, inverse,
/// counts. By sorting, which keeps the order of equals, so each run's first is the first place.
pub(super) fn gather_nd(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, at) = (c.tensor(0)?, index(c, 1)?);
    let batch = c.int("batch_dims", 0)?;
    match u32::try_from(batch) {
        Ok(batch) => one(c.prim(Prim::GatherNd { batch }, &[x, at])?),
        Err(_) => invalid(format!("batch_dims {batch}")),
    }
}

pub(super) fn unique(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let sorted = c.flag("sorted", true)?;
    uniques(c, sorted)
}

/// Values, where each came first, the number of each element's value, and how many there are.
pub(super) fn uniques(c: &mut Cx<'_, '_, '_>, ordered: bool) -> Got<Vec<Value>> {
    let mut x = c.tensor(0)?;
    let dims = c.dims(x);
    let axis = match c.has("axis") {
        true => Some(axis_of(c, x)? as usize),
        false => None,
    };
    let mut front: Vec<usize> = (0..dims.len()).collect();
    let rest = match axis {
        Some(axis) => {
            front.remove(axis);
            front.insert(0, axis);
            x = c.b.transpose(x, &front)?;
            c.dims_from(x, 1)?
        }
        None => vec![],
    };
    let n = axis.map_or(Dim::product(&dims), |a| dims[a].clone());
    let rows = c.reshape(x, vec![n.clone(), Dim::product(&rest)])?;
    let at = lexical(c, rows)?;
    let sorted = c.prim(Prim::Gather { axis: 0 }, &[rows, at])?;
    // A run starts where a row differs from the one before (the first always).
    let i = c.prim(Prim::Iota { dtype: Dtype::I64, shape: vec![n.clone()], axis: 0 }, &[])?;
    let before = c.bin_scalar(BinaryOp::Sub, i, 1.0)?;
    let before = c.bin_scalar(BinaryOp::Max, before, 0.0)?;
    let previous = c.prim(Prim::Gather { axis: 0 }, &[sorted, before])?;
    let differs = c.bin(BinaryOp::Ne, sorted, previous)?;
    let differs = c.reduce(ReduceOp::Or, differs, &[1], false)?;
    let first = c.bin_scalar(BinaryOp::Eq, i, 0.0)?;
    let starts = c.bin(BinaryOp::Or, differs, first)?;
    // Number of each element's run, in sorted order.
    let ones = c.cast(starts, Dtype::I64)?;
    let sum = Prim::Cumulative { op: ReduceOp::Sum, axis: 0, exclusive: false, reverse: false };
    let run = c.prim(sum, &[ones])?;
    let run = c.bin_scalar(BinaryOp::Sub, run, 1.0)?;
    let found = non_zero(c, starts)?;
    let count = c.dim(found, 1)?;
    let heads = c.reshape(found, vec![count.clone()])?;
    let mut values = c.prim(Prim::Gather { axis: 0 }, &[sorted, heads])?;
    let mut first = c.prim(Prim::Gather { axis: 0 }, &[at, heads])?;
    let column = c.reshape(at, vec![n.clone(), 1i64.into()])?;
    let set = Prim::ScatterNd { op: ScatterOp::Set };
    let mut inverse = c.prim(set.clone(), &[i, column, run])?;
    let zeros = c.scalar(Dtype::I64, 0.0);
    let zeros = c.b.broadcast(zeros, vec![count.clone()])?;
    let column = c.reshape(run, vec![n.clone(), 1i64.into()])?;
    let each = c.scalar(Dtype::I64, 1.0);
    let each = c.b.broadcast(each, vec![n])?;
    let mut counts = c.prim(Prim::ScatterNd { op: ScatterOp::Add }, &[zeros, column, each])?;
    if !ordered {
        // In order of first places.
        let k = count.clone();
        let sort = Prim::TopK { k, axis: 0, largest: false, sorted: true };
        let order = c.b.prim_n(sort, &[first])?;
        first = order[0];
        values = c.prim(Prim::Gather { axis: 0 }, &[values, order[1]])?;
        counts = c.prim(Prim::Gather { axis: 0 }, &[counts, order[1]])?;
        let shape = vec![count.clone()];
        let rank = c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: 0 }, &[])?;
        let column = c.reshape(order[1], vec![count.clone(), 1i64.into()])?;
        let place = c.prim(set, &[rank, column, rank])?;
        inverse = c.prim(Prim::Gather { axis: 0 }, &[place, inverse])?;
    }
    let values = c.reshape(values, [&[count], &rest[..]].concat())?;
    let mut back = vec![0; front.len()];
    front.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    let values = if axis.is_some() { c.b.transpose(values, &back)? } else { values };
    Ok(vec![values, first, inverse, counts])
}

/// The order of rows [n, m] by their elements, the first column deciding first: int64 [n]. Columns
/// are sorted from the last to the first.
fn lexical(c: &mut Cx<'_, '_, '_>, rows: Value) -> Got {
    let d = c.at_least(rows, 2)?;
    let sort = Prim::TopK { k: d[0].clone(), axis: 0, largest: false, sorted: true };
    if d[1].is(1) {
        let column = c.reshape(rows, vec![d[0].clone()])?;
        return Ok(c.b.prim_n(sort, &[column])?[1]);
    }
    let ty = Type::tensor(Dtype::I64, vec![d[0].clone()]);
    let start = Prim::Iota { dtype: Dtype::I64, shape: vec![d[0].clone()], axis: 0 };
    let start = c.prim(start, &[])?;
    let region = c.b.g.new_region();
    let i = c.b.g.add_param(region, Type::tensor(Dtype::I64, vec![]));
    let order = c.b.g.add_param(region, ty.clone());
    let mut b = c.b.nested();
    let on = b.scalar(Dtype::Bool, 1.0);
    let last = b.dim_scalar(d[1].plus(-1));
    let at = b.sub(last, i)?;
    let column = b.prim(Prim::Gather { axis: 1 }, &[rows, at])?;
    let column = b.prim(Prim::Gather { axis: 0 }, &[column, order])?;
    let by = b.prim_n(sort, &[column])?[1];
    let next = b.prim(Prim::Gather { axis: 0 }, &[order, by])?;
    b.into_region(region);
    c.b.g.regions[region].results = vec![on, next];
    let control = Control::Loop { body: region.0, has_trip: true, has_cond: false, carried: 1 };
    let trip = c.b.dim_scalar(d[1].clone());
    Ok(c.b.control(control, &[trip, start], vec![ty])[0])
}
