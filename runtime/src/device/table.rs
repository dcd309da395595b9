//! A driver's library and its table: found, loaded, checked.

use crate::error::Error;
use hub_abi::device::{self as abi, Api, GetApi};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};

/// Folders and files, separated as in `PATH`, in which drivers are looked for first.
pub const PATHS: &str = "HUB_DEVICES";

/// A driver's table, checked; the library stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) api: Api,
}

pub(super) fn unsupported(what: impl Into<String>) -> Error {
    Error::Unsupported(what.into())
}

/// The function of a library that gives tables.
fn entry(path: &Path) -> Result<GetApi, Error> {
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
    Ok(unsafe { std::mem::transmute::<*mut c_void, GetApi>(entry) })
}

/// The status with which a driver answers a version of the table that there is not.
pub(super) fn foreign_version(path: &Path) -> Result<i32, Error> {
    let (entry, mut api) = (entry(path)?, std::ptr::null());
    // SAFETY: the function's type is this, by the interface.
    Ok(unsafe { entry(4000, &mut api) })
}

impl Table {
    /// Loads the driver of that name; where there is none, the places that it was looked for in.
    pub(super) fn find(driver: &str) -> Result<Result<Table, Error>, Vec<PathBuf>> {
        let places = places(&format!("libhub_{driver}.so"));
        match places.iter().find(|p| p.is_file()) {
            Some(path) => Ok(Table::load(path)),
            None => Err(places),
        }
    }

    /// Loads a driver.
    pub(super) fn load(path: &Path) -> Result<Table, Error> {
        let (entry, what, mut api) = (entry(path)?, path.display(), std::ptr::null());
        // SAFETY: the function's type is this, by the interface.
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
        let ops = api.op_new.is_some() && api.op_run.is_some();
        if api.caps & abi::OPS != 0 && !ops {
            return Err("it lacks functions of operators".into());
        }
        let graphs = api.record.is_some() && api.recorded.is_some() && api.replay.is_some();
        if api.caps & abi::GRAPHS != 0 && !graphs {
            return Err("it lacks functions of graphs".into());
        }
        match all && kernels && api.caps & abi::KERNELS != 0 {
            true => Ok(Table { api }),
            false => Err("it cannot run kernels".into()),
        }
    }

    /// The result of a call that gave a status.
    pub(super) fn check(&self, status: i32, doing: &str) -> Result<(), Error> {
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
pub(super) use call;

impl Table {
    /// Number of devices.
    pub(super) fn count(&self) -> Result<u32, Error> {
        let mut n = 0;
        call!(self, "counting devices", count(&mut n))?;
        Ok(n)
    }

    /// Opens a device.
    pub(super) fn open(&self, index: u32) -> Result<*mut abi::Device, Error> {
        let mut device = std::ptr::null_mut();
        call!(self, "opening the device", open(index, &mut device))?;
        Ok(device)
    }

    /// Tiers whose code the driver runs.
    pub(super) fn tiers(&self) -> Vec<String> {
        let tiers = abi::said(&self.api.tiers);
        tiers.split(',').filter(|t| !t.is_empty()).map(String::from).collect()
    }

    /// Capabilities.
    pub(super) fn caps(&self) -> u64 {
        self.api.caps
    }

    /// Name, version, tiers and capabilities, for people.
    pub(super) fn said(&self) -> String {
        let a = &self.api;
        let (name, tiers) = (abi::said(&a.name), self.tiers().join(", "));
        format!("{name}, table {}.{}, runs {tiers}, capabilities {:#x}", a.major, a.minor, a.caps)
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
