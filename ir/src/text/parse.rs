//! Parsing. Untrusted text gives an error with its line, never a panic; types are taken as written
//! (the verifier compares them with inference).

use super::print::{GROUPS, camel};
use super::{attrs, consts};
use crate::content;
use crate::entity::{Region, Value};
use crate::graph::{ConstData, Graph, NodeData, Op, RegionData};
use crate::ops::Source;
use hub_abi::depth::MAX_DEPTH;
use hub_abi::pgraph::Control;
use hub_abi::prim::Prim;
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, Sym, SymInfo};
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// Greatest size of a constant written as one repeated element.
pub(super) const MOST_BYTES: usize = 1 << 30;

/// Why a text is not a graph.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// What does not fit.
    pub what: String,
}

pub(super) type Parsed<T> = Result<T, ParseError>;

/// Constants that the text names by [`super::hash`].
pub type SideConsts = HashMap<u64, ConstData>;

/// Parses a graph whose constants all stand in the text.
pub fn parse(text: &str) -> Parsed<Graph> {
    parse_with(text, &SideConsts::new())
}

/// Parses a graph; constants that the text shows as `#hash` come from `side`.
pub fn parse_with(text: &str, side: &SideConsts) -> Parsed<Graph> {
    let mut c = Cursor { text, at: 0, syms: vec![], side };
    let mut g = Graph::new();
    c.symbols()?;
    while c.eat_word("require") {
        let a = c.dim()?;
        c.expect("==")?;
        g.constraints.0.push((a, c.dim()?));
    }
    g.syms = c.syms.clone();
    if !c.eat_word("graph") {
        return c.fail("'graph'");
    }
    let mut p = Parser { c, g, values: HashMap::new() };
    let root = p.g.root();
    p.g.inputs = p.params(root)?;
    p.g.outputs = p.body(root, 0)?;
    if p.c.peek().is_some() {
        return p.c.fail("the end of the text");
    }
    Ok(p.g)
}

/// A position in the text.
pub(super) struct Cursor<'t> {
    text: &'t str,
    at: usize,
    syms: Vec<SymInfo>,
    side: &'t SideConsts,
}

impl<'t> Cursor<'t> {
    pub(super) fn error(&self, what: String) -> ParseError {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = self.at - before.rfind('\n').map_or(0, |i| i + 1) + 1;
        ParseError { line, column, what }
    }

    pub(super) fn fail<T>(&self, what: &str) -> Parsed<T> {
        let near: String = self.text[self.at..].chars().take(20).collect();
        Err(self.error(format!("{what} expected, at {near:?}")))
    }

    /// What is left after spaces and comments (`//` to the end of the line).
    fn rest(&mut self) -> &'t str {
        let mut rest = self.text[self.at..].trim_start();
        while rest.starts_with("//") {
            let line = rest.find('\n').unwrap_or(rest.len());
            rest = rest[line..].trim_start();
        }
        self.at = self.text.len() - rest.len();
        rest
    }

    pub(super) fn peek(&mut self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn eat(&mut self, t: &str) -> bool {
        let found = self.rest().starts_with(t);
        self.at += if found { t.len() } else { 0 };
        found
    }

    pub(super) fn expect(&mut self, t: &str) -> Parsed<()> {
        if self.eat(t) { Ok(()) } else { self.fail(&format!("'{t}'")) }
    }

    pub(super) fn peek_word(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then(|| &rest[..end])
    }

    pub(super) fn word(&mut self) -> Parsed<&'t str> {
        match self.peek_word() {
            Some(w) => {
                self.at += w.len();
                Ok(w)
            }
            None => self.fail("a word"),
        }
    }

    fn eat_word(&mut self, w: &str) -> bool {
        let found = self.peek_word() == Some(w);
        self.at += if found { w.len() } else { 0 };
        found
    }

    /// Everything up to a comma, bracket or space.
    pub(super) fn token(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || ",]})".contains(c));
        let end = end.unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A number with a point, an exponent or the suffix `f`; nothing is taken otherwise.
    pub(super) fn float(&mut self) -> Option<f64> {
        let rest = self.rest();
        let digits = |c: char| c.is_ascii_digit() || ".eE+-".contains(c);
        let end = rest.find(|c| !digits(c)).unwrap_or(rest.len());
        let (number, narrow) = (&rest[..end], rest[end..].starts_with('f'));
        if !narrow && !number.contains(['.', 'e', 'E']) {
            return None;
        }
        let x = match narrow {
            true => number.parse::<f32>().ok()?.into(),
            false => number.parse::<f64>().ok()?,
        };
        self.at += end + usize::from(narrow);
        Some(x)
    }

    /// A quoted string with JSON's escapes.
    pub(super) fn string(&mut self) -> Parsed<String> {
        let rest = self.rest();
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        match stream.next() {
            Some(Ok(s)) if rest.starts_with('"') => {
                self.at += stream.byte_offset();
                Ok(s)
            }
            _ => self.fail("a quoted string"),
        }
    }

    pub(super) fn symbol(&self, name: &str) -> Option<Sym> {
        attrs::lookup(&self.syms)(name)
    }

    pub(super) fn dim(&mut self) -> Parsed<Dim> {
        let rest = self.rest();
        match Dim::parse_prefix(rest, &attrs::lookup(&self.syms)) {
            Ok((d, taken)) => {
                self.at += taken;
                Ok(d)
            }
            Err(e) => {
                self.at += e.at;
                Err(self.error(e.what))
            }
        }
    }

    pub(super) fn side_const(&self, key: u64) -> Option<ConstData> {
        self.side.get(&key).cloned()
    }

    fn symbols(&mut self) -> Parsed<()> {
        while self.eat_word("sym") {
            let name = match self.peek() {
                Some('`') => {
                    let rest = self.rest();
                    let end = rest[1..].find('`').map(|i| i + 1);
                    let Some(end) = end else { return self.fail("a closing backtick") };
                    self.at += end + 1;
                    rest[1..end].to_string()
                }
                _ => self.word()?.to_string(),
            };
            let min = self.int()?;
            self.expect("..")?;
            let max = self.int()?;
            self.syms.push(SymInfo { name, min, max });
        }
        Ok(())
    }

    fn int(&mut self) -> Parsed<i64> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let end = rest[sign..].find(|c: char| !c.is_ascii_digit());
        let end = end.map_or(rest.len(), |i| i + sign);
        match rest[..end].parse() {
            Ok(k) => {
                self.at += end;
                Ok(k)
            }
            Err(_) => self.fail("an integer"),
        }
    }

    fn ty(&mut self, depth: u32) -> Parsed<Type> {
        if depth > MAX_DEPTH {
            return self.fail("less nesting");
        }
        let word = self.word()?;
        if word == "seq" || word == "opt" {
            self.expect("(")?;
            let inner = Box::new(self.ty(depth + 1)?);
            self.expect(")")?;
            return Ok(if word == "seq" { Type::Seq(inner) } else { Type::Opt(inner) });
        }
        let Some(dtype) = Dtype::from_name(word) else { return self.fail("a type") };
        self.expect("[")?;
        let mut dims = vec![];
        while !self.eat("]") {
            if !dims.is_empty() {
                self.expect(",")?;
            }
            dims.push(self.dim()?);
        }
        Ok(Type::Tensor(TensorType { dtype, dims }))
    }
}

struct Parser<'t> {
    c: Cursor<'t>,
    g: Graph,
    values: HashMap<i64, Value>,
}

impl Parser<'_> {
    /// `%12: type`, giving the number.
    fn definition(&mut self) -> Parsed<(i64, Type)> {
        self.c.expect("%")?;
        let n = self.c.int()?;
        self.c.expect(":")?;
        Ok((n, self.c.ty(0)?))
    }

    fn define(&mut self, number: i64, v: Value) -> Parsed<()> {
        match self.values.insert(number, v) {
            None => Ok(()),
            Some(_) => Err(self.c.error(format!("%{number} is defined twice"))),
        }
    }

    fn operand(&mut self) -> Parsed<Value> {
        if self.c.eat("_") {
            return Ok(Value::NONE);
        }
        self.c.expect("%")?;
        let n = self.c.int()?;
        let found = self.values.get(&n).copied();
        found.ok_or_else(|| self.c.error(format!("%{n} is not defined before")))
    }

    fn name(&mut self) -> Parsed<String> {
        if self.c.peek() == Some('"') { self.c.string() } else { Ok(String::new()) }
    }

    /// `(%0: type "name", …)`, giving the names.
    fn params(&mut self, r: Region) -> Parsed<Vec<String>> {
        let mut names = vec![];
        self.c.expect("(")?;
        while !self.c.eat(")") {
            if !names.is_empty() {
                self.c.expect(",")?;
            }
            let (number, ty) = self.definition()?;
            let v = self.g.add_param(r, ty);
            self.define(number, v)?;
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// `{ nodes return values }`, giving the names behind the results.
    fn body(&mut self, r: Region, depth: u32) -> Parsed<Vec<String>> {
        if depth > MAX_DEPTH {
            return self.c.fail("less nesting");
        }
        self.c.expect("{")?;
        while !self.c.eat_word("return") {
            self.node(r, depth)?;
        }
        let mut names = vec![];
        while !self.c.eat("}") {
            if !names.is_empty() {
                self.c.expect(",")?;
            }
            let v = self.operand()?;
            self.g.regions[r].results.push(v);
            names.push(self.name()?);
        }
        Ok(names)
    }

    fn node(&mut self, r: Region, depth: u32) -> Parsed<()> {
        let mut outs = vec![];
        while self.c.peek() == Some('%') {
            outs.push(self.definition()?);
            if !self.c.eat(",") {
                self.c.expect("=")?;
                break;
            }
        }
        let source = self.c.eat("@");
        let word = self.c.word()?.to_string();
        if word == "const" && !source {
            return self.constant(r, outs);
        }
        let group = if word == "group" { Some(self.c.word()?.to_string()) } else { None };
        let inputs = self.operands()?;
        let attrs = match self.c.peek() {
            Some('{') => attrs::read(&mut self.c, 0)?,
            _ => Json::Null,
        };
        let name = self.name()?;
        let types = outs.iter().map(|o| o.1.clone()).collect();
        // The operation is filled in once its regions are read.
        let n = self.g.make_node(Op::Control(Control::SeqLen), inputs, types, &name);
        for (i, (number, _)) in outs.iter().enumerate() {
            let v = self.g.nodes[n].outputs[i];
            self.define(*number, v)?;
        }
        let mut regions = vec![];
        while self.c.eat_word("do") {
            let sub = self.g.regions.push(RegionData::default());
            if self.c.peek() == Some('(') {
                self.params(sub)?;
            }
            self.body(sub, depth + 1)?;
            regions.push(sub);
        }
        let op = match group {
            Some(kind) => self.group(&kind, &regions)?,
            None => {
                let made = make_op(source, &word, attrs, &regions);
                made.map_err(|e| self.c.error(format!("{word}: {e}")))?
            }
        };
        self.g.nodes[n].op = op;
        self.learn(n);
        self.g.regions[r].nodes.push(n);
        Ok(())
    }

    fn operands(&mut self) -> Parsed<Vec<Value>> {
        let mut inputs = vec![];
        if self.c.eat("(") {
            while !self.c.eat(")") {
                if !inputs.is_empty() {
                    self.c.expect(",")?;
                }
                inputs.push(self.operand()?);
            }
        }
        Ok(inputs)
    }

    fn constant(&mut self, r: Region, outs: Vec<(i64, Type)>) -> Parsed<()> {
        let [(number, Type::Tensor(ty))] = &outs[..] else {
            return self.c.fail("one tensor as a constant's output");
        };
        let data = consts::read(&mut self.c, ty.clone())?;
        let known = content::of_const(&data);
        let id = self.g.consts.push(data);
        let name = self.name()?;
        let n = self.g.make_node(Op::Const(id), vec![], vec![outs[0].1.clone()], &name);
        let v = self.g.nodes[n].outputs[0];
        self.define(*number, v)?;
        if let Some(known) = known {
            self.g.content.insert(v, known);
        }
        self.g.regions[r].nodes.push(n);
        Ok(())
    }

    fn group(&self, kind: &str, regions: &[Region]) -> Parsed<Op> {
        let kind = GROUPS.iter().find(|g| g.1 == kind).map(|g| g.0);
        match (kind, regions) {
            (Some(kind), &[region]) => Ok(Op::Group { kind, region }),
            _ => self.c.fail("a kind of group and one region"),
        }
    }

    /// Known contents, as the builder records them.
    fn learn(&mut self, n: crate::Node) {
        let NodeData { op, inputs, outputs, .. } = &self.g.nodes[n];
        let Op::Prim(p) = op else { return };
        if let (Prim::BindSyms { syms }, Some(&v)) = (p, inputs.first()) {
            let dims = syms.iter().map(|&s| Dim::from(s)).collect();
            self.g.content.insert(v, dims);
            return;
        }
        let tensors =
            |vs: &[Value]| vs.iter().all(|&v| !v.is_none() && self.g.ty(v).as_tensor().is_some());
        let right = p.infer(&self.types(inputs), &mut Default::default()).is_ok();
        if let (true, true, Some(&v)) = (tensors(inputs), right, outputs.first())
            && let Some(known) = content::of_prim(&self.g, p, inputs)
        {
            self.g.content.insert(v, known);
        }
    }

    fn types(&self, vs: &[Value]) -> Vec<TensorType> {
        vs.iter()
            .filter_map(|v| v.some())
            .filter_map(|v| self.g.ty(v).as_tensor().cloned())
            .collect()
    }
}

/// An operation from its name and attributes.
fn make_op(source: bool, word: &str, attrs: Json, regions: &[Region]) -> Result<Op, String> {
    if source {
        let attrs = if attrs.is_null() { json!({}) } else { attrs };
        return Source::from_parts(word, attrs).map(Op::Source);
    }
    let name = camel(word);
    if regions.is_empty() {
        let function = [json!({ "Unary": name }), json!({ "Binary": name })];
        for form in function.into_iter().chain([shaped(&name, attrs.clone())]) {
            if let Ok(p) = serde_json::from_value::<Prim>(form) {
                return Ok(Op::Prim(p));
            }
        }
    }
    let mut attrs = attrs;
    let keys: &[&str] = if word == "if" { &["then", "orelse"] } else { &["body"] };
    if !regions.is_empty() {
        if regions.len() != keys.len() {
            return Err(format!("{} regions expected", keys.len()));
        }
        if attrs.is_null() {
            attrs = json!({});
        }
        let Some(map) = attrs.as_object_mut() else { return Err("attributes expected".into()) };
        for (k, r) in keys.iter().zip(regions) {
            map.insert(k.to_string(), json!(r.0));
        }
    }
    match serde_json::from_value::<Control>(shaped(&name, attrs.clone())) {
        Ok(c) => Ok(Op::Control(c)),
        // The more telling of the two errors.
        Err(e) if e.to_string().starts_with("unknown variant") => {
            let prim = serde_json::from_value::<Prim>(shaped(&name, attrs));
            let why = prim.err().map_or_else(String::new, |e| e.to_string());
            Err(if why.starts_with("unknown variant") { "no such operation".into() } else { why })
        }
        Err(e) => Err(e.to_string()),
    }
}

fn shaped(name: &str, attrs: Json) -> Json {
    if attrs.is_null() { json!(name) } else { json!({ name: attrs }) }
}
