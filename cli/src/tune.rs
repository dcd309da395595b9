//! `--tune`: which of the kernels that the model of cycles ranks is fastest, measured.
//!
//! Every round compiles the whole model with another choice for every group, runs it, and reads each
//! group's time, copies that its kernel asks for included, from the session's profile. So kernels are
//! timed where they will run: with the caches as their neighbours leave them. What a group gains less
//! than [`WORTH`] by stays as the model has it.

use crate::compile::{self, Job};
use crate::failure::{Failure, UNSUPPORTED};
use crate::tensors::{self, Inputs, Opened};
use hub_codegen::targets::x86::Choices;
use hub_frontend::Loaded;
use hub_ir::{Graph, GroupKind, Op, Region};
use hub_models::NamedTensor;
use hub_runtime::SessionOptions;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

/// A group keeps the model's kernel unless another takes less than this share of its time.
const WORTH: f64 = 0.97;
/// Kernels of a group that are tried.
const ROUNDS: usize = 16;
/// Sizes that dynamic dimensions take while tuning, the first that the model admits.
const SIZES: [i64; 2] = [64, 128];

/// What tuning found.
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// Kernels other than the model's.
    pub choices: Choices,
    /// Groups that were measured.
    pub groups: usize,
    /// Rounds made.
    pub rounds: usize,
    /// Time of all groups after tuning as a share of that before.
    pub share: f64,
}

/// Nanoseconds of a run, by group.
type Times = HashMap<Region, f64>;

/// The tier that is tuned: the first that runs here (a bundle of bf16 leads with AMX).
fn tuned_tier(job: &Job) -> &String {
    job.tiers.iter().find(|t| hub_runtime::supports(t)).unwrap_or(&job.tiers[0])
}

/// Searches for so many seconds on the best of the job's tiers that this machine runs.
///
/// # Errors
/// The model does not compile or run; a model whose inputs cannot be made up.
pub fn search(job: &Job, seconds: f64, loaded: &Loaded) -> Result<Tuned, Failure> {
    let tier = tuned_tier(job);
    let known = |t: &str| compile::TIERS.iter().position(|x| *x == t);
    let here = hub_runtime::best_tier().and_then(known);
    if here.is_none() || here > known(tier) {
        let what = format!("--tune measures kernels on this machine, which does not run {tier}");
        return Err(Failure::new(UNSUPPORTED, what).help("choose another tier with --cpu"));
    }
    let (start, budget) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut best: HashMap<Region, (f64, usize)> = HashMap::new();
    let mut first = Times::new();
    let mut rounds = 0;
    // The model's own choice comes first and last, so that a machine that slows down favours none.
    for choice in (0..ROUNDS).chain([0]) {
        let left = budget.saturating_sub(start.elapsed());
        if rounds > 0 && (left.is_zero() || choice == 0 && rounds < 2) {
            break;
        }
        let slice = budget / (ROUNDS as u32 + 1) / 2;
        let times = round(job, loaded, choice, slice.min(left))?;
        rounds += 1;
        for (group, t) in times {
            if choice == 0 {
                let known = first.entry(group).or_insert(t);
                *known = known.min(t);
            }
            let at = best.entry(group).or_insert((t, choice));
            if t < at.0 {
                *at = (t, choice);
            }
        }
    }
    let mut out = Tuned { groups: first.len(), rounds, ..Tuned::default() };
    let (mut before, mut after) = (0.0, 0.0);
    for (group, t) in first {
        let (least, choice) = best[&group];
        let take = choice > 0 && least < t * WORTH;
        before += t;
        after += if take { least } else { t };
        if take {
            out.choices.insert(group, choice);
        }
    }
    out.share = if before > 0.0 { after / before } else { 1.0 };
    Ok(out)
}

/// Compiles with the same choice for all groups and measures each.
fn round(job: &Job, loaded: &Loaded, choice: usize, slice: Duration) -> Result<Times, Failure> {
    let (mut graph, names) = named(&loaded.graph);
    let path = job.output.with_extension(format!("tune{}", std::process::id()));
    let choices = names.values().map(|r| (*r, choice)).collect();
    let compiled =
        compile::kernels(job, std::slice::from_ref(tuned_tier(job)), &choices, &mut graph)?;
    let done = compile::write(job, &path, loaded, compiled);
    let times = done.and_then(|_| measured(job, &path, &names, slice));
    // A file that cannot be removed is not worth losing the search for.
    let _ = std::fs::remove_file(&path);
    times
}

/// The graph with a name of its own for every group that has several kernels.
fn named(g: &Graph) -> (Graph, BTreeMap<String, Region>) {
    let (mut g, mut names) = (g.clone(), BTreeMap::new());
    for n in g.walk() {
        let Op::Group { kind, region } = g.nodes[n].op else { continue };
        if matches!(kind, GroupKind::Contract | GroupKind::Conv | GroupKind::Window) {
            let name = format!("group {}", names.len());
            g.nodes[n].name = name.clone();
            names.insert(name, region);
        }
    }
    (g, names)
}

fn measured(
    job: &Job,
    path: &Path,
    names: &BTreeMap<String, Region>,
    slice: Duration,
) -> Result<Times, Failure> {
    let options = SessionOptions { limits: job.run, ..SessionOptions::default() };
    let inputs = inputs(&mut tensors::session(path, &options, false, Inputs::MadeUp)?)?;
    let mut o = tensors::session(path, &options, false, Inputs::MadeUp)?;
    o.run_only(&inputs)?;
    o.session.set_profile(true);
    let start = Instant::now();
    for n in 0.. {
        o.run_only(&inputs)?;
        if n >= 2 && start.elapsed() >= slice {
            break;
        }
    }
    let mut times = Times::new();
    let Some(p) = o.session.profile() else { return Ok(times) };
    for (step, nanos) in o.session.steps().iter().zip(&p.nanos) {
        if let Some(r) = names.get(&step.node) {
            *times.entry(*r).or_default() += *nanos as f64 / p.runs.max(1) as f64;
        }
    }
    Ok(times)
}

/// Inputs made up at a size that is worth tuning for, else at any that the model admits.
fn inputs(o: &mut Opened) -> Result<Vec<NamedTensor>, Failure> {
    for size in SIZES {
        let Ok(made) = tensors::generated(&o.model, &BTreeMap::new(), size, 1) else { continue };
        let dims: Vec<&[usize]> = made.iter().map(|t| &t.shape[..]).collect();
        if o.session.bind(&dims).is_ok() {
            return Ok(made);
        }
    }
    tensors::fitting(o, &BTreeMap::new(), 1)
}
