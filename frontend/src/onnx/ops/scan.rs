//! Scan: its body becomes a region that runs once a row.

use super::control::{Body, body, carried_out, finish, stable, stacked};
use crate::onnx::cx::{Cx, Got, invalid};
use crate::onnx::table::{Row, op};
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::{Outside, Value};

pub(crate) const OPS: &[Row] = &[op("Scan", 8, batched_scan), op("Scan", 9, |c| scan(c, None))];

/// The scan; of a sequence that ends after `len` steps (a scalar), if that is given: what comes later
/// changes no carried value, and its results are zeros.
fn scan(c: &mut Cx<'_, '_, '_>, len: Option<Value>) -> Got<Vec<Value>> {
    let graph = c.graph("body")?;
    let inputs = (0..c.ins.len()).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    let scans = c.int("num_scan_inputs", 0)?;
    let m = usize::try_from(scans).ok().filter(|&m| m > 0 && m <= inputs.len());
    let Some(m) = m else { return invalid(format!("num_scan_inputs is {scans}")) };
    let n = inputs.len() - m;
    if graph.input.len() != n + m || graph.output.len() < n {
        return invalid("the body's inputs and outputs do not fit");
    }
    let k = graph.output.len() - n;
    let list = |v: Option<Vec<i64>>, len: usize| match v {
        None => Ok(vec![0; len]),
        Some(v) if v.len() == len => Ok(v),
        Some(v) => invalid(format!("{} axes or directions for {len} values", v.len())),
    };
    let in_axes = list(c.ints("scan_input_axes")?, m)?;
    let ways = if c.version < 9 { "directions" } else { "scan_input_directions" };
    let in_back = list(c.ints(ways)?, m)?;
    let out_axes = list(c.ints("scan_output_axes")?, k)?;
    let out_back = list(c.ints("scan_output_directions")?, k)?;
    let start = inputs[..n].to_vec();
    let mut rows = rows_of(c, &inputs[n..], &in_axes, &in_back, len)?;
    let trip = c.dims(rows[0])[0].clone();
    for &r in &rows[1..] {
        let d = c.dim(r, 0)?;
        c.b.g.constraints.equal(&trip, &d)?;
    }
    let known = c.b.g.syms.len() as u32;
    if len.is_some() {
        // The step's number, for the body to compare.
        let steps = Prim::Iota { dtype: Dtype::I64, shape: vec![trip.clone()], axis: 0 };
        rows.push(c.prim(steps, &[])?);
    }
    let row_type = |&r: &Value| Ok(Type::tensor(c.dtype(r), c.dims_from(r, 1)?));
    let row_types = rows.iter().map(row_type).collect::<Got<Vec<Type>>>()?;
    let (body, types) = stable(c, &start, |c, types, _| {
        let params = [types, &row_types].concat();
        let mut own = vec![];
        let mut body = body(c, graph, &params, &[], |_, given| {
            own = given.to_vec();
            given[..n + m].to_vec()
        })?;
        if let Some(len) = len {
            ended(c, &mut body, &own, [own[n + m], len], n)?;
        }
        let carried = body.results[..n].to_vec();
        Ok((body, carried))
    })?;
    let results = body.results.clone();
    let mut outs = carried_out(c, types, known)?;
    outs.extend(stacked(c, &results[n..], &trip, known)?);
    let control = Control::Scan { body: body.region.0, carried: n as u32, trip, reverse: false };
    let mut outs = finish(c, control, &[start, rows].concat(), outs);
    for i in 0..k {
        let mut y = outs[n + i];
        if out_back[i] != 0 {
            y = reversed(c, y)?;
        }
        let axis = c.axis(out_axes[i], c.rank(y))?;
        outs[n + i] = moved(c, y, 0, axis)?;
    }
    Ok(outs)
}

/// What a scan goes over, the axis that it goes along first, in the order in which it goes.
fn rows_of(
    c: &mut Cx<'_, '_, '_>,
    xs: &[Value],
    axes: &[i64],
    back: &[i64],
    len: Option<Value>,
) -> Got<Vec<Value>> {
    let mut rows = vec![];
    for ((&x, &axis), &back) in xs.iter().zip(axes).zip(back) {
        let axis = c.axis(axis, c.rank(x))?;
        let x = moved(c, x, axis, 0)?;
        rows.push(match (back != 0, len) {
            (false, _) => x,
            (true, None) => reversed(c, x)?,
            (true, Some(len)) => reversed_within(c, x, len)?,
        });
    }
    Ok(rows)
}

/// Version 8: every operand has a batch axis first, and each batch scans for itself.
fn batched_scan(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut ins = (1..c.ins.len()).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    if ins.is_empty() || ins.iter().any(|&v| c.rank(v) == 0) {
        return invalid("operands need a batch axis");
    }
    let trip = c.dims(ins[0])[0].clone();
    if let Some(lens) = c.opt(0) {
        ins.push(c.cast(lens, Dtype::I64)?);
    }
    let region = c.b.g.new_region();
    let mut slices = vec![];
    for &v in &ins {
        let (first, row) = (c.dim(v, 0)?, Type::tensor(c.dtype(v), c.dims_from(v, 1)?));
        c.b.g.constraints.equal(&trip, &first)?;
        slices.push(c.b.g.add_param(region, row));
    }
    let outside = Outside::now(c.b);
    let known = c.b.g.syms.len() as u32;
    let len = c.opt(0).and(slices.last().copied());
    slices.truncate(c.ins.len() - 1);
    let mut b = c.b.nested();
    let mut own = Cx { b: &mut b, imp: &mut *c.imp, node: c.node, ins: slices, version: c.version };
    let results = scan(&mut own, len)?;
    outside.close(&mut b)?;
    b.into_region(region);
    c.b.g.regions[region].results = results.clone();
    let outs = stacked(c, &results, &trip, known)?;
    let control = Control::Scan { body: region.0, carried: 0, trip, reverse: false };
    Ok(finish(c, control, &ins, outs))
}

/// After the last step a body's carried values stay as they were (`own`), and its results are zeros.
fn ended(
    c: &mut Cx<'_, '_, '_>,
    body: &mut Body,
    own: &[Value],
    [step, len]: [Value; 2],
    carried: usize,
) -> Got<()> {
    let mut b = c.b.nested();
    let live = b.bin(BinaryOp::Lt, step, len)?;
    for (i, r) in body.results.iter_mut().enumerate() {
        let rest = match own.get(i).filter(|_| i < carried) {
            Some(&old) => old,
            None => b.scalar(b.g.dtype(*r), 0.0),
        };
        *r = b.select(live, *r, rest)?;
    }
    b.into_region(body.region);
    c.b.g.regions[body.region].results.clone_from(&body.results);
    Ok(())
}

/// x with axis `from` at place `to`.
fn moved(c: &mut Cx<'_, '_, '_>, x: Value, from: usize, to: usize) -> Got {
    let mut perm: Vec<usize> = (0..c.rank(x)).filter(|&a| a != from).collect();
    perm.insert(to, from);
    Ok(c.b.transpose(x, &perm)?)
}

/// The first `len` rows of x backwards; what stands behind them stays.
fn reversed_within(c: &mut Cx<'_, '_, '_>, x: Value, len: Value) -> Got {
    let rows = c.dim(x, 0)?;
    let i = c.prim(Prim::Iota { dtype: Dtype::I64, shape: vec![rows], axis: 0 }, &[])?;
    let last = c.bin_scalar(BinaryOp::Sub, len, 1.0)?;
    let mirror = c.bin(BinaryOp::Sub, last, i)?;
    let inside = c.bin_scalar(BinaryOp::Ge, mirror, 0.0)?;
    let at = c.b.select(inside, mirror, i)?;
    c.prim(Prim::Gather { axis: 0 }, &[x, at])
}

/// x backwards along its first axis.
fn reversed(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let len = c.at_least(x, 1)?;
    let mut start = vec![Dim::from(0i64); len.len()];
    let mut step = vec![1; len.len()];
    (start[0], step[0]) = (len[0].plus(-1), -1);
    c.prim(Prim::Slice { start, len, step }, &[x])
}
