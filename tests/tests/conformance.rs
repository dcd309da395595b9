//! The conformance runner itself, on a suite of three tests that is built here: what passes, what
//! fails, what takes too long, and that a wrong table is noticed in either direction.

use hub_frontend::onnx::proto::{
    DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use prost::Message;
use std::path::Path;
use std::process::{Command, Output};

fn floats() -> TypeProto {
    let dim = vec![DimensionProto { dim_value: Some(3), ..Default::default() }];
    let shape = Some(TensorShapeProto { dim });
    TypeProto { tensor_type: Some(TensorTypeProto { elem_type: 1, shape }), ..Default::default() }
}

fn sequence() -> TypeProto {
    let elem = hub_frontend::onnx::proto::ElemTypeProto { elem_type: Some(floats().into()) };
    TypeProto { sequence_type: Some(elem.into()), ..Default::default() }
}

fn tensor(data: &[f32]) -> TensorProto {
    let dims = vec![data.len() as i64];
    TensorProto { dims, data_type: 1, float_data: data.to_vec(), ..Default::default() }
}

/// A model of one node, with one data set.
fn test(dir: &Path, op: &str, inputs: usize, ty: TypeProto, answer: &[u8]) {
    let info = |name: &str, ty| ValueInfoProto { name: name.into(), r#type: Some(ty) };
    let node = NodeProto {
        op_type: op.into(),
        input: vec!["x".into(); inputs],
        output: vec!["y".into()],
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node],
        name: "g".into(),
        input: vec![info("x", floats())],
        output: vec![info("y", ty)],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..Default::default() };
    let model = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![opset],
        ..Default::default()
    };
    let set = dir.join("test_data_set_0");
    std::fs::create_dir_all(&set).expect("a folder");
    let write = |name: &Path, bytes: &[u8]| std::fs::write(name, bytes).expect("a file");
    write(&dir.join("model.onnx"), &model.encode_to_vec());
    write(&set.join("input_0.pb"), &tensor(&[-1.0, 0.5, 2.0]).encode_to_vec());
    write(&set.join("output_0.pb"), answer);
}

/// A message whose field 3 holds `t` `n` times: a `SequenceProto`.
fn wrapped(t: &TensorProto, n: usize) -> Vec<u8> {
    let inner = t.encode_to_vec();
    let mut field = vec![0x1a, u8::try_from(inner.len()).expect("short")];
    field.extend(inner);
    field.repeat(n)
}

fn suite(dir: &Path) {
    let right = tensor(&[0.0, 0.5, 2.0]).encode_to_vec();
    test(&dir.join("node/test_right"), "Relu", 1, floats(), &right);
    test(&dir.join("node/test_wrong"), "Neg", 1, floats(), &right);
    let twice = wrapped(&tensor(&[-1.0, 0.5, 2.0]), 2);
    test(&dir.join("simple/test_sequence"), "SequenceConstruct", 2, sequence(), &twice);
}

fn run(suite: &Path, table: &str, options: &[&str]) -> (i32, String) {
    let file = suite.join("table.txt");
    std::fs::write(&file, table).expect("a file");
    let out: Output = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg(suite)
        .arg("--expect")
        .arg(&file)
        .args(options)
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text.into_owned())
}

#[test]
fn the_table_must_be_right_in_both_directions() {
    let dir = tempfile::tempdir().expect("a folder");
    suite(dir.path());
    let (code, text) = run(dir.path(), "both node/test_wrong: Neg is not Relu\n", &[]);
    assert_eq!(code, 0, "{text}");
    for line in [
        "reference mismatch    node/test_wrong: output 0: element 0 of [3]: 1, not 0",
        "expected: Neg is not Relu",
        "compiled   node 1/2  simple 1/1  = 2 of 3 without light",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let (code, text) = run(dir.path(), "reference node/test_wrong: Neg is not Relu\n", &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("wrong: compiled node/test_wrong fails"), "{text}");
    let all = "both node/test_wrong: x\nboth node/test_right: x\nboth node/test_gone: x\n";
    let (code, text) = run(dir.path(), all, &[]);
    assert_eq!(code, 1, "{text}");
    for line in ["reference node/test_right passes", "compiled node/test_gone is in the table"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn machines_read_what_people_read() {
    let dir = tempfile::tempdir().expect("a folder");
    suite(dir.path());
    let (code, text) = run(dir.path(), "", &["--json", "--only", "node/"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &json["schema"]), (1, &serde_json::json!(1)));
    assert_eq!(json["counts"]["compiled"]["node"]["passed"], 1);
    assert_eq!(json["tests"].as_array().map(Vec::len), Some(4));
    assert_eq!(json["table"]["unexpected"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_test_that_takes_too_long_has_failed() {
    let dir = tempfile::tempdir().expect("a folder");
    suite(dir.path());
    let (code, text) = run(dir.path(), "", &["--limit", "0", "--only", "test_right"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("timeout"), "{text}");
}

#[test]
fn a_folder_without_tests_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (code, text) = run(dir.path(), "", &[]);
    assert_eq!(code, 8, "{text}");
}
