//! Printing.

use super::{attrs, consts};
use crate::entity::{Node, Region, Value};
use crate::graph::{Graph, GroupKind, Op};
use hub_abi::dim_text::quoted_name;
use hub_abi::shape::Type;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::fmt::Write;

/// The whole graph.
pub fn print(g: &Graph) -> String {
    let mut p = Printer { g, out: String::new(), number: HashMap::new(), depth: 0 };
    for s in &g.syms {
        let _ = writeln!(p.out, "sym {} {}..{}", quoted_name(&s.name), s.min, s.max);
    }
    for (a, b) in &g.constraints.0 {
        let _ = writeln!(p.out, "require {} == {}", a.display(&g.syms), b.display(&g.syms));
    }
    let root = g.root();
    p.out.push_str("graph");
    p.params(root, Some(&g.inputs));
    p.out.push_str(" {\n");
    p.body(root, Some(&g.outputs));
    p.out.push_str("}\n");
    p.out
}

/// One node with the graph's own numbers of values, for messages; its regions are left out.
pub fn print_node(g: &Graph, n: Node) -> String {
    let number = (0..g.values.len() as u32).map(|i| (Value(i), i)).collect();
    let mut p = Printer { g, out: String::new(), number, depth: 0 };
    p.head(n);
    p.out
}

struct Printer<'g> {
    g: &'g Graph,
    out: String,
    number: HashMap<Value, u32>,
    depth: usize,
}

impl Printer<'_> {
    fn define(&mut self, v: Value) {
        let next = self.number.len() as u32;
        self.number.entry(v).or_insert(next);
        self.value(v);
        self.out.push_str(": ");
        self.ty(self.g.ty(v));
    }

    fn value(&mut self, v: Value) {
        let _ = match self.number.get(&v) {
            _ if v.is_none() => write!(self.out, "_"),
            Some(n) => write!(self.out, "%{n}"),
            // Not defined before its use: the graph is broken, and printing says so.
            None => write!(self.out, "%undefined{}", v.0),
        };
    }

    fn ty(&mut self, t: &Type) {
        match t {
            Type::Tensor(t) => {
                let _ = write!(self.out, "{}[", t.dtype);
                for (i, d) in t.dims.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    let _ = write!(self.out, "{comma}{}", d.display(&self.g.syms));
                }
                self.out.push(']');
            }
            Type::Seq(t) => self.wrapped("seq", t),
            Type::Opt(t) => self.wrapped("opt", t),
        }
    }

    fn wrapped(&mut self, what: &str, t: &Type) {
        let _ = write!(self.out, "{what}(");
        self.ty(t);
        self.out.push(')');
    }

    fn params(&mut self, r: Region, names: Option<&[String]>) {
        self.out.push('(');
        for (i, v) in self.g.regions[r].params.clone().into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.define(v);
            self.name(names.and_then(|n| n.get(i)));
        }
        self.out.push(')');
    }

    fn name(&mut self, name: Option<&String>) {
        if let Some(n) = name {
            let _ = write!(self.out, " {}", Json::from(n.as_str()));
        }
    }

    fn body(&mut self, r: Region, names: Option<&[String]>) {
        self.depth += 1;
        for n in self.g.regions[r].nodes.clone() {
            self.indent();
            self.head(n);
            for sub in self.g.regions_of(n) {
                self.out.push_str(" do ");
                if !self.g.regions[sub].params.is_empty() {
                    self.params(sub, None);
                    self.out.push(' ');
                }
                self.out.push_str("{\n");
                self.body(sub, None);
                self.indent();
                self.out.push('}');
            }
            self.out.push('\n');
        }
        self.indent();
        self.out.push_str("return");
        for (i, v) in self.g.regions[r].results.clone().into_iter().enumerate() {
            self.out.push_str(if i > 0 { ", " } else { " " });
            self.value(v);
            self.name(names.and_then(|n| n.get(i)));
        }
        self.out.push('\n');
        self.depth -= 1;
    }

    fn indent(&mut self) {
        self.out.push_str(&"  ".repeat(self.depth));
    }

    /// A node without its regions.
    fn head(&mut self, n: Node) {
        let node = &self.g.nodes[n];
        for (i, &v) in node.outputs.iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.define(v);
        }
        if !node.outputs.is_empty() {
            self.out.push_str(" = ");
        }
        let attrs = self.op(&node.op);
        if !node.inputs.is_empty() {
            self.out.push('(');
            for (i, &v) in node.inputs.iter().enumerate() {
                self.out.push_str(if i > 0 { ", " } else { "" });
                self.value(v);
            }
            self.out.push(')');
        }
        if attrs.as_object().is_some_and(|m| !m.is_empty()) {
            self.out.push(' ');
            attrs::write(&mut self.out, &attrs, &self.g.syms);
        }
        self.name(Some(&node.name).filter(|n| !n.is_empty()));
    }

    /// Writes an operation's name; gives its attributes.
    fn op(&mut self, op: &Op) -> Json {
        let (name, attrs) = match op {
            Op::Const(c) => {
                self.out.push_str("const ");
                consts::write(&mut self.out, &self.g.consts[*c]);
                return Json::Null;
            }
            Op::Prim(p) => named(p),
            Op::Source(s) => (format!("@{}", s.name()), s.attrs()),
            Op::Group { kind, .. } => (format!("group {}", group_name(*kind)), Json::Null),
            Op::Control(c) => {
                let (name, mut attrs) = named(c);
                if let Some(m) = attrs.as_object_mut() {
                    m.retain(|k, _| !["then", "orelse", "body"].contains(&k.as_str()));
                }
                (name, attrs)
            }
        };
        self.out.push_str(&name);
        attrs
    }
}

/// Every kind of group with its name.
pub(super) const GROUPS: [(GroupKind, &str); 5] = [
    (GroupKind::Map, "map"),
    (GroupKind::Row, "row"),
    (GroupKind::Contract, "contract"),
    (GroupKind::Conv, "conv"),
    (GroupKind::Window, "window"),
];

fn group_name(kind: GroupKind) -> &'static str {
    GROUPS.iter().find(|g| g.0 == kind).expect("the table has every kind").1
}

/// Name and attributes of an enum's value, from its serde form: `Unary(Neg)` is `neg`, `Reduce {…}`
/// is `reduce` with attributes.
fn named(op: &impl Serialize) -> (String, Json) {
    match serde_json::to_value(op).expect("operations are plain data") {
        Json::String(s) => (snake(&s), Json::Null),
        Json::Object(m) => match m.into_iter().next() {
            Some((_, Json::String(inner))) => (snake(&inner), Json::Null),
            Some((variant, attrs)) => (snake(&variant), attrs),
            None => unreachable!("an enum's serde form is not empty"),
        },
        other => unreachable!("not an enum's serde form: {other}"),
    }
}

/// `IsNan` as `is_nan`.
pub(super) fn snake(s: &str) -> String {
    let mut out = String::new();
    for (i, c) in s.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `is_nan` as `IsNan`.
pub(super) fn camel(s: &str) -> String {
    let part = |p: &str| {
        let mut c = p.chars();
        c.next().map(|f| f.to_ascii_uppercase().to_string() + c.as_str()).unwrap_or_default()
    };
    s.split('_').map(part).collect()
}
