//! Other views of the same elements (view_shape, as_strided and the like), and pools whose windows
//! follow a random number.

use super::lod::iota;
use crate::paddle::ctx::{Ctx, Res, axis_of};
use hub_ir::{BinaryOp, Dim, Dtype, Prim, ReduceOp, Value};

/// Elements that a view by strides may have.
const MOST_STRIDED: i64 = 1 << 22;

/// view_shape: the same elements in other dims.
pub fn shape(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("input")?;
    let d = c.dims(x);
    let dims = c.ints("dims").unwrap_or_default();
    let open = dims.iter().filter(|&&k| k < 0).count();
    if open > 1 {
        return c.refuse("two sizes that follow from the others");
    }
    let given: Vec<Dim> = dims.iter().filter(|&&k| k > 0).map(|&k| k.into()).collect();
    let rest = Dim::product(&d).div(&Dim::product(&given));
    let to = dims.iter().map(|&k| if k < 0 { rest.clone() } else { k.into() }).collect();
    let v = c.b.reshape(x, to)?;
    c.put("out", v);
    Ok(())
}

/// view_dtype: the same bytes as another type of the same size.
pub fn dtype(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("input")?;
    let Some(to) = c.dtype("dtype")? else { return c.refuse("no dtype") };
    if to.size() != c.b.g.dtype(x).size() {
        return c.refuse(format!("a view of {} as {to}", c.b.g.dtype(x)));
    }
    let v = if to == c.b.g.dtype(x) { x } else { c.b.prim(Prim::Bitcast { to }, &[x])? };
    c.put("out", v);
    Ok(())
}

/// view_slice: rows from one to another.
pub fn rows(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("input")?;
    let (from, to) = (c.int("begin_idx", 0), c.int("end_idx", 0));
    if from < 0 || to < from {
        return c.refuse(format!("rows {from} to {to}"));
    }
    let v = c.b.narrow(x, 0, from.into(), (to - from).into())?;
    c.put("out", v);
    Ok(())
}

/// index_select_strided: one place of an axis.
pub fn place(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x")?;
    let axis = axis_of(c.int("axis", 0), c.rank(x))?;
    let v = c.b.narrow(x, axis, c.int("index", 0).into(), 1i64.into())?;
    let v = c.b.squeeze(v, axis)?;
    c.put("out", v);
    Ok(())
}

/// as_strided: elements of a contiguous tensor, steps along its memory apart.
pub fn strided(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("input")?;
    let (dims, steps) = (c.ints("dims").unwrap_or_default(), c.ints("stride").unwrap_or_default());
    let size = c.b.g.dtype(x).size() as i64;
    let count = dims.iter().try_fold(1i64, |n, &k| n.checked_mul(k)).unwrap_or(-1);
    let fits = dims.len() == steps.len() && dims.iter().chain(&steps).all(|&k| k >= 0);
    if !fits || !(0..=MOST_STRIDED).contains(&count) {
        return c.refuse(format!("a view of dims {dims:?} with steps {steps:?}"));
    }
    // The offset counts bytes.
    let mut at = c.b.scalar(Dtype::I64, (c.int("offset", 0) / size.max(1)) as f64);
    for (i, (&n, &step)) in dims.iter().zip(&steps).enumerate() {
        let mut v = iota(c, &n.into())?;
        v = c.b.bin_scalar(BinaryOp::Mul, v, step as f64)?;
        let mut stood = vec![Dim::from(1i64); dims.len()];
        stood[i] = n.into();
        v = c.b.reshape(v, stood)?;
        at = c.b.add(at, v)?;
    }
    let whole = Dim::product(&c.dims(x));
    let flat = c.b.reshape(x, vec![whole])?;
    let v = c.b.prim(Prim::Gather { axis: 0 }, &[flat, at])?;
    c.put("out", v);
    Ok(())
}

/// Where the windows of an axis of `n` begin and end, for `count` of them.
fn windows(n: i64, count: i64, kernel: i64, u: f32) -> Vec<(i64, i64)> {
    let alpha = (n - kernel) as f32 / (count - i64::from(kernel > 0)).max(1) as f32;
    let u = if kernel > 0 {
        u
    } else {
        let base = (n / count) as f32;
        let most =
            ((base + 2.0) / alpha - 1.0).min((n as f32 + 1.0 - base) / alpha - (count - 1) as f32);
        u * most
    };
    let start = |i: i64| ((i as f32 + u) * alpha) as i64 - (u * alpha) as i64;
    (0..count)
        .map(|i| {
            let from = start(i);
            let to = if kernel > 0 { from + kernel } else { start(i + 1) };
            (from.clamp(0, n - 1), to.clamp(from + 1, n).max(1))
        })
        .collect()
}

/// fractional_max_pool2d, fractional_max_pool3d: windows of sizes that differ by one. A model that
/// leaves the random number to the run gets a half.
pub fn fractional_pool(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("x")?;
    let d = c.dims(x);
    let spatial = d.len().saturating_sub(2);
    let sizes = c.ints("output_size").unwrap_or_default();
    let kernels = c.ints("kernel_size").filter(|k| !k.is_empty()).unwrap_or(vec![0; spatial]);
    let u = c.float("random_u", 0.0) as f32;
    let u = if u > 0.0 && u < 1.0 { u } else { 0.5 };
    if sizes.len() != spatial || kernels.len() != spatial || spatial == 0 {
        return c.refuse("sizes of another rank");
    }
    let (mut v, mut place) = (x, None::<Value>);
    let mut stood = 1;
    for i in (0..spatial).rev() {
        let Some(n) = d[2 + i].as_const().filter(|n| (1..=1 << 20).contains(n)) else {
            return c.refuse("windows of an axis of unknown size");
        };
        if !(1..=n).contains(&sizes[i]) || !(0..=n).contains(&kernels[i]) {
            return c.refuse(format!("{} windows of {} of {n}", sizes[i], kernels[i]));
        }
        let spans = windows(n, sizes[i], kernels[i], u);
        let widest = spans.iter().map(|(a, b)| b - a).max().unwrap_or(1);
        // A window that is shorter repeats its last element.
        let mut table = vec![];
        for (a, b) in &spans {
            table.extend((0..widest).map(|k| (a + k).min(b - 1)));
        }
        let axis = 2 + i;
        let at = c.b.ints(&table);
        let at = c.b.reshape(at, vec![sizes[i].into(), widest.into()])?;
        let p = Prim::Gather { axis: axis as u32 };
        let taken = c.b.prim(p.clone(), &[v, at])?;
        let best = Prim::ArgReduce { max: true, axis: axis as u32 + 1, keep: true, last: false };
        let best = c.b.prim(best, &[taken])?;
        // Where in the image the best of each window is: rows times what an inner row holds.
        let own = c.b.bin_scalar(BinaryOp::Mul, at, stood as f64)?;
        let mut tail = vec![Dim::from(1i64); c.rank(taken)];
        (tail[axis], tail[axis + 1]) = (sizes[i].into(), widest.into());
        let own = c.b.reshape(own, tail)?;
        let own = match place {
            Some(inner) => {
                let inner = c.b.prim(p, &[inner, at])?;
                c.b.add(inner, own)?
            }
            None => c.b.broadcast(own, c.dims(taken))?,
        };
        let pick = Prim::GatherElements { axis: axis as u32 + 1 };
        let own = c.b.prim(pick, &[own, best])?;
        place = Some(c.b.squeeze(own, axis + 1)?);
        v = c.b.reduce(ReduceOp::Max, taken, &[axis + 1], false)?;
        stood *= n;
    }
    c.put("out", v);
    if let Some(place) = place {
        let place = c.b.cast(place, Dtype::I32)?;
        c.put("mask", place);
    }
    Ok(())
}

/// hinge_loss: `max(0, 1 - logits (2 labels - 1))`.
pub fn hinge_loss(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("Logits|logits")?, c.tensor("Labels|labels")?);
    let y = c.b.bin_scalar(BinaryOp::Mul, y, -2.0)?;
    let y = c.b.bin_scalar(BinaryOp::Add, y, 1.0)?;
    let v = c.b.mul(x, y)?;
    let v = c.b.bin_scalar(BinaryOp::Add, v, 1.0)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    c.put("Loss|loss", v);
    Ok(())
}

/// identity_loss: the sum, the mean, or x itself.
pub fn identity_loss(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X|x")?;
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let v = match c.int("reduction", 1) {
        0 => c.b.reduce(ReduceOp::Sum, x, &axes, false)?,
        1 => c.b.reduce(ReduceOp::Mean, x, &axes, false)?,
        _ => x,
    };
    c.put("Out|out", v);
    Ok(())
}
