//! Contractions: labels become batch, row, column and summed axes of a matrix product.

use crate::arith::{Num, compute_dtype, narrowed, with_num};
use crate::cast::cast;
use crate::error::{Limits, PrimError, misfit, undefined};
use crate::gemm::{MR, NR, gemm, pack_strided};
use crate::layout::{offsets, strides_of};
use crate::movement::transpose;
use crate::reduce::reduce;
use crate::tensor::Tensor;
use hub_abi::Dtype;
use hub_abi::prim::ReduceOp;

/// The type products are summed in, and the result's dtype.
pub(crate) fn accumulator(a: Dtype, b: Dtype) -> Result<(Dtype, Dtype), PrimError> {
    let byte = |d| matches!(d, Dtype::I8 | Dtype::U8);
    if byte(a) && byte(b) {
        return Ok((Dtype::I32, Dtype::I32));
    }
    if a != b {
        return misfit(format!("element types {a} and {b} differ"));
    }
    match compute_dtype(a) {
        Some(d) => Ok((d, a)),
        None => undefined("a contraction", a),
    }
}

/// An operand with its labels.
struct Side {
    x: Tensor,
    labels: Vec<u8>,
}

impl Side {
    fn new(x: &Tensor, labels: &[u8], acc: Dtype) -> Result<Side, PrimError> {
        let repeats = (1..labels.len()).any(|i| labels[..i].contains(&labels[i]));
        if labels.len() != x.rank() || repeats {
            return misfit(format!("labels {labels:?} for {} axes", x.rank()));
        }
        Ok(Side { x: cast(x, acc, false)?, labels: labels.to_vec() })
    }

    fn size(&self, label: u8) -> Option<usize> {
        self.labels.iter().position(|&l| l == label).map(|i| self.x.dims()[i])
    }

    /// Sums over labels that neither the other side nor the output has.
    fn drop_lonely(self, other: &[u8], out: &[u8], limits: &Limits) -> Result<Side, PrimError> {
        let stays = |l: &u8| other.contains(l) || out.contains(l);
        let axes: Vec<u32> =
            (0..self.labels.len()).filter(|&i| !stays(&self.labels[i])).map(|i| i as u32).collect();
        if axes.is_empty() {
            return Ok(self);
        }
        let x = reduce(ReduceOp::Sum, &self.x, &axes, false, limits)?;
        Ok(Side { x, labels: self.labels.into_iter().filter(stays).collect() })
    }

    /// Offsets of all index tuples over `labels`, where labels it lacks have stride 0.
    fn table(&self, labels: &[u8], dims: &[usize]) -> Vec<usize> {
        let own = strides_of(self.x.dims());
        let stride = |l: &u8| self.labels.iter().position(|x| x == l).map_or(0, |i| own[i]);
        offsets(dims, &labels.iter().map(stride).collect::<Vec<_>>())
    }
}

/// An einsum of two operands; see [`hub_abi::Prim::Contract`].
pub(crate) fn contract(
    a: &Tensor,
    b: &Tensor,
    [la, lb, lo]: [&[u8]; 3],
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    let (acc, result) = accumulator(a.dtype(), b.dtype())?;
    let a = Side::new(a, la, acc)?.drop_lonely(lb, lo, limits)?;
    let b = Side::new(b, lb, acc)?.drop_lonely(la, lo, limits)?;
    let mut groups: [Vec<u8>; 4] = Default::default();
    for &l in lo.iter().chain(la) {
        let at = match (a.size(l), b.size(l), lo.contains(&l)) {
            (Some(x), Some(y), _) if x != y => {
                return misfit(format!("label {l} is of size {x} and {y}"));
            }
            (Some(_), Some(_), true) => 0,
            (Some(_), None, true) => 1,
            (None, Some(_), true) => 2,
            (Some(_), Some(_), false) => 3,
            (None, None, true) => return misfit(format!("output label {l} is in no operand")),
            _ => continue,
        };
        if !groups[at].contains(&l) {
            groups[at].push(l);
        }
    }
    let size = |l: &u8| a.size(*l).or(b.size(*l)).unwrap_or(0);
    let dims = groups.each_ref().map(|g| g.iter().map(size).collect::<Vec<_>>());
    let order = [&groups[0][..], &groups[1], &groups[2]].concat();
    let shape: Vec<usize> = order.iter().map(size).collect();
    if order.len() != lo.len() {
        return misfit("an output label repeats");
    }
    let total = limits.count(&shape, acc.size())?;
    let product = with_num!(acc, T => {
        let out = if total == 0 { vec![] } else { run::<T>([&a, &b], &groups, &dims, total) };
        Tensor::new(&shape, out)
    })?;
    let perm: Vec<u32> =
        lo.iter().filter_map(|l| order.iter().position(|x| x == l)).map(|i| i as u32).collect();
    narrowed(transpose(&product, &perm, limits)?, result)
}

fn run<T: Num>(
    [a, b]: [&Side; 2],
    groups: &[Vec<u8>; 4],
    dims: &[Vec<usize>; 4],
    total: usize,
) -> Vec<T> {
    let table = |side: &Side, g: usize| side.table(&groups[g], &dims[g]);
    let (batch_a, batch_b) = (table(a, 0), table(b, 0));
    let (rows, cols) = (table(a, 1), table(b, 2));
    let (ka, kb) = (table(a, 3), table(b, 3));
    let (xs, ys) = (a.x.cast::<T>(), b.x.cast::<T>());
    let shape = [rows.len(), cols.len(), ka.len()];
    let mut out = vec![T::ZERO; total];
    let chunks = out.chunks_exact_mut(shape[0] * shape[1]);
    for ((c, &at), &bt) in chunks.zip(&batch_a).zip(&batch_b) {
        gemm(
            shape,
            &mut |i, k, p| pack_strided::<T, T, MR>(&xs[at..], &rows, &ka, [i, k], p, |x| x),
            &mut |j, k, p| pack_strided::<T, T, NR>(&ys[bt..], &cols, &kb, [j, k], p, |x| x),
            c,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: a loop over all labels.
    fn naive(a: &Tensor, b: &Tensor, [la, lb, lo]: [&[u8]; 3]) -> (Vec<usize>, Vec<i64>) {
        let mut labels = [la, lb].concat();
        labels.sort();
        labels.dedup();
        let at =
            |x: &Tensor, ls: &[u8], l: u8| ls.iter().position(|&y| y == l).map(|i| x.dims()[i]);
        let size = |l: u8| at(a, la, l).or(at(b, lb, l)).unwrap();
        let dims: Vec<usize> = lo.iter().map(|&l| size(l)).collect();
        let mut out = vec![0i64; dims.iter().product()];
        let (xs, ys) = (a.to_i64s().unwrap(), b.to_i64s().unwrap());
        let total: usize = labels.iter().map(|&l| size(l)).product();
        for mut t in 0..total {
            let mut index = [0usize; 256];
            for &l in &labels {
                index[l as usize] = t % size(l);
                t /= size(l);
            }
            let flat = |ls: &[u8]| ls.iter().fold(0, |f, &l| f * size(l) + index[l as usize]);
            out[flat(lo)] += xs[flat(la)] * ys[flat(lb)];
        }
        (dims, out)
    }

    fn labels() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<usize>)> {
        let all = || prop::sample::subsequence(vec![0u8, 1, 2, 3, 4], 0..=4).prop_shuffle();
        (all(), all(), prop::collection::vec(1usize..5, 5)).prop_flat_map(|(a, b, sizes)| {
            let mut union = [&a[..], &b].concat();
            union.sort();
            union.dedup();
            let n = union.len();
            let out = prop::sample::subsequence(union, 0..=n).prop_shuffle();
            (Just(a), Just(b), out, Just(sizes))
        })
    }

    proptest! {
        #[test]
        fn contractions_match_their_definition((la, lb, lo, sizes) in labels(), byte in any::<bool>()) {
            let make = |ls: &[u8], k: usize| {
                let dims: Vec<usize> = ls.iter().map(|&l| sizes[l as usize]).collect();
                let n: usize = dims.iter().product();
                let v: Vec<i64> = (0..n).map(|i| ((i * 7 + k) % 11) as i64 - 5).collect();
                Tensor::new(&dims, v).unwrap()
            };
            let (a, b) = (make(&la, 1), make(&lb, 4));
            let want = naive(&a, &b, [&la, &lb, &lo]);
            let kind = if byte { Dtype::I8 } else { Dtype::F32 };
            let (fa, fb) = (cast(&a, kind, false).unwrap(), cast(&b, kind, false).unwrap());
            let got = contract(&fa, &fb, [&la, &lb, &lo], &Limits::default()).unwrap();
            prop_assert_eq!(got.dtype(), if byte { Dtype::I32 } else { Dtype::F32 });
            let got = cast(&got, Dtype::I64, false).unwrap();
            prop_assert_eq!((got.dims().to_vec(), got.to_i64s().unwrap()), want);
        }
    }

    #[test]
    fn blocks_meet_at_their_edges() {
        let (m, k, n) = (9, 600, 530);
        let a = Tensor::new(&[m, k], (0..m * k).map(|i| (i % 13) as f64 - 6.0).collect()).unwrap();
        let b = Tensor::new(&[n, k], (0..n * k).map(|i| (i % 7) as f64 - 3.0).collect()).unwrap();
        let c = contract(&a, &b, [&[0, 1], &[2, 1], &[0, 2]], &Limits::default()).unwrap();
        let (x, y, z) =
            (a.view::<f64>().unwrap(), b.view::<f64>().unwrap(), c.view::<f64>().unwrap());
        for i in 0..m {
            for j in 0..n {
                let want: f64 = (0..k).map(|l| x[i * k + l] * y[j * k + l]).sum();
                assert_eq!(z[i * n + j], want);
            }
        }
    }

    #[test]
    fn empty_sums_are_zero() {
        let a = Tensor::new(&[2, 0], Vec::<f32>::new()).unwrap();
        let b = Tensor::new(&[0, 3], Vec::<f32>::new()).unwrap();
        let c = contract(&a, &b, [&[0, 1], &[1, 2], &[0, 2]], &Limits::default()).unwrap();
        assert_eq!(c, Tensor::new(&[2, 3], vec![0f32; 6]).unwrap());
    }
}
