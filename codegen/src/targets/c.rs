//! Expressions that every dialect of C writes alike, given its names of types.
//!
//! Integers wrap, so they are added and multiplied as unsigned ones.

use crate::kir::{BinOp, CmpOp, Elem};

/// A dialect's types of an element and of the unsigned integer of its size.
pub struct Types {
    /// The element.
    pub own: &'static str,
    /// Its bits.
    pub bits: &'static str,
}

/// Sums, products and shifts of `a` and `b`; nothing of what dialects write differently.
pub fn binary(op: BinOp, e: Elem, t: &Types, a: &str, b: &str) -> Option<String> {
    let Types { own, bits } = t;
    let plain = |sign: &str| Some(format!("{a} {sign} {b}"));
    let wrapping = |sign: &str| Some(format!("({own})(({bits}){a} {sign} ({bits}){b})"));
    let sum = |sign: &str| if e.is_float() { plain(sign) } else { wrapping(sign) };
    match op {
        BinOp::Add => sum("+"),
        BinOp::Sub => sum("-"),
        BinOp::Mul => sum("*"),
        BinOp::Shl => wrapping("<<"),
        BinOp::Shr => plain(">>"),
        BinOp::UShr => wrapping(">>"),
        _ => None,
    }
}

/// A comparison, 0 or 1.
pub fn compare(op: CmpOp, t: &Types, a: &str, b: &str) -> String {
    let sign = match op {
        CmpOp::Eq => "==",
        CmpOp::Ne => "!=",
        CmpOp::Lt | CmpOp::ULt => "<",
        CmpOp::Le | CmpOp::ULe => "<=",
        CmpOp::Gt => ">",
        CmpOp::Ge => ">=",
    };
    match op {
        CmpOp::ULt | CmpOp::ULe => format!("({0}){a} {sign} ({0}){b}", t.bits),
        _ => format!("{a} {sign} {b}"),
    }
}
