//! Masks: k registers on AVX-512; on AVX2 vectors of 32 bits a lane, all ones or all zeros, which
//! are widened where 64-bit lanes meet them.

use super::arith::{and, xor};
use super::lir::*;
use super::ops;
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;

impl Sel<'_> {
    fn mask_w(&self, lanes: u8) -> W {
        if self.wide {
            W::K
        } else if lanes == 8 {
            W::Y
        } else {
            W::X
        }
    }

    fn mask_lanes_ok(&self, t: RegTy) -> Res<()> {
        if !self.wide && t.lanes > 8 { self.unsupported(format!("{t}")) } else { Ok(()) }
    }

    pub fn mask_const(&mut self, dst: Reg, on: bool) -> Res<()> {
        let t = self.ty(dst);
        self.mask_lanes_ok(t)?;
        let d = self.dst(dst);
        if self.wide {
            let g = self.gpr();
            self.mov_imm(g, if on { 0xffff } else { 0 });
            self.op(Code::VEX_Kmovw_kr_r32, &[def(d, W::K), use_(g, W::B32)]);
        } else if on {
            self.ones(d, self.mask_w(t.lanes))?;
        } else {
            self.zero(d);
        }
        Ok(())
    }

    /// All bits set.
    fn ones(&mut self, d: V, w: W) -> Res<()> {
        let c = self.code(ops::PCMPEQD, w)?;
        self.op(c, &[def(d, w), Op::R(d, w, Role::Same), Op::R(d, w, Role::Same)]);
        Ok(())
    }

    fn not(&mut self, d: V, a: V, w: W) -> Res<()> {
        let k = self.vec();
        self.ones(k, w)?;
        self.op3(ops::PXORD, w, d, a, use_(k, w))
    }

    pub fn mask_un(&mut self, op: UnOp, dst: Reg, a: Reg) -> Res<()> {
        let w = self.mask_w(self.ty(dst).lanes);
        let s = self.src(a)?;
        let d = self.dst(dst);
        match (op, self.wide) {
            (UnOp::Copy, true) => {
                self.op(Code::VEX_Kmovw_kr_km16, &[def(d, W::K), use_(s, W::K)]);
                Ok(())
            }
            (UnOp::Copy, false) => self.vmov(d, s, w),
            (_, true) => {
                self.op(Code::VEX_Knotw_kr_kr, &[def(d, W::K), use_(s, W::K)]);
                Ok(())
            }
            (_, false) => self.not(d, s, w),
        }
    }

    pub fn mask_bin(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) -> Res<()> {
        let w = self.mask_w(self.ty(dst).lanes);
        let (x, y) = (self.src(a)?, self.src(b)?);
        let d = self.dst(dst);
        if self.wide {
            let c = match op {
                BinOp::And => Code::VEX_Kandw_kr_kr_kr,
                BinOp::Or => Code::VEX_Korw_kr_kr_kr,
                BinOp::Xor => Code::VEX_Kxorw_kr_kr_kr,
                _ => Code::VEX_Kandnw_kr_kr_kr,
            };
            self.op(c, &[def(d, W::K), use_(x, W::K), use_(y, W::K)]);
            return Ok(());
        }
        let row = match op {
            BinOp::And => ops::PANDD,
            BinOp::Or => ops::PORD,
            BinOp::Xor => ops::PXORD,
            _ => ops::PANDND,
        };
        self.op3(row, w, d, x, use_(y, w))
    }

    /// A mask at the lane width of `t` (AVX2).
    pub fn widened(&mut self, m: V, t: RegTy) -> Res<V> {
        if t.elem.size() != 8 {
            return Ok(m);
        }
        let (v, w) = (self.vec(), self.w(t)?);
        self.op2(ops::PMOVSXDQ, w, v, use_(m, W::X))?;
        Ok(v)
    }

    /// The low halves of 64-bit lanes, packed (AVX2).
    pub fn narrowed(&mut self, d: V, v: V, w: W) -> Res<()> {
        let hi = if w == W::Y {
            let h = self.vec();
            let c = Code::VEX_Vextracti128_xmmm128_ymm_imm8;
            self.op(c, &[def(h, W::X), use_(v, W::Y), Op::I(1)]);
            h
        } else {
            v
        };
        let c = self.code(ops::SHUFPS, W::X)?;
        self.op(c, &[def(d, W::X), use_(v, W::X), use_(hi, W::X), Op::I(0x88)]);
        Ok(())
    }

    pub fn cmp(&mut self, op: CmpOp, dst: Reg, a: Reg, b: Reg) -> Res<()> {
        let t = self.ty(a);
        if Self::is_gpr(t) {
            let (x, y) = (self.src(a)?, self.src(b)?);
            let d = self.dst(dst);
            self.gpr_cmp(op, d, x, y);
            return Ok(());
        }
        let w = self.w(t)?;
        if t.elem.is_float() {
            let x = self.src(a)?;
            let y = self.src_mem(b)?;
            let d = self.dst(dst);
            return self.cmp_float(op, t, d, x, y);
        }
        let (x, y) = (self.src(a)?, self.src(b)?);
        let d = self.dst(dst);
        if self.wide {
            let big = t.elem.size() == 8;
            let (row, k) = match op {
                CmpOp::ULt => (if big { ops::KPCMPUQ } else { ops::KPCMPUD }, 1),
                CmpOp::ULe => (if big { ops::KPCMPUQ } else { ops::KPCMPUD }, 2),
                _ => {
                    let k = match op {
                        CmpOp::Eq => 0,
                        CmpOp::Lt => 1,
                        CmpOp::Le => 2,
                        CmpOp::Ne => 4,
                        CmpOp::Ge => 5,
                        _ => 6,
                    };
                    (if big { ops::KPCMPQ } else { ops::KPCMPD }, k)
                }
            };
            let c = self.code(row, w)?;
            self.op(c, &[def(d, W::K), use_(x, w), use_(y, w), Op::I(k)]);
            return Ok(());
        }
        self.cmp_int_vex(op, t, d, x, y)
    }

    fn cmp_float(&mut self, op: CmpOp, t: RegTy, d: V, x: V, y: Op) -> Res<()> {
        let w = self.w(t)?;
        let row = match (t.elem, t.lanes) {
            (Elem::F32, 1) => ops::CMPSS,
            (Elem::F32, _) => ops::CMPPS,
            (_, 1) => ops::CMPSD,
            _ => ops::CMPPD,
        };
        let c = self.code(row, w)?;
        let k = match op {
            CmpOp::Eq => 0x00,
            CmpOp::Lt | CmpOp::ULt => 0x11,
            CmpOp::Le | CmpOp::ULe => 0x12,
            CmpOp::Ne => 0x04,
            CmpOp::Gt => 0x1e,
            CmpOp::Ge => 0x1d,
        };
        if self.wide {
            self.op(c, &[def(d, W::K), use_(x, w), y, Op::I(k)]);
        } else if t.elem.size() == 8 {
            let m = self.vec();
            self.op(c, &[def(m, w), use_(x, w), y, Op::I(k)]);
            self.narrowed(d, m, w)?;
        } else {
            self.op(c, &[def(d, w), use_(x, w), y, Op::I(k)]);
        }
        Ok(())
    }

    /// AVX2 has equality and signed greater-than.
    fn cmp_int_vex(&mut self, op: CmpOp, t: RegTy, d: V, x: V, y: V) -> Res<()> {
        let (w, big) = (self.w(t)?, t.elem.size() == 8);
        let (mut x, mut y) = (x, y);
        if matches!(op, CmpOp::ULt | CmpOp::ULe) {
            let m = self.const_mem(t, if big { 1 << 63 } else { 1 << 31 }, false)?;
            let (p, q) = (self.vec(), self.vec());
            self.op3(xor(big), w, p, x, Op::M(m))?;
            self.op3(xor(big), w, q, y, Op::M(m))?;
            (x, y) = (p, q);
        }
        let gt = if big { ops::PCMPGTQ } else { ops::PCMPGTD };
        let eq = if big { ops::PCMPEQQ } else { ops::PCMPEQD };
        let (row, p, q, invert) = match op {
            CmpOp::Eq => (eq, x, y, false),
            CmpOp::Ne => (eq, x, y, true),
            CmpOp::Gt => (gt, x, y, false),
            CmpOp::Le | CmpOp::ULe => (gt, x, y, true),
            CmpOp::Lt | CmpOp::ULt => (gt, y, x, false),
            CmpOp::Ge => (gt, y, x, true),
        };
        let mut m = self.vec();
        self.op3(row, w, m, p, use_(q, w))?;
        if invert {
            let n = self.vec();
            self.not(n, m, w)?;
            m = n;
        }
        if big { self.narrowed(d, m, w) } else { self.vmov(d, m, w) }
    }

    pub fn first_lanes(&mut self, dst: Reg, count: Scalar) -> Res<()> {
        let t = self.ty(dst);
        self.mask_lanes_ok(t)?;
        let (n, z, m) = (self.gpr(), self.gpr(), self.gpr());
        self.mov_scalar(n, count);
        self.mov_imm(z, 0);
        self.mov_imm(m, t.lanes as i64);
        self.test(n);
        self.two(Code::Cmovs_r64_rm64, n, z);
        self.op(Code::Cmp_r64_rm64, &[use_(n, W::B64), use_(m, W::B64)]);
        self.two(Code::Cmovg_r64_rm64, n, m);
        let d = self.dst(dst);
        if self.wide {
            let ones = self.gpr();
            self.mov_imm(ones, 0xffff);
            let bzhi = Code::VEX_Bzhi_r64_rm64_r64;
            self.op(bzhi, &[def(ones, W::B64), use_(ones, W::B64), use_(n, W::B64)]);
            self.op(Code::VEX_Kmovw_kr_r32, &[def(d, W::K), use_(ones, W::B32)]);
            return Ok(());
        }
        let (x, w) = (self.vec(), self.mask_w(t.lanes));
        self.op(Code::VEX_Vmovd_xmm_rm32, &[def(x, W::X), use_(n, W::B32)]);
        self.op2(ops::PBROADCASTD, w, x, use_(x, W::X))?;
        let lanes = if w == W::Y { 8u32 } else { 4 };
        let iota = (0..lanes).flat_map(|l| l.to_le_bytes()).collect();
        let m = self.pool_mem(iota);
        self.op3(ops::PCMPGTD, w, d, x, Op::M(m))
    }

    pub fn select(&mut self, dst: Reg, mask: Reg, a: Reg, b: Reg) -> Res<()> {
        let t = self.ty(dst);
        let (m, y) = (self.src(mask)?, self.src(b)?);
        if Self::is_gpr(t) {
            let (x, g, r) = (self.src(a)?, self.gpr(), self.gpr());
            let d = self.dst(dst);
            if self.wide {
                self.op(Code::VEX_Kmovw_r32_kr, &[def(g, W::B32), use_(m, W::K)]);
            } else {
                self.op(Code::VEX_Vmovd_rm32_xmm, &[def(g, W::B32), use_(m, W::X)]);
            }
            self.mov(r, y);
            self.op(Code::Test_rm32_imm32, &[use_(g, W::B32), Op::I(1)]);
            self.two(Code::Cmovne_r64_rm64, r, x);
            self.mov(d, r);
            return Ok(());
        }
        let w = self.w(t)?;
        let x = self.src_mem(a)?;
        let x = self.whole(t, x)?;
        let d = self.dst(dst);
        self.blend(t, w, d, m, x, y)
    }

    /// A memory operand of a one-lane float read into a register (packed forms read more).
    fn whole(&mut self, t: RegTy, x: Op) -> Res<Op> {
        match x {
            Op::M(m) if t.lanes == 1 && t.elem.is_float() => {
                let v = self.vec();
                self.load_scalar(t, v, m);
                Ok(use_(v, W::X))
            }
            x => Ok(x),
        }
    }

    /// `d = m ? x : y`
    pub fn blend(&mut self, t: RegTy, w: W, d: V, m: V, x: Op, y: V) -> Res<()> {
        let big = t.elem.size() == 8;
        if self.wide {
            let c = self.code(if big { ops::PBLENDMQ } else { ops::PBLENDMD }, w)?;
            self.op_k(c, &[def(d, w), use_(y, w), x], m, false);
            return Ok(());
        }
        let m = self.widened(m, t)?;
        let c = self.code(if big { ops::BLENDVPD } else { ops::BLENDVPS }, w)?;
        self.op(c, &[def(d, w), use_(y, w), x, use_(m, w)]);
        Ok(())
    }

    /// Low bits of a mask in a general register.
    pub fn mask_bits(&mut self, m: V, lanes: u8) -> V {
        let g = self.gpr();
        if self.wide {
            self.op(Code::VEX_Kmovw_r32_kr, &[def(g, W::B32), use_(m, W::K)]);
        } else if lanes == 8 {
            self.op(Code::VEX_Vmovmskps_r32_ymm, &[def(g, W::B32), use_(m, W::Y)]);
        } else {
            self.op(Code::VEX_Vmovmskps_r32_xmm, &[def(g, W::B32), use_(m, W::X)]);
        }
        self.op(Code::And_rm32_imm32, &[modify(g, W::B32), Op::I((1i64 << lanes) - 1)]);
        g
    }

    pub fn set_status(&mut self, mask: Reg) -> Res<()> {
        let m = self.src(mask)?;
        let g = self.mask_bits(m, self.ty(mask).lanes);
        let end = self.label();
        self.test(g);
        self.jump(Code::Je_rel32_64, end);
        self.raise();
        self.place(end);
        Ok(())
    }

    pub fn check_index(&mut self, dst: Reg, idx: Reg, bound: Scalar) -> Res<()> {
        let t = self.ty(dst);
        let v = self.src(idx)?;
        let d = self.dst(dst);
        if Self::is_gpr(t) {
            self.gpr_check(d, v, bound);
            return Ok(());
        }
        let (w, big) = (self.w(t)?, t.elem.size() == 8);
        let (n, x, b, zero) = (self.gpr(), self.vec(), self.vec(), self.vec());
        self.mov_scalar(n, bound);
        if self.wide {
            let row = if big { ops::PBROADCASTQ_R } else { ops::PBROADCASTD_R };
            let c = self.code(row, w)?;
            self.op(c, &[def(b, w), use_(n, if big { W::B64 } else { W::B32 })]);
        } else {
            self.op(Code::VEX_Vmovq_xmm_rm64, &[def(x, W::X), use_(n, W::B64)]);
            let row = if big { ops::PBROADCASTQ } else { ops::PBROADCASTD };
            self.op2(row, w, b, use_(x, W::X))?;
        }
        self.zero(zero);
        let add = if big { ops::PADDQ } else { ops::PADDD };
        let (r, ok) = (self.vec(), self.mreg());
        if self.wide {
            let neg = self.kreg();
            let lt = self.code(if big { ops::KPCMPQ } else { ops::KPCMPD }, w)?;
            self.op(lt, &[def(neg, W::K), use_(v, w), use_(zero, w), Op::I(1)]);
            self.vmov(r, v, w)?;
            let c = self.code(add, w)?;
            self.op_k(c, &[def(r, w), use_(r, w), use_(b, w)], neg, false);
            let lower = self.kreg();
            self.op(lt, &[def(lower, W::K), use_(r, w), use_(b, w), Op::I(1)]);
            // and not below zero: compare under that mask
            self.op_k(lt, &[def(ok, W::K), use_(zero, w), use_(r, w), Op::I(2)], lower, false);
            let c = self.code(ops::MOVAPS, w)?;
            let c = if big { self.code(ops::MOVUPD, w)? } else { c };
            let bits = self.mask_bits(ok, t.lanes);
            self.op_k(c, &[def(d, w), use_(r, w)], ok, true);
            self.report(bits, t.lanes);
            return Ok(());
        }
        let gt = if big { ops::PCMPGTQ } else { ops::PCMPGTD };
        let (neg, add_v, low, good) = (self.vec(), self.vec(), self.vec(), self.vec());
        self.op3(gt, w, neg, zero, use_(v, w))?;
        self.op3(and(big), w, add_v, neg, use_(b, w))?;
        self.op3(add, w, r, v, use_(add_v, w))?;
        self.op3(gt, w, low, zero, use_(r, w))?;
        self.op3(gt, w, good, b, use_(r, w))?;
        self.op3(ops::PANDND, w, good, low, use_(good, w))?;
        self.op3(and(big), w, d, r, use_(good, w))?;
        let m = if big {
            self.narrowed(ok, good, w)?;
            ok
        } else {
            good
        };
        let bits = self.mask_bits(m, t.lanes);
        self.report(bits, t.lanes);
        Ok(())
    }

    /// Sets the status unless the bits of all lanes are on.
    fn report(&mut self, bits: V, lanes: u8) {
        let end = self.label();
        self.cmp_scalar(bits, Scalar::Const((1i64 << lanes) - 1));
        self.jump(Code::Je_rel32_64, end);
        self.raise();
        self.place(end);
    }
}
