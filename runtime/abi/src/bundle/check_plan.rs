//! Checks of a plan: steps, blocks and buffers exist, nest within bounds, and buffers live where
//! steps touch them. Sizes are checked when they are bound.

use super::check::{Check, Interface, ensure};
use crate::dtype::Dtype;
use crate::pgraph::{Control, PGraph, POp, RegionId, ValueId};
use crate::plan::{Arg, BindFrom, Block, Buf, BufId, OutputSource, Plan, Source, Step, count};

/// Deepest nesting of blocks of steps.
pub const MAX_BLOCKS_DEEP: usize = 16;
/// Most bytes of scratch that a kernel has a worker.
pub const MAX_SCRATCH: u64 = 1 << 30;
/// Most steps in a plan, those in blocks included.
pub const MAX_STEPS: u32 = 1 << 22;

/// Checks a plan against the graph that it runs and the size of its code section. A plan that names
/// nothing of the graph ([`Plan::names_graph`]) can be checked without.
pub fn plan(p: &Plan, g: Option<&PGraph>, io: Interface, code: u64) -> Check {
    let steps = count(&p.steps);
    ensure(steps <= MAX_STEPS, || format!("{steps} steps, more than {MAX_STEPS}"))?;
    let tier_ok = !p.tier.is_empty() && p.tier.bytes().all(|c| c.is_ascii_alphanumeric());
    ensure(tier_ok && p.tier.len() <= 32, || format!("tier name '{}'", p.tier.escape_debug()))?;
    for (i, k) in p.kernels.iter().enumerate() {
        let end = k.offset.checked_add(k.len);
        let ok = k.len > 0 && end.is_some_and(|e| e <= code);
        ensure(ok, || format!("kernel {i} lies outside the code"))?;
        let scratch = k.scratch;
        ensure(scratch <= MAX_SCRATCH, || format!("kernel {i} has {scratch} bytes of scratch"))?;
    }
    for (i, b) in p.bufs.iter().enumerate() {
        let ok = match b {
            Buf::Arena { first, last, over, .. } => {
                let before =
                    |o: u32| matches!(p.bufs[..i].get(o as usize), Some(Buf::Arena { .. }));
                first <= last && *last < steps && over.is_none_or(before)
            }
            Buf::Const { offset, len } => offset.checked_add(*len).is_some_and(|e| e <= io.consts),
            Buf::Input(n) => (*n as usize) < io.inputs,
            Buf::Output { index, .. } => (*index as usize) < io.outputs,
        };
        ensure(ok, || format!("buffer {i} names what does not exist"))?;
    }
    let parents = g.map_or(vec![], parents);
    let mut w = Walk { p, g, syms: io.syms, parents, next: 0, loops: vec![] };
    w.steps(g.map_or(0, |g| g.root), &p.steps, 0)?;
    ensure(p.outputs.len() == io.outputs, || format!("{} outputs", p.outputs.len()))?;
    for (i, o) in p.outputs.iter().enumerate() {
        let ok = match o {
            OutputSource::Buf(b) => match p.bufs.get(*b as usize) {
                Some(Buf::Arena { last, .. }) => *last + 1 == steps,
                Some(_) => true,
                None => false,
            },
            OutputSource::Heap(v) => g.is_some_and(|g| {
                let root = &g.regions[g.root as usize];
                root.results.get(i) == Some(v)
            }),
        };
        ensure(ok, || format!("output {i} is in no buffer that lives to the end"))?;
    }
    Ok(())
}

/// For each region that a control node runs, the region that this node is in.
fn parents(g: &PGraph) -> Vec<Option<RegionId>> {
    let mut parents = vec![None; g.regions.len()];
    for (i, r) in g.regions.iter().enumerate() {
        for n in &r.nodes {
            let inner = match n.op {
                POp::Control(Control::If { then, orelse }) => [Some(then), Some(orelse)],
                POp::Control(Control::Loop { body, .. } | Control::Scan { body, .. }) => {
                    [Some(body), None]
                }
                _ => [None, None],
            };
            for r in inner.into_iter().flatten() {
                if let Some(p) = parents.get_mut(r as usize) {
                    *p = Some(i as RegionId);
                }
            }
        }
    }
    parents
}

/// Goes through steps in the order of their numbers.
struct Walk<'a> {
    p: &'a Plan,
    g: Option<&'a PGraph>,
    syms: usize,
    parents: Vec<Option<RegionId>>,
    next: u32,
    /// First and last numbers of the open loops.
    loops: Vec<(u32, u32)>,
}

impl Walk<'_> {
    fn steps(&mut self, region: RegionId, steps: &[Step], depth: usize) -> Check {
        ensure(depth <= MAX_BLOCKS_DEEP, || "blocks are nested too deep".into())?;
        for s in steps {
            let at = self.next;
            let fail = |e: String| format!("step {at}: {e}");
            self.next += 1;
            self.step(region, s).map_err(fail)?;
            if s.is_loop() {
                self.loops.push((at, at + s.count() - 1));
            }
            self.own_buffers(s, at).map_err(fail)?;
            for b in s.blocks() {
                self.block(region, b, depth)?;
            }
            if s.is_loop() {
                self.loops.pop();
            }
        }
        Ok(())
    }

    fn block(&mut self, outer: RegionId, b: &Block, depth: usize) -> Check {
        let parent = self.parents.get(b.region as usize);
        let inside = parent.is_some_and(|p| *p == Some(outer) || b.region == outer);
        ensure(inside || self.g.is_none(), || {
            format!("region {} is not inside region {outer}", b.region)
        })?;
        self.steps(b.region, &b.steps, depth + 1)
    }

    fn step(&self, region: RegionId, s: &Step) -> Check {
        match s {
            Step::Kernel { kernel, args, .. } => {
                ensure((*kernel as usize) < self.p.kernels.len(), || {
                    format!("no kernel {kernel}")
                })?;
                let bumps = |a: &Arg| matches!(a, Arg::Ptr { bump, .. } if !bump.is(0));
                let ok = !self.loops.is_empty() || !args.iter().any(bumps);
                ensure(ok, || "a bump outside a repetition".into())
            }
            Step::Host { node, inputs, outputs } => {
                let nodes = &self.graph()?.regions[region as usize].nodes;
                let n = nodes.get(*node as usize).ok_or("its node does not exist")?;
                inputs.iter().try_for_each(|(v, _)| self.tensor(*v))?;
                outputs.iter().try_for_each(|(v, _)| {
                    ensure(n.outputs.contains(v), || format!("value {v} is not its result"))?;
                    self.tensor(*v)
                })
            }
            Step::Bind { binds } => binds.iter().try_for_each(|(s, from)| {
                let ok = match from {
                    BindFrom::Buf { dtype, .. } => {
                        matches!(dtype, Dtype::I32 | Dtype::I64)
                    }
                    BindFrom::Dim(_) => true,
                };
                ensure(ok && (s.0 as usize) < self.syms, || {
                    format!("symbol {} does not exist or is bound from no integer", s.0)
                })
            }),
            Step::Store { stores } => stores.iter().try_for_each(|(v, _)| self.tensor(*v)),
            Step::Move { moves } => moves.iter().try_for_each(|(from, to)| {
                self.source(from)?;
                self.value(*to)
            }),
            Step::Loop { count, carried, .. } => {
                for c in carried {
                    self.source(&c.init)?;
                    self.source(&c.next)?;
                    self.value(c.param)?;
                    self.value(c.out)?;
                }
                let known = count.is_none_or(|s| (s.0 as usize) < self.syms);
                ensure(known, || "its count is an unknown symbol".into())?;
                Ok(())
            }
            Step::Branch { .. } | Step::Repeat { .. } => Ok(()),
        }
    }

    fn graph(&self) -> Result<&PGraph, String> {
        self.g.ok_or_else(|| "it names the graph".into())
    }

    fn value(&self, v: ValueId) -> Check {
        let values = self.graph()?.values.len();
        ensure((v as usize) < values, || format!("value {v} does not exist"))
    }

    fn tensor(&self, v: ValueId) -> Check {
        let ok = self.graph()?.values.get(v as usize).is_some_and(|t| t.as_tensor().is_some());
        ensure(ok, || format!("value {v} is no tensor"))
    }

    fn source(&self, s: &Source) -> Check {
        match s {
            Source::Heap(v) => self.value(*v),
            Source::Buf { value, .. } => self.tensor(*value),
        }
    }

    /// The buffers that a step touches exist, live there, and may be written where they are. What
    /// the step of a loop touches is touched in every iteration.
    fn own_buffers(&self, s: &Step, at: u32) -> Check {
        let mut done = Ok(());
        s.each_buf(&mut |b, write| {
            if done.is_ok() {
                done = self.buffer(b, at, write);
            }
        });
        done
    }

    fn buffer(&self, b: BufId, at: u32, write: bool) -> Check {
        let ok = match self.p.bufs.get(b as usize) {
            Some(Buf::Arena { first, last, .. }) => {
                let whole = |&(s, e): &(u32, u32)| {
                    (*first > s && *last <= e) || (*first <= s && *last >= e)
                };
                (*first..=*last).contains(&at) && self.loops.iter().all(whole)
            }
            Some(Buf::Const { .. } | Buf::Input(_)) => !write,
            Some(Buf::Output { .. }) => true,
            None => false,
        };
        ensure(ok, || format!("buffer {b} does not exist, does not live here, or is read-only"))
    }
}
