//! Pools of whole images as exporters write them: each spelling before and after, with the same
//! outputs by reference evaluation, and what is rightly left alone.

mod common;

use common::{named, raised};

const IMAGE: &str = "in x: f32[2, 3, 4, 5]\n";
const UNIT: &str = "stride: [1, 1], dilation: [1, 1]";

/// Every spelling ends in one reduction of the axes 2 and 3.
fn pooled(lines: &str) -> String {
    let after = raised(&named(&format!("{IMAGE}{lines}")), "pool");
    let (_, end) = after.split_once("==>").unwrap();
    assert_eq!(end.matches(" = reduce(%0) {axes: [2, 3], keep: ").count(), 1, "{after}");
    assert_eq!(end.matches("reduce(").count(), 1, "{after}");
    assert!(!end.contains("transpose") && !end.contains("pool"), "{after}");
    after
}

#[test]
fn global_pools_in_every_spelling() {
    let none = "before: [0, 0], after: [0, 0]";
    let mut out = String::new();
    for lines in [
        // ONNX AveragePool and MaxPool of fixed sizes; Paddle and torch's adaptive pools.
        &*format!(
            "y: f32[2, 3, 1, 1] = @avg_pool(x) {{kernel: [4, 5], geo: {{{UNIT}, {none}}}, count: valid}}\nout y"
        ),
        &*format!(
            "y: f32[2, 3, 1, 1] = @max_pool(x) {{kernel: [4, 5], geo: {{stride: [4, 5], dilation: [1, 1], {none}}}, indices: null}}\nout y"
        ),
        "y: f32[2, 3, 1, 1] = @adaptive_pool(x) {max: false, out: [1, 1]}\nout y",
        // MobileNet in torch: `x.mean(3).mean(2)`.
        "a: f32[2, 3, 4] = reduce(x) {axes: [3], keep: false, op: Mean}
        y: f32[2, 3] = reduce(a) {axes: [2], keep: false, op: Mean}
        out y",
        // torch: `x.flatten(2).mean(-1)`.
        "a: f32[2, 3, 20] = reshape(x) {shape: [2, 3, 20]}
        y: f32[2, 3] = reduce(a) {axes: [2], keep: false, op: Mean}
        out y",
        // Tokens of a vision transformer: `x.flatten(2).transpose(1, 2).mean(1)`.
        "a: f32[2, 3, 20] = reshape(x) {shape: [2, 3, 20]}
        t: f32[2, 20, 3] = transpose(a) {perm: [0, 2, 1]}
        y: f32[2, 3] = reduce(t) {axes: [1], keep: false, op: Mean}
        out y",
        // tf2onnx: channels last, axes kept.
        "t: f32[2, 4, 5, 3] = transpose(x) {perm: [0, 2, 3, 1]}
        y: f32[2, 1, 1, 3] = reduce(t) {axes: [1, 2], keep: true, op: Max}
        out y",
        // A sum over the count, or times one over it.
        "s: f32[2, 3] = reduce(x) {axes: [2, 3], keep: false, op: Sum}
        y: f32[2, 3] = div(s, 20)
        out y",
        "s: f32[2, 3, 1, 1] = reduce(x) {axes: [2, 3], keep: true, op: Sum}
        y: f32[2, 3, 1, 1] = mul(s, 0.05)
        out y",
    ] {
        out += &pooled(lines);
    }
    insta::assert_snapshot!(out);
}

#[test]
fn other_reductions_stay() {
    let mut out = String::new();
    for lines in [
        // Padding counts in the mean.
        &*format!(
            "in p: f32[2, 3, 2, 3]\ny: f32[2, 3, 1, 1] = @avg_pool(p) {{kernel: [4, 5], geo: {{{UNIT}, before: [1, 1], after: [1, 1]}}, count: valid}}\nout y"
        ),
        "in p: f32[2, 3, 4, 5]\ny: f32[2, 3, 1, 1] = @avg_pool(p) {kernel: [4, 5], geo: {stride: [4, 5], dilation: [1, 1], before: [0, 0], after: [1, 1]}, count: valid}\nout y",
        // Groups of channels with their pixels: no image's axes alone.
        "a: f32[2, 60] = reshape(x) {shape: [2, 60]}
        y: f32[2, 1] = reduce(a) {axes: [1], keep: true, op: Mean}
        out y",
        // What is reduced is used in its new shape too.
        "a: f32[2, 3, 20] = reshape(x) {shape: [2, 3, 20]}
        r: f32[2, 3, 1] = reduce(a) {axes: [2], keep: true, op: Max}
        y: f32[2, 3, 20] = sub(a, r)
        out y",
        "s: f32[2, 3] = reduce(x) {axes: [2, 3], keep: false, op: Sum}
        y: f32[2, 3] = div(s, 19)
        out y",
    ] {
        let after = raised(&named(&format!("{IMAGE}{lines}")), "");
        let (before, after) = after.split_once("\n==>\n").unwrap();
        assert!(after.starts_with(before), "{before}\n{after}");
        out += after;
    }
    insta::assert_snapshot!(out);
}
