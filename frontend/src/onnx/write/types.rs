//! Element types that ONNX's operators take, and in what they run for others.
//!
//! A row lists what both the specification (opset 21) and the engines in use take; another type is
//! cast to the first type of its chain that the row has, and the result cast back. The chains widen,
//! so integers wrap and small floats round as they would at their own width.

use hub_abi::Dtype::{self, *};

const FLOATS: &[Dtype] = &[F32, F64, F16];
const ARITH: &[Dtype] = &[F32, F64, F16, I32, I64, U64];
const INTS: &[Dtype] = &[U8, I8, U16, I16, U32, I32, U64, I64];
const WIDE: &[Dtype] = &[F32, F64, F16, I32, U32, I64, U64];
const REAL: &[Dtype] = &[F32, F64, F16, U8, I8, U16, I16, U32, I32, U64, I64];
const ANY: &[Dtype] =
    &[F32, F64, F16, BF16, U8, I8, U16, I16, U32, I32, U64, I64, Bool, Str, C64, C128];
const EVERY: &[Dtype] = &[
    F32, F64, F16, BF16, U8, I8, U16, I16, U32, I32, U64, I64, Bool, Str, C64, C128, F8E4M3FN,
    F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2,
];

/// Types of an operator's first operands.
fn takes(op: &str) -> &'static [Dtype] {
    match op {
        "Add" | "Sub" | "Mul" | "Div" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual"
        | "TopK" => ARITH,
        "Neg" => &[F32, F64, F16, I8, I32, I64],
        "Abs" | "Sign" | "Mod" => REAL,
        "Pow" => &[F32, F64, F16, I32, I64],
        "Max" | "Min" | "MatMul" => WIDE,
        "Equal" => &[F32, F64, F16, I32, I64, U64, Bool, Str],
        "And" | "Or" | "Xor" | "Not" => &[Bool],
        "BitwiseNot" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => INTS,
        "BitShift" => &[U8, U32, U64],
        "Where" => &[F32, F64, F16, I32, I64, U8, Str, C64, C128],
        "Expand" => &[F32, F64, F16, U8, I8, U16, I16, U32, I32, U64, I64, Bool, Str, C64, C128],
        "Reshape" | "Transpose" | "Identity" | "Squeeze" => EVERY,
        "Slice" | "Concat" | "Gather" | "GatherElements" | "GatherND" | "ScatterElements"
        | "ScatterND" => ANY,
        "Pad" => &[F32, F64, F16, U8, I8, U32, I32, U64, I64, Bool],
        "ReduceSum" | "ReduceProd" | "ReduceMean" | "CumSum" => ARITH,
        "ReduceMax" | "ReduceMin" => &[F32, F64, F16, U8, I8, I32, I64, U64],
        "ArgMax" | "ArgMin" => &[F32, F64, F16, U8, I8, I32, I64],
        "Einsum" => &[F32, F64, F16, I32, I64],
        "MaxPool" => &[F32, F64, F16, I8, U8],
        "NonZero" => &[F32, U8, I32, I64, Bool],
        "Range" => &[F32, F64, I16, I32, I64],
        "Relu" => &[F32, F64, F16, I8, I32],
        "Clip" => &[F32, F64, F16, I8, U8, U32, I32, U64, I64],
        "Resize" => &[F32, F64, F16],
        _ => FLOATS,
    }
}

/// Element type of an operator's result, where it is not its operands'.
pub(super) fn result(op: &str) -> Option<Dtype> {
    match op {
        "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal" | "IsNaN" | "IsInf" => {
            Some(Bool)
        }
        "ArgMax" | "ArgMin" | "NonZero" => Some(I64),
        _ => None,
    }
}

/// Types that hold every value of this one, the best first.
fn wider(ty: Dtype) -> &'static [Dtype] {
    match ty {
        Bool => &[U8, I32, F32],
        U4 | U2 => &[U8, I32, F32],
        I4 | I2 => &[I8, I32, F32],
        U8 | I8 | I16 => &[I32, I64, F32],
        U16 => &[U32, I32, I64, F32],
        U32 => &[I64, U64, F64],
        I32 => &[I64, F64],
        U64 => &[I64],
        F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 => &[F32],
        I64 | F32 | F64 | Str | C64 | C128 => &[],
    }
}

/// The type in which an operator runs for operands of this one: itself, or a wider one.
pub(super) fn runs_in(op: &str, ty: Dtype) -> Option<Dtype> {
    let takes = takes(op);
    std::iter::once(&ty).chain(wider(ty)).find(|t| takes.contains(t)).copied()
}
