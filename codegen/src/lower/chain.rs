//! A convolution and the depthwise one that reads it, in one kernel.
//!
//! A tile is a block of channels and of output rows. It computes the rows of the middle image that
//! its output needs into the worker's scratch, zeros around them, then slides the depthwise windows
//! over them: the middle image, often the largest of the network, never leaves a core's caches, and
//! has neither memory nor a halo in the arena. Rows at the seam of two blocks are computed twice.

use super::chain_plan::Plan;
use super::contract::param;
use super::contract_grid::{cond, index_reg, scalar_side, vector_side};
use super::contract_mac::{Axis, Mac, elem_for, heavy_among, refused};
use super::contract_tile::{Ahead, Cols, Pos, Side, Tiler, mem_dtype};
use super::conv::{Conv, padded};
use super::coord::{Atom, AtomData, Coord};
use super::cx::{LowerCx, Made, Work, unsupported};
use super::depthwise;
use super::schedule::{Schedule, div_ceil};
use crate::kir::{Addr, Affine, Base, CmpOp, Reg, RegTy, Scalar};
use crate::target::Target;
use crate::targets::x86;
use crate::task::{Format, Lowered, Operand, Refused, Task};
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim};
use hub_ir::{Def, Node, Op, Value};

/// The two convolutions of a chain.
pub struct Chain<'t, 'g> {
    task: &'t Task<'g>,
    first: Conv<'t, 'g>,
    second: Conv<'t, 'g>,
    /// What the second reads.
    mid: Value,
    /// Do the elementwise parts deserve loops of their own?
    pub heavy: [bool; 2],
}

/// The geometry and groups of a node that is a convolution.
fn convolution<'g>(task: &Task<'g>, n: Node) -> Option<(&'g Geometry, i64)> {
    match &task.g.nodes[n].op {
        Op::Prim(Prim::Conv { geo, groups }) => Some((geo, *groups)),
        _ => None,
    }
}

/// The chain that a group is, if it is one.
///
/// # Errors
/// As [`param`].
pub fn find<'t, 'g>(task: &'t Task<'g>) -> Result<Option<Chain<'t, 'g>>, Refused> {
    let nodes = &task.g.regions[task.region].nodes;
    let all: Vec<usize> =
        (0..nodes.len()).filter(|&i| convolution(task, nodes[i]).is_some()).collect();
    let [a, b] = all[..] else { return Ok(None) };
    let conv = |at: usize, x: usize| -> Result<Conv<'t, 'g>, Refused> {
        let n = &task.g.nodes[nodes[at]];
        let (geo, groups) = convolution(task, nodes[at]).expect("found above");
        Ok(Conv { task, x, w: param(task, n.inputs[1])?, out: n.outputs[0], geo, groups })
    };
    let first = conv(a, param(task, task.g.nodes[nodes[a]].inputs[0])?)?;
    let mid = task.g.nodes[nodes[b]].inputs[0];
    if matches!(task.g.values[mid].def, Def::Param(..)) {
        return Ok(None);
    }
    // The second's input is no operand; what is asked of operands is asked of the first's.
    let second = conv(b, first.x)?;
    let heavy = [heavy_among(task, &nodes[..b]), heavy_among(task, &nodes[b..])];
    Ok(Some(Chain { task, first, second, mid, heavy }))
}

/// Lowers a chain by the first plan that the target holds.
///
/// # Errors
/// What placement has to do first, or why there is no native kernel.
pub fn lower(c: &Chain<'_, '_>, target: &Target) -> Result<Lowered, Refused> {
    padded(c.task, c.first.x, c.first.geo)?;
    let first = c.first.build(target).map_err(refused)?;
    let mut why = String::new();
    let mut plans = c.plans(target, &first)?;
    let wanted = target.choice.min(plans.len() - 1);
    plans[..=wanted].rotate_right(1);
    for plan in plans {
        let made = c.lower_as(target, &first, &plan).map_err(refused)?;
        match x86::emit(&made.kernel, target) {
            Ok(_) => return Ok(made),
            Err(e) => why = e.to_string(),
        }
    }
    Err(Refused::Unsupported(why))
}

impl Chain<'_, '_> {
    fn sizes(&self, v: Value) -> Result<[i64; 4], Refused> {
        let known: Option<Vec<i64>> = self.task.g.dims(v).iter().map(|d| d.as_const()).collect();
        let known = known.and_then(|d| d.try_into().ok());
        known.ok_or_else(|| Refused::Unsupported("a chain of images of unknown size".into()))
    }

    fn plans(&self, target: &Target, first: &Mac) -> Result<Vec<Plan>, Refused> {
        let taps: Option<Vec<i64>> =
            self.task.inputs[self.second.w].dims[2..].iter().map(|d| d.as_const()).collect();
        let known = |d: &[Dim]| d.iter().map(|d| d.as_const()).collect::<Option<Vec<i64>>>();
        let geo = self.second.geo;
        let (Some(taps), Some(before), Some(after)) = (taps, known(&geo.before), known(&geo.after))
        else {
            return Err(Refused::Unsupported("a chain with windows of unknown size".into()));
        };
        let mid = self.sizes(self.mid)?;
        let out = self.sizes(self.second.out)?;
        let k = first.k.iter().map(|a| a.dim.as_const().unwrap_or(1)).product();
        Ok(Plan::all(target, self, &(mid, out, k), &(taps, before, after), geo))
    }

    /// The depthwise problem over the rows in scratch.
    fn second_mac(&self, plan: &Plan) -> Result<Mac, Refused> {
        let d = |n: i64| Dim::from(n);
        let rows = Operand {
            align: 1,
            dtype: hub_abi::Dtype::F32,
            dims: self.task.g.dims(self.mid).to_vec(),
            strides: vec![d(0), d(1), d(plan.pitch() * plan.channels()), d(plan.channels())],
            slack: plan.channels(),
            halo: true,
            format: Format::Strided,
            constant: false,
            splat: None,
        };
        depthwise::problem_over(self.task, &self.second, &rows)
    }

    fn lower_as(&self, target: &Target, first: &Mac, plan: &Plan) -> Made<Lowered> {
        let second = self.second_mac(plan)?;
        let elem = elem_for(self.task, first.anchor)?;
        let mut cx = LowerCx::new(self.task, target, "chain", plan.lanes as usize);
        let (s, s_at) = scalar_side(&mut cx, first);
        let (v, v_at) = vector_side(&mut cx, first, (s, s_at.clone()));
        let (w, w_at) = vector_side(&mut cx, &second, (s, Coord::zero()));
        let lane = AtomData::konst(0i64, first.n.dim.clone()).along_lanes();
        let lane = cx.atom(lane);
        let rows_at = cx.b.scratch((plan.most_rows() * plan.row_bytes()) as u64);
        let tile = plan.tw[1] * plan.nv[1] * plan.lanes * elem.size() as i64;
        let staged = if plan.staged[1] { cx.b.scratch(tile as u64) } else { 0 };
        let zero = vec![Coord::zero(); 4];
        let tiler = |mac, at: usize, s: Side, v: Side, rows: [Axis; 2]| Tiler {
            mac,
            sch: plan.schedule(at),
            elem,
            s,
            v,
            rows,
            scratch: staged,
            lane,
            slack: 0,
            ahead: None,
            spread: None,
            member: None,
        };
        let axes = |m: &Mac| -> Made<[Axis; 2]> {
            m.rows.clone().try_into().or_else(|_| unsupported("a chain of flat images"))
        };
        let b = Builder {
            chain: self,
            plan,
            a: tiler(first, 0, s, v, axes(first)?),
            b: tiler(&second, 1, Side { base: Base::Scratch, dtype: s.dtype }, w, axes(&second)?),
            rows_at,
            lane,
        };
        let at_a = Pos { s: s_at, v: v_at, out: zero.clone() };
        let at_b = Pos { s: Coord::from(rows_at), v: w_at, out: zero };
        let tiles = b.kernel(&mut cx, at_a, at_b)?;
        let (x, y) = (first.work(self.task, tiles.clone()), second.work(self.task, tiles.clone()));
        let work = Work { tiles, flops: x.flops.add(&y.flops), bytes: x.bytes };
        Ok(cx.finish_inner(work, plan.to_string()))
    }
}

/// What the parts of a chain's kernel share.
struct Builder<'m> {
    chain: &'m Chain<'m, 'm>,
    plan: &'m Plan,
    a: Tiler<'m>,
    b: Tiler<'m>,
    /// Scratch offset of the rows between.
    rows_at: i64,
    lane: Atom,
}

impl Builder<'_> {
    fn kernel(&self, cx: &mut LowerCx<'_>, mut pa: Pos, mut pb: Pos) -> Made<Dim> {
        let p = self.plan;
        let mut tiles = 1;
        let mut grid = |cx: &mut LowerCx<'_>, name: &str, n: i64| {
            tiles *= n;
            let axis = cx.grid(name, &n.into());
            Coord::from(cx.atom(AtomData::var(axis, n.into())))
        };
        for (i, ax) in self.a.mac.batch.iter().enumerate() {
            let at = grid(cx, &format!("b{i}"), ax.dim.as_const().unwrap_or(1));
            pa = self.a.step(&pa, ax, &at);
            pb.out[0] = pb.out[0].add(&at);
        }
        let r = grid(cx, "r", div_ceil(p.out[2], p.rows));
        let n = grid(cx, "n", div_ceil(p.mid[1], p.channels()));
        let first = n.times(&p.channels().into());
        let pa = self.a.step(&pa, &self.a.mac.n, &first);
        // The rows in scratch hold these channels alone.
        let whole = Axis { s: 0i64.into(), ..self.b.mac.n.clone() };
        let pb = self.b.step(&pb, &whole, &first);
        let oh = r.times(&p.rows.into());
        let (full, left) = (p.mid[1] / p.channels(), p.mid[1] % p.channels());
        let nv = p.nv[0];
        let all = |cx: &mut LowerCx<'_>| self.block(cx, &pa, &pb, &oh, Cols::Full(nv));
        let part = |cx: &mut LowerCx<'_>| self.block(cx, &pa, &pb, &oh, Cols::First(left));
        match (full, left) {
            (_, 0) => all(cx)?,
            (0, _) => part(cx)?,
            _ => {
                let at = index_reg(cx, &n)?;
                cx.if_else(cond(CmpOp::Lt, at, full.into()), all, part)?;
            }
        }
        Ok(Dim::from(tiles))
    }

    /// One tile: the rows between, then the windows over them.
    fn block(&self, cx: &mut LowerCx<'_>, pa: &Pos, pb: &Pos, oh: &Coord, cols: Cols) -> Made {
        let p = self.plan;
        let (outs, ins): (Scalar, Scalar) = if p.out[2] % p.rows == 0 {
            (p.rows.into(), p.rows_between(p.rows).into())
        } else {
            let left = oh.times(&(-1i64).into()).plus(&p.out[2].into());
            let left = cx.index_reg(&left, RegTy::INDEX)?;
            let most = cx.b.const_i(RegTy::INDEX, p.rows);
            let outs = cx.b.min(left, most);
            let ins = Affine::constant(p.rows_between(0)).plus(outs, p.stride[0]);
            (outs.into(), cx.b.index(ins).into())
        };
        let top = oh.times(&p.stride[0].into()).plus(&Dim::from(-p.before[0]));
        cx.for_("y", ins, 0, |cx, y| {
            let y: Coord = cx.atom(AtomData::var(y, p.most_rows().into())).into();
            self.between(cx, pa, &top.add(&y), &y, cols)
        })?;
        cx.for_("oh", outs, 0, |cx, y| {
            let y: Coord = cx.atom(AtomData::var(y, p.rows.into())).into();
            let mut pb = self.b.step(pb, &self.b.rows[0], &y);
            pb.out[2] = pb.out[2].add(oh);
            self.windows(cx, &pb, cols)
        })
    }

    /// Row `h` of the middle image (zeros where there is none), at row `y` of scratch.
    fn between(&self, cx: &mut LowerCx<'_>, pa: &Pos, h: &Coord, y: &Coord, cols: Cols) -> Made {
        let p = self.plan;
        let nv = cols.vectors(p.lanes);
        let row = y.times(&p.row_bytes().into()).plus(&self.rows_at.into());
        let real = |cx: &mut LowerCx<'_>| {
            self.zeros(cx, &row, 0..p.before[1], nv);
            self.zeros(cx, &row, p.before[1] + p.mid[3]..p.pitch(), nv);
            let pa = self.a.step(pa, &self.a.rows[0], h);
            self.row(cx, &pa, (y, &row), cols)
        };
        if p.before[0] == 0 && p.inside {
            return real(cx);
        }
        let at = index_reg(cx, h)?;
        cx.if_else(cond(CmpOp::ULt, at, p.mid[2].into()), real, |cx| {
            let pixel = p.pixel_bytes();
            cx.for_("z", p.pitch(), 0, |cx, z| {
                let z: Coord = cx.atom(AtomData::var(z, p.pitch().into())).into();
                self.zeros(cx, &row.add(&z.times(&pixel.into())), 0..1, nv);
                Ok(())
            })
        })
    }

    fn zeros(&self, cx: &mut LowerCx<'_>, row: &Coord, pixels: std::ops::Range<i64>, nv: i64) {
        let p = self.plan;
        if pixels.is_empty() {
            return;
        }
        let at = cx.address(Base::Scratch, row).0;
        let zero = cx.b.zero(self.a.vec_ty());
        for i in pixels {
            for j in 0..nv {
                self.put(cx, zero, at.clone().offset(i * p.pixel_bytes()), j);
            }
        }
    }

    fn put(&self, cx: &mut LowerCx<'_>, r: Reg, pixel: Addr, j: i64) {
        let at = pixel.offset(j * self.plan.lanes * self.a.elem.size() as i64);
        cx.b.store(r, at, mem_dtype(self.a.elem), None);
    }

    /// All pixels of a row: sums a tile at a time; the elementwise part on them, or after the row.
    fn row(&self, cx: &mut LowerCx<'_>, pa: &Pos, (y, row): (&Coord, &Coord), cols: Cols) -> Made {
        let p = self.plan;
        let (w, tw, staged) = (p.mid[3], p.tw[0], p.staged[0]);
        let first = row.plus(&(p.before[1] * p.pixel_bytes()).into());
        let mut a = self.a.clone();
        if w <= 2 * tw {
            let distance = a.column(p.nv[0]);
            a.ahead = Some(Ahead::Next { turn: y.clone(), turns: p.most_rows(), distance });
        }
        let tile = |cx: &mut LowerCx<'_>, t: &Coord, tw: i64| -> Made {
            let pa = self.a.step(pa, &self.a.rows[1], t);
            let acc = a.accumulate(cx, &pa, 1, tw, cols);
            let to = first.add(&t.times(&p.pixel_bytes().into()));
            let to = cx.address(Base::Scratch, &to).0;
            let masks = if staged { vec![] } else { self.a.masks(cx, cols, 0) };
            for (i, vectors) in acc.iter().enumerate() {
                let at = self.a.row(&pa, 0, i as i64);
                for (j, &r) in vectors.iter().enumerate() {
                    let r = match masks.get(j) {
                        None => r,
                        Some(m) => self.ended(cx, &at, j as i64, r, *m)?,
                    };
                    self.put(cx, r, to.clone().offset(i as i64 * p.pixel_bytes()), j as i64);
                }
            }
            Ok(())
        };
        each_tile(cx, "t", w, tw, &tile)?;
        if !staged {
            return Ok(());
        }
        let masks = self.a.masks(cx, cols, 0);
        cx.for_("e", w, 0, |cx, x| {
            let x: Coord = cx.atom(AtomData::var(x, w.into())).into();
            let pa = self.a.step(pa, &self.a.rows[1], &x);
            let at = first.add(&x.times(&p.pixel_bytes().into()));
            let at = cx.address(Base::Scratch, &at).0;
            let bytes = p.lanes * self.a.elem.size() as i64;
            for j in 0..cols.vectors(p.lanes) {
                let from = at.clone().offset(j * bytes);
                let r = cx.b.load(self.a.vec_ty(), from, mem_dtype(self.a.elem), None);
                let r = self.ended(cx, &pa, j, r, masks[j as usize])?;
                self.put(cx, r, at.clone(), j);
            }
            Ok(())
        })
    }

    /// What the second convolution reads, of the first's sums.
    fn ended(
        &self,
        cx: &mut LowerCx<'_>,
        at: &Pos,
        j: i64,
        acc: Reg,
        mask: Option<Reg>,
    ) -> Made<Reg> {
        let mut coords = at.out.clone();
        let to = Coord::from(self.lane).plus(&(j * self.plan.lanes).into());
        coords[1] = coords[1].add(&to);
        cx.active = mask;
        let lanes = self.plan.lanes as usize;
        let made = cx.scope(|cx| {
            cx.give(self.a.mac.anchor, &coords, acc);
            cx.value(self.chain.mid, &coords, lanes)
        });
        cx.active = None;
        made
    }

    /// One row of outputs.
    fn windows(&self, cx: &mut LowerCx<'_>, pb: &Pos, cols: Cols) -> Made {
        let p = self.plan;
        let step = p.nv[1];
        let mut j = 0;
        while j < cols.vectors(p.lanes) {
            let some = match cols {
                Cols::First(n) if n - j * p.lanes < step * p.lanes => Cols::First(n - j * p.lanes),
                _ => Cols::Full(step),
            };
            let pb = self.b.step(pb, &self.b.mac.n, &Coord::from(j * p.lanes));
            each_tile(cx, "ow", p.out[3], p.tw[1], &|cx, t, tw| {
                let pb = self.b.step(&pb, &self.b.rows[1], t);
                self.b.tile(cx, &pb, 1, tw, some)
            })?;
            j += step;
        }
        Ok(())
    }
}

/// Calls `f` with the first element and the width of every tile along `n`: a loop, then the rest.
fn each_tile(
    cx: &mut LowerCx<'_>,
    name: &str,
    n: i64,
    t: i64,
    f: &dyn Fn(&mut LowerCx<'_>, &Coord, i64) -> Made,
) -> Made {
    if n / t == 1 {
        f(cx, &Coord::zero(), t)?;
    } else if n / t > 1 {
        cx.for_(name, n / t, 0, |cx, i| {
            let i: Coord = cx.atom(AtomData::var(i, (n / t).into())).into();
            f(cx, &i.times(&t.into()), t)
        })?;
    }
    match n % t {
        0 => Ok(()),
        left => f(cx, &Coord::from(n - left), left),
    }
}

impl Plan {
    fn schedule(&self, at: usize) -> Schedule {
        Schedule {
            th: 1,
            tw: self.tw[at],
            nv: self.nv[at],
            lanes: self.lanes,
            unroll: if at == 0 { 2 } else { 1 },
            block: 0,
            staged: self.staged[at],
            team: 1,
            tiles: false,
        }
    }
}
