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
        if let Some((row, p, q, imm)) = short_shuffle(sel, size, w, self.wide) {
            let c = self.code(row, w)?;
            let v = |which: u8| if which == 0 { x } else { y };
            let d = self.dst(dst);
            let mut list = vec![def(d, w), use_(v(p), w), use_(v(q), w)];
            list.extend(imm.map(Op::I));
            self.op(c, &list);
            return Ok(());
        }
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

/// The one instruction that does a permutation without an index vector, if there is one: its row,
/// which operand (0 or 1) goes first and second, and its immediate. In units of 32 bits.
fn short_shuffle(
    sel: &[u8],
    size: usize,
    w: W,
    wide: bool,
) -> Option<(&'static ops::Row, u8, u8, Option<i64>)> {
    let words = size / 4;
    let n = (sel.len() * words) as u8;
    // (operand, word) of each word of the result
    let from: Vec<(u8, u8)> = sel
        .iter()
        .flat_map(|s| (0..words as u8).map(move |k| s * words as u8 + k))
        .map(|s| (s / n, s % n))
        .collect();
    let blocks = whole_lanes(&from);
    match (blocks.as_deref(), w) {
        (Some([(p, i), (q, j)]), W::Y) if wide => {
            return Some((ops::SHUF128, *p, *q, Some((i | j << 1) as i64)));
        }
        (Some([(p, i), (q, j)]), W::Y) => {
            let imm = (p * 2 + i) | (q * 2 + j) << 4;
            return Some((ops::SHUF128, 0, 1, Some(imm as i64)));
        }
        (Some([(p, i), (p2, j), (q, k), (q2, l)]), W::Z) if p == p2 && q == q2 => {
            return Some((ops::SHUF128, *p, *q, Some((i | j << 2 | k << 4 | l << 6) as i64)));
        }
        _ => {}
    }
    // the same pattern within every 128-bit lane
    let first = &from[..4];
    if first.iter().any(|f| f.1 > 3) {
        return None;
    }
    let repeats = from
        .chunks(4)
        .enumerate()
        .all(|(lane, c)| c.iter().zip(first).all(|(x, f)| *x == (f.0, f.1 + 4 * lane as u8)));
    if !repeats {
        return None;
    }
    let [(p, i), (q, j), (r, k), (s, l)] = [first[0], first[1], first[2], first[3]];
    if (p, q) == (r, s) && (k, l) == (i + 1, j + 1) && i == j {
        match i {
            0 => return Some((ops::UNPCKLPS, p, q, None)),
            2 => return Some((ops::UNPCKHPS, p, q, None)),
            _ => {}
        }
    }
    let imm = (i | j << 2 | k << 4 | l << 6) as i64;
    (p == q && r == s).then_some((ops::SHUFPS, p, r, Some(imm)))
}

/// The (operand, lane) that each 128-bit lane is a copy of, if each is one.
fn whole_lanes(from: &[(u8, u8)]) -> Option<Vec<(u8, u8)>> {
    from.chunks(4)
        .map(|c| {
            let start = c[0];
            let run = c.iter().enumerate().all(|(k, x)| *x == (start.0, start.1 + k as u8));
            (run && start.1 % 4 == 0).then_some((start.0, start.1 / 4))
        })
        .collect()
}
