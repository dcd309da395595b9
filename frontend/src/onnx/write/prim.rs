//! Primitives in ONNX: elementwise, reductions, indexing, sorting.

use super::cx::{Got, SymAt, Writer, X, graph, int, ints, string};
use super::table;
use crate::onnx::proto::ValueInfoProto;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, ScatterOp, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

impl Writer {
    /// One primitive: names of its outputs.
    pub fn prim(&mut self, p: &Prim, ins: &[Value], outs: &[Value]) -> Got<Vec<String>> {
        let dims = ins.first().map_or(vec![], |&v| self.dims(v));
        let xs = ins.iter().map(|&v| self.x(v)).collect::<Got<Vec<X>>>()?;
        let y = match p {
            Prim::Unary(op) => self.unary(*op, &xs[0])?,
            Prim::Binary(op) => self.binary(*op, &xs[0], &xs[1])?,
            Prim::Select => self.select(&xs[0], &xs[1], &xs[2])?,
            Prim::Cast { to, saturate } => {
                let mut attrs = vec![int("to", *to as i64)];
                if !saturate {
                    attrs.push(int("saturate", 0));
                }
                X { name: self.raw("Cast", &[&xs[0].name], attrs), ty: *to }
            }
            Prim::BindSyms { syms } => {
                let flat = self.ints(&[-1]);
                let x = self.cast(&xs[0], Dtype::I64);
                let flat = self.raw("Reshape", &[&x.name, &flat], vec![]);
                for (i, s) in syms.iter().enumerate() {
                    self.bind(*s, SymAt::Element(flat.clone(), i));
                }
                return Ok(vec![]);
            }
            Prim::Reduce { op, axes, keep } => self.reduce(*op, &xs[0], axes, *keep)?,
            Prim::ArgReduce { max, axis, keep, last } => {
                let op = if *max { "ArgMax" } else { "ArgMin" };
                let mut attrs = vec![int("axis", (*axis).into()), int("keepdims", (*keep).into())];
                if *last {
                    attrs.push(int("select_last_index", 1));
                }
                self.op_with(op, &[&xs[0]], &[], attrs)?
            }
            Prim::Cumulative { op, axis, exclusive, reverse } => {
                self.cumulative(*op, &xs[0], &dims, *axis as usize, [*exclusive, *reverse])?
            }
            Prim::Gather { axis } => self.indexed("Gather", &xs, Some(*axis), None)?,
            Prim::GatherElements { axis } => {
                self.indexed("GatherElements", &xs, Some(*axis), None)?
            }
            Prim::GatherNd { batch } => {
                let ix = self.cast(&xs[1], Dtype::I64);
                let attrs = vec![int("batch_dims", (*batch).into())];
                self.op_with("GatherND", &[&xs[0]], &[&ix.name], attrs)?
            }
            Prim::ScatterElements { axis, op } => {
                self.indexed("ScatterElements", &xs, Some(*axis), Some(*op))?
            }
            Prim::ScatterNd { op } => self.indexed("ScatterND", &xs, None, Some(*op))?,
            Prim::Contract { a, b, out } => self.contract(&xs[0], &xs[1], [a, b, out])?,
            Prim::Conv { .. }
            | Prim::ConvTranspose { .. }
            | Prim::Window { .. }
            | Prim::WindowArgMax { .. } => self.spatial(p, &xs, ins)?,
            Prim::TopK { k, axis, largest, sorted } => {
                return self.top_k(&xs[0], k, (*axis).into(), [*largest, *sorted]);
            }
            Prim::Find => {
                let keys = self.dims(ins[1]);
                self.find(&xs[0], &xs[1], [&dims, &keys])?
            }
            Prim::Text(op) => return self.text(op, &xs, &dims),
            Prim::DecodeImage { pixel, height, width } => {
                self.image(&xs[0], *pixel, [*height, *width])
            }
            Prim::NonZero { count } => {
                let y = self.op("NonZero", &[&xs[0]])?;
                self.bind(*count, SymAt::Axis(y.name.clone(), 1));
                y
            }
            _ => self.movement(p, &xs, &dims)?,
        };
        debug_assert_eq!(outs.len(), 1);
        Ok(vec![y.name])
    }

    /// In f32 where the type is a narrower float: formulas of several nodes round once.
    fn widened(&mut self, x: &X) -> X {
        if x.ty.is_small_float() { self.cast(x, Dtype::F32) } else { x.clone() }
    }

    pub fn unary(&mut self, op: UnaryOp, x: &X) -> Got<X> {
        use UnaryOp::*;
        if !x.ty.is_float() {
            match op {
                Floor | Ceil | Round | Trunc => return Ok(x.clone()),
                IsNan | IsInf => {
                    let same = self.op("Equal", &[x, x])?;
                    return self.op("Not", &[&same]);
                }
                _ => {}
            }
        }
        if let Some(name) = table::unary(op) {
            return self.op(name, &[x]);
        }
        let (ty, x) = (x.ty, self.widened(x));
        let y = match op {
            Rsqrt => {
                let s = self.op("Sqrt", &[&x])?;
                self.op("Reciprocal", &[&s])?
            }
            Trunc => {
                let (down, up) = (self.op("Floor", &[&x])?, self.op("Ceil", &[&x])?);
                let zero = self.scalar(x.ty, 0.0);
                let below = self.op("Less", &[&x, &zero])?;
                self.select(&below, &up, &down)?
            }
            // tanh(x/2) * (exp(x) + 1), which keeps small results' digits.
            Expm1 => {
                let (half, one) = (self.scalar(x.ty, 0.5), self.scalar(x.ty, 1.0));
                let h = self.op("Mul", &[&x, &half])?;
                let t = self.op("Tanh", &[&h])?;
                let e = self.op("Exp", &[&x])?;
                let e = self.op("Add", &[&e, &one])?;
                self.op("Mul", &[&t, &e])?
            }
            // log(u) x / (u - 1) with u = 1 + x as it was rounded: its error cancels. (Kahan's.)
            Log1p => {
                let one = self.scalar(x.ty, 1.0);
                let u = self.op("Add", &[&x, &one])?;
                let step = self.op("Sub", &[&u, &one])?;
                let log = self.op("Log", &[&u])?;
                let far = self.op("Div", &[&x, &step])?;
                let far = self.op("Mul", &[&log, &far])?;
                let none = self.op("Equal", &[&u, &one])?;
                let infinite = self.op("Equal", &[&u, &x])?;
                let far = self.select(&infinite, &log, &far)?;
                self.select(&none, &x, &far)?
            }
            _ => return self.refuse(format!("{op:?} has no ONNX form")),
        };
        Ok(self.cast(&y, ty))
    }

    pub fn binary(&mut self, op: BinaryOp, a: &X, b: &X) -> Got<X> {
        use BinaryOp::*;
        if let Some(name) = table::binary(op) {
            let name = match (name, a.ty) {
                ("Max", Dtype::Bool) => "Or",
                ("Min", Dtype::Bool) => "And",
                _ => name,
            };
            return self.op(name, &[a, b]);
        }
        match op {
            Ne => {
                let same = self.op("Equal", &[a, b])?;
                self.op("Not", &[&same])
            }
            Rem => self.op_with("Mod", &[a, b], &[], vec![int("fmod", 1)]),
            Mod if !a.ty.is_float() => self.op("Mod", &[a, b]),
            Mod => self.float_mod(a, b),
            Shl | Shr => self.shift(op == Shl, a, b),
            Atan2 => self.atan2(a, b),
            _ => self.refuse(format!("{op:?} has no ONNX form")),
        }
    }

    pub fn select(&mut self, cond: &X, a: &X, b: &X) -> Got<X> {
        let ty = self.compute_type("Where", a.ty)?;
        let (p, q) = (self.cast(a, ty), self.cast(b, ty));
        let y = X { name: self.raw("Where", &[&cond.name, &p.name, &q.name], vec![]), ty };
        Ok(self.cast(&y, a.ty))
    }

    /// Remainder with the divisor's sign, from the one with the dividend's.
    fn float_mod(&mut self, a: &X, b: &X) -> Got<X> {
        let ty = a.ty;
        let (a, b) = (self.widened(a), self.widened(b));
        let r = self.op_with("Mod", &[&a, &b], &[], vec![int("fmod", 1)])?;
        let zero = self.scalar(a.ty, 0.0);
        let (low, negative) = (self.op("Less", &[&r, &zero])?, self.op("Less", &[&b, &zero])?);
        let off = self.op("Xor", &[&low, &negative])?;
        let none = self.op("Equal", &[&r, &zero])?;
        let some = self.op("Not", &[&none])?;
        let off = self.op("And", &[&off, &some])?;
        let sum = self.op("Add", &[&r, &b])?;
        let y = self.select(&off, &sum, &r)?;
        Ok(self.cast(&y, ty))
    }

    /// Shifts; ONNX has those of unsigned integers by less than their width.
    fn shift(&mut self, left: bool, a: &X, b: &X) -> Got<X> {
        use Dtype::*;
        let unsigned = match a.ty {
            I8 | U8 | U4 | I4 | U2 | I2 => U8,
            I16 | U16 => U16,
            I32 | U32 => U32,
            I64 | U64 => U64,
            t => return self.refuse(format!("a shift of {t} has no ONNX form")),
        };
        let way = string("direction", if left { "LEFT" } else { "RIGHT" });
        let by = self.cast(b, unsigned);
        let bits = self.scalar(unsigned, (unsigned.size() * 8) as f64);
        let (zero, one) = (self.scalar(unsigned, 0.0), self.scalar(unsigned, 1.0));
        let fits = self.op("Less", &[&by, &bits])?;
        let by = {
            let most = self.op("Sub", &[&bits, &one])?;
            self.select(&fits, &by, &most)?
        };
        let plain = |w: &mut Writer, x: &X| -> Got<X> {
            let x = w.cast(x, unsigned);
            let y = w.op_with("BitShift", &[&x, &by], &[], vec![way.clone()])?;
            w.select(&fits, &y, &zero)
        };
        let y = plain(self, a)?;
        let y = self.cast(&y, a.ty);
        if left || !a.ty.is_signed_int() {
            return Ok(y);
        }
        // Of a negative number: the complement of its complement, shifted.
        let flipped = self.op("BitwiseNot", &[a])?;
        let shifted = plain(self, &flipped)?;
        let shifted = self.cast(&shifted, a.ty);
        let negative = self.op("BitwiseNot", &[&shifted])?;
        let zero = self.scalar(a.ty, 0.0);
        let below = self.op("Less", &[a, &zero])?;
        self.select(&below, &negative, &y)
    }

    /// The angle of (x, y), by quadrants.
    fn atan2(&mut self, y: &X, x: &X) -> Got<X> {
        let ty = y.ty;
        let (y, x) = (self.widened(y), self.widened(x));
        let pi = std::f64::consts::PI;
        let [zero, half, full] = [0.0, pi / 2.0, pi].map(|k| self.scalar(x.ty, k));
        let q = self.op("Div", &[&y, &x])?;
        let base = self.op("Atan", &[&q])?;
        // 1/y tells -0 from 0.
        let inverse = self.op("Reciprocal", &[&y])?;
        let (under, back) = (self.op("Less", &[&y, &zero])?, self.op("Less", &[&inverse, &zero])?);
        let below = self.op("Or", &[&under, &back])?;
        let left = self.op("Less", &[&x, &zero])?;
        let (minus, plus) = (self.op("Sub", &[&base, &full])?, self.op("Add", &[&base, &full])?);
        let turned = self.select(&below, &minus, &plus)?;
        let angle = self.select(&left, &turned, &base)?;
        let sign = self.op("Sign", &[&y])?;
        let upright = self.op("Mul", &[&sign, &half])?;
        let on_axis = self.op("Equal", &[&x, &zero])?;
        let angle = self.select(&on_axis, &upright, &angle)?;
        Ok(self.cast(&angle, ty))
    }

    pub fn reduce(&mut self, op: ReduceOp, x: &X, axes: &[u32], keep: bool) -> Got<X> {
        if axes.is_empty() {
            return Ok(x.clone());
        }
        let axes: Vec<i64> = axes.iter().map(|&a| a.into()).collect();
        let axes = self.ints(&axes);
        self.op_with(table::reduce(op), &[x], &[&axes], vec![int("keepdims", keep.into())])
    }

    /// ONNX has running sums; others are a scan.
    fn cumulative(
        &mut self,
        op: ReduceOp,
        x: &X,
        dims: &[Dim],
        axis: usize,
        [exclusive, reverse]: [bool; 2],
    ) -> Got<X> {
        if op == ReduceOp::Sum {
            let at = self.constant(Dtype::I64, &[], (axis as i64).to_le_bytes().to_vec());
            let attrs = vec![int("exclusive", exclusive.into()), int("reverse", reverse.into())];
            return self.op_with("CumSum", &[x], &[&at], attrs);
        }
        let (name, start) = match op {
            ReduceOp::Prod => (BinaryOp::Mul, 1.0),
            ReduceOp::Max => (BinaryOp::Max, lowest(x.ty, -1.0)),
            ReduceOp::Min => (BinaryOp::Min, lowest(x.ty, 1.0)),
            _ => return self.refuse(format!("a running {op:?} has no ONNX form")),
        };
        let rest = [&dims[..axis], &dims[axis + 1..]].concat();
        let start = self.scalar(x.ty, start);
        let start = self.expand(&start, &[], &rest)?;
        let (before, now) = (self.scope.names.fresh("before"), self.scope.names.fresh("now"));
        let info = |name: &str| ValueInfoProto {
            name: name.into(),
            r#type: Some(super::file::bare_type(x.ty, rest.len())),
        };
        let input = vec![info(&before), info(&now)];
        let body = self.graph("running", input, |w| {
            let [a, b] = [before, now].map(|name| X { name, ty: x.ty });
            let sum = w.binary(name, &a, &b)?;
            let y = if exclusive { a.name } else { sum.name.clone() };
            Ok(vec![sum.name, y])
        })?;
        let way: i64 = reverse.into();
        let axis = axis as i64;
        let attrs = vec![
            graph("body", body),
            int("num_scan_inputs", 1),
            ints("scan_input_axes", &[axis]),
            ints("scan_output_axes", &[axis]),
            ints("scan_input_directions", &[way]),
            ints("scan_output_directions", &[way]),
        ];
        let outs = self.raw_n("Scan", &[&start.name, &x.name], attrs, 2);
        Ok(X { name: outs[1].clone(), ty: x.ty })
    }

    /// `(data, indices[, updates])`.
    fn indexed(
        &mut self,
        op: &str,
        xs: &[X],
        axis: Option<u32>,
        with: Option<ScatterOp>,
    ) -> Got<X> {
        let mut attrs: Vec<_> = axis.map(|a| int("axis", a.into())).into_iter().collect();
        // Combining is arithmetic; Set takes any type.
        let combine = match with {
            None | Some(ScatterOp::Set) => op,
            Some(ScatterOp::Add | ScatterOp::Mul) => "Add",
            Some(ScatterOp::Max | ScatterOp::Min) => "Max",
        };
        if let Some(with) = with.filter(|w| *w != ScatterOp::Set) {
            attrs.push(string("reduction", &format!("{with:?}").to_lowercase()));
        }
        let ix = match op {
            "ScatterND" => self.cast(&xs[1], Dtype::I64),
            _ => xs[1].clone(),
        };
        let ty = self.compute_type(combine, xs[0].ty)?;
        let data = self.cast(&xs[0], ty);
        let mut ins = vec![data.name.clone(), ix.name];
        for u in &xs[2..] {
            ins.push(self.cast(u, ty).name);
        }
        let ins: Vec<&str> = ins.iter().map(|s| &**s).collect();
        let y = X { name: self.raw(op, &ins, attrs), ty };
        Ok(self.cast(&y, xs[0].ty))
    }

    fn top_k(
        &mut self,
        x: &X,
        k: &Dim,
        axis: i64,
        [largest, sorted]: [bool; 2],
    ) -> Got<Vec<String>> {
        let within = self.compute_type("TopK", x.ty)?;
        let wide = self.cast(x, within);
        let k = self.dim(k)?;
        let attrs = |largest: bool| vec![int("axis", axis), int("largest", largest.into())];
        let outs = self.raw_n("TopK", &[&wide.name, &k], attrs(largest), 2);
        let mut values = X { name: outs[0].clone(), ty: within };
        let mut at = outs[1].clone();
        if !sorted {
            // In order of index.
            at = self.raw_n("TopK", &[&at, &k], attrs(false), 2)[0].clone();
            values = self.op_with("GatherElements", &[&wide], &[&at], vec![int("axis", axis)])?;
        }
        Ok(vec![self.cast(&values, x.ty).name, at])
    }
}

/// What a running extreme starts from.
fn lowest(ty: Dtype, sign: f64) -> f64 {
    match ty {
        t if t.is_float() => sign * f64::INFINITY,
        // Past every integer: constants saturate.
        _ => sign * 1e20,
    }
}
