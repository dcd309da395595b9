//! Makes groups of clusters: copies their nodes into regions, replaces their outputs.

use super::plan::Cluster;
use hub_ir::graph::{NodeData, RegionData};
use hub_ir::{Graph, Node, Op, Region, Value};
use std::collections::{HashMap, HashSet};

/// Replaces the clusters of a region by group nodes.
pub fn groups(g: &mut Graph, r: Region, clusters: &[Cluster]) {
    let nodes = g.regions[r].nodes.clone();
    let mut ends: HashMap<Node, Node> = HashMap::new();
    let mut inside: HashSet<Node> = HashSet::new();
    let mut map = HashMap::new();
    for c in clusters {
        let anchor = nodes[c.anchor];
        let group = group(g, c, anchor, &mut map);
        ends.insert(*c.nodes.last().expect("a cluster is not empty"), group);
        inside.extend(&c.nodes);
    }
    let mut out = vec![];
    for n in nodes {
        if let Some(&group) = ends.get(&n) {
            out.push(group);
        } else if !inside.contains(&n) {
            out.push(n);
        }
    }
    g.regions[r].nodes = out;
    g.replace_in(r, &map);
    crate::order::sort(g, r);
}

fn group(g: &mut Graph, c: &Cluster, anchor: Node, map: &mut HashMap<Value, Value>) -> Node {
    let region = g.regions.push(RegionData::default());
    let made: HashSet<Value> = c.nodes.iter().flat_map(|&n| g.nodes[n].outputs.clone()).collect();
    let mut inner: HashMap<Value, Value> = HashMap::new();
    let mut inputs = vec![];
    // The anchor's operands come first.
    for &n in [anchor].iter().chain(&c.nodes) {
        for v in g.nodes[n].inputs.clone() {
            if made.contains(&v) || inner.contains_key(&v) {
                continue;
            }
            let copy = match one_element(g, v) {
                Some(id) => copy_node(g, id, region, &inner),
                None => {
                    inputs.push(v);
                    let ty = g.ty(v).clone();
                    g.add_param(region, ty)
                }
            };
            inner.insert(v, copy);
        }
    }
    for &n in &c.nodes {
        copy_node(g, n, region, &inner);
        let copied = *g.regions[region].nodes.last().expect("just made");
        let pairs = g.nodes[n].outputs.clone().into_iter().zip(g.nodes[copied].outputs.clone());
        inner.extend(pairs);
    }
    g.regions[region].results = c.outputs.iter().map(|v| inner[v]).collect();
    let types = c.outputs.iter().map(|&v| g.ty(v).clone()).collect();
    let name = g.nodes[anchor].name.clone();
    let op = Op::Group { kind: c.kind, region };
    let group = g.make_node(op, inputs, types, &name);
    for (i, &old) in c.outputs.iter().enumerate() {
        let new = g.nodes[group].outputs[i];
        if let Some(known) = g.content.get(&old).cloned() {
            g.content.insert(new, known);
        }
        map.insert(old, new);
    }
    group
}

/// The node of a constant of one element.
fn one_element(g: &Graph, v: Value) -> Option<Node> {
    let c = g.as_const(v)?;
    c.ty.count().is(1).then(|| g.def(v)).flatten()
}

/// Appends a copy of a node to a region; gives its first output.
fn copy_node(g: &mut Graph, n: Node, region: Region, inner: &HashMap<Value, Value>) -> Value {
    let NodeData { op, inputs, outputs, name } = g.nodes[n].clone();
    let inputs = inputs.iter().map(|v| inner[v]).collect();
    let types = outputs.iter().map(|&v| g.ty(v).clone()).collect();
    let copy = g.make_node(op, inputs, types, &name);
    g.regions[region].nodes.push(copy);
    g.nodes[copy].outputs[0]
}
