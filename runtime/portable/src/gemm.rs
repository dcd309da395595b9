//! The blocked matrix product under contractions and convolutions.
//!
//! Operands are reached only through packers, which write panels `[k][MR]` of A and `[k][NR]` of B
//! (zeros past the end), so any strides, im2col and conversions of element types cost one pass.
//! Sums of [`KC`] products are kept in registers and then added to C, which bounds the rounding
//! error of long sums by that of blocked summation.

use crate::arith::Num;

/// Rows of a register tile.
pub(crate) const MR: usize = 4;
/// Columns of a register tile.
pub(crate) const NR: usize = 8;
const KC: usize = 256;
const NC: usize = 512;

/// Writes one panel: `(first row or column, first k, panel)`; the panel's length is a whole number
/// of k times MR or NR.
pub(crate) type Packer<'a, T> = &'a mut dyn FnMut(usize, usize, &mut [T]);

/// `c[m][n] += a · b`, row-major.
pub(crate) fn gemm<T: Num>(
    [m, n, k]: [usize; 3],
    pack_a: Packer<T>,
    pack_b: Packer<T>,
    c: &mut [T],
) {
    if m == 0 || n == 0 {
        return;
    }
    let (mp, np) = (m.div_ceil(MR), NC.min(n).div_ceil(NR));
    let mut a = vec![T::ZERO; mp * MR * KC.min(k)];
    let mut b = vec![T::ZERO; np * NR * KC.min(k)];
    for k0 in (0..k).step_by(KC) {
        let kc = KC.min(k - k0);
        for (i, panel) in a[..mp * MR * kc].chunks_exact_mut(MR * kc).enumerate() {
            pack_a(i * MR, k0, panel);
        }
        for n0 in (0..n).step_by(NC) {
            let nc = NC.min(n - n0);
            let panels = nc.div_ceil(NR);
            for (j, panel) in b[..panels * NR * kc].chunks_exact_mut(NR * kc).enumerate() {
                pack_b(n0 + j * NR, k0, panel);
            }
            for (j, bp) in b[..panels * NR * kc].chunks_exact(NR * kc).enumerate() {
                for (i, ap) in a[..mp * MR * kc].chunks_exact(MR * kc).enumerate() {
                    let tile = tile(ap, bp);
                    add_tile(&tile, c, n, [i * MR, m], [n0 + j * NR, n]);
                }
            }
        }
    }
}

fn tile<T: Num>(a: &[T], b: &[T]) -> [[T; NR]; MR] {
    let mut acc = [[T::ZERO; NR]; MR];
    for (x, y) in a.as_chunks::<MR>().0.iter().zip(b.as_chunks::<NR>().0) {
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] = acc[i][j].add(x[i].mul(y[j]));
            }
        }
    }
    acc
}

fn add_tile<T: Num>(
    tile: &[[T; NR]; MR],
    c: &mut [T],
    pitch: usize,
    [i0, m]: [usize; 2],
    [j0, n]: [usize; 2],
) {
    let (rows, cols) = (MR.min(m - i0), NR.min(n - j0));
    for (i, sums) in tile[..rows].iter().enumerate() {
        let at = (i0 + i) * pitch + j0;
        for (c, s) in c[at..at + cols].iter_mut().zip(sums) {
            *c = c.add(*s);
        }
    }
}

/// Packs a panel of `W` rows (or columns) whose element at (row, k) lies at `rows[row] + ks[k]`.
pub(crate) fn pack_strided<S: Copy, T: Num, const W: usize>(
    xs: &[S],
    rows: &[usize],
    ks: &[usize],
    [row0, k0]: [usize; 2],
    panel: &mut [T],
    lift: impl Fn(S) -> T,
) {
    let (panel, _) = panel.as_chunks_mut::<W>();
    let rows = &rows[row0..rows.len().min(row0 + W)];
    let ks = &ks[k0..k0 + panel.len()];
    let consecutive = rows.len() == W && rows.iter().enumerate().all(|(i, r)| *r == rows[0] + i);
    if consecutive {
        for (line, &k) in panel.iter_mut().zip(ks) {
            let from = &xs[rows[0] + k..rows[0] + k + W];
            line.iter_mut().zip(from).for_each(|(t, &s)| *t = lift(s));
        }
        return;
    }
    for (line, &k) in panel.iter_mut().zip(ks) {
        line[rows.len()..].fill(T::ZERO);
        line.iter_mut().zip(rows).for_each(|(t, &r)| *t = lift(xs[r + k]));
    }
}
