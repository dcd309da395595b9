//! Raising: source operators recovered from what exporters decompose, so that one definition (and one
//! lowering) serves every exporter. Each rule matches one operator in all its known spellings.

mod activation;
mod attention;
mod norm;
mod pool;
mod resize;

use crate::context::{Changed, Context, PassError};
use crate::rewrite::{Match, Pat, Replacement, Rule, apply};
use hub_ir::build::Builder;
use hub_ir::{Graph, Source};

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let functions = apply(g, cx, activation::RULES)?;
    let norms = apply(g, cx, norm::RULES)?;
    // Made of products and the softmax that has been raised.
    let attention = apply(g, cx, attention::RULES)?;
    // Means that are no part of a normalisation.
    let pools = apply(g, cx, pool::RULES)?;
    let resizes = apply(g, cx, resize::RULES)? | apply(g, cx, resize::LATE)?;
    Ok(functions || norms || attention || pools || resizes)
}

type When = Result<(), &'static str>;

const fn rule(
    name: &'static str,
    pattern: fn() -> Pat,
    when: fn(&Graph, &Match) -> When,
    build: fn(&mut Builder<'_>, &Match) -> Replacement,
) -> Rule {
    Rule { name, pattern, shared: false, when, build }
}

/// A source operator on slot 0.
fn on_slot_0(b: &mut Builder<'_>, m: &Match, s: impl Into<Source>) -> Replacement {
    b.source_n(s, &[m.v(0)])
}
