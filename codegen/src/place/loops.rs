//! Loops: a scan becomes a repetition of kernels whose addresses step through time, a loop one that
//! runs while its condition holds. Carried tensors have a buffer each that an iteration writes over
//! once the old value is no longer read; stacked results are written where they belong.

use super::layout::{Place, Wish};
use super::{PlaceError, Placer};
use hub_abi::Dim;
use hub_abi::plan::{Carried, Step};
use hub_ir::{BinaryOp, Control, Def, Graph, GroupKind, Node, Op, Prim, Region, TensorType, Value};
use std::cell::Cell;

/// Most iterations, and bytes of a result, for which room is made where a loop may end earlier.
const MOST_ROOM: i64 = 1 << 28;

/// What a body's result goes to at the end of an iteration.
struct Sink {
    /// The result.
    value: Value,
    /// Where it goes.
    to: Place,
    /// The body's param that lies there now.
    param: Option<Value>,
}

impl Placer<'_> {
    pub(super) fn scan(&mut self, n: Node) -> Result<Step, String> {
        let Op::Control(Control::Scan { body, carried, trip, reverse }) = &self.g.nodes[n].op
        else {
            return Err("it is no scan".into());
        };
        let (body, carried, trip, reverse) =
            (Region(*body), *carried as usize, trip.clone(), *reverse);
        let node = self.g.nodes[n].clone();
        let outputs = self.types(&node.outputs)?;
        let region = self.g.regions[body].clone();
        self.types(&region.params)?;
        self.types(&region.results)?;
        let before = if self.steps.in_loop() { self.settle_moving(n)? } else { vec![] };
        let mut sinks = vec![];
        for (i, &param) in region.params.iter().enumerate() {
            let src = self.placed(node.inputs[i])?;
            if i < carried {
                let same = [param, region.results[i], node.outputs[i]];
                if same.iter().any(|&v| self.g.dims(v) != self.g.dims(node.inputs[i])) {
                    return Err("what it carries changes in size".into());
                }
                let state = self.state(n, param, &src)?;
                self.places.insert(node.outputs[i], state.clone());
                sinks.push(Sink { value: region.results[i], to: state, param: Some(param) });
            } else {
                self.places.insert(param, at_time(&src, &trip, reverse));
            }
        }
        for (i, t) in outputs.iter().enumerate().skip(carried) {
            // The stack is row-major wherever its reader wants it: a row is one step's result.
            let (y, result) = (node.outputs[i], region.results[i]);
            if self.g.dims(result) != &t.dims[1..] {
                return Err("what it stacks changes in size".into());
            }
            let stack = self.new_place(y, &Wish::Dense).map_err(text)?;
            let to = at_time(&stack, &trip, reverse);
            self.places.insert(y, stack);
            sinks.push(Sink { value: result, to, param: None });
        }
        self.steps.enter(body, true);
        self.plan_results(body, &mut sinks);
        self.nodes(body)?;
        self.close(n, sinks)?;
        let body = self.leave(body);
        self.places.extend(before);
        Ok(Step::Repeat { trip, body })
    }

    pub(super) fn a_loop(&mut self, n: Node) -> Result<Step, String> {
        let Op::Control(Control::Loop { body, has_trip, has_cond, carried }) = self.g.nodes[n].op
        else {
            return Err("it is no loop".into());
        };
        let (body, carried) = (Region(body), carried as usize);
        let node = self.g.nodes[n].clone();
        let region = self.g.regions[body].clone();
        let heads = usize::from(has_trip) + usize::from(has_cond);
        if node.inputs[..heads].iter().any(|v| self.heap.contains(v)) {
            return Err("its condition or trip count is on the heap".into());
        }
        let before = if self.steps.in_loop() { self.settle_moving(n)? } else { vec![] };
        let trip = match has_trip {
            true => Some(self.whole_buffer(n, node.inputs[0]).map_err(text)?),
            false => None,
        };
        let mut sinks = vec![];
        let cond = self.condition(n, body, has_cond.then(|| node.inputs[heads - 1]), &mut sinks)?;
        let iteration = self.new_place(region.params[0], &Wish::Dense).map_err(text)?;
        let number = iteration.buf;
        self.places.insert(region.params[0], iteration);
        let mut heap = vec![];
        for i in 0..carried {
            let (init, param) = (node.inputs[heads + i], region.params[1 + i]);
            let (result, out) = (region.results[1 + i], node.outputs[i]);
            if self.keeps_size(&[init, param, result, out]) {
                let src = self.placed(init)?;
                let state = self.state(n, param, &src)?;
                self.places.insert(out, state.clone());
                sinks.push(Sink { value: result, to: state, param: Some(param) });
            } else {
                heap.push((self.source(n, init)?, param, result, out));
                self.heap.extend([(param, ()), (out, ())]);
            }
        }
        let stacks = (&node.outputs[carried..], &region.results[1 + carried..]);
        let (most, count) = self.stacks(has_trip.then(|| node.inputs[0]), stacks, &mut sinks)?;
        self.steps.enter(body, true);
        self.plan_results(body, &mut sinks);
        self.nodes(body)?;
        self.close(n, sinks)?;
        let mut on_heap = vec![];
        for (init, param, result, out) in heap {
            let next = self.source(n, result)?;
            on_heap.push(Carried { init, param: self.ids[&param], next, out: self.ids[&out] });
        }
        let body = self.leave(body);
        self.places.extend(before);
        node.outputs.iter().for_each(|&out| self.learn(out));
        Ok(Step::Loop {
            trip,
            cond,
            first: has_cond,
            iteration: Some(number),
            most,
            count,
            carried: on_heap,
            body,
            node: node.name,
        })
    }

    /// The buffer of a loop's condition; none if the body says that it always holds.
    fn condition(
        &mut self,
        n: Node,
        body: Region,
        first: Option<Value>,
        sinks: &mut Vec<Sink>,
    ) -> Result<Option<u32>, String> {
        let result = self.g.regions[body].results[0];
        let always = self.g.as_const(result).is_some_and(|c| c.data.iter().all(|b| *b != 0));
        if first.is_none() && always {
            return Ok(None);
        }
        let t = self.g.tensor(result).clone();
        if !t.count().is(1) {
            return Err("its condition is not one element".into());
        }
        let place = self.new_place(result, &Wish::Dense).map_err(text)?;
        if let Some(first) = first {
            let src = self.placed(first)?;
            let dims = src.dims.clone();
            let as_src =
                Place { strides: super::layout::dense_strides(&dims), dims, ..place.clone() };
            self.copy(n, &src, &as_src).map_err(text)?;
        }
        let buf = place.buf;
        sinks.push(Sink { value: result, to: place, param: None });
        Ok(Some(buf))
    }

    /// Makes room for stacked results: the greatest number of iterations, and the symbol of their
    /// number where that is known only afterwards.
    fn stacks(
        &mut self,
        trip: Option<Value>,
        (outs, results): (&[Value], &[Value]),
        sinks: &mut Vec<Sink>,
    ) -> Result<(Option<Dim>, Option<hub_ir::Sym>), String> {
        let Some(&first) = outs.first() else { return Ok((None, None)) };
        let count = self.g.dims(first)[0].clone();
        let open = count.as_sym().filter(|s| self.dynamic.contains(s));
        if open.is_some() && self.steps.depth() > 0 {
            return Err("the number of its results is known only while it runs".into());
        }
        let most = match open {
            None => count,
            Some(_) => {
                let known = trip.and_then(|t| upper(self.g, t, &mut vec![], &Cell::new(64)));
                let zero = Dim::from(0i64);
                known.map(|d| d.max_of(&zero)).ok_or("the number of its results has no bound")?
            }
        };
        if open.is_some() && most.as_const().is_some_and(|n| n > MOST_ROOM) {
            return Err("the number of its results has no reasonable bound".into());
        }
        for (&out, &result) in outs.iter().zip(results) {
            let t = self.g.tensor(out).clone();
            let mut dims = t.dims.clone();
            dims[0] = most.clone();
            let whole = TensorType { dtype: t.dtype, dims };
            if !self.sized(&whole) || self.g.dims(result) != &t.dims[1..] {
                return Err("what it stacks changes in size".into());
            }
            let bytes = whole.count().times(t.dtype.size() as i64);
            if open.is_some() && bytes.as_const().is_some_and(|n| n > MOST_ROOM) {
                return Err("room for the most of its results would be too large".into());
            }
            let buf = self.arena(bytes);
            let to = at_time(&Place::dense(buf, &whole), &most, false);
            self.places.insert(out, Place::dense(buf, &t));
            sinks.push(Sink { value: result, to, param: None });
        }
        Ok((Some(most), open))
    }

    /// Are these tensors of one type whose size is known?
    fn keeps_size(&self, values: &[Value]) -> bool {
        let mut types = values.iter().map(|&v| self.g.ty(v).as_tensor());
        let Some(Some(first)) = types.next() else { return false };
        self.sized(first) && !self.heap.contains(&values[0]) && types.all(|t| t == Some(first))
    }

    /// Refuses what no buffer holds.
    fn types(&self, values: &[Value]) -> Result<Vec<TensorType>, String> {
        let one = |&v: &Value| match self.g.ty(v).as_tensor() {
            Some(t) if self.sized(t) => Ok(t.clone()),
            _ => Err("it holds what has no size before it runs".to_string()),
        };
        values.iter().map(one).collect()
    }

    fn placed(&mut self, v: Value) -> Result<Place, String> {
        match self.heap.contains(&v) && !self.places.contains(&v) {
            true => Err("an operand is on the heap".into()),
            false => self.place(v).map_err(text),
        }
    }

    /// A carried tensor's buffer, as it is before the first iteration.
    fn state(&mut self, n: Node, param: Value, init: &Place) -> Result<Place, String> {
        let state = self.new_place(param, &Wish::Dense).map_err(text)?;
        self.copy(n, init, &state).map_err(text)?;
        self.places.insert(param, state.clone());
        Ok(state)
    }

    /// Decides which results are computed where they belong; the others are copied there at the end
    /// of an iteration.
    fn plan_results(&mut self, body: Region, sinks: &mut Vec<Sink>) {
        let free = |p: &Self, s: &Sink| {
            !p.planned.contains(&s.value)
                && p.is_made_by_group(s.value, body)
                && s.param.is_none_or(|param| p.may_overwrite(body, param, s.value))
        };
        let mut left = vec![];
        // Stacks first: a state that is stacked too is copied from there.
        let (states, stacks): (Vec<Sink>, Vec<Sink>) =
            std::mem::take(sinks).into_iter().partition(|s| s.param.is_some());
        for s in stacks.into_iter().chain(states) {
            match free(self, &s) {
                true => self.planned.insert(s.value, s.to),
                false => left.push(s),
            }
        }
        *sinks = left;
    }

    /// Copies what is not there yet. What one copy overwrites another may still read: such are put
    /// aside first.
    fn close(&mut self, n: Node, sinks: Vec<Sink>) -> Result<(), String> {
        let targets: Vec<u32> = sinks.iter().map(|s| s.to.buf).collect();
        let mut moves = vec![];
        for (i, s) in sinks.into_iter().enumerate() {
            let mut src = self.placed(s.value)?;
            if src == s.to {
                continue;
            }
            let overwritten = targets.iter().enumerate().any(|(j, b)| j != i && *b == src.buf);
            if overwritten || src.buf == s.to.buf {
                let aside = self.new_place(s.value, &Wish::Dense).map_err(text)?;
                self.copy(n, &src, &aside).map_err(text)?;
                src = aside;
            }
            moves.push((src, s.to));
        }
        for (src, to) in moves {
            self.copy(n, &src, &to).map_err(text)?;
        }
        Ok(())
    }

    /// Is it the result of a group of this region?
    pub(super) fn is_made_by_group(&self, v: Value, body: Region) -> bool {
        let made = self.g.def(v).filter(|d| self.g.regions[body].nodes.contains(d));
        made.is_some_and(|d| matches!(self.g.nodes[d].op, Op::Group { .. }))
    }

    /// May the new state be written over the old one: everything that reads the old one comes
    /// before, or is the same elementwise kernel reading just the element that it writes?
    fn may_overwrite(&self, body: Region, param: Value, v: Value) -> bool {
        let region = &self.g.regions[body];
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
                // Of several results, one may be written before the other reads.
                all && inner.results.len() == 1 && self.g.dims(v) == self.g.dims(param)
            }
            _ => false,
        };
        let reads = |n: &Node| super::host::operands(self.g, *n).contains(&param);
        let later = region.nodes.iter().enumerate().filter(|(_, n)| reads(n));
        let ordered = later.into_iter().all(|(k, n)| match &self.g.nodes[*n].op {
            Op::Group { .. } => k < made || (k == made && elementwise(*n)),
            _ => false,
        });
        ordered && !region.results.contains(&param)
    }
}

fn text(e: PlaceError) -> String {
    e.to_string()
}

/// What an integer scalar is at most, as far as its making says. `groups` are the nodes of the groups
/// around it, and `left` is how many nodes may still be looked at.
fn upper(g: &Graph, v: Value, groups: &mut Vec<Node>, left: &Cell<u32>) -> Option<Dim> {
    if let Some(known) = g.content.get(&v) {
        return known.first().cloned();
    }
    left.set(left.get().checked_sub(1)?);
    let (n, at) = match g.values[v].def {
        Def::Node(n, at) => (n, at as usize),
        // A group's param is what the group is given.
        Def::Param(r, i) => {
            let group = groups.pop()?;
            let of_group = matches!(g.nodes[group].op, Op::Group { region, .. } if region == r);
            let given = g.nodes[group].inputs.get(i as usize).filter(|_| of_group);
            let made = given.and_then(|&v| upper(g, v, groups, left));
            groups.push(group);
            return made;
        }
    };
    let node = &g.nodes[n];
    let mut of = |v: Value| upper(g, v, groups, left);
    match &node.op {
        Op::Group { region, .. } => {
            groups.push(n);
            let made = upper(g, *g.regions[*region].results.get(at)?, groups, left);
            groups.pop();
            made
        }
        Op::Prim(Prim::Binary(BinaryOp::Min)) => of(node.inputs[0]).or_else(|| of(node.inputs[1])),
        Op::Prim(Prim::Binary(BinaryOp::Max)) => {
            Some(of(node.inputs[0])?.max_of(&of(node.inputs[1])?))
        }
        Op::Prim(Prim::Reshape { .. }) => of(node.inputs[0]),
        _ => None,
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
