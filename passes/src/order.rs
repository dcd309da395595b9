//! Puts the nodes of a region back into an order of execution after nodes were merged.

use hub_ir::visit::Flow;
use hub_ir::{Graph, Node, Region};
use petgraph::Direction;
use petgraph::visit::IntoNeighborsDirected;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Sorts a region topologically, staying as close to the present order as the uses allow. Panics on
/// a cycle: whoever merges nodes checks that it makes none.
pub fn sort(g: &mut Graph, r: Region) {
    let flow = Flow::new(g, r);
    let nodes = &g.regions[r].nodes;
    let mut waiting: HashMap<Node, usize> = HashMap::new();
    let mut ready = BinaryHeap::new();
    for (i, &n) in nodes.iter().enumerate() {
        let before = (&flow).neighbors_directed(n, Direction::Incoming).count();
        waiting.insert(n, before);
        if before == 0 {
            ready.push(Reverse(i));
        }
    }
    let mut out = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        out.push(nodes[i]);
        for user in (&flow).neighbors_directed(nodes[i], Direction::Outgoing) {
            let left = waiting.get_mut(&user).expect("a node of the region");
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse(flow.position(user).expect("a node of the region")));
            }
        }
    }
    assert_eq!(out.len(), nodes.len(), "merging nodes made a cycle");
    g.regions[r].nodes = out;
}
