//! Conversions between elements.

use super::lir::*;
use super::ops::{self, Row};
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;

impl Sel<'_> {
    pub fn bitcast(&mut self, dst: Reg, a: Reg) -> Res<()> {
        let (t, s) = (self.ty(dst), self.ty(a));
        let v = self.src(a)?;
        let d = self.dst(dst);
        match (Self::is_gpr(t), Self::is_gpr(s)) {
            (true, true) => self.mov(d, v),
            (true, false) => {
                self.op(Code::VEX_Vmovq_rm64_xmm, &[def(d, W::B64), use_(v, W::X)]);
                self.evex();
            }
            (false, true) => {
                self.op(Code::VEX_Vmovq_xmm_rm64, &[def(d, W::X), use_(v, W::B64)]);
                self.evex();
            }
            _ => {
                return {
                    let w = self.w(t)?;
                    self.vmov(d, v, w)
                };
            }
        }
        Ok(())
    }

    /// Turns the instruction just emitted into its EVEX form on the AVX-512 tier, where its vector
    /// operand may be any of 32 registers.
    pub fn evex(&mut self) {
        if !self.wide {
            return;
        }
        let Some(Item::Inst(i)) = self.p.items.last_mut() else { return };
        i.code = match i.code {
            Code::VEX_Vmovq_rm64_xmm => Code::EVEX_Vmovq_rm64_xmm,
            Code::VEX_Vmovq_xmm_rm64 => Code::EVEX_Vmovq_xmm_rm64,
            Code::VEX_Vmovd_rm32_xmm => Code::EVEX_Vmovd_rm32_xmm,
            Code::VEX_Vmovd_xmm_rm32 => Code::EVEX_Vmovd_xmm_rm32,
            Code::VEX_Vmovss_xmm_m32 => Code::EVEX_Vmovss_xmm_k1z_m32,
            Code::VEX_Vmovsd_xmm_m64 => Code::EVEX_Vmovsd_xmm_k1z_m64,
            Code::VEX_Vmovss_m32_xmm => Code::EVEX_Vmovss_m32_k1_xmm,
            Code::VEX_Vmovsd_m64_xmm => Code::EVEX_Vmovsd_m64_k1_xmm,
            Code::VEX_Vmovq_xmmm64_xmm => Code::EVEX_Vmovq_xmmm64_xmm,
            Code::VEX_Vmovq_xmm_xmmm64 => Code::EVEX_Vmovq_xmm_xmmm64,
            Code::VEX_Vcvtsi2ss_xmm_xmm_rm64 => Code::EVEX_Vcvtsi2ss_xmm_xmm_rm64_er,
            Code::VEX_Vcvtsi2sd_xmm_xmm_rm64 => Code::EVEX_Vcvtsi2sd_xmm_xmm_rm64_er,
            Code::VEX_Vcvttss2si_r64_xmmm32 => Code::EVEX_Vcvttss2si_r64_xmmm32_sae,
            Code::VEX_Vcvttsd2si_r64_xmmm64 => Code::EVEX_Vcvttsd2si_r64_xmmm64_sae,
            Code::VEX_Vcvtss2si_r64_xmmm32 => Code::EVEX_Vcvtss2si_r64_xmmm32_er,
            Code::VEX_Vcvtsd2si_r64_xmmm64 => Code::EVEX_Vcvtsd2si_r64_xmmm64_er,
            Code::VEX_Vucomiss_xmm_xmmm32 => Code::EVEX_Vucomiss_xmm_xmmm32_sae,
            Code::VEX_Vucomisd_xmm_xmmm64 => Code::EVEX_Vucomisd_xmm_xmmm64_sae,
            c => c,
        };
    }

    pub fn cvt(&mut self, dst: Reg, a: Reg, mode: CvtMode) -> Res<()> {
        let (t, s) = (self.ty(dst), self.ty(a));
        let v = self.src(a)?;
        let d = self.dst(dst);
        if t == s {
            if Self::is_gpr(t) {
                self.mov(d, v);
                return Ok(());
            }
            let w = self.w(t)?;
            return self.vmov(d, v, w);
        }
        match (Self::is_gpr(s), Self::is_gpr(t)) {
            (true, _) => self.gpr_to_vec(t, d, v),
            (_, true) => self.float_to_gpr(s, d, v, mode),
            _ => self.cvt_vec(t, s, d, v, mode),
        }
    }

    fn gpr_to_vec(&mut self, t: RegTy, d: V, v: V) -> Res<()> {
        if t.elem == Elem::I32 {
            self.op(Code::VEX_Vmovd_xmm_rm32, &[def(d, W::X), use_(v, W::B32)]);
        } else {
            let c = if t.elem == Elem::F32 {
                Code::VEX_Vcvtsi2ss_xmm_xmm_rm64
            } else {
                Code::VEX_Vcvtsi2sd_xmm_xmm_rm64
            };
            let z = self.vec();
            self.zero(z);
            self.op(c, &[def(d, W::X), use_(z, W::X), use_(v, W::B64)]);
        }
        self.evex();
        Ok(())
    }

    fn float_to_gpr(&mut self, s: RegTy, d: V, v: V, mode: CvtMode) -> Res<()> {
        if s.elem == Elem::I32 {
            let t = self.gpr();
            self.op(Code::VEX_Vmovd_rm32_xmm, &[def(t, W::B32), use_(v, W::X)]);
            self.evex();
            self.op(Code::Movsxd_r64_rm32, &[def(d, W::B64), use_(t, W::B32)]);
            return Ok(());
        }
        let single = s.elem == Elem::F32;
        let c = match (single, mode) {
            (true, CvtMode::As) => Code::VEX_Vcvttss2si_r64_xmmm32,
            (false, CvtMode::As) => Code::VEX_Vcvttsd2si_r64_xmmm64,
            (true, _) => Code::VEX_Vcvtss2si_r64_xmmm32,
            (false, _) => Code::VEX_Vcvtsd2si_r64_xmmm64,
        };
        let t = self.gpr();
        self.op(c, &[def(t, W::B64), use_(v, W::X)]);
        self.evex();
        if mode == CvtMode::As {
            // out of range gave MIN: NaN becomes 0, large values MAX
            let (limit, ucomi) = if single {
                (0x5f00_0000u32.to_le_bytes().to_vec(), Code::VEX_Vucomiss_xmm_xmmm32)
            } else {
                (0x43e0_0000_0000_0000u64.to_le_bytes().to_vec(), Code::VEX_Vucomisd_xmm_xmmm64)
            };
            let m = self.pool_mem(limit);
            let (end, nan) = (self.label(), self.label());
            self.op(ucomi, &[use_(v, W::X), Op::M(m)]);
            self.evex();
            self.jump(Code::Jp_rel32_64, nan);
            self.jump(Code::Jb_rel32_64, end);
            self.mov_imm(t, i64::MAX);
            self.jump(Code::Jmp_rel32_64, end);
            self.place(nan);
            self.mov_imm(t, 0);
            self.place(end);
        }
        self.mov(d, t);
        Ok(())
    }

    fn cvt_vec(&mut self, t: RegTy, s: RegTy, d: V, v: V, mode: CvtMode) -> Res<()> {
        use Elem::*;
        let (wt, ws) = (self.w(t)?, self.w(s)?);
        match (s.elem, t.elem) {
            (I32, F32) => self.op2(ops::CVTDQ2PS, wt, d, use_(v, ws)),
            (I32, F64) => self.op2(ops::CVTDQ2PD, wt, d, use_(v, ws)),
            (F32, F64) => self.op2(ops::CVTPS2PD, wt, d, use_(v, ws)),
            (I32, I64) => self.op2(ops::PMOVSXDQ, wt, d, use_(v, ws)),
            (F64, F32) => self.op2_narrow(ops::CVTPD2PS, ws, d, v),
            (I64, I32) if self.wide => self.op2_narrow(ops::PMOVQD, ws, d, v),
            (I64, I32) => self.narrowed(d, v, ws),
            (I64, F64) if self.wide => self.op2(ops::CVTQQ2PD, wt, d, use_(v, ws)),
            (I64, F32) if self.wide => self.op2_narrow(ops::CVTQQ2PS, ws, d, v),
            (F32 | F64, I32) => self.float_to_int(t, s, d, v, mode),
            (F32 | F64, I64) if self.wide => self.float_to_int(t, s, d, v, mode),
            (I64, _) => self.lanewise_mixed(t, s, d, v, &mut |m, to, x| {
                let f = m.vec();
                m.gpr_to_vec(RegTy { lanes: 1, ..t }, f, x)?;
                m.vec_to_gpr(to, f);
                Ok(())
            }),
            (_, I64) => self.lanewise_mixed(t, s, d, v, &mut |m, to, x| {
                let f = m.vec();
                m.op(Code::VEX_Vmovq_xmm_rm64, &[def(f, W::X), use_(x, W::B64)]);
                m.float_to_gpr(RegTy { lanes: 1, ..s }, to, f, mode)
            }),
            _ => self.unsupported(format!("conversion from {s} to {t}")),
        }
    }

    /// The low 64 bits of a vector register.
    pub fn vec_to_gpr(&mut self, d: V, v: V) {
        self.op(Code::VEX_Vmovq_rm64_xmm, &[def(d, W::B64), use_(v, W::X)]);
        self.evex();
    }

    fn float_to_int(&mut self, t: RegTy, s: RegTy, d: V, v: V, mode: CvtMode) -> Res<()> {
        use Elem::*;
        let (wt, ws) = (self.w(t)?, self.w(s)?);
        let round = mode == CvtMode::Round;
        let raw = if round { d } else { self.vec() };
        let narrow = s.elem == F64 && t.elem == I32;
        let row: &Row = match (s.elem, t.elem, round) {
            (F32, I32, true) => ops::CVTPS2DQ,
            (F32, I32, _) => ops::CVTTPS2DQ,
            (F64, I32, true) => ops::CVTPD2DQ,
            (F64, I32, _) => ops::CVTTPD2DQ,
            (F32, _, true) => ops::CVTPS2QQ,
            (F32, _, _) => ops::CVTTPS2QQ,
            (_, _, true) => ops::CVTPD2QQ,
            (_, _, _) => ops::CVTTPD2QQ,
        };
        if narrow {
            self.op2_narrow(row, ws, raw, v)?;
        } else {
            self.op2(row, wt, raw, use_(v, ws))?;
        }
        if round {
            return Ok(());
        }
        // out of range gave MIN, all of whose bits flip to MAX; then NaN becomes 0
        let limit = if t.elem == I32 { 2f64.powi(31) } else { 2f64.powi(63) };
        let bits = if s.elem == F32 { (limit as f32).to_bits() as u64 } else { limit.to_bits() };
        let k = Op::M(self.const_mem(s, bits, false)?);
        let cmp = self.code(if s.elem == F32 { ops::CMPPS } else { ops::CMPPD }, ws)?;
        if self.wide {
            let (big, some) = (self.kreg(), self.kreg());
            self.op(cmp, &[def(big, W::K), use_(v, ws), k, Op::I(0x1d)]);
            self.op(cmp, &[def(some, W::K), use_(v, ws), use_(v, ws), Op::I(7)]);
            let ones = Op::M(self.const_mem(t, u64::MAX, false)?);
            let q = t.elem == I64;
            let x = self.code(if q { ops::PXORQ } else { ops::PXORD }, wt)?;
            self.op_k(x, &[def(raw, wt), use_(raw, wt), ones], big, false);
            let c = self.code(if q { ops::MOVUPD } else { ops::MOVUPS }, wt)?;
            self.op_k(c, &[def(d, wt), use_(raw, wt)], some, true);
            return Ok(());
        }
        let (mut big, mut some) = (self.vec(), self.vec());
        self.op(cmp, &[def(big, ws), use_(v, ws), k, Op::I(0x1d)]);
        self.op(cmp, &[def(some, ws), use_(v, ws), use_(v, ws), Op::I(7)]);
        if narrow {
            let (b, s) = (self.vec(), self.vec());
            self.narrowed(b, big, ws)?;
            self.narrowed(s, some, ws)?;
            (big, some) = (b, s);
        }
        self.op3(ops::PXORD, wt, raw, raw, use_(big, wt))?;
        self.op3(ops::PANDD, wt, d, raw, use_(some, wt))
    }
}
