//! Coordinates: affine combinations of loop indices ("atoms") with dimensions as coefficients.
//!
//! A lowering makes an [`Atom`] for every loop index that it introduces and asks the generator for
//! values at coordinates made of atoms. Products of dimensions stay symbolic until an address is
//! made, so strides may be any expression.

use crate::kir::{Reg, Var};
use hub_abi::Dim;

/// A loop index: index into the context's table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Atom(pub u32);

/// What an atom is: `konst + Σ var × dim`, plus `step × lane`, plus `lane[lane]`.
#[derive(Clone, PartialEq, Debug)]
pub struct AtomData {
    /// Part that is the same in every lane.
    pub at: Vec<(Var, Dim)>,
    /// Constant part.
    pub konst: Dim,
    /// Increase from lane to lane.
    pub step: i64,
    /// Integer register of per-lane indices.
    pub lane: Option<Reg>,
    /// Active lanes hold values in `0..extent`.
    pub extent: Dim,
}

impl AtomData {
    /// `var`, the same in every lane, below `extent`.
    pub fn var(var: impl Into<Var>, extent: Dim) -> AtomData {
        let at = vec![(var.into(), Dim::from(1i64))];
        AtomData { at, konst: 0i64.into(), step: 0, lane: None, extent }
    }

    /// A constant, below `extent`.
    pub fn konst(k: impl Into<Dim>, extent: Dim) -> AtomData {
        AtomData { at: vec![], konst: k.into(), step: 0, lane: None, extent }
    }

    /// Adds `var × dim`.
    pub fn plus(mut self, var: impl Into<Var>, dim: impl Into<Dim>) -> AtomData {
        self.at.push((var.into(), dim.into()));
        self
    }

    /// Adds a constant.
    pub fn offset(mut self, k: impl Into<Dim>) -> AtomData {
        self.konst = self.konst.add(&k.into());
        self
    }

    /// Runs along the lanes: one more in each.
    pub fn along_lanes(mut self) -> AtomData {
        self.step = 1;
        self
    }

    /// The same in every lane?
    pub fn is_uniform(&self) -> bool {
        self.step == 0 && self.lane.is_none()
    }
}

/// `konst + Σ atom × dim`: the index along one axis of a value, or a byte offset.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Coord {
    /// Sorted by atom, coefficients not zero.
    pub terms: Vec<(Atom, Dim)>,
    /// Constant part.
    pub konst: Dim,
}

impl From<Atom> for Coord {
    fn from(a: Atom) -> Coord {
        Coord { terms: vec![(a, 1i64.into())], konst: 0i64.into() }
    }
}

impl From<Dim> for Coord {
    fn from(konst: Dim) -> Coord {
        Coord { terms: vec![], konst }
    }
}

impl From<i64> for Coord {
    fn from(k: i64) -> Coord {
        Coord::from(Dim::from(k))
    }
}

impl Coord {
    /// The first index.
    pub fn zero() -> Coord {
        Coord::from(0i64)
    }

    /// Is it the constant 0?
    pub fn is_zero(&self) -> bool {
        self.terms.is_empty() && self.konst.is(0)
    }

    /// Sum.
    pub fn add(&self, o: &Coord) -> Coord {
        let mut out = self.clone();
        out.konst = out.konst.add(&o.konst);
        for (a, d) in &o.terms {
            match out.terms.binary_search_by_key(a, |t| t.0) {
                Ok(i) => {
                    out.terms[i].1 = out.terms[i].1.add(d);
                    if out.terms[i].1.is(0) {
                        out.terms.remove(i);
                    }
                }
                Err(i) => out.terms.insert(i, (*a, d.clone())),
            }
        }
        out
    }

    /// Plus a constant.
    pub fn plus(&self, k: &Dim) -> Coord {
        Coord { terms: self.terms.clone(), konst: self.konst.add(k) }
    }

    /// Times a dimension.
    pub fn times(&self, k: &Dim) -> Coord {
        if k.is(0) {
            return Coord::zero();
        }
        let terms = self.terms.iter().map(|(a, d)| (*a, d.mul(k))).collect();
        Coord { terms, konst: self.konst.mul(k) }
    }

    /// Coefficient of an atom.
    pub fn coef(&self, a: Atom) -> Dim {
        match self.terms.binary_search_by_key(&a, |t| t.0) {
            Ok(i) => self.terms[i].1.clone(),
            Err(_) => 0i64.into(),
        }
    }
}
