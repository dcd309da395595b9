//! Bundles written and read back, and what must not be read: truncations, flipped bytes, wild fields.

use super::*;
use crate::dim::{Dim, Sym};
use crate::dtype::Dtype;
use crate::pgraph::*;
use crate::plan::*;
use crate::prim::{BinaryOp, Prim};
use crate::shape::TensorType;

/// `y = x + w`, x and w of 4 f32, with one kernel of `ret` instructions.
fn sample() -> BundleWriter<Vec<u8>> {
    let ty = TensorType { dtype: Dtype::F32, dims: vec![Dim::from(4i64)] };
    let node = |op, inputs: &[u32], outputs: &[u32], name: &str| PNode {
        op,
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        name: name.into(),
    };
    let graph = PGraph {
        syms: vec![SymInfo { name: "n".into(), min: 1, max: 9 }],
        values: vec![Type::Tensor(ty.clone()); 3],
        consts: vec![PConst { ty: ty.clone(), offset: 64, len: 16, packing: None }],
        regions: vec![PRegion {
            params: vec![0],
            nodes: vec![
                node(POp::Const(0), &[], &[1], "w"),
                node(POp::Prim(Prim::Binary(BinaryOp::Add)), &[0, 1], &[2], "add"),
            ],
            results: vec![2],
        }],
        inputs: vec!["x".into()],
        outputs: vec!["y".into()],
        ..PGraph::default()
    };
    let manifest = Manifest::of("sample", &graph);
    let mut w = BundleWriter::new(manifest, graph);
    w.add_const(vec![7; 5]);
    assert_eq!(w.add_const([1f32, 2., 3., 4.].iter().flat_map(|x| x.to_le_bytes()).collect()), 64);
    w.tiers = ["avx512", "avx2"].map(tier).into();
    w.extra.push((".hub.future".into(), b"for later".to_vec()));
    w
}

fn tier(name: &str) -> TierCode {
    let ptr = |buf, write| Arg::Ptr {
        buf,
        offset: 0i64.into(),
        extent: 16i64.into(),
        write,
        bump: 0i64.into(),
    };
    let one = || Dim::from(1i64);
    let kernel = |i: u64| KernelInfo {
        name: format!("add_{i}"),
        offset: 16 * i,
        len: 1,
        schedule: "scalar".into(),
        shares: vec![],
        scratch: 0,
    };
    let plan = Plan {
        tier: name.into(),
        bufs: vec![
            Buf::Input(0),
            Buf::Const { offset: 64, len: 16 },
            Buf::Output { index: 0, bytes: 16i64.into() },
        ],
        kernels: vec![kernel(0), kernel(1)],
        steps: vec![Step::Repeat {
            trip: one(),
            body: Block {
                region: 0,
                steps: vec![Step::Kernel {
                    kernel: 1,
                    args: vec![ptr(0, false), ptr(1, false), ptr(2, true), Arg::Size(4i64.into())],
                    tiles: one(),
                    cost: one(),
                    flops: one(),
                    bytes: one(),
                    node: "add".into(),
                }],
            },
        }],
        outputs: vec![OutputSource::Buf(2)],
    };
    let mut code = vec![0x90; 17];
    (code[0], code[16]) = (0xc3, 0xc3);
    TierCode { plan, code }
}

fn refused(file: &[u8]) -> Option<BundleError> {
    BundleView::parse(file).and_then(|v| v.verify()).err()
}

#[test]
fn what_is_written_is_read() {
    let (a, b) = (sample().to_vec().unwrap(), sample().to_vec().unwrap());
    assert_eq!(a, b, "the same content gives the same bytes");
    let v = BundleView::parse(&a).unwrap();
    v.verify().unwrap();
    assert_eq!(**v.graph().unwrap(), sample().graph);
    assert_eq!(v.consts().len(), 80);
    assert_eq!(v.const_range().start % PAGE as usize, 0);
    assert_eq!(v.section(".hub.future"), Some(&b"for later"[..]));
    let t = v.tier("avx2").unwrap();
    assert_eq!(t.plan, tier("avx2").plan);
    assert_eq!(a[t.code.clone()], tier("avx2").code);
    assert_eq!(t.code.start % PAGE as usize, 0);
    assert!(v.tier("amx").is_err());
}

#[test]
fn every_flipped_byte_is_an_error_with_its_place() {
    let good = sample().to_vec().unwrap();
    let mut file = good.clone();
    for at in 0..good.len() {
        // All bytes that mean something, and a sample of the padding.
        if good[at] == 0 && at % 61 != 0 {
            continue;
        }
        file[at] ^= 0x20;
        let e = refused(&file).unwrap_or_else(|| panic!("byte {at} flipped unnoticed"));
        assert!(e.offset <= file.len() as u64, "{e}");
        file[at] = good[at];
    }
}

#[test]
fn every_truncation_is_an_error() {
    let good = sample().to_vec().unwrap();
    for n in (0..good.len()).step_by(97) {
        assert!(refused(&good[..n]).is_some(), "{n} bytes");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(refused(&longer).is_some());
}

#[test]
fn wild_header_fields_are_errors() {
    let good = sample().to_vec().unwrap();
    let shoff = u64::from_le_bytes(good[40..48].try_into().unwrap()) as usize;
    let shnum = good[60] as usize;
    let wild = [0, 1, 63, 4095, 4096, u64::MAX, u64::MAX - 4095, 1 << 63, good.len() as u64];
    let fields = (0..shnum).flat_map(|i| [24, 32].map(|f| shoff + 64 * i + f)).chain([32, 40]);
    for at in fields {
        for w in wild {
            let mut file = good.clone();
            file[at..at + 8].copy_from_slice(&w.to_le_bytes());
            assert!(file == good || refused(&file).is_some(), "{w} at {at}");
        }
    }
    for count in [0u16, 1, 2, 255, 256, 257, 0xffff] {
        let mut file = good.clone();
        file[60..62].copy_from_slice(&count.to_le_bytes());
        assert!(refused(&file).is_some(), "{count} sections");
    }
}

/// A bundle whose graph or plan is wrong: the writer must refuse it, and so must the reader, though
/// all hashes fit.
#[track_caller]
fn wrong(change: impl Fn(&mut BundleWriter<Vec<u8>>), why: &str) {
    let mut w = sample();
    change(&mut w);
    let e = w.to_vec().unwrap_err().to_string();
    assert!(e.contains(why), "{e}");
    let mut w = sample();
    change(&mut w);
    w.unchecked = true;
    let e = refused(&w.to_vec().unwrap()).expect("the reader refuses it");
    assert!(e.fault == Fault::Broken && e.offset > 0, "{e}");
}

#[test]
fn wrong_graphs_are_refused() {
    wrong(|w| w.graph.root = 5, "root region");
    wrong(|w| w.graph.consts[0].offset = u64::MAX - 3, "outside");
    wrong(|w| w.graph.consts[0].len = 12, "do not hold");
    wrong(|w| w.graph.consts[0].ty.dims = vec![(1i64 << 62).into(), 8i64.into()], "no size");
    wrong(|w| w.graph.regions[0].nodes[1].inputs[1] = 2, "not defined");
    wrong(|w| w.graph.regions[0].nodes[1].inputs.push(1), "do not fit");
    wrong(|w| w.graph.regions[0].nodes[1].outputs[0] = 1, "defined twice");
    wrong(|w| w.graph.regions[0].nodes[0].op = POp::Const(3), "constant does not exist");
    wrong(|w| w.graph.regions[0].nodes[0].op = POp::Group(0), "params and results");
    wrong(|w| w.graph.syms[0].min = 10, "bounds");
    wrong(|w| w.graph.values[0] = Type::tensor(Dtype::F32, vec![Sym(1).into()]), "unknown symbol");
    let packing = Packing { outer: 1, n: 2, k: 2, k_major: false, taps: 1, block: 16, v: 1 };
    wrong(|w| w.graph.consts[0].packing = Some(packing.clone()), "do not hold");
    let zero = Packing { block: 0, ..packing };
    wrong(|w| w.graph.consts[0].packing = Some(zero.clone()), "constant 0");
    wrong(
        |w| {
            w.graph.regions[0].nodes[0] = PNode {
                op: POp::Group(0),
                inputs: vec![0],
                outputs: vec![1],
                name: "itself".into(),
            }
        },
        "used twice",
    );
}

#[test]
fn wrong_plans_are_refused() {
    let body = |w: &mut BundleWriter<_>| match &mut w.tiers[0].plan.steps[0] {
        Step::Repeat { body, .. } => std::mem::take(&mut body.steps),
        _ => unreachable!("the sample has one repetition"),
    };
    wrong(|w| w.tiers[0].plan.kernels[0].len = 18, "outside the code");
    wrong(|w| w.tiers[0].plan.kernels[1].offset = u64::MAX, "outside the code");
    wrong(|w| w.tiers[0].plan.bufs[1] = Buf::Const { offset: 80, len: 1 }, "does not exist");
    wrong(|w| w.tiers[0].plan.bufs[0] = Buf::Input(1), "does not exist");
    wrong(|w| w.tiers[0].plan.bufs[2] = Buf::Input(0), "read-only");
    wrong(|w| w.tiers[0].plan.outputs.clear(), "0 outputs");
    wrong(|w| w.tiers[0].plan.tier = "../x".into(), "tier name");
    wrong(|w| w.tiers[0].plan.kernels[0].scratch = u64::MAX, "scratch");
    let repeat =
        |region, steps| Step::Repeat { trip: Dim::from(2i64), body: Block { region, steps } };
    wrong(
        |w| {
            let inner = body(w);
            let deep = (0..20).fold(inner, |steps, _| vec![repeat(0, steps)]);
            w.tiers[0].plan.steps = deep;
        },
        "nested too deep",
    );
    wrong(
        |w| {
            let inner = body(w);
            w.tiers[0].plan.steps = vec![repeat(1, inner)];
        },
        "not inside region",
    );
    let branch = |cond, region| Step::Branch {
        cond,
        then: Block { region, steps: vec![] },
        orelse: Block::default(),
        node: String::new(),
    };
    wrong(|w| w.tiers[0].plan.steps.push(branch(9, 0)), "does not exist");
    wrong(|w| w.tiers[0].plan.steps.push(branch(0, 7)), "not inside region");
    let bind = |sym, dtype| Step::Bind {
        binds: vec![(Sym(sym), BindFrom::Buf { buf: 0, index: 0, dtype })],
    };
    wrong(|w| w.tiers[0].plan.steps.push(bind(1, Dtype::I64)), "symbol 1");
    wrong(|w| w.tiers[0].plan.steps.push(bind(0, Dtype::F32)), "bound from no integer");
    let moved = |from, to| Step::Move { moves: vec![(Source::Heap(from), to)] };
    wrong(|w| w.tiers[0].plan.steps.push(moved(3, 0)), "value 3");
    wrong(|w| w.tiers[0].plan.steps.push(moved(0, 3)), "value 3");
    let a_loop = |trip, cond, iteration, carried| Step::Loop {
        trip,
        cond,
        first: true,
        iteration,
        most: None,
        count: None,
        carried,
        body: Block::default(),
        node: String::new(),
    };
    let (none, some) = (None, Some(0));
    wrong(|w| w.tiers[0].plan.steps.push(a_loop(some, none, some, vec![])), "read-only");
    wrong(|w| w.tiers[0].plan.steps.push(a_loop(Some(8), none, none, vec![])), "does not exist");
    let carried = Carried { init: Source::Heap(0), param: 0, next: Source::Heap(0), out: 5 };
    wrong(
        |w| w.tiers[0].plan.steps.push(a_loop(none, some, none, vec![carried.clone()])),
        "value 5",
    );
    // A buffer that a loop and a step after it touch lives as long as the loop does.
    wrong(
        |w| {
            let inner = body(w);
            let arena = Buf::Arena { bytes: 16i64.into(), first: 1, last: 2, over: None };
            w.tiers[0].plan.bufs.push(arena);
            let store = |b| Step::Store { stores: vec![(2, b)] };
            w.tiers[0].plan.steps = vec![repeat(0, vec![store(3)]), store(3)];
            w.tiers[0].plan.steps.extend(inner);
        },
        "does not live here",
    );
    wrong(
        |w| w.tiers[0].plan.steps = vec![Step::Host { node: 2, inputs: vec![], outputs: vec![] }],
        "node does not exist",
    );
}

#[test]
fn binutils_read_it_without_complaint() {
    let dir = std::env::temp_dir().join(format!("hub-bundle-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sample.hub");
    sample().write(&path).unwrap();
    let tool = |name: &str, args: &[&str]| {
        let out = std::process::Command::new(name).args(args).arg(&path).output();
        let Ok(out) = out else {
            eprintln!("SKIPPED binutils_read_it_without_complaint: no {name}");
            return None;
        };
        let complaints = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && complaints.is_empty(), "{name}: {complaints}");
        Some(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    if let Some(text) = tool("readelf", &["-a", "-W"]) {
        assert!(!text.contains("arning"), "{text}");
        assert!(text.contains(".text.avx512") && text.contains("add_1"), "{text}");
    }
    if let Some(text) = tool("objdump", &["-d"]) {
        assert!(text.contains("<add_1>:") && text.contains("ret"), "{text}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
    std::fs::remove_dir_all(&dir).unwrap();
}
