//! Groups of a device whose operators compute anchors: one group for what comes before the anchor, the
//! anchor alone, one group for what comes after it. They stand beside the graph, whose own group remains
//! what the other targets lower and the host runs.

use super::{PlaceError, Placer};
use hub_ir::{Graph, GroupKind, Node, Op, Prim, Region, Value};
use std::collections::{HashMap, HashSet};

/// For each group that holds more than its anchor: the groups that stand for it.
pub fn splits(g: &mut Graph) -> HashMap<Node, Vec<Node>> {
    let mut out = HashMap::new();
    for n in g.walk() {
        let Op::Group { kind, region } = g.nodes[n].op else { continue };
        if !matches!(kind, GroupKind::Map | GroupKind::Row)
            && let Some(parts) = split(g, n, kind, region)
        {
            out.insert(n, parts);
        }
    }
    out
}

fn is_anchor(op: &Op) -> bool {
    matches!(op, Op::Prim(Prim::Contract { .. } | Prim::Conv { .. } | Prim::Window { .. }))
}

fn split(g: &mut Graph, n: Node, kind: GroupKind, region: Region) -> Option<Vec<Node>> {
    let computing = |m: &Node| !matches!(g.nodes[*m].op, Op::Const(_));
    let nodes: Vec<Node> = g.regions[region].nodes.iter().copied().filter(computing).collect();
    let at = nodes.iter().position(|&m| is_anchor(&g.nodes[m].op))?;
    if nodes.len() == 1 {
        return None;
    }
    let mut feeds: HashSet<Value> = g.nodes[nodes[at]].inputs.iter().copied().collect();
    let mut before = vec![];
    for &m in nodes[..at].iter().rev() {
        if g.nodes[m].outputs.iter().any(|v| feeds.contains(v)) {
            feeds.extend(&g.nodes[m].inputs);
            before.insert(0, m);
        }
    }
    let after = nodes.iter().copied().filter(|m| *m != nodes[at] && !before.contains(m)).collect();
    let lists = [(GroupKind::Map, before), (kind, vec![nodes[at]]), (GroupKind::Map, after)];
    let lists: Vec<_> = lists.into_iter().filter(|(_, l)| !l.is_empty()).collect();
    // What values of the region are outside: the group's operands to begin with.
    let params = g.regions[region].params.clone();
    let mut outside: HashMap<Value, Value> =
        params.into_iter().zip(g.nodes[n].inputs.clone()).collect();
    let mut made = vec![];
    for (i, (kind, list)) in lists.iter().enumerate() {
        let later: Vec<Node> = lists[i + 1..].iter().flat_map(|(_, l)| l).copied().collect();
        made.push(part(g, (n, region), *kind, list, &later, &mut outside)?);
    }
    Some(made)
}

/// A group of some of a group's nodes; `later` are those of the groups after it.
fn part(
    g: &mut Graph,
    (whole, from): (Node, Region),
    kind: GroupKind,
    list: &[Node],
    later: &[Node],
    outside: &mut HashMap<Value, Value>,
) -> Option<Node> {
    let region = g.new_region();
    let (mut inner, mut inputs) = (HashMap::new(), vec![]);
    for &m in list {
        for v in g.nodes[m].inputs.clone() {
            if inner.contains_key(&v) || list.iter().any(|&l| g.nodes[l].outputs.contains(&v)) {
                continue;
            }
            let here = match g.def(v).filter(|d| matches!(g.nodes[*d].op, Op::Const(_))) {
                Some(c) => copy_of(g, c, region, &mut inner),
                None => {
                    inputs.push(*outside.get(&v)?);
                    let ty = g.ty(v).clone();
                    g.add_param(region, ty)
                }
            };
            inner.insert(v, here);
        }
        copy_of(g, m, region, &mut inner);
    }
    let wanted = |v: &Value| {
        g.regions[from].results.contains(v) || later.iter().any(|&l| g.nodes[l].inputs.contains(v))
    };
    let outs: Vec<Value> = list.iter().flat_map(|&m| g.nodes[m].outputs.clone()).collect();
    let outs: Vec<Value> = outs.into_iter().filter(wanted).collect();
    g.regions[region].results = outs.iter().map(|v| inner[v]).collect();
    let types = outs.iter().map(|&v| g.ty(v).clone()).collect();
    let name = g.nodes[whole].name.clone();
    let node = g.make_node(Op::Group { kind, region }, inputs, types, &name);
    outside.extend(outs.into_iter().zip(g.nodes[node].outputs.clone()));
    Some(node)
}

/// A copy of a node in another region; its (first) result there.
fn copy_of(g: &mut Graph, m: Node, to: Region, inner: &mut HashMap<Value, Value>) -> Value {
    let ins = g.nodes[m].inputs.iter().map(|v| inner.get(v).copied().unwrap_or(*v)).collect();
    let types = g.nodes[m].outputs.iter().map(|&v| g.ty(v).clone()).collect();
    let (op, name) = (g.nodes[m].op.clone(), g.nodes[m].name.clone());
    let copy = g.make_node(op, ins, types, &name);
    g.regions[to].nodes.push(copy);
    inner.extend(g.nodes[m].outputs.clone().into_iter().zip(g.nodes[copy].outputs.clone()));
    g.nodes[copy].outputs[0]
}

impl Placer<'_> {
    /// Lets groups stand for others.
    pub(super) fn split(&mut self, splits: &HashMap<Node, Vec<Node>>) {
        for (n, parts) in splits {
            let home = self.homes[n];
            self.homes.extend(parts.iter().map(|p| (*p, home)));
        }
        self.splits = splits.clone();
    }

    /// The steps of the groups that stand for group `n`; gives why there is no kernel for one of them.
    pub(super) fn parts_of_group(
        &mut self,
        n: Node,
        parts: &[Node],
    ) -> Result<Option<String>, PlaceError> {
        let g = self.g;
        let Some(&last) = parts.last() else { return Ok(None) };
        // A group around an anchor has one result, which the last part makes where it belongs.
        for (&whole, &mine) in g.nodes[n].outputs.iter().zip(&g.nodes[last].outputs) {
            let place = self.allocate(whole)?;
            self.places.insert(mine, place);
        }
        for &p in parts {
            let Op::Group { kind, region } = g.nodes[p].op else { continue };
            if let Some(why) = self.one_group(p, kind, region)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}
