//! The C table: thin functions that turn pointers into references, results into statuses, and panics
//! into status 70.

use crate::device::{Device, Queue};
use crate::module::{Kernel, Module};
use crate::operators::Operator;
use crate::{Failure, Got};
use hub_abi::device as abi;
use hub_abi::device::{Api, KERNELS, MAJOR, MINOR, OPS, OpTensor};
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
    caps: KERNELS | OPS,
    name: abi::text("ascendemu"),
    tiers: abi::text("dav2201"),
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
    op_new: Some(op_new),
    op_free: Some(op_free),
    op_run: Some(op_run),
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
        Err(_) => Failure::new(70, "internal error: the emulation panicked"),
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
        // SAFETY: `n` may be written to, by the interface.
        unsafe { *n = 1 };
        Ok(())
    })
}

unsafe extern "C" fn open(index: u32, out: *mut *mut abi::Device) -> i32 {
    status(|| match index {
        // SAFETY: `out` may be written to, by the interface.
        0 => unsafe { give(out, Dev::default()) },
        _ => Err(Failure::new(3, format!("no device {index}: there is one"))),
    })
}

unsafe extern "C" fn close(d: *mut abi::Device) {
    // SAFETY: it comes from `open`.
    unsafe { take::<Dev>(d.cast()) }
}

unsafe extern "C" fn describe(d: *mut abi::Device, text: *mut c_char, room: usize) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        of::<Dev>(d.cast())?;
        copy_text("an emulated Ascend NPU of architecture 2201", text, room);
        Ok(())
    })
}

unsafe extern "C" fn kind(d: *mut abi::Device, out: *mut u32) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        of::<Dev>(d.cast())?;
        *out = abi::HOST;
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
    status(|| unsafe { give(out, Queue::new(of::<Dev>(d.cast())?)) })
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
        of::<Queue>(q.cast())?.write(to, from);
        Ok(())
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
        of::<Dev>(d.cast())?;
        give(out, Module::new(code)?)
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
        if out.is_null() || (kinds.is_null() && args > 0) {
            return Err(Failure::new(2, "a null pointer"));
        }
        *out = of::<Module>(m.cast())?.kernel(&name, args)?.cast_mut().cast();
        Ok(())
    })
}

/// The object behind a pointer that a count of its own keeps.
///
/// # Safety
/// As [`of`]; the pointer comes from `Arc::as_ptr` of something that lives.
unsafe fn counted<T>(p: *const c_void) -> Got<Arc<T>> {
    // SAFETY: by the caller's promise.
    unsafe {
        let p = std::ptr::from_ref(of::<T>(p)?);
        Arc::increment_strong_count(p);
        Ok(Arc::from_raw(p))
    }
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
        let kernel = counted::<Kernel>(k.cast())?;
        let args = match kernel.args() {
            0 => &[],
            n => std::slice::from_raw_parts(args, n),
        };
        kernel.launch(of::<Queue>(q.cast())?, tiles, args);
        Ok(())
    })
}

/// Tensors of a caller.
///
/// # Safety
/// `n` of them are readable.
unsafe fn tensors<'a>(at: *const OpTensor, n: usize) -> &'a [OpTensor] {
    match n {
        0 => &[],
        // SAFETY: by the caller's promise.
        n => unsafe { std::slice::from_raw_parts(at, n) },
    }
}

unsafe extern "C" fn op_new(
    d: *mut abi::Device,
    name: *const c_char,
    attributes: *const c_char,
    ins: *const OpTensor,
    n_ins: usize,
    outs: *const OpTensor,
    n_outs: usize,
    workspace: *mut u64,
    out: *mut *mut abi::Operator,
) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        of::<Dev>(d.cast())?;
        let (name, attributes) = (CStr::from_ptr(name), CStr::from_ptr(attributes));
        let (ins, outs) = (tensors(ins, n_ins), tensors(outs, n_outs));
        let op = Operator::new(&name.to_string_lossy(), &attributes.to_string_lossy(), ins, outs)?;
        if out.is_null() || workspace.is_null() {
            return Err(Failure::new(2, "a null pointer"));
        }
        *workspace = op.workspace;
        *out = Arc::into_raw(Arc::new(op)).cast_mut().cast();
        Ok(())
    })
}

unsafe extern "C" fn op_free(op: *mut abi::Operator) {
    if !op.is_null() {
        // SAFETY: it comes from `op_new`, given back once; what is queued counts for itself.
        drop(unsafe { Arc::from_raw(op.cast_const().cast::<Operator>()) });
    }
}

unsafe extern "C" fn op_run(
    q: *mut abi::Queue,
    op: *const abi::Operator,
    addresses: *const u64,
    workspace: u64,
) -> i32 {
    // SAFETY: there is an address a tensor, by the interface.
    status(|| unsafe {
        let op = counted::<Operator>(op.cast())?;
        let addresses = std::slice::from_raw_parts(addresses, op.tensors());
        op.put(of::<Queue>(q.cast())?, addresses, workspace);
        Ok(())
    })
}
