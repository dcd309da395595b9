//! Expansion of source operators into primitives: their definition, and their type inference.

use crate::build::{Builder, Built};
use crate::entity::{Node, Region, Value};
use crate::graph::{Graph, Op};
use crate::ops::{OpError, Source};
use hub_abi::Dtype;
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

/// A source operator's definition. On f16 and bf16 it computes in f32 and rounds its results, where
/// the definition takes more than one step: small floats round at the operator's boundary.
fn define(s: &Source, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
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
        let outs = define(&s, &mut b, &ins).map_err(|e| e.at(&name))?;
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
