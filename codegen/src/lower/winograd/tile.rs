//! Tiles into scratch and out of it: the input transform, and the output transform with the
//! epilogue.

use super::super::contract_mac::store_results;
use super::super::coord::{Atom, AtomData, Coord};
use super::super::cx::{LowerCx, Made};
use super::filter::{Emit, PANEL};
use super::kernel::{Block, Tile, Winograd, lanes_of};
use super::tiles;
use crate::kir::{Addr, Base, BinOp, CmpOp, Coef, Cond, ParamId, Reg, RegTy, Stmt};
use hub_abi::{Dim, Dtype};

impl Winograd<'_, '_, '_> {
    /// Runs `f` twice in code: for tiles all of whose outputs exist, and for the others.
    fn where_whole(
        &self,
        cx: &mut LowerCx<'_>,
        t: &Tile,
        f: &dyn Fn(&mut LowerCx<'_>, bool) -> Made,
    ) -> Made {
        let m = self.p.filter.m;
        let mut left: Option<Reg> = None;
        for a in [0, 1] {
            let n = &self.size[a];
            let even = n.as_const().is_some_and(|k| k % m == 0);
            if even && tiles(n, m).rem(&self.p.block[a].into()).is(0) {
                continue;
            }
            let past = t.pixel[a].plus(&m.into()).times(&(-1i64).into()).plus(n);
            let past = cx.index_reg(&past, RegTy::INDEX)?;
            left = Some(left.map_or(past, |l| cx.b.min(l, past)));
        }
        let Some(left) = left else { return f(cx, true) };
        let whole = Cond { op: CmpOp::Ge, a: left.into(), b: 0.into() };
        cx.if_else(whole, |cx| f(cx, true), |cx| f(cx, false))
    }

    /// Scratch address of a tile's vector `v` (a coordinate) of a plane.
    fn row(&self, cx: &mut LowerCx<'_>, base: i64, t: &Tile, pitch: i64, v: &Coord) -> Addr {
        let tile = t.at[0].times(&self.p.block[1].into()).add(&t.at[1]).times(&(pitch * 4).into());
        let lane = v.times(&(lanes_of(self.ty) * 4).into());
        cx.address(Base::Scratch, &tile.add(&lane).plus(&base.into())).0
    }

    /// Bytes of a vector.
    pub(super) fn vector(&self) -> i64 {
        lanes_of(self.ty) * 4
    }

    fn emit<'b>(&self, cx: &'b mut LowerCx<'_>) -> Emit<'b> {
        Emit { b: &mut cx.b, m: self.p.filter.m, ty: self.ty }
    }

    /// `Bᵀ d B` of a tile, a chunk of channels, into the planes of transformed inputs.
    pub(super) fn transform(
        &self,
        cx: &mut LowerCx<'_>,
        block: &Block,
        t: &Tile,
        (ptr, start): &(ParamId, Dim),
        first: &Coord,
    ) -> Made {
        let x = &self.c.task.inputs[self.c.x];
        let lanes = lanes_of(self.ty);
        let vectors = (self.p.depth + lanes - 1) / lanes;
        let size = x.dtype.size() as i64;
        let origin = block.image.times(&x.strides[0].times(size));
        let down = t.pixel[0].times(&x.strides[2].times(size));
        let across = t.pixel[1].times(&x.strides[3].times(size));
        let origin = origin.add(&down).add(&across).plus(start).add(&first.times(&size.into()));
        self.where_whole(cx, t, &|cx, whole| {
            cx.for_("c", vectors, 0, |cx, c| {
                let c = Coord::from(cx.atom(AtomData::var(c, vectors.into())));
                let at = origin.add(&c.times(&(lanes * size).into()));
                let from = cx.address(Base::Param(*ptr), &at).0;
                let steps = [2, 3].map(|a| x.strides[a].times(size));
                let steps = steps.map(|s| cx.coef(&s));
                self.columns(cx, t, &from, steps, whole)?;
                let to = self.row(cx, self.inputs, t, self.p.pitch(), &c);
                self.rows(cx, &to);
                Ok(())
            })
        })
    }

    /// Mask of all lanes where `at` is below `n`, of none elsewhere.
    fn inside(&self, cx: &mut LowerCx<'_>, at: &Coord, n: &Dim) -> Made<Reg> {
        let lanes = lanes_of(self.ty);
        let left = at.times(&(-1i64).into()).plus(n).times(&lanes.into());
        let left = cx.index_reg(&left, RegTy::INDEX)?;
        Ok(cx.b.first_lanes(lanes as usize, left))
    }

    /// `Bᵀ d`, a column of the tile at a time, into the tile in scratch. What lies past the padded
    /// image reads as zero.
    fn columns(
        &self,
        cx: &mut LowerCx<'_>,
        t: &Tile,
        from: &Addr,
        [down, across]: [Coef; 2],
        whole: bool,
    ) -> Made {
        let side = self.p.filter.side();
        let bounds = [0, 1].map(|a| self.size[a].plus(2));
        let dtype = self.c.task.inputs[self.c.x].dtype;
        cx.for_("j", side, 0, |cx, j| {
            let column = Coord::from(cx.atom(AtomData::var(j, side.into())));
            let mut d = vec![];
            for i in 0..side {
                let mask = if whole {
                    None
                } else {
                    let row = self.inside(cx, &t.pixel[0].plus(&i.into()), &bounds[0])?;
                    let col = self.inside(cx, &t.pixel[1].add(&column), &bounds[1])?;
                    Some(cx.b.bin(BinOp::And, row, col))
                };
                let at = from.clone().row(i, down).plus(j, across);
                d.push(cx.b.load(self.ty, at, dtype, mask));
            }
            let v = self.emit(cx).input(&d);
            for (i, r) in v.into_iter().enumerate() {
                let at = self.tile + i as i64 * side * self.vector();
                let to = Addr::scratch().offset(at).plus(j, self.vector());
                cx.b.store(r, to, Dtype::F32, None);
            }
            Ok(())
        })
    }

    /// `(Bᵀ d) B`, a row of the tile in scratch at a time, each result into its point's plane.
    fn rows(&self, cx: &mut LowerCx<'_>, to: &Addr) {
        let side = self.p.filter.side();
        let axis = cx.b.axis("i");
        cx.b.begin();
        let d: Vec<Reg> = (0..side)
            .map(|j| {
                let at = self.tile + j * self.vector();
                let at = Addr::scratch().offset(at).plus(axis, side * self.vector());
                cx.b.load(self.ty, at, Dtype::F32, None)
            })
            .collect();
        let v = self.emit(cx).input(&d);
        for (j, r) in v.into_iter().enumerate() {
            let at = to.clone().offset(j as i64 * self.p.plane());
            cx.b.store(r, at.plus(axis, side * self.p.plane()), Dtype::F32, None);
        }
        let body = cx.b.end();
        cx.b.push(Stmt::For { axis, extent: side.into(), unroll: 0, body });
    }

    /// `Aᵀ y A` of a tile, all features of the block, through the epilogue.
    pub(super) fn give_back(&self, cx: &mut LowerCx<'_>, block: &Block, t: &Tile) -> Made {
        let vectors = self.p.features / lanes_of(self.ty);
        self.where_whole(cx, t, &|cx, whole| {
            cx.for_("n", vectors, 0, |cx, n| {
                let n = Coord::from(cx.atom(AtomData::var(n, vectors.into())));
                let from = self.row(cx, self.products, t, self.p.out_pitch(), &n);
                self.back_columns(cx, &from);
                let first = block.feature.add(&n.times(&lanes_of(self.ty).into()));
                let mask = self.features(cx, &first)?;
                self.back_rows(cx, block, t, &first, mask, whole)
            })
        })
    }

    /// Mask of the features that exist, where panels of 16 hold more: vectors may lack some or all.
    fn features(&self, cx: &mut LowerCx<'_>, first: &Coord) -> Made<Option<Reg>> {
        let (n, lanes) = (self.p.filter.n, lanes_of(self.ty));
        if n % PANEL as i64 == 0 {
            return Ok(None);
        }
        let left = first.times(&(-1i64).into()).plus(&n.into());
        let left = cx.index_reg(&left, RegTy::INDEX)?;
        Ok(Some(cx.b.first_lanes(lanes as usize, left)))
    }

    fn back_columns(&self, cx: &mut LowerCx<'_>, from: &Addr) {
        let (side, plane) = (self.p.filter.side(), self.p.out_plane());
        let axis = cx.b.axis("j");
        cx.b.begin();
        let y: Vec<Reg> = (0..side)
            .map(|i| {
                let at = from.clone().offset(i * side * plane).plus(axis, plane);
                cx.b.load(self.ty, at, Dtype::F32, None)
            })
            .collect();
        let v = self.emit(cx).output(&y);
        for (i, r) in v.into_iter().enumerate() {
            let at = self.tile + i as i64 * side * self.vector();
            cx.b.store(r, Addr::scratch().offset(at).plus(axis, self.vector()), Dtype::F32, None);
        }
        let body = cx.b.end();
        cx.b.push(Stmt::For { axis, extent: side.into(), unroll: 0, body });
    }

    fn back_rows(
        &self,
        cx: &mut LowerCx<'_>,
        block: &Block,
        t: &Tile,
        first: &Coord,
        mask: Option<Reg>,
        whole: bool,
    ) -> Made {
        let (side, m) = (self.p.filter.side(), self.p.filter.m);
        let lane = AtomData::konst(0i64, self.p.filter.n.into()).along_lanes();
        let lane = cx.atom(lane);
        cx.for_("i", m, 0, |cx, axis| {
            let i: Atom = cx.atom(AtomData::var(axis, m.into()));
            let row = t.pixel[0].add(&i.into());
            let place = |j: &Coord| {
                let column = t.pixel[1].add(j);
                vec![block.image.clone(), first.add(&lane.into()), row.clone(), column]
            };
            let y: Vec<Reg> = (0..side)
                .map(|j| {
                    let at = Addr::scratch().offset(self.tile + j * self.vector());
                    cx.b.load(self.ty, at.plus(axis, side * self.vector()), Dtype::F32, None)
                })
                .collect();
            let v = self.emit(cx).output(&y);
            if !self.p.staged {
                return self.where_row(cx, &row, whole, &mut |cx| {
                    for (j, &r) in v.iter().enumerate() {
                        let j = Coord::from(j as i64);
                        self.pixel(cx, &t.pixel[1].add(&j), whole, &place(&j), r, mask)?;
                    }
                    Ok(())
                });
            }
            for (j, &r) in v.iter().enumerate() {
                let at = Addr::scratch().offset(self.tile + j as i64 * self.vector());
                cx.b.store(r, at.plus(axis, side * self.vector()), Dtype::F32, None);
            }
            self.where_row(cx, &row, whole, &mut |cx| {
                cx.for_("e", m, 0, |cx, e| {
                    let j = Coord::from(cx.atom(AtomData::var(e, m.into())));
                    let at = Addr::scratch().offset(self.tile).plus(e, self.vector());
                    let at = at.plus(axis, side * self.vector());
                    let r = cx.b.load(self.ty, at, Dtype::F32, None);
                    self.pixel(cx, &t.pixel[1].add(&j), whole, &place(&j), r, mask)
                })
            })
        })
    }

    /// Runs `f` if the row exists.
    fn where_row(
        &self,
        cx: &mut LowerCx<'_>,
        row: &Coord,
        whole: bool,
        f: &mut dyn FnMut(&mut LowerCx<'_>) -> Made,
    ) -> Made {
        if whole {
            return f(cx);
        }
        let (a, b) = (cx.index_reg(row, RegTy::INDEX)?, cx.scalar(&self.size[0]));
        cx.if_(Cond { op: CmpOp::Lt, a: a.into(), b }, f)
    }

    /// One pixel through the epilogue, if it exists.
    fn pixel(
        &self,
        cx: &mut LowerCx<'_>,
        column: &Coord,
        whole: bool,
        coords: &[Coord],
        y: Reg,
        mask: Option<Reg>,
    ) -> Made {
        let out = self.c.out;
        if whole {
            return store_results(cx, out, coords, y, mask);
        }
        let (a, b) = (cx.index_reg(column, RegTy::INDEX)?, cx.scalar(&self.size[1]));
        let there = Cond { op: CmpOp::Lt, a: a.into(), b };
        cx.if_(there, |cx| store_results(cx, out, coords, y, mask))
    }
}
