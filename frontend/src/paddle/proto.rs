//! The messages of a ProgramDesc, written from the field numbers of Paddle's `framework.proto`
//! (proto2). Only what import needs is declared; prost skips the rest.
#![allow(missing_docs)]

use prost::Message;

/// A whole program.
#[derive(Clone, PartialEq, Message)]
pub struct ProgramDesc {
    #[prost(message, repeated, tag = "1")]
    pub blocks: Vec<BlockDesc>,
    #[prost(message, optional, tag = "4")]
    pub version: Option<Version>,
}

/// `major * 1_000_000 + minor * 1000 + patch`.
#[derive(Clone, PartialEq, Message)]
pub struct Version {
    #[prost(int64, optional, tag = "1")]
    pub version: Option<i64>,
}

/// A scope of variables and a list of operators.
#[derive(Clone, PartialEq, Message)]
pub struct BlockDesc {
    #[prost(int32, required, tag = "1")]
    pub idx: i32,
    #[prost(int32, required, tag = "2")]
    pub parent_idx: i32,
    #[prost(message, repeated, tag = "3")]
    pub vars: Vec<VarDesc>,
    #[prost(message, repeated, tag = "4")]
    pub ops: Vec<OpDesc>,
}

/// A declared variable.
#[derive(Clone, PartialEq, Message)]
pub struct VarDesc {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<VarType>,
    #[prost(bool, optional, tag = "3")]
    pub persistable: Option<bool>,
}

/// A variable's type.
#[derive(Clone, PartialEq, Message)]
pub struct VarType {
    #[prost(int32, required, tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "3")]
    pub dense_tensor: Option<LodTensorDesc>,
    #[prost(message, optional, tag = "4")]
    pub tensor_array: Option<LodTensorDesc>,
}

/// A dense tensor's type with its number of LoD levels.
#[derive(Clone, PartialEq, Message)]
pub struct LodTensorDesc {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorDesc>,
    #[prost(int32, optional, tag = "2")]
    pub lod_level: Option<i32>,
}

/// Element type and dimensions.
#[derive(Clone, PartialEq, Message)]
pub struct TensorDesc {
    #[prost(int32, required, tag = "1")]
    pub data_type: i32,
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub dims: Vec<i64>,
}

/// An operator.
#[derive(Clone, PartialEq, Message)]
pub struct OpDesc {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<Slot>,
    #[prost(message, repeated, tag = "2")]
    pub outputs: Vec<Slot>,
    #[prost(string, required, tag = "3")]
    pub r#type: String,
    #[prost(message, repeated, tag = "4")]
    pub attrs: Vec<Attr>,
}

/// Variables given to one named parameter of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct Slot {
    #[prost(string, required, tag = "1")]
    pub parameter: String,
    #[prost(string, repeated, tag = "2")]
    pub arguments: Vec<String>,
}

/// An attribute; `type` says which field holds it.
#[derive(Clone, PartialEq, Message)]
pub struct Attr {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(int32, required, tag = "2")]
    pub r#type: i32,
    #[prost(int32, optional, tag = "3")]
    pub i: Option<i32>,
    #[prost(float, optional, tag = "4")]
    pub f: Option<f32>,
    #[prost(string, optional, tag = "5")]
    pub s: Option<String>,
    #[prost(int32, repeated, packed = "false", tag = "6")]
    pub ints: Vec<i32>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(string, repeated, tag = "8")]
    pub strings: Vec<String>,
    #[prost(bool, optional, tag = "10")]
    pub b: Option<bool>,
    #[prost(bool, repeated, packed = "false", tag = "11")]
    pub bools: Vec<bool>,
    #[prost(int32, optional, tag = "12")]
    pub block_idx: Option<i32>,
    #[prost(int64, optional, tag = "13")]
    pub l: Option<i64>,
    #[prost(int32, repeated, packed = "false", tag = "14")]
    pub blocks_idx: Vec<i32>,
    #[prost(int64, repeated, packed = "false", tag = "15")]
    pub longs: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "16")]
    pub float64s: Vec<f64>,
    #[prost(string, optional, tag = "17")]
    pub var_name: Option<String>,
    #[prost(string, repeated, tag = "18")]
    pub vars_name: Vec<String>,
    #[prost(double, optional, tag = "19")]
    pub float64: Option<f64>,
    #[prost(message, optional, tag = "20")]
    pub scalar: Option<Scalar>,
    #[prost(message, repeated, tag = "21")]
    pub scalars: Vec<Scalar>,
}

/// A number of one of several kinds: 1 bool, 2 integer, 3 real, 4 complex.
#[derive(Clone, PartialEq, Message)]
pub struct Scalar {
    #[prost(int32, required, tag = "1")]
    pub r#type: i32,
    #[prost(bool, optional, tag = "2")]
    pub b: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(double, optional, tag = "4")]
    pub r: Option<f64>,
}
