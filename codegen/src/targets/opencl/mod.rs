//! OpenCL: C source from the kernel IR.
//!
//! As on CUDA, a group of 32 work-items is the vector machine that kernels are lowered for: a vector
//! register is one variable of every work-item, item `t` holding lane `t mod lanes`, so that a scalar is
//! the same in all items and a store is done by the first items only. A tile of the grid is a group's.
//! Scratch, and the room through which lanes are exchanged (OpenCL 1.2 has no shuffles), are local
//! memory.
//!
//! **Launching.** Parameters of a kernel function are those of the kernel, in order: a pointer is a
//! buffer and a byte offset into it (two arguments), the status word too; a size is a `long`. As many
//! groups of 32 are launched as there are tiles.

mod render;
mod table;

use super::Refused;
use super::simt::legal;
use crate::kir::{Kernel, verify};

/// What a program begins with: sums and products are those of the kernel IR, none contracted;
/// and bf16 by hand.
pub const HEADER: &str = "#pragma OPENCL FP_CONTRACT OFF
ushort to_bf16(float x) {
  const uint b = as_uint(x), rounded = (b + 0x7FFFu + (b >> 16 & 1u)) >> 16;
  return (ushort)(x != x ? b >> 16 | 64u : rounded);
}
";
/// Work-items of a group.
pub const ITEMS: u64 = 32;
/// Bytes of local memory that every device has.
const LOCAL: u64 = 32 << 10;

/// Whether there is a form for every part of a kernel.
///
/// # Errors
/// [`Refused`], with what there is no form for.
pub fn fits(k: &Kernel) -> Result<(), Refused> {
    verify(k)?;
    let no = |what: String| Refused::Unsupported { kernel: k.name.clone(), what, tier: "cl12" };
    if let Some(i) = super::simt::foreign(&k.body, false) {
        return Err(no(i.to_string()));
    }
    match k.scratch_bytes + render::EXCHANGE <= LOCAL {
        true => Ok(()),
        false => Err(no(format!("scratch of {} bytes", k.scratch_bytes))),
    }
}

/// OpenCL C of `k`, a kernel function of its name, to stand after [`HEADER`].
///
/// # Errors
/// As [`fits`].
pub fn emit(k: &Kernel) -> Result<String, Refused> {
    fits(k)?;
    Ok(render::render(&legal(k)))
}
