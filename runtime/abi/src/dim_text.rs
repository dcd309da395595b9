//! Dimensions as text: [`Dim::display`], the parser of what it prints, and serde forms.
//!
//! In human-readable formats a constant dimension is an integer and any other is the string `=expr`
//! over `s0`, `s1`, …; a symbol is `=s0`. In binary formats both are their fields.

use crate::depth::MAX_DEPTH;
use crate::dim::{Atom, Dim, Sym, SymInfo};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

impl Dim {
    /// Prints with symbol names.
    pub fn display<'a>(&'a self, syms: &'a [SymInfo]) -> impl fmt::Display + 'a {
        Shown { dim: self, syms }
    }
}

struct Shown<'a> {
    dim: &'a Dim,
    syms: &'a [SymInfo],
}

impl Shown<'_> {
    fn atom(&self, f: &mut fmt::Formatter<'_>, a: &Atom) -> fmt::Result {
        let sub = |d| Shown { dim: d, syms: self.syms };
        match a {
            Atom::Sym(s) => match self.syms.get(s.0 as usize) {
                Some(i) => f.write_str(&quoted_name(&i.name)),
                None => write!(f, "s{}", s.0),
            },
            Atom::Div(a, b) => write!(f, "div({}, {})", sub(a), sub(b)),
            Atom::Mod(a, b) => write!(f, "mod({}, {})", sub(a), sub(b)),
            Atom::Max(a, b) => write!(f, "max({}, {})", sub(a), sub(b)),
            Atom::Min(a, b) => write!(f, "min({}, {})", sub(a), sub(b)),
        }
    }
}

impl fmt::Display for Shown<'_> {
    /// Grammar: `term (+ term)*`, a term being factors joined by `*`, e.g. `2*W + div(H, 2) + -1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for t in self.dim.terms() {
            if !first {
                f.write_str(" + ")?;
            }
            first = false;
            if t.coef != 1 {
                write!(f, "{}*", t.coef)?;
            }
            for (i, a) in t.atoms.iter().enumerate() {
                if i > 0 {
                    f.write_str("*")?;
                }
                self.atom(f, a)?;
            }
        }
        match (first, self.dim.konst()) {
            (true, k) => write!(f, "{k}"),
            (false, 0) => Ok(()),
            (false, k) => write!(f, " + {k}"),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown { dim: self, syms: &[] }.fmt(f)
    }
}
impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a dimension.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct DimParseError {
    /// Byte offset in the text.
    pub at: usize,
    /// What was expected.
    pub what: String,
}

/// Finds a symbol by its name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Sym>;

/// Words that a symbol's name may not be without quotes.
const WORDS: [&str; 8] = ["div", "mod", "max", "min", "true", "false", "null", "inf"];

/// Is this a name that needs no quotes in an expression: letters, digits, `_` and `.`, starting
/// with a letter or `_`, and no reserved word?
pub fn is_plain_name(s: &str) -> bool {
    let mut chars = s.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !WORDS.contains(&s)
}

/// A symbol's name as an expression shows it: plain, or between backticks (which it must not hold).
pub fn quoted_name(s: &str) -> String {
    if is_plain_name(s) { s.to_string() } else { format!("`{}`", s.replace(['`', '\n'], "'")) }
}

impl Dim {
    /// The expression at the start of `text` and how many bytes it takes. Grammar: `term (+|-
    /// term)*`, a term being factors joined by `*`, a factor an integer, a name, `` `a name` ``,
    /// `(expr)` or `div|mod|max|min(expr, expr)`.
    pub fn parse_prefix(text: &str, lookup: Lookup<'_>) -> Result<(Dim, usize), DimParseError> {
        let mut p = Parser { text, at: 0, lookup };
        let d = p.sum(0)?;
        Ok((d, p.at))
    }

    /// The expression that `text` is, whole.
    pub fn parse(text: &str, lookup: Lookup<'_>) -> Result<Dim, DimParseError> {
        let mut p = Parser { text, at: 0, lookup };
        let d = p.sum(0)?;
        p.space();
        if p.at < text.len() {
            return p.fail("the end of the expression");
        }
        Ok(d)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    lookup: Lookup<'a>,
}

type Parsed<T = Dim> = Result<T, DimParseError>;

impl Parser<'_> {
    fn fail<T>(&self, what: &str) -> Parsed<T> {
        Err(DimParseError { at: self.at, what: format!("{what} expected") })
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn eat(&mut self, c: char) -> bool {
        let start = self.at;
        self.space();
        if self.rest().starts_with(c) {
            self.at += c.len_utf8();
            return true;
        }
        self.at = start;
        false
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.eat(c) { Ok(()) } else { self.fail(&format!("'{c}'")) }
    }

    fn sum(&mut self, depth: u32) -> Parsed {
        if depth > MAX_DEPTH {
            return self.fail("less nesting");
        }
        let mut d = self.product(depth)?;
        loop {
            let start = self.at;
            self.space();
            if self.rest().starts_with("->") {
                self.at = start;
                return Ok(d);
            }
            if self.eat('+') {
                d = d.add(&self.product(depth)?);
            } else if self.eat('-') {
                d = d.sub(&self.product(depth)?);
            } else {
                self.at = start;
                return Ok(d);
            }
        }
    }

    fn product(&mut self, depth: u32) -> Parsed {
        let mut d = self.factor(depth)?;
        while self.eat('*') {
            d = d.mul(&self.factor(depth)?);
        }
        Ok(d)
    }

    fn factor(&mut self, depth: u32) -> Parsed {
        self.space();
        let rest = self.rest();
        match rest.chars().next() {
            Some('(') => {
                self.at += 1;
                let d = self.sum(depth + 1)?;
                self.expect(')')?;
                Ok(d)
            }
            Some('`') => match rest[1..].find('`') {
                Some(end) => self.symbol(1, end, end + 2),
                None => self.fail("a closing backtick"),
            },
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let end =
                    rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |i| i + 1);
                match rest[..end].parse::<i64>() {
                    Ok(k) => {
                        self.at += end;
                        Ok(k.into())
                    }
                    Err(_) => self.fail("an integer of 64 bits"),
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
                if rest[end..].starts_with('(') {
                    return self.call(end, depth);
                }
                self.symbol(0, end, end)
            }
            _ => self.fail("a size"),
        }
    }

    fn symbol(&mut self, from: usize, len: usize, skip: usize) -> Parsed {
        let name = &self.rest()[from..from + len];
        match (self.lookup)(name) {
            Some(s) => {
                self.at += skip;
                Ok(s.into())
            }
            None => self.fail(&format!("a known symbol instead of '{name}'")),
        }
    }

    fn call(&mut self, end: usize, depth: u32) -> Parsed {
        let f: fn(&Dim, &Dim) -> Dim = match &self.rest()[..end] {
            "div" => Dim::div,
            "mod" => Dim::rem,
            "max" => Dim::max_of,
            "min" => Dim::min_of,
            _ => return self.fail("div, mod, max or min"),
        };
        self.at += end + 1;
        let a = self.sum(depth + 1)?;
        self.expect(',')?;
        let b = self.sum(depth + 1)?;
        self.expect(')')?;
        Ok(f(&a, &b))
    }
}

/// The symbol `s12` stands for where no table gives names.
pub fn numbered(name: &str) -> Option<Sym> {
    name.strip_prefix('s')?.parse().ok().map(Sym)
}

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match (s.is_human_readable(), self.as_const()) {
            (true, Some(k)) => s.serialize_i64(k),
            (true, None) => s.collect_str(&format_args!("={self}")),
            (false, _) => crate::dim_table::serialize(self, s),
        }
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Dim, D::Error> {
        if d.is_human_readable() {
            return d.deserialize_any(DimVisitor);
        }
        crate::dim_table::deserialize(d)
    }
}

struct DimVisitor;

impl Visitor<'_> for DimVisitor {
    type Value = Dim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a string \"=expression\"")
    }
    fn visit_i64<E: Error>(self, k: i64) -> Result<Dim, E> {
        Ok(k.into())
    }
    fn visit_u64<E: Error>(self, k: u64) -> Result<Dim, E> {
        i64::try_from(k).map(Dim::from).map_err(E::custom)
    }
    fn visit_str<E: Error>(self, s: &str) -> Result<Dim, E> {
        let text = s.strip_prefix('=').ok_or_else(|| E::custom("a dimension starts with '='"))?;
        Dim::parse(text, &numbered).map_err(E::custom)
    }
}

impl Serialize for Sym {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            return s.collect_str(&format_args!("=s{}", self.0));
        }
        s.serialize_newtype_struct("Sym", &self.0)
    }
}

impl<'de> Deserialize<'de> for Sym {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Sym, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename = "Sym")]
        struct Plain(u32);
        if !d.is_human_readable() {
            return Plain::deserialize(d).map(|p| Sym(p.0));
        }
        let dim = Dim::deserialize(d)?;
        dim.as_sym().ok_or_else(|| D::Error::custom("a symbol expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::SymInfo;

    #[test]
    fn what_is_shown_parses_back() {
        let info = |n: &str| SymInfo { name: n.into(), min: 0, max: 9 };
        let syms = [info("N"), info("x.2"), info("max"), info("a b")];
        let find = |n: &str| syms.iter().position(|s| s.name == n).map(|i| Sym(i as u32));
        let s = |i| Dim::from(Sym(i));
        for d in [
            Dim::from(-3i64),
            s(0).times(2).plus(-1),
            s(0).mul(&s(1)).add(&s(2)).div(&Dim::from(2i64)).plus(4),
            s(3).plus(1).rem(&s(1)).max_of(&s(2)).times(-7),
            s(0).min_of(&s(1).div(&3i64.into())),
        ] {
            let shown = d.display(&syms).to_string();
            assert_eq!(Dim::parse(&shown, &find), Ok(d.clone()), "{shown}");
            assert_eq!(Dim::parse(&d.to_string(), &numbered), Ok(d));
        }
        assert_eq!(Dim::parse("2*(N + 1) - N", &find), Ok(s(0).plus(2)));
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = "(".repeat(5000);
        for t in ["", "2*", "q0", "div(1)", "1 2", "`s0", "99999999999999999999", &deep, "é"] {
            assert!(Dim::parse(t, &numbered).is_err(), "{t}");
        }
    }
}
