//! Bounded nesting for what is read from files: serde recurses on nested values, and a crafted file
//! could otherwise nest them until the stack ends.
//!
//! Fields that lead back to their own type name a function of this module in `deserialize_with`.

use serde::de::{Deserialize, Deserializer, Error};
use std::cell::Cell;

/// Greatest nesting of dimension expressions, types and plan steps in a file.
pub const MAX_DEPTH: u32 = 64;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        DEPTH.with(|d| d.set(d.get() - 1));
    }
}

/// Reads a value one level deeper; an error past [`MAX_DEPTH`].
pub fn nested<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<T, D::Error> {
    let depth = DEPTH.with(|d| {
        d.set(d.get() + 1);
        d.get()
    });
    let _guard = Guard;
    if depth > MAX_DEPTH {
        return Err(D::Error::custom("nested too deep"));
    }
    T::deserialize(de)
}

#[cfg(test)]
mod tests {
    use crate::dim::{Atom, Dim, Sym};

    #[test]
    fn deep_expressions_are_refused_and_shallow_ones_read() {
        let nest = |n: usize| {
            (0..n).fold(Dim::from(Sym(0)), |d, _| Dim::atom(Atom::Div(d, Dim::from(2i64))))
        };
        let read = |d: &Dim| postcard::from_bytes::<Dim>(&postcard::to_stdvec(d).unwrap());
        assert_eq!(read(&nest(60)).unwrap(), nest(60));
        assert!(read(&nest(70)).is_err());
        assert!(read(&nest(3000)).is_err());
        assert!(read(&nest(60)).is_ok(), "the counter returns to zero after an error");
    }
}
