//! Which inputs of a kernel may lie in the memory of an output.
//!
//! Invariant that this stands on: a kernel writes no byte of an output twice. So a load whose bytes
//! are those that a store after it in the same straight line of code writes meets no other store,
//! in whatever order tiles run; and an input all of whose loads are such may be overwritten. Where a
//! lowering says so of rows ([`Kernel::rowwise`]), a load may also be in a pass before the stores.

use super::inst::{Inst, Stmt};
use super::types::*;

/// A load or store through a parameter.
struct Touch<'k> {
    write: bool,
    param: ParamId,
    /// The list of statements that holds it, numbered, and its position there.
    block: usize,
    at: usize,
    addr: &'k Affine,
    /// Bytes of an element, elements, and bytes from one to the next.
    shape: (usize, u8, Coef),
    mask: Option<Reg>,
}

/// Pairs of parameters `(read, written)` that may be given one address.
pub fn shared(k: &Kernel) -> Vec<(ParamId, ParamId)> {
    let mut s = Scan { k, blocks: 0, touches: vec![], opaque: vec![], defs: vec![0; k.regs.len()] };
    s.stmts(&k.body);
    let of = |access| {
        let kind =
            move |p: &Param| matches!(p.kind, ParamKind::Ptr { access: a, .. } if a == access);
        let ids = k.params.iter().enumerate().filter(move |(_, p)| kind(p));
        ids.map(|(i, _)| ParamId(i as u32)).filter(|p| !s.opaque.contains(p))
    };
    let written: Vec<ParamId> = of(Access::Write).collect();
    let mut out = vec![];
    for read in of(Access::Read) {
        out.extend(written.iter().filter(|w| s.may_share(read, **w)).map(|&w| (read, w)));
    }
    out
}

struct Scan<'k> {
    k: &'k Kernel,
    blocks: usize,
    touches: Vec<Touch<'k>>,
    /// Parameters accessed at addresses that are not affine.
    opaque: Vec<ParamId>,
    defs: Vec<u32>,
}

impl<'k> Scan<'k> {
    fn stmts(&mut self, list: &'k [Stmt]) {
        let block = self.blocks;
        self.blocks += 1;
        for (at, s) in list.iter().enumerate() {
            match s {
                Stmt::Inst(i) => self.inst(i, block, at),
                Stmt::For { body, .. } => self.stmts(body),
                Stmt::If { then, els, .. } => {
                    self.stmts(then);
                    self.stmts(els);
                }
            }
        }
    }

    fn inst(&mut self, i: &'k Inst, block: usize, at: usize) {
        if let Some(d) = i.dst() {
            self.defs[d.0 as usize] += 1;
        }
        let Some(Addr { base: Base::Param(param), at: addr }) = i.addr() else { return };
        let param = *param;
        let lanes = |r: Reg| self.k.ty(r).lanes;
        let (write, size, lanes, step, mask) = match i {
            Inst::Load { dst, dtype, mask, .. } => (false, dtype.size(), lanes(*dst), None, *mask),
            Inst::LoadSplat { dtype, .. } => (false, dtype.size(), 1, None, None),
            Inst::LoadStrided { dst, stride, dtype, mask, .. } => {
                (false, dtype.size(), lanes(*dst), Some(*stride), *mask)
            }
            Inst::Store { src, dtype, mask, .. } => (true, dtype.size(), lanes(*src), None, *mask),
            Inst::StoreStrided { src, stride, dtype, mask, .. } => {
                (true, dtype.size(), lanes(*src), Some(*stride), *mask)
            }
            Inst::Prefetch { .. } => return,
            _ => return self.opaque.push(param),
        };
        let shape = (size, lanes, step.unwrap_or(Coef::from(size as i64)));
        self.touches.push(Touch { write, param, block, at, addr, shape, mask });
    }

    fn may_share(&self, read: ParamId, write: ParamId) -> bool {
        let of = |p| self.touches.iter().filter(move |a| a.param == p);
        let rows = self.k.rowwise.contains(&(read, write));
        let stores: Vec<&Touch<'_>> = of(write).collect();
        let harmless = |l: &Touch<'_>| {
            stores.iter().any(|s| self.overwritten_by(l, s))
                || rows && stores.iter().all(|s| l.block != s.block || l.at < s.at)
        };
        !stores.is_empty() && of(read).all(harmless)
    }

    /// Are all bytes that `l` reads those that `s` then writes?
    fn overwritten_by(&self, l: &Touch<'_>, s: &Touch<'_>) -> bool {
        let straight = !l.write && s.write && l.block == s.block && l.at < s.at;
        let ((size, n, step), (s_size, s_n, s_step)) = (l.shape, s.shape);
        let covered = size == s_size && n <= s_n && (n == 1 || step == s_step);
        let masks = s.mask.is_none() || (l.mask == s.mask && n == s_n);
        straight && covered && masks && l.addr == s.addr && self.stable(s)
    }

    /// Do address and mask mean the same in all of the block?
    fn stable(&self, a: &Touch<'_>) -> bool {
        let once = |r: Reg| self.defs[r.0 as usize] == 1;
        let regs = a.addr.terms.iter().all(|(v, _)| match v {
            Var::Reg(r) => once(*r),
            Var::One | Var::Axis(_) => true,
        });
        regs && a.mask.is_none_or(once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::KernelBuilder;
    use hub_abi::Dtype;

    const F32X8: RegTy = RegTy { elem: Elem::F32, lanes: 8 };

    /// A kernel of one loop: `y[i] = x[i + shift]` by vectors, the store first where `late`.
    fn copy(shift: i64, late: bool) -> Vec<(ParamId, ParamId)> {
        let mut b = KernelBuilder::new("copy");
        let x = b.ptr("x", Dtype::F32, Access::Read);
        let y = b.ptr("y", Dtype::F32, Access::Write);
        b.for_("i", 4i64, 0, |b, i| {
            let from = Addr::param(x).plus(i, 32).offset(shift);
            let to = Addr::param(y).plus(i, 32);
            if late {
                let zero = b.zero(F32X8);
                b.store(zero, to.clone(), Dtype::F32, None);
            }
            let v = b.load(F32X8, from, Dtype::F32, None);
            if !late {
                b.store(v, to, Dtype::F32, None);
            }
        });
        shared(&b.finish())
    }

    #[test]
    fn equal_addresses_may_share() {
        assert_eq!(copy(0, false), [(ParamId(0), ParamId(1))]);
    }

    #[test]
    fn shifted_addresses_and_late_loads_may_not() {
        assert_eq!(copy(4, false), []);
        assert_eq!(copy(32, false), []);
        assert_eq!(copy(0, true), []);
    }

    #[test]
    fn a_load_before_the_loop_of_the_stores_may_not() {
        let mut b = KernelBuilder::new("broadcast");
        let x = b.ptr("x", Dtype::F32, Access::Read);
        let y = b.ptr("y", Dtype::F32, Access::Write);
        let v = b.load(F32X8, Addr::param(x), Dtype::F32, None);
        b.for_("i", 4i64, 0, |b, i| b.store(v, Addr::param(y).plus(i, 32), Dtype::F32, None));
        assert_eq!(shared(&b.finish()), []);
    }

    #[test]
    fn lanes_that_a_store_leaves_alone_may_not_be_read() {
        let masked = |load: bool, store: bool| {
            let mut b = KernelBuilder::new("tail");
            let x = b.ptr("x", Dtype::F32, Access::Read);
            let y = b.ptr("y", Dtype::F32, Access::Write);
            let m = b.first_lanes(8, 3i64);
            let v = b.load(F32X8, Addr::param(x), Dtype::F32, load.then_some(m));
            b.store(v, Addr::param(y), Dtype::F32, store.then_some(m));
            !shared(&b.finish()).is_empty()
        };
        assert!(masked(true, true) && masked(true, false) && masked(false, false));
        assert!(!masked(false, true));
    }
}
