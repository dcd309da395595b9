//! Makes kernels of what GPUs have instructions for: a kernel to a kernel of the same meaning.
//!
//! Loops that are to be laid out are; integer division is guarded, float minima become comparisons,
//! reductions exchanges between lanes, and so on. What is left is a row of a target's table, or a few
//! lines of its renderer.

use crate::kir::*;

/// The kernel in legal instructions.
pub fn legal(k: &Kernel) -> Kernel {
    let mut out = k.clone();
    let body = std::mem::take(&mut out.body);
    let mut l = Legal { k: out, out: vec![vec![]] };
    l.stmts(&body);
    l.k.body = l.out.pop().unwrap_or_default();
    l.k
}

struct Legal {
    k: Kernel,
    /// Open lists of statements, innermost last.
    out: Vec<Vec<Stmt>>,
}

impl Legal {
    fn push(&mut self, s: Stmt) {
        self.out.last_mut().expect("a list is open").push(s);
    }

    fn block(&mut self, body: &[Stmt]) -> Vec<Stmt> {
        self.out.push(vec![]);
        self.stmts(body);
        self.out.pop().unwrap_or_default()
    }

    fn stmts(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Inst(i) => self.inst(i),
                Stmt::If { cond, then, els } => {
                    let (then, els) = (self.block(then), self.block(els));
                    self.push(Stmt::If { cond: *cond, then, els });
                }
                Stmt::For { axis, extent, unroll, body } => {
                    self.unrolled(*axis, *extent, *unroll, body)
                }
            }
        }
    }

    /// A loop, with as many copies of its body in a row as it asks for.
    fn unrolled(&mut self, axis: AxisId, extent: Scalar, unroll: u32, body: &[Stmt]) {
        let u = i64::from(unroll.max(1));
        let n = match extent {
            Scalar::Const(n) if u > 1 => n.max(0),
            _ => {
                let body = self.block(body);
                return self.push(Stmt::For { axis, extent, unroll: 1, body });
            }
        };
        let rounds = if n <= u { 0 } else { n / u };
        if rounds > 0 {
            let mut copies = vec![];
            for j in 0..u {
                copies.extend(moved(body, axis, u, j));
            }
            let body = self.block(&copies);
            self.push(Stmt::For { axis, extent: rounds.into(), unroll: 1, body });
        }
        for j in rounds * u..n {
            self.stmts(&moved(body, axis, 0, j));
        }
    }

    fn emit(&mut self, i: Inst) {
        self.push(Stmt::Inst(i));
    }

    fn fresh(&mut self, ty: RegTy) -> Reg {
        self.k.regs.push(ty);
        Reg(self.k.regs.len() as u32 - 1)
    }

    fn konst(&mut self, ty: RegTy, bits: u64) -> Reg {
        let dst = self.fresh(ty);
        self.emit(Inst::Const { dst, bits });
        dst
    }

    fn int(&mut self, ty: RegTy, v: i64) -> Reg {
        self.konst(ty, if ty.elem == Elem::I32 { v as u32 as u64 } else { v as u64 })
    }

    fn un(&mut self, op: UnOp, a: Reg) -> Reg {
        let dst = self.fresh(self.k.ty(a));
        self.emit(Inst::Un { op, dst, a });
        dst
    }

    fn bin(&mut self, op: BinOp, a: Reg, b: Reg) -> Reg {
        let dst = self.fresh(self.k.ty(a));
        self.emit(Inst::Bin { op, dst, a, b });
        dst
    }

    fn cmp(&mut self, op: CmpOp, a: Reg, b: Reg) -> Reg {
        let dst = self.fresh(self.k.ty(a).with(Elem::Mask));
        self.emit(Inst::Cmp { op, dst, a, b });
        dst
    }

    fn select(&mut self, mask: Reg, a: Reg, b: Reg) -> Reg {
        let dst = self.fresh(self.k.ty(a));
        self.emit(Inst::Select { dst, mask, a, b });
        dst
    }

    fn cvt(&mut self, a: Reg, elem: Elem) -> Reg {
        let dst = self.fresh(self.k.ty(a).with(elem));
        self.emit(Inst::Cvt { dst, a, mode: CvtMode::As });
        dst
    }

    fn bitcast(&mut self, a: Reg, elem: Elem) -> Reg {
        let dst = self.fresh(self.k.ty(a).with(elem));
        self.emit(Inst::Bitcast { dst, a });
        dst
    }

    fn copy(&mut self, dst: Reg, a: Reg) {
        self.emit(Inst::Un { op: UnOp::Copy, dst, a });
    }

    fn inst(&mut self, i: &Inst) {
        match i {
            Inst::Prefetch { .. } => {}
            Inst::Un { op, dst, a } => self.un_op(*op, *dst, *a),
            Inst::Bin { op, dst, a, b } => self.bin_op(*op, *dst, *a, *b),
            Inst::Cvt { dst, a, mode } => self.convert(*dst, *a, *mode),
            Inst::Scale2 { dst, a, n } => self.scale2(*dst, *a, *n),
            Inst::Reduce { op, dst, a } => self.reduce(*op, *dst, *a),
            Inst::CheckIndex { dst, idx, bound } => self.check_index(*dst, *idx, *bound),
            i => self.emit(i.clone()),
        }
    }

    fn un_op(&mut self, op: UnOp, dst: Reg, a: Reg) {
        let ty = self.k.ty(a);
        let sign = if ty.elem.size() == 4 { 1 << 31 } else { 1 << 63 };
        match op {
            // The sign bit alone, also of a NaN.
            UnOp::Neg if ty.elem.is_float() => {
                let b = self.konst(ty, sign);
                self.emit(Inst::Bin { op: BinOp::Xor, dst, a, b });
            }
            UnOp::Abs if ty.elem.is_float() => {
                let b = self.konst(ty, sign - 1);
                self.emit(Inst::Bin { op: BinOp::And, dst, a, b });
            }
            UnOp::Abs => {
                let b = self.un(UnOp::Neg, a);
                self.emit(Inst::Bin { op: BinOp::Max, dst, a, b });
            }
            op => self.emit(Inst::Un { op, dst, a }),
        }
    }

    fn bin_op(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) {
        let ty = self.k.ty(dst);
        match op {
            BinOp::Min | BinOp::Max if ty.elem.is_float() => {
                let op = if op == BinOp::Min { CmpOp::Lt } else { CmpOp::Gt };
                let mask = self.cmp(op, a, b);
                self.emit(Inst::Select { dst, mask, a, b });
            }
            BinOp::AndNot => {
                let a = match ty.elem.is_float() {
                    true => {
                        let ones = self.konst(ty, u64::MAX >> (64 - 8 * ty.elem.size()));
                        self.bin(BinOp::Xor, a, ones)
                    }
                    false => self.un(UnOp::Not, a),
                };
                self.emit(Inst::Bin { op: BinOp::And, dst, a, b });
            }
            BinOp::Div | BinOp::Rem if ty.elem.is_int() => self.divide(op, dst, a, b),
            op => self.emit(Inst::Bin { op, dst, a, b }),
        }
    }

    /// The machine divides by neither 0 nor −1.
    fn divide(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) {
        let ty = self.k.ty(dst);
        let (zero, one, minus) = (self.int(ty, 0), self.int(ty, 1), self.int(ty, -1));
        let (by0, by_minus) = (self.cmp(CmpOp::Eq, b, zero), self.cmp(CmpOp::Eq, b, minus));
        let odd = self.bin(BinOp::Or, by0, by_minus);
        let safe = self.select(odd, one, b);
        if op == BinOp::Rem {
            // A remainder by one is zero, as it has to be.
            return self.emit(Inst::Bin { op, dst, a, b: safe });
        }
        let q = self.bin(op, a, safe);
        let negated = self.un(UnOp::Neg, a);
        let q = self.select(by_minus, negated, q);
        self.emit(Inst::Select { dst, mask: by0, a: zero, b: q });
    }

    fn convert(&mut self, dst: Reg, a: Reg, mode: CvtMode) {
        let (from, to) = (self.k.ty(a), self.k.ty(dst));
        if from == to {
            return self.copy(dst, a);
        }
        if !from.elem.is_float() || !to.elem.is_int() {
            return self.emit(Inst::Cvt { dst, a, mode });
        }
        if mode == CvtMode::As {
            // Saturates; what a NaN gives depends on the types.
            let number = self.cmp(CmpOp::Eq, a, a);
            let v = self.cvt(a, to.elem);
            let zero = self.int(to, 0);
            return self.emit(Inst::Select { dst, mask: number, a: v, b: zero });
        }
        let r = self.un(UnOp::RoundEven, a);
        let edge = if to.elem == Elem::I32 { 2f64.powi(31) } else { 2f64.powi(63) };
        let (low, high) = (self.float(from, -edge), self.float(from, edge));
        let (above, below) = (self.cmp(CmpOp::Ge, r, low), self.cmp(CmpOp::Lt, r, high));
        let within = self.bin(BinOp::And, above, below);
        let v = self.cvt(r, to.elem);
        let min = self.int(to, if to.elem == Elem::I32 { i32::MIN as i64 } else { i64::MIN });
        self.emit(Inst::Select { dst, mask: within, a: v, b: min });
    }

    fn float(&mut self, ty: RegTy, v: f64) -> Reg {
        let bits = if ty.elem == Elem::F32 { (v as f32).to_bits().into() } else { v.to_bits() };
        self.konst(ty, bits)
    }

    /// Two products with powers of two, of which the first is exact: 2^n in parts of at most 2^124 and
    /// 2^64. Beyond ±188 nothing changes.
    fn scale2(&mut self, dst: Reg, a: Reg, n: Reg) {
        let ty = self.k.ty(dst);
        let ti = ty.with(Elem::I32);
        let n = self.cvt(n, Elem::I32);
        let (low, high) = (self.int(ti, -188), self.int(ti, 188));
        let n = self.bin(BinOp::Max, n, low);
        let n = self.bin(BinOp::Min, n, high);
        let (down, up, none) = (self.int(ti, -64), self.int(ti, 64), self.int(ti, 0));
        let (small, large) = (self.cmp(CmpOp::Le, n, down), self.cmp(CmpOp::Ge, n, up));
        let rest = self.select(large, up, none);
        let rest = self.select(small, down, rest);
        let first = self.bin(BinOp::Sub, n, rest);
        let (first, rest) = (self.power(first), self.power(rest));
        let x = self.bin(BinOp::Mul, a, first);
        self.emit(Inst::Bin { op: BinOp::Mul, dst, a: x, b: rest });
    }

    /// 2^n as f32, |n| ≤ 124.
    fn power(&mut self, n: Reg) -> Reg {
        let ty = self.k.ty(n);
        let (bias, bits) = (self.int(ty, 127), self.int(ty, 23));
        let e = self.bin(BinOp::Add, n, bias);
        let e = self.bin(BinOp::Shl, e, bits);
        self.bitcast(e, Elem::F32)
    }

    /// Halves are folded together by exchanging lanes.
    fn reduce(&mut self, op: ReduceOp, dst: Reg, a: Reg) {
        let ty = self.k.ty(a);
        let mut x = a;
        let mut half = ty.lanes / 2;
        while half > 0 {
            let other = self.fresh(ty);
            let sel = (0..ty.lanes).map(|l| l ^ half).collect();
            self.emit(Inst::Shuffle { dst: other, a: x, b: x, sel });
            let sum = self.fresh(ty);
            self.bin_op(op.bin(), sum, x, other);
            x = sum;
            half /= 2;
        }
        match ty.lanes {
            1 => self.copy(dst, x),
            _ => self.emit(Inst::Extract { dst, a: x, lane: 0 }),
        }
    }

    fn check_index(&mut self, dst: Reg, idx: Reg, bound: Scalar) {
        let (ty, wide) = (self.k.ty(dst), self.k.ty(dst).with(Elem::I64));
        let one = match bound {
            Scalar::Reg(r) => r,
            Scalar::Const(n) => self.int(RegTy::INDEX, n),
            Scalar::Param(p) => {
                let r = self.fresh(RegTy::INDEX);
                self.emit(Inst::Index { dst: r, at: Affine::default().plus(Var::One, p) });
                r
            }
        };
        let n = match ty.is_scalar() {
            true => one,
            false => {
                let n = self.fresh(wide);
                self.emit(Inst::Splat { dst: n, src: one });
                n
            }
        };
        let i = if ty == wide { idx } else { self.cvt(idx, Elem::I64) };
        let zero = self.int(wide, 0);
        let back = self.bin(BinOp::Add, i, n);
        let negative = self.cmp(CmpOp::Lt, i, zero);
        let i = self.select(negative, back, i);
        let (above, below) = (self.cmp(CmpOp::Ge, i, zero), self.cmp(CmpOp::Lt, i, n));
        let good = self.bin(BinOp::And, above, below);
        let bad = self.un(UnOp::Not, good);
        self.emit(Inst::SetStatus { mask: bad });
        let safe = self.select(good, i, zero);
        match ty == wide {
            true => self.copy(dst, safe),
            false => self.emit(Inst::Cvt { dst, a: safe, mode: CvtMode::As }),
        }
    }
}

/// A copy of statements in which `axis` is `by × axis + at`.
fn moved(body: &[Stmt], axis: AxisId, by: i64, at: i64) -> Vec<Stmt> {
    let mut out = body.to_vec();
    each_affine(&mut out, &mut |a| {
        let old = std::mem::take(&mut a.terms);
        for (v, c) in old {
            match v {
                Var::Axis(x) if x == axis => {
                    a.add_term(v, c.times(by));
                    a.add_term(Var::One, c.times(at));
                }
                v => a.add_term(v, c),
            }
        }
    });
    out
}

fn each_affine(body: &mut [Stmt], f: &mut dyn FnMut(&mut Affine)) {
    for s in body {
        match s {
            Stmt::Inst(Inst::Index { at, .. }) => f(at),
            Stmt::Inst(i) => {
                if let Some(a) = i.addr_mut() {
                    f(&mut a.at)
                }
            }
            Stmt::For { body, .. } => each_affine(body, f),
            Stmt::If { then, els, .. } => {
                each_affine(then, f);
                each_affine(els, f);
            }
        }
    }
}
