//! Operands that are computed and that kernels read in panels: they are copied into that form while
//! the model runs, as constants are packed when it is compiled ([`Packing`]).

use super::layout::{Place, Wish};
use super::{PlaceError, Placer};
use hub_abi::Dim;
use hub_abi::pgraph::Packing;
use hub_ir::{Node, Value};

/// An axis that both the plain and the packed form walk by strides.
#[derive(Clone, PartialEq, Debug)]
struct Axis {
    size: i64,
    /// Stride in the plain form, in elements.
    from: Dim,
    /// Stride in the packed form.
    to: i64,
}

/// What one copy moves: axes, and where its first element lies in both forms.
#[derive(Clone, PartialEq, Debug)]
struct Move {
    axes: Vec<Axis>,
    from: Dim,
    to: i64,
}

/// Can an operand with these dims be packed while the model runs?
pub(super) fn possible(src: &Place, p: &Packing) -> bool {
    moves(src, p).is_some()
}

impl Placer<'_> {
    /// A copy of a value in panels. Lanes past its last feature hold anything: no kernel stores what
    /// it makes of them.
    pub(super) fn in_panels(
        &mut self,
        n: Node,
        v: Value,
        src: &Place,
        p: &Packing,
    ) -> Result<Place, PlaceError> {
        let dst = self.new_place(v, &Wish::Panels(p.clone()))?;
        let size = src.dtype.size() as i64;
        let why = "an operand that cannot be packed while it runs";
        for m in moves(src, p).ok_or_else(|| self.internal(n, why))? {
            let part = |p: &Place, first: &Dim, stride: &dyn Fn(&Axis) -> Dim| Place {
                dims: m.axes.iter().map(|x| x.size.into()).collect(),
                strides: m.axes.iter().map(stride).collect(),
                offset: p.offset.add(&first.times(size)),
                halo: None,
                slack: 0,
                ..p.clone()
            };
            let a = part(src, &m.from, &|x| x.from.clone());
            let b = part(&dst, &m.to.into(), &|x| x.to.into());
            self.copy(n, &a, &b)?;
        }
        Ok(dst)
    }
}

/// Whole panels, and the features that fill none. None where axes hold parts of what packing keeps
/// together, or where sizes are known only when it runs.
fn moves(src: &Place, p: &Packing) -> Option<Vec<Move>> {
    let [outer, n, k, taps, block] =
        [p.outer, p.n, p.k, p.taps, p.block].map(|x| i64::try_from(x).ok());
    let [outer, n, k, taps, block] = [outer?, n?, k?, taps?, block?];
    if p.v != 1 {
        return None;
    }
    let channels = k / taps;
    let panel = k * block;
    let matrix = (n + block - 1) / block * panel;
    // Sizes of the row-major form's levels, and the stride of each in panels.
    let (sizes, strides) = match p.k_major {
        false => ([outer, n, channels, taps], [matrix, 0, block, channels * block]),
        true => ([outer, channels, n, 1], [matrix, block, 0, 0]),
    };
    let features = if p.k_major { 2 } else { 1 };
    let mut axes = vec![];
    let mut lanes = None;
    for piece in cut(src, &sizes)? {
        let Piece { size, from, level, inner } = piece;
        if level != features {
            axes.push(Axis { size, from, to: inner * strides[level] });
        } else if inner % block == 0 {
            axes.push(Axis { size, from, to: inner / block * panel });
        } else if inner == 1 && lanes.is_none() {
            lanes = Some((axes.len(), size, from));
        } else {
            return None;
        }
    }
    let (at, size, from) = lanes.or((n == 1).then(|| (axes.len(), 1, 0i64.into())))?;
    let with = |many: i64, few: i64, first: i64| {
        let mut axes = axes.clone();
        axes.insert(at, Axis { size: few, from: from.clone(), to: 1 });
        axes.insert(at, Axis { size: many, from: from.times(block), to: panel });
        Move { axes, from: from.times(first * block), to: first * panel }
    };
    let (whole, rest) = (size / block, size % block);
    let whole_ones = (whole > 0).then(|| with(whole, block, 0));
    let last = (rest > 0).then(|| with(1, rest, whole));
    Some(whole_ones.into_iter().chain(last).collect())
}

/// A part of an axis that lies in one level.
struct Piece {
    size: i64,
    from: Dim,
    level: usize,
    /// Elements of the level that lie between two of its own.
    inner: i64,
}

/// Cuts a row-major tensor's axes where levels end.
fn cut(src: &Place, levels: &[i64]) -> Option<Vec<Piece>> {
    let (mut level, mut left) = (0, *levels.first()?);
    let mut pieces = vec![];
    for (dim, stride) in src.dims.iter().zip(&src.strides) {
        let mut axis = dim.as_const().filter(|&d| d > 0)?;
        while axis > 1 {
            while left == 1 {
                level += 1;
                left = *levels.get(level)?;
            }
            let size = axis.min(left);
            if axis % size != 0 || left % size != 0 {
                return None;
            }
            axis /= size;
            left /= size;
            pieces.push(Piece { size, from: stride.times(axis), level, inner: left });
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_abi::Dtype;
    use hub_ir::TensorType;
    use proptest::prelude::*;

    /// Moves elements as the copies would.
    fn moved(m: &[Move], data: &[u32], to: &mut [u32]) {
        for m in m {
            let count: i64 = m.axes.iter().map(|a| a.size).product();
            for i in 0..count {
                let (mut rest, mut from, mut at) = (i, m.from.as_const().unwrap(), m.to);
                for a in m.axes.iter().rev() {
                    from += rest % a.size * a.from.as_const().unwrap();
                    at += rest % a.size * a.to;
                    rest /= a.size;
                }
                to[at as usize] = data[from as usize];
            }
        }
    }

    fn agrees(dims: &[i64], p: &Packing) {
        let t = TensorType { dtype: Dtype::F32, dims: dims.iter().map(|&d| d.into()).collect() };
        let count: i64 = dims.iter().product();
        let data: Vec<u32> = (1..=count as u32).collect();
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let want = hub_abi::pack::pack(&bytes, 4, p).unwrap();
        let mut got = vec![0u32; want.len() / 4];
        moved(&moves(&Place::dense(0, &t), p).expect("it can be packed"), &data, &mut got);
        let got: Vec<u8> = got.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(got == want, "{dims:?} {p:?}");
    }

    proptest! {
        #[test]
        fn filters_are_packed_as_constants_are(
            g in 1i64..4, m in 1i64..40, c in 1i64..5, taps in prop::collection::vec(1i64..4, 0..3),
        ) {
            let all: i64 = taps.iter().product();
            let p = Packing {
                outer: g as u64, n: m as u64, k: (c * all) as u64, k_major: false,
                taps: all as u64, block: 16, v: 1,
            };
            // Groups of several features share an axis with them.
            let dims = [vec![g * m, c], taps].concat();
            let t = TensorType { dtype: Dtype::F32, dims: dims.iter().map(|&d| d.into()).collect() };
            if moves(&Place::dense(0, &t), &p).is_some() {
                agrees(&dims, &p);
            } else {
                prop_assert!(g > 1, "one group can always be packed");
            }
        }

        #[test]
        fn matrices_are_packed_as_constants_are(
            outer in 1i64..3, n in 1i64..50, k in 1i64..9, k_major: bool, heads in 1i64..3,
        ) {
            let p = Packing {
                outer: outer as u64, n: (heads * n * 16) as u64, k: k as u64, k_major, taps: 1,
                block: 16, v: 1,
            };
            let dims = match k_major {
                true => [outer, k, heads, n * 16],
                false => [outer, heads, n * 16, k],
            };
            agrees(&dims, &p);
            let one = Packing { n: n as u64, ..p };
            agrees(&if k_major { [outer, k, n] } else { [outer, n, k] }, &one);
        }
    }
}
