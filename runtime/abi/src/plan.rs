//! The plan: what a session does, step by step, for one tier of one device.
//!
//! Sizes, offsets and counts are [`Dim`]s: binding evaluates them once for given input shapes,
//! places the arena and fills every kernel's argument block; a run then only walks the steps.
//!
//! Top-level steps form *segments*: a segment ends at a step that binds symbols, itself or inside,
//! and sizes over these may appear only after it. Steps may hold blocks of steps (branches, loops),
//! whose kernels run natively and whose host steps run nodes of the block's region.

use crate::dim::{Dim, Sym};
use crate::dtype::Dtype;
use crate::pgraph::{RegionId, ValueId};
use serde::{Deserialize, Serialize};
use std::ops::Range;

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
    /// In execution order; the root region's.
    pub steps: Vec<Step>,
    /// Where each model output lies, dense row-major, in order.
    pub outputs: Vec<OutputSource>,
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
        /// Number of the first step at which it holds something (see [`Step::count`]).
        first: u32,
        /// Number of the last one. A buffer that a loop's steps touch lives either within one
        /// iteration or through the whole loop.
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
    /// Bytes of scratch a worker. The arena has room for it at each step that calls the kernel.
    pub scratch: u64,
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
        /// Bytes added per iteration of the innermost enclosing loop that bumps anything
        /// (0 outside one).
        bump: Dim,
    },
    /// A size or stride.
    Size(Dim),
    /// The address of the step's status word (u32, 0 on entry; a kernel sets 1 on an index out
    /// of range).
    Status,
}

/// Steps of one region of the graph, in execution order.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Block {
    /// The region; host steps name nodes of it.
    pub region: RegionId,
    /// In execution order.
    pub steps: Vec<Step>,
}

/// Where the value of a symbol comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum BindFrom {
    /// An expression of symbols known before.
    Dim(Dim),
    /// Element `index` of the integers that a buffer starts with.
    Buf {
        /// The buffer.
        buf: BufId,
        /// Which element.
        index: u32,
        /// Their type.
        dtype: Dtype,
    },
}

/// A value to put on the heap.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// It lies there under this name.
    Heap(ValueId),
    /// A tensor, dense row-major from the start of a buffer.
    Buf {
        /// Its name, which has its type.
        value: ValueId,
        /// The buffer.
        buf: BufId,
    },
}

/// A value on the heap that a loop carries: it binds the symbols of its names' types.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// What the first iteration gets.
    pub init: Source,
    /// Its name in the body.
    pub param: ValueId,
    /// What the body makes for the next iteration.
    pub next: Source,
    /// Its name after the loop.
    pub out: ValueId,
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
    /// Runs one node of the portable graph.
    Host {
        /// Index into the nodes of the block's region (of the root region at top level).
        node: u32,
        /// Its tensor operands that lie in buffers (dense row-major); the others are heap values.
        inputs: Vec<(ValueId, BufId)>,
        /// Results to copy into buffers (dense row-major), the others stay on the heap.
        outputs: Vec<(ValueId, BufId)>,
    },
    /// Binds symbols, whose bounds are checked. The top-level step that binds a symbol, itself or
    /// inside, ends a segment: only what comes after it may have sizes over that symbol.
    Bind {
        /// Which, and to what.
        binds: Vec<(Sym, BindFrom)>,
    },
    /// Gives values names on the heap: all are read before any is written. What is given binds
    /// the symbols of the new name's type.
    Move {
        /// Which, and their names.
        moves: Vec<(Source, ValueId)>,
    },
    /// Copies tensors from the heap to buffers (dense row-major).
    Store {
        /// Which, and where to.
        stores: Vec<(ValueId, BufId)>,
    },
    /// Runs one of two blocks.
    Branch {
        /// A buffer that starts with a bool.
        cond: BufId,
        /// Run if it is true.
        #[serde(deserialize_with = "crate::depth::nested")]
        then: Block,
        /// Run if it is false.
        #[serde(deserialize_with = "crate::depth::nested")]
        orelse: Block,
        /// The model's node.
        node: String,
    },
    /// Runs a block `trip` times, bumping addresses.
    Repeat {
        /// How often.
        trip: Dim,
        /// What.
        #[serde(deserialize_with = "crate::depth::nested")]
        body: Block,
    },
    /// Runs a block while a condition holds, bumping addresses.
    Loop {
        /// A buffer that starts with the greatest number of iterations (int64), read once.
        trip: Option<BufId>,
        /// A buffer that starts with a bool, read before every iteration: false ends the loop.
        cond: Option<BufId>,
        /// A buffer that gets the iteration's number (int64) before every iteration.
        iteration: Option<BufId>,
        /// The condition is read before the first iteration too.
        first: bool,
        /// The greatest number of iterations that bumped addresses have room for.
        most: Option<Dim>,
        /// Bound to the number of iterations.
        count: Option<Sym>,
        /// Carried values that lie on the heap.
        carried: Vec<Carried>,
        /// What.
        #[serde(deserialize_with = "crate::depth::nested")]
        body: Block,
        /// The model's node.
        node: String,
    },
}

impl Plan {
    /// Does a step or an output name anything of the portable graph? Plans of kernels, and of branches
    /// and repetitions of these, do not: they are bound and run without it.
    pub fn names_graph(&self) -> bool {
        let heap = |o: &OutputSource| matches!(o, OutputSource::Heap(_));
        self.steps.iter().any(Step::names_graph) || self.outputs.iter().any(heap)
    }
}

impl Source {
    fn each_buf(&self, f: &mut dyn FnMut(BufId, bool)) {
        if let Source::Buf { buf, .. } = self {
            f(*buf, false);
        }
    }
}

impl Step {
    /// The blocks inside.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        let two = match self {
            Step::Branch { then, orelse, .. } => [Some(then), Some(orelse)],
            Step::Repeat { body, .. } | Step::Loop { body, .. } => [Some(body), None],
            _ => [None, None],
        };
        two.into_iter().flatten()
    }

    fn names_graph(&self) -> bool {
        match self {
            Step::Kernel { .. } | Step::Bind { .. } => false,
            Step::Branch { .. } | Step::Repeat { .. } => {
                self.blocks().flat_map(|b| &b.steps).any(Step::names_graph)
            }
            Step::Host { .. } | Step::Move { .. } | Step::Store { .. } | Step::Loop { .. } => true,
        }
    }

    /// Does it run its block more than once?
    pub fn is_loop(&self) -> bool {
        matches!(self, Step::Repeat { .. } | Step::Loop { .. })
    }

    /// Steps in it, itself included: each has a number, in the order in which they are written
    /// (a step before those inside it, a first branch before the second).
    pub fn count(&self) -> u32 {
        match self {
            Step::Branch { then, orelse, .. } => 1 + count(&then.steps) + count(&orelse.steps),
            Step::Repeat { body, .. } | Step::Loop { body, .. } => 1 + count(&body.steps),
            _ => 1,
        }
    }

    /// Buffers that it touches itself (not through steps inside), and whether it writes there.
    pub fn each_buf(&self, f: &mut dyn FnMut(BufId, bool)) {
        match self {
            Step::Kernel { args, .. } => {
                for a in args {
                    if let Arg::Ptr { buf, write, .. } = a {
                        f(*buf, *write);
                    }
                }
            }
            Step::Host { inputs, outputs, .. } => {
                inputs.iter().for_each(|(_, b)| f(*b, false));
                outputs.iter().for_each(|(_, b)| f(*b, true));
            }
            Step::Bind { binds } => binds.iter().for_each(|(_, from)| {
                if let BindFrom::Buf { buf, .. } = from {
                    f(*buf, false);
                }
            }),
            Step::Move { moves } => moves.iter().for_each(|(from, _)| from.each_buf(f)),
            Step::Store { stores } => stores.iter().for_each(|(_, b)| f(*b, true)),
            Step::Repeat { .. } => {}
            Step::Branch { cond, .. } => f(*cond, false),
            Step::Loop { trip, cond, iteration, carried, .. } => {
                trip.iter().chain(cond).for_each(|b| f(*b, false));
                iteration.iter().for_each(|b| f(*b, true));
                carried.iter().for_each(|c| {
                    c.init.each_buf(f);
                    c.next.each_buf(f);
                });
            }
        }
    }
}

/// Steps in a list, those inside others included.
pub fn count(steps: &[Step]) -> u32 {
    steps.iter().map(Step::count).sum()
}

/// Calls `f` with the number and the step of each kernel call, `next` being the number of the first
/// step.
pub fn each_kernel<'a>(steps: &'a [Step], mut next: u32, f: &mut impl FnMut(u32, &'a Step)) {
    for s in steps {
        if let Step::Kernel { .. } = s {
            f(next, s);
        }
        let mut inner = next + 1;
        for b in s.blocks() {
            each_kernel(&b.steps, inner, f);
            inner += count(&b.steps);
        }
        next += s.count();
    }
}

/// Numbers of the first and last step at which each buffer holds something, `None` for those that no
/// step touches. What is touched in a loop and outside it is alive in the whole loop, so that what
/// an iteration leaves reaches the next; what is touched in a loop alone is written anew in each.
///
/// # Panics
/// If a step names a buffer past `bufs`.
pub fn lives(steps: &[Step], bufs: usize) -> Vec<Option<(u32, u32)>> {
    let mut w = Lives { next: 0, lives: vec![None; bufs], open: 0, log: vec![], loops: vec![] };
    w.walk(steps);
    if w.loops.is_empty() {
        return w.lives;
    }
    let raw = w.lives.clone();
    for (first, last, touched) in w.loops {
        for &b in &w.log[touched] {
            let outside = raw[b as usize].is_some_and(|(x, y)| x <= first || y > last);
            if outside {
                widen(&mut w.lives[b as usize], (first, last));
            }
        }
    }
    w.lives
}

struct Lives {
    next: u32,
    lives: Vec<Option<(u32, u32)>>,
    /// Loops around the present step, and the buffers that steps in loops touch, in order.
    open: u32,
    log: Vec<BufId>,
    /// First and last number of each loop, and the part of the log that is its own.
    loops: Vec<(u32, u32, Range<usize>)>,
}

fn widen(l: &mut Option<(u32, u32)>, (a, b): (u32, u32)) {
    *l = Some(l.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
}

impl Lives {
    fn walk(&mut self, steps: &[Step]) {
        for s in steps {
            let (at, start) = (self.next, self.log.len());
            self.next += 1;
            self.open += u32::from(s.is_loop());
            s.each_buf(&mut |b, _| {
                widen(&mut self.lives[b as usize], (at, at));
                if self.open > 0 {
                    self.log.push(b);
                }
            });
            s.blocks().for_each(|b| self.walk(&b.steps));
            if s.is_loop() {
                self.open -= 1;
                self.loops.push((at, self.next - 1, start..self.log.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(bufs: &[BufId]) -> Step {
        let one = || Dim::from(1i64);
        let ptr = |&buf: &BufId| Arg::Ptr {
            buf,
            offset: 0i64.into(),
            extent: 1i64.into(),
            write: true,
            bump: 0i64.into(),
        };
        Step::Kernel {
            kernel: 0,
            args: bufs.iter().map(ptr).collect(),
            tiles: one(),
            cost: one(),
            flops: one(),
            bytes: one(),
            node: String::new(),
        }
    }

    fn block(steps: Vec<Step>) -> Block {
        Block { region: 0, steps }
    }

    #[test]
    fn branches_share_time_slots_and_loops_keep_what_crosses_iterations() {
        let branch = Step::Branch {
            cond: 0,
            then: block(vec![touch(&[1])]),
            orelse: block(vec![touch(&[2]), touch(&[2, 3])]),
            node: String::new(),
        };
        // 0 | loop 1: 2, branch 3: 4 / 5 6, 7 | 8
        let steps = vec![
            touch(&[0, 4]),
            Step::Repeat { trip: 3i64.into(), body: block(vec![touch(&[5]), branch, touch(&[5])]) },
            touch(&[3]),
        ];
        assert_eq!(count(&steps), 9);
        let lives = lives(&steps, 7);
        // The condition is made before the loop; 1 and 2 live in their branches; 3 leaves the loop;
        // 5 is made in each iteration; nothing touches 6.
        let want =
            [Some((0, 7)), Some((4, 4)), Some((5, 6)), Some((1, 8)), Some((0, 0)), Some((2, 7))];
        assert_eq!(lives[..6], want);
        assert_eq!(lives[6], None);
    }
}
