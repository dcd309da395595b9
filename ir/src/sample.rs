//! Random small graphs for tests: any list of numbers is a graph that the builder accepts, so
//! property tests shrink lists.

use crate::build::Builder;
use crate::entity::Value;
use crate::graph::Graph;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv;
use crate::ops::matmul::MatMul;
use crate::ops::norm::{BatchNorm, LayerNorm, Softmax};
use hub_abi::pgraph::Control;
use hub_abi::prim::{BinaryOp, Geometry, Prim, ReduceOp, UnaryOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};

/// A graph drawn by `choices`, about one node a choice: f32 tensors of rank 1 to 4 with a symbolic
/// batch `N` (1..=4), values that stay moderate, one output or two.
pub fn graph(choices: &[u32]) -> Graph {
    let mut g = Graph::new();
    let n = Dim::from(g.new_sym("N", 1, 4));
    let dims = |d: &[i64]| d.iter().map(|&k| Dim::from(k)).collect::<Vec<_>>();
    let image = [vec![n.clone()], dims(&[4, 5, 6])].concat();
    let x = g.add_input("image", Type::tensor(Dtype::F32, image));
    let t = g.add_input("tokens", Type::tensor(Dtype::F32, [vec![n], dims(&[3, 8])].concat()));
    let root = g.root();
    let mut b = Builder::new(&mut g, "n");
    let mut made = vec![x, t];
    for (i, &c) in choices.iter().enumerate() {
        b.name = format!("n{i}");
        let mut pick = Pick(c);
        let v = made[pick.below(made.len().min(4)).min(made.len() - 1)];
        let other = made[pick.below(made.len())];
        // What does not fit the operands is left out.
        if let Ok(v) = step(&mut b, v, other, [x, t], &mut pick) {
            made.insert(0, v);
        }
    }
    b.into_region(root);
    g.add_output("y", made[0]);
    g.add_output("z", made[1]);
    g
}

struct Pick(u32);

impl Pick {
    fn below(&mut self, n: usize) -> usize {
        let n = n.max(1) as u32;
        let r = self.0 % n;
        self.0 = (self.0 / n).wrapping_mul(0x9e37_79b1) ^ (self.0 >> 16);
        r as usize
    }
}

/// A weight with fixed pseudo-random elements in ±0.5.
fn weight(b: &mut Builder<'_>, dims: &[i64], pick: &mut Pick) -> Value {
    let n = dims.iter().product::<i64>() as usize;
    let seed = pick.below(97) as u32;
    let xs: Vec<f32> = (0..n as u32)
        .map(|i| ((i + seed).wrapping_mul(2654435761) >> 16) as f32 / 65536.0 - 0.5)
        .collect();
    b.floats(dims, &xs)
}

/// One more value of `x` and `y`. What jumps (floors, branches) looks at the graph's `inputs`, which
/// no order of arithmetic changes: a test that compares two ways of computing could not tell a
/// sum's last bit from a mistake otherwise.
fn step(
    b: &mut Builder<'_>,
    x: Value,
    y: Value,
    inputs: [Value; 2],
    pick: &mut Pick,
) -> crate::build::Built {
    use UnaryOp::*;
    let dims = b.g.dims(x).to_vec();
    let rank = dims.len();
    let last = dims.last().and_then(Dim::as_const).unwrap_or(1);
    match pick.below(19) {
        0..=2 => {
            let ops = [Neg, Abs, Tanh, Sigmoid, Erf, Floor, Sin, Cos];
            let op = ops[pick.below(8)];
            let x = if op == Floor { b.bin_scalar(BinaryOp::Mul, inputs[0], 4.0)? } else { x };
            b.un(op, x)
        }
        3 | 4 => {
            let ops = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Sub, BinaryOp::Max];
            let y = if b.g.dims(y) == dims { y } else { weight(b, &[last], pick) };
            b.bin(ops[pick.below(4)], x, y)
        }
        5 | 6 => {
            let ops = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Sub, BinaryOp::Min];
            let k = [0.0, 1.0, 0.5, -2.0][pick.below(4)];
            b.bin_scalar(ops[pick.below(4)], x, k)
        }
        7 => {
            let ops = [ReduceOp::Mean, ReduceOp::Max, ReduceOp::Sum, ReduceOp::Min];
            let keep = rank < 2 || pick.below(2) == 0;
            let axis = pick.below(rank);
            let r = b.reduce(ops[pick.below(4)], x, &[axis], keep)?;
            if keep { b.sub(x, r) } else { Ok(r) }
        }
        8 => {
            let axis = pick.below(rank);
            b.source(Softmax { axis, log: pick.below(2) == 0 }, &[x])
        }
        9 => {
            let (s, o) = (weight(b, &[last], pick), weight(b, &[last], pick));
            b.source(LayerNorm { axis: rank - 1, eps: 1e-5 }, &[x, s, o])
        }
        10 => {
            let acts = [
                Activation::Relu,
                Activation::Gelu,
                Activation::Clip { lo: 0.0, hi: f64::INFINITY },
                Activation::LeakyRelu { alpha: f64::from(0.1f32) },
                Activation::Swish { beta: 1.0 },
                Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 },
            ];
            b.source(acts[pick.below(6)], &[x])
        }
        11 | 12 if rank == 4 => {
            let c = dims[1].as_const().unwrap_or(1);
            let w = weight(b, &[6, c, 3, 3], pick);
            let mut geo = Geometry::unit(2);
            geo.before = vec![Dim::from(1i64); 2];
            geo.after = geo.before.clone();
            b.source(Conv { geo, groups: 1 }, &[x, w])
        }
        13 if rank == 4 => {
            let c = dims[1].as_const().unwrap_or(1);
            let parts = [(); 4].map(|()| weight(b, &[c], pick));
            let var = b.constant(Dtype::F32, &[c], 0.7f32.to_le_bytes().repeat(c as usize).into());
            b.source(BatchNorm { eps: 1e-5 }, &[x, parts[0], parts[1], parts[2], var])
        }
        11..=13 => {
            let w = weight(b, &[last, 7], pick);
            b.source(MatMul { trans_a: false, trans_b: false }, &[x, w])
        }
        14 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.rotate_left(pick.below(rank));
            b.transpose(x, &perm)
        }
        15 => {
            let merged = Dim::product(&dims[rank.saturating_sub(2)..]);
            let shape = [&dims[..rank.saturating_sub(2)], &[merged]].concat();
            b.reshape(x, shape)
        }
        16 => {
            let axis = pick.below(rank);
            let len = dims[axis].as_const().unwrap_or(0).max(1);
            if dims[axis].as_const().is_none() {
                return Ok(x);
            }
            b.narrow(x, axis, 0i64.into(), pick.below(len as usize).max(1).into())
        }
        17 => b.concat(&[x, x], pick.below(rank)),
        _ => branch(b, x, inputs[1]),
    }
}

/// `max(on) > 0.95 ? -x : |x|` with regions.
fn branch(b: &mut Builder<'_>, x: Value, on: Value) -> crate::build::Built {
    let axes: Vec<usize> = (0..b.g.dims(on).len()).collect();
    let max = b.reduce(ReduceOp::Max, on, &axes, false)?;
    let cond = b.bin_scalar(BinaryOp::Gt, max, 0.95)?;
    let arm = |b: &mut Builder<'_>, op: UnaryOp| -> crate::build::Built<u32> {
        let mut inner = b.nested();
        let y = inner.prim(Prim::Unary(op), &[x])?;
        let nodes = inner.finish();
        let r = b.g.new_region();
        b.g.regions[r].nodes = nodes;
        b.g.regions[r].results = vec![y];
        Ok(r.0)
    };
    let (then, orelse) = (arm(b, UnaryOp::Neg)?, arm(b, UnaryOp::Abs)?);
    let ty = b.g.ty(x).clone();
    Ok(b.control(Control::If { then, orelse }, &[cond], vec![ty])[0])
}
