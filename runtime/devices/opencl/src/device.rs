//! Devices, their memory, queues and kernels.
//!
//! Invariant: buffers lie at addresses that a device makes up, each starting at a multiple of [`APART`]
//! past the end of the one before, so that no offset within one reaches another.

use crate::Said;
use hub_abi::device::{self as abi, ADDRESS};
use hub_plugin::{
    self as plugin, Absent, DEVICE, Failure, Got, INTERNAL, LIMIT, REFUSED, UNSUPPORTED,
};
use opencl3::command_queue::CommandQueue;
use opencl3::context::Context;
use opencl3::device::{
    CL_DEVICE_TYPE_ALL, CL_DEVICE_TYPE_CPU, CL_DEVICE_TYPE_GPU, Device as Id, get_all_devices,
};
use opencl3::kernel::Kernel as Function;
use opencl3::memory::{Buffer, CL_MEM_READ_WRITE, ClMem};
use opencl3::program::Program;
use opencl3::types::{CL_BLOCKING, cl_mem, cl_ulong};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Work-items of a tile, as kernels say themselves.
const ITEMS: usize = 32;
/// Addresses of buffers are multiples of this.
const APART: u64 = 1 << 32;

/// Devices of all platforms; none where there is no OpenCL.
pub fn all() -> Got<Vec<Id>> {
    match get_all_devices(CL_DEVICE_TYPE_ALL) {
        Ok(ids) => Ok(ids.into_iter().map(Id::new).collect()),
        // CL_DEVICE_NOT_FOUND, CL_PLATFORM_NOT_FOUND_KHR; a library that cannot be loaded is another.
        Err(e) if matches!(e.0, -1 | -1001) => Ok(vec![]),
        Err(e) => {
            Err(Failure::new(UNSUPPORTED, format!("no OpenCL library could be loaded ({e})")))
        }
    }
}

struct Memory {
    buffer: Buffer<u8>,
    len: u64,
}

struct Space {
    memories: BTreeMap<u64, Memory>,
    next: u64,
}

/// An opened device.
pub struct Device {
    id: Id,
    context: Context,
    space: RwLock<Space>,
}

impl Device {
    /// Device number `index` of [`all`].
    pub fn open(index: u32) -> Got<Device> {
        let devices = all()?;
        let n = devices.len();
        let id = devices.into_iter().nth(index as usize);
        let missing =
            || Failure::new(UNSUPPORTED, format!("no OpenCL device {index}: there are {n}"));
        let id = id.ok_or_else(missing)?;
        if !id.endian_little().said()? {
            return Err(Failure::new(UNSUPPORTED, "a big-endian OpenCL device"));
        }
        let context = Context::from_device(&id).said()?;
        let space = Space { memories: BTreeMap::new(), next: APART };
        Ok(Device { id, context, space: RwLock::new(space) })
    }

    /// Runs `f` on the buffer that holds `bytes` bytes from an address, and the offset there.
    fn at<T>(
        &self,
        address: u64,
        bytes: u64,
        f: impl FnOnce(&mut Buffer<u8>, u64) -> Got<T>,
    ) -> Got<T> {
        let mut space = self.space.write().unwrap_or_else(PoisonError::into_inner);
        let found = space.memories.range_mut(..=address).next_back();
        match found {
            Some((base, m)) if address - base + bytes <= m.len => f(&mut m.buffer, address - base),
            _ => {
                let what = format!("{bytes} bytes at address {address:#x} are in no memory");
                Err(Failure::new(INTERNAL, what))
            }
        }
    }
}

/// A queue of a device.
pub struct Queue {
    device: Arc<Device>,
    queue: CommandQueue,
}

impl plugin::Device for Device {
    type Queue = Queue;
    type Module = Program;
    type Kernel = Kernel;
    type Graph = Absent;
    type Operator = Absent;

    fn describe(&self) -> Got<String> {
        Ok(format!("{}, {}", self.id.name().said()?, self.id.version().said()?))
    }

    fn kind(&self) -> Got<u32> {
        let kind = self.id.dev_type().said()?;
        let is = |of| kind & of != 0;
        Ok(match (is(CL_DEVICE_TYPE_CPU), is(CL_DEVICE_TYPE_GPU)) {
            (true, _) => abi::HOST,
            (_, true) => abi::GPU,
            _ => abi::ACCELERATOR,
        })
    }

    fn reserve(&self, bytes: u64) -> Got<u64> {
        let most = self.id.max_mem_alloc_size().said()?;
        if bytes > most {
            let what = format!("{bytes} bytes in one buffer, this device has at most {most}");
            return Err(Failure::new(LIMIT, what));
        }
        let size = usize::try_from(bytes.max(1)).map_err(|e| Failure::new(LIMIT, e.to_string()))?;
        // SAFETY: without a host pointer there is nothing to be valid.
        let buffer = unsafe {
            Buffer::create(&self.context, CL_MEM_READ_WRITE, size, std::ptr::null_mut()).said()?
        };
        let mut space = self.space.write().unwrap_or_else(PoisonError::into_inner);
        let at = space.next;
        space.next = (at + bytes + 1).next_multiple_of(APART);
        space.memories.insert(at, Memory { buffer, len: bytes });
        Ok(at)
    }

    fn release(&self, address: u64) {
        self.space.write().unwrap_or_else(PoisonError::into_inner).memories.remove(&address);
    }

    fn queue(self: &Arc<Device>) -> Got<Queue> {
        // SAFETY: the context and the device are one another's.
        let queue = unsafe { CommandQueue::create(&self.context, self.id.id(), 0).said()? };
        Ok(Queue { device: self.clone(), queue })
    }

    fn write(queue: &Queue, to: u64, from: &[u8]) -> Got<()> {
        if from.is_empty() {
            return Ok(());
        }
        queue.device.at(to, from.len() as u64, |buffer, offset| {
            let (q, offset) = (&queue.queue, offset as usize);
            // SAFETY: `from` is read before the blocking call returns.
            unsafe { q.enqueue_write_buffer(buffer, CL_BLOCKING, offset, from, &[]).said()? };
            Ok(())
        })
    }

    fn read(queue: &Queue, to: &mut [u8], from: u64) -> Got<()> {
        if to.is_empty() {
            return Ok(());
        }
        queue.device.at(from, to.len() as u64, |buffer, offset| {
            let (q, offset) = (&queue.queue, offset as usize);
            // SAFETY: `to` is written before the blocking call returns.
            unsafe { q.enqueue_read_buffer(buffer, CL_BLOCKING, offset, to, &[]).said()? };
            Ok(())
        })
    }

    fn wait(queue: &Queue) -> Got<()> {
        queue.queue.finish().said()
    }

    fn module(self: &Arc<Device>, _tier: &str, code: &[u8]) -> Got<Program> {
        let code = std::str::from_utf8(code).map_err(|e| Failure::new(REFUSED, e.to_string()))?;
        let exact = self.id.single_fp_config().said()? & CORRECT_DIVISION != 0;
        let options = if exact {
            "-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt"
        } else {
            "-cl-std=CL1.2"
        };
        let program = Program::create_and_build_from_source(&self.context, code, options);
        let refused =
            |e| Failure::new(REFUSED, format!("the device's compiler refuses the code: {e}"));
        program.map_err(refused)
    }

    fn kernel(program: &Program, name: &str, kinds: &[u8]) -> Got<Kernel> {
        let function = Function::create(program, name).said()?;
        Ok(Kernel { function: Mutex::new(function), kinds: kinds.to_vec() })
    }

    unsafe fn launch(queue: &Queue, kernel: &Arc<Kernel>, tiles: u64, args: &[u64]) -> Got<()> {
        // SAFETY: by the caller's promise.
        unsafe { kernel.launch(queue, tiles, args) }
    }
}

/// CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT
const CORRECT_DIVISION: cl_ulong = 1 << 7;

/// A kernel and what its arguments are.
pub struct Kernel {
    /// Arguments belong to the kernel object: one launch at a time sets them.
    function: Mutex<Function>,
    kinds: Vec<u8>,
}

impl Kernel {
    /// Runs tiles.
    ///
    /// # Safety
    /// The arguments are as the kernel takes them: it stays within the memory that they lead to.
    unsafe fn launch(&self, queue: &Queue, tiles: u64, args: &[u64]) -> Got<()> {
        let function = self.function.lock().unwrap_or_else(PoisonError::into_inner);
        let mut n = 0;
        for (kind, arg) in self.kinds.iter().zip(args) {
            if *kind == ADDRESS {
                let (mem, offset) = queue.device.at(*arg, 0, |b, at| Ok((b.get(), at)))?;
                // SAFETY: a buffer and an offset, as kernels are declared; the buffer lives as long as
                // what was put into queues, by OpenCL's own count.
                unsafe {
                    function.set_arg::<cl_mem>(n, &mem).said()?;
                    function.set_arg::<cl_ulong>(n + 1, &offset).said()?;
                }
                n += 2;
            } else {
                // SAFETY: a number of 8 bytes, as kernels are declared.
                unsafe { function.set_arg::<u64>(n, arg).said()? };
                n += 1;
            }
        }
        let items = usize::try_from(tiles).ok().and_then(|t| t.checked_mul(ITEMS));
        let items = items.ok_or_else(|| Failure::new(DEVICE, format!("{tiles} tiles")))?;
        // SAFETY: arguments are set; what the kernel does is the caller's promise.
        unsafe {
            queue
                .queue
                .enqueue_nd_range_kernel(
                    cl_kernel(&function),
                    1,
                    std::ptr::null(),
                    [items].as_ptr(),
                    [ITEMS].as_ptr(),
                    &[],
                )
                .said()?
        };
        Ok(())
    }
}

fn cl_kernel(f: &Function) -> *mut c_void {
    f.get()
}
