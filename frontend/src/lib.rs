//! Model files to graphs: ONNX, and Paddle's ProgramDesc and PIR.
//!
//! Invariants
//! - No bytes make this crate panic, run without bound or allocate past what the file's own size
//!   and [`Limits`] allow; what cannot be read is a [`FrontendError`] with place and advice.
//! - Weights are slices of the file's bytes, not copies, wherever the file holds them row-major.
//! - What comes out is typed: every node has passed inference when it was made.
//! - Inputs, outputs and dimensions keep the model's names and order; initialisers are not inputs.
#![forbid(unsafe_code)]

pub mod error;
pub mod onnx;
pub mod options;
pub mod paddle;
mod rank;
mod sizes;
mod sniff;
mod wire;

pub use error::{ErrorKind, FrontendError, Place, UnsupportedOp};
pub use options::{Limits, LoadOptions};
pub use paddle::paddle_operators;

use hub_ir::Graph;
use std::path::Path;

/// Where a model comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// `onnx`, `paddle-pir` or `paddle-program`.
    pub format: String,
    /// What wrote it, with its version, as far as it says.
    pub producer: String,
    /// Version of the operators, e.g. `ai.onnx 17`.
    pub opset: String,
    /// The file's name without its folder.
    pub file: String,
    /// BLAKE3 of the file's bytes (of the graph's file, where parameters lie beside it); zeros for a
    /// model that was read from memory.
    pub source: [u8; 32],
}

/// A model that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed graph.
    pub graph: Graph,
    /// Where it comes from.
    pub provenance: Provenance,
    /// What a user should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads a model: an ONNX file, a Paddle `.json` or `.pdmodel` file, `__model__`, or a folder that
/// holds one. The content decides, not the name.
pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let file = sniff::model_file(path.as_ref())?;
    let loaded = match sniff::format(&file, &options.limits)? {
        sniff::Format::Onnx => onnx::load(&file, options),
        sniff::Format::PaddleProgram => paddle::load_program(&file, options),
        sniff::Format::PaddlePir => paddle::load_pir(&file, options),
    };
    let mut loaded = loaded.map_err(|e| e.in_file(&file))?;
    let mut hash = blake3::Hasher::new();
    let read = std::fs::File::open(&file).and_then(|f| hash.update_reader(f).map(|_| ()));
    // A file that went away since it was read has no hash; the model is whole all the same.
    loaded.provenance.source = read.map_or([0; 32], |()| *hash.finalize().as_bytes());
    Ok(loaded)
}
