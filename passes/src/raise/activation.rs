//! Activation functions.

use super::{When, on_slot_0, rule};
use crate::rewrite::{Match, Pat, Replacement, Rule, always};
use Pat::{Any, Num, NumIn, Slot, Src};
use hub_abi::prim::{BinaryOp, UnaryOp};
use hub_ir::build::Builder;
use hub_ir::ops::activation::Activation;
use hub_ir::{Graph, Source};
use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

/// Slot 0 is the argument.
pub const RULES: &[Rule] = &[
    rule("raise-sigmoid", sigmoid, always, |b, m| Ok(vec![b.un(UnaryOp::Sigmoid, m.v(0))?])),
    rule("raise-clip", clip, ordered, |b, m| {
        on_slot_0(b, m, Activation::Clip { lo: m.num(0), hi: m.num(1) })
    }),
    rule("raise-gelu", gelu_erf, always, |b, m| on_slot_0(b, m, Activation::Gelu)),
    rule("raise-gelu-tanh", gelu_tanh, always, |b, m| on_slot_0(b, m, Activation::GeluTanh)),
    rule("raise-hard-sigmoid", hard_sigmoid, always, |b, m| {
        on_slot_0(b, m, Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 })
    }),
    rule("raise-hard-swish", hard_swish, always, |b, m| {
        on_slot_0(b, m, Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 })
    }),
    rule("raise-silu", silu, always, |b, m| on_slot_0(b, m, Activation::Swish { beta: 1.0 })),
    rule("raise-swish", swish, float, scaled_swish),
    rule("raise-softplus", softplus, always, |b, m| on_slot_0(b, m, Activation::Softplus)),
    rule("raise-mish", mish, always, |b, m| on_slot_0(b, m, Activation::Mish)),
];

/// `1 / (1 + exp(-x))`.
fn sigmoid() -> Pat {
    let grown = || Pat::plus(Pat::un(UnaryOp::Exp, Pat::un(UnaryOp::Neg, Slot(0))), Num(1.0));
    Any(vec![Pat::over(Num(1.0), grown()), Pat::un(UnaryOp::Recip, grown())])
}

/// `min(max(x, lo), hi)` and the other way round.
fn clip() -> Pat {
    let low = |x| Pat::bin(BinaryOp::Max, x, NumIn(0));
    let high = |x| Pat::bin(BinaryOp::Min, x, NumIn(1));
    Any(vec![high(low(Slot(0))), low(high(Slot(0)))])
}

fn ordered(g: &Graph, m: &Match) -> When {
    float(g, m)?;
    if m.num(0) <= m.num(1) { Ok(()) } else { Err("the lower bound is above the upper one") }
}

fn float(g: &Graph, m: &Match) -> When {
    if g.dtype(m.v(0)).is_float() { Ok(()) } else { Err("not a float") }
}

/// Everything that is `x/2 * (1 + t)`: torch halves last or first, Paddle and TensorFlow halve the
/// sum, or both factors of it.
fn half_of(t: impl Fn() -> Pat) -> Pat {
    let x = || Slot(0);
    let sum = || Pat::plus(t(), Num(1.0));
    let halved = |p| Any(vec![Pat::times(Num(0.5), p)]);
    Any(vec![
        Pat::times(halved(x()), sum()),
        halved(Pat::times(x(), sum())),
        Pat::times(x(), halved(sum())),
        Pat::times(x(), Pat::plus(halved(t()), Num(0.5))),
        Pat::over(Pat::times(x(), sum()), Num(2.0)),
        Pat::times(Pat::over(x(), Num(2.0)), sum()),
        Pat::times(x(), Pat::over(sum(), Num(2.0))),
    ])
}

fn gelu_erf() -> Pat {
    half_of(|| {
        let scaled =
            Any(vec![Pat::times(Slot(0), Num(FRAC_1_SQRT_2)), Pat::over(Slot(0), Num(SQRT_2))]);
        Pat::un(UnaryOp::Erf, scaled)
    })
}

fn gelu_tanh() -> Pat {
    half_of(|| {
        let x = || Slot(0);
        let square = || Any(vec![Pat::times(x(), x()), Pat::bin(BinaryOp::Pow, x(), Num(2.0))]);
        let cube = || Any(vec![Pat::times(square(), x()), Pat::bin(BinaryOp::Pow, x(), Num(3.0))]);
        let k = || Num(0.044715);
        let root = || Num((2.0 / PI).sqrt());
        let plain = || {
            Any(vec![
                Pat::plus(x(), Pat::times(k(), cube())),
                Pat::times(x(), Pat::plus(Pat::times(k(), square()), Num(1.0))),
                Pat::times(x(), Pat::plus(Pat::times(Pat::times(k(), x()), x()), Num(1.0))),
                Pat::plus(x(), Pat::times(Pat::times(Pat::times(k(), x()), x()), x())),
            ])
        };
        let factor = || Pat::plus(Pat::times(k(), square()), Num(1.0));
        let nested = || Pat::plus(Pat::times(Pat::times(k(), x()), x()), Num(1.0));
        let argument = Any(vec![
            Pat::times(root(), plain()),
            Pat::times(Pat::times(root(), x()), factor()),
            Pat::times(Pat::times(root(), x()), nested()),
        ]);
        Pat::un(UnaryOp::Tanh, argument)
    })
}

fn is_relu6(s: &Source) -> bool {
    matches!(s, Source::Activation(Activation::Clip { lo, hi }) if *lo == 0.0 && *hi == 6.0)
}

/// `relu6(x + 3)`.
fn clipped() -> Pat {
    Src(is_relu6, vec![Pat::plus(Slot(0), Num(3.0))])
}

fn hard_sigmoid() -> Pat {
    Any(vec![Pat::over(clipped(), Num(6.0)), Pat::times(clipped(), Num(1.0 / 6.0))])
}

fn is_hard_sigmoid(s: &Source) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b;
    matches!(s, Source::Activation(Activation::HardSigmoid { alpha, beta })
        if near(*alpha, 1.0 / 6.0) && near(*beta, 0.5))
}

/// `x * hard_sigmoid(x)`, or `x * relu6(x + 3) / 6` in any order.
fn hard_swish() -> Pat {
    let product = || Pat::times(Slot(0), clipped());
    Any(vec![
        Pat::times(Slot(0), Src(is_hard_sigmoid, vec![Slot(0)])),
        Pat::over(product(), Num(6.0)),
        Pat::times(product(), Num(1.0 / 6.0)),
        Pat::times(Pat::over(Slot(0), Num(6.0)), clipped()),
    ])
}

fn silu() -> Pat {
    let grown = Pat::plus(Pat::un(UnaryOp::Exp, Pat::un(UnaryOp::Neg, Slot(0))), Num(1.0));
    Any(vec![Pat::times(Slot(0), Pat::un(UnaryOp::Sigmoid, Slot(0))), Pat::over(Slot(0), grown)])
}

fn swish() -> Pat {
    Pat::times(Slot(0), Pat::un(UnaryOp::Sigmoid, Pat::times(Slot(0), NumIn(0))))
}

fn scaled_swish(b: &mut Builder<'_>, m: &Match) -> Replacement {
    on_slot_0(b, m, Activation::Swish { beta: m.num(0) })
}

/// `log(1 + exp(x))`, which overflows where the operator does not.
fn softplus() -> Pat {
    let e = || Pat::un(UnaryOp::Exp, Slot(0));
    Any(vec![Pat::un(UnaryOp::Log, Pat::plus(e(), Num(1.0))), Pat::un(UnaryOp::Log1p, e())])
}

fn mish() -> Pat {
    fn is_softplus(s: &Source) -> bool {
        matches!(s, Source::Activation(Activation::Softplus))
    }
    Pat::times(Slot(0), Pat::un(UnaryOp::Tanh, Src(is_softplus, vec![Slot(0)])))
}
