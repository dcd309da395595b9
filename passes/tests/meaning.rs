//! Passes keep what a graph means: reference evaluation before and after agrees, on random graphs
//! and on real exporters' small models (those with golden outputs against these).

mod common;

use common::{difference, outputs, random};
use hub_frontend::LoadOptions;
use hub_models::Case;
use hub_passes::Options;
use hub_portable::{Tensor, Value};
use proptest::prelude::*;

fn checked() -> Options {
    Options { check_ir: true, ..Options::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn random_graphs_mean_the_same(
        choices in prop::collection::vec(any::<u32>(), 1..24),
        n in 1usize..=4,
        seed in any::<u32>(),
    ) {
        let g = hub_ir::sample::graph(&choices);
        let inputs = [random(&[n, 4, 5, 6], seed), random(&[n, 3, 8], !seed)];
        // Drawn sizes may contradict a constraint of the graph.
        let Ok(want) = outputs(&g, &inputs) else { return Ok(()) };
        let mut fused = g.clone();
        hub_passes::optimize(&mut fused, &checked()).unwrap();
        let got = outputs(&fused, &inputs).map_err(|e| {
            TestCaseError::fail(format!("{e}\n{}", hub_ir::text::print(&fused)))
        })?;
        for (w, g) in want.iter().zip(&got) {
            let d = difference(w, g);
            prop_assert!(d <= 1e-5, "differs by {d}\n{}", hub_ir::text::print(&fused));
        }
    }
}

/// Inputs of a case in the graph's order.
fn inputs(case: &Case, names: &[String]) -> Vec<Value> {
    let one = |name: &String| {
        let t = case.inputs.get(name).unwrap_or_else(|| panic!("{}: no input {name}", case.name));
        let dtype = hub_ir::Dtype::from_name(&t.dtype.to_lowercase()).unwrap();
        Value::Tensor(Tensor::from_bytes(dtype, &t.shape, &t.data).unwrap())
    };
    names.iter().map(one).collect()
}

/// Imports, evaluates, optimises, evaluates again.
fn check(case: &Case) {
    let loaded = match hub_frontend::load(&case.model, &LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(e) => panic!("{}: {e}", case.name),
    };
    let ins = inputs(case, &loaded.graph.inputs);
    let want = outputs(&loaded.graph, &ins).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut g = loaded.graph.clone();
    hub_passes::optimize(&mut g, &checked()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let got = outputs(&g, &ins).unwrap_or_else(|e| panic!("{} after: {e}", case.name));
    for (name, (w, g)) in loaded.graph.outputs.iter().zip(want.iter().zip(&got)) {
        let d = difference(w, g);
        assert!(d <= 1e-5, "{} output {name} differs by {d}", case.name);
    }
}

#[test]
fn small_models_mean_the_same() {
    for case in hub_models::formats().unwrap() {
        eprintln!("{}", case.name);
        check(&case);
    }
}

#[test]
#[ignore = "minutes: every seeded fixture by the reference, twice; HUB_FIXTURE picks one"]
fn fixtures_mean_the_same() {
    let only = std::env::var("HUB_FIXTURE").ok();
    for name in hub_models::Fixture::names().unwrap() {
        if only.as_ref().is_none_or(|o| *o == name) {
            eprintln!("{name}");
            check(&Case::of(hub_models::Fixture::load(&name).unwrap()).unwrap());
        }
    }
}
