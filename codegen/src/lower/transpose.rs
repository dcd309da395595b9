//! Square blocks for movement between layouts: where the contiguous axis of an input is not that of
//! the output, blocks of `lanes × lanes` elements are loaded as contiguous rows, turned in registers,
//! and the body runs on contiguous columns.

use super::coord::{Atom, AtomData, Coord};
use super::cx::{AccessNote, LowerCx, Made};
use super::nest::{At, Span, VectorLoop, rest_of, vectors, whole_steps};
use super::study::{Loop, Study};
use super::value::elem_of;
use crate::kir::turn::transposed;
use crate::kir::{Addr, Base, Elem, Reg, RegTy, Scalar};
use crate::task::Which;
use hub_abi::Dim;

/// A load that crosses the vector axis.
#[derive(Clone, Debug)]
pub struct Cross {
    /// The load.
    load: AccessNote,
    /// The loop along which it is contiguous.
    pub along: Loop,
    /// The vector axis.
    pub vector: Loop,
    /// The store of a plain copy whose short rows lie one behind another in the output: a block of
    /// them is written as whole vectors.
    dense: Option<AccessNote>,
}

/// The one crossing load of a nest, if blocks serve it: `loops` are arranged, the vector axis last.
pub fn find(cx: &LowerCx<'_>, found: &Study, loops: &[Loop]) -> Option<Cross> {
    let (vector, others) = loops.split_last()?;
    let few = !cx.target.own_core || cx.target.vector_regs < cx.lanes + cx.lanes / 2;
    if few || found.notes.traps || cx.lanes != cx.target.lanes() || found.is_pinned(vector.dim) {
        return None;
    }
    let unit =
        |a: &AccessNote, l: &Loop| found_coef(a, l).is(cx.operand(a.which).dtype.size() as i64);
    let mut crossing = vec![];
    for a in &found.notes.accesses {
        let stored = matches!(a.which, Which::Out(_));
        match (unit(a, vector), found_coef(a, vector).is(0)) {
            (true, _) => {}
            (_, true) if !stored => {}
            _ if stored => return None,
            _ => crossing.push(a),
        }
    }
    let load = *crossing.first()?;
    if crossing.iter().any(|a| *a != load) {
        return None;
    }
    let wide = elem_of(cx.operand(load.which).dtype).ok()?;
    let along = others.iter().find(|l| unit(load, l))?;
    let long = cx.estimate(&along.extent) >= cx.lanes as i64 / 2;
    let fits = matches!(wide, Elem::F32 | Elem::I32 | Elem::Mask) && !found.is_pinned(along.dim);
    (long && fits).then(|| Cross {
        load: load.clone(),
        along: along.clone(),
        vector: vector.clone(),
        dense: dense(cx, found, along, vector),
    })
}

/// Longest rows that are interleaved: as many shuffles go into each vector, but one.
const SHORT: i64 = 4;

/// See [`Cross::dense`].
fn dense(cx: &LowerCx<'_>, found: &Study, along: &Loop, vector: &Loop) -> Option<AccessNote> {
    let [a, b] = &found.notes.accesses[..] else { return None };
    let store = if matches!(b.which, Which::Out(_)) { b } else { a };
    let dtype = |a: &AccessNote| cx.operand(a.which).dtype;
    let plain = cx.task.g.regions[cx.task.region].nodes.is_empty() && dtype(a) == dtype(b);
    let size = dtype(store).size() as i64;
    let row = vector.extent.as_const().filter(|n| (2..=SHORT).contains(n))?;
    let packed = found_coef(store, along).is(row * size) && size == 4;
    (plain && packed && matches!(store.which, Which::Out(_))).then(|| store.clone())
}

fn found_coef(a: &AccessNote, l: &Loop) -> Dim {
    a.bytes.coef(Atom(l.dim as u32))
}

/// What runs on vectors along the vector axis at a position.
pub type Body<'a, 't> = dyn FnMut(&mut LowerCx<'t>, &At) -> Made + 'a;

impl Cross {
    /// Bytes from the operand's origin at a position.
    fn bytes(&self, at: &At) -> Coord {
        bytes_of(&self.load, at)
    }

    /// Which loop a tile gets a span of, the other one being inside it whole: the longer one.
    pub fn cut(&self, cx: &LowerCx<'_>) -> &Loop {
        let (u, v) = (&self.along, &self.vector);
        if cx.estimate(&u.extent) >= cx.estimate(&v.extent) { u } else { v }
    }

    /// Runs `body` over a span of the loop that is cut and all of the other.
    pub fn run<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        span: &Span,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let along = self.cut(cx).dim == self.along.dim;
        let other = whole(cx, if along { &self.vector } else { &self.along });
        let (u, v) = if along { (span, &other) } else { (&other, span) };
        let lanes = cx.lanes as i64;
        let (full, done) = whole_steps(cx, u.count, lanes, false);
        if !matches!(full, Scalar::Const(0)) {
            cx.for_("ub", full, 0, |cx, axis| {
                self.columns(cx, at, (&u.base.clone().plus(axis, lanes), lanes), v, body)
            })?;
        }
        let base = after(&u.base, done);
        match rest_of(cx, u.count, &done) {
            Scalar::Const(0) => Ok(()),
            Scalar::Const(n) => cx.scope(|cx| self.columns(cx, at, (&base, n), v, body)),
            rest => cx.for_("u", rest, 0, |cx, axis| {
                let mut at = at.clone();
                at[self.along.dim] = cx.atom(base.clone().plus(axis, 1i64)).into();
                self.plain(cx, at, v, body)
            }),
        }
    }

    /// Vectors along the vector axis without blocks.
    fn plain<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        mut at: At,
        v: &Span,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let how = VectorLoop { unroll: 0, slack: false, wide: 1 };
        vectors(cx, v, how, &mut |cx, v| {
            at[self.vector.dim] = v[0].clone();
            body(cx, &at)
        })
    }

    /// `u.1` columns (at most `lanes`) starting at `u.0`, along a span of the vector axis.
    fn columns<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        u: (&AtomData, i64),
        v: &Span,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let lanes = cx.lanes as i64;
        let (full, done) = whole_steps(cx, v.count, lanes, false);
        if !matches!(full, Scalar::Const(0)) {
            cx.for_("vb", full, 0, |cx, axis| {
                self.block(cx, at, u, (&v.base.clone().plus(axis, lanes), lanes), body)
            })?;
        }
        let base = after(&v.base, done);
        match rest_of(cx, v.count, &done) {
            Scalar::Const(0) => Ok(()),
            Scalar::Const(n) => {
                let was = cx.active;
                if !self.roomy(cx, lanes - n) {
                    cx.active = Some(cx.b.first_lanes(cx.lanes, n));
                }
                let done = cx.scope(|cx| self.block(cx, at, u, (&base, n), body));
                cx.active = was;
                done
            }
            rest => cx.for_("i", u.1, 0, |cx, axis| {
                let mut at = at.clone();
                at[self.along.dim] = cx.atom(u.0.clone().plus(axis, 1i64)).into();
                self.plain(cx, at, &Span { base, count: rest }, body)
            }),
        }
    }

    /// May the outputs' rows be overwritten by `extra` elements?
    fn roomy(&self, cx: &LowerCx<'_>, extra: i64) -> bool {
        let mut others = cx.task.inputs.iter().enumerate();
        cx.task.outputs.iter().all(|o| o.slack >= extra)
            && others.all(|(i, o)| self.load.which == Which::In(i) || o.slack >= extra)
    }

    /// `u.1` columns from `u.0` by `v.1` rows of the vector axis from `v.0`.
    fn block<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        (u, columns): (&AtomData, i64),
        (v, rows): (&AtomData, i64),
        body: &mut Body<'_, 't>,
    ) -> Made {
        if let Some(store) = self.dense.as_ref().filter(|_| columns == cx.lanes as i64) {
            return self.interleave(cx, at, u, (v, rows), store);
        }
        let of = self.load.which;
        let (p, origin) = cx.ptr(of);
        let address = |cx: &mut LowerCx<'t>, j: i64| {
            let mut at = at.clone();
            at[self.along.dim] = cx.atom(u.clone().along_lanes()).into();
            at[self.vector.dim] = cx.atom(v.clone().offset(j)).into();
            let bytes = self.bytes(&at).plus(&origin);
            cx.address(Base::Param(p), &bytes).0
        };
        let turned = turned_rows(cx, of, rows, columns, address)?;
        let across = Coord::from(cx.atom(v.clone().along_lanes()));
        for (i, r) in turned.into_iter().enumerate() {
            let mut at = at.clone();
            at[self.along.dim] = cx.atom(u.clone().offset(i as i64)).into();
            at[self.vector.dim] = across.clone();
            let key = (of, self.bytes(&at));
            cx.preloaded.insert(key.clone(), r);
            let done = cx.scope(|cx| body(cx, &at));
            cx.preloaded.remove(&key);
            done?;
        }
        Ok(())
    }
}

impl Cross {
    /// A vector of each of a few input rows, written element by element of all of them.
    fn interleave(
        &self,
        cx: &mut LowerCx<'_>,
        at: &At,
        u: &AtomData,
        (v, rows): (&AtomData, i64),
        store: &AccessNote,
    ) -> Made {
        let lanes = cx.lanes as i64;
        let mut at = at.clone();
        at[self.along.dim] = cx.atom(u.clone()).into();
        let mut place = |cx: &mut LowerCx<'_>, access: &AccessNote, j: i64| {
            at[self.vector.dim] = cx.atom(v.clone().offset(j)).into();
            let (p, origin) = cx.ptr(access.which);
            cx.address(Base::Param(p), &bytes_of(access, &at).plus(&origin)).0
        };
        let dtype = cx.operand(store.which).dtype;
        let ty = cx.vector(elem_of(dtype)?, cx.lanes)?;
        let mut loaded = vec![];
        for j in 0..rows {
            let from = place(cx, &self.load, j);
            loaded.push(cx.b.load(ty, from, dtype, None));
        }
        let to = place(cx, store, 0);
        for part in 0..rows {
            // Lane `l` is element `(part × lanes + l) / rows` of that row.
            let lane = |l: i64| ((part * lanes + l) / rows, (part * lanes + l) % rows);
            let mut out = loaded[0];
            for (row, &r) in loaded.iter().enumerate().skip(1) {
                let pick = |l: i64| match lane(l) {
                    (e, of) if of == row as i64 => lanes + e,
                    (e, 0) if row == 1 => e,
                    _ => l,
                };
                out = cx.b.shuffle(out, r, (0..lanes).map(|l| pick(l) as u8).collect());
            }
            cx.b.store(out, to.clone().offset(part * lanes * dtype.size() as i64), dtype, None);
        }
        Ok(())
    }
}

/// Bytes from an operand's origin, at a position, of an access.
fn bytes_of(a: &AccessNote, at: &At) -> Coord {
    let konst = Coord::from(a.bytes.konst.clone());
    let each = a.bytes.terms.iter().map(|(a, k)| at[a.0 as usize].times(k));
    each.fold(konst, |s, c| s.add(&c))
}

/// The whole of a loop.
fn whole(cx: &mut LowerCx<'_>, l: &Loop) -> Span {
    let count = cx.scalar(&l.extent);
    Span { base: AtomData::konst(0i64, l.extent.clone()), count }
}

/// The index after `done` elements from `base`.
pub fn after(base: &AtomData, done: Scalar) -> AtomData {
    match done {
        Scalar::Const(k) => base.clone().offset(k),
        Scalar::Reg(r) => base.clone().plus(r, 1i64),
        Scalar::Param(p) => unreachable!("{p:?} is not a computed count"),
    }
}

/// Loads `rows` contiguous rows of an operand, `columns` elements of each, and turns them: register
/// `i` of the answer holds element `i` of every row.
pub fn turned_rows<'t>(
    cx: &mut LowerCx<'t>,
    of: Which,
    rows: i64,
    columns: i64,
    mut address: impl FnMut(&mut LowerCx<'t>, i64) -> Addr,
) -> Made<Vec<Reg>> {
    let op = cx.operand(of);
    let elem = match elem_of(op.dtype)? {
        Elem::Mask => Elem::I32,
        e => e,
    };
    let ty = cx.vector(elem, cx.lanes)?;
    let short = cx.lanes as i64 - columns;
    let mask = (short > 0 && op.slack < short).then(|| cx.b.first_lanes(cx.lanes, columns));
    let mut loaded = vec![];
    for j in 0..rows {
        let addr = address(cx, j);
        loaded.push(cx.b.load(ty, addr, op.dtype, mask));
    }
    let mut out = turned(cx, loaded, ty);
    out.truncate(columns as usize);
    Ok(out)
}

/// Columns of a block given by its rows (at most as many as lanes; missing ones hold anything).
pub fn turned(cx: &mut LowerCx<'_>, rows: Vec<Reg>, ty: RegTy) -> Vec<Reg> {
    let n = ty.lanes as usize;
    if rows.len() <= 4 {
        return (0..n).map(|i| column(cx, &rows, i, n)).collect();
    }
    transposed(&mut cx.b, &rows)
}

/// Column `i` of a few rows.
fn column(cx: &mut LowerCx<'_>, rows: &[Reg], i: usize, n: usize) -> Reg {
    let second = rows.get(1).copied().unwrap_or(rows[0]);
    let sel = (0..n).map(|l| if l == 1 { n + i } else { i } as u8).collect();
    let mut out = cx.b.shuffle(rows[0], second, sel);
    for (at, &row) in rows.iter().enumerate().skip(2) {
        let sel = (0..n).map(|l| if l == at { n + i } else { l } as u8).collect();
        out = cx.b.shuffle(out, row, sel);
    }
    out
}
