//! Tree ensembles. All trees walk together: a state is a node's number for each row and tree, and a
//! step goes to one of its children. Leaves lead to themselves, so every tree takes as many steps
//! as the deepest.

use super::ml::{ML, best, either, labels, post, single};
use super::ml_forest::{Forest, Mode, Node, flat_forest, forest, numbers};
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op_of};
use hub_abi::Dtype;
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Prim, ReduceOp, UnaryOp};
use hub_abi::shape::Type;
use hub_ir::{Builder, Value};

pub(crate) const OPS: &[Row] = &[
    op_of(ML, "TreeEnsemble", ensemble),
    op_of(ML, "TreeEnsembleRegressor", regressor),
    op_of(ML, "TreeEnsembleClassifier", classifier),
];

/// Steps that are written out; more are a loop.
const MOST_STEPS: usize = 32;
/// A vector constant of a float type.
fn reals(c: &mut Cx<'_, '_, '_>, dtype: Dtype, dims: &[i64], v: &[f64]) -> Got {
    let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    let t = hub_ir::Tensor::from_bytes(
        Dtype::F64,
        &dims.iter().map(|&d| d as usize).collect::<Vec<_>>(),
        &bytes,
    );
    let to = Prim::Cast { to: dtype, saturate: true };
    let t = t.ok().and_then(|t| hub_ir::known::cast(&to, t));
    match t {
        Some(t) => Ok(c.b.constant(dtype, dims, t.bytes().to_vec().into())),
        None => invalid("a list of numbers"),
    }
}

/// Which leaf each row of x `[N, F]` reaches in each tree: int64 `[N, trees]`.
fn walk(c: &mut Cx<'_, '_, '_>, f: &Forest, x: Value) -> Got {
    let nodes = &f.nodes;
    let dtype = c.dtype(x);
    let width = c.dim(x, 1)?.as_const().unwrap_or(i64::MAX);
    if nodes.iter().any(|n| n.feature < 0 || n.feature >= width) {
        return invalid(format!("a node asks for a feature past {width}"));
    }
    let ints = |c: &mut Cx<'_, '_, '_>, f: &dyn Fn(&Node) -> i64| -> Value {
        let v: Vec<i64> = nodes.iter().map(f).collect();
        c.b.ints(&v)
    };
    let mut modes: Vec<BinaryOp> = vec![];
    for n in nodes {
        if let Mode::Test(op) = n.mode
            && !modes.contains(&op)
        {
            modes.push(op);
        }
    }
    let values: Vec<f64> = nodes.iter().map(|n| n.value).collect();
    let tables = Tables {
        feature: ints(c, &|n| n.feature),
        value: reals(c, dtype, &[nodes.len() as i64], &values)?,
        yes: ints(c, &|n| n.next[0] as i64),
        no: ints(c, &|n| n.next[1] as i64),
        missing: nodes.iter().any(|n| n.missing).then(|| ints(c, &|n| n.missing.into())),
        mode: (modes.len() > 1).then(|| {
            let number = |n: &Node| modes.iter().position(|m| n.mode == Mode::Test(*m));
            ints(c, &|n| number(n).map_or(0, |i| i as i64))
        }),
        modes: modes.clone(),
        x,
    };
    let roots: Vec<i64> = f.roots.iter().map(|&r| r as i64).collect();
    let roots = c.b.ints(&roots);
    let dims = vec![c.dim(x, 0)?, f.roots.len().into()];
    let mut state = c.b.broadcast(roots, dims.clone())?;
    let depth = f.depth()?;
    if depth <= MOST_STEPS {
        for _ in 0..depth {
            state = tables.step(c.b, state)?;
        }
    } else {
        let region = c.b.g.new_region();
        c.b.g.add_param(region, Type::tensor(Dtype::I64, vec![]));
        let ty = Type::tensor(Dtype::I64, dims);
        let before = c.b.g.add_param(region, ty.clone());
        let mut b = c.b.nested();
        let on = b.scalar(Dtype::Bool, 1.0);
        let after = tables.step(&mut b, before)?;
        b.into_region(region);
        c.b.g.regions[region].results = vec![on, after];
        let control = Control::Loop { body: region.0, has_trip: true, has_cond: false, carried: 1 };
        let trip = c.scalar(Dtype::I64, depth as f64);
        state = c.b.control(control, &[trip, state], vec![ty])[0];
    }
    let leaf = ints(c, &|n| n.leaf as i64);
    c.prim(Prim::Gather { axis: 0 }, &[leaf, state])
}

/// Nodes' fields as constants, and the rows.
struct Tables {
    x: Value,
    feature: Value,
    value: Value,
    yes: Value,
    no: Value,
    missing: Option<Value>,
    mode: Option<Value>,
    modes: Vec<BinaryOp>,
}

impl Tables {
    fn step(&self, b: &mut Builder<'_>, state: Value) -> Got {
        let of = |b: &mut Builder<'_>, table| b.prim(Prim::Gather { axis: 0 }, &[table, state]);
        let feature = of(b, self.feature)?;
        let x = b.prim(Prim::GatherElements { axis: 1 }, &[self.x, feature])?;
        let value = of(b, self.value)?;
        let mut hit = b.bin(self.modes.first().copied().unwrap_or(BinaryOp::Le), x, value)?;
        if let Some(mode) = self.mode {
            let mode = of(b, mode)?;
            for (i, &op) in self.modes.iter().enumerate().skip(1) {
                let own = b.bin_scalar(BinaryOp::Eq, mode, i as f64)?;
                let test = b.bin(op, x, value)?;
                hit = b.select(own, test, hit)?;
            }
        }
        if let Some(missing) = self.missing {
            let (nan, missing) = (b.un(UnaryOp::IsNan, x)?, of(b, missing)?);
            let missing = b.cast(missing, Dtype::Bool)?;
            let take = b.bin(BinaryOp::And, nan, missing)?;
            hit = b.bin(BinaryOp::Or, hit, take)?;
        }
        let (yes, no) = (of(b, self.yes)?, of(b, self.no)?);
        Ok(b.select(hit, yes, no)?)
    }
}

/// Scores `[N, targets]`: leaves' weights combined over trees.
fn scores(c: &mut Cx<'_, '_, '_>, f: &Forest, x: Value, how: &str) -> Got {
    let dtype = c.dtype(x);
    let (op, rest) = match how {
        "SUM" | "AVERAGE" => (ReduceOp::Sum, 0.0),
        "MIN" => (ReduceOp::Min, f64::INFINITY),
        "MAX" => (ReduceOp::Max, f64::NEG_INFINITY),
        other => return invalid(format!("aggregate_function '{other}'")),
    };
    let leaf = walk(c, f, x)?;
    let weights = f.weights(rest)?;
    let table = reals(c, dtype, &[f.leaves.len() as i64, f.targets as i64], &weights)?;
    let each = c.prim(Prim::Gather { axis: 0 }, &[table, leaf])?;
    let mut y = c.reduce(op, each, &[1], false)?;
    if how == "AVERAGE" {
        y = c.bin_scalar(BinaryOp::Div, y, f.roots.len() as f64)?;
    }
    if rest != 0.0 {
        let none = c.un(UnaryOp::IsInf, y)?;
        let zero = c.scalar(dtype, 0.0);
        y = c.b.select(none, zero, y)?;
    }
    Ok(y)
}

/// x as `[N, F]` in the type that computes.
fn rows(c: &mut Cx<'_, '_, '_>) -> Got {
    let x = c.tensor(0)?;
    let x = match c.dtype(x) {
        Dtype::F64 | Dtype::F16 => x,
        _ => c.cast(x, Dtype::F32)?,
    };
    match &c.dims(x)[..] {
        [n] => {
            let n = n.clone();
            c.reshape(x, vec![1i64.into(), n])
        }
        [_, _] => Ok(x),
        _ => invalid("x must be [F] or [N, F]"),
    }
}

/// Adds base values `[targets]`.
fn based(c: &mut Cx<'_, '_, '_>, y: Value, base: &[f64]) -> Got {
    if base.is_empty() {
        return Ok(y);
    }
    let dtype = c.dtype(y);
    let base = reals(c, dtype, &[base.len() as i64], base)?;
    c.bin(BinaryOp::Add, y, base)
}

fn count(c: &Cx<'_, '_, '_>) -> Got<usize> {
    match usize::try_from(c.int("n_targets", 1)?).ok().filter(|n| (1..=1 << 20).contains(n)) {
        Some(n) => Ok(n),
        None => invalid("n_targets"),
    }
}

fn regressor(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = rows(c)?;
    let f = forest(c, "target", count(c)?)?;
    let how = c.string("aggregate_function", "SUM")?;
    let y = scores(c, &f, x, &how)?;
    let base = numbers(c, "base_values")?;
    let y = based(c, y, &base)?;
    let y = c.cast(y, Dtype::F32)?;
    let how = c.string("post_transform", "NONE")?;
    one(post(c, y, &how)?)
}

/// Labels and scores. Of two classes with weights for one only, the other's score is the rest to
/// one (weights all positive) or the negative.
fn classifier(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = rows(c)?;
    let (labels, n) = labels(c, "classlabels_int64s")?;
    let f = forest(c, "class", n)?;
    let mut y = scores(c, &f, x, "SUM")?;
    let base = numbers(c, "base_values")?;
    let how = c.string("post_transform", "NONE")?;
    let mut used: Vec<usize> = f.leaves.iter().flatten().map(|w| w.0).collect();
    used.sort_unstable();
    used.dedup();
    if n != 2 || used.len() != 1 {
        y = based(c, y, &base)?;
        let y = c.cast(y, Dtype::F32)?;
        let label = best(c, y, labels)?;
        return Ok(vec![label, post(c, y, &how)?]);
    }
    let s = c.b.narrow(y, 1, used[0].into(), 1i64.into())?;
    let s = based(c, s, base.last().map_or(&[][..], std::slice::from_ref))?;
    let s = c.cast(s, Dtype::F32)?;
    let positive = f.leaves.iter().flatten().all(|w| w.1 >= 0.0);
    let hit = c.bin_scalar(BinaryOp::Gt, s, if positive { 0.5 } else { 0.0 })?;
    let hit = c.b.squeeze(hit, 1)?;
    let label = either(c, hit, labels)?;
    if positive || how == "LOGISTIC" {
        return Ok(vec![label, single(c, s, &how)?]);
    }
    let rest = c.un(UnaryOp::Neg, s)?;
    let both = c.b.concat(&[rest, s], 1)?;
    Ok(vec![label, both])
}

/// Version 5 of the domain: nodes and leaves are apart, and leaves have one weight.
fn ensemble(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let x = rows(c)?;
    let targets = count(c)?;
    let f = flat_forest(c, targets)?;
    let how = match c.int("aggregate_function", 1)? {
        0 => "AVERAGE",
        1 => "SUM",
        2 => "MIN",
        3 => "MAX",
        n => return invalid(format!("aggregate_function {n}")),
    };
    let y = scores(c, &f, x, how)?;
    let how = match c.int("post_transform", 0)? {
        0 => "NONE",
        1 => "SOFTMAX",
        2 => "LOGISTIC",
        3 => "SOFTMAX_ZERO",
        4 => "PROBIT",
        n => return invalid(format!("post_transform {n}")),
    };
    one(post(c, y, how)?)
}
