//! Transposes beside a contraction become an order of its labels: its operands are read, and its
//! result written, as they lie.

use crate::context::{Changed, Context, PassError};
use crate::rewrite::{Match, Pat, Replacement, Rule, always, apply};
use Pat::{Prim as P, Slot};
use hub_abi::prim::Prim;
use hub_ir::build::Builder;
use hub_ir::{Graph, Value};

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    apply(g, cx, RULES)
}

/// Slots 0 and 1 are the operands, 2 the transpose.
pub const RULES: &[Rule] = &[
    Rule {
        name: "contract-transposed-left",
        pattern: || P(is_contract, vec![transposed(0), Slot(1)]),
        shared: true,
        when: always,
        build: |b, m| operand(b, m, 0),
    },
    Rule {
        name: "contract-transposed-right",
        pattern: || P(is_contract, vec![Slot(0), transposed(1)]),
        shared: true,
        when: always,
        build: |b, m| operand(b, m, 1),
    },
    Rule {
        name: "contract-transposed-result",
        pattern: || P(is_transpose, vec![P(is_contract, vec![Slot(0), Slot(1)]).named(2)]),
        shared: false,
        when: always,
        build: result,
    },
];

fn is_contract(p: &Prim) -> bool {
    matches!(p, Prim::Contract { .. })
}
fn is_transpose(p: &Prim) -> bool {
    matches!(p, Prim::Transpose { .. })
}

fn transposed(x: u8) -> Pat {
    P(is_transpose, vec![Slot(x)]).named(2)
}

/// Axis `i` of the transposed operand is axis `perm[i]` of what it was.
fn operand(b: &mut Builder<'_>, m: &Match, side: usize) -> Replacement {
    let (Prim::Contract { a, b: lb, out }, Prim::Transpose { perm }) =
        (m.root_prim(b.g).clone(), m.prim(b.g, 2).clone())
    else {
        unreachable!("the pattern says a contraction of a transpose")
    };
    let mut labels = [a, lb];
    let was = labels[side].clone();
    perm.iter().zip(was).for_each(|(&p, l)| labels[side][p as usize] = l);
    let [a, lb] = labels;
    b.prim_n(Prim::Contract { a, b: lb, out }, &[m.v(0), m.v(1)])
}

fn result(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Prim::Transpose { perm }, Prim::Contract { a, b: lb, out }) =
        (m.root_prim(b.g).clone(), m.prim(b.g, 2).clone())
    else {
        unreachable!("the pattern says a transpose of a contraction")
    };
    let out = perm.iter().map(|&p| out[p as usize]).collect();
    let ins: [Value; 2] = [m.v(0), m.v(1)];
    b.prim_n(Prim::Contract { a, b: lb, out }, &ins)
}
