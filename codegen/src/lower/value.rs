//! The generator: asked for a value of the region at coordinates, it emits the instructions that
//! make it, by recursion over the region, and answers the register.
//!
//! Index-changing primitives only change the coordinates on the way to the operands. A register
//! has the context's lanes (coordinates that do not vary by lane give the same value in each) or
//! one lane, for uniform integers that become addresses. Lanes that [`LowerCx::active`] turns off
//! hold anything.

use super::coord::Coord;
use super::cx::{Fail, LowerCx, Made, unsupported};
use super::elem;
use crate::kir::{Addr, BinOp, CmpOp, Elem, Reg, RegTy, math};
use crate::task::{Format, Which};
use hub_abi::prim::{BinaryOp, PadMode, Prim, UnaryOp};
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

    /// What to compute where `v` is only stored: a store rounds to a small float by itself.
    pub fn unrounded(&self, v: Value) -> Value {
        let g = self.task.g;
        match g.as_prim(v) {
            Some((n, Prim::Cast { to: Dtype::F16 | Dtype::BF16, .. }))
                if g.dtype(g.nodes[n].inputs[0]) == Dtype::F32 =>
            {
                g.nodes[n].inputs[0]
            }
            _ => v,
        }
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
            Prim::Binary(BinaryOp::Mul) if self.gate(v, ins).is_some() => {
                let (x, of) = self.gate(v, ins).expect("just seen");
                let (x, of) = (self.value(x, coords, lanes)?, self.value(of, coords, lanes)?);
                let d = math::near::one_plus_exp_neg(&mut self.b, of);
                Ok(self.b.div(x, d))
            }
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
                let bound = &g.dims(ins[0])[a];
                let at = self.checked_index(ins[1], &coords[a..a + rank], bound, lanes)?;
                let inner = [&coords[..a], &[at], &coords[a + rank..]].concat();
                self.value(ins[0], &inner, lanes)
            }
            Prim::GatherElements { axis } => {
                self.gather_elements(ins, *axis as usize, coords, lanes)
            }
            Prim::GatherNd { batch } => self.gather_nd(ins, *batch as usize, coords, lanes),
            p => unsupported(format!("{} inside a group", elem::prim_name(p))),
        }
    }

    /// `(a, b)` of a product `a × sigmoid(b)` of full-size f32 tensors that may be a quotient.
    fn gate(&self, v: Value, ins: &[Value]) -> Option<(Value, Value)> {
        let (g, region) = (self.task.g, &self.task.g.regions[self.task.region]);
        let sigmoid = |s: Value| match g.as_prim(s) {
            Some((n, Prim::Unary(UnaryOp::Sigmoid))) => Some(g.nodes[n].inputs[0]),
            _ => None,
        };
        let once = |s: Value| {
            let reads = |n: &Node| g.nodes[*n].inputs.iter().filter(|x| **x == s).count();
            let inside: usize = region.nodes.iter().map(reads).sum();
            inside == 1 && !region.results.contains(&s)
        };
        let fits = |s: Value| g.dims(s) == g.dims(v) && g.dtype(s) == Dtype::F32 && once(s);
        let found = |x: Value, s: Value| sigmoid(s).filter(|_| fits(s)).map(|of| (x, of));
        let (a, b) = (ins[0], ins[1]);
        found(a, b).or_else(|| found(b, a)).filter(|_| !self.target.exact)
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
        let mut src =
            if self.b.ty(src).elem == Elem::Mask { self.mask_to(src, Elem::I32) } else { src };
        if dtype == Dtype::I64 && self.b.ty(src).elem == Elem::I32 {
            if self.target.own_core {
                return self.store_wide(out, coords, src);
            }
            src = self.b.cvt(src, Elem::I64);
        }
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

    /// Stores i32 lanes as i64, in halves by way of scratch.
    fn store_wide(&mut self, out: usize, coords: &[Coord], src: Reg) -> Made {
        let lanes = self.b.ty(src).lanes as usize;
        let at = self.locate(Which::Out(out), coords, lanes)?;
        if at.step.is(0) {
            let one = self.b.extract(src, 0);
            let one = self.b.cvt(one, Elem::I64);
            self.b.store(one, at.addr, Dtype::I64, None);
            return Ok(());
        }
        if !at.step.is(8) || at.lane.is_some() {
            return Err(Fail::Narrow);
        }
        let half = RegTy::new(Elem::I64, lanes / 2);
        let values = self.b.scratch(64);
        self.b.store(src, Addr::scratch().offset(values), Dtype::I32, None);
        let masks = self.active.map(|m| {
            let at = self.b.scratch(64);
            let m = self.mask_to(m, Elem::I32);
            self.b.store(m, Addr::scratch().offset(at), Dtype::I32, None);
            at
        });
        for h in 0..2 {
            let skip = h * 4 * half.lanes as i64;
            let from = |at: i64| Addr::scratch().offset(at + skip);
            let r = self.b.load(half, from(values), Dtype::I32, None);
            let mask = masks.map(|at| {
                let m = self.b.load(half, from(at), Dtype::I32, None);
                let zero = self.b.zero(half);
                self.b.cmp(CmpOp::Ne, m, zero)
            });
            self.b.store(r, at.addr.clone().offset(2 * skip), Dtype::I64, mask);
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
