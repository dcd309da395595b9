//! What a group's loops are: its domain's axes, split where reshapes inside need it, and how every
//! operand is accessed along them, found by a dry run of the generator.

use super::coord::{Atom, AtomData, Coord};
use super::cx::{AccessNote, LowerCx, Made, Notes};
use super::shape::reshape_groups;
use crate::kir::Stmt;
use crate::target::Target;
use crate::task::{Task, Which};
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::{Def, Op, Value};
use std::collections::HashSet;

/// Axes of a domain as loops: each axis is one or more loop dims, outermost first.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Extent of each loop dim.
    pub dims: Vec<Dim>,
    /// Loop dims of each axis.
    pub axes: Vec<Vec<usize>>,
}

impl Domain {
    /// The loops of values of `shape`, split as the reshapes above `roots` need.
    pub fn new(task: &Task<'_>, shape: &[Dim], roots: &[Value]) -> Domain {
        let mut s = Splits { task, of: vec![None; shape.len()], seen: HashSet::new() };
        for &v in roots {
            let whole = (0..shape.len()).map(Some).collect();
            s.walk(v, whole);
        }
        let (mut dims, mut axes) = (vec![], vec![]);
        for (a, split) in s.of.into_iter().enumerate() {
            let parts = split.unwrap_or_else(|| vec![shape[a].clone()]);
            axes.push((dims.len()..dims.len() + parts.len()).collect());
            dims.extend(parts);
        }
        Domain { dims, axes }
    }

    /// One loop an axis.
    pub fn whole(shape: &[Dim]) -> Domain {
        Domain { dims: shape.to_vec(), axes: (0..shape.len()).map(|a| vec![a]).collect() }
    }

    /// Coordinates of the domain's axes, given those of its loop dims.
    pub fn coords(&self, at: &[Coord]) -> Vec<Coord> {
        let join = |parts: &Vec<usize>| {
            let zero = Coord::zero();
            parts.iter().fold(zero, |c, &p| c.times(&self.dims[p]).add(&at[p]))
        };
        self.axes.iter().map(join).collect()
    }
}

struct Splits<'a, 't> {
    task: &'a Task<'t>,
    of: Vec<Option<Vec<Dim>>>,
    seen: HashSet<(Value, Vec<Option<usize>>)>,
}

impl Splits<'_, '_> {
    /// Walks to the operands of `v`, whose axis `a` is the whole domain axis `whole[a]`.
    fn walk(&mut self, v: Value, whole: Vec<Option<usize>>) {
        let g = self.task.g;
        let Def::Node(n, _) = g.values[v].def else { return };
        if whole.iter().all(|w| w.is_none()) || !self.seen.insert((v, whole.clone())) {
            return;
        }
        let ins = &g.nodes[n].inputs;
        match &g.nodes[n].op {
            Op::Prim(Prim::Transpose { perm }) => {
                let mut inner = vec![None; perm.len()];
                perm.iter().enumerate().for_each(|(o, &i)| inner[i as usize] = whole[o]);
                self.walk(ins[0], inner);
            }
            Op::Prim(Prim::Reshape { .. }) => self.reshape(ins[0], v, &whole),
            Op::Prim(Prim::Slice { len, step, .. }) => {
                let dims = g.dims(ins[0]);
                let same = |a: usize| len[a] == dims[a] && step[a] == 1;
                let inner = (0..dims.len()).map(|a| whole[a].filter(|_| same(a))).collect();
                self.walk(ins[0], inner);
            }
            Op::Prim(p) if p.is_elementwise() || matches!(p, Prim::Broadcast { .. }) => {
                for &x in ins {
                    let skip = whole.len() - g.dims(x).len();
                    let one = |(a, d): (usize, &Dim)| whole[skip + a].filter(|_| !d.is(1));
                    let inner = g.dims(x).iter().enumerate().map(one).collect();
                    self.walk(x, inner);
                }
            }
            Op::Prim(Prim::Reduce { .. } | Prim::ArgReduce { .. }) => {
                if let Some(&x) = ins.first().filter(|&&x| g.dims(x).len() == whole.len()) {
                    self.walk(x, whole);
                }
            }
            _ => {}
        }
    }

    fn reshape(&mut self, x: Value, v: Value, whole: &[Option<usize>]) {
        let g = self.task.g;
        let (from, to) = (g.dims(x), g.dims(v));
        let mut inner = vec![None; from.len()];
        for (ins, outs) in reshape_groups(from, to) {
            let [o] = outs[..] else { continue };
            let Some(axis) = whole[o] else { continue };
            if let [i] = ins[..] {
                inner[i] = Some(axis);
            } else if self.of[axis].is_none() && ins.len() > 1 {
                self.of[axis] = Some(ins.iter().map(|&i| from[i].clone()).collect());
            }
        }
        self.walk(x, inner);
    }
}

/// What a dry run over a domain found: atom `i` is loop dim `i`.
#[derive(Clone, Debug)]
pub struct Study {
    /// Accesses, pinned dims, traps.
    pub notes: Notes,
    /// Instructions for one element (or vector).
    pub insts: usize,
}

/// Runs `body` once at coordinates of plain loops.
pub fn study<'t>(
    task: &'t Task<'t>,
    target: &'t Target,
    lanes: usize,
    domain: &Domain,
    body: impl FnOnce(&mut LowerCx<'t>, &[Coord]) -> Made,
) -> Made<Study> {
    let mut cx = LowerCx::new(task, target, "dry", lanes);
    let mut at = vec![];
    for (i, d) in domain.dims.iter().enumerate() {
        let axis = cx.grid(&format!("d{i}"), d);
        at.push(Coord::from(cx.atom(AtomData::var(axis, d.clone()))));
    }
    let coords = domain.coords(&at);
    body(&mut cx, &coords)?;
    let notes = std::mem::take(&mut cx.notes);
    let insts = count(&cx.b.finish().body);
    Ok(Study { notes, insts })
}

fn count(body: &[Stmt]) -> usize {
    let one = |s: &Stmt| match s {
        Stmt::Inst(_) => 1,
        Stmt::For { body, .. } => count(body),
        Stmt::If { then, els, .. } => 1 + count(then) + count(els),
    };
    body.iter().map(one).sum()
}

/// A loop over one or more merged dims.
#[derive(Clone, Debug)]
pub struct Loop {
    /// The dim whose coordinate runs; merged outer dims stay at 0.
    pub dim: usize,
    /// Iterations.
    pub extent: Dim,
    /// Summed over (row groups).
    pub reduced: bool,
}

impl Study {
    /// Bytes that an access moves by per step of a dim.
    fn coef(a: &AccessNote, dim: usize) -> Dim {
        a.bytes.coef(Atom(dim as u32))
    }

    /// Is a dim used other than linearly in addresses?
    pub fn is_pinned(&self, dim: usize) -> bool {
        self.notes.pinned.contains(&Atom(dim as u32))
    }

    /// Loops for the dims of a domain in the order of an access's memory (outermost first), those
    /// of one element left out.
    pub fn loops(&self, cx: &LowerCx<'_>, domain: &Domain, reduced: &[bool]) -> Vec<Loop> {
        let weight = |i: usize| {
            let along = |a: &AccessNote| cx.estimate(&Self::coef(a, i)).unsigned_abs();
            let stores = self.notes.accesses.iter().rev();
            stores.map(along).max().unwrap_or(0)
        };
        let by_store = |i: usize| {
            let store = self.notes.accesses.iter().find(|a| matches!(a.which, Which::Out(_)));
            store.map_or(0, |a| cx.estimate(&Self::coef(a, i)).unsigned_abs())
        };
        let mut order: Vec<usize> =
            (0..domain.dims.len()).filter(|&i| !domain.dims[i].is(1)).collect();
        order.sort_by_key(|&i| {
            let w = by_store(i);
            std::cmp::Reverse(if w == 0 { weight(i) } else { w })
        });
        let one =
            |dim: usize| Loop { dim, extent: domain.dims[dim].clone(), reduced: reduced[dim] };
        order.into_iter().map(one).collect()
    }

    /// How well a dim serves as vector axis: the cost of an element.
    fn vector_cost(&self, cx: &LowerCx<'_>, l: &Loop, loops: &[Loop]) -> f64 {
        let lanes = cx.lanes as f64;
        let unit = |a: &AccessNote, l: &Loop| {
            Self::coef(a, l.dim).is(cx.operand(a.which).dtype.size() as i64)
        };
        // Blocks that are turned in registers make a crossing load cheap.
        let turns = |a: &AccessNote| {
            let long = |o: &Loop| cx.estimate(&o.extent) >= cx.lanes as i64 / 2;
            !l.reduced && loops.iter().any(|o| o.dim != l.dim && unit(a, o) && long(o))
        };
        let each = |a: &AccessNote| match (Self::coef(a, l.dim).is(0), unit(a, l), a.which) {
            (true, ..) => 0.5,
            (_, true, _) => 1.0,
            (.., Which::Out(_)) => 3.0 + 1.5 * lanes,
            _ if turns(a) && cx.task.outputs.len() == 1 => 2.5,
            _ => 2.0 + lanes,
        };
        let n = cx.estimate(&l.extent).max(1) as f64;
        let fill = (n / lanes).ceil() * lanes / n;
        let sum: f64 = self.notes.accesses.iter().map(each).sum();
        (sum + self.insts as f64 * 0.2) * fill
    }

    /// The loop that serves best as vector axis.
    pub fn best_vector(&self, cx: &LowerCx<'_>, loops: &[Loop]) -> Option<usize> {
        let cost = |l: &Loop| self.vector_cost(cx, l, loops);
        (0..loops.len()).rev().min_by(|&a, &b| cost(&loops[a]).total_cmp(&cost(&loops[b])))
    }

    /// Moves the best vector axis to the end, and merges loops that run through memory as one.
    pub fn arrange(&self, cx: &LowerCx<'_>, mut loops: Vec<Loop>) -> Vec<Loop> {
        if let Some(b) = self.best_vector(cx, &loops) {
            let l = loops.remove(b);
            loops.push(l);
        }
        self.merge(cx, loops, true)
    }

    /// Merges loops that run through memory as one; the last may be the vector axis.
    pub fn merge(&self, cx: &LowerCx<'_>, loops: Vec<Loop>, vector: bool) -> Vec<Loop> {
        let mut out: Vec<Loop> = vec![];
        for l in loops.into_iter().rev() {
            let innermost = vector && out.len() == 1;
            let extent = out.last().and_then(|inner| self.merged(cx, &l, inner, innermost));
            match (extent, out.last_mut()) {
                (Some(extent), Some(inner)) => inner.extent = extent,
                _ => out.push(l),
            }
        }
        out.reverse();
        out
    }

    /// Extent of one loop over `outer` and `inner`, if every access runs through both evenly. The
    /// innermost loop may also run over the slack of its rows.
    fn merged(&self, cx: &LowerCx<'_>, outer: &Loop, inner: &Loop, innermost: bool) -> Option<Dim> {
        if self.is_pinned(outer.dim) || self.is_pinned(inner.dim) {
            return None;
        }
        let accesses = &self.notes.accesses;
        let even = |row: &Dim| {
            let each =
                |a: &AccessNote| Self::coef(a, outer.dim) == Self::coef(a, inner.dim).mul(row);
            accesses.iter().all(each)
        };
        if even(&inner.extent) {
            return Some(outer.extent.mul(&inner.extent));
        }
        let n = inner.extent.as_const().filter(|_| innermost && !inner.reduced)?;
        let store = accesses.iter().find(|a| matches!(a.which, Which::Out(_)))?;
        let row =
            Self::coef(store, outer.dim).div_exact(&Self::coef(store, inner.dim))?.as_const()?;
        let ok = row > n && even(&row.into()) && self.has_slack(cx, inner.dim, row - n);
        ok.then(|| outer.extent.times(row))
    }

    /// May lanes up to `extra` past the end of a dim be touched?
    pub fn has_slack(&self, cx: &LowerCx<'_>, dim: usize, extra: i64) -> bool {
        let each = |a: &AccessNote| {
            let c = Self::coef(a, dim);
            let op = cx.operand(a.which);
            let loaded = !matches!(a.which, Which::Out(_));
            (c.is(0) && loaded) || (c.is(op.dtype.size() as i64) && op.slack >= extra)
        };
        !self.notes.traps && !self.is_pinned(dim) && self.notes.accesses.iter().all(each)
    }
}
