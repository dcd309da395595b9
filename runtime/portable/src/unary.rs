//! Elementwise functions of one argument. f32 computes through f64, so results are within half an
//! ulp and a little of the true value.

use crate::arith::{Int, Num, narrowed, widened, with_num};
use crate::error::{PrimError, undefined};
use crate::special::Erf;
use crate::tensor::Tensor;
use hub_abi::Dtype;
use hub_abi::prim::UnaryOp;

/// Applies `op`; see [`UnaryOp`].
pub(crate) fn unary(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    let d = x.dtype();
    match (op, d) {
        (UnaryOp::Not, Dtype::Bool) => return bools(x, |b| b == 0),
        (UnaryOp::Not, _) => return undefined(op, d),
        (UnaryOp::IsNan | UnaryOp::IsInf, _) if d.is_float() => return predicate(op, x),
        (UnaryOp::Neg | UnaryOp::Abs, Dtype::C64 | Dtype::C128) => return complex(op, x),
        _ => {}
    }
    let wide = widened(x, op)?;
    let out = match wide.dtype() {
        Dtype::F32 => float32(op, &wide),
        Dtype::F64 => float64(op, &wide),
        Dtype::I32 => int::<i32>(op, &wide),
        Dtype::U64 => int::<u64>(op, &wide),
        _ => int::<i64>(op, &wide),
    };
    narrowed(out?, d)
}

fn map<T: Num>(x: &Tensor, f: impl Fn(T) -> T) -> Result<Tensor, PrimError> {
    Tensor::new(x.dims(), x.cast::<T>().iter().map(|&v| f(v)).collect())
}

fn bools(x: &Tensor, f: impl Fn(u8) -> bool) -> Result<Tensor, PrimError> {
    let out: Vec<u8> = x.bytes().iter().map(|&b| u8::from(f(b))).collect();
    Tensor::of_words(Dtype::Bool, x.dims().to_vec(), out)
}

fn predicate(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    fn run<T: Num>(op: UnaryOp, x: &Tensor) -> Vec<u8> {
        let test = |v: T| match op {
            UnaryOp::IsNan => v.is_nan(),
            _ => v == T::HIGHEST || v == T::LOWEST,
        };
        x.cast::<T>().iter().map(|&v| u8::from(test(v))).collect()
    }
    let wide = widened(x, op)?;
    let out = with_num!(wide.dtype(), T => run::<T>(op, &wide));
    Tensor::of_words(Dtype::Bool, x.dims().to_vec(), out)
}

fn complex(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    if op == UnaryOp::Abs {
        return undefined(op, x.dtype());
    }
    if x.dtype() == Dtype::C64 {
        let out: Vec<f32> = x.cast::<f32>().iter().map(|v| -v).collect();
        return Tensor::of_words(x.dtype(), x.dims().to_vec(), out);
    }
    let out: Vec<f64> = x.cast::<f64>().iter().map(|v| -v).collect();
    Tensor::of_words(x.dtype(), x.dims().to_vec(), out)
}

fn int<T: Int>(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    match op {
        UnaryOp::Neg => map(x, T::neg),
        UnaryOp::Abs => map(x, T::abs),
        UnaryOp::Sign => map(x, T::sign),
        UnaryOp::BitNot => map(x, T::not),
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc => Ok(x.clone()),
        _ => undefined(op, x.dtype()),
    }
}

fn float32(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    match op {
        UnaryOp::Neg => map(x, |v: f32| -v),
        UnaryOp::Abs => map(x, f32::abs),
        UnaryOp::Sign => map(x, <f32 as Num>::sign),
        UnaryOp::Floor => map(x, f32::floor),
        UnaryOp::Ceil => map(x, f32::ceil),
        UnaryOp::Round => map(x, f32::round_ties_even),
        UnaryOp::Trunc => map(x, f32::trunc),
        UnaryOp::Sqrt => map(x, f32::sqrt),
        UnaryOp::Recip => map(x, |v: f32| 1.0 / v),
        _ => transcendental(op, x, |v: f32, f| f(v.into()) as f32),
    }
}

fn float64(op: UnaryOp, x: &Tensor) -> Result<Tensor, PrimError> {
    match op {
        UnaryOp::Neg => map(x, |v: f64| -v),
        UnaryOp::Abs => map(x, f64::abs),
        UnaryOp::Sign => map(x, <f64 as Num>::sign),
        UnaryOp::Floor => map(x, f64::floor),
        UnaryOp::Ceil => map(x, f64::ceil),
        UnaryOp::Round => map(x, f64::round_ties_even),
        UnaryOp::Trunc => map(x, f64::trunc),
        UnaryOp::Sqrt => map(x, f64::sqrt),
        UnaryOp::Recip => map(x, |v: f64| 1.0 / v),
        _ => transcendental(op, x, |v: f64, f| f(v)),
    }
}

/// `via` computes one element through a function of f64.
fn transcendental<T: Num>(
    op: UnaryOp,
    x: &Tensor,
    via: impl Fn(T, &dyn Fn(f64) -> f64) -> T,
) -> Result<Tensor, PrimError> {
    let run = |f: &dyn Fn(f64) -> f64| map(x, |v: T| via(v, f));
    match op {
        UnaryOp::Rsqrt => run(&|v| 1.0 / v.sqrt()),
        UnaryOp::Exp => run(&f64::exp),
        UnaryOp::Expm1 => run(&f64::exp_m1),
        UnaryOp::Log => run(&f64::ln),
        UnaryOp::Log1p => run(&f64::ln_1p),
        UnaryOp::Sin => run(&f64::sin),
        UnaryOp::Cos => run(&f64::cos),
        UnaryOp::Tan => run(&f64::tan),
        UnaryOp::Asin => run(&f64::asin),
        UnaryOp::Acos => run(&f64::acos),
        UnaryOp::Atan => run(&f64::atan),
        UnaryOp::Sinh => run(&f64::sinh),
        UnaryOp::Cosh => run(&f64::cosh),
        UnaryOp::Tanh => run(&f64::tanh),
        UnaryOp::Asinh => run(&asinh),
        UnaryOp::Acosh => run(&f64::acosh),
        UnaryOp::Atanh => run(&f64::atanh),
        UnaryOp::Erf => {
            let erf = Erf::get();
            run(&|v| erf.at(v))
        }
        UnaryOp::Sigmoid => run(&sigmoid),
        _ => undefined(op, x.dtype()),
    }
}

/// Stable for arguments whose square overflows or vanishes.
fn asinh(v: f64) -> f64 {
    let a = v.abs();
    let r = match a {
        a if a > 1e150 => a.ln() + std::f64::consts::LN_2,
        a => (a + a * a / (1.0 + (a * a + 1.0).sqrt())).ln_1p(),
    };
    r.copysign(v)
}

fn sigmoid(v: f64) -> f64 {
    let e = (-v.abs()).exp();
    if v < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(op: UnaryOp, x: f32) -> f32 {
        unary(op, &Tensor::scalar(x)).unwrap().view::<f32>().unwrap()[0]
    }

    #[test]
    fn special_values() {
        use UnaryOp::*;
        assert_eq!(f(Round, 2.5), 2.0);
        assert_eq!(f(Round, -1.5), -2.0);
        assert_eq!(f(Exp, f32::NEG_INFINITY), 0.0);
        assert_eq!(f(Exp, 89.0), f32::INFINITY);
        assert_eq!(f(Exp, 1.0), std::f32::consts::E);
        assert_eq!(f(Log, 0.0), f32::NEG_INFINITY);
        assert!(f(Log, -1.0).is_nan() && f(Sign, f32::NAN).is_nan());
        assert_eq!(f(Sign, -0.5), -1.0);
        assert_eq!(f(Rsqrt, 0.25), 2.0);
        assert_eq!(f(Sigmoid, 0.0), 0.5);
        assert_eq!(f(Sigmoid, -200.0), 0.0);
        assert!((f(Sigmoid, -88.0) / (-88f32).exp() - 1.0).abs() < 1e-5);
        assert_eq!(f(Tanh, 0.5), 0.46211717);
        assert_eq!(f(Erf, 0.5), 0.5204999);
        assert_eq!(f(Expm1, 1e-10), 1e-10);
        assert_eq!(f(Asinh, -1e30), -69.7707);
        assert_eq!(f(Asinh, 1.0), 0.8813736);
    }

    #[test]
    fn integers_and_bools() {
        let x = Tensor::new(&[3], vec![i8::MIN, -3, 7]).unwrap();
        let ints = |op| unary(op, &x).unwrap().to_i64s().unwrap();
        assert_eq!(ints(UnaryOp::Neg), [-128, 3, -7]);
        assert_eq!(ints(UnaryOp::Abs), [-128, 3, 7]);
        assert_eq!(ints(UnaryOp::Sign), [-1, -1, 1]);
        assert_eq!(ints(UnaryOp::BitNot), [127, 2, -8]);
        assert!(unary(UnaryOp::Exp, &x).is_err());
        let big = Tensor::scalar(u64::MAX);
        assert_eq!(unary(UnaryOp::Sign, &big).unwrap(), Tensor::scalar(1u64));
        let b = Tensor::bools(&[2], &[true, false]).unwrap();
        assert_eq!(unary(UnaryOp::Not, &b).unwrap().bytes(), [0, 1]);
    }

    #[test]
    fn predicates_give_bools() {
        let x = Tensor::new(&[3], vec![f32::NAN, f32::NEG_INFINITY, 1.0]).unwrap();
        assert_eq!(unary(UnaryOp::IsNan, &x).unwrap().bytes(), [1, 0, 0]);
        let half = crate::cast::cast(&x, Dtype::F16, false).unwrap();
        assert_eq!(unary(UnaryOp::IsInf, &half).unwrap().bytes(), [0, 1, 0]);
    }
}
