//! `hubc bench`: how fast a bundle is.

use crate::args::{Bench, Running};
use crate::failure::{Failure, SLOW};
use crate::report::{SCHEMA, kib};
use crate::tensors::{self, Opened};
use hub_models::NamedTensor;
use serde_json::json;
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
    let mut o = tensors::open(&a.bundle, &Running { no_verify: true, ..a.running.clone() })?;
    let open = start.elapsed();
    let inputs = match &a.inputs {
        Some(path) => {
            let file = tensors::read(path)?;
            tensors::inputs_for(&o, &file.tensors)?
        }
        None => tensors::generated(&o.model, &tensors::sizes(&a.dims)?, 1)?,
    };
    let start = Instant::now();
    o.run_only(&inputs)?;
    let first = open + start.elapsed();
    if !a.running.no_verify {
        o.model.verify()?;
    }
    let times = measure(&mut o, &inputs, a.seconds)?;
    print(&a, &o, &times, open, first);
    if a.profile || a.trace.is_some() {
        profile(&a, &mut o, &inputs)?;
    }
    match a.max_ms {
        Some(most) if times.at(0.5) > most => {
            let what = format!("the median is {:.3} ms, above {most} ms", times.at(0.5));
            Err(Failure::new(SLOW, what))
        }
        _ => Ok(()),
    }
}

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

fn print(a: &Bench, o: &Opened, t: &Times, open: Duration, first: Duration) {
    let (s, ms) = (o.session.summary(), |d: Duration| d.as_secs_f64() * 1e3);
    let (tier, threads) = (o.session.tier(), o.session.threads());
    let flops: i64 = o.session.steps().iter().filter_map(|s| Some(s.flops? * s.calls?)).sum();
    if a.json {
        let v = json!({ "schema": SCHEMA, "bundle": a.bundle, "tier": tier, "threads": threads,
            "median_ms": t.at(0.5), "min_ms": t.at(0.0), "p90_ms": t.at(0.9), "runs": t.0.len(),
            "open_ms": ms(open), "first_answer_ms": ms(first), "flops": flops,
            "arena_bytes": s.arena, "arena_bound_bytes": s.arena_bound });
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
    println!("  arena {} (bound {})", kib(s.arena), kib(s.arena_bound));
}

/// Runs with the profile on; prints steps by time, writes the trace.
fn profile(a: &Bench, o: &mut Opened, inputs: &[NamedTensor]) -> Result<(), Failure> {
    o.session.set_profile(true);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(a.seconds.clamp(0.1, 60.0) / 2.0) {
        o.run_only(inputs)?;
    }
    let steps = o.session.steps();
    let Some(p) = o.session.profile() else {
        return Err(Failure::new(crate::failure::UNSUPPORTED, "a portable run has no profile"));
    };
    let micros: Vec<f64> = p.nanos.iter().map(|n| *n as f64 / p.runs.max(1) as f64 / 1e3).collect();
    if a.profile {
        let total: f64 = micros.iter().sum();
        let mut order: Vec<usize> = (0..steps.len().min(micros.len())).collect();
        order.sort_by(|&x, &y| micros[y].total_cmp(&micros[x]));
        println!("     µs      %  calls  GFLOP/s   GB/s  node  kernel  schedule");
        for i in order {
            let s = &steps[i];
            let calls = s.calls.unwrap_or(1);
            let per = |x: Option<i64>| (x.unwrap_or(0) * calls) as f64 / micros[i].max(1e-3) / 1e3;
            println!(
                "{:>9.1} {:>5.1}% {:>5} {:>8.1} {:>6.1}  {}  {}  {}",
                micros[i],
                100.0 * micros[i] / total,
                calls,
                per(s.flops),
                per(s.bytes),
                s.node,
                s.kernel,
                s.schedule
            );
        }
    }
    let Some(path) = &a.trace else { return Ok(()) };
    let mut at = 0.0;
    let mut events = vec![];
    for (s, us) in steps.iter().zip(&micros) {
        events.push(json!({ "name": s.node, "cat": s.kernel, "ph": "X", "ts": at, "dur": us,
            "pid": 1, "tid": 1, "args": { "kernel": s.kernel, "schedule": s.schedule } }));
        at += us;
    }
    let text = json!({ "traceEvents": events, "displayTimeUnit": "ns" }).to_string();
    std::fs::write(path, text).map_err(|e| Failure::io(path, e))
}
