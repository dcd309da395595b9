//! Makes kernels of what GPUs have instructions for: a kernel to a kernel of the same meaning.
//!
//! Loops that are to be laid out are; integer division is guarded, float minima become comparisons,
//! reductions exchanges between lanes, and so on. What is left is a row of a target's table, or a few
//! lines of its renderer.

use crate::kir::*;

/// The kernel in legal instructions.
pub fn legal(k: &Kernel) -> Kernel {
    let mut l = Legal { b: KernelBuilder::rewriting(k) };
    l.stmts(&k.body);
    l.b.finish()
}

struct Legal {
    b: KernelBuilder,
}

impl Legal {
    fn block(&mut self, body: &[Stmt]) -> Vec<Stmt> {
        self.b.begin();
        self.stmts(body);
        self.b.end()
    }

    fn stmts(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Inst(i) => self.inst(i),
                Stmt::If { cond, then, els } => {
                    let (then, els) = (self.block(then), self.block(els));
                    self.b.push(Stmt::If { cond: *cond, then, els });
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
                return self.b.push(Stmt::For { axis, extent, unroll: 1, body });
            }
        };
        let rounds = if n <= u { 0 } else { n / u };
        if rounds > 0 {
            let mut copies = vec![];
            for j in 0..u {
                copies.extend(moved(body, axis, u, j));
            }
            let body = self.block(&copies);
            self.b.push(Stmt::For { axis, extent: rounds.into(), unroll: 1, body });
        }
        for j in rounds * u..n {
            self.stmts(&moved(body, axis, 0, j));
        }
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
            i => self.b.inst(i.clone()),
        }
    }

    fn un_op(&mut self, op: UnOp, dst: Reg, a: Reg) {
        let ty = self.b.ty(a);
        let sign = if ty.elem.size() == 4 { 1 << 31 } else { 1 << 63 };
        match op {
            // The sign bit alone, also of a NaN.
            UnOp::Neg if ty.elem.is_float() => {
                let b = self.b.const_bits(ty, sign);
                self.b.inst(Inst::Bin { op: BinOp::Xor, dst, a, b });
            }
            UnOp::Abs if ty.elem.is_float() => {
                let b = self.b.const_bits(ty, sign - 1);
                self.b.inst(Inst::Bin { op: BinOp::And, dst, a, b });
            }
            UnOp::Abs => {
                let b = self.b.un(UnOp::Neg, a);
                self.b.inst(Inst::Bin { op: BinOp::Max, dst, a, b });
            }
            op => self.b.inst(Inst::Un { op, dst, a }),
        }
    }

    fn bin_op(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) {
        let ty = self.b.ty(dst);
        match op {
            BinOp::Min | BinOp::Max if ty.elem.is_float() => {
                let op = if op == BinOp::Min { CmpOp::Lt } else { CmpOp::Gt };
                let mask = self.b.cmp(op, a, b);
                self.b.inst(Inst::Select { dst, mask, a, b });
            }
            BinOp::AndNot => {
                let a = match ty.elem.is_float() {
                    true => {
                        let ones = self.b.const_bits(ty, u64::MAX >> (64 - 8 * ty.elem.size()));
                        self.b.bin(BinOp::Xor, a, ones)
                    }
                    false => self.b.un(UnOp::Not, a),
                };
                self.b.inst(Inst::Bin { op: BinOp::And, dst, a, b });
            }
            BinOp::Div | BinOp::Rem if ty.elem.is_int() => self.divide(op, dst, a, b),
            op => self.b.inst(Inst::Bin { op, dst, a, b }),
        }
    }

    /// The machine divides by neither 0 nor −1.
    fn divide(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) {
        let ty = self.b.ty(dst);
        let (zero, one, minus) =
            (self.b.const_i(ty, 0), self.b.const_i(ty, 1), self.b.const_i(ty, -1));
        let (by0, by_minus) = (self.b.cmp(CmpOp::Eq, b, zero), self.b.cmp(CmpOp::Eq, b, minus));
        let odd = self.b.bin(BinOp::Or, by0, by_minus);
        let safe = self.b.select(odd, one, b);
        if op == BinOp::Rem {
            // A remainder by one is zero, as it has to be.
            return self.b.inst(Inst::Bin { op, dst, a, b: safe });
        }
        let q = self.b.bin(op, a, safe);
        let negated = self.b.un(UnOp::Neg, a);
        let q = self.b.select(by_minus, negated, q);
        self.b.inst(Inst::Select { dst, mask: by0, a: zero, b: q });
    }

    fn convert(&mut self, dst: Reg, a: Reg, mode: CvtMode) {
        let (from, to) = (self.b.ty(a), self.b.ty(dst));
        if from == to {
            return self.b.copy_to(dst, a);
        }
        if !from.elem.is_float() || !to.elem.is_int() {
            return self.b.inst(Inst::Cvt { dst, a, mode });
        }
        if mode == CvtMode::As {
            // Saturates; what a NaN gives depends on the types.
            let number = self.b.cmp(CmpOp::Eq, a, a);
            let v = self.b.cvt(a, to.elem);
            let zero = self.b.const_i(to, 0);
            return self.b.inst(Inst::Select { dst, mask: number, a: v, b: zero });
        }
        let r = self.b.un(UnOp::RoundEven, a);
        let edge = if to.elem == Elem::I32 { 2f64.powi(31) } else { 2f64.powi(63) };
        let (low, high) = (self.b.const_f(from, -edge), self.b.const_f(from, edge));
        let (above, below) = (self.b.cmp(CmpOp::Ge, r, low), self.b.cmp(CmpOp::Lt, r, high));
        let within = self.b.bin(BinOp::And, above, below);
        let v = self.b.cvt(r, to.elem);
        let min = self.b.const_i(to, if to.elem == Elem::I32 { i32::MIN as i64 } else { i64::MIN });
        self.b.inst(Inst::Select { dst, mask: within, a: v, b: min });
    }

    /// Two products with powers of two, of which the first is exact: 2^n in parts of at most 2^124 and
    /// 2^64. Beyond ±188 nothing changes.
    fn scale2(&mut self, dst: Reg, a: Reg, n: Reg) {
        let ty = self.b.ty(dst);
        let ti = ty.with(Elem::I32);
        let n = self.b.cvt(n, Elem::I32);
        let (low, high) = (self.b.const_i(ti, -188), self.b.const_i(ti, 188));
        let n = self.b.bin(BinOp::Max, n, low);
        let n = self.b.bin(BinOp::Min, n, high);
        let (down, up, none) =
            (self.b.const_i(ti, -64), self.b.const_i(ti, 64), self.b.const_i(ti, 0));
        let (small, large) = (self.b.cmp(CmpOp::Le, n, down), self.b.cmp(CmpOp::Ge, n, up));
        let rest = self.b.select(large, up, none);
        let rest = self.b.select(small, down, rest);
        let first = self.b.bin(BinOp::Sub, n, rest);
        let (first, rest) = (self.power(first), self.power(rest));
        let x = self.b.bin(BinOp::Mul, a, first);
        self.b.inst(Inst::Bin { op: BinOp::Mul, dst, a: x, b: rest });
    }

    /// 2^n as f32, |n| ≤ 124.
    fn power(&mut self, n: Reg) -> Reg {
        let ty = self.b.ty(n);
        let (bias, bits) = (self.b.const_i(ty, 127), self.b.const_i(ty, 23));
        let e = self.b.bin(BinOp::Add, n, bias);
        let e = self.b.bin(BinOp::Shl, e, bits);
        self.b.bitcast(e, Elem::F32)
    }

    /// Halves are folded together by exchanging lanes.
    fn reduce(&mut self, op: ReduceOp, dst: Reg, a: Reg) {
        let ty = self.b.ty(a);
        let mut x = a;
        let mut half = ty.lanes / 2;
        while half > 0 {
            let other = self.b.reg(ty);
            let sel = (0..ty.lanes).map(|l| l ^ half).collect();
            self.b.inst(Inst::Shuffle { dst: other, a: x, b: x, sel });
            let sum = self.b.reg(ty);
            self.bin_op(op.bin(), sum, x, other);
            x = sum;
            half /= 2;
        }
        match ty.lanes {
            1 => self.b.copy_to(dst, x),
            _ => self.b.inst(Inst::Extract { dst, a: x, lane: 0 }),
        }
    }

    fn check_index(&mut self, dst: Reg, idx: Reg, bound: Scalar) {
        let (ty, wide) = (self.b.ty(dst), self.b.ty(dst).with(Elem::I64));
        let one = self.b.scalar(bound);
        let n = if ty.is_scalar() { one } else { self.b.splat(one, ty.lanes.into()) };
        let i = if ty == wide { idx } else { self.b.cvt(idx, Elem::I64) };
        let zero = self.b.const_i(wide, 0);
        let back = self.b.bin(BinOp::Add, i, n);
        let negative = self.b.cmp(CmpOp::Lt, i, zero);
        let i = self.b.select(negative, back, i);
        let (above, below) = (self.b.cmp(CmpOp::Ge, i, zero), self.b.cmp(CmpOp::Lt, i, n));
        let good = self.b.bin(BinOp::And, above, below);
        let bad = self.b.un(UnOp::Not, good);
        self.b.inst(Inst::SetStatus { mask: bad });
        let safe = self.b.select(good, i, zero);
        match ty == wide {
            true => self.b.copy_to(dst, safe),
            false => self.b.inst(Inst::Cvt { dst, a: safe, mode: CvtMode::As }),
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
