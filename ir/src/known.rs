//! Values that follow from constants alone, computed when asked: what importers need of operands
//! that must be attributes (scales, pads, bounds) and that exporters wrote as small expressions.

use crate::entity::Value;
use crate::graph::{Graph, Op};
use hub_portable::{Limits, Tensor, fold};
use std::collections::HashMap;

/// Expressions deeper than this are not followed.
const DEPTH: usize = 64;

/// The tensor that a value is, where it and all it follows from have at most `most` elements and
/// follow from constants through primitives.
pub fn value_of(g: &Graph, v: Value, most: i64) -> Option<Tensor> {
    Known { g, most, memo: HashMap::new() }.find(v, 0)
}

struct Known<'g> {
    g: &'g Graph,
    most: i64,
    memo: HashMap<Value, Option<Tensor>>,
}

impl Known<'_> {
    fn find(&mut self, v: Value, depth: usize) -> Option<Tensor> {
        if let Some(known) = self.memo.get(&v) {
            return known.clone();
        }
        let found = self.compute(v, depth);
        self.memo.insert(v, found.clone());
        found
    }

    fn compute(&mut self, v: Value, depth: usize) -> Option<Tensor> {
        let ty = self.g.values.get(v)?.ty.as_tensor()?;
        let dims = ty.const_dims()?;
        let dims: Vec<usize> =
            dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        if ty.count().as_const()? > self.most || depth > DEPTH {
            return None;
        }
        if let Some(c) = self.g.as_const(v) {
            return match c.ty.dtype {
                hub_abi::Dtype::Str => Tensor::strings(&dims, c.strings.clone()).ok(),
                dtype => Tensor::from_bytes(dtype, &dims, &c.data).ok(),
            };
        }
        if let Some(known) = self.g.content.get(&v) {
            let ints: Option<Vec<i64>> = known.iter().map(|d| d.as_const()).collect();
            if let Some(ints) = ints {
                let t = Tensor::new(&dims, ints).ok()?;
                let to = hub_abi::prim::Prim::Cast { to: ty.dtype, saturate: true };
                return fold(&to, &[t], &Limits::default()).ok()?.pop();
            }
        }
        let node = self.g.def(v)?;
        let Op::Prim(p) = &self.g.nodes[node].op else { return None };
        if p.is_effect() || matches!(p, hub_abi::prim::Prim::Random { .. }) {
            return None;
        }
        let ins = self.g.nodes[node].inputs.clone();
        let ins: Option<Vec<Tensor>> = ins.into_iter().map(|i| self.find(i, depth + 1)).collect();
        let outs = fold(p, &ins?, &Limits::default()).ok()?;
        let at = self.g.nodes[node].outputs.iter().position(|&o| o == v)?;
        outs.into_iter().nth(at)
    }
}

/// Runs one cast.
pub fn cast(to: &hub_abi::prim::Prim, t: Tensor) -> Option<Tensor> {
    fold(to, &[t], &Limits::default()).ok()?.pop()
}
