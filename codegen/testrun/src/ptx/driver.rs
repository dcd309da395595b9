//! The software GPU as a device of the runtime: bundles' PTX runs in this process's memory.

use super::{Memory, Module};
use hub_abi::plan::Plan;
use hub_runtime::Error;
use hub_runtime::device::{Driver, Kernels, Queue};
use std::sync::Arc;

/// A driver for tier `sm80`.
#[derive(Debug, Default)]
pub struct SoftGpu;

#[derive(Clone)]
struct Loaded {
    module: Arc<Module>,
    names: Vec<String>,
}

impl Driver for SoftGpu {
    fn tiers(&self) -> Vec<String> {
        vec!["sm80".into()]
    }

    fn load(&self, code: &[u8], plan: &Plan) -> Result<Arc<dyn Kernels>, Error> {
        let text = String::from_utf8_lossy(code);
        let module = Module::parse(&text).map_err(|e| Error::Unsupported(e.to_string()))?;
        let names: Vec<String> = plan.kernels.iter().map(|k| k.name.clone()).collect();
        match names.iter().find(|n| !module.entries.contains_key(*n)) {
            Some(n) => Err(Error::Unsupported(format!("no kernel {n}"))),
            None => Ok(Arc::new(Loaded { module: Arc::new(module), names })),
        }
    }
}

impl Kernels for Loaded {
    fn queue(&self) -> Result<Box<dyn Queue>, Error> {
        Ok(Box::new(self.clone()))
    }
}

impl Queue for Loaded {
    unsafe fn launch(&self, kernel: u32, args: &[u64], tiles: u64) -> Result<(), Error> {
        let name = &self.names[kernel as usize];
        let entry = &self.module.entries[name];
        let args = &args[..args.len().min(entry.args / 8)];
        // SAFETY: our caller's promise.
        let mut memory = unsafe { Memory::process() };
        let done = entry.run(args, tiles, &mut memory);
        done.map_err(|e| Error::Unsupported(format!("kernel {name}: {e}")))
    }
}
