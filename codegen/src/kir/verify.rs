//! Checks that a kernel is well formed: types, definitions before uses on every path, parameters
//! used as what they are, axes only inside their loops. Emitters and the interpreter assume it.

use super::inst::*;
use super::types::*;
use hub_abi::Dtype;

/// Why a kernel is malformed; a bug of the lowering that made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {what}, in `{at}`; correct the lowering that built it")]
pub struct VerifyError {
    /// The kernel's name.
    pub kernel: String,
    /// The instruction or statement.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

type Check = Result<(), String>;

/// Checks `k`.
///
/// # Errors
/// The first thing found wrong.
pub fn verify(k: &Kernel) -> Result<(), VerifyError> {
    let mut v = Verifier {
        k,
        defined: vec![false; k.regs.len()],
        axes: vec![false; k.axes.len()],
        at: "signature".into(),
    };
    v.run().map_err(|what| VerifyError { kernel: k.name.clone(), at: v.at.clone(), what })
}

struct Verifier<'a> {
    k: &'a Kernel,
    defined: Vec<bool>,
    axes: Vec<bool>,
    at: String,
}

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(what()) }
}

impl Verifier<'_> {
    fn run(&mut self) -> Check {
        for (i, t) in self.k.regs.iter().enumerate() {
            ensure(t.lanes.is_power_of_two() && t.lanes as usize <= MAX_LANES, || {
                format!("v{i} has {} lanes, not a power of two up to {MAX_LANES}", t.lanes)
            })?;
        }
        for g in &self.k.grid {
            self.coef(g.extent)?;
            ensure(g.extent.param.is_none() || g.extent.mul == 1, || "scaled grid extent".into())?;
            self.enter(g.axis)?;
        }
        if let Some(t) = self.k.team {
            ensure((2..=MAX_TEAM).contains(&t.size), || format!("a team of {}", t.size))?;
            self.enter(t.axis)?;
        }
        self.stmts(&self.k.body)
    }

    fn enter(&mut self, a: AxisId) -> Check {
        let slot = self.axes.get_mut(a.0 as usize).ok_or("unknown axis")?;
        ensure(!std::mem::replace(slot, true), || "axis opened twice".into())
    }

    fn stmts(&mut self, stmts: &[Stmt]) -> Check {
        for s in stmts {
            match s {
                Stmt::Inst(i) => {
                    self.at = i.to_string();
                    self.inst(i)?
                }
                Stmt::For { axis, extent, body, .. } => {
                    self.at =
                        format!("for {}", self.k.axes.get(axis.0 as usize).map_or("?", |a| a));
                    self.scalar(*extent)?;
                    self.enter(*axis)?;
                    let before = self.defined.clone();
                    self.stmts(body)?;
                    if !matches!(extent, Scalar::Const(n) if *n > 0) {
                        self.defined = before;
                    }
                    self.axes[axis.0 as usize] = false;
                }
                Stmt::If { cond, then, els } => {
                    self.at = "if".into();
                    self.scalar(cond.a)?;
                    self.scalar(cond.b)?;
                    let before = self.defined.clone();
                    self.stmts(then)?;
                    let after = std::mem::replace(&mut self.defined, before);
                    self.stmts(els)?;
                    self.defined.iter_mut().zip(after).for_each(|(d, t)| *d &= t);
                }
            }
        }
        Ok(())
    }

    fn ty(&self, r: Reg) -> Result<RegTy, String> {
        self.k.regs.get(r.0 as usize).copied().ok_or(format!("{r} is not declared"))
    }

    fn same(&self, r: Reg, t: RegTy) -> Check {
        let have = self.ty(r)?;
        ensure(have == t, || format!("{r} is {have}, {t} is needed"))
    }

    fn scalar(&self, s: Scalar) -> Check {
        match s {
            Scalar::Const(_) => Ok(()),
            Scalar::Param(p) => self.coef(p.into()),
            Scalar::Reg(r) => {
                self.used(r)?;
                self.same(r, RegTy::INDEX)
            }
        }
    }

    fn used(&self, r: Reg) -> Check {
        self.ty(r)?;
        ensure(self.defined[r.0 as usize], || format!("{r} is read before it is assigned"))
    }

    fn coef(&self, c: Coef) -> Check {
        let Some(p) = c.param else { return Ok(()) };
        let kind = self.k.params.get(p.0 as usize).map(|p| &p.kind);
        ensure(kind == Some(&ParamKind::Size), || format!("parameter {} is not a size", p.0))
    }

    fn affine(&self, a: &Affine) -> Check {
        for (v, c) in &a.terms {
            self.coef(*c)?;
            match v {
                Var::One => {}
                Var::Axis(x) => {
                    let open = self.axes.get(x.0 as usize).copied().unwrap_or(false);
                    ensure(open, || format!("axis {} is not open here", x.0))?
                }
                Var::Reg(r) => self.same(*r, RegTy::INDEX)?,
            }
        }
        Ok(())
    }

    fn addr(&self, a: &Addr, write: bool) -> Check {
        self.affine(&a.at)?;
        let Base::Param(p) = a.base else { return Ok(()) };
        match self.k.params.get(p.0 as usize).map(|p| &p.kind) {
            Some(ParamKind::Ptr { access, .. }) => {
                let wrong = if write { Access::Read } else { Access::Write };
                ensure(*access != wrong, || format!("parameter {} is {access:?} only", p.0))
            }
            _ => Err(format!("parameter {} is not a pointer", p.0)),
        }
    }

    fn memory(&self, t: RegTy, d: Dtype, mask: Option<Reg>) -> Check {
        ensure(t.elem.accepts(d), || format!("{t} cannot hold {d} from memory"))?;
        match mask {
            Some(m) => self.same(m, t.with(Elem::Mask)),
            None => Ok(()),
        }
    }

    fn inst(&mut self, i: &Inst) -> Check {
        let mut bad = Ok(());
        i.uses(|r| {
            if bad.is_ok() {
                bad = self.used(r)
            }
        });
        bad?;
        if let Some(a) = i.affine() {
            self.affine(a)?;
        }
        match i.addr() {
            Some(_) => self.memory_inst(i)?,
            None => self.value_inst(i)?,
        }
        if let Some(d) = i.dst() {
            self.ty(d)?;
            self.defined[d.0 as usize] = true;
        }
        Ok(())
    }

    fn memory_inst(&self, i: &Inst) -> Check {
        use Inst::*;
        let write = matches!(i, Store { .. } | StoreStrided { .. } | TileStore { .. });
        if let (Some(a), false) = (i.addr(), matches!(i, Prefetch { .. })) {
            self.addr(a, write)?;
        }
        match i {
            Load { dst, dtype, mask, .. } => self.memory(self.ty(*dst)?, *dtype, *mask),
            LoadSplat { dst, dtype, .. } => self.memory(self.ty(*dst)?, *dtype, None),
            LoadStrided { dst, dtype, mask, stride, .. } => {
                self.coef(*stride)?;
                self.memory(self.ty(*dst)?, *dtype, *mask)
            }
            Gather { dst, dtype, mask, stride, idx, .. } => {
                self.coef(*stride)?;
                let (t, it) = (self.ty(*dst)?, self.ty(*idx)?);
                ensure(it.elem.is_int() && it.lanes == t.lanes && t.lanes > 1, || {
                    format!("{it} cannot index {t}")
                })?;
                self.memory(t, *dtype, *mask)
            }
            Store { src, dtype, mask, .. } => self.memory(self.ty(*src)?, *dtype, *mask),
            StoreStrided { src, dtype, mask, stride, .. } => {
                self.coef(*stride)?;
                self.memory(self.ty(*src)?, *dtype, *mask)
            }
            TileLoad { tile, stride, .. } | TileStore { tile, stride, .. } => {
                self.coef(*stride)?;
                tile_exists(*tile)
            }
            _ => Ok(()),
        }
    }

    fn value_inst(&self, i: &Inst) -> Check {
        use Inst::*;
        match i {
            Const { .. } => Ok(()),
            Splat { dst, src } => self.same(*src, RegTy { lanes: 1, ..self.ty(*dst)? }),
            Iota { dst } => ensure(self.ty(*dst)?.elem.is_int(), || "iota of non-integers".into()),
            Index { dst, .. } => self.same(*dst, RegTy::INDEX),
            Un { op, dst, a } => {
                self.same(*a, self.ty(*dst)?)?;
                ensure(un_allowed(*op, self.ty(*dst)?.elem), || format!("{op:?} of this type"))
            }
            Bin { op, dst, a, b } => {
                self.same(*a, self.ty(*dst)?)?;
                self.same(*b, self.ty(*dst)?)?;
                ensure(bin_allowed(*op, self.ty(*dst)?.elem), || format!("{op:?} of this type"))
            }
            Fma { dst, a, b, c } => {
                let t = self.ty(*dst)?;
                ensure(t.elem.is_float(), || "fma of non-floats".into())?;
                [a, b, c].into_iter().try_for_each(|r| self.same(*r, t))
            }
            Dot2 { dst, a, b, c } => {
                let t = self.ty(*dst)?;
                ensure(t.elem == Elem::F32, || "dot2 of non-floats".into())?;
                self.same(*c, t)?;
                [a, b].into_iter().try_for_each(|r| self.same(*r, t.with(Elem::I32)))
            }
            Cmp { op, dst, a, b } => {
                let t = self.ty(*a)?;
                self.same(*b, t)?;
                self.same(*dst, t.with(Elem::Mask))?;
                let unsigned = matches!(op, CmpOp::ULt | CmpOp::ULe);
                ensure(t.elem.is_int() || (t.elem.is_float() && !unsigned), || "cmp type".into())
            }
            Lanes { dst, count } => {
                self.scalar(*count)?;
                ensure(self.ty(*dst)?.elem == Elem::Mask, || "lanes makes a mask".into())
            }
            Select { dst, mask, a, b } => {
                let t = self.ty(*dst)?;
                ensure(t.elem != Elem::Mask, || "select of masks".into())?;
                self.same(*mask, t.with(Elem::Mask))?;
                self.same(*a, t)?;
                self.same(*b, t)
            }
            Shuffle { dst, a, b, sel } => {
                let t = self.ty(*dst)?;
                self.same(*a, t)?;
                self.same(*b, t)?;
                let n = t.lanes as usize;
                ensure(n > 1 && t.elem != Elem::Mask, || format!("shuffle of {t}"))?;
                ensure(sel.len() == n && sel.iter().all(|s| (*s as usize) < 2 * n), || {
                    "bad shuffle selectors".into()
                })
            }
            _ => self.narrow_inst(i),
        }
    }

    /// Instructions that change the type.
    fn narrow_inst(&self, i: &Inst) -> Check {
        use Inst::*;
        match i {
            Cvt { dst, a, .. } => {
                let (d, s) = (self.ty(*dst)?, self.ty(*a)?);
                let value = d.elem != Elem::Mask && s.elem != Elem::Mask && d.lanes == s.lanes;
                ensure(value, || format!("cvt from {s} to {d}"))
            }
            Bitcast { dst, a } => {
                let (d, s) = (self.ty(*dst)?, self.ty(*a)?);
                let ok = d.elem.size() == s.elem.size() && d.lanes == s.lanes && d.elem.size() > 0;
                ensure(ok, || format!("bitcast from {s} to {d}"))
            }
            Scale2 { dst, a, n } => {
                let t = self.ty(*dst)?;
                ensure(t.elem == Elem::F32, || "scale2 is f32 only".into())?;
                self.same(*a, t)?;
                self.same(*n, t)
            }
            Reduce { dst, a, .. } | Extract { dst, a, .. } => {
                let t = self.ty(*a)?;
                ensure(t.elem != Elem::Mask, || "not on masks".into())?;
                if let Extract { lane, .. } = i {
                    ensure(*lane < t.lanes, || "no such lane".into())?;
                }
                self.same(*dst, RegTy { lanes: 1, ..t })
            }
            CheckIndex { dst, idx, bound } => {
                self.scalar(*bound)?;
                self.same(*idx, self.ty(*dst)?)?;
                ensure(self.ty(*dst)?.elem.is_int(), || "index of non-integers".into())?;
                ensure(self.k.status().is_some(), || "no status parameter".into())
            }
            Barrier => ensure(self.k.team.is_some(), || "a barrier without a team".into()),
            TileConfig { shapes } => {
                let fits = |(r, b): &(u8, u8)| (1..=16).contains(r) && *b <= 64 && b % 4 == 0;
                ensure(shapes.len() <= MAX_TILES && shapes.iter().all(fits), || {
                    "tile shapes".into()
                })
            }
            TileZero { tile } => tile_exists(*tile),
            TileDot2 { acc, a, b, dtype } => {
                let apart = acc != a && acc != b && a != b;
                ensure(apart, || "a product of one tile register twice".into())?;
                let half = matches!(dtype, Dtype::BF16 | Dtype::F16);
                ensure(half, || format!("a product of tiles of {dtype}"))?;
                [acc, a, b].into_iter().try_for_each(|t| tile_exists(*t))
            }
            SetStatus { mask } => {
                ensure(self.ty(*mask)?.elem == Elem::Mask, || "status of a non-mask".into())?;
                ensure(self.k.status().is_some(), || "no status parameter".into())
            }
            _ => Ok(()),
        }
    }
}

fn tile_exists(tile: u8) -> Check {
    ensure((tile as usize) < MAX_TILES, || format!("there is no tile register {tile}"))
}

fn un_allowed(op: UnOp, e: Elem) -> bool {
    match op {
        UnOp::Copy => true,
        UnOp::Neg | UnOp::Abs => e != Elem::Mask,
        UnOp::Sqrt | UnOp::Floor | UnOp::Ceil | UnOp::RoundEven | UnOp::Trunc => e.is_float(),
        UnOp::Not => e.is_int() || e == Elem::Mask,
    }
}

fn bin_allowed(op: BinOp, e: Elem) -> bool {
    use BinOp::*;
    match op {
        Add | Sub | Mul | Div | Min | Max => e != Elem::Mask,
        And | Or | Xor | AndNot => true,
        Rem | UMin | UMax | Shl | Shr | UShr => e.is_int(),
    }
}
