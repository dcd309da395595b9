//! ONNX's messages as [`crate::wire`] reads them: the fields of [`super::proto`].

use super::proto as p;
use crate::wire::Kind::{Bytes, Doubles, Float, Floats, Int, Ints, Message as M, Text};
use crate::wire::Message;

const fn message<T>(
    name: &'static str,
    fields: &'static [(u64, &'static str, crate::wire::Kind)],
) -> Message {
    Message { name, size: std::mem::size_of::<T>(), fields }
}

/// A file.
pub(crate) static MODEL: Message = message::<p::ModelProto>(
    "ModelProto",
    &[
        (1, "ir_version", Int),
        (2, "producer_name", Text),
        (3, "producer_version", Text),
        (7, "graph", M(&GRAPH)),
        (8, "opset_import", M(&OPSET)),
        (14, "metadata_props", M(&ENTRY)),
        (25, "functions", M(&FUNCTION)),
    ],
);
static OPSET: Message = message::<p::OperatorSetIdProto>(
    "OperatorSetIdProto",
    &[(1, "domain", Text), (2, "version", Int)],
);
static ENTRY: Message = message::<p::StringStringEntryProto>(
    "StringStringEntryProto",
    &[(1, "key", Text), (2, "value", Text)],
);
static GRAPH: Message = message::<p::GraphProto>(
    "GraphProto",
    &[
        (1, "node", M(&NODE)),
        (2, "name", Text),
        (5, "initializer", M(&TENSOR)),
        (11, "input", M(&VALUE)),
        (12, "output", M(&VALUE)),
        (13, "value_info", M(&VALUE)),
        (15, "sparse_initializer", M(&SPARSE)),
    ],
);
static NODE: Message = message::<p::NodeProto>(
    "NodeProto",
    &[
        (1, "input", Text),
        (2, "output", Text),
        (3, "name", Text),
        (4, "op_type", Text),
        (5, "attribute", M(&ATTRIBUTE)),
        (7, "domain", Text),
        (8, "overload", Text),
    ],
);
static ATTRIBUTE: Message = message::<p::AttributeProto>(
    "AttributeProto",
    &[
        (1, "name", Text),
        (2, "f", Float),
        (3, "i", Int),
        (4, "s", Bytes),
        (5, "t", M(&TENSOR)),
        (6, "g", M(&GRAPH)),
        (7, "floats", Floats),
        (8, "ints", Ints),
        (9, "strings", Bytes),
        (14, "tp", M(&TYPE)),
        (20, "type", Int),
        (21, "ref_attr_name", Text),
        (22, "sparse_tensor", M(&SPARSE)),
    ],
);
static TENSOR: Message = message::<p::TensorProto>(
    "TensorProto",
    &[
        (1, "dims", Ints),
        (2, "data_type", Int),
        (4, "float_data", Floats),
        (5, "int32_data", Ints),
        (6, "string_data", Bytes),
        (7, "int64_data", Ints),
        (8, "name", Text),
        (9, "raw_data", Bytes),
        (10, "double_data", Doubles),
        (11, "uint64_data", Ints),
        (13, "external_data", M(&ENTRY)),
        (14, "data_location", Int),
    ],
);
static SPARSE: Message = message::<p::SparseTensorProto>(
    "SparseTensorProto",
    &[(1, "values", M(&TENSOR)), (2, "indices", M(&TENSOR)), (3, "dims", Ints)],
);
static VALUE: Message =
    message::<p::ValueInfoProto>("ValueInfoProto", &[(1, "name", Text), (2, "type", M(&TYPE))]);
static TYPE: Message = message::<p::TypeProto>(
    "TypeProto",
    &[
        (1, "tensor_type", M(&TENSOR_TYPE)),
        (4, "sequence_type", M(&ELEM)),
        (9, "optional_type", M(&ELEM)),
    ],
);
static ELEM: Message = message::<p::ElemTypeProto>("TypeProto", &[(1, "elem_type", M(&TYPE))]);
static TENSOR_TYPE: Message = message::<p::TensorTypeProto>(
    "TypeProto.Tensor",
    &[(1, "elem_type", Int), (2, "shape", M(&SHAPE))],
);
static SHAPE: Message =
    message::<p::TensorShapeProto>("TensorShapeProto", &[(1, "dim", M(&DIMENSION))]);
static DIMENSION: Message =
    message::<p::DimensionProto>("Dimension", &[(1, "dim_value", Int), (2, "dim_param", Text)]);
static FUNCTION: Message = message::<p::FunctionProto>(
    "FunctionProto",
    &[
        (1, "name", Text),
        (4, "input", Text),
        (5, "output", Text),
        (6, "attribute", Text),
        (7, "node", M(&NODE)),
        (9, "opset_import", M(&OPSET)),
        (10, "domain", Text),
        (11, "attribute_proto", M(&ATTRIBUTE)),
        (13, "overload", Text),
    ],
);
