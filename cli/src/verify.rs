//! `--verify`: parity of the written bundle's tiers with the reference, on generated inputs.

use crate::failure::{Failure, INTERNAL, USAGE};
use crate::tensors::{self, Inputs};
use hub_models::{NamedTensor, TensorFile, Tolerance};
use hub_runtime::{Limits, SessionOptions};
use std::collections::BTreeMap;
use std::path::Path;

/// For each tier that this machine has: greatest difference from the portable interpreter as a
/// share of its greatest magnitude (or, at a low precision, whose roundings a last bit may turn, one
/// less the least cosine), at the first of [`tensors::SIZES`] that the model admits.
pub fn parity(
    bundle: &Path,
    tiers: &[String],
    low: bool,
    limits: Limits,
) -> Result<Vec<(String, f64)>, Failure> {
    let mut refusal = None;
    for size in tensors::SIZES {
        match parity_at(bundle, tiers, low, size, limits) {
            Err(f) if f.code == USAGE => refusal = refusal.or(Some(f)),
            done => return done,
        }
    }
    Err(refusal.unwrap_or_else(|| Failure::new(USAGE, "no size fits")))
}

fn parity_at(
    bundle: &Path,
    tiers: &[String],
    low: bool,
    size: i64,
    limits: Limits,
) -> Result<Vec<(String, f64)>, Failure> {
    let (want, inputs) = run(bundle, "portable", Err(size), limits)?;
    let golden = TensorFile {
        tensors: want.into_iter().map(|(n, t)| (format!("out:{n}"), t)).collect(),
        metadata: BTreeMap::new(),
    };
    let mut out = vec![];
    for t in tiers.iter().filter(|t| hub_runtime::supports(t)) {
        let (got, _) = run(bundle, t, Ok(&inputs), limits)?;
        let c = hub_models::compare(&golden, &got, Tolerance::default())
            .map_err(|e| Failure::new(INTERNAL, e.to_string()))?;
        let cosine = c.outputs.iter().map(|o| o.cosine).fold(0.0, f64::max);
        let apart = c.outputs.iter().any(|o| o.problem.is_some());
        out.push((t.clone(), if low && !apart { cosine } else { c.error() }));
    }
    Ok(out)
}

/// Runs on a tier: on given inputs, or on ones made up at a size for dynamic dimensions.
fn run(
    bundle: &Path,
    tier: &str,
    inputs: Result<&[NamedTensor], i64>,
    limits: Limits,
) -> Result<(hub_models::Tensors, Vec<NamedTensor>), Failure> {
    let options = SessionOptions { tier: Some(tier.into()), limits, ..SessionOptions::default() };
    let mut o = tensors::session(bundle, &options, false, Inputs::MadeUp)?;
    let inputs = match inputs {
        Ok(i) => i.to_vec(),
        Err(size) => tensors::generated(&o.model, &BTreeMap::new(), size, 1)?,
    };
    Ok((o.run(&inputs)?, inputs))
}
