//! Compiled code against the reference, on graphs drawn by bytes.

use crate::bundles::place;
use crate::run::{compiled, reference};
use hub_passes::Options;
use hub_portable::{Tensor, Value};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions, Trust};

/// Two bytes a node, after three that choose sizes, tier and inputs.
pub fn differential(data: &[u8]) {
    let Some(([size, tier, seed], rest)) = data.split_first_chunk::<3>() else { return };
    let choices: Vec<u32> = rest
        .chunks_exact(4)
        .take(16)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect();
    if choices.is_empty() {
        return;
    }
    let g = hub_ir::sample::graph(&choices);
    let n = 1 + usize::from(size % 4);
    let inputs = [random(&[n, 4, 5, 6], *seed), random(&[n, 3, 8], !*seed)].map(Value::from);
    // Sizes may contradict a constraint that the graph came to have.
    let Ok(want) = reference(&g, &inputs) else { return };
    let tier = ["avx2", "avx512"][usize::from(tier % 2)];
    let tier = if hub_runtime::supports(tier) { tier } else { "avx2" };
    let shown = hub_ir::text::print(&g);
    let mut fused = g;
    hub_passes::optimize(&mut fused, &Options { check_ir: true, ..Options::default() })
        .unwrap_or_else(|e| panic!("{e}\n{shown}"));
    let bundle = compiled(fused, &[tier]).expect("a graph of small tensors");
    std::fs::write(place(), bundle).expect("there is room for a small file");
    let options = OpenOptions { trust: Some(Trust::Any), ..OpenOptions::default() };
    let model = Model::open(place(), &options).expect("the compiler's own bundle");
    if !hub_runtime::supports(tier) {
        return;
    }
    let tier = Some(tier.to_string());
    let options = SessionOptions { threads: 1, tier, ..Default::default() };
    let mut session = Session::new(&model, &options).expect("a session");
    let got = session.run_values(&inputs).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    for (w, g) in want.iter().zip(&got) {
        let d = difference(w, g);
        assert!(d <= 1e-4, "differs by {d}\n{shown}");
    }
}

fn random(dims: &[usize], seed: u8) -> Tensor {
    let n: usize = dims.iter().product();
    let mut state = u32::from(seed) * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let bytes: Vec<u8> = (0..n).flat_map(|_| next().to_le_bytes()).collect();
    Tensor::from_bytes(hub_abi::Dtype::F32, dims, &bytes).expect("bytes for these dims")
}

/// Greatest difference as a share of the greatest magnitude; NaN equals NaN. Infinite where types
/// differ.
fn difference(want: &Value, got: &Value) -> f64 {
    let (Ok(want), Ok(got)) = (want.tensor(), got.tensor()) else { return f64::INFINITY };
    if (want.dtype(), want.dims()) != (got.dtype(), got.dims()) {
        return f64::INFINITY;
    }
    if want.dtype() != hub_abi::Dtype::F32 {
        return if want.bytes() == got.bytes() { 0.0 } else { f64::INFINITY };
    }
    let floats = |t: &Tensor| -> Vec<f64> {
        let four = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]).into();
        t.bytes().chunks_exact(4).map(four).collect()
    };
    let (want, got) = (floats(want), floats(got));
    let finite = want.iter().copied().filter(|x| x.is_finite());
    let scale = finite.fold(1e-3f64, |m, x| m.max(x.abs()));
    let off = |(w, g): (&f64, &f64)| match (w.is_nan(), g.is_nan()) {
        (true, true) => 0.0,
        (false, false) if w == g => 0.0,
        (false, false) => (w - g).abs() / scale,
        _ => f64::INFINITY,
    };
    want.iter().zip(&got).map(off).fold(0.0, f64::max)
}
