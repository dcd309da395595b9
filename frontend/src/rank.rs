//! Sizes of operands that may have fewer axes than an operator takes: importers index shapes through
//! these, never a shape itself, so that such an operand is an error that names the node.

use crate::FrontendError;
use hub_ir::{Dim, Graph, Value};

fn dims(g: &Graph, v: Value) -> Result<&[Dim], FrontendError> {
    let tensor = g.ty(v).as_tensor().map(|t| &t.dims[..]);
    tensor.ok_or_else(|| FrontendError::invalid("an operand that is no tensor"))
}

fn too_few(rank: usize, least: usize) -> FrontendError {
    FrontendError::invalid(format!("an operand of rank {rank} where {least} is the least"))
}

/// One size.
pub(crate) fn dim(g: &Graph, v: Value, axis: usize) -> Result<Dim, FrontendError> {
    let dims = dims(g, v)?;
    dims.get(axis).cloned().ok_or_else(|| too_few(dims.len(), axis.saturating_add(1)))
}

/// The sizes from an axis on.
pub(crate) fn dims_from(g: &Graph, v: Value, axis: usize) -> Result<Vec<Dim>, FrontendError> {
    let dims = dims(g, v)?;
    Ok(dims.get(axis..).ok_or_else(|| too_few(dims.len(), axis))?.to_vec())
}

/// The sizes, of which there are at least so many.
pub(crate) fn at_least(g: &Graph, v: Value, rank: usize) -> Result<Vec<Dim>, FrontendError> {
    let dims = dims(g, v)?;
    if dims.len() < rank { Err(too_few(dims.len(), rank)) } else { Ok(dims.to_vec()) }
}
