//! Winograd's kernels against the portable meaning of convolution.

mod placed;

use hub_abi::prim::Prim;
use hub_codegen::lower::winograd::filter::Filter;
use hub_codegen::lower::winograd::{Plan, every, lower_as, plans};
use hub_codegen::lower::{conv, with_lanes};
use hub_codegen::target::Target;
use hub_codegen::task::{Format, Lowered, Refused, Task};
use placed::problem::*;
use placed::{Layout, pick};

/// Lowers by plan number `i` (modulo their number) with tiles of `m`.
fn by_plan(task: &Task<'_>, t: &Target, m: i64, i: usize) -> Result<Lowered, Refused> {
    conv::with_conv(task, |c| {
        let dims = &task.inputs[c.w].dims;
        let size = |a: usize| dims[a].as_const().unwrap();
        let filter = Filter { m, n: size(0), c: size(1) };
        if task.inputs[c.w].format == Format::Strided {
            return Err(Refused::Transform { input: c.w, filter });
        }
        let all: Vec<Plan> = plans(c, t, true).into_iter().filter(|p| p.filter == filter).collect();
        with_lanes(t.lanes(), |lanes| lower_as(c, t, all[i % all.len()], lanes))
    })
}

/// `[n, c, h, w]` through a filter of `features`.
#[allow(clippy::too_many_arguments)]
fn check(
    s: &mut u64,
    x: [usize; 4],
    features: usize,
    pads: [i64; 4],
    end: End,
    late: bool,
    plan: usize,
) {
    for t in targets().into_iter().filter(|t| t.own_core) {
        for m in [2, 4] {
            let w = [features, x[1], 3, 3];
            let when = vec![late, false, late, late];
            let specs = [(x.to_vec(), when, false), (w.to_vec(), vec![false; 4], true)];
            let geo = geometry(&[1; 2], &[1; 2], &pads[..2], &pads[2..]);
            let mut g = group(s, Prim::Conv { geo, groups: 1 }, &specs, end, 1).group;
            // A halo of just what is asked for: reading farther is found out.
            let halo = pads.iter().copied().max().unwrap();
            let mut l = Layout::unit(4, 1);
            l.halo = (halo > 0).then_some((halo, 0.0));
            l.slack = (16 - x[1] as i64 % 16) % 16;
            g.inputs[0].layout = l;
            let how = g.check(&t, |task, t| by_plan(task, t, m, plan));
            assert!(how.starts_with(&format!("winograd {m}x{m}")), "{how}");
        }
    }
}

#[test]
fn whole_tiles_and_cut_ones() {
    let s = &mut 1;
    check(s, [1, 16, 8, 8], 32, [1; 4], End::BiasRelu, false, 0);
    check(s, [2, 16, 7, 9], 16, [1; 4], End::ResidualSilu, false, 1);
    check(s, [1, 32, 6, 5], 48, [0; 4], End::Nothing, false, 2);
    check(s, [1, 16, 3, 3], 16, [1; 4], End::BiasRelu, false, 0);
    check(s, [1, 20, 14, 14], 20, [1; 4], End::ResidualSilu, false, 3);
    // Half a panel: with eight lanes its last vector has no features at all.
    check(s, [1, 16, 8, 8], 24, [1; 4], End::BiasRelu, false, 0);
}

#[test]
fn channels_in_chunks() {
    let s = &mut 5;
    for t in targets().into_iter().filter(|t| t.own_core) {
        let specs = [
            (vec![1, 512, 5, 6], vec![false; 4], false),
            (vec![32, 512, 3, 3], vec![false; 4], true),
        ];
        let geo = geometry(&[1; 2], &[1; 2], &[1; 2], &[1; 2]);
        let mut g = group(s, Prim::Conv { geo, groups: 1 }, &specs, End::BiasRelu, 1).group;
        g.inputs[0].layout = Layout { halo: Some((1, 0.0)), ..Layout::unit(4, 1) };
        let how = g.check(&t, |task, t| {
            conv::with_conv(task, |c| {
                let filter = Filter { m: 4, n: 32, c: 512 };
                if task.inputs[c.w].format == Format::Strided {
                    return Err(Refused::Transform { input: c.w, filter });
                }
                let all = every(c, t, filter);
                let chunked = all.iter().find(|p| p.1.depth == 128).expect("a plan in chunks").1;
                with_lanes(t.lanes(), |lanes| lower_as(c, t, chunked, lanes))
            })
        });
        assert!(how.contains("depth 128"), "{how}");
    }
}

#[test]
fn sizes_bound_late() {
    let s = &mut 2;
    check(s, [1, 16, 9, 13], 32, [1; 4], End::BiasRelu, true, 0);
    check(s, [2, 16, 4, 1], 16, [1; 4], End::ResidualSilu, true, 2);
}

#[test]
fn random_problems() {
    let s = &mut 3;
    for _ in 0..6 {
        let mut p = |n| pick(s, n) as usize;
        let x = [1 + p(2), 16 + p(20), 3 + p(14), 3 + p(14)];
        let (features, pad, end) = (16 + p(40), p(3) as i64, ENDS[p(3)]);
        let (late, plan) = (p(3) == 0, p(12));
        check(s, x, features, [pad, 1, 1, pad], end, late, plan);
    }
}

#[test]
fn the_model_takes_it_where_it_pays_and_exactness_forbids_it() {
    let s = &mut 4;
    for t in targets().into_iter().filter(|t| t.own_core) {
        let ask = |s: &mut u64, x: [usize; 4], features: usize, t: &Target| {
            let specs = [
                (x.to_vec(), vec![false; 4], false),
                (vec![features, x[1], 3, 3], vec![false; 4], true),
            ];
            let geo = geometry(&[1; 2], &[1; 2], &[1; 2], &[1; 2]);
            let mut g = group(s, Prim::Conv { geo, groups: 1 }, &specs, End::BiasRelu, 1).group;
            g.inputs[0].layout = Layout { halo: Some((1, 0.0)), ..Layout::unit(4, 1) };
            g.lower(t, conv::lower).0.schedule
        };
        let wide = ask(s, [1, 64, 56, 56], 64, &t);
        assert!(wide.starts_with("winograd 4x4"), "{wide}");
        let exact = ask(s, [1, 64, 56, 56], 64, &Target { exact: true, ..t });
        assert!(exact.starts_with("conv"), "{exact}");
        // A tuner is offered the other way, and other blocks of the same.
        let next = |choice| ask(&mut 4, [1, 64, 56, 56], 64, &Target { choice, ..t });
        assert!(next(1).starts_with("conv"), "{}", next(1));
        assert!(next(2).starts_with("winograd") && next(2) != wide, "{}", next(2));
        let narrow = ask(s, [1, 512, 7, 7], 512, &t);
        assert!(!narrow.starts_with("winograd 4x4"), "{narrow}");
    }
}
