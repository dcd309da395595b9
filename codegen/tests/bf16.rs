//! Contractions and convolutions of bf16 operands with f32 sums, against their portable meaning:
//! every tier and CUDA, packed and plain operands, tails, windows, images of few pixels. On AMX's tier
//! machine code runs too, its tile instructions by software; PTX is interpreted.

mod placed;

use hub_abi::prim::{BinaryOp, Geometry, Prim};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, SymEnv};
use hub_codegen::lower::winograd::{self, filter::Filter};
use hub_codegen::lower::{contract, conv, with_lanes};
use hub_codegen::target::{Target, Tier};
use hub_codegen::task::{Format, Refused};
use hub_ir::Graph;
use hub_ir::build::Builder;
use placed::{Group, Input, Layout, random, random_of};

/// `prim` on bf16 operands of these sizes (the second a constant or not), widened; a bias along
/// `feature` and max with 0; the result as f32 or rounded.
fn group(
    seed: &mut u64,
    prim: Prim,
    sizes: [&[usize]; 2],
    constant: bool,
    feature: usize,
    round: bool,
) -> Group {
    of(seed, prim, sizes, [Dtype::BF16; 2], constant, feature, round)
}

/// As [`group`], on operands of these dtypes.
fn of(
    seed: &mut u64,
    prim: Prim,
    sizes: [&[usize]; 2],
    dtypes: [Dtype; 2],
    constant: bool,
    feature: usize,
    round: bool,
) -> Group {
    let mut g = Graph::new();
    let region = g.new_region();
    let fixed = |s: &[usize]| s.iter().map(|&n| Dim::from(n)).collect::<Vec<_>>();
    let mut inputs = vec![];
    let mut params = vec![];
    for (i, (s, dtype)) in sizes.iter().zip(dtypes).enumerate() {
        let ty = TensorType { dtype, dims: fixed(s) };
        params.push(g.add_param(region, Type::Tensor(ty)));
        let tensor = random_of(seed, dtype, s);
        inputs.push(Input { tensor, constant: constant && i == 1, layout: Layout::dense(s.len()) });
    }
    let types = sizes.map(|s| TensorType { dtype: Dtype::F32, dims: fixed(s) });
    let out = prim.infer(&types, &mut Default::default()).unwrap().remove(0);
    let rank = out.dims.len();
    let n = out.dims[feature].as_const().unwrap() as usize;
    let shape: Vec<usize> = (feature..rank).map(|a| if a == feature { n } else { 1 }).collect();
    let bias = TensorType { dtype: Dtype::F32, dims: fixed(&shape) };
    params.push(g.add_param(region, Type::Tensor(bias)));
    let layout = Layout::dense(shape.len());
    inputs.push(Input { tensor: random(seed, &shape), constant: true, layout });
    let mut b = Builder::new(&mut g, "t");
    let mut wide = |i: usize| match dtypes[i] {
        Dtype::F32 => params[i],
        _ => b.cast(params[i], Dtype::F32).unwrap(),
    };
    let (x, w) = (wide(0), wide(1));
    let y = b.prim(prim, &[x, w]).unwrap();
    let y = b.add(y, params[2]).unwrap();
    let zero = b.scalar(Dtype::F32, 0.0);
    let mut y = b.bin(BinaryOp::Max, y, zero).unwrap();
    if round {
        y = b.cast(y, Dtype::BF16).unwrap();
    }
    b.into_region(region);
    g.regions[region].results.push(y);
    let outputs = vec![Layout::unit(rank, feature)];
    Group { g, region, inputs, outputs, fill: 0.0, env: SymEnv::new(0), poison: true }
}

fn targets() -> [Target; 5] {
    let [a, b, c, d] = Tier::ALL;
    [a, b, c, d, Tier::Sm80].map(Target::of)
}

/// Tile registers are asked for by name: those of AMX, or a warp's, whose rows are in chunks of eight.
fn tiled(t: &Target, how: &str, amx: bool, mma: bool) {
    let (amx, mma) = (amx && t.tier == Tier::Amx, mma && t.tier == Tier::Sm80);
    assert_eq!((how.contains("amx"), how.contains("mma")), (amx, mma), "{how}");
}

#[test]
fn products_of_bf16() {
    let mut seed = 1;
    for t in targets() {
        let sizes =
            [(1, 40, 33), (5, 8, 16), (30, 20, 100), (40, 96, 48), (3, 5, 7), (20, 384, 40)];
        for (m, k, n) in sizes {
            for (constant, round) in [(true, false), (true, true), (false, true)] {
                let prim = Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] };
                let mut g = group(&mut seed, prim, [&[m, k], &[k, n]], constant, 1, round);
                let how = g.check(&t, contract::lower);
                tiled(&t, &how, constant && m > 1 && k % 2 == 0, constant && k % 4 == 0 && k != 20);
            }
        }
    }
}

/// A state that stays f32 with weights that do not.
#[test]
fn products_with_bf16_weights() {
    let mut seed = 5;
    for t in targets() {
        for (m, k, n) in [(1, 40, 33), (1, 128, 512), (5, 8, 16), (3, 5, 7)] {
            let prim = Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] };
            let dtypes = [Dtype::F32, Dtype::BF16];
            let mut g = of(&mut seed, prim, [&[m, k], &[k, n]], dtypes, true, 1, false);
            g.check(&t, contract::lower);
        }
    }
}

/// f16: in tiles where warps multiply these, else widened.
#[test]
fn products_and_convolutions_of_f16() {
    let mut seed = 6;
    for t in [Tier::Avx512, Tier::Avx2, Tier::Sm80].map(Target::of) {
        for (m, k, n) in [(1, 40, 33), (30, 20, 100), (40, 96, 48), (20, 384, 40)] {
            let prim = Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] };
            let mut g = of(&mut seed, prim, [&[m, k], &[k, n]], [Dtype::F16; 2], true, 1, false);
            tiled(&t, &g.check(&t, contract::lower), false, k % 8 == 0);
        }
        for (c, k) in [(16, 1), (24, 3), (20, 3)] {
            let pad = vec![Dim::from((k / 2) as i64); 2];
            let geo = Geometry {
                stride: vec![1; 2],
                dilation: vec![1; 2],
                before: pad.clone(),
                after: pad,
            };
            let sizes: [&[usize]; 2] = [&[1, c, 6, 19], &[40, c, k, k]];
            let prim = Prim::Conv { geo, groups: 1 };
            let mut g = of(&mut seed, prim, sizes, [Dtype::F16; 2], true, 1, false);
            g.inputs[0].layout = Layout::unit(4, 1);
            tiled(&t, &g.check(&t, conv::lower), false, c % 8 == 0);
        }
    }
}

#[test]
fn scores_and_values_of_attention() {
    let mut seed = 2;
    for t in targets() {
        for (a, b, out, sizes) in [
            ([0, 1, 2, 3], [0, 1, 4, 3], [0, 1, 2, 4], [[2, 3, 9, 8], [2, 3, 11, 8]]),
            ([0, 1, 2, 4], [0, 1, 4, 3], [0, 1, 2, 3], [[2, 3, 9, 12], [2, 3, 12, 20]]),
        ] {
            let prim = Prim::Contract { a: a.to_vec(), b: b.to_vec(), out: out.to_vec() };
            let sizes = [&sizes[0][..], &sizes[1][..]];
            for dtype in [Dtype::BF16, Dtype::F16] {
                let mut g = of(&mut seed, prim.clone(), sizes, [dtype; 2], false, 3, true);
                g.check(&t, contract::lower);
            }
        }
    }
}

#[test]
fn convolutions_of_bf16() {
    let mut seed = 3;
    // Channels, size, filters, taps, stride, groups.
    let cases = [
        (16, [6, 37], 40, 1, 1, 1),
        (24, [7, 7], 20, 3, 1, 1),
        (40, [9, 33], 18, 3, 2, 1),
        (32, [5, 70], 64, 1, 2, 1),
        (16, [8, 8], 32, 3, 1, 2),
        (5, [8, 8], 16, 3, 1, 1),
    ];
    for t in targets() {
        for (c, size, m, k, stride, groups) in cases {
            let pad = Dim::from((k / 2) as i64);
            let geo = Geometry {
                stride: vec![stride; 2],
                dilation: vec![1; 2],
                before: vec![pad.clone(); 2],
                after: vec![pad; 2],
            };
            let prim = Prim::Conv { geo, groups };
            let sizes: [&[usize]; 2] = [&[2, c, size[0], size[1]], &[m, c / groups as usize, k, k]];
            let mut g = group(&mut seed, prim, sizes, true, 1, c % 3 == 0);
            g.inputs[0].layout = Layout::unit(4, 1);
            let how = g.check(&t, conv::lower);
            tiled(&t, &how, c % 2 == 0, c % 2 == 0);
        }
    }
}

/// Sums and transforms are f32; what the model of cycles would take is not asked.
#[test]
fn filtering_by_winograd() {
    let mut seed = 4;
    let cases = [([1, 16, 8, 8], 32), ([2, 20, 7, 9], 24), ([1, 64, 5, 13], 48)];
    for t in targets() {
        for (x, m) in cases {
            for tile in [2, 4].into_iter().filter(|_| t.own_core) {
                let pad = vec![Dim::from(1i64); 2];
                let geo = Geometry {
                    stride: vec![1; 2],
                    dilation: vec![1; 2],
                    before: pad.clone(),
                    after: pad,
                };
                let w = [m, x[1], 3, 3];
                let prim = Prim::Conv { geo, groups: 1 };
                let mut g = group(&mut seed, prim, [&x, &w], true, 1, true);
                let slack = (16 - x[1] as i64 % 16) % 16;
                g.inputs[0].layout = Layout { halo: Some((1, 0.0)), slack, ..Layout::unit(4, 1) };
                let how = g.check(&t, |task, t| {
                    conv::with_conv(task, |c| {
                        let filter = Filter { m: tile, n: m as i64, c: x[1] as i64 };
                        if task.inputs[c.w].format == Format::Strided {
                            return Err(Refused::Transform { input: c.w, filter });
                        }
                        let plan = winograd::every(c, t, filter)[0].1;
                        with_lanes(t.lanes(), |lanes| winograd::lower_as(c, t, plan, lanes))
                    })
                });
                assert!(how.starts_with(&format!("winograd {tile}x{tile}")), "{how}");
            }
        }
    }
}
