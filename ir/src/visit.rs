//! petgraph's view of a region: its nodes, with an edge from the node that defines a value to every
//! node that uses it (itself or in its regions). Values from outside the region make no edge.

use crate::entity::{Entity, Node, Region, Value};
use crate::graph::Graph;
use petgraph::Direction;
use petgraph::visit::{
    GraphBase, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCompactIndexable,
    NodeCount, NodeIndexable, VisitMap, Visitable,
};
use std::collections::{HashMap, HashSet};

/// The data flow of one region as it was when the view was made.
pub struct Flow {
    nodes: Vec<Node>,
    at: HashMap<Node, usize>,
    before: Vec<Vec<Node>>,
    after: Vec<Vec<Node>>,
}

impl Flow {
    /// Looks at a region.
    pub fn new(g: &Graph, r: Region) -> Flow {
        let nodes = g.regions[r].nodes.clone();
        let at: HashMap<Node, usize> = nodes.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let mut before = vec![vec![]; nodes.len()];
        let mut after = vec![vec![]; nodes.len()];
        for (i, &n) in nodes.iter().enumerate() {
            let mut seen = HashSet::new();
            for v in uses_of(g, n) {
                let Some(d) = g.def(v).filter(|d| *d != n) else { continue };
                if let Some(&j) = at.get(&d)
                    && seen.insert(d)
                {
                    before[i].push(d);
                    after[j].push(n);
                }
            }
        }
        Flow { nodes, at, before, after }
    }

    /// Position of a node in its region.
    pub fn position(&self, n: Node) -> Option<usize> {
        self.at.get(&n).copied()
    }
}

/// Values that a node uses, itself and in its regions (left-out operands aside).
pub fn uses_of(g: &Graph, n: Node) -> Vec<Value> {
    let mut out: Vec<Value> = g.nodes[n].inputs.iter().filter_map(|v| v.some()).collect();
    for r in g.regions_of(n) {
        for &m in &g.regions[r].nodes {
            out.extend(uses_of(g, m));
        }
        out.extend(&g.regions[r].results);
    }
    out
}

/// Nodes seen in a walk.
#[derive(Clone, Default)]
pub struct Seen(HashSet<Node>);

impl VisitMap<Node> for Seen {
    fn visit(&mut self, n: Node) -> bool {
        self.0.insert(n)
    }
    fn is_visited(&self, n: &Node) -> bool {
        self.0.contains(n)
    }
    fn unvisit(&mut self, n: Node) -> bool {
        self.0.remove(&n)
    }
}

impl GraphBase for Flow {
    type NodeId = Node;
    type EdgeId = (Node, Node);
}

impl Visitable for Flow {
    type Map = Seen;
    fn visit_map(&self) -> Seen {
        Seen::default()
    }
    fn reset_map(&self, map: &mut Seen) {
        map.0.clear();
    }
}

impl<'a> IntoNeighbors for &'a Flow {
    type Neighbors = std::iter::Copied<std::slice::Iter<'a, Node>>;
    fn neighbors(self, n: Node) -> Self::Neighbors {
        self.neighbors_directed(n, Direction::Outgoing)
    }
}

impl<'a> IntoNeighborsDirected for &'a Flow {
    type NeighborsDirected = std::iter::Copied<std::slice::Iter<'a, Node>>;
    fn neighbors_directed(self, n: Node, d: Direction) -> Self::NeighborsDirected {
        let lists = if d == Direction::Outgoing { &self.after } else { &self.before };
        let none: &'a [Node] = &[];
        self.at.get(&n).map_or(none, |&i| &lists[i]).iter().copied()
    }
}

impl<'a> IntoNodeIdentifiers for &'a Flow {
    type NodeIdentifiers = std::iter::Copied<std::slice::Iter<'a, Node>>;
    fn node_identifiers(self) -> Self::NodeIdentifiers {
        self.nodes.iter().copied()
    }
}

impl NodeCount for Flow {
    fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

impl NodeIndexable for Flow {
    fn node_bound(&self) -> usize {
        self.nodes.len()
    }
    fn to_index(&self, n: Node) -> usize {
        self.at[&n]
    }
    fn from_index(&self, i: usize) -> Node {
        self.nodes.get(i).copied().unwrap_or(Node::new(0))
    }
}

impl NodeCompactIndexable for Flow {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;
    use petgraph::algo::{has_path_connecting, is_cyclic_directed, toposort};

    #[test]
    fn petgraph_walks_a_region() {
        let text = "graph(%0: f32[2]) {
            %1: f32[2] = neg(%0)
            %2: bool[] = const true
            %3: f32[2] = if(%2) do {
                %4: f32[2] = exp(%1)
                return %4
            } do {
                return %0
            }
            %5: f32[2] = abs(%0)
            return %3 \"y\", %5 \"z\"
        }";
        let g = parse(text).unwrap();
        let flow = Flow::new(&g, g.root());
        let [neg, _, branch, abs] = flow.nodes[..] else { panic!("four nodes") };
        assert!(has_path_connecting(&flow, neg, branch, None), "through the branch's region");
        assert!(!has_path_connecting(&flow, neg, abs, None));
        assert!(!is_cyclic_directed(&flow));
        let order = toposort(&flow, None).unwrap();
        let at = |n| order.iter().position(|&m| m == n);
        assert!(at(neg) < at(branch));
    }
}
