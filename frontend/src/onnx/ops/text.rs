//! Strings, bags of n-grams, image files.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use hub_abi::prim::{BinaryOp, Pixel, Prim, ScatterOp, TextOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::graph::ConstData;
use std::collections::{BTreeMap, HashMap};

pub(crate) const OPS: &[Row] = &[
    op("StringConcat", 20, |c| {
        let ins = [c.tensor(0)?, c.tensor(1)?];
        one(c.prim(Prim::Text(TextOp::Concat), &ins)?)
    }),
    op("RegexFullMatch", 20, regex_full_match),
    op("StringSplit", 20, string_split),
    op("StringNormalizer", 10, string_normalizer),
    op("TfIdfVectorizer", 9, tf_idf),
    op("ImageDecoder", 20, image_decoder),
];

/// A constant of strings.
pub(super) fn strings(c: &mut Cx<'_, '_, '_>, dims: &[i64], strings: Vec<String>) -> Value {
    let dims = dims.iter().map(|&d| d.into()).collect();
    let ty = hub_abi::shape::TensorType { dtype: Dtype::Str, dims };
    c.b.const_data(ConstData { ty, data: Default::default(), strings })
}

fn regex_full_match(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let matches = Prim::Text(TextOp::Matches { pattern: c.string("pattern", "")? });
    // Whether the expression is one, is known before anything runs.
    let none = strings(c, &[0], vec![]);
    if c.known(none).is_some_and(|t| hub_ir::known::cast(&matches, t).is_none()) {
        return unsupported("this regular expression");
    }
    one(c.prim(matches, &[x])?)
}

/// A symbol for a size known when the node is done.
fn size(c: &mut Cx<'_, '_, '_>, what: &str, most: i64) -> hub_abi::Sym {
    let name = format!("{}.{what}", c.b.name);
    c.b.g.new_sym(&name, 0, most)
}

fn string_split(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let delimiter = Some(c.string("delimiter", "")?).filter(|d| !d.is_empty());
    let most = match c.has("maxsplit") {
        true => u64::try_from(c.int("maxsplit", 0)?).ok(),
        false => None,
    };
    let width = size(c, "pieces", crate::options::DIM_MAX);
    Ok(c.b.prim_n(Prim::Text(TextOp::Split { delimiter, most, width }), &[x])?)
}

/// Without stop words, in one case; of no string left, an empty one.
fn string_normalizer(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    if !matches!(dims.len(), 1 | 2) || (dims.len() == 2 && dims[0].as_const() != Some(1)) {
        return invalid("the input must be [C] or [1, C]");
    }
    let turn = |upper| Prim::Text(TextOp::Case { upper });
    let flat = c.reshape(x, vec![Dim::product(&dims)])?;
    let mut kept = flat;
    let mut stop = c.strings("stopwords")?.unwrap_or_default();
    if !stop.is_empty() {
        let mut key = flat;
        if !c.flag("is_case_sensitive", false)? {
            stop.iter_mut().for_each(|s| *s = s.to_lowercase());
            key = c.prim(turn(false), &[flat])?;
        }
        let stop = strings(c, &[stop.len() as i64], stop);
        let at = c.prim(Prim::Find, &[key, stop])?;
        let keep = c.bin_scalar(BinaryOp::Lt, at, 0.0)?;
        let found = super::index::non_zero(c, keep)?;
        let count = c.dim(found, 1)?;
        let at = c.reshape(found, vec![count])?;
        kept = c.prim(Prim::Gather { axis: 0 }, &[flat, at])?;
    }
    let mut y = match &*c.string("case_change_action", "NONE")? {
        "NONE" => kept,
        "LOWER" => c.prim(turn(false), &[kept])?,
        "UPPER" => c.prim(turn(true), &[kept])?,
        other => return invalid(format!("case_change_action '{other}'")),
    };
    let count = c.dim(y, 0)?;
    if count.bounds(&c.b.g.syms).0 < 1 {
        let empty = strings(c, &[1], vec![String::new()]);
        let more = c.b.concat(&[y, empty], 0)?;
        y = c.b.narrow(more, 0, 0i64.into(), count.max_of(&1i64.into()))?;
    }
    if dims.len() == 2 {
        y = c.b.unsqueeze(y, 0)?;
    }
    one(y)
}

fn image_decoder(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let pixel = match &*c.string("pixel_format", "RGB")? {
        "RGB" => Pixel::Rgb,
        "BGR" => Pixel::Bgr,
        "Grayscale" => Pixel::Grey,
        other => return invalid(format!("pixel_format '{other}'")),
    };
    let (height, width) = (size(c, "height", 1 << 16), size(c, "width", 1 << 16));
    one(c.prim(Prim::DecodeImage { pixel, height, width }, &[x])?)
}

/// The n-grams of a pool as a trie: a level an n-gram size, a node a prefix. A node's key is its
/// parent's place in the level above times the vocabulary's size, plus its token; its column is
/// that of the n-gram that ends there, or one past the last.
struct Trie {
    words: i64,
    /// Keys and columns, a pair a level.
    levels: Vec<(Vec<i64>, Vec<i64>)>,
    columns: i64,
}

/// Most n-gram sizes times skips.
const MOST_PASSES: i64 = 1 << 10;

impl Trie {
    /// `pool` holds tokens' numbers, `counts` where the n-grams of each size start.
    fn new(pool: &[i64], words: i64, counts: &[i64], places: &[i64]) -> Got<Trie> {
        let columns = places.iter().max().map_or(0, |m| m.saturating_add(1));
        if places.iter().any(|p| *p < 0) || columns > 1 << 24 {
            return invalid("ngram_indexes");
        }
        let mut trie = Trie { words, levels: vec![], columns };
        let mut nodes: Vec<HashMap<i64, usize>> = vec![];
        let mut gram = 0;
        for (n, &start) in counts.iter().enumerate() {
            let end = counts.get(n + 1).copied().unwrap_or(pool.len() as i64);
            let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let part = part.and_then(|(s, e)| pool.get(s..e));
            let Some(part) = part.filter(|p| p.len().is_multiple_of(n + 1)) else {
                return invalid("ngram_counts do not fit the pool");
            };
            nodes.push(HashMap::new());
            trie.levels.push((vec![], vec![]));
            for tokens in part.chunks(n + 1) {
                let Some(&column) = places.get(gram) else {
                    return invalid("fewer ngram_indexes than n-grams");
                };
                let mut at = 0;
                for (level, token) in tokens.iter().enumerate() {
                    let key = at as i64 * words + token;
                    let (keys, to) = &mut trie.levels[level];
                    at = *nodes[level].entry(key).or_insert_with(|| {
                        keys.push(key);
                        to.push(columns);
                        keys.len() - 1
                    });
                }
                trie.levels[n].1[at] = column;
                gram += 1;
            }
        }
        Ok(trie)
    }

    /// Adds the n-grams whose tokens stand `distance` apart to `counts` [N, columns + 1]. Tokens
    /// are [N, C], -1 where they are not in the vocabulary.
    fn count(
        &self,
        c: &mut Cx<'_, '_, '_>,
        [tokens, counts]: [Value; 2],
        distance: i64,
        sizes: std::ops::RangeInclusive<i64>,
    ) -> Got {
        let dims = c.dims(tokens);
        let none = c.scalar(Dtype::I64, -1.0);
        let (mut counts, mut state) = (counts, None);
        for (level, (keys, columns)) in self.levels.iter().enumerate() {
            let n = level as i64 + 1;
            if n > *sizes.end() {
                break;
            }
            let key = match state {
                None => tokens,
                Some(state) => {
                    // The token that many places on; past the end there is none.
                    let mut after = vec![Dim::from(0i64); 2];
                    after[1] = Dim::from((n - 1) * distance);
                    let before = vec![0i64.into(), after[1].times(-1)];
                    let mode = hub_abi::prim::PadMode::Constant;
                    let next = c.prim(Prim::Pad { before, after, mode }, &[tokens, none])?;
                    let up = c.bin_scalar(BinaryOp::Mul, state, self.words as f64)?;
                    let key = c.bin(BinaryOp::Add, up, next)?;
                    let least = c.bin(BinaryOp::Min, state, next)?;
                    let gone = c.bin_scalar(BinaryOp::Lt, least, 0.0)?;
                    c.b.select(gone, none, key)?
                }
            };
            let keys = c.b.ints(keys);
            let found = c.prim(Prim::Find, &[key, keys])?;
            state = Some(found);
            if !sizes.contains(&n) {
                continue;
            }
            // What is not found takes the last column, which is dropped.
            let columns = c.b.ints(&[columns, &[self.columns][..]].concat());
            let at = c.prim(Prim::Gather { axis: 0 }, &[columns, found])?;
            let unit = c.scalar(Dtype::F32, 1.0);
            let unit = c.b.broadcast(unit, dims.clone())?;
            let add = Prim::ScatterElements { axis: 1, op: ScatterOp::Add };
            counts = c.prim(add, &[counts, at, unit])?;
        }
        Ok(counts)
    }
}

/// Numbers of the input's tokens in the pool's vocabulary, and the pool in those numbers.
fn vocabulary(c: &mut Cx<'_, '_, '_>, x: Value) -> Got<(Value, Vec<i64>, i64)> {
    let (keys, numbers, words) = match (c.strings("pool_strings")?, c.ints("pool_int64s")?) {
        (Some(pool), _) if c.dtype(x) == Dtype::Str => {
            let (distinct, numbers) = numbered(pool);
            let n = distinct.len() as i64;
            (strings(c, &[n], distinct), numbers, n)
        }
        (_, Some(pool)) if c.dtype(x).is_int() => {
            let (distinct, numbers) = numbered(pool);
            (c.b.ints(&distinct), numbers, distinct.len() as i64)
        }
        _ => return invalid("the pool's type is not the input's"),
    };
    let x = if c.dtype(x) == Dtype::Str { x } else { c.cast(x, Dtype::I64)? };
    Ok((c.prim(Prim::Find, &[x, keys])?, numbers, words))
}

/// Distinct elements in order, and each element's place among them.
fn numbered<T: Ord + Clone>(pool: Vec<T>) -> (Vec<T>, Vec<i64>) {
    let mut at: BTreeMap<T, i64> = pool.iter().map(|k| (k.clone(), 0)).collect();
    at.values_mut().zip(0..).for_each(|(v, i)| *v = i);
    let numbers = pool.iter().map(|k| at[k]).collect();
    (at.into_keys().collect(), numbers)
}

fn tf_idf(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    let rows = match &dims[..] {
        [_] => Dim::from(1i64),
        [n, _] => n.clone(),
        _ => return invalid("the input must be [C] or [N, C]"),
    };
    let x = c.reshape(x, vec![rows.clone(), dims[dims.len() - 1].clone()])?;
    let (tokens, pool, words) = vocabulary(c, x)?;
    let counts = c.ints("ngram_counts")?.unwrap_or_default();
    let places = c.ints("ngram_indexes")?.unwrap_or_default();
    let trie = Trie::new(&pool, words, &counts, &places)?;
    let (least, most) = (c.int("min_gram_length", 1)?, c.int("max_gram_length", 1)?);
    let skips = c.int("max_skip_count", 0)?;
    if least < 1 || most < least || skips < 0 {
        return invalid(format!("n-grams of {least} to {most} with {skips} skips"));
    }
    let levels = trie.levels.len() as i64;
    if skips.saturating_add(1).saturating_mul(levels.max(1)) > MOST_PASSES {
        return unsupported(format!("{skips} skips"));
    }
    let zero = c.scalar(Dtype::F32, 0.0);
    let mut y = c.b.broadcast(zero, vec![rows, (trie.columns + 1).into()])?;
    for distance in 1..=skips + 1 {
        // Single tokens have no gaps: they count once.
        let least = if distance > 1 { least.max(2) } else { least };
        y = trie.count(c, [tokens, y], distance, least..=most)?;
    }
    y = c.b.narrow(y, 1, 0i64.into(), trie.columns.into())?;
    let weights = c.floats("weights")?;
    let mode = c.string("mode", "")?;
    y = match &*mode {
        "TF" => y,
        "IDF" => c.bin_scalar(BinaryOp::Min, y, 1.0)?,
        "TFIDF" => y,
        other => return invalid(format!("mode '{other}'")),
    };
    if let Some(w) = weights.filter(|_| mode != "TF") {
        if w.len() != places.len() {
            return invalid(format!("{} weights for {} n-grams", w.len(), places.len()));
        }
        // A weight an n-gram, to the n-gram's column.
        let mut own = vec![1f32; trie.columns as usize];
        places.iter().zip(w).for_each(|(&p, w)| own[p as usize] = w);
        let w = c.b.floats(&[trie.columns], &own);
        y = c.bin(BinaryOp::Mul, y, w)?;
    }
    if dims.len() == 1 {
        y = c.b.squeeze(y, 0)?;
    }
    one(y)
}
