//! Segments: how a plan's sizes become known while it runs.
//!
//! A plan is cut into *stages* (the plan's segments) after the top-level steps that bind symbols (a
//! count of non-zeros, a size read from data, a loop's count). A buffer belongs to the first stage
//! at which its size is known, and each stage has an arena of its own, so what earlier stages placed
//! never moves. Blocks inside steps belong to the stage of their top-level step: what they bind for
//! themselves is seen by their host steps only.

use crate::error::Error;
use hub_abi::Sym;
use hub_abi::bundle::Manifest;
use hub_abi::dim::Dim;
use hub_abi::pgraph::{Control, PGraph, PNode, POp, RegionId, ValueId};
use hub_abi::plan::{self, Block, Buf, BufId, Carried, OutputSource, Plan, Source, Step};
use hub_abi::shape::Type;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// A host step with what it needs beside its operands.
#[derive(Default)]
pub struct HostStep {
    /// The region of its node.
    pub region: RegionId,
    /// The node's index there.
    pub node: u32,
    /// Operands in buffers.
    pub inputs: Vec<(ValueId, BufId)>,
    /// Results that go to buffers.
    pub outputs: Vec<(ValueId, BufId)>,
    /// Nodes that make constants which it reads from the heap: value, region, index.
    pub loads: Vec<(ValueId, RegionId, u32)>,
}

/// What a loop needs beside its steps.
pub struct LoopInfo {
    /// Symbols that its body binds for itself.
    pub locals: Vec<Sym>,
    /// Values on the heap that it carries.
    pub carried: Vec<Carried>,
}

/// How a plan's sizes become known as it runs; depends on plan and graph only.
#[derive(Default)]
pub struct Flow {
    /// Top-level steps of each stage.
    pub stages: Vec<Range<usize>>,
    /// The first stage at which each symbol is known.
    pub known: Vec<usize>,
    /// The stage of each buffer.
    pub buf_stage: Vec<usize>,
    /// Number of the first step that touches each output's buffer (0 for other buffers).
    pub output_first: Vec<u32>,
    /// Heap values that no later step needs, by top-level step.
    pub drops: Vec<Vec<ValueId>>,
    /// Host steps, by [`Flow::tables`].
    pub hosts: Vec<HostStep>,
    /// Top-level host steps, `None` for others.
    pub top_hosts: Vec<Option<u32>>,
    /// Moves, by [`Flow::tables`].
    pub moves: Vec<Vec<(Source, ValueId)>>,
    /// Copies from the heap to buffers, by [`Flow::tables`].
    pub stores: Vec<Vec<(ValueId, BufId)>>,
    /// Loops and repetitions, by [`Flow::tables`].
    pub loops: Vec<LoopInfo>,
    /// For a step's number: the index into `hosts`, `moves`, `stores` or `loops`.
    pub tables: HashMap<u32, u32>,
    /// Heap values that end with a block, by its step's number and its position there.
    pub frees: HashMap<(u32, usize), u32>,
    /// Lists of heap values, by [`Flow::frees`].
    pub freed: Vec<Vec<ValueId>>,
}

/// From when on outputs are kept. The plan was checked: its buffers exist.
fn output_firsts(plan: &Plan) -> Vec<u32> {
    let lives = plan::lives(&plan.steps, plan.bufs.len());
    let first = |(b, life): (&Buf, Option<(u32, u32)>)| match b {
        Buf::Output { .. } => life.map_or(0, |(first, _)| first),
        _ => 0,
    };
    plan.bufs.iter().zip(lives).map(first).collect()
}

impl Flow {
    /// Analyses a checked plan; `g` is for those that name the graph.
    pub fn of(plan: &Plan, m: &Manifest, g: Option<&PGraph>) -> Result<Flow, Error> {
        let none = PGraph::default();
        let g = g.unwrap_or(&none);
        let mut flow = Flow { known: vec![usize::MAX; m.syms.len()], ..Flow::default() };
        let starts = flow.cut(plan, m, g);
        flow.assign(plan, &starts)?;
        flow.output_first = output_firsts(plan);
        let consts = constants(g);
        let mut walk = Walk { g, consts: &consts, flow: &mut flow, next: 0 };
        let mut touched = Vec::with_capacity(plan.steps.len());
        let mut open = vec![g.root];
        for step in &plan.steps {
            let at = walk.next;
            touched.push(walk.step(step, &mut open));
            let host = matches!(step, Step::Host { .. }).then(|| walk.flow.tables[&at]);
            walk.flow.top_hosts.push(host);
        }
        flow.drops = drops(plan, g, &flow.stages, &touched);
        Ok(flow)
    }

    /// Finds stages and from when symbols are known; gives the number of each stage's first step.
    fn cut(&mut self, plan: &Plan, m: &Manifest, g: &PGraph) -> Vec<u32> {
        let mut learn = |s: Sym, stage: usize| {
            let Some(k) = self.known.get_mut(s.0 as usize) else { return false };
            let new = *k == usize::MAX;
            *k = (*k).min(stage);
            new
        };
        for input in &m.inputs {
            syms_of_type(&input.ty, &mut |s| _ = learn(s, 0));
        }
        let (mut start, mut number, mut numbers) = (0, 0, vec![0]);
        for (i, step) in plan.steps.iter().enumerate() {
            number += step.count();
            let next = self.stages.len() + 1;
            let mut bound = BTreeSet::new();
            syms_of_step(g, g.root, step, &mut bound);
            if bound.into_iter().fold(false, |new, s| learn(s, next) | new) {
                self.stages.push(start..i + 1);
                numbers.push(number);
                start = i + 1;
            }
        }
        self.stages.push(start..plan.steps.len());
        numbers
    }

    /// Assigns buffers to stages; none may be touched before its size is known.
    fn assign(&mut self, plan: &Plan, starts: &[u32]) -> Result<(), Error> {
        for (i, b) in plan.bufs.iter().enumerate() {
            let (stage, first) = match b {
                // Results of the host step that ends the stage before are copied when it is bound.
                Buf::Arena { bytes, first, .. } => (self.stage_of(bytes), first.saturating_add(1)),
                Buf::Output { bytes, .. } => (self.stage_of(bytes), u32::MAX),
                Buf::Const { .. } | Buf::Input(_) => (0, 0),
            };
            if starts.get(stage).is_none_or(|s| *s > first) {
                return Err(Error::plan(format!("buffer {i} is used before its size is known")));
            }
            self.buf_stage.push(stage);
        }
        Ok(())
    }

    /// The first stage at which a size is known.
    fn stage_of(&self, d: &Dim) -> usize {
        let mut stage = 0;
        d.each_sym(&mut |s| {
            stage = stage.max(self.known.get(s.0 as usize).copied().unwrap_or(usize::MAX));
        });
        stage
    }
}

/// Where constants are made: by value, region and index.
type Constants = HashMap<ValueId, (RegionId, u32)>;

fn constants(g: &PGraph) -> Constants {
    let mut made = HashMap::new();
    for (r, region) in g.regions.iter().enumerate() {
        for (i, n) in region.nodes.iter().enumerate() {
            if matches!(n.op, POp::Const(_)) {
                made.extend(n.outputs.iter().map(|&v| (v, (r as RegionId, i as u32))));
            }
        }
    }
    made
}

/// Goes through steps in the order of their numbers and fills tables.
struct Walk<'a> {
    g: &'a PGraph,
    consts: &'a Constants,
    flow: &'a mut Flow,
    next: u32,
}

impl Walk<'_> {
    /// Heap values that a step touches. `open` are the regions around it, the innermost last.
    fn step(&mut self, step: &Step, open: &mut Vec<RegionId>) -> Vec<ValueId> {
        let at = self.next;
        self.next += 1;
        let mut touched = vec![];
        let region = open.last().copied().unwrap_or(self.g.root);
        match step {
            Step::Host { node, inputs, outputs } => {
                let n = &self.g.regions[region as usize].nodes[*node as usize];
                touched.extend(inputs.iter().map(|(v, _)| *v));
                values_of(self.g, n, &mut |v| touched.push(v));
                let loads = self.loads(open, region, *node, inputs, &touched);
                self.flow.tables.insert(at, self.flow.hosts.len() as u32);
                let (inputs, outputs) = (inputs.clone(), outputs.clone());
                self.flow.hosts.push(HostStep { region, node: *node, inputs, outputs, loads });
            }
            Step::Move { moves } => {
                for (from, to) in moves {
                    touched.extend([source(from), *to]);
                }
                self.flow.tables.insert(at, self.flow.moves.len() as u32);
                self.flow.moves.push(moves.clone());
            }
            Step::Store { stores } => {
                touched.extend(stores.iter().map(|(v, _)| *v));
                self.flow.tables.insert(at, self.flow.stores.len() as u32);
                self.flow.stores.push(stores.clone());
            }
            Step::Loop { carried, .. } => {
                for c in carried {
                    touched.extend([source(&c.init), c.param, source(&c.next), c.out]);
                }
            }
            _ => {}
        }
        if step.is_loop() {
            let mut locals = BTreeSet::new();
            for b in step.blocks() {
                b.steps.iter().for_each(|s| local_syms(self.g, b.region, s, &mut locals));
                let params = self.g.regions.get(b.region as usize).map(|r| &r.params[..]);
                for &v in params.unwrap_or_default() {
                    syms_bound_by(self.g, v, &mut |s| _ = locals.insert(s));
                }
            }
            let carried = match step {
                Step::Loop { carried, .. } => carried.clone(),
                _ => vec![],
            };
            // Symbols that are known outside are no symbols of its own.
            locals.retain(|s| self.flow.known.get(s.0 as usize) == Some(&usize::MAX));
            self.flow.tables.insert(at, self.flow.loops.len() as u32);
            self.flow.loops.push(LoopInfo { locals: locals.into_iter().collect(), carried });
        }
        for (i, b) in step.blocks().enumerate() {
            touched.extend(self.block(b, open, (at, i), step));
        }
        touched
    }

    fn block(
        &mut self,
        b: &Block,
        open: &mut Vec<RegionId>,
        key: (u32, usize),
        around: &Step,
    ) -> Vec<ValueId> {
        open.push(b.region);
        let mut touched = vec![];
        for s in &b.steps {
            touched.extend(self.step(s, open));
        }
        open.pop();
        let made = self.g.regions.get(b.region as usize).map(|r| &r.nodes[..]).unwrap_or_default();
        let made: HashSet<ValueId> = made.iter().flat_map(|n| &n.outputs).copied().collect();
        // What the next iteration gets is read after the block.
        let next = |v: ValueId| match around {
            Step::Loop { carried, .. } => carried.iter().any(|c| source(&c.next) == v),
            _ => false,
        };
        let ended = touched.iter().copied().filter(|v| made.contains(v) && !next(*v));
        let ended: BTreeSet<ValueId> = ended.collect();
        if !ended.is_empty() {
            self.flow.frees.insert(key, self.flow.freed.len() as u32);
            self.flow.freed.push(ended.into_iter().collect());
        }
        touched
    }

    fn loads(
        &self,
        open: &[RegionId],
        region: RegionId,
        node: u32,
        listed: &[(ValueId, BufId)],
        touched: &[ValueId],
    ) -> Vec<(ValueId, RegionId, u32)> {
        let mut found = vec![];
        for v in touched {
            let Some(&(r, i)) = self.consts.get(v) else { continue };
            let outside = open.contains(&r) && (r, i) != (region, node);
            if outside && !listed.iter().any(|(l, _)| l == v) {
                found.push((*v, r, i));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn source(s: &Source) -> ValueId {
    match s {
        Source::Heap(v) => *v,
        Source::Buf { value, .. } => *value,
    }
}

/// After which top-level step each heap value is freed. What a stage's last step gives stays: it is
/// copied to buffers when the next stage is bound.
fn drops(
    plan: &Plan,
    g: &PGraph,
    stages: &[Range<usize>],
    touched: &[Vec<ValueId>],
) -> Vec<Vec<ValueId>> {
    let mut needed: HashSet<ValueId> = HashSet::new();
    needed.extend(plan.outputs.iter().filter_map(|o| match o {
        OutputSource::Heap(v) => Some(*v),
        OutputSource::Buf(_) => None,
    }));
    let mut drops = vec![vec![]; plan.steps.len()];
    for (i, step) in plan.steps.iter().enumerate().rev() {
        // The last stage may be without steps.
        let closing = stages[..stages.len() - 1].iter().any(|s| s.end == i + 1);
        let given = |v: &ValueId| match step {
            Step::Host { node, .. } => {
                g.regions[g.root as usize].nodes[*node as usize].outputs.contains(v)
            }
            _ => false,
        };
        for &v in &touched[i] {
            if needed.insert(v) && !(closing && given(&v)) {
                drops[i].push(v);
            }
        }
    }
    drops
}

/// Values that a node reads or makes, in its regions too.
fn values_of(g: &PGraph, n: &PNode, f: &mut dyn FnMut(ValueId)) {
    n.inputs.iter().chain(&n.outputs).for_each(|&v| f(v));
    let regions = match &n.op {
        POp::Group(r) => vec![*r],
        POp::Control(Control::If { then, orelse }) => vec![*then, *orelse],
        POp::Control(Control::Loop { body, .. } | Control::Scan { body, .. }) => vec![*body],
        _ => vec![],
    };
    for r in regions {
        let region = &g.regions[r as usize];
        region.params.iter().chain(&region.results).for_each(|&v| f(v));
        region.nodes.iter().for_each(|n| values_of(g, n, f));
    }
}

/// Symbols that a value's type binds: its dims that are one symbol.
fn syms_bound_by(g: &PGraph, value: u32, f: &mut dyn FnMut(Sym)) {
    syms_of_type(&g.values[value as usize], f);
}

fn syms_of_type(ty: &Type, f: &mut dyn FnMut(Sym)) {
    let dims = ty.as_tensor().map_or(&[][..], |t| &t.dims);
    dims.iter().filter_map(Dim::as_sym).for_each(f);
}

/// Symbols that running a node binds.
fn syms_of_node(g: &PGraph, n: &PNode, f: &mut dyn FnMut(Sym)) {
    n.outputs.iter().for_each(|&v| syms_bound_by(g, v, f));
    match &n.op {
        POp::Prim(p) => p.binds().into_iter().for_each(f),
        POp::Group(r) => {
            g.regions[*r as usize].nodes.iter().for_each(|n| syms_of_node(g, n, f));
        }
        _ => {}
    }
}

/// Symbols that are bound once a step of this region is done: of a branch, what both blocks bind;
/// of a loop, what it gives.
fn syms_of_step(g: &PGraph, region: RegionId, s: &Step, out: &mut BTreeSet<Sym>) {
    match s {
        Step::Branch { then, orelse, .. } => {
            let [a, b] = [then, orelse].map(|b| {
                let mut bound = BTreeSet::new();
                b.steps.iter().for_each(|s| syms_of_step(g, b.region, s, &mut bound));
                bound
            });
            out.extend(a.intersection(&b));
        }
        Step::Loop { count, carried, .. } => {
            out.extend(count);
            carried.iter().for_each(|c| syms_bound_by(g, c.out, &mut |s| _ = out.insert(s)));
        }
        s => own_syms(g, region, s, out),
    }
}

/// Symbols that a step, or one inside it, binds.
fn local_syms(g: &PGraph, region: RegionId, s: &Step, out: &mut BTreeSet<Sym>) {
    own_syms(g, region, s, out);
    syms_of_step(g, region, s, out);
    for b in s.blocks() {
        b.steps.iter().for_each(|s| local_syms(g, b.region, s, out));
    }
}

fn own_syms(g: &PGraph, region: RegionId, s: &Step, out: &mut BTreeSet<Sym>) {
    match s {
        Step::Host { node, .. } => {
            let n = &g.regions[region as usize].nodes[*node as usize];
            syms_of_node(g, n, &mut |s| _ = out.insert(s));
        }
        Step::Bind { binds } => out.extend(binds.iter().map(|(s, _)| *s)),
        Step::Move { moves } => {
            moves.iter().for_each(|(_, to)| syms_bound_by(g, *to, &mut |s| _ = out.insert(s)));
        }
        _ => {}
    }
}
