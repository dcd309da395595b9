//! Placement: from a fused graph to a plan. It decides where every value lies and in which layout,
//! asks the backend for a kernel for every group and copy, and writes the steps down.
//!
//! Invariants
//! - Images (results of convolutions and windows, and what is elementwise from them) are
//!   channel-last with the pixel pitch a multiple of 64 B; everything else is row-major, and what a
//!   resize makes of few channels for no convolution.
//! - A tensor that a padded convolution reads has a halo; the step before its producer fills it.
//! - Reshape, transpose, slice and broadcast are views wherever strides can say them.
//! - A result takes the room of an operand that dies with it where its kernel says that the two may
//!   share ([`crate::kir::share`]); `hub_abi::trace` checks it from the plan alone.
//! - Sizes over symbols that the run binds appear only after the top-level step that binds them.
//! - Whatever no kernel exists for becomes a `Host` step; nothing is dropped silently.

pub mod backend;
mod chain;
mod consts;
mod control;
mod emit;
mod extent;
mod group;
mod host;
mod kept;
mod layout;
mod levels;
mod loops;
mod panels;
mod reuse;
mod split;
mod view;

pub use backend::Backend;
pub use consts::ConstPool;

use crate::kir::Kernel;
use crate::task::{Lowered, Refused};
use hub_abi::pgraph::PGraph;
use hub_abi::plan::{BindFrom, Buf, BufId, Plan, Step};
use hub_ir::{Graph, Op, OpError, Prim, Region, Sym, Type, Value};
use kept::Kept;
use layout::{Halo, Place};
use std::collections::{HashMap, HashSet};

/// A compiled tier: its plan, and machine code (or source) that the plan's kernels point into.
/// Constant buffers are numbered by [`ConstPool`] and get their offsets when the bundle is laid out.
#[derive(Clone, Debug, Default)]
pub struct Tier {
    /// The plan.
    pub plan: Plan,
    /// Its code.
    pub code: Vec<u8>,
    /// The kernels before emission, in the plan's order (for `--emit kernels` and tests).
    pub kernels: Vec<Kernel>,
    /// Nodes that run on the host and why.
    pub refused: Vec<(String, String)>,
    const_bufs: Vec<(usize, consts::ConstKey)>,
}

/// Why a model could not be placed: always a defect of the graph or of the compiler.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlaceError {
    /// The graph does not expand.
    #[error(transparent)]
    Graph(#[from] OpError),
    /// A kernel was lowered but the target cannot emit it.
    #[error("{node}: the kernel cannot be emitted: {why}")]
    Emit {
        /// The model's node.
        node: String,
        /// What the emitter says.
        why: String,
    },
    /// The model asks for more than is allowed.
    #[error("{node}: {what} needs {need}, above the limit of 2^40")]
    Limit {
        /// The model's node.
        node: String,
        /// Of what it asks too much.
        what: &'static str,
        /// How much.
        need: i64,
    },
    /// The model needs more kernels made than is allowed.
    #[error("{node}: more than {limit} kernels that differ")]
    Kernels {
        /// The model's node.
        node: String,
        /// How many may be made for a tier.
        limit: usize,
    },
    /// Something that earlier stages exclude.
    #[error("{node}: {why}")]
    Internal {
        /// The model's node.
        node: String,
        /// What is wrong.
        why: String,
    },
}

/// A model with its constants and native tiers.
pub struct Compiled {
    /// The portable graph; constant offsets are set by [`Compiled::lay_out`].
    pub graph: PGraph,
    /// Tiers, in the order asked.
    pub tiers: Vec<Tier>,
    pool: ConstPool,
}

/// What compiling may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Kernels that differ, for each tier: lowering and emitting one takes a few milliseconds.
    pub kernels: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { kernels: 4096 }
    }
}

/// Compiles a fused graph for every backend given.
pub fn compile(
    g: &mut Graph,
    backends: &[&dyn Backend],
    limits: &Limits,
) -> Result<Compiled, PlaceError> {
    extent::check(g)?;
    wrap_singles(g);
    // The graph is one for all targets.
    if backends.iter().all(|b| b.chains()) {
        chain::chains(g);
    }
    let portable = hub_ir::portable::lower(g)?;
    let mut pool = ConstPool::new(g, &portable);
    let mut tiers = vec![];
    let splits = match backends.iter().any(|b| b.operators()) {
        true => split::splits(g),
        false => HashMap::new(),
    };
    for b in backends {
        let mut placer = Placer::new(g, *b, &mut pool, &portable, limits);
        if b.operators() {
            placer.split(&splits);
        }
        tiers.push(placer.run()?);
    }
    Ok(Compiled { graph: portable.graph, tiers, pool })
}

impl Compiled {
    /// Hands every constant to `add` (which gives its offset) and fills offsets in.
    pub fn lay_out(&mut self, add: &mut dyn FnMut(bytes::Bytes) -> u64) -> Result<(), PlaceError> {
        self.pool.lay_out(&mut self.graph, add)?;
        for t in &mut self.tiers {
            for (buf, key) in &t.const_bufs {
                let (offset, len) = self.pool.at(key);
                t.plan.bufs[*buf] = Buf::Const { offset, len };
            }
        }
        Ok(())
    }
}

/// Makes groups of primitives that fusion left alone but that kernels are made for.
fn wrap_singles(g: &mut Graph) {
    let groups: HashSet<Region> = g.walk().into_iter().filter_map(|n| group_region(g, n)).collect();
    for r in g.live_regions() {
        if groups.contains(&r) {
            continue;
        }
        for n in g.regions[r].nodes.clone() {
            let Op::Prim(p) = &g.nodes[n].op else { continue };
            let native = matches!(
                p,
                Prim::Pad { .. }
                    | Prim::Gather { .. }
                    | Prim::GatherElements { .. }
                    | Prim::GatherNd { .. }
                    | Prim::Iota { .. }
                    | Prim::Dims { .. }
            );
            if native {
                wrap(g, n);
            }
        }
    }
}

/// The region of a group.
fn group_region(g: &Graph, n: hub_ir::Node) -> Option<Region> {
    match g.nodes[n].op {
        Op::Group { region, .. } => Some(region),
        _ => None,
    }
}

fn wrap(g: &mut Graph, n: hub_ir::Node) {
    let region = g.new_region();
    let ins = g.nodes[n].inputs.clone();
    let params: Vec<Value> = ins
        .iter()
        .map(|&v| {
            let ty = g.ty(v).clone();
            g.add_param(region, ty)
        })
        .collect();
    let outs: Vec<Type> = g.nodes[n].outputs.iter().map(|&v| g.ty(v).clone()).collect();
    let (op, name) = (g.nodes[n].op.clone(), g.nodes[n].name.clone());
    let inner = g.make_node(op, params, outs, &name);
    g.regions[region].nodes.push(inner);
    g.regions[region].results = g.nodes[inner].outputs.clone();
    g.nodes[n].op = Op::Group { kind: hub_ir::GroupKind::Map, region };
}

/// A copy made of a value for a consumer's sake, at that level of open lists.
struct Copied {
    value: Value,
    wish: layout::Wish,
    place: Place,
    level: usize,
}

/// Works through a graph for one backend.
struct Placer<'a> {
    g: &'a Graph,
    backend: &'a dyn Backend,
    pool: &'a mut ConstPool,
    ids: &'a HashMap<Value, u32>,
    tier: Tier,
    cache: emit::KernelCache,
    /// The backend's answers so far, by choice and task.
    answers: HashMap<(usize, String), Result<Lowered, Refused>>,
    limits: Limits,
    /// How many more kernels it may be asked for.
    kernels_left: usize,
    /// Its copies so far, by source and destination.
    copied: HashMap<String, Lowered>,
    places: Kept<Place>,
    /// Numbers of regions in the portable graph.
    regions: &'a HashMap<Region, u32>,
    /// The region of each node.
    homes: HashMap<hub_ir::Node, Region>,
    /// Groups that stand for another, in the order in which they run.
    splits: HashMap<hub_ir::Node, Vec<hub_ir::Node>>,
    copies: Vec<Copied>,
    /// Buffers with a halo, and the place whose halo a step fills.
    halos: HashMap<BufId, Place>,
    /// Values that live on the session heap.
    heap: Kept<()>,
    /// Where values go that a consumer has already made room for.
    planned: Kept<Place>,
    /// Values that are parts of a concatenation: its output, and the offset along its axis.
    parts: HashMap<Value, view::Part>,
    facts: layout::Facts,
    /// Symbols that no step written so far binds.
    dynamic: HashSet<Sym>,
    steps: levels::Levels,
}

impl<'a> Placer<'a> {
    fn new(
        g: &'a Graph,
        backend: &'a dyn Backend,
        pool: &'a mut ConstPool,
        portable: &'a hub_ir::portable::Portable,
        limits: &Limits,
    ) -> Self {
        let dynamic = dynamic_syms(g);
        let mut facts = match backend.operators() {
            true => layout::Facts::default(),
            false => layout::Facts::of(g),
        };
        let parts = view::parts(g, &facts, &dynamic);
        for (v, part) in &parts {
            if let Some(h) = facts.halo(*v).cloned() {
                facts.widen(part.whole, h);
            }
        }
        let mut homes = HashMap::new();
        for r in g.live_regions() {
            homes.extend(g.regions[r].nodes.iter().map(|&n| (n, r)));
        }
        let mut p = Placer {
            parts,
            g,
            backend,
            pool,
            ids: &portable.values,
            regions: &portable.regions,
            homes,
            splits: HashMap::new(),
            tier: Tier::default(),
            cache: Default::default(),
            answers: HashMap::new(),
            limits: *limits,
            kernels_left: limits.kernels,
            copied: HashMap::new(),
            places: Kept::default(),
            copies: vec![],
            halos: HashMap::new(),
            heap: Kept::default(),
            planned: Kept::default(),
            facts,
            dynamic,
            steps: levels::Levels::new(g.root()),
        };
        p.tier.plan.tier = p.backend.tier().to_string();
        p
    }

    fn run(mut self) -> Result<Tier, PlaceError> {
        let root = self.g.root();
        for (i, &v) in self.g.regions[root].params.iter().enumerate() {
            match self.g.ty(v) {
                Type::Tensor(t) if self.is_placed(v) => {
                    let buf = self.buffer(Buf::Input(i as u32));
                    self.places.insert(v, Place::dense(buf, t));
                }
                _ => {
                    self.heap.insert(v, ());
                }
            }
        }
        for i in 0..self.g.regions[root].nodes.len() {
            self.node(self.g.regions[root].nodes[i], i)?;
        }
        self.outputs()?;
        self.finish()
    }

    /// One node; `index` is its position in its region.
    fn node(&mut self, n: hub_ir::Node, index: usize) -> Result<(), PlaceError> {
        let node = &self.g.nodes[n];
        if matches!(node.op, Op::Const(_)) {
            return match self.answers_unplaced(n) {
                true => self.host(n, index, "no buffer holds its elements"),
                false => Ok(()),
            };
        }
        if matches!(node.op, Op::Control(_)) {
            return self.control(n, index);
        }
        self.unheap(n);
        let operands = node.inputs.iter().chain(&node.outputs).filter_map(|v| v.some());
        let here = |v: Value| !self.heap.contains(&v) || self.places.contains(&v);
        let known = operands.into_iter().all(|v| self.is_placed(v) && here(v));
        if !known || self.asks_later(n) {
            return self.host(n, index, "its shape is known only while it runs");
        }
        match &node.op {
            Op::Group { kind, region } => self.group(n, index, *kind, *region),
            Op::Prim(p) if p.is_movement() => self.movement(n, index),
            Op::Prim(Prim::BindSyms { syms }) if self.binds_natively(n) => {
                let (syms, x) = (syms.clone(), node.inputs[0]);
                self.bind(n, &syms, x)
            }
            Op::Prim(p) => {
                let why = format!("no kernel for {}", hub_ir::build::prim_name(p));
                self.host(n, index, &why)
            }
            _ => self.host(n, index, "no kernel for it"),
        }
    }

    /// Is a constant that no buffer holds (strings) what its region gives?
    fn answers_unplaced(&self, n: hub_ir::Node) -> bool {
        let v = self.g.nodes[n].outputs[0];
        !self.is_placed(v) && self.g.regions[self.homes[&n]].results.contains(&v)
    }

    /// Does a node mention, itself or inside, sizes that are not known yet, though its operands'
    /// and results' sizes are? (It answers what a size is, or sums over it.)
    fn asks_later(&self, n: hub_ir::Node) -> bool {
        match &self.g.nodes[n].op {
            Op::Prim(p) => {
                let see = &mut |d: &hub_abi::Dim| {
                    let mut later = false;
                    d.each_sym(&mut |s| later |= self.dynamic.contains(&s));
                    if later { Err(()) } else { Ok(d.clone()) }
                };
                p.map_dims(see).is_err()
            }
            Op::Group { region, .. } => self.g.regions[*region].nodes.iter().any(|&m| {
                let outs = self.g.nodes[m].outputs.iter().filter_map(|v| v.some());
                outs.into_iter().any(|v| !self.is_placed(v)) || self.asks_later(m)
            }),
            _ => false,
        }
    }

    /// Tensors on the heap whose sizes are known by now get buffers for a native consumer.
    fn unheap(&mut self, n: hub_ir::Node) {
        if self.steps.depth() > 0 || !matches!(self.g.nodes[n].op, Op::Group { .. } | Op::Prim(_)) {
            return;
        }
        let mut stores = vec![];
        for v in self.g.nodes[n].inputs.iter().filter_map(|v| v.some()) {
            if self.heap.contains(&v) && !self.places.contains(&v) && self.is_placed(v) {
                let t = self.g.tensor(v).clone();
                let buf = self.arena(t.count().times(t.dtype.size() as i64));
                self.places.insert(v, Place::dense(buf, &t));
                stores.push((self.ids[&v], buf));
            }
        }
        if !stores.is_empty() {
            self.steps.push(Step::Store { stores });
        }
    }

    fn binds_natively(&self, n: hub_ir::Node) -> bool {
        let x = self.g.nodes[n].inputs[0];
        matches!(self.g.dtype(x), hub_abi::Dtype::I64 | hub_abi::Dtype::I32)
    }

    /// Symbols bound to the integers of a tensor.
    fn bind(&mut self, n: hub_ir::Node, syms: &[Sym], x: Value) -> Result<(), PlaceError> {
        let (buf, dtype) = (self.whole_buffer(n, x)?, self.g.dtype(x));
        let from = |i: usize| BindFrom::Buf { buf, index: i as u32, dtype };
        let binds = syms.iter().enumerate().map(|(i, s)| (*s, from(i))).collect();
        self.steps.push(Step::Bind { binds });
        if self.steps.depth() == 0 {
            syms.iter().for_each(|s| _ = self.dynamic.remove(s));
        }
        Ok(())
    }

    /// Can a buffer hold it: a tensor of numbers whose size is known once inputs are?
    fn is_placed(&self, v: Value) -> bool {
        matches!(self.g.ty(v), Type::Tensor(t) if self.sized(t))
    }

    fn internal(&self, n: hub_ir::Node, why: impl Into<String>) -> PlaceError {
        PlaceError::Internal { node: self.g.nodes[n].name.clone(), why: why.into() }
    }
}

/// Symbols that input shapes do not bind.
fn dynamic_syms(g: &Graph) -> HashSet<Sym> {
    let mut all: HashSet<Sym> = (0..g.syms.len() as u32).map(Sym).collect();
    for &v in &g.regions[g.root()].params {
        if let Type::Tensor(t) = g.ty(v) {
            for s in t.dims.iter().filter_map(|d| d.as_sym()) {
                all.remove(&s);
            }
        }
    }
    all
}

/// The halo that a group's anchor asks of its first operand, with the region param it reads.
fn anchor_halo(g: &Graph, region: Region) -> Option<(usize, Halo)> {
    let params = &g.regions[region].params;
    g.regions[region].nodes.iter().find_map(|&n| {
        let (geo, fill) = match &g.nodes[n].op {
            Op::Prim(Prim::Conv { geo, .. }) => (geo, 0.0),
            Op::Prim(Prim::Window { geo, op, .. }) => {
                (geo, if *op == hub_ir::ReduceOp::Max { f64::NEG_INFINITY } else { 0.0 })
            }
            _ => return None,
        };
        let read = crate::task::narrow_form(g, g.nodes[n].inputs[0]);
        let at = params.iter().position(|p| *p == read)?;
        Some((at, Halo::of(geo, fill)))
    })
}
