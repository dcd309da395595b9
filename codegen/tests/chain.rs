//! A convolution and the depthwise one that reads it, as one kernel, against their portable meaning.

mod placed;

use hub_abi::prim::{BinaryOp, Geometry, Prim, UnaryOp};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, SymEnv};
use hub_codegen::lower::conv;
use hub_codegen::target::{Target, Tier};
use hub_ir::build::Builder;
use hub_ir::{Graph, Value};
use placed::{Group, Input, Layout, pick, random};

/// A convolution's filter (side), stride and padding on every side.
type Window = (usize, i64, i64);

/// What is joined: `[n, c, h, w]`, channels between, the two windows, what follows each.
#[derive(Clone, Copy, Debug)]
struct Case {
    x: [usize; 4],
    features: usize,
    first: Window,
    second: Window,
    silu: [bool; 2],
    residual: bool,
}

fn prim((_, stride, pad): Window, groups: usize) -> Prim {
    let pads = || vec![Dim::from(pad); 2];
    let geo =
        Geometry { stride: vec![stride; 2], dilation: vec![1; 2], before: pads(), after: pads() };
    Prim::Conv { geo, groups: groups as i64 }
}

/// An image channel-last with rows of lines, padded for the window that reads it.
fn image(channels: usize, (side, _, pad): Window) -> Layout {
    let mut l = Layout::unit(4, 1);
    l.slack = (16 - channels as i64 % 16) % 16;
    l.halo = (side > 1 && pad > 0).then_some((pad, 0.0));
    l
}

fn case(seed: &mut u64, c: Case) -> Group {
    let mut g = Graph::new();
    let region = g.new_region();
    let (mut inputs, mut params) = (vec![], vec![]);
    let mut operand = |g: &mut Graph, dims: &[usize], constant: bool, layout: Layout| -> Value {
        let ty = TensorType { dtype: Dtype::F32, dims: dims.iter().map(|&d| d.into()).collect() };
        params.push(g.add_param(region, Type::Tensor(ty)));
        inputs.push(Input { tensor: random(seed, dims), constant, layout });
        params[params.len() - 1]
    };
    let m = c.features;
    let (a, b) = (c.first.0, c.second.0);
    let x = operand(&mut g, &c.x, false, image(c.x[1], c.first));
    let w = operand(&mut g, &[m, c.x[1], a, a], true, Layout::dense(4));
    let bias = operand(&mut g, &[m, 1, 1], true, Layout::dense(3));
    let dw = operand(&mut g, &[m, 1, b, b], true, Layout::dense(4));
    let db = operand(&mut g, &[m, 1, 1], true, Layout::dense(3));
    let size =
        |n: usize, (side, stride, pad): Window| (n + 2 * pad as usize - side) / stride as usize + 1;
    let mid = [c.x[2], c.x[3]].map(|n| size(n, c.first));
    let out = mid.map(|n| size(n, c.second));
    let dims = [c.x[0], m, out[0], out[1]];
    let other = c.residual.then(|| operand(&mut g, &dims, false, image(m, (1, 1, 0))));
    let mut build = Builder::new(&mut g, "t");
    let mut v = x;
    for (i, (p, w, bias)) in
        [(prim(c.first, 1), w, bias), (prim(c.second, m), dw, db)].into_iter().enumerate()
    {
        v = build.prim(p, &[v, w]).unwrap();
        v = build.add(v, bias).unwrap();
        if c.silu[i] {
            let s = build.un(UnaryOp::Sigmoid, v).unwrap();
            v = build.mul(v, s).unwrap();
        } else {
            v = build.bin_scalar(BinaryOp::Max, v, 0.0).unwrap();
        }
    }
    if let Some(o) = other {
        v = build.add(v, o).unwrap();
    }
    build.into_region(region);
    g.regions[region].results.push(v);
    let mut layout = Layout::unit(4, 1);
    layout.slack = if pick(seed, 2) == 0 { 0 } else { 13 };
    let env = SymEnv::new(0);
    Group { g, region, inputs, outputs: vec![layout], fill: 0.0, env, poison: true }
}

fn check(c: Case) {
    let mut seed = 7;
    for tier in [Tier::Avx512, Tier::Avx2] {
        for choice in [0, 2, 5] {
            let t = Target { choice, ..Target::of(tier) };
            let how = case(&mut seed, c).check(&t, conv::lower);
            assert!(how.starts_with("chain"), "{how}");
        }
    }
}

const SAME: Window = (3, 1, 1);

#[test]
fn expansions_before_windows() {
    let plain = Case {
        x: [1, 8, 7, 7],
        features: 40,
        first: (1, 1, 0),
        second: SAME,
        silu: [false; 2],
        residual: false,
    };
    check(plain);
    check(Case { x: [2, 5, 9, 20], features: 33, second: (5, 2, 2), silu: [true, false], ..plain });
    check(Case { x: [1, 12, 14, 15], features: 96, silu: [true; 2], residual: true, ..plain });
    check(Case { x: [1, 3, 30, 6], features: 12, second: (3, 2, 0), silu: [false, true], ..plain });
}

#[test]
fn a_stem_before_windows() {
    let stem = Case {
        x: [1, 3, 21, 35],
        features: 16,
        first: (3, 2, 1),
        second: SAME,
        silu: [true; 2],
        residual: false,
    };
    check(stem);
    check(Case { x: [2, 4, 10, 11], features: 50, second: (5, 1, 2), ..stem });
}

#[test]
fn blocks_of_rows_meet() {
    let tall = Case {
        x: [1, 4, 90, 40],
        features: 16,
        first: (1, 1, 0),
        second: SAME,
        silu: [false; 2],
        residual: false,
    };
    check(tall);
    check(Case { second: (5, 2, 2), x: [1, 4, 83, 40], ..tall });
}
