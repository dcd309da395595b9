//! Anchors and copies as operators of the device: which one, with which attributes, on which views.
//!
//! A view is an operand with axes merged, reordered or added, which strides can say; so no operand is
//! moved for an operator's sake. What none of the operators computes is left to the kernel IR.

use crate::kir::{Access, Kernel, KernelBuilder};
use crate::lower::contract::{anchor, param};
use crate::task::{Lowered, Operand, Refused, Task, TaskArg, Which};
use hub_abi::operator::{MAX_RANK, Operator};
use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};

/// An operand as an operator sees it: sizes and strides of its axes.
struct View<'o> {
    which: Which,
    operand: &'o Operand,
    axes: Vec<(Dim, Dim)>,
}

impl<'o> View<'o> {
    /// All axes as they are.
    fn whole(which: Which, operand: &'o Operand) -> View<'o> {
        let axes = operand.dims.iter().cloned().zip(operand.strides.iter().cloned()).collect();
        View { which, operand, axes }
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Unsupported(why.into()))
}

/// The operator that computes a group that is nothing but an anchor.
///
/// # Errors
/// Why none does.
pub fn lower(task: &Task<'_>) -> Result<Lowered, Refused> {
    let (node, prim) = anchor(task, |p| {
        matches!(p, Prim::Contract { .. } | Prim::Conv { .. } | Prim::Window { .. })
    })?;
    let plain = |v: &hub_ir::Value| task.g.dtype(*v) == Dtype::F32;
    let data = &task.g.nodes[node];
    if !data.inputs.iter().chain(&data.outputs).all(plain) {
        return no("an operator on other elements than f32");
    }
    let alone = task.g.regions[task.region].nodes.len() == 1;
    if !alone || task.inputs.len() != data.inputs.len() {
        return no("an anchor that does not stand alone");
    }
    let at: Vec<usize> = data.inputs.iter().map(|v| param(task, *v)).collect::<Result<_, _>>()?;
    let input = |i: usize| (Which::In(at[i]), &task.inputs[at[i]]);
    let output = (Which::Out(0), &task.outputs[0]);
    match prim {
        Prim::Contract { a, b, out } => contract([input(0), input(1), output], [a, b, out]),
        Prim::Conv { geo, groups } => {
            let views = [input(0), input(1), output].map(|(w, o)| View::whole(w, o));
            let taps = Dim::product(&task.inputs[at[1]].dims[1..]);
            let more = format!(r#","groups":{groups}"#);
            finish("Convolution", geometry(geo, &more)?, views.into(), 1, taps.times(2))
        }
        Prim::Window { op, kernel, geo } => {
            let name = match op {
                ReduceOp::Max => "MaxPool",
                ReduceOp::Sum => "SumPool",
                op => return no(format!("a window of {op:?}")),
            };
            let views = [input(0), output].map(|(w, o)| View::whole(w, o));
            let taps: i64 = kernel.iter().product();
            let more = format!(r#","kernel":{kernel:?}"#);
            finish(name, geometry(geo, &more)?, views.into(), 1, taps.into())
        }
        _ => unreachable!("the filter above"),
    }
}

/// A copy between operands of the same sizes, if an operator makes it.
///
/// # Errors
/// Why none does.
pub fn copy(src: &Operand, dst: &Operand) -> Result<Lowered, Refused> {
    let axes = src.dims.iter().enumerate().filter(|(_, d)| !d.is(1));
    let axes = axes.map(|(a, d)| (d.clone(), vec![src.strides[a].clone(), dst.strides[a].clone()]));
    let axes = merged(axes.collect());
    let of = |i: usize| axes.iter().map(|(d, s)| (d.clone(), s[i].clone())).collect();
    let views = vec![
        View { which: Which::In(0), operand: src, axes: of(0) },
        View { which: Which::Out(0), operand: dst, axes: of(1) },
    ];
    finish("Copy", "{}".into(), views, 1, 0i64.into())
}

/// A geometry's attributes, followed by others.
fn geometry(geo: &Geometry, more: &str) -> Result<String, Refused> {
    let pads: Option<Vec<i64>> = geo.before.iter().chain(&geo.after).map(Dim::as_const).collect();
    let Some(pads) = pads.filter(|p| p.iter().all(|n| *n >= 0)) else {
        return no("padding that is negative, or known only when sizes are");
    };
    if !(1..=3).contains(&geo.stride.len()) {
        return no(format!("{} spatial axes", geo.stride.len()));
    }
    let (stride, dilation) = (&geo.stride, &geo.dilation);
    Ok(format!(r#"{{"strides":{stride:?},"dilations":{dilation:?},"paddings":{pads:?}{more}}}"#))
}

/// Neighbouring axes that all operands see as one become one.
fn merged(axes: Vec<(Dim, Vec<Dim>)>) -> Vec<(Dim, Vec<Dim>)> {
    let mut out: Vec<(Dim, Vec<Dim>)> = vec![];
    for (d, s) in axes {
        match out.last_mut() {
            Some((od, os)) if os.iter().zip(&s).all(|(o, i)| *o == i.mul(&d)) => {
                *od = od.mul(&d);
                *os = s;
            }
            _ => out.push((d, s)),
        }
    }
    out
}

/// A contraction as a product of matrices: shared axes first, then rows and columns.
fn contract(operands: [(Which, &Operand); 3], labels: [&Vec<u8>; 3]) -> Result<Lowered, Refused> {
    let of = |i: usize, l: u8| {
        let at = labels[i].iter().position(|x| *x == l)?;
        Some((operands[i].1.dims[at].clone(), operands[i].1.strides[at].clone()))
    };
    let (mut batch, mut rows, mut columns, mut summed) = (vec![], vec![], vec![], vec![]);
    let more = labels[0].iter().filter(|l| !labels[2].contains(l));
    for &l in labels[2].iter().chain(more) {
        let each = [of(0, l), of(1, l), of(2, l)];
        let dims: Vec<&Dim> = each.iter().flatten().map(|(d, _)| d).collect();
        if dims.iter().all(|d| d.is(1)) {
            continue;
        }
        if dims.windows(2).any(|d| d[0] != d[1]) {
            return no("a contraction that spreads an axis of size 1");
        }
        let there = [each[0].is_some(), each[1].is_some(), each[2].is_some()];
        let strides = each.iter().map(|e| e.as_ref().map_or(0i64.into(), |e| e.1.clone()));
        let axis = (dims[0].clone(), strides.collect());
        match there {
            [true, true, true] => batch.push(axis),
            [true, false, true] => rows.push(axis),
            [false, true, true] => columns.push(axis),
            [true, true, false] => summed.push(axis),
            _ => return no("a contraction that sums an axis of one operand"),
        }
    }
    if labels[1].iter().any(|l| of(0, *l).is_none() && of(2, *l).is_none()) {
        return no("a contraction that sums an axis of one operand");
    }
    let one = || (Dim::from(1i64), vec![Dim::from(1i64); 3]);
    let [mut rows, mut columns, mut summed] = [rows, columns, summed].map(merged);
    let row = rows.pop().unwrap_or_else(one);
    let column = columns.pop().unwrap_or_else(one);
    let sum = summed.pop().unwrap_or_else(one);
    if !summed.is_empty() {
        return no("a contraction over axes that do not lie in a row");
    }
    let shared = merged(batch.into_iter().chain(rows).chain(columns).collect());
    let view = |i: usize, last: [&(Dim, Vec<Dim>); 2]| {
        let spread = |(d, s): &(Dim, Vec<Dim>)| match s[i].is(0) {
            true => (Dim::from(1i64), Dim::from(1i64)),
            false => (d.clone(), s[i].clone()),
        };
        let last = last.map(|(d, s)| (d.clone(), s[i].clone()));
        let axes = shared.iter().map(spread).chain(last).collect();
        View { which: operands[i].0, operand: operands[i].1, axes }
    };
    let views = vec![view(0, [&row, &sum]), view(1, [&sum, &column]), view(2, [&row, &column])];
    finish("MatMul", "{}".into(), views, 1, sum.0.times(2))
}

/// The step: views are inputs but for the last `outputs`; `flops` are those of an element.
fn finish(
    name: &str,
    attributes: String,
    views: Vec<View<'_>>,
    outputs: usize,
    flops: Dim,
) -> Result<Lowered, Refused> {
    if let Some(v) = views.iter().find(|v| v.axes.len() > MAX_RANK) {
        return no(format!("an operand of {} axes", v.axes.len()));
    }
    let backwards = |d: &Dim| d.konst() < 0 || d.terms().iter().any(|t| t.coef < 0);
    if views.iter().flat_map(|v| &v.axes).any(|(_, s)| backwards(s)) {
        return no("an operand that runs backwards");
    }
    let mut b = KernelBuilder::new(name.to_lowercase());
    let (mut args, mut bytes) = (vec![], Dim::from(0i64));
    let first_output = views.len() - outputs;
    for (i, v) in views.iter().enumerate() {
        let access = if i < first_output { Access::Read } else { Access::Write };
        b.ptr(format!("t{i}"), v.operand.dtype, access);
        let (offset, extent) = v.operand.span();
        args.push(TaskArg::Ptr { of: v.which, offset, extent });
        let count = v.axes.iter().fold(Dim::from(1i64), |n, (d, _)| n.mul(d));
        bytes = bytes.add(&count.times(v.operand.dtype.size() as i64));
    }
    for (i, v) in views.iter().enumerate() {
        for (what, part) in [("d", 0), ("s", 1)] {
            for (a, (dim, stride)) in v.axes.iter().enumerate() {
                b.size(format!("t{i}{what}{a}"));
                args.push(TaskArg::Size(if part == 0 { dim.clone() } else { stride.clone() }));
            }
        }
    }
    let types = |v: &View<'_>| (v.operand.dtype, v.axes.len());
    let (ins, outs) = views.split_at(first_output);
    let operator = Operator {
        name: name.into(),
        inputs: ins.iter().map(types).collect(),
        outputs: outs.iter().map(types).collect(),
        attributes,
    };
    let elements = outs.iter().flat_map(|v| &v.axes).fold(Dim::from(1i64), |n, (d, _)| n.mul(d));
    let schedule = format!("operator {name}");
    let kernel = Kernel { operator: Some(operator), ..b.finish() };
    // Nothing is done where there is nothing to make.
    let tiles = elements.min_of(&1i64.into());
    Ok(Lowered { kernel, args, tiles, flops: elements.mul(&flops), bytes, schedule })
}
