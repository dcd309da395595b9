//! Machine instructions on virtual registers, as selection makes them and allocation reads them.

use iced_x86::Code;

/// A virtual register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct V(pub u32);

/// Which physical registers may hold a virtual one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// General registers but rsp.
    Gpr,
    /// xmm/ymm/zmm.
    Vec,
    /// k1–k7.
    Mask,
}

/// Width at which an operand names a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum W {
    B8,
    B16,
    B32,
    B64,
    X,
    Y,
    Z,
    K,
}

/// What an instruction does with a register operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Writes all of it.
    Def,
    /// Reads it.
    Use,
    /// Reads and writes it.
    Mod,
    /// Names it without depending on its value (zeroing idioms); the same instruction defines it.
    Same,
}

/// Where a memory operand starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MBase {
    /// A general register.
    V(V),
    /// The stack frame (offset from rsp).
    Frame,
    /// The constant pool after the code.
    Pool,
}

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mem {
    /// Start.
    pub base: MBase,
    /// Register times 1, 2, 4 or 8.
    pub index: Option<(V, u8)>,
    /// Bytes, within i32.
    pub disp: i64,
    /// EVEX embedded broadcast of one element.
    pub bcast: bool,
}

impl Mem {
    /// Bytes at `disp` from a register.
    pub fn at(v: V, disp: i64) -> Mem {
        Mem { base: MBase::V(v), index: None, disp, bcast: false }
    }

    /// Bytes at `disp` in the frame.
    pub fn frame(disp: i64) -> Mem {
        Mem { base: MBase::Frame, index: None, disp, bcast: false }
    }

    /// The same, `n` bytes on.
    pub fn plus(self, n: i64) -> Mem {
        Mem { disp: self.disp + n, ..self }
    }
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A register.
    R(V, W, Role),
    /// An immediate.
    I(i64),
    /// Memory.
    M(Mem),
    /// A branch target.
    L(u32),
    /// A tile register, by its number: kernels name them.
    T(u8),
}

/// One machine instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct MInst {
    /// Its encoding.
    pub code: Code,
    /// Operands in iced's order.
    pub ops: Vec<Op>,
    /// EVEX write mask.
    pub mask: Option<V>,
    /// Masked-off lanes become zero (otherwise they keep the destination's).
    pub zeroing: bool,
}

/// What a program is made of.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// An instruction.
    Inst(MInst),
    /// A branch target.
    Label(u32),
    /// Signed 64-bit division (`b` not zero, not MIN/−1), expanded after allocation because the
    /// machine's uses fixed registers.
    Div {
        /// Quotient, or remainder.
        dst: V,
        /// Dividend.
        a: V,
        /// Divisor.
        b: V,
        /// Which of the two.
        rem: bool,
    },
}

/// Instructions before allocation.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// In order; control falls through.
    pub items: Vec<Item>,
    /// Loop depth of each item.
    pub depth: Vec<u8>,
    /// Class of each virtual register.
    pub classes: Vec<Class>,
    /// Labels made.
    pub labels: u32,
    /// Bytes of frame used so far, from rsp.
    pub frame: i64,
    /// Constants, placed after the code on a 64-byte boundary.
    pub pool: Vec<u8>,
}

impl Item {
    /// Calls `f(v, role)` for every register named, memory operands and masks included. A merging
    /// mask makes the destination `Mod`.
    pub fn each(&self, mut f: impl FnMut(V, Role)) {
        match self {
            Item::Label(_) => {}
            Item::Div { dst, a, b, .. } => {
                f(*a, Role::Use);
                f(*b, Role::Use);
                f(*dst, Role::Def);
            }
            Item::Inst(i) => {
                for (n, o) in i.ops.iter().enumerate() {
                    match o {
                        Op::R(v, _, Role::Def) if n == 0 && i.merges() => f(*v, Role::Mod),
                        Op::R(v, _, r) => f(*v, *r),
                        Op::M(m) => {
                            if let MBase::V(v) = m.base {
                                f(v, Role::Use)
                            }
                            if let Some((v, _)) = m.index {
                                f(v, Role::Use)
                            }
                        }
                        Op::I(_) | Op::L(_) | Op::T(_) => {}
                    }
                }
                if let Some(m) = i.mask {
                    f(m, Role::Use)
                }
            }
        }
    }

    /// Where it may branch to.
    pub fn target(&self) -> Option<u32> {
        match self {
            Item::Inst(i) => {
                i.ops.iter().find_map(|o| if let Op::L(l) = o { Some(*l) } else { None })
            }
            _ => None,
        }
    }

    /// Control never reaches the next item.
    pub fn ends(&self) -> bool {
        matches!(self, Item::Inst(i) if i.code == Code::Jmp_rel32_64)
    }

    /// A plain register copy (source, destination).
    pub fn copy(&self) -> Option<(V, V)> {
        let Item::Inst(i) = self else { return None };
        let name = matches!(
            i.code,
            Code::Mov_r64_rm64
                | Code::VEX_Vmovaps_xmm_xmmm128
                | Code::VEX_Vmovaps_ymm_ymmm256
                | Code::EVEX_Vmovaps_xmm_k1z_xmmm128
                | Code::EVEX_Vmovaps_ymm_k1z_ymmm256
                | Code::EVEX_Vmovaps_zmm_k1z_zmmm512
                | Code::VEX_Kmovw_kr_km16
        );
        match (name && i.mask.is_none(), i.ops.as_slice()) {
            (true, [Op::R(d, _, Role::Def), Op::R(s, _, Role::Use)]) => Some((*s, *d)),
            _ => None,
        }
    }
}

impl MInst {
    /// Lanes that the write mask turns off keep the destination's old value. Mask registers as
    /// destinations are zeroed there, and blends take the lane from a source.
    pub fn merges(&self) -> bool {
        use Code::*;
        let k = matches!(self.ops.first(), Some(Op::R(_, W::K, _)));
        let blend = matches!(
            self.code,
            EVEX_Vpblendmd_xmm_k1z_xmm_xmmm128b32
                | EVEX_Vpblendmd_ymm_k1z_ymm_ymmm256b32
                | EVEX_Vpblendmd_zmm_k1z_zmm_zmmm512b32
                | EVEX_Vpblendmq_xmm_k1z_xmm_xmmm128b64
                | EVEX_Vpblendmq_ymm_k1z_ymm_ymmm256b64
                | EVEX_Vpblendmq_zmm_k1z_zmm_zmmm512b64
        );
        self.mask.is_some() && !self.zeroing && !k && !blend
    }
}
