//! Axes that are known only when the model runs: an axis at a time, each under a branch.

use crate::FrontendError;
use crate::onnx::cx::{Cx, Got, unsupported};
use crate::options::DIM_MAX;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::{Builder, Value};

/// Bool [rank]: which axes a vector (or scalar) of axes names.
pub(super) fn mask(c: &mut Cx<'_, '_, '_>, axes: Value, rank: usize) -> Got {
    let n = Dim::product(&c.dims(axes));
    let axes = c.cast(axes, Dtype::I64)?;
    let column = c.reshape(axes, vec![n, 1i64.into()])?;
    let below = c.bin_scalar(BinaryOp::Lt, column, 0.0)?;
    let wrapped = c.bin_scalar(BinaryOp::Add, column, rank as f64)?;
    let column = c.b.select(below, wrapped, column)?;
    let count = Prim::Iota { dtype: Dtype::I64, shape: vec![rank.into()], axis: 0 };
    let count = c.prim(count, &[])?;
    let hit = c.bin(BinaryOp::Eq, column, count)?;
    c.reduce(ReduceOp::Or, hit, &[0], false)
}

/// `mask[i] ? then : x`; what is given has x's rank.
pub(super) fn where_axis(
    c: &mut Cx<'_, '_, '_>,
    mask: Value,
    i: usize,
    x: Value,
    then: impl FnOnce(&mut Builder<'_>) -> Got,
) -> Got {
    let bit = c.b.narrow(mask, 0, i.into(), 1i64.into())?;
    let bit = c.reshape(bit, vec![])?;
    let (yes, no) = (c.b.g.new_region(), c.b.g.new_region());
    let mut b = c.b.nested();
    let y = then(&mut b)?;
    b.into_region(yes);
    c.b.g.regions[yes].results = vec![y];
    c.b.g.regions[no].results = vec![x];
    let (dx, dy, dtype) = (c.dims(x), c.dims(y), c.dtype(x));
    let name = format!("{}.size", c.b.name);
    let join = |(a, b): (Dim, Dim)| match a == b {
        true => a,
        false => c.b.g.new_sym(&name, 0, DIM_MAX).into(),
    };
    let dims = dx.into_iter().zip(dy).map(join).collect();
    let control = Control::If { then: yes.0, orelse: no.0 };
    Ok(c.b.control(control, &[bit], vec![Type::tensor(dtype, dims)])[0])
}

/// A reduction over axes in a vector; of no axes, over all (or none, if the attribute says so).
pub(super) fn reduce(c: &mut Cx<'_, '_, '_>, x: Value, op: ReduceOp, axes: Value) -> Got {
    let (rank, keep) = (c.rank(x), c.flag("keepdims", true)?);
    let n = Dim::product(&c.dims(axes)).as_const();
    let Some(n) = n.and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= rank) else {
        return unsupported("the number of axes is known only when the model runs");
    };
    if n == 0 {
        if c.flag("noop_with_empty_axes", false)? {
            return Ok(x);
        }
        let all: Vec<usize> = (0..rank).collect();
        return c.reduce(op, x, &all, keep);
    }
    let mask = mask(c, axes, rank)?;
    let mut y = x;
    for i in 0..rank {
        y = where_axis(c, mask, i, y, |b| Ok(b.reduce(op, y, &[i], true)?))?;
    }
    if keep {
        return Ok(y);
    }
    let kept = c.un(hub_abi::prim::UnaryOp::Not, mask)?;
    let left = kept_sizes(c, y, kept, rank - n)?;
    c.reshape(y, left)
}

/// The sizes of the `count` axes of x whose bit in `kept` is set.
pub(super) fn kept_sizes(
    c: &mut Cx<'_, '_, '_>,
    x: Value,
    kept: Value,
    count: usize,
) -> Result<Vec<Dim>, FrontendError> {
    let found = super::index::non_zero(c, kept)?;
    let at = c.reshape(found, vec![count.into()])?;
    let dims = c.dims(x);
    let sizes = c.b.dims_vector(dims);
    let sizes = c.prim(Prim::Gather { axis: 0 }, &[sizes, at])?;
    c.sizes(sizes, "size")
}
