//! OpenCL 1.2 as a device driver: the table of `runtime/include/hub_device.h` over `opencl3`, which
//! loads libOpenCL when it is first asked for. Only this library knows OpenCL.
//!
//! OpenCL 1.2 has buffers, not addresses. A device here makes up addresses, none of two buffers within
//! reach of one another ([`device::Device`]), and a launch turns each back into a buffer and an offset,
//! which is how kernels of `codegen/src/targets/opencl` take them.

mod device;
mod table;

pub use table::{TABLE, hub_device_get_api};

use std::fmt;

/// A failed call: a status of `hub.h`, and what happened.
#[derive(Debug)]
pub struct Failure {
    status: i32,
    what: String,
}

impl Failure {
    fn new(status: i32, what: impl Into<String>) -> Failure {
        Failure { status, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The device failed.
const DEVICE: i32 = 8;
/// No memory is left.
const LIMIT: i32 = 9;

impl From<opencl3::error_codes::ClError> for Failure {
    fn from(e: opencl3::error_codes::ClError) -> Failure {
        // CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY,
        // CL_INVALID_BUFFER_SIZE
        let status = if matches!(e.0, -4 | -5 | -6 | -61) { LIMIT } else { DEVICE };
        Failure::new(status, format!("OpenCL error {} ({e})", e.0))
    }
}

type Got<T> = Result<T, Failure>;
