//! Semantic checks of what a bundle holds. What passes here can be indexed without further checks:
//! ids are in range, values are defined once and before use, regions form a bounded tree, constants
//! lie in their section, and plans name only what exists. Shapes are checked when they are bound.

use super::Manifest;
use crate::dim::{Dim, SymInfo};
use crate::pgraph::*;
use crate::prim::Prim;
use crate::shape::{Type, syms_of};

/// Deepest nesting of regions.
pub const MAX_REGIONS_DEEP: usize = 48;

/// What graph and plan must fit.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Number of the model's inputs.
    pub inputs: usize,
    /// Number of the model's outputs.
    pub outputs: usize,
    /// Number of symbols.
    pub syms: usize,
    /// Bytes of the constants section.
    pub consts: u64,
}

/// Nothing, or what does not hold.
pub(super) type Check = Result<(), String>;

pub(super) fn ensure(ok: bool, what: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { Err(what()) }
}

fn symbols(syms: &[SymInfo]) -> Check {
    let wrong = syms.iter().find(|s| s.min > s.max);
    wrong.map_or(Ok(()), |s| Err(format!("symbol {} has bounds {}..{}", s.name, s.min, s.max)))
}

/// Checks what a manifest says of symbols, inputs and outputs, which is all that plans of kernels alone
/// are bound with.
pub fn manifest(m: &Manifest) -> Check {
    symbols(&m.syms)?;
    for io in m.inputs.iter().chain(&m.outputs) {
        let mut known = true;
        syms_of(&io.ty, &mut |s| known &= (s.0 as usize) < m.syms.len());
        ensure(known, || format!("'{}' has a dim over an unknown symbol", io.name))?;
    }
    equalities(&m.constraints, m.syms.len())
}

fn equalities(all: &[(Dim, Dim)], syms: usize) -> Check {
    let mut known = true;
    all.iter().flat_map(|(a, b)| [a, b]).for_each(|d| {
        d.each_sym(&mut |s| known &= (s.0 as usize) < syms);
    });
    ensure(known, || "an equality of sizes over an unknown symbol".into())
}

/// Checks a portable graph.
pub fn graph(g: &PGraph, io: Interface) -> Check {
    symbols(&g.syms)?;
    equalities(&g.constraints, g.syms.len())?;
    for (i, t) in g.values.iter().enumerate() {
        let mut known = true;
        syms_of(t, &mut |s| known &= (s.0 as usize) < g.syms.len());
        ensure(known, || format!("value {i} has a dim over an unknown symbol"))?;
    }
    for (i, c) in g.consts.iter().enumerate() {
        constant(c, io.consts).map_err(|e| format!("constant {i}: {e}"))?;
    }
    let Some(root) = g.regions.get(g.root as usize) else {
        return Err(format!("root region {} does not exist", g.root));
    };
    let counts = [root.params.len(), g.inputs.len(), root.results.len(), g.outputs.len()];
    ensure(counts == [io.inputs, io.inputs, io.outputs, io.outputs], || {
        format!("{counts:?} inputs and outputs do not fit {} and {}", io.inputs, io.outputs)
    })?;
    let mut w = Walk {
        g,
        visited: vec![false; g.regions.len()],
        live: vec![false; g.values.len()],
        ever: vec![false; g.values.len()],
    };
    w.region(g.root, 0)
}

fn constant(c: &PConst, section: u64) -> Check {
    let end = c.offset.checked_add(c.len);
    ensure(end.is_some_and(|e| e <= section), || "it lies outside its section".into())?;
    let dims = c.ty.const_dims().ok_or("its dims are not constants")?;
    let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
    let count = count.ok_or_else(|| format!("its dims {dims:?} have no size"))?;
    let size = c.ty.dtype.size() as u64;
    if size == 0 {
        return ensure(c.packing.is_none(), || "strings cannot be packed".into());
    }
    let bytes = count.checked_mul(size);
    let stored = match &c.packing {
        None => bytes,
        Some(p) => {
            let (dense, packed) = p.byte_lens(size as usize).map_err(|e| e.to_string())?;
            ensure(bytes == Some(dense), || "its packing is of another size".into())?;
            Some(packed)
        }
    };
    ensure(stored == Some(c.len), || {
        format!("{} bytes do not hold {dims:?} of {}", c.len, c.ty.dtype)
    })
}

struct Walk<'g> {
    g: &'g PGraph,
    visited: Vec<bool>,
    live: Vec<bool>,
    ever: Vec<bool>,
}

impl Walk<'_> {
    fn define(&mut self, v: ValueId, scope: &mut Vec<ValueId>) -> Check {
        let i = v as usize;
        let fresh = self.ever.get(i).is_some_and(|&d| !d);
        ensure(fresh, || format!("value {v} does not exist or is defined twice"))?;
        (self.ever[i], self.live[i]) = (true, true);
        scope.push(v);
        Ok(())
    }

    fn used(&self, v: ValueId) -> Check {
        let ok = self.live.get(v as usize).is_some_and(|&d| d);
        ensure(ok, || format!("value {v} is used where it is not defined"))
    }

    fn region(&mut self, r: RegionId, depth: usize) -> Check {
        ensure(depth < MAX_REGIONS_DEEP, || "regions are nested too deep".into())?;
        let g = self.g;
        let Some(region) = g.regions.get(r as usize) else {
            return Err(format!("region {r} does not exist"));
        };
        let first = !std::mem::replace(&mut self.visited[r as usize], true);
        ensure(first, || format!("region {r} is used twice"))?;
        let mut scope = vec![];
        for &p in &region.params {
            self.define(p, &mut scope)?;
        }
        for n in &region.nodes {
            self.node(n, depth, &mut scope).map_err(|e| format!("node '{}': {e}", n.name))?;
        }
        region.results.iter().try_for_each(|&v| self.used(v))?;
        scope.iter().for_each(|&v| self.live[v as usize] = false);
        Ok(())
    }

    fn node(&mut self, n: &PNode, depth: usize, scope: &mut Vec<ValueId>) -> Check {
        n.inputs.iter().try_for_each(|&v| self.used(v))?;
        let (ins, outs) = (n.inputs.len(), n.outputs.len());
        match &n.op {
            POp::Const(c) => {
                let c = self.g.consts.get(*c as usize).ok_or("its constant does not exist")?;
                ensure((ins, outs) == (0, 1), || "a constant has one output".into())?;
                let ty = n.outputs.first().and_then(|&v| self.g.values.get(v as usize));
                let same = ty.and_then(Type::as_tensor) == Some(&c.ty);
                ensure(same, || "value and constant differ in type".into())?;
            }
            POp::Prim(p) => self.prim(p, ins, outs)?,
            POp::Group(r) => self.body(*r, depth, [ins, outs])?,
            POp::Control(c) => self.control(c, depth, ins, outs)?,
        }
        n.outputs.iter().try_for_each(|&v| self.define(v, scope))
    }

    fn prim(&self, p: &Prim, ins: usize, outs: usize) -> Check {
        use Prim::*;
        let want = match p {
            Iota { .. } | Dims { .. } | Random { .. } => 0,
            Binary(_) | Pad { .. } | Gather { .. } | GatherElements { .. } | GatherNd { .. } => 2,
            Contract { .. } | Conv { .. } | ConvTranspose { .. } | Find => 2,
            Text(crate::prim::TextOp::Concat) => 2,
            Select | ScatterElements { .. } | ScatterNd { .. } => 3,
            Concat { .. } => ins.max(1),
            _ => 1,
        };
        ensure((ins, outs) == (want, p.outputs()), || {
            format!("{ins} operands and {outs} results do not fit {p:?}")
        })?;
        if let Dims { dims, scalar: true } = p {
            ensure(dims.len() == 1, || "a scalar of several sizes".into())?;
        }
        let known = p.binds().iter().all(|s| (s.0 as usize) < self.g.syms.len());
        ensure(known, || "it binds an unknown symbol".into())
    }

    /// Visits a region with these numbers of params and results.
    fn body(&mut self, r: RegionId, depth: usize, [params, results]: [usize; 2]) -> Check {
        let Some(region) = self.g.regions.get(r as usize) else {
            return Err(format!("region {r} does not exist"));
        };
        let got = [region.params.len(), region.results.len()];
        ensure(got == [params, results], || {
            format!("region {r} has {got:?} params and results, not {:?}", [params, results])
        })?;
        self.region(r, depth + 1)
    }

    fn control(&mut self, c: &Control, depth: usize, ins: usize, outs: usize) -> Check {
        let between = |lo: usize, hi: usize| {
            ensure((lo..=hi).contains(&ins) && outs == 1, || {
                format!("{ins} operands and {outs} results do not fit")
            })
        };
        match c {
            Control::If { then, orelse } => {
                ensure(ins == 1, || "a branch has one operand".into())?;
                self.body(*then, depth, [0, outs])?;
                self.body(*orelse, depth, [0, outs])
            }
            Control::Loop { body, has_trip, has_cond, carried } => {
                let carried = *carried as usize;
                let want = usize::from(*has_trip) + usize::from(*has_cond) + carried;
                ensure(ins == want && outs >= carried, || "its operands do not fit".into())?;
                self.body(*body, depth, [1 + carried, 1 + outs])
            }
            Control::Scan { body, carried, .. } => {
                let carried = *carried as usize;
                ensure(ins >= carried && outs >= carried, || "its operands do not fit".into())?;
                self.body(*body, depth, [ins, outs])
            }
            Control::SeqNew { .. } => between(0, usize::MAX),
            Control::SeqInsert => between(2, 3),
            Control::SeqSet => between(3, 3),
            Control::SeqErase | Control::SeqSplit { .. } => between(1, 2),
            Control::SeqAt => between(2, 2),
            Control::SeqLen | Control::OptGet | Control::OptHas => between(1, 1),
            Control::OptNew { .. } => between(0, 1),
            Control::SeqConcat { .. } => {
                ensure(ins == 1 && (1..=2).contains(&outs), || "its operands do not fit".into())
            }
        }
    }
}
