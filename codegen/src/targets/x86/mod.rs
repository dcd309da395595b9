//! x86-64 machine code from the kernel IR, for AVX2+FMA and AVX-512.
//!
//! Selection ([`sel`]) makes instructions on virtual registers, allocation ([`alloc`]) gives them
//! physical ones without ever spilling a vector (what does not fit is refused, and the caller takes
//! a smaller schedule), [`check`] proves the assignment by itself, and [`asm`] encodes.
//!
//! Invariants: the AVX-512 tier encodes vectors with EVEX only, the AVX2 tier with VEX only; memory
//! is touched exactly where the kernel says; the upper halves of vector registers are zeroed at exit.

mod addr;
pub mod alloc;
mod arith;
pub mod asm;
mod backend;
pub mod check;
mod cvt;
mod emulate;
mod lanes;
pub mod lir;
mod loops;
mod mask;
mod mem;
mod ops;
mod scalar;
mod sel;
mod strided;
mod tile;

pub use crate::target::{Target, Tier};
pub use asm::Code;
pub use backend::{Choices, X86Backend, disassemble};

use crate::kir::{Kernel, verify};

/// Why a kernel has no machine code on a target. Take a smaller schedule, or another lowering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More values are live at once than there are registers.
    #[error(
        "kernel {kernel}: more {class} registers live at once than the target has; take a smaller tile"
    )]
    Registers {
        /// The kernel's name.
        kernel: String,
        /// `vector` or `mask`.
        class: &'static str,
    },
    /// An instruction that this tier has no form for.
    #[error(
        "kernel {kernel}: {what} is not supported on {tier}; use other lanes or the portable path"
    )]
    Unsupported {
        /// The kernel's name.
        kernel: String,
        /// The instruction and type.
        what: String,
        /// The tier.
        tier: &'static str,
    },
    /// The kernel is malformed (a bug of its lowering).
    #[error(transparent)]
    Malformed(#[from] crate::kir::verify::VerifyError),
}

fn build(k: &Kernel, target: &Target) -> Result<alloc::Allocated, Refused> {
    verify(k)?;
    if let Ok(done) = alloc::allocate(sel::select(k, target, true)?, target) {
        return Ok(done);
    }
    alloc::allocate(sel::select(k, target, false)?, target)
        .map_err(|class| Refused::Registers { kernel: k.name.clone(), class })
}

/// Machine code for `k` on `target`; position-independent, entered at offset 0, to be placed at a
/// multiple of 64 bytes.
///
/// # Errors
/// [`Refused`], with what did not fit.
pub fn emit(k: &Kernel, target: &Target) -> Result<Code, Refused> {
    let allocated = build(k, target)?;
    if let Err(e) = check::check(&allocated) {
        panic!("register assignment of kernel {} is wrong: {e}", k.name);
    }
    Ok(asm::assemble(&allocated))
}

/// Proves the register assignment of `k`, and that what selection says each instruction reads and
/// writes is what the instruction set says. For tests.
///
/// # Errors
/// The kernel's name and the first disagreement; nothing where the target refuses the kernel.
pub fn audit(k: &Kernel, target: &Target) -> Result<(), String> {
    let Ok(a) = build(k, target) else { return Ok(()) };
    check::check(&a).and_then(|()| check::audit(&a)).map_err(|e| format!("kernel {}: {e}", k.name))
}
