//! The elementary functions against the system's libm in f64, over dense sweeps through the
//! interpreter, which defines what the kernels mean.

use hub_abi::Dtype;
use hub_codegen::kir::interp::{Arg, run};
use hub_codegen::kir::{Access, Addr, Elem, KernelBuilder, Reg, RegTy, math, verify};

/// Applies a unary function to all of `xs`.
fn apply(f: fn(&mut KernelBuilder, Reg) -> Reg, xs: &[f32]) -> Vec<f32> {
    let mut b = KernelBuilder::new("f");
    let src = b.ptr("x", Dtype::F32, Access::Read);
    let dst = b.ptr("y", Dtype::F32, Access::Write);
    let t = b.grid("t", (xs.len() / 16) as i64);
    let x = b.load(RegTy::new(Elem::F32, 16), Addr::param(src).plus(t, 64), Dtype::F32, None);
    let y = f(&mut b, x);
    b.store(y, Addr::param(dst).plus(t, 64), Dtype::F32, None);
    let k = b.finish();
    verify(&k).unwrap();
    let bytes: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut bufs = vec![bytes.clone(), vec![0; bytes.len()]];
    let args = [Arg::Buf { buf: 0, offset: 0 }, Arg::Buf { buf: 1, offset: 0 }];
    run(&k, &args, &mut bufs, 0..(xs.len() / 16) as u64).unwrap();
    bufs[1].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// Every `step`-th float by bit pattern: all exponents, both signs, denormals, infinities, NaN.
fn all_floats(step: u32) -> Vec<f32> {
    let mut v: Vec<f32> = (0..u32::MAX / step).map(|i| f32::from_bits(i * step)).collect();
    v.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -1.0, 0.5]);
    v.resize(v.len().next_multiple_of(16), 2.0);
    v
}

/// Distance of `got` from `want` in units of the last place of `want` rounded to f32.
fn ulps(got: f32, want: f64) -> f64 {
    let w = want as f32;
    if w.is_nan() || got.is_nan() || w.is_infinite() || got.is_infinite() {
        let same = (w.is_nan() && got.is_nan()) || w == got;
        // within half an ulp of the overflow threshold either answer is right
        let edge = want.abs() > 3.4028e38 && want.abs() < 3.4030e38;
        return if same || edge { 0.0 } else { f64::INFINITY };
    }
    let e = w.abs().max(f32::MIN_POSITIVE);
    let ulp = (f32::from_bits(e.to_bits() + 1) - e) as f64;
    (got as f64 - want).abs() / ulp
}

fn check(
    name: &str,
    f: fn(&mut KernelBuilder, Reg) -> Reg,
    oracle: impl Fn(f64) -> f64,
    limit: f64,
    inside: impl Fn(f32) -> bool,
) {
    let xs: Vec<f32> = all_floats(20_011);
    let ys = apply(f, &xs);
    let (mut worst, mut at) = (0.0, 0.0);
    for (x, y) in xs.iter().zip(&ys).filter(|(x, _)| inside(**x)) {
        let u = ulps(*y, oracle(*x as f64));
        if u > worst {
            (worst, at) = (u, *x);
        }
    }
    println!("{name}: {worst:.2} ulp at {at:e}");
    assert!(worst <= limit, "{name}: {worst} ulp at {at:e}, {limit} promised");
}

fn any(_: f32) -> bool {
    true
}

#[test]
fn exponentials_and_logarithms() {
    check("exp", math::exp, f64::exp, 1.5, any);
    check("exp2", math::exp2, f64::exp2, 1.5, any);
    check("expm1", math::expm1, f64::exp_m1, 2.5, any);
    check("log", math::log, f64::ln, 1.5, any);
    check("log2", math::log2, f64::log2, 2.5, any);
    check("log1p", math::log1p, f64::ln_1p, 2.5, any);
}

#[test]
fn activations() {
    check(
        "sigmoid",
        math::sigmoid,
        |x| 1.0 / (1.0 + (-x).exp()),
        2.5,
        |x| x.is_nan() || x >= -87.0,
    );
    check("tanh", math::tanh, f64::tanh, 2.0, any);
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let normal = |x: f32| x.is_nan() || x >= -87.0;
    check("near sigmoid", math::near::sigmoid, logistic, 24.0, normal);
    check("near sigmoid", math::near::sigmoid, logistic, 5.0, |x| x.abs() < 8.0);
    check("near tanh", math::near::tanh, f64::tanh, 4.0, any);
    check("softplus", math::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 3.0, any);
    check("erf", math::erf, erf, 2.0, any);
}

#[test]
fn trigonometry() {
    check("atan", math::atan, f64::atan, 3.0, any);
    check("asin", math::asin, f64::asin, 3.0, any);
    check("sinh", math::sinh, f64::sinh, 4.0, any);
    check("cosh", math::cosh, f64::cosh, 4.0, any);
    check("asinh", math::asinh, f64::asinh, 4.0, |x| x.is_nan() || x.abs() <= 1e18);
    check("acosh", math::acosh, f64::acosh, 4.0, |x| x.is_nan() || x.abs() <= 1e18);
    check("atanh", math::atanh, f64::atanh, 4.0, any);
    for (name, f, g) in [
        ("sin", math::sin as fn(&mut KernelBuilder, Reg) -> Reg, f64::sin as fn(f64) -> f64),
        ("cos", math::cos, f64::cos),
        ("acos", math::acos, f64::acos),
    ] {
        let xs: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 0.617).collect();
        let xs: Vec<f32> =
            if name == "acos" { xs.iter().map(|x| x / 98_720.0).collect() } else { xs };
        let limit = if name == "acos" { 4e-7 } else { 1.2e-7 };
        for (x, y) in xs.iter().zip(apply(f, &xs)) {
            let d = (y as f64 - g(*x as f64)).abs();
            assert!(d <= limit, "{name} {x}: {y}, off by {d:e}");
        }
    }
}

#[test]
fn powers() {
    let edge = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.333,
        -0.75,
        1e-40,
        1e30,
        -1e30,
        7.0,
        1.0e-3,
        123.456,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16777216.0,
        0.99999,
        1.00001,
        88.5,
        -45.0,
    ];
    for y in edge {
        let xs: Vec<f32> = all_floats(1_000_003).into_iter().chain(edge).collect();
        let n = xs.len() / 16 * 16;
        let xs = &xs[xs.len() - n..];
        let got = apply_with(y, xs);
        for (x, g) in xs.iter().zip(got) {
            let u = ulps(g, (*x as f64).powf(y as f64));
            assert!(u <= 4.0, "pow({x:e}, {y:e}) = {g:e}, {u} ulp off");
        }
    }
}

fn apply_with(y: f32, xs: &[f32]) -> Vec<f32> {
    let mut b = KernelBuilder::new("pow");
    let src = b.ptr("x", Dtype::F32, Access::Read);
    let dst = b.ptr("y", Dtype::F32, Access::Write);
    let t = b.grid("t", (xs.len() / 16) as i64);
    let ty = RegTy::new(Elem::F32, 16);
    let x = b.load(ty, Addr::param(src).plus(t, 64), Dtype::F32, None);
    let k = b.const_bits(ty, y.to_bits() as u64);
    let r = math::pow(&mut b, x, k);
    b.store(r, Addr::param(dst).plus(t, 64), Dtype::F32, None);
    let k = b.finish();
    verify(&k).unwrap();
    let bytes: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut bufs = vec![bytes.clone(), vec![0; bytes.len()]];
    let args = [Arg::Buf { buf: 0, offset: 0 }, Arg::Buf { buf: 1, offset: 0 }];
    run(&k, &args, &mut bufs, 0..(xs.len() / 16) as u64).unwrap();
    bufs[1].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

unsafe extern "C" {
    #[link_name = "erf"]
    safe fn c_erf(x: f64) -> f64;
}

fn erf(x: f64) -> f64 {
    c_erf(x)
}
