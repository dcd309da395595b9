//! A session's native side: its memory, its cached bindings, and how inputs bind symbols.

use crate::accept::{accept, check_constraints};
use crate::bind::{Binder, slots};
use crate::device::Queue;
use crate::device::far::{Far, Held, Room};
use crate::error::Error;
use crate::host::Host;
use crate::model::{Model, Runs, Tier};
use crate::ops::{Bound, Op, Place};
use crate::pool::Pool;
use crate::tensor::Given;
use hub_abi::dim::SymEnv;
use hub_abi::plan::{Buf, OutputSource, Plan};
use hub_portable::Limits;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Bindings kept for each stage.
const CACHED: usize = 4;

/// A stage's memory and its last bindings, most recent last.
#[derive(Default)]
pub struct Stage {
    region: Option<Room>,
    pub bounds: Vec<Bound>,
}

/// Nanoseconds by profile slot, and how many runs they are from.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// One a kernel or host step, in the order of [`crate::Session::steps`].
    pub nanos: Vec<u64>,
    /// Runs counted.
    pub runs: u64,
}

/// Memory, bindings and threads of a session that runs a tier.
pub struct Native {
    pub model: Model,
    pub tier: Arc<Tier>,
    pub pool: Pool,
    /// Where kernels go that this processor does not run.
    pub queue: Option<Box<dyn Queue>>,
    /// Memory on a device that has its own; all addresses are then that device's.
    pub far: Option<Far>,
    pub status: Box<AtomicU32>,
    pub stages: Vec<Stage>,
    pub env: SymEnv,
    pub host: Host,
    /// What the caller allows, and what that is for the present inputs.
    asked: Limits,
    /// Bytes of the model's constants.
    const_bytes: u64,
    pub limits: Limits,
    /// Steps that loops of the present run made, and their work.
    pub steps: u64,
    pub work: u64,
    /// For each buffer that is the only source of an output and its own memory: the output. A run
    /// may let it be the caller's memory.
    pub direct: Vec<Option<u32>>,
    /// Addresses of input and output buffers in the present run.
    pub now: Vec<u64>,
    /// Inputs that no buffer holds, and their values' names: they go by the heap.
    pub heaped: Vec<(usize, u32)>,
    pub profile: Option<Profile>,
}

fn direct_outputs(plan: &Plan) -> Vec<Option<u32>> {
    let of = |(i, b): (usize, &Buf)| match b {
        Buf::Output { index, .. } => {
            let source = OutputSource::Buf(i as u32);
            let once = plan.outputs.iter().filter(|o| **o == source).count() == 1;
            (once && plan.outputs[*index as usize] == source).then_some(*index)
        }
        _ => None,
    };
    plan.bufs.iter().enumerate().map(of).collect()
}

fn heaped_inputs(plan: &Plan, model: &Model) -> Result<Vec<(usize, u32)>, Error> {
    // Without the graph there is no heap, and nothing uses what is in no buffer.
    if !plan.names_graph() {
        return Ok(vec![]);
    }
    let g = model.graph()?;
    let placed =
        |i: usize| plan.bufs.iter().any(|b| matches!(b, Buf::Input(k) if *k as usize == i));
    let params = &g.regions[g.root as usize].params;
    Ok(params.iter().copied().enumerate().filter(|(i, _)| !placed(*i)).collect())
}

impl Native {
    /// A session on `model` that runs `tier`.
    pub fn new(
        model: &Model,
        tier: Arc<Tier>,
        pool: Pool,
        limits: Limits,
    ) -> Result<Native, Error> {
        let (mut queue, mut far) = (None, None);
        if let Runs::There(there) = &tier.code {
            queue = Some(there.kernels.queue()?);
            let plan = &tier.plan;
            let sizes = (plan.bufs.len(), plan.outputs.len(), slots(&plan.steps) as usize);
            let new = |consts: &Arc<Held>| Far::new(&there.kernels, consts.clone(), sizes);
            far = there.consts.as_ref().map(new).transpose()?;
        }
        Ok(Native {
            model: model.clone(),
            pool,
            queue,
            far,
            status: Box::new(AtomicU32::new(0)),
            stages: tier.flow.stages.iter().map(|_| Stage::default()).collect(),
            env: SymEnv::new(model.manifest().syms.len()),
            host: Host::new(limits.given(0)),
            asked: limits,
            const_bytes: model.manifest().const_bytes,
            limits: limits.given(0),
            steps: 0,
            work: 0,
            direct: direct_outputs(&tier.plan),
            now: vec![0; tier.plan.bufs.len()],
            heaped: heaped_inputs(&tier.plan, model)?,
            tier,
            profile: None,
        })
    }

    /// Binds symbols to the inputs' dims and checks those.
    pub fn accept(&mut self, inputs: &[Option<Given<'_>>]) -> Result<(), Error> {
        accept(self.model.manifest(), inputs, &mut self.env)?;
        let bytes = inputs.iter().flatten().filter_map(Given::need);
        let bytes = bytes.fold(self.const_bytes, |n, b| n.saturating_add(b as u64));
        self.limits = self.asked.given(bytes);
        (self.steps, self.work) = (0, 0);
        self.share_memory();
        Ok(())
    }

    /// Bytes of arenas.
    pub fn memory(&self) -> usize {
        memory(&self.stages) as usize
    }

    /// Leaves the heap what the arenas have not taken.
    fn share_memory(&mut self) {
        let live_bytes = self.limits.live_bytes.saturating_sub(memory(&self.stages));
        self.host.limits = Limits { live_bytes, ..self.limits };
    }

    /// Counts the work of a bound stage against what a run may do.
    pub fn begin(&mut self, k: usize) -> Result<(), Error> {
        let work = self.stages[k].bounds.last().map_or(0, |b| b.work);
        self.work = self.work.saturating_add(work);
        within(self.work, self.limits.work)
    }

    /// Makes the binding for the present symbols the stage's last one.
    pub fn bind_stage(&mut self, k: usize) -> Result<(), Error> {
        // What blocks bound for themselves is no part of the binding.
        let known = self.tier.flow.known.iter().map(|first| *first <= k);
        for (v, _) in self.env.0.iter_mut().zip(known).filter(|(_, known)| !known) {
            *v = None;
        }
        let stage = &mut self.stages[k];
        if let Some(i) = stage.bounds.iter().position(|b| b.key == self.env.0) {
            stage.bounds[i..].rotate_left(1);
            return Ok(());
        }
        let manifest = self.model.manifest();
        check_constraints(manifest, &self.env)?;
        let here = (
            self.model.0.bundle.consts().as_ptr().addr() as u64,
            (self.status.as_ptr().addr() as u64, 0),
        );
        let (consts, status) = match &self.far {
            Some(far) => (far.consts.at, (far.status(), 4)),
            None => here,
        };
        let binder = Binder {
            plan: &self.tier.plan,
            flow: &self.tier.flow,
            manifest,
            consts,
            status,
            workers: self.pool.workers() as u64,
        };
        let work = binder.work(k, &self.env);
        within(self.work.saturating_add(work), self.limits.work)?;
        let taken = memory(&self.stages[..k]).saturating_add(self.host.live());
        let room = self.limits.live_bytes.saturating_sub(taken);
        let layout = binder.layout(k, &self.env, room)?;
        let need = usize::try_from(layout.total).map_err(|e| Error::Limit(e.to_string()))?;
        if self.stages[k].region.as_ref().is_none_or(|r| r.len() < need) {
            // Bindings hold addresses in the region that goes away.
            self.stages[k..].iter_mut().for_each(|s| s.bounds.clear());
            self.stages[k].region = None;
            if layout.total.saturating_add(memory(&self.stages[k..])) > room {
                self.stages[k..].iter_mut().for_each(|s| s.region = None);
            }
            self.stages[k].region = Some(Room::new(self.far.as_ref(), need)?);
        }
        let before: Vec<Place> = match k.checked_sub(1) {
            Some(p) => self.stages[p].bounds.last().map_or(vec![], |b| b.places.clone()),
            None => vec![],
        };
        let stage = &mut self.stages[k];
        let region = stage.region.as_ref().map_or(0, Room::at);
        let mut bound = binder.bind(k, &self.env, &layout, region, &before)?;
        bound.work = work;
        if let Some(queue) = &self.queue {
            for op in &bound.ops {
                if let Op::Call { kernel, args, .. } = op {
                    queue.prepare(*kernel, &bound.base[*args as usize..])?;
                }
            }
        }
        if stage.bounds.len() == CACHED {
            stage.bounds.remove(0);
        }
        stage.bounds.push(bound);
        self.share_memory();
        Ok(())
    }
}

/// Bytes of stages' arenas.
fn memory(stages: &[Stage]) -> u64 {
    stages.iter().filter_map(|s| s.region.as_ref()).map(|r| r.len() as u64).sum()
}

/// Refuses work above a run's limit.
fn within(work: u64, limit: u64) -> Result<(), Error> {
    if work <= limit {
        return Ok(());
    }
    let what = format!("the amount of work of a run would be {work}, the limit is {limit}");
    Err(Error::Limit(format!("{what}: raise the session's limits")))
}
