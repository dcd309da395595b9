//! Drivers that are shared libraries behind the C table ([`hub_abi::device`]).

use super::table::{PATHS, Table, call, unsupported};
use super::{Driver, Kernels, Queue, Recording};
use crate::error::Error;
use hub_abi::device as abi;
use hub_abi::operator::{MARK, Operator};
use hub_abi::plan::{Arg, KernelInfo, Plan, Step, each_kernel};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

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

impl PluginDevice {
    /// The device that `name` names: `opencl`, or `opencl:1`.
    pub fn open(name: &str) -> Result<PluginDevice, Error> {
        let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
        let plain = kind.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let index = index.parse::<u32>().ok().filter(|_| plain && !kind.is_empty());
        let index = index.ok_or_else(|| {
            Error::Usage(format!(
                "'{name}' is no device: cpu, best, or a driver's name and a number, as opencl:0"
            ))
        })?;
        let table = Table::find(kind).map_err(|places| {
            let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            let what = format!("no driver for device '{name}': looked for {}", looked.join(", "));
            unsupported(format!("{what}; {PATHS} may name folders that hold it"))
        })??;
        let n = table.count()?;
        if index >= n {
            let what = format!("no device '{name}': its driver finds {n} device(s)");
            return Err(unsupported(what));
        }
        PluginDevice::of(table, index)
    }

    /// A device of the driver in a library.
    pub(super) fn at(library: &Path, index: u32) -> Result<PluginDevice, Error> {
        PluginDevice::of(Table::load(library)?, index)
    }

    /// A device of a driver.
    pub(super) fn of(table: Table, index: u32) -> Result<PluginDevice, Error> {
        let device = Opened { table, device: table.open(index)? };
        Ok(PluginDevice { device: Arc::new(device), tiers: table.tiers() })
    }

    /// What it is, by the interface's numbers.
    pub(super) fn kind(&self) -> Result<u32, Error> {
        let (table, mut kind) = (self.device.table, abi::ACCELERATOR);
        if table.api.kind.is_some() {
            call!(table, "asking what it is", kind(self.device.device, &mut kind))?;
        }
        Ok(kind)
    }

    /// The device's name and version.
    pub(super) fn describe(&self) -> Result<String, String> {
        let (mut room, device) = ([0u8; 256], &self.device);
        let at = room.as_mut_ptr().cast::<c_char>();
        let done = call!(device.table, "describing it", describe(device.device, at, room.len()));
        done.map(|()| abi::said(&room)).map_err(|e| e.to_string())
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
            if let Some(op) = operator(code, k)? {
                if table.api.caps & abi::OPS == 0 {
                    let what = format!("operator {}: the driver has none", op.name);
                    return Err(unsupported(what));
                }
                made.kernels.push(Callee::Operator(op));
                continue;
            }
            let name = CString::new(k.name.as_str()).map_err(Error::plan)?;
            let mut kernel = std::ptr::null_mut();
            let (name, kinds, n) = (name.as_ptr(), kinds.as_ptr(), kinds.len());
            call!(table, &k.name, kernel_new(module, name, kinds, n, &mut kernel))?;
            made.kernels.push(Callee::Kernel(kernel));
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

/// The operator that a kernel's code names, if it is such a record.
fn operator(code: &[u8], k: &KernelInfo) -> Result<Option<Operator>, Error> {
    let range = usize::try_from(k.offset).ok().zip(usize::try_from(k.len).ok());
    let text = range.and_then(|(at, len)| code.get(at..)?.get(..len));
    let Some(text) = text.filter(|t| t.starts_with(MARK.as_bytes())) else { return Ok(None) };
    let read = std::str::from_utf8(text).ok().and_then(Operator::parse);
    read.map(Some).ok_or_else(|| Error::plan(format!("{} is no record of an operator", k.name)))
}

/// What a step calls.
enum Callee {
    Kernel(*mut abi::Kernel),
    Operator(Operator),
}

struct Module {
    device: Arc<Opened>,
    module: *mut abi::Module,
    kernels: Vec<Callee>,
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
        let ready = RefCell::new(Ready::default());
        Ok(Box::new(Line { module: self.module.clone(), queue, ready }))
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

/// An operator, and the sizes that it is ready for.
type Prepared = (Box<[u64]>, *mut abi::Operator);

/// Operators made ready, and the workspace that the most demanding of them needs.
#[derive(Default)]
struct Ready {
    /// By kernel.
    ops: HashMap<u32, Vec<Prepared>>,
    workspace: (u64, u64),
}

/// A queue.
struct Line {
    module: Arc<Module>,
    queue: *mut abi::Queue,
    ready: RefCell<Ready>,
}

// SAFETY: a queue is used by one thread at a time, whichever; so are the operators made for it.
unsafe impl Send for Line {}

impl Drop for Line {
    fn drop(&mut self) {
        let device = &self.module.device;
        if let Some(free) = device.table.api.queue_free {
            // SAFETY: made by this table, given back once.
            unsafe { free(self.queue) }
        }
        let ready = self.ready.get_mut();
        if let Some(free) = device.table.api.op_free {
            for (_, op) in ready.ops.values().flatten() {
                // SAFETY: as above; the queue that used it is gone.
                unsafe { free(*op) }
            }
        }
        if let (Some(free), (at, 1..)) = (device.table.api.memory_free, ready.workspace) {
            // SAFETY: as above.
            unsafe { free(device.device, at) }
        }
    }
}

impl Line {
    /// An operator made ready for these sizes, if it is there.
    fn found(&self, kernel: u32, sizes: &[u64]) -> Option<*mut abi::Operator> {
        let ready = self.ready.borrow();
        let known = ready.ops.get(&kernel)?.iter().find(|(of, _)| **of == *sizes);
        known.map(|(_, op)| *op)
    }

    /// Makes an operator ready, and room for its workspace.
    fn make(&self, kernel: u32, op: &Operator, sizes: &[u64]) -> Result<(), Error> {
        let device = &self.module.device;
        let table = device.table;
        let tensors = op.bound(sizes).ok_or_else(|| Error::plan("an operator of few sizes"))?;
        let text = |s: &str| CString::new(s).map_err(Error::plan);
        let (name, attributes) = (text(&op.name)?, text(&op.attributes)?);
        let (ins, outs) = tensors.split_at(op.inputs.len());
        let (mut need, mut made) = (0, std::ptr::null_mut());
        call!(
            table,
            &format!("preparing operator {}", op.name),
            op_new(
                device.device,
                name.as_ptr(),
                attributes.as_ptr(),
                ins.as_ptr(),
                ins.len(),
                outs.as_ptr(),
                outs.len(),
                &mut need,
                &mut made
            )
        )?;
        let mut ready = self.ready.borrow_mut();
        ready.ops.entry(kernel).or_default().push((sizes.into(), made));
        if need > ready.workspace.1 {
            let (old, len) = std::mem::take(&mut ready.workspace);
            if let Some(free) = table.api.memory_free.filter(|_| len > 0) {
                // What was put into the queue may still use it.
                if table.api.wait.is_some() {
                    call!(table, "waiting for the device", wait(self.queue))?;
                }
                // SAFETY: reserved below, given back once.
                unsafe { free(device.device, old) }
            }
            let mut at = 0;
            call!(table, "reserving workspace", memory_new(device.device, need, &mut at))?;
            ready.workspace = (at, need);
        }
        Ok(())
    }
}

impl Queue for Line {
    fn prepare(&self, kernel: u32, args: &[u64]) -> Result<(), Error> {
        let Callee::Operator(op) = &self.module.kernels[kernel as usize] else { return Ok(()) };
        let (words, addresses) = op.words();
        let sizes = args.get(addresses..words);
        let sizes = sizes.ok_or_else(|| Error::plan("an operator of few arguments"))?;
        match self.found(kernel, sizes) {
            Some(_) => Ok(()),
            None => self.make(kernel, op, sizes),
        }
    }

    unsafe fn launch(&self, kernel: u32, args: &[u64], tiles: u64) -> Result<(), Error> {
        let table = self.module.device.table;
        match &self.module.kernels[kernel as usize] {
            Callee::Kernel(k) => {
                let k = k.cast_const();
                call!(table, "launching a kernel", launch(self.queue, k, tiles, args.as_ptr()))
            }
            Callee::Operator(op) => {
                let (words, addresses) = op.words();
                let found = args.get(addresses..words).and_then(|s| self.found(kernel, s));
                let made = found.ok_or_else(|| Error::plan("an operator that is not prepared"))?;
                let room = self.ready.borrow().workspace.0;
                let doing = &op.name;
                call!(table, doing, op_run(self.queue, made.cast_const(), args.as_ptr(), room))
            }
        }
    }

    fn records(&self) -> bool {
        self.module.device.table.api.caps & abi::GRAPHS != 0
    }

    fn record(&self) -> Result<(), Error> {
        call!(self.module.device.table, "recording", record(self.queue))
    }

    fn recorded(&self) -> Result<Recording, Error> {
        let mut made = std::ptr::null_mut();
        let (module, table) = (self.module.clone(), self.module.device.table);
        call!(table, "ending a recording", recorded(self.queue, &mut made))?;
        // (The module stays as long as its kernels are in a recording.)
        Ok(Recording::new(made.expose_provenance(), move |handle| {
            if let Some(free) = module.device.table.api.graph_free {
                // SAFETY: recorded by this table, given back once.
                unsafe { free(std::ptr::with_exposed_provenance_mut(handle)) }
            }
        }))
    }

    fn replay(&self, recording: &Recording) -> Result<(), Error> {
        let graph = std::ptr::with_exposed_provenance(recording.handle);
        call!(self.module.device.table, "replaying", replay(self.queue, graph))
    }

    /// Recordings hold the address of the operators' workspace.
    fn stamp(&self) -> u64 {
        self.ready.borrow().workspace.0
    }

    fn wait(&self) -> Result<(), Error> {
        match self.module.device.table.api.wait {
            Some(_) => call!(self.module.device.table, "waiting for the device", wait(self.queue)),
            None => Ok(()),
        }
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
