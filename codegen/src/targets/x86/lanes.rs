//! Across lanes: halves, reductions, extraction and constant permutations.

use super::lir::*;
use super::ops;
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;

impl Sel<'_> {
    /// The low or high half of a register's lanes, in the low lanes of the result.
    pub fn half(&mut self, t: RegTy, v: V, which: u8) -> Res<V> {
        if which == 0 {
            return Ok(v);
        }
        let d = self.vec();
        match t.lanes as usize * t.elem.size() {
            64 => {
                let c = Code::EVEX_Vextracti64x4_ymmm256_k1z_zmm_imm8;
                self.op(c, &[def(d, W::Y), use_(v, W::Z), Op::I(1)]);
            }
            32 => self.quarter(d, v, W::Y, 1),
            _ => {
                let pattern = if t.lanes == 2 && t.elem.size() == 4 { 1 } else { 0x0e };
                self.shuf(d, v, pattern)?;
            }
        }
        Ok(d)
    }

    /// 128 bits number `n` of a wider register.
    fn quarter(&mut self, d: V, v: V, w: W, n: i64) {
        let c = match (self.wide, w) {
            (false, _) => Code::VEX_Vextracti128_xmmm128_ymm_imm8,
            (true, W::Y) => Code::EVEX_Vextracti32x4_xmmm128_k1z_ymm_imm8,
            _ => Code::EVEX_Vextracti32x4_xmmm128_k1z_zmm_imm8,
        };
        self.op(c, &[def(d, W::X), use_(v, w), Op::I(n)]);
    }

    fn shuf(&mut self, d: V, v: V, pattern: i64) -> Res<()> {
        let c = self.code(ops::SHUFPS, W::X)?;
        self.op(c, &[def(d, W::X), use_(v, W::X), use_(v, W::X), Op::I(pattern)]);
        Ok(())
    }

    /// Two halves side by side.
    pub fn join(&mut self, t: RegTy, d: V, lo: V, hi: V) -> Res<()> {
        let (c, w, h) = match (self.wide, self.w(t)?) {
            (_, W::Z) => (Code::EVEX_Vinserti64x4_zmm_k1z_zmm_ymmm256_imm8, W::Z, W::Y),
            (true, _) => (Code::EVEX_Vinserti32x4_ymm_k1z_ymm_xmmm128_imm8, W::Y, W::X),
            (false, _) => (Code::VEX_Vinserti128_ymm_ymm_xmmm128_imm8, W::Y, W::X),
        };
        self.op(c, &[def(d, w), use_(lo, w), use_(hi, h), Op::I(1)]);
        Ok(())
    }

    pub fn reduce(&mut self, op: ReduceOp, dst: Reg, a: Reg) -> Res<()> {
        let mut t = self.ty(a);
        let mut v = self.src(a)?;
        if t.lanes == 1 {
            let d = self.dst(dst);
            if Self::is_gpr(t) {
                self.mov(d, v);
                return Ok(());
            }
            return self.vmov(d, v, W::X);
        }
        while t.lanes > 1 {
            let hi = self.half(t, v, 1)?;
            let part = RegTy { lanes: t.lanes / 2, ..t };
            // below 128 bits whole registers are combined; the upper lanes do not matter
            let full = 16 / t.elem.size() as u8;
            let at = RegTy { lanes: part.lanes.max(full), ..t };
            let r = self.vec();
            self.vec_bin(op.bin(), at, r, v, use_(hi, self.w(at)?))?;
            (v, t) = (r, part);
        }
        let d = self.dst(dst);
        if t.elem == Elem::I64 {
            self.vec_to_gpr(d, v);
            return Ok(());
        }
        self.vmov(d, v, W::X)
    }

    pub fn extract(&mut self, dst: Reg, a: Reg, lane: u8) -> Res<()> {
        let t = self.ty(a);
        let v = self.src(a)?;
        let d = self.dst(dst);
        if Self::is_gpr(t) {
            self.mov(d, v);
            return Ok(());
        }
        let (per, w) = (16 / t.elem.size() as u8, self.w(t)?);
        let mut x = v;
        if lane / per > 0 {
            x = self.vec();
            self.quarter(x, v, w, (lane / per) as i64);
        }
        let within = lane % per;
        if within > 0 {
            let y = self.vec();
            self.shuf(y, x, if t.elem.size() == 8 { 0x0e } else { within as i64 })?;
            x = y;
        }
        if t.elem == Elem::I64 {
            self.vec_to_gpr(d, x);
            return Ok(());
        }
        self.vmov(d, x, W::X)
    }

    pub fn shuffle(&mut self, dst: Reg, a: Reg, b: Reg, sel: &[u8]) -> Res<()> {
        let t = self.ty(dst);
        let (w, size) = (self.w(t)?, t.elem.size());
        let (x, y) = (self.src(a)?, self.src(b)?);
        if self.wide {
            let bytes =
                sel.iter().flat_map(|s| (*s as u64).to_le_bytes()[..size].to_vec()).collect();
            let m = self.pool_mem(bytes);
            let i = self.vec();
            self.op2(ops::MOVUPS, w, i, Op::M(m))?;
            let row = if size == 8 { ops::PERMI2Q } else { ops::PERMI2D };
            let c = self.code(row, w)?;
            self.op(c, &[modify(i, w), use_(x, w), use_(y, w)]);
            let d = self.dst(dst);
            return self.vmov(d, i, w);
        }
        let n = t.lanes as usize;
        let mut parts = vec![];
        for (base, v) in [(0, x), (n, y)] {
            let mine = |s: u8| (base..base + n).contains(&(s as usize));
            if !sel.iter().any(|s| mine(*s)) {
                continue;
            }
            let r = self.vec();
            if w == W::X {
                let bytes = sel.iter().flat_map(|s| {
                    let from = mine(*s).then(|| (*s as usize - base) * size);
                    (0..size).map(move |k| from.map_or(0x80, |f| (f + k) as u8))
                });
                let m = self.pool_mem(bytes.collect());
                self.op3(ops::PSHUFB, w, r, v, Op::M(m))?;
            } else {
                let words = sel.iter().flat_map(|s| {
                    let from = if mine(*s) { (*s as usize - base) * size / 4 } else { 0 };
                    (0..size / 4).flat_map(move |k| ((from + k) as u32).to_le_bytes())
                });
                let m = self.pool_mem(words.collect());
                let i = self.vec();
                self.op2(ops::MOVUPS, w, i, Op::M(m))?;
                self.op3(ops::PERMD, w, r, i, use_(v, w))?;
            }
            parts.push(r);
        }
        let d = self.dst(dst);
        match parts[..] {
            [one] => self.vmov(d, one, w),
            [p, q] if w == W::X => self.op3(ops::PORD, w, d, p, use_(q, w)),
            [p, q] => {
                let bytes =
                    sel.iter().flat_map(|s| vec![if (*s as usize) < n { 0 } else { 0xff }; size]);
                let (m, k) = (self.pool_mem(bytes.collect()), self.vec());
                self.op2(ops::MOVUPS, w, k, Op::M(m))?;
                let c = self.code(ops::BLENDVPS, w)?;
                self.op(c, &[def(d, w), use_(p, w), use_(q, w), use_(k, w)]);
                Ok(())
            }
            _ => self.unsupported("an empty shuffle"),
        }
    }
}
