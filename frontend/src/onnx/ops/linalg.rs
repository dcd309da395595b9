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
];

/// `alpha * op(a) * op(b) + beta * c`.
fn gemm(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
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

fn fused_matmul(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let alpha = c.float("alpha", 1.0)?;
    let (trans_a, trans_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    if c.flag("transBatchA", false)? || c.flag("transBatchB", false)? {
        return crate::onnx::cx::unsupported("transposed batches");
    }
    let y = c.source(MatMul { trans_a, trans_b }, &[a, b])?;
    if alpha == 1.0 || c.dtype(y) == Dtype::Bool {
        return one(y);
    }
    one(c.bin_scalar(BinaryOp::Mul, y, alpha.into())?)
}
