//! The models that Hub is tested on, and the files that tensors travel in.
//!
//! - [`Fixture`]: a real exporter's graph without its weights, which [`seed`] makes from the tensors' names, so
//!   that the project carries 4 MB where the full files are 1.6 GB. [`Fixture::materialise`] writes those.
//! - [`formats`]: small whole models in every layout that Paddle writes, and a trained classifier ([`Digits`]).
//! - [`TensorFile`] and [`compare`]: safetensors files and the rule by which an answer matches a golden. The
//!   programs `hub` and `hubc` use these two as well; nothing in them touches the models' folder.
//!
//! Invariants: the same fixture gives the same bytes on every machine (`fixtures/BLAKE3` holds the digests, taken
//! from an independent implementation); a file appears whole or not at all (written aside, then renamed), so tests
//! may ask for the same fixture at once; nothing read here can panic.
#![forbid(unsafe_code)]

mod case;
mod error;
mod fixture;
mod golden;
mod onnx;
pub mod seed;
mod tensors;

pub use case::{Case, Digits, cases, formats};
pub use error::{Error, Result};
pub use fixture::{Fixture, Format, InputSpec, OutputSpec};
pub use golden::{Comparison, OutputReport, Tolerance, compare, inputs_of};
pub use tensors::{NamedTensor, TensorFile, Tensors, from_bytes, read, write};

use std::path::{Path, PathBuf};

/// The folder that holds `fixtures/`, `digits/` and `paddle_formats/`: `HUB_MODELS` where it is set, else this
/// crate's own folder.
pub fn root() -> PathBuf {
    std::env::var_os("HUB_MODELS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The build folder that full fixtures are written under: `CARGO_TARGET_DIR` where it is set, else `target` beside
/// this crate's folder. A relative one is taken from the workspace's root, whatever the current folder.
pub fn build_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
