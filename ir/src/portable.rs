//! The way to the portable graph, and with it to reference evaluation.

use crate::entity::{ConstId, Region, Value};
use crate::expand::expand_all;
use crate::graph::{Graph, Op};
use crate::ops::OpError;
use bytes::Bytes;
use hub_abi::pgraph::{Control, PConst, PGraph, PNode, POp, PRegion};
use std::collections::HashMap;

/// Pieces of a constant store, in order; the portable graph's offsets count from the first.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The bytes of each constant, at its offset.
    pub pieces: Vec<(u64, Bytes)>,
    /// Bytes in all.
    pub len: u64,
}

/// Constants start at multiples of this many bytes in a store.
pub const CONST_ALIGN: u64 = 64;

impl Store {
    /// Appends bytes, aligned; gives their offset.
    pub fn push(&mut self, data: Bytes) -> u64 {
        let at = self.len.next_multiple_of(CONST_ALIGN);
        self.len = at + data.len() as u64;
        self.pieces.push((at, data));
        at
    }
}

/// The portable form of a graph: source operators expanded, living values and constants numbered
/// densely, in order of definition. Strings in constants travel as `u32` length + UTF-8 bytes each.
pub fn to_portable(g: &Graph) -> Result<(PGraph, Store), OpError> {
    lower(g).map(|p| (p.graph, p.store))
}

/// A portable graph with what it was made from.
pub struct Portable {
    /// The graph.
    pub graph: PGraph,
    /// Its constants' bytes, one piece per entry of the graph's constants.
    pub store: Store,
    /// The graph's constant of each entry.
    pub consts: Vec<ConstId>,
    /// Numbers of values (those of source operators' expansions have other names before).
    pub values: HashMap<Value, u32>,
    /// Numbers of regions.
    pub regions: HashMap<Region, u32>,
}

/// As [`to_portable`], with the correspondence. Nodes keep their positions in their regions where
/// no source operator is left.
pub fn lower(g: &Graph) -> Result<Portable, OpError> {
    let mut g = g.clone();
    expand_all(&mut g)?;
    let mut to = Lowering {
        g: &g,
        out: PGraph::default(),
        store: Store::default(),
        at: HashMap::new(),
        consts: HashMap::new(),
        order: vec![],
        regions: HashMap::new(),
    };
    to.out.syms = g.syms.clone();
    to.out.constraints = g.constraints.0.clone();
    to.out.inputs = g.inputs.clone();
    to.out.outputs = g.outputs.clone();
    to.out.root = to.region(g.root());
    let (values, regions) = (to.at, to.regions);
    Ok(Portable { graph: to.out, store: to.store, consts: to.order, values, regions })
}

struct Lowering<'g> {
    g: &'g Graph,
    out: PGraph,
    store: Store,
    at: HashMap<Value, u32>,
    consts: HashMap<u32, u32>,
    order: Vec<ConstId>,
    regions: HashMap<Region, u32>,
}

impl Lowering<'_> {
    fn value(&mut self, v: Value) -> u32 {
        let out = &mut self.out.values;
        *self.at.entry(v).or_insert_with(|| {
            out.push(self.g.ty(v).clone());
            out.len() as u32 - 1
        })
    }

    fn values(&mut self, vs: &[Value]) -> Vec<u32> {
        vs.iter().filter_map(|v| v.some()).map(|v| self.value(v)).collect()
    }

    fn region(&mut self, r: Region) -> u32 {
        let data = &self.g.regions[r];
        let params = self.values(&data.params);
        let mut nodes = vec![];
        for &n in &data.nodes {
            let node = &self.g.nodes[n];
            let op = match &node.op {
                Op::Const(c) => POp::Const(self.constant(c.0)),
                Op::Prim(p) => POp::Prim(p.clone()),
                Op::Group { region, .. } => POp::Group(self.region(*region)),
                Op::Control(c) => POp::Control(self.control(c)),
                Op::Source(s) => unreachable!("{} was expanded", s.name()),
            };
            let (inputs, outputs) = (self.values(&node.inputs), self.values(&node.outputs));
            nodes.push(PNode { op, inputs, outputs, name: node.name.clone() });
        }
        let results = self.values(&data.results);
        self.out.regions.push(PRegion { params, nodes, results });
        let at = self.out.regions.len() as u32 - 1;
        self.regions.insert(r, at);
        at
    }

    fn control(&mut self, c: &Control) -> Control {
        let mut c = c.clone();
        match &mut c {
            Control::If { then, orelse } => {
                *then = self.region(Region(*then));
                *orelse = self.region(Region(*orelse));
            }
            Control::Loop { body, .. } | Control::Scan { body, .. } => {
                *body = self.region(Region(*body));
            }
            _ => {}
        }
        c
    }

    fn constant(&mut self, c: u32) -> u32 {
        if let Some(&at) = self.consts.get(&c) {
            return at;
        }
        let data = &self.g.consts[ConstId(c)];
        let bytes = match data.ty.dtype {
            hub_abi::Dtype::Str => strings(&data.strings),
            _ => data.data.clone(),
        };
        let len = bytes.len() as u64;
        let offset = self.store.push(bytes);
        self.out.consts.push(PConst { ty: data.ty.clone(), offset, len, packing: None });
        let at = self.out.consts.len() as u32 - 1;
        self.consts.insert(c, at);
        self.order.push(ConstId(c));
        at
    }
}

fn strings(xs: &[String]) -> Bytes {
    let one = |s: &String| {
        let len = u32::try_from(s.len()).unwrap_or(u32::MAX).to_le_bytes();
        [&len[..], s.as_bytes()].concat()
    };
    xs.iter().flat_map(one).collect::<Vec<u8>>().into()
}
