//! Messages between the nodes of a graph (as of PGL): gathered at edges, pooled where they go.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_abi::prim::ScatterOp;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, Value};

/// Rows pooled (SUM, MEAN, MAX, MIN) into `n` rows at int64 `[rows]`, 0 where none goes; and how many
/// went to each, in the rows' dtype.
fn pooled(c: &mut Ctx<'_, '_>, x: Value, ids: Value, n: Dim, kind: &str) -> Res<(Value, Value)> {
    let (op, fill) = match kind {
        "SUM" | "MEAN" => (ScatterOp::Add, 0.0),
        "MAX" => (ScatterOp::Max, f64::NEG_INFINITY),
        "MIN" => (ScatterOp::Min, f64::INFINITY),
        other => return c.refuse(format!("pooling by {other}")),
    };
    let dtype = c.b.g.dtype(x);
    let mut shape = c.at_least(x, 1)?;
    let rows = shape[0].clone();
    shape[0] = n.clone();
    let place = c.b.unsqueeze(ids, 1)?;
    let fill = c.b.scalar(dtype, fill);
    let base = c.b.broadcast(fill, shape.clone())?;
    let v = c.b.prim(Prim::ScatterNd { op }, &[base, place, x])?;
    let (zero, one) = (c.b.scalar(dtype, 0.0), c.b.scalar(dtype, 1.0));
    let (zeros, ones) = (c.b.broadcast(zero, vec![n.clone()])?, c.b.broadcast(one, vec![rows])?);
    let each = c.b.prim(Prim::ScatterNd { op: ScatterOp::Add }, &[zeros, place, ones])?;
    let mut column = vec![Dim::from(1i64); shape.len()];
    column[0] = n;
    let of = c.b.reshape(each, column)?;
    let v = if kind == "MEAN" { c.b.div(v, of)? } else { v };
    let some = c.b.bin_scalar(BinaryOp::Gt, of, 0.0)?;
    Ok((c.b.select(some, v, zero)?, each))
}

/// segment_pool: rows pooled by ascending segments.
pub fn segment_pool(c: &mut Ctx<'_, '_>) -> Res {
    let (x, ids) = (c.tensor("X")?, c.tensor("SegmentIds")?);
    let ids = c.b.cast(ids, Dtype::I64)?;
    let last = c.b.reduce(ReduceOp::Max, ids, &[0], false)?;
    let count = c.b.bin_scalar(BinaryOp::Add, last, 1.0)?;
    let n = c.b.dims_of(count, "segments", 0, DIM_MAX)?.remove(0);
    let kind = c.text("pooltype", "SUM").to_string();
    let (v, _) = pooled(c, x, ids, n, &kind)?;
    c.put("Out", v);
    Ok(())
}

/// A message of two values.
fn message(c: &mut Ctx<'_, '_>, x: Value, y: Value) -> Res<Value> {
    let op = match c.text("message_op", "ADD") {
        "ADD" => BinaryOp::Add,
        "SUB" => BinaryOp::Sub,
        "MUL" => BinaryOp::Mul,
        "DIV" => BinaryOp::Div,
        other => return c.refuse(format!("messages by {other}")),
    };
    Ok(c.b.bin(op, x, y)?)
}

fn at_edges(c: &mut Ctx<'_, '_>, x: Value, slot: &str) -> Res<Value> {
    let i = c.tensor(slot)?;
    let i = c.b.cast(i, Dtype::I64)?;
    Ok(c.b.prim(Prim::Gather { axis: 0 }, &[x, i])?)
}

/// send_u_recv, send_ue_recv (graph_send_recv, graph_send_ue_recv): rows at the edges' sources,
/// there with what the edges hold, pooled at their ends.
pub fn send_recv(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let mut v = at_edges(c, x, "Src_index")?;
    if let Some(y) = c.opt("Y|y") {
        let mut y = y;
        while c.rank(y) < c.rank(v) {
            let rank = c.rank(y);
            y = c.b.unsqueeze(y, rank)?;
        }
        v = message(c, v, y)?;
    }
    let to = c.tensor("Dst_index")?;
    let to = c.b.cast(to, Dtype::I64)?;
    let size = c.dims_or("Out_size", "out_size", (0, DIM_MAX))?;
    let n = match size.as_deref() {
        Some([n]) if n.as_const().is_none_or(|n| n > 0) => n.clone(),
        _ => c.dim(x, 0)?,
    };
    let kind = c.text("reduce_op", "SUM").to_string();
    let (v, each) = pooled(c, v, to, n, &kind)?;
    let each = c.b.cast(each, Dtype::I32)?;
    c.put("Out|out", v);
    c.put("Dst_count", each);
    Ok(())
}

/// send_uv (graph_send_uv): what both ends of each edge hold, in one.
pub fn send_uv(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("x|X")?, c.tensor("y|Y")?);
    let (x, y) = (at_edges(c, x, "src_index")?, at_edges(c, y, "dst_index")?);
    let v = message(c, x, y)?;
    c.put("out|Out", v);
    Ok(())
}
