//! What is worked out once before a graph runs: that it refers only to what it has, that its
//! regions nest, after which node each value is no longer needed, and which constraints a symbol
//! takes part in.

use crate::error::{ExecError, ExecFault};
use hub_abi::dim::{Dim, Sym};
use hub_abi::pgraph::{Control, PGraph, PNode, POp, RegionId, ValueId};
use std::collections::BTreeSet;
use std::ops::Deref;

/// Greatest nesting of regions.
const MAX_DEPTH: u32 = 48;

/// A graph (owned, shared or borrowed) that is ready to run.
#[derive(Clone, Debug)]
pub struct Program<G> {
    graph: G,
    pub(crate) regions: Vec<RegionInfo>,
    /// Indices into the constraints, by symbol.
    pub(crate) constraints: Vec<Vec<u32>>,
}

/// What is known of a region.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionInfo {
    /// Params that nothing uses.
    pub unused: Vec<ValueId>,
    /// Per node: values of this region that nothing needs after it.
    pub drops: Vec<Vec<ValueId>>,
    /// Params and results of its nodes.
    pub local: BTreeSet<ValueId>,
    /// Values of enclosing regions that it or regions inside it use.
    captures: BTreeSet<ValueId>,
    /// Nesting of regions inside, 1 where there are none; 0 before it is worked out.
    depth: u32,
}

/// Regions that a node runs.
pub(crate) fn regions_of(op: &POp) -> Vec<RegionId> {
    match op {
        POp::Group(r) => vec![*r],
        POp::Control(Control::If { then, orelse }) => vec![*then, *orelse],
        POp::Control(Control::Loop { body, .. } | Control::Scan { body, .. }) => vec![*body],
        _ => vec![],
    }
}

pub(crate) fn malformed<T>(node: &str, what: String) -> Result<T, ExecError> {
    Err(ExecError { node: node.into(), op: String::new(), fault: ExecFault::Malformed(what) })
}

impl<G: Deref<Target = PGraph>> Program<G> {
    /// Checks and prepares a graph; what it holds may be hostile.
    pub fn new(graph: G) -> Result<Program<G>, ExecError> {
        let mut regions = vec![RegionInfo::default(); graph.regions.len()];
        if graph.root as usize >= regions.len() {
            return malformed("", format!("there is no root region {}", graph.root));
        }
        visit(&graph, graph.root, &mut vec![], &mut regions)?;
        if let Some(v) = regions[graph.root as usize].captures.first() {
            return malformed("", format!("the root region uses value {v} which nothing gives"));
        }
        let mut constraints: Vec<Vec<u32>> = vec![vec![]; graph.syms.len()];
        for (i, (a, b)) in graph.constraints.iter().enumerate() {
            let mut add = |s: Sym| {
                if let Some(list) = constraints.get_mut(s.0 as usize)
                    && list.last() != Some(&(i as u32))
                {
                    list.push(i as u32);
                }
            };
            [a, b].iter().for_each(|d: &&Dim| d.each_sym(&mut add));
        }
        Ok(Program { graph, regions, constraints })
    }

    /// The graph.
    pub fn graph(&self) -> &PGraph {
        &self.graph
    }
}

/// Fills in `infos[id]` after those of the regions inside it.
fn visit(
    g: &PGraph,
    id: RegionId,
    path: &mut Vec<RegionId>,
    infos: &mut [RegionInfo],
) -> Result<(), ExecError> {
    if path.contains(&id) || path.len() as u32 >= MAX_DEPTH {
        return malformed("", format!("region {id} holds itself or nests over {MAX_DEPTH} deep"));
    }
    let Some(region) = g.regions.get(id as usize) else {
        return malformed("", format!("there is no region {id}"));
    };
    if infos[id as usize].depth > 0 {
        return match infos[id as usize].depth + path.len() as u32 {
            d if d > MAX_DEPTH => malformed("", format!("regions nest over {MAX_DEPTH} deep")),
            _ => Ok(()),
        };
    }
    path.push(id);
    let mut depth = 0;
    for node in &region.nodes {
        let known = |v: &ValueId| (*v as usize) < g.values.len();
        if !node.inputs.iter().chain(&node.outputs).all(known) {
            return malformed(&node.name, "it uses a value that the graph lacks".into());
        }
        for inner in regions_of(&node.op) {
            visit(g, inner, path, infos)?;
            depth = depth.max(infos[inner as usize].depth);
        }
    }
    if region.params.iter().chain(&region.results).any(|&v| v as usize >= g.values.len()) {
        return malformed("", format!("region {id} uses a value that the graph lacks"));
    }
    path.pop();
    let mut info = lifetimes(g, id, infos);
    info.depth = depth + 1;
    infos[id as usize] = info;
    Ok(())
}

fn lifetimes(g: &PGraph, id: RegionId, infos: &[RegionInfo]) -> RegionInfo {
    let region = &g.regions[id as usize];
    let outputs = region.nodes.iter().flat_map(|n| &n.outputs);
    let local: BTreeSet<ValueId> = region.params.iter().chain(outputs).copied().collect();
    let mut needed: BTreeSet<ValueId> = region.results.iter().copied().collect();
    let mut drops = vec![vec![]; region.nodes.len()];
    for (node, drops) in region.nodes.iter().zip(&mut drops).rev() {
        let inner = regions_of(&node.op);
        let captured = inner.iter().flat_map(|&r| &infos[r as usize].captures);
        for &v in node.outputs.iter().chain(&node.inputs).chain(captured) {
            if needed.insert(v) && local.contains(&v) {
                drops.push(v);
            }
        }
    }
    let unused = region.params.iter().copied().filter(|v| !needed.contains(v)).collect();
    let captures = needed.difference(&local).copied().collect();
    RegionInfo { unused, drops, local, captures, depth: 0 }
}

/// Does a node run regions?
pub(crate) fn has_regions(node: &PNode) -> bool {
    !regions_of(&node.op).is_empty()
}
