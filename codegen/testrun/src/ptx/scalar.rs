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

/// `name.ty` of up to three operands; none where there is no such instruction.
pub fn calc(name: &str, t: Ty, v: &[u64]) -> Option<u64> {
    match t {
        Ty::F32 => float32(name, v),
        Ty::F64 => float64(name, v),
        Ty::Pred => Some(match (name, v) {
            ("and", [a, b]) => a & b,
            ("or", [a, b]) => a | b,
            ("xor", [a, b]) => a ^ b,
            ("not", [a]) => a ^ 1,
            ("mov", [a]) => *a,
            _ => return None,
        }),
        _ => integer(name, t, v),
    }
}

fn float32(name: &str, v: &[u64]) -> Option<u64> {
    let x = |i: usize| f32s(v[i]);
    Some(f32b(match (name, v.len()) {
        ("add.rn", 2) => x(0) + x(1),
        ("sub.rn", 2) => x(0) - x(1),
        ("mul.rn", 2) => x(0) * x(1),
        ("div.rn", 2) => x(0) / x(1),
        ("fma.rn", 3) => x(0).mul_add(x(1), x(2)),
        ("sqrt.rn", 1) => x(0).sqrt(),
        _ => return None,
    }))
}

fn float64(name: &str, v: &[u64]) -> Option<u64> {
    let x = |i: usize| f64s(v[i]);
    let r = match (name, v.len()) {
        ("add.rn", 2) => x(0) + x(1),
        ("sub.rn", 2) => x(0) - x(1),
        ("mul.rn", 2) => x(0) * x(1),
        ("div.rn", 2) => x(0) / x(1),
        ("fma.rn", 3) => x(0).mul_add(x(1), x(2)),
        ("sqrt.rn", 1) => x(0).sqrt(),
        _ => return None,
    };
    Some(r.to_bits())
}

fn integer(name: &str, t: Ty, v: &[u64]) -> Option<u64> {
    let s = matches!(t, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64);
    let width = 8 * t.size() as u64;
    let a = fits(t, v[0]);
    let b = v.get(1).map_or(0, |b| fits(t, *b));
    let (x, y) = (signed(t, a), signed(t, b));
    // Counts beyond the width are the width.
    let count = v.get(1).map_or(0, |c| (c & 0xffff_ffff).min(width));
    let r = match (name, v.len()) {
        ("add", 2) => a.wrapping_add(b),
        ("sub", 2) => a.wrapping_sub(b),
        ("mul.lo", 2) => a.wrapping_mul(b),
        ("mad.lo", 3) => a.wrapping_mul(b).wrapping_add(v[2]),
        // The machine's own, whatever it is: no kernel may depend on it.
        ("div" | "rem", 2) if b == 0 || (s && y == -1 && x == i64::MIN >> (64 - width)) => {
            0x5a5a_5a5a_5a5a_5a5a
        }
        ("div", 2) if s => (x / y) as u64,
        ("div", 2) => a / b,
        ("rem", 2) if s => (x % y) as u64,
        ("rem", 2) => a % b,
        ("min", 2) if s => x.min(y) as u64,
        ("min", 2) => a.min(b),
        ("max", 2) if s => x.max(y) as u64,
        ("max", 2) => a.max(b),
        ("and", 2) => a & b,
        ("or", 2) => a | b,
        ("xor", 2) => a ^ b,
        ("not", 1) => !a,
        ("neg", 1) => a.wrapping_neg(),
        ("abs", 1) => x.wrapping_abs() as u64,
        ("shl", 2) if count == 64 => 0,
        ("shl", 2) => a << count,
        ("shr", 2) if s => (x >> count.min(63)) as u64,
        ("shr", 2) if count == 64 => 0,
        ("shr", 2) => a >> count,
        _ => return None,
    };
    Some(fits(t, r))
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
