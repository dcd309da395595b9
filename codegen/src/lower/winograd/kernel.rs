//! The kernel of one plan: transform a block of tiles into scratch, multiply, transform back.

use super::super::contract_mac::store_results;
use super::super::conv::{Conv, first_window};
use super::super::coord::{Atom, AtomData, Coord};
use super::super::cx::{LowerCx, Made, Work};
use super::filter::Emit;
use super::schedule::Plan;
use super::tiles;
use crate::kir::{Addr, Base, CmpOp, Coef, Cond, Elem, ParamId, Reg, RegTy, Stmt};
use crate::target::Target;
use crate::task::{Lowered, Which};
use hub_abi::{Dim, Dtype};

/// What the three parts share.
struct Winograd<'c, 't, 'g> {
    c: &'c Conv<'t, 'g>,
    p: Plan,
    ty: RegTy,
    /// Output sizes.
    size: [Dim; 2],
    /// Scratch: the tile at hand, transformed inputs, products.
    tile: i64,
    inputs: i64,
    products: i64,
}

/// Where a block lies.
struct Block {
    image: Coord,
    /// First feature.
    feature: Coord,
    /// First tile, down and across.
    tile: [Coord; 2],
}

/// What a register tile of products reads and writes: scratch addresses of the block's first tile,
/// the filters, and whether nothing is there to be added to.
struct Products {
    a: Coord,
    w: Addr,
    to: Coord,
    first: bool,
}

/// A tile of a block: its number in the block along both axes, its first output pixel.
struct Tile {
    at: [Coord; 2],
    pixel: [Coord; 2],
}

/// The kernel.
pub fn lower(c: &Conv<'_, '_>, target: &Target, p: Plan, lanes: usize) -> Made<Lowered> {
    let mut cx = LowerCx::new(c.task, target, "winograd", lanes);
    let ty = RegTy::new(Elem::F32, lanes);
    let side = p.filter.side();
    let tile = cx.b.scratch((side * side * lanes as i64 * 4) as u64);
    let inputs = cx.b.scratch((p.filter.points() * p.plane()) as u64);
    let products = cx.b.scratch((p.filter.points() * p.out_plane()) as u64);
    let dims = c.task.g.dims(c.out);
    let size = [dims[2].clone(), dims[3].clone()];
    let w = Winograd { c, p, ty, size, tile, inputs, products };
    let count = w.kernel(&mut cx)?;
    let work = w.work(count);
    let m = p.filter.m;
    let text = format!(
        "winograd {m}x{m} block {}x{}x{} depth {} tile {}x{}{}",
        p.block[0],
        p.block[1],
        p.features,
        p.depth,
        p.rows,
        p.nv * lanes as i64,
        if p.staged { " staged" } else { "" }
    );
    Ok(cx.finish(work, text))
}

fn lanes_of(ty: RegTy) -> i64 {
    ty.lanes as i64
}

impl Winograd<'_, '_, '_> {
    fn kernel(&self, cx: &mut LowerCx<'_>) -> Made<Dim> {
        let dims = self.c.task.g.dims(self.c.out);
        let (m, p) = (self.p.filter.m, &self.p);
        let parts = Dim::from(p.parts());
        let counts = [0, 1].map(|a| tiles(&tiles(&self.size[a], m), p.block[a]));
        let mut total = Dim::from(1i64);
        let mut grid = |cx: &mut LowerCx<'_>, name: &str, extent: &Dim| {
            total = total.mul(extent);
            if extent.is(1) {
                return Coord::zero();
            }
            let axis = cx.grid(name, extent);
            Coord::from(cx.atom(AtomData::var(axis, extent.clone())))
        };
        let feature = grid(cx, "n", &parts).times(&p.features.into());
        let image = grid(cx, "b", &dims[0]);
        let down = grid(cx, "h", &counts[0]).times(&p.block[0].into());
        let across = grid(cx, "w", &counts[1]).times(&p.block[1].into());
        let block = Block { image, feature, tile: [down, across] };
        let x = self.source(cx);
        let w = &self.filters(cx);
        self.chunk(cx, &block, &x, w, &Coord::zero(), true)?;
        if p.chunks() > 1 {
            let more = p.chunks() - 1;
            cx.for_("d", more, 0, |cx, d| {
                let d = Coord::from(cx.atom(AtomData::var(d, more.into()))).plus(&1i64.into());
                self.chunk(cx, &block, &x, w, &d.times(&p.depth.into()), false)
            })?;
        }
        self.each_tile(cx, &block, |cx, t| self.give_back(cx, &block, t))?;
        Ok(total)
    }

    fn work(&self, tiles: Dim) -> Work {
        let task = self.c.task;
        let w = &task.inputs[self.c.w];
        let sums = Dim::product(task.g.dims(self.c.out)).mul(&Dim::product(&w.dims[1..]));
        let bytes = task.inputs.iter().chain(&task.outputs).map(|o| {
            let size = o.dtype.size() as i64;
            Dim::product(&o.dims).times(size)
        });
        let bytes = bytes.fold(Dim::from(0i64), |a, b| a.add(&b));
        Work { tiles, flops: sums.times(2), bytes }
    }

    /// The channels from `from` on: transformed and multiplied, the products put or (after the
    /// first) added.
    fn chunk(
        &self,
        cx: &mut LowerCx<'_>,
        block: &Block,
        x: &(ParamId, Dim),
        w: &ParamId,
        from: &Coord,
        first: bool,
    ) -> Made {
        self.each_tile(cx, block, |cx, t| self.transform(cx, block, t, x, from))?;
        self.multiply(cx, block, *w, from, first)
    }

    fn filters(&self, cx: &mut LowerCx<'_>) -> ParamId {
        let bytes = self.p.filter.bytes();
        cx.ptr_range(Which::In(self.c.w), 0i64.into(), bytes.into())
    }

    /// Pointer to the lowest address read and the bytes from there to the first window.
    fn source(&self, cx: &mut LowerCx<'_>) -> (ParamId, Dim) {
        let x = &self.c.task.inputs[self.c.x];
        let dims = self.c.task.g.dims(self.c.out);
        let lanes = lanes_of(self.ty);
        let channels = (self.p.filter.c + lanes - 1) / lanes * lanes;
        let start = first_window(x, self.c.geo);
        let mut reach = dims[0].plus(-1).mul(&x.strides[0]).plus(channels);
        for a in [2, 3] {
            reach = reach.add(&dims[a].plus(1).mul(&x.strides[a]));
        }
        (cx.ptr_range(Which::In(self.c.x), start.times(4), reach.times(4)), 0i64.into())
    }

    /// Runs `f` for every tile of the block.
    fn each_tile(
        &self,
        cx: &mut LowerCx<'_>,
        block: &Block,
        mut f: impl FnMut(&mut LowerCx<'_>, &Tile) -> Made,
    ) -> Made {
        let [bh, bw] = self.p.block;
        let m = self.p.filter.m;
        cx.for_("th", bh, 0, |cx, h| {
            let h = Coord::from(cx.atom(AtomData::var(h, bh.into())));
            cx.for_("tw", bw, 0, |cx, w| {
                let w = Coord::from(cx.atom(AtomData::var(w, bw.into())));
                let at = [h, w];
                let pixel = [0, 1].map(|a| block.tile[a].add(&at[a]).times(&m.into()));
                f(cx, &Tile { at, pixel })
            })
        })
    }

    /// Runs `whole` where all of a tile's outputs exist, else `part`.
    fn where_whole(
        &self,
        cx: &mut LowerCx<'_>,
        t: &Tile,
        whole: &mut dyn FnMut(&mut LowerCx<'_>, bool) -> Made,
    ) -> Made {
        let m = self.p.filter.m;
        let mut cut = vec![];
        for a in [0, 1] {
            let n = &self.size[a];
            let tiled = tiles(n, m);
            let even = n.as_const().is_some_and(|k| k % m == 0);
            if !even || !tiled.rem(&self.p.block[a].into()).is(0) {
                cut.push(a);
            }
        }
        let Some((&a, rest)) = cut.split_first() else { return whole(cx, true) };
        let last = |cx: &mut LowerCx<'_>, a: usize| -> Made<Cond> {
            let end = cx.index_reg(&t.pixel[a].plus(&m.into()), RegTy::INDEX)?;
            let bound = cx.scalar(&self.size[a]);
            Ok(Cond { op: CmpOp::Le, a: end.into(), b: bound })
        };
        let first = last(cx, a)?;
        let second = rest.first().map(|&b| last(cx, b)).transpose()?;
        // Branches are made once each: `part` twice where both axes are cut, so one mask serves.
        let mut ok = cx.b.const_i(RegTy::INDEX, 0);
        let flag = cx.b.copy(ok);
        let inner = |cx: &mut LowerCx<'_>| {
            ok = cx.b.const_i(RegTy::INDEX, 1);
            cx.b.copy_to(flag, ok);
            Ok(())
        };
        match second {
            None => cx.if_(first, inner)?,
            Some(second) => cx.if_(first, |cx| cx.if_(second, inner))?,
        }
        let taken = Cond { op: CmpOp::Ne, a: flag.into(), b: 0.into() };
        let both = std::cell::RefCell::new(whole);
        cx.if_else(taken, |cx| (both.borrow_mut())(cx, true), |cx| (both.borrow_mut())(cx, false))
    }

    /// Scratch address of a tile's vector `v` (a coordinate) of a plane.
    fn row(&self, cx: &mut LowerCx<'_>, base: i64, t: &Tile, pitch: i64, v: &Coord) -> Addr {
        let tile = t.at[0].times(&self.p.block[1].into()).add(&t.at[1]).times(&(pitch * 4).into());
        let lane = v.times(&(lanes_of(self.ty) * 4).into());
        cx.address(Base::Scratch, &tile.add(&lane).plus(&base.into())).0
    }

    /// Bytes of a vector.
    fn vector(&self) -> i64 {
        lanes_of(self.ty) * 4
    }

    fn emit<'b>(&self, cx: &'b mut LowerCx<'_>) -> Emit<'b> {
        Emit { b: &mut cx.b, m: self.p.filter.m, ty: self.ty }
    }

    /// `Bᵀ d B` of a tile, a chunk of channels, into the planes of transformed inputs.
    fn transform(
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
        let origin = block.image.times(&x.strides[0].times(4));
        let down = t.pixel[0].times(&x.strides[2].times(4));
        let across = t.pixel[1].times(&x.strides[3].times(4));
        let origin = origin.add(&down).add(&across).plus(start).add(&first.times(&4i64.into()));
        self.where_whole(cx, t, &mut |cx, whole| {
            cx.for_("c", vectors, 0, |cx, c| {
                let c = Coord::from(cx.atom(AtomData::var(c, vectors.into())));
                let at = origin.add(&c.times(&self.vector().into()));
                let from = cx.address(Base::Param(*ptr), &at).0;
                let steps = [2, 3].map(|a| x.strides[a].times(4));
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
        cx.for_("j", side, 0, |cx, j| {
            let column = Coord::from(cx.atom(AtomData::var(j, side.into())));
            let mut d = vec![];
            for i in 0..side {
                let mask = if whole {
                    None
                } else {
                    let row = self.inside(cx, &t.pixel[0].plus(&i.into()), &bounds[0])?;
                    let col = self.inside(cx, &t.pixel[1].add(&column), &bounds[1])?;
                    Some(cx.b.bin(crate::kir::BinOp::And, row, col))
                };
                let at = from.clone().row(i, down).plus(j, across);
                d.push(cx.b.load(self.ty, at, Dtype::F32, mask));
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

    /// The products of all points: `[tiles × channels] · [channels × features]` each.
    fn multiply(
        &self,
        cx: &mut LowerCx<'_>,
        block: &Block,
        filters: ParamId,
        from: &Coord,
        first: bool,
    ) -> Made {
        let (p, f) = (&self.p, &self.p.filter);
        let wide = p.nv * lanes_of(self.ty);
        let turns = p.features / wide;
        // A panel of 16 features holds 16 elements a channel.
        let panel = |feature: &Coord| feature.times(&(f.c * 4).into());
        cx.for_("p", f.points(), 0, |cx, point| {
            let at = Coord::from(cx.atom(AtomData::var(point, f.points().into())));
            let w = at.times(&(f.plane() * 4).into()).add(&panel(&block.feature));
            let w = w.add(&from.times(&64i64.into()));
            cx.for_("n", turns, 0, |cx, n| {
                let n = Coord::from(cx.atom(AtomData::var(n, turns.into())));
                let w = w.add(&panel(&n.times(&wide.into())));
                let w = cx.address(Base::Param(filters), &w).0;
                let a = at.times(&p.plane().into()).plus(&self.inputs.into());
                let to = at.times(&p.out_plane().into()).plus(&self.products.into());
                let to = to.add(&n.times(&(wide * 4).into()));
                let io = Products { a, w, to, first };
                let (whole, left) = (p.tiles() / p.rows, p.tiles() % p.rows);
                // The first rows also fetch the filters of the next turn.
                let next = wide * f.c * 4;
                self.products(cx, &io, &Coord::zero(), p.rows, Some(next));
                if whole > 1 {
                    cx.for_("t", whole - 1, 0, |cx, t| {
                        let t = Coord::from(cx.atom(AtomData::var(t, (whole - 1).into())));
                        let t = t.plus(&1i64.into()).times(&p.rows.into());
                        self.products(cx, &io, &t, p.rows, None);
                        Ok(())
                    })?;
                }
                if left > 0 {
                    self.products(cx, &io, &(whole * p.rows).into(), left, None);
                }
                Ok(())
            })
        })
    }

    /// One register tile: `rows` tiles from tile `t` on. `ahead` bytes from the filters that it reads
    /// lie those to be fetched meanwhile.
    fn products(
        &self,
        cx: &mut LowerCx<'_>,
        io: &Products,
        t: &Coord,
        rows: i64,
        ahead: Option<i64>,
    ) {
        let (p, ty, lanes) = (&self.p, self.ty, lanes_of(self.ty));
        let (pitch, out_pitch) = (p.pitch() * 4, p.out_pitch() * 4);
        let w = &io.w;
        let a = cx.address(Base::Scratch, &io.a.add(&t.times(&pitch.into()))).0;
        let to = cx.address(Base::Scratch, &io.to.add(&t.times(&out_pitch.into()))).0;
        let place = |i: i64, j: i64| to.clone().offset(i * out_pitch + j * self.vector());
        let start = |cx: &mut LowerCx<'_>, i, j| match io.first {
            true => cx.b.zero(ty),
            false => cx.b.load(ty, place(i, j), Dtype::F32, None),
        };
        let acc: Vec<Vec<Reg>> =
            (0..rows).map(|i| (0..p.nv).map(|j| start(cx, i, j)).collect()).collect();
        let axis = cx.b.axis("k");
        cx.b.begin();
        let v: Vec<Reg> = (0..p.nv)
            .map(|j| {
                let at = j * lanes;
                let at = w.clone().offset((at / 16 * p.filter.c * 16 + at % 16) * 4);
                let at = at.plus(axis, 64);
                if let (Some(far), 0) = (ahead, j * lanes % 16) {
                    cx.b.prefetch(at.clone().offset(far), 2);
                }
                cx.b.load(ty, at, Dtype::F32, None)
            })
            .collect();
        for (i, row) in acc.iter().enumerate() {
            let at = a.clone().offset(i as i64 * pitch).plus(axis, 4);
            let x = cx.b.load_splat(ty, at, Dtype::F32);
            for (&r, &v) in row.iter().zip(&v) {
                cx.b.fma_acc(r, x, v);
            }
        }
        let body = cx.b.end();
        cx.b.push(Stmt::For { axis, extent: p.depth.into(), unroll: 2, body });
        for (i, row) in acc.iter().enumerate() {
            for (j, &r) in row.iter().enumerate() {
                cx.b.store(r, place(i as i64, j as i64), Dtype::F32, None);
            }
        }
    }

    /// `Aᵀ y A` of a tile, all features of the block, through the epilogue.
    fn give_back(&self, cx: &mut LowerCx<'_>, block: &Block, t: &Tile) -> Made {
        let vectors = self.p.features / lanes_of(self.ty);
        self.where_whole(cx, t, &mut |cx, whole| {
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

    /// Mask of the features that exist, where the last vector may lack some.
    fn features(&self, cx: &mut LowerCx<'_>, first: &Coord) -> Made<Option<Reg>> {
        let (n, lanes) = (self.p.filter.n, lanes_of(self.ty));
        if n % lanes == 0 {
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
