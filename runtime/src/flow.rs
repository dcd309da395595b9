//! Stages: how a plan's sizes become known while it runs.
//!
//! A plan is cut into *stages* at the host steps that bind symbols (a count of non-zeros, a size
//! read from data). A buffer belongs to the first stage at which its size is known, and each stage
//! has an arena of its own, so what earlier stages placed never moves.

use crate::error::Error;
use hub_abi::Sym;
use hub_abi::dim::Dim;
use hub_abi::pgraph::{Control, PGraph, PNode, POp, ValueId};
use hub_abi::plan::{Buf, OutputSource, Plan, Step};
use hub_abi::prim::Prim;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// How a plan's sizes become known as it runs; depends on plan and graph only.
pub struct Flow {
    /// Top-level steps of each stage.
    pub stages: Vec<Range<usize>>,
    /// The stage of each buffer.
    pub buf_stage: Vec<usize>,
    /// Heap values that no later step needs, by top-level step.
    pub drops: Vec<Vec<ValueId>>,
    /// Nodes of the root region that make constants which a host step reads from the heap, by
    /// top-level step.
    pub loads: Vec<Vec<u32>>,
}

impl Flow {
    /// Analyses a checked plan.
    pub fn of(plan: &Plan, g: &PGraph) -> Result<Flow, Error> {
        let root = &g.regions[g.root as usize];
        let never = usize::MAX;
        let mut known = vec![never; g.syms.len()];
        let mut learn = |s: Sym, stage: usize| {
            let k = &mut known[s.0 as usize];
            let new = *k == never;
            *k = (*k).min(stage);
            new
        };
        for &v in &root.params {
            syms_bound_by(g, v, &mut |s| _ = learn(s, 0));
        }
        let mut stages = vec![];
        let mut start = 0;
        for (i, step) in plan.steps.iter().enumerate() {
            let Step::Host { node, .. } = step else { continue };
            let mut new = false;
            let next = stages.len() + 1;
            syms_of_node(g, &root.nodes[*node as usize], &mut |s| new |= learn(s, next));
            if new {
                stages.push(start..i + 1);
                start = i + 1;
            }
        }
        stages.push(start..plan.steps.len());
        let stage_of = |d: &Dim| {
            let mut stage = 0;
            d.each_sym(&mut |s| {
                stage = stage.max(known.get(s.0 as usize).copied().unwrap_or(never));
            });
            stage
        };
        let mut buf_stage = vec![];
        for (i, b) in plan.bufs.iter().enumerate() {
            let (stage, first) = match b {
                // Results of the host step that ends the stage before are copied when it is bound.
                Buf::Arena { bytes, first, .. } => (stage_of(bytes), *first as usize + 1),
                Buf::Output { bytes, .. } => (stage_of(bytes), usize::MAX),
                Buf::Const { .. } | Buf::Input(_) => (0, 0),
            };
            if stages.get(stage).is_none_or(|s| s.start > first) {
                return Err(Error::plan(format!("buffer {i} is used before its size is known")));
            }
            buf_stage.push(stage);
        }
        let drops = drops(plan, g, &stages);
        Ok(Flow { stages, buf_stage, drops, loads: loads(plan, g) })
    }
}

/// After which host step each heap value is freed. What a stage's last step gives stays: it is
/// copied to buffers when the next stage is bound.
fn drops(plan: &Plan, g: &PGraph, stages: &[Range<usize>]) -> Vec<Vec<ValueId>> {
    let root = &g.regions[g.root as usize];
    let mut needed: HashSet<ValueId> = HashSet::new();
    needed.extend(plan.outputs.iter().filter_map(|o| match o {
        OutputSource::Heap(v) => Some(*v),
        OutputSource::Buf(_) => None,
    }));
    let mut drops = vec![vec![]; plan.steps.len()];
    for (i, step) in plan.steps.iter().enumerate().rev() {
        let Step::Host { node, inputs, .. } = step else { continue };
        let n = &root.nodes[*node as usize];
        let mut touched: Vec<ValueId> = inputs.iter().map(|(v, _)| *v).collect();
        values_of(g, n, &mut |v| touched.push(v));
        // The last stage may be without steps.
        let closing = stages[..stages.len() - 1].iter().any(|s| s.end == i + 1);
        for v in touched {
            if needed.insert(v) && !(closing && n.outputs.contains(&v)) {
                drops[i].push(v);
            }
        }
    }
    drops
}

fn loads(plan: &Plan, g: &PGraph) -> Vec<Vec<u32>> {
    let root = &g.regions[g.root as usize];
    let consts = root.nodes.iter().enumerate().filter(|(_, n)| matches!(n.op, POp::Const(_)));
    let made: HashMap<ValueId, u32> =
        consts.flat_map(|(i, n)| n.outputs.iter().map(move |&v| (v, i as u32))).collect();
    let of = |step: &Step| {
        let Step::Host { node, inputs, .. } = step else { return vec![] };
        let mut found = vec![];
        values_of(g, &root.nodes[*node as usize], &mut |v| {
            let listed = inputs.iter().any(|(i, _)| *i == v);
            found.extend(made.get(&v).filter(|n| !listed && *n != node));
        });
        found.sort_unstable();
        found.dedup();
        found
    };
    plan.steps.iter().map(of).collect()
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
    let dims = g.values[value as usize].as_tensor().map_or(&[][..], |t| &t.dims);
    dims.iter().filter_map(Dim::as_sym).for_each(f);
}

/// Symbols that running a node binds.
fn syms_of_node(g: &PGraph, n: &PNode, f: &mut dyn FnMut(Sym)) {
    n.outputs.iter().for_each(|&v| syms_bound_by(g, v, f));
    match &n.op {
        POp::Prim(p @ (Prim::BindSyms { .. } | Prim::NonZero { .. })) => {
            p.binds().into_iter().for_each(f);
        }
        POp::Group(r) => {
            g.regions[*r as usize].nodes.iter().for_each(|n| syms_of_node(g, n, f));
        }
        _ => {}
    }
}
