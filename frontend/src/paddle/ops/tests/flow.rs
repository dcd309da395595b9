//! Loops and branches that no fixture has: values that grow, sizes that only a branch learns.

use super::{answers, count, f32s, i64s, op, same, var};
use crate::paddle::program::{Attr, Block, Dialect, OpDesc, Program};
use hub_abi::Dtype;

fn empty(dialect: Dialect, blocks: usize) -> Program {
    let (vars, params, lods) = (vec![], vec![], Default::default());
    Program { dialect, vars, blocks: vec![Block::default(); blocks], params, lods }
}

/// An operator on whole slots.
fn call(kind: &str, ins: &[(&str, usize)], outs: &[(&str, usize)]) -> OpDesc {
    let mut o = op(kind);
    o.ins = ins.iter().map(|&(s, v)| (s.into(), vec![v])).collect();
    o.outs = outs.iter().map(|&(s, v)| (s.into(), vec![v])).collect();
    o
}

fn with(mut o: OpDesc, name: &str, a: Attr) -> OpDesc {
    o.attrs.insert(name.into(), a);
    o
}

fn fetch(v: usize, col: i64) -> OpDesc {
    with(call("fetch", &[("X", v)], &[]), "col", Attr::Int(col))
}

#[test]
fn a_loop_whose_value_grows_by_a_size_that_a_run_knows() {
    // while i < n: x = concat(x, reshape(y, s)); i += 1, then reshape(y, s) again.
    let mut p = empty(Dialect::Legacy, 2);
    let x = var(&mut p, Dtype::F32, &[1, 2]);
    let y = var(&mut p, Dtype::F32, &[4]);
    let s = var(&mut p, Dtype::I64, &[2]);
    let n = var(&mut p, Dtype::I64, &[1]);
    let i = var(&mut p, Dtype::I64, &[1]);
    let cond = var(&mut p, Dtype::Bool, &[1]);
    let (rows, after) = (var(&mut p, Dtype::F32, &[]), var(&mut p, Dtype::F32, &[]));
    let both = {
        let mut c = call("concat", &[("X", x)], &[("Out", x)]);
        c.ins[0].1.push(rows);
        c
    };
    let main = &mut p.blocks[0].ops;
    for (col, v) in [x, y, s, n].into_iter().enumerate() {
        main.push(with(call("feed", &[], &[("Out", v)]), "col", Attr::Int(col as i64)));
    }
    let zero = with(call("fill_constant", &[], &[("Out", i)]), "shape", Attr::Ints(vec![1]));
    main.push(with(zero, "dtype", Attr::Int(3)));
    main.push(call("less_than", &[("X", i), ("Y", n)], &[("Out", cond)]));
    let mut looped = call("while", &[("Condition", cond), ("X", x)], &[("Out", x)]);
    looped.blocks = vec![1];
    main.push(looped);
    main.push(call("reshape2", &[("X", y), ("ShapeTensor", s)], &[("Out", after)]));
    main.extend([fetch(x, 0), fetch(after, 1)]);
    p.blocks[1].ops = vec![
        call("reshape2", &[("X", y), ("ShapeTensor", s)], &[("Out", rows)]),
        both,
        call("increment", &[("X", i)], &[("Out", i)]),
        call("less_than", &[("X", i), ("Y", n)], &[("Out", cond)]),
    ];
    let feeds =
        |n: i64| vec![f32s(&[1, 2], &[8., 9.]), count(&[4]), i64s(&[2], &[2, 2]), i64s(&[1], &[n])];
    let outs = answers(&p, vec![], feeds(2));
    same(&outs[0], &[5, 2], &[8., 9., 0., 1., 2., 3., 0., 1., 2., 3.]);
    same(&outs[1], &[2, 2], &[0., 1., 2., 3.]);
    let outs = answers(&p, vec![], feeds(0));
    same(&outs[0], &[1, 2], &[8., 9.]);
}

#[test]
fn a_branch_that_changes_what_was_there_before() {
    // if c: x = x + x, y = x (y is new). Else x stays.
    let mut p = empty(Dialect::Legacy, 2);
    let x = var(&mut p, Dtype::F32, &[2]);
    let c = var(&mut p, Dtype::Bool, &[1]);
    let y = var(&mut p, Dtype::F32, &[2]);
    let main = &mut p.blocks[0].ops;
    for (col, v) in [x, c].into_iter().enumerate() {
        main.push(with(call("feed", &[], &[("Out", v)]), "col", Attr::Int(col as i64)));
    }
    let mut branch = call("conditional_block", &[("Cond", c)], &[("Out", y)]);
    branch.blocks = vec![1];
    main.extend([branch, fetch(x, 0), fetch(y, 1)]);
    p.blocks[1].ops = vec![
        call("elementwise_add", &[("X", x), ("Y", x)], &[("Out", x)]),
        call("assign", &[("X", x)], &[("Out", y)]),
    ];
    let run = |yes: bool| {
        let flag = hub_portable::Tensor::bools(&[1], &[yes]).unwrap();
        answers(&p, vec![], vec![f32s(&[2], &[1., 2.]), flag])
    };
    let outs = run(true);
    same(&outs[0], &[2], &[2., 4.]);
    same(&outs[1], &[2], &[2., 4.]);
    let outs = run(false);
    same(&outs[0], &[2], &[1., 2.]);
    same(&outs[1], &[2], &[0., 0.]);
}
