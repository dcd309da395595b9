//! The gradient of one value by others: reverse-mode differentiation of the primitives between.

use crate::onnx::cx::{Cx, Got, invalid, unsupported};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, PadMode, Prim, ReduceOp, UnaryOp};
use hub_ir::{Builder, Op, Value};
use std::collections::{HashMap, HashSet};

/// Most primitives between.
const MOST: usize = 1 << 14;

/// Gradient: `y` and `xs` are names of values; the operands are the values of `xs`, then `zs`.
pub(super) fn gradient(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let names = c.strings("xs")?.unwrap_or_default();
    let y = c.string("y", "")?;
    let Some(y) = c.imp.lookup(&y) else { return invalid(format!("nothing computes '{y}'")) };
    let zs = c.strings("zs")?.unwrap_or_default();
    if c.ins.len() != names.len() + zs.len() {
        return invalid("as many operands as names are needed");
    }
    let mut xs = vec![];
    for (i, name) in names.iter().chain(&zs).enumerate() {
        let given = c.tensor(i)?;
        if c.imp.lookup(name) != Some(given) {
            return unsupported(format!("a gradient at another value than that of '{name}'"));
        }
        xs.push(given);
    }
    xs.truncate(names.len());
    if !c.dtype(y).is_float() {
        return invalid("y is no float");
    }
    let (mut renamed, order) = between(c, y, &xs)?;
    let y = *renamed.entry(y).or_insert(y);
    let mut grads: HashMap<Value, Value> = HashMap::new();
    let (dims, dtype) = (c.dims(y), c.dtype(y));
    let unit = c.scalar(dtype, 1.0);
    let unit = c.b.broadcast(unit, dims)?;
    grads.insert(y, unit);
    for (p, ins, out) in order.into_iter().rev() {
        let Some(&g) = grads.get(&out) else { continue };
        for (&x, part) in ins.iter().zip(backward(c.b, &p, &ins, out, g)?) {
            let Some(part) = part else { continue };
            let sum = match grads.get(&x) {
                Some(&old) => c.b.add(old, part)?,
                None => part,
            };
            grads.insert(x, sum);
        }
    }
    let mut outs = vec![];
    for x in xs {
        outs.push(match grads.get(&x) {
            Some(&g) => g,
            None => {
                let (dims, dtype) = (c.dims(x), c.dtype(x));
                let zero = c.scalar(dtype, 0.0);
                c.b.broadcast(zero, dims)?
            }
        });
    }
    Ok(outs)
}

type Step = (Prim, Vec<Value>, Value);

/// The primitives from `xs` to `y` in order, source operators expanded; and what these became.
fn between(
    c: &mut Cx<'_, '_, '_>,
    y: Value,
    xs: &[Value],
) -> Got<(HashMap<Value, Value>, Vec<Step>)> {
    let mut renamed: HashMap<Value, Value> = xs.iter().map(|&x| (x, x)).collect();
    let mut order = vec![];
    let mut listed = HashSet::new();
    let mut defined: HashMap<Value, Value> = HashMap::new();
    let mut todo = vec![(y, false)];
    while let Some((v, ready)) = todo.pop() {
        if renamed.contains_key(&v) {
            continue;
        }
        if listed.len() > MOST {
            return unsupported("a gradient of so long an expression");
        }
        let node = c.b.g.def(v);
        let (op, ins) = match node {
            Some(n) => (c.b.g.nodes[n].op.clone(), c.b.g.nodes[n].inputs.clone()),
            None => {
                renamed.insert(v, v);
                continue;
            }
        };
        match op {
            Op::Source(s) => {
                if let Some(new) = defined.get(&v) {
                    renamed.insert(v, renamed.get(new).copied().unwrap_or(*new));
                    continue;
                }
                // Its definition stands in for it.
                let outs = s.expand(c.b, &ins)?;
                let at = node.map(|n| c.b.g.nodes[n].outputs.clone()).unwrap_or_default();
                let at = at.iter().position(|&o| o == v).and_then(|i| outs.get(i));
                let Some(&new) = at else { return invalid("an output that is not computed") };
                defined.insert(v, new);
                todo.push((v, true));
                todo.push((new, false));
            }
            Op::Prim(p) => {
                if !ready {
                    listed.insert(v);
                    todo.push((v, true));
                    todo.extend(ins.iter().map(|&i| (i, false)));
                    continue;
                }
                let ins = ins.iter().map(|i| renamed.get(i).copied().unwrap_or(*i)).collect();
                renamed.insert(v, v);
                order.push((p, ins, v));
            }
            _ => {
                renamed.insert(v, v);
            }
        }
    }
    Ok((renamed, order))
}

/// Sums what broadcasting repeated.
fn like(b: &mut Builder<'_>, g: Value, x: Value) -> Got {
    let (dg, dx) = (b.g.dims(g).to_vec(), b.g.dims(x).to_vec());
    let lead = dg.len() - dx.len();
    let sum: Vec<usize> =
        (0..dg.len()).filter(|&i| i < lead || (dx[i - lead].is(1) && !dg[i].is(1))).collect();
    let g = if sum.is_empty() { g } else { b.reduce(ReduceOp::Sum, g, &sum, true)? };
    Ok(b.reshape(g, dx)?)
}

/// What flows back to each operand; none where it is no function of it.
fn backward(
    b: &mut Builder<'_>,
    p: &Prim,
    ins: &[Value],
    y: Value,
    g: Value,
) -> Got<Vec<Option<Value>>> {
    if !b.g.dtype(y).is_float() {
        return Ok(vec![None; ins.len()]);
    }
    let x = ins.first().copied().unwrap_or(y);
    let dims = b.g.dims(x).to_vec();
    let one = |v: Value| Ok(vec![Some(v)]);
    match p {
        Prim::Unary(op) => Ok(vec![unary(b, *op, x, y, g)?]),
        Prim::Binary(op) => binary(b, *op, [ins[0], ins[1]], y, g),
        Prim::Select => {
            let zero = b.scalar(b.g.dtype(g), 0.0);
            let (yes, no) = (b.select(ins[0], g, zero)?, b.select(ins[0], zero, g)?);
            Ok(vec![None, Some(like(b, yes, ins[1])?), Some(like(b, no, ins[2])?)])
        }
        Prim::Cast { .. } if b.g.dtype(x).is_float() => one(b.cast(g, b.g.dtype(x))?),
        Prim::Broadcast { .. } => one(like(b, g, x)?),
        Prim::Reshape { .. } => one(b.reshape(g, dims)?),
        Prim::Transpose { perm } => {
            let mut back = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(i, &p)| back[p as usize] = i);
            one(b.transpose(g, &back)?)
        }
        Prim::Slice { start, len, step } if step.iter().all(|&s| s == 1) => {
            let ends = dims.iter().zip(start).zip(len);
            let after = ends.map(|((d, s), l)| d.sub(s).sub(l)).collect();
            let zero = b.scalar(b.g.dtype(g), 0.0);
            let pad = Prim::Pad { before: start.clone(), after, mode: PadMode::Constant };
            one(b.prim(pad, &[g, zero])?)
        }
        Prim::Pad { before, mode: PadMode::Constant, .. } => {
            let slice = Prim::Slice { start: before.clone(), step: vec![1; dims.len()], len: dims };
            Ok(vec![Some(b.prim(slice, &[g])?), None])
        }
        Prim::Concat { axis } => {
            let mut at = Dim::from(0i64);
            let mut parts = vec![];
            for &x in ins {
                let len = b.g.dims(x)[*axis as usize].clone();
                parts.push(Some(b.narrow(g, *axis as usize, at.clone(), len.clone())?));
                at = at.add(&len);
            }
            Ok(parts)
        }
        Prim::Reduce { op, axes, .. } => {
            let mut kept = dims.clone();
            axes.iter().for_each(|&a| kept[a as usize] = 1i64.into());
            let g = b.reshape(g, kept.clone())?;
            let spread = b.broadcast(g, dims.clone())?;
            match op {
                ReduceOp::Sum => one(spread),
                ReduceOp::Mean => {
                    let n = Dim::product(
                        &axes.iter().map(|&a| dims[a as usize].clone()).collect::<Vec<_>>(),
                    );
                    let n = b.dim_scalar(n);
                    let n = b.cast(n, b.g.dtype(g))?;
                    one(b.div(spread, n)?)
                }
                ReduceOp::Max | ReduceOp::Min => {
                    let y = b.reshape(y, kept)?;
                    let hit = b.bin(BinaryOp::Eq, x, y)?;
                    let zero = b.scalar(b.g.dtype(g), 0.0);
                    one(b.select(hit, spread, zero)?)
                }
                _ => unsupported(format!("the gradient of {op:?}")),
            }
        }
        Prim::Contract { a, b: lb, out } => {
            let da = contracted(b, [g, ins[1]], [out, lb], a, ins[0])?;
            let db = contracted(b, [g, ins[0]], [out, a], lb, ins[1])?;
            Ok(vec![Some(da), Some(db)])
        }
        Prim::Iota { .. } | Prim::Dims { .. } | Prim::Random { .. } => Ok(vec![]),
        _ => unsupported(format!("the gradient of {}", hub_ir::build::prim_name(p))),
    }
}

/// `g` and the other operand contracted to x's labels; axes that were summed alone are repeated.
fn contracted(
    b: &mut Builder<'_>,
    ins: [Value; 2],
    [lg, lo]: [&[u8]; 2],
    to: &[u8],
    x: Value,
) -> Got {
    let known: Vec<u8> = to.iter().copied().filter(|l| lg.contains(l) || lo.contains(l)).collect();
    let dims = b.g.dims(x).to_vec();
    let p = Prim::Contract { a: lg.to_vec(), b: lo.to_vec(), out: known.clone() };
    let y = b.prim(p, &ins)?;
    let some = |(l, d): (&u8, &Dim)| if known.contains(l) { d.clone() } else { 1i64.into() };
    let kept = to.iter().zip(&dims).map(some).collect();
    let y = b.reshape(y, kept)?;
    Ok(b.broadcast(y, dims)?)
}

fn unary(b: &mut Builder<'_>, op: UnaryOp, x: Value, y: Value, g: Value) -> Got<Option<Value>> {
    use UnaryOp::*;
    // The derivative, from x and y.
    let mut rest = |k: f64, sign: f64| -> Got {
        let sq = b.mul(x, x)?;
        let sq = b.bin_scalar(BinaryOp::Mul, sq, sign)?;
        Ok(b.bin_scalar(BinaryOp::Add, sq, k)?)
    };
    let d = match op {
        Neg => return Ok(Some(b.un(Neg, g)?)),
        Abs => b.un(Sign, x)?,
        Sign | Floor | Ceil | Round | Trunc => return Ok(None),
        Sqrt => {
            let half = b.bin_scalar(BinaryOp::Mul, y, 2.0)?;
            return Ok(Some(b.div(g, half)?));
        }
        Rsqrt => {
            let cube = b.mul(y, y)?;
            let cube = b.mul(cube, y)?;
            b.bin_scalar(BinaryOp::Mul, cube, -0.5)?
        }
        Recip => {
            let sq = b.mul(y, y)?;
            b.un(Neg, sq)?
        }
        Exp => y,
        Expm1 => b.bin_scalar(BinaryOp::Add, y, 1.0)?,
        Log => b.un(Recip, x)?,
        Log1p => {
            let t = b.bin_scalar(BinaryOp::Add, x, 1.0)?;
            b.un(Recip, t)?
        }
        Sin => b.un(Cos, x)?,
        Cos => {
            let s = b.un(Sin, x)?;
            b.un(Neg, s)?
        }
        Sinh => b.un(Cosh, x)?,
        Cosh => b.un(Sinh, x)?,
        Tan => {
            let sq = b.mul(y, y)?;
            b.bin_scalar(BinaryOp::Add, sq, 1.0)?
        }
        Tanh => {
            let sq = b.mul(y, y)?;
            let sq = b.un(Neg, sq)?;
            b.bin_scalar(BinaryOp::Add, sq, 1.0)?
        }
        Sigmoid => {
            let t = b.un(Neg, y)?;
            let t = b.bin_scalar(BinaryOp::Add, t, 1.0)?;
            b.mul(y, t)?
        }
        Asin | Acos => {
            let t = rest(1.0, -1.0)?;
            let t = b.un(Rsqrt, t)?;
            if op == Acos { b.un(Neg, t)? } else { t }
        }
        Atan => {
            let t = rest(1.0, 1.0)?;
            b.un(Recip, t)?
        }
        Atanh => {
            let t = rest(1.0, -1.0)?;
            b.un(Recip, t)?
        }
        Asinh => {
            let t = rest(1.0, 1.0)?;
            b.un(Rsqrt, t)?
        }
        Acosh => {
            let t = rest(-1.0, 1.0)?;
            b.un(Rsqrt, t)?
        }
        Erf => {
            let t = rest(0.0, -1.0)?;
            let t = b.un(Exp, t)?;
            b.bin_scalar(BinaryOp::Mul, t, std::f64::consts::FRAC_2_SQRT_PI)?
        }
        Not | BitNot | IsNan | IsInf => return Ok(None),
    };
    Ok(Some(b.mul(g, d)?))
}

fn binary(
    b: &mut Builder<'_>,
    op: BinaryOp,
    [x, z]: [Value; 2],
    y: Value,
    g: Value,
) -> Got<Vec<Option<Value>>> {
    let (dx, dz) = match op {
        BinaryOp::Add => (g, g),
        BinaryOp::Sub => (g, b.un(UnaryOp::Neg, g)?),
        BinaryOp::Mul => (b.mul(g, z)?, b.mul(g, x)?),
        BinaryOp::Div => {
            let dx = b.div(g, z)?;
            let dz = b.mul(dx, y)?;
            (dx, b.un(UnaryOp::Neg, dz)?)
        }
        BinaryOp::Pow => {
            let less = b.bin_scalar(BinaryOp::Sub, z, 1.0)?;
            let dx = b.bin(BinaryOp::Pow, x, less)?;
            let dx = b.mul(dx, z)?;
            let log = b.un(UnaryOp::Log, x)?;
            let dz = b.mul(y, log)?;
            (b.mul(g, dx)?, b.mul(g, dz)?)
        }
        BinaryOp::Max | BinaryOp::Min => {
            let first = if op == BinaryOp::Max { BinaryOp::Ge } else { BinaryOp::Le };
            let hit = b.bin(first, x, z)?;
            let zero = b.scalar(b.g.dtype(g), 0.0);
            (b.select(hit, g, zero)?, b.select(hit, zero, g)?)
        }
        _ => return unsupported(format!("the gradient of {op:?}")),
    };
    Ok(vec![Some(like(b, dx, x)?), Some(like(b, dz, z)?)])
}
