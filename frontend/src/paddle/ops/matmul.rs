//! Matrix products.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::activation::Activation;
use hub_ir::ops::matmul::MatMul;
use hub_ir::{BinaryOp, Dim, Value};

/// matmul (with its first version's `alpha`), matmul_v2, bmm, mv.
pub fn matmul(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y|Vec")?);
    let (x, y) = super::elementwise::unify(c, x, y)?;
    let trans_a = c.flag("trans_x|transpose_X|transpose_x", false);
    let trans_b = c.flag("trans_y|transpose_Y|transpose_y", false);
    let mut v = c.b.source(MatMul { trans_a, trans_b }, &[x, y])?;
    let alpha = c.float("alpha", 1.0);
    if alpha != 1.0 {
        v = c.b.bin_scalar(BinaryOp::Mul, v, alpha)?;
    }
    c.put("Out", v);
    Ok(())
}

/// x with its axes from `at` on as one.
fn rows(c: &mut Ctx<'_, '_>, x: Value, at: usize) -> Res<Value> {
    let d = c.dims(x);
    if d.len() == 2 && at == 1 {
        return Ok(x);
    }
    Ok(c.b.reshape(x, vec![Dim::product(&d[..at]), Dim::product(&d[at..])])?)
}

/// `x` of axes `[..n] × [n..]` times a matrix; keeps x's leading axes.
fn product(c: &mut Ctx<'_, '_>, x: Value, n: i64, y: Value, m: i64) -> Res<Value> {
    let (dx, dy) = (c.dims(x), c.dims(y));
    let split = |n: i64, rank: usize| usize::try_from(n).ok().filter(|&n| n >= 1 && n < rank);
    let (Some(n), Some(m)) = (split(n, dx.len()), split(m, dy.len())) else {
        return c.refuse("num_col_dims that are not within the ranks");
    };
    let plain = MatMul { trans_a: false, trans_b: false };
    if n + 1 == dx.len() && m == 1 && dy.len() == 2 {
        return Ok(c.b.source(plain, &[x, y])?);
    }
    let (x2, y2) = (rows(c, x, n)?, rows(c, y, m)?);
    let v = c.b.source(plain, &[x2, y2])?;
    Ok(c.b.reshape(v, [&dx[..n], &dy[m..]].concat())?)
}

/// mul: both operands are flattened to matrices.
pub fn mul(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let v = product(c, x, c.int("x_num_col_dims", 1), y, c.int("y_num_col_dims", 1))?;
    c.put("Out", v);
    Ok(())
}

/// fc: a product, a bias and perhaps an activation.
pub fn fc(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("Input")?, c.tensor("W")?);
    let mut v = product(c, x, c.int("in_num_col_dims", 1), w, 1)?;
    if let Some(bias) = c.opt("Bias") {
        let n = c.b.g.tensor(bias).count();
        let bias = c.b.reshape(bias, vec![n])?;
        v = c.b.add(v, bias)?;
    }
    let v = match c.text("activation_type", "") {
        "" => v,
        "relu" => c.b.source(Activation::Relu, &[v])?,
        other => return c.refuse(format!("a fused activation {other}")),
    };
    c.put("Out", v);
    Ok(())
}

/// `beta * input + alpha * x @ y`.
pub fn addmm(c: &mut Ctx<'_, '_>) -> Res {
    let (input, x, y) = (c.tensor("Input")?, c.tensor("X")?, c.tensor("Y")?);
    let v = c.b.source(MatMul { trans_a: false, trans_b: false }, &[x, y])?;
    let (alpha, beta) = (c.float("Alpha|alpha", 1.0), c.float("Beta|beta", 1.0));
    let v = if alpha == 1.0 { v } else { c.b.bin_scalar(BinaryOp::Mul, v, alpha)? };
    let i = if beta == 1.0 { input } else { c.b.bin_scalar(BinaryOp::Mul, input, beta)? };
    let v = c.b.add(i, v)?;
    c.put("Out", v);
    Ok(())
}

/// dot: the sum of products along the last axis.
pub fn dot(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let v = c.b.mul(x, y)?;
    let last = c.axis(-1, c.rank(v))?;
    let v = c.b.reduce(hub_ir::ReduceOp::Sum, v, &[last], false)?;
    c.put("Out", v);
    Ok(())
}
