//! The interpreter's checks: what it must refuse.

use hub_abi::Dtype;
use hub_codegen::kir::interp::{Arg, Fault, run};
use hub_codegen::kir::*;

const F: RegTy = RegTy { elem: Elem::F32, lanes: 4 };

/// Builds over one buffer of 64 bytes, two tiles, and runs.
fn fault(f: impl FnOnce(&mut KernelBuilder, ParamId, AxisId)) -> Result<u32, Fault> {
    let mut b = KernelBuilder::new("k");
    let p = b.ptr("p", Dtype::F32, Access::ReadWrite);
    b.status();
    let g = b.grid("g", 2);
    f(&mut b, p, g);
    let k = b.finish();
    let args = [Arg::Buf { buf: 0, offset: 0 }, Arg::Status];
    run(&k, &args, &mut [vec![0; 64]], 0..2)
}

fn says(r: Result<u32, Fault>, what: &str) {
    let e = r.expect_err("a fault").to_string();
    assert!(e.contains(what), "{e}");
}

#[test]
fn accesses_stay_inside_buffers() {
    says(
        fault(|b, p, g| {
            b.load(F, Addr::param(p).plus(g, 52), Dtype::F32, None);
        }),
        "outside",
    );
    says(
        fault(|b, p, _| {
            b.load(F, Addr::param(p).offset(-4), Dtype::F32, None);
        }),
        "outside",
    );
    // lanes that a mask turns off are not accessed
    let r = fault(|b, p, g| {
        let m = b.first_lanes(4, 3);
        b.load(F, Addr::param(p).plus(g, 52), Dtype::F32, Some(m));
    });
    assert_eq!(r, Ok(0));
}

#[test]
fn tiles_do_not_race() {
    says(
        fault(|b, p, _| {
            let z = b.zero(F);
            b.store(z, Addr::param(p), Dtype::F32, None);
        }),
        "race",
    );
    says(
        fault(|b, p, g| {
            let v = b.load(F, Addr::param(p), Dtype::F32, None);
            b.store(v, Addr::param(p).plus(g, 16), Dtype::F32, None);
        }),
        "race",
    );
    let own = fault(|b, p, g| {
        let v = b.load(F, Addr::param(p).plus(g, 16), Dtype::F32, None);
        b.store(v, Addr::param(p).plus(g, 16), Dtype::F32, None);
        b.load(F, Addr::param(p).offset(32), Dtype::F32, None);
    });
    assert_eq!(own, Ok(0));
}

#[test]
fn scratch_does_not_outlive_a_tile() {
    says(
        fault(|b, _, g| {
            let s = b.scratch(64);
            let i = b.index(Affine::default().plus(g, 1));
            b.if_(CmpOp::Eq, i, 0, |b| {
                let z = b.zero(F);
                b.store(z, Addr::scratch().offset(s), Dtype::F32, None);
            });
            b.load(F, Addr::scratch().offset(s), Dtype::F32, None);
        }),
        "not initialised",
    );
}

/// A team of two that stores to scratch, the first worker at 0, the other at `apart`, and then reads
/// what the other stored; `meets` between.
fn team(apart: i64, meets: bool) -> Result<u32, Fault> {
    fault(|b, _, _| {
        let at = b.scratch(64);
        let member = b.team(2);
        let z = b.zero(F);
        b.store(z, Addr::scratch().offset(at).plus(member, apart), Dtype::F32, None);
        if meets {
            b.barrier();
        }
        let other = Addr::scratch().offset(at + apart).plus(member, -apart);
        b.load(F, other, Dtype::F32, None);
    })
}

#[test]
fn workers_of_a_team_wait_for_one_another() {
    assert_eq!(team(16, true), Ok(0));
    says(team(16, false), "scratch");
    says(team(8, true), "race: two workers");
    // All come to a barrier, or none.
    says(
        fault(|b, _, _| {
            let member = b.team(2);
            let m = b.index(Affine::default().plus(member, 1));
            b.if_(CmpOp::Eq, m, 0, |b| b.barrier());
        }),
        "go apart",
    );
}

#[test]
fn domains_are_checked_and_indices_reported() {
    says(
        fault(|b, _, _| {
            let t = RegTy::new(Elem::I32, 4);
            let (x, n) = (b.const_i(t, 1), b.const_i(t, 32));
            b.bin(BinOp::Shl, x, n);
        }),
        "shift",
    );
    let status = fault(|b, _, g| {
        let i = b.index(Affine::constant(-2).plus(g, 4));
        b.check_index(i, 2); // −2 wraps to 0; 2 is out of range
    });
    assert_eq!(status, Ok(1));
}

#[test]
fn malformed_kernels_are_refused() {
    let build = |f: &dyn Fn(&mut KernelBuilder, ParamId)| {
        let mut b = KernelBuilder::new("k");
        let p = b.ptr("p", Dtype::F32, Access::Read);
        f(&mut b, p);
        verify(&b.finish()).map_err(|e| e.what)
    };
    assert!(
        build(&|b, p| {
            b.load(F, Addr::param(p), Dtype::F32, None);
        })
        .is_ok()
    );
    type Make<'a> = &'a dyn Fn(&mut KernelBuilder, ParamId);
    let bad: [Make<'_>; 6] = [
        // a register that no path, or only one path, assigned
        &|b, _| {
            let r = b.reg(F);
            b.add(r, r);
        },
        &|b, p| {
            let r = b.reg(F);
            b.for_("k", 0, 1, |b, _| {
                let x = b.load(F, Addr::param(p), Dtype::F32, None);
                b.copy_to(r, x);
            });
            b.add(r, r);
        },
        // types that do not agree
        &|b, p| {
            let x = b.load(F, Addr::param(p), Dtype::F32, None);
            let y = b.zero(RegTy::new(Elem::F32, 8));
            b.add(x, y);
        },
        // a write through a read-only pointer
        &|b, p| {
            let z = b.zero(F);
            b.store(z, Addr::param(p), Dtype::F32, None);
        },
        // an axis outside its loop
        &|b, p| {
            let mut a = None;
            b.for_("k", 3, 1, |_, x| a = Some(x));
            b.load(F, Addr::param(p).plus(a.unwrap(), 4), Dtype::F32, None);
        },
        // bytes that such a register cannot hold
        &|b, p| {
            b.load(F, Addr::param(p), Dtype::I64, None);
        },
    ];
    for (n, f) in bad.into_iter().enumerate() {
        assert!(build(f).is_err(), "case {n}");
    }
}

#[test]
fn kernels_print() {
    let mut b = KernelBuilder::new("axpy");
    let x = b.ptr("x", Dtype::F32, Access::Read);
    let y = b.ptr("y", Dtype::F32, Access::ReadWrite);
    let n = b.size("n");
    let g = b.grid("row", n);
    let k = b.const_f(F, 2.0);
    b.for_("i", n, 4, |b, i| {
        let v = b.load(F, Addr::param(x).plus(g, n).plus(i, 16), Dtype::F32, None);
        let w = b.load(F, Addr::param(y).plus(g, n).plus(i, 16), Dtype::F32, None);
        let r = b.fma(v, k, w);
        b.store(r, Addr::param(y).plus(g, n).plus(i, 16), Dtype::F32, None);
    });
    let text = b.finish().to_string();
    assert_eq!(
        text,
        "kernel axpy
  param x: read f32
  param y: readwrite f32
  param n: size
  grid row in n
  v0:f32x4 = const 2.0
  for i in n unroll 4:
    v1:f32x4 = load f32 [x + row*n + i*16]
    v2:f32x4 = load f32 [y + row*n + i*16]
    v3:f32x4 = fma v1, v0, v2
    store f32 [y + row*n + i*16] = v3
"
    );
}
