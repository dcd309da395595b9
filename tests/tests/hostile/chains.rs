//! Long chains of small operators: what compiling takes grows with the graph, not with its square.

use super::blowups::chain;
use super::harness::Folder;
use super::onnx_graphs::{model, relu};
use super::protos::*;
use hub_frontend::onnx::proto::*;
use prost::Message;

/// A model that exports, within the harness' bounds, and runs.
#[track_caller]
fn compiles(what: &str, input: ValueInfoProto, nodes: Vec<NodeProto>, weights: Vec<TensorProto>) {
    let mut m = model(nodes, weights);
    m.graph.as_mut().expect("a graph").input = vec![input];
    let f = Folder::of("m.onnx", m.encode_to_vec());
    f.export("m.onnx").succeeds(what);
    let run = ["bench", "m.hub", "--seconds", "0.01", "--threads", "1"];
    super::harness::ran(f.0.path(), "hubc", &run).succeeds(what);
}

fn zeros(name: &str, dims: &[i64]) -> TensorProto {
    floats(name, dims, &vec![0.0; dims.iter().product::<i64>() as usize])
}

/// Each becomes a loop: what is known of values before it is not copied for each.
#[test]
fn recurrent_networks() {
    let mut nodes = vec![];
    for i in 0..2000 {
        let x = if i == 0 { "x".into() } else { format!("s{i}") };
        let (y, next) = (format!("y{i}"), format!("s{}", i + 1));
        nodes.push(with(node("LSTM", &[&x, "w", "r"], &[&y]), int("hidden_size", 3)));
        nodes.push(node("Squeeze", &[&y, "one"], &[&next]));
    }
    nodes.push(relu("s2000", "y"));
    let weights = vec![zeros("w", &[1, 12, 3]), zeros("r", &[1, 12, 3]), shape("one", &[1])];
    compiles("LSTMs", value("x", &[4, 1, 3]), nodes, weights);
}

/// Each reads all before it.
#[test]
fn concatenations() {
    let mut nodes = vec![];
    let mut parts = vec!["x".to_string()];
    for i in 0..200 {
        let all: Vec<&str> = parts.iter().map(|p| &**p).collect();
        let (joined, mean) = (format!("j{i}"), format!("m{i}"));
        nodes.push(with(node("Concat", &all, &[&joined]), int("axis", 1)));
        let filter = with(node("LpNormalization", &[&joined], &[&mean]), int("axis", 1));
        nodes.push(filter);
        let first = format!("f{i}");
        nodes.push(node("Slice", &[&mean, "zero", "one", "one"], &[&first]));
        parts.push(first);
    }
    nodes.push(relu("f199", "y"));
    let weights = vec![shape("zero", &[0]), shape("one", &[1])];
    compiles("concatenations", value("x", &[1, 4, 6, 6]), nodes, weights);
}

/// Sums of neighbours: groups that might need themselves.
#[test]
fn windows_over_channels() {
    let lrn = |_: usize, a: &str, b: &str| with(node("LRN", &[a], &[b]), int("size", 3));
    compiles("LRN", value("x", &[1, 4, 6, 6]), chain(1000, lrn), vec![]);
}

/// Sizes in terms of sizes: their expressions stay short.
#[test]
fn sizes_that_follow_from_sizes() {
    let slice = |_: usize, a: &str, b: &str| node("Slice", &[a, "one", "end", "one"], &[b]);
    let weights = vec![shape("one", &[1]), shape("end", &[1 << 40])];
    compiles("slices", value("x", &[1, -1]), chain(1000, slice), weights);
    let halve = |_: usize, a: &str, b: &str| {
        let pool = with(node("MaxPool", &[a], &[b]), ints("kernel_shape", &[2]));
        with(with(pool, ints("strides", &[2])), ints("pads", &[1, 1]))
    };
    compiles("halves", value("x", &[1, 1, -1]), chain(60, halve), vec![]);
}

/// Kernels that all differ take time each.
#[test]
fn kernels_that_differ() {
    let mut m = model(chain(3, |_, a, b| node("Unique", &[a], &[b])), vec![]);
    m.graph.as_mut().expect("a graph").input = vec![value("x", &[3, 5])];
    let f = Folder::of("m.onnx", m.encode_to_vec());
    f.export("m.onnx").succeeds("three");
    let args = ["export", "m.onnx", "-o", "m.hub", "--limit", "kernels=1"];
    let r = super::harness::ran(f.0.path(), "hub", &args);
    r.refuses("one kernel", 9, &["more than 1 kernels", "--limit kernels="]);
}
