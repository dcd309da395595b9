//! Movement: views by strides, copies where strides cannot say it, concatenation by pitch.

use super::layout::{Facts, Place, Wish, dense_strides};
use super::{PlaceError, Placer};
use hub_abi::Dim;
use hub_ir::{Graph, Node, Op, Prim, Sym, Value};
use std::collections::{HashMap, HashSet};

/// A value that is computed straight into its place in a concatenation.
#[derive(Clone, Debug)]
pub struct Part {
    /// The concatenation's output.
    pub whole: Value,
    /// The joined axis.
    pub axis: usize,
    /// First element along it.
    pub start: Dim,
}

/// Finds the parts: operands that a group or another concatenation makes, that no other concatenation takes, and that lie
/// alike (images in images, row-major in row-major).
pub fn parts(g: &Graph, facts: &Facts, dynamic: &HashSet<Sym>) -> HashMap<Value, Part> {
    let mut out = HashMap::new();
    for &n in &g.regions[g.root()].nodes {
        let Op::Prim(Prim::Concat { axis }) = g.nodes[n].op else { continue };
        let (whole, axis) = (g.nodes[n].outputs[0], axis as usize);
        let mut known = true;
        let dims = g.dims(whole);
        dims.iter().for_each(|d| d.each_sym(&mut |s| known &= !dynamic.contains(&s)));
        let mut start = Dim::from(0i64);
        for &v in &g.nodes[n].inputs {
            let made = g.def(v).is_some_and(|d| {
                matches!(g.nodes[d].op, Op::Group { .. } | Op::Prim(Prim::Concat { .. }))
            });
            let result = g.regions[g.root()].results.contains(&v);
            let repeated = g.nodes[n].inputs.iter().filter(|&&w| w == v).count() > 1;
            // A halo around one part of a spatial concatenation would lie in its neighbour.
            let clash = axis >= 2 && facts.halo(v).is_some();
            let alike = facts.is_image(v) == facts.is_image(whole);
            let other_fill =
                facts.halo(v).zip(facts.halo(whole)).is_some_and(|(a, b)| a.fill != b.fill);
            if known && made && !result && !repeated && !clash && alike && !other_fill {
                let part = Part { whole, axis, start: start.clone() };
                out.entry(v).or_insert(part);
            }
            start = start.add(&g.dims(v)[axis]);
        }
    }
    out
}

impl Place {
    /// Elements `start..start+len` of an axis, every `step`-th.
    pub fn slice(&self, axis: usize, start: &Dim, len: &Dim, step: i64) -> Place {
        let size = self.dtype.size() as i64;
        let mut p = self.clone();
        p.offset = p.offset.add(&start.mul(&self.strides[axis]).times(size));
        p.strides[axis] = self.strides[axis].times(step);
        if p.dims[axis] != *len {
            p.slack = 0;
            // Channels of an image keep its spatial halo; a piece of a spatial axis has none.
            if axis != 1 {
                p.halo = None;
            }
        }
        p.dims[axis] = len.clone();
        p
    }

    fn permute(&self, perm: &[u32]) -> Place {
        let mut p = self.clone();
        p.dims = perm.iter().map(|&a| self.dims[a as usize].clone()).collect();
        p.strides = perm.iter().map(|&a| self.strides[a as usize].clone()).collect();
        p.halo = None;
        p
    }

    fn broadcast(&self, shape: &[Dim]) -> Place {
        let lead = shape.len() - self.dims.len();
        let mut p = self.clone();
        p.dims = shape.to_vec();
        p.strides = (0..shape.len())
            .map(|i| match i.checked_sub(lead) {
                Some(j) if !self.dims[j].is(1) || shape[i].is(1) => self.strides[j].clone(),
                _ => 0i64.into(),
            })
            .collect();
        p.halo = None;
        p
    }

    /// The axis of a reshape's result that is this one's contiguous axis, whole, if it is not the last
    /// of either.
    fn kept_unit(&self, shape: &[Dim]) -> Option<usize> {
        let unit = |a: &usize| self.strides[*a].is(1) && !self.dims[*a].is(1);
        let axis = (0..self.dims.len()).find(unit)?;
        let last = |dims: &[Dim], a: usize| dims[a + 1..].iter().all(|d| d.is(1));
        let before = Dim::product(&self.dims[..axis]);
        let alike =
            |a: &usize| shape[*a] == self.dims[axis] && Dim::product(&shape[..*a]) == before;
        let to = (0..shape.len()).find(alike)?;
        (!last(&self.dims, axis) && !last(shape, to)).then_some(to)
    }

    /// The same elements under another shape, where strides can say it. Axes are matched in runs of
    /// equal product; within a run the input must be contiguous.
    pub fn reshape(&self, shape: &[Dim]) -> Option<Place> {
        let axes: Vec<(Dim, Dim)> = self
            .dims
            .iter()
            .cloned()
            .zip(self.strides.iter().cloned())
            .filter(|(d, _)| !d.is(1))
            .collect();
        let outs: Vec<usize> = (0..shape.len()).filter(|&i| !shape[i].is(1)).collect();
        let mut strides = vec![Dim::from(0i64); shape.len()];
        let (mut i, mut j) = (0, 0);
        while i < axes.len() || j < outs.len() {
            let (ni, nj) = next_run(&axes[i..], &outs[j..], shape)?;
            for w in axes[i..i + ni].windows(2) {
                if w[0].1 != w[1].1.mul(&w[1].0) {
                    return None;
                }
            }
            let mut run = axes[i + ni - 1].1.clone();
            for &o in outs[j..j + nj].iter().rev() {
                strides[o] = run.clone();
                run = run.mul(&shape[o]);
            }
            (i, j) = (i + ni, j + nj);
        }
        // Axes of size 1 get the stride that row-major would give them: lowerings may look at it.
        for o in (0..shape.len()).filter(|&o| shape[o].is(1)) {
            let next = strides.get(o + 1).cloned().unwrap_or_else(|| 1i64.into());
            strides[o] = if o + 1 < shape.len() { next.mul(&shape[o + 1]) } else { next };
        }
        let same_last = self.dims.last() == shape.last();
        let slack = if same_last && self.strides.last() == strides.last() { self.slack } else { 0 };
        Some(Place { dims: shape.to_vec(), strides, slack, halo: None, ..self.clone() })
    }
}

/// Shortest runs of axes on both sides with the same product.
fn next_run(axes: &[(Dim, Dim)], outs: &[usize], shape: &[Dim]) -> Option<(usize, usize)> {
    let mut left = Dim::from(1i64);
    for ni in 1..=axes.len() {
        left = left.mul(&axes[ni - 1].0);
        let mut right = Dim::from(1i64);
        for nj in 1..=outs.len() {
            right = right.mul(&shape[outs[nj - 1]]);
            if left == right {
                return Some((ni, nj));
            }
        }
    }
    None
}

/// Views of views begin where ever longer expressions say; from this many atoms on they are copied.
const MOST_ATOMS: usize = 128;

impl Placer<'_> {
    /// A movement primitive: a view, or a copy.
    pub(super) fn movement(&mut self, n: Node, index: usize) -> Result<(), PlaceError> {
        let node = &self.g.nodes[n];
        let Op::Prim(p) = &node.op else { unreachable!("only primitives come here") };
        if let Prim::Concat { axis } = p {
            return self.concat(n, *axis as usize);
        }
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let src = self.place(x)?;
        let view = match p {
            Prim::Transpose { perm } => Some(src.permute(perm)),
            Prim::Broadcast { shape } => Some(src.broadcast(shape)),
            Prim::Slice { start, len, step } => {
                let mut v = src.clone();
                for a in 0..start.len() {
                    v = v.slice(a, &start[a], &len[a], step[a]);
                }
                Some(v)
            }
            Prim::Reshape { shape } => src.reshape(shape),
            _ => return self.host(n, index, "no view or copy says it"),
        };
        match view {
            Some(v) if v.offset.weight(MOST_ATOMS) >= MOST_ATOMS => {
                let dst = self.allocate(y)?;
                self.copy(n, &v, &dst)?;
                self.places.insert(y, dst);
                Ok(())
            }
            Some(v) => {
                self.places.insert(y, v);
                Ok(())
            }
            None => self.copy_reshape(n, &src, y),
        }
    }

    /// A reshape that strides cannot say: the elements in row-major order, seen under both shapes; an
    /// axis along which they lie beside each other stays the one where they do.
    fn copy_reshape(&mut self, n: Node, src: &Place, y: Value) -> Result<(), PlaceError> {
        let wish = match src.kept_unit(self.g.dims(y)) {
            _ if !self.is_free(y) => None,
            _ if self.facts.is_image(y) => Some(Wish::Image(self.facts.halo(y).cloned())),
            axis => axis.map(Wish::Unit),
        };
        if let Some(wish) = wish {
            let dst = self.new_place(y, &wish)?;
            if let Some(as_src) = dst.reshape(&src.dims) {
                self.copy(n, src, &as_src)?;
                self.places.insert(y, dst);
                return Ok(());
            }
        }
        let dst = self.allocate(y)?;
        let dst = if dst.is_dense() { dst } else { self.new_place(y, &Wish::Dense)? };
        let as_src =
            Place { dims: src.dims.clone(), strides: dense_strides(&src.dims), ..dst.clone() };
        self.copy(n, src, &as_src)?;
        self.places.insert(y, dst);
        Ok(())
    }

    fn concat(&mut self, n: Node, axis: usize) -> Result<(), PlaceError> {
        let y = self.g.nodes[n].outputs[0];
        let whole = self.allocate(y)?;
        let mut start = Dim::from(0i64);
        for x in self.g.nodes[n].inputs.clone() {
            let len = self.g.dims(x)[axis].clone();
            if self.parts.get(&x).is_none_or(|p| p.whole != y) {
                let src = self.place(x)?;
                let mut dst = whole.slice(axis, &start, &len, 1);
                dst.slack = 0;
                self.copy(n, &src, &dst)?;
            }
            start = start.add(&len);
        }
        self.places.insert(y, whole);
        Ok(())
    }
}
