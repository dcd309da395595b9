//! ProgramDesc's messages as [`crate::wire`] reads them: the fields of [`super::proto`].

use super::proto as p;
use crate::wire::Kind::{Double, Doubles, Float, Floats, Int, Ints, Message as M, Text};
use crate::wire::Message;

const fn message<T>(
    name: &'static str,
    fields: &'static [(u64, &'static str, crate::wire::Kind)],
) -> Message {
    Message { name, size: std::mem::size_of::<T>(), fields }
}

/// A whole program.
pub(super) static PROGRAM: Message = message::<p::ProgramDesc>(
    "ProgramDesc",
    &[(1, "blocks", M(&BLOCK)), (4, "version", M(&VERSION))],
);
static VERSION: Message = message::<p::Version>("Version", &[(1, "version", Int)]);
static BLOCK: Message = message::<p::BlockDesc>(
    "BlockDesc",
    &[(1, "idx", Int), (2, "parent_idx", Int), (3, "vars", M(&VAR)), (4, "ops", M(&OP))],
);
static VAR: Message = message::<p::VarDesc>(
    "VarDesc",
    &[(1, "name", Text), (2, "type", M(&VAR_TYPE)), (3, "persistable", Int)],
);
static VAR_TYPE: Message = message::<p::VarType>(
    "VarType",
    &[(1, "type", Int), (3, "dense_tensor", M(&LOD_TENSOR)), (4, "tensor_array", M(&LOD_TENSOR))],
);
static LOD_TENSOR: Message = message::<p::LodTensorDesc>(
    "LoDTensorDesc",
    &[(1, "tensor", M(&TENSOR)), (2, "lod_level", Int)],
);
/// The description in a parameter stream.
pub(super) static TENSOR: Message =
    message::<p::TensorDesc>("TensorDesc", &[(1, "data_type", Int), (2, "dims", Ints)]);
static OP: Message = message::<p::OpDesc>(
    "OpDesc",
    &[(1, "inputs", M(&SLOT)), (2, "outputs", M(&SLOT)), (3, "type", Text), (4, "attrs", M(&ATTR))],
);
static SLOT: Message =
    message::<p::Slot>("OpDesc.Var", &[(1, "parameter", Text), (2, "arguments", Text)]);
static ATTR: Message = message::<p::Attr>(
    "OpDesc.Attr",
    &[
        (1, "name", Text),
        (2, "type", Int),
        (3, "i", Int),
        (4, "f", Float),
        (5, "s", Text),
        (6, "ints", Ints),
        (7, "floats", Floats),
        (8, "strings", Text),
        (10, "b", Int),
        (11, "bools", Ints),
        (12, "block_idx", Int),
        (13, "l", Int),
        (14, "blocks_idx", Ints),
        (15, "longs", Ints),
        (16, "float64s", Doubles),
        (17, "var_name", Text),
        (18, "vars_name", Text),
        (19, "float64", Double),
        (20, "scalar", M(&SCALAR)),
        (21, "scalars", M(&SCALAR)),
    ],
);
static SCALAR: Message = message::<p::Scalar>(
    "Scalar",
    &[(1, "type", Int), (2, "b", Int), (3, "i", Int), (4, "r", Double)],
);
