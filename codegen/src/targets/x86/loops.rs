//! Control: the tile loop, loops with their unrolled copies, branches, and which loads may wait to
//! become memory operands.

use super::addr::unrolled;
use super::lir::*;
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;
use std::collections::HashMap;

impl Sel<'_> {
    /// The whole function: grid axes count like the digits of a clock, last axis fastest.
    pub fn tiles(&mut self) -> Res<()> {
        let (left, end) = (self.gpr(), self.label());
        self.mov_load(left, Mem::frame(END));
        let begin = Op::M(Mem::frame(BEGIN));
        self.op(Code::Sub_r64_rm64, &[modify(left, W::B64), begin]);
        self.jump(Code::Jle_rel32_64, end);
        self.first_tile();
        let top = self.label();
        self.place(top);
        self.depth = 1;
        let k = self.k;
        self.open_level(None, &k.body);
        self.stmts(&k.body)?;
        self.close_level();
        self.op(Code::Dec_rm64, &[modify(left, W::B64)]);
        self.jump(Code::Je_rel32_64, end);
        self.next_tile(top);
        self.depth = 0;
        self.place(end);
        if self.tiled {
            self.op(Code::VEX_Tilerelease, &[]);
        }
        Ok(())
    }

    fn first_tile(&mut self) {
        let k = self.k;
        let rest = self.gpr();
        self.mov_load(rest, Mem::frame(BEGIN));
        for (n, g) in k.grid.iter().enumerate().rev() {
            let v = self.gpr();
            self.grid.insert(g.axis, v);
            if n == 0 {
                self.mov(v, rest);
                break;
            }
            let ext = self.gpr();
            self.mov_scalar(ext, extent(g.extent));
            let (q, r) = (self.gpr(), self.gpr());
            self.item(Item::Div { dst: r, a: rest, b: ext, rem: true });
            self.item(Item::Div { dst: q, a: rest, b: ext, rem: false });
            self.mov(v, r);
            self.mov(rest, q);
        }
    }

    fn next_tile(&mut self, top: u32) {
        let k = self.k;
        for (n, g) in k.grid.iter().enumerate().rev() {
            let v = self.grid[&g.axis];
            self.add_imm(v, 1);
            if n > 0 {
                self.cmp_scalar(v, extent(g.extent));
                self.jump(Code::Jl_rel32_64, top);
                self.mov_imm(v, 0);
            }
        }
        self.jump(Code::Jmp_rel32_64, top);
    }

    pub fn stmts(&mut self, stmts: &[Stmt]) -> Res<()> {
        for (n, s) in stmts.iter().enumerate() {
            match s {
                Stmt::Inst(i) => {
                    if self.may_wait(i, &stmts[n + 1..]) {
                        let d = i.dst().expect("a load has a result");
                        self.deferred.insert(d, i.clone());
                    } else {
                        self.inst(i)?
                    }
                }
                Stmt::If { cond, then, els } => self.branch(cond, then, els)?,
                Stmt::For { axis, extent, unroll, body } => {
                    self.for_(*axis, *extent, *unroll, body)?
                }
            }
        }
        Ok(())
    }

    /// Whether a load can be the memory operand of its only use, which follows in `rest` before
    /// anything changes memory or the address.
    fn may_wait(&self, i: &Inst, rest: &[Stmt]) -> bool {
        let (dst, dtype) = match i {
            Inst::Load { dst, dtype, mask: None, .. } => (*dst, *dtype),
            Inst::LoadSplat { dst, dtype, .. } if self.wide && self.ty(*dst).lanes > 1 => {
                (*dst, *dtype)
            }
            _ => return false,
        };
        let t = self.ty(dst);
        let n = dst.0 as usize;
        let once = self.uses[n] == 1 && self.defs[n] == 1;
        let shape = !Sel::is_gpr(t) && (t.lanes > 1 || t.elem.is_float());
        if !once || !shape || dtype.size() != t.elem.size() {
            return false;
        }
        for s in rest {
            let Stmt::Inst(u) = s else { return false };
            let mut used = false;
            u.uses(|r| used |= r == dst);
            if used {
                let plain = match u {
                    Inst::Bin { op, .. } => !matches!(op, BinOp::Div) || t.elem.is_float(),
                    Inst::Fma { .. } | Inst::Dot2 { .. } => true,
                    _ => false,
                };
                return plain;
            }
            let moves = u.dst().is_some_and(|d| {
                i.affine().is_some_and(|a| a.terms.iter().any(|t| t.0 == Var::Reg(d)))
            });
            if u.writes_memory() || moves {
                return false;
            }
        }
        false
    }

    fn branch(&mut self, c: &Cond, then: &[Stmt], els: &[Stmt]) -> Res<()> {
        let (no, end) = (self.label(), self.label());
        let a = self.gpr();
        self.mov_scalar(a, c.a);
        self.cmp_scalar(a, c.b);
        self.jump(not_taken(c.op), no);
        self.stmts(then)?;
        if !els.is_empty() {
            self.jump(Code::Jmp_rel32_64, end);
        }
        self.place(no);
        self.stmts(els)?;
        self.place(end);
        Ok(())
    }

    /// One copy of a loop body: registers that live only within one iteration are new in each.
    fn copy(&mut self, locals: &[Reg], body: &[Stmt]) -> Res<()> {
        for r in locals {
            self.map[r.0 as usize] = None;
        }
        self.stmts(body)
    }

    fn for_(&mut self, axis: AxisId, ext: Scalar, unroll: u32, body: &[Stmt]) -> Res<()> {
        let locals = self.locals(body);
        if let Some(n) = unrolled(ext, unroll) {
            for j in 0..n {
                self.fixed.insert(axis, j);
                self.copy(&locals, body)?;
            }
            self.fixed.remove(&axis);
            return Ok(());
        }
        let copies = unroll.max(1) as i64;
        self.pin(ext, body)?;
        self.open_level(Some(axis), body);
        let left = self.gpr();
        match ext {
            Scalar::Const(n) => {
                self.mov_imm(left, n / copies);
                self.depth += 1;
                self.main_loop(left, 1, copies, &locals, body)?;
                self.depth -= 1;
                for _ in 0..n % copies {
                    self.copy(&locals, body)?;
                    self.step_copy();
                }
                self.drop_steps();
            }
            _ => {
                let (rest, end) = (self.label(), self.label());
                self.mov_scalar(left, ext);
                if copies > 1 {
                    self.add_imm(left, -copies);
                    self.jump(Code::Jl_rel32_64, rest);
                    self.depth += 1;
                    self.counted(left, copies, &locals, body)?;
                    self.depth -= 1;
                    self.place(rest);
                    self.add_imm(left, copies);
                }
                self.op(Code::Test_rm64_r64, &[use_(left, W::B64), use_(left, W::B64)]);
                self.jump(Code::Jle_rel32_64, end);
                self.depth += 1;
                self.main_loop(left, 1, 1, &locals, body)?;
                self.depth -= 1;
                self.place(end);
            }
        }
        self.close_level();
        self.pinned.clear();
        Ok(())
    }

    /// Loads the constants that a loop of plain instructions uses most, to be held in registers.
    fn pin(&mut self, ext: Scalar, body: &[Stmt]) -> Res<()> {
        self.pinned.clear();
        let short = matches!(ext, Scalar::Const(n) if n < 4);
        if !self.pins || short || body.iter().any(|s| !matches!(s, Stmt::Inst(_))) {
            return Ok(());
        }
        let mut found: Vec<((RegTy, u64), usize)> = vec![];
        for s in body {
            let Stmt::Inst(i) = s else { continue };
            // Shifts take theirs as immediates.
            if matches!(i, Inst::Bin { op: BinOp::Shl | BinOp::Shr | BinOp::UShr, .. }) {
                continue;
            }
            i.uses(|r| {
                let t = self.ty(r);
                let Some(bits) = self.consts[r.0 as usize].filter(|b| *b != 0) else { return };
                if t.lanes == 1 || t.elem.size() != 4 {
                    return;
                }
                match found.iter_mut().find(|f| f.0 == (t, bits)) {
                    Some(f) => f.1 += 1,
                    None => found.push(((t, bits), 1)),
                }
            });
        }
        found.sort_by_key(|f| std::cmp::Reverse(f.1));
        for (key, _) in found.into_iter().take(if self.wide { 14 } else { 5 }) {
            let v = self.splat_const(key.0, key.1)?;
            self.pinned.insert(key, v);
        }
        Ok(())
    }

    /// `do { copies of body } while ((left -= 1) != 0)`
    fn main_loop(
        &mut self,
        left: V,
        by: i64,
        copies: i64,
        locals: &[Reg],
        body: &[Stmt],
    ) -> Res<()> {
        let top = self.label();
        self.place(top);
        for _ in 0..copies {
            self.copy(locals, body)?;
            self.step_copy();
        }
        self.flush_steps();
        self.add_imm(left, -by);
        self.jump(Code::Jne_rel32_64, top);
        Ok(())
    }

    /// `do { copies of body } while ((left -= copies) >= 0)`
    fn counted(&mut self, left: V, copies: i64, locals: &[Reg], body: &[Stmt]) -> Res<()> {
        let top = self.label();
        self.place(top);
        for _ in 0..copies {
            self.copy(locals, body)?;
            self.step_copy();
        }
        self.flush_steps();
        self.add_imm(left, -copies);
        self.jump(Code::Jge_rel32_64, top);
        Ok(())
    }

    /// Registers that appear only in `body` and are assigned there, unconditionally, before they
    /// are read.
    fn locals(&self, body: &[Stmt]) -> Vec<Reg> {
        let mut inside: HashMap<Reg, u32> = HashMap::new();
        tally(body, &mut inside);
        let mut first: HashMap<Reg, bool> = HashMap::new();
        for s in body {
            match s {
                Stmt::Inst(i) => {
                    i.uses(|r| {
                        first.entry(r).or_insert(false);
                    });
                    if let Some(d) = i.dst() {
                        first.entry(d).or_insert(true);
                    }
                }
                _ => {
                    let mut nested = HashMap::new();
                    tally(std::slice::from_ref(s), &mut nested);
                    for (r, n) in nested {
                        // wholly within one nested statement: that one sees to it
                        let all = inside[&r] == n;
                        first.entry(r).or_insert(all && self.defines_first(s, r));
                    }
                }
            }
        }
        let whole = |r: &Reg| {
            let n = r.0 as usize;
            inside[r] == self.uses[n] + self.defs[n]
        };
        let mut v: Vec<Reg> =
            first.into_iter().filter(|(r, l)| *l && whole(r)).map(|f| f.0).collect();
        v.sort();
        v
    }

    /// Whether `r`, which appears only in `s`, is assigned at its first appearance in program order
    /// (so that no value enters `s` from a previous iteration of a loop around it).
    fn defines_first(&self, s: &Stmt, r: Reg) -> bool {
        fn look(stmts: &[Stmt], r: Reg) -> Option<bool> {
            for s in stmts {
                let found = match s {
                    Stmt::Inst(i) => {
                        let mut used = false;
                        i.uses(|u| used |= u == r);
                        if used { Some(false) } else { (i.dst() == Some(r)).then_some(true) }
                    }
                    Stmt::For { extent, body, .. } => {
                        if *extent == Scalar::Reg(r) {
                            Some(false)
                        } else {
                            look(body, r)
                        }
                    }
                    Stmt::If { cond, then, els } => {
                        let mut used = false;
                        cond.uses(|u| used |= u == r);
                        match (used, look(then, r), look(els, r)) {
                            (true, ..) => Some(false),
                            (_, None, x) | (_, x, None) => x,
                            (_, Some(a), Some(b)) => Some(a && b),
                        }
                    }
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        look(std::slice::from_ref(s), r).unwrap_or(false)
    }
}

/// Counts appearances of registers.
fn tally(stmts: &[Stmt], out: &mut HashMap<Reg, u32>) {
    for s in stmts {
        match s {
            Stmt::Inst(i) => {
                i.uses(|r| *out.entry(r).or_default() += 1);
                if let Some(d) = i.dst() {
                    *out.entry(d).or_default() += 1;
                }
            }
            Stmt::For { body, extent, .. } => {
                if let Scalar::Reg(r) = extent {
                    *out.entry(*r).or_default() += 1;
                }
                tally(body, out)
            }
            Stmt::If { cond, then, els } => {
                cond.uses(|r| *out.entry(r).or_default() += 1);
                tally(then, out);
                tally(els, out);
            }
        }
    }
}

fn extent(c: Coef) -> Scalar {
    c.param.map_or(Scalar::Const(c.mul), Scalar::Param)
}

/// The jump taken where the condition does not hold.
fn not_taken(op: CmpOp) -> Code {
    match op {
        CmpOp::Eq => Code::Jne_rel32_64,
        CmpOp::Ne => Code::Je_rel32_64,
        CmpOp::Lt => Code::Jge_rel32_64,
        CmpOp::Le => Code::Jg_rel32_64,
        CmpOp::Gt => Code::Jle_rel32_64,
        CmpOp::Ge => Code::Jl_rel32_64,
        CmpOp::ULt => Code::Jae_rel32_64,
        CmpOp::ULe => Code::Ja_rel32_64,
    }
}
