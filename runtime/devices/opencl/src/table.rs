//! The C table: thin functions that turn pointers into references, results into statuses, and panics
//! into status 70.

use crate::device::{self, Device, Kernel, Module, Queue};
use crate::{Failure, Got};
use hub_abi::device as abi;
use hub_abi::device::{Api, KERNELS, MAJOR, MINOR};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The driver's table.
pub static TABLE: Api = Api {
    struct_size: size_of::<Api>(),
    major: MAJOR,
    minor: MINOR,
    caps: KERNELS,
    name: abi::text("opencl"),
    tiers: abi::text("cl12"),
    count: Some(count),
    open: Some(open),
    close: Some(close),
    describe: Some(describe),
    last_error: Some(last_error),
    memory_new: Some(memory_new),
    memory_free: Some(memory_free),
    queue_new: Some(queue_new),
    queue_free: Some(queue_free),
    write: Some(write),
    read: Some(read),
    wait: Some(wait),
    module_new: Some(module_new),
    module_free: Some(module_free),
    kernel_new: Some(kernel_new),
    launch: Some(launch),
    record: None,
    recorded: None,
    replay: None,
    graph_free: None,
    op_new: None,
    op_free: None,
    op_run: None,
    kind: Some(kind),
};

/// The entry of the library: see `hub_device.h`.
///
/// # Safety
/// `out` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_device_get_api(major: u32, out: *mut *const Api) -> i32 {
    if major != MAJOR || out.is_null() {
        return 3;
    }
    // SAFETY: by the caller's promise.
    unsafe { *out = &TABLE };
    0
}

/// Runs a call; its status, the text of a failure being kept.
fn status(f: impl FnOnce() -> Got<()>) -> i32 {
    let done = catch_unwind(AssertUnwindSafe(f));
    let failure = match done {
        Ok(Ok(())) => return 0,
        Ok(Err(e)) => e,
        Err(_) => Failure::new(70, "internal error: the OpenCL driver panicked"),
    };
    LAST.with(|l| *l.borrow_mut() = failure.to_string());
    failure.status
}

/// A pointer of a caller as a reference.
///
/// # Safety
/// It is null, or was made by this library as a `T` and not given back yet.
unsafe fn of<'a, T>(p: *const c_void) -> Got<&'a T> {
    // SAFETY: by the caller's promise.
    unsafe { p.cast::<T>().as_ref() }.ok_or_else(|| Failure::new(2, "a null pointer"))
}

/// Hands an object to the caller.
///
/// # Safety
/// `out` is null or may be written to.
unsafe fn give<T, U>(out: *mut *mut U, made: T) -> Got<()> {
    if out.is_null() {
        return Err(Failure::new(2, "a null pointer"));
    }
    // SAFETY: by the caller's promise.
    unsafe { *out = Box::into_raw(Box::new(made)).cast() };
    Ok(())
}

/// Takes an object back.
///
/// # Safety
/// It is null, or was made by [`give`] of a `T`.
unsafe fn take<T>(p: *mut c_void) {
    if !p.is_null() {
        // SAFETY: by the caller's promise.
        let made = unsafe { Box::from_raw(p.cast::<T>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(made)));
    }
}

/// Copies text, cut to `room` bytes with its NUL.
///
/// # Safety
/// `text` may be written to for `room` bytes.
unsafe fn copy_text(from: &str, text: *mut c_char, room: usize) {
    if text.is_null() || room == 0 {
        return;
    }
    let n = from.len().min(room - 1);
    // SAFETY: by the caller's promise, `n + 1 <= room`.
    unsafe {
        std::ptr::copy_nonoverlapping(from.as_ptr().cast(), text, n);
        *text.add(n) = 0;
    }
}

type Dev = Arc<Device>;

unsafe extern "C" fn count(n: *mut u32) -> i32 {
    status(|| {
        let found = device::all();
        // SAFETY: `n` may be written to, by the interface.
        unsafe { *n = found.as_ref().map_or(0, |d| d.len() as u32) };
        found.map(|_| ())
    })
}

unsafe extern "C" fn open(index: u32, out: *mut *mut abi::Device) -> i32 {
    // SAFETY: `out` may be written to, by the interface.
    status(|| Device::open(index).and_then(|d| unsafe { give(out, d) }))
}

unsafe extern "C" fn close(d: *mut abi::Device) {
    // SAFETY: it comes from `open`.
    unsafe { take::<Dev>(d.cast()) }
}

unsafe extern "C" fn describe(d: *mut abi::Device, text: *mut c_char, room: usize) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        let said = of::<Dev>(d.cast())?.describe()?;
        copy_text(&said, text, room);
        Ok(())
    })
}

unsafe extern "C" fn kind(d: *mut abi::Device, out: *mut u32) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        *out = of::<Dev>(d.cast())?.kind()?;
        Ok(())
    })
}

unsafe extern "C" fn last_error(text: *mut c_char, room: usize) {
    // SAFETY: `text` has `room` bytes, by the interface.
    LAST.with(|l| unsafe { copy_text(&l.borrow(), text, room) });
}

unsafe extern "C" fn memory_new(d: *mut abi::Device, bytes: u64, out: *mut u64) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        *out = of::<Dev>(d.cast())?.reserve(bytes)?;
        Ok(())
    })
}

unsafe extern "C" fn memory_free(d: *mut abi::Device, address: u64) {
    // SAFETY: it comes from `open`.
    status(|| unsafe {
        of::<Dev>(d.cast())?.release(address);
        Ok(())
    });
}

unsafe extern "C" fn queue_new(d: *mut abi::Device, out: *mut *mut abi::Queue) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe { give(out, Queue::new(of::<Dev>(d.cast())?)?) })
}

unsafe extern "C" fn queue_free(q: *mut abi::Queue) {
    // SAFETY: it comes from `queue_new`.
    unsafe { take::<Queue>(q.cast()) }
}

unsafe extern "C" fn write(q: *mut abi::Queue, to: u64, from: *const c_void, bytes: u64) -> i32 {
    // SAFETY: `from` is readable for so many bytes, by the interface.
    status(|| unsafe {
        let from = match bytes {
            0 => &[],
            n => std::slice::from_raw_parts(from.cast(), n as usize),
        };
        of::<Queue>(q.cast())?.write(to, from)
    })
}

unsafe extern "C" fn read(q: *mut abi::Queue, to: *mut c_void, from: u64, bytes: u64) -> i32 {
    // SAFETY: `to` is writable for so many bytes, by the interface.
    status(|| unsafe {
        let to = match bytes {
            0 => &mut [],
            n => std::slice::from_raw_parts_mut(to.cast(), n as usize),
        };
        of::<Queue>(q.cast())?.read(to, from)
    })
}

unsafe extern "C" fn wait(q: *mut abi::Queue) -> i32 {
    // SAFETY: it comes from `queue_new`.
    status(|| unsafe { of::<Queue>(q.cast())?.wait() })
}

unsafe extern "C" fn module_new(
    d: *mut abi::Device,
    _tier: *const c_char,
    code: *const c_void,
    bytes: usize,
    out: *mut *mut abi::Module,
) -> i32 {
    // SAFETY: `code` is readable for so many bytes, by the interface.
    status(|| unsafe {
        let code = std::slice::from_raw_parts(code.cast(), bytes);
        give(out, Module::new(of::<Dev>(d.cast())?, code)?)
    })
}

unsafe extern "C" fn module_free(m: *mut abi::Module) {
    // SAFETY: it comes from `module_new`.
    unsafe { take::<Module>(m.cast()) }
}

unsafe extern "C" fn kernel_new(
    m: *mut abi::Module,
    name: *const c_char,
    kinds: *const u8,
    args: usize,
    out: *mut *mut abi::Kernel,
) -> i32 {
    // SAFETY: `name` ends with a NUL and `kinds` is readable, by the interface.
    status(|| unsafe {
        let name = CStr::from_ptr(name).to_string_lossy();
        let kinds = match args {
            0 => &[],
            n => std::slice::from_raw_parts(kinds, n),
        };
        if out.is_null() {
            return Err(Failure::new(2, "a null pointer"));
        }
        let kernel = of::<Module>(m.cast())?.kernel(&name, kinds)?;
        *out = std::ptr::from_ref(kernel).cast_mut().cast();
        Ok(())
    })
}

unsafe extern "C" fn launch(
    q: *mut abi::Queue,
    k: *const abi::Kernel,
    tiles: u64,
    args: *const u64,
) -> i32 {
    // SAFETY: `args` has an entry an argument, and the kernel stays within its memory, by the
    // interface.
    status(|| unsafe {
        let kernel = of::<Kernel>(k.cast())?;
        let args = std::slice::from_raw_parts(args, kernel.args());
        kernel.launch(of::<Queue>(q.cast())?, tiles, args)
    })
}
