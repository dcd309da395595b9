//! Row groups in the interpreter against the primitives.

mod support;

use hub_abi::dim::SymEnv;
use hub_abi::{Dim, Dtype, Sym};
use hub_ir::{BinaryOp, Builder, GroupKind, Prim, ReduceOp, UnaryOp, Value};
use hub_portable::Tensor;
use support::*;

fn reduce(b: &mut Builder<'_>, op: ReduceOp, axes: &[u32], keep: bool, x: Value) -> Value {
    b.prim(Prim::Reduce { op, axes: axes.to_vec(), keep }, &[x]).unwrap()
}

fn softmax(b: &mut Builder<'_>, x: Value, axis: u32) -> Value {
    let m = reduce(b, ReduceOp::Max, &[axis], true, x);
    let d = b.sub(x, m).unwrap();
    let e = b.un(UnaryOp::Exp, d).unwrap();
    let s = reduce(b, ReduceOp::Sum, &[axis], true, e);
    b.div(e, s).unwrap()
}

fn norm(b: &mut Builder<'_>, x: Value, axes: &[u32]) -> Value {
    let m = reduce(b, ReduceOp::Mean, axes, true, x);
    let d = b.sub(x, m).unwrap();
    let q = b.mul(d, d).unwrap();
    let v = reduce(b, ReduceOp::Mean, axes, true, q);
    let v = b.bin_scalar(BinaryOp::Add, v, 1e-5).unwrap();
    let r = b.un(UnaryOp::Rsqrt, v).unwrap();
    b.mul(d, r).unwrap()
}

fn row(
    ins: &[(Dtype, Vec<Dim>)],
    f: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> Vec<String> {
    let g = graph(ins, &[], f);
    dense(&g, GroupKind::Row, &SymEnv::default(), 1)
}

#[test]
fn softmax_along_any_axis() {
    for shape in [[3, 4, 1], [2, 3, 5], [1, 2, 16], [5, 1, 128], [2, 2, 301], [3, 40, 7]] {
        for axis in 0..3 {
            row(&[(F, dims(&shape))], |b, x| vec![softmax(b, x[0], axis)]);
        }
    }
    let s = row(&[(F, dims(&[12, 64, 64])), (F, dims(&[1, 1, 64]))], |b, x| {
        let y = b.add(x[0], x[1]).unwrap();
        vec![softmax(b, y, 2)]
    });
    assert!(s[1].contains(" in 768 / 64 "), "{s:?}");
}

#[test]
fn layer_norm_with_scale_and_residual() {
    for n in [8i64, 96, 100] {
        let shape = dims(&[2, 7, n]);
        let ins = [(F, shape.clone()), (F, shape.clone()), (F, dims(&[n])), (F, dims(&[n]))];
        row(&ins, |b, x| {
            let sum = b.add(x[0], x[1]).unwrap();
            let y = norm(b, sum, &[2]);
            let y = b.mul(y, x[2]).unwrap();
            vec![b.add(y, x[3]).unwrap(), sum]
        });
    }
}

#[test]
fn pools_and_instance_norm_in_both_layouts() {
    for shape in [[1, 40, 7, 7], [2, 5, 3, 4], [2, 130, 1, 6]] {
        for keep in [true, false] {
            for op in [ReduceOp::Mean, ReduceOp::Max, ReduceOp::Min, ReduceOp::Sum] {
                let g = graph(&[(F, dims(&shape))], &[], |b, x| {
                    let y = reduce(b, op, &[2, 3], keep, x[0]);
                    vec![b.bin_scalar(BinaryOp::Mul, y, 3.0).unwrap()]
                });
                dense(&g, GroupKind::Row, &SymEnv::default(), 1);
                let l = ([nhwc(6)], [if keep { nhwc(3) } else { Lay::Dense }]);
                laid(&g, GroupKind::Row, (&l.0, &l.1), &SymEnv::default(), 2);
            }
        }
        let g = graph(&[(F, dims(&shape))], &[], |b, x| vec![norm(b, x[0], &[2, 3])]);
        dense(&g, GroupKind::Row, &SymEnv::default(), 1);
        laid(&g, GroupKind::Row, (&[nhwc(6)], &[nhwc(6)]), &SymEnv::default(), 2);
    }
}

#[test]
fn other_dtypes_reduce() {
    for d in [Dtype::I32, Dtype::I64, Dtype::I8, Dtype::F16, Dtype::BF16, Dtype::F64] {
        for axis in 0..2 {
            row(&[(d, dims(&[9, 41]))], |b, x| {
                let ops = [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min];
                ops.iter().map(|&op| reduce(b, op, &[axis], false, x[0])).collect()
            });
        }
    }
    for axis in 0..2 {
        row(&[(Dtype::Bool, dims(&[3, 41]))], |b, x| {
            vec![
                reduce(b, ReduceOp::And, &[axis], false, x[0]),
                reduce(b, ReduceOp::Or, &[axis], true, x[0]),
            ]
        });
    }
    row(&[(F, dims(&[2, 19]))], |b, x| vec![reduce(b, ReduceOp::Prod, &[1], false, x[0])]);
    row(&[(F, dims(&[6, 5, 9]))], |b, x| vec![reduce(b, ReduceOp::Sum, &[0, 2], false, x[0])]);
    row(&[(F, dims(&[6, 50]))], |b, x| vec![reduce(b, ReduceOp::Sum, &[0, 1], false, x[0])]);
}

#[test]
fn positions_of_extremes() {
    let nan = f32::NAN;
    let odd = [1.0, nan, 7.0, 7.0, -3.0, nan, f32::NEG_INFINITY, -3.0, f32::INFINITY, 0.0];
    for (rows, n) in [(4usize, 37usize), (40, 3), (1, 1), (3, 160)] {
        for what in 0..3 {
            let fill = |i: usize| match what {
                0 => odd[(i * 7 + i / 11) % 10],
                1 => nan,
                _ => ((i * 13) % 17) as f32,
            };
            let x = Tensor::new(&[rows, n], (0..rows * n).map(fill).collect::<Vec<_>>()).unwrap();
            for axis in 0..2u32 {
                let g = graph(&[(F, dims(&[rows as i64, n as i64]))], &[], |b, x| {
                    let each = [(true, false), (true, true), (false, false), (false, true)];
                    let one = |(max, last)| Prim::ArgReduce { max, axis, keep: last, last };
                    each.into_iter().map(|e| b.prim(one(e), x).unwrap()).collect()
                });
                for t in targets() {
                    let l = vec![Lay::Dense; 4];
                    let ins = [x.clone()];
                    check(&g, GroupKind::Row, &t, (&l[..1], &l), &SymEnv::default(), &ins);
                }
            }
        }
    }
}

#[test]
fn nan_reaches_every_extreme() {
    for n in [3usize, 16, 64, 77] {
        for at in [0, n / 2, n - 1] {
            let data: Vec<f32> =
                (0..3 * n).map(|i| if i == n + at { f32::NAN } else { i as f32 }).collect();
            let x = Tensor::new(&[3, n], data).unwrap();
            for axis in 0..2u32 {
                let g = graph(&[(F, dims(&[3, n as i64]))], &[], |b, x| {
                    let ops = [ReduceOp::Max, ReduceOp::Min];
                    ops.iter().map(|&op| reduce(b, op, &[axis], false, x[0])).collect()
                });
                for t in targets() {
                    let l = vec![Lay::Dense; 2];
                    let ins = [x.clone()];
                    check(&g, GroupKind::Row, &t, (&l[..1], &l), &SymEnv::default(), &ins);
                }
            }
        }
    }
}

#[test]
fn symbolic_rows() {
    let (n, t) = (Dim::from(Sym(0)), Dim::from(Sym(1)));
    let syms = [("n", 0, 9), ("t", 1, 500)];
    let g = graph(&[(F, vec![n.clone(), t.clone(), t])], &syms, |b, x| vec![softmax(b, x[0], 2)]);
    for (n, t) in [(1, 1), (3, 17), (0, 5), (1, 65)] {
        dense(&g, GroupKind::Row, &SymEnv(vec![Some(n), Some(t)]), 9);
    }
}

#[test]
fn short_rows_are_turned() {
    for (shape, slack) in
        [([1, 19, 9, 11], 13), ([2, 19, 3, 40], 0), ([1, 2, 8, 8], 0), ([1, 33, 7, 10], 7)]
    {
        let g = graph(&[(F, dims(&shape)), (F, dims(&[shape[1], 1, 1]))], &[], |b, x| {
            let y = b.mul(x[0], x[1]).unwrap();
            vec![softmax(b, y, 1), reduce(b, ReduceOp::Max, &[1], true, y)]
        });
        let l = ([nhwc(slack), Lay::Dense], [nhwc(slack), Lay::Dense]);
        let s = laid(&g, GroupKind::Row, (&l.0, &l.1), &SymEnv::default(), 2);
        assert!(s[1].contains("turned"), "{s:?}");
        let g = graph(&[(F, dims(&shape))], &[], |b, x| {
            let one = |axis, max| Prim::ArgReduce { max, axis, keep: false, last: false };
            vec![b.prim(one(1, true), x).unwrap()]
        });
        laid(&g, GroupKind::Row, (&l.0[..1], &[Lay::Dense]), &SymEnv::default(), 3);
    }
    let n = Dim::from(Sym(0));
    let g =
        graph(&[(F, vec![n, 11i64.into()])], &[("n", 0, 900)], |b, x| vec![softmax(b, x[0], 1)]);
    for n in [0, 5, 16, 100] {
        dense(&g, GroupKind::Row, &SymEnv(vec![Some(n)]), 9);
    }
}

#[test]
fn rows_may_be_computed_where_they_lie() {
    let shape = dims(&[6, 5, 100]);
    for axis in 0..3 {
        row(&[(F, shape.clone())], |b, x| vec![softmax(b, x[0], axis)]);
        assert_eq!(shared_pairs(), 2, "softmax along {axis}, both targets");
    }
    let ins = [(F, shape.clone()), (F, shape.clone()), (F, dims(&[100]))];
    row(&ins, |b, x| {
        let s = b.add(x[0], x[1]).unwrap();
        let n = norm(b, s, &[2]);
        vec![b.mul(n, x[2]).unwrap()]
    });
    assert_eq!(shared_pairs(), 4, "both summands, not the scale");
    // The mirrored element of a row was overwritten already.
    row(&[(F, shape.clone())], |b, x| {
        let (start, step) = (dims(&[0, 0, 99]), vec![1, 1, -1]);
        let back = Prim::Slice { start, len: dims(&[6, 5, 100]), step };
        let turned = b.prim(back, &[x[0]]).unwrap();
        let m = reduce(b, ReduceOp::Max, &[2], true, x[0]);
        vec![b.sub(turned, m).unwrap()]
    });
    assert_eq!(shared_pairs(), 0, "a mirrored row");
}
