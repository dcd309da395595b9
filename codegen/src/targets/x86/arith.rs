//! Dispatch, and arithmetic on vectors and on scalars that live in vector registers.

use super::lir::*;
use super::ops::{self, Row};
use super::sel::*;
use crate::kir::*;
use iced_x86::Code;

/// Rounding immediates, with the inexact exception suppressed.
fn rounding(op: UnOp) -> Option<i64> {
    match op {
        UnOp::RoundEven => Some(8),
        UnOp::Floor => Some(9),
        UnOp::Ceil => Some(10),
        UnOp::Trunc => Some(11),
        _ => None,
    }
}

/// Rows of the three addition-chain forms: 132, 213, 231.
fn fma_rows(t: RegTy) -> [&'static Row; 3] {
    match (t.elem, t.lanes) {
        (Elem::F32, 1) => [ops::FMADD132SS, ops::FMADD213SS, ops::FMADD231SS],
        (Elem::F32, _) => [ops::FMADD132PS, ops::FMADD213PS, ops::FMADD231PS],
        (_, 1) => [ops::FMADD132SD, ops::FMADD213SD, ops::FMADD231SD],
        _ => [ops::FMADD132PD, ops::FMADD213PD, ops::FMADD231PD],
    }
}

fn float_row(op: BinOp, t: RegTy) -> Option<&'static Row> {
    use BinOp::*;
    let four = |ss, ps, sd, pd| match (t.elem, t.lanes) {
        (Elem::F32, 1) => Some(ss),
        (Elem::F32, _) => Some(ps),
        (_, 1) => Some(sd),
        _ => Some(pd),
    };
    match op {
        Add => four(ops::ADDSS, ops::ADDPS, ops::ADDSD, ops::ADDPD),
        Sub => four(ops::SUBSS, ops::SUBPS, ops::SUBSD, ops::SUBPD),
        Mul => four(ops::MULSS, ops::MULPS, ops::MULSD, ops::MULPD),
        Div => four(ops::DIVSS, ops::DIVPS, ops::DIVSD, ops::DIVPD),
        Min => four(ops::MINSS, ops::MINPS, ops::MINSD, ops::MINPD),
        Max => four(ops::MAXSS, ops::MAXPS, ops::MAXSD, ops::MAXPD),
        _ => None,
    }
}

fn int_row(op: BinOp, big: bool, wide: bool) -> Option<&'static Row> {
    use BinOp::*;
    let two = |d, q| Some(if big { q } else { d });
    // 64-bit forms that AVX2 lacks
    if big && !wide && matches!(op, Mul | Min | Max | UMin | UMax | Shr) {
        return None;
    }
    match op {
        Add => two(ops::PADDD, ops::PADDQ),
        Sub => two(ops::PSUBD, ops::PSUBQ),
        Mul => two(ops::PMULLD, ops::PMULLQ),
        Min => two(ops::PMINSD, ops::PMINSQ),
        Max => two(ops::PMAXSD, ops::PMAXSQ),
        UMin => two(ops::PMINUD, ops::PMINUQ),
        UMax => two(ops::PMAXUD, ops::PMAXUQ),
        And => two(ops::PANDD, ops::PANDQ),
        Or => two(ops::PORD, ops::PORQ),
        Xor => two(ops::PXORD, ops::PXORQ),
        AndNot => two(ops::PANDND, ops::PANDNQ),
        Shl => two(ops::PSLLVD, ops::PSLLVQ),
        Shr => two(ops::PSRAVD, ops::PSRAVQ),
        UShr => two(ops::PSRLVD, ops::PSRLVQ),
        Div | Rem => None,
    }
}

fn commutes(op: BinOp, t: RegTy) -> bool {
    use BinOp::*;
    let ints = matches!(op, Min | Max | UMin | UMax) && t.elem.is_int();
    matches!(op, Add | Mul | And | Or | Xor) || ints
}

impl Sel<'_> {
    /// Selects one instruction.
    pub fn inst(&mut self, i: &Inst) -> Res<()> {
        use Inst::*;
        match i {
            Const { dst, bits } => self.constant(*dst, *bits),
            Splat { dst, src } => self.splat(*dst, *src),
            Iota { dst } => self.iota(*dst),
            Index { dst, at } => {
                let d = self.dst(*dst);
                self.index_value(d, at);
                Ok(())
            }
            Un { op, dst, a } => self.un(*op, *dst, *a),
            Bin { op, dst, a, b } => self.bin(*op, *dst, *a, *b),
            Fma { dst, a, b, c } => self.fma(*dst, *a, *b, *c),
            Dot2 { dst, a, b, c } => self.dot2(*dst, *a, *b, *c),
            Cmp { op, dst, a, b } => self.cmp(*op, *dst, *a, *b),
            Lanes { dst, count } => self.first_lanes(*dst, *count),
            Select { dst, mask, a, b } => self.select(*dst, *mask, *a, *b),
            Cvt { dst, a, mode } => self.cvt(*dst, *a, *mode),
            Bitcast { dst, a } => self.bitcast(*dst, *a),
            Scale2 { dst, a, n } => self.scale2(*dst, *a, *n),
            Load { .. } | LoadSplat { .. } => self.load_now(i),
            Store { src, addr, dtype, mask } => self.store(*src, addr, *dtype, *mask),
            LoadStrided { .. } | Gather { .. } => self.load_apart(i),
            StoreStrided { .. } => self.store_apart(i),
            Reduce { op, dst, a } => self.reduce(*op, *dst, *a),
            Extract { dst, a, lane } => self.extract(*dst, *a, *lane),
            Shuffle { dst, a, b, sel } => self.shuffle(*dst, *a, *b, sel),
            Prefetch { addr, level } => {
                let m = self.mem(addr)?;
                let c = match level {
                    0 | 1 => Code::Prefetcht0_m8,
                    2 => Code::Prefetcht1_m8,
                    _ => Code::Prefetcht2_m8,
                };
                self.op(c, &[Op::M(m)]);
                Ok(())
            }
            CheckIndex { dst, idx, bound } => self.check_index(*dst, *idx, *bound),
            SetStatus { mask } => self.set_status(*mask),
            Barrier => self.unsupported("a barrier"),
            TileConfig { .. }
            | TileZero { .. }
            | TileLoad { .. }
            | TileStore { .. }
            | TileDot2 { .. } => self.tile(i),
        }
    }

    fn constant(&mut self, dst: Reg, bits: u64) -> Res<()> {
        let t = self.ty(dst);
        if self.consts[dst.0 as usize].is_some() {
            return Ok(());
        }
        if t.elem == Elem::Mask {
            return self.mask_const(dst, bits != 0);
        }
        let d = self.dst(dst);
        if Self::is_gpr(t) {
            self.mov_imm(d, bits as i64);
            return Ok(());
        }
        if bits == 0 || (t.elem.size() == 4 && bits as u32 == 0) {
            self.zero(d);
            return Ok(());
        }
        let (v, w) = (self.splat_const(t, bits)?, self.w(t)?);
        self.vmov(d, v, w)
    }

    fn splat(&mut self, dst: Reg, src: Reg) -> Res<()> {
        let t = self.ty(dst);
        let w = self.w(t)?;
        let s = self.src(src)?;
        let d = self.dst(dst);
        if t.lanes == 1 {
            if Self::is_gpr(t) {
                self.mov(d, s);
                return Ok(());
            }
            return self.vmov(d, s, w);
        }
        if t.elem == Elem::Mask {
            return self.unsupported("splat of a mask");
        }
        if t.elem == Elem::I64 {
            if self.wide {
                let c = self.code(ops::PBROADCASTQ_R, w)?;
                self.op(c, &[def(d, w), use_(s, W::B64)]);
                return Ok(());
            }
            let x = self.vec();
            self.op(Code::VEX_Vmovq_xmm_rm64, &[def(x, W::X), use_(s, W::B64)]);
            return self.op2(ops::PBROADCASTQ, w, d, use_(x, W::X));
        }
        let row = if t.elem.size() == 8 { ops::PBROADCASTQ } else { ops::BROADCASTSS };
        self.op2(row, w, d, use_(s, W::X))
    }

    fn iota(&mut self, dst: Reg) -> Res<()> {
        let t = self.ty(dst);
        let d = self.dst(dst);
        if Self::is_gpr(t) {
            self.mov_imm(d, 0);
            return Ok(());
        }
        let w = self.w(t)?;
        let mut bytes: Vec<u8> =
            (0..t.lanes as u64).flat_map(|l| l.to_le_bytes()[..t.elem.size()].to_vec()).collect();
        bytes.resize(bytes.len().max(16), 0);
        let m = self.pool_mem(bytes);
        self.op2(ops::MOVUPS, w, d, Op::M(m))
    }

    fn un(&mut self, op: UnOp, dst: Reg, a: Reg) -> Res<()> {
        let t = self.ty(dst);
        if t.elem == Elem::Mask {
            return self.mask_un(op, dst, a);
        }
        let s = self.src(a)?;
        let d = self.dst(dst);
        if Self::is_gpr(t) {
            return self.gpr_un(op, d, s);
        }
        self.vec_un(op, t, d, s)
    }

    fn vec_un(&mut self, op: UnOp, t: RegTy, d: V, a: V) -> Res<()> {
        let (w, big) = (self.w(t)?, t.elem.size() == 8);
        let sign = if big { 1u64 << 63 } else { 1 << 31 };
        let bits = |s: &mut Self, row: &Row, k: u64| {
            let m = s.const_mem(t, k, false)?;
            s.op3(row, w, d, a, Op::M(m))
        };
        match op {
            UnOp::Copy => self.vmov(d, a, w),
            UnOp::Neg if t.elem.is_float() => bits(self, xor(big), sign),
            UnOp::Abs if t.elem.is_float() => bits(self, and(big), sign - 1),
            UnOp::Not => bits(self, xor(big), u64::MAX),
            UnOp::Neg => {
                let z = self.vec();
                self.zero(z);
                let row = if big { ops::PSUBQ } else { ops::PSUBD };
                self.op3(row, w, d, z, use_(a, w))
            }
            UnOp::Abs if big && !self.wide => {
                let (z, s, x) = (self.vec(), self.vec(), self.vec());
                self.zero(z);
                self.op3(ops::PCMPGTQ, w, s, z, use_(a, w))?;
                self.op3(ops::PXORQ, w, x, a, use_(s, w))?;
                self.op3(ops::PSUBQ, w, d, x, use_(s, w))
            }
            UnOp::Abs => self.op2(if big { ops::PABSQ } else { ops::PABSD }, w, d, use_(a, w)),
            UnOp::Sqrt | UnOp::RoundEven | UnOp::Floor | UnOp::Ceil | UnOp::Trunc => {
                let (s, p) = match (big, op) {
                    (false, UnOp::Sqrt) => (ops::SQRTSS, ops::SQRTPS),
                    (true, UnOp::Sqrt) => (ops::SQRTSD, ops::SQRTPD),
                    (false, _) => (ops::ROUNDSS, ops::ROUNDPS),
                    (true, _) => (ops::ROUNDSD, ops::ROUNDPD),
                };
                let c = self.code(if t.lanes == 1 { s } else { p }, w)?;
                let mut list = vec![def(d, w), use_(a, w)];
                if t.lanes == 1 {
                    list.push(use_(a, w));
                }
                list.extend(rounding(op).map(Op::I));
                self.op(c, &list);
                Ok(())
            }
        }
    }

    fn bin(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) -> Res<()> {
        let t = self.ty(dst);
        if t.elem == Elem::Mask {
            return self.mask_bin(op, dst, a, b);
        }
        if Self::is_gpr(t) {
            let (x, y) = (self.src(a)?, self.src(b)?);
            let d = self.dst(dst);
            return self.gpr_bin(op, d, x, y);
        }
        // shifts by one constant
        if let (BinOp::Shl | BinOp::Shr | BinOp::UShr, Some(n)) = (op, self.consts[b.0 as usize]) {
            let row = match (op, t.elem) {
                (BinOp::Shl, Elem::I32) => Some(ops::PSLLD),
                (BinOp::Shl, _) => Some(ops::PSLLQ),
                (BinOp::UShr, Elem::I32) => Some(ops::PSRLD),
                (BinOp::UShr, _) => Some(ops::PSRLQ),
                (_, Elem::I32) => Some(ops::PSRAD),
                _ if self.wide => Some(ops::PSRAQ),
                _ => None,
            };
            if let Some(row) = row {
                let (x, w) = (self.src(a)?, self.w(t)?);
                let (c, d) = (self.code(row, w)?, self.dst(dst));
                self.op(c, &[def(d, w), use_(x, w), Op::I(n as i64)]);
                return Ok(());
            }
        }
        let (mut a, mut b) = (a, b);
        if self.foldable(a) && !self.foldable(b) && commutes(op, t) {
            (a, b) = (b, a);
        }
        let x = self.src(a)?;
        let y = if self.row_of(op, t).is_some() {
            self.src_mem(b)?
        } else {
            use_(self.src(b)?, self.w(t)?)
        };
        let d = self.dst(dst);
        self.vec_bin(op, t, d, x, y)
    }

    fn row_of(&self, op: BinOp, t: RegTy) -> Option<&'static Row> {
        if let (true, Some(r)) = (t.elem.is_float(), float_row(op, t)) {
            return Some(r);
        }
        int_row(op, t.elem.size() == 8, self.wide)
    }

    /// `d = a op b`; `b` may be memory where one instruction does it.
    pub fn vec_bin(&mut self, op: BinOp, t: RegTy, d: V, a: V, b: Op) -> Res<()> {
        let w = self.w(t)?;
        if let Some(row) = self.row_of(op, t) {
            return self.op3(row, w, d, a, b);
        }
        let Op::R(b, ..) = b else { return self.unsupported("a memory operand") };
        match (op, t.elem) {
            (BinOp::Div | BinOp::Rem, Elem::I32) => self.div32(op, t, d, a, b),
            (BinOp::Div | BinOp::Rem, _) => {
                self.lanewise(t, d, &[a, b], &mut |s, to, x| s.gpr_bin(op, to, x[0], x[1]))
            }
            (BinOp::Mul, _) => self.mul64(w, d, a, b),
            (BinOp::Shr, _) => self.sar64(t, d, a, b),
            (BinOp::Min | BinOp::Max | BinOp::UMin | BinOp::UMax, _) => {
                self.minmax64(op, t, d, a, b)
            }
            _ => self.unsupported(format!("{op:?} of {t}")),
        }
    }

    /// `d` (half the width) from a register of width `w`.
    pub fn op2_narrow(&mut self, row: &Row, w: W, d: V, a: V) -> Res<()> {
        let c = self.code(row, w)?;
        self.op(c, &[def(d, if w == W::Z { W::Y } else { W::X }), use_(a, w)]);
        Ok(())
    }

    fn fma(&mut self, dst: Reg, a: Reg, b: Reg, c: Reg) -> Res<()> {
        let t = self.ty(dst);
        let w = self.w(t)?;
        let [r132, r213, r231] = fma_rows(t);
        let (mut a, mut b) = (a, b);
        let in_memory = |s: &Self, r: Reg| s.foldable(r);
        let fold_c = in_memory(self, c) && c != a && c != b;
        if !fold_c && in_memory(self, a) && !in_memory(self, b) {
            (a, b) = (b, a);
        }
        let fold_b = !fold_c && in_memory(self, b) && b != a && b != c;
        let dies = |s: &Self, r: Reg| {
            let n = r.0 as usize;
            r == dst || (s.uses[n] == 1 && s.defs[n] == 1 && s.consts[n].is_none())
        };
        // which operand the result replaces
        let tie = if fold_c {
            if dst == b || (dst != a && dies(self, b) && !dies(self, a)) { b } else { a }
        } else if fold_b {
            if dst == a || (dst != c && dies(self, a) && !dies(self, c)) { a } else { c }
        } else {
            let order = [c, a, b];
            let same = order.into_iter().find(|r| *r == dst);
            same.or_else(|| order.into_iter().find(|r| dies(self, *r))).unwrap_or(c)
        };
        let mem = if fold_c {
            Some(self.src_mem(c)?)
        } else if fold_b {
            Some(self.src_mem(b)?)
        } else {
            None
        };
        let (row, second, third) = if fold_c {
            let other = if tie == a { b } else { a };
            (r213, self.src(other)?, mem)
        } else if tie == c {
            (r231, self.src(a)?, mem)
        } else if fold_b {
            (r132, self.src(c)?, mem)
        } else {
            // tie is a or b: tie × other + c
            let other = if tie == a { b } else { a };
            let (o, c) = (self.src(other)?, self.src(c)?);
            (r213, o, Some(use_(c, w)))
        };
        let third = match third {
            Some(m) => m,
            None => use_(self.src(b)?, w),
        };
        let start = self.src(tie)?;
        let d = self.dst(dst);
        let code = self.code(row, w)?;
        let reads_d = second == d || third == use_(d, w);
        if start != d && reads_d {
            let x = self.vec();
            self.vmov(x, start, w)?;
            self.op(code, &[modify(x, w), use_(second, w), third]);
            return self.vmov(d, x, w);
        }
        self.vmov(d, start, w)?;
        self.op(code, &[modify(d, w), use_(second, w), third]);
        Ok(())
    }

    fn dot2(&mut self, dst: Reg, a: Reg, b: Reg, c: Reg) -> Res<()> {
        if !self.bf16 {
            return self.unsupported("a dot product of bf16 pairs");
        }
        let w = self.w(self.ty(dst))?;
        let (mut a, mut b) = (a, b);
        if self.foldable(a) && !self.foldable(b) {
            (a, b) = (b, a);
        }
        let x = self.src(a)?;
        let y = self.src_mem(b)?;
        let start = self.src(c)?;
        let d = self.dst(dst);
        let code = self.code(ops::DPBF16PS, w)?;
        if start != d && (x == d || y == use_(d, w)) {
            let t = self.vec();
            self.vmov(t, start, w)?;
            self.op(code, &[modify(t, w), use_(x, w), y]);
            return self.vmov(d, t, w);
        }
        self.vmov(d, start, w)?;
        self.op(code, &[modify(d, w), use_(x, w), y]);
        Ok(())
    }

    fn scale2(&mut self, dst: Reg, a: Reg, n: Reg) -> Res<()> {
        let t = self.ty(dst);
        let w = self.w(t)?;
        let (x, k) = (self.src(a)?, self.src(n)?);
        let d = self.dst(dst);
        if self.wide {
            let row = if t.lanes == 1 { ops::SCALEFSS } else { ops::SCALEFPS };
            return self.op3(row, w, d, x, use_(k, w));
        }
        // 2^n in two halves, so that each is a normal number
        let (lo, hi) = (-252f32, 252f32);
        let (c, h, i) = (self.vec(), self.vec(), self.vec());
        let m = self.const_mem(t, hi.to_bits() as u64, false)?;
        self.op3(ops::MINPS, w, c, k, Op::M(m))?;
        let m = self.const_mem(t, lo.to_bits() as u64, false)?;
        self.op3(ops::MAXPS, w, c, c, Op::M(m))?;
        self.op2(ops::CVTPS2DQ, w, i, use_(c, w))?;
        let sra = self.code(ops::PSRAD, w)?;
        self.op(sra, &[def(h, w), use_(i, w), Op::I(1)]);
        self.op3(ops::PSUBD, w, i, i, use_(h, w))?;
        let sll = self.code(ops::PSLLD, w)?;
        let mut r = x;
        for p in [h, i] {
            let (e, y) = (self.vec(), self.vec());
            let m = self.const_mem(t, 127, false)?;
            self.op3(ops::PADDD, w, e, p, Op::M(m))?;
            self.op(sll, &[def(e, w), use_(e, w), Op::I(23)]);
            self.op3(ops::MULPS, w, y, r, use_(e, w))?;
            r = y;
        }
        self.vmov(d, r, w)
    }
}

pub(super) fn xor(big: bool) -> &'static Row {
    if big { ops::PXORQ } else { ops::PXORD }
}

pub(super) fn and(big: bool) -> &'static Row {
    if big { ops::PANDQ } else { ops::PANDD }
}
