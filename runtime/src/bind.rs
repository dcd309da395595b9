//! Binding: from values of symbols to placed memory, checked ranges and filled argument blocks.
//!
//! Done stage by stage (see [`crate::flow`]). Binding checks every address range that a kernel may
//! touch against its buffer; after that, a run does not check.

use crate::error::Error;
use crate::flow::Flow;
use hub_abi::Dtype;
use hub_abi::arena;
use hub_abi::dim::{Dim, DimError, SymEnv};
use hub_abi::pgraph::PGraph;
use hub_abi::plan::{Arg, Buf, OutputSource, Plan, Step};

/// Steps cheaper than this many nanoseconds run on the caller alone.
const WIDE_COST: i64 = 4000;

/// Dims of a value under `env`, and bytes of its tensor.
pub fn value_dims(g: &PGraph, v: u32, env: &SymEnv) -> Result<(Dtype, Vec<usize>, usize), Error> {
    let Some(t) = g.values[v as usize].as_tensor() else {
        return Err(Error::plan(format!("value {v} is no tensor")));
    };
    let dims = t.dims.iter().map(|d| size(d, env).map(|n| n as usize));
    let dims = dims.collect::<Result<Vec<usize>, _>>()?;
    let bytes = dims.iter().try_fold(t.dtype.size(), |n, &d| n.checked_mul(d));
    let bytes = bytes.filter(|&b| b <= isize::MAX as usize);
    let bytes = bytes.ok_or_else(|| Error::Limit(format!("a tensor of {dims:?} elements")))?;
    Ok((t.dtype, dims, bytes))
}

/// A size under `env`: not negative.
pub fn size(d: &Dim, env: &SymEnv) -> Result<u64, Error> {
    let v = d.eval(env).map_err(|e| match e {
        DimError::Overflow(_) => Error::Limit(format!("a size ({d}) is over 2^63")),
        e => Error::plan(e),
    })?;
    u64::try_from(v).map_err(|_| Error::plan(format!("size {d} is {v}")))
}

/// Every call of a kernel counts as this much work at least.
const CALL_WORK: u64 = 64;

/// Work of a step: half its operations, a multiply-add being two, or what it moves. What is not known is none; what
/// overflows is all there is.
fn work_of(step: &Step, env: &SymEnv) -> u64 {
    let known = |d: &Dim| match d.eval(env) {
        Ok(n) => u64::try_from(n).unwrap_or(0),
        Err(DimError::Overflow(_)) => u64::MAX,
        Err(_) => 0,
    };
    match step {
        Step::Kernel { flops, bytes, .. } => {
            (known(flops) / 2).max(known(bytes) / 4).max(CALL_WORK)
        }
        Step::Host { .. } => 0,
        Step::Repeat { trip, body } => {
            let once = body.iter().fold(0u64, |n, s| n.saturating_add(work_of(s, env)));
            once.saturating_mul(known(trip))
        }
    }
}

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
    },
    /// Runs a host step.
    Host {
        /// The top-level step.
        step: u32,
        /// Profile slot.
        slot: u32,
    },
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
    /// Bytes of this stage's arena (outputs kept by the session not counted).
    pub arena: u64,
    /// No placement could be smaller than this.
    pub arena_bound: u64,
    /// Dims and bytes of outputs (last stage only; heap outputs are empty).
    pub outputs: Vec<(Vec<usize>, usize)>,
}

/// Sizes of a stage, before it has memory.
pub struct Layout {
    /// Offsets of the stage's buffers in its region, by buffer.
    offsets: Vec<Option<u64>>,
    lens: Vec<u64>,
    /// Bytes of the region.
    pub total: u64,
    arena: u64,
    bound: u64,
}

/// What binding works on.
pub struct Binder<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its stages.
    pub flow: &'a Flow,
    /// The graph.
    pub graph: &'a PGraph,
    /// Address of the constants section.
    pub consts: u64,
    /// Address of the status word.
    pub status: u64,
}

impl Binder<'_> {
    /// Refuses a stage of more work than `limit`, counted as [`hub_portable::work`] counts it.
    pub fn work(&self, stage: usize, env: &SymEnv, limit: u64) -> Result<(), Error> {
        let steps = &self.plan.steps[self.flow.stages[stage].clone()];
        let need = steps.iter().fold(0u64, |n, s| n.saturating_add(work_of(s, env)));
        if need <= limit {
            return Ok(());
        }
        let what = format!("the run would do {need} units of work, the limit is {limit}");
        Err(Error::Limit(format!("{what}: raise the session's limits")))
    }

    /// Sizes and places the buffers of a stage. `limit` is in bytes.
    pub fn layout(&self, stage: usize, env: &SymEnv, limit: u64) -> Result<Layout, Error> {
        let too_big = || Error::Limit(format!("the arena would need more than {limit} bytes"));
        let mut lens = vec![0; self.plan.bufs.len()];
        let mut arenas = vec![None; lens.len()];
        let mut outputs = vec![];
        for (i, b) in self.plan.bufs.iter().enumerate() {
            if self.flow.buf_stage[i] != stage {
                continue;
            }
            match b {
                Buf::Arena { bytes, .. } => {
                    lens[i] = size(bytes, env)?;
                    arenas[i] = Some(lens[i]);
                }
                Buf::Output { bytes, .. } => {
                    lens[i] = size(bytes, env)?;
                    outputs.push(i);
                }
                Buf::Const { len, .. } => lens[i] = *len,
                Buf::Input(n) => {
                    let v = self.graph.regions[self.graph.root as usize].params[*n as usize];
                    lens[i] = value_dims(self.graph, v, env)?.2 as u64;
                }
            }
        }
        let arena::Rooms { blocks, of } = arena::rooms(self.plan, &arenas);
        let placed = arena::place(&blocks).ok_or_else(too_big)?;
        debug_assert_eq!(arena::check(&blocks, &placed), Ok(()));
        let mut offsets: Vec<Option<u64>> =
            of.iter().map(|r| r.map(|r| placed.offsets[r])).collect();
        let mut total = placed.total;
        for b in outputs {
            total = total.checked_next_multiple_of(arena::ALIGN).ok_or_else(too_big)?;
            offsets[b] = Some(total);
            total = total.checked_add(lens[b]).ok_or_else(too_big)?;
        }
        if total > limit {
            return Err(Error::Limit(format!(
                "the arena needs {total} bytes, the limit is {limit}: raise the session's limits"
            )));
        }
        let bound = arena::lower_bound(&blocks);
        Ok(Layout { offsets, lens, total, arena: placed.total, bound })
    }

    /// Fills a stage's argument blocks. `region` is the address of its memory, `before` the places
    /// of buffers of earlier stages.
    pub fn bind(
        &self,
        stage: usize,
        env: &SymEnv,
        layout: &Layout,
        region: u64,
        before: &[Place],
    ) -> Result<Bound, Error> {
        let mut b = Bound {
            key: env.0.clone(),
            arena: layout.arena,
            arena_bound: layout.bound,
            places: before.to_vec(),
            ..Bound::default()
        };
        b.places.resize(self.plan.bufs.len(), Place::default());
        for (i, buf) in self.plan.bufs.iter().enumerate() {
            if self.flow.buf_stage[i] != stage {
                continue;
            }
            let at = match (buf, layout.offsets[i]) {
                (Buf::Const { offset, .. }, _) => self.consts + offset,
                (_, Some(o)) => region + o,
                _ => 0,
            };
            b.places[i] = Place { at, len: layout.lens[i] };
        }
        let steps = self.flow.stages[stage].clone();
        let mut slot = slots(&self.plan.steps[..steps.start]);
        for i in steps {
            self.step(i, env, &mut b, &mut slot)
                .map_err(|e| Error::Plan(format!("step {i}: {e}")))?;
        }
        b.words = b.base.clone();
        if stage + 1 == self.flow.stages.len() {
            self.outputs(env, &mut b)?;
        }
        Ok(b)
    }

    fn step(&self, i: usize, env: &SymEnv, b: &mut Bound, slot: &mut u32) -> Result<(), Error> {
        match &self.plan.steps[i] {
            s @ Step::Kernel { .. } => self.kernel(s, env, b, slot, 1),
            Step::Host { .. } => {
                b.ops.push(Op::Host { step: i as u32, slot: *slot });
                *slot += 1;
                Ok(())
            }
            Step::Repeat { trip, body } => {
                let trip = size(trip, env)?;
                let first_slot = *slot;
                *slot += slots(body);
                if trip == 0 {
                    return Ok(());
                }
                let (at, first_bump) = (b.ops.len(), b.bumps.len() as u32);
                b.ops.push(Op::Repeat { trip, len: 0, bumps: (0, 0) });
                let mut inner = first_slot;
                for s in body {
                    self.kernel(s, env, b, &mut inner, trip)?;
                }
                let len = (b.ops.len() - at - 1) as u32;
                b.ops[at] = Op::Repeat { trip, len, bumps: (first_bump, b.bumps.len() as u32) };
                Ok(())
            }
        }
    }

    /// One kernel call, made `trip` times.
    fn kernel(
        &self,
        s: &Step,
        env: &SymEnv,
        b: &mut Bound,
        slot: &mut u32,
        trip: u64,
    ) -> Result<(), Error> {
        let Step::Kernel { kernel, args, tiles, cost, node, .. } = s else {
            return Err(Error::plan("only kernels may be repeated"));
        };
        let my_slot = *slot;
        *slot += 1;
        let tiles = size(tiles, env)?;
        if tiles == 0 {
            return Ok(());
        }
        let at = b.base.len() as u32;
        let mut status = false;
        for (n, a) in args.iter().enumerate() {
            let word = match a {
                Arg::Size(d) => d.eval(env).map_err(Error::plan)? as u64,
                Arg::Status => {
                    status = true;
                    self.status
                }
                Arg::Ptr { buf, offset, extent, bump, .. } => {
                    let place = b.places[*buf as usize];
                    let [offset, extent, bump] = [offset, extent, bump].map(|d| d.eval(env));
                    let (offset, extent, bump) = (
                        offset.map_err(Error::plan)?,
                        extent.map_err(Error::plan)?,
                        bump.map_err(Error::plan)?,
                    );
                    in_range(offset, extent, bump, trip, place.len).map_err(|what| {
                        Error::Plan(format!("argument {n} of '{node}' (buffer {buf}): {what}"))
                    })?;
                    let word = b.base.len() as u32;
                    if bump != 0 {
                        b.bumps.push((word, bump as u64));
                    }
                    if matches!(self.plan.bufs[*buf as usize], Buf::Input(_) | Buf::Output { .. }) {
                        b.patches.push((word, *buf, offset as u64));
                    }
                    place.at.wrapping_add(offset as u64)
                }
            };
            b.base.push(word);
        }
        let wide = tiles > 1 && cost.eval(env).unwrap_or(0) >= WIDE_COST;
        b.ops.push(Op::Call { kernel: *kernel, args: at, tiles, wide, status, slot: my_slot });
        Ok(())
    }

    fn outputs(&self, env: &SymEnv, b: &mut Bound) -> Result<(), Error> {
        let root = &self.graph.regions[self.graph.root as usize];
        for (i, source) in self.plan.outputs.iter().enumerate() {
            let OutputSource::Buf(buf) = source else {
                b.outputs.push((vec![], 0));
                continue;
            };
            let (_, dims, bytes) = value_dims(self.graph, root.results[i], env)?;
            let have = b.places[*buf as usize].len;
            if bytes as u64 > have {
                let what = format!("output {i} of {bytes} bytes lies in a buffer of {have}");
                return Err(Error::Plan(what));
            }
            b.outputs.push((dims, bytes));
        }
        Ok(())
    }
}

/// Profile slots of steps: one a kernel or host step.
pub fn slots(steps: &[Step]) -> u32 {
    steps.iter().map(|s| if let Step::Repeat { body, .. } = s { slots(body) } else { 1 }).sum()
}

/// Does `[offset, offset + extent)`, moved by `bump` up to `trip - 1` times, stay in `len` bytes?
fn in_range(offset: i64, extent: i64, bump: i64, trip: u64, len: u64) -> Result<(), String> {
    let travel = i128::from(bump) * i128::from(trip.saturating_sub(1));
    let lo = i128::from(offset) + travel.min(0);
    let hi = i128::from(offset) + travel.max(0) + i128::from(extent);
    if extent >= 0 && lo >= 0 && hi <= i128::from(len) {
        return Ok(());
    }
    Err(format!("bytes {lo}..{hi} of {len}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_over_all_iterations() {
        assert!(in_range(0, 16, 0, 1, 16).is_ok());
        assert!(in_range(0, 17, 0, 1, 16).is_err());
        assert!(in_range(-1, 1, 0, 1, 16).is_err());
        assert!(in_range(0, 4, 4, 4, 16).is_ok());
        assert!(in_range(0, 4, 4, 5, 16).is_err());
        assert!(in_range(12, 4, -4, 4, 16).is_ok());
        assert!(in_range(12, 4, -4, 5, 16).is_err());
        assert!(in_range(i64::MAX, i64::MAX, i64::MAX, u64::MAX, u64::MAX).is_err());
        assert!(in_range(0, -1, 0, 1, 16).is_err());
    }
}
