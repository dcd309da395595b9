//! Walking over tensors by strides.

/// Row-major strides.
pub(crate) fn strides_of(dims: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; dims.len()];
    for i in (1..dims.len()).rev() {
        out[i - 1] = out[i].wrapping_mul(dims[i].max(1) as isize);
    }
    out
}

/// Strides that read a dense tensor of `dims` as if broadcast to `to` (0 along broadcast axes).
pub(crate) fn broadcast_strides(dims: &[usize], to: &[usize]) -> Vec<isize> {
    let own = strides_of(dims);
    let skip = to.len() - dims.len();
    (0..to.len())
        .map(|i| match i.checked_sub(skip) {
            Some(j) if dims[j] != 1 => own[j],
            _ => 0,
        })
        .collect()
}

/// Dense tensors of `N` operands walked together over one index space: rows along the last
/// (merged) axis, the outer axes in row-major order.
pub(crate) struct Walk<const N: usize> {
    outer: Vec<(usize, [isize; N])>,
    row: usize,
    step: [isize; N],
    empty: bool,
}

impl<const N: usize> Walk<N> {
    /// Merges neighbouring axes wherever all operands allow it.
    pub(crate) fn new(dims: &[usize], strides: [&[isize]; N]) -> Walk<N> {
        let mut axes: Vec<(usize, [isize; N])> = vec![];
        for (i, &d) in dims.iter().enumerate() {
            let step = strides.map(|s| s[i]);
            if d == 1 {
                continue;
            }
            if let Some(last) = axes.last_mut()
                && (0..N).all(|n| last.1[n] == step[n].wrapping_mul(d as isize))
            {
                *last = (last.0.wrapping_mul(d), step);
                continue;
            }
            axes.push((d, step));
        }
        let (row, step) = axes.pop().unwrap_or((1, [1; N]));
        Walk { outer: axes, row, step, empty: dims.contains(&0) }
    }

    /// Length of a row and each operand's step along it.
    pub(crate) fn row(&self) -> (usize, [isize; N]) {
        (self.row, self.step)
    }

    /// Calls `f` with each operand's offset at the start of each row.
    pub(crate) fn rows(&self, start: [isize; N], mut f: impl FnMut([usize; N])) {
        if self.empty {
            return;
        }
        let mut index = vec![0usize; self.outer.len()];
        let mut at = start;
        loop {
            f(at.map(|a| a as usize));
            let mut axis = self.outer.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                let (d, step) = self.outer[axis];
                index[axis] += 1;
                if index[axis] < d {
                    (0..N).for_each(|n| at[n] += step[n]);
                    break;
                }
                index[axis] = 0;
                (0..N).for_each(|n| at[n] -= step[n] * (d as isize - 1));
            }
        }
    }
}

/// Offsets of all elements of an index space, in row-major order.
pub(crate) fn offsets(dims: &[usize], strides: &[isize]) -> Vec<usize> {
    let mut out = vec![];
    let walk = Walk::new(dims, [strides]);
    let (n, [step]) = walk.row();
    walk.rows([0], |[at]| out.extend((0..n as isize).map(|i| (at as isize + i * step) as usize)));
    out
}

/// `dims` split around `axis`: elements before, along and after it.
pub(crate) fn split_at_axis(dims: &[usize], axis: usize) -> [usize; 3] {
    let product = |d: &[usize]| crate::tensor::count_of(d).unwrap_or(0);
    [product(&dims[..axis]), dims[axis], product(&dims[axis + 1..])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_merge_and_rows_come_in_order() {
        let w = Walk::new(&[2, 3, 4], [&strides_of(&[2, 3, 4]), &[0, 4, 1]]);
        assert_eq!(w.row(), (12, [1, 1]));
        let mut seen = vec![];
        w.rows([0, 0], |at| seen.push(at));
        assert_eq!(seen, [[0, 0], [12, 0]]);
        assert_eq!(offsets(&[2, 3], &[1, 2]), [0, 2, 4, 1, 3, 5]);
        assert_eq!(offsets(&[2, 0], &[1, 2]), [] as [usize; 0]);
        assert_eq!(offsets(&[], &[]), [0]);
    }
}
