//! Hostile ONNX files end in a typed error, in bounded time and memory, and never in a panic.

#[path = "protos/mod.rs"]
mod protos;

use bytes::Bytes;
use hub_frontend::onnx::proto::*;
use hub_frontend::{ErrorKind, FrontendError, LoadOptions, Loaded, load, onnx};
use prost::Message;
use protos::*;
use std::path::Path;

fn graph(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> GraphProto {
    GraphProto {
        node: nodes,
        initializer: weights,
        input: vec![value("x", &[2, 3, 8, 8])],
        output: vec![value("y", &[])],
        ..Default::default()
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..Default::default()
    }
}

fn read(m: &ModelProto) -> Result<Loaded, FrontendError> {
    onnx::load_bytes(m.encode_to_vec().into(), Path::new("m.onnx"), &LoadOptions::default())
}

/// Checks that a graph of these nodes is refused with this exit code, for a reason that says so.
#[track_caller]
fn refused(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, code: i32, says: &str) {
    let e = read(&model(graph(nodes, weights))).expect_err("a hostile model");
    assert_eq!(e.exit_code(), code, "{e}");
    assert!(e.to_string().contains(says), "'{e}' does not say '{says}'");
}

#[test]
fn a_sound_model_is_read() {
    let nodes = vec![node("Relu", &["x"], &["t"]), node("Add", &["t", "w"], &["y"])];
    let loaded = read(&model(graph(nodes, vec![floats("w", &[1], &[1.0])]))).expect("sound");
    assert_eq!(loaded.graph.inputs, ["x"]);
    assert_eq!(loaded.graph.outputs, ["y"]);
    assert_eq!(loaded.provenance.opset, "ai.onnx 17");
}

#[test]
fn graphs_that_make_no_sense() {
    let relu = |a: &str, b: &str| node("Relu", &[a], &[b]);
    refused(vec![relu("b", "a"), relu("a", "b"), relu("b", "y")], vec![], 4, "cycle");
    refused(vec![relu("x", "y"), relu("x", "y")], vec![], 4, "two nodes");
    refused(vec![relu("x", "x"), relu("x", "y")], vec![], 4, "cycle");
    let again = vec![floats("x", &[1], &[1.0])];
    let unused = read(&model(graph(vec![relu("x", "y")], again))).expect("a default value");
    assert!(unused.graph.inputs.is_empty(), "an initializer is no input");
    let w = || vec![floats("w", &[1], &[1.0])];
    let nodes = vec![relu("x", "w"), node("Add", &["w", "x"], &["y"])];
    refused(nodes, w(), 4, "defined twice");
    refused(vec![relu("nothing", "y")], vec![], 4, "nothing computes its input 'nothing'");
    refused(vec![relu("x", "t")], vec![], 4, "nothing computes this output");
    refused(vec![node("Relu", &[], &["y"])], vec![], 4, "input 0 is missing");
    refused(vec![node("Add", &["x"], &["y"])], vec![], 4, "input 1 is missing");
    refused(vec![node("Relu", &["x"], &["y", "z"])], vec![], 4, "no output 1");
    let twice = vec![floats("w", &[1], &[1.0]), floats("w", &[1], &[1.0])];
    refused(vec![node("Add", &["x", "w"], &["y"])], twice, 4, "two initializers");
}

#[test]
fn tensors_that_make_no_sense() {
    let add = || vec![node("Add", &["x", "w"], &["y"])];
    let with_dims = |dims: &[i64]| vec![floats("w", dims, &[1.0])];
    refused(add(), with_dims(&[1 << 62, 8]), 9, "bytes");
    refused(add(), with_dims(&[i64::MAX, i64::MAX, 4]), 9, "bytes");
    refused(add(), with_dims(&[-1]), 4, "a dimension is -1");
    refused(add(), with_dims(&[0, 1 << 62, 8]), 4, "4 bytes of data");
    refused(add(), with_dims(&[2]), 4, "4 bytes of data");
    refused(add(), with_dims(&[1; 65]), 9, "rank 65");
    for (number, code) in [(0, 4), (-1, 4), (99, 3), (i32::MAX, 3)] {
        let t = TensorProto { data_type: number, ..floats("w", &[1], &[1.0]) };
        refused(add(), vec![t], code, "element type");
    }
}

#[test]
fn attributes_that_make_no_sense() {
    let w = || vec![floats("w", &[3, 3, 1, 1], &[0.0; 9])];
    let conv = |a| vec![with(node("Conv", &["x", "w"], &["y"]), a)];
    refused(conv(int("group", 0)), w(), 4, "group is 0");
    refused(conv(ints("strides", &[0, 1])), w(), 4, "strides");
    refused(conv(ints("dilations", &[-1, 1])), w(), 4, "dilations");
    refused(conv(ints("pads", &[i64::MAX, 0, 0, 0])), w(), 4, "pads");
    refused(conv(ints("kernel_shape", &[0, 0])), w(), 4, "kernel_shape");
    refused(conv(int("pads", 1)), w(), 4, "attribute 'pads'");
    let pool = with(node("MaxPool", &["x"], &["y"]), ints("kernel_shape", &[0, 2]));
    refused(vec![pool], vec![], 4, "kernel_shape");
    for axis in [4, -5, i64::MAX, i64::MIN] {
        refused(vec![with(node("Softmax", &["x"], &["y"]), int("axis", axis))], vec![], 4, "axis");
    }
    let reshape = vec![node("Reshape", &["x", "s"], &["y"])];
    refused(reshape.clone(), vec![shape("s", &[-1, -1])], 4, "two -1");
    refused(reshape.clone(), vec![shape("s", &[7, -1])], 4, "do not fill");
    refused(reshape.clone(), vec![shape("s", &[-2, 3])], 4, "-2");
    refused(reshape, vec![shape("s", &[1, 1, 1, 1, 0])], 4, "0 at axis 4");
    let zero = vec![shape("a", &[0]), shape("b", &[4]), shape("z", &[0])];
    refused(vec![node("Slice", &["x", "a", "b", "a", "z"], &["y"])], zero, 4, "step is 0");
}

/// Sizes beyond memory are expressions; nothing is allocated for them on import.
#[test]
fn bombs_are_read_without_being_built() {
    let big = shape("s", &[1 << 40, 1 << 20]);
    let one = floats("one", &[1], &[1.0]);
    let nodes = vec![node("ConstantOfShape", &["s"], &["y"])];
    assert!(read(&model(graph(nodes, vec![big.clone()]))).is_ok());
    let nodes = vec![node("Expand", &["one", "s"], &["y"])];
    assert!(read(&model(graph(nodes, vec![big.clone(), one]))).is_ok());
    let tile = shape("s", &[1 << 40, 1 << 40, 1 << 40, 1 << 40]);
    let _typed = read(&model(graph(vec![node("Tile", &["x", "s"], &["y"])], vec![tile])));
    let (min, max) = (shape("a", &[i64::MIN]), shape("b", &[i64::MAX]));
    let nodes = vec![
        node("Squeeze", &["a"], &["a0"]),
        node("Squeeze", &["b"], &["b0"]),
        node("Div", &["a0", "b0"], &["d"]),
        node("Range", &["a0", "b0", "d"], &["y"]),
    ];
    let _typed = read(&model(graph(nodes, vec![min, max])));
}

/// Shape arithmetic that squares a size again and again does not grow without bound.
#[test]
fn expressions_stay_bounded() {
    let mut nodes = vec![node("Shape", &["x"], &["n0"])];
    for i in 0..200 {
        let (a, b, c) = (format!("n{i}"), format!("m{i}"), format!("n{}", i + 1));
        nodes.push(node("Mul", &[&a, &a], &[&b]));
        nodes.push(node("Add", &[&b, &a], &[&c]));
    }
    nodes.push(node("ConstantOfShape", &["n200"], &["y"]));
    let mut g = graph(nodes, vec![]);
    g.input = vec![value("x", &[-1, -1, -1])];
    assert!(read(&model(g)).is_ok());
}

#[test]
fn functions_that_call_without_end() {
    let call = |f: &str| NodeProto { domain: "d".into(), ..node(f, &["x"], &["y"]) };
    let function = |name: &str, calls: &str| FunctionProto {
        name: name.into(),
        domain: "d".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: vec![if calls.is_empty() { node("Relu", &["x"], &["y"]) } else { call(calls) }],
        ..Default::default()
    };
    let mut m = model(graph(vec![call("f")], vec![]));
    m.functions = vec![function("f", "g"), function("g", "f")];
    let e = read(&m).expect_err("endless");
    assert_eq!((e.exit_code(), e.to_string().contains("calls itself")), (4, true), "{e}");

    let names: Vec<String> = (0..3000).map(|i| format!("f{i}")).collect();
    m = model(graph(vec![call("f0")], vec![]));
    m.functions = (0..3000)
        .map(|i| function(&names[i], names.get(i + 1).map_or("", |s| s.as_str())))
        .collect();
    let e = read(&m).expect_err("a long chain");
    assert_eq!(e.kind, ErrorKind::Limit, "{e}");
    m.functions.truncate(20);
    m.functions[19].node = vec![node("Relu", &["x"], &["y"])];
    assert!(read(&m).is_ok());
}

#[test]
fn bodies_nest_only_so_deep() {
    let nested = |depth: usize| {
        let leaf = |out: &str| GraphProto {
            node: vec![node("Identity", &["x"], &[out])],
            output: vec![value(out, &[])],
            ..Default::default()
        };
        let mut g = leaf("z");
        for i in 0..depth {
            let out = format!("o{i}");
            let branch = node("If", &["c"], &[&out]);
            let branch = with(branch, body("then_branch", g));
            let branch = with(branch, body("else_branch", leaf(&format!("e{i}"))));
            let output = vec![value(&out, &[])];
            g = GraphProto { node: vec![branch], output, ..Default::default() };
        }
        let mut nodes = g.node;
        let out = nodes[0].output[0].clone();
        nodes.push(node("Identity", &[&out], &["y"]));
        nodes.insert(0, node("ReduceMax", &["x"], &["m"]));
        nodes.insert(1, node("Cast", &["m"], &["b"]));
        nodes[1].attribute.push(int("to", 9));
        nodes.insert(2, node("Reshape", &["b", "s"], &["c"]));
        model(graph(nodes, vec![TensorProto { dims: vec![0], ..shape("s", &[]) }]))
    };
    if let Err(e) = read(&nested(20)) {
        panic!("{e}");
    }
    // Deeper than protobuf messages may nest here.
    let e = read(&nested(60)).expect_err("too deep");
    assert_eq!(e.exit_code(), 9, "{e}");
}

#[test]
fn every_unsupported_operator_is_listed_at_once() {
    let nodes = vec![
        node("Foo", &["x"], &["a"]),
        node("Foo", &["a"], &["b"]),
        NodeProto { domain: "com.acme".into(), ..node("Bar\u{1b}[2J", &["b"], &["y"]) },
    ];
    let e = read(&model(graph(nodes, vec![]))).expect_err("unsupported");
    assert_eq!(e.exit_code(), 3);
    let ErrorKind::Unsupported(ops) = &e.kind else { panic!("{e}") };
    let counts: Vec<(&str, usize)> = ops.iter().map(|o| (&*o.op, o.count)).collect();
    assert_eq!(counts, [("Foo-17", 2), ("com.acme.Bar\u{1b}[2J", 1)]);
    assert!(!e.to_string().contains('\u{1b}'), "a terminal is not written to");
}

fn external(location: &str, more: &[(&str, &str)]) -> Vec<TensorProto> {
    let entry = |k: &str, v: &str| StringStringEntryProto { key: k.into(), value: v.into() };
    let mut external_data = vec![entry("location", location)];
    external_data.extend(more.iter().map(|(k, v)| entry(k, v)));
    let t = floats("w", &[1], &[]);
    vec![TensorProto { raw_data: None, data_location: 1, external_data, ..t }]
}

#[test]
fn external_data_stay_in_the_models_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let inside = dir.path().join("in");
    std::fs::create_dir_all(inside.join("sub")).expect("writable");
    std::fs::write(dir.path().join("secret"), 1f32.to_le_bytes()).expect("writable");
    std::fs::write(inside.join("data"), [0; 8]).expect("writable");
    std::fs::write(inside.join("sub/data"), [0; 8]).expect("writable");
    let links = [("final", "../secret"), ("parent", ".."), ("absolute", "/etc/hostname")];
    for (name, to) in links {
        std::os::unix::fs::symlink(to, inside.join(name)).expect("a link");
    }
    std::os::unix::fs::symlink("data", inside.join("fine")).expect("a link");
    std::fs::hard_link(dir.path().join("secret"), inside.join("hard")).expect("a link");
    let file = inside.join("m.onnx");
    let attempt = |weights: Vec<TensorProto>| {
        let m = model(graph(vec![node("Add", &["x", "w"], &["y"])], weights));
        std::fs::write(&file, m.encode_to_vec()).expect("writable");
        load(&file, &LoadOptions::default()).map(|_| ()).map_err(|e| (e.exit_code(), e.to_string()))
    };
    for good in ["data", "sub/data", "./data", "fine"] {
        assert_eq!(attempt(external(good, &[("offset", "4"), ("length", "4")])), Ok(()));
    }
    let absolute = dir.path().join("secret").to_string_lossy().into_owned();
    let bad =
        ["../secret", "sub/../../secret", &absolute, "final", "parent/secret", "absolute", ""];
    for location in bad {
        let e = attempt(external(location, &[])).expect_err(location);
        assert_eq!(e.0, 4, "{location}: {}", e.1);
    }
    assert_eq!(attempt(external("hard", &[])).expect_err("hard").0, 4);
    assert_eq!(attempt(external("sub", &[])).expect_err("a folder").0, 4);
    assert_eq!(attempt(external("missing", &[])).expect_err("missing").0, 8);
    for (key, value) in [
        ("offset", "-4"),
        ("offset", "8"),
        ("offset", "18446744073709551615"),
        ("length", "1125899906842624"),
        ("length", "2"),
        ("length", "x"),
    ] {
        let e = attempt(external("data", &[(key, value)])).expect_err(value);
        assert_eq!(e.0, 4, "{key} {value}: {}", e.1);
    }
    assert_eq!(attempt(external("data", &[("checksum", "?"), ("junk", "")])), Ok(()));
}

fn digits() -> Vec<u8> {
    std::fs::read(hub_models::root().join("digits/model.onnx")).expect("it is in the repository")
}

#[test]
fn damaged_files_do_not_panic() {
    let whole = digits();
    let try_bytes = |b: Vec<u8>| {
        let r = onnx::load_bytes(Bytes::from(b), Path::new("m.onnx"), &LoadOptions::default());
        if let Err(e) = r {
            assert!((2..=9).contains(&e.exit_code()), "{e}");
        }
    };
    let step = (whole.len() / 150).max(1);
    for end in (0..whole.len()).step_by(step) {
        try_bytes(whole[..end].to_vec());
    }
    // The head holds the nodes: every byte of it is flipped in some way.
    let mut seed = 1u32;
    for _ in 0..300 {
        let mut b = whole.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            let at = (seed >> 8) as usize % b.len();
            b[at] = (seed >> 3) as u8;
        }
        try_bytes(b);
    }
}
