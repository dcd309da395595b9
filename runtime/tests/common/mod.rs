//! Small bundles made by hand, with kernels assembled by hand.
#![allow(dead_code)]

use hub_abi::bundle::{BundleWriter, Manifest, TierCode};
use hub_abi::dim::{Dim, Sym, SymInfo};
use hub_abi::dtype::Dtype;
use hub_abi::pgraph::*;
use hub_abi::plan::*;
use hub_abi::prim::{BinaryOp, Prim};
use hub_abi::shape::{TensorType, Type};
use std::path::{Path, PathBuf};

/// Two kernels for any x86-64.
///
/// At 0, `add(x, y, out, per)`: `out[i] = x[i] + y[i]` in f32 for `per` elements a tile:
///
///     mov r8,[rdi]; mov r9,[rdi+8]; mov r10,[rdi+16]; mov rax,[rdi+24]
///     imul rsi,rax; imul rdx,rax
///  1: cmp rsi,rdx; jae 2f
///     movss xmm0,[r8+rsi*4]; addss xmm0,[r9+rsi*4]; movss [r10+rsi*4],xmm0
///     inc rsi; jmp 1b
///  2: ret
///
/// At 64, `take(x, index, out, size, status)`: `out[t] = x[index[t]]` for i64 indices, status 1
/// where one is not below `size`:
///
///     mov r8,[rdi]; mov r9,[rdi+8]; mov r10,[rdi+16]; mov r11,[rdi+24]
///  1: cmp rsi,rdx; jae 2f
///     mov rax,[r9+rsi*8]; cmp rax,r11; jae 3f
///     movss xmm0,[r8+rax*4]; movss [r10+rsi*4],xmm0
///     inc rsi; jmp 1b
///  3: mov rax,[rdi+32]; mov dword ptr [rax],1
///  2: ret
#[rustfmt::skip]
pub const CODE: &[u8] = &[
    0x4c, 0x8b, 0x07, 0x4c, 0x8b, 0x4f, 0x08, 0x4c, 0x8b, 0x57, 0x10, 0x48, 0x8b, 0x47, 0x18, 0x48,
    0x0f, 0xaf, 0xf0, 0x48, 0x0f, 0xaf, 0xd0, 0x48, 0x39, 0xd6, 0x73, 0x17, 0xf3, 0x41, 0x0f, 0x10,
    0x04, 0xb0, 0xf3, 0x41, 0x0f, 0x58, 0x04, 0xb1, 0xf3, 0x41, 0x0f, 0x11, 0x04, 0xb2, 0x48, 0xff,
    0xc6, 0xeb, 0xe4, 0xc3, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90,
    0x4c, 0x8b, 0x07, 0x4c, 0x8b, 0x4f, 0x08, 0x4c, 0x8b, 0x57, 0x10, 0x4c, 0x8b, 0x5f, 0x18, 0x48,
    0x39, 0xd6, 0x73, 0x24, 0x49, 0x8b, 0x04, 0xf1, 0x4c, 0x39, 0xd8, 0x73, 0x11, 0xf3, 0x41, 0x0f,
    0x10, 0x04, 0x80, 0xf3, 0x41, 0x0f, 0x11, 0x04, 0xb2, 0x48, 0xff, 0xc6, 0xeb, 0xe1, 0x48, 0x8b,
    0x47, 0x20, 0xc7, 0x00, 0x01, 0x00, 0x00, 0x00, 0xc3,
];

pub const ADD: u32 = 0;
pub const TAKE: u32 = 1;

/// Do native tiers run here, so that tests see them?
pub fn native() -> bool {
    let yes = hub_runtime::supports("avx2");
    if !yes {
        eprintln!("SKIPPED native part: this processor has no AVX2");
    }
    yes
}

pub fn dim(k: i64) -> Dim {
    Dim::from(k)
}

pub fn sym(s: u32) -> Dim {
    Dim::from(Sym(s))
}

pub fn kernels() -> Vec<KernelInfo> {
    let k = |name: &str, offset, len| KernelInfo {
        name: name.into(),
        offset,
        len,
        schedule: "scalar".into(),
        shares: vec![],
        scratch: 0,
    };
    vec![k("add", 0, 52), k("take", 64, 57)]
}

pub fn plan(bufs: Vec<Buf>, steps: Vec<Step>, outputs: Vec<OutputSource>) -> Plan {
    let tier = "avx2".into();
    Plan { tier, bufs, kernels: kernels(), steps, outputs }
}

pub fn ptr(buf: u32, extent: Dim, write: bool) -> Arg {
    Arg::Ptr { buf, offset: dim(0), extent, write, bump: dim(0) }
}

pub fn call(kernel: u32, args: Vec<Arg>, tiles: Dim, cost: i64, node: &str) -> Step {
    let one = || dim(1);
    let node = node.into();
    Step::Kernel { kernel, args, tiles, cost: dim(cost), flops: one(), bytes: one(), node }
}

pub fn node(op: POp, inputs: &[u32], outputs: &[u32], name: &str) -> PNode {
    PNode { op, inputs: inputs.into(), outputs: outputs.into(), name: name.into() }
}

pub fn tensor(dtype: Dtype, dims: &[Dim]) -> Type {
    Type::tensor(dtype, dims.to_vec())
}

/// A graph of one region.
pub fn graph(
    syms: &[(&str, i64, i64)],
    values: Vec<Type>,
    nodes: Vec<PNode>,
    params: &[u32],
    results: &[u32],
) -> PGraph {
    let sym = |&(name, min, max): &(&str, i64, i64)| SymInfo { name: name.into(), min, max };
    PGraph {
        syms: syms.iter().map(sym).collect(),
        values,
        regions: vec![PRegion { params: params.into(), nodes, results: results.into() }],
        inputs: (0..params.len()).map(|i| format!("in{i}")).collect(),
        outputs: (0..results.len()).map(|i| format!("out{i}")).collect(),
        ..PGraph::default()
    }
}

pub type Writer = BundleWriter<Vec<u8>>;

pub fn writer(name: &str, graph: PGraph, plan: Option<Plan>) -> Writer {
    let mut w = BundleWriter::new(Manifest::of(name, &graph), graph);
    w.tiers = plan.into_iter().map(|plan| TierCode { plan, code: CODE.to_vec() }).collect();
    w
}

/// `out = in + w` over `[n, 4]` with n in 1..1000, w a constant of 4 twice added:
/// `t = in + in; out = t + in`, so that an arena buffer lies between. Tiles are rows.
pub fn triple() -> Writer {
    let t = || tensor(Dtype::F32, &[sym(0), dim(4)]);
    let add = || POp::Prim(Prim::Binary(BinaryOp::Add));
    let g = graph(
        &[("n", 1, 1000)],
        vec![t(), t(), t()],
        vec![node(add(), &[0, 0], &[1], "first"), node(add(), &[1, 0], &[2], "second")],
        &[0],
        &[2],
    );
    let bytes = || sym(0).times(16);
    let args = |x, out| {
        vec![
            ptr(x, bytes(), false),
            ptr(0, bytes(), false),
            ptr(out, bytes(), true),
            Arg::Size(dim(4)),
        ]
    };
    let p = plan(
        vec![
            Buf::Input(0),
            Buf::Arena { bytes: bytes(), first: 0, last: 1, over: None },
            Buf::Output { index: 0, bytes: bytes() },
        ],
        vec![
            call(ADD, args(0, 1), sym(0), 1_000_000, "first"),
            call(ADD, args(1, 2), sym(0), 1_000_000, "second"),
        ],
        vec![OutputSource::Buf(2)],
    );
    writer("triple", g, Some(p))
}

/// `out = in[index]` by native code; indices [3] of a vector of 5, plus a constant scale of ones.
pub fn pick() -> Writer {
    let g = graph(
        &[],
        vec![
            tensor(Dtype::F32, &[dim(5)]),
            tensor(Dtype::I64, &[dim(3)]),
            tensor(Dtype::F32, &[dim(3)]),
        ],
        vec![node(POp::Prim(Prim::Gather { axis: 0 }), &[0, 1], &[2], "pick")],
        &[0, 1],
        &[2],
    );
    let p = plan(
        vec![Buf::Input(0), Buf::Input(1), Buf::Output { index: 0, bytes: dim(12) }],
        vec![call(
            TAKE,
            vec![
                ptr(0, dim(20), false),
                ptr(1, dim(24), false),
                ptr(2, dim(12), true),
                Arg::Size(dim(5)),
                Arg::Status,
            ],
            dim(3),
            10,
            "pick",
        )],
        vec![OutputSource::Buf(2)],
    );
    writer("pick", g, Some(p))
}

/// Sum of the rows of `[t, 4]`, row by row in a repetition, onto a constant start.
pub fn sum_rows() -> Writer {
    use hub_abi::prim::ReduceOp;
    let row = TensorType { dtype: Dtype::F32, dims: vec![dim(4)] };
    let mut g = graph(
        &[("t", 0, 100)],
        vec![
            tensor(Dtype::F32, &[sym(0), dim(4)]),
            Type::Tensor(row.clone()),
            Type::Tensor(row.clone()),
            Type::Tensor(row.clone()),
        ],
        vec![
            node(POp::Const(0), &[], &[1], "start"),
            node(
                POp::Prim(Prim::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }),
                &[0],
                &[2],
                "sum",
            ),
            node(POp::Prim(Prim::Binary(BinaryOp::Add)), &[1, 2], &[3], "add"),
        ],
        &[0],
        &[3],
    );
    g.consts = vec![PConst { ty: row, offset: 0, len: 16, packing: None }];
    let row_ptr = |buf, write| ptr(buf, dim(16), write);
    let x = Arg::Ptr { buf: 0, offset: dim(0), extent: dim(16), write: false, bump: dim(16) };
    let p = plan(
        vec![
            Buf::Input(0),
            Buf::Const { offset: 0, len: 32 },
            Buf::Output { index: 0, bytes: dim(16) },
        ],
        vec![
            // The second half of the constant is zeros.
            call(
                ADD,
                vec![
                    row_ptr(1, false),
                    Arg::Ptr {
                        buf: 1,
                        offset: dim(16),
                        extent: dim(16),
                        write: false,
                        bump: dim(0),
                    },
                    row_ptr(2, true),
                    Arg::Size(dim(4)),
                ],
                dim(1),
                1,
                "start",
            ),
            Step::Repeat {
                trip: sym(0),
                body: Block {
                    region: 0,
                    steps: vec![call(
                        ADD,
                        vec![x, row_ptr(2, false), row_ptr(2, true), Arg::Size(dim(4))],
                        dim(1),
                        1,
                        "sum",
                    )],
                },
            },
        ],
        vec![OutputSource::Buf(2)],
    );
    let mut w = writer("sum_rows", g, Some(p));
    let start = [10f32, 20., 30., 40., 0., 0., 0., 0.];
    w.add_const(start.iter().flat_map(|x| x.to_le_bytes()).collect());
    w
}

/// Indices of non-zeros, doubled: a host step binds the count, its result lies in an arena buffer
/// of that size, another host step casts it, a kernel doubles it.
pub fn nonzero_twice() -> Writer {
    let g = graph(
        &[("n", 1, 50), ("count", 0, 50)],
        vec![
            tensor(Dtype::F32, &[sym(0)]),
            tensor(Dtype::I64, &[dim(1), sym(1)]),
            tensor(Dtype::F32, &[dim(1), sym(1)]),
            tensor(Dtype::F32, &[dim(1), sym(1)]),
        ],
        vec![
            node(POp::Prim(Prim::NonZero { count: Sym(1) }), &[0], &[1], "nonzero"),
            node(POp::Prim(Prim::Cast { to: Dtype::F32, saturate: true }), &[1], &[2], "cast"),
            node(POp::Prim(Prim::Binary(BinaryOp::Add)), &[2, 2], &[3], "double"),
        ],
        &[0],
        &[3, 1],
    );
    let f32s = || sym(1).times(4);
    let p = plan(
        vec![
            Buf::Input(0),
            Buf::Arena { bytes: sym(1).times(8), first: 0, last: 1, over: None },
            Buf::Arena { bytes: f32s(), first: 1, last: 2, over: None },
            Buf::Output { index: 0, bytes: f32s() },
        ],
        vec![
            Step::Host { node: 0, inputs: vec![(0, 0)], outputs: vec![(1, 1)] },
            Step::Host { node: 1, inputs: vec![(1, 1)], outputs: vec![(2, 2)] },
            call(
                ADD,
                vec![
                    ptr(2, f32s(), false),
                    ptr(2, f32s(), false),
                    ptr(3, f32s(), true),
                    Arg::Size(dim(1)),
                ],
                sym(1),
                1,
                "double",
            ),
        ],
        vec![OutputSource::Buf(3), OutputSource::Heap(1)],
    );
    writer("nonzero_twice", g, Some(p))
}

/// A folder that is removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("hub-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn write(&self, name: &str, w: Writer) -> PathBuf {
        let path = self.0.join(name);
        w.write(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn bytes<T: Copy, const N: usize>(v: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    v.iter().flat_map(|&x| f(x)).collect()
}

pub fn f32s(b: &[u8]) -> Vec<f32> {
    b.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// Opens a bundle and makes a session on `tier` (`None`: the best).
pub fn session(path: &Path, tier: Option<&str>, threads: usize) -> hub_runtime::Session {
    let model = hub_runtime::Model::open(path, &Default::default()).unwrap();
    let options =
        hub_runtime::SessionOptions { threads, tier: tier.map(String::from), ..Default::default() };
    hub_runtime::Session::new(&model, &options).unwrap()
}
