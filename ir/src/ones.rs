//! Sizes that are 1 wherever there is anything: `x[-1:]` of an axis that may be empty.
//!
//! Such a size is an expression that is 1, or 0 where the axis is empty. Broadcasting needs to know it
//! as 1; that it is 1 becomes a constraint, checked when sizes are bound.

use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::{Dim, Sym, SymEnv, SymInfo};

/// Symbols of an expression that is looked at.
const MOST_SYMS: usize = 8;
/// Sizes at which an expression is tried.
const TRIED: [i64; 16] = [1 << 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31, 64, 1000, 0];

/// Whether a size that is no constant is 1 wherever it was tried and not 0. (What is concluded from
/// it is checked again when sizes are bound.)
fn one_if_any(d: &Dim, syms: &[SymInfo]) -> bool {
    if d.as_const().is_some() || d.as_sym().is_some() {
        return false;
    }
    let mut own: Vec<Sym> = vec![];
    d.each_sym(&mut |s| {
        if !own.contains(&s) {
            own.push(s);
        }
    });
    if own.len() > MOST_SYMS {
        return false;
    }
    (0..TRIED.len()).all(|k| {
        let mut env = SymEnv::new(syms.len());
        for (i, s) in own.iter().enumerate() {
            let info = &syms[s.0 as usize];
            // All at once in the first round, then mixed.
            let tried = TRIED[if k == 0 { 0 } else { (k + i * 5) % TRIED.len() }];
            env.set(*s, tried.clamp(info.min, info.max));
        }
        match d.eval(&env) {
            Ok(v) => v == 1 || v == 0 && k > 0,
            Err(_) => false,
        }
    })
}

/// x with such sizes made 1 where the shape that it meets (from the last axis on) has another size.
pub(crate) fn leveled(b: &mut Builder<'_>, x: Value, meets: &[Vec<Dim>]) -> Built {
    let Some(t) = x.some().and_then(|v| b.g.ty(v).as_tensor()) else { return Ok(x) };
    let mut dims = t.dims.clone();
    for (from_end, d) in dims.iter_mut().rev().enumerate() {
        let differs = meets.iter().any(|o| {
            let at = o.len().checked_sub(from_end + 1).map(|at| &o[at]);
            at.is_some_and(|o| !o.is(1) && o != d && !one_if_any(o, &b.g.syms))
        });
        if differs && one_if_any(d, &b.g.syms) {
            *d = b.g.constraints.equal(d, &1i64.into())?;
        }
    }
    b.reshape(x, dims)
}

/// Operands of an elementwise primitive, leveled with each other.
pub(crate) fn level(b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
    let dims = |b: &Builder<'_>, v: Value| {
        v.some().and_then(|v| b.g.ty(v).as_tensor()).map(|t| t.dims.clone())
    };
    let mut outs = vec![];
    for i in 0..ins.len() {
        let others = (0..ins.len()).filter(|&j| j != i).filter_map(|j| dims(b, ins[j]));
        let others: Vec<Vec<Dim>> = others.collect();
        outs.push(leveled(b, ins[i], &others)?);
    }
    Ok(outs)
}
