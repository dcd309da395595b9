//! Identities that keep sizes short where operators follow one another: windows that halve an image
//! again and again, slices of slices.
//!
//! Invariants: a rule holds for all integers, and gives nothing where its own arithmetic would
//! overflow. What a rule makes is never longer than what it was made of, and none applies to it
//! again, so that a printed size reads back as itself.

use crate::dim::{Atom, Dim, Term};

/// The greater or the lesser of two sizes, plus a constant.
struct Extreme<'d> {
    greater: bool,
    arms: [&'d Dim; 2],
    plus: i64,
}

impl Dim {
    /// The size as one atom plus a constant.
    fn single(&self) -> Option<(&Atom, i64)> {
        match self.terms() {
            [Term { atoms, coef: 1 }] if atoms.len() == 1 => Some((&atoms[0], self.konst())),
            _ => None,
        }
    }

    fn extreme(&self) -> Option<Extreme<'_>> {
        let (atom, plus) = self.single()?;
        let (greater, arms) = match atom {
            Atom::Max(a, b) => (true, [a, b]),
            Atom::Min(a, b) => (false, [a, b]),
            _ => return None,
        };
        // An arm at the end of the integers marks a product that is not to be taken apart.
        let usual = |d: &Dim| d.as_const().is_none_or(|k| k.unsigned_abs() < 1 << 62);
        (arms.into_iter().all(usual) && plus.unsigned_abs() < 1 << 62).then_some(Extreme {
            greater,
            arms,
            plus,
        })
    }

    /// `floor((floor(a / b) + k) / d) = floor((a + k * b) / (b * d))` for `b, d > 0`.
    pub(crate) fn div_of_div(&self, d: i64) -> Option<Dim> {
        let (Atom::Div(a, b), k) = self.single()? else { return None };
        let b = b.as_const().filter(|&b| b > 0 && d > 0)?;
        let (shift, by) = (k.checked_mul(b)?, b.checked_mul(d)?);
        a.konst().checked_add(shift)?;
        Some(Dim::atom(Atom::Div(a.plus(shift), by.into())))
    }

    /// `max(max(a, j) + k, c) = max(a + k, max(j + k, c))`, and the same of the least.
    pub(crate) fn extreme_of_extreme(&self, c: &Dim, greater: bool) -> Option<Dim> {
        let inner = self.extreme().filter(|e| e.greater == greater)?;
        let c = c.as_const()?;
        let (j, a) = match inner.arms.map(Dim::as_const) {
            [Some(j), None] => (j, inner.arms[1]),
            [None, Some(j)] => (j, inner.arms[0]),
            _ => return None,
        };
        let (j, a) = (j + inner.plus, a.plus(inner.plus));
        Some(if greater { a.max_of(&j.max(c).into()) } else { a.min_of(&j.min(c).into()) })
    }

    /// Difference, short where one side is the other's, or a constant's, extreme:
    /// `n - min(n, k) = max(0, n - k)`.
    pub fn distance_from(&self, start: &Dim) -> Dim {
        let taken = |at: Extreme<'_>, sides: [Dim; 2]| {
            let short = sides.iter().any(|d| d.as_const().is_some());
            short.then(|| match at.greater {
                true => sides[0].max_of(&sides[1]),
                false => sides[0].min_of(&sides[1]),
            })
        };
        let from = start.extreme().filter(|_| self.as_const().is_none()).and_then(|at| {
            let sides = at.arms.map(|a| self.sub(a).plus(-at.plus));
            taken(Extreme { greater: !at.greater, ..at }, sides)
        });
        let to = || {
            let at = self.extreme().filter(|_| start.as_const().is_none())?;
            let sides = at.arms.map(|a| a.sub(start).plus(at.plus));
            taken(at, sides)
        };
        from.or_else(to).unwrap_or_else(|| self.sub(start))
    }
}

#[cfg(test)]
mod tests {
    use crate::dim::{Dim, Sym, SymEnv};
    use proptest::prelude::*;

    fn n() -> Dim {
        Dim::from(Sym(0))
    }

    #[test]
    fn chains_stay_short() {
        let two: Dim = 2i64.into();
        let halved = (0..40).fold(n(), |d, _| d.plus(1).div(&two));
        assert!(halved.weight(100) <= 2, "{halved:?}");
        let one: Dim = 1i64.into();
        let zero: Dim = 0i64.into();
        let sliced = (0..40).fold(n(), |d, _| d.distance_from(&one.min_of(&d)).max_of(&zero));
        assert_eq!(sliced, n().plus(-40).max_of(&zero));
        let tail = n().distance_from(&n().plus(-3).max_of(&zero));
        assert_eq!(tail, n().min_of(&3i64.into()));
    }

    /// A step in building a size, and what it does to a number.
    fn step() -> impl Strategy<Value = (u8, i64)> {
        (0u8..8, -9i64..10)
    }

    fn apply(d: &Dim, (op, k): (u8, i64)) -> Dim {
        let other = if k % 2 == 0 { Dim::from(k) } else { Dim::from(Sym(1)).plus(k) };
        match op {
            0 => d.plus(k),
            1 => d.add(&other),
            2 => d.div(&(k.abs() + 1).into()),
            3 => d.max_of(&other),
            4 => d.min_of(&other),
            5 => d.distance_from(&d.min_of(&other)),
            6 => d.max_of(&other).distance_from(d),
            _ => d.distance_from(&d.max_of(&other).plus(k)),
        }
    }

    fn meant(x: i64, m: i64, (op, k): (u8, i64)) -> i64 {
        let other = if k % 2 == 0 { k } else { m + k };
        match op {
            0 => x + k,
            1 => x + other,
            2 => x.div_euclid(k.abs() + 1),
            3 => x.max(other),
            4 => x.min(other),
            5 => x - x.min(other),
            6 => x.max(other) - x,
            _ => x - (x.max(other) + k),
        }
    }

    proptest! {
        #[test]
        fn sizes_mean_what_they_were_made_of(
            steps in proptest::collection::vec(step(), 0..7), a in -50i64..50, b in -50i64..50,
        ) {
            let size = steps.iter().fold(n(), |d, s| apply(&d, *s));
            let number = steps.iter().fold(a, |x, s| meant(x, b, *s));
            prop_assert_eq!(size.eval(&SymEnv(vec![Some(a), Some(b)])), Ok(number));
            let shown = size.to_string();
            prop_assert_eq!(Dim::parse(&shown, &crate::dim_text::numbered), Ok(size), "{}", shown);
        }
    }
}
