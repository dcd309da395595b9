//! Every small model changed in every way that one change can: each operand's rank, each size, each
//! element type, each operand and attribute left out, doubled, or given an extreme value, inputs made
//! constants, attributes and operands added that other models have. What becomes of it must be a
//! typed error or an answer; a panic, a graph that breaks, or seconds of work for it are faults.
//!
//! `cargo run --release -p hub-tests --bin mutate` makes all changes and goes on with what is
//! accepted; `frontend/tests/mutated.rs` makes a few of each model, the same ones in every run.
#![allow(dead_code)]

pub mod cases;
pub mod judge;
mod onnx;
mod pir;
mod program;
mod turn;

use cases::{Case, Known};
use judge::{Depth, End, Further, SLOW};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Which changes are made, and how far the models go.
#[derive(Clone, Copy)]
pub struct How {
    /// One change of so many; the first of a case depends on the case.
    pub stride: usize,
    /// One changed model of so many is optimised.
    pub passes: usize,
    /// One of so many is interpreted, compiled and written.
    pub whole: usize,
    /// Cases at once.
    pub jobs: usize,
}

/// A fault: what, how often, and the first time.
#[derive(Debug)]
pub struct Fault {
    /// The panic's words, or what is wrong.
    pub what: String,
    /// How many changes lead to it.
    pub count: usize,
    /// The case, the number of its change, and what that does.
    pub first: (String, usize, String),
}

/// What became of all changed models.
#[derive(Default)]
pub struct Report {
    /// How many were made.
    pub made: usize,
    /// How many were accepted.
    pub accepted: usize,
    /// How many were refused, by exit code.
    pub refused: BTreeMap<i32, usize>,
    /// Errors without a node or an offset.
    pub placeless: usize,
    /// Faults by their place in the source.
    pub faults: BTreeMap<String, Fault>,
    /// The slowest, with its processor time.
    pub slowest: (Duration, String),
}

/// Processor time of this thread so far; zero where the system does not say.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

impl Report {
    fn note(&mut self, case: &Case, n: usize, what: &str, end: End, time: Duration) {
        self.made += 1;
        match end {
            End::Accepted => self.accepted += 1,
            End::Refused { code, placed } => {
                *self.refused.entry(code).or_default() += 1;
                self.placeless += usize::from(!placed);
            }
            End::Fault(at, text) => self.fault(at, text, case, n, what),
        }
        if time > SLOW {
            let text = format!("{} ms", time.as_millis());
            self.fault(format!("slow: {}", case.name), text, case, n, what);
        }
        if time > self.slowest.0 {
            self.slowest = (time, format!("{} #{n}: {what}", case.name));
        }
    }

    fn fault(&mut self, at: String, text: String, case: &Case, n: usize, what: &str) {
        let first = (case.name.clone(), n, what.to_string());
        let f = self.faults.entry(at).or_insert(Fault { what: text, count: 0, first });
        f.count += 1;
    }

    fn join(&mut self, other: Report) {
        self.made += other.made;
        self.accepted += other.accepted;
        self.placeless += other.placeless;
        for (code, n) in other.refused {
            *self.refused.entry(code).or_default() += n;
        }
        for (at, f) in other.faults {
            match self.faults.entry(at) {
                std::collections::btree_map::Entry::Occupied(mut o) => o.get_mut().count += f.count,
                std::collections::btree_map::Entry::Vacant(v) => drop(v.insert(f)),
            }
        }
        if other.slowest.0 > self.slowest.0 {
            self.slowest = other.slowest;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: Vec<String> =
            self.refused.iter().map(|(code, n)| format!("{n} with exit code {code}")).collect();
        let refused = refused.join(", ");
        writeln!(f, "{} changed models: {} accepted, {refused}", self.made, self.accepted)?;
        writeln!(f, "{} errors name neither a node nor an offset", self.placeless)?;
        writeln!(f, "slowest: {} ms, {}", self.slowest.0.as_millis(), self.slowest.1)?;
        for (at, x) in &self.faults {
            let (case, n, what) = &x.first;
            writeln!(f, "FAULT {at} ({} times): {}\n    {case} #{n}: {what}", x.count, x.what)?;
        }
        write!(f, "{} faults", self.faults.len())
    }
}

/// Makes the changes of cases.
pub fn run(cases: &[Case], known: &Known, how: &How, further: &Further) -> Report {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    std::thread::scope(|s| {
        for _ in 0..how.jobs.max(1) {
            // As deep a stack as programs have.
            let thread = std::thread::Builder::new().name("judge".into()).stack_size(8 << 20);
            let work = || {
                let mut mine = Report::default();
                while let Some((i, case)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(i).map(|c| (i, c))
                } {
                    of_case((i, case), known, how, further, &mut mine);
                }
                all.lock().unwrap_or_else(|e| e.into_inner()).join(mine);
            };
            thread.spawn_scoped(s, work).expect("a thread starts");
        }
    });
    all.into_inner().unwrap_or_else(|e| e.into_inner())
}

fn of_case(
    (i, case): (usize, &Case),
    known: &Known,
    how: &How,
    further: &Further,
    report: &mut Report,
) {
    // Cases begin at different changes, so that a stride meets every kind.
    let mut n = i.wrapping_mul(7919) % how.stride;
    while let Ok((model, what)) = case.changed(n, known) {
        let turn = n / how.stride + i;
        let depth = match turn {
            _ if turn.is_multiple_of(how.whole) => Depth::Whole,
            _ if turn.is_multiple_of(how.passes) => Depth::Passes,
            _ => Depth::Read,
        };
        let before = busy();
        let end = judge::judge(&model, depth, further);
        report.note(case, n, &what, end, busy().saturating_sub(before));
        n += how.stride;
    }
}
