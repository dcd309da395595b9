//! Dead code elimination: nodes whose outputs nothing uses, unless they have an effect that counts.

use crate::context::{Changed, Context, PassError};
use hub_abi::prim::Prim;
use hub_abi::shape::syms_of;
use hub_abi::{Dim, Sym};
use hub_ir::{Graph, Node, Op, Region, Value};
use std::collections::HashSet;

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let before = g.walk().len();
    remove_dead(g);
    // Without source operators every use of a symbol is in sight.
    if !g.walk().iter().any(|&n| matches!(g.nodes[n].op, Op::Source(_))) && drop_unused_bindings(g)
    {
        remove_dead(g);
    }
    let removed = before - g.walk().len();
    cx.fired("dce", removed as u32);
    Ok(removed > 0)
}

/// Removes nodes that nothing uses.
pub fn remove_dead(g: &mut Graph) {
    let mut live = HashSet::new();
    let root = g.root();
    live.extend(g.regions[root].results.iter().copied());
    sweep(g, root, &mut live);
}

/// Keeps what is live, from the end of a region up. Values of enclosing regions that it uses
/// become live.
fn sweep(g: &mut Graph, r: Region, live: &mut HashSet<Value>) {
    let nodes = std::mem::take(&mut g.regions[r].nodes);
    let mut kept = vec![];
    for n in nodes.into_iter().rev() {
        if !g.nodes[n].outputs.iter().any(|v| live.contains(v)) && !has_effect(g, n) {
            continue;
        }
        live.extend(g.nodes[n].inputs.iter().filter_map(|v| v.some()));
        for s in g.regions_of(n) {
            live.extend(g.regions[s].results.iter().copied());
            sweep(g, s, live);
        }
        kept.push(n);
    }
    kept.reverse();
    g.regions[r].nodes = kept;
}

/// Does a node bind symbols that the rest of the graph may use?
pub fn has_effect(g: &Graph, n: Node) -> bool {
    matches!(&g.nodes[n].op, Op::Prim(p) if p.is_effect())
}

/// Removes bindings of symbols that no type, attribute or constraint mentions.
fn drop_unused_bindings(g: &mut Graph) -> bool {
    let used = used_syms(g);
    let mut dropped = false;
    for r in g.live_regions() {
        let nodes = std::mem::take(&mut g.regions[r].nodes);
        let unused = |n: &Node| {
            matches!(&g.nodes[*n].op, Op::Prim(Prim::BindSyms { syms })
                if !syms.iter().any(|s| used.contains(s)))
        };
        let before = nodes.len();
        let nodes: Vec<Node> = nodes.into_iter().filter(|n| !unused(n)).collect();
        dropped |= nodes.len() < before;
        g.regions[r].nodes = nodes;
    }
    dropped
}

fn used_syms(g: &Graph) -> HashSet<Sym> {
    let mut used = HashSet::new();
    let mut add = |s: Sym| {
        used.insert(s);
    };
    for (a, b) in &g.constraints.0 {
        a.each_sym(&mut add);
        b.each_sym(&mut add);
    }
    for r in g.live_regions() {
        for &v in &g.regions[r].params {
            syms_of(g.ty(v), &mut add);
        }
        for &n in &g.regions[r].nodes {
            for &v in &g.nodes[n].outputs {
                syms_of(g.ty(v), &mut add);
            }
            match &g.nodes[n].op {
                Op::Prim(p) => {
                    let see = &mut |d: &Dim| -> Result<Dim, ()> {
                        d.each_sym(&mut add);
                        Ok(d.clone())
                    };
                    let _ = p.map_dims(see);
                }
                Op::Control(hub_ir::Control::Scan { trip, .. }) => trip.each_sym(&mut add),
                _ => {}
            }
        }
    }
    used
}
