//! Linear models and support vector machines of ai.onnx.ml.

use super::ml::{ML, best, either, labels, post, single};
use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, ScatterOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::matmul::MatMul;

pub(crate) const OPS: &[Row] = &[
    op_of(ML, "LinearRegressor", linear_regressor),
    op_of(ML, "LinearClassifier", linear_classifier),
    op_of(ML, "SVMRegressor", svm_regressor),
    op_of(ML, "SVMClassifier", svm_classifier),
];

/// x as f32 `[N, F]`.
fn rows(c: &mut Cx<'_, '_, '_>) -> Got {
    let x = c.tensor(0)?;
    let x = c.cast(x, Dtype::F32)?;
    match &c.dims(x)[..] {
        [n] => {
            let n = n.clone();
            c.reshape(x, vec![1i64.into(), n])
        }
        [_, _] => Ok(x),
        _ => invalid("x must be [F] or [N, F]"),
    }
}

/// Numbers as a matrix of that many rows.
fn matrix(c: &mut Cx<'_, '_, '_>, v: &[f32], rows: usize) -> Got {
    if rows == 0 || v.is_empty() || !v.len().is_multiple_of(rows) {
        return invalid(format!("{} numbers do not make {rows} rows", v.len()));
    }
    Ok(c.b.floats(&[rows as i64, (v.len() / rows) as i64], v))
}

/// `x * wᵀ`.
fn times(c: &mut Cx<'_, '_, '_>, x: Value, w: Value) -> Got {
    c.source(MatMul { trans_a: false, trans_b: true }, &[x, w])
}

/// `x * coefficientsᵀ + intercepts`, a column a row of coefficients.
fn linear(c: &mut Cx<'_, '_, '_>, targets: usize) -> Got {
    let x = rows(c)?;
    let w = c.floats("coefficients")?.unwrap_or_default();
    let w = matrix(c, &w, targets)?;
    let y = times(c, x, w)?;
    match c.floats("intercepts")? {
        Some(b) if b.len() == targets => {
            let b = c.b.floats(&[b.len() as i64], &b);
            c.bin(BinaryOp::Add, y, b)
        }
        Some(b) if !b.is_empty() => invalid(format!("{} intercepts for {targets}", b.len())),
        _ => Ok(y),
    }
}

fn linear_regressor(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let targets = c.int("targets", 1)?;
    let y = linear(c, usize::try_from(targets).unwrap_or(0))?;
    let how = c.string("post_transform", "NONE")?;
    one(post(c, y, &how)?)
}

/// Labels and scores. One score for two labels is the second's.
fn linear_classifier(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (labels, n) = labels(c, "classlabels_ints")?;
    let scores = c.floats("intercepts")?.map_or(n, |b| b.len());
    let y = linear(c, if scores == 0 { n } else { scores })?;
    let how = c.string("post_transform", "NONE")?;
    if n == 2 && scores == 1 {
        let hit = c.bin_scalar(BinaryOp::Gt, y, 0.0)?;
        let hit = c.b.squeeze(hit, 1)?;
        let label = either(c, hit, labels)?;
        return Ok(vec![label, single(c, y, &how)?]);
    }
    let label = best(c, y, labels)?;
    Ok(vec![label, post(c, y, &how)?])
}

/// The kernel of each row of x with each row of `w`.
fn kernel(c: &mut Cx<'_, '_, '_>, x: Value, w: Value) -> Got {
    let p = c.floats("kernel_params")?.unwrap_or_default();
    let [gamma, coef, degree] = [0, 1, 2].map(|i: usize| p.get(i).map_or(0.0, |&p| p.into()));
    let kind = c.string("kernel_type", "LINEAR")?;
    if kind == "RBF" {
        // |x|² - 2 x·w + |w|² would cancel; the differences are summed as they are.
        let (a, b) = (c.b.unsqueeze(x, 1)?, c.b.unsqueeze(w, 0)?);
        let d = c.bin(BinaryOp::Sub, a, b)?;
        let d = c.bin(BinaryOp::Mul, d, d)?;
        let d = c.reduce(ReduceOp::Sum, d, &[2], false)?;
        let d = c.bin_scalar(BinaryOp::Mul, d, -gamma)?;
        return c.un(UnaryOp::Exp, d);
    }
    let dot = times(c, x, w)?;
    if kind == "LINEAR" {
        return Ok(dot);
    }
    let t = c.bin_scalar(BinaryOp::Mul, dot, gamma)?;
    let t = c.bin_scalar(BinaryOp::Add, t, coef)?;
    match &*kind {
        "POLY" => c.bin_scalar(BinaryOp::Pow, t, degree),
        "SIGMOID" => c.un(UnaryOp::Tanh, t),
        other => invalid(format!("kernel_type '{other}'")),
    }
}

fn svm_regressor(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = rows(c)?;
    let coef = c.floats("coefficients")?.unwrap_or_default();
    let rho = c.floats("rho")?.unwrap_or_default();
    let n = usize::try_from(c.int("n_supports", 0)?).unwrap_or(0);
    let w = matrix(c, &coef, 1)?;
    let mut y = if n > 0 {
        let vectors = c.floats("support_vectors")?.unwrap_or_default();
        let vectors = matrix(c, &vectors, n)?;
        let k = kernel(c, x, vectors)?;
        times(c, k, w)?
    } else {
        kernel(c, x, w)?
    };
    y = c.bin_scalar(BinaryOp::Add, y, rho.first().copied().unwrap_or(0.0).into())?;
    if c.flag("one_class", false)? {
        let inside = c.bin_scalar(BinaryOp::Gt, y, 0.0)?;
        let (yes, no) = (c.scalar(Dtype::F32, 1.0), c.scalar(Dtype::F32, -1.0));
        return one(c.b.select(inside, yes, no)?);
    }
    let how = c.string("post_transform", "NONE")?;
    one(post(c, y, &how)?)
}

/// With support vectors: one decision for each pair of classes, votes for labels, and probabilities
/// if the model has them. Without: a linear model a class.
fn svm_classifier(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (labels, n) = labels(c, "classlabels_ints")?;
    let how = c.string("post_transform", "NONE")?;
    let coef = c.floats("coefficients")?.unwrap_or_default();
    let rho = c.floats("rho")?.unwrap_or_default();
    let per = c.ints("vectors_per_class")?.unwrap_or_default();
    if per.is_empty() {
        let x = rows(c)?;
        let w = matrix(c, &coef, n)?;
        let y = kernel(c, x, w)?;
        let y = c.bin_scalar(BinaryOp::Add, y, rho.first().copied().unwrap_or(0.0).into())?;
        let label = best(c, y, labels)?;
        return Ok(vec![label, post(c, y, &how)?]);
    }
    let decisions = decisions(c, n, &coef, &rho, &per)?;
    let (a, b) = (c.floats("prob_a")?, c.floats("prob_b")?);
    let votes = votes(c, decisions, n)?;
    if let (Some(a), Some(b)) = (a.filter(|a| !a.is_empty()), b) {
        let p = probabilities(c, decisions, n, &a, &b)?;
        let label = best(c, p, labels)?;
        return Ok(vec![label, post(c, p, &how)?]);
    }
    if n == 2 {
        // One decision: the first class's if it is positive.
        let hit = c.bin_scalar(BinaryOp::Le, decisions, 0.0)?;
        let hit = c.b.squeeze(hit, 1)?;
        let label = either(c, hit, labels)?;
        let rest = c.un(UnaryOp::Neg, decisions)?;
        let both = c.b.concat(&[rest, decisions], 1)?;
        return Ok(vec![label, post(c, both, &how)?]);
    }
    let label = best(c, votes, labels)?;
    Ok(vec![label, post(c, decisions, &how)?])
}

/// Decision values `[N, pairs]`, pairs of classes i < j in order.
fn decisions(c: &mut Cx<'_, '_, '_>, n: usize, coef: &[f32], rho: &[f32], per: &[i64]) -> Got {
    let sizes: Option<Vec<usize>> = per.iter().map(|&p| usize::try_from(p).ok()).collect();
    let sizes = sizes.filter(|s| s.len() == n && (2..=1 << 10).contains(&n));
    let Some(sizes) = sizes else { return invalid("vectors_per_class") };
    let total = sizes.iter().fold(0usize, |a, &s| a.saturating_add(s));
    let pairs = n * (n - 1) / 2;
    if coef.len() != total.saturating_mul(n - 1) || rho.len() < pairs {
        return invalid("coefficients or rho do not fit the support vectors");
    }
    if pairs.saturating_mul(total) > 1 << 26 {
        return unsupported("so many support vectors and classes");
    }
    let mut start = vec![0; n];
    (1..n).for_each(|i| start[i] = start[i - 1] + sizes[i - 1]);
    // The pair (i, j) weighs the vectors of i by row j - 1 and those of j by row i.
    let mut weights = vec![0f32; pairs * total];
    let mut pair = 0;
    for i in 0..n {
        for j in i + 1..n {
            let own = &mut weights[pair * total..(pair + 1) * total];
            for (class, row) in [(i, j - 1), (j, i)] {
                let at = start[class]..start[class] + sizes[class];
                own[at.clone()].copy_from_slice(&coef[row * total..][at]);
            }
            pair += 1;
        }
    }
    let x = rows(c)?;
    let vectors = c.floats("support_vectors")?.unwrap_or_default();
    let vectors = matrix(c, &vectors, total)?;
    let k = kernel(c, x, vectors)?;
    let w = matrix(c, &weights, pairs)?;
    let y = times(c, k, w)?;
    let rho = c.b.floats(&[pairs as i64], &rho[..pairs]);
    c.bin(BinaryOp::Add, y, rho)
}

/// Columns of pairs (i, j), i < j.
fn pairs(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
}

/// Votes `[N, classes]`: each decision is for its first class where positive, else its second.
fn votes(c: &mut Cx<'_, '_, '_>, decisions: Value, n: usize) -> Got {
    let hit = c.bin_scalar(BinaryOp::Gt, decisions, 0.0)?;
    let hit = c.cast(hit, Dtype::F32)?;
    let miss = c.un(UnaryOp::Neg, hit)?;
    let miss = c.bin_scalar(BinaryOp::Add, miss, 1.0)?;
    let all = c.b.concat(&[hit, miss], 1)?;
    let mut m = vec![0f32; n * pairs(n).len() * 2];
    let count = pairs(n).len();
    for (p, (i, j)) in pairs(n).into_iter().enumerate() {
        m[i * 2 * count + p] = 1.0;
        m[j * 2 * count + count + p] = 1.0;
    }
    let m = c.b.floats(&[n as i64, 2 * count as i64], &m);
    times(c, all, m)
}

/// Probabilities of classes from those of pairs: for two classes the pair's own, for more the
/// distribution that fits the pairs best (Wu, Lin and Weng's second method, as libsvm iterates it).
fn probabilities(c: &mut Cx<'_, '_, '_>, decisions: Value, n: usize, a: &[f32], b: &[f32]) -> Got {
    let count = pairs(n).len();
    if a.len() < count || b.len() < count {
        return invalid("prob_a and prob_b need a number a pair");
    }
    let a = c.b.floats(&[count as i64], &a[..count]);
    let b = c.b.floats(&[count as i64], &b[..count]);
    let t = c.bin(BinaryOp::Mul, decisions, a)?;
    let t = c.bin(BinaryOp::Add, t, b)?;
    let t = c.un(UnaryOp::Neg, t)?;
    let p = c.un(UnaryOp::Sigmoid, t)?;
    let p = c.bin_scalar(BinaryOp::Max, p, 1e-7)?;
    let p = c.bin_scalar(BinaryOp::Min, p, 1.0 - 1e-7)?;
    let rest = c.un(UnaryOp::Neg, p)?;
    let rest = c.bin_scalar(BinaryOp::Add, rest, 1.0)?;
    if n == 2 {
        return Ok(c.b.concat(&[p, rest], 1)?);
    }
    if n > 64 {
        return unsupported("probabilities of more than 64 classes");
    }
    // r[i][j] as [N, n, n], 0 on the diagonal.
    let batch = c.dim(p, 0)?;
    let zero = c.scalar(Dtype::F32, 0.0);
    let r = c.b.broadcast(zero, vec![batch.clone(), (n * n).into()])?;
    let (up, down): (Vec<i64>, Vec<i64>) =
        pairs(n).into_iter().map(|(i, j)| ((i * n + j) as i64, (j * n + i) as i64)).unzip();
    let all = c.b.concat(&[p, rest], 1)?;
    let at = c.b.ints(&[up, down].concat());
    let at = c.b.broadcast(at, vec![batch.clone(), (2 * count).into()])?;
    let put = Prim::ScatterElements { axis: 1, op: ScatterOp::Set };
    let r = c.prim(put, &[r, at, all])?;
    let r = c.reshape(r, vec![batch.clone(), n.into(), n.into()])?;
    fitted(c, r, n, batch)
}

/// The minimum of `pᵀ Q p` with `sum p = 1`, where `Q[i][i] = sum r[j][i]²` and
/// `Q[i][j] = -r[j][i] r[i][j]`: in closed form, `p` solves `Q p = λ 1`.
fn fitted(c: &mut Cx<'_, '_, '_>, r: Value, n: usize, batch: Dim) -> Got {
    let r = c.cast(r, Dtype::F64)?;
    let t = c.b.transpose(r, &[0, 2, 1])?;
    let off = c.bin(BinaryOp::Mul, r, t)?;
    let off = c.un(UnaryOp::Neg, off)?;
    let sq = c.bin(BinaryOp::Mul, t, t)?;
    let own = c.reduce(ReduceOp::Sum, sq, &[2], true)?;
    let unit: Vec<i64> = (0..n * n).map(|i| i64::from(i % (n + 1) == 0)).collect();
    let unit = c.b.ints(&unit);
    let unit = c.reshape(unit, vec![n.into(), n.into()])?;
    let unit = c.cast(unit, Dtype::F64)?;
    let diagonal = c.bin(BinaryOp::Mul, unit, own)?;
    let q = c.bin(BinaryOp::Add, off, diagonal)?;
    // Q is singular at most along p itself; a little on its diagonal does not move p.
    let q = {
        let little = c.bin_scalar(BinaryOp::Mul, unit, 1e-12)?;
        c.bin(BinaryOp::Add, q, little)?
    };
    let inverse = c.source(hub_ir::ops::linalg::Inverse {}, &[q])?;
    let p = c.reduce(ReduceOp::Sum, inverse, &[2], false)?;
    let sum = c.reduce(ReduceOp::Sum, p, &[1], true)?;
    let p = c.bin(BinaryOp::Div, p, sum)?;
    let p = c.cast(p, Dtype::F32)?;
    c.reshape(p, vec![batch, n.into()])
}
