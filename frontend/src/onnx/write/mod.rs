//! Graphs back to ONNX: opset 21, any graph after any pass.
//!
//! What has a name in ONNX is written as that operator (`table.rs`), everything else as a function of
//! the model's own that holds its expansion, and so is a group (`function.rs`); control flow and
//! sequences are ONNX's own; sizes that depend on symbols are integer arithmetic on shapes (`dims.rs`).
//!
//! Invariants
//! - Inputs and outputs have exactly the model's names, in order; every other name is unique in its
//!   function, or in the main graph and its bodies.
//! - An operator gets only element types that its specification has (`types.rs`); others run in a
//!   wider type between casts.
//! - The same graph and options give the same bytes.
//! - What ONNX cannot say is an unsupported error that names the node.

mod contract;
mod control;
mod cx;
mod dims;
mod file;
mod function;
mod movement;
mod nn;
mod prim;
mod quant;
mod resize;
mod rnn;
mod spatial;
mod table;
mod text;
mod types;

use super::proto::{GraphProto, ModelProto, ValueInfoProto};
use crate::error::FrontendError;
use bytes::Bytes;
use cx::{Got, Writer};
use function::Functions;
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::graph::RegionData;
use hub_ir::{Builder, Graph, Node, Op, Region, Value};
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Version of ONNX's operators that is written, and the file format's version that came with it.
const OPSET: i64 = 21;
const IR_VERSION: i64 = 10;
/// The same for element types that came later.
const LATER: [(Dtype, i64, i64); 4] =
    [(Dtype::F4E2M1, 23, 11), (Dtype::F8E8M0, 24, 12), (Dtype::U2, 25, 13), (Dtype::I2, 25, 13)];

/// How a model is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Keep weights in a file beside the model even where the model could hold them.
    pub external_data: bool,
    /// Bytes of weights that a model file may hold; more go into a file beside it. (A protobuf
    /// message ends at 2 GiB.)
    pub inline_bytes: u64,
    /// Called so in the file: the graph's name.
    pub name: String,
}

impl Default for WriteOptions {
    /// Weights within the file up to 64 MiB short of 2 GiB.
    fn default() -> WriteOptions {
        let inline_bytes = (2 << 30) - (64 << 20);
        WriteOptions { external_data: false, inline_bytes, name: "hub".into() }
    }
}

/// A model in ONNX's form, not yet on disk.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    model: ModelProto,
    options: WriteOptions,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteReport {
    /// Nodes of the main graph.
    pub nodes: usize,
    /// Functions of the model's own.
    pub functions: usize,
    /// Constants.
    pub initializers: usize,
    /// Bytes of the model file.
    pub bytes: u64,
    /// Bytes of the data file beside it, where there is one.
    pub external_bytes: Option<u64>,
}

/// A graph as an ONNX model. Fails with an unsupported error where ONNX cannot say something.
pub fn convert(g: &Graph, options: &WriteOptions) -> Result<OnnxModel, FrontendError> {
    let (graph, functions) = Writer::new(g).main(&options.name)?;
    let (mut opset, mut ir_version) = (OPSET, IR_VERSION);
    for (_, v) in g.values.iter() {
        let own = |l: &&(Dtype, i64, i64)| matches!(&v.ty, Type::Tensor(t) if t.dtype == l.0);
        if let Some(&(_, ops, ir)) = LATER.iter().find(own) {
            (opset, ir_version) = (opset.max(ops), ir_version.max(ir));
        }
    }
    let (functions, opset_import) = functions.finish(&graph, opset);
    let model = ModelProto {
        ir_version,
        producer_name: "hub".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import,
        functions,
        ..ModelProto::default()
    };
    Ok(OnnxModel { model, options: options.clone() })
}

impl OnnxModel {
    /// The messages.
    pub fn proto(&self) -> &ModelProto {
        &self.model
    }

    /// The model as one file's bytes, weights included (a reader may refuse 2 GiB and more).
    pub fn to_bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// Writes the file, and beside it `NAME.data` where weights are external. The model file comes
    /// last and by a rename, so that it never stands without its data.
    pub fn save(mut self, path: &Path) -> Result<WriteReport, FrontendError> {
        let functions = self.model.functions.len();
        let graph = self.model.graph.get_or_insert_default();
        let (nodes, initializers) = (graph.node.len(), graph.initializer.len());
        let weights = |t: &super::proto::TensorProto| t.raw_data.as_ref().map_or(0, Bytes::len);
        let total: u64 = graph.initializer.iter().map(|t| weights(t) as u64).sum();
        let mut external_bytes = None;
        if self.options.external_data || total > self.options.inline_bytes {
            let mut data = path.file_name().unwrap_or_default().to_os_string();
            data.push(".data");
            let Some(name) = data.to_str() else {
                return Err(FrontendError::usage("the file's name is not UTF-8"));
            };
            let pieces = file::externalise(&mut graph.initializer, name);
            if !pieces.is_empty() {
                let file = path.with_file_name(name);
                let size = hub_abi::replace(&file, |out| {
                    let mut size = 0;
                    for (at, data) in &pieces {
                        out.seek(SeekFrom::Start(*at))?;
                        out.write_all(data)?;
                        size = at + data.len() as u64;
                    }
                    Ok(size)
                })
                .map_err(|e| FrontendError::io(&file, &e))?;
                external_bytes = Some(size);
            }
        }
        let bytes = self.model.encode_to_vec();
        hub_abi::replace(path, |out| out.write_all(&bytes))
            .map_err(|e| FrontendError::io(path, &e))?;
        let bytes = bytes.len() as u64;
        Ok(WriteReport { nodes, functions, initializers, bytes, external_bytes })
    }
}

impl Writer {
    fn main(mut self, name: &str) -> Got<(GraphProto, Functions)> {
        let root = self.g.root();
        let (ins, outs) = (self.g.inputs.clone(), self.g.outputs.clone());
        ins.iter().chain(&outs).for_each(|n| self.scope.names.take(n));
        let params = self.g.regions[root].params.clone();
        let mut input = vec![];
        for (n, &v) in ins.iter().zip(&params) {
            self.define(v, n);
            input.push(self.info(n, v));
            self.bind_axes(v)?;
        }
        self.region(root)?;
        let results = self.g.regions[root].results.clone();
        let mut renamed = HashMap::new();
        let mut output = vec![];
        let own: HashSet<&String> = ins.iter().collect();
        for (n, &v) in outs.iter().zip(&results) {
            let from = self.name(v)?;
            let free = self.top().made.contains(&from) && !renamed.contains_key(&from);
            if free && !own.contains(n) {
                renamed.insert(from, n.clone());
            } else if from != *n {
                if own.contains(n) {
                    return self.refuse(format!("an output is called as the input '{n}' is"));
                }
                let attrs = vec![];
                let copy = self.raw("Identity", &[&from], attrs);
                renamed.insert(copy, n.clone());
            }
            output.push(self.info(n, v));
        }
        let frame = self.scope.frames.pop().expect("the main graph");
        let (node, initializer) = (frame.nodes, self.scope.initializers);
        let name = if name.is_empty() { "hub" } else { name }.to_string();
        let mut graph =
            GraphProto { node, name, initializer, input, output, ..GraphProto::default() };
        file::rename(&mut graph, &renamed);
        file::prune(&mut graph);
        Ok((graph, self.functions))
    }

    /// An input's or output's name and type; a size that is one symbol has its name.
    fn info(&self, name: &str, v: Value) -> ValueInfoProto {
        let size = |d: &Dim| d.as_sym().map(|s| self.g.syms[s.0 as usize].name.clone());
        let r#type = Some(file::type_of(self.g.ty(v), &size));
        ValueInfoProto { name: name.to_string(), r#type }
    }

    /// The nodes of a region, into the graph that is being written.
    fn region(&mut self, r: Region) -> Got<()> {
        let nodes = self.g.regions[r].nodes.clone();
        self.nodes(&nodes)
    }

    fn nodes(&mut self, nodes: &[Node]) -> Got<()> {
        for &n in nodes {
            self.at.clone_from(&self.g.nodes[n].name);
            self.node(n).map_err(|e| e.at(&self.g.nodes[n].name))?;
        }
        Ok(())
    }

    fn node(&mut self, n: Node) -> Got<()> {
        let node = self.g.nodes[n].clone();
        let names = match &node.op {
            Op::Const(_) => return Ok(()),
            Op::Prim(p) => self.prim(p, &node.inputs, &node.outputs)?,
            Op::Control(c) => self.control(c, &node.inputs, &node.outputs)?,
            Op::Group { kind, region } => {
                let body = self.g.regions[*region].clone();
                self.function(&format!("{kind:?}Group"), &body, &node.inputs)?
            }
            Op::Source(s) => match table::source(self, s, &node.inputs)? {
                Some(names) => names,
                None => {
                    let mut b = Builder::new(&mut self.g, &node.name);
                    let results = hub_ir::expand::define(s, &mut b, &node.inputs)?;
                    let nodes = b.finish();
                    let params = node.inputs.clone();
                    let body = RegionData { params, nodes, results };
                    self.function(&function::named(s.name()), &body, &node.inputs)?
                }
            },
        };
        for (&v, name) in node.outputs.iter().zip(&names) {
            self.define(v, name);
            if !matches!(node.op, Op::Prim(_)) {
                self.bind_axes(v)?;
            }
        }
        Ok(())
    }
}
