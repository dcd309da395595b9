//! Teams: workers of one tile run in turn, as far as each may before it has to wait.

use super::{Machine, Step, eval, tile};
use crate::kir::{Elem, Inst, Scalar, Stmt};

/// What a worker has of its own.
#[derive(Default)]
pub(super) struct Worker {
    regs: Vec<Option<eval::Lanes>>,
    axes: Vec<i64>,
    tiles: Vec<tile::Tile>,
}

/// Does a worker wait for others in there?
fn waits(s: &Stmt) -> bool {
    match s {
        Stmt::Inst(i) => matches!(i, Inst::Barrier),
        Stmt::For { body, .. } => body.iter().any(waits),
        Stmt::If { then, els, .. } => then.iter().chain(els).any(waits),
    }
}

impl Machine<'_> {
    /// A tile's statements, by one worker or by a team.
    pub(super) fn body(&mut self, body: &[Stmt]) -> Step<()> {
        let Some(team) = self.k.team else { return self.stmts(body) };
        let worker = |_| Worker { regs: self.regs.clone(), axes: self.axes.clone(), tiles: vec![] };
        self.others = (0..team.size).map(worker).collect();
        for (i, w) in self.others.iter_mut().enumerate() {
            w.axes[team.axis.0 as usize] = i as i64;
        }
        self.together(body)
    }

    /// Runs `f` as each worker.
    fn each<T>(&mut self, mut f: impl FnMut(&mut Self) -> Step<T>) -> Step<Vec<T>> {
        let mut out = vec![];
        for i in 0..self.others.len() {
            self.swap(i);
            self.mem.begin_worker(i as u64);
            let done = f(self);
            self.swap(i);
            out.push(done?);
        }
        Ok(out)
    }

    fn swap(&mut self, i: usize) {
        let w = &mut self.others[i];
        std::mem::swap(&mut self.regs, &mut w.regs);
        std::mem::swap(&mut self.axes, &mut w.axes);
        std::mem::swap(&mut self.tiles, &mut w.tiles);
    }

    /// What all workers find there; they have to agree where they wait for one another.
    fn agreed(&mut self, s: Scalar) -> Step<i64> {
        let at = |e| ("a team".to_string(), e);
        let all = self.each(|m| m.scalar(s).map_err(at))?;
        match all.iter().all(|x| *x == all[0]) {
            true => Ok(all[0]),
            false => Err(at("workers that wait for one another go apart".into())),
        }
    }

    fn together(&mut self, body: &[Stmt]) -> Step<()> {
        for s in body {
            match s {
                s if !waits(s) => {
                    self.each(|m| m.stmts(std::slice::from_ref(s)))?;
                }
                Stmt::Inst(_) => self.mem.barrier(),
                Stmt::For { axis, extent, body, .. } => {
                    for x in 0..self.agreed(*extent)? {
                        for w in &mut self.others {
                            w.axes[axis.0 as usize] = x;
                        }
                        self.together(body)?;
                    }
                }
                Stmt::If { cond, then, els } => {
                    let (a, b) = (self.agreed(cond.a)?, self.agreed(cond.b)?);
                    let taken = eval::cmp(cond.op, Elem::I64, a as u64, b as u64);
                    self.together(if taken { then } else { els })?;
                }
            }
        }
        Ok(())
    }
}
