//! Packed weights: the permutation between a row-major tensor and the panels that kernels read.
//!
//! Row-major, a tensor is `[outer][n][k]` (or `[outer][k][n]` where `k_major`), and where
//! `taps > 1` its k runs over (channel, tap). Packed, it is
//! `[outer][ceil(n/block)][ceil(k/v)][block][v]` with k running over (tap, channel), and zeros
//! where n or k is past its end. [`unpack`] is the left inverse of [`pack`].

use crate::pgraph::Packing;

/// Why bytes and a [`Packing`] do not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PackError {
    /// A count is zero or the taps do not divide k.
    #[error("a packing of n {n}, k {k}, taps {taps}, block {block}, v {v} has no meaning")]
    Malformed {
        /// Output features.
        n: u64,
        /// Reduced elements.
        k: u64,
        /// Kernel taps.
        taps: u64,
        /// Features a panel.
        block: u64,
        /// Consecutive k elements.
        v: u64,
    },
    /// Sizes do not fit 64 bits or elements are not of 1, 2, 4, 8 or 16 bytes.
    #[error("a packed constant of {0}-byte elements is too large or of an unknown element size")]
    Size(usize),
    /// The bytes given are not as many as the packing says.
    #[error("a packed constant needs {need} bytes where {got} are given")]
    Length {
        /// Bytes by the packing.
        need: u64,
        /// Bytes given.
        got: u64,
    },
}

impl Packing {
    /// Bytes of the row-major tensor and of the packed one, for `size`-byte elements.
    pub fn byte_lens(&self, size: usize) -> Result<(u64, u64), PackError> {
        if self.block == 0 || self.v == 0 || self.taps == 0 || !self.k.is_multiple_of(self.taps) {
            return Err(PackError::Malformed {
                n: self.n,
                k: self.k,
                taps: self.taps,
                block: self.block,
                v: self.v,
            });
        }
        let of = |n: Option<u64>, k: Option<u64>| {
            let bytes = self.outer.checked_mul(n?)?.checked_mul(k?)?.checked_mul(size as u64)?;
            usize::try_from(bytes).ok().map(|_| bytes)
        };
        let padded = of(
            self.n.checked_next_multiple_of(self.block),
            self.k.checked_next_multiple_of(self.v),
        );
        match (of(Some(self.n), Some(self.k)), padded) {
            (Some(dense), Some(packed)) => Ok((dense, packed)),
            _ => Err(PackError::Size(size)),
        }
    }

    /// Calls `f(dense, packed)` with the element indices of every element, in packed order.
    /// Lengths must have been checked by [`Packing::byte_lens`].
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        let [outer, n, k, taps, block, v] =
            [self.outer, self.n, self.k, self.taps, self.block, self.v].map(|x| x as usize);
        if n == 0 || k == 0 {
            return;
        }
        let channels = k / taps;
        let (panels, steps) = (n.div_ceil(block), k.div_ceil(v));
        for o in 0..outer {
            for kp in 0..k {
                let row = (kp % channels) * taps + kp / channels;
                for j in 0..n {
                    let inside = if self.k_major { row * n + j } else { j * k + row };
                    let panel = (o * panels + j / block) * steps + kp / v;
                    f(o * n * k + inside, (panel * block + j % block) * v + kp % v);
                }
            }
        }
    }
}

fn expect(bytes: &[u8], need: u64) -> Result<(), PackError> {
    let got = bytes.len() as u64;
    if got == need { Ok(()) } else { Err(PackError::Length { need, got }) }
}

/// Row-major bytes of `size`-byte elements to packed ones; padding is zero.
pub fn pack(dense: &[u8], size: usize, p: &Packing) -> Result<Vec<u8>, PackError> {
    let (need, out) = p.byte_lens(size)?;
    expect(dense, need)?;
    let mut to = vec![0; out as usize];
    copy(size, p, dense, &mut to, |dense, packed| (dense, packed))?;
    Ok(to)
}

/// Packed bytes back to row-major ones; padding is not looked at.
pub fn unpack(packed: &[u8], size: usize, p: &Packing) -> Result<Vec<u8>, PackError> {
    let (out, need) = p.byte_lens(size)?;
    expect(packed, need)?;
    let mut to = vec![0; out as usize];
    copy(size, p, packed, &mut to, |dense, packed| (packed, dense))?;
    Ok(to)
}

fn copy(
    size: usize,
    p: &Packing,
    from: &[u8],
    to: &mut [u8],
    order: impl Fn(usize, usize) -> (usize, usize),
) -> Result<(), PackError> {
    fn run<const S: usize>(
        p: &Packing,
        from: &[u8],
        to: &mut [u8],
        order: impl Fn(usize, usize) -> (usize, usize),
    ) {
        let (from, to) = (from.as_chunks::<S>().0, to.as_chunks_mut::<S>().0);
        p.each(|dense, packed| {
            let (src, dst) = order(dense, packed);
            to[dst] = from[src];
        });
    }
    match size {
        1 => run::<1>(p, from, to, order),
        2 => run::<2>(p, from, to, order),
        4 => run::<4>(p, from, to, order),
        8 => run::<8>(p, from, to, order),
        16 => run::<16>(p, from, to, order),
        _ => return Err(PackError::Size(size)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packing() -> impl Strategy<Value = (Packing, usize)> {
        let counts = (0u64..3, 0u64..20, 0u64..7, 1u64..5, 1u64..18, 1u64..5);
        (counts, any::<bool>(), 0u32..5).prop_map(|((outer, n, c, taps, block, v), k_major, s)| {
            (Packing { outer, n, k: c * taps, k_major, taps, block, v }, 1usize << s)
        })
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack((p, size) in packing(), seed in any::<u64>()) {
            let (dense, packed) = p.byte_lens(size).unwrap();
            let bytes: Vec<u8> = (0..dense).map(|i| (i.wrapping_mul(seed | 1) >> 5) as u8 | 1).collect();
            let there = pack(&bytes, size, &p).unwrap();
            prop_assert_eq!(there.len() as u64, packed);
            prop_assert_eq!(there.iter().filter(|&&b| b != 0).count() as u64, dense);
            prop_assert_eq!(unpack(&there, size, &p).unwrap(), bytes);
        }
    }

    #[test]
    fn a_filter_packs_taps_outside_channels() {
        // [n=1][c=2][taps=3], one byte an element; packed k is tap*2 + channel.
        let p = Packing { outer: 1, n: 1, k: 6, k_major: false, taps: 3, block: 2, v: 2 };
        let dense = [10, 11, 12, 20, 21, 22];
        let want = [10, 20, 0, 0, 11, 21, 0, 0, 12, 22, 0, 0];
        assert_eq!(pack(&dense, 1, &p).unwrap(), want);
    }

    #[test]
    fn bad_packings_are_refused() {
        let p = Packing { outer: 1, n: 1, k: 5, k_major: false, taps: 3, block: 2, v: 2 };
        assert!(matches!(pack(&[], 4, &p), Err(PackError::Malformed { .. })));
        let p = Packing { outer: u64::MAX, n: 8, k: 5, k_major: false, taps: 1, block: 2, v: 2 };
        assert_eq!(pack(&[], 4, &p), Err(PackError::Size(4)));
    }
}
