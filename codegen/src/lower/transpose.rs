//! Square blocks for movement between layouts: where the contiguous axis of an input is not that of
//! the output, blocks of `lanes × lanes` elements are loaded as contiguous rows, turned in registers,
//! and the body runs on contiguous columns.

use super::coord::{Atom, AtomData, Coord};
use super::cx::{AccessNote, LowerCx, Made};
use super::nest::{At, Span, VectorLoop, rest_of, vectors, whole_steps};
use super::study::{Loop, Study};
use super::value::elem_of;
use crate::kir::turn::transposed;
use crate::kir::{Base, Elem, Reg, RegTy, Scalar};
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
}

/// The one crossing load of a nest, if blocks serve it: `loops` are arranged, the vector axis last.
pub fn find(cx: &LowerCx<'_>, found: &Study, loops: &[Loop]) -> Option<Cross> {
    let (vector, others) = loops.split_last()?;
    let few = cx.target.vector_regs < cx.lanes + cx.lanes / 2;
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
    let long = cx.estimate(&along.extent) >= cx.lanes as i64;
    let fits = matches!(wide, Elem::F32 | Elem::I32 | Elem::Mask) && !found.is_pinned(along.dim);
    (long && fits).then(|| Cross {
        load: load.clone(),
        along: along.clone(),
        vector: vector.clone(),
    })
}

fn found_coef(a: &AccessNote, l: &Loop) -> Dim {
    a.bytes.coef(Atom(l.dim as u32))
}

/// What runs on vectors along the vector axis at a position.
pub type Body<'a, 't> = dyn FnMut(&mut LowerCx<'t>, &At) -> Made + 'a;

impl Cross {
    /// Bytes from the operand's origin at a position.
    fn bytes(&self, at: &At) -> Coord {
        let konst = Coord::from(self.load.bytes.konst.clone());
        let each = self.load.bytes.terms.iter().map(|(a, k)| at[a.0 as usize].times(k));
        each.fold(konst, |s, c| s.add(&c))
    }

    /// Runs `body` over a span of the loop along which the load is contiguous, and the whole
    /// vector axis.
    pub fn run<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        span: &Span,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let lanes = cx.lanes as i64;
        let (full, done) = whole_steps(cx, span.count, lanes, false);
        if !matches!(full, Scalar::Const(0)) {
            cx.for_("ub", full, 0, |cx, axis| {
                self.columns(cx, at, &span.base.clone().plus(axis, lanes), body)
            })?;
        }
        let rest = rest_of(cx, span.count, &done);
        if matches!(rest, Scalar::Const(0)) {
            return Ok(());
        }
        let base = match done {
            Scalar::Const(k) => span.base.clone().offset(k),
            Scalar::Reg(r) => span.base.clone().plus(r, 1i64),
            Scalar::Param(p) => unreachable!("{p:?} is not a computed count"),
        };
        cx.for_("u", rest, 0, |cx, axis| {
            let mut at = at.clone();
            at[self.along.dim] = cx.atom(base.clone().plus(axis, 1i64)).into();
            let span = self.whole(cx);
            let how = VectorLoop { unroll: 0, slack: false, wide: 1 };
            vectors(cx, &span, how, &mut |cx, v| {
                at[self.vector.dim] = v[0].clone();
                body(cx, &at)
            })
        })
    }

    fn whole(&self, cx: &mut LowerCx<'_>) -> Span {
        let count = cx.scalar(&self.vector.extent);
        Span { base: AtomData::konst(0i64, self.vector.extent.clone()), count }
    }

    /// `lanes` columns starting at `u`, along the whole vector axis.
    fn columns<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        u: &AtomData,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let lanes = cx.lanes as i64;
        let whole = self.whole(cx);
        let (full, done) = whole_steps(cx, whole.count, lanes, false);
        if !matches!(full, Scalar::Const(0)) {
            cx.for_("vb", full, 0, |cx, axis| {
                self.block(cx, at, u, &whole.base.clone().plus(axis, lanes), lanes, body)
            })?;
        }
        match rest_of(cx, whole.count, &done) {
            Scalar::Const(0) => Ok(()),
            Scalar::Const(n) => {
                let v = whole.base.clone().offset(self.vector.extent.plus(-n));
                let was = cx.active;
                if !self.roomy(cx, lanes - n) {
                    cx.active = Some(cx.b.first_lanes(cx.lanes, n));
                }
                let done = cx.scope(|cx| self.block(cx, at, u, &v, n, body));
                cx.active = was;
                done
            }
            rest => self.tail(cx, at, u, (done, rest), body),
        }
    }

    /// May the outputs' rows be overwritten by `extra` elements?
    fn roomy(&self, cx: &LowerCx<'_>, extra: i64) -> bool {
        let mut others = cx.task.inputs.iter().enumerate();
        cx.task.outputs.iter().all(|o| o.slack >= extra)
            && others.all(|(i, o)| self.load.which == Which::In(i) || o.slack >= extra)
    }

    /// The part of columns that does not fill a block, of unknown size.
    fn tail<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        u: &AtomData,
        (done, rest): (Scalar, Scalar),
        body: &mut Body<'_, 't>,
    ) -> Made {
        let start = cx.b.scalar(done);
        let base = AtomData::konst(0i64, self.vector.extent.clone()).plus(start, 1i64);
        cx.for_("i", cx.lanes as i64, 0, |cx, axis| {
            let mut at = at.clone();
            at[self.along.dim] = cx.atom(u.clone().plus(axis, 1i64)).into();
            let span = Span { base, count: rest };
            let how = VectorLoop { unroll: 0, slack: false, wide: 1 };
            vectors(cx, &span, how, &mut |cx, v| {
                at[self.vector.dim] = v[0].clone();
                body(cx, &at)
            })
        })
    }

    /// `lanes` columns from `u` by `rows` of the vector axis from `v`.
    fn block<'t>(
        &self,
        cx: &mut LowerCx<'t>,
        at: &At,
        u: &AtomData,
        v: &AtomData,
        rows: i64,
        body: &mut Body<'_, 't>,
    ) -> Made {
        let of = self.load.which;
        let dtype = cx.operand(of).dtype;
        let ty = match elem_of(dtype)? {
            Elem::Mask => RegTy::new(Elem::I32, cx.lanes),
            e => RegTy::new(e, cx.lanes),
        };
        let (p, origin) = cx.ptr(of);
        let mut loaded = vec![];
        for j in 0..rows {
            let mut at = at.clone();
            at[self.along.dim] = cx.atom(u.clone().along_lanes()).into();
            at[self.vector.dim] = cx.atom(v.clone().offset(j)).into();
            let bytes = self.bytes(&at).plus(&origin);
            let (addr, _) = cx.address(Base::Param(p), &bytes);
            loaded.push(cx.b.load(ty, addr, dtype, None));
        }
        let columns = turned(cx, loaded, ty);
        let across = Coord::from(cx.atom(v.clone().along_lanes()));
        for (i, r) in columns.into_iter().enumerate() {
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

/// Columns of a block given by its rows (at most as many as lanes; missing ones hold anything).
fn turned(cx: &mut LowerCx<'_>, rows: Vec<Reg>, ty: RegTy) -> Vec<Reg> {
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
