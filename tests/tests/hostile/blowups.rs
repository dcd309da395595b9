//! Small ONNX files that make much while they are read, compiled or run.

use super::harness::{Folder, Ran, ran, tiers};
use super::onnx_graphs::{model, relu};
use super::protos::*;
use hub_frontend::onnx::proto::*;
use hub_models::NamedTensor;
use prost::Message;

const I64: i32 = 7;
const BOOL: i32 = 9;

pub fn typed(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    let mut v = value(name, dims);
    let t = v.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
    t.expect("a tensor").elem_type = elem;
    v
}

/// A model whose input has these sizes.
fn over(dims: &[i64], nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> Vec<u8> {
    let mut m = model(nodes, weights);
    m.graph.as_mut().expect("a graph").input = vec![value("x", dims)];
    m.encode_to_vec()
}

/// `n` nodes one after another, each made by `each` from the name before it.
pub fn chain(n: usize, each: impl Fn(usize, &str, &str) -> NodeProto) -> Vec<NodeProto> {
    let name = |i: usize| if i == 0 { "x".to_string() } else { format!("t{i}") };
    let mut nodes: Vec<NodeProto> = (0..n).map(|i| each(i, &name(i), &name(i + 1))).collect();
    nodes.push(relu(&name(n), "y"));
    nodes
}

/// Every program ends in time and within its memory, with success or with one of these codes.
#[track_caller]
fn bounded(what: &str, bytes: Vec<u8>, codes: &[i32]) {
    let f = Folder::of("m.onnx", bytes);
    let check = |doing: &str, r: Ran| {
        assert!(r.code == 0 || codes.contains(&r.code), "{what}, {doing}: {r:?}");
        r.code
    };
    check("convert", ran(f.0.path(), "hubc", &["convert", "m.onnx", "-o", "c.onnx"]));
    if check("export", f.export("m.onnx")) != 0 {
        return;
    }
    for tier in tiers() {
        let args = ["bench", "m.hub", "--seconds", "0.01", "--threads", "2", "--cpu", tier];
        check(tier, ran(f.0.path(), "hubc", &args));
    }
    check("inspect", ran(f.0.path(), "hubc", &["inspect", "m.hub"]));
}

/// Operators whose definition holds constants as large as their results.
#[test]
fn definitions_with_large_constants() {
    let pool = |_: usize, a: &str, b: &str| {
        let n = with(node("AveragePool", &[a], &[b]), ints("kernel_shape", &[3, 3]));
        with(n, ints("pads", &[1, 1, 1, 1]))
    };
    bounded("average pools", over(&[1, 1, 500, 500], chain(100, pool), vec![]), &[9]);
    let resize = |i: usize, a: &str, b: &str| {
        let s = if i.is_multiple_of(2) { "up" } else { "down" };
        with(node("Resize", &[a, "", s], &[b]), string("mode", "cubic"))
    };
    let w = || vec![floats("up", &[3], &[1.0, 1.0, 1.01]), floats("down", &[3], &[1.0, 1.0, 0.99])];
    bounded("interpolations", over(&[1, 1, 100_000], chain(30, resize), w()), &[9]);
    let mut shrink = model(
        vec![with(
            with(node("Resize", &["x", "", "s"], &["y"]), string("mode", "cubic")),
            int("antialias", 1),
        )],
        vec![floats("s", &[3], &[1.0, 1.0, 0.002])],
    );
    shrink.opset_import[0].version = 18;
    shrink.graph.as_mut().expect("a graph").input = vec![value("x", &[1, 1, 1_000_000])];
    bounded("a stretched filter", shrink.encode_to_vec(), &[4, 9]);
}

/// Constants that folding makes are no reason for a run to use more.
#[test]
fn folded_constants_do_not_raise_limits() {
    let join = |_: usize, a: &str, b: &str| {
        let a = if a == "x" { "w" } else { a };
        with(node("Concat", &[a, a], &[b]), int("axis", 0))
    };
    let mut nodes = chain(40, join);
    nodes.pop();
    nodes.push(node("ReduceSum", &["t40"], &["s"]));
    nodes.push(node("Add", &["x", "s"], &["y"]));
    let w = vec![floats("w", &[1024], &[1.0; 1024])];
    bounded("doubling", over(&[2], nodes, w), &[9]);
    for (n, op) in [(1400, "MatMul"), (1000, "Tanh")] {
        let ins: &[&str] = if op == "MatMul" { &["v", "v"] } else { &["v"] };
        let step = GraphProto {
            node: vec![node("Identity", &["c"], &["c2"]), node(op, ins, &["v2"])],
            input: vec![typed("i", I64, &[]), typed("c", BOOL, &[]), value("v", &[n, n])],
            output: vec![typed("c2", BOOL, &[]), value("v2", &[n, n])],
            ..Default::default()
        };
        let l = with(node("Loop", &["m", "", "big"], &["l"]), body("body", step));
        let nodes =
            vec![node("ConstantOfShape", &["s"], &["big"]), l, node("Add", &["l", "x"], &["y"])];
        let trips = TensorProto { dims: vec![], ..shape("m", &[1 << 62]) };
        bounded(op, over(&[1], nodes, vec![shape("s", &[n, n]), trips]), &[9]);
    }
}

/// Branches in branches, 2^10 of them.
#[test]
fn a_tree_of_branches() {
    let mut g = GraphProto {
        node: vec![relu("x", "z")],
        output: vec![value("z", &[])],
        ..Default::default()
    };
    for i in 0..10 {
        let out = format!("o{i}");
        let branch = with(node("If", &["c"], &[&out]), body("then_branch", g.clone()));
        g = GraphProto {
            node: vec![with(branch, body("else_branch", g))],
            output: vec![value(&out, &[])],
            ..Default::default()
        };
    }
    let mut nodes = vec![
        node("ReduceMax", &["x"], &["m"]),
        with(node("Cast", &["m"], &["b"]), int("to", BOOL.into())),
        node("Reshape", &["b", "s"], &["c"]),
    ];
    nodes.extend(g.node);
    nodes.push(relu("o9", "y"));
    let scalar = TensorProto { dims: vec![0], ..shape("s", &[]) };
    bounded("branches", over(&[2, 3], nodes, vec![scalar]), &[]);
}

/// Sizes beyond what any tensor may have are limits, whoever asks for them.
#[test]
fn sizes_that_data_ask_for() {
    let s = || typed("s", I64, &[1]);
    let scalar = |name: &str, v: i64| TensorProto { dims: vec![], ..shape(name, &[v]) };
    let cases: Vec<(&str, ValueInfoProto, Vec<NodeProto>, Vec<TensorProto>)> = vec![
        ("ConstantOfShape", s(), vec![node("ConstantOfShape", &["s"], &["y"])], vec![]),
        ("Expand", s(), vec![node("Expand", &["w", "s"], &["y"])], vec![floats("w", &[1], &[1.0])]),
        ("Tile", s(), vec![node("Tile", &["w", "s"], &["y"])], vec![floats("w", &[2], &[1.0; 2])]),
        (
            "Range",
            typed("s", I64, &[]),
            vec![node("Range", &["a", "s", "b"], &["y"])],
            vec![scalar("a", 0), scalar("b", 1)],
        ),
        (
            "OneHot",
            typed("s", I64, &[]),
            vec![node("OneHot", &["i", "s", "v"], &["y"])],
            vec![shape("i", &[1]), shape("v", &[0, 1])],
        ),
    ];
    for (op, input, nodes, weights) in cases {
        let mut m = model(nodes, weights);
        let dims: &[usize] = if matches!(op, "Range" | "OneHot") { &[] } else { &[1] };
        m.graph.as_mut().expect("a graph").input = vec![input];
        let f = Folder::of("m.onnx", m.encode_to_vec());
        f.export("m.onnx").succeeds(op);
        for tier in tiers() {
            for n in [1 << 31, 1 << 33, 1 << 40, 1 << 62, i64::MAX] {
                let given = [("s", NamedTensor::i64(dims, &[n]))];
                f.run(tier, &given).refuses(&format!("{op} of {n} on {tier}"), 9, &[]);
            }
            f.run(tier, &[("s", NamedTensor::i64(dims, &[2]))]).succeeds(op);
        }
    }
}

/// What the system refuses is a limit too, not a crash.
#[test]
fn memory_that_is_refused() {
    let expand = vec![node("Expand", &["x", "s"], &["e"]), relu("e", "y")];
    let f = Folder::of("m.onnx", over(&[1], expand, vec![shape("s", &[1 << 27])]));
    f.export("m.onnx").succeeds("half a GiB");
    for tier in tiers() {
        let args = ["bench", "m.hub", "--seconds", "0.01", "--threads", "1", "--cpu", tier];
        let r = super::harness::ran_within(500 << 10, f.0.path(), "hubc", &args);
        r.refuses(tier, 9, &[]);
    }
}

/// Strings and 16-byte numbers that go through a model as they are.
#[test]
fn answers_that_no_kernel_moves() {
    let text = TensorProto {
        name: "t".into(),
        dims: vec![2],
        data_type: 8,
        string_data: vec![b"a".to_vec().into(), b"b".to_vec().into()],
        ..Default::default()
    };
    let nodes = vec![node("Identity", &["t"], &["y"])];
    bounded("strings", over(&[1], nodes, vec![text]), &[2]);
    let mut m = model(vec![node("Identity", &["x"], &["y"])], vec![]);
    m.graph.as_mut().expect("a graph").input = vec![typed("x", 15, &[2])];
    bounded("complex numbers", m.encode_to_vec(), &[]);
}
