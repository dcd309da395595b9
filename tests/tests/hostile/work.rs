//! Files of a few megabytes that ask for hours of computing, and sizes that cannot be.

use super::harness::{Folder, tiers};
use super::onnx_graphs::{model, relu};
use super::protos::*;
use hub_frontend::onnx::proto::*;
use hub_models::NamedTensor;
use prost::Message;

fn over(dims: &[i64], nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> Vec<u8> {
    let mut m = model(nodes, weights);
    m.graph.as_mut().expect("a graph").input = vec![value("x", dims)];
    m.encode_to_vec()
}

fn zeros(name: &str, dims: &[i64]) -> TensorProto {
    floats(name, dims, &vec![0.0; dims.iter().product::<i64>() as usize])
}

/// A run of the default limits is refused with the option's name, on every tier.
#[track_caller]
fn too_long(what: &str, dims: &[i64], nodes: Vec<NodeProto>, weights: Vec<TensorProto>) {
    let f = Folder::of("m.onnx", over(dims, nodes, weights));
    f.export("m.onnx").succeeds(what);
    let sizes: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let x = NamedTensor::f32(&sizes, &vec![0.5; sizes.iter().product()]);
    for tier in tiers() {
        let r = f.run(tier, &[("x", x.clone())]);
        r.refuses(&format!("{what} on {tier}"), 9, &["amount of work", "--limit work="]);
    }
}

/// Megabytes of weights do not entitle to more than small files get.
#[test]
fn megabytes_that_ask_for_hours() {
    let outer = vec![
        node("MatMul", &["x", "r"], &["a"]),
        node("MatMul", &["a", "w"], &["b"]),
        node("ReduceMax", &["b"], &["c"]),
        relu("c", "y"),
    ];
    let w = vec![zeros("r", &[1, 2000]), zeros("w", &[2000, 1000])];
    too_long("a product of a broadcast", &[20_000, 1], outer, w);
    // (Packed for kernels, this filter is sixteen times as long.)
    let conv = with(node("Conv", &["x", "w"], &["y"]), ints("pads", &[500; 4]));
    too_long(
        "a filter of 1001 × 1001",
        &[1, 1, 700, 700],
        vec![conv],
        vec![zeros("w", &[1, 1, 1001, 1001])],
    );
}

/// Nor do the sizes that a file says of its inputs, where those are made up.
#[test]
fn large_inputs_that_nobody_gave() {
    let shaped = node("Expand", &["one", "dims"], &["w"]);
    let nodes = vec![shaped, node("Conv", &["x", "w"], &["y"])];
    let weights = vec![zeros("one", &[1]), shape("dims", &[4096, 4096, 3, 3])];
    let f = Folder::of("m.onnx", over(&[1, 4096, 64, 64], nodes, weights));
    f.export("m.onnx").succeeds("a filter made of one number");
    super::harness::ran(f.0.path(), "hubc", &["inspect", "m.hub"]).succeeds("nothing is run");
    for tier in tiers() {
        let run = ["bench", "m.hub", "--seconds", "0.01", "--cpu", tier];
        let r = super::harness::ran(f.0.path(), "hubc", &run);
        r.refuses(tier, 9, &["amount of work", "--limit work="]);
    }
}

/// A loop that costs little a turn ends at the limit all the same.
#[test]
fn loops_of_large_bodies() {
    let n = 1000i64;
    for (op, ins) in [("MatMul", &["v", "w"][..]), ("Erf", &["v"]), ("CumSum", &["v", "axis"])] {
        let step = GraphProto {
            node: vec![node("Identity", &["c"], &["c2"]), node(op, ins, &["v2"])],
            input: vec![
                super::blowups::typed("i", 7, &[]),
                super::blowups::typed("c", 9, &[]),
                value("v", &[n, n]),
            ],
            output: vec![super::blowups::typed("c2", 9, &[]), value("v2", &[n, n])],
            ..Default::default()
        };
        let trips = TensorProto { dims: vec![], ..shape("m", &[1 << 40]) };
        let axis = TensorProto { dims: vec![], ..shape("axis", &[0]) };
        let l = with(node("Loop", &["m", "", "big"], &["l"]), body("body", step));
        let nodes = vec![node("Mul", &["w", "x"], &["big"]), l, relu("l", "y")];
        too_long(op, &[1], nodes, vec![trips, axis, zeros("w", &[n, n])]);
    }
}

/// Strides far past the kernel make no filter of gigabytes.
#[test]
fn strides_of_transposed_convolutions() {
    for s in [1 << 20, 1 << 40] {
        let n = with(node("ConvTranspose", &["x", "w"], &["y"]), ints("strides", &[s, s]));
        let f = Folder::of("m.onnx", over(&[1, 1, 1, 1], vec![n], vec![zeros("w", &[1, 1, 3, 3])]));
        let r = f.export("m.onnx");
        assert!(matches!(r.code, 0 | 4 | 9), "stride {s}: {r:?}");
        for tier in tiers().into_iter().filter(|_| r.code == 0) {
            f.run(tier, &[("x", NamedTensor::f32(&[1, 1, 1, 1], &[1.0]))]).succeeds(tier);
        }
    }
}

/// Sizes below zero, and sizes that divide by zero: of the model's own constants, and of data.
#[test]
fn sizes_that_cannot_be() {
    let scalar = |name: &str, v: i64| TensorProto { dims: vec![], ..shape(name, &[v]) };
    let cases = vec![
        ("Tile", vec![node("Tile", &["x", "s"], &["y"])], vec![shape("s", &[-4])]),
        (
            "OneHot",
            vec![node("OneHot", &["i", "s", "v"], &["y"])],
            vec![shape("i", &[1]), scalar("s", -5), shape("v", &[0, 1])],
        ),
        ("TopK", vec![node("TopK", &["x", "s"], &["y", "i"])], vec![shape("s", &[-4])]),
        (
            "HannWindow",
            vec![node("HannWindow", &["s"], &["h"]), node("Add", &["h", "x"], &["y"])],
            vec![scalar("s", -4)],
        ),
        ("Expand", vec![node("Expand", &["x", "s"], &["y"])], vec![shape("s", &[-7, 3])]),
    ];
    for (what, nodes, weights) in cases {
        let known = over(&[3], nodes.clone(), weights.clone());
        super::harness::refused(what, "m.onnx", known, 4, &[]);
        // The same size, from an input.
        let mut m = model(nodes, weights);
        let g = m.graph.as_mut().expect("a graph");
        let at = g.initializer.iter().position(|w| w.name == "s").expect("a size");
        let s = g.initializer.remove(at);
        g.input = vec![value("x", &[3]), super::blowups::typed("s", 7, &s.dims)];
        let f = Folder::of("m.onnx", m.encode_to_vec());
        f.export("m.onnx").succeeds(what);
        let dims: Vec<usize> = s.dims.iter().map(|&d| d as usize).collect();
        for tier in tiers() {
            let given = [
                ("x", NamedTensor::f32(&[3], &[1.0; 3])),
                ("s", NamedTensor::i64(&dims, &s.int64_data)),
            ];
            f.run(tier, &given).refuses(&format!("{what} of data on {tier}"), 4, &[]);
        }
    }
}
