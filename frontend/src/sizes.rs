//! Expressions of sizes that a hostile graph makes ever longer: one may be long, all together too.

use crate::FrontendError;
use hub_ir::{Graph, Value};

/// Atoms of one size's expression.
const MOST_ATOMS: usize = 2048;
/// Atoms of all sizes whose expression is not short.
const MOST_IN_ALL: usize = 1 << 18;
/// Operations inside operations; a bundle's reader takes [`hub_abi::depth::MAX_DEPTH`], and what is
/// computed with sizes adds a few.
const MOST_NESTED: u32 = hub_abi::depth::MAX_DEPTH / 2;
/// Atoms of a short expression.
const SHORT: usize = 32;
/// Symbols of one model.
const MOST_SYMBOLS: usize = 1 << 16;

/// What a model's sizes may still take.
pub(crate) struct Sizes {
    left: usize,
    rank: usize,
}

impl Sizes {
    /// For a model whose tensors have at most `rank` axes.
    pub fn new(rank: usize) -> Sizes {
        Sizes { left: MOST_IN_ALL, rank }
    }

    /// Counts a value that a node made.
    ///
    /// # Errors
    /// A limit error where its sizes, or all so far, are too long, or it has too many axes.
    pub fn count(&mut self, g: &Graph, v: Value) -> Result<(), FrontendError> {
        let Some(t) = v.some().and_then(|v| g.ty(v).as_tensor()) else { return Ok(()) };
        for d in &t.dims {
            let atoms = d.weight(MOST_ATOMS);
            let left = self.left.checked_sub(if atoms > SHORT { atoms } else { 0 });
            self.left = left
                .filter(|_| atoms < MOST_ATOMS && d.height() <= MOST_NESTED)
                .ok_or_else(|| FrontendError::bound("an expression of a size grows too long"))?;
        }
        if t.dims.len() > self.rank {
            return Err(FrontendError::limit(format!("rank {}", t.dims.len())));
        }
        if g.syms.len() > MOST_SYMBOLS {
            return Err(FrontendError::bound(format!("more than {MOST_SYMBOLS} unknown sizes")));
        }
        Ok(())
    }
}
