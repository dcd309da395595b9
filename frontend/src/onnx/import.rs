//! Walks a model's graphs and functions, and hands each node to its operator's import.

use super::cx::{Cx, Got, invalid};
use super::external::External;
use super::order::{self, free_names};
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use super::proto::{OperatorSetIdProto, TypeProto};
use super::{table, tensor};
use crate::error::{FrontendError, UnsupportedOp};
use crate::options::{DimNames, LoadOptions};
use crate::sizes::Sizes;
use hub_abi::pgraph::Control;
use hub_abi::shape::Type;
use hub_ir::{Builder, Dim, Graph, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

type FunctionKey<'m> = (&'m str, &'m str, &'m str);

/// State of an import.
pub(crate) struct Import<'m> {
    pub options: &'m LoadOptions,
    pub external: External,
    pub warnings: Vec<String>,
    /// Sequences whose elements' rank is not known yet (made empty).
    pub unranked: HashSet<Value>,
    functions: HashMap<FunctionKey<'m>, &'m FunctionProto>,
    opsets: HashMap<&'m str, i64>,
    /// Values by name, a map a graph, innermost last.
    scopes: Vec<HashMap<&'m str, Value>>,
    /// Attributes of the function call being inlined.
    attrs: HashMap<&'m str, &'m AttributeProto>,
    /// Functions being inlined.
    calls: Vec<FunctionKey<'m>>,
    left: usize,
    sizes: Sizes,
    /// Calls of functions that may still be expanded.
    calls_left: usize,
    depth: usize,
}

/// Operators whose operands may be sequences and optionals; those of all others are tensors.
const OF_ANY: &[&str] = &[
    "Identity",
    "If",
    "Loop",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "ConcatFromSequence",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
];

/// The default domain has two names.
pub(crate) fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

fn opsets(list: &[OperatorSetIdProto]) -> HashMap<&str, i64> {
    list.iter().map(|o| (domain(&o.domain), o.version)).collect()
}

/// What messages call a node.
pub(crate) fn label(n: &NodeProto) -> String {
    match (n.name.is_empty(), n.output.iter().find(|o| !o.is_empty())) {
        (false, _) => n.name.clone(),
        (_, Some(o)) => format!("{}:{o}", n.op_type),
        _ => n.op_type.clone(),
    }
}

impl<'m> Import<'m> {
    pub fn new(model: &'m ModelProto, options: &'m LoadOptions, external: External) -> Self {
        let key = |f: &'m FunctionProto| ((domain(&f.domain), &*f.name, &*f.overload), f);
        Import {
            options,
            external,
            warnings: vec![],
            unranked: HashSet::new(),
            functions: model.functions.iter().map(key).collect(),
            opsets: opsets(&model.opset_import),
            scopes: vec![],
            attrs: HashMap::new(),
            calls: vec![],
            left: options.limits.nodes,
            sizes: Sizes::new(options.limits.rank),
            calls_left: options.limits.calls,
            depth: 0,
        }
    }

    /// The whole model.
    pub fn model(&mut self, graph: &'m GraphProto) -> Got<Graph> {
        self.all_supported(graph)?;
        let mut g = Graph::new();
        let inputs = self.inputs(&mut g, graph)?;
        let mut b = Builder::new(&mut g, "");
        let mut outs = self.body(&mut b, graph, inputs)?;
        for (info, v) in graph.output.iter().zip(&mut outs) {
            // What the graph gives as a value may be carried as an optional.
            let plain = info.r#type.as_ref().is_some_and(|t| t.optional_type.is_none());
            if let (true, Type::Opt(inner)) = (plain, b.g.ty(*v).clone()) {
                *v = b.control(Control::OptGet, &[*v], vec![*inner])[0];
            }
        }
        let root = b.g.root();
        b.into_region(root);
        for (info, v) in graph.output.iter().zip(outs) {
            if let (Some(Type::Tensor(t)), Some(want)) =
                (Some(g.ty(v)), info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()))
                && want.elem_type != 0
                && want.elem_type != t.dtype as i32
            {
                let what =
                    format!("the graph says element type {}, it is {}", want.elem_type, t.dtype);
                return Err(FrontendError::invalid(what).at(&info.name));
            }
            g.add_output(&info.name, v);
        }
        Ok(g)
    }

    fn inputs(&mut self, g: &mut Graph, graph: &'m GraphProto) -> Got<Vec<(&'m str, Value)>> {
        let initial: HashSet<&str> = graph
            .initializer
            .iter()
            .map(|t| &*t.name)
            .chain(graph.sparse_initializer.iter().filter_map(|s| Some(&*s.values.as_ref()?.name)))
            .collect();
        let mut names = DimNames::new(self.options);
        let mut made = vec![];
        for input in graph.input.iter().filter(|i| !initial.contains(&*i.name)) {
            let missing = || FrontendError::invalid("the input has no type").at(&input.name);
            let ty = input.r#type.as_ref().ok_or_else(missing)?;
            let made_of = ty.sequence_type.as_ref().and_then(|s| s.elem_type.as_ref());
            let made_of = made_of.and_then(|t| t.tensor_type.as_ref());
            let unranked = made_of.is_some_and(|t| t.shape.is_none());
            let ty = self.input_type(g, &mut names, &input.name, ty, unranked);
            let v = g.add_input(&input.name, ty.map_err(|e| e.at(&input.name))?);
            if unranked {
                self.unranked.insert(v);
            }
            made.push((&*input.name, v));
        }
        names.finish()?;
        Ok(made)
    }

    fn input_type(
        &self,
        g: &mut Graph,
        names: &mut DimNames<'_>,
        input: &str,
        ty: &TypeProto,
        unranked: bool,
    ) -> Got<Type> {
        let elem = |t: &'_ super::proto::ElemTypeProto| t.elem_type.clone();
        if let Some(t) = &ty.tensor_type {
            let dtype = tensor::dtype(t.elem_type)?;
            let Some(shape) = &t.shape else {
                if unranked {
                    return Ok(Type::tensor(dtype, vec![]));
                }
                return Err(FrontendError::unsupported("the input's rank is unknown")
                    .advise("give the input a shape; its dimensions may be names"));
            };
            if shape.dim.len() > self.options.limits.rank {
                return Err(FrontendError::limit(format!("rank {}", shape.dim.len())));
            }
            let dims = shape.dim.iter().enumerate().map(|(i, d)| match d.dim_value {
                Some(n) if n >= 0 => Dim::from(n),
                _ => names.dim(g, input, i, d.dim_param.as_deref()),
            });
            return Ok(Type::tensor(dtype, dims.collect()));
        }
        if let Some(inner) = ty.sequence_type.as_deref().and_then(elem) {
            return Ok(Type::Seq(Box::new(self.input_type(g, names, input, &inner, unranked)?)));
        }
        if let Some(inner) = ty.optional_type.as_deref().and_then(elem) {
            return Ok(Type::Opt(Box::new(self.input_type(g, names, input, &inner, unranked)?)));
        }
        Err(FrontendError::unsupported("the input is no tensor, sequence or optional"))
    }

    /// The nodes of a graph, with `params` as its inputs; gives its outputs.
    pub fn body(
        &mut self,
        b: &mut Builder<'_>,
        graph: &'m GraphProto,
        params: Vec<(&'m str, Value)>,
    ) -> Got<Vec<Value>> {
        self.deeper()?;
        self.scopes.push(HashMap::new());
        for (name, v) in params {
            self.define(name, v)?;
        }
        self.initializers(b, graph)?;
        let names = graph.output.iter().map(|o| &*o.name);
        let outs = self.nodes(b, &graph.node).and_then(|()| self.results(names));
        self.scopes.pop();
        self.depth -= 1;
        outs
    }

    fn results(&self, names: impl Iterator<Item = &'m str>) -> Got<Vec<Value>> {
        let find = |n: &str| match self.lookup(n) {
            Some(v) => Ok(v),
            None => Err(FrontendError::invalid("nothing computes this output").at(n)),
        };
        names.map(find).collect()
    }

    fn deeper(&mut self) -> Got<()> {
        self.depth += 1;
        if self.depth > self.options.limits.nesting {
            let most = self.options.limits.nesting;
            return Err(FrontendError::limit(format!("graphs or calls nest deeper than {most}")));
        }
        Ok(())
    }

    /// Initializers that something uses, as constants.
    fn initializers(&mut self, b: &mut Builder<'_>, graph: &'m GraphProto) -> Got<()> {
        let mut used = HashSet::new();
        free_names(graph, &mut used);
        used.extend(graph.output.iter().map(|o| &*o.name));
        let limits = &self.options.limits;
        let mut seen = HashSet::new();
        let mut consts = vec![];
        for t in graph.initializer.iter() {
            if !seen.insert(&*t.name) {
                return Err(FrontendError::invalid("two initializers have this name").at(&t.name));
            }
            if used.contains(&*t.name) {
                let c = tensor::read(t, &mut self.external, limits).map_err(|e| e.at(&t.name))?;
                consts.push((&*t.name, c));
            }
        }
        for s in graph.sparse_initializer.iter() {
            let name = s.values.as_ref().map_or("", |v| &v.name);
            let c = tensor::read_sparse(s, &mut self.external, limits).map_err(|e| e.at(name))?;
            consts.push((name, c));
        }
        for (name, c) in consts {
            b.name = name.to_string();
            let v = b.const_data(c);
            self.define(name, v)?;
        }
        Ok(())
    }

    fn nodes(&mut self, b: &mut Builder<'_>, nodes: &'m [NodeProto]) -> Got<()> {
        for i in order::order(nodes)? {
            let node = &nodes[i];
            self.node(b, node).map_err(|e| e.at(&label(node)))?;
        }
        Ok(())
    }

    fn node(&mut self, b: &mut Builder<'_>, node: &'m NodeProto) -> Got<()> {
        let made = b.g.nodes.len();
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            FrontendError::limit(format!("more than {} nodes", self.options.limits.nodes))
        })?;
        let operand = |n: &String| match self.lookup(n) {
            _ if n.is_empty() => Ok(Value::NONE),
            Some(v) => Ok(v),
            None => Err(FrontendError::invalid(format!("nothing computes its input '{n}'"))),
        };
        let ins = node.input.iter().map(operand).collect::<Got<Vec<_>>>()?;
        b.name = label(node);
        let key = (domain(&node.domain), &*node.op_type, &*node.overload);
        let outs = match self.functions.get(&key) {
            Some(f) => self.call(b, key, f, node, ins)?,
            None => self.operator(b, node, ins)?,
        };
        self.left = self.left.saturating_sub((b.g.nodes.len() - made) / 64);
        outs.iter().try_for_each(|&v| self.sizes.count(b.g, v))?;
        for (i, name) in node.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            match outs.get(i).and_then(|v| v.some()) {
                Some(v) => self.define(name, v)?,
                None => return invalid(format!("it has no output {i}")),
            }
        }
        Ok(())
    }

    fn operator(
        &mut self,
        b: &mut Builder<'_>,
        node: &'m NodeProto,
        ins: Vec<Value>,
    ) -> Got<Vec<Value>> {
        let version = self.version(&node.domain);
        let import = table::find(&node.domain, &node.op_type, version)
            .ok_or_else(|| FrontendError::unsupported(format!("operator {}", node.op_type)))?;
        if !OF_ANY.contains(&&*node.op_type) {
            let tensor = |v: &Value| v.some().is_none_or(|v| b.g.ty(v).as_tensor().is_some());
            if let Some(i) = ins.iter().position(|v| !tensor(v)) {
                return invalid(format!("input {i} is not a tensor"));
            }
        }
        import(&mut Cx { b, imp: self, node, ins, version })
    }

    /// Version of a domain's operators (the newest where the model does not say).
    fn version(&self, d: &str) -> i64 {
        self.opsets.get(domain(d)).copied().unwrap_or(i64::MAX)
    }

    /// Inlines a function.
    fn call(
        &mut self,
        b: &mut Builder<'_>,
        key: FunctionKey<'m>,
        f: &'m FunctionProto,
        node: &'m NodeProto,
        ins: Vec<Value>,
    ) -> Got<Vec<Value>> {
        if self.calls.contains(&key) {
            return invalid(format!("function {} calls itself", f.name));
        }
        if ins.len() > f.input.len() {
            return invalid(format!("{} inputs for function {}", ins.len(), f.name));
        }
        self.calls_left = self.calls_left.checked_sub(1).ok_or_else(|| {
            FrontendError::limit(format!("more than {} calls", self.options.limits.calls))
        })?;
        self.deeper()?;
        let mut attrs: HashMap<&'m str, &'m AttributeProto> =
            f.attribute_proto.iter().map(|a| (&*a.name, a)).collect();
        for a in &node.attribute {
            if let Some(given) = self.attribute(a) {
                attrs.insert(&*a.name, given);
            }
        }
        let scope = f.input.iter().map(|n| &**n).zip(ins).filter(|(_, v)| !v.is_none()).collect();
        let scopes = std::mem::replace(&mut self.scopes, vec![scope]);
        let attrs = std::mem::replace(&mut self.attrs, attrs);
        let mut versions = opsets(&f.opset_import);
        for (&d, &v) in &self.opsets {
            versions.entry(d).or_insert(v);
        }
        let versions = std::mem::replace(&mut self.opsets, versions);
        self.calls.push(key);
        // An output that nothing computes is one that this call leaves out.
        let outs = self.nodes(b, &f.node).map(|()| {
            f.output.iter().map(|n| self.lookup(n).unwrap_or(Value::NONE)).collect::<Vec<_>>()
        });
        self.calls.pop();
        (self.scopes, self.attrs, self.opsets) = (scopes, attrs, versions);
        self.depth -= 1;
        outs
    }

    /// The attribute itself, or the one of the function call that it refers to.
    pub fn attribute(&self, a: &'m AttributeProto) -> Option<&'m AttributeProto> {
        match &*a.ref_attr_name {
            "" => Some(a),
            name => self.attrs.get(name).copied(),
        }
    }

    pub fn lookup(&self, name: &str) -> Option<Value> {
        self.scopes.iter().rev().find_map(|s| s.get(name)).copied()
    }

    fn define(&mut self, name: &'m str, v: Value) -> Got<()> {
        let scope = self.scopes.last_mut().expect("a graph is being read");
        match scope.insert(name, v) {
            None => Ok(()),
            Some(_) => invalid(format!("'{name}' is defined twice")),
        }
    }

    /// An error that lists every operator without an import.
    fn all_supported(&self, graph: &'m GraphProto) -> Got<()> {
        let mut missing: BTreeMap<String, UnsupportedOp> = BTreeMap::new();
        let mut seen = HashSet::new();
        self.missing_in(&graph.node, &self.opsets, &mut seen, &mut missing);
        if missing.is_empty() {
            return Ok(());
        }
        Err(FrontendError::operators(missing.into_values().collect()))
    }

    fn missing_in(
        &self,
        nodes: &'m [NodeProto],
        versions: &HashMap<&'m str, i64>,
        seen: &mut HashSet<FunctionKey<'m>>,
        missing: &mut BTreeMap<String, UnsupportedOp>,
    ) {
        let mut todo: Vec<(&'m [NodeProto], HashMap<&'m str, i64>)> =
            vec![(nodes, versions.clone())];
        while let Some((nodes, versions)) = todo.pop() {
            for n in nodes {
                let d = domain(&n.domain);
                let key = (d, &*n.op_type, &*n.overload);
                for g in n.attribute.iter().filter_map(|a| a.g.as_ref()) {
                    todo.push((&g.node, versions.clone()));
                }
                if let Some(f) = self.functions.get(&key) {
                    if seen.insert(key) {
                        let mut v = opsets(&f.opset_import);
                        versions.iter().for_each(|(&d, &x)| {
                            v.entry(d).or_insert(x);
                        });
                        todo.push((&f.node, v));
                    }
                    continue;
                }
                let version = versions.get(d).copied().unwrap_or(i64::MAX);
                if table::find(d, &n.op_type, version).is_some() {
                    continue;
                }
                let dot = if d.is_empty() { "" } else { "." };
                let shown = match version {
                    i64::MAX => format!("{d}{dot}{}", n.op_type),
                    v => format!("{d}{dot}{}-{v}", n.op_type),
                };
                let entry = missing.entry(shown.clone()).or_insert_with(|| UnsupportedOp {
                    op: shown,
                    count: 0,
                    examples: vec![],
                });
                entry.count += 1;
                if entry.examples.len() < 3 {
                    entry.examples.push(label(n));
                }
            }
        }
    }
}
