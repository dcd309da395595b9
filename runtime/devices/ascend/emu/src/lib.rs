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
mod table;

pub use table::{TABLE, hub_device_get_api};

use std::fmt;

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

/// A failed call: a status of `hub.h`, and what happened.
#[derive(Debug, Clone)]
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

/// Nothing of the kind.
const UNSUPPORTED: i32 = 3;
/// Code that the device refuses.
const REFUSED: i32 = 4;
/// The device failed: what a check of this emulation found.
const DEVICE: i32 = 8;
/// No memory is left.
const LIMIT: i32 = 9;

type Got<T> = Result<T, Failure>;
