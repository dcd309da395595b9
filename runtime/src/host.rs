//! Host steps: nodes of the portable graph between kernels, and whole portable runs.

use crate::error::Error;
use hub_abi::Dtype;
use hub_abi::bundle::BundleView;
use hub_abi::dim::SymEnv;
use hub_abi::pgraph::PGraph;
use hub_portable::{
    BytesStore, CachedStore, Frame, Limits, PrimError, Program, Tensor, Value, admit_value,
    run_node,
};
use memmap2::Mmap;
use std::sync::Arc;

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The constants of an open bundle; keeps the mapping alive for tensors that lie in it.
struct Consts(Arc<BundleView<Mmap>>);

impl AsRef<[u8]> for Consts {
    fn as_ref(&self) -> &[u8] {
        self.0.consts()
    }
}

/// What all sessions of a model share to run its graph portable.
pub struct Shared {
    program: Program<Arc<PGraph>>,
    owner: Owner,
    store: CachedStore<BytesStore>,
}

impl Shared {
    /// Prepares a bundle's graph.
    pub fn new(graph: &Arc<PGraph>, bundle: &Arc<BundleView<Mmap>>) -> Result<Shared, Error> {
        let owner: Owner = Arc::new(Consts(bundle.clone()));
        let store = CachedStore::new(BytesStore::new(owner.clone()), graph);
        Ok(Shared { program: Program::new(graph.clone())?, owner, store })
    }

    /// A tensor in the constants section, not copied.
    pub fn constant(
        &self,
        dtype: Dtype,
        dims: &[usize],
        offset: usize,
        len: usize,
    ) -> Result<Tensor, PrimError> {
        Tensor::from_owner(dtype, dims, self.owner.clone(), offset, len)
    }

    /// Are these values of the inputs' types? In sequences and optionals too.
    pub fn check(&self, inputs: &[Value]) -> Result<(), Error> {
        Ok(self.program.bind_inputs(&mut Frame::new(self.program.graph()), inputs)?)
    }

    /// Runs the whole graph.
    pub fn run(&self, inputs: Vec<Value>, limits: &Limits) -> Result<Vec<Value>, Error> {
        Ok(self.program.run(&self.store, inputs, limits)?)
    }
}

/// A session's heap: values that are in no buffer. Made when first used.
pub struct Host {
    /// What the present run may use.
    pub limits: Limits,
    frame: Option<Frame>,
    dirty: bool,
}

impl Host {
    /// An empty heap; portable nodes run under these limits.
    pub fn new(limits: Limits) -> Host {
        Host { limits, frame: None, dirty: false }
    }

    /// Frees what the last run left.
    pub fn clear(&mut self) {
        if let (Some(f), true) = (&mut self.frame, self.dirty) {
            f.clear();
        }
        self.dirty = false;
    }

    /// Puts a value in.
    pub fn set(&mut self, g: &PGraph, v: u32, value: Value) {
        self.dirty = true;
        self.frame.get_or_insert_with(|| Frame::new(g)).set(v, value);
    }

    /// Bytes of the values in it.
    pub fn live(&self) -> u64 {
        self.frame.as_ref().map_or(0, Frame::live_bytes)
    }

    /// The value, where it is there.
    pub fn get(&self, v: u32) -> Option<&Value> {
        self.frame.as_ref()?.get(v)
    }

    /// Frees a value.
    pub fn free(&mut self, v: u32) {
        if let Some(f) = &mut self.frame {
            drop(f.take(v));
        }
    }

    /// Runs node `i` of a region: operands and results are on the heap, symbols in `env`.
    pub fn step(
        &mut self,
        shared: &Shared,
        (region, i): (u32, u32),
        env: &mut SymEnv,
    ) -> Result<(), Error> {
        self.dirty = true;
        let frame = self.frame.get_or_insert_with(|| Frame::new(shared.program.graph()));
        std::mem::swap(&mut frame.env, env);
        let (program, store) = (&shared.program, &shared.store);
        let done = run_node(program, region, i as usize, frame, store, &self.limits);
        std::mem::swap(&mut frame.env, env);
        Ok(done?)
    }

    /// Puts a value in under a name whose type it must fit; symbols of the type get bound.
    pub fn name(
        &mut self,
        shared: &Shared,
        (v, value): (u32, Value),
        env: &mut SymEnv,
    ) -> Result<(), Error> {
        self.set(shared.program.graph(), v, value);
        let Some(frame) = &mut self.frame else { return Ok(()) };
        std::mem::swap(&mut frame.env, env);
        let done = admit_value(&shared.program, v, frame, &self.limits);
        std::mem::swap(&mut frame.env, env);
        Ok(done?)
    }
}
