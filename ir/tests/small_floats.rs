//! Source operators on f16 and bf16 round once: they are the f32 operator on widened operands, its
//! results rounded.

use half::{bf16, f16};
use hub_abi::Dtype;
use hub_ir::ops::{activation::Activation, norm};
use hub_ir::portable::to_portable;
use hub_ir::{Builder, Graph, Source, Type};
use hub_portable::{BytesStore, Limits, Tensor};
use std::sync::Arc;

/// Runs one operator.
fn run(op: Source, ins: &[Tensor]) -> Tensor {
    let mut g = Graph::new();
    let input = |(i, t): (usize, &Tensor)| {
        let dims = t.dims().iter().map(|&d| d.into()).collect();
        g.add_input(&format!("x{i}"), Type::tensor(t.dtype(), dims))
    };
    let xs: Vec<_> = ins.iter().enumerate().map(input).collect();
    let root = g.root();
    let mut b = Builder::new(&mut g, "n");
    let y = b.source(op, &xs).expect("fits");
    b.into_region(root);
    g.add_output("y", y);
    let (p, store) = to_portable(&g).expect("expands");
    let mut bytes = vec![0; store.len as usize];
    for (at, piece) in &store.pieces {
        bytes[*at as usize..*at as usize + piece.len()].copy_from_slice(piece);
    }
    let feeds: Vec<hub_portable::Value> = ins.iter().cloned().map(Into::into).collect();
    let store = BytesStore::new(Arc::new(bytes));
    let outs = hub_portable::run(&p, &store, &feeds, &Limits::default()).expect("runs");
    outs[0].tensor().expect("a tensor").clone()
}

/// The bits of `x` in a small float, and the value that they stand for.
fn small(d: Dtype, x: f32) -> ([u8; 2], f32) {
    match d {
        Dtype::F16 => (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()),
        _ => (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f32()),
    }
}

fn check(op: impl Into<Source>, shapes: &[&[usize]]) {
    let op = op.into();
    for d in [Dtype::F16, Dtype::BF16] {
        let (mut narrow, mut wide) = (vec![], vec![]);
        for (k, dims) in shapes.iter().enumerate() {
            let n: usize = dims.iter().product();
            let xs = (0..n).map(|i| ((i * 37 + k * 11) % 101) as f32 / 23.0 - 2.0);
            let pairs: Vec<_> = xs.map(|x| small(d, x)).collect();
            let bits: Vec<u8> = pairs.iter().flat_map(|p| p.0).collect();
            narrow.push(Tensor::from_bytes(d, dims, &bits).expect("a tensor"));
            let floats: Vec<u8> = pairs.iter().flat_map(|p| p.1.to_le_bytes()).collect();
            wide.push(Tensor::from_bytes(Dtype::F32, dims, &floats).expect("a tensor"));
        }
        let (got, want) = (run(op.clone(), &narrow), run(op.clone(), &wide));
        assert_eq!(got.dtype(), d, "{op:?}");
        let want: Vec<u8> =
            want.view::<f32>().expect("f32").iter().flat_map(|&x| small(d, x).0).collect();
        assert_eq!(got.bytes(), &want[..], "{op:?} of {d}");
    }
}

#[test]
fn operators_of_several_steps_round_once() {
    check(norm::Softmax { axis: 1, log: false }, &[&[3, 40]]);
    check(norm::Softmax { axis: 1, log: true }, &[&[3, 40]]);
    check(norm::LayerNorm { axis: 1, eps: 1e-5 }, &[&[3, 40], &[40], &[40]]);
    check(Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 }, &[&[7, 40]]);
}

#[test]
fn one_step_is_as_it_was() {
    check(Activation::Relu, &[&[7, 40]]);
}
