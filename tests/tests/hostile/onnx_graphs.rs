//! ONNX files that are protobuf, and make no sense as models.

use super::harness::{Folder, refused};
use super::protos::*;
use hub_frontend::onnx::proto::*;
use prost::Message;

/// A model of these nodes: `x` (f32 [2, 3, 8, 8]) to `y`.
pub fn model(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer: weights,
        input: vec![value("x", &[2, 3, 8, 8])],
        output: vec![ValueInfoProto { name: "y".into(), ..Default::default() }],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..Default::default()
    }
}

pub fn relu(a: &str, b: &str) -> NodeProto {
    node("Relu", &[a], &[b])
}

/// The bytes of a model that is fine.
pub fn sound() -> Vec<u8> {
    let nodes = vec![relu("x", "t"), node("Add", &["t", "w"], &["y"])];
    model(nodes, vec![floats("w", &[1], &[1.0])]).encode_to_vec()
}

#[track_caller]
fn bad(what: &str, nodes: Vec<NodeProto>, weights: Vec<TensorProto>, code: i32, words: &[&str]) {
    refused(what, "m.onnx", model(nodes, weights).encode_to_vec(), code, words);
}

#[test]
fn the_sound_model_exports() {
    Folder::of("m.onnx", sound()).export("m.onnx").succeeds("sound");
}

#[test]
fn graphs() {
    bad("a cycle", vec![relu("b", "a"), relu("a", "b"), relu("b", "y")], vec![], 4, &["cycle"]);
    bad("a node that feeds itself", vec![relu("y", "y")], vec![], 4, &["cycle"]);
    bad("two makers", vec![relu("x", "y"), relu("x", "y")], vec![], 4, &["'y'"]);
    bad("no maker", vec![relu("ghost", "y")], vec![], 4, &["'ghost'"]);
    bad("no output", vec![relu("x", "t")], vec![], 4, &["'y'"]);
    bad("no inputs", vec![node("Relu", &[], &["y"])], vec![], 4, &["Relu:y"]);
    bad("no inputs at all", vec![node("Concat", &[], &["y"])], vec![], 4, &[]);
    bad(
        "an unknown operator",
        vec![node("Frobnicate", &["x"], &["y"])],
        vec![],
        3,
        &["Frobnicate"],
    );
    let two = vec![floats("w", &[1], &[1.0]), floats("w", &[1], &[2.0])];
    bad("one name twice", vec![node("Add", &["x", "w"], &["y"])], two, 4, &["'w'"]);
}

#[test]
fn tensors() {
    let add = || vec![node("Add", &["x", "w"], &["y"])];
    let dims = |d: &[i64]| vec![floats("w", d, &[1.0])];
    bad("2^62 × 8", add(), dims(&[1 << 62, 8]), 9, &["'w'"]);
    bad("2^62 × 2^62", add(), dims(&[1 << 62, 1 << 62]), 9, &["'w'"]);
    bad("a negative size", add(), dims(&[-4]), 4, &["'w'"]);
    bad("zero and more", add(), dims(&[0, 1 << 62]), 4, &["'w'"]);
    bad("too little data", add(), dims(&[2]), 4, &["'w'"]);
    bad("too much data", add(), vec![floats("w", &[1], &[1.0; 9])], 4, &["'w'"]);
    bad("65 axes", add(), dims(&[1; 65]), 9, &["'w'"]);
    for (number, code) in [(0, 4), (-7, 4), (99, 3), (999, 3)] {
        let w = TensorProto { data_type: number, ..floats("w", &[1], &[1.0]) };
        bad("a bad element type", add(), vec![w], code, &["'w'"]);
    }
    let mut m = model(add(), vec![]);
    let g = m.graph.as_mut().expect("a graph");
    let s = SparseTensorProto {
        values: Some(floats("w", &[1], &[1.0])),
        indices: Some(shape("i", &[0])),
        dims: vec![1 << 20, 1 << 12],
    };
    g.sparse_initializer = vec![s];
    refused("a sparse tensor of 16 GiB", "m.onnx", m.encode_to_vec(), 9, &["'w'"]);
}

#[test]
fn attributes() {
    let w = || vec![floats("w", &[3, 3, 1, 1], &[0.0; 9])];
    let conv = |a| vec![with(node("Conv", &["x", "w"], &["y"]), a)];
    bad("group 0", conv(int("group", 0)), w(), 4, &["Conv:y"]);
    bad("group -1", conv(int("group", -1)), w(), 4, &["Conv:y"]);
    bad("stride 0", conv(ints("strides", &[0, 0])), w(), 4, &["Conv:y"]);
    bad("kernel 0", conv(ints("kernel_shape", &[0, 0])), w(), 4, &["Conv:y"]);
    bad("dilation 0", conv(ints("dilations", &[0, 1])), w(), 4, &["Conv:y"]);
    bad("pads of 2^63", conv(ints("pads", &[i64::MAX; 4])), w(), 4, &["Conv:y"]);
    for op in ["MaxPool", "AveragePool", "LpPool"] {
        let pool = |k: &[i64]| vec![with(node(op, &["x"], &["y"]), ints("kernel_shape", k))];
        bad("a window of 0", pool(&[0, 0]), vec![], 4, &[op]);
        bad("a window of -1", pool(&[-1, 2]), vec![], 4, &[op]);
        bad("a window of rank 3", pool(&[1, 1, 1]), vec![], 4, &[op]);
    }
    for op in ["DepthToSpace", "SpaceToDepth"] {
        for size in [0, -1, i64::MIN, i64::MAX] {
            let n = vec![with(node(op, &["x"], &["y"]), int("blocksize", size))];
            bad("a block size", n, vec![], 4, &[op]);
        }
    }
    for op in ["Softmax", "Flatten", "ArgMax", "LogSoftmax", "Hardmax"] {
        for axis in [5, -6, i64::MAX, i64::MIN] {
            bad(
                "an axis",
                vec![with(node(op, &["x"], &["y"]), int("axis", axis))],
                vec![],
                4,
                &[op],
            );
        }
    }
    let n = with(node("Concat", &["x", "x"], &["y"]), int("axis", 4));
    bad("an axis equal to the rank", vec![n], vec![], 4, &["Concat:y"]);
    for perm in [&[0, 0, 1, 2][..], &[0, 1, 2], &[0, 1, 2, 9], &[-1, 0, 1, 2]] {
        let n = with(node("Transpose", &["x"], &["y"]), ints("perm", perm));
        bad("a permutation", vec![n], vec![], 4, &["Transpose:y"]);
    }
}

#[test]
fn operands() {
    let reshape = vec![node("Reshape", &["x", "s"], &["y"])];
    for to in [&[-1, -1][..], &[7, -1], &[-2, 3], &[1, 1, 1, 1, 0], &[i64::MAX, i64::MAX]] {
        bad("a shape", reshape.clone(), vec![shape("s", to)], 4, &["Reshape:y"]);
    }
    let zero = vec![shape("a", &[0]), shape("b", &[4]), shape("z", &[0])];
    let slice = node("Slice", &["x", "a", "b", "a", "z"], &["y"]);
    bad("a step of 0", vec![slice], zero, 4, &["Slice:y"]);
    let n = node("Squeeze", &["x", "a"], &["y"]);
    bad("squeezing 8", vec![n], vec![shape("a", &[2])], 4, &["Squeeze:y"]);
    let n = node("Unsqueeze", &["x", "a"], &["y"]);
    bad("the same axis twice", vec![n], vec![shape("a", &[0, 0])], 4, &["Unsqueeze:y"]);
    let n = node("MatMul", &["x", "w"], &["y"]);
    bad("sizes that differ", vec![n], vec![floats("w", &[7, 7], &[0.0; 49])], 4, &["MatMul:y"]);
    let n = node("Split", &["x", "s"], &["y", "z"]);
    bad("parts that do not add up", vec![n], vec![shape("s", &[1, 9])], 4, &["Split:y"]);
    let n = node("Gather", &["x", "i"], &["y"]);
    let f = Folder::of("m.onnx", model(vec![n], vec![shape("i", &[99])]).encode_to_vec());
    let r = f.export("m.onnx");
    assert!(r.code == 0 || r.code == 4, "an index out of range: {r:?}");
}

fn call(f: &str, x: &str, y: &str) -> NodeProto {
    NodeProto { domain: "d".into(), ..node(f, &[x], &[y]) }
}

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "d".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: nodes,
        ..Default::default()
    }
}

#[test]
fn functions() {
    let mut m = model(vec![call("f", "x", "y")], vec![]);
    m.functions = vec![function("f", vec![call("f", "x", "y")])];
    refused("a function that calls itself", "m.onnx", m.encode_to_vec(), 4, &["calls itself"]);
    m.functions =
        vec![function("f", vec![call("g", "x", "y")]), function("g", vec![call("f", "x", "y")])];
    refused("two that call each other", "m.onnx", m.encode_to_vec(), 4, &["calls itself"]);
    let name = |i: usize| if i == 0 { "f".to_string() } else { format!("f{i}") };
    let chain = |n: usize, each: &dyn Fn(usize) -> Vec<NodeProto>| -> Vec<FunctionProto> {
        let last = function(&name(n), vec![relu("x", "y")]);
        (0..n).map(|i| function(&name(i), each(i + 1))).chain([last]).collect()
    };
    m.functions = chain(3000, &|next| vec![call(&name(next), "x", "y")]);
    refused("a chain of 3000", "m.onnx", m.encode_to_vec(), 9, &["nest"]);
    m.functions = chain(40, &|next| vec![call(&name(next), "x", "t"), call(&name(next), "t", "y")]);
    refused("2^40 calls", "m.onnx", m.encode_to_vec(), 9, &["more than 100000"]);
}

#[test]
fn a_limit_can_be_lowered_by_name() {
    let f = Folder::of("m.onnx", sound());
    let export = ["export", "m.onnx", "-o", "m.hub", "--limit"];
    for (limit, word) in
        [("nodes=1", "nodes"), ("file=10", "10 bytes"), ("tensor=3", "3 bytes"), ("decoded=9", "9")]
    {
        let r = super::harness::ran(f.0.path(), "hub", &[&export[..], &[limit]].concat());
        r.refuses(limit, 9, &["m.onnx", word]);
    }
    let r = super::harness::ran(f.0.path(), "hub", &[&export[..], &["what=1"]].concat());
    r.refuses("an unknown limit", 2, &["what", "steps"]);
}
