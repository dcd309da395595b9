//! Accumulators of reductions: start, update, combination of several, and the fold over lanes.
//!
//! The order of every combination is fixed by the kernel alone, so results do not depend on how
//! tiles are divided among threads.

use super::cx::{LowerCx, Made, unsupported};
use super::value::elem_of;
use crate::kir::{BinOp, CmpOp, Elem, ReduceOp as Fold, Reg, RegTy};
use hub_abi::Dtype;
use hub_abi::prim::ReduceOp;

/// What is accumulated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// A reduction of values of this dtype (a mean is a sum until it is finished).
    Of(ReduceOp, Dtype),
    /// The position of the greatest or least.
    Arg {
        /// Greatest.
        max: bool,
        /// Of equals the last.
        last: bool,
        /// Dtype of the values.
        dtype: Dtype,
    },
}

/// One accumulator; registers are assigned in place.
#[derive(Clone, Copy, Debug)]
pub struct Acc {
    kind: Kind,
    best: Reg,
    /// Position of the best, for [`Kind::Arg`].
    at: Option<Reg>,
}

impl Kind {
    /// Register element of the running value.
    fn elem(self) -> Made<Elem> {
        let (Kind::Of(_, d) | Kind::Arg { dtype: d, .. }) = self;
        Ok(match elem_of(d)? {
            Elem::Mask => Elem::I32,
            e => e,
        })
    }

    fn is_max(self) -> bool {
        matches!(self, Kind::Of(ReduceOp::Max | ReduceOp::Or, _) | Kind::Arg { max: true, .. })
    }

    /// A value that changes nothing (the worst one, for positions).
    fn neutral(self, cx: &mut LowerCx<'_>, ty: RegTy) -> Made<Reg> {
        let (Kind::Of(_, d) | Kind::Arg { dtype: d, .. }) = self;
        let sum = matches!(self, Kind::Of(ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Or, _));
        let one = matches!(self, Kind::Of(ReduceOp::Prod | ReduceOp::And, _));
        if ty.elem.is_float() {
            let x = match (sum, one, self) {
                (true, ..) => 0.0,
                (_, true, _) => 1.0,
                (.., Kind::Arg { max: false, .. }) => f64::NAN,
                _ if self.is_max() => f64::NEG_INFINITY,
                _ => f64::INFINITY,
            };
            return Ok(cx.b.const_f(ty, x));
        }
        let (lo, hi) = match ty.elem {
            Elem::I32 => (i32::MIN as i64, i32::MAX as i64),
            _ => (i64::MIN, i64::MAX),
        };
        let extreme = !sum && !one;
        if extreme && matches!(d, Dtype::U32 | Dtype::U64) {
            return unsupported(format!("a reduction of {d}"));
        }
        let k = match (sum, one) {
            (true, _) => 0,
            (_, true) => 1,
            _ if self.is_max() => lo,
            _ => hi,
        };
        Ok(cx.b.const_i(ty, k))
    }
}

impl Acc {
    /// A fresh accumulator in `lanes` lanes.
    pub fn new(cx: &mut LowerCx<'_>, kind: Kind, lanes: usize) -> Made<Acc> {
        let ty = cx.vector(kind.elem()?, lanes)?;
        let start = kind.neutral(cx, ty)?;
        let best = cx.b.copy(start);
        let at = match kind {
            Kind::Of(..) => None,
            Kind::Arg { last, .. } => {
                let ty = ty.with(Elem::I32);
                let none = cx.b.const_i(ty, if last { -1 } else { i32::MAX as i64 });
                Some(cx.b.copy(none))
            }
        };
        Ok(Acc { kind, best, at })
    }

    /// Takes in a vector of values; `at` are their positions ([`Kind::Arg`]). Lanes that are off
    /// change nothing.
    pub fn update(&self, cx: &mut LowerCx<'_>, x: Reg, at: Option<Reg>) -> Made {
        let x = if cx.b.ty(x).elem == Elem::Mask { cx.mask_to(x, Elem::I32) } else { x };
        if let (Some(mine), Some(at)) = (self.at, at) {
            let mut better = self.beats(cx, x, self.best);
            if let Kind::Arg { last: true, .. } = self.kind {
                let same = self.equal(cx, x, self.best);
                better = cx.b.bin(BinOp::Or, better, same);
            }
            if let Some(m) = cx.active {
                better = cx.b.bin(BinOp::And, better, m);
            }
            return self.take(cx, better, x, mine, at);
        }
        let x = match cx.active {
            Some(m) => {
                let none = self.kind.neutral(cx, cx.b.ty(x))?;
                cx.b.select(m, x, none)
            }
            None => x,
        };
        self.fold_in(cx, x);
        Ok(())
    }

    fn take(&self, cx: &mut LowerCx<'_>, better: Reg, x: Reg, mine: Reg, at: Reg) -> Made {
        let best = cx.b.select(better, x, self.best);
        let pos = cx.b.select(better, at, mine);
        cx.b.copy_to(self.best, best);
        cx.b.copy_to(mine, pos);
        Ok(())
    }

    fn fold_in(&self, cx: &mut LowerCx<'_>, x: Reg) {
        let float = cx.b.ty(x).elem.is_float();
        match self.fold() {
            Fold::Max | Fold::Min if float => {
                let max = self.kind.is_max();
                let r = cx.extremum(max, (self.best, false), (x, false));
                cx.b.copy_to(self.best, r);
            }
            op => cx.b.bin_to(op.bin(), self.best, self.best, x),
        }
    }

    fn fold(&self) -> Fold {
        match self.kind {
            Kind::Of(ReduceOp::Sum | ReduceOp::Mean, _) => Fold::Add,
            Kind::Of(ReduceOp::Prod, _) => Fold::Mul,
            k if k.is_max() => Fold::Max,
            _ => Fold::Min,
        }
    }

    /// Mask: `x` is strictly better than `y`; NaN is greatest.
    fn beats(&self, cx: &mut LowerCx<'_>, x: Reg, y: Reg) -> Reg {
        let max = self.kind.is_max();
        let m = cx.b.cmp(if max { CmpOp::Gt } else { CmpOp::Lt }, x, y);
        if !cx.b.ty(x).elem.is_float() {
            return m;
        }
        let (nan, num) = if max { (x, y) } else { (y, x) };
        let nan = cx.b.cmp(CmpOp::Ne, nan, nan);
        let num = cx.b.cmp(CmpOp::Eq, num, num);
        let both = cx.b.bin(BinOp::And, nan, num);
        cx.b.bin(BinOp::Or, m, both)
    }

    /// Mask: equal, NaN being equal to NaN.
    fn equal(&self, cx: &mut LowerCx<'_>, x: Reg, y: Reg) -> Reg {
        let m = cx.b.cmp(CmpOp::Eq, x, y);
        if !cx.b.ty(x).elem.is_float() {
            return m;
        }
        let a = cx.b.cmp(CmpOp::Ne, x, x);
        let b = cx.b.cmp(CmpOp::Ne, y, y);
        let both = cx.b.bin(BinOp::And, a, b);
        cx.b.bin(BinOp::Or, m, both)
    }

    /// Takes in another accumulator of the same kind.
    pub fn merge(&self, cx: &mut LowerCx<'_>, o: &Acc) -> Made {
        match (self.at, o.at) {
            (Some(mine), Some(theirs)) => self.merge_at(cx, o.best, mine, theirs),
            _ => {
                self.fold_in(cx, o.best);
                Ok(())
            }
        }
    }

    fn merge_at(&self, cx: &mut LowerCx<'_>, x: Reg, mine: Reg, theirs: Reg) -> Made {
        let better = self.beats(cx, x, self.best);
        let same = self.equal(cx, x, self.best);
        let last = matches!(self.kind, Kind::Arg { last: true, .. });
        let nearer = cx.b.cmp(if last { CmpOp::Gt } else { CmpOp::Lt }, theirs, mine);
        let tie = cx.b.bin(BinOp::And, same, nearer);
        let take = cx.b.bin(BinOp::Or, better, tie);
        self.take(cx, take, x, mine, theirs)
    }

    /// Combines the lanes; every lane then holds the result.
    pub fn across_lanes(&self, cx: &mut LowerCx<'_>) -> Made<Acc> {
        let lanes = cx.b.ty(self.best).lanes as usize;
        if let Some(mine) = self.at {
            let mut half = lanes / 2;
            while half > 0 {
                let sel: Vec<u8> = (0..lanes).map(|i| ((i + half) % lanes) as u8).collect();
                let x = cx.b.shuffle(self.best, self.best, sel.clone());
                let at = cx.b.shuffle(mine, mine, sel);
                self.merge_at(cx, x, mine, at)?;
                half /= 2;
            }
            let (best, at) = (cx.b.extract(self.best, 0), cx.b.extract(mine, 0));
            let (best, at) = (cx.b.splat(best, lanes), cx.b.splat(at, lanes));
            return Ok(Acc { best, at: Some(at), ..*self });
        }
        let op = self.fold();
        let one = cx.b.reduce(op, self.best);
        let mut best = cx.b.splat(one, lanes);
        if cx.b.ty(one).elem.is_float() && matches!(op, Fold::Max | Fold::Min) {
            best = self.keep_nan(cx, best);
        }
        Ok(Acc { best, ..*self })
    }

    /// `folded`, but NaN where a lane is (the fold over lanes may lose it).
    fn keep_nan(&self, cx: &mut LowerCx<'_>, folded: Reg) -> Reg {
        let ty = cx.b.ty(folded);
        let bad = cx.b.cmp(CmpOp::Ne, self.best, self.best);
        let flag = cx.mask_to(bad, ty.elem);
        let any = cx.b.reduce(Fold::Max, flag);
        let any = cx.b.splat(any, ty.lanes as usize);
        let zero = cx.b.zero(ty);
        let some = cx.b.cmp(CmpOp::Ne, any, zero);
        let nan = cx.b.const_f(ty, f64::NAN);
        cx.b.select(some, nan, folded)
    }

    /// The reduction's value in its dtype's register; `count` elements were taken in. A position
    /// stays in i32 lanes where `short`.
    pub fn finish(&self, cx: &mut LowerCx<'_>, count: &hub_abi::Dim, short: bool) -> Made<Reg> {
        let ty = cx.b.ty(self.best);
        match self.kind {
            Kind::Arg { last, .. } => {
                let mut at = self.at.expect("positions are kept");
                if !last {
                    let at_ty = cx.b.ty(at);
                    let none = cx.b.const_i(at_ty, i32::MAX as i64);
                    let zero = cx.b.zero(at_ty);
                    let never = cx.b.cmp(CmpOp::Eq, at, none);
                    at = cx.b.select(never, zero, at);
                }
                if short {
                    return Ok(at);
                }
                cx.vector(Elem::I64, ty.lanes as usize)?;
                Ok(cx.b.cvt(at, Elem::I64))
            }
            Kind::Of(ReduceOp::Mean, d) if d.is_float() => {
                let n = match count.as_const() {
                    Some(n) => cx.b.const_f(ty, n as f64),
                    None => {
                        let n = cx.splat_dim(count, RegTy::INDEX);
                        cx.splat_index(n, ty)
                    }
                };
                Ok(cx.b.div(self.best, n))
            }
            Kind::Of(ReduceOp::Mean, d) => unsupported(format!("a mean of {d}")),
            Kind::Of(_, Dtype::Bool) => {
                let zero = cx.b.zero(ty);
                Ok(cx.b.cmp(CmpOp::Ne, self.best, zero))
            }
            Kind::Of(_, d) => Ok(if d.is_float() { self.best } else { cx.wrap(self.best, d) }),
        }
    }
}
