//! Tensors out of nothing: constants, ranges, diagonals and triangles.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op};
use crate::onnx::tensor;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::graph::ConstData;

pub(crate) const OPS: &[Row] = &[
    op("Constant", 1, constant),
    op("ConstantOfShape", 9, constant_of_shape),
    op("Range", 11, range),
    op("EyeLike", 9, eye_like),
    op("Trilu", 14, trilu),
];

fn constant(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let limits = &c.imp.options.limits;
    if let Some(t) = c.tensor_attr("value")? {
        let data = tensor::read(t, &mut c.imp.external, limits)?;
        return one(c.b.const_data(data));
    }
    if let Some(s) = c.any_attr("sparse_value").and_then(|a| a.sparse_tensor.as_ref()) {
        let data = tensor::read_sparse(s, &mut c.imp.external, limits)?;
        return one(c.b.const_data(data));
    }
    if let Some(ints) = c.ints("value_ints")? {
        return one(c.b.ints(&ints));
    }
    if let Some(f) = c.floats("value_floats")? {
        return one(c.b.floats(&[f.len() as i64], &f));
    }
    if c.has("value_int") {
        let i = c.int("value_int", 0)?;
        let bytes = i.to_le_bytes().to_vec();
        return one(c.b.constant(Dtype::I64, &[], bytes.into()));
    }
    if c.has("value_float") {
        let f = c.float("value_float", 0.0)?;
        return one(c.b.floats(&[], &[f]));
    }
    let strings = match c.strings("value_strings")? {
        Some(s) => Some((vec![Dim::from(s.len())], s)),
        None if c.has("value_string") => Some((vec![], vec![c.string("value_string", "")?])),
        None => None,
    };
    match strings {
        Some((dims, strings)) => {
            let ty = hub_abi::shape::TensorType { dtype: Dtype::Str, dims };
            one(c.b.const_data(ConstData { ty, data: Default::default(), strings }))
        }
        None => invalid("the constant has no value"),
    }
}

fn constant_of_shape(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let v = c.tensor(0)?;
    let shape = c.sizes(v, "shape")?;
    if let Some(d) = shape.iter().find(|d| d.as_const().is_some_and(|d| d < 0)) {
        return invalid(format!("a size of {d}"));
    }
    let fill = match c.tensor_attr("value")? {
        Some(t) => tensor::read(t, &mut c.imp.external, &c.imp.options.limits)?,
        None => {
            let zero = c.b.scalar(Dtype::F32, 0.0);
            return one(c.b.broadcast(zero, shape)?);
        }
    };
    let fill = c.b.const_data(fill);
    let fill = c.reshape(fill, vec![])?;
    one(c.b.broadcast(fill, shape)?)
}

pub(super) fn range(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (start, limit, delta) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let mut scalars = [start, limit, delta];
    for v in &mut scalars {
        *v = c.reshape(*v, vec![])?;
    }
    let [start, limit, delta] = scalars;
    let dtype = c.dtype(start);
    let known = |c: &Cx<'_, '_, '_>, v: Value| c.b.g.content.get(&v)?.first().cloned();
    let parts = (known(c, start), known(c, limit), known(c, delta));
    let n = match parts {
        (Some(s), Some(l), Some(d)) if d.as_const().is_some_and(|d| d != 0) => {
            let (span, d) =
                if d.as_const() < Some(0) { (s.sub(&l), d.times(-1)) } else { (l.sub(&s), d) };
            let n = span.div_ceil(&d);
            if n.bounds(&c.b.g.syms).0 >= 0 { n } else { n.max_of(&0i64.into()) }
        }
        _ => {
            let wide = if dtype.is_float() { dtype } else { Dtype::F64 };
            let (s, l, d) = (c.cast(start, wide)?, c.cast(limit, wide)?, c.cast(delta, wide)?);
            let span = c.bin(BinaryOp::Sub, l, s)?;
            let n = c.bin(BinaryOp::Div, span, d)?;
            let n = c.un(UnaryOp::Ceil, n)?;
            let n = c.bin_scalar(BinaryOp::Max, n, 0.0)?;
            let n = c.cast(n, Dtype::I64)?;
            c.sizes(n, "count")?.pop().unwrap_or(0i64.into())
        }
    };
    let i = c.prim(Prim::Iota { dtype, shape: vec![n], axis: 0 }, &[])?;
    let steps = c.bin(BinaryOp::Mul, i, delta)?;
    one(c.bin(BinaryOp::Add, steps, start)?)
}

/// Row and column numbers of the last two axes, as int64 that broadcast against the whole.
pub(super) fn rows_and_columns(c: &mut Cx<'_, '_, '_>, dims: &[Dim]) -> Got<(Value, Value)> {
    let n = dims.len();
    let shape = |r: Dim, k: Dim| vec![r, k];
    let rows =
        Prim::Iota { dtype: Dtype::I64, shape: shape(dims[n - 2].clone(), 1i64.into()), axis: 0 };
    let columns =
        Prim::Iota { dtype: Dtype::I64, shape: shape(1i64.into(), dims[n - 1].clone()), axis: 1 };
    Ok((c.prim(rows, &[])?, c.prim(columns, &[])?))
}

fn eye_like(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let dims = c.dims(x);
    if dims.len() != 2 {
        return invalid("a matrix is expected");
    }
    let to = match c.int("dtype", 0)? {
        0 => c.dtype(x),
        n => tensor::dtype(n as i32)?,
    };
    let (rows, columns) = rows_and_columns(c, &dims)?;
    let k = c.int("k", 0)?;
    let at = c.bin_scalar(BinaryOp::Add, rows, k as f64)?;
    let hit = c.bin(BinaryOp::Eq, at, columns)?;
    one(c.cast(hit, to)?)
}

pub(super) fn trilu(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let (dims, dtype) = (c.dims(x), c.dtype(x));
    if dims.len() < 2 {
        return invalid("a matrix is expected");
    }
    let (rows, columns) = rows_and_columns(c, &dims)?;
    let at = match c.opt(1) {
        Some(k) => {
            let k = c.reshape(k, vec![])?;
            c.bin(BinaryOp::Add, rows, k)?
        }
        None => rows,
    };
    let op = if c.flag("upper", true)? { BinaryOp::Ge } else { BinaryOp::Le };
    let keep = c.bin(op, columns, at)?;
    let zero = c.scalar(dtype, 0.0);
    one(c.b.select(keep, x, zero)?)
}
