//! Where a barrier has to stand between accesses of one tile's lanes.
//!
//! A kernel of the IR does one instruction after another, each for all lanes; the threads that hold
//! the lanes are at different ones. So where a thread may read what another has written, or write what
//! another reads, they have to wait for one another. Tiles share nothing.

use crate::kir::*;
use std::collections::BTreeSet;

/// What a kernel's threads have touched since the last barrier.
pub struct Order {
    /// Memory that is both read and written; the rest needs no order.
    shared: BTreeSet<Base>,
    since: Touched,
}

/// Memory that was read, and memory that was written.
#[derive(Clone, Default)]
pub struct Touched {
    read: BTreeSet<Base>,
    written: BTreeSet<Base>,
}

impl Touched {
    fn join(&mut self, other: Touched) {
        self.read.extend(other.read);
        self.written.extend(other.written);
    }
}

impl Order {
    /// At the start of a kernel.
    pub fn new(k: &Kernel) -> Order {
        let mut all = Touched::default();
        touched(&k.body, &mut |b, write| {
            if write {
                all.written.insert(b)
            } else {
                all.read.insert(b)
            };
        });
        let shared = all.read.intersection(&all.written).copied().collect();
        Order { shared, since: Touched::default() }
    }

    /// An access comes next: does it need a barrier before it?
    pub fn access(&mut self, base: Base, store: bool) -> bool {
        if !self.shared.contains(&base) {
            return false;
        }
        let others = if store { &self.since.read } else { &self.since.written };
        let needs = others.contains(&base);
        if needs {
            self.barrier();
        }
        if store {
            self.since.written.insert(base)
        } else {
            self.since.read.insert(base)
        };
        needs
    }

    /// A barrier stands here, for whatever reason.
    pub fn barrier(&mut self) {
        self.since = Touched::default();
    }

    /// The state before a branch or loop, to go back to or to join.
    pub fn mark(&self) -> Touched {
        self.since.clone()
    }

    /// Back to a state: the other side of a branch comes next. Gives the state here.
    pub fn back(&mut self, to: Touched) -> Touched {
        std::mem::replace(&mut self.since, to)
    }

    /// What came before may have been this too.
    pub fn join(&mut self, other: Touched) {
        self.since.join(other);
    }

    /// A loop's body comes next: does it need a barrier at its head, for what the iteration before
    /// did?
    pub fn repeats(&mut self, body: &[Stmt]) -> bool {
        let mut again = false;
        touched(body, &mut |b, _| again |= self.shared.contains(&b));
        if again {
            self.barrier();
        }
        again
    }
}

fn touched(body: &[Stmt], f: &mut dyn FnMut(Base, bool)) {
    for s in body {
        match s {
            Stmt::Inst(i) => {
                if let Some(a) = i.addr() {
                    f(a.base, i.writes_memory())
                }
            }
            Stmt::For { body, .. } => touched(body, f),
            Stmt::If { then, els, .. } => {
                touched(then, f);
                touched(els, f);
            }
        }
    }
}
