//! Constant folding by the primitives' own meaning, shape arithmetic by known contents, and
//! branches whose condition is known.

use crate::context::{Changed, Context, FoldLimits, PassError};
use crate::rewrite::number_of;
use hub_abi::prim::Prim;
use hub_abi::{Dim, Dtype, Sym};
use hub_ir::build::{Builder, scalar_bytes};
use hub_ir::graph::ConstData;
use hub_ir::{Control, Graph, Node, Op, Region, Value};
use hub_portable::{Limits, Tensor};
use std::collections::{HashMap, HashSet};

/// A folded constant may grow beyond its operands by this many bytes.
const MOST_GROWTH: u64 = 1 << 16;

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let root = g.root();
    let given = given_syms(g, root);
    let left = cx.fold_left.get().unwrap_or_else(|| allowed(g, cx.options.fold));
    let mut f = Fold { map: HashMap::new(), given, left, folded: 0, branches: 0 };
    f.region(g, root);
    cx.fold_left.set(Some(f.left));
    g.replace(&f.map);
    let changed = f.folded + f.branches > 0;
    cx.fired("fold", f.folded);
    cx.fired("fold-branch", f.branches);
    if changed {
        crate::dce::remove_dead(g);
    }
    Ok(changed)
}

/// What folding may compute for this model.
fn allowed(g: &Graph, limits: FoldLimits) -> FoldLimits {
    let given = g.consts.iter().fold(0u64, |n, (_, c)| n.saturating_add(c.data.len() as u64));
    FoldLimits {
        bytes: limits.bytes.saturating_add(given.saturating_mul(16)),
        work: limits.work.saturating_add(given.saturating_mul(512)),
    }
}

struct Fold {
    map: HashMap<Value, Value>,
    /// Symbols that the inputs bind.
    given: HashSet<Sym>,
    /// What may still be computed.
    left: FoldLimits,
    folded: u32,
    branches: u32,
}

impl Fold {
    fn region(&mut self, g: &mut Graph, r: Region) {
        let mut out = vec![];
        for n in std::mem::take(&mut g.regions[r].nodes) {
            self.node(g, n, &mut out);
        }
        g.regions[r].nodes = out;
    }

    fn node(&mut self, g: &mut Graph, n: Node, out: &mut Vec<Node>) {
        for v in &mut g.nodes[n].inputs {
            while let Some(&w) = self.map.get(v) {
                *v = w;
            }
        }
        if let Op::Control(Control::If { then, orelse }) = g.nodes[n].op
            && let Some(c) = condition(g, g.nodes[n].inputs[0])
            && self.branch(g, n, Region(if c { then } else { orelse }), out)
        {
            return;
        }
        if !matches!(g.nodes[n].op, Op::Group { .. }) {
            for s in g.regions_of(n) {
                self.region(g, s);
            }
        }
        if let Some((made, news)) = self.attempt(g, n) {
            out.extend(made);
            self.map.extend(g.nodes[n].outputs.clone().into_iter().zip(news));
            self.folded += 1;
        } else {
            out.push(n);
        }
    }

    /// Takes a branch's nodes in place of the whole; not where a sequence of its would be of another
    /// type than the node's.
    fn branch(&mut self, g: &mut Graph, n: Node, taken: Region, out: &mut Vec<Node>) -> bool {
        let wanted = g.nodes[n].outputs.clone();
        let pairs = wanted.iter().zip(&g.regions[taken].results);
        let fits = |(&w, &r): (&Value, &Value)| {
            let rank = |v: Value| g.ty(v).as_tensor().map(|t| t.rank());
            g.ty(w) == g.ty(r) || (rank(w).is_some() && rank(w) == rank(r))
        };
        if !pairs.into_iter().all(fits) {
            return false;
        }
        for m in g.regions[taken].nodes.clone() {
            self.node(g, m, out);
        }
        let mut results = g.regions[taken].results.clone();
        for v in &mut results {
            while let Some(&w) = self.map.get(v) {
                *v = w;
            }
        }
        let name = g.nodes[n].name.clone();
        let mut b = Builder::new(g, &name);
        let results = sized(&mut b, &wanted, results);
        out.extend(b.finish());
        self.map.extend(wanted.into_iter().zip(results));
        self.branches += 1;
        true
    }

    fn attempt(&mut self, g: &mut Graph, n: Node) -> Option<Made> {
        let Op::Prim(p) = &g.nodes[n].op else { return None };
        if p.is_effect() || matches!(p, Prim::Random { .. }) {
            return None;
        }
        let p = p.clone();
        sizes_of(g, n, &p, &self.given).or_else(|| self.compute(g, n, &p))
    }

    fn compute(&mut self, g: &mut Graph, n: Node, p: &Prim) -> Option<Made> {
        let node = &g.nodes[n];
        let mut given = 0u64;
        let mut ins = vec![];
        for &v in &node.inputs {
            let c = g.as_const(v)?;
            given += c.data.len() as u64;
            ins.push(tensor(c)?);
        }
        let mut wanted = 0u64;
        let mut outs = vec![];
        for &v in &node.outputs {
            let t = g.ty(v).as_tensor()?;
            let count = u64::try_from(t.count().as_const()?).ok()?;
            wanted = wanted.checked_add(count.checked_mul(t.dtype.size().max(1) as u64)?)?;
            let dims = t.const_dims()?;
            outs.push(dims.iter().map(|&d| d as usize).collect::<Vec<_>>());
        }
        let most = self.left.bytes;
        if wanted > most || wanted > 4 * given + MOST_GROWTH {
            return None;
        }
        let in_dims: Vec<&[usize]> = ins.iter().map(Tensor::dims).collect();
        let work =
            hub_portable::work(p, &in_dims, &outs.iter().map(|d| &d[..]).collect::<Vec<_>>());
        self.left.work = self.left.work.checked_sub(work)?;
        self.left.bytes -= wanted;
        let limits = Limits { tensor_bytes: most, work: u64::MAX, ..Limits::default() };
        // What fails here (an index out of range, say) fails again, and is reported, at run time.
        let made = hub_portable::fold(p, &ins, &limits).ok()?;
        let name = node.name.clone();
        let mut b = Builder::new(g, &name);
        let news = made.iter().map(|t| b.const_data(data_of(t))).collect();
        Some((b.finish(), news))
    }
}

/// A branch's results with the types of the node that held it. Sizes in which the branches differ are
/// symbols of that node, which binds them: now they are bound to what this branch gives.
fn sized(b: &mut Builder<'_>, wanted: &[Value], results: Vec<Value>) -> Vec<Value> {
    let (mut syms, mut sizes) = (vec![], vec![]);
    for (&w, &r) in wanted.iter().zip(&results).filter(|(w, r)| b.g.ty(**w) != b.g.ty(**r)) {
        for (d, have) in b.g.dims(w).iter().zip(b.g.dims(r)) {
            let own = d.as_sym().filter(|s| d != have && !syms.contains(s));
            syms.extend(own);
            sizes.extend(own.map(|_| have.clone()));
        }
    }
    if !syms.is_empty() {
        let sizes = b.dims_vector(sizes);
        b.prim_n(Prim::BindSyms { syms }, &[sizes]).expect("a vector of sizes is bound");
    }
    let typed = |(&w, r)| {
        let dims = b.g.dims(w).to_vec();
        b.reshape(r, dims).unwrap_or(r)
    };
    wanted.iter().zip(results).map(typed).collect()
}

/// A bool constant of one element.
fn condition(g: &Graph, v: Value) -> Option<bool> {
    let known = g.content.get(&v).and_then(|d| d.first()?.as_const()).map(|k| k != 0);
    known.or_else(|| number_of(g, v).map(|x| x != 0.0))
}

/// A value whose elements are known sizes: a constant, or a vector of sizes. Only of the inputs'
/// symbols: one that a node binds may be bound from this very value.
fn sizes_of(g: &mut Graph, n: Node, p: &Prim, given: &HashSet<Sym>) -> Option<Made> {
    let node = &g.nodes[n];
    let &[v] = &node.outputs[..] else { return None };
    let known = g.content.get(&v)?.clone();
    let ty = g.tensor(v).clone();
    let name = node.name.clone();
    let constants: Option<Vec<i64>> = known.iter().map(Dim::as_const).collect();
    let dims = ty.const_dims()?;
    if !ty.count().is(known.len() as i64) {
        return None;
    }
    let mut b = Builder::new(g, &name);
    let new = match constants {
        Some(xs) if matches!(ty.dtype, Dtype::I64 | Dtype::I32 | Dtype::Bool) => {
            let bytes: Vec<u8> = match ty.dtype {
                Dtype::I64 => xs.iter().flat_map(|x| x.to_le_bytes()).collect(),
                _ => xs.iter().flat_map(|&x| scalar_bytes(ty.dtype, x as f64)).collect(),
            };
            b.constant(ty.dtype, &dims, bytes.into())
        }
        _ if matches!(p, Prim::Dims { .. }) || ty.dtype != Dtype::I64 => return None,
        _ if !known.iter().all(|d| only_of(d, given)) => return None,
        _ if dims.len() == 1 => b.dims_vector(known),
        _ if dims.is_empty() => b.dim_scalar(known[0].clone()),
        _ => return None,
    };
    Some((b.finish(), vec![new]))
}

/// What a node becomes: new nodes, and the values for its outputs.
type Made = (Vec<Node>, Vec<Value>);

/// Symbols that stand alone as a dim of an input.
fn given_syms(g: &Graph, root: Region) -> HashSet<Sym> {
    let params = g.regions[root].params.iter().filter_map(|&v| g.ty(v).as_tensor());
    params.flat_map(|t| t.dims.iter().filter_map(Dim::as_sym)).collect()
}

fn only_of(d: &Dim, given: &HashSet<Sym>) -> bool {
    let mut all = true;
    d.each_sym(&mut |s| all &= given.contains(&s));
    all
}

/// A constant as the evaluator's tensor (shares its bytes).
pub fn tensor(c: &ConstData) -> Option<Tensor> {
    let dims: Option<Vec<usize>> =
        c.ty.dims.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect();
    let dims = dims?;
    if c.ty.dtype == Dtype::Str {
        return Tensor::strings(&dims, c.strings.clone()).ok();
    }
    let owner = std::sync::Arc::new(c.data.clone());
    Tensor::from_owner(c.ty.dtype, &dims, owner, 0, c.data.len()).ok()
}

/// The evaluator's tensor as a constant.
pub fn data_of(t: &Tensor) -> ConstData {
    let dims = t.dims().iter().map(|&d| d.into()).collect();
    let ty = hub_ir::TensorType { dtype: t.dtype(), dims };
    if t.dtype() == Dtype::Str {
        return ConstData { ty, data: Default::default(), strings: t.as_strings().to_vec() };
    }
    ConstData { ty, data: t.bytes().to_vec().into(), strings: vec![] }
}
