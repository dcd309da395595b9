//! Straight runs of kernel launches, recorded once and then given to the device as a whole.
//!
//! A recording holds addresses. Within a binding these are fixed but for those of inputs and of what the
//! driver moves ([`super::Queue::stamp`]); where such a one has changed, all of the binding is recorded
//! again. A binding is recorded when it is made ahead of a run, else at its second run: sizes that come
//! once are not worth it.

use super::Recording;
use crate::error::Error;
use crate::native::Native;
use crate::ops::{Bound, Op};
use hub_abi::plan::Buf;
use std::ops::Range;

/// Launches that a run has at least, to be worth recording, and at most.
const LEAST: u64 = 2;
const MOST: u64 = 1 << 13;

/// What is recorded of a binding.
#[derive(Default)]
pub struct Graphs {
    /// Was it run before?
    used: bool,
    /// What the recordings hold for: the driver's stamp, and addresses of inputs and outputs. None where
    /// nothing is recorded yet.
    key: Option<(u64, Vec<u64>)>,
    runs: Vec<Straight>,
}

/// A straight run of ops at the top of a stage.
struct Straight {
    ops: Range<usize>,
    /// What it counts against the session's limit on steps.
    steps: u64,
    recording: Recording,
}

/// Straight runs of a stage's ops: calls, and repetitions of nothing else.
fn straight(ops: &[Op]) -> Vec<Range<usize>> {
    let (mut found, mut i) = (vec![], 0);
    let mut now: (Range<usize>, u64) = (0..0, 0);
    let mut end = |now: &mut (Range<usize>, u64), next: usize| {
        if now.1 >= LEAST {
            found.push(now.0.clone());
        }
        *now = (next..next, 0);
    };
    while i < ops.len() {
        let past = i + width(&ops[i..]);
        let launches = launches(&ops[i..past]).filter(|n| *n <= MOST);
        match launches {
            Some(n) if now.1 + n <= MOST => now = (now.0.start..past, now.1 + n),
            Some(n) => {
                end(&mut now, i);
                now = (i..past, n);
            }
            None => end(&mut now, past),
        }
        i = past;
    }
    end(&mut now, i);
    found
}

/// Number of ops that the first of these is with its blocks (but for a loop's, which no run holds).
fn width(ops: &[Op]) -> usize {
    match ops[0] {
        Op::Repeat { len, .. } => 1 + len as usize,
        Op::Branch { then, orelse, .. } => 1 + then as usize + orelse as usize,
        _ => 1,
    }
}

/// Launches of ops, if they are calls and repetitions of calls.
fn launches(ops: &[Op]) -> Option<u64> {
    let (mut n, mut i) = (0u64, 0);
    while i < ops.len() {
        let past = i + width(&ops[i..]);
        n = n.checked_add(match ops[i] {
            Op::Call { .. } => 1,
            Op::Repeat { trip, .. } => launches(&ops[i + 1..past])?.checked_mul(trip)?,
            _ => return None,
        })?;
        i = past;
    }
    Some(n)
}

impl Native {
    /// Records the binding of the first stage before any run.
    ///
    /// # Errors
    /// What the device says.
    pub fn record_ahead(&mut self) -> Result<(), Error> {
        let (Some(far), Some(queue)) = (&mut self.far, &self.queue) else { return Ok(()) };
        let Some(b) = self.stages[0].bounds.last_mut().filter(|_| queue.records()) else {
            return Ok(());
        };
        for (i, buf) in self.tier.plan.bufs.iter().enumerate() {
            if matches!(buf, Buf::Input(_)) && self.tier.flow.buf_stage[i] == 0 {
                self.now[i] = far.room(i, b.places[i].len as usize)?;
            }
        }
        b.graphs.used = true;
        self.patch(0, &[]);
        // SAFETY: the stage is bound and patched; what is recorded is not done.
        unsafe { self.record_stage(0) }
    }

    /// Records a stage's straight runs, unless that is done or not worth it.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    pub(crate) unsafe fn record_stage(&mut self, k: usize) -> Result<(), Error> {
        let Some(queue) = self.queue.as_ref().filter(|q| q.records()) else { return Ok(()) };
        let stamp = queue.stamp();
        let Some(b) = self.stages[k].bounds.last_mut() else { return Ok(()) };
        if self.far.is_none()
            || self.profile.is_some()
            || !std::mem::replace(&mut b.graphs.used, true)
        {
            return Ok(());
        }
        let holds = |(s, at): &(u64, Vec<u64>)| *s == stamp && patched(b).eq(at.iter().copied());
        if b.graphs.key.as_ref().is_some_and(holds) {
            return Ok(());
        }
        let key = (stamp, patched(b).collect());
        b.graphs = Graphs { used: true, key: None, runs: vec![] };
        let mut runs = vec![];
        for ops in straight(&b.ops) {
            // SAFETY: as promised by our caller.
            match unsafe { self.record_run(k, ops) } {
                Ok(run) => runs.push(run),
                // Too much for a recording, or for the session's limits: the run itself will say.
                Err(Error::Limit(_)) => {}
                Err(e) => return Err(e),
            }
        }
        if let Some(b) = self.stages[k].bounds.last_mut() {
            b.graphs = Graphs { used: true, key: Some(key), runs };
        }
        Ok(())
    }

    /// Records ops.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    unsafe fn record_run(&mut self, k: usize, ops: Range<usize>) -> Result<Straight, Error> {
        let no_queue = || Error::Internal("no queue records".into());
        self.queue.as_ref().ok_or_else(no_queue)?.record()?;
        let before = std::mem::take(&mut self.steps);
        // SAFETY: as promised by our caller.
        let done = unsafe { self.execute(k, ops.clone()) };
        let steps = std::mem::replace(&mut self.steps, before);
        // (Ended in any case.)
        let recording = self.queue.as_ref().ok_or_else(no_queue)?.recorded();
        done?;
        Ok(Straight { ops, steps, recording: recording? })
    }

    /// Replays the recorded run that begins at an op, if one does: the op after it.
    pub(crate) fn replay(&mut self, k: usize, at: usize) -> Result<Option<usize>, Error> {
        let (Some(queue), None) = (&self.queue, &self.profile) else { return Ok(None) };
        let Some(b) = self.stages[k].bounds.last() else { return Ok(None) };
        let Some(run) = b.graphs.runs.iter().find(|r| r.ops.start == at) else { return Ok(None) };
        self.steps = self.steps.saturating_add(run.steps);
        if self.steps > self.limits.steps {
            return Err(self.above_limits());
        }
        queue.replay(&run.recording)?;
        Ok(Some(run.ops.end))
    }
}

/// Addresses that a run has put into a binding's argument blocks.
fn patched(b: &Bound) -> impl Iterator<Item = u64> + '_ {
    b.patches.iter().map(|(word, ..)| b.words[*word as usize])
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::pool::Scratch;

    fn call() -> Op {
        let scratch = Scratch::default();
        Op::Call { kernel: 0, args: 0, tiles: 1, scratch, wide: false, status: false, slot: 0 }
    }

    fn repeat(trip: u64, len: u32) -> Op {
        Op::Repeat { trip, len, bumps: (0, 0), info: 0 }
    }

    #[test]
    fn runs_end_at_host_steps_and_branches() {
        let host = Op::Host { host: 0, slot: 0 };
        let branch = Op::Branch { cond: 0, then: 2, orelse: 1 };
        let ops = [call(), call(), host, call(), call(), call(), branch, call(), call(), call()];
        assert_eq!(straight(&ops), [0..2, 3..6]);
        assert_eq!(straight(&[host, call(), host]), []);
        assert_eq!(straight(&[]), []);
    }

    #[test]
    fn repetitions_of_calls_are_runs() {
        let host = Op::Host { host: 0, slot: 0 };
        let ops = [call(), repeat(3, 3), call(), repeat(2, 1), call(), call()];
        assert_eq!(straight(&ops), vec![0..6]);
        assert_eq!(launches(&ops), Some(1 + 3 * (1 + 2) + 1));
        assert_eq!(straight(&[repeat(3, 2), call(), host, call(), call()]), vec![3..5]);
        let long = [call(), repeat(MOST, 1), call(), repeat(MOST + 1, 1), call(), call(), call()];
        assert_eq!(straight(&long), [1..3, 5..7]);
        assert_eq!(launches(&[repeat(u64::MAX, 2), repeat(u64::MAX, 1), call()]), None);
    }
}
