//! Normalisations and softmax.

use super::{When, on_slot_0, rule};
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Any, Const, NumIn, Prim as P, Slot, Src};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_ir::build::Builder;
use hub_ir::ops::norm::{LayerNorm, RmsNorm, Softmax};
use hub_ir::{Graph, OpError, Source, Value};

/// Slot 0 is the data; 1 and 2 are reductions, whose axes must agree; 3 a scale, 4 a shift, 5 what
/// is extended.
pub const RULES: &[Rule] = &[
    rule("raise-layer-norm", layer_norm, trailing_means, build_layer_norm),
    rule("raise-layer-norm-tf", layer_norm_tf, trailing_means, build_layer_norm_tf),
    rule("raise-layer-norm-scale", plain_norm_times, fits_norm, with_scale),
    rule("raise-layer-norm-bias", norm_plus, fits_norm, with_bias),
    rule("raise-rms-norm", rms_norm, trailing_mean, build_rms_norm),
    rule("raise-rms-norm-scale", plain_rms_times, fits_norm, with_scale),
    rule("raise-softmax", softmax, one_axis, |b, m| {
        let axis = axes_of(b.g, m, 2)[0] as usize;
        on_slot_0(b, m, Softmax { axis, log: false })
    }),
    rule("raise-log-softmax", log_softmax, one_axis, |b, m| {
        let axis = axes_of(b.g, m, 2)[0] as usize;
        on_slot_0(b, m, Softmax { axis, log: true })
    }),
    rule(
        "raise-log-of-softmax",
        log_of_softmax,
        |_, _| Ok(()),
        |b, m| {
            let Source::Softmax(s) = m.source(b.g, 5) else {
                unreachable!("the pattern says a softmax")
            };
            let axis = s.axis;
            on_slot_0(b, m, Softmax { axis, log: true })
        },
    ),
];

fn is_mean(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { op: ReduceOp::Mean, keep: true, .. })
}
fn is_max(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { op: ReduceOp::Max, keep: true, .. })
}
fn is_sum(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { op: ReduceOp::Sum, keep: true, .. })
}

fn square(x: impl Fn() -> Pat) -> Pat {
    Any(vec![Pat::times(x(), x()), Pat::bin(BinaryOp::Pow, x(), Pat::Num(2.0))])
}

/// `x / sqrt(s)` in its spellings.
fn over_root(x: impl Fn() -> Pat, s: impl Fn() -> Pat) -> Pat {
    let root = || Pat::un(UnaryOp::Sqrt, s());
    let inverse = Any(vec![
        Pat::un(UnaryOp::Rsqrt, s()),
        Pat::un(UnaryOp::Recip, root()),
        Pat::bin(BinaryOp::Pow, s(), Pat::Num(-0.5)),
    ]);
    let powered = Pat::bin(BinaryOp::Pow, s(), Pat::Num(0.5));
    Any(vec![Pat::times(x(), inverse), Pat::over(x(), root()), Pat::over(x(), powered)])
}

fn mean_of_x() -> Pat {
    P(is_mean, vec![Slot(0)]).named(1)
}

/// `x - mean(x)`, bound so that every use must be the same value.
fn centred() -> Pat {
    Pat::minus(Slot(0), mean_of_x()).named(5)
}

/// `mean(d²) + eps`.
fn variance() -> Pat {
    let mean = P(is_mean, vec![square(centred)]).named(2);
    Pat::plus(mean, NumIn(0))
}

fn layer_norm() -> Pat {
    over_root(centred, variance)
}

/// TensorFlow: `x*g + (shift - mean*g)` with `g = rsqrt(var + eps) * scale`.
fn layer_norm_tf() -> Pat {
    let inverse = || {
        Any(vec![
            Pat::un(UnaryOp::Rsqrt, variance()),
            Pat::un(UnaryOp::Recip, Pat::un(UnaryOp::Sqrt, variance())),
        ])
    };
    let gain = || Pat::times(inverse(), Const(3)).named(6);
    let shift = Pat::minus(Const(4), Pat::times(mean_of_x(), gain()));
    Pat::plus(Pat::times(Slot(0), gain()), shift)
}

fn rms_norm() -> Pat {
    over_root(|| Slot(0), || Pat::plus(P(is_mean, vec![square(|| Slot(0))]).named(2), NumIn(0)))
}

fn is_layer_norm(s: &Source) -> bool {
    matches!(s, Source::LayerNorm(_))
}
fn is_rms_norm(s: &Source) -> bool {
    matches!(s, Source::RmsNorm(_))
}

fn plain_norm_times() -> Pat {
    Pat::times(Src(is_layer_norm, vec![Slot(0)]).named(5), Const(3))
}

fn plain_rms_times() -> Pat {
    Pat::times(Src(is_rms_norm, vec![Slot(0)]).named(5), Const(3))
}

fn norm_plus() -> Pat {
    let norm = Any(vec![
        Src(is_layer_norm, vec![Slot(0)]).named(5),
        Src(is_layer_norm, vec![Slot(0), Slot(6)]).named(5),
    ]);
    Pat::plus(norm, Const(3))
}

fn softmax() -> Pat {
    let top = P(is_max, vec![Slot(0)]).named(1);
    let e = || Pat::un(UnaryOp::Exp, Pat::minus(Slot(0), top.clone())).named(5);
    // Without the maximum it overflows sooner and is else the same.
    let plain = || Pat::un(UnaryOp::Exp, Slot(0)).named(5);
    Any(vec![
        Pat::over(e(), P(is_sum, vec![e()]).named(2)),
        Pat::over(plain(), P(is_sum, vec![plain()]).named(2)),
    ])
}

/// `d - log(sum(exp(d)))` with `d = x - max(x)`.
fn log_softmax() -> Pat {
    let d = || Pat::minus(Slot(0), P(is_max, vec![Slot(0)]).named(1)).named(5);
    let sum = P(is_sum, vec![Pat::un(UnaryOp::Exp, d())]).named(2);
    Pat::minus(d(), Pat::un(UnaryOp::Log, sum))
}

fn log_of_softmax() -> Pat {
    fn is_softmax(s: &Source) -> bool {
        matches!(s, Source::Softmax(Softmax { log: false, .. }))
    }
    Pat::un(UnaryOp::Log, Src(is_softmax, vec![Slot(0)]).named(5))
}

fn axes_of<'g>(g: &'g Graph, m: &Match, slot: u8) -> &'g [u32] {
    match m.prim(g, slot) {
        Prim::Reduce { axes, .. } => axes,
        _ => unreachable!("the pattern says a reduction"),
    }
}

fn trailing_mean(g: &Graph, m: &Match) -> When {
    let axes = axes_of(g, m, 2);
    let rank = g.dims(m.v(0)).len() as u32;
    let first = axes.first().copied().unwrap_or(rank);
    let trailing = !axes.is_empty() && axes.iter().copied().eq(first..rank);
    if trailing { Ok(()) } else { Err("the axes are not the last ones") }
}

fn trailing_means(g: &Graph, m: &Match) -> When {
    trailing_mean(g, m)?;
    same_axes(g, m)
}

fn same_axes(g: &Graph, m: &Match) -> When {
    if axes_of(g, m, 1) == axes_of(g, m, 2) {
        Ok(())
    } else {
        Err("the reductions are over different axes")
    }
}

fn one_axis(g: &Graph, m: &Match) -> When {
    if m.get(1).is_some() {
        same_axes(g, m)?;
    }
    if axes_of(g, m, 2).len() == 1 { Ok(()) } else { Err("softmax over several axes") }
}

fn build_layer_norm(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let axis = axes_of(b.g, m, 2)[0] as usize;
    on_slot_0(b, m, LayerNorm { axis, eps: m.num(0) as f32 })
}

fn build_rms_norm(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let axis = axes_of(b.g, m, 2)[0] as usize;
    on_slot_0(b, m, RmsNorm { axis, eps: m.num(0) as f32 })
}

fn build_layer_norm_tf(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let axis = axes_of(b.g, m, 2)[0] as usize;
    let (scale, shift) = (trailing(b, m, m.v(3), axis)?, trailing(b, m, m.v(4), axis)?);
    b.source_n(LayerNorm { axis, eps: m.num(0) as f32 }, &[m.v(0), scale, shift])
}

fn norm_axis(g: &Graph, m: &Match) -> usize {
    match m.source(g, 5) {
        Source::LayerNorm(n) => n.axis,
        Source::RmsNorm(n) => n.axis,
        _ => unreachable!("the pattern says a normalisation"),
    }
}

/// The constant has the normalised shape, leading axes of 1 aside.
fn fits_norm(g: &Graph, m: &Match) -> When {
    let want = &g.dims(m.v(0))[norm_axis(g, m)..];
    let dims = g.dims(m.v(3));
    let lead = dims.len().saturating_sub(want.len());
    if dims.len() >= want.len() && dims[lead..] == *want && dims[..lead].iter().all(|d| d.is(1)) {
        Ok(())
    } else {
        Err("the constant does not have the normalised shape")
    }
}

/// A constant of exactly the normalised shape.
fn trailing(b: &mut Builder<'_>, m: &Match, c: Value, axis: usize) -> Result<Value, OpError> {
    let want = b.g.dims(m.v(0))[axis..].to_vec();
    let dims = b.g.dims(c).to_vec();
    let lead = dims.len().saturating_sub(want.len());
    if dims[lead..] != want[..] || dims[..lead].iter().any(|d| !d.is(1)) {
        return Err(OpError::new("the constant does not have the normalised shape"));
    }
    let shape: Vec<i64> = want.iter().filter_map(|d| d.as_const()).collect();
    crate::konst::reshape(b, c, &shape)
}

fn with_scale(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let scale = trailing(b, m, m.v(3), norm_axis(b.g, m))?;
    let norm = m.source(b.g, 5).clone();
    b.source_n(norm, &[m.v(0), scale])
}

fn with_bias(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let bias = trailing(b, m, m.v(3), norm_axis(b.g, m))?;
    let norm = m.source(b.g, 5).clone();
    b.source_n(norm, &[m.v(0), m.get(6).unwrap_or(Value::NONE), bias])
}
