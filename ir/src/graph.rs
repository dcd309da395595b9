//! The graph and its nodes.

use crate::entity::{ConstId, EntityMap, Node, Region, Value};
use crate::ops::Source;
use bytes::Bytes;
use hub_abi::pgraph::Control;
use hub_abi::prim::Prim;
use hub_abi::shape::{Constraints, TensorType, Type};
use hub_abi::{Dim, Dtype, Sym, SymInfo};
use std::collections::HashMap;

/// What a node does.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A tensor of the constant pool; no inputs, one output.
    Const(ConstId),
    /// A primitive.
    Prim(Prim),
    /// An operator of the model's framework; means its expansion.
    Source(Source),
    /// What fusion makes: computed as one kernel; means its region (params are the inputs,
    /// results the outputs).
    Group {
        /// What the kernel is built around.
        kind: GroupKind,
        /// The meaning.
        region: Region,
    },
    /// Control flow, sequences, optionals.
    Control(Control),
}

/// What a group is built around.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GroupKind {
    /// Elementwise and movement only.
    Map,
    /// Reductions over one set of axes with elementwise before, between and after.
    Row,
    /// A contraction with prologue and epilogue.
    Contract,
    /// A convolution with epilogue.
    Conv,
    /// A window reduction with epilogue.
    Window,
}

/// A node: an operation on values.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeData {
    /// What.
    pub op: Op,
    /// Operands; [`Value::NONE`] where one is left out.
    pub inputs: Vec<Value>,
    /// Results.
    pub outputs: Vec<Value>,
    /// Where it comes from in the model (a node's or variable's name), for messages.
    pub name: String,
}

/// Where a value is defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// Output of a node, by position.
    Node(Node, u32),
    /// Param of a region, by position.
    Param(Region, u32),
}

/// A value: its type and definition.
#[derive(Clone, PartialEq, Debug)]
pub struct ValueData {
    /// Its type.
    pub ty: Type,
    /// Its definition.
    pub def: Def,
}

/// A list of nodes in execution order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RegionData {
    /// Values given on entry.
    pub params: Vec<Value>,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Values given back.
    pub results: Vec<Value>,
}

/// A constant tensor: row-major little-endian bytes (or strings).
#[derive(Clone, PartialEq, Debug)]
pub struct ConstData {
    /// Element type and (constant) dims.
    pub ty: TensorType,
    /// The bytes; often a slice of the model file.
    pub data: Bytes,
    /// For dtype `Str`: the strings (and `data` is empty).
    pub strings: Vec<String>,
}

/// A model.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Symbols of dimension expressions.
    pub syms: Vec<SymInfo>,
    /// Equalities that must hold when symbols are bound.
    pub constraints: Constraints,
    /// Values.
    pub values: EntityMap<Value, ValueData>,
    /// Nodes, alive or not; the living ones are those that regions list.
    pub nodes: EntityMap<Node, NodeData>,
    /// Regions.
    pub regions: EntityMap<Region, RegionData>,
    /// Constants.
    pub consts: EntityMap<ConstId, ConstData>,
    /// The region that is the model.
    pub root: Option<Region>,
    /// Names of inputs (the root's params), in order.
    pub inputs: Vec<String>,
    /// Names of outputs (the root's results), in order.
    pub outputs: Vec<String>,
    /// Known elements of small integer tensors, as dimensions (see [`crate::content`]).
    pub content: HashMap<Value, Vec<Dim>>,
    /// Bytes of constants that inferring types has built and taken away again.
    pub(crate) tried: usize,
}

impl Graph {
    /// An empty graph with a root region.
    pub fn new() -> Graph {
        let mut g = Graph::default();
        g.root = Some(g.regions.push(RegionData::default()));
        g
    }

    /// The root region.
    pub fn root(&self) -> Region {
        self.root.expect("a graph has a root")
    }

    /// A value's type.
    pub fn ty(&self, v: Value) -> &Type {
        &self.values[v].ty
    }

    /// A tensor value's type; panics on sequences (callers know from the operator).
    pub fn tensor(&self, v: Value) -> &TensorType {
        self.values[v].ty.as_tensor().expect("a tensor value")
    }

    /// Element type of a tensor value.
    pub fn dtype(&self, v: Value) -> Dtype {
        self.tensor(v).dtype
    }

    /// Dimensions of a tensor value.
    pub fn dims(&self, v: Value) -> &[Dim] {
        &self.tensor(v).dims
    }

    /// The node that defines a value, if a node does.
    pub fn def(&self, v: Value) -> Option<Node> {
        match self.values.get(v)?.def {
            Def::Node(n, _) => Some(n),
            Def::Param(..) => None,
        }
    }

    /// The constant that a value is.
    pub fn as_const(&self, v: Value) -> Option<&ConstData> {
        match self.nodes[self.def(v)?].op {
            Op::Const(c) => Some(&self.consts[c]),
            _ => None,
        }
    }

    /// The primitive that defines a value.
    pub fn as_prim(&self, v: Value) -> Option<(Node, &Prim)> {
        let n = self.def(v)?;
        match &self.nodes[n].op {
            Op::Prim(p) => Some((n, p)),
            _ => None,
        }
    }

    /// A fresh symbol with inclusive bounds; the name is made unique.
    pub fn new_sym(&mut self, name: &str, min: i64, max: i64) -> Sym {
        let taken = |n: &str| self.syms.iter().any(|s| s.name == n);
        let mut unique = name.to_string();
        // Where names repeat, the table's length is a number that is rarely taken.
        let mut i = self.syms.len();
        while taken(&unique) {
            unique = format!("{name}_{i}");
            i += 1;
        }
        self.syms.push(SymInfo { name: unique, min, max });
        Sym(self.syms.len() as u32 - 1)
    }

    /// A fresh empty region.
    pub fn new_region(&mut self) -> Region {
        self.regions.push(RegionData::default())
    }

    /// Adds a param to a region.
    pub fn add_param(&mut self, r: Region, ty: Type) -> Value {
        let at = self.regions[r].params.len() as u32;
        let v = self.values.push(ValueData { ty, def: Def::Param(r, at) });
        self.regions[r].params.push(v);
        v
    }

    /// Adds an input of the model.
    pub fn add_input(&mut self, name: &str, ty: Type) -> Value {
        self.inputs.push(name.to_string());
        self.add_param(self.root(), ty)
    }

    /// Makes a value an output of the model.
    pub fn add_output(&mut self, name: &str, v: Value) {
        self.outputs.push(name.to_string());
        let root = self.root();
        self.regions[root].results.push(v);
    }

    /// Makes a node with given output types; no region lists it yet.
    pub fn make_node(&mut self, op: Op, inputs: Vec<Value>, outs: Vec<Type>, name: &str) -> Node {
        let n = self.nodes.push(NodeData { op, inputs, outputs: vec![], name: name.to_string() });
        for (i, ty) in outs.into_iter().enumerate() {
            let v = self.values.push(ValueData { ty, def: Def::Node(n, i as u32) });
            self.nodes[n].outputs.push(v);
        }
        n
    }

    /// Regions that a node holds.
    pub fn regions_of(&self, n: Node) -> Vec<Region> {
        match &self.nodes[n].op {
            Op::Group { region, .. } => vec![*region],
            Op::Control(c) => control_regions(c),
            _ => vec![],
        }
    }

    /// All living nodes, each before the nodes of its regions.
    pub fn walk(&self) -> Vec<Node> {
        let mut out = vec![];
        self.walk_region(self.root(), &mut out);
        out
    }

    fn walk_region(&self, r: Region, out: &mut Vec<Node>) {
        for &n in &self.regions[r].nodes {
            out.push(n);
            for sub in self.regions_of(n) {
                self.walk_region(sub, out);
            }
        }
    }

    /// Living regions, the root first.
    pub fn live_regions(&self) -> Vec<Region> {
        let mut out = vec![self.root()];
        for n in self.walk() {
            out.extend(self.regions_of(n));
        }
        out
    }

    /// Replaces values everywhere in living regions (operands and results), following chains.
    pub fn replace(&mut self, map: &HashMap<Value, Value>) {
        self.replace_in(self.root(), map);
    }

    /// [`Self::replace`] in one region and the regions inside it: all of it for values made there.
    pub fn replace_in(&mut self, r: Region, map: &HashMap<Value, Value>) {
        if map.is_empty() {
            return;
        }
        let last = |mut v: Value| {
            while let Some(&w) = map.get(&v) {
                v = w;
            }
            v
        };
        let mut regions = vec![r];
        while let Some(r) = regions.pop() {
            self.regions[r].results.iter_mut().for_each(|v| *v = last(*v));
            for i in 0..self.regions[r].nodes.len() {
                let n = self.regions[r].nodes[i];
                self.nodes[n].inputs.iter_mut().for_each(|v| *v = last(*v));
                regions.extend(self.regions_of(n));
            }
        }
    }

    /// How often each value is used by living nodes and as a region's result, indexed by value.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut uses = vec![0; self.values.len()];
        let mut tally = |v: &Value| {
            if let Some(u) = uses.get_mut(v.0 as usize) {
                *u += 1;
            }
        };
        for n in self.walk() {
            self.nodes[n].inputs.iter().for_each(&mut tally);
        }
        for r in self.live_regions() {
            self.regions[r].results.iter().for_each(&mut tally);
        }
        uses
    }
}

/// Regions of a control operation.
pub fn control_regions(c: &Control) -> Vec<Region> {
    match c {
        Control::If { then, orelse } => vec![Region(*then), Region(*orelse)],
        Control::Loop { body, .. } | Control::Scan { body, .. } => vec![Region(*body)],
        _ => vec![],
    }
}
