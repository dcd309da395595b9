//! Contractions: a matrix product where the labels are one, else an Einsum.

use super::cx::{Got, Writer, X, string};
use hub_abi::Dtype;

impl Writer {
    /// An einsum of two operands.
    pub fn contract(&mut self, a: &X, b: &X, [la, lb, lo]: [&[u8]; 3]) -> Got<X> {
        let bytes = matches!((a.ty, b.ty), (Dtype::I8 | Dtype::U8, Dtype::I8 | Dtype::U8));
        if let Some(swap) = matrices(la, lb, lo) {
            let a = self.swapped(a, la.len(), swap[0])?;
            let b = self.swapped(b, lb.len(), swap[1])?;
            if bytes {
                let name = self.raw("MatMulInteger", &[&a.name, &b.name], vec![]);
                return Ok(X { name, ty: Dtype::I32 });
            }
            return self.op("MatMul", &[&a, &b]);
        }
        let (mut a, mut b) = (a.clone(), b.clone());
        if bytes {
            (a, b) = (self.cast(&a, Dtype::I32), self.cast(&b, Dtype::I32));
        }
        let Some(equation) = equation(la, lb, lo) else {
            return self.refuse("a contraction of more axes than Einsum has letters");
        };
        self.op_with("Einsum", &[&a, &b], &[], vec![string("equation", &equation)])
    }

    /// x with its last two axes swapped.
    pub fn swapped(&mut self, x: &X, rank: usize, swap: bool) -> Got<X> {
        let mut perm: Vec<usize> = (0..rank).collect();
        if swap {
            perm.swap(rank - 2, rank - 1);
        }
        self.transpose(x, &perm)
    }
}

/// Whether each operand's last two axes must be swapped for MatMul to say the same.
fn matrices(la: &[u8], lb: &[u8], lo: &[u8]) -> Option<[bool; 2]> {
    let (ra, rb, ro) = (la.len().checked_sub(2)?, lb.len().checked_sub(2)?, lo.len());
    let (lead_a, lead_b) = (&la[..ra], &lb[..rb]);
    let lead_o = &lo[..ro.checked_sub(2)?];
    let (m, n) = (lo[ro - 2], lo[ro - 1]);
    let longer = if ra > rb { lead_a } else { lead_b };
    if longer != lead_o || !(lead_o.ends_with(lead_a) && lead_o.ends_with(lead_b)) {
        return None;
    }
    let swap_a = la[ra] != m;
    let swap_b = lb[rb + 1] != n;
    let k = if swap_a { la[ra] } else { la[ra + 1] };
    let a = if swap_a { [k, m] } else { [m, k] };
    let b = if swap_b { [n, k] } else { [k, n] };
    let fits = la[ra..] == a && lb[rb..] == b && m != n && m != k && n != k;
    fits.then_some([swap_a, swap_b])
}

/// An Einsum's equation, labels as letters in order of appearance.
fn equation(la: &[u8], lb: &[u8], lo: &[u8]) -> Option<String> {
    let mut known: Vec<u8> = vec![];
    let mut text = |labels: &[u8]| -> Option<String> {
        let letter = |l: &u8| {
            let at = known.iter().position(|k| k == l).unwrap_or_else(|| {
                known.push(*l);
                known.len() - 1
            });
            (b'a'..=b'z').chain(b'A'..=b'Z').nth(at).map(char::from)
        };
        labels.iter().map(letter).collect()
    };
    Some(format!("{},{}->{}", text(la)?, text(lb)?, text(lo)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_told_from_other_sums() {
        // Attention scores of [b, h, s, d] and [b, h, t, d].
        assert_eq!(matrices(&[0, 1, 2, 3], &[0, 1, 4, 3], &[0, 1, 2, 4]), Some([false, true]));
        // A weight without batch axes, and a batched right operand.
        assert_eq!(matrices(&[0, 1, 2], &[2, 3], &[0, 1, 3]), Some([false, false]));
        assert_eq!(matrices(&[2, 1], &[0, 2, 3], &[0, 1, 3]), Some([true, false]));
        // Heads behind the sequence are an Einsum.
        assert_eq!(matrices(&[0, 2, 1, 3], &[0, 4, 1, 3], &[0, 1, 2, 4]), None);
        // So is an output with its axes the other way round, and an inner product.
        assert_eq!(matrices(&[0, 1], &[1, 2], &[2, 0]), None);
        assert_eq!(matrices(&[0], &[0], &[]), None);
        assert_eq!(equation(&[7, 1], &[1, 9], &[9, 7]).as_deref(), Some("ab,bc->ca"));
    }
}
