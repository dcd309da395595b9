//! Symbolic dimensions: integer polynomials over named symbols with inclusive bounds.
//!
//! A [`Dim`] is kept in one canonical form (a sorted sum of monomials), so that equality of
//! expressions that normalise alike is plain `==`. Its value is in [`crate::dim_value`], its text in
//! [`crate::dim_text`].

pub use crate::dim_value::{DimError, SymEnv};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A symbol: index into a graph's symbol table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sym(pub u32);

/// What is known of a symbol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SymInfo {
    /// Printed name, unique in its graph.
    pub name: String,
    /// Least value (inclusive).
    pub min: i64,
    /// Greatest value (inclusive).
    pub max: i64,
}

/// A factor that is not a sum: a symbol or an operation that does not distribute.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Atom {
    /// A symbol.
    Sym(Sym),
    /// Floor division.
    Div(
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
    ),
    /// Remainder with the divisor's sign (`a - b*floor(a/b)`).
    Mod(
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
    ),
    /// The greater of two.
    Max(
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
    ),
    /// The lesser of two.
    Min(
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
        #[serde(deserialize_with = "crate::depth::nested")] Dim,
    ),
}

/// `coef * product(atoms)`, atoms sorted, coef not zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Term {
    /// Product of these.
    pub atoms: Vec<Atom>,
    /// Times this.
    pub coef: i64,
}

/// A dimension: `konst + sum(terms)`. Copies share the terms.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    /// None of a constant.
    terms: Option<Arc<Vec<Term>>>,
    konst: i64,
}

impl From<i64> for Dim {
    fn from(konst: i64) -> Dim {
        Dim { terms: None, konst }
    }
}
impl From<usize> for Dim {
    fn from(k: usize) -> Dim {
        Dim::from(i64::try_from(k).unwrap_or(i64::MAX))
    }
}
impl From<Sym> for Dim {
    fn from(s: Sym) -> Dim {
        Dim::atom(Atom::Sym(s))
    }
}

/// Products of more atoms than this saturate.
const MOST_ATOMS: usize = 4096;

/// Saturating bound used for what is not known to be smaller.
pub const UNBOUNDED: i64 = i64::MAX >> 1;

impl Dim {
    /// One atom as a dimension.
    pub fn atom(a: Atom) -> Dim {
        Dim::from_parts(vec![Term { atoms: vec![a], coef: 1 }], 0)
    }

    /// From the fields of a binary form.
    pub(crate) fn from_parts(terms: Vec<Term>, konst: i64) -> Dim {
        Dim { terms: (!terms.is_empty()).then(|| Arc::new(terms)), konst }
    }

    /// The value where it is a constant.
    pub fn as_const(&self) -> Option<i64> {
        self.terms.is_none().then_some(self.konst)
    }

    /// The symbol where the dimension is just one.
    pub fn as_sym(&self) -> Option<Sym> {
        match (self.konst, self.terms()) {
            (0, [Term { atoms, coef: 1 }]) => match &atoms[..] {
                [Atom::Sym(s)] => Some(*s),
                _ => None,
            },
            _ => None,
        }
    }

    /// Is it this constant?
    pub fn is(&self, k: i64) -> bool {
        self.as_const() == Some(k)
    }

    /// The monomials, sorted; the constant part is [`Dim::konst`].
    pub fn terms(&self) -> &[Term] {
        self.terms.as_ref().map_or(&[], |t| t)
    }

    /// The constant part.
    pub fn konst(&self) -> i64 {
        self.konst
    }

    /// Sum. Coefficients saturate (such a dimension fails to evaluate anyway).
    pub fn add(&self, o: &Dim) -> Dim {
        let konst = self.konst.saturating_add(o.konst);
        let (Some(mine), Some(theirs)) = (&self.terms, &o.terms) else {
            let terms = self.terms.clone().or_else(|| o.terms.clone());
            return Dim { terms, konst };
        };
        let mut terms = mine.to_vec();
        for t in theirs.iter() {
            push_term(&mut terms, t.clone());
        }
        Dim::from_parts(terms, konst)
    }

    /// `self + k`.
    pub fn plus(&self, k: i64) -> Dim {
        Dim { terms: self.terms.clone(), konst: self.konst.saturating_add(k) }
    }

    /// `self * k`.
    pub fn times(&self, k: i64) -> Dim {
        if k == 0 {
            return Dim::from(0i64);
        }
        let terms = self
            .terms()
            .iter()
            .map(|t| Term { atoms: t.atoms.clone(), coef: t.coef.saturating_mul(k) })
            .collect();
        Dim::from_parts(terms, self.konst.saturating_mul(k))
    }

    /// Difference.
    pub fn sub(&self, o: &Dim) -> Dim {
        self.add(&o.times(-1))
    }

    /// Product, distributed over sums. What would grow long is kept as a product of two opaque
    /// factors, and what is past [`MOST_ATOMS`] even so saturates (no tensor is that large), so that
    /// hostile shapes cannot make expressions grow without bound.
    pub fn mul(&self, o: &Dim) -> Dim {
        if self.terms.is_some() && o.terms.is_some() {
            let (a, b) = (self.weight(MOST_ATOMS), o.weight(MOST_ATOMS));
            if a + b >= MOST_ATOMS {
                return Dim::from(i64::MAX);
            }
            let most = |d: &Dim| d.terms().iter().map(|t| t.atoms.len()).max().unwrap_or(0);
            let grown = self.terms().len() * b + o.terms().len() * a;
            if grown > MOST_ATOMS / 2 || most(self) + most(o) > 64 {
                return self.opaque_product(o);
            }
        }
        self.distribute(o)
    }

    /// The product as one term of two factors that nothing distributes over: `max(d, MIN)` is d.
    fn opaque_product(&self, o: &Dim) -> Dim {
        let opaque = |d: &Dim| Atom::Max(d.clone(), i64::MIN.into());
        let mut atoms = vec![opaque(self), opaque(o)];
        atoms.sort();
        Dim::from_parts(vec![Term { atoms, coef: 1 }], 0)
    }

    fn distribute(&self, o: &Dim) -> Dim {
        let mut out = self.times(o.konst);
        for t in o.terms() {
            let mut part = vec![];
            push_term(
                &mut part,
                Term { atoms: t.atoms.clone(), coef: t.coef.saturating_mul(self.konst) },
            );
            for u in self.terms() {
                let mut atoms = [&t.atoms[..], &u.atoms[..]].concat();
                atoms.sort();
                push_term(&mut part, Term { atoms, coef: t.coef.saturating_mul(u.coef) });
            }
            out = out.add(&Dim::from_parts(part, 0));
        }
        out
    }

    /// Floor division. Exact multiples divide out: `(4*s + 2) / 2 = 2*s + 1`, `(a*b) / a = b`
    /// where the divisor is one positive monomial.
    pub fn div(&self, o: &Dim) -> Dim {
        if o.is(1) {
            return self.clone();
        }
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const())
            && b != 0
            && (a, b) != (i64::MIN, -1)
        {
            return Dim::from(a.div_euclid(b) - i64::from(b < 0 && a.rem_euclid(b) != 0));
        }
        let nested = || o.as_const().and_then(|d| self.div_of_div(d));
        self.div_exact(o)
            .or_else(nested)
            .unwrap_or_else(|| Dim::atom(Atom::Div(self.clone(), o.clone())))
    }

    /// `self / o` where every term is provably a multiple of `o` (a constant or one monomial).
    pub fn div_exact(&self, o: &Dim) -> Option<Dim> {
        if let Some(k) = o.as_const() {
            let all = self.terms().iter().map(|t| t.coef).chain([self.konst]);
            if k == 0
                || (k == -1 && all.clone().any(|c| c == i64::MIN))
                || all.clone().any(|c| c % k != 0)
            {
                return None;
            }
            let terms = self
                .terms()
                .iter()
                .map(|t| Term { atoms: t.atoms.clone(), coef: t.coef / k })
                .collect();
            return Some(Dim::from_parts(terms, self.konst / k));
        }
        let [d] = o.terms() else { return None };
        if o.konst != 0 || self.konst != 0 {
            return None;
        }
        let (mut terms, mut konst) = (vec![], 0i64);
        for t in self.terms() {
            let mut atoms = t.atoms.clone();
            for a in &d.atoms {
                let at = atoms.iter().position(|x| x == a)?;
                atoms.remove(at);
            }
            if t.coef.checked_rem(d.coef) != Some(0) {
                return None;
            }
            let coef = t.coef / d.coef;
            if atoms.is_empty() {
                konst += coef;
            } else {
                push_term(&mut terms, Term { atoms, coef });
            }
        }
        Some(Dim::from_parts(terms, konst))
    }

    /// Division that rounds up, for a positive divisor.
    pub fn div_ceil(&self, o: &Dim) -> Dim {
        self.add(&o.plus(-1)).div(o)
    }

    /// Floor remainder.
    pub fn rem(&self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const())
            && b > 0
        {
            return Dim::from(a.rem_euclid(b));
        }
        if self.div_exact(o).is_some() {
            return Dim::from(0i64);
        }
        Dim::atom(Atom::Mod(self.clone(), o.clone()))
    }

    /// The greater of two.
    pub fn max_of(&self, o: &Dim) -> Dim {
        match self.sub(o).as_const() {
            Some(d) if d >= 0 => self.clone(),
            Some(_) => o.clone(),
            None => {
                let flat = self.extreme_of_extreme(o, true);
                if let Some(flat) = flat.or_else(|| o.extreme_of_extreme(self, true)) {
                    return flat;
                }
                let (a, b) = if self <= o { (self, o) } else { (o, self) };
                Dim::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// The lesser of two.
    pub fn min_of(&self, o: &Dim) -> Dim {
        match self.sub(o).as_const() {
            Some(d) if d <= 0 => self.clone(),
            Some(_) => o.clone(),
            None => {
                let flat = self.extreme_of_extreme(o, false);
                if let Some(flat) = flat.or_else(|| o.extreme_of_extreme(self, false)) {
                    return flat;
                }
                let (a, b) = if self <= o { (self, o) } else { (o, self) };
                Dim::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// Product of dimensions.
    pub fn product<'a>(it: impl IntoIterator<Item = &'a Dim>) -> Dim {
        it.into_iter().fold(Dim::from(1i64), |a, d| a.mul(d))
    }

    /// Number of atoms, nested ones included; counting stops once it is `limit`.
    pub fn weight(&self, limit: usize) -> usize {
        let mut n = 0;
        for a in self.terms().iter().flat_map(|t| &t.atoms) {
            n += 1;
            if let Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Max(a, b) | Atom::Min(a, b) = a {
                n += a.weight(limit.saturating_sub(n));
                n += b.weight(limit.saturating_sub(n));
            }
            if n >= limit {
                return limit;
            }
        }
        n
    }

    /// How deep operations nest; a sum of symbols is 0.
    pub fn height(&self) -> u32 {
        let nested = |a: &Atom| match a {
            Atom::Sym(_) => 0,
            Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                1 + a.height().max(b.height())
            }
        };
        self.terms().iter().flat_map(|t| &t.atoms).map(nested).max().unwrap_or(0)
    }

    /// Calls `f` on every symbol.
    pub fn each_sym(&self, f: &mut dyn FnMut(Sym)) {
        for a in self.terms().iter().flat_map(|t| &t.atoms) {
            match a {
                Atom::Sym(s) => f(*s),
                Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                    a.each_sym(f);
                    b.each_sym(f);
                }
            }
        }
    }
}

fn push_term(terms: &mut Vec<Term>, t: Term) {
    if t.coef == 0 {
        return;
    }
    match terms.binary_search_by(|u| u.atoms.cmp(&t.atoms)) {
        Ok(i) => {
            terms[i].coef = terms[i].coef.saturating_add(t.coef);
            if terms[i].coef == 0 {
                terms.remove(i);
            }
        }
        Err(i) => terms.insert(i, t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(i: u32) -> Dim {
        Dim::from(Sym(i))
    }

    #[test]
    fn normal_forms_meet() {
        let a = s(0).plus(1).mul(&s(1).plus(2));
        let b = s(0).mul(&s(1)).add(&s(0).times(2)).add(&s(1)).plus(2);
        assert_eq!(a, b);
        assert_eq!(s(0).times(4).plus(2).div(&2i64.into()), s(0).times(2).plus(1));
        assert_eq!(s(0).mul(&s(1)).times(6).div(&s(1).times(3)), s(0).times(2));
        assert_eq!(s(0).sub(&s(0)), Dim::from(0i64));
        assert_eq!(s(0).plus(3).max_of(&s(0)), s(0).plus(3));
    }

    #[test]
    fn products_stay_bounded_and_exact() {
        let many = (0..40).fold(Dim::from(1i64), |d, i| d.mul(&s(i).plus(1)));
        assert!(many.weight(100_000) < 100_000);
        let env = SymEnv(vec![Some(1); 40]);
        assert_eq!(many.eval(&env), Ok(1 << 40));
        let bomb = (0..60).fold(s(0), |d, _| d.mul(&d));
        assert_eq!(bomb.as_const(), Some(i64::MAX));
        let square = (0..7).fold(s(0), |d, _| d.mul(&d));
        assert!(square.weight(1000) < 1000);
        assert_eq!(square.eval(&SymEnv(vec![Some(1)])), Ok(1));
    }
}
