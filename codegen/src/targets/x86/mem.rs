//! Loads and stores of contiguous lanes, with conversion between memory and register elements.

use super::lir::*;
use super::ops::{self, Row};
use super::sel::*;
use crate::kir::*;
use hub_abi::Dtype;
use iced_x86::Code;

/// The load that widens `dtype` to whole lanes of `t`, if one instruction does.
fn widening(t: RegTy, dtype: Dtype) -> Option<&'static Row> {
    use Dtype::*;
    Some(match (t.elem, dtype) {
        (Elem::F32, F32) => ops::MOVUPS,
        (Elem::F64, F64) | (Elem::I64, I64 | U64) => ops::MOVUPD,
        (Elem::I32, I32 | U32) => ops::MOVUPS,
        (Elem::F32, F16) => ops::CVTPH2PS,
        (Elem::F32, BF16) => ops::PMOVZXWD,
        (Elem::F64, F32) => ops::CVTPS2PD,
        (Elem::I32, I16) => ops::PMOVSXWD,
        (Elem::I32, U16) => ops::PMOVZXWD,
        (Elem::I32, I8) => ops::PMOVSXBD,
        (Elem::I32, U8 | Bool) => ops::PMOVZXBD,
        (Elem::I64, I32) => ops::PMOVSXDQ,
        (Elem::I64, U32) => ops::PMOVZXDQ,
        (Elem::I64, I16) => ops::PMOVSXWQ,
        (Elem::I64, U16) => ops::PMOVZXWQ,
        (Elem::I64, I8) => ops::PMOVSXBQ,
        (Elem::I64, U8 | Bool) => ops::PMOVZXBQ,
        _ => return None,
    })
}

impl Sel<'_> {
    /// Emits a `Load` or `LoadSplat`.
    pub fn load_now(&mut self, i: &Inst) -> Res<()> {
        match i {
            Inst::Load { dst, addr, dtype, mask } => {
                let m = self.mem(addr)?;
                let k = match mask {
                    Some(k) => Some(self.src(*k)?),
                    None => None,
                };
                let (t, d) = (self.ty(*dst), self.dst(*dst));
                match k {
                    Some(k) => self.load_masked(t, d, m, *dtype, k),
                    None => self.load(t, d, m, *dtype),
                }
            }
            Inst::LoadSplat { dst, addr, dtype } => {
                let m = self.mem(addr)?;
                let (t, d) = (self.ty(*dst), self.dst(*dst));
                self.load_splat(t, d, m, *dtype)
            }
            _ => self.unsupported("not a load"),
        }
    }

    /// One element of the register's own size into lane 0.
    pub fn load_scalar(&mut self, t: RegTy, d: V, m: Mem) {
        let c = match t.elem {
            Elem::F32 => Code::VEX_Vmovss_xmm_m32,
            Elem::F64 => Code::VEX_Vmovsd_xmm_m64,
            _ => Code::VEX_Vmovd_xmm_rm32,
        };
        self.op(c, &[def(d, W::X), Op::M(m)]);
        self.evex();
    }

    /// All lanes.
    pub fn load(&mut self, t: RegTy, d: V, m: Mem, dtype: Dtype) -> Res<()> {
        if Self::is_gpr(t) {
            self.gpr_load(d, m, dtype);
            return Ok(());
        }
        let w = self.w(t)?;
        if t.lanes == 1 {
            return self.load_one(t, d, m, dtype);
        }
        let Some(row) = widening(t, dtype) else {
            return self.unsupported(format!("load of {dtype} to {t}"));
        };
        self.op2(row, w, d, Op::M(m))?;
        if dtype == Dtype::BF16 {
            let c = self.code(ops::PSLLD, w)?;
            self.op(c, &[def(d, w), use_(d, w), Op::I(16)]);
        }
        Ok(())
    }

    fn load_one(&mut self, t: RegTy, d: V, m: Mem, dtype: Dtype) -> Res<()> {
        if dtype.size() == t.elem.size() {
            self.load_scalar(t, d, m);
            return Ok(());
        }
        if t.elem == Elem::F64 {
            let x = self.vec();
            self.load_scalar(t.with(Elem::F32), x, m);
            return self.op2(ops::CVTPS2PD, W::X, d, use_(x, W::X));
        }
        let g = self.gpr();
        self.gpr_load(g, m, dtype);
        if dtype == Dtype::BF16 {
            self.shift_imm(Code::Shl_rm64_imm8, g, 16);
        }
        self.op(Code::VEX_Vmovd_xmm_rm32, &[def(d, W::X), use_(g, W::B32)]);
        self.evex();
        if dtype == Dtype::F16 {
            return self.op2(ops::CVTPH2PS, W::X, d, use_(d, W::X));
        }
        Ok(())
    }

    fn load_splat(&mut self, t: RegTy, d: V, m: Mem, dtype: Dtype) -> Res<()> {
        if t.lanes == 1 {
            return self.load(t, d, m, dtype);
        }
        let w = self.w(t)?;
        if dtype.size() == t.elem.size() {
            let row = if t.elem.size() == 8 { ops::PBROADCASTQ } else { ops::BROADCASTSS_M };
            return self.op2(row, w, d, Op::M(m));
        }
        if dtype == Dtype::BF16 {
            self.op2(ops::PBROADCASTW, w, d, Op::M(m))?;
            let c = self.code(ops::PSLLD, w)?;
            self.op(c, &[def(d, w), use_(d, w), Op::I(16)]);
            return Ok(());
        }
        let one = RegTy { lanes: 1, ..t };
        if t.elem == Elem::I64 {
            let g = self.gpr();
            self.gpr_load(g, m, dtype);
            let x = self.vec();
            self.op(Code::VEX_Vmovq_xmm_rm64, &[def(x, W::X), use_(g, W::B64)]);
            self.evex();
            return self.op2(ops::PBROADCASTQ, w, d, use_(x, W::X));
        }
        let x = self.vec();
        self.load_one(one, x, m, dtype)?;
        let row = if t.elem.size() == 8 { ops::PBROADCASTQ } else { ops::BROADCASTSS };
        self.op2(row, w, d, use_(x, W::X))
    }

    /// A mask whose lanes beyond the first are off (AVX2 scalars).
    fn first_only(&mut self, m: V) -> Res<V> {
        let mut bytes = vec![0u8; 16];
        bytes[..4].fill(0xff);
        let (p, v) = (self.pool_mem(bytes), self.vec());
        self.op3(ops::PANDD, W::X, v, m, Op::M(p))?;
        Ok(v)
    }

    fn load_masked(&mut self, t: RegTy, d: V, m: Mem, dtype: Dtype, k: V) -> Res<()> {
        let same = dtype.size() == t.elem.size();
        if Self::is_gpr(t) || (t.lanes == 1 && !same) {
            return self.load_if(t, d, m, dtype, k);
        }
        let w = self.w(t)?;
        if self.wide && t.lanes == 1 {
            let c = if t.elem.size() == 8 {
                Code::EVEX_Vmovsd_xmm_k1z_m64
            } else {
                Code::EVEX_Vmovss_xmm_k1z_m32
            };
            self.op_k(c, &[def(d, W::X), Op::M(m)], k, true);
            return Ok(());
        }
        if self.wide {
            let Some(row) = widening(t, dtype) else {
                return self.unsupported(format!("load of {dtype} to {t}"));
            };
            let c = self.code(row, w)?;
            self.op_k(c, &[def(d, w), Op::M(m)], k, true);
            if dtype == Dtype::BF16 {
                let c = self.code(ops::PSLLD, w)?;
                self.op(c, &[def(d, w), use_(d, w), Op::I(16)]);
            }
            return Ok(());
        }
        if !same {
            let from = self.stage_lanes(t, m, dtype, Some(k))?;
            return self.load(t, d, from, dtype);
        }
        let k = if t.lanes == 1 { self.first_only(k)? } else { k };
        let k = self.widened(k, t)?;
        let row = if t.elem.size() == 8 { ops::MASKMOVPD } else { ops::MASKMOVPS };
        let c = self.code(row, w)?;
        self.op(c, &[def(d, w), use_(k, w), Op::M(m)]);
        Ok(())
    }

    /// A one-lane load behind a branch.
    fn load_if(&mut self, t: RegTy, d: V, m: Mem, dtype: Dtype, k: V) -> Res<()> {
        let bits = self.mask_bits(k, 1);
        let (end, tmp) =
            (self.label(), self.fresh(if Self::is_gpr(t) { Class::Gpr } else { Class::Vec }));
        if Self::is_gpr(t) {
            self.mov_imm(tmp, 0);
        } else {
            self.zero(tmp);
        }
        self.test(bits);
        self.jump(Code::Je_rel32_64, end);
        self.load(t, tmp, m, dtype)?;
        self.place(end);
        if Self::is_gpr(t) {
            self.mov(d, tmp);
            return Ok(());
        }
        self.vmov(d, tmp, W::X)
    }

    pub fn store(&mut self, src: Reg, addr: &Addr, dtype: Dtype, mask: Option<Reg>) -> Res<()> {
        let t = self.ty(src);
        let v = self.src(src)?;
        let k = match mask {
            Some(k) => Some(self.src(k)?),
            None => None,
        };
        let m = self.mem(addr)?;
        let one = t.lanes == 1;
        if let (Some(k), true) = (k, one) {
            let (bits, end) = (self.mask_bits(k, 1), self.label());
            self.test(bits);
            self.jump(Code::Je_rel32_64, end);
            self.store_all(t, v, m, dtype)?;
            self.place(end);
            return Ok(());
        }
        match k {
            None => self.store_all(t, v, m, dtype),
            // two f32 in half an xmm: bits of lanes that are not there must not count
            Some(k) if self.wide && !(t.lanes == 2 && dtype == Dtype::F32) => {
                let (c, w, v) = self.narrowing(t, v, dtype)?;
                let mut list = vec![Op::M(m), use_(v, w)];
                if dtype == Dtype::F16 {
                    list.push(Op::I(0));
                }
                self.op_k(c, &list, k, false);
                Ok(())
            }
            Some(k) if dtype.size() == t.elem.size() => {
                let (w, k) = (self.w(t)?, self.widened(k, t)?);
                let big = t.elem.size() == 8;
                let c = self.code(if big { ops::MASKMOVPD_ST } else { ops::MASKMOVPS_ST }, w)?;
                self.op(c, &[Op::M(m), use_(k, w), use_(v, w)]);
                Ok(())
            }
            Some(k) => {
                self.store_all(t, v, Mem::frame(STAGE), dtype)?;
                self.copy_lanes(t.lanes, m, None, dtype.size(), Some(k))
            }
        }
    }

    /// The EVEX store of `v` as `dtype`: code, register width, and the register to store.
    fn narrowing(&mut self, t: RegTy, v: V, dtype: Dtype) -> Res<(Code, W, V)> {
        let w = self.w(t)?;
        let row = match (t.elem, dtype) {
            (Elem::F32, Dtype::F16) => ops::CVTPS2PH,
            (Elem::F32, Dtype::BF16) if self.bf16 && t.lanes >= 8 => {
                let x = self.vec();
                self.op2_narrow(ops::CVTNEPS2BF16, w, x, v)?;
                let half = if w == W::Z { W::Y } else { W::X };
                return Ok((self.code(ops::MOVDQU16_ST, half)?, half, x));
            }
            (Elem::F32, Dtype::BF16) => {
                let b = self.bf16_bits(t, v)?;
                return Ok((self.code(ops::PMOVDW, w)?, w, b));
            }
            (Elem::F64, Dtype::F32) => {
                let x = self.vec();
                self.op2_narrow(ops::CVTPD2PS, w, x, v)?;
                let half = if w == W::Z { W::Y } else { W::X };
                return Ok((self.code(ops::MOVUPS_ST, half)?, half, x));
            }
            (_, d) => match (t.elem.size(), d.size()) {
                (4, 4) => ops::MOVUPS_ST,
                (8, 8) => ops::MOVUPD_ST,
                (4, 2) => ops::PMOVDW,
                (4, _) => ops::PMOVDB,
                (_, 4) => ops::PMOVQD,
                (_, 2) => ops::PMOVQW,
                _ => ops::PMOVQB,
            },
        };
        Ok((self.code(row, w)?, w, v))
    }

    /// bf16 of each f32 lane in its low 16 bits: nearest even, NaN kept quiet.
    fn bf16_bits(&mut self, t: RegTy, v: V) -> Res<V> {
        let w = self.w(t)?;
        let it = t.with(Elem::I32);
        let (hi, lsb, r, q) = (self.vec(), self.vec(), self.vec(), self.vec());
        let srl = self.code(ops::PSRLD, w)?;
        self.op(srl, &[def(hi, w), use_(v, w), Op::I(16)]);
        let one = self.const_mem(it, 1, false)?;
        self.op3(ops::PANDD, w, lsb, hi, Op::M(one))?;
        let bias = self.const_mem(it, 0x7fff, false)?;
        self.op3(ops::PADDD, w, r, v, Op::M(bias))?;
        self.op3(ops::PADDD, w, r, r, use_(lsb, w))?;
        self.op(srl, &[def(r, w), use_(r, w), Op::I(16)]);
        let quiet = self.const_mem(it, 0x40, false)?;
        self.op3(ops::PORD, w, q, hi, Op::M(quiet))?;
        let (nan, d) = (self.mreg(), self.vec());
        let cmp = self.code(ops::CMPPS, w)?;
        let (mw, three) = (if self.wide { W::K } else { w }, Op::I(3));
        self.op(cmp, &[def(nan, mw), use_(v, w), use_(v, w), three]);
        self.blend(it, w, d, nan, use_(q, w), r)?;
        Ok(d)
    }

    /// Stores every lane.
    pub fn store_all(&mut self, t: RegTy, v: V, m: Mem, dtype: Dtype) -> Res<()> {
        if Self::is_gpr(t) {
            self.gpr_store(m, v, dtype.size());
            return Ok(());
        }
        if t.lanes == 1 {
            return self.store_one(t, v, m, dtype);
        }
        let w = self.w(t)?;
        if t.elem == Elem::F64 && dtype == Dtype::F32 {
            let x = self.vec();
            self.op2_narrow(ops::CVTPD2PS, w, x, v)?;
            return self.store_bytes(x, m, t.lanes as usize * 4);
        }
        if self.wide || dtype == Dtype::F16 || dtype.size() == t.elem.size() {
            let (c, w, v) = self.narrowing(t, v, dtype)?;
            let mut list = vec![Op::M(m), use_(v, w)];
            if dtype == Dtype::F16 {
                list.push(Op::I(0));
            }
            self.op(c, &list);
            return Ok(());
        }
        self.store_narrow_vex(t, v, m, dtype)
    }

    /// The low `n` bytes (2 and more) of a vector register.
    fn store_bytes(&mut self, v: V, m: Mem, n: usize) -> Res<()> {
        if n == 2 {
            let g = self.gpr();
            self.op(Code::VEX_Vmovd_rm32_xmm, &[def(g, W::B32), use_(v, W::X)]);
            self.evex();
            self.gpr_store(m, g, 2);
            return Ok(());
        }
        let (c, w) = match n {
            4 => (Code::VEX_Vmovss_m32_xmm, W::X),
            8 => (Code::VEX_Vmovq_xmmm64_xmm, W::X),
            16 => (self.code(ops::MOVUPS_ST, W::X)?, W::X),
            _ => (self.code(ops::MOVUPS_ST, W::Y)?, W::Y),
        };
        self.op(c, &[Op::M(m), use_(v, w)]);
        self.evex();
        Ok(())
    }

    fn store_one(&mut self, t: RegTy, v: V, m: Mem, dtype: Dtype) -> Res<()> {
        let mut x = v;
        match (t.elem, dtype) {
            (Elem::F32, Dtype::F16) => {
                x = self.vec();
                let c = self.code(ops::CVTPS2PH, W::X)?;
                self.op(c, &[def(x, W::X), use_(v, W::X), Op::I(0)]);
            }
            (Elem::F32, Dtype::BF16) => x = self.bf16_bits(t, v)?,
            (Elem::F64, Dtype::F32) => {
                x = self.vec();
                self.op2_narrow(ops::CVTPD2PS, W::X, x, v)?;
            }
            _ => {}
        }
        match dtype.size() {
            8 => {
                self.op(Code::VEX_Vmovsd_m64_xmm, &[Op::M(m), use_(x, W::X)]);
                self.evex();
            }
            4 => {
                self.op(Code::VEX_Vmovss_m32_xmm, &[Op::M(m), use_(x, W::X)]);
                self.evex();
            }
            n => {
                let g = self.gpr();
                self.op(Code::VEX_Vmovd_rm32_xmm, &[def(g, W::B32), use_(x, W::X)]);
                self.evex();
                self.gpr_store(m, g, n);
            }
        }
        Ok(())
    }

    /// AVX2: keeps the low bits of each lane and packs.
    fn store_narrow_vex(&mut self, t: RegTy, v: V, m: Mem, dtype: Dtype) -> Res<()> {
        let lanes = t.lanes as usize;
        let (mut v, mut t) = (v, t);
        if dtype == Dtype::BF16 {
            v = self.bf16_bits(t, v)?;
        }
        if t.elem == Elem::I64 {
            let x = self.vec();
            let w = self.w(t)?;
            self.narrowed(x, v, w)?;
            (v, t) = (x, RegTy::new(Elem::I32, 4));
            if dtype.size() == 4 {
                return self.store_bytes(v, m, lanes * 4);
            }
        }
        let w = self.w(t)?;
        let keep = if dtype.size() == 1 { 0xff } else { 0xffff };
        let k = self.const_mem(t.with(Elem::I32), keep, false)?;
        let (x, p) = (self.vec(), self.vec());
        self.op3(ops::PANDD, w, x, v, Op::M(k))?;
        let hi = if w == W::Y { self.half(t, x, 1)? } else { x };
        self.op3(ops::PACKUSDW, W::X, p, x, use_(hi, W::X))?;
        if dtype.size() == 1 {
            self.op3(ops::PACKUSWB, W::X, p, p, use_(p, W::X))?;
            return self.store_bytes(p, m, lanes);
        }
        self.store_bytes(p, m, lanes * 2)
    }
}
