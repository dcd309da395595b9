//! Multiply-accumulate tiles in tile registers (AMX; on a GPU [`super::mma`] chooses): accumulators,
//! rows of the scalar operand and panels of the packed one lie there, and the sums go to scratch, where
//! the staged epilogue reads them. Rows of a register are rows of the innermost row axis (a pixel's
//! channels are contiguous, so nothing is gathered first), or, where those are few, registers are rows
//! of the outer axis.

use super::contract_mac::{Body, Mac, PANEL};
use super::contract_tile::{Cols, Pos, Tiler};
use super::cx::LowerCx;
use super::schedule::{Facts, Schedule, Shape, blocks, div_ceil, moved};
use crate::kir::{Addr, AxisId, Coef, Inst, MAX_TILES, Scalar, Stmt};
use hub_abi::Dim;

/// Rows of a tile register, bf16 elements of its rows, and registers.
const ROWS: i64 = 16;
const WIDE: i64 = 32;
const REGISTERS: i64 = 8;
/// Cycles of a product of whole tiles, and of beginning and ending one group of tiles.
const DOT: f64 = 16.0;
const OVERHEAD: f64 = 60.0;

/// Elements of the innermost summed axis that one tile product takes: an even divisor of its
/// extent; none where so few fit that vectors are better.
fn chunk(mac: &Mac) -> Option<i64> {
    let k = mac.k.last()?.dim.as_const()?;
    (4..=WIDE / 2).rev().map(|h| 2 * h).find(|c| k % c == 0)
}

/// The same where four threads share a row, each having two or four pairs of it.
pub fn warp_chunk(mac: &Mac) -> Option<i64> {
    let k = mac.k.last()?.dim.as_const()?;
    [32, 24, 16, 12, 8].into_iter().find(|c| k % c == 0)
}

/// Is it a product that tile registers can hold: pairs, one side packed?
pub fn suits(mac: &Mac) -> bool {
    mac.body == Body::Broadcast && mac.pairs && mac.panel.is_some()
}

/// Schedules on tile registers, the most promising first; none where the problem does not suit.
pub fn candidates(mac: &Mac, s: &Shape, f: &Facts) -> Vec<Schedule> {
    let (Some(c), true, 16) = (chunk(mac), suits(mac), f.lanes) else { return vec![] };
    let rows: Vec<(i64, i64)> = match s.w {
        1 => vec![],
        w if !s.w_fixed || w > ROWS => {
            let even = |most: i64| if s.w_fixed { div_ceil(w, div_ceil(w, most)) } else { most };
            vec![(1, even(2 * ROWS)), (1, even(ROWS)), (1, even(4 * ROWS))]
        }
        w => (1..=4).filter(|h| s.h_fixed && *h <= s.h || *h == 1).map(|h| (h, w)).collect(),
    };
    let mut all: Vec<(f64, Schedule)> = vec![];
    for (th, tw) in rows {
        for nv in 1..=4i64 {
            let mt = registers(th, tw).0;
            if mt * nv > 4 || (nv - 1) * 16 >= s.n {
                continue;
            }
            let steps = (s.k * 2 / c) as f64;
            let tiles = (div_ceil(s.h, th) * div_ceil(s.w, tw) * div_ceil(s.n, 16 * nv)) as f64;
            // A product waits for nothing; a load takes half of its time.
            let work = (mt * nv) as f64 * DOT;
            let loads = (mt + nv) as f64 * DOT / 2.0;
            let out = (th * tw * nv) as f64 * 3.0;
            let compute = tiles * (steps * work.max(loads) + OVERHEAD + out);
            let block = blocks(s, th, tw).into_iter().min_by(|a, b| {
                let at = |block: i64| moved(s, f, &of(th, tw, nv, block));
                at(*a).total_cmp(&at(*b))
            });
            let x = of(th, tw, nv, block.unwrap_or(0));
            let moved = moved(s, f, &x);
            all.push((compute.max(moved) + 0.15 * compute.min(moved), x));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|x| x.1).take(4).collect()
}

fn of(th: i64, tw: i64, nv: i64, block: i64) -> Schedule {
    Schedule { th, tw, nv, lanes: 16, unroll: 1, block, staged: true, team: 1, tiles: true }
}

/// Registers that hold `th × tw` rows, and rows of each but the last.
pub fn registers(th: i64, tw: i64) -> (i64, i64) {
    if th > 1 && tw <= ROWS {
        return (th, tw);
    }
    let n = div_ceil(th * tw, ROWS);
    (n, div_ceil(th * tw, n))
}

/// How the summed axes are walked: elements a step, bytes that each begins at a multiple of, and steps
/// that are laid out in a row.
#[derive(Clone, Copy)]
struct Steps {
    chunk: i64,
    align: u8,
    unroll: u32,
}

/// Which registers hold what.
struct Registers {
    /// First row of each row register, and its rows.
    rows: Vec<(i64, i64)>,
    vectors: i64,
    /// Registers for rows and for vectors of the operands; fewer than there are take turns.
    a: i64,
    b: i64,
}

impl Registers {
    fn acc(&self, i: usize, j: i64) -> u8 {
        (i as i64 * self.vectors + j) as u8
    }

    /// The last, which may have fewer rows, has a register of its own.
    fn row(&self, i: usize) -> u8 {
        let n = self.rows.len();
        let at = match self.a as usize {
            a if a == n => i,
            a if i + 1 == n => a - 1,
            a => i % (a - 1),
        };
        (n as i64 * self.vectors + at as i64) as u8
    }

    fn vector(&self, j: i64) -> u8 {
        (self.rows.len() as i64 * self.vectors + self.a + j % self.b) as u8
    }

    /// Rows and bytes a row of every register.
    fn shapes(&self, chunk: i64) -> Vec<(u8, u8)> {
        let mut s = vec![];
        for (_, n) in &self.rows {
            s.extend((0..self.vectors).map(|_| (*n as u8, 64)));
        }
        let last = self.rows.len() - 1;
        let of = |at: i64| if at + 1 == self.a { last } else { at as usize };
        s.extend((0..self.a).map(|at| (self.rows[of(at)].1 as u8, (2 * chunk) as u8)));
        s.extend((0..self.b).map(|_| ((chunk / 2) as u8, 64)));
        s
    }
}

impl Tiler<'_> {
    /// The sums of a tile, left in scratch as the epilogue reads them.
    pub fn tile_sums(&self, cx: &mut LowerCx<'_>, pos: &Pos, th: i64, tw: i64, cols: Cols) {
        let warps = cx.target.has_mma();
        let chunk = if warps { warp_chunk(self.mac) } else { chunk(self.mac) };
        let chunk = chunk.expect("schedules of tiles are for problems that have one");
        let vectors = match cols {
            Cols::First(n) => div_ceil(n, PANEL),
            _ => cols.vectors(self.sch.lanes) * self.sch.lanes / PANEL,
        };
        let (n, each) = registers(th, tw);
        let rows: Vec<(i64, i64)> =
            (0..n).map(|i| (i * each, each.min(th * tw - i * each))).collect();
        let all = if warps { MAX_TILES as i64 } else { REGISTERS };
        let left = all - n * vectors;
        let b = vectors.min(left - 1);
        let a = n.min(left - b);
        let r = Registers { rows, vectors, a, b };
        cx.b.inst(Inst::TileConfig { shapes: r.shapes(chunk) });
        let at: Vec<Addr> = r
            .rows
            .iter()
            .map(|(first, _)| {
                let at = self.row(pos, first / tw, first % tw).s;
                cx.address(self.s.base, &at).0
            })
            .collect();
        let first = cx.address(self.v.base, &pos.v).0;
        let panel = self.mac.panel.unwrap_or(0) * self.v.dtype.size() as i64;
        let vs: Vec<Addr> = (0..vectors).map(|j| first.clone().offset(j * panel)).collect();
        let scalar = &cx.task.inputs[self.mac.scalar];
        let align = if warps { self.mac.alignment(scalar) as u8 } else { 1 };
        let steps = Steps { chunk, align, unroll: if warps { 4 } else { 1 } };
        self.tile_reduce(cx, 0, steps, &r, &at, &vs);
        self.meet(cx);
        let pitch = self.pitch(cols);
        for (i, (first, _)) in r.rows.iter().enumerate() {
            for j in 0..vectors {
                let addr = self.own_tile(first * pitch + j * 64);
                cx.b.inst(Inst::TileStore { tile: r.acc(i, j), addr, stride: pitch.into() });
            }
        }
    }

    fn tile_reduce(
        &self,
        cx: &mut LowerCx<'_>,
        depth: usize,
        steps: Steps,
        r: &Registers,
        rows: &[Addr],
        vs: &[Addr],
    ) {
        let Some(ax) = self.mac.k.get(depth) else {
            return self.tile_products(cx, steps.align, r, rows, vs);
        };
        let last = depth + 1 == self.mac.k.len();
        let step = if last { steps.chunk } else { 1 };
        let dim: Dim = if step == 1 { ax.dim.clone() } else { ax.dim.div(&step.into()) };
        let extent: Scalar = cx.scalar(&dim);
        let s = cx.coef(&ax.s.times(step * self.s.dtype.size() as i64));
        let v = cx.coef(&ax.v.times(step * self.v.dtype.size() as i64));
        let axis = cx.b.axis(format!("k{depth}"));
        let (rows, vs) = (along(rows, axis, s), along(vs, axis, v));
        cx.b.begin();
        self.tile_reduce(cx, depth + 1, steps, r, &rows, &vs);
        let body = cx.b.end();
        let unroll = if last { steps.unroll } else { 1 };
        cx.b.push(Stmt::For { axis, extent, unroll, body });
    }

    fn tile_products(
        &self,
        cx: &mut LowerCx<'_>,
        align: u8,
        r: &Registers,
        rows: &[Addr],
        vs: &[Addr],
    ) {
        let row = self.rows[1].s.times(self.s.dtype.size() as i64);
        let pitch = cx.coef(&row);
        let whole = r.b >= r.vectors;
        if whole {
            for (j, at) in vs.iter().enumerate() {
                let tile = r.vector(j as i64);
                cx.b.inst(Inst::TileLoad { tile, addr: at.clone(), stride: 64.into(), align: 64 });
            }
        }
        for (i, at) in rows.iter().enumerate() {
            let (tile, addr) = (r.row(i), at.clone());
            cx.b.inst(Inst::TileLoad { tile, addr, stride: pitch, align });
            for (j, v) in vs.iter().enumerate() {
                let tile = r.vector(j as i64);
                if !whole {
                    cx.b.inst(Inst::TileLoad {
                        tile,
                        addr: v.clone(),
                        stride: 64.into(),
                        align: 64,
                    });
                }
                let acc = r.acc(i, j as i64);
                cx.b.inst(Inst::TileDot2 { acc, a: r.row(i), b: tile, dtype: self.s.dtype });
            }
        }
    }
}

fn along(at: &[Addr], axis: AxisId, by: Coef) -> Vec<Addr> {
    at.iter().map(|a| a.clone().plus(axis, by)).collect()
}
