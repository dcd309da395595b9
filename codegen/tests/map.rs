//! Map groups in the interpreter against the primitives.

mod support;

use hub_abi::dim::SymEnv;
use hub_abi::{Dim, Dtype};
use hub_codegen::lower::lower_halo_fill;
use hub_ir::{BinaryOp, Builder, GroupKind, PadMode, Prim, UnaryOp, Value};
use hub_portable::Tensor;
use support::*;

fn map(
    ins: &[(Dtype, Vec<Dim>)],
    f: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> Vec<String> {
    let g = graph(ins, &[], f);
    dense(&g, GroupKind::Map, &SymEnv::default(), 1)
}

#[test]
fn a_flat_sum_of_any_length() {
    for n in [0i64, 1, 7, 16, 33, 1000, 20000] {
        let s = map(&[(F, dims(&[n])), (F, dims(&[n]))], |b, x| vec![b.add(x[0], x[1]).unwrap()]);
        assert!(s[0].starts_with("map v8"), "{s:?}");
    }
}

#[test]
fn same_layouts_run_flat() {
    let d = dims(&[2, 12, 5, 7]);
    let g = graph(&[(F, d.clone()), (F, d.clone())], &[], |b, x| vec![b.add(x[0], x[1]).unwrap()]);
    for slack in [0, 4] {
        let l = [nhwc(slack), nhwc(slack)];
        let s = laid(&g, GroupKind::Map, (&l, &l[..1]), &SymEnv::default(), 3);
        assert!(s[1].contains(if slack == 0 { " 840 " } else { " 1120 " }), "{s:?}");
    }
}

#[test]
fn broadcasts_and_transcendentals() {
    let x = dims(&[3, 20, 5, 6]);
    let g =
        graph(&[(F, x.clone()), (F, dims(&[20, 1, 1])), (F, dims(&[3, 1, 5, 1]))], &[], |b, x| {
            let y = b.mul(x[0], x[1]).unwrap();
            let y = b.add(y, x[2]).unwrap();
            let s = b.un(UnaryOp::Sigmoid, y).unwrap();
            let z = b.mul(y, s).unwrap();
            let e = b.un(UnaryOp::Erf, y).unwrap();
            vec![z, e]
        });
    dense(&g, GroupKind::Map, &SymEnv::default(), 5);
    let l = [nhwc(12), Lay::Dense, Lay::Dense];
    laid(&g, GroupKind::Map, (&l, &[nhwc(12), nhwc(0)]), &SymEnv::default(), 6);
}

#[test]
fn other_dtypes() {
    for d in [Dtype::I32, Dtype::I64, Dtype::U8, Dtype::I8, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let s = dims(&[5, 37]);
        map(&[(d, s.clone()), (d, s.clone())], |b, x| {
            let y = b.add(x[0], x[1]).unwrap();
            let m = b.max(y, x[1]).unwrap();
            let c = b.bin(BinaryOp::Lt, y, x[0]).unwrap();
            let z = b.select(c, m, x[0]).unwrap();
            vec![z, c]
        });
        map(&[(d, s.clone())], |b, x| {
            let f = b.cast(x[0], F).unwrap();
            let f = b.bin_scalar(BinaryOp::Mul, f, 1.5).unwrap();
            let i = b.cast(f, Dtype::I32).unwrap();
            let l = b.cast(i, Dtype::I64).unwrap();
            let u = b.cast(f, Dtype::U8).unwrap();
            vec![f, i, l, u]
        });
    }
}

#[test]
fn integer_division_reports_zero() {
    let s = dims(&[50]);
    let g = graph(&[(Dtype::I32, s.clone()), (Dtype::I32, s.clone())], &[], |b, x| {
        let one = b.bin(BinaryOp::Div, x[0], x[1]).unwrap();
        let two = b.bin(BinaryOp::Mod, x[0], x[1]).unwrap();
        vec![one, two]
    });
    dense(&g, GroupKind::Map, &SymEnv::default(), 2);
    let ints =
        |f: &dyn Fn(i32) -> i32| Tensor::new(&[50], (0..50).map(f).collect::<Vec<i32>>()).unwrap();
    let a = ints(&|i| i * 7 - 100);
    for t in targets() {
        let l = [Lay::Dense, Lay::Dense];
        let b = ints(&|i| if i % 2 == 0 { i + 1 } else { -i });
        check(&g, GroupKind::Map, &t, (&l, &l), &SymEnv::default(), &[a.clone(), b]);
    }
}

#[test]
fn nan_and_infinity() {
    let x = [f32::NAN, 1.0, f32::INFINITY, -0.0, f32::NEG_INFINITY, 2.5];
    let n = 36;
    let a = Tensor::new(&[n], (0..n).map(|i| x[i % 6]).collect::<Vec<f32>>()).unwrap();
    let b = Tensor::new(&[n], (0..n).map(|i| x[i / 6]).collect::<Vec<f32>>()).unwrap();
    let s = dims(&[n as i64]);
    let g = graph(&[(F, s.clone()), (F, s.clone())], &[], |b, x| {
        let relu = b.bin_scalar(BinaryOp::Max, x[0], 0.0).unwrap();
        let low = b.scalar(F, 6.0);
        let six = b.min(low, x[0]).unwrap();
        let outs = vec![b.max(x[0], x[1]).unwrap(), b.min(x[0], x[1]).unwrap(), relu, six];
        let sign = b.un(UnaryOp::Sign, x[0]).unwrap();
        let nan = b.un(UnaryOp::IsNan, x[0]).unwrap();
        let inf = b.un(UnaryOp::IsInf, x[0]).unwrap();
        let int = b.cast(x[0], Dtype::I32).unwrap();
        [outs, vec![sign, nan, inf, int]].concat()
    });
    for t in targets() {
        let l = vec![Lay::Dense; 8];
        check(&g, GroupKind::Map, &t, (&l[..2], &l), &SymEnv::default(), &[a.clone(), b.clone()]);
    }
}

#[test]
fn transposes_between_layouts() {
    let shapes = [
        [1, 3, 19, 18],
        [1, 3, 16, 32],
        [2, 40, 4, 5],
        [1, 16, 16, 16],
        [2, 1, 3, 3],
        [1, 50, 1, 1],
        [1, 21, 5, 37],
        [2, 2, 5, 16],
        [1, 4, 20, 20],
    ];
    for shape in shapes {
        let g = graph(&[(F, dims(&shape))], &[], |_, x| vec![x[0]]);
        let slack = (shape[1] as u64).next_multiple_of(16) as i64 - shape[1];
        for (a, b) in [(Lay::Dense, nhwc(slack)), (nhwc(slack), Lay::Dense), (nhwc(slack), nhwc(0))]
        {
            laid(&g, GroupKind::Map, (&[a], &[b]), &SymEnv::default(), 4);
        }
        // Pixels of two to four channels, one behind another, are written as whole vectors.
        for d in [F, Dtype::I32, Dtype::U8] {
            let g = graph(&[(d, dims(&shape))], &[], |_, x| vec![x[0]]);
            laid(&g, GroupKind::Map, (&[Lay::Dense], &[nhwc(0)]), &SymEnv::default(), 4);
        }
    }
    map(&[(F, dims(&[6, 5, 9, 4]))], |b, x| vec![b.transpose(x[0], &[2, 0, 3, 1]).unwrap()]);
    for d in [F, Dtype::U8, Dtype::Bool, Dtype::F16, Dtype::I64] {
        let s = map(&[(d, dims(&[33, 70]))], |b, x| vec![b.transpose(x[0], &[1, 0]).unwrap()]);
        assert_eq!(s[1].contains("turn"), d != Dtype::I64, "{s:?}");
    }
    let (n, t) = (Dim::from(hub_abi::Sym(0)), Dim::from(hub_abi::Sym(1)));
    let ins = [(F, vec![n.clone(), t.clone()]), (F, vec![t, n])];
    let g = graph(&ins, &[("n", 0, 999), ("t", 0, 999)], |b, x| {
        let y = b.transpose(x[0], &[1, 0]).unwrap();
        vec![b.add(x[1], y).unwrap()]
    });
    for (n, t) in [(1, 1), (35, 17), (0, 5), (64, 32), (5, 0), (16, 70)] {
        dense(&g, GroupKind::Map, &SymEnv(vec![Some(n), Some(t)]), 9);
    }
}

#[test]
fn slices_pads_and_concatenations() {
    let s = dims(&[3, 10, 21]);
    map(&[(F, s.clone())], |b, x| {
        let p =
            Prim::Slice { start: dims(&[0, 8, 2]), len: dims(&[3, 4, 17]), step: vec![1, -2, 1] };
        vec![b.prim(p, x).unwrap()]
    });
    map(&[(F, s.clone())], |b, x| {
        let zero = b.scalar(F, -3.0);
        let (before, after) = (dims(&[1, -2, 3]), dims(&[0, 1, -4]));
        vec![b.prim(Prim::Pad { before, after, mode: PadMode::Constant }, &[x[0], zero]).unwrap()]
    });
    for axis in 0..3 {
        let mut t = s.clone();
        t[axis] = 5i64.into();
        map(&[(F, s.clone()), (F, t.clone()), (F, s.clone())], |b, x| {
            vec![b.prim(Prim::Concat { axis: axis as u32 }, x).unwrap()]
        });
        map(&[(F, s.clone()), (F, t)], |b, x| {
            let y = b.prim(Prim::Concat { axis: axis as u32 }, x).unwrap();
            vec![b.bin_scalar(BinaryOp::Mul, y, 2.0).unwrap()]
        });
    }
}

#[test]
fn reshapes() {
    let cases: &[(&[i64], &[i64])] = &[
        (&[4, 6, 10], &[24, 10]),
        (&[24, 10], &[4, 6, 10]),
        (&[6, 4], &[4, 6]),
        (&[2, 1, 35], &[70]),
        (&[70], &[7, 10]),
        (&[5, 12], &[5, 3, 1, 4]),
    ];
    for (from, to) in cases {
        map(&[(F, dims(from)), (F, dims(to))], |b, x| {
            let y = b.reshape(x[0], dims(to)).unwrap();
            vec![b.add(y, x[1]).unwrap()]
        });
    }
    // Channel shuffle, channel-last.
    let g = graph(&[(F, dims(&[1, 24, 3, 5]))], &[], |b, x| {
        let y = b.reshape(x[0], dims(&[1, 4, 6, 3, 5])).unwrap();
        let y = b.transpose(y, &[0, 2, 1, 3, 4]).unwrap();
        vec![b.reshape(y, dims(&[1, 24, 3, 5])).unwrap()]
    });
    dense(&g, GroupKind::Map, &SymEnv::default(), 8);
    laid(&g, GroupKind::Map, (&[nhwc(8)], &[nhwc(8)]), &SymEnv::default(), 8);
}

#[test]
fn gathers_check_their_indices() {
    let table = Tensor::new(&[7, 20], (0..140).map(|i| i as f32).collect::<Vec<f32>>()).unwrap();
    for (dtype, bad) in [(Dtype::I64, 0), (Dtype::I32, 0), (Dtype::I64, 9)] {
        let idx: Vec<i64> = vec![0, 6, -1, -7, 3, bad];
        let idx = match dtype {
            Dtype::I64 => Tensor::new(&[2, 3], idx).unwrap(),
            _ => Tensor::new(&[2, 3], idx.iter().map(|&x| x as i32).collect()).unwrap(),
        };
        for axis in 0..2u32 {
            if bad == 9 && axis == 1 {
                continue;
            }
            let g = graph(&[(F, dims(&[7, 20])), (dtype, dims(&[2, 3]))], &[], |b, x| {
                vec![b.prim(Prim::Gather { axis }, x).unwrap()]
            });
            for t in targets() {
                let l = [Lay::Dense, Lay::Dense];
                let ins = [table.clone(), idx.clone()];
                check(&g, GroupKind::Map, &t, (&l, &l[..1]), &SymEnv::default(), &ins);
            }
        }
    }
}

#[test]
fn resize_by_computed_indices() {
    map(&[(F, dims(&[1, 20, 5, 6]))], |b, x| {
        let mut y = x[0];
        for axis in [2u32, 3] {
            let n: i64 = if axis == 2 { 5 } else { 6 };
            let shape = dims(&[2 * n]);
            let i = b.prim(Prim::Iota { dtype: F, shape, axis: 0 }, &[]).unwrap();
            let h = b.bin_scalar(BinaryOp::Mul, i, 0.5).unwrap();
            let h = b.un(UnaryOp::Floor, h).unwrap();
            let at = b.cast(h, Dtype::I64).unwrap();
            y = b.prim(Prim::Gather { axis }, &[y, at]).unwrap();
        }
        vec![y]
    });
}

#[test]
fn symbolic_sizes() {
    let (n, t) = (Dim::from(hub_abi::Sym(0)), Dim::from(hub_abi::Sym(1)));
    let shape = vec![n.clone(), t.clone(), 12i64.into()];
    let flat = vec![n.mul(&t), 12i64.into()];
    let g = graph(
        &[(F, shape.clone()), (F, flat.clone()), (F, dims(&[12]))],
        &[("n", 0, 9), ("t", 1, 500)],
        |b, x| {
            let y = b.add(x[0], x[2]).unwrap();
            let y = b.reshape(y, flat.clone()).unwrap();
            let z = b.mul(y, x[1]).unwrap();
            vec![b.reshape(z, vec![n.clone(), t.clone(), 3i64.into(), 4i64.into()]).unwrap()]
        },
    );
    for (n, t) in [(1, 1), (3, 17), (0, 5), (2, 333)] {
        dense(&g, GroupKind::Map, &SymEnv(vec![Some(n), Some(t)]), 9);
    }
}

#[test]
fn constant_splats_and_scalars() {
    map(&[(F, dims(&[])), (F, dims(&[1]))], |b, x| vec![b.add(x[0], x[1]).unwrap()]);
    map(&[(F, dims(&[4, 1, 9])), (F, dims(&[1, 1, 1]))], |b, x| {
        let y = b.broadcast(x[0], dims(&[4, 6, 9])).unwrap();
        vec![b.sub(y, x[1]).unwrap()]
    });
}

#[test]
fn a_border_and_nothing_else_is_filled() {
    for (shape, slack) in [([2, 5, 4, 3], 3), ([1, 16, 7, 5], 0)] {
        let g = graph(&[(F, dims(&shape))], &[], |_, x| vec![x[0]]);
        let v = g.regions[g.root()].params[0];
        let (before, after) = (dims(&[1, 2]), dims(&[2, 0]));
        let mut op = operand(&g, v, &nhwc(slack));
        // Room for the border: pitches of the padded image.
        let row = (shape[3] + 2) * (shape[1] + slack);
        op.strides = dims(&[row * (shape[2] + 3), 1, row, shape[1] + slack]);
        for t in targets() {
            let l = lower_halo_fill(&op, &before, &after, 1.5, &t).unwrap();
            let mut m = Memory::new(&op, &SymEnv::default(), row * 4 * 3, 0);
            m.origin = row * 4 * 3;
            interpret(&l, 0, std::slice::from_mut(&mut m), &SymEnv::default());
            let total = shape[0] * row * (shape[2] + 3);
            let ones = m.bytes.chunks_exact(4).filter(|c| **c == 1.5f32.to_le_bytes()).count();
            let inside = shape[0] * shape[2] * shape[3] * (shape[1] + slack);
            assert_eq!(ones as i64, total - inside, "{}", l.schedule);
        }
    }
}

#[test]
fn results_may_lie_where_operands_of_equal_address_lie() {
    let full = dims(&[4, 6, 50]);
    let pairs = |other: &[i64], f: &dyn Fn(&mut Builder<'_>, &[Value]) -> Value| {
        map(&[(F, full.clone()), (F, dims(other))], |b, x| vec![f(b, x)]);
        shared_pairs()
    };
    let sum = |b: &mut Builder<'_>, x: &[Value]| b.add(x[0], x[1]).unwrap();
    assert_eq!(pairs(&[4, 6, 50], &sum), 4, "both operands, both targets");
    assert_eq!(pairs(&[50], &sum), 2, "not the broadcast one");
    assert_eq!(
        pairs(&[4, 50, 6], &|b, x| {
            let t = b.transpose(x[1], &[0, 2, 1]).unwrap();
            b.add(x[0], t).unwrap()
        }),
        2,
        "not the transposed one"
    );
    assert_eq!(
        pairs(&[4, 6, 50], &|b, x| {
            let (start, step) = (dims(&[0, 0, 49]), vec![1, 1, -1]);
            let back = Prim::Slice { start, len: dims(&[4, 6, 50]), step };
            let t = b.prim(back, &[x[0]]).unwrap();
            b.add(t, x[1]).unwrap()
        }),
        2,
        "not the mirrored one"
    );
    assert_eq!(
        pairs(&[4, 6, 50], &|b, x| {
            let (start, step) = (dims(&[0, 0, 49]), vec![1, 1, -1]);
            let back = Prim::Slice { start, len: dims(&[4, 6, 50]), step };
            let t = b.prim(back, &[x[0]]).unwrap();
            b.add(t, x[0]).unwrap()
        }),
        0,
        "not one that is read straight and mirrored"
    );
}
