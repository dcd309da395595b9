//! Matrix products.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::Dim;
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

/// The product as one contraction. A batch axis of size 1 that the other operand repeats is squeezed
/// out, so that labels say what broadcasts; all others keep their axes.
fn product(b: &mut Builder<'_>, x: Value, y: Value, tx: bool, ty: bool) -> Built {
    let (dx, dy) = (b.g.dims(x).to_vec(), b.g.dims(y).to_vec());
    if dx.is_empty() || dy.is_empty() {
        return Err(OpError::new("a matrix product of a scalar"));
    }
    let lead = |d: &[Dim]| d.len().max(2) - 2;
    let x = b.leveled(x, &[&dy[..lead(&dy)], &dx[lead(&dx)..]].concat())?;
    let y = b.leveled(y, &[&dx[..lead(&dx)], &dy[lead(&dy)..]].concat())?;
    let (dx, dy) = (b.g.dims(x).to_vec(), b.g.dims(y).to_vec());
    let batch = lead(&dx).max(lead(&dy));
    let label = |i: usize| BATCH + i as u8;
    // Size of an operand's batch axis, counted from the result's first.
    let size = |d: &[Dim], i: usize| (i + lead(d)).checked_sub(batch).map(|j| d[j].clone());
    let repeats = |d: &[Dim], i: usize| size(d, i).is_some_and(|s| !s.is(1));
    let side = |d: &[Dim], other: &[Dim], trans: bool, own: [u8; 2]| {
        let (mut keep, mut labels) = (vec![], vec![]);
        for i in 0..batch {
            if let Some(s) = size(d, i)
                && !(s.is(1) && repeats(other, i))
            {
                keep.push(s);
                labels.push(label(i));
            }
        }
        keep.extend_from_slice(&d[lead(d)..]);
        match (d.len(), trans) {
            (1, _) => labels.push(K),
            (_, false) => labels.extend(own),
            (_, true) => labels.extend([own[1], own[0]]),
        }
        (keep, labels)
    };
    let (kx, lx) = side(&dx, &dy, tx, [M, K]);
    let (ky, ly) = side(&dy, &dx, ty, [K, N]);
    let known = |l: &u8| lx.contains(l) || ly.contains(l);
    let out: Vec<u8> = (0..batch).map(label).chain([M, N]).filter(known).collect();
    let (x, y) = (b.reshape(x, kx)?, b.reshape(y, ky)?);
    b.prim(Prim::Contract { a: lx, b: ly, out }, &[x, y])
}
