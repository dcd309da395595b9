//! Interpolation along axes: ONNX Resize and Upsample; Paddle's `*_interp`.
//!
//! Axes are independent: each is a weighted sum of gathered slices. Where sizes are known, indices
//! and weights are constants; else nearest, linear and cubic compute them. Coordinates are f32, as
//! in the engines that exporters are tested against, whose rounding at ties decides pixels.

mod computed;

use super::{OpError, SourceOp};
use crate::build::{Builder, Built, scalar_bytes};
use crate::entity::Value;
use computed::{outside_value, size_scale};
use hub_abi::prim::Prim;
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x, scales: f32 [axes]?, roi: f32 [2 axes]?)`: x resampled along some axes. `scales` are output
/// over input size where the model computes them; they count for axes whose [`ResizeAxis::scale`] is
/// not known. `roi` holds starts, then ends, where the model computes these.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Resize {
    /// What is resampled, in the order in which it is done.
    pub axes: Vec<ResizeAxis>,
    /// Which elements make one of the output.
    pub mode: ResizeMode,
    /// Where an output element lies in the input.
    pub coord: ResizeCoord,
    /// Stretch the filter where an axis shrinks.
    pub antialias: bool,
    /// Elements past the edge weigh nothing (and weights are made to sum to 1).
    pub exclude_outside: bool,
    /// For `TfCropAndResize`: value of elements outside the input.
    pub extrapolate: f32,
}

/// One resampled axis.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResizeAxis {
    /// The axis (not negative).
    pub axis: usize,
    /// Its size in the output.
    pub out: Dim,
    /// Output over input size as the model gives it; else their ratio.
    pub scale: Option<f32>,
    /// Start and end in the input, in shares of its size (`TfCropAndResize`).
    pub roi: (f32, f32),
}

/// Filters.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ResizeMode {
    /// One element.
    Nearest {
        /// Which.
        round: NearestRound,
    },
    /// Two elements per axis.
    Linear,
    /// Four elements per axis.
    Cubic {
        /// Keys' parameter, e.g. -0.75.
        a: f32,
    },
}

/// How nearest rounds a coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NearestRound {
    /// To nearest, halves down.
    PreferFloor,
    /// To nearest, halves up.
    PreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
}

/// ONNX's coordinate transformations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeCoord {
    /// `(i + 0.5) / scale - 0.5`.
    HalfPixel,
    /// The same about the centre, where `out != in * scale`.
    HalfPixelSymmetric,
    /// As `HalfPixel`, but 0 for an output of one element.
    PytorchHalfPixel,
    /// `i * (in - 1) / (out - 1)`.
    AlignCorners,
    /// `i / scale`.
    Asymmetric,
    /// Between the ends of the region of interest.
    TfCropAndResize,
}

/// One tap of a static axis for every output element.
struct Taps {
    /// `index[t][o]`.
    index: Vec<Vec<i64>>,
    /// `weight[t][o]`.
    weight: Vec<Vec<f32>>,
    /// Output elements that lie outside the input.
    outside: Vec<bool>,
}

/// Elements of a static axis; longer ones are computed when the graph runs.
const MOST: i64 = 1 << 18;
/// Taps of a stretched filter.
const MOST_TAPS: i64 = 1 << 12;
/// Taps of all elements of an axis.
const MOST_WEIGHTS: i64 = 1 << 22;

impl SourceOp for Resize {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let dtype = b.g.dtype(ins[0]);
        let nearest = matches!(self.mode, ResizeMode::Nearest { .. });
        let mut y = ins[0];
        if !nearest && !matches!(dtype, Dtype::F32 | Dtype::F64) {
            y = b.cast(y, Dtype::F32)?;
        }
        let (mut masks, mut computed_masks) = (vec![], vec![]);
        let scales = ins.get(1).and_then(|v| v.some());
        let roi = ins.get(2).and_then(|v| v.some());
        for i in self.order(b.g.dims(y)) {
            let a = &self.axes[i];
            let Some(size) = b.g.dims(y).get(a.axis).cloned() else {
                return Err(OpError::new(format!("axis {} is past the rank", a.axis)));
            };
            match (size.as_const(), a.out.as_const()) {
                (Some(size), Some(out))
                    if scales.is_none()
                        && roi.is_none()
                        && size <= MOST
                        && (0..=MOST).contains(&out) =>
                {
                    let Some(taps) = self.taps(a, size, out)? else { continue };
                    y = self.apply(b, y, a.axis, &taps)?;
                    masks.extend(taps.outside.contains(&true).then_some((a.axis, taps.outside)));
                }
                _ => {
                    let pick = |b: &mut Builder<'_>, v: Value, i: usize| -> Built {
                        let v = b.narrow(v, 0, i.into(), 1i64.into())?;
                        b.reshape(v, vec![])
                    };
                    let scale = match scales {
                        Some(s) if a.scale.is_none() => Some(pick(b, s, i)?),
                        _ => None,
                    };
                    let ends = match roi {
                        Some(r) => [pick(b, r, i)?, pick(b, r, self.axes.len() + i)?],
                        None => [a.roi.0, a.roi.1].map(|e| b.scalar(Dtype::F32, e.into())),
                    };
                    let x = self.source_value(b, a, &size, scale, ends)?;
                    y = if self.antialias {
                        let scale = size_scale(b, a, &size, scale)?;
                        self.stretched(b, y, a, [x, scale])?
                    } else {
                        self.computed(b, y, a, &size, x)?
                    };
                    if self.coord == ResizeCoord::TfCropAndResize {
                        let mask = outside_value(b, x, &size)?;
                        let mut shape = vec![Dim::from(1i64); b.g.dims(y).len() - a.axis];
                        shape[0] = a.out.clone();
                        computed_masks.push(b.reshape(mask, shape)?);
                    }
                }
            }
        }
        for (axis, outside) in masks {
            y = self.fill_outside(b, y, axis, &outside)?;
        }
        for mask in computed_masks {
            let fill = b.scalar(b.g.dtype(y), self.extrapolate.into());
            y = b.select(mask, fill, y)?;
        }
        Ok(vec![b.cast(y, dtype)?])
    }
}

impl Resize {
    /// The order in which axes are resampled, by position: first those that shrink, then those that
    /// grow from the innermost on. Each then has the least elements, and the last one (of most) takes
    /// whole rows.
    fn order(&self, dims: &[Dim]) -> Vec<usize> {
        let shrinks = |a: &ResizeAxis| match (dims.get(a.axis), a.scale) {
            (_, Some(scale)) => scale < 1.0,
            (Some(size), _) => {
                matches!((a.out.as_const(), size.as_const()), (Some(o), Some(s)) if o < s)
            }
            _ => false,
        };
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        order.sort_by_key(|&i| {
            let a = &self.axes[i];
            if shrinks(a) { (0, a.axis) } else { (1, usize::MAX - a.axis) }
        });
        order
    }

    /// Where output element `i` lies, in f32.
    fn source(&self, a: &ResizeAxis, size: i64, out: i64, i: i64) -> f32 {
        let scale = a.scale.unwrap_or(out as f32 / size as f32);
        let (x, n, m) = (i as f32, size as f32, out as f32);
        match self.coord {
            ResizeCoord::HalfPixel => (x + 0.5) / scale - 0.5,
            ResizeCoord::PytorchHalfPixel if out > 1 => (x + 0.5) / scale - 0.5,
            ResizeCoord::PytorchHalfPixel => 0.0,
            ResizeCoord::HalfPixelSymmetric => {
                let adjustment = m / (scale * n);
                n / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            ResizeCoord::AlignCorners if out > 1 => x * (n - 1.0) / (m - 1.0),
            ResizeCoord::AlignCorners => 0.0,
            ResizeCoord::Asymmetric => x / scale,
            ResizeCoord::TfCropAndResize => {
                let (start, end) = a.roi;
                if out > 1 {
                    start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0)
                } else {
                    0.5 * (start + end) * (n - 1.0)
                }
            }
        }
    }

    /// The input elements that make each output element of an axis of known sizes, with their
    /// weights; none for sizes and scales that have no definition.
    pub fn weights(&self, a: &ResizeAxis, size: i64, out: i64) -> Option<Vec<Vec<(i64, f32)>>> {
        let Some(t) = self.taps(a, size, out).ok()? else {
            return Some((0..out).map(|o| vec![(o, 1.0)]).collect());
        };
        let one = |o: usize| t.index.iter().zip(&t.weight).map(|(i, w)| (i[o], w[o])).collect();
        Some((0..out as usize).map(one).collect())
    }

    /// The taps of a static axis; none where every output element is the input's own.
    fn taps(&self, a: &ResizeAxis, size: i64, out: i64) -> Built<Option<Taps>> {
        if size == 0 && out > 0 {
            return Err(OpError::new("an axis of size 0 cannot be resized"));
        }
        let scale = a.scale.unwrap_or(out as f32 / size as f32);
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let radius = match self.mode {
            ResizeMode::Nearest { .. } => 0,
            ResizeMode::Linear => (1.0 / shrink).ceil() as i64,
            ResizeMode::Cubic { .. } => (2.0 / shrink).ceil() as i64,
        };
        if !scale.is_finite() || scale <= 0.0 || radius > MOST_TAPS / 2 {
            return Err(OpError::new(format!("a scale of {scale}")));
        }
        if (radius * 2).saturating_mul(out) > MOST_WEIGHTS {
            let what = format!("{} weights for each of {out} elements", radius * 2);
            return Err(OpError::limit(what));
        }
        let count = (radius * 2).max(1) as usize;
        let mut taps =
            Taps { index: vec![vec![]; count], weight: vec![vec![]; count], outside: vec![] };
        for o in 0..out {
            let x = self.source(a, size, out, o);
            let outside = x < 0.0 || x > (size - 1) as f32;
            taps.outside.push(self.coord == ResizeCoord::TfCropAndResize && outside);
            if let ResizeMode::Nearest { round } = self.mode {
                taps.index[0].push((nearest(round, x) as i64).clamp(0, size - 1));
                taps.weight[0].push(1.0);
                continue;
            }
            for (t, (i, w)) in self.filter(x, radius, shrink, size).into_iter().enumerate() {
                taps.index[t].push(i);
                taps.weight[t].push(w);
            }
        }
        Ok(Some(taps).filter(|t| !t.is_identity(size)))
    }

    /// Indices and weights of the `2*radius` elements about x.
    fn filter(&self, x: f32, radius: i64, shrink: f32, size: i64) -> Vec<(i64, f32)> {
        // Far outside is outside.
        let base = (x.floor() as i64).clamp(-(1 << 40), 1 << 40);
        let mut taps: Vec<(i64, f32)> = (base - radius + 1..=base + radius)
            .map(|i| {
                let d = (i as f32 - x).abs() * shrink;
                let w = match self.mode {
                    ResizeMode::Cubic { a } => cubic(a, d),
                    _ => (1.0 - d).max(0.0),
                };
                let kept = !self.exclude_outside || (0..size).contains(&i);
                (i.clamp(0, size - 1), if kept { w } else { 0.0 })
            })
            .collect();
        if self.exclude_outside || shrink < 1.0 {
            let sum: f32 = taps.iter().map(|t| t.1).sum();
            if sum != 0.0 {
                taps.iter_mut().for_each(|t| t.1 /= sum);
            }
        }
        taps
    }

    fn apply(&self, b: &mut Builder<'_>, x: Value, axis: usize, taps: &Taps) -> Built {
        let dtype = b.g.dtype(x);
        let gather = Prim::Gather { axis: axis as u32 };
        let mut sum = None;
        for (index, weight) in taps.index.iter().zip(&taps.weight) {
            if weight.iter().all(|&w| w == 0.0) && !weight.is_empty() {
                continue;
            }
            let at = b.ints(index);
            let mut term = b.prim(gather.clone(), &[x, at])?;
            if weight.iter().any(|&w| w != 1.0) {
                let bytes = weight.iter().flat_map(|&w| scalar_bytes(dtype, w.into()));
                let bytes: Vec<u8> = bytes.collect();
                let mut shape = vec![1; b.g.dims(x).len() - axis];
                shape[0] = weight.len() as i64;
                let w = b.constant(dtype, &shape, bytes.into());
                term = b.mul(term, w)?;
            }
            sum = Some(match sum {
                Some(s) => b.add(s, term)?,
                None => term,
            });
        }
        sum.ok_or_else(|| OpError::new("an interpolation without weights"))
    }

    fn fill_outside(&self, b: &mut Builder<'_>, y: Value, axis: usize, outside: &[bool]) -> Built {
        let mut shape = vec![1; b.g.dims(y).len() - axis];
        shape[0] = outside.len() as i64;
        let bytes: Vec<u8> = outside.iter().map(|&o| u8::from(o)).collect();
        let mask = b.constant(Dtype::Bool, &shape, bytes.into());
        let fill = b.scalar(b.g.dtype(y), self.extrapolate.into());
        b.select(mask, fill, y)
    }
}

impl Taps {
    /// Does every output element equal the input's element of its own index?
    fn is_identity(&self, size: i64) -> bool {
        let out = self.outside.len();
        if out as i64 != size || self.outside.contains(&true) {
            return false;
        }
        (0..out).all(|o| {
            let mut taps = self.index.iter().zip(&self.weight);
            taps.all(
                |(i, w)| if i[o] == o as i64 { w[o] == 1.0 || w[o] == 0.0 } else { w[o] == 0.0 },
            )
        })
    }
}

fn nearest(round: NearestRound, x: f32) -> f32 {
    match round {
        NearestRound::PreferFloor => (x - 0.5).ceil(),
        NearestRound::PreferCeil => (x + 0.5).floor(),
        NearestRound::Floor => x.floor(),
        NearestRound::Ceil => x.ceil(),
    }
}

/// Keys' kernel at distance d ≥ 0.
fn cubic(a: f32, d: f32) -> f32 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}
