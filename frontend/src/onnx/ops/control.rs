//! If and Loop: bodies become regions (those of Scan are in `scan.rs`).
//!
//! What a body learns about sizes stays in it: symbols that it binds do not leave (an output whose
//! size depends on one gets a symbol of its own, bound when the node is done), and equalities that
//! it needs are checked in it, since it may not run, or run with other sizes each time.

use super::sequence;
use crate::onnx::cx::{Cx, Got, invalid, unsupported};
use crate::onnx::proto::GraphProto;
use crate::onnx::table::{Row, op};
use crate::options::DIM_MAX;
use hub_abi::pgraph::Control;
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::{Builder, Outside, Region, Value};

pub(crate) const OPS: &[Row] = &[op("If", 1, branch), op("Loop", 1, repeat)];

/// A body as a region, with the types of what it gives.
pub(super) struct Body {
    pub region: Region,
    pub results: Vec<Value>,
}

/// Imports a body whose inputs have the given types. Its outputs after `head` fixed ones follow.
pub(super) fn body<'m>(
    c: &mut Cx<'_, '_, 'm>,
    graph: &'m GraphProto,
    params: &[Type],
    unranked: &[bool],
    extra: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> Got<Body> {
    let outside = Outside::now(c.b);
    let region = c.b.g.new_region();
    let given: Vec<Value> = params.iter().map(|t| c.b.g.add_param(region, t.clone())).collect();
    let marked = given.iter().zip(unranked).filter(|(_, u)| **u).map(|(v, _)| *v);
    c.imp.unranked.extend(marked);
    let name = c.b.name.clone();
    let mut b = c.b.nested();
    let named = extra(&mut b, &given);
    if named.len() < graph.input.len() {
        return invalid(format!("{} inputs for a body of {}", named.len(), graph.input.len()));
    }
    let names = graph.input.iter().map(|i| &*i.name).zip(named).collect();
    let results = c.imp.body(&mut b, graph, names)?;
    b.name = name;
    outside.close(&mut b)?;
    b.into_region(region);
    c.b.g.regions[region].results = results.clone();
    Ok(Body { region, results })
}

/// Is it known outside a body, whose symbols start at `known`?
fn outside(d: &Dim, known: u32) -> bool {
    let mut all = true;
    d.each_sym(&mut |s| all &= s.0 < known);
    all
}

/// A fresh symbol for a size known when a node is done.
fn fresh(c: &mut Cx<'_, '_, '_>, least: i64, most: i64) -> Dim {
    let name = format!("{}.size", c.b.name);
    c.b.g.new_sym(&name, least, most).into()
}

/// The size of a result that is `d` in one body (and `e` in another).
fn joined_dim(c: &mut Cx<'_, '_, '_>, d: &Dim, e: &Dim, known: u32) -> Dim {
    if d == e && outside(d, known) {
        return d.clone();
    }
    let (a, b) = (d.bounds(&c.b.g.syms), e.bounds(&c.b.g.syms));
    fresh(c, a.0.min(b.0).max(0), a.1.max(b.1).clamp(0, DIM_MAX))
}

/// The type that holds values of both.
fn joined(c: &mut Cx<'_, '_, '_>, a: &Type, b: &Type, known: u32) -> Got<Type> {
    Ok(match (a, b) {
        (Type::Tensor(x), Type::Tensor(y)) => {
            if x.dtype != y.dtype {
                return invalid(format!("element types {} and {} differ", x.dtype, y.dtype));
            }
            if x.dims.len() != y.dims.len() {
                return unsupported("a value whose rank is known only when the model runs");
            }
            let dims = x.dims.iter().zip(&y.dims);
            let dims = dims.map(|(d, e)| joined_dim(c, d, e, known)).collect();
            Type::tensor(x.dtype, dims)
        }
        (Type::Seq(x), Type::Seq(y)) => Type::Seq(Box::new(joined(c, x, y, known)?)),
        (Type::Opt(x), Type::Opt(y)) => Type::Opt(Box::new(joined(c, x, y, known)?)),
        (Type::Opt(_), _) | (_, Type::Opt(_)) => {
            return unsupported("an optional in one branch that is a value in the other");
        }
        _ => return invalid("a tensor in one place is a sequence in another"),
    })
}

/// Joins, where a sequence of unknown rank takes the other's type.
fn joined_values(c: &mut Cx<'_, '_, '_>, a: Value, b: Value, known: u32) -> Got<(Type, bool)> {
    let (ta, tb) = (c.b.g.ty(a).clone(), c.b.g.ty(b).clone());
    let (ua, ub) = (c.imp.unranked.contains(&a), c.imp.unranked.contains(&b));
    Ok(match (ua, ub) {
        (true, true) => (ta, true),
        (true, false) => (joined(c, &tb, &tb, known)?, false),
        (false, true) => (joined(c, &ta, &ta, known)?, false),
        _ => (joined(c, &ta, &tb, known)?, false),
    })
}

/// Makes the node's outputs and remembers which are sequences of unknown rank.
pub(super) fn finish(
    c: &mut Cx<'_, '_, '_>,
    control: Control,
    ins: &[Value],
    types: Vec<(Type, bool)>,
) -> Vec<Value> {
    let (types, unranked): (Vec<Type>, Vec<bool>) = types.into_iter().unzip();
    let outs = c.b.control(control, ins, types);
    c.imp.unranked.extend(outs.iter().zip(unranked).filter(|(_, u)| *u).map(|(v, _)| *v));
    outs
}

fn scalar_bool(c: &mut Cx<'_, '_, '_>, v: Value) -> Got {
    match c.b.g.ty(v).as_tensor().map(|t| t.dtype) {
        Some(Dtype::Bool) => c.reshape(v, vec![]),
        Some(other) => invalid(format!("a condition is {other}")),
        None => invalid("a condition is not a tensor"),
    }
}

fn branch(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let cond = c.tensor(0)?;
    let graphs = [c.graph("then_branch")?, c.graph("else_branch")?];
    // A branch that is known to be taken is no branch.
    if let Some([k]) = c.known_ints(cond).as_deref() {
        return c.imp.body(c.b, graphs[usize::from(*k == 0)], vec![]);
    }
    let cond = scalar_bool(c, cond)?;
    let known = c.b.g.syms.len() as u32;
    let [then, orelse] = graphs;
    let mut then = body(c, then, &[], &[], |_, _| vec![])?;
    let mut orelse = body(c, orelse, &[], &[], |_, _| vec![])?;
    if then.results.len() != orelse.results.len() {
        return invalid("the branches give different numbers of values");
    }
    same_rank(c, &mut then, &mut orelse)?;
    let pairs = then.results.iter().zip(&orelse.results);
    let types = pairs.map(|(&a, &b)| joined_values(c, a, b, known)).collect::<Got<Vec<_>>>()?;
    let control = Control::If { then: then.region.0, orelse: orelse.region.0 };
    Ok(finish(c, control, &[cond], types))
}

/// Where one branch gives a single number and the other a vector (or more axes) of one number, the
/// first takes the other's rank: what broadcasts cannot tell them apart.
fn same_rank(c: &mut Cx<'_, '_, '_>, then: &mut Body, orelse: &mut Body) -> Got<()> {
    for i in 0..then.results.len() {
        let pair = [then.results[i], orelse.results[i]];
        let [Some(a), Some(b)] = pair.map(|v| c.b.g.ty(v).as_tensor().cloned()) else { continue };
        let (least, most) = (a.dims.len().min(b.dims.len()), a.dims.len().max(b.dims.len()));
        let single = [&a, &b].iter().all(|t| t.dims.iter().all(|d| d.is(1)));
        if least == most || !single {
            continue;
        }
        let lower = if a.dims.len() < b.dims.len() { &mut *then } else { &mut *orelse };
        let what = format!("{}: a branch's number takes the other's rank, {most}", c.b.name);
        let mut inner = c.b.nested();
        let v = inner.reshape(lower.results[i], vec![1i64.into(); most])?;
        inner.into_region(lower.region);
        lower.results[i] = v;
        c.b.g.regions[lower.region].results[i] = v;
        c.imp.warnings.push(what);
    }
    Ok(())
}

/// Rounds of widening before a loop's types must be stable.
const ROUNDS: usize = 8;

/// A carried value's type such that the body keeps it: dims that change become symbols, which each
/// iteration binds anew. Gives the body once the types are stable.
pub(super) fn stable<'m>(
    c: &mut Cx<'_, '_, 'm>,
    start: &[Value],
    mut import: impl FnMut(&mut Cx<'_, '_, 'm>, &[Type], &[bool]) -> Got<(Body, Vec<Value>)>,
) -> Got<(Body, Vec<(Type, bool)>)> {
    let mut types: Vec<(Type, bool)> =
        start.iter().map(|&v| (c.b.g.ty(v).clone(), c.imp.unranked.contains(&v))).collect();
    let own = c.b.g.syms.len() as u32;
    for _ in 0..ROUNDS {
        let known = c.b.g.syms.len() as u32;
        let (t, u): (Vec<Type>, Vec<bool>) = types.iter().cloned().unzip();
        let (body, carried) = import(c, &t, &u)?;
        let mut same = true;
        for ((ty, unranked), v) in types.iter_mut().zip(&carried) {
            let new = c.b.g.ty(*v).clone();
            let new_unranked = c.imp.unranked.contains(v);
            if *unranked && !new_unranked {
                (*ty, *unranked, same) = (joined(c, &new, &new, known)?, false, false);
            } else if !new_unranked && widens(ty, &new, own) {
                (*ty, same) = (widened(c, ty, &new, own)?, false);
            }
        }
        if same {
            return Ok((body, types));
        }
    }
    unsupported("a loop whose values' sizes do not settle")
}

/// Is it a symbol that a widening made, which each iteration binds anew to whatever comes?
fn open_dim(d: &Dim, own: u32) -> bool {
    d.as_sym().is_some_and(|s| s.0 >= own)
}

/// Does a value of type `new` not fit `ty`? (Sequences hold elements of any sizes.)
fn widens(ty: &Type, new: &Type, own: u32) -> bool {
    match (ty, new) {
        (Type::Tensor(a), Type::Tensor(b)) => {
            let fits = |(d, e): (&Dim, &Dim)| d == e || open_dim(d, own);
            let same = a.dtype == b.dtype && a.dims.len() == b.dims.len();
            !(same && a.dims.iter().zip(&b.dims).all(fits))
        }
        (Type::Seq(a), Type::Seq(b)) => match (&**a, &**b) {
            (Type::Tensor(a), Type::Tensor(b)) => {
                a.dtype != b.dtype || a.dims.len() != b.dims.len()
            }
            _ => a != b,
        },
        (Type::Opt(a), Type::Opt(b)) => widens(a, b, own),
        _ => ty != new,
    }
}

/// Every dim that differs becomes a symbol of its own.
fn widened(c: &mut Cx<'_, '_, '_>, a: &Type, b: &Type, own: u32) -> Got<Type> {
    match (a, b) {
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype != y.dtype => {
            invalid(format!("a carried value changes from {} to {}", x.dtype, y.dtype))
        }
        (Type::Tensor(x), Type::Tensor(y)) if x.dims.len() == y.dims.len() => {
            let mut dims = x.dims.clone();
            for (d, e) in dims.iter_mut().zip(&y.dims) {
                if d != e && !open_dim(d, own) {
                    *d = fresh(c, 0, DIM_MAX);
                }
            }
            Ok(Type::tensor(x.dtype, dims))
        }
        (Type::Tensor(_), Type::Tensor(_)) => unsupported("a carried value whose rank changes"),
        (Type::Opt(x), Type::Opt(y)) => Ok(Type::Opt(Box::new(widened(c, x, y, own)?))),
        (Type::Seq(x), Type::Seq(y)) => match (&**x, &**y) {
            (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype && x.dims.is_empty() => {
                Ok(b.clone())
            }
            _ => unsupported("a carried sequence whose elements' rank changes"),
        },
        _ => invalid("a carried value changes its kind"),
    }
}

/// Types of a loop's carried outputs: sizes that the body binds get symbols of their own.
pub(super) fn carried_out(
    c: &mut Cx<'_, '_, '_>,
    types: Vec<(Type, bool)>,
    known: u32,
) -> Got<Vec<(Type, bool)>> {
    types.into_iter().map(|(t, u)| Ok((joined(c, &t, &t, known)?, u))).collect()
}

/// Types of stacked results.
pub(super) fn stacked(
    c: &mut Cx<'_, '_, '_>,
    values: &[Value],
    count: &Dim,
    known: u32,
) -> Got<Vec<(Type, bool)>> {
    let mut types = vec![];
    for &v in values {
        let Some(t) = c.b.g.ty(v).as_tensor().cloned() else {
            return unsupported("a scanned output that is no tensor");
        };
        let mut dims = vec![count.clone()];
        for d in &t.dims {
            dims.push(joined_dim(c, d, d, known));
        }
        types.push((Type::tensor(t.dtype, dims), false));
    }
    Ok(types)
}

/// Where an optional is carried and the body gives what one may hold, an optional is made of it.
fn wrapped(c: &mut Cx<'_, '_, '_>, mut body: Body, types: &[Type]) -> Body {
    for (i, t) in types.iter().enumerate() {
        let r = body.results[1 + i];
        let given = c.b.g.ty(r).clone();
        if !matches!(t, Type::Opt(_)) || matches!(given, Type::Opt(_)) {
            continue;
        }
        let mut b = c.b.nested();
        let control = Control::OptNew { elem: given.clone() };
        let made = b.control(control, &[r], vec![Type::Opt(Box::new(given))])[0];
        b.into_region(body.region);
        body.results[1 + i] = made;
        c.b.g.regions[body.region].results[1 + i] = made;
    }
    body
}

fn repeat(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let graph = c.graph("body")?;
    let (trip, cond) = (c.opt(0), c.opt(1));
    let start: Vec<Value> = c.ins.get(2..).unwrap_or(&[]).to_vec();
    let n = start.len();
    if start.iter().any(|v| v.is_none()) || graph.input.len() != n + 2 || graph.output.len() < n + 1
    {
        return invalid("the body's inputs and outputs do not fit the carried values");
    }
    let mut heads = vec![];
    if let Some(t) = trip {
        let t = c.cast(t, Dtype::I64)?;
        heads.push(c.reshape(t, vec![])?);
    }
    // A condition that is known to hold is none.
    let always = match cond {
        Some(v) => c.known_ints(v).is_some_and(|k| k == [1]),
        None => true,
    };
    if let (Some(v), false) = (cond, always) {
        heads.push(scalar_bool(c, v)?);
    }
    let known = c.b.g.syms.len() as u32;
    let mut shown = None;
    let (body, types) = stable(c, &start, |c, types, unranked| {
        let params: Vec<Type> = std::iter::once(Type::tensor(Dtype::I64, vec![]))
            .chain(types.iter().cloned())
            .collect();
        let mut truth = Value::NONE;
        let marks = [&[false], unranked].concat();
        let body = body(c, graph, &params, &marks, |b, given| {
            // Within the body the condition holds.
            truth = b.scalar(Dtype::Bool, 1.0);
            [&[given[0], truth], &given[1..]].concat()
        })?;
        shown = Some(body.results[0] == truth);
        let body = wrapped(c, body, types);
        let carried = body.results[1..=n].to_vec();
        Ok((body, carried))
    })?;
    let results = body.results.clone();
    let count = match (trip, always && shown == Some(true)) {
        (Some(t), true) => c.b.g.content.get(&t).and_then(|d| d.first().cloned()),
        _ => None,
    };
    let count = match count {
        Some(d) if d.bounds(&c.b.g.syms).0 >= 0 => d,
        _ => fresh(c, 0, DIM_MAX),
    };
    if c.dtype(results[0]) != Dtype::Bool {
        return invalid("the body's condition is not bool");
    }
    let mut outs = carried_out(c, types, known)?;
    outs.extend(stacked(c, &results[n + 1..], &count, known)?);
    let control = Control::Loop {
        body: body.region.0,
        has_trip: trip.is_some(),
        has_cond: cond.is_some() && !always,
        carried: n as u32,
    };
    let ins = [heads, start].concat();
    Ok(finish(c, control, &ins, outs))
}

/// A loop over a sequence: the body's outputs for each element make sequences.
pub(super) fn sequence_map(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let graph = c.graph("body")?;
    let first = sequence::sequence(c, 0)?;
    let ins = (0..c.ins.len()).map(|i| c.input(i)).collect::<Got<Vec<_>>>()?;
    if graph.input.len() != ins.len() {
        return invalid("the body's inputs do not fit");
    }
    let trip = c.b.control(Control::SeqLen, &[first], vec![Type::tensor(Dtype::I64, vec![])])[0];
    let region = c.b.g.new_region();
    let i = c.b.g.add_param(region, Type::tensor(Dtype::I64, vec![]));
    // Elements' types, with sizes of their own, for each sequence.
    let mut elements = vec![];
    for &v in &ins {
        elements.push(match c.b.g.ty(v) {
            Type::Seq(_) => {
                let t = sequence::element(c, v)?;
                Some(sequence::resized(c, &t))
            }
            _ => None,
        });
    }
    let outside = Outside::now(c.b);
    let known = c.b.g.syms.len() as u32;
    let mut b = c.b.nested();
    let mut named = vec![];
    for ((input, &v), t) in graph.input.iter().zip(&ins).zip(elements) {
        let x = match t {
            Some(t) => b.control(Control::SeqAt, &[v, i], vec![t])[0],
            None => v,
        };
        named.push((&*input.name, x));
    }
    let results = c.imp.body(&mut b, graph, named)?;
    outside.close(&mut b)?;
    let types: Vec<Type> = results.iter().map(|&r| b.g.ty(r).clone()).collect();
    let seqs: Vec<Type> = types.iter().map(|t| Type::Seq(Box::new(t.clone()))).collect();
    let mut given = vec![];
    for t in &seqs {
        given.push(b.g.add_param(region, t.clone()));
    }
    let mut outs = vec![b.scalar(Dtype::Bool, 1.0)];
    for ((&s, &r), t) in given.iter().zip(&results).zip(&seqs) {
        outs.extend(b.control(Control::SeqInsert, &[s, r], vec![t.clone()]));
    }
    b.into_region(region);
    c.b.g.regions[region].results = outs;
    let mut start = vec![trip];
    for (t, s) in types.iter().zip(&seqs) {
        start.extend(c.b.control(Control::SeqNew { elem: t.clone() }, &[], vec![s.clone()]));
    }
    let carried = seqs.len() as u32;
    let control = Control::Loop { body: region.0, has_trip: true, has_cond: false, carried };
    let types = seqs.into_iter().map(|t| (t, false)).collect();
    let types = carried_out(c, types, known)?;
    Ok(finish(c, control, &start, types))
}
