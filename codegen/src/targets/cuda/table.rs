//! Which PTX instruction computes what: a row an operation and element.
//!
//! Everything is IEEE: roundings are spelt out, so that nothing is contracted, and nothing is `.approx`.

use crate::kir::{BinOp, CmpOp, Elem, UnOp};
use hub_abi::Dtype;

/// Letter of an element's registers.
pub fn letter(e: Elem) -> &'static str {
    match e {
        Elem::F32 => "f",
        Elem::F64 => "d",
        Elem::I32 => "r",
        Elem::I64 => "l",
        Elem::Mask => "p",
    }
}

/// Type of an element where its bits only are moved.
pub fn kind(e: Elem) -> &'static str {
    match e {
        Elem::F32 => "f32",
        Elem::F64 => "f64",
        Elem::I32 => "b32",
        Elem::I64 => "b64",
        Elem::Mask => "pred",
    }
}

/// Bits of an element as a suffix.
pub fn bits(e: Elem) -> &'static str {
    match e {
        Elem::F32 | Elem::I32 => "b32",
        Elem::F64 | Elem::I64 => "b64",
        Elem::Mask => "pred",
    }
}

/// `op` on floats, or on integers.
fn typed(op: &str, e: Elem, signed: bool) -> String {
    let ty = match (e, signed) {
        (Elem::F32, _) => "f32",
        (Elem::F64, _) => "f64",
        (Elem::I32, true) => "s32",
        (Elem::I32, false) => "u32",
        (_, true) => "s64",
        (_, false) => "u64",
    };
    format!("{op}.{ty}")
}

/// One operand.
pub fn unary(op: UnOp, e: Elem) -> String {
    let both = |op: &str| format!("{op}.{0}.{0}", kind(e));
    match op {
        UnOp::Copy => format!("mov.{}", kind(e)),
        UnOp::Neg => typed("neg", e, true),
        UnOp::Abs => typed("abs", e, true),
        UnOp::Sqrt => typed("sqrt.rn", e, true),
        UnOp::Floor => both("cvt.rmi"),
        UnOp::Ceil => both("cvt.rpi"),
        UnOp::RoundEven => both("cvt.rni"),
        UnOp::Trunc => both("cvt.rzi"),
        UnOp::Not => format!("not.{}", bits(e)),
    }
}

/// Two operands; shifts take a 32-bit count.
pub fn binary(op: BinOp, e: Elem) -> String {
    let float = e.is_float();
    match op {
        BinOp::Add => typed(if float { "add.rn" } else { "add" }, e, true),
        BinOp::Sub => typed(if float { "sub.rn" } else { "sub" }, e, true),
        BinOp::Mul => typed(if float { "mul.rn" } else { "mul.lo" }, e, true),
        BinOp::Div => typed(if float { "div.rn" } else { "div" }, e, true),
        BinOp::Rem => typed("rem", e, true),
        BinOp::Min => typed("min", e, true),
        BinOp::Max => typed("max", e, true),
        BinOp::UMin => typed("min", e, false),
        BinOp::UMax => typed("max", e, false),
        BinOp::And => format!("and.{}", bits(e)),
        BinOp::Or => format!("or.{}", bits(e)),
        BinOp::Xor => format!("xor.{}", bits(e)),
        BinOp::AndNot => unreachable!("made legal"),
        BinOp::Shl => format!("shl.{}", bits(e)),
        BinOp::Shr => typed("shr", e, true),
        BinOp::UShr => typed("shr", e, false),
    }
}

/// A comparison.
pub fn compare(op: CmpOp, e: Elem) -> String {
    let (name, signed) = match op {
        CmpOp::Eq => ("eq", true),
        // True where an operand is NaN.
        CmpOp::Ne if e.is_float() => ("neu", true),
        CmpOp::Ne => ("ne", true),
        CmpOp::Lt => ("lt", true),
        CmpOp::Le => ("le", true),
        CmpOp::Gt => ("gt", true),
        CmpOp::Ge => ("ge", true),
        CmpOp::ULt => ("lt", false),
        CmpOp::ULe => ("le", false),
    };
    typed(&format!("setp.{name}"), e, signed)
}

/// A conversion between two elements.
pub fn convert(from: Elem, to: Elem) -> &'static str {
    use Elem::*;
    match (from, to) {
        (F32, F64) => "cvt.f64.f32",
        (F64, F32) => "cvt.rn.f32.f64",
        (F32, I32) => "cvt.rzi.s32.f32",
        (F32, I64) => "cvt.rzi.s64.f32",
        (F64, I32) => "cvt.rzi.s32.f64",
        (F64, I64) => "cvt.rzi.s64.f64",
        (I32, F32) => "cvt.rn.f32.s32",
        (I64, F32) => "cvt.rn.f32.s64",
        (I32, F64) => "cvt.rn.f64.s32",
        (I64, F64) => "cvt.rn.f64.s64",
        (I32, I64) => "cvt.s64.s32",
        (I64, I32) => "cvt.u32.u64",
        _ => unreachable!("made legal"),
    }
}

/// How an element in memory moves to and from a register of 4 or 8 bytes: the type of the access.
pub fn access(d: Dtype) -> &'static str {
    match d {
        Dtype::F32 => "f32",
        Dtype::F64 => "f64",
        Dtype::I8 => "s8",
        Dtype::I16 => "s16",
        Dtype::I32 => "s32",
        Dtype::U32 => "u32",
        Dtype::I64 | Dtype::U64 => "b64",
        Dtype::F16 | Dtype::BF16 | Dtype::U16 => "u16",
        _ => "u8",
    }
}
