//! Linear algebra: factors, and systems of equations.

use super::lod::{iota, scan};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::linalg::{Det, Inverse};
use hub_ir::{BinaryOp, Dim, ReduceOp, UnaryOp, Value};

/// The number of rows of `[…, n, n]`.
fn square(c: &Ctx<'_, '_>, x: Value) -> Res<Dim> {
    match c.dims(x).last() {
        Some(n) if c.rank(x) >= 2 => Ok(n.clone()),
        _ => c.refuse("no matrix"),
    }
}

/// determinant, det.
pub fn det(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|x")?;
    let v = c.b.source(Det {}, &[x])?;
    c.put("Out|out", v);
    Ok(())
}

/// slogdeterminant, slogdet: a determinant's sign and its magnitude's logarithm, one above the
/// other; as two results: slogdet_v2.
pub fn log_det(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|x")?;
    let d = c.b.source(Det {}, &[x])?;
    let (sign, a) = (c.b.un(UnaryOp::Sign, d)?, c.b.un(UnaryOp::Abs, d)?);
    let l = c.b.un(UnaryOp::Log, a)?;
    if c.op.kind == "slogdet_v2" {
        c.put("sign", sign);
        c.put("logdet", l);
        return Ok(());
    }
    let (sign, l) = (c.b.unsqueeze(sign, 0)?, c.b.unsqueeze(l, 0)?);
    let v = c.b.concat(&[sign, l], 0)?;
    c.put("Out|out", v);
    Ok(())
}

/// inverse.
pub fn inverse(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("Input|x|X")?;
    let v = c.b.source(Inverse {}, &[x])?;
    c.put("Output|out|Out", v);
    Ok(())
}

/// The last two axes exchanged.
fn swapped(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let rank = c.rank(x);
    if rank < 2 {
        return Err(crate::FrontendError::invalid("an operand that is no matrix"));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 1, rank - 2);
    Ok(c.b.transpose(x, &perm)?)
}

/// cholesky: `L Lᵀ`, column by column, each taken off what is left.
pub fn cholesky(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let n = square(c, x)?;
    let (rank, dims) = (c.rank(x), c.dims(x));
    let dtype = c.b.g.dtype(x);
    let zero = c.b.scalar(dtype, 0.0);
    let start = c.b.broadcast(zero, dims)?;
    let place = iota(c, &n)?;
    let outs = scan(c, &[x, start], &[place], false, &mut |c, carried, row| {
        let (rest, l) = (carried[0], carried[1]);
        let here = c.b.bin(BinaryOp::Eq, place, row[0])?;
        // The column as [.., n], nothing above the diagonal.
        let own = c.b.select(here, rest, zero)?;
        let column = c.b.reduce(ReduceOp::Sum, own, &[rank - 1], false)?;
        let below = c.b.bin(BinaryOp::Ge, place, row[0])?;
        let column = c.b.select(below, column, zero)?;
        let pivot = c.b.select(here, column, zero)?;
        let pivot = c.b.reduce(ReduceOp::Sum, pivot, &[rank - 2], true)?;
        let root = c.b.un(UnaryOp::Sqrt, pivot)?;
        let column = c.b.div(column, root)?;
        let (down, across) = (c.b.unsqueeze(column, rank - 1)?, c.b.unsqueeze(column, rank - 2)?);
        let off = c.b.mul(down, across)?;
        let rest = c.b.sub(rest, off)?;
        let l = c.b.select(here, down, l)?;
        Ok((vec![rest, l], vec![]))
    })?;
    let v = if c.flag("upper", false) { swapped(c, outs[1])? } else { outs[1] };
    c.put("Out|out", v);
    Ok(())
}

/// Both with the same leading axes.
fn beside(c: &mut Ctx<'_, '_>, a: Value, b: Value) -> Res<(Value, Value)> {
    let (da, db) = (c.dims(a), c.dims(b));
    let rank = da.len().max(db.len());
    if da.len().min(db.len()) < 2 {
        return Err(crate::FrontendError::invalid("operands that are no matrices"));
    }
    let lead = |d: &[Dim], i: usize| {
        let at = (i + d.len()).checked_sub(rank)?;
        d.get(at).filter(|d| !d.is(1)).cloned()
    };
    let mut shape = vec![];
    for i in 0..rank.saturating_sub(2) {
        shape.push(lead(&da, i).or(lead(&db, i)).unwrap_or(1i64.into()));
    }
    let a = c.b.broadcast(a, [&shape[..], &da[da.len() - 2..]].concat())?;
    let b = c.b.broadcast(b, [&shape[..], &db[db.len() - 2..]].concat())?;
    Ok((a, b))
}

/// X of `A X = B`, A having zeros above (or below) its diagonal: row by row.
fn substituted(c: &mut Ctx<'_, '_>, a: Value, b: Value, upper: bool, unit: bool) -> Res<Value> {
    let (a, b) = beside(c, a, b)?;
    let n = square(c, a)?;
    let (rank, dims) = (c.rank(a), c.dims(b));
    let zero = c.b.scalar(c.b.g.dtype(a), 0.0);
    let start = c.b.broadcast(zero, dims)?;
    let place = iota(c, &n)?;
    let place = c.b.unsqueeze(place, 1)?;
    let steps = iota(c, &n)?;
    let outs = scan(c, &[start], &[steps], upper, &mut |c, carried, row| {
        let here = c.b.bin(BinaryOp::Eq, place, row[0])?;
        let pick = |c: &mut Ctx<'_, '_>, m: Value| -> Res<Value> {
            let own = c.b.select(here, m, zero)?;
            Ok(c.b.reduce(ReduceOp::Sum, own, &[rank - 2], true)?)
        };
        let (left, right) = (pick(c, a)?, pick(c, b)?);
        // Rows that are not known yet are zero.
        let known = c.b.matmul(left, carried[0])?;
        let mut v = c.b.sub(right, known)?;
        if !unit {
            let across = c.b.reshape(here, vec![1i64.into(), n.clone()])?;
            let pivot = c.b.select(across, left, zero)?;
            let pivot = c.b.reduce(ReduceOp::Sum, pivot, &[rank - 1], true)?;
            v = c.b.div(v, pivot)?;
        }
        Ok((vec![c.b.select(here, v, carried[0])?], vec![]))
    })?;
    Ok(outs[0])
}

/// triangular_solve: X of `A X = B`; only A's triangle is read.
pub fn triangular_solve(c: &mut Ctx<'_, '_>) -> Res {
    let (a, b) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let n = square(c, a)?;
    let upper = c.flag("upper", true);
    let (i, j) = (iota(c, &n)?, iota(c, &n)?);
    let i = c.b.unsqueeze(i, 1)?;
    let keep = c.b.bin(if upper { BinaryOp::Ge } else { BinaryOp::Le }, j, i)?;
    let zero = c.b.scalar(c.b.g.dtype(a), 0.0);
    let a = c.b.select(keep, a, zero)?;
    let v = match c.flag("transpose", false) {
        true => {
            let t = swapped(c, a)?;
            substituted(c, t, b, !upper, c.flag("unitriangular", false))?
        }
        false => substituted(c, a, b, upper, c.flag("unitriangular", false))?,
    };
    c.put("Out|out", v);
    Ok(())
}

/// cholesky_solve: X of `L Lᵀ X = B`, or with `Uᵀ U`.
pub fn cholesky_solve(c: &mut Ctx<'_, '_>) -> Res {
    let (b, l) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let t = swapped(c, l)?;
    let (l, t) = if c.flag("upper", false) { (t, l) } else { (l, t) };
    let v = substituted(c, l, b, false, false)?;
    let v = substituted(c, t, v, true, false)?;
    c.put("Out|out", v);
    Ok(())
}

/// solve: X of `A X = B`, by A's inverse and one step that takes its error off.
pub fn solve(c: &mut Ctx<'_, '_>) -> Res {
    let (a, mut b) = (c.tensor("X|x")?, c.tensor("Y|y")?);
    let rank = c.rank(a);
    let vector = c.rank(b) + 1 == rank && c.dims(b) == c.dims(a)[..rank - 1];
    let vector = vector || c.rank(b) == 1;
    if vector {
        let last = c.rank(b);
        b = c.b.unsqueeze(b, last)?;
    }
    let inverse = c.b.source(Inverse {}, &[a])?;
    let v = c.b.matmul(inverse, b)?;
    let back = c.b.matmul(a, v)?;
    let off = c.b.sub(b, back)?;
    let more = c.b.matmul(inverse, off)?;
    let v = c.b.add(v, more)?;
    let v = match vector {
        true => c.b.squeeze(v, c.last(v)?)?,
        false => v,
    };
    c.put("Out|out", v);
    Ok(())
}

/// matrix_power.
pub fn power(c: &mut Ctx<'_, '_>) -> Res {
    let mut x = c.tensor("X|x")?;
    let n = c.int("n", 1);
    if !(-64..=64).contains(&n) {
        return c.refuse(format!("the power {n} of a matrix"));
    }
    if n < 0 {
        x = c.b.source(Inverse {}, &[x])?;
    }
    let mut v = x;
    if n == 0 {
        let d = c.dims(x);
        let size = square(c, x)?;
        let (i, j) = (iota(c, &size)?, iota(c, &size)?);
        let i = c.b.unsqueeze(i, 1)?;
        let unit = c.b.bin(BinaryOp::Eq, i, j)?;
        let unit = c.b.cast(unit, c.b.g.dtype(x))?;
        v = c.b.broadcast(unit, d)?;
    }
    for _ in 1..n.abs() {
        v = c.b.matmul(v, x)?;
    }
    c.put("Out|out", v);
    Ok(())
}

/// baddbmm: `beta * input + alpha * x y`.
pub fn batch_add_mul(c: &mut Ctx<'_, '_>) -> Res {
    let [input, x, y] = ["Input|input", "X|x", "Y|y"].map(|s| c.tensor(s));
    let (input, v) = (input?, c.b.matmul(x?, y?)?);
    let (alpha, beta) = (c.float("alpha|Alpha", 1.0), c.float("beta|Beta", 1.0));
    let v = c.b.bin_scalar(BinaryOp::Mul, v, alpha)?;
    let input = c.b.bin_scalar(BinaryOp::Mul, input, beta)?;
    let v = c.b.add(input, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// batch_fc: a linear layer a slot, `[S, N, I] [S, I, O] + [S, O]`.
pub fn batch_linear(c: &mut Ctx<'_, '_>) -> Res {
    let [x, w, bias] = ["Input", "W", "Bias"].map(|s| c.tensor(s));
    let v = c.b.matmul(x?, w?)?;
    let bias = c.b.unsqueeze(bias?, 1)?;
    let v = c.b.add(v, bias)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    c.put("Out", v);
    Ok(())
}
