//! Which OpenCL C expression computes what: a row an operation and element.
//!
//! What all dialects of C write alike is `targets/c.rs`.

use crate::kir::{BinOp, CmpOp, Elem, UnOp};
use crate::targets::c;
use hub_abi::Dtype;

/// Type of a register's variable.
pub fn ty(e: Elem) -> &'static str {
    match e {
        Elem::F32 => "float",
        Elem::F64 => "double",
        Elem::I32 | Elem::Mask => "int",
        Elem::I64 => "long",
    }
}

/// The unsigned integer of an element's size.
pub fn bits(e: Elem) -> &'static str {
    match e {
        Elem::F32 | Elem::I32 | Elem::Mask => "uint",
        Elem::F64 | Elem::I64 => "ulong",
    }
}

fn types(e: Elem) -> c::Types {
    c::Types { own: ty(e), bits: bits(e) }
}

/// One operand.
pub fn unary(op: UnOp, e: Elem, a: &str) -> String {
    match op {
        UnOp::Copy => a.to_string(),
        UnOp::Neg if e.is_float() => format!("-{a}"),
        UnOp::Neg => format!("({})(0 - ({}){a})", ty(e), bits(e)),
        UnOp::Abs => format!("fabs({a})"),
        UnOp::Sqrt => format!("sqrt({a})"),
        UnOp::Floor => format!("floor({a})"),
        UnOp::Ceil => format!("ceil({a})"),
        UnOp::RoundEven => format!("rint({a})"),
        UnOp::Trunc => format!("trunc({a})"),
        UnOp::Not if e == Elem::Mask => format!("!{a}"),
        UnOp::Not => format!("~{a}"),
    }
}

/// Two operands.
pub fn binary(op: BinOp, e: Elem, a: &str, b: &str) -> String {
    if let Some(common) = c::binary(op, e, &types(e), a, b) {
        return common;
    }
    let (t, u) = (ty(e), bits(e));
    let logic = |sign: &str| match e.is_float() {
        true => format!("as_{t}(as_{u}({a}) {sign} as_{u}({b}))"),
        false => format!("{a} {sign} {b}"),
    };
    match op {
        BinOp::Div => format!("{a} / {b}"),
        BinOp::Rem => format!("{a} % {b}"),
        BinOp::Min => format!("min({a}, {b})"),
        BinOp::Max => format!("max({a}, {b})"),
        BinOp::UMin => format!("({t})min(({u}){a}, ({u}){b})"),
        BinOp::UMax => format!("({t})max(({u}){a}, ({u}){b})"),
        BinOp::And => logic("&"),
        BinOp::Or => logic("|"),
        BinOp::Xor => logic("^"),
        BinOp::AndNot => unreachable!("made legal"),
        BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Shl | BinOp::Shr | BinOp::UShr => {
            unreachable!("common to all")
        }
    }
}

/// A comparison, 0 or 1.
pub fn compare(op: CmpOp, e: Elem, a: &str, b: &str) -> String {
    c::compare(op, &types(e), a, b)
}

/// A conversion between two elements.
pub fn convert(from: Elem, to: Elem, a: &str) -> String {
    let t = ty(to);
    match (from.is_float(), to.is_float()) {
        (true, false) => format!("convert_{t}_sat_rtz({a})"),
        (_, true) => format!("convert_{t}_rte({a})"),
        // To more bits, or to the low ones.
        (false, false) if to == Elem::I32 => format!("(int)(uint)(ulong){a}"),
        (false, false) => format!("({t}){a}"),
    }
}

/// Type of an element in memory; small floats are their bits.
pub fn memory(d: Dtype) -> &'static str {
    match d {
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::I8 => "char",
        Dtype::I16 => "short",
        Dtype::I32 => "int",
        Dtype::U32 => "uint",
        Dtype::I64 | Dtype::U64 => "long",
        Dtype::U16 | Dtype::BF16 => "ushort",
        Dtype::F16 => "half",
        _ => "uchar",
    }
}
