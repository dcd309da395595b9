//! The kernel around a multiply-accumulate tile: grid axes, blocks of rows, and which code runs
//! where a tile is not whole.

use super::contract_mac::{Axis, Body, Mac, PANEL, elem_for, spare};
use super::contract_tile::{Ahead, Cols, Pos, Side, Tiler};
use super::coord::{AtomData, Coord};
use super::cx::{LowerCx, Made};
use super::schedule::Schedule;
use crate::kir::{Base, BinOp, CmpOp, Cond, RegTy, Scalar};
use crate::target::Target;
use crate::task::{Format, Lowered, Task, Which};
use hub_abi::Dim;

/// The kernel of one schedule.
pub fn lower(task: &Task<'_>, target: &Target, mac: &Mac, sch: Schedule) -> Made<Lowered> {
    let (elem, problem) = (elem_for(task, mac.anchor)?, mac);
    let lanes = sch.lanes as usize;
    let mut cx = LowerCx::new(task, target, mac.name, lanes);
    let one = Axis { dim: 1i64.into(), s: 0i64.into(), v: 0i64.into(), out: None };
    let inner = mac.rows.last().cloned().unwrap_or(one.clone());
    let outer = if mac.rows.len() > 1 { mac.rows[0].clone() } else { one };
    let (s, s_at) = scalar_side(&mut cx, mac);
    let (v, v_at) = vector_side(&mut cx, mac, (s, s_at.clone()));
    let lane = AtomData::konst(0i64, mac.n.dim.clone()).along_lanes();
    let lane = cx.atom(lane);
    let staged = sch.staged_bytes(elem.size() as i64) * sch.team;
    let scratch = if sch.staged { cx.b.scratch(staged as u64) } else { 0 };
    // Past the features of a group lie those of the next.
    let dims = task.g.dims(mac.anchor);
    let whole = mac.n.out.is_some_and(|(o, _)| dims[o] == mac.n.dim);
    let slack = if whole { spare(task, mac) } else { 0 };
    let rank = dims.len();
    let mut pos = Pos { s: s_at, v: v_at, out: vec![Coord::zero(); rank] };
    let ahead = ahead(&cx, mac, sch);
    let rows = [outer, inner];
    let (part, member) = super::team::part(&mut cx, mac, sch.team);
    let mac = part.as_ref().unwrap_or(mac);
    let mut t =
        Tiler { mac, sch, elem, s, v, rows, scratch, lane, slack, ahead, spread: None, member };
    t.spread(&mut cx);
    pos = t.member_pos(&mut cx, pos);
    let tiles = t.kernel(&mut cx, pos)?;
    let work = problem.work(task, tiles);
    Ok(cx.finish(work, format!("{} {sch}", mac.name)))
}

/// How far ahead a packed operand is fetched: where the first level does not hold it (from the layer
/// before nothing of it is near), as many steps as outlast the memory's latency. The hardware's own fetching ends at every page.
fn ahead(cx: &LowerCx<'_>, mac: &Mac, sch: Schedule) -> Option<Ahead> {
    const CYCLES: i64 = 600;
    let o = &cx.task.inputs[mac.vector.filter(|_| mac.body == Body::Broadcast)?];
    let Format::Packed(p) = &o.format else { return None };
    let bytes = (p.n * p.k) as i64 * o.dtype.size() as i64;
    let row = PANEL * p.v as i64 * o.dtype.size() as i64;
    let steps = CYCLES / (sch.th * sch.tw * sch.nv / 2).max(4);
    (bytes > cx.target.l1 as i64).then_some(Ahead::Within(steps * row))
}

/// Pointer to the lowest address read, and where the first product's element is from there.
pub(super) fn scalar_side(cx: &mut LowerCx<'_>, mac: &Mac) -> (Side, Coord) {
    let dtype = cx.task.inputs[mac.scalar].dtype;
    let size = dtype.size() as i64;
    let (lo, extent) = mac.scalar_span(size);
    let ptr = cx.ptr_range(Which::In(mac.scalar), lo.clone(), extent);
    (Side { base: Base::Param(ptr), dtype }, Coord::from(mac.start.times(size).sub(&lo)))
}

pub(super) fn vector_side(cx: &mut LowerCx<'_>, mac: &Mac, scalar: (Side, Coord)) -> (Side, Coord) {
    let Some(input) = mac.vector else { return scalar };
    let of = Which::In(input);
    let o = &cx.task.inputs[input];
    let dtype = o.dtype;
    if let Format::Packed(p) = &o.format {
        let panels = p.n.div_ceil(p.block) * p.block * p.k.div_ceil(p.v) * p.v;
        let bytes = (p.outer * panels) as i64 * dtype.size() as i64;
        let ptr = cx.ptr_range(of, 0i64.into(), bytes.into());
        return (Side { base: Base::Param(ptr), dtype }, Coord::zero());
    }
    let (ptr, origin) = cx.ptr(of);
    (Side { base: Base::Param(ptr), dtype }, Coord::from(origin))
}

/// A tile along an axis: its number and its first element.
struct Index {
    tile: Coord,
    first: Coord,
}

/// A tile's numbers: rows (outer, inner) and features.
struct Indices {
    rows: [Index; 2],
    n: Index,
}

pub(super) fn index_reg(cx: &mut LowerCx<'_>, c: &Coord) -> Made<Scalar> {
    Ok(cx.index_reg(c, RegTy::INDEX)?.into())
}

impl Tiler<'_> {
    /// Grid and body; gives the number of tiles.
    fn kernel(&mut self, cx: &mut LowerCx<'_>, mut pos: Pos) -> Made<Dim> {
        let mut tiles = Dim::from(1i64);
        let mut grid = |cx: &mut LowerCx<'_>, name: &str, extent: &Dim| {
            tiles = tiles.mul(extent);
            if extent.is(1) {
                return Coord::zero();
            }
            let axis = cx.grid(name, extent);
            cx.atom(AtomData::var(axis, extent.clone())).into()
        };
        for (i, ax) in self.mac.batch.iter().enumerate() {
            let at = grid(cx, &format!("b{i}"), &ax.dim);
            pos = self.step(&pos, ax, &at);
        }
        let index = |tile: Coord, t: i64| Index { first: tile.times(&t.into()), tile };
        let (th, tw, nr) = (self.sch.th, self.sch.tw, self.sch.nv * self.sch.lanes);
        let counts = [ceil(&self.rows[0].dim, th), ceil(&self.rows[1].dim, tw)];
        let n_tiles = ceil(&self.mac.n.dim, nr);
        let outer_blocked = !counts[0].is(1);
        let (count, t) = if outer_blocked { (&counts[0], th) } else { (&counts[1], tw) };
        let block = Dim::from(self.sch.block);
        let whole = self.sch.block == 0 || count.as_const().is_some_and(|c| c <= self.sch.block);
        let (n, blocked);
        if whole {
            n = grid(cx, "n", &n_tiles);
            blocked = grid(cx, "r", count);
        } else {
            let b = grid(cx, "rb", &count.div_ceil(&block));
            n = grid(cx, "n", &n_tiles);
            blocked = b.times(&block).add(&grid(cx, "r", &block));
        }
        let rows = if outer_blocked {
            let w = grid(cx, "w", &counts[1]);
            [index(blocked.clone(), t), index(w, tw)]
        } else {
            [index(Coord::zero(), 1), index(blocked.clone(), t)]
        };
        let at = Indices { rows, n: index(n, nr) };
        if let (true, Some(turns)) = (whole, self.turns(&counts, &n_tiles)) {
            let wide = at.rows[1].tile.clone();
            let turn = match outer_blocked {
                true => blocked.times(&counts[1]).add(&wide),
                false => wide,
            };
            let distance = self.column(self.sch.nv);
            self.ahead = Some(Ahead::Next { turn, turns, distance });
        }
        if whole || count.rem(&block).is(0) {
            self.outer_rows(cx, &pos, &at)?;
        } else {
            let (tile, bound) = (index_reg(cx, &blocked)?, cx.scalar(count));
            let body = |cx: &mut LowerCx<'_>| self.outer_rows(cx, &pos, &at);
            cx.if_else(cond(CmpOp::Lt, tile, bound), body, |_| Ok(()))?;
        }
        Ok(tiles)
    }

    /// Tiles that read one panel after another, where they are few enough, and panels many enough,
    /// for them to fetch the next panel together.
    fn turns(&self, counts: &[Dim; 2], panels: &Dim) -> Option<i64> {
        let turns = counts[0].as_const()? * counts[1].as_const()?;
        let rows = self.sch.th * self.sch.tw;
        let few = turns <= 8 && rows > 4 && panels.as_const()? >= 4;
        (few && self.mac.panel.is_some() && self.ahead.is_some()).then_some(turns)
    }

    fn outer_rows(&self, cx: &mut LowerCx<'_>, pos: &Pos, at: &Indices) -> Made {
        self.along(cx, 0, pos, at, &|cx, pos, th| {
            self.along(cx, 1, pos, at, &|cx, pos, tw| self.columns(cx, pos, at, th, tw))
        })
    }

    /// Runs `f` for the rows of this tile along a row axis: once where the tile is whole or its
    /// tail is a constant; where sizes are bound later, a tail goes by fours and ones.
    fn along(
        &self,
        cx: &mut LowerCx<'_>,
        axis: usize,
        pos: &Pos,
        at: &Indices,
        f: &dyn Fn(&mut LowerCx<'_>, &Pos, i64) -> Made,
    ) -> Made {
        let ax = &self.rows[axis];
        let t = if axis == 0 { self.sch.th } else { self.sch.tw };
        let pos = &self.step(pos, ax, &at.rows[axis].first);
        let tile = &at.rows[axis].tile;
        if let Some(n) = ax.dim.as_const() {
            if n % t == 0 {
                return f(cx, pos, t);
            }
            if n < t {
                return f(cx, pos, n);
            }
            let tile = index_reg(cx, tile)?;
            return cx.if_else(
                cond(CmpOp::Lt, tile, (n / t).into()),
                |cx| f(cx, pos, t),
                |cx| f(cx, pos, n % t),
            );
        }
        if t == 1 {
            return f(cx, pos, 1);
        }
        let left = at.rows[axis].first.times(&(-1i64).into()).plus(&ax.dim);
        let left = cx.index_reg(&left, RegTy::INDEX)?;
        cx.if_else(
            cond(CmpOp::Ge, left.into(), t.into()),
            |cx| f(cx, pos, t),
            |cx| {
                let mut first = Coord::zero();
                let mut ones = left;
                if t > 4 {
                    let (two, three) =
                        (cx.b.const_i(RegTy::INDEX, 2), cx.b.const_i(RegTy::INDEX, 3));
                    let fours = cx.b.bin(BinOp::UShr, left, two);
                    ones = cx.b.bin(BinOp::And, left, three);
                    cx.for_("m4", fours, 0, |cx, i| {
                        let i = cx.atom(AtomData::var(i, ax.dim.clone()));
                        f(cx, &self.step(pos, ax, &Coord::from(i).times(&4i64.into())), 4)
                    })?;
                    first = cx.atom(AtomData::var(fours, ax.dim.clone())).into();
                    first = first.times(&4i64.into());
                }
                let pos = &self.step(pos, ax, &first);
                cx.for_("m1", ones, 0, |cx, i| {
                    let i = cx.atom(AtomData::var(i, ax.dim.clone()));
                    f(cx, &self.step(pos, ax, &i.into()), 1)
                })
            },
        )
    }

    /// The tile's features: all, a constant tail, or as many as are left.
    fn columns(&self, cx: &mut LowerCx<'_>, pos: &Pos, at: &Indices, th: i64, tw: i64) -> Made {
        let nr = self.sch.nv * self.sch.lanes;
        let pos = &self.step(pos, &self.mac.n, &at.n.first);
        let full = |cx: &mut LowerCx<'_>| self.tile(cx, pos, th, tw, Cols::Full(self.sch.nv));
        if let Some(n) = self.mac.n.dim.as_const() {
            let part = |cx: &mut LowerCx<'_>| self.tile(cx, pos, th, tw, Cols::First(n % nr));
            if n % nr == 0 {
                return full(cx);
            }
            if n < nr {
                return part(cx);
            }
            let tile = index_reg(cx, &at.n.tile)?;
            return cx.if_else(cond(CmpOp::Lt, tile, (n / nr).into()), full, part);
        }
        let left = at.n.first.times(&(-1i64).into()).plus(&self.mac.n.dim);
        let left = cx.index_reg(&left, RegTy::INDEX)?;
        let part =
            |cx: &mut LowerCx<'_>| self.tile(cx, pos, th, tw, Cols::Counted(self.sch.nv, left));
        cx.if_else(cond(CmpOp::Ge, left.into(), nr.into()), full, part)
    }
}

pub(super) fn cond(op: CmpOp, a: Scalar, b: Scalar) -> Cond {
    Cond { op, a, b }
}

fn ceil(d: &Dim, t: i64) -> Dim {
    d.div_ceil(&t.into())
}
