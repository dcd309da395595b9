//! A scan over time becomes a repetition of kernels whose addresses step through time.

use super::layout::{Place, Wish};
use super::{PlaceError, Placer};
use hub_abi::Dim;
use hub_abi::plan::Step;
use hub_ir::{Control, GroupKind, Node, Op, Prim, Region, Type, Value};

impl Placer<'_> {
    /// A scan: natively if every node of its body is, else by the host.
    pub(super) fn scan(&mut self, n: Node, index: Option<usize>) -> Result<(), PlaceError> {
        let mark = self.mark();
        let saved = (self.places.clone(), self.planned.clone());
        let nested = self.steps.body.is_some();
        match if nested { Err(self.internal(n, "nested")) } else { self.repeat(n) } {
            Ok(()) => Ok(()),
            Err(e) if index.is_some() => {
                self.steps.body = None;
                (self.places, self.planned) = saved;
                self.rewind(n, mark);
                self.host(n, index, &e.to_string())
            }
            Err(e) => Err(e),
        }
    }

    fn repeat(&mut self, n: Node) -> Result<(), PlaceError> {
        let Op::Control(Control::Scan { body, carried, trip, reverse }) = &self.g.nodes[n].op
        else {
            unreachable!("only scans come here")
        };
        let (body, carried, trip, reverse) = (Region(*body), *carried as usize, trip, *reverse);
        let node = self.g.nodes[n].clone();
        let region = self.g.regions[body].clone();
        let mut states = vec![];
        for (i, &param) in region.params.iter().enumerate() {
            let src = self.place(node.inputs[i])?;
            if i < carried {
                let state = self.new_place(param, &Wish::Dense)?;
                self.copy(n, &src, &state)?;
                self.places.insert(param, state.clone());
                self.places.insert(node.outputs[i], state.clone());
                states.push(state);
            } else {
                self.places.insert(param, at_time(&src, trip, reverse));
            }
        }
        let mut rows = vec![];
        for &y in &node.outputs[carried..] {
            let Type::Tensor(_) = self.g.ty(y) else {
                return Err(self.internal(n, "it stacks what is no tensor"));
            };
            // The stack is row-major wherever its reader wants it: a row is one step's result.
            let stack = self.new_place(y, &Wish::Dense)?;
            rows.push(at_time(&stack, trip, reverse));
            self.places.insert(y, stack);
        }
        let moves = self.plan_results(body, &states, &rows);
        self.steps.body = Some(vec![]);
        for &m in &region.nodes {
            self.node(m, None)?;
        }
        for (v, dst) in moves {
            let src = self.place(v)?;
            if src != dst {
                self.copy(n, &src, &dst)?;
            }
        }
        let steps = self.steps.body.take().unwrap_or_default();
        self.steps.outer.push(Step::Repeat { trip: trip.clone(), body: steps });
        Ok(())
    }

    /// Decides which results are computed in place; gives the copies that close an iteration, those
    /// into stacks before those into states.
    fn plan_results(
        &mut self,
        body: Region,
        states: &[Place],
        rows: &[Place],
    ) -> Vec<(Value, Place)> {
        let results = self.g.regions[body].results.clone();
        let mut moves = vec![];
        for (&v, row) in results[states.len()..].iter().zip(rows) {
            if self.is_made_by_group(v, body) && !self.planned.contains_key(&v) {
                self.planned.insert(v, row.clone());
            } else {
                moves.push((v, row.clone()));
            }
        }
        for (i, (&v, state)) in results.iter().zip(states).enumerate() {
            let free = !self.planned.contains_key(&v) && self.may_overwrite(body, i, v);
            if free {
                self.planned.insert(v, state.clone());
            } else {
                moves.push((v, state.clone()));
            }
        }
        moves
    }

    fn is_made_by_group(&self, v: Value, body: Region) -> bool {
        let made = self.g.def(v).filter(|d| self.g.regions[body].nodes.contains(d));
        made.is_some_and(|d| matches!(self.g.nodes[d].op, Op::Group { .. }))
    }

    /// May the new state be written over the old one: everything that reads the old one comes
    /// before, or is the same elementwise kernel reading just the element that it writes?
    fn may_overwrite(&self, body: Region, i: usize, v: Value) -> bool {
        let region = &self.g.regions[body];
        if !self.is_made_by_group(v, body) {
            return false;
        }
        let param = region.params[i];
        let at = |n: &Node| region.nodes.iter().position(|m| m == n);
        let Some(made) = self.g.def(v).and_then(|d| at(&d)) else { return false };
        let elementwise = |n: Node| match self.g.nodes[n].op {
            Op::Group { kind: GroupKind::Map, region } => {
                let inner = &self.g.regions[region];
                let plain = |p: &Prim| matches!(p, Prim::Unary(_) | Prim::Binary(_) | Prim::Select);
                let all = inner.nodes.iter().all(|m| match &self.g.nodes[*m].op {
                    Op::Prim(p) => plain(p),
                    Op::Const(_) => true,
                    _ => false,
                });
                all && self.g.dims(v) == self.g.dims(param)
            }
            _ => false,
        };
        let reads = |n: &Node| self.g.nodes[*n].inputs.contains(&param);
        let later = region.nodes.iter().enumerate().filter(|(_, n)| reads(n));
        let ordered = later.into_iter().all(|(k, n)| match &self.g.nodes[*n].op {
            Op::Group { .. } => k < made || (k == made && elementwise(*n)),
            _ => false,
        });
        ordered && !region.results.contains(&param)
    }

    /// Is it defined inside the open repetition?
    pub(super) fn made_in_body(&self, v: Value) -> bool {
        if self.steps.body.is_none() {
            return false;
        }
        match self.g.values[v].def {
            hub_ir::graph::Def::Param(r, _) => r != self.g.root(),
            hub_ir::graph::Def::Node(n, _) => !self.g.regions[self.g.root()].nodes.contains(&n),
        }
    }
}

/// The piece of a stacked tensor that belongs to the running iteration.
fn at_time(p: &Place, trip: &Dim, reverse: bool) -> Place {
    let step = p.strides[0].times(p.dtype.size() as i64);
    let mut q = p.clone();
    q.dims.remove(0);
    q.strides.remove(0);
    q.halo = None;
    if reverse {
        q.offset = q.offset.add(&step.mul(&trip.plus(-1)));
        q.bump = step.times(-1);
    } else {
        q.bump = step;
    }
    q
}
