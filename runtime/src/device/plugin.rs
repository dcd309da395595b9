//! Drivers that are shared libraries behind the C table ([`hub_abi::device`]).

use super::{Driver, Kernels, Queue};
use crate::error::Error;
use hub_abi::device::{self as abi, Api, GetApi};
use hub_abi::plan::{Arg, Plan, Step, each_kernel};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders and files, separated as in `PATH`, in which drivers are looked for first.
pub const PATHS: &str = "HUB_DEVICES";

/// A driver's table, checked; the library stays loaded until the process ends.
#[derive(Clone, Copy)]
struct Table {
    api: Api,
}

/// A device of a driver.
pub struct PluginDevice {
    device: Arc<Opened>,
    tiers: Vec<String>,
}

struct Opened {
    table: Table,
    device: *mut abi::Device,
}

// SAFETY: a device may be used by several threads at once, by the interface.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(close) = self.table.api.close {
            // SAFETY: it was opened by this table, and everything made of it is gone.
            unsafe { close(self.device) }
        }
    }
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::Unsupported(what.into())
}

impl Table {
    /// Loads a driver.
    fn load(path: &Path) -> Result<Table, Error> {
        let what = path.display();
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|e| Error::Usage(e.to_string()));
        let name = text(path.as_os_str().as_encoded_bytes())?;
        // SAFETY: a library that the user or the installation put there; its initialisers run. It is
        // never unloaded.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            // SAFETY: the text of the failure just now, if there is one.
            let why = unsafe {
                let said = libc::dlerror();
                if said.is_null() { String::new() } else { string(CStr::from_ptr(said)) }
            };
            return Err(unsupported(format!("the driver {what} cannot be loaded: {why}")));
        }
        let entry = text(abi::ENTRY.as_bytes())?;
        // SAFETY: an open library and a C string.
        let entry = unsafe { libc::dlsym(library, entry.as_ptr()) };
        if entry.is_null() {
            return Err(unsupported(format!("{what} is no device driver: no {}", abi::ENTRY)));
        }
        // SAFETY: the function of that name has this type, by the interface.
        let entry = unsafe { std::mem::transmute::<*mut c_void, GetApi>(entry) };
        let mut api = std::ptr::null();
        // SAFETY: as above.
        let status = unsafe { entry(abi::MAJOR, &mut api) };
        if status != 0 || api.is_null() {
            let what = format!("the driver {what} has no interface of version {}", abi::MAJOR);
            return Err(unsupported(what));
        }
        // SAFETY: the table lives as long as the library, that is for ever.
        unsafe { Table::of(api) }.map_err(|why| unsupported(format!("the driver {what}: {why}")))
    }

    /// A copy of a table of any minor version: what it has not is `None`.
    ///
    /// # Safety
    /// `api` points to as many bytes as the field `struct_size` that they begin with says.
    unsafe fn of(api: *const Api) -> Result<Table, String> {
        let mut mine = std::mem::MaybeUninit::<Api>::zeroed();
        // SAFETY: by the caller's promise; zero is a value of every field (no function, empty text).
        let api = unsafe {
            let have = (*api.cast::<usize>()).min(size_of::<Api>());
            std::ptr::copy_nonoverlapping(api.cast::<u8>(), mine.as_mut_ptr().cast(), have);
            mine.assume_init()
        };
        if api.major != abi::MAJOR {
            return Err(format!("its table is of version {}.{}", api.major, api.minor));
        }
        let all = api.count.is_some()
            && api.open.is_some()
            && api.memory_new.is_some()
            && api.queue_new.is_some()
            && api.write.is_some()
            && api.read.is_some();
        let kernels = api.module_new.is_some() && api.kernel_new.is_some() && api.launch.is_some();
        match all && kernels && api.caps & abi::KERNELS != 0 {
            true => Ok(Table { api }),
            false => Err("it cannot run kernels".into()),
        }
    }

    /// The result of a call that gave a status.
    fn check(&self, status: i32, doing: &str) -> Result<(), Error> {
        let what = || {
            let mut room = [0u8; 4096];
            if let Some(f) = self.api.last_error {
                // SAFETY: the room has that many bytes.
                unsafe { f(room.as_mut_ptr().cast::<c_char>(), room.len()) };
            }
            format!("{doing}: {}", abi::said(&room))
        };
        match status {
            0 => Ok(()),
            3 => Err(unsupported(what())),
            4 => Err(unsupported(format!("the device refuses the bundle's code: {}", what()))),
            9 => Err(Error::Limit(what())),
            8 => Err(Error::Device(what())),
            _ => Err(Error::Internal(what())),
        }
    }
}

fn string(s: &CStr) -> String {
    s.to_string_lossy().into_owned()
}

/// Calls a function of the table that loading found to be there.
macro_rules! call {
    ($table:expr, $doing:expr, $f:ident($($arg:expr),*)) => {
        match $table.api.$f {
            // SAFETY: objects are those that this table made; other pointers are to memory of this
            // function, of as many bytes as said.
            Some(f) => { let status = unsafe { f($($arg),*) }; $table.check(status, $doing) }
            None => Err(Error::Internal(concat!("no ", stringify!($f), " in the table").into())),
        }
    };
}

impl PluginDevice {
    /// The device that `name` names: `opencl`, or `opencl:1`.
    pub fn open(name: &str) -> Result<PluginDevice, Error> {
        let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
        let plain = kind.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let index = index.parse::<u32>().ok().filter(|_| plain && !kind.is_empty());
        let index = index.ok_or_else(|| {
            Error::Usage(format!(
                "'{name}' is no device: cpu, or a driver's name and a number, as opencl:0"
            ))
        })?;
        let file = format!("libhub_{kind}.so");
        let places = places(&file);
        let Some(path) = places.iter().find(|p| p.is_file()) else {
            let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            let what = format!("no driver for device '{name}': looked for {}", looked.join(", "));
            return Err(unsupported(format!("{what}; {PATHS} may name folders that hold it")));
        };
        let table = Table::load(path)?;
        let mut n = 0;
        call!(table, "counting devices", count(&mut n))?;
        if index >= n {
            let what = format!("no device '{name}': its driver finds {n} device(s)");
            return Err(unsupported(what));
        }
        let mut device = std::ptr::null_mut();
        call!(table, "opening the device", open(index, &mut device))?;
        let tiers = abi::said(&table.api.tiers);
        let tiers = tiers.split(',').filter(|t| !t.is_empty()).map(String::from).collect();
        Ok(PluginDevice { device: Arc::new(Opened { table, device }), tiers })
    }
}

/// Where a driver's file may lie: where the environment says, beside the program, beside this library.
fn places(file: &str) -> Vec<PathBuf> {
    let mut out = vec![];
    if let Some(named) = std::env::var_os(PATHS) {
        for p in std::env::split_paths(&named) {
            let is_it = p.file_name().is_some_and(|n| n == file);
            out.push(if is_it { p } else { p.join(file) });
        }
    }
    let beside = |p: &Path| p.parent().map(|dir| dir.join(file));
    out.extend(std::env::current_exe().ok().as_deref().and_then(beside));
    out.extend(own_path().as_deref().and_then(beside));
    out.dedup();
    out
}

/// The file that this code was loaded from.
fn own_path() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: an address of this code; the texts that it finds live as long as it is loaded.
    unsafe {
        if libc::dladdr(own_path as *const c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        let bytes = (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
}

impl Driver for PluginDevice {
    fn tiers(&self) -> Vec<String> {
        self.tiers.clone()
    }

    fn load(&self, code: &[u8], plan: &Plan) -> Result<Arc<dyn Kernels>, Error> {
        let table = self.device.table;
        let tier = CString::new(plan.tier.as_str()).map_err(Error::plan)?;
        let mut module = std::ptr::null_mut();
        let (at, len) = (code.as_ptr().cast(), code.len());
        call!(
            table,
            "making the bundle's code ready",
            module_new(self.device.device, tier.as_ptr(), at, len, &mut module)
        )?;
        let mut made = Module { device: self.device.clone(), module, kernels: vec![] };
        for (k, kinds) in plan.kernels.iter().zip(kinds(plan)) {
            let name = CString::new(k.name.as_str()).map_err(Error::plan)?;
            let mut kernel = std::ptr::null_mut();
            let (name, kinds, n) = (name.as_ptr(), kinds.as_ptr(), kinds.len());
            call!(table, &k.name, kernel_new(module, name, kinds, n, &mut kernel))?;
            made.kernels.push(kernel);
        }
        Ok(Arc::new(Loaded { module: Arc::new(made) }))
    }
}

/// What the arguments of each kernel are, by the steps that call it; none where no step does.
fn kinds(plan: &Plan) -> Vec<Vec<u8>> {
    let mut out = vec![vec![]; plan.kernels.len()];
    each_kernel(&plan.steps, 0, &mut |_, s| {
        let Step::Kernel { kernel, args, .. } = s else { return };
        let kind = |a: &Arg| if matches!(a, Arg::Size(_)) { abi::SIZE } else { abi::ADDRESS };
        out[*kernel as usize] = args.iter().map(kind).collect();
    });
    out
}

struct Module {
    device: Arc<Opened>,
    module: *mut abi::Module,
    kernels: Vec<*mut abi::Kernel>,
}

// SAFETY: modules and kernels may be used by several threads at once, by the interface.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if let Some(free) = self.device.table.api.module_free {
            // SAFETY: made by this table; no queue uses it any more.
            unsafe { free(self.module) }
        }
    }
}

struct Loaded {
    module: Arc<Module>,
}

impl Kernels for Loaded {
    fn queue(&self) -> Result<Box<dyn Queue>, Error> {
        let device = &self.module.device;
        let mut queue = std::ptr::null_mut();
        call!(device.table, "making a queue", queue_new(device.device, &mut queue))?;
        Ok(Box::new(Line { module: self.module.clone(), queue }))
    }

    fn apart(&self) -> bool {
        true
    }

    fn reserve(&self, bytes: u64) -> Result<u64, Error> {
        let (device, mut at) = (&self.module.device, 0);
        call!(device.table, "reserving memory", memory_new(device.device, bytes, &mut at))?;
        Ok(at)
    }

    fn release(&self, address: u64) {
        let device = &self.module.device;
        if let Some(free) = device.table.api.memory_free {
            // SAFETY: reserved from this device, and given back once.
            unsafe { free(device.device, address) }
        }
    }
}

/// A queue.
struct Line {
    module: Arc<Module>,
    queue: *mut abi::Queue,
}

// SAFETY: a queue is used by one thread at a time, whichever.
unsafe impl Send for Line {}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(free) = self.module.device.table.api.queue_free {
            // SAFETY: made by this table, given back once.
            unsafe { free(self.queue) }
        }
    }
}

impl Queue for Line {
    unsafe fn launch(&self, kernel: u32, args: &[u64], tiles: u64) -> Result<(), Error> {
        let k = self.module.kernels[kernel as usize].cast_const();
        let table = self.module.device.table;
        call!(table, "launching a kernel", launch(self.queue, k, tiles, args.as_ptr()))
    }

    fn write(&self, to: u64, from: &[u8]) -> Result<(), Error> {
        let (at, n) = (from.as_ptr().cast(), from.len() as u64);
        call!(self.module.device.table, "writing to the device", write(self.queue, to, at, n))
    }

    fn read(&self, to: &mut [u8], from: u64) -> Result<(), Error> {
        let (at, n) = (to.as_mut_ptr().cast(), to.len() as u64);
        call!(self.module.device.table, "reading from the device", read(self.queue, at, from, n))
    }
}
