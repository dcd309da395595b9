//! What is refused, with which exit code, and that the message says what and where.

use super::onnx::Onnx;
use super::{Ran, folder, hub, hubc, model, path, shared, write};
use hub_models::NamedTensor;
use std::path::Path;
use tempfile::TempDir;

fn export(file: &str, more: &[&str]) -> Ran {
    let dir = folder();
    let bundle = path(&dir, "m.hub");
    let r = hub(&[&["export", file, "-o", &bundle][..], more].concat());
    assert_eq!(Path::new(&bundle).exists(), r.code == 0, "{r:?}");
    r
}

#[test]
fn absent_targets_and_tiers_differ_from_unknown_ones() {
    let digits = model("digits/model.onnx");
    for (option, absent, unknown) in [("--cpu", "amx", "sse9"), ("--precision", "int8", "f99")] {
        export(&digits, &[option, absent]).refuses(3, &[absent, "help: "]);
        export(&digits, &[option, unknown]).refuses(2, &[unknown]);
    }
    for target in ["toaster", "cpu,toaster"] {
        export(&digits, &["--target", target]).refuses(2, &["toaster"]);
    }
    for bad in ["nan", "0", "-1", "inf", "soon"] {
        export(&digits, &[&format!("--tune={bad}")]).refuses(2, &["--tune"]);
    }
}

#[test]
fn dimension_options_are_checked() {
    let digits = model("digits/pir");
    for bad in ["batch", "image.0=", "image.0=1", "image.0=a..b", "image.0=8..1", "image.0=-1..2"] {
        export(&digits, &["--dim", bad]).refuses(2, &[bad]);
    }
    for bad in ["image.0", "image.0=", "image.0=x", "image.0=-1", "image.0=1.5"] {
        export(&digits, &["--specialize", bad]).refuses(2, &[bad]);
    }
    for option in [["--dim", "depth=1..2"], ["--specialize", "depth=1"]] {
        export(&digits, &option).refuses(2, &["depth", "image.0"]);
    }
}

#[test]
fn command_lines_are_checked() {
    let s = shared();
    for args in [
        &["bench", &s.bundle, "--seconds", "nan"][..],
        &["bench", &s.bundle, "--max-ms", "nan"],
        &["bench", &s.bundle, "--max-ms=-1"],
        &["compare", &s.bundle, "--golden", &s.golden, "--rtol", "inf"],
        &["run", &s.bundle],
        &["run", &s.bundle, "--inputs", &s.inputs, "--threads", "many"],
        &["completions", "tcsh"],
        &["frobnicate"],
    ] {
        hubc(args).refuses(2, &[]);
    }
    hub(&["--version"]).expect(0);
    assert!(hub(&["--help"]).expect(0).out.contains("Exit codes: 0 ok, 2 usage"));
}

#[test]
fn missing_files_are_io_errors_that_name_the_file() {
    let s = shared();
    let (digits, none) = (model("digits/model.onnx"), "no-such-file");
    hub(&["export", none, "-o", "x.hub"]).refuses(8, &[none]);
    hub(&["export", &digits, "-o", "no-such-file/x.hub"]).refuses(8, &[none]);
    hubc(&["inspect", none]).refuses(8, &[none]);
    hubc(&["bench", none]).refuses(8, &[none]);
    hubc(&["run", none, "--inputs", &s.inputs]).refuses(8, &[none]);
    hubc(&["run", &s.bundle, "--inputs", none]).refuses(8, &[none]);
    hubc(&["compare", &s.bundle, "--golden", none]).refuses(8, &[none]);
    let args = ["run", &s.bundle, "--inputs", &s.inputs, "--outputs", "no-such-file/out"];
    hubc(&args).refuses(8, &[none]);
}

/// A copy of a Paddle folder's two files, the named one cut to a share of its length.
fn cut(from: &str, files: [&str; 2], cut: &str, share: f64) -> TempDir {
    let dir = folder();
    for f in files {
        let mut bytes = std::fs::read(model(&format!("{from}/{f}"))).expect("a model's file");
        if f == cut {
            bytes.truncate((bytes.len() as f64 * share) as usize);
        }
        std::fs::write(dir.path().join(f), bytes).expect("a file");
    }
    dir
}

#[test]
fn damaged_models_are_invalid_and_the_file_is_named() {
    let dir = folder();
    let whole = std::fs::read(model("digits/model.onnx")).expect("digits");
    let text = b"hello, this is a text and no model\n".to_vec();
    for (name, bytes) in [
        ("half.onnx", whole[..whole.len() / 2].to_vec()),
        ("most.onnx", whole[..whole.len() - 9].to_vec()),
        ("empty.onnx", vec![]),
        ("text.onnx", text.clone()),
        ("text.json", text),
        ("other.json", b"{\"answer\": 42}".to_vec()),
        ("zeros.pdmodel", vec![0; 4096]),
    ] {
        let file = path(&dir, name);
        std::fs::write(&file, bytes).expect("a file");
        export(&file, &[]).refuses(4, &[name]);
        hubc(&["inspect", &file]).refuses(4, &[name]);
    }
    export(&path(&folder(), ""), &[]).refuses(4, &["holds no model"]);

    let pir = ["inference.json", "inference.pdiparams"];
    let legacy = ["inference.pdmodel", "inference.pdiparams"];
    for (from, files) in [("digits/pir", pir), ("digits/legacy", legacy)] {
        for (file, share) in [(files[0], 0.5), (files[1], 0.5), (files[1], 0.0)] {
            let dir = cut(from, files, file, share);
            export(&path(&dir, ""), &[]).refuses(4, &[file]);
        }
    }
}

#[test]
fn absent_parameters_name_the_file_that_is_sought() {
    let dir = cut("digits/pir", ["inference.json", "inference.pdiparams"], "", 1.0);
    std::fs::remove_file(dir.path().join("inference.pdiparams")).expect("removed");
    let r = export(&path(&dir, "inference.json"), &[]);
    assert!([4, 8].contains(&r.code), "{r:?}");
    assert!(r.err.contains("inference.pdiparams"), "{r:?}");
}

#[test]
fn all_unsupported_operators_are_listed_with_counts() {
    let dir = folder();
    let file = path(&dir, "odd.onnx");
    let mut m = Onnx::new("x", "y", &[2, 3]);
    m.node("Relu", "", "x", "a").node("Wobble", "", "a", "b").node("Wobble", "", "b", "c");
    m.node("FusedThing", "com.example", "c", "d").node("Tanh", "", "d", "y");
    std::fs::write(&file, m.bytes()).expect("a file");
    let words =
        ["2 unsupported", "Wobble-17 (2 node", "com.example.FusedThing-1 (1 node", "help: "];
    export(&file, &[]).refuses(3, &words);
    export(&file, &[]).refuses(3, &["odd.onnx"]);

    let dir = folder();
    let json = std::fs::read_to_string(model("digits/pir/inference.json")).expect("digits");
    let odd =
        json.replace("\"1.hardswish\"", "\"1.softswash\"").replace("\"1.relu\"", "\"1.rolu\"");
    std::fs::write(dir.path().join("inference.json"), odd).expect("a file");
    std::fs::copy(model("digits/pir/inference.pdiparams"), dir.path().join("inference.pdiparams"))
        .expect("a copy");
    let words = ["2 unsupported", "pd_op.softswash (6 node", "pd_op.rolu (1 node"];
    export(&path(&dir, ""), &[]).refuses(3, &words);
}

#[test]
fn a_supported_hand_made_model_is_exported() {
    let dir = folder();
    let file = path(&dir, "tiny.onnx");
    let mut m = Onnx::new("x", "y", &[2, 3]);
    m.node("Relu", "", "x", "a").node("Tanh", "", "a", "y");
    std::fs::write(&file, m.bytes()).expect("a file");
    export(&file, &["--verify"]).expect(0);
}

#[test]
fn inputs_that_do_not_fit_are_usage_errors() {
    let (s, dir) = (shared(), folder());
    let file = path(&dir, "in.safetensors");
    let run = || hubc(&["run", &s.bundle, "--inputs", &file]);
    write(&file, [("picture", s.digits.test_image.clone())]);
    let r = run().expect(2);
    assert!(r.err.contains("input 'image' is missing") && r.err.contains("picture"), "{r:?}");
    write(&file, [("image", NamedTensor::i64(&[1, 1, 8, 8], &[0; 64]))]);
    run().refuses(2, &["image", "I64", "F32"]);
    write(&file, [("image", NamedTensor::f32(&[1, 8, 8], &[0.0; 64]))]);
    run().refuses(2, &["image"]);
    write(&file, [("image", NamedTensor::f32(&[1, 1, 4, 16], &[0.0; 64]))]);
    run().refuses(2, &["image"]);
    std::fs::write(&file, b"no tensors").expect("a file");
    run().refuses(4, &["in.safetensors"]);
    hubc(&["run", &s.bundle, "--inputs", &s.inputs, "--device", "cuda:0"]).refuses(3, &["cuda:0"]);
    hubc(&["run", &s.bundle, "--inputs", &s.inputs, "--cpu", "amx"]).refuses(3, &["amx"]);
}

/// Where a section lies, from the ELF header that a bundle is.
fn sections(b: &[u8]) -> Vec<(usize, usize)> {
    let word = |at: usize, n: usize| {
        let mut le = [0; 8];
        le[..n].copy_from_slice(&b[at..at + n]);
        u64::from_le_bytes(le) as usize
    };
    let (table, count) = (word(40, 8), word(60, 2));
    let header = |i: usize| table + 64 * i;
    (1..count).map(|i| (word(header(i) + 24, 8), word(header(i) + 32, 8))).collect()
}

#[test]
fn one_flipped_bit_in_any_section_is_an_integrity_error() {
    let (s, dir) = (shared(), folder());
    let file = path(&dir, "bad.hub");
    let whole = std::fs::read(&s.bundle).expect("the bundle");
    let found = sections(&whole);
    assert!(found.len() >= 8);
    for (at, len) in found {
        let mut bytes = whole.clone();
        bytes[at + len / 2] ^= 1;
        std::fs::write(&file, bytes).expect("a file");
        hubc(&["run", &file, "--inputs", &s.inputs]).refuses(7, &["bad.hub", "does not match"]);
    }
}

#[test]
fn cut_bundles_are_refused() {
    let (s, dir) = (shared(), folder());
    let file = path(&dir, "cut.hub");
    let whole = std::fs::read(&s.bundle).expect("the bundle");
    for keep in [4, 63, 5000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..keep]).expect("a file");
        hubc(&["run", &file, "--inputs", &s.inputs]).refuses(7, &["cut.hub"]);
    }
    hubc(&["run", &s.inputs, "--inputs", &s.inputs]).refuses(4, &["not a bundle"]);
}

#[test]
fn the_model_is_not_written_over() {
    let dir = folder();
    let file = path(&dir, "tiny.onnx");
    let mut m = Onnx::new("x", "y", &[2]);
    std::fs::write(&file, m.node("Relu", "", "x", "y").bytes()).expect("a file");
    hub(&["export", &file, "-o", &file]).refuses(2, &["tiny.onnx"]);
    assert_eq!(std::fs::read(&file).expect("the model"), m.bytes());
}

#[test]
fn a_reader_that_leaves_is_no_bug() {
    use std::process::{Command, Stdio};
    let dir = folder();
    let (file, bundle) = (model("digits/model.onnx"), path(&dir, "m.hub"));
    let mut c = Command::new(env!("CARGO_BIN_EXE_hubc"))
        .args(["optimize", &file, "-o", &bundle, "--emit", "asm"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(c.stdout.take());
    let o = c.wait_with_output().expect("it ends");
    assert_eq!(o.status.code(), Some(8));
    assert!(o.stderr.is_empty(), "{}", String::from_utf8_lossy(&o.stderr));
}
