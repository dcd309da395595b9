//! Products of pairs of bf16: by an instruction where the target has one, else in f32.

use super::contract_tile::Tiler;
use super::cx::LowerCx;
use crate::kir::{Addr, BinOp, Elem, Reg};
use hub_abi::Dtype;

impl Tiler<'_> {
    /// A product of two pairs of bf16 a row and vector.
    pub(super) fn pair_products(
        &self,
        cx: &mut LowerCx<'_>,
        rows: &[Addr],
        vs: &[(Addr, Option<Reg>)],
        acc: &[Vec<Reg>],
    ) {
        let ty = self.vec_ty().with(Elem::I32);
        let v: Vec<Reg> = vs.iter().map(|(at, m)| self.pair_vector(cx, at, *m)).collect();
        if cx.target.has_dot2() {
            for (at, row) in rows.iter().zip(acc) {
                let a = cx.b.load_splat(ty, at.clone(), Dtype::I32);
                row.iter().zip(&v).for_each(|(&r, &x)| cx.b.dot2_acc(r, a, x));
            }
            return;
        }
        let v: Vec<[Reg; 2]> = v.into_iter().map(|x| halves(cx, x)).collect();
        for (at, row) in rows.iter().zip(acc) {
            let a = cx.b.load_splat(ty, at.clone(), Dtype::I32);
            let a = halves(cx, a);
            for half in 0..2 {
                row.iter().zip(&v).for_each(|(&r, x)| cx.b.fma_acc(r, a[half], x[half]));
            }
        }
    }

    /// Pairs along the innermost summed axis, one a lane: as they are packed, or of two rows.
    fn pair_vector(&self, cx: &mut LowerCx<'_>, at: &Addr, mask: Option<Reg>) -> Reg {
        let ty = self.vec_ty().with(Elem::I32);
        if self.mac.panel.is_some() {
            return self.packed(cx, ty, at, Dtype::I32, mask);
        }
        let row = self.mac.k.last().map_or(0i64.into(), |k| k.v.clone());
        let next = cx.coef(&row.times(self.v.dtype.size() as i64));
        let low = cx.b.load(ty, at.clone(), Dtype::U16, mask);
        let high = cx.b.load(ty, at.clone().row(1, next), Dtype::U16, mask);
        let bits = cx.b.const_i(ty, 16);
        let high = cx.b.bin(BinOp::Shl, high, bits);
        cx.b.bin(BinOp::Or, low, high)
    }
}

/// The low and the high bf16 of each lane, as f32.
fn halves(cx: &mut LowerCx<'_>, x: Reg) -> [Reg; 2] {
    let ty = cx.b.ty(x);
    let (bits, mask) = (cx.b.const_i(ty, 16), cx.b.const_i(ty, -0x1_0000));
    let (low, high) = (cx.b.bin(BinOp::Shl, x, bits), cx.b.bin(BinOp::And, x, mask));
    [cx.b.bitcast(low, Elem::F32), cx.b.bitcast(high, Elem::F32)]
}
