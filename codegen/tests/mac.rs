//! Contractions, convolutions and windows against their portable meaning: shapes, layouts, tails,
//! sizes bound late, epilogues.

mod placed;

use hub_abi::Dtype;
use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_codegen::lower::{contract, conv, window};
use placed::problem::*;
use placed::{Layout, pick};

fn matmul() -> Prim {
    Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] }
}

#[test]
fn matrix_products() {
    let mut seed = 1;
    for t in targets() {
        for (m, k, n) in
            [(1, 40, 33), (5, 7, 16), (30, 20, 100), (17, 33, 48), (3, 5, 7), (14, 1, 32)]
        {
            for end in ENDS {
                for constant in [true, false] {
                    let fixed = vec![false; 2];
                    let specs = [(vec![m, k], fixed.clone(), false), (vec![k, n], fixed, constant)];
                    group(&mut seed, matmul(), &specs, end, 1).group.check(&t, contract::lower);
                }
            }
        }
    }
}

#[test]
fn sizes_bound_late() {
    let mut seed = 2;
    for t in targets() {
        for (m, k, n) in [(1, 9, 33), (29, 20, 50), (6, 5, 17)] {
            let m_late =
                [(vec![m, k], vec![true, false], false), (vec![k, n], vec![false; 2], true)];
            group(&mut seed, matmul(), &m_late, End::BiasRelu, 1).group.check(&t, contract::lower);
            let all = [(vec![m, k], vec![true; 2], false), (vec![k, n], vec![true; 2], false)];
            group(&mut seed, matmul(), &all, End::ResidualSilu, 1).group.check(&t, contract::lower);
        }
    }
}

/// Labels of a, b and the output, sizes of a and b, whether b is a constant, the feature axis.
type Labels<'a> = (&'a [u8], &'a [u8], &'a [u8], [&'a [usize]; 2], bool, usize);

#[test]
fn labels_in_any_place() {
    let mut seed = 3;
    // Attention's scores and values, a swapped constant, several row and feature labels.
    let cases: [Labels<'_>; 12] = [
        (&[0, 1, 2, 3], &[0, 1, 4, 3], &[0, 1, 2, 4], [&[2, 3, 9, 8], &[2, 3, 11, 8]], false, 3),
        (&[0, 1, 2, 4], &[0, 4, 1, 3], &[0, 2, 1, 3], [&[2, 3, 9, 7], &[2, 7, 3, 20]], false, 3),
        (&[1, 0], &[2, 0], &[2, 1], [&[40, 12], &[9, 12]], false, 1),
        (&[0, 1], &[1, 2, 3], &[0, 2, 3], [&[6, 10], &[10, 3, 32]], true, 2),
        (&[0, 1, 2], &[1, 2, 3], &[0, 3], [&[6, 5, 4], &[5, 4, 19]], true, 1),
        (&[0, 1, 2], &[3, 1, 2], &[0, 3], [&[6, 5, 4], &[19, 5, 4]], true, 1),
        (&[0, 1], &[1], &[0], [&[21, 10], &[10]], true, 0),
        // Summed on one side only, outer products, constants that packing does not know.
        (&[0, 1, 3], &[1, 2, 4], &[0, 2], [&[5, 6, 3], &[6, 20, 2]], false, 1),
        (&[0], &[1], &[0, 1], [&[5], &[20]], false, 1),
        (&[0, 1, 3], &[1, 2, 3], &[0, 2], [&[5, 6, 3], &[6, 20, 3]], true, 1),
        (&[0, 1], &[1, 2, 3], &[0, 2, 3], [&[6, 10], &[10, 3, 20]], true, 2),
        (&[0, 1], &[2, 1], &[0, 2], [&[9, 10], &[1, 10]], true, 1),
    ];
    for t in targets() {
        for (a, b, out, dims, constant, feature) in cases {
            let prim = Prim::Contract { a: a.to_vec(), b: b.to_vec(), out: out.to_vec() };
            let spec = |i: usize, c| (dims[i].to_vec(), vec![false; dims[i].len()], c);
            let specs = [spec(0, a == [1, 0]), spec(1, constant)];
            group(&mut seed, prim, &specs, End::BiasRelu, feature).group.check(&t, contract::lower);
        }
    }
}

#[test]
fn a_dot_product() {
    let mut seed = 30;
    for t in targets() {
        let prim = Prim::Contract { a: vec![0], b: vec![0], out: vec![] };
        let specs = [(vec![50], vec![false], false), (vec![50], vec![false], false)];
        let mut m = group(&mut seed, prim, &specs, End::Nothing, 0);
        m.group.check(&t, contract::lower);
    }
}

fn check_conv(
    seed: &mut u64,
    x: &[usize],
    w: &[usize],
    geo: Geometry,
    groups: i64,
    end: End,
    late: bool,
) {
    for t in targets() {
        let mut when = vec![late; x.len()];
        when[1] = false;
        let specs = [(x.to_vec(), when, false), (w.to_vec(), vec![false; w.len()], true)];
        let prim = Prim::Conv { geo: geo.clone(), groups };
        let mut m = group(seed, prim, &specs, end, 1);
        if pick(seed, 2) == 0 {
            m.group.inputs[0].layout = Layout::unit(x.len(), 1);
        }
        m.group.check(&t, conv::lower);
    }
}

#[test]
fn convolutions() {
    let s = &mut 4;
    let one = geometry(&[1, 1], &[1, 1], &[0, 0], &[0, 0]);
    let same = geometry(&[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    check_conv(s, &[1, 20, 5, 9], &[33, 20, 1, 1], one.clone(), 1, End::BiasRelu, false);
    check_conv(s, &[2, 16, 7, 7], &[32, 16, 3, 3], same.clone(), 1, End::ResidualSilu, false);
    check_conv(
        s,
        &[1, 3, 15, 17],
        &[18, 3, 7, 7],
        geometry(&[2, 2], &[1, 1], &[3, 3], &[3, 2]),
        1,
        End::BiasRelu,
        false,
    );
    check_conv(
        s,
        &[1, 8, 12, 10],
        &[16, 8, 3, 2],
        geometry(&[1, 2], &[2, 3], &[2, 0], &[1, 3]),
        1,
        End::Nothing,
        false,
    );
    check_conv(s, &[1, 12, 6, 6], &[18, 4, 3, 3], same.clone(), 3, End::BiasRelu, false);
    check_conv(s, &[1, 6, 5, 5], &[12, 1, 3, 3], same, 6, End::ResidualSilu, false);
    check_conv(
        s,
        &[1, 10, 23],
        &[20, 10, 5],
        geometry(&[1], &[1], &[2], &[2]),
        1,
        End::BiasRelu,
        false,
    );
    check_conv(
        s,
        &[1, 4, 4, 5, 6],
        &[17, 4, 2, 3, 3],
        geometry(&[1; 3], &[1; 3], &[0, 1, 1], &[1, 1, 1]),
        1,
        End::BiasRelu,
        false,
    );
    check_conv(s, &[2, 16, 9, 30], &[16, 16, 1, 1], one, 1, End::BiasRelu, true);
    check_conv(
        s,
        &[1, 16, 9, 21],
        &[40, 16, 3, 3],
        geometry(&[2, 1], &[1, 1], &[1, 1], &[1, 1]),
        1,
        End::ResidualSilu,
        true,
    );
}

#[test]
fn few_output_channels() {
    let seed = &mut 17;
    for (x, w, geo, late) in [
        (
            vec![1, 32, 9, 21],
            vec![3, 32, 7, 7],
            geometry(&[1, 1], &[1, 1], &[3, 3], &[3, 3]),
            false,
        ),
        (
            vec![2, 16, 8, 13],
            vec![1, 16, 3, 2],
            geometry(&[2, 1], &[1, 2], &[0, 1], &[1, 2]),
            false,
        ),
        (vec![2, 48, 5, 30], vec![4, 48, 1, 1], geometry(&[1, 1], &[1, 1], &[0, 0], &[0, 0]), true),
        (vec![1, 64, 77], vec![2, 64, 5], geometry(&[1], &[1], &[2], &[2]), true),
    ] {
        for (t, end) in targets().into_iter().zip(ENDS.into_iter().cycle()) {
            let mut when = vec![late; x.len()];
            when[1] = false;
            let specs = [(x.clone(), when, false), (w.clone(), vec![false; w.len()], true)];
            let mut m = group(seed, Prim::Conv { geo: geo.clone(), groups: 1 }, &specs, end, 1);
            m.group.inputs[0].layout = Layout::unit(x.len(), 1);
            let how = m.group.check(&t, conv::lower);
            assert_eq!(how.starts_with("across"), t.own_core, "{how}");
        }
    }
}

#[test]
fn filters_that_are_computed() {
    let mut seed = 31;
    for t in targets() {
        for (m, groups) in [(20, 1), (12, 2), (6, 6)] {
            let geo = geometry(&[1, 1], &[1, 1], &[1, 1], &[1, 1]);
            let w = vec![m, 6 / groups, 3, 3];
            let specs = [(vec![1, 6, 5, 7], vec![false; 4], false), (w, vec![false; 4], false)];
            let prim = Prim::Conv { geo, groups: groups as i64 };
            group(&mut seed, prim, &specs, End::BiasRelu, 1).group.check(&t, conv::lower);
        }
    }
}

#[test]
fn depthwise_convolutions() {
    let s = &mut 5;
    let same = |k: i64| geometry(&[1, 1], &[1, 1], &[k / 2, k / 2], &[k / 2, k / 2]);
    check_conv(s, &[1, 40, 9, 11], &[40, 1, 3, 3], same(3), 40, End::BiasRelu, false);
    check_conv(s, &[2, 33, 7, 7], &[33, 1, 5, 5], same(5), 33, End::ResidualSilu, false);
    check_conv(
        s,
        &[1, 16, 14, 13],
        &[16, 1, 3, 3],
        geometry(&[2, 2], &[1, 1], &[1, 1], &[1, 0]),
        16,
        End::BiasRelu,
        false,
    );
    check_conv(
        s,
        &[1, 24, 30],
        &[24, 1, 4],
        geometry(&[1], &[2], &[3], &[3]),
        24,
        End::Nothing,
        false,
    );
    check_conv(s, &[1, 20, 6, 30], &[20, 1, 3, 3], same(3), 20, End::BiasRelu, true);
    check_conv(
        s,
        &[1, 8, 25, 25],
        &[8, 1, 1, 21],
        geometry(&[1, 1], &[1, 1], &[0, 2], &[0, 2]),
        8,
        End::Nothing,
        false,
    );
}

#[test]
fn windows() {
    let s = &mut 6;
    for t in targets() {
        for op in [ReduceOp::Max, ReduceOp::Sum] {
            let cases: [(&[usize], &[i64], Geometry, bool); 6] = [
                (&[1, 20, 9, 9], &[3, 3], geometry(&[2, 2], &[1, 1], &[1, 1], &[1, 1]), false),
                (&[2, 33, 7, 7], &[7, 7], geometry(&[1, 1], &[1, 1], &[0, 0], &[0, 0]), false),
                (&[1, 16, 8, 10], &[2, 2], geometry(&[2, 2], &[1, 1], &[0, 0], &[0, 0]), true),
                (&[1, 5, 17], &[3], geometry(&[1], &[2], &[2], &[2]), false),
                (&[1, 18, 90], &[70], geometry(&[3], &[1], &[2], &[2]), false),
                (&[1, 3, 4, 5, 6], &[2, 2, 2], geometry(&[1; 3], &[1; 3], &[0; 3], &[0; 3]), false),
            ];
            for (x, kernel, geo, late) in cases {
                let mut when = vec![late; x.len()];
                when[1] = false;
                let prim = Prim::Window { op, kernel: kernel.to_vec(), geo };
                let mut m = group(s, prim, &[(x.to_vec(), when, false)], End::BiasRelu, 1);
                m.group.fill = if op == ReduceOp::Max { f64::NEG_INFINITY } else { 0.0 };
                m.group.check(&t, window::lower);
            }
        }
    }
}

#[test]
fn other_types() {
    use Dtype::*;
    let mut seed = 7;
    for t in targets() {
        for d in [[F64, F64], [F16, F16], [BF16, BF16], [I32, I32], [I8, I8], [U8, I8]] {
            for constant in [true, false] {
                let fixed = vec![false; 2];
                let specs = [(vec![9, 20], fixed.clone(), false), (vec![20, 37], fixed, constant)];
                let mut m = typed(&mut seed, matmul(), &specs, End::Nothing, 1, d);
                m.group.check(&t, contract::lower);
            }
            let specs = [
                (vec![1, 5, 6, 9], vec![false; 4], false),
                (vec![18, 5, 3, 3], vec![false; 4], true),
            ];
            let geo = geometry(&[1, 1], &[1, 1], &[1, 1], &[1, 1]);
            let prim = Prim::Conv { geo: geo.clone(), groups: 1 };
            typed(&mut seed, prim, &specs, End::Nothing, 1, d).group.check(&t, conv::lower);
            if d[0] == d[1] {
                let prim = Prim::Window { op: ReduceOp::Max, kernel: vec![2, 3], geo };
                let mut m = typed(&mut seed, prim, &specs[..1], End::Nothing, 1, d);
                m.group.fill = match d[0] {
                    I8 => -128.0,
                    I32 => i32::MIN as f64,
                    _ => f64::NEG_INFINITY,
                };
                m.group.check(&t, window::lower);
            }
        }
    }
}

#[test]
fn a_window_keeps_nan() {
    let mut seed = 8;
    for t in targets() {
        let prim = Prim::Window {
            op: ReduceOp::Max,
            kernel: vec![3, 3],
            geo: geometry(&[1, 1], &[1, 1], &[0, 0], &[0, 0]),
        };
        let spec = (vec![1, 17, 8, 8], vec![false; 4], false);
        let mut m = group(&mut seed, prim, &[spec], End::Nothing, 1);
        let x = &mut m.group.inputs[0].tensor;
        let mut v = x.view::<f32>().unwrap().to_vec();
        for i in (0..v.len()).step_by(37) {
            v[i] = f32::NAN;
        }
        *x = hub_portable::Tensor::new(&[1, 17, 8, 8], v).unwrap();
        m.group.check(&t, window::lower);
    }
}

#[test]
fn random_problems() {
    let s = &mut 9;
    for _ in 0..40 {
        let mut p = |n| pick(s, n) as usize;
        let (k, st, di) = (1 + p(4), 1 + p(2), 1 + p(2));
        let groups = [1, 1, 2, 3][p(4)];
        let (c, m) = (groups * (1 + p(9)), groups * (1 + p(24)));
        let (h, w) = (di * (k - 1) + 1 + p(6), di * (k - 1) + 1 + p(20));
        let (before, after) = (p(3) as i64, p(3) as i64);
        let (late, batch, end) = (p(3) == 0, 1 + p(2), ENDS[p(3)]);
        let geo = geometry(&[st as i64; 2], &[di as i64; 2], &[before; 2], &[after; 2]);
        check_conv(s, &[batch, c, h, w], &[m, c / groups, k, k], geo, groups as i64, end, late);
    }
    for _ in 0..40 {
        let mut p = |n| pick(s, n) as usize;
        let (m, k, n) = (1 + p(40), 1 + p(70), 1 + p(80));
        let (constant, end) = (p(2) == 0, ENDS[p(3)]);
        let (ml, kl, nl) = (p(2) == 0, p(2) == 0 && !constant, p(2) == 0 && !constant);
        for t in targets() {
            let specs = [(vec![m, k], vec![ml, kl], false), (vec![k, n], vec![kl, nl], constant)];
            group(s, matmul(), &specs, end, 1).group.check(&t, contract::lower);
        }
    }
}

/// A permutation of `0..n`.
fn shuffled(seed: &mut u64, n: usize) -> Vec<usize> {
    let mut v: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        v.swap(i, pick(seed, i as u64 + 1) as usize);
    }
    v
}

#[test]
fn random_labels() {
    let s = &mut 10;
    for _ in 0..150 {
        let sizes: Vec<usize> = (0..5).map(|_| [1, 2, 3, 5, 17, 33][pick(s, 6) as usize]).collect();
        let order = shuffled(s, 5);
        // Of every label: in a, in b, or both; in the output or not.
        let kinds: Vec<(u64, u64)> = (0..5).map(|_| (pick(s, 3), pick(s, 2))).collect();
        let side = |not: u64| -> Vec<u8> {
            order.iter().filter(|&&l| kinds[l].0 != not).map(|&l| l as u8).collect()
        };
        let (a, mut b) = (side(0), side(1));
        b.reverse();
        let out: Vec<u8> =
            shuffled(s, 5).into_iter().filter(|&l| kinds[l].1 == 0).map(|l| l as u8).collect();
        let total: usize = sizes.iter().product();
        // A sum of more is small beside what it cancels, and so are its right digits.
        if out.is_empty() || total > 20_000 {
            continue;
        }
        let (constant, late) = (pick(s, 3) == 0, pick(s, 3) == 0);
        let dims = |l: &[u8]| -> Vec<usize> { l.iter().map(|&l| sizes[l as usize]).collect() };
        let specs = [
            (dims(&a), vec![late && !constant; a.len()], false),
            (dims(&b), vec![late && !constant; b.len()], constant),
        ];
        let feature = pick(s, out.len() as u64) as usize;
        for t in targets() {
            let prim = Prim::Contract { a: a.clone(), b: b.clone(), out: out.clone() };
            let end = ENDS[pick(s, 3) as usize];
            let mut m = group(s, prim, &specs, end, feature);
            m.group.inputs[0].layout.order = shuffled(s, a.len());
            if !constant {
                m.group.inputs[1].layout.order = shuffled(s, b.len());
            }
            m.group.check(&t, contract::lower);
        }
    }
}

#[test]
fn random_windows() {
    let s = &mut 11;
    for round in 0..60 {
        let mut p = |n| pick(s, n) as usize;
        let rank = 1 + p(3);
        let (st, di) = (1 + p(3) as i64, 1 + p(2) as i64);
        let kernel: Vec<i64> = (0..rank).map(|_| 1 + p(4) as i64).collect();
        let c = [3, 16, 20, 40][p(4)];
        let before: Vec<i64> = kernel.iter().map(|&k| p(k as u64) as i64).collect();
        let sides: Vec<usize> =
            kernel.iter().map(|&k| (di * (k - 1)) as usize + 1 + p(9)).collect();
        let x = [vec![1 + p(2), c], sides].concat();
        let geo = geometry(&vec![st; rank], &vec![di; rank], &before, &before);
        let (end, late) = (ENDS[p(3)], p(3) == 0);
        if round % 2 == 0 {
            let w = [vec![c, 1], kernel.iter().map(|&k| k as usize).collect()].concat();
            check_conv(s, &x, &w, geo, c as i64, end, late);
            continue;
        }
        let op = if p(2) == 0 { ReduceOp::Max } else { ReduceOp::Sum };
        let mut when = vec![late; x.len()];
        when[1] = false;
        for t in targets() {
            let prim = Prim::Window { op, kernel: kernel.clone(), geo: geo.clone() };
            let mut m = group(s, prim, &[(x.clone(), when.clone(), false)], end, 1);
            m.group.fill = if op == ReduceOp::Max { f64::NEG_INFINITY } else { 0.0 };
            m.group.check(&t, window::lower);
        }
    }
}
