//! Which axes of a reshape belong together.

use hub_abi::Dim;

/// Smallest groups of consecutive axes `(of from, of to)` with equal element counts. Axes of size 1
/// are in no group. What cannot be told apart is one group.
pub fn reshape_groups(from: &[Dim], to: &[Dim]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let real = |d: &[Dim]| (0..d.len()).filter(|&i| !d[i].is(1)).collect::<Vec<_>>();
    let (a, b) = (real(from), real(to));
    let (mut i, mut j, mut out) = (0, 0, vec![]);
    while i < a.len() && j < b.len() {
        let (mut p, mut q) = (from[a[i]].clone(), to[b[j]].clone());
        let (mut k, mut l) = (i + 1, j + 1);
        while p != q {
            match grow_left(&p, &q) {
                Some(true) if k < a.len() => {
                    p = p.mul(&from[a[k]]);
                    k += 1;
                }
                Some(false) if l < b.len() => {
                    q = q.mul(&to[b[l]]);
                    l += 1;
                }
                _ => {
                    (k, l) = (a.len(), b.len());
                    break;
                }
            }
        }
        out.push((a[i..k].to_vec(), b[j..l].to_vec()));
        (i, j) = (k, l);
    }
    out
}

/// Which of two unequal products has to grow to meet the other: the left one?
fn grow_left(p: &Dim, q: &Dim) -> Option<bool> {
    match (p.as_const(), q.as_const()) {
        (Some(p), Some(q)) => Some(p < q),
        _ if q.div_exact(p).is_some() => Some(true),
        _ if p.div_exact(q).is_some() => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_abi::Sym;

    fn d(x: i64) -> Dim {
        x.into()
    }

    #[test]
    fn axes_that_belong_together() {
        let n = Dim::from(Sym(0));
        let got = reshape_groups(&[n.clone(), d(6), d(4)], &[n.clone(), d(1), d(2), d(3), d(4)]);
        assert_eq!(got, [(vec![0], vec![0]), (vec![1], vec![2, 3]), (vec![2], vec![4])]);
        let got = reshape_groups(&[n.clone(), d(8)], &[n.times(8)]);
        assert_eq!(got, [(vec![0, 1], vec![0])]);
        assert_eq!(reshape_groups(&[d(6), d(4)], &[d(4), d(6)]), [(vec![0, 1], vec![0, 1])]);
        assert_eq!(reshape_groups(&[d(1), d(1)], &[]), []);
    }
}
