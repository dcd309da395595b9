//! Steps that the portable interpreter runs, and taking back what did not work out.

use super::layout::{Place, Wish};
use super::{PlaceError, Placer};
use hub_abi::plan::{BufId, Step};
use hub_ir::{Graph, Node, Op, Region, Sym, Type, Value};

/// A point to go back to.
pub struct Mark {
    steps: Vec<usize>,
    copies: usize,
    refused: usize,
}

impl Placer<'_> {
    /// Notes how much is written.
    pub(super) fn mark(&self) -> Mark {
        let (steps, copies) = (self.steps.lens(), self.copies.len());
        Mark { steps, copies, refused: self.tier.refused.len() }
    }

    /// Takes back a node's steps and places (its buffers stay, untouched, and take no room).
    pub(super) fn rewind(&mut self, n: Node, m: &Mark) {
        self.steps.truncate(&m.steps);
        self.copies.truncate(m.copies);
        self.tier.refused.truncate(m.refused);
        for v in &self.g.nodes[n].outputs {
            // A part's room belongs to the whole and is kept; it is copied there afterwards.
            self.places.remove(v);
        }
    }

    /// Leaves a node to the portable interpreter.
    pub(super) fn host(&mut self, n: Node, index: usize, why: &str) -> Result<(), PlaceError> {
        self.tier.refused.push((self.g.nodes[n].name.clone(), why.to_string()));
        let mut inputs = vec![];
        for v in operands(self.g, n) {
            let constant = self.g.as_const(v).is_some();
            if constant || self.heap.contains(&v) {
                continue;
            }
            inputs.push((self.ids[&v], self.whole_buffer(n, v)?));
        }
        // What it binds is known to the steps after it: they make a segment of their own.
        if self.steps.depth() == 0 {
            each_bound(self.g, n, &mut |s| {
                self.dynamic.remove(&s);
            });
        }
        let mut outputs = vec![];
        let mut later = vec![];
        for v in self.g.nodes[n].outputs.clone() {
            if !self.is_placed(v) {
                self.heap.insert(v, ());
                continue;
            }
            let p = self.new_place(v, &Wish::Dense)?;
            outputs.push((self.ids[&v], p.buf));
            match self.parts.contains_key(&v) || self.planned.contains(&v) {
                true => later.push((v, p)),
                false => {
                    self.places.insert(v, p);
                }
            }
        }
        self.steps.push(Step::Host { node: index as u32, inputs, outputs });
        for (v, p) in later {
            let dst = self.allocate(v)?;
            self.copy(n, &p, &dst)?;
        }
        Ok(())
    }

    /// A buffer that holds a value row-major from its start.
    pub(super) fn whole_buffer(&mut self, n: Node, v: Value) -> Result<BufId, PlaceError> {
        let p = self.place(v)?;
        if p.is_dense() && p.offset.is(0) && p.bump.is(0) {
            return Ok(p.buf);
        }
        let dst: Place = self.new_place(v, &Wish::Dense)?;
        self.copy(n, &p, &dst)?;
        Ok(dst.buf)
    }
}

/// Symbols that are bound once a node has run: dims of its results that are one symbol, and what a
/// primitive binds.
fn each_bound(g: &Graph, n: Node, f: &mut dyn FnMut(Sym)) {
    for v in g.nodes[n].outputs.iter().filter_map(|v| v.some()) {
        if let Type::Tensor(t) = g.ty(v) {
            t.dims.iter().filter_map(|d| d.as_sym()).for_each(&mut *f);
        }
    }
    match &g.nodes[n].op {
        Op::Prim(p) => p.binds().into_iter().for_each(f),
        Op::Group { region, .. } => {
            g.regions[*region].nodes.iter().for_each(|&m| each_bound(g, m, f));
        }
        _ => {}
    }
}

/// Values that a node reads: its operands and what its regions take from outside.
pub(super) fn operands(g: &Graph, n: Node) -> Vec<Value> {
    let mut out: Vec<Value> = g.nodes[n].inputs.iter().filter_map(|v| v.some()).collect();
    if matches!(g.nodes[n].op, Op::Control(_)) {
        let mut inside = std::collections::HashSet::new();
        for r in g.regions_of(n) {
            captured(g, r, &mut inside, &mut out);
        }
    }
    let mut seen = std::collections::HashSet::new();
    out.retain(|v| seen.insert(*v));
    out
}

fn captured(
    g: &Graph,
    r: Region,
    inside: &mut std::collections::HashSet<Value>,
    out: &mut Vec<Value>,
) {
    inside.extend(&g.regions[r].params);
    for &n in &g.regions[r].nodes {
        for v in g.nodes[n].inputs.iter().filter_map(|v| v.some()) {
            if !inside.contains(&v) {
                out.push(v);
            }
        }
        for sub in g.regions_of(n) {
            captured(g, sub, inside, out);
        }
        inside.extend(&g.nodes[n].outputs);
    }
    for v in &g.regions[r].results {
        if !inside.contains(v) {
            out.push(*v);
        }
    }
}
