//! Constant scales and shifts into the weights of the contraction or convolution beside them, and
//! constant sums after it into one bias.
//!
//! After the anchor: `A(x, W) * c` is `A(x, W*c)` where `c` varies along output axes that come from
//! `W` alone; sums move out of the product and merge. Before it: `A(x*c, W)` likewise along summed
//! axes; `A(x+s, W)` adds a bias, but not where zero padding would see the shift. A number on an
//! operand that nothing can take goes onto the product.

use crate::context::{Changed, Context, PassError};
use crate::konst;
use crate::rewrite::{Match, Pat, Replacement, Rule, apply};
use Pat::{Const, Prim as P, Slot};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_ir::build::{Builder, Built};
use hub_ir::{Graph, OpError, Value};

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    apply(g, cx, RULES)
}

type When = Result<(), &'static str>;

const fn rule(
    name: &'static str,
    pattern: fn() -> Pat,
    when: fn(&Graph, &Match) -> When,
    build: fn(&mut Builder<'_>, &Match) -> Replacement,
) -> Rule {
    Rule { name, pattern, shared: false, when, build }
}

/// Slots: 0 and 1 the anchor's operands, 2 the anchor, 3 and 4 constants.
pub const RULES: &[Rule] = &[
    rule("norm-minus", || Pat::minus(biased_or_anchor(), Const(3)), wide, minus),
    rule("norm-divide", || Pat::over(biased_or_anchor(), Const(3)), wide, divide),
    rule("norm-sums", || Pat::plus(biased(), Const(3)), wide, merge_sums),
    rule("norm-distribute", || Pat::times(biased(), Const(3)), weighted, distribute),
    rule("norm-scale", || Pat::times(anchor(), Const(3)), weighted, scale_after),
    rule("norm-scale-before", || after_const(BinaryOp::Mul), weighted, scale_before),
    rule("norm-shift-before", || after_const(BinaryOp::Add), unpadded, shift_before),
    rule("norm-number-late", || contract_of(number_times(0), Slot(1)), late, number_late),
    rule("norm-number-late-right", || contract_of(Slot(0), number_times(1)), late, number_late),
];

fn is_anchor(p: &Prim) -> bool {
    matches!(p, Prim::Conv { .. } | Prim::ConvTranspose { .. } | Prim::Contract { .. })
}

fn anchor() -> Pat {
    P(is_anchor, vec![Slot(0), Slot(1)]).named(2)
}

/// The anchor plus a constant.
fn biased() -> Pat {
    Pat::plus(anchor(), Const(4))
}

fn biased_or_anchor() -> Pat {
    Pat::Any(vec![biased().named(5), anchor().named(5)])
}

/// An anchor whose data is a value and a constant (slot 3) combined.
fn after_const(op: BinaryOp) -> Pat {
    P(is_anchor, vec![Pat::bin(op, Slot(0), Const(3)).named(4), Const(1)]).named(2)
}

/// A value times one number.
fn number_times(slot: u8) -> Pat {
    Pat::times(Slot(slot), Pat::NumIn(0)).named(4)
}

fn contract_of(a: Pat, b: Pat) -> Pat {
    P(|p| matches!(p, Prim::Contract { .. }), vec![a, b]).named(2)
}

/// Two tensors are multiplied, and what is scaled is no result that could be scaled as it is made:
/// then the number is a factor of the product, which is.
fn late(g: &Graph, m: &Match) -> When {
    wide(g, m)?;
    let x = m.inputs(g, 4)[0];
    let x = if g.as_const(x).is_some() { m.inputs(g, 4)[1] } else { x };
    if [m.v(0), m.v(1)].iter().any(|&v| g.as_const(v).is_some()) {
        return Err("the weights hold the factor");
    }
    let makes = |p: &Prim| {
        p.is_elementwise()
            || is_anchor(p)
            || matches!(p, Prim::Reduce { .. } | Prim::Window { .. } | Prim::Gather { .. })
    };
    let made = g.as_prim(x).is_some_and(|(_, p)| makes(p));
    if made && m.users(x).len() == 1 {
        return Err("the factor is applied as the operand is made");
    }
    if g.dims(x) == g.dims(m.v(4)) { Ok(()) } else { Err("the number broadcasts what it scales") }
}

fn number_late(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    let y = b.prim(p, &[m.v(0), m.v(1)])?;
    Ok(vec![b.bin_scalar(BinaryOp::Mul, y, m.num(0))?])
}

/// The operand that is constant weights, by position.
fn weights(g: &Graph, m: &Match) -> Option<usize> {
    let is = |s| g.as_const(m.v(s)).is_some();
    let contract = matches!(m.prim(g, 2), Prim::Contract { .. });
    if is(1) { Some(1) } else { (contract && is(0)).then_some(0) }
}

fn wide(g: &Graph, m: &Match) -> When {
    let dtype = g.dtype(m.v(2));
    match dtype {
        Dtype::F32 | Dtype::F64 => Ok(()),
        _ => Err("only f32 and f64 are reassociated"),
    }
}

fn weighted(g: &Graph, m: &Match) -> When {
    wide(g, m)?;
    weights(g, m).map(|_| ()).ok_or("the weights are not constant")
}

fn unpadded(g: &Graph, m: &Match) -> When {
    weighted(g, m)?;
    match m.prim(g, 2) {
        Prim::Conv { geo, .. } if geo.before.iter().chain(&geo.after).all(|d| d.is(0)) => Ok(()),
        Prim::Conv { .. } => Err("zero padding would see the shift"),
        Prim::Contract { .. } => Ok(()),
        _ => Err("a shift before a transposed convolution differs at the border"),
    }
}

fn minus(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let c = konst::un(b, UnaryOp::Neg, m.v(3))?;
    Ok(vec![b.add(m.v(5), c)?])
}

fn divide(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let c = konst::un(b, UnaryOp::Recip, m.v(3))?;
    Ok(vec![b.mul(m.v(5), c)?])
}

fn merge_sums(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let count = |b: &Builder<'_>, v| konst::count(&konst::dims(b, v));
    let most = count(b, m.v(3)).saturating_add(count(b, m.v(4)));
    let c = konst::bin(b, BinaryOp::Add, m.v(4), m.v(3))?;
    if count(b, c) > most {
        return Err(OpError::new("the sum of the constants is larger than both"));
    }
    Ok(vec![b.add(m.v(2), c)?])
}

fn distribute(b: &mut Builder<'_>, m: &Match) -> Replacement {
    // Only worth it if the scale then goes into the weights.
    let scaled = scale_after(b, m)?[0];
    let c = konst::bin(b, BinaryOp::Mul, m.v(4), m.v(3))?;
    Ok(vec![b.add(scaled, c)?])
}

/// `A(x, W*c)`.
fn scale_after(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let side = weights(b.g, m).expect("the condition says so");
    let w = m.v(side as u8);
    let p = m.prim(b.g, 2).clone();
    let rank = b.g.dims(m.v(2)).len();
    let c = aligned(b, m.v(3), rank)?;
    let new = match &p {
        Prim::Conv { .. } => {
            let c = channel(b, c)?;
            let wd = konst::dims(b, w);
            let mut shape = vec![1; wd.len()];
            shape[0] = konst::dims(b, c)[0];
            let c = konst::reshape(b, c, &shape)?;
            konst::bin(b, BinaryOp::Mul, w, c)?
        }
        Prim::ConvTranspose { groups, .. } => {
            let c = channel(b, c)?;
            grouped(b, w, c, *groups)?
        }
        Prim::Contract { a, b: lb, out } => {
            let labels = if side == 0 { a } else { lb };
            let c = to_labels(b, c, out, labels)?;
            konst::bin(b, BinaryOp::Mul, w, c)?
        }
        _ => unreachable!("the pattern says an anchor"),
    };
    same_dims(b, w, new)?;
    let mut ins = [m.v(0), m.v(1)];
    ins[side] = new;
    b.prim_n(p, &ins)
}

/// `A(x, W*c)` from `A(x*c, W)`.
fn scale_before(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let new = along_input(b, m)?;
    let p = m.prim(b.g, 2).clone();
    same_dims(b, m.v(1), new)?;
    keeps_data(b, m)?;
    b.prim_n(p, &[m.v(0), new])
}

/// `A(x, W) + bias` from `A(x+s, W)`.
fn shift_before(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let products = along_input(b, m)?;
    keeps_data(b, m)?;
    let p = m.prim(b.g, 2).clone();
    let rank = b.g.dims(m.v(2)).len();
    let bias = match &p {
        Prim::Conv { .. } => {
            let n = konst::dims(b, products).len();
            let bias = konst::sum(b, products, &(1..n).collect::<Vec<_>>())?;
            let mut shape = vec![1; rank];
            shape[1] = konst::dims(b, bias)[0];
            konst::reshape(b, bias, &shape)?
        }
        Prim::Contract { a, b: lb, out } => {
            if a.iter().any(|l| !out.contains(l) && !lb.contains(l)) {
                return Err(OpError::new("an axis is summed on the data's side alone"));
            }
            let summed: Vec<usize> = (0..lb.len()).filter(|&i| !out.contains(&lb[i])).collect();
            let bias = konst::sum(b, products, &summed)?;
            let left: Vec<u8> = lb.iter().copied().filter(|l| out.contains(l)).collect();
            spread(b, bias, &left, out)?
        }
        _ => unreachable!("the condition says a convolution or contraction"),
    };
    let y = b.prim(p, &[m.v(0), m.v(1)])?;
    Ok(vec![b.add(y, bias)?])
}

/// The weights times slot 3, which varies along the data's axes.
fn along_input(b: &mut Builder<'_>, m: &Match) -> Built {
    let (w, p) = (m.v(1), m.prim(b.g, 2).clone());
    let rank = b.g.dims(m.v(4)).len();
    let c = aligned(b, m.v(3), rank)?;
    match &p {
        Prim::Conv { groups, .. } => {
            let c = channel(b, c)?;
            grouped(b, w, c, *groups)
        }
        Prim::ConvTranspose { .. } => {
            let c = channel(b, c)?;
            let mut shape = vec![1; konst::dims(b, w).len()];
            shape[0] = konst::dims(b, c)[0];
            let c = konst::reshape(b, c, &shape)?;
            konst::bin(b, BinaryOp::Mul, w, c)
        }
        Prim::Contract { a, b: lb, .. } => {
            let c = to_labels(b, c, a, lb)?;
            konst::bin(b, BinaryOp::Mul, w, c)
        }
        _ => unreachable!("the pattern says an anchor"),
    }
}

/// The data keeps its shape when the constant is taken off it.
fn keeps_data(b: &Builder<'_>, m: &Match) -> Result<(), OpError> {
    if b.g.dims(m.v(0)) == b.g.dims(m.v(4)) {
        return Ok(());
    }
    Err(OpError::new("the constant broadcasts the data"))
}

fn same_dims(b: &Builder<'_>, a: Value, c: Value) -> Result<(), OpError> {
    if b.g.dims(a) == b.g.dims(c) {
        return Ok(());
    }
    Err(OpError::new("the constant broadcasts the weights"))
}

/// With leading axes of 1 up to a rank.
fn aligned(b: &mut Builder<'_>, c: Value, rank: usize) -> Built {
    let dims = konst::dims(b, c);
    if dims.len() > rank {
        return Err(OpError::new("the constant has more axes"));
    }
    let shape = [vec![1; rank - dims.len()], dims].concat();
    konst::reshape(b, c, &shape)
}

/// A constant that varies along axis 1 at most, as a vector.
fn channel(b: &mut Builder<'_>, c: Value) -> Built {
    let dims = konst::dims(b, c);
    if dims.iter().enumerate().any(|(i, &d)| i != 1 && d != 1) {
        return Err(OpError::new("the constant varies along more than channels"));
    }
    konst::reshape(b, c, &[dims[1]])
}

/// Weights of a grouped convolution times a vector that varies with (group, second axis): along C for
/// `w: [M, C/g, …]`, along M for a transposed one's `w: [C, M/g, …]`. Both split their first axis by
/// group.
fn grouped(b: &mut Builder<'_>, w: Value, c: Value, groups: i64) -> Built {
    let (wd, n) = (konst::dims(b, w), konst::dims(b, c)[0]);
    let per_group = wd[1];
    if n != 1 && n != groups * per_group || groups < 1 || wd[0] % groups != 0 {
        return Err(OpError::new("the constant does not fit the channels"));
    }
    let split = [&[groups, wd[0] / groups][..], &wd[1..]].concat();
    let mut shape = vec![1; split.len()];
    if n > 1 {
        (shape[0], shape[2]) = (groups, per_group);
    }
    let (w, c) = (konst::reshape(b, w, &split)?, konst::reshape(b, c, &shape)?);
    let y = konst::bin(b, BinaryOp::Mul, w, c)?;
    konst::reshape(b, y, &wd)
}

/// A constant with one axis a label of `from`, as one that broadcasts along the axes `to`. Axes
/// longer than 1 must be in both.
fn to_labels(b: &mut Builder<'_>, c: Value, from: &[u8], to: &[u8]) -> Built {
    let dims = konst::dims(b, c);
    let long: Vec<usize> = (0..dims.len()).filter(|&i| dims[i] != 1).collect();
    if long.iter().any(|&i| !to.contains(&from[i])) {
        return Err(OpError::new("the constant varies along an axis that the weights lack"));
    }
    let labels: Vec<u8> = long.iter().map(|&i| from[i]).collect();
    let sizes: Vec<i64> = long.iter().map(|&i| dims[i]).collect();
    let c = konst::reshape(b, c, &sizes)?;
    spread(b, c, &labels, to)
}

/// A constant with axes `labels` (each in `to`), transposed and with axes of 1 put in.
fn spread(b: &mut Builder<'_>, c: Value, labels: &[u8], to: &[u8]) -> Built {
    let dims = konst::dims(b, c);
    let order: Vec<usize> = to.iter().filter_map(|l| labels.iter().position(|x| x == l)).collect();
    let shape: Vec<i64> =
        to.iter().map(|l| labels.iter().position(|x| x == l).map_or(1, |i| dims[i])).collect();
    let c = konst::transpose(b, c, &order)?;
    konst::reshape(b, c, &shape)
}
