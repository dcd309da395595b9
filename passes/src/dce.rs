//! Dead code elimination: nodes whose outputs nothing uses, unless they have an effect that counts:
//! binding a symbol, by being what it is for or by giving the first value of that size, that what
//! lives mentions.

use crate::context::{Changed, Context, PassError};
use hub_abi::prim::Prim;
use hub_abi::shape::syms_of;
use hub_abi::{Dim, Sym};
use hub_ir::{Graph, Node, Op, Region, Value};
use std::collections::{HashMap, HashSet};

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
    let root = g.root();
    let mut live = Live { gives: introduced(g), ..Live::default() };
    live.values.extend(g.regions[root].results.iter().copied());
    sweep(g, root, &mut live);
}

/// What is needed, as a sweep from the end up finds it.
#[derive(Default)]
struct Live {
    values: HashSet<Value>,
    syms: HashSet<Sym>,
    /// Nodes whose results are the first values of a size that is a symbol.
    gives: HashMap<Node, Vec<Sym>>,
}

impl Live {
    fn needs(&self, g: &Graph, n: Node) -> bool {
        let gives = self.gives.get(&n).into_iter().flatten();
        g.nodes[n].outputs.iter().any(|v| self.values.contains(v))
            || has_effect(g, n)
            || gives.into_iter().any(|s| self.syms.contains(s))
    }
}

/// Keeps what is live, from the end of a region up. Values of enclosing regions that it uses
/// become live.
fn sweep(g: &mut Graph, r: Region, live: &mut Live) {
    let nodes = std::mem::take(&mut g.regions[r].nodes);
    let mut kept = vec![];
    for n in nodes.into_iter().rev() {
        if !live.needs(g, n) {
            continue;
        }
        live.values.extend(g.nodes[n].inputs.iter().filter_map(|v| v.some()));
        syms_of_node(g, n, &mut |s| _ = live.syms.insert(s));
        for s in g.regions_of(n) {
            live.values.extend(g.regions[s].results.iter().copied());
            sweep(g, s, live);
        }
        kept.push(n);
    }
    kept.reverse();
    g.regions[r].nodes = kept;
}

/// Which nodes give the first value of a size that only running them tells (an element of a
/// sequence, what a loop has gathered): the runtime binds the symbol from that value.
fn introduced(g: &Graph) -> HashMap<Node, Vec<Sym>> {
    let (mut seen, mut gives) = (HashSet::new(), HashMap::new());
    introduced_in(g, g.root(), &mut seen, &mut gives);
    gives
}

fn introduced_in(
    g: &Graph,
    r: Region,
    seen: &mut HashSet<Sym>,
    gives: &mut HashMap<Node, Vec<Sym>>,
) {
    for &v in &g.regions[r].params {
        syms_of(g.ty(v), &mut |s| _ = seen.insert(s));
    }
    for &n in &g.regions[r].nodes {
        g.regions_of(n).into_iter().for_each(|s| introduced_in(g, s, seen, gives));
        if let Op::Prim(p) = &g.nodes[n].op {
            seen.extend(p.binds());
        }
        for &v in &g.nodes[n].outputs {
            let dims = g.ty(v).as_tensor().map_or(&[][..], |t| &t.dims);
            let new = dims.iter().filter_map(Dim::as_sym).filter(|s| seen.insert(*s));
            let new: Vec<Sym> = new.collect();
            if !new.is_empty() {
                gives.entry(n).or_default().extend(new);
            }
        }
    }
}

/// Symbols that a node's results and attributes mention.
fn syms_of_node(g: &Graph, n: Node, add: &mut dyn FnMut(Sym)) {
    for &v in &g.nodes[n].outputs {
        syms_of(g.ty(v), add);
    }
    match &g.nodes[n].op {
        Op::Prim(p) => {
            let see = &mut |d: &Dim| -> Result<Dim, ()> {
                d.each_sym(add);
                Ok(d.clone())
            };
            let _ = p.map_dims(see);
        }
        Op::Control(hub_ir::Control::Scan { trip, .. }) => trip.each_sym(add),
        _ => {}
    }
}

/// Does a node bind symbols that the rest of the graph may use?
pub fn has_effect(g: &Graph, n: Node) -> bool {
    matches!(&g.nodes[n].op, Op::Prim(p) if p.is_effect())
}

/// Removes bindings of symbols that no type, attribute or constraint mentions; not those to a symbol
/// that has one value only, which are checks.
fn drop_unused_bindings(g: &mut Graph) -> bool {
    let used = used_syms(g);
    let mut dropped = false;
    for r in g.live_regions() {
        let nodes = std::mem::take(&mut g.regions[r].nodes);
        let unused = |n: &Node| {
            matches!(&g.nodes[*n].op, Op::Prim(Prim::BindSyms { syms })
                if !syms.iter().any(|s| used.contains(s) || checks(g, *s)))
        };
        let before = nodes.len();
        let nodes: Vec<Node> = nodes.into_iter().filter(|n| !unused(n)).collect();
        dropped |= nodes.len() < before;
        g.regions[r].nodes = nodes;
    }
    dropped
}

/// Is binding the symbol a check?
fn checks(g: &Graph, s: Sym) -> bool {
    g.syms.get(s.0 as usize).is_some_and(|i| i.min == i.max)
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
            syms_of_node(g, n, &mut add);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_a_size_stays_while_that_is_asked_for() {
        let text = |answer: &str| {
            format!(
                "sym n 0..8\nsym m 0..8\n\
                 graph(%0: seq(f32[n]) \"s\", %1: i64[] \"i\") {{\n\
                 %2: f32[m] = seq_at(%0, %1)\n\
                 %3: i64[1] = dims {{dims: [m], scalar: false}}\n\
                 %4: i64[] = seq_len(%0)\n\
                 return {answer} \"y\"\n}}"
            )
        };
        for (answer, left) in [("%3", 2), ("%4", 1)] {
            let mut g = hub_ir::text::parse(&text(answer)).expect("a graph");
            remove_dead(&mut g);
            assert_eq!(g.walk().len(), left, "{}", hub_ir::text::print(&g));
        }
    }
}
