//! Contractions as multiply-accumulate problems: which operand is read in vectors, how a constant
//! one is packed, and what each label is.

use super::contract_mac::{
    Axis, Body, Mac, PANEL, in_pairs, likely_count, lower_mac, step_of, whole_pairs, worth_panels,
};
use super::cx::{Made, unsupported};
use crate::target::Target;
use crate::task::{self, Format, Lowered, Operand, Refused, Task};
use hub_abi::pgraph::Packing;
use hub_abi::prim::Prim;
use hub_abi::{Dim, Dtype};
use hub_ir::{Def, Node, Op, Value};

/// The only anchor of a group: a node of its region that `is` accepts.
///
/// # Errors
/// None or several such nodes.
pub fn anchor<'g>(
    task: &Task<'g>,
    is: impl Fn(&Prim) -> bool,
) -> Result<(Node, &'g Prim), Refused> {
    let g = task.g;
    let prim = |n: Node| match &g.nodes[n].op {
        Op::Prim(p) if is(p) => Some((n, p)),
        _ => None,
    };
    let mut all = g.regions[task.region].nodes.iter().filter_map(|&n| prim(n));
    match (all.next(), all.next()) {
        (Some(found), None) => Ok(found),
        _ => Err(Refused::Unsupported("a group needs exactly one anchor".into())),
    }
}

/// The region param that a value is, or is the widened form of: loads widen.
///
/// # Errors
/// The value is computed inside the group.
pub fn param(task: &Task<'_>, v: Value) -> Result<usize, Refused> {
    let v = task::narrow_form(task.g, v);
    match task.g.values[v].def {
        Def::Param(r, i) if r == task.region => Ok(i as usize),
        _ => Err(Refused::Unsupported("an anchor's operand computed inside its group".into())),
    }
}

/// Lowers a group around a [`Prim::Contract`].
///
/// # Errors
/// What placement has to do first, or why there is no native kernel.
pub fn lower(task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    lower_mac(task, target, &problem(task, target)?)
}

/// The problem of a group around a [`Prim::Contract`].
///
/// # Errors
/// As [`lower`].
pub fn problem(task: &Task<'_>, target: &Target) -> Result<Mac, Refused> {
    let (node, prim) = anchor(task, |p| matches!(p, Prim::Contract { .. }))?;
    let Prim::Contract { a, b, out } = prim else { unreachable!("the filter above") };
    let ins = &task.g.nodes[node].inputs;
    let (ia, ib) = (param(task, ins[0])?, param(task, ins[1])?);
    let anchor = task.g.nodes[node].outputs[0];
    let sides = [Labeled { input: ia, labels: a }, Labeled { input: ib, labels: b }];
    let vector = vector_side(task, &sides, anchor, out);
    let (v, s) = (&sides[vector], &sides[1 - vector]);
    build(task, target, (s, v), anchor, out).map_err(super::contract_mac::refused)
}

/// An operand and its axes' labels.
struct Labeled<'g> {
    input: usize,
    labels: &'g [u8],
}

impl Labeled<'_> {
    fn op<'t>(&self, task: &'t Task<'_>) -> &'t Operand {
        &task.inputs[self.input]
    }

    fn axis(&self, l: u8) -> Option<usize> {
        self.labels.iter().position(|&x| x == l)
    }

    fn dim(&self, task: &Task<'_>, l: u8) -> Option<Dim> {
        Some(self.op(task).dims[self.axis(l)?].clone())
    }

    fn stride(&self, task: &Task<'_>, l: u8) -> Dim {
        self.axis(l).map_or(0i64.into(), |a| self.op(task).strides[a].clone())
    }
}

/// Where the anchor's elements go: the output that has its dims, for strides.
fn out_strides<'t>(task: &'t Task<'_>, anchor: Value) -> Option<&'t Operand> {
    let dims = task.g.dims(anchor);
    task.outputs.iter().find(|o| o.dims == dims)
}

/// Which side is read in vectors: the one whose label is contiguous in the output, unless that
/// costs a copy that the other does not.
fn vector_side(task: &Task<'_>, sides: &[Labeled<'_>; 2], anchor: Value, out: &[u8]) -> usize {
    let label = out_strides(task, anchor).and_then(|o| o.unit_axis()).map(|a| out[a]);
    let features = |i: usize| {
        let one = |l: &&u8| {
            sides[1 - i].axis(**l).is_none() && sides[i].dim(task, **l).is_some_and(|d| !d.is(1))
        };
        out.iter().filter(one).count()
    };
    let wanted = label.and_then(|l| {
        let has = [sides[0].axis(l).is_some(), sides[1].axis(l).is_some()];
        match has {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    });
    let ready = |i: usize| {
        let o = sides[i].op(task);
        let unit = label.is_some_and(|l| sides[i].stride(task, l).is(1));
        o.constant || o.format != Format::Strided || unit
    };
    match wanted {
        Some(i) if !ready(i) && features(1 - i) == 0 => 1 - i,
        Some(i) => i,
        None if features(1) == 0 && features(0) > 0 && ready(0) => 0,
        None if sides[0].op(task).constant && !sides[1].op(task).constant && features(0) > 0 => 0,
        None => 1,
    }
}

fn build(
    task: &Task<'_>,
    target: &Target,
    (s, v): (&Labeled<'_>, &Labeled<'_>),
    anchor: Value,
    out: &[u8],
) -> Made<Mac> {
    let dims = task.g.dims(anchor);
    let at = |l: u8| out.iter().position(|&x| x == l).map(|o| (o, 1));
    let (mut batch, mut rows, mut features) = (vec![], vec![], vec![]);
    for (o, &l) in out.iter().enumerate() {
        let ax =
            Axis { dim: dims[o].clone(), s: s.stride(task, l), v: v.stride(task, l), out: at(l) };
        match (s.axis(l), v.axis(l)) {
            _ if ax.dim.is(1) => {}
            (Some(_), Some(_)) | (None, None) => batch.push((l, ax)),
            (Some(_), None) => rows.push(ax),
            (None, Some(_)) => features.push((l, ax)),
        }
    }
    let mut k = vec![];
    // In the vector operand's order, so that a packed one is walked from end to end.
    let only_s = s.labels.iter().filter(|l| v.axis(**l).is_none());
    for &l in only_s.chain(v.labels) {
        let dim = s.dim(task, l).or_else(|| v.dim(task, l));
        if let (false, Some(dim)) = (out.contains(&l), dim) {
            k.push((l, Axis { dim, s: s.stride(task, l), v: v.stride(task, l), out: None }));
        }
    }
    let sdims = &s.op(task).dims;
    let mut mac = Mac {
        name: "contract",
        body: Body::Broadcast,
        anchor,
        scalar: s.input,
        vector: Some(v.input),
        batch: vec![],
        rows,
        n: Axis { dim: 1i64.into(), s: 0i64.into(), v: 0i64.into(), out: None },
        panel: None,
        pairs: false,
        k: vec![],
        start: 0i64.into(),
        footprint: likely_count(sdims),
    };
    let even =
        |k: &Axis| k.dim.as_const().is_some_and(|n| whole_pairs(task, s.input, n)) && k.s.is(1);
    let last = k.iter().map(|k| &k.1).rfind(|k| !k.dim.is(1));
    mac.pairs = last.is_some_and(even) && in_pairs(task, target, anchor, s.input, v.input);
    let o = v.op(task);
    if s.op(task).format != Format::Strided {
        return unsupported("both operands of a contraction are packed");
    }
    if features.is_empty() || !packed(task, v, &mut batch, &mut features, &mut k, &mut mac)? {
        if o.format != Format::Strided {
            return unsupported("a packed operand that is read in another order");
        }
        // Pairs of f16 are multiplied in tiles only, which read panels.
        mac.pairs &= o.dtype != Dtype::F16;
        if let Some(i) = contiguous(task, anchor, &features) {
            let (l, ax) = features.remove(i);
            if !ax.v.is(1) {
                let axis = v.axis(l).unwrap_or(0);
                return Err(Refused::Relayout { input: v.input, axis }.into());
            }
            mac.n = ax;
        }
    }
    mac.batch = batch.into_iter().chain(features).map(|x| x.1).collect();
    mac.k = k.into_iter().map(|x| x.1).collect();
    mac.simplify();
    // A tile's rows lie along the last row axis: rather along a sequence than along a batch.
    if let [outer, inner] = &mac.rows[..]
        && is_batch(task, &inner.dim)
        && !is_batch(task, &outer.dim)
    {
        mac.rows.swap(0, 1);
    }
    Ok(mac)
}

/// Is it bound to the first axis of an input? That is most often a batch, and a small one where
/// models are deployed.
fn is_batch(task: &Task<'_>, d: &Dim) -> bool {
    let g = task.g;
    let first = |v: &Value| g.ty(*v).as_tensor().and_then(|t| t.dims.first()?.as_sym());
    let params = &g.regions[g.root()].params;
    d.as_sym().is_some_and(|s| params.iter().any(|v| first(v) == Some(s)))
}

/// The feature axis that vectors run along: contiguous in the output, else in the operand, else
/// the last.
fn contiguous(task: &Task<'_>, anchor: Value, features: &[(u8, Axis)]) -> Option<usize> {
    let unit = out_strides(task, anchor).and_then(|o| o.unit_axis());
    let by_out = features.iter().position(|f| f.1.out.map(|o| o.0) == unit && unit.is_some());
    let by_v = || features.iter().position(|f| f.1.v.is(1));
    by_out.or_else(by_v).or(features.len().checked_sub(1))
}

/// Strides of a vector operand that is packed (this asks for it): a constant, or one that is worth a
/// copy; false where it is neither, or where its axes have an order that packing does not know.
fn packed(
    task: &Task<'_>,
    v: &Labeled<'_>,
    batch: &mut [(u8, Axis)],
    features: &mut Vec<(u8, Axis)>,
    k: &mut [(u8, Axis)],
    mac: &mut Mac,
) -> Made<bool> {
    let o = v.op(task);
    let size = |l: u8| v.dim(task, l).and_then(|d| d.as_const()).unwrap_or(0);
    let in_order = |part: &[(u8, Axis)]| -> Vec<u8> {
        let real = v.labels.iter().filter(|l| part.iter().any(|p| p.0 == **l));
        real.copied().collect()
    };
    let (lb, ln, lk) = (in_order(batch), in_order(features), in_order(k));
    let real = |l: &[u8]| -> Vec<u8> { l.iter().copied().filter(|&l| size(l) != 1).collect() };
    let order = real(v.labels);
    let (n_first, k_first) =
        (real(&[&lb[..], &ln, &lk].concat()), real(&[&lb[..], &lk, &ln].concat()));
    if order != n_first && order != k_first {
        return Ok(false);
    }
    let product = |l: &[u8]| l.iter().map(|&l| size(l)).product::<i64>();
    let (outer, n, sum) = (product(&lb), product(&ln), product(&lk));
    let last = *ln.last().expect("features are not empty");
    if outer * n * sum <= 0 || (ln.len() > 1 && size(last) % PANEL != 0) {
        return Ok(false);
    }
    let rows = likely_count(mac.rows.iter().map(|r| &r.dim));
    let copied = !mac.pairs && worth_panels(n * sum, o.dtype, rows);
    if !o.constant && o.format == Format::Strided && !copied {
        return Ok(false);
    }
    let packing = Packing {
        outer: outer as u64,
        n: n as u64,
        k: sum as u64,
        k_major: order != n_first,
        taps: 1,
        block: PANEL as u64,
        v: step_of(mac.pairs),
    };
    if o.format != Format::Packed(packing.clone()) {
        return Err(Refused::Pack { input: v.input, packing }.into());
    }
    let panel = sum * PANEL;
    strides(k, &lk, &size, PANEL);
    strides(batch, &lb, &size, (n + PANEL - 1) / PANEL * panel);
    strides(features, &ln, &size, sum);
    let i = features.iter().position(|f| f.0 == last).expect("one of the features");
    mac.n = features.remove(i).1;
    mac.panel = Some(panel);
    Ok(true)
}

/// Row-major strides over `labels`, the last being `unit`; axes that the operand lacks have none.
fn strides(axes: &mut [(u8, Axis)], labels: &[u8], size: &dyn Fn(u8) -> i64, unit: i64) {
    let mut at = unit;
    for &l in labels.iter().rev() {
        if let Some(x) = axes.iter_mut().find(|x| x.0 == l) {
            x.1.v = at.into();
        }
        at *= size(l);
    }
}
