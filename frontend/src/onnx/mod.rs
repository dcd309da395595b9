//! ONNX models.

use crate::{FrontendError, LoadOptions, Loaded};
use std::path::Path;

/// Reads an ONNX model file, with the external data beside it.
pub fn load(_file: &Path, _options: &LoadOptions) -> Result<Loaded, FrontendError> {
    Err(FrontendError::unsupported("ONNX models are not read yet"))
}
