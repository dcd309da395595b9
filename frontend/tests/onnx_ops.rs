//! Operators on small inputs against answers worked out by hand, with sizes known and unknown.
//! (ONNX's own suite, which is not in the repository, runs through the example `suite`.)

#[path = "protos/mod.rs"]
mod protos;

use hub_frontend::onnx::proto::*;
use hub_frontend::{LoadOptions, onnx};
use hub_ir::{Tensor, portable};
use hub_portable::{BytesStore, Limits, Value};
use prost::Message;
use protos::*;
use std::path::Path;
use std::sync::Arc;

/// Runs nodes on a float input x; gives output y. Sizes of x are known, or all unknown.
fn run(
    version: i64,
    nodes: &[NodeProto],
    weights: &[TensorProto],
    x: (&[usize], &[f32]),
    known: bool,
) -> (Vec<usize>, Vec<f32>) {
    let dims: Vec<i64> = x.0.iter().map(|&d| if known { d as i64 } else { -1 }).collect();
    let graph = GraphProto {
        node: nodes.to_vec(),
        initializer: weights.to_vec(),
        input: vec![value("x", &dims)],
        output: vec![value("y", &[])],
        ..Default::default()
    };
    let m = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version }],
        ..Default::default()
    };
    let options = LoadOptions::default();
    let loaded = onnx::load_bytes(m.encode_to_vec().into(), Path::new("m"), &options);
    let graph = loaded.unwrap_or_else(|e| panic!("{e}")).graph;
    let (p, store) = portable::to_portable(&graph).unwrap_or_else(|e| panic!("{e}"));
    let mut bytes = vec![0u8; store.len as usize];
    for (at, data) in &store.pieces {
        bytes[*at as usize..*at as usize + data.len()].copy_from_slice(data);
    }
    let store = BytesStore::new(Arc::new(bytes));
    let x = Tensor::new(x.0, x.1.to_vec()).expect("as many as the shape says");
    let out = hub_portable::run(&p, &store, &[Value::Tensor(x)], &Limits::default());
    let out = out.unwrap_or_else(|e| panic!("{e}"));
    let y = out[0].tensor().expect("a tensor");
    (y.dims().to_vec(), y.view::<f32>().expect("floats").into_owned())
}

/// Checks the answer with sizes known and unknown.
#[track_caller]
fn check(
    version: i64,
    nodes: &[NodeProto],
    weights: &[TensorProto],
    x: (&[usize], &[f32]),
    want: (&[usize], &[f32]),
) {
    for known in [true, false] {
        let (dims, got) = run(version, nodes, weights, x, known);
        assert_eq!(dims, want.0, "known sizes: {known}");
        for (g, w) in got.iter().zip(want.1) {
            assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{got:?} is not {:?}", want.1);
        }
    }
}

fn count(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn softmax_before_version_13_flattens() {
    let n = [with(node("Softmax", &["x"], &["y"]), int("axis", 1))];
    let x: (&[usize], &[f32]) = (&[1, 2, 2], &[0.0; 4]);
    check(11, &n, &[], x, (&[1, 2, 2], &[0.25; 4]));
    check(13, &n, &[], x, (&[1, 2, 2], &[0.5; 4]));
}

#[test]
fn average_pools_count_what_they_should() {
    let pool = |include: i64| {
        let n = with(node("AveragePool", &["x"], &["y"]), ints("kernel_shape", &[2]));
        let n = with(with(n, ints("strides", &[2])), ints("pads", &[1, 0]));
        [with(with(n, int("ceil_mode", 1)), int("count_include_pad", include))]
    };
    // Windows over 1..=4 padded before by one: (_, 1) (2, 3) (4, past the end).
    let x: (&[usize], &[f32]) = (&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    check(17, &pool(0), &[], x, (&[1, 1, 3], &[1.0, 2.5, 4.0]));
    check(17, &pool(1), &[], x, (&[1, 1, 3], &[0.5, 2.5, 4.0]));
}

#[test]
fn same_padding_is_uneven_at_the_named_end() {
    let pool = |auto: &str| {
        let n = with(node("MaxPool", &["x"], &["y"]), ints("kernel_shape", &[2]));
        [with(n, string("auto_pad", auto))]
    };
    let x: (&[usize], &[f32]) = (&[1, 1, 3], &[3.0, 1.0, 2.0]);
    check(17, &pool("SAME_UPPER"), &[], x, (&[1, 1, 3], &[3.0, 2.0, 2.0]));
    check(17, &pool("SAME_LOWER"), &[], x, (&[1, 1, 3], &[3.0, 3.0, 2.0]));
    check(17, &pool("VALID"), &[], x, (&[1, 1, 2], &[3.0, 2.0]));
}

#[test]
fn resizes_follow_their_coordinates() {
    let to6 = [shape("s", &[1, 1, 6])];
    let resize = |mode: &str, coord: &str| {
        let n = with(node("Resize", &["x", "", "", "s"], &["y"]), string("mode", mode));
        [with(n, string("coordinate_transformation_mode", coord))]
    };
    let x: (&[usize], &[f32]) = (&[1, 1, 3], &[0.0, 2.0, 4.0]);
    let want = [0.0, 0.5, 1.5, 2.5, 3.5, 4.0];
    check(17, &resize("linear", "half_pixel"), &to6, x, (&[1, 1, 6], &want));
    let want = [0.0, 0.8, 1.6, 2.4, 3.2, 4.0];
    check(17, &resize("linear", "align_corners"), &to6, x, (&[1, 1, 6], &want));
    let want = [0.0, 1.0, 2.0, 3.0, 4.0, 4.0];
    check(17, &resize("linear", "asymmetric"), &to6, x, (&[1, 1, 6], &want));
    let want = [0.0, 0.0, 2.0, 2.0, 4.0, 4.0];
    check(17, &resize("nearest", "half_pixel"), &to6, x, (&[1, 1, 6], &want));
    // Version 9 names scales, takes the floor, and keeps the left corner.
    let up = [with(node("Upsample", &["x", "k"], &["y"]), string("mode", "nearest"))];
    check(9, &up, &[floats("k", &[3], &[1.0, 1.0, 2.0])], x, (&[1, 1, 6], &want));
}

#[test]
fn slices_clamp_as_numpy_does() {
    let slice = |s: i64, e: i64, step: i64| {
        let w = vec![shape("s", &[s]), shape("e", &[e]), shape("a", &[-1]), shape("k", &[step])];
        ([node("Slice", &["x", "s", "e", "a", "k"], &["y"])], w)
    };
    let x = count(5);
    for (s, e, step, want) in [
        (1, 4, 1, vec![1.0, 2.0, 3.0]),
        (-2, i64::MAX, 1, vec![3.0, 4.0]),
        (-100, 2, 1, vec![0.0, 1.0]),
        (0, -1, 2, vec![0.0, 2.0]),
        (-1, i64::MIN, -2, vec![4.0, 2.0, 0.0]),
        (3, 0, -1, vec![3.0, 2.0, 1.0]),
        (4, 2, 1, vec![]),
    ] {
        let (n, w) = slice(s, e, step);
        check(17, &n, &w, (&[1, 5], &x), (&[1, want.len()], &want));
    }
}

#[test]
fn the_last_row_is_one_row() {
    // DETR's x / x[-1:] of an axis of unknown size: the slice is one row where there is any.
    let last = node("Slice", &["x", "s", "e", "a"], &["t"]);
    let w = [shape("s", &[-1]), shape("e", &[i64::MAX]), shape("a", &[0])];
    let x: (&[usize], &[f32]) = (&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 8.0]);
    let n = [last.clone(), node("Div", &["x", "t"], &["y"])];
    check(17, &n, &w, x, (&[3, 2], &[0.2, 0.25, 0.6, 0.5, 1.0, 1.0]));
    let n = [last.clone(), node("Shape", &["x"], &["d"]), node("Expand", &["t", "d"], &["y"])];
    check(17, &n, &w, x, (&[3, 2], &[5.0, 8.0, 5.0, 8.0, 5.0, 8.0]));
    let n = [last.clone(), node("MatMul", &["x", "t"], &["y"])];
    let batches: (&[usize], &[f32]) = (&[2, 1, 1], &[2.0, 3.0]);
    check(17, &n, &w, batches, (&[2, 1, 1], &[6.0, 9.0]));
    let n = [last, node("Less", &["x", "t"], &["c"]), node("Where", &["c", "t", "x"], &["y"])];
    check(17, &n, &w, x, (&[3, 2], &[5.0, 8.0, 5.0, 8.0, 5.0, 8.0]));
}

#[test]
fn columns_add_up_to_images_of_any_number_of_channels() {
    let n = [node("Col2Im", &["x", "image", "block"], &["y"])];
    let w = [shape("image", &[3, 3]), shape("block", &[2, 2])];
    let plane = [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0];
    check(18, &n, &w, (&[1, 8, 4], &[1.0; 32]), (&[1, 2, 3, 3], &[plane, plane].concat()));
}

#[test]
fn shape_arithmetic_is_followed() {
    // reshape(x, [shape(x)[0] * 2, -1])
    let n = [
        node("Shape", &["x"], &["s"]),
        node("Gather", &["s", "zero"], &["d"]),
        node("Mul", &["d", "two"], &["e"]),
        node("Concat", &["e", "minus"], &["t"]),
        node("Reshape", &["x", "t"], &["y"]),
    ];
    let mut n = n.to_vec();
    n[3].attribute.push(int("axis", 0));
    let w = [shape("zero", &[0]), shape("two", &[2]), shape("minus", &[-1])];
    let x = count(12);
    check(17, &n, &w, (&[3, 4], &x), (&[6, 2], &x));
}

#[test]
fn reductions_take_axes_from_attribute_or_operand() {
    let x: (&[usize], &[f32]) = (&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let old = with(node("ReduceSum", &["x"], &["y"]), ints("axes", &[-1]));
    check(11, &[with(old, int("keepdims", 0))], &[], x, (&[2], &[6.0, 15.0]));
    let new = [node("ReduceSum", &["x", "a"], &["y"])];
    check(13, &new, &[shape("a", &[0])], x, (&[1, 3], &[5.0, 7.0, 9.0]));
}

#[test]
fn a_loop_grows_its_value() {
    // Four times: rows = concat(rows, x).
    let body_graph = GraphProto {
        node: vec![
            with(node("Concat", &["rows", "x"], &["more"]), int("axis", 0)),
            node("Identity", &["go"], &["on"]),
        ],
        input: ["i", "go", "rows"].map(|n| value(n, &[])).to_vec(),
        output: ["on", "more"].map(|n| value(n, &[])).to_vec(),
        ..Default::default()
    };
    let n = [with(node("Loop", &["n", "", "x"], &["y"]), body("body", body_graph))];
    let trip = TensorProto { dims: vec![], ..shape("n", &[4]) };
    let x: (&[usize], &[f32]) = (&[1, 2], &[1.0, 2.0]);
    check(17, &n, &[trip], x, (&[5, 2], &[1.0, 2.0].repeat(5)));
}

#[test]
fn a_branch_may_change_sizes() {
    let branch = |nodes: Vec<NodeProto>| GraphProto {
        node: nodes,
        output: vec![value("r", &[])],
        ..Default::default()
    };
    let whole = branch(vec![node("Relu", &["x"], &["r"])]);
    let sum = branch(vec![with(node("ReduceMax", &["x"], &["r"]), ints("axes", &[0]))]);
    let choose = with(node("If", &["c"], &["b"]), body("then_branch", whole));
    let n = [
        with(node("ReduceSum", &["x"], &["t"]), int("keepdims", 0)),
        node("Greater", &["t", "k"], &["c"]),
        with(choose, body("else_branch", sum)),
        node("Neg", &["b"], &["y"]),
    ];
    let k = [floats("k", &[], &[0.0])];
    check(17, &n, &k, (&[3], &[1.0, 2.0, -1.0]), (&[3], &[-1.0, -2.0, 0.0]));
    check(17, &n, &k, (&[3], &[1.0, -2.0, -1.0]), (&[1], &[-1.0]));
}

#[test]
fn a_function_is_inlined_with_its_attributes() {
    let reference = AttributeProto {
        name: "alpha".into(),
        r#type: attr::FLOAT,
        ref_attr_name: "slope".into(),
        ..Default::default()
    };
    let f = FunctionProto {
        name: "Leak".into(),
        domain: "d".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["slope".into()],
        node: vec![with(node("LeakyRelu", &["a"], &["b"]), reference)],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..Default::default()
    };
    let call = NodeProto { domain: "d".into(), ..node("Leak", &["x"], &["y"]) };
    let m = ModelProto {
        ir_version: 8,
        graph: Some(GraphProto {
            node: vec![with(call, float("slope", 0.5))],
            input: vec![value("x", &[1])],
            output: vec![value("y", &[1])],
            ..Default::default()
        }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        functions: vec![f],
        ..Default::default()
    };
    let options = LoadOptions::default();
    let loaded = onnx::load_bytes(m.encode_to_vec().into(), Path::new("m"), &options);
    let g = loaded.unwrap_or_else(|e| panic!("{e}")).graph;
    let text = format!("{:?}", g.nodes.iter().map(|(_, n)| &n.op).collect::<Vec<_>>());
    assert!(text.contains("alpha: 0.5"), "{text}");
}

#[test]
fn dimensions_take_bounds_and_sizes_by_name() {
    let mut options = LoadOptions::default();
    options.bound("x.0=1..8").expect("well formed");
    options.fix("x.1=3").expect("well formed");
    assert!(options.bound("x.0=8..1").is_err());
    assert!(options.fix("x=-1").is_err());
    let m = ModelProto {
        ir_version: 8,
        graph: Some(GraphProto {
            node: vec![node("Relu", &["x"], &["y"])],
            input: vec![value("x", &[-1, -1])],
            output: vec![value("y", &[])],
            ..Default::default()
        }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..Default::default()
    };
    let read = |o: &LoadOptions| onnx::load_bytes(m.encode_to_vec().into(), Path::new("m"), o);
    let g = read(&options).expect("sound").graph;
    let x = g.regions[g.root()].params[0];
    assert!(g.dims(x)[1].is(3));
    assert_eq!(g.dims(x)[0].bounds(&g.syms), (1, 8));
    options.fix("z=1").expect("well formed");
    let e = read(&options).expect_err("there is no such dimension");
    assert_eq!(e.exit_code(), 2, "{e}");
}

#[test]
fn what_a_branch_learns_and_needs_stays_in_it() {
    let branch = |nodes: Vec<NodeProto>| GraphProto {
        node: nodes,
        output: vec![value("r", &[])],
        ..Default::default()
    };
    // In one branch only: n is used as a shape, and x must have two elements.
    let then = branch(vec![
        node("Expand", &["one", "n"], &["e"]),
        node("Add", &["x", "w"], &["s"]),
        node("Concat", &["s", "e"], &["c"]),
        node("ReduceMax", &["c"], &["r"]),
    ]);
    let mut then = then;
    then.node[2] = with(then.node[2].clone(), int("axis", 0));
    then.node[3] = with(then.node[3].clone(), ints("axes", &[0]));
    let orelse = branch(vec![with(node("ReduceMax", &["x"], &["r"]), ints("axes", &[0]))]);
    let choose = with(node("If", &["c"], &["b"]), body("then_branch", then));
    let nodes = [
        with(node("ReduceSum", &["x"], &["t"]), int("keepdims", 1)),
        with(node("Cast", &["t"], &["n"]), int("to", 7)),
        node("Squeeze", &["t"], &["u"]),
        node("Greater", &["u", "k"], &["c"]),
        with(choose, body("else_branch", orelse)),
        // After the branch n is a shape again.
        node("Expand", &["b", "n"], &["y"]),
    ];
    let weights =
        [floats("k", &[], &[5.0]), floats("one", &[1], &[1.0]), floats("w", &[2], &[1.0, 2.0])];
    let not_taken = run(17, &nodes, &weights, (&[3], &[1.0, 1.0, 2.0]), false);
    assert_eq!(not_taken, (vec![4], vec![2.0; 4]));
    let taken = run(17, &nodes, &weights, (&[2], &[3.0, 4.0]), false);
    assert_eq!(taken, (vec![7], vec![6.0; 7]));
}
