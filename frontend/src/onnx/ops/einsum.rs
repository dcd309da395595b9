//! Einsum: diagonals by masking, then pairwise contractions from the left.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[op("Einsum", 12, einsum)];

/// Labels of axes that an ellipsis stands for, counted from the last.
const ELLIPSIS: u8 = 128;

/// One term's labels; an ellipsis takes what the other labels leave of the rank.
fn labels(term: &str, rank: Option<usize>, dots: usize) -> Got<Vec<u8>> {
    let mut out = vec![];
    let mut rest = term;
    let plain = term.chars().filter(|c| c.is_ascii_alphabetic()).count();
    while let Some(ch) = rest.chars().next() {
        if rest.starts_with("...") {
            let n = rank.map_or(Some(dots), |r| r.checked_sub(plain));
            let Some(n) = n.filter(|&n| n < 64) else { return invalid(format!("term '{term}'")) };
            out.extend((0..n).rev().map(|i| ELLIPSIS + i as u8));
            rest = &rest[3..];
        } else if ch.is_ascii_alphabetic() {
            out.push(ch as u8);
            rest = &rest[1..];
        } else {
            return invalid(format!("term '{term}'"));
        }
    }
    match rank {
        Some(r) if r != out.len() => invalid(format!("term '{term}' for rank {r}")),
        _ => Ok(out),
    }
}

fn einsum(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let text: String = c.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l.to_string(), Some(r.to_string())),
        None => (text.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != c.ins.len() {
        return invalid(format!("{} terms for {} operands", terms.len(), c.ins.len()));
    }
    let mut operands = vec![];
    for (i, t) in terms.iter().enumerate() {
        let x = c.tensor(i)?;
        let l = labels(t, Some(c.rank(x)), 0)?;
        operands.push(diagonal(c, x, l)?);
    }
    let used = |l: u8| operands.iter().flat_map(|(_, ls)| ls).filter(|&&x| x == l).count();
    let dots = operands.iter().flat_map(|o| &o.1).filter(|&&l| l >= ELLIPSIS);
    let dots = dots.map(|&l| (l - ELLIPSIS) as usize + 1).max().unwrap_or(0);
    let out = match &right {
        Some(r) => labels(r, None, dots)?,
        None => {
            // Ellipsis first, then labels that appear once, in alphabetical order.
            let mut once: Vec<u8> = left.bytes().filter(|b| b.is_ascii_alphabetic()).collect();
            once.sort_unstable();
            let twice = |l: &u8| left.bytes().filter(|b| b == l).count() == 1;
            once.retain(twice);
            (0..dots).rev().map(|i| ELLIPSIS + i as u8).chain(once).collect()
        }
    };
    if let Some(l) =
        out.iter().find(|&&l| used(l) == 0 || out.iter().filter(|&&x| x == l).count() > 1)
    {
        return invalid(format!("output label {l} is in no operand, or twice"));
    }
    let mut operands = operands.into_iter();
    let Some((mut x, mut lx)) = operands.next() else { return invalid("no operand") };
    let rest: Vec<(Value, Vec<u8>)> = operands.collect();
    for i in 0..rest.len() {
        let (y, ly) = rest[i].clone();
        let later = |l: &u8| out.contains(l) || rest[i + 1..].iter().any(|r| r.1.contains(l));
        let mut to: Vec<u8> = lx.iter().copied().filter(|l| later(l)).collect();
        to.extend(ly.iter().copied().filter(|l| later(l) && !lx.contains(l)));
        (x, lx) = contract(c, (x, lx), (y, ly), to)?;
    }
    // What is left over is summed; what is left is put in order.
    let axes: Vec<usize> = (0..lx.len()).filter(|&i| !out.contains(&lx[i])).collect();
    if !axes.is_empty() {
        x = c.reduce(ReduceOp::Sum, x, &axes, false)?;
        lx.retain(|l| out.contains(l));
    }
    let perm: Vec<usize> = out.iter().filter_map(|l| lx.iter().position(|x| x == l)).collect();
    one(c.b.transpose(x, &perm)?)
}

/// An operand whose repeated labels are taken along the diagonal.
fn diagonal(c: &mut Cx<'_, '_, '_>, x: Value, l: Vec<u8>) -> Got<(Value, Vec<u8>)> {
    let (mut x, mut l) = (x, l);
    while let Some((i, j)) =
        (0..l.len()).find_map(|j| Some((l[..j].iter().position(|&a| a == l[j])?, j)))
    {
        let dims = c.dims(x);
        let dtype = c.dtype(x);
        let mut at = |axis: usize| {
            let mut shape = vec![Dim::from(1i64); dims.len()];
            shape[axis] = dims[axis].clone();
            c.prim(Prim::Iota { dtype: Dtype::I64, shape, axis: axis as u32 }, &[])
        };
        let (a, b) = (at(i)?, at(j)?);
        let same = c.bin(BinaryOp::Eq, a, b)?;
        let zero = c.scalar(dtype, 0.0);
        x = c.b.select(same, x, zero)?;
        x = c.reduce(ReduceOp::Sum, x, &[j], false)?;
        l.remove(j);
    }
    Ok((x, l))
}

type Labelled = (Value, Vec<u8>);

/// Sums what `to` lacks. An axis of size 1 that broadcasts is squeezed out.
fn contract(c: &mut Cx<'_, '_, '_>, a: Labelled, b: Labelled, to: Vec<u8>) -> Got<Labelled> {
    let (da, db) = (c.dims(a.0), c.dims(b.0));
    let size = |l: u8, d: &[Dim], ls: &[u8]| ls.iter().position(|&x| x == l).map(|i| d[i].clone());
    let thin = |l: u8, own: &Dim, other: Option<Dim>| {
        l >= ELLIPSIS && own.is(1) && other.is_some_and(|o| !o.is(1))
    };
    let squeeze = |c: &mut Cx<'_, '_, '_>, (v, ls): &Labelled, d: &[Dim], od: &[Dim], ol: &[u8]| {
        let kept: Vec<usize> =
            (0..ls.len()).filter(|&i| !thin(ls[i], &d[i], size(ls[i], od, ol))).collect();
        let v = c.reshape(*v, kept.iter().map(|&i| d[i].clone()).collect())?;
        Ok::<_, crate::FrontendError>((v, kept.iter().map(|&i| ls[i]).collect::<Vec<u8>>()))
    };
    let a2 = squeeze(c, &a, &da, &db, &b.1)?;
    let b2 = squeeze(c, &b, &db, &da, &a.1)?;
    if c.dtype(a2.0) != c.dtype(b2.0) {
        return unsupported("operands of different element types");
    }
    let p = Prim::Contract { a: a2.1, b: b2.1, out: to.clone() };
    Ok((c.prim(p, &[a2.0, b2.0])?, to))
}
