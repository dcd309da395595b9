//! Matrix products.

use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op, op_of};
use hub_abi::Dtype;
use hub_abi::prim::BinaryOp;
use hub_ir::Value;
use hub_ir::ops::linalg::{Det, Inverse};
use hub_ir::ops::matmul::MatMul;

pub(crate) const OPS: &[Row] = &[
    op("MatMul", 1, |c| {
        let ins = [c.tensor(0)?, c.tensor(1)?];
        one(c.source(MatMul { trans_a: false, trans_b: false }, &ins)?)
    }),
    op("Gemm", 1, gemm),
    op("Det", 11, |c| {
        let x = c.tensor(0)?;
        one(c.source(Det {}, &[x])?)
    }),
    op_of("com.microsoft", "Inverse", |c| {
        let x = c.tensor(0)?;
        one(c.source(Inverse {}, &[x])?)
    }),
    op_of("com.microsoft", "FusedMatMul", fused_matmul),
    op_of("com.microsoft", "TransposeMatMul", fused_matmul),
    op_of("com.microsoft", "FusedGemm", |c| {
        let y = gemm(c)?[0];
        let at = |n| c.float(n, f32::NAN);
        let params = [at("activation_alpha")?, at("activation_beta")?];
        let given: Vec<f32> = params.into_iter().take_while(|p| !p.is_nan()).collect();
        one(super::activation::fused(c, y, &given)?)
    }),
];

/// `alpha * op(a) * op(b) + beta * c`.
pub(super) fn gemm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    if c.rank(a) != 2 || c.rank(b) != 2 {
        return invalid("both operands must be matrices");
    }
    let (alpha, beta) = (c.float("alpha", 1.0)?, c.float("beta", 1.0)?);
    let (trans_a, trans_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    let mut y = c.source(MatMul { trans_a, trans_b }, &[a, b])?;
    if alpha != 1.0 {
        y = c.bin_scalar(BinaryOp::Mul, y, alpha.into())?;
    }
    match c.opt(2) {
        Some(mut bias) if beta != 0.0 => {
            if beta != 1.0 {
                bias = c.bin_scalar(BinaryOp::Mul, bias, beta.into())?;
            }
            one(c.bin(BinaryOp::Add, y, bias)?)
        }
        _ => one(y),
    }
}

/// `alpha * op(a) op(b)`; a transposed batch has its first axis behind the others.
pub(super) fn fused_matmul(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (mut a, mut b) = (c.tensor(0)?, c.tensor(1)?);
    let alpha = c.float("alpha", 1.0)?;
    let (trans_a, trans_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    for (v, name) in [(&mut a, "transBatchA"), (&mut b, "transBatchB")] {
        let rank = c.rank(*v);
        if c.flag(name, false)? && rank > 2 {
            let mut perm: Vec<usize> = (1..rank - 1).collect();
            perm.extend([0, rank - 1]);
            *v = c.b.transpose(*v, &perm)?;
        }
    }
    let y = c.source(MatMul { trans_a, trans_b }, &[a, b])?;
    if alpha == 1.0 || c.dtype(y) == Dtype::Bool {
        return one(y);
    }
    one(c.bin_scalar(BinaryOp::Mul, y, alpha.into())?)
}
