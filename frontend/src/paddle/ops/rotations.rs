//! Eigenvalues and singular values by Jacobi's rotations, in rounds of pairs that do not touch each
//! other, so that a round is one product; ranks and least squares from them. All compute in f64.
//! Signs of vectors are free.

use super::factors::{Matrix, down, kept, picked, reflections, triangle, turned, unit};
use super::lod::{iota, scan};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// Sweeps of rotations; five to nine are enough where sizes are at most [`MOST_ROTATED`].
const SWEEPS: i64 = 12;
/// Greatest size of a matrix that is rotated.
const MOST_ROTATED: i64 = 128;

/// Who is paired with whom in each round `[rounds, n]`; in a sweep each pair meets once.
fn pairs(c: &mut Ctx<'_, '_>, n: &Dim) -> Res<Value> {
    let Some(n) = n.as_const().filter(|n| (1..=MOST_ROTATED).contains(n)) else {
        return c.refuse(format!("vectors of a matrix of size {n}"));
    };
    let seats = (n + 1) / 2 * 2;
    let turns = seats - 1;
    let mut table = vec![];
    for round in 0..turns * SWEEPS {
        let r = round % turns;
        for i in 0..n {
            // The last seat stays; of the others those are paired whose numbers add up to 2r.
            let other = match i {
                _ if i == turns => r,
                _ if i == r => turns,
                _ => (2 * r - i).rem_euclid(turns),
            };
            table.push(if other < n { other } else { i });
        }
    }
    let v = c.b.ints(&table);
    Ok(c.b.reshape(v, vec![Dim::from(turns * SWEEPS), n.into()])?)
}

/// Rotations `[batch, n, n]` that clear a symmetric g where row and column are paired.
fn rotation(c: &mut Ctx<'_, '_>, g: Value, partner: Value) -> Res<Value> {
    let n = c.dim(g, 2)?;
    let (rows, cols) = (down(c, &n)?, iota(c, &n)?);
    let same = c.b.bin(BinaryOp::Eq, rows, cols)?;
    let mate = c.b.unsqueeze(partner, 1)?;
    let paired = c.b.bin(BinaryOp::Eq, cols, mate)?;
    let own = picked(c, same, g, 2, false)?;
    let other = c.b.prim(Prim::Gather { axis: 1 }, &[own, partner])?;
    let off = picked(c, paired, g, 2, false)?;
    let alone = c.b.bin(BinaryOp::Eq, partner, cols)?;
    let clear = c.b.bin_scalar(BinaryOp::Eq, off, 0.0)?;
    let idle = c.b.bin(BinaryOp::Or, alone, clear)?;
    let one = c.b.scalar(Dtype::F64, 1.0);
    let twice = c.b.bin_scalar(BinaryOp::Mul, off, 2.0)?;
    let twice = c.b.select(idle, one, twice)?;
    let tau = c.b.sub(other, own)?;
    let tau = c.b.div(tau, twice)?;
    // t of t² + 2 tau t = 1 that is nearer to 0; the two of a pair turn opposite ways.
    let minus = c.b.scalar(Dtype::F64, -1.0);
    let first = c.b.bin(BinaryOp::Lt, cols, partner)?;
    let side = c.b.select(first, one, minus)?;
    let sign = c.b.un(UnaryOp::Sign, tau)?;
    let even = c.b.bin_scalar(BinaryOp::Eq, tau, 0.0)?;
    let sign = c.b.select(even, side, sign)?;
    let root = c.b.mul(tau, tau)?;
    let root = c.b.add(root, one)?;
    let root = c.b.un(UnaryOp::Sqrt, root)?;
    let size = c.b.un(UnaryOp::Abs, tau)?;
    let size = c.b.add(size, root)?;
    let t = c.b.div(sign, size)?;
    let busy = c.b.un(UnaryOp::Not, idle)?;
    let t = kept(c, busy, t)?;
    let cos = c.b.mul(t, t)?;
    let cos = c.b.add(cos, one)?;
    let cos = c.b.un(UnaryOp::Rsqrt, cos)?;
    let sin = c.b.mul(t, cos)?;
    let (cos, sin) = (c.b.unsqueeze(cos, 2)?, c.b.unsqueeze(sin, 2)?);
    let sin = kept(c, paired, sin)?;
    Ok(c.b.select(same, cos, sin)?)
}

/// Columns of `[batch, m, n]` in the order `[batch, n]`.
fn ordered(c: &mut Ctx<'_, '_>, x: Value, order: Value) -> Res<Value> {
    let at = c.b.unsqueeze(order, 1)?;
    let at = c.b.broadcast(at, c.dims(x))?;
    Ok(c.b.prim(Prim::GatherElements { axis: 2 }, &[x, at])?)
}

/// Eigenvalues `[batch, n]` of symmetric matrices, the least first, and their vectors as columns.
fn eigen(c: &mut Ctx<'_, '_>, a: Value) -> Res<[Value; 2]> {
    let d = c.at_least(a, 3)?;
    let n = d[2].clone();
    let partners = pairs(c, &n)?;
    let v = unit(c, &d[0], &n)?;
    let outs = scan(c, &[a, v], &[partners], false, &mut |c, carried, step| {
        let j = rotation(c, carried[0], step[0])?;
        let back = turned(c, j)?;
        let a = c.b.matmul(carried[0], j)?;
        let a = c.b.matmul(back, a)?;
        Ok((vec![a, c.b.matmul(carried[1], j)?], vec![]))
    })?;
    let (rows, cols) = (down(c, &n)?, iota(c, &n)?);
    let same = c.b.bin(BinaryOp::Eq, rows, cols)?;
    let w = picked(c, same, outs[0], 2, false)?;
    let p = Prim::TopK { k: n, axis: 1, largest: false, sorted: true };
    let sorted = c.b.prim_n(p, &[w])?;
    Ok([sorted[0], ordered(c, outs[1], sorted[1])?])
}

/// The symmetric matrix of which one triangle is given.
fn symmetric(c: &mut Ctx<'_, '_>, a: Value, lower: bool) -> Res<Value> {
    let (with, without) =
        if lower { (BinaryOp::Le, BinaryOp::Lt) } else { (BinaryOp::Ge, BinaryOp::Gt) };
    let (half, rest) = (triangle(c, a, with)?, triangle(c, a, without)?);
    let rest = turned(c, rest)?;
    Ok(c.b.add(half, rest)?)
}

/// eigh, eigvalsh.
pub fn eigh(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let lower = c.text("UPLO|uplo", "L") == "L";
    let v = symmetric(c, a.v, lower)?;
    let [w, v] = eigen(c, v)?;
    a.put(c, "Eigenvalues|eigenvalues|out_w", w, &[&a.n])?;
    a.put(c, "Eigenvectors|eigenvectors|out_v", v, &[&a.n, &a.n])
}

/// U `[batch, m, m]`, singular values `[batch, k]` with the greatest first, V `[batch, n, n]`.
fn singular(c: &mut Ctx<'_, '_>, a: Value) -> Res<[Value; 3]> {
    let d = c.at_least(a, 3)?;
    let (Some(m), Some(n)) = (d[1].as_const(), d[2].as_const()) else {
        return c.refuse("singular values of a matrix of unknown size");
    };
    if m < n {
        let a = turned(c, a)?;
        let [u, s, v] = singular(c, a)?;
        return Ok([v, s, u]);
    }
    let partners = pairs(c, &d[2])?;
    let v = unit(c, &d[0], &d[2])?;
    let outs = scan(c, &[a, v], &[partners], false, &mut |c, carried, step| {
        let back = turned(c, carried[0])?;
        let g = c.b.matmul(back, carried[0])?;
        let j = rotation(c, g, step[0])?;
        Ok((vec![c.b.matmul(carried[0], j)?, c.b.matmul(carried[1], j)?], vec![]))
    })?;
    let s = c.b.mul(outs[0], outs[0])?;
    let s = c.b.reduce(ReduceOp::Sum, s, &[1], false)?;
    let s = c.b.un(UnaryOp::Sqrt, s)?;
    let p = Prim::TopK { k: n.into(), axis: 1, largest: true, sorted: true };
    let sorted = c.b.prim_n(p, &[s])?;
    let (s, u, v) = (sorted[0], ordered(c, outs[0], sorted[1])?, ordered(c, outs[1], sorted[1])?);
    // Columns without length, and those beyond, are what completes the others.
    let most = c.b.narrow(s, 1, 0i64.into(), 1i64.into())?;
    let least = c.b.bin_scalar(BinaryOp::Mul, most, 1e-14)?;
    let sound = c.b.bin(BinaryOp::Gt, s, least)?;
    let one = c.b.scalar(Dtype::F64, 1.0);
    let length = c.b.select(sound, s, one)?;
    let (sound, length) = (c.b.unsqueeze(sound, 1)?, c.b.unsqueeze(length, 1)?);
    let own = c.b.div(u, length)?;
    let own = kept(c, sound, own)?;
    let [q, _] = reflections(c, own)?;
    let head = c.b.narrow(q, 2, 0i64.into(), n.into())?;
    let mut u = c.b.select(sound, own, head)?;
    if m > n {
        let rest = c.b.narrow(q, 2, n.into(), (m - n).into())?;
        u = c.b.concat(&[u, rest], 2)?;
    }
    Ok([u, s, v])
}

/// svd, svdvals.
pub fn svd(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let k = a.m.min_of(&a.n);
    let [u, s, v] = singular(c, a.v)?;
    a.put(c, "S|s", s, &[&k])?;
    if c.op.kind == "svdvals" {
        return Ok(());
    }
    let v = turned(c, v)?;
    if c.flag("full_matrices", false) {
        a.put(c, "U|u", u, &[&a.m, &a.m])?;
        return a.put(c, "VH|vh", v, &[&a.n, &a.n]);
    }
    let u = c.b.narrow(u, 2, 0i64.into(), k.clone())?;
    let v = c.b.narrow(v, 1, 0i64.into(), k.clone())?;
    a.put(c, "U|u", u, &[&a.m, &k])?;
    a.put(c, "VH|vh", v, &[&k, &a.n])
}

/// matrix_rank, matrix_rank_tol, matrix_rank_atol_rtol: how many singular values are above a limit.
pub fn rank(c: &mut Ctx<'_, '_>) -> Res {
    let a = Matrix::get(c, "X|x")?;
    let s = if c.flag("hermitian", false) {
        let v = symmetric(c, a.v, true)?;
        let [w, _] = eigen(c, v)?;
        c.b.un(UnaryOp::Abs, w)?
    } else {
        singular(c, a.v)?[1]
    };
    let k = c.dim(s, 1)?;
    let s = c.b.reshape(s, [&a.lead[..], &[k]].concat())?;
    let last = a.lead.len();
    let most = c.b.reduce(ReduceOp::Max, s, &[last], true)?;
    let size = match (a.m.as_const(), a.n.as_const()) {
        (Some(m), Some(n)) => m.max(n) as f64,
        _ => return c.refuse("the rank of a matrix of unknown size"),
    };
    let eps = if a.dtype == Dtype::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let own = c.b.bin_scalar(BinaryOp::Mul, most, eps * size)?;
    let limit = match tolerances(c)? {
        [Some(t), Some(r)] => {
            let r = c.b.mul(r, most)?;
            c.b.max(t, r)?
        }
        [Some(t), None] if c.op.kind == "matrix_rank_atol_rtol" => {
            // A limit of its own leaves out the relative one.
            let some = c.b.bin_scalar(BinaryOp::Gt, t, 0.0)?;
            c.b.select(some, t, own)?
        }
        [Some(t), None] if c.flag("use_default_tol", true) => c.b.max(t, own)?,
        [Some(t), None] => t,
        [None, _] if c.flag("use_default_tol", true) => own,
        [None, _] => c.b.scalar(Dtype::F64, c.float("tol", 0.0)),
    };
    let above = c.b.bin(BinaryOp::Gt, s, limit)?;
    let above = c.b.cast(above, Dtype::I64)?;
    let last = c.rank(above) - 1;
    let v = c.b.reduce(ReduceOp::Sum, above, &[last], false)?;
    c.put("Out|out", v);
    Ok(())
}

/// Limits that are operands, absolute and relative, with an axis for the singular values.
fn tolerances(c: &mut Ctx<'_, '_>) -> Res<[Option<Value>; 2]> {
    let mut given = [c.opt("TolTensor|atol"), c.opt("rtol")];
    for v in given.iter_mut().flatten() {
        *v = c.b.cast(*v, Dtype::F64)?;
        let rank = c.rank(*v);
        *v = c.b.unsqueeze(*v, rank)?;
    }
    Ok(given)
}

/// lstsq: the X of least length that minimises `|A X - B|`, by singular values.
pub fn least_squares(c: &mut Ctx<'_, '_>) -> Res {
    let (a, b) = (Matrix::get(c, "X|x")?, Matrix::get(c, "Y|y")?);
    let k = a.m.min_of(&a.n);
    let [u, s, v] = singular(c, a.v)?;
    let u = c.b.narrow(u, 2, 0i64.into(), k.clone())?;
    let v = c.b.narrow(v, 2, 0i64.into(), k.clone())?;
    let most = c.b.narrow(s, 1, 0i64.into(), 1i64.into())?;
    let eps = if a.dtype == Dtype::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let size = a.m.as_const().unwrap_or(1).max(a.n.as_const().unwrap_or(1)) as f64;
    let cut = c.float_or("rcond", "rcond", eps * size)?;
    let least = c.b.bin_scalar(BinaryOp::Mul, most, if cut > 0.0 { cut } else { eps * size })?;
    let sound = c.b.bin(BinaryOp::Gt, s, least)?;
    let one = c.b.scalar(Dtype::F64, 1.0);
    let by = c.b.select(sound, s, one)?;
    let by = c.b.un(UnaryOp::Recip, by)?;
    let by = kept(c, sound, by)?;
    let by = c.b.unsqueeze(by, 2)?;
    let across = turned(c, u)?;
    let t = c.b.matmul(across, b.v)?;
    let t = c.b.mul(t, by)?;
    let x = c.b.matmul(v, t)?;
    a.put(c, "Solution|solution", x, &[&a.n, &b.n])?;
    let rank = c.b.cast(sound, Dtype::I32)?;
    let rank = c.b.reduce(ReduceOp::Sum, rank, &[1], false)?;
    a.put(c, "Rank|rank", rank, &[])?;
    a.put(c, "SingularValues|singular_values", s, &[&k])?;
    let back = c.b.matmul(a.v, x)?;
    let off = c.b.sub(back, b.v)?;
    let off = c.b.mul(off, off)?;
    let off = c.b.reduce(ReduceOp::Sum, off, &[1], false)?;
    a.put(c, "Residuals|residuals", off, &[&b.n])
}
