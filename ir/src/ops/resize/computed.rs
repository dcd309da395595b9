//! Axes whose sizes or scales are known only when the graph runs: coordinates, indices and weights are
//! computed there, as `mod.rs` computes them where they are known.

use super::{NearestRound, OpError, Resize, ResizeAxis, ResizeCoord, ResizeMode};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};

impl Resize {
    /// An axis whose sizes (or scale) are known only when the graph runs, sampled at coordinates x.
    pub(super) fn computed(
        &self,
        b: &mut Builder<'_>,
        y: Value,
        a: &ResizeAxis,
        size: &Dim,
        x: Value,
    ) -> Built {
        let gather = Prim::Gather { axis: a.axis as u32 };
        let last = b.dim_scalar(size.plus(-1));
        let last = b.cast(last, Dtype::F32)?;
        if let ResizeMode::Nearest { round } = self.mode {
            let at = nearest_value(b, round, x)?;
            let at = clamp_index(b, at, last)?;
            return b.prim(gather, &[y, at]);
        }
        let mut sum = None;
        for (at, w) in self.computed_taps(b, x, last)? {
            let w = b.cast(w, b.g.dtype(y))?;
            let mut shape = vec![Dim::from(1i64); b.g.dims(y).len() - a.axis];
            shape[0] = a.out.clone();
            let w = b.reshape(w, shape)?;
            let term = b.prim(gather.clone(), &[y, at])?;
            let term = b.mul(term, w)?;
            sum = Some(match sum {
                Some(s) => b.add(s, term)?,
                None => term,
            });
        }
        sum.ok_or_else(|| OpError::new("an interpolation without weights"))
    }

    /// A filter stretched where the axis shrinks, at coordinates x. How many elements it covers is
    /// known only when the graph runs: every element of the axis, extended at both ends by twice its
    /// size, has a weight for every output element, and the weights are one matrix.
    pub(super) fn stretched(
        &self,
        b: &mut Builder<'_>,
        y: Value,
        a: &ResizeAxis,
        [x, scale]: [Value; 2],
    ) -> Built {
        use BinaryOp::{Add, Ge, Le, Sub};
        let size = b.g.dims(y)[a.axis].clone();
        let shrink = b.bin_scalar(BinaryOp::Min, scale, 1.0)?;
        let wide = size.times(5);
        let at = Prim::Iota { dtype: Dtype::F32, shape: vec![wide.clone()], axis: 0 };
        let at = b.prim(at, &[])?;
        let shift = float(b, size.times(2))?;
        let at = b.bin(Sub, at, shift)?;
        let x = b.reshape(x, vec![a.out.clone(), 1i64.into()])?;
        let d = b.sub(at, x)?;
        let d = b.un(UnaryOp::Abs, d)?;
        let d = b.mul(d, shrink)?;
        let zero = b.scalar(Dtype::F32, 0.0);
        let mut w = match self.mode {
            ResizeMode::Nearest { .. } => {
                return Err(OpError::new("nearest has no filter to stretch"));
            }
            ResizeMode::Linear => {
                let n = b.un(UnaryOp::Neg, d)?;
                let w = b.bin_scalar(Add, n, 1.0)?;
                b.max(w, zero)?
            }
            ResizeMode::Cubic { a } => {
                let near = cubic_value(b, a.into(), d, true)?;
                let far = cubic_value(b, a.into(), d, false)?;
                let (one, two) = (b.bin_scalar(Le, d, 1.0)?, b.bin_scalar(Ge, d, 2.0)?);
                let far = b.select(two, zero, far)?;
                b.select(one, near, far)?
            }
        };
        let last = float(b, size.plus(-1))?;
        if self.exclude_outside {
            let (low, high) = (b.bin_scalar(Ge, at, 0.0)?, b.bin(Le, at, last)?);
            let inside = b.bin(BinaryOp::And, low, high)?;
            w = b.select(inside, w, zero)?;
        }
        let sum = b.reduce(hub_abi::prim::ReduceOp::Sum, w, &[1], true)?;
        let w = b.div(w, sum)?;
        let w = b.cast(w, b.g.dtype(y))?;
        let at = clamp_index(b, at, last)?;
        let y = b.prim(Prim::Gather { axis: a.axis as u32 }, &[y, at])?;
        let labels: Vec<u8> = (0..b.g.dims(y).len() as u8).collect();
        let new = labels.len() as u8;
        let mut out = labels.clone();
        out[a.axis] = new;
        let p = Prim::Contract { a: labels, b: vec![new, a.axis as u8], out };
        b.prim(p, &[y, w])
    }

    /// Indices and weights of each tap about coordinates x.
    fn computed_taps(
        &self,
        b: &mut Builder<'_>,
        x: Value,
        last: Value,
    ) -> Built<Vec<(Value, Value)>> {
        let base = b.un(UnaryOp::Floor, x)?;
        let part = b.sub(x, base)?;
        let offsets: &[f64] =
            if self.mode == ResizeMode::Linear { &[0.0, 1.0] } else { &[-1.0, 0.0, 1.0, 2.0] };
        let mut taps = vec![];
        for &k in offsets {
            let at = b.bin_scalar(BinaryOp::Add, base, k)?;
            let d = b.bin_scalar(BinaryOp::Sub, part, k)?;
            let d = b.un(UnaryOp::Abs, d)?;
            let mut w = match self.mode {
                ResizeMode::Cubic { a } => cubic_value(b, a.into(), d, k == 0.0 || k == 1.0)?,
                _ => {
                    let n = b.un(UnaryOp::Neg, d)?;
                    b.bin_scalar(BinaryOp::Add, n, 1.0)?
                }
            };
            if self.exclude_outside {
                let low = b.bin_scalar(BinaryOp::Ge, at, 0.0)?;
                let high = b.bin(BinaryOp::Le, at, last)?;
                let inside = b.bin(BinaryOp::And, low, high)?;
                let zero = b.scalar(Dtype::F32, 0.0);
                w = b.select(inside, w, zero)?;
            }
            taps.push((clamp_index(b, at, last)?, w));
        }
        if self.exclude_outside {
            let mut sum = taps[0].1;
            for t in &taps[1..] {
                sum = b.add(sum, t.1)?;
            }
            for t in &mut taps {
                t.1 = b.div(t.1, sum)?;
            }
        }
        Ok(taps)
    }

    /// [`Resize::source`] of every output element, as a f32 vector.
    pub(super) fn source_value(
        &self,
        b: &mut Builder<'_>,
        a: &ResizeAxis,
        size: &Dim,
        scale: Option<Value>,
        [start, end]: [Value; 2],
    ) -> Built {
        use BinaryOp::{Add, Div, Max, Mul, Sub};
        let i = Prim::Iota { dtype: Dtype::F32, shape: vec![a.out.clone()], axis: 0 };
        let i = b.prim(i, &[])?;
        let (n, m) = (float(b, size.clone())?, float(b, a.out.clone())?);
        let scale = size_scale(b, a, size, scale)?;
        let half = |b: &mut Builder<'_>| {
            let t = b.bin_scalar(Add, i, 0.5)?;
            let t = b.div(t, scale)?;
            b.bin_scalar(Sub, t, 0.5)
        };
        match self.coord {
            ResizeCoord::HalfPixel => half(b),
            ResizeCoord::PytorchHalfPixel => {
                let t = half(b)?;
                let one = b.bin_scalar(BinaryOp::Le, m, 1.0)?;
                let zero = b.scalar(Dtype::F32, 0.0);
                b.select(one, zero, t)
            }
            ResizeCoord::HalfPixelSymmetric => {
                let t = half(b)?;
                let whole = b.mul(scale, n)?;
                let adjustment = b.div(m, whole)?;
                let rest = b.un(UnaryOp::Neg, adjustment)?;
                let rest = b.bin_scalar(Add, rest, 1.0)?;
                let centre = b.bin_scalar(Mul, n, 0.5)?;
                let offset = b.mul(centre, rest)?;
                b.add(offset, t)
            }
            ResizeCoord::AlignCorners => {
                let top = float(b, size.plus(-1))?;
                let last = float(b, a.out.plus(-1))?;
                // Of one element, index 0 is all there is.
                let last = b.bin_scalar(Max, last, 1.0)?;
                let t = b.mul(i, top)?;
                b.bin(Div, t, last)
            }
            ResizeCoord::Asymmetric => b.div(i, scale),
            ResizeCoord::TfCropAndResize => {
                let top = float(b, size.plus(-1))?;
                let last = float(b, a.out.plus(-1))?;
                let steps = b.bin_scalar(Max, last, 1.0)?;
                let span = b.sub(end, start)?;
                let t = b.mul(i, span)?;
                let t = b.mul(t, top)?;
                let t = b.div(t, steps)?;
                let from = b.mul(start, top)?;
                let t = b.add(from, t)?;
                // One element lies in the middle.
                let middle = b.add(start, end)?;
                let middle = b.bin_scalar(Mul, middle, 0.5)?;
                let middle = b.mul(middle, top)?;
                let one = b.bin_scalar(BinaryOp::Lt, last, 1.0)?;
                b.select(one, middle, t)
            }
        }
    }
}

/// A size as f32.
fn float(b: &mut Builder<'_>, d: Dim) -> Built {
    let v = b.dim_scalar(d);
    b.cast(v, Dtype::F32)
}

/// Output over input size of an axis, as f32.
pub(super) fn size_scale(
    b: &mut Builder<'_>,
    a: &ResizeAxis,
    size: &Dim,
    scale: Option<Value>,
) -> Built {
    match (a.scale, scale) {
        (Some(s), _) => Ok(b.scalar(Dtype::F32, s.into())),
        (_, Some(s)) => Ok(s),
        _ => {
            let (n, m) = (float(b, size.clone())?, float(b, a.out.clone())?);
            b.div(m, n)
        }
    }
}

/// Which coordinates lie outside an axis.
pub(super) fn outside_value(b: &mut Builder<'_>, x: Value, size: &Dim) -> Built {
    let last = float(b, size.plus(-1))?;
    let (low, high) = (b.bin_scalar(BinaryOp::Lt, x, 0.0)?, b.bin(BinaryOp::Gt, x, last)?);
    b.bin(BinaryOp::Or, low, high)
}

fn nearest_value(b: &mut Builder<'_>, round: NearestRound, x: Value) -> Built {
    match round {
        NearestRound::PreferFloor => {
            let t = b.bin_scalar(BinaryOp::Sub, x, 0.5)?;
            b.un(UnaryOp::Ceil, t)
        }
        NearestRound::PreferCeil => {
            let t = b.bin_scalar(BinaryOp::Add, x, 0.5)?;
            b.un(UnaryOp::Floor, t)
        }
        NearestRound::Floor => b.un(UnaryOp::Floor, x),
        NearestRound::Ceil => b.un(UnaryOp::Ceil, x),
    }
}

/// `min(max(at, 0), last)` as int64 indices.
fn clamp_index(b: &mut Builder<'_>, at: Value, last: Value) -> Built {
    let at = b.min(at, last)?;
    let at = b.bin_scalar(BinaryOp::Max, at, 0.0)?;
    b.cast(at, Dtype::I64)
}

/// [`cubic`] of distances that all lie in `0..=1` (`inner`) or all in `1..=2`.
fn cubic_value(b: &mut Builder<'_>, a: f64, d: Value, inner: bool) -> Built {
    // Horner's scheme, from the highest power.
    let terms: [f64; 4] =
        if inner { [a + 2.0, -(a + 3.0), 0.0, 1.0] } else { [a, -5.0 * a, 8.0 * a, -4.0 * a] };
    let mut w = b.bin_scalar(BinaryOp::Mul, d, terms[0])?;
    for (i, &t) in terms[1..].iter().enumerate() {
        if t != 0.0 {
            w = b.bin_scalar(BinaryOp::Add, w, t)?;
        }
        if i < 2 {
            w = b.mul(w, d)?;
        }
    }
    Ok(w)
}
