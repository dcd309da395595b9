//! Which Ascend C computes what: vector instructions by row, and C++ expressions for the scalar unit.

use crate::kir::{BinOp, CmpOp, Elem, UnOp};
use crate::targets::c;
use hub_abi::Dtype;

/// Type of a scalar variable, and of the elements of a register's tensor.
pub fn ty(e: Elem) -> &'static str {
    match e {
        Elem::F32 => "float",
        Elem::F64 => "double",
        Elem::I32 => "int32_t",
        Elem::I64 => "int64_t",
        Elem::Mask => "bool",
    }
}

fn bits(e: Elem) -> &'static str {
    match e {
        Elem::F32 | Elem::I32 | Elem::Mask => "uint32_t",
        Elem::F64 | Elem::I64 => "uint64_t",
    }
}

/// Type of elements in memory; the bits of those that no unit computes with.
pub fn memory(d: Dtype) -> &'static str {
    match d {
        Dtype::F32 => "float",
        Dtype::F16 => "half",
        Dtype::BF16 => "bfloat16_t",
        Dtype::I8 => "int8_t",
        Dtype::I16 => "int16_t",
        Dtype::U16 => "uint16_t",
        Dtype::I32 => "int32_t",
        Dtype::U32 => "uint32_t",
        Dtype::I64 | Dtype::U64 => "int64_t",
        _ => "uint8_t",
    }
}

/// The vector instruction of one operand on 32-bit lanes, its arguments after destination and source.
pub fn vector_unary(op: UnOp, e: Elem) -> Option<(&'static str, &'static str)> {
    Some(match (op, e) {
        (UnOp::Copy, Elem::F32) => ("Muls", "1.0f"),
        (UnOp::Copy, Elem::I32) => ("Adds", "0"),
        (UnOp::Neg, Elem::F32) => ("Muls", "-1.0f"),
        (UnOp::Neg, Elem::I32) => ("Muls", "-1"),
        (UnOp::Abs, Elem::F32) => ("Abs", ""),
        (UnOp::Sqrt, Elem::F32) => ("Sqrt", ""),
        (UnOp::Floor, Elem::F32) => ("Cast", "RoundMode::CAST_FLOOR"),
        (UnOp::Ceil, Elem::F32) => ("Cast", "RoundMode::CAST_CEIL"),
        (UnOp::RoundEven, Elem::F32) => ("Cast", "RoundMode::CAST_RINT"),
        (UnOp::Trunc, Elem::F32) => ("Cast", "RoundMode::CAST_TRUNC"),
        _ => return None,
    })
}

/// The vector instruction of two operands on 32-bit lanes.
pub fn vector_binary(op: BinOp, e: Elem) -> Option<&'static str> {
    Some(match (op, e) {
        (BinOp::Add, Elem::F32 | Elem::I32) => "Add",
        (BinOp::Sub, Elem::F32 | Elem::I32) => "Sub",
        (BinOp::Mul, Elem::F32 | Elem::I32) => "Mul",
        (BinOp::Div, Elem::F32) => "Div",
        (BinOp::Min, Elem::I32) => "Min",
        (BinOp::Max, Elem::I32) => "Max",
        _ => return None,
    })
}

/// The vector instruction on bits, whatever they are of, 16 at a time.
pub fn vector_bits(op: BinOp) -> Option<&'static str> {
    Some(match op {
        BinOp::And => "And",
        BinOp::Or => "Or",
        _ => return None,
    })
}

/// The comparison of f32 vectors.
pub fn vector_compare(op: CmpOp) -> Option<&'static str> {
    Some(match op {
        CmpOp::Eq => "CMPMODE::EQ",
        CmpOp::Ne => "CMPMODE::NE",
        CmpOp::Lt => "CMPMODE::LT",
        CmpOp::Le => "CMPMODE::LE",
        CmpOp::Gt => "CMPMODE::GT",
        CmpOp::Ge => "CMPMODE::GE",
        CmpOp::ULt | CmpOp::ULe => return None,
    })
}

fn types(e: Elem) -> c::Types {
    c::Types { own: ty(e), bits: bits(e) }
}

/// One operand, by the scalar unit.
pub fn unary(op: UnOp, e: Elem, a: &str) -> String {
    match op {
        UnOp::Copy => a.to_string(),
        UnOp::Neg if e.is_float() => format!("-{a}"),
        UnOp::Neg => format!("({})(0 - ({}){a})", ty(e), bits(e)),
        UnOp::Abs if e.is_float() => format!("HubFloat(HubBits({a}) & 0x7FFFFFFFu)"),
        UnOp::Abs => format!("({0})({a} < 0 ? 0 - ({1}){a} : ({1}){a})", ty(e), bits(e)),
        UnOp::Sqrt => format!("sqrt({a})"),
        UnOp::Floor => format!("HubFloor({a})"),
        UnOp::Ceil => format!("-HubFloor(-{a})"),
        UnOp::RoundEven => format!("HubRint({a})"),
        UnOp::Trunc => format!("HubTrunc({a})"),
        UnOp::Not if e == Elem::Mask => format!("!{a}"),
        UnOp::Not => format!("~{a}"),
    }
}

/// Two operands, by the scalar unit.
pub fn binary(op: BinOp, e: Elem, a: &str, b: &str) -> String {
    if let Some(common) = c::binary(op, e, &types(e), a, b) {
        return common;
    }
    let (t, u) = (ty(e), bits(e));
    let logic = |sign: &str| match e {
        Elem::F32 => format!("HubFloat(HubBits({a}) {sign} HubBits({b}))"),
        Elem::Mask => format!("(bool)({a} {sign} {b})"),
        _ => format!("({t})({a} {sign} {b})"),
    };
    let of_two = |sign: &str, u: &str| format!("(({u}){a} {sign} ({u}){b} ? {a} : {b})");
    match op {
        BinOp::Div if e.is_float() => format!("{a} / {b}"),
        BinOp::Div => format!("HubDiv<{t}, {u}>({a}, {b})"),
        BinOp::Rem => format!("HubRem<{t}>({a}, {b})"),
        BinOp::Min => of_two("<", t),
        BinOp::Max => of_two(">", t),
        BinOp::UMin => of_two("<", u),
        BinOp::UMax => of_two(">", u),
        BinOp::And => logic("&"),
        BinOp::Or => logic("|"),
        BinOp::Xor => logic("^"),
        BinOp::AndNot => unreachable!("made legal"),
        BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Shl | BinOp::Shr | BinOp::UShr => {
            unreachable!("common to all")
        }
    }
}

/// A comparison, by the scalar unit.
pub fn compare(op: CmpOp, e: Elem, a: &str, b: &str) -> String {
    c::compare(op, &types(e), a, b)
}

/// A conversion between two elements, by the scalar unit.
pub fn convert(from: Elem, to: Elem, a: &str) -> String {
    match (from.is_float(), to) {
        (true, Elem::I32) => format!("HubInt<int32_t>({a}, 2147483648.0f)"),
        (true, Elem::I64) => format!("HubInt<int64_t>({a}, 9223372036854775808.0f)"),
        _ => format!("({}){a}", ty(to)),
    }
}
