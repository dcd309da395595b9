//! Targets: each a room of its own that emits from the kernel IR.

pub mod ascend;
mod c;
pub mod cuda;
pub mod opencl;
pub mod simt;
pub mod x86;

pub use x86::Refused;

use crate::kir::Kernel;
use crate::target::{Target, Tier};

/// Whether a target's code generator takes a kernel: lowerings ask before they settle on one.
///
/// # Errors
/// Why not.
pub fn fits(k: &Kernel, target: &Target) -> Result<(), Refused> {
    match target.tier {
        Tier::Sm80 => cuda::fits(k).map(|_| ()),
        Tier::Cl12 => opencl::fits(k),
        Tier::Dav2201 => ascend::fits(k),
        _ => x86::emit(k, target).map(|_| ()),
    }
}
