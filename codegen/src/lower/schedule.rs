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
    /// Tiles that run at once where there are never fewer.
    pub workers: i64,
    /// Workers may share a tile.
    pub teams: bool,
}

impl Facts {
    /// Those of a target, with so many lanes.
    pub fn of(t: &Target, lanes: usize) -> Facts {
        let (regs, l1, l2) = (t.vector_regs as i64, t.l1 as i64, t.l2 as i64);
        Facts { lanes: lanes as i64, regs, l1, l2, workers: t.workers, teams: t.teams }
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
    /// Workers that share a tile's sum, each a part of it; where there are several a tile is staged.
    pub team: i64,
    /// Sums are made in tile registers ([`super::tiles`]).
    pub tiles: bool,
}

/// Bytes after a row of sums of a warp's tile registers: those of eight rows are then in different
/// banks.
const ROW_GAP: i64 = 32;

impl Schedule {
    /// Bytes from row to row of a staged tile that is so many vectors wide, elements of `size` bytes.
    pub fn pitch(&self, vectors: i64, size: i64) -> i64 {
        let gap = if self.tiles && self.lanes > 16 { ROW_GAP } else { 0 };
        vectors * self.lanes * size + gap
    }

    /// Bytes of a worker's staged tile.
    pub fn staged_bytes(&self, size: i64) -> i64 {
        self.th * self.tw * self.pitch(self.nv, size)
    }
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
        match (self.tiles, self.staged) {
            (true, _) => write!(f, " {}", if self.lanes > 16 { "mma" } else { "amx" })?,
            (_, true) => write!(f, " staged")?,
            _ => {}
        }
        if self.team > 1 {
            write!(f, " team {}", self.team)?;
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
    /// Bit `n`: the sum can be cut in `n` equal parts.
    pub splits: u32,
}

/// Teams that a problem's sum can be shared by.
pub fn teams(s: &Shape, f: &Facts) -> Vec<i64> {
    let most = if f.teams { 8 } else { 1 };
    (1..=most).filter(|n| *n == 1 || s.splits >> n & 1 == 1).collect()
}

/// At most this many candidates are given.
const MAX: usize = 10;
/// Cycles that beginning and ending a tile costs.
const TILE_OVERHEAD: f64 = 24.0;
/// Bytes a cycle from the second level.
pub const L2_RATE: f64 = 32.0;
/// Bytes a cycle from beyond the second level.
pub const FAR_RATE: f64 = 8.0;

/// Candidates, the most promising first. `heavy` epilogues are staged from the start; others are
/// tried on registers first.
pub fn candidates(s: &Shape, f: &Facts, heavy: bool) -> Vec<Schedule> {
    let mut all: Vec<(f64, Schedule)> = vec![];
    for nv in vector_counts(s, f) {
        let most = ((f.regs - 1 - nv) / nv).clamp(1, 28);
        for (th, tw) in row_tiles(s, most) {
            let mut best: Option<(f64, Schedule)> = None;
            let unroll = unroll(th * tw * nv);
            let mut add = |block: i64, team: i64| {
                let (lanes, staged) = (f.lanes, heavy || team > 1);
                let x = Schedule { th, tw, nv, lanes, unroll, block, staged, team, tiles: false };
                let c = cost(s, f, &x);
                if best.is_none_or(|b| c < b.0) {
                    best = Some((c, x));
                }
            };
            blocks(s, th, tw).into_iter().for_each(|block| add(block, 1));
            teams(s, f).into_iter().skip(1).for_each(|team| add(0, team));
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
        team: 1,
        tiles: false,
    };
    out.push(last);
    out
}

/// Cycles of one problem on one core by the best candidate.
pub fn estimate(s: &Shape, f: &Facts) -> f64 {
    let all = candidates(s, f, false);
    all.iter().map(|x| cost(s, f, x)).fold(f64::INFINITY, f64::min)
}

/// What a window's or depthwise filter's taps look like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Taps {
    /// Along the innermost reduced axis.
    pub across: i64,
    /// Along all others.
    pub rows: i64,
    /// Distance between neighbouring output columns, in taps.
    pub step: i64,
    /// Each has a filter vector.
    pub filter: bool,
}

impl Taps {
    /// Whether a tile's accumulators leave room for the filter vectors of one row of taps; input
    /// vectors are then loaded once a row.
    pub fn held(&self, rows: i64, nv: i64, regs: i64) -> bool {
        let filters = if self.filter { self.across * nv } else { 0 };
        filters + (rows + 1) * nv < regs
    }

    /// Cycles of one tile: arithmetic, loads and latency of every row of taps, begin and end.
    pub fn cycles(&self, th: i64, tw: i64, nv: i64, regs: i64) -> f64 {
        let work = th * tw * self.across * nv;
        let columns = if self.step < self.across {
            (tw - 1) * self.step + self.across
        } else {
            tw * self.across
        };
        let held = self.held(th * tw, nv, regs);
        let inputs = if held { th * columns * nv } else { work };
        let filters = if self.filter { self.across * nv } else { 0 };
        let busiest = work.max(inputs + filters) as f64 / 2.0;
        let row = busiest.max((4 * self.across) as f64) + 3.0;
        row * self.rows as f64 + TILE_OVERHEAD + (2 * th * tw * nv) as f64
    }
}

/// Candidates for windows and depthwise filters, the most promising first.
pub fn tap_candidates(s: &Shape, f: &Facts, taps: &Taps, heavy: bool) -> Vec<Schedule> {
    let step = last_vectors(s, f);
    let all = div_ceil(s.n, f.lanes);
    let mut found = vec![];
    for nv in [1, 2, 4].into_iter().filter(|nv| nv % step == 0 && (*nv == step || *nv <= all)) {
        let most = ((f.regs - 2) / nv - 1).clamp(1, 20);
        for (th, tw) in row_tiles(s, most) {
            let mut total = 0.0;
            each_tile(s, (th, tw, nv * f.lanes), &mut |count, h, w, n| {
                total += count * taps.cycles(h, w, div_ceil(n, f.lanes), f.regs);
            });
            let block = tap_block(s, f, th, nv * f.lanes);
            found.push((
                total,
                Schedule {
                    th,
                    tw,
                    nv,
                    lanes: f.lanes,
                    unroll: 1,
                    block,
                    staged: heavy,
                    team: 1,
                    tiles: false,
                },
            ));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out = vec![];
    for (_, x) in found.into_iter().take(MAX) {
        out.push(x);
        if !x.staged {
            out.push(Schedule { staged: true, ..x });
        }
    }
    let (nv, lanes) = (step, f.lanes);
    out.push(Schedule {
        th: 1,
        tw: 1,
        nv,
        lanes,
        unroll: 1,
        block: 1,
        staged: true,
        team: 1,
        tiles: false,
    });
    out
}

/// Row tiles whose input stays in the first level while a tile's features are walked down the image.
fn tap_block(s: &Shape, f: &Facts, th: i64, nr: i64) -> i64 {
    let row = s.a / s.n.max(1) / s.h.max(1) * nr * s.size;
    let fit = (f.l1 * 6 / 10 / row.max(1) - 2).max(1);
    if fit >= s.h { 0 } else { (fit / th).max(1) }
}

/// Calls `f(count, h, w, n)` for every size of tile that `(th, tw, nr)` cuts a problem into.
fn each_tile(s: &Shape, (th, tw, nr): (i64, i64, i64), f: &mut dyn FnMut(f64, i64, i64, i64)) {
    let sizes = |total: i64, t: i64| -> [(i64, i64); 2] {
        let tail = total % t;
        [(total / t, t), (i64::from(tail > 0), tail)]
    };
    for (ch, h) in sizes(s.h, th) {
        for (cw, w) in sizes(s.w, tw) {
            for (cn, n) in sizes(s.n, nr) {
                if ch * cw * cn > 0 {
                    f((ch * cw * cn) as f64, h, w, n);
                }
            }
        }
    }
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

/// Blocks of row tiles worth trying: all of them (0), or powers of two.
pub fn blocks(s: &Shape, th: i64, tw: i64) -> Vec<i64> {
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

/// Cycles of one reduced step of a register tile: arithmetic or loads.
pub fn per_k(rows: i64, nv: i64) -> f64 {
    let acc = (rows * nv) as f64;
    // One vector of features takes every broadcast from memory, which does not keep up.
    let loads = if nv == 1 { 1.4 * acc + 1.0 } else { (rows + nv) as f64 };
    (acc / 2.0).max(loads / 2.0).max(4.0)
}

/// Estimated cycles of one problem on one core: arithmetic and loads of every tile, and what has to
/// come from the second level or farther.
fn cost(s: &Shape, f: &Facts, x: &Schedule) -> f64 {
    let nr = x.nv * x.lanes;
    let mut compute = 0.0;
    each_tile(s, (x.th, x.tw, nr), &mut |count, h, w, n| {
        let nv = div_ceil(n, x.lanes);
        let tile = per_k(h * w, nv) * s.k as f64;
        compute += count * (tile + TILE_OVERHEAD + (2 * h * w * nv) as f64);
    });
    if f.workers > 1 {
        return warp_cost(s, f, x);
    }
    let moved = moved(s, f, x);
    compute.max(moved) + 0.15 * compute.min(moved)
}

/// Cycles that a warp waits for what it reads, and that a team waits for its members.
const LATENCY: f64 = 600.0;
const MEET: f64 = 100.0;

/// The same where vectors are warps: what the units of a processor take for all of its warps, or, where
/// these are few, what one waits for memory.
fn warp_cost(s: &Shape, f: &Facts, x: &Schedule) -> f64 {
    let nr = x.nv * x.lanes;
    let tiles = s.batch * div_ceil(s.h, x.th) * div_ceil(s.w, x.tw) * div_ceil(s.n, nr);
    let (rows, team) = (x.th * x.tw, x.team as f64);
    let k = s.k as f64 / team;
    // Every warp's loads pass one unit: four cycles each.
    let each = (rows * x.nv).max(4 * (rows + x.nv)) as f64 * k + TILE_OVERHEAD;
    if !f.teams {
        return each * div_ceil(tiles, f.workers) as f64;
    }
    let end = match x.team {
        1 => 0.0,
        _ => MEET + (rows * x.nv) as f64 * (8.0 + 12.0 / team),
    };
    let alone = LATENCY * (k / f64::from(x.unroll.max(1))) / 2.0 + end;
    let waves = div_ceil(tiles * x.team, f.workers) as f64;
    ((each + end) * waves).max(alone)
}

/// Estimated cycles of what one problem has to bring from the second level or farther.
pub fn moved(s: &Shape, f: &Facts, x: &Schedule) -> f64 {
    let nr = x.nv * x.lanes;
    let (th, tw, tn) = (div_ceil(s.h, x.th), div_ceil(s.w, x.tw), div_ceil(s.n, nr));
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
    again_b + again_a + again_panel
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVX512: Facts =
        Facts { lanes: 16, regs: 32, l1: 48 << 10, l2: 1 << 20, workers: 1, teams: false };
    const AVX2: Facts =
        Facts { lanes: 8, regs: 16, l1: 32 << 10, l2: 512 << 10, workers: 1, teams: false };

    fn shape(h: i64, w: i64, n: i64, k: i64) -> Shape {
        let a = h * w * k;
        Shape {
            batch: 1,
            h,
            w,
            h_fixed: true,
            w_fixed: true,
            n,
            k,
            a,
            size: 4,
            panels: true,
            splits: 2,
        }
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
