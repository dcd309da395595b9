//! ai.onnx.ml: encoders, scalers and feature plumbing that scikit-learn's exporters write.

use super::text::strings;
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op_of};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

/// The domain.
pub(super) const ML: &str = "ai.onnx.ml";

pub(crate) const OPS: &[Row] = &[
    op_of(ML, "ArrayFeatureExtractor", array_feature_extractor),
    op_of(ML, "Binarizer", |c| {
        let x = c.tensor(0)?;
        let above = c.bin_scalar(BinaryOp::Gt, x, c.float("threshold", 0.0)?.into())?;
        let dtype = c.dtype(x);
        one(c.cast(above, dtype)?)
    }),
    op_of(ML, "CategoryMapper", category_mapper),
    op_of(ML, "FeatureVectorizer", feature_vectorizer),
    op_of(ML, "Imputer", imputer),
    op_of(ML, "LabelEncoder", label_encoder),
    op_of(ML, "Normalizer", normalizer),
    op_of(ML, "OneHotEncoder", one_hot_encoder),
    op_of(ML, "Scaler", scaler),
    op_of(ML, "ZipMap", |c| {
        let x = c.tensor(0)?;
        let what = format!("{}: a map from labels stays a row of their scores", c.b.name);
        c.imp.warnings.push(what);
        one(x)
    }),
];

/// Row `at[i]` of a table, where -1 takes `default`, which stands behind the rows.
fn pick(c: &mut Cx<'_, '_, '_>, at: Value, table: Value, default: Value) -> Got {
    let default = c.reshape(default, vec![1i64.into()])?;
    let table = c.b.concat(&[table, default], 0)?;
    c.prim(Prim::Gather { axis: 0 }, &[table, at])
}

fn int_scalar(c: &mut Cx<'_, '_, '_>, i: i64) -> Value {
    c.b.constant(Dtype::I64, &[], i.to_le_bytes().to_vec().into())
}

/// The list that one of `NAME_strings`, `NAME_int64s`, `NAME_floats` and `NAME_tensor` gives.
fn list(c: &mut Cx<'_, '_, '_>, name: &str) -> Got {
    if let Some(s) = c.strings(&format!("{name}_strings"))? {
        return Ok(strings(c, &[s.len() as i64], s));
    }
    if let Some(i) = c.ints(&format!("{name}_int64s"))? {
        return Ok(c.b.ints(&i));
    }
    if let Some(f) = c.floats(&format!("{name}_floats"))? {
        return Ok(c.b.floats(&[f.len() as i64], &f));
    }
    match tensor_constant(c, &format!("{name}_tensor"))? {
        Some(t) => {
            let n = Dim::product(&c.dims(t));
            c.reshape(t, vec![n])
        }
        None => invalid(format!("the attribute '{name}_…' is missing")),
    }
}

/// A tensor attribute as a constant.
pub(super) fn tensor_constant(c: &mut Cx<'_, '_, '_>, name: &str) -> Got<Option<Value>> {
    let Some(t) = c.tensor_attr(name)? else { return Ok(None) };
    let data = tensor::read(t, &mut c.imp.external, &c.imp.options.limits)?;
    Ok(Some(c.b.const_data(data)))
}

fn label_encoder(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    if c.version < 2 {
        return classes(c, x);
    }
    let (keys, values) = (list(c, "keys")?, list(c, "values")?);
    if c.dims(keys) != c.dims(values) {
        return invalid("keys and values differ in number");
    }
    if c.dtype(keys) != c.dtype(x) {
        return invalid(format!("keys of {} for an input of {}", c.dtype(keys), c.dtype(x)));
    }
    let default = match (tensor_constant(c, "default_tensor")?, c.dtype(values)) {
        (Some(t), _) => t,
        (_, Dtype::Str) => {
            let s = c.string("default_string", "_Unused")?;
            strings(c, &[], vec![s])
        }
        (_, Dtype::I64) => {
            let i = c.int("default_int64", -1)?;
            int_scalar(c, i)
        }
        (_, d) if d.is_float() => c.scalar(d, c.float("default_float", -0.0)?.into()),
        (_, d) => c.scalar(d, -1.0),
    };
    let at = c.prim(Prim::Find, &[x, keys])?;
    one(pick(c, at, values, default)?)
}

/// Version 1: strings to their places in a list, or the other way.
fn classes(c: &mut Cx<'_, '_, '_>, x: Value) -> Got<Vec<Value>> {
    let names = c.strings("classes_strings")?.unwrap_or_default();
    let n = names.len() as i64;
    let numbers: Vec<i64> = (0..n).collect();
    let (names, numbers) = (strings(c, &[n], names), c.b.ints(&numbers));
    two_ways(c, x, names, numbers)
}

/// Strings to numbers or numbers to strings, as the input says.
fn two_ways(c: &mut Cx<'_, '_, '_>, x: Value, names: Value, numbers: Value) -> Got<Vec<Value>> {
    if c.dims(names) != c.dims(numbers) {
        return invalid("strings and numbers differ in number");
    }
    if c.dtype(x) == Dtype::Str {
        let at = c.prim(Prim::Find, &[x, names])?;
        let default = c.int("default_int64", -1)?;
        let default = int_scalar(c, default);
        return one(pick(c, at, numbers, default)?);
    }
    let x = c.cast(x, Dtype::I64)?;
    let at = c.prim(Prim::Find, &[x, numbers])?;
    let default = c.string("default_string", "_Unused")?;
    let default = strings(c, &[], vec![default]);
    one(pick(c, at, names, default)?)
}

fn category_mapper(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (Some(names), Some(numbers)) = (c.strings("cats_strings")?, c.ints("cats_int64s")?) else {
        return invalid("both lists of categories are needed");
    };
    let names = strings(c, &[names.len() as i64], names);
    let numbers = c.b.ints(&numbers);
    two_ways(c, x, names, numbers)
}

/// A category's place as a row of zeros with a one, along a new last axis.
fn one_hot_encoder(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let mut x = c.tensor(0)?;
    let keys = match (c.strings("cats_strings")?, c.ints("cats_int64s")?) {
        (Some(s), _) if c.dtype(x) == Dtype::Str => strings(c, &[s.len() as i64], s),
        (_, Some(i)) if c.dtype(x) != Dtype::Str => {
            x = c.cast(x, Dtype::I64)?;
            c.b.ints(&i)
        }
        _ => return invalid("the categories' type is not the input's"),
    };
    let count = c.dim(keys, 0)?;
    let at = c.prim(Prim::Find, &[x, keys])?;
    let rank = c.rank(at);
    let places = Prim::Iota { dtype: Dtype::I64, shape: vec![count.clone()], axis: 0 };
    let places = c.prim(places, &[])?;
    let mut row = at;
    if !c.flag("zeros", true)? {
        // What is in no category is an error: its place is past the last.
        let below = c.bin_scalar(BinaryOp::Lt, at, 0.0)?;
        let past = c.b.dim_scalar(count);
        let past = c.b.select(below, past, at)?;
        row = c.prim(Prim::Gather { axis: 0 }, &[places, past])?;
    }
    let column = c.b.unsqueeze(row, rank)?;
    let hit = c.bin(BinaryOp::Eq, column, places)?;
    one(c.cast(hit, Dtype::F32)?)
}

/// Columns by number; of a vector, a row.
fn array_feature_extractor(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (x, at) = (c.tensor(0)?, c.tensor(1)?);
    let rank = c.rank(x);
    if rank == 0 {
        return invalid("x is a scalar");
    }
    let n = Dim::product(&c.dims(at));
    let at = c.cast(at, Dtype::I64)?;
    let at = c.reshape(at, vec![n])?;
    let x = if rank == 1 { c.b.unsqueeze(x, 0)? } else { x };
    let axis = c.rank(x) as u32 - 1;
    one(c.prim(Prim::Gather { axis }, &[x, at])?)
}

/// All inputs side by side as floats, each cut or filled up to its number of columns.
fn feature_vectorizer(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let widths = c.ints("inputdimensions")?.unwrap_or_default();
    if widths.len() != c.ins.len() || widths.iter().any(|w| *w < 0) {
        return invalid("inputdimensions must give a width an input");
    }
    let mut parts = vec![];
    for (i, w) in widths.into_iter().enumerate() {
        let x = c.tensor(i)?;
        let x = c.cast(x, Dtype::F32)?;
        let dims = c.dims(x);
        let rows = dims.first().cloned().unwrap_or(1i64.into());
        let width = Dim::product(dims.get(1..).unwrap_or(&[]));
        let x = c.reshape(x, vec![rows, width.clone()])?;
        let zero = c.scalar(Dtype::F32, 0.0);
        let (before, after) = (vec![0i64.into(); 2], vec![0i64.into(), width.times(-1).plus(w)]);
        let mode = hub_abi::prim::PadMode::Constant;
        parts.push(c.prim(Prim::Pad { before, after, mode }, &[x, zero])?);
    }
    match parts.is_empty() {
        true => invalid("no input"),
        false => one(c.b.concat(&parts, 1)?),
    }
}

fn imputer(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dtype = c.dtype(x);
    let (missing, fill) = if dtype.is_int() {
        let fill = c.ints("imputed_value_int64s")?.unwrap_or_default();
        let gone = c.int("replaced_value_int64", 0)?;
        let gone = int_scalar(c, gone);
        let gone = c.cast(gone, dtype)?;
        (c.bin(BinaryOp::Eq, x, gone)?, c.b.ints(&fill))
    } else {
        let fill = c.floats("imputed_value_floats")?.unwrap_or_default();
        let gone = c.float("replaced_value_float", 0.0)?;
        let missing = match gone.is_nan() {
            true => c.un(UnaryOp::IsNan, x)?,
            false => c.bin_scalar(BinaryOp::Eq, x, gone.into())?,
        };
        (missing, c.b.floats(&[fill.len() as i64], &fill))
    };
    let mut fill = c.cast(fill, dtype)?;
    if c.dim(fill, 0)?.is(0) {
        return invalid("there is no value to put in");
    }
    // One value, or one a column.
    if c.dim(fill, 0)?.is(1) {
        fill = c.reshape(fill, vec![])?;
    }
    one(c.b.select(missing, fill, x)?)
}

/// Rows divided by their greatest value, sum of magnitudes or length; rows of zero stay.
fn normalizer(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let x = c.cast(x, Dtype::F32)?;
    let Some(axis) = c.rank(x).checked_sub(1) else { return invalid("x is a scalar") };
    let size = match &*c.string("norm", "MAX")? {
        "MAX" => c.reduce(ReduceOp::Max, x, &[axis], true)?,
        "L1" => {
            let a = c.un(UnaryOp::Abs, x)?;
            c.reduce(ReduceOp::Sum, a, &[axis], true)?
        }
        "L2" => {
            let sq = c.bin(BinaryOp::Mul, x, x)?;
            let sum = c.reduce(ReduceOp::Sum, sq, &[axis], true)?;
            c.un(UnaryOp::Sqrt, sum)?
        }
        other => return invalid(format!("norm '{other}'")),
    };
    let none = c.bin_scalar(BinaryOp::Eq, size, 0.0)?;
    let unit = c.scalar(Dtype::F32, 1.0);
    let size = c.b.select(none, unit, size)?;
    one(c.bin(BinaryOp::Div, x, size)?)
}

/// `(x - offset) * scale`, each one number or one a column.
fn scaler(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let mut y = c.cast(x, Dtype::F32)?;
    for (name, op) in [("offset", BinaryOp::Sub), ("scale", BinaryOp::Mul)] {
        let v = c.floats(name)?.unwrap_or_default();
        if v.is_empty() {
            return invalid(format!("attribute '{name}' is missing"));
        }
        let v = match v[..] {
            [v] => c.scalar(Dtype::F32, v.into()),
            _ => c.b.floats(&[v.len() as i64], &v),
        };
        y = c.bin(op, y, v)?;
    }
    one(y)
}

/// Labels of classes as a constant.
pub(super) fn labels(c: &mut Cx<'_, '_, '_>, ints: &str) -> Got<(Value, usize)> {
    if let Some(s) = c.strings("classlabels_strings")?.filter(|s| !s.is_empty()) {
        let n = s.len();
        return Ok((strings(c, &[n as i64], s), n));
    }
    match c.ints(ints)? {
        Some(i) if !i.is_empty() => Ok((c.b.ints(&i), i.len())),
        _ => unsupported("a classifier without labels"),
    }
}

/// The labels of the greatest scores of `[N, C]`.
pub(super) fn best(c: &mut Cx<'_, '_, '_>, scores: Value, labels: Value) -> Got {
    let arg = Prim::ArgReduce { max: true, axis: 1, keep: false, last: false };
    let at = c.prim(arg, &[scores])?;
    c.prim(Prim::Gather { axis: 0 }, &[labels, at])
}

/// The second label where a condition `[N]` holds, else the first.
pub(super) fn either(c: &mut Cx<'_, '_, '_>, cond: Value, labels: Value) -> Got {
    let at = c.cast(cond, Dtype::I64)?;
    c.prim(Prim::Gather { axis: 0 }, &[labels, at])
}

/// Both scores of two classes from one score `[N, 1]`, the second's: the first has what is left to 1.
/// Other transformations than the logistic one do nothing here, as in ONNX Runtime.
pub(super) fn single(c: &mut Cx<'_, '_, '_>, y: Value, how: &str) -> Got {
    let y = if how == "LOGISTIC" { c.un(UnaryOp::Sigmoid, y)? } else { y };
    let rest = c.un(UnaryOp::Neg, y)?;
    let rest = c.bin_scalar(BinaryOp::Add, rest, 1.0)?;
    Ok(c.b.concat(&[rest, y], 1)?)
}

/// What becomes of scores `[N, C]`.
pub(super) fn post(c: &mut Cx<'_, '_, '_>, y: Value, how: &str) -> Got {
    match how {
        "NONE" => Ok(y),
        "LOGISTIC" => c.un(UnaryOp::Sigmoid, y),
        "SOFTMAX" => c.source(hub_ir::ops::norm::Softmax { axis: 1, log: false }, &[y]),
        "SOFTMAX_ZERO" => {
            // Scores of zero stay, and take no share.
            let a = c.un(UnaryOp::Abs, y)?;
            let some = c.bin_scalar(BinaryOp::Gt, a, 1e-7)?;
            let most = c.reduce(ReduceOp::Max, y, &[1], true)?;
            let e = c.bin(BinaryOp::Sub, y, most)?;
            let e = c.un(UnaryOp::Exp, e)?;
            let zero = c.scalar(Dtype::F32, 0.0);
            let e = c.b.select(some, e, zero)?;
            let sum = c.reduce(ReduceOp::Sum, e, &[1], true)?;
            let none = c.bin_scalar(BinaryOp::Eq, sum, 0.0)?;
            let unit = c.scalar(Dtype::F32, 1.0);
            let sum = c.b.select(none, unit, sum)?;
            c.bin(BinaryOp::Div, e, sum)
        }
        "PROBIT" => probit(c, y),
        other => invalid(format!("post_transform '{other}'")),
    }
}

/// `sqrt(2) * erfinv(2 y - 1)` by Winitzki's approximation, as ONNX Runtime has it.
fn probit(c: &mut Cx<'_, '_, '_>, y: Value) -> Got {
    let (a, pi) = (0.147f64, std::f64::consts::PI);
    let t = c.bin_scalar(BinaryOp::Mul, y, 2.0)?;
    let t = c.bin_scalar(BinaryOp::Sub, t, 1.0)?;
    let sign = c.un(UnaryOp::Sign, t)?;
    let sq = c.bin(BinaryOp::Mul, t, t)?;
    let rest = c.un(UnaryOp::Neg, sq)?;
    let log = c.un(UnaryOp::Log1p, rest)?;
    let v = c.bin_scalar(BinaryOp::Mul, log, 0.5)?;
    let v = c.bin_scalar(BinaryOp::Add, v, 2.0 / (pi * a))?;
    let vv = c.bin(BinaryOp::Mul, v, v)?;
    let w = c.bin_scalar(BinaryOp::Mul, log, 1.0 / a)?;
    let d = c.bin(BinaryOp::Sub, vv, w)?;
    let d = c.un(UnaryOp::Sqrt, d)?;
    let d = c.bin(BinaryOp::Sub, d, v)?;
    let d = c.un(UnaryOp::Sqrt, d)?;
    let d = c.bin(BinaryOp::Mul, d, sign)?;
    c.bin_scalar(BinaryOp::Mul, d, std::f64::consts::SQRT_2)
}
