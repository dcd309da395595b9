//! What a session does, for `inspect` and `bench`.

use crate::native::Native;
use hub_abi::arena::{self, Block};
use hub_abi::dim::{Dim, SymEnv};
use hub_abi::pgraph::{PGraph, POp};
use hub_abi::plan::{Buf, Plan, Step};

/// One kernel call or host step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// The model's node.
    pub node: String,
    /// Symbol of the kernel, or the primitive that runs portable.
    pub kernel: String,
    /// The kernel's schedule; empty for a host step.
    pub schedule: String,
    /// The tier, or `portable`.
    pub tier: String,
    /// How often it is called in a run; `None` where symbols are not bound.
    pub calls: Option<i64>,
    /// Independent tiles of a call.
    pub tiles: Option<i64>,
    /// Arithmetic operations of a call.
    pub flops: Option<i64>,
    /// Bytes moved by a call.
    pub bytes: Option<i64>,
}

/// Memory and work of a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the arena that kernels share.
    pub arena: u64,
    /// No placement could be smaller.
    pub arena_bound: u64,
    /// Bytes that the arena would have if no result took the room of an operand.
    pub arena_apart: u64,
    /// Results that do.
    pub in_place: u64,
    /// Bytes of arena and outputs as allocated.
    pub memory: u64,
    /// Bytes of constants.
    pub constants: u64,
    /// Bytes of scratch a worker.
    pub scratch: u64,
}

/// The steps of a plan, flattened in profile order, sizes under `env` where given.
pub fn steps(plan: &Plan, g: &PGraph, env: Option<&SymEnv>) -> Vec<StepInfo> {
    let nothing = SymEnv::default();
    let env = env.unwrap_or(&nothing);
    let root = &g.regions[g.root as usize];
    let mut out = vec![];
    let mut push = |s: &Step, calls: Option<i64>| {
        let at = |d: &Dim| d.eval(env).ok();
        match s {
            Step::Kernel { kernel, tiles, flops, bytes, node, .. } => {
                let k = &plan.kernels[*kernel as usize];
                out.push(StepInfo {
                    node: node.clone(),
                    kernel: k.name.clone(),
                    schedule: k.schedule.clone(),
                    tier: plan.tier.clone(),
                    calls,
                    tiles: at(tiles),
                    flops: at(flops),
                    bytes: at(bytes),
                });
            }
            Step::Host { node, .. } => {
                let n = &root.nodes[*node as usize];
                out.push(host(&n.op, &n.name));
            }
            Step::Repeat { .. } => {}
        }
    };
    for s in &plan.steps {
        match s {
            Step::Repeat { trip, body } => {
                let calls = trip.eval(env).ok();
                body.iter().for_each(|s| push(s, calls));
            }
            s => push(s, Some(1)),
        }
    }
    out
}

fn host(op: &POp, node: &str) -> StepInfo {
    let text = match op {
        POp::Prim(p) => format!("{p:?}"),
        POp::Group(_) => "Group".into(),
        POp::Control(c) => format!("{c:?}"),
        POp::Const(_) => "Const".into(),
    };
    let word = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
    StepInfo {
        node: node.into(),
        kernel: word.into(),
        schedule: String::new(),
        tier: "portable".into(),
        calls: Some(1),
        tiles: None,
        flops: None,
        bytes: None,
    }
}

/// The nodes of a graph that runs portable.
pub fn portable(g: &PGraph) -> Vec<StepInfo> {
    let nodes = g.regions[g.root as usize].nodes.iter();
    nodes.filter(|n| !matches!(n.op, POp::Const(_))).map(|n| host(&n.op, &n.name)).collect()
}

pub(crate) fn summary(n: &Native) -> Summary {
    let bounds = || n.stages.iter().filter_map(|s| s.bounds.last());
    Summary {
        arena: bounds().map(|b| b.arena).sum(),
        arena_bound: bounds().map(|b| b.arena_bound).sum(),
        arena_apart: (0..n.stages.len()).map(|k| apart(n, k)).sum(),
        in_place: n.tier.plan.bufs.iter().filter(|b| over(b)).count() as u64,
        memory: n.memory() as u64,
        constants: n.model.0.bundle.consts().len() as u64,
        scratch: n.tier.plan.scratch,
    }
}

fn over(b: &Buf) -> bool {
    matches!(b, Buf::Arena { over: Some(_), .. })
}

/// Bytes of a stage's arena if every buffer had its own room.
fn apart(n: &Native, stage: usize) -> u64 {
    let Some(bound) = n.stages[stage].bounds.last() else { return 0 };
    let block = |(i, b): (usize, &Buf)| match b {
        Buf::Arena { first, last, .. } if n.tier.flow.buf_stage[i] == stage => {
            Some(Block { bytes: bound.places[i].len, first: *first, last: *last })
        }
        _ => None,
    };
    let blocks: Vec<Block> = n.tier.plan.bufs.iter().enumerate().filter_map(block).collect();
    arena::place(&blocks).map_or(0, |p| p.total)
}
