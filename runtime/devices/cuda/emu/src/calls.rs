//! The calls, with CUDA's names and arguments (which is what documents them).
#![allow(missing_docs, non_snake_case, clippy::missing_safety_doc)]

use crate::REPORT;
use crate::gpu::{self, Code, Done, Function, Gpu, Work};
use hub_testrun::ptx::Module;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

static GPU: LazyLock<Mutex<Gpu>> = LazyLock::new(Mutex::default);
/// What contexts are: there is one.
const CONTEXT: usize = 0xC0;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn gpu() -> MutexGuard<'static, Gpu> {
    GPU.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that needs `cuInit` only.
fn started(f: impl FnOnce(&mut Gpu) -> Done) -> Code {
    let mut g = gpu();
    let done = if g.started { f(&mut g) } else { Err(gpu::NOT_INITIALIZED) };
    done.err().unwrap_or(0)
}

/// A call that needs the thread's context.
fn within(f: impl FnOnce(&mut Gpu) -> Done) -> Code {
    started(|g| match CURRENT.get() == CONTEXT && g.retained > 0 {
        true => f(g),
        false => Err(gpu::INVALID_CONTEXT),
    })
}

/// Gives a handle.
///
/// # Safety
/// `out` is null or may be written to.
unsafe fn give(out: *mut *mut c_void, handle: usize) -> Done {
    // SAFETY: by the caller's promise.
    match unsafe { out.as_mut() } {
        Some(out) => *out = std::ptr::without_provenance_mut(handle),
        None => return Err(gpu::INVALID_VALUE),
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> Code {
    gpu().started = flags == 0;
    if flags == 0 { 0 } else { gpu::INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(out: *mut c_int) -> Code {
    // SAFETY: it may be written to, by the interface.
    unsafe { *out = 12080 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(out: *mut c_int) -> Code {
    // SAFETY: it may be written to, by the interface.
    started(|_| unsafe {
        *out = 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(out: *mut c_int, ordinal: c_int) -> Code {
    // SAFETY: it may be written to, by the interface.
    started(|_| unsafe {
        if ordinal != 0 {
            return Err(gpu::INVALID_DEVICE);
        }
        *out = 0;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, room: c_int, device: c_int) -> Code {
    const NAME: &CStr = c"a stand-in for a GPU (interpreted PTX)";
    let bytes = NAME.to_bytes_with_nul();
    started(|_| {
        if device != 0 || (room as usize) < bytes.len() {
            return Err(gpu::INVALID_VALUE);
        }
        // SAFETY: there is room for `room` bytes, by the interface.
        unsafe { std::ptr::copy_nonoverlapping(NAME.as_ptr(), name, bytes.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    out: *mut c_int,
    which: c_int,
    device: c_int,
) -> Code {
    started(|_| {
        let value = match which {
            1 => 1024,       // threads of a block
            8 => 48 << 10,   // shared bytes of a block
            16 => 4,         // processors
            75 => 8,         // compute capability, major
            76 => 0,         // and minor
            97 => 163 << 10, // shared bytes of a block that asks for them
            _ => return Err(gpu::INVALID_VALUE),
        };
        if device != 0 {
            return Err(gpu::INVALID_DEVICE);
        }
        // SAFETY: it may be written to, by the interface.
        unsafe { *out = value };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(out: *mut *mut c_void, device: c_int) -> Code {
    started(|g| {
        if device != 0 {
            return Err(gpu::INVALID_DEVICE);
        }
        g.retained += 1;
        // SAFETY: it may be written to, by the interface.
        unsafe { give(out, CONTEXT) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    started(|g| {
        if device != 0 || g.retained == 0 {
            return Err(gpu::INVALID_CONTEXT);
        }
        g.retained -= 1;
        if g.retained == 0
            && let Some(path) = std::env::var_os(REPORT)
        {
            let c = g.counts;
            let line = format!("{} {} {} {}\n", c.launches, c.replays, c.replayed, g.left());
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            _ = file.and_then(|mut f| f.write_all(line.as_bytes()));
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> Code {
    started(|_| match context.addr() {
        0 | CONTEXT => {
            CURRENT.set(context.addr());
            Ok(())
        }
        _ => Err(gpu::INVALID_CONTEXT),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> Code {
    // SAFETY: it may be written to, by the interface.
    within(|g| unsafe {
        *out = g.alloc(bytes)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(at: u64) -> Code {
    within(|g| g.free(at))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, _: c_uint) -> Code {
    within(|g| {
        let at = g.pin(bytes);
        // SAFETY: it may be written to, by the interface.
        unsafe { *out = std::ptr::with_exposed_provenance_mut(at) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(at: *mut c_void) -> Code {
    within(|g| g.unpin(at.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(out: *mut *mut c_void, _flags: c_uint) -> Code {
    // SAFETY: it may be written to, by the interface.
    within(|g| unsafe { give(out, g.stream()) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> Code {
    within(|g| g.wait(stream.addr()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> Code {
    within(|g| g.end_stream(stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(out: *mut *mut c_void, _flags: c_uint) -> Code {
    // SAFETY: it may be written to, by the interface.
    within(|g| unsafe { give(out, g.event()) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> Code {
    within(|g| g.put(stream.addr(), Work::Event(event.addr())))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: *mut c_void) -> Code {
    within(|g| g.wait_event(event.addr()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> Code {
    within(|g| g.end_event(event.addr()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: *mut c_void,
) -> Code {
    within(|g| g.put(stream.addr(), Work::Up { to, from: from.addr(), bytes }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: *mut c_void,
) -> Code {
    within(|g| g.put(stream.addr(), Work::Down { to: to.addr(), from, bytes }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    out: *mut *mut c_void,
    image: *const c_void,
    n: c_uint,
    options: *mut c_uint,
    values: *mut *mut c_void,
) -> Code {
    within(|g| {
        // SAFETY: PTX ends with a NUL, by the interface.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
        match Module::parse(&text) {
            Ok(m) if text.contains(".target") => {
                let h = g.handle();
                g.modules.insert(h, Arc::new(m));
                // SAFETY: it may be written to, by the interface.
                unsafe { give(out, h) }
            }
            said => {
                let why = said.err().map_or("no .target".into(), |e| e.to_string());
                // SAFETY: options and their values are as the interface says.
                unsafe { log(&why, n as usize, options, values) };
                Err(gpu::INVALID_PTX)
            }
        }
    })
}

/// Writes to the buffer for errors, if one is given.
///
/// # Safety
/// There are `n` options and values; a buffer has as many bytes as the option for that says.
unsafe fn log(why: &str, n: usize, options: *mut c_uint, values: *mut *mut c_void) {
    // SAFETY: by the caller's promise.
    unsafe {
        let value = |which| (0..n).find(|i| *options.add(*i) == which).map(|i| *values.add(i));
        if let (Some(at), Some(room)) = (value(5), value(6))
            && room.addr() > 0
        {
            let bytes = why.len().min(room.addr() - 1);
            std::ptr::copy_nonoverlapping(why.as_ptr(), at.cast::<u8>(), bytes);
            *at.cast::<u8>().add(bytes) = 0;
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: *mut c_void) -> Code {
    within(|g| {
        let m = g.modules.remove(&module.addr()).ok_or(gpu::INVALID_HANDLE)?;
        g.functions.retain(|_, f| !Arc::ptr_eq(&f.module, &m));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    out: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> Code {
    within(|g| {
        // SAFETY: it ends with a NUL, by the interface.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let module = g.modules.get(&module.addr()).ok_or(gpu::INVALID_HANDLE)?.clone();
        if !module.entries.contains_key(&name) {
            return Err(gpu::NOT_FOUND);
        }
        let h = g.handle();
        g.functions.insert(h, Function { module, name });
        // SAFETY: it may be written to, by the interface.
        unsafe { give(out, h) }
    })
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: *mut c_void,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Code {
    within(|g| {
        let f = g.functions.get(&function.addr()).ok_or(gpu::INVALID_HANDLE)?.clone();
        let entry = &f.module.entries[&f.name];
        let grid = grid_x > 0 && grid_x <= i32::MAX as u32 && grid_y == 1 && grid_z == 1;
        let block = block_x as usize == entry.threads && block_y == 1 && block_z == 1;
        if !grid || !block || shared != 0 || params.is_null() || !extra.is_null() {
            eprintln!("stand-in for libcuda: kernel {} with {grid_x} blocks of {block_x}", f.name);
            return Err(gpu::INVALID_VALUE);
        }
        // SAFETY: the only parameter has as many bytes as the entry says, by the interface.
        let args = unsafe {
            let block = (*params).cast::<u64>();
            (0..entry.args / 8).map(|i| block.add(i).read_unaligned()).collect()
        };
        g.put(stream.addr(), Work::Launch { function: f, blocks: grid_x.into(), args })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, _mode: c_uint) -> Code {
    within(|g| g.capture(stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: *mut c_void, out: *mut *mut c_void) -> Code {
    // SAFETY: it may be written to, by the interface.
    within(|g| unsafe { give(out, g.captured(stream.addr())?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    out: *mut *mut c_void,
    graph: *mut c_void,
    _flags: u64,
) -> Code {
    // SAFETY: it may be written to, by the interface.
    within(|g| unsafe { give(out, g.instantiate(graph.addr())?) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: *mut c_void) -> Code {
    within(|g| g.end_graph(graph.addr()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(exec: *mut c_void, _stream: *mut c_void) -> Code {
    within(|g| g.exec(exec.addr()).map(|_| ()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: *mut c_void, stream: *mut c_void) -> Code {
    within(|g| {
        let list = g.exec(exec.addr())?;
        g.put(stream.addr(), Work::Graph(list))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: *mut c_void) -> Code {
    within(|g| g.end_exec(exec.addr()))
}

/// Name and text of an error.
fn said(code: Code) -> Option<(&'static CStr, &'static CStr)> {
    Some(match code {
        gpu::INVALID_VALUE => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        gpu::OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        gpu::NOT_INITIALIZED => (c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
        gpu::INVALID_DEVICE => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        gpu::INVALID_CONTEXT => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        gpu::INVALID_PTX => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        gpu::INVALID_HANDLE => (c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        gpu::ILLEGAL_STATE => (c"CUDA_ERROR_ILLEGAL_STATE", c"not permitted in this state"),
        gpu::NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        gpu::ILLEGAL_ADDRESS => (c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access"),
        gpu::LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        gpu::CAPTURE_UNSUPPORTED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"not permitted when stream is capturing")
        }
        gpu::CAPTURE_INVALIDATED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"a previous error during capture")
        }
        _ => return None,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: Code, out: *mut *const c_char) -> Code {
    let Some((name, _)) = said(code) else { return gpu::INVALID_VALUE };
    // SAFETY: it may be written to, by the interface.
    unsafe { *out = name.as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: Code, out: *mut *const c_char) -> Code {
    let Some((_, text)) = said(code) else { return gpu::INVALID_VALUE };
    // SAFETY: it may be written to, by the interface.
    unsafe { *out = text.as_ptr() };
    0
}
