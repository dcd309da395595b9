//! Known contents: the elements of small integer tensors as dimensions, so that the shape
//! arithmetic that exporters write (Shape, Gather, Concat, Reshape…) resolves while it is built.

use crate::entity::Value;
use crate::graph::{ConstData, Graph};
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::{Dim, Dtype};

/// Tensors of more elements are not followed.
const MOST: i64 = 64;

/// Elements of a constant, where it is a small integer or bool tensor.
pub fn of_const(c: &ConstData) -> Option<Vec<Dim>> {
    let n = c.ty.count().as_const().filter(|&n| n <= MOST)?;
    let read: fn(&[u8]) -> i64 = match c.ty.dtype {
        Dtype::I64 => |b| i64::from_le_bytes(b.try_into().expect("8 bytes")),
        Dtype::I32 => |b| i32::from_le_bytes(b.try_into().expect("4 bytes")).into(),
        Dtype::Bool | Dtype::U8 => |b| b[0].into(),
        _ => return None,
    };
    let size = c.ty.dtype.size();
    if c.data.len() as i64 != n * size as i64 {
        return None;
    }
    Some(c.data.chunks_exact(size).map(|b| Dim::from(read(b))).collect())
}

/// Larger expressions are not followed: they become symbols of their own where they matter.
const MOST_ATOMS: usize = 48;

/// Elements of a primitive's first output, where they follow from its inputs'.
pub fn of_prim(g: &Graph, p: &Prim, ins: &[Value]) -> Option<Vec<Dim>> {
    let known = follow(g, p, ins)?;
    known.iter().all(|d| d.weight(MOST_ATOMS) < MOST_ATOMS).then_some(known)
}

fn follow(g: &Graph, p: &Prim, ins: &[Value]) -> Option<Vec<Dim>> {
    if let Prim::Dims { dims, .. } = p {
        return Some(dims.clone());
    }
    if let Prim::Iota { dtype: Dtype::I64 | Dtype::I32, shape, .. } = p {
        let [n] = &shape[..] else { return None };
        let n = n.as_const().filter(|&n| n <= MOST)?;
        return Some((0..n).map(Dim::from).collect());
    }
    let xs: Vec<&Vec<Dim>> = ins.iter().map(|v| g.content.get(v)).collect::<Option<_>>()?;
    let x = *xs.first()?;
    match p {
        Prim::Cast { to: Dtype::I32 | Dtype::I64, .. } => Some(x.clone()),
        Prim::Cast { to: Dtype::Bool, .. } => {
            let flag = |d: &Dim| d.as_const().map(|k| Dim::from(i64::from(k != 0)));
            x.iter().map(flag).collect()
        }
        Prim::Reshape { .. } => Some(x.clone()),
        Prim::Broadcast { shape } => {
            let n = Dim::product(shape).as_const().filter(|&n| n <= MOST)? as usize;
            (x.len() == 1)
                .then(|| vec![x[0].clone(); n])
                .or_else(|| (x.len() == n).then(|| x.clone()))
        }
        Prim::Concat { axis: 0 } => Some(xs.into_iter().flatten().cloned().collect()),
        Prim::Slice { start, len, step } => {
            let ([s], [l], [k]) = (&start[..], &len[..], &step[..]) else { return None };
            let (s, l) = (s.as_const()?, l.as_const()?);
            (0..l).map(|i| x.get(usize::try_from(s + i * k).ok()?).cloned()).collect()
        }
        Prim::Gather { axis: 0 } if g.dims(ins[0]).len() == 1 => {
            let at = |d: &Dim| {
                let i = d.as_const()?;
                let i = if i < 0 { i + x.len() as i64 } else { i };
                x.get(usize::try_from(i).ok()?).cloned()
            };
            xs[1].iter().map(at).collect()
        }
        Prim::Unary(UnaryOp::Neg) => Some(x.iter().map(|d| d.times(-1)).collect()),
        Prim::Binary(op) => zip(x, xs[1], |a, b| binary(*op, a, b)),
        Prim::Select => {
            let c: Vec<i64> = x.iter().map(Dim::as_const).collect::<Option<_>>()?;
            let n = c.len().max(xs[1].len()).max(xs[2].len());
            let at = |v: &Vec<Dim>, i: usize| v.get(if v.len() == 1 { 0 } else { i }).cloned();
            (0..n)
                .map(|i| {
                    let pick = *c.get(if c.len() == 1 { 0 } else { i })? != 0;
                    at(if pick { xs[1] } else { xs[2] }, i)
                })
                .collect()
        }
        Prim::Reduce { op: ReduceOp::Prod, .. } if g.dims(ins[0]).len() == 1 => {
            Some(vec![Dim::product(x)])
        }
        Prim::Reduce { op: ReduceOp::Sum, .. } if g.dims(ins[0]).len() == 1 => {
            Some(vec![x.iter().fold(Dim::from(0i64), |a, d| a.add(d))])
        }
        _ => None,
    }
}

fn zip(a: &[Dim], b: &[Dim], f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Vec<Dim>> {
    let n = a.len().max(b.len());
    let at = |v: &[Dim], i: usize| v.get(if v.len() == 1 { 0 } else { i }).cloned();
    (0..n).map(|i| f(&at(a, i)?, &at(b, i)?)).collect()
}

fn binary(op: BinaryOp, a: &Dim, b: &Dim) -> Option<Dim> {
    use BinaryOp::*;
    let flag = |x: bool| Some(Dim::from(i64::from(x)));
    Some(match op {
        Add => a.add(b),
        Sub => a.sub(b),
        Mul => a.mul(b),
        Max => a.max_of(b),
        Min => a.min_of(b),
        // Both round down only where signs agree; sizes are not negative.
        Div if b.as_const().is_some_and(|k| k > 0) => match a.as_const() {
            Some(k) => Dim::from(k / b.as_const()?),
            None => a.div(b),
        },
        Mod if b.as_const().is_some_and(|k| k > 0) => a.rem(b),
        Eq | Ne | Lt | Le | Gt | Ge => {
            let d = a.sub(b).as_const()?;
            return flag(match op {
                Eq => d == 0,
                Ne => d != 0,
                Lt => d < 0,
                Le => d <= 0,
                Gt => d > 0,
                _ => d >= 0,
            });
        }
        _ => return None,
    })
}
