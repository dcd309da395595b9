//! Contraction tiles as machine code against the interpreter: many rows of a stride known only at
//! run time, unrolled loops with remainders, nested loops, bounds from registers.

mod common;
use common::{Same, check};
use hub_abi::Dtype;
use hub_codegen::kir::interp::{self, Arg};
use hub_codegen::kir::*;

/// C[mr·mo + i][nv·lanes] = A × packed B, with `unroll` copies of the K loop.
pub fn tile(mr: i64, nv: i64, lanes: usize, unroll: u32) -> Kernel {
    let mut b = KernelBuilder::new("tile");
    let a = b.ptr("a", Dtype::F32, Access::Read);
    let w = b.ptr("b", Dtype::F32, Access::Read);
    let c = b.ptr("c", Dtype::F32, Access::Write);
    let (m, n, k) = (b.size("m"), b.size("n"), b.size("k"));
    let (sa, sc, sp) = (b.size("sa"), b.size("sc"), b.size("sp"));
    let (mo, no) = (b.grid("mo", m), b.grid("no", n));
    let ty = RegTy::new(Elem::F32, lanes);
    let width = lanes as i64 * 4;
    let acc: Vec<Reg> = (0..mr * nv).map(|_| b.zero(ty)).collect();
    b.for_("k", k, unroll, |b, x| {
        let row: Vec<Reg> = (0..nv)
            .map(|j| {
                let at = Addr::param(w).plus(no, sp).plus(x, width * nv).offset(j * width);
                b.load(ty, at, Dtype::F32, None)
            })
            .collect();
        for i in 0..mr {
            let at = Addr::param(a).plus(mo, Coef::from(sa).times(mr)).row(i, sa).plus(x, 4);
            let s = b.load_splat(ty, at, Dtype::F32);
            for j in 0..nv {
                b.fma_acc(acc[(i * nv + j) as usize], s, row[j as usize]);
            }
        }
    });
    for i in 0..mr {
        for j in 0..nv {
            let at = Addr::param(c)
                .plus(mo, Coef::from(sc).times(mr))
                .row(i, sc)
                .plus(no, width * nv)
                .offset(j * width);
            b.store(acc[(i * nv + j) as usize], at, Dtype::F32, None);
        }
    }
    b.finish()
}

fn floats(n: usize, seed: u32) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2_654_435_761) | 1;
    (0..n)
        .flat_map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((x >> 8) as f32 / (1 << 23) as f32 - 1.0).to_le_bytes()
        })
        .collect()
}

fn run_tile(mr: i64, nv: i64, lanes: usize, unroll: u32, ks: &[i64]) -> usize {
    let kern = tile(mr, nv, lanes, unroll);
    let mut ran = 0;
    for &k in ks {
        let (m, n) = (2, 3);
        let (sa, width) = ((k + 3) * 4, nv * lanes as i64 * 4);
        let (sc, sp) = (n * width + 64, k * width);
        let bufs = vec![
            floats((m * mr * sa / 4) as usize, 1),
            floats((n * sp / 4) as usize, 2),
            vec![0u8; (m * mr * sc) as usize],
        ];
        let buf = |buf| Arg::Buf { buf, offset: 0 };
        let s = Arg::Size;
        let args = [buf(0), buf(1), buf(2), s(m), s(n), s(k), s(sa), s(sc), s(sp)];
        ran += check(&kern, &args, &bufs, Same::F32);
    }
    ran
}

#[test]
fn contraction_tiles_agree_with_the_interpreter() {
    let t = common::tiers().len();
    assert_eq!(run_tile(6, 2, 8, 4, &[0, 1, 3, 4, 5, 11]), 6 * t);
    assert_eq!(run_tile(1, 1, 8, 1, &[0, 1, 7]), 3 * t);
    assert_eq!(run_tile(4, 3, 8, 2, &[1, 2, 9]), 3 * t);
    if t == 2 {
        assert_eq!(run_tile(14, 2, 16, 4, &[0, 1, 4, 6, 9]), 5);
        assert_eq!(run_tile(12, 2, 16, 1, &[5]), 1);
        assert_eq!(run_tile(8, 3, 16, 4, &[13]), 1);
    }
}

#[test]
fn a_tile_that_does_not_fit_is_refused() {
    use hub_codegen::targets::x86::{Refused, Target, Tier, emit};
    let e = emit(&tile(16, 2, 16, 1), &Target::of(Tier::Avx512)).unwrap_err();
    assert!(matches!(e, Refused::Registers { class: "vector", .. }), "{e}");
}

/// Blocks of every type turn in registers, whole and with rows missing, one instruction a step.
#[test]
fn blocks_turn_in_registers() {
    use hub_codegen::targets::x86::{Target, disassemble, emit};
    let elems = [(Elem::F32, Dtype::F32), (Elem::I64, Dtype::I64)];
    for (e, d) in elems {
        for n in [16 / e.size(), 32 / e.size(), 64 / e.size()] {
            for rows in [n, n - 1, n / 2, 1] {
                let size = d.size() as i64;
                let mut b = KernelBuilder::new(format!("turn_{n}_of_{d}_{rows}_rows"));
                let s = b.ptr("s", d, Access::Read);
                let t = b.ptr("t", d, Access::Write);
                let ty = RegTy::new(e, n);
                let x: Vec<Reg> = (0..rows as i64)
                    .map(|i| b.load(ty, Addr::param(s).offset(i * n as i64 * size), d, None))
                    .collect();
                let m = b.first_lanes(n, rows as i64);
                for (i, r) in turn::transposed(&mut b, &x).into_iter().enumerate() {
                    b.store(r, Addr::param(t).offset((i * n) as i64 * size), d, Some(m));
                }
                let k = b.finish();
                let src: Vec<u8> = (0..n * n * d.size()).map(|i| (i * 7 + i / 256) as u8).collect();
                let bufs = vec![src.clone(), vec![0; src.len()]];
                let args = [Arg::Buf { buf: 0, offset: 0 }, Arg::Buf { buf: 1, offset: 0 }];
                let tiers = common::tiers();
                let wide = n * e.size() == 64;
                assert_eq!(check(&k, &args, &bufs, Same::Bits), tiers.len() - wide as usize);
                let mut mem = bufs;
                interp::run(&k, &args, &mut mem, 0..1).unwrap();
                for i in 0..n {
                    for j in 0..rows {
                        let at = |i: usize, j: usize| (i * n + j) * d.size()..;
                        let w = d.size();
                        assert_eq!(mem[1][at(i, j)][..w], src[at(j, i)][..w], "{} {i} {j}", k.name);
                    }
                }
                if let Ok(code) = emit(&k, &Target::of(*tiers.last().unwrap())) {
                    let text = disassemble(&code.bytes[..code.code_len]);
                    assert!(!text.contains("vpermi2"), "an index vector in\n{text}");
                }
            }
        }
    }
}
