//! Values: the meaning of every instruction that touches no memory. A lane is 64 raw bits, the
//! high half zero for 32-bit elements; masks are 0 or 1.

use crate::kir::inst::*;
use crate::kir::types::*;

pub(super) type Lanes = [u64; MAX_LANES];

/// A lane as a signed integer.
pub(super) fn signed(e: Elem, bits: u64) -> i64 {
    if e == Elem::I32 { bits as i32 as i64 } else { bits as i64 }
}

/// An integer as a lane, keeping the low bits.
pub(super) fn int_bits(e: Elem, v: i64) -> u64 {
    if e == Elem::I32 { v as u32 as u64 } else { v as u64 }
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// The result of a value instruction.
pub(super) fn value(
    k: &Kernel,
    i: &Inst,
    get: impl Fn(Reg) -> Result<Lanes, String>,
) -> Result<Lanes, String> {
    use Inst::*;
    let dst = i.dst().ok_or("no result")?;
    let ty = k.ty(dst);
    let (e, n) = (ty.elem, ty.lanes as usize);
    let mut out = [0u64; MAX_LANES];
    let mut each = |f: &mut dyn FnMut(usize) -> Result<u64, String>| -> Result<(), String> {
        (0..n).try_for_each(|l| f(l).map(|v| out[l] = v))
    };
    match i {
        Const { bits, .. } => each(&mut |_| {
            Ok(match e {
                Elem::Mask => (*bits != 0) as u64,
                Elem::F32 | Elem::I32 => *bits as u32 as u64,
                _ => *bits,
            })
        })?,
        Splat { src, .. } => {
            let s = get(*src)?[0];
            each(&mut |_| Ok(s))?
        }
        Iota { .. } => each(&mut |l| Ok(l as u64))?,
        Un { op, a, .. } => {
            let a = get(*a)?;
            each(&mut |l| Ok(un(*op, e, a[l])))?
        }
        Bin { op, a, b, .. } => {
            let (a, b) = (get(*a)?, get(*b)?);
            each(&mut |l| bin(*op, e, a[l], b[l]))?
        }
        Fma { a, b, c, .. } => {
            let (a, b, c) = (get(*a)?, get(*b)?, get(*c)?);
            each(&mut |l| Ok(fma(e, a[l], b[l], c[l])))?
        }
        Dot2 { a, b, c, .. } => {
            let (a, b, c) = (get(*a)?, get(*b)?, get(*c)?);
            each(&mut |l| Ok(dot2(a[l], b[l], c[l])))?
        }
        Cmp { op, a, b, .. } => {
            let (te, a, b) = (k.ty(*a).elem, get(*a)?, get(*b)?);
            each(&mut |l| Ok(cmp(*op, te, a[l], b[l]) as u64))?
        }
        Select { mask, a, b, .. } => {
            let (m, a, b) = (get(*mask)?, get(*a)?, get(*b)?);
            each(&mut |l| Ok(if m[l] != 0 { a[l] } else { b[l] }))?
        }
        Cvt { a, mode, .. } => {
            let (te, a) = (k.ty(*a).elem, get(*a)?);
            each(&mut |l| Ok(cvt(te, e, *mode, a[l])))?
        }
        Bitcast { a, .. } => {
            let a = get(*a)?;
            each(&mut |l| Ok(a[l]))?
        }
        Scale2 { a, n, .. } => {
            let (a, x) = (get(*a)?, get(*n)?);
            each(&mut |l| scale2(f32_of(a[l]), f32_of(x[l])))?
        }
        Reduce { op, a, .. } => out[0] = fold(*op, e, get(*a)?, k.ty(*a).lanes as usize)?,
        Extract { a, lane, .. } => out[0] = get(*a)?[*lane as usize],
        Shuffle { a, b, sel, .. } => {
            let (a, b) = (get(*a)?, get(*b)?);
            let pick = |s: usize| if s < n { a[s] } else { b[s - n] };
            each(&mut |l| Ok(pick(sel[l] as usize)))?
        }
        _ => return Err("not a value instruction".into()),
    }
    Ok(out)
}

/// All of `width` lanes to one, halves folded together.
fn fold(op: ReduceOp, e: Elem, mut v: Lanes, mut width: usize) -> Result<u64, String> {
    while width > 1 {
        width /= 2;
        for l in 0..width {
            v[l] = bin(op.bin(), e, v[l], v[l + width])?;
        }
    }
    Ok(v[0])
}

fn un(op: UnOp, e: Elem, a: u64) -> u64 {
    use UnOp::*;
    let f = |g32: fn(f32) -> f32, g64: fn(f64) -> f64| match e {
        Elem::F32 => g32(f32_of(a)).to_bits() as u64,
        _ => g64(f64_of(a)).to_bits(),
    };
    match (op, e.is_float()) {
        (Copy, _) => a,
        (Neg, true) => f(|x| -x, |x| -x),
        (Abs, true) => f(f32::abs, f64::abs),
        (Neg, false) => int_bits(e, signed(e, a).wrapping_neg()),
        (Abs, false) => int_bits(e, signed(e, a).wrapping_abs()),
        (Sqrt, _) => f(f32::sqrt, f64::sqrt),
        (Floor, _) => f(f32::floor, f64::floor),
        (Ceil, _) => f(f32::ceil, f64::ceil),
        (RoundEven, _) => f(f32::round_ties_even, f64::round_ties_even),
        (Trunc, _) => f(f32::trunc, f64::trunc),
        (Not, _) if e == Elem::Mask => a ^ 1,
        (Not, _) => int_bits(e, !(a as i64)),
    }
}

fn bin(op: BinOp, e: Elem, a: u64, b: u64) -> Result<u64, String> {
    use BinOp::*;
    match op {
        And => return Ok(a & b),
        Or => return Ok(a | b),
        Xor => return Ok(a ^ b),
        AndNot if e == Elem::Mask => return Ok((a ^ 1) & b),
        AndNot => return Ok(!a & b),
        _ => {}
    }
    match e {
        Elem::F32 => {
            let (x, y) = (f32_of(a), f32_of(b));
            let r = match op {
                Add => x + y,
                Sub => x - y,
                Mul => x * y,
                Div => x / y,
                Min if x < y => x,
                Max if x > y => x,
                _ => y,
            };
            Ok(r.to_bits() as u64)
        }
        Elem::F64 => {
            let (x, y) = (f64_of(a), f64_of(b));
            let r = match op {
                Add => x + y,
                Sub => x - y,
                Mul => x * y,
                Div => x / y,
                Min if x < y => x,
                Max if x > y => x,
                _ => y,
            };
            Ok(r.to_bits())
        }
        _ => int_bin(op, e, a, b),
    }
}

fn int_bin(op: BinOp, e: Elem, a: u64, b: u64) -> Result<u64, String> {
    use BinOp::*;
    let (x, y) = (signed(e, a), signed(e, b));
    let width = 8 * e.size() as u64;
    if matches!(op, Shl | Shr | UShr) && b >= width {
        return Err(format!("shift by {} bits of {width}", y));
    }
    let r = match op {
        Add => x.wrapping_add(y),
        Sub => x.wrapping_sub(y),
        Mul => x.wrapping_mul(y),
        Div if y == 0 => 0,
        Div => x.wrapping_div(y),
        Rem if y == 0 => 0,
        Rem => x.wrapping_rem(y),
        Min => x.min(y),
        Max => x.max(y),
        UMin => a.min(b) as i64,
        UMax => a.max(b) as i64,
        Shl => x.wrapping_shl(b as u32),
        Shr => x.wrapping_shr(b as u32),
        UShr => a.wrapping_shr(b as u32) as i64,
        _ => return Err("not on integers".into()),
    };
    Ok(int_bits(e, r))
}

fn fma(e: Elem, a: u64, b: u64, c: u64) -> u64 {
    match e {
        Elem::F32 => f32_of(a).mul_add(f32_of(b), f32_of(c)).to_bits() as u64,
        _ => f64_of(a).mul_add(f64_of(b), f64_of(c)).to_bits(),
    }
}

/// Denormals are zeros of their sign.
pub(super) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn dot2(a: u64, b: u64, c: u64) -> u64 {
    let high = |x: u64| flush(f32::from_bits(x as u32 & 0xffff_0000));
    let low = |x: u64| flush(f32::from_bits((x as u32) << 16));
    let sum = flush(high(a).mul_add(high(b), flush(f32_of(c))));
    flush(low(a).mul_add(low(b), sum)).to_bits() as u64
}

/// A comparison of two lanes.
pub(super) fn cmp(op: CmpOp, e: Elem, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::{self, *};
    let order: Option<Ordering> = match (e, op) {
        (Elem::F32, _) => f32_of(a).partial_cmp(&f32_of(b)),
        (Elem::F64, _) => f64_of(a).partial_cmp(&f64_of(b)),
        (_, CmpOp::ULt | CmpOp::ULe) => Some(a.cmp(&b)),
        _ => Some(signed(e, a).cmp(&signed(e, b))),
    };
    match op {
        CmpOp::Eq => order == Some(Equal),
        CmpOp::Ne => order != Some(Equal),
        CmpOp::Lt | CmpOp::ULt => order == Some(Less),
        CmpOp::Le | CmpOp::ULe => matches!(order, Some(Less | Equal)),
        CmpOp::Gt => order == Some(Greater),
        CmpOp::Ge => matches!(order, Some(Greater | Equal)),
    }
}

fn cvt(from: Elem, to: Elem, mode: CvtMode, a: u64) -> u64 {
    let float = match from {
        Elem::F32 => Some(f32_of(a) as f64),
        Elem::F64 => Some(f64_of(a)),
        _ => None,
    };
    match (float, to) {
        (Some(_), Elem::F32) if from == Elem::F32 => a,
        (Some(x), Elem::F32) => (x as f32).to_bits() as u64,
        (Some(x), Elem::F64) => x.to_bits(),
        (Some(x), _) if mode == CvtMode::Round => round_int(to, x),
        (Some(x), Elem::I32) => x as i32 as u32 as u64,
        (Some(x), _) => x as i64 as u64,
        (None, Elem::F32) => (signed(from, a) as f32).to_bits() as u64,
        (None, Elem::F64) => (signed(from, a) as f64).to_bits(),
        (None, _) => int_bits(to, signed(from, a)),
    }
}

fn round_int(to: Elem, x: f64) -> u64 {
    let r = x.round_ties_even();
    if to == Elem::I32 {
        let ok = r >= i32::MIN as f64 && r <= i32::MAX as f64;
        return if ok { r as i32 as u32 as u64 } else { i32::MIN as u32 as u64 };
    }
    let ok = (-(2f64.powi(63))..2f64.powi(63)).contains(&r);
    if ok { r as i64 as u64 } else { i64::MIN as u64 }
}

fn scale2(a: f32, n: f32) -> Result<u64, String> {
    let known = a.is_nan() || a.is_infinite() || a == 0.0 || (0.25..=4.0).contains(&a.abs());
    if a.is_nan() && n.is_nan() {
        return Ok(f32::NAN.to_bits() as u64);
    }
    if !known || n.is_nan() || n.abs() > 4096.0 || n.fract() != 0.0 {
        return Err(format!("scale2 of {a:e} by 2^{n:e} is not defined"));
    }
    let n = n.clamp(-1000.0, 1000.0) as i32;
    Ok(((a as f64 * 2f64.powi(n)) as f32).to_bits() as u64)
}
