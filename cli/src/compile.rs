//! The way from a model to a bundle, as every compiling command takes it.

use crate::args::{Build, Precision};
use crate::failure::{Failure, INTERNAL, UNSUPPORTED, USAGE};
use crate::limits::Limits;
use crate::progress::Progress;
use crate::report::{PrecisionReport, Report, TierReport};
use crate::{tensors, tune, verify};
use hub_abi::bundle::{BundleWriter, Manifest, Provenance, TierCode};
use hub_codegen::place::{self, Backend};
use hub_codegen::targets::ascend::AscendBackend;
use hub_codegen::targets::simt::SimtBackend;
use hub_codegen::targets::x86::{Choices, X86Backend};
use hub_frontend::{LoadOptions, Loaded};
use hub_ir::{Graph, Op};
use hub_passes::FoldLimits;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to compile, and how.
pub struct Job {
    /// The model.
    pub model: PathBuf,
    /// The bundle.
    pub output: PathBuf,
    /// Native tiers, best first; empty for a portable bundle.
    pub tiers: Vec<String>,
    /// Dimensions, and limits of what is read.
    pub load: LoadOptions,
    /// Limits of folding constants.
    pub fold: FoldLimits,
    /// Limits of making kernels.
    pub compile: place::Limits,
    /// Limits of runs that check parity.
    pub run: hub_runtime::Limits,
    /// Admit no algorithm that adds error.
    pub exact: bool,
    /// Seconds to search kernels for.
    pub tune: Option<f64>,
    /// Number format of what contractions multiply.
    pub precision: hub_passes::Precision,
    /// Check parity with the reference.
    pub verify: bool,
    /// Verify the graph after each pass.
    pub check_ir: bool,
    /// Passes to print the graph after; `all` for every one.
    pub print_after: Vec<String>,
    /// Print the optimised graph.
    pub emit_ir: bool,
    /// Print kernels.
    pub emit_kernels: bool,
    /// Print machine code.
    pub emit_asm: bool,
    /// Print PTX.
    pub emit_ptx: bool,
    /// Print OpenCL C.
    pub emit_opencl: bool,
    /// Print Ascend C, and the operators beside it.
    pub emit_ascend: bool,
}

/// CPU tiers that a bundle may hold, best first.
pub const TIERS: [&str; 4] = ["amx", "avx512bf16", "avx512", "avx2"];
/// Those that have nothing over the next without bf16.
const BF16_TIERS: [&str; 2] = ["amx", "avx512bf16"];
/// What targets beside the processor add: PTX for compute capability 8.0 and above, OpenCL C
/// 1.2, operators and Ascend C for NPU architecture 2201.
const DEVICES: [(&str, &str); 3] = [("cuda", "sm80"), ("opencl", "cl12"), ("ascend", "dav2201")];

impl Job {
    /// A job with defaults.
    pub fn plain(model: &Path, output: &Path) -> Job {
        Job {
            model: model.to_path_buf(),
            output: output.to_path_buf(),
            tiers: default_tiers(),
            load: LoadOptions::default(),
            fold: FoldLimits::default(),
            compile: place::Limits::default(),
            run: hub_runtime::Limits::default(),
            exact: false,
            tune: None,
            precision: hub_passes::Precision::F32,
            verify: false,
            check_ir: false,
            print_after: vec![],
            emit_ir: false,
            emit_kernels: false,
            emit_asm: false,
            emit_ptx: false,
            emit_opencl: false,
            emit_ascend: false,
        }
    }

    /// The job that a command line asks for.
    pub fn of(b: &Build) -> Result<Job, Failure> {
        refuse_what_is_not_there(b)?;
        if same_file(&b.model, &b.output) {
            let what = format!("{} is the model itself", b.output.display());
            return Err(Failure::new(USAGE, what).help("write the bundle to another file"));
        }
        let mut job = Job::plain(&b.model, &b.output);
        match b.precision {
            Precision::Bf16 => job.set_bf16(),
            Precision::F16 => job.precision = hub_passes::Precision::F16,
            _ => {}
        }
        if !b.cpu.is_empty() {
            job.tiers = tiers(&b.cpu)?;
            let only = job.tiers.iter().find(|t| BF16_TIERS.contains(&&t[..]));
            if let (Some(t), Precision::F32) = (only, b.precision) {
                let failure =
                    Failure::new(UNSUPPORTED, format!("tier {t} is for --precision bf16"));
                return Err(failure.help("use --cpu avx512, or --precision bf16"));
            }
        }
        let has = |target: &str| b.target.iter().any(|t| t == target);
        if !has("cpu") {
            if !b.cpu.is_empty() {
                let failure = Failure::new(USAGE, "--cpu without target cpu");
                return Err(failure.help("use --target cpu,cuda"));
            }
            job.tiers.clear();
        }
        for (target, tier) in DEVICES {
            if has(target) {
                job.tiers.push(tier.into());
            }
        }
        job.load = load_options(&b.dims, &b.specialize)?;
        job.limit(Limits::of(&b.limits.limits)?);
        (job.exact, job.verify, job.tune) = (b.exact, b.verify, b.tune);
        if job.tune.is_some_and(|s| !(s > 0.0 && s <= 86_400.0)) {
            return Err(Failure::new(USAGE, "--tune takes seconds, above 0 and at most 86400"));
        }
        Ok(job)
    }
}

/// Are they one existing file?
pub fn same_file(a: &Path, b: &Path) -> bool {
    let at = |p: &Path| p.canonicalize().ok();
    at(a).is_some() && at(a) == at(b)
}

/// What `--dim` and `--specialize` say.
pub fn load_options(dims: &[String], specialize: &[String]) -> Result<LoadOptions, Failure> {
    let mut load = LoadOptions::default();
    for d in dims {
        let (name, bounds) = bounds(d)?;
        load.bounds.insert(name, bounds);
    }
    load.fixed = tensors::sizes(specialize)?;
    Ok(load)
}

impl Job {
    /// Operands of contractions are rounded to bf16; every tier is in the bundle.
    pub fn set_bf16(&mut self) {
        self.precision = hub_passes::Precision::Bf16;
        self.tiers = TIERS.map(String::from).to_vec();
    }

    /// Sets every limit.
    pub fn limit(&mut self, limits: Limits) {
        (self.load.limits, self.fold) = (limits.model, limits.fold);
        (self.compile, self.run) = (limits.compile, limits.run);
    }
}

/// Options that the command line fixes but that this version has no meaning for.
fn refuse_what_is_not_there(b: &Build) -> Result<(), Failure> {
    let absent = |what: String| Failure::new(UNSUPPORTED, format!("{what} is not in this version"));
    if b.target.is_empty() {
        return Err(Failure::new(USAGE, "no target").help("use --target cpu"));
    }
    let known = |t: &str| t == "cpu" || DEVICES.iter().any(|(name, _)| *name == t);
    if let Some(t) = b.target.iter().find(|t| !known(t)) {
        let failure = Failure::new(USAGE, format!("there is no target '{t}'"));
        let help = "use --target cpu, cuda, opencl or ascend, or several: cpu,opencl";
        return Err(failure.help(help));
    }
    if b.precision == Precision::Int8 {
        return Err(absent("precision int8".into()).help("use --precision f32, bf16 or f16"));
    }
    let later = [("--calibrate", b.calibrate.is_some()), ("--max-drop", b.max_drop.is_some())];
    later.iter().find(|o| o.1).map_or(Ok(()), |(option, _)| Err(absent(option.to_string())))
}

/// AVX2 and this machine's best for f32.
fn default_tiers() -> Vec<String> {
    let plain = || TIERS.iter().filter(|t| !BF16_TIERS.contains(t));
    let best = plain().find(|t| hub_runtime::supports(t));
    let of = |t: &&&str| **t == "avx2" || Some(*t) == best;
    plain().filter(of).map(|t| t.to_string()).collect()
}

fn tiers(asked: &[String]) -> Result<Vec<String>, Failure> {
    for t in asked {
        if !TIERS.contains(&&t[..]) && t != "portable" {
            let failure = Failure::new(USAGE, format!("there is no CPU tier '{t}'"));
            return Err(failure.help("tiers: amx, avx512bf16, avx512, avx2, portable"));
        }
    }
    let has = |t: &&&str| asked.iter().any(|a| a == **t);
    Ok(TIERS.iter().filter(has).map(|t| t.to_string()).collect())
}

fn bounds(option: &str) -> Result<(String, (i64, i64)), Failure> {
    let parsed = option.rsplit_once('=').and_then(|(name, range)| {
        let (lo, hi) = range.split_once("..")?;
        let hi = hi.strip_prefix('=').unwrap_or(hi);
        Some((name.to_string(), (lo.parse().ok()?, hi.parse().ok()?)))
    });
    parsed.filter(|(_, (lo, hi))| 0 <= *lo && lo <= hi).ok_or_else(|| {
        Failure::new(USAGE, format!("'{option}' is not NAME=MIN..MAX with 0 <= MIN <= MAX"))
    })
}

/// Loads, optimises, compiles, writes and, where asked, verifies; gives what was done.
pub fn compile(job: &Job) -> Result<Report, Failure> {
    let start = Instant::now();
    let progress = Progress::new();
    progress.say("reading the model");
    let mut loaded = hub_frontend::load(&job.model, &job.load)?;
    let mut report = Report {
        model: job.model.display().to_string(),
        format: loaded.provenance.format.clone(),
        before: nodes(&loaded.graph),
        bundle: job.output.display().to_string(),
        warnings: std::mem::take(&mut loaded.warnings),
        ..Report::default()
    };
    progress.say("optimising the graph");
    let mut passed = optimise(job, &mut loaded.graph)?;
    report.precision = precision(job, &mut passed);
    let fired = passed.fired.into_iter();
    report.rules = fired.map(|(rule, n)| (rule.to_string(), n as usize)).collect();
    report.after = nodes(&loaded.graph);
    if job.emit_ir {
        println!("{}", hub_ir::text::print(&loaded.graph));
    }
    progress.say("compiling kernels");
    let mut choices = Choices::new();
    let here = job.tiers.iter().any(|t| hub_runtime::supports(t));
    if let Some(seconds) = job.tune.filter(|_| here) {
        progress.say("tuning: measuring kernels");
        let tuned = tune::search(job, seconds, &loaded)?;
        choices = tuned.choices.clone();
        report.tuned = Some(tuned);
    }
    let compiled = kernels(job, &job.tiers, &choices, &mut loaded.graph)?;
    report.tiers = compiled.tiers.iter().map(tier_report).collect();
    emit(job, &compiled);
    progress.say("writing the bundle");
    report.bytes = write(job, &job.output, &loaded, compiled)?;
    if job.verify {
        progress.say("checking parity with the reference");
        report.parity =
            verify::parity(&job.output, &job.tiers, report.precision.is_some(), job.run)?;
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Compiles a graph for tiers. `choices` are for the first of these that runs here.
pub fn kernels(
    job: &Job,
    tiers: &[String],
    choices: &Choices,
    g: &mut Graph,
) -> Result<place::Compiled, Failure> {
    let mut backends: Vec<Box<dyn Backend>> = vec![];
    let here = tiers.iter().position(|t| hub_runtime::supports(t));
    for (i, tier) in tiers.iter().enumerate() {
        if let Some(device) = SimtBackend::of_tier(tier, job.exact) {
            backends.push(Box::new(device));
            continue;
        }
        if let Some(device) = AscendBackend::of_tier(tier, job.exact) {
            backends.push(Box::new(device));
            continue;
        }
        let one = X86Backend::of_tier(tier)
            .ok_or_else(|| Failure::new(INTERNAL, "a tier without a backend"))?;
        let mine = if Some(i) == here { choices.clone() } else { Choices::new() };
        backends.push(Box::new(one.exact(job.exact).choose(mine)));
    }
    let backends: Vec<&dyn Backend> = backends.iter().map(|b| &**b).collect();
    Ok(place::compile(g, &backends, &job.compile)?)
}

/// What became bf16 and what did not; nothing where all is as the model says.
fn precision(job: &Job, passed: &mut hub_passes::Report) -> Option<PrecisionReport> {
    let name = job.precision.dtype()?.name();
    let mut count = |what: &str| passed.fired.remove(what).unwrap_or(0) as usize;
    let (contractions, values) = (count("narrow-contraction"), count("narrow-value"));
    let kept = passed.refusals.iter().filter(|r| r.rule == hub_passes::narrow::RULE);
    let kept = kept.map(|r| (r.node.clone(), r.why.to_string())).collect();
    Some(PrecisionReport { name, contractions, values, kept })
}

/// Runs the passes.
fn optimise(job: &Job, g: &mut Graph) -> Result<hub_passes::Report, Failure> {
    let wanted = |pass: &str| job.print_after.iter().any(|p| p == pass || p == "all");
    let mut seen = vec![];
    let mut after = |pass: &str, g: &Graph| {
        seen.push(pass.to_string());
        if wanted(pass) {
            println!("// after {pass}\n{}", hub_ir::text::print(g));
        }
    };
    let mut options = hub_passes::Options::default();
    options.check_ir |= job.check_ir;
    (options.fold, options.precision) = (job.fold, job.precision);
    let r = hub_passes::run(g, &options, &mut after)?;
    if let Some(p) = job.print_after.iter().find(|p| *p != "all" && !seen.contains(p)) {
        let help = format!("passes: {}", seen.join(", "));
        return Err(Failure::new(USAGE, format!("there is no pass '{p}'")).help(help));
    }
    Ok(r)
}

/// Living nodes, constants and the insides of groups aside.
fn nodes(g: &Graph) -> usize {
    let mut regions = vec![g.root()];
    let mut n = 0;
    while let Some(r) = regions.pop() {
        for &m in &g.regions[r].nodes {
            match g.nodes[m].op {
                Op::Const(_) => continue,
                Op::Control(_) => regions.extend(g.regions_of(m)),
                _ => {}
            }
            n += 1;
        }
    }
    n
}

fn tier_report(t: &place::Tier) -> TierReport {
    TierReport {
        name: t.plan.tier.clone(),
        steps: hub_abi::plan::count(&t.plan.steps) as usize,
        kernels: t.plan.kernels.len(),
        code: t.code.len(),
        host: t.refused.clone(),
    }
}

fn emit(job: &Job, c: &place::Compiled) {
    for t in &c.tiers {
        if job.emit_kernels {
            println!("// tier {}", t.plan.tier);
            t.kernels.iter().for_each(|k| println!("{k}"));
        }
        let text = hub_abi::bundle::is_text(&t.plan.tier);
        if (job.emit_ptx && t.plan.tier.starts_with("sm"))
            || (job.emit_opencl && t.plan.tier.starts_with("cl"))
            || (job.emit_ascend && t.plan.tier.starts_with("dav"))
        {
            print!("{}", String::from_utf8_lossy(&t.code));
        }
        if job.emit_asm && !text {
            for k in &t.plan.kernels {
                let code = &t.code[k.offset as usize..(k.offset + k.len) as usize];
                println!("{} ({}, {})", k.name, t.plan.tier, k.schedule);
                print!("{}", hub_codegen::targets::x86::disassemble(code));
            }
        }
    }
}

/// Lays out and writes a bundle; gives its size.
pub fn write(
    job: &Job,
    path: &Path,
    loaded: &Loaded,
    mut c: place::Compiled,
) -> Result<u64, Failure> {
    let name = job.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut manifest = Manifest::of(&name, &c.graph);
    manifest.precision = precision_name(job).into();
    manifest.provenance = Provenance {
        format: loaded.provenance.format.clone(),
        producer: loaded.provenance.producer.clone(),
        source: loaded.provenance.source,
        compiler: concat!("hub ", env!("CARGO_PKG_VERSION")).into(),
        options: options(job).into_iter().collect(),
    };
    let mut w = BundleWriter::new(manifest, Default::default());
    c.lay_out(&mut |b| w.add_const(b))?;
    w.graph = c.graph;
    w.tiers = c.tiers.into_iter().map(|t| TierCode { plan: t.plan, code: t.code }).collect();
    w.write(path).map_err(|e| Failure::io(path, e))
}

fn precision_name(job: &Job) -> &'static str {
    match job.precision {
        hub_passes::Precision::F32 => "f32",
        hub_passes::Precision::Bf16 => "bf16",
        hub_passes::Precision::F16 => "f16",
    }
}

/// Options that shape the bundle, for its provenance.
fn options(job: &Job) -> BTreeMap<String, String> {
    let mut o = BTreeMap::new();
    o.insert("cpu".to_string(), job.tiers.join(","));
    if job.exact {
        o.insert("exact".into(), "true".into());
    }
    if let Some(s) = job.tune {
        o.insert("tune".into(), s.to_string());
    }
    if job.precision != hub_passes::Precision::F32 {
        o.insert("precision".into(), precision_name(job).into());
    }
    for (n, (lo, hi)) in &job.load.bounds {
        o.insert(format!("dim {n}"), format!("{lo}..{hi}"));
    }
    for (n, v) in &job.load.fixed {
        o.insert(format!("specialize {n}"), v.to_string());
    }
    o
}
