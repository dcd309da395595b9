//! An Ascend NPU emulated on the host, as a device driver: the table of `runtime/include/hub_device.h`.
//! For tests of plans, operators and Ascend C sources; it says nothing of speed, and not that CANN's
//! compiler takes a source or that an NPU's operators do what these do.
//!
//! Memory is the host's, each byte knowing whether it was written; what is put into a queue is done
//! when somebody waits. Operators are `hub-portable`'s primitives on gathered operands ([`operators`]).
//! Ascend C is compiled by the host's C++ compiler against a stand-in for the calls it uses
//! (`kernel_operator.h`), which checks what a core would not forgive ([`module`]).

mod device;
mod module;
mod operators;

use device::Device;
use hub_plugin::{Driver, Failure, Got, UNSUPPORTED};

/// The compiler, where the environment names none in this variable.
pub const COMPILER: &str = "HUB_CXX";

/// Is there a C++ compiler? If not, no kernel runs here; why.
///
/// # Errors
/// Why not.
pub fn compiler() -> Result<String, String> {
    let name = std::env::var(COMPILER).unwrap_or_else(|_| "c++".into());
    match std::process::Command::new(&name).arg("--version").output() {
        Ok(o) if o.status.success() => Ok(name),
        Ok(o) => Err(format!("the C++ compiler '{name}' fails: {}", o.status)),
        Err(e) => Err(format!("no C++ compiler '{name}' ({e}); {COMPILER} may name one")),
    }
}

/// The driver.
struct Emulation;

hub_plugin::driver!(Emulation);

impl Driver for Emulation {
    const NAME: &'static str = "ascendemu";
    const TIERS: &'static str = "dav2201";
    type Device = Device;

    fn count() -> Got<u32> {
        Ok(1)
    }

    fn open(index: u32) -> Got<Device> {
        match index {
            0 => Ok(Device::default()),
            _ => Err(Failure::new(UNSUPPORTED, format!("no device {index}: there is one"))),
        }
    }
}
