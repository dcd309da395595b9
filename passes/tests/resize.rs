//! Interpolation as exporters write it without Resize: each spelling before and after, with the same
//! outputs by reference evaluation, and what is rightly left alone.

mod common;

use common::{named, raised};

/// Every spelling ends in one resize.
fn resized(lines: &str) -> String {
    let after = raised(&named(lines), "resize");
    let (_, end) = after.split_once("==>").unwrap();
    assert_eq!(end.matches("@resize(").count(), 1, "{after}");
    assert_eq!(end.matches(" = ").count(), 1 + end.matches(" = const").count(), "{after}");
    after
}

fn list<T: ToString>(xs: &[T]) -> String {
    xs.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[test]
fn nearest_in_every_spelling() {
    let mut out = String::new();
    for lines in [
        // torch: `x[:, :, :, None, :, None].expand(…).reshape(…)`, as Darknet's ports write it.
        "in x: f32[1, 2, 3, 4]
        a: f32[1, 2, 3, 1, 4, 1] = reshape(x) {shape: [1, 2, 3, 1, 4, 1]}
        b: f32[1, 2, 3, 2, 4, 2] = broadcast(a) {shape: [1, 2, 3, 2, 4, 2]}
        y: f32[1, 2, 6, 8] = reshape(b) {shape: [1, 2, 6, 8]}
        out y",
        // Tile of axes of 1, which itself is a broadcast.
        "in x: f32[1, 2, 3, 4]
        a: f32[1, 2, 3, 1, 4, 1] = reshape(x) {shape: [1, 2, 3, 1, 4, 1]}
        t: f32[1, 2, 3, 1, 1, 4, 1, 1] = reshape(a) {shape: [1, 2, 3, 1, 1, 4, 1, 1]}
        b: f32[1, 2, 3, 3, 1, 4, 2, 1] = broadcast(t) {shape: [1, 2, 3, 3, 1, 4, 2, 1]}
        c: f32[1, 2, 3, 3, 4, 2] = reshape(b) {shape: [1, 2, 3, 3, 4, 2]}
        y: f32[1, 2, 9, 8] = reshape(c) {shape: [1, 2, 9, 8]}
        out y",
        // repeat_interleave, one axis after the other.
        "in x: f32[1, 2, 3, 4]
        a: f32[1, 2, 3, 1, 4] = reshape(x) {shape: [1, 2, 3, 1, 4]}
        b: f32[1, 2, 3, 2, 4] = broadcast(a) {shape: [1, 2, 3, 2, 4]}
        c: f32[1, 2, 6, 4] = reshape(b) {shape: [1, 2, 6, 4]}
        d: f32[1, 2, 6, 4, 1] = reshape(c) {shape: [1, 2, 6, 4, 1]}
        e: f32[1, 2, 6, 4, 2] = broadcast(d) {shape: [1, 2, 6, 4, 2]}
        y: f32[1, 2, 6, 8] = reshape(e) {shape: [1, 2, 6, 8]}
        out y",
        // Indices computed while exporting.
        "in x: f32[1, 2, 3, 4]
        i: i64[6] = const [0, 0, 1, 1, 2, 2]
        j: i64[8] = const [0, 0, 1, 1, 2, 2, 3, 3]
        a: f32[1, 2, 6, 4] = gather(x, i) {axis: 2}
        y: f32[1, 2, 6, 8] = gather(a, j) {axis: 3}
        out y",
        // A transposed convolution with a kernel of ones, as wide as its stride.
        "in x: f32[1, 2, 3, 4]
        w: f32[2, 1, 2, 2] = const all 1
        y: f32[1, 2, 6, 8] = @conv_transpose(x, w) {geo: {stride: [2, 2], dilation: [1, 1], before: [0, 0], after: [0, 0]}, groups: 2}
        out y",
    ] {
        out += &resized(lines);
    }
    insta::assert_snapshot!(out);
}

/// Sizes that are not known are multiples still.
#[test]
fn nearest_of_unknown_sizes() {
    let text = "sym h 1..64
graph(%0: f32[1, 2, h, 4] \"x\") {
  %1: f32[1, 2, h, 1, 4, 1] = reshape(%0) {shape: [1, 2, h, 1, 4, 1]}
  %2: f32[1, 2, h, 2, 4, 2] = broadcast(%1) {shape: [1, 2, h, 2, 4, 2]}
  %3: f32[1, 2, 2*h, 8] = reshape(%2) {shape: [1, 2, 2*h, 8]}
  return %3 \"y\"
}";
    insta::assert_snapshot!(raised(text, "resize"));
}

/// Taps of a bilinear resize from `n` to `m` elements, by half-pixel coordinates.
fn taps(n: usize, m: usize) -> Vec<(usize, usize, f32)> {
    let one = |o: usize| {
        let x = (o as f32 + 0.5) / (m as f32 / n as f32) - 0.5;
        let low = x.floor();
        let at = |i: f32| i.clamp(0.0, n as f32 - 1.0) as usize;
        (at(low), at(low + 1.0), x - low)
    };
    (0..m).map(one).collect()
}

fn bilinear_kernel(k: usize) -> Vec<f32> {
    let s = k.div_ceil(2) as f32;
    let centre = if k % 2 == 1 { s - 1.0 } else { s - 0.5 };
    let w = |i: usize| 1.0 - (i as f32 - centre).abs() / s;
    (0..k * k).map(|n| w(n / k) * w(n % k)).collect()
}

#[test]
fn bilinear_in_every_spelling() {
    let (rows, columns) = (taps(3, 6), taps(4, 7));
    let low = |t: &[(usize, usize, f32)]| list(&t.iter().map(|t| t.0).collect::<Vec<_>>());
    let high = |t: &[(usize, usize, f32)]| list(&t.iter().map(|t| t.1).collect::<Vec<_>>());
    let part = |t: &[(usize, usize, f32)]| list(&t.iter().map(|t| t.2).collect::<Vec<_>>());
    let rest = |t: &[(usize, usize, f32)]| list(&t.iter().map(|t| 1.0 - t.2).collect::<Vec<_>>());
    let mut out = String::new();
    // Gathers and weights; then gathers and a step from one to the other.
    out += &resized(&format!(
        "in x: f32[1, 2, 3, 4]
        i: i64[6] = const [{}]
        j: i64[6] = const [{}]
        u: f32[6, 1] = const [{}]
        w: f32[6, 1] = const [{}]
        a: f32[1, 2, 6, 4] = gather(x, i) {{axis: 2}}
        b: f32[1, 2, 6, 4] = gather(x, j) {{axis: 2}}
        c: f32[1, 2, 6, 4] = mul(a, u)
        d: f32[1, 2, 6, 4] = mul(b, w)
        e: f32[1, 2, 6, 4] = add(c, d)
        k: i64[7] = const [{}]
        l: i64[7] = const [{}]
        v: f32[7] = const [{}]
        f: f32[1, 2, 6, 7] = gather(e, k) {{axis: 3}}
        g: f32[1, 2, 6, 7] = gather(e, l) {{axis: 3}}
        h: f32[1, 2, 6, 7] = sub(g, f)
        s: f32[1, 2, 6, 7] = mul(h, v)
        y: f32[1, 2, 6, 7] = add(f, s)
        out y",
        low(&rows),
        high(&rows),
        rest(&rows),
        part(&rows),
        low(&columns),
        high(&columns),
        part(&columns),
    ));
    // Products with weights of both axes, as JAX resizes.
    let matrix = |t: &[(usize, usize, f32)], n: usize, by_row: bool| {
        let at = |o: usize, i: usize| {
            let (a, b, w) = t[o];
            f32::from(u8::from(a == i)) * (1.0 - w) + f32::from(u8::from(b == i)) * w
        };
        let m = t.len();
        let all = (0..n * m).map(|k| if by_row { at(k / n, k % n) } else { at(k % m, k / m) });
        list(&all.collect::<Vec<_>>())
    };
    out += &resized(&format!(
        "in x: f32[1, 2, 3, 4]
        a: f32[6, 3] = const [{}]
        b: f32[4, 7] = const [{}]
        t: f32[1, 2, 6, 4] = @matmul(a, x) {{trans_a: false, trans_b: false}}
        y: f32[1, 2, 6, 7] = @matmul(t, b) {{trans_a: false, trans_b: false}}
        out y",
        matrix(&rows, 3, true),
        matrix(&columns, 4, false),
    ));
    // A transposed convolution with the bilinear kernel, the edge repeated before and cropped after.
    out += &resized(&format!(
        "in x: f32[1, 2, 3, 4]
        z: f32[] = const 0
        w: f32[2, 1, 4, 4] = const [{0}, {0}]
        p: f32[1, 2, 5, 6] = pad(x, z) {{before: [0, 0, 1, 1], after: [0, 0, 1, 1], mode: Edge}}
        y: f32[1, 2, 6, 8] = @conv_transpose(p, w) {{geo: {{stride: [2, 2], dilation: [1, 1], before: [3, 3], after: [3, 3]}}, groups: 2}}
        out y",
        list(&bilinear_kernel(4)),
    ));
    insta::assert_snapshot!(out);
}

#[test]
fn what_differs_from_a_resize_stays() {
    let refused = |lines: &str| {
        let after = raised(&named(lines), "resize");
        let (before, after) = after.split_once("\n==>\n").unwrap();
        assert!(after.starts_with(before) && !after.contains("@resize("), "{before}\n{after}");
        after.to_string()
    };
    let mut out = String::new();
    // FCN's upsampling: zeros beyond the border darken it.
    let kernel = list(&bilinear_kernel(4));
    let fcn = |w: &str| {
        format!(
            "in x: f32[1, 2, 8, 8]
            w: f32[2, 1, 4, 4] = const [{w}]
            y: f32[1, 2, 16, 16] = @conv_transpose(x, w) {{geo: {{stride: [2, 2], dilation: [1, 1], before: [1, 1], after: [1, 1]}}, groups: 2}}
            out y"
        )
    };
    out += &refused(&fcn(&format!("{kernel}, {kernel}")));
    // Learned weights.
    let learned = list(&(0..32).map(|i| (i * 7 % 11) as f32 / 8.0).collect::<Vec<_>>());
    out += &refused(&fcn(&learned));
    // The image twice beside itself.
    out += &refused(
        "in x: f32[1, 2, 3, 4]
        a: f32[1, 2, 1, 3, 4] = reshape(x) {shape: [1, 2, 1, 3, 4]}
        b: f32[1, 2, 2, 3, 4] = broadcast(a) {shape: [1, 2, 2, 3, 4]}
        y: f32[1, 2, 6, 4] = reshape(b) {shape: [1, 2, 6, 4]}
        out y",
    );
    // Heads of keys repeated for groups of queries.
    out += &refused(
        "in x: f32[1, 2, 3, 4]
        a: f32[1, 2, 1, 3, 4] = reshape(x) {shape: [1, 2, 1, 3, 4]}
        b: f32[1, 2, 2, 3, 4] = broadcast(a) {shape: [1, 2, 2, 3, 4]}
        y: f32[1, 4, 3, 4] = reshape(b) {shape: [1, 4, 3, 4]}
        out y",
    );
    // Weights that are no interpolation's.
    out += &refused(
        "in x: f32[1, 2, 3, 2]
        i: i64[4] = const [0, 1, 1, 0]
        j: i64[4] = const [0, 1, 0, 1]
        u: f32[4] = const [0.5, 0.25, 0.5, 0.5]
        w: f32[4] = const [0.5, 0.5, 0.5, 0.5]
        a: f32[1, 2, 3, 4] = gather(x, i) {axis: 3}
        b: f32[1, 2, 3, 4] = gather(x, j) {axis: 3}
        c: f32[1, 2, 3, 4] = mul(a, u)
        d: f32[1, 2, 3, 4] = mul(b, w)
        y: f32[1, 2, 3, 4] = add(c, d)
        out y",
    );
    insta::assert_snapshot!(out);
}
