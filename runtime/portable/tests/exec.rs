//! Whole portable graphs: bindings, control flow, sequences, limits and hostile graphs.

use hub_abi::pgraph::{Control, PConst, POp};
use hub_abi::prim::{Prim, ReduceOp, UnaryOp};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, Sym};
use hub_portable::{
    BytesStore, ExecFault, Frame, Limits, PrimError, Program, Tensor, Value, run, run_node,
};
use std::sync::Arc;

mod common;
use common::*;

#[test]
fn inputs_bind_symbols_and_are_checked() {
    let mut b = Build::default();
    let n = b.sym("N", 1, 4);
    // The first input's dim is an expression of a symbol that only the second binds.
    let x = b.t(Dtype::I64, &[n.times(2)]);
    let y = b.t(Dtype::I64, std::slice::from_ref(&n));
    let out = b.t(Dtype::I64, &[Dim::from(2i64)]);
    let dims = Prim::Dims { dims: vec![n.times(2), n.plus(1)], scalar: false };
    b.root(&[x, y], vec![prim(dims, &[], &[out])], &[out]);
    let two = |a: usize, b: usize| [i64s(&vec![0; a]), i64s(&vec![0; b])];
    assert_eq!(ints(&b.run(&two(6, 3)).unwrap()[0]), [6, 4]);
    let e = b.run(&two(7, 3)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "input 'in0': operands do not fit: i64 [7] where i64[2*N] is expected"
    );
    let e = b.run(&two(10, 5)).unwrap_err().to_string();
    assert_eq!(e, "input 'in1': N would be 5, outside 1..=4");
    let wrong = Tensor::new(&[2], vec![0f32; 2]).unwrap();
    assert!(b.run(&[wrong, i64s(&[0])]).is_err());
    assert!(b.run(&[i64s(&[0])]).is_err());
}

#[test]
fn constraints_hold_once_bound() {
    let mut b = Build::default();
    let (n, m) = (b.sym("N", 0, 100), b.sym("M", 0, 100));
    b.0.constraints.push((n.times(2), m.clone()));
    let x = b.t(Dtype::I64, &[n]);
    let y = b.t(Dtype::I64, &[m]);
    b.root(&[x, y], vec![], &[x]);
    assert!(b.run(&[i64s(&[1]), i64s(&[1, 2])]).is_ok());
    let e = b.run(&[i64s(&[1]), i64s(&[1])]).unwrap_err().to_string();
    assert_eq!(e, "input 'in1': 2*N = 2 and M = 1 must be equal");
}

#[test]
fn values_bind_symbols_within_bounds() {
    let mut b = Build::default();
    let k = b.sym("K", 0, 3);
    let x = b.t(Dtype::I64, &[Dim::from(1i64)]);
    let out = b.t(Dtype::I64, std::slice::from_ref(&k));
    let bind = prim(Prim::BindSyms { syms: vec![Sym(0)] }, &[x], &[]);
    let iota = Prim::Iota { dtype: Dtype::I64, shape: vec![k], axis: 0 };
    b.root(&[x], vec![bind, prim(iota, &[], &[out])], &[out]);
    assert_eq!(ints(&b.run(&[i64s(&[3])]).unwrap()[0]), [0, 1, 2]);
    let e = b.run(&[i64s(&[4])]).unwrap_err();
    assert_eq!(e.to_string(), "node 'n' (BindSyms): K would be 4, outside 0..=3");
    assert!(matches!(e.fault, ExecFault::Prim(PrimError::Bound { .. })));
}

#[test]
fn non_zero_binds_its_count() {
    let mut b = Build::default();
    let c = b.sym("C", 0, 1 << 31);
    let x = b.t(Dtype::I64, &[Dim::from(4i64)]);
    let at = b.t(Dtype::I64, &[Dim::from(1i64), c.clone()]);
    let flat = b.t(Dtype::I64, std::slice::from_ref(&c));
    let nodes = vec![
        prim(Prim::NonZero { count: Sym(0) }, &[x], &[at]),
        prim(Prim::Reshape { shape: vec![c] }, &[at], &[flat]),
    ];
    b.root(&[x], nodes, &[flat]);
    assert_eq!(ints(&b.run(&[i64s(&[0, 5, 0, 7])]).unwrap()[0]), [1, 3]);
}

#[test]
fn branches_capture_and_may_differ_in_shape() {
    let mut b = Build::default();
    let n = b.sym("N", 0, 100);
    let r = b.sym("R", 0, 100);
    let cond = b.t(Dtype::Bool, &[]);
    let x = b.t(Dtype::I64, std::slice::from_ref(&n));
    let twice = b.t(Dtype::I64, &[n.times(2)]);
    let sum = b.t(Dtype::I64, &[n]);
    let out = b.t(Dtype::I64, std::slice::from_ref(&r));
    let dims = b.t(Dtype::I64, &[]);
    let then = b.region(&[], vec![prim(Prim::Concat { axis: 0 }, &[x, x], &[twice])], &[twice]);
    let orelse = b.region(&[], vec![add([x, x], sum)], &[sum]);
    let size = prim(Prim::Dims { dims: vec![r], scalar: true }, &[], &[dims]);
    let branch = control(Control::If { then, orelse }, &[cond], &[out]);
    b.root(&[cond, x], vec![branch, size], &[out, dims]);
    let run = |c| {
        let out = b.run(&[Tensor::bools(&[], &[c]).unwrap(), i64s(&[1, 2])]).unwrap();
        (ints(&out[0]), ints(&out[1]))
    };
    assert_eq!(run(true), (vec![1, 2, 1, 2], vec![4]));
    assert_eq!(run(false), (vec![2, 4], vec![2]));
}

#[test]
fn loops_carry_values_whose_shapes_change() {
    let run = |b: &Build, n: i64| {
        let out = b.run(&[Tensor::scalar(n), i64s(&[7])]).unwrap();
        (ints(&out[0]), ints(&out[1]))
    };
    let counted = growing(true);
    assert_eq!(run(&counted, 2), (vec![7, 7, 7], vec![2, 3]));
    assert_eq!(run(&counted, 0), (vec![7], vec![]));
    assert_eq!(run(&counted, -1), (vec![7], vec![]));
    assert_eq!(run(&counted, 99), (vec![7; 5], vec![2, 3, 4, 5]));
    assert_eq!(run(&growing(false), 0), (vec![7; 5], vec![2, 3, 4, 5]));
}

#[test]
fn endless_loops_stop_at_the_limit() {
    let mut b = Build::default();
    let (i, x) = (b.t(Dtype::I64, &[]), b.t(Dtype::Bool, &[]));
    let body = b.region(&[i], vec![], &[x]);
    let op = Control::Loop { body, has_trip: false, has_cond: false, carried: 0 };
    b.root(&[x], vec![control(op, &[], &[])], &[]);
    let limits = Limits { steps: 1000, ..Limits::default() };
    let e = b.run_with(&[Tensor::bools(&[], &[true]).unwrap()], &limits).unwrap_err();
    assert!(matches!(e.fault, ExecFault::Prim(PrimError::Limit { .. })), "{e}");
}

#[test]
fn scans_go_both_ways() {
    let build = |reverse| {
        let mut b = Build::default();
        let n = b.sym("N", 0, 99);
        let (s0, xs) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, std::slice::from_ref(&n)));
        let (s, x, y) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]));
        let body = b.region(&[s, x], vec![add([s, x], y)], &[y, y]);
        let (last, all) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, std::slice::from_ref(&n)));
        let op = Control::Scan { body, carried: 1, trip: n, reverse };
        b.root(&[s0, xs], vec![control(op, &[s0, xs], &[last, all])], &[last, all]);
        let out = b.run(&[Tensor::scalar(10i64), i64s(&[1, 2, 3])]).unwrap();
        (ints(&out[0]), ints(&out[1]))
    };
    assert_eq!(build(false), (vec![16], vec![11, 13, 16]));
    assert_eq!(build(true), (vec![16], vec![16, 15, 13]));
}

#[test]
fn sequences_and_optionals() {
    let mut b = Build::default();
    let n = b.sym("N", 0, 99);
    let (x, at) = (b.t(Dtype::I64, &[n]), b.t(Dtype::I64, &[]));
    let seq = || Type::Seq(Box::new(int_type()));
    let parts = b.value(seq());
    let longer = b.value(seq());
    let joined = b.t(Dtype::I64, &[Dim::from(4i64)]);
    let sizes = b.t(Dtype::I32, &[Dim::from(4i64)]);
    let len = b.t(Dtype::I64, &[]);
    let shorter = b.value(seq());
    let item = b.t(Dtype::I64, &[]);
    let opt = b.value(Type::Opt(Box::new(int_type())));
    let has = b.t(Dtype::Bool, &[]);
    let got = b.t(Dtype::I64, &[]);
    let nodes = vec![
        control(Control::SeqSplit { axis: 0, keep: false }, &[x], &[parts]),
        control(Control::SeqInsert, &[parts, at, at], &[longer]),
        control(Control::SeqConcat { axis: -1, stack: true }, &[longer], &[joined, sizes]),
        control(Control::SeqErase, &[longer], &[shorter]),
        control(Control::SeqLen, &[shorter], &[len]),
        control(Control::SeqAt, &[shorter, at], &[item]),
        control(Control::OptNew { elem: int_type() }, &[item], &[opt]),
        control(Control::OptHas, &[opt], &[has]),
        control(Control::OptGet, &[opt], &[got]),
    ];
    b.root(&[x, at], nodes, &[joined, sizes, len, got, has]);
    let out = b.run(&[i64s(&[7, 8, 9]), Tensor::scalar(1i64)]).unwrap();
    let all: Vec<Vec<i64>> = out.iter().map(ints).collect();
    assert_eq!(all, [vec![7, 1, 8, 9], vec![1; 4], vec![3], vec![1], vec![1]]);
    let e = b.run(&[i64s(&[7, 8, 9]), Tensor::scalar(5i64)]).unwrap_err();
    assert_eq!(e.to_string(), "node 'n' (SeqInsert): index 5 is outside an axis of size 3");
}

#[test]
fn a_group_is_its_region_and_constants_come_from_the_store() {
    let mut b = Build::default();
    let dims = [Dim::from(2i64)];
    let x = b.t(Dtype::F32, &dims);
    let (c, p, q, y, z) = (
        b.t(Dtype::F32, &dims),
        b.t(Dtype::F32, &dims),
        b.t(Dtype::F32, &dims),
        b.t(Dtype::F32, &dims),
        b.t(Dtype::F32, &dims),
    );
    let ty = TensorType { dtype: Dtype::F32, dims: dims.to_vec() };
    b.0.consts.push(PConst { ty, offset: 4, len: 8, packing: None });
    let inner = vec![add([p, q], y), prim(Prim::Unary(UnaryOp::Neg), &[y], &[z])];
    let group = b.region(&[p, q], inner, &[z]);
    let nodes = vec![node(POp::Const(0), &[], &[c]), node(POp::Group(group), &[x, c], &[z])];
    b.root(&[x], nodes, &[z]);
    let bytes: Vec<u8> = [0f32, 10.0, 20.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let store = BytesStore::new(Arc::new(bytes));
    let input = Value::from(Tensor::new(&[2], vec![1f32, 2.0]).unwrap());
    let want = Value::from(Tensor::new(&[2], vec![-11f32, -22.0]).unwrap());
    let out = run(&b.0, &store, std::slice::from_ref(&input), &Limits::default()).unwrap();
    assert_eq!(out[0], want);
    // The same, one node at a time.
    let program = Program::new(&b.0).unwrap();
    let mut frame = Frame::new(&b.0);
    program.bind_inputs(&mut frame, std::slice::from_ref(&input)).unwrap();
    frame.set(x, input);
    for i in 0..2 {
        run_node(&program, b.0.root, i, &mut frame, &store, &Limits::default()).unwrap();
    }
    assert_eq!(frame.take(z), Some(want));
    assert!(run_node(&program, b.0.root, 2, &mut frame, &store, &Limits::default()).is_err());
}

#[test]
fn malformed_graphs_are_errors() {
    let refused = |b: &Build, inputs: &[Tensor]| {
        let e = b.run(inputs).unwrap_err();
        assert!(matches!(e.fault, ExecFault::Malformed(_)), "{e}");
    };
    refused(&Build::default(), &[]);
    // A region that holds itself.
    let mut b = Build::default();
    let x = b.t(Dtype::I64, &[]);
    b.root(&[x], vec![node(POp::Group(0), &[x], &[x])], &[x]);
    refused(&b, &[Tensor::scalar(1i64)]);
    // A value that nothing gives, one used too early, and one that the table lacks.
    for v in [1u32, 2, 77] {
        let mut b = Build::default();
        let (x, y, z) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]));
        b.root(&[x], vec![add([x, v], y), add([x, x], z)], &[y]);
        refused(&b, &[Tensor::scalar(1i64)]);
    }
    // A loop whose operands do not add up.
    let mut b = Build::default();
    let x = b.t(Dtype::I64, &[]);
    let body = b.region(&[x], vec![], &[]);
    let op = Control::Loop { body, has_trip: true, has_cond: true, carried: u32::MAX };
    b.root(&[x], vec![control(op, &[x], &[])], &[]);
    refused(&b, &[Tensor::scalar(1i64)]);
}

#[test]
fn memory_is_bounded() {
    let mut b = Build::default();
    let (n, k) = (b.sym("N", 0, 1 << 40), b.sym("K", 0, 1 << 40));
    let trip = b.t(Dtype::I64, &[]);
    let x = b.t(Dtype::I64, &[n]);
    let (i, inner, twice) = (
        b.t(Dtype::I64, &[]),
        b.t(Dtype::I64, std::slice::from_ref(&k)),
        b.t(Dtype::I64, &[k.times(2)]),
    );
    let yes = b.t(Dtype::Bool, &[]);
    let f = b.sym("F", 0, 1 << 40);
    let last = b.t(Dtype::I64, &[f]);
    let body = b.region(
        &[i, inner],
        vec![prim(Prim::Concat { axis: 0 }, &[inner, inner], &[twice])],
        &[yes, twice],
    );
    let op = Control::Loop { body, has_trip: true, has_cond: false, carried: 1 };
    b.root(&[trip, x, yes], vec![control(op, &[trip, x], &[last])], &[last]);
    let inputs = [Tensor::scalar(1000i64), i64s(&[1]), Tensor::bools(&[], &[true]).unwrap()];
    for limits in [
        Limits { tensor_bytes: 1 << 16, ..Limits::default() },
        Limits { live_bytes: 1 << 16, ..Limits::default() },
    ] {
        let e = b.run_with(&inputs, &limits).unwrap_err();
        assert!(matches!(e.fault, ExecFault::Prim(PrimError::Limit { .. })), "{e}");
    }
}

#[test]
fn errors_name_the_node() {
    let mut b = Build::default();
    let n = b.sym("N", 0, 9);
    let x = b.t(Dtype::F32, &[n]);
    let y = b.t(Dtype::F32, &[]);
    let all = Prim::Reduce { op: ReduceOp::And, axes: vec![0], keep: false };
    b.root(&[x], vec![prim(all, &[x], &[y])], &[y]);
    let e = b.run(&[Tensor::new(&[1], vec![1f32]).unwrap()]).unwrap_err();
    assert_eq!(e.to_string(), "node 'n' (Reduce): And is not defined for elements of type f32");
}
