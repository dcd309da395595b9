//! OpenCL 1.2 as a device driver: the table of `runtime/include/hub_device.h` over `opencl3`, which
//! loads libOpenCL when it is first asked for. Only this library knows OpenCL.
//!
//! OpenCL 1.2 has buffers, not addresses. A device here makes up addresses, none of two buffers within
//! reach of one another ([`device::Device`]), and a launch turns each back into a buffer and an offset,
//! which is how kernels of `codegen/src/targets/opencl` take them.

mod device;

use device::Device;
use hub_plugin::{DEVICE, Driver, Failure, Got, LIMIT};
use opencl3::error_codes::ClError;

/// The driver.
struct OpenCl;

hub_plugin::driver!(OpenCl);

impl Driver for OpenCl {
    const NAME: &'static str = "opencl";
    const TIERS: &'static str = "cl12";
    type Device = Device;

    fn count() -> Got<u32> {
        device::all().map(|d| d.len() as u32)
    }

    fn open(index: u32) -> Got<Device> {
        Device::open(index)
    }
}

/// A call of OpenCL's as one of ours.
trait Said<T> {
    fn said(self) -> Got<T>;
}

impl<T> Said<T> for Result<T, ClError> {
    fn said(self) -> Got<T> {
        self.map_err(|e| {
            // CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY,
            // CL_INVALID_BUFFER_SIZE
            let status = if matches!(e.0, -4 | -5 | -6 | -61) { LIMIT } else { DEVICE };
            Failure::new(status, format!("OpenCL error {} ({e})", e.0))
        })
    }
}
