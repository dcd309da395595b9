//! Attention: a product of probabilities and values, where the probabilities are a softmax of scaled
//! and masked products of queries and keys.
//!
//! What may stand between the two products is a small grammar ([`scores`]), walked from the second
//! product back; it is too free in order and number for a pattern.

mod build;
mod scores;

use crate::rewrite::{Match, Pat, Rule};
use hub_abi::prim::Prim;
use hub_ir::ops::matmul::MatMul;
use hub_ir::{Graph, Node, Op, Source, Value};

/// One rule: the condition walks, and so does the builder again.
pub const RULES: &[Rule] = &[Rule {
    name: "raise-attention",
    pattern: || {
        let operands = || vec![Pat::Slot(0), Pat::Slot(1)];
        Pat::Any(vec![Pat::Src(is_matmul, operands()), Pat::Prim(is_contract, operands())])
    },
    // The walk itself asks that nothing else uses what lies between.
    shared: true,
    when: |g, m| scores::find(g, m).map(|_| ()),
    build: build::attention,
}];

fn is_matmul(s: &Source) -> bool {
    matches!(s, Source::MatMul(_))
}
fn is_contract(p: &Prim) -> bool {
    matches!(p, Prim::Contract { .. })
}

/// A matrix product as an einsum.
struct Product {
    /// Operands and the labels of their axes.
    sides: [(Value, Vec<u8>); 2],
    out: Vec<u8>,
}

impl Product {
    /// The product that a node is; none for other nodes and for products of vectors.
    fn of(g: &Graph, n: Node) -> Option<Product> {
        let node = &g.nodes[n];
        let &[x, y] = &node.inputs[..] else { return None };
        match &node.op {
            Op::Prim(Prim::Contract { a, b, out }) => {
                Some(Product { sides: [(x, a.clone()), (y, b.clone())], out: out.clone() })
            }
            Op::Source(Source::MatMul(m)) => {
                let rank = g.dims(node.outputs[0]).len();
                let lead = rank.checked_sub(2)?;
                let labels = |v: Value, own: [u8; 2]| {
                    let n = g.dims(v).len().checked_sub(2)?;
                    let batch = (lead.checked_sub(n)?..lead).map(|i| BATCH + i as u8);
                    Some(batch.chain(own).collect::<Vec<u8>>())
                };
                let MatMul { trans_a, trans_b } = *m;
                let a = labels(x, if trans_a { [K, M] } else { [M, K] })?;
                let b = labels(y, if trans_b { [N, K] } else { [K, N] })?;
                let out = (0..lead).map(|i| BATCH + i as u8).chain([M, N]).collect();
                Some(Product { sides: [(x, a), (y, b)], out })
            }
            _ => None,
        }
    }
}

const M: u8 = 0;
const K: u8 = 1;
const N: u8 = 2;
const BATCH: u8 = 3;

/// The labels of `a` that `b` lacks.
fn beyond(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().copied().filter(|l| !b.contains(l)).collect()
}

/// Nothing but `by` uses a value.
fn only_use(m: &Match, v: Value, by: &[Node]) -> bool {
    let users = m.users(v);
    !users.is_empty() && users.iter().all(|u| by.contains(u))
}
