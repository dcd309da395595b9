//! Recurrent layers against plain loops in f64.

use hub_abi::Dtype;
use hub_ir::ops::rnn::{Gru, Lstm, Rnn, RnnAct};
use hub_ir::portable::to_portable;
use hub_ir::{Builder, Graph, Source, Type, Value};
use hub_portable::{BytesStore, Limits, Tensor};
use std::sync::Arc;

const T: usize = 4;
const B: usize = 2;
const I: usize = 3;
const H: usize = 2;

/// Reproducible numbers in -1..1.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((s >> 33) as f64 / (1u64 << 30) as f64) - 1.0
    };
    (0..n).map(|_| f64::from(next() as f32)).collect()
}

fn tensor(dims: &[usize], xs: &[f64]) -> Tensor {
    Tensor::new(dims, xs.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap()
}

/// Runs one operator on operands, `None` where one is left out.
fn run(op: impl Into<Source>, ins: Vec<Option<Tensor>>) -> Vec<Vec<f64>> {
    let mut g = Graph::new();
    let mut values = vec![];
    let mut feeds: Vec<hub_portable::Value> = vec![];
    for (i, t) in ins.into_iter().enumerate() {
        let Some(t) = t else {
            values.push(Value::NONE);
            continue;
        };
        let dims = t.dims().iter().map(|&d| d.into()).collect();
        values.push(g.add_input(&format!("x{i}"), Type::tensor(t.dtype(), dims)));
        feeds.push(t.into());
    }
    let root = g.root();
    let mut b = Builder::new(&mut g, "rnn");
    let outs = b.source_n(op, &values).unwrap();
    b.into_region(root);
    for (i, &v) in outs.iter().enumerate() {
        g.add_output(&format!("y{i}"), v);
    }
    let (p, store) = to_portable(&g).unwrap();
    let mut bytes = vec![0; store.len as usize];
    for (at, piece) in &store.pieces {
        bytes[*at as usize..*at as usize + piece.len()].copy_from_slice(piece);
    }
    let store = BytesStore::new(Arc::new(bytes));
    let outs = hub_portable::run(&p, &store, &feeds, &Limits::default()).unwrap();
    let list = |v: &hub_portable::Value| -> Vec<f64> {
        v.tensor().unwrap().view::<f32>().unwrap().iter().map(|&x| x.into()).collect()
    };
    outs.iter().map(list).collect()
}

fn close(have: &[f64], want: &[f64], what: &str) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (h, w) in have.iter().zip(want) {
        assert!((h - w).abs() < 1e-5, "{what}: {have:?} where {want:?} is right");
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Row `i` of a matrix with `n` columns, times a vector.
fn dot(m: &[f64], i: usize, v: &[f64]) -> f64 {
    m[i * v.len()..(i + 1) * v.len()].iter().zip(v).map(|(a, b)| a * b).sum()
}

/// Steps of one sequence in the order of a direction.
fn steps(len: usize, reverse: bool) -> Vec<usize> {
    if reverse { (0..len).rev().collect() } else { (0..len).collect() }
}

/// Runs `step(xt, state) -> state` over each sequence; gives outputs and last states, with zeros
/// past the end.
fn loops<const S: usize>(
    x: &[f64],
    init: [&[f64]; S],
    lengths: &[usize],
    reverse: bool,
    step: impl Fn(&[f64], [Vec<f64>; S]) -> [Vec<f64>; S],
) -> Vec<Vec<f64>> {
    let mut y = vec![0.0; T * B * H];
    let mut last = vec![vec![0.0; B * H]; S];
    for b in 0..B {
        let mut state: [Vec<f64>; S] =
            std::array::from_fn(|s| init[s][b * H..(b + 1) * H].to_vec());
        for t in steps(lengths[b], reverse) {
            state = step(&x[(t * B + b) * I..(t * B + b + 1) * I], state);
            y[(t * B + b) * H..(t * B + b + 1) * H].copy_from_slice(&state[0]);
        }
        for s in 0..S {
            last[s][b * H..(b + 1) * H].copy_from_slice(&state[s]);
        }
    }
    std::iter::once(y).chain(last).collect()
}

fn lengths_tensor(lengths: [usize; B]) -> Tensor {
    Tensor::new(&[B], lengths.map(|l| l as i32).to_vec()).unwrap()
}

#[test]
fn lstm() {
    let (x, w, r) = (numbers(T * B * I, 1), numbers(4 * H * I, 2), numbers(4 * H * H, 3));
    let (bias, h0, c0, peep) =
        (numbers(4 * H, 4), numbers(B * H, 5), numbers(B * H, 6), numbers(3 * H, 7));
    // ONNX's order and torch's, both directions, with and without what is optional.
    for (gates, reverse, full) in
        [([0, 2, 3, 1], false, true), ([0, 1, 2, 3], true, true), ([0, 1, 2, 3], false, false)]
    {
        let lengths = if full { [3, 1] } else { [T, T] };
        let (bias, peep) =
            if full { (bias.clone(), peep.clone()) } else { (vec![0.0; 4 * H], vec![0.0; 3 * H]) };
        let zeros = vec![0.0; B * H];
        let (h0, c0) = if full { (&h0, &c0) } else { (&zeros, &zeros) };
        let want = loops(&x, [h0, c0], &lengths, reverse, |xt, [h, c]| {
            let pre = |g: usize, j: usize| {
                let row = gates[g] * H + j;
                dot(&w, row, xt) + dot(&r, row, &h) + bias[row]
            };
            let (mut h2, mut c2) = (vec![0.0; H], vec![0.0; H]);
            for j in 0..H {
                let i = sigmoid(pre(0, j) + peep[j] * c[j]);
                let f = sigmoid(pre(1, j) + peep[2 * H + j] * c[j]);
                c2[j] = f * c[j] + i * pre(2, j).tanh();
                let o = sigmoid(pre(3, j) + peep[H + j] * c2[j]);
                h2[j] = o * c2[j].tanh();
            }
            [h2, c2]
        });
        let acts = [RnnAct::Sigmoid, RnnAct::Tanh, RnnAct::Tanh];
        let op = Lstm { reverse, gates, acts, clip: None, couple: false };
        let mut ins = vec![
            Some(tensor(&[T, B, I], &x)),
            Some(tensor(&[4 * H, I], &w)),
            Some(tensor(&[4 * H, H], &r)),
        ];
        if full {
            ins.extend([
                Some(tensor(&[4 * H], &bias)),
                Some(tensor(&[B, H], h0)),
                Some(tensor(&[B, H], c0)),
                Some(lengths_tensor(lengths)),
                Some(tensor(&[3 * H], &peep)),
            ]);
        }
        let got = run(op, ins);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            close(g, w, &format!("lstm {gates:?} reverse {reverse} full {full} output {i}"));
        }
        assert_eq!(got.len(), 3);
    }
}

#[test]
fn gru() {
    let (x, w, r) = (numbers(T * B * I, 11), numbers(3 * H * I, 12), numbers(3 * H * H, 13));
    let (wb, rb, h0) = (numbers(3 * H, 14), numbers(3 * H, 15), numbers(B * H, 16));
    for (gates, reset_after, reverse) in [
        ([0, 1, 2], false, false),
        ([0, 1, 2], true, true),
        ([1, 0, 2], true, false),
        ([1, 0, 2], false, true),
    ] {
        let lengths = [2, 4];
        let want = loops(&x, [&h0], &lengths, reverse, |xt, [h]| {
            let row = |g: usize, j: usize| gates[g] * H + j;
            let own = |g: usize, j: usize| dot(&w, row(g, j), xt) + wb[row(g, j)];
            let rec = |g: usize, j: usize, h: &[f64]| dot(&r, row(g, j), h) + rb[row(g, j)];
            let reset: Vec<f64> = (0..H).map(|j| sigmoid(own(1, j) + rec(1, j, &h))).collect();
            let rh: Vec<f64> = reset.iter().zip(&h).map(|(a, b)| a * b).collect();
            let next = |j: usize| {
                let z = sigmoid(own(0, j) + rec(0, j, &h));
                let state = if reset_after { reset[j] * rec(2, j, &h) } else { rec(2, j, &rh) };
                (1.0 - z) * (own(2, j) + state).tanh() + z * h[j]
            };
            [(0..H).map(next).collect()]
        });
        let acts = [RnnAct::Sigmoid, RnnAct::Tanh];
        let op = Gru { reverse, gates, reset_after, acts, clip: None };
        let got = run(
            op,
            vec![
                Some(tensor(&[T, B, I], &x)),
                Some(tensor(&[3 * H, I], &w)),
                Some(tensor(&[3 * H, H], &r)),
                Some(tensor(&[3 * H], &wb)),
                Some(tensor(&[3 * H], &rb)),
                Some(tensor(&[B, H], &h0)),
                Some(lengths_tensor(lengths)),
            ],
        );
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            close(g, w, &format!("gru {gates:?} after {reset_after} reverse {reverse} output {i}"));
        }
    }
}

/// What a function of a layer computes.
type Function = fn(f64) -> f64;

#[test]
fn simple_layer_with_its_functions() {
    let (x, w, r) = (numbers(T * B * I, 21), numbers(H * I, 22), numbers(H * H, 23));
    let bias = numbers(H, 24);
    let zeros = vec![0.0; B * H];
    let kinds: [(RnnAct, Function); 11] = [
        (RnnAct::Tanh, f64::tanh),
        (RnnAct::Sigmoid, sigmoid),
        (RnnAct::Relu, |x| x.max(0.0)),
        (RnnAct::Affine { alpha: 0.5, beta: 0.25 }, |x| 0.5 * x + 0.25),
        (RnnAct::LeakyRelu { alpha: 0.1 }, |x| if x < 0.0 { 0.1 * x } else { x }),
        (RnnAct::ThresholdedRelu { alpha: 0.2 }, |x| if x >= 0.2 { x } else { 0.0 }),
        (RnnAct::ScaledTanh { alpha: 2.0, beta: 0.5 }, |x| 2.0 * (0.5 * x).tanh()),
        (RnnAct::HardSigmoid { alpha: 0.2, beta: 0.5 }, |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
        (RnnAct::Elu { alpha: 0.7 }, |x| if x < 0.0 { 0.7 * x.exp_m1() } else { x }),
        (RnnAct::Softsign, |x| x / (1.0 + x.abs())),
        (RnnAct::Softplus, |x| x.exp().ln_1p()),
    ];
    for (act, f) in kinds {
        let clip = 0.75;
        let want = loops(&x, [&zeros], &[T, T], true, |xt, [h]| {
            let pre = |j: usize| (dot(&w, j, xt) + dot(&r, j, &h) + bias[j]).clamp(-clip, clip);
            [(0..H).map(|j| f(pre(j))).collect()]
        });
        let op = Rnn { reverse: true, act, clip: Some(clip) };
        let got = run(
            op,
            vec![
                Some(tensor(&[T, B, I], &x)),
                Some(tensor(&[H, I], &w)),
                Some(tensor(&[H, H], &r)),
                Some(tensor(&[H], &bias)),
            ],
        );
        close(&got[0], &want[0], &format!("{act:?}"));
        close(&got[1], &want[1], &format!("{act:?}"));
    }
}

#[test]
fn weights_that_do_not_fit_are_an_error() {
    let mut g = Graph::new();
    let t = |d: &[i64]| Type::tensor(Dtype::F32, d.iter().map(|&d| d.into()).collect());
    let x = g.add_input("x", t(&[T as i64, B as i64, I as i64]));
    let w = g.add_input("w", t(&[7, I as i64]));
    let r = g.add_input("r", t(&[8, H as i64]));
    let acts = [RnnAct::Sigmoid, RnnAct::Tanh, RnnAct::Tanh];
    let op = Lstm { reverse: false, gates: [0, 1, 2, 3], acts, clip: None, couple: false };
    let mut b = Builder::new(&mut g, "l");
    assert!(b.source_n(op, &[x, w, r]).is_err());
}
