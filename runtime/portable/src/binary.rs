//! Elementwise functions of two and three arguments, with NumPy's broadcasting.

use crate::arith::{Float, Int, Num, narrowed, widened};
use crate::error::{Limits, PrimError, misfit, undefined};
use crate::layout::{Walk, broadcast_strides};
use crate::movement::with_words;
use crate::tensor::Tensor;
use bytemuck::Pod;
use hub_abi::Dtype;
use hub_abi::prim::BinaryOp;

/// NumPy's broadcast of two shapes.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, PrimError> {
    let n = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(n).map_or(1, |j| s[j]);
    (0..n)
        .map(|i| match (at(a, i), at(b, i)) {
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            (x, y) if x == y => Ok(x),
            _ => misfit(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Applies `op`; see [`BinaryOp`].
pub(crate) fn binary(
    op: BinaryOp,
    a: &Tensor,
    b: &Tensor,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let d = a.dtype();
    if b.dtype() != d {
        return misfit(format!("element types {d} and {} differ", b.dtype()));
    }
    let shape = broadcast(a.dims(), b.dims())?;
    limits.count(&shape, d.size())?;
    match d {
        Dtype::Bool => return bools(op, a, b, shape),
        Dtype::Str => {
            limits.count_like(&shape, a)?;
            limits.count_like(&shape, b)?;
            return strings(op, a, b, shape);
        }
        Dtype::C64 | Dtype::C128 => return complex(op, a, b, shape),
        _ => {}
    }
    let (wa, wb) = (widened(a, op)?, widened(b, op)?);
    let job = Job { a: &wa, b: &wb, shape: &shape };
    let out = match wa.dtype() {
        Dtype::F32 => job.float::<f32>(op),
        Dtype::F64 => job.float::<f64>(op),
        Dtype::I32 => job.int::<i32>(op),
        Dtype::U64 => job.int::<u64>(op),
        _ => job.int::<i64>(op),
    }?;
    if out.dtype() == Dtype::Bool { Ok(out) } else { narrowed(out, d) }
}

/// Two tensors of one computing type, and the shape they broadcast to.
struct Job<'a> {
    a: &'a Tensor,
    b: &'a Tensor,
    shape: &'a [usize],
}

impl Job<'_> {
    fn map<T: Num>(&self, f: impl Fn(T, T) -> T + Copy) -> Result<Tensor, PrimError> {
        Tensor::new(self.shape, zip(self.a, self.b, self.shape, f))
    }

    fn test<T: Num>(&self, f: impl Fn(T, T) -> bool + Copy) -> Result<Tensor, PrimError> {
        let out = zip(self.a, self.b, self.shape, |x: T, y: T| u8::from(f(x, y)));
        Tensor::of_words(Dtype::Bool, self.shape.to_vec(), out)
    }

    fn common<T: Num>(&self, op: BinaryOp) -> Result<Tensor, PrimError> {
        match op {
            BinaryOp::Add => self.map(T::add),
            BinaryOp::Sub => self.map(T::sub),
            BinaryOp::Mul => self.map(T::mul),
            BinaryOp::Div => self.map(T::div),
            BinaryOp::Mod => self.map(T::modulo),
            BinaryOp::Rem => self.map(T::rem),
            BinaryOp::Pow => self.map(T::pow),
            BinaryOp::Max => self.map(<T as Num>::max),
            BinaryOp::Min => self.map(<T as Num>::min),
            BinaryOp::Eq => self.test(|x: T, y: T| x == y),
            BinaryOp::Ne => self.test(|x: T, y: T| x != y),
            BinaryOp::Lt => self.test(|x: T, y: T| x < y),
            BinaryOp::Le => self.test(|x: T, y: T| x <= y),
            BinaryOp::Gt => self.test(|x: T, y: T| x > y),
            BinaryOp::Ge => self.test(|x: T, y: T| x >= y),
            _ => undefined(op, T::DTYPE),
        }
    }

    fn float<T: Float>(&self, op: BinaryOp) -> Result<Tensor, PrimError> {
        if op == BinaryOp::Atan2 {
            return self.map(T::atan2);
        }
        self.common::<T>(op)
    }

    fn int<T: Int>(&self, op: BinaryOp) -> Result<Tensor, PrimError> {
        match op {
            BinaryOp::Div | BinaryOp::Mod | BinaryOp::Rem => {
                let zero = self.b.cast::<T>().contains(&T::ZERO);
                if zero && !self.shape.contains(&0) {
                    return Err(PrimError::DivZero);
                }
                self.common::<T>(op)
            }
            BinaryOp::BitAnd => self.map(T::and),
            BinaryOp::BitOr => self.map(T::or),
            BinaryOp::BitXor => self.map(T::xor),
            BinaryOp::Shl => self.map(T::shl),
            BinaryOp::Shr => self.map(T::shr),
            _ => self.common::<T>(op),
        }
    }
}

/// `f` over both, broadcast to `shape`.
fn zip<T: Pod, R>(a: &Tensor, b: &Tensor, shape: &[usize], f: impl Fn(T, T) -> R + Copy) -> Vec<R> {
    let (xs, ys) = (a.cast::<T>(), b.cast::<T>());
    let strides = [broadcast_strides(a.dims(), shape), broadcast_strides(b.dims(), shape)];
    let walk = Walk::new(shape, [&strides[0], &strides[1]]);
    let (n, step) = walk.row();
    let mut out = Vec::with_capacity(crate::tensor::count_of(shape).unwrap_or(0));
    walk.rows([0, 0], |[i, j]| match step {
        [1, 1] => out.extend(xs[i..i + n].iter().zip(&ys[j..j + n]).map(|(&x, &y)| f(x, y))),
        [1, 0] => {
            let y = ys[j];
            out.extend(xs[i..i + n].iter().map(|&x| f(x, y)));
        }
        [0, 1] => {
            let x = xs[i];
            out.extend(ys[j..j + n].iter().map(|&y| f(x, y)));
        }
        [p, q] => out.extend((0..n).map(|k| f(xs[i + k * p as usize], ys[j + k * q as usize]))),
    });
    out
}

fn bools(op: BinaryOp, a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, PrimError> {
    use BinaryOp::*;
    let run = |f: fn(bool, bool) -> bool| {
        let out = zip(a, b, &shape, |x: u8, y: u8| u8::from(f(x != 0, y != 0)));
        Tensor::of_words(Dtype::Bool, shape.clone(), out)
    };
    match op {
        And | BitAnd | Mul | Min => run(|x, y| x & y),
        Or | BitOr | Add | Max => run(|x, y| x | y),
        Xor | BitXor | Ne => run(|x, y| x ^ y),
        Eq => run(|x, y| x == y),
        Lt => run(|x, y| !x & y),
        Le => run(|x, y| !x | y),
        Gt => run(|x, y| x & !y),
        Ge => run(|x, y| x | !y),
        _ => undefined(op, Dtype::Bool),
    }
}

fn strings(op: BinaryOp, a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, PrimError> {
    let (xs, ys) = (a.as_strings(), b.as_strings());
    let left = crate::layout::offsets(&shape, &broadcast_strides(a.dims(), &shape));
    let right = crate::layout::offsets(&shape, &broadcast_strides(b.dims(), &shape));
    let pairs = left.iter().zip(&right).map(|(&i, &j)| (&xs[i], &ys[j]));
    match op {
        BinaryOp::Eq | BinaryOp::Ne => {
            let want = op == BinaryOp::Eq;
            let out: Vec<bool> = pairs.map(|(x, y)| (x == y) == want).collect();
            Tensor::bools(&shape, &out)
        }
        BinaryOp::Add => {
            Tensor::strings(&shape, pairs.map(|(x, y)| [x.as_str(), y.as_str()].concat()).collect())
        }
        _ => undefined(op, Dtype::Str),
    }
}

fn complex(op: BinaryOp, a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, PrimError> {
    let d = a.dtype();
    let (wa, wb) =
        (crate::cast::cast(a, Dtype::C128, false)?, crate::cast::cast(b, Dtype::C128, false)?);
    type C = [f64; 2];
    let run = |f: fn(C, C) -> C| {
        let out = zip(&wa, &wb, &shape, f);
        crate::cast::cast(&Tensor::of_words(Dtype::C128, shape.clone(), out)?, d, false)
    };
    let test = |want: bool| {
        let out = zip(&wa, &wb, &shape, |x: C, y: C| u8::from((x == y) == want));
        Tensor::of_words(Dtype::Bool, shape.clone(), out)
    };
    match op {
        BinaryOp::Add => run(|x, y| [x[0] + y[0], x[1] + y[1]]),
        BinaryOp::Sub => run(|x, y| [x[0] - y[0], x[1] - y[1]]),
        BinaryOp::Mul => run(|x, y| [x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]]),
        BinaryOp::Div => run(|x, y| {
            let n = y[0] * y[0] + y[1] * y[1];
            [(x[0] * y[0] + x[1] * y[1]) / n, (x[1] * y[0] - x[0] * y[1]) / n]
        }),
        BinaryOp::Eq => test(true),
        BinaryOp::Ne => test(false),
        _ => undefined(op, d),
    }
}

/// `cond ? a : b`, all three broadcast; any dtype.
pub(crate) fn select(
    cond: &Tensor,
    a: &Tensor,
    b: &Tensor,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if cond.dtype() != Dtype::Bool || a.dtype() != b.dtype() {
        return misfit(format!(
            "select of {} between {} and {}",
            cond.dtype(),
            a.dtype(),
            b.dtype()
        ));
    }
    let shape = broadcast(cond.dims(), &broadcast(a.dims(), b.dims())?)?;
    limits.count_like(&shape, b)?;
    let total = limits.count_like(&shape, a)?;
    let strides = [cond, a, b].map(|t| broadcast_strides(t.dims(), &shape));
    let walk = Walk::new(&shape, [&strides[0], &strides[1], &strides[2]]);
    let (n, [c, p, q]) = walk.row();
    let test = cond.bytes();
    with_words!(a, xs => {
        let ys = crate::movement::Words::words_of(b, &xs);
        let mut out = Vec::with_capacity(total);
        walk.rows([0; 3], |[h, i, j]| {
            let (c, p, q) = (c as usize, p as usize, q as usize);
            out.extend((0..n).map(|k| {
                if test[h + k * c] != 0 { xs[i + k * p].clone() } else { ys[j + k * q].clone() }
            }));
        });
        (shape, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: BinaryOp, a: &Tensor, b: &Tensor) -> Result<Tensor, PrimError> {
        binary(op, a, b, &Limits::default())
    }

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        let a = Tensor::new(&[2, 1, 3], vec![0, 1, 2, 10, 11, 12]).unwrap();
        let b = Tensor::new(&[2, 1], vec![100, 200]).unwrap();
        let want = vec![100, 101, 102, 200, 201, 202, 110, 111, 112, 210, 211, 212];
        assert_eq!(run(BinaryOp::Add, &a, &b).unwrap(), Tensor::new(&[2, 2, 3], want).unwrap());
        let empty = Tensor::new(&[0, 3], Vec::<i32>::new()).unwrap();
        let four = Tensor::new(&[4], vec![0; 4]).unwrap();
        assert!(matches!(run(BinaryOp::Add, &a, &four), Err(PrimError::Misfit(_))));
        let row = Tensor::new(&[1, 3], vec![1, 2, 3]).unwrap();
        assert_eq!(run(BinaryOp::Mul, &empty, &row).unwrap().dims(), [0, 3]);
    }

    #[test]
    fn integer_division_reports_zero() {
        let a = Tensor::new(&[2], vec![7i8, i8::MIN]).unwrap();
        let b = Tensor::new(&[2], vec![-2i8, -1]).unwrap();
        assert_eq!(run(BinaryOp::Div, &a, &b).unwrap().to_i64s().unwrap(), [-3, -128]);
        assert_eq!(run(BinaryOp::Mod, &a, &b).unwrap().to_i64s().unwrap(), [-1, 0]);
        let zero = Tensor::scalar(0i8);
        assert_eq!(run(BinaryOp::Div, &a, &zero), Err(PrimError::DivZero));
    }

    #[test]
    fn comparisons_with_nan_are_false() {
        let a = Tensor::new(&[2], vec![f32::NAN, 1.0]).unwrap();
        assert_eq!(run(BinaryOp::Ge, &a, &a).unwrap().bytes(), [0, 1]);
        assert_eq!(run(BinaryOp::Ne, &a, &a).unwrap().bytes(), [1, 0]);
    }

    #[test]
    fn unsigned_bytes_wrap() {
        let a = Tensor::new(&[2], vec![200u8, 3]).unwrap();
        let b = Tensor::new(&[2], vec![100u8, 9]).unwrap();
        assert_eq!(run(BinaryOp::Add, &a, &b).unwrap().bytes(), [44, 12]);
        assert_eq!(run(BinaryOp::Sub, &a, &b).unwrap().bytes(), [100, 250]);
        assert_eq!(run(BinaryOp::Shl, &a, &b).unwrap().bytes(), [0, 0]);
    }

    #[test]
    fn select_takes_any_dtype() {
        let c = Tensor::bools(&[2, 1], &[true, false]).unwrap();
        let s = |v: &[&str]| {
            Tensor::strings(&[v.len()], v.iter().map(|s| s.to_string()).collect()).unwrap()
        };
        let out = select(&c, &s(&["a", "b"]), &s(&["z"]), &Limits::default()).unwrap();
        assert_eq!(out.as_strings(), ["a", "b", "z", "z"]);
        assert_eq!(out.dims(), [2, 2]);
    }
}
