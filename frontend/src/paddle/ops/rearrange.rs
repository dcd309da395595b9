//! Operators that rearrange elements: shuffles, flips, rolls, meshes, triangles.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, Value};

/// pixel_shuffle and its inverse; shuffle_channel.
pub fn pixel_shuffle(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let vs = super::conv::channels_second(c, x, |c, x| Ok(vec![shuffled(c, x)?]))?;
    c.put("Out", vs[0]);
    Ok(())
}

fn shuffled(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let d = c.dims(x);
    if d.len() != 4 {
        return c.refuse("an image of rank other than 4");
    }
    let k = c.int("upscale_factor|downscale_factor|group|groups", 1);
    if k < 1 {
        return c.refuse(format!("a factor of {k}"));
    }
    let r = Dim::from(k);
    let (apart, perm, joined): (Vec<Dim>, &[usize], Vec<Dim>) = match c.op.kind.as_str() {
        "pixel_shuffle" => {
            let ch = d[1].div(&r).div(&r);
            let a =
                vec![d[0].clone(), ch.clone(), r.clone(), r.clone(), d[2].clone(), d[3].clone()];
            (a, &[0, 1, 4, 2, 5, 3], vec![d[0].clone(), ch, d[2].mul(&r), d[3].mul(&r)])
        }
        "pixel_unshuffle" => {
            let (h, w) = (d[2].div(&r), d[3].div(&r));
            let a = vec![d[0].clone(), d[1].clone(), h.clone(), r.clone(), w.clone(), r.clone()];
            (a, &[0, 1, 3, 5, 2, 4], vec![d[0].clone(), d[1].mul(&r).mul(&r), h, w])
        }
        _ => {
            let a = vec![d[0].clone(), r.clone(), d[1].div(&r), d[2].clone(), d[3].clone()];
            (a, &[0, 2, 1, 3, 4], d)
        }
    };
    let v = c.b.reshape(x, apart)?;
    let v = c.b.transpose(v, perm)?;
    Ok(c.b.reshape(v, joined)?)
}

/// flip, reverse.
pub fn flip(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let (mut start, mut step) = (vec![Dim::from(0i64); dims.len()], vec![1; dims.len()]);
    for a in c.ints_or("Axis", "axis")?.unwrap_or_default() {
        let at = axis_of(a, dims.len())?;
        (start[at], step[at]) = (dims[at].plus(-1), -1);
    }
    let v = c.b.prim(Prim::Slice { start, len: dims, step }, &[x])?;
    c.put("Out|Y", v);
    Ok(())
}

/// roll.
pub fn roll(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let shifts = c.ints_or("ShiftsTensor|Shifts", "shifts")?.unwrap_or_default();
    let axes = c.ints("axis").unwrap_or_default();
    let dims = c.dims(x);
    let flat = axes.is_empty();
    let mut v = x;
    if flat {
        v = c.b.reshape(x, vec![Dim::product(&dims)])?;
    }
    for (i, &shift) in shifts.iter().enumerate() {
        let at = if flat { 0 } else { axis_of(axes.get(i).copied().unwrap_or(0), dims.len())? };
        let size = c.dim(v, at)?;
        // The last `shift` elements come first.
        let tail = Dim::from(shift).rem(&size);
        let head = size.sub(&tail);
        let back = c.b.narrow(v, at, head.clone(), tail)?;
        let front = c.b.narrow(v, at, 0i64.into(), head)?;
        v = c.b.concat(&[back, front], at)?;
    }
    let v = c.b.reshape(v, dims)?;
    c.put("Out", v);
    Ok(())
}

/// meshgrid.
pub fn meshgrid(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let sizes: Vec<Dim> = xs.iter().map(|&x| c.b.g.tensor(x).count()).collect();
    let mut outs = vec![];
    for (i, &x) in xs.iter().enumerate() {
        let mut shape = vec![Dim::from(1i64); xs.len()];
        shape[i] = sizes[i].clone();
        let v = c.b.reshape(x, shape)?;
        outs.push(c.b.broadcast(v, sizes.clone())?);
    }
    c.put_all("Out", outs);
    Ok(())
}

/// tril_triu, tril, triu: zeros on one side of a diagonal.
pub fn triangle(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dims = c.dims(x);
    let Some([rows, cols]) = dims.last_chunk() else { return c.refuse("a matrix is needed") };
    let lower = match c.op.kind.as_str() {
        "tril" => true,
        "triu" => false,
        _ => c.flag("lower", true),
    };
    let shape = vec![rows.clone(), cols.clone()];
    let iota = |axis| Prim::Iota { dtype: Dtype::I64, shape: shape.clone(), axis };
    let (i, j) = (c.b.prim(iota(0), &[])?, c.b.prim(iota(1), &[])?);
    let off = c.b.sub(j, i)?;
    let diagonal = c.int("diagonal", 0) as f64;
    let op = if lower { BinaryOp::Le } else { BinaryOp::Ge };
    let keep = c.b.bin_scalar(op, off, diagonal)?;
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let v = c.b.select(keep, x, zero)?;
    c.put("Out", v);
    Ok(())
}

/// space_to_depth: blocks of pixels as channels, Paddle's way: its kernel takes the result's channels
/// for those of the operand.
pub fn space_to_depth(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let d = c.dims(x);
    let k = c.int("blocksize", 2);
    if d.len() != 4 || k < 1 {
        return c.refuse("such a shape, or no block");
    }
    // Element (b, c, j, i) goes to channel c % C', row j * k + c / C' / k, column i * k + c / C' % k
    // of a tensor [B, C', H * k, W * k] with C' = C / k², which is then read as [B, C * k², H / k, W / k].
    let b = Dim::from(k);
    let few = d[1].div(&b).div(&b);
    let apart = vec![d[0].clone(), b.clone(), b.clone(), few.clone(), d[2].clone(), d[3].clone()];
    let v = c.b.reshape(x, apart)?;
    let v = c.b.transpose(v, &[0, 3, 4, 1, 5, 2])?;
    let v = c.b.reshape(v, vec![d[0].clone(), d[1].mul(&b).mul(&b), d[2].div(&b), d[3].div(&b)])?;
    c.put("Out", v);
    Ok(())
}
