//! The context of a lowering: the kernel under construction, its parameters and how the plan fills
//! them, loop indices, and the memory of values already made.

use super::coord::{Atom, AtomData, Coord};
use super::memo::Memo;
use crate::kir::{
    Access, Addr, AxisId, Base, Coef, Cond, Elem, Kernel, KernelBuilder, ParamId, ParamKind, Reg,
    RegTy, Scalar, Stmt, Var,
};
use crate::target::Target;
use crate::task::{Lowered, Refused, Task, TaskArg, Which};
use hub_abi::{Dim, SymEnv};
use std::collections::{BTreeSet, HashMap};

/// Why an attempt at a kernel failed.
#[derive(Clone, PartialEq, Debug)]
pub enum Fail {
    /// 64-bit registers are needed: try again with half the lanes.
    Narrow,
    /// It cannot be done.
    Refused(Refused),
}

/// What a step of a lowering gives.
pub type Made<T = ()> = Result<T, Fail>;

impl From<Refused> for Fail {
    fn from(r: Refused) -> Fail {
        Fail::Refused(r)
    }
}

/// No native kernel for this.
pub fn unsupported<T>(what: impl Into<String>) -> Made<T> {
    Err(Fail::Refused(Refused::Unsupported(what.into())))
}

/// One access to an operand, as a byte offset from its origin.
#[derive(Clone, PartialEq, Debug)]
pub struct AccessNote {
    /// The operand.
    pub which: Which,
    /// The value's coordinates.
    pub coords: Vec<Coord>,
    /// Bytes from the operand's origin.
    pub bytes: Coord,
}

/// What a dry run finds out.
#[derive(Clone, Default, Debug)]
pub struct Notes {
    /// Loads and stores.
    pub accesses: Vec<AccessNote>,
    /// Atoms used other than linearly in addresses; they cannot be merged with others.
    pub pinned: BTreeSet<Atom>,
    /// Something reports a status (a checked index, an integer division): lanes past the end must
    /// be masked.
    pub traps: bool,
    /// Positions in a row's elements at which values were asked for.
    pub positions: Vec<Vec<Coord>>,
}

/// Where a value lies: an address, bytes from lane to lane, and per-lane indices.
pub struct Located {
    /// Of lane 0.
    pub addr: Addr,
    /// Bytes from lane to lane.
    pub step: Dim,
    /// Per-lane index register and the bytes that one index is worth.
    pub lane: Option<(Reg, Coef)>,
}

/// A kernel under construction.
pub struct LowerCx<'t> {
    /// The kernel.
    pub b: KernelBuilder,
    /// What is lowered.
    pub task: &'t Task<'t>,
    /// For what machine.
    pub target: &'t Target,
    /// Lanes of the vector axis.
    pub lanes: usize,
    /// What was accessed and how.
    pub notes: Notes,
    /// Lanes that exist, where not all do (a tail).
    pub active: Option<Reg>,
    /// Registers that stand for loads of an operand at a byte offset from its origin.
    pub preloaded: HashMap<(Which, Coord), Reg>,
    args: HashMap<ParamId, TaskArg>,
    sizes: HashMap<Dim, ParamId>,
    ptrs: HashMap<Which, (ParamId, Dim)>,
    written: Vec<Which>,
    atoms: Vec<AtomData>,
    pub(super) memo: Memo,
}

impl<'t> LowerCx<'t> {
    /// An empty kernel whose vector axis has `lanes` lanes.
    pub fn new(task: &'t Task<'t>, target: &'t Target, name: &str, lanes: usize) -> LowerCx<'t> {
        LowerCx {
            b: KernelBuilder::new(name),
            task,
            target,
            lanes,
            notes: Notes::default(),
            active: None,
            preloaded: HashMap::new(),
            args: HashMap::new(),
            sizes: HashMap::new(),
            ptrs: HashMap::new(),
            written: vec![],
            atoms: vec![],
            memo: Memo::default(),
        }
    }

    // ---- sizes

    /// A dimension as a coefficient: constants inline, others as (shared) size params.
    pub fn coef(&mut self, d: &Dim) -> Coef {
        match d.as_const() {
            Some(k) => k.into(),
            None => self.size(d).into(),
        }
    }

    /// A dimension as a loop extent or bound.
    pub fn scalar(&mut self, d: &Dim) -> Scalar {
        match d.as_const() {
            Some(k) => k.into(),
            None => self.size(d).into(),
        }
    }

    fn size(&mut self, d: &Dim) -> ParamId {
        if let Some(&p) = self.sizes.get(d) {
            return p;
        }
        let p = self.b.size(format!("n{}", self.sizes.len()));
        self.sizes.insert(d.clone(), p);
        self.args.insert(p, TaskArg::Size(d.clone()));
        p
    }

    /// A grid axis of `extent` tiles; the first one made is outermost.
    pub fn grid(&mut self, name: &str, extent: &Dim) -> AxisId {
        let c = self.coef(extent);
        self.b.grid(name, c)
    }

    /// A typical value: constants themselves, symbols at 64 (or their nearest bound).
    pub fn estimate(&self, d: &Dim) -> i64 {
        let mut env = SymEnv::default();
        d.each_sym(&mut |s| {
            let known = self.task.g.syms.get(s.0 as usize);
            env.set(s, known.map_or(64, |i| 64.clamp(i.min, i.max.max(i.min))));
        });
        d.eval(&env).unwrap_or(i64::MAX / 2)
    }

    /// Inclusive bounds of a dimension under its symbols' bounds.
    pub fn bounds(&self, d: &Dim) -> (i64, i64) {
        d.bounds(&self.task.g.syms)
    }

    // ---- pointers

    /// The pointer param of an operand and the bytes from it to the operand's origin.
    pub fn ptr(&mut self, of: Which) -> (ParamId, Dim) {
        if let Some(p) = self.ptrs.get(&of) {
            return p.clone();
        }
        let (lo, extent) = self.operand(of).span();
        let p = self.ptr_range(of, lo.clone(), extent);
        let at = (p, lo.times(-1));
        self.ptrs.insert(of, at.clone());
        at
    }

    /// A pointer param of its own for a range of an operand (a halo, a border): `offset` bytes from
    /// the origin, `extent` bytes.
    pub fn ptr_range(&mut self, of: Which, offset: Dim, extent: Dim) -> ParamId {
        let (access, name) = match of {
            Which::In(i) => (Access::Read, format!("in{i}")),
            Which::Out(i) if self.written.contains(&of) => (Access::ReadWrite, format!("out{i}")),
            Which::Out(i) => (Access::Write, format!("out{i}")),
        };
        let p = self.b.ptr(name, self.operand(of).dtype, access);
        self.args.insert(p, TaskArg::Ptr { of, offset, extent });
        p
    }

    /// Makes [`LowerCx::ptr`] of an operand use a param and origin made with
    /// [`LowerCx::ptr_range`].
    pub fn set_ptr(&mut self, of: Which, p: ParamId, origin: Dim) {
        self.ptrs.insert(of, (p, origin));
    }

    /// An output will be read back too; to be said before its pointer is asked for.
    pub fn reads_back(&mut self, of: Which) {
        self.written.push(of);
    }

    /// The operand.
    pub fn operand(&self, of: Which) -> &'t crate::task::Operand {
        let task = self.task;
        match of {
            Which::In(i) => &task.inputs[i],
            Which::Out(i) => &task.outputs[i],
        }
    }

    // ---- loop indices

    /// A loop index.
    pub fn atom(&mut self, a: AtomData) -> Atom {
        self.atoms.push(a);
        Atom(self.atoms.len() as u32 - 1)
    }

    /// What an atom is.
    pub fn atom_data(&self, a: Atom) -> &AtomData {
        &self.atoms[a.0 as usize]
    }

    /// The same in every lane?
    pub fn is_uniform(&self, c: &Coord) -> bool {
        c.terms.iter().all(|(a, _)| self.atom_data(*a).is_uniform())
    }

    /// Greatest value of a coordinate over its atoms (coefficients taken not to be negative).
    pub fn greatest(&self, c: &Coord) -> Dim {
        let mut hi = c.konst.clone();
        for (a, k) in &c.terms {
            hi = hi.add(&self.atom_data(*a).extent.plus(-1).mul(k));
        }
        hi
    }

    /// Terms `(variable, coefficient)` of a coordinate's part that is the same in every lane, its
    /// constant, and its increase from lane to lane.
    pub fn expand(&self, c: &Coord) -> (Vec<(Var, Dim)>, Dim, Dim) {
        let (mut terms, mut konst, mut step) = (vec![], c.konst.clone(), Dim::from(0i64));
        for (a, k) in &c.terms {
            let data = self.atom_data(*a);
            terms.extend(data.at.iter().map(|(v, d)| (*v, d.mul(k))));
            konst = konst.add(&data.konst.mul(k));
            step = step.add(&k.times(data.step));
        }
        (terms, konst, step)
    }

    /// A byte address `base + c`.
    pub fn address(&mut self, base: Base, c: &Coord) -> (Addr, Dim) {
        let (terms, konst, step) = self.expand(c);
        let mut addr = Addr { base, at: Default::default() };
        for (v, d) in terms {
            let k = self.coef(&d);
            addr = addr.plus(v, k);
        }
        let k = self.coef(&konst);
        (addr.plus(Var::One, k), step)
    }

    /// Where element `coords` of an operand lies.
    pub fn locate(&mut self, of: Which, coords: &[Coord], lanes: usize) -> Made<Located> {
        let bytes = self.byte_offset(of, coords);
        let note = AccessNote { which: of, coords: coords.to_vec(), bytes: bytes.clone() };
        self.notes.accesses.push(note);
        let (p, origin) = self.ptr(of);
        let (addr, step) = self.address(Base::Param(p), &bytes.plus(&origin));
        let lane = self.lane_index(&bytes, &step, lanes)?;
        Ok(Located { addr, step, lane })
    }

    /// Bytes from an operand's origin to element `coords`.
    pub fn byte_offset(&self, of: Which, coords: &[Coord]) -> Coord {
        let op = self.operand(of);
        let size = op.dtype.size() as i64;
        let each = coords.iter().zip(&op.strides).map(|(c, s)| c.times(&s.times(size)));
        each.fold(Coord::zero(), |a, c| a.add(&c))
    }

    /// Per-lane part of a byte offset that is not `step × lane`, as an index register.
    fn lane_index(&mut self, c: &Coord, step: &Dim, lanes: usize) -> Made<Option<(Reg, Coef)>> {
        let mut terms: Vec<(Reg, Dim)> = vec![];
        for (a, k) in &c.terms {
            if let Some(r) = self.atom_data(*a).lane {
                terms.push((r, k.clone()));
            }
        }
        if terms.is_empty() {
            return Ok(None);
        }
        if let ([(r, k)], true) = (&terms[..], step.is(0)) {
            let k = self.coef(k);
            return Ok(Some((*r, k)));
        }
        let ty = self.vector(Elem::I64, lanes)?;
        let mut sum = if step.is(0) { None } else { Some(self.lane_steps(step, ty)) };
        for (r, k) in terms {
            let wide = if self.b.ty(r) == ty { r } else { self.b.cvt(r, Elem::I64) };
            let k = self.splat_dim(&k, ty);
            let part = self.b.mul(wide, k);
            sum = Some(sum.map_or(part, |s| self.b.add(s, part)));
        }
        Ok(sum.map(|r| (r, Coef::from(1))))
    }

    /// `step × lane` in every lane.
    pub fn lane_steps(&mut self, step: &Dim, ty: RegTy) -> Reg {
        let lane = self.b.iota(ty);
        if step.is(1) {
            return lane;
        }
        let k = self.splat_dim(step, ty);
        self.b.mul(lane, k)
    }

    /// A dimension in every lane of an integer register (32-bit registers keep the low bits).
    pub fn splat_dim(&mut self, d: &Dim, ty: RegTy) -> Reg {
        if let Some(k) = d.as_const() {
            return self.b.const_i(ty, k);
        }
        let k = self.coef(d);
        let r = self.b.index(crate::kir::Affine::default().plus(Var::One, k));
        self.splat_index(r, ty)
    }

    /// An i64 scalar in every lane of a register of another element and number of lanes.
    pub fn splat_index(&mut self, r: Reg, ty: RegTy) -> Reg {
        let r = if ty.elem == Elem::I64 { r } else { self.b.cvt(r, ty.elem) };
        if ty.is_scalar() { r } else { self.b.splat(r, ty.lanes as usize) }
    }

    /// A register type of so many lanes, if it fits a vector register (which on a warp is a register
    /// a thread, however wide).
    pub fn vector(&self, elem: Elem, lanes: usize) -> Made<RegTy> {
        if self.target.own_core && lanes > 1 && lanes * elem.size() > self.target.vector_bytes {
            return Err(Fail::Narrow);
        }
        Ok(RegTy::new(elem, lanes))
    }

    /// A coordinate as an integer register: `I64` scalar, or per lane.
    pub fn index_reg(&mut self, c: &Coord, ty: RegTy) -> Made<Reg> {
        self.notes.pinned.extend(c.terms.iter().map(|t| t.0));
        let (terms, konst, step) = self.expand(c);
        let mut at = crate::kir::Affine::default();
        for (v, d) in terms {
            let k = self.coef(&d);
            at = at.plus(v, k);
        }
        let k = self.coef(&konst);
        let scalar = self.b.index(at.plus(Var::One, k));
        let mut out = self.splat_index(scalar, ty);
        if ty.is_scalar() {
            return Ok(out);
        }
        if !step.is(0) {
            let steps = self.lane_steps(&step, ty);
            out = self.b.add(out, steps);
        }
        for (a, k) in &c.terms {
            let Some(lane) = self.atom_data(*a).lane else { continue };
            let lane = if self.b.ty(lane) == ty { lane } else { self.b.cvt(lane, ty.elem) };
            let k = self.splat_dim(k, ty);
            let part = self.b.mul(lane, k);
            out = self.b.add(out, part);
        }
        Ok(out)
    }

    // ---- control

    /// Statements that `f` makes, not appended; what it remembers is forgotten.
    fn block(&mut self, f: impl FnOnce(&mut Self) -> Made) -> Made<Vec<Stmt>> {
        let mut b = std::mem::replace(&mut self.b, KernelBuilder::new(""));
        let mut result = Ok(());
        let stmts = b.block(|b| {
            std::mem::swap(&mut self.b, b);
            result = self.scope(f);
            std::mem::swap(&mut self.b, b);
        });
        self.b = b;
        result.map(|()| stmts)
    }

    /// `for axis in 0..extent`.
    pub fn for_(
        &mut self,
        name: &str,
        extent: impl Into<Scalar>,
        unroll: u32,
        f: impl FnOnce(&mut Self, AxisId) -> Made,
    ) -> Made {
        let mut b = std::mem::replace(&mut self.b, KernelBuilder::new(""));
        let mut result = Ok(());
        b.for_(name, extent, unroll, |b, axis| {
            std::mem::swap(&mut self.b, b);
            result = self.scope(|cx| f(cx, axis));
            std::mem::swap(&mut self.b, b);
        });
        self.b = b;
        result
    }

    /// `if cond { then } else { els }`.
    pub fn if_else(
        &mut self,
        cond: Cond,
        then: impl FnOnce(&mut Self) -> Made,
        els: impl FnOnce(&mut Self) -> Made,
    ) -> Made {
        let then = self.block(then)?;
        let els = self.block(els)?;
        self.b.push(Stmt::If { cond, then, els });
        Ok(())
    }

    /// `if cond { then }`.
    pub fn if_(&mut self, cond: Cond, then: impl FnOnce(&mut Self) -> Made) -> Made {
        self.if_else(cond, then, |_| Ok(()))
    }

    /// The kernel with its arguments; tiles, work and schedule as given.
    pub fn finish(self, work: Work, schedule: String) -> Lowered {
        let budget = self.target.vector_regs / 3;
        self.hoisted(work, schedule, [budget; 2])
    }

    /// As [`LowerCx::finish`] where register tiles lie in loops: vectors are lifted out of innermost
    /// loops only.
    pub fn finish_inner(self, work: Work, schedule: String) -> Lowered {
        let budget = self.target.vector_regs / 3;
        self.hoisted(work, schedule, [budget, 0])
    }

    fn hoisted(self, work: Work, schedule: String, budget: [usize; 2]) -> Lowered {
        let mut kernel: Kernel = self.b.finish();
        super::hoist::hoist(&mut kernel, budget);
        let arg = |(i, p): (usize, &crate::kir::Param)| match p.kind {
            ParamKind::Status => TaskArg::Status,
            _ => self.args[&ParamId(i as u32)].clone(),
        };
        let args = kernel.params.iter().enumerate().map(arg).collect();
        let Work { tiles, flops, bytes } = work;
        Lowered { kernel, args, tiles, flops, bytes, schedule }
    }
}

/// What a kernel does, for the plan.
#[derive(Clone, PartialEq, Debug)]
pub struct Work {
    /// Product of the grid's extents.
    pub tiles: Dim,
    /// Arithmetic operations of all tiles.
    pub flops: Dim,
    /// Bytes that must move at least once.
    pub bytes: Dim,
}
