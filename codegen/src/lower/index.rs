//! Index-changing primitives that need more than other coordinates: counting, checked indices,
//! padding, concatenation, and reshapes that divide.

use super::coord::{Atom, AtomData, Coord};
use super::cx::{LowerCx, Made, unsupported};
use super::value::{aligned, elem_of};
use crate::kir::{BinOp, CmpOp, Cond, Elem, Reg, RegTy, Scalar, UnOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

impl LowerCx<'_> {
    /// The element of an integer register that can hold coordinates below `extent`.
    fn index_elem(&self, extent: &Dim) -> Elem {
        let (lo, hi) = self.bounds(extent);
        if lo >= -(1 << 30) && hi < 1 << 30 { Elem::I32 } else { Elem::I64 }
    }

    pub(super) fn iota(&mut self, c: &Coord, dtype: Dtype, lanes: usize) -> Made<Reg> {
        let to = elem_of(dtype)?;
        let narrow = self.index_elem(&self.greatest(c)) == Elem::I32;
        let via = match to {
            Elem::I32 | Elem::F32 if narrow => Elem::I32,
            _ => Elem::I64,
        };
        // The same in every lane: one scalar, whatever its width.
        if lanes > 1 && self.is_uniform(c) && to != Elem::Mask {
            let r = self.index_reg(c, RegTy::INDEX)?;
            let ty = self.vector(to, lanes)?;
            return Ok(self.splat_index(r, ty));
        }
        let ty = self.vector(via, lanes)?;
        let r = self.index_reg(c, ty)?;
        Ok(match to {
            Elem::Mask => {
                let zero = self.b.zero(ty);
                self.b.cmp(CmpOp::Ne, r, zero)
            }
            e if e == via => r,
            e => self.b.cvt(r, e),
        })
    }

    /// Is every coordinate below `a` certainly one below `b`?
    fn within(&self, a: &Dim, b: &Dim) -> bool {
        a == b || self.bounds(&b.sub(a)).0 >= 0
    }

    /// ONNX GatherElements: `ins[1]` holds the coordinate of an axis, the others are the element's own.
    pub(super) fn gather_elements(
        &mut self,
        ins: &[Value],
        axis: usize,
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Reg> {
        let g = self.task.g;
        let (dims, of) = (g.dims(ins[0]), g.dims(ins[1]));
        if !(0..of.len()).all(|a| a == axis || self.within(&of[a], &dims[a])) {
            return unsupported("indices that may be more than there are elements");
        }
        let mut inner = coords.to_vec();
        inner[axis] = self.checked_index(ins[1], coords, &dims[axis], lanes)?;
        self.value(ins[0], &inner, lanes)
    }

    /// ONNX GatherND: the last axis of `ins[1]` holds the coordinates of `ins[0]` after the first
    /// `batch`, which both share.
    pub(super) fn gather_nd(
        &mut self,
        ins: &[Value],
        batch: usize,
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Reg> {
        let g = self.task.g;
        let (dims, tuples) = (g.dims(ins[0]), g.dims(ins[1]));
        let Some((len, lead)) = tuples.split_last() else {
            return unsupported("tuples of a scalar");
        };
        let Some(len) = len.as_const().filter(|n| batch as i64 + n <= dims.len() as i64) else {
            return unsupported("tuples of unknown length");
        };
        if lead.len() < batch || lead[..batch] != dims[..batch] {
            return unsupported("tuples of another batch");
        }
        let mut inner = coords[..batch].to_vec();
        for i in 0..len {
            let at = [&coords[..lead.len()], &[Coord::from(Dim::from(i))]].concat();
            let bound = &dims[batch + i as usize];
            inner.push(self.checked_index(ins[1], &at, bound, lanes)?);
        }
        inner.extend_from_slice(&coords[lead.len()..]);
        self.value(ins[0], &inner, lanes)
    }

    /// The index below `bound` that `indices` holds at `at`, checked.
    pub(super) fn checked_index(
        &mut self,
        indices: Value,
        at: &[Coord],
        bound: &Dim,
        lanes: usize,
    ) -> Made<Coord> {
        let g = self.task.g;
        self.notes.traps = true;
        let limit = self.scalar(bound);
        let at = aligned(g.dims(indices), at);
        if at.iter().all(|c| self.is_uniform(c)) {
            let idx = self.value(indices, &at, 1)?;
            let ok = self.b.check_index(idx, limit);
            let ok = if self.b.ty(ok) == RegTy::INDEX { ok } else { self.b.cvt(ok, Elem::I64) };
            return Ok(self.atom(AtomData::var(ok, bound.clone())).into());
        }
        let mut idx = self.value(indices, &at, lanes)?;
        if let Some(m) = self.active {
            let zero = self.b.zero(self.b.ty(idx));
            idx = self.b.select(m, idx, zero);
        }
        let ok = self.b.check_index(idx, limit);
        Ok(self.lane_atom(ok, bound).into())
    }

    fn lane_atom(&mut self, r: Reg, extent: &Dim) -> Atom {
        let mut a = AtomData::konst(0i64, extent.clone());
        a.lane = Some(r);
        self.atom(a)
    }

    pub(super) fn pad(
        &mut self,
        v: Value,
        ins: &[Value],
        before: &[Dim],
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Reg> {
        let dims = self.task.g.dims(ins[0]);
        let inner: Vec<Coord> =
            coords.iter().zip(before).map(|(c, b)| c.plus(&b.times(-1))).collect();
        let outs = self.task.g.dims(v);
        let touched: Vec<usize> =
            (0..dims.len()).filter(|&a| !before[a].is(0) || outs[a] != dims[a]).collect();
        let fill = self.value(ins[1], &[], lanes)?;
        let tests: Vec<_> = touched.iter().map(|&a| (inner[a].clone(), dims[a].clone())).collect();
        self.guarded(&tests, fill, lanes, |cx| cx.value(ins[0], &inner, lanes))
    }

    /// `0 <= c < extent for all tests ? make() : other`; `make` runs only where that may hold, with
    /// the failing lanes off.
    fn guarded(
        &mut self,
        tests: &[(Coord, Dim)],
        other: Reg,
        lanes: usize,
        make: impl FnOnce(&mut Self) -> Made<Reg>,
    ) -> Made<Reg> {
        let (uniform, varying): (Vec<_>, Vec<_>) =
            tests.iter().cloned().partition(|(c, _)| self.is_uniform(c));
        let mut conds = vec![];
        for (c, extent) in uniform {
            let a = Scalar::Reg(self.index_reg(&c, RegTy::INDEX)?);
            let b = self.scalar(&extent);
            conds.push(Cond { op: CmpOp::ULt, a, b });
        }
        let ty = self.b.ty(other);
        let out = self.b.reg(ty);
        self.b.copy_to(out, other);
        self.nested_ifs(&conds, |cx| {
            let mask = cx.inside(&varying, lanes)?;
            let was = cx.active;
            cx.active = match (mask, was) {
                (Some(m), Some(w)) => Some(cx.b.bin(BinOp::And, m, w)),
                (m, w) => m.or(w),
            };
            let made = cx.scope(make);
            cx.active = was;
            let made = made?;
            let r = mask.map_or(made, |m| cx.choose(m, made, other));
            cx.b.copy_to(out, r);
            Ok(())
        })?;
        Ok(out)
    }

    fn nested_ifs(&mut self, conds: &[Cond], f: impl FnOnce(&mut Self) -> Made) -> Made {
        match conds {
            [] => f(self),
            [first, rest @ ..] => self.if_(*first, |cx| cx.nested_ifs_dyn(rest, Box::new(f))),
        }
    }

    fn nested_ifs_dyn<'a>(
        &mut self,
        conds: &[Cond],
        f: Box<dyn FnOnce(&mut Self) -> Made + 'a>,
    ) -> Made {
        match conds {
            [] => f(self),
            [first, rest @ ..] => self.if_(*first, |cx| cx.nested_ifs_dyn(rest, f)),
        }
    }

    /// The mask of lanes whose coordinates are all within `0..extent`.
    fn inside(&mut self, tests: &[(Coord, Dim)], lanes: usize) -> Made<Option<Reg>> {
        let mut mask = None;
        for (c, extent) in tests {
            let reach = self.greatest(c).max_of(extent);
            let ty = self.vector(self.index_elem(&reach), lanes)?;
            let idx = self.index_reg(c, ty)?;
            let n = self.splat_dim(extent, ty);
            let m = self.b.cmp(CmpOp::ULt, idx, n);
            mask = Some(mask.map_or(m, |w| self.b.bin(BinOp::And, w, m)));
        }
        Ok(mask)
    }

    pub(super) fn concat(
        &mut self,
        v: Value,
        ins: &[Value],
        axis: usize,
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Reg> {
        let ty = self.reg_ty(self.task.g.dtype(v), lanes)?;
        let mut out = self.b.zero(ty);
        let mut start = Dim::from(0i64);
        for &x in ins {
            let len = self.task.g.dims(x)[axis].clone();
            let mut inner = coords.to_vec();
            inner[axis] = coords[axis].plus(&start.times(-1));
            if let (true, Some(k), Some(n)) =
                (inner[axis].terms.is_empty(), inner[axis].konst.as_const(), len.as_const())
            {
                if (0..n).contains(&k) {
                    return self.value(x, &inner, lanes);
                }
            } else {
                let test = [(inner[axis].clone(), len.clone())];
                out = self.guarded(&test, out, lanes, |cx| cx.value(x, &inner, lanes))?;
            }
            start = start.add(&len);
        }
        Ok(out)
    }

    // ---- reshapes

    /// Coordinates in `from` of element `coords` of its reshape to `to`.
    pub(super) fn reshaped(
        &mut self,
        from: &[Dim],
        to: &[Dim],
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Vec<Coord>> {
        let mut out = vec![Coord::zero(); from.len()];
        for (ins, outs) in super::shape::reshape_groups(from, to) {
            let mut linear = Coord::zero();
            for &o in &outs {
                linear = linear.times(&to[o]).add(&coords[o]);
            }
            for (at, &i) in ins.iter().enumerate().rev() {
                if at == 0 {
                    out[i] = linear.clone();
                } else {
                    let (q, r) = self.div_mod(&linear, &from[i], lanes)?;
                    out[i] = r;
                    linear = q;
                }
            }
        }
        Ok(out)
    }

    /// Quotient and remainder of a coordinate that is not negative.
    pub fn div_mod(&mut self, c: &Coord, d: &Dim, lanes: usize) -> Made<(Coord, Coord)> {
        let (mut q, mut r) = (Coord::zero(), Coord::zero());
        for (a, k) in &c.terms {
            let whole = k.div_exact(d);
            let part = Coord::from(*a);
            match whole {
                Some(k) => q = q.add(&part.times(&k)),
                None => r = r.add(&part.times(k)),
            }
        }
        match (c.konst.as_const(), d.as_const()) {
            (Some(k), Some(n)) if n > 0 => {
                q.konst = k.div_euclid(n).into();
                r.konst = k.rem_euclid(n).into();
            }
            _ => match c.konst.div_exact(d) {
                Some(k) => q.konst = k,
                None => r.konst = c.konst.clone(),
            },
        }
        if self.below(&r, d) {
            return Ok((q, r));
        }
        let (q2, r) = self.divide(&r, d, lanes)?;
        Ok((q.add(&q2), r))
    }

    /// Is `0 <= c < d` certain?
    fn below(&self, c: &Coord, d: &Dim) -> bool {
        let positive = |k: &Dim| self.bounds(k).0 >= 0;
        positive(&c.konst)
            && c.terms.iter().all(|(_, k)| positive(k))
            && positive(&d.plus(-1).sub(&self.greatest(c)))
    }

    fn divide(&mut self, c: &Coord, d: &Dim, lanes: usize) -> Made<(Coord, Coord)> {
        let most = self.greatest(c);
        let quotients = most.div(d).plus(1);
        if self.is_uniform(c) {
            let x = self.index_reg(c, RegTy::INDEX)?;
            let n = self.splat_dim(d, RegTy::INDEX);
            let q = self.b.div(x, n);
            let r = self.b.bin(BinOp::Rem, x, n);
            let q = self.atom(AtomData::var(q, quotients));
            let r = self.atom(AtomData::var(r, d.clone()));
            return Ok((q.into(), r.into()));
        }
        if self.bounds(&most.plus(lanes as i64)).1 >= 1 << 22 {
            return unsupported("a reshape that splits the vector axis of a large tensor");
        }
        // (x + 1/2) / d in f32 never rounds across an integer for x below 2^22.
        let ty = self.vector(Elem::I32, lanes)?;
        let x = self.index_reg(c, ty)?;
        let n = self.splat_dim(d, ty);
        let (xf, nf) = (self.b.cvt(x, Elem::F32), self.b.cvt(n, Elem::F32));
        let half = self.b.const_f(ty.with(Elem::F32), 0.5);
        let xf = self.b.add(xf, half);
        let ratio = self.b.div(xf, nf);
        let whole = self.b.un(UnOp::Trunc, ratio);
        let q = self.b.cvt_round(whole, Elem::I32);
        let back = self.b.mul(q, n);
        let r = self.b.sub(x, back);
        Ok((self.lane_atom(q, &quotients).into(), self.lane_atom(r, d).into()))
    }
}
