//! How fast the primitives run here: `cargo run --release -p hub-portable --example speed`.

use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, Geometry, Prim, ReduceOp, UnaryOp};
use hub_portable::{Limits, Tensor, fold};
use std::time::Instant;

fn tensor(dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>();
    Tensor::new(dims, (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect()).expect("counts match")
}

/// Prints the best of a few runs, in `unit` per second where `work` says how many there are.
fn time(name: &str, work: f64, unit: &str, prim: &Prim, inputs: &[Tensor]) {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        fold(prim, inputs, &Limits::default()).expect("the primitive runs");
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:28} {:9.3} ms {:8.2} {unit}/s", best * 1e3, work / best * 1e-9);
}

fn conv(name: &str, [c, m, hw, k, stride, groups]: [usize; 6]) {
    let pad = Dim::from((k / 2) as i64);
    let geo = Geometry {
        stride: vec![stride as i64; 2],
        dilation: vec![1; 2],
        before: vec![pad.clone(); 2],
        after: vec![pad; 2],
    };
    let (x, w) = (tensor(&[1, c, hw, hw]), tensor(&[m, c / groups, k, k]));
    let out = hw.div_ceil(stride);
    let work = 2.0 * (out * out * m * (c / groups) * k * k) as f64;
    time(name, work, "GFLOP", &Prim::Conv { geo, groups: groups as i64 }, &[x, w]);
}

fn main() {
    conv("conv 7x7 s2 3->64 @224", [3, 64, 224, 7, 2, 1]);
    conv("conv 3x3 64->64 @56", [64, 64, 56, 3, 1, 1]);
    conv("conv 1x1 256->64 @56", [256, 64, 56, 1, 1, 1]);
    conv("conv 3x3 512->512 @7", [512, 512, 7, 3, 1, 1]);
    conv("depthwise 3x3 96 @112", [96, 96, 112, 3, 1, 96]);
    conv("depthwise 5x5 s2 672 @14", [672, 672, 14, 5, 2, 672]);
    let labels = |a: &[u8], b: &[u8], out: &[u8]| Prim::Contract {
        a: a.to_vec(),
        b: b.to_vec(),
        out: out.to_vec(),
    };
    let mm = labels(&[0, 1], &[1, 2], &[0, 2]);
    time(
        "matmul 128x768x3072",
        2.0 * 128.0 * 768.0 * 3072.0,
        "GFLOP",
        &mm,
        &[tensor(&[128, 768]), tensor(&[768, 3072])],
    );
    let nt = labels(&[0, 1], &[2, 1], &[0, 2]);
    time(
        "matmul nt 1x2048x1000",
        2.0 * 2048.0 * 1000.0,
        "GFLOP",
        &nt,
        &[tensor(&[1, 2048]), tensor(&[1000, 2048])],
    );
    let heads = labels(&[0, 1, 2, 3], &[0, 1, 4, 3], &[0, 1, 2, 4]);
    let q = tensor(&[1, 12, 128, 64]);
    time("attention scores", 2.0 * 12.0 * 128.0 * 128.0 * 64.0, "GFLOP", &heads, &[q.clone(), q]);
    let x = tensor(&[64, 112, 112]);
    let n = x.count() as f64;
    time("add same", n, "Gelem", &Prim::Binary(BinaryOp::Add), &[x.clone(), x.clone()]);
    time(
        "add channel",
        n,
        "Gelem",
        &Prim::Binary(BinaryOp::Add),
        &[x.clone(), tensor(&[64, 1, 1])],
    );
    time("erf", n, "Gelem", &Prim::Unary(UnaryOp::Erf), std::slice::from_ref(&x));
    time("exp", n, "Gelem", &Prim::Unary(UnaryOp::Exp), std::slice::from_ref(&x));
    time("tanh", n, "Gelem", &Prim::Unary(UnaryOp::Tanh), std::slice::from_ref(&x));
    let sum = |axes: &[u32]| Prim::Reduce { op: ReduceOp::Sum, axes: axes.to_vec(), keep: true };
    time("sum last", n, "Gelem", &sum(&[2]), std::slice::from_ref(&x));
    time("sum first", n, "Gelem", &sum(&[0]), std::slice::from_ref(&x));
    time(
        "transpose",
        n,
        "Gelem",
        &Prim::Transpose { perm: vec![2, 1, 0] },
        std::slice::from_ref(&x),
    );
    let pool = Prim::Window {
        op: ReduceOp::Max,
        kernel: vec![3, 3],
        geo: Geometry { stride: vec![2; 2], ..Geometry::unit(2) },
    };
    time(
        "max pool 3x3 s2",
        n,
        "Gelem",
        &pool,
        &[x.reshaped(&[1, 64, 112, 112]).expect("same count")],
    );
    time(
        "batch matmul",
        0.0,
        "-",
        &labels(&[0, 1], &[1], &[0]),
        &[tensor(&[1000, 1000]), tensor(&[1000])],
    );
}
