//! Primitives that move, gather or fold elements, against their definitions one index at a time.

use hub_abi::Dim;
use hub_abi::prim::{PadMode, Prim, ReduceOp, ScatterOp};
use hub_portable::{Limits, Tensor, fold};
use proptest::prelude::*;

fn run(prim: Prim, inputs: &[Tensor]) -> Tensor {
    fold(&prim, inputs, &Limits::default()).unwrap().remove(0)
}

fn dims(v: &[usize]) -> Vec<Dim> {
    v.iter().map(|&d| Dim::from(d)).collect()
}

fn iota(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>() as i64;
    Tensor::new(shape, (0..n).map(|i| (i * 31 + 7) % 101 - 50).collect()).unwrap()
}

/// All index tuples of a shape, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, &d| {
        all.iter().flat_map(|t| (0..d).map(move |i| [&t[..], &[i]].concat())).collect()
    })
}

fn at(x: &Tensor, index: &[usize]) -> i64 {
    let flat = index.iter().zip(x.dims()).fold(0, |f, (&i, &d)| f * d + i);
    x.to_i64s().unwrap()[flat]
}

/// A tensor whose element at each index is `f` of it.
fn built(shape: &[usize], f: impl Fn(&[usize]) -> i64) -> Tensor {
    Tensor::new(shape, indices(shape).iter().map(|i| f(i)).collect()).unwrap()
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..5, 1..5)
}

proptest! {
    #[test]
    fn transpose_permutes(
        (shape, perm) in shape().prop_flat_map(|s| {
            let axes: Vec<u32> = (0..s.len() as u32).collect();
            (Just(s), Just(axes).prop_shuffle())
        })
    ) {
        let x = iota(&shape);
        let got = run(Prim::Transpose { perm: perm.clone() }, std::slice::from_ref(&x));
        let to: Vec<usize> = perm.iter().map(|&p| shape[p as usize]).collect();
        let want = built(&to, |o| {
            let mut i = vec![0; o.len()];
            perm.iter().zip(o).for_each(|(&p, &v)| i[p as usize] = v);
            at(&x, &i)
        });
        prop_assert_eq!(got, want);
    }

    #[test]
    fn slices_step(
        cuts in prop::collection::vec((1usize..7, 0usize..7, 0usize..7, -3i64..4), 1..4)
    ) {
        let shape: Vec<usize> = cuts.iter().map(|c| c.0).collect();
        let x = iota(&shape);
        let step: Vec<i64> = cuts.iter().map(|c| if c.3 == 0 { 1 } else { c.3 }).collect();
        let start: Vec<i64> = cuts.iter().map(|c| (c.1 % c.0) as i64).collect();
        let len: Vec<usize> = (0..shape.len())
            .map(|i| {
                let room = if step[i] > 0 { shape[i] as i64 - 1 - start[i] } else { start[i] };
                cuts[i].2.min((room / step[i].abs()) as usize + 1)
            })
            .collect();
        let prim = Prim::Slice {
            start: start.iter().map(|&s| Dim::from(s)).collect(),
            len: dims(&len),
            step: step.clone(),
        };
        let want = built(&len, |o| {
            let from = |i: usize| (start[i] + o[i] as i64 * step[i]) as usize;
            at(&x, &(0..o.len()).map(from).collect::<Vec<_>>())
        });
        prop_assert_eq!(run(prim, &[x]), want);
    }

    #[test]
    fn pads_and_crops(
        amounts in prop::collection::vec((1usize..5, -3i64..4, -3i64..4), 1..4),
        mode in prop::sample::select(vec![PadMode::Constant, PadMode::Edge, PadMode::Wrap]),
    ) {
        let shape: Vec<usize> = amounts.iter().map(|a| a.0).collect();
        let size = |a: &(usize, i64, i64)| usize::try_from(a.0 as i64 + a.1 + a.2).ok();
        let out: Option<Vec<usize>> = amounts.iter().map(size).collect();
        prop_assume!(out.is_some());
        let x = iota(&shape);
        let want = built(&out.unwrap(), |o| {
            let mut inside = vec![];
            for (i, a) in amounts.iter().enumerate() {
                let (p, n) = (o[i] as i64 - a.1, a.0 as i64);
                inside.push(match mode {
                    PadMode::Constant if p < 0 || p >= n => return 99,
                    PadMode::Edge => p.clamp(0, n - 1),
                    _ => p.rem_euclid(n),
                } as usize);
            }
            at(&x, &inside)
        });
        let prim = Prim::Pad {
            before: amounts.iter().map(|a| Dim::from(a.1)).collect(),
            after: amounts.iter().map(|a| Dim::from(a.2)).collect(),
            mode,
        };
        prop_assert_eq!(run(prim, &[x, Tensor::scalar(99i64)]), want);
    }

    #[test]
    fn gather_takes_slices(
        (shape, axis, picks) in shape().prop_flat_map(|s| {
            let n = s.len();
            (Just(s), 0..n, prop::collection::vec(any::<i64>(), 0..5))
        })
    ) {
        let n = shape[axis] as i64;
        let picks: Vec<i64> = picks.iter().map(|p| p.rem_euclid(2 * n) - n).collect();
        let x = iota(&shape);
        let mut to = shape.clone();
        to[axis] = picks.len();
        let want = built(&to, |o| {
            let mut i = o.to_vec();
            i[axis] = picks[o[axis]].rem_euclid(n) as usize;
            at(&x, &i)
        });
        let ix = Tensor::new(&[picks.len()], picks.clone()).unwrap();
        prop_assert_eq!(run(Prim::Gather { axis: axis as u32 }, &[x, ix]), want);
    }

    #[test]
    fn scatter_nd_then_gather_nd_reads_back(shape in prop::collection::vec(2usize..5, 2..4), batch in 0u32..2) {
        // Every position of all axes but the last, shuffled by a fixed stride.
        let lead = &shape[..shape.len() - 1];
        let rows = indices(lead);
        let order: Vec<i64> =
            (0..rows.len()).flat_map(|r| rows[rows.len() - 1 - r].iter().map(|&i| i as i64)).collect();
        let ix = Tensor::new(&[rows.len(), lead.len()], order).unwrap();
        let updates = iota(&[rows.len(), shape[shape.len() - 1]]);
        let zero = built(&shape, |_| 0);
        let filled = run(Prim::ScatterNd { op: ScatterOp::Set }, &[zero, ix.clone(), updates.clone()]);
        let back = run(Prim::GatherNd { batch: 0 }, &[filled.clone(), ix.clone()]);
        prop_assert_eq!(&back, &updates);
        let twice = run(Prim::ScatterNd { op: ScatterOp::Add }, &[filled.clone(), ix, updates]);
        prop_assert_eq!(twice, built(&shape, |i| 2 * at(&filled, i)));
        if batch == 1 {
            let last = built(&[shape[0], 1], |_| -1);
            let got = run(Prim::GatherNd { batch }, &[filled.clone(), last]);
            let want = built(&[&shape[..1], &shape[2..]].concat(), |i| {
                at(&filled, &[&[i[0], shape[1] - 1], &i[1..]].concat())
            });
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn scatter_elements_adds_in_place(
        (shape, axis) in shape().prop_flat_map(|s| { let n = s.len(); (Just(s), 0..n) })
    ) {
        let x = iota(&shape);
        let n = shape[axis];
        let ix = built(&shape, |i| (i.iter().sum::<usize>() % n) as i64 - n as i64);
        let u = built(&shape, |i| i.iter().fold(1, |f, &v| f * 3 + v as i64));
        let mut want = x.to_i64s().unwrap();
        for i in indices(&shape) {
            let mut to = i.clone();
            to[axis] = (at(&ix, &i) + n as i64) as usize;
            want[to.iter().zip(&shape).fold(0, |f, (&v, &d)| f * d + v)] += at(&u, &i);
        }
        let prim = Prim::ScatterElements { axis: axis as u32, op: ScatterOp::Add };
        let got = run(prim, &[x.clone(), ix.clone(), u]);
        prop_assert_eq!(got.to_i64s().unwrap(), want);
        let got = run(Prim::GatherElements { axis: axis as u32 }, &[x.clone(), ix.clone()]);
        prop_assert_eq!(got, built(&shape, |i| {
            let mut from = i.to_vec();
            from[axis] = (at(&ix, i) + n as i64) as usize;
            at(&x, &from)
        }));
    }

    #[test]
    fn reductions_and_scans_fold(
        (shape, mask) in shape().prop_flat_map(|s| { let n = s.len(); (Just(s), 1u32..(1 << n)) }),
        op in prop::sample::select(vec![ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min]),
    ) {
        let join = |a: i64, b: i64| match op {
            ReduceOp::Sum => a.wrapping_add(b),
            ReduceOp::Prod => a.wrapping_mul(b),
            ReduceOp::Max => a.max(b),
            _ => a.min(b),
        };
        let x = iota(&shape);
        let axes: Vec<u32> = (0..shape.len() as u32).filter(|a| mask >> a & 1 == 1).collect();
        let kept: Vec<usize> = (0..shape.len()).map(|i| if mask >> i & 1 == 1 { 1 } else { shape[i] }).collect();
        let want = built(&kept, |o| {
            let same = |i: &&Vec<usize>| (0..o.len()).all(|a| kept[a] == 1 || i[a] == o[a]);
            let all = indices(&shape);
            all.iter().filter(same).map(|i| at(&x, i)).reduce(join).unwrap()
        });
        let prim = Prim::Reduce { op, axes: axes.clone(), keep: true };
        prop_assert_eq!(run(prim, std::slice::from_ref(&x)), want);
        let axis = axes[0];
        let prim = Prim::Cumulative { op, axis, exclusive: false, reverse: true };
        let want = built(&shape, |o| {
            let a = axis as usize;
            (o[a]..shape[a]).rev().map(|v| {
                let mut i = o.to_vec();
                i[a] = v;
                at(&x, &i)
            }).reduce(join).unwrap()
        });
        prop_assert_eq!(run(prim, &[x]), want);
    }

    #[test]
    fn top_k_is_a_sort(v in prop::collection::vec(-5i64..5, 1..40), k in 0usize..40, largest in any::<bool>()) {
        let k = k.min(v.len());
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by_key(|&i| if largest { -v[i] } else { v[i] });
        let x = Tensor::new(&[v.len()], v.clone()).unwrap();
        let prim = Prim::TopK { k: Dim::from(k), axis: 0, largest, sorted: true };
        let out = fold(&prim, &[x], &Limits::default()).unwrap();
        prop_assert_eq!(out[0].to_i64s().unwrap(), order[..k].iter().map(|&i| v[i]).collect::<Vec<_>>());
        prop_assert_eq!(out[1].to_i64s().unwrap(), order[..k].iter().map(|&i| i as i64).collect::<Vec<_>>());
    }
}

#[test]
fn strings_move_within_limits() {
    let s = Tensor::strings(&[2], vec!["a".repeat(1000), "b".into()]).unwrap();
    let l = Limits { tensor_bytes: 100_000, ..Limits::default() };
    let prim = Prim::Broadcast { shape: vec![Dim::from(1000i64), Dim::from(2i64)] };
    assert!(fold(&prim, std::slice::from_ref(&s), &l).is_err());
    let ix = Tensor::new(&[2], vec![-1i32, 0]).unwrap();
    let out = fold(&Prim::Gather { axis: 0 }, &[s, ix], &l).unwrap();
    assert_eq!(out[0].as_strings()[0], "b");
}
