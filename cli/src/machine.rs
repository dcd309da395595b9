//! What this machine does at best, measured with our own kernels in this process: what a step's time
//! is compared with.

use crate::compile::{self, Job};
use crate::failure::{Failure, INTERNAL};
use crate::tensors::{self, Inputs, Opened};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim};
use hub_abi::shape::Type;
use hub_codegen::targets::x86::Choices;
use hub_frontend::{Loaded, Provenance};
use hub_ir::Graph;
use hub_ir::Value;
use hub_ir::build::{Builder, Built};
use hub_runtime::SessionOptions;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The best rates of a tier with so many threads.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// f32 operations a nanosecond, of a matrix product whose operands stay in the cache.
    pub flops: f64,
    /// Bytes a nanosecond, read and written, of a sum whose operands fill a second-level cache.
    pub bytes: f64,
}

/// Time that each rate is measured for.
const SPAN: Duration = Duration::from_millis(60);

impl Rates {
    /// Measures them.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn measure(tier: &str, threads: usize) -> Result<Rates, Failure> {
        let (m, k, n) = (112 * threads as i64, 256, 512);
        let product = |b: &mut Builder<'_>, v: &[Value]| {
            b.prim(Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] }, v)
        };
        let each = once(tier, threads, &[&[m, k], &[k, n]], &product)?;
        let flops = (2 * m * k * n) as f64 / each;
        let count = 64 * 1024 * threads as i64;
        let sum = |b: &mut Builder<'_>, v: &[Value]| b.bin(BinaryOp::Add, v[0], v[1]);
        let each = once(tier, threads, &[&[count], &[count]], &sum)?;
        Ok(Rates { flops, bytes: (3 * 4 * count) as f64 / each })
    }

    /// Nanoseconds below which so much work is not done.
    pub fn limit(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}

type Body<'a> = &'a dyn Fn(&mut Builder<'_>, &[Value]) -> Built;

/// Nanoseconds of the fastest run of a model of one operator.
fn once(tier: &str, threads: usize, inputs: &[&[i64]], body: Body<'_>) -> Result<f64, Failure> {
    // A folder that nobody else has made.
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos());
    let folder = format!("hub-rates-{}-{nanos}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir(&folder).map_err(|e| Failure::io(&folder, e))?;
    let file = folder.join("rate.hub");
    let opened = model(tier, inputs, body, &file).and_then(|()| {
        let tier = Some(tier.to_string());
        let options = SessionOptions { threads, tier, ..SessionOptions::default() };
        tensors::session(&file, &options, false, Inputs::Given)
    });
    // It is mapped by now, or was never made.
    let _ = std::fs::remove_dir_all(&folder);
    fastest(&mut opened?)
}

fn fastest(o: &mut Opened) -> Result<f64, Failure> {
    let inputs = tensors::generated(&o.model, &BTreeMap::new(), 1, 1)?;
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < SPAN {
        let t = Instant::now();
        o.run_only(&inputs)?;
        best = best.min(t.elapsed().as_nanos() as f64);
    }
    Ok(best)
}

fn model(tier: &str, inputs: &[&[i64]], body: Body<'_>, file: &Path) -> Result<(), Failure> {
    let mut graph = Graph::new();
    let params: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(i, dims)| {
            let dims = dims.iter().map(|&d| d.into()).collect();
            graph.add_input(&format!("x{i}"), Type::tensor(Dtype::F32, dims))
        })
        .collect();
    let root = graph.root();
    let mut b = Builder::new(&mut graph, "rate");
    let y = body(&mut b, &params).map_err(|e| Failure::new(INTERNAL, e.to_string()))?;
    b.into_region(root);
    graph.add_output("y", y);
    let failed = |e: String| Failure::new(INTERNAL, e);
    hub_passes::run(&mut graph, &hub_passes::Options::default(), &mut |_, _| {})
        .map_err(|e| failed(e.to_string()))?;
    let job = Job { tiers: vec![tier.to_string()], ..Job::plain(file, file) };
    let compiled = compile::kernels(&job, &job.tiers, &Choices::new(), &mut graph)?;
    let loaded = Loaded { graph, provenance: Provenance::default(), warnings: vec![] };
    compile::write(&job, file, &loaded, compiled).map(|_| ())
}
