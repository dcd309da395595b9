//! How a chain is cut: channels and rows of a tile, and the register tiles of its two parts.

use super::chain::Chain;
use super::schedule::{Taps, div_ceil};
use crate::target::Target;
use hub_abi::prim::Geometry;
use std::fmt;

/// Part of the second-level cache (in 16ths) that the rows between may take.
const SHARE: i64 = 6;
/// Tiles that there should be, where rows allow.
const TILES: i64 = 8;

/// Sizes of a chain's tiles. Pairs of which the first part comes first.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Lanes of a vector.
    pub lanes: i64,
    /// Vectors of channels: of the block, and that windows take at a time.
    pub nv: [i64; 2],
    /// Pixels of a register tile.
    pub tw: [i64; 2],
    /// Is the elementwise part a loop of its own?
    pub staged: [bool; 2],
    /// Output rows of a tile.
    pub rows: i64,
    /// `[N, C, H, W]` of the image between.
    pub mid: [i64; 4],
    /// Of the output.
    pub out: [i64; 4],
    /// Of the windows, by spatial axis.
    pub stride: [i64; 2],
    /// Zeros before the first row and column.
    pub before: [i64; 2],
    /// Zeros after the last column.
    pub after: i64,
    /// Rows from a window's first to past its last.
    pub reach: i64,
    /// Does every row that windows read lie inside the image (but for those before the first)?
    pub inside: bool,
}

impl Plan {
    /// Pixels of a row in scratch, zeros included.
    pub fn pitch(&self) -> i64 {
        self.before[1] + self.mid[3] + self.after
    }

    /// Channels of a block.
    pub fn channels(&self) -> i64 {
        self.nv[0] * self.lanes
    }

    /// Bytes of a pixel in scratch.
    pub fn pixel_bytes(&self) -> i64 {
        self.channels() * 4
    }

    /// Bytes of a row in scratch.
    pub fn row_bytes(&self) -> i64 {
        self.pitch() * self.pixel_bytes()
    }

    /// Rows between that so many output rows need (`0`: beyond `stride` times their number).
    pub fn rows_between(&self, rows: i64) -> i64 {
        rows * self.stride[0] + self.reach - self.stride[0]
    }

    /// Rows in scratch.
    pub fn most_rows(&self) -> i64 {
        self.rows_between(self.rows)
    }

    /// Plans for images between and out and sums of `k`, the most promising first; the last takes
    /// the fewest registers.
    pub fn all(
        target: &Target,
        chain: &Chain<'_, '_>,
        (mid, out, k): &([i64; 4], [i64; 4], i64),
        (taps, before, after): &(Vec<i64>, Vec<i64>, Vec<i64>),
        geo: &Geometry,
    ) -> Vec<Plan> {
        let lanes = target.lanes() as i64;
        let regs = target.vector_regs as i64;
        let reach = (taps[0] - 1) * geo.dilation[0] + 1;
        let span = |o: i64| (o - 1) * geo.stride[1] + (taps[1] - 1) * geo.dilation[1] + 1;
        let base = Plan {
            lanes,
            nv: [1; 2],
            tw: [1; 2],
            staged: chain.heavy,
            rows: 1,
            mid: *mid,
            out: *out,
            stride: [geo.stride[0], geo.stride[1]],
            before: [before[0], before[1]],
            after: after[1].max(span(out[3]) - before[1] - mid[3]).max(0),
            reach,
            inside: (out[2] - 1) * geo.stride[0] + reach - before[0] <= mid[2],
        };
        let unit = if lanes < 16 { 16 / lanes } else { 1 };
        let shape = Taps {
            across: taps[1],
            rows: taps[0],
            step: if geo.dilation[1] == 1 { geo.stride[1] } else { taps[1] },
            filter: true,
        };
        let mut found = vec![];
        for nv in [2, 3, 4].into_iter().filter(|nv| nv % unit == 0) {
            let most = ((regs - 1 - nv) / nv).max(1);
            let tw = even(mid[3], most);
            let mut p = Plan { nv: [nv, nv], tw: [tw, 1], ..base.clone() };
            let windows = p.windows(&shape, regs, unit);
            let sums = p.sums(*k);
            (p.nv[1], p.tw[1]) = windows.1;
            p.rows = p.fitting_rows(target.l2 as i64);
            let again = p.most_rows() as f64 / (p.rows * p.stride[0]) as f64;
            found.push((sums * again + windows.0, p));
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut out: Vec<Plan> = vec![];
        for (_, p) in found {
            let [a, b] = p.staged;
            for staged in [[a, b], [a, true], [true, b], [true; 2]] {
                let p = Plan { staged, ..p.clone() };
                if out.last() != Some(&p) {
                    out.push(p);
                }
            }
        }
        // Smaller and smaller, down to what always fits.
        let best = out[0].clone();
        for (most, staged) in
            [(8, best.staged), (6, [true; 2]), (4, [true; 2]), (2, [true; 2]), (1, [true; 2])]
        {
            let tw = [best.tw[0].min(most), best.tw[1].min(most)];
            let nv = if most > 2 { best.nv } else { [unit.max(2); 2] };
            let mut p = Plan { tw, nv: [nv[0], nv[1].min(nv[0])], staged, ..base.clone() };
            p.rows = p.fitting_rows(target.l2 as i64);
            out.push(p);
        }
        out
    }

    /// Cycles of the sums, all blocks.
    fn sums(&self, k: i64) -> f64 {
        let nv = self.nv[0];
        let tile = |tw: i64| {
            let acc = (tw * nv) as f64;
            (acc / 2.0).max((tw + nv) as f64 / 2.0).max(4.0) * k as f64 + 20.0 + acc
        };
        let (w, t) = (self.mid[3], self.tw[0]);
        let mut row = (w / t) as f64 * tile(t);
        if w % t > 0 {
            row += tile(w % t);
        }
        row * self.mid[2] as f64 * div_ceil(self.mid[1], self.channels()) as f64
    }

    /// Cycles of the windows, all blocks, and the vectors and pixels of their best tile.
    fn windows(&self, taps: &Taps, regs: i64, unit: i64) -> (f64, (i64, i64)) {
        let mut best = (f64::INFINITY, (unit, 1));
        let blocks = div_ceil(self.mid[1], self.channels());
        for nv in (unit..=self.nv[0]).filter(|nv| self.nv[0] % nv == 0 && nv % unit == 0) {
            for t in 1..=((regs - 2) / nv - 1).clamp(1, 20) {
                let tw = even(self.out[3], t);
                let (w, left) = (self.out[3] / tw, self.out[3] % tw);
                let mut row = w as f64 * taps.cycles(1, tw, nv, regs);
                if left > 0 {
                    row += taps.cycles(1, left, nv, regs);
                }
                let all = row * (self.nv[0] / nv * self.out[2] * blocks) as f64;
                if all < best.0 {
                    best = (all, (nv, tw));
                }
            }
        }
        best
    }

    /// Output rows of a tile whose rows between stay in the second level, in even blocks.
    fn fitting_rows(&self, l2: i64) -> i64 {
        let most = (l2 * SHARE / 16 / self.row_bytes()).max(self.reach);
        let fit = ((most - self.reach) / self.stride[0] + 1).clamp(1, self.out[2]);
        let others = self.mid[0] * div_ceil(self.mid[1], self.channels());
        // Few blocks of channels: more of rows, but not so that seams cost much.
        let few = div_ceil(TILES, others).min((self.out[2] / (2 * self.reach)).max(1));
        div_ceil(self.out[2], div_ceil(self.out[2], fit).max(few))
    }
}

/// About `n / ceil(n / most)`: tiles of one size, or nearly.
fn even(n: i64, most: i64) -> i64 {
    div_ceil(n, div_ceil(n, most))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = |at: usize| format!("{}x{}", self.tw[at], self.nv[at] * self.lanes);
        write!(
            f,
            "chain {} rows of {} channels {} then {}",
            self.rows,
            self.channels(),
            tile(0),
            tile(1)
        )?;
        for (at, name) in ["first", "then"].iter().enumerate() {
            if self.staged[at] {
                write!(f, " {name} staged")?;
            }
        }
        Ok(())
    }
}
