//! Constants and generated tensors.

use crate::FrontendError;
use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_abi::prim::Distribution;
use hub_ir::build::scalar_bytes;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// Tensors of at most this many equal elements are stored, so that their contents are known.
const STORED: i64 = 64;

/// Little-endian bytes of one number: text keeps 64-bit integers exact.
fn number(dtype: Dtype, text: &str, value: f64) -> Res<Vec<u8>> {
    let bad = || FrontendError::invalid(format!("'{text}' is not a number"));
    match text {
        "" => Ok(scalar_bytes(dtype, value)),
        "inf" => Ok(scalar_bytes(dtype, f64::INFINITY)),
        "-inf" => Ok(scalar_bytes(dtype, f64::NEG_INFINITY)),
        "nan" => Ok(scalar_bytes(dtype, f64::NAN)),
        _ => match (dtype, text.parse::<i64>()) {
            (Dtype::I64 | Dtype::U64, Ok(k)) => Ok(k.to_le_bytes().to_vec()),
            _ => Ok(scalar_bytes(dtype, text.parse().map_err(|_| bad())?)),
        },
    }
}

fn filled(c: &mut Ctx<'_, '_>, dtype: Dtype, one: Vec<u8>, dims: Vec<Dim>) -> Res<Value> {
    let known: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
    if let Some(bad) = known.iter().flatten().find(|&&d| d < 0) {
        return Err(FrontendError::invalid(format!("a dimension is {bad}")));
    }
    let count = known.as_ref().and_then(|k| k.iter().try_fold(1i64, |n, &d| n.checked_mul(d)));
    if let (Some(known), Some(0..=STORED)) = (known, count) {
        let data = one.repeat(count.unwrap_or(0) as usize);
        return Ok(c.b.constant(dtype, &known, data.into()));
    }
    let scalar = c.b.constant(dtype, &[], one.into());
    Ok(c.b.broadcast(scalar, dims)?)
}

/// fill_constant, full, full_with_tensor.
pub fn full(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.or(c.declared_dtype("Out")).unwrap_or(Dtype::F32);
    let dims = c.dims_or("ShapeTensor|ShapeTensorList", "shape", (0, DIM_MAX))?.unwrap_or_default();
    let v = match c.opt("ValueTensor") {
        Some(v) => match c.const_scalar(v) {
            Some(x) => filled(c, dtype, scalar_bytes(dtype, x), dims)?,
            None => {
                let v = c.b.cast(v, dtype)?;
                let v = c.b.reshape(v, vec![])?;
                c.b.broadcast(v, dims)?
            }
        },
        None => {
            let one = number(dtype, c.text("str_value", ""), c.float("value", 0.0))?;
            filled(c, dtype, one, dims)?
        }
    };
    c.put("Out", v);
    Ok(())
}

/// full_int_array: an integer vector.
pub fn int_array(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::I64);
    let xs = c.ints("value").unwrap_or_default();
    let data: Vec<u8> = match dtype {
        Dtype::I32 => xs.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect(),
        Dtype::I64 => xs.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => xs.iter().flat_map(|&x| scalar_bytes(other, x as f64)).collect(),
    };
    let v = c.b.constant(dtype, &[xs.len() as i64], data.into());
    c.put("Out", v);
    Ok(())
}

/// fill_any_like, full_like, fill_zeros_like, zeros_like, ones_like.
pub fn full_like(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dtype = c.dtype("dtype")?.unwrap_or(c.b.g.dtype(x));
    let dims = c.dims(x);
    let default = if c.op.kind.starts_with("ones") { 1.0 } else { 0.0 };
    let value = c.float_or("Value", "value", default)?;
    let v = filled(c, dtype, scalar_bytes(dtype, value), dims)?;
    c.put("Out", v);
    Ok(())
}

/// fill_any, fill: x's shape, one number.
pub fn fill_any(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let (dtype, dims) = (c.b.g.dtype(x), c.dims(x));
    let name = match dtype.is_float() {
        true => "value|value_float|value_int",
        false => "value|value_int|value_float",
    };
    let value = c.float_or("Value", name, 0.0)?;
    let v = filled(c, dtype, scalar_bytes(dtype, value), dims)?;
    c.put("Out", v);
    Ok(())
}

/// zeros, ones and empty of a shape.
pub fn zeros(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.or(c.declared_dtype("Out")).unwrap_or(Dtype::F32);
    let slots = "ShapeTensor|ShapeTensorList";
    let dims = c.dims_or(slots, "shape", (0, DIM_MAX))?.unwrap_or_default();
    let value = if c.op.kind == "ones" { 1.0 } else { 0.0 };
    let v = filled(c, dtype, scalar_bytes(dtype, value), dims)?;
    c.put("Out", v);
    Ok(())
}

/// fill_constant_batch_size_like: one dim is another tensor's.
pub fn full_batch_size_like(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let shape = c.ints("shape").unwrap_or_default();
    let mut dims: Vec<Dim> = shape.into_iter().map(Dim::from).collect();
    let from = c.axis(c.int("input_dim_idx", 0), c.rank(x))?;
    let to = c.axis(c.int("output_dim_idx", 0), dims.len())?;
    dims[to] = c.dim(x, from)?;
    let one = number(dtype, c.text("str_value", ""), c.float("value", 0.0))?;
    let v = filled(c, dtype, one, dims)?;
    c.put("Out", v);
    Ok(())
}

/// assign_value: the elements are an attribute.
pub fn assign_value(c: &mut Ctx<'_, '_>) -> Res {
    // What the values replace, in place.
    c.ignore("Output");
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let shape = c.ints("shape").unwrap_or_default();
    let lists = "values|fp32_values|fp64_values|int32_values|int64_values|bool_values|int8_values";
    let given = lists.split('|').find(|n| c.ints(n).is_some_and(|l| !l.is_empty()));
    let exact = given.and_then(|n| c.ints(n)).unwrap_or_default();
    let real = given.and_then(|n| c.floats(n));
    let data: Vec<u8> = match (dtype, real) {
        (Dtype::I64, None) => exact.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (_, Some(real)) => real.iter().flat_map(|&x| scalar_bytes(dtype, x)).collect(),
        (_, None) => exact.iter().flat_map(|&x| scalar_bytes(dtype, x as f64)).collect(),
    };
    let count = shape.iter().try_fold(dtype.size() as i64, |n, &d| n.checked_mul(d.max(0)));
    if count != Some(data.len() as i64) {
        return Err(FrontendError::invalid("the values are not as many as the shape says"));
    }
    let v = c.b.constant(dtype, &shape, data.into());
    c.put("Out", v);
    Ok(())
}

/// range, arange.
pub fn arange(c: &mut Ctx<'_, '_>) -> Res {
    let (start, end, step) = (c.tensor("Start")?, c.tensor("End")?, c.tensor("Step")?);
    let dtype = c.dtype("dtype")?.or(c.declared_dtype("Out")).unwrap_or(c.b.g.dtype(start));
    let float = [start, end, step].map(|v| c.const_scalar(v));
    if let [Some(s), Some(e), Some(k)] = float
        && k != 0.0
        && !c.b.g.dtype(start).is_int()
    {
        let n = ((e - s) / k).ceil().clamp(0.0, DIM_MAX as f64) as i64;
        let v = counted(c, dtype, n.into(), s, k)?;
        c.put("Out", v);
        return Ok(());
    }
    let known = c.b.g.content.contains_key(&step) && c.b.g.dtype(start).is_int();
    if !known {
        let v = counted_at_run(c, dtype, [start, end, step])?;
        c.put("Out", v);
        return Ok(());
    }
    let mut dims = vec![];
    for (v, what) in [(start, "start"), (end, "end"), (step, "step")] {
        let d = c.b.dims_of(v, what, -DIM_MAX, DIM_MAX)?;
        let [d] = &d[..] else { return c.refuse("bounds that are not one number") };
        dims.push(d.clone());
    }
    let Some(k) = dims[2].as_const().filter(|&k| k != 0) else {
        return c.refuse("a step that is not known");
    };
    let span = if k > 0 { dims[1].sub(&dims[0]) } else { dims[0].sub(&dims[1]) };
    let n = span.div_ceil(&k.saturating_abs().into());
    let n = if n.bounds(&c.b.g.syms).0 >= 0 { n } else { n.max_of(&0i64.into()) };
    let v = match dims[0].as_const() {
        Some(s) => counted(c, dtype, n, s as f64, k as f64)?,
        None => {
            let v = counted(c, dtype, n, 0.0, k as f64)?;
            let s = c.b.dim_scalar(dims[0].clone());
            let s = c.b.cast(s, dtype)?;
            c.b.add(v, s)?
        }
    };
    c.put("Out", v);
    Ok(())
}

/// Numbers of a range whose bounds and step only a run knows.
fn counted_at_run(c: &mut Ctx<'_, '_>, dtype: Dtype, bounds: [Value; 3]) -> Res<Value> {
    let mut wide = vec![];
    for v in bounds {
        let v = c.b.reshape(v, vec![])?;
        wide.push(c.b.cast(v, Dtype::F64)?);
    }
    let span = c.b.sub(wide[1], wide[0])?;
    let n = c.b.div(span, wide[2])?;
    let n = c.b.un(UnaryOp::Ceil, n)?;
    let n = c.b.bin_scalar(BinaryOp::Max, n, 0.0)?;
    let n = c.b.cast(n, Dtype::I64)?;
    let n = c.b.dims_of(n, "range", 0, DIM_MAX)?.remove(0);
    let i = c.b.prim(Prim::Iota { dtype: Dtype::F64, shape: vec![n], axis: 0 }, &[])?;
    let v = c.b.mul(i, wide[2])?;
    let v = c.b.add(v, wide[0])?;
    Ok(c.b.cast(v, dtype)?)
}

/// `start + i * step` for n numbers.
fn counted(c: &mut Ctx<'_, '_>, dtype: Dtype, n: Dim, start: f64, step: f64) -> Res<Value> {
    let v = c.b.prim(Prim::Iota { dtype, shape: vec![n], axis: 0 }, &[])?;
    let v = if step == 1.0 { v } else { c.b.bin_scalar(BinaryOp::Mul, v, step)? };
    Ok(if start == 0.0 { v } else { c.b.bin_scalar(BinaryOp::Add, v, start)? })
}

/// linspace between constants.
pub fn linspace(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let (s, e) = (c.float_or("Start", "", 0.0)?, c.float_or("Stop", "", 0.0)?);
    let n = c.int_or("Num", "", 1)?;
    if !(1..=1 << 20).contains(&n) {
        return c.refuse(format!("{n} numbers"));
    }
    let step = if n > 1 { (e - s) / (n - 1) as f64 } else { 0.0 };
    // From both ends, so that the last number is exact.
    let at = |i: i64| if 2 * i < n { s + step * i as f64 } else { e - step * (n - 1 - i) as f64 };
    let one = |i| scalar_bytes(dtype, if n == 1 { s } else { at(i) });
    let data: Vec<u8> = (0..n).flat_map(one).collect();
    let v = c.b.constant(dtype, &[n], data.into());
    c.put("Out", v);
    Ok(())
}

/// logspace: powers of a base whose exponents are evenly apart.
pub fn logspace(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let (s, e) = (c.float_or("Start", "", 0.0)?, c.float_or("Stop", "", 0.0)?);
    let (n, base) = (c.int_or("Num", "", 1)?, c.float_or("Base", "", 10.0)?);
    if !(1..=1 << 20).contains(&n) {
        return c.refuse(format!("{n} numbers"));
    }
    let step = if n > 1 { (e - s) / (n - 1) as f64 } else { 0.0 };
    let at = |i: i64| if 2 * i < n { s + step * i as f64 } else { e - step * (n - 1 - i) as f64 };
    let one = |i| scalar_bytes(dtype, base.powf(if n == 1 { s } else { at(i) }));
    let data: Vec<u8> = (0..n).flat_map(one).collect();
    let v = c.b.constant(dtype, &[n], data.into());
    c.put("Out", v);
    Ok(())
}

/// multinomial: indices drawn by their weights, each but once unless replaced.
pub fn multinomial(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let n = c.int_or("NumSamples", "num_samples", 1)?;
    if n < 1 {
        return c.refuse(format!("{n} samples"));
    }
    let (rank, seed) = (c.rank(x), 0x6d75_6c74);
    let last = c.last(x)?;
    // The greatest of log(weight) minus the log of an exponential variate; one column a draw.
    let log = c.b.un(UnaryOp::Log, x)?;
    let again = c.flag("replacement", false);
    let mut shape = c.dims(x);
    if again {
        shape.insert(last, n.into());
    }
    let dist = Distribution::Uniform { lo: 1e-7, hi: 1.0 };
    let dtype = c.b.g.dtype(x);
    let noise = c.b.prim(Prim::Random { dist, dtype, shape, seed }, &[])?;
    let noise = c.b.un(UnaryOp::Log, noise)?;
    let noise = c.b.un(UnaryOp::Neg, noise)?;
    let noise = c.b.un(UnaryOp::Log, noise)?;
    let log = if again { c.b.unsqueeze(log, last)? } else { log };
    let key = c.b.sub(log, noise)?;
    let v = if again {
        let axis = rank as u32;
        c.b.prim(Prim::ArgReduce { max: true, axis, keep: false, last: false }, &[key])?
    } else {
        let p = Prim::TopK { k: n.into(), axis: last as u32, largest: true, sorted: true };
        c.b.prim_n(p, &[key])?[1]
    };
    c.put("Out|out", v);
    Ok(())
}

/// eye.
pub fn eye(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let rows = c.int_or("Rows", "num_rows", 1)?;
    let cols = match c.int_or("Columns", "num_columns", -1)? {
        -1 => rows,
        k => k,
    };
    if rows < 0 || cols < 0 {
        return c.refuse(format!("{rows} rows and {cols} columns"));
    }
    let shape: Vec<Dim> = vec![rows.into(), cols.into()];
    let iota = |axis| Prim::Iota { dtype: Dtype::I64, shape: shape.clone(), axis };
    let (i, j) = (c.b.prim(iota(0), &[])?, c.b.prim(iota(1), &[])?);
    let same = c.b.bin(BinaryOp::Eq, i, j)?;
    let v = c.b.cast(same, dtype)?;
    c.put("Out", v);
    Ok(())
}

/// gaussian_random, uniform_random.
pub fn random(c: &mut Ctx<'_, '_>) -> Res {
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let slots = "ShapeTensor|ShapeTensorList";
    let shape = c.dims_or(slots, "shape", (0, DIM_MAX))?.unwrap_or_default();
    let dist = match c.op.kind.starts_with("gaussian") {
        true => Distribution::Normal { mean: c.float("mean", 0.0), std: c.float("std", 1.0) },
        false => Distribution::Uniform {
            lo: c.float_or("Min", "min", -1.0)?,
            hi: c.float_or("Max", "max", 1.0)?,
        },
    };
    let seed = match c.int("seed", 0) {
        0 => c.b.g.nodes.len() as u64,
        s => s as u64,
    };
    let v = c.b.prim(Prim::Random { dist, dtype, shape, seed }, &[])?;
    c.put("Out", v);
    Ok(())
}

/// one_hot, one_hot_v2: `1` where the class is, on a new last axis.
pub fn one_hot(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X")?;
    let depth = c.int_or("depth_tensor", "depth|num_classes", -1)?;
    if depth < 1 {
        return c.refuse(format!("a depth of {depth}"));
    }
    let dtype = c.dtype("dtype")?.unwrap_or(Dtype::F32);
    let legacy_v1 = c.op.kind == "one_hot" && c.dialect == crate::paddle::program::Dialect::Legacy;
    let rank = c.rank(x);
    if !(legacy_v1 && rank > 0 && c.dim(x, rank - 1)?.is(1)) {
        x = c.b.unsqueeze(x, rank)?;
    }
    let kind = c.b.g.dtype(x);
    let classes = Prim::Iota { dtype: kind, shape: vec![depth.into()], axis: 0 };
    let classes = c.b.prim(classes, &[])?;
    let hit = c.b.bin(BinaryOp::Eq, x, classes)?;
    let v = c.b.cast(hit, dtype)?;
    c.put("Out", v);
    Ok(())
}
