//! A Paddle program as both formats are read into: blocks of operators on variables, named slots,
//! plain attributes. ProgramDesc names its slots; PIR's operands are positional, so their slots
//! carry no name here and the operator table gives them one.

use hub_ir::Dtype;
use std::collections::BTreeMap;

/// Index into [`Program::vars`].
pub type Var = usize;

/// Which format a program comes from; some operators differ in slots, attributes and defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// ProgramDesc: variables are mutable, slots are named.
    Legacy,
    /// PIR: values are defined once (but for tensor arrays), operands are positional.
    Pir,
}

/// A declared type; a dim of −1 is not known.
#[derive(Clone, PartialEq, Debug)]
pub enum VarType {
    /// A tensor.
    Tensor(Dtype, Vec<i64>),
    /// A tensor array; dims of its elements.
    Array(Dtype, Vec<i64>),
    /// PIR's list of values.
    List(Vec<VarType>),
    /// Feed and fetch lists, scopes, readers and what else holds no data.
    Other,
}

/// A variable or value.
#[derive(Clone, PartialEq, Debug)]
pub struct VarInfo {
    /// Its name (for PIR: `%id`, or the parameter's name).
    pub name: String,
    /// What is declared of it.
    pub ty: VarType,
}

/// An attribute's value. Numbers keep their kind here and are read as any kind.
#[derive(Clone, PartialEq, Debug)]
pub enum Attr {
    /// A truth value.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A real of any width.
    Float(f64),
    /// Text (also PIR's dtypes, layouts).
    Str(String),
    /// Integers; an empty list of any kind.
    Ints(Vec<i64>),
    /// Reals.
    Floats(Vec<f64>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts.
    Strs(Vec<String>),
    /// Something that no operator here reads (places, complex numbers, nested lists).
    Other,
}

/// An operator.
#[derive(Clone, PartialEq, Debug)]
pub struct OpDesc {
    /// Its name; PIR's builtin and control dialects keep a prefix (`builtin.`, `cf.`).
    pub kind: String,
    /// Where it stands, for messages.
    pub place: String,
    /// Operands by slot; an operand that is left out is an empty list.
    pub ins: Vec<(String, Vec<Var>)>,
    /// Results by slot.
    pub outs: Vec<(String, Vec<Var>)>,
    /// Attributes by name.
    pub attrs: BTreeMap<String, Attr>,
    /// Blocks that it holds.
    pub blocks: Vec<usize>,
}

/// A list of operators.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Block {
    /// Values given on entry (PIR's loops).
    pub args: Vec<Var>,
    /// In execution order.
    pub ops: Vec<OpDesc>,
}

/// A parameter as the program declares it.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// The variable that it fills.
    pub var: Var,
    /// Name, by which the files are ordered or called.
    pub name: String,
    /// Declared element type and dims.
    pub ty: (Dtype, Vec<i64>),
}

/// A program without its parameters' data.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// Where it comes from.
    pub dialect: Dialect,
    /// Variables of all blocks.
    pub vars: Vec<VarInfo>,
    /// Blocks; the first one is the model.
    pub blocks: Vec<Block>,
    /// Persistable parameters in the order of the combined file: by name, bytewise.
    pub params: Vec<Param>,
    /// Variables that are declared with offsets of sequences (LoD), and in how many levels.
    pub lods: BTreeMap<Var, usize>,
}

/// The dtype with number `n` in Paddle's `VarType.Type`.
pub fn dtype_of_number(n: i64) -> Option<Dtype> {
    Some(match n {
        0 => Dtype::Bool,
        1 => Dtype::I16,
        2 => Dtype::I32,
        3 => Dtype::I64,
        4 => Dtype::F16,
        5 => Dtype::F32,
        6 => Dtype::F64,
        19 => Dtype::U64,
        20 => Dtype::U8,
        21 => Dtype::I8,
        22 => Dtype::BF16,
        23 => Dtype::C64,
        24 => Dtype::C128,
        32 => Dtype::F8E4M3FN,
        33 => Dtype::F8E5M2,
        _ => return None,
    })
}

/// The dtype that PIR calls `name`, as an attribute (`float32`) or a type (`t_f32`).
pub fn dtype_of_name(name: &str) -> Option<Dtype> {
    Some(match name.strip_prefix("t_").unwrap_or(name) {
        "bool" => Dtype::Bool,
        "int8" | "i8" => Dtype::I8,
        "uint8" | "ui8" => Dtype::U8,
        "int16" | "i16" => Dtype::I16,
        "int32" | "i32" => Dtype::I32,
        "int64" | "i64" | "index" => Dtype::I64,
        "float16" | "f16" => Dtype::F16,
        "bfloat16" | "bf16" => Dtype::BF16,
        "float32" | "f32" => Dtype::F32,
        "float64" | "f64" => Dtype::F64,
        "complex64" | "c64" => Dtype::C64,
        "complex128" | "c128" => Dtype::C128,
        "float8_e4m3fn" | "f8e4m3fn" => Dtype::F8E4M3FN,
        "float8_e5m2" | "f8e5m2" => Dtype::F8E5M2,
        _ => return None,
    })
}
