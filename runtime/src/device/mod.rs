//! Devices beside the processor: what a driver is to the runtime.
//!
//! A driver runs the code of tiers that the processor does not. Bindings, loops and host steps are the
//! runtime's; of a device it asks for kernels and, where the device has memory of its own, for that.
//! Drivers are shared libraries behind the C table of `runtime/include/hub_device.h` ([`plugin`]), or
//! written against the traits here.

pub(crate) mod best;
pub mod conform;
pub(crate) mod far;
pub(crate) mod graphs;
pub(crate) mod plugin;
mod table;

use crate::error::Error;
use hub_abi::plan::Plan;
use std::path::Path;
use std::sync::Arc;

/// The device of that number of the driver in a library.
///
/// # Errors
/// The library is no driver, or what the driver says.
pub fn of_library(library: &Path, index: u32) -> Result<impl Driver + use<>, Error> {
    plugin::PluginDevice::at(library, index)
}

/// Name and version of a device, as the driver in a library says.
///
/// # Errors
/// The library is no driver, or what the driver says.
pub fn name_of(library: &Path, index: u32) -> Result<String, Error> {
    plugin::PluginDevice::at(library, index)?.describe().map_err(Error::Device)
}

/// A driver of a device.
pub trait Driver: Send + Sync {
    /// Tiers whose code it runs, best first.
    fn tiers(&self) -> Vec<String>;

    /// Makes a tier's kernels ready.
    ///
    /// # Errors
    /// What the device's compiler says.
    fn load(&self, code: &[u8], plan: &Plan) -> Result<Arc<dyn Kernels>, Error>;
}

/// Kernels of a tier on a device, and the device's memory; sessions share them.
pub trait Kernels: Send + Sync {
    /// A new queue.
    ///
    /// # Errors
    /// What the device says.
    fn queue(&self) -> Result<Box<dyn Queue>, Error>;

    /// Has the device memory of its own? If not, kernels work on this process's, and nothing of what
    /// follows is called, nor are the queue's transfers.
    fn apart(&self) -> bool {
        false
    }

    /// Reserves memory, aligned to 256 bytes: its address.
    ///
    /// # Errors
    /// There is none left.
    fn reserve(&self, bytes: u64) -> Result<u64, Error> {
        Err(Error::Limit(format!("no memory of {bytes} bytes on this device")))
    }

    /// Gives memory back.
    fn release(&self, _address: u64) {}
}

/// What is put into a queue happens in order.
pub trait Queue: Send {
    /// Makes a kernel that is an operator of the device ready for the sizes in its argument block, when
    /// these are bound; nothing for others.
    ///
    /// # Errors
    /// What the device says.
    fn prepare(&self, _kernel: u32, _args: &[u64]) -> Result<(), Error> {
        Ok(())
    }

    /// Runs all tiles of a kernel, by its index, or puts that into the queue.
    ///
    /// # Safety
    /// `args` begins with the kernel's argument block, whose addresses are of memory that the kernel
    /// may use as the plan says.
    ///
    /// # Errors
    /// What the device says.
    unsafe fn launch(&self, kernel: u32, args: &[u64], tiles: u64) -> Result<(), Error>;

    /// Does it record launches, to do them again as a whole?
    fn records(&self) -> bool {
        false
    }

    /// From here on launches are recorded instead of done.
    ///
    /// # Errors
    /// What the device says.
    fn record(&self) -> Result<(), Error> {
        Err(Error::Internal("nothing is recorded here".into()))
    }

    /// Ends recording; the queue is as before it, whatever this gives.
    ///
    /// # Errors
    /// What the device says.
    fn recorded(&self) -> Result<Recording, Error> {
        Err(Error::Internal("nothing is recorded here".into()))
    }

    /// Puts what it recorded into the queue.
    ///
    /// # Errors
    /// What the device says.
    fn replay(&self, recording: &Recording) -> Result<(), Error> {
        Err(Error::Internal(format!("nothing was recorded here: {:#x}", recording.handle)))
    }

    /// Another number where recordings made before no longer hold.
    fn stamp(&self) -> u64 {
        0
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// What came before failed.
    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Copies to the device's memory.
    ///
    /// # Errors
    /// The address is none of the device's.
    fn write(&self, to: u64, from: &[u8]) -> Result<(), Error> {
        Err(Error::Internal(format!("{} bytes to {to:#x} of a shared memory", from.len())))
    }

    /// Copies from the device's memory, after everything before.
    ///
    /// # Errors
    /// The address is none of the device's, or what came before failed.
    fn read(&self, to: &mut [u8], from: u64) -> Result<(), Error> {
        Err(Error::Internal(format!("{} bytes from {from:#x} of a shared memory", to.len())))
    }
}

/// Launches that a queue recorded.
pub struct Recording {
    /// The driver's own name of it.
    pub handle: usize,
    free: Option<Box<dyn FnOnce(usize)>>,
}

impl Recording {
    /// One that is given back by `free` when it is dropped.
    pub fn new(handle: usize, free: impl FnOnce(usize) + 'static) -> Recording {
        Recording { handle, free: Some(Box::new(free)) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            free(self.handle);
        }
    }
}
