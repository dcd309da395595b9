//! Encoding: physical registers into iced instructions, prologue and epilogue, branches, and the
//! constant pool behind the code.

use super::alloc::Allocated;
use super::lir::*;
use super::sel::{ARGS, BEGIN, END, SCRATCH};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code as X, Instruction, InstructionBlock, MemoryOperand,
    OpKind, Register,
};

/// Emitted machine code.
#[derive(Clone, Debug)]
pub struct Code {
    /// Instructions, then the constant pool. Entered at offset 0; place at a multiple of 64.
    pub bytes: Vec<u8>,
    /// Length of the instructions alone.
    pub code_len: usize,
}

const GPR64: [Register; 16] = {
    use Register::*;
    [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15]
};
const GPR32: [Register; 16] = {
    use Register::*;
    [EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, R8D, R9D, R10D, R11D, R12D, R13D, R14D, R15D]
};
const GPR16: [Register; 16] = {
    use Register::*;
    [AX, CX, DX, BX, SP, BP, SI, DI, R8W, R9W, R10W, R11W, R12W, R13W, R14W, R15W]
};
const GPR8: [Register; 16] = {
    use Register::*;
    [AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L]
};
/// Registers that a function must leave as they were.
const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// Where the pool lies while the code is being encoded.
const POOL: u64 = 0x1000_0000;

fn reg(n: u8, w: W) -> Register {
    match w {
        W::B64 => GPR64[n as usize],
        W::B32 => GPR32[n as usize],
        W::B16 => GPR16[n as usize],
        W::B8 => GPR8[n as usize],
        W::X => Register::XMM0 + n as u32,
        W::Y => Register::YMM0 + n as u32,
        W::Z => Register::ZMM0 + n as u32,
        W::K => Register::K0 + n as u32,
    }
}

struct Asm<'a> {
    a: &'a Allocated,
    out: Vec<Instruction>,
    /// Index of the instruction that each label precedes.
    labels: Vec<u64>,
}

/// Instruction `n` has address `n` until everything is encoded.
const RET: u64 = u64::MAX;

/// The instructions of an allocated program, prologue to `ret`, branch targets being indices.
pub fn instructions(a: &Allocated) -> Vec<Instruction> {
    let mut s = Asm { a, out: vec![], labels: vec![RET; a.program.labels as usize] };
    let saved: Vec<u8> = SAVED
        .into_iter()
        .filter(|r| {
            let gpr = |n: usize| a.program.classes[n] == Class::Gpr && a.used[n];
            a.phys.iter().enumerate().any(|(n, p)| p == r && gpr(n))
        })
        .collect();
    let frame = (a.program.frame as u64).next_multiple_of(16) as i64;
    s.prologue(&saved, frame);
    for item in &a.program.items {
        match item {
            Item::Label(l) => s.labels[*l as usize] = s.out.len() as u64,
            // What coalescing put in one register needs no copy.
            Item::Inst(_) if item.copy().is_some_and(|(x, d)| s.phys(x) == s.phys(d)) => {}
            Item::Inst(i) => {
                let i = s.inst(i);
                s.out.push(i)
            }
            Item::Div { dst, a, b, rem } => s.div(*dst, *a, *b, *rem),
        }
    }
    s.epilogue(&saved, frame);
    let labels = s.labels;
    for (n, i) in s.out.iter_mut().enumerate() {
        if i.op0_kind() == OpKind::NearBranch64 {
            let l = i.near_branch64() as usize;
            i.set_near_branch64(labels[l]);
        }
        i.set_ip(n as u64);
    }
    s.out
}

/// One machine instruction with its physical registers.
pub(super) fn encode_one(a: &Allocated, i: &MInst) -> Instruction {
    Asm { a, out: vec![], labels: vec![] }.inst(i)
}

/// Physical register of an operand, at full width.
pub(super) fn full_register(a: &Allocated, v: V) -> Register {
    let n = a.phys[v.0 as usize];
    reg(
        n,
        match a.program.classes[v.0 as usize] {
            Class::Gpr => W::B64,
            Class::Vec => W::Z,
            Class::Mask => W::K,
        },
    )
}

impl Asm<'_> {
    fn phys(&self, v: V) -> u8 {
        self.a.phys[v.0 as usize]
    }

    fn push2(&mut self, code: X, a: Register, b: Register) {
        self.out.push(Instruction::with2(code, a, b).expect("a register form"))
    }

    fn load(&mut self, r: Register, disp: i64) {
        let m = MemoryOperand::with_base_displ(Register::RSP, disp);
        self.out.push(Instruction::with2(X::Mov_r64_rm64, r, m).expect("a load"))
    }

    fn store(&mut self, disp: i64, r: Register) {
        let m = MemoryOperand::with_base_displ(Register::RSP, disp);
        self.out.push(Instruction::with2(X::Mov_rm64_r64, m, r).expect("a store"))
    }

    fn prologue(&mut self, saved: &[u8], frame: i64) {
        for r in saved {
            self.out.push(Instruction::with1(X::Push_r64, GPR64[*r as usize]).expect("a push"));
        }
        let sub = Instruction::with2(X::Sub_rm64_imm32, Register::RSP, frame as i32);
        self.out.push(sub.expect("a subtraction"));
        self.store(ARGS, Register::RDI);
        self.store(BEGIN, Register::RSI);
        self.store(END, Register::RDX);
        self.store(SCRATCH, Register::RCX);
    }

    fn epilogue(&mut self, saved: &[u8], frame: i64) {
        self.out.push(Instruction::with(X::VEX_Vzeroupper));
        let add = Instruction::with2(X::Add_rm64_imm32, Register::RSP, frame as i32);
        self.out.push(add.expect("an addition"));
        for r in saved.iter().rev() {
            self.out.push(Instruction::with1(X::Pop_r64, GPR64[*r as usize]).expect("a pop"));
        }
        self.out.push(Instruction::with(X::Retnq));
    }

    /// `idiv` through the frame, with rax and rdx restored.
    fn div(&mut self, dst: V, a: V, b: V, rem: bool) {
        let p = |v: V| GPR64[self.a.phys[v.0 as usize] as usize];
        let (dst, a, b) = (p(dst), p(a), p(b));
        let (sa, sd, sb) = (32, 40, 48);
        self.store(sa, Register::RAX);
        self.store(sd, Register::RDX);
        self.store(sb, b);
        if a != Register::RAX {
            self.push2(X::Mov_r64_rm64, Register::RAX, a);
        }
        self.out.push(Instruction::with(X::Cqo));
        let m = MemoryOperand::with_base_displ(Register::RSP, sb);
        self.out.push(Instruction::with1(X::Idiv_rm64, m).expect("a division"));
        self.store(sb, if rem { Register::RDX } else { Register::RAX });
        self.load(Register::RAX, sa);
        self.load(Register::RDX, sd);
        self.load(dst, sb);
    }

    fn inst(&self, i: &MInst) -> Instruction {
        let mut x = Instruction::default();
        x.set_code(i.code);
        for (n, o) in i.ops.iter().enumerate() {
            let n = n as u32;
            match o {
                Op::R(v, w, _) => {
                    x.set_op_kind(n, OpKind::Register);
                    x.set_op_register(n, reg(self.a.phys[v.0 as usize], *w));
                }
                Op::I(k) => {
                    x.set_op_kind(n, immediate(i.code, n));
                    match x.op_kind(n) {
                        OpKind::Immediate8 => x.set_immediate8(*k as u8),
                        OpKind::Immediate8to64 => x.set_immediate8to64(*k),
                        OpKind::Immediate32 => x.set_immediate32(*k as u32),
                        OpKind::Immediate32to64 => x.set_immediate32to64(*k),
                        _ => x.set_immediate64(*k as u64),
                    }
                }
                Op::L(l) => {
                    x.set_op_kind(n, OpKind::NearBranch64);
                    x.set_near_branch64(*l as u64);
                }
                Op::T(t) => {
                    x.set_op_kind(n, OpKind::Register);
                    x.set_op_register(n, Register::TMM0 + *t as u32);
                }
                Op::M(m) => {
                    x.set_op_kind(n, OpKind::Memory);
                    self.memory(&mut x, m);
                }
            }
        }
        if let Some(k) = i.mask {
            x.set_op_mask(reg(self.a.phys[k.0 as usize], W::K));
            x.set_zeroing_masking(i.zeroing);
        }
        x
    }

    fn memory(&self, x: &mut Instruction, m: &Mem) {
        let base = match m.base {
            MBase::V(v) => reg(self.a.phys[v.0 as usize], W::B64),
            MBase::Frame => Register::RSP,
            MBase::Pool => Register::RIP,
        };
        x.set_memory_base(base);
        if let Some((v, scale)) = m.index {
            x.set_memory_index(reg(self.a.phys[v.0 as usize], W::B64));
            x.set_memory_index_scale(scale as u32);
        }
        if m.base == MBase::Pool {
            x.set_memory_displacement64(POOL + m.disp as u64);
            x.set_memory_displ_size(8);
        } else {
            x.set_memory_displacement64(m.disp as u64);
            // One byte (scaled, under EVEX) where it fits, else four.
            let far = m.disp != 0 || matches!(base, Register::RBP | Register::R13);
            x.set_memory_displ_size(u32::from(far));
        }
        x.set_is_broadcast(m.bcast);
    }
}

/// How an instruction takes its immediate.
fn immediate(c: X, n: u32) -> OpKind {
    use X::*;
    match c {
        Mov_r64_imm64 => OpKind::Immediate64,
        Mov_r32_imm32 | Mov_rm32_imm32 | And_rm32_imm32 | Test_rm32_imm32 => OpKind::Immediate32,
        Mov_rm64_imm32 | Add_rm64_imm32 | Cmp_rm64_imm32 | Imul_r64_rm64_imm32 => {
            OpKind::Immediate32to64
        }
        Add_rm64_imm8 => OpKind::Immediate8to64,
        _ => {
            debug_assert!(n > 0);
            OpKind::Immediate8
        }
    }
}

/// Encodes an allocated program.
///
/// # Panics
/// Where an instruction does not encode, which is a bug of selection.
pub fn assemble(a: &Allocated) -> Code {
    let code = instructions(a);
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS
        | BlockEncoderOptions::RETURN_CONSTANT_OFFSETS;
    let done = match BlockEncoder::encode(64, InstructionBlock::new(&code, 0), options) {
        Ok(done) => done,
        Err(e) => panic!("an instruction does not encode: {e}"),
    };
    let mut bytes = done.code_buffer;
    let code_len = bytes.len();
    if a.program.pool.is_empty() {
        return Code { bytes, code_len };
    }
    let pool = code_len.next_multiple_of(64);
    for (n, i) in code.iter().enumerate() {
        if i.is_ip_rel_memory_operand() {
            let at = done.new_instruction_offsets[n] as usize
                + done.constant_offsets[n].displacement_offset();
            let old = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            let new = old.wrapping_sub(POOL as u32).wrapping_add(pool as u32);
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
    }
    bytes.resize(pool, 0xcc);
    bytes.extend(&a.program.pool);
    Code { bytes, code_len }
}
