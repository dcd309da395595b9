//! In place: a step's result takes the room of an operand that no later step reads.
//!
//! Decided on the finished steps, where lives are exact: the kernel must say that the two arguments
//! may be one address, both must be addressed alike in buffers of one size, and nothing else of the
//! step may look at the dying buffer. Only buffers of the arena take part, so inputs, constants and
//! outputs keep what they hold. Blocks inside steps are left alone: what dies in one iteration of a
//! loop may be read in the next.

use super::Placer;
use super::emit::HALO;
use hub_abi::plan::{Arg, Buf, BufId, Plan, Step};

impl Placer<'_> {
    /// Gives results the room of operands that die with them, and drops the fills of halos that
    /// are filled by then.
    pub(super) fn reuse(&mut self) {
        let lives = lives(&self.tier.plan);
        let mut taken = vec![false; lives.len()];
        let mut filled = vec![];
        for at in 0..self.tier.plan.steps.len() {
            for (from, to) in candidates(&self.tier.plan, at) {
                let [a, b] = [from, to].map(|b| b as usize);
                let dies = lives[a].1 == at as u32 && !taken[a];
                let Some(fill) = self.starts(to, from, at, lives[b].0 as usize) else { continue };
                if let (true, Buf::Arena { over: over @ None, .. }) =
                    (dies, &mut self.tier.plan.bufs[b])
                {
                    *over = Some(from);
                    taken[a] = true;
                    filled.extend(fill);
                }
            }
        }
        let mut at = 0;
        self.tier.plan.steps.retain(|_| {
            at += 1;
            !filled.contains(&(at - 1))
        });
    }

    /// Does `to` begin at step `at`, but for a fill of its halo that `from` has too? The step that
    /// fills it.
    fn starts(&self, to: BufId, from: BufId, at: usize, first: usize) -> Option<Option<usize>> {
        if first == at {
            return (!self.halos.contains_key(&to)).then_some(None);
        }
        let like = |(a, b): (&super::Place, &super::Place)| {
            (a.dtype, &a.dims, &a.offset, &a.strides, &a.halo)
                == (b.dtype, &b.dims, &b.offset, &b.strides, &b.halo)
        };
        let same = self.halos.get(&to).zip(self.halos.get(&from)).is_some_and(like);
        let steps = &self.tier.plan.steps;
        let fill = matches!(&steps[first], Step::Kernel { node, .. } if node == HALO);
        let mut between = steps[first + 1..at].iter();
        let only = !between.any(|s| {
            let mut touched = false;
            each_buf(s, &mut |b| touched |= b == to);
            touched
        });
        (same && fill && only).then_some(Some(first))
    }
}

/// Pairs of buffers `(read, written)` that a step could hold in one room, lives aside.
fn candidates(plan: &Plan, at: usize) -> Vec<(BufId, BufId)> {
    let Step::Kernel { kernel, args, .. } = &plan.steps[at] else { return vec![] };
    let shares = &plan.kernels[*kernel as usize].shares;
    let mut out = vec![];
    for &(r, w) in shares {
        let (Some(Arg::Ptr { buf: from, .. }), Some(Arg::Ptr { buf: to, .. })) =
            (args.get(r as usize), args.get(w as usize))
        else {
            continue;
        };
        let bytes = |b: BufId| match &plan.bufs[b as usize] {
            Buf::Arena { bytes, .. } => Some(bytes),
            _ => None,
        };
        let alike = from < to && bytes(*from).is_some() && bytes(*from) == bytes(*to);
        if alike && args.iter().enumerate().all(|(i, a)| harmless(args, shares, (i, a), (*from, w)))
        {
            out.push((*from, *to));
        }
    }
    out
}

/// May an argument of a step stay as it is if argument `w` is written where buffer `from` is?
fn harmless(
    args: &[Arg],
    shares: &[(u32, u32)],
    (i, a): (usize, &Arg),
    (from, w): (BufId, u32),
) -> bool {
    let (Arg::Ptr { buf, offset, extent, write, bump }, Arg::Ptr { buf: to, .. }) =
        (a, &args[w as usize])
    else {
        return true;
    };
    if buf == to {
        return i == w as usize;
    }
    let alike = matches!(&args[w as usize],
        Arg::Ptr { offset: o, extent: e, bump: b, .. } if (o, e, b) == (offset, extent, bump));
    *buf != from || (!write && alike && shares.contains(&(i as u32, w)))
}

/// First and last top-level step that touches each buffer, itself or inside; `(MAX, 0)` where none
/// does.
fn lives(plan: &Plan) -> Vec<(u32, u32)> {
    let mut lives = vec![(u32::MAX, 0u32); plan.bufs.len()];
    for (i, s) in plan.steps.iter().enumerate() {
        each_buf(s, &mut |b| {
            let l = &mut lives[b as usize];
            *l = (l.0.min(i as u32), l.1.max(i as u32));
        });
    }
    lives
}

fn each_buf(s: &Step, f: &mut dyn FnMut(BufId)) {
    s.each_buf(&mut |b, _| f(b));
    s.blocks().flat_map(|b| &b.steps).for_each(|s| each_buf(s, f));
}
