//! Devices beside the processor: what a driver is to the runtime.
//!
//! A driver runs the code of tiers that the processor does not. Bindings, loops and host steps are the
//! runtime's; of a device it asks for kernels alone, in memory that both see. (A device with memory of
//! its own needs transfers beside that; they will be methods here.)

use crate::error::Error;
use hub_abi::plan::KernelInfo;

/// A driver of a device.
pub trait Driver: Send + Sync {
    /// Tiers whose code it runs, best first.
    fn tiers(&self) -> &[&str];

    /// Makes a tier's kernels ready.
    ///
    /// # Errors
    /// What the device's compiler says.
    fn load(&self, code: &[u8], kernels: &[KernelInfo]) -> Result<Box<dyn Kernels>, Error>;
}

/// Kernels of a tier on a device.
pub trait Kernels: Send + Sync {
    /// Runs all tiles of a kernel, by its index, and waits.
    ///
    /// # Safety
    /// `args` begins with the kernel's argument block, whose addresses are of memory that the kernel
    /// may use as the plan says.
    ///
    /// # Errors
    /// What the device says.
    unsafe fn launch(&self, kernel: u32, args: &[u64], tiles: u64) -> Result<(), Error>;
}
