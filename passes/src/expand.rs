//! Source operators to primitives, by their definitions.

use crate::context::{Changed, Context, PassError};
use hub_ir::{Graph, Op};

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let sources = g.walk().iter().filter(|&&n| matches!(g.nodes[n].op, Op::Source(_))).count();
    hub_ir::expand::expand_all(g)?;
    cx.fired("expand", sources as u32);
    Ok(sources > 0)
}
