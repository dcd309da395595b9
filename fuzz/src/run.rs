//! The way behind the frontends: optimise, compile, interpret.

use hub_abi::bundle::{BundleWriter, Manifest, TierCode};
use hub_abi::{Dim, SymEnv, SymInfo};
use hub_codegen::place::{self, Backend, PlaceError};
use hub_codegen::targets::x86::X86Backend;
use hub_ir::portable::to_portable;
use hub_ir::{Graph, Type};
use hub_passes::{FoldLimits, Options, PassError};
use hub_portable::{BytesStore, ExecError, Limits, Tensor, Value};
use std::sync::Arc;

/// What an interpreted run may use here.
pub const SMALL: Limits = Limits {
    tensor_bytes: 1 << 22,
    live_bytes: 1 << 26,
    steps: 20_000,
    work: 1 << 26,
    sequence: 1 << 10,
};

/// Graphs of more nodes are not compiled, which takes milliseconds a kernel.
const MOST_NODES: usize = 48;

/// Optimises, interprets and compiles a graph; what is refused is refused.
pub fn whole(mut g: Graph) {
    let inputs = zeros(&g);
    if let Some(inputs) = &inputs {
        let _refused = reference(&g, inputs);
    }
    if !optimised(&mut g) {
        return;
    }
    if let Some(inputs) = &inputs {
        let _refused = reference(&g, inputs);
    }
    if g.walk().len() <= MOST_NODES {
        compiled(g, &["avx2"]);
    }
}

/// Runs all passes; false if one refuses.
pub fn optimised(g: &mut Graph) -> bool {
    let fold = FoldLimits { bytes: 1 << 22, work: 1 << 26 };
    let options = Options { check_ir: true, fold, ..Options::default() };
    match hub_passes::optimize(g, &options) {
        Ok(_) => true,
        Err(e @ PassError::Broken { .. }) => panic!("{e}\n{}", hub_ir::text::print(g)),
        Err(_) => false,
    }
}

/// Compiles an optimised graph into a bundle's bytes; nothing of a graph that is too large.
pub fn compiled(mut g: Graph, tiers: &[&str]) -> Option<Vec<u8>> {
    let backends: Vec<X86Backend> =
        tiers.iter().map(|t| X86Backend::of_tier(t).expect("a tier")).collect();
    let backends: Vec<&dyn Backend> = backends.iter().map(|b| b as &dyn Backend).collect();
    let mut c = match place::compile(&mut g, &backends, &place::Limits::default()) {
        Ok(c) => c,
        Err(PlaceError::Limit { .. } | PlaceError::Kernels { .. }) => return None,
        Err(e) => panic!("{e}\n{}", hub_ir::text::print(&g)),
    };
    let mut w = BundleWriter::new(Manifest::of("fuzz", &c.graph), Default::default());
    c.lay_out(&mut |b| w.add_const(b)).expect("constants have their places");
    w.graph = c.graph;
    w.tiers = c.tiers.into_iter().map(|t| TierCode { plan: t.plan, code: t.code }).collect();
    Some(w.to_vec().expect("memory takes every byte"))
}

/// The interpreter's answer.
pub fn reference(g: &Graph, inputs: &[Value]) -> Result<Vec<Value>, ExecError> {
    let (portable, store) = to_portable(g).expect("an imported graph expands");
    let mut all = vec![0; store.len as usize];
    for (at, piece) in &store.pieces {
        all[*at as usize..*at as usize + piece.len()].copy_from_slice(piece);
    }
    hub_portable::run(&portable, &BytesStore::new(Arc::new(all)), inputs, &SMALL)
}

/// Sizes of a value where every symbol is 2, or as near as its bounds allow; `None` if it is large.
pub fn sizes(dims: &[Dim], syms: &[SymInfo]) -> Option<Vec<usize>> {
    let env = SymEnv(syms.iter().map(|s| Some(2.clamp(s.min, s.max.max(s.min)))).collect());
    let sizes = dims.iter().map(|d| usize::try_from(d.eval(&env).ok()?).ok());
    let sizes: Vec<usize> = sizes.collect::<Option<_>>()?;
    let count = sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    (count <= 1 << 16).then_some(sizes)
}

/// Inputs of zeros.
fn zeros(g: &Graph) -> Option<Vec<Value>> {
    let root = &g.regions[g.root()];
    let zero = |ty: &Type| match ty {
        Type::Tensor(t) if t.dtype == hub_abi::Dtype::Str => None,
        Type::Tensor(t) => {
            let dims = sizes(&t.dims, &g.syms)?;
            let bytes = dims.iter().product::<usize>() * t.dtype.size();
            Tensor::from_bytes(t.dtype, &dims, &vec![0; bytes]).ok().map(Value::from)
        }
        Type::Seq(_) => None,
        Type::Opt(_) => Some(Value::Opt(None)),
    };
    root.params.iter().map(|&v| zero(g.ty(v))).collect()
}
