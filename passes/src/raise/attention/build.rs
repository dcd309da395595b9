//! The attention that was found, as a source operator on operands of one arrangement.

use super::only_use;
use super::scores::{Found, Mask, find};
use crate::movement::blocks;
use crate::rewrite::{Match, Replacement, number_of};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, Prim};
use hub_ir::build::{Builder, Built};
use hub_ir::ops::attention::Attention;
use hub_ir::{OpError, Value};

/// Builds what the condition found.
pub fn attention(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let f = find(b.g, m).map_err(OpError::new)?;
    let scores = &f.scores;
    let (qs, q) = unscaled(b, m, f.q.0)?;
    let (ks, k) = unscaled(b, m, f.k.0)?;
    let order = |own: [u8; 2]| [&scores.batch[..], &own].concat();
    let q = arranged(b, q, &f.q.1, &order([scores.query, f.depth]))?;
    let k = arranged(b, k, &f.k.1, &order([scores.key, f.depth]))?;
    // What queries share stays shared.
    let shared = [q, k].iter().any(|&v| b.g.dims(v)[..f.leads[0].len()] != f.leads[0]);
    let home = if shared { 0 } else { home(&f) };
    let (q, k) = (led(b, q, &f.leads[0], &f.leads[home])?, led(b, k, &f.leads[0], &f.leads[home])?);
    let order = [&f.probs.batch[..], &[f.probs.key, f.column]].concat();
    let v = arranged(b, f.v.0, &f.v.1, &order)?;
    let last = f.leads.last().expect("two products have leading axes");
    let v = led(b, v, last, &f.leads[home])?;
    let mut ins = vec![q, k, v];
    for s in &f.steps {
        if let Some(mask) = &s.mask {
            ins.push(placed(b, mask, &f.leads, home)?);
        }
    }
    let adjust = f.steps.iter().map(|s| s.adjust.clone()).collect();
    let depth = b.g.dims(q).last().and_then(Dim::as_const).unwrap_or(0);
    let scale = rounded(f.scale * qs * ks, depth);
    let y = b.source(Attention { scale, adjust, zero: f.zero }, &ins)?;
    let rows = b.g.dims(y).to_vec();
    let y = b.reshape(y, [&last[..], &rows[rows.len() - 2..]].concat())?;
    let have = [&f.probs.batch[..], &[f.probs.query, f.column]].concat();
    Ok(vec![arranged(b, y, &have, &f.out)?])
}

/// Numbers are rounded to f32 when they are read, so their product is known no better; `1 / sqrt(d)`
/// is meant where it is that near.
fn rounded(x: f64, depth: i64) -> f64 {
    let usual = 1.0 / (depth.max(1) as f64).sqrt();
    let x = if (x - usual).abs() <= 2e-7 * usual { usual } else { x };
    f64::from(x as f32)
}

/// The leading axes to compute with: the finest that a mask was applied among, else the scores'.
fn home(f: &Found) -> usize {
    let masks = f.steps.iter().filter_map(|s| s.mask.as_ref()).map(|m| m.lead);
    masks.max_by_key(|&i| (f.leads[i].len(), std::cmp::Reverse(i))).unwrap_or(0)
}

/// The number that a value is scaled by, moved since perhaps; and the value without.
fn unscaled(b: &mut Builder<'_>, m: &Match, v: Value) -> Built<(f64, Value)> {
    let mut movement = vec![];
    let (mut at, mut by) = (v, None);
    while let Some((n, p)) = b.g.as_prim(at) {
        let alone = by.map_or(m.users(at).len() == 1, |by| only_use(m, at, &[by]));
        let ins = &b.g.nodes[n].inputs;
        if !alone {
            break;
        }
        match p {
            Prim::Transpose { .. } | Prim::Reshape { .. } => {
                movement.push(p.clone());
                (at, by) = (ins[0], Some(n));
            }
            Prim::Binary(op @ (BinaryOp::Mul | BinaryOp::Div)) => {
                let (x, k) = match (number_of(b.g, ins[0]), number_of(b.g, ins[1])) {
                    (_, Some(k)) => (ins[0], if *op == BinaryOp::Div { 1.0 / k } else { k }),
                    (Some(k), None) if *op == BinaryOp::Mul => (ins[1], k),
                    _ => break,
                };
                if !k.is_finite() || k == 0.0 || b.g.dims(x) != b.g.dims(at) {
                    break;
                }
                let mut y = x;
                for p in movement.into_iter().rev() {
                    y = b.prim(p, &[y])?;
                }
                return Ok((k, y));
            }
            _ => break,
        }
    }
    Ok((1.0, v))
}

/// A value with axes `have` as one with axes `want`; those that it lacks have size 1.
fn arranged(b: &mut Builder<'_>, v: Value, have: &[u8], want: &[u8]) -> Built {
    if have.iter().any(|l| !want.contains(l)) {
        return Err(OpError::new("an axis is summed on one side alone"));
    }
    let order = want.iter().filter_map(|l| have.iter().position(|h| h == l));
    let perm: Vec<usize> = order.collect();
    let v = transposed(b, v, &perm)?;
    let dims = b.g.dims(v).to_vec();
    let mut next = dims.into_iter();
    let shape = want.iter().map(|l| match have.contains(l) {
        true => next.next().unwrap_or(1i64.into()),
        false => 1i64.into(),
    });
    let shape = shape.collect();
    b.reshape(v, shape)
}

/// A transpose, of what an earlier one transposed.
fn transposed(b: &mut Builder<'_>, v: Value, perm: &[usize]) -> Built {
    if perm.is_sorted() {
        return Ok(v);
    }
    let Some((n, Prim::Transpose { perm: inner })) = b.g.as_prim(v) else {
        return b.transpose(v, perm);
    };
    let both: Vec<usize> = perm.iter().map(|&p| inner[p] as usize).collect();
    let x = b.g.nodes[n].inputs[0];
    b.transpose(x, &both)
}

/// `[from…, r, c]` as `[to…, r, c]`.
fn led(b: &mut Builder<'_>, v: Value, from: &[Dim], to: &[Dim]) -> Built {
    if from == to {
        return Ok(v);
    }
    let dims = b.g.dims(v).to_vec();
    let (lead, rest) = dims.split_at(dims.len().saturating_sub(2));
    if lead != from {
        return Err(OpError::new("an operand broadcasts along axes that are reshaped"));
    }
    b.reshape(v, [to, rest].concat())
}

/// A mask among the leading axes that are computed with.
fn placed(b: &mut Builder<'_>, mask: &Mask, leads: &[Vec<Dim>], home: usize) -> Built {
    let mut v = mask.value;
    if mask.factor != 1.0 {
        v = b.bin_scalar(BinaryOp::Mul, v, mask.factor)?;
    }
    let (from, to) = (&leads[mask.lead], &leads[home]);
    let dims = b.g.dims(v).to_vec();
    if from == to || dims.len() <= 2 {
        return Ok(v);
    }
    let mut dims = dims;
    while dims.len() < from.len() + 2 {
        dims.insert(0, 1i64.into());
    }
    let blocks = blocks(from, to).ok_or_else(|| OpError::new("the axes are reshaped freely"))?;
    let (mut shape, mut i0, mut j0) = (vec![], 0, 0);
    for (i, j) in blocks {
        let part = &dims[i0..i];
        if part.iter().all(|d| d.is(1)) {
            shape.extend(vec![Dim::from(1i64); j - j0]);
        } else if *part == from[i0..i] {
            shape.extend_from_slice(&to[j0..j]);
        } else {
            return Err(OpError::new("a mask varies along a part of what is reshaped"));
        }
        (i0, j0) = (i, j);
    }
    shape.extend_from_slice(&dims[from.len()..]);
    b.reshape(v, shape)
}
