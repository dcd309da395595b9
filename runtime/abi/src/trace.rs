//! Follows a plan through the memory that it was given and proves that every step reads what was
//! written for it. Independent of what decides: lives of buffers and the planner's blocks are not
//! looked at, only what the steps touch, in order, and where.
//!
//! Each byte of the arena belongs to the buffer that wrote it last. A step may read a buffer only
//! where all bytes are its own; it may write where another buffer lies that it reads only if both
//! are addressed alike and its kernel says that this pair of arguments may share.

use crate::arena::{self, Placement, Rooms};
use crate::dim::{Dim, SymEnv};
use crate::plan::{Arg, Buf, BufId, OutputSource, Plan, Step};
use std::collections::BTreeMap;

/// What a plan does wrong; a bug of the compiler, or a corrupted plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("step {step}{node}: {what}")]
pub struct Clash {
    /// The top-level step; one past the last for the model's outputs.
    pub step: usize,
    /// The model's node, if the step has one.
    pub node: String,
    /// What is wrong.
    pub what: String,
}

/// Places all buffers of a plan in one arena, as the runtime does where there is one stage, and
/// follows the plan through it.
///
/// # Errors
/// Where the placement overlaps or a step reads what was overwritten.
pub fn place_and_trace(plan: &Plan, env: &SymEnv) -> Result<(Rooms, Placement), Clash> {
    let fail = |what: String| Clash { step: 0, node: String::new(), what };
    let len = |b: &Buf| match b {
        Buf::Arena { bytes, .. } => {
            let n = bytes.eval(env).map_err(|e| fail(e.to_string()))?;
            let n = u64::try_from(n).map_err(|_| fail(format!("a buffer of {n} bytes")))?;
            Ok(Some(n))
        }
        _ => Ok(None),
    };
    let lens = plan.bufs.iter().map(len).collect::<Result<Vec<_>, _>>()?;
    let rooms = arena::rooms(plan, &lens);
    let placed = arena::place(&rooms.blocks).ok_or_else(|| fail("sizes overflow".into()))?;
    arena::check(&rooms.blocks, &placed).map_err(fail)?;
    let spots: Vec<Option<Spot>> = rooms
        .of
        .iter()
        .zip(&lens)
        .map(|(r, len)| Some(Spot { at: placed.offsets[(*r)?], len: (*len)? }))
        .collect();
    trace(plan, env, &spots)?;
    Ok((rooms, placed))
}

/// Where a buffer lies in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Its first byte.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

/// Follows a plan; `spots` has an entry a buffer, `None` for what lies outside the arena.
///
/// # Errors
/// The first step that reads or writes what it must not.
pub fn trace(plan: &Plan, env: &SymEnv, spots: &[Option<Spot>]) -> Result<(), Clash> {
    let mut t = Tracer {
        plan,
        env,
        spots,
        owners: BTreeMap::new(),
        born: vec![false; plan.bufs.len()],
        node: String::new(),
    };
    for (step, s) in plan.steps.iter().enumerate() {
        let done = t.step(s, 1);
        done.map_err(|what| Clash { step, node: std::mem::take(&mut t.node), what })?;
    }
    for (i, o) in plan.outputs.iter().enumerate() {
        let OutputSource::Buf(b) = o else { continue };
        let whole = t.whole(*b, false);
        let fail = |what| Clash { step: plan.steps.len(), node: String::new(), what };
        whole.and_then(|w| t.read(&w)).map_err(|e| fail(format!("output {i}: {e}")))?;
    }
    Ok(())
}

type Check<T = ()> = Result<T, String>;

/// Ranges of the arena by their start, with end and owner; they do not overlap.
type Owners = BTreeMap<u64, (u64, BufId)>;

/// What two outcomes agree on; where they do not, nobody owns.
fn common(a: &Owners, b: &Owners) -> Owners {
    let ends = |o: &Owners| o.iter().flat_map(|(lo, (hi, _))| [*lo, *hi]).collect::<Vec<_>>();
    let mut cuts = [ends(a), ends(b)].concat();
    cuts.sort_unstable();
    cuts.dedup();
    let owner = |o: &Owners, at: u64| {
        o.range(..=at).next_back().filter(|(_, (hi, _))| *hi > at).map(|(_, (_, b))| *b)
    };
    let mut out = Owners::new();
    for w in cuts.windows(2) {
        let (x, y) = (owner(a, w[0]), owner(b, w[0]));
        if x.is_some() || y.is_some() {
            let both = if x == y { x } else { None };
            out.insert(w[0], (w[1], both.unwrap_or(BufId::MAX)));
        }
    }
    out
}

/// One argument's use of a buffer.
struct Touch {
    arg: u32,
    buf: BufId,
    write: bool,
    /// Bytes of the arena over all iterations; `None` for memory outside it.
    range: Option<(u64, u64)>,
    /// Where it starts in its memory, how much it spans, and how it moves from one iteration to
    /// the next.
    map: (u64, i64, i64),
}

impl Touch {
    fn meets(&self, o: &Touch) -> bool {
        let (Some(a), Some(b)) = (self.range, o.range) else { return false };
        a.0 < b.1 && b.0 < a.1
    }
}

struct Tracer<'a> {
    plan: &'a Plan,
    env: &'a SymEnv,
    spots: &'a [Option<Spot>],
    owners: Owners,
    /// Buffers that hold something.
    born: Vec<bool>,
    node: String,
}

impl Tracer<'_> {
    fn eval(&self, d: &Dim) -> Check<i64> {
        d.eval(self.env).map_err(|e| e.to_string())
    }

    fn step(&mut self, s: &Step, trip: i64) -> Check {
        match s {
            Step::Kernel { kernel, args, tiles, node, .. } => {
                self.node = format!(" ({node})");
                if self.eval(tiles)? == 0 {
                    return self.idle(args);
                }
                let shares = self.plan.kernels.get(*kernel as usize).map_or(&[][..], |k| &k.shares);
                let touches = self.touches(args, trip)?;
                self.kernel(&touches, shares)
            }
            Step::Host { inputs, outputs, .. } => {
                let ins = inputs.iter().map(|(_, b)| self.whole(*b, false));
                let outs = outputs.iter().map(|(_, b)| self.whole(*b, true));
                let touches = ins.chain(outs).collect::<Check<Vec<_>>>()?;
                self.kernel(&touches, &[])
            }
            Step::Repeat { trip, body } => {
                let trip = self.eval(trip)?;
                // The second time shows what the first one left for it.
                for _ in 0..trip.min(2) {
                    body.steps.iter().try_for_each(|s| self.step(s, trip))?;
                }
                Ok(())
            }
            Step::Loop { most, body, .. } => {
                let trip = most.as_ref().map_or(Ok(2), |d| self.eval(d))?;
                for _ in 0..trip.min(2) {
                    self.own(s)?;
                    body.steps.iter().try_for_each(|s| self.step(s, trip))?;
                }
                Ok(())
            }
            Step::Branch { then, orelse, .. } => {
                self.own(s)?;
                let before = (self.owners.clone(), self.born.clone());
                then.steps.iter().try_for_each(|s| self.step(s, trip))?;
                let owners = std::mem::replace(&mut self.owners, before.0);
                let born = std::mem::replace(&mut self.born, before.1);
                orelse.steps.iter().try_for_each(|s| self.step(s, trip))?;
                self.owners = common(&owners, &self.owners);
                self.born.iter_mut().zip(born).for_each(|(b, other)| *b &= other);
                Ok(())
            }
            Step::Bind { .. } | Step::Move { .. } | Step::Store { .. } => self.own(s),
        }
    }

    /// What a step that is no kernel touches itself. A loop's body makes the condition and what it
    /// carries before they are read again, so those count where they are made.
    fn own(&mut self, s: &Step) -> Check {
        let mut touches = vec![];
        s.each_buf(&mut |b, write| touches.push(self.whole(b, write)));
        let touches = touches.into_iter().collect::<Check<Vec<_>>>()?;
        let born = |t: &Touch| t.write || self.born[t.buf as usize];
        let inside = matches!(s, Step::Loop { .. });
        let touches: Vec<Touch> = touches.into_iter().filter(|t| !inside || born(t)).collect();
        self.kernel(&touches, &[])
    }

    /// A step without tiles: what it would have written counts as written.
    fn idle(&mut self, args: &[Arg]) -> Check {
        for a in args {
            if let Arg::Ptr { buf, write: true, .. } = a {
                self.born[*buf as usize] = true;
            }
        }
        Ok(())
    }

    fn touches(&self, args: &[Arg], trip: i64) -> Check<Vec<Touch>> {
        let mut out = vec![];
        for (i, a) in args.iter().enumerate() {
            let Arg::Ptr { buf, offset, extent, write, bump } = a else { continue };
            let [offset, extent, bump] = [self.eval(offset)?, self.eval(extent)?, self.eval(bump)?];
            let travel = bump.checked_mul((trip - 1).max(0)).ok_or("a bump overflows")?;
            let lo = offset.checked_add(travel.min(0));
            let hi = offset.checked_add(travel.max(0)).and_then(|h| h.checked_add(extent));
            let (lo, hi) = lo.zip(hi).ok_or("an address overflows")?;
            let mut touch = self.touch(*buf, (lo, hi), *write)?;
            touch.arg = i as u32;
            touch.map = (touch.map.0.wrapping_add_signed(offset), extent, bump);
            out.push(touch);
        }
        Ok(out)
    }

    fn whole(&self, buf: BufId, write: bool) -> Check<Touch> {
        let spot = self.spots.get(buf as usize).ok_or_else(|| format!("no buffer {buf}"))?;
        self.touch(buf, (0, spot.map_or(0, |s| s.len as i64)), write)
    }

    /// The use of bytes `range` of a buffer.
    fn touch(&self, buf: BufId, (lo, hi): (i64, i64), write: bool) -> Check<Touch> {
        let spot = self.spots.get(buf as usize).ok_or_else(|| format!("no buffer {buf}"))?;
        let read_only = matches!(self.plan.bufs[buf as usize], Buf::Const { .. } | Buf::Input(_));
        if write && read_only {
            return Err(format!("buffer {buf} is read-only and written"));
        }
        let range = match spot {
            None => None,
            Some(s) if lo < 0 || hi < lo || hi as u64 > s.len => {
                return Err(format!("bytes {lo}..{hi} of buffer {buf}, which has {}", s.len));
            }
            Some(s) => Some((s.at + lo as u64, s.at + hi as u64)),
        };
        let map = (spot.map_or(0, |s| s.at), hi - lo, 0);
        Ok(Touch { arg: u32::MAX, buf, write, range, map })
    }

    fn kernel(&mut self, touches: &[Touch], shares: &[(u32, u32)]) -> Check {
        let (writes, reads): (Vec<&Touch>, Vec<&Touch>) = touches.iter().partition(|t| t.write);
        reads.iter().try_for_each(|r| self.read(r))?;
        for (i, w) in writes.iter().enumerate() {
            if let Some(o) = writes[..i].iter().find(|o| o.buf != w.buf && o.meets(w)) {
                return Err(format!("buffers {} and {} are written at one place", o.buf, w.buf));
            }
            for r in &reads {
                let same = r.buf == w.buf && r.range.is_some() && r.map == w.map;
                if !(same || r.buf != w.buf && r.meets(w)) {
                    continue;
                }
                if r.map != w.map || !shares.contains(&(r.arg, w.arg)) {
                    let (r, w) = (r.buf, w.buf);
                    return Err(format!("buffer {w} is written where buffer {r} is read"));
                }
            }
        }
        writes.iter().for_each(|w| self.write(w, &reads));
        Ok(())
    }

    fn read(&self, t: &Touch) -> Check {
        let Some((lo, hi)) = t.range.filter(|(lo, hi)| lo < hi) else { return Ok(()) };
        if !self.born[t.buf as usize] {
            return Err(format!("buffer {} is read before it is written", t.buf));
        }
        let before = self.owners.range(..lo).next_back().filter(|(_, (end, _))| *end > lo);
        let inside = self.owners.range(lo..hi);
        match before.into_iter().chain(inside).find(|(_, (_, b))| *b != t.buf) {
            None => Ok(()),
            Some((at, (end, b))) => {
                Err(format!("buffer {} is read where {b} was written ({at}..{end})", t.buf))
            }
        }
    }

    fn write(&mut self, t: &Touch, reads: &[&Touch]) {
        // What is taken over whole comes with its surroundings: a halo that is filled already.
        let taken = match self.plan.bufs[t.buf as usize] {
            Buf::Arena { over: Some(o), .. } if !self.born[t.buf as usize] => {
                reads.iter().any(|r| r.buf == o && r.meets(t)).then_some(o)
            }
            _ => None,
        };
        for (_, owner) in self.owners.values_mut() {
            if Some(*owner) == taken {
                *owner = t.buf;
            }
        }
        self.born[t.buf as usize] = true;
        let Some((lo, hi)) = t.range.filter(|(lo, hi)| lo < hi) else { return };
        let meeting = |(at, (end, b)): (&u64, &(u64, BufId))| (*at, *end, *b);
        let before = self.owners.range(..lo).next_back().filter(|(_, (end, _))| *end > lo);
        let cut: Vec<_> =
            before.into_iter().chain(self.owners.range(lo..hi)).map(meeting).collect();
        for (at, end, b) in cut {
            self.owners.remove(&at);
            if at < lo {
                self.owners.insert(at, (lo, b));
            }
            if end > hi {
                self.owners.insert(hi, (end, b));
            }
        }
        self.owners.insert(lo, (hi, t.buf));
    }
}
