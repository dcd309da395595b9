//! What each operation is called in ONNX. To add an operator: a row of [`source`], if ONNX has a
//! name for it; without a row it is written as a function that holds its expansion.

use super::cx::{Got, Writer};
use super::{nn, quant, resize, rnn, spatial};
use hub_abi::prim::{BinaryOp, ReduceOp, UnaryOp};
use hub_ir::{Source, Value};

/// Names of a source operator's outputs; none where it is to be a function.
pub(super) fn source(w: &mut Writer, s: &Source, ins: &[Value]) -> Got<Option<Vec<String>>> {
    match s {
        Source::Conv(op) => spatial::conv(w, op, ins),
        Source::ConvTranspose(op) => spatial::conv_transpose(w, op, ins),
        Source::MatMul(op) => nn::matmul(w, op, ins),
        Source::BatchNorm(op) => nn::batch_norm(w, op, ins),
        Source::LayerNorm(op) => nn::layer_norm(w, op, ins),
        Source::Softmax(op) => nn::softmax(w, op, ins),
        Source::Activation(op) => nn::activation(w, *op, ins),
        Source::MaxPool(op) => spatial::max_pool(w, op, ins),
        Source::AvgPool(op) => spatial::avg_pool(w, op, ins),
        Source::LpPool(op) => spatial::lp_pool(w, op, ins),
        Source::AdaptivePool(op) => spatial::adaptive_pool(w, op, ins),
        Source::Quantize(op) => quant::quantize(w, op, ins),
        Source::Dequantize(op) => quant::dequantize(w, op, ins),
        Source::Resize(op) => resize::resize(w, op, ins),
        Source::Lstm(op) => rnn::lstm(w, op, ins),
        Source::Gru(op) => rnn::gru(w, op, ins),
        Source::Rnn(op) => rnn::rnn(w, op, ins),
        // Opset 21 has no name for it.
        _ => Ok(None),
    }
}

/// Functions of one argument that are one node; others are formulas in `prim.rs`.
pub(super) fn unary(op: UnaryOp) -> Option<&'static str> {
    use UnaryOp::*;
    Some(match op {
        Neg => "Neg",
        Abs => "Abs",
        Sign => "Sign",
        Floor => "Floor",
        Ceil => "Ceil",
        Round => "Round",
        Sqrt => "Sqrt",
        Recip => "Reciprocal",
        Exp => "Exp",
        Log => "Log",
        Sin => "Sin",
        Cos => "Cos",
        Tan => "Tan",
        Asin => "Asin",
        Acos => "Acos",
        Atan => "Atan",
        Sinh => "Sinh",
        Cosh => "Cosh",
        Tanh => "Tanh",
        Asinh => "Asinh",
        Acosh => "Acosh",
        Atanh => "Atanh",
        Erf => "Erf",
        Sigmoid => "Sigmoid",
        Not => "Not",
        BitNot => "BitwiseNot",
        IsNan => "IsNaN",
        IsInf => "IsInf",
        Trunc | Rsqrt | Expm1 | Log1p => return None,
    })
}

/// Functions of two arguments that are one node.
pub(super) fn binary(op: BinaryOp) -> Option<&'static str> {
    use BinaryOp::*;
    Some(match op {
        Add => "Add",
        Sub => "Sub",
        Mul => "Mul",
        Div => "Div",
        Pow => "Pow",
        Max => "Max",
        Min => "Min",
        And => "And",
        Or => "Or",
        Xor => "Xor",
        BitAnd => "BitwiseAnd",
        BitOr => "BitwiseOr",
        BitXor => "BitwiseXor",
        Eq => "Equal",
        Lt => "Less",
        Le => "LessOrEqual",
        Gt => "Greater",
        Ge => "GreaterOrEqual",
        Ne | Mod | Rem | Shl | Shr | Atan2 => return None,
    })
}

/// Reductions; all and any of bools are their least and greatest.
pub(super) fn reduce(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "ReduceSum",
        ReduceOp::Prod => "ReduceProd",
        ReduceOp::Max | ReduceOp::Or => "ReduceMax",
        ReduceOp::Min | ReduceOp::And => "ReduceMin",
        ReduceOp::Mean => "ReduceMean",
    }
}
