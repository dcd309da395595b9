//! `hubc inspect`: what a model or bundle is.

use super::compare::is_bundle;
use crate::args::{Inspect, Running};
use crate::failure::Failure;
use crate::limits::Limits;
use crate::plain;
use crate::report::{SCHEMA, arena, kib};
use crate::tensors::{self, Inputs, Opened};
use hub_abi::bundle::{IoInfo, Manifest};
use hub_abi::pgraph::PGraph;
use hub_abi::plan::{Plan, Step};
use hub_abi::shape::Type;
use hub_frontend::LoadOptions;
use hub_ir::{Graph, Op};
use hub_runtime::PublicKey;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Prints inputs, outputs, and operators (of a model) or steps (of a bundle).
pub fn run(a: Inspect) -> Result<(), Failure> {
    if is_bundle(&a.model) { bundle(&a) } else { model(&a) }
}

fn bundle(a: &Inspect) -> Result<(), Failure> {
    let running = Running {
        threads: 1,
        device: "cpu".into(),
        cpu: a.cpu.clone(),
        no_verify: true,
        limits: a.limits.clone(),
    };
    // Nothing is run here: what a run would take is no reason to say nothing of the bundle.
    let mut o = tensors::open(&a.model, &running, Inputs::Given)?;
    // Sizes of steps are those of a binding; a model with dynamic dims gets one made up.
    tensors::fitting(&mut o, &tensors::sizes(&a.dims)?, 1)?;
    let plans = plans(&o, o.model.graph()?);
    if a.json {
        println!("{}", bundle_json(a, &o, &plans));
    } else {
        bundle_text(a, &o, &plans);
    }
    Ok(())
}

fn bundle_json(a: &Inspect, o: &Opened, plans: &[Planned]) -> Value {
    let m = o.model.manifest();
    let steps: Vec<Value> = o
        .session
        .steps()
        .iter()
        .map(|s| {
            json!({ "node": s.node, "within": s.within, "kernel": s.kernel, "schedule": s.schedule, "tier": s.tier,
                    "calls": s.calls, "tiles": s.tiles, "flops": s.flops, "bytes": s.bytes })
        })
        .collect();
    let sections: Vec<Value> =
        m.sections.iter().map(|s| json!({ "name": s.name, "bytes": s.len })).collect();
    let s = o.session.summary();
    json!({ "schema": SCHEMA, "bundle": a.model, "name": m.name, "precision": m.precision,
            "source": m.provenance.format, "compiler": m.provenance.compiler,
            "producer": m.provenance.producer, "source_blake3": source(m),
            "options": m.provenance.options,
            "inputs": io_json(&m.inputs, m), "outputs": io_json(&m.outputs, m),
            "tiers": m.tiers.iter().map(|t| &t.name).collect::<Vec<_>>(),
            "tier": o.session.tier(), "signed_by": signer(o), "sections": sections, "steps": steps,
            "plans": plans.iter().map(Planned::json).collect::<Vec<_>>(),
            "arena_bytes": s.arena, "arena_bound_bytes": s.arena_bound, "scratch_bytes": s.scratch, "session_bytes": s.memory,
            "arena_apart_bytes": s.arena_apart, "in_place": s.in_place,
            "constant_bytes": s.constants })
}

/// BLAKE3 of the model's file, if it came from one.
fn source(m: &Manifest) -> Option<String> {
    let hash = &m.provenance.source;
    let hex = || hash.iter().map(|b| format!("{b:02x}")).collect();
    hash.iter().any(|b| *b != 0).then(hex)
}

/// The key that the bundle's signature is said to be of.
fn signer(o: &Opened) -> Option<String> {
    o.model.bundle().signature().map(|s| PublicKey(s.key).to_string())
}

fn io_json(io: &[IoInfo], m: &Manifest) -> Vec<Value> {
    io.iter().map(|i| json!({ "name": i.name, "type": type_text(&i.ty, m) })).collect()
}

fn type_text(t: &Type, m: &Manifest) -> String {
    match t {
        Type::Tensor(t) => {
            let dims: Vec<String> = t.dims.iter().map(|d| d.display(&m.syms).to_string()).collect();
            format!("{}[{}]", t.dtype, dims.join(", "))
        }
        Type::Seq(t) => format!("seq({})", type_text(t, m)),
        Type::Opt(t) => format!("opt({})", type_text(t, m)),
    }
}

fn bundle_text(a: &Inspect, o: &Opened, plans: &[Planned]) {
    let m = o.model.manifest();
    let (name, format) = (plain(&m.name), plain(&m.provenance.format));
    println!("{} {name}: from {format}, {}", a.model.display(), plain(&m.precision));
    if let Some(hash) = source(m) {
        println!("  source  BLAKE3 {hash}, {}", plain(&m.provenance.producer));
    }
    for (what, io) in [("input", &m.inputs), ("output", &m.outputs)] {
        for i in io {
            println!("  {what:<7} {}", plain(&format!("{}: {}", i.name, type_text(&i.ty, m))));
        }
    }
    for s in &m.syms {
        println!("  symbol  {} in {}..={}", plain(&s.name), s.min, s.max);
    }
    for s in &m.sections {
        println!("  section {:<20} {}", plain(&s.name), kib(s.len));
    }
    let s = o.session.summary();
    println!("  arena   {}", arena(&s));
    if let Some(key) = signer(o) {
        println!("  signed  by {key}");
    }
    let tiers: Vec<&str> = m.tiers.iter().map(|t| &t.name[..]).collect();
    println!("  tiers   {}; runs {}", tiers.join(", "), o.session.tier());
    for p in plans.iter().filter(|p| p.tier != o.session.tier()) {
        println!("  plan    {}", p.text());
        p.host.iter().for_each(|n| println!("          on the host: {}", plain(n)));
    }
    let number = |n: Option<i64>| n.map_or("?".into(), |n| n.to_string());
    let mut within = String::new();
    for (i, s) in o.session.steps().iter().enumerate() {
        if s.within != within {
            within.clone_from(&s.within);
            let end = if within.is_empty() { "end" } else { &within };
            println!("        {end}");
        }
        let calls = s.calls.filter(|c| *c != 1).map_or(String::new(), |c| format!(" ×{c}"));
        println!(
            "  {i:>4}  {:<9} {:<28} {:<34} tiles {:>5}{calls}  {}",
            s.tier,
            plain(&s.kernel),
            plain(&s.schedule),
            number(s.tiles),
            plain(&s.node)
        );
    }
}

/// What a tier's plan is made of.
#[derive(Default)]
struct Planned {
    tier: String,
    steps: usize,
    /// Calls of prepared operators of a device, and of kernels.
    operators: usize,
    kernels: usize,
    /// Nodes that the portable interpreter runs.
    host: Vec<String>,
}

impl Planned {
    fn json(&self) -> Value {
        json!({ "tier": self.tier, "steps": self.steps, "operators": self.operators,
                "kernels": self.kernels, "host": self.host })
    }

    fn text(&self) -> String {
        let Planned { tier, steps, operators, kernels, host } = self;
        let host = host.len();
        format!(
            "{tier}: {steps} steps, {kernels} of kernels, {operators} of operators, {host} on the host"
        )
    }

    fn count(&mut self, g: &PGraph, plan: &Plan, region: u32, steps: &[Step]) {
        for s in steps {
            match s {
                Step::Kernel { kernel, .. } => {
                    let schedule = plan.kernels.get(*kernel as usize).map(|k| &k.schedule[..]);
                    match schedule.is_some_and(|s| s.starts_with("operator ")) {
                        true => self.operators += 1,
                        false => self.kernels += 1,
                    }
                }
                Step::Host { node, .. } => {
                    let found = g.regions.get(region as usize);
                    let found = found.and_then(|r| r.nodes.get(*node as usize));
                    self.host.push(found.map_or(String::new(), |n| n.name.clone()));
                }
                s => s.blocks().for_each(|b| self.count(g, plan, b.region, &b.steps)),
            }
        }
    }
}

/// Every tier's plan, whether it runs here or not.
fn plans(o: &Opened, g: &PGraph) -> Vec<Planned> {
    let one = |name: &String| {
        let plan = o.model.plan(name).ok()?;
        let steps = hub_abi::plan::count(&plan.steps) as usize;
        let mut p = Planned { tier: name.clone(), steps, ..Planned::default() };
        p.count(g, &plan, g.root, &plan.steps);
        Some(p)
    };
    o.model.manifest().tiers.iter().filter_map(|t| one(&t.name)).collect()
}

fn model(a: &Inspect) -> Result<(), Failure> {
    let limits = Limits::of(&a.limits.limits)?.model;
    let loaded = hub_frontend::load(&a.model, &LoadOptions { limits, ..LoadOptions::default() })?;
    let g = &loaded.graph;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for n in g.walk() {
        *counts.entry(op_name(g, n)).or_default() += 1;
    }
    let root = &g.regions[g.root()];
    let io = |names: &[String], values: &[hub_ir::Value]| {
        let m = Manifest { syms: g.syms.clone(), ..Manifest::default() };
        let typed = names.iter().zip(values);
        typed.map(|(n, &v)| (n.clone(), type_text(g.ty(v), &m))).collect::<Vec<_>>()
    };
    let (ins, outs) = (io(&g.inputs, &root.params), io(&g.outputs, &root.results));
    if a.json {
        let pairs = |v: &[(String, String)]| -> Vec<Value> {
            v.iter().map(|(n, t)| json!({ "name": n, "type": t })).collect()
        };
        println!(
            "{}",
            json!({ "schema": SCHEMA, "model": a.model, "format": loaded.provenance.format,
                    "inputs": pairs(&ins), "outputs": pairs(&outs), "operators": counts })
        );
        return Ok(());
    }
    println!("{}: {}", a.model.display(), loaded.provenance.format);
    let line = |(n, t): &(String, String)| plain(&format!("{n}: {t}"));
    ins.iter().for_each(|i| println!("  input   {}", line(i)));
    outs.iter().for_each(|o| println!("  output  {}", line(o)));
    counts.iter().for_each(|(o, n)| println!("  {n:>6}  {}", plain(o)));
    Ok(())
}

/// Name of a node's operation, as `inspect` and reports count it.
pub fn op_name(g: &Graph, n: hub_ir::Node) -> String {
    match &g.nodes[n].op {
        Op::Const(_) => "const".into(),
        Op::Prim(p) => hub_ir::build::prim_name(p),
        Op::Source(s) => s.name().into(),
        Op::Group { kind, .. } => format!("group {kind:?}"),
        Op::Control(c) => {
            let text = format!("{c:?}");
            text.split([' ', '{']).next().unwrap_or_default().to_string()
        }
    }
}
