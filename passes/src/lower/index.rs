//! Constant indices of 64 bits that fit 32: kernels then read twice as many at a time and need no
//! wider registers than those of what they gather.

use crate::konst;
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Const, Prim as P, Slot};
use hub_abi::Dtype;
use hub_abi::prim::Prim;
use hub_ir::Graph;
use hub_ir::build::Builder;

/// Slot 0 is what is gathered from, 1 the indices.
pub const RULE: Rule = Rule {
    name: "index-i32",
    pattern: || P(gathers, vec![Slot(0), Const(1)]),
    shared: true,
    when: |g, m| if fit(g, m) { Ok(()) } else { Err("") },
    build: narrowed,
};

fn gathers(p: &Prim) -> bool {
    matches!(p, Prim::Gather { .. } | Prim::GatherElements { .. } | Prim::GatherNd { .. })
}

fn fit(g: &Graph, m: &Match) -> bool {
    g.as_const(m.v(1)).is_some_and(|c| {
        let mut all = c.data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
        c.ty.dtype == Dtype::I64 && all.all(|i| i32::try_from(i).is_ok())
    })
}

fn narrowed(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let prim = m.root_prim(b.g).clone();
    let at = konst::calc(b, Prim::Cast { to: Dtype::I32, saturate: true }, &[m.v(1)])?;
    Ok(vec![b.prim(prim, &[m.v(0), at])?])
}
