//! The portable graph: primitives, groups and control only, flat and serialisable. Its interpreter
//! in `runtime/portable` is the meaning of a model, the tests' oracle and the runtime's fallback.

use crate::dim::{Dim, SymInfo};
use crate::prim::Prim;
use crate::shape::Type;
use serde::{Deserialize, Serialize};

/// Index into [`PGraph::values`].
pub type ValueId = u32;
/// Index into [`PGraph::regions`].
pub type RegionId = u32;

/// A whole model.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PGraph {
    /// Symbols of all dimension expressions.
    pub syms: Vec<SymInfo>,
    /// Equalities that must hold once their symbols are bound.
    pub constraints: Vec<(Dim, Dim)>,
    /// Types of values.
    pub values: Vec<Type>,
    /// Constant tensors.
    pub consts: Vec<PConst>,
    /// Regions; a region's nodes may use values of the regions that enclose it.
    pub regions: Vec<PRegion>,
    /// The region that is the model; its params are the inputs, its results the outputs.
    pub root: RegionId,
    /// Names of the inputs, in order.
    pub inputs: Vec<String>,
    /// Names of the outputs, in order.
    pub outputs: Vec<String>,
}

/// Where a constant's bytes lie: row-major little-endian, in the store that comes with the graph.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PConst {
    /// Element type and constant dims.
    pub ty: crate::shape::TensorType,
    /// Byte offset in the store.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// If the bytes are stored packed, how to read them.
    pub packing: Option<Packing>,
}

impl PConst {
    /// Bytes of its elements: those stored, without the padding of a packed form.
    pub fn own_bytes(&self) -> u64 {
        let size = self.ty.dtype.size() as u64;
        let mut dims =
            self.ty.dims.iter().map(|d| d.as_const().and_then(|n| u64::try_from(n).ok()));
        let bytes = dims.try_fold(size, |n, d| Some(n.saturating_mul(d?)));
        bytes.filter(|_| self.packing.is_some()).map_or(self.len, |b| b.min(self.len))
    }
}

impl PGraph {
    /// Bytes of all constants' elements.
    pub fn const_bytes(&self) -> u64 {
        self.consts.iter().fold(0, |n, c| n.saturating_add(c.own_bytes()))
    }
}

/// A weight matrix stored as panels `[n/block][k/v][block][v]` for kernels; a permutation plus zero
/// padding of the row-major tensor. The tensor, flattened, is read as a matrix `[outer][n][k]` or,
/// where `k_major`, as `[outer][k][n]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Packing {
    /// How many matrices.
    pub outer: u64,
    /// Output features of each.
    pub n: u64,
    /// Reduced elements of each.
    pub k: u64,
    /// The row-major tensor has k before n.
    pub k_major: bool,
    /// For convolution filters `[n][c][taps]`, `taps`: packed k runs over taps, then channels
    /// (`k = taps * c`). 1 for matrices.
    pub taps: u64,
    /// Features a panel (16).
    pub block: u64,
    /// Consecutive k elements kept together (1 for f32).
    pub v: u64,
}

/// A list of nodes in execution order.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PRegion {
    /// Values given on entry.
    pub params: Vec<ValueId>,
    /// In execution order.
    pub nodes: Vec<PNode>,
    /// Values given back.
    pub results: Vec<ValueId>,
}

/// One operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PNode {
    /// What it does.
    pub op: POp,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Where it comes from in the model, for messages.
    pub name: String,
}

/// Kinds of nodes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum POp {
    /// A constant, by index into [`PGraph::consts`].
    Const(u32),
    /// A primitive.
    Prim(Prim),
    /// Runs a region once: params are the inputs, results the outputs.
    Group(RegionId),
    /// Control flow and values that are not tensors.
    Control(Control),
}

/// Control flow. Bodies may also use values of enclosing regions directly. A region param whose
/// type has a dim that is one symbol binds that symbol on entry, every time; an output of a control
/// node whose type has a dim that is one symbol binds it when the node is done (how the sizes of a
/// branch's or a sequence's tensors become known).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Control {
    /// `(cond: bool of one element)`: one of two regions without params.
    If {
        /// Taken when true.
        then: RegionId,
        /// Taken when false.
        orelse: RegionId,
    },
    /// `([trip: i64], [cond: bool], carried…)`: body params are (iteration: i64 scalar, carried…),
    /// its results (cond: bool, carried…, scanned…); outputs are carried… then every scanned value
    /// stacked along a new axis 0. It runs while iteration < trip and cond.
    Loop {
        /// The body.
        body: RegionId,
        /// The first input is the trip count.
        has_trip: bool,
        /// The next input is the first condition.
        has_cond: bool,
        /// How many values are carried.
        carried: u32,
    },
    /// `(carried…, scanned…)`: for t in 0..trip (or backwards), body params are (carried…,
    /// scanned[t]…), results (carried…, y…); outputs are carried… and each y stacked along a new
    /// axis 0 at t.
    Scan {
        /// The body.
        body: RegionId,
        /// How many values are carried.
        carried: u32,
        /// Number of steps: the scanned inputs' first dim.
        trip: Dim,
        /// From the last to the first.
        reverse: bool,
    },
    /// `(x…)`: a sequence of these.
    SeqNew {
        /// Type of its elements (for an empty one).
        elem: Type,
    },
    /// `(seq, x, [at: i64])`: a copy with x inserted before `at` (the end if absent).
    SeqInsert,
    /// `(seq, x, at: i64)`: a copy with element `at` replaced; `at == len` appends (Paddle's
    /// array_write).
    SeqSet,
    /// `(seq, [at: i64])`: a copy without element `at` (the last if absent).
    SeqErase,
    /// `(seq, at: i64)`: an element; negative counts from the end.
    SeqAt,
    /// `(seq)`: int64 scalar length.
    SeqLen,
    /// `(seq)`: elements joined along an axis, or stacked on a new one; the second output is each
    /// element's size along it as int32 (1 when stacking).
    SeqConcat {
        /// The axis; negative counts from the end.
        axis: i64,
        /// Stack on a new axis.
        stack: bool,
    },
    /// `(x, [split: i64 scalar or vector])`: pieces along an axis; without split, pieces of 1.
    SeqSplit {
        /// The axis.
        axis: i64,
        /// Keep the axis where pieces are of size 1 and no split is given.
        keep: bool,
    },
    /// `([x])`: an optional holding x, or nothing.
    OptNew {
        /// Type inside.
        elem: Type,
    },
    /// `(opt)`: what it holds; an error if nothing.
    OptGet,
    /// `(opt)`: bool scalar.
    OptHas,
}
