//! The calls, with CUDA's names and arguments (which is what documents them).
#![allow(missing_docs, non_snake_case, clippy::missing_safety_doc)]

use crate::gpu::{self, Code, Done, Function, Gpu, Work};
use crate::{CAPABILITY, REPORT};
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
        let named = std::env::var(CAPABILITY).ok().and_then(|c| c.parse().ok());
        let capability: c_int = named.unwrap_or(80);
        let value = match which {
            75 => capability / 10, // major
            76 => capability % 10, // minor
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
        g.functions.insert(h, Function { module, name, shared: 48 << 10 });
        // SAFETY: it may be written to, by the interface.
        unsafe { give(out, h) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: *mut c_void, which: c_int, value: c_int) -> Code {
    within(|g| {
        let f = g.functions.get_mut(&function.addr()).ok_or(gpu::INVALID_HANDLE)?;
        match (which, u32::try_from(value)) {
            // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES; a block of an sm_80 has 163 KiB at most.
            (8, Ok(bytes)) if bytes <= 163 << 10 => f.shared = bytes,
            _ => return Err(gpu::INVALID_VALUE),
        }
        Ok(())
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
        if !grid || !block || shared > f.shared || params.is_null() || !extra.is_null() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    const PTX: &str = ".version 7.0\n.target sm_80\n.address_size 64\n\
        .visible .entry put(.param .align 8 .b8 args[8])\n.reqntid 32, 1, 1\n{\n\
        \t.reg .b64 %a<1>;\n\t.reg .b32 %t;\n\
        \tld.param.b64 %a0, [args+0];\n\tmov.b32 %t, 7;\n\tst.global.b32 [%a0], %t;\n\tret;\n}\n";

    type Handle = *mut c_void;

    /// Launches the kernel that writes 7 at an address.
    fn put(f: Handle, stream: Handle, threads: c_uint, at: u64) -> Code {
        shared(f, stream, threads, at, 0)
    }

    /// The same, with so many bytes of shared memory.
    fn shared(f: Handle, stream: Handle, threads: c_uint, at: u64, bytes: c_uint) -> Code {
        let mut params = [std::ptr::from_ref(&at).cast_mut().cast::<c_void>()];
        // SAFETY: one parameter of 8 bytes, as the kernel has.
        unsafe {
            cuLaunchKernel(
                f,
                1,
                1,
                1,
                threads,
                1,
                1,
                bytes,
                stream,
                params.as_mut_ptr(),
                null_mut(),
            )
        }
    }

    /// All in one: the GPU is the process's, and the last fault stays.
    #[test]
    fn what_a_gpu_refuses_is_refused() {
        let (mut context, mut module, mut f, mut stream) =
            (null_mut(), null_mut(), null_mut(), null_mut());
        let (mut graph, mut exec, mut pinned, mut at) = (null_mut(), null_mut(), null_mut(), 0u64);
        let text = std::ffi::CString::new(PTX).expect("no NUL");
        // SAFETY: pointers are to this function's.
        unsafe {
            assert_eq!(cuMemAlloc_v2(&mut at, 64), gpu::NOT_INITIALIZED);
            assert_eq!(cuInit(0), 0);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 1), gpu::INVALID_DEVICE);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
            assert_eq!(cuMemAlloc_v2(&mut at, 64), gpu::INVALID_CONTEXT);
            assert_eq!(cuCtxSetCurrent(context), 0);
            assert_eq!(cuMemAlloc_v2(&mut at, 0), gpu::INVALID_VALUE);
            assert_eq!(cuMemAlloc_v2(&mut at, 1 << 40), gpu::OUT_OF_MEMORY);
            assert_eq!(cuMemAlloc_v2(&mut at, 64), 0);
            assert_eq!(cuMemHostAlloc(&mut pinned, 64, 0), 0);
            assert_eq!(cuStreamCreate(&mut stream, 1), 0);
            let nonsense = c".target sm_80\n.visible .entry x(.param .align 8 .b8 args[8])\n\
                .reqntid 32, 1, 1\n{\n\tadd.nonsense %r0;\n}\n";
            let nonsense = nonsense.as_ptr().cast();
            let bad = cuModuleLoadDataEx(&mut module, nonsense, 0, null_mut(), null_mut());
            assert_eq!(bad, gpu::INVALID_PTX);
            let load = |m| cuModuleLoadDataEx(m, text.as_ptr().cast(), 0, null_mut(), null_mut());
            assert_eq!(load(&mut module), 0);
            assert_eq!(cuModuleGetFunction(&mut f, module, c"none".as_ptr()), gpu::NOT_FOUND);
            assert_eq!(cuModuleGetFunction(&mut f, module, c"put".as_ptr()), 0);
        }
        let word = |offset: u64| {
            assert_eq!(cuMemcpyDtoHAsync_v2(pinned, at + offset, 4, stream), 0);
            assert_eq!(cuStreamSynchronize(stream), 0);
            // SAFETY: pinned memory of 64 bytes.
            unsafe { pinned.cast::<u32>().read() }
        };
        // Blocks of another size; copies from what is not pinned, and to what is not there.
        assert_eq!(put(f, stream, 64, at), gpu::INVALID_VALUE);
        // Much shared memory is asked for first.
        assert_eq!(shared(f, stream, 32, at, 64 << 10), gpu::INVALID_VALUE);
        assert_eq!(cuFuncSetAttribute(f, 8, 200 << 10), gpu::INVALID_VALUE);
        assert_eq!(cuFuncSetAttribute(f, 8, 64 << 10), 0);
        assert_eq!(shared(f, stream, 32, at, 64 << 10), 0);
        let mine = [0u8; 4].as_ptr().cast();
        assert_eq!(cuMemcpyHtoDAsync_v2(at, mine, 4, stream), gpu::INVALID_VALUE);
        assert_eq!(cuMemcpyHtoDAsync_v2(at + 62, pinned, 4, stream), gpu::INVALID_VALUE);
        assert_eq!(put(f, stream, 32, at), 0);
        assert_eq!((word(0), word(4)), (7, 0xA5A5_A5A5));
        // What is captured is done when it is launched, and waiting spoils a capture.
        assert_eq!(cuStreamBeginCapture_v2(stream, 1), 0);
        assert_eq!(cuStreamSynchronize(stream), gpu::CAPTURE_UNSUPPORTED);
        // SAFETY: pointers are to this function's.
        unsafe {
            assert_eq!(cuStreamEndCapture(stream, &mut graph), gpu::CAPTURE_INVALIDATED);
            assert_eq!(cuStreamBeginCapture_v2(stream, 1), 0);
            assert_eq!(put(f, stream, 32, at + 8), 0);
            assert_eq!(cuStreamEndCapture(stream, &mut graph), 0);
            assert_eq!(cuGraphInstantiateWithFlags(&mut exec, graph, 0), 0);
        }
        assert_eq!(word(8), 0xA5A5_A5A5);
        assert_eq!((cuGraphLaunch(exec, stream), word(8)), (0, 7));
        assert_eq!(cuGraphLaunch(graph, stream), gpu::INVALID_HANDLE);
        // A kernel's fault is every later call's.
        assert_eq!(put(f, stream, 32, at + 64), 0);
        assert_eq!(cuStreamSynchronize(stream), gpu::ILLEGAL_ADDRESS);
        assert_eq!(put(f, stream, 32, at), gpu::ILLEGAL_ADDRESS);
    }
}
