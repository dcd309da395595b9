//! Operators that take apart or put together by index: fold, frame, unpool, and small relatives.

use super::lod::iota;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_abi::prim::ScatterOp;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// `total` zeros per row of `[R, K]` values, summed in (or set) at int64 `[K]` or `[R, K]` places.
fn placed(c: &mut Ctx<'_, '_>, v: Value, place: Value, total: &Dim, op: ScatterOp) -> Res<Value> {
    let d = c.at_least(v, 1)?;
    let zero = c.b.scalar(c.b.g.dtype(v), 0.0);
    let base = c.b.broadcast(zero, vec![d[0].clone(), total.clone()])?;
    let place = c.b.broadcast(place, d)?;
    Ok(c.b.prim(Prim::ScatterElements { axis: 1, op }, &[base, place, v])?)
}

/// fold: columns `[N, C*kh*kw, L]` summed back into an image.
pub fn fold(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let two = |l: Option<Vec<i64>>, d: i64| match l.as_deref() {
        Some([a]) => [*a, *a],
        Some([a, b]) => [*a, *b],
        _ => [d, d],
    };
    let (out, k) = (two(c.ints("output_sizes"), 0), two(c.ints("kernel_sizes"), 1));
    let (stride, dil) = (two(c.ints("strides"), 1), two(c.ints("dilations"), 1));
    let pads = match c.ints("paddings").as_deref() {
        Some([a]) => [*a; 4],
        Some([a, b]) => [*a, *b, *a, *b],
        Some([a, b, d, e]) => [*a, *b, *d, *e],
        _ => [0; 4],
    };
    let d = c.dims(x);
    let small = |v: &[i64]| v.iter().all(|&n| (1..=1 << 12).contains(&n));
    let fits = small(&out) && small(&k) && small(&stride) && small(&dil) && k[0] * k[1] <= 1024;
    if d.len() != 3 || !fits || pads.iter().any(|p| !(0..1 << 12).contains(p)) {
        return c.refuse("an image put together of such sizes");
    }
    let (h, w) = (out[0] + pads[0] + pads[2], out[1] + pads[1] + pads[3]);
    let count = |n: i64, i: usize| (n - (k[i] - 1) * dil[i] - 1) / stride[i] + 1;
    let (rows, columns) = (count(h, 0).max(0), count(w, 1).max(0));
    let mut place = vec![];
    for (i, j) in (0..k[0]).flat_map(|i| (0..k[1]).map(move |j| (i, j))) {
        for (r, s) in (0..rows).flat_map(|r| (0..columns).map(move |s| (r, s))) {
            place.push((r * stride[0] + i * dil[0]) * w + s * stride[1] + j * dil[1]);
        }
    }
    let place = c.b.ints(&place);
    let channels = d[1].div(&(k[0] * k[1]).into());
    let images = d[0].mul(&channels);
    let v = c.b.reshape(x, vec![images.clone(), (k[0] * k[1] * rows * columns).into()])?;
    let v = placed(c, v, place, &(h * w).into(), ScatterOp::Add)?;
    let v = c.b.reshape(v, vec![d[0].clone(), channels, h.into(), w.into()])?;
    let v = c.b.narrow(v, 2, pads[0].into(), out[0].into())?;
    let v = c.b.narrow(v, 3, pads[1].into(), out[1].into())?;
    c.put("Y", v);
    Ok(())
}

/// unpool, unpool3d: values at the places in their plane that indices give.
pub fn unpool(c: &mut Ctx<'_, '_>) -> Res {
    let (x, at) = (c.tensor("X")?, c.tensor("Indices")?);
    let size = c.dims_or("OutputSize", "output_size", (1, crate::options::DIM_MAX))?;
    let d = c.dims(x);
    let Some(size) = size.filter(|s| s.len() + 2 == d.len()) else {
        return c.refuse("an unknown size, or another rank");
    };
    let planes = vec![d[0].mul(&d[1]), Dim::product(&d[2..])];
    let (v, at) = (c.b.reshape(x, planes.clone())?, c.b.reshape(at, planes)?);
    let at = c.b.cast(at, Dtype::I64)?;
    let v = placed(c, v, at, &Dim::product(&size), ScatterOp::Set)?;
    let v = c.b.reshape(v, [&d[..2], &size].concat())?;
    c.put("Out", v);
    Ok(())
}

/// Where the elements of frames lie: `[length, frames]`.
fn frames(c: &mut Ctx<'_, '_>, length: i64, count: &Dim) -> Res<Value> {
    let hop = c.int("hop_length", 1);
    let (i, k) = (iota(c, &length.into())?, iota(c, count)?);
    let start = c.b.bin_scalar(BinaryOp::Mul, k, hop as f64)?;
    let i = c.b.unsqueeze(i, 1)?;
    Ok(c.b.add(i, start)?)
}

/// frame: overlapping pieces of the last axis, `[…, length, frames]`.
pub fn frame(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let (length, hop) = (c.int("frame_length", 1), c.int("hop_length", 1));
    let last = c.last(x)?;
    if axis_of(c.int("axis", -1), c.rank(x))? != last || length < 1 || hop < 1 {
        return c.refuse("frames of an axis other than the last, or of no length");
    }
    let count = c.dim(x, last)?.plus(-length).div(&hop.into()).plus(1);
    let place = frames(c, length, &count)?;
    let v = c.b.prim(Prim::Gather { axis: last as u32 }, &[x, place])?;
    c.put("Out|out", v);
    Ok(())
}

/// overlap_add: frames `[…, length, frames]` summed where they overlap.
pub fn overlap_add(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let d = c.dims(x);
    let hop = c.int("hop_length", 1);
    let n = d.len();
    let known = n.checked_sub(2).and_then(|at| d[at].as_const());
    let Some(length @ 1..) = known.filter(|_| hop >= 1 && c.int("axis", -1) == -1) else {
        return c.refuse("frames of unknown length, or along another axis");
    };
    let place = frames(c, length, &d[n - 1])?;
    let total = d[n - 1].plus(-1).times(hop).plus(length);
    let each = d[n - 1].times(length);
    let lead = Dim::product(&d[..n - 2]);
    let (v, place) = (c.b.reshape(x, vec![lead, each.clone()])?, c.b.reshape(place, vec![each])?);
    let v = placed(c, v, place, &total, ScatterOp::Add)?;
    let v = c.b.reshape(v, [&d[..n - 2], &[total]].concat())?;
    c.put("Out|out", v);
    Ok(())
}

/// index_add: parts of an axis, added at indices.
pub fn index_add(c: &mut Ctx<'_, '_>) -> Res {
    let (x, i, v) = (c.tensor("X|x")?, c.tensor("Index")?, c.tensor("AddValue")?);
    let axis = axis_of(c.int("axis", 0), c.rank(x))?;
    let mut shape = vec![Dim::from(1i64); c.rank(x)];
    shape[axis] = c.b.g.tensor(i).count();
    let i = c.b.cast(i, Dtype::I64)?;
    let i = c.b.reshape(i, shape)?;
    let i = c.b.broadcast(i, c.dims(v))?;
    let p = Prim::ScatterElements { axis: axis as u32, op: ScatterOp::Add };
    let v = c.b.prim(p, &[x, i, v])?;
    c.put("Out|out", v);
    Ok(())
}

/// tril_indices, triu_indices: rows and columns of a triangle, `[2, count]`.
pub fn triangle_indices(c: &mut Ctx<'_, '_>) -> Res {
    let rows = c.int("rows|row", 0);
    let lower = c.op.kind == "tril_indices";
    let columns = c.int("cols|col", rows);
    let offset = c.int("offset", 0);
    if !(0..=1 << 12).contains(&rows) || !(0..=1 << 12).contains(&columns) {
        return c.refuse("a triangle of such a size");
    }
    let all = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
    let inside = |&(i, j): &(i64, i64)| match lower {
        true => j - i <= offset,
        false => j - i >= offset,
    };
    let places: Vec<(i64, i64)> = all.filter(inside).collect();
    let list: Vec<i64> = places.iter().map(|p| p.0).chain(places.iter().map(|p| p.1)).collect();
    let v = c.b.ints(&list);
    let v = c.b.reshape(v, vec![2i64.into(), (places.len() as i64).into()])?;
    let v = c.b.cast(v, c.dtype("dtype")?.unwrap_or(Dtype::I64))?;
    c.put("out|Out", v);
    Ok(())
}

/// isclose, allclose: `|x - y| <= atol + rtol * |y|`.
pub fn is_close(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("Input")?, c.tensor("Other")?);
    let number = |c: &mut Ctx<'_, '_>, slot: &str, name: &str, default: f64| -> Res<f64> {
        match c.text(name, "").parse() {
            Ok(v) => Ok(v),
            Err(_) => c.float_or(slot, name, default),
        }
    };
    let (rtol, atol) = (number(c, "Rtol", "rtol", 1e-5)?, number(c, "Atol", "atol", 1e-8)?);
    let d = c.b.sub(x, y)?;
    let d = c.b.un(UnaryOp::Abs, d)?;
    let most = c.b.un(UnaryOp::Abs, y)?;
    let most = c.b.bin_scalar(BinaryOp::Mul, most, rtol)?;
    let most = c.b.bin_scalar(BinaryOp::Add, most, atol)?;
    let near = c.b.bin(BinaryOp::Le, d, most)?;
    let same = c.b.bin(BinaryOp::Eq, x, y)?;
    let mut v = c.b.bin(BinaryOp::Or, near, same)?;
    if c.flag("equal_nan", false) {
        let (p, q) = (c.b.un(UnaryOp::IsNan, x)?, c.b.un(UnaryOp::IsNan, y)?);
        let both = c.b.bin(BinaryOp::And, p, q)?;
        v = c.b.bin(BinaryOp::Or, v, both)?;
    }
    if c.op.kind == "allclose" {
        let axes: Vec<usize> = (0..c.rank(v)).collect();
        v = c.b.reduce(ReduceOp::And, v, &axes, false)?;
    }
    c.put("Out", v);
    Ok(())
}

/// One of the functions that fused elementwise operators name.
fn one(c: &mut Ctx<'_, '_>, name: &str, v: Value) -> Res<Value> {
    Ok(match name {
        "relu" => c.b.bin_scalar(BinaryOp::Max, v, 0.0)?,
        "sigmoid" => c.b.un(UnaryOp::Sigmoid, v)?,
        "tanh" => c.b.un(UnaryOp::Tanh, v)?,
        "scale" => c.b.bin_scalar(BinaryOp::Mul, v, c.float("scale", 0.0))?,
        other => return c.refuse(format!("the function {other}")),
    })
}

/// fused_elemwise_activation: `f(x + y)` or `x + f(y)`, or with a product.
pub fn fused_elementwise(c: &mut Ctx<'_, '_>) -> Res {
    use crate::paddle::program::Attr;
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let names = match c.attr("functor_list") {
        Some(Attr::Strs(l)) if l.len() == 2 => l.clone(),
        _ => return c.refuse("other than two functions"),
    };
    let binary = |name: &str| match name {
        "elementwise_add" => Some(BinaryOp::Add),
        "elementwise_mul" => Some(BinaryOp::Mul),
        _ => None,
    };
    let v = match (binary(&names[0]), binary(&names[1])) {
        (Some(op), None) => {
            let f = one(c, &names[1], y)?;
            c.b.bin(op, x, f)?
        }
        (None, Some(op)) => {
            let v = c.b.bin(op, x, y)?;
            one(c, &names[0], v)?
        }
        _ => return c.refuse("other than one function of two and one of one"),
    };
    c.put("Out", v);
    Ok(())
}

/// fusion_repeated_fc_relu.
pub fn repeated_fc_relu(c: &mut Ctx<'_, '_>) -> Res {
    let (mut v, ws, bs) = (c.tensor("X")?, c.all("W")?, c.all("Bias")?);
    for (w, bias) in ws.into_iter().zip(bs) {
        v = c.b.matmul(v, w)?;
        v = c.b.add(v, bias)?;
        v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    }
    c.put("Out", v);
    Ok(())
}

/// fusion_squared_mat_sub: `((XY)² - X²Y²) * scalar`.
pub fn squared_mat_sub(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let v = c.b.matmul(x, y)?;
    let v = c.b.mul(v, v)?;
    let (xx, yy) = (c.b.mul(x, x)?, c.b.mul(y, y)?);
    let w = c.b.matmul(xx, yy)?;
    let v = c.b.sub(v, w)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, v, c.float("scalar", 1.0))?;
    c.put("Out", v);
    Ok(())
}
