//! Expansion of source operators into primitives: their definition, and their type inference.

use crate::build::Builder;
use crate::entity::{Node, Region, Value};
use crate::graph::{Graph, Op};
use crate::ops::{OpError, Source};
use hub_abi::shape::Type;
use std::collections::HashMap;

/// Output types of a source operator: those of its expansion, built and left unlisted.
pub fn infer(g: &mut Graph, s: &Source, ins: &[Value]) -> Result<Vec<Type>, OpError> {
    let mut b = Builder::new(g, "");
    let outs = s.expand(&mut b, ins)?;
    let _unlisted = b.finish();
    let ty = |v: &Value| g.ty(*v).clone();
    Ok(outs.iter().map(ty).collect())
}

/// Expands every living source operator for which `want` holds, until none is left.
pub fn expand_where(g: &mut Graph, want: impl Fn(&Graph, Node) -> bool) -> Result<(), OpError> {
    let mut renamed = HashMap::new();
    let mut regions = g.live_regions();
    while let Some(r) = regions.pop() {
        expand_region(g, r, &want, &mut renamed, &mut regions)?;
    }
    g.replace(&renamed);
    Ok(())
}

/// Expands every source operator.
pub fn expand_all(g: &mut Graph) -> Result<(), OpError> {
    expand_where(g, |_, _| true)
}

fn expand_region(
    g: &mut Graph,
    r: Region,
    want: &impl Fn(&Graph, Node) -> bool,
    renamed: &mut HashMap<Value, Value>,
    more: &mut Vec<Region>,
) -> Result<(), OpError> {
    let mut done = vec![];
    let constraints = g.constraints.0.len();
    // A stack of nodes still to look at, the next one last: expansions may hold source operators.
    let mut todo: Vec<Node> = g.regions[r].nodes.iter().rev().copied().collect();
    while let Some(n) = todo.pop() {
        let Op::Source(s) = &g.nodes[n].op else {
            done.push(n);
            continue;
        };
        let (s, name) = (s.clone(), g.nodes[n].name.clone());
        if !want(g, n) {
            done.push(n);
            continue;
        }
        let ins: Vec<Value> = g.nodes[n].inputs.iter().map(|v| resolve(renamed, *v)).collect();
        let mut b = Builder::new(g, &name);
        let outs = s.expand(&mut b, &ins).map_err(|e| e.at(&name))?;
        let made = b.finish();
        for &m in &made {
            more.extend(g.regions_of(m));
        }
        for (old, new) in g.nodes[n].outputs.clone().into_iter().zip(outs) {
            renamed.insert(old, new);
        }
        todo.extend(made.into_iter().rev());
    }
    g.regions[r].nodes = done;
    if r != g.root() {
        // What a region needs was checked in it when it was built (see [`crate::Outside`]).
        g.constraints.0.truncate(constraints);
    }
    Ok(())
}

fn resolve(map: &HashMap<Value, Value>, mut v: Value) -> Value {
    while let Some(&w) = map.get(&v) {
        v = w;
    }
    v
}
