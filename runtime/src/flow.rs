//! Stages: how a plan's sizes become known while it runs.
//!
//! A plan is cut into *stages* at the host steps that bind symbols (a count of non-zeros, a size
//! read from data). A buffer belongs to the first stage at which its size is known, and each stage
//! has an arena of its own, so what earlier stages placed never moves.

use crate::error::Error;
use hub_abi::Sym;
use hub_abi::dim::Dim;
use hub_abi::pgraph::{PGraph, PNode, POp};
use hub_abi::plan::{Buf, Plan, Step};
use hub_abi::prim::Prim;
use std::ops::Range;

/// How a plan's sizes become known as it runs; depends on plan and graph only.
pub struct Flow {
    /// Top-level steps of each stage.
    pub stages: Vec<Range<usize>>,
    /// The stage of each buffer.
    pub buf_stage: Vec<usize>,
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
        Ok(Flow { stages, buf_stage })
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
