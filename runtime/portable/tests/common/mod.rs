//! Graphs built by hand, for tests.
#![allow(dead_code, missing_docs)] // Each test program uses a part.

use hub_abi::pgraph::{Control, PGraph, PNode, POp, PRegion};
use hub_abi::prim::{BinaryOp, Prim};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype, Sym, SymInfo};
use hub_portable::{BytesStore, ExecError, Limits, Tensor, Value, run};
use std::sync::Arc;

/// Builds graphs by hand.
#[derive(Default)]
pub struct Build(pub PGraph);

impl Build {
    pub fn sym(&mut self, name: &str, min: i64, max: i64) -> Dim {
        self.0.syms.push(SymInfo { name: name.into(), min, max });
        Dim::from(Sym(self.0.syms.len() as u32 - 1))
    }
    pub fn value(&mut self, ty: Type) -> u32 {
        self.0.values.push(ty);
        self.0.values.len() as u32 - 1
    }
    pub fn t(&mut self, dtype: Dtype, dims: &[Dim]) -> u32 {
        self.value(Type::tensor(dtype, dims.to_vec()))
    }
    pub fn region(&mut self, params: &[u32], nodes: Vec<PNode>, results: &[u32]) -> u32 {
        let (params, results) = (params.to_vec(), results.to_vec());
        self.0.regions.push(PRegion { params, nodes, results });
        self.0.regions.len() as u32 - 1
    }
    pub fn root(&mut self, params: &[u32], nodes: Vec<PNode>, results: &[u32]) {
        self.0.root = self.region(params, nodes, results);
        self.0.inputs = (0..params.len()).map(|i| format!("in{i}")).collect();
    }
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Value>, ExecError> {
        self.run_with(inputs, &Limits::default())
    }
    pub fn run_with(&self, inputs: &[Tensor], limits: &Limits) -> Result<Vec<Value>, ExecError> {
        let inputs: Vec<Value> = inputs.iter().cloned().map(Value::from).collect();
        run(&self.0, &BytesStore::new(Arc::new(vec![0u8; 0])), &inputs, limits)
    }
}

pub fn node(op: POp, inputs: &[u32], outputs: &[u32]) -> PNode {
    PNode { op, inputs: inputs.to_vec(), outputs: outputs.to_vec(), name: "n".into() }
}
pub fn prim(p: Prim, inputs: &[u32], outputs: &[u32]) -> PNode {
    node(POp::Prim(p), inputs, outputs)
}
pub fn add(inputs: [u32; 2], out: u32) -> PNode {
    prim(Prim::Binary(BinaryOp::Add), &inputs, &[out])
}
pub fn control(c: Control, inputs: &[u32], outputs: &[u32]) -> PNode {
    node(POp::Control(c), inputs, outputs)
}
pub fn i64s(v: &[i64]) -> Tensor {
    Tensor::new(&[v.len()], v.to_vec()).unwrap()
}
pub fn ints(v: &Value) -> Vec<i64> {
    v.tensor().unwrap().to_i64s().unwrap()
}
pub fn int_type() -> Type {
    Type::tensor(Dtype::I64, vec![])
}

/// Carries a growing vector and scans its length: x = concat(x, x[..1]); y = len(x).
pub fn growing(trip: bool) -> Build {
    let mut b = Build::default();
    let (n, k, f, s) = (b.sym("N", 0, 99), b.sym("K", 0, 99), b.sym("F", 0, 99), b.sym("S", 0, 99));
    let count = b.t(Dtype::I64, &[]);
    let x = b.t(Dtype::I64, &[n]);
    let (i, inner) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, std::slice::from_ref(&k)));
    let one = b.t(Dtype::I64, &[Dim::from(1i64)]);
    let grown = b.t(Dtype::I64, &[k.plus(1)]);
    let len = b.t(Dtype::I64, &[]);
    let (limit, go) = (b.t(Dtype::I64, &[]), b.t(Dtype::Bool, &[]));
    let first =
        Prim::Slice { start: vec![Dim::from(0i64)], len: vec![Dim::from(1i64)], step: vec![1] };
    let nodes = vec![
        prim(first, &[inner], &[one]),
        prim(Prim::Concat { axis: 0 }, &[inner, one], &[grown]),
        prim(Prim::Dims { dims: vec![k.plus(1)], scalar: true }, &[], &[len]),
        prim(Prim::Dims { dims: vec![Dim::from(5i64)], scalar: true }, &[], &[limit]),
        prim(Prim::Binary(BinaryOp::Lt), &[len, limit], &[go]),
    ];
    let body = b.region(&[i, inner], nodes, &[go, grown, len]);
    let (last, lens) = (b.t(Dtype::I64, &[f]), b.t(Dtype::I64, &[s]));
    let op = Control::Loop { body, has_trip: trip, has_cond: false, carried: 1 };
    let inputs = if trip { vec![count, x] } else { vec![x] };
    b.root(&[count, x], vec![control(op, &inputs, &[last, lens])], &[last, lens]);
    b
}
