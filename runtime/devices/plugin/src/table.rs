//! The functions of the table, thin and generic: pointers become references, results statuses, panics
//! status 70.
//!
//! Invariants: a `hub_device` is a boxed `Arc` of a device, a queue, module or graph a box of one, an
//! operator what `Arc::into_raw` gives, a kernel an entry of its module's list, which only grows.

use crate::{Device, Driver, Failure, Got, Graph, INTERNAL, Operator};
use hub_abi::device::{self as abi, Api, GRAPHS, KERNELS, MAJOR, MINOR, OPS, OpTensor};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

type Dev<D> = Arc<<D as Driver>::Device>;
type Queue<D> = <<D as Driver>::Device as Device>::Queue;
type Kernel<D> = <<D as Driver>::Device as Device>::Kernel;
type Recorded<D> = <<D as Driver>::Device as Device>::Graph;
type Op<D> = <<D as Driver>::Device as Device>::Operator;

/// A module, and the kernels asked for, which stay where they are as long as it lives.
struct Loaded<D: Driver> {
    module: <D::Device as Device>::Module,
    kernels: Mutex<Vec<Arc<Callee<D>>>>,
}

struct Callee<D: Driver> {
    kernel: Arc<Kernel<D>>,
    args: usize,
}

/// The table of a driver.
pub const fn table<D: Driver>() -> Api {
    let (graphs, ops) = (Recorded::<D>::THERE, Op::<D>::THERE);
    let caps = KERNELS | if graphs { GRAPHS } else { 0 } | if ops { OPS } else { 0 };
    let mut api = Api {
        struct_size: size_of::<Api>(),
        major: MAJOR,
        minor: MINOR,
        caps,
        name: abi::text(D::NAME),
        tiers: abi::text(D::TIERS),
        count: Some(count::<D>),
        open: Some(open::<D>),
        close: Some(close::<D>),
        describe: Some(describe::<D>),
        last_error: Some(last_error),
        memory_new: Some(memory_new::<D>),
        memory_free: Some(memory_free::<D>),
        queue_new: Some(queue_new::<D>),
        queue_free: Some(queue_free::<D>),
        write: Some(write::<D>),
        read: Some(read::<D>),
        wait: Some(wait::<D>),
        module_new: Some(module_new::<D>),
        module_free: Some(module_free::<D>),
        kernel_new: Some(kernel_new::<D>),
        launch: Some(launch::<D>),
        record: None,
        recorded: None,
        replay: None,
        graph_free: None,
        op_new: None,
        op_free: None,
        op_run: None,
        kind: Some(kind::<D>),
    };
    if graphs {
        api.record = Some(record::<D>);
        api.recorded = Some(recorded::<D>);
        api.replay = Some(replay::<D>);
        api.graph_free = Some(graph_free::<D>);
    }
    if ops {
        api.op_new = Some(op_new::<D>);
        api.op_free = Some(op_free::<D>);
        api.op_run = Some(op_run::<D>);
    }
    api
}

/// Gives a table to who asks for its major version.
///
/// # Safety
/// `out` is null or may be written to.
pub unsafe fn api(table: &'static Api, major: u32, out: *mut *const Api) -> i32 {
    if major != MAJOR || out.is_null() {
        return 3;
    }
    // SAFETY: by the caller's promise.
    unsafe { *out = table };
    0
}

/// Runs a call; its status, the text of a failure being kept.
fn status(f: impl FnOnce() -> Got<()>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => return 0,
        Ok(Err(e)) => e,
        Err(why) => {
            let text = why.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Failure::new(INTERNAL, format!("internal error: the driver panicked: {text}"))
        }
    };
    LAST.with(|l| *l.borrow_mut() = failure.to_string());
    failure.status
}

fn null() -> Failure {
    Failure::new(2, "a null pointer")
}

/// A pointer of a caller as a reference.
///
/// # Safety
/// It is null, or was made by this library as a `T` and not given back yet.
unsafe fn of<'a, T>(p: *const c_void) -> Got<&'a T> {
    // SAFETY: by the caller's promise.
    unsafe { p.cast::<T>().as_ref() }.ok_or_else(null)
}

/// Hands an object to the caller.
///
/// # Safety
/// `out` is null or may be written to.
unsafe fn give<T, U>(out: *mut *mut U, made: T) -> Got<()> {
    if out.is_null() {
        return Err(null());
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

/// Elements of a caller.
///
/// # Safety
/// `n` of them are readable.
unsafe fn list<'a, T>(at: *const T, n: usize) -> Got<&'a [T]> {
    match n {
        0 => Ok(&[]),
        _ if at.is_null() => Err(null()),
        // SAFETY: by the caller's promise.
        n => Ok(unsafe { std::slice::from_raw_parts(at, n) }),
    }
}

fn size(bytes: u64) -> Got<usize> {
    usize::try_from(bytes).map_err(|e| Failure::new(crate::LIMIT, e.to_string()))
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

unsafe extern "C" fn count<D: Driver>(n: *mut u32) -> i32 {
    status(|| {
        let found = D::count();
        // SAFETY: `n` may be written to, by the interface.
        unsafe { *n = *found.as_ref().unwrap_or(&0) };
        found.map(|_| ())
    })
}

unsafe extern "C" fn open<D: Driver>(index: u32, out: *mut *mut abi::Device) -> i32 {
    // SAFETY: `out` may be written to, by the interface.
    status(|| D::open(index).and_then(|d| unsafe { give::<Dev<D>, _>(out, Arc::new(d)) }))
}

unsafe extern "C" fn close<D: Driver>(d: *mut abi::Device) {
    // SAFETY: it comes from `open`.
    unsafe { take::<Dev<D>>(d.cast()) }
}

unsafe extern "C" fn describe<D: Driver>(
    d: *mut abi::Device,
    text: *mut c_char,
    room: usize,
) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        copy_text(&of::<Dev<D>>(d.cast())?.describe()?, text, room);
        Ok(())
    })
}

unsafe extern "C" fn kind<D: Driver>(d: *mut abi::Device, out: *mut u32) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        *out = of::<Dev<D>>(d.cast())?.kind()?;
        Ok(())
    })
}

unsafe extern "C" fn last_error(text: *mut c_char, room: usize) {
    // SAFETY: `text` has `room` bytes, by the interface.
    LAST.with(|l| unsafe { copy_text(&l.borrow(), text, room) });
}

unsafe extern "C" fn memory_new<D: Driver>(d: *mut abi::Device, bytes: u64, out: *mut u64) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe {
        *out = of::<Dev<D>>(d.cast())?.reserve(bytes)?;
        Ok(())
    })
}

unsafe extern "C" fn memory_free<D: Driver>(d: *mut abi::Device, address: u64) {
    // SAFETY: it comes from `open`.
    status(|| unsafe {
        of::<Dev<D>>(d.cast())?.release(address);
        Ok(())
    });
}

unsafe extern "C" fn queue_new<D: Driver>(d: *mut abi::Device, out: *mut *mut abi::Queue) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe { give::<Queue<D>, _>(out, of::<Dev<D>>(d.cast())?.queue()?) })
}

unsafe extern "C" fn queue_free<D: Driver>(q: *mut abi::Queue) {
    // SAFETY: it comes from `queue_new`.
    unsafe { take::<Queue<D>>(q.cast()) }
}

unsafe extern "C" fn write<D: Driver>(
    q: *mut abi::Queue,
    to: u64,
    from: *const c_void,
    bytes: u64,
) -> i32 {
    // SAFETY: `from` is readable for so many bytes, by the interface.
    status(|| unsafe {
        D::Device::write(of::<Queue<D>>(q.cast())?, to, list(from.cast(), size(bytes)?)?)
    })
}

unsafe extern "C" fn read<D: Driver>(
    q: *mut abi::Queue,
    to: *mut c_void,
    from: u64,
    bytes: u64,
) -> i32 {
    // SAFETY: `to` is writable for so many bytes, by the interface.
    status(|| unsafe {
        let to = match size(bytes)? {
            0 => &mut [],
            _ if to.is_null() => return Err(null()),
            n => std::slice::from_raw_parts_mut(to.cast(), n),
        };
        D::Device::read(of::<Queue<D>>(q.cast())?, to, from)
    })
}

unsafe extern "C" fn wait<D: Driver>(q: *mut abi::Queue) -> i32 {
    // SAFETY: it comes from `queue_new`.
    status(|| unsafe { D::Device::wait(of::<Queue<D>>(q.cast())?) })
}

unsafe extern "C" fn module_new<D: Driver>(
    d: *mut abi::Device,
    tier: *const c_char,
    code: *const c_void,
    bytes: usize,
    out: *mut *mut abi::Module,
) -> i32 {
    // SAFETY: `tier` ends with a NUL and `code` is readable, by the interface.
    status(|| unsafe {
        let tier = CStr::from_ptr(tier).to_string_lossy();
        let module = of::<Dev<D>>(d.cast())?.module(&tier, list(code.cast(), bytes)?)?;
        give(out, Loaded::<D> { module, kernels: Mutex::new(vec![]) })
    })
}

unsafe extern "C" fn module_free<D: Driver>(m: *mut abi::Module) {
    // SAFETY: it comes from `module_new`.
    unsafe { take::<Loaded<D>>(m.cast()) }
}

unsafe extern "C" fn kernel_new<D: Driver>(
    m: *mut abi::Module,
    name: *const c_char,
    kinds: *const u8,
    args: usize,
    out: *mut *mut abi::Kernel,
) -> i32 {
    // SAFETY: `name` ends with a NUL and `kinds` is readable, by the interface.
    status(|| unsafe {
        if out.is_null() {
            return Err(null());
        }
        let (name, kinds) = (CStr::from_ptr(name).to_string_lossy(), list(kinds, args)?);
        let loaded = of::<Loaded<D>>(m.cast())?;
        let kernel = Arc::new(D::Device::kernel(&loaded.module, &name, kinds)?);
        let made = Arc::new(Callee::<D> { kernel, args });
        *out = Arc::as_ptr(&made).cast_mut().cast();
        loaded.kernels.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        Ok(())
    })
}

unsafe extern "C" fn launch<D: Driver>(
    q: *mut abi::Queue,
    k: *const abi::Kernel,
    tiles: u64,
    args: *const u64,
) -> i32 {
    // SAFETY: `args` has an entry an argument, and the kernel stays within its memory, by the
    // interface.
    status(|| unsafe {
        let callee = of::<Callee<D>>(k.cast())?;
        let args = list(args, callee.args)?;
        D::Device::launch(of::<Queue<D>>(q.cast())?, &callee.kernel, tiles, args)
    })
}

unsafe extern "C" fn record<D: Driver>(q: *mut abi::Queue) -> i32 {
    // SAFETY: it comes from `queue_new`.
    status(|| unsafe { Recorded::<D>::record(of::<Queue<D>>(q.cast())?) })
}

unsafe extern "C" fn recorded<D: Driver>(q: *mut abi::Queue, out: *mut *mut abi::Recording) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe { give(out, Recorded::<D>::recorded(of::<Queue<D>>(q.cast())?)?) })
}

unsafe extern "C" fn replay<D: Driver>(q: *mut abi::Queue, g: *const abi::Recording) -> i32 {
    // SAFETY: pointers are as the interface says.
    status(|| unsafe { of::<Recorded<D>>(g.cast())?.replay(of::<Queue<D>>(q.cast())?) })
}

unsafe extern "C" fn graph_free<D: Driver>(g: *mut abi::Recording) {
    // SAFETY: it comes from `recorded`.
    unsafe { take::<Recorded<D>>(g.cast()) }
}

unsafe extern "C" fn op_new<D: Driver>(
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
        if out.is_null() || workspace.is_null() {
            return Err(null());
        }
        let device = of::<Dev<D>>(d.cast())?;
        let (name, attributes) = (CStr::from_ptr(name), CStr::from_ptr(attributes));
        let (name, attributes) = (name.to_string_lossy(), attributes.to_string_lossy());
        let op = Op::<D>::new(device, &name, &attributes, list(ins, n_ins)?, list(outs, n_outs)?)?;
        *workspace = op.workspace();
        *out = Arc::into_raw(Arc::new(op)).cast_mut().cast();
        Ok(())
    })
}

unsafe extern "C" fn op_free<D: Driver>(op: *mut abi::Operator) {
    if !op.is_null() {
        // SAFETY: it comes from `op_new`, given back once; what is queued counts for itself.
        let op = unsafe { Arc::from_raw(op.cast_const().cast::<Op<D>>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(op)));
    }
}

unsafe extern "C" fn op_run<D: Driver>(
    q: *mut abi::Queue,
    op: *const abi::Operator,
    addresses: *const u64,
    workspace: u64,
) -> i32 {
    // SAFETY: there is an address a tensor, and the operator was made by `op_new` and lives, by the
    // interface.
    status(|| unsafe {
        let p = std::ptr::from_ref(of::<Op<D>>(op.cast())?);
        Arc::increment_strong_count(p);
        let op = Arc::from_raw(p);
        let addresses = list(addresses, op.tensors())?;
        op.run(of::<Queue<D>>(q.cast())?, addresses, workspace)
    })
}
