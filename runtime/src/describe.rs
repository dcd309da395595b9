//! What a session does, for `inspect` and `bench`.

use crate::native::Native;
use hub_abi::arena::{self, Block};
use hub_abi::dim::{Dim, SymEnv};
use hub_abi::pgraph::{PGraph, POp, RegionId};
use hub_abi::plan::{Buf, Plan, Step};

/// One kernel call or host step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// The model's node.
    pub node: String,
    /// The branches, loops and repetitions around it, the outermost first, joined by ` / `.
    pub within: String,
    /// Symbol of the kernel, or the primitive that runs portable.
    pub kernel: String,
    /// The kernel's schedule; empty for a host step.
    pub schedule: String,
    /// The tier, or `portable`.
    pub tier: String,
    /// How often it is called in a run; `None` where symbols are not bound or the model's data
    /// decides.
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
    /// Bytes of the arena that kernels share, workers' scratch and outputs included.
    pub arena: u64,
    /// Bytes of the largest set of tensors that live at one step, outputs included: no placement of
    /// them is smaller.
    pub arena_bound: u64,
    /// Bytes that tensors would need if no result took the room of an operand.
    pub arena_apart: u64,
    /// Results that do.
    pub in_place: u64,
    /// Bytes of arenas as allocated.
    pub memory: u64,
    /// Bytes of constants.
    pub constants: u64,
    /// Most bytes of scratch that a step has for all its workers.
    pub scratch: u64,
}

/// The steps of a plan, flattened in profile order, sizes under `env` where given. The graph is for plans
/// that name it.
pub fn steps(plan: &Plan, g: Option<&PGraph>, env: Option<&SymEnv>) -> Vec<StepInfo> {
    let nothing = SymEnv::default();
    let mut l = Lister { plan, g, env: env.unwrap_or(&nothing), out: vec![] };
    l.list(g.map_or(0, |g| g.root), &plan.steps, &[], Some(1));
    l.out
}

struct Lister<'a> {
    plan: &'a Plan,
    g: Option<&'a PGraph>,
    env: &'a SymEnv,
    out: Vec<StepInfo>,
}

impl Lister<'_> {
    /// Steps of a region that is run `calls` times; `within` names the steps around it.
    fn list(&mut self, region: RegionId, steps: &[Step], within: &[String], calls: Option<i64>) {
        let at = |d: &Dim| d.eval(self.env).ok();
        for s in steps {
            let (names, calls) = match s {
                Step::Kernel { kernel, tiles, flops, bytes, node, .. } => {
                    let k = &self.plan.kernels[*kernel as usize];
                    self.out.push(StepInfo {
                        node: node.clone(),
                        within: within.join(" / "),
                        kernel: k.name.clone(),
                        schedule: k.schedule.clone(),
                        tier: self.plan.tier.clone(),
                        calls,
                        tiles: at(tiles),
                        flops: at(flops),
                        bytes: at(bytes),
                    });
                    continue;
                }
                Step::Host { node, .. } => {
                    let Some(g) = self.g else { continue };
                    let n = &g.regions[region as usize].nodes[*node as usize];
                    let within = within.join(" / ");
                    self.out.push(StepInfo { within, calls, ..host(&n.op, &n.name) });
                    continue;
                }
                Step::Bind { .. } | Step::Move { .. } | Step::Store { .. } => continue,
                Step::Repeat { trip, .. } => {
                    let trip = at(trip);
                    let name = trip.map_or("repeat".into(), |t| format!("repeat ×{t}"));
                    let calls = calls.zip(trip).and_then(|(a, b)| a.checked_mul(b));
                    ([name, String::new()], calls)
                }
                Step::Branch { node, .. } => {
                    ([format!("if {node}: then"), format!("if {node}: else")], None)
                }
                Step::Loop { node, .. } => ([format!("loop {node}"), String::new()], None),
            };
            for (b, name) in s.blocks().zip(names) {
                let inner = [within, &[name]].concat();
                self.list(b.region, &b.steps, &inner, calls);
            }
        }
    }
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
        within: String::new(),
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
        scratch: bounds().map(|b| b.scratch).max().unwrap_or(0),
    }
}

fn over(b: &Buf) -> bool {
    matches!(b, Buf::Arena { over: Some(_), .. })
}

/// Bytes of a stage's tensors if every buffer had its own room.
fn apart(n: &Native, stage: usize) -> u64 {
    let Some(bound) = n.stages[stage].bounds.last() else { return 0 };
    let block = |(i, b): (usize, &Buf)| match b {
        Buf::Arena { first, last, .. } if n.tier.flow.buf_stage[i] == stage => {
            Some(Block { bytes: bound.places[i].len, first: *first, last: *last })
        }
        Buf::Output { .. } if n.tier.flow.buf_stage[i] == stage => {
            let first = n.tier.flow.output_first[i];
            Some(Block { bytes: bound.places[i].len, first, last: u32::MAX })
        }
        _ => None,
    };
    let blocks: Vec<Block> = n.tier.plan.bufs.iter().enumerate().filter_map(block).collect();
    arena::place(&blocks).map_or(0, |p| p.total)
}
