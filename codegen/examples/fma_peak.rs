//! Measures the machine's multiply-add peak with a kernel of independent accumulators, then
//! contraction tiles (runtime row stride, packed B) with operands in L1 or L2, in percent of it.
//!
//!     cargo run --release -p hub-codegen --example fma_peak
#![allow(unsafe_code)]

use hub_abi::Dtype;
use hub_codegen::kir::*;
use hub_codegen::targets::x86::{Target, Tier, emit};
use hub_testrun::{Aligned, JitBuffer};
use std::time::Instant;

/// `n` accumulators, each multiplied and added to `k` × 4 times.
fn peak_kernel(n: usize, lanes: usize) -> Kernel {
    let mut b = KernelBuilder::new("peak");
    let c = b.ptr("c", Dtype::F32, Access::Write);
    let k = b.size("k");
    let ty = RegTy::new(Elem::F32, lanes);
    let one = b.const_f(ty, 1.0);
    let x = b.copy(one);
    let acc: Vec<Reg> = (0..n).map(|_| b.zero(ty)).collect();
    b.for_("k", k, 4, |b, _| acc.iter().for_each(|r| b.fma_acc(*r, x, x)));
    for (i, r) in acc.iter().enumerate() {
        b.store(*r, Addr::param(c).offset((i * lanes * 4) as i64), Dtype::F32, None);
    }
    b.finish()
}

fn tile(mr: i64, nv: i64, lanes: usize, unroll: u32) -> Kernel {
    let mut b = KernelBuilder::new("tile");
    let a = b.ptr("a", Dtype::F32, Access::Read);
    let w = b.ptr("b", Dtype::F32, Access::Read);
    let c = b.ptr("c", Dtype::F32, Access::Write);
    let (m, n, k) = (b.size("m"), b.size("n"), b.size("k"));
    let (sa, sc, sp) = (b.size("sa"), b.size("sc"), b.size("sp"));
    let (no, mo) = (b.grid("no", n), b.grid("mo", m));
    let ty = RegTy::new(Elem::F32, lanes);
    let width = lanes as i64 * 4;
    let acc: Vec<Reg> = (0..mr * nv).map(|_| b.zero(ty)).collect();
    b.for_("k", k, unroll, |b, x| {
        let row: Vec<Reg> = (0..nv)
            .map(|j| {
                // panels of one vector each: [N/lanes][K][lanes]
                let at =
                    Addr::param(w).plus(no, Coef::from(sp).times(nv)).row(j, sp).plus(x, width);
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

/// Best GFLOP/s over many short runs.
fn rate(jit: &JitBuffer, args: &[u64], tiles: u64, flops: f64) -> f64 {
    let mut best = 0f64;
    let start = Instant::now();
    while start.elapsed().as_millis() < 600 {
        let t = Instant::now();
        // SAFETY: the buffers in `args` are as large as the kernel's loops reach.
        unsafe { jit.call(args, 0, tiles, std::ptr::null_mut()) };
        best = best.max(flops / t.elapsed().as_secs_f64() / 1e9);
    }
    best
}

fn main() {
    let Some(host) = Target::host_tier() else {
        println!("this host has neither tier");
        return;
    };
    for tier in [Tier::Avx2, Tier::Avx512].into_iter().filter(|t| *t <= host) {
        let t = Target::of(tier);
        let lanes = t.lanes();
        let n = if tier == Tier::Avx2 { 12 } else { 24 };
        let code = emit(&peak_kernel(n, lanes), &t).expect("the peak kernel fits");
        let jit = JitBuffer::new(&code.bytes).expect("executable memory");
        let mut c = Aligned::zeroed(n * lanes * 4);
        let k = 100_000u64;
        let flops = (2 * n * lanes) as f64 * k as f64;
        let peak = rate(&jit, &[c.addr(), k], 1, flops);
        println!("{}: peak {peak:.0} GFLOP/s", tier.name());
        let shapes: &[(i64, i64)] = if tier == Tier::Avx2 {
            &[(6, 2), (4, 3)]
        } else {
            &[(14, 2), (12, 2), (8, 3), (28, 1)]
        };
        for &(mr, nv) in shapes {
            for (k, mo, no) in [(256i64, 4i64, 1i64), (512, 8, 4)] {
                for unroll in [1, 4] {
                    let t0 = Instant::now();
                    let kern = tile(mr, nv, lanes, unroll);
                    let code = match emit(&kern, &t) {
                        Ok(c) => c,
                        Err(e) => {
                            println!("  {mr}x{}: {e}", nv * lanes as i64);
                            continue;
                        }
                    };
                    let us = t0.elapsed().as_micros();
                    let jit = JitBuffer::new(&code.bytes).expect("executable memory");
                    let (sa, sp, sc) =
                        (k * 4 + 64, k * lanes as i64 * 4, no * nv * lanes as i64 * 4);
                    let mut a = Aligned::zeroed((mo * mr * sa) as usize);
                    let mut b = Aligned::zeroed((no * nv * sp) as usize);
                    let mut c = Aligned::zeroed((mo * mr * sc) as usize);
                    let sizes = [mo, no, k, sa, sc, sp].map(|x| x as u64);
                    let args: Vec<u64> =
                        [a.addr(), b.addr(), c.addr()].into_iter().chain(sizes).collect();
                    let flops = (2 * mr * mo * nv * no * lanes as i64 * k) as f64;
                    let r = rate(&jit, &args, (mo * no) as u64, flops);
                    println!(
                        "  {mr}x{} K={k} tiles {mo}x{no} unroll {unroll}: {r:.0} GFLOP/s, {:.1} % of peak \
                         (emitted in {us} us, {} bytes)",
                        nv * lanes as i64,
                        100.0 * r / peak,
                        code.code_len
                    );
                }
            }
        }
    }
}
