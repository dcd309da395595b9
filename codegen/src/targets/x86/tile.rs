//! AMX: tile registers named by the kernel, configured from a constant.

use super::lir::*;
use super::sel::*;
use crate::kir::*;
use hub_abi::Dtype;
use iced_x86::Code;

impl Sel<'_> {
    /// One tile instruction.
    pub fn tile(&mut self, i: &Inst) -> Res<()> {
        if !self.amx {
            return self.unsupported("a tile instruction");
        }
        if matches!(i, Inst::TileConfig { shapes } if shapes.len() > 8) {
            return self.unsupported("more than 8 tile registers");
        }
        self.tiled = true;
        match i {
            Inst::TileConfig { shapes } => {
                let at = self.pool_mem(config(shapes));
                self.op(Code::VEX_Ldtilecfg_m512, &[Op::M(at)]);
            }
            Inst::TileZero { tile } => self.op(Code::VEX_Tilezero_tmm, &[Op::T(*tile)]),
            Inst::TileLoad { tile, addr, stride, .. } => {
                let at = self.rows(addr, *stride)?;
                self.op(Code::VEX_Tileloadd_tmm_sibmem, &[Op::T(*tile), Op::M(at)]);
            }
            Inst::TileStore { tile, addr, stride } => {
                let at = self.rows(addr, *stride)?;
                self.op(Code::VEX_Tilestored_sibmem_tmm, &[Op::M(at), Op::T(*tile)]);
            }
            Inst::TileDot2 { dtype, .. } if *dtype != Dtype::BF16 => {
                return self.unsupported("tiles of f16");
            }
            Inst::TileDot2 { acc, a, b, .. } => {
                self.op(Code::VEX_Tdpbf16ps_tmm_tmm_tmm, &[Op::T(*acc), Op::T(*a), Op::T(*b)])
            }
            _ => return self.unsupported("not a tile instruction"),
        }
        Ok(())
    }

    /// A memory operand whose index register is the bytes from row to row.
    fn rows(&mut self, addr: &Addr, stride: Coef) -> Res<Mem> {
        let mut m = self.mem(addr)?;
        if m.index.is_some() || !matches!(m.base, MBase::V(_)) {
            let v = self.gpr();
            self.op(Code::Lea_r64_m, &[def(v, W::B64), Op::M(m)]);
            m = Mem::at(v, 0);
        }
        let step = self.gpr();
        match stride.param {
            None => self.mov_imm(step, stride.mul),
            Some(p) => {
                self.mov_scalar(step, Scalar::Param(p));
                if stride.mul != 1 {
                    let by = Op::I(stride.mul);
                    let ops = [def(step, W::B64), use_(step, W::B64), by];
                    self.op(Code::Imul_r64_rm64_imm32, &ops);
                }
            }
        }
        m.index = Some((step, 1));
        Ok(m)
    }
}

/// The 64 bytes that `ldtilecfg` reads: palette 1, then bytes a row of each tile from byte 16 on and
/// its rows from byte 48 on.
fn config(shapes: &[(u8, u8)]) -> Vec<u8> {
    let mut c = vec![0u8; 64];
    c[0] = 1;
    for (t, (rows, bytes)) in shapes.iter().enumerate() {
        c[16 + 2 * t] = *bytes;
        c[48 + t] = *rows;
    }
    c
}
