//! Tensor arrays: sequences, replaced as a whole by each write.

use super::ctx::Res;
use super::import::Import;
use super::program::{Attr, Dialect, OpDesc, Var, VarType};
use crate::FrontendError;
use crate::options::DIM_MAX;
use hub_ir::{Builder, Control, Dim, Dtype, Type, Value};

impl Import<'_, '_> {
    fn out(&self, op: &OpDesc, at: usize) -> Option<Var> {
        op.outs.get(at).and_then(|(_, v)| v.first()).copied()
    }

    /// Imports an operator on arrays.
    pub fn array(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let out = self.out(op, 0);
        let legacy = self.program.dialect == Dialect::Legacy;
        match op.kind.as_str() {
            "create_array" => {
                if let Some(var) = out {
                    self.empty_array(b, var)?;
                }
            }
            "array_length" | "lod_array_length" => {
                let seq = self.array_operand(b, op)?;
                let n = b.control(Control::SeqLen, &[seq], vec![Type::tensor(Dtype::I64, vec![])]);
                let n = b.reshape(n[0], vec![1i64.into()])?;
                self.set_outs(op, |_| Some(vec![n]));
            }
            "array_write_" | "write_to_array" => {
                let x = self.operand(op, 1, "X")?;
                let at = self.operand(op, 2, "I")?;
                let at = index(b, at)?;
                let target = if legacy {
                    out.ok_or_else(|| FrontendError::invalid("no array is written"))?
                } else {
                    op.ins.first().and_then(|(_, v)| v.first()).copied().unwrap_or(0)
                };
                if self.current(target).is_none() {
                    self.empty_array(b, target)?;
                }
                let seq = self.one(target)?;
                let ty = seq_type(b, seq)?;
                let elem = b.g.ty(x).clone();
                let ty = join_elem(&ty, &elem)?;
                let new = b.control(Control::SeqSet, &[seq, x, at], vec![ty]);
                self.set(target, new);
            }
            "array_read" | "read_from_array" => {
                let seq = self.array_operand(b, op)?;
                let at = self.operand(op, 1, "I")?;
                let at = index(b, at)?;
                let elem = seq_type(b, seq)?;
                let ty = self.element_type(b, &elem, out)?;
                let x = b.control(Control::SeqAt, &[seq, at], vec![ty]);
                self.set_outs(op, |_| Some(x.clone()));
            }
            _ => self.array_to_tensor(b, op)?,
        }
        Ok(())
    }

    fn array_to_tensor(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let seq = self.array_operand(b, op)?;
        let stack = matches!(op.attrs.get("use_stack"), Some(Attr::Bool(true)));
        let axis = super::import::int_attr(op, "axis").unwrap_or(0);
        let elem = seq_type(b, seq)?;
        let elem = self.element_type(b, &elem, None)?;
        let Type::Tensor(mut t) = elem else {
            return Err(FrontendError::unsupported("an array of arrays"));
        };
        let rank = t.dims.len() + usize::from(stack);
        let at = super::ctx::axis_of(axis, rank)?;
        let n = Dim::from(b.g.new_sym("array", 0, DIM_MAX));
        let joined = match stack {
            true => n.clone(),
            false => Dim::from(b.g.new_sym("joined", 0, DIM_MAX)),
        };
        match stack {
            true => t.dims.insert(at, joined),
            false => t.dims[at] = joined,
        }
        let types = vec![Type::Tensor(t), Type::tensor(Dtype::I32, vec![n])];
        let outs = b.control(Control::SeqConcat { axis: at as i64, stack }, &[seq], types);
        self.set_outs(op, |k| outs.get(k).map(|&v| vec![v]));
        Ok(())
    }

    /// The array that an operator reads; one that nothing has written yet is empty.
    fn array_operand(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res<Value> {
        let named = op.ins.iter().find(|(s, _)| s.is_empty() || s == "X");
        let var = named.and_then(|(_, v)| v.first()).copied();
        let var = var.ok_or_else(|| FrontendError::invalid("operand X is missing"))?;
        if self.current(var).is_none() {
            self.empty_array(b, var)?;
        }
        self.one(var)
    }

    /// Gives a variable that is declared as an array an empty one.
    pub fn empty_array(&mut self, b: &mut Builder<'_>, var: Var) -> Res {
        let root = self.root(var);
        let VarType::Array(dtype, dims) = &self.program.vars[root].ty else {
            let name = &self.program.vars[root].name;
            let what = format!("uses {name}, which nothing before it computes");
            return Err(FrontendError::invalid(what));
        };
        let dims = dims.iter().map(|&d| Dim::from(d.max(0))).collect();
        let elem = Type::tensor(*dtype, dims);
        let ty = Type::Seq(Box::new(elem.clone()));
        let seq = b.control(Control::SeqNew { elem }, &[], vec![ty]);
        self.set(root, seq);
        Ok(())
    }

    /// Type of an element that is read: the dims that the program declares, symbols for others.
    fn element_type(&mut self, b: &mut Builder<'_>, elem: &Type, out: Option<Var>) -> Res<Type> {
        let Type::Tensor(t) = elem else {
            return Err(FrontendError::unsupported("an array of arrays"));
        };
        let declared = match out.map(|v| &self.program.vars[v].ty) {
            Some(VarType::Tensor(_, dims)) => dims.clone(),
            // What the program leaves open is noted as 0.
            _ => t.dims.iter().map(|d| d.as_const().filter(|&k| k > 0).unwrap_or(-1)).collect(),
        };
        let dim = |&d: &i64| match d {
            0.. => Dim::from(d),
            _ => Dim::from(b.g.new_sym("element", 0, DIM_MAX)),
        };
        Ok(Type::tensor(t.dtype, declared.iter().map(dim).collect()))
    }
}

/// An index as an int64 scalar.
fn index(b: &mut Builder<'_>, v: Value) -> Res<Value> {
    let v = b.cast(v, Dtype::I64)?;
    Ok(b.reshape(v, vec![])?)
}

/// The type of a sequence that holds elements of both types. Dims of elements are only notes.
pub fn join_elem(a: &Type, elem: &Type) -> Res<Type> {
    match (a, elem) {
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype != y.dtype => Err(FrontendError::invalid(
            format!("{} is written into an array of {}", y.dtype, x.dtype),
        )),
        (Type::Tensor(x), Type::Tensor(y)) => {
            // What is declared of an array may lag behind what is written.
            let keep = x.dims.len() == y.dims.len();
            Ok(Type::Seq(Box::new(if keep { a.clone() } else { elem.clone() })))
        }
        _ => Ok(Type::Seq(Box::new(a.clone()))),
    }
}

fn seq_type(b: &Builder<'_>, seq: Value) -> Res<Type> {
    match b.g.ty(seq) {
        Type::Seq(elem) => Ok((**elem).clone()),
        _ => Err(FrontendError::invalid("a tensor stands where an array is needed")),
    }
}
