//! One bundle serves several sizes in one session, each like the portable answer; answers are the
//! same bytes from run to run and at every number of threads.

use hub_cli::args::Running;
use hub_cli::compile::{Job, compile};
use hub_cli::tensors::{self, Opened};
use hub_models::{NamedTensor, TensorFile, Tensors, Tolerance};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn model(file: &str) -> PathBuf {
    hub_models::root().join(file)
}

/// A model compiled for every tier.
fn export(dir: &TempDir, file: &str) -> PathBuf {
    let bundle = dir.path().join("m.hub");
    let mut job = Job::plain(&model(file), &bundle);
    job.tiers = vec!["avx512".into(), "avx2".into()];
    compile(&job).unwrap_or_else(|e| panic!("{file}: {e}"));
    bundle
}

fn open(bundle: &Path, tier: &str, threads: i32) -> Opened {
    let cpu = Some(tier.to_string());
    let how =
        Running { threads, device: "cpu".into(), cpu, no_verify: true, limits: Default::default() };
    tensors::open(bundle, &how, tensors::Inputs::Given).expect("opens")
}

/// Made-up inputs for named sizes.
fn inputs(o: &Opened, sizes: &[(&str, i64)], seed: u64) -> Vec<NamedTensor> {
    let sizes = sizes.iter().map(|(n, s)| (n.to_string(), *s)).collect();
    tensors::generated(&o.model, &sizes, 2, seed).expect("inputs")
}

/// Sessions of every tier and several thread counts, each taking the sizes in turn, twice.
fn check(file: &str, sizes: &[&[(&str, i64)]]) {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = export(&dir, file);
    let mut portable = open(&bundle, "portable", 1);
    let given: Vec<_> = (1..).zip(sizes).map(|(seed, s)| inputs(&portable, s, seed)).collect();
    let want: Vec<Tensors> = given.iter().map(|i| portable.run(i).expect("portable")).collect();
    for tier in hub_tests::tiers() {
        let mut first: Option<Vec<Tensors>> = None;
        for threads in [1, 2, 3] {
            let mut o = open(&bundle, tier, threads);
            let mut run = || -> Vec<Tensors> {
                let each = given.iter().zip(sizes);
                each.map(|(i, s)| o.run(i).unwrap_or_else(|e| panic!("{file} {tier} {s:?}: {e}")))
                    .collect()
            };
            for got in [run(), run()] {
                for ((got, want), size) in got.iter().zip(&want).zip(sizes) {
                    close(&format!("{file} {tier} ×{threads} {size:?}"), got, want);
                }
                let first = first.get_or_insert_with(|| got.clone());
                assert!(*first == got, "{file} {tier} ×{threads}: other bytes than before");
            }
        }
    }
}

/// Same names, dtypes and shapes; values within the default tolerance.
fn close(what: &str, got: &Tensors, want: &Tensors) {
    let like = |t: &Tensors| -> Vec<_> {
        t.iter().map(|(n, t)| (n.clone(), t.dtype.clone(), t.shape.clone())).collect()
    };
    assert_eq!(like(got), like(want), "{what}");
    // Nothing to compare where a size is 0.
    let full = want.iter().filter(|(_, t)| !t.data.is_empty());
    let golden: Tensors = full.map(|(n, t)| (format!("out:{n}"), t.clone())).collect();
    if golden.is_empty() {
        return;
    }
    let c = hub_models::compare(&TensorFile::from(golden), got, Tolerance::default());
    let c = c.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(c.ok(), "{what}: {c}");
}

#[test]
fn digits_at_many_batch_sizes() {
    let batches = [1, 3, 540, 2, 0, 1, 17, 33, 3];
    let sizes = batches.map(|n| [("image.0", n)]);
    check("digits/pir", &sizes.each_ref().map(|s| &s[..]));
}

#[test]
fn recurrent_layers_at_many_lengths() {
    let sizes: [&[(&str, i64)]; 5] = [
        &[("ids.0", 1), ("ids.1", 1), ("ln.0", 1)],
        &[("ids.0", 3), ("ids.1", 7), ("ln.0", 3)],
        &[("ids.0", 2), ("ids.1", 20), ("ln.0", 2)],
        &[("ids.0", 5), ("ids.1", 2), ("ln.0", 5)],
        &[("ids.0", 3), ("ids.1", 7), ("ln.0", 3)],
    ];
    check("paddle_formats/pir/lstmnet.json", &sizes);
}

#[test]
fn images_of_many_sizes() {
    let sizes: [&[(&str, i64)]; 4] = [
        &[("x.0", 1), ("x.2", 32), ("x.3", 32)],
        &[("x.0", 2), ("x.2", 64), ("x.3", 32)],
        &[("x.0", 1), ("x.2", 32), ("x.3", 96)],
        &[("x.0", 3), ("x.2", 16), ("x.3", 48)],
    ];
    check("paddle_formats/pir/dbnet.json", &sizes);
}

#[test]
fn branches_and_loops_at_many_batch_sizes() {
    for file in ["ifnet", "whilenet", "convnet"] {
        let sizes = [1, 2, 9, 64, 1].map(|n| [("x.0", n)]);
        check(&format!("paddle_formats/pir/{file}.json"), &sizes.each_ref().map(|s| &s[..]));
    }
}

#[test]
fn the_goldens_hold_after_other_sizes() {
    let dir = tempfile::tempdir().expect("a folder");
    let cases = hub_models::Digits::load().expect("digits").cases();
    let case = cases.iter().find(|c| c.name == "digits/pir").expect("digits");
    let bundle = export(&dir, "digits/pir");
    for tier in hub_tests::tiers() {
        let mut o = open(&bundle, tier, 2);
        let small = inputs(&o, &[("image.0", 5)], 1);
        o.run(&small).expect("runs");
        let whole = tensors::inputs_for(&o, &case.inputs).expect("the inputs");
        let got = o.run(&whole).expect("runs");
        let c = hub_models::compare(&case.golden, &got, Tolerance::default()).expect("compares");
        assert!(c.ok(), "{tier}: {c}");
    }
}
