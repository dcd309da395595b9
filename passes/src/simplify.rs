//! Local algebra: operations that do nothing, movement of movement, cheaper spellings.

use crate::context::{Changed, Context, PassError};
use crate::rewrite::{Match, Pat, Replacement, Rule, always, apply};
use Pat::{Const, Num, NumIn, Prim as P, Slot};
use hub_abi::prim::{BinaryOp, PadMode, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::build::Builder;
use hub_ir::{Graph, Value};

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    apply(g, cx, RULES)
}

const fn rule(
    name: &'static str,
    pattern: fn() -> Pat,
    when: fn(&Graph, &Match) -> Result<(), &'static str>,
    build: fn(&mut Builder<'_>, &Match) -> Replacement,
) -> Rule {
    Rule { name, pattern, shared: true, when, build }
}

/// The rules.
pub const RULES: &[Rule] = &[
    rule("constant-right", constant_left, float_or_int, swap),
    rule("add-0", || Pat::plus(Slot(0), Num(0.0)), same_dims, operand),
    rule("sub-0", || Pat::minus(Slot(0), Num(0.0)), same_dims, operand),
    rule("mul-1", || Pat::times(Slot(0), Num(1.0)), same_dims, operand),
    rule("div-1", || Pat::over(Slot(0), Num(1.0)), same_dims, operand),
    rule("pow", || Pat::bin(BinaryOp::Pow, Slot(0), NumIn(0)), simple_power, power),
    rule("div-2^k", || Pat::over(Slot(0), NumIn(0)), power_of_two, times_inverse),
    rule("rsqrt", reciprocal_root, always, rsqrt),
    rule("neg-neg", || twice(UnaryOp::Neg), always, operand),
    rule("not-not", || twice(UnaryOp::Not), always, operand),
    rule("add-neg", || Pat::plus(Slot(0), Pat::un(UnaryOp::Neg, Slot(1))), always, subtract),
    rule("cast-none", || P(is_cast, vec![Slot(0)]), cast_to_same, operand),
    rule("cast-cast", || P(is_cast, vec![P(is_cast, vec![Slot(0)]).named(1)]), lossless, recast),
    rule("reshape-none", || P(is_reshape, vec![Slot(0)]), same_dims, operand),
    rule("reshape-reshape", || P(is_reshape, vec![P(is_reshape, vec![Slot(0)])]), always, reuse),
    rule("transpose-none", || P(is_transpose, vec![Slot(0)]), keeps_order, as_reshape),
    rule("transpose-transpose", two_transposes, always, compose),
    rule("transpose-late", unit_reshape_of_transpose, only_units, transpose_after_units),
    rule("broadcast-none", || P(is_broadcast, vec![Slot(0)]), same_dims, operand),
    rule("broadcast-left", || P(is_binary, vec![broadcast(0), Slot(1)]), rank_kept, reuse2),
    rule("broadcast-right", || P(is_binary, vec![Slot(0), broadcast(1)]), rank_kept, reuse2),
    rule("broadcast-cond", || P(is_select, vec![broadcast(0), Slot(1), Slot(2)]), always, reuse3),
    rule("broadcast-then", || P(is_select, vec![Slot(0), broadcast(1), Slot(2)]), always, reuse3),
    rule("broadcast-else", || P(is_select, vec![Slot(0), Slot(1), broadcast(2)]), always, reuse3),
    rule("broadcast-late", || P(is_unary, vec![broadcast(0).named(1)]), always, broadcast_after),
    rule(
        "running-sum-of-one-number",
        || P(is_running_sum, vec![broadcast_number()]),
        always,
        count,
    ),
    rule("slice-all", || P(is_slice, vec![Slot(0)]), whole_slice, operand),
    rule("pad-none", || P(is_pad, vec![Slot(0), Slot(1)]), pads_nothing, operand),
    rule("pad-conv", || P(is_conv, vec![zero_pad(), Slot(1)]), pads_space, pad_in_geometry),
    rule("pad-sum", || P(is_window_sum, vec![zero_pad()]), pads_space, pad_in_geometry),
    rule("concat-one", || P(is_concat, vec![Slot(0)]), always, operand),
    rule("reduce-none", || P(is_reduce, vec![Slot(0)]), reduces_units, as_reshape),
    rule("reduce-keep", || P(is_reshape, vec![P(is_reduce, vec![Slot(0)]).named(1)]), keeps, keep),
];

fn is_cast(p: &Prim) -> bool {
    matches!(p, Prim::Cast { .. })
}
fn is_reshape(p: &Prim) -> bool {
    matches!(p, Prim::Reshape { .. })
}
fn is_transpose(p: &Prim) -> bool {
    matches!(p, Prim::Transpose { .. })
}
fn is_broadcast(p: &Prim) -> bool {
    matches!(p, Prim::Broadcast { .. })
}
fn is_slice(p: &Prim) -> bool {
    matches!(p, Prim::Slice { .. })
}
fn is_pad(p: &Prim) -> bool {
    matches!(p, Prim::Pad { .. })
}
fn is_conv(p: &Prim) -> bool {
    matches!(p, Prim::Conv { .. })
}
fn is_window_sum(p: &Prim) -> bool {
    matches!(p, Prim::Window { op: ReduceOp::Sum, .. })
}
fn is_concat(p: &Prim) -> bool {
    matches!(p, Prim::Concat { .. })
}
fn is_reduce(p: &Prim) -> bool {
    matches!(p, Prim::Reduce { .. })
}
fn is_unary(p: &Prim) -> bool {
    matches!(p, Prim::Unary(_) | Prim::Cast { .. })
}
fn is_binary(p: &Prim) -> bool {
    matches!(p, Prim::Binary(_))
}
fn is_select(p: &Prim) -> bool {
    matches!(p, Prim::Select)
}

fn broadcast(slot: u8) -> Pat {
    P(is_broadcast, vec![Slot(slot)])
}

fn broadcast_number() -> Pat {
    P(is_broadcast, vec![NumIn(0)])
}

fn is_running_sum(p: &Prim) -> bool {
    let Prim::Cumulative { op, exclusive, reverse, .. } = p else { return false };
    *op == ReduceOp::Sum && !exclusive && !reverse
}

fn twice(op: UnaryOp) -> Pat {
    Pat::un(op, Pat::un(op, Slot(0)))
}

fn two_transposes() -> Pat {
    P(is_transpose, vec![P(is_transpose, vec![Slot(0)]).named(1)])
}

fn zero_pad() -> Pat {
    P(is_pad, vec![Slot(0), Num(0.0)]).named(2)
}

fn unit_reshape_of_transpose() -> Pat {
    P(is_reshape, vec![P(is_transpose, vec![Slot(0)]).named(1)])
}

fn constant_left() -> Pat {
    fn swaps(p: &Prim) -> bool {
        use BinaryOp::*;
        matches!(p, Prim::Binary(Add | Mul | Max | Min))
    }
    P(swaps, vec![Const(0), Slot(1)])
}

fn reciprocal_root() -> Pat {
    let root = || Pat::un(UnaryOp::Sqrt, Slot(0));
    Pat::Any(vec![Pat::over(Num(1.0), root()), Pat::un(UnaryOp::Recip, root())])
}

type When = Result<(), &'static str>;

fn need(holds: bool, why: &'static str) -> When {
    if holds { Ok(()) } else { Err(why) }
}

/// Conditions that most nodes fail say nothing.
fn quiet(holds: bool) -> When {
    need(holds, "")
}

fn float_or_int(g: &Graph, m: &Match) -> When {
    quiet(g.as_const(m.v(1)).is_none())
}

fn same_dims(g: &Graph, m: &Match) -> When {
    quiet(g.dims(m.v(0)) == g.dims(m.out(g)))
}

fn simple_power(g: &Graph, m: &Match) -> When {
    let simple = [1.0, 2.0, 3.0, 0.5, -0.5, -1.0].contains(&m.num(0));
    quiet(simple && g.dtype(m.v(0)).is_float() && g.dims(m.v(0)) == g.dims(m.out(g)))
}

fn power_of_two(g: &Graph, m: &Match) -> When {
    let k = m.num(0).abs();
    let exact = k.is_normal() && k.to_bits().trailing_zeros() >= 52 && k != 1.0;
    quiet(exact && (1e-4..1e4).contains(&k) && g.dtype(m.v(0)).is_float())
}

fn cast_to_same(g: &Graph, m: &Match) -> When {
    quiet(g.dtype(m.v(0)) == g.dtype(m.out(g)))
}

/// The first cast keeps every value exactly.
fn lossless(g: &Graph, m: &Match) -> When {
    use Dtype::*;
    let exact = match (g.dtype(m.v(0)), g.dtype(m.v(1))) {
        (Bool, to) => to.is_int() || to.is_float() && to != F8E8M0,
        (F16 | BF16, F32 | F64) | (F32, F64) => true,
        (I32 | I16 | I8 | U8 | U16, I64) | (I16 | I8 | U8 | U16, I32) => true,
        (I32, F64) | (I16 | I8 | U8 | U16, F32 | F64) => true,
        _ => false,
    };
    need(exact, "the first cast loses something")
}

/// Axes longer than 1 stay in order, so nothing moves.
fn keeps_order(g: &Graph, m: &Match) -> When {
    let Prim::Transpose { perm } = m.root_prim(g) else { return Err("") };
    let dims = g.dims(m.v(0));
    let long: Vec<_> = perm.iter().filter(|&&p| !dims[p as usize].is(1)).collect();
    quiet(long.is_sorted())
}

/// The reshape puts in and takes out axes of 1 only.
fn only_units(g: &Graph, m: &Match) -> When {
    let long = |v: Value| g.dims(v).iter().filter(|d| !d.is(1)).collect::<Vec<_>>();
    quiet(long(m.v(1)) == long(m.out(g)))
}

fn rank_kept(g: &Graph, m: &Match) -> When {
    // The replacement's type is compared by the driver; a smaller rank on both sides is common.
    let rank = |v: Value| g.dims(v).len();
    quiet(rank(m.v(0)).max(rank(m.v(1))) == rank(m.out(g)))
}

fn whole_slice(g: &Graph, m: &Match) -> When {
    let Prim::Slice { start, len, step } = m.root_prim(g) else { return Err("") };
    let whole = start.iter().all(|s| s.is(0)) && step.iter().all(|&s| s == 1);
    quiet(whole && len == g.dims(m.v(0)))
}

fn pads_nothing(g: &Graph, m: &Match) -> When {
    let Prim::Pad { before, after, .. } = m.root_prim(g) else { return Err("") };
    quiet(before.iter().chain(after).all(|d| d.is(0)))
}

/// Zeros around the spatial axes only.
fn pads_space(g: &Graph, m: &Match) -> When {
    let Prim::Pad { before, after, mode: PadMode::Constant } = m.prim(g, 2) else {
        return Err("the padding is not constant");
    };
    let none = |d: &[Dim]| d.iter().take(2).all(|d| d.is(0));
    // A crop first is not a crop of the padded whole where both sides would overlap; keep it plain.
    let grows = before.iter().chain(after).all(|d| d.as_const().is_some_and(|k| k >= 0));
    need(none(before) && none(after) && grows, "not only spatial axes are padded")
}

fn reduces_units(g: &Graph, m: &Match) -> When {
    let Prim::Reduce { axes, op, .. } = m.root_prim(g) else { return Err("") };
    let dims = g.dims(m.v(0));
    let plain = !matches!(op, ReduceOp::And | ReduceOp::Or);
    quiet(plain && axes.iter().all(|&a| dims[a as usize].is(1)))
}

/// The reshape puts back the axes that the reduction drops.
fn keeps(g: &Graph, m: &Match) -> When {
    let Prim::Reduce { axes, keep: false, .. } = m.prim(g, 1) else { return Err("") };
    let mut dims = g.dims(m.v(0)).to_vec();
    axes.iter().for_each(|&a| dims[a as usize] = Dim::from(1i64));
    quiet(dims == g.dims(m.out(g)))
}

fn operand(_: &mut Builder<'_>, m: &Match) -> Replacement {
    Ok(vec![m.v(0)])
}

fn swap(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    b.prim_n(p, &[m.v(1), m.v(0)])
}

fn subtract(b: &mut Builder<'_>, m: &Match) -> Replacement {
    Ok(vec![b.sub(m.v(0), m.v(1))?])
}

fn rsqrt(b: &mut Builder<'_>, m: &Match) -> Replacement {
    Ok(vec![b.un(UnaryOp::Rsqrt, m.v(0))?])
}

fn power(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (x, k) = (m.v(0), m.num(0));
    Ok(vec![match k {
        1.0 => x,
        0.5 => b.un(UnaryOp::Sqrt, x)?,
        -0.5 => b.un(UnaryOp::Rsqrt, x)?,
        -1.0 => b.un(UnaryOp::Recip, x)?,
        _ => {
            let square = b.mul(x, x)?;
            if k == 2.0 { square } else { b.mul(square, x)? }
        }
    }])
}

fn times_inverse(b: &mut Builder<'_>, m: &Match) -> Replacement {
    Ok(vec![b.bin_scalar(BinaryOp::Mul, m.v(0), 1.0 / m.num(0))?])
}

fn recast(b: &mut Builder<'_>, m: &Match) -> Replacement {
    reuse(b, m)
}

/// The root's primitive on slot 0.
fn reuse(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    b.prim_n(p, &[m.v(0)])
}

fn reuse2(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    b.prim_n(p, &[m.v(0), m.v(1)])
}

fn reuse3(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    b.prim_n(p, &[m.v(0), m.v(1), m.v(2)])
}

fn as_reshape(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let dims = b.g.dims(m.out(b.g)).to_vec();
    Ok(vec![b.reshape(m.v(0), dims)?])
}

fn compose(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (Prim::Transpose { perm: outer }, Prim::Transpose { perm: inner }) =
        (m.root_prim(b.g), m.prim(b.g, 1))
    else {
        unreachable!("the pattern says two transposes")
    };
    let perm: Vec<usize> = outer.iter().map(|&o| inner[o as usize] as usize).collect();
    Ok(vec![b.transpose(m.v(0), &perm)?])
}

/// Axes of 1 go to the end before the transpose, which puts them where they belong: so transposes
/// meet each other and their contraction.
fn transpose_after_units(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Transpose { perm } = m.prim(b.g, 1).clone() else {
        unreachable!("the pattern says a transpose")
    };
    let (x, out) = (b.g.dims(m.v(0)).to_vec(), b.g.dims(m.out(b.g)).to_vec());
    let long: Vec<usize> = (0..x.len()).filter(|&i| !x[i].is(1)).collect();
    let units = out.iter().filter(|d| d.is(1)).count();
    let mut shape: Vec<Dim> = long.iter().map(|&i| x[i].clone()).collect();
    let mut unit = shape.len();
    shape.extend(vec![Dim::from(1i64); units]);
    // Long axes in the transpose's order, as positions in the new shape.
    let place = |i: usize| long.iter().position(|&l| l == i).expect("a long axis");
    let moved: Vec<usize> =
        perm.iter().map(|&p| p as usize).filter(|&p| !x[p].is(1)).map(place).collect();
    let mut next = moved.into_iter();
    let perm: Vec<usize> = out
        .iter()
        .map(|d| {
            if d.is(1) {
                unit += 1;
                return unit - 1;
            }
            next.next().expect("as many long axes")
        })
        .collect();
    let y = b.reshape(m.v(0), shape)?;
    Ok(vec![b.transpose(y, &perm)?])
}

fn broadcast_after(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    let shape = b.g.dims(m.v(1)).to_vec();
    let y = b.prim(p, &[m.v(0)])?;
    Ok(vec![b.broadcast(y, shape)?])
}

/// `k + k + …` is `k` times the position: what position ids are made of.
fn count(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Cumulative { axis, .. } = *m.root_prim(b.g) else {
        unreachable!("the pattern says a running sum")
    };
    let (dtype, shape) = (b.g.dtype(m.out(b.g)), b.g.dims(m.out(b.g)).to_vec());
    let at = b.prim(Prim::Iota { dtype: Dtype::I64, shape, axis }, &[])?;
    let at = b.bin_scalar(BinaryOp::Add, at, 1.0)?;
    let at = b.cast(at, dtype)?;
    Ok(vec![b.bin_scalar(BinaryOp::Mul, at, m.num(0))?])
}

fn pad_in_geometry(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Pad { before, after, .. } = m.prim(b.g, 2).clone() else {
        unreachable!("the pattern says a padding")
    };
    let mut p = m.root_prim(b.g).clone();
    if let Prim::Conv { geo, .. } | Prim::Window { geo, .. } = &mut p {
        geo.before.iter_mut().zip(&before[2..]).for_each(|(g, d)| *g = g.add(d));
        geo.after.iter_mut().zip(&after[2..]).for_each(|(g, d)| *g = g.add(d));
    }
    let ins: Vec<Value> = [Some(m.v(0)), m.get(1)].into_iter().flatten().collect();
    b.prim_n(p, &ins)
}

fn keep(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::Reduce { op, axes, .. } = m.prim(b.g, 1).clone() else {
        unreachable!("the pattern says a reduction")
    };
    b.prim_n(Prim::Reduce { op, axes, keep: true }, &[m.v(0)])
}
