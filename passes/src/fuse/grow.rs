//! How groups grow: forward from an anchor as long as one result leaves, then back over producers
//! that only the group uses.

use super::plan::Plan;
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::{GroupKind, Value};
use std::collections::BTreeSet;

/// Nodes of a group at most.
const MOST_NODES: usize = 64;
/// Outputs of a group at most.
const MOST_OUTPUTS: usize = 4;

type Set = BTreeSet<usize>;

/// Groups around contractions, convolutions and windows.
pub fn anchors(p: &mut Plan<'_>) {
    for i in 0..p.nodes.len() {
        let kind = match p.prim(i) {
            Some(Prim::Contract { .. }) => GroupKind::Contract,
            Some(Prim::Conv { .. }) => GroupKind::Conv,
            Some(Prim::Window { .. }) => GroupKind::Window,
            _ => continue,
        };
        let dims = p.dims(i);
        let fits = |p: &Plan<'_>, j: usize, _: &Set| p.is_elementwise(j) && p.dims(j) == dims;
        let mut set = forward(p, i, &fits, &|_, escaping| escaping.len() == 1);
        backward(p, &mut set, &|p, j, set| {
            let feeds_anchor = p.users(p.out(j)).contains(&i);
            p.is_elementwise(j) && p.dims(j) == dims && !feeds_anchor && !over_gather(p, j, set)
        });
        p.take(kind, i, set);
    }
}

/// Groups of reductions.
pub fn rows(p: &mut Plan<'_>) {
    for i in 0..p.nodes.len() {
        let Some(row) = Row::of(p, i).filter(|_| p.free(i, i)) else { continue };
        let fits = |p: &Plan<'_>, j: usize, set: &Set| row.fits(p, j, set);
        let leaves = |p: &Plan<'_>, escaping: &[Value]| {
            let (_, others) = escaping.split_last().expect("the last node's value leaves");
            others.len() < MOST_OUTPUTS && others.iter().all(|&v| row.is_reduced(p.g.dims(v)))
        };
        let mut set = forward(p, i, &fits, &leaves);
        backward(p, &mut set, &|p, j, set| row.may_feed(p, j, set));
        residual(p, &mut set, &row);
        p.take(GroupKind::Row, i, set);
    }
}

/// Reads elements by index.
fn is_gather(p: &Prim) -> bool {
    matches!(p, Prim::Gather { .. } | Prim::GatherElements { .. } | Prim::GatherNd { .. })
}

/// Groups of what is left.
pub fn maps(p: &mut Plan<'_>) {
    for i in (0..p.nodes.len()).rev() {
        let starts = match p.prim(i) {
            Some(q) => is_gather(q) || matches!(q, Prim::Iota { .. }) || q.is_elementwise(),
            None => false,
        };
        if !starts || !p.free(i, i) {
            continue;
        }
        let dims = p.dims(i);
        let mut set = Set::from([i]);
        loop {
            let size = set.len();
            backward(p, &mut set, &|p, j, set| feeds_map(p, j, set, dims));
            shared(p, &mut set, dims);
            if set.len() == size {
                break;
            }
        }
        p.take(GroupKind::Map, i, set);
    }
}

/// Grows from `start` over nodes that fit, in order; keeps the longest prefix whose escaping values
/// are what may leave (a prefix of one always is).
fn forward(
    p: &Plan<'_>,
    start: usize,
    fits: &dyn Fn(&Plan<'_>, usize, &Set) -> bool,
    leaves: &dyn Fn(&Plan<'_>, &[Value]) -> bool,
) -> Set {
    let mut set = Set::from([start]);
    let mut best = set.clone();
    let mut todo: Set = p.users(p.out(start)).iter().copied().collect();
    while let Some(j) = todo.pop_first() {
        if set.len() >= MOST_NODES {
            break;
        }
        if set.contains(&j) || !p.free(j, start) || !fits(p, j, &set) {
            continue;
        }
        set.insert(j);
        todo.extend(p.users(p.out(j)));
        let escaping = p.escaping(&set);
        let ends = escaping.last() == Some(&p.out(j)) && leaves(p, &escaping);
        if ends && (escaping.len() == 1 || !p.cyclic(&set)) {
            best = set.clone();
        }
    }
    best
}

/// Takes in producers that fit and that nothing outside uses.
fn backward(p: &Plan<'_>, set: &mut Set, fits: &dyn Fn(&Plan<'_>, usize, &Set) -> bool) {
    let mut todo: Vec<usize> = set.iter().copied().collect();
    while let Some(i) = todo.pop() {
        for &v in p.inputs(i) {
            let Some(j) = p.def(v) else { continue };
            let inside = set.contains(&j) || set.len() >= MOST_NODES;
            if !inside && p.free(j, i) && !p.escapes(v, set) && fits(p, j, set) {
                set.insert(j);
                // What it shares with others inside may have become interior.
                todo.push(i);
                todo.push(j);
            }
        }
    }
}

/// A producer of a map that others use too becomes an output, where that makes no cycle.
fn shared(p: &Plan<'_>, set: &mut Set, dims: &[Dim]) {
    let members: Vec<usize> = set.iter().copied().collect();
    for i in members.into_iter().rev() {
        for &v in p.inputs(i) {
            let Some(j) = p.def(v) else { continue };
            let fits = p.is_elementwise(j) && p.dims(j) == dims && set.len() < MOST_NODES;
            if set.contains(&j) || !fits || !p.free(j, i) || over_gather(p, j, set) {
                continue;
            }
            try_with(p, set, j);
        }
    }
}

/// Adds a node if the group stays within its limits and makes no cycle.
fn try_with(p: &Plan<'_>, set: &mut Set, j: usize) {
    set.insert(j);
    if p.escaping(set).len() > MOST_OUTPUTS || p.cyclic(set) {
        set.remove(&j);
    }
}

/// Reads a gather that could be fused, itself or by elementwise primitives that only it uses: better
/// left to a map whole, or each of its gathers is a tensor in memory.
fn over_gather(p: &Plan<'_>, j: usize, _: &Set) -> bool {
    reads_gather(p, j, 8)
}

fn reads_gather(p: &Plan<'_>, j: usize, depth: usize) -> bool {
    p.inputs(j).iter().any(|&v| {
        let mine = |d: &usize| p.users(v).len() == 1 && p.free(*d, j);
        p.def(v).filter(mine).is_some_and(|d| match p.prim(d) {
            Some(q) if is_gather(q) => true,
            Some(q) if q.is_elementwise() && p.dims(d) == p.dims(j) && depth > 0 => {
                reads_gather(p, d, depth - 1)
            }
            _ => false,
        })
    })
}

fn feeds_map(p: &Plan<'_>, j: usize, set: &Set, dims: &[Dim]) -> bool {
    let for_data = |v: Value| {
        // A gather's indices are computed before; its data may come from another gather.
        p.users(v).iter().all(|&u| match p.prim(u) {
            Some(q) if is_gather(q) => {
                p.inputs(u)[0] == v && p.inputs(u)[1] != v && p.prim(j).is_some_and(is_gather)
            }
            _ => true,
        })
    };
    let v = p.out(j);
    match p.prim(j) {
        Some(q) if is_gather(q) => for_data(v) && p.users(v).iter().all(|u| set.contains(u)),
        Some(Prim::Iota { .. }) => for_data(v),
        Some(Prim::Broadcast { .. }) => p.dims(j) == dims && for_data(v),
        Some(q) => q.is_elementwise() && p.dims(j) == dims && for_data(v),
        None => false,
    }
}

/// What all reductions of a row group share.
struct Row {
    axes: Vec<u32>,
    /// The shape that is reduced.
    full: Vec<Dim>,
    /// With the axes as size 1.
    kept: Vec<Dim>,
    /// Without the axes.
    dropped: Vec<Dim>,
}

impl Row {
    fn of(p: &Plan<'_>, i: usize) -> Option<Row> {
        let axes = match p.prim(i)? {
            Prim::Reduce { axes, .. } => axes.clone(),
            Prim::ArgReduce { axis, .. } => vec![*axis],
            _ => return None,
        };
        let full = p.g.dims(p.inputs(i)[0]).to_vec();
        let is = |a: usize| axes.contains(&(a as u32));
        let each = || full.iter().cloned().enumerate();
        let kept = each().map(|(a, d)| if is(a) { 1i64.into() } else { d }).collect();
        let dropped = each().filter(|(a, _)| !is(*a)).map(|(_, d)| d).collect();
        Some(Row { axes, full, kept, dropped })
    }

    fn is_reduced(&self, dims: &[Dim]) -> bool {
        dims == self.kept || dims == self.dropped
    }

    /// A reduction over the same axes of the same shape.
    fn reduces_alike(&self, p: &Plan<'_>, j: usize) -> bool {
        Row::of(p, j).is_some_and(|o| o.axes == self.axes && o.full == self.full)
    }

    /// Elementwise of one of the three shapes, its operands from inside lined up with it.
    fn elementwise(&self, p: &Plan<'_>, j: usize, set: &Set) -> bool {
        if !p.is_elementwise(j) {
            return false;
        }
        let dims = p.dims(j);
        let fits = |v: &Value| {
            let d = p.g.dims(*v);
            let inside = p.def(*v).is_some_and(|i| set.contains(&i));
            !inside || d == dims || (dims == self.full && d == self.kept)
        };
        (dims == self.full || self.is_reduced(dims)) && p.inputs(j).iter().all(fits)
    }

    fn fits(&self, p: &Plan<'_>, j: usize, set: &Set) -> bool {
        self.reduces_alike(p, j) || self.elementwise(p, j, set)
    }

    /// A producer of the full shape, or another reduction.
    fn may_feed(&self, p: &Plan<'_>, j: usize, set: &Set) -> bool {
        let full = p.is_elementwise(j) && p.dims(j) == self.full && self.lined_up(p, j, set);
        let alike = self.reduces_alike(p, j) && self.lined_up(p, j, set);
        (full || alike) && !over_gather(p, j, set)
    }

    /// Every use inside reads it with the same shape, or spreads a kept reduction.
    fn lined_up(&self, p: &Plan<'_>, j: usize, set: &Set) -> bool {
        let d = p.dims(j);
        p.users(p.out(j)).iter().filter(|u| set.contains(u)).all(|&u| {
            let to = p.dims(u);
            self.reduces_alike(p, u) && d == self.full
                || to == d
                || (to == self.full && d == self.kept)
        })
    }
}

/// A sum that feeds the rows and is used elsewhere too becomes a second output.
fn residual(p: &Plan<'_>, set: &mut Set, row: &Row) {
    let members: Vec<usize> = set.iter().copied().collect();
    for i in members {
        for &v in p.inputs(i) {
            let Some(j) = p.def(v) else { continue };
            let open = !set.contains(&j) && p.free(j, i) && set.len() < MOST_NODES;
            let is_sum = matches!(p.prim(j), Some(Prim::Binary(_))) && p.dims(j) == row.full;
            if open && is_sum && row.may_feed(p, j, set) {
                try_with(p, set, j);
            }
        }
    }
}
