//! Tasks of placement's own: copies between layouts, and the fill around an image.

use super::cx::LowerCx;
use super::fit::fitted;
use super::map::{Piece, lower_pieces};
use crate::target::Target;
use crate::task::{Lowered, Operand, Refused, Task, Which};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype};
use hub_ir::{Builder, Graph};

/// A kernel that copies `src` to `dst`: same dims and dtype, any strides.
///
/// # Errors
/// [`Refused::Unsupported`] for element types that kernels do not load.
pub fn lower_copy(src: &Operand, dst: &Operand, target: &Target) -> Result<Lowered, Refused> {
    let mut g = Graph::new();
    let ty = Type::Tensor(TensorType { dtype: src.dtype, dims: src.dims.clone() });
    let root = g.root();
    let v = g.add_param(root, ty);
    g.regions[root].results.push(v);
    let (inputs, outputs) = (vec![src.clone()], vec![dst.clone()]);
    let task = Task { g: &g, region: root, inputs, outputs };
    let mut l = fitted(target, |target| super::map::map(&task, target))?;
    l.schedule = l.schedule.replacen("map", "copy", 1);
    Ok(l)
}

/// A kernel that writes `fill` around a channel-last image `[N, C, spatial…]`: `before` and `after`
/// elements on each spatial axis, all channels, slack included.
///
/// # Errors
/// [`Refused::Unsupported`] where there is nothing to write, or the channels are not contiguous.
pub fn lower_halo_fill(
    image: &Operand,
    before: &[Dim],
    after: &[Dim],
    fill: f64,
    target: &Target,
) -> Result<Lowered, Refused> {
    let refuse = |s: &str| Err(Refused::Unsupported(s.to_string()));
    let spatial = image.dims.len().saturating_sub(2);
    if spatial == 0 || before.len() != spatial || after.len() != spatial {
        return refuse("a border without spatial axes");
    }
    if !image.strides[1].is(1) && !image.dims[1].is(1) {
        return refuse("a border of an image that is not channel-last");
    }
    let mut g = Graph::new();
    let mut b = Builder::new(&mut g, "halo");
    let dtype = if image.dtype == Dtype::Bool { Dtype::U8 } else { image.dtype };
    let v = b.scalar(dtype, fill);
    let root = b.g.root();
    b.into_region(root);
    g.regions[root].results.push(v);
    let mut pieces = vec![];
    for axis in 0..spatial {
        for (low, size) in [(true, &before[axis]), (false, &after[axis])] {
            if !size.is(0) {
                pieces.push(border(image, before, after, (axis, low, size), v));
            }
        }
    }
    if pieces.is_empty() {
        return refuse("a border of no width");
    }
    let task = Task { g: &g, region: root, inputs: vec![], outputs: vec![image.clone()] };
    let ready = |cx: &mut LowerCx<'_>| {
        let size = image.dtype.size() as i64;
        let edge = |amounts: &[Dim]| {
            let each = amounts.iter().zip(&image.strides[2..]).map(|(d, s)| d.mul(s).times(size));
            each.fold(Dim::from(0i64), |a, d| a.add(&d))
        };
        let (lead, trail) = (edge(before), edge(after));
        let extent = image.span().1.add(&lead).add(&trail);
        let p = cx.ptr_range(Which::Out(0), lead.times(-1), extent);
        cx.set_ptr(Which::Out(0), p, lead);
    };
    let mut l = fitted(target, |target| lower_pieces(&task, target, "halo", &pieces, &ready))?;
    l.flops = 0i64.into();
    let wrote = pieces.iter().map(|p| Dim::product(&p.shape).times(image.dtype.size() as i64));
    l.bytes = wrote.fold(Dim::from(0i64), |a, d| a.add(&d));
    Ok(l)
}

/// The border below (`low`) or above an image along a spatial axis: the axes before it at their
/// image's size, those after it with their own borders.
fn border(
    image: &Operand,
    before: &[Dim],
    after: &[Dim],
    (axis, low, size): (usize, bool, &Dim),
    v: hub_ir::Value,
) -> Piece {
    let mut shape = image.dims.clone();
    let mut shift = vec![Dim::from(0i64); shape.len()];
    shape[1] = shape[1].plus(image.slack);
    for s in axis + 1..before.len() {
        shape[s + 2] = shape[s + 2].add(&before[s]).add(&after[s]);
        shift[s + 2] = before[s].times(-1);
    }
    shift[axis + 2] = if low { size.times(-1) } else { shape[axis + 2].clone() };
    shape[axis + 2] = size.clone();
    Piece { shape, stores: vec![(v, 0)], shift }
}
