//! Pooling: windows over the spatial axes of `[N, C, spatial…]`.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, Geometry, PadMode, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x) -> y[, indices: int64]`: the greatest of each window. ONNX MaxPool; Paddle pool2d.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MaxPool {
    /// Window size per spatial axis.
    pub kernel: Vec<i64>,
    /// Strides, dilations, pads (auto_pad and ceil mode are resolved into `after` on import).
    pub geo: Geometry,
    /// Also give where each maximum is.
    pub indices: Option<PoolIndices>,
}

/// What a max pool's indices count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolIndices {
    /// The whole tensor, row-major (ONNX, storage_order 0).
    Tensor,
    /// The whole tensor with the spatial axes reversed (ONNX, storage_order 1).
    TensorColumnMajor,
    /// The spatial plane of one channel, row-major (Paddle max_pool2d_with_index).
    Plane,
}

/// `(x)`: mean of each window. ONNX AveragePool; Paddle pool2d.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AvgPool {
    /// Window size per spatial axis.
    pub kernel: Vec<i64>,
    /// As in [`MaxPool`].
    pub geo: Geometry,
    /// Elements that count in a mean.
    pub count: PoolCount,
}

/// Divisor of a mean.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolCount {
    /// Elements of x only (count_include_pad 0; Paddle `exclusive`).
    Valid,
    /// Also padding: `geo.before` and these many after the last element, per axis. What ceil mode
    /// adds to `geo.after` beyond this is not counted.
    Padded(Vec<Dim>),
    /// Always the size of the window.
    Window,
}

/// `(x)`: `(sum |x|^p)^(1/p)` of each window. ONNX LpPool.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LpPool {
    /// Window size per spatial axis.
    pub kernel: Vec<i64>,
    /// As in [`MaxPool`].
    pub geo: Geometry,
    /// The exponent, ≥ 1.
    pub p: i64,
}

/// `(x)`: output bin `i` of an axis covers elements `floor(i*in/out) .. ceil((i+1)*in/out)`.
/// Paddle adaptive_pool2d, torch adaptive pooling.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AdaptivePool {
    /// Greatest, else mean.
    pub max: bool,
    /// Bins per spatial axis; [`None`] keeps the axis.
    pub out: Vec<Option<i64>>,
}

/// Windows whose counts are a constant; those of more are computed.
const MOST_COUNTS: i64 = 1 << 18;

/// Bins of one adaptive axis are separate nodes; more than this many are refused.
const MOST_BINS: i64 = 1 << 10;

fn spatial(b: &Builder<'_>, x: Value, n: usize) -> Built<Vec<Dim>> {
    match b.g.dims(x) {
        d if d.len() == n + 2 => Ok(d[2..].to_vec()),
        d => Err(OpError::new(format!("windows over {n} axes of a tensor of rank {}", d.len()))),
    }
}

impl SourceOp for MaxPool {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let (kernel, geo) = (self.kernel.clone(), self.geo.clone());
        let plane = Dim::product(&spatial(b, ins[0], kernel.len())?);
        let p = Prim::Window { op: ReduceOp::Max, kernel: kernel.clone(), geo: geo.clone() };
        let y = b.prim(p, ins)?;
        let Some(what) = self.indices else { return Ok(vec![y]) };
        let column_major = what == PoolIndices::TensorColumnMajor;
        let mut at = b.prim(Prim::WindowArgMax { kernel, geo, column_major }, ins)?;
        if what == PoolIndices::Plane {
            let plane = b.dim_scalar(plane);
            at = b.bin(BinaryOp::Mod, at, plane)?;
        }
        Ok(vec![y, at])
    }
}

impl SourceOp for AvgPool {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let dims = spatial(b, ins[0], self.kernel.len())?;
        let (kernel, geo) = (self.kernel.clone(), self.geo.clone());
        let sum = b.prim(Prim::Window { op: ReduceOp::Sum, kernel, geo }, ins)?;
        let dtype = b.g.dtype(sum);
        let k = self.reciprocal(b, &dims, dtype)?;
        Ok(vec![b.mul(sum, k)?])
    }
}

impl AvgPool {
    /// `1 / count` of each window: one number where all are equal, a constant where sizes are
    /// known, else computed.
    fn reciprocal(&self, b: &mut Builder<'_>, dims: &[Dim], dtype: Dtype) -> Built {
        let whole = self.kernel.iter().try_fold(1i64, |n, &k| n.checked_mul(k));
        let whole = whole.ok_or_else(|| OpError::new("a window of more than 2^63 elements"))?;
        let pads = self.geo.before.iter().chain(&self.geo.after);
        let unpadded = pads.clone().all(|p| p.is(0));
        let counted = match &self.count {
            PoolCount::Padded(after) => self.geo.after == *after,
            _ => false,
        };
        if unpadded || counted || self.count == PoolCount::Window {
            return Ok(b.scalar(dtype, 1.0 / whole as f64));
        }
        if let Some(axes) = self.axis_counts(dims) {
            return Ok(self.constant(b, &axes, dtype));
        }
        self.computed(b, dims, dtype)
    }

    /// Counts along each axis, where they are known and few.
    fn axis_counts(&self, dims: &[Dim]) -> Option<Vec<Vec<i64>>> {
        let mut total = 1i64;
        let mut axes = vec![];
        for (i, d) in dims.iter().enumerate() {
            let (k, stride, dil) = (self.kernel[i], self.geo.stride[i], self.geo.dilation[i]);
            let (size, before) = (d.as_const()?, self.geo.before[i].as_const()?);
            let out = self.geo.out(i, d, &Dim::from(k)).as_const()?;
            total = total.checked_mul(out).filter(|&t| t <= MOST_COUNTS && out > 0)?;
            let (lo, hi) = match &self.count {
                PoolCount::Padded(after) => (-before, size.checked_add(after.get(i)?.as_const()?)?),
                _ => (0, size),
            };
            // Taps t with lo <= start + t*dil < hi.
            let upto = |bound: i64, start: i64| {
                let reach = bound.saturating_sub(start).saturating_add(dil - 1);
                reach.div_euclid(dil).clamp(0, k)
            };
            let at = |o: i64| {
                let start = o.saturating_mul(stride).saturating_sub(before);
                (upto(hi, start) - upto(lo, start)).max(0)
            };
            axes.push((0..out).map(at).collect());
        }
        Some(axes)
    }

    fn constant(&self, b: &mut Builder<'_>, axes: &[Vec<i64>], dtype: Dtype) -> Value {
        let mut counts = vec![1i64];
        for axis in axes {
            counts = counts.iter().flat_map(|c| axis.iter().map(move |a| c * a)).collect();
        }
        if counts.iter().all(|c| *c == counts[0]) {
            return b.scalar(dtype, 1.0 / counts[0].max(1) as f64);
        }
        let bytes: Vec<u8> = counts
            .iter()
            .flat_map(|&c| crate::build::scalar_bytes(dtype, 1.0 / c.max(1) as f64))
            .collect();
        let shape: Vec<i64> =
            [1, 1].into_iter().chain(axes.iter().map(|a| a.len() as i64)).collect();
        b.constant(dtype, &shape, bytes.into())
    }

    /// Windows over ones say how many elements count.
    fn computed(&self, b: &mut Builder<'_>, dims: &[Dim], dtype: Dtype) -> Built {
        let shape: Vec<Dim> = [1i64.into(), 1i64.into()].into_iter().chain(dims.to_vec()).collect();
        let one = b.scalar(dtype, 1.0);
        let mut ones = b.broadcast(one, shape)?;
        let mut geo = self.geo.clone();
        if let PoolCount::Padded(after) = &self.count {
            let pad = |p: &[Dim]| [&[0i64.into(), 0i64.into()], p].concat();
            let (before, after_all) = (pad(&geo.before), pad(after));
            let p = Prim::Pad { before, after: after_all, mode: PadMode::Constant };
            ones = b.prim(p, &[ones, one])?;
            geo.before.fill(0i64.into());
            geo.after = geo.after.iter().zip(after).map(|(all, real)| all.sub(real)).collect();
        }
        let p = Prim::Window { op: ReduceOp::Sum, kernel: self.kernel.clone(), geo };
        let counts = b.prim(p, &[ones])?;
        let counts = b.bin_scalar(BinaryOp::Max, counts, 1.0)?;
        b.un(UnaryOp::Recip, counts)
    }
}

impl SourceOp for LpPool {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        spatial(b, ins[0], self.kernel.len())?;
        if self.p < 1 {
            return Err(OpError::new(format!("a norm of order {}", self.p)));
        }
        let mut x = b.un(UnaryOp::Abs, ins[0])?;
        match self.p {
            1 => {}
            2 => x = b.mul(x, x)?,
            p => x = b.bin_scalar(BinaryOp::Pow, x, p as f64)?,
        }
        let (kernel, geo) = (self.kernel.clone(), self.geo.clone());
        let sum = b.prim(Prim::Window { op: ReduceOp::Sum, kernel, geo }, &[x])?;
        Ok(vec![match self.p {
            1 => sum,
            2 => b.un(UnaryOp::Sqrt, sum)?,
            p => b.bin_scalar(BinaryOp::Pow, sum, 1.0 / p as f64)?,
        }])
    }
}

impl SourceOp for AdaptivePool {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let mut x = ins[0];
        let dims = spatial(b, x, self.out.len())?;
        if self.out.iter().flatten().any(|&o| !(1..=MOST_BINS).contains(&o)) {
            return Err(OpError::new(format!("bins must be 1 to {MOST_BINS}, not {:?}", self.out)));
        }
        let op = if self.max { ReduceOp::Max } else { ReduceOp::Mean };
        if self.out.iter().all(|o| *o == Some(1)) {
            let axes: Vec<usize> = (2..dims.len() + 2).collect();
            return Ok(vec![b.reduce(op, x, &axes, true)?]);
        }
        if let Some(step) = self.uniform(&dims) {
            let geo = Geometry { stride: step.clone(), ..Geometry::unit(dims.len()) };
            if self.max {
                return MaxPool { kernel: step, geo, indices: None }.expand(b, &[x]);
            }
            return AvgPool { kernel: step, geo, count: PoolCount::Window }.expand(b, &[x]);
        }
        for (i, (d, out)) in dims.iter().zip(&self.out).enumerate() {
            let Some(out) = *out else { continue };
            let mut bins = vec![];
            for o in 0..out {
                let start = d.times(o).div(&out.into());
                let len = d.times(o + 1).div_ceil(&out.into()).sub(&start);
                let bin = b.narrow(x, i + 2, start, len)?;
                bins.push(b.reduce(op, bin, &[i + 2], true)?);
            }
            x = b.concat(&bins, i + 2)?;
        }
        Ok(vec![x])
    }
}

impl AdaptivePool {
    /// Window sizes where every axis divides evenly.
    fn uniform(&self, dims: &[Dim]) -> Option<Vec<i64>> {
        let one = |(d, out): (&Dim, &Option<i64>)| match (d.as_const(), out) {
            (_, None) => Some(1),
            (Some(d), Some(o)) if d > 0 && d % o == 0 => Some(d / o),
            _ => None,
        };
        dims.iter().zip(&self.out).map(one).collect()
    }
}
