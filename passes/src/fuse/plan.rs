//! What fusion knows of a region, and which nodes it has put together.

use super::cycles::Order;
use crate::dce::has_effect;
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::visit::uses_of;
use hub_ir::{Graph, GroupKind, Node, Op, Region, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Nodes that become one group, by position in the region.
pub struct Cluster {
    /// What it is built around.
    pub kind: GroupKind,
    /// The anchor's position (for maps, the last node's).
    pub anchor: usize,
    /// All positions.
    pub at: BTreeSet<usize>,
    /// The nodes at them, in order.
    pub nodes: Vec<Node>,
    /// Values that something outside uses, in order of definition.
    pub outputs: Vec<Value>,
}

/// A region while it is planned.
pub struct Plan<'g> {
    pub g: &'g Graph,
    /// In order of execution.
    pub nodes: Vec<Node>,
    at: HashMap<Node, usize>,
    /// Positions that use a value (in their regions too).
    users: HashMap<Value, Vec<usize>>,
    results: HashSet<Value>,
    /// Counts the symbol-binding nodes before a position.
    segment: Vec<u32>,
    /// Is a position in a group?
    owned: Vec<bool>,
    order: Order,
    clusters: Vec<(GroupKind, usize, BTreeSet<usize>)>,
}

impl<'g> Plan<'g> {
    pub fn new(g: &'g Graph, r: Region) -> Plan<'g> {
        let nodes = g.regions[r].nodes.clone();
        let at: HashMap<Node, usize> = nodes.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let mut reads = vec![];
        let mut users: HashMap<Value, Vec<usize>> = HashMap::new();
        let mut segment = vec![];
        let mut effects = 0;
        for (i, &n) in nodes.iter().enumerate() {
            let uses = uses_of(g, n);
            let here = uses.iter().filter_map(|&v| at.get(&g.def(v)?).copied());
            reads.push(here.collect());
            for v in uses {
                let list = users.entry(v).or_default();
                if list.last() != Some(&i) {
                    list.push(i);
                }
            }
            effects += u32::from(has_effect(g, n));
            segment.push(effects);
        }
        let results = g.regions[r].results.iter().copied().collect();
        let order = Order::new(reads);
        let owned = vec![false; nodes.len()];
        Plan { g, nodes, at, users, results, segment, owned, order, clusters: vec![] }
    }

    /// The primitive at a position.
    pub fn prim(&self, i: usize) -> Option<&'g Prim> {
        match &self.g.nodes[self.nodes[i]].op {
            Op::Prim(p) => Some(p),
            _ => None,
        }
    }

    /// Operands at a position.
    pub fn inputs(&self, i: usize) -> &'g [Value] {
        &self.g.nodes[self.nodes[i]].inputs
    }

    /// First output at a position.
    pub fn out(&self, i: usize) -> Value {
        self.g.nodes[self.nodes[i]].outputs[0]
    }

    /// Dims of the first output at a position.
    pub fn dims(&self, i: usize) -> &'g [Dim] {
        self.g.dims(self.out(i))
    }

    /// Position of the node of this region that defines a value.
    pub fn def(&self, v: Value) -> Option<usize> {
        self.at.get(&self.g.def(v)?).copied()
    }

    /// Positions that use a value.
    pub fn users(&self, v: Value) -> &[usize] {
        self.users.get(&v).map_or(&[], |u| u)
    }

    /// Not in a group yet, and no symbol is bound between here and there.
    pub fn free(&self, i: usize, with: usize) -> bool {
        !self.owned[i] && self.segment[i] == self.segment[with]
    }

    /// An elementwise primitive.
    pub fn is_elementwise(&self, i: usize) -> bool {
        self.prim(i).is_some_and(Prim::is_elementwise)
    }

    /// Is a value used outside of a set of positions?
    pub fn escapes(&self, v: Value, inside: &BTreeSet<usize>) -> bool {
        self.results.contains(&v) || self.users(v).iter().any(|u| !inside.contains(u))
    }

    /// Values of a set that are used outside it, in order of definition.
    pub fn escaping(&self, inside: &BTreeSet<usize>) -> Vec<Value> {
        let outs = inside.iter().flat_map(|&i| self.g.nodes[self.nodes[i]].outputs.iter().copied());
        outs.filter(|&v| self.escapes(v, inside)).collect()
    }

    /// Would the set, as one node, depend on itself? Groups made before count as one node.
    pub fn cyclic(&self, set: &BTreeSet<usize>) -> bool {
        self.order.cyclic(set)
    }

    /// Makes a group of a set.
    pub fn take(&mut self, kind: GroupKind, anchor: usize, set: BTreeSet<usize>) {
        self.order.join(&set);
        for &i in &set {
            self.owned[i] = true;
        }
        self.clusters.push((kind, anchor, set));
    }

    /// The groups, in order of their last node.
    pub fn clusters(self) -> Vec<Cluster> {
        let mut out: Vec<Cluster> = self
            .clusters
            .iter()
            .map(|(kind, anchor, at)| Cluster {
                kind: *kind,
                anchor: *anchor,
                at: at.clone(),
                nodes: at.iter().map(|&i| self.nodes[i]).collect(),
                outputs: self.escaping(at),
            })
            .collect();
        out.sort_by_key(|c| c.at.last().copied());
        out
    }
}
