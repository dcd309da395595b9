//! Integer arithmetic that takes several instructions: 64-bit forms that AVX2 lacks, and division.

use super::lir::*;
use super::ops;
use super::sel::*;
use crate::kir::*;

impl Sel<'_> {
    /// i64 product from 32-bit halves.
    pub fn mul64(&mut self, w: W, d: V, a: V, b: V) -> Res<()> {
        let (x, y, p) = (self.vec(), self.vec(), self.vec());
        let c = self.code(ops::PSRLQ, w)?;
        self.op(c, &[def(x, w), use_(a, w), Op::I(32)]);
        self.op(c, &[def(y, w), use_(b, w), Op::I(32)]);
        self.op3(ops::PMULUDQ, w, x, x, use_(b, w))?;
        self.op3(ops::PMULUDQ, w, y, y, use_(a, w))?;
        self.op3(ops::PADDQ, w, x, x, use_(y, w))?;
        let c = self.code(ops::PSLLQ, w)?;
        self.op(c, &[def(x, w), use_(x, w), Op::I(32)]);
        self.op3(ops::PMULUDQ, w, p, a, use_(b, w))?;
        self.op3(ops::PADDQ, w, d, p, use_(x, w))
    }

    /// Arithmetic shift: shift logically, then extend the moved sign bit.
    pub fn sar64(&mut self, t: RegTy, d: V, a: V, n: V) -> Res<()> {
        let w = self.w(t)?;
        let (s, m) = (self.vec(), self.splat_const(t, 1 << 63)?);
        self.op3(ops::PSRLVQ, w, m, m, use_(n, w))?;
        self.op3(ops::PSRLVQ, w, s, a, use_(n, w))?;
        self.op3(ops::PXORQ, w, s, s, use_(m, w))?;
        self.op3(ops::PSUBQ, w, d, s, use_(m, w))
    }

    pub fn minmax64(&mut self, op: BinOp, t: RegTy, d: V, a: V, b: V) -> Res<()> {
        let w = self.w(t)?;
        let (mut x, mut y) = (a, b);
        if matches!(op, BinOp::UMin | BinOp::UMax) {
            let k = self.const_mem(t, 1 << 63, false)?;
            (x, y) = (self.vec(), self.vec());
            self.op3(ops::PXORQ, w, x, a, Op::M(k))?;
            self.op3(ops::PXORQ, w, y, b, Op::M(k))?;
        }
        let gt = self.vec();
        self.op3(ops::PCMPGTQ, w, gt, x, use_(y, w))?;
        let (yes, no) = if matches!(op, BinOp::Min | BinOp::UMin) { (b, a) } else { (a, b) };
        let c = self.code(ops::BLENDVPD, w)?;
        self.op(c, &[def(d, w), use_(no, w), use_(yes, w), use_(gt, w)]);
        Ok(())
    }

    /// i32 division through f64, which holds every quotient exactly before truncation.
    pub fn div32(&mut self, op: BinOp, t: RegTy, d: V, a: V, b: V) -> Res<()> {
        let w = self.w(t)?;
        let q = self.vec();
        let halves = t.lanes as usize * 8 / 2 > if self.wide { 32 } else { 16 };
        if halves {
            let part = RegTy { lanes: t.lanes / 2, ..t };
            let (la, lb) = (self.half(t, a, 0)?, self.half(t, b, 0)?);
            let (ha, hb) = (self.half(t, a, 1)?, self.half(t, b, 1)?);
            let (lo, hi) = (self.vec(), self.vec());
            self.div32_part(part, lo, la, lb)?;
            self.div32_part(part, hi, ha, hb)?;
            self.join(t, q, lo, hi)?;
        } else {
            self.div32_part(t, q, a, b)?;
        }
        // x/0 and x%0 are 0
        let r = self.vec();
        if op == BinOp::Rem {
            let p = self.vec();
            self.op3(ops::PMULLD, w, p, q, use_(b, w))?;
            self.op3(ops::PSUBD, w, r, a, use_(p, w))?;
        } else {
            self.vmov(r, q, w)?;
        }
        let z = self.vec();
        self.zero(z);
        if self.wide {
            let m = self.kreg();
            let c = self.code(ops::KPCMPD, w)?;
            self.op(c, &[def(m, W::K), use_(b, w), use_(z, w), Op::I(4)]);
            let c = self.code(ops::MOVAPS, w)?;
            self.op_k(c, &[def(d, w), use_(r, w)], m, true);
            return Ok(());
        }
        let m = self.vec();
        self.op3(ops::PCMPEQD, w, m, b, use_(z, w))?;
        self.op3(ops::PANDND, w, d, m, use_(r, w))
    }

    fn div32_part(&mut self, t: RegTy, d: V, a: V, b: V) -> Res<()> {
        let w = self.w(t)?;
        let w8 = if t.lanes == 1 { W::X } else { self.w(t.with(Elem::F64))? };
        let (x, y, q) = (self.vec(), self.vec(), self.vec());
        self.op2(ops::CVTDQ2PD, w8, x, use_(a, w))?;
        self.op2(ops::CVTDQ2PD, w8, y, use_(b, w))?;
        self.op3(ops::DIVPD, w8, q, x, use_(y, w8))?;
        self.op2_narrow(ops::CVTTPD2DQ, w8, d, q)
    }
}
