//! The meaning of every primitive, and the interpreter of portable graphs.
//!
//! Each primitive is a plain function on tensors: the folder, the tests' oracle and the runtime's
//! fallback all call it. Invariants: no data and no graph makes this crate panic, loop without
//! bound or allocate past [`Limits`]; what cannot be computed is a typed error. Floats narrower
//! than f32 compute in f32 and round once at the primitive's end; integers wrap.
#![forbid(unsafe_code)]

mod arith;
mod binary;
mod cast;
mod contract;
mod control;
mod conv;
mod error;
mod eval;
mod exec;
mod float8;
mod gemm;
mod image;
mod index;
mod jpeg;
mod layout;
mod movement;
mod pad;
mod program;
mod random;
mod reduce;
mod scan;
mod sequence;
mod sort;
mod spatial;
mod special;
mod store;
mod tensor;
mod text;
mod unary;
mod value;
mod window;
mod work;

pub use error::{ExecError, ExecFault, Limits, PrimError};
pub use eval::{Outcome, eval, fold};
pub use exec::{Frame, admit_value, run, run_node};
pub use program::Program;
pub use store::{BytesStore, CachedStore, ConstStore};
pub use tensor::{Elem, Tensor};
pub use value::Value;
pub use work::work;
