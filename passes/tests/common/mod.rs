//! Reference evaluation of graphs.
#![allow(dead_code)]

use hub_ir::portable::{Store, to_portable};
use hub_ir::{Dtype, Graph};
use hub_portable::{BytesStore, ConstStore, ExecFault, Limits, Tensor, Value};
use std::sync::Arc;

/// Outputs of a graph by the portable interpreter.
pub fn outputs(g: &Graph, inputs: &[Value]) -> Result<Vec<Value>, String> {
    let (p, store) = to_portable(g).map_err(|e| e.to_string())?;
    hub_portable::run(&p, &Pieces(store), inputs, &Limits::default()).map_err(|e| e.to_string())
}

struct Pieces(Store);

impl ConstStore for Pieces {
    fn load(&self, p: &hub_abi::pgraph::PGraph, index: u32) -> Result<Tensor, ExecFault> {
        let at = p.consts[index as usize].offset;
        let i = self.0.pieces.partition_point(|piece| piece.0 < at);
        // Pieces of no bytes share an offset with the next.
        let len = p.consts[index as usize].len as usize;
        let found = self.0.pieces[i..].iter().take_while(|piece| piece.0 == at);
        let piece =
            found.map(|piece| &piece.1).find(|b| b.len() == len).expect("a constant's bytes");
        let mut local = p.clone_const(index);
        local.consts[0].offset = 0;
        BytesStore::new(Arc::new(piece.clone())).load(&local, 0)
    }
}

trait OneConst {
    fn clone_const(&self, i: u32) -> hub_abi::pgraph::PGraph;
}

impl OneConst for hub_abi::pgraph::PGraph {
    fn clone_const(&self, i: u32) -> hub_abi::pgraph::PGraph {
        let consts = vec![self.consts[i as usize].clone()];
        hub_abi::pgraph::PGraph { consts, ..Default::default() }
    }
}

/// A tensor of moderate pseudo-random floats.
pub fn random(dims: &[usize], seed: u32) -> Value {
    let n: usize = dims.iter().product();
    let xs: Vec<f32> = (0..n as u32)
        .map(|i| {
            let h = (i ^ seed.rotate_left(13)).wrapping_mul(2654435761).wrapping_add(seed);
            ((h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b) >> 8) as f32 / 8388608.0 - 1.0
        })
        .collect();
    Value::Tensor(Tensor::new(dims, xs).unwrap())
}

/// Greatest difference over the greatest reference element; infinite where types, shapes,
/// non-finite elements or more than a thousandth of the integers differ.
pub fn difference(want: &Value, got: &Value) -> f64 {
    let (Value::Tensor(a), Value::Tensor(b)) = (want, got) else {
        return if format!("{want:?}") == format!("{got:?}") { 0.0 } else { f64::INFINITY };
    };
    if a.dtype() != b.dtype() || a.dims() != b.dims() {
        return f64::INFINITY;
    }
    if a.dtype() != Dtype::F32 {
        // An argmax may tie: one in a thousand may differ.
        let size = a.dtype().size().max(1);
        let pairs = a.bytes().chunks(size).zip(b.bytes().chunks(size));
        let unequal = pairs.filter(|(x, y)| x != y).count();
        return if unequal * 1000 <= a.count() { 0.0 } else { f64::INFINITY };
    }
    let (x, y) = (a.view::<f32>().unwrap(), b.view::<f32>().unwrap());
    let scale = x.iter().filter(|x| x.is_finite()).fold(1e-3f64, |m, x| m.max(f64::from(x.abs())));
    x.iter().zip(y.iter()).fold(0.0, |worst: f64, (&p, &q)| {
        let same = p == q || p.is_nan() && q.is_nan();
        let d = if same { 0.0 } else { f64::from((p - q).abs()) / scale };
        worst.max(if d.is_nan() { f64::INFINITY } else { d })
    })
}
