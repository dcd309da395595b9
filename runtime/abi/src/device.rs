//! The table of functions that a device driver gives the runtime: `runtime/include/hub_device.h` in
//! Rust, field by field. What the functions do is said there.
//!
//! Invariant: within a major version fields are only appended; a test compiles the header and compares
//! sizes and offsets.

use std::ffi::{c_char, c_void};

/// The major version of the table.
pub const MAJOR: u32 = 1;
/// The minor version: fields up to the last one here.
pub const MINOR: u32 = 1;

/// Modules and kernels.
pub const KERNELS: u64 = 1;
/// Recorded queues.
pub const GRAPHS: u64 = 2;
/// Prepared operators.
pub const OPS: u64 = 4;

/// A device that is the host's own processor, or emulated on it.
pub const HOST: u32 = 0;
/// A graphics processor.
pub const GPU: u32 = 1;
/// Anything else that computes beside the host.
pub const ACCELERATOR: u32 = 2;

/// An argument that is an address.
pub const ADDRESS: u8 = 0;
/// An argument that is a signed number.
pub const SIZE: u8 = 1;

/// Name of the function that a driver exports, a [`GetApi`].
pub const ENTRY: &str = "hub_device_get_api";

/// Gives the table of a major version.
pub type GetApi = unsafe extern "C" fn(major: u32, out: *mut *const Api) -> i32;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            pub struct $name {
                _opaque: [u8; 0],
            }
        )*
    };
}

opaque! {
    /// An opened device.
    Device
    /// A queue of a device.
    Queue
    /// Code that was made ready.
    Module
    /// A kernel of a module.
    Kernel
    /// A recording.
    Recording
    /// A prepared operator.
    Operator
}

/// A tensor that a prepared operator reads or writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpTensor {
    /// ONNX's number of the dtype.
    pub dtype: i32,
    /// Axes, at most 8.
    pub rank: i32,
    /// Sizes.
    pub dims: [i64; 8],
    /// Elements from one index to the next.
    pub strides: [i64; 8],
}

/// The table.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Api {
    pub struct_size: usize,
    pub major: u32,
    pub minor: u32,
    pub caps: u64,
    pub name: [u8; 16],
    pub tiers: [u8; 64],
    pub count: Option<unsafe extern "C" fn(*mut u32) -> i32>,
    pub open: Option<unsafe extern "C" fn(u32, *mut *mut Device) -> i32>,
    pub close: Option<unsafe extern "C" fn(*mut Device)>,
    pub describe: Option<unsafe extern "C" fn(*mut Device, *mut c_char, usize) -> i32>,
    pub last_error: Option<unsafe extern "C" fn(*mut c_char, usize)>,
    pub memory_new: Option<unsafe extern "C" fn(*mut Device, u64, *mut u64) -> i32>,
    pub memory_free: Option<unsafe extern "C" fn(*mut Device, u64)>,
    pub queue_new: Option<unsafe extern "C" fn(*mut Device, *mut *mut Queue) -> i32>,
    pub queue_free: Option<unsafe extern "C" fn(*mut Queue)>,
    pub write: Option<unsafe extern "C" fn(*mut Queue, u64, *const c_void, u64) -> i32>,
    pub read: Option<unsafe extern "C" fn(*mut Queue, *mut c_void, u64, u64) -> i32>,
    pub wait: Option<unsafe extern "C" fn(*mut Queue) -> i32>,
    pub module_new: Option<
        unsafe extern "C" fn(
            *mut Device,
            *const c_char,
            *const c_void,
            usize,
            *mut *mut Module,
        ) -> i32,
    >,
    pub module_free: Option<unsafe extern "C" fn(*mut Module)>,
    pub kernel_new: Option<
        unsafe extern "C" fn(*mut Module, *const c_char, *const u8, usize, *mut *mut Kernel) -> i32,
    >,
    pub launch: Option<unsafe extern "C" fn(*mut Queue, *const Kernel, u64, *const u64) -> i32>,
    pub record: Option<unsafe extern "C" fn(*mut Queue) -> i32>,
    pub recorded: Option<unsafe extern "C" fn(*mut Queue, *mut *mut Recording) -> i32>,
    pub replay: Option<unsafe extern "C" fn(*mut Queue, *const Recording) -> i32>,
    pub graph_free: Option<unsafe extern "C" fn(*mut Recording)>,
    pub op_new: Option<
        unsafe extern "C" fn(
            *mut Device,
            *const c_char,
            *const c_char,
            *const OpTensor,
            usize,
            *const OpTensor,
            usize,
            *mut u64,
            *mut *mut Operator,
        ) -> i32,
    >,
    pub op_free: Option<unsafe extern "C" fn(*mut Operator)>,
    pub op_run: Option<unsafe extern "C" fn(*mut Queue, *const Operator, *const u64, u64) -> i32>,
    pub kind: Option<unsafe extern "C" fn(*mut Device, *mut u32) -> i32>,
}

/// A text for a field of the table: its bytes, then zeros.
///
/// # Panics
/// If it does not leave room for one zero.
pub const fn text<const N: usize>(s: &str) -> [u8; N] {
    let from = s.as_bytes();
    assert!(from.len() < N, "too long for its field");
    let (mut out, mut i) = ([0; N], 0);
    while i < from.len() {
        out[i] = from[i];
        i += 1;
    }
    out
}

/// What a text field says: the bytes before the first zero.
pub fn said(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
