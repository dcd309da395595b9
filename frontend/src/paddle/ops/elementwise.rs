//! Elementwise operators: arithmetic with Paddle's `axis`, comparisons, activations.

use crate::paddle::ctx::{Ctx, Res, axis_of};
use crate::paddle::program::Dialect;
use hub_ir::ops::activation::Activation;
use hub_ir::{BinaryOp, Dim, Dtype, UnaryOp, Value};

/// Rank of dtypes when two meet: floats win over integers, the wider over the narrower.
fn order(d: Dtype) -> usize {
    use Dtype::*;
    [Bool, U8, I8, I16, I32, I64, F16, BF16, F32, F64].iter().position(|&x| x == d).unwrap_or(0)
}

/// Both operands in one dtype.
pub fn unify(c: &mut Ctx<'_, '_>, x: Value, y: Value) -> Res<(Value, Value)> {
    let (dx, dy) = (c.b.g.dtype(x), c.b.g.dtype(y));
    let d = if order(dx) >= order(dy) { dx } else { dy };
    Ok((c.b.cast(x, d)?, c.b.cast(y, d)?))
}

/// Puts ones behind the dims of the operand of lower rank, so that it starts at `axis` of the other.
fn aligned(c: &mut Ctx<'_, '_>, x: Value, y: Value) -> Res<(Value, Value)> {
    let axis = c.int("axis", -1);
    let (rx, ry) = (c.rank(x), c.rank(y));
    if axis == -1 || c.dialect == Dialect::Pir || rx == ry {
        return Ok((x, y));
    }
    let (low, high) = if rx < ry { (x, ry) } else { (y, rx) };
    let mut dims = c.dims(low);
    let at = axis_of(axis, high)?;
    while dims.len() + at > high && dims.last().is_some_and(|d| d.is(1)) {
        dims.pop();
    }
    if dims.len() + at > high {
        return c.refuse(format!("axis {axis} of ranks {rx} and {ry}"));
    }
    dims.resize(high - at, Dim::from(1i64));
    let low = c.b.reshape(low, dims)?;
    Ok(if rx < ry { (low, y) } else { (x, low) })
}

fn operands(c: &mut Ctx<'_, '_>) -> Res<(Value, Value)> {
    let (x, y) = (c.tensor("X|X1|x")?, c.tensor("Y|X2|y")?);
    let (x, y) = aligned(c, x, y)?;
    unify(c, x, y)
}

/// The function that an operator's name says, once prefixes and suffixes of both formats are off.
fn function(kind: &str) -> Option<BinaryOp> {
    use BinaryOp::*;
    let name = kind.trim_end_matches('_');
    let name = name.strip_prefix("elementwise_").unwrap_or(name);
    Some(match name {
        "add" | "grad_add" => Add,
        "sub" | "subtract" | "minus" => Sub,
        "mul" | "multiply" => Mul,
        "div" | "divide" | "trunc_divide" => Div,
        "max" | "maximum" | "fmax" => Max,
        "min" | "minimum" | "fmin" => Min,
        "pow" => Pow,
        "mod" | "remainder" => Mod,
        "atan2" => Atan2,
        "bitwise_left_shift" => Shl,
        "bitwise_right_shift" => Shr,
        "bitwise_and" => BitAnd,
        "bitwise_or" => BitOr,
        "bitwise_xor" => BitXor,
        "equal" => Eq,
        "not_equal" => Ne,
        "less_than" => Lt,
        "less_equal" => Le,
        "greater_than" => Gt,
        "greater_equal" => Ge,
        "logical_and" => And,
        "logical_or" => Or,
        "logical_xor" => Xor,
        _ => return None,
    })
}

/// Functions of two arguments and comparisons.
pub fn binary(c: &mut Ctx<'_, '_>) -> Res {
    let (mut x, mut y) = operands(c)?;
    let Some(op) = function(&c.op.kind) else { return c.refuse("no such function") };
    let logical = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
    if logical {
        (x, y) = (c.b.cast(x, Dtype::Bool)?, c.b.cast(y, Dtype::Bool)?);
    }
    let bool_only = c.b.g.dtype(x) == Dtype::Bool && !logical;
    let op = match (bool_only, op) {
        (true, BinaryOp::BitAnd | BinaryOp::Mul | BinaryOp::Min) => BinaryOp::And,
        (true, BinaryOp::BitOr | BinaryOp::Add | BinaryOp::Max) => BinaryOp::Or,
        (true, BinaryOp::BitXor) => BinaryOp::Xor,
        (_, op) => op,
    };
    let mut v = c.b.bin(op, x, y)?;
    if c.op.kind.starts_with("trunc_") && c.b.g.dtype(v).is_float() {
        v = c.b.un(UnaryOp::Trunc, v)?;
    }
    let v = act(c, v)?;
    c.put("Out|out", v);
    Ok(())
}

/// The activation that some fused operators carry.
fn act(c: &mut Ctx<'_, '_>, v: Value) -> Res<Value> {
    match c.text("act|fuse_activation|activation_type", "") {
        "" | "identity" | "linear" => Ok(v),
        "relu" => Ok(c.b.source(Activation::Relu, &[v])?),
        other => c.refuse(format!("a fused activation {other}")),
    }
}

/// Division that rounds down.
pub fn floor_divide(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = operands(c)?;
    let v = if c.b.g.dtype(x).is_float() {
        let q = c.b.div(x, y)?;
        c.b.un(UnaryOp::Floor, q)?
    } else {
        let r = c.b.bin(BinaryOp::Mod, x, y)?;
        let whole = c.b.sub(x, r)?;
        c.b.div(whole, y)?
    };
    c.put("Out", v);
    Ok(())
}

/// Functions of one argument that are a primitive.
pub fn unary(c: &mut Ctx<'_, '_>) -> Res {
    use UnaryOp::*;
    let x = c.tensor("X|x")?;
    if c.pairs.contains(&x) {
        return super::fourier::part_of(c);
    }
    let op = match c.op.kind.trim_end_matches('_') {
        "sigmoid" => Sigmoid,
        "tanh" => Tanh,
        "exp" => Exp,
        "expm1" => Expm1,
        "log" => Log,
        "log1p" => Log1p,
        "sqrt" => Sqrt,
        "rsqrt" => Rsqrt,
        "reciprocal" => Recip,
        "abs" => Abs,
        "floor" => Floor,
        "ceil" => Ceil,
        "round" | "rint" => Round,
        "trunc" => Trunc,
        "sin" => Sin,
        "cos" => Cos,
        "tan" => Tan,
        "asin" => Asin,
        "acos" => Acos,
        "atan" => Atan,
        "sinh" => Sinh,
        "cosh" => Cosh,
        "asinh" => Asinh,
        "acosh" => Acosh,
        "atanh" => Atanh,
        "erf" => Erf,
        "sign" => Sign,
        "isnan" | "isnan_v2" => IsNan,
        "isinf" | "isinf_v2" => IsInf,
        "bitwise_not" => BitNot,
        _ => return c.refuse("no such function"),
    };
    let bool_not = op == BitNot && c.b.g.dtype(x) == Dtype::Bool;
    let v = match op {
        Floor | Ceil | Round | Trunc if !c.b.g.dtype(x).is_float() => x,
        IsNan | IsInf if !c.b.g.dtype(x).is_float() => {
            let no = c.b.scalar(Dtype::Bool, 0.0);
            let dims = c.dims(x);
            c.b.broadcast(no, dims)?
        }
        _ => c.b.un(if bool_not { Not } else { op }, x)?,
    };
    c.put("Out|out", v);
    Ok(())
}

/// logical_not.
pub fn logical_not(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let x = c.b.cast(x, Dtype::Bool)?;
    let v = c.b.un(UnaryOp::Not, x)?;
    c.put("Out", v);
    Ok(())
}

/// isfinite.
pub fn is_finite(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    if !c.b.g.dtype(x).is_float() {
        let yes = c.b.bin(BinaryOp::Eq, x, x)?;
        c.put("Out", yes);
        return Ok(());
    }
    let (nan, inf) = (c.b.un(UnaryOp::IsNan, x)?, c.b.un(UnaryOp::IsInf, x)?);
    let either = c.b.bin(BinaryOp::Or, nan, inf)?;
    let v = c.b.un(UnaryOp::Not, either)?;
    c.put("Out", v);
    Ok(())
}

/// isnan, isinf: is any element so? isfinite: are all? One element, as the first versions gave it.
pub fn any_of(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let (nan, inf) = (c.b.un(UnaryOp::IsNan, x)?, c.b.un(UnaryOp::IsInf, x)?);
    let each = match c.op.kind.as_str() {
        "isnan" => nan,
        "isinf" => inf,
        _ => c.b.bin(BinaryOp::Or, nan, inf)?,
    };
    let axes: Vec<usize> = (0..c.rank(x)).collect();
    let mut v = c.b.reduce(hub_ir::ReduceOp::Or, each, &axes, false)?;
    if c.op.kind == "isfinite" {
        v = c.b.un(UnaryOp::Not, v)?;
    }
    let v = c.b.reshape(v, vec![1i64.into()])?;
    c.put("Out", v);
    Ok(())
}

/// clip, its bounds being attributes or operands.
pub fn clip(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dtype = c.b.g.dtype(x);
    let bound = |c: &Ctx<'_, '_>, slot: &str, attr: &str, default| match c.opt(slot) {
        Some(v) => c.const_scalar(v),
        None => Some(c.float(attr, default)),
    };
    let lo = bound(c, "Min", "min", f64::NEG_INFINITY);
    let hi = bound(c, "Max", "max", f64::INFINITY);
    let v = match (lo, hi) {
        (Some(lo), Some(hi)) if dtype.is_float() => {
            c.b.source(Activation::Clip { lo, hi }, &[x])?
        }
        _ => {
            let mut v = x;
            for (slot, known, op) in [("Min", lo, BinaryOp::Max), ("Max", hi, BinaryOp::Min)] {
                v = match known {
                    Some(k) => c.b.bin_scalar(op, v, k)?,
                    None => {
                        let k = c.tensor(slot)?;
                        let k = c.b.cast(k, dtype)?;
                        let k = c.b.reshape(k, vec![])?;
                        c.b.bin(op, v, k)?
                    }
                };
            }
            v
        }
    };
    c.put("Out", v);
    Ok(())
}

/// `x * scale + bias`, or `(x + bias) * scale`, in x's dtype.
pub fn scale(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let dtype = c.b.g.dtype(x);
    let bias = c.float("bias", 0.0);
    let factor = match c.opt("ScaleTensor") {
        Some(v) => c.const_scalar(v).ok_or(v),
        None => Ok(c.float("scale", 1.0)),
    };
    let times = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> {
        match factor {
            Ok(1.0) => Ok(v),
            Ok(k) => Ok(c.b.bin_scalar(BinaryOp::Mul, v, k)?),
            Err(k) => {
                let k = c.b.cast(k, dtype)?;
                let k = c.b.reshape(k, vec![])?;
                Ok(c.b.mul(v, k)?)
            }
        }
    };
    let plus = |c: &mut Ctx<'_, '_>, v: Value| -> Res<Value> {
        if bias == 0.0 { Ok(v) } else { Ok(c.b.bin_scalar(BinaryOp::Add, v, bias)?) }
    };
    let v = if c.flag("bias_after_scale", true) {
        let t = times(c, x)?;
        plus(c, t)?
    } else {
        let t = plus(c, x)?;
        times(c, t)?
    };
    c.put("Out", v);
    Ok(())
}

/// `x ^ factor`.
pub fn pow(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    if let Some(v) = c.opt("FactorTensor").filter(|&v| c.const_scalar(v).is_none()) {
        let k = c.b.cast(v, c.b.g.dtype(x))?;
        let k = c.b.reshape(k, vec![])?;
        let v = c.b.bin(BinaryOp::Pow, x, k)?;
        c.put("Out", v);
        return Ok(());
    }
    let k = c.float_or("FactorTensor", "factor|y", 1.0)?;
    let v = match k {
        1.0 => x,
        2.0 => c.b.mul(x, x)?,
        0.5 => c.b.un(UnaryOp::Sqrt, x)?,
        k => c.b.bin_scalar(BinaryOp::Pow, x, k)?,
    };
    c.put("Out", v);
    Ok(())
}

/// `x + step`.
pub fn increment(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let v = c.b.bin_scalar(BinaryOp::Add, x, c.float("step|value", 1.0))?;
    c.put("Out", v);
    Ok(())
}

/// The sum of all operands.
pub fn sum_of(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let Some((&first, rest)) = xs.split_first() else { return c.refuse("a sum of nothing") };
    let mut v = first;
    for &x in rest {
        v = c.b.add(v, x)?;
    }
    c.put("Out", v);
    Ok(())
}

/// where, with a condition.
pub fn select(c: &mut Ctx<'_, '_>) -> Res {
    let cond = c.tensor("Condition")?;
    let cond = c.b.cast(cond, Dtype::Bool)?;
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let (x, y) = unify(c, x, y)?;
    let v = c.b.select(cond, x, y)?;
    c.put("Out", v);
    Ok(())
}

/// dropout at inference: nothing, or a scale.
pub fn dropout(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let v = match c.text("dropout_implementation|mode", "downgrade_in_infer") {
        "upscale_in_train" => {
            c.ignore("P");
            x
        }
        _ => {
            let p = c.float_or("P", "dropout_prob", 0.5)?;
            c.b.bin_scalar(BinaryOp::Mul, x, 1.0 - p)?
        }
    };
    c.put("Out", v);
    Ok(())
}

/// cast.
pub fn cast(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let Some(to) = c.dtype("out_dtype|dtype")? else { return c.refuse("no dtype is given") };
    let v = c.b.cast(x, to)?;
    c.put("Out", v);
    Ok(())
}
