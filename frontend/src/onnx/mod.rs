//! ONNX models: protobuf messages, constants, and operators by (domain, name, version).

mod cx;
mod external;
mod import;
mod ops;
mod order;
pub mod proto;
mod schema;
mod table;
mod tensor;
pub mod write;

pub use table::{has as has_operator, names as operators};

use crate::sniff::read_file;
use crate::{FrontendError, LoadOptions, Loaded, Provenance};
use bytes::Bytes;
use prost::Message;
use std::path::Path;

/// Reads an ONNX model file, with the external data beside it.
pub fn load(file: &Path, options: &LoadOptions) -> Result<Loaded, FrontendError> {
    let bytes = read_file(file, &options.limits)?;
    let mut loaded = load_bytes(bytes, file, options).map_err(|e| e.in_file(file))?;
    let name = file.file_name().unwrap_or_default();
    loaded.provenance.file = name.to_string_lossy().into_owned();
    Ok(loaded)
}

/// Reads an ONNX model from memory; external data lie in the folder of `file`.
pub fn load_bytes(
    bytes: Bytes,
    file: &Path,
    options: &LoadOptions,
) -> Result<Loaded, FrontendError> {
    crate::wire::check(&bytes, &schema::MODEL, &options.limits)?;
    let model = proto::ModelProto::decode(bytes)
        .map_err(|e| FrontendError::invalid(format!("not an ONNX model: {e}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        FrontendError::invalid("the model has no graph").advise("is the file cut off?")
    })?;
    if model.opset_import.is_empty() {
        return Err(FrontendError::invalid("the model does not say its operators' version"));
    }
    let external = external::External::beside(file);
    let mut import = import::Import::new(&model, options, external);
    let graph = import.model(graph)?;
    let opsets: Vec<String> = model
        .opset_import
        .iter()
        .map(|o| match import::domain(&o.domain) {
            "" => format!("ai.onnx {}", o.version),
            d => format!("{d} {}", o.version),
        })
        .collect();
    let provenance = Provenance {
        format: "onnx".into(),
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().into(),
        opset: opsets.join(", "),
        ..Provenance::default()
    };
    Ok(Loaded { graph, provenance, warnings: std::mem::take(&mut import.warnings) })
}

/// Reads a tensor from its message, e.g. of a test's data.
pub fn tensor_of(t: &proto::TensorProto) -> Result<hub_ir::graph::ConstData, FrontendError> {
    let mut external = external::External::beside(Path::new(""));
    tensor::read(t, &mut external, &crate::Limits::default())
}
