//! Attention as exporters write it: each spelling before and after, with the same outputs by
//! reference evaluation, and what is rightly left alone.

mod common;

use common::{named, raised};

/// What stands between two lines of a spelling.
fn spelled(lines: &str) -> String {
    let after = raised(&named(lines), "attention");
    assert_eq!(after.split("==>").nth(1).unwrap().matches("@attention").count(), 1, "{after}");
    assert!(!after.contains("refused"), "{after}");
    after
}

const HEADS: &str = "in q: f32[2, 6, 8]\nin k: f32[2, 5, 8]\nin v: f32[2, 5, 8]\n";
const NN: &str = "{trans_a: false, trans_b: false}";
const NT: &str = "{trans_a: false, trans_b: true}";
const SOFT: &str = "{axis: 3, log: false}";

/// Queries, keys and values of two heads as q4, k4 and v4.
fn split() -> String {
    let one = |x: &str, n: i32| {
        format!(
            "{x}3: f32[2, {n}, 2, 4] = reshape({x}) {{shape: [2, {n}, 2, 4]}}
             {x}4: f32[2, 2, {n}, 4] = transpose({x}3) {{perm: [0, 2, 1, 3]}}\n"
        )
    };
    format!("{HEADS}{}{}{}", one("q", 6), one("k", 5), one("v", 5))
}

/// The result's heads joined again.
const JOIN: &str = "y3: f32[2, 6, 2, 4] = transpose(y4) {perm: [0, 2, 1, 3]}
    y: f32[2, 6, 8] = reshape(y3) {shape: [2, 6, 8]}
    out y";

#[test]
fn paddle_scales_queries_and_adds_a_mask() {
    insta::assert_snapshot!(spelled(&format!(
        "in mask: f32[2, 1, 1, 5]
        {}
        qs: f32[2, 2, 6, 4] = mul(q4, 0.5)
        s: f32[2, 2, 6, 5] = @matmul(qs, k4) {NT}
        m: f32[2, 2, 6, 5] = add(s, mask)
        p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        y4: f32[2, 2, 6, 4] = @matmul(p, v4) {NN}
        {JOIN}",
        split()
    )));
}

/// `matmul` with `alpha`, and the mask on the left.
#[test]
fn paddle_legacy_scales_scores() {
    insta::assert_snapshot!(spelled(&format!(
        "in mask: f32[2, 1, 1, 5]
        {}
        s: f32[2, 2, 6, 5] = @matmul(q4, k4) {NT}
        a: f32[2, 2, 6, 5] = mul(s, 0.3)
        m: f32[2, 2, 6, 5] = add(mask, a)
        p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        y4: f32[2, 2, 6, 4] = @matmul(p, v4) {NN}
        {JOIN}",
        split()
    )));
}

/// The keys' heads are split by one transpose to `[…, D, T]`; scores are divided; hidden ones filled.
#[test]
fn torchscript_divides_scores_and_fills_hidden_ones() {
    insta::assert_snapshot!(spelled(&format!(
        "in hide: bool[2, 1, 1, 5]
        {}
        kt: f32[2, 2, 4, 5] = transpose(k3) {{perm: [0, 2, 3, 1]}}
        s: f32[2, 2, 6, 5] = @matmul(q4, kt) {NN}
        d: f32[2, 2, 6, 5] = div(s, 1.7320508)
        m: f32[2, 2, 6, 5] = select(hide, -1e9, d)
        p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        y4: f32[2, 2, 6, 4] = @matmul(p, v4) {NN}
        {JOIN}",
        split()
    )));
}

/// Both operands by the root of the scale, a bool mask made a float one before, NaN made zero.
#[test]
fn dynamo_writes_scaled_dot_product_attention() {
    insta::assert_snapshot!(spelled(&format!(
        "in seen: bool[2, 1, 6, 5]
        {}
        bias: f32[2, 1, 6, 5] = select(seen, 0, -inf)
        qs: f32[2, 2, 6, 4] = mul(q4, 0.70710677)
        kt: f32[2, 2, 4, 5] = transpose(k4) {{perm: [0, 1, 3, 2]}}
        ks: f32[2, 2, 4, 5] = mul(kt, 0.70710677)
        s: f32[2, 2, 6, 5] = @matmul(qs, ks) {NN}
        m: f32[2, 2, 6, 5] = add(s, bias)
        p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        n: bool[2, 2, 6, 5] = is_nan(p)
        z: f32[2, 2, 6, 5] = select(n, 0, p)
        y4: f32[2, 2, 6, 4] = @matmul(z, v4) {NN}
        {JOIN}",
        split()
    )));
}

/// torch's MultiheadAttention and BART: batch and heads in one axis, split for the mask alone; the
/// queries are scaled before their heads are split.
#[test]
fn masks_among_split_heads() {
    insta::assert_snapshot!(spelled(&format!(
        "in mask: f32[2, 1, 6, 5]
        in x: f32[2, 6, 8]
        {HEADS}
        xs: f32[2, 6, 8] = mul(x, 0.5)
        x3: f32[2, 6, 2, 4] = reshape(xs) {{shape: [2, 6, 2, 4]}}
        x4: f32[2, 2, 6, 4] = transpose(x3) {{perm: [0, 2, 1, 3]}}
        xb: f32[4, 6, 4] = reshape(x4) {{shape: [4, 6, 4]}}
        kb: f32[4, 5, 4] = reshape(k) {{shape: [4, 5, 4]}}
        vb: f32[4, 5, 4] = reshape(v) {{shape: [4, 5, 4]}}
        kt: f32[4, 4, 5] = transpose(kb) {{perm: [0, 2, 1]}}
        s: f32[4, 6, 5] = @matmul(xb, kt) {NN}
        s4: f32[2, 2, 6, 5] = reshape(s) {{shape: [2, 2, 6, 5]}}
        m: f32[2, 2, 6, 5] = add(s4, mask)
        l: f32[2, 2, 6, 5] = max(m, -3.4e38)
        m3: f32[4, 6, 5] = reshape(l) {{shape: [4, 6, 5]}}
        p: f32[4, 6, 5] = @softmax(m3) {{axis: 2, log: false}}
        yb: f32[4, 6, 4] = @matmul(p, vb) {NN}
        out yb"
    )));
}

/// Swin: a bias for each head, then a mask for each window.
#[test]
fn a_bias_and_a_mask_of_windows() {
    insta::assert_snapshot!(spelled(&format!(
        "in q: f32[6, 2, 4, 3]
        in k: f32[6, 2, 4, 3]
        in v: f32[6, 2, 4, 3]
        in bias: f32[1, 2, 4, 4]
        in mask: f32[1, 3, 1, 4, 4]
        qs: f32[6, 2, 4, 3] = mul(q, 0.57735026)
        s: f32[6, 2, 4, 4] = @matmul(qs, k) {NT}
        b: f32[6, 2, 4, 4] = add(s, bias)
        w: f32[2, 3, 2, 4, 4] = reshape(b) {{shape: [2, 3, 2, 4, 4]}}
        m: f32[2, 3, 2, 4, 4] = add(w, mask)
        r: f32[6, 2, 4, 4] = reshape(m) {{shape: [6, 2, 4, 4]}}
        p: f32[6, 2, 4, 4] = @softmax(r) {SOFT}
        y: f32[6, 2, 4, 3] = @matmul(p, v) {NN}
        out y"
    )));
}

/// Keras and tf2onnx: einsums over `[B, S, N, H]`.
#[test]
fn keras_einsums() {
    insta::assert_snapshot!(spelled(
        "in q: f32[2, 6, 2, 4]
        in k: f32[2, 5, 2, 4]
        in v: f32[2, 5, 2, 4]
        in mask: bool[2, 1, 6, 5]
        qs: f32[2, 6, 2, 4] = mul(q, 0.5)
        s: f32[2, 2, 6, 5] = contract(k, qs) {a: [0, 4, 2, 3], b: [0, 1, 2, 3], out: [0, 2, 1, 4]}
        f: f32[2, 1, 6, 5] = cast(mask) {to: F32, saturate: true}
        i: f32[2, 1, 6, 5] = sub(1, f)
        b: f32[2, 1, 6, 5] = mul(i, -1e9)
        m: f32[2, 2, 6, 5] = add(s, b)
        p: f32[2, 2, 6, 5] = @softmax(m) {axis: 3, log: false}
        y: f32[2, 6, 2, 4] = contract(p, v) {a: [0, 2, 1, 4], b: [0, 4, 2, 3], out: [0, 1, 2, 3]}
        out y"
    ));
}

/// YOLO's attention over pixels: channels first, probabilities transposed for the second product.
#[test]
fn channels_before_pixels() {
    insta::assert_snapshot!(spelled(&format!(
        "in q: f32[2, 2, 3, 6]
        in k: f32[2, 2, 3, 6]
        in v: f32[2, 2, 5, 6]
        qt: f32[2, 2, 6, 3] = transpose(q) {{perm: [0, 1, 3, 2]}}
        s: f32[2, 2, 6, 6] = @matmul(qt, k) {NN}
        a: f32[2, 2, 6, 6] = mul(s, 0.57735026)
        p: f32[2, 2, 6, 6] = @softmax(a) {SOFT}
        pt: f32[2, 2, 6, 6] = transpose(p) {{perm: [0, 1, 3, 2]}}
        y: f32[2, 2, 5, 6] = @matmul(v, pt) {NN}
        out y"
    )));
}

/// Gemma caps scores; Conformer hides probabilities as it hid scores; XLNet subtracts.
#[test]
fn capped_scores_and_hidden_probabilities() {
    let mut out = spelled(&format!(
        "in mask: f32[6, 5]
        {}
        s: f32[2, 2, 6, 5] = @matmul(q4, k4) {NT}
        a: f32[2, 2, 6, 5] = mul(s, 0.5)
        d: f32[2, 2, 6, 5] = div(a, 50)
        t: f32[2, 2, 6, 5] = tanh(d)
        c: f32[2, 2, 6, 5] = mul(t, 50)
        m: f32[2, 2, 6, 5] = sub(c, mask)
        p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        y4: f32[2, 2, 6, 4] = @matmul(p, v4) {NN}
        {JOIN}",
        split()
    ));
    out += &spelled(&format!(
        "in seen: bool[2, 1, 1, 5]
        {}
        s: f32[2, 2, 6, 5] = @matmul(q4, k4) {NT}
        m: f32[2, 2, 6, 5] = select(seen, s, -inf)
        a: f32[2, 2, 6, 5] = mul(m, 0.5)
        p: f32[2, 2, 6, 5] = @softmax(a) {SOFT}
        z: f32[2, 2, 6, 5] = select(seen, p, 0)
        y4: f32[2, 2, 6, 4] = @matmul(z, v4) {NN}
        {JOIN}",
        split()
    ));
    insta::assert_snapshot!(out);
}

/// ONNX's Attention with several heads of queries for one of keys: these stay shared.
#[test]
fn grouped_queries_with_a_mask() {
    insta::assert_snapshot!(spelled(&format!(
        "in q: f32[2, 4, 6, 3]
        in k: f32[2, 2, 5, 3]
        in v: f32[2, 2, 5, 3]
        in mask: f32[4, 6, 5]
        q5: f32[2, 2, 2, 6, 3] = reshape(q) {{shape: [2, 2, 2, 6, 3]}}
        k5: f32[2, 2, 1, 5, 3] = reshape(k) {{shape: [2, 2, 1, 5, 3]}}
        v5: f32[2, 2, 1, 5, 3] = reshape(v) {{shape: [2, 2, 1, 5, 3]}}
        s5: f32[2, 2, 2, 6, 5] = @matmul(q5, k5) {NT}
        s: f32[2, 4, 6, 5] = reshape(s5) {{shape: [2, 4, 6, 5]}}
        a: f32[2, 4, 6, 5] = mul(s, 0.57735026)
        m: f32[2, 4, 6, 5] = add(a, mask)
        p: f32[2, 4, 6, 5] = @softmax(m) {SOFT}
        p5: f32[2, 2, 2, 6, 5] = reshape(p) {{shape: [2, 2, 2, 6, 5]}}
        y5: f32[2, 2, 2, 6, 3] = @matmul(p5, v5) {NN}
        y: f32[2, 4, 6, 3] = reshape(y5) {{shape: [2, 4, 6, 3]}}
        out y"
    )));
}

#[test]
fn what_is_no_attention_stays() {
    let refused = |lines: &str| {
        let out = raised(&named(lines), "attention");
        assert!(!out.contains("@attention"), "{out}");
        out.split_once("==>").unwrap().1.trim_start().to_string()
    };
    let scores = format!("{}s: f32[2, 2, 6, 5] = @matmul(q4, k4) {NT}\n", split());
    let rest = format!(
        "p: f32[2, 2, 6, 5] = @softmax(m) {SOFT}
        y4: f32[2, 2, 6, 4] = @matmul(p, v4) {NN}\n{JOIN}"
    );
    let mut out = String::new();
    // The probabilities are an output of the model.
    out += &refused(&format!("{scores}m: f32[2, 2, 6, 5] = mul(s, 0.5)\n{rest} p"));
    // A temperature for each head.
    out += &refused(&format!("in t: f32[2, 1, 1]\n{scores}m: f32[2, 2, 6, 5] = mul(s, t)\n{rest}"));
    // The softmax is over queries.
    out += &refused(
        &format!("{scores}m: f32[2, 2, 6, 5] = mul(s, 0.5)\n{rest}").replace("axis: 3", "axis: 2"),
    );
    // The mask would have to be scaled each time.
    out += &refused(&format!(
        "in t: f32[6, 5]\n{scores}a: f32[2, 2, 6, 5] = add(s, t)
        m: f32[2, 2, 6, 5] = mul(a, 0.5)\n{rest}"
    ));
    // Weights of a pooling: no queries meet keys.
    out += &refused(&format!("{}in m: f32[2, 2, 6, 5]\n{rest}", split()));
    insta::assert_snapshot!(out);
}
