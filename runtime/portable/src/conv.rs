//! Convolutions, as matrix products over patches that are packed on the fly, or directly where
//! there are too few output channels a group for a matrix product to pay.

use crate::arith::{Num, narrowed, with_num};
use crate::cast::cast;
use crate::contract::accumulator;
use crate::error::{Limits, PrimError, misfit};
use crate::gemm::{MR, NR, gemm, pack_strided};
use crate::spatial::{PAD, Spatial, Taps};
use crate::tensor::{Tensor, count_of};
use hub_abi::prim::Geometry;

/// Sizes of a convolution.
struct Sizes {
    groups: usize,
    /// Input channels a group.
    c: usize,
    /// Output channels a group.
    m: usize,
    /// Elements of an input plane.
    plane: usize,
    /// Elements of an output plane.
    out: usize,
    /// Strides of (output channel, input channel) in the filter of a group; taps have stride 1.
    w: [usize; 2],
    /// Stride of groups in the filter.
    w_group: usize,
}

/// Cross-correlation of `x: [N, C, …]` with `w: [M, C/groups, …]`, or (`transposed`) the transpose
/// of one with `w: [C, M/groups, …]`.
pub(crate) fn conv(
    x: &Tensor,
    w: &Tensor,
    geo: &Geometry,
    groups: i64,
    transposed: bool,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let (acc, result) = accumulator(x.dtype(), w.dtype())?;
    if x.rank() < 2 || w.rank() != x.rank() {
        return misfit(format!("input {:?} with filter {:?}", x.dims(), w.dims()));
    }
    let g = usize::try_from(groups).ok().filter(|&g| g > 0 && x.dims()[1].is_multiple_of(g));
    let Some(groups) = g else {
        return misfit(format!("{} channels in {groups} groups", x.dims()[1]));
    };
    let spatial = Spatial::new(geo, &x.dims()[2..], &w.dims()[2..], transposed)?;
    spatial.check_tables(limits)?;
    let (w0, w1) = (w.dims()[0], w.dims()[1]);
    let c = x.dims()[1] / groups;
    let fits = if transposed { w0 == x.dims()[1] } else { w1 == c && w0.is_multiple_of(groups) };
    if !fits {
        return misfit(format!("{groups} groups of {:?} with filter {:?}", x.dims(), w.dims()));
    }
    let m = if transposed { w1 } else { w0 / groups };
    let dims = [&[x.dims()[0], m.saturating_mul(groups)][..], &spatial.out()].concat();
    let total = limits.count(&dims, acc.size())?;
    if total == 0 {
        return narrowed(with_num!(acc, T => Tensor::new::<T>(&dims, vec![]))?, result);
    }
    let taps = limits.count(&w.dims()[2..], 8 * NR)?;
    let sizes = Sizes {
        groups,
        c,
        m,
        plane: count_of(&x.dims()[2..]).unwrap_or(0),
        out: count_of(&dims[2..]).unwrap_or(0),
        w: if transposed { [taps, m * taps] } else { [c * taps, taps] },
        w_group: m * c * taps,
    };
    let (xa, wa) = (cast(x, acc, false)?, cast(w, acc, false)?);
    let out = with_num!(acc, T => {
        let mut out = vec![T::ZERO; total];
        run::<T>(&sizes, &spatial, &xa.cast::<T>(), &wa.cast::<T>(), &mut out);
        Tensor::new(&dims, out)
    })?;
    narrowed(out, result)
}

fn run<T: Num>(s: &Sizes, spatial: &Spatial, x: &[T], w: &[T], out: &mut [T]) {
    let taps = Taps::new(spatial);
    let few = s.m < MR / 2 + 1 && (s.c * taps.count).max(taps.count) <= 256;
    let table = if few { tap_table(s, &taps) } else { vec![] };
    let width = spatial.axes.last().map_or(1, |a| a.out);
    for (i, planes) in out.chunks_exact_mut(s.m * s.out).enumerate() {
        let (n, g) = (i / s.groups, i % s.groups);
        let x = &x[(n * s.groups + g) * s.c * s.plane..][..s.c * s.plane];
        let w = &w[g * s.w_group..][..s.w_group];
        if few {
            direct(s, width, &table, [x, w], planes);
        } else {
            product(s, &taps, [x, w], planes);
        }
    }
}

fn product<T: Num>(s: &Sizes, taps: &Taps, [x, w]: [&[T]; 2], planes: &mut [T]) {
    let rows: Vec<usize> = (0..s.m).map(|m| m * s.w[0]).collect();
    let ks: Vec<usize> =
        (0..s.c * taps.count).map(|k| k / taps.count * s.w[1] + k % taps.count).collect();
    let mut block = vec![[PAD; NR]; taps.count];
    let mut runs = vec![false; taps.count];
    gemm(
        [s.m, s.out, ks.len()],
        &mut |i, k, p| pack_strided::<T, T, MR>(w, &rows, &ks, [i, k], p, |v| v),
        &mut |j, k0, p| {
            taps.block(j, &mut block);
            for (run, line) in runs.iter_mut().zip(&block) {
                *run = line[0] != PAD && (0..NR).all(|j| line[j] == line[0].wrapping_add(j));
            }
            let (mut c, mut tap) = (k0 / taps.count, k0 % taps.count);
            for to in p.as_chunks_mut::<NR>().0 {
                let plane = &x[c * s.plane..(c + 1) * s.plane];
                let line = &block[tap];
                if runs[tap] {
                    to.copy_from_slice(&plane[line[0]..line[0] + NR]);
                } else {
                    for (t, &at) in to.iter_mut().zip(line) {
                        *t = plane.get(at).copied().unwrap_or(T::ZERO);
                    }
                }
                tap += 1;
                if tap == taps.count {
                    (c, tap) = (c + 1, 0);
                }
            }
        },
        planes,
    );
}

/// `table[tap][output]`: the offset into a plane that each output reads at each tap.
fn tap_table(s: &Sizes, taps: &Taps) -> Vec<usize> {
    let mut table = vec![PAD; taps.count * s.out];
    let mut block = vec![[PAD; NR]; taps.count];
    for first in (0..s.out).step_by(NR) {
        taps.block(first, &mut block);
        let n = NR.min(s.out - first);
        for (tap, line) in block.iter().enumerate() {
            table[tap * s.out + first..][..n].copy_from_slice(&line[..n]);
        }
    }
    table
}

/// Output rows of `width` as sums of scaled input rows.
fn direct<T: Num>(s: &Sizes, width: usize, table: &[usize], [x, w]: [&[T]; 2], planes: &mut [T]) {
    for (m, plane) in planes.chunks_exact_mut(s.out).enumerate() {
        for c in 0..s.c {
            let from = &x[c * s.plane..(c + 1) * s.plane];
            for (t, offsets) in table.chunks_exact(s.out).enumerate() {
                let scale = w[m * s.w[0] + c * s.w[1] + t];
                let rows = offsets.chunks_exact(width).zip(plane.chunks_exact_mut(width));
                rows.for_each(|(columns, to)| axpy(scale, from, columns, to));
            }
        }
    }
}

/// `to[o] += scale * from[columns[o]]`, fast where the columns run consecutively between padding.
fn axpy<T: Num>(scale: T, from: &[T], columns: &[usize], to: &mut [T]) {
    let head = columns.iter().take_while(|&&c| c == PAD).count();
    let tail = columns[head..].iter().rev().take_while(|&&c| c == PAD).count();
    let inner = &columns[head..columns.len() - tail];
    let (Some(&first), Some(&last)) = (inner.first(), inner.last()) else { return };
    let to = &mut to[head..head + inner.len()];
    if last != PAD && last.wrapping_sub(first) == inner.len() - 1 {
        let xs = &from[first..=last];
        to.iter_mut().zip(xs).for_each(|(t, &x)| *t = t.add(scale.mul(x)));
        return;
    }
    for (t, &c) in to.iter_mut().zip(inner) {
        if let Some(&x) = from.get(c) {
            *t = t.add(scale.mul(x));
        }
    }
}
