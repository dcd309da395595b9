//! Devices and their memory.
//!
//! Invariant: every call of CUDA's is made with the device's primary context as the thread's
//! ([`Device::here`]); whatever is made of a device keeps it open.

use crate::Said;
use crate::module::{Kernel, Module};
use crate::queue::{Queue, Recorded};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute};
use hub_plugin::hub_abi::device as abi;
use hub_plugin::{self as plugin, Absent, Failure, Got, LIMIT, UNSUPPORTED};
use std::sync::Arc;

/// The least compute capability, times ten, that tier `sm80` runs on.
const LEAST: i32 = 80;

/// Devices there are; why there are none, where the library is absent or finds none.
pub fn count() -> Got<u32> {
    start()?;
    let n = result::device::get_count().said("cuDeviceGetCount")?;
    Ok(n.max(0) as u32)
}

/// Loads the library, once.
fn start() -> Got<()> {
    // SAFETY: loading libcuda runs its initialisers.
    if !unsafe { sys::is_culib_present() } {
        let what =
            "no CUDA driver: libcuda.so cannot be loaded (it comes with NVIDIA's GPU driver)";
        return Err(Failure::new(UNSUPPORTED, what));
    }
    result::init().said("cuInit")
}

/// An opened device.
pub struct Device {
    device: CUdevice,
    context: sys::CUcontext,
    capability: i32,
}

// SAFETY: contexts may be used by several threads at once, by CUDA's documentation.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once when it was opened; what was made of it is gone.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

impl Device {
    /// Device number `index`.
    pub fn open(index: u32) -> Got<Device> {
        let n = count()?;
        if index >= n {
            let what = format!("no CUDA device {index}: there are {n}");
            return Err(Failure::new(UNSUPPORTED, what));
        }
        let device = result::device::get(index as i32).said("cuDeviceGet")?;
        // SAFETY: a device that there is.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = context.said("cuDevicePrimaryCtxRetain")?;
        let mut opened = Device { device, context, capability: 0 };
        use CUdevice_attribute as A;
        let major = opened.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = opened.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        opened.capability = 10 * major + minor;
        match opened.capability < LEAST {
            true => Err(Failure::new(UNSUPPORTED, old(major, minor))),
            false => Ok(opened),
        }
    }

    fn attribute(&self, which: CUdevice_attribute) -> Got<i32> {
        // SAFETY: a device that there is.
        unsafe { result::device::get_attribute(self.device, which) }.said("cuDeviceGetAttribute")
    }

    /// Makes this thread's calls of CUDA's go to the device.
    pub fn here(&self) -> Got<()> {
        // SAFETY: the context is retained as long as the device lives.
        unsafe { result::ctx::set_current(self.context) }.said("cuCtxSetCurrent")
    }
}

fn old(major: i32, minor: i32) -> String {
    format!("this GPU has compute capability {major}.{minor}; bundles' code is for 8.0 and newer")
}

impl plugin::Device for Device {
    type Queue = Queue;
    type Module = Module;
    type Kernel = Kernel;
    type Graph = Recorded;
    type Operator = Absent;

    fn describe(&self) -> Got<String> {
        let name = result::device::get_name(self.device).said("cuDeviceGetName")?;
        let mut version = 0;
        // SAFETY: writes one number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.said("cuDriverGetVersion")?;
        let (major, minor) = (self.capability / 10, self.capability % 10);
        let cuda = (version / 1000, version % 1000 / 10);
        Ok(format!("{name}, compute capability {major}.{minor}, CUDA driver {}.{}", cuda.0, cuda.1))
    }

    fn kind(&self) -> Got<u32> {
        Ok(abi::GPU)
    }

    fn reserve(&self, bytes: u64) -> Got<u64> {
        self.here()?;
        let n = usize::try_from(bytes.max(1)).map_err(|e| Failure::new(LIMIT, e.to_string()))?;
        // SAFETY: nothing reads it before it is written, but for kernels, which the caller answers for.
        let got = unsafe { result::malloc_sync(n) };
        got.said("cuMemAlloc").map_err(|e| Failure { what: format!("{bytes} bytes: {e}"), ..e })
    }

    fn release(&self, address: u64) {
        if self.here().is_ok() {
            // SAFETY: reserved from this device, and given back once; CUDA waits for who uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn queue(self: &Arc<Device>) -> Got<Queue> {
        Queue::new(self)
    }

    fn write(queue: &Queue, to: u64, from: &[u8]) -> Got<()> {
        queue.write(to, from)
    }

    fn read(queue: &Queue, to: &mut [u8], from: u64) -> Got<()> {
        queue.read(to, from)
    }

    fn wait(queue: &Queue) -> Got<()> {
        queue.wait()
    }

    fn module(self: &Arc<Device>, tier: &str, code: &[u8]) -> Got<Module> {
        if tier != "sm80" {
            return Err(Failure::new(UNSUPPORTED, format!("code of tier {tier}")));
        }
        Module::new(self, code)
    }

    fn kernel(module: &Module, name: &str, kinds: &[u8]) -> Got<Kernel> {
        module.kernel(name, kinds.len())
    }

    unsafe fn launch(queue: &Queue, kernel: &Arc<Kernel>, tiles: u64, args: &[u64]) -> Got<()> {
        // SAFETY: by the caller's promise.
        unsafe { queue.launch(kernel, tiles, args) }
    }
}
