//! Regions as graphs: branches, loops, scans; sequences and optionals.

use super::cx::{Got, Writer, X, graph, int, ints};
use super::file;
use crate::onnx::proto::{AttributeProto, GraphProto, ValueInfoProto, attr};
use hub_abi::Dtype;
use hub_abi::dim::Dim;
use hub_abi::pgraph::Control;
use hub_abi::shape::Type;
use hub_ir::{Region, Value};

impl Writer {
    /// One control operation: names of its outputs.
    pub fn control(&mut self, c: &Control, ins: &[Value], outs: &[Value]) -> Got<Vec<String>> {
        match c {
            Control::If { then, orelse } => {
                let cond = self.name(ins[0])?;
                let then = self.body(Region(*then), None)?;
                let orelse = self.body(Region(*orelse), None)?;
                let attrs = vec![graph("then_branch", then), graph("else_branch", orelse)];
                Ok(self.raw_n("If", &[&cond], attrs, outs.len()))
            }
            Control::Loop { body, has_trip, has_cond, .. } => {
                let mut given = ins.iter();
                let mut head = |w: &mut Writer, there: bool| match given.next() {
                    Some(&v) if there => w.scalar_of(v).map(|x| x.name),
                    _ => Ok(String::new()),
                };
                let trip = if *has_trip { head(self, true)? } else { String::new() };
                let cond = if *has_cond { head(self, true)? } else { String::new() };
                let mut names = vec![trip, cond];
                for &v in given {
                    names.push(self.name(v)?);
                }
                let body = self.body(Region(*body), Some(1))?;
                let names: Vec<&str> = names.iter().map(|s| &**s).collect();
                Ok(self.raw_n("Loop", &names, vec![graph("body", body)], outs.len()))
            }
            Control::Scan { body, carried, trip, reverse } => {
                self.scan(Region(*body), *carried as usize, trip, *reverse, ins, outs)
            }
            Control::OptNew { elem } => self.optional(elem, ins),
            Control::OptGet => self.simple("OptionalGetElement", ins, vec![]),
            Control::OptHas => self.simple("OptionalHasElement", ins, vec![]),
            _ => self.sequence(c, ins),
        }
    }

    /// A region as a graph. `flag` is where ONNX's bodies have the condition as an input.
    fn body(&mut self, r: Region, flag: Option<usize>) -> Got<GraphProto> {
        let (at, label) = (self.at.clone(), self.label("body"));
        let params = self.g.regions[r].params.clone();
        let mut input = vec![];
        for &p in &params {
            let name = self.scope.names.fresh(&label);
            self.define(p, &name);
            input.push(ValueInfoProto { name, r#type: Some(file::inner_type(self.g.ty(p))) });
        }
        if let Some(i) = flag {
            let name = self.scope.names.fresh(&label);
            input.insert(i, ValueInfoProto { name, r#type: Some(file::bare_type(Dtype::Bool, 0)) });
        }
        let made = self.graph(&label, input, |w| {
            for &p in &params {
                w.bind_axes(p)?;
            }
            w.region(r)?;
            let results = w.g.regions[r].results.clone();
            results.into_iter().map(|v| w.name(v)).collect()
        });
        self.at = at;
        let mut made = made?;
        let results = self.g.regions[r].results.clone();
        for (info, v) in made.output.iter_mut().zip(results) {
            info.r#type = Some(file::inner_type(self.g.ty(v)));
        }
        Ok(made)
    }

    fn scan(
        &mut self,
        body: Region,
        carried: usize,
        trip: &Dim,
        reverse: bool,
        ins: &[Value],
        outs: &[Value],
    ) -> Got<Vec<String>> {
        let scanned = ins.len() - carried;
        if scanned == 0 {
            return self.refuse(format!("a scan of {trip} steps over no tensor"));
        }
        let mut names = vec![];
        for &v in ins {
            names.push(self.name(v)?);
        }
        let made = self.body(body, None)?;
        let mut attrs = vec![graph("body", made), int("num_scan_inputs", scanned as i64)];
        if reverse {
            attrs.push(ints("scan_input_directions", &vec![1; scanned]));
            if outs.len() > carried {
                attrs.push(ints("scan_output_directions", &vec![1; outs.len() - carried]));
            }
        }
        let names: Vec<&str> = names.iter().map(|s| &**s).collect();
        Ok(self.raw_n("Scan", &names, attrs, outs.len()))
    }

    fn simple(&mut self, op: &str, ins: &[Value], attrs: Vec<AttributeProto>) -> Got<Vec<String>> {
        let mut names = vec![];
        for &v in ins {
            names.push(self.name(v)?);
        }
        let names: Vec<&str> = names.iter().map(|s| &**s).collect();
        Ok(vec![self.raw(op, &names, attrs)])
    }

    /// A tensor of one element as a scalar.
    fn scalar_of(&mut self, v: Value) -> Got<X> {
        let (x, dims) = (self.x(v)?, self.dims(v));
        self.reshape(&x, &dims, &[])
    }

    fn optional(&mut self, elem: &Type, ins: &[Value]) -> Got<Vec<String>> {
        if !ins.is_empty() {
            return self.simple("Optional", ins, vec![]);
        }
        let ty = AttributeProto {
            name: "type".into(),
            tp: Some(file::inner_type(elem)),
            r#type: attr::TYPE_PROTO,
            ..AttributeProto::default()
        };
        self.simple("Optional", ins, vec![ty])
    }

    fn sequence(&mut self, c: &Control, ins: &[Value]) -> Got<Vec<String>> {
        match c {
            Control::SeqNew { elem } => {
                let Type::Tensor(t) = elem else {
                    return self.refuse("a sequence of sequences has no ONNX form");
                };
                if ins.is_empty() {
                    let dtype = int("dtype", t.dtype as i64);
                    return self.simple("SequenceEmpty", &[], vec![dtype]);
                }
                self.simple("SequenceConstruct", ins, vec![])
            }
            Control::SeqInsert => self.at_index("SequenceInsert", ins, 2),
            Control::SeqErase => self.at_index("SequenceErase", ins, 1),
            Control::SeqAt => self.at_index("SequenceAt", ins, 1),
            Control::SeqLen => self.simple("SequenceLength", ins, vec![]),
            Control::SeqSet => self.replaced(ins),
            Control::SeqConcat { axis, stack } => {
                let attrs = vec![int("axis", *axis), int("new_axis", (*stack).into())];
                let y = self.simple("ConcatFromSequence", ins, attrs)?.remove(0);
                let sizes = self.sizes_along(ins[0], *axis, *stack)?;
                Ok(vec![y, sizes])
            }
            Control::SeqSplit { axis, keep } => {
                let attrs = vec![int("axis", *axis), int("keepdims", (*keep).into())];
                self.simple("SplitToSequence", ins, attrs)
            }
            c => self.refuse(format!("{c:?} has no ONNX form")),
        }
    }

    /// An operator whose operand `i`, if there, is an index.
    fn at_index(&mut self, op: &str, ins: &[Value], i: usize) -> Got<Vec<String>> {
        let mut names = vec![];
        for (k, &v) in ins.iter().enumerate() {
            names.push(if k == i { self.scalar_of(v)?.name } else { self.name(v)? });
        }
        let names: Vec<&str> = names.iter().map(|s| &**s).collect();
        Ok(vec![self.raw(op, &names, vec![])])
    }

    /// A copy with one element replaced, or appended where the index is the length.
    fn replaced(&mut self, ins: &[Value]) -> Got<Vec<String>> {
        let (seq, x, at) = (self.name(ins[0])?, self.name(ins[1])?, self.scalar_of(ins[2])?);
        let at = self.cast(&at, Dtype::I64);
        let len = X { name: self.raw("SequenceLength", &[&seq], vec![]), ty: Dtype::I64 };
        let inside = self.op("Less", &[&at, &len])?;
        let label = self.label("body");
        let replace = self.graph(&label, vec![], |w| {
            let rest = w.raw("SequenceErase", &[&seq, &at.name], vec![]);
            Ok(vec![w.raw("SequenceInsert", &[&rest, &x, &at.name], vec![])])
        })?;
        let append =
            self.graph(&label, vec![], |w| Ok(vec![w.raw("SequenceInsert", &[&seq, &x], vec![])]))?;
        let attrs = vec![graph("then_branch", replace), graph("else_branch", append)];
        Ok(vec![self.raw("If", &[&inside.name], attrs)])
    }

    /// Each element's size along an axis, as int32.
    fn sizes_along(&mut self, seq: Value, axis: i64, stack: bool) -> Got<String> {
        let seq = self.name(seq)?;
        let count = self.raw("SequenceLength", &[&seq], vec![]);
        if stack {
            let axes = self.ints(&[0]);
            let shape = self.raw("Unsqueeze", &[&count, &axes], vec![]);
            let one = self.scalar(Dtype::I32, 1.0);
            return Ok(self.raw("Expand", &[&one.name, &shape], vec![]));
        }
        let label = self.label("body");
        let (i, on) = (self.scope.names.fresh(&label), self.scope.names.fresh(&label));
        let info = |name: &str, ty| ValueInfoProto {
            name: name.into(),
            r#type: Some(file::bare_type(ty, 0)),
        };
        let input = vec![info(&i, Dtype::I64), info(&on, Dtype::Bool)];
        let body = self.graph(&label, input, |w| {
            let x = w.raw("SequenceAt", &[&seq, &i], vec![]);
            let shape = w.raw("Shape", &[&x], vec![]);
            let at = w.constant(Dtype::I64, &[], axis.to_le_bytes().to_vec());
            let size = X { name: w.raw("Gather", &[&shape, &at], vec![]), ty: Dtype::I64 };
            Ok(vec![on, w.cast(&size, Dtype::I32).name])
        })?;
        Ok(self.raw("Loop", &[&count, ""], vec![graph("body", body)]))
    }
}
