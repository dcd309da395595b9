//! Rewrite rules as data, and the driver that applies them.

mod driver;
mod pattern;

pub use driver::{apply, apply_once};
pub use pattern::{Match, Pat, PrimTest, SourceTest, number_of, splat_of};

use hub_ir::build::Builder;
use hub_ir::{Graph, OpError, Value};

/// What a builder gives: the new values of the root node's outputs.
pub type Replacement = Result<Vec<Value>, OpError>;

/// A rule: where the pattern matches and the condition holds, the root node's outputs become what
/// `build` makes. The driver refuses replacements of another type.
pub struct Rule {
    /// Name, for counts and refusals.
    pub name: &'static str,
    /// What it looks for, ending at the root node.
    pub pattern: fn() -> Pat,
    /// Interior values of the match may have other uses (their nodes then stay).
    pub shared: bool,
    /// Must hold; a refusal says why not. An empty reason is "does not apply" and not recorded.
    pub when: fn(&Graph, &Match) -> Result<(), &'static str>,
    /// Makes the replacement.
    pub build: fn(&mut Builder<'_>, &Match) -> Replacement,
}

/// A condition that always holds.
pub fn always(_: &Graph, _: &Match) -> Result<(), &'static str> {
    Ok(())
}
