//! Assignments to parts of a tensor: set_value, index_put.

use super::index::rows_of_non_zero;
use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_abi::prim::ScatterOp;
use hub_ir::{Dim, Dtype, Prim, Value};

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
    if starts.len() != axes.len() || ends.len() != axes.len() || steps.len() > axes.len() {
        return c.refuse("a slice whose axes and bounds differ in number");
    }
    let mut ranges = vec![];
    for (i, &a) in axes.iter().enumerate() {
        let step = steps.get(i).copied().unwrap_or(1);
        let (start, len) = super::shape::strided(c, &dims[a], &starts[i], &ends[i], step)?;
        ranges.push((a, start, len, step));
    }
    let mut region = dims.clone();
    for (a, _, len, _) in &ranges {
        region[*a] = len.clone();
    }
    let v = assigned_value(c, x, &region)?;
    let v = match ranges.iter().all(|r| r.3 == 1) {
        true => replaced(c, x, v, ranges)?,
        false => scattered(c, x, v, &ranges)?,
    };
    c.put("Out", v);
    Ok(())
}

type Range = (usize, Dim, Dim, i64);

/// From the last axis on: between what lies before and after it, where the axes before it are still
/// sliced.
fn replaced(c: &mut Ctx<'_, '_>, x: Value, mut v: Value, mut ranges: Vec<Range>) -> Res<Value> {
    let dims = c.dims(x);
    while let Some((a, start, len, _)) = ranges.pop() {
        let mut around = x;
        for (o, s, l, _) in &ranges {
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
    Ok(v)
}

/// By the places of the slice's elements in the whole.
fn scattered(c: &mut Ctx<'_, '_>, x: Value, v: Value, ranges: &[Range]) -> Res<Value> {
    let dims = c.dims(x);
    let count = Dim::product(&dims);
    let place = super::lod::iota(c, &count)?;
    let place = c.b.reshape(place, dims.clone())?;
    let (mut start, mut len) = (vec![Dim::from(0i64); dims.len()], dims.clone());
    let mut step = vec![1; dims.len()];
    for (a, s, l, k) in ranges {
        (start[*a], len[*a], step[*a]) = (s.clone(), l.clone(), *k);
    }
    let place = c.b.prim(Prim::Slice { start, len, step }, &[place])?;
    let n = c.b.g.tensor(place).count();
    let place = c.b.reshape(place, vec![n.clone(), 1i64.into()])?;
    let v = c.b.reshape(v, vec![n])?;
    let flat = c.b.reshape(x, vec![count])?;
    let v = c.b.prim(Prim::ScatterNd { op: ScatterOp::Set }, &[flat, place, v])?;
    Ok(c.b.reshape(v, dims)?)
}

/// What is assigned, broadcast to the region. Its shape is the slice's, without dropped axes and with
/// new ones.
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
    let drop = c.ints("decrease_axes").unwrap_or_default();
    let drop = drop.into_iter().map(|a| axis_of(a, region.len())).collect::<Res<Vec<_>>>()?;
    let new = c.ints("none_axes").unwrap_or_default();
    let kept: Vec<Dim> =
        (0..region.len()).filter(|i| !drop.contains(i)).map(|i| region[i].clone()).collect();
    let mut shape = vec![];
    for i in 0..=kept.len() {
        let here = |a: &&i64| **a == i as i64 || (i == kept.len() && **a > i as i64);
        shape.extend(new.iter().filter(here).map(|_| Dim::from(1i64)));
        shape.extend(kept.get(i).cloned());
    }
    // Ones in front of it say nothing.
    while c.rank(v) > shape.len() && c.dim(v, 0)?.is(1) {
        v = c.b.squeeze(v, 0)?;
    }
    let v = c.b.broadcast(v, shape)?;
    Ok(c.b.reshape(v, region.to_vec())?)
}

/// index_put: elements of x at the places that several index tensors, or one mask, give.
pub fn index_put(c: &mut Ctx<'_, '_>) -> Res {
    let (x, value) = (c.tensor("X|x")?, c.tensor("Value|value")?);
    let mut columns = vec![];
    for i in c.all("Indices|indices")? {
        if c.b.g.dtype(i) == Dtype::Bool {
            let rows = rows_of_non_zero(c, i)?;
            for k in 0..c.rank(i) {
                let column = c.b.narrow(rows, 1, (k as i64).into(), 1i64.into())?;
                columns.push(c.b.squeeze(column, 1)?);
            }
        } else {
            columns.push(c.b.cast(i, Dtype::I64)?);
        }
    }
    let Some(&first) = columns.first() else { return c.refuse("no index") };
    if columns.len() > c.rank(x) {
        return Err(crate::FrontendError::invalid("more indices than axes"));
    }
    let mut widest = c.b.bin_scalar(hub_ir::BinaryOp::Mul, first, 0.0)?;
    for &i in &columns {
        let none = c.b.bin_scalar(hub_ir::BinaryOp::Mul, i, 0.0)?;
        widest = c.b.add(widest, none)?;
    }
    let places = c.dims(widest);
    let mut parts = vec![];
    for i in columns {
        let i = c.b.broadcast(i, places.clone())?;
        parts.push(c.b.unsqueeze(i, places.len())?);
    }
    let index = c.b.concat(&parts, places.len())?;
    let shape = [&places[..], &c.dims(x)[parts.len()..]].concat();
    let value = c.b.broadcast(value, shape)?;
    let op = if c.flag("accumulate", false) { ScatterOp::Add } else { ScatterOp::Set };
    let v = c.b.prim(Prim::ScatterNd { op }, &[x, index, value])?;
    c.put("Out|out", v);
    Ok(())
}
