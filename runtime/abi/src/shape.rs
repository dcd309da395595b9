//! Types, what their inference collects, and the geometry of windows. The inference of each primitive
//! is in `infer`.

use crate::dim::{Dim, Sym, SymInfo};
use crate::dtype::Dtype;
use crate::prim::Geometry;
use serde::{Deserialize, Serialize};

/// Type of a tensor: element type and dimensions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type.
    pub dtype: Dtype,
    /// One a axis.
    pub dims: Vec<Dim>,
}

/// Type of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Type {
    /// A tensor (strings are tensors of dtype `Str`).
    Tensor(TensorType),
    /// A sequence; its elements have this type, but for dims, which may differ between elements.
    Seq(#[serde(deserialize_with = "crate::depth::nested")] Box<Type>),
    /// A value or nothing.
    Opt(#[serde(deserialize_with = "crate::depth::nested")] Box<Type>),
}

impl Type {
    /// A tensor type.
    pub fn tensor(dtype: Dtype, dims: Vec<Dim>) -> Type {
        Type::Tensor(TensorType { dtype, dims })
    }
    /// The tensor type where it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            _ => None,
        }
    }
}

impl TensorType {
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
    /// Number of elements.
    pub fn count(&self) -> Dim {
        Dim::product(&self.dims)
    }
    /// All dims where they are constants.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.dims.iter().map(Dim::as_const).collect()
    }
}

/// Why inputs do not fit a primitive.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct ShapeError {
    /// What does not fit.
    pub what: String,
}

/// Shorthand for a [`ShapeError`].
pub fn misfit<T>(what: impl Into<String>) -> Result<T, ShapeError> {
    Err(ShapeError { what: what.into() })
}

/// What inference collects: equalities that could not be proved and must hold when shapes are bound.
#[derive(Default, Debug, Clone)]
pub struct Constraints(pub Vec<(Dim, Dim)>);

impl Constraints {
    /// Demands `a == b`: proved, refuted, or recorded. Gives the simpler of the two.
    pub fn equal(&mut self, a: &Dim, b: &Dim) -> Result<Dim, ShapeError> {
        match a.sub(b).as_const() {
            Some(0) => Ok(a.clone()),
            Some(_) => misfit(format!("dimensions {a} and {b} differ")),
            None => {
                let pair = (a.clone(), b.clone());
                // Repeats come soon after each other; a longer search would be quadratic.
                if !self.0.iter().rev().take(64).any(|p| *p == pair) {
                    self.0.push(pair);
                }
                Ok(if b.as_const().is_some() { b.clone() } else { a.clone() })
            }
        }
    }

    /// NumPy's broadcast of two shapes. A dimension that is not provably 1 is taken not to be.
    pub fn broadcast(&mut self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, ShapeError> {
        let n = a.len().max(b.len());
        let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(n).map(|j| s[j].clone());
        (0..n)
            .map(|i| match (at(a, i), at(b, i)) {
                (Some(x), Some(y)) if x.is(1) => Ok(y),
                (Some(x), Some(y)) if y.is(1) => Ok(x),
                (Some(x), Some(y)) => self.equal(&x, &y),
                (Some(x), None) | (None, Some(x)) => Ok(x),
                (None, None) => unreachable!("n is the longer of the two ranks"),
            })
            .collect()
    }
}

/// Bounds of a dimension under a symbol table; a free function for readability.
pub fn bounds(d: &Dim, syms: &[SymInfo]) -> (i64, i64) {
    d.bounds(syms)
}

impl Geometry {
    /// Strides and dilations 1, no pads, `n` spatial axes.
    pub fn unit(n: usize) -> Geometry {
        Geometry {
            stride: vec![1; n],
            dilation: vec![1; n],
            before: vec![Dim::from(0i64); n],
            after: vec![Dim::from(0i64); n],
        }
    }

    /// Output size of axis `i` for input size `x` and kernel size `k`:
    /// `(x + before + after - ((k-1)*dilation + 1)) / stride + 1`.
    pub fn out(&self, i: usize, x: &Dim, k: &Dim) -> Dim {
        let span = k.plus(-1).times(self.dilation[i]).plus(1);
        let room = x.add(&self.before[i]).add(&self.after[i]).sub(&span);
        room.div(&Dim::from(self.stride[i])).plus(1)
    }

    /// Output size of a transposed convolution.
    pub fn out_transposed(&self, i: usize, x: &Dim, k: &Dim) -> Dim {
        let span = k.plus(-1).times(self.dilation[i]).plus(1);
        x.plus(-1).times(self.stride[i]).add(&span).sub(&self.before[i]).sub(&self.after[i])
    }

    pub(crate) fn check(&self, n: usize) -> Result<(), ShapeError> {
        let lens = [self.stride.len(), self.dilation.len(), self.before.len(), self.after.len()];
        if lens != [n; 4] {
            return misfit(format!("geometry of {lens:?} axes for {n} spatial axes"));
        }
        if self.stride.iter().chain(&self.dilation).any(|&s| s < 1) {
            return misfit("strides and dilations must be at least 1");
        }
        Ok(())
    }
}

/// Symbols used by a type.
pub fn syms_of(t: &Type, f: &mut dyn FnMut(Sym)) {
    match t {
        Type::Tensor(t) => t.dims.iter().for_each(|d| d.each_sym(f)),
        Type::Seq(t) | Type::Opt(t) => syms_of(t, f),
    }
}
