//! Convolutions and windows, as primitives and as operators. ONNX's pads are numbers and not
//! negative: what is more goes into a node before.

use super::cx::{Got, Writer, X, int, ints};
use hub_abi::prim::{BinaryOp, Geometry, PadMode, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::conv::{Conv, ConvTranspose};
use hub_ir::ops::pool::{AdaptivePool, AvgPool, LpPool, MaxPool, PoolCount, PoolIndices};

/// Pads as numbers: all before, then all after.
type Pads = Vec<i64>;

/// The pads as numbers within `0..below` of each axis.
fn plain_pads(geo: &Geometry, below: Option<&[i64]>) -> Option<Pads> {
    let n = geo.before.len();
    let one = |(i, d): (usize, &Dim)| {
        let most = below.map_or(i64::MAX, |b| b[i % n]);
        d.as_const().filter(|&k| k >= 0 && k < most)
    };
    geo.before.iter().chain(&geo.after).enumerate().map(one).collect()
}

fn attributes(geo: &Geometry, pads: &[i64]) -> Vec<crate::onnx::proto::AttributeProto> {
    let mut attrs = vec![ints("strides", &geo.stride)];
    if geo.dilation.iter().any(|&d| d != 1) {
        attrs.push(ints("dilations", &geo.dilation));
    }
    if pads.iter().any(|&p| p != 0) {
        attrs.push(ints("pads", pads));
    }
    attrs
}

impl Writer {
    /// x and the pads that remain for the operator itself.
    fn padded(
        &mut self,
        x: &X,
        geo: &Geometry,
        below: Option<&[i64]>,
        fill: f64,
    ) -> Got<(X, Pads)> {
        if let Some(pads) = plain_pads(geo, below) {
            return Ok((x.clone(), pads));
        }
        let fill = self.scalar(x.ty, fill);
        let x = self.pad_spatial(x, &geo.before, &geo.after, &fill)?;
        Ok((x, vec![0; geo.before.len() * 2]))
    }

    fn pad_spatial(&mut self, x: &X, before: &[Dim], after: &[Dim], fill: &X) -> Got<X> {
        let whole = |p: &[Dim]| [&[0i64.into(), 0i64.into()], p].concat();
        self.pad(x, fill, [&whole(before), &whole(after)], PadMode::Constant)
    }

    /// The spatial primitives.
    pub fn spatial(&mut self, p: &Prim, xs: &[X], ins: &[Value]) -> Got<X> {
        match p {
            Prim::Conv { geo, groups } => self.conv(geo, *groups, xs, ins),
            Prim::ConvTranspose { geo, groups } => self.conv_transpose(geo, *groups, xs, ins),
            Prim::Window { op: ReduceOp::Max, kernel, geo } => {
                Ok(self.max_pool(&xs[0], kernel, geo, None)?.remove(0))
            }
            Prim::Window { op: ReduceOp::Sum, kernel, geo } => {
                let ty = self.compute_type("AveragePool", xs[0].ty)?;
                let x = self.cast(&xs[0], ty);
                let mean = self.avg_pool(&x, kernel, geo, true)?;
                let size = self.scalar(ty, kernel.iter().map(|&k| k as f64).product());
                let mut y = self.op("Mul", &[&mean, &size])?;
                if !xs[0].ty.is_float() {
                    y = self.op("Round", &[&y])?;
                }
                Ok(self.cast(&y, xs[0].ty))
            }
            Prim::WindowArgMax { kernel, geo, column_major } => {
                let order = i64::from(*column_major);
                let mut outs = self.max_pool(&xs[0], kernel, geo, Some(order))?;
                Ok(outs.remove(1))
            }
            _ => self.refuse(format!("{} has no ONNX form", hub_ir::build::prim_name(p))),
        }
    }

    fn conv(&mut self, geo: &Geometry, groups: i64, xs: &[X], ins: &[Value]) -> Got<X> {
        if geo.stride.is_empty() {
            return self.refuse("a convolution without spatial axes has no ONNX form");
        }
        let (x, pads) = self.padded(&xs[0], geo, None, 0.0)?;
        let mut attrs = attributes(geo, &pads);
        attrs.push(int("group", groups));
        let kernel: Option<Vec<i64>> = self.dims(ins[1])[2..].iter().map(Dim::as_const).collect();
        attrs.extend(kernel.map(|k| ints("kernel_shape", &k)));
        if matches!((x.ty, xs[1].ty), (Dtype::I8 | Dtype::U8, Dtype::I8 | Dtype::U8)) {
            return self.conv_integer([&x, &xs[1]], [None, None], attrs);
        }
        if x.ty == Dtype::I32 && plain_pads(geo, None).is_some() {
            let (x, w) = (self.less_zero(ins[0])?, self.less_zero(ins[1])?);
            if let (Some((x, zx)), Some((w, zw))) = (x, w) {
                return self.conv_integer([&x, &w], [zx, zw], attrs);
            }
        }
        let bias = xs.get(2).filter(|b| !b.name.is_empty());
        let operands: Vec<&X> = [&x, &xs[1]].into_iter().chain(bias).collect();
        self.op_with("Conv", &operands, &[], attrs)
    }

    /// For i32 that is 8-bit integers, perhaps less a zero point: these and the zero point, which is
    /// one number or one a filter.
    fn less_zero(&mut self, v: Value) -> Got<Option<(X, Option<X>)>> {
        let source = |g: &hub_ir::Graph, v: Value| -> Option<Value> {
            let (n, p) = g.as_prim(v)?;
            let from = *g.nodes[n].inputs.first()?;
            let narrow = matches!(g.dtype(from), Dtype::I8 | Dtype::U8);
            (matches!(p, Prim::Cast { .. }) && narrow).then_some(from)
        };
        if let Some(from) = source(&self.g, v) {
            return Ok(Some((self.x(from)?, None)));
        }
        let ins = match self.g.as_prim(v) {
            Some((n, Prim::Binary(BinaryOp::Sub))) => self.g.nodes[n].inputs.clone(),
            _ => return Ok(None),
        };
        let dims = self.dims(ins[1]);
        let filters = dims.len() > 1 && dims[1..].iter().all(|d| d.is(1));
        let own = source(&self.g, ins[0]).filter(|_| {
            let narrowed = |z: Value| -> bool {
                let z = match self.g.as_prim(z) {
                    Some((n, Prim::Reshape { .. })) => self.g.nodes[n].inputs[0],
                    _ => z,
                };
                source(&self.g, z).is_some()
            };
            (filters || Dim::product(&dims).is(1)) && narrowed(ins[1])
        });
        let Some(own) = own else { return Ok(None) };
        let (own, zero) = (self.x(own)?, self.x(ins[1])?);
        let to = if Dim::product(&dims).is(1) { vec![] } else { dims[..1].to_vec() };
        let zero = self.reshape(&zero, &dims, &to)?;
        Ok(Some((own, Some(zero))))
    }

    /// 8-bit x and w, and the i32 zero points that are taken off. Engines take unsigned x: a signed
    /// one and its zero point are moved by 128.
    fn conv_integer(
        &mut self,
        [x, w]: [&X; 2],
        [zx, zw]: [Option<X>; 2],
        attrs: Vec<crate::onnx::proto::AttributeProto>,
    ) -> Got<X> {
        let (mut x, mut zx) = (x.clone(), zx);
        if x.ty == Dtype::I8 {
            let by = self.scalar(Dtype::I32, 128.0);
            let wide = self.cast(&x, Dtype::I32);
            let moved = self.op("Add", &[&wide, &by])?;
            x = self.cast(&moved, Dtype::U8);
            zx = Some(match zx {
                Some(z) => self.op("Add", &[&z, &by])?,
                None => by,
            });
        }
        let name = |w: &mut Writer, z: Option<X>, ty: Dtype| {
            z.map_or(String::new(), |z| w.cast(&z, ty).name)
        };
        let (zx, zw) = (name(self, zx, Dtype::U8), name(self, zw, w.ty));
        let y = self.raw("ConvInteger", &[&x.name, &w.name, &zx, &zw], attrs);
        Ok(X { name: y, ty: Dtype::I32 })
    }

    fn conv_transpose(&mut self, geo: &Geometry, groups: i64, xs: &[X], ins: &[Value]) -> Got<X> {
        let bias = xs.get(2).filter(|b| !b.name.is_empty());
        let attrs_of = |pads: &[i64]| {
            let mut attrs = attributes(geo, pads);
            attrs.push(int("group", groups));
            attrs
        };
        if let Some(pads) = plain_pads(geo, None) {
            let operands: Vec<&X> = [&xs[0], &xs[1]].into_iter().chain(bias).collect();
            return self.op_with("ConvTranspose", &operands, &[], attrs_of(&pads));
        }
        // Crops that are unknown, or negative (ONNX's output_padding), are a node of their own; the
        // bias reaches what they add.
        let none = vec![0; geo.before.len() * 2];
        let y = self.op_with("ConvTranspose", &[&xs[0], &xs[1]], &[], attrs_of(&none))?;
        let turn = |p: &[Dim]| p.iter().map(|d| d.times(-1)).collect::<Vec<_>>();
        let zero = self.scalar(y.ty, 0.0);
        let y = self.pad_spatial(&y, &turn(&geo.before), &turn(&geo.after), &zero)?;
        let Some(bias) = bias else { return Ok(y) };
        let rank = self.dims(ins[0]).len();
        let mut shape = vec![1; rank];
        shape[1] = -1;
        let shape = self.ints(&shape);
        let bias = self.op_with("Reshape", &[bias], &[&shape], vec![])?;
        self.op("Add", &[&y, &bias])
    }

    /// Maxima, and their indices where an order of storage is given.
    fn max_pool(
        &mut self,
        x: &X,
        kernel: &[i64],
        geo: &Geometry,
        order: Option<i64>,
    ) -> Got<Vec<X>> {
        if order.is_some() && plain_pads(geo, Some(kernel)).is_none() {
            return self.refuse("indices of windows with pads this wide have no ONNX form");
        }
        let ty = self.compute_type("MaxPool", x.ty)?;
        let wide = self.cast(x, ty);
        let lowest = if ty.is_float() { f64::NEG_INFINITY } else { -1e20 };
        let (wide, pads) = self.padded(&wide, geo, Some(kernel), lowest)?;
        let mut attrs = attributes(geo, &pads);
        attrs.push(ints("kernel_shape", kernel));
        attrs.extend(order.filter(|&o| o != 0).map(|o| int("storage_order", o)));
        let count = 1 + usize::from(order.is_some());
        let names = self.raw_n("MaxPool", &[&wide.name], attrs, count);
        let mut outs = vec![self.cast(&X { name: names[0].clone(), ty }, x.ty)];
        outs.extend(names.get(1).map(|n| X { name: n.clone(), ty: Dtype::I64 }));
        Ok(outs)
    }

    /// Means of windows: of all elements, or of those that are no padding.
    fn avg_pool(&mut self, x: &X, kernel: &[i64], geo: &Geometry, padding: bool) -> Got<X> {
        let (x, pads) = self.padded(x, geo, Some(kernel), 0.0)?;
        let mut attrs = attributes(geo, &pads);
        attrs.push(ints("kernel_shape", kernel));
        if padding && pads.iter().any(|&p| p != 0) {
            attrs.push(int("count_include_pad", 1));
        }
        self.op_with("AveragePool", &[&x], &[], attrs)
    }
}

/// Convolution with bias.
pub(super) fn conv(w: &mut Writer, op: &Conv, ins: &[Value]) -> Got<Option<Vec<String>>> {
    let xs = operands(w, ins)?;
    // Integers have a convolution of their own, without bias.
    if !xs[0].ty.is_float() {
        return Ok(None);
    }
    w.conv(&op.geo, op.groups, &xs, ins).map(|y| Some(vec![y.name]))
}

/// Transposed convolution with bias.
pub(super) fn conv_transpose(
    w: &mut Writer,
    op: &ConvTranspose,
    ins: &[Value],
) -> Got<Option<Vec<String>>> {
    let xs = operands(w, ins)?;
    w.conv_transpose(&op.geo, op.groups, &xs, ins).map(|y| Some(vec![y.name]))
}

/// Operands, those left out with the empty name.
fn operands(w: &mut Writer, ins: &[Value]) -> Got<Vec<X>> {
    let none = || X { name: String::new(), ty: Dtype::F32 };
    ins.iter().map(|v| Ok(w.opt(Some(v))?.unwrap_or_else(none))).collect()
}

/// Greatest of windows.
pub(super) fn max_pool(w: &mut Writer, op: &MaxPool, ins: &[Value]) -> Got<Option<Vec<String>>> {
    let order = match op.indices {
        None => None,
        Some(PoolIndices::Tensor) => Some(0),
        Some(PoolIndices::TensorColumnMajor) => Some(1),
        Some(PoolIndices::Plane) => return Ok(None),
    };
    let x = w.x(ins[0])?;
    let outs = w.max_pool(&x, &op.kernel, &op.geo, order)?;
    Ok(Some(outs.into_iter().map(|x| x.name).collect()))
}

/// Mean of windows.
pub(super) fn avg_pool(w: &mut Writer, op: &AvgPool, ins: &[Value]) -> Got<Option<Vec<String>>> {
    let pads = op.geo.before.iter().chain(&op.geo.after);
    let unpadded = pads.clone().all(|p| p.is(0));
    let whole = match &op.count {
        PoolCount::Window => true,
        PoolCount::Padded(after) => *after == op.geo.after,
        PoolCount::Valid => unpadded,
    };
    // What is not counted must be ONNX's own padding.
    let counts = op.count == PoolCount::Valid && plain_pads(&op.geo, Some(&op.kernel)).is_some();
    if !whole && !counts {
        return Ok(None);
    }
    let x = w.x(ins[0])?;
    Ok(Some(vec![w.avg_pool(&x, &op.kernel, &op.geo, whole)?.name]))
}

/// Norm of windows.
pub(super) fn lp_pool(w: &mut Writer, op: &LpPool, ins: &[Value]) -> Got<Option<Vec<String>>> {
    let x = w.x(ins[0])?;
    let (x, pads) = w.padded(&x, &op.geo, Some(&op.kernel), 0.0)?;
    let mut attrs = attributes(&op.geo, &pads);
    attrs.extend([ints("kernel_shape", &op.kernel), int("p", op.p)]);
    Ok(Some(vec![w.op_with("LpPool", &[&x], &[], attrs)?.name]))
}

/// Pooling into bins: one bin has a name in ONNX.
pub(super) fn adaptive_pool(
    w: &mut Writer,
    op: &AdaptivePool,
    ins: &[Value],
) -> Got<Option<Vec<String>>> {
    if op.out.is_empty() || op.out.iter().any(|o| *o != Some(1)) {
        return Ok(None);
    }
    let x = w.x(ins[0])?;
    let name = if op.max { "GlobalMaxPool" } else { "GlobalAveragePool" };
    Ok(Some(vec![w.op(name, &[&x])?.name]))
}
