//! Pools of whole images: one reduction of the spatial axes, as they lie, in every spelling.

use super::{When, rule};
use crate::movement::blocks;
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Any, NumIn, Prim as P, Slot, Src};
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_ir::build::Builder;
use hub_ir::ops::pool::{AdaptivePool, AvgPool, MaxPool};
use hub_ir::{Graph, Op, OpError, Source};

/// Slot 0 is the image, 1 what is between it and the root.
pub const RULES: &[Rule] = &[
    rule("raise-global-pool", || Src(is_pool, vec![Slot(0)]), one_window, pool),
    rule("raise-mean", sum_over_count, counts, mean),
    rule(
        "merge-reductions",
        || P(is_reduce, vec![P(is_reduce, vec![Slot(0)]).named(1)]),
        alike,
        merge,
    ),
    rule("pool-before-transpose", || of(is_transpose), spatial, before_transpose),
    rule("pool-before-reshape", || of(is_reshape), spatial, before_reshape),
];

fn is_pool(s: &Source) -> bool {
    match s {
        Source::AvgPool(_) => true,
        Source::MaxPool(p) => p.indices.is_none(),
        Source::AdaptivePool(p) => p.out.iter().all(|o| *o == Some(1)),
        _ => false,
    }
}
fn is_reduce(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { .. })
}
fn is_sum(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { op: ReduceOp::Sum, .. })
}
fn is_transpose(p: &Prim) -> bool {
    matches!(p, Prim::Transpose { .. })
}
fn is_reshape(p: &Prim) -> bool {
    matches!(p, Prim::Reshape { .. })
}

/// A reduction of what was moved.
fn of(movement: fn(&Prim) -> bool) -> Pat {
    P(is_reduce, vec![P(movement, vec![Slot(0)]).named(1)])
}

fn sum_over_count() -> Pat {
    let sum = || P(is_sum, vec![Slot(0)]).named(1);
    Any(vec![Pat::times(sum(), NumIn(0)), Pat::over(sum(), NumIn(1))])
}

fn root<'g>(g: &'g Graph, m: &Match) -> &'g Source {
    match &g.nodes[m.root].op {
        Op::Source(s) => s,
        _ => unreachable!("the pattern says a source operator"),
    }
}

/// The window is the whole image, without padding.
fn one_window(g: &Graph, m: &Match) -> When {
    let dims = g.dims(m.v(0)).get(2..).unwrap_or(&[]);
    let whole = |kernel: &[i64], geo: &Geometry| {
        let pads = geo.before.iter().chain(&geo.after).any(|d| !d.is(0));
        let same = kernel.len() == dims.len() && kernel.iter().zip(dims).all(|(&k, d)| d.is(k));
        let apart = geo.dilation.iter().zip(kernel).any(|(&d, &k)| d != 1 && k != 1);
        match (same && !apart, pads) {
            (true, false) => Ok(()),
            (true, true) => Err("the window reaches into padding"),
            _ => Err(""),
        }
    };
    match root(g, m) {
        Source::AvgPool(AvgPool { kernel, geo, .. }) => whole(kernel, geo),
        Source::MaxPool(MaxPool { kernel, geo, .. }) => whole(kernel, geo),
        _ => Ok(()),
    }
}

fn pool(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let max = match root(b.g, m) {
        Source::AdaptivePool(AdaptivePool { max, .. }) => *max,
        s => matches!(s, Source::MaxPool(_)),
    };
    let op = if max { ReduceOp::Max } else { ReduceOp::Mean };
    let axes: Vec<usize> = (2..b.g.dims(m.v(0)).len()).collect();
    Ok(vec![b.reduce(op, m.v(0), &axes, true)?])
}

fn axes_of(p: &Prim) -> &[u32] {
    match p {
        Prim::Reduce { axes, .. } => axes,
        _ => unreachable!("the pattern says a reduction"),
    }
}

/// The number is one over how many are summed.
fn counts(g: &Graph, m: &Match) -> When {
    let dims = g.dims(m.v(0));
    if !g.dtype(m.v(0)).is_float() {
        return Err("a mean of integers is rounded");
    }
    let n = Dim::product(axes_of(m.prim(g, 1)).iter().map(|&a| &dims[a as usize]));
    let Some(n) = n.as_const().filter(|&n| n > 0) else { return Err("the count is not known") };
    let by = m.get_num(0).map_or_else(|| m.num(1), |k| 1.0 / k);
    let near = (by - n as f64).abs() <= 1e-6 * n as f64;
    if near && g.dims(m.out(g)) == g.dims(m.v(1)) {
        Ok(())
    } else {
        Err("the divisor is not the count")
    }
}

fn mean(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Reduce { axes, keep, .. } = m.prim(b.g, 1).clone() else {
        unreachable!("the pattern says a reduction")
    };
    b.prim_n(Prim::Reduce { op: ReduceOp::Mean, axes, keep }, &[m.v(0)])
}

fn op_of(p: &Prim) -> ReduceOp {
    match p {
        Prim::Reduce { op, .. } => *op,
        _ => unreachable!("the pattern says a reduction"),
    }
}

fn alike(g: &Graph, m: &Match) -> When {
    let op = op_of(m.root_prim(g));
    if op == ReduceOp::Mean && !g.dtype(m.v(0)).is_float() {
        return Err("a mean of integers is rounded");
    }
    if op == op_of(m.prim(g, 1)) { Ok(()) } else { Err("") }
}

/// A reduction of a reduction reduces the axes of both.
fn merge(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (op, outer) = (op_of(m.root_prim(b.g)), axes_of(m.root_prim(b.g)).to_vec());
    let Prim::Reduce { axes: inner, keep, .. } = m.prim(b.g, 1).clone() else {
        unreachable!("the pattern says a reduction")
    };
    let left: Vec<u32> =
        (0..b.g.dims(m.v(0)).len() as u32).filter(|a| keep || !inner.contains(a)).collect();
    let axes = inner.iter().copied().chain(outer.iter().map(|&a| left[a as usize]));
    let axes: Vec<usize> = axes.map(|a| a as usize).collect();
    reduced(b, m, op, &axes)
}

/// A reduction of the image, with the dims of the root's result.
fn reduced(b: &mut Builder<'_>, m: &Match, op: ReduceOp, axes: &[usize]) -> Replacement {
    let keep = matches!(m.root_prim(b.g), Prim::Reduce { keep: true, .. });
    let y = b.reduce(op, m.v(0), axes, keep)?;
    let want = b.g.dims(m.out(b.g)).to_vec();
    Ok(vec![b.reshape(y, want)?])
}

/// An image is reduced (what is not one is left to other rules).
fn spatial(g: &Graph, m: &Match) -> When {
    let axes = match m.prim(g, 1) {
        Prim::Transpose { perm } => {
            Some(axes_of(m.root_prim(g)).iter().map(|&a| perm[a as usize] as usize).collect())
        }
        Prim::Reshape { shape } => unmerged(g.dims(m.v(0)), shape, axes_of(m.root_prim(g))),
        _ => None,
    };
    let Some(mut axes): Option<Vec<usize>> = axes else {
        return Err("more than the image's axes are merged");
    };
    axes.sort_unstable();
    let rank = g.dims(m.v(0)).len();
    if rank > 2 && axes.iter().copied().eq(2..rank) { Ok(()) } else { Err("") }
}

/// The axes that a reshape made the reduced ones of, if it did so with no others.
fn unmerged(x: &[Dim], shape: &[Dim], reduced: &[u32]) -> Option<Vec<usize>> {
    let (mut axes, mut i0, mut j0) = (vec![], 0, 0);
    for (i, j) in blocks(x, shape)? {
        let is = |j: usize| reduced.contains(&(j as u32));
        let (any, all) = ((j0..j).any(is), (j0..j).all(|j| is(j) || shape[j].is(1)));
        if any && !all {
            return None;
        }
        if any {
            axes.extend(i0..i);
        }
        (i0, j0) = (i, j);
    }
    Some(axes)
}

fn before_reshape(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (op, axes) = (op_of(m.root_prim(b.g)), (2..b.g.dims(m.v(0)).len()).collect::<Vec<_>>());
    reduced(b, m, op, &axes)
}

fn before_transpose(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Transpose { perm } = m.prim(b.g, 1).clone() else {
        unreachable!("the pattern says a transpose")
    };
    let kept: Vec<u32> = perm.iter().copied().filter(|&p| p < 2).collect();
    if kept != [0, 1] {
        return Err(OpError::new("batch and channels change places"));
    }
    before_reshape(b, m)
}
