//! Elementwise primitives on registers: arithmetic of every dtype in 32- and 64-bit lanes, casts,
//! and the NaN rules of the primitives.
//!
//! Integers narrower than their register are kept in their dtype's range (sign- or zero-extended)
//! after every operation; u32 and u64 are kept as bits. Floats narrower than f32 stay f32 until they
//! are stored or cast.

use super::cx::{LowerCx, Made, unsupported};
use super::value::elem_of;
use crate::kir::{Addr, BinOp, CmpOp, Elem, Reg, UnOp};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_ir::Value;
use hub_ir::graph::ConstData;

/// A constant's number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// Of a float dtype, or known as one.
    Float(f64),
    /// Of an integer dtype or bool (u64 as bits).
    Int(i64),
}

impl Number {
    /// Is it 0?
    pub fn is_zero(self) -> bool {
        matches!(self, Number::Float(0.0) | Number::Int(0))
    }

    /// Rounded to f64.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Float(x) => x,
            Number::Int(i) => i as f64,
        }
    }

    /// Truncated to i64.
    pub fn as_i64(self) -> i64 {
        match self {
            Number::Float(x) => x as i64,
            Number::Int(i) => i,
        }
    }
}

/// The number that a constant of one element holds.
pub fn const_number(c: &ConstData) -> Option<Number> {
    use Dtype::*;
    let d = &c.data[..];
    if d.len() != c.ty.dtype.size() || d.is_empty() {
        return None;
    }
    let mut w = [0u8; 8];
    w[..d.len().min(8)].copy_from_slice(&d[..d.len().min(8)]);
    let bits = u64::from_le_bytes(w);
    Some(match c.ty.dtype {
        F32 => Number::Float(f32::from_bits(bits as u32).into()),
        F64 => Number::Float(f64::from_bits(bits)),
        F16 => Number::Float(half::f16::from_bits(bits as u16).into()),
        BF16 => Number::Float(half::bf16::from_bits(bits as u16).into()),
        I8 => Number::Int(bits as i8 as i64),
        I16 => Number::Int(bits as i16 as i64),
        I32 => Number::Int(bits as i32 as i64),
        U8 | U16 | U32 | I64 | U64 => Number::Int(bits as i64),
        Bool => Number::Int(i64::from(bits != 0)),
        _ => return None,
    })
}

/// A primitive's name, for messages.
pub fn prim_name(p: &Prim) -> String {
    let s = format!("{p:?}");
    s.split([' ', '{', '(']).next().unwrap_or_default().to_string()
}

impl LowerCx<'_> {
    /// An elementwise primitive that makes `v` of `ins`, on registers of equal lanes.
    pub fn elementwise(&mut self, p: &Prim, v: Value, ins: &[Value], r: &[Reg]) -> Made<Reg> {
        let g = self.task.g;
        let d = g.dtype(ins[0]);
        match p {
            Prim::Unary(op) => self.unary(*op, d, r[0]),
            Prim::Binary(op @ (BinaryOp::Max | BinaryOp::Min)) if d.is_float() => {
                let known = |x: Value| self.number_of(x).is_some_and(|n| !n.as_f64().is_nan());
                let (a, b) = (known(ins[0]), known(ins[1]));
                Ok(self.extremum(*op == BinaryOp::Max, (r[0], a), (r[1], b)))
            }
            Prim::Binary(BinaryOp::Pow) if d.is_float() => self.power(r[0], ins[1], r[1]),
            Prim::Binary(op) => self.binary(*op, d, r[0], r[1]),
            Prim::Select => Ok(self.choose(r[0], r[1], r[2])),
            Prim::Cast { to, .. } => self.cast(r[0], d, *to),
            _ => unsupported(format!("{} of {v}", prim_name(p))),
        }
    }

    /// The number that a value of the region is known to be.
    pub fn number_of(&self, v: Value) -> Option<Number> {
        let g = self.task.g;
        if let Some(c) = g.as_const(v) {
            return const_number(c);
        }
        let params = &g.regions[self.task.region].params;
        let at = params.iter().position(|&p| p == v)?;
        self.task.inputs[at].splat.map(Number::Float)
    }

    /// Maximum or minimum of floats: NaN if either is; the flag says that an operand is never NaN.
    pub fn extremum(
        &mut self,
        max: bool,
        (a, a_sure): (Reg, bool),
        (b, b_sure): (Reg, bool),
    ) -> Reg {
        let op = if max { BinOp::Max } else { BinOp::Min };
        // The machine's answers its second operand where either is NaN.
        if a_sure {
            return self.b.bin(op, a, b);
        }
        let r = self.b.bin(op, b, a);
        if b_sure {
            return r;
        }
        let nan = self.b.cmp(CmpOp::Ne, b, b);
        self.b.select(nan, b, r)
    }

    fn power(&mut self, x: Reg, exponent: Value, y: Reg) -> Made<Reg> {
        let ty = self.b.ty(x);
        match self.number_of(exponent).map(Number::as_f64) {
            Some(1.0) => Ok(x),
            Some(2.0) => Ok(self.b.mul(x, x)),
            Some(3.0) => {
                let s = self.b.mul(x, x);
                Ok(self.b.mul(s, x))
            }
            Some(-1.0) => {
                let one = self.b.const_f(ty, 1.0);
                Ok(self.b.div(one, x))
            }
            _ => super::math::binary(self, BinaryOp::Pow, x, y),
        }
    }

    /// A function of one argument.
    pub fn unary(&mut self, op: UnaryOp, d: Dtype, x: Reg) -> Made<Reg> {
        let ty = self.b.ty(x);
        let un = |cx: &mut Self, op| Ok(cx.b.un(op, x));
        if d.is_float() {
            return match op {
                UnaryOp::Neg => un(self, UnOp::Neg),
                UnaryOp::Abs => un(self, UnOp::Abs),
                UnaryOp::Floor => un(self, UnOp::Floor),
                UnaryOp::Ceil => un(self, UnOp::Ceil),
                UnaryOp::Round => un(self, UnOp::RoundEven),
                UnaryOp::Trunc => un(self, UnOp::Trunc),
                UnaryOp::Sqrt => un(self, UnOp::Sqrt),
                UnaryOp::Rsqrt => {
                    let (one, root) = (self.b.const_f(ty, 1.0), self.b.un(UnOp::Sqrt, x));
                    Ok(self.b.div(one, root))
                }
                UnaryOp::Recip => {
                    let one = self.b.const_f(ty, 1.0);
                    Ok(self.b.div(one, x))
                }
                UnaryOp::Sign => Ok(self.sign(x)),
                UnaryOp::IsNan => Ok(self.b.cmp(CmpOp::Ne, x, x)),
                UnaryOp::IsInf => {
                    let (a, inf) = (self.b.un(UnOp::Abs, x), self.b.const_f(ty, f64::INFINITY));
                    Ok(self.b.cmp(CmpOp::Eq, a, inf))
                }
                op => super::math::unary(self, op, x),
            };
        }
        let r = match (op, d) {
            (UnaryOp::Not, Dtype::Bool) => return un(self, UnOp::Not),
            (_, Dtype::Bool) => return unsupported(format!("{op:?} of bool")),
            (UnaryOp::Neg, _) => self.b.un(UnOp::Neg, x),
            (UnaryOp::BitNot, _) => self.b.un(UnOp::Not, x),
            (UnaryOp::Abs, d) if d.is_signed_int() => self.b.un(UnOp::Abs, x),
            (UnaryOp::Sign, d) if d.is_signed_int() => return Ok(self.sign(x)),
            (UnaryOp::Abs, _) => return Ok(x),
            (UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc, _) => return Ok(x),
            _ => return unsupported(format!("{op:?} of {d}")),
        };
        Ok(self.wrap(r, d))
    }

    /// −1, 0 or 1; NaN stays NaN.
    fn sign(&mut self, x: Reg) -> Reg {
        let ty = self.b.ty(x);
        let zero = self.b.zero(ty);
        let number = |cx: &mut Self, k: i64| match ty.elem.is_float() {
            true => cx.b.const_f(ty, k as f64),
            false => cx.b.const_i(ty, k),
        };
        let (one, less) = (number(self, 1), number(self, -1));
        let below = self.b.cmp(CmpOp::Lt, x, zero);
        let above = self.b.cmp(CmpOp::Gt, x, zero);
        let r = self.b.select(below, less, x);
        self.b.select(above, one, r)
    }

    /// An integer register's value brought back into its dtype's range.
    pub fn wrap(&mut self, x: Reg, d: Dtype) -> Reg {
        let ty = self.b.ty(x);
        let bits = 8 * d.size() as i64;
        match d {
            Dtype::I8 | Dtype::I16 => {
                let k = self.b.const_i(ty, 32 - bits);
                let high = self.b.bin(BinOp::Shl, x, k);
                self.b.bin(BinOp::Shr, high, k)
            }
            Dtype::U8 | Dtype::U16 => {
                let k = self.b.const_i(ty, (1 << bits) - 1);
                self.b.bin(BinOp::And, x, k)
            }
            _ => x,
        }
    }

    /// A function of two arguments of one dtype.
    pub fn binary(&mut self, op: BinaryOp, d: Dtype, a: Reg, b: Reg) -> Made<Reg> {
        if let Some(cmp) = self.comparison(op, d, a, b) {
            return Ok(cmp);
        }
        match d {
            Dtype::Bool => self.logic(op, a, b),
            d if d.is_float() => self.float_binary(op, a, b),
            _ => {
                let r = self.int_binary(op, d, a, b)?;
                Ok(self.wrap(r, d))
            }
        }
    }

    fn logic(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Made<Reg> {
        let op = match op {
            BinaryOp::And | BinaryOp::BitAnd | BinaryOp::Mul | BinaryOp::Min => BinOp::And,
            BinaryOp::Or | BinaryOp::BitOr | BinaryOp::Max => BinOp::Or,
            BinaryOp::Xor | BinaryOp::BitXor | BinaryOp::Ne => BinOp::Xor,
            BinaryOp::Eq => {
                let x = self.b.bin(BinOp::Xor, a, b);
                return Ok(self.b.un(UnOp::Not, x));
            }
            op => return unsupported(format!("{op:?} of bool")),
        };
        Ok(self.b.bin(op, a, b))
    }

    fn comparison(&mut self, op: BinaryOp, d: Dtype, a: Reg, b: Reg) -> Option<Reg> {
        use BinaryOp::*;
        if d == Dtype::Bool {
            return None;
        }
        if matches!(d, Dtype::U32 | Dtype::U64) {
            let (op, a, b) = match op {
                Lt => (CmpOp::ULt, a, b),
                Le => (CmpOp::ULe, a, b),
                Gt => (CmpOp::ULt, b, a),
                Ge => (CmpOp::ULe, b, a),
                Eq => (CmpOp::Eq, a, b),
                Ne => (CmpOp::Ne, a, b),
                _ => return None,
            };
            return Some(self.b.cmp(op, a, b));
        }
        let op = match op {
            Eq => CmpOp::Eq,
            Ne => CmpOp::Ne,
            Lt => CmpOp::Lt,
            Le => CmpOp::Le,
            Gt => CmpOp::Gt,
            Ge => CmpOp::Ge,
            _ => return None,
        };
        Some(self.b.cmp(op, a, b))
    }

    fn float_binary(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Made<Reg> {
        Ok(match op {
            BinaryOp::Add => self.b.add(a, b),
            BinaryOp::Sub => self.b.sub(a, b),
            BinaryOp::Mul => self.b.mul(a, b),
            BinaryOp::Div => self.b.div(a, b),
            BinaryOp::Max => self.extremum(true, (a, false), (b, false)),
            BinaryOp::Min => self.extremum(false, (a, false), (b, false)),
            op => return super::math::binary(self, op, a, b),
        })
    }

    fn int_binary(&mut self, op: BinaryOp, d: Dtype, a: Reg, b: Reg) -> Made<Reg> {
        let wide_unsigned = matches!(d, Dtype::U32 | Dtype::U64);
        let bin = match op {
            BinaryOp::Add => BinOp::Add,
            BinaryOp::Sub => BinOp::Sub,
            BinaryOp::Mul => BinOp::Mul,
            BinaryOp::BitAnd => BinOp::And,
            BinaryOp::BitOr => BinOp::Or,
            BinaryOp::BitXor => BinOp::Xor,
            BinaryOp::Max if wide_unsigned => BinOp::UMax,
            BinaryOp::Min if wide_unsigned => BinOp::UMin,
            BinaryOp::Max => BinOp::Max,
            BinaryOp::Min => BinOp::Min,
            BinaryOp::Shl | BinaryOp::Shr => return self.shift(op, d, a, b),
            BinaryOp::Div | BinaryOp::Mod | BinaryOp::Rem if !wide_unsigned => {
                return self.quotient(op, a, b);
            }
            op => return unsupported(format!("{op:?} of {d}")),
        };
        Ok(self.b.bin(bin, a, b))
    }

    fn quotient(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Made<Reg> {
        let ty = self.b.ty(a);
        let zero = self.b.zero(ty);
        let mut bad = self.b.cmp(CmpOp::Eq, b, zero);
        if let (Some(m), true) = (self.active, ty.lanes > 1) {
            bad = self.b.bin(BinOp::And, bad, m);
        }
        self.notes.traps = true;
        self.b.set_status(bad);
        if op == BinaryOp::Div {
            return Ok(self.b.div(a, b));
        }
        let r = self.b.bin(BinOp::Rem, a, b);
        if op == BinaryOp::Rem {
            return Ok(r);
        }
        let signs = self.b.bin(BinOp::Xor, r, b);
        let differ = self.b.cmp(CmpOp::Lt, signs, zero);
        let some = self.b.cmp(CmpOp::Ne, r, zero);
        let fix = self.b.bin(BinOp::And, differ, some);
        let moved = self.b.add(r, b);
        Ok(self.b.select(fix, moved, r))
    }

    fn shift(&mut self, op: BinaryOp, d: Dtype, a: Reg, n: Reg) -> Made<Reg> {
        let ty = self.b.ty(a);
        let width = if ty.elem == Elem::I32 { 32 } else { 64 };
        let last = self.b.const_i(ty, width - 1);
        let by = self.b.bin(BinOp::UMin, n, last);
        if op == BinaryOp::Shr && d.is_signed_int() {
            return Ok(self.b.bin(BinOp::Shr, a, by));
        }
        let kind = if op == BinaryOp::Shl { BinOp::Shl } else { BinOp::UShr };
        let r = self.b.bin(kind, a, by);
        let within = self.b.cmp(CmpOp::ULe, n, last);
        let zero = self.b.zero(ty);
        Ok(self.b.select(within, r, zero))
    }

    // ---- conversions

    /// Value conversion.
    pub fn cast(&mut self, x: Reg, from: Dtype, to: Dtype) -> Made<Reg> {
        let (lanes, e) = (self.b.ty(x).lanes as usize, elem_of(to)?);
        if from == to {
            return Ok(x);
        }
        self.vector(e, lanes)?;
        if e == Elem::Mask {
            let zero = self.b.zero(self.b.ty(x));
            return Ok(self.b.cmp(CmpOp::Ne, x, zero));
        }
        if from == Dtype::Bool {
            return Ok(self.mask_to(x, e));
        }
        match (from.is_float(), to.is_float()) {
            (true, true) => {
                let r = if self.b.ty(x).elem == e { x } else { self.b.cvt(x, e) };
                if to.is_small_float() { self.round_small(r, to) } else { Ok(r) }
            }
            (true, false) => self.float_to_int(x, to),
            (false, true) => {
                let x = self.widened_signed(x, from)?;
                let r = self.b.cvt(x, e);
                if to.is_small_float() { self.round_small(r, to) } else { Ok(r) }
            }
            (false, false) => {
                let x = if e == Elem::I64 { self.widened_signed(x, from)? } else { x };
                let r = if self.b.ty(x).elem == e { x } else { self.b.cvt(x, e) };
                Ok(self.wrap(r, to))
            }
        }
    }

    /// An unsigned register as a signed one of the same value (u32 widens).
    fn widened_signed(&mut self, x: Reg, d: Dtype) -> Made<Reg> {
        match d {
            Dtype::U32 => {
                let ty = self.vector(Elem::I64, self.b.ty(x).lanes as usize)?;
                let wide = self.b.cvt(x, Elem::I64);
                let low = self.b.const_i(ty, u32::MAX as i64);
                Ok(self.b.bin(BinOp::And, wide, low))
            }
            Dtype::U64 => unsupported("conversion from u64"),
            _ => Ok(x),
        }
    }

    fn float_to_int(&mut self, x: Reg, to: Dtype) -> Made<Reg> {
        let lanes = self.b.ty(x).lanes as usize;
        let (lo, hi) = match to {
            Dtype::I8 => (i8::MIN as i64, i8::MAX as i64),
            Dtype::U8 => (0, u8::MAX as i64),
            Dtype::I16 => (i16::MIN as i64, i16::MAX as i64),
            Dtype::U16 => (0, u16::MAX as i64),
            Dtype::I32 => return Ok(self.b.cvt(x, Elem::I32)),
            Dtype::U32 => (0, u32::MAX as i64),
            Dtype::I64 => return Ok(self.b.cvt(x, Elem::I64)),
            to => return unsupported(format!("conversion from a float to {to}")),
        };
        let via = if to == Dtype::U32 { Elem::I64 } else { Elem::I32 };
        let ty = self.vector(via, lanes)?;
        let r = self.b.cvt(x, via);
        let (lo, hi) = (self.b.const_i(ty, lo), self.b.const_i(ty, hi));
        let r = self.b.bin(BinOp::Max, r, lo);
        let r = self.b.bin(BinOp::Min, r, hi);
        Ok(if via == Elem::I64 { self.b.cvt(r, Elem::I32) } else { r })
    }

    /// An f32 register rounded to f16 or bf16, by way of the worker's scratch.
    fn round_small(&mut self, x: Reg, to: Dtype) -> Made<Reg> {
        if !matches!(to, Dtype::F16 | Dtype::BF16) {
            return unsupported(format!("conversion to {to}"));
        }
        let ty = self.b.ty(x);
        let at = Addr::scratch().offset(self.b.scratch(64));
        self.b.store(x, at.clone(), to, None);
        Ok(self.b.load(ty, at, to, None))
    }

    /// The same bits as another dtype of that size.
    pub fn bitcast(&mut self, x: Reg, from: Dtype, to: Dtype) -> Made<Reg> {
        let (a, b) = (elem_of(from)?, elem_of(to)?);
        let plain = |d: Dtype| matches!(d.size(), 4 | 8);
        match (plain(from) && plain(to), a == b) {
            (true, true) => Ok(x),
            (true, false) => Ok(self.b.bitcast(x, b)),
            _ if from.is_int() && to.is_int() => Ok(self.wrap(x, to)),
            _ => unsupported(format!("bits of {from} as {to}")),
        }
    }
}
