//! Gathers, scatters, embeddings.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_abi::prim::ScatterOp;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, Sym, Value};

fn indices(c: &mut Ctx<'_, '_>, v: Value) -> Res<Value> {
    match c.b.g.dtype(v) {
        Dtype::I32 | Dtype::I64 => Ok(v),
        d if d.is_int() => Ok(c.b.cast(v, Dtype::I64)?),
        d => c.refuse(format!("indices of type {d}")),
    }
}

/// gather along an axis; an index of shape [n, 1] is a vector.
pub fn gather(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i) = (c.tensor("X")?, c.tensor("Index")?);
    let axis = c.int_or("Axis", "axis|dim", 0)?;
    let axis = axis_of(axis, c.rank(x))? as u32;
    let mut i = indices(c, i)?;
    if c.rank(i) == 2 && c.dim(i, 1)?.is(1) {
        i = c.b.squeeze(i, 1)?;
    }
    let v = c.b.prim(Prim::Gather { axis }, &[x, i])?;
    c.put("Out", v);
    Ok(())
}

/// gather_nd.
pub fn gather_nd(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i) = (c.tensor("X")?, c.tensor("Index")?);
    let i = indices(c, i)?;
    let v = c.b.prim(Prim::GatherNd { batch: 0 }, &[x, i])?;
    c.put("Out", v);
    Ok(())
}

/// index_sample, take_along_axis: one index an element.
pub fn gather_elements(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i) = (c.tensor("X|Input")?, c.tensor("Index")?);
    let i = indices(c, i)?;
    let axis = if c.op.kind == "index_sample" { 1 } else { c.int("Axis|axis", 0) };
    let axis = axis_of(axis, c.rank(x))? as u32;
    let v = c.b.prim(Prim::GatherElements { axis }, &[x, i])?;
    c.put("Out|Result", v);
    Ok(())
}

/// scatter of rows: overwriting, or summing onto zeroed rows.
pub fn scatter(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i, u) = (c.tensor("X")?, c.tensor("Ids")?, c.tensor("Updates")?);
    let mut i = indices(c, i)?;
    if c.rank(i) < 2 {
        let n = c.b.g.tensor(i).count();
        i = c.b.reshape(i, vec![n, 1i64.into()])?;
    }
    let v = if c.flag("overwrite", true) {
        c.b.prim(Prim::ScatterNd { op: ScatterOp::Set }, &[x, i, u])?
    } else {
        let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
        let zeros = c.b.broadcast(zero, c.dims(u))?;
        let x = c.b.prim(Prim::ScatterNd { op: ScatterOp::Set }, &[x, i, zeros])?;
        c.b.prim(Prim::ScatterNd { op: ScatterOp::Add }, &[x, i, u])?
    };
    c.put("Out", v);
    Ok(())
}

/// scatter_nd_add.
pub fn scatter_nd_add(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i, u) = (c.tensor("X")?, c.tensor("Index")?, c.tensor("Updates")?);
    let i = indices(c, i)?;
    let v = c.b.prim(Prim::ScatterNd { op: ScatterOp::Add }, &[x, i, u])?;
    c.put("Out", v);
    Ok(())
}

/// put_along_axis.
pub fn put_along_axis(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i, u) = (c.tensor("Input")?, c.tensor("Index")?, c.tensor("Value")?);
    let i = indices(c, i)?;
    let mean = c.text("Reduce|reduce", "assign") == "mean";
    let op = match c.text("Reduce|reduce", "assign") {
        "assign" => ScatterOp::Set,
        "add" | "mean" => ScatterOp::Add,
        "mul" | "multiply" => ScatterOp::Mul,
        "amax" => ScatterOp::Max,
        "amin" => ScatterOp::Min,
        other => return c.refuse(format!("putting by {other}")),
    };
    let axis = axis_of(c.int("Axis|axis", 0), c.rank(x))? as u32;
    let dims = c.dims(i);
    let u = c.b.broadcast(u, dims.clone())?;
    let put = |c: &mut Ctx<'_, '_>, op, x: Value, u: Value| {
        c.b.prim(Prim::ScatterElements { axis, op }, &[x, i, u])
    };
    let own = c.flag("Include_self|include_self", true);
    let mut base = x;
    if !own && op != ScatterOp::Set {
        let neutral = match op {
            ScatterOp::Mul => 1.0,
            ScatterOp::Max => f64::NEG_INFINITY,
            ScatterOp::Min => f64::INFINITY,
            _ => 0.0,
        };
        let neutral = c.b.scalar(c.b.g.dtype(x), neutral);
        let neutral = c.b.broadcast(neutral, dims.clone())?;
        base = put(c, ScatterOp::Set, x, neutral)?;
    }
    let mut v = put(c, op, base, u)?;
    if mean {
        let one = c.b.scalar(c.b.g.dtype(x), 1.0);
        let ones = c.b.broadcast(one, c.dims(x))?;
        let each = c.b.broadcast(one, dims.clone())?;
        let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
        let none = c.b.broadcast(zero, dims)?;
        let count = if own { ones } else { put(c, ScatterOp::Set, ones, none)? };
        let count = put(c, ScatterOp::Add, count, each)?;
        v = c.b.div(v, count)?;
    }
    c.put("Result|Out", v);
    Ok(())
}

/// lookup_table (its ids end in an axis of 1), lookup_table_v2, embedding.
pub fn embedding(c: &mut Ctx<'_, '_>) -> Res {
    let (w, ids) = (c.tensor("W")?, c.tensor("Ids")?);
    let mut ids = indices(c, ids)?;
    let rank = c.rank(ids);
    if c.op.kind == "lookup_table" && rank > 0 && c.dim(ids, rank - 1)?.is(1) {
        ids = c.b.squeeze(ids, rank - 1)?;
    }
    let mut v = c.b.prim(Prim::Gather { axis: 0 }, &[w, ids])?;
    let pad = c.int("padding_idx", -1);
    if pad >= 0 && !row_is_zero(c, w, pad) {
        let at = c.b.bin_scalar(BinaryOp::Eq, ids, pad as f64)?;
        let at = c.b.unsqueeze(at, c.rank(ids))?;
        let zero = c.b.scalar(c.b.g.dtype(w), 0.0);
        v = c.b.select(at, zero, v)?;
    }
    c.put("Out", v);
    Ok(())
}

/// Exporters keep the padding's row at zero; then nothing is left to do.
fn row_is_zero(c: &Ctx<'_, '_>, w: Value, row: i64) -> bool {
    let Some(data) = c.b.g.as_const(w) else { return false };
    let Some([_, width]) = data.ty.const_dims().and_then(|d| <[i64; 2]>::try_from(d).ok()) else {
        return false;
    };
    let bytes = width as usize * data.ty.dtype.size();
    let at = (row as usize).saturating_mul(bytes);
    data.data.get(at..at.saturating_add(bytes)).is_some_and(|r| r.iter().all(|&b| b == 0))
}

/// where_index, nonzero: one row of indices an element that is not zero.
pub fn non_zero(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Condition")?;
    let v = rows_of_non_zero(c, x)?;
    c.put("Out", v);
    Ok(())
}

/// A symbol for how many elements are not zero.
pub fn count_of_non_zero(c: &mut Ctx<'_, '_>, x: Value) -> Sym {
    let most = c.b.g.tensor(x).count().bounds(&c.b.g.syms).1.clamp(0, DIM_MAX);
    c.b.g.new_sym("nonzero", 0, most)
}

/// Indices of elements that are not zero, int64 `[count, rank]`.
pub fn rows_of_non_zero(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let count = count_of_non_zero(c, x);
    let at = c.b.prim(Prim::NonZero { count }, &[x])?;
    Ok(c.b.transpose(at, &[1, 0])?)
}

/// masked_select: a vector of the elements where the mask holds.
pub fn masked_select(c: &mut Ctx<'_, '_>) -> Res {
    let (x, mask) = (c.tensor("X")?, c.tensor("Mask")?);
    let dims: Vec<Dim> = c.dims(x);
    let mask = c.b.broadcast(mask, dims)?;
    let at = rows_of_non_zero(c, mask)?;
    let v = c.b.prim(Prim::GatherNd { batch: 0 }, &[x, at])?;
    c.put("Y", v);
    Ok(())
}
