//! The nodes and leaves of tree ensembles, from either way of writing them down.

use super::ml::tensor_constant;
use crate::onnx::cx::{Cx, Got, invalid, unsupported};
use hub_abi::prim::BinaryOp;
use std::collections::HashMap;

/// Most leaves times targets.
const MOST_WEIGHTS: usize = 1 << 27;

/// How a node compares the feature with its value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Mode {
    Leaf,
    Test(BinaryOp),
}

impl Mode {
    fn named(name: &str) -> Got<Mode> {
        Ok(Mode::Test(match name {
            "LEAF" => return Ok(Mode::Leaf),
            "BRANCH_LEQ" => BinaryOp::Le,
            "BRANCH_LT" => BinaryOp::Lt,
            "BRANCH_GTE" => BinaryOp::Ge,
            "BRANCH_GT" => BinaryOp::Gt,
            "BRANCH_EQ" => BinaryOp::Eq,
            "BRANCH_NEQ" => BinaryOp::Ne,
            other => return invalid(format!("a node of mode '{other}'")),
        }))
    }
}

/// A node: what it asks, where it leads, and which row of weights it has as a leaf.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub mode: Mode,
    pub feature: i64,
    pub value: f64,
    pub missing: bool,
    pub next: [usize; 2],
    pub leaf: usize,
}

/// Nodes of all trees, and the weights of leaves.
pub(super) struct Forest {
    pub nodes: Vec<Node>,
    pub roots: Vec<usize>,
    /// A row a leaf, row 0 without any: (target, weight) pairs.
    pub leaves: Vec<Vec<(usize, f64)>>,
    pub targets: usize,
}

impl Forest {
    /// Steps to the deepest leaf; an error if nodes lead in a circle.
    pub fn depth(&self) -> Got<usize> {
        let inner = |n: &&Node| n.mode != Mode::Leaf;
        let mut parents = vec![0usize; self.nodes.len()];
        self.nodes.iter().filter(inner).flat_map(|n| n.next).for_each(|m| parents[m] += 1);
        let mut todo: Vec<usize> = (0..parents.len()).filter(|&n| parents[n] == 0).collect();
        let mut depth = vec![0usize; parents.len()];
        let mut done = 0;
        while let Some(n) = todo.pop() {
            done += 1;
            if self.nodes[n].mode == Mode::Leaf {
                continue;
            }
            for m in self.nodes[n].next {
                depth[m] = depth[m].max(depth[n] + 1);
                parents[m] -= 1;
                if parents[m] == 0 {
                    todo.push(m);
                }
            }
        }
        if done < parents.len() {
            return invalid("a tree's nodes lead in a circle");
        }
        Ok(depth.into_iter().max().unwrap_or(0))
    }

    /// Weights `[leaves, targets]`, `rest` where a leaf has none.
    pub fn weights(&self, rest: f64) -> Got<Vec<f64>> {
        let size = self.leaves.len().checked_mul(self.targets);
        let Some(size) = size.filter(|&n| n <= MOST_WEIGHTS) else {
            return unsupported("leaves times targets past 2^27");
        };
        let mut all = vec![rest; size];
        for (row, leaf) in self.leaves.iter().enumerate() {
            for &(target, weight) in leaf {
                let at = &mut all[row * self.targets + target];
                *at = if *at == rest && rest != 0.0 { weight } else { *at + weight };
            }
        }
        Ok(all)
    }
}

/// Numbers of a float list or of the tensor that later versions have instead.
pub(super) fn numbers(c: &mut Cx<'_, '_, '_>, name: &str) -> Got<Vec<f64>> {
    if let Some(f) = c.floats(name)?.filter(|f| !f.is_empty()) {
        return Ok(f.into_iter().map(f64::from).collect());
    }
    tensor_numbers(c, &format!("{name}_as_tensor"))
}

fn tensor_numbers(c: &mut Cx<'_, '_, '_>, name: &str) -> Got<Vec<f64>> {
    let Some(t) = tensor_constant(c, name)? else { return Ok(vec![]) };
    let all = hub_ir::known::value_of(c.b.g, t, 1 << 26).and_then(|t| t.to_f64s().ok());
    match all {
        Some(all) => Ok(all),
        None => invalid(format!("attribute '{name}'")),
    }
}

/// The forest of the classifier (`class_…`) or the regressor (`target_…`).
pub(super) fn forest(c: &mut Cx<'_, '_, '_>, kind: &str, targets: usize) -> Got<Forest> {
    let list = |c: &Cx<'_, '_, '_>, name: &str| c.ints(name).map(Option::unwrap_or_default);
    let ids = (list(c, "nodes_treeids")?, list(c, "nodes_nodeids")?);
    let (yes, no) = (list(c, "nodes_truenodeids")?, list(c, "nodes_falsenodeids")?);
    let (features, missing) =
        (list(c, "nodes_featureids")?, list(c, "nodes_missing_value_tracks_true")?);
    let modes = c.strings("nodes_modes")?.unwrap_or_default();
    let values = numbers(c, "nodes_values")?;
    let n = modes.len();
    let lens = [ids.0.len(), ids.1.len(), yes.len(), no.len(), features.len(), values.len()];
    if lens != [n; 6] || (!missing.is_empty() && missing.len() != n) {
        return invalid("the lists of nodes differ in length");
    }
    let at: HashMap<(i64, i64), usize> = ids.0.iter().copied().zip(ids.1).zip(0..).collect();
    if at.len() != n {
        return invalid("two nodes of a tree have the same number");
    }
    let mut f = Forest { nodes: vec![], roots: vec![], leaves: vec![vec![]], targets };
    let mut child = vec![false; n];
    for i in 0..n {
        let mode = Mode::named(&modes[i])?;
        let mut next = [i; 2];
        if mode != Mode::Leaf {
            for (to, id) in next.iter_mut().zip([yes[i], no[i]]) {
                let Some(&j) = at.get(&(ids.0[i], id)) else {
                    return invalid(format!("node {id} of tree {} is missing", ids.0[i]));
                };
                *to = j;
                child[j] = true;
            }
        }
        let missing = missing.get(i).is_some_and(|&m| m != 0);
        let feature = if mode == Mode::Leaf { 0 } else { features[i] };
        f.nodes.push(Node { mode, feature, value: values[i], missing, next, leaf: 0 });
    }
    f.roots = (0..n).filter(|&i| !child[i]).collect();
    let trees = (list(c, &format!("{kind}_treeids"))?, list(c, &format!("{kind}_nodeids"))?);
    let to = list(c, &format!("{kind}_ids"))?;
    let weights = numbers(c, &format!("{kind}_weights"))?;
    if [trees.0.len(), trees.1.len(), weights.len()] != [to.len(); 3] {
        return invalid("the lists of weights differ in length");
    }
    for (i, key) in trees.0.into_iter().zip(trees.1).enumerate() {
        let target = usize::try_from(to[i]).ok().filter(|&t| t < targets);
        let (Some(&node), Some(target)) = (at.get(&key), target) else {
            return invalid(format!("weight {i} is of no node or of no target"));
        };
        let node = &mut f.nodes[node];
        if node.leaf == 0 {
            node.leaf = f.leaves.len();
            f.leaves.push(vec![]);
        }
        f.leaves[node.leaf].push((target, weights[i]));
    }
    Ok(f)
}

/// The nodes and leaves of version 5 of the domain.
pub(super) fn flat_forest(c: &mut Cx<'_, '_, '_>, targets: usize) -> Got<Forest> {
    let list = |c: &Cx<'_, '_, '_>, name: &str| c.ints(name).map(Option::unwrap_or_default);
    let modes = tensor_numbers(c, "nodes_modes")?;
    let values = tensor_numbers(c, "nodes_splits")?;
    let weights = tensor_numbers(c, "leaf_weights")?;
    let members = tensor_numbers(c, "membership_values")?;
    let mut sets = members.split(|v| v.is_nan());
    let (to, features) = (list(c, "leaf_targetids")?, list(c, "nodes_featureids")?);
    let next = [list(c, "nodes_truenodeids")?, list(c, "nodes_falsenodeids")?];
    let ends = [list(c, "nodes_trueleafs")?, list(c, "nodes_falseleafs")?];
    let missing = list(c, "nodes_missing_value_tracks_true")?;
    let n = modes.len();
    let lens = [&features, &next[0], &next[1], &ends[0], &ends[1]].map(Vec::len);
    if lens != [n; 5] || values.len() != n || (!missing.is_empty() && missing.len() != n) {
        return invalid("the lists of nodes differ in length");
    }
    if weights.len() != to.len() {
        return invalid("the lists of leaves differ in length");
    }
    let mut f = Forest { nodes: vec![], roots: vec![], leaves: vec![vec![]], targets };
    // Nodes come first, then leaves, then what tests for members adds.
    let place = |id: i64, leaf: bool| {
        let most = if leaf { to.len() } else { n };
        let id = usize::try_from(id).ok().filter(|&i| i < most)?;
        Some(if leaf { n + id } else { id })
    };
    let mut tests = vec![];
    for i in 0..n {
        let ways = [0, 1].map(|w: usize| place(next[w][i], ends[w][i] != 0));
        let [Some(yes), Some(no)] = ways else {
            return invalid(format!("node {i} leads to no node and no leaf"));
        };
        let mode = match modes[i] as i64 {
            m @ 0..=5 => {
                let ops = [BinaryOp::Le, BinaryOp::Lt, BinaryOp::Ge, BinaryOp::Gt];
                let more = [BinaryOp::Eq, BinaryOp::Ne];
                ops.into_iter().chain(more).nth(m as usize).unwrap_or(BinaryOp::Le)
            }
            6 => {
                tests.push((i, sets.next().unwrap_or(&[]).to_vec()));
                BinaryOp::Eq
            }
            m => return invalid(format!("a node of mode {m}")),
        };
        f.nodes.push(Node {
            mode: Mode::Test(mode),
            feature: features[i],
            value: values[i],
            missing: missing.get(i).is_some_and(|&m| m != 0),
            next: [yes, no],
            leaf: 0,
        });
    }
    for (i, (&t, &w)) in to.iter().zip(&weights).enumerate() {
        let Some(t) = usize::try_from(t).ok().filter(|&t| t < targets) else {
            return invalid(format!("leaf {i} is of no target"));
        };
        let next = [n + i; 2];
        let mode = Mode::Leaf;
        let leaf = f.leaves.len();
        f.nodes.push(Node { mode, feature: 0, value: 0.0, missing: false, next, leaf });
        f.leaves.push(vec![(t, w)]);
    }
    for (i, set) in tests {
        chain(&mut f, i, &set);
    }
    for r in list(c, "tree_roots")? {
        match place(r, false) {
            Some(r) => f.roots.push(r),
            None => return invalid(format!("root {r} is no node")),
        }
    }
    Ok(f)
}

/// A test for members as a chain of tests for each.
fn chain(f: &mut Forest, i: usize, set: &[f64]) {
    // Of no member, one that nothing equals.
    let set = if set.is_empty() { &[f64::NAN] } else { set };
    let last = f.nodes[i].next[1];
    let mut at = i;
    for (k, &v) in set.iter().enumerate() {
        f.nodes[at].value = v;
        f.nodes[at].next[1] = last;
        if k + 1 < set.len() {
            let more = f.nodes.len();
            let node = Node { missing: false, ..f.nodes[at].clone() };
            f.nodes[at].next[1] = more;
            f.nodes.push(node);
            at = more;
        }
    }
}
