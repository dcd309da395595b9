//! Random operators against the means and variances of their distributions.

use super::{One, f32s};
use hub_abi::Dtype;

const DRAWS: usize = 4000;

/// Mean and variance of what an operator draws.
fn moments(kind: &str, ins: &[(&str, f32)], out: &str, dtype: Dtype) -> (f64, f64) {
    let mut one = One::legacy(kind);
    for &(slot, x) in ins {
        one = one.input(slot, f32s(&[DRAWS], &[x; DRAWS]));
    }
    let outs = one.run(&[(out, dtype)], 1);
    let xs: Vec<f64> = match dtype {
        Dtype::I64 => outs[0].view::<i64>().unwrap().iter().map(|&x| x as f64).collect(),
        _ => outs[0].view::<f32>().unwrap().iter().map(|&x| x.into()).collect(),
    };
    let mean = xs.iter().sum::<f64>() / DRAWS as f64;
    (mean, xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64)
}

#[track_caller]
fn check((mean, variance): (f64, f64), want: (f64, f64)) {
    // Five deviations of the mean; the variance within a sixth.
    let far = 5.0 * (want.1 / DRAWS as f64).sqrt();
    assert!((mean - want.0).abs() <= far, "mean {mean} of {}", want.0);
    assert!((variance / want.1 - 1.0).abs() < 1.0 / 6.0, "variance {variance} of {}", want.1);
}

#[test]
fn draws_follow_their_distributions() {
    for mean in [0.3f32, 4.0, 50.0, 900.0] {
        let got = moments("poisson", &[("X", mean)], "Out", Dtype::F32);
        check(got, (mean.into(), mean.into()));
    }
    for shape in [0.4f32, 1.0, 7.5] {
        let got = moments("standard_gamma", &[("x", shape)], "out", Dtype::F32);
        check(got, (shape.into(), shape.into()));
    }
    for (n, p) in [(10.0f32, 0.25f32), (40.0, 0.875), (1000.0, 0.5)] {
        let got = moments("binomial", &[("count", n), ("prob", p)], "out", Dtype::I64);
        let mean = f64::from(n) * f64::from(p);
        check(got, (mean, mean * (1.0 - f64::from(p))));
    }
}

#[test]
fn shares_add_up() {
    let d = One::legacy("dirichlet").input("Alpha", f32s(&[500, 3], &[1.0, 2.0, 5.0].repeat(500)));
    let outs = d.run(&[("Out", Dtype::F32)], 1);
    let xs = outs[0].view::<f32>().unwrap();
    let mut means = [0f64; 3];
    for row in xs.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        row.iter().zip(&mut means).for_each(|(&x, m)| *m += f64::from(x) / 500.0);
    }
    for (m, want) in means.iter().zip([0.125, 0.25, 0.625]) {
        assert!((m - want).abs() < 0.04, "{means:?}");
    }
}
