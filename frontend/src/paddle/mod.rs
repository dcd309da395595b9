//! Paddle's ProgramDesc (`.pdmodel`, `__model__`) and PIR (`.json`).
//!
//! Both are read into one [`program::Program`] (blocks of operators on variables) that one walk
//! turns into the graph: [`legacy`] and [`pir`] read, [`params`] and [`files`] find the weights,
//! [`import`] walks by what [`uses`] found, [`control`] has loops and branches, [`arrays`] tensor
//! arrays, and [`ops`] has a row for each operator.
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
pub mod proto;
mod schema;
#[cfg(test)]
mod tests;
mod uses;

use crate::sniff::read_file;
use crate::{FrontendError, Limits, LoadOptions, Loaded, Provenance};
use bytes::Bytes;
use std::path::Path;

/// Operators that the walk handles and that only ProgramDesc has, or only PIR (with dots too).
const ONLY: [&[&str]; 2] = [
    &[
        "conditional_block",
        "conditional_block_infer",
        "lod_array_length",
        "read_from_array",
        "write_to_array",
        "tensor_array_to_tensor",
    ],
    &[
        "data",
        "if",
        "create_array",
        "array_length",
        "array_read",
        "array_write_",
        "array_to_tensor",
        "assign_out_",
        "share_data_",
    ],
];

/// Names of Paddle's operators that can be read: ProgramDesc's, and PIR's.
pub fn paddle_operators() -> (Vec<&'static str>, Vec<&'static str>) {
    let of = |dialect, other: &[&str], dots| {
        let walk = import::CONTROL.iter().copied();
        let walk = walk.filter(|n| !other.contains(n) && (dots || !n.contains('.')));
        ops::names(dialect).into_iter().chain(walk).collect()
    };
    (of(program::Dialect::Legacy, ONLY[1], false), of(program::Dialect::Pir, ONLY[0], true))
}

/// Reads a ProgramDesc with the parameters beside it.
pub fn load_program(file: &Path, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let read = Read::program(read_file(file, &options.limits)?, &options.limits)?;
    let data = files::read(file, &read.program.params, &options.limits)?;
    read.graph(file, data, options)
}

/// Reads a PIR program with the parameters beside it.
pub fn load_pir(file: &Path, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let read = Read::pir(&read_file(file, &options.limits)?, &options.limits)?;
    let data = files::read(file, &read.program.params, &options.limits)?;
    read.graph(file, data, options)
}

/// Reads a program (PIR if it starts as JSON does, else ProgramDesc) and its combined parameters
/// from memory.
pub fn load_bytes(
    program: Bytes,
    params: &Bytes,
    options: &LoadOptions,
) -> Result<Loaded, FrontendError> {
    let json = program.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let read = match json {
        true => Read::pir(&program, &options.limits)?,
        false => Read::program(program, &options.limits)?,
    };
    let data = match read.program.params.is_empty() {
        true => vec![],
        false => params::combined(params, &read.program.params, &options.limits)?,
    };
    read.graph(Path::new(""), data, options)
}

/// A program that was read, without its parameters' data.
struct Read {
    program: program::Program,
    format: &'static str,
    producer: String,
}

impl Read {
    fn program(bytes: Bytes, limits: &Limits) -> Result<Read, FrontendError> {
        let (program, producer) = legacy::parse(bytes, limits)?;
        Ok(Read { program, format: "paddle-program", producer })
    }

    fn pir(bytes: &[u8], limits: &Limits) -> Result<Read, FrontendError> {
        let (program, producer) = pir::parse(bytes, limits)?;
        Ok(Read { program, format: "paddle-pir", producer })
    }

    fn graph(
        self,
        file: &Path,
        data: Vec<params::Tensor>,
        options: &LoadOptions,
    ) -> Result<Loaded, FrontendError> {
        let total = data.iter().fold(0u64, |n, t| n.saturating_add(t.data.len() as u64));
        let most = options.limits.constant_bytes;
        if total > most {
            return Err(FrontendError::limit(format!("parameters of more than {most} bytes")));
        }
        let (graph, warnings) = import::import(&self.program, data, options)?;
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (format, producer) = (self.format.to_string(), self.producer);
        let provenance = Provenance { format, producer, file, ..Provenance::default() };
        Ok(Loaded { graph, provenance, warnings })
    }
}
