//! Instructions and statements, with the definition of each.

use super::types::*;
use hub_abi::Dtype;

/// One operand. Floats: IEEE, round to nearest even.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnOp {
    /// The value itself (any type).
    Copy,
    /// −x: flips the sign bit of floats (also of NaN); wraps for integers.
    Neg,
    /// |x|: clears the sign bit of floats; wraps for integers (MIN stays MIN).
    Abs,
    /// Correctly rounded square root (floats).
    Sqrt,
    /// Toward −∞ (floats).
    Floor,
    /// Toward +∞ (floats).
    Ceil,
    /// Nearest, ties to even (floats).
    RoundEven,
    /// Toward zero (floats).
    Trunc,
    /// Bitwise complement (integers, masks).
    Not,
}

/// Two operands of the result's type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinOp {
    /// Sum; integers wrap.
    Add,
    /// Difference; integers wrap.
    Sub,
    /// Product; integers wrap.
    Mul,
    /// Quotient. Integers truncate toward zero, x/0 is 0 and MIN/−1 is MIN.
    Div,
    /// Integer remainder with the sign of the dividend; x%0 is 0 and MIN%−1 is 0.
    Rem,
    /// x86's: `if a < b { a } else { b }`, so the **second** operand where either is NaN or both
    /// are zeros. Integers: signed.
    Min,
    /// x86's: `if a > b { a } else { b }`, the second operand where either is NaN or both are
    /// zeros. Integers: signed.
    Max,
    /// Unsigned integer minimum.
    UMin,
    /// Unsigned integer maximum.
    UMax,
    /// Bitwise and (integers, masks, and the bits of floats).
    And,
    /// Bitwise or (integers, masks, bits of floats).
    Or,
    /// Bitwise exclusive or (integers, masks, bits of floats).
    Xor,
    /// `!a & b` (integers, masks, bits of floats).
    AndNot,
    /// Left shift by `b` bits, which must be within 0..width (integers).
    Shl,
    /// Arithmetic right shift by `b` bits within 0..width (integers).
    Shr,
    /// Logical right shift by `b` bits within 0..width (integers).
    UShr,
}

/// Comparison. On floats all but `Ne` are false where an operand is NaN, `Ne` is true.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unsigned `<` (integers).
    ULt,
    /// Unsigned `<=` (integers).
    ULe,
}

/// How a float becomes an integer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CvtMode {
    /// Rust's `as`: toward zero, saturating, NaN is 0; every other conversion too (integers to
    /// floats and f64 to f32 round to nearest even, i64 to i32 keeps the low bits).
    As,
    /// Float to integer, nearest even; out of range or NaN gives MIN. One instruction.
    Round,
}

/// How lanes are combined: halves are folded, `x[i] ∘ x[i + n/2]`, until one is left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum ReduceOp {
    Add,
    Mul,
    Min,
    Max,
}

impl ReduceOp {
    /// The operation on two values.
    pub fn bin(self) -> BinOp {
        match self {
            ReduceOp::Add => BinOp::Add,
            ReduceOp::Mul => BinOp::Mul,
            ReduceOp::Min => BinOp::Min,
            ReduceOp::Max => BinOp::Max,
        }
    }
}

/// An instruction. Unless said otherwise operands have the type of `dst`; a `mask` operand has the
/// lanes of `dst` (or `src`), and a lane that is off accesses nothing and reads as zero.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Inst {
    /// Every lane is `bits` (low bits for 32-bit lanes; a mask is all-on if `bits` is not 0).
    Const {
        dst: Reg,
        bits: u64,
    },
    /// Every lane is the scalar `src` of the same element.
    Splat {
        dst: Reg,
        src: Reg,
    },
    /// Lane `i` is `i` (integers).
    Iota {
        dst: Reg,
    },
    /// An `i64` scalar from an affine expression.
    Index {
        dst: Reg,
        at: Affine,
    },
    Un {
        op: UnOp,
        dst: Reg,
        a: Reg,
    },
    Bin {
        op: BinOp,
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    /// `a × b + c`, rounded once (floats).
    Fma {
        dst: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// `a.low × b.low + a.high × b.high + c`, where a lane of `a` and `b` (i32) holds two bf16, low
    /// half first, and `c` and `dst` are f32: two multiply-adds, the high pair's first. Denormal
    /// operands and results are zeros. A machine may round in between or sum in another order.
    Dot2 {
        dst: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// `dst` is a mask of the operands' lanes.
    Cmp {
        op: CmpOp,
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    /// Mask: lane `i` is on where `i < count`.
    Lanes {
        dst: Reg,
        count: Scalar,
    },
    /// `mask ? a : b`, per lane.
    Select {
        dst: Reg,
        mask: Reg,
        a: Reg,
        b: Reg,
    },
    /// Value conversion between any two elements of equal lanes (masks excepted).
    Cvt {
        dst: Reg,
        a: Reg,
        mode: CvtMode,
    },
    /// Same bits, f32 ↔ i32 or f64 ↔ i64.
    Bitcast {
        dst: Reg,
        a: Reg,
    },
    /// `a × 2^n` with `n` an integral value of the same float type, rounded once. Defined for |a|
    /// zero, in [1/4, 4], or not finite, and |n| ≤ 4096 or both NaN. f32 only.
    Scale2 {
        dst: Reg,
        a: Reg,
        n: Reg,
    },
    /// Lane `i` at `addr + i × size of dtype`.
    Load {
        dst: Reg,
        addr: Addr,
        dtype: Dtype,
        mask: Option<Reg>,
    },
    /// Every lane from `addr`.
    LoadSplat {
        dst: Reg,
        addr: Addr,
        dtype: Dtype,
    },
    /// Lane `i` at `addr + i × stride`.
    LoadStrided {
        dst: Reg,
        addr: Addr,
        stride: Coef,
        dtype: Dtype,
        mask: Option<Reg>,
    },
    /// Lane `i` at `addr + idx[i] × stride`; `idx` is i32 or i64 of `dst`'s lanes (at least 2). Indices
    /// must have been checked ([`Inst::CheckIndex`]) or come from trusted arithmetic.
    Gather {
        dst: Reg,
        addr: Addr,
        idx: Reg,
        stride: Coef,
        dtype: Dtype,
        mask: Option<Reg>,
    },
    Store {
        src: Reg,
        addr: Addr,
        dtype: Dtype,
        mask: Option<Reg>,
    },
    /// Lane `i` to `addr + i × stride`.
    StoreStrided {
        src: Reg,
        addr: Addr,
        stride: Coef,
        dtype: Dtype,
        mask: Option<Reg>,
    },
    /// All lanes to one scalar of the same element.
    Reduce {
        op: ReduceOp,
        dst: Reg,
        a: Reg,
    },
    /// One lane as a scalar of the same element (mask lanes not allowed).
    Extract {
        dst: Reg,
        a: Reg,
        lane: u8,
    },
    /// Lane `i` is lane `sel[i]` of `a` followed by `b` (0 ≤ sel < 2 × lanes).
    Shuffle {
        dst: Reg,
        a: Reg,
        b: Reg,
        sel: Vec<u8>,
    },
    /// Hint that the line at `addr` will be read; level 1..=3 is the cache it should reach.
    Prefetch {
        addr: Addr,
        level: u8,
    },
    /// `idx`, plus `bound` where negative; a lane still outside 0..bound becomes 0 and sets the
    /// status word. i32 or i64, any lanes.
    CheckIndex {
        dst: Reg,
        idx: Reg,
        bound: Scalar,
    },
    /// Sets the status word to 1 where a lane of `mask` is on.
    SetStatus {
        mask: Reg,
    },
    /// The workers of a team wait until all are here; all of them get here, or none.
    Barrier,
    /// Gives tile registers 0, 1, … their rows (at most 16) and bytes a row (at most 64, a multiple of
    /// 4), and clears them. Comes before other tile instructions of a tile of the grid.
    TileConfig {
        shapes: Vec<(u8, u8)>,
    },
    /// Clears a tile register.
    TileZero {
        tile: u8,
    },
    /// Row `i` of a tile register from `addr + i × stride`, a multiple of `align` bytes.
    TileLoad {
        tile: u8,
        addr: Addr,
        stride: Coef,
        align: u8,
    },
    /// Row `i` of a tile register to `addr + i × stride`.
    TileStore {
        tile: u8,
        addr: Addr,
        stride: Coef,
    },
    /// `acc[m][n] += Σ a[m][2k] × b[k][2n] + Σ a[m][2k+1] × b[k][2n+1]`, where rows of `a` and `b` are
    /// bf16 or f16 and those of `acc` f32: the two sums by multiply-adds, then one addition each.
    /// Denormals are zeros, as in [`Inst::Dot2`]. A machine may sum in another order and keep denormals.
    TileDot2 {
        acc: u8,
        a: u8,
        b: u8,
        dtype: Dtype,
    },
}

/// A uniform condition on i64 values (unsigned comparisons allowed).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cond {
    /// Comparison.
    pub op: CmpOp,
    /// Left side.
    pub a: Scalar,
    /// Right side.
    pub b: Scalar,
}

/// A statement.
#[derive(Clone, PartialEq, Debug)]
pub enum Stmt {
    /// Runs `body` with `axis` = 0, 1, … below `extent` (none if it is ≤ 0).
    For {
        /// The loop's variable.
        axis: AxisId,
        /// Iterations.
        extent: Scalar,
        /// Copies of the body an emitter should lay out in a row: 0 or 1 none; a constant extent of
        /// at most this disappears as a loop.
        unroll: u32,
        /// What.
        body: Vec<Stmt>,
    },
    /// A uniform branch.
    If {
        /// The condition.
        cond: Cond,
        /// Taken when it holds.
        then: Vec<Stmt>,
        /// Taken when it does not.
        els: Vec<Stmt>,
    },
    /// An instruction.
    Inst(Inst),
}

impl Inst {
    /// The register it assigns.
    pub fn dst(&self) -> Option<Reg> {
        use Inst::*;
        match self {
            Const { dst, .. }
            | Splat { dst, .. }
            | Iota { dst }
            | Index { dst, .. }
            | Un { dst, .. }
            | Bin { dst, .. }
            | Fma { dst, .. }
            | Dot2 { dst, .. }
            | Cmp { dst, .. }
            | Lanes { dst, .. }
            | Select { dst, .. }
            | Cvt { dst, .. }
            | Bitcast { dst, .. }
            | Scale2 { dst, .. }
            | Load { dst, .. }
            | LoadSplat { dst, .. }
            | LoadStrided { dst, .. }
            | Gather { dst, .. }
            | Reduce { dst, .. }
            | Extract { dst, .. }
            | Shuffle { dst, .. }
            | CheckIndex { dst, .. } => Some(*dst),
            Store { .. } | StoreStrided { .. } | Prefetch { .. } | SetStatus { .. } => None,
            Barrier
            | TileConfig { .. }
            | TileZero { .. }
            | TileLoad { .. }
            | TileStore { .. }
            | TileDot2 { .. } => None,
        }
    }

    /// Calls `f` with every register it reads, those of addresses included.
    pub fn uses(&self, mut f: impl FnMut(Reg)) {
        use Inst::*;
        match self {
            Const { .. } | Iota { .. } | Index { .. } | Prefetch { .. } | Barrier => {}
            Splat { src: a, .. }
            | Un { a, .. }
            | Cvt { a, .. }
            | Bitcast { a, .. }
            | Reduce { a, .. }
            | Extract { a, .. }
            | SetStatus { mask: a } => f(*a),
            Bin { a, b, .. } | Cmp { a, b, .. } | Scale2 { a, n: b, .. } => {
                f(*a);
                f(*b)
            }
            Shuffle { a, b, .. } => {
                f(*a);
                f(*b)
            }
            Fma { a, b, c, .. } | Dot2 { a, b, c, .. } | Select { mask: a, a: b, b: c, .. } => {
                f(*a);
                f(*b);
                f(*c)
            }
            Lanes { count, .. } => scalar_use(*count, &mut f),
            CheckIndex { idx, bound, .. } => {
                f(*idx);
                scalar_use(*bound, &mut f)
            }
            Load { mask, .. } | LoadStrided { mask, .. } => mask.iter().for_each(|m| f(*m)),
            LoadSplat { .. } | TileConfig { .. } | TileZero { .. } | TileDot2 { .. } => {}
            TileLoad { .. } | TileStore { .. } => {}
            Gather { idx, mask, .. } => {
                f(*idx);
                mask.iter().for_each(|m| f(*m))
            }
            Store { src, mask, .. } | StoreStrided { src, mask, .. } => {
                f(*src);
                mask.iter().for_each(|m| f(*m))
            }
        }
        if let Some(at) = self.affine() {
            for (v, _) in &at.terms {
                if let Var::Reg(r) = v {
                    f(*r)
                }
            }
        }
    }

    /// Its memory address.
    pub fn addr(&self) -> Option<&Addr> {
        use Inst::*;
        match self {
            Load { addr, .. }
            | LoadSplat { addr, .. }
            | LoadStrided { addr, .. }
            | Gather { addr, .. }
            | Store { addr, .. }
            | StoreStrided { addr, .. }
            | TileLoad { addr, .. }
            | TileStore { addr, .. }
            | Prefetch { addr, .. } => Some(addr),
            _ => None,
        }
    }

    /// Its memory address, to change.
    pub fn addr_mut(&mut self) -> Option<&mut Addr> {
        use Inst::*;
        match self {
            Load { addr, .. }
            | LoadSplat { addr, .. }
            | LoadStrided { addr, .. }
            | Gather { addr, .. }
            | Store { addr, .. }
            | StoreStrided { addr, .. }
            | TileLoad { addr, .. }
            | TileStore { addr, .. }
            | Prefetch { addr, .. } => Some(addr),
            _ => None,
        }
    }

    /// The affine expression of its address or index.
    pub fn affine(&self) -> Option<&Affine> {
        match self {
            Inst::Index { at, .. } => Some(at),
            _ => self.addr().map(|a| &a.at),
        }
    }

    /// Whether it writes memory.
    pub fn writes_memory(&self) -> bool {
        use Inst::*;
        let stores = matches!(self, Store { .. } | StoreStrided { .. } | TileStore { .. });
        stores || matches!(self, CheckIndex { .. } | SetStatus { .. })
    }
}

fn scalar_use(s: Scalar, f: &mut impl FnMut(Reg)) {
    if let Scalar::Reg(r) = s {
        f(r)
    }
}

impl Cond {
    /// Calls `f` with every register it reads.
    pub fn uses(&self, mut f: impl FnMut(Reg)) {
        scalar_use(self.a, &mut f);
        scalar_use(self.b, &mut f);
    }
}
