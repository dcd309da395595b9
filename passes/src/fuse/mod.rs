//! Fusion: every computing primitive goes into a group, built around an anchor where there is one.
//!
//! - *Contract*, *Conv*, *Window*: one anchor, then elementwise primitives of its output's shape whose
//!   other operands broadcast to it; one result, of that shape. Interior values have no use outside.
//! - *Row*: reductions over one set of axes of one shape, with elementwise primitives of the full or
//!   the reduced shape before, between and after. The result, reduced values and a sum that feeds it
//!   may all be outputs.
//! - *Map*: elementwise primitives of one shape, with Broadcast, Iota and gathers as producers; every
//!   output has that shape. A single gather or Iota is one too.
//!
//! Movement (Reshape, Transpose, Slice, Concat, Pad, a Broadcast that feeds no elementwise primitive)
//! stays outside, as does what has no fused form. Constants of one element are inside, others are
//! params. A group crosses no region and no node that binds symbols.

mod build;
mod cycles;
mod grow;
mod plan;

use crate::context::{Changed, Context, PassError};
use hub_ir::{Graph, GroupKind};
use plan::Plan;

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let mut changed = false;
    for r in g.live_regions() {
        let clusters = {
            let mut plan = Plan::new(g, r);
            grow::anchors(&mut plan);
            grow::rows(&mut plan);
            grow::maps(&mut plan);
            plan.clusters()
        };
        for c in &clusters {
            cx.fired(counted(c.kind), 1);
        }
        changed |= !clusters.is_empty();
        build::groups(g, r, &clusters);
    }
    crate::dce::remove_dead(g);
    Ok(changed)
}

fn counted(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Map => "group-map",
        GroupKind::Row => "group-row",
        GroupKind::Contract => "group-contract",
        GroupKind::Conv => "group-conv",
        GroupKind::Window => "group-window",
    }
}
