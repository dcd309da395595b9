//! What binding makes of a stage's steps: a flat list that a run walks.

use crate::device::graphs::Graphs;
use crate::pool::Scratch;
use hub_abi::dim::Sym;

/// What a run does, in order.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Calls a kernel.
    Call {
        /// Index into the plan's kernels.
        kernel: u32,
        /// Where its argument block starts in `words`.
        args: u32,
        /// Number of tiles, at least 1.
        tiles: u64,
        /// The workers' scratch.
        scratch: Scratch,
        /// Worth waking the workers.
        wide: bool,
        /// It has a status word to look at.
        status: bool,
        /// Profile slot.
        slot: u32,
    },
    /// Runs the next `len` ops `trip` times, bumping addresses in between.
    Repeat {
        /// How often, at least 1.
        trip: u64,
        /// Ops of the body.
        len: u32,
        /// Its entries in `bumps`.
        bumps: (u32, u32),
        /// Which, in [`crate::flow::Flow::loops`].
        info: u32,
    },
    /// Runs the next ops in a loop: an index into `loops`.
    Loop(u32),
    /// Runs the next `then` ops if the bool at the start of a buffer is true, else the `orelse` ops
    /// after them.
    Branch {
        /// The buffer.
        cond: u32,
        /// Ops of the first block.
        then: u32,
        /// Ops of the second block.
        orelse: u32,
    },
    /// Binds symbols: a range of `binds`.
    Bind(u32, u32),
    /// Moves heap values: an index into [`crate::flow::Flow::moves`].
    Move(u32),
    /// Copies heap values to buffers: an index into [`crate::flow::Flow::stores`].
    Store(u32),
    /// Frees heap values: an index into [`crate::flow::Flow::freed`].
    Free(u32),
    /// Fails: sizes of a block that may not run do not hold. An index into `faults`.
    Fail(u32),
    /// Runs a host step.
    Host {
        /// An index into [`crate::flow::Flow::hosts`].
        host: u32,
        /// Profile slot.
        slot: u32,
    },
}

/// A loop whose end is found while it runs.
#[derive(Clone, Copy, Debug)]
pub struct LoopOp {
    /// Which, in [`crate::flow::Flow::loops`].
    pub info: u32,
    /// Buffers: the greatest number of iterations, the condition, the iteration's number.
    pub trip: Option<u32>,
    pub cond: Option<u32>,
    /// The condition is read before the first iteration too.
    pub first: bool,
    pub iteration: Option<u32>,
    /// The most that bumped addresses have room for.
    pub most: Option<u64>,
    /// Bound to the number of iterations.
    pub count: Option<Sym>,
    /// Ops of the body.
    pub len: u32,
    /// Work of an iteration.
    pub work: u64,
    /// Its entries in `bumps`.
    pub bumps: (u32, u32),
}

/// Where a symbol's value comes from.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// It is this.
    Value(i64),
    /// An integer in a buffer, `offset` bytes from its start, of 8 or 4 bytes.
    Read { buf: u32, offset: u32, wide: bool },
}

/// A buffer's place: an address, or 0 for inputs and outputs until a run patches them in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Address.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

/// One stage, bound.
#[derive(Default)]
pub struct Bound {
    /// Symbols' values: what the binding is for.
    pub key: Vec<Option<i64>>,
    /// What to do.
    pub ops: Vec<Op>,
    /// Where the ops of each of the stage's top-level steps end.
    pub ends: Vec<u32>,
    /// Argument blocks as filled; bumped words are taken from here.
    pub base: Vec<u64>,
    /// Argument blocks as kernels see them.
    pub words: Vec<u64>,
    /// (word, bytes added per iteration).
    pub bumps: Vec<(u32, u64)>,
    /// (word, buffer, offset): addresses in inputs and outputs.
    pub patches: Vec<(u32, u32, u64)>,
    /// Places of all buffers known so far.
    pub places: Vec<Place>,
    /// Work of this stage, loops aside.
    pub work: u64,
    /// Bytes of this stage's arena.
    pub arena: u64,
    /// Bytes of the largest set of tensors that live at one step.
    pub arena_bound: u64,
    /// Most bytes of scratch at one step.
    pub scratch: u64,
    /// Loops, by [`Op::Loop`].
    pub loops: Vec<LoopOp>,
    /// Symbols that ops bind.
    pub binds: Vec<(Sym, Known)>,
    /// What is wrong with blocks that cannot run.
    pub faults: Vec<String>,
    /// What is recorded of it on a device.
    pub graphs: Graphs,
    /// Dims and bytes of outputs (last stage only; heap outputs are empty).
    pub outputs: Vec<(Vec<usize>, usize)>,
}
