//! Matrix products.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::Prim;
use serde::{Deserialize, Serialize};

/// `(a: […, M, K], b: […, K, N]) -> […, M, N]`, batch axes broadcasting; a vector operand is a row
/// (a) or column (b) that leaves no axis. ONNX MatMul; Paddle matmul, matmul_v2, bmm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MatMul {
    /// a is given as […, K, M].
    pub trans_a: bool,
    /// b is given as […, N, K].
    pub trans_b: bool,
}

impl SourceOp for MatMul {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        Ok(vec![product(b, ins[0], ins[1], self.trans_a, self.trans_b)?])
    }
}

/// NumPy's matmul.
pub fn numpy(b: &mut Builder<'_>, x: Value, y: Value) -> Built {
    product(b, x, y, false, false)
}

const M: u8 = 0;
const K: u8 = 1;
const N: u8 = 2;
const BATCH: u8 = 3;

/// The product as one contraction. Batch axes of size 1 that the other operand lacks or repeats are
/// squeezed out, so that labels say what broadcasts.
fn product(b: &mut Builder<'_>, x: Value, y: Value, tx: bool, ty: bool) -> Built {
    let (rx, ry) = (b.g.dims(x).len(), b.g.dims(y).len());
    if rx == 0 || ry == 0 {
        return Err(OpError::new("a matrix product of a scalar"));
    }
    let batch = rx.max(2).max(ry.max(2)) - 2;
    let label = |i: usize| BATCH + i as u8;
    let mut side = |v: Value, rank: usize, trans: bool, own: [u8; 2]| -> Built<(Value, Vec<u8>)> {
        let dims = b.g.dims(v).to_vec();
        let lead = rank.max(2) - 2;
        let (mut keep, mut labels) = (vec![], vec![]);
        for (i, d) in dims[..lead].iter().enumerate() {
            if !d.is(1) {
                keep.push(d.clone());
                labels.push(label(batch - lead + i));
            }
        }
        keep.extend_from_slice(&dims[lead..]);
        match (rank, trans) {
            (1, _) => labels.push(K),
            (_, false) => labels.extend(own),
            (_, true) => labels.extend([own[1], own[0]]),
        }
        Ok((b.reshape(v, keep)?, labels))
    };
    let (x1, lx) = side(x, rx, tx, [M, K])?;
    let (y1, ly) = side(y, ry, ty, [K, N])?;
    let known = |l: u8| lx.contains(&l) || ly.contains(&l);
    let out: Vec<u8> = (0..batch).map(label).chain([M, N]).filter(|&l| known(l)).collect();
    let mut full = vec![];
    let squeezed = (0..batch).any(|i| !known(label(i)));
    let r = b.prim(Prim::Contract { a: lx, b: ly, out: out.clone() }, &[x1, y1])?;
    if !squeezed {
        return Ok(r);
    }
    let dims = b.g.dims(r).to_vec();
    for l in (0..batch).map(label).chain([M, N]) {
        match out.iter().position(|&o| o == l) {
            Some(i) => full.push(dims[i].clone()),
            None if l >= BATCH => full.push(1i64.into()),
            None => {}
        }
    }
    b.reshape(r, full)
}
