//! CUDA as a device driver: the table of `runtime/include/hub_device.h` over CUDA's driver interface,
//! which `cudarc` loads when it is first asked for. Only this library knows CUDA.
//!
//! It builds and starts without CUDA: where there is no libcuda or no GPU, there are 0 devices and a
//! text that says why. Sessions of a process share a GPU's primary context. What CUDA has no safe form
//! of (captures of launches, the JIT compiler's log) is called by `cudarc`'s `result` and `sys` layers.
//!
//! Its path is tested with a stand-in for libcuda (`emu/`), which interprets PTX. **It has not run on a
//! GPU yet.**

mod device;
mod module;
mod queue;
mod text;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use device::Device;
use hub_plugin::{DEVICE, Driver, Failure, Got, LIMIT, REFUSED, UNSUPPORTED};

/// The driver.
struct Cuda;

hub_plugin::driver!(Cuda);

impl Driver for Cuda {
    const NAME: &'static str = "cuda";
    const TIERS: &'static str = "sm80";
    type Device = Device;

    fn count() -> Got<u32> {
        device::count()
    }

    fn open(index: u32) -> Got<Device> {
        Device::open(index)
    }
}

/// A call of CUDA's as one of ours.
trait Said<T> {
    /// `call` is CUDA's name of it.
    fn said(self, call: &str) -> Got<T>;
}

impl<T> Said<T> for Result<T, DriverError> {
    fn said(self, call: &str) -> Got<T> {
        self.map_err(|e| Failure::new(status(e.0), format!("{call}: {}", text(e))))
    }
}

impl Said<()> for CUresult {
    fn said(self, call: &str) -> Got<()> {
        self.result().said(call)
    }
}

/// CUDA's own number, name and text.
fn text(e: DriverError) -> String {
    let number = e.0 as u32;
    match (e.error_name(), e.error_string()) {
        (Ok(name), Ok(what)) => {
            let (name, what) = (name.to_string_lossy(), what.to_string_lossy());
            format!("CUDA error {number} ({name}: {what})")
        }
        _ => format!("CUDA error {number}"),
    }
}

/// The status of `hub.h` for an error of CUDA's.
fn status(e: CUresult) -> i32 {
    use CUresult as R;
    match e {
        R::CUDA_ERROR_OUT_OF_MEMORY => LIMIT,
        R::CUDA_ERROR_NO_DEVICE
        | R::CUDA_ERROR_INVALID_DEVICE
        | R::CUDA_ERROR_STUB_LIBRARY
        | R::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        | R::CUDA_ERROR_NOT_SUPPORTED => UNSUPPORTED,
        R::CUDA_ERROR_INVALID_PTX
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_INVALID_SOURCE
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        | R::CUDA_ERROR_NOT_FOUND => REFUSED,
        _ => DEVICE,
    }
}
