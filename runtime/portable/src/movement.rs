//! Primitives that only move elements: broadcast, transpose, slice, concatenation. They work on
//! words of an element's size, so every dtype (strings too) takes the same path.

use crate::error::{Limits, PrimError, misfit};
use crate::layout::{Walk, broadcast_strides, split_at_axis, strides_of};
use crate::tensor::Tensor;
use hub_abi::Dtype;
use std::borrow::Cow;

/// Elements as words, whatever they mean.
pub(crate) trait Words: Clone + Sized {
    /// The elements of `t` as the same kind of words as `_like`.
    fn words_of<'a>(t: &'a Tensor, _like: &[Self]) -> Cow<'a, [Self]>;
    /// A tensor of them.
    fn build(dtype: Dtype, dims: Vec<usize>, words: Vec<Self>) -> Result<Tensor, PrimError>;
}

macro_rules! pod_words {
    ($($t:ty),*) => { $(impl Words for $t {
        fn words_of<'a>(t: &'a Tensor, _: &[Self]) -> Cow<'a, [Self]> {
            t.cast()
        }
        fn build(dtype: Dtype, dims: Vec<usize>, words: Vec<Self>) -> Result<Tensor, PrimError> {
            Tensor::of_words(dtype, dims, words)
        }
    })* };
}
pod_words!(u8, u16, u32, u64, [u64; 2]);

impl Words for String {
    fn words_of<'a>(t: &'a Tensor, _: &[Self]) -> Cow<'a, [Self]> {
        Cow::Borrowed(t.as_strings())
    }
    fn build(_: Dtype, dims: Vec<usize>, words: Vec<Self>) -> Result<Tensor, PrimError> {
        Tensor::strings(&dims, words)
    }
}

/// Runs a body over `$x`'s elements as words `$xs`; the body gives (dims, words), from which a
/// tensor of `$x`'s dtype is built.
macro_rules! with_words {
    ($x:expr, $xs:ident => $body:expr) => {{
        let tensor: &crate::tensor::Tensor = $x;
        macro_rules! run {
            ($T:ty) => {{
                let $xs = <$T as crate::movement::Words>::words_of(tensor, &[]);
                let (dims, words) = $body;
                <$T as crate::movement::Words>::build(tensor.dtype(), dims, words)
            }};
        }
        match tensor.dtype().size() {
            0 => run!(String),
            1 => run!(u8),
            2 => run!(u16),
            4 => run!(u32),
            8 => run!(u64),
            _ => run!([u64; 2]),
        }
    }};
}
pub(crate) use with_words;

/// The elements at `start + index · strides`, densely. All offsets must be inside.
fn gathered<T: Clone>(xs: &[T], start: isize, dims: &[usize], strides: &[isize]) -> Vec<T> {
    let mut out = Vec::with_capacity(crate::tensor::count_of(dims).unwrap_or(0));
    let walk = Walk::new(dims, [strides]);
    let (n, [step]) = walk.row();
    walk.rows([start], |[at]| match step {
        1 => out.extend_from_slice(&xs[at..at + n]),
        0 => out.extend(std::iter::repeat_n(xs[at].clone(), n)),
        _ => out.extend((0..n as isize).map(|i| xs[(at as isize + i * step) as usize].clone())),
    });
    out
}

fn strided(
    x: &Tensor,
    start: isize,
    dims: Vec<usize>,
    strides: &[isize],
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    limits.count_like(&dims, x)?;
    with_words!(x, xs => {
        let out = gathered(&xs, start, &dims, strides);
        (dims, out)
    })
}

/// NumPy's broadcast to `shape`.
pub(crate) fn broadcast_to(
    x: &Tensor,
    shape: &[usize],
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if x.dims() == shape {
        return Ok(x.clone());
    }
    let skip = shape.len().checked_sub(x.rank());
    let fits =
        skip.is_some_and(|s| x.dims().iter().zip(&shape[s..]).all(|(&a, &b)| a == 1 || a == b));
    if !fits {
        return misfit(format!("{:?} does not broadcast to {shape:?}", x.dims()));
    }
    strided(x, 0, shape.to_vec(), &broadcast_strides(x.dims(), shape), limits)
}

/// Output axis `i` is input axis `perm[i]`.
pub(crate) fn transpose(x: &Tensor, perm: &[u32], limits: &Limits) -> Result<Tensor, PrimError> {
    let mut seen = vec![false; x.rank()];
    for &p in perm {
        match seen.get_mut(p as usize) {
            Some(s) if !*s => *s = true,
            _ => return misfit(format!("{perm:?} is no permutation")),
        }
    }
    if perm.len() != x.rank() {
        return misfit(format!("{perm:?} permutes {} axes, not {}", perm.len(), x.rank()));
    }
    let strides = strides_of(x.dims());
    let dims: Vec<usize> = perm.iter().map(|&p| x.dims()[p as usize]).collect();
    let moved: Vec<usize> =
        perm.iter().map(|&p| p as usize).filter(|&p| x.dims()[p] != 1).collect();
    if moved.is_sorted() {
        return x.reshaped(&dims);
    }
    let strides: Vec<isize> = perm.iter().map(|&p| strides[p as usize]).collect();
    strided(x, 0, dims, &strides, limits)
}

/// Output element `i` of an axis is input element `start + i * step`.
pub(crate) fn slice(
    x: &Tensor,
    start: &[i64],
    len: &[usize],
    step: &[i64],
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if [start.len(), len.len(), step.len()] != [x.rank(); 3] {
        return misfit("a slice does not name every axis");
    }
    let strides = strides_of(x.dims());
    let (mut at, mut steps) = (0isize, vec![0isize; x.rank()]);
    let empty = len.contains(&0);
    for i in 0..x.rank() {
        if len[i] == 0 || empty {
            continue;
        }
        let last = (len[i] as i128 - 1) * i128::from(step[i]) + i128::from(start[i]);
        for end in [i128::from(start[i]), last] {
            if end < 0 || end >= x.dims()[i] as i128 {
                let index = end.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                return Err(PrimError::Index { index, size: x.dims()[i] });
            }
        }
        at += start[i] as isize * strides[i];
        // With one element the step may be anything; it is not walked.
        steps[i] = if len[i] == 1 { 0 } else { step[i] as isize * strides[i] };
    }
    strided(x, at, len.to_vec(), &steps, limits)
}

/// Joins along `axis`; the other dims are equal.
pub(crate) fn concat(xs: &[&Tensor], axis: usize, limits: &Limits) -> Result<Tensor, PrimError> {
    let Some((first, rest)) = xs.split_first() else {
        return misfit("a concatenation of nothing");
    };
    if axis >= first.rank() {
        return misfit(format!("axis {axis} is past rank {}", first.rank()));
    }
    let mut dims = first.dims().to_vec();
    for t in rest {
        let same = t.rank() == dims.len()
            && t.dtype() == first.dtype()
            && (0..dims.len()).all(|i| i == axis || t.dims()[i] == dims[i]);
        if !same {
            return misfit(format!("{t:?} does not join {first:?} along axis {axis}"));
        }
        dims[axis] = dims[axis].saturating_add(t.dims()[axis]);
    }
    let total = xs.iter().try_fold(0, |_, x| limits.count_like(&dims, x))?;
    if rest.is_empty() {
        return Ok((*first).clone());
    }
    let outer = split_at_axis(&dims, axis)[0];
    let chunks: Vec<usize> = xs.iter().map(|t| t.count().checked_div(outer).unwrap_or(0)).collect();
    with_words!(first, like => {
        let parts: Vec<_> = xs.iter().map(|t| Words::words_of(t, &like)).collect();
        let mut out = Vec::with_capacity(total);
        if total > 0 {
            for o in 0..outer {
                for (part, &n) in parts.iter().zip(&chunks) {
                    out.extend_from_slice(&part[o * n..(o + 1) * n]);
                }
            }
        }
        (dims, out)
    })
}

/// `0, 1, 2, …` along `axis`.
pub(crate) fn iota(
    dtype: Dtype,
    shape: &[usize],
    axis: usize,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let total = limits.count(shape, dtype.size().max(8))?;
    if axis >= shape.len() {
        return misfit(format!("axis {axis} is past rank {}", shape.len()));
    }
    let [outer, n, inner] = split_at_axis(shape, axis);
    let mut out: Vec<i64> = Vec::with_capacity(total);
    if total > 0 {
        for _ in 0..outer {
            (0..n).for_each(|i| out.extend(std::iter::repeat_n(i as i64, inner)));
        }
    }
    crate::cast::cast(&Tensor::new(shape, out)?, dtype, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(dims: &[usize]) -> Tensor {
        let n = dims.iter().product::<usize>() as i16;
        Tensor::new(dims, (0..n).collect()).unwrap()
    }

    fn ints(x: Result<Tensor, PrimError>) -> Vec<i64> {
        x.unwrap().to_i64s().unwrap()
    }

    #[test]
    fn transposes_and_slices() {
        let l = Limits::default();
        assert_eq!(ints(transpose(&t(&[2, 3]), &[1, 0], &l)), [0, 3, 1, 4, 2, 5]);
        assert_eq!(transpose(&t(&[2, 1, 3]), &[1, 0, 2], &l).unwrap().dims(), [1, 2, 3]);
        assert!(transpose(&t(&[2, 3]), &[0, 0], &l).is_err());
        assert_eq!(ints(slice(&t(&[3, 4]), &[2, 1], &[2, 2], &[-2, 2], &l)), [9, 11, 1, 3]);
        assert!(slice(&t(&[4]), &[2], &[3], &[1], &l).is_err());
        assert!(slice(&t(&[4]), &[i64::MAX], &[2], &[i64::MAX], &l).is_err());
        assert_eq!(slice(&t(&[4]), &[99], &[0], &[1], &l).unwrap().dims(), [0]);
        assert_eq!(ints(slice(&t(&[4]), &[3], &[1], &[i64::MIN], &l)), [3]);
    }

    #[test]
    fn broadcasts_concats_iotas() {
        let l = Limits::default();
        assert_eq!(
            ints(broadcast_to(&t(&[2, 1]), &[2, 2, 3], &l)),
            [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
        );
        assert!(broadcast_to(&t(&[2]), &[3], &l).is_err());
        let x = t(&[2, 2]);
        let y = t(&[2, 1]);
        assert_eq!(ints(concat(&[&x, &y], 1, &l)), [0, 1, 0, 2, 3, 1]);
        assert!(concat(&[&x, &y], 0, &l).is_err());
        assert_eq!(
            ints(iota(Dtype::F16, &[2, 2], 0, &l).and_then(|x| crate::cast::cast(
                &x,
                Dtype::I8,
                true
            ))),
            [0, 0, 1, 1]
        );
    }

    #[test]
    fn limits_hold() {
        let l = Limits { tensor_bytes: 100, ..Limits::default() };
        assert!(matches!(broadcast_to(&t(&[2]), &[100, 2], &l), Err(PrimError::Limit { .. })));
        assert!(broadcast_to(&t(&[1]), &[usize::MAX, usize::MAX], &l).is_err());
    }
}
