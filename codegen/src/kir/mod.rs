//! The kernel IR: what a lowering produces and every emitter consumes.
//!
//! A [`Kernel`] is a tree of loops over named axes with instructions on typed virtual registers
//! ([`Inst`]). Its function is `extern "C" fn(args: *const u64, tile_begin: u64, tile_end: u64,
//! scratch: *mut u8)`: `args` has one 8-byte entry per [`Param`], a tile index is decomposed
//! row-major over the grid axes, and tiles are independent of one another.
//!
//! Invariants: registers are mutable and typed; addresses are affine in axes, bound sizes and
//! integer registers, in bytes ([`Addr`]); transcendentals are expanded (`math`) before an emitter
//! sees them; the interpreter (`interp`) defines what a kernel means.

pub mod build;
pub mod inst;
pub mod interp;
pub mod math;
pub mod share;
mod text;
pub mod turn;
pub mod types;
pub mod verify;

pub use build::KernelBuilder;
pub use inst::{BinOp, CmpOp, Cond, CvtMode, Inst, ReduceOp, Stmt, UnOp};
pub use types::*;
pub use verify::verify;
