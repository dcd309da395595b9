//! Operators without an ONNX name, and groups, as functions of the model's own (domain `hub`).
//!
//! A function is written in a scope of its own, in which nothing is called after where it is used: so
//! two calls share one function exactly when their bodies are equal, which is to say when operator,
//! attributes, types and those sizes that the body depends on are. What the body needs beside its
//! operands becomes inputs: large constants, and sizes that no operand shows. Small constants are
//! nodes of it. An expansion of one node is written in place.

use super::cx::{Got, Scope, SymAt, Taken, Writer};
use super::file;
use crate::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, attr,
};
use hub_abi::shape::{Type, syms_of};
use hub_abi::{Dim, Sym};
use hub_ir::Value;
use hub_ir::graph::{ConstData, RegionData};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// The domain of the functions, and its version.
const DOMAIN: &str = "hub";
const VERSION: i64 = 1;
/// Elements of a constant that a body holds; larger ones are inputs, as weights are.
const MOST_HELD: usize = 16;

/// Whether a constant goes into the body of a function.
pub(super) fn holds(c: &ConstData) -> bool {
    c.ty.dims
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(usize::try_from(d.as_const()?).ok()?))
        .is_some_and(|n| n <= MOST_HELD)
}

/// What a source operator's function is called: `rms_norm` is `RmsNorm`.
pub(super) fn named(source: &str) -> String {
    let capital = |part: &str| {
        let mut chars = part.chars();
        chars.next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string() + chars.as_str())
    };
    source.split('_').map(capital).collect()
}

/// The functions of a model that is being written.
#[derive(Default)]
pub(super) struct Functions {
    all: Vec<FunctionProto>,
    /// Names by what they are called for and what they hold.
    by_body: HashMap<(String, Vec<u8>), String>,
    names: super::cx::Names,
}

impl Functions {
    /// The name of a function with this body.
    fn share(&mut self, want: &str, mut f: FunctionProto) -> String {
        let key = (want.to_string(), f.encode_to_vec());
        if let Some(name) = self.by_body.get(&key) {
            return name.clone();
        }
        f.name = self.names.fresh(want);
        let name = f.name.clone();
        self.by_body.insert(key, name.clone());
        self.all.push(f);
        name
    }

    /// The functions that a graph calls, and the versions of operators that it needs.
    pub fn finish(
        self,
        graph: &GraphProto,
        opset: i64,
    ) -> (Vec<FunctionProto>, Vec<OperatorSetIdProto>) {
        let mut called = HashSet::new();
        calls(&graph.node, &mut called);
        let sets = |own: bool| {
            let hub = own.then_some((DOMAIN, VERSION));
            let sets = [("", opset)].into_iter().chain(hub);
            sets.map(|(d, version)| OperatorSetIdProto { domain: d.into(), version }).collect()
        };
        let main = sets(!called.is_empty());
        // A function stands before those that call it.
        let mut kept = vec![];
        for mut f in self.all.into_iter().rev() {
            if called.contains(&f.name) {
                let mut own = HashSet::new();
                calls(&f.node, &mut own);
                f.opset_import = sets(!own.is_empty());
                called.extend(own);
                kept.push(f);
            }
        }
        kept.reverse();
        (kept, main)
    }
}

/// Functions that nodes call, those in their bodies included.
fn calls(nodes: &[NodeProto], to: &mut HashSet<String>) {
    for n in nodes {
        if n.domain == DOMAIN {
            to.insert(n.op_type.clone());
        }
        for body in n.attribute.iter().filter_map(|a| a.g.as_ref()) {
            calls(&body.node, to);
        }
    }
}

/// A body that is written but not yet a function.
struct Draft {
    proto: FunctionProto,
    /// What its inputs are where it is called.
    inputs: Vec<Taken>,
    /// Whether it is better written in place.
    inlined: bool,
}

impl Writer {
    /// A body called with operands (its params, in order): names of its results.
    pub fn function(&mut self, want: &str, body: &RegionData, ins: &[Value]) -> Got<Vec<String>> {
        let at = self.at.clone();
        let outer = std::mem::replace(&mut self.scope, Scope::new(true));
        let draft = self.draft(body);
        (self.scope, self.at) = (outer, at);
        let draft = draft?;
        let given: HashMap<Value, Value> =
            body.params.iter().copied().zip(ins.iter().copied()).collect();
        if draft.inlined {
            for (&p, &v) in body.params.iter().zip(ins).filter(|(p, _)| !p.is_none()) {
                let name = self.name(v)?;
                self.define(p, &name);
            }
            self.nodes(&body.nodes)?;
            return body.results.iter().map(|&v| self.name(v)).collect();
        }
        let mut names = vec![];
        for from in &draft.inputs {
            names.push(match from {
                Taken::Value(v) => self.name(*given.get(v).unwrap_or(v))?,
                Taken::Size(s) => self.dim(&Dim::from(*s))?,
            });
        }
        let names: Vec<&str> = names.iter().map(|s| &**s).collect();
        let outs = draft.proto.output.len();
        let name = self.functions.share(want, draft.proto);
        Ok(self.call([DOMAIN, &name], &names, vec![], outs))
    }

    /// Writes a body into the scope, which is a new function's.
    fn draft(&mut self, body: &RegionData) -> Got<Draft> {
        for &p in body.params.iter().filter(|p| !p.is_none()) {
            if !self.defined(p) {
                let name = self.input("x", Taken::Value(p));
                self.define(p, &name);
                self.bind_axes(p)?;
            }
        }
        let given = self.scope.frames[0].syms.len();
        self.nodes(&body.nodes)?;
        let results = body.results.iter().map(|&v| self.name(v)).collect::<Got<Vec<String>>>()?;
        let output = self.outputs(results);
        let hides = self.scope.frames[0].syms.len() > given && self.hides_sizes(&body.results);
        let scope = std::mem::replace(&mut self.scope, Scope::new(true));
        let frame = scope.frames.into_iter().next().unwrap_or_default();
        let mut node: Vec<NodeProto> = scope.initializers.into_iter().map(constant).collect();
        node.extend(frame.nodes);
        let mut graph = GraphProto { node, output, ..GraphProto::default() };
        let mut used = HashSet::new();
        file::live(&mut graph, &mut used);
        let steps = graph.node.iter().filter(|n| n.op_type != "Constant").count();
        let inputs = scope.inputs.unwrap_or_default().into_iter();
        let (input, inputs) = inputs.filter(|(name, _)| used.contains(name)).unzip();
        let proto = FunctionProto {
            domain: DOMAIN.into(),
            input,
            output: graph.output.into_iter().map(|o| o.name).collect(),
            node: graph.node,
            ..FunctionProto::default()
        };
        Ok(Draft { proto, inputs, inlined: steps <= 1 || hides })
    }

    /// Whether results rest on sizes that the body binds and that no axis of them is.
    fn hides_sizes(&self, results: &[Value]) -> bool {
        let inputs = self.scope.inputs.as_deref().unwrap_or_default();
        let given = |name: &String| inputs.iter().any(|(n, _)| n == name);
        let bound = |s: &Sym| match self.scope.frames[0].syms.get(s) {
            Some(SymAt::Axis(name, _) | SymAt::Vector(name)) => !given(name),
            Some(SymAt::Element(..)) => true,
            None => false,
        };
        let (mut rests, mut shown) = (HashSet::new(), HashSet::new());
        for &v in results {
            let ty = self.g.ty(v);
            syms_of(ty, &mut |s| {
                rests.insert(s);
            });
            for d in self.g.content.get(&v).into_iter().flatten() {
                d.each_sym(&mut |s| {
                    rests.insert(s);
                });
            }
            if let Type::Tensor(t) = ty {
                shown.extend(t.dims.iter().filter_map(Dim::as_sym));
            }
        }
        rests.difference(&shown).any(bound)
    }
}

/// A constant as a node.
fn constant(mut t: TensorProto) -> NodeProto {
    let output = vec![std::mem::take(&mut t.name)];
    let value = AttributeProto {
        name: "value".into(),
        t: Some(t),
        r#type: attr::TENSOR,
        ..AttributeProto::default()
    };
    let attribute = vec![value];
    NodeProto { output, op_type: "Constant".into(), attribute, ..NodeProto::default() }
}
