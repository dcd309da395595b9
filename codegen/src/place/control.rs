//! Branches, and what they share with loops: both become steps around native blocks.
//!
//! A result has one buffer that both branches write, of the greater size where their sizes differ;
//! the sizes are bound when the branch is done. What no buffer can hold (sequences, tensors whose
//! size only the block knows) goes by the heap. Invariants: a value that is made in a block has a
//! place only while the block is open; copies made in it are not used after it.

use super::host::operands;
use super::layout::{Place, Wish};
use super::levels::MAX_DEEP;
use super::{PlaceError, Placer};
use hub_abi::Dim;
use hub_abi::plan::{BindFrom, Block, Source, Step};
use hub_ir::{Control, Node, Op, Region, Sym, TensorType, Type, Value};

/// Where a control node's result lies.
enum Target {
    /// In a buffer, with the sizes that each branch gives it.
    Placed(Box<Place>, Vec<(Sym, [Dim; 2])>),
    /// On the heap.
    Heap,
}

impl Placer<'_> {
    /// A branch, a loop or a scan: natively, or if that gains nothing or cannot be, by the host.
    pub(super) fn control(&mut self, n: Node, index: usize) -> Result<(), PlaceError> {
        let mark = self.mark();
        let (places, planned, heap) =
            (self.places.state(), self.planned.state(), self.heap.state());
        let done = match &self.g.nodes[n].op {
            _ if self.steps.depth() >= MAX_DEEP => Err("blocks are nested too deep".to_string()),
            Op::Control(Control::If { .. }) => self.branch(n),
            Op::Control(Control::Scan { .. }) => self.scan(n),
            Op::Control(Control::Loop { .. }) => self.a_loop(n),
            _ => Err("sequences and optionals live on the host".to_string()),
        };
        let why = match done {
            Ok(step) if gains(&step) => {
                self.steps.push(step);
                return Ok(());
            }
            Ok(_) => "nothing in it has a kernel".to_string(),
            Err(why) => why,
        };
        self.places.back_to(places);
        self.planned.back_to(planned);
        self.heap.back_to(heap);
        self.rewind(n, &mark);
        self.host(n, index, &why)
    }

    /// Nodes of a region, natively where they can be.
    pub(super) fn nodes(&mut self, r: Region) -> Result<(), String> {
        for i in 0..self.g.regions[r].nodes.len() {
            self.node(self.g.regions[r].nodes[i], i).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Closes the innermost list of steps: what was copied in it is gone.
    pub(super) fn leave(&mut self, r: Region) -> Block {
        let depth = self.steps.depth();
        self.copies.retain(|c| c.level < depth);
        self.steps.leave(self.regions[&r])
    }

    /// A value for the heap: its name there, or its buffer.
    pub(super) fn source(&mut self, n: Node, v: Value) -> Result<Source, String> {
        if self.heap.contains(&v) {
            return Ok(Source::Heap(self.ids[&v]));
        }
        let buf = self.whole_buffer(n, v).map_err(|e| e.to_string())?;
        Ok(Source::Buf { value: self.ids[&v], buf })
    }

    /// Inside a loop, what the loop outside moves by iteration is copied for the loop inside.
    /// Gives the places to put back afterwards.
    pub(super) fn settle_moving(&mut self, n: Node) -> Result<Vec<(Value, Place)>, String> {
        let mut before = vec![];
        for v in operands(self.g, n) {
            let Some(p) = self.places.get(&v).filter(|p| !p.bump.is(0)).cloned() else { continue };
            let still = self.new_place(v, &Wish::Dense).map_err(|e| e.to_string())?;
            self.copy(n, &p, &still).map_err(|e| e.to_string())?;
            self.places.insert(v, still);
            before.push((v, p));
        }
        Ok(before)
    }

    /// Is a tensor of this type kept in buffers, its size being known here?
    pub(super) fn sized(&self, t: &TensorType) -> bool {
        // No kernel moves elements of 16 bytes; strings have no size.
        let mut known = (1..=8).contains(&t.dtype.size());
        t.dims.iter().for_each(|d| d.each_sym(&mut |s| known &= !self.dynamic.contains(&s)));
        known
    }

    fn branch(&mut self, n: Node) -> Result<Step, String> {
        let Op::Control(Control::If { then, orelse }) = self.g.nodes[n].op else {
            return Err("it is no branch".into());
        };
        let regions = [Region(then), Region(orelse)];
        let cond = self.g.nodes[n].inputs[0];
        if self.heap.contains(&cond) {
            return Err("its condition is on the heap".into());
        }
        let cond = self.whole_buffer(n, cond).map_err(|e| e.to_string())?;
        let outs = self.g.nodes[n].outputs.clone();
        let mut targets = vec![];
        for (i, &out) in outs.iter().enumerate() {
            targets.push(self.target(out, regions.map(|r| self.g.regions[r].results[i]))?);
        }
        let mut blocks = vec![];
        for (side, &r) in regions.iter().enumerate() {
            blocks.push(self.side(n, r, side, &targets)?);
        }
        for (&out, target) in outs.iter().zip(&targets) {
            match target {
                Target::Heap => self.heap.insert(out, ()),
                Target::Placed(p, _) => {
                    let t = self.g.tensor(out).clone();
                    self.places
                        .insert(out, Place { offset: p.offset.clone(), ..Place::dense(p.buf, &t) });
                }
            }
            self.learn(out);
        }
        let orelse = blocks.pop().unwrap_or_default();
        let then = blocks.pop().unwrap_or_default();
        Ok(Step::Branch { cond, then, orelse, node: self.g.nodes[n].name.clone() })
    }

    /// At top level, what a result's dims are is known from here on.
    pub(super) fn learn(&mut self, out: Value) {
        if let (0, Type::Tensor(t)) = (self.steps.depth(), self.g.ty(out)) {
            for s in t.dims.iter().filter_map(|d| d.as_sym()) {
                self.dynamic.remove(&s);
            }
        }
    }

    /// Where a result lies that is one of two values.
    fn target(&mut self, out: Value, sides: [Value; 2]) -> Result<Target, String> {
        let types = [out, sides[0], sides[1]].map(|v| self.g.ty(v).as_tensor().cloned());
        let [Some(t), Some(a), Some(b)] = types else { return Ok(Target::Heap) };
        if !self.sized(&a) || !self.sized(&b) || sides.iter().any(|v| self.heap.contains(v)) {
            return Ok(Target::Heap);
        }
        if self.sized(&t) && t.dims == a.dims && t.dims == b.dims {
            let p = self.allocate(out).map_err(|e| e.to_string())?;
            return Ok(match p.is_dense() {
                true => Target::Placed(Box::new(p), vec![]),
                false => Target::Heap,
            });
        }
        // The sizes that differ are bound by each side; the rest must agree as it is.
        let mut binds = vec![];
        for (axis, d) in t.dims.iter().enumerate() {
            let (x, y) = (&a.dims[axis], &b.dims[axis]);
            match d.as_sym().filter(|s| self.dynamic.contains(s)) {
                Some(s) => binds.push((s, [x.clone(), y.clone()])),
                None if d == x && d == y => {}
                None => return Ok(Target::Heap),
            }
        }
        if self.steps.depth() > 0 {
            return Ok(Target::Heap);
        }
        let bytes = a.count().max_of(&b.count()).times(t.dtype.size() as i64);
        let buf = self.arena(bytes);
        Ok(Target::Placed(Box::new(Place::dense(buf, &a)), binds))
    }

    /// One side of a branch.
    fn side(
        &mut self,
        n: Node,
        r: Region,
        side: usize,
        targets: &[Target],
    ) -> Result<Block, String> {
        let results = self.g.regions[r].results.clone();
        self.steps.enter(r, false);
        let mut later = vec![];
        for (&v, target) in results.iter().zip(targets) {
            let Target::Placed(p, _) = target else { continue };
            let t = self.g.tensor(v).clone();
            let dst = Place { offset: p.offset.clone(), ..Place::dense(p.buf, &t) };
            if self.is_made_by_group(v, r) && !self.planned.contains(&v) {
                self.planned.insert(v, dst.clone());
            }
            later.push((v, dst));
        }
        self.nodes(r)?;
        for (v, dst) in later {
            let src = self.place(v).map_err(|e| e.to_string())?;
            if src != dst {
                self.copy(n, &src, &dst).map_err(|e| e.to_string())?;
            }
        }
        let (mut moves, mut binds) = (vec![], vec![]);
        for ((&v, &out), target) in results.iter().zip(&self.g.nodes[n].outputs).zip(targets) {
            match target {
                Target::Heap => moves.push((self.source(n, v)?, self.ids[&out])),
                Target::Placed(_, sizes) => {
                    for (s, d) in sizes {
                        binds.push((*s, BindFrom::Dim(d[side].clone())));
                    }
                }
            }
        }
        if !moves.is_empty() {
            self.steps.push(Step::Move { moves });
        }
        if !binds.is_empty() {
            self.steps.push(Step::Bind { binds });
        }
        Ok(self.leave(r))
    }
}

/// Does a control step hold a kernel, or nothing that the host runs?
fn gains(s: &Step) -> bool {
    fn has(s: &Step, what: &dyn Fn(&Step) -> bool) -> bool {
        what(s) || s.blocks().flat_map(|b| &b.steps).any(|s| has(s, what))
    }
    has(s, &|s| matches!(s, Step::Kernel { .. })) || !has(s, &|s| matches!(s, Step::Host { .. }))
}
