//! Padding and cropping.

use crate::error::{Limits, PrimError, misfit};
use crate::layout::strides_of;
use crate::movement::{Words, with_words};
use crate::tensor::Tensor;
use hub_abi::prim::PadMode;

/// In tables and offsets: not in the input.
const FILL: usize = usize::MAX;

/// Which input index each output index of an axis reads, [`FILL`] for padding.
fn table(mode: PadMode, n: usize, before: i64, out: usize) -> Vec<usize> {
    let size = n as i128;
    (0..out as i128)
        .map(|o| {
            let i = o - i128::from(before);
            let inside = match mode {
                PadMode::Constant if (0..size).contains(&i) => i,
                PadMode::Constant => return FILL,
                PadMode::Edge => i.clamp(0, size - 1),
                PadMode::Wrap => i.rem_euclid(size),
                PadMode::Reflect if n == 1 => 0,
                PadMode::Reflect => {
                    let at = i.rem_euclid(2 * (size - 1));
                    at.min(2 * (size - 1) - at)
                }
            };
            inside as usize
        })
        .collect()
}

/// Pads each axis by `before` and `after`; negative amounts crop. `value` holds one element.
pub(crate) fn pad(
    x: &Tensor,
    value: &Tensor,
    before: &[i64],
    after: &[i64],
    mode: PadMode,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if before.len() != x.rank() || after.len() != x.rank() {
        return misfit("padding does not name every axis");
    }
    if value.dtype() != x.dtype() || value.count() != 1 {
        return misfit(format!("{value:?} cannot pad elements of type {}", x.dtype()));
    }
    let mut dims = vec![];
    for i in 0..x.rank() {
        let d = x.dims()[i] as i128 + i128::from(before[i]) + i128::from(after[i]);
        match usize::try_from(d) {
            Ok(d) => dims.push(d),
            Err(_) => return misfit(format!("axis {i} would have size {d}")),
        }
    }
    let total = limits.count_like(&dims, x)?;
    if total > 0 && mode != PadMode::Constant && x.dims().contains(&0) {
        return misfit("an empty axis has no elements to pad with");
    }
    if total == 0 {
        return with_words!(x, _xs => (dims, vec![]));
    }
    let Some(last) = dims.len().checked_sub(1) else { return Ok(x.clone()) };
    let strides = strides_of(x.dims());
    let tables: Vec<Vec<usize>> =
        (0..dims.len()).map(|i| table(mode, x.dims()[i], before[i], dims[i])).collect();
    let mut rows = vec![0usize];
    for (axis, table) in tables[..last].iter().enumerate() {
        let stride = strides[axis] as usize;
        let join = |base: usize, i: usize| {
            if base == FILL || i == FILL { FILL } else { base + i * stride }
        };
        rows = rows.iter().flat_map(|&base| table.iter().map(move |&i| join(base, i))).collect();
    }
    let columns = &tables[last];
    let run = contiguous(columns);
    with_words!(x, xs => {
        let fill = Words::words_of(value, &xs)[0].clone();
        let mut out = Vec::with_capacity(total);
        for base in rows {
            match &run {
                _ if base == FILL => out.extend(std::iter::repeat_n(fill.clone(), columns.len())),
                Some((head, from, len)) => {
                    out.extend(std::iter::repeat_n(fill.clone(), *head));
                    // (Of an empty tensor there is nothing, not even a place.)
                    out.extend_from_slice(xs.get(base + from..base + from + len).unwrap_or(&[]));
                    let tail = columns.len() - head - len;
                    out.extend(std::iter::repeat_n(fill.clone(), tail));
                }
                None => out.extend(columns.iter().map(|&i| xs[base + i].clone())),
            }
        }
        (dims, out)
    })
}

/// A table of fills, one run of consecutive indices, and fills: (fills before, first index, run).
fn contiguous(table: &[usize]) -> Option<(usize, usize, usize)> {
    let head = table.iter().take_while(|&&i| i == FILL).count();
    let from = table.get(head).copied().unwrap_or(0);
    let run = table[head..].iter().enumerate().take_while(|(k, i)| **i == from + k).count();
    table[head + run..].iter().all(|&i| i == FILL).then_some((head, from, run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: PadMode, x: &[i32], before: i64, after: i64) -> Vec<i64> {
        let x = Tensor::new(&[x.len()], x.to_vec()).unwrap();
        let v = Tensor::scalar(9i32);
        pad(&x, &v, &[before], &[after], mode, &Limits::default()).unwrap().to_i64s().unwrap()
    }

    #[test]
    fn modes_follow_numpy() {
        let x = [1, 2, 3];
        assert_eq!(run(PadMode::Constant, &x, 1, 2), [9, 1, 2, 3, 9, 9]);
        assert_eq!(run(PadMode::Constant, &x, -1, 1), [2, 3, 9]);
        assert_eq!(run(PadMode::Reflect, &x, 2, 2), [3, 2, 1, 2, 3, 2, 1]);
        assert_eq!(run(PadMode::Reflect, &x, 5, 0), [2, 1, 2, 3, 2, 1, 2, 3]);
        assert_eq!(run(PadMode::Edge, &x, 2, 1), [1, 1, 1, 2, 3, 3]);
        assert_eq!(run(PadMode::Wrap, &x, 2, 2), [2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(run(PadMode::Constant, &x, -3, 2), [9, 9]);
    }

    #[test]
    fn an_empty_tensor_gives_what_it_is_filled_with() {
        let (x, v) = (Tensor::new(&[2, 0], Vec::<i32>::new()).unwrap(), Tensor::scalar(9i32));
        let y = pad(&x, &v, &[0, 1], &[0, 1], PadMode::Constant, &Limits::default()).unwrap();
        assert_eq!((y.dims(), y.to_i64s().unwrap()), (&[2, 2][..], vec![9; 4]));
    }

    #[test]
    fn two_axes() {
        let x = Tensor::new(&[2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let v = Tensor::scalar(0u8);
        let out = pad(&x, &v, &[1, 0], &[0, 1], PadMode::Constant, &Limits::default()).unwrap();
        assert_eq!(out.bytes(), [0, 0, 0, 1, 2, 0, 3, 4, 0]);
        let empty = Tensor::new(&[0], Vec::<u8>::new()).unwrap();
        assert!(pad(&empty, &v, &[1], &[0], PadMode::Edge, &Limits::default()).is_err());
    }
}
