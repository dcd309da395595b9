//! Geometry of convolutions and windows from ONNX's attributes, `auto_pad` and ceil mode resolved.

use crate::onnx::cx::{Cx, Got, invalid};
use hub_abi::Dim;
use hub_abi::prim::Geometry;

/// A window's geometry, and the padding after the last element before ceil mode changed it.
pub(super) struct Windows {
    pub geo: Geometry,
    pub declared_after: Vec<Dim>,
}

fn per_axis(c: &Cx<'_, '_, '_>, name: &str, n: usize) -> Got<Vec<i64>> {
    match c.ints(name)? {
        None => Ok(vec![1; n]),
        Some(v) if v.len() == n && v.iter().all(|&x| (1..=1 << 31).contains(&x)) => Ok(v),
        Some(v) => invalid(format!("{name} {v:?} for {n} spatial axes")),
    }
}

/// Sizes of the kernel that the attribute gives, if it does.
pub(super) fn kernel_attr(c: &Cx<'_, '_, '_>, n: usize) -> Got<Option<Vec<i64>>> {
    match c.ints("kernel_shape")? {
        None => Ok(None),
        Some(v) if v.len() == n && v.iter().all(|&x| (1..=1 << 31).contains(&x)) => Ok(Some(v)),
        Some(v) => invalid(format!("kernel_shape {v:?} for {n} spatial axes")),
    }
}

/// Explicit pads: (before, after).
fn pads(c: &Cx<'_, '_, '_>, n: usize) -> Got<(Vec<Dim>, Vec<Dim>)> {
    let pads = c.ints("pads")?.unwrap_or_else(|| vec![0; 2 * n]);
    if pads.len() != 2 * n || pads.iter().any(|p| !(-(1 << 31)..=1 << 31).contains(p)) {
        return invalid(format!("pads {pads:?} for {n} spatial axes"));
    }
    let part = |r: std::ops::Range<usize>| pads[r].iter().map(|&p| p.into()).collect();
    Ok((part(0..n), part(n..2 * n)))
}

fn span(k: &Dim, dilation: i64) -> Dim {
    k.plus(-1).times(dilation).plus(1)
}

/// Geometry for spatial sizes `x` and kernel sizes `k`.
pub(super) fn windows(c: &Cx<'_, '_, '_>, x: &[Dim], k: &[Dim], ceil: bool) -> Got<Windows> {
    let n = x.len();
    let stride = per_axis(c, "strides", n)?;
    let dilation = per_axis(c, "dilations", n)?;
    let auto = c.string("auto_pad", "NOTSET")?;
    let (mut before, mut after) = pads(c, n)?;
    if auto == "VALID" {
        before.fill(0i64.into());
        after.fill(0i64.into());
    } else if auto == "SAME_UPPER" || auto == "SAME_LOWER" {
        for i in 0..n {
            let s = Dim::from(stride[i]);
            let out = x[i].div_ceil(&s);
            let need = out.plus(-1).times(stride[i]).add(&span(&k[i], dilation[i])).sub(&x[i]);
            let total = need.max_of(&0i64.into());
            let (small, two) = (total.div(&2i64.into()), total.clone());
            let large = two.sub(&small);
            (before[i], after[i]) =
                if auto == "SAME_UPPER" { (small, large) } else { (large, small) };
        }
    } else if auto != "NOTSET" && !auto.is_empty() {
        return invalid(format!("auto_pad '{auto}'"));
    }
    let declared_after = after.clone();
    if ceil {
        for i in 0..n {
            let s = Dim::from(stride[i]);
            let wide = span(&k[i], dilation[i]);
            let room = x[i].add(&before[i]).add(&after[i]).sub(&wide);
            // The last window starts inside the input or its padding before.
            let most = x[i].add(&before[i]).plus(-1).div(&s).plus(1);
            let out = room.div_ceil(&s).plus(1).min_of(&most);
            let ends = out.plus(-1).times(stride[i]).add(&wide);
            after[i] = ends.sub(&x[i]).sub(&before[i]);
        }
    }
    Ok(Windows { geo: Geometry { stride, dilation, before, after }, declared_after })
}

/// Geometry of a transposed convolution: `after` has output_padding taken off.
pub(super) fn transposed(c: &Cx<'_, '_, '_>, x: &[Dim], k: &[Dim]) -> Got<Geometry> {
    let n = x.len();
    let stride = per_axis(c, "strides", n)?;
    let dilation = per_axis(c, "dilations", n)?;
    let extra = c.ints("output_padding")?.unwrap_or_else(|| vec![0; n]);
    if extra.len() != n || extra.iter().any(|e| !(0..1 << 31).contains(e)) {
        return invalid(format!("output_padding {extra:?} for {n} spatial axes"));
    }
    let auto = c.string("auto_pad", "NOTSET")?;
    let (mut before, mut after) = pads(c, n)?;
    let mut want = match c.ints("output_shape")? {
        Some(s) if s.len() == n => Some(s.into_iter().map(Dim::from).collect::<Vec<_>>()),
        Some(s) if s.len() == n + 2 => Some(s[2..].iter().map(|&d| Dim::from(d)).collect()),
        Some(s) => return invalid(format!("output_shape {s:?} for {n} spatial axes")),
        None => None,
    };
    let same = auto.starts_with("SAME");
    if same && want.is_none() {
        want = Some((0..n).map(|i| x[i].times(stride[i])).collect());
    }
    if auto == "VALID" {
        before.fill(0i64.into());
        after.fill(0i64.into());
    }
    for i in 0..n {
        if let Some(want) = &want {
            let full = x[i].plus(-1).times(stride[i]).add(&span(&k[i], dilation[i]));
            let total = full.plus(extra[i]).sub(&want[i]).max_of(&0i64.into());
            let half = total.div(&2i64.into());
            let rest = total.sub(&half);
            (before[i], after[i]) = if auto == "SAME_UPPER" { (half, rest) } else { (rest, half) };
            // Where the output is larger than the pads explain, the rest is empty space at the end.
            after[i] = full.sub(&want[i]).sub(&before[i]);
            continue;
        }
        after[i] = after[i].plus(-extra[i]);
    }
    Ok(Geometry { stride, dilation, before, after })
}
