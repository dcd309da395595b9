//! Gathers and scatters. Negative indices count from the end; out of range is an error.

use crate::arith::{Num, narrowed, widened, with_num};
use crate::error::{Limits, PrimError, misfit};
use crate::layout::{offsets, split_at_axis, strides_of};
use crate::movement::{Words, with_words};
use crate::tensor::{Tensor, count_of};
use hub_abi::Dtype;
use hub_abi::prim::ScatterOp;

fn resolve(index: i64, size: usize) -> Result<usize, PrimError> {
    let at = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    match at {
        Some(i) if i >= 0 && (i as u64) < size as u64 => Ok(i as usize),
        _ => Err(PrimError::Index { index, size }),
    }
}

fn indices(t: &Tensor) -> Result<Vec<i64>, PrimError> {
    match t.dtype() {
        Dtype::I32 | Dtype::I64 => t.to_i64s(),
        d => misfit(format!("indices are {d}, not i32 or i64")),
    }
}

fn axis_of(x: &Tensor, axis: u32) -> Result<usize, PrimError> {
    match axis as usize {
        a if a < x.rank() => Ok(a),
        a => misfit(format!("axis {a} is past rank {}", x.rank())),
    }
}

/// `out = data.shape[..axis] ++ indices.shape ++ data.shape[axis+1..]`.
pub(crate) fn gather(
    data: &Tensor,
    ix: &Tensor,
    axis: u32,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let axis = axis_of(data, axis)?;
    let dims = [&data.dims()[..axis], ix.dims(), &data.dims()[axis + 1..]].concat();
    let total = limits.count_like(&dims, data)?;
    let [outer, n, inner] = split_at_axis(data.dims(), axis);
    let at: Vec<usize> = indices(ix)?.iter().map(|&i| resolve(i, n)).collect::<Result<_, _>>()?;
    with_words!(data, xs => {
        let mut out = Vec::with_capacity(total);
        if total > 0 {
            for o in 0..outer {
                let block = &xs[o * n * inner..(o + 1) * n * inner];
                match inner {
                    1 => out.extend(at.iter().map(|&i| block[i].clone())),
                    _ => at.iter().for_each(|i| out.extend_from_slice(&block[i * inner..][..inner])),
                }
            }
        }
        (dims, out)
    })
}

/// For every element of `ix`, the offset in `data` whose `axis` coordinate is the index and whose
/// others are the element's own.
fn element_offsets(data: &Tensor, ix: &Tensor, axis: u32) -> Result<Vec<usize>, PrimError> {
    let axis = axis_of(data, axis)?;
    let fits = ix.rank() == data.rank()
        && (0..ix.rank()).all(|i| i == axis || ix.dims()[i] <= data.dims()[i]);
    if !fits {
        return misfit(format!("indices {:?} do not fit data {:?}", ix.dims(), data.dims()));
    }
    let mut strides = strides_of(data.dims());
    let step = strides[axis] as usize;
    strides[axis] = 0;
    let mut at = offsets(ix.dims(), &strides);
    for (base, &i) in at.iter_mut().zip(&indices(ix)?) {
        *base += resolve(i, data.dims()[axis])? * step;
    }
    Ok(at)
}

/// ONNX GatherElements.
pub(crate) fn gather_elements(
    data: &Tensor,
    ix: &Tensor,
    axis: u32,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    limits.count(ix.dims(), 8)?;
    limits.count_like(ix.dims(), data)?;
    let at = element_offsets(data, ix, axis)?;
    with_words!(data, xs => (ix.dims().to_vec(), at.iter().map(|&i| xs[i].clone()).collect()))
}

/// For every index tuple, the offset in `data` of the block it names; and the block's size.
fn tuple_offsets(
    data: &Tensor,
    ix: &Tensor,
    batch: usize,
) -> Result<(Vec<usize>, usize), PrimError> {
    let Some((&k, lead)) = ix.dims().split_last() else {
        return misfit("index tuples have no axis");
    };
    let shared = batch <= lead.len()
        && batch.saturating_add(k) <= data.rank()
        && lead[..batch] == data.dims()[..batch];
    if !shared {
        return misfit(format!("index tuples {:?} do not fit data {:?}", ix.dims(), data.dims()));
    }
    let strides = strides_of(data.dims());
    let block = count_of(&data.dims()[batch + k..]).unwrap_or(0);
    let whole = count_of(&data.dims()[batch..]).unwrap_or(0);
    let tuples = count_of(lead).unwrap_or(0);
    let a_batch = count_of(&lead[batch..]).unwrap_or(0).max(1);
    let values = indices(ix)?;
    let mut at = Vec::with_capacity(tuples);
    for t in 0..tuples {
        let mut base = t / a_batch * whole;
        for (j, &i) in values[t * k..(t + 1) * k].iter().enumerate() {
            base += resolve(i, data.dims()[batch + j])? * strides[batch + j] as usize;
        }
        at.push(base);
    }
    Ok((at, block))
}

/// ONNX GatherND.
pub(crate) fn gather_nd(
    data: &Tensor,
    ix: &Tensor,
    batch: u32,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let k = ix.dims().last().copied().unwrap_or(0);
    let tail = data.dims().get((batch as usize).saturating_add(k)..).unwrap_or(&[]);
    let dims = [&ix.dims()[..ix.rank().saturating_sub(1)], tail].concat();
    let total = limits.count_like(&dims, data)?;
    limits.count(&dims[..ix.rank().saturating_sub(1)], 8)?;
    let (at, block) = tuple_offsets(data, ix, batch as usize)?;
    with_words!(data, xs => {
        let mut out = Vec::with_capacity(total);
        if total > 0 {
            at.iter().for_each(|&i| out.extend_from_slice(&xs[i..i + block]));
        }
        (dims, out)
    })
}

/// ONNX ScatterElements.
pub(crate) fn scatter_elements(
    [data, ix, updates]: [&Tensor; 3],
    axis: u32,
    op: ScatterOp,
) -> Result<Tensor, PrimError> {
    if ix.dims() != updates.dims() {
        return misfit(format!("updates {:?} for indices {:?}", updates.dims(), ix.dims()));
    }
    let at = element_offsets(data, ix, axis)?;
    scatter(data, updates, &at, 1, op)
}

/// ONNX ScatterND.
pub(crate) fn scatter_nd(
    [data, ix, updates]: [&Tensor; 3],
    op: ScatterOp,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    limits.count(&ix.dims()[..ix.rank().saturating_sub(1)], 8)?;
    let (at, block) = tuple_offsets(data, ix, 0)?;
    let k = ix.dims().last().copied().unwrap_or(0);
    let want = [&ix.dims()[..ix.rank() - 1], &data.dims()[k..]].concat();
    if updates.dims() != want {
        return misfit(format!("updates are {:?} where {want:?} is expected", updates.dims()));
    }
    scatter(data, updates, &at, block, op)
}

/// Combines block `i` of `updates` into `data` at `at[i]`, in order.
fn scatter(
    data: &Tensor,
    updates: &Tensor,
    at: &[usize],
    block: usize,
    op: ScatterOp,
) -> Result<Tensor, PrimError> {
    if data.dtype() != updates.dtype() {
        return misfit(format!("updates of {} into {}", updates.dtype(), data.dtype()));
    }
    if updates.count() == 0 || data.count() == 0 {
        return Ok(data.clone());
    }
    if op == ScatterOp::Set {
        return with_words!(data, xs => {
            let us = Words::words_of(updates, &xs);
            let mut out = xs.into_owned();
            for (&to, from) in at.iter().zip(us.chunks_exact(block)) {
                out[to..to + block].clone_from_slice(from);
            }
            (data.dims().to_vec(), out)
        });
    }
    let (x, u) = (widened(data, op)?, widened(updates, op)?);
    let out = with_num!(x.dtype(), T => {
        let f: fn(T, T) -> T = match op {
            ScatterOp::Add => <T as Num>::add,
            ScatterOp::Mul => <T as Num>::mul,
            ScatterOp::Max => <T as Num>::max,
            ScatterOp::Min | ScatterOp::Set => <T as Num>::min,
        };
        let mut out = x.cast::<T>().into_owned();
        for (&to, from) in at.iter().zip(u.cast::<T>().chunks_exact(block)) {
            for (o, &v) in out[to..to + block].iter_mut().zip(from) {
                *o = f(*o, v);
            }
        }
        Tensor::new(data.dims(), out)
    })?;
    narrowed(out, data.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(dims: &[usize], v: &[f32]) -> Tensor {
        Tensor::new(dims, v.to_vec()).unwrap()
    }
    fn i(dims: &[usize], v: &[i64]) -> Tensor {
        Tensor::new(dims, v.to_vec()).unwrap()
    }

    #[test]
    fn gathers_of_the_onnx_specification() {
        let l = Limits::default();
        let x = f(&[3, 2], &[1.0, 1.2, 2.3, 3.4, 4.5, 5.7]);
        let y = gather(&x, &i(&[2, 2], &[0, 1, 1, -1]), 0, &l).unwrap();
        assert_eq!(y, f(&[2, 2, 2], &[1.0, 1.2, 2.3, 3.4, 2.3, 3.4, 4.5, 5.7]));
        let x = f(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let y = gather_elements(&x, &i(&[2, 2], &[0, 0, 1, 0]), 1, &l).unwrap();
        assert_eq!(y, f(&[2, 2], &[1.0, 1.0, 4.0, 3.0]));
        let x = i(&[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(gather_nd(&x, &i(&[2, 1], &[1, 0]), 1, &l).unwrap(), i(&[2, 2], &[2, 3, 4, 5]));
        let y = gather_nd(&x, &i(&[2, 1, 2], &[0, 1, 1, 0]), 0, &l).unwrap();
        assert_eq!(y, i(&[2, 1, 2], &[2, 3, 4, 5]));
        assert_eq!(gather(&x, &i(&[], &[2]), 1, &l), Err(PrimError::Index { index: 2, size: 2 }));
        assert!(gather(&x, &i(&[], &[i64::MIN]), 1, &l).is_err());
    }

    #[test]
    fn scatters_of_the_onnx_specification() {
        let l = Limits::default();
        let x = f(&[1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        let (at, u) = (i(&[1, 2], &[1, 3]), f(&[1, 2], &[1.1, 2.1]));
        let y = scatter_elements([&x, &at, &u], 1, ScatterOp::Set).unwrap();
        assert_eq!(y, f(&[1, 5], &[1.0, 1.1, 3.0, 2.1, 5.0]));
        let y = scatter_elements([&x, &i(&[1, 2], &[1, 1]), &u], 1, ScatterOp::Add).unwrap();
        assert_eq!(y, f(&[1, 5], &[1.0, 5.2, 3.0, 4.0, 5.0]));
        let x = i(&[8], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let (at, u) = (i(&[4, 1], &[4, 3, 1, 7]), i(&[4], &[9, 10, 11, 12]));
        let y = scatter_nd([&x, &at, &u], ScatterOp::Set, &l).unwrap();
        assert_eq!(y, i(&[8], &[1, 11, 3, 10, 9, 6, 7, 12]));
        assert!(scatter_nd([&x, &at, &i(&[3], &[1, 2, 3])], ScatterOp::Set, &l).is_err());
    }
}
