//! The generator: asked for a value of the region at coordinates, it emits the instructions that
//! make it, by recursion over the region, and answers the register.
//!
//! Index-changing primitives only change the coordinates on the way to the operands. A register
//! has the context's lanes (coordinates that do not vary by lane give the same value in each) or
//! one lane, for uniform integers that become addresses. Lanes that [`LowerCx::active`] turns off
//! hold anything.

use super::coord::{AtomData, Coord};
use super::cx::{Fail, LowerCx, Made, unsupported};
use super::elem;
use crate::kir::{BinOp, CmpOp, Cond, Elem, Reg, RegTy, Scalar};
use crate::task::{Format, Which};
use hub_abi::prim::{PadMode, Prim};
use hub_abi::{Dim, Dtype};
use hub_ir::{Def, Node, Op, Value};

/// The register element for values of a dtype.
pub fn elem_of(d: Dtype) -> Made<Elem> {
    use Dtype::*;
    match d {
        F32 | F16 | BF16 => Ok(Elem::F32),
        F64 => Ok(Elem::F64),
        I8 | U8 | I16 | U16 | I32 | U32 => Ok(Elem::I32),
        I64 | U64 => Ok(Elem::I64),
        Bool => Ok(Elem::Mask),
        _ => unsupported(format!("values of type {d}")),
    }
}

/// Coordinates of an operand of `dims` that is broadcast to a value at `coords`.
pub fn aligned(dims: &[Dim], coords: &[Coord]) -> Vec<Coord> {
    let skip = coords.len() - dims.len();
    let one = |(d, c): (&Dim, &Coord)| if d.is(1) { Coord::zero() } else { c.clone() };
    dims.iter().zip(&coords[skip..]).map(one).collect()
}

impl LowerCx<'_> {
    /// Value `v` at `coords` (one an axis) in `lanes` lanes: the context's, or 1 where the
    /// coordinates are uniform.
    pub fn value(&mut self, v: Value, coords: &[Coord], lanes: usize) -> Made<Reg> {
        let coords = aligned(self.task.g.dims(v), coords);
        if let Some(r) = self.recall(v, &coords, lanes) {
            return Ok(r);
        }
        if self.is_given(v) {
            return unsupported(format!("{v} is needed at other coordinates than it is made"));
        }
        if let Some(r) = self.take_kept(v, &coords, lanes) {
            self.remember(v, &coords, lanes, r);
            return Ok(r);
        }
        let r = match self.task.g.values[v].def {
            Def::Param(r, i) if r == self.task.region => self.load(i as usize, &coords, lanes)?,
            Def::Param(..) => return unsupported("a param of another region"),
            Def::Node(n, 0) => self.node(n, v, &coords, lanes)?,
            Def::Node(..) => return unsupported("a second output"),
        };
        self.remember(v, &coords, lanes, r);
        Ok(r)
    }

    /// The register type of a value of this dtype.
    pub fn reg_ty(&self, d: Dtype, lanes: usize) -> Made<RegTy> {
        self.vector(elem_of(d)?, lanes)
    }

    fn node(&mut self, n: Node, v: Value, coords: &[Coord], lanes: usize) -> Made<Reg> {
        let g = self.task.g;
        match &g.nodes[n].op {
            Op::Const(_) => self.constant(v, lanes),
            Op::Prim(p) => self.prim(p, v, &g.nodes[n].inputs, coords, lanes),
            op => unsupported(format!("{op:?} inside a group")),
        }
    }

    fn constant(&mut self, v: Value, lanes: usize) -> Made<Reg> {
        let g = self.task.g;
        let c = g.as_const(v).expect("the node is a constant");
        let Some(x) = elem::const_number(c) else {
            return unsupported("a constant tensor inside a group");
        };
        self.number(c.ty.dtype, x, lanes)
    }

    /// A number in every lane.
    pub fn number(&mut self, d: Dtype, x: elem::Number, lanes: usize) -> Made<Reg> {
        let ty = self.reg_ty(d, lanes)?;
        Ok(match (ty.elem, x) {
            (Elem::Mask, x) => self.b.const_bits(ty, u64::from(!x.is_zero())),
            (e, x) if e.is_float() => self.b.const_f(ty, x.as_f64()),
            (_, x) => self.b.const_i(ty, x.as_i64()),
        })
    }

    fn prim(
        &mut self,
        p: &Prim,
        v: Value,
        ins: &[Value],
        coords: &[Coord],
        lanes: usize,
    ) -> Made<Reg> {
        let g = self.task.g;
        match p {
            Prim::Unary(_) | Prim::Binary(_) | Prim::Select | Prim::Cast { .. } => {
                let regs = ins.iter().map(|&x| self.value(x, coords, lanes));
                let regs = regs.collect::<Made<Vec<_>>>()?;
                self.elementwise(p, v, ins, &regs)
            }
            Prim::Bitcast { to } => {
                let r = self.value(ins[0], coords, lanes)?;
                self.bitcast(r, g.dtype(ins[0]), *to)
            }
            Prim::Reduce { axes, .. } if axes.is_empty() => self.value(ins[0], coords, lanes),
            Prim::Broadcast { .. } => self.value(ins[0], coords, lanes),
            Prim::Transpose { perm } => {
                let mut inner = coords.to_vec();
                perm.iter().enumerate().for_each(|(o, &i)| inner[i as usize] = coords[o].clone());
                self.value(ins[0], &inner, lanes)
            }
            Prim::Slice { start, step, .. } => {
                let at = |a: usize| coords[a].times(&Dim::from(step[a])).plus(&start[a]);
                let inner: Vec<_> = (0..coords.len()).map(at).collect();
                self.value(ins[0], &inner, lanes)
            }
            Prim::Reshape { .. } => {
                let inner = self.reshaped(g.dims(ins[0]), g.dims(v), coords, lanes)?;
                self.value(ins[0], &inner, lanes)
            }
            Prim::Pad { before, mode: PadMode::Constant, .. } => {
                self.pad(v, ins, before, coords, lanes)
            }
            Prim::Concat { axis } => self.concat(v, ins, *axis as usize, coords, lanes),
            Prim::Iota { dtype, axis, .. } => self.iota(&coords[*axis as usize], *dtype, lanes),
            Prim::Dims { dims, scalar: true } => {
                self.iota(&Coord::from(dims[0].clone()), Dtype::I64, lanes)
            }
            Prim::Gather { axis } => {
                let (a, rank) = (*axis as usize, g.dims(ins[1]).len());
                let at = self.checked_index(ins, &coords[a..a + rank], a, lanes)?;
                let inner = [&coords[..a], &[at], &coords[a + rank..]].concat();
                self.value(ins[0], &inner, lanes)
            }
            Prim::GatherElements { axis } => {
                let at = self.checked_index(ins, coords, *axis as usize, lanes)?;
                let mut inner = coords.to_vec();
                inner[*axis as usize] = at;
                self.value(ins[0], &inner, lanes)
            }
            p => unsupported(format!("{} inside a group", elem::prim_name(p))),
        }
    }

    // ---- loads

    fn load(&mut self, input: usize, coords: &[Coord], lanes: usize) -> Made<Reg> {
        let op = self.operand(Which::In(input));
        if let Some(x) = op.splat {
            return self.number(op.dtype, elem::Number::Float(x), lanes);
        }
        if op.format != Format::Strided {
            return unsupported(format!("packed input {input} outside its contraction"));
        }
        self.read(Which::In(input), coords, lanes)
    }

    /// Loads element `coords` of an operand (any access pattern).
    pub fn read(&mut self, of: Which, coords: &[Coord], lanes: usize) -> Made<Reg> {
        let dtype = self.operand(of).dtype;
        let elem = match elem_of(dtype)? {
            Elem::Mask => Elem::I32,
            e => e,
        };
        let ty = self.vector(elem, lanes)?;
        let r = match self.preloaded(of, coords, ty) {
            Some(r) => r,
            None => self.load_at(of, coords, ty)?,
        };
        if dtype != Dtype::Bool {
            return Ok(r);
        }
        let zero = self.b.zero(ty);
        Ok(self.b.cmp(CmpOp::Ne, r, zero))
    }

    fn preloaded(&self, of: Which, coords: &[Coord], ty: RegTy) -> Option<Reg> {
        if self.preloaded.is_empty() {
            return None;
        }
        let r = self.preloaded.get(&(of, self.byte_offset(of, coords))).copied();
        r.filter(|&r| self.b.ty(r) == ty)
    }

    fn load_at(&mut self, of: Which, coords: &[Coord], ty: RegTy) -> Made<Reg> {
        let (dtype, lanes) = (self.operand(of).dtype, ty.lanes as usize);
        let at = self.locate(of, coords, lanes)?;
        let size = dtype.size() as i64;
        let r = if lanes == 1 {
            if !at.step.is(0) || at.lane.is_some() {
                return unsupported("a scalar at coordinates that vary by lane");
            }
            self.b.load(ty, at.addr, dtype, None)
        } else if let Some((idx, stride)) = at.lane {
            self.b.gather(ty, at.addr, idx, stride, dtype, self.active)
        } else if at.step.is(0) {
            self.b.load_splat(ty, at.addr, dtype)
        } else if at.step.is(size) {
            self.b.load(ty, at.addr, dtype, self.active)
        } else {
            let step = self.coef(&at.step);
            self.b.load_strided(ty, at.addr, step, dtype, self.active)
        };
        Ok(r)
    }

    /// Stores a value to element `coords` of an output; lanes that are off stay as they are.
    pub fn store(&mut self, out: usize, coords: &[Coord], src: Reg) -> Made {
        let of = Which::Out(out);
        let dtype = self.operand(of).dtype;
        let lanes = self.b.ty(src).lanes as usize;
        let src =
            if self.b.ty(src).elem == Elem::Mask { self.mask_to(src, Elem::I32) } else { src };
        if !self.b.ty(src).elem.accepts(dtype) {
            return unsupported(format!("storing {} as {dtype}", self.b.ty(src)));
        }
        let at = self.locate(of, coords, lanes)?;
        if at.lane.is_some() {
            return unsupported("a scattered store");
        }
        let mask = if lanes == 1 { None } else { self.active };
        if lanes == 1 || at.step.is(dtype.size() as i64) {
            self.b.store(src, at.addr, dtype, mask);
        } else if at.step.is(0) {
            let one = self.b.extract(src, 0);
            self.b.store(one, at.addr, dtype, None);
        } else {
            let step = self.coef(&at.step);
            self.b.store_strided(src, at.addr, step, dtype, mask);
        }
        Ok(())
    }

    /// 1 and 0 for a mask's lanes.
    pub fn mask_to(&mut self, mask: Reg, elem: Elem) -> Reg {
        let ty = self.b.ty(mask).with(elem);
        let bits =
            |x: f64| if elem == Elem::F64 { x.to_bits() } else { (x as f32).to_bits() as u64 };
        let one = self.b.const_bits(ty, if elem.is_float() { bits(1.0) } else { 1 });
        let zero = self.b.zero(ty);
        self.b.select(mask, one, zero)
    }

    /// `mask ? a : b` of any type.
    pub fn choose(&mut self, mask: Reg, a: Reg, b: Reg) -> Reg {
        if self.b.ty(a).elem != Elem::Mask {
            return self.b.select(mask, a, b);
        }
        let on = self.b.bin(BinOp::And, mask, a);
        let off = self.b.bin(BinOp::AndNot, mask, b);
        self.b.bin(BinOp::Or, on, off)
    }

    // ---- index maps

    /// The element of an integer register that can hold coordinates below `extent`.
    fn index_elem(&self, extent: &Dim) -> Elem {
        let (lo, hi) = self.bounds(extent);
        if lo >= -(1 << 30) && hi < 1 << 30 { Elem::I32 } else { Elem::I64 }
    }

    fn iota(&mut self, c: &Coord, dtype: Dtype, lanes: usize) -> Made<Reg> {
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

    /// The index that `ins[1]` holds at `at` into axis `axis` of `ins[0]`, checked.
    fn checked_index(
        &mut self,
        ins: &[Value],
        at: &[Coord],
        axis: usize,
        lanes: usize,
    ) -> Made<Coord> {
        let g = self.task.g;
        let bound = &g.dims(ins[0])[axis];
        self.notes.traps = true;
        let limit = self.scalar(bound);
        let at = aligned(g.dims(ins[1]), at);
        if at.iter().all(|c| self.is_uniform(c)) {
            let idx = self.value(ins[1], &at, 1)?;
            let ok = self.b.check_index(idx, limit);
            let ok = if self.b.ty(ok) == RegTy::INDEX { ok } else { self.b.cvt(ok, Elem::I64) };
            return Ok(self.atom(AtomData::var(ok, bound.clone())).into());
        }
        let mut idx = self.value(ins[1], &at, lanes)?;
        if let Some(m) = self.active {
            let zero = self.b.zero(self.b.ty(idx));
            idx = self.b.select(m, idx, zero);
        }
        let ok = self.b.check_index(idx, limit);
        Ok(self.lane_atom(ok, bound).into())
    }

    fn lane_atom(&mut self, r: Reg, extent: &Dim) -> super::coord::Atom {
        let mut a = AtomData::konst(0i64, extent.clone());
        a.lane = Some(r);
        self.atom(a)
    }

    fn pad(
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

    fn concat(
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
    fn reshaped(
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
        let whole = self.b.un(crate::kir::UnOp::Trunc, ratio);
        let q = self.b.cvt_round(whole, Elem::I32);
        let back = self.b.mul(q, n);
        let r = self.b.sub(x, back);
        Ok((self.lane_atom(q, &quotients).into(), self.lane_atom(r, d).into()))
    }
}

/// Lanes for a group: the widest first, halved while 64-bit registers do not fit.
pub fn with_lanes<T>(
    widest: usize,
    mut f: impl FnMut(usize) -> Made<T>,
) -> Result<T, crate::task::Refused> {
    let mut lanes = widest;
    loop {
        match f(lanes) {
            Ok(x) => return Ok(x),
            Err(Fail::Narrow) if lanes > 2 => lanes /= 2,
            Err(Fail::Narrow) => {
                return Err(crate::task::Refused::Unsupported(
                    "values wider than a register".into(),
                ));
            }
            Err(Fail::Refused(r)) => return Err(r),
        }
    }
}
