//! The register tile of a multiply-accumulate problem: positions, the reduced loops, and the
//! epilogue on registers or over the tile in scratch.

use super::contract_mac::{Axis, Body, Mac, PANEL};
use super::coord::{Atom, Coord};
use super::cx::{LowerCx, Made};
use super::schedule::{Schedule, div_ceil};
use crate::kir::{Addr, Affine, AxisId, Base, BinOp, Coef, Elem, Reg, RegTy, Scalar, Stmt};
use hub_abi::{Dim, Dtype};

/// Where a tile lies: its first row and feature.
#[derive(Clone, Debug)]
pub struct Pos {
    /// Bytes from the scalar operand's pointer.
    pub s: Coord,
    /// Bytes from the vector operand's pointer.
    pub v: Coord,
    /// Coordinates in the anchor's result.
    pub out: Vec<Coord>,
}

/// Columns of a tile: which lanes of its vectors exist.
#[derive(Clone, Copy, Debug)]
pub enum Cols {
    /// All lanes of this many vectors.
    Full(i64),
    /// So many features, a constant.
    First(i64),
    /// As many features as an i64 scalar register says, of so many vectors.
    Counted(i64, Reg),
}

impl Cols {
    /// Vectors it takes.
    pub fn vectors(self, lanes: i64) -> i64 {
        match self {
            Cols::Full(n) | Cols::Counted(n, _) => n,
            Cols::First(n) => div_ceil(n, lanes),
        }
    }
}

/// An operand: its pointer, its element in memory.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// What its addresses start from.
    pub base: Base,
    /// In memory.
    pub dtype: Dtype,
}

/// What of a packed operand is fetched ahead of its use.
#[derive(Clone, Debug)]
pub enum Ahead {
    /// So many bytes on in the same panel.
    Within(i64),
    /// The next panels, by the tiles that read these one after another, each its part.
    Next {
        /// Number of this tile among them.
        turn: Coord,
        /// How many there are.
        turns: i64,
        /// Bytes from these panels to the next.
        distance: i64,
    },
}

/// A line that is fetched at every step of the innermost reduced axis, so many bytes on in each.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    at: Addr,
    step: i64,
}

/// Bytes of a cache line.
const LINE: i64 = 64;

/// What every tile of a kernel shares: builds one kernel of a multiply-accumulate problem.
#[derive(Clone)]
pub struct Tiler<'m> {
    /// The problem.
    pub mac: &'m Mac,
    /// How it is tiled.
    pub sch: Schedule,
    /// Element of accumulators.
    pub elem: Elem,
    /// The broadcast operand.
    pub s: Side,
    /// The operand that is read in vectors.
    pub v: Side,
    /// Row axes: outer, inner.
    pub rows: [Axis; 2],
    /// Offset of the staged tile in scratch.
    pub scratch: i64,
    /// The lane number.
    pub lane: Atom,
    /// Features past the last that every output may be given.
    pub slack: i64,
    /// What is fetched ahead, if anything.
    pub ahead: Option<Ahead>,
    /// Bytes from a packed vector's first lane to each (i32), where a vector is several panels.
    pub spread: Option<Reg>,
    /// Which of a team's workers this is, where it is one: the axis, and the reduced axis that each has
    /// its part of.
    pub member: Option<(AxisId, usize)>,
}

impl Tiler<'_> {
    /// Type of an accumulator.
    pub fn vec_ty(&self) -> RegTy {
        RegTy::new(self.elem, self.sch.lanes as usize)
    }

    /// Moves `by` elements along an axis.
    pub fn step(&self, pos: &Pos, ax: &Axis, by: &Coord) -> Pos {
        let mut to = pos.clone();
        to.s = to.s.add(&by.times(&ax.s.times(self.s.dtype.size() as i64)));
        to.v = to.v.add(&by.times(&ax.v.times(self.v.dtype.size() as i64)));
        if let Some((o, m)) = ax.out {
            to.out[o] = to.out[o].add(&by.times(&m.into()));
        }
        to
    }

    /// Row `(h, w)` of the tile at `pos`.
    pub fn row(&self, pos: &Pos, h: i64, w: i64) -> Pos {
        let at = self.step(pos, &self.rows[0], &h.into());
        self.step(&at, &self.rows[1], &w.into())
    }

    /// Bytes from a tile's first vector to vector `j` of the vector operand.
    pub fn column(&self, j: i64) -> i64 {
        let size = self.v.dtype.size() as i64;
        let at = j * self.sch.lanes;
        match self.mac.panel {
            Some(panel) => (at / PANEL * panel + at % PANEL * self.step_k()) * size,
            None => at * size,
        }
    }

    /// A vector of the vector operand; lanes of a packed one may lie in several panels.
    pub fn packed(
        &self,
        cx: &mut LowerCx<'_>,
        ty: RegTy,
        at: &Addr,
        dtype: Dtype,
        mask: Option<Reg>,
    ) -> Reg {
        match self.spread {
            Some(idx) => cx.b.gather(ty, at.clone(), idx, 1, dtype, mask),
            None => cx.b.load(ty, at.clone(), dtype, mask),
        }
    }

    /// Makes [`Tiler::spread`] where it is needed.
    pub fn spread(&mut self, cx: &mut LowerCx<'_>) {
        let (Some(panel), true) = (self.mac.panel, self.sch.lanes > PANEL) else { return };
        let ty = RegTy::new(Elem::I32, self.sch.lanes as usize);
        let size = self.v.dtype.size() as i64;
        let lane = cx.b.iota(ty);
        let (bits, low) = (cx.b.const_i(ty, PANEL.ilog2().into()), cx.b.const_i(ty, PANEL - 1));
        let (number, within) = (cx.b.bin(BinOp::UShr, lane, bits), cx.b.bin(BinOp::And, lane, low));
        let far = cx.b.const_i(ty, panel * size);
        let near = cx.b.const_i(ty, self.step_k() * size);
        let (number, within) = (cx.b.mul(number, far), cx.b.mul(within, near));
        self.spread = Some(cx.b.add(number, within));
    }

    /// Elements of the innermost summed axis in a step.
    fn step_k(&self) -> i64 {
        match self.mac.body {
            Body::Across => self.sch.lanes,
            _ if self.mac.pairs => 2,
            _ => 1,
        }
    }

    /// Masks of the columns; none where a vector is whole, or `slack` lanes more may be touched.
    pub fn masks(&self, cx: &mut LowerCx<'_>, cols: Cols, slack: i64) -> Vec<Option<Reg>> {
        let lanes = self.sch.lanes;
        let mut out = vec![];
        for j in 0..cols.vectors(lanes) {
            out.push(match cols {
                Cols::Full(_) => None,
                Cols::First(n) => {
                    let have = n - j * lanes;
                    (have < lanes && lanes - have > slack)
                        .then(|| cx.b.first_lanes(lanes as usize, have))
                }
                Cols::Counted(_, n) => {
                    let left = cx.b.index(Affine::constant(-j * lanes).plus(n, 1));
                    Some(cx.b.first_lanes(lanes as usize, left))
                }
            });
        }
        out
    }

    /// Computes `th × tw` rows by `cols` at a position: reduced loops, epilogue, stores.
    pub fn tile(&self, cx: &mut LowerCx<'_>, pos: &Pos, th: i64, tw: i64, cols: Cols) -> Made {
        if self.sch.tiles {
            self.tile_sums(cx, pos, th, tw, cols);
            return self.epilogue(cx, pos, th, tw, cols);
        }
        let acc = match self.mac.body {
            Body::Broadcast => self.accumulate(cx, pos, th, tw, cols),
            Body::Across => self.across(cx, pos, th, tw, cols),
            _ => self.taps(cx, pos, th, tw, cols),
        };
        if self.sch.staged {
            return self.staged(cx, pos, th, tw, cols, &acc);
        }
        let masks = self.masks(cx, cols, self.slack);
        for (i, row) in acc.iter().enumerate() {
            let at = self.row(pos, i as i64 / tw, i as i64 % tw);
            for (j, &r) in row.iter().enumerate() {
                self.finish(cx, &at, j as i64, r, masks[j])?;
            }
        }
        Ok(())
    }

    /// The group's results for vector `j` of a row, stored.
    pub(super) fn finish(
        &self,
        cx: &mut LowerCx<'_>,
        at: &Pos,
        j: i64,
        acc: Reg,
        mask: Option<Reg>,
    ) -> Made {
        let mut coords = at.out.clone();
        if let Some((o, m)) = self.mac.n.out {
            let to = Coord::from(self.lane).plus(&(j * self.sch.lanes).into());
            coords[o] = coords[o].add(&to.times(&m.into()));
        }
        super::contract_mac::store_results(cx, self.mac.anchor, &coords, acc, mask)
    }

    /// The sums of a tile: `[row][vector]`.
    pub fn accumulate(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
        cols: Cols,
    ) -> Vec<Vec<Reg>> {
        let ty = self.vec_ty();
        let nv = cols.vectors(self.sch.lanes);
        let rows = self.row_addresses(cx, pos, th, tw);
        // A packed panel is padded with zeros, so only a strided operand needs masks here.
        let masks = match self.mac.panel {
            Some(_) if self.spread.is_none() => vec![None; nv as usize],
            _ => self.masks(cx, cols, 0),
        };
        let first = cx.address(self.v.base, &pos.v).0;
        let vs: Vec<(Addr, Option<Reg>)> =
            (0..nv).map(|j| (first.clone().offset(self.column(j)), masks[j as usize])).collect();
        let mut acc = vec![];
        for _ in 0..self.ways(th * tw * nv) {
            let row = |_| (0..nv).map(|_| cx.b.zero(ty)).collect();
            acc.push((0..rows.len()).map(row).collect());
        }
        let fetch = self.fetched(cx, &first, nv);
        self.reduce(cx, 0, &rows, &vs, &fetch, &acc);
        self.join(cx, acc)
    }

    /// Where the scalar operand of each of a tile's rows starts.
    pub(super) fn row_addresses(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
    ) -> Vec<Addr> {
        let at = |i| self.row(pos, i / tw, i % tw).s;
        (0..th * tw).map(|i| cx.address(self.s.base, &at(i)).0).collect()
    }

    /// Independent sums per accumulator: enough to hide the latency of a multiply-add where a tile
    /// is small and the innermost extent is known. One where nothing is unrolled: what fits always.
    fn ways(&self, accumulators: i64) -> i64 {
        let known = self.mac.k.last().and_then(|k| k.dim.as_const()).unwrap_or(0) / self.step_k();
        match accumulators {
            _ if self.sch.unroll <= 1 => 1,
            1 if known >= 64 => 8,
            2..=3 if known >= 32 => 4,
            4..=7 if known >= 16 => 2,
            _ => 1,
        }
    }

    /// Adds up the ways, pairwise.
    fn join(&self, cx: &mut LowerCx<'_>, mut acc: Vec<Vec<Vec<Reg>>>) -> Vec<Vec<Reg>> {
        while acc.len() > 1 {
            let half = acc.split_off(acc.len() / 2);
            for (a, b) in acc.iter().flatten().flatten().zip(half.iter().flatten().flatten()) {
                cx.b.bin_to(BinOp::Add, *a, *a, *b);
            }
        }
        acc.pop().unwrap_or_default()
    }

    /// Lines of the next panels that this tile fetches, at the first step of the reduced axes.
    fn fetched(&self, cx: &mut LowerCx<'_>, first: &Addr, nv: i64) -> Vec<Fetch> {
        let known = |a: &Axis| a.dim.as_const();
        let (Some(Ahead::Next { turn, turns, distance }), Some(k)) =
            (&self.ahead, self.mac.k.iter().map(known).product::<Option<i64>>())
        else {
            return vec![];
        };
        let step = nv * self.sch.lanes * self.v.dtype.size() as i64 / turns;
        let turn = cx.address(first.base, &turn.times(&(step * k).into())).0;
        let mut at = first.clone().offset(distance + turn.at.offset);
        for (var, coef) in turn.at.terms {
            at = at.plus(var, coef);
        }
        let lines = 0..div_ceil(step, LINE);
        lines.map(|i| Fetch { at: at.clone().offset(i * LINE), step }).collect()
    }

    pub(super) fn reduce(
        &self,
        cx: &mut LowerCx<'_>,
        depth: usize,
        rows: &[Addr],
        vs: &[(Addr, Option<Reg>)],
        fetch: &[Fetch],
        acc: &[Vec<Vec<Reg>>],
    ) {
        let Some(ax) = self.mac.k.get(depth) else {
            return self.products(cx, rows, vs, &acc[0]);
        };
        let last = depth + 1 == self.mac.k.len();
        let ways = if last { acc.len() as i64 } else { 1 };
        let step = if last { self.step_k() } else { 1 };
        let dim = if step == 1 { ax.dim.clone() } else { ax.dim.div(&step.into()) };
        let extent = match dim.as_const() {
            Some(n) => Scalar::Const(n / ways),
            None => cx.scalar(&dim),
        };
        let s = cx.coef(&ax.s.times(step * self.s.dtype.size() as i64));
        let v = cx.coef(&ax.v.times(step * self.v.dtype.size() as i64));
        let axis = cx.b.axis(format!("k{depth}"));
        let rows_in: Vec<Addr> = rows.iter().map(|r| r.clone().plus(axis, s.times(ways))).collect();
        let vs_in: Vec<_> =
            vs.iter().map(|(a, m)| (a.clone().plus(axis, v.times(ways)), *m)).collect();
        let inner = self.mac.k[depth + 1..].iter().map(|a| a.dim.as_const().unwrap_or(0));
        let inner: i64 = inner.product();
        let by = |f: &Fetch| f.step * inner;
        let moved = |f: &Fetch| Fetch { at: f.at.clone().plus(axis, by(f) * ways), step: f.step };
        let fetch: Vec<Fetch> = fetch.iter().map(moved).collect();
        cx.b.begin();
        if last {
            for f in &fetch {
                (0..ways).for_each(|w| cx.b.prefetch(f.at.clone().offset(w * by(f)), 1));
            }
            for (w, to) in acc.iter().enumerate() {
                self.products(cx, &shift(&rows_in, s, w as i64), &shift_v(&vs_in, v, w as i64), to);
            }
        } else {
            self.reduce(cx, depth + 1, &rows_in, &vs_in, &fetch, acc);
        }
        let body = cx.b.end();
        let unroll = self.unroll(&dim, last, ways);
        cx.b.push(Stmt::For { axis, extent, unroll, body });
        let left = dim.as_const().map_or(0, |n| n % ways);
        for w in 0..left {
            let at = likely_last(&dim, left) + w;
            self.products(cx, &shift(rows, s, at), &shift_v(vs, v, at), &acc[w as usize]);
        }
    }

    fn unroll(&self, dim: &Dim, last: bool, ways: i64) -> u32 {
        match dim.as_const() {
            Some(n) if last && n <= 4 => n as u32,
            _ if last => (self.sch.unroll / ways as u32).max(1),
            _ => 1,
        }
    }

    /// One product a row and vector.
    fn products(
        &self,
        cx: &mut LowerCx<'_>,
        rows: &[Addr],
        vs: &[(Addr, Option<Reg>)],
        acc: &[Vec<Reg>],
    ) {
        let ty = self.vec_ty();
        let (sd, vd) = (self.s.dtype, self.v.dtype);
        let fetches = rows.len() * vs.len() >= FETCHING;
        if let (Some(Ahead::Within(far)), true) = (&self.ahead, fetches) {
            // Lines, not vectors: a panel's row may be two of these.
            for (at, _) in vs.iter().step_by((PANEL / self.sch.lanes).max(1) as usize) {
                cx.b.prefetch(at.clone().offset(*far), 1);
            }
        }
        if self.mac.body == Body::Across {
            return self.across_products(cx, rows, vs, acc);
        }
        if self.mac.pairs {
            return self.pair_products(cx, rows, vs, acc);
        }
        let v: Vec<Reg> = vs.iter().map(|(at, m)| self.packed(cx, ty, at, vd, *m)).collect();
        for (at, row) in rows.iter().zip(acc) {
            let a = cx.b.load_splat(ty, at.clone(), sd);
            for (&r, &x) in row.iter().zip(&v) {
                if self.elem.is_float() {
                    cx.b.fma_acc(r, a, x);
                } else {
                    let p = cx.b.mul(a, x);
                    cx.b.bin_to(BinOp::Add, r, r, p);
                }
            }
        }
    }
}

/// Fewest accumulators of a tile whose loads leave room for fetching ahead.
const FETCHING: usize = 12;

/// Where the last `left` of a constant extent begin.
fn likely_last(dim: &Dim, left: i64) -> i64 {
    dim.as_const().unwrap_or(0) - left
}

fn shift(at: &[Addr], by: Coef, n: i64) -> Vec<Addr> {
    at.iter().map(|a| a.clone().row(n, by)).collect()
}

fn shift_v(at: &[(Addr, Option<Reg>)], by: Coef, n: i64) -> Vec<(Addr, Option<Reg>)> {
    at.iter().map(|(a, m)| (a.clone().row(n, by), *m)).collect()
}

/// What a register of this element is in scratch.
pub fn mem_dtype(e: Elem) -> Dtype {
    match e {
        Elem::F32 => Dtype::F32,
        Elem::F64 => Dtype::F64,
        Elem::I32 => Dtype::I32,
        Elem::I64 | Elem::Mask => Dtype::I64,
    }
}
