//! Attributes: JSON values (what serde makes of an operator) written compactly, and read back.
//! Strings `=expr` are dimensions and print as expressions over named symbols.

use super::parse::{Cursor, Parsed};
use hub_abi::dim_text::{is_plain_name, numbered};
use hub_abi::{Dim, Sym, SymInfo};
use serde_json::{Map, Number, Value as Json};
use std::fmt::Write;

/// Appends a JSON value; `syms` gives names.
pub(super) fn write(out: &mut String, v: &Json, syms: &[SymInfo]) {
    match v {
        Json::Null => out.push_str("null"),
        Json::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Json::Number(n) => write_number(out, n),
        Json::String(s) => write_string(out, s, syms),
        Json::Array(xs) => {
            out.push('[');
            for (i, x) in xs.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(out, x, syms);
            }
            out.push(']');
        }
        Json::Object(m) => {
            out.push('{');
            for (i, (k, x)) in m.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                let _ = write!(out, "{k}: ");
                write(out, x, syms);
            }
            out.push('}');
        }
    }
}

fn write_number(out: &mut String, n: &Number) {
    let _ = match n.as_f64() {
        Some(x) if n.is_f64() => {
            let wide = format!("{x:?}");
            let narrow = format!("{:?}f", x as f32);
            let exact = f64::from(x as f32).to_bits() == x.to_bits();
            let short = exact && narrow.len() < wide.len();
            out.write_str(if short { &narrow } else { &wide })
        }
        _ => write!(out, "{n}"),
    };
}

fn write_string(out: &mut String, s: &str, syms: &[SymInfo]) {
    if let Some(d) = s.strip_prefix('=').and_then(|e| Dim::parse(e, &numbered).ok()) {
        let _ = write!(out, "{}", d.display(syms));
    } else if is_plain_name(s) && !syms.iter().any(|i| i.name == s) {
        out.push_str(s);
    } else {
        let _ = write!(out, "{}", Json::from(s));
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read(c: &mut Cursor<'_>, depth: u32) -> Parsed<Json> {
    if depth > hub_abi::depth::MAX_DEPTH {
        return c.fail("less nesting");
    }
    match c.peek() {
        Some('[') => {
            c.expect("[")?;
            let mut xs = vec![];
            while !c.eat("]") {
                if !xs.is_empty() {
                    c.expect(",")?;
                }
                xs.push(read(c, depth + 1)?);
            }
            Ok(Json::Array(xs))
        }
        Some('{') => {
            c.expect("{")?;
            let mut m = Map::new();
            while !c.eat("}") {
                if !m.is_empty() {
                    c.expect(",")?;
                }
                let k = c.word()?.to_string();
                c.expect(":")?;
                m.insert(k, read(c, depth + 1)?);
            }
            Ok(Json::Object(m))
        }
        Some('"') => c.string().map(Json::String),
        _ => read_plain(c),
    }
}

/// A number, word or dimension expression.
fn read_plain(c: &mut Cursor<'_>) -> Parsed<Json> {
    if let Some(word) = c.peek_word() {
        let known = match word {
            "true" => Some(Json::Bool(true)),
            "false" => Some(Json::Bool(false)),
            "null" => Some(Json::Null),
            "div" | "mod" | "max" | "min" => None,
            _ if c.symbol(word).is_some() => None,
            _ => Some(Json::String(word.to_string())),
        };
        if let Some(v) = known {
            c.word()?;
            return Ok(v);
        }
    } else if let Some(x) = c.float() {
        return match Number::from_f64(x) {
            Some(n) => Ok(Json::Number(n)),
            None => c.fail("a finite number"),
        };
    }
    let d: Dim = c.dim()?;
    serde_json::to_value(d).map_err(|e| c.error(e.to_string()))
}

/// Names of the symbols, as a parser's lookup.
pub(super) fn lookup(syms: &[SymInfo]) -> impl Fn(&str) -> Option<Sym> + '_ {
    |n| syms.iter().position(|s| s.name == n).map(|i| Sym(i as u32))
}

/// Serde of an `f64` that may be infinite or NaN, which JSON numbers cannot say:
/// `#[serde(with = "crate::text::float")]`.
pub mod float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Word(String),
    }

    /// A number, or `inf`, `-inf`, `NaN` as a string.
    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() && !x.is_finite() {
            return s.serialize_str(&x.to_string());
        }
        x.serialize(s)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        if !d.is_human_readable() {
            return f64::deserialize(d);
        }
        match Either::deserialize(d)? {
            Either::Number(x) => Ok(x),
            Either::Word(w) => w.parse().map_err(D::Error::custom),
        }
    }
}
