//! Values of dimensions: under an environment of symbols, with symbols replaced, and within bounds.
//!
//! Evaluation is checked: overflow and division by zero are errors, never panics or wraps.

use crate::dim::{Atom, Dim, Sym, SymInfo, UNBOUNDED};

/// Values of symbols while a graph runs, indexed by [`Sym`]; `None` is not bound yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymEnv(pub Vec<Option<i64>>);

impl SymEnv {
    /// An environment of `n` unbound symbols.
    pub fn new(n: usize) -> Self {
        SymEnv(vec![None; n])
    }
    /// The value bound to `s`.
    pub fn get(&self, s: Sym) -> Option<i64> {
        self.0.get(s.0 as usize).copied().flatten()
    }
    /// Binds `s`, growing the table where needed.
    pub fn set(&mut self, s: Sym, v: i64) {
        let i = s.0 as usize;
        if self.0.len() <= i {
            self.0.resize(i + 1, None);
        }
        self.0[i] = Some(v);
    }
}

/// Why a dimension could not be evaluated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DimError {
    /// A symbol has no value yet.
    #[error("symbol {0:?} is not bound")]
    Unbound(Sym),
    /// The value does not fit 64 bits.
    #[error("dimension expression {0} overflows")]
    Overflow(String),
    /// Division or remainder by zero.
    #[error("dimension expression {0} divides by zero")]
    DivZero(String),
}

impl Dim {
    /// The value under `env`.
    #[inline]
    pub fn eval(&self, env: &SymEnv) -> Result<i64, DimError> {
        match self.as_const() {
            Some(k) => Ok(k),
            None => self.eval_terms(env),
        }
    }

    fn eval_terms(&self, env: &SymEnv) -> Result<i64, DimError> {
        let over = || DimError::Overflow(self.to_string());
        let mut sum = self.konst();
        for t in self.terms() {
            let mut p = t.coef;
            for a in &t.atoms {
                p = p.checked_mul(a.eval(env)?).ok_or_else(over)?;
            }
            sum = sum.checked_add(p).ok_or_else(over)?;
        }
        Ok(sum)
    }

    /// Replaces symbols by dimensions.
    pub fn subst(&self, f: &dyn Fn(Sym) -> Option<Dim>) -> Dim {
        let mut out = Dim::from(self.konst());
        for t in self.terms() {
            let p = t.atoms.iter().fold(Dim::from(t.coef), |p, a| p.mul(&a.subst(f)));
            out = out.add(&p);
        }
        out
    }

    /// Inclusive bounds of the value, given the symbols' bounds (saturating, conservative).
    pub fn bounds(&self, syms: &[SymInfo]) -> (i64, i64) {
        let (mut lo, mut hi) = (self.konst(), self.konst());
        for t in self.terms() {
            let (mut a, mut b) = (t.coef, t.coef);
            for x in &t.atoms {
                let (c, d) = x.bounds(syms);
                let p = [
                    a.saturating_mul(c),
                    a.saturating_mul(d),
                    b.saturating_mul(c),
                    b.saturating_mul(d),
                ];
                a = p.into_iter().fold(i64::MAX, i64::min);
                b = p.into_iter().fold(i64::MIN, i64::max);
            }
            lo = lo.saturating_add(a);
            hi = hi.saturating_add(b);
        }
        (lo, hi)
    }
}

impl Atom {
    fn eval(&self, env: &SymEnv) -> Result<i64, DimError> {
        let two = |a: &Dim, b: &Dim| Ok((a.eval(env)?, b.eval(env)?));
        let shown = || Dim::atom(self.clone()).to_string();
        match self {
            Atom::Sym(s) => env.get(*s).ok_or(DimError::Unbound(*s)),
            Atom::Max(a, b) => two(a, b).map(|(a, b)| a.max(b)),
            Atom::Min(a, b) => two(a, b).map(|(a, b)| a.min(b)),
            Atom::Div(a, b) | Atom::Mod(a, b) => {
                let (x, y) = two(a, b)?;
                if y == 0 {
                    return Err(DimError::DivZero(shown()));
                }
                let r = x.checked_rem(y).ok_or_else(|| DimError::Overflow(shown()))?;
                let adjust = i64::from(r != 0 && (r < 0) != (y < 0));
                Ok(match self {
                    Atom::Div(..) => x / y - adjust,
                    _ => r + adjust * y,
                })
            }
        }
    }

    fn subst(&self, f: &dyn Fn(Sym) -> Option<Dim>) -> Dim {
        match self {
            Atom::Sym(s) => f(*s).unwrap_or_else(|| Dim::from(*s)),
            Atom::Div(a, b) => a.subst(f).div(&b.subst(f)),
            Atom::Mod(a, b) => a.subst(f).rem(&b.subst(f)),
            Atom::Max(a, b) => a.subst(f).max_of(&b.subst(f)),
            Atom::Min(a, b) => a.subst(f).min_of(&b.subst(f)),
        }
    }

    fn bounds(&self, syms: &[SymInfo]) -> (i64, i64) {
        match self {
            Atom::Sym(s) => syms.get(s.0 as usize).map_or((0, UNBOUNDED), |i| (i.min, i.max)),
            Atom::Max(a, b) => {
                let (a, b) = (a.bounds(syms), b.bounds(syms));
                (a.0.max(b.0), a.1.max(b.1))
            }
            Atom::Min(a, b) => {
                let (a, b) = (a.bounds(syms), b.bounds(syms));
                (a.0.min(b.0), a.1.min(b.1))
            }
            Atom::Div(a, b) => {
                let ((al, ah), (bl, bh)) = (a.bounds(syms), b.bounds(syms));
                if bl <= 0 {
                    return (-UNBOUNDED, UNBOUNDED);
                }
                let lo = al.div_euclid(bl).min(al.div_euclid(bh));
                let hi = ah.div_euclid(bl).max(ah.div_euclid(bh));
                (lo, hi)
            }
            Atom::Mod(_, b) => {
                let (bl, bh) = b.bounds(syms);
                if bl <= 0 { (-UNBOUNDED, UNBOUNDED) } else { (0, bh - 1) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(i: u32) -> Dim {
        Dim::from(Sym(i))
    }

    #[test]
    fn evaluation_is_checked() {
        let env = SymEnv(vec![Some(i64::MAX), Some(0)]);
        assert!(matches!(s(0).plus(1).eval(&env), Err(DimError::Overflow(_))));
        assert!(matches!(s(0).div(&s(1)).eval(&env), Err(DimError::DivZero(_))));
        assert_eq!(s(2).eval(&env), Err(DimError::Unbound(Sym(2))));
        let env = SymEnv(vec![Some(-7), Some(2)]);
        assert_eq!(s(0).div(&s(1)).eval(&env), Ok(-4));
        assert_eq!(s(0).rem(&s(1)).eval(&env), Ok(1));
    }

    #[test]
    fn bounds_hold() {
        let info = |min, max| SymInfo { name: "w".into(), min, max };
        let d = s(0).plus(-1).div(&2i64.into()).plus(1);
        assert_eq!(d.bounds(&[info(1, 10)]), (1, 5));
        assert_eq!(d.to_string(), "div(s0 + -1, 2) + 1");
    }
}
