//! Addresses: sums that are made once and kept while what they depend on stays.
//!
//! An address is a base (with each lane's part), terms in the order in which their variables get
//! values, and a constant that goes into the instruction. Every sum of the first so many terms is
//! remembered; before a loop, what its addresses have in common with the outside is made.

use super::ptx::Renderer;
use crate::kir::*;
use std::collections::HashMap;

/// Most sums that are made ahead of one loop.
const AHEAD: usize = 24;

/// How lanes differ in an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// All alike.
    None,
    /// So many bytes from lane to lane, of so many lanes.
    Step(Coef, u8),
    /// An index register, and bytes an index.
    Index(Reg, Coef),
    /// Bytes from one group of four threads to the next, and from thread to thread of one
    /// ([`super::tensor`]).
    Fragment(Coef, Coef),
}

/// A sum without its constant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    base: Base,
    lane: Lane,
    terms: Vec<(Var, Coef)>,
}

/// Sums made so far, by block of statements.
pub struct Sums {
    scopes: Vec<HashMap<Key, String>>,
    /// Depth of loops at which a register or axis last got its value; none as yet: not there.
    regs: Vec<Option<u32>>,
    axes: Vec<Option<u32>>,
    depth: u32,
}

/// The lane part of an instruction's address.
pub fn lane_of(k: &Kernel, i: &Inst) -> Lane {
    let step = |n: Coef, r: &Reg| match k.ty(*r).lanes {
        1 => Lane::None,
        lanes => Lane::Step(n, lanes),
    };
    match i {
        Inst::Load { dst: r, dtype, .. } | Inst::Store { src: r, dtype, .. } => {
            step((dtype.size() as i64).into(), r)
        }
        Inst::LoadStrided { dst: r, stride, .. } | Inst::StoreStrided { src: r, stride, .. } => {
            step(*stride, r)
        }
        Inst::Gather { idx, stride, .. } => Lane::Index(*idx, *stride),
        _ => Lane::None,
    }
}

impl Sums {
    /// Nothing has a value but the grid's axes.
    pub fn new(k: &Kernel) -> Sums {
        let mut axes = vec![None; k.axes.len()];
        let fixed = k.grid.iter().map(|g| g.axis).chain(k.team.map(|t| t.axis));
        fixed.for_each(|a| axes[a.0 as usize] = Some(0));
        Sums { scopes: vec![HashMap::new()], regs: vec![None; k.regs.len()], axes, depth: 0 }
    }

    fn since(&self, v: Var) -> Option<u32> {
        match v {
            Var::One => Some(0),
            Var::Axis(a) => self.axes[a.0 as usize],
            Var::Reg(r) => self.regs[r.0 as usize],
        }
    }

    /// A register got a value: sums with the old one are worth nothing.
    pub fn assigned(&mut self, r: Reg) {
        if self.regs[r.0 as usize].is_some() {
            self.forget(&|v| v == Var::Reg(r));
        }
        self.regs[r.0 as usize] = Some(self.depth);
    }

    fn forget(&mut self, gone: &dyn Fn(Var) -> bool) {
        let lane = |l: &Lane| matches!(l, Lane::Index(r, _) if gone(Var::Reg(*r)));
        for s in &mut self.scopes {
            s.retain(|k, _| !lane(&k.lane) && !k.terms.iter().any(|t| gone(t.0)));
        }
    }

    /// Opens a block.
    pub fn open(&mut self) {
        self.scopes.push(HashMap::new());
    }

    /// Closes the innermost block.
    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Enters a loop over `axis` that assigns `regs`.
    pub fn enter(&mut self, axis: AxisId, regs: &[Reg]) {
        self.forget(&|v| matches!(v, Var::Reg(r) if regs.contains(&r)) || v == Var::Axis(axis));
        self.depth += 1;
        self.axes[axis.0 as usize] = Some(self.depth);
        // What the loop assigns is of the loop, also before it does so.
        for r in regs {
            if let Some(at) = &mut self.regs[r.0 as usize] {
                *at = self.depth;
            }
        }
        self.open();
    }

    /// Leaves it.
    pub fn leave(&mut self, axis: AxisId) {
        self.close();
        self.axes[axis.0 as usize] = None;
        self.depth -= 1;
        let depth = self.depth;
        self.regs.iter_mut().flatten().for_each(|d| *d = (*d).min(depth));
    }
}

impl Renderer<'_> {
    /// Registers of an address, and the constant beside it.
    pub(super) fn address(&mut self, a: &Addr, lane: Lane) -> (String, i64) {
        let mut terms = a.at.terms.clone();
        terms.sort_by_key(|t| (self.sums.since(t.0), *t));
        let small = i32::try_from(a.at.offset).is_ok();
        let sum = self.sum(Key { base: a.base, lane, terms });
        if small {
            return (sum, a.at.offset);
        }
        let far = self.temp(Elem::I64);
        self.line(format!("add.s64 {far}, {sum}, {}", a.at.offset));
        (far, 0)
    }

    /// The register that holds a sum.
    fn sum(&mut self, key: Key) -> String {
        let mut have = key.terms.len();
        let mut prefix = key.clone();
        let mut at = loop {
            let found = self.sums.scopes.iter().rev().find_map(|s| s.get(&prefix)).cloned();
            if let Some(r) = found {
                break r;
            }
            if prefix.terms.pop().is_none() {
                let r = self.origin(&key);
                self.remember(prefix.clone(), &r);
                break r;
            }
            have -= 1;
        };
        for (v, c) in &key.terms[have..] {
            at = self.plus(&at, *v, *c);
            prefix.terms.push((*v, *c));
            self.remember(prefix.clone(), &at);
        }
        at
    }

    fn remember(&mut self, key: Key, r: &str) {
        let scope = self.sums.scopes.last_mut().expect("a block is open");
        scope.insert(key, r.to_string());
    }

    /// The base and each lane's part.
    fn origin(&mut self, key: &Key) -> String {
        let base = match key.base {
            Base::Param(p) => self.param(p),
            Base::Scratch => "%scratch".to_string(),
        };
        match key.lane {
            Lane::None => base,
            Lane::Step(c, lanes) => {
                let lane = self.lane(lanes);
                self.scaled(&base, &lane, Elem::I32, c)
            }
            Lane::Fragment(group, one) => {
                self.fragments = true;
                let at = self.scaled(&base, "%group", Elem::I32, group);
                self.scaled(&at, "%member", Elem::I32, one)
            }
            Lane::Index(r, c) => {
                let (name, e) = (self.reg(r), self.k.ty(r).elem);
                self.scaled(&base, &name, e, c)
            }
        }
    }

    /// `at + x × coef`, for an integer of 32 or 64 bits.
    fn scaled(&mut self, at: &str, x: &str, e: Elem, c: Coef) -> String {
        let out = self.temp(Elem::I64);
        match (e, c.param) {
            (Elem::I32, None) if i32::try_from(c.mul).is_ok() => {
                self.line(format!("mad.wide.s32 {out}, {x}, {}, {at}", c.mul));
            }
            (_, param) => {
                let wide = match e {
                    Elem::I32 => {
                        let w = self.temp(Elem::I64);
                        self.line(format!("cvt.s64.s32 {w}, {x}"));
                        w
                    }
                    _ => x.to_string(),
                };
                let by = match param {
                    None => c.mul.to_string(),
                    Some(_) => self.coef(c),
                };
                self.line(format!("mad.lo.s64 {out}, {wide}, {by}, {at}"));
            }
        }
        out
    }

    /// `at + var × coef`.
    pub(super) fn plus(&mut self, at: &str, v: Var, c: Coef) -> String {
        let x = match v {
            Var::One => {
                let by = self.coef(c);
                let out = self.temp(Elem::I64);
                self.line(format!("add.s64 {out}, {at}, {by}"));
                return out;
            }
            Var::Axis(a) => self.axis(a),
            Var::Reg(r) => self.reg(r),
        };
        self.scaled(at, &x, Elem::I64, c)
    }

    /// Makes what the addresses of a loop's body have in common with the outside.
    pub(super) fn ahead(&mut self, body: &[Stmt], assigned: &[Reg], axis: AxisId) {
        let mut keys = vec![];
        self.common(body, assigned, axis, &mut keys);
        for key in keys {
            self.sum(key);
        }
    }

    fn common(&self, body: &[Stmt], assigned: &[Reg], axis: AxisId, keys: &mut Vec<Key>) {
        let there = |v: Var| match v {
            Var::Reg(r) if assigned.contains(&r) => false,
            Var::Axis(a) if a == axis => false,
            v => self.sums.since(v).is_some(),
        };
        for s in body {
            match s {
                Stmt::For { body, .. } => self.common(body, assigned, axis, keys),
                Stmt::If { then, els, .. } => {
                    self.common(then, assigned, axis, keys);
                    self.common(els, assigned, axis, keys);
                }
                Stmt::Inst(i) => {
                    let Some(a) = i.addr() else { continue };
                    let lane = self.fragment(i).unwrap_or_else(|| lane_of(self.k, i));
                    if matches!(lane, Lane::Index(r, _) if !there(Var::Reg(r))) {
                        continue;
                    }
                    let mut terms: Vec<_> =
                        a.at.terms.iter().copied().filter(|t| there(t.0)).collect();
                    terms.sort_by_key(|t| (self.sums.since(t.0), *t));
                    let key = Key { base: a.base, lane, terms };
                    if keys.len() < AHEAD && !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
        }
    }
}
