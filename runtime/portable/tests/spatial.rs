//! Convolutions and windows against their definitions, loop by loop.

use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};
use hub_portable::{Limits, Tensor, fold};
use proptest::prelude::*;

/// A case over two spatial axes: everything that shapes it.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    groups: usize,
    c: usize,
    m: usize,
    x: [usize; 2],
    k: [usize; 2],
    stride: [i64; 2],
    dilation: [i64; 2],
    before: [i64; 2],
    after: [i64; 2],
}

impl Case {
    fn geo(&self) -> Geometry {
        let dims = |v: [i64; 2]| v.map(Dim::from).to_vec();
        Geometry {
            stride: self.stride.to_vec(),
            dilation: self.dilation.to_vec(),
            before: dims(self.before),
            after: dims(self.after),
        }
    }
    fn out(&self, i: usize) -> i64 {
        let span = (self.k[i] as i64 - 1) * self.dilation[i] + 1;
        (self.x[i] as i64 + self.before[i] + self.after[i] - span).div_euclid(self.stride[i]) + 1
    }
    fn out_transposed(&self, i: usize) -> i64 {
        let span = (self.k[i] as i64 - 1) * self.dilation[i] + 1;
        (self.x[i] as i64 - 1) * self.stride[i] + span - self.before[i] - self.after[i]
    }
    /// Input coordinates that output (oh, ow) reads at tap (th, tw), where inside.
    fn at(&self, o: [usize; 2], t: [usize; 2]) -> Option<usize> {
        let one = |i: usize| {
            let p = o[i] as i64 * self.stride[i] + t[i] as i64 * self.dilation[i] - self.before[i];
            (0..self.x[i] as i64).contains(&p).then_some(p as usize)
        };
        Some(one(0)? * self.x[1] + one(1)?)
    }
}

fn pair<T: std::fmt::Debug>(s: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = [T; 2]> {
    [s.clone(), s]
}

fn case() -> impl Strategy<Value = Case> {
    let counts = (1usize..3, 1usize..4, 1usize..5, 1usize..7);
    let shapes = (pair(1usize..14), pair(1usize..4), pair(1i64..4), pair(1i64..3));
    let pads = (pair(-1i64..3), pair(-1i64..3));
    (counts, shapes, pads).prop_map(
        |((n, groups, c, m), (x, k, stride, dilation), (before, after))| Case {
            n,
            groups,
            c,
            m,
            x,
            k,
            stride,
            dilation,
            before,
            after,
        },
    )
}

fn ints(count: usize, k: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + k) % 13) as f32 - 6.0).collect()
}

fn tensor(dims: &[usize], k: usize) -> Tensor {
    Tensor::new(dims, ints(dims.iter().product(), k)).unwrap()
}

fn f32s(t: &Tensor) -> Vec<f32> {
    t.view::<f32>().unwrap().to_vec()
}

fn run(prim: Prim, inputs: &[Tensor]) -> Tensor {
    fold(&prim, inputs, &Limits::default()).unwrap().remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn conv_is_its_definition(s in case()) {
        prop_assume!(s.out(0) > 0 && s.out(1) > 0);
        let (oh, ow) = (s.out(0) as usize, s.out(1) as usize);
        let x = tensor(&[s.n, s.c * s.groups, s.x[0], s.x[1]], 1);
        let w = tensor(&[s.m * s.groups, s.c, s.k[0], s.k[1]], 5);
        let (xs, ws) = (f32s(&x), f32s(&w));
        let plane = s.x[0] * s.x[1];
        let mut want = vec![];
        for n in 0..s.n { for m in 0..s.m * s.groups { for i in 0..oh { for j in 0..ow {
            let mut sum = 0.0;
            for c in 0..s.c { for a in 0..s.k[0] { for b in 0..s.k[1] {
                if let Some(p) = s.at([i, j], [a, b]) {
                    let channel = n * s.c * s.groups + m / s.m * s.c + c;
                    sum += xs[channel * plane + p] * ws[((m * s.c + c) * s.k[0] + a) * s.k[1] + b];
                }
            } } }
            want.push(sum);
        } } } }
        let prim = Prim::Conv { geo: s.geo(), groups: s.groups as i64 };
        let got = run(prim.clone(), &[x.clone(), w.clone()]);
        prop_assert_eq!(got.dims(), [s.n, s.m * s.groups, oh, ow]);
        prop_assert_eq!(&f32s(&got), &want);
        let to = |t: &Tensor, to| run(Prim::Cast { to, saturate: false }, std::slice::from_ref(t));
        let bytes = run(prim, &[to(&x, Dtype::I8), to(&w, Dtype::I8)]);
        prop_assert_eq!(bytes.dtype(), Dtype::I32);
        prop_assert_eq!(f32s(&to(&bytes, Dtype::F32)), want);
    }

    #[test]
    fn conv_transpose_scatters_what_conv_gathers(s in case()) {
        prop_assume!(s.out_transposed(0) > 0 && s.out_transposed(1) > 0);
        let (oh, ow) = (s.out_transposed(0) as usize, s.out_transposed(1) as usize);
        let x = tensor(&[s.n, s.c * s.groups, s.x[0], s.x[1]], 1);
        let w = tensor(&[s.c * s.groups, s.m, s.k[0], s.k[1]], 5);
        let (xs, ws) = (f32s(&x), f32s(&w));
        let mut want = vec![0f32; s.n * s.m * s.groups * oh * ow];
        for n in 0..s.n { for c in 0..s.c * s.groups { for i in 0..s.x[0] { for j in 0..s.x[1] {
            for m in 0..s.m { for a in 0..s.k[0] { for b in 0..s.k[1] {
                let p = i as i64 * s.stride[0] + a as i64 * s.dilation[0] - s.before[0];
                let q = j as i64 * s.stride[1] + b as i64 * s.dilation[1] - s.before[1];
                if (0..oh as i64).contains(&p) && (0..ow as i64).contains(&q) {
                    let channel = n * s.m * s.groups + c / s.c * s.m + m;
                    want[(channel * oh + p as usize) * ow + q as usize] +=
                        xs[((n * s.c * s.groups + c) * s.x[0] + i) * s.x[1] + j]
                            * ws[((c * s.m + m) * s.k[0] + a) * s.k[1] + b];
                }
            } } }
        } } } }
        let got = run(Prim::ConvTranspose { geo: s.geo(), groups: s.groups as i64 }, &[x, w]);
        prop_assert_eq!(got.dims(), [s.n, s.m * s.groups, oh, ow]);
        prop_assert_eq!(f32s(&got), want);
    }

    #[test]
    fn windows_are_their_definition(s in case()) {
        prop_assume!(s.out(0) > 0 && s.out(1) > 0);
        let (oh, ow) = (s.out(0) as usize, s.out(1) as usize);
        let x = tensor(&[s.n, s.c, s.x[0], s.x[1]], 3);
        let xs = f32s(&x);
        let plane = s.x[0] * s.x[1];
        let (mut max, mut sum, mut arg) = (vec![], vec![], vec![]);
        for p in 0..s.n * s.c { for i in 0..oh { for j in 0..ow {
            let (mut best, mut total, mut at) = (f32::NEG_INFINITY, 0.0, -1i64);
            for a in 0..s.k[0] { for b in 0..s.k[1] {
                if let Some(q) = s.at([i, j], [a, b]) {
                    let v = xs[p * plane + q];
                    total += v;
                    if v > best { (best, at) = (v, (p * plane + q) as i64); }
                }
            } }
            max.push(best); sum.push(total); arg.push(at);
        } } }
        let kernel = s.k.map(|k| k as i64).to_vec();
        let window = |op| run(Prim::Window { op, kernel: kernel.clone(), geo: s.geo() }, std::slice::from_ref(&x));
        prop_assert_eq!(f32s(&window(ReduceOp::Max)), max);
        prop_assert_eq!(f32s(&window(ReduceOp::Sum)), sum);
        let prim = Prim::WindowArgMax { kernel: kernel.clone(), geo: s.geo(), column_major: false };
        prop_assert_eq!(run(prim, &[x]).to_i64s().unwrap(), arg);
    }
}

#[test]
fn storage_order_reverses_spatial_axes() {
    let x = Tensor::new(&[1, 1, 2, 3], vec![0f32, 0.0, 9.0, 0.0, 0.0, 0.0]).unwrap();
    let prim = |column_major| Prim::WindowArgMax {
        kernel: vec![2, 3],
        geo: Geometry::unit(2),
        column_major,
    };
    assert_eq!(run(prim(false), std::slice::from_ref(&x)).to_i64s().unwrap(), [2]);
    assert_eq!(run(prim(true), &[x]).to_i64s().unwrap(), [4]);
}

#[test]
fn one_and_three_spatial_axes() {
    let geo = Geometry {
        before: vec![Dim::from(1i64)],
        after: vec![Dim::from(1i64)],
        ..Geometry::unit(1)
    };
    let x = Tensor::new(&[1, 1, 3], vec![1f32, 2.0, 3.0]).unwrap();
    let w = Tensor::new(&[1, 1, 3], vec![1f32, 10.0, 100.0]).unwrap();
    let y = run(Prim::Conv { geo, groups: 1 }, &[x, w]);
    assert_eq!(f32s(&y), [210.0, 321.0, 32.0]);
    let x = tensor(&[1, 2, 3, 3, 3], 0);
    let w = tensor(&[4, 2, 3, 3, 3], 2);
    let want: f32 = f32s(&x).iter().zip(&f32s(&w)).map(|(a, b)| a * b).sum();
    let y = run(Prim::Conv { geo: Geometry::unit(3), groups: 1 }, &[x, w]);
    assert_eq!(y.dims(), [1, 4, 1, 1, 1]);
    assert_eq!(f32s(&y)[0], want);
}

#[test]
fn hostile_geometry_is_refused() {
    let x = tensor(&[1, 1, 4, 4], 0);
    let w = tensor(&[1, 1, 2, 2], 0);
    let far = |v: i64| Geometry {
        before: vec![Dim::from(v); 2],
        after: vec![Dim::from(v); 2],
        ..Geometry::unit(2)
    };
    for geo in [far(1 << 40), far(i64::MAX / 2), far(-3), far(i64::MIN / 4)] {
        let l = Limits::default();
        assert!(
            fold(&Prim::Conv { geo: geo.clone(), groups: 1 }, &[x.clone(), w.clone()], &l).is_err()
        );
        let window = Prim::Window { op: ReduceOp::Max, kernel: vec![2, 2], geo };
        assert!(fold(&window, std::slice::from_ref(&x), &l).is_err());
    }
    let geo = Geometry { stride: vec![0, 1], ..Geometry::unit(2) };
    assert!(
        fold(&Prim::Conv { geo, groups: 1 }, &[x.clone(), w.clone()], &Limits::default()).is_err()
    );
    let wide = Geometry { after: vec![Dim::from(1i64 << 33); 2], ..Geometry::unit(2) };
    let window = Prim::Window { op: ReduceOp::Max, kernel: vec![1 << 33, 1 << 33], geo: wide };
    assert!(fold(&window, &[x], &Limits::default()).is_err());
}
