//! Passes: from a graph as a frontend made it to one of groups, movement, constants and control.
//!
//! A pass is `fn(&mut Graph, &Context) -> Result<Changed, PassError>` in a file of its own and a row
//! of [`PASSES`]. Rewrite rules are data ([`rewrite::Rule`]); only the driver mutates the graph, and
//! a rule that matches but must not fire says why ([`Report::refusals`]).
//!
//! Invariants: every pass keeps the meaning of the graph (within rounding) and the types of values
//! ([`narrow`] alone stores some in fewer bits, where that was asked for);
//! it leaves the graph legal for its row's stage, which [`Options::check_ir`] verifies after each.
#![forbid(unsafe_code)]

pub mod context;
pub mod cse;
pub mod dce;
pub mod expand;
pub mod fold;
pub mod fuse;
pub mod konst;
pub mod labels;
pub mod lower;
pub mod movement;
pub mod narrow;
pub mod norm;
pub mod order;
pub mod raise;
pub mod rewrite;
pub mod simplify;

pub use context::{
    Changed, Context, FoldLimits, Options, PassError, PassStat, Precision, Refusal, Report,
};

use hub_ir::Graph;
use hub_ir::verify::{Stage, verify};
use std::time::Instant;

/// A row of the table of passes.
pub struct Pass {
    /// Name, for `--print-after` and messages.
    pub name: &'static str,
    /// The function.
    pub run: fn(&mut Graph, &Context) -> Result<Changed, PassError>,
    /// The stage that the graph is legal for afterwards.
    pub stage: Stage,
}

const fn pass(
    name: &'static str,
    run: fn(&mut Graph, &Context) -> Result<Changed, PassError>,
    stage: Stage,
) -> Pass {
    Pass { name, run, stage }
}

/// All passes, in order.
pub const PASSES: &[Pass] = &[
    pass("dce", dce::run, Stage::Imported),
    pass("fold", fold::run, Stage::Typed),
    pass("simplify", simplify::run, Stage::Typed),
    pass("cse-typed", cse::run, Stage::Typed),
    pass("raise", raise::run, Stage::Raised),
    pass("expand", expand::run, Stage::Raised),
    pass("fold-prims", fold::run, Stage::Raised),
    pass("cse", cse::run, Stage::Raised),
    pass("lower", lower::run, Stage::Raised),
    pass("simplify-prims", simplify::run, Stage::Raised),
    pass("movement", movement::run, Stage::Raised),
    pass("fold-norm", norm::run, Stage::Raised),
    pass("labels", labels::run, Stage::Raised),
    pass("clean", dce::run, Stage::Raised),
    pass("fuse", fuse::run, Stage::Fused),
    pass("narrow", narrow::run, Stage::Quantised),
];

/// Runs every pass.
pub fn optimize(g: &mut Graph, options: &Options) -> Result<Report, PassError> {
    run(g, options, &mut |_, _| {})
}

/// Runs every pass, calling `after` with each one's name and result.
pub fn run(
    g: &mut Graph,
    options: &Options,
    after: &mut dyn FnMut(&'static str, &Graph),
) -> Result<Report, PassError> {
    run_until(g, options, "", after)
}

/// Runs passes up to and including the one called `last` (all, if none is).
pub fn run_until(
    g: &mut Graph,
    options: &Options,
    last: &str,
    after: &mut dyn FnMut(&'static str, &Graph),
) -> Result<Report, PassError> {
    let cx = Context::new(options.clone());
    for p in PASSES {
        let start = Instant::now();
        let changed = (p.run)(g, &cx).map_err(|e| e.in_pass(p.name))?;
        cx.passed(p.name, changed, start.elapsed(), g.walk().len());
        if options.check_ir {
            verify(g, p.stage).map_err(|source| PassError::Broken { pass: p.name, source })?;
        }
        after(p.name, g);
        if p.name == last {
            break;
        }
    }
    Ok(cx.into_report())
}

#[cfg(test)]
mod tests;
