//! Primitives that have no kernel of their own, or a worse one than need be, as others that do.

mod flat;
mod index;
mod pad;
mod transposed;

use crate::context::{Changed, Context, PassError};
use crate::rewrite::{Rule, apply};
use hub_ir::Graph;

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    apply(g, cx, RULES)
}

/// The rules.
pub const RULES: &[Rule] =
    &[transposed::RULE, flat::CONV, flat::WINDOW, flat::PAD, pad::RULE, index::RULE];
