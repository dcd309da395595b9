//! Sequences and optionals.

use crate::onnx::cx::{Cx, Got, invalid, one, unsupported};
use crate::onnx::table::{Row, op};
use crate::onnx::tensor;
use crate::options::DIM_MAX;
use hub_abi::pgraph::Control;
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

pub(crate) const OPS: &[Row] = &[
    op("SequenceEmpty", 11, sequence_empty),
    op("SequenceConstruct", 11, sequence_construct),
    op("SequenceInsert", 11, sequence_insert),
    op("SequenceErase", 11, sequence_erase),
    op("SequenceAt", 11, sequence_at),
    op("SequenceLength", 11, |c| {
        let s = sequence(c, 0)?;
        Ok(c.b.control(Control::SeqLen, &[s], vec![Type::tensor(Dtype::I64, vec![])]))
    }),
    op("ConcatFromSequence", 11, concat_from_sequence),
    op("SplitToSequence", 11, split_to_sequence),
    op("SequenceMap", 17, super::control::sequence_map),
    op("Optional", 15, optional),
    op("OptionalHasElement", 15, |c| {
        let Some(v) = c.opt(0) else { return one(c.scalar(Dtype::Bool, 0.0)) };
        if !matches!(c.b.g.ty(v), Type::Opt(_)) {
            return one(c.scalar(Dtype::Bool, 1.0));
        }
        Ok(c.b.control(Control::OptHas, &[v], vec![Type::tensor(Dtype::Bool, vec![])]))
    }),
    op("OptionalGetElement", 15, |c| {
        let v = c.input(0)?;
        let Type::Opt(inner) = c.b.g.ty(v).clone() else { return one(v) };
        let inner = resized(c, &inner);
        Ok(c.b.control(Control::OptGet, &[v], vec![inner]))
    }),
];

pub(super) fn sequence(c: &Cx<'_, '_, '_>, i: usize) -> Got {
    let v = c.input(i)?;
    match c.b.g.ty(v) {
        Type::Seq(_) => Ok(v),
        _ => invalid(format!("input {i} is not a sequence")),
    }
}

/// The type with sizes of its own: those of an element are known when it is taken out.
pub(super) fn resized(c: &mut Cx<'_, '_, '_>, t: &Type) -> Type {
    match t {
        Type::Tensor(t) => {
            let name = format!("{}.size", c.b.name);
            let dims = t.dims.iter().map(|_| c.b.g.new_sym(&name, 0, DIM_MAX).into()).collect();
            Type::tensor(t.dtype, dims)
        }
        t => t.clone(),
    }
}

/// Element type of a sequence whose elements' rank must be known.
pub(super) fn element(c: &Cx<'_, '_, '_>, s: Value) -> Got<Type> {
    if c.imp.unranked.contains(&s) {
        return unsupported("an element of a sequence that nothing was put into");
    }
    match c.b.g.ty(s) {
        Type::Seq(t) => Ok((**t).clone()),
        _ => invalid("not a sequence"),
    }
}

fn sequence_empty(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let dtype = tensor::dtype(c.int("dtype", Dtype::F32 as i64)? as i32)?;
    let elem = Type::tensor(dtype, vec![]);
    let ty = Type::Seq(Box::new(elem.clone()));
    let outs = c.b.control(Control::SeqNew { elem }, &[], vec![ty]);
    c.imp.unranked.insert(outs[0]);
    Ok(outs)
}

fn sequence_construct(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let xs = (0..c.ins.len()).map(|i| c.tensor(i)).collect::<Got<Vec<_>>>()?;
    let Some(&x) = xs.first() else { return invalid("nothing to put into the sequence") };
    for &y in &xs {
        if c.dtype(x) != c.dtype(y) {
            return invalid("element types differ");
        }
        if c.rank(x) != c.rank(y) {
            return unsupported("a sequence of tensors of different ranks");
        }
    }
    let elem = c.b.g.ty(x).clone();
    let ty = Type::Seq(Box::new(elem.clone()));
    Ok(c.b.control(Control::SeqNew { elem }, &xs, vec![ty]))
}

fn sequence_insert(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (s, x) = (sequence(c, 0)?, c.input(1)?);
    let mut ins = vec![s, x];
    ins.extend(c.opt(2));
    let ty = if c.imp.unranked.contains(&s) {
        Type::Seq(Box::new(c.b.g.ty(x).clone()))
    } else {
        let (Type::Tensor(e), Type::Tensor(t)) = (element(c, s)?, c.b.g.ty(x).clone()) else {
            return unsupported("a sequence of sequences");
        };
        if e.dtype != t.dtype {
            return invalid(format!("{} into a sequence of {}", t.dtype, e.dtype));
        }
        match (e.dims.len(), t.dims.len()) {
            (a, b) if a == b => c.b.g.ty(s).clone(),
            // Exporters write a shape without dims for elements of any shape.
            (0, _) => Type::Seq(Box::new(Type::Tensor(t))),
            _ => return unsupported("a sequence of tensors of different ranks"),
        }
    };
    Ok(c.b.control(Control::SeqInsert, &ins, vec![ty]))
}

fn sequence_erase(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let s = sequence(c, 0)?;
    let mut ins = vec![s];
    ins.extend(c.opt(1));
    let ty = c.b.g.ty(s).clone();
    let unranked = c.imp.unranked.contains(&s);
    let outs = c.b.control(Control::SeqErase, &ins, vec![ty]);
    if unranked {
        c.imp.unranked.insert(outs[0]);
    }
    Ok(outs)
}

fn sequence_at(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (s, at) = (sequence(c, 0)?, c.tensor(1)?);
    let elem = element(c, s)?;
    let ty = resized(c, &elem);
    Ok(c.b.control(Control::SeqAt, &[s, at], vec![ty]))
}

fn concat_from_sequence(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let s = sequence(c, 0)?;
    let elem = element(c, s)?;
    let Type::Tensor(mut t) = resized(c, &elem) else { return invalid("elements are no tensors") };
    let stack = c.flag("new_axis", false)?;
    let axis = c.int("axis", 0)?;
    let at = c.axis(axis, t.dims.len() + usize::from(stack))?;
    let name = format!("{}.size", c.b.name);
    let size: Dim = c.b.g.new_sym(&name, 0, DIM_MAX).into();
    if stack {
        t.dims.insert(at, size.clone());
    }
    let name = format!("{}.count", c.b.name);
    let count: Dim = if stack { size } else { c.b.g.new_sym(&name, 0, DIM_MAX).into() };
    let types = vec![Type::Tensor(t), Type::tensor(Dtype::I32, vec![count])];
    let outs = c.b.control(Control::SeqConcat { axis, stack }, &[s], types);
    one(outs[0])
}

fn split_to_sequence(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = c.tensor(0)?;
    let axis = c.int("axis", 0)?;
    let at = c.axis(axis, c.rank(x))?;
    let keep = c.flag("keepdims", true)?;
    let split = c.opt(1);
    let mut ty = c.b.g.tensor(x).clone();
    if split.is_none() && !keep {
        ty.dims.remove(at);
    } else {
        // Pieces may differ; what an element's size is, is known when it is taken out.
        ty.dims[at] = 1i64.into();
    }
    let mut ins = vec![x];
    ins.extend(split);
    let ty = Type::Seq(Box::new(Type::Tensor(ty)));
    Ok(c.b.control(Control::SeqSplit { axis, keep }, &ins, vec![ty]))
}

fn optional(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let v = c.opt(0);
    let elem = match v {
        Some(v) => c.b.g.ty(v).clone(),
        None => {
            let ty = c.any_attr("type").and_then(|a| a.tp.as_ref());
            let t = ty.and_then(|t| t.tensor_type.as_ref());
            let seq = ty.and_then(|t| t.sequence_type.as_ref()?.elem_type.as_ref());
            let inner = t.or_else(|| seq.and_then(|s| s.tensor_type.as_ref()));
            let Some(t) = inner else { return invalid("attribute 'type' is missing") };
            let dims = t.shape.as_ref().map_or(&[][..], |s| &s.dim);
            let dims = dims.iter().map(|d| d.dim_value.unwrap_or(1).into()).collect();
            let tensor = Type::tensor(tensor::dtype(t.elem_type)?, dims);
            if seq.is_some() { Type::Seq(Box::new(tensor)) } else { tensor }
        }
    };
    let ty = Type::Opt(Box::new(elem.clone()));
    let ins: Vec<Value> = v.into_iter().collect();
    Ok(c.b.control(Control::OptNew { elem }, &ins, vec![ty]))
}
