//! Options of the C interface: structs that begin with their size and only ever grow at the end, so
//! that programs and libraries of different versions fit.

use crate::capi::{guard, hub_model, hub_session, make_session, open_model, text, usage};
use crate::error::Error;
use crate::model::OpenOptions;
use crate::session::SessionOptions;
use hub_portable::Limits;
use std::ffi::c_char;
use std::mem::{MaybeUninit, size_of};

/// `hub_open_options` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct hub_open_options {
    /// Size of the struct that the caller knows.
    pub struct_size: usize,
    /// Not 0: copy the file instead of mapping it.
    pub copy: i32,
    /// 0.
    pub reserved: i32,
}

/// `hub_session_options` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct hub_session_options {
    /// Size of the struct that the caller knows.
    pub struct_size: usize,
    /// As in `hub_session_new`.
    pub device: *const c_char,
    /// `avx2` and so on; NULL for the best.
    pub tier: *const c_char,
    /// As in `hub_session_new`.
    pub threads: i32,
    /// 0.
    pub reserved: i32,
    /// [`Limits::tensor_bytes`].
    pub tensor_bytes: u64,
    /// [`Limits::live_bytes`].
    pub live_bytes: u64,
    /// [`Limits::steps`].
    pub steps: u64,
    /// [`Limits::work`].
    pub work: u64,
    /// [`Limits::sequence`].
    pub sequence: u64,
}

/// What the caller's struct says: what it is too short for is zero, what this library does not know
/// must be zero. NULL is all zero.
///
/// # Safety
/// `T` is a struct of plain numbers and pointers that begins with its size, for which zeros are a
/// value; `p` is NULL or has as many bytes as it says.
unsafe fn read<T: Copy>(p: *const T, what: &str) -> Result<T, Error> {
    let mut own = MaybeUninit::<T>::zeroed();
    if !p.is_null() {
        // SAFETY: the size comes first and is there, by the caller's promise.
        let size = unsafe { p.cast::<usize>().read_unaligned() };
        if !(size_of::<usize>()..=1 << 16).contains(&size) {
            return usage(&format!("{what}: struct_size is {size}"));
        }
        // SAFETY: that many bytes are readable, by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(p.cast::<u8>(), size) };
        let known = size.min(size_of::<T>());
        if bytes[known..].iter().any(|b| *b != 0) {
            return Err(Error::Unsupported(format!("{what} has a field that is not known here")));
        }
        // SAFETY: both have `known` bytes, and do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), own.as_mut_ptr().cast(), known) };
    }
    // SAFETY: zeroed or copied throughout, and any bytes are a value of it.
    Ok(unsafe { own.assume_init() })
}

/// Opens a bundle with options.
///
/// # Safety
/// `path` is NULL or a C string, `options` NULL or as long as it says, `out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_model_open_with(
    path: *const c_char,
    options: *const hub_open_options,
    out: *mut *mut hub_model,
) -> i32 {
    guard(|| {
        // SAFETY: plain numbers; as long as it says by the caller's promise.
        let o = unsafe { read(options, "hub_open_options")? };
        let options = OpenOptions { copy: o.copy != 0, ..OpenOptions::default() };
        // SAFETY: by the caller's promise.
        unsafe { open_model(path, &options, out) }
    })
}

/// Makes a session with options.
///
/// # Safety
/// `model` is NULL or open, `options` NULL or as long as it says with strings that are NULL or C
/// strings, `out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_session_new_with(
    model: *const hub_model,
    options: *const hub_session_options,
    out: *mut *mut hub_session,
) -> i32 {
    guard(|| {
        // SAFETY: plain numbers and pointers; as long as it says by the caller's promise.
        let o = unsafe { read(options, "hub_session_options")? };
        let d = Limits::default();
        let or = |given: u64, default: u64| if given == 0 { default } else { given };
        let limits = Limits {
            tensor_bytes: or(o.tensor_bytes, d.tensor_bytes),
            live_bytes: or(o.live_bytes, d.live_bytes),
            steps: or(o.steps, d.steps),
            work: or(o.work, d.work),
            sequence: or(o.sequence, d.sequence),
        };
        // SAFETY: NULL or C strings by the caller's promise.
        let (device, tier) = unsafe { (text(o.device), text(o.tier)) };
        let threads = o.threads.max(0) as usize;
        let device = device.unwrap_or_default();
        let options = SessionOptions { threads, device, tier, limits };
        // SAFETY: by the caller's promise.
        unsafe { make_session(model, &options, out) }
    })
}
