//! A convolution, window or padding over an axis of one element, which a reshape put there, is one over
//! the other axes: exporters without operators of fewer dimensions write `Unsqueeze → Conv2D → Squeeze`.

use crate::konst;
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Const, Prim as P, Slot};
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim};
use hub_ir::build::Builder;
use hub_ir::{Graph, Value};

/// Slot 0 is what was reshaped, 1 the weights, 2 the reshape.
pub const CONV: Rule = Rule {
    name: "flat-conv",
    pattern: || P(|p| matches!(p, Prim::Conv { .. }), vec![reshaped(), Const(1)]),
    shared: true,
    when: |g, m| flat_axis(g, m).map(|_| ()).ok_or(""),
    build: conv,
};

/// Slots as in [`CONV`].
pub const WINDOW: Rule = Rule {
    name: "flat-window",
    pattern: || P(|p| matches!(p, Prim::Window { .. }), vec![reshaped()]),
    shared: true,
    when: |g, m| flat_axis(g, m).map(|_| ()).ok_or(""),
    build: window,
};

/// Slot 0 is what was reshaped, 1 the padding's value, 2 the reshape.
pub const PAD: Rule = Rule {
    name: "flat-pad",
    pattern: || P(|p| matches!(p, Prim::Pad { .. }), vec![reshaped(), Slot(1)]),
    shared: true,
    when: |g, m| unpadded_axis(g, m).map(|_| ()).ok_or(""),
    build: pad,
};

fn reshaped() -> Pat {
    P(|p| matches!(p, Prim::Reshape { .. }), vec![Slot(0)]).named(2)
}

/// The spatial axis of one element that the reshape put in and that the window does not leave.
fn flat_axis(g: &Graph, m: &Match) -> Option<usize> {
    let (from, to) = (g.dims(m.v(0)), g.dims(m.v(2)));
    let (geo, one_tap): (_, &dyn Fn(usize) -> bool) = match m.root_prim(g) {
        Prim::Conv { geo, .. } => (geo, &|i| g.dims(m.v(1))[2 + i].is(1)),
        Prim::Window { geo, kernel, .. } => (geo, &|i| kernel[i] == 1),
        _ => return None,
    };
    let spatial = geo.stride.len();
    let inside = |i: usize| geo.before[i].is(0) && geo.after[i].is(0);
    (0..spatial).find(|&i| spatial > 1 && one_tap(i) && inside(i) && put_in(from, to, 2 + i))
}

/// Is `to` the shape `from` with an axis `a` of one element more?
fn put_in(from: &[Dim], to: &[Dim], a: usize) -> bool {
    let others = to.iter().enumerate().filter(|(i, _)| *i != a).map(|(_, d)| d);
    to[a].is(1) && others.eq(from)
}

/// The axis of one element that the reshape put in and that is not padded.
fn unpadded_axis(g: &Graph, m: &Match) -> Option<usize> {
    let (from, to) = (g.dims(m.v(0)), g.dims(m.v(2)));
    let Prim::Pad { before, after, .. } = m.root_prim(g) else { return None };
    (0..to.len()).find(|&a| before[a].is(0) && after[a].is(0) && put_in(from, to, a))
}

/// Without its axis `i`.
fn less(geo: &Geometry, i: usize) -> Geometry {
    let mut geo = geo.clone();
    geo.stride.remove(i);
    geo.dilation.remove(i);
    geo.before.remove(i);
    geo.after.remove(i);
    geo
}

fn conv(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Prim::Conv { geo, groups }, Some(i)) = (m.root_prim(b.g).clone(), flat_axis(b.g, m))
    else {
        unreachable!("the rule says a convolution over a flat axis")
    };
    let mut taps = konst::dims(b, m.v(1));
    taps.remove(2 + i);
    let w = konst::reshape(b, m.v(1), &taps)?;
    let y = b.prim(Prim::Conv { geo: less(&geo, i), groups }, &[m.v(0), w])?;
    unflattened(b, m, y)
}

fn window(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Prim::Window { op, mut kernel, geo }, Some(i)) =
        (m.root_prim(b.g).clone(), flat_axis(b.g, m))
    else {
        unreachable!("the rule says a window over a flat axis")
    };
    kernel.remove(i);
    let y = b.prim(Prim::Window { op, kernel, geo: less(&geo, i) }, &[m.v(0)])?;
    unflattened(b, m, y)
}

fn pad(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Prim::Pad { mut before, mut after, mode }, Some(a)) =
        (m.root_prim(b.g).clone(), unpadded_axis(b.g, m))
    else {
        unreachable!("the rule says padding beside a flat axis")
    };
    before.remove(a);
    after.remove(a);
    let y = b.prim(Prim::Pad { before, after, mode }, &[m.v(0), m.v(1)])?;
    unflattened(b, m, y)
}

fn unflattened(b: &mut Builder<'_>, m: &Match, y: Value) -> Replacement {
    let want = b.g.dims(m.out(b.g)).to_vec();
    Ok(vec![b.reshape(y, want)?])
}
