//! PTX, compiled by the GPU's driver, which caches what it compiles.

use crate::device::Device;
use crate::text::{self, Shape};
use crate::{Said, status};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as Jit};
use hub_plugin::{Failure, Got, REFUSED};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Bytes of the compiler's log that are kept.
const LOG: usize = 8 << 10;

/// Bytes of shared memory that a block has without asking.
const FREE: u32 = 48 << 10;

/// Code made ready.
pub struct Module {
    device: Arc<Device>,
    /// Null where the text has no kernels.
    module: sys::CUmodule,
    shapes: HashMap<String, Shape>,
}

impl Drop for Module {
    fn drop(&mut self) {
        if !self.module.is_null() && self.device.here().is_ok() {
            // SAFETY: loaded once; no queue uses it any more, by the interface.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// A kernel.
pub struct Kernel {
    /// CUDA's handle; it lives as long as the module.
    pub function: sys::CUfunction,
    /// How it is launched.
    pub shape: Shape,
    /// For messages.
    pub name: String,
}

impl Module {
    /// Compiles PTX.
    pub fn new(device: &Arc<Device>, code: &[u8]) -> Got<Module> {
        let refused = |e: &dyn std::fmt::Display| Failure::new(REFUSED, format!("no PTX: {e}"));
        let text = std::str::from_utf8(code).map_err(|e| refused(&e))?;
        let shapes = text::kernels(text).into_iter().map(|(n, s)| (n.to_string(), s)).collect();
        let mut made = Module { device: device.clone(), module: std::ptr::null_mut(), shapes };
        // A program without kernels is none for CUDA's compiler.
        if !text.trim().is_empty() {
            made.module = load(device, &CString::new(text).map_err(|e| refused(&e))?)?;
        }
        Ok(made)
    }

    /// A kernel by name, which takes so many arguments.
    pub fn kernel(&self, name: &str, args: usize) -> Got<Kernel> {
        let missing = || Failure::new(REFUSED, format!("the module has no kernel {name}"));
        let shape = *self.shapes.get(name).ok_or_else(missing)?;
        // (Where no step calls a kernel, its arguments are not known.)
        if args > 0 && args * 8 != shape.args {
            let what = format!("kernel {name} takes {} bytes, not {args} arguments", shape.args);
            return Err(Failure::new(REFUSED, what));
        }
        self.device.here()?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: a loaded module.
        let function = unsafe { result::module::get_function(self.module, c_name) };
        let function = function.said(&format!("cuModuleGetFunction of {name}"))?;
        if shape.shared > FREE {
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a kernel of a loaded module.
            let done = unsafe { sys::cuFuncSetAttribute(function, which, shape.shared as i32) };
            done.said(&format!("{} bytes of shared memory for kernel {name}", shape.shared))?;
        }
        Ok(Kernel { function, shape, name: name.into() })
    }
}

/// Loads PTX; what its compiler says is in the failure's text.
fn load(device: &Device, text: &CString) -> Got<sys::CUmodule> {
    device.here()?;
    let mut log = vec![0u8; LOG];
    let mut module = std::ptr::null_mut();
    let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // An option's value is what would be an argument, in a pointer's place.
    let mut values: [*mut c_void; 2] =
        [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG)];
    // SAFETY: the text ends with a NUL; there are two options, whose values are a buffer of this
    // function and its size.
    let done = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let Err(e) = done.result() else { return Ok(module) };
    let end = log.iter().position(|b| *b == 0).unwrap_or(LOG);
    let said = String::from_utf8_lossy(&log[..end]);
    Err(Failure::new(status(e.0), format!("compiling PTX: {}\n{}", crate::text(e), said.trim())))
}
