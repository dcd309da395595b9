//! The one error of this crate: where it went wrong and what to do about it.

use std::path::{Path, PathBuf};

/// What can go wrong with fixtures and tensor files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there but does not hold what it should.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        problem: String,
    },
    /// No fixture has this name.
    #[error("no fixture is called {name:?}; there are: {}", known.join(", "))]
    UnknownFixture {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A tensor's dtype, shape and bytes disagree, or its dtype is not one of safetensors'.
    #[error("tensor {name:?}: {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on a system call about `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    /// For `map_err` on reading the contents of `path`.
    pub(crate) fn malformed<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error + '_ {
        move |e| Error::Malformed { path: path.to_owned(), problem: e.to_string() }
    }
}
