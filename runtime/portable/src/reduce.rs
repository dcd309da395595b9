//! Reductions. f32 sums are kept in f64 over eight lanes and blocks, so they are better than
//! pairwise; integers wrap.

use crate::arith::{Num, narrowed, widened, with_num};
use crate::cast::cast;
use crate::error::{Limits, PrimError, misfit, undefined};
use crate::layout::split_at_axis;
use crate::movement::transpose;
use crate::tensor::{Tensor, count_of};
use hub_abi::Dtype;
use hub_abi::prim::ReduceOp;

/// Combines over `axes` (sorted, distinct); `keep` leaves them as size 1.
pub(crate) fn reduce(
    op: ReduceOp,
    x: &Tensor,
    axes: &[u32],
    keep: bool,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if axes.iter().any(|&a| a as usize >= x.rank()) {
        return misfit(format!("axes {axes:?} are past rank {}", x.rank()));
    }
    if axes.is_empty() {
        return Ok(x.clone());
    }
    let reduced = |i: usize| axes.contains(&(i as u32));
    let dims: Vec<usize> = (0..x.rank())
        .filter(|&i| keep || !reduced(i))
        .map(|i| if reduced(i) { 1 } else { x.dims()[i] })
        .collect();
    limits.count(&dims, x.dtype().size())?;
    let wide = match (x.dtype(), op) {
        (Dtype::Bool, ReduceOp::And | ReduceOp::Or | ReduceOp::Max | ReduceOp::Min) => {
            cast(x, Dtype::I32, false)?
        }
        (d, ReduceOp::And | ReduceOp::Or) => return undefined(op, d),
        _ => widened(x, op)?,
    };
    let (wide, split) = arranged(wide, axes, limits)?;
    if op == ReduceOp::Mean && !x.dtype().is_float() && split[1] == 0 && !dims.contains(&0) {
        return Err(PrimError::DivZero);
    }
    let out =
        with_num!(wide.dtype(), T => Tensor::new(&dims, run::<T>(op, &wide.cast::<T>(), split)))?;
    narrowed(out, x.dtype())
}

/// Brings the reduced axes together: a tensor of the same elements seen as [outer, reduced, inner].
fn arranged(x: Tensor, axes: &[u32], limits: &Limits) -> Result<(Tensor, [usize; 3]), PrimError> {
    let reduced = |i: &usize| axes.contains(&(*i as u32));
    let present = |i: &usize| x.dims()[*i] != 1;
    let product = |it: &mut dyn Iterator<Item = usize>| {
        count_of(&it.map(|i| x.dims()[i]).collect::<Vec<_>>()).unwrap_or(0)
    };
    let wanted: Vec<usize> = (0..x.rank()).filter(|i| present(i) && reduced(i)).collect();
    let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else {
        let n = x.count();
        return Ok((x, [n, 1, 1]));
    };
    if (first..=last).filter(present).all(|i| reduced(&i)) {
        let parts = [0..first, first..last + 1, last + 1..x.rank()];
        let split = parts.map(|r| product(&mut { r }));
        return Ok((x, split));
    }
    let kept: Vec<usize> = (0..x.rank()).filter(|i| !reduced(i)).collect();
    let all: Vec<usize> = (0..x.rank()).filter(|i| reduced(i)).collect();
    let split = [product(&mut kept.iter().copied()), product(&mut all.iter().copied()), 1];
    let perm: Vec<u32> = kept.iter().chain(&all).map(|&i| i as u32).collect();
    Ok((transpose(&x, &perm, limits)?, split))
}

fn run<T: Num>(op: ReduceOp, xs: &[T], split: [usize; 3]) -> Vec<T> {
    let r = split[1];
    match op {
        ReduceOp::Sum => fold(xs, split, T::WIDE_ZERO, T::widen, T::wide_add, T::narrow),
        ReduceOp::Mean => fold(xs, split, T::WIDE_ZERO, T::widen, T::wide_add, |w| T::mean(w, r)),
        ReduceOp::Prod => fold(xs, split, T::ONE.widen(), T::widen, T::wide_mul, T::narrow),
        ReduceOp::Max | ReduceOp::Or => {
            let id = if op == ReduceOp::Or { T::ZERO } else { T::LOWEST };
            fold(xs, split, id, |x| x, <T as Num>::max, |x| x)
        }
        ReduceOp::Min | ReduceOp::And => {
            let id = if op == ReduceOp::And { T::ONE } else { T::HIGHEST };
            fold(xs, split, id, |x| x, <T as Num>::min, |x| x)
        }
    }
}

const LANES: usize = 8;
const BLOCK: usize = 1024;

/// Folds the middle axis of [outer, r, inner].
fn fold<T: Copy, A: Copy>(
    xs: &[T],
    [outer, r, inner]: [usize; 3],
    id: A,
    lift: impl Fn(T) -> A + Copy,
    join: impl Fn(A, A) -> A + Copy,
    done: impl Fn(A) -> T,
) -> Vec<T> {
    if outer == 0 || inner == 0 {
        return vec![];
    }
    if r == 0 {
        return (0..outer * inner).map(|_| done(id)).collect();
    }
    if inner == 1 {
        return xs.chunks_exact(r).map(|row| done(fold_row(row, id, lift, join))).collect();
    }
    let mut out = Vec::with_capacity(outer * inner);
    let mut sums = vec![id; inner];
    for rows in xs.chunks_exact(r * inner) {
        sums.fill(id);
        for row in rows.chunks_exact(inner) {
            sums.iter_mut().zip(row).for_each(|(s, &x)| *s = join(*s, lift(x)));
        }
        out.extend(sums.iter().map(|&s| done(s)));
    }
    out
}

fn fold_row<T: Copy, A: Copy>(
    row: &[T],
    id: A,
    lift: impl Fn(T) -> A + Copy,
    join: impl Fn(A, A) -> A + Copy,
) -> A {
    row.chunks(BLOCK).fold(id, |total, block| {
        let mut lanes = [id; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for chunk in whole {
            for i in 0..LANES {
                lanes[i] = join(lanes[i], lift(chunk[i]));
            }
        }
        let tail = rest.iter().fold(id, |a, &x| join(a, lift(x)));
        join(total, lanes.into_iter().fold(tail, join))
    })
}

/// Is `b` a better choice than `a`? NaN counts as greatest.
fn beats<T: Num>(max: bool, last: bool, a: T, b: T) -> bool {
    let equal = a == b || (a.is_nan() && b.is_nan());
    let greater = b > a || (b.is_nan() && !a.is_nan());
    if equal { last } else { greater == max }
}

/// int64 index of the greatest or least element along `axis`.
pub(crate) fn arg_reduce(
    x: &Tensor,
    max: bool,
    axis: usize,
    keep: bool,
    last: bool,
) -> Result<Tensor, PrimError> {
    if axis >= x.rank() {
        return misfit(format!("axis {axis} is past rank {}", x.rank()));
    }
    let mut dims = x.dims().to_vec();
    if keep {
        dims[axis] = 1;
    } else {
        dims.remove(axis);
    }
    let [outer, n, inner] = split_at_axis(x.dims(), axis);
    if n == 0 && !dims.contains(&0) {
        return misfit("an empty axis has no greatest or least element");
    }
    let wide = match x.dtype() {
        Dtype::Bool => cast(x, Dtype::I32, false)?,
        _ => widened(x, "ArgReduce")?,
    };
    let mut out = vec![0i64; if dims.contains(&0) { 0 } else { outer * inner }];
    if out.is_empty() {
        return Tensor::new(&dims, out);
    }
    with_num!(wide.dtype(), T => {
        let xs = wide.cast::<T>();
        for (best, rows) in out.chunks_exact_mut(inner).zip(xs.chunks_exact(n * inner)) {
            for (j, row) in rows.chunks_exact(inner).enumerate() {
                for (i, (b, &v)) in best.iter_mut().zip(row).enumerate() {
                    if beats(max, last, rows[*b as usize * inner + i], v) {
                        *b = j as i64;
                    }
                }
            }
        }
    });
    Tensor::new(&dims, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(dims: &[usize], v: &[f32]) -> Tensor {
        Tensor::new(dims, v.to_vec()).unwrap()
    }

    #[test]
    fn axes_in_any_arrangement() {
        let x = Tensor::new(&[2, 3, 2], (0..12i64).collect()).unwrap();
        let sum = |axes: &[u32]| {
            reduce(ReduceOp::Sum, &x, axes, false, &Limits::default()).unwrap().to_i64s().unwrap()
        };
        assert_eq!(sum(&[0]), [6, 8, 10, 12, 14, 16]);
        assert_eq!(sum(&[1]), [6, 9, 24, 27]);
        assert_eq!(sum(&[2]), [1, 5, 9, 13, 17, 21]);
        assert_eq!(sum(&[0, 2]), [14, 22, 30]);
        assert_eq!(sum(&[0, 1, 2]), [66]);
        let kept = reduce(ReduceOp::Max, &x, &[0, 2], true, &Limits::default()).unwrap();
        assert_eq!((kept.dims(), kept.to_i64s().unwrap()), (&[1, 3, 1][..], vec![7, 9, 11]));
    }

    #[test]
    fn empty_reductions_give_identities() {
        let x = Tensor::new(&[2, 0], Vec::<f32>::new()).unwrap();
        let r = |op| reduce(op, &x, &[1], false, &Limits::default()).unwrap();
        assert_eq!(r(ReduceOp::Sum), f(&[2], &[0.0, 0.0]));
        assert_eq!(r(ReduceOp::Prod), f(&[2], &[1.0, 1.0]));
        assert_eq!(r(ReduceOp::Max), f(&[2], &[f32::NEG_INFINITY; 2]));
        let x = Tensor::new(&[2, 0], Vec::<i8>::new()).unwrap();
        let mean = reduce(ReduceOp::Mean, &x, &[1], false, &Limits::default());
        assert_eq!(mean, Err(PrimError::DivZero));
    }

    #[test]
    fn sums_are_accurate_and_nan_propagates() {
        let x = Tensor::new(&[1_000_001], vec![0.1f32; 1_000_001]).unwrap();
        let s = reduce(ReduceOp::Sum, &x, &[0], false, &Limits::default()).unwrap();
        assert_eq!(s, Tensor::scalar((0.1f32 as f64 * 1_000_001.0) as f32));
        let x = f(&[3], &[1.0, f32::NAN, 2.0]);
        let m = reduce(ReduceOp::Min, &x, &[0], false, &Limits::default()).unwrap();
        assert!(m.view::<f32>().unwrap()[0].is_nan());
    }

    #[test]
    fn arg_reductions() {
        let x = f(&[2, 3], &[3.0, 1.0, 3.0, 0.0, f32::NAN, 9.0]);
        let at =
            |max, axis, last| arg_reduce(&x, max, axis, false, last).unwrap().to_i64s().unwrap();
        assert_eq!(at(true, 1, false), [0, 1]);
        assert_eq!(at(true, 1, true), [2, 1]);
        assert_eq!(at(false, 1, false), [1, 0]);
        assert_eq!(at(true, 0, false), [0, 1, 1]);
        let empty = Tensor::new(&[2, 0], Vec::<f32>::new()).unwrap();
        assert!(arg_reduce(&empty, true, 1, false, false).is_err());
        assert_eq!(arg_reduce(&empty, true, 0, false, false).unwrap().dims(), [0]);
    }

    #[test]
    fn bools() {
        let x = Tensor::bools(&[2, 2], &[true, false, true, true]).unwrap();
        let r = |op| reduce(op, &x, &[1], false, &Limits::default()).unwrap();
        assert_eq!(r(ReduceOp::And).bytes(), [0, 1]);
        assert_eq!(r(ReduceOp::Or).bytes(), [1, 1]);
    }
}
