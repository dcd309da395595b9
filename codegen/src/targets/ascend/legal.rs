//! Makes kernels of what an NPU's core has instructions for: a kernel to a kernel of the same meaning.
//!
//! What is here concerns vectors of floats; integers of a register are computed by the core's scalar
//! unit, a lane after the other, which divides, compares and selects by itself.

use crate::kir::*;

/// The kernel in legal instructions, loops not unrolled.
pub fn legal(k: &Kernel) -> Kernel {
    let mut out = k.clone();
    let body = std::mem::take(&mut out.body);
    let mut l = Legal { k: out };
    l.k.body = l.stmts(&body);
    l.k
}

struct Legal {
    k: Kernel,
}

/// Instructions that are being written for one.
struct Made<'l> {
    k: &'l mut Kernel,
    out: Vec<Stmt>,
}

impl Legal {
    fn stmts(&mut self, body: &[Stmt]) -> Vec<Stmt> {
        let mut out = vec![];
        for s in body {
            match s {
                Stmt::Inst(i) => {
                    let mut m = Made { k: &mut self.k, out: vec![] };
                    m.inst(i);
                    out.append(&mut m.out);
                }
                Stmt::If { cond, then, els } => {
                    let (then, els) = (self.stmts(then), self.stmts(els));
                    out.push(Stmt::If { cond: *cond, then, els });
                }
                Stmt::For { axis, extent, body, .. } => {
                    let body = self.stmts(body);
                    out.push(Stmt::For { axis: *axis, extent: *extent, unroll: 1, body });
                }
            }
        }
        out
    }
}

impl Made<'_> {
    fn emit(&mut self, i: Inst) {
        self.out.push(Stmt::Inst(i));
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

    fn float(&mut self, ty: RegTy, v: f32) -> Reg {
        self.konst(ty, v.to_bits().into())
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

    fn inst(&mut self, i: &Inst) {
        match i {
            Inst::Prefetch { .. } => {}
            Inst::Bin { op: op @ (BinOp::Min | BinOp::Max), dst, a, b }
                if self.k.ty(*dst).elem.is_float() =>
            {
                let op = if *op == BinOp::Min { CmpOp::Lt } else { CmpOp::Gt };
                let mask = self.cmp(op, *a, *b);
                self.emit(Inst::Select { dst: *dst, mask, a: *a, b: *b });
            }
            Inst::Bin { op: BinOp::AndNot, dst, a, b } => {
                let ty = self.k.ty(*a);
                let not = match ty.elem.is_float() {
                    true => {
                        let ones = self.konst(ty, u32::MAX.into());
                        self.bin(BinOp::Xor, *a, ones)
                    }
                    false => {
                        let not = self.fresh(ty);
                        self.emit(Inst::Un { op: UnOp::Not, dst: not, a: *a });
                        not
                    }
                };
                self.emit(Inst::Bin { op: BinOp::And, dst: *dst, a: not, b: *b });
            }
            Inst::Cvt { dst, a, mode } if self.k.ty(*a) != self.k.ty(*dst) => {
                self.convert(*dst, *a, *mode)
            }
            Inst::Cvt { dst, a, .. } => {
                self.emit(Inst::Un { op: UnOp::Copy, dst: *dst, a: *a });
            }
            Inst::Scale2 { dst, a, n } => self.scale2(*dst, *a, *n),
            i => self.emit(i.clone()),
        }
    }

    /// Floats to integers: in range, and zero for what is no number.
    fn convert(&mut self, dst: Reg, a: Reg, mode: CvtMode) {
        let (from, to) = (self.k.ty(a), self.k.ty(dst));
        let vector = !from.is_scalar() && from.elem == Elem::F32 && to.elem == Elem::I32;
        if !vector {
            return self.emit(Inst::Cvt { dst, a, mode });
        }
        let mut x = a;
        if mode == CvtMode::Round {
            x = self.fresh(from);
            self.emit(Inst::Un { op: UnOp::RoundEven, dst: x, a });
        }
        // The greatest f32 below 2^31.
        let (low, high) = (self.float(from, -2_147_483_648.0), self.float(from, 2_147_483_500.0));
        let (above, below) = (self.cmp(CmpOp::Ge, x, low), self.cmp(CmpOp::Le, x, high));
        let inside = self.select(below, x, high);
        let inside = self.select(above, inside, low);
        let mut v = self.fresh(to);
        self.emit(Inst::Cvt { dst: v, a: inside, mode: CvtMode::As });
        let edge = |m: &mut Self, n: i32| m.konst(to, n as u32 as u64);
        let (most, none) = match mode {
            CvtMode::As => (edge(self, i32::MAX), edge(self, 0)),
            CvtMode::Round => (edge(self, i32::MIN), edge(self, i32::MIN)),
        };
        let over = self.cmp(CmpOp::Gt, x, high);
        v = self.select(over, most, v);
        let number = self.cmp(CmpOp::Eq, x, x);
        self.emit(Inst::Select { dst, mask: number, a: v, b: none });
    }

    /// Two products with powers of two, of which the first is exact: 2^n in parts of at most 2^124 and
    /// 2^64. Beyond ±188 nothing changes.
    fn scale2(&mut self, dst: Reg, a: Reg, n: Reg) {
        let ty = self.k.ty(dst);
        let (low, high) = (self.float(ty, -188.0), self.float(ty, 188.0));
        let (down, up, none) = (self.float(ty, -64.0), self.float(ty, 64.0), self.float(ty, 0.0));
        let above = self.cmp(CmpOp::Ge, n, low);
        let n = self.select(above, n, low);
        let below = self.cmp(CmpOp::Le, n, high);
        let n = self.select(below, n, high);
        let (small, large) = (self.cmp(CmpOp::Le, n, down), self.cmp(CmpOp::Ge, n, up));
        let rest = self.select(large, up, none);
        let rest = self.select(small, down, rest);
        let first = self.bin(BinOp::Sub, n, rest);
        let (first, rest) = (self.power(first), self.power(rest));
        let x = self.bin(BinOp::Mul, a, first);
        self.emit(Inst::Bin { op: BinOp::Mul, dst, a: x, b: rest });
    }

    /// 2^n of a whole f32, |n| ≤ 124.
    fn power(&mut self, n: Reg) -> Reg {
        let tf = self.k.ty(n);
        let ty = tf.with(Elem::I32);
        let e = self.fresh(ty);
        self.emit(Inst::Cvt { dst: e, a: n, mode: CvtMode::As });
        let (bias, bits) = (self.konst(ty, 127), self.konst(ty, 23));
        let e = self.bin(BinOp::Add, e, bias);
        let e = self.bin(BinOp::Shl, e, bits);
        let dst = self.fresh(tf);
        self.emit(Inst::Bitcast { dst, a: e });
        dst
    }
}
