//! Binding: from values of symbols to placed memory, checked ranges and filled argument blocks.
//!
//! Done stage by stage (see [`crate::flow`]). Binding checks every address range that a kernel may
//! touch against its buffer; after that, a run does not check.

use crate::error::Error;
use crate::flow::Flow;
use crate::ops::{Bound, Known, LoopOp, Op, Place};
use crate::pool::Scratch;
use crate::work;
use hub_abi::Dtype;
use hub_abi::arena;
use hub_abi::bundle::Manifest;
use hub_abi::dim::{Dim, DimError, SymEnv};
use hub_abi::plan::{self, Arg, BindFrom, Block, Buf, OutputSource, Plan, Step};
use hub_abi::shape::Type;
use hub_portable::{ExecError, PrimError};

/// Steps cheaper than this many nanoseconds run on the caller alone.
const WIDE_COST: i64 = 4000;

/// Dims of a value of this type under `env`, and bytes of its tensor.
pub fn value_dims(ty: &Type, env: &SymEnv) -> Result<(Dtype, Vec<usize>, usize), Error> {
    let Some(t) = ty.as_tensor() else {
        return Err(Error::plan(format!("a value of type {ty:?} is no tensor")));
    };
    let dims = t.dims.iter().map(|d| size(d, env).map(|n| n as usize));
    let dims = dims.collect::<Result<Vec<usize>, _>>()?;
    let bytes = dims.iter().try_fold(t.dtype.size(), |n, &d| n.checked_mul(d));
    let bytes = bytes.filter(|&b| b <= isize::MAX as usize);
    let bytes = bytes.ok_or_else(|| Error::Limit(format!("a tensor of {dims:?} elements")))?;
    Ok((t.dtype, dims, bytes))
}

/// What the data ask for is no size.
fn impossible(what: String) -> Error {
    let fault = PrimError::Misfit(what).into();
    ExecError { node: "sizes".into(), op: "Bind".into(), fault }.into()
}

/// A size under `env`: not negative.
pub fn size(d: &Dim, env: &SymEnv) -> Result<u64, Error> {
    let v = d.eval(env).map_err(|e| match e {
        DimError::Overflow(_) => Error::Limit(format!("a size ({d}) is over 2^63")),
        e @ DimError::Unbound(_) => Error::plan(e),
        e => impossible(e.to_string()),
    })?;
    u64::try_from(v).map_err(|_| match d.as_const() {
        // No input or datum makes it so.
        Some(_) => Error::plan(format!("size {d} is negative")),
        None => impossible(format!("size {d} would be {v}")),
    })
}

/// Sizes of a stage, before it has memory.
pub struct Layout {
    /// Offsets of the stage's buffers in its region, by buffer.
    offsets: Vec<Option<u64>>,
    lens: Vec<u64>,
    /// Offsets of the scratch of the stage's kernel calls, by the step's number, ascending.
    scratch: Vec<(u32, u64)>,
    /// Most of them at one step.
    most_scratch: u64,
    /// Bytes of the region.
    pub total: u64,
    bound: u64,
}

/// What binding works on.
pub struct Binder<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its stages.
    pub flow: &'a Flow,
    /// What inputs and outputs are.
    pub manifest: &'a Manifest,
    /// Address of the constants section.
    pub consts: u64,
    /// Address of the status word, and bytes from one profile slot's word to the next's.
    pub status: (u64, u64),
    /// Workers that a step may run on.
    pub workers: u64,
}

impl Binder<'_> {
    /// Work of a stage, counted as [`hub_portable::work`] counts it.
    pub fn work(&self, stage: usize, env: &SymEnv) -> u64 {
        work::of(&self.plan.steps[self.flow.stages[stage].clone()], env)
    }

    /// Sizes and places the buffers of a stage. `limit` is in bytes: what the run may still take.
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
                    // A size that does not hold may be of a block that does not run: steps that
                    // use it fail to be bound.
                    lens[i] = size(bytes, env).unwrap_or(0);
                    arenas[i] = Some(lens[i]);
                }
                Buf::Output { bytes, .. } => {
                    lens[i] = size(bytes, env)?;
                    outputs.push(i);
                }
                Buf::Const { len, .. } => lens[i] = *len,
                Buf::Input(n) => {
                    let input = &self.manifest.inputs[*n as usize];
                    lens[i] = value_dims(&input.ty, env)?.2 as u64;
                }
            }
        }
        let arena::Rooms { mut blocks, mut of } = arena::rooms(self.plan, &arenas);
        // Outputs stay until the next run; what comes before the step that makes them may lie there.
        for b in outputs {
            of[b] = Some(blocks.len());
            let first = self.flow.output_first[b];
            blocks.push(arena::Block { bytes: lens[b], first, last: u32::MAX });
        }
        let bound = arena::lower_bound(&blocks);
        let scratch = self.scratch(stage, env, &mut blocks);
        let placed = arena::place(&blocks).ok_or_else(too_big)?;
        debug_assert_eq!(arena::check(&blocks, &placed), Ok(()));
        let offsets = of.iter().map(|r| r.map(|r| placed.offsets[r])).collect();
        let total = placed.total;
        if total > limit {
            return Err(Error::Limit(format!(
                "the arena needs {total} bytes, the limit leaves {limit}: raise the session's limits"
            )));
        }
        let most_scratch = scratch.iter().map(|(_, room)| blocks[*room].bytes).max().unwrap_or(0);
        let scratch = scratch.into_iter().map(|(n, room)| (n, placed.offsets[room])).collect();
        Ok(Layout { offsets, lens, scratch, most_scratch, total, bound })
    }

    /// Adds blocks for the scratch of a stage's kernel calls: the steps' numbers and their blocks.
    fn scratch(
        &self,
        stage: usize,
        env: &SymEnv,
        blocks: &mut Vec<arena::Block>,
    ) -> Vec<(u32, usize)> {
        let steps = self.flow.stages[stage].clone();
        let first = plan::count(&self.plan.steps[..steps.start]);
        let mut rooms = vec![];
        plan::each_kernel(&self.plan.steps[steps], first, &mut |number, step| {
            let Some(pitch) = self.pitch(step) else { return };
            let bytes = pitch * if wide(step, env) { self.workers } else { 1 };
            rooms.push((number, blocks.len()));
            blocks.push(arena::Block { bytes, first: number, last: number });
        });
        rooms
    }

    /// Bytes of a worker's scratch at a kernel call that has any.
    fn pitch(&self, step: &Step) -> Option<u64> {
        let Step::Kernel { kernel, .. } = step else { return None };
        let bytes = self.plan.kernels[*kernel as usize].scratch;
        (bytes > 0).then(|| bytes.next_multiple_of(arena::ALIGN))
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
            arena: layout.total,
            arena_bound: layout.bound,
            scratch: layout.most_scratch,
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
        let before = &self.plan.steps[..steps.start];
        let mut at = Cursor {
            number: plan::count(before),
            slot: slots(before),
            trip: 1,
            bumps: vec![],
            scratch: &layout.scratch,
            region,
        };
        for i in steps {
            self.steps(&self.plan.steps[i..=i], env, &mut b, &mut at)?;
            b.ends.push(b.ops.len() as u32);
        }
        b.words = b.base.clone();
        if stage + 1 == self.flow.stages.len() {
            self.outputs(env, &mut b)?;
        }
        Ok(b)
    }

    fn steps(
        &self,
        steps: &[Step],
        env: &SymEnv,
        b: &mut Bound,
        at: &mut Cursor<'_>,
    ) -> Result<(), Error> {
        for s in steps {
            let (number, slot) = (at.number, at.slot);
            let end = (number + s.count(), slot + slots(std::slice::from_ref(s)));
            self.step(s, env, b, at).map_err(|e| match e {
                Error::Plan(e) if !e.starts_with("step ") => {
                    Error::Plan(format!("step {number}: {e}"))
                }
                e => e,
            })?;
            (at.number, at.slot) = end;
        }
        Ok(())
    }

    /// One step; the cursor is at its number, and is moved on by the caller.
    fn step(
        &self,
        s: &Step,
        env: &SymEnv,
        b: &mut Bound,
        at: &mut Cursor<'_>,
    ) -> Result<(), Error> {
        if let Step::Kernel { .. } = s {
            return self.kernel(s, env, b, at);
        }
        let entry = self.flow.tables.get(&at.number).copied().unwrap_or(u32::MAX);
        match s {
            Step::Kernel { .. } => {}
            Step::Host { .. } => b.ops.push(Op::Host { host: entry, slot: at.slot }),
            Step::Move { .. } => b.ops.push(Op::Move(entry)),
            Step::Store { .. } => b.ops.push(Op::Store(entry)),
            Step::Bind { binds } => {
                let first = b.binds.len() as u32;
                for (s, from) in binds {
                    let known = self.known(from, env, b)?;
                    b.binds.push((*s, known));
                }
                b.ops.push(Op::Bind(first, b.binds.len() as u32));
            }
            Step::Branch { cond, then, orelse, .. } => {
                self.holds(b, *cond, 1)?;
                let op = b.ops.len();
                b.ops.push(Op::Branch { cond: *cond, then: 0, orelse: 0 });
                let number = at.number;
                at.number += 1;
                let mut lens = [0, 0];
                for (i, block) in [then, orelse].into_iter().enumerate() {
                    lens[i] = self.block(block, (number, i), env, b, at);
                }
                b.ops[op] = Op::Branch { cond: *cond, then: lens[0], orelse: lens[1] };
            }
            Step::Repeat { trip, body } => {
                let trip = size(trip, env)?;
                if trip == 0 {
                    return Ok(());
                }
                let (op, number) = (b.ops.len(), at.number);
                let none = Op::Repeat { trip, len: 0, bumps: (0, 0), info: entry };
                b.ops.push(none);
                let (len, bumps) = self.body(body, (number, trip), env, b, at);
                b.ops[op] = Op::Repeat { trip, len, bumps, info: entry };
            }
            Step::Loop { .. } => return self.a_loop(s, entry, env, b, at),
        }
        Ok(())
    }

    fn a_loop(
        &self,
        s: &Step,
        info: u32,
        env: &SymEnv,
        b: &mut Bound,
        at: &mut Cursor<'_>,
    ) -> Result<(), Error> {
        let Step::Loop { trip, cond, first, iteration, most, count, body, .. } = s else {
            return Ok(());
        };
        trip.iter().chain(iteration).try_for_each(|buf| self.holds(b, *buf, 8))?;
        cond.iter().try_for_each(|buf| self.holds(b, *buf, 1))?;
        let most = most.as_ref().map(|d| size(d, env)).transpose()?;
        let (op, number) = (b.loops.len(), at.number);
        b.ops.push(Op::Loop(op as u32));
        b.loops.push(LoopOp {
            info,
            trip: *trip,
            cond: *cond,
            first: *first,
            iteration: *iteration,
            most,
            count: *count,
            len: 0,
            work: work::of(&body.steps, env),
            bumps: (0, 0),
        });
        let room = most.unwrap_or(u64::MAX);
        let (len, bumps) = self.body(body, (number, room), env, b, at);
        (b.loops[op].len, b.loops[op].bumps) = (len, bumps);
        Ok(())
    }

    /// A loop's body: its number of ops, and its bumps.
    fn body(
        &self,
        body: &Block,
        (number, trip): (u32, u64),
        env: &SymEnv,
        b: &mut Bound,
        at: &mut Cursor<'_>,
    ) -> (u32, (u32, u32)) {
        at.number += 1;
        let outer = (std::mem::take(&mut at.bumps), std::mem::replace(&mut at.trip, trip));
        let len = self.block(body, (number, 0), env, b, at);
        let inner = std::mem::replace(&mut at.bumps, outer.0);
        at.trip = outer.1;
        let first = b.bumps.len() as u32;
        b.bumps.extend(inner);
        (len, (first, b.bumps.len() as u32))
    }

    /// A block's number of ops. Where its sizes do not hold it gets one that fails: it may not run.
    fn block(
        &self,
        block: &Block,
        key: (u32, usize),
        env: &SymEnv,
        b: &mut Bound,
        at: &mut Cursor<'_>,
    ) -> u32 {
        let (first, end) = (b.ops.len(), (at.number + plan::count(&block.steps)));
        let slot = at.slot + slots(&block.steps);
        if let Err(e) = self.steps(&block.steps, env, b, at) {
            b.ops.truncate(first);
            b.ops.push(Op::Fail(b.faults.len() as u32));
            b.faults.push(e.to_string());
        }
        (at.number, at.slot) = (end, slot);
        b.ops.extend(self.flow.frees.get(&key).map(|&f| Op::Free(f)));
        (b.ops.len() - first) as u32
    }

    /// A buffer has that many bytes at least.
    fn holds(&self, b: &Bound, buf: u32, bytes: u64) -> Result<(), Error> {
        let have = b.places[buf as usize].len;
        if have >= bytes {
            return Ok(());
        }
        Err(Error::plan(format!("{bytes} bytes are read from buffer {buf} of {have}")))
    }

    fn known(&self, from: &BindFrom, env: &SymEnv, b: &Bound) -> Result<Known, Error> {
        Ok(match from {
            BindFrom::Dim(d) => Known::Value(d.eval(env).map_err(Error::plan)?),
            BindFrom::Buf { buf, index, dtype } => {
                let size = dtype.size() as u64;
                self.holds(b, *buf, (u64::from(*index) + 1) * size)?;
                let offset = u64::from(*index) * size;
                let offset = u32::try_from(offset).map_err(Error::plan)?;
                Known::Read { buf: *buf, offset, wide: size == 8 }
            }
        })
    }

    /// One kernel call, made once in each iteration of the innermost loop around it.
    fn kernel(
        &self,
        s: &Step,
        env: &SymEnv,
        b: &mut Bound,
        cur: &mut Cursor<'_>,
    ) -> Result<(), Error> {
        let Step::Kernel { kernel, args, tiles, node, .. } = s else { return Ok(()) };
        let my_slot = cur.slot;
        let tiles = size(tiles, env)?;
        if tiles == 0 {
            return Ok(());
        }
        let at = b.base.len() as u32;
        b.base.reserve(args.len());
        let mut status = false;
        for (n, a) in args.iter().enumerate() {
            let word = match a {
                Arg::Size(d) => d.eval(env).map_err(Error::plan)? as u64,
                Arg::Status => {
                    status = true;
                    self.status.0 + self.status.1 * u64::from(my_slot)
                }
                Arg::Ptr { buf, offset, extent, bump, .. } => {
                    let place = b.places[*buf as usize];
                    let value = |d: &Dim| d.eval(env).map_err(Error::plan);
                    let (offset, extent, bump) = (value(offset)?, value(extent)?, value(bump)?);
                    in_range(offset, extent, bump, cur.trip, place.len).map_err(|what| {
                        Error::Plan(format!("argument {n} of '{node}' (buffer {buf}): {what}"))
                    })?;
                    let word = b.base.len() as u32;
                    if bump != 0 {
                        cur.bumps.push((word, bump as u64));
                    }
                    if matches!(self.plan.bufs[*buf as usize], Buf::Input(_) | Buf::Output { .. }) {
                        b.patches.push((word, *buf, offset as u64));
                    }
                    place.at.wrapping_add(offset as u64)
                }
            };
            b.base.push(word);
        }
        let found = cur.scratch.binary_search_by_key(&cur.number, |(number, _)| *number);
        let scratch = found.ok().zip(self.pitch(s));
        let scratch =
            scratch.map(|(i, pitch)| Scratch { base: cur.region + cur.scratch[i].1, pitch });
        b.ops.push(Op::Call {
            kernel: *kernel,
            args: at,
            tiles,
            scratch: scratch.unwrap_or_default(),
            wide: wide(s, env),
            status,
            slot: my_slot,
        });
        Ok(())
    }

    fn outputs(&self, env: &SymEnv, b: &mut Bound) -> Result<(), Error> {
        for (i, source) in self.plan.outputs.iter().enumerate() {
            let OutputSource::Buf(buf) = source else {
                b.outputs.push((vec![], 0));
                continue;
            };
            let (_, dims, bytes) = value_dims(&self.manifest.outputs[i].ty, env)?;
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

/// Is a kernel call worth waking the workers?
fn wide(s: &Step, env: &SymEnv) -> bool {
    let Step::Kernel { tiles, cost, .. } = s else { return false };
    let over = |d: &Dim, least: i64| d.eval(env).is_ok_and(|v| v >= least);
    over(tiles, 2) && over(cost, WIDE_COST)
}

/// Where binding is in the plan.
struct Cursor<'a> {
    /// The step's number.
    number: u32,
    /// Its profile slot.
    slot: u32,
    /// Iterations of the innermost loop, and what they bump.
    trip: u64,
    bumps: Vec<(u32, u64)>,
    /// Offsets of scratch by the step's number, ascending, in the region at that address.
    scratch: &'a [(u32, u64)],
    region: u64,
}

/// Profile slots of steps: one a kernel or host step.
pub fn slots(steps: &[Step]) -> u32 {
    let one = |s: &Step| match s {
        Step::Kernel { .. } | Step::Host { .. } => 1,
        s => s.blocks().map(|b| slots(&b.steps)).sum(),
    };
    steps.iter().map(one).sum()
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
