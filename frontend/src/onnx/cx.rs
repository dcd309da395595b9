//! What an operator's import works with: its node, operands, attributes, and the graph it builds.

use super::import::Import;
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, attr};
use crate::error::FrontendError;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::{Builder, Source, Tensor, Value};

/// Result of an import.
pub(crate) type Got<T = Value> = Result<T, FrontendError>;

/// A node being imported.
pub(crate) struct Cx<'c, 'g, 'm> {
    /// Where nodes are made.
    pub b: &'c mut Builder<'g>,
    /// The model.
    pub imp: &'c mut Import<'m>,
    /// The node.
    pub node: &'m NodeProto,
    /// Its operands; [`Value::NONE`] where one is left out.
    pub ins: Vec<Value>,
    /// Version of its domain's operators.
    pub version: i64,
}

pub(crate) fn invalid<T>(what: impl Into<String>) -> Got<T> {
    Err(FrontendError::invalid(what))
}

pub(crate) fn unsupported<T>(what: impl Into<String>) -> Got<T> {
    Err(FrontendError::unsupported(what))
}

/// Tensors of more elements are not computed during import.
const MOST_KNOWN: i64 = 1 << 16;

impl<'m> Cx<'_, '_, 'm> {
    /// Operand `i`, which must be there.
    pub fn input(&self, i: usize) -> Got {
        match self.opt(i) {
            Some(v) => Ok(v),
            None => invalid(format!("input {i} is missing")),
        }
    }

    /// Operand `i`, if it is there.
    pub fn opt(&self, i: usize) -> Option<Value> {
        self.ins.get(i).and_then(|v| v.some())
    }

    /// Operand `i`, which must be a tensor.
    pub fn tensor(&self, i: usize) -> Got {
        let v = self.input(i)?;
        match self.b.g.ty(v).as_tensor() {
            Some(_) => Ok(v),
            None => invalid(format!("input {i} is not a tensor")),
        }
    }

    /// Is output `i` asked for?
    pub fn wants(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|n| !n.is_empty())
    }

    pub fn dtype(&self, v: Value) -> Dtype {
        self.b.g.dtype(v)
    }

    pub fn dims(&self, v: Value) -> Vec<Dim> {
        self.b.g.dims(v).to_vec()
    }

    /// One size of an operand, which may have too few axes.
    pub fn dim(&self, v: Value, axis: usize) -> Got<Dim> {
        crate::rank::dim(self.b.g, v, axis)
    }

    /// The sizes of an operand from an axis on.
    pub fn dims_from(&self, v: Value, axis: usize) -> Got<Vec<Dim>> {
        crate::rank::dims_from(self.b.g, v, axis)
    }

    /// The sizes of an operand of at least so many axes.
    pub fn at_least(&self, v: Value, rank: usize) -> Got<Vec<Dim>> {
        crate::rank::at_least(self.b.g, v, rank)
    }

    pub fn rank(&self, v: Value) -> usize {
        self.b.g.dims(v).len()
    }

    /// An axis counted from either end.
    pub fn axis(&self, axis: i64, rank: usize) -> Got<usize> {
        let n = rank as i64;
        let at = if axis < 0 { axis.saturating_add(n) } else { axis };
        if (0..n).contains(&at) {
            return Ok(at as usize);
        }
        invalid(format!("axis {axis} for rank {rank}"))
    }

    /// Distinct axes counted from either end, sorted.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Got<Vec<usize>> {
        let mut out = axes.iter().map(|&a| self.axis(a, rank)).collect::<Got<Vec<_>>>()?;
        out.sort_unstable();
        if out.windows(2).any(|w| w[0] == w[1]) {
            return invalid(format!("axes {axes:?} repeat"));
        }
        Ok(out)
    }

    // Attributes.

    /// The attribute of that name and type.
    fn attr(&self, name: &str, kind: i32) -> Got<Option<&'m AttributeProto>> {
        let Some(a) = self.node.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        let Some(a) = self.imp.attribute(a) else { return Ok(None) };
        // Before IR version 2 attributes carried no type.
        if a.r#type != kind && a.r#type != 0 {
            return invalid(format!("attribute '{name}' is of type {}, not {kind}", a.r#type));
        }
        Ok(Some(a))
    }

    pub fn has(&self, name: &str) -> bool {
        let found = self.node.attribute.iter().find(|a| a.name == name);
        found.is_some_and(|a| self.imp.attribute(a).is_some())
    }

    pub fn int(&self, name: &str, default: i64) -> Got<i64> {
        Ok(self.attr(name, attr::INT)?.map_or(default, |a| a.i()))
    }

    pub fn flag(&self, name: &str, default: bool) -> Got<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub fn float(&self, name: &str, default: f32) -> Got<f32> {
        Ok(self.attr(name, attr::FLOAT)?.map_or(default, |a| a.f()))
    }

    pub fn ints(&self, name: &str) -> Got<Option<Vec<i64>>> {
        Ok(self.attr(name, attr::INTS)?.map(|a| a.ints.clone()))
    }

    pub fn floats(&self, name: &str) -> Got<Option<Vec<f32>>> {
        Ok(self.attr(name, attr::FLOATS)?.map(|a| a.floats.clone()))
    }

    pub fn string(&self, name: &str, default: &str) -> Got<String> {
        match self.attr(name, attr::STRING)? {
            Some(a) => Ok(String::from_utf8_lossy(a.s()).into_owned()),
            None => Ok(default.to_string()),
        }
    }

    pub fn strings(&self, name: &str) -> Got<Option<Vec<String>>> {
        let text = |b: &bytes::Bytes| String::from_utf8_lossy(b).into_owned();
        Ok(self.attr(name, attr::STRINGS)?.map(|a| a.strings.iter().map(text).collect()))
    }

    pub fn tensor_attr(&self, name: &str) -> Got<Option<&'m TensorProto>> {
        Ok(self.attr(name, attr::TENSOR)?.and_then(|a| a.t.as_ref()))
    }

    pub fn graph(&self, name: &str) -> Got<&'m GraphProto> {
        match self.attr(name, attr::GRAPH)?.and_then(|a| a.g.as_ref()) {
            Some(g) => Ok(g),
            None => invalid(format!("attribute '{name}' is missing")),
        }
    }

    pub fn any_attr(&self, name: &str) -> Option<&'m AttributeProto> {
        let a = self.node.attribute.iter().find(|a| a.name == name)?;
        self.imp.attribute(a)
    }

    /// The attribute, or the operand that took its place in later versions, as known integers.
    pub fn ints_or_input(&mut self, name: &str, input: usize) -> Got<Option<Vec<i64>>> {
        if let Some(v) = self.opt(input) {
            return match self.known_ints(v) {
                Some(ints) => Ok(Some(ints)),
                None => unsupported(format!("'{name}' is computed when the model runs"))
                    .map_err(|e: FrontendError| e.advise("make it a constant in the exporter")),
            };
        }
        self.ints(name)
    }

    // Known operands.

    /// The elements of a value that follows from constants.
    pub fn known(&self, v: Value) -> Option<Tensor> {
        hub_ir::known::value_of(self.b.g, v, MOST_KNOWN)
    }

    pub fn known_ints(&self, v: Value) -> Option<Vec<i64>> {
        self.known(v)?.to_i64s().ok()
    }

    /// As f64, from any real dtype.
    pub fn known_floats(&self, v: Value) -> Option<Vec<f64>> {
        let t = self.known(v)?;
        let to = Prim::Cast { to: Dtype::F64, saturate: true };
        let t = hub_ir::known::cast(&to, t)?;
        Some(t.view::<f64>().ok()?.into_owned())
    }

    pub fn known_float(&self, v: Value) -> Option<f64> {
        match self.known_floats(v)?[..] {
            [x] => Some(x),
            _ => None,
        }
    }

    /// The elements of a shape-like operand as sizes, bound when the graph runs where unknown.
    pub fn sizes(&mut self, v: Value, what: &str) -> Got<Vec<Dim>> {
        self.sizes_in(v, what, 0, crate::options::DIM_MAX)
    }

    /// The same for numbers that may be negative or large.
    pub fn sizes_in(&mut self, v: Value, what: &str, min: i64, max: i64) -> Got<Vec<Dim>> {
        if let Some(ints) = self.known_ints(v) {
            return Ok(ints.into_iter().map(Dim::from).collect());
        }
        let name = format!("{}.{what}", self.b.name);
        Ok(self.b.dims_of(v, &name, min, max)?)
    }

    // Building.

    pub fn un(&mut self, op: UnaryOp, x: Value) -> Got {
        Ok(self.b.un(op, x)?)
    }

    pub fn bin(&mut self, op: BinaryOp, x: Value, y: Value) -> Got {
        Ok(self.b.bin(op, x, y)?)
    }

    pub fn bin_scalar(&mut self, op: BinaryOp, x: Value, k: f64) -> Got {
        Ok(self.b.bin_scalar(op, x, k)?)
    }

    pub fn prim(&mut self, p: Prim, ins: &[Value]) -> Got {
        Ok(self.b.prim(p, ins)?)
    }

    pub fn source(&mut self, s: impl Into<Source>, ins: &[Value]) -> Got {
        Ok(self.b.source(s, ins)?)
    }

    pub fn reduce(&mut self, op: ReduceOp, x: Value, axes: &[usize], keep: bool) -> Got {
        Ok(self.b.reduce(op, x, axes, keep)?)
    }

    pub fn reshape(&mut self, x: Value, shape: Vec<Dim>) -> Got {
        Ok(self.b.reshape(x, shape)?)
    }

    pub fn cast(&mut self, x: Value, to: Dtype) -> Got {
        Ok(self.b.cast(x, to)?)
    }

    pub fn scalar(&mut self, dtype: Dtype, x: f64) -> Value {
        self.b.scalar(dtype, x)
    }
}

/// One value.
pub(crate) fn one(v: Value) -> Got<Vec<Value>> {
    Ok(vec![v])
}
