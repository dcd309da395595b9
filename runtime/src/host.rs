//! Host steps: nodes of the portable graph between kernels, and whole portable runs.

use crate::error::Error;
use hub_abi::Dtype;
use hub_abi::bundle::BundleView;
use hub_abi::dim::SymEnv;
use hub_abi::pgraph::POp;
use hub_portable::{BytesStore, CachedStore, ConstStore, Limits, PrimError, Tensor, Value, eval};
use memmap2::Mmap;
use std::sync::Arc;

/// What all sessions of a model share: its constants as tensors.
pub struct Shared {
    bundle: Arc<BundleView<Mmap>>,
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    store: CachedStore<BytesStore>,
}

/// Keeps the mapping alive for tensors that lie in it.
struct Consts(Arc<BundleView<Mmap>>);

impl AsRef<[u8]> for Consts {
    fn as_ref(&self) -> &[u8] {
        self.0.consts()
    }
}

impl Shared {
    pub fn new(bundle: Arc<BundleView<Mmap>>) -> Shared {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(Consts(bundle.clone()));
        let store = CachedStore::new(BytesStore::new(owner.clone()), &bundle.graph);
        Shared { bundle, owner, store }
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

    /// Runs the whole graph.
    pub fn run(&self, inputs: Vec<Value>, limits: Limits) -> Result<Vec<Value>, Error> {
        let mut host = Host::new(limits);
        let g = &self.bundle.graph;
        let root = &g.regions[g.root as usize];
        let mut env = SymEnv::new(g.syms.len());
        for (&v, x) in root.params.iter().zip(inputs) {
            host.set(v, x);
        }
        for i in 0..root.nodes.len() {
            host.step(self, i, &mut env)?;
        }
        Ok(root.results.iter().filter_map(|&v| host.get(v).cloned()).collect())
    }
}

/// A session's heap: values that are in no buffer.
pub struct Host {
    limits: Limits,
    values: Vec<Option<Value>>,
}

impl Host {
    pub fn new(limits: Limits) -> Host {
        Host { limits, values: vec![] }
    }

    pub fn clear(&mut self) {
        self.values.clear();
    }

    pub fn set(&mut self, v: u32, value: Value) {
        let i = v as usize;
        if self.values.len() <= i {
            self.values.resize(i + 1, None);
        }
        self.values[i] = Some(value);
    }

    pub fn get(&self, v: u32) -> Option<&Value> {
        self.values.get(v as usize)?.as_ref()
    }

    /// Runs node `i` of the root region.
    pub fn step(&mut self, shared: &Shared, i: usize, env: &mut SymEnv) -> Result<(), Error> {
        let g = &shared.bundle.graph;
        let n = &g.regions[g.root as usize].nodes[i];
        let fail = |e: String| Error::Node { node: n.name.clone(), what: e };
        match &n.op {
            POp::Const(c) => {
                let t = shared.store.load(g, *c).map_err(|e| fail(e.to_string()))?;
                self.set(n.outputs[0], t.into());
            }
            POp::Prim(p) => {
                let mut ins = vec![];
                for &v in &n.inputs {
                    let t = self.get(v).ok_or_else(|| fail(format!("no value {v}")))?;
                    ins.push(t.tensor().map_err(|e| fail(e.to_string()))?.clone());
                }
                let o = eval(p, env, &ins, &self.limits).map_err(|e| fail(e.to_string()))?;
                for (s, v) in o.bound {
                    env.set(s, v);
                }
                for (&v, t) in n.outputs.iter().zip(o.outputs) {
                    self.set(v, t.into());
                }
            }
            _ => return Err(fail("not yet".into())),
        }
        Ok(())
    }
}
