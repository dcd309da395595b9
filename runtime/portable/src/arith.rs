//! Arithmetic on the five number types that primitives compute in. Other dtypes are widened to
//! one of them and narrowed after: 8- and 16-bit integers to i32, u32 to i64, small floats to f32.

use crate::cast;
use crate::error::{PrimError, undefined};
use crate::tensor::{Elem, Tensor};
use hub_abi::Dtype;

/// A number type to compute in.
pub(crate) trait Num: Elem + PartialOrd {
    const ZERO: Self;
    const ONE: Self;
    /// Least value (-inf for floats).
    const LOWEST: Self;
    /// Greatest value (+inf for floats).
    const HIGHEST: Self;
    /// What sums are kept in.
    type Wide: Copy;
    const WIDE_ZERO: Self::Wide;
    fn widen(self) -> Self::Wide;
    fn wide_add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn wide_mul(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn narrow(w: Self::Wide) -> Self;
    /// The sum over the count; integers truncate (the count is not 0 for them).
    fn mean(w: Self::Wide, count: usize) -> Self;
    fn add(self, o: Self) -> Self;
    fn sub(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    /// Total: integers give 0 for a zero divisor (callers refuse it before).
    fn div(self, o: Self) -> Self;
    /// With the divisor's sign.
    fn modulo(self, o: Self) -> Self;
    /// With the dividend's sign.
    fn rem(self, o: Self) -> Self;
    fn pow(self, o: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn sign(self) -> Self;
    fn is_nan(self) -> bool;
    /// NaN if either is.
    fn max(self, o: Self) -> Self {
        if self > o || self.is_nan() { self } else { o }
    }
    /// NaN if either is.
    fn min(self, o: Self) -> Self {
        if self < o || self.is_nan() { self } else { o }
    }
}

macro_rules! float_num {
    ($t:ty) => {
        impl Num for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = <$t>::NEG_INFINITY;
            const HIGHEST: Self = <$t>::INFINITY;
            type Wide = f64;
            const WIDE_ZERO: f64 = 0.0;
            fn widen(self) -> f64 {
                self.into()
            }
            fn wide_add(a: f64, b: f64) -> f64 {
                a + b
            }
            fn wide_mul(a: f64, b: f64) -> f64 {
                a * b
            }
            fn narrow(w: f64) -> Self {
                w as $t
            }
            fn mean(w: f64, count: usize) -> Self {
                (w / count as f64) as $t
            }
            fn add(self, o: Self) -> Self {
                self + o
            }
            fn sub(self, o: Self) -> Self {
                self - o
            }
            fn mul(self, o: Self) -> Self {
                self * o
            }
            fn div(self, o: Self) -> Self {
                self / o
            }
            fn modulo(self, o: Self) -> Self {
                let r = self % o;
                if r == 0.0 {
                    (0.0 as $t).copysign(o)
                } else if (r < 0.0) != (o < 0.0) {
                    r + o
                } else {
                    r
                }
            }
            fn rem(self, o: Self) -> Self {
                self % o
            }
            fn pow(self, o: Self) -> Self {
                if o == 2.0 { self * self } else { f64::from(self).powf(f64::from(o)) as $t }
            }
            fn neg(self) -> Self {
                -self
            }
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            fn sign(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self < 0.0 {
                    -1.0
                } else if self == 0.0 {
                    0.0
                } else {
                    self
                }
            }
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
        }
    };
}
float_num!(f32);
float_num!(f64);

macro_rules! int_num {
    ($t:ty) => {
        #[allow(unused_comparisons)]
        impl Num for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LOWEST: Self = <$t>::MIN;
            const HIGHEST: Self = <$t>::MAX;
            type Wide = $t;
            const WIDE_ZERO: $t = 0;
            fn widen(self) -> $t {
                self
            }
            fn wide_add(a: $t, b: $t) -> $t {
                a.wrapping_add(b)
            }
            fn wide_mul(a: $t, b: $t) -> $t {
                a.wrapping_mul(b)
            }
            fn narrow(w: $t) -> Self {
                w
            }
            fn mean(w: $t, count: usize) -> Self {
                <$t>::try_from(count).map_or(0, |c| w.checked_div(c).unwrap_or(0))
            }
            fn add(self, o: Self) -> Self {
                self.wrapping_add(o)
            }
            fn sub(self, o: Self) -> Self {
                self.wrapping_sub(o)
            }
            fn mul(self, o: Self) -> Self {
                self.wrapping_mul(o)
            }
            fn div(self, o: Self) -> Self {
                if o == 0 { 0 } else { self.wrapping_div(o) }
            }
            fn modulo(self, o: Self) -> Self {
                let r = self.rem(o);
                if r != 0 && (r < 0) != (o < 0) { r.wrapping_add(o) } else { r }
            }
            fn rem(self, o: Self) -> Self {
                if o == 0 { 0 } else { self.wrapping_rem(o) }
            }
            fn pow(self, o: Self) -> Self {
                if o < 0 {
                    // 1/x^n truncated: only ±1 survive; 0 has no inverse and gives 0.
                    return if self == 1 {
                        1
                    } else if self.wrapping_add(1) == 0 {
                        if o & 1 == 0 { 1 } else { self }
                    } else {
                        0
                    };
                }
                let (mut base, mut e, mut out) = (self, o, 1);
                while e > 0 {
                    if e & 1 == 1 {
                        out = <$t>::wrapping_mul(out, base);
                    }
                    base = base.wrapping_mul(base);
                    e >>= 1;
                }
                out
            }
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            fn abs(self) -> Self {
                if self < 0 { self.wrapping_neg() } else { self }
            }
            fn sign(self) -> Self {
                if self > 0 {
                    1
                } else if self == 0 {
                    0
                } else {
                    <$t>::wrapping_sub(0, 1)
                }
            }
            fn is_nan(self) -> bool {
                false
            }
        }
    };
}
int_num!(i32);
int_num!(i64);
int_num!(u64);

/// Floating point of a computing type.
pub(crate) trait Float: Num<Wide = f64> {
    fn atan2(self, x: Self) -> Self;
}
impl Float for f32 {
    fn atan2(self, x: f32) -> f32 {
        f64::from(self).atan2(x.into()) as f32
    }
}
impl Float for f64 {
    fn atan2(self, x: f64) -> f64 {
        f64::atan2(self, x)
    }
}

/// Integers with bits.
pub(crate) trait Int: Num + Eq {
    fn and(self, o: Self) -> Self;
    fn or(self, o: Self) -> Self;
    fn xor(self, o: Self) -> Self;
    fn not(self) -> Self;
    /// 0 past the width.
    fn shl(self, o: Self) -> Self;
    /// All sign bits past the width.
    fn shr(self, o: Self) -> Self;
}

macro_rules! int_bits {
    ($t:ty) => {
        #[allow(unused_comparisons)]
        impl Int for $t {
            fn and(self, o: Self) -> Self {
                self & o
            }
            fn or(self, o: Self) -> Self {
                self | o
            }
            fn xor(self, o: Self) -> Self {
                self ^ o
            }
            fn not(self) -> Self {
                !self
            }
            fn shl(self, o: Self) -> Self {
                u32::try_from(o).ok().and_then(|n| self.checked_shl(n)).unwrap_or(0)
            }
            fn shr(self, o: Self) -> Self {
                let past = if self < 0 { !0 } else { 0 };
                u32::try_from(o).ok().and_then(|n| self.checked_shr(n)).unwrap_or(past)
            }
        }
    };
}
int_bits!(i32);
int_bits!(i64);
int_bits!(u64);

/// The dtype to compute in for elements of `d`.
pub(crate) fn compute_dtype(d: Dtype) -> Option<Dtype> {
    use Dtype::*;
    Some(match d {
        F32 | F64 | I32 | I64 | U64 => d,
        d if d.is_small_float() => F32,
        U32 => I64,
        d if d.is_int() => I32,
        _ => return None,
    })
}

/// The tensor in its computing type.
pub(crate) fn widened(x: &Tensor, op: impl std::fmt::Debug) -> Result<Tensor, PrimError> {
    match compute_dtype(x.dtype()) {
        Some(d) if d == x.dtype() => Ok(x.clone()),
        Some(d) => cast::cast(x, d, false),
        None => undefined(op, x.dtype()),
    }
}

/// A result in a computing type back to `to` (rounding floats, wrapping integers).
pub(crate) fn narrowed(x: Tensor, to: Dtype) -> Result<Tensor, PrimError> {
    if x.dtype() == to { Ok(x) } else { cast::cast(&x, to, false) }
}

/// Calls a function generic over [`Num`] for a tensor of a computing type.
macro_rules! with_num {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            hub_abi::Dtype::F32 => {
                type $T = f32;
                $body
            }
            hub_abi::Dtype::F64 => {
                type $T = f64;
                $body
            }
            hub_abi::Dtype::I32 => {
                type $T = i32;
                $body
            }
            hub_abi::Dtype::U64 => {
                type $T = u64;
                $body
            }
            _ => {
                type $T = i64;
                $body
            }
        }
    };
}
pub(crate) use with_num;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_arithmetic_is_total() {
        assert_eq!(Num::div(i32::MIN, -1), i32::MIN);
        assert_eq!(Num::modulo(i32::MIN, -1), 0);
        assert_eq!(Num::modulo(-7i32, 3), 2);
        assert_eq!(Num::modulo(7i32, -3), -2);
        assert_eq!(Num::rem(-7i64, 3), -1);
        assert_eq!(Num::pow(3i64, 4), 81);
        assert_eq!(Num::pow(-1i64, -3), -1);
        assert_eq!(Num::sign(-5i32), -1);
        assert_eq!(Int::shl(1i32, 40), 0);
        assert_eq!(Int::shr(-1i32, 40), -1);
        assert_eq!(Int::shr(u64::MAX, 64), 0);
    }

    #[test]
    fn float_remainders_follow_python_and_c() {
        assert_eq!(Num::modulo(-7.5f32, 2.0), 0.5);
        assert_eq!(Num::modulo(7.5f32, -2.0), -0.5);
        assert_eq!(Num::rem(-7.5f32, 2.0), -1.5);
        assert!(Num::modulo(1.0f64, 0.0).is_nan());
        assert_eq!(Num::modulo(1.0f64, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert!(Num::max(f32::NAN, 1.0).is_nan() && Num::max(1.0, f32::NAN).is_nan());
    }
}
