//! Graphs written as ONNX and read again mean the same: random ones, every form of primitive and
//! control, and real exporters' small models; as imported and after passes.

mod common;

use common::{difference, outputs, random};
use hub_frontend::onnx::write::{WriteOptions, convert};
use hub_frontend::{LoadOptions, onnx};
use hub_ir::Graph;
use hub_passes::{Options, run_until};
use hub_portable::{Tensor, Value};
use proptest::prelude::*;
use std::path::Path;

/// Stages of which the random graphs are written.
const STAGES: [&str; 4] = ["", "raise", "cse", "fuse"];

/// The graph after a pass ("" for as it is).
fn after(g: &Graph, pass: &str) -> Graph {
    let mut g = g.clone();
    if !pass.is_empty() {
        let options = Options { check_ir: true, ..Options::default() };
        run_until(&mut g, &options, pass, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    }
    g
}

/// Writes and reads.
fn again(g: &Graph) -> Result<Graph, String> {
    let bytes = convert(g, &WriteOptions::default()).map_err(|e| e.to_string())?.to_bytes();
    let loaded = onnx::load_bytes(bytes.into(), Path::new("m"), &LoadOptions::default());
    let back = loaded.map_err(|e| e.to_string())?.graph;
    assert_eq!((&back.inputs, &back.outputs), (&g.inputs, &g.outputs));
    Ok(back)
}

/// Greatest difference of the answers.
fn differs(want: &[Value], g: &Graph, inputs: &[Value]) -> Result<f64, String> {
    let back = again(g)?;
    let got = outputs(&back, inputs).map_err(|e| format!("{e}\n{}", hub_ir::text::print(&back)))?;
    Ok(want.iter().zip(&got).fold(0.0, |m, (w, g)| difference(w, g).max(m)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]
    #[test]
    fn random_graphs_come_back(
        choices in prop::collection::vec(any::<u32>(), 1..24),
        n in 1usize..=4,
        seed in any::<u32>(),
        stage in 0..STAGES.len(),
    ) {
        let g = after(&hub_ir::sample::graph(&choices), STAGES[stage]);
        let inputs = [random(&[n, 4, 5, 6], seed), random(&[n, 3, 8], !seed)];
        // Drawn sizes may contradict a constraint of the graph.
        let Ok(want) = outputs(&g, &inputs) else { return Ok(()) };
        let d = differs(&want, &g, &inputs).map_err(TestCaseError::fail)?;
        prop_assert!(d <= 1e-5, "differs by {d}\n{}", hub_ir::text::print(&g));
    }
}

/// Writes a graph given as text, as it is and fused; inputs are f32 of these sizes.
#[track_caller]
fn check(text: &str, sizes: &[&[usize]]) {
    let g = hub_ir::text::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let inputs: Vec<Value> =
        sizes.iter().enumerate().map(|(i, s)| random(s, i as u32 + 5)).collect();
    let want = outputs(&g, &inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    for pass in ["", "fuse"] {
        let d = differs(&want, &after(&g, pass), &inputs);
        let d = d.unwrap_or_else(|e| panic!("after '{pass}': {e}\n{text}"));
        assert!(d <= 2e-6, "after '{pass}': differs by {d}\n{text}");
    }
}

/// The elementwise primitives on f32 x and y of [N, 3], results as f32.
#[track_caller]
fn check_each(ops: &[(&str, &str)]) {
    for (op, result) in ops {
        let (args, extra) = match *op {
            "pow" => ("%2, %1", "%2: f32[N, 3] = abs(%0)\n"),
            _ => ("%0, %1", ""),
        };
        let args = if result.starts_with('1') { "%0" } else { args };
        let ty = &result[1..];
        check(
            &format!(
                "sym N 1..8\ngraph(%0: f32[N, 3] \"x\", %1: f32[N, 3] \"y\") {{\n{extra}\
                 %8: {ty}[N, 3] = {op}({args})\nreturn %8 \"z\"\n}}"
            ),
            &[&[4, 3], &[4, 3]],
        );
    }
}

#[test]
fn functions_of_floats_come_back() {
    let one = [
        "neg", "abs", "sign", "floor", "ceil", "round", "trunc", "recip", "exp", "expm1", "sin",
        "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "atanh", "erf",
        "sigmoid", "log1p", "sqrt", "rsqrt", "log", "acosh",
    ];
    check_each(&one.map(|op| (op, "1f32")));
    check_each(&[("is_nan", "1bool"), ("is_inf", "1bool")]);
    let two = ["add", "sub", "mul", "div", "mod", "rem", "pow", "max", "min", "atan2"];
    check_each(&two.map(|op| (op, "2f32")));
    check_each(&["eq", "ne", "lt", "le", "gt", "ge"].map(|op| (op, "2bool")));
}

#[test]
fn integers_of_every_width_come_back() {
    for ty in ["i8", "u8", "i16", "u16", "i32", "u32", "i64"] {
        let ops = ["add", "sub", "mul", "mod", "rem", "max", "min", "bit_and", "bit_xor", "shl"];
        for op in ops.iter().chain(&["shr", "bit_or", "div"]) {
            // Divisors and shifts are 1 to 4.
            let text = format!(
                "sym N 1..8\ngraph(%0: f32[N, 3] \"x\", %1: f32[N, 3] \"y\") {{\n\
                 %2: f32[] = const 90\n%3: f32[N, 3] = mul(%0, %2)\n%4: {ty}[N, 3] = cast(%3) \
                 {{saturate: true, to: {ty_name}}}\n\
                 %5: f32[N, 3] = abs(%1)\n%6: f32[] = const 3\n%7: f32[N, 3] = mul(%5, %6)\n\
                 %8: f32[] = const 1\n%9: f32[N, 3] = add(%7, %8)\n\
                 %10: {ty}[N, 3] = cast(%9) {{saturate: true, to: {ty_name}}}\n\
                 %11: {ty}[N, 3] = {op}(%4, %10)\n%12: {ty}[3] = reduce(%11) \
                 {{axes: [0], keep: false, op: Sum}}\nreturn %11 \"z\", %12 \"sum\"\n}}",
                ty_name = ty.to_uppercase(),
            );
            check(&text, &[&[4, 3], &[4, 3]]);
        }
    }
}

#[test]
fn movement_by_symbols_comes_back() {
    check(
        "sym N 0..8\nsym S 1..64\n\
graph(%0: f32[N, S, 6] \"x\") {
  %1: f32[N*S, 6] = reshape(%0) {shape: [N*S, 6]}
  %2: f32[N, S, 2, 3] = reshape(%1) {shape: [N, S, 2, 3]}
  %3: f32[N, 2, S, 3] = transpose(%2) {perm: [0, 2, 1, 3]}
  %4: f32[N, 2, S, 3] = slice(%3) {start: [0, 0, S - 1, 0], len: [N, 2, S, 3], step: [1, 1, -1, 1]}
  %5: f32[N, 2, div(S + 1, 2), 2] = slice(%4) {start: [0, 0, 0, 1], len: [N, 2, div(S + 1, 2), 2], step: [1, 1, 2, 1]}
  %6: f32[] = const 0.5
  %7: f32[N + 1, 2, div(S + 1, 2), 3] = pad(%5, %6) {before: [1, 0, 0, 0], after: [0, 0, 0, 1], mode: Constant}
  %8: f32[3, N + 1, 2, div(S + 1, 2), 3] = broadcast(%7) {shape: [3, N + 1, 2, div(S + 1, 2), 3]}
  %9: i64[N, S] = iota() {axis: 1, dtype: I64, shape: [N, S]}
  %10: f32[N, S] = cast(%9) {saturate: true, to: F32}
  %11: f32[N, 2*S] = concat(%10, %10) {axis: 1}
  %12: i64[3] = dims() {dims: [N, N*S + 1, max(S, 7)], scalar: false}
  %13: i64[] = dims() {dims: [mod(S, 4)], scalar: true}
  return %8 \"a\", %11 \"b\", %12 \"c\", %13 \"d\"
}",
        &[&[2, 5, 6]],
    );
}

#[test]
fn sizes_bound_while_it_runs_come_back() {
    check(
        "sym N 1..8\nsym C 0..8\nsym K 0..8\n\
graph(%0: f32[N] \"x\") {
  %1: f32[] = const 0
  %2: bool[N] = gt(%0, %1)
  %3: i64[1, C] = non_zero(%2) {count: C}
  %4: i64[C] = reshape(%3) {shape: [C]}
  %5: f32[C] = gather(%0, %4) {axis: 0}
  %6: i64[] = reduce(%4) {axes: [0], keep: false, op: Max}
  bind_syms(%6) {syms: [K]}
  %7: f32[K] = slice(%0) {start: [0], len: [K], step: [1]}
  %8: f32[N], %9: i64[N] = top_k(%0) {axis: 0, k: N, largest: false, sorted: true}
  %10: f32[min(N, 2)], %11: i64[min(N, 2)] = top_k(%0) {axis: 0, k: min(N, 2), largest: true, sorted: false}
  return %5 \"a\", %7 \"b\", %8 \"c\", %9 \"d\", %10 \"e\", %11 \"f\"
}",
        &[&[7]],
    );
}

#[test]
fn contractions_and_reductions_come_back() {
    check(
        "sym N 1..8\n\
graph(%0: f32[N, 3, 4] \"x\", %1: f32[N, 5, 4] \"y\") {
  %2: f32[N, 3, 5] = contract(%0, %1) {a: [0, 1, 2], b: [0, 3, 2], out: [0, 1, 3]}
  %3: f32[5, N, 3] = contract(%0, %1) {a: [0, 1, 2], b: [0, 3, 2], out: [3, 0, 1]}
  %4: f32[N, 4] = contract(%0, %1) {a: [0, 1, 2], b: [0, 3, 2], out: [0, 2]}
  %5: f32[N, 4] = reduce(%0) {axes: [1], keep: false, op: Prod}
  %6: f32[1, 3, 1] = reduce(%0) {axes: [0, 2], keep: true, op: Mean}
  %7: i64[N, 4] = arg_reduce(%0) {max: true, axis: 1, keep: false, last: true}
  %8: f32[N, 3, 4] = cumulative(%0) {op: Sum, axis: 1, exclusive: true, reverse: true}
  %9: f32[N, 3, 4] = cumulative(%0) {op: Max, axis: 2, exclusive: false, reverse: true}
  %10: f32[N, 3, 4] = cumulative(%0) {op: Prod, axis: 1, exclusive: true, reverse: false}
  return %2 \"a\", %3 \"b\", %4 \"c\", %5 \"d\", %6 \"e\", %7 \"f\", %8 \"g\", %9 \"h\", %10 \"i\"
}",
        &[&[2, 3, 4], &[2, 5, 4]],
    );
}

#[test]
fn windows_and_convolutions_come_back() {
    let geo = "{stride: [2, 1], dilation: [1, 2], before: [1, 0], after: [0, 3]}";
    check(
        &format!(
            "sym N 1..8\nsym H 4..32\n\
graph(%0: f32[N, 2, H, 7] \"x\") {{
  %1: f32[4, 1, 2, 2] = const all 0.25
  %2: f32[4] = const [1, 2, 3, 4]
  %3: f32[N, 4, div(H - 1, 2) + 1, 8] = @conv(%0, %1, %2) {{geo: {geo}, groups: 2}}
  %4: f32[N, 2, div(H - 1, 2) + 1, 8] = window(%0) {{op: Max, kernel: [2, 2], geo: {geo}}}
  %5: f32[N, 2, div(H - 1, 2) + 1, 8] = window(%0) {{op: Sum, kernel: [2, 2], geo: {geo}}}
  %6: f32[2, 3, 2, 2] = const all 0.5
  %7: f32[3] = const [1, 2, 3]
  %8: f32[N, 3, 2*H + 1, 14] = @conv_transpose(%0, %6, %7) {{geo: {{stride: [2, 2], dilation: [1, 1], before: [0, 0], after: [-1, 0]}}, groups: 1}}
  return %3 \"a\", %4 \"b\", %5 \"c\", %8 \"d\"
}}"
        ),
        &[&[2, 2, 6, 7]],
    );
}

#[test]
fn control_comes_back() {
    check(
        "sym N 1..8\nsym M 1..8\n\
graph(%0: f32[N, 3] \"x\") {
  %1: f32[] = const 1.5
  %2: f32[3] = const [0, 1, 2]
  %3: f32[] = reduce(%0) {axes: [0, 1], keep: false, op: Sum}
  %4: f32[] = const 0
  %5: bool[] = gt(%3, %4)
  %6: f32[N, 3] = if(%5) do {
    %7: f32[N, 3] = mul(%0, %1)
    return %7
  } do {
    return %0
  }
  %8: f32[3], %9: f32[N, 3] = scan(%2, %6) {carried: 1, reverse: true, trip: N} do (%10: f32[3], %11: f32[3]) {
    %12: f32[3] = add(%10, %11)
    return %12, %12
  }
  %13: i64[] = const 4
  %14: f32[N, 3] = loop(%13, %6) {carried: 1, has_cond: false, has_trip: true} do (%15: i64[], %16: f32[N, 3]) {
    %17: bool[] = const true
    %18: f32[N, 3] = mul(%16, %1)
    return %17, %18
  }
  %19: seq(f32[N, 3]) = seq_new(%6, %9) {elem: {Tensor: {dims: [N, 3], dtype: F32}}}
  %20: i64[] = const 1
  %21: seq(f32[N, 3]) = seq_set(%19, %14, %20)
  %22: i64[] = const 2
  %23: seq(f32[N, 3]) = seq_set(%21, %0, %22)
  %24: f32[M, 3], %25: i32[3] = seq_concat(%23) {axis: 0, stack: false}
  %26: i64[] = seq_len(%23)
  return %8 \"a\", %9 \"b\", %24 \"c\", %26 \"d\", %6 \"e\", %0 \"same\", %6 \"twice\"
}",
        &[&[2, 3]],
    );
}

#[test]
fn operators_without_a_name_are_functions_that_equal_ones_share() {
    let text = "sym N 1..8
graph(%0: f32[N, 4] \"x\") {
  %1: f32[4] = const [1, 2, 3, 4]
  %2: f32[N, 4] = @rms_norm(%0, %1) {axis: 1, eps: 0.5}
  %3: f32[N, 4] = @rms_norm(%2, %1) {axis: 1, eps: 0.5}
  %4: f32[N, 4] = @rms_norm(%3, %1) {axis: 1, eps: 0.25}
  %5: f32[N, 4] = @softmax(%4) {axis: 1, log: false}
  return %5 \"y\"
}";
    let g = hub_ir::text::parse(text).unwrap();
    let model = convert(&g, &WriteOptions::default()).unwrap();
    let called: Vec<String> = {
        let nodes = &model.proto().graph.as_ref().unwrap().node;
        nodes.iter().map(|n| format!("{}.{}", n.domain, n.op_type)).collect()
    };
    assert_eq!(called, ["hub.RmsNorm", "hub.RmsNorm", "hub.RmsNorm_1", ".Softmax"]);
    let made: Vec<&str> = model.proto().functions.iter().map(|f| &*f.name).collect();
    assert_eq!(made, ["RmsNorm", "RmsNorm_1"]);
    let sets: Vec<&str> = model.proto().opset_import.iter().map(|o| &*o.domain).collect();
    assert_eq!(sets, ["", "hub"]);
    check(text, &[&[3, 4]]);
}

#[test]
fn attributes_that_are_zero_are_written() {
    // Readers of proto2 take a number that is left out for the operator's default.
    let text = "graph(%0: f32[2, 4] \"x\") {
  %1: f32[2, 4] = @softmax(%0) {axis: 0, log: false}
  return %1 \"y\"
}";
    let model = convert(&hub_ir::text::parse(text).unwrap(), &WriteOptions::default()).unwrap();
    let bytes = model.to_bytes();
    // Attribute: name (1), i (3), type (20) INT.
    let axis = [0x0a, 4, b'a', b'x', b'i', b's', 0x18, 0, 0xa0, 1, 2];
    assert!(bytes.windows(axis.len()).any(|w| w == axis));
    check(text, &[&[2, 4]]);
}

#[test]
fn groups_are_functions_and_large_constants_their_inputs() {
    let text = "sym N 1..8
graph(%0: f32[N, 32] \"x\") {
  %1: f32[32] = const all 0.5
  %2: f32[N, 32] = mul(%0, %1)
  %3: f32[N, 32] = exp(%2)
  %4: f32[N, 32] = add(%3, %1)
  return %4 \"y\"
}";
    let g = after(&hub_ir::text::parse(text).unwrap(), "fuse");
    let model = convert(&g, &WriteOptions::default()).unwrap();
    let functions = &model.proto().functions;
    assert_eq!(functions.len(), 1, "{functions:?}");
    assert!(functions[0].name.ends_with("Group"), "{functions:?}");
    assert!(functions[0].node.iter().all(|n| n.op_type != "Constant"), "{functions:?}");
    check(text, &[&[3, 32]]);
}

#[test]
fn small_models_come_back() {
    for case in hub_models::formats().unwrap() {
        let loaded = hub_frontend::load(&case.model, &LoadOptions::default());
        let g = loaded.unwrap_or_else(|e| panic!("{}: {e}", case.name)).graph;
        let one = |name: &String| {
            let t = &case.inputs[name];
            let dtype = hub_ir::Dtype::from_name(&t.dtype.to_lowercase()).unwrap();
            Value::Tensor(Tensor::from_bytes(dtype, &t.shape, &t.data).unwrap())
        };
        let inputs: Vec<Value> = g.inputs.iter().map(one).collect();
        let want = outputs(&g, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for pass in STAGES {
            let d = differs(&want, &after(&g, pass), &inputs);
            let d = d.unwrap_or_else(|e| panic!("{} after '{pass}': {e}", case.name));
            assert!(d <= 1e-5, "{} after '{pass}' differs by {d}", case.name);
        }
    }
}

#[test]
fn the_same_graph_gives_the_same_bytes() {
    let g = hub_ir::sample::graph(&[3, 14, 15, 92, 65, 35, 89, 79, 323, 84, 62, 64, 33, 83, 27]);
    let bytes = || convert(&g, &WriteOptions::default()).unwrap().to_bytes();
    assert_eq!(bytes(), bytes());
}

#[test]
fn weights_beside_the_model_come_back() {
    let dir = std::env::temp_dir().join(format!("hub-written-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let text = "graph(%0: f32[1, 64] \"x\") {
  %1: f32[64, 64] = const all 0.5
  %2: f32[1, 64] = @matmul(%0, %1) {trans_a: false, trans_b: false}
  return %2 \"y\"
}";
    let g = hub_ir::text::parse(text).unwrap();
    let options = WriteOptions { inline_bytes: 1000, ..WriteOptions::default() };
    let file = dir.join("m.onnx");
    let report = convert(&g, &options).unwrap().save(&file).unwrap();
    assert_eq!(report.external_bytes, Some(64 * 64 * 4));
    let back = hub_frontend::load(&file, &LoadOptions::default()).unwrap().graph;
    let x = [random(&[1, 64], 3)];
    let d = difference(&outputs(&g, &x).unwrap()[0], &outputs(&back, &x).unwrap()[0]);
    assert_eq!(d, 0.0);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_onnx_cannot_say_is_refused_with_the_node() {
    let text = "graph(%0: f32[2] \"x\") {
  %1: i32[2] = bitcast(%0) {to: I32} \"bits\"
  return %1 \"y\"
}";
    let g = hub_ir::text::parse(text).unwrap();
    let e = convert(&g, &WriteOptions::default()).unwrap_err();
    assert_eq!((e.exit_code(), e.to_string().contains("'bits'")), (3, true), "{e}");
}
