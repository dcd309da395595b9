//! General registers: moves, and the instructions on `i64` scalars.

use super::lir::*;
use super::sel::*;
use crate::kir::*;
use hub_abi::Dtype;
use iced_x86::Code;

impl Sel<'_> {
    pub fn mov(&mut self, d: V, s: V) {
        if d != s {
            self.op(Code::Mov_r64_rm64, &[def(d, W::B64), use_(s, W::B64)])
        }
    }

    pub fn mov_load(&mut self, d: V, m: Mem) {
        self.op(Code::Mov_r64_rm64, &[def(d, W::B64), Op::M(m)])
    }

    pub fn mov_imm(&mut self, d: V, n: i64) {
        if let Ok(n) = u32::try_from(n) {
            self.op(Code::Mov_r32_imm32, &[def(d, W::B32), Op::I(n as i64)])
        } else if i32::try_from(n).is_ok() {
            self.op(Code::Mov_rm64_imm32, &[def(d, W::B64), Op::I(n)])
        } else {
            self.op(Code::Mov_r64_imm64, &[def(d, W::B64), Op::I(n)])
        }
    }

    pub fn param_mem(&self, p: ParamId) -> Mem {
        Mem::at(self.args, 8 * p.0 as i64)
    }

    pub fn mov_scalar(&mut self, d: V, s: Scalar) {
        match s {
            Scalar::Const(n) => self.mov_imm(d, n),
            Scalar::Param(p) => self.mov_load(d, self.param_mem(p)),
            Scalar::Reg(r) => {
                let s = self.gsrc(r);
                self.mov(d, s)
            }
        }
    }

    /// The register of an i64 scalar.
    pub fn gsrc(&mut self, r: Reg) -> V {
        self.src(r).expect("an i64 scalar has a register")
    }

    /// Compares a register with a uniform operand.
    pub fn cmp_scalar(&mut self, a: V, b: Scalar) {
        let b = match b {
            Scalar::Const(n) if i32::try_from(n).is_ok() => {
                return self.op(Code::Cmp_rm64_imm32, &[use_(a, W::B64), Op::I(n)]);
            }
            Scalar::Const(n) => {
                let t = self.gpr();
                self.mov_imm(t, n);
                use_(t, W::B64)
            }
            Scalar::Param(p) => Op::M(self.param_mem(p)),
            Scalar::Reg(r) => use_(self.gsrc(r), W::B64),
        };
        self.op(Code::Cmp_r64_rm64, &[use_(a, W::B64), b])
    }

    pub fn add_imm(&mut self, v: V, n: i64) {
        if n == 0 {
            return;
        }
        let (add, wide) = (Code::Add_rm64_imm32, i32::try_from(n).is_err());
        if i8::try_from(n).is_ok() {
            self.op(Code::Add_rm64_imm8, &[modify(v, W::B64), Op::I(n)])
        } else if wide {
            let t = self.gpr();
            self.mov_imm(t, n);
            self.op(Code::Add_r64_rm64, &[modify(v, W::B64), use_(t, W::B64)])
        } else {
            self.op(add, &[modify(v, W::B64), Op::I(n)])
        }
    }

    pub fn mul_imm(&mut self, v: V, n: i64) {
        if n == 1 {
        } else if n > 0 && (n as u64).is_power_of_two() {
            self.shift_imm(Code::Shl_rm64_imm8, v, n.trailing_zeros() as i64)
        } else if i32::try_from(n).is_ok() {
            let ops = [def(v, W::B64), use_(v, W::B64), Op::I(n)];
            self.op(Code::Imul_r64_rm64_imm32, &ops)
        } else {
            let t = self.gpr();
            self.mov_imm(t, n);
            self.op(Code::Imul_r64_rm64, &[modify(v, W::B64), use_(t, W::B64)])
        }
    }

    pub fn shift_imm(&mut self, c: Code, v: V, n: i64) {
        self.op(c, &[modify(v, W::B64), Op::I(n)])
    }

    pub fn lea(&mut self, d: V, s: V, n: i64) {
        if n == 0 {
            return self.mov(d, s);
        }
        if i32::try_from(n).is_ok() {
            return self.op(Code::Lea_r64_m, &[def(d, W::B64), Op::M(Mem::at(s, n))]);
        }
        self.mov(d, s);
        self.add_imm(d, n)
    }

    pub fn two(&mut self, c: Code, d: V, s: V) {
        self.op(c, &[modify(d, W::B64), use_(s, W::B64)])
    }

    pub fn test(&mut self, v: V) {
        self.op(Code::Test_rm64_r64, &[use_(v, W::B64), use_(v, W::B64)])
    }

    pub fn gpr_un(&mut self, op: UnOp, d: V, a: V) -> Res<()> {
        let t = self.gpr();
        self.mov(t, a);
        match op {
            UnOp::Copy => {}
            UnOp::Neg => self.op(Code::Neg_rm64, &[modify(t, W::B64)]),
            UnOp::Not => self.op(Code::Not_rm64, &[modify(t, W::B64)]),
            UnOp::Abs => {
                self.op(Code::Neg_rm64, &[modify(t, W::B64)]);
                self.two(Code::Cmovs_r64_rm64, t, a);
            }
            _ => return self.unsupported(format!("{op:?} of an integer")),
        }
        self.mov(d, t);
        Ok(())
    }

    pub fn gpr_bin(&mut self, op: BinOp, d: V, a: V, b: V) -> Res<()> {
        use BinOp::*;
        let t = self.gpr();
        let pick = |s: &mut Self, cmov: Code| {
            s.mov(t, a);
            s.op(Code::Cmp_r64_rm64, &[use_(a, W::B64), use_(b, W::B64)]);
            s.two(cmov, t, b);
        };
        let simple = |s: &mut Self, c: Code| {
            s.mov(t, a);
            s.two(c, t, b);
        };
        let shift = |s: &mut Self, c: Code| {
            s.op(c, &[def(t, W::B64), use_(a, W::B64), use_(b, W::B64)]);
        };
        match op {
            Add => simple(self, Code::Add_r64_rm64),
            Sub => simple(self, Code::Sub_r64_rm64),
            Mul => simple(self, Code::Imul_r64_rm64),
            And => simple(self, Code::And_r64_rm64),
            Or => simple(self, Code::Or_r64_rm64),
            Xor => simple(self, Code::Xor_r64_rm64),
            AndNot => {
                self.mov(t, a);
                self.op(Code::Not_rm64, &[modify(t, W::B64)]);
                self.two(Code::And_r64_rm64, t, b);
            }
            Min => pick(self, Code::Cmovg_r64_rm64),
            Max => pick(self, Code::Cmovl_r64_rm64),
            UMin => pick(self, Code::Cmova_r64_rm64),
            UMax => pick(self, Code::Cmovb_r64_rm64),
            Shl => shift(self, Code::VEX_Shlx_r64_rm64_r64),
            Shr => shift(self, Code::VEX_Sarx_r64_rm64_r64),
            UShr => shift(self, Code::VEX_Shrx_r64_rm64_r64),
            Div | Rem => self.gpr_div(t, a, b, op == Rem),
        }
        self.mov(d, t);
        Ok(())
    }

    /// Total division: zero divisors give 0, −1 negates.
    fn gpr_div(&mut self, t: V, a: V, b: V, rem: bool) {
        let (end, div) = (self.label(), self.label());
        self.mov_imm(t, 0);
        self.test(b);
        self.jump(Code::Je_rel32_64, end);
        self.cmp_scalar(b, Scalar::Const(-1));
        self.jump(Code::Jne_rel32_64, div);
        if !rem {
            self.two(Code::Sub_r64_rm64, t, a);
        }
        self.jump(Code::Jmp_rel32_64, end);
        self.place(div);
        self.item(Item::Div { dst: t, a, b, rem });
        self.place(end);
    }

    /// Loads an element, extended to 64 bits.
    pub fn gpr_load(&mut self, d: V, m: Mem, dtype: Dtype) {
        let (c, w) = match dtype {
            Dtype::I64 | Dtype::U64 | Dtype::F64 => (Code::Mov_r64_rm64, W::B64),
            Dtype::I32 => (Code::Movsxd_r64_rm32, W::B64),
            Dtype::U32 | Dtype::F32 => (Code::Mov_r32_rm32, W::B32),
            Dtype::I16 => (Code::Movsx_r64_rm16, W::B64),
            Dtype::U16 | Dtype::F16 | Dtype::BF16 => (Code::Movzx_r32_rm16, W::B32),
            Dtype::I8 => (Code::Movsx_r64_rm8, W::B64),
            _ => (Code::Movzx_r32_rm8, W::B32),
        };
        self.op(c, &[def(d, w), Op::M(m)])
    }

    /// Stores the low `size` bytes.
    pub fn gpr_store(&mut self, m: Mem, s: V, size: usize) {
        let (c, w) = match size {
            8 => (Code::Mov_rm64_r64, W::B64),
            4 => (Code::Mov_rm32_r32, W::B32),
            2 => (Code::Mov_rm16_r16, W::B16),
            _ => (Code::Mov_rm8_r8, W::B8),
        };
        self.op(c, &[Op::M(m), use_(s, w)])
    }

    /// A 0/1 register (of `jump if not` sense) to a one-lane mask.
    pub fn gpr_cmp(&mut self, op: CmpOp, d: V, a: V, b: V) {
        let set = match op {
            CmpOp::Eq => Code::Sete_rm8,
            CmpOp::Ne => Code::Setne_rm8,
            CmpOp::Lt => Code::Setl_rm8,
            CmpOp::Le => Code::Setle_rm8,
            CmpOp::Gt => Code::Setg_rm8,
            CmpOp::Ge => Code::Setge_rm8,
            CmpOp::ULt => Code::Setb_rm8,
            CmpOp::ULe => Code::Setbe_rm8,
        };
        let t = self.gpr();
        self.mov_imm(t, 0);
        self.op(Code::Cmp_r64_rm64, &[use_(a, W::B64), use_(b, W::B64)]);
        self.op(set, &[modify(t, W::B8)]);
        if self.wide {
            self.op(Code::VEX_Kmovw_kr_r32, &[def(d, W::K), use_(t, W::B32)]);
        } else {
            self.op(Code::Neg_rm64, &[modify(t, W::B64)]);
            self.op(Code::VEX_Vmovq_xmm_rm64, &[def(d, W::X), use_(t, W::B64)]);
        }
    }

    /// Sets the status word.
    pub fn raise(&mut self) {
        let p = self.k.status().expect("the verifier asked for a status parameter");
        let t = self.gpr();
        self.mov_load(t, self.param_mem(p));
        self.op(Code::Mov_rm32_imm32, &[Op::M(Mem::at(t, 0)), Op::I(1)]);
    }

    pub fn gpr_check(&mut self, d: V, idx: V, bound: Scalar) {
        let (t, u, n) = (self.gpr(), self.gpr(), self.gpr());
        let ok = self.label();
        self.mov_scalar(n, bound);
        self.mov(t, idx);
        self.mov(u, idx);
        self.two(Code::Add_r64_rm64, u, n);
        self.test(t);
        self.two(Code::Cmovs_r64_rm64, t, u);
        // 0 ≤ t < n; n itself may be 0 or (absurdly) negative
        let z = self.gpr();
        self.mov_imm(z, 0);
        self.test(n);
        self.two(Code::Cmovs_r64_rm64, n, z);
        self.op(Code::Cmp_r64_rm64, &[use_(t, W::B64), use_(n, W::B64)]);
        self.jump(Code::Jb_rel32_64, ok);
        self.raise();
        self.mov_imm(t, 0);
        self.place(ok);
        self.mov(d, t);
    }
}
