//! Targets: each a room of its own that emits from the kernel IR.

pub mod x86;
