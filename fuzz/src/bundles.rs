//! Bundles of any bytes.

use crate::reseal::reseal;
use crate::run::{SMALL, sizes};
use hub_abi::bundle::{BundleView, Manifest};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions, Tensor, Trust, Value};
use std::path::PathBuf;

/// Opens the bytes as they are (and runs natively what verifies), then with every hash put right
/// (and binds, and runs portable).
pub fn bundle(data: &[u8]) {
    if BundleView::parse(data).is_ok_and(|v| v.verify().is_ok()) {
        open(data, true);
    }
    if let Some(sealed) = reseal(data.to_vec()) {
        open(&sealed, false);
    }
}

/// A file in memory where there is such a folder, for this process alone.
pub fn place() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    let folder = if shm.is_dir() { shm } else { std::env::temp_dir() };
    folder.join(format!("hub-fuzz-{}", std::process::id()))
}

fn open(bytes: &[u8], native: bool) {
    let path = place();
    std::fs::write(&path, bytes).expect("there is room for a small file");
    let options = OpenOptions { trust: Some(Trust::Any), ..OpenOptions::default() };
    let Ok(model) = Model::open(&path, &options) else { return };
    let _damaged = model.verify();
    let tiers = [Some("portable".to_string()), None];
    for tier in tiers {
        let portable = tier.is_some();
        let options = SessionOptions { threads: 1, tier, limits: SMALL, ..Default::default() };
        let Ok(mut session) = Session::new(&model, &options) else { continue };
        let Some(inputs) = inputs(model.manifest()) else { continue };
        let dims: Vec<Vec<usize>> =
            inputs.iter().map(|v| v.tensor().map_or(vec![], |t| t.dims().to_vec())).collect();
        let bound = session.bind(&dims.iter().map(|d| &d[..]).collect::<Vec<_>>());
        let _text = (session.steps(), session.summary());
        if portable || (native && bound.is_ok()) {
            let _refused = session.run_values(&inputs);
        }
    }
}

fn inputs(m: &Manifest) -> Option<Vec<Value>> {
    let zero = |i: &hub_abi::bundle::IoInfo| {
        let t = i.ty.as_tensor()?;
        let dims = sizes(&t.dims, &m.syms)?;
        let bytes = dims.iter().product::<usize>() * t.dtype.size();
        Tensor::from_bytes(t.dtype, &dims, &vec![0; bytes]).ok().map(Value::from)
    };
    m.inputs.iter().map(zero).collect()
}
