//! State of a writer: names, open graphs, constants, and the making of nodes.

use super::function::Functions;
use super::types;
use crate::error::FrontendError;
use crate::onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, attr,
};
use bytes::Bytes;
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype, Sym};
use hub_ir::build::scalar_bytes;
use hub_ir::graph::Op;
use hub_ir::{Graph, Value};
use std::collections::{HashMap, HashSet};

/// What writing a part gives, or why it cannot be written.
pub(super) type Got<T> = Result<T, FrontendError>;

/// An ONNX value that is a tensor.
#[derive(Clone, Debug)]
pub(super) struct X {
    pub name: String,
    pub ty: Dtype,
}

/// Where a symbol's value can be read.
#[derive(Clone, Debug)]
pub(super) enum SymAt {
    /// The size of an axis of a value.
    Axis(String, usize),
    /// An element of an int64 vector.
    Element(String, usize),
    /// An int64 vector of one element.
    Vector(String),
}

/// A graph that is being written.
#[derive(Default)]
pub(super) struct Frame {
    pub nodes: Vec<NodeProto>,
    /// Names that its nodes make.
    pub made: HashSet<String>,
    /// Int64 vectors of one element that hold these sizes.
    pub dims: HashMap<Dim, String>,
    pub syms: HashMap<Sym, SymAt>,
}

/// Hands out names that no other thing of its kind has.
#[derive(Default)]
pub(super) struct Names(HashMap<String, u32>);

impl Names {
    /// The name itself, or with a number where it is taken (or empty).
    pub fn fresh(&mut self, want: &str) -> String {
        let base = if want.is_empty() { "v" } else { want };
        let mut name = base.to_string();
        while let Some(n) = self.0.get_mut(&name) {
            *n += 1;
            // A name that ends so may itself be taken.
            let next = format!("{base}_{n}");
            if !self.0.contains_key(&next) {
                name = next;
            }
        }
        self.0.insert(name.clone(), 0);
        name
    }

    pub fn take(&mut self, name: &str) {
        self.0.entry(name.to_string()).or_insert(0);
    }
}

/// What a function's body takes from where it is called, beside its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// A value: an operand, or a constant too large to be in the body.
    Value(Value),
    /// A size that no operand shows.
    Size(Sym),
}

/// The main graph with its bodies, or a function with its. Names of values are unique within it.
#[derive(Default)]
pub(super) struct Scope {
    pub frames: Vec<Frame>,
    pub initializers: Vec<TensorProto>,
    pub names: Names,
    /// Inputs of a function, found while its body is written; none for the main graph.
    pub inputs: Option<Vec<(String, Taken)>>,
    node_names: Names,
    values: HashMap<Value, String>,
    consts: HashMap<u32, String>,
    small: HashMap<(Dtype, Vec<i64>, Vec<u8>), String>,
}

impl Scope {
    /// An empty main graph, or an empty function.
    pub fn new(function: bool) -> Scope {
        let inputs = function.then(Vec::new);
        Scope { frames: vec![Frame::default()], inputs, ..Scope::default() }
    }
}

/// State of one conversion.
pub(super) struct Writer {
    /// A copy of the graph, to which expansions add nodes.
    pub g: Graph,
    /// The node being written, for labels and messages.
    pub at: String,
    /// What is being written.
    pub scope: Scope,
    /// The functions so far.
    pub functions: Functions,
}

impl Writer {
    pub fn new(g: &Graph) -> Writer {
        Writer {
            g: g.clone(),
            at: String::new(),
            scope: Scope::new(false),
            functions: Functions::default(),
        }
    }

    pub fn top(&mut self) -> &mut Frame {
        self.scope.frames.last_mut().expect("a graph is being written")
    }

    /// Whether a value of the graph has a name already.
    pub fn defined(&self, v: Value) -> bool {
        self.scope.values.contains_key(&v)
    }

    /// Says that a value of the graph has this name in the file.
    pub fn define(&mut self, v: Value, name: &str) {
        self.scope.values.insert(v, name.to_string());
    }

    /// The name of a value; a constant is written where it is first used.
    pub fn name(&mut self, v: Value) -> Got<String> {
        if let Some(n) = self.scope.values.get(&v) {
            return Ok(n.clone());
        }
        let constant = self.g.def(v).and_then(|n| match self.g.nodes[n].op {
            Op::Const(c) => Some((c, self.g.nodes[n].name.clone())),
            _ => None,
        });
        let Some((c, label)) = constant else {
            return Err(FrontendError::invalid(format!("internal error: {v} is not written yet")));
        };
        if let Some(n) = self.scope.consts.get(&c.0) {
            return Ok(n.clone());
        }
        if self.scope.inputs.is_some() && !super::function::holds(&self.g.consts[c]) {
            let name = self.input("weight", Taken::Value(v));
            self.scope.consts.insert(c.0, name.clone());
            return Ok(name);
        }
        let label = if self.scope.inputs.is_some() { "const" } else { &label };
        let name = self.scope.names.fresh(label);
        let tensor = super::file::tensor(&name, &self.g.consts[c])?;
        self.scope.initializers.push(tensor);
        self.scope.consts.insert(c.0, name.clone());
        Ok(name)
    }

    /// As [`Writer::name`]; the empty name for an operand that is left out.
    pub fn opt(&mut self, v: Option<&Value>) -> Got<Option<X>> {
        v.and_then(|v| v.some()).map(|v| self.x(v)).transpose()
    }

    /// A tensor operand.
    pub fn x(&mut self, v: Value) -> Got<X> {
        let ty = match self.g.ty(v) {
            Type::Tensor(t) => t.dtype,
            _ => return Err(FrontendError::invalid("internal error: a tensor is expected")),
        };
        Ok(X { name: self.name(v)?, ty })
    }

    pub fn dims(&self, v: Value) -> Vec<Dim> {
        self.g.dims(v).to_vec()
    }

    /// An error for something that has no form in ONNX.
    pub fn refuse<T>(&self, what: impl Into<String>) -> Got<T> {
        let e = FrontendError::unsupported(what);
        // In a function whoever writes it names the node.
        Err(if self.scope.inputs.is_some() { e } else { e.at(&self.at) })
    }

    /// What to call things of the node being written: after the model's node in the main graph, after
    /// the operator (or graph) in functions, so that equal bodies are equal.
    pub fn label(&self, op: &str) -> String {
        let own = self.at.is_empty() || self.scope.inputs.is_some();
        if own { op.to_string() } else { self.at.clone() }
    }

    /// A further input of the function being written.
    pub fn input(&mut self, want: &str, from: Taken) -> String {
        let name = self.scope.names.fresh(want);
        self.scope.inputs.get_or_insert_default().push((name.clone(), from));
        name
    }

    /// Makes a node with `outs` outputs.
    pub fn raw_n(
        &mut self,
        op: &str,
        ins: &[&str],
        attribute: Vec<AttributeProto>,
        outs: usize,
    ) -> Vec<String> {
        self.call(["", op], ins, attribute, outs)
    }

    /// Makes a node of an operator of some domain.
    pub fn call(
        &mut self,
        [domain, op]: [&str; 2],
        ins: &[&str],
        attribute: Vec<AttributeProto>,
        outs: usize,
    ) -> Vec<String> {
        let label = self.label(op);
        let output: Vec<String> = (0..outs).map(|_| self.scope.names.fresh(&label)).collect();
        let mut input: Vec<String> = ins.iter().map(|s| s.to_string()).collect();
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let name = self.scope.node_names.fresh(&label);
        let top = self.top();
        top.made.extend(output.iter().cloned());
        top.nodes.push(NodeProto {
            input,
            output: output.clone(),
            name,
            op_type: op.to_string(),
            domain: domain.to_string(),
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Makes a node with one output.
    pub fn raw(&mut self, op: &str, ins: &[&str], attrs: Vec<AttributeProto>) -> String {
        self.raw_n(op, ins, attrs, 1).remove(0)
    }

    /// Makes a node whose first operands are of one element type, which the operator may not take:
    /// then it runs in a wider type between casts. Its result is of that type, or a predicate's.
    pub fn op_with(
        &mut self,
        op: &str,
        data: &[&X],
        rest: &[&str],
        attrs: Vec<AttributeProto>,
    ) -> Got<X> {
        let ty = data[0].ty;
        let within = self.compute_type(op, ty)?;
        let mut wide = vec![];
        for x in data {
            wide.push(self.cast(x, within).name);
        }
        let ins: Vec<&str> = wide.iter().map(|s| &**s).chain(rest.iter().copied()).collect();
        let name = self.raw(op, &ins, attrs);
        match types::result(op) {
            Some(ty) => Ok(X { name, ty }),
            None => Ok(self.cast(&X { name, ty: within }, ty)),
        }
    }

    /// As [`Writer::op_with`], all operands of one type.
    pub fn op(&mut self, op: &str, data: &[&X]) -> Got<X> {
        self.op_with(op, data, &[], vec![])
    }

    /// The type in which an operator runs for operands of type `ty`.
    pub fn compute_type(&self, op: &str, ty: Dtype) -> Got<Dtype> {
        match types::runs_in(op, ty) {
            Some(t) => Ok(t),
            None => self.refuse(format!("ONNX has no {op} of {ty}")),
        }
    }

    /// Value conversion; none where the type is right.
    pub fn cast(&mut self, x: &X, to: Dtype) -> X {
        if x.ty == to {
            return x.clone();
        }
        X { name: self.raw("Cast", &[&x.name], vec![int("to", to as i64)]), ty: to }
    }

    /// A small constant; equal ones are one initializer.
    pub fn constant(&mut self, dtype: Dtype, dims: &[i64], data: Vec<u8>) -> String {
        let key = (dtype, dims.to_vec(), data);
        if let Some(n) = self.scope.small.get(&key) {
            return n.clone();
        }
        let name = self.scope.names.fresh("const");
        self.scope.initializers.push(TensorProto {
            dims: dims.to_vec(),
            data_type: dtype as i32,
            name: name.clone(),
            raw_data: Some(Bytes::from(key.2.clone())),
            ..TensorProto::default()
        });
        self.scope.small.insert(key, name.clone());
        name
    }

    /// A scalar constant of a real type.
    pub fn scalar(&mut self, ty: Dtype, x: f64) -> X {
        X { name: self.constant(ty, &[], scalar_bytes(ty, x)), ty }
    }

    /// An int64 vector.
    pub fn ints(&mut self, xs: &[i64]) -> String {
        let data = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Dtype::I64, &[xs.len() as i64], data)
    }

    /// Writes a graph of its own within the current one: `f` writes its nodes and gives its results.
    pub fn graph(
        &mut self,
        name: &str,
        input: Vec<ValueInfoProto>,
        f: impl FnOnce(&mut Writer) -> Got<Vec<String>>,
    ) -> Got<GraphProto> {
        self.scope.frames.push(Frame::default());
        let results = f(self);
        let output = results.map(|r| self.outputs(r));
        let frame = self.scope.frames.pop().expect("pushed above");
        let name = if name.is_empty() { "body" } else { name };
        let (node, output) = (frame.nodes, output?);
        Ok(GraphProto { node, name: name.to_string(), input, output, ..GraphProto::default() })
    }

    /// A graph's results must be its own nodes' and differ from each other.
    pub fn outputs(&mut self, results: Vec<String>) -> Vec<ValueInfoProto> {
        let mut seen = HashSet::new();
        let mut outs = vec![];
        for name in results {
            let own = self.top().made.contains(&name) && seen.insert(name.clone());
            let name = if own { name } else { self.raw("Identity", &[&name], vec![]) };
            outs.push(ValueInfoProto { name, r#type: None });
        }
        outs
    }
}

/// An integer attribute.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(i), r#type: attr::INT, ..AttributeProto::default() }
}

/// A float attribute.
pub(super) fn float(name: &str, f: f64) -> AttributeProto {
    let f = Some(f as f32);
    AttributeProto { name: name.into(), f, r#type: attr::FLOAT, ..AttributeProto::default() }
}

/// A list of integers.
pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let ints = ints.to_vec();
    AttributeProto { name: name.into(), ints, r#type: attr::INTS, ..AttributeProto::default() }
}

/// A list of floats.
pub(super) fn floats(name: &str, xs: &[f64]) -> AttributeProto {
    let floats = xs.iter().map(|&x| x as f32).collect();
    AttributeProto { name: name.into(), floats, r#type: attr::FLOATS, ..AttributeProto::default() }
}

/// A string.
pub(super) fn string(name: &str, s: &str) -> AttributeProto {
    let s = Some(Bytes::from(s.as_bytes().to_vec()));
    AttributeProto { name: name.into(), s, r#type: attr::STRING, ..AttributeProto::default() }
}

/// A list of strings.
pub(super) fn strings(name: &str, xs: &[&str]) -> AttributeProto {
    let strings = xs.iter().map(|s| Bytes::from(s.as_bytes().to_vec())).collect();
    let r#type = attr::STRINGS;
    AttributeProto { name: name.into(), strings, r#type, ..AttributeProto::default() }
}

/// A graph.
pub(super) fn graph(name: &str, g: GraphProto) -> AttributeProto {
    let g = Some(g);
    AttributeProto { name: name.into(), g, r#type: attr::GRAPH, ..AttributeProto::default() }
}
