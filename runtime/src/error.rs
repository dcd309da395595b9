//! What can go wrong, with the exit code (and C status) of each.

use hub_abi::bundle::{BundleError, Fault};
use hub_abi::dim::DimError;
use hub_portable::{ExecError, ExecFault, PrimError};
use std::path::PathBuf;

/// Why the runtime did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong call: what was given does not fit the model or the interface.
    #[error("{0}")]
    Usage(String),
    /// The memory given for an output is too small; nothing was copied to it.
    #[error("output {index} needs {need} bytes, {have} were given")]
    TooSmall {
        /// Which output.
        index: usize,
        /// Bytes it needs.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// A device beside the processor failed.
    #[error("{0}")]
    Device(String),
    /// This machine, build or bundle has no such target, tier or device.
    #[error("{0}")]
    Unsupported(String),
    /// An input tensor is not what the model takes.
    #[error("input '{name}': {what}")]
    Input {
        /// Its name.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// The bundle is damaged, foreign or beyond limits.
    #[error("{path}: {source}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: BundleError,
    },
    /// The bundle is whole but contradicts itself when its sizes are bound.
    #[error("the bundle's plan is malformed: {0}")]
    Plan(String),
    /// The file could not be read or mapped.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More memory or work than the limits allow.
    #[error("{0}")]
    Limit(String),
    /// A node met values that it has no meaning for (an index out of range, a zero divisor).
    #[error("node '{node}': {what}")]
    Node {
        /// The model's node.
        node: String,
        /// What it met.
        what: String,
    },
    /// A node run by the portable interpreter failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A bug in the runtime.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Exit code of programs and status of the C interface.
    pub fn code(&self) -> i32 {
        match self {
            Error::Usage(_) | Error::TooSmall { .. } | Error::Input { .. } => 2,
            Error::Unsupported(_) => 3,
            Error::Bundle { source, .. } => match source.fault {
                Fault::Foreign => 4,
                Fault::Broken => 7,
                Fault::Limit => 9,
            },
            Error::Plan(_) => 7,
            Error::Io { .. } | Error::Device(_) => 8,
            Error::Limit(_) => 9,
            Error::Node { .. } => 4,
            Error::Exec(e) => match &e.fault {
                ExecFault::Prim(
                    PrimError::Limit { .. } | PrimError::Dim(DimError::Overflow(_)),
                ) => 9,
                ExecFault::Input { .. } => 2,
                ExecFault::Malformed(_) | ExecFault::Const { .. } => 7,
                _ => 4,
            },
            Error::Internal(_) => 70,
        }
    }

    pub(crate) fn plan(e: impl std::fmt::Display) -> Error {
        Error::Plan(e.to_string())
    }
}
