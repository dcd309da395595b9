//! Loads and stores, with the conversions that they hold.

use super::addr::{Lane, lane_of};
use super::ptx::Renderer;
use super::table;
use crate::kir::*;
use hub_abi::Dtype;

impl Renderer<'_> {
    pub(super) fn memory(&mut self, i: &Inst) {
        use Inst::*;
        let Some(addr) = i.addr() else { return };
        let (reg, dtype, mask) = match i {
            Load { dst, dtype, mask, .. }
            | LoadStrided { dst, dtype, mask, .. }
            | Gather { dst, dtype, mask, .. } => (*dst, *dtype, *mask),
            LoadSplat { dst, dtype, .. } => (*dst, *dtype, None),
            Store { src, dtype, mask, .. } | StoreStrided { src, dtype, mask, .. } => {
                (*src, *dtype, *mask)
            }
            _ => return,
        };
        let store = i.writes_memory();
        if self.order.access(addr.base, store) {
            self.wait();
        }
        let lane = match i {
            LoadSplat { .. } => Lane::None,
            i => lane_of(self.k, i),
        };
        let (at, offset) = self.address(addr, lane);
        let space = if addr.base == Base::Scratch { "shared" } else { "global" };
        let at = match offset {
            0 => format!("[{at}]"),
            n => format!("[{at}{n:+}]"),
        };
        match store {
            true => self.store(reg, dtype, mask, space, &at),
            false => self.load(reg, dtype, mask, space, &at),
        }
    }

    fn load(&mut self, dst: Reg, dtype: Dtype, mask: Option<Reg>, space: &str, at: &str) {
        let (e, d) = (self.k.ty(dst).elem, self.reg(dst));
        // Half floats come as bits, f32 for f64 as f32.
        let half = matches!(dtype, Dtype::F16 | Dtype::BF16);
        let raw = match (e, dtype) {
            (_, Dtype::F16) => self.temp_of("h"),
            (_, Dtype::BF16) => self.temp(Elem::I32),
            (Elem::F64, Dtype::F32) => self.temp(Elem::F32),
            _ => d.clone(),
        };
        let on = match mask {
            None => String::new(),
            Some(m) => {
                let zero = match (half, e, dtype) {
                    (true, _, Dtype::F16) => format!("mov.b16 {raw}, 0"),
                    (_, Elem::F64, Dtype::F64) => format!("mov.f64 {raw}, 0d0000000000000000"),
                    (false, Elem::F32 | Elem::F64, _) => format!("mov.f32 {raw}, 0f00000000"),
                    (false, Elem::I64, _) => format!("mov.b64 {raw}, 0"),
                    _ => format!("mov.b32 {raw}, 0"),
                };
                self.line(zero);
                format!("@{} ", self.reg(m))
            }
        };
        self.line(format!("{on}ld.{space}.{} {raw}, {at}", table::access(dtype)));
        match (e, dtype) {
            (_, Dtype::F16) => self.line(format!("cvt.f32.f16 {d}, {raw}")),
            (_, Dtype::BF16) => {
                self.line(format!("shl.b32 {raw}, {raw}, 16"));
                self.line(format!("mov.b32 {d}, {raw}"));
            }
            (Elem::F64, Dtype::F32) => self.line(format!("cvt.f64.f32 {d}, {raw}")),
            _ => {}
        }
    }

    fn store(&mut self, src: Reg, dtype: Dtype, mask: Option<Reg>, space: &str, at: &str) {
        let ty = self.k.ty(src);
        let mut raw = self.reg(src);
        match (ty.elem, dtype) {
            (_, Dtype::F16) => {
                let h = self.temp_of("h");
                self.line(format!("cvt.rn.f16.f32 {h}, {raw}"));
                raw = h;
            }
            (_, Dtype::BF16) => raw = self.bf16_of(&raw),
            (Elem::F64, Dtype::F32) => {
                let f = self.temp(Elem::F32);
                self.line(format!("cvt.rn.f32.f64 {f}, {raw}"));
                raw = f;
            }
            _ => {}
        }
        let mut on = mask.map(|m| self.reg(m));
        if ty.lanes < 32 {
            self.stores.insert(ty.lanes);
            let first = format!("%first{}", ty.lanes);
            on = Some(match on {
                None => first,
                Some(m) => {
                    let p = self.temp(Elem::Mask);
                    self.line(format!("and.pred {p}, {m}, {first}"));
                    p
                }
            });
        }
        let on = on.map_or(String::new(), |p| format!("@{p} "));
        let kind = match dtype {
            Dtype::I8 => "u8",
            Dtype::I16 => "u16",
            Dtype::I32 => "u32",
            d => table::access(d),
        };
        self.line(format!("{on}st.{space}.{kind} {at}, {raw}"));
    }

    /// Rounds to nearest even by hand; a NaN stays one.
    fn bf16_of(&mut self, x: &str) -> String {
        let (bits, odd, nan) = (self.temp(Elem::I32), self.temp(Elem::I32), self.temp(Elem::Mask));
        let (sum, quiet) = (self.temp(Elem::I32), self.temp(Elem::I32));
        self.line(format!("mov.b32 {bits}, {x}"));
        self.line(format!("shr.u32 {odd}, {bits}, 16"));
        self.line(format!("or.b32 {quiet}, {odd}, 64"));
        self.line(format!("and.b32 {odd}, {odd}, 1"));
        self.line(format!("add.s32 {sum}, {bits}, 32767"));
        self.line(format!("add.s32 {sum}, {sum}, {odd}"));
        self.line(format!("shr.u32 {sum}, {sum}, 16"));
        self.line(format!("setp.neu.f32 {nan}, {x}, {x}"));
        self.line(format!("selp.b32 {sum}, {quiet}, {sum}, {nan}"));
        sum
    }
}
