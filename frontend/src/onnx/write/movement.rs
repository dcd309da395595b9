//! Primitives that move elements, and those that make them from sizes.

use super::cx::{Got, Writer, X, float, int, ints, string};
use hub_abi::prim::{Distribution, PadMode, Prim};
use hub_abi::{Dim, Dtype};

/// Past every axis: ONNX clamps.
const FAR: i64 = i64::MAX;

impl Writer {
    /// x with shape `to`, where it has `from`.
    pub fn reshape(&mut self, x: &X, from: &[Dim], to: &[Dim]) -> Got<X> {
        if from == to {
            return Ok(x.clone());
        }
        // 0 copies an axis and -1 is what remains; a size that is 0 needs all sizes spelled out.
        let least = |d: &Dim| d.bounds(&self.g.syms).0;
        let copied = |i: usize| from.get(i) == Some(&to[i]) && to[i].as_const().is_none();
        let open = |i: usize| to[i].as_const().is_none() && !copied(i);
        let unknown = (0..to.len()).filter(|&i| open(i)).count();
        let remains = unknown == 1 && (0..to.len()).all(|i| open(i) || least(&to[i]) > 0);
        let spelled = to.iter().any(|d| d.is(0))
            || !remains && (0..to.len()).any(|i| open(i) && least(&to[i]) <= 0);
        let target: Vec<Dim> = (0..to.len())
            .map(|i| match (spelled, copied(i)) {
                (false, true) => 0i64.into(),
                (false, false) if remains && open(i) => (-1i64).into(),
                _ => to[i].clone(),
            })
            .collect();
        let shape = self.shape(&target)?;
        let attrs = if spelled { vec![int("allowzero", 1)] } else { vec![] };
        self.op_with("Reshape", &[x], &[&shape], attrs)
    }

    /// x broadcast to a shape.
    pub fn expand(&mut self, x: &X, from: &[Dim], to: &[Dim]) -> Got<X> {
        if from == to {
            return Ok(x.clone());
        }
        // An axis that is right already may say 1.
        let lead = to.len() - from.len().min(to.len());
        let same = |i: usize| i >= lead && from[i - lead] == to[i];
        let target: Vec<Dim> =
            (0..to.len()).map(|i| if same(i) { 1i64.into() } else { to[i].clone() }).collect();
        let shape = self.shape(&target)?;
        self.op_with("Expand", &[x], &[&shape], vec![])
    }

    /// x with permuted axes.
    pub fn transpose(&mut self, x: &X, perm: &[usize]) -> Got<X> {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return Ok(x.clone());
        }
        let perm: Vec<i64> = perm.iter().map(|&p| p as i64).collect();
        self.op_with("Transpose", &[x], &[], vec![ints("perm", &perm)])
    }

    /// x without an axis of size 1.
    pub fn squeeze(&mut self, x: &X, axis: i64) -> Got<X> {
        let axes = self.ints(&[axis]);
        self.op_with("Squeeze", &[x], &[&axes], vec![])
    }

    /// x with an axis of size 1.
    pub fn unsqueeze(&mut self, x: &X, axis: i64) -> X {
        let axes = self.ints(&[axis]);
        X { name: self.raw("Unsqueeze", &[&x.name, &axes], vec![]), ty: x.ty }
    }

    /// Parts joined along an axis.
    pub fn concat(&mut self, xs: &[X], axis: i64) -> Got<X> {
        let xs: Vec<&X> = xs.iter().collect();
        self.op_with("Concat", &xs, &[], vec![int("axis", axis)])
    }

    /// x padded with a value (negative amounts crop).
    pub fn pad(&mut self, x: &X, value: &X, pads: [&[Dim]; 2], mode: PadMode) -> Got<X> {
        let mode = match mode {
            PadMode::Constant => "constant",
            PadMode::Reflect => "reflect",
            PadMode::Edge => "edge",
            PadMode::Wrap => "wrap",
        };
        let pads = self.shape(&pads.concat())?;
        let ty = self.compute_type("Pad", x.ty)?;
        let value = if mode == "constant" { self.cast(value, ty).name } else { String::new() };
        self.op_with("Pad", &[x], &[&pads, &value], vec![string("mode", mode)])
    }

    fn slice(&mut self, x: &X, dims: &[Dim], [start, len]: [&[Dim]; 2], step: &[i64]) -> Got<X> {
        let (mut starts, mut ends, mut axes, mut steps) = (vec![], vec![], vec![], vec![]);
        for (i, d) in dims.iter().enumerate() {
            let end = start[i].add(&len[i].times(step[i]));
            if step[i] == 1 && start[i].is(0) && len[i] == *d {
                continue;
            }
            starts.push(start[i].clone());
            ends.push(match step[i] {
                1 if end == *d => FAR.into(),
                // Counted from the axis's end, so that one before the first is not the last.
                s if s < 0 => end.sub(d),
                _ => end,
            });
            axes.push(i as i64);
            steps.push(step[i]);
        }
        if axes.is_empty() {
            return Ok(x.clone());
        }
        let (starts, ends) = (self.shape(&starts)?, self.shape(&ends)?);
        let (axes, unit) = (self.ints(&axes), steps.iter().all(|&s| s == 1));
        let steps = if unit { String::new() } else { self.ints(&steps) };
        self.op_with("Slice", &[x], &[&starts, &ends, &axes, &steps], vec![])
    }

    /// `0, 1, … n-1` in a type.
    fn range(&mut self, n: &Dim, ty: Dtype) -> Got<X> {
        let within = self.compute_type("Range", ty)?;
        let count = X { name: self.dim_scalar(n)?, ty: Dtype::I64 };
        let count = self.cast(&count, within);
        let (zero, one) = (self.scalar(within, 0.0), self.scalar(within, 1.0));
        let r = self.raw("Range", &[&zero.name, &count.name, &one.name], vec![]);
        Ok(self.cast(&X { name: r, ty: within }, ty))
    }

    /// Movement primitives; `dims` are the first operand's.
    pub fn movement(&mut self, p: &Prim, ins: &[X], dims: &[Dim]) -> Got<X> {
        match p {
            Prim::Broadcast { shape } => self.expand(&ins[0], dims, shape),
            Prim::Reshape { shape } => self.reshape(&ins[0], dims, shape),
            Prim::Transpose { perm } => {
                let perm: Vec<usize> = perm.iter().map(|&p| p as usize).collect();
                self.transpose(&ins[0], &perm)
            }
            Prim::Slice { start, len, step } => self.slice(&ins[0], dims, [start, len], step),
            Prim::Pad { before, after, mode } => self.pad(&ins[0], &ins[1], [before, after], *mode),
            Prim::Concat { axis } => self.concat(ins, (*axis).into()),
            Prim::Iota { dtype, shape, axis } => {
                let at = *axis as usize;
                let flat = [shape[at].clone()];
                let r = self.range(&shape[at], *dtype)?;
                let mut stood = vec![Dim::from(1i64); shape.len()];
                stood[at] = shape[at].clone();
                let r = self.reshape(&r, &flat, &stood)?;
                self.expand(&r, &stood, shape)
            }
            Prim::Dims { dims, scalar } => {
                let name = match scalar {
                    true => self.dim_scalar(&dims[0])?,
                    false => self.shape(dims)?,
                };
                Ok(X { name, ty: Dtype::I64 })
            }
            Prim::Random { dist, dtype, shape, seed } => self.random(*dist, *dtype, shape, *seed),
            _ => self.refuse(format!("{} has no ONNX form", hub_ir::build::prim_name(p))),
        }
    }

    fn random(&mut self, dist: Distribution, ty: Dtype, shape: &[Dim], seed: u64) -> Got<X> {
        let within = self.compute_type("RandomUniform", ty)?;
        // A seed is a float; it keeps the bits that one holds.
        let seed = float("seed", (seed % (1 << 24)) as f64);
        let (op, mut attrs) = match dist {
            Distribution::Uniform { lo, hi } => {
                ("RandomUniform", vec![float("low", lo), float("high", hi), seed])
            }
            Distribution::Normal { mean, std } => {
                ("RandomNormal", vec![float("mean", mean), float("scale", std), seed])
            }
        };
        attrs.push(int("dtype", within as i64));
        let fixed: Option<Vec<i64>> = shape.iter().map(Dim::as_const).collect();
        let name = match fixed {
            Some(dims) if !dims.is_empty() => {
                attrs.push(ints("shape", &dims));
                self.raw(op, &[], attrs)
            }
            _ => {
                let zero = self.scalar(Dtype::F32, 0.0);
                let like = self.expand(&zero, &[], shape)?;
                self.raw(&format!("{op}Like"), &[&like.name], attrs)
            }
        };
        Ok(self.cast(&X { name, ty: within }, ty))
    }
}
