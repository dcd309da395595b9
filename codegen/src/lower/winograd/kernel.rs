//! The kernel of one plan: transform a block of tiles into scratch, multiply, transform back.

use super::super::conv::{Conv, first_window};
use super::super::coord::{AtomData, Coord};
use super::super::cx::{LowerCx, Made, Work};
use super::schedule::Plan;
use super::tiles;
use crate::kir::{Addr, Base, Elem, ParamId, Reg, RegTy, Stmt};
use crate::target::Target;
use crate::task::{Lowered, Which};
use hub_abi::{Dim, Dtype};

/// What the three parts share.
pub(super) struct Winograd<'c, 't, 'g> {
    pub(super) c: &'c Conv<'t, 'g>,
    pub(super) p: Plan,
    pub(super) ty: RegTy,
    /// Output sizes.
    pub(super) size: [Dim; 2],
    /// Scratch: the tile at hand, transformed inputs, products.
    pub(super) tile: i64,
    pub(super) inputs: i64,
    pub(super) products: i64,
}

/// Where a block lies.
pub(super) struct Block {
    pub(super) image: Coord,
    /// First feature.
    pub(super) feature: Coord,
    /// First tile, down and across.
    pub(super) tile: [Coord; 2],
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
pub(super) struct Tile {
    pub(super) at: [Coord; 2],
    pub(super) pixel: [Coord; 2],
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

pub(super) fn lanes_of(ty: RegTy) -> i64 {
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
        let size = x.dtype.size() as i64;
        (cx.ptr_range(Which::In(self.c.x), start.times(size), reach.times(size)), 0i64.into())
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
}
