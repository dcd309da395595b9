//! Tiles of bf16 on a GPU's tensor cores: which of them, and how many warps share one. How they are
//! made is [`super::tiles`].
//!
//! A batch of one leaves most of a GPU idle, so that what counts is how long a warp waits: steps of the
//! sum after one another, each a trip to the second-level cache, some of them at once. Small tiles and
//! teams shorten that; what all warps together read and multiply bounds it from below.

use super::contract_mac::Mac;
use super::schedule::{Facts, Schedule, Shape, div_ceil, teams};
use super::tiles::{registers, suits, warp_chunk};

/// Rows of a tile register, and registers of sums that a warp has room for: beside them lie operands of
/// several steps and, where sizes are bound late, the addresses of tails, which are code beside a tile's.
const ROWS: i64 = 16;
const SUMS: i64 = 12;
const SUMS_LATE: i64 = 8;
/// Cycles from a load to its value (second-level cache), steps that a warp has under way at once, and
/// cycles to begin, meet and end.
const LATENCY: f64 = 500.0;
const AHEAD: f64 = 4.0;
const BEGIN: f64 = 600.0;
/// Cycles of a processor (four warps at a time): a load of 32 words, a product of fragments, a row of
/// the epilogue.
const LOAD: f64 = 1.0;
const PRODUCT: f64 = 3.0;
const ROW: f64 = 12.0;
/// Warps that a processor has at once.
const RESIDENT: i64 = 12;

/// Schedules on tensor cores, the most promising first; none where the problem does not suit.
pub fn candidates(mac: &Mac, s: &Shape, f: &Facts) -> Vec<Schedule> {
    let (Some(c), true, 32) = (warp_chunk(mac), suits(mac), f.lanes) else {
        return vec![];
    };
    let mut all: Vec<(f64, Schedule)> = vec![];
    for (th, tw) in row_tiles(s) {
        for nv in [1, 2, 4] {
            let sums = registers(th, tw).0 * 2 * nv;
            let most = if s.h_fixed && s.w_fixed { SUMS } else { SUMS_LATE };
            if sums > most || (nv > 1 && (nv - 1) * f.lanes >= s.n) {
                continue;
            }
            for team in teams(s, f) {
                let (lanes, staged, tiles) = (f.lanes, true, true);
                let x = Schedule { th, tw, nv, lanes, unroll: 4, block: 0, staged, team, tiles };
                if x.staged_bytes(4) * team <= SCRATCH {
                    all.push((cost(s, f, &x, c), x));
                }
            }
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|x| x.1).take(6).collect()
}

/// Bytes of scratch that a block has.
const SCRATCH: i64 = 48 << 10;

/// Rows of tiles: along the last row axis, or several whole rows of it where these are short.
fn row_tiles(s: &Shape) -> Vec<(i64, i64)> {
    if s.w_fixed && s.w <= ROWS {
        let many = |h: &i64| *h == 1 || s.h_fixed && *h <= s.h;
        return (1..=4).filter(many).map(|h| (h, s.w)).collect();
    }
    let even = |most: i64| if s.w_fixed { div_ceil(s.w, div_ceil(s.w, most)) } else { most };
    let mut out: Vec<(i64, i64)> = [1, 2, 4].iter().map(|n| (1, even(n * ROWS))).collect();
    out.dedup();
    out
}

/// Estimated cycles.
fn cost(s: &Shape, f: &Facts, x: &Schedule, chunk: i64) -> f64 {
    let tiles = s.batch * div_ceil(s.h, x.th) * div_ceil(s.w, x.tw) * div_ceil(s.n, x.nv * x.lanes);
    let (rows, columns) = (registers(x.th, x.tw).0 as f64, (2 * x.nv) as f64);
    let team = x.team as f64;
    let steps = (2 * s.k / chunk) as f64 / team;
    let step = (rows * 8.0 + columns * 8.0) * LOAD + rows * columns * 4.0 * PRODUCT;
    let parts = if x.team > 1 { team } else { 1.0 };
    let end = (x.th * x.tw * x.nv) as f64 * (ROW + 2.0 * parts) / team;
    let alone = steps / AHEAD * LATENCY + 4.0 * step * steps + BEGIN + end;
    let processors = f.workers / 4;
    let warps = tiles * x.team;
    let busy = (steps * step + end) * div_ceil(warps, processors) as f64;
    (alone * div_ceil(warps, processors * RESIDENT) as f64).max(busy)
}
