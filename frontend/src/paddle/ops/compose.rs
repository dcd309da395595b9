//! Operators that a few primitives make: products, norms, choices.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::ops::activation::Activation;
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// elementwise_heaviside: 0, y or 1 by the sign of x.
pub fn heaviside(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let dtype = c.b.g.dtype(x);
    let (zero, one) = (c.b.scalar(dtype, 0.0), c.b.scalar(dtype, 1.0));
    let is_zero = c.b.bin(BinaryOp::Eq, x, zero)?;
    let above = c.b.bin(BinaryOp::Gt, x, zero)?;
    let v = c.b.select(is_zero, y, zero)?;
    let v = c.b.select(above, one, v)?;
    c.put("Out", v);
    Ok(())
}

/// lerp: `x + weight * (y - x)`.
pub fn lerp(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y, w) = (c.tensor("X")?, c.tensor("Y")?, c.tensor("Weight")?);
    let d = c.b.sub(y, x)?;
    let d = c.b.mul(w, d)?;
    let v = c.b.add(x, d)?;
    c.put("Out", v);
    Ok(())
}

/// copysign: the magnitude of x with the sign of y.
pub fn copysign(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let a = c.b.un(UnaryOp::Abs, x)?;
    let minus = c.b.un(UnaryOp::Neg, a)?;
    // Zeros have a sign too: their reciprocals show it.
    let r = c.b.un(UnaryOp::Recip, y)?;
    let (p, q) = (c.b.bin_scalar(BinaryOp::Lt, y, 0.0)?, c.b.bin_scalar(BinaryOp::Lt, r, 0.0)?);
    let below = c.b.bin(BinaryOp::Or, p, q)?;
    let v = c.b.select(below, minus, a)?;
    c.put("Out|out", v);
    Ok(())
}

/// swiglu: `silu(x) * y`; without y, x's halves are both.
pub fn swiglu(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x|X")?;
    let (x, y) = match c.opt("y|Y") {
        Some(y) => (x, y),
        None => {
            let last = c.last(x)?;
            let half = c.dim(x, last)?.div(&2i64.into());
            (
                c.b.narrow(x, last, 0i64.into(), half.clone())?,
                c.b.narrow(x, last, half.clone(), half)?,
            )
        }
    };
    let s = c.b.source(Activation::Swish { beta: 1.0 }, &[x])?;
    let v = c.b.mul(s, y)?;
    c.put("out|Out", v);
    Ok(())
}

/// kron.
pub fn kron(c: &mut Ctx<'_, '_>) -> Res {
    let (mut x, mut y) = (c.tensor("X")?, c.tensor("Y")?);
    while c.rank(x) < c.rank(y) {
        x = c.b.unsqueeze(x, 0)?;
    }
    while c.rank(y) < c.rank(x) {
        y = c.b.unsqueeze(y, 0)?;
    }
    let (dx, dy) = (c.dims(x), c.dims(y));
    let one = Dim::from(1i64);
    let wide = |d: &[Dim], first: bool| -> Vec<Dim> {
        let pair = |d: &Dim| match first {
            true => [d.clone(), one.clone()],
            false => [one.clone(), d.clone()],
        };
        d.iter().flat_map(pair).collect()
    };
    let (x, y) = (c.b.reshape(x, wide(&dx, true))?, c.b.reshape(y, wide(&dy, false))?);
    let v = c.b.mul(x, y)?;
    let shape = dx.iter().zip(&dy).map(|(a, b)| a.mul(b)).collect();
    let v = c.b.reshape(v, shape)?;
    c.put("Out", v);
    Ok(())
}

/// cross: of vectors of three along an axis; 9 means the first axis of three.
pub fn cross(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let dims = c.dims(x);
    let axis = match c.int("dim|axis", 9) {
        9 => dims.iter().position(|d| d.is(3)).unwrap_or(0),
        a => axis_of(a, dims.len())?,
    };
    let part = |c: &mut Ctx<'_, '_>, v: Value, k: usize| {
        c.b.narrow(v, axis, ((k % 3) as i64).into(), 1i64.into())
    };
    let mut parts = vec![];
    for k in 0..3 {
        let (a, b) = (part(c, x, k + 1)?, part(c, y, k + 2)?);
        let (p, q) = (part(c, x, k + 2)?, part(c, y, k + 1)?);
        let (plus, minus) = (c.b.mul(a, b)?, c.b.mul(p, q)?);
        parts.push(c.b.sub(plus, minus)?);
    }
    let v = c.b.concat(&parts, axis)?;
    c.put("Out|out", v);
    Ok(())
}

/// multi_dot: a chain of matrix products.
pub fn multi_dot(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let Some((&first, rest)) = xs.split_first() else { return c.refuse("a product of nothing") };
    let mut v = first;
    for &x in rest {
        v = c.b.matmul(v, x)?;
    }
    c.put("Out", v);
    Ok(())
}

/// bilinear_tensor_product: `x W_k y + bias_k`.
pub fn bilinear(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y, w) = (c.tensor("X")?, c.tensor("Y")?, c.tensor("Weight")?);
    let p = Prim::Contract { a: vec![0, 2], b: vec![1, 2, 3], out: vec![0, 1, 3] };
    let v = c.b.prim(p, &[x, w])?;
    let p = Prim::Contract { a: vec![0, 1, 3], b: vec![0, 3], out: vec![0, 1] };
    let mut v = c.b.prim(p, &[v, y])?;
    if let Some(bias) = c.opt("Bias") {
        v = c.b.add(v, bias)?;
    }
    c.put("Out", v);
    Ok(())
}

/// crop, crop_tensor: a window of x; −1 takes what is left.
pub fn crop(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let offsets = c.dims_or("OffsetsTensor|Offsets", "offsets", (0, DIM_MAX))?;
    let shape = match c.opt("Y") {
        Some(y) => Some(c.dims(y)),
        None => c.dims_or("ShapeTensor|Shape", "shape", (-1, DIM_MAX))?,
    };
    let offsets = offsets.unwrap_or_else(|| vec![0i64.into(); dims.len()]);
    let shape = shape.unwrap_or_else(|| dims.clone());
    if offsets.len() != dims.len() || shape.len() != dims.len() {
        return c.refuse("a window of another rank");
    }
    let mut len = vec![];
    for ((d, o), s) in dims.iter().zip(&offsets).zip(shape) {
        len.push(if s.is(-1) || s.is(0) { d.sub(o) } else { s });
    }
    let v = c.b.prim(Prim::Slice { start: offsets, len, step: vec![1; dims.len()] }, &[x])?;
    c.put("Out", v);
    Ok(())
}

/// broadcast_tensors: all operands in one shape.
pub fn broadcast_tensors(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let rank = xs.iter().map(|&x| c.rank(x)).max().unwrap_or(0);
    let mut shape = vec![Dim::from(1i64); rank];
    for &x in &xs {
        let d = c.dims(x);
        for (k, d) in d.into_iter().rev().enumerate() {
            if !d.is(1) {
                shape[rank - 1 - k] = d;
            }
        }
    }
    let mut outs = vec![];
    for x in xs {
        outs.push(c.b.broadcast(x, shape.clone())?);
    }
    c.put_all("Out", outs);
    Ok(())
}

/// multiplex: row i of the operand that index i names.
pub fn multiplex(c: &mut Ctx<'_, '_>) -> Res {
    let (ids, xs) = (c.tensor("Ids")?, c.all("X")?);
    let mut rows = vec![];
    for x in xs {
        rows.push(c.b.unsqueeze(x, 1)?);
    }
    let all = c.b.concat(&rows, 1)?;
    let ids = c.b.cast(ids, Dtype::I64)?;
    let v = c.b.prim(Prim::GatherNd { batch: 1 }, &[all, ids])?;
    c.put("Out", v);
    Ok(())
}

/// shard_index: ids within a shard, else the value for others.
pub fn shard_index(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let (total, shards) = (c.int("index_num", 1), c.int("nshards", 1));
    if shards < 1 || total < 1 {
        return c.refuse("no shards");
    }
    let each = (total - 1) / shards + 1;
    let shard = c.b.bin_scalar(BinaryOp::Div, x, each as f64)?;
    let own = c.b.bin_scalar(BinaryOp::Eq, shard, c.int("shard_id", 0) as f64)?;
    let place = c.b.bin_scalar(BinaryOp::Mod, x, each as f64)?;
    let other = c.b.scalar(c.b.g.dtype(x), c.int("ignore_value", -1) as f64);
    let v = c.b.select(own, place, other)?;
    c.put("Out", v);
    Ok(())
}

/// is_empty: has it no element?
pub fn is_empty(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let n = c.b.dim_scalar(c.b.g.tensor(x).count());
    let v = c.b.bin_scalar(BinaryOp::Eq, n, 0.0)?;
    c.put("Out", v);
    Ok(())
}

/// frobenius_norm.
pub fn frobenius(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let rank = c.rank(x);
    let axes = c.ints_or("Axis", "dim|axis")?.unwrap_or_default();
    let axes = match axes.is_empty() || c.flag("reduce_all", false) {
        true => (0..rank).collect(),
        false => axes.into_iter().map(|a| axis_of(a, rank)).collect::<Res<Vec<_>>>()?,
    };
    let q = c.b.mul(x, x)?;
    let s = c.b.reduce(ReduceOp::Sum, q, &axes, c.flag("keep_dim|keepdim", false))?;
    let v = c.b.un(UnaryOp::Sqrt, s)?;
    c.put("Out", v);
    Ok(())
}

/// squared_l2_norm, l1_norm: of all elements, the first as one element of rank 1.
pub fn whole_norm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let squared = c.op.kind.starts_with("squared");
    let q = if squared { c.b.mul(x, x)? } else { c.b.un(UnaryOp::Abs, x)? };
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let mut v = c.b.reduce(ReduceOp::Sum, q, &axes, false)?;
    if squared {
        v = c.b.reshape(v, vec![1i64.into()])?;
    }
    c.put("Out", v);
    Ok(())
}

/// clip_by_norm: x scaled down where its length is over a bound.
pub fn clip_by_norm(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let most = c.float("max_norm", 1.0);
    let q = c.b.mul(x, x)?;
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let s = c.b.reduce(ReduceOp::Sum, q, &axes, false)?;
    let n = c.b.un(UnaryOp::Sqrt, s)?;
    let bound = c.b.scalar(c.b.g.dtype(x), most);
    let long = c.b.bin(BinaryOp::Gt, n, bound)?;
    let scale = c.b.div(bound, n)?;
    let one = c.b.scalar(c.b.g.dtype(x), 1.0);
    let scale = c.b.select(long, scale, one)?;
    let v = c.b.mul(x, scale)?;
    c.put("Out", v);
    Ok(())
}

/// The widest tokens whose frequencies are computed.
const MOST_WIDTH: i64 = 1 << 20;

/// add_position_encoding: `alpha * x + beta * (sines, then cosines)`, over `[N, T, D]`.
pub fn position_encoding(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let d = c.dims(x);
    let (3, Some(width @ 2..=MOST_WIDTH)) = (d.len(), d.get(2).and_then(Dim::as_const)) else {
        return c.refuse("such a shape");
    };
    let half = width / 2;
    let frequency = |k: i64| match half {
        1 => 10000f64.recip() as f32,
        _ => 10000f64.powf(-(k as f64) / (half - 1) as f64) as f32,
    };
    let list: Vec<f32> = (0..half).map(frequency).collect();
    let list = c.b.floats(&[1, half], &list);
    let t = Prim::Iota { dtype: Dtype::F32, shape: vec![d[1].clone(), 1i64.into()], axis: 0 };
    let t = c.b.prim(t, &[])?;
    let angle = c.b.mul(t, list)?;
    let (s, k) = (c.b.un(UnaryOp::Sin, angle)?, c.b.un(UnaryOp::Cos, angle)?);
    let code = c.b.concat(&[s, k], 1)?;
    let code = c.b.cast(code, c.b.g.dtype(x))?;
    let code = c.b.bin_scalar(BinaryOp::Mul, code, c.float("beta", 1.0))?;
    let v = c.b.bin_scalar(BinaryOp::Mul, x, c.float("alpha", 1.0))?;
    let v = c.b.add(v, code)?;
    c.put("Out", v);
    Ok(())
}

/// cos_sim: rows' products over their lengths, `[N, 1]`.
pub fn cosine(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let axes: Vec<usize> = (1..c.rank(x)).collect();
    let column = |c: &mut Ctx<'_, '_>, a: Value, b: Value| -> Res<Value> {
        let v = c.b.mul(a, b)?;
        let v = c.b.reduce(ReduceOp::Sum, v, &axes, false)?;
        Ok(c.b.unsqueeze(v, 1)?)
    };
    let (p, q, v) = (column(c, x, x)?, column(c, y, y)?, column(c, x, y)?);
    let (p, q) = (c.b.un(UnaryOp::Sqrt, p)?, c.b.un(UnaryOp::Sqrt, q)?);
    let v = c.b.div(v, p)?;
    let v = c.b.div(v, q)?;
    c.put("XNorm", p);
    c.put("YNorm", q);
    c.put("Out", v);
    Ok(())
}
