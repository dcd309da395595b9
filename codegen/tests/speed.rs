//! Bandwidth of elementwise, row and movement kernels on this host; run with
//! `cargo test --release -p hub-codegen --test speed -- --ignored --nocapture`.
#![allow(unsafe_code)]

mod support;

use hub_abi::dim::SymEnv;
use hub_codegen::kir::interp::{Arg, tiles};
use hub_codegen::lower::lower;
use hub_codegen::target::Target;
use hub_codegen::targets::x86;
use hub_codegen::task::{Lowered, Operand};
use hub_ir::{BinaryOp, Builder, Graph, GroupKind, Prim, ReduceOp, UnaryOp, Value};
use hub_testrun::{Aligned, JitBuffer};
use std::time::Instant;
use support::*;

/// Best time of a kernel in microseconds, warm.
fn time(l: &Lowered, inputs: usize, target: &Target, ops: &[&Operand]) -> f64 {
    let env = SymEnv::default();
    let mems: Vec<Memory> = ops.iter().map(|o| Memory::new(o, &env, 0, 0x3f)).collect();
    let args = arguments(l, inputs, &mems, &env);
    let code = x86::emit(&l.kernel, target).unwrap();
    let jit = JitBuffer::new(&code.bytes).unwrap();
    let mut bufs: Vec<Aligned> = mems.iter().map(|m| Aligned::from_bytes(&m.bytes)).collect();
    let mut scratch = Aligned::zeroed(l.kernel.scratch_bytes as usize);
    let mut status = [0u32; 2];
    let block: Vec<u64> = args
        .iter()
        .map(|a| match a {
            Arg::Buf { buf, offset } => bufs[*buf].addr().wrapping_add_signed(*offset),
            Arg::Size(n) => *n as u64,
            Arg::Status => status.as_mut_ptr() as u64,
        })
        .collect();
    let n = tiles(&l.kernel, &args);
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed().as_millis() < 300 {
        let t = Instant::now();
        // SAFETY: the block matches the kernel's parameters and its buffers outlive the call.
        unsafe { jit.call(&block, 0, n, scratch.addr() as *mut u8) };
        best = best.min(t.elapsed().as_secs_f64() * 1e6);
    }
    best
}

fn report(name: &str, g: &Graph, kind: GroupKind, lays: (&[Lay], &[Lay])) {
    for t in targets().iter().filter(|t| t.own_core && Some(t.tier) <= Target::host_tier()) {
        let task = task(g, lays.0, lays.1);
        let l = lower(&task, kind, t).unwrap();
        let ops: Vec<&Operand> = task.inputs.iter().chain(&task.outputs).collect();
        let us = time(&l, task.inputs.len(), t, &ops);
        let bytes = l.bytes.eval(&SymEnv::default()).unwrap() as f64;
        let gbs = bytes / us / 1e3;
        println!("{name:24} {:7} {us:9.1} us {gbs:7.1} GB/s  {}", t.tier.name(), l.schedule);
    }
}

fn reduce(b: &mut Builder<'_>, op: ReduceOp, axes: &[u32], x: Value) -> Value {
    b.prim(Prim::Reduce { op, axes: axes.to_vec(), keep: true }, &[x]).unwrap()
}

#[test]
#[ignore = "prints timings"]
fn bandwidth() {
    let d = vec![Lay::Dense; 4];
    for n in [4096i64, 100_000, 4_000_000] {
        let s = (F, dims(&[n]));
        let g = graph(&[s.clone(), s], &[], |b, x| vec![b.add(x[0], x[1]).unwrap()]);
        report(&format!("add {n}"), &g, GroupKind::Map, (&d[..2], &d[..1]));
    }
    let s = (F, dims(&[1, 56, 28, 28]));
    let g = graph(&[s.clone(), s.clone()], &[], |b, x| vec![b.add(x[0], x[1]).unwrap()]);
    let l = [nhwc(8), nhwc(8)];
    report("add nhwc 56+8", &g, GroupKind::Map, (&l, &l[..1]));
    let g = graph(&[s, (F, dims(&[1, 56, 1, 1]))], &[], |b, x| vec![b.mul(x[0], x[1]).unwrap()]);
    report(
        "scale nhwc 56+8",
        &g,
        GroupKind::Map,
        (&[nhwc(8), Lay::Order { order: vec![0, 2, 3, 1], slack: 8 }], &l[..1]),
    );
    let g = graph(&[(F, dims(&[100_000]))], &[], |b, x| vec![b.un(UnaryOp::Erf, x[0]).unwrap()]);
    report("erf", &g, GroupKind::Map, (&d[..1], &d[..1]));
    for n in [64i64, 128, 512] {
        let g = graph(&[(F, dims(&[12, 128, n]))], &[], |b, x| {
            let m = reduce(b, ReduceOp::Max, &[2], x[0]);
            let d = b.sub(x[0], m).unwrap();
            let e = b.un(UnaryOp::Exp, d).unwrap();
            let s = reduce(b, ReduceOp::Sum, &[2], e);
            vec![b.div(e, s).unwrap()]
        });
        report(&format!("softmax 1536x{n}"), &g, GroupKind::Row, (&d[..1], &d[..1]));
    }
    let g = graph(&[(F, dims(&[128, 768])), (F, dims(&[768])), (F, dims(&[768]))], &[], |b, x| {
        let m = reduce(b, ReduceOp::Mean, &[1], x[0]);
        let d = b.sub(x[0], m).unwrap();
        let q = b.mul(d, d).unwrap();
        let v = reduce(b, ReduceOp::Mean, &[1], q);
        let v = b.bin_scalar(BinaryOp::Add, v, 1e-5).unwrap();
        let r = b.un(UnaryOp::Rsqrt, v).unwrap();
        let y = b.mul(d, r).unwrap();
        let y = b.mul(y, x[1]).unwrap();
        vec![b.add(y, x[2]).unwrap()]
    });
    report("layernorm 128x768", &g, GroupKind::Row, (&d[..3], &d[..1]));
    let g = graph(&[(F, dims(&[1, 2048, 7, 7]))], &[], |b, x| {
        vec![reduce(b, ReduceOp::Mean, &[2, 3], x[0])]
    });
    report("gap nhwc 2048x7x7", &g, GroupKind::Row, (&[nhwc(0)], &[nhwc(0)]));
    report("gap nchw 2048x7x7", &g, GroupKind::Row, (&d[..1], &d[..1]));
    for (shape, slack) in [([1, 3, 224, 224], 13), ([1, 256, 56, 56], 0)] {
        let g = graph(&[(F, dims(&shape))], &[], |_, x| vec![x[0]]);
        report(&format!("to nhwc {shape:?}"), &g, GroupKind::Map, (&d[..1], &[nhwc(slack)]));
        report(&format!("to nchw {shape:?}"), &g, GroupKind::Map, (&[nhwc(slack)], &d[..1]));
    }
}
