//! How much work a primitive is: what limits count, by sizes alone.

use hub_abi::prim::Prim;

fn count(dims: &[usize]) -> u64 {
    dims.iter().fold(1, |n, &d| n.saturating_mul(d as u64))
}

/// Elements computed, or read where a primitive reads more than it gives, and inner iterations
/// (multiply-adds, window taps). `ins` and `outs` are the dims of operands and results.
pub fn work(prim: &Prim, ins: &[&[usize]], outs: &[&[usize]]) -> u64 {
    let made = outs.iter().fold(0u64, |n, d| n.saturating_add(count(d)));
    let read = || ins.iter().fold(0u64, |n, d| n.saturating_add(count(d)));
    let after = |i: usize| ins.get(i).map_or(1, |d| count(d.get(1..).unwrap_or(&[])));
    let inner = match prim {
        Prim::Contract { a, b, .. } => {
            let sizes = |labels: &[u8], i: usize| {
                let dims = ins.get(i).copied().unwrap_or(&[]);
                labels.iter().copied().zip(dims.iter().copied()).collect::<Vec<_>>()
            };
            let mut all = [sizes(a, 0), sizes(b, 1)].concat();
            all.sort_unstable();
            all.dedup_by_key(|l| l.0);
            count(&all.iter().map(|l| l.1).collect::<Vec<_>>())
        }
        Prim::Conv { .. } => made.saturating_mul(after(1)),
        Prim::ConvTranspose { .. } => ins.first().map_or(0, |d| count(d)).saturating_mul(after(1)),
        Prim::Window { kernel, .. } | Prim::WindowArgMax { kernel, .. } => {
            let taps = kernel.iter().fold(1u64, |n, &k| n.saturating_mul(k.max(1) as u64));
            made.saturating_mul(taps)
        }
        Prim::Reduce { .. } | Prim::ArgReduce { .. } | Prim::TopK { .. } | Prim::NonZero { .. } => {
            read()
        }
        _ => 0,
    };
    made.saturating_add(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_product_counts_its_multiply_adds() {
        let p = Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] };
        assert_eq!(work(&p, &[&[3, 5], &[5, 7]], &[&[3, 7]]), 3 * 5 * 7 + 21);
        let huge = [usize::MAX, usize::MAX];
        assert_eq!(work(&p, &[&huge, &huge], &[&huge]), u64::MAX);
    }
}
