//! What targets share on which threads hold the lanes of a vector machine (CUDA, OpenCL): kernels in
//! the instructions that such a machine has, and where its threads have to wait for one another.

mod backend;
mod legal;
pub mod order;

pub use backend::SimtBackend;
pub use legal::legal;

use crate::kir::{Inst, Stmt};

/// An instruction that such a machine does not have; `tiles`: one that multiplies tiles, and whose
/// blocks are teams.
pub fn foreign(body: &[Stmt], tiles: bool) -> Option<&Inst> {
    use Inst::*;
    body.iter().find_map(|s| match s {
        Stmt::Inst(i @ Dot2 { .. }) => Some(i),
        Stmt::Inst(i @ (Barrier | TileConfig { .. } | TileZero { .. })) => (!tiles).then_some(i),
        Stmt::Inst(i @ (TileLoad { .. } | TileStore { .. } | TileDot2 { .. })) => {
            (!tiles).then_some(i)
        }
        Stmt::Inst(_) => None,
        Stmt::For { body, .. } => foreign(body, tiles),
        Stmt::If { then, els, .. } => foreign(then, tiles).or_else(|| foreign(els, tiles)),
    })
}
