//! What can go wrong while a model is read, as one error with a place and advice.

use hub_abi::shape::ShapeError;
use hub_ir::OpError;
use std::fmt;
use std::path::{Path, PathBuf};

/// An operator of a model that has no import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsupportedOp {
    /// Its name with domain and version, e.g. `com.microsoft.FusedConv` or `pd_op.foo`.
    pub op: String,
    /// How many nodes of the model are it.
    pub count: usize,
    /// Names of some of those nodes.
    pub examples: Vec<String>,
}

/// The class of an error; it decides a program's exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The options do not fit the model (exit code 2).
    Usage,
    /// The model uses what Hub does not have (3). Lists every such operator of the model; empty
    /// where it is something other than an operator.
    Unsupported(Vec<UnsupportedOp>),
    /// The model contradicts its format or itself (4).
    Invalid,
    /// A file cannot be read (8).
    Io,
    /// A limit of [`crate::Limits`] is exceeded (9).
    Limit,
}

/// Why a model was not read: the kind, the place, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrontendError {
    /// The class.
    pub kind: ErrorKind,
    /// What is wrong.
    pub what: String,
    /// Where, and what to do.
    pub place: Box<Place>,
}

/// Where an error is, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The file.
    pub file: Option<PathBuf>,
    /// The node, variable or tensor, by the model's name.
    pub node: Option<String>,
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// What to do about it.
    pub help: Option<String>,
}

impl FrontendError {
    /// An error of a kind, with no place yet.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> FrontendError {
        FrontendError { kind, what: what.into(), place: Box::default() }
    }

    /// The options do not fit the model.
    pub fn usage(what: impl Into<String>) -> FrontendError {
        FrontendError::new(ErrorKind::Usage, what)
    }

    /// The model contradicts its format or itself.
    pub fn invalid(what: impl Into<String>) -> FrontendError {
        FrontendError::new(ErrorKind::Invalid, what)
    }

    /// The model uses something (not a whole operator) that Hub does not have.
    pub fn unsupported(what: impl Into<String>) -> FrontendError {
        FrontendError::new(ErrorKind::Unsupported(vec![]), what)
    }

    /// Operators that Hub does not have; `ops` must not be empty.
    pub fn operators(ops: Vec<UnsupportedOp>) -> FrontendError {
        let list: Vec<String> = ops
            .iter()
            .map(|o| {
                let eg: Vec<String> = o.examples.iter().map(|e| format!("'{e}'")).collect();
                format!("{} ({} node(s), e.g. {})", o.op, o.count, eg.join(", "))
            })
            .collect();
        let what = format!("{} unsupported operator(s): {}", ops.len(), list.join("; "));
        FrontendError::new(ErrorKind::Unsupported(ops), what).advise(
            "export the model with operators that Hub has, or decompose these in the exporter",
        )
    }

    /// A limit is exceeded.
    pub fn limit(what: impl Into<String>) -> FrontendError {
        FrontendError::new(ErrorKind::Limit, what)
            .advise("raise the limit if the file is trusted and meant to be this large")
    }

    /// A bound is exceeded that no option raises.
    pub fn bound(what: impl Into<String>) -> FrontendError {
        FrontendError::new(ErrorKind::Limit, what)
            .advise("no option raises this: give inputs fixed sizes, or split the model")
    }

    /// A file cannot be read.
    pub fn io(file: &Path, e: &std::io::Error) -> FrontendError {
        FrontendError::new(ErrorKind::Io, e.to_string()).in_file(file)
    }

    /// Names the file, unless one is named.
    pub fn in_file(mut self, file: &Path) -> FrontendError {
        self.place.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// Names the node, unless an inner one is named.
    pub fn at(mut self, node: &str) -> FrontendError {
        self.place.node.get_or_insert_with(|| node.to_string());
        self
    }

    /// Says where in the file, unless it is said.
    pub fn at_byte(mut self, offset: u64) -> FrontendError {
        self.place.offset.get_or_insert(offset);
        self
    }

    /// The same error where its bytes start at `start` of the file.
    pub(crate) fn moved(mut self, start: u64) -> FrontendError {
        self.place.offset = self.place.offset.map(|o| o + start);
        self
    }

    /// Says what to do, unless it is said.
    pub fn advise(mut self, help: impl Into<String>) -> FrontendError {
        self.place.help.get_or_insert_with(|| help.into());
        self
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Unsupported(_) => 3,
            ErrorKind::Invalid => 4,
            ErrorKind::Io => 8,
            ErrorKind::Limit => 9,
        }
    }
}

/// Text of a model made fit for a terminal: control characters are escaped.
pub(crate) fn printable(s: &str) -> String {
    s.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() })
        .collect()
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.place.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(node) = &self.place.node {
            write!(f, "'{}': ", printable(node))?;
        }
        if let Some(offset) = self.place.offset {
            write!(f, "at byte {offset}: ")?;
        }
        f.write_str(&printable(&self.what))?;
        match &self.place.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FrontendError {}

impl From<OpError> for FrontendError {
    fn from(e: OpError) -> FrontendError {
        let of = if e.limit { FrontendError::bound } else { FrontendError::invalid };
        let mut error = of(e.what);
        error.place.node = e.node.filter(|n| !n.is_empty());
        error
    }
}

impl From<ShapeError> for FrontendError {
    fn from(e: ShapeError) -> FrontendError {
        FrontendError::invalid(e.what)
    }
}
