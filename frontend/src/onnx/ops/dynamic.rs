//! Axes that are known only when the model runs: an axis at a time, each under a branch.

use crate::FrontendError;
use crate::onnx::cx::{Cx, Got, unsupported};
use crate::options::DIM_MAX;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, ScatterOp, UnaryOp};
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
    let kept = c.un(UnaryOp::Not, mask)?;
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

/// How many axes an operand names.
fn count_of(c: &Cx<'_, '_, '_>, axes: Value, most: usize) -> Got<usize> {
    let n = Dim::product(&c.dims(axes)).as_const().and_then(|n| usize::try_from(n).ok());
    match n.filter(|&n| n <= most) {
        Some(n) => Ok(n),
        None => unsupported("the number of axes is known only when the model runs"),
    }
}

/// The shape of x without the axes that a vector names.
pub(super) fn squeezed(c: &mut Cx<'_, '_, '_>, x: Value, axes: Value) -> Got<Vec<Dim>> {
    let rank = c.rank(x);
    let n = count_of(c, axes, rank)?;
    let mask = mask(c, axes, rank)?;
    let kept = c.un(UnaryOp::Not, mask)?;
    kept_sizes(c, x, kept, rank - n)
}

/// The shape of x with axes of size 1 put in where a vector says.
pub(super) fn unsqueezed(c: &mut Cx<'_, '_, '_>, x: Value, axes: Value) -> Got<Vec<Dim>> {
    let rank = c.rank(x) + count_of(c, axes, 64)?;
    let mask = mask(c, axes, rank)?;
    let old = c.un(UnaryOp::Not, mask)?;
    let old = c.cast(old, Dtype::I64)?;
    let before = Prim::Cumulative { op: ReduceOp::Sum, axis: 0, exclusive: true, reverse: false };
    let at = c.prim(before, &[old])?;
    // A last entry for new axes behind all others.
    let mut dims = c.dims(x);
    dims.push(1i64.into());
    let sizes = c.b.dims_vector(dims);
    let sizes = c.prim(Prim::Gather { axis: 0 }, &[sizes, at])?;
    let ones = c.scalar(Dtype::I64, 1.0);
    let sizes = c.b.select(mask, ones, sizes)?;
    c.sizes(sizes, "size")
}

/// Places of axes in a vector as int64 [n, 1], counted from the start.
fn places(c: &mut Cx<'_, '_, '_>, axes: Value, rank: usize) -> Got {
    let axes = c.cast(axes, Dtype::I64)?;
    let below = c.bin_scalar(BinaryOp::Lt, axes, 0.0)?;
    let wrapped = c.bin_scalar(BinaryOp::Add, axes, rank as f64)?;
    let at = c.b.select(below, wrapped, axes)?;
    let n = Dim::product(&c.dims(at));
    c.reshape(at, vec![n, 1i64.into()])
}

/// Values for the axes at `at`, `rest` for the others.
fn scattered(c: &mut Cx<'_, '_, '_>, rest: Value, at: Value, values: Value) -> Got {
    let values = c.cast(values, Dtype::I64)?;
    let put = Prim::ScatterNd { op: ScatterOp::Set };
    c.prim(put, &[rest, at, values])
}

/// Pads of all axes from those of the axes that a vector names.
pub(super) fn spread_pads(c: &mut Cx<'_, '_, '_>, axes: Value, rank: usize) -> Got<Vec<Dim>> {
    let pads = c.tensor(1)?;
    let n = count_of(c, axes, rank)?;
    let at = places(c, axes, rank)?;
    let zeros = c.b.ints(&vec![0; rank]);
    let before = c.b.narrow(pads, 0, 0i64.into(), n.into())?;
    let after = c.b.narrow(pads, 0, n.into(), n.into())?;
    let (before, after) = (scattered(c, zeros, at, before)?, scattered(c, zeros, at, after)?);
    let all = c.b.concat(&[before, after], 0)?;
    c.sizes_in(all, "pads", -DIM_MAX, DIM_MAX)
}

/// A slice whose axes or steps are known only when the model runs: indices of every axis.
pub(super) fn slice(c: &mut Cx<'_, '_, '_>, x: Value) -> Got {
    let (rank, dims) = (c.rank(x), c.dims(x));
    let (starts, ends) = (c.tensor(1)?, c.tensor(2)?);
    let n = count_of(c, starts, rank)?;
    let at = match c.opt(3) {
        Some(axes) => places(c, axes, rank)?,
        None => {
            let first: Vec<i64> = (0..n as i64).collect();
            let v = c.b.ints(&first);
            places(c, v, rank)?
        }
    };
    let (zeros, ones) = (c.b.ints(&vec![0; rank]), c.b.ints(&vec![1; rank]));
    let sizes = c.b.dims_vector(dims);
    let start = scattered(c, zeros, at, starts)?;
    let end = scattered(c, sizes, at, ends)?;
    let step = match c.opt(4) {
        Some(s) => scattered(c, ones, at, s)?,
        None => ones,
    };
    let (start, len) = clamped(c, start, end, step, sizes)?;
    let lens = c.sizes(len, "size")?;
    let mut y = x;
    for (i, len) in lens.into_iter().enumerate() {
        let count = Prim::Iota { dtype: Dtype::I64, shape: vec![len], axis: 0 };
        let count = c.prim(count, &[])?;
        let s = c.b.narrow(step, 0, i.into(), 1i64.into())?;
        let from = c.b.narrow(start, 0, i.into(), 1i64.into())?;
        let at = c.bin(BinaryOp::Mul, count, s)?;
        let at = c.bin(BinaryOp::Add, at, from)?;
        y = c.prim(Prim::Gather { axis: i as u32 }, &[y, at])?;
    }
    Ok(y)
}

/// First indices and lengths, as NumPy clamps them; all int64 vectors over the axes.
fn clamped(
    c: &mut Cx<'_, '_, '_>,
    start: Value,
    end: Value,
    step: Value,
    sizes: Value,
) -> Got<(Value, Value)> {
    use BinaryOp::{Add, Div, Lt, Max, Min, Sub};
    let back = c.bin_scalar(Lt, step, 0.0)?;
    let last = c.bin_scalar(Sub, sizes, 1.0)?;
    let hi = c.b.select(back, last, sizes)?;
    let zero = c.scalar(Dtype::I64, 0.0);
    let floor = c.scalar(Dtype::I64, -1.0);
    let lo = c.b.select(back, floor, zero)?;
    let inside = |c: &mut Cx<'_, '_, '_>, v: Value, lo: Value| -> Got {
        let below = c.bin_scalar(Lt, v, 0.0)?;
        let wrapped = c.bin(Add, v, sizes)?;
        let v = c.b.select(below, wrapped, v)?;
        let v = c.bin(Max, v, lo)?;
        c.bin(Min, v, hi)
    };
    let start = inside(c, start, zero)?;
    let end = inside(c, end, lo)?;
    let span = c.bin(Sub, end, start)?;
    let sign = c.un(UnaryOp::Sign, step)?;
    let up = c.bin(Sub, step, sign)?;
    let span = c.bin(Add, span, up)?;
    let len = c.bin(Div, span, step)?;
    Ok((start, c.bin_scalar(Max, len, 0.0)?))
}
