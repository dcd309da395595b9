//! Makes nodes: infers types, records constraints and known contents, appends to a list of nodes.

use crate::content;
use crate::entity::{Node, Region, Value};
use crate::graph::{ConstData, Graph, Op};
use crate::ops::{OpError, Source};
use bytes::Bytes;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype};

/// Appends nodes in order to a list of its own; the caller puts that list into a region
/// ([`Builder::into_region`] at its end, or by splicing [`Builder::finish`]).
pub struct Builder<'g> {
    /// The graph that is built.
    pub g: &'g mut Graph,
    nodes: Vec<Node>,
    /// Given to nodes made from here on.
    pub name: String,
}

/// Result of building: a value, or why the operands do not fit.
pub type Built<T = Value> = Result<T, OpError>;

impl<'g> Builder<'g> {
    /// Starts an empty list; nodes are called `name`.
    pub fn new(g: &'g mut Graph, name: &str) -> Builder<'g> {
        Builder { g, nodes: vec![], name: name.to_string() }
    }

    /// The nodes made, in order.
    pub fn finish(self) -> Vec<Node> {
        self.nodes
    }

    /// Appends the nodes made to a region.
    pub fn into_region(self, r: Region) {
        self.g.regions[r].nodes.extend(self.nodes);
    }

    /// Appends nodes made by another builder of this graph.
    pub(crate) fn append(&mut self, nodes: Vec<Node>) {
        self.nodes.extend(nodes);
    }

    /// Starts a nested list (for a region's body); its nodes do not mix with this one's.
    pub fn nested(&mut self) -> Builder<'_> {
        Builder { name: self.name.clone(), nodes: vec![], g: self.g }
    }

    /// Appends a node with given output types.
    pub fn node(&mut self, op: Op, inputs: &[Value], outs: Vec<Type>) -> Node {
        let n = self.g.make_node(op, inputs.to_vec(), outs, &self.name);
        self.nodes.push(n);
        n
    }

    /// A primitive with any number of outputs.
    pub fn prim_n(&mut self, p: Prim, ins: &[Value]) -> Built<Vec<Value>> {
        let types = self.tensor_types(ins)?;
        let mut eq = std::mem::take(&mut self.g.constraints);
        let outs = p.infer(&types, &mut eq);
        self.g.constraints = eq;
        let outs = outs.map_err(|e| OpError::new(format!("{}: {e}", prim_name(&p))))?;
        let known = content::of_prim(self.g, &p, ins);
        let n = self.node(Op::Prim(p), ins, outs.into_iter().map(Type::Tensor).collect());
        let outs = self.g.nodes[n].outputs.clone();
        if let (Some(known), Some(&v)) = (known, outs.first()) {
            self.g.content.insert(v, known);
        }
        Ok(outs)
    }

    /// A primitive with one output.
    pub fn prim(&mut self, p: Prim, ins: &[Value]) -> Built {
        Ok(self.prim_n(p, ins)?[0])
    }

    /// A source operator; its output types are those of its expansion.
    pub fn source_n(&mut self, s: impl Into<Source>, ins: &[Value]) -> Built<Vec<Value>> {
        let s = s.into();
        let outs = crate::expand::infer(self.g, &s, ins)?;
        let n = self.node(Op::Source(s), ins, outs);
        Ok(self.g.nodes[n].outputs.clone())
    }

    /// A source operator with one output (or whose first output is wanted).
    pub fn source(&mut self, s: impl Into<Source>, ins: &[Value]) -> Built {
        Ok(self.source_n(s, ins)?[0])
    }

    /// A control operation with given output types.
    pub fn control(&mut self, c: Control, ins: &[Value], outs: Vec<Type>) -> Vec<Value> {
        let n = self.node(Op::Control(c), ins, outs);
        self.g.nodes[n].outputs.clone()
    }

    fn tensor_types(&self, ins: &[Value]) -> Built<Vec<TensorType>> {
        let types = ins.iter().map(|&v| match v.some().map(|v| self.g.ty(v)) {
            Some(Type::Tensor(t)) => Ok(t.clone()),
            Some(t) => Err(OpError::new(format!("a tensor expected, not {t:?}"))),
            None => Err(OpError::new("a required input is left out")),
        });
        types.collect()
    }

    /// A constant tensor from row-major little-endian bytes.
    pub fn constant(&mut self, dtype: Dtype, dims: &[i64], data: Bytes) -> Value {
        let dims = dims.iter().map(|&d| d.into()).collect();
        let ty = TensorType { dtype, dims };
        self.const_data(ConstData { ty, data, strings: vec![] })
    }

    /// A constant of the pool.
    pub fn const_data(&mut self, c: ConstData) -> Value {
        let known = content::of_const(&c);
        let ty = Type::Tensor(c.ty.clone());
        let id = self.g.consts.push(c);
        let n = self.node(Op::Const(id), &[], vec![ty]);
        let v = self.g.nodes[n].outputs[0];
        if let Some(known) = known {
            self.g.content.insert(v, known);
        }
        v
    }

    /// A scalar constant of any real dtype (rounded or truncated to it).
    pub fn scalar(&mut self, dtype: Dtype, x: f64) -> Value {
        self.constant(dtype, &[], scalar_bytes(dtype, x).into())
    }

    /// An int64 vector constant.
    pub fn ints(&mut self, xs: &[i64]) -> Value {
        let data: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Dtype::I64, &[xs.len() as i64], data.into())
    }

    /// A f32 constant.
    pub fn floats(&mut self, dims: &[i64], xs: &[f32]) -> Value {
        let data: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Dtype::F32, dims, data.into())
    }

    /// Sizes as an int64 vector.
    pub fn dims_vector(&mut self, dims: Vec<Dim>) -> Value {
        self.prim(Prim::Dims { dims, scalar: false }, &[]).expect("sizes always make a vector")
    }

    /// A size as an int64 scalar.
    pub fn dim_scalar(&mut self, d: Dim) -> Value {
        self.prim(Prim::Dims { dims: vec![d], scalar: true }, &[]).expect("one size is a scalar")
    }

    /// The elements of a small integer tensor as sizes: known ones, or fresh symbols with the
    /// given bounds that are bound to them when the graph runs.
    pub fn dims_of(&mut self, v: Value, name: &str, min: i64, max: i64) -> Built<Vec<Dim>> {
        if let Some(known) = self.g.content.get(&v) {
            return Ok(known.clone());
        }
        let n = self.g.tensor(v).count().as_const().filter(|n| (0..=64).contains(n));
        let n =
            n.ok_or_else(|| OpError::new(format!("the number of sizes in {name} is unknown")))?;
        let syms: Vec<_> = (0..n).map(|_| self.g.new_sym(name, min, max)).collect();
        self.prim_n(Prim::BindSyms { syms: syms.clone() }, &[v])?;
        let dims: Vec<Dim> = syms.into_iter().map(Dim::from).collect();
        self.g.content.insert(v, dims.clone());
        Ok(dims)
    }

    /// Elementwise, one argument.
    pub fn un(&mut self, op: UnaryOp, x: Value) -> Built {
        self.prim(Prim::Unary(op), &[x])
    }

    /// Elementwise, two arguments, broadcasting.
    pub fn bin(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        let ins = crate::ones::level(self, &[a, b])?;
        self.prim(Prim::Binary(op), &ins)
    }

    /// Elementwise with a scalar constant of x's dtype.
    pub fn bin_scalar(&mut self, op: BinaryOp, x: Value, k: f64) -> Built {
        let k = self.scalar(self.g.dtype(x), k);
        self.bin(op, x, k)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Add, a, b)
    }
    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Sub, a, b)
    }
    /// `a * b`.
    pub fn mul(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Mul, a, b)
    }
    /// `a / b`.
    pub fn div(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Div, a, b)
    }
    /// `max(a, b)`.
    pub fn max(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Max, a, b)
    }
    /// `min(a, b)`.
    pub fn min(&mut self, a: Value, b: Value) -> Built {
        self.bin(BinaryOp::Min, a, b)
    }
    /// `cond ? a : b`.
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Built {
        let ins = crate::ones::level(self, &[cond, a, b])?;
        self.prim(Prim::Select, &ins)
    }

    /// The type of an operand that must be a tensor.
    fn tensor(&self, x: Value) -> Built<&TensorType> {
        let ty = x.some().map(|v| self.g.ty(v));
        let ty = ty.ok_or_else(|| OpError::new("a required input is left out"))?;
        ty.as_tensor().ok_or_else(|| OpError::new(format!("a tensor expected, not {ty:?}")))
    }

    /// Value conversion; none where the dtype is already right.
    pub fn cast(&mut self, x: Value, to: Dtype) -> Built {
        if self.tensor(x)?.dtype == to {
            return Ok(x);
        }
        self.prim(Prim::Cast { to, saturate: true }, &[x])
    }

    /// Same elements, other shape; none where the shape is already right.
    pub fn reshape(&mut self, x: Value, shape: Vec<Dim>) -> Built {
        if self.tensor(x)?.dims == shape {
            return Ok(x);
        }
        self.prim(Prim::Reshape { shape }, &[x])
    }

    /// Broadcast to a shape; none where it is already right.
    pub fn broadcast(&mut self, x: Value, shape: Vec<Dim>) -> Built {
        if self.tensor(x)?.dims == shape {
            return Ok(x);
        }
        self.prim(Prim::Broadcast { shape }, &[x])
    }

    /// x where it is to broadcast against other dims: sizes that are 1 wherever there is anything are 1.
    pub fn leveled(&mut self, x: Value, against: &[Dim]) -> Built {
        crate::ones::leveled(self, x, &[against.to_vec()])
    }

    /// Permuted axes; none for the identity.
    pub fn transpose(&mut self, x: Value, perm: &[usize]) -> Built {
        let rank = self.tensor(x)?.rank();
        if perm.iter().enumerate().all(|(i, &p)| i == p) && perm.len() == rank {
            return Ok(x);
        }
        self.prim(Prim::Transpose { perm: perm.iter().map(|&p| p as u32).collect() }, &[x])
    }

    /// Elements `start..start+len` of one axis.
    pub fn narrow(&mut self, x: Value, axis: usize, start: Dim, len: Dim) -> Built {
        let rank = self.tensor(x)?.rank();
        within(axis, rank)?;
        let mut starts = vec![Dim::from(0i64); rank];
        let mut lens = self.g.dims(x).to_vec();
        starts[axis] = start;
        lens[axis] = len;
        self.prim(Prim::Slice { start: starts, len: lens, step: vec![1; rank] }, &[x])
    }

    /// Joined along an axis; a single operand stays.
    pub fn concat(&mut self, xs: &[Value], axis: usize) -> Built {
        match xs {
            [x] => Ok(*x),
            _ => self.prim(Prim::Concat { axis: axis as u32 }, xs),
        }
    }

    /// Reduction over axes (sorted here).
    pub fn reduce(&mut self, op: ReduceOp, x: Value, axes: &[usize], keep: bool) -> Built {
        let mut axes: Vec<u32> = axes.iter().map(|&a| a as u32).collect();
        axes.sort_unstable();
        axes.dedup();
        self.prim(Prim::Reduce { op, axes, keep }, &[x])
    }

    /// x with an axis of size 1 put in at `axis`.
    pub fn unsqueeze(&mut self, x: Value, axis: usize) -> Built {
        let mut dims = self.tensor(x)?.dims.clone();
        within(axis, dims.len() + 1)?;
        dims.insert(axis, 1i64.into());
        self.reshape(x, dims)
    }

    /// x without axis `axis`, whose size is 1.
    pub fn squeeze(&mut self, x: Value, axis: usize) -> Built {
        let mut dims = self.tensor(x)?.dims.clone();
        within(axis, dims.len())?;
        dims.remove(axis);
        self.reshape(x, dims)
    }

    /// NumPy's matmul: batch axes broadcast, vectors get an axis that is taken off again.
    pub fn matmul(&mut self, a: Value, b: Value) -> Built {
        crate::ops::matmul::numpy(self, a, b)
    }
}

fn within(axis: usize, rank: usize) -> Built<()> {
    if axis < rank {
        return Ok(());
    }
    Err(OpError::new(format!("axis {axis} of rank {rank}")))
}

/// Short name of a primitive for messages: its variant.
pub fn prim_name(p: &Prim) -> String {
    let s = format!("{p:?}");
    let end = s.find(|c: char| !c.is_alphanumeric()).unwrap_or(s.len());
    match p {
        Prim::Unary(_) | Prim::Binary(_) => s,
        _ => s[..end].to_string(),
    }
}

/// Little-endian bytes of one element.
pub fn scalar_bytes(dtype: Dtype, x: f64) -> Vec<u8> {
    use Dtype::*;
    match dtype {
        F32 => (x as f32).to_le_bytes().to_vec(),
        F64 => x.to_le_bytes().to_vec(),
        F16 => half::f16::from_f64(x).to_le_bytes().to_vec(),
        BF16 => half::bf16::from_f64(x).to_le_bytes().to_vec(),
        I8 | I4 | I2 => (x as i8).to_le_bytes().to_vec(),
        U8 | U4 | U2 => (x as u8).to_le_bytes().to_vec(),
        I16 => (x as i16).to_le_bytes().to_vec(),
        U16 => (x as u16).to_le_bytes().to_vec(),
        I32 => (x as i32).to_le_bytes().to_vec(),
        U32 => (x as u32).to_le_bytes().to_vec(),
        I64 => (x as i64).to_le_bytes().to_vec(),
        U64 => (x as u64).to_le_bytes().to_vec(),
        Bool => vec![u8::from(x != 0.0)],
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 | Str | C64 | C128 => {
            vec![0; dtype.size()]
        }
    }
}
