//! ONNX files that are valid, and hostile when they run: bombs, endless loops, bad values. They
//! give the defined answer, or stop at a limit.

use super::harness::{Folder, ran, tiers};
use super::onnx_graphs::{model, relu};
use super::protos::*;
use hub_frontend::onnx::proto::*;
use hub_models::NamedTensor;
use prost::Message;

const I64: i32 = 7;

/// A scalar int64 constant.
fn scalar(name: &str, v: i64) -> TensorProto {
    TensorProto { dims: vec![], ..shape(name, &[v]) }
}

fn typed(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    let mut v = value(name, dims);
    let t = v.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
    t.expect("a tensor").elem_type = elem;
    v
}

/// A model with this one input.
fn of_input(input: ValueInfoProto, nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> Vec<u8> {
    let mut m = model(nodes, weights);
    m.graph.as_mut().expect("a graph").input = vec![input];
    m.encode_to_vec()
}

fn image() -> NamedTensor {
    NamedTensor::f32(&[2, 3, 8, 8], &[0.5; 384])
}

/// Export succeeds or stops at a limit; where it succeeds, every tier's run stops at one.
#[track_caller]
fn too_much(what: &str, bytes: Vec<u8>, inputs: &[(&str, NamedTensor)]) {
    let f = Folder::of("m.onnx", bytes);
    let r = f.export("m.onnx");
    if r.code != 0 {
        return r.refuses(what, 9, &[]);
    }
    for tier in tiers() {
        f.run(tier, inputs).refuses(&format!("{what} on {tier}"), 9, &["limit"]);
    }
}

/// Every tier gives these integers.
#[track_caller]
fn gives(what: &str, bytes: Vec<u8>, inputs: &[(&str, NamedTensor)], want: &[i64]) {
    let f = Folder::of("m.onnx", bytes);
    f.export("m.onnx").succeeds(what);
    for tier in tiers() {
        f.run(tier, inputs).succeeds(&format!("{what} on {tier}"));
        let y = f.outputs()["y"].clone();
        let got = match &y.dtype[..] {
            "I64" => y.as_i64().expect("integers"),
            "I32" => y
                .data
                .chunks(4)
                .map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]]).into())
                .collect(),
            "F32" => y.as_f32().expect("floats").iter().map(|&v| v as i64).collect(),
            _ => y.data.iter().map(|&b| b.into()).collect(),
        };
        assert_eq!(got, want, "{what} on {tier}");
    }
}

#[test]
fn bombs_of_memory() {
    let x = [("x", image())];
    for dims in
        [&[1 << 40, 1 << 20][..], &[1 << 62, 2], &[1 << 33], &[1 << 16, 1 << 16], &[1 << 29]]
    {
        let s = || vec![shape("s", dims)];
        let fill = vec![
            node("ConstantOfShape", &["s"], &["f"]),
            node("Shape", &["x"], &["u"]),
            node("Identity", &["f"], &["y"]),
        ];
        too_much(&format!("ConstantOfShape {dims:?}"), model(fill, s()).encode_to_vec(), &x);
        let expand = vec![
            node("Reshape", &["x", "f"], &["v"]),
            node("ReduceSum", &["v"], &["r"]),
            node("Expand", &["r", "s"], &["e"]),
            relu("e", "y"),
        ];
        let flat = [s(), vec![shape("f", &[-1])]].concat();
        too_much(&format!("Expand {dims:?}"), model(expand, flat).encode_to_vec(), &x);
    }
    for n in [1 << 30, 1 << 60] {
        let tile = vec![node("Tile", &["x", "s"], &["y"])];
        too_much("Tile", model(tile, vec![shape("s", &[n, 1, 1, 1])]).encode_to_vec(), &x);
        let range = vec![node("Range", &["a", "b", "c"], &["y"])];
        let w = vec![scalar("a", 0), scalar("b", n), scalar("c", 1)];
        too_much("Range", model(range, w).encode_to_vec(), &x);
        let pad = vec![node("Pad", &["x", "p"], &["y"])];
        let w = vec![shape("p", &[0, 0, 0, 0, 0, 0, 0, n])];
        too_much("Pad", model(pad, w).encode_to_vec(), &x);
        let hot = vec![node("OneHot", &["i", "d", "v"], &["y"])];
        let w = vec![shape("i", &[1, 2]), scalar("d", n), shape("v", &[0, 1])];
        too_much("OneHot", model(hot, w).encode_to_vec(), &x);
        let up = vec![node("Resize", &["x", "", "", "s"], &["y"])];
        too_much("Resize", model(up, vec![shape("s", &[2, 3, 8, n])]).encode_to_vec(), &x);
    }
}

/// Sizes that an input holds.
#[test]
fn bombs_that_data_ask_for() {
    let s = |v: &[i64]| [("s", NamedTensor::i64(&[2], v))];
    let fill =
        of_input(typed("s", I64, &[2]), vec![node("ConstantOfShape", &["s"], &["y"])], vec![]);
    too_much("a shape of the input", fill.clone(), &s(&[1 << 30, 1 << 30]));
    too_much("a shape of the input", fill.clone(), &s(&[1 << 16, 1 << 16]));
    gives("a small shape of the input", fill.clone(), &s(&[1, 3]), &[0, 0, 0]);
    let f = Folder::of("m.onnx", fill);
    f.export("m.onnx").succeeds("a shape of the input");
    for tier in tiers() {
        let r = f.run(tier, &s(&[-1, 4]));
        assert!(matches!(r.code, 2 | 4), "a negative size: {r:?}");
    }
    let range = of_input(
        typed("s", I64, &[]),
        vec![node("Range", &["a", "s", "one"], &["y"])],
        vec![scalar("a", 0), scalar("one", 1)],
    );
    too_much("Range to 2^30", range, &[("s", NamedTensor::i64(&[], &[1 << 30]))]);
}

/// Little memory, much to compute.
#[test]
fn bombs_of_work() {
    let x = [("x", image())];
    let big = |n: i64| vec![shape("f", &[-1]), shape("s", &[n, n])];
    let wide = |last: Vec<NodeProto>| {
        let head = vec![
            node("Reshape", &["x", "f"], &["v"]),
            node("ReduceSum", &["v"], &["r"]),
            node("Expand", &["r", "s"], &["e"]),
        ];
        [head, last].concat()
    };
    let product =
        wide(vec![node("MatMul", &["e", "e"], &["p"]), node("ReduceMax", &["p"], &["y"])]);
    too_much("a product of 8192³", model(product, big(8192)).encode_to_vec(), &x);
    let sum = wide(vec![node("ReduceSum", &["e"], &["y"])]);
    too_much("a sum of 2^60", model(sum, big(1 << 30)).encode_to_vec(), &x);
    let conv = vec![with(node("Conv", &["x", "w"], &["y"]), ints("pads", &[4000; 4]))];
    let w = floats("w", &[64, 3, 64, 64], &vec![0.0; 64 * 3 * 64 * 64]);
    let f = Folder::of("m.onnx", model(conv, vec![w]).encode_to_vec());
    let r = f.export("m.onnx");
    assert!(matches!(r.code, 0 | 9), "huge pads: {r:?}");
    if r.code == 0 {
        f.run("portable", &x).refuses("huge pads", 9, &["limit"]);
    }
    let folded = vec![
        node("ConstantOfShape", &["s"], &["e"]),
        node("MatMul", &["e", "e"], &["p"]),
        node("MatMul", &["p", "p"], &["q"]),
        node("ReduceMax", &["q"], &["m"]),
        node("Add", &["m", "x"], &["y"]),
    ];
    too_much("constants folded for hours", model(folded, big(8192)).encode_to_vec(), &x);
}

/// A Loop whose body adds one, `trips` times, stopped by its condition never.
fn counting(trips: Option<i64>, inputs: ValueInfoProto) -> Vec<u8> {
    let step = GraphProto {
        node: vec![node("Identity", &["c"], &["c2"]), node("Add", &["n", "one"], &["n2"])],
        input: vec![typed("i", I64, &[]), typed("c", 9, &[]), typed("n", I64, &[])],
        output: vec![typed("c2", 9, &[]), typed("n2", I64, &[])],
        ..Default::default()
    };
    let trip = if trips.is_some() { "m" } else { "" };
    let l = with(node("Loop", &[trip, "yes", "zero"], &["y"]), body("body", step));
    let yes = TensorProto {
        data_type: 9,
        dims: vec![],
        raw_data: Some(vec![1].into()),
        name: "yes".into(),
        ..Default::default()
    };
    let mut w = vec![yes, scalar("zero", 0), scalar("one", 1)];
    w.extend(trips.map(|n| scalar("m", n)));
    of_input(inputs, vec![l], w)
}

#[test]
fn loops() {
    let x = || typed("x", 1, &[2, 3, 8, 8]);
    let given = [("x", image())];
    gives("a loop of 5", counting(Some(5), x()), &given, &[5]);
    gives("a loop of none", counting(Some(0), x()), &given, &[0]);
    gives("a loop of less than none", counting(Some(-3), x()), &given, &[0]);
    too_much("a loop of 2^62", counting(Some(1 << 62), x()), &given);
    too_much("a loop without end", counting(None, x()), &given);
    let f = Folder::of("m.onnx", counting(Some(1 << 62), x()));
    f.export("m.onnx").succeeds("a loop of 2^62");
    hub_models::write(
        f.0.path().join("in.safetensors"),
        &hub_models::Tensors::from([("x".to_string(), image())]).into(),
    )
    .expect("writable");
    let args = [
        "run",
        "m.hub",
        "--inputs",
        "in.safetensors",
        "--cpu",
        "portable",
        "--limit",
        "steps=1000",
    ];
    ran(f.0.path(), "hubc", &args).refuses("few steps", 9, &["1000"]);
}

#[test]
fn branches_thirty_deep() {
    let leaf = |out: &str| GraphProto {
        node: vec![relu("x", out)],
        output: vec![value(out, &[])],
        ..Default::default()
    };
    let nested = |depth: usize| {
        let mut g = leaf("z");
        for i in 0..depth {
            let out = format!("o{i}");
            let branch = with(node("If", &["c"], &[&out]), body("then_branch", g));
            let branch = with(branch, body("else_branch", leaf(&format!("e{i}"))));
            g = GraphProto {
                node: vec![branch],
                output: vec![value(&out, &[])],
                ..Default::default()
            };
        }
        let mut nodes = vec![
            node("ReduceMax", &["x"], &["m"]),
            with(node("Cast", &["m"], &["b"]), int("to", 9)),
            node("Reshape", &["b", "s"], &["c"]),
        ];
        nodes.extend(g.node);
        nodes.push(relu(&format!("o{}", depth - 1), "y"));
        model(nodes, vec![TensorProto { dims: vec![0], ..shape("s", &[]) }]).encode_to_vec()
    };
    let f = Folder::of("m.onnx", nested(30));
    f.export("m.onnx").succeeds("30 deep");
    for tier in tiers() {
        f.run(tier, &[("x", image())]).succeeds("30 deep");
        assert_eq!(f.outputs()["y"], image());
    }
    super::harness::refused("60 deep", "m.onnx", nested(60), 9, &["nest"]);
}

#[test]
fn arithmetic_at_its_edges() {
    let pair = |op: &str, with_: Vec<i64>| {
        of_input(
            typed("x", I64, &[2]),
            vec![node(op, &["x", "d"], &["y"])],
            vec![shape("d", &with_)],
        )
    };
    let ints = |v: &[i64]| [("x", NamedTensor::i64(&[v.len()], v))];
    gives("MIN / -1", pair("Div", vec![-1, -1]), &ints(&[i64::MIN, 7]), &[i64::MIN, -7]);
    gives("MIN mod -1", pair("Mod", vec![-1, -1]), &ints(&[i64::MIN, 7]), &[0, 0]);
    gives("MAX + 1", pair("Add", vec![1, 1]), &ints(&[i64::MAX, 1]), &[i64::MIN, 2]);
    let neg = of_input(
        typed("x", I64, &[2]),
        vec![node("Neg", &["x"], &["n"]), node("Abs", &["n"], &["y"])],
        vec![],
    );
    gives("-MIN", neg, &ints(&[i64::MIN, 3]), &[i64::MIN, 3]);
    for op in ["Div", "Mod"] {
        let f = Folder::of("m.onnx", pair(op, vec![0, 1]));
        f.export("m.onnx").succeeds("a zero divisor");
        for tier in tiers() {
            f.run(tier, &ints(&[1, 1])).refuses("a zero divisor", 4, &["zero"]);
        }
        let known = vec![node(op, &["a", "d"], &["q"]), node("Add", &["q", "x"], &["y"])];
        let f = Folder::of(
            "m.onnx",
            of_input(
                typed("x", I64, &[2]),
                known,
                vec![shape("a", &[i64::MIN, 1]), shape("d", &[-1, 0])],
            ),
        );
        let r = f.export("m.onnx");
        assert!(matches!(r.code, 0 | 4), "constants of a zero divisor: {r:?}");
        if r.code == 0 {
            f.run("portable", &ints(&[1, 1])).refuses("a zero divisor", 4, &["zero"]);
        }
    }
    let floats = [("x", NamedTensor::f32(&[5], &[f32::NAN, f32::INFINITY, -1e30, 1e10, -0.5]))];
    let cast = |to: i64| {
        let n = with(node("Cast", &["x"], &["y"]), int("to", to));
        of_input(typed("x", 1, &[5]), vec![n], vec![])
    };
    gives("to int64", cast(7), &floats, &[0, i64::MAX, i64::MIN, 10_000_000_000, 0]);
    gives("to int32", cast(6), &floats, &[0, i32::MAX.into(), i32::MIN.into(), i32::MAX.into(), 0]);
}

#[test]
fn indices_out_of_range() {
    let x = [("i", NamedTensor::i64(&[2], &[0, 3]))];
    let table = || floats("t", &[3, 2], &[1.0; 6]);
    for op in ["Gather", "GatherElements", "GatherND"] {
        let dims: &[i64] = if op == "GatherElements" {
            &[1, 2]
        } else if op == "GatherND" {
            &[2, 1]
        } else {
            &[2]
        };
        let nodes = vec![node("Reshape", &["i", "s"], &["j"]), node(op, &["t", "j"], &["y"])];
        let bytes = of_input(typed("i", I64, &[2]), nodes, vec![table(), shape("s", dims)]);
        let f = Folder::of("m.onnx", bytes);
        f.export("m.onnx").succeeds(op);
        for tier in tiers() {
            f.run(tier, &x).refuses(op, 4, &[]);
            f.run(tier, &[("i", NamedTensor::i64(&[2], &[i64::MIN, i64::MAX]))]).refuses(
                op,
                4,
                &[],
            );
            f.run(tier, &[("i", NamedTensor::i64(&[2], &[0, 1]))]).succeeds(op);
        }
    }
}

/// Names are text: they are shown escaped and never interpreted.
#[test]
fn names_of_all_kinds() {
    let evil = [
        "$(touch pwned!)",
        "\u{1b}[2J\u{1b}]0;x\u{7}",
        "\"];digraph{a->b",
        "<script>alert(1)</script>",
        "a\r\nb\u{0}c\u{202e}d",
        "../../x",
        "%s%n",
        "",
    ];
    for name in evil {
        let y = if name.is_empty() { "y" } else { name };
        let mut n = relu("x", y);
        n.name = name.into();
        let mut m = model(vec![n], vec![]);
        m.producer_name = name.into();
        let g = m.graph.as_mut().expect("a graph");
        (g.name, g.output[0].name) = (name.into(), y.into());
        let f = Folder::of("m.onnx", m.encode_to_vec());
        f.export("m.onnx").succeeds(name);
        for args in [
            &["inspect", "m.hub"][..],
            &["inspect", "m.onnx"],
            &["bench", "m.hub", "--seconds", "0.01", "--profile"],
            &["inspect", "m.hub", "--json"],
        ] {
            ran(f.0.path(), "hubc", args).succeeds(name);
        }
        for tier in tiers() {
            f.run(tier, &[("x", image())]).succeeds(name);
            assert_eq!(f.outputs()[y], image());
        }
        let mut wrong = m;
        wrong.graph.as_mut().expect("a graph").node[0].op_type = format!("No{name}");
        super::harness::refused(name, "m.onnx", wrong.encode_to_vec(), 3, &[]);
        assert!(!f.0.path().join("pwned!").exists());
    }
}
