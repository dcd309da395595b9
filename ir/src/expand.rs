//! Expansion of source operators into primitives: their definition, and their type inference.

use crate::build::{Builder, Built};
use crate::entity::{ConstId, Node, Region, Value};
use crate::graph::{Graph, Op};
use crate::ops::{OpError, Source};
use hub_abi::Dtype;
use hub_abi::shape::Type;
use std::collections::HashMap;

/// Nodes that expansions may make of a graph.
const MOST_NODES: usize = 2 << 20;
/// Bytes of constants that they may make.
const MOST_BYTES: usize = 64 << 20;

/// Bytes of constants that inferring the types of a graph's operators may build: its definitions are
/// built a few times, and no more often than that.
const MOST_TRIED: usize = 16 * MOST_BYTES;

/// Output types of a source operator: those of its expansion, which is built and taken away again
/// but for the symbols and constraints that the types rest on.
pub fn infer(g: &mut Graph, s: &Source, ins: &[Value]) -> Result<Vec<Type>, OpError> {
    let before = (g.values.len(), g.nodes.len(), g.regions.len(), g.consts.len());
    let outs = s.expand(&mut Builder::new(g, ""), ins);
    let types = outs.map(|outs| outs.iter().map(|v| g.ty(*v).clone()).collect());
    let (values, nodes, regions, consts) = before;
    let size = |i: usize| g.consts[ConstId(i as u32)].data.len();
    g.tried += (consts..g.consts.len()).map(size).sum::<usize>();
    for v in values..g.values.len() {
        g.content.remove(&Value(v as u32));
    }
    g.values.truncate(values);
    g.nodes.truncate(nodes);
    g.regions.truncate(regions);
    g.consts.truncate(consts);
    if g.tried > MOST_TRIED {
        let what =
            format!("definitions of operators hold more than {MOST_TRIED} bytes of constants");
        return Err(OpError::limit(what));
    }
    types
}

/// A source operator's definition. On f16 and bf16 it computes in f32 and rounds its results, where
/// the definition takes more than one step: small floats round at the operator's boundary.
pub fn define(s: &Source, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
    let small = |g: &Graph, v: Value| match v.some().map(|v| g.ty(v)) {
        Some(Type::Tensor(t)) => matches!(t.dtype, Dtype::F16 | Dtype::BF16),
        _ => false,
    };
    if !ins.iter().any(|&v| small(b.g, v)) {
        return s.expand(b, ins);
    }
    let mut plain = b.nested();
    let outs = s.expand(&mut plain, ins)?;
    let made = plain.finish();
    let steps = made.iter().filter(|&&n| match &b.g.nodes[n].op {
        Op::Const(_) => false,
        Op::Prim(p) => !p.is_movement() && b.g.nodes[n].outputs.iter().any(|&v| small(b.g, v)),
        _ => true,
    });
    if steps.count() <= 1 {
        b.append(made);
        return Ok(outs);
    }
    let wide: Built<Vec<Value>> =
        ins.iter().map(|&v| if small(b.g, v) { b.cast(v, Dtype::F32) } else { Ok(v) }).collect();
    let results = s.expand(b, &wide?)?;
    let back = results.into_iter().zip(outs).map(|(v, plain)| match small(b.g, plain) {
        true => b.cast(v, b.g.dtype(plain)),
        false => Ok(v),
    });
    back.collect()
}

/// Expands every living source operator for which `want` holds, until none is left.
pub fn expand_where(g: &mut Graph, want: impl Fn(&Graph, Node) -> bool) -> Result<(), OpError> {
    let made = expand_checked(g, want, |_, _, _| Ok(()));
    made.map_err(|(n, e)| e.at(&g.nodes[n].name))
}

/// Expands every source operator.
pub fn expand_all(g: &mut Graph) -> Result<(), OpError> {
    expand_where(g, |_, _| true)
}

/// As [`expand_where`]; `each` sees every operator that is expanded and its expansion's outputs,
/// and what it refuses ends the expansion, as does what does not fit. The error names the node.
pub(crate) fn expand_checked(
    g: &mut Graph,
    want: impl Fn(&Graph, Node) -> bool,
    each: impl Fn(&Graph, Node, &[Value]) -> Result<(), OpError>,
) -> Result<(), (Node, OpError)> {
    let mut renamed = HashMap::new();
    let mut regions = g.live_regions();
    let (nodes, mut bytes) = (g.nodes.len(), 0);
    let mut each = |g: &Graph, n: Node, outs: &[Value], consts: usize| {
        let size = |i: usize| g.consts[ConstId(i as u32)].data.len();
        bytes += (consts..g.consts.len()).map(size).sum::<usize>();
        if g.nodes.len() - nodes > MOST_NODES || bytes > MOST_BYTES {
            let what = format!(
                "operators expand into more than {MOST_NODES} nodes or {MOST_BYTES} bytes of constants"
            );
            return Err(OpError::limit(what));
        }
        each(g, n, outs)
    };
    while let Some(r) = regions.pop() {
        expand_region(g, r, &want, &mut each, &mut renamed, &mut regions)?;
    }
    g.replace(&renamed);
    Ok(())
}

fn expand_region(
    g: &mut Graph,
    r: Region,
    want: &impl Fn(&Graph, Node) -> bool,
    each: &mut impl FnMut(&Graph, Node, &[Value], usize) -> Result<(), OpError>,
    renamed: &mut HashMap<Value, Value>,
    more: &mut Vec<Region>,
) -> Result<(), (Node, OpError)> {
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
        let consts = g.consts.len();
        let mut b = Builder::new(g, &name);
        let outs = define(&s, &mut b, &ins).map_err(|e| (n, e))?;
        let made = b.finish();
        each(g, n, &outs, consts).map_err(|e| (n, e))?;
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
