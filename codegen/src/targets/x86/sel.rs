//! Selection: the walk over a kernel, and the sources and results of its instructions.

use super::Refused;
use super::addr::Level;
use super::lir::*;
use super::ops::{self, Row};
use crate::kir::*;
use crate::target::{Target, Tier};
use iced_x86::Code;
use std::collections::HashMap;

pub(super) type Res<T> = Result<T, Refused>;

/// Frame layout: the four arguments, then two vectors of staging for lanewise work.
pub(super) const ARGS: i64 = 0;
pub(super) const BEGIN: i64 = 8;
pub(super) const END: i64 = 16;
pub(super) const SCRATCH: i64 = 24;
pub(super) const STAGE: i64 = 64;
pub(super) const STAGE2: i64 = 128;
const FRAME: i64 = 192;

pub(super) struct Sel<'a> {
    pub k: &'a Kernel,
    pub wide: bool,
    /// AVX-512 BF16.
    pub bf16: bool,
    /// Tile registers.
    pub amx: bool,
    /// They are used and have to be released.
    pub tiled: bool,
    pub p: Program,
    pub depth: u8,
    /// Virtual register of each kernel register.
    pub map: Vec<Option<V>>,
    /// Value of each register that is assigned once, by a constant.
    pub consts: Vec<Option<u64>>,
    /// Static reads of each register.
    pub uses: Vec<u32>,
    /// Static assignments of each register.
    pub defs: Vec<u32>,
    /// Loads put off to be memory operands of their only use.
    pub deferred: HashMap<Reg, Inst>,
    /// Registers that hold constants in the loop being selected.
    pub pinned: HashMap<(RegTy, u64), V>,
    /// May constants be held in registers?
    pub pins: bool,
    /// Open loops, outermost (the tile) first.
    pub levels: Vec<Level>,
    /// Axes of loops being unrolled completely.
    pub fixed: HashMap<AxisId, i64>,
    /// Current values of grid axes.
    pub grid: HashMap<AxisId, V>,
    /// The argument block.
    pub args: V,
    pool: HashMap<Vec<u8>, i64>,
}

/// Selects instructions for a verified kernel. With `pins`, short loops hold their constants in
/// registers, which may be more than there are.
pub(super) fn select(k: &Kernel, t: &Target, pins: bool) -> Res<Program> {
    let mut s = Sel {
        k,
        wide: t.tier >= Tier::Avx512,
        bf16: t.has_dot2(),
        amx: t.has_tiles(),
        tiled: false,
        p: Program { frame: FRAME, ..Program::default() },
        depth: 0,
        map: vec![None; k.regs.len()],
        consts: vec![None; k.regs.len()],
        uses: vec![0; k.regs.len()],
        defs: vec![0; k.regs.len()],
        deferred: HashMap::new(),
        pinned: HashMap::new(),
        pins,
        levels: vec![],
        fixed: HashMap::new(),
        grid: HashMap::new(),
        args: V(0),
        pool: HashMap::new(),
    };
    s.count(&k.body);
    s.args = s.gpr();
    s.mov_load(s.args, Mem::frame(ARGS));
    s.tiles()?;
    Ok(s.p)
}

impl<'a> Sel<'a> {
    fn count(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            match s {
                Stmt::Inst(i) => {
                    i.uses(|r| self.uses[r.0 as usize] += 1);
                    if let Some(d) = i.dst() {
                        let d = d.0 as usize;
                        self.defs[d] += 1;
                        let mask = self.k.regs[d].elem == Elem::Mask;
                        self.consts[d] = match i {
                            Inst::Const { bits, .. } if self.defs[d] == 1 && !mask => Some(*bits),
                            _ => None,
                        };
                    }
                }
                Stmt::For { body, extent, .. } => {
                    if let Scalar::Reg(r) = extent {
                        self.uses[r.0 as usize] += 1;
                    }
                    self.count(body)
                }
                Stmt::If { cond, then, els } => {
                    cond.uses(|r| self.uses[r.0 as usize] += 1);
                    self.count(then);
                    self.count(els);
                }
            }
        }
    }

    pub fn unsupported<T>(&self, what: impl Into<String>) -> Res<T> {
        Err(Refused::Unsupported {
            kernel: self.k.name.clone(),
            what: what.into(),
            tier: match (self.wide, self.bf16) {
                _ if self.amx => "amx",
                (_, true) => "avx512bf16",
                (true, _) => "avx512",
                _ => "avx2",
            },
        })
    }

    // ---- emission ----

    pub fn item(&mut self, i: Item) {
        self.p.items.push(i);
        self.p.depth.push(self.depth);
    }

    pub fn op(&mut self, code: Code, ops: &[Op]) {
        assert!(code != Code::INVALID, "an instruction without encoding");
        self.item(Item::Inst(MInst { code, ops: ops.to_vec(), mask: None, zeroing: false }))
    }

    /// With an EVEX write mask.
    pub fn op_k(&mut self, code: Code, ops: &[Op], mask: V, zeroing: bool) {
        assert!(code != Code::INVALID, "an instruction without encoding");
        self.item(Item::Inst(MInst { code, ops: ops.to_vec(), mask: Some(mask), zeroing }))
    }

    pub fn label(&mut self) -> u32 {
        self.p.labels += 1;
        self.p.labels - 1
    }

    pub fn place(&mut self, l: u32) {
        self.item(Item::Label(l))
    }

    pub fn jump(&mut self, code: Code, l: u32) {
        self.op(code, &[Op::L(l)])
    }

    pub fn fresh(&mut self, c: Class) -> V {
        self.p.classes.push(c);
        V(self.p.classes.len() as u32 - 1)
    }

    pub fn gpr(&mut self) -> V {
        self.fresh(Class::Gpr)
    }

    pub fn vec(&mut self) -> V {
        self.fresh(Class::Vec)
    }

    pub fn kreg(&mut self) -> V {
        self.fresh(Class::Mask)
    }

    /// A register for masks of this tier.
    pub fn mreg(&mut self) -> V {
        self.fresh(if self.wide { Class::Mask } else { Class::Vec })
    }

    /// Offset in the pool of `bytes`, aligned to their length.
    pub fn pooled(&mut self, bytes: Vec<u8>) -> i64 {
        if let Some(at) = self.pool.get(&bytes) {
            return *at;
        }
        let align = bytes.len().next_power_of_two();
        let at = self.p.pool.len().next_multiple_of(align);
        self.p.pool.resize(at, 0);
        self.p.pool.extend(&bytes);
        self.pool.insert(bytes, at as i64);
        at as i64
    }

    pub fn pool_mem(&mut self, bytes: Vec<u8>) -> Mem {
        Mem { base: MBase::Pool, index: None, disp: self.pooled(bytes), bcast: false }
    }

    // ---- types ----

    /// Vector width of a type.
    pub fn w(&self, t: RegTy) -> Res<W> {
        let size = if t.elem == Elem::Mask { 4 } else { t.elem.size() };
        match size * t.lanes as usize {
            _ if t.lanes == 1 => Ok(W::X),
            16 => Ok(W::X),
            32 => Ok(W::Y),
            64 if self.wide => Ok(W::Z),
            _ => self.unsupported(format!("a register of type {t}")),
        }
    }

    /// Lives in a general register.
    pub fn is_gpr(t: RegTy) -> bool {
        t == RegTy::INDEX
    }

    pub fn code(&self, row: &Row, w: W) -> Res<Code> {
        let code = match (self.wide, w) {
            (false, W::X) => row.vex[0],
            (false, W::Y) => row.vex[1],
            (true, W::X) => row.evex[0],
            (true, W::Y) => row.evex[1],
            (true, W::Z) => row.evex[2],
            _ => Code::INVALID,
        };
        if code == Code::INVALID { self.unsupported(format!("{row:?} at {w:?}")) } else { Ok(code) }
    }

    // ---- operands ----

    pub fn ty(&self, r: Reg) -> RegTy {
        self.k.ty(r)
    }

    /// The register that an instruction assigns.
    pub fn dst(&mut self, r: Reg) -> V {
        if let Some(v) = self.map[r.0 as usize] {
            return v;
        }
        let t = self.ty(r);
        let v = match t.elem {
            Elem::Mask => self.mreg(),
            _ if Self::is_gpr(t) => self.gpr(),
            _ => self.vec(),
        };
        self.map[r.0 as usize] = Some(v);
        v
    }

    /// The register that holds a value, made now if it is a constant or a load put off.
    pub fn src(&mut self, r: Reg) -> Res<V> {
        if let Some(bits) = self.consts[r.0 as usize] {
            let t = self.ty(r);
            if Self::is_gpr(t) {
                let v = self.gpr();
                self.mov_imm(v, bits as i64);
                return Ok(v);
            }
            if let Some(&v) = self.pinned.get(&(t, bits)) {
                return Ok(v);
            }
            return self.splat_const(t, bits);
        }
        if let Some(i) = self.deferred.remove(&r) {
            self.load_now(&i)?;
        }
        Ok(self.dst(r))
    }

    /// A constant in every lane of a new vector register.
    pub fn splat_const(&mut self, t: RegTy, bits: u64) -> Res<V> {
        let (v, w) = (self.vec(), self.w(t)?);
        if bits == 0 {
            self.zero(v);
        } else if t.elem.size() == 8 {
            let m = self.pool_mem(bits.to_le_bytes().to_vec());
            let c = self.code(if w == W::X { ops::PBROADCASTQ } else { ops::BROADCASTSD_M }, w)?;
            self.op(c, &[def(v, w), Op::M(m)]);
        } else {
            let m = self.pool_mem((bits as u32).to_le_bytes().to_vec());
            let c = self.code(ops::BROADCASTSS_M, w)?;
            self.op(c, &[def(v, w), Op::M(m)]);
        }
        Ok(v)
    }

    /// All bits zero (a zeroing idiom clears the whole register).
    pub fn zero(&mut self, v: V) {
        let (c, x) = if self.wide {
            (Code::EVEX_Vpxord_xmm_k1z_xmm_xmmm128b32, W::X)
        } else {
            (Code::VEX_Vpxor_xmm_xmm_xmmm128, W::X)
        };
        self.op(c, &[def(v, x), Op::R(v, x, Role::Same), Op::R(v, x, Role::Same)])
    }

    /// A constant as the last operand of a packed (`scalar`: of a one-lane float) instruction.
    pub fn const_mem(&mut self, t: RegTy, bits: u64, scalar: bool) -> Res<Mem> {
        let size = t.elem.size();
        let one = bits.to_le_bytes()[..size].to_vec();
        if scalar {
            return Ok(self.pool_mem(one));
        }
        if self.wide {
            let mut m = self.pool_mem(one);
            m.bcast = true;
            return Ok(m);
        }
        let n = if self.w(t)? == W::Y { 32 } else { 16 };
        Ok(self.pool_mem(one.repeat(n / size)))
    }

    /// Whether [`Sel::src_mem`] would give a memory operand.
    pub fn foldable(&self, r: Reg) -> bool {
        let constant = self.consts[r.0 as usize]
            .is_some_and(|bits| bits != 0 && !self.pinned.contains_key(&(self.ty(r), bits)));
        constant || self.deferred.contains_key(&r)
    }

    /// A value as the last operand of an instruction on whole registers of its type (`scalar`: on
    /// lane 0 only): memory for constants and loads put off.
    pub fn src_mem(&mut self, r: Reg) -> Res<Op> {
        let t = self.ty(r);
        let w = self.w(t)?;
        let scalar = t.lanes == 1 && t.elem.is_float();
        if let Some(bits) = self.consts[r.0 as usize].filter(|b| *b != 0) {
            if let Some(&v) = self.pinned.get(&(t, bits)) {
                return Ok(use_(v, w));
            }
            return Ok(Op::M(self.const_mem(t, bits, scalar)?));
        }
        match self.deferred.remove(&r) {
            Some(Inst::Load { addr, .. }) => Ok(Op::M(self.mem(&addr)?)),
            Some(Inst::LoadSplat { addr, .. }) => {
                let mut m = self.mem(&addr)?;
                m.bcast = !scalar;
                Ok(Op::M(m))
            }
            _ => Ok(Op::R(self.src(r)?, w, Role::Use)),
        }
    }

    /// Copies a whole vector register.
    pub fn vmov(&mut self, d: V, s: V, w: W) -> Res<()> {
        if d != s {
            let c = self.code(ops::MOVAPS, w)?;
            self.op(c, &[def(d, w), use_(s, w)]);
        }
        Ok(())
    }

    /// `d = a op b` at one width.
    pub fn op3(&mut self, row: &Row, w: W, d: V, a: V, b: Op) -> Res<()> {
        let c = self.code(row, w)?;
        self.op(c, &[def(d, w), use_(a, w), b]);
        Ok(())
    }

    /// `d = op a` at one width.
    pub fn op2(&mut self, row: &Row, w: W, d: V, a: Op) -> Res<()> {
        let c = self.code(row, w)?;
        self.op(c, &[def(d, w), a]);
        Ok(())
    }
}

pub(super) fn def(v: V, w: W) -> Op {
    Op::R(v, w, Role::Def)
}

pub(super) fn use_(v: V, w: W) -> Op {
    Op::R(v, w, Role::Use)
}

pub(super) fn modify(v: V, w: W) -> Op {
    Op::R(v, w, Role::Mod)
}
