//! Addresses: strength reduction of affine expressions over the open loops.
//!
//! An address is split into a *key* (its terms but the constant offset and a small row multiple),
//! and each level of the loop nest keeps one pointer register per key that changes there: set from
//! the level above on entry, bumped once an iteration. A level at which a key does not change shares
//! the pointer of the level above, so inner loops hold only what moves in them, and outer pointers
//! are idle there and the first to move to the frame. Up to four row strides beyond a pointer use
//! an index register (×1, ×2, ×4, or a triple), so 14 rows need three pointers and two strides.

use super::lir::*;
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;
use std::collections::{HashMap, HashSet};

type Terms = Vec<(Var, Coef)>;
type Key = (Option<Base>, Terms);

/// A pointer that a level keeps.
#[derive(Debug)]
struct Ptr {
    v: V,
    /// What one iteration of the level's axis adds.
    steps: Vec<Coef>,
    /// Bytes not yet added, between unrolled copies.
    pending: i64,
}

/// One open loop (or the tile, at level 0).
#[derive(Debug, Default)]
pub(super) struct Level {
    axis: Option<AxisId>,
    assigned: HashSet<Reg>,
    ptrs: HashMap<Key, Ptr>,
    order: Vec<Key>,
    /// Row strides (`true`: three times) used directly in this level.
    rows: HashMap<(ParamId, bool), V>,
}

/// An affine expression taken apart.
struct Split {
    terms: Terms,
    /// A multiple 1..=4 of a row stride.
    row: Option<(ParamId, i64)>,
    offset: i64,
}

const GROUP: i64 = 5;

fn split(at: &Affine, fixed: &HashMap<AxisId, i64>) -> Split {
    let mut a = Affine::constant(at.offset);
    for (v, c) in &at.terms {
        match v {
            Var::Axis(x) if fixed.contains_key(x) => a.add_term(Var::One, c.times(fixed[x])),
            _ => a.add_term(*v, *c),
        }
    }
    let mut row = None;
    if let Some(i) = a.terms.iter().position(|(v, _)| *v == Var::One) {
        let c = a.terms[i].1;
        let p = c.param.expect("a constant term is part of the offset");
        let rest = c.mul.rem_euclid(GROUP);
        if rest != 0 {
            a.add_term(Var::One, Coef { mul: -rest, param: Some(p) });
            row = Some((p, rest));
        }
    }
    Split { terms: a.terms, row, offset: a.offset }
}

/// Calls `f` with every affine expression of `stmts` taken apart, as many times as unrolling will
/// repeat it; `direct` says that no loop that stays a loop lies between.
fn scan(
    stmts: &[Stmt],
    fixed: &mut HashMap<AxisId, i64>,
    direct: bool,
    f: &mut dyn FnMut(Option<Base>, Split, bool),
) {
    for s in stmts {
        match s {
            Stmt::Inst(i) => {
                if let Some(at) = i.affine() {
                    f(i.addr().map(|a| a.base), split(at, fixed), direct)
                }
            }
            Stmt::If { then, els, .. } => {
                scan(then, fixed, direct, f);
                scan(els, fixed, direct, f);
            }
            Stmt::For { axis, extent, unroll, body } => match unrolled(*extent, *unroll) {
                Some(n) => {
                    for j in 0..n {
                        fixed.insert(*axis, j);
                        scan(body, fixed, direct, f);
                    }
                    fixed.remove(axis);
                }
                None => scan(body, fixed, false, f),
            },
        }
    }
}

/// Iterations of a loop that disappears by unrolling.
pub(super) fn unrolled(extent: Scalar, unroll: u32) -> Option<i64> {
    match extent {
        Scalar::Const(n) if n <= (unroll as i64).max(1) => Some(n.max(0)),
        _ => None,
    }
}

impl Sel<'_> {
    fn stable(&self, level: usize, v: Var) -> bool {
        match v {
            Var::One => true,
            Var::Axis(x) => {
                self.grid.contains_key(&x)
                    || self.levels[1..=level].iter().any(|l| l.axis == Some(x))
            }
            Var::Reg(r) => !self.levels[level].assigned.contains(&r),
        }
    }

    fn stable_part(&self, level: usize, terms: &Terms) -> Terms {
        terms.iter().filter(|t| self.stable(level, t.0)).copied().collect()
    }

    /// Terms that are stable at `level` but not above it.
    fn new_at(&self, level: usize, terms: &Terms) -> Terms {
        let new = |v: Var| match v {
            Var::Axis(x) => self.levels[level].axis == Some(x),
            Var::Reg(_) => !self.stable(level - 1, v),
            Var::One => false,
        };
        terms.iter().filter(|t| new(t.0)).copied().collect()
    }

    /// The pointer for stable terms, as register and bytes to add; `None` is the number 0.
    fn find(&self, level: usize, base: Option<Base>, terms: &Terms) -> (Option<V>, i64) {
        if level > 0 && self.new_at(level, terms).is_empty() {
            return self.find(level - 1, base, &self.stable_part(level - 1, terms));
        }
        match self.levels[level].ptrs.get(&(base, terms.clone())) {
            Some(p) => (Some(p.v), p.pending),
            None => {
                assert!(base.is_none() && terms.is_empty(), "a pointer was not prepared");
                (None, 0)
            }
        }
    }

    /// Opens a level for `body`: makes its pointers.
    pub fn open_level(&mut self, axis: Option<AxisId>, body: &[Stmt]) {
        let mut assigned = HashSet::new();
        assigned_in(body, &mut assigned);
        self.levels.push(Level { axis, assigned, ..Level::default() });
        let level = self.levels.len() - 1;
        let (mut keys, mut rows): (Vec<Key>, Vec<(ParamId, bool)>) = (vec![], vec![]);
        let mut seen = HashSet::new();
        let mut fixed = self.fixed.clone();
        scan(body, &mut fixed, true, &mut |base, s, direct| {
            let key = (base, self.stable_part(level, &s.terms));
            if seen.insert(key.clone()) {
                keys.push(key);
            }
            if let (true, Some((p, n))) = (direct, s.row)
                && !rows.contains(&(p, n == 3))
            {
                rows.push((p, n == 3));
            }
        });
        for (base, terms) in keys {
            self.prepare(level, base, terms);
        }
        for (p, triple) in rows {
            let v = self.gpr();
            self.mov_load(v, self.param_mem(p));
            if triple {
                let m = Mem { index: Some((v, 2)), ..Mem::at(v, 0) };
                self.op(Code::Lea_r64_m, &[def(v, W::B64), Op::M(m)]);
            }
            self.levels[level].rows.insert((p, triple), v);
        }
    }

    fn prepare(&mut self, level: usize, base: Option<Base>, terms: Terms) {
        let new = if level == 0 { terms.clone() } else { self.new_at(level, &terms) };
        if (level > 0 && new.is_empty()) || (base.is_none() && terms.is_empty()) {
            return;
        }
        let v = self.gpr();
        if level == 0 {
            match base {
                Some(Base::Param(p)) => self.mov_load(v, self.param_mem(p)),
                Some(Base::Scratch) => self.mov_load(v, Mem::frame(SCRATCH)),
                None => self.mov_imm(v, 0),
            }
        } else {
            let (up, pending) = self.find(level - 1, base, &self.stable_part(level - 1, &terms));
            match up {
                Some(u) => self.lea(v, u, pending),
                None => self.mov_imm(v, pending),
            }
        }
        let axis = self.levels[level].axis;
        let mut steps = vec![];
        for (var, c) in new {
            match var {
                Var::Axis(x) if level > 0 && axis == Some(x) => steps.push(c),
                _ => self.add_scaled(v, var, c),
            }
        }
        let key = (base, terms);
        self.levels[level].order.push(key.clone());
        self.levels[level].ptrs.insert(key, Ptr { v, steps, pending: 0 });
    }

    /// Closes the innermost level.
    pub fn close_level(&mut self) {
        self.levels.pop();
    }

    /// After one copy of the body: constant steps wait, the others are added now.
    pub fn step_copy(&mut self) {
        self.step(|ptr, c| {
            if c.param.is_none() {
                ptr.pending += c.mul;
            }
            c.param.is_some()
        });
    }

    /// Adds what waits.
    pub fn flush_steps(&mut self) {
        let level = self.levels.len() - 1;
        for key in self.levels[level].order.clone() {
            let p = self.levels[level].ptrs.get_mut(&key).expect("keys and order agree");
            let (v, n) = (p.v, std::mem::take(&mut p.pending));
            self.add_imm(v, n);
        }
    }

    /// Forgets what waits, where control leaves the loop.
    pub fn drop_steps(&mut self) {
        for p in self.levels.last_mut().expect("a loop is open").ptrs.values_mut() {
            p.pending = 0;
        }
    }

    fn step(&mut self, mut now: impl FnMut(&mut Ptr, Coef) -> bool) {
        let level = self.levels.len() - 1;
        for key in self.levels[level].order.clone() {
            let p = self.levels[level].ptrs.get_mut(&key).expect("keys and order agree");
            let v = p.v;
            let due: Vec<Coef> = p.steps.clone().into_iter().filter(|c| now(p, *c)).collect();
            for c in due {
                self.add_scaled(v, Var::One, c);
            }
        }
    }

    /// `v += var × coef`
    fn add_scaled(&mut self, v: V, var: Var, c: Coef) {
        let add = Code::Add_r64_rm64;
        match (var, c.param, c.mul) {
            (Var::One, Some(p), 1) => {
                let m = self.param_mem(p);
                self.op(add, &[modify(v, W::B64), Op::M(m)])
            }
            (Var::One, None, n) => self.add_imm(v, n),
            _ => {
                let t = self.scaled(var, c);
                self.op(add, &[modify(v, W::B64), use_(t, W::B64)])
            }
        }
    }

    /// `var × coef` in a new register.
    fn scaled(&mut self, var: Var, c: Coef) -> V {
        let t = self.gpr();
        match var {
            Var::One => self.mov_imm(t, 1),
            Var::Axis(x) => {
                let g = self.grid[&x];
                self.mov(t, g)
            }
            Var::Reg(r) => {
                let s = self.src(r).expect("an i64 scalar has a register");
                self.mov(t, s)
            }
        }
        match (var, c.param) {
            (Var::One, Some(p)) => self.mov_load(t, self.param_mem(p)),
            (_, Some(p)) => {
                let m = self.param_mem(p);
                self.op(Code::Imul_r64_rm64, &[modify(t, W::B64), Op::M(m)])
            }
            _ => {}
        }
        self.mul_imm(t, c.mul);
        t
    }

    /// A memory operand for an address, in the current level.
    pub fn mem(&mut self, a: &Addr) -> Res<Mem> {
        Ok(self.resolve(Some(a.base), &a.at))
    }

    fn resolve(&mut self, base: Option<Base>, at: &Affine) -> Mem {
        let s = split(at, &self.fixed);
        let level = self.levels.len() - 1;
        let stable = self.stable_part(level, &s.terms);
        let (v, pending) = self.find(level, base, &stable);
        let mut disp = s.offset.wrapping_add(pending);
        let mut base = v;
        let mut index = s.row.map(|(p, n)| {
            let r = self.levels[level].rows[&(p, n == 3)];
            (r, if n == 3 { 1 } else { n as u8 })
        });
        let moving: Terms = s.terms.iter().filter(|t| !self.stable(level, t.0)).copied().collect();
        for (var, c) in &moving {
            let (x, scale) = match (var, c) {
                (Var::Reg(r), Coef { mul: mul @ (1 | 2 | 4 | 8), param: None }) => {
                    (self.src(*r).expect("an i64 scalar has a register"), *mul as u8)
                }
                _ => (self.scaled(*var, *c), 1),
            };
            if let Some(full) = index {
                base = Some(self.lea_sum(base, full));
            }
            index = Some((x, scale));
        }
        if i32::try_from(disp).is_err() {
            let t = self.gpr();
            self.mov_imm(t, disp);
            if let Some(full) = index {
                base = Some(self.lea_sum(base, full));
            }
            (index, disp) = (Some((t, 1)), 0);
        }
        let base = match base {
            Some(v) => v,
            None => {
                let z = self.gpr();
                self.mov_imm(z, 0);
                z
            }
        };
        Mem { base: MBase::V(base), index, disp, bcast: false }
    }

    fn lea_sum(&mut self, base: Option<V>, index: (V, u8)) -> V {
        let t = self.gpr();
        let b = match base {
            Some(b) => b,
            None => {
                self.mov_imm(t, 0);
                t
            }
        };
        let m = Mem { index: Some(index), ..Mem::at(b, 0) };
        self.op(Code::Lea_r64_m, &[def(t, W::B64), Op::M(m)]);
        t
    }

    /// The value of an affine expression in `d`.
    pub fn index_value(&mut self, d: V, at: &Affine) {
        if at.terms.is_empty() {
            return self.mov_imm(d, at.offset);
        }
        let m = self.resolve(None, at);
        match (m.base, m.index, m.disp) {
            (MBase::V(v), None, 0) => self.mov(d, v),
            _ => self.op(Code::Lea_r64_m, &[def(d, W::B64), Op::M(m)]),
        }
    }
}

fn assigned_in(stmts: &[Stmt], out: &mut HashSet<Reg>) {
    for s in stmts {
        match s {
            Stmt::Inst(i) => out.extend(i.dst()),
            Stmt::For { body, .. } => assigned_in(body, out),
            Stmt::If { then, els, .. } => {
                assigned_in(then, out);
                assigned_in(els, out);
            }
        }
    }
}
