//! How much work a primitive is: what limits count, by sizes alone.
//!
//! The unit is a multiply-add of a large matrix product, about a quarter of a nanosecond of the
//! interpreter on one core; everything else counts by how long it takes beside that, roughly, so
//! that a limit on work is one on time.

use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};

/// Making an element: memory is claimed, read and written.
const ELEMENT: u64 = 32;
/// A function that is computed by a series.
const FUNCTION: u64 = 96;
/// An element that is found by an index.
const PLACE: u64 = 96;
/// A string made, read or matched.
const STRING: u64 = 1024;
/// Beginning and ending one problem of a batch.
const PROBLEM: u64 = 256;
/// Running a node.
pub(crate) const NODE: u64 = 4096;

fn count(dims: &[usize]) -> u64 {
    dims.iter().fold(1, |n, &d| n.saturating_mul(d as u64))
}

/// Units of work of a primitive. `ins` and `outs` are the dims of operands and results.
pub fn work(prim: &Prim, ins: &[&[usize]], outs: &[&[usize]]) -> u64 {
    let made = outs.iter().fold(0u64, |n, d| n.saturating_add(count(d)));
    let read = ins.iter().fold(0u64, |n, d| n.saturating_add(count(d)));
    let dims = |i: usize| ins.get(i).copied().unwrap_or(&[]);
    let (each, inner) = match prim {
        Prim::Unary(op) => (function(*op), 0),
        Prim::Binary(BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Mod | BinaryOp::Rem) => {
            (FUNCTION, 0)
        }
        Prim::Cast { to, .. } => (if *to == Dtype::Str { STRING } else { 0 }, 0),
        Prim::Contract { a, b, out } => (0, contraction([a, b, out], [dims(0), dims(1)])),
        Prim::Conv { groups, .. } | Prim::ConvTranspose { groups, .. } => {
            let transposed = matches!(prim, Prim::ConvTranspose { .. });
            (0, made.saturating_mul(filtered(dims(1), *groups, transposed)))
        }
        Prim::Window { kernel, .. } | Prim::WindowArgMax { kernel, .. } => {
            let taps = kernel.iter().fold(8u64, |n, &k| n.saturating_mul(k.max(1) as u64));
            (taps, 0)
        }
        Prim::Reduce { .. } | Prim::ArgReduce { .. } => (0, read.saturating_mul(ELEMENT / 2)),
        Prim::Cumulative { .. } => (ELEMENT, 0),
        Prim::TopK { axis, .. } => {
            let n = dims(0).get(*axis as usize).copied().unwrap_or(1) as u64;
            let levels = u64::from(u64::BITS - n.leading_zeros());
            (0, read.saturating_mul(2 * ELEMENT * (levels + 1)))
        }
        Prim::NonZero { .. } => (0, read.saturating_mul(ELEMENT)),
        Prim::Gather { .. } | Prim::GatherElements { .. } | Prim::GatherNd { .. } => (PLACE, 0),
        Prim::ScatterElements { .. } | Prim::ScatterNd { .. } => {
            (0, count(dims(1)).saturating_mul(PLACE))
        }
        Prim::Random { .. } => (FUNCTION, 0),
        Prim::Text(_) | Prim::Find => (STRING, read.saturating_mul(STRING)),
        Prim::DecodeImage { .. } => (FUNCTION, read.saturating_mul(PLACE)),
        _ => (0, 0),
    };
    made.saturating_mul(each.saturating_add(ELEMENT)).saturating_add(inner)
}

fn function(op: UnaryOp) -> u64 {
    use UnaryOp::*;
    match op {
        Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Not | BitNot | IsNan | IsInf | Sqrt
        | Recip => 0,
        _ => FUNCTION,
    }
}

/// Problems of a batch, each a matrix product in tiles of 4 by 8.
fn contraction([a, b, out]: [&[u8]; 3], [da, db]: [&[usize]; 2]) -> u64 {
    let size = |labels: &[u8], dims: &[usize], l: u8| {
        labels.iter().position(|&x| x == l).and_then(|i| dims.get(i)).map(|&d| d as u64)
    };
    let [mut batch, mut m, mut n, mut k] = [1u64; 4];
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    for l in all {
        let (x, y) = (size(a, da, l), size(b, db, l));
        let to = match (x.is_some(), y.is_some(), out.contains(&l)) {
            (true, true, true) => &mut batch,
            (true, false, true) => &mut m,
            (false, true, true) => &mut n,
            _ => &mut k,
        };
        *to = to.saturating_mul(x.or(y).unwrap_or(1));
    }
    let tiles = |n: u64, t: u64| n.div_ceil(t).saturating_mul(t);
    let products = tiles(m, 4).saturating_mul(tiles(n, 8)).saturating_mul(k);
    let read = m.saturating_add(n).saturating_mul(k).saturating_mul(4);
    batch.saturating_mul(products.saturating_add(read).saturating_add(PROBLEM))
}

/// What an element of a convolution takes.
fn filtered(filter: &[usize], groups: i64, transposed: bool) -> u64 {
    let at = |i: usize| filter.get(i).map_or(1, |&d| d as u64);
    let groups = groups.max(1).unsigned_abs();
    let (channels, features) =
        if transposed { (at(0) / groups, at(1)) } else { (at(1), at(0) / groups) };
    // Few features a group fill no tile.
    let each = if features < 4 { 6 } else { 1 };
    count(filter.get(2..).unwrap_or(&[])).saturating_mul(channels.max(1)).saturating_mul(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_product_counts_its_multiply_adds() {
        let p = Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] };
        let n = 1000usize;
        let of = |n: usize| work(&p, &[&[n, n], &[n, n]], &[&[n, n]]) as f64;
        assert!((of(n) / (n * n * n) as f64 - 1.0).abs() < 0.1);
        let huge = [usize::MAX, usize::MAX];
        assert_eq!(work(&p, &[&huge, &huge], &[&huge]), u64::MAX);
    }

    #[test]
    fn what_takes_longer_counts_more() {
        let n = [1usize << 20];
        let of = |p: Prim| work(&p, &[&n], &[&n]);
        let neg = of(Prim::Unary(UnaryOp::Neg));
        assert!(of(Prim::Unary(UnaryOp::Erf)) > 2 * neg);
        let top = Prim::TopK { k: 5i64.into(), axis: 0, largest: true, sorted: true };
        assert!(work(&top, &[&n], &[&[5], &[5]]) > 10 * neg);
        let small = Prim::Contract { a: vec![0, 1, 2], b: vec![0, 2, 3], out: vec![0, 1, 3] };
        let many = work(&small, &[&[1 << 20, 2, 2], &[1 << 20, 2, 2]], &[&[1 << 20, 2, 2]]);
        assert!(many > 8 << 20, "more than its multiply-adds");
    }
}
