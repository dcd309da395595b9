//! What flows along the edges of a graph.

use crate::error::ExecFault;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A tensor, a sequence or an optional. Clones share storage.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A sequence.
    Seq(Arc<Vec<Value>>),
    /// Something or nothing.
    Opt(Option<Arc<Value>>),
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Value {
        Value::Tensor(t)
    }
}

impl Value {
    /// A sequence of these.
    pub fn seq(items: Vec<Value>) -> Value {
        Value::Seq(Arc::new(items))
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Tensor(_) => "tensor",
            Value::Seq(_) => "sequence",
            Value::Opt(_) => "optional",
        }
    }

    /// The tensor, or an error.
    pub fn tensor(&self) -> Result<&Tensor, ExecFault> {
        match self {
            Value::Tensor(t) => Ok(t),
            v => Err(ExecFault::Kind { need: "tensor", got: v.kind() }),
        }
    }

    /// The sequence, or an error.
    pub fn as_seq(&self) -> Result<&[Value], ExecFault> {
        match self {
            Value::Seq(s) => Ok(s),
            v => Err(ExecFault::Kind { need: "sequence", got: v.kind() }),
        }
    }

    /// Bytes it holds.
    pub fn byte_len(&self) -> u64 {
        match self {
            Value::Tensor(t) => t.byte_len() as u64,
            Value::Seq(s) => s.iter().map(Value::byte_len).fold(0, u64::saturating_add),
            Value::Opt(v) => v.as_ref().map_or(0, |v| v.byte_len()),
        }
    }
}
