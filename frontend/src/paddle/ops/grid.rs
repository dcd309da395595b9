//! Sampling at the points of a grid, in two or three dimensions.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, UnaryOp, Value};

/// `-1 … 1` over n points, in f32.
fn spread(c: &mut Ctx<'_, '_>, n: &Dim, corners: bool) -> Res<Value> {
    let i = c.b.prim(Prim::Iota { dtype: Dtype::F32, shape: vec![n.clone()], axis: 0 }, &[])?;
    // Corners: 2i/(n-1) - 1, else (2i + 1)/n - 1.
    let count = if corners { n.plus(-1).max_of(&1i64.into()) } else { n.clone() };
    let count = c.b.dim_scalar(count);
    let count = c.b.cast(count, Dtype::F32)?;
    let v = c.b.bin_scalar(BinaryOp::Mul, i, 2.0)?;
    let v = if corners { v } else { c.b.bin_scalar(BinaryOp::Add, v, 1.0)? };
    let v = c.b.div(v, count)?;
    Ok(c.b.bin_scalar(BinaryOp::Sub, v, 1.0)?)
}

/// affine_grid: `[N, H, W, 2]`, or `[N, D, H, W, 3]`.
pub fn affine_grid(c: &mut Ctx<'_, '_>) -> Res {
    let theta = c.tensor("Theta")?;
    let size = c.dims_or("OutputShape", "output_shape", (0, DIM_MAX))?.unwrap_or_default();
    if size.len() != 4 && size.len() != 5 {
        return c.refuse("other than two or three dimensions");
    }
    let corners = c.flag("align_corners", true);
    let space = &size[2..];
    let mut parts = vec![];
    // The last axis first, then a one.
    for (axis, n) in space.iter().enumerate().rev() {
        let mut v = spread(c, n, corners)?;
        for k in axis + 1..space.len() {
            v = c.b.unsqueeze(v, k - axis)?;
        }
        parts.push(c.b.broadcast(v, space.to_vec())?);
    }
    let one = c.b.scalar(Dtype::F32, 1.0);
    parts.push(c.b.broadcast(one, space.to_vec())?);
    for v in &mut parts {
        *v = c.b.unsqueeze(*v, space.len())?;
    }
    let base = c.b.concat(&parts, space.len())?;
    let base = c.b.cast(base, c.b.g.dtype(theta))?;
    let points: Vec<u8> = (0..space.len() as u8).collect();
    let (one, image, coord) = (10, 11, 12);
    let a = [&points[..], &[one]].concat();
    let out = [&[image], &points[..], &[coord]].concat();
    let p = Prim::Contract { a, b: vec![image, coord, one], out };
    let v = c.b.prim(p, &[base, theta])?;
    c.put("Output", v);
    Ok(())
}

/// A size as a number of v's type.
fn size(c: &mut Ctx<'_, '_>, n: Dim, v: Value) -> Res<Value> {
    let n = c.b.dim_scalar(n);
    Ok(c.b.cast(n, c.b.g.dtype(v))?)
}

/// Folded back and forth between two bounds that lie `span` apart.
fn reflected(c: &mut Ctx<'_, '_>, g: Value, span: Value, low: f64) -> Res<Value> {
    let g = c.b.bin_scalar(BinaryOp::Sub, g, low)?;
    let g = c.b.un(UnaryOp::Abs, g)?;
    let twice = c.b.bin_scalar(BinaryOp::Mul, span, 2.0)?;
    let g = c.b.bin(BinaryOp::Rem, g, twice)?;
    let back = c.b.sub(twice, g)?;
    let g = c.b.min(g, back)?;
    Ok(c.b.bin_scalar(BinaryOp::Add, g, low)?)
}

/// One coordinate of a grid in pixels of an axis of size n.
fn pixels(c: &mut Ctx<'_, '_>, grid: Value, which: i64, n: &Dim) -> Res<Value> {
    let last = c.last(grid)?;
    let g = c.b.narrow(grid, last, which.into(), 1i64.into())?;
    let g = c.b.squeeze(g, last)?;
    let g = c.b.bin_scalar(BinaryOp::Add, g, 1.0)?;
    let corners = c.flag("align_corners", true);
    let span = size(c, if corners { n.plus(-1) } else { n.clone() }, grid)?;
    let g = c.b.mul(g, span)?;
    let g = if corners { g } else { c.b.bin_scalar(BinaryOp::Sub, g, 1.0)? };
    let g = c.b.bin_scalar(BinaryOp::Mul, g, 0.5)?;
    match c.text("padding_mode", "zeros") {
        "zeros" => Ok(g),
        "border" => within(c, g, n),
        "reflection" => {
            let g = reflected(c, g, span, if corners { 0.0 } else { -0.5 })?;
            within(c, g, n)
        }
        other => c.refuse(format!("sampling with {other} padding")),
    }
}

/// Clamped to `0..=n-1`.
fn within(c: &mut Ctx<'_, '_>, v: Value, n: &Dim) -> Res<Value> {
    let last = size(c, n.plus(-1), v)?;
    let v = c.b.min(v, last)?;
    Ok(c.b.bin_scalar(BinaryOp::Max, v, 0.0)?)
}

/// grid_sampler: bilinear or nearest; zeros, the border, or reflections outside.
pub fn grid_sample(c: &mut Ctx<'_, '_>) -> Res {
    let (x, grid) = (c.tensor("X")?, c.tensor("Grid")?);
    let (dx, dg) = (c.dims(x), c.dims(grid));
    let r = dx.len().saturating_sub(2);
    if (r != 2 && r != 3) || dg.len() != dx.len() {
        return c.refuse("other than two or three dimensions");
    }
    let (space, points) = (&dx[2..], Dim::product(&dg[1..dg.len() - 1]));
    let nearest = match c.text("mode", "bilinear") {
        "bilinear" => false,
        "nearest" => true,
        other => return c.refuse(format!("sampling by {other}")),
    };
    // Coordinates by axis; a grid lists the last axis first.
    let mut places = vec![];
    for (axis, n) in space.iter().enumerate() {
        let p = pixels(c, grid, (r - 1 - axis) as i64, n)?;
        let low = c.b.un(if nearest { UnaryOp::Round } else { UnaryOp::Floor }, p)?;
        let part = c.b.sub(p, low)?;
        places.push((low, part));
    }
    let flat = c.b.reshape(x, vec![dx[0].clone(), dx[1].clone(), Dim::product(space)])?;
    let flat = c.b.transpose(flat, &[0, 2, 1])?;
    let column = vec![dx[0].clone(), points, 1i64.into()];
    let mut sum: Option<Value> = None;
    for corner in 0..if nearest { 1 } else { 1usize << r } {
        let (at, weight) = tap(c, &places, space, corner, !nearest)?;
        let at = c.b.reshape(at, column.clone())?;
        let v = c.b.prim(Prim::GatherNd { batch: 1 }, &[flat, at])?;
        let weight = c.b.cast(weight, c.b.g.dtype(x))?;
        let weight = c.b.reshape(weight, column.clone())?;
        let v = c.b.mul(v, weight)?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, v)?,
            None => v,
        });
    }
    let Some(v) = sum else { return c.refuse("no corners") };
    let v = c.b.transpose(v, &[0, 2, 1])?;
    let shape = [&dx[..2], &dg[1..dg.len() - 1]].concat();
    let v = c.b.reshape(v, shape)?;
    c.put("Output", v);
    Ok(())
}

/// Index and weight of one of the pixels around each point; bit k of `corner` is the upper one on
/// axis k. Pixels outside weigh nothing.
fn tap(
    c: &mut Ctx<'_, '_>,
    places: &[(Value, Value)],
    space: &[Dim],
    corner: usize,
    linear: bool,
) -> Res<(Value, Value)> {
    let mut found: Option<(Value, Value)> = None;
    for (axis, (&(low, part), n)) in places.iter().zip(space).enumerate() {
        let upper = corner >> axis & 1 == 1;
        let i = c.b.bin_scalar(BinaryOp::Add, low, if upper { 1.0 } else { 0.0 })?;
        let inside = within(c, i, n)?;
        let same = c.b.bin(BinaryOp::Eq, i, inside)?;
        let mut weight = c.b.cast(same, c.b.g.dtype(low))?;
        if linear {
            let one = c.b.scalar(c.b.g.dtype(part), 1.0);
            let share = if upper { part } else { c.b.sub(one, part)? };
            weight = c.b.mul(weight, share)?;
        }
        let i = c.b.cast(inside, Dtype::I64)?;
        found = Some(match found {
            Some((at, before)) => {
                let width = c.b.dim_scalar(n.clone());
                let row = c.b.mul(at, width)?;
                (c.b.add(row, i)?, c.b.mul(before, weight)?)
            }
            None => (i, weight),
        });
    }
    let none = || crate::FrontendError::unsupported("a grid without axes");
    found.ok_or_else(none)
}
