//! Padding by a tensor's own elements (reflected, repeated, from the other end), as a concatenation of
//! its slices: what computes the tensor then writes it into its place between them.

use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Prim as P, Slot};
use hub_abi::Dim;
use hub_abi::prim::{PadMode, Prim};
use hub_ir::build::Builder;
use hub_ir::{Graph, OpError, Value};

/// The rule; slot 0 is the tensor.
pub const RULE: Rule = Rule {
    name: "pad-of-itself",
    pattern: || P(|p| matches!(p, Prim::Pad { .. }), vec![Slot(0), Slot(1)]),
    shared: true,
    when: |g, m| amounts(g, m).map(|_| ()),
    build: joined,
};

/// One padded axis: its size, and how many elements stand before and after.
type Amount = (usize, i64, [i64; 2]);

/// The padded axes.
fn amounts(g: &Graph, m: &Match) -> Result<(PadMode, Vec<Amount>), &'static str> {
    let Prim::Pad { before, after, mode } = m.root_prim(g) else { return Err("") };
    let reach = match mode {
        PadMode::Constant => return Err(""),
        PadMode::Reflect => |n: i64| n - 1,
        PadMode::Edge => |n: i64| if n > 0 { i64::MAX } else { 0 },
        PadMode::Wrap => |n: i64| n,
    };
    let mut found = vec![];
    for (a, d) in g.dims(m.v(0)).iter().enumerate() {
        match (before[a].as_const(), after[a].as_const(), d.as_const()) {
            (Some(0), Some(0), _) => {}
            (Some(b), Some(e), Some(n)) if b.min(e) >= 0 && b.max(e) <= reach(n) => {
                found.push((a, n, [b, e]));
            }
            (Some(_), Some(_), Some(_)) => {
                return Err("the padding is longer than what it repeats");
            }
            _ => return Err("the padding or the padded size is not known"),
        }
    }
    Ok((*mode, found))
}

/// The last axis first, whose pieces are the smallest.
fn joined(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let (mode, amounts) = amounts(b.g, m).map_err(OpError::new)?;
    let mut x = m.v(0);
    for &(axis, n, [before, after]) in amounts.iter().rev() {
        let mut parts = vec![x];
        if before > 0 {
            parts.insert(0, piece(b, x, axis, (mode, true), n, before)?);
        }
        if after > 0 {
            parts.push(piece(b, x, axis, (mode, false), n, after)?);
        }
        x = b.prim(Prim::Concat { axis: axis as u32 }, &parts)?;
    }
    Ok(vec![x])
}

/// `count` elements that stand before or after an axis of `n`.
fn piece(
    b: &mut Builder<'_>,
    x: Value,
    axis: usize,
    (mode, before): (PadMode, bool),
    n: i64,
    count: i64,
) -> Result<Value, OpError> {
    let (first, taken, by) = match (mode, before) {
        (PadMode::Reflect, true) => (count, count, -1),
        (PadMode::Reflect, false) => (n - 2, count, -1),
        (PadMode::Wrap, true) => (n - count, count, 1),
        (PadMode::Wrap, false) => (0, count, 1),
        (_, true) => (0, 1, 1),
        (_, false) => (n - 1, 1, 1),
    };
    let mut dims = b.g.dims(x).to_vec();
    let mut start = vec![Dim::from(0i64); dims.len()];
    let mut step = vec![1; dims.len()];
    (start[axis], dims[axis], step[axis]) = (first.into(), taken.into(), by);
    let slice = b.prim(Prim::Slice { start, len: dims.clone(), step }, &[x])?;
    if taken == count {
        return Ok(slice);
    }
    dims[axis] = count.into();
    b.prim(Prim::Broadcast { shape: dims }, &[slice])
}
