//! Diagonals: taken, made, filled.

use super::lod::{at, iota, within};
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Prim, ReduceOp, Value};

/// How far from the main diagonal.
fn offset(c: &Ctx<'_, '_>) -> Res<i64> {
    let most = crate::options::DIM_MAX;
    match c.int("offset", 0) {
        n if (-most..=most).contains(&n) => Ok(n),
        n => Err(crate::FrontendError::invalid(format!("a diagonal {n} from the main one"))),
    }
}

/// Where row and column of the last two axes differ by `offset`, bool `[rows, columns]`.
fn on_diagonal(c: &mut Ctx<'_, '_>, rows: &Dim, columns: &Dim, offset: i64) -> Res<Value> {
    let (i, j) = (iota(c, rows)?, iota(c, columns)?);
    let i = c.b.unsqueeze(i, 1)?;
    let j = c.b.bin_scalar(BinaryOp::Sub, j, offset as f64)?;
    Ok(c.b.bin(BinaryOp::Eq, i, j)?)
}

/// diag_v2: a matrix from a vector, or a vector from a matrix.
pub fn diag(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let offset = offset(c)?;
    if c.rank(x) == 2 {
        let v = diagonal_of(c, x, 0, 1, offset)?;
        c.put("Out|out", v);
        return Ok(());
    }
    let n = c.b.g.tensor(x).count();
    let size = n.plus(offset.abs());
    let on = on_diagonal(c, &size, &size, offset)?;
    // The vector along the columns (or rows) that the diagonal starts from.
    let place = iota(c, &size)?;
    let place = c.b.bin_scalar(BinaryOp::Sub, place, offset.max(0) as f64)?;
    let place = within(c, place, &n)?;
    let row = at(c, x, place)?;
    let pad = c.b.scalar(c.b.g.dtype(x), c.float("padding_value", 0.0));
    let v = c.b.select(on, row, pad)?;
    c.put("Out|out", v);
    Ok(())
}

/// A tensor with two axes moved to its end, and the permutation that did it.
fn axes_last(c: &mut Ctx<'_, '_>, x: Value, a: i64, b: i64) -> Res<(Value, Vec<usize>)> {
    let rank = c.rank(x);
    let (a, b) = (axis_of(a, rank)?, axis_of(b, rank)?);
    if a == b {
        return c.refuse("the diagonal of one axis");
    }
    let rest: Vec<usize> = (0..rank).filter(|&i| i != a && i != b).collect();
    let perm = [&rest[..], &[a, b]].concat();
    Ok((c.b.transpose(x, &perm)?, perm))
}

/// The diagonal of two axes, as the last axis.
fn diagonal_of(c: &mut Ctx<'_, '_>, x: Value, a: i64, b: i64, offset: i64) -> Res<Value> {
    let rank = c.rank(x);
    let (v, _) = axes_last(c, x, a, b)?;
    let d = c.dims(v);
    let (rows, columns) = (d[rank - 2].clone(), d[rank - 1].clone());
    let (up, down) = (offset.max(0), (-offset).max(0));
    let len = rows.plus(-down).min_of(&columns.plus(-up)).max_of(&0i64.into());
    let flat = [&d[..rank - 2], &[rows.mul(&columns)]].concat();
    let v = c.b.reshape(v, flat)?;
    let place = iota(c, &len)?;
    let step = c.b.dim_scalar(columns.plus(1));
    let place = c.b.mul(place, step)?;
    let first = c.b.dim_scalar(columns.times(down).plus(up));
    let place = c.b.add(place, first)?;
    Ok(c.b.prim(Prim::Gather { axis: rank as u32 - 2 }, &[v, place])?)
}

/// diagonal.
pub fn diagonal(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|x")?;
    let (a, b) = (c.int("axis1", 0), c.int("axis2", 1));
    let offset = offset(c)?;
    let v = diagonal_of(c, x, a, b, offset)?;
    c.put("Out|out", v);
    Ok(())
}

/// trace.
pub fn trace(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|x")?;
    let (a, b) = (c.int("axis1", 0), c.int("axis2", 1));
    let offset = offset(c)?;
    let v = diagonal_of(c, x, a, b, offset)?;
    let last = c.last(v)?;
    let v = c.b.reduce(ReduceOp::Sum, v, &[last], false)?;
    c.put("Out|out", v);
    Ok(())
}

/// diag_embed: the last axis as the diagonal of two new ones.
pub fn diag_embed(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input")?;
    let rank = c.rank(x) + 1;
    let offset = offset(c)?;
    let (a, b) = (axis_of(c.int("dim1", -2), rank)?, axis_of(c.int("dim2", -1), rank)?);
    let n = c.dim(x, rank - 2)?;
    let size = n.plus(offset.abs());
    let on = on_diagonal(c, &size, &size, offset)?;
    let place = iota(c, &size)?;
    let place = c.b.bin_scalar(BinaryOp::Sub, place, offset.max(0) as f64)?;
    let place = within(c, place, &n)?;
    let row = c.b.prim(Prim::Gather { axis: rank as u32 - 2 }, &[x, place])?;
    let row = c.b.unsqueeze(row, rank - 2)?;
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let v = c.b.select(on, row, zero)?;
    // Its two last axes go where they are asked for.
    let mut perm = vec![0; rank];
    let mut rest = 0..rank - 2;
    for (i, p) in perm.iter_mut().enumerate() {
        *p = match i {
            _ if i == a => rank - 2,
            _ if i == b => rank - 1,
            _ => rest.next().unwrap_or(0),
        };
    }
    let v = c.b.transpose(v, &perm)?;
    c.put("Out", v);
    Ok(())
}

/// fill_diagonal: one number on the diagonal of all axes. Unless it wraps it ends with the first
/// `width * width` elements (Paddle has this bound for more than two axes too).
pub fn fill_diagonal(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let dims = c.dims(x);
    let [_, width, ..] = &dims[..] else { return c.refuse("fewer than two axes") };
    let offset = offset(c)?;
    let total = Dim::product(&dims);
    // Elements of the diagonal are this far apart.
    let stride = (1..dims.len())
        .map(|i| Dim::product(&dims[i..]))
        .fold(Dim::from(1i64), |sum, d| sum.add(&d));
    let last = match c.flag("wrap", false) {
        false => total.min_of(&width.mul(width)),
        true => total.clone(),
    };
    let place = iota(c, &total)?;
    let from = c.b.bin_scalar(BinaryOp::Sub, place, offset as f64)?;
    let (stride, width, last) =
        (c.b.dim_scalar(stride), c.b.dim_scalar(width.clone()), c.b.dim_scalar(last));
    let step = c.b.bin(BinaryOp::Mod, from, stride)?;
    let column = c.b.bin(BinaryOp::Mod, from, width)?;
    let column = c.b.bin_scalar(BinaryOp::Add, column, offset as f64)?;
    let tests = [
        c.b.bin_scalar(BinaryOp::Eq, step, 0.0)?,
        c.b.bin_scalar(BinaryOp::Ge, from, 0.0)?,
        c.b.bin(BinaryOp::Lt, from, last)?,
        c.b.bin_scalar(BinaryOp::Ge, column, 0.0)?,
        c.b.bin(BinaryOp::Lt, column, width)?,
    ];
    let mut on = tests[0];
    for t in &tests[1..] {
        on = c.b.bin(BinaryOp::And, on, *t)?;
    }
    let on = c.b.reshape(on, dims)?;
    let value = c.b.scalar(c.b.g.dtype(x), c.float("value", 0.0));
    let v = c.b.select(on, value, x)?;
    c.put("Out|out", v);
    Ok(())
}

/// fill_diagonal_tensor: the last axis of y on the diagonal of two axes.
pub fn fill_diagonal_tensor(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let rank = c.rank(x);
    let (v, perm) = axes_last(c, x, c.int("dim1", 0), c.int("dim2", 1))?;
    let d = c.dims(v);
    let (rows, columns) = (&d[rank - 2], &d[rank - 1]);
    let offset = offset(c)?;
    let on = on_diagonal(c, rows, columns, offset)?;
    let y = match c.rank(y) + 1 {
        r if r == rank => y,
        _ => c.b.reshape(y, [&d[..rank - 2], &[c.b.g.tensor(y).count()]].concat())?,
    };
    let len = c.dim(y, rank - 2)?;
    let place = iota(c, columns)?;
    let place = c.b.bin_scalar(BinaryOp::Sub, place, offset.max(0) as f64)?;
    let place = within(c, place, &len)?;
    let row = c.b.prim(Prim::Gather { axis: rank as u32 - 2 }, &[y, place])?;
    let row = c.b.unsqueeze(row, rank - 2)?;
    let v = c.b.select(on, row, v)?;
    let mut back = vec![0; rank];
    for (i, &p) in perm.iter().enumerate() {
        back[p] = i;
    }
    let v = c.b.transpose(v, &back)?;
    c.put("Out|out", v);
    Ok(())
}
