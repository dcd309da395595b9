//! When an answer is right: the suite's own rule, and what is asked of random draws without a seed.

use hub_abi::{Dtype, prim::Prim};
use hub_frontend::onnx::proto::{GraphProto, ModelProto, NodeProto};
use hub_portable::{Limits, Tensor, Value};
use prost::Message;

/// Compares values; dtype, shape, and the number of a sequence's elements must be the same, and
/// floats near: `|got - want| <= atol + rtol * |want|`. Two NaNs are equal. The error says where.
pub fn compare(got: &Value, want: &Value, (rtol, atol): (f64, f64)) -> Result<(), String> {
    each(got, want, &mut |a, b| near(a, b, rtol, atol))
}

/// Compares what was drawn at random: dtype and shape must be the same, and the draws be as if from
/// the same distribution.
pub fn compare_drawn(got: &Value, want: &Value) -> Result<(), String> {
    each(got, want, &mut drawn_alike)
}

type Rule<'a> = &'a mut dyn FnMut(&Tensor, &Tensor) -> Result<(), String>;

fn each(got: &Value, want: &Value, rule: Rule<'_>) -> Result<(), String> {
    match (got, want) {
        (Value::Tensor(a), Value::Tensor(b)) => {
            same_type(a, b)?;
            rule(a, b)
        }
        (Value::Seq(a), Value::Seq(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b.iter()).enumerate();
            pairs.into_iter().try_for_each(|(i, (a, b))| {
                each(a, b, rule).map_err(|e| format!("element {i} of the sequence: {e}"))
            })
        }
        (Value::Seq(a), Value::Seq(b)) => {
            Err(format!("a sequence of {} where one of {} is right", a.len(), b.len()))
        }
        (Value::Opt(Some(a)), Value::Opt(Some(b))) => each(a, b, rule),
        (Value::Opt(None), Value::Opt(None)) => Ok(()),
        (Value::Opt(a), Value::Opt(_)) => {
            let (is, right) = if a.is_some() { ("full", "empty") } else { ("empty", "full") };
            Err(format!("an {is} optional where an {right} one is right"))
        }
        _ => Err(format!("{} where {} is right", got.kind(), want.kind())),
    }
}

fn same_type(got: &Tensor, want: &Tensor) -> Result<(), String> {
    let ty = |t: &Tensor| format!("{} {:?}", t.dtype(), t.dims());
    match got.dtype() == want.dtype() && got.dims() == want.dims() {
        true => Ok(()),
        false => Err(format!("{} where {} is right", ty(got), ty(want))),
    }
}

fn near(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dtype() == Dtype::Str {
        let pairs = got.as_strings().iter().zip(want.as_strings());
        return match pairs.into_iter().enumerate().find(|(_, (a, b))| a != b) {
            Some((i, (a, b))) => Err(format!("element {i}: {a:?}, not {b:?}")),
            None => Ok(()),
        };
    }
    let whole = |t: &Tensor| t.to_i64s().ok();
    if let (Some(a), Some(b)) = (whole(got), whole(want)) {
        // As f64, 64-bit integers would round.
        let off = a.iter().zip(&b).position(|(x, y)| {
            let error = i128::from(*x).abs_diff(i128::from(*y));
            error > 0 && error as f64 > atol + rtol * (*y as f64).abs()
        });
        let what = |i: usize| format!("element {i} of {:?}: {}, not {}", got.dims(), a[i], b[i]);
        return off.map_or(Ok(()), |i| Err(what(i)));
    }
    let (a, b) = (numbers(got)?, numbers(want)?);
    let off = a.iter().zip(&b).position(|(x, y)| {
        let same = x == y || (x.is_nan() && y.is_nan());
        let error = (x - y).abs();
        !same && (!error.is_finite() || error > atol + rtol * y.abs())
    });
    off.map_or(Ok(()), |i| Err(format!("element {i} of {:?}: {}, not {}", got.dims(), a[i], b[i])))
}

/// The values of a numeric tensor; of a complex one, real and imaginary parts in turn.
fn numbers(t: &Tensor) -> Result<Vec<f64>, String> {
    let parts = match t.dtype() {
        Dtype::C64 => Some(Dtype::F32),
        Dtype::C128 => Some(Dtype::F64),
        _ => None,
    };
    let t = match parts {
        Some(part) => {
            let n = t.bytes().len() / part.size();
            &Tensor::from_bytes(part, &[n], t.bytes()).map_err(|e| e.to_string())?
        }
        None => t,
    };
    let to = Prim::Cast { to: Dtype::F64, saturate: true };
    let out = hub_portable::fold(&to, std::slice::from_ref(t), &Limits::default());
    let out = out.map_err(|e| e.to_string())?;
    Ok(out[0].view::<f64>().map_err(|e| e.to_string())?.into_owned())
}

/// Five standard errors: one wrong verdict in a million.
const SIGMAS: f64 = 5.0;

/// Two samples of one distribution: if one is of zeros and ones, so is the other; their means differ
/// by no more than chance allows, and neither reaches far outside the other's range.
fn drawn_alike(got: &Tensor, want: &Tensor) -> Result<(), String> {
    let (a, b) = (numbers(got)?, numbers(want)?);
    if a.is_empty() {
        return Ok(());
    }
    if let Some(x) = a.iter().find(|x| !x.is_finite()) {
        return Err(format!("{x} was drawn"));
    }
    let binary = |v: &[f64]| v.iter().all(|x| *x == 0.0 || *x == 1.0);
    if binary(&b) && !binary(&a) {
        return Err("draws are not 0 and 1".into());
    }
    let n = a.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let variance = |v: &[f64]| {
        let m = mean(v);
        v.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / n
    };
    let spread = variance(&a).max(variance(&b));
    let (x, y) = (mean(&a), mean(&b));
    if (x - y).abs() > SIGMAS * (2.0 * spread / n).sqrt() {
        return Err(format!("the mean of {n} draws is {x}, that of the suite's {y}"));
    }
    let reach = SIGMAS * spread.sqrt();
    match a.iter().find(|v| (**v - y).abs() > 2.0 * reach) {
        Some(v) => Err(format!("{v} was drawn, the suite's mean is {y}")),
        None => Ok(()),
    }
}

/// Operators that draw at random.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Does the model draw at random without saying from which seed? (Training dropout in the suite
/// always says it.)
pub fn draws_unseeded(model: &[u8]) -> bool {
    let Ok(m) = ModelProto::decode(model) else { return false };
    let inside = m.functions.iter().flat_map(|f| &f.node);
    let nodes = m.graph.iter().flat_map(|g| &g.node);
    nodes.chain(inside).any(node_draws)
}

fn node_draws(n: &NodeProto) -> bool {
    let seeded = n.attribute.iter().any(|a| a.name == "seed");
    let graph = |g: &GraphProto| g.node.iter().any(node_draws);
    (RANDOM.contains(&&n.op_type[..]) && !seeded)
        || n.attribute.iter().any(|a| a.g.as_ref().is_some_and(graph))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(v: &[f32]) -> Value {
        Tensor::new(&[v.len()], v.to_vec()).expect("a tensor").into()
    }

    #[test]
    fn near_is_near_and_types_must_match() {
        let rule = (1e-3, 1e-7);
        assert!(compare(&floats(&[1.0005, f32::NAN]), &floats(&[1.0, f32::NAN]), rule).is_ok());
        assert!(compare(&floats(&[1.002]), &floats(&[1.0]), rule).is_err());
        assert!(compare(&floats(&[f32::INFINITY]), &floats(&[1.0]), rule).is_err());
        assert!(compare(&floats(&[1.0]), &floats(&[f32::INFINITY]), rule).is_err());
        assert!(compare(&floats(&[1.0, 1.0]), &floats(&[1.0]), rule).is_err());
        let int = |x: i64| Value::from(Tensor::scalar(x));
        assert!(compare(&int(i64::MAX), &int(i64::MAX), rule).is_ok());
        assert!(compare(&int(7), &int(8), rule).is_err());
        assert!(compare(&floats(&[1.0]), &int(1), rule).is_err());
        assert!(compare(&Value::Opt(None), &int(1), rule).is_err());
        let strings = |s: &str| Value::from(Tensor::strings(&[1], vec![s.into()]).expect("one"));
        assert!(compare(&strings("a"), &strings("b"), rule).is_err());
        let seq = |n: usize| Value::seq(vec![int(1); n]);
        assert!(compare(&seq(1), &seq(2), rule).is_err());
    }

    #[test]
    fn draws_are_judged_by_their_distribution() {
        let ones = |share: usize| {
            floats(&(0..1000).map(|i| f32::from(u8::from(i % 10 < share))).collect::<Vec<_>>())
        };
        assert!(compare_drawn(&ones(5), &ones(5)).is_ok());
        assert!(compare_drawn(&ones(2), &ones(5)).is_err());
        assert!(compare_drawn(&floats(&[0.5, 1.0]), &floats(&[0.0, 1.0])).is_err());
        assert!(compare_drawn(&floats(&[f32::NAN]), &floats(&[0.5])).is_err());
    }
}
