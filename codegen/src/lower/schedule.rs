//! How a contraction, convolution or window is tiled: plain data, and the model that orders the
//! candidates.
//!
//! A tile is `th × tw` rows (output pixels or matrix rows along the last two row axes) by `nv`
//! vectors of output features, held in registers while the reduced axes are walked. The first
//! candidate is what the model thinks fastest; a target that cannot hold it refuses it and the next
//! is tried, down to one that always fits.

use crate::target::Target;
use std::fmt;

/// What the choice of a schedule needs to know of the target.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Facts {
    /// Lanes of a vector of the accumulated element.
    pub lanes: i64,
    /// Vector registers.
    pub regs: i64,
    /// First-level data cache of a core, bytes.
    pub l1: i64,
    /// Second-level cache of a core, bytes.
    pub l2: i64,
}

impl Facts {
    /// Those of a target, with so many lanes.
    pub fn of(t: &Target, lanes: usize) -> Facts {
        Facts { lanes: lanes as i64, regs: t.vector_regs as i64, l1: t.l1 as i64, l2: t.l2 as i64 }
    }
}

/// Tile sizes and orders of a multiply-accumulate kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Schedule {
    /// Rows of a tile along the last row axis but one.
    pub th: i64,
    /// Rows of a tile along the last row axis.
    pub tw: i64,
    /// Vectors of features.
    pub nv: i64,
    /// Lanes of one.
    pub lanes: i64,
    /// Copies of the innermost reduced step that are laid out in a row.
    pub unroll: u32,
    /// Row tiles that are walked before the next features are turned to; 0 means all.
    pub block: i64,
    /// The epilogue is a second loop over the tile in scratch instead of running on registers.
    pub staged: bool,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.th > 1 {
            write!(f, "{}x", self.th)?;
        }
        write!(f, "{}x{} k{}", self.tw, self.nv * self.lanes, self.unroll)?;
        match self.block {
            0 => write!(f, " rows")?,
            n => write!(f, " block {n}")?,
        }
        if self.staged {
            write!(f, " staged")?;
        }
        Ok(())
    }
}

/// Sizes that the model looks at; a size that is not constant is given a likely value, and
/// `h_fixed`, `w_fixed` and `n_fixed` say which are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Independent problems.
    pub batch: i64,
    /// Rows along the last row axis but one.
    pub h: i64,
    /// Rows along the last row axis.
    pub w: i64,
    /// `h` is a constant.
    pub h_fixed: bool,
    /// `w` is a constant.
    pub w_fixed: bool,
    /// Output features.
    pub n: i64,
    /// Products summed.
    pub k: i64,
    /// Elements of the scalar operand that one problem reads (overlapping windows counted once).
    pub a: i64,
    /// Bytes of an element.
    pub size: i64,
    /// Features come in panels of 16, so tiles must begin at multiples of 16.
    pub panels: bool,
}

/// At most this many candidates are given.
const MAX: usize = 10;
/// Cycles that beginning and ending a tile costs.
const TILE_OVERHEAD: f64 = 24.0;
/// Bytes a cycle from the second level and from beyond it.
const L2_RATE: f64 = 32.0;
const FAR_RATE: f64 = 8.0;

/// Candidates, the most promising first. `heavy` epilogues are staged from the start; others are
/// tried on registers first.
pub fn candidates(s: &Shape, f: &Facts, heavy: bool) -> Vec<Schedule> {
    let mut all: Vec<(f64, Schedule)> = vec![];
    for nv in vector_counts(s, f) {
        let most = ((f.regs - 1 - nv) / nv).clamp(1, 28);
        for (th, tw) in row_tiles(s, most) {
            let mut best: Option<(f64, Schedule)> = None;
            for block in blocks(s, th, tw) {
                let x = Schedule {
                    th,
                    tw,
                    nv,
                    lanes: f.lanes,
                    unroll: unroll(th * tw * nv),
                    block,
                    staged: heavy,
                };
                let c = cost(s, f, &x);
                if best.is_none_or(|b| c < b.0) {
                    best = Some((c, x));
                }
            }
            all.extend(best);
        }
    }
    all.sort_by(|a, b| {
        a.0.total_cmp(&b.0).then((b.1.th * b.1.tw * b.1.nv).cmp(&(a.1.th * a.1.tw * a.1.nv)))
    });
    let mut out: Vec<Schedule> = vec![];
    for (_, x) in all.into_iter().take(MAX) {
        out.push(x);
        if !x.staged {
            out.push(Schedule { staged: true, ..x });
        }
    }
    let last = Schedule {
        th: 1,
        tw: 1,
        nv: last_vectors(s, f),
        lanes: f.lanes,
        unroll: 1,
        block: 0,
        staged: true,
    };
    out.push(last);
    out
}

/// Candidates for windows and depthwise filters, whose `taps` vectors along the innermost axis stay
/// in registers: the largest tiles first, two vectors before one (neighbouring lines).
pub fn tap_candidates(s: &Shape, f: &Facts, taps: i64, heavy: bool) -> Vec<Schedule> {
    let mut out = vec![];
    let step = last_vectors(s, f);
    for nv in [2, 1, 4]
        .into_iter()
        .filter(|nv| nv % step == 0 && (*nv == step || nv * f.lanes <= s.n + f.lanes))
    {
        let most = ((f.regs - 2 - taps * nv) / nv).clamp(1, 16);
        let mut tiles = row_tiles(s, most);
        tiles.sort_by_key(|t| std::cmp::Reverse(t.0 * t.1));
        for (th, tw) in tiles.into_iter().take(3) {
            let x = Schedule { th, tw, nv, lanes: f.lanes, unroll: 1, block: 1, staged: heavy };
            out.push(x);
            out.push(Schedule { staged: true, ..x });
        }
    }
    out.push(Schedule {
        th: 1,
        tw: 1,
        nv: step,
        lanes: f.lanes,
        unroll: 1,
        block: 1,
        staged: true,
    });
    out
}

/// The fewest vectors that a tile may have.
fn last_vectors(s: &Shape, f: &Facts) -> i64 {
    if s.panels && s.n > f.lanes { (16 / f.lanes).max(1) } else { 1 }
}

fn vector_counts(s: &Shape, f: &Facts) -> Vec<i64> {
    let step = last_vectors(s, f);
    let all = (s.n + f.lanes - 1) / f.lanes;
    let most = (f.regs / 4).min(all.max(step));
    (1..=most).filter(|v| v % step == 0).collect()
}

/// Row tiles of at most `most` rows: along the last axis, balanced so that the last tile is about
/// as large as the others, and over several rows of it where it is short.
fn row_tiles(s: &Shape, most: i64) -> Vec<(i64, i64)> {
    let mut out = vec![];
    for t in 1..=most {
        if s.w_fixed {
            let even = div_ceil(s.w, div_ceil(s.w, t));
            if even != t {
                continue;
            }
        }
        out.push((1, t));
        if s.w_fixed && s.h_fixed && t == s.w && s.h > 1 {
            out.extend((2..=most / t).filter(|&h| h <= s.h).map(|h| (h, t)));
        }
    }
    out
}

fn blocks(s: &Shape, th: i64, tw: i64) -> Vec<i64> {
    let tiles = blocked_tiles(s, th, tw);
    let mut out = vec![0];
    let mut b = 1;
    while b < tiles {
        out.push(b);
        b *= 2;
    }
    out
}

/// Tiles along the row axis that is blocked: the outer one where there are two.
fn blocked_tiles(s: &Shape, th: i64, tw: i64) -> i64 {
    if s.h > 1 { div_ceil(s.h, th) } else { div_ceil(s.w, tw) }
}

fn unroll(accumulators: i64) -> u32 {
    match accumulators {
        ..=3 => 8,
        4..=12 => 4,
        _ => 2,
    }
}

/// `a / b` rounded up.
pub fn div_ceil(a: i64, b: i64) -> i64 {
    (a + b - 1) / b.max(1)
}

/// Estimated cycles of one problem on one core: arithmetic and loads of every tile, and what has to
/// come from the second level or farther.
fn cost(s: &Shape, f: &Facts, x: &Schedule) -> f64 {
    let nr = x.nv * x.lanes;
    let (th, tw, tn) = (div_ceil(s.h, x.th), div_ceil(s.w, x.tw), div_ceil(s.n, nr));
    let per_k = |rows: i64, nv: i64| -> f64 {
        let acc = (rows * nv) as f64;
        let loads = if nv == 1 { acc + 1.0 } else { (rows + nv) as f64 };
        (acc / 2.0).max(loads / 2.0).max(4.0)
    };
    // Tiles of every kind, tails included.
    let sizes = |total: i64, t: i64| -> [(i64, i64); 2] {
        let tail = total % t;
        [(total / t, t), (i64::from(tail > 0), tail)]
    };
    let mut compute = 0.0;
    for (ch, h) in sizes(s.h, x.th) {
        for (cw, w) in sizes(s.w, x.tw) {
            for (cn, n) in sizes(s.n, nr) {
                let count = (ch * cw * cn) as f64;
                if count > 0.0 {
                    let outs = (h * w * div_ceil(n, x.lanes)) as f64;
                    let tile = per_k(h * w, div_ceil(n, x.lanes)) * s.k as f64;
                    compute += count * (tile + TILE_OVERHEAD + 2.0 * outs);
                }
            }
        }
    }
    let (a, b) = ((s.a * s.size) as f64, (s.n * s.k * s.size) as f64);
    let row_tiles = blocked_tiles(s, x.th, x.tw);
    let block = if x.block == 0 { row_tiles } else { x.block.min(row_tiles) };
    let nblocks = div_ceil(row_tiles, block) as f64;
    let a_block = a / nblocks;
    let panel = (nr * s.k * s.size) as f64;
    let (l1, l2) = (f.l1 as f64 * 0.5, f.l2 as f64 * 0.6);
    // What is read again: features once a block of rows, a block of rows once a feature tile.
    let level = |bytes: f64| {
        if bytes <= l1 {
            0.0
        } else if bytes <= l2 {
            1.0 / L2_RATE
        } else {
            1.0 / FAR_RATE
        }
    };
    let again_b = level(b + a_block.min(l1)) * b * (nblocks - 1.0);
    let again_a = level(a_block + panel.min(l2 / 2.0)) * a * (tn - 1) as f64;
    // Within a block the panel is read once a row tile.
    let again_panel = level(panel) * panel * tn as f64 * ((th * tw) as f64 - nblocks).max(0.0);
    let moved = again_b + again_a + again_panel;
    compute.max(moved) + 0.15 * compute.min(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVX512: Facts = Facts { lanes: 16, regs: 32, l1: 48 << 10, l2: 1 << 20 };
    const AVX2: Facts = Facts { lanes: 8, regs: 16, l1: 32 << 10, l2: 512 << 10 };

    fn shape(h: i64, w: i64, n: i64, k: i64) -> Shape {
        let a = h * w * k;
        Shape { batch: 1, h, w, h_fixed: true, w_fixed: true, n, k, a, size: 4, panels: true }
    }

    fn first(s: &Shape, f: &Facts) -> Schedule {
        candidates(s, f, false)[0]
    }

    #[test]
    fn big_tiles_where_they_fit() {
        let x = first(&shape(56, 56, 256, 64), &AVX512);
        assert!(x.tw * x.th * x.nv >= 24, "{x}");
        let x = first(&shape(7, 7, 512, 4608), &AVX512);
        assert_eq!(x.tw, 7, "{x}");
        let x = first(&shape(1, 128, 768, 768), &AVX2);
        assert!(x.tw * x.nv >= 10 && x.nv % 2 == 0, "{x}");
    }

    #[test]
    fn one_row_takes_many_vectors() {
        let x = first(&shape(1, 1, 1000, 2048), &AVX512);
        assert!(x.nv >= 4, "{x}");
    }

    #[test]
    fn the_last_candidate_is_the_smallest() {
        for f in [AVX512, AVX2] {
            let all = candidates(&shape(28, 28, 128, 1152), &f, true);
            assert!(all.iter().all(|x| (x.nv * x.lanes) % 16 == 0));
            assert_eq!((all[all.len() - 1].th, all[all.len() - 1].tw), (1, 1));
        }
    }
}
