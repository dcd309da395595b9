//! Depthwise convolutions: vectors run along channels of both operands, filters lie packed by
//! channels, and the taps along the innermost spatial axis are walked with every input vector
//! loaded once and used by all the output columns it belongs to.

use super::contract_mac::{Axis, Body, Mac, PANEL, likely, likely_count};
use super::contract_tile::{Cols, Pos, Tiler};
use super::conv::{Conv, first_window};
use super::cx::LowerCx;
use crate::kir::{Addr, Base, BinOp, CmpOp, Coef, Elem, Reg, Stmt};
use crate::task::{Format, Operand, Refused, Task};
use hub_abi::pgraph::Packing;
use hub_abi::prim::Geometry;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

/// The problem of a depthwise convolution (`groups == C == M`).
///
/// # Errors
/// What placement has to do first, or why there is no native kernel.
pub fn problem(task: &Task<'_>, c: &Conv<'_, '_>) -> Result<Mac, Refused> {
    problem_over(task, c, &task.inputs[c.x])
}

/// As [`problem`], of an image that lies as `x` says.
///
/// # Errors
/// As [`problem`].
pub fn problem_over(task: &Task<'_>, c: &Conv<'_, '_>, x: &Operand) -> Result<Mac, Refused> {
    let w = &task.inputs[c.w];
    let taps = Dim::product(&w.dims[2..]).as_const().filter(|&t| t > 0);
    let (Some(taps), Some(n)) = (taps, w.dims[0].as_const()) else {
        return Err(Refused::Unsupported("a depthwise filter of unknown size".into()));
    };
    let packing = Packing {
        outer: 1,
        n: n as u64,
        k: taps as u64,
        k_major: false,
        taps: taps as u64,
        block: PANEL as u64,
        v: 1,
    };
    let kernel: Vec<i64> = w.dims[2..].iter().map(likely).collect();
    let mac = window_mac(task, Body::Lanes, (c.x, x), c.out, &kernel, c.geo)?;
    if w.format != Format::Packed(packing.clone()) {
        return Err(Refused::Pack { input: c.w, packing });
    }
    let mut mac = Mac { name: "depthwise", vector: Some(c.w), panel: Some(taps * PANEL), ..mac };
    mac.n.v = taps.into();
    let mut at = PANEL;
    for k in mac.k.iter_mut().rev() {
        k.v = at.into();
        at *= likely(&k.dim);
    }
    finish(&mut mac);
    Ok(mac)
}

/// Most taps of a row that are laid out one after another; longer rows become loops.
const UNROLLED: i64 = 16;

/// Simplifies a problem of taps, so that its innermost reduced axis may be laid out.
pub fn finish(mac: &mut Mac) {
    mac.simplify();
    if mac.k.last().is_some_and(|k| likely(&k.dim) > UNROLLED) {
        let zero = Dim::from(0i64);
        mac.k.push(Axis { dim: 1i64.into(), s: zero.clone(), v: zero, out: None });
    }
}

/// The problem of sliding a window over `[N, C, spatial…]`, vectors along C; no second operand yet.
///
/// # Errors
/// Channels are not contiguous.
pub fn window_mac(
    task: &Task<'_>,
    body: Body,
    (x, o): (usize, &Operand),
    out: Value,
    kernel: &[i64],
    geo: &Geometry,
) -> Result<Mac, Refused> {
    let dims = task.g.dims(out);
    if !o.strides[1].is(1) && !o.dims[1].is(1) {
        return Err(Refused::Relayout { input: x, axis: 1 });
    }
    let axis = |dim: &Dim, s: Dim, out| Axis { dim: dim.clone(), s, v: 0i64.into(), out };
    let s = |a: usize, k: i64| o.strides[a + 2].times(k);
    let spatial = 0..kernel.len();
    Ok(Mac {
        name: "window",
        body,
        anchor: out,
        scalar: x,
        vector: None,
        batch: vec![axis(&dims[0], o.strides[0].clone(), Some((0, 1)))],
        rows: spatial
            .clone()
            .map(|a| axis(&dims[a + 2], s(a, geo.stride[a]), Some((a + 2, 1))))
            .collect(),
        n: axis(&dims[1], 1i64.into(), Some((1, 1))),
        panel: None,
        pairs: false,
        k: spatial.map(|a| axis(&kernel[a].into(), s(a, geo.dilation[a]), None)).collect(),
        start: first_window(o, geo),
        footprint: likely_count(&o.dims[1..]),
    })
}

/// Where the taps of one row of windows lie: addresses of column 0 and tap 0, by row of the tile and
/// vector.
struct Walk {
    x: Vec<Vec<Addr>>,
    w: Vec<Addr>,
    masks: Vec<Option<Reg>>,
    /// Of filters: where a vector is several panels, some may not be there.
    panels: Vec<Option<Reg>>,
}

impl Tiler<'_> {
    /// The accumulators of a window or depthwise tile: `[row][vector]`.
    pub fn taps(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
        cols: Cols,
    ) -> Vec<Vec<Reg>> {
        let nv = cols.vectors(self.sch.lanes);
        let size = self.s.dtype.size() as i64;
        let x = (0..th)
            .map(|h| {
                let at = self.row(pos, h, 0).s;
                let first = cx.address(self.s.base, &at).0;
                (0..nv).map(|j| first.clone().offset(j * self.sch.lanes * size)).collect()
            })
            .collect();
        let first = cx.address(self.v.base, &pos.v).0;
        let w = (0..nv).map(|j| first.clone().offset(self.column(j))).collect();
        let slack = match self.s.base {
            Base::Param(_) => cx.task.inputs[self.mac.scalar].slack,
            Base::Scratch => i64::MAX,
        };
        let masks = self.masks(cx, cols, slack);
        let panels = match self.spread {
            Some(_) => self.masks(cx, cols, 0),
            None => vec![None; nv as usize],
        };
        let acc: Vec<Vec<Reg>> =
            (0..th * tw).map(|_| (0..nv).map(|_| self.start(cx)).collect()).collect();
        self.outer_taps(cx, 0, &Walk { x, w, masks, panels }, tw, &acc);
        acc
    }

    /// What an accumulator holds before the first tap.
    fn start(&self, cx: &mut LowerCx<'_>) -> Reg {
        let ty = self.vec_ty();
        match (self.mac.body, self.elem) {
            (Body::Max, e) if e.is_float() => cx.b.const_f(ty, f64::NEG_INFINITY),
            (Body::Max, Elem::I32) => cx.b.const_i(ty, i32::MIN as i64),
            (Body::Max, _) => cx.b.const_i(ty, i64::MIN),
            _ => cx.b.zero(ty),
        }
    }

    /// Loops over all reduced axes but the innermost, which is unrolled.
    fn outer_taps(&self, cx: &mut LowerCx<'_>, depth: usize, at: &Walk, tw: i64, acc: &[Vec<Reg>]) {
        if depth + 1 >= self.mac.k.len() {
            return self.row_of_taps(cx, at, tw, acc);
        }
        let ax = &self.mac.k[depth];
        let s = cx.coef(&ax.s.times(self.s.dtype.size() as i64));
        let v = cx.coef(&ax.v.times(self.v.dtype.size() as i64));
        let axis = cx.b.axis(format!("k{depth}"));
        let moved = |a: &Addr, c: Coef| a.clone().plus(axis, c);
        let walk = Walk {
            x: at.x.iter().map(|r| r.iter().map(|a| moved(a, s)).collect()).collect(),
            w: at.w.iter().map(|a| moved(a, v)).collect(),
            masks: at.masks.clone(),
            panels: at.panels.clone(),
        };
        let extent = cx.scalar(&ax.dim);
        cx.b.begin();
        self.outer_taps(cx, depth + 1, &walk, tw, acc);
        let body = cx.b.end();
        cx.b.push(Stmt::For { axis, extent, unroll: 1, body });
    }

    /// One row of taps for every row of the tile. Where filter vectors fit the registers, every
    /// input vector is loaded once.
    fn row_of_taps(&self, cx: &mut LowerCx<'_>, at: &Walk, tw: i64, acc: &[Vec<Reg>]) {
        let one = self.mac.k.last();
        let taps = one.map_or(1, |k| likely(&k.dim));
        let nv = at.w.len() as i64;
        let held = if self.mac.body == Body::Lanes { taps * nv } else { 0 };
        let fits = self.mac.taps().held(acc.len() as i64, nv, cx.target.vector_regs as i64);
        let tap_v = one.map_or(Coef::from(0), |k| cx.coef(&k.v.times(self.v.dtype.size() as i64)));
        let step = &self.rows[1].s;
        let tap = one.map_or(Dim::from(0i64), |k| k.s.clone());
        let mut filters: Vec<Vec<Reg>> = vec![];
        if fits && held > 0 {
            for t in 0..taps {
                filters.push(self.filter(cx, at, tap_v, t));
            }
        }
        // Columns and taps that meet at one input element are the same distance from the first.
        let mut meets: Vec<(Dim, Vec<(i64, i64)>)> = vec![];
        for t in 0..taps {
            for c in 0..tw {
                let d = step.times(c).add(&tap.times(t));
                match meets.iter_mut().find(|m| m.0 == d && (fits || held == 0)) {
                    Some(m) => m.1.push((c, t)),
                    None => meets.push((d, vec![(c, t)])),
                }
            }
        }
        if fits {
            meets.sort_by_key(|m| m.0.as_const());
        }
        let size = self.s.dtype.size() as i64;
        for (h, row) in at.x.iter().enumerate() {
            let mut current: Option<(i64, Vec<Reg>)> = None;
            for (d, users) in &meets {
                let far = cx.coef(&d.times(size));
                for (j, a) in row.iter().enumerate() {
                    let x = self.input(cx, a.clone().row(1, far), at.masks[j]);
                    for &(c, t) in users {
                        let w = match (held > 0, filters.get(t as usize)) {
                            (false, _) => x,
                            (_, Some(f)) => f[j],
                            _ => self.streamed(cx, at, tap_v, t, j, &mut current),
                        };
                        self.tap(cx, acc[h * tw as usize + c as usize][j], x, w);
                    }
                }
            }
        }
    }

    fn input(&self, cx: &mut LowerCx<'_>, at: Addr, mask: Option<Reg>) -> Reg {
        cx.b.load(self.vec_ty(), at, self.s.dtype, mask)
    }

    /// The filter vectors of a tap.
    fn filter(&self, cx: &mut LowerCx<'_>, at: &Walk, step: Coef, tap: i64) -> Vec<Reg> {
        let (ty, dtype) = (self.vec_ty(), self.v.dtype);
        let each = at.w.iter().zip(&at.panels);
        each.map(|(a, m)| self.packed(cx, ty, &a.clone().row(tap, step), dtype, *m)).collect()
    }

    /// The filter vector of a tap, loaded when the walk comes to that tap.
    fn streamed(
        &self,
        cx: &mut LowerCx<'_>,
        at: &Walk,
        step: Coef,
        tap: i64,
        j: usize,
        current: &mut Option<(i64, Vec<Reg>)>,
    ) -> Reg {
        if current.as_ref().is_none_or(|c| c.0 != tap) {
            *current = Some((tap, self.filter(cx, at, step, tap)));
        }
        current.as_ref().map_or_else(|| unreachable!("set above"), |c| c.1[j])
    }

    /// Folds an input vector into an accumulator.
    fn tap(&self, cx: &mut LowerCx<'_>, acc: Reg, x: Reg, w: Reg) {
        match self.mac.body {
            Body::Sum => cx.b.bin_to(BinOp::Add, acc, acc, x),
            // The second operand wins where either is NaN, so only a NaN in `x` can be lost.
            Body::Max if self.elem.is_float() => {
                let m = cx.b.max(x, acc);
                let nan = cx.b.cmp(CmpOp::Ne, x, x);
                let r = cx.b.select(nan, x, m);
                cx.b.copy_to(acc, r);
            }
            Body::Max => cx.b.bin_to(BinOp::Max, acc, acc, x),
            _ if self.elem.is_float() => cx.b.fma_acc(acc, x, w),
            _ => {
                let p = cx.b.mul(x, w);
                cx.b.bin_to(BinOp::Add, acc, acc, p);
            }
        }
    }
}

/// Element types that signed comparison orders.
pub fn ordered(d: Dtype) -> bool {
    !matches!(d, Dtype::U32 | Dtype::U64 | Dtype::Bool)
}
