//! Kernels: their IR with its interpreter, schedules, and the targets that emit them.
//!
//! Invariants: no `unsafe`; a lowering builds [`kir::Kernel`]s and never machine code; a target
//! emits from the kernel IR only, and refuses what it cannot do instead of doing it slowly.
#![forbid(unsafe_code)]

pub mod kir;
pub mod lower;
pub mod place;
pub mod target;
pub mod targets;
pub mod task;
