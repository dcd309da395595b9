//! `hubc bench`: how fast a bundle is.

use crate::args::{Bench, Running};
use crate::failure::{Failure, SLOW, UNSUPPORTED};
use crate::machine::Rates;
use crate::plain;
use crate::report::{SCHEMA, arena};
use crate::tensors::{self, Inputs, Opened};
use hub_models::NamedTensor;
use hub_runtime::StepInfo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Times of single runs, in milliseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

/// Measures, prints, and fails with exit code 6 where it is slower than asked.
pub fn run(a: Bench) -> Result<(), Failure> {
    let start = Instant::now();
    let how = Running { no_verify: true, ..a.running.clone() };
    let chosen = a.inputs.is_some() || !a.dims.is_empty();
    let whose = if chosen { Inputs::Given } else { Inputs::MadeUp };
    let mut o = tensors::open(&a.bundle, &how, whose)?;
    let open = start.elapsed();
    let inputs = match &a.inputs {
        Some(path) => {
            let file = tensors::read(path)?;
            tensors::inputs_for(&o, &file.tensors)?
        }
        None if o.model.manifest().syms.is_empty() => {
            tensors::generated(&o.model, &tensors::sizes(&a.dims)?, 1, 1)?
        }
        // In a session of its own: binding belongs to the first answer's time.
        None => {
            let mut probe = tensors::open(&a.bundle, &how, whose)?;
            tensors::fitting(&mut probe, &tensors::sizes(&a.dims)?, 1)?
        }
    };
    let start = Instant::now();
    o.run_only(&inputs)?;
    let once = start.elapsed();
    let first = open + once;
    if !a.running.no_verify {
        o.model.verify()?;
    }
    // A run that is longer than the whole measurement is that.
    let times = match once > LONG && once.as_secs_f64() > a.seconds {
        true => Times(vec![once.as_secs_f64() * 1e3]),
        false => measure(&mut o, &inputs, a.seconds)?,
    };
    let measured = a.profile || a.trace.is_some();
    let steps = if measured { profile(&a, &mut o, &inputs)? } else { vec![] };
    let rates = match a.profile {
        true => Some(Rates::measure(o.session.tier(), o.session.threads())?),
        false => None,
    };
    print(&a, &o, &times, open, first, &steps, rates);
    if let Some(path) = &a.trace {
        let text = trace(&steps).to_string();
        std::fs::write(path, text).map_err(|e| Failure::io(path, e))?;
    }
    match a.max_ms {
        Some(most) if times.at(0.5) > most => {
            let what = format!("the median is {:.3} ms, above {most} ms", times.at(0.5));
            Err(Failure::new(SLOW, what))
        }
        _ => Ok(()),
    }
}

/// Runs that take longer need not be repeated for the clock's sake.
const LONG: Duration = Duration::from_secs(2);

fn measure(o: &mut Opened, inputs: &[NamedTensor], seconds: f64) -> Result<Times, Failure> {
    let limit = Duration::from_secs_f64(seconds.clamp(0.0, 3600.0));
    let warm = Instant::now();
    while warm.elapsed() < limit / 4 {
        o.run_only(inputs)?;
    }
    let (mut times, start) = (vec![], Instant::now());
    while times.len() < 3 || start.elapsed() < limit {
        let t = Instant::now();
        o.run_only(inputs)?;
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(Times(times))
}

fn print(
    a: &Bench,
    o: &Opened,
    t: &Times,
    open: Duration,
    first: Duration,
    steps: &[(StepInfo, f64)],
    rates: Option<Rates>,
) {
    let (s, ms) = (o.session.summary(), |d: Duration| d.as_secs_f64() * 1e3);
    let (tier, threads) = (o.session.tier(), o.session.threads());
    let flops: i64 = o
        .session
        .steps()
        .iter()
        .filter_map(|s| s.flops?.checked_mul(s.calls?))
        .fold(0, i64::saturating_add);
    if a.json {
        let mut v = json!({ "schema": SCHEMA, "bundle": a.bundle, "tier": tier, "threads": threads,
            "median_ms": t.at(0.5), "min_ms": t.at(0.0), "p90_ms": t.at(0.9), "runs": t.0.len(),
            "open_ms": ms(open), "first_answer_ms": ms(first), "flops": flops,
            "arena_bytes": s.arena, "arena_bound_bytes": s.arena_bound, "scratch_bytes": s.scratch, "session_bytes": s.memory,
            "arena_apart_bytes": s.arena_apart, "in_place": s.in_place });
        if let Some(r) = rates {
            v["steps"] = steps.iter().map(|s| step_json(s, &r)).collect();
            v["best_gflops"] = r.flops.into();
            v["best_gb_per_s"] = r.bytes.into();
        }
        println!("{v}");
        return;
    }
    let rate = flops as f64 / t.at(0.5) / 1e6;
    println!("{} on {tier}, {threads} thread(s)", a.bundle.display());
    println!(
        "  median {:.3} ms, min {:.3}, p90 {:.3} over {} runs; {rate:.1} GFLOP/s",
        t.at(0.5),
        t.at(0.0),
        t.at(0.9),
        t.0.len()
    );
    println!("  open {:.3} ms, to first answer {:.3} ms", ms(open), ms(first));
    println!("  arena {}", arena(&s));
    if let Some(r) = rates {
        table(steps, &r);
    }
}

/// Runs with the profile on; gives each step with its microseconds a run.
fn profile(
    a: &Bench,
    o: &mut Opened,
    inputs: &[NamedTensor],
) -> Result<Vec<(StepInfo, f64)>, Failure> {
    o.session.set_profile(true);
    let start = Instant::now();
    let limit = Duration::from_secs_f64(a.seconds.clamp(0.1, 60.0) / 2.0);
    while start.elapsed() < limit {
        o.run_only(inputs)?;
    }
    let Some(p) = o.session.profile() else {
        return Err(Failure::new(UNSUPPORTED, "a portable run has no profile"));
    };
    let micros = p.nanos.iter().map(|n| *n as f64 / p.runs.max(1) as f64 / 1e3);
    Ok(o.session.steps().into_iter().zip(micros).collect())
}

/// Operations and bytes of all calls of a step in a run.
fn work(s: &StepInfo) -> (f64, f64) {
    let calls = s.calls.unwrap_or(1) as f64;
    let all = |x: Option<i64>| x.unwrap_or(0) as f64 * calls;
    (all(s.flops), all(s.bytes))
}

/// Which part of a step's time the machine's best rates leave no choice about.
fn share_of_limit(s: &StepInfo, us: f64, rates: &Rates) -> f64 {
    let (flops, bytes) = work(s);
    rates.limit(flops, bytes) / (us * 1e3).max(1.0)
}

fn step_json((s, us): &(StepInfo, f64), rates: &Rates) -> Value {
    json!({ "limit_share": share_of_limit(s, *us, rates), "node": s.node, "within": s.within, "kernel": s.kernel, "schedule": s.schedule,
            "tier": s.tier, "us": us, "calls": s.calls, "flops": s.flops, "bytes": s.bytes })
}

/// Prints steps, the longest first. The column `limit` is the share of a step's time that its
/// arithmetic or its bytes would take at the machine's best; Winograd's kernels, whose operations are
/// counted as a direct convolution's, may be above 100.
fn table(steps: &[(StepInfo, f64)], rates: &Rates) {
    let total: f64 = steps.iter().map(|s| s.1).sum();
    let mut order: Vec<_> = steps.iter().collect();
    order.sort_by(|x, y| y.1.total_cmp(&x.1));
    println!("  at best {:.0} GFLOP/s, {:.0} GB/s (measured now)", rates.flops, rates.bytes);
    println!("     µs      %  calls  GFLOP/s   GB/s  limit  node  kernel  schedule");
    for (s, us) in order {
        let (flops, bytes) = work(s);
        let ns = us.max(1e-3) * 1e3;
        println!(
            "{us:>9.1} {:>5.1}% {:>5} {:>8.1} {:>6.1} {:>5.0}%  {}  {}  {}",
            100.0 * us / total.max(1e-9),
            s.calls.unwrap_or(1),
            flops / ns,
            bytes / ns,
            100.0 * share_of_limit(s, *us, rates),
            plain(&s.node),
            plain(&s.kernel),
            plain(&s.schedule)
        );
    }
}

/// Steps one after another, in the format that Perfetto reads.
fn trace(steps: &[(StepInfo, f64)]) -> Value {
    let mut at = 0.0;
    let mut events = vec![];
    for (s, us) in steps {
        events.push(json!({ "name": s.node, "cat": s.kernel, "ph": "X", "ts": at, "dur": us,
            "pid": 1, "tid": 1, "args": { "kernel": s.kernel, "schedule": s.schedule } }));
        at += us;
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ns" })
}
