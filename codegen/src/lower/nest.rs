//! Tiles and loops around a body: which loops are the grid, which run inside a tile, and the vector
//! loop with its tail.

use super::coord::{AtomData, Coord};
use super::cx::{LowerCx, Made};
use super::study::Loop;
use crate::kir::{BinOp, CmpOp, Cond, Reg, RegTy, Scalar, Var};
use hub_abi::Dim;

/// How a nest's loops are laid out.
#[derive(Clone, Debug)]
pub struct Tiling {
    /// Loops before this one are grid axes whole; this one is cut into chunks (one grid axis); the
    /// ones after it run inside the tile.
    pub cut: usize,
    /// Iterations of the cut loop in a tile.
    pub chunk: i64,
    /// The chunks are all whole.
    pub whole: bool,
}

/// Chooses tiles of about `target` innermost iterations. Extents are estimated where unknown.
pub fn tiling(cx: &LowerCx<'_>, loops: &[Loop], target: i64, align: i64) -> Tiling {
    let mut inside = 1i64;
    for (i, l) in loops.iter().enumerate().rev() {
        let n = cx.estimate(&l.extent).max(1);
        let known = l.extent.as_const();
        if i == 0 || inside.saturating_mul(n) > target {
            let align = if i + 1 == loops.len() { align } else { 1 };
            let most = (target / inside).max(1).div_euclid(align).max(1) * align;
            let chunk = match known {
                Some(n) if n <= most => n.max(1),
                Some(n) => even_chunk(n, most, align),
                None => most,
            };
            return Tiling { cut: i, chunk, whole: known.is_some_and(|n| n % chunk == 0) };
        }
        inside = inside.saturating_mul(n);
    }
    Tiling { cut: 0, chunk: 1, whole: true }
}

/// The largest divisor of `n` in `most/2..=most` that is a multiple of `align`, else `most`.
fn even_chunk(n: i64, most: i64, align: i64) -> i64 {
    (most / 2 + 1..=most).rev().find(|c| n % c == 0 && c % align == 0).unwrap_or(most)
}

impl Tiling {
    /// Extents of the grid axes.
    pub fn grid(&self, cx: &LowerCx<'_>, loops: &[Loop]) -> Vec<Dim> {
        let mut out: Vec<Dim> = loops.iter().take(self.cut).map(|l| l.extent.clone()).collect();
        let Some(cut) = loops.get(self.cut) else { return vec![1i64.into()] };
        out.push(cut.extent.div_ceil(&Dim::from(self.chunk)));
        // An inner extent of 0 must leave no tile.
        for l in &loops[self.cut + 1..] {
            if cx.bounds(&l.extent).0 <= 0 {
                out[0] = out[0].mul(&l.extent.min_of(&1i64.into()));
            }
        }
        out
    }

    /// Iterations of the cut loop in the tile whose chunk index is `chunk`.
    fn count(&self, cx: &mut LowerCx<'_>, l: &Loop, chunk: Var) -> Scalar {
        if self.whole {
            return self.chunk.into();
        }
        let k = cx.coef(&l.extent);
        let left = crate::kir::Affine::default().plus(Var::One, k).plus(chunk, -self.chunk);
        let left = cx.b.index(left);
        let most = cx.b.const_i(RegTy::INDEX, self.chunk);
        Scalar::Reg(cx.b.min(left, most))
    }
}

/// A position in a nest: a coordinate per dim of the domain (merged and absent dims are 0).
pub type At = Vec<Coord>;

/// The innermost loop's part of a tile.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its first index: grid part.
    pub base: AtomData,
    /// How many.
    pub count: Scalar,
}

/// Runs `inner` for every position of a tile's loops but the last, with the span of the last one.
/// `grid` are the variables of [`Tiling::grid`]'s axes.
pub fn tile<'t>(
    cx: &mut LowerCx<'t>,
    loops: &[Loop],
    t: &Tiling,
    grid: &[Var],
    at: At,
    inner: &mut dyn FnMut(&mut LowerCx<'t>, At, Span) -> Made,
) -> Made {
    let mut at = at;
    for (l, &v) in loops.iter().zip(&grid[..grid.len() - 1]) {
        at[l.dim] = cx.atom(AtomData::var(v, l.extent.clone())).into();
    }
    let Some(cut) = loops.get(t.cut) else {
        let base = AtomData::konst(0i64, 1i64.into());
        return inner(cx, at, Span { base, count: 1.into() });
    };
    let count = t.count(cx, cut, grid[grid.len() - 1]);
    let mut base = AtomData::konst(0i64, cut.extent.clone());
    if !(t.whole && cut.extent.is(t.chunk)) {
        base = base.plus(grid[grid.len() - 1], t.chunk);
    }
    nested(cx, &loops[t.cut..], at, Span { base, count }, inner)
}

fn nested<'t>(
    cx: &mut LowerCx<'t>,
    loops: &[Loop],
    at: At,
    span: Span,
    inner: &mut dyn FnMut(&mut LowerCx<'t>, At, Span) -> Made,
) -> Made {
    if loops.len() <= 1 {
        return inner(cx, at, span);
    }
    let next = loops[1].extent.clone();
    let count = cx.scalar(&next);
    cx.for_(&format!("i{}", loops[0].dim), span.count, 0, |cx, axis| {
        let mut at = at;
        at[loops[0].dim] = cx.atom(span.base.clone().plus(axis, 1i64)).into();
        let span = Span { base: AtomData::konst(0i64, next), count };
        nested(cx, &loops[1..], at, span, inner)
    })
}

/// How the vector loop is run.
#[derive(Clone, Copy, Debug)]
pub struct VectorLoop {
    /// Copies of the body in a row.
    pub unroll: u32,
    /// Lanes past the end may be touched: no masked tail.
    pub slack: bool,
    /// Vectors an iteration; the body gets as many coordinates (and a tail one at a time).
    pub wide: usize,
}

/// Runs `body` over the span of a vector axis: full vectors, then (unless there is slack) the tail
/// with the missing lanes off. It gets the axis's coordinates, one a vector.
pub fn vectors<'t>(
    cx: &mut LowerCx<'t>,
    span: &Span,
    how: VectorLoop,
    body: &mut dyn FnMut(&mut LowerCx<'t>, &[Coord]) -> Made,
) -> Made {
    let lanes = cx.lanes as i64;
    let step = lanes * how.wide as i64;
    let coords = |cx: &mut LowerCx<'t>, at: AtomData, n: usize| -> Vec<Coord> {
        let one = |i: usize| at.clone().offset(i as i64 * lanes).along_lanes();
        (0..n).map(|i| cx.atom(one(i)).into()).collect()
    };
    let (full, done) = whole_steps(cx, span.count, step, how.slack && how.wide == 1);
    if !matches!(full, Scalar::Const(0)) {
        cx.for_("v", full, how.unroll, |cx, axis| {
            let at = coords(cx, span.base.clone().plus(axis, step), how.wide);
            body(cx, &at)
        })?;
    }
    if how.slack && how.wide == 1 {
        return Ok(());
    }
    let rest = rest_of(cx, span.count, &done);
    if matches!(rest, Scalar::Const(0)) {
        return Ok(());
    }
    let base = super::transpose::after(&span.base, done);
    if how.wide == 1 {
        return tail(cx, base, rest, how.slack, body);
    }
    // What wide steps left: single vectors and their tail.
    let rest = Span { base, count: rest };
    let one = VectorLoop { unroll: 0, slack: how.slack, wide: 1 };
    vectors(cx, &rest, one, body)
}

/// `count / step` (rounded up where `up`), and the elements that these cover.
pub fn whole_steps(cx: &mut LowerCx<'_>, count: Scalar, step: i64, up: bool) -> (Scalar, Scalar) {
    let extra = if up { step - 1 } else { 0 };
    if let Scalar::Const(n) = count {
        let k = (n + extra) / step;
        return (k.into(), (k * step).into());
    }
    let n = cx.b.scalar(count);
    let n = if extra > 0 {
        cx.b.index(crate::kir::Affine::default().plus(n, 1).offset(extra))
    } else {
        n
    };
    let shift = cx.b.const_i(RegTy::INDEX, step.trailing_zeros() as i64);
    let k = cx.b.bin(BinOp::Shr, n, shift);
    let done = cx.b.index(crate::kir::Affine::default().plus(k, step));
    (k.into(), done.into())
}

/// `count - done`.
pub fn rest_of(cx: &mut LowerCx<'_>, count: Scalar, done: &Scalar) -> Scalar {
    match (count, done) {
        (Scalar::Const(n), Scalar::Const(d)) => (n - d).into(),
        (n, d) => {
            let (n, d) = (cx.b.scalar(n), cx.b.scalar(*d));
            Scalar::Reg(cx.b.sub(n, d))
        }
    }
}

/// The last vector, partly there.
fn tail<'t>(
    cx: &mut LowerCx<'t>,
    base: AtomData,
    rest: Scalar,
    slack: bool,
    body: &mut dyn FnMut(&mut LowerCx<'t>, &[Coord]) -> Made,
) -> Made {
    let mut run = |cx: &mut LowerCx<'t>| {
        let was = cx.active;
        if !slack {
            cx.active = Some(cx.b.first_lanes(cx.lanes, rest));
        }
        let at = Coord::from(cx.atom(base.clone().along_lanes()));
        let done = cx.scope(|cx| body(cx, &[at]));
        cx.active = was;
        done
    };
    match rest {
        Scalar::Const(_) => run(cx),
        _ => cx.if_(Cond { op: CmpOp::Gt, a: rest, b: 0.into() }, run),
    }
}

/// Variables of a grid: axes of the kernel's own grid, or parts of a tile index in a register.
pub fn grid_vars(cx: &mut LowerCx<'_>, grid: &[Dim], index: Option<Reg>) -> Vec<Var> {
    let Some(mut left) = index else {
        let axis = |(i, d): (usize, &Dim)| Var::Axis(cx.grid(&format!("g{i}"), d));
        return grid.iter().enumerate().map(axis).collect();
    };
    let mut out = vec![];
    for (i, d) in grid.iter().enumerate().rev() {
        if i == 0 {
            out.push(Var::Reg(left));
        } else if d.is(1) {
            out.push(Var::Reg(cx.b.zero(RegTy::INDEX)));
        } else {
            let n = cx.splat_dim(d, RegTy::INDEX);
            out.push(Var::Reg(cx.b.bin(BinOp::Rem, left, n)));
            left = cx.b.div(left, n);
        }
    }
    out.reverse();
    out
}
