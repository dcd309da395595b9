//! Ascend C: compiled for the host and run core by core.

use crate::device::{Device, Queue};
use hub_plugin::{DEVICE, Failure, Got, REFUSED, UNSUPPORTED};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The stand-in for Ascend C's header.
const STAND_IN: &str = include_str!("kernel_operator.h");
/// Cores that a kernel is launched on, at most.
const CORES: u64 = 4;

type Global = unsafe extern "C" fn(*mut c_void, u64, u64, i32) -> *const c_char;
type Entry = unsafe extern "C" fn(*const u64, i64, i64, Global, *mut c_void) -> *const c_char;

/// A program that was compiled. It stays loaded until the process ends.
pub struct Module {
    library: usize,
}

/// A kernel.
pub struct Kernel {
    name: String,
    entry: Option<Entry>,
}

impl Module {
    /// Compiles a program.
    pub fn new(code: &[u8]) -> Got<Module> {
        let code = std::str::from_utf8(code).map_err(|e| Failure::new(REFUSED, e.to_string()))?;
        let names = names(code);
        let mut library = 0;
        if !names.is_empty() {
            let compiler = crate::compiler().map_err(|e| Failure::new(UNSUPPORTED, e))?;
            let dir = tempfile::tempdir().map_err(|e| Failure::new(DEVICE, e.to_string()))?;
            library = compile(&compiler, dir.path(), code, &names)?;
        }
        Ok(Module { library })
    }

    /// A kernel by name.
    pub fn kernel(&self, name: &str) -> Got<Kernel> {
        let symbol = CString::new(format!("hub_emu_{name}"));
        let symbol = symbol.map_err(|e| Failure::new(REFUSED, e.to_string()))?;
        let missing = || Failure::new(REFUSED, format!("the program has no kernel {name}"));
        if self.library == 0 {
            return Err(missing());
        }
        let library = std::ptr::with_exposed_provenance_mut(self.library);
        // SAFETY: an open library and a C string.
        let at = unsafe { libc::dlsym(library, symbol.as_ptr()) };
        if at.is_null() {
            return Err(missing());
        }
        // SAFETY: functions of such names are generated with this type.
        let entry = Some(unsafe { std::mem::transmute::<*mut c_void, Entry>(at) });
        Ok(Kernel { name: name.into(), entry })
    }
}

/// Kernel functions of a program.
fn names(code: &str) -> Vec<&str> {
    let heads = code.split("__global__ ").skip(1);
    heads.filter_map(|h| h.split_once(" void ")?.1.split('(').next()).collect()
}

fn compile(compiler: &str, dir: &Path, code: &str, names: &[&str]) -> Got<usize> {
    let failed = |e: std::io::Error| Failure::new(DEVICE, e.to_string());
    let mut text = String::from(code);
    for n in names {
        let _ = writeln!(
            text,
            "\nextern \"C\" const char *hub_emu_{n}(const uint64_t *args, int64_t index, \
             int64_t count, hub_emu::Global global, void *driver) {{\n  \
             return hub_emu::call({n}, args, index, count, global, driver);\n}}"
        );
    }
    std::fs::write(dir.join("kernel_operator.h"), STAND_IN).map_err(failed)?;
    std::fs::write(dir.join("kernels.cpp"), text).map_err(failed)?;
    let made = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-w"])
        .args(["-fno-strict-aliasing", "-o", "kernels.so", "kernels.cpp", "-I."])
        .current_dir(dir)
        .output()
        .map_err(failed)?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        let first: Vec<&str> = said.lines().take(12).collect();
        return Err(Failure::new(REFUSED, format!("Ascend C: {}", first.join("\n"))));
    }
    let path = dir.join("kernels.so");
    let path = CString::new(path.as_os_str().as_encoded_bytes());
    let path = path.map_err(|e| Failure::new(DEVICE, e.to_string()))?;
    // SAFETY: a library made just now of the bundle's code, which was admitted when it was opened.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    match library.is_null() {
        true => Err(Failure::new(DEVICE, "the compiled kernels cannot be loaded")),
        false => Ok(library.expose_provenance()),
    }
}

/// What a launch touches: a core, and ranges of addresses that it read or wrote.
struct Launch<'d> {
    device: &'d Device,
    core: u32,
    touched: Vec<(u64, u64, u32, bool)>,
    said: CString,
}

/// Checks an access of a core.
///
/// # Safety
/// `driver` is the launch that is under way.
unsafe extern "C" fn global(driver: *mut c_void, at: u64, n: u64, write: i32) -> *const c_char {
    // SAFETY: by the caller's promise; cores run one after the other.
    let launch = unsafe { &mut *driver.cast::<Launch<'_>>() };
    let write = write != 0;
    if let Err(e) = launch.device.check(at, n, write) {
        launch.said = CString::new(e.what).unwrap_or_default();
        return launch.said.as_ptr();
    }
    match launch.touched.last_mut() {
        Some((_, end, core, w)) if *end == at && *core == launch.core && *w == write => *end += n,
        _ => launch.touched.push((at, at + n, launch.core, write)),
    }
    std::ptr::null()
}

impl Kernel {
    /// Puts a run of all tiles into a queue.
    pub fn launch(self: &Arc<Kernel>, queue: &Queue, tiles: u64, args: &[u64]) {
        let mut args = args.to_vec();
        args.push(tiles);
        let me = self.clone();
        queue.put(move |device| me.run(device, tiles, &args));
    }

    fn run(&self, device: &Device, tiles: u64, args: &[u64]) -> Got<()> {
        let cores = tiles.clamp(1, CORES);
        let said = CString::default();
        let launch = RefCell::new(Launch { device, core: 0, touched: vec![], said });
        for core in 0..cores {
            launch.borrow_mut().core = core as u32;
            let Some(entry) = self.entry else { continue };
            let driver = launch.as_ptr().cast::<c_void>();
            // SAFETY: the function has this type and as many arguments; global memory is reached only
            // where `global` finds it.
            let why = unsafe { entry(args.as_ptr(), core as i64, cores as i64, global, driver) };
            if !why.is_null() {
                // SAFETY: a C string that lives until the next call.
                let why = unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned();
                return Err(Failure::new(DEVICE, format!("kernel {}: {why}", self.name)));
            }
        }
        races(launch.into_inner().touched)
            .map_err(|why| Failure::new(DEVICE, format!("kernel {}: {why}", self.name)))
    }
}

/// Does a core touch what another writes?
fn races(mut touched: Vec<(u64, u64, u32, bool)>) -> Result<(), String> {
    touched.sort_unstable();
    // The ranges that reach furthest so far, of reads and writes, of two different cores each.
    let mut far: [[Option<(u64, u32)>; 2]; 2] = [[None; 2]; 2];
    for (at, end, core, write) in touched {
        for kind in [0, 1] {
            if kind == 0 && !write {
                continue;
            }
            let met = far[kind].iter().flatten().any(|(to, by)| *to > at && *by != core);
            if met {
                return Err(format!("cores do not wait for one another at {at:#x}"));
            }
        }
        let slots = &mut far[usize::from(write)];
        match slots.iter().position(|s| s.is_some_and(|(_, by)| by == core)) {
            Some(i) => slots[i] = slots[i].map(|(to, by)| (to.max(end), by)),
            None => {
                let least = usize::from(slots[1].map_or(0, |s| s.0) < slots[0].map_or(0, |s| s.0));
                if slots[least].is_none_or(|(to, _)| to < end) {
                    slots[least] = Some((end, core));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_plugin::Device as _;

    #[test]
    fn cores_that_meet_are_found() {
        let one = |list: &[(u64, u64, u32, bool)]| races(list.to_vec());
        assert!(one(&[(0, 8, 0, true), (8, 16, 1, true), (0, 16, 2, false)]).is_err());
        assert!(one(&[(0, 8, 0, true), (8, 16, 1, true), (16, 32, 2, false)]).is_ok());
        assert!(one(&[(0, 8, 0, false), (0, 8, 1, false)]).is_ok());
        assert!(one(&[(0, 9, 0, true), (8, 16, 1, true)]).is_err());
        assert!(one(&[(4, 8, 0, true), (0, 6, 1, false)]).is_err());
        assert!(one(&[(4, 8, 0, true), (0, 6, 0, false)]).is_ok());
    }

    /// Bodies of kernels `(GM_ADDR a, GM_ADDR b, int64_t tiles)`, where `a` and `b` are 256 bytes, `b` not
    /// yet written, and what is found.
    const PLANTED: &[(&str, &str)] = &[
        ("Duplicate(v, 1.0f, 64); PipeBarrier<PIPE_V>(); Add(w, v, v, 64);", ""),
        ("Add(w, v, v, 64);", "nothing wrote"),
        ("Duplicate(v, 1.0f, 64); Add(w, v, v, 64);", "barrier of the vector pipe"),
        ("v.SetValue(0, 1.0f); Muls(w, v, 2.0f, 1);", "does not wait"),
        ("Duplicate(v, 1.0f, 64); PipeBarrier<PIPE_V>(); v.GetValue(0);", "does not wait"),
        (
            "Duplicate(v, 1.0f, 64); PipeBarrier<PIPE_ALL>(); Muls(w, v, 2.0f, 64); v.SetValue(0, 1.0f);",
            "may still read",
        ),
        ("Duplicate(v, 1.0f, 64); PipeBarrier<PIPE_V>(); Muls(w, v[1], 2.0f, 8);", "aligned to 32"),
        ("Duplicate(v, 1.0f, 65);", "past a tensor's end"),
        (
            "Duplicate(v, 1.0f, 64); PipeBarrier<PIPE_V>(); Muls(v[8], v, 2.0f, 16);",
            "operands that overlap",
        ),
        ("TBuf<TPosition::VECCALC> more; pipe.InitBuffer(more, 200 << 10);", "unified buffer"),
        ("TBuf<TPosition::VECCALC> more; pipe.InitBuffer(more, 33);", "multiple of 32"),
        ("auto t = in.AllocTensor<float>(); in.AllocTensor<float>();", "all in use"),
        ("auto t = in.AllocTensor<float>(); DataCopyPad(t, x, how, pad);", "not given back"),
        (
            "auto t = in.AllocTensor<float>(); DataCopyPad(t, x, how, pad); Muls(v, t, 1.0f, 64);",
            "out of its turn",
        ),
        (
            "auto t = in.AllocTensor<float>(); DataCopyPad(t, x, how, pad); in.EnQue(t); \
             t = in.DeQue<float>(); Muls(v, t, 1.0f, 64); in.FreeTensor(t);",
            "",
        ),
        ("in.DeQue<float>();", "empty queue"),
        ("x.SetGlobalBuffer((float *)b, 64); x.GetValue(0);", "nothing wrote byte 0"),
        ("x.SetGlobalBuffer((float *)(a + 256), 1); x.GetValue(0);", "are in no memory"),
        ("x.SetGlobalBuffer((float *)(a + 2), 1);", "aligned to its elements"),
        ("x.GetValue(64);", "past a global tensor's end"),
        ("Compare(m, v, w, CMPMODE::LT, 32);", "whole repeats"),
    ];

    #[test]
    fn planted_faults_are_found() {
        if let Err(why) = crate::compiler() {
            println!("ignored: planted_faults_are_found ({why})");
            return;
        }
        let mut code = String::from("#include \"kernel_operator.h\"\nusing namespace AscendC;\n");
        for (i, (body, _)) in PLANTED.iter().enumerate() {
            let _ = writeln!(
                code,
                "extern \"C\" __global__ __vector__ void k{i}(GM_ADDR a, GM_ADDR b, int64_t) {{\n\
                 TPipe pipe; TQue<TPosition::VECIN, 1> in; TBuf<TPosition::VECCALC> r;\n\
                 pipe.InitBuffer(in, 1, 256); pipe.InitBuffer(r, 1024);\n\
                 LocalTensor<float> v = r.GetWithOffset<float>(64, 0);\n\
                 LocalTensor<float> w = r.GetWithOffset<float>(64, 256);\n\
                 LocalTensor<uint8_t> m = r.GetWithOffset<uint8_t>(32, 512);\n\
                 GlobalTensor<float> x; x.SetGlobalBuffer((float *)a, 64);\n\
                 DataCopyExtParams how{{1, 256, 0, 0, 0}};\n\
                 DataCopyPadExtParams<float> pad{{false, 0, 0, 0}};\n{body}\n}}"
            );
        }
        let (device, module) = (Device::default(), Module::new(code.as_bytes()).expect("compiles"));
        let (a, b) = (device.reserve(256).expect("memory"), device.reserve(256).expect("memory"));
        device.write(a, &[0; 256]).expect("writes");
        for (i, (body, want)) in PLANTED.iter().enumerate() {
            let kernel = module.kernel(&format!("k{i}")).expect("a kernel");
            let done = kernel.run(&device, 1, &[a, b, 1]);
            let said = done.err().map_or(String::new(), |e| e.what);
            match want.is_empty() {
                true => assert_eq!(said, "", "{body}"),
                false => assert!(said.contains(want), "{body}\n{said}, not {want}"),
            }
        }
    }
}
