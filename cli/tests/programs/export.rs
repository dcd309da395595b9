//! `hub export`: formats, the report, tiers, dimensions.

use super::{folder, hub, hubc, model, path, shared};

#[test]
fn three_formats_of_one_model_are_reported() {
    let dir = folder();
    for (file, format) in [
        ("digits/model.onnx", "onnx"),
        ("digits/pir/inference.json", "paddle-pir"),
        ("digits/pir", "paddle-pir"),
        ("digits/legacy/inference.pdmodel", "paddle-program"),
        ("digits/legacy", "paddle-program"),
    ] {
        let (file, bundle) = (model(file), path(&dir, "m.hub"));
        let r = hub(&["export", &file, "-o", &bundle, "--json"]).expect(0);
        assert_eq!(r.err, "", "progress or warnings in a pipe");
        let v = r.json();
        assert_eq!((&v["model"], &v["format"]), (&file.into(), &format.into()));
        assert_eq!(v["bundle"], bundle.as_str());
        let bytes = std::fs::metadata(&bundle).expect("the bundle").len();
        assert_eq!(v["bundle_bytes"], bytes);
        let (before, after) = (v["operators_before"].as_u64(), v["operators_after"].as_u64());
        assert!(after > Some(0) && after < before, "{v}");
        assert!(v["rewrites"]["group-conv"].as_u64() > Some(0), "{v}");
        for t in v["tiers"].as_array().expect("tiers") {
            assert!(t["steps"].as_u64() > Some(0) && t["code_bytes"].as_u64() > Some(0), "{t}");
            assert_eq!(t["host"], serde_json::json!([]), "digits needs no host steps");
        }
    }
}

#[test]
fn the_report_is_text_for_people() {
    let dir = folder();
    let bundle = path(&dir, "m.hub");
    let r = hub(&["export", &model("digits/model.onnx"), "-o", &bundle, "--cpu", "avx2"]).expect(0);
    for part in ["(onnx)", "operators ", "rewrites ", "  avx2 ", "kernels", "bundle ", "time "] {
        assert!(r.out.contains(part), "no {part:?} in {}", r.out);
    }
    assert!(!r.out.contains("avx512"));
    assert_eq!(r.err, "");
}

#[test]
fn tuning_measures_other_kernels_and_keeps_the_answers() {
    let dir = folder();
    let bundle = path(&dir, "m.hub");
    let file = model("digits/model.onnx");
    let r = hub(&["export", &file, "-o", &bundle, "--tune", "0.2", "--verify", "--json"]);
    // A machine without a native tier has nothing to tune.
    let Some(tier) = hub_runtime::best_tier() else { return };
    let v = r.expect(0).json();
    let tuned = &v["tuned"];
    assert!(tuned["rounds"].as_u64() >= Some(2) && tuned["groups"].as_u64() > Some(0), "{tuned}");
    assert!(tuned["time_share"].as_f64() <= Some(1.0), "{tuned}");
    assert!(v["parity"][tier].as_f64() < Some(1e-5), "{v}");
    let left = std::fs::read_dir(dir.path()).expect("the folder").count();
    assert_eq!(left, 1, "no round's bundle is left behind");
}

#[test]
fn verify_measures_parity_on_every_tier_of_this_machine() {
    let dir = folder();
    let bundle = path(&dir, "m.hub");
    // The last one admits few sizes: its halves meet again only for some.
    for file in ["digits/legacy", "paddle_formats/pir/ifnet.json", "paddle_formats/pir/dbnet.json"]
    {
        let r = hub(&["export", &model(file), "-o", &bundle, "--verify", "--json"]).expect(0);
        let parity = &r.json()["parity"];
        if hub_runtime::supports("avx2") {
            assert!(parity["avx2"].as_f64().is_some_and(|e| e <= 1e-4), "{file}: {parity}");
        }
    }
}

#[test]
fn the_order_of_tiers_and_the_run_leave_the_bytes_alone() {
    let dir = folder();
    let export = |name: &str, cpu: &str| {
        let bundle = path(&dir, name);
        hub(&["export", &model("digits/pir"), "-o", &bundle, "--cpu", cpu]).expect(0);
        std::fs::read(bundle).expect("the bundle")
    };
    let first = export("a.hub", "avx512,avx2");
    assert!(first == export("b.hub", "avx2,avx512"), "the order of tiers changes the bundle");
    assert!(first == export("c.hub", "avx512,avx2,avx2,portable"));
    assert!(first == export("a.hub", "avx512,avx2"), "over an older bundle");
}

#[test]
fn a_portable_bundle_runs_and_says_that_it_is_portable() {
    let (s, dir) = (shared(), folder());
    let bundle = path(&dir, "p.hub");
    let args =
        ["export", &model("digits/model.onnx"), "-o", &bundle, "--cpu", "portable", "--json"];
    let r = hub(&args).expect(0);
    assert_eq!(r.json()["tiers"], serde_json::json!([]));
    let r = hubc(&["compare", &bundle, "--golden", &s.golden, "--inputs", &s.inputs]).expect(0);
    assert!(r.err.starts_with("warning: running portable"), "{}", r.err);
    hubc(&["run", &bundle, "--inputs", &s.inputs, "--cpu", "avx2"]).refuses(3, &["avx2"]);
}

#[test]
fn dimensions_are_fixed_and_bounded() {
    let (s, dir) = (shared(), folder());
    let bundle = path(&dir, "m.hub");
    let export = |option: &str, value: &str| {
        hub(&["export", &model("digits/pir"), "-o", &bundle, option, value]).expect(0);
        hubc(&["inspect", &bundle, "--json"]).expect(0).json()["inputs"][0]["type"].clone()
    };
    let run = || hubc(&["run", &bundle, "--inputs", &s.inputs]);
    assert_eq!(export("--specialize", "image.0=540"), "f32[540, 1, 8, 8]");
    run().expect(0);
    assert_eq!(export("--specialize", "image.0=3"), "f32[3, 1, 8, 8]");
    run().refuses(2, &["image", "540", "3"]);
    assert_eq!(export("--dim", "image.0=1..540"), "f32[image.0, 1, 8, 8]");
    run().expect(0);
    export("--dim", "image.0=1..539");
    run().refuses(2, &["image", "540", "1..539"]);
}
