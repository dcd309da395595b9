//! Steps that the portable interpreter runs, and taking back what did not work out.

use super::layout::{Place, Wish};
use super::{PlaceError, Placer};
use hub_abi::plan::{BufId, Step};
use hub_ir::{Graph, Node, Op, Region, Value};

/// A point to go back to.
#[derive(Clone, Copy)]
pub struct Mark {
    outer: usize,
    body: usize,
    copies: usize,
}

impl Placer<'_> {
    /// Notes how much is written.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            outer: self.steps.outer.len(),
            body: self.steps.body.as_ref().map_or(0, Vec::len),
            copies: self.copies.len(),
        }
    }

    /// Takes back a node's steps and places (its buffers stay, untouched, and take no room).
    pub(super) fn rewind(&mut self, n: Node, m: Mark) {
        self.steps.outer.truncate(m.outer);
        if let Some(b) = &mut self.steps.body {
            b.truncate(m.body);
        }
        self.copies.truncate(m.copies);
        for v in &self.g.nodes[n].outputs {
            // A part's room belongs to the whole and is kept; it is copied there afterwards.
            self.places.remove(v);
        }
    }

    /// Leaves a node to the portable interpreter.
    pub(super) fn host(
        &mut self,
        n: Node,
        index: Option<usize>,
        why: &str,
    ) -> Result<(), PlaceError> {
        let Some(index) = index else {
            return Err(self.internal(n, format!("inside a repetition: {why}")));
        };
        self.tier.refused.push((self.g.nodes[n].name.clone(), why.to_string()));
        let mut inputs = vec![];
        for v in operands(self.g, n) {
            let constant = self.g.as_const(v).is_some();
            if constant || self.heap.contains(&v) {
                continue;
            }
            inputs.push((self.ids[&v], self.whole_buffer(n, v)?));
        }
        let mut outputs = vec![];
        let mut later = vec![];
        for v in self.g.nodes[n].outputs.clone() {
            if !self.is_placed(v) {
                self.heap.insert(v);
                continue;
            }
            let p = self.new_place(v, &Wish::Dense)?;
            outputs.push((self.ids[&v], p.buf));
            match self.parts.contains_key(&v) {
                true => later.push((v, p)),
                false => {
                    self.places.insert(v, p);
                }
            }
        }
        self.steps.outer.push(Step::Host { node: index as u32, inputs, outputs });
        for (v, p) in later {
            let dst = self.allocate(v)?;
            self.copy(n, &p, &dst)?;
        }
        Ok(())
    }

    /// A buffer that holds a value row-major from its start.
    fn whole_buffer(&mut self, n: Node, v: Value) -> Result<BufId, PlaceError> {
        let p = self.place(v)?;
        if p.is_dense() && p.offset.is(0) && p.bump.is(0) {
            return Ok(p.buf);
        }
        let dst: Place = self.new_place(v, &Wish::Dense)?;
        self.copy(n, &p, &dst)?;
        Ok(dst.buf)
    }
}

/// Values that a node reads: its operands and what its regions take from outside.
fn operands(g: &Graph, n: Node) -> Vec<Value> {
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
