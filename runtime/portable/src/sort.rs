//! Top-k and the search for non-zero elements.

use crate::arith::{Num, widened, with_num};
use crate::error::{Limits, PrimError, misfit};
use crate::layout::split_at_axis;
use crate::movement::with_words;
use crate::tensor::Tensor;
use hub_abi::Dtype;
use std::cmp::Ordering;

/// Ascending, NaN last.
fn order<T: Num>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The `k` greatest (or least) along `axis` and their int64 indices.
pub(crate) fn top_k(
    x: &Tensor,
    k: usize,
    axis: usize,
    [largest, sorted]: [bool; 2],
    limits: &Limits,
) -> Result<[Tensor; 2], PrimError> {
    if axis >= x.rank() || k > x.dims()[axis] {
        return misfit(format!("the top {k} along axis {axis} of {:?}", x.dims()));
    }
    let [outer, n, inner] = split_at_axis(x.dims(), axis);
    let mut dims = x.dims().to_vec();
    dims[axis] = k;
    let total = limits.count(&dims, x.dtype().size().max(8))?;
    let mut at = vec![0usize; total];
    let wide = match x.dtype() {
        Dtype::Bool => crate::cast::cast(x, Dtype::I32, false)?,
        _ => widened(x, "TopK")?,
    };
    let mut row: Vec<u32> = vec![];
    if u32::try_from(n).is_err() {
        return misfit(format!("an axis of {n} elements is too long for top-k"));
    }
    if total > 0 {
        with_num!(wide.dtype(), T => {
            let xs = wide.cast::<T>();
            for o in 0..outer {
                for i in 0..inner {
                    let value = |j: u32| xs[(o * n + j as usize) * inner + i];
                    row.clear();
                    row.extend(0..n as u32);
                    let by = |a: &u32, b: &u32| {
                        let by_value = order(value(*a), value(*b));
                        (if largest { by_value.reverse() } else { by_value }).then(a.cmp(b))
                    };
                    if k < n {
                        row.select_nth_unstable_by(k - 1, by);
                    }
                    if sorted { row[..k].sort_unstable_by(by) } else { row[..k].sort_unstable() }
                    for (r, &j) in row[..k].iter().enumerate() {
                        at[(o * k + r) * inner + i] = j as usize;
                    }
                }
            }
        });
    }
    let values = with_words!(x, xs => {
        let pick = |(e, &j): (usize, &usize)| xs[(e / (k * inner) * n + j) * inner + e % inner].clone();
        (dims.clone(), at.iter().enumerate().map(pick).collect())
    })?;
    Ok([values, Tensor::new(&dims, at.iter().map(|&j| j as i64).collect())?])
}

/// int64 [rank, count] indices of elements that are not zero, in row-major order.
pub(crate) fn non_zero(x: &Tensor, limits: &Limits) -> Result<Tensor, PrimError> {
    let test: Vec<u8> = match x.dtype() {
        Dtype::Bool => x.bytes().to_vec(),
        Dtype::Str => return crate::error::undefined("NonZero", Dtype::Str),
        _ => crate::cast::cast(x, Dtype::Bool, false)?.bytes().to_vec(),
    };
    let hits: Vec<usize> = (0..test.len()).filter(|&i| test[i] != 0).collect();
    let dims = [x.rank(), hits.len()];
    let mut out = Vec::with_capacity(limits.count(&dims, 8)?);
    for axis in 0..x.rank() {
        let [_, n, inner] = split_at_axis(x.dims(), axis);
        out.extend(hits.iter().map(|&h| (h / inner % n) as i64));
    }
    Tensor::new(&dims, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_orders_and_breaks_ties_by_index() {
        let x = Tensor::new(&[2, 4], vec![1f32, 3.0, 3.0, 2.0, f32::NAN, 0.0, -1.0, 0.0]).unwrap();
        let run = |k, largest, sorted| {
            let [v, i] = top_k(&x, k, 1, [largest, sorted], &Limits::default()).unwrap();
            (v.view::<f32>().unwrap().to_vec(), i.to_i64s().unwrap())
        };
        let (v, i) = run(2, true, true);
        assert_eq!(i, [1, 2, 0, 1]);
        assert!(v[..2] == [3.0, 3.0] && v[2].is_nan() && v[3] == 0.0);
        assert_eq!(run(3, false, true).1, [0, 3, 1, 2, 1, 3]);
        assert_eq!(run(2, false, false).1, [0, 3, 1, 2]);
        assert_eq!(run(0, true, true).1, []);
        assert!(top_k(&x, 5, 1, [true, true], &Limits::default()).is_err());
    }

    #[test]
    fn top_k_of_an_outer_axis() {
        let x = Tensor::new(&[3, 2], vec![1i16, 9, 5, 7, 3, 8]).unwrap();
        let [v, i] = top_k(&x, 2, 0, [true, true], &Limits::default()).unwrap();
        assert_eq!(v.to_i64s().unwrap(), [5, 9, 3, 8]);
        assert_eq!(i.to_i64s().unwrap(), [1, 0, 2, 2]);
    }

    #[test]
    fn non_zeros_come_in_row_major_order() {
        let x = Tensor::new(&[2, 3], vec![0f32, 1.0, -0.0, 2.0, f32::NAN, 0.0]).unwrap();
        let out = non_zero(&x, &Limits::default()).unwrap();
        assert_eq!((out.dims(), out.to_i64s().unwrap()), (&[2, 3][..], vec![0, 1, 1, 1, 0, 1]));
        let scalar = non_zero(&Tensor::scalar(3i64), &Limits::default()).unwrap();
        assert_eq!(scalar.dims(), [0, 1]);
    }
}
