//! Every rule on the spellings that exporters write: a snapshot of the graph after the pass, and the
//! same outputs as before by reference evaluation.

mod common;

use common::check;
use std::fmt::Write;

/// A graph from `x: ty` to the last value of `lines`, each `name = op(args)` of the same type unless
/// it says its own; numbers are scalars.
fn elementwise(ty: &str, lines: &[&str]) -> String {
    let mut text = format!("graph(%0: {ty} \"x\") {{\n");
    let mut names = vec!["x".to_string()];
    let mut next = 1;
    for line in lines {
        let (name, call) = line.split_once(" = ").unwrap();
        let (name, out) = name.split_once(": ").unwrap_or((name, ty));
        let (op, rest) = call.split_once('(').unwrap();
        let (args, attrs) = rest.split_once(')').unwrap();
        let mut ids = vec![];
        for a in args.split(", ") {
            match names.iter().rposition(|n| n == a) {
                Some(i) => ids.push(format!("%{i}")),
                None => {
                    let constant = match a.split_once(": ") {
                        Some((ty, value)) => format!("{ty} = const all {value}"),
                        None => format!("f32[] = const {a}"),
                    };
                    let _ = writeln!(text, "  %{next}: {constant}");
                    ids.push(format!("%{next}"));
                    names.push(String::new());
                    next += 1;
                }
            }
        }
        let _ = writeln!(text, "  %{next}: {out} = {op}({}){attrs}", ids.join(", "));
        names.push(name.to_string());
        next += 1;
    }
    let _ = write!(text, "  return %{} \"y\"\n}}", next - 1);
    text
}

/// Checks that each spelling becomes one source operator (constants aside); gives the first.
fn one_operator(ty: &str, about: &str, spellings: &[&[&str]]) -> String {
    let mut first = String::new();
    for lines in spellings {
        let after = check(&elementwise(ty, lines), "raise", about);
        let ops = after.lines().filter(|l| l.contains(" = ") && !l.contains(" = const ")).count();
        assert_eq!(ops, 1, "{lines:?}\n{after}");
        if first.is_empty() {
            first = after;
        }
    }
    first
}

#[test]
fn gelu_in_every_spelling() {
    let torchscript: &[&str] = &[
        "s = div(x, 1.4142135)",
        "e = erf(s)",
        "o = add(e, 1)",
        "m = mul(x, o)",
        "y = mul(m, 0.5)",
    ];
    let dynamo: &[&str] = &[
        "h = mul(x, 0.5)",
        "s = mul(x, 0.70710678)",
        "e = erf(s)",
        "o = add(e, 1)",
        "y = mul(h, o)",
    ];
    let paddle: &[&str] = &[
        "s = div(x, 1.4142135)",
        "e = erf(s)",
        "o = add(1, e)",
        "h = mul(o, 0.5)",
        "y = mul(x, h)",
    ];
    let tf: &[&str] = &[
        "h = mul(0.5, x)",
        "s = mul(x, 0.70710677)",
        "e = erf(s)",
        "o = add(1, e)",
        "y = mul(h, o)",
    ];
    let halved: &[&str] =
        &["s = div(x, 1.4142135)", "e = erf(s)", "o = add(e, 1)", "m = mul(x, o)", "y = div(m, 2)"];
    let inside: &[&str] = &[
        "s = div(x, 1.4142135)",
        "e = erf(s)",
        "h = mul(e, 0.5)",
        "o = add(h, 0.5)",
        "y = mul(x, o)",
    ];
    let all = [torchscript, dynamo, paddle, tf, halved, inside];
    insta::assert_snapshot!(one_operator("f32[2, 5]", "gelu", &all));
}

#[test]
fn gelu_tanh_in_every_spelling() {
    let hf: &[&str] = &[
        "h = mul(x, 0.5)",
        "p = pow(x, 3)",
        "k = mul(p, 0.044715)",
        "a = add(x, k)",
        "s = mul(a, 0.7978846)",
        "t = tanh(s)",
        "o = add(t, 1)",
        "y = mul(h, o)",
    ];
    let torch: &[&str] = &[
        "q = mul(x, x)",
        "p = mul(q, x)",
        "k = mul(0.044715, p)",
        "a = add(x, k)",
        "s = mul(0.7978846, a)",
        "t = tanh(s)",
        "o = add(t, 1)",
        "m = mul(x, o)",
        "y = mul(m, 0.5)",
    ];
    let fast: &[&str] = &[
        "k = mul(0.044715, x)",
        "q = mul(k, x)",
        "f = add(q, 1)",
        "r = mul(x, 0.7978846)",
        "s = mul(r, f)",
        "t = tanh(s)",
        "o = add(1, t)",
        "h = mul(0.5, x)",
        "y = mul(h, o)",
    ];
    insta::assert_snapshot!(one_operator("f32[2, 5]", "gelu", &[hf, torch, fast]));
}

#[test]
fn gates_in_every_spelling() {
    let mut out = String::new();
    let cases: [(&str, &[&[&str]]); 6] = [
        (
            "silu",
            &[
                &["g = sigmoid(x)", "y = mul(x, g)"],
                &["n = neg(x)", "e = exp(n)", "o = add(e, 1)", "y = div(x, o)"],
                &["n = neg(x)", "e = exp(n)", "o = add(1, e)", "g = div(1, o)", "y = mul(g, x)"],
            ],
        ),
        ("swish", &[&["b = mul(x, 1.702)", "g = sigmoid(b)", "y = mul(x, g)"]]),
        (
            "hard-swish",
            &[
                &[
                    "a = add(x, 3)",
                    "l = max(a, 0)",
                    "r = min(l, 6)",
                    "m = mul(x, r)",
                    "y = div(m, 6)",
                ],
                &[
                    "a = add(x, 3)",
                    "r = @activation(a) {kind: clip, lo: 0.0, hi: 6.0}",
                    "d = div(r, 6)",
                    "y = mul(x, d)",
                ],
                &[
                    "a = add(x, 3)",
                    "r = @activation(a) {kind: clip, lo: 0.0, hi: 6.0}",
                    "d = mul(r, 0.16666667)",
                    "y = mul(d, x)",
                ],
                &[
                    "s = @activation(x) {kind: hard_sigmoid, alpha: 0.16666667, beta: 0.5}",
                    "y = mul(x, s)",
                ],
            ],
        ),
        (
            "hard-sigmoid",
            &[&[
                "a = add(x, 3)",
                "r = @activation(a) {kind: clip, lo: 0.0, hi: 6.0}",
                "y = div(r, 6)",
            ]],
        ),
        ("softplus", &[&["e = exp(x)", "o = add(e, 1)", "y = log(o)"]]),
        ("mish", &[&["e = exp(x)", "o = add(1, e)", "l = log(o)", "t = tanh(l)", "y = mul(x, t)"]]),
    ];
    for (name, spellings) in cases {
        out += &format!("-- {name}\n{}", one_operator("f32[2, 5]", name, spellings));
    }
    insta::assert_snapshot!(out);
}

const MEAN: &str = " {op: Mean, axes: [2], keep: true}";

#[test]
fn norms_in_every_spelling() {
    let mean = format!("m: f32[2, 3, 1] = reduce(x){MEAN}");
    let var = format!("v: f32[2, 3, 1] = reduce(q){MEAN}");
    let small = "f32[2, 3, 1]";
    let (ve, sq, rs) = (
        format!("e: {small} = add(v, 1e-5)"),
        format!("s: {small} = sqrt(e)"),
        format!("s: {small} = rsqrt(e)"),
    );
    let torchscript = [
        &mean,
        "d = sub(x, m)",
        "q = pow(d, 2)",
        &var,
        &ve,
        &sq,
        "n = div(d, s)",
        "a = mul(n, f32[8]: 1.5)",
        "y = add(a, f32[8]: 0.25)",
    ];
    let plain = [&mean, "d = sub(x, m)", "q = mul(d, d)", &var, &ve, &rs, "y = mul(d, s)"];
    let twice = [
        &mean,
        "d = sub(x, m)",
        "z = sub(x, m)",
        "q = pow(d, 2)",
        &var,
        &ve,
        &sq,
        "n = div(z, s)",
        "y = add(n, f32[8]: 0.75)",
    ];
    let gain = format!("g: {} = mul(s, f32[8]: 1.5)", "f32[2, 3, 8]");
    let tf = [
        &mean,
        "d = sub(x, m)",
        "q = mul(d, d)",
        &var,
        &ve,
        &rs,
        &gain,
        "p = mul(x, g)",
        "c = mul(m, g)",
        "f = sub(f32[8]: 0.25, c)",
        "y = add(p, f)",
    ];
    let ty = "f32[2, 3, 8]";
    let mut out = String::new();
    for lines in [&torchscript[..], &plain, &twice, &tf] {
        out += &one_operator(ty, "layer-norm", &[lines]);
    }
    let v2 = format!("v: {small} = reduce(q){MEAN}");
    let rms = ["q = pow(x, 2)", &v2, &ve, &rs, "n = mul(x, s)", "y = mul(f32[8]: 1.5, n)"];
    let rms_div = ["q = mul(x, x)", &v2, &ve, &sq, "y = div(x, s)"];
    for lines in [&rms[..], &rms_div] {
        out += &one_operator(ty, "rms", &[lines]);
    }
    let top = format!("t: {small} = reduce(x) {{op: Max, axes: [2], keep: true}}");
    let sum = format!("u: {small} = reduce(e) {{op: Sum, axes: [2], keep: true}}");
    let log = format!("l: {small} = log(u)");
    let soft = [&top, "d = sub(x, t)", "e = exp(d)", &sum, "y = div(e, u)"];
    let log_soft = [&top, "d = sub(x, t)", "e = exp(d)", &sum, &log, "y = sub(d, l)"];
    for lines in [&soft[..], &log_soft] {
        out += &one_operator(ty, "softmax", &[lines]);
    }
    insta::assert_snapshot!(out);
}

#[test]
fn near_misses_are_refused_with_a_reason() {
    let other_axis = [
        "m: f32[1, 3, 8] = reduce(x) {op: Mean, axes: [0], keep: true}",
        "d = sub(x, m)",
        "q = mul(d, d)",
        "v: f32[1, 3, 8] = reduce(q) {op: Mean, axes: [0], keep: true}",
        "e: f32[1, 3, 8] = add(v, 1e-5)",
        "s: f32[1, 3, 8] = rsqrt(e)",
        "y = mul(d, s)",
    ];
    // The interior is an output's operand too, so nothing would be saved.
    let shared = [
        "s = div(x, 1.4142135)",
        "e = erf(s)",
        "o = add(e, 1)",
        "m = mul(x, o)",
        "g = mul(m, 0.5)",
        "y = add(g, e)",
    ];
    // 1.5 is not sqrt 2.
    let wrong =
        ["s = div(x, 1.5)", "e = erf(s)", "o = add(e, 1)", "m = mul(x, o)", "y = mul(m, 0.5)"];
    let swapped = ["l = min(x, -1)", "y = max(l, 1)"];
    let mut out = String::new();
    for lines in [&other_axis[..], &shared, &wrong, &swapped] {
        out += &check(&elementwise("f32[2, 3, 8]", lines), "raise", "raise");
    }
    insta::assert_snapshot!(out);
}

/// Convolution text with a given weight and padding.
fn conv(pad: i64, before: &str, groups: i64, after: &str) -> String {
    let size = 6 + 2 * pad - 2;
    let ty = format!("f32[3, 4, {size}, {size}]");
    let per = 4 / groups;
    format!(
        "graph(%0: f32[3, 4, 6, 6] \"x\") {{
  %1: f32[4, {per}, 3, 3] = const all 0.125
  %2: f32[4, 1, 1] = const [1, 2, 3, 4]
  %3: f32[1, 4, 1, 1] = const [0.5, -1, 0.25, 2]
  {before}
  %5: {ty} = conv(%4, %1) {{geo: {{stride: [1, 1], dilation: [1, 1], before: [{pad}, {pad}], after: [{pad}, {pad}]}}, groups: {groups}}}
  {}
}}",
        after.replace("TY", &ty)
    )
}

#[test]
fn scales_and_shifts_go_into_weights() {
    let mut out = String::new();
    let id = "%4: f32[3, 4, 6, 6] = reshape(%0) {shape: [3, 4, 6, 6]}";
    let bn =
        "%6: TY = add(%5, %3)\n  %7: TY = mul(%6, %2)\n  %8: TY = sub(%7, %3)\n  return %8 \"y\"";
    let last = "return %5 \"y\"";
    let scale = "%4: f32[3, 4, 6, 6] = mul(%0, %2)";
    let shift = "%4: f32[3, 4, 6, 6] = add(%0, %2)";
    for (pad, before, groups, after) in [
        (1, id, 1, bn),
        (1, id, 4, bn),
        (1, scale, 2, last),
        (0, shift, 1, last),
        (1, shift, 1, last),
    ] {
        out += &format!("-- pad {pad}, groups {groups}\n");
        out += &check(&conv(pad, before, groups, after), "fold-norm", "norm");
    }
    out += &check(
        "graph(%0: f32[3, 5, 4] \"x\") {
  %1: f32[4, 6] = const all 0.125
  %2: f32[6] = const [1, 2, 3, 4, 5, 6]
  %3: f32[4] = const [1, -2, 3, 0.5]
  %4: f32[3, 5, 4] = mul(%0, %3)
  %5: f32[3, 5, 4] = add(%4, %3)
  %6: f32[3, 5, 6] = @matmul(%5, %1) {trans_a: false, trans_b: false}
  %7: f32[3, 5, 6] = mul(%6, %2)
  %8: f32[3, 5, 2, 3] = reshape(%7) {shape: [3, 5, 2, 3]}
  %9: f32[3, 2, 5, 3] = transpose(%8) {perm: [0, 2, 1, 3]}
  %10: f32[] = const 0.3
  %11: f32[3, 2, 5, 3] = mul(%9, %10)
  return %11 \"y\"
}",
        "fold-norm",
        "norm",
    );
    insta::assert_snapshot!(out);
}

#[test]
fn transposed_convolutions_are_sub_pixel_ones() {
    let mut shown = String::new();
    // (stride, kernel, before, after, groups): after below 0 is output padding.
    for (i, (s, k, before, after, groups)) in
        [(2, 4, 1, 1, 1), (2, 3, 1, 0, 2), (3, 2, 0, 0, 1), (1, 3, 1, 1, 1), (2, 2, 0, -1, 1)]
            .into_iter()
            .enumerate()
    {
        let out = 4 * s + k - before - after;
        let per = 4 / groups;
        let weights: Vec<String> =
            (0..4 * per * k * k).map(|i| format!("{}", (i * 37 % 23) as f32 / 8.0 - 1.0)).collect();
        let rows = (4 * per * k * k) as usize;
        let text = format!(
            "graph(%0: f32[3, 4, 5, 5] \"x\") {{
  %1: f32[{rows}] = const [{}]
  %2: f32[4, {per}, {k}, {k}] = reshape(%1) {{shape: [4, {per}, {k}, {k}]}}
  %3: f32[3, 4, {out}, {out}] = conv_transpose(%0, %2) {{geo: {{stride: [{s}, {s}], dilation: [1, 1], before: [{before}, {before}], after: [{after}, {after}]}}, groups: {groups}}}
  %4: f32[1, 4, 1, 1] = const [1, -2, 0.5, 0.25]
  %5: f32[3, 4, {out}, {out}] = add(%3, %4)
  %6: f32[3, 4, {out}, {out}] = @activation(%5) {{kind: relu}}
  return %6 \"y\"
}}",
            weights.join(", ")
        );
        let after = check(&text, "", "conv-transpose");
        assert!(!after.contains("conv_transpose"), "{after}");
        if i == 0 {
            shown = after;
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn convolutions_of_one_row_lose_the_axis() {
    let text = "
graph(%0: f32[2, 4, 9] \"x\") {
  %1: f32[2, 4, 1, 9] = reshape(%0) {shape: [2, 4, 1, 9]}
  %2: f32[6, 2, 1, 3] = const all 0.5
  %3: f32[2, 6, 1, 9] = conv(%1, %2) {geo: {stride: [1, 1], dilation: [1, 2], before: [0, 2], after: [0, 2]}, groups: 2}
  %4: f32[2, 6, 9] = reshape(%3) {shape: [2, 6, 9]}
  %5: f32[2, 6, 9] = tanh(%4)
  %6: f32[2, 6, 9, 1] = reshape(%5) {shape: [2, 6, 9, 1]}
  %7: f32[2, 6, 5, 1] = window(%6) {op: Max, kernel: [3, 1], geo: {stride: [2, 1], dilation: [1, 1], before: [1, 0], after: [1, 0]}}
  %8: f32[2, 6, 5] = reshape(%7) {shape: [2, 6, 5]}
  return %8 \"y\"
}";
    let after = check(text, "simplify-prims", "flat");
    assert!(!after.contains("reshape") && after.contains("dilation: [2]"), "{after}");
    // Padding rows are rows too.
    let padded = text.replace("before: [0, 2], after: [0, 2]", "before: [1, 2], after: [1, 2]");
    let padded = padded.replace("%3: f32[2, 6, 1, 9]", "%3: f32[2, 6, 3, 9]");
    let padded = padded.replace("%4: f32[2, 6, 9] = reshape(%3) {shape: [2, 6, 9]}",
        "%9: f32[2, 6, 9] = reduce(%3) {axes: [2], keep: false, op: Sum}\n  %4: f32[2, 6, 9] = neg(%9)");
    assert!(check(&padded, "simplify-prims", "flat").contains("dilation: [1, 2]"));
}

#[test]
fn transposes_become_label_orders() {
    insta::assert_snapshot!(check(
        "graph(%0: f32[1, 6, 8] \"q\", %1: f32[1, 6, 8] \"k\") {
  %2: f32[1, 6, 2, 4] = reshape(%0) {shape: [1, 6, 2, 4]}
  %3: f32[1, 2, 6, 4] = transpose(%2) {perm: [0, 2, 1, 3]}
  %4: f32[1, 6, 2, 4] = reshape(%1) {shape: [1, 6, 2, 4]}
  %5: f32[1, 2, 6, 4] = transpose(%4) {perm: [0, 2, 1, 3]}
  %6: f32[2, 6, 4] = reshape(%5) {shape: [2, 6, 4]}
  %7: f32[2, 4, 6] = transpose(%6) {perm: [0, 2, 1]}
  %8: f32[1, 2, 4, 6] = reshape(%7) {shape: [1, 2, 4, 6]}
  %9: f32[1, 2, 6, 6] = @matmul(%3, %8) {trans_a: false, trans_b: false} \"qk\"
  %10: f32[1, 2, 6, 6] = @softmax(%9) {axis: 3, log: false}
  %11: f32[1, 2, 6, 4] = @matmul(%10, %5) {trans_a: false, trans_b: false} \"pv\"
  %12: f32[1, 6, 2, 4] = transpose(%11) {perm: [0, 2, 1, 3]}
  %13: f32[1, 6, 8] = reshape(%12) {shape: [1, 6, 8]}
  return %13 \"y\"
}",
        "clean",
        "contract",
    ));
}

#[test]
fn zero_padding_goes_into_the_geometry() {
    let graph = |fill: &str| {
        format!(
            "graph(%0: f32[1, 2, 5, 5] \"x\") {{
  %1: f32[] = const {fill}
  %2: f32[1, 2, 7, 8] = pad(%0, %1) {{before: [0, 0, 1, 1], after: [0, 0, 1, 2], mode: Constant}}
  %3: f32[3, 2, 3, 3] = const all 0.5
  %4: f32[1, 3, 5, 6] = @conv(%2, %3) {{geo: {{stride: [1, 1], dilation: [1, 1], before: [0, 0], after: [0, 0]}}, groups: 1}}
  return %4 \"y\"
}}"
        )
    };
    let out = check(&graph("0"), "clean", "pad") + &check(&graph("1"), "clean", "pad");
    insta::assert_snapshot!(out);
}

/// A size that a node binds from a value is not taken for that value's contents.
#[test]
fn sizes_bound_from_values_stay_computed() {
    let text = "sym n 0..8
graph(%0: f32[3] \"x\") {
  %1: i64[3] = cast(%0) {saturate: true, to: I64}
  %2: i64[3] = mul(%1, %1)
  %3: i64[1] = reduce(%2) {axes: [0], keep: true, op: Max}
  bind_syms(%3) {syms: [n]}
  %4: f32[n] = iota {axis: 0, dtype: F32, shape: [n]}
  %5: f32[n] = exp(%4)
  return %5 \"y\"
}";
    insta::assert_snapshot!(check(text, "", ""));
}

#[test]
fn padding_by_own_elements_is_slices() {
    for (mode, before, after) in
        [("Reflect", [2, 1], [1, 3]), ("Edge", [2, 6], [0, 3]), ("Wrap", [3, 0], [1, 5])]
    {
        let ([b0, b1], [a0, a1]) = (before, after);
        let (h, w) = (3 + b0 + a0, 5 + b1 + a1);
        // Paddle pads images as volumes of one plane.
        let text = format!(
            "graph(%0: f32[2, 4, 3, 5] \"x\") {{
  %1: f32[2, 4, 1, 3, 5] = reshape(%0) {{shape: [2, 4, 1, 3, 5]}}
  %2: f32[] = const 0
  %3: f32[2, 4, 1, {h}, {w}] = pad(%1, %2) {{before: [0, 0, 0, {b0}, {b1}], after: [0, 0, 0, {a0}, {a1}], mode: {mode}}}
  %4: f32[2, 4, {h}, {w}] = reshape(%3) {{shape: [2, 4, {h}, {w}]}}
  return %4 \"y\"
}}"
        );
        let reach = b0 < 3 || mode != "Reflect";
        let after = check(&text, "simplify-prims", "pad");
        assert!(after.contains("pad(") != reach && !after.contains("reshape"), "{after}");
    }
}
