//! einsum.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dtype, Prim, ReduceOp, Value};

/// Labels of the axes that an ellipsis stands for, from the last one on: no letters.
const DOTS: [u8; 8] = *b"01234567";

/// The labels of a term for an operand of some rank.
fn labels(c: &Ctx<'_, '_>, term: &str, rank: usize) -> Res<Vec<u8>> {
    let Some((before, after)) = term.split_once("...") else {
        return Ok(term.bytes().collect());
    };
    let hidden = rank.checked_sub(before.len() + after.len()).filter(|&n| n <= DOTS.len());
    let Some(n) = hidden else { return c.refuse("an ellipsis that does not fit its operand") };
    Ok(before.bytes().chain(DOTS[..n].iter().rev().copied()).chain(after.bytes()).collect())
}

/// An operand with each label once: of axes that share one, the diagonal.
fn diagonal(c: &mut Ctx<'_, '_>, mut v: Value, mut term: Vec<u8>) -> Res<(Value, Vec<u8>)> {
    while let Some(q) = (1..term.len()).find(|&q| term[..q].contains(&term[q])) {
        let p = term.iter().position(|&l| l == term[q]).unwrap_or(0);
        let shape = c.dims(v);
        let iota =
            |axis: usize| Prim::Iota { dtype: Dtype::I64, shape: shape.clone(), axis: axis as u32 };
        let (i, j) = (c.b.prim(iota(p), &[])?, c.b.prim(iota(q), &[])?);
        let same = c.b.bin(BinaryOp::Eq, i, j)?;
        let zero = c.b.scalar(c.b.g.dtype(v), 0.0);
        let only = c.b.select(same, v, zero)?;
        v = c.b.reduce(ReduceOp::Sum, only, &[q], false)?;
        term.remove(q);
    }
    Ok((v, term))
}

/// einsum.
pub fn einsum(c: &mut Ctx<'_, '_>) -> Res {
    let equation: String = c.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l.to_string(), Some(r.to_string())),
        None => (equation, None),
    };
    let xs = c.all("Operands|X")?;
    let texts: Vec<&str> = left.split(',').collect();
    if texts.len() != xs.len() || xs.is_empty() {
        return c.refuse("an equation of another number of operands");
    }
    let (mut operands, mut terms, mut all) = (vec![], vec![], vec![]);
    for (&x, text) in xs.iter().zip(texts) {
        let term = labels(c, text, c.rank(x))?;
        if term.len() != c.rank(x) {
            return c.refuse("an equation that does not fit its operands");
        }
        all.extend(term.clone());
        let (v, term) = diagonal(c, x, term)?;
        operands.push(v);
        terms.push(term);
    }
    let most = DOTS.iter().filter(|l| all.contains(l)).count();
    let out: Vec<u8> = match right {
        Some(r) => labels(c, &r, r.replace("...", "").len() + most)?,
        None => {
            let once = |l: &&u8| all.iter().filter(|m| m == l).count() == 1;
            let mut free: Vec<u8> =
                all.iter().filter(|l| l.is_ascii_alphabetic()).filter(once).copied().collect();
            free.sort_unstable();
            DOTS[..most].iter().rev().copied().chain(free).collect()
        }
    };
    let v = contracted(c, &operands, &terms, &out)?;
    c.put("Out", v);
    Ok(())
}

/// Operands joined one after the other; what no later one needs is summed.
fn contracted(c: &mut Ctx<'_, '_>, xs: &[Value], terms: &[Vec<u8>], out: &[u8]) -> Res<Value> {
    let (mut v, mut labels) = (xs[0], terms[0].clone());
    for (i, (&x, term)) in xs.iter().zip(terms).enumerate().skip(1) {
        let later = |l: &u8| out.contains(l) || terms[i + 1..].iter().flatten().any(|m| m == l);
        let mut keep: Vec<u8> = labels.iter().chain(term).copied().filter(later).collect();
        keep =
            (0..keep.len()).filter(|&i| !keep[..i].contains(&keep[i])).map(|i| keep[i]).collect();
        let p = Prim::Contract { a: labels, b: term.clone(), out: keep.clone() };
        v = c.b.prim(p, &[v, x])?;
        labels = keep;
    }
    let gone: Vec<usize> = (0..labels.len()).filter(|&i| !out.contains(&labels[i])).collect();
    if c.rank(v) != labels.len() {
        return c.refuse("an equation that does not fit its operands");
    }
    v = c.b.reduce(ReduceOp::Sum, v, &gone, false)?;
    labels.retain(|l| out.contains(l));
    let perm = out.iter().map(|l| labels.iter().position(|m| m == l));
    let perm = perm.collect::<Option<Vec<_>>>().filter(|p| p.len() == labels.len());
    let Some(perm) = perm else {
        return c.refuse("an output label that no operand has, or that repeats");
    };
    Ok(c.b.transpose(v, &perm)?)
}
