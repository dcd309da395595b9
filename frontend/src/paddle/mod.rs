//! Paddle's ProgramDesc (`.pdmodel`, `__model__`) and PIR (`.json`).

use crate::{FrontendError, LoadOptions, Loaded};
use std::path::Path;

/// Reads a ProgramDesc with the parameters beside it.
pub fn load_program(_file: &Path, _options: &LoadOptions) -> Result<Loaded, FrontendError> {
    Err(FrontendError::unsupported("Paddle programs are not read yet"))
}

/// Reads a PIR program with the parameters beside it.
pub fn load_pir(_file: &Path, _options: &LoadOptions) -> Result<Loaded, FrontendError> {
    Err(FrontendError::unsupported("PIR programs are not read yet"))
}
