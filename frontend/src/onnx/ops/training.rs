//! ai.onnx.preview.training: steps of optimisers, and gradients of what the graph computes.

use crate::onnx::cx::{Cx, Got, invalid};
use crate::onnx::table::{Row, op_of};
use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, UnaryOp};
use hub_ir::Value;

const TRAINING: &str = "ai.onnx.preview.training";

pub(crate) const OPS: &[Row] = &[
    op_of(TRAINING, "Adagrad", adagrad),
    op_of(TRAINING, "Adam", adam),
    op_of(TRAINING, "Momentum", momentum),
    op_of(TRAINING, "Gradient", super::gradient::gradient),
];

/// Operands behind the learning rate and the count, in `parts` lists of equal length.
fn parts(c: &Cx<'_, '_, '_>, parts: usize) -> Got<Vec<Vec<Value>>> {
    let n = c.ins.len().saturating_sub(2);
    if n == 0 || !n.is_multiple_of(parts) {
        return invalid(format!("{n} tensors are not {parts} lists"));
    }
    let all = (2..c.ins.len()).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    Ok(all.chunks(n / parts).map(<[Value]>::to_vec).collect())
}

/// `g + norm * x`.
fn regular(c: &mut Cx<'_, '_, '_>, x: Value, g: Value, norm: f64) -> Got {
    let r = c.bin_scalar(BinaryOp::Mul, x, norm)?;
    c.bin(BinaryOp::Add, r, g)
}

/// `a * x + b * y`.
fn blend(c: &mut Cx<'_, '_, '_>, x: Value, a: f64, y: Value, b: f64) -> Got {
    let x = c.bin_scalar(BinaryOp::Mul, x, a)?;
    let y = c.bin_scalar(BinaryOp::Mul, y, b)?;
    c.bin(BinaryOp::Add, x, y)
}

fn number(c: &mut Cx<'_, '_, '_>, i: usize, to: Dtype) -> Got {
    let v = c.tensor(i)?;
    let v = c.reshape(v, vec![])?;
    c.cast(v, to)
}

fn adagrad(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let lists = parts(c, 3)?;
    let norm = c.float("norm_coefficient", 0.0)?.into();
    let eps = c.float("epsilon", 1e-6)?.into();
    let decay = c.float("decay_factor", 0.0)?.into();
    let (mut xs, mut hs) = (vec![], vec![]);
    for ((&x, &g), &h) in lists[0].iter().zip(&lists[1]).zip(&lists[2]) {
        let dtype = c.dtype(x);
        let (rate, t) = (number(c, 0, dtype)?, number(c, 1, dtype)?);
        let d = c.bin_scalar(BinaryOp::Mul, t, decay)?;
        let d = c.bin_scalar(BinaryOp::Add, d, 1.0)?;
        let rate = c.bin(BinaryOp::Div, rate, d)?;
        let g = regular(c, x, g, norm)?;
        let sq = c.bin(BinaryOp::Mul, g, g)?;
        let h = c.bin(BinaryOp::Add, h, sq)?;
        let root = c.un(UnaryOp::Sqrt, h)?;
        let root = c.bin_scalar(BinaryOp::Add, root, eps)?;
        let step = c.bin(BinaryOp::Mul, rate, g)?;
        let step = c.bin(BinaryOp::Div, step, root)?;
        xs.push(c.bin(BinaryOp::Sub, x, step)?);
        hs.push(h);
    }
    Ok([xs, hs].concat())
}

fn adam(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let lists = parts(c, 4)?;
    let norm = c.float("norm_coefficient", 0.0)?.into();
    let post = f64::from(c.float("norm_coefficient_post", 0.0)?);
    let eps = c.float("epsilon", 1e-6)?.into();
    let (alpha, beta) = (c.float("alpha", 0.9)?.into(), c.float("beta", 0.999)?.into());
    let (mut xs, mut vs, mut hs) = (vec![], vec![], vec![]);
    let [xs_in, gs, vs_in, hs_in] = [0, 1, 2, 3].map(|k: usize| lists[k].iter().copied());
    for (((x, g), v), h) in xs_in.zip(gs).zip(vs_in).zip(hs_in) {
        let dtype = c.dtype(x);
        let (rate, t) = (number(c, 0, dtype)?, number(c, 1, dtype)?);
        let g = regular(c, x, g, norm)?;
        let v = blend(c, v, alpha, g, 1.0 - alpha)?;
        let sq = c.bin(BinaryOp::Mul, g, g)?;
        let h = blend(c, h, beta, sq, 1.0 - beta)?;
        let root = c.un(UnaryOp::Sqrt, h)?;
        let root = c.bin_scalar(BinaryOp::Add, root, eps)?;
        // From the second step on, the rate makes up for means that began at zero.
        let rest = |c: &mut Cx<'_, '_, '_>, base: f64| -> Got {
            let base = c.scalar(dtype, base);
            let p = c.bin(BinaryOp::Pow, base, t)?;
            let p = c.un(UnaryOp::Neg, p)?;
            c.bin_scalar(BinaryOp::Add, p, 1.0)
        };
        let (first, second) = (rest(c, alpha)?, rest(c, beta)?);
        let second = c.un(UnaryOp::Sqrt, second)?;
        let scaled = c.bin(BinaryOp::Mul, rate, second)?;
        let scaled = c.bin(BinaryOp::Div, scaled, first)?;
        let later = c.bin_scalar(BinaryOp::Gt, t, 0.0)?;
        let rate = c.b.select(later, scaled, rate)?;
        let step = c.bin(BinaryOp::Mul, rate, v)?;
        let step = c.bin(BinaryOp::Div, step, root)?;
        let x = c.bin(BinaryOp::Sub, x, step)?;
        xs.push(c.bin_scalar(BinaryOp::Mul, x, 1.0 - post)?);
        vs.push(v);
        hs.push(h);
    }
    Ok([xs, vs, hs].concat())
}

fn momentum(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let lists = parts(c, 3)?;
    let norm = c.float("norm_coefficient", 0.0)?.into();
    let (alpha, beta) = (c.float("alpha", 0.0)?.into(), c.float("beta", 0.0)?.into());
    let nesterov = match &*c.string("mode", "")? {
        "nesterov" => true,
        "standard" => false,
        other => return invalid(format!("mode '{other}'")),
    };
    let (mut xs, mut vs) = (vec![], vec![]);
    for ((&x, &g), &v) in lists[0].iter().zip(&lists[1]).zip(&lists[2]) {
        let dtype = c.dtype(x);
        let (rate, t) = (number(c, 0, dtype)?, number(c, 1, dtype)?);
        let g = regular(c, x, g, norm)?;
        let later = c.bin_scalar(BinaryOp::Gt, t, 0.0)?;
        let (beta, unit) = (c.scalar(dtype, beta), c.scalar(dtype, 1.0));
        let beta = c.b.select(later, beta, unit)?;
        let v = c.bin_scalar(BinaryOp::Mul, v, alpha)?;
        let part = c.bin(BinaryOp::Mul, beta, g)?;
        let v = c.bin(BinaryOp::Add, v, part)?;
        let mut step = v;
        if nesterov {
            step = c.bin_scalar(BinaryOp::Mul, v, alpha)?;
            step = c.bin(BinaryOp::Add, step, g)?;
        }
        let step = c.bin(BinaryOp::Mul, rate, step)?;
        xs.push(c.bin(BinaryOp::Sub, x, step)?);
        vs.push(v);
    }
    Ok([xs, vs].concat())
}
