//! Placement against the reference: whole plans run by the kernel interpreter, the arena placed as
//! the runtime places it and checked by the independent checker; answers compare with the portable
//! meaning of the graph before fusion.

use hub_abi::dim::SymEnv;
use hub_abi::plan::{Arg, Buf, Plan, Step};
use hub_abi::{Dim, Dtype, trace};
use hub_codegen::kir::{Kernel, interp};
use hub_codegen::place::{self, Backend, Tier, compile};
use hub_codegen::target::{self, Target};
use hub_ir::ops::{activation::Activation, conv::Conv, norm};
use hub_ir::{BinaryOp, Builder, Geometry, Graph, Prim, ReduceOp, Type, Value};
use hub_portable::{Limits, Tensor};
use std::cell::RefCell;

/// Lowers as the x86 target does; keeps kernels instead of emitting them.
struct Interpreted {
    target: Target,
    kernels: RefCell<Vec<Kernel>>,
}

impl Backend for Interpreted {
    fn target(&self) -> &Target {
        &self.target
    }
    fn tier(&self) -> &str {
        "interpreted"
    }
    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        self.kernels.borrow_mut().push(kernel.clone());
        Ok(vec![0xC3])
    }
}

/// The plan on interpreted kernels.
struct Machine<'a> {
    tier: &'a Tier,
    kernels: &'a [Kernel],
    env: SymEnv,
    /// Memory: the arena, constants, inputs, outputs.
    mem: Vec<Vec<u8>>,
    /// Where each buffer lies: memory and offset.
    at: Vec<(usize, i64)>,
}

impl<'a> Machine<'a> {
    fn new(
        tier: &'a Tier,
        kernels: &'a [Kernel],
        consts: &[u8],
        inputs: &[Vec<u8>],
        env: SymEnv,
    ) -> Self {
        let size = |d: &Dim| u64::try_from(d.eval(&env).expect("bound")).expect("not negative");
        let (rooms, placed) = trace::place_and_trace(&tier.plan, &env).expect("it is right");
        // Not zeros: whatever is read before it is written must show.
        let mut mem = vec![vec![0xFF; placed.total as usize], consts.to_vec()];
        mem.extend(inputs.iter().cloned());
        let mut at = vec![];
        for (b, room) in tier.plan.bufs.iter().zip(&rooms.of) {
            at.push(match b {
                Buf::Arena { .. } => (0, placed.offsets[room.expect("in the arena")] as i64),
                Buf::Const { offset, .. } => (1, *offset as i64),
                Buf::Input(i) => (2 + *i as usize, 0),
                Buf::Output { bytes, .. } => {
                    mem.push(vec![0xFF; size(bytes) as usize]);
                    (mem.len() - 1, 0)
                }
            });
        }
        Machine { tier, kernels, env, mem, at }
    }

    fn eval(&self, d: &Dim) -> i64 {
        d.eval(&self.env).expect("bound")
    }

    fn step(&mut self, s: &Step, iteration: i64) {
        match s {
            Step::Kernel { kernel, args, tiles, node, .. } => {
                let args: Vec<interp::Arg> = args
                    .iter()
                    .map(|a| match a {
                        Arg::Ptr { buf, offset, bump, .. } => {
                            let (buf, base) = self.at[*buf as usize];
                            let offset = base + self.eval(offset) + iteration * self.eval(bump);
                            interp::Arg::Buf { buf, offset }
                        }
                        Arg::Size(d) => interp::Arg::Size(self.eval(d)),
                        Arg::Status => interp::Arg::Status,
                    })
                    .collect();
                let tiles = self.eval(tiles) as u64;
                let k = &self.kernels[*kernel as usize];
                assert_eq!(tiles, interp::tiles(k, &args), "tiles of {node}");
                let status = interp::run(k, &args, &mut self.mem, 0..tiles);
                assert_eq!(status.unwrap_or_else(|e| panic!("{node}: {e}")), 0, "{node}");
            }
            Step::Repeat { trip, body } => {
                for i in 0..self.eval(trip) {
                    body.steps.iter().for_each(|s| self.step(s, i));
                }
            }
            other => panic!("{other:?}, host: {:?}", self.tier.refused),
        }
    }
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(2_654_435_761) | 1;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Compiles `g` for both vector widths and compares with its reference on inputs of these dims. Gives
/// the number of results that take the room of an operand.
fn check(g: &Graph, dims: &[&[usize]]) -> usize {
    let mut over = 0;
    let inputs: Vec<Vec<f32>> =
        dims.iter().enumerate().map(|(i, d)| noise(d.iter().product(), i as u32 + 7)).collect();
    let tensors: Vec<_> = inputs
        .iter()
        .zip(dims)
        .map(|(x, d)| Tensor::from_bytes(Dtype::F32, d, &bytes(x)).expect("a tensor").into())
        .collect();
    let (pg, store) = hub_ir::portable::to_portable(g).expect("expands");
    let mut flat = vec![0; store.len as usize];
    for (at, b) in &store.pieces {
        flat[*at as usize..*at as usize + b.len()].copy_from_slice(b);
    }
    let flat = hub_portable::BytesStore::new(std::sync::Arc::new(flat));
    let want = hub_portable::run(&pg, &flat, &tensors, &Limits::default()).expect("runs");
    for tier in [target::Tier::Avx2, target::Tier::Avx512] {
        let mut fused = g.clone();
        hub_passes::optimize(&mut fused, &hub_passes::Options::default()).expect("passes");
        let backend = Interpreted { target: Target::of(tier), kernels: RefCell::default() };
        let mut c = compile(&mut fused, &[&backend], &place::Limits::default()).expect("places");
        let mut consts: Vec<u8> = vec![];
        c.lay_out(&mut |b| {
            consts.resize(consts.len().next_multiple_of(64), 0);
            consts.extend_from_slice(&b);
            (consts.len() - b.len()) as u64
        })
        .expect("lays out");
        let mut env = SymEnv::new(fused.syms.len());
        for (&p, d) in fused.regions[fused.root()].params.iter().zip(dims) {
            for (dim, n) in fused.dims(p).iter().zip(*d) {
                if let Some(s) = dim.as_sym() {
                    env.set(s, *n as i64);
                }
            }
        }
        over += corrupted(&c.tiers[0].plan, &env);
        let raw: Vec<Vec<u8>> = inputs.iter().map(|x| bytes(x)).collect();
        let kernels = backend.kernels.into_inner();
        let mut m = Machine::new(&c.tiers[0], &kernels, &consts, &raw, env);
        for s in &c.tiers[0].plan.steps {
            m.step(s, 0);
        }
        for (o, w) in c.tiers[0].plan.outputs.iter().zip(&want) {
            let hub_abi::plan::OutputSource::Buf(b) = o else { panic!("on the heap") };
            let (mem, at) = m.at[*b as usize];
            let hub_portable::Value::Tensor(w) = w else { panic!("no tensor") };
            let got = &m.mem[mem][at as usize..];
            compare(got, w.bytes());
        }
    }
    over
}

/// The trace refuses the plan once any of its takings-over is spoilt. Gives how many there are.
fn corrupted(plan: &Plan, env: &SymEnv) -> usize {
    let mut found = 0;
    for (b, buf) in plan.bufs.iter().enumerate() {
        let Buf::Arena { first, over: Some(a), .. } = buf else { continue };
        let at = *first as usize;
        found += 1;
        let spoilt = |what: &str, change: &dyn Fn(&mut Plan)| {
            let mut p = plan.clone();
            change(&mut p);
            assert!(trace::place_and_trace(&p, env).is_err(), "buffer {b} over {a}: {what}");
        };
        let touch = |a: &Arg, of: u32| matches!(a, Arg::Ptr { buf, .. } if *buf == of);
        spoilt("the kernel does not allow it", &|p| {
            let Step::Kernel { kernel, .. } = &p.steps[at] else { panic!("a kernel") };
            p.kernels[*kernel as usize].shares.clear();
        });
        spoilt("what was taken is read later", &|p| {
            let Step::Kernel { args, .. } = &p.steps[at] else { panic!("a kernel") };
            let read = args.iter().find(|x| touch(x, *a)).expect("it is read").clone();
            let again = p.steps[at].clone();
            p.steps.insert(at + 1, again);
            let Step::Kernel { args, .. } = &mut p.steps[at + 1] else { panic!("a kernel") };
            *args = vec![read];
        });
        spoilt("it is read elsewhere than written", &|p| {
            let Step::Kernel { args, .. } = &mut p.steps[at] else { panic!("a kernel") };
            for x in args.iter_mut().filter(|x| touch(x, *a)) {
                let Arg::Ptr { offset, extent, .. } = x else { unreachable!() };
                (*offset, *extent) = (offset.plus(4), extent.plus(-4));
            }
        });
    }
    found
}

fn compare(got: &[u8], want: &[u8]) {
    assert_eq!(got.len(), want.len());
    let f = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("4 bytes"));
    let top = want.chunks_exact(4).map(|b| f(b).abs()).fold(0.0, f32::max);
    for (i, (a, b)) in got.chunks_exact(4).zip(want.chunks_exact(4)).enumerate() {
        let (a, b) = (f(a), f(b));
        assert!((a - b).abs() <= 1e-4 * top, "element {i}: {a} for {b} (greatest {top})");
    }
}

fn input(g: &mut Graph, name: &str, dims: &[i64]) -> Value {
    let dims = dims
        .iter()
        .map(|&d| if d < 0 { g.new_sym(name, 1, 1 << 20).into() } else { Dim::from(d) })
        .collect();
    g.add_input(name, Type::tensor(Dtype::F32, dims))
}

fn weights(b: &mut Builder<'_>, dims: &[i64], seed: u32) -> Value {
    let n: i64 = dims.iter().product();
    b.floats(dims, &noise(n as usize, seed))
}

fn conv(b: &mut Builder<'_>, x: Value, m: i64, k: i64, stride: i64, groups: i64) -> Value {
    let c = b.g.dims(x)[1].as_const().expect("channels");
    let w = weights(b, &[m, c / groups, k, k], (m + k) as u32);
    let bias = weights(b, &[m], m as u32);
    let pad = vec![Dim::from(k / 2); 2];
    let geo =
        Geometry { stride: vec![stride; 2], dilation: vec![1; 2], before: pad.clone(), after: pad };
    b.source(Conv { geo, groups }, &[x, w, bias]).expect("a convolution")
}

fn finish(mut g: Graph, build: impl FnOnce(&mut Builder<'_>) -> Vec<Value>) -> Graph {
    let root = g.root();
    let mut b = Builder::new(&mut g, "test");
    let outs = build(&mut b);
    b.into_region(root);
    for (i, v) in outs.into_iter().enumerate() {
        g.add_output(&format!("y{i}"), v);
    }
    g
}

#[test]
fn a_small_network_of_convolutions() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[1, 3, 12, 10]);
    let g = finish(g, |b| {
        let a = conv(b, x, 20, 3, 2, 1);
        let a = b.source(Activation::Relu, &[a]).expect("relu");
        let d = conv(b, a, 20, 3, 1, 20);
        let h = b.source(Activation::HardSwish { offset: 3.0, threshold: 6.0, scale: 6.0 }, &[d]);
        let r = conv(b, h.expect("hard swish"), 20, 1, 1, 1);
        let s = b.add(r, a).expect("residual");
        let pool = b.reduce(ReduceOp::Mean, s, &[2, 3], true).expect("mean");
        let gate = conv(b, pool, 20, 1, 1, 1);
        let y = b.mul(s, gate).expect("gate");
        vec![
            b.prim(Prim::Reduce { op: ReduceOp::Max, axes: vec![2, 3], keep: false }, &[y])
                .expect("max"),
            y,
        ]
    });
    check(&g, &[&[1, 3, 12, 10]]);
}

#[test]
fn residual_sums_lie_over_what_they_add_to() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[1, 24, 9, 8]);
    let g = finish(g, |b| {
        let relu = |b: &mut Builder<'_>, x| b.source(Activation::Relu, &[x]).expect("relu");
        let a = conv(b, x, 24, 1, 1, 1);
        let a = relu(b, a);
        let h = conv(b, a, 8, 1, 1, 1);
        let h = conv(b, h, 8, 3, 1, 1);
        let r = conv(b, h, 24, 1, 1, 1);
        let s = b.add(r, a).expect("residual");
        // From here on images have halos, which are filled once for both.
        let s = conv(b, s, 24, 1, 1, 1);
        let p = relu(b, s);
        let q = conv(b, p, 24, 3, 1, 1);
        let q = conv(b, q, 24, 3, 1, 1);
        let u = b.add(q, p).expect("residual");
        vec![conv(b, u, 8, 3, 1, 1)]
    });
    assert!(check(&g, &[&[1, 24, 9, 8]]) >= 4, "two sums, two targets");
}

#[test]
fn a_concatenation_by_pitch_and_a_padded_window() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[2, 16, 9, 9]);
    let g = finish(g, |b| {
        let a = conv(b, x, 16, 1, 1, 1);
        let c = conv(b, x, 24, 3, 1, 1);
        let cat = b.concat(&[a, c], 1).expect("concat");
        let one = vec![Dim::from(1i64); 2];
        let geo =
            Geometry { stride: vec![2; 2], dilation: vec![1; 2], before: one.clone(), after: one };
        let p = Prim::Window { op: ReduceOp::Max, kernel: vec![3, 3], geo };
        let pooled = b.prim(p, &[cat]).expect("pool");
        let out = conv(b, cat, 8, 3, 1, 1);
        vec![pooled, out]
    });
    check(&g, &[&[2, 16, 9, 9]]);
}

#[test]
fn an_attention_head_block_of_any_length() {
    let mut g = Graph::new();
    let x = input(&mut g, "n", &[1, -1, 32]);
    let g = finish(g, |b| {
        let dims = b.g.dims(x).to_vec();
        let split = vec![dims[0].clone(), dims[1].clone(), 2i64.into(), 16i64.into()];
        let mut qkv = vec![];
        for i in 0..3 {
            let w = weights(b, &[32, 32], i + 1);
            let p = b.matmul(x, w).expect("projection");
            let p = b.reshape(p, split.clone()).expect("heads");
            qkv.push(b.transpose(p, &[0, 2, 1, 3]).expect("heads first"));
        }
        let kt = b.transpose(qkv[1], &[0, 1, 3, 2]).expect("keys");
        let s = b.matmul(qkv[0], kt).expect("scores");
        let s = b.bin_scalar(BinaryOp::Mul, s, 0.25).expect("scale");
        let p = b.source(norm::Softmax { axis: 3, log: false }, &[s]).expect("softmax");
        let o = b.matmul(p, qkv[2]).expect("mix");
        let o = b.transpose(o, &[0, 2, 1, 3]).expect("tokens first");
        let o = b.reshape(o, dims).expect("merged");
        let w = weights(b, &[32, 32], 9);
        let o = b.matmul(o, w).expect("output");
        let o = b.add(o, x).expect("residual");
        let (gain, bias) = (weights(b, &[32], 4), weights(b, &[32], 5));
        vec![b.source(norm::LayerNorm { axis: 2, eps: 1e-5 }, &[o, gain, bias]).expect("norm")]
    });
    assert!(check(&g, &[&[1, 7, 32]]) >= 2, "the softmax lies over its scores");
    check(&g, &[&[1, 18, 32]]);
}

/// Large enough to be copied into panels, with features that fill no panel at the end.
#[test]
fn operands_that_are_computed() {
    let mut g = Graph::new();
    let (rows, k, n) = (64, 400, 330);
    let a = input(&mut g, "a", &[rows, k]);
    let plain = input(&mut g, "b", &[k, n]);
    let turned = input(&mut g, "c", &[n, k]);
    let both = input(&mut g, "d", &[2, k, n]);
    let x = input(&mut g, "x", &[1, 64, 8, 8]);
    let filter = input(&mut g, "w", &[336, 32, 5, 5]);
    let g = finish(g, |b| {
        let mut product = |w: Value, labels: &[u8], out: &[u8]| {
            let p = Prim::Contract { a: vec![0, 1], b: labels.to_vec(), out: out.to_vec() };
            b.prim(p, &[a, w]).expect("a product")
        };
        let mut ys = vec![product(plain, &[1, 2], &[0, 2]), product(turned, &[2, 1], &[0, 2])];
        ys.push(product(both, &[3, 1, 2], &[3, 0, 2]));
        let two = vec![Dim::from(2i64); 2];
        let geo =
            Geometry { stride: vec![1; 2], dilation: vec![1; 2], before: two.clone(), after: two };
        ys.push(b.prim(Prim::Conv { geo, groups: 2 }, &[x, filter]).expect("a convolution"));
        ys
    });
    let [rows, k, n] = [rows, k, n].map(|n| n as usize);
    check(&g, &[&[rows, k], &[k, n], &[n, k], &[2, k, n], &[1, 64, 8, 8], &[336, 32, 5, 5]]);
}
