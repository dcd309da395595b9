//! What compiler and runtime share: element types, symbolic dimensions, the primitives with their
//! runtime shape inference, the portable graph, the execution plan, the arena planner and the
//! bundle that holds a compiled model.
//!
//! Invariants: this crate is a leaf (it sees no other crate of the workspace), holds plain data and
//! total functions on it, and nothing here panics on untrusted data: sizes use checked arithmetic.
#![forbid(unsafe_code)]

pub mod arena;
pub mod bundle;
pub mod depth;
pub mod device;
pub mod dim;
mod dim_rules;
mod dim_table;
pub mod dim_text;
pub mod dim_value;
pub mod dtype;
mod infer;
pub mod operator;
pub mod pack;
pub mod pgraph;
pub mod plan;
pub mod prim;
mod replace;
pub mod shape;
pub mod trace;

pub use dim::{Dim, Sym, SymEnv, SymInfo};
pub use dtype::Dtype;
pub use prim::Prim;
pub use replace::replace;
