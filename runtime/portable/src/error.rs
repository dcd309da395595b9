//! Errors and limits.

use crate::tensor::Tensor;
use hub_abi::dim::DimError;
use hub_abi::shape::ShapeError;
use hub_abi::{Dtype, Sym};

/// Why a primitive has no result for its operands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrimError {
    /// Operands do not fit the primitive or each other.
    #[error("operands do not fit: {0}")]
    Misfit(String),
    /// The primitive has no meaning for this element type.
    #[error("{op} is not defined for elements of type {dtype}")]
    Undefined {
        /// The operation.
        op: String,
        /// The element type.
        dtype: Dtype,
    },
    /// An index points outside its axis.
    #[error("index {index} is outside an axis of size {size}")]
    Index {
        /// The value found.
        index: i64,
        /// Size of the axis.
        size: usize,
    },
    /// An integer was divided by zero.
    #[error("an integer is divided by zero")]
    DivZero,
    /// More memory or work than the limits allow.
    #[error("{what} needs {need}, above the limit of {limit}; raise it in the session's options")]
    Limit {
        /// What would grow.
        what: &'static str,
        /// How much is needed.
        need: u128,
        /// How much is allowed.
        limit: u64,
    },
    /// A size could not be computed.
    #[error(transparent)]
    Dim(#[from] DimError),
    /// A value bound to a symbol lies outside its bounds.
    #[error("{name} would be {value}, outside {min}..={max}")]
    Bound {
        /// The symbol's name.
        name: String,
        /// What it would be.
        value: i64,
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A symbol that the graph does not have.
    #[error("symbol {0:?} is not in the graph's table")]
    NoSymbol(Sym),
    /// Two sizes that must be equal are not.
    #[error("{left} = {a} and {right} = {b} must be equal")]
    Unequal {
        /// One expression.
        left: String,
        /// Its value.
        a: i64,
        /// The other expression.
        right: String,
        /// Its value.
        b: i64,
    },
}

impl From<ShapeError> for PrimError {
    fn from(e: ShapeError) -> Self {
        PrimError::Misfit(e.what)
    }
}

/// A [`PrimError::Misfit`] as a result.
pub(crate) fn misfit<T>(what: impl Into<String>) -> Result<T, PrimError> {
    Err(PrimError::Misfit(what.into()))
}

/// A [`PrimError::Undefined`] as a result.
pub(crate) fn undefined<T>(op: impl std::fmt::Debug, dtype: Dtype) -> Result<T, PrimError> {
    Err(PrimError::Undefined { op: format!("{op:?}"), dtype })
}

/// Why a graph did not run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{fault}", at(.node, .op))]
pub struct ExecError {
    /// The model's node, empty where the fault is not in one.
    pub node: String,
    /// What the node does, e.g. `Gather`.
    pub op: String,
    /// What is wrong.
    pub fault: ExecFault,
}

fn at(node: &str, op: &str) -> String {
    match (node.is_empty(), op.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!("{op}: "),
        (false, true) => format!("node '{node}': "),
        (false, false) => format!("node '{node}' ({op}): "),
    }
}

/// What is wrong with a run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExecFault {
    /// A primitive failed.
    #[error(transparent)]
    Prim(#[from] PrimError),
    /// The graph contradicts itself: an index out of range, a value used before it is made.
    #[error("the graph is malformed: {0}")]
    Malformed(String),
    /// An input is not what the graph says it takes.
    #[error("input '{name}': {what}")]
    Input {
        /// The input's name.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// A constant's bytes could not be had.
    #[error("constant {index}: {what}")]
    Const {
        /// Index into the graph's constants.
        index: u32,
        /// Why.
        what: String,
    },
    /// An empty optional was asked for its content.
    #[error("an optional that holds nothing is asked for its value")]
    Empty,
    /// A value is not of the kind (tensor, sequence, optional) that is needed.
    #[error("a {need} is needed where a {got} is given")]
    Kind {
        /// What is needed.
        need: &'static str,
        /// What is given.
        got: &'static str,
    },
}

impl PrimError {
    /// A symbol would get a value outside its bounds: beyond what any tensor's size may be, that is a
    /// limit.
    pub fn outside(info: &hub_abi::dim::SymInfo, value: i64) -> PrimError {
        let (name, min, max) = (info.name.clone(), info.min, info.max);
        match u64::try_from(max) {
            Ok(limit) if value > max && max >= i64::from(i32::MAX) => {
                PrimError::Limit { what: "a size", need: value as u128, limit }
            }
            _ => PrimError::Bound { name, value, min, max },
        }
    }
}

/// What a run may use. All are inclusive. A limit that is 0 follows from the model: from the bytes
/// of its constants and of the inputs given, so that a small file cannot ask for much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one tensor.
    pub tensor_bytes: u64,
    /// Bytes of all values alive at once (storage shared by several counts for each), and of the
    /// arena. 0: [`Limits::LIVE`] and [`Limits::LIVE_PER_BYTE`] a byte of constants and inputs, up to
    /// [`Limits::LIVE_MOST`], or [`Limits::LIVE_PER_BYTE_LARGE`] a byte where that is more.
    pub live_bytes: u64,
    /// Nodes run, loop iterations counted each time.
    pub steps: u64,
    /// Work of a whole run in multiply-adds of a large matrix product; what takes longer counts
    /// for as many as take its time ([`crate::work()`]). 0: [`Limits::WORK`], and
    /// [`Limits::WORK_PER_BYTE`] a byte of constants and inputs above [`Limits::WORK_FREE_BYTES`].
    pub work: u64,
    /// Elements of one sequence.
    pub sequence: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Limits = Limits {
        tensor_bytes: 8 << 30,
        live_bytes: 0,
        steps: 10_000_000,
        work: 0,
        sequence: 1 << 20,
    };
    /// Memory that every model may use.
    pub const LIVE: u64 = 1 << 30;
    /// Memory more for each byte of constants and inputs, up to [`Limits::LIVE_MOST`].
    pub const LIVE_PER_BYTE: u64 = 64;
    /// Memory of models that this many bytes do not make large.
    pub const LIVE_MOST: u64 = 3 << 29;
    /// Memory of large models for each byte of constants and inputs.
    pub const LIVE_PER_BYTE_LARGE: u64 = 16;
    /// Work that every model may do: seconds.
    pub const WORK: u64 = 28 << 30;
    /// Bytes of constants and inputs that do not entitle to more: a small file cannot ask for much.
    pub const WORK_FREE_BYTES: u64 = 8 << 20;
    /// Work more for each byte above these.
    pub const WORK_PER_BYTE: u64 = 1 << 17;

    /// With what follows from so many bytes of constants and inputs filled in.
    pub fn given(self, bytes: u64) -> Limits {
        let small = Limits::LIVE.saturating_add(bytes.saturating_mul(Limits::LIVE_PER_BYTE));
        let small = small.min(Limits::LIVE_MOST);
        let more = bytes.saturating_sub(Limits::WORK_FREE_BYTES);
        let large = bytes.saturating_mul(Limits::LIVE_PER_BYTE_LARGE);
        Limits {
            live_bytes: if self.live_bytes == 0 { small.max(large) } else { self.live_bytes },
            work: match self.work {
                0 => Limits::WORK.saturating_add(more.saturating_mul(Limits::WORK_PER_BYTE)),
                set => set,
            },
            ..self
        }
    }
}

impl Limits {
    /// Refuses work above the limit.
    pub(crate) fn admit_work(&self, need: u64) -> Result<(), PrimError> {
        under("the amount of work", need.into(), self.given(0).work)
    }

    /// As [`Limits::count`] for elements like those of `x`, of which strings count by the longest.
    pub(crate) fn count_like(&self, dims: &[usize], x: &Tensor) -> Result<usize, PrimError> {
        let longest = x.as_strings().iter().map(String::len).max();
        let size = longest.map_or(x.dtype().size(), |n| n + std::mem::size_of::<String>());
        self.count(dims, size)
    }

    /// Element count of `dims`, refused if `size`-byte elements go above the limit.
    pub(crate) fn count(&self, dims: &[usize], size: usize) -> Result<usize, PrimError> {
        if dims.contains(&0) {
            return Ok(0);
        }
        let count = dims.iter().fold(1u128, |a, &f| a.saturating_mul(f as u128));
        let bytes = count.saturating_mul(size.max(1) as u128);
        under("a tensor's size in bytes", bytes, self.tensor_bytes.min(isize::MAX as u64))?;
        Ok(count as usize)
    }
}

fn under(what: &'static str, need: u128, limit: u64) -> Result<(), PrimError> {
    if need <= u128::from(limit) { Ok(()) } else { Err(PrimError::Limit { what, need, limit }) }
}
