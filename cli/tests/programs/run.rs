//! `hubc run`, `compare` and `bench`: answers, gates, and what they print.

use super::{Ran, folder, hub, hubc, model, path, shared, write};
use hub_models::NamedTensor;
use serde_json::Value;

#[test]
fn outputs_go_to_a_file_that_reads_back() {
    let (s, dir) = (shared(), folder());
    let out = path(&dir, "out.safetensors");
    let args = ["run", &s.bundle, "--inputs", &s.inputs, "--outputs", &out, "--threads", "3"];
    let r = hubc(&args).expect(0);
    assert_eq!((r.out, r.err), (String::new(), String::new()));
    let got = hub_models::read(&out).expect("outputs").tensors;
    assert_eq!(got.keys().collect::<Vec<_>>(), ["fetch_name_0"]);
    let logits = &got["fetch_name_0"];
    assert_eq!((&logits.dtype[..], &logits.shape[..]), ("F32", &[540, 10][..]));
    let accuracy = s.digits.accuracy(logits).expect("logits");
    assert_eq!(Some(accuracy), s.digits.accuracy(&s.digits.test_logits));
    // What came out serves as a golden, and equals itself exactly.
    let golden = path(&dir, "golden.safetensors");
    write(&golden, [("out:fetch_name_0", logits.clone())]);
    let r = compare(&s.bundle, &golden, &["--rtol", "0", "--json"]).expect(0);
    assert_eq!(r.json()["outputs"][0]["error"], 0.0);
}

#[test]
fn run_shows_first_values_without_outputs() {
    let s = shared();
    let r = hubc(&["run", &s.bundle, "--inputs", &s.inputs]).expect(0);
    assert!(r.out.starts_with("fetch_name_0: F32 [540, 10] ["), "{}", r.out);
}

#[test]
fn other_tensors_in_the_input_file_are_ignored_with_a_warning() {
    let (s, dir) = (shared(), folder());
    let inputs = path(&dir, "in.safetensors");
    let image = s.digits.test_image.clone();
    write(&inputs, [("image", image), ("spare", NamedTensor::f32(&[1], &[0.0]))]);
    let r = hubc(&["run", &s.bundle, "--inputs", &inputs]).expect(0);
    assert_eq!(r.err, "warning: the model has no input 'spare': ignored\n");
}

fn compare(model: &str, golden: &str, more: &[&str]) -> Ran {
    let args = ["compare", model, "--golden", golden, "--inputs", &shared().inputs];
    hubc(&[&args[..], more].concat())
}

#[test]
fn a_right_golden_passes_on_every_tier() {
    let s = shared();
    for tier in ["avx512", "avx2", "portable"] {
        if tier != "portable" && !hub_runtime::supports(tier) {
            println!("ignored: tier {tier} is not on this machine");
            continue;
        }
        let v = compare(&s.bundle, &s.golden, &["--cpu", tier, "--json"]).expect(0).json();
        assert_eq!(v["ok"], true);
        assert!(v["outputs"][0]["error"].as_f64().is_some_and(|e| e < 1e-5), "{v}");
    }
}

#[test]
fn a_wrong_golden_is_a_mismatch() {
    let (s, dir) = (shared(), folder());
    let golden = path(&dir, "wrong.safetensors");
    let mut logits = s.digits.test_logits.as_f32().expect("logits");
    logits[17] += 0.5;
    write(&golden, [("out:fetch_name_0", NamedTensor::f32(&[540, 10], &logits))]);
    let r = compare(&s.bundle, &golden, &[]).expect(5);
    assert!(r.out.contains("fetch_name_0") && r.err.starts_with("error: "), "{r:?}");
    let r = compare(&s.bundle, &golden, &["--json"]).expect(5);
    assert_eq!((&r.json()["ok"], &r.json()["outputs"][0]["ok"]), (&false.into(), &false.into()));
    compare(&s.bundle, &golden, &["--rtol", "0.5"]).expect(0);

    write(&golden, [("out:no_such", NamedTensor::f32(&[1], &[0.0]))]);
    assert_ne!(compare(&s.bundle, &golden, &[]).code, 0, "an output that the model lacks");
    let short = NamedTensor::f32(&[10], &logits[..10]);
    write(&golden, [("out:fetch_name_0", short)]);
    assert_ne!(compare(&s.bundle, &golden, &[]).code, 0, "a golden of another size");
}

#[test]
fn a_model_compares_without_a_bundle() {
    let golden = model("paddle_formats/pir/whilenet.golden.safetensors");
    let file = model("paddle_formats/pir/whilenet.json");
    let v = hubc(&["compare", &file, "--golden", &golden, "--json"]).expect(0).json();
    assert_eq!(v["ok"], true);
}

/// A short bench of digits.
fn bench(more: &[&str]) -> Ran {
    hubc(&[&["bench", &shared().bundle, "--seconds", "0.02"][..], more].concat())
}

#[test]
fn bench_measures_in_text_and_json() {
    let r = bench(&["--threads", "1"]).expect(0);
    for part in ["median ", "min ", "p90 ", "open ", "arena ", "1 thread"] {
        assert!(r.out.contains(part), "no {part:?} in {}", r.out);
    }
    let v = bench(&["--threads", "2", "--json", "--max-ms", "60000"]).expect(0).json();
    let number = |k: &str| v[k].as_f64().unwrap_or_else(|| panic!("no {k} in {v}"));
    assert!(0.0 < number("min_ms") && number("min_ms") <= number("median_ms"));
    assert!(number("median_ms") <= number("p90_ms"));
    assert!(number("runs") >= 3.0 && number("open_ms") < number("first_answer_ms"));
    assert_eq!(v["threads"], 2);
    assert!(v.get("steps").is_none());
}

#[test]
fn a_missed_speed_gate_has_its_own_code() {
    let r = bench(&["--max-ms", "0"]).expect(6);
    assert!(r.out.contains("median ") && r.err.starts_with("error: the median is "), "{r:?}");
    // JSON stays whole on standard output.
    assert!(bench(&["--max-ms", "0", "--json"]).expect(6).json()["median_ms"].is_number());
}

#[test]
fn bench_takes_sizes_of_dynamic_dimensions() {
    let dir = folder();
    let bundle = path(&dir, "m.hub");
    let args = ["export", &model("digits/pir"), "-o", &bundle, "--dim", "image.0=1..64"];
    hub(&args).expect(0);
    let flops = |n: &str| {
        let args = ["bench", &bundle, "--seconds", "0", "--json", "--dim", n];
        hubc(&args).expect(0).json()["flops"].as_u64().expect("flops")
    };
    assert_eq!(flops("image.0=32"), 32 * flops("image.0=1"));
    let bench = |n: &str| hubc(&["bench", &bundle, "--dim", n]);
    bench("image.0=65").refuses(2, &["image.0", "65", "1..64"]);
    bench("image.1=1").refuses(2, &["image.1", "image.0"]);
    bench("image.0").refuses(2, &["image.0"]);
}

#[test]
fn the_profile_lists_every_step_and_the_trace_is_json() {
    let dir = folder();
    let file = path(&dir, "trace.json");
    if hub_runtime::best_tier().is_none() {
        println!("ignored: this machine runs portable only");
        return;
    }
    let v = bench(&["--profile", "--json", "--trace", &file]).expect(0).json();
    let steps = v["steps"].as_array().expect("steps");
    let text = std::fs::read_to_string(&file).expect("the trace");
    let trace: Value = serde_json::from_str(&text).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    assert!(!steps.is_empty());
    assert_eq!(events.len(), steps.len());
    let mut end = 0.0;
    for (e, s) in events.iter().zip(steps) {
        assert_eq!((&e["name"], &e["ph"], &e["cat"]), (&s["node"], &"X".into(), &s["kernel"]));
        assert!(e["ts"].as_f64() >= Some(end), "steps follow one another: {e}");
        end = e["ts"].as_f64().unwrap_or(0.0) + e["dur"].as_f64().expect("a duration") - 1e-9;
    }
    assert!(
        v["best_gflops"].as_f64() > Some(0.0) && v["best_gb_per_s"].as_f64() > Some(0.0),
        "{v}"
    );
    let table = bench(&["--profile"]).expect(0).out;
    for s in steps {
        assert!(s["limit_share"].as_f64() >= Some(0.0), "{s}");
        let row = format!("  {}  {}", s["kernel"].as_str().expect("a name"), "");
        assert!(table.contains(row.trim_end()), "no {row:?} in {table}");
    }
}
