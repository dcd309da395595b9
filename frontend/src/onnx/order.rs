//! Execution order of a graph's nodes, which files should have but need not.

use super::cx::Got;
use super::import::label;
use super::proto::{GraphProto, NodeProto};
use crate::error::FrontendError;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Every name that a graph's nodes (and those of their bodies) use.
pub(crate) fn free_names<'m>(graph: &'m GraphProto, names: &mut HashSet<&'m str>) {
    let mut todo = vec![graph];
    while let Some(g) = todo.pop() {
        for n in &g.node {
            names.extend(n.input.iter().map(|s| &**s));
            let bodies = n.attribute.iter().filter_map(|a| a.g.as_ref());
            todo.extend(bodies.clone());
            for body in bodies {
                names.extend(body.output.iter().map(|o| &*o.name));
            }
        }
    }
}

/// Indices of the nodes in an order where each comes after what it uses; the file's order where
/// that is one. A cycle is an error.
pub(crate) fn order(nodes: &[NodeProto]) -> Got<Vec<usize>> {
    let mut makes: HashMap<&str, usize> = HashMap::new();
    for (i, n) in nodes.iter().enumerate() {
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            if makes.insert(o, i).is_some() {
                let what = format!("'{o}' is the output of two nodes");
                return Err(FrontendError::invalid(what).at(&label(n)));
            }
        }
    }
    let needs = |n: &NodeProto| -> BTreeSet<usize> {
        let mut names: HashSet<&str> = n.input.iter().map(|s| &**s).collect();
        let mut needed = BTreeSet::new();
        for body in n.attribute.iter().filter_map(|a| a.g.as_ref()) {
            let mut inner = HashSet::new();
            free_names(body, &mut inner);
            inner.extend(body.output.iter().map(|o| &*o.name));
            for own in body.node.iter().flat_map(|n| &n.output) {
                inner.remove(&**own);
            }
            needed.extend(inner.iter().filter_map(|s| makes.get(*s)));
        }
        if n.op_type == "Gradient" {
            let y = n.attribute.iter().find(|a| a.name == "y");
            names.extend(y.and_then(|a| std::str::from_utf8(a.s()).ok()));
        }
        needed.extend(names.drain().filter_map(|s| makes.get(s)));
        needed
    };
    let needs: Vec<BTreeSet<usize>> = nodes.iter().map(needs).collect();
    if needs.iter().enumerate().all(|(i, n)| n.last().is_none_or(|&last| last < i)) {
        return Ok((0..nodes.len()).collect());
    }
    let mut waiting: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut users = vec![vec![]; nodes.len()];
    for (i, n) in needs.iter().enumerate() {
        n.iter().for_each(|&p| users[p].push(i));
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&i| waiting[i] == 0).collect();
    let mut out = vec![];
    while let Some(i) = ready.pop_first() {
        out.push(i);
        for &u in &users[i] {
            waiting[u] -= 1;
            if waiting[u] == 0 {
                ready.insert(u);
            }
        }
    }
    match (0..nodes.len()).find(|&i| waiting[i] > 0) {
        None => Ok(out),
        Some(i) => Err(FrontendError::invalid("the node is part of a cycle").at(&label(&nodes[i]))),
    }
}
