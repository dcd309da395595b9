//! The type inference of primitives.

use crate::dim::{Dim, DimError, SymEnv};
use crate::dtype::Dtype;
use crate::prim::{BinaryOp, Prim, TextOp, UnaryOp};
use crate::shape::{Constraints, ShapeError, TensorType, misfit};

fn want<const N: usize>(ins: &[TensorType]) -> Result<[&TensorType; N], ShapeError> {
    let refs: Vec<&TensorType> = ins.iter().collect();
    let n = refs.len();
    refs.try_into().or_else(|_| misfit(format!("{N} inputs expected, {n} given")))
}

fn axis_in(axis: u32, t: &TensorType) -> Result<usize, ShapeError> {
    if (axis as usize) < t.rank() {
        return Ok(axis as usize);
    }
    misfit(format!("axis {axis} is past rank {}", t.rank()))
}

fn same_dtype(a: &TensorType, b: &TensorType) -> Result<Dtype, ShapeError> {
    if a.dtype == b.dtype {
        return Ok(a.dtype);
    }
    misfit(format!("element types {} and {} differ", a.dtype, b.dtype))
}

fn nonneg(d: &Dim, what: &str) -> Result<(), ShapeError> {
    match d.as_const() {
        Some(k) if k < 0 => misfit(format!("{what} would be {k}")),
        _ => Ok(()),
    }
}

/// A size that no symbol changes is none that cannot be.
fn possible(d: &Dim) -> Result<(), ShapeError> {
    if let Some(k) = d.as_const() {
        return if k < 0 { misfit(format!("a size would be {k}")) } else { Ok(()) };
    }
    let mut varies = false;
    d.each_sym(&mut |_| varies = true);
    match d.eval(&SymEnv::default()) {
        Err(e @ DimError::DivZero(_)) if !varies => misfit(e.to_string()),
        Ok(k) if !varies && k < 0 => misfit(format!("a size would be {k}")),
        _ => Ok(()),
    }
}

/// Output dtype of a contraction or convolution.
fn accum(a: &TensorType, b: &TensorType) -> Result<Dtype, ShapeError> {
    if matches!((a.dtype, b.dtype), (Dtype::I8 | Dtype::U8, Dtype::I8 | Dtype::U8)) {
        return Ok(Dtype::I32);
    }
    same_dtype(a, b)
}

impl Prim {
    /// Output types for input types. Equalities that cannot be proved go to `eq`.
    ///
    /// # Errors
    /// Operands that do not fit, or a size that is negative or none whatever the symbols are.
    pub fn infer(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        let outs = self.infer_types(ins, eq)?;
        outs.iter().flat_map(|t| &t.dims).try_for_each(possible)?;
        Ok(outs)
    }

    fn infer_types(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        use Prim::*;
        let one = |dtype, dims| Ok(vec![TensorType { dtype, dims }]);
        match self {
            Unary(op) => {
                let [x] = want(ins)?;
                let predicate = matches!(op, UnaryOp::IsNan | UnaryOp::IsInf);
                one(if predicate { Dtype::Bool } else { x.dtype }, x.dims.clone())
            }
            Binary(op) => {
                let [a, b] = want(ins)?;
                let d = same_dtype(a, b)?;
                use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
                let compare = matches!(op, Eq | Ne | Lt | Le | Gt | Ge);
                one(if compare { Dtype::Bool } else { d }, eq.broadcast(&a.dims, &b.dims)?)
            }
            Select => {
                let [c, a, b] = want(ins)?;
                if c.dtype != Dtype::Bool {
                    return misfit(format!("condition is {}, not bool", c.dtype));
                }
                let d = same_dtype(a, b)?;
                let ab = eq.broadcast(&a.dims, &b.dims)?;
                one(d, eq.broadcast(&c.dims, &ab)?)
            }
            Cast { to, .. } => {
                let [x] = want(ins)?;
                one(*to, x.dims.clone())
            }
            Bitcast { to } => {
                let [x] = want(ins)?;
                if to.size() != x.dtype.size() {
                    return misfit(format!("bits of {} do not fit {to}", x.dtype));
                }
                one(*to, x.dims.clone())
            }
            Broadcast { .. }
            | Reshape { .. }
            | Transpose { .. }
            | Slice { .. }
            | Pad { .. }
            | Concat { .. } => self.infer_movement(ins, eq),
            Iota { dtype, shape, axis } => {
                let [] = want(ins)?;
                let t = TensorType { dtype: *dtype, dims: shape.clone() };
                axis_in(*axis, &t)?;
                Ok(vec![t])
            }
            Dims { dims, scalar } => {
                let [] = want(ins)?;
                one(Dtype::I64, if *scalar { vec![] } else { vec![dims.len().into()] })
            }
            BindSyms { .. } => want::<1>(ins).map(|_| vec![]),
            Gather { .. }
            | GatherElements { .. }
            | GatherNd { .. }
            | ScatterElements { .. }
            | ScatterNd { .. } => self.infer_indexed(ins, eq),
            Reduce { .. } | ArgReduce { .. } | Cumulative { .. } => self.infer_reduce(ins),
            Contract { a, b, out } => infer_contract(ins, [a, b, out], eq),
            Conv { .. } | ConvTranspose { .. } | Window { .. } | WindowArgMax { .. } => {
                self.infer_spatial(ins, eq)
            }
            TopK { k, axis, .. } => {
                let [x] = want(ins)?;
                let at = axis_in(*axis, x)?;
                nonneg(&x.dims[at].sub(k), "elements left by top-k")?;
                let mut dims = x.dims.clone();
                dims[at] = k.clone();
                Ok([x.dtype, Dtype::I64]
                    .map(|dtype| TensorType { dtype, dims: dims.clone() })
                    .to_vec())
            }
            NonZero { count } => {
                let [x] = want(ins)?;
                one(Dtype::I64, vec![x.rank().into(), Dim::from(*count)])
            }
            Random { dtype, shape, .. } => {
                let [] = want(ins)?;
                one(*dtype, shape.clone())
            }
            Find => {
                let [x, keys] = want(ins)?;
                same_dtype(x, keys)?;
                if keys.rank() != 1 {
                    return misfit("keys must be a vector");
                }
                one(Dtype::I64, x.dims.clone())
            }
            Text(op) => op.infer(ins, eq),
            DecodeImage { pixel, height, width } => {
                let [x] = want(ins)?;
                if x.dtype != Dtype::U8 || x.rank() != 1 {
                    return misfit("an image is a vector of u8");
                }
                one(Dtype::U8, vec![(*height).into(), (*width).into(), pixel.channels().into()])
            }
        }
    }

    fn infer_movement(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        let Some(x) = ins.first() else { return misfit("no input") };
        let per_axis = |n: usize| {
            if n == x.rank() { Ok(()) } else { misfit(format!("{n} axes for rank {}", x.rank())) }
        };
        let dims = match self {
            Prim::Broadcast { shape } => {
                let got = eq.broadcast(&x.dims, shape)?;
                if got.len() != shape.len()
                    || got.iter().zip(shape).any(|(g, s)| s.is(1) && !g.is(1))
                {
                    return misfit(format!("{:?} does not broadcast to {shape:?}", x.dims));
                }
                shape.clone()
            }
            Prim::Reshape { shape } => {
                eq.equal(&x.count(), &Dim::product(shape))?;
                shape.clone()
            }
            Prim::Transpose { perm } => {
                per_axis(perm.len())?;
                let mut seen = vec![false; perm.len()];
                for &p in perm {
                    if std::mem::replace(&mut seen[axis_in(p, x)?], true) {
                        return misfit(format!("{perm:?} is not a permutation"));
                    }
                }
                perm.iter().map(|&p| x.dims[p as usize].clone()).collect()
            }
            Prim::Slice { start, len, step } => {
                per_axis(start.len())?;
                per_axis(len.len())?;
                per_axis(step.len())?;
                if step.contains(&0) {
                    return misfit("a slice step is 0");
                }
                for l in len {
                    nonneg(l, "slice length")?;
                }
                len.clone()
            }
            Prim::Pad { before, after, .. } => {
                per_axis(before.len())?;
                per_axis(after.len())?;
                let dims: Vec<Dim> =
                    (0..x.rank()).map(|i| x.dims[i].add(&before[i]).add(&after[i])).collect();
                for d in &dims {
                    nonneg(d, "padded dimension")?;
                }
                dims
            }
            Prim::Concat { axis } => {
                let at = axis_in(*axis, x)?;
                let mut dims = x.dims.clone();
                for t in &ins[1..] {
                    same_dtype(x, t)?;
                    if t.rank() != x.rank() {
                        return misfit("ranks differ in a concatenation");
                    }
                    for (i, d) in dims.iter_mut().enumerate() {
                        *d = if i == at { d.add(&t.dims[i]) } else { eq.equal(d, &t.dims[i])? };
                    }
                }
                dims
            }
            _ => unreachable!("only movement primitives come here"),
        };
        Ok(vec![TensorType { dtype: x.dtype, dims }])
    }

    fn infer_indexed(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        let (Some(x), Some(ix)) = (ins.first(), ins.get(1)) else {
            return misfit("data and indices expected");
        };
        if !matches!(ix.dtype, Dtype::I32 | Dtype::I64) {
            return misfit(format!("indices are {}, not i32 or i64", ix.dtype));
        }
        let dims = match self {
            Prim::Gather { axis } => {
                let a = axis_in(*axis, x)?;
                [&x.dims[..a], &ix.dims, &x.dims[a + 1..]].concat()
            }
            Prim::GatherElements { axis } => {
                axis_in(*axis, x)?;
                if ix.rank() != x.rank() {
                    return misfit("indices and data differ in rank");
                }
                ix.dims.clone()
            }
            Prim::GatherNd { batch } => {
                let b = *batch as usize;
                let k = ix.dims.last().and_then(Dim::as_const);
                match k {
                    Some(k) if k >= 0 && b < ix.rank() && b + k as usize <= x.rank() => {
                        for i in 0..b {
                            eq.equal(&x.dims[i], &ix.dims[i])?;
                        }
                        [&ix.dims[..ix.rank() - 1], &x.dims[b + k as usize..]].concat()
                    }
                    _ => return misfit("index tuples do not fit the data"),
                }
            }
            Prim::ScatterElements { axis, .. } => {
                axis_in(*axis, x)?;
                x.dims.clone()
            }
            _ => x.dims.clone(),
        };
        if matches!(self, Prim::ScatterElements { .. } | Prim::ScatterNd { .. }) {
            let [_, _, u] = want(ins)?;
            same_dtype(x, u)?;
        }
        Ok(vec![TensorType { dtype: x.dtype, dims }])
    }

    fn infer_reduce(&self, ins: &[TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let [x] = want(ins)?;
        let drop_axes = |axes: &[u32], keep: bool| -> Result<Vec<Dim>, ShapeError> {
            for &a in axes {
                axis_in(a, x)?;
            }
            let dims = x.dims.iter().enumerate();
            Ok(dims
                .filter(|(i, _)| keep || !axes.contains(&(*i as u32)))
                .map(|(i, d)| if axes.contains(&(i as u32)) { 1i64.into() } else { d.clone() })
                .collect())
        };
        let (dtype, dims) = match self {
            Prim::Reduce { axes, keep, .. } => {
                if axes.windows(2).any(|w| w[0] >= w[1]) {
                    return misfit("reduced axes are not sorted and distinct");
                }
                (x.dtype, drop_axes(axes, *keep)?)
            }
            Prim::ArgReduce { axis, keep, .. } => (Dtype::I64, drop_axes(&[*axis], *keep)?),
            Prim::Cumulative { axis, .. } => {
                axis_in(*axis, x)?;
                (x.dtype, x.dims.clone())
            }
            _ => unreachable!("only reductions come here"),
        };
        Ok(vec![TensorType { dtype, dims }])
    }

    fn infer_spatial(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        let Some(x) = ins.first().filter(|x| x.rank() >= 2) else {
            return misfit("an input [N, C, spatial…] expected");
        };
        let n = x.rank() - 2;
        let mut dims = x.dims[..2].to_vec();
        let dtype = match self {
            Prim::Conv { geo, groups } => {
                let [x, w] = want(ins)?;
                geo.check(n)?;
                if w.rank() != n + 2 || *groups < 1 {
                    return misfit("the filter's rank or the group count does not fit");
                }
                eq.equal(&x.dims[1], &w.dims[1].times(*groups))?;
                if w.dims[0].rem(&Dim::from(*groups)).as_const().is_some_and(|r| r != 0) {
                    return misfit("output channels are no multiple of the groups");
                }
                dims[1] = w.dims[0].clone();
                dims.extend((0..n).map(|i| geo.out(i, &x.dims[i + 2], &w.dims[i + 2])));
                accum(x, w)?
            }
            Prim::ConvTranspose { geo, groups } => {
                let [x, w] = want(ins)?;
                geo.check(n)?;
                if w.rank() != n + 2 || *groups < 1 {
                    return misfit("the filter's rank or the group count does not fit");
                }
                eq.equal(&x.dims[1], &w.dims[0])?;
                dims[1] = w.dims[1].times(*groups);
                dims.extend((0..n).map(|i| geo.out_transposed(i, &x.dims[i + 2], &w.dims[i + 2])));
                accum(x, w)?
            }
            Prim::Window { kernel, geo, .. } | Prim::WindowArgMax { kernel, geo, .. } => {
                let [x] = want(ins)?;
                geo.check(n)?;
                if kernel.len() != n || kernel.iter().any(|&k| k < 1) {
                    return misfit("window sizes must be at least 1, one a spatial axis");
                }
                dims.extend((0..n).map(|i| geo.out(i, &x.dims[i + 2], &Dim::from(kernel[i]))));
                if matches!(self, Prim::WindowArgMax { .. }) { Dtype::I64 } else { x.dtype }
            }
            _ => unreachable!("only spatial primitives come here"),
        };
        for d in &dims {
            nonneg(d, "output dimension")?;
        }
        Ok(vec![TensorType { dtype, dims }])
    }
}

impl TextOp {
    fn infer(
        &self,
        ins: &[TensorType],
        eq: &mut Constraints,
    ) -> Result<Vec<TensorType>, ShapeError> {
        if let Some(t) = ins.iter().find(|t| t.dtype != Dtype::Str) {
            return misfit(format!("strings expected, not {}", t.dtype));
        }
        let one = |dtype, dims| Ok(vec![TensorType { dtype, dims }]);
        if let TextOp::Concat = self {
            let [a, b] = want(ins)?;
            return one(Dtype::Str, eq.broadcast(&a.dims, &b.dims)?);
        }
        let [x] = want(ins)?;
        match self {
            TextOp::Matches { .. } => one(Dtype::Bool, x.dims.clone()),
            TextOp::Split { width, .. } => {
                let mut dims = x.dims.clone();
                dims.push((*width).into());
                let pieces = TensorType { dtype: Dtype::Str, dims };
                Ok(vec![pieces, TensorType { dtype: Dtype::I64, dims: x.dims.clone() }])
            }
            _ => one(Dtype::Str, x.dims.clone()),
        }
    }
}

fn infer_contract(
    ins: &[TensorType],
    [la, lb, lo]: [&Vec<u8>; 3],
    eq: &mut Constraints,
) -> Result<Vec<TensorType>, ShapeError> {
    let [a, b] = want(ins)?;
    if la.len() != a.rank() || lb.len() != b.rank() {
        return misfit("labels do not fit the operands' ranks");
    }
    for l in [la, lb, lo] {
        if (1..l.len()).any(|i| l[..i].contains(&l[i])) {
            return misfit("a label repeats within one operand");
        }
    }
    let find = |l: u8| {
        let at = |labels: &[u8], t: &TensorType| {
            labels.iter().position(|&x| x == l).map(|i| t.dims[i].clone())
        };
        (at(la, a), at(lb, b))
    };
    for &l in la {
        if let (Some(x), Some(y)) = find(l) {
            eq.equal(&x, &y)?;
        }
    }
    let dims = lo.iter().map(|&l| match find(l) {
        (Some(x), _) | (None, Some(x)) => Ok(x),
        _ => misfit(format!("output label {l} is in no operand")),
    });
    let dims = dims.collect::<Result<_, _>>()?;
    Ok(vec![TensorType { dtype: accum(a, b)?, dims }])
}
