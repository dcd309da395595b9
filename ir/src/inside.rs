//! What a region learns stays in it: it may not run, or run with other sizes each time.

use crate::build::{Builder, Built};
use hub_abi::Sym;
use hub_abi::prim::Prim;

/// What was known before a region was built.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    values: usize,
    syms: usize,
    constraints: usize,
}

impl Outside {
    /// Taken before anything of a region is built.
    pub fn now(b: &Builder<'_>) -> Outside {
        Outside {
            values: b.g.values.len(),
            syms: b.g.syms.len(),
            constraints: b.g.constraints.0.len(),
        }
    }

    /// Ends a region whose nodes `inner` holds. Equalities that it recorded become checks that run
    /// in it: the difference is bound to a symbol that can only be 0. Contents of outer values that
    /// only symbols of the region express are forgotten: they are bound within it alone.
    pub fn close(&self, inner: &mut Builder<'_>) -> Built<()> {
        let from = self.constraints.min(inner.g.constraints.0.len());
        for (x, y) in inner.g.constraints.0.split_off(from) {
            let zero = inner.g.new_sym("zero", 0, 0);
            let d = inner.dim_scalar(x.sub(&y));
            inner.prim_n(Prim::BindSyms { syms: vec![zero] }, &[d])?;
        }
        if inner.g.syms.len() > self.syms {
            inner.g.content.retain(|v, dims| {
                let mut own = false;
                let mut see = |s: Sym| own |= s.0 as usize >= self.syms;
                dims.iter().for_each(|d| d.each_sym(&mut see));
                !own || v.0 as usize >= self.values
            });
        }
        Ok(())
    }
}
