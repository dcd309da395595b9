//! Branches, loops and sizes that a run binds: native against the portable meaning.

use hub_abi::{Dim, Dtype, Prim};
use hub_ir::{BinaryOp, Builder, Control, Graph, ReduceOp, Region, Type, UnaryOp, Value};
use hub_portable::Tensor;
use hub_tests::graphs::{check, graph};
use proptest::prelude::*;

const COLS: usize = 4;

fn noise(dims: &[usize], seed: u32) -> Tensor {
    let mut s = seed.wrapping_mul(2_654_435_761) | 1;
    let draw = |_| {
        s ^= s << 13;
        s ^= s >> 17;
        s ^= s << 5;
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..dims.iter().product()).map(draw).collect();
    Tensor::new(dims, data).expect("a tensor")
}

/// A region with the nodes and results that `build` makes from its params.
fn region(
    b: &mut Builder<'_>,
    params: &[Type],
    build: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> u32 {
    let r = b.g.new_region();
    let given: Vec<Value> = params.iter().map(|t| b.g.add_param(r, t.clone())).collect();
    let mut inner = b.nested();
    let results = build(&mut inner, &given);
    inner.into_region(r);
    b.g.regions[r].results = results;
    let Region(r) = r;
    r
}

fn branch(
    b: &mut Builder<'_>,
    cond: Value,
    outs: Vec<Type>,
    then: impl FnOnce(&mut Builder<'_>) -> Vec<Value>,
    orelse: impl FnOnce(&mut Builder<'_>) -> Vec<Value>,
) -> Vec<Value> {
    let then = region(b, &[], |b, _| then(b));
    let orelse = region(b, &[], |b, _| orelse(b));
    b.control(Control::If { then, orelse }, &[cond], outs)
}

fn ty(b: &Builder<'_>, v: Value) -> Type {
    b.g.ty(v).clone()
}

/// Is the greatest element above `k`?
fn above(b: &mut Builder<'_>, x: Value, k: f64) -> Value {
    let axes: Vec<usize> = (0..b.g.dims(x).len()).collect();
    let top = b.reduce(ReduceOp::Max, x, &axes, false).expect("max");
    b.bin_scalar(BinaryOp::Gt, top, k).expect("compares")
}

fn weights(b: &mut Builder<'_>, seed: u32) -> Value {
    let t = noise(&[COLS, COLS], seed);
    let f: Vec<f32> =
        t.bytes().chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    b.floats(&[COLS as i64, COLS as i64], &f)
}

fn dense(b: &mut Builder<'_>, x: Value, seed: u32) -> Value {
    let w = weights(b, seed);
    let y = b.matmul(x, w).expect("matmul");
    b.un(UnaryOp::Tanh, y).expect("tanh")
}

/// A model with one input of `n` rows.
fn rows(build: impl FnOnce(&mut Builder<'_>, Value) -> Vec<Value>) -> Graph {
    let mut g = Graph::new();
    let n = g.new_sym("n", 0, 1 << 20);
    let x = g.add_input("x", Type::tensor(Dtype::F32, vec![n.into(), (COLS as i64).into()]));
    graph(g, |b| build(b, x))
}

fn sets(sizes: &[usize]) -> Vec<Vec<Tensor>> {
    sizes.iter().zip(3..).map(|(&n, seed)| vec![noise(&[n, COLS], seed)]).collect()
}

#[test]
fn both_branches_run_natively_with_captures() {
    let g = rows(|b, x| {
        let (h, t) = (dense(b, x, 1), ty(b, x));
        let cond = above(b, x, 0.97);
        let outs = branch(
            b,
            cond,
            vec![t.clone(), t.clone()],
            |b| vec![dense(b, h, 2), h],
            |b| {
                let y = b.add(x, h).expect("add");
                vec![b.mul(y, y).expect("mul"), x]
            },
        );
        let sum = b.add(outs[0], outs[1]).expect("add");
        vec![sum, outs[1], outs[0]]
    });
    let host = check(&g, &sets(&[5, 1, 300, 0, 40, 5]));
    assert!(host.is_empty(), "{host:?}");
}

#[test]
fn a_branch_of_two_sizes_binds_the_size() {
    let g = rows(|b, x| {
        let cond = above(b, x, 0.9);
        let rows = b.g.dims(x)[0].clone();
        let s = b.g.new_sym("rows", 0, 1 << 21);
        let t = Type::tensor(Dtype::F32, vec![s.into(), (COLS as i64).into()]);
        let y = branch(
            b,
            cond,
            vec![t],
            |b| vec![b.concat(&[x, x], 0).expect("twice")],
            |b| vec![b.un(UnaryOp::Abs, x).expect("abs")],
        )[0];
        let _ = rows;
        let z = dense(b, y, 3);
        vec![b.reduce(ReduceOp::Sum, z, &[0], false).expect("sum"), z]
    });
    let host = check(&g, &sets(&[2, 50, 0, 3, 50, 1]));
    assert!(host.is_empty(), "{host:?}");
}

/// A loop of `trip` iterations (where given) while `cond` says so.
fn a_loop(
    b: &mut Builder<'_>,
    trip: Option<Value>,
    first: Option<Value>,
    carried: &[Value],
    stacked: &[(Type, Dim)],
    body: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> Vec<Value> {
    let mut params = vec![Type::tensor(Dtype::I64, vec![])];
    params.extend(carried.iter().map(|&v| ty(b, v)));
    let r = region(b, &params, body);
    let mut outs: Vec<Type> = params[1..].to_vec();
    for (t, count) in stacked {
        let t = t.as_tensor().expect("a tensor");
        let dims = std::iter::once(count.clone()).chain(t.dims.iter().cloned()).collect();
        outs.push(Type::tensor(t.dtype, dims));
    }
    let c = Control::Loop {
        body: r,
        has_trip: trip.is_some(),
        has_cond: first.is_some(),
        carried: carried.len() as u32,
    };
    let ins: Vec<Value> = trip.into_iter().chain(first).chain(carried.iter().copied()).collect();
    b.control(c, &ins, outs)
}

#[test]
fn carried_values_change_places() {
    for trip in 0..4 {
        let g = rows(|b, x| {
            let (p, q) = (dense(b, x, 1), dense(b, x, 2));
            let trip = b.scalar(Dtype::I64, trip.into());
            let out = a_loop(b, Some(trip), None, &[p, q, x], &[], |b, given| {
                let yes = b.scalar(Dtype::Bool, 1.0);
                vec![yes, given[2], given[3], given[1]]
            });
            let a = b.sub(out[0], out[1]).expect("sub");
            vec![a, out[2]]
        });
        let host = check(&g, &sets(&[3, 0, 17]));
        assert!(host.is_empty(), "{host:?}");
    }
}

#[test]
fn a_loop_stacks_while_its_condition_holds() {
    let g = rows(|b, x| {
        let trip = b.scalar(Dtype::I64, 6.0);
        let t = ty(b, x);
        let count = b.g.new_sym("count", 0, 1 << 20);
        let out = a_loop(b, Some(trip), None, &[x], &[(t, count.into())], |b, given| {
            let i = b.cast(given[0], Dtype::F32).expect("cast");
            let y = b.bin(BinaryOp::Add, given[1], i).expect("add");
            let y = b.bin_scalar(BinaryOp::Mul, y, 0.5).expect("mul");
            let top = above(b, y, 1.1);
            let go = b.un(UnaryOp::Not, top).expect("not");
            let row = b.mul(y, x).expect("mul");
            vec![go, y, row]
        });
        let s = b.reduce(ReduceOp::Sum, out[1], &[0], false).expect("sum");
        vec![out[0], out[1], s]
    });
    let host = check(&g, &sets(&[4, 1, 0, 200, 4]));
    assert!(host.is_empty(), "{host:?}");
}

#[test]
fn what_follows_a_count_of_nonzeros_is_native() {
    let g = rows(|b, x| {
        let t = picked(b, x, 0.2);
        let y = dense(b, t, 5);
        let s = b.reduce(ReduceOp::Sum, y, &[0], false).expect("sum");
        vec![y, s]
    });
    let host = check(&g, &sets(&[9, 0, 100, 1, 33, 9, 101, 77]));
    assert_eq!(host.len(), 1, "only the count itself: {host:?}");
}

/// Rows of x whose first element is above `k`: as many as the data says.
fn picked(b: &mut Builder<'_>, x: Value, k: f64) -> Value {
    let first = b.narrow(x, 1, 0i64.into(), 1i64.into()).expect("a column");
    let first = b.squeeze(first, 1).expect("a vector");
    let mask = b.bin_scalar(BinaryOp::Gt, first, k).expect("compares");
    let count = b.g.new_sym("count", 0, 1 << 20);
    let at = b.prim(Prim::NonZero { count }, &[mask]).expect("nonzero");
    let at = b.reshape(at, vec![count.into()]).expect("a vector");
    b.prim(Prim::Gather { axis: 0 }, &[x, at]).expect("gather")
}

#[test]
fn host_steps_lie_in_native_bodies() {
    let g = rows(|b, x| {
        let trip = b.scalar(Dtype::I64, 3.0);
        let out = a_loop(b, Some(trip), None, &[x], &[], |b, given| {
            let y = dense(b, given[1], 7);
            // A count that each iteration binds anew, and what depends on it.
            let rows = picked(b, y, 0.1);
            let s = b.reduce(ReduceOp::Sum, rows, &[0], true).expect("sum");
            let z = b.add(y, s).expect("add");
            let yes = b.scalar(Dtype::Bool, 1.0);
            vec![yes, b.un(UnaryOp::Tanh, z).expect("tanh")]
        });
        let cond = above(b, out[0], 0.4);
        let t = ty(b, x);
        let y = branch(
            b,
            cond,
            vec![t],
            |b| {
                let rows = picked(b, out[0], -0.3);
                let s = b.reduce(ReduceOp::Sum, rows, &[0], true).expect("sum");
                vec![b.mul(out[0], s).expect("mul")]
            },
            |b| vec![dense(b, x, 8)],
        )[0];
        vec![y]
    });
    check(&g, &sets(&[6, 0, 40, 6]));
}

#[test]
fn a_carried_tensor_that_grows() {
    let g = rows(|b, x| {
        let trip = b.scalar(Dtype::I64, 3.0);
        let r = b.g.new_region();
        let (s, e) = (b.g.new_sym("grown", 0, 1 << 21), b.g.new_sym("end", 0, 1 << 21));
        let of = |s: hub_abi::Sym| Type::tensor(Dtype::F32, vec![s.into(), (COLS as i64).into()]);
        b.g.add_param(r, Type::tensor(Dtype::I64, vec![]));
        let (grown, fixed) = (b.g.add_param(r, of(s)), ty(b, x));
        let fixed = b.g.add_param(r, fixed);
        let mut inner = b.nested();
        let yes = inner.scalar(Dtype::Bool, 1.0);
        let next = dense(&mut inner, fixed, 4);
        let longer = inner.concat(&[grown, next], 0).expect("grows");
        inner.into_region(r);
        b.g.regions[r].results = vec![yes, longer, next];
        let c = Control::Loop { body: r.0, has_trip: true, has_cond: false, carried: 2 };
        let outs = vec![of(e), ty(b, x)];
        let outs = b.control(c, &[trip, x, x], outs);
        let y = dense(b, outs[0], 6);
        vec![y, outs[1]]
    });
    check(&g, &sets(&[2, 0, 5, 2]));
}

/// Grows a random program over values of one type.
struct Grow {
    script: Vec<u32>,
    next: usize,
    left: u32,
}

impl Grow {
    fn pick(&mut self, n: usize) -> usize {
        self.next += 1;
        self.script.get(self.next - 1).copied().unwrap_or(0) as usize % n
    }

    fn one(&mut self, scope: &[Value]) -> Value {
        let i = self.pick(scope.len());
        scope[scope.len() - 1 - i]
    }

    fn steps(&mut self, b: &mut Builder<'_>, scope: &mut Vec<Value>, depth: usize) {
        for _ in 0..1 + self.pick(4) {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let x = self.one(scope);
            let made = match self.pick(10) {
                0 | 1 => {
                    let y = self.one(scope);
                    let z = b.add(x, y).expect("add");
                    vec![b.un(UnaryOp::Tanh, z).expect("tanh")]
                }
                2 => {
                    let y = self.one(scope);
                    vec![b.mul(x, y).expect("mul")]
                }
                3 => {
                    let seed = self.pick(50) as u32;
                    vec![dense(b, x, seed)]
                }
                4 => {
                    let s = b.reduce(ReduceOp::Max, x, &[1], true).expect("max");
                    vec![b.sub(x, s).expect("sub")]
                }
                5 | 6 if depth < 3 => self.branch(b, x, scope, depth),
                7 | 8 if depth < 3 => self.a_loop(b, scope, depth),
                9 => {
                    let rows = picked(b, x, 0.173);
                    let s = b.reduce(ReduceOp::Sum, rows, &[0], true).expect("sum");
                    let s = b.un(UnaryOp::Tanh, s).expect("tanh");
                    vec![b.add(x, s).expect("add")]
                }
                _ => vec![b.un(UnaryOp::Abs, x).expect("abs")],
            };
            scope.extend(made);
        }
    }

    fn branch(
        &mut self,
        b: &mut Builder<'_>,
        x: Value,
        scope: &[Value],
        depth: usize,
    ) -> Vec<Value> {
        let k = [0.123, 0.377, 0.711, -0.291][self.pick(4)];
        let cond = above(b, x, k);
        let (n, t) = (1 + self.pick(3), ty(b, x));
        let mut sides = vec![];
        for _ in 0..2 {
            sides.push(region(b, &[], |b, _| {
                let mut inner = scope.to_vec();
                self.steps(b, &mut inner, depth + 1);
                (0..n).map(|_| self.one(&inner)).collect()
            }));
        }
        let c = Control::If { then: sides[0], orelse: sides[1] };
        b.control(c, &[cond], vec![t; n])
    }

    fn a_loop(&mut self, b: &mut Builder<'_>, scope: &[Value], depth: usize) -> Vec<Value> {
        let carried: Vec<Value> = (0..self.pick(4)).map(|_| self.one(scope)).collect();
        let trip = self.pick(5);
        let stop = self.pick(3) == 0;
        let stacks = self.pick(3);
        let t = ty(b, scope[0]);
        let count: Dim = match stop && depth == 0 {
            true => b.g.new_sym("count", 0, 99).into(),
            false => (trip as i64).into(),
        };
        // A loop that may stop early stacks nothing where its count cannot be bound.
        let stacks = if stop && depth > 0 { 0 } else { stacks };
        let first = (stop && self.pick(2) == 0).then(|| {
            let x = self.one(scope);
            above(b, x, -0.77)
        });
        let trip = b.scalar(Dtype::I64, trip as f64);
        let outs = vec![(t, count); stacks];
        let made = a_loop(b, Some(trip), first, &carried, &outs, |b, given| {
            let mut inner = [scope, &given[1..]].concat();
            if self.pick(2) == 0 {
                let i = b.cast(given[0], Dtype::F32).expect("cast");
                let x = self.one(&inner);
                let y = b.bin(BinaryOp::Sub, x, i).expect("sub");
                inner.push(b.un(UnaryOp::Tanh, y).expect("tanh"));
            }
            self.steps(b, &mut inner, depth + 1);
            let go = match stop {
                true => {
                    let x = self.one(&inner);
                    above(b, x, -0.31)
                }
                false => b.scalar(Dtype::Bool, 1.0),
            };
            let mut results = vec![go];
            results.extend((0..carried.len() + stacks).map(|_| self.one(&inner)));
            results
        });
        let (values, stacked) = made.split_at(carried.len());
        let mut out = values.to_vec();
        for &s in stacked {
            let sum = b.reduce(ReduceOp::Sum, s, &[0], false).expect("sum");
            out.push(b.un(UnaryOp::Tanh, sum).expect("tanh"));
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs_mean_the_same(script in prop::collection::vec(0u32..1000, 10..120)) {
        check(&grown(&script), &sets(&[3, 0, 20, 3]));
    }
}

fn grown(script: &[u32]) -> Graph {
    rows(|b, x| {
        let mut grow = Grow { script: script.to_vec(), next: 0, left: 24 };
        let mut scope = vec![x];
        grow.steps(b, &mut scope, 0);
        grow.steps(b, &mut scope, 0);
        scope.split_off(scope.len().saturating_sub(4))
    })
}

#[test]
fn a_state_that_another_result_still_reads_is_not_written_over() {
    let g = rows(|b, x| {
        let trip = b.scalar(Dtype::I64, 2.0);
        let t = ty(b, x);

        a_loop(b, Some(trip), None, &[x], &[(t, 2i64.into())], |b, given| {
            let yes = b.scalar(Dtype::Bool, 1.0);
            let next = b.un(UnaryOp::Tanh, x).expect("tanh");
            let row = b.add(given[1], next).expect("add");
            vec![yes, next, b.un(UnaryOp::Tanh, row).expect("tanh")]
        })
    });
    check(&g, &sets(&[3, 20]));
}

/// `PROPTEST_CASES`, or few.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}
