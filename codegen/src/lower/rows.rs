//! What a row group reduces, in which passes, and which values are worth keeping between passes.

use super::accum::Kind;
use super::coord::Coord;
use super::cx::{LowerCx, Made, unsupported};
use super::memo::Kept;
use super::study::Loop;
use crate::task::Task;
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::{Op, Value};
use std::collections::HashMap;

/// A reduction of the region.
pub struct Reduction {
    /// What is reduced.
    pub input: Value,
    /// The result.
    pub output: Value,
    /// How.
    pub kind: Kind,
    /// The pass that makes it.
    pub level: usize,
    /// A position that is only stored: it may stay in i32 lanes.
    pub short: bool,
}

/// What is reduced, and in which passes.
pub struct Rows {
    /// The domain.
    pub full: Vec<Dim>,
    /// Which of its axes are reduced.
    pub reduced: Vec<bool>,
    /// The reductions, in order.
    pub list: Vec<Reduction>,
    /// Passes that must have run before a value can be made.
    pub level: HashMap<Value, usize>,
    /// How many passes reduce.
    pub passes: usize,
}

impl Rows {
    /// What a region reduces.
    pub fn of(task: &Task<'_>) -> Made<Rows> {
        let g = task.g;
        let mut shape: Option<(Vec<Dim>, Vec<u32>)> = None;
        let (mut list, mut level) = (vec![], HashMap::new());
        for &n in &g.regions[task.region].nodes {
            let node = &g.nodes[n];
            let ready = node.inputs.iter().filter_map(|v| level.get(v)).copied().max().unwrap_or(0);
            let output = node.outputs[0];
            let (kind, axes) = match &node.op {
                Op::Prim(Prim::Reduce { op, axes, .. }) if !axes.is_empty() => {
                    (Kind::Of(*op, g.dtype(node.inputs[0])), axes.clone())
                }
                Op::Prim(Prim::ArgReduce { max, axis, last, .. }) => {
                    let dtype = g.dtype(node.inputs[0]);
                    (Kind::Arg { max: *max, last: *last, dtype }, vec![*axis])
                }
                _ => {
                    level.insert(output, ready);
                    continue;
                }
            };
            let input = node.inputs[0];
            let this = (g.dims(input).to_vec(), axes);
            if shape.get_or_insert_with(|| this.clone()) != &this {
                return unsupported("reductions over different axes");
            }
            let uses = |&n: &hub_ir::Node| g.nodes[n].inputs.contains(&output);
            let short =
                matches!(kind, Kind::Arg { .. }) && !g.regions[task.region].nodes.iter().any(uses);
            list.push(Reduction { input, output, kind, level: ready, short });
            level.insert(output, ready + 1);
        }
        let Some((full, axes)) = shape else { return unsupported("a row group without reduction") };
        let reduced = (0..full.len()).map(|a| axes.contains(&(a as u32))).collect();
        let passes = list.iter().map(|r| r.level + 1).max().unwrap_or(0);
        Ok(Rows { full, reduced, list, level, passes })
    }

    /// Coordinates of a value of the full or a reduced shape at a position of the domain.
    pub fn coords(&self, dims: &[Dim], at: &[Coord]) -> Made<Vec<Coord>> {
        if dims.len() == at.len() {
            return Ok(at.to_vec());
        }
        let kept: Vec<Coord> =
            at.iter().zip(&self.reduced).filter(|(_, r)| !**r).map(|(c, _)| c.clone()).collect();
        if kept.len() != dims.len() {
            return unsupported("a value of neither the full nor the reduced shape");
        }
        Ok(kept)
    }

    /// Is this the shape of a row's result?
    pub fn is_reduced(&self, dims: &[Dim]) -> bool {
        let kept = dims.len() != self.full.len();
        kept || dims.iter().zip(&self.reduced).all(|(d, r)| !r || d.is(1))
    }

    /// Elements of a row.
    pub fn count(&self) -> Dim {
        let each = self.full.iter().zip(&self.reduced).filter(|(_, r)| **r).map(|(d, _)| d);
        Dim::product(each)
    }
}

/// Values worth keeping in scratch between passes: needed by a later pass than the one that makes
/// them, with a transcendental or division behind them, if the row is known to fit.
pub fn keep(cx: &mut LowerCx<'_>, rows: &Rows, loops: &[Loop]) -> HashMap<Value, Kept> {
    let mut out = HashMap::new();
    let lanes = cx.lanes as i64;
    let size = loops.iter().try_fold(1i64, |n, l| n.checked_mul(l.extent.as_const()?));
    let bytes = size.and_then(|n| n.checked_add(lanes)?.checked_mul(4));
    let Some(bytes) = bytes.filter(|b| *b <= cx.target.kept) else { return out };
    let mut strides = vec![0; rows.full.len()];
    let mut at = 4;
    for l in loops.iter().rev() {
        strides[l.dim] = at;
        at *= l.extent.as_const().unwrap_or(1);
    }
    let g = cx.task.g;
    let nodes = &g.regions[cx.task.region].nodes;
    for v in rows.list.iter().map(|r| r.input).filter(|&v| dear(g, v)) {
        let uses = nodes.iter().filter(|&&n| g.nodes[n].inputs.contains(&v)).count();
        let later = uses > 1 || g.regions[cx.task.region].results.contains(&v);
        let plain = g.dtype(v) == hub_abi::Dtype::F32 && g.dims(v) == rows.full;
        if later && plain && !out.contains_key(&v) {
            let offset = cx.b.scratch(bytes as u64);
            out.insert(v, Kept { offset, strides: strides.clone() });
        }
    }
    out
}

/// Is a value made by more than a few instructions?
fn dear(g: &hub_ir::Graph, v: Value) -> bool {
    use hub_ir::UnaryOp::*;
    match g.as_prim(v) {
        Some((_, Prim::Unary(op))) => {
            !matches!(op, Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Not | BitNot)
        }
        _ => false,
    }
}
