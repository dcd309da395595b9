//! Strings, and the search for keys.

use crate::binary::broadcast;
use crate::error::{Limits, PrimError, misfit, undefined};
use crate::layout::{Walk, broadcast_strides};
use crate::tensor::Tensor;
use hub_abi::Dtype;
use hub_abi::dim::Sym;
use hub_abi::prim::TextOp;
use regex_lite::RegexBuilder;
use std::collections::HashMap;
use std::hash::Hash;

/// Bytes that a compiled expression may take.
const MOST_REGEX: usize = 1 << 20;
/// Bytes of one string that is matched.
const MOST_TEXT: usize = 1 << 24;

/// Places of elements among keys; see [`hub_abi::Prim::Find`].
pub(crate) fn find(x: &Tensor, keys: &Tensor) -> Result<Tensor, PrimError> {
    if x.dtype() != keys.dtype() {
        return misfit(format!("{} among keys of type {}", x.dtype(), keys.dtype()));
    }
    let dims = x.dims();
    match x.dtype() {
        Dtype::Str => places(dims, x.as_strings().iter(), keys.as_strings().iter()),
        Dtype::C64 | Dtype::C128 => undefined("Find", x.dtype()),
        d if d.is_float() => {
            // One pattern for every NaN, one for both zeros.
            let bits = |t: &Tensor| -> Result<Vec<u64>, PrimError> {
                let one =
                    |v: f64| if v.is_nan() { f64::NAN.to_bits() } else { (v + 0.0).to_bits() };
                Ok(t.to_f64s()?.into_iter().map(one).collect())
            };
            places(dims, bits(x)?.into_iter(), bits(keys)?.into_iter())
        }
        _ => places(dims, x.to_i64s()?.into_iter(), keys.to_i64s()?.into_iter()),
    }
}

fn places<T: Hash + Eq>(
    dims: &[usize],
    xs: impl Iterator<Item = T>,
    keys: impl Iterator<Item = T>,
) -> Result<Tensor, PrimError> {
    let mut at = HashMap::new();
    for (i, k) in keys.enumerate() {
        at.entry(k).or_insert(i as i64);
    }
    Tensor::new(dims, xs.map(|x| at.get(&x).copied().unwrap_or(-1)).collect())
}

/// Outputs, and the symbol that is bound with its size.
type Texts = (Vec<Tensor>, Option<(Sym, i64)>);

/// Runs an operation on strings.
pub(crate) fn text(op: &TextOp, ins: &[&Tensor], limits: &Limits) -> Result<Texts, PrimError> {
    let one = |t: Tensor| Ok((vec![t], None));
    match (op, ins) {
        (TextOp::Concat, [a, b]) => one(concat(a, b, limits)?),
        (TextOp::Matches { pattern }, [x]) => one(matches(x, pattern)?),
        (TextOp::Case { upper }, [x]) => {
            let turn = |s: &String| if *upper { s.to_uppercase() } else { s.to_lowercase() };
            one(Tensor::strings(x.dims(), x.as_strings().iter().map(turn).collect())?)
        }
        (TextOp::Split { delimiter, most, width }, [x]) => {
            let (outs, n) = split(x, delimiter.as_deref(), *most, limits)?;
            Ok((outs, Some((*width, n as i64))))
        }
        _ => misfit(format!("{} operands", ins.len())),
    }
}

fn concat(a: &Tensor, b: &Tensor, limits: &Limits) -> Result<Tensor, PrimError> {
    let shape = broadcast(a.dims(), b.dims())?;
    let longest = |t: &Tensor| t.as_strings().iter().map(String::len).max().unwrap_or(0);
    let size = longest(a).saturating_add(longest(b)).saturating_add(size_of::<String>());
    let mut out = Vec::with_capacity(limits.count(&shape, size)?);
    let strides = [a, b].map(|t| broadcast_strides(t.dims(), &shape));
    let walk = Walk::new(&shape, [&strides[0], &strides[1]]);
    let (n, [sa, sb]) = walk.row();
    let (xs, ys) = (a.as_strings(), b.as_strings());
    walk.rows([0, 0], |[x, y]| {
        for i in 0..n as isize {
            let (x, y) = (x as isize + i * sa, y as isize + i * sb);
            out.push(format!("{}{}", xs[x as usize], ys[y as usize]));
        }
    });
    Tensor::strings(&shape, out)
}

fn matches(x: &Tensor, pattern: &str) -> Result<Tensor, PrimError> {
    let bad = |e| PrimError::Misfit(format!("the regular expression {pattern:?}: {e}"));
    let whole = format!(r"\A(?:{pattern})\z");
    let regex = RegexBuilder::new(&whole).size_limit(MOST_REGEX).build().map_err(bad)?;
    if x.as_strings().iter().any(|s| s.len() > MOST_TEXT) {
        return misfit(format!("a string of more than {MOST_TEXT} bytes to match"));
    }
    let hits: Vec<bool> = x.as_strings().iter().map(|s| regex.is_match(s)).collect();
    Tensor::bools(x.dims(), &hits)
}

/// Pieces of one string, as Python's `str.split` cuts it.
fn pieces<'a>(s: &'a str, delimiter: Option<&str>, most: Option<u64>) -> Vec<&'a str> {
    let most = most.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if let Some(d) = delimiter.filter(|d| !d.is_empty()) {
        return s.splitn(most.saturating_add(1), d).collect();
    }
    let mut out = vec![];
    let mut rest = s.trim_start();
    while !rest.is_empty() {
        let cut = match rest.find(char::is_whitespace) {
            Some(at) if out.len() < most => at,
            _ => rest.len(),
        };
        out.push(&rest[..cut]);
        rest = rest[cut..].trim_start();
    }
    out
}

fn split(
    x: &Tensor,
    delimiter: Option<&str>,
    most: Option<u64>,
    limits: &Limits,
) -> Result<(Vec<Tensor>, usize), PrimError> {
    let rows: Vec<Vec<&str>> = x.as_strings().iter().map(|s| pieces(s, delimiter, most)).collect();
    let counts = rows.iter().map(|r| r.len() as i64).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut dims = x.dims().to_vec();
    dims.push(width);
    limits.count_like(&dims, x)?;
    let cell = |r: &Vec<&str>, i: usize| r.get(i).map_or(String::new(), |s| s.to_string());
    let all = rows.iter().flat_map(|r| (0..width).map(move |i| cell(r, i))).collect();
    Ok((vec![Tensor::strings(&dims, all)?, Tensor::new(x.dims(), counts)?], width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(s: &[&str]) -> Tensor {
        Tensor::strings(&[s.len()], s.iter().map(|s| s.to_string()).collect()).unwrap()
    }

    #[test]
    fn keys_are_found() {
        let at = |x: &Tensor, k: &Tensor| find(x, k).unwrap().to_i64s().unwrap();
        assert_eq!(at(&strings(&["b", "z", "a"]), &strings(&["a", "b", "a"])), [1, -1, 0]);
        let x = Tensor::new(&[3], vec![-0.0f32, f32::NAN, 2.0]).unwrap();
        let k = Tensor::new(&[2], vec![-f32::NAN, 0.0]).unwrap();
        assert_eq!(at(&x, &k), [1, 0, -1]);
        assert!(find(&x, &strings(&["a"])).is_err());
    }

    #[test]
    fn pieces_are_pythons() {
        // Answers by CPython's str.split.
        assert_eq!(pieces(" a  b c ", None, None), ["a", "b", "c"]);
        assert_eq!(pieces(" a  b c ", None, Some(1)), ["a", "b c "]);
        assert_eq!(pieces("", None, None), [""; 0]);
        assert_eq!(pieces("", Some("-"), None), [""]);
        assert_eq!(pieces("a--b-", Some("-"), None), ["a", "", "b", ""]);
        assert_eq!(pieces("a-b-c", Some("-"), Some(1)), ["a", "b-c"]);
        assert_eq!(pieces("a b", None, Some(0)), ["a b"]);
    }

    #[test]
    fn expressions_match_the_whole_string() {
        let hits = |p: &str, s: &[&str]| matches(&strings(s), p).map(|t| t.to_bools());
        assert_eq!(hits("a|ab", &["ab", "b", "a"]).unwrap(), [true, false, true]);
        assert_eq!(hits(r"\d+", &["12", "1x", "\u{664}"]).unwrap(), [true, false, false]);
        assert!(hits("(", &["x"]).is_err());
        assert!(hits("((a{1000}){1000}){1000}", &["x"]).is_err());
    }
}
