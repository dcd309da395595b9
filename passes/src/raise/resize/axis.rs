//! A linear map along one axis, and the interpolation that it is.

use hub_abi::Dim;
use hub_ir::ops::resize::{NearestRound, Resize, ResizeAxis, ResizeCoord, ResizeMode};

/// What each output element of an axis is made of: input elements and their weights.
#[derive(Clone, Debug)]
pub struct AxisMap {
    /// Elements of the input.
    pub size: usize,
    /// One an output element.
    pub rows: Vec<Vec<(usize, f64)>>,
}

/// How the map and an interpolation differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unlike {
    /// It is none that is known.
    Unknown,
    /// Only near the ends.
    AtBorders,
}

/// Elements of an axis that are looked at.
pub const MOST: usize = 1 << 13;

impl AxisMap {
    /// This map after another one.
    pub fn after(&self, first: &AxisMap) -> Option<AxisMap> {
        if first.rows.len() != self.size {
            return None;
        }
        let one = |row: &Vec<(usize, f64)>| {
            let terms =
                row.iter().flat_map(|&(i, w)| first.rows[i].iter().map(move |&(j, v)| (j, w * v)));
            terms.collect()
        };
        Some(AxisMap { size: first.size, rows: self.rows.iter().map(one).collect() })
    }

    /// Elements are themselves.
    pub fn is_identity(&self) -> bool {
        self.size == self.rows.len()
            && (0..self.size).all(|o| same(&tidy(self.rows[o].iter().copied()), &[(o, 1.0)]))
    }

    /// The interpolation that it is.
    pub fn interpolation(&self) -> Result<(ResizeMode, ResizeCoord), Unlike> {
        let (size, out) = (self.size, self.rows.len());
        if size == 0 || out == 0 || size > MOST || out > MOST {
            return Err(Unlike::Unknown);
        }
        let mut why = Unlike::Unknown;
        for (mode, coord) in KNOWN {
            let rows =
                op(*mode, *coord, vec![]).weights(&axis(0, out as i64), size as i64, out as i64);
            let Some(rows) = rows else { continue };
            let apart: Vec<usize> = (0..out)
                .filter(|&o| {
                    let want = rows[o].iter().map(|&(i, w)| (i as usize, f64::from(w)));
                    !same(&tidy(self.rows[o].iter().copied()), &tidy(want))
                })
                .collect();
            if apart.is_empty() {
                return Ok((*mode, *coord));
            }
            let border = out.div_ceil(size) * 2;
            let inner = |o: &usize| *o >= border && o + border < out;
            if out > 2 * border && !apart.iter().any(inner) {
                why = Unlike::AtBorders;
            }
        }
        Err(why)
    }
}

/// The interpolations that exporters decompose, the usual spelling of equal ones first.
const KNOWN: &[(ResizeMode, ResizeCoord)] = &[
    (ResizeMode::Nearest { round: NearestRound::Floor }, ResizeCoord::Asymmetric),
    (ResizeMode::Linear, ResizeCoord::HalfPixel),
    (ResizeMode::Linear, ResizeCoord::AlignCorners),
    (ResizeMode::Linear, ResizeCoord::Asymmetric),
    (ResizeMode::Nearest { round: NearestRound::PreferFloor }, ResizeCoord::HalfPixel),
    (ResizeMode::Cubic { a: -0.75 }, ResizeCoord::HalfPixel),
    (ResizeMode::Cubic { a: -0.5 }, ResizeCoord::HalfPixel),
    (ResizeMode::Cubic { a: -0.75 }, ResizeCoord::AlignCorners),
];

/// Terms by element, those of one element summed, those of no weight left out.
fn tidy(terms: impl Iterator<Item = (usize, f64)>) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = terms.collect();
    all.sort_by_key(|t| t.0);
    let mut out: Vec<(usize, f64)> = vec![];
    for (i, w) in all {
        match out.last_mut() {
            Some(last) if last.0 == i => last.1 += w,
            _ => out.push((i, w)),
        }
    }
    // A weight that rounding left.
    out.retain(|t| t.1.abs() > NEAR);
    out
}

/// Weights are sums and products of f32 coordinates.
const NEAR: f64 = 2e-6;

fn same(a: &[(usize, f64)], b: &[(usize, f64)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.0 == y.0 && (x.1 - y.1).abs() <= NEAR)
}

/// A plain resize.
pub fn op(mode: ResizeMode, coord: ResizeCoord, axes: Vec<ResizeAxis>) -> Resize {
    Resize { axes, mode, coord, antialias: false, exclude_outside: false, extrapolate: 0.0 }
}

/// One axis, scaled by the ratio of its sizes.
pub fn axis(axis: usize, out: impl Into<Dim>) -> ResizeAxis {
    ResizeAxis { axis, out: out.into(), scale: None, roi: (0.0, 1.0) }
}
