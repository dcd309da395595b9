//! Elementwise primitives move before reshapes, transposes and slices where that brings them to the
//! computation they belong to: `MatMul → Reshape → Transpose → Mul` becomes `MatMul → Mul → …`.

use crate::context::{Changed, Context, PassError};
use crate::konst;
use crate::rewrite::{Match, Pat, Replacement, Rule, apply};
use Pat::{Const, Prim as P, Slot};
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::build::Builder;
use hub_ir::{Graph, Node, Op, OpError, Value};

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
    Rule { name, pattern, shared: true, when, build }
}

/// Slot 0 (and 1) is what is moved, 2 (and 3) the movement, 4 a constant.
pub const RULES: &[Rule] = &[
    rule("unary-before-movement", || P(is_unary, vec![moved(0, 2)]), computed, unary),
    rule(
        "constant-before-movement",
        || P(is_binary, vec![moved(0, 2), Const(4)]),
        computed,
        constant,
    ),
    rule("join-before-movement", || P(is_binary, vec![moved(0, 2), moved(1, 3)]), alike, join),
];

fn is_unary(p: &Prim) -> bool {
    matches!(p, Prim::Unary(_) | Prim::Cast { .. })
}
fn is_binary(p: &Prim) -> bool {
    matches!(p, Prim::Binary(_))
}
fn is_movement(p: &Prim) -> bool {
    matches!(p, Prim::Reshape { .. } | Prim::Transpose { .. } | Prim::Slice { .. })
}

fn moved(x: u8, by: u8) -> Pat {
    P(is_movement, vec![Slot(x)]).named(by)
}

/// What is moved was computed, perhaps moved more than once since.
fn is_computed(g: &Graph, mut v: Value) -> bool {
    while let Some((n, p)) = g.as_prim(v) {
        if !is_movement(p) {
            let anchor = matches!(
                p,
                Prim::Contract { .. }
                    | Prim::Conv { .. }
                    | Prim::Window { .. }
                    | Prim::Reduce { .. }
            );
            return anchor || p.is_elementwise();
        }
        v = g.nodes[n].inputs[0];
    }
    false
}

fn computed(g: &Graph, m: &Match) -> When {
    if let Prim::Slice { len, .. } = m.prim(g, 2) {
        // Computing much more than is kept would not pay; unknown sizes are judged by their axes.
        let half = |k: i64, a: i64| k.saturating_mul(2) >= a;
        let axis = |(l, d): (&Dim, &Dim)| match (l.as_const(), d.as_const()) {
            (Some(l), Some(d)) => half(l, d),
            _ => true,
        };
        let (kept, all) = (Dim::product(len), g.tensor(m.v(0)).count());
        let enough = match (kept.as_const(), all.as_const()) {
            (Some(k), Some(a)) => half(k, a),
            _ => len.iter().zip(g.dims(m.v(0))).all(axis),
        };
        if !enough {
            return Err("most of what is computed is sliced off");
        }
    }
    all_move(g, m, 2)?;
    if is_computed(g, m.v(0)) { Ok(()) } else { Err("nothing computed is moved") }
}

/// Only the movement uses what it moves, and every use of the movement can move before it.
fn all_move(g: &Graph, m: &Match, slot: u8) -> When {
    let moved = m.v(slot);
    let follows = |u: &Node| match &g.nodes[*u].op {
        Op::Prim(p) if is_unary(p) => true,
        Op::Prim(p) if is_binary(p) => g.nodes[*u].inputs.iter().all(|&v| {
            let same = |(_, q): (Node, &Prim)| is_movement(q) && q == m.prim(g, slot);
            v == moved || g.as_const(v).is_some() || g.as_prim(v).is_some_and(same)
        }),
        _ => false,
    };
    let users = m.users(moved);
    let x = m.inputs(g, slot)[0];
    if users.is_empty() || !users.iter().all(follows) {
        return Err("another use of the movement stays behind it");
    }
    if m.users(x).len() == 1 { Ok(()) } else { Err("what is moved is used unmoved too") }
}

fn alike(g: &Graph, m: &Match) -> When {
    computed(g, m)?;
    all_move(g, m, 3)?;
    let same = m.prim(g, 2) == m.prim(g, 3) && g.dims(m.v(0)) == g.dims(m.v(1));
    if same && is_computed(g, m.v(1)) { Ok(()) } else { Err("the operands are moved differently") }
}

fn again(b: &mut Builder<'_>, m: &Match, y: Value) -> Replacement {
    let movement = m.prim(b.g, 2).clone();
    b.prim_n(movement, &[y])
}

fn unary(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    let y = b.prim(p, &[m.v(0)])?;
    again(b, m, y)
}

fn join(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let p = m.root_prim(b.g).clone();
    let y = b.prim(p, &[m.v(0), m.v(1)])?;
    again(b, m, y)
}

/// The constant is moved back.
fn constant(b: &mut Builder<'_>, m: &Match) -> Replacement {
    if b.g.dims(m.out(b.g)) != b.g.dims(m.v(2)) {
        return Err(OpError::new("the constant broadcasts what is moved"));
    }
    let rank = b.g.dims(m.v(2)).len();
    let dims = konst::dims(b, m.v(4));
    let back = if dims.iter().all(|&d| d == 1) {
        konst::reshape(b, m.v(4), &[])?
    } else {
        let full = [vec![1; rank - dims.len()], dims].concat();
        let c = konst::reshape(b, m.v(4), &full)?;
        move_back(b, m, c)?
    };
    let p = m.root_prim(b.g).clone();
    let y = b.prim(p, &[m.v(0), back])?;
    again(b, m, y)
}

/// A constant that broadcasts to the movement's result, as one that broadcasts to its operand.
fn move_back(b: &mut Builder<'_>, m: &Match, c: Value) -> Result<Value, OpError> {
    match m.prim(b.g, 2).clone() {
        Prim::Transpose { perm } => {
            let mut inverse = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(to, &from)| inverse[from as usize] = to);
            konst::transpose(b, c, &inverse)
        }
        Prim::Slice { len, .. } => {
            let x = b.g.dims(m.v(0)).to_vec();
            let dims = konst::dims(b, c);
            let varies = |i: usize| dims[i] != 1;
            if (0..x.len()).any(|i| varies(i) && len[i] != x[i]) {
                return Err(OpError::new("the constant varies along a sliced axis"));
            }
            Ok(c)
        }
        Prim::Reshape { shape } => {
            let x = b.g.dims(m.v(0)).to_vec();
            let blocks = blocks(&x, &shape)
                .ok_or_else(|| OpError::new("the reshape does not split into blocks of axes"))?;
            reshape_back(b, c, &x, &shape, &blocks)
        }
        _ => unreachable!("the pattern says a movement"),
    }
}

/// Splits a reshape into runs of axes of the same number of elements: pairs of ends.
pub(crate) fn blocks(x: &[Dim], shape: &[Dim]) -> Option<Vec<(usize, usize)>> {
    let mut out = vec![];
    let (mut i, mut j) = (0, 0);
    while i < x.len() && j < shape.len() {
        let (mut p, mut q) = (x[i].clone(), shape[j].clone());
        (i, j) = (i + 1, j + 1);
        while p != q {
            match (p.as_const(), q.as_const()) {
                (Some(a), Some(b)) if a < b => {
                    p = p.mul(x.get(i)?);
                    i += 1;
                }
                (Some(_), Some(_)) => {
                    q = q.mul(shape.get(j)?);
                    j += 1;
                }
                // The side with fewer symbols is behind.
                _ if p.div_exact(&q).is_some() => {
                    q = q.mul(shape.get(j)?);
                    j += 1;
                }
                _ if q.div_exact(&p).is_some() => {
                    p = p.mul(x.get(i)?);
                    i += 1;
                }
                _ => return None,
            }
        }
        out.push((i, j));
    }
    // What is left over has one element.
    let ones = x[i..].iter().chain(&shape[j..]).all(|d| d.is(1));
    let last = out.last_mut()?;
    *last = (x.len(), shape.len());
    ones.then_some(out)
}

/// Each block along which the constant varies is spread to its full size and reshaped.
fn reshape_back(
    b: &mut Builder<'_>,
    c: Value,
    x: &[Dim],
    shape: &[Dim],
    blocks: &[(usize, usize)],
) -> Result<Value, OpError> {
    let dims = konst::dims(b, c);
    let (mut full, mut back) = (vec![], vec![]);
    let (mut i0, mut j0) = (0, 0);
    for &(i, j) in blocks {
        let varies = dims[j0..j].iter().any(|&d| d != 1);
        let known = |ds: &[Dim]| ds.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
        match (varies, known(&shape[j0..j]), known(&x[i0..i])) {
            (false, ..) => {
                full.extend(vec![1; j - j0]);
                back.extend(vec![1; i - i0]);
            }
            (true, Some(s), Some(o)) => {
                full.extend(s);
                back.extend(o);
            }
            _ => return Err(OpError::new("the constant varies along sizes that are not known")),
        }
        (i0, j0) = (i, j);
    }
    if konst::count(&full) > MOST_SPREAD {
        return Err(OpError::new("the constant would grow large"));
    }
    let c = konst::broadcast(b, c, &full)?;
    konst::reshape(b, c, &back)
}

/// Elements of a constant that is spread over a block of axes.
const MOST_SPREAD: i64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_split_into_blocks() {
        let d = |xs: &[i64]| xs.iter().map(|&x| Dim::from(x)).collect::<Vec<_>>();
        let n = Dim::from(hub_abi::Sym(0));
        let with_n = |xs: &[i64]| [vec![n.clone()], d(xs)].concat();
        assert_eq!(blocks(&d(&[2, 12]), &d(&[2, 3, 4])), Some(vec![(1, 1), (2, 3)]));
        assert_eq!(
            blocks(&with_n(&[6, 5]), &with_n(&[2, 3, 5])),
            Some(vec![(1, 1), (2, 3), (3, 4)])
        );
        let merged = [vec![n.times(6)], d(&[5])].concat();
        assert_eq!(blocks(&with_n(&[6, 5]), &merged), Some(vec![(2, 1), (3, 2)]));
        assert_eq!(blocks(&d(&[4, 1]), &d(&[4])), Some(vec![(2, 1)]));
        assert_eq!(blocks(&d(&[6]), &d(&[2, 3, 1, 1])), Some(vec![(1, 4)]));
        assert_eq!(blocks(&with_n(&[3]), &d(&[9])), None);
    }
}
