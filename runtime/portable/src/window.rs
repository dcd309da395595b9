//! Maxima and sums over sliding windows.

use crate::arith::{Num, narrowed, widened, with_num};
use crate::error::{Limits, PrimError, misfit, undefined};
use crate::spatial::{PAD, Spatial, Taps};
use crate::tensor::{Tensor, count_of};
use hub_abi::prim::{Geometry, ReduceOp};

struct Windows {
    spatial: Spatial,
    dims: Vec<usize>,
    total: usize,
    plane: usize,
    out: usize,
}

fn windows(
    x: &Tensor,
    kernel: &[i64],
    geo: &Geometry,
    size: usize,
    limits: &Limits,
) -> Result<Windows, PrimError> {
    if x.rank() < 2 {
        return misfit("an input [N, C, spatial…] is expected");
    }
    let k: Option<Vec<usize>> = kernel.iter().map(|&k| usize::try_from(k).ok()).collect();
    let Some(k) = k else { return misfit(format!("window sizes {kernel:?}")) };
    let spatial = Spatial::new(geo, &x.dims()[2..], &k, false)?;
    spatial.check_tables(limits)?;
    let dims = [&x.dims()[..2], &spatial.out()].concat();
    let total = limits.count(&dims, size)?;
    limits.count(&k, 8 * W)?;
    let plane = count_of(&x.dims()[2..]).unwrap_or(0);
    let out = count_of(&dims[2..]).unwrap_or(0);
    Ok(Windows { spatial, dims, total, plane, out })
}

/// Outputs per block of tap offsets.
const W: usize = 16;

/// Max (padding never wins) or Sum (padding is zero) over windows.
pub(crate) fn window(
    op: ReduceOp,
    x: &Tensor,
    kernel: &[i64],
    geo: &Geometry,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if !matches!(op, ReduceOp::Max | ReduceOp::Sum) {
        return undefined(format!("Window of {op:?}"), x.dtype());
    }
    let wide = widened(x, op)?;
    let s = windows(x, kernel, geo, wide.dtype().size(), limits)?;
    let out = with_num!(wide.dtype(), T => {
        let xs = wide.cast::<T>();
        let out = match op {
            ReduceOp::Max => slide(&s, &xs, T::LOWEST, |v| v, <T as Num>::max, |v| v),
            _ => slide(&s, &xs, T::WIDE_ZERO, T::widen, T::wide_add, T::narrow),
        };
        Tensor::new(&s.dims, out)
    })?;
    narrowed(out, x.dtype())
}

fn slide<T: Num, A: Copy>(
    s: &Windows,
    xs: &[T],
    id: A,
    lift: impl Fn(T) -> A,
    join: impl Fn(A, A) -> A,
    done: impl Fn(A) -> T,
) -> Vec<T> {
    let mut out = vec![T::ZERO; s.total];
    if s.total == 0 {
        return out;
    }
    let taps = Taps::new(&s.spatial);
    let mut block = vec![[PAD; W]; taps.count];
    for first in (0..s.out).step_by(W) {
        taps.block(first, &mut block);
        let width = W.min(s.out - first);
        for (p, to) in out.chunks_exact_mut(s.out).enumerate() {
            let plane = &xs[p * s.plane..(p + 1) * s.plane];
            let mut sums = [id; W];
            for line in &block {
                for (sum, &at) in sums[..width].iter_mut().zip(line) {
                    if let Some(&v) = plane.get(at) {
                        *sum = join(*sum, lift(v));
                    }
                }
            }
            to[first..first + width].iter_mut().zip(sums).for_each(|(t, v)| *t = done(v));
        }
    }
    out
}

/// Where [`window`] of Max found each maximum: the first in row-major order of the window, as an
/// index into the whole `x`, or with each plane's spatial axes reversed. -1 where a window holds
/// only padding.
pub(crate) fn window_arg_max(
    x: &Tensor,
    kernel: &[i64],
    geo: &Geometry,
    column_major: bool,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let wide = widened(x, "WindowArgMax")?;
    let s = windows(x, kernel, geo, 8, limits)?;
    let mut out = vec![-1i64; s.total];
    if s.total == 0 {
        return Tensor::new(&s.dims, out);
    }
    let taps = Taps::new(&s.spatial);
    let mut block = vec![[PAD; 1]; taps.count];
    with_num!(wide.dtype(), T => {
        let xs = wide.cast::<T>();
        for o in 0..s.out {
            taps.block(o, &mut block);
            for (p, to) in out.chunks_exact_mut(s.out).enumerate() {
                let plane = &xs[p * s.plane..(p + 1) * s.plane];
                let mut best: Option<(usize, T)> = None;
                for [at] in &block {
                    let Some(&v) = plane.get(*at) else { continue };
                    if best.is_none_or(|(_, b)| v > b || (v.is_nan() && !b.is_nan())) {
                        best = Some((*at, v));
                    }
                }
                if let Some((at, _)) = best {
                    let at = if column_major { reversed(at, &x.dims()[2..]) } else { at };
                    to[o] = (p * s.plane + at) as i64;
                }
            }
        }
    });
    Tensor::new(&s.dims, out)
}

/// A row-major index into `dims` as one with the axes reversed.
fn reversed(mut at: usize, dims: &[usize]) -> usize {
    let mut coords: Vec<usize> = vec![];
    for &d in dims.iter().rev() {
        coords.push(at % d);
        at /= d;
    }
    coords.iter().zip(dims.iter().rev()).fold(0, |f, (&c, &d)| f * d + c)
}
