//! Which input element each (output, tap) of a convolution or window reads.

use crate::error::{Limits, PrimError, misfit};
use hub_abi::Dim;
use hub_abi::prim::Geometry;

/// In tables: the tap falls on padding.
pub(crate) const PAD: usize = usize::MAX;

/// One spatial axis.
pub(crate) struct Axis {
    /// Input size.
    pub x: usize,
    /// Output size.
    pub out: usize,
    /// Taps.
    pub k: usize,
    stride: i128,
    dilation: i128,
    before: i128,
    transposed: bool,
}

impl Axis {
    /// The input coordinate that output `o` reads at tap `t`, or [`PAD`].
    pub(crate) fn input(&self, o: usize, t: usize) -> usize {
        let (o, t) = (o as i128, t as i128);
        let at = if self.transposed {
            let from = o + self.before - t * self.dilation;
            if from % self.stride != 0 {
                return PAD;
            }
            from / self.stride
        } else {
            o * self.stride + t * self.dilation - self.before
        };
        if at >= 0 && at < self.x as i128 { at as usize } else { PAD }
    }

    /// `[tap][out]` of [`Axis::input`].
    pub(crate) fn table(&self) -> Vec<usize> {
        let each = |t| (0..self.out).map(move |o| self.input(o, t));
        (0..self.k).flat_map(each).collect()
    }
}

/// All spatial axes of an operation.
pub(crate) struct Spatial {
    pub axes: Vec<Axis>,
}

fn constant(d: &Dim) -> Result<i128, PrimError> {
    match d.as_const() {
        Some(k) => Ok(k.into()),
        None => misfit(format!("the amount of padding {d} is not known")),
    }
}

impl Spatial {
    /// For spatial input sizes `x` and taps `k`.
    pub(crate) fn new(
        geo: &Geometry,
        x: &[usize],
        k: &[usize],
        transposed: bool,
    ) -> Result<Spatial, PrimError> {
        let n = x.len();
        let lens =
            [k.len(), geo.stride.len(), geo.dilation.len(), geo.before.len(), geo.after.len()];
        if lens != [n; 5] || geo.stride.iter().chain(&geo.dilation).any(|&s| s < 1) {
            return misfit("the geometry does not fit the spatial axes");
        }
        let mut axes = vec![];
        for i in 0..n {
            let (stride, dilation) = (i128::from(geo.stride[i]), i128::from(geo.dilation[i]));
            let (before, after) = (constant(&geo.before[i])?, constant(&geo.after[i])?);
            let span = (k[i] as i128 - 1).saturating_mul(dilation).saturating_add(1);
            let size = if transposed {
                (x[i] as i128 - 1).saturating_mul(stride).saturating_add(span) - before - after
            } else {
                (x[i] as i128 + before + after - span).div_euclid(stride) + 1
            };
            let (Ok(out), true) = (usize::try_from(size), k[i] > 0) else {
                return misfit(format!("spatial axis {i} would have size {size}"));
            };
            axes.push(Axis { x: x[i], out, k: k[i], stride, dilation, before, transposed });
        }
        Ok(Spatial { axes })
    }

    /// Output sizes.
    pub(crate) fn out(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.out).collect()
    }

    /// Refuses tables larger than the limits.
    pub(crate) fn check_tables(&self, limits: &Limits) -> Result<(), PrimError> {
        self.axes.iter().try_for_each(|a| limits.count(&[a.k, a.out], 8).map(|_| ()))
    }
}

/// Offsets into a channel's plane for blocks of consecutive outputs, at every tap.
pub(crate) struct Taps {
    tables: Vec<Vec<usize>>,
    /// (taps, outputs, input size) of each axis.
    sizes: Vec<[usize; 3]>,
    /// Taps in all.
    pub count: usize,
}

impl Taps {
    pub(crate) fn new(s: &Spatial) -> Taps {
        Taps {
            tables: s.axes.iter().map(Axis::table).collect(),
            sizes: s.axes.iter().map(|a| [a.k, a.out, a.x]).collect(),
            count: s.axes.iter().map(|a| a.k).product(),
        }
    }

    /// Fills `to[tap][j]` with the offset that output `first + j` reads at each tap, [`PAD`] where
    /// it reads padding or where the output is past the end.
    pub(crate) fn block<const W: usize>(&self, first: usize, to: &mut [[usize; W]]) {
        let last = self.sizes.iter().map(|s| s[1]).product::<usize>();
        let mut coord = vec![0; self.sizes.len()];
        let mut rest = first;
        for (c, [_, out, _]) in coord.iter_mut().zip(&self.sizes).rev() {
            (*c, rest) = (rest % out.max(&1), rest / out.max(&1));
        }
        for j in 0..W {
            if first + j >= last {
                to.iter_mut().for_each(|line| line[j] = PAD);
                continue;
            }
            self.output(&coord, |tap, at| to[tap][j] = at);
            for (c, [_, out, _]) in coord.iter_mut().zip(&self.sizes).rev() {
                *c += 1;
                if *c < *out {
                    break;
                }
                *c = 0;
            }
        }
    }

    /// Gives the offset that an output reads at each tap.
    fn output(&self, coord: &[usize], mut give: impl FnMut(usize, usize)) {
        let (Some((&[k, out, x], lead)), Some((line, _))) =
            (self.sizes.split_last(), self.tables.split_last())
        else {
            return give(0, 0);
        };
        let at = coord[lead.len()];
        for row in 0..lead.iter().map(|[k, ..]| k).product() {
            let base = self.row(lead, row, coord, x);
            for t in 0..k {
                let c = line[t * out + at];
                give(row * k + t, if base == PAD || c == PAD { PAD } else { base + c });
            }
        }
    }

    /// Where the row lies that an output reads at these taps of all axes but the last.
    fn row(&self, lead: &[[usize; 3]], taps: usize, coord: &[usize], len: usize) -> usize {
        let (mut rest, mut scale, mut at) = (taps, len, 0);
        for (i, [k, out, x]) in lead.iter().enumerate().rev() {
            match self.tables[i][(rest % k) * out + coord[i]] {
                PAD => return PAD,
                c => at += c * scale,
            }
            rest /= k;
            scale *= x;
        }
        at
    }
}
