//! Lanes that do not lie side by side, and work done lane by lane: through general registers and a
//! staging area in the frame.

use super::lir::*;
use super::ops;
use super::sel::*;
use crate::kir::*;
use hub_abi::Dtype;
use iced_x86::Code;

/// A step of lanewise work: destination and sources in general registers.
type LaneStep<'f, 'a> = &'f mut dyn FnMut(&mut Sel<'a>, V, &[V]) -> Res<()>;

impl<'a> Sel<'a> {
    /// The address of a memory operand in a register of its own.
    fn addr_of(&mut self, m: Mem) -> V {
        let v = self.gpr();
        self.op(Code::Lea_r64_m, &[def(v, W::B64), Op::M(m)]);
        v
    }

    fn add_coef(&mut self, v: V, c: Coef) {
        match c.param {
            None => self.add_imm(v, c.mul),
            Some(p) if c.mul == 1 => {
                let m = self.param_mem(p);
                self.op(Code::Add_r64_rm64, &[modify(v, W::B64), Op::M(m)]);
            }
            Some(p) => {
                let t = self.gpr();
                self.mov_load(t, self.param_mem(p));
                self.mul_imm(t, c.mul);
                self.two(Code::Add_r64_rm64, v, t);
            }
        }
    }

    /// Skips to a new label unless lane `l`'s bit is on.
    fn skip_off(&mut self, bits: Option<V>, l: u8) -> Option<u32> {
        let bits = bits?;
        let next = self.label();
        self.op(Code::Test_rm32_imm32, &[use_(bits, W::B32), Op::I(1 << l)]);
        self.jump(Code::Je_rel32_64, next);
        Some(next)
    }

    /// The memory elements of contiguous lanes that are on, zero elsewhere, in the staging area.
    pub fn stage_lanes(&mut self, t: RegTy, m: Mem, d: Dtype, mask: Option<V>) -> Res<Mem> {
        let p = self.addr_of(m);
        let step = Coef::from(d.size() as i64);
        self.stage(
            t,
            d,
            mask,
            &mut |s, l, g| {
                let _ = l;
                s.gpr_load(g, Mem::at(p, 0), d);
                Ok(())
            },
            &mut |s| s.add_coef(p, step),
        )
    }

    /// Stages `lanes` elements that `get(lane, register)` fetches; `next` runs after every lane.
    fn stage(
        &mut self,
        t: RegTy,
        d: Dtype,
        mask: Option<V>,
        get: &mut dyn FnMut(&mut Self, u8, V) -> Res<()>,
        next: &mut dyn FnMut(&mut Self),
    ) -> Res<Mem> {
        let stage = Mem::frame(STAGE);
        let bits = mask.map(|m| self.mask_bits(m, t.lanes));
        if bits.is_some() {
            let z = self.vec();
            self.zero(z);
            let c = self.code(ops::MOVUPS_ST, W::X)?;
            for at in [0, 16, 32, 48] {
                self.op(c, &[Op::M(stage.plus(at)), use_(z, W::X)]);
            }
        }
        for l in 0..t.lanes {
            let skip = self.skip_off(bits, l);
            let g = self.gpr();
            get(self, l, g)?;
            self.gpr_store(stage.plus(l as i64 * d.size() as i64), g, d.size());
            if let Some(s) = skip {
                self.place(s);
            }
            next(self);
        }
        Ok(stage)
    }

    /// `LoadStrided` and `Gather`.
    pub fn load_apart(&mut self, i: &Inst) -> Res<()> {
        match i {
            Inst::LoadStrided { dst, addr, stride, dtype, mask } => {
                let k = match mask {
                    Some(k) => Some(self.src(*k)?),
                    None => None,
                };
                let m = self.mem(addr)?;
                let (t, p, d, step) = (self.ty(*dst), self.addr_of(m), *dtype, *stride);
                let from = self.stage(
                    t,
                    d,
                    k,
                    &mut |s, _, g| {
                        s.gpr_load(g, Mem::at(p, 0), d);
                        Ok(())
                    },
                    &mut |s| s.add_coef(p, step),
                )?;
                let v = self.dst(*dst);
                self.load(t, v, from, d)
            }
            Inst::Gather { dst, addr, idx, stride, dtype, mask } => {
                let k = match mask {
                    Some(k) => Some(self.src(*k)?),
                    None => None,
                };
                let it = self.ty(*idx);
                let x = self.src(*idx)?;
                let own = if it.elem == Elem::I32 { Dtype::I32 } else { Dtype::I64 };
                self.store_all(it, x, Mem::frame(STAGE2), own)?;
                let m = self.mem(addr)?;
                let (t, p, d, step) = (self.ty(*dst), self.addr_of(m), *dtype, *stride);
                let size = own.size() as i64;
                let from = self.stage(
                    t,
                    d,
                    k,
                    &mut |s, l, g| {
                        let n = s.gpr();
                        s.gpr_load(n, Mem::frame(STAGE2 + l as i64 * size), own);
                        if let Some(q) = step.param {
                            let m = s.param_mem(q);
                            s.op(Code::Imul_r64_rm64, &[modify(n, W::B64), Op::M(m)]);
                        }
                        s.mul_imm(n, step.mul);
                        s.gpr_load(g, Mem { index: Some((n, 1)), ..Mem::at(p, 0) }, d);
                        Ok(())
                    },
                    &mut |_| {},
                )?;
                let v = self.dst(*dst);
                self.load(t, v, from, d)
            }
            _ => self.unsupported("not a strided load"),
        }
    }

    pub fn store_apart(&mut self, i: &Inst) -> Res<()> {
        let Inst::StoreStrided { src, addr, stride, dtype, mask } = i else {
            return self.unsupported("not a strided store");
        };
        let (t, v) = (self.ty(*src), self.src(*src)?);
        let k = match mask {
            Some(k) => Some(self.src(*k)?),
            None => None,
        };
        self.store_all(t, v, Mem::frame(STAGE), *dtype)?;
        let m = self.mem(addr)?;
        self.copy_lanes(t.lanes, m, Some(*stride), dtype.size(), k)
    }

    /// Copies staged elements out to `m`, `stride` (or their size) apart.
    pub fn copy_lanes(
        &mut self,
        lanes: u8,
        m: Mem,
        stride: Option<Coef>,
        size: usize,
        mask: Option<V>,
    ) -> Res<()> {
        let p = self.addr_of(m);
        let bits = mask.map(|k| self.mask_bits(k, lanes));
        let unsigned = match size {
            8 => Dtype::U64,
            4 => Dtype::U32,
            2 => Dtype::U16,
            _ => Dtype::U8,
        };
        let step = stride.unwrap_or(Coef::from(size as i64));
        for l in 0..lanes {
            let skip = self.skip_off(bits, l);
            let g = self.gpr();
            self.gpr_load(g, Mem::frame(STAGE + l as i64 * size as i64), unsigned);
            self.gpr_store(Mem::at(p, 0), g, size);
            if let Some(s) = skip {
                self.place(s);
            }
            self.add_coef(p, step);
        }
        Ok(())
    }

    /// `d[l] = step(a[l]…)` on 64-bit lanes in general registers; at most two sources.
    pub fn lanewise(&mut self, t: RegTy, d: V, src: &[V], step: LaneStep<'_, 'a>) -> Res<()> {
        let w = self.w(t)?;
        let st = self.code(ops::MOVUPD_ST, w)?;
        for (n, s) in src.iter().enumerate() {
            let at = Mem::frame(STAGE + 64 * n as i64);
            self.op(st, &[Op::M(at), use_(*s, w)]);
        }
        for l in 0..t.lanes as i64 {
            let mut x = vec![];
            for n in 0..src.len() as i64 {
                let g = self.gpr();
                self.mov_load(g, Mem::frame(STAGE + 64 * n + 8 * l));
                x.push(g);
            }
            let r = self.gpr();
            step(self, r, &x)?;
            self.gpr_store(Mem::frame(STAGE + 8 * l), r, 8);
        }
        self.op2(ops::MOVUPD, w, d, Op::M(Mem::frame(STAGE)))
    }

    /// Lanewise from type `s` to type `t`; 32-bit floats travel in the low half.
    pub fn lanewise_mixed(
        &mut self,
        t: RegTy,
        s: RegTy,
        d: V,
        a: V,
        step: &mut dyn FnMut(&mut Sel<'a>, V, V) -> Res<()>,
    ) -> Res<()> {
        let (ws, wt) = (self.w(s)?, self.w(t)?);
        let (ss, ts) = (s.elem.size(), t.elem.size());
        let st = self.code(ops::MOVUPS_ST, ws)?;
        self.op(st, &[Op::M(Mem::frame(STAGE)), use_(a, ws)]);
        let unsigned = if ss == 8 { Dtype::U64 } else { Dtype::U32 };
        for l in 0..t.lanes as i64 {
            let (g, r) = (self.gpr(), self.gpr());
            self.gpr_load(g, Mem::frame(STAGE + l * ss as i64), unsigned);
            step(self, r, g)?;
            self.gpr_store(Mem::frame(STAGE2 + l * ts as i64), r, ts);
        }
        self.op2(ops::MOVUPS, wt, d, Op::M(Mem::frame(STAGE2)))
    }
}
