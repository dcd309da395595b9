//! The graph: entities, types, the one table of source operators, builder, verifier, text form and
//! reference evaluation.
//!
//! Invariants
//! - Entities are `u32` newtypes into dense maps; a region lists its nodes in execution order.
//! - Every value has one definition (a node's output or a region's param) that comes before its
//!   uses; a region may use values of the regions that enclose it.
//! - A value's type is what inference of its node gives; no pass changes it.
//! - Source operators mean their expansion into primitives; a group means its region.
#![forbid(unsafe_code)]

pub mod build;
pub mod content;
pub mod entity;
pub mod expand;
pub mod graph;
mod inside;
pub mod known;
mod ones;
pub mod ops;
pub mod portable;
pub mod sample;
pub mod text;
pub mod verify;
pub mod visit;

pub use build::Builder;
pub use entity::{ConstId, Node, Region, Value};
pub use graph::{Def, Graph, GroupKind, NodeData, Op};
pub use hub_abi::pgraph::Control;
pub use hub_abi::prim::{BinaryOp, Geometry, PadMode, Prim, ReduceOp, ScatterOp, UnaryOp};
pub use hub_abi::shape::{TensorType, Type};
pub use hub_abi::{Dim, Dtype, Sym, SymEnv, SymInfo};
pub use hub_portable::Tensor;
pub use inside::Outside;
pub use ops::{OpError, Source, SourceOp};
