//! Makes kernels of what an NPU's core has instructions for: a kernel to a kernel of the same meaning.
//!
//! What is here concerns vectors of floats; integers of a register are computed by the core's scalar
//! unit, a lane after the other, which divides, compares and selects by itself.

use crate::kir::*;

/// The kernel in legal instructions, loops not unrolled.
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
                Stmt::For { axis, extent, body, .. } => {
                    let body = self.block(body);
                    self.b.push(Stmt::For { axis: *axis, extent: *extent, unroll: 1, body });
                }
            }
        }
    }

    fn inst(&mut self, i: &Inst) {
        match i {
            Inst::Prefetch { .. } => {}
            Inst::Bin { op: op @ (BinOp::Min | BinOp::Max), dst, a, b }
                if self.b.ty(*dst).elem.is_float() =>
            {
                let op = if *op == BinOp::Min { CmpOp::Lt } else { CmpOp::Gt };
                let mask = self.b.cmp(op, *a, *b);
                self.b.inst(Inst::Select { dst: *dst, mask, a: *a, b: *b });
            }
            Inst::Bin { op: BinOp::AndNot, dst, a, b } => {
                let ty = self.b.ty(*a);
                let not = match ty.elem.is_float() {
                    true => {
                        let ones = self.b.const_bits(ty, u32::MAX.into());
                        self.b.bin(BinOp::Xor, *a, ones)
                    }
                    false => self.b.un(UnOp::Not, *a),
                };
                self.b.inst(Inst::Bin { op: BinOp::And, dst: *dst, a: not, b: *b });
            }
            Inst::Cvt { dst, a, mode } if self.b.ty(*a) != self.b.ty(*dst) => {
                self.convert(*dst, *a, *mode)
            }
            Inst::Cvt { dst, a, .. } => {
                self.b.inst(Inst::Un { op: UnOp::Copy, dst: *dst, a: *a });
            }
            Inst::Scale2 { dst, a, n } => self.scale2(*dst, *a, *n),
            i => self.b.inst(i.clone()),
        }
    }

    /// Floats to integers: in range, and zero for what is no number.
    fn convert(&mut self, dst: Reg, a: Reg, mode: CvtMode) {
        let (from, to) = (self.b.ty(a), self.b.ty(dst));
        let vector = !from.is_scalar() && from.elem == Elem::F32 && to.elem == Elem::I32;
        if !vector {
            return self.b.inst(Inst::Cvt { dst, a, mode });
        }
        let mut x = a;
        if mode == CvtMode::Round {
            x = self.b.un(UnOp::RoundEven, a);
        }
        // The greatest f32 below 2^31.
        let (low, high) =
            (self.b.const_f(from, -2_147_483_648.0), self.b.const_f(from, 2_147_483_500.0));
        let (above, below) = (self.b.cmp(CmpOp::Ge, x, low), self.b.cmp(CmpOp::Le, x, high));
        let inside = self.b.select(below, x, high);
        let inside = self.b.select(above, inside, low);
        let mut v = self.b.cvt(inside, to.elem);
        let edge = |l: &mut Self, n: i32| l.b.const_i(to, n.into());
        let (most, none) = match mode {
            CvtMode::As => (edge(self, i32::MAX), edge(self, 0)),
            CvtMode::Round => (edge(self, i32::MIN), edge(self, i32::MIN)),
        };
        let over = self.b.cmp(CmpOp::Gt, x, high);
        v = self.b.select(over, most, v);
        let number = self.b.cmp(CmpOp::Eq, x, x);
        self.b.inst(Inst::Select { dst, mask: number, a: v, b: none });
    }

    /// Two products with powers of two, of which the first is exact: 2^n in parts of at most 2^124 and
    /// 2^64. Beyond ±188 nothing changes.
    fn scale2(&mut self, dst: Reg, a: Reg, n: Reg) {
        let ty = self.b.ty(dst);
        let (low, high) = (self.b.const_f(ty, -188.0), self.b.const_f(ty, 188.0));
        let (down, up, none) =
            (self.b.const_f(ty, -64.0), self.b.const_f(ty, 64.0), self.b.const_f(ty, 0.0));
        let above = self.b.cmp(CmpOp::Ge, n, low);
        let n = self.b.select(above, n, low);
        let below = self.b.cmp(CmpOp::Le, n, high);
        let n = self.b.select(below, n, high);
        let (small, large) = (self.b.cmp(CmpOp::Le, n, down), self.b.cmp(CmpOp::Ge, n, up));
        let rest = self.b.select(large, up, none);
        let rest = self.b.select(small, down, rest);
        let first = self.b.bin(BinOp::Sub, n, rest);
        let (first, rest) = (self.power(first), self.power(rest));
        let x = self.b.bin(BinOp::Mul, a, first);
        self.b.inst(Inst::Bin { op: BinOp::Mul, dst, a: x, b: rest });
    }

    /// 2^n of a whole f32, |n| ≤ 124.
    fn power(&mut self, n: Reg) -> Reg {
        let tf = self.b.ty(n);
        let ty = tf.with(Elem::I32);
        let e = self.b.cvt(n, Elem::I32);
        let (bias, bits) = (self.b.const_bits(ty, 127), self.b.const_bits(ty, 23));
        let e = self.b.bin(BinOp::Add, e, bias);
        let e = self.b.bin(BinOp::Shl, e, bits);
        self.b.bitcast(e, tf.elem)
    }
}
