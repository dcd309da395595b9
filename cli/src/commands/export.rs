//! `hub export`: a model becomes a bundle.

use crate::args::Export;
use crate::compile::{Job, compile};
use crate::failure::Failure;

/// Compiles, writes, and says what was done.
pub fn run(a: Export) -> Result<(), Failure> {
    let report = compile(&Job::of(&a.build)?)?;
    report.print(a.build.json);
    report.verdict()
}
