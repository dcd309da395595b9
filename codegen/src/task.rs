//! What a lowering is asked and what it answers.
//!
//! Placement decides where operands lie and turns every group (and every copy) into a [`Task`];
//! a lowering (`crate::lower`) turns a task into a kernel and says how to fill its arguments.

use crate::kir::Kernel;
use crate::lower::winograd::filter::Filter;
use hub_abi::pgraph::Packing;
use hub_abi::prim::Prim;
use hub_abi::{Dim, Dtype};
use hub_ir::{Graph, GroupKind, Op, Region, Type, Value};
use std::collections::HashMap;
use std::fmt::{Debug, Write};

/// How an operand's elements are stored.
#[derive(Clone, PartialEq, Debug)]
pub enum Format {
    /// Element `i` lies at `sum(i[a] * strides[a])` elements from the operand's origin.
    Strided,
    /// A constant, packed in panels; strides say nothing.
    Packed(Packing),
    /// A constant 3×3 filter in Winograd's transformed form.
    Transformed(Filter),
}

/// A tensor in memory as a kernel sees it. Its pointer argument points at its origin: element
/// `[0, 0, …]` (plus the byte offset that the kernel's argument asks for).
#[derive(Clone, PartialEq, Debug)]
pub struct Operand {
    /// Element type in memory.
    pub dtype: Dtype,
    /// Logical dimensions (those of the value in the graph).
    pub dims: Vec<Dim>,
    /// In elements, one an axis; 0 where it broadcasts, negative where it runs backwards.
    pub strides: Vec<Dim>,
    /// Elements past the end of a row along the axis of stride 1 that belong to that row alone:
    /// they may be read, and in an output overwritten, so full vectors need no mask there.
    pub slack: i64,
    /// Rows and columns outside `0..dims` on spatial axes may be read: they hold the padding that
    /// the consumer asked for (zeros, or -inf for a max window).
    pub halo: bool,
    /// Where its elements are.
    pub format: Format,
    /// Bytes that its origin's address is a multiple of, as far as that is known and asked for
    /// ([`crate::target::Target::has_mma`]): a power of two.
    pub align: i64,
    /// A constant of the model: it can be packed.
    pub constant: bool,
    /// Known single value of a constant operand of one element.
    pub splat: Option<f64>,
}

/// A group to compute.
pub struct Task<'g> {
    /// The graph that holds the region.
    pub g: &'g Graph,
    /// The group's region: its params are the inputs, its results the outputs.
    pub region: Region,
    /// One per region param.
    pub inputs: Vec<Operand>,
    /// One per region result.
    pub outputs: Vec<Operand>,
}

/// A larger constant in a group is not compared.
const MOST_COMPARED: usize = 64;

impl Task<'_> {
    /// All that a lowering's answer depends on, as text: equal tasks of a graph have equal keys.
    /// None for groups that hold what is not worth writing down.
    pub fn key(&self, kind: GroupKind) -> Option<String> {
        let region = &self.g.regions[self.region];
        let mut numbers = HashMap::new();
        let mut number = |v: &Value| {
            let next = numbers.len();
            *numbers.entry(*v).or_insert(next)
        };
        let mut key = format!("{kind:?} {:?} {:?}", self.inputs, self.outputs);
        let mut add = |part: &dyn Debug, ins: &[Value], outs: &[Value]| {
            let ins: Vec<usize> = ins.iter().map(&mut number).collect();
            let types: Vec<&Type> = outs.iter().map(|&v| self.g.ty(v)).collect();
            let outs: Vec<usize> = outs.iter().map(&mut number).collect();
            write!(key, "\n{part:?} {ins:?} {outs:?} {types:?}").is_ok()
        };
        add(&"", &[], &region.params);
        for &n in &region.nodes {
            let node = &self.g.nodes[n];
            match &node.op {
                Op::Prim(p) => add(p, &node.inputs, &node.outputs),
                Op::Const(c) if self.g.consts[*c].data.len() <= MOST_COMPARED => {
                    add(&self.g.consts[*c], &[], &node.outputs)
                }
                _ => return None,
            };
        }
        add(&"", &region.results, &[]);
        Some(key)
    }
}

/// Which operand of a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Which {
    /// An input, by position.
    In(usize),
    /// An output, by position.
    Out(usize),
}

/// How to fill one entry of a kernel's argument block, in the order of its params.
#[derive(Clone, PartialEq, Debug)]
pub enum TaskArg {
    /// An address: the operand's origin plus `offset` bytes (may be negative: a halo, a reversed
    /// axis); the kernel touches only `extent` bytes from there.
    Ptr {
        /// The operand.
        of: Which,
        /// Bytes from its origin.
        offset: Dim,
        /// Bytes touched from there on.
        extent: Dim,
    },
    /// A size or stride.
    Size(Dim),
    /// The step's status word.
    Status,
}

/// A lowered task.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The kernel.
    pub kernel: Kernel,
    /// One per kernel param.
    pub args: Vec<TaskArg>,
    /// Number of independent tiles (the product of the grid's extents).
    pub tiles: Dim,
    /// Arithmetic operations of all tiles (a fused multiply-add is two).
    pub flops: Dim,
    /// Bytes that must move at least once.
    pub bytes: Dim,
    /// The schedule as a person reads it, e.g. `conv 12x32 k=64`.
    pub schedule: String,
}

/// Why a task was not lowered.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Refused {
    /// An input must have stride 1 along an axis: placement copies it and asks again.
    #[error("input {input} must be contiguous along axis {axis}")]
    Relayout {
        /// Which input.
        input: usize,
        /// The axis that must have stride 1.
        axis: usize,
    },
    /// A constant input must be packed: placement packs it and asks again.
    #[error("input {input} must be packed")]
    Pack {
        /// Which input.
        input: usize,
        /// How.
        packing: Packing,
    },
    /// A constant input must be transformed: placement does it and asks again.
    #[error("input {input} must be transformed")]
    Transform {
        /// Which input.
        input: usize,
        /// How.
        filter: Filter,
    },
    /// No native kernel for this; the portable one runs.
    #[error("no native kernel: {0}")]
    Unsupported(String),
}

/// The greatest power of two, up to 64, that a size is a multiple of whatever its symbols are.
pub fn power_of_two(d: &Dim) -> i64 {
    let all = d.terms().iter().map(|t| t.coef).chain([d.konst()]);
    all.filter(|n| *n != 0).fold(64, |p, n| p.min(n & n.wrapping_neg()).max(1))
}

/// What a value is the widened form of, if it is one (of a small float, as f32): an anchor reads
/// that, since loads widen.
pub fn narrow_form(g: &Graph, v: Value) -> Value {
    match g.as_prim(v) {
        Some((n, Prim::Cast { to: Dtype::F32, .. })) => {
            let narrow = g.nodes[n].inputs[0];
            if matches!(g.dtype(narrow), Dtype::F16 | Dtype::BF16) { narrow } else { v }
        }
        _ => v,
    }
}

impl Operand {
    /// Offset (bytes from the origin, not positive) and extent in bytes of all elements, slack
    /// included.
    pub fn span(&self) -> (Dim, Dim) {
        let size = self.dtype.size() as i64;
        let (mut lo, mut hi) = (Dim::from(0i64), Dim::from(1 + self.slack));
        for (d, s) in self.dims.iter().zip(&self.strides) {
            let reach = d.plus(-1).mul(s);
            // Sizes are no less than 0, so a sum of nothing but negative multiples of them leads back.
            let back = s.konst() <= 0 && !s.is(0) && s.terms().iter().all(|t| t.coef < 0);
            match back {
                true => lo = lo.add(&reach),
                false => hi = hi.add(&reach),
            }
        }
        (lo.times(size), hi.sub(&lo).times(size))
    }

    /// Does every row along the axis of stride 1 begin at a multiple of four bytes, as far as is known?
    pub fn in_words(&self) -> bool {
        let size = self.dtype.size() as i64;
        let word = |s: &Dim| s.is(1) || power_of_two(&s.times(size)) >= 4;
        self.align >= 4 && self.strides.iter().all(word)
    }

    /// The axis of stride 1 that is longer than 1, if any.
    pub fn unit_axis(&self) -> Option<usize> {
        (0..self.dims.len()).rev().find(|&a| self.strides[a].is(1) && !self.dims[a].is(1))
    }
}
