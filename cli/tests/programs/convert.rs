//! `hubc convert`: models out again.

use super::{folder, hubc, model, path, shared};

/// Converts, with options.
fn convert(file: &str, more: &[&str]) -> super::Ran {
    let dir = folder();
    let out = path(&dir, "m.onnx");
    hubc(&[&["convert", &model(file), "-o", &out][..], more].concat())
}

#[test]
fn a_converted_model_answers_as_before() {
    let s = shared();
    let dir = folder();
    for (file, more) in [
        ("digits/model.onnx", &[][..]),
        ("digits/pir", &["--after", "fuse"]),
        ("digits/pir", &["--external-data"]),
    ] {
        let out = path(&dir, "m.onnx");
        let from = model(file);
        let args = [&["convert", &from, "-o", &out][..], more].concat();
        let said = hubc(&args).expect(0).out;
        assert!(said.contains("m.onnx: ") && said.contains(" nodes, "), "{said}");
        let args = ["compare", &out, "--golden", &s.golden, "--inputs", &s.inputs];
        assert!(hubc(&args).expect(0).out.contains("fetch_name_0: ok"));
        assert_eq!(dir.path().join("m.onnx.data").exists(), more.contains(&"--external-data"));
    }
}

#[test]
fn a_report_is_json_on_request() {
    let r = convert("digits/legacy/inference.pdmodel", &["--json", "--specialize", "image.0=4"]);
    let v = r.expect(0).json();
    assert!(v["nodes"].as_u64() > Some(3) && v["bytes"].as_u64() > Some(1000), "{v}");
    assert!(v["external_bytes"].is_null());
}

#[test]
fn conversions_that_cannot_be_are_refused() {
    convert("digits/pir", &["--after", "bake"]).refuses(2, &["bake", "fold", "fuse"]);
    convert("digits/pir", &["--dim", "depth=1..2"]).refuses(2, &["depth"]);
    convert("no-such-file", &[]).refuses(8, &["no-such-file"]);
    let (digits, none) = (model("digits/model.onnx"), "no-such-file/m.onnx");
    hubc(&["convert", &digits, "-o", none]).refuses(8, &[none]);
    hubc(&["convert", &digits, "-o", &digits]).refuses(2, &["the model itself"]);
    hubc(&["convert", &digits]).refuses(2, &["--output"]);
    let help = hubc(&["convert", "--help"]).expect(0).out;
    for word in ["--after", "--external-data", "--dim", "--specialize", "opset 21"] {
        assert!(help.contains(word), "no {word} in {help}");
    }
}
