//! Running combinations along an axis.

use crate::arith::{Num, narrowed, widened, with_num};
use crate::error::{PrimError, misfit, undefined};
use crate::layout::split_at_axis;
use crate::tensor::Tensor;
use hub_abi::prim::ReduceOp;

/// Element `i` combines elements `..=i` (`..i` if `exclusive`), from the end if `reverse`.
pub(crate) fn cumulative(
    op: ReduceOp,
    x: &Tensor,
    axis: usize,
    exclusive: bool,
    reverse: bool,
) -> Result<Tensor, PrimError> {
    if axis >= x.rank() {
        return misfit(format!("axis {axis} is past rank {}", x.rank()));
    }
    let wide = widened(x, op)?;
    let split = split_at_axis(x.dims(), axis);
    let order = (exclusive, reverse);
    let out = with_num!(wide.dtype(), T => {
        let xs = wide.cast::<T>();
        let out = match op {
            ReduceOp::Sum => run(&xs, split, order, T::WIDE_ZERO, T::widen, T::wide_add, T::narrow),
            ReduceOp::Prod => {
                run(&xs, split, order, T::ONE.widen(), T::widen, T::wide_mul, T::narrow)
            }
            ReduceOp::Max => run(&xs, split, order, T::LOWEST, |v| v, <T as Num>::max, |v| v),
            ReduceOp::Min => run(&xs, split, order, T::HIGHEST, |v| v, <T as Num>::min, |v| v),
            _ => return undefined(op, x.dtype()),
        };
        Tensor::new(x.dims(), out)
    })?;
    narrowed(out, x.dtype())
}

fn run<T: Num, A: Copy>(
    xs: &[T],
    [_, n, inner]: [usize; 3],
    (exclusive, reverse): (bool, bool),
    id: A,
    lift: impl Fn(T) -> A,
    join: impl Fn(A, A) -> A,
    done: impl Fn(A) -> T,
) -> Vec<T> {
    let mut out = xs.to_vec();
    if xs.is_empty() {
        return out;
    }
    let mut sums = vec![id; inner];
    for block in out.chunks_exact_mut(n * inner) {
        sums.fill(id);
        for step in 0..n {
            let j = if reverse { n - 1 - step } else { step };
            for (s, v) in sums.iter_mut().zip(&mut block[j * inner..(j + 1) * inner]) {
                let before = *s;
                *s = join(before, lift(*v));
                *v = done(if exclusive { before } else { *s });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_and_exclusion() {
        let x = Tensor::new(&[2, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let run = |op, axis, exclusive, reverse| {
            cumulative(op, &x, axis, exclusive, reverse).unwrap().to_i64s().unwrap()
        };
        assert_eq!(run(ReduceOp::Sum, 1, false, false), [1, 3, 6, 4, 9, 15]);
        assert_eq!(run(ReduceOp::Sum, 1, true, false), [0, 1, 3, 0, 4, 9]);
        assert_eq!(run(ReduceOp::Sum, 1, false, true), [6, 5, 3, 15, 11, 6]);
        assert_eq!(run(ReduceOp::Prod, 0, true, true), [4, 5, 6, 1, 1, 1]);
        assert_eq!(run(ReduceOp::Max, 0, false, false), [1, 2, 3, 4, 5, 6]);
        assert!(cumulative(ReduceOp::Mean, &x, 0, false, false).is_err());
    }
}
