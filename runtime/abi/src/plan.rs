//! The plan: what a session does, step by step, for one tier of one device.
//!
//! Sizes, offsets and counts are [`Dim`]s: binding evaluates them once for given input shapes,
//! places the arena and fills every kernel's argument block; a run then only walks the steps.

use crate::dim::Dim;
use crate::pgraph::ValueId;
use serde::{Deserialize, Serialize};

/// Index into [`Plan::bufs`].
pub type BufId = u32;

/// A compiled model for one tier.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Tier it was made for: `avx512`, `avx2`…
    pub tier: String,
    /// Memory that steps use.
    pub bufs: Vec<Buf>,
    /// Functions in the tier's code section.
    pub kernels: Vec<KernelInfo>,
    /// In execution order.
    pub steps: Vec<Step>,
    /// Where each model output lies, dense row-major, in order.
    pub outputs: Vec<OutputSource>,
    /// Greatest per-worker scratch, in bytes.
    pub scratch: u64,
}

/// Where an output is found after the last step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum OutputSource {
    /// Dense row-major in a buffer, at its start.
    Buf(BufId),
    /// A session heap value (written by a `Host` step).
    Heap(ValueId),
}

/// A piece of memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Buf {
    /// In the arena.
    Arena {
        /// Size in bytes.
        bytes: Dim,
        /// First top-level step that touches it.
        first: u32,
        /// Last top-level step that touches it.
        last: u32,
        /// The buffer of the same size whose room it takes: that one's last step is this one's
        /// first, which reads every byte there before it writes it.
        over: Option<BufId>,
    },
    /// In the constants section.
    Const {
        /// Byte offset in the section.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The caller's input tensor of that index, dense row-major.
    Input(u32),
    /// Session memory that keeps an output until the next run.
    Output {
        /// Index of the output.
        index: u32,
        /// Size in bytes.
        bytes: Dim,
    },
}

/// A compiled function `(args: *const u64, tile_begin: u64, tile_end: u64, scratch: *mut u8)` in
/// the C calling convention of the platform.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Symbol name.
    pub name: String,
    /// Byte offset in the code section.
    pub offset: u64,
    /// Bytes of code.
    pub len: u64,
    /// Its schedule, as `inspect` prints it.
    pub schedule: String,
    /// Arguments `(read, written)` that may be one address: each byte is read for the last time
    /// before it is written, by whoever writes it.
    pub shares: Vec<(u32, u32)>,
}

/// One entry of an argument block (8 bytes).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// An address in a buffer.
    Ptr {
        /// The buffer.
        buf: BufId,
        /// Byte offset.
        offset: Dim,
        /// Bytes from there (after every bump) that the kernel may touch; checked against the
        /// buffer when shapes are bound.
        extent: Dim,
        /// The kernel writes through it.
        write: bool,
        /// Bytes added per iteration of the enclosing `Repeat` (0 outside one).
        bump: Dim,
    },
    /// A size or stride.
    Size(Dim),
    /// The address of the step's status word (u32, 0 on entry; a kernel sets 1 on an index out
    /// of range).
    Status,
}

/// What a session does next.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Calls a kernel over its tiles.
    Kernel {
        /// Index into [`Plan::kernels`].
        kernel: u32,
        /// The argument block.
        args: Vec<Arg>,
        /// Number of independent tiles.
        tiles: Dim,
        /// Rough cost of all tiles, in nanoseconds of one core; tells whether to wake workers.
        cost: Dim,
        /// Arithmetic operations, for profiles.
        flops: Dim,
        /// Bytes moved, for profiles.
        bytes: Dim,
        /// The model's node, for profiles and messages.
        node: String,
    },
    /// Runs one node of the portable graph's root region.
    Host {
        /// Index into the root region's nodes.
        node: u32,
        /// Its tensor operands that lie in buffers (dense row-major); the others are heap values.
        inputs: Vec<(ValueId, BufId)>,
        /// Results to copy into buffers (dense row-major), the others stay on the heap.
        outputs: Vec<(ValueId, BufId)>,
    },
    /// Runs kernels `trip` times, bumping addresses. Only kernels inside.
    Repeat {
        /// How often.
        trip: Dim,
        /// What.
        #[serde(deserialize_with = "crate::depth::nested")]
        body: Vec<Step>,
    },
}
