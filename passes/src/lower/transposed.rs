//! A transposed convolution with constant weights computes each residue of the output's coordinates
//! modulo the stride by an ordinary convolution of the input with a subset of the taps (sub-pixel
//! form): exact, without multiplications by zero. All residues become channels of one convolution,
//! and a reshape and a transpose put them beside each other.

use crate::konst;
use crate::rewrite::{Match, Pat, Replacement, Rule};
use Pat::{Const, Prim as P, Slot};
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim};
use hub_ir::Graph;
use hub_ir::build::Builder;
use hub_ir::graph::ConstData;

/// The rule; slot 0 is the image, 1 the weights.
pub const RULE: Rule = Rule {
    name: "conv-transpose",
    pattern: || P(|p| matches!(p, Prim::ConvTranspose { .. }), vec![Slot(0), Const(1)]),
    shared: true,
    when: sub_pixel_applies,
    build: sub_pixel,
};

/// Strides that are longer than the kernel make the weights larger, at most by this factor.
const MOST_PADDED: f64 = 16.0;

fn sub_pixel_applies(g: &Graph, m: &Match) -> Result<(), &'static str> {
    let Prim::ConvTranspose { geo, .. } = m.root_prim(g) else { return Err("") };
    if geo.dilation.iter().any(|&d| d != 1) {
        return Err("dilated transposed convolutions run as they are");
    }
    if geo.before.iter().chain(&geo.after).any(|d| d.as_const().is_none()) {
        return Err("the crops are not constant");
    }
    let Some(w) = g.tensor(m.v(1)).const_dims().filter(|d| !d.contains(&0)) else {
        return Err("the weights are empty");
    };
    // Each axis of the kernel is padded to a multiple of the stride.
    let padded = w[2..].iter().zip(&geo.stride).map(|(&k, &s)| k.max(s) as f64 / k as f64);
    if padded.product::<f64>() > MOST_PADDED {
        return Err("the strides are far longer than the kernel");
    }
    Ok(())
}

/// Along one axis with stride `s` and `k` taps, full output `o = i*s + t` (tap `t`). Residue
/// `r = o mod s` uses taps `t = r + s*j`, `j < taps`, on input `q - j` with `q = o div s`. As a
/// cross-correlation with `taps` taps that is tap `taps-1-j`, padded by `taps-1` on both sides, for
/// `q` in `0..n+taps-1`. Interleaving the residues gives `(n+taps-1)*s` elements, of which
/// `before..before+out` are the result.
fn sub_pixel(b: &mut Builder<'_>, m: &Match) -> Replacement {
    let Prim::ConvTranspose { geo, groups } = m.root_prim(b.g).clone() else {
        unreachable!("the pattern says a transposed convolution")
    };
    let (x, w) = (m.v(0), m.v(1));
    let wd = konst::dims(b, w);
    let n = wd.len() - 2;
    let taps: Vec<i64> = (0..n).map(|i| (wd[2 + i] + geo.stride[i] - 1) / geo.stride[i]).collect();
    let filter = filter(b, w, &wd, groups, &geo.stride, &taps);
    let filter = b.const_data(filter);
    let mut plain = Geometry::unit(n);
    plain.before = taps.iter().map(|t| Dim::from(t - 1)).collect();
    plain.after = plain.before.clone();
    let y = b.prim(Prim::Conv { geo: plain, groups }, &[x, filter])?;
    interleave(b, m, y, &geo, [groups, wd[1]])
}

/// `[N, groups*Πs*M/groups, q…]` to `[N, M, q*s…]`, then the crop.
fn interleave(
    b: &mut Builder<'_>,
    m: &Match,
    y: hub_ir::Value,
    geo: &Geometry,
    [groups, channels]: [i64; 2],
) -> Replacement {
    let n = geo.stride.len();
    let dims = b.g.dims(y).to_vec();
    let mut y = y;
    if geo.stride.iter().any(|&s| s != 1) {
        let split: Vec<Dim> = [dims[0].clone(), groups.into()]
            .into_iter()
            .chain(geo.stride.iter().map(|&s| Dim::from(s)))
            .chain([channels.into()])
            .chain(dims[2..].iter().cloned())
            .collect();
        y = b.reshape(y, split)?;
        let perm: Vec<usize> =
            [0, 1, 2 + n].into_iter().chain((0..n).flat_map(|i| [3 + n + i, 2 + i])).collect();
        y = b.transpose(y, &perm)?;
        let joined: Vec<Dim> = [dims[0].clone(), (groups * channels).into()]
            .into_iter()
            .chain((0..n).map(|i| dims[2 + i].times(geo.stride[i])))
            .collect();
        y = b.reshape(y, joined)?;
    }
    let want = b.g.dims(m.out(b.g)).to_vec();
    let have = b.g.dims(y).to_vec();
    // The result may reach past the last tap (output padding) or start before the first.
    let before: Vec<Dim> = (0..n).map(|i| geo.before[i].times(-1)).collect();
    let after: Vec<Dim> =
        (0..n).map(|i| want[2 + i].add(&geo.before[i]).sub(&have[2 + i])).collect();
    let crops = before.iter().chain(&after).all(|d| d.as_const().is_some_and(|k| k <= 0));
    let zero = || vec![Dim::from(0i64); 2];
    if crops {
        let start = [zero(), geo.before.clone()].concat();
        let step = vec![1; n + 2];
        return b.prim_n(Prim::Slice { start, len: want, step }, &[y]);
    }
    let fill = b.scalar(b.g.dtype(y), 0.0);
    let (before, after) = ([zero(), before].concat(), [zero(), after].concat());
    let mode = hub_abi::prim::PadMode::Constant;
    b.prim_n(Prim::Pad { before, after, mode }, &[y, fill])
}

/// `[C, M/g, k…]` to `[M*Πs, C/g, taps…]`, output channels being `(group, residues…, m)`, row-major: the
/// channels of a residue lie beside each other, as they will.
fn filter(
    b: &Builder<'_>,
    w: hub_ir::Value,
    wd: &[i64],
    groups: i64,
    stride: &[i64],
    taps: &[i64],
) -> ConstData {
    let source = b.g.as_const(w).expect("the pattern says a constant");
    let size = source.ty.dtype.size();
    let (c_in, m_in) = ((wd[0] / groups) as usize, wd[1] as usize);
    let kernel: usize = wd[2..].iter().product::<i64>() as usize;
    let residues: usize = stride.iter().product::<i64>() as usize;
    let window: usize = taps.iter().product::<i64>() as usize;
    let m_all = m_in * groups as usize;
    let mut data = vec![0u8; m_all * residues * c_in * window * size];
    // Where each (residue, tap) reads in the kernel; none for taps past its end.
    let read: Vec<Option<usize>> = (0..residues * window)
        .map(|i| kernel_index(&wd[2..], stride, taps, i / window, i % window))
        .collect();
    let mut to = 0;
    for channel in 0..m_all * residues {
        let (group, m_local) = (channel / (m_in * residues), channel % m_in);
        let r = channel / m_in % residues;
        for c in 0..c_in {
            for t in 0..window {
                if let Some(k) = read[r * window + t] {
                    let row = (group * c_in + c) * m_in + m_local;
                    let from = (row * kernel + k) * size;
                    data[to..to + size].copy_from_slice(&source.data[from..from + size]);
                }
                to += size;
            }
        }
    }
    let dims = [(m_all * residues) as i64, c_in as i64].into_iter().chain(taps.iter().copied());
    let ty = hub_ir::TensorType { dtype: source.ty.dtype, dims: dims.map(Dim::from).collect() };
    ConstData { ty, data: data.into(), strings: vec![] }
}

/// Position in the kernel of tap `t` (row-major over `taps`, as a cross-correlation) of residue `r`
/// (row-major over `stride`).
fn kernel_index(kernel: &[i64], stride: &[i64], taps: &[i64], r: usize, t: usize) -> Option<usize> {
    let (mut r, mut t) = (r as i64, t as i64);
    let mut at = vec![0; kernel.len()];
    for i in (0..kernel.len()).rev() {
        let (ri, ti) = (r % stride[i], t % taps[i]);
        (r, t) = (r / stride[i], t / taps[i]);
        at[i] = ri + stride[i] * (taps[i] - 1 - ti);
        if at[i] >= kernel[i] {
            return None;
        }
    }
    let flat = at.iter().zip(kernel).fold(0, |a, (&i, &k)| a * k + i);
    Some(flat as usize)
}
