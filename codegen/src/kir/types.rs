//! Entities, types, sizes and addresses of the kernel IR.

use super::inst::Stmt;
use hub_abi::Dtype;
use hub_abi::operator::Operator;

/// A parameter: index into [`Kernel::params`] and into the argument block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ParamId(pub u32);

/// A grid or loop axis: index into [`Kernel::axes`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AxisId(pub u32);

/// A virtual register: index into [`Kernel::regs`]. Mutable; an accumulator is a register that a
/// loop assigns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reg(pub u32);

/// What one lane of a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Elem {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// 32 bits, signed unless an operation says otherwise.
    I32,
    /// 64 bits, signed unless an operation says otherwise.
    I64,
    /// A truth value per lane.
    Mask,
}

impl Elem {
    /// Bytes of one lane (masks have none in memory: 0).
    pub fn size(self) -> usize {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::F64 | Elem::I64 => 8,
            Elem::Mask => 0,
        }
    }

    /// `f32` or `f64`.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// `i32` or `i64`.
    pub fn is_int(self) -> bool {
        matches!(self, Elem::I32 | Elem::I64)
    }

    /// Whether a load or store of memory elements `d` may use a register of this kind: f32 takes
    /// f32, f16, bf16; f64 takes f64 and f32; i32 takes integers of at most 32 bits and bool; i64
    /// takes every integer and bool. Loads widen exactly (zero- or sign-extending as the dtype
    /// says); stores round to nearest even (floats; a bf16 that would be denormal may be a zero of its
    /// sign) or keep the low bits (integers, bool).
    pub fn accepts(self, d: Dtype) -> bool {
        use Dtype::*;
        match self {
            Elem::F32 => matches!(d, F32 | F16 | BF16),
            Elem::F64 => matches!(d, F64 | F32),
            Elem::I32 => matches!(d, I32 | U32 | I16 | U16 | I8 | U8 | Bool),
            Elem::I64 => matches!(d, I64 | U64 | I32 | U32 | I16 | U16 | I8 | U8 | Bool),
            Elem::Mask => false,
        }
    }
}

/// Most lanes of a register: f32 lanes of what an NPU's vector instructions repeat over.
pub const MAX_LANES: usize = 64;

/// Type of a register. `lanes` is a power of two from 1 (a scalar) to [`MAX_LANES`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RegTy {
    /// What a lane holds.
    pub elem: Elem,
    /// How many lanes.
    pub lanes: u8,
}

impl RegTy {
    /// A type.
    pub fn new(elem: Elem, lanes: usize) -> RegTy {
        RegTy { elem, lanes: lanes as u8 }
    }

    /// `i64`, one lane: sizes, indices and conditions.
    pub const INDEX: RegTy = RegTy { elem: Elem::I64, lanes: 1 };

    /// The same lanes of another element.
    pub fn with(self, elem: Elem) -> RegTy {
        RegTy { elem, lanes: self.lanes }
    }

    /// One lane.
    pub fn is_scalar(self) -> bool {
        self.lanes == 1
    }
}

/// How a kernel uses memory behind a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// One entry of the argument block.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ParamKind {
    /// An address. The dtype is that of most accesses; each access states its own.
    Ptr {
        /// Element in memory.
        dtype: Dtype,
        /// Reads, writes or both.
        access: Access,
    },
    /// An i64 that the runtime evaluates per binding: a count, or a stride in **bytes**.
    Size,
    /// Address of the step's u32 status word, set to 1 on an index out of range.
    Status,
}

/// A named parameter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Param {
    /// For people.
    pub name: String,
    /// What the entry is.
    pub kind: ParamKind,
}

/// `mul` × the value of `param` (or × 1): a size known at emission or at binding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Coef {
    /// Constant factor.
    pub mul: i64,
    /// A `Size` parameter.
    pub param: Option<ParamId>,
}

impl Coef {
    /// Times a constant.
    pub fn times(self, n: i64) -> Coef {
        Coef { mul: self.mul * n, ..self }
    }
}

impl From<i64> for Coef {
    fn from(mul: i64) -> Coef {
        Coef { mul, param: None }
    }
}

impl From<ParamId> for Coef {
    fn from(p: ParamId) -> Coef {
        Coef { mul: 1, param: Some(p) }
    }
}

/// What a coefficient multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Var {
    /// 1: the term is the coefficient itself, e.g. row 3 of a tile: `One × 3·stride`.
    One,
    /// Current value of an enclosing axis.
    Axis(AxisId),
    /// An `i64` scalar register.
    Reg(Reg),
}

impl From<AxisId> for Var {
    fn from(a: AxisId) -> Var {
        Var::Axis(a)
    }
}

impl From<Reg> for Var {
    fn from(r: Reg) -> Var {
        Var::Reg(r)
    }
}

/// `offset + Σ var × coef`. Arithmetic wraps at 64 bits.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Affine {
    /// Terms, sorted, no two with the same variable and parameter, none zero.
    pub terms: Vec<(Var, Coef)>,
    /// Constant part.
    pub offset: i64,
}

impl Affine {
    /// The constant `n`.
    pub fn constant(n: i64) -> Affine {
        Affine { terms: vec![], offset: n }
    }

    /// Adds `var × coef`, merging with an equal term.
    pub fn plus(mut self, var: impl Into<Var>, coef: impl Into<Coef>) -> Affine {
        self.add_term(var.into(), coef.into());
        self
    }

    /// Adds a constant.
    pub fn offset(mut self, n: i64) -> Affine {
        self.offset = self.offset.wrapping_add(n);
        self
    }

    /// Adds `var × coef` in place.
    pub fn add_term(&mut self, var: Var, coef: Coef) {
        if var == Var::One && coef.param.is_none() {
            self.offset = self.offset.wrapping_add(coef.mul);
            return;
        }
        let key = (var, coef.param);
        match self.terms.binary_search_by_key(&key, |t| (t.0, t.1.param)) {
            Ok(i) => {
                self.terms[i].1.mul = self.terms[i].1.mul.wrapping_add(coef.mul);
                if self.terms[i].1.mul == 0 {
                    self.terms.remove(i);
                }
            }
            Err(i) if coef.mul != 0 => self.terms.insert(i, (var, coef)),
            Err(_) => {}
        }
    }
}

/// Memory that an address starts from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Base {
    /// A `Ptr` parameter.
    Param(ParamId),
    /// The worker's scratch ([`Kernel::scratch_bytes`] long; its content does not outlive a tile).
    Scratch,
}

/// A byte address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Addr {
    /// Start.
    pub base: Base,
    /// Bytes from there.
    pub at: Affine,
}

impl Addr {
    /// Start of a `Ptr` parameter's memory.
    pub fn param(p: ParamId) -> Addr {
        Addr { base: Base::Param(p), at: Affine::default() }
    }

    /// Start of the worker's scratch.
    pub fn scratch() -> Addr {
        Addr { base: Base::Scratch, at: Affine::default() }
    }

    /// Adds `var × coef` bytes.
    pub fn plus(mut self, var: impl Into<Var>, coef: impl Into<Coef>) -> Addr {
        self.at.add_term(var.into(), coef.into());
        self
    }

    /// Adds `n × coef` bytes: row `n` of a tile whose row stride is `coef`.
    pub fn row(mut self, n: i64, coef: impl Into<Coef>) -> Addr {
        self.at.add_term(Var::One, coef.into().times(n));
        self
    }

    /// Adds `n` bytes.
    pub fn offset(mut self, n: i64) -> Addr {
        self.at.offset = self.at.offset.wrapping_add(n);
        self
    }
}

/// A uniform integer operand: loop extents, conditions, lane counts, bounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scalar {
    /// Known at emission.
    Const(i64),
    /// A `Size` parameter.
    Param(ParamId),
    /// An `i64` scalar register.
    Reg(Reg),
}

impl From<i64> for Scalar {
    fn from(n: i64) -> Scalar {
        Scalar::Const(n)
    }
}

impl From<ParamId> for Scalar {
    fn from(p: ParamId) -> Scalar {
        Scalar::Param(p)
    }
}

impl From<Reg> for Scalar {
    fn from(r: Reg) -> Scalar {
        Scalar::Reg(r)
    }
}

/// An axis of tiles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GridAxis {
    /// Its name and variable.
    pub axis: AxisId,
    /// Tiles along it (`mul` is 1 where a parameter gives it).
    pub extent: Coef,
}

/// Workers that do a tile together: each runs the whole body, [`super::Inst::Barrier`] is where they
/// wait for one another, and scratch is theirs in common. What one of them writes there another may
/// touch only past a barrier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Team {
    /// Which of them a worker is, from 0.
    pub axis: AxisId,
    /// How many they are, from 2 to [`MAX_TEAM`].
    pub size: u8,
}

/// Most workers of a team: warps of a block.
pub const MAX_TEAM: u8 = 16;

/// Tile registers that there may be; machines have fewer.
pub const MAX_TILES: usize = 32;

/// One compiled function before emission.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Symbol name.
    pub name: String,
    /// The argument block.
    pub params: Vec<Param>,
    /// Tile axes, outermost first; empty means one tile.
    pub grid: Vec<GridAxis>,
    /// Workers of a tile, where it is not one.
    pub team: Option<Team>,
    /// Names of all axes.
    pub axes: Vec<String>,
    /// Types of all registers.
    pub regs: Vec<RegTy>,
    /// Scratch a worker must provide, 64-byte aligned.
    pub scratch_bytes: u64,
    /// Pairs `(read, written)` of parameters addressed row by row: one iteration reads a row, in
    /// passes that come before the one that writes the row at the same addresses, and no other
    /// iteration touches it. What a lowering knows and code alone does not show
    /// ([`crate::kir::share`]).
    pub rowwise: Vec<(ParamId, ParamId)>,
    /// A prepared operator of the device stands for the body, which is empty.
    pub operator: Option<Operator>,
    /// Executed once per tile.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// Type of a register.
    pub fn ty(&self, r: Reg) -> RegTy {
        self.regs[r.0 as usize]
    }

    /// A parameter.
    pub fn param(&self, p: ParamId) -> &Param {
        &self.params[p.0 as usize]
    }

    /// The `Status` parameter, if there is one.
    pub fn status(&self) -> Option<ParamId> {
        let i = self.params.iter().position(|p| p.kind == ParamKind::Status)?;
        Some(ParamId(i as u32))
    }
}
