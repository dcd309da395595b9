//! What arithmetic instructions give, one thread at a time.

use super::parse::Ty;
use half::f16;

/// Any NaN that single-precision arithmetic makes is this one.
const NAN: u64 = 0x7fff_ffff;

fn f32s(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn f32b(x: f32) -> u64 {
    if x.is_nan() { NAN } else { x.to_bits().into() }
}

fn f64s(x: u64) -> f64 {
    f64::from_bits(x)
}

fn fits(t: Ty, x: u64) -> u64 {
    match t.size() {
        8 => x,
        4 => x & 0xffff_ffff,
        2 => x & 0xffff,
        _ => x & 0xff,
    }
}

/// A value as a signed number of its type.
pub fn signed(t: Ty, x: u64) -> i64 {
    match t.size() {
        8 => x as i64,
        4 => x as i32 as i64,
        2 => x as i16 as i64,
        _ => x as i8 as i64,
    }
}

/// What an instruction computes in one thread.
pub type Fun = fn(u64, u64, u64) -> u64;

/// The machine's own answer to a division by zero, whatever it is: no kernel may depend on it.
const ANYTHING: u64 = 0x5a5a_5a5a;

/// `name.ty` of up to three operands; none where there is no such instruction.
pub fn calc(name: &str, t: Ty) -> Option<Fun> {
    match t {
        Ty::F32 => float32(name),
        Ty::F64 => float64(name),
        Ty::U64 | Ty::S64 => long(name, t == Ty::S64),
        Ty::Pred | Ty::U32 | Ty::S32 => int(name, t),
        _ => None,
    }
}

fn float32(name: &str) -> Option<Fun> {
    Some(match name {
        "add.rn" => |a, b, _| f32b(f32s(a) + f32s(b)),
        "sub.rn" => |a, b, _| f32b(f32s(a) - f32s(b)),
        "mul.rn" => |a, b, _| f32b(f32s(a) * f32s(b)),
        "div.rn" => |a, b, _| f32b(f32s(a) / f32s(b)),
        "fma.rn" => |a, b, c| f32b(f32s(a).mul_add(f32s(b), f32s(c))),
        "sqrt.rn" => |a, _, _| f32b(f32s(a).sqrt()),
        _ => return None,
    })
}

fn float64(name: &str) -> Option<Fun> {
    Some(match name {
        "add.rn" => |a, b, _| (f64s(a) + f64s(b)).to_bits(),
        "sub.rn" => |a, b, _| (f64s(a) - f64s(b)).to_bits(),
        "mul.rn" => |a, b, _| (f64s(a) * f64s(b)).to_bits(),
        "div.rn" => |a, b, _| (f64s(a) / f64s(b)).to_bits(),
        "fma.rn" => |a, b, c| f64s(a).mul_add(f64s(b), f64s(c)).to_bits(),
        "sqrt.rn" => |a, _, _| f64s(a).sqrt().to_bits(),
        _ => return None,
    })
}

fn long(name: &str, signed: bool) -> Option<Fun> {
    // Shift counts beyond the width are the width.
    Some(match (name, signed) {
        ("add", _) => |a, b, _| a.wrapping_add(b),
        ("sub", _) => |a, b, _| a.wrapping_sub(b),
        ("mul.lo", _) => |a, b, _| a.wrapping_mul(b),
        ("mad.lo", _) => |a, b, c| a.wrapping_mul(b).wrapping_add(c),
        ("div", true) => |a, b, _| (a as i64).checked_div(b as i64).map_or(ANYTHING, |x| x as u64),
        ("rem", true) => |a, b, _| (a as i64).checked_rem(b as i64).map_or(ANYTHING, |x| x as u64),
        ("div", _) => |a, b, _| a.checked_div(b).unwrap_or(ANYTHING),
        ("rem", _) => |a, b, _| a.checked_rem(b).unwrap_or(ANYTHING),
        ("min", true) => |a, b, _| (a as i64).min(b as i64) as u64,
        ("max", true) => |a, b, _| (a as i64).max(b as i64) as u64,
        ("min", _) => |a, b, _| a.min(b),
        ("max", _) => |a, b, _| a.max(b),
        ("and", _) => |a, b, _| a & b,
        ("or", _) => |a, b, _| a | b,
        ("xor", _) => |a, b, _| a ^ b,
        ("not", _) => |a, _, _| !a,
        ("neg", _) => |a, _, _| a.wrapping_neg(),
        ("shl", _) => |a, b, _| a.checked_shl(b as u32).unwrap_or(0),
        ("shr", true) => |a, b, _| ((a as i64) >> (b as u32).min(63)) as u64,
        ("shr", _) => |a, b, _| a.checked_shr(b as u32).unwrap_or(0),
        _ => return None,
    })
}

/// 32 bits, and predicates.
fn int(name: &str, t: Ty) -> Option<Fun> {
    let signed = t == Ty::S32;
    fn u(x: u64) -> u32 {
        x as u32
    }
    fn s(x: u64) -> i32 {
        x as i32
    }
    fn of(x: i32) -> u64 {
        u64::from(x as u32)
    }
    Some(match (name, signed) {
        ("not", _) if t == Ty::Pred => |a, _, _| a ^ 1,
        ("and", _) => |a, b, _| u64::from(u(a) & u(b)),
        ("or", _) => |a, b, _| u64::from(u(a) | u(b)),
        ("xor", _) => |a, b, _| u64::from(u(a) ^ u(b)),
        _ if t == Ty::Pred => return None,
        ("add", _) => |a, b, _| u64::from(u(a).wrapping_add(u(b))),
        ("sub", _) => |a, b, _| u64::from(u(a).wrapping_sub(u(b))),
        ("mul.lo", _) => |a, b, _| u64::from(u(a).wrapping_mul(u(b))),
        ("mad.lo", _) => |a, b, c| u64::from(u(a).wrapping_mul(u(b)).wrapping_add(u(c))),
        ("div", true) => |a, b, _| s(a).checked_div(s(b)).map_or(ANYTHING, of),
        ("rem", true) => |a, b, _| s(a).checked_rem(s(b)).map_or(ANYTHING, of),
        ("div", _) => |a, b, _| u(a).checked_div(u(b)).map_or(ANYTHING, u64::from),
        ("rem", _) => |a, b, _| u(a).checked_rem(u(b)).map_or(ANYTHING, u64::from),
        ("min", true) => |a, b, _| of(s(a).min(s(b))),
        ("max", true) => |a, b, _| of(s(a).max(s(b))),
        ("min", _) => |a, b, _| u64::from(u(a).min(u(b))),
        ("max", _) => |a, b, _| u64::from(u(a).max(u(b))),
        ("not", _) => |a, _, _| u64::from(!u(a)),
        ("neg", _) => |a, _, _| u64::from(u(a).wrapping_neg()),
        ("shl", _) => |a, b, _| u64::from(u(a).checked_shl(u(b)).unwrap_or(0)),
        ("shr", true) => |a, b, _| of(s(a) >> u(b).min(31)),
        ("shr", _) => |a, b, _| u64::from(u(a).checked_shr(u(b)).unwrap_or(0)),
        _ => return None,
    })
}

/// A comparison.
pub fn compare(cmp: &str, t: Ty, a: u64, b: u64) -> Option<bool> {
    use std::cmp::Ordering::{self, *};
    let order: Option<Ordering> = match t {
        Ty::F32 => f32s(a).partial_cmp(&f32s(b)),
        Ty::F64 => f64s(a).partial_cmp(&f64s(b)),
        Ty::S32 | Ty::S64 | Ty::S16 | Ty::S8 => Some(signed(t, a).cmp(&signed(t, b))),
        _ => Some(fits(t, a).cmp(&fits(t, b))),
    };
    let float = matches!(t, Ty::F32 | Ty::F64);
    Some(match cmp {
        "eq" => order == Some(Equal),
        "ne" if !float => order != Some(Equal),
        "neu" if float => order != Some(Equal),
        "lt" => order == Some(Less),
        "le" => matches!(order, Some(Less | Equal)),
        "gt" => order == Some(Greater),
        "ge" => matches!(order, Some(Greater | Equal)),
        _ => return None,
    })
}

/// A conversion.
pub fn convert(to: Ty, from: Ty, round: &str, x: u64) -> Option<u64> {
    use Ty::*;
    let float = match from {
        F32 => Some(f64::from(f32s(x))),
        F64 => Some(f64s(x)),
        F16 => {
            return (to == F32 && round.is_empty())
                .then(|| f32b(f16::from_bits(x as u16).to_f32()));
        }
        _ => None,
    };
    let Some(v) = float else {
        let n = if matches!(from, S8 | S16 | S32 | S64) {
            signed(from, x)
        } else {
            fits(from, x) as i64
        };
        return Some(match (to, round) {
            (F32, "rn") if from == U64 => f32b(x as f32),
            (F64, "rn") if from == U64 => (x as f64).to_bits(),
            (F32, "rn") => f32b(n as f32),
            (F64, "rn") => (n as f64).to_bits(),
            (F32 | F64 | F16 | Pred, _) => return None,
            (_, "") => fits(to, n as u64),
            _ => return None,
        });
    };
    let whole = |v: f64| match round {
        "rni" => Some(v.round_ties_even()),
        "rzi" => Some(v.trunc()),
        "rmi" => Some(v.floor()),
        "rpi" => Some(v.ceil()),
        _ => None,
    };
    Some(match to {
        F32 if from == F32 => f32b(whole(v)? as f32),
        F64 if from == F64 => whole(v)?.to_bits(),
        F64 if round.is_empty() => v.to_bits(),
        F32 if round == "rn" => f32b(v as f32),
        F16 if round == "rn" && from == F32 => f16::from_f32(f32s(x)).to_bits().into(),
        S32 | S64 => {
            // Where a NaN goes depends on the types.
            if v.is_nan() && (from == F64 || to == S64) {
                return Some(1 << (8 * to.size() - 1));
            }
            let w = whole(v)?;
            if to == S32 { fits(S32, w as i32 as u64) } else { w as i64 as u64 }
        }
        _ => return None,
    })
}
