//! Row groups: reductions over one set of axes with elementwise before, between and after.
//!
//! A row (the reduced axes at one position of the kept ones) is passed over once for every level of
//! reductions, then once for outputs of the full shape. Vectors run along the axis that is
//! contiguous: if it is reduced, several accumulators run side by side and fold their lanes at the
//! end; if it is kept, several vectors of rows are reduced at once. What a pass computes and a later
//! one needs is computed again, or kept in scratch where that is dear.

use super::accum::{Acc, Kind};
use super::coord::{AtomData, Coord};
use super::cx::{LowerCx, Made, unsupported};
use super::map::work;
use super::memo::Kept;
use super::nest::{
    At, Span, Tiling, VectorLoop, grid_vars, rest_of, tile, tiling, vectors, whole_steps,
};
use super::rows::{Reduction, Rows, keep};
use super::stage::{self, Stage};
use super::study::{Domain, Loop, Study, study};
use super::value::with_lanes;
use crate::kir::{Elem, Reg, RegTy, Scalar};
use crate::target::Target;
use crate::task::{Lowered, Operand, Refused, Task, Which};
use hub_abi::Dim;
use hub_ir::Value;
use std::collections::{HashMap, HashSet};

/// Lowers a row group.
///
/// # Errors
/// [`Refused::Unsupported`] where the region holds what no kernel does.
pub fn row(task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    with_lanes(target.lanes(), |lanes| attempt(task, target, lanes))
}

struct Plan {
    rows: Rows,
    domain: Domain,
    kept: Vec<Loop>,
    reduced: Vec<Loop>,
    /// The vector axis is reduced.
    inside: bool,
    tiling: Tiling,
    wide: usize,
    unroll: u32,
    slack: bool,
    /// Values kept in scratch from the pass that makes them.
    kept_values: HashMap<Value, Kept>,
    stage: Option<Stage>,
}

fn attempt<'t>(task: &'t Task<'t>, target: &'t Target, lanes: usize) -> Made<Lowered> {
    let mut cx = LowerCx::new(task, target, "row", lanes);
    let p = plan(&mut cx)?;
    let grid = p.tiling.grid(&cx, &p.kept);
    let vars = grid_vars(&mut cx, &grid, None);
    let at = vec![Coord::zero(); p.domain.dims.len()];
    tile(&mut cx, &p.kept, &p.tiling, &vars, at, &mut |cx, at, span| p.tile(cx, at, span))?;
    let ops = p.rows.passes as i64 + 1;
    let work = work(task, Dim::product(&grid), std::iter::once((&p.rows.full, ops)));
    let schedule = p.describe(lanes);
    p.note_rowwise(&mut cx);
    Ok(cx.finish(work, schedule))
}

fn plan(cx: &mut LowerCx<'_>) -> Made<Plan> {
    let rows = Rows::of(cx.task)?;
    let results = &cx.task.g.regions[cx.task.region].results;
    let domain = Domain::whole(&rows.full);
    let found = study(cx.task, cx.target, cx.lanes, &domain, |cx, at| {
        for r in &rows.list {
            cx.value(r.input, at, cx.lanes)?;
            let ty = match r.short {
                true => RegTy::new(Elem::I32, cx.lanes),
                false => cx.reg_ty(cx.task.g.dtype(r.output), cx.lanes)?,
            };
            let zero = cx.b.zero(ty);
            let coords = rows.coords(cx.task.g.dims(r.output), at)?;
            cx.give(r.output, &coords, zero);
        }
        (0..results.len()).try_for_each(|i| store(cx, &rows, i, at))
    })?;
    let loops = found.loops(cx, &domain, &rows.reduced);
    let best = found.best_vector(cx, &loops);
    let mut inside = best.is_none_or(|b| loops[b].reduced);
    let mut sides = both_sides(cx, &found, &loops, best);
    let mut stage = None;
    if inside {
        // Short contiguous rows are better turned.
        let across = loops.iter().rposition(|l| !l.reduced);
        let other = both_sides(cx, &found, &loops, across);
        if let (Some(l), [row]) = (other.0.last(), &other.1[..]) {
            stage = stage::find(cx, &found, &domain, row, l);
        }
        if stage.is_some() {
            (sides, inside) = (other, false);
        }
    }
    let (kept, reduced) = sides;
    let count = cx.estimate(&rows.count()).max(1);
    let target = if found.insts > 60 { 4 } else { 16 } * cx.target.grain;
    let align = if inside { 1 } else { cx.lanes as i64 };
    let tiling = tiling(cx, &kept, (target / count).max(1), align);
    let mut wide = width(cx, &found, &rows, inside);
    if let Some(n) = reduced.last().and_then(|l| l.extent.as_const()).filter(|_| inside) {
        wide = wide.min(1 << (n / cx.lanes as i64).max(1).ilog2());
    }
    let unroll = if found.insts > 24 { 0 } else { 2 };
    let ends = if inside { &reduced } else { &kept };
    let slack = stage.is_none() && ends.last().is_some_and(|l| slack(cx, &found, l));
    let kept_values = if inside { keep(cx, &rows, &reduced) } else { HashMap::new() };
    Ok(Plan {
        rows,
        domain,
        kept,
        reduced,
        inside,
        tiling,
        wide,
        unroll,
        slack,
        kept_values,
        stage,
    })
}

/// Kept and reduced loops, the vector axis last on its side, those that run as one merged.
fn both_sides(
    cx: &LowerCx<'_>,
    found: &Study,
    loops: &[Loop],
    vector: Option<usize>,
) -> (Vec<Loop>, Vec<Loop>) {
    let side = |reduced: bool| {
        let mut list: Vec<Loop> = loops.iter().filter(|l| l.reduced == reduced).cloned().collect();
        let at = vector.and_then(|b| list.iter().position(|l| l.dim == loops[b].dim));
        if let Some(at) = at {
            let l = list.remove(at);
            list.push(l);
        }
        found.merge(cx, list, at.is_some())
    };
    (side(false), side(true))
}

fn slack(cx: &LowerCx<'_>, found: &Study, l: &Loop) -> bool {
    let lanes = cx.lanes as i64;
    let extra = l.extent.as_const().map_or(lanes - 1, |n| (lanes - n % lanes) % lanes);
    extra == 0 || found.has_slack(cx, l.dim, extra)
}

/// Vectors side by side: as many as registers bear.
fn width(cx: &LowerCx<'_>, found: &Study, rows: &Rows, inside: bool) -> usize {
    let accs = (0..rows.passes).map(|p| rows.list.iter().filter(|r| r.level == p).count());
    let most = accs.max().unwrap_or(1).max(1);
    let per = if rows.list.iter().any(|r| matches!(r.kind, Kind::Arg { .. })) { 2 } else { 1 };
    let free = cx.target.vector_regs / if found.insts > 24 { 8 } else { 4 };
    let cap = if inside { 4 } else { 8 };
    let w = (free / (most * per)).clamp(1, cap);
    1 << w.ilog2()
}

/// Stores result `i` at a position of the domain.
fn store(cx: &mut LowerCx<'_>, rows: &Rows, i: usize, at: &[Coord]) -> Made {
    let v = cx.task.g.regions[cx.task.region].results[i];
    let mut coords = rows.coords(cx.task.g.dims(v), at)?;
    if rows.is_reduced(cx.task.g.dims(v)) {
        coords = super::value::aligned(cx.task.g.dims(v), &coords);
    }
    let r = cx.value(cx.unrounded(v), &coords, cx.lanes)?;
    cx.store(i, &coords, r)
}

/// What a visit of a row's elements calls: the stream (accumulator) and the position.
type Visit<'a, 't> = dyn FnMut(&mut LowerCx<'t>, usize, &[Coord]) -> Made + 'a;

impl Plan {
    fn describe(&self, lanes: usize) -> String {
        let show = |l: &[Loop]| {
            let d: Vec<String> = l.iter().map(|l| l.extent.to_string()).collect();
            d.join("x")
        };
        let axis = match (&self.stage, self.inside) {
            (Some(_), _) => "turned",
            (_, true) => "in",
            _ => "across",
        };
        format!(
            "row v{lanes}x{} {axis} {} / {} tile {}@{} passes {}",
            self.wide,
            show(&self.kept),
            show(&self.reduced),
            self.tiling.chunk,
            self.tiling.cut,
            self.rows.passes
        )
    }

    fn tile<'t>(&self, cx: &mut LowerCx<'t>, at: At, span: Span) -> Made {
        let Some(last) = self.kept.last() else { return self.rows_at(cx, at, &[]) };
        if self.inside {
            return cx.for_("row", span.count, 0, |cx, axis| {
                let mut at = at;
                at[last.dim] = cx.atom(span.base.plus(axis, 1i64)).into();
                self.rows_at(cx, at, &[])
            });
        }
        let wide = if self.stage.is_some() { 1 } else { self.wide };
        let how = VectorLoop { unroll: 0, slack: self.slack, wide };
        vectors(cx, &span, how, &mut |cx, vs| match (&self.stage, cx.active) {
            (Some(s), None) => {
                let v = cx.atom_data(vs[0].terms[0].0).clone();
                s.load(cx, &self.domain, &at, &v)?;
                let done = self.rows_at(cx, at.clone(), vs);
                s.unload(cx);
                done?;
                s.store(cx, &self.domain, &at, &v)
            }
            _ => self.rows_at(cx, at.clone(), vs),
        })
    }

    /// All passes over the rows at one position (`vs`: vectors of rows, where the vector axis is
    /// kept).
    fn rows_at<'t>(&self, cx: &mut LowerCx<'t>, at: At, vs: &[Coord]) -> Made {
        let g = cx.task.g;
        for pass in 0..self.rows.passes {
            self.pass(cx, pass, &at, vs)?;
            self.derived(cx, pass + 1, &at, vs)?;
        }
        let results = &g.regions[cx.task.region].results;
        let (short, full): (Vec<usize>, Vec<usize>) =
            (0..results.len()).partition(|&i| self.rows.is_reduced(g.dims(results[i])));
        for i in short {
            for j in 0..self.streams(vs) {
                let coords = self.row_coords(&at, vs, j);
                store(cx, &self.rows, i, &coords)?;
            }
        }
        if full.is_empty() {
            return Ok(());
        }
        self.visit(cx, &at, vs, true, &mut |cx, _, coords| {
            full.iter().try_for_each(|&i| self.put(cx, i, coords))
        })
    }

    /// Stores output `i` of the full shape, or puts it where it is turned back from.
    fn put(&self, cx: &mut LowerCx<'_>, i: usize, coords: &[Coord]) -> Made {
        let staged = self.stage.as_ref().filter(|_| cx.active.is_none());
        match staged.and_then(|s| s.output(i)) {
            Some(k) => {
                let v = cx.task.g.regions[cx.task.region].results[i];
                let r = cx.value(cx.unrounded(v), coords, cx.lanes)?;
                cx.put_scratch(k, coords, r);
                Ok(())
            }
            None => store(cx, &self.rows, i, coords),
        }
    }

    /// Accumulators a row, where rows lie side by side: what streams leave of the registers.
    fn split(&self, vs: &[Coord]) -> usize {
        (self.wide / self.streams(vs)).max(1)
    }

    fn streams(&self, vs: &[Coord]) -> usize {
        vs.len().max(1)
    }

    /// Says which operands are read only at the element asked for, where an output of the full shape
    /// lies alike: a row of them is read by the iteration that writes the output's row.
    fn note_rowwise(&self, cx: &mut LowerCx<'_>) {
        if self.stage.is_some() {
            return;
        }
        let task = cx.task;
        let asked: HashSet<&Vec<Coord>> = cx.notes.positions.iter().collect();
        let at = |of: Which| cx.notes.accesses.iter().filter(move |a| a.which == of);
        let mut pairs = vec![];
        for (i, x) in task.inputs.iter().enumerate().filter(|(_, x)| x.dims == self.rows.full) {
            let of = Which::In(i);
            if at(of).next().is_none() || !at(of).all(|a| asked.contains(&a.coords)) {
                continue;
            }
            let alike = |y: &Operand| {
                (&y.dims, &y.strides, y.dtype.size()) == (&x.dims, &x.strides, x.dtype.size())
            };
            let outs = task.outputs.iter().enumerate().filter(|(_, y)| alike(y));
            pairs.extend(outs.map(|(o, _)| (of, Which::Out(o))));
        }
        for (i, o) in pairs {
            let (read, written) = (cx.ptr(i).0, cx.ptr(o).0);
            cx.b.rowwise(read, written);
        }
    }

    /// The position of stream `j`'s row (0 along reduced axes).
    fn row_coords(&self, at: &At, vs: &[Coord], j: usize) -> Vec<Coord> {
        let mut at = at.clone();
        if let (Some(v), Some(l)) = (vs.get(j), self.kept.last()) {
            at[l.dim] = v.clone();
        }
        self.domain.coords(&at)
    }

    /// One pass: the reductions of a level.
    fn pass<'t>(&self, cx: &mut LowerCx<'t>, pass: usize, at: &At, vs: &[Coord]) -> Made {
        let list: Vec<&Reduction> = self.rows.list.iter().filter(|r| r.level == pass).collect();
        let streams = if self.inside { self.wide } else { self.streams(vs) * self.split(vs) };
        let mut accs = vec![];
        for r in &list {
            let one = (0..streams).map(|_| Acc::new(cx, r.kind, cx.lanes));
            accs.push(one.collect::<Made<Vec<_>>>()?);
        }
        self.visit(cx, at, vs, false, &mut |cx, j, coords| {
            for (r, acc) in list.iter().zip(&accs) {
                let x = cx.value(r.input, coords, cx.lanes)?;
                if let Some(k) = self.kept_values.get(&r.input) {
                    cx.put_scratch(k, coords, x);
                }
                let pos = self.position(cx, r.kind, coords)?;
                acc[j].update(cx, x, pos)?;
            }
            Ok(())
        })?;
        for r in &list {
            if let Some(k) = self.kept_values.get(&r.input) {
                cx.keep(r.input, k.clone());
            }
        }
        for (r, acc) in list.iter().zip(&accs) {
            for (j, value) in self.combined(cx, acc, vs)?.iter().enumerate() {
                let value = value.finish(cx, &self.rows.count(), r.short)?;
                let at = self.row_coords(at, vs, j);
                let coords = self.rows.coords(cx.task.g.dims(r.output), &at)?;
                cx.give(r.output, &coords, value);
            }
        }
        Ok(())
    }

    /// One accumulator a row.
    fn combined(&self, cx: &mut LowerCx<'_>, acc: &[Acc], vs: &[Coord]) -> Made<Vec<Acc>> {
        let rows = if self.inside { 1 } else { self.streams(vs) };
        let mut n = acc.len();
        while n > rows {
            n /= 2;
            for i in 0..n {
                acc[i].merge(cx, &acc[i + n])?;
            }
        }
        if !self.inside {
            return Ok(acc[..rows].to_vec());
        }
        Ok(vec![acc[0].across_lanes(cx)?])
    }

    /// Positions along the reduced axis, for arg-reductions.
    fn position(&self, cx: &mut LowerCx<'_>, kind: Kind, coords: &[Coord]) -> Made<Option<Reg>> {
        let Kind::Arg { .. } = kind else { return Ok(None) };
        let axis = self.rows.reduced.iter().position(|r| *r).expect("an axis is reduced");
        if cx.bounds(&self.rows.full[axis]).1 >= 1 << 31 {
            return unsupported("positions past 31 bits");
        }
        let ty = RegTy::new(Elem::I32, cx.lanes);
        Ok(Some(cx.index_reg(&coords[axis], ty)?))
    }

    /// Makes values of the reduced shape that a level completes, so that loops find them made.
    fn derived<'t>(&self, cx: &mut LowerCx<'t>, level: usize, at: &At, vs: &[Coord]) -> Made {
        let g = cx.task.g;
        for &n in &g.regions[cx.task.region].nodes {
            let v = g.nodes[n].outputs[0];
            let ready = self.rows.level.get(&v) == Some(&level);
            if !ready || !self.rows.is_reduced(g.dims(v)) || cx.is_given(v) {
                continue;
            }
            for j in 0..self.streams(vs) {
                let at = self.row_coords(at, vs, j);
                let coords = self.rows.coords(g.dims(v), &at)?;
                cx.value(v, &coords, cx.lanes)?;
            }
        }
        Ok(())
    }

    /// Calls `f` for every vector of a row's elements. `last`: nothing is summed, so slack may be
    /// touched.
    fn visit<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        vs: &[Coord],
        last: bool,
        f: &mut Visit<'_, 't>,
    ) -> Made {
        let f: &mut Visit<'_, 't> = &mut |cx, j, coords| {
            cx.notes.positions.push(coords.to_vec());
            f(cx, j, coords)
        };
        if !self.inside {
            return self.beside(cx, at, vs, if last { 1 } else { self.split(vs) }, f);
        }
        let Some((vector, outer)) = self.reduced.split_last() else {
            let count = Span { base: AtomData::konst(0i64, 1i64.into()), count: 1.into() };
            return self.along(cx, at.clone(), None, &count, last, f);
        };
        self.nest(cx, outer, at.clone(), &mut |cx, at| {
            let count = cx.scalar(&vector.extent);
            let span = Span { base: AtomData::konst(0i64, vector.extent.clone()), count };
            self.along(cx, at, Some(vector.dim), &span, last, f)
        })
    }

    /// Rows side by side: loops over the reduced axes, the innermost by `split` at once.
    fn beside<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        vs: &[Coord],
        split: usize,
        f: &mut Visit<'_, 't>,
    ) -> Made {
        let rows = self.streams(vs);
        let Some((inner, outer)) = self.reduced.split_last() else {
            return (0..rows).try_for_each(|j| f(cx, j, &self.row_coords(at, vs, j)));
        };
        let index = AtomData::konst(0i64, inner.extent.clone());
        let mut element = |cx: &mut LowerCx<'t>, at: &At, i: AtomData, s: usize| {
            let mut at = at.clone();
            at[inner.dim] = cx.atom(i).into();
            (0..rows).try_for_each(|j| f(cx, j + s * rows, &self.row_coords(&at, vs, j)))
        };
        self.nest(cx, outer, at.clone(), &mut |cx, at| {
            let count = cx.scalar(&inner.extent);
            let (full, done) = whole_steps(cx, count, split as i64, false);
            if !matches!(full, Scalar::Const(0)) {
                cx.for_("r", full, 0, |cx, axis| {
                    (0..split).try_for_each(|s| {
                        let i = index.clone().plus(axis, split as i64).offset(s as i64);
                        element(cx, &at, i, s)
                    })
                })?;
            }
            let rest = rest_of(cx, count, &done);
            if split == 1 || matches!(rest, Scalar::Const(0)) {
                return Ok(());
            }
            let base = super::transpose::after(&index, done);
            cx.for_("r", rest, 0, |cx, axis| element(cx, &at, base.plus(axis, 1i64), 0))
        })
    }

    /// The vector loop of a row whose vector axis is reduced.
    fn along<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: At,
        dim: Option<usize>,
        span: &Span,
        last: bool,
        f: &mut Visit<'_, 't>,
    ) -> Made {
        let how = match last {
            true => VectorLoop { unroll: self.unroll, slack: self.slack, wide: 1 },
            false => VectorLoop { unroll: 0, slack: false, wide: self.wide },
        };
        vectors(cx, span, how, &mut |cx, vs| {
            for (j, v) in vs.iter().enumerate() {
                let mut at = at.clone();
                if let Some(d) = dim {
                    at[d] = v.clone();
                }
                let coords = self.domain.coords(&at);
                f(cx, j, &coords)?;
            }
            Ok(())
        })
    }

    /// Loops over some dims.
    fn nest<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        loops: &[Loop],
        at: At,
        f: &mut dyn FnMut(&mut LowerCx<'t>, At) -> Made,
    ) -> Made {
        let [first, rest @ ..] = loops else { return f(cx, at) };
        let count = cx.scalar(&first.extent);
        cx.for_(&format!("r{}", first.dim), count, 0, |cx, axis| {
            let mut at = at;
            at[first.dim] = cx.atom(AtomData::var(axis, first.extent.clone())).into();
            self.nest(cx, rest, at, f)
        })
    }
}
