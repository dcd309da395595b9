//! What targets share on which threads hold the lanes of a vector machine (CUDA, OpenCL): kernels in
//! the instructions that such a machine has, and where its threads have to wait for one another.

mod backend;
mod legal;
pub mod order;

pub use backend::SimtBackend;
pub use legal::legal;

use crate::kir::{Inst, Stmt};

/// An instruction that only other machines have.
pub fn foreign(body: &[Stmt]) -> Option<&Inst> {
    use Inst::*;
    body.iter().find_map(|s| match s {
        Stmt::Inst(i @ (Dot2 { .. } | TileConfig { .. } | TileZero { .. })) => Some(i),
        Stmt::Inst(i @ (TileLoad { .. } | TileStore { .. } | TileDot2 { .. })) => Some(i),
        Stmt::Inst(_) => None,
        Stmt::For { body, .. } => foreign(body),
        Stmt::If { then, els, .. } => foreign(then).or_else(|| foreign(els)),
    })
}
