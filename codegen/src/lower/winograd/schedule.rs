//! Which Winograd kernel, if any: blocks of tiles and features by a model of cycles, compared with
//! the direct convolution's.

use super::super::contract_mac::likely;
use super::super::conv::Conv;
use super::super::schedule::{self, FAR_RATE, Facts, L2_RATE, Shape, div_ceil, per_k};
use super::filter::Filter;
use crate::target::Target;

/// How a kernel goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The stored filter, which says m.
    pub filter: Filter,
    /// Tiles of a block: down and across.
    pub block: [i64; 2],
    /// Features of a block, a multiple of `nv` vectors.
    pub features: i64,
    /// Channels that are transformed and multiplied at a time; they divide all channels.
    pub depth: i64,
    /// Rows (tiles) and vectors of a register tile.
    pub rows: i64,
    /// Vectors of a register tile.
    pub nv: i64,
    /// The epilogue runs after the tile's outputs are in scratch.
    pub staged: bool,
}

/// At most so many plans of a form are tried.
const MOST: usize = 6;
/// Cores that should find a block each, where it costs little.
const CORES: i64 = 8;
/// A direct convolution must be slower by this factor.
const GAIN: f64 = 1.15;
/// Bytes of scratch that a worker may need.
const SCRATCH: i64 = 2 << 20;

/// Sizes, likely ones where they are bound late.
struct Sizes {
    h: i64,
    w: i64,
    images: i64,
    facts: Facts,
}

impl Sizes {
    fn of(c: &Conv<'_, '_>, target: &Target) -> Sizes {
        let d = c.task.g.dims(c.out);
        let facts = Facts::of(target, target.lanes());
        Sizes { h: likely(&d[2]), w: likely(&d[3]), images: likely(&d[0]), facts }
    }
}

/// Plans from the most promising on: those that the model takes to be faster than a direct
/// convolution, or some of each form whether they are or not (`any`).
pub fn plans(c: &Conv<'_, '_>, target: &Target, any: bool) -> Vec<Plan> {
    let w = &c.task.inputs[c.w];
    let (n, ch) = (likely(&w.dims[0]), likely(&w.dims[1]));
    let s = Sizes::of(c, target);
    let limit = if any { f64::INFINITY } else { direct(&s, n, ch, c) / GAIN };
    let mut all: Vec<(f64, Plan)> = vec![];
    for m in [4, 2] {
        let good = rated(&s, Filter { m, n, c: ch }).into_iter().filter(|x| x.0 < limit);
        all.extend(good.take(MOST));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let heavy = super::super::contract_mac::heavy(c.task);
    all.into_iter()
        .flat_map(|(_, p)| {
            let staged = Plan { staged: true, ..p };
            if heavy { vec![staged] } else { vec![p, staged] }
        })
        .collect()
}

/// Every plan of a filter's form with the cycles that the model expects, the fewest first: for
/// whoever checks the model against measurement.
pub fn every(c: &Conv<'_, '_>, target: &Target, filter: Filter) -> Vec<(f64, Plan)> {
    rated(&Sizes::of(c, target), filter)
}

fn rated(s: &Sizes, filter: Filter) -> Vec<(f64, Plan)> {
    let mut all: Vec<(f64, Plan)> =
        candidates(s, filter).into_iter().map(|p| (cost(s, &p), p)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// Cycles of the direct convolution, all images.
fn direct(s: &Sizes, n: i64, ch: i64, c: &Conv<'_, '_>) -> f64 {
    let dims = c.task.g.dims(c.out);
    // Elements of 32 bits that are multiplied: of bf16, pairs.
    let size = c.task.inputs[c.w].dtype.size() as i64;
    let words = |n: i64| n * size / 4;
    let shape = Shape {
        batch: 1,
        h: s.h,
        w: s.w,
        h_fixed: dims[2].as_const().is_some(),
        w_fixed: dims[3].as_const().is_some(),
        n,
        k: words(9 * ch),
        a: words((s.h + 2) * (s.w + 2) * ch),
        size: 4,
        panels: true,
        splits: 0,
    };
    let weights = (9 * ch * n * size) as f64;
    let (sums, stream) =
        (schedule::estimate(&shape, &s.facts) * s.images as f64, weights / FAR_RATE);
    sums.max(stream) + 0.15 * sums.min(stream)
}

/// Divisors of `n`, ascending.
fn divisors(n: i64) -> impl Iterator<Item = i64> {
    (1..=n).filter(move |d| n % d == 0)
}

fn candidates(s: &Sizes, filter: Filter) -> Vec<Plan> {
    let (down, across) = (div_ceil(s.h, filter.m), div_ceil(s.w, filter.m));
    let vectors = div_ceil(filter.n, 16) * 16 / s.facts.lanes;
    let step = (16 / s.facts.lanes).max(1);
    // Few channels at a time do not pay for adding to products in memory.
    let worth = |d: &i64| *d == filter.c || d % 16 == 0 && (128..=512).contains(d);
    let depths: Vec<i64> = divisors(filter.c).filter(worth).collect();
    let mut out = vec![];
    let mut widths: Vec<i64> = (1..=across).map(|parts| div_ceil(across, parts)).collect();
    widths.dedup();
    for bw in widths {
        let most = if bw == across { down } else { 1 };
        for bh in (1..=most).filter(|&b| div_ceil(down, div_ceil(down, b)) == b) {
            let tiles = bh * bw;
            for nv in divisors(vectors).filter(|v| v % step == 0 && *v <= 8) {
                let rows = ((s.facts.regs - 1 - nv) / nv).clamp(1, 28);
                let rows = div_ceil(tiles, div_ceil(tiles, rows));
                let parts: Vec<i64> = divisors(vectors / nv).collect();
                for (&q, &depth) in parts.iter().flat_map(|q| depths.iter().map(move |d| (q, d))) {
                    let (block, features) = ([bh, bw], q * nv * s.facts.lanes);
                    let p = Plan { filter, block, features, depth, rows, nv, staged: false };
                    if tiles >= 4.min(down * across) && p.scratch() <= SCRATCH {
                        out.push(p);
                    }
                }
            }
        }
    }
    out
}

impl Plan {
    /// Tiles of a block.
    pub fn tiles(&self) -> i64 {
        self.block[0] * self.block[1]
    }

    /// Blocks of features.
    pub fn parts(&self) -> i64 {
        div_ceil(self.filter.n, self.features)
    }

    /// Elements of a row of transformed input: channels in whole lines, never a multiple of 4 KiB.
    pub fn pitch(&self) -> i64 {
        pitch(self.depth)
    }

    /// How often a part of the channels is turned to.
    pub fn chunks(&self) -> i64 {
        self.filter.c / self.depth
    }

    /// Elements of a row of products.
    pub fn out_pitch(&self) -> i64 {
        pitch(self.features)
    }

    /// Bytes from one point's transformed input to the next's.
    pub fn plane(&self) -> i64 {
        self.tiles() * self.pitch() * 4 + 64
    }

    /// Bytes from one point's products to the next's.
    pub fn out_plane(&self) -> i64 {
        self.tiles() * self.out_pitch() * 4 + 64
    }

    /// Bytes of scratch for transformed inputs and products.
    pub fn scratch(&self) -> i64 {
        self.filter.points() * (self.plane() + self.out_plane())
    }
}

fn pitch(n: i64) -> i64 {
    let whole = div_ceil(n, 16) * 16;
    if whole % 1024 == 0 { whole + 16 } else { whole }
}

/// Estimated cycles of a plan on one core, blocks balanced over two.
fn cost(s: &Sizes, p: &Plan) -> f64 {
    let (f, lanes) = (&p.filter, s.facts.lanes);
    let (down, across) = (div_ceil(s.h, f.m), div_ceil(s.w, f.m));
    let blocks = div_ceil(down, p.block[0]) * div_ceil(across, p.block[1]) * s.images;
    let parts = p.parts();
    let (points, tiles) = (f.points() as f64, p.tiles() as f64);
    let [ahead, behind] = if f.m == 4 { [150.0, 140.0] } else { [50.0, 50.0] };
    let into = ahead * tiles * div_ceil(f.c, lanes) as f64;
    let back = behind * tiles * (p.features / lanes) as f64;
    // Products: every register tile of a point.
    let (whole, left) = (p.tiles() / p.rows, p.tiles() % p.rows);
    let chunks = p.chunks() as f64;
    let tile = |rows: i64| {
        per_k(rows, p.nv) * f.c as f64 + (24.0 + (2 * rows * p.nv) as f64 * 1.5) * chunks
    };
    let rows = whole as f64 * tile(p.rows) + if left > 0 { tile(left) } else { 0.0 };
    let turns = (p.features / (p.nv * lanes)) as f64;
    let products = points * turns * rows;
    // Filters come from far once, and again for every block from where they and the scratch fit.
    let filters = (f.points() * f.c * p.features * 4) as f64;
    let near = filters + p.scratch() as f64 <= s.facts.l2 as f64 * 0.9;
    let again_rate = if near { L2_RATE } else { FAR_RATE };
    let stream = (filters / FAR_RATE + filters / again_rate * (blocks - 1) as f64) / blocks as f64;
    // Transformed inputs are read again for every turn of features.
    let rows_bytes = tiles * p.depth as f64 * 4.0;
    let again =
        if rows_bytes <= s.facts.l1 as f64 * 0.5 { 0.0 } else { chunks * rows_bytes / L2_RATE };
    // A panel that the first level does not hold is read again for every register tile.
    let panel = (p.depth * p.nv * lanes * 4) as f64;
    let far_panel = panel > s.facts.l1 as f64 * 0.5;
    let times = chunks * (div_ceil(p.tiles(), p.rows) - 1) as f64;
    let panels = if far_panel { panel / L2_RATE * times } else { 0.0 };
    let scratch = p.scratch() as f64;
    let spill = if scratch > s.facts.l2 as f64 * 0.8 { chunks * scratch / FAR_RATE } else { 0.0 };
    let moved = stream + points * turns * (again + panels) + spill;
    let block = into + back + products.max(moved) + 0.15 * products.min(moved);
    let total = blocks * parts;
    let balance = (div_ceil(total, 2) * 2) as f64 / total as f64;
    // More cores than two want more blocks; what that may cost is bounded.
    let few = 1.0 + 0.02 * (CORES - total).max(0) as f64;
    block * total as f64 * (0.7 + 0.3 * balance) * few
}
