//! Moves what does not change in a loop in front of it.
//!
//! The generator emits values where they are asked for; this pass lifts them to the outermost loop
//! level where they are invariant, at most `budget` registers of vectors a loop (the innermost
//! loops, done first, have the first claim), so that register pressure stays bounded. Loads move
//! only out of loops that store nothing to the same memory. Nothing moves out of a branch.

use crate::kir::{Affine, Base, Inst, Kernel, Reg, Stmt, Var};
use std::collections::HashSet;

/// Hoists in all loops of `k`; `budget` is that of innermost loops and of others.
pub fn hoist(k: &mut Kernel, budget: [usize; 2]) {
    let mut body = std::mem::take(&mut k.body);
    let mut h = Hoister { k, budget, once: HashSet::new() };
    h.once = assigned_once(&body, h.k.regs.len());
    h.stmts(&mut body);
    k.body = body;
}

struct Hoister<'a> {
    k: &'a Kernel,
    budget: [usize; 2],
    once: HashSet<Reg>,
}

/// Registers that exactly one instruction assigns.
fn assigned_once(body: &[Stmt], n: usize) -> HashSet<Reg> {
    let mut count = vec![0u32; n];
    each_inst(body, &mut |i| {
        if let Some(d) = i.dst() {
            count[d.0 as usize] += 1;
        }
    });
    (0..n).filter(|&r| count[r] == 1).map(|r| Reg(r as u32)).collect()
}

fn each_inst(body: &[Stmt], f: &mut dyn FnMut(&Inst)) {
    for s in body {
        match s {
            Stmt::Inst(i) => f(i),
            Stmt::For { body, .. } => each_inst(body, f),
            Stmt::If { then, els, .. } => {
                each_inst(then, f);
                each_inst(els, f);
            }
        }
    }
}

/// What a loop's body assigns and writes.
struct Effects {
    assigned: HashSet<Reg>,
    stores: HashSet<Base>,
}

fn effects(body: &[Stmt]) -> Effects {
    let mut e = Effects { assigned: HashSet::new(), stores: HashSet::new() };
    each_inst(body, &mut |i| {
        e.assigned.extend(i.dst());
        if let (Some(addr), true) = (i.addr(), i.writes_memory()) {
            e.stores.insert(addr.base);
        }
    });
    e
}

impl Hoister<'_> {
    fn stmts(&mut self, body: &mut Vec<Stmt>) {
        let old = std::mem::take(body);
        for mut s in old {
            match &mut s {
                Stmt::For { body: inner, .. } => {
                    self.stmts(inner);
                    let lifted = self.lift(&mut s);
                    body.extend(lifted.into_iter().map(Stmt::Inst));
                }
                Stmt::If { then, els, .. } => {
                    self.stmts(then);
                    self.stmts(els);
                }
                Stmt::Inst(_) => {}
            }
            body.push(s);
        }
    }

    /// Takes the invariant instructions out of a loop.
    fn lift(&self, s: &mut Stmt) -> Vec<Inst> {
        let Stmt::For { axis, body, .. } = s else { return vec![] };
        let mut e = effects(body);
        let inner = !body.iter().any(|s| matches!(s, Stmt::For { .. }));
        let (mut out, mut left) = (vec![], self.budget[usize::from(!inner)]);
        let old = std::mem::take(body);
        for s in old {
            match s {
                Stmt::Inst(i) if self.fixed(&i, *axis, &e) && (left > 0 || self.free(&i)) => {
                    let d = i.dst().expect("only values are fixed");
                    e.assigned.remove(&d);
                    left -= usize::from(left > 0 && !self.cheap(&i));
                    out.push(i);
                }
                s => body.push(s),
            }
        }
        out
    }

    /// Moves whatever the budget, unless there is none at all: every register counts then.
    fn free(&self, i: &Inst) -> bool {
        self.budget[0] > 0 && self.cheap(i)
    }

    /// Takes no vector register for long.
    fn cheap(&self, i: &Inst) -> bool {
        let scalar = i.dst().is_some_and(|d| self.k.ty(d).is_scalar());
        scalar || matches!(i, Inst::Const { .. })
    }

    /// Does `i` give the same in every iteration, and may it run before the loop?
    fn fixed(&self, i: &Inst, axis: crate::kir::AxisId, e: &Effects) -> bool {
        let Some(d) = i.dst() else { return false };
        if !self.once.contains(&d) || i.writes_memory() {
            return false;
        }
        let mut ok = true;
        i.uses(|r| ok &= !e.assigned.contains(&r));
        let moves = |a: &Affine| a.terms.iter().any(|(v, _)| *v == Var::Axis(axis));
        ok && !i.affine().is_some_and(moves)
            && !i.addr().is_some_and(|a| e.stores.contains(&a.base))
    }
}
