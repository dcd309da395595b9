//! `--verify`: parity of the written bundle's tiers with the reference, on generated inputs.

use crate::args::Running;
use crate::failure::{Failure, INTERNAL};
use crate::tensors;
use hub_models::{NamedTensor, TensorFile, Tolerance};
use std::collections::BTreeMap;
use std::path::Path;

/// For each tier that this machine has: greatest difference from the portable interpreter as a
/// share of its greatest magnitude.
pub fn parity(bundle: &Path, tiers: &[String]) -> Result<Vec<(String, f64)>, Failure> {
    let (want, inputs) = run(bundle, "portable", None)?;
    let golden = TensorFile {
        tensors: want.into_iter().map(|(n, t)| (format!("out:{n}"), t)).collect(),
        metadata: BTreeMap::new(),
    };
    let mut out = vec![];
    for t in tiers.iter().filter(|t| hub_runtime::supports(t)) {
        let (got, _) = run(bundle, t, Some(&inputs))?;
        let c = hub_models::compare(&golden, &got, Tolerance::default())
            .map_err(|e| Failure::new(INTERNAL, e.to_string()))?;
        out.push((t.clone(), c.error()));
    }
    Ok(out)
}

fn run(
    bundle: &Path,
    tier: &str,
    inputs: Option<&[NamedTensor]>,
) -> Result<(hub_models::Tensors, Vec<NamedTensor>), Failure> {
    let how = Running { threads: 0, device: "cpu".into(), cpu: Some(tier.into()), no_verify: true };
    let mut o = tensors::open(bundle, &how)?;
    let inputs = match inputs {
        Some(i) => i.to_vec(),
        None => tensors::generated(&o.model, &BTreeMap::new(), 1)?,
    };
    Ok((o.run(&inputs)?, inputs))
}
