//! Paddle's ProgramDesc (`.pdmodel`, `__model__`) and PIR (`.json`).
//!
//! Both are read into one [`program::Program`] (blocks of operators on variables) that one walk
//! turns into the graph: [`legacy`] and [`pir`] read, [`params`] and [`files`] find the weights,
//! [`import`] walks, [`control`] has loops and branches, [`arrays`] tensor arrays, and [`ops`] has a row for each
//! operator.
//!
//! Invariants
//! - Parameters are matched to a combined file by name order alone, so each record must be of the
//!   declared type, and the file must end with the last.
//! - Blocks form a tree of bounded depth; operators use what stands before them.

mod arrays;
mod control;
mod ctx;
mod files;
mod import;
mod legacy;
mod ops;
mod params;
mod pir;
mod program;
mod proto;
#[cfg(test)]
mod tests;

use crate::sniff::read_file;
use crate::{FrontendError, LoadOptions, Loaded, Provenance};
use std::path::Path;

/// Reads a ProgramDesc with the parameters beside it.
pub fn load_program(file: &Path, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let bytes = read_file(file, &options.limits)?;
    let (program, producer) = legacy::parse(bytes, &options.limits)?;
    finish(file, options, &program, "paddle-program", producer)
}

/// Reads a PIR program with the parameters beside it.
pub fn load_pir(file: &Path, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let bytes = read_file(file, &options.limits)?;
    let (program, producer) = pir::parse(&bytes, &options.limits)?;
    finish(file, options, &program, "paddle-pir", producer)
}

fn finish(
    file: &Path,
    options: &LoadOptions,
    program: &program::Program,
    format: &str,
    producer: String,
) -> Result<Loaded, FrontendError> {
    let data = files::read(file, &program.params, &options.limits)?;
    let graph = import::import(program, data, options)?;
    let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let format = format.to_string();
    let provenance = Provenance { format, producer: producer.clone(), opset: producer, file };
    Ok(Loaded { graph, provenance, warnings: vec![] })
}
