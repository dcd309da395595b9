//! Runs PTX text on the CPU: the subset that `hub_codegen`'s CUDA target emits, for tests.
//!
//! Written from NVIDIA's description of the instructions, knowing nothing of the emitter. Threads of
//! a warp run in step; what hardware would not promise is a fault: a branch that divides a warp, an
//! access outside the memory given or not aligned to its size, a register or shared byte read before
//! it is written, and two threads at one byte (one of them writing) without a barrier between.

mod driver;
mod exec;
mod memory;
mod parse;
mod scalar;

pub use driver::SoftGpu;
pub use memory::{Memory, Region};
pub use parse::{Entry, Module};

/// What went wrong, with the line of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line of the module's text, from 1.
    pub line: usize,
    /// What happened.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Fault {}

/// Threads of a warp.
pub const WARP: usize = 32;

/// A register of a warp: a value a thread.
pub type Lanes = [u64; WARP];
