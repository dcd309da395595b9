//! Sizes in binary form. A plan says the same few expressions again and again: within one section
//! each is written once and named by number afterwards, and what is read shares memory.
//!
//! A size is a number `t`: 0, a constant follows; 1, terms and a constant follow; otherwise it is
//! the `t - 2`nd of the expressions so far, counted in the order in which they end. Outside of
//! [`writing`] and [`reading`] nothing is named by number.
//!
//! Invariants: what is read is bounded as a tree, shared or not, in height ([`MAX_DEPTH`]), in atoms
//! of one expression, and in atoms of all.

use crate::depth::MAX_DEPTH;
use crate::dim::{Dim, Term};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple, Serializer};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

/// Atoms of one expression.
const MOST_ATOMS: usize = 1 << 16;
/// Atoms of all expressions of a section, each counted where it is used.
const MOST_IN_ALL: usize = 1 << 26;

thread_local! {
    static WRITTEN: RefCell<Option<HashMap<Dim, u32>>> = const { RefCell::new(None) };
    static READ: RefCell<Option<Table>> = const { RefCell::new(None) };
}

/// Expressions read so far, with their atoms.
struct Table {
    known: Vec<(Dim, usize)>,
    left: usize,
}

impl Table {
    fn take(&mut self, atoms: usize) -> Option<()> {
        self.left = self.left.checked_sub(atoms)?;
        Some(())
    }
}

/// Ends a section also where `f` does not return.
struct Open(fn());

impl Drop for Open {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Writes a section: `f` serialises it.
pub fn writing<T>(f: impl FnOnce() -> T) -> T {
    WRITTEN.set(Some(HashMap::new()));
    let _open = Open(|| WRITTEN.set(None));
    f()
}

/// Reads a section: `f` deserialises it.
pub fn reading<T>(f: impl FnOnce() -> T) -> T {
    READ.set(Some(Table { known: vec![], left: MOST_IN_ALL }));
    let _open = Open(|| READ.set(None));
    f()
}

/// As [`Serialize::serialize`], for forms that people do not read.
pub(crate) fn serialize<S: Serializer>(d: &Dim, s: S) -> Result<S::Ok, S::Error> {
    if let Some(k) = d.as_const() {
        return (0u32, k).serialize(s);
    }
    if let Some(at) = WRITTEN.with_borrow(|w| w.as_ref().and_then(|w| w.get(d).copied())) {
        return (at + 2).serialize(s);
    }
    let mut out = s.serialize_tuple(3)?;
    out.serialize_element(&1u32)?;
    out.serialize_element(d.terms())?;
    out.serialize_element(&d.konst())?;
    WRITTEN.with_borrow_mut(|w| {
        if let Some(w) = w {
            let next = w.len() as u32;
            w.insert(d.clone(), next);
        }
    });
    out.end()
}

/// As [`Deserialize::deserialize`], for forms that people do not read.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Dim, D::Error> {
    d.deserialize_tuple(3, Parts)
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Dim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Dim, A::Error> {
        match next::<u32, A>(&mut parts)? {
            0 => Ok(Dim::from(next::<i64, A>(&mut parts)?)),
            1 => {
                let terms: Vec<Term> = next(&mut parts)?;
                let d = Dim::from_parts(terms, next(&mut parts)?);
                admit(&d).map_err(A::Error::custom)?;
                Ok(d)
            }
            t => named(t as usize - 2).ok_or_else(|| A::Error::custom("no such size before")),
        }
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(parts: &mut A) -> Result<T, A::Error> {
    parts.next_element()?.ok_or_else(|| A::Error::custom("a size ends early"))
}

/// Takes an expression in, if it is within bounds.
fn admit(d: &Dim) -> Result<(), &'static str> {
    let atoms = d.weight(MOST_ATOMS);
    if atoms >= MOST_ATOMS || d.height() > MAX_DEPTH {
        return Err("a size's expression is too long");
    }
    READ.with_borrow_mut(|r| {
        let Some(table) = r else { return Ok(()) };
        table.take(atoms).ok_or("expressions of sizes are too long together")?;
        table.known.push((d.clone(), atoms));
        Ok(())
    })
}

fn named(at: usize) -> Option<Dim> {
    READ.with_borrow_mut(|r| {
        let table = r.as_mut()?;
        let (d, atoms) = table.known.get(at)?.clone();
        table.take(atoms)?;
        Some(d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::{Atom, Sym};

    fn sizes() -> Vec<Dim> {
        let (s, two) = (Dim::from(Sym(0)), Dim::from(2i64));
        let half = s.plus(1).div(&two);
        vec![s.clone(), 3i64.into(), half.clone(), half.max_of(&s), half.clone(), half, s]
    }

    #[test]
    fn what_repeats_is_written_once_and_read_shared() {
        let plain = postcard::to_stdvec(&sizes()).unwrap();
        assert_eq!(postcard::from_bytes::<Vec<Dim>>(&plain).unwrap(), sizes());
        let short = writing(|| postcard::to_stdvec(&sizes()).unwrap());
        assert!(short.len() < plain.len(), "{} {}", short.len(), plain.len());
        assert_eq!(reading(|| postcard::from_bytes::<Vec<Dim>>(&short)).unwrap(), sizes());
        assert!(postcard::from_bytes::<Vec<Dim>>(&short).is_err(), "numbers without a section");
        assert_eq!(writing(|| postcard::to_stdvec(&sizes()).unwrap()), short);
    }

    /// `n` sizes as a forged section says them: each is the greater of the one before and itself.
    fn doubling(n: u8) -> Vec<u8> {
        let mut bytes = vec![n];
        // One term of one atom (symbol 0), times 1, plus 0.
        bytes.extend([1, 1, 1, 0, 0, 2, 0]);
        for i in 1..n {
            bytes.extend([1, 1, 1, 3, i + 1, i + 1, 2, 0]);
        }
        bytes
    }

    #[test]
    fn shared_expressions_are_bounded_as_trees() {
        let read = |bytes: &[u8]| reading(|| postcard::from_bytes::<Vec<Dim>>(bytes));
        let s = Dim::from(Sym(0));
        let twice = Dim::atom(Atom::Max(s.clone(), s.clone()));
        assert_eq!(read(&doubling(2)).unwrap(), [s, twice]);
        for n in [12, 20, 40, 100] {
            assert_eq!(read(&doubling(n)).is_ok(), n < 15, "{n}");
        }
        // 2^13 atoms, named 2^14 times.
        let mut many = doubling(14);
        many[0] = 0xFF;
        many.insert(1, 0x7F);
        many.resize(many.len() + (1 << 14) - 15, 15);
        assert!(read(&many).is_err());
        many.truncate(1000);
        assert!(read(&many).is_err(), "it ends early");
    }
}
