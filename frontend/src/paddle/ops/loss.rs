//! Losses, and how often a class was right. Exported evaluation programs hold them.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::ops::norm::Softmax;
use hub_ir::{BinaryOp, Dtype, Prim, ReduceOp, UnaryOp, Value};

/// softmax_with_cross_entropy, cross_entropy_with_softmax: the softmax and the loss of labels.
pub fn softmax_cross_entropy(c: &mut Ctx<'_, '_>) -> Res {
    let (x, label) = (c.tensor("Logits")?, c.tensor("Label")?);
    let axis = axis_of(c.int("axis", -1), c.rank(x))?;
    let (soft, log) = match c.flag("use_softmax", true) {
        true => (
            c.b.source(Softmax { axis, log: false }, &[x])?,
            c.b.source(Softmax { axis, log: true }, &[x])?,
        ),
        false => (x, c.b.un(UnaryOp::Log, x)?),
    };
    let loss = if c.flag("soft_label", false) {
        let v = c.b.mul(label, log)?;
        let v = c.b.reduce(ReduceOp::Sum, v, &[axis], true)?;
        c.b.un(UnaryOp::Neg, v)?
    } else {
        picked_loss(c, log, label, axis)?
    };
    c.put("Softmax", soft);
    c.put("Loss", loss);
    Ok(())
}

/// Minus the logarithm at each label, 0 where the label is to be ignored.
fn picked_loss(c: &mut Ctx<'_, '_>, log: Value, label: Value, axis: usize) -> Res<Value> {
    let ignored = c.int("ignore_index", -100);
    let mut label = c.b.cast(label, Dtype::I64)?;
    if c.rank(label) < c.rank(log) {
        label = c.b.unsqueeze(label, axis)?;
    }
    let skip = c.b.bin_scalar(BinaryOp::Eq, label, ignored as f64)?;
    let zero = c.b.scalar(Dtype::I64, 0.0);
    let place = c.b.select(skip, zero, label)?;
    let v = c.b.prim(Prim::GatherElements { axis: axis as u32 }, &[log, place])?;
    let v = c.b.un(UnaryOp::Neg, v)?;
    let none = c.b.scalar(c.b.g.dtype(v), 0.0);
    Ok(c.b.select(skip, none, v)?)
}

/// cross_entropy, cross_entropy2: the loss of probabilities.
pub fn cross_entropy(c: &mut Ctx<'_, '_>) -> Res {
    let (x, label) = (c.tensor("X")?, c.tensor("Label")?);
    let axis = c.rank(x).saturating_sub(1);
    let log = c.b.un(UnaryOp::Log, x)?;
    let v = if c.flag("soft_label", false) {
        let v = c.b.mul(label, log)?;
        let v = c.b.reduce(ReduceOp::Sum, v, &[axis], true)?;
        c.b.un(UnaryOp::Neg, v)?
    } else {
        picked_loss(c, log, label, axis)?
    };
    c.put("Y", v);
    Ok(())
}

/// label_smooth: `(1 - epsilon) * x + epsilon * prior`, the prior being even by default.
pub fn label_smooth(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let eps = c.float("epsilon", 0.0);
    let v = c.b.bin_scalar(BinaryOp::Mul, x, 1.0 - eps)?;
    let prior = match c.opt("PriorDist") {
        Some(p) => c.b.bin_scalar(BinaryOp::Mul, p, eps)?,
        None => {
            let last = c.last(x)?;
            let n = c.b.dim_scalar(c.dim(x, last)?);
            let n = c.b.cast(n, c.b.g.dtype(x))?;
            let e = c.b.scalar(c.b.g.dtype(x), eps);
            c.b.div(e, n)?
        }
    };
    let v = c.b.add(v, prior)?;
    c.put("Out", v);
    Ok(())
}

/// All of it, its sum or its mean, as `reduction` says.
fn reduced(c: &mut Ctx<'_, '_>, v: Value) -> Res<Value> {
    let all: Vec<usize> = (0..c.rank(v)).collect();
    Ok(match c.text("reduction", "mean") {
        "none" => v,
        "sum" => c.b.reduce(ReduceOp::Sum, v, &all, false)?,
        "mean" => c.b.reduce(ReduceOp::Mean, v, &all, false)?,
        "batchmean" => {
            let n = c.dims(v).first().cloned().unwrap_or(1i64.into());
            let n = c.b.dim_scalar(n);
            let n = c.b.cast(n, c.b.g.dtype(v))?;
            let v = c.b.reduce(ReduceOp::Sum, v, &all, false)?;
            c.b.div(v, n)?
        }
        other => return c.refuse(format!("a loss reduced by {other}")),
    })
}

/// `1 - x`.
fn rest(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let one = c.b.scalar(c.b.g.dtype(x), 1.0);
    Ok(c.b.sub(one, x)?)
}

/// `-(z ln p + (1 - z) ln q)`.
fn entropy(c: &mut Ctx<'_, '_>, z: Value, ln_p: Value, ln_q: Value) -> Res<Value> {
    let other = rest(c, z)?;
    let (a, b) = (c.b.mul(z, ln_p)?, c.b.mul(other, ln_q)?);
    let v = c.b.add(a, b)?;
    Ok(c.b.un(UnaryOp::Neg, v)?)
}

/// bce_loss: of probabilities; logarithms are at least −100.
pub fn bce(c: &mut Ctx<'_, '_>) -> Res {
    let (x, z) = (c.tensor("X")?, c.tensor("Label")?);
    let q = rest(c, x)?;
    let (p, q) = (c.b.un(UnaryOp::Log, x)?, c.b.un(UnaryOp::Log, q)?);
    let p = c.b.bin_scalar(BinaryOp::Max, p, -100.0)?;
    let q = c.b.bin_scalar(BinaryOp::Max, q, -100.0)?;
    let v = entropy(c, z, p, q)?;
    c.put("Out", v);
    Ok(())
}

/// log_loss: of probabilities, which epsilon keeps from 0.
pub fn log_loss(c: &mut Ctx<'_, '_>) -> Res {
    let (x, z) = (c.tensor("Predicted")?, c.tensor("Labels")?);
    let eps = c.float("epsilon", 1e-4);
    let q = rest(c, x)?;
    let p = c.b.bin_scalar(BinaryOp::Add, x, eps)?;
    let q = c.b.bin_scalar(BinaryOp::Add, q, eps)?;
    let (p, q) = (c.b.un(UnaryOp::Log, p)?, c.b.un(UnaryOp::Log, q)?);
    let v = entropy(c, z, p, q)?;
    c.put("Loss|Out", v);
    Ok(())
}

/// sigmoid_cross_entropy_with_logits; `pos_weight` weighs the logarithms.
pub fn sigmoid_cross_entropy(c: &mut Ctx<'_, '_>) -> Res {
    let (x, z) = (c.tensor("X")?, c.tensor("Label")?);
    // -ln(sigmoid(x)) = max(-x, 0) + ln(1 + e^-|x|)
    let (a, n) = (c.b.un(UnaryOp::Abs, x)?, c.b.un(UnaryOp::Neg, x)?);
    let a = c.b.un(UnaryOp::Neg, a)?;
    let e = c.b.un(UnaryOp::Exp, a)?;
    let l = c.b.un(UnaryOp::Log1p, e)?;
    let n = c.b.bin_scalar(BinaryOp::Max, n, 0.0)?;
    let mut l = c.b.add(l, n)?;
    if let Some(w) = c.opt("pos_weight") {
        l = c.b.mul(l, w)?;
    }
    let other = rest(c, z)?;
    let v = c.b.mul(other, x)?;
    let v = c.b.add(v, l)?;
    let real = c.b.bin_scalar(BinaryOp::Ne, z, c.int("ignore_index", -100) as f64)?;
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let mut v = c.b.select(real, v, zero)?;
    if c.flag("normalize", false) {
        let all: Vec<usize> = (0..c.rank(x)).collect();
        let n = c.b.cast(real, c.b.g.dtype(x))?;
        let n = c.b.reduce(ReduceOp::Sum, n, &all, false)?;
        let n = c.b.bin_scalar(BinaryOp::Max, n, 1e-5)?;
        v = c.b.div(v, n)?;
    }
    c.put("Out", v);
    Ok(())
}

/// huber_loss: a parabola within delta, lines outside.
pub fn huber(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let delta = c.float("delta", 1.0);
    let r = c.b.sub(y, x)?;
    let a = c.b.un(UnaryOp::Abs, r)?;
    let q = c.b.mul(r, r)?;
    let q = c.b.bin_scalar(BinaryOp::Mul, q, 0.5)?;
    let line = c.b.bin_scalar(BinaryOp::Sub, a, delta / 2.0)?;
    let line = c.b.bin_scalar(BinaryOp::Mul, line, delta)?;
    let near = c.b.bin_scalar(BinaryOp::Le, a, delta)?;
    let v = c.b.select(near, q, line)?;
    c.put("Residual", r);
    c.put("Out", v);
    Ok(())
}

/// kldiv_loss: `t (ln t - x)`, 0 where t is not above 0; or of `ln t`.
pub fn kl_divergence(c: &mut Ctx<'_, '_>) -> Res {
    let (x, t) = (c.tensor("X")?, c.tensor("Target")?);
    let v = if c.flag("log_target", false) {
        let e = c.b.un(UnaryOp::Exp, t)?;
        let d = c.b.sub(t, x)?;
        c.b.mul(e, d)?
    } else {
        let l = c.b.un(UnaryOp::Log, t)?;
        let d = c.b.sub(l, x)?;
        let v = c.b.mul(t, d)?;
        let some = c.b.bin_scalar(BinaryOp::Gt, t, 0.0)?;
        let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
        c.b.select(some, v, zero)?
    };
    let v = reduced(c, v)?;
    c.put("Loss|Out", v);
    Ok(())
}

/// nll_loss: minus the logarithm `[N, C, …]` at each label, weighted by class.
pub fn nll(c: &mut Ctx<'_, '_>) -> Res {
    let (x, label) = (c.tensor("X")?, c.tensor("Label")?);
    if c.rank(x) < 2 {
        return c.refuse("no classes");
    }
    let v = picked_loss(c, x, label, 1)?;
    let v = c.b.squeeze(v, 1)?;
    let dtype = c.b.g.dtype(x);
    let label = c.b.cast(label, Dtype::I64)?;
    let skip = c.b.bin_scalar(BinaryOp::Eq, label, c.int("ignore_index", -100) as f64)?;
    let zero = c.b.scalar(dtype, 0.0);
    let weight = match c.opt("Weight|weight") {
        Some(w) => {
            let none = c.b.scalar(Dtype::I64, 0.0);
            let place = c.b.select(skip, none, label)?;
            c.b.prim(Prim::Gather { axis: 0 }, &[w, place])?
        }
        None => c.b.scalar(dtype, 1.0),
    };
    let weight = c.b.select(skip, zero, weight)?;
    let v = c.b.mul(v, weight)?;
    let all: Vec<usize> = (0..c.rank(v)).collect();
    let total = c.b.reduce(ReduceOp::Sum, weight, &all, false)?;
    let v = match c.text("reduction", "mean") {
        "mean" => {
            let v = c.b.reduce(ReduceOp::Sum, v, &all, false)?;
            c.b.div(v, total)?
        }
        _ => reduced(c, v)?,
    };
    c.put("Out", v);
    c.put("Total_weight", total);
    Ok(())
}

/// accuracy: how many rows have their label among the best, of how many, and the ratio.
pub fn accuracy(c: &mut Ctx<'_, '_>) -> Res {
    let (at, label) = (c.tensor("Indices")?, c.tensor("Label")?);
    c.ignore("Out");
    let at = c.b.cast(at, Dtype::I64)?;
    let label = c.b.cast(label, Dtype::I64)?;
    let n = c.dim(at, 0)?;
    let label = c.b.reshape(label, vec![n.clone(), 1i64.into()])?;
    let hit = c.b.bin(BinaryOp::Eq, at, label)?;
    let hit = c.b.reduce(ReduceOp::Or, hit, &[1], false)?;
    let hit = c.b.cast(hit, Dtype::I32)?;
    let right = c.b.reduce(ReduceOp::Sum, hit, &[0], false)?;
    let all = c.b.dim_scalar(n);
    let all = c.b.cast(all, Dtype::I32)?;
    let (p, q) = (c.b.cast(right, Dtype::F32)?, c.b.cast(all, Dtype::F32)?);
    let v = c.b.div(p, q)?;
    c.put("Accuracy", v);
    c.put("Correct", right);
    c.put("Total", all);
    Ok(())
}
