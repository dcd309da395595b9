//! A group placed in memory by hand: what placement does, for one group, so that lowerings can be
//! run by the interpreter (and as machine code) and compared with the portable meaning.
#![allow(dead_code)]

#[path = "../common/mod.rs"]
mod common;
pub mod problem;

use hub_abi::{Dim, Dtype, SymEnv};
use hub_codegen::kir::interp::{self, Arg};
use hub_codegen::kir::verify;
use hub_codegen::target::{Target, Tier};
use hub_codegen::targets::x86;
use hub_codegen::task::{Format, Lowered, Operand, Refused, Task, TaskArg, Which};
use hub_ir::{Graph, Op, Region, Value};
use hub_portable::{Limits, Tensor, eval};
use hub_testrun::{Aligned, JitBuffer};
use std::collections::HashMap;

/// How a tensor lies in memory.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Axes from outermost to innermost.
    pub order: Vec<usize>,
    /// Elements after each innermost row.
    pub slack: i64,
    /// Elements before and after every axis but the first two.
    pub halo: Option<(i64, f64)>,
}

impl Layout {
    /// Row-major.
    pub fn dense(rank: usize) -> Layout {
        Layout { order: (0..rank).collect(), slack: 0, halo: None }
    }

    /// Axis `last` innermost.
    pub fn unit(rank: usize, last: usize) -> Layout {
        let mut order: Vec<usize> = (0..rank).filter(|&a| a != last).collect();
        order.push(last);
        Layout { order, slack: 0, halo: None }
    }
}

/// An input of the group.
pub struct Input {
    /// Its value.
    pub tensor: Tensor,
    /// A constant of the model.
    pub constant: bool,
    /// Where it lies.
    pub layout: Layout,
}

/// A group to test.
pub struct Group {
    /// The graph.
    pub g: Graph,
    /// The region.
    pub region: Region,
    /// One per param.
    pub inputs: Vec<Input>,
    /// One per result.
    pub outputs: Vec<Layout>,
    /// What padding holds.
    pub fill: f64,
    /// Values of symbols.
    pub env: SymEnv,
    /// Accesses to memory that no operand owns are errors.
    pub poison: bool,
}

/// A buffer of a placed operand.
pub struct Placed {
    /// The operand as the kernel sees it.
    pub op: Operand,
    /// Bytes.
    pub bytes: Vec<u8>,
    /// Byte of element 0.
    pub origin: i64,
}

fn numbers(t: &Tensor) -> Vec<f64> {
    let size = t.dtype().size();
    let one = |c: &[u8]| match t.dtype() {
        Dtype::F32 => f32::from_le_bytes(c.try_into().unwrap()) as f64,
        Dtype::F64 => f64::from_le_bytes(c.try_into().unwrap()),
        Dtype::I32 => i32::from_le_bytes(c.try_into().unwrap()) as f64,
        Dtype::F16 => half::f16::from_le_bytes(c.try_into().unwrap()).to_f64(),
        Dtype::BF16 => half::bf16::from_le_bytes(c.try_into().unwrap()).to_f64(),
        Dtype::I8 => c[0] as i8 as f64,
        Dtype::U8 => c[0] as f64,
        d => panic!("no test uses {d}"),
    };
    t.bytes().chunks_exact(size).map(one).collect()
}

fn encode(d: Dtype, x: f64) -> Vec<u8> {
    hub_ir::build::scalar_bytes(d, x)
}

/// Lays a tensor out; memory that is not its own holds NaN (or a large number).
pub fn place(
    dtype: Dtype,
    dims: &[usize],
    sym: &[Dim],
    l: &Layout,
    data: Option<&Tensor>,
) -> Placed {
    let size = dtype.size() as i64;
    let mut strides = vec![0i64; dims.len()];
    let (mut run, mut origin) = (1i64, 0i64);
    for (i, &a) in l.order.iter().enumerate().rev() {
        strides[a] = run;
        let pad = match l.halo {
            Some((h, _)) if a >= 2 => h,
            _ => 0,
        };
        origin += pad * run;
        run *= dims[a] as i64 + 2 * pad + if i + 1 == l.order.len() { l.slack } else { 0 };
    }
    let total = run.max(1) as usize;
    let trash = encode(dtype, if dtype.is_float() { f64::NAN } else { 77.0 });
    let fill = l.halo.map_or(trash.clone(), |h| encode(dtype, h.1));
    let mut bytes = fill.repeat(total);
    if let Some(t) = data {
        let mut at = vec![0usize; dims.len()];
        for e in t.bytes().chunks_exact(size as usize) {
            let off: i64 = at.iter().zip(&strides).map(|(i, s)| *i as i64 * s).sum();
            let o = ((origin + off) * size) as usize;
            bytes[o..o + size as usize].copy_from_slice(e);
            for a in (0..dims.len()).rev() {
                at[a] += 1;
                if at[a] < dims[a] {
                    break;
                }
                at[a] = 0;
            }
        }
    }
    // Strides over symbolic dims are symbolic, as placement gives them.
    let mut named = vec![Dim::from(0i64); dims.len()];
    let mut run = Dim::from(1i64);
    for (i, &a) in l.order.iter().enumerate().rev() {
        named[a] = run.clone();
        let pad = if a >= 2 { l.halo.map_or(0, |h| 2 * h.0) } else { 0 };
        run = run.mul(&sym[a].plus(pad + if i + 1 == l.order.len() { l.slack } else { 0 }));
    }
    let op = Operand {
        dtype,
        dims: sym.to_vec(),
        strides: named,
        slack: l.slack,
        halo: l.halo.is_some(),
        format: Format::Strided,
        align: hub_codegen::task::power_of_two(&Dim::from(origin * size)),
        constant: false,
        splat: None,
    };
    Placed { op, bytes, origin: origin * size }
}

/// Reads a tensor back.
pub fn unplace(p: &Placed, dims: &[usize], l: &Layout) -> Vec<f64> {
    let t = Tensor::from_bytes(p.op.dtype, &[p.bytes.len() / p.op.dtype.size()], &p.bytes).unwrap();
    let all = numbers(&t);
    let index = place(Dtype::I32, dims, &p.op.dims, l, Some(&iota(dims)));
    let mut out = vec![f64::NAN; dims.iter().product()];
    for (i, c) in index.bytes.chunks_exact(4).enumerate() {
        let k = i32::from_le_bytes(c.try_into().unwrap()) - 1000;
        if k >= 0 {
            out[k as usize] = all[i];
        }
    }
    out
}

fn iota(dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    Tensor::new(dims, (0..n as i32).map(|x| x + 1000).collect()).unwrap()
}

impl Group {
    /// The portable meaning of the group, per result.
    pub fn reference(&self) -> Vec<Tensor> {
        let r = &self.g.regions[self.region];
        let mut env: HashMap<Value, Tensor> = HashMap::new();
        for (v, i) in r.params.iter().zip(&self.inputs) {
            env.insert(*v, i.tensor.clone());
        }
        for &n in &r.nodes {
            let node = &self.g.nodes[n];
            let out = match &node.op {
                Op::Const(c) => {
                    let c = &self.g.consts[*c];
                    let dims: Vec<usize> =
                        c.ty.dims.iter().map(|d| d.as_const().unwrap() as usize).collect();
                    Tensor::from_bytes(c.ty.dtype, &dims, &c.data).unwrap()
                }
                Op::Prim(p) => {
                    let ins: Vec<Tensor> = node.inputs.iter().map(|v| env[v].clone()).collect();
                    eval(p, &self.env, &ins, &Limits::default()).unwrap().outputs.remove(0)
                }
                op => panic!("{op:?} in a test"),
            };
            env.insert(node.outputs[0], out);
        }
        r.results.iter().map(|v| env[v].clone()).collect()
    }

    fn sizes(&self, v: Value) -> Vec<usize> {
        self.g.dims(v).iter().map(|d| d.eval(&self.env).unwrap() as usize).collect()
    }

    /// Lowers, doing what the lowering asks for first.
    pub fn lower(
        &mut self,
        target: &Target,
        lower: impl Fn(&Task<'_>, &Target) -> Result<Lowered, Refused>,
    ) -> (Lowered, Vec<Placed>, Vec<Placed>) {
        let r = self.g.regions[self.region].clone();
        let mut packed: HashMap<usize, Format> = HashMap::new();
        for _ in 0..8 {
            let mut ins: Vec<Placed> = vec![];
            for (i, (v, x)) in r.params.iter().zip(&self.inputs).enumerate() {
                let t = &x.tensor;
                let dims = self.g.dims(*v);
                let mut p = place(t.dtype(), t.dims(), dims, &x.layout, Some(t));
                p.op.constant = x.constant;
                if let Some(how) = packed.get(&i) {
                    let bytes = match how {
                        Format::Packed(how) => {
                            hub_abi::pack::pack(t.bytes(), t.dtype().size(), how).unwrap()
                        }
                        Format::Transformed(f) => f.store(t.bytes(), t.dtype().size()).unwrap(),
                        Format::Strided => unreachable!("nothing to do"),
                    };
                    p = Placed { bytes, origin: 0, op: p.op };
                    p.op.format = how.clone();
                }
                ins.push(p);
            }
            let out = |(v, l): (&Value, &Layout)| {
                place(self.g.dtype(*v), &self.sizes(*v), self.g.dims(*v), l, None)
            };
            let outs: Vec<Placed> = r.results.iter().zip(&self.outputs).map(out).collect();
            let task = Task {
                g: &self.g,
                region: self.region,
                inputs: ins.iter().map(|p| p.op.clone()).collect(),
                outputs: outs.iter().map(|p| p.op.clone()).collect(),
            };
            match lower(&task, target) {
                Ok(l) => {
                    verify(&l.kernel).unwrap_or_else(|e| panic!("{e}\n{}", l.kernel));
                    return (l, ins, outs);
                }
                Err(Refused::Pack { input, packing }) => {
                    assert!(self.inputs[input].constant, "only constants are packed");
                    let how = Format::Packed(packing);
                    assert!(packed.insert(input, how).is_none(), "packed twice");
                }
                Err(Refused::Transform { input, filter }) => {
                    assert!(self.inputs[input].constant, "only constants are transformed");
                    let how = Format::Transformed(filter);
                    assert!(packed.insert(input, how).is_none(), "transformed twice");
                }
                Err(Refused::Relayout { input, axis }) => {
                    let old = &self.inputs[input].layout;
                    assert!(
                        old.order.last() != Some(&axis) || old.halo.is_none(),
                        "asked again for the same layout"
                    );
                    let rank = old.order.len();
                    let mut l = Layout::unit(rank, axis);
                    if rank > 2 && axis == 1 {
                        l.halo = Some((4, self.fill));
                    }
                    self.inputs[input].layout = l;
                }
                Err(e) => {
                    let node = *r.nodes.iter().max().expect("a group has nodes");
                    panic!("{e}: {:?}, {:?}", self.g.nodes[node], task.inputs)
                }
            }
        }
        panic!("the lowering never agreed")
    }

    /// The argument block, operands being buffers in order (inputs, then outputs).
    pub fn args(&self, l: &Lowered, ins: &[Placed], outs: &[Placed]) -> Vec<Arg> {
        let dim = |d: &Dim| d.eval(&self.env).unwrap();
        let arg = |a: &TaskArg| match a {
            TaskArg::Ptr { of, offset, extent } => {
                let (buf, p) = match of {
                    Which::In(i) => (*i, &ins[*i]),
                    Which::Out(i) => (ins.len() + i, &outs[*i]),
                };
                let offset = p.origin + dim(offset);
                let end = offset + dim(extent);
                assert!(offset >= 0 && end <= p.bytes.len() as i64, "{of:?}: {offset}..{end}");
                Arg::Buf { buf, offset }
            }
            TaskArg::Size(d) => Arg::Size(dim(d)),
            TaskArg::Status => Arg::Status,
        };
        l.args.iter().map(arg).collect()
    }

    /// Interprets the kernel and compares every result with the reference.
    pub fn check(
        &mut self,
        target: &Target,
        lower: impl Fn(&Task<'_>, &Target) -> Result<Lowered, Refused>,
    ) -> String {
        let want = self.reference();
        let (l, ins, outs) = self.lower(target, lower);
        let args = self.args(&l, &ins, &outs);
        let tiles = interp::tiles(&l.kernel, &args);
        assert_eq!(tiles as i64, l.tiles.eval(&self.env).unwrap(), "tiles");
        let mut bufs: Vec<Vec<u8>> = ins.iter().chain(&outs).map(|p| p.bytes.clone()).collect();
        let status = interp::run(&l.kernel, &args, &mut bufs, 0..tiles)
            .unwrap_or_else(|e| panic!("{e}\n{}", l.kernel));
        assert_eq!(status, 0);
        self.compare(&want, &outs, &bufs[ins.len()..], &l.schedule);
        self.native(target, &l, &ins, &outs, &bufs);
        l.schedule
    }

    /// Runs the kernel as machine code, where this host can, and compares with the interpreter: the
    /// same bits but for NaN payloads, and nothing else written.
    fn native(&self, t: &Target, l: &Lowered, ins: &[Placed], outs: &[Placed], want: &[Vec<u8>]) {
        if t.tier == Tier::Sm80 {
            let before: Vec<Vec<u8>> = ins.iter().chain(outs).map(|p| p.bytes.clone()).collect();
            if l.schedule.contains("mma") {
                let (mut got, args) = (before, self.args(l, ins, outs));
                common::ptx(&l.kernel, &args, &mut got, true).unwrap();
                return near(&l.schedule, ins.iter().chain(outs), &got, want);
            }
            let same = ins.iter().chain(outs).map(|p| match p.op.dtype {
                Dtype::F32 => common::Same::F32,
                Dtype::F64 => common::Same::F64,
                Dtype::F16 => common::Same::F16,
                Dtype::BF16 => common::Same::BF16,
                _ => common::Same::Bits,
            });
            let (same, args) = (same.collect::<Vec<_>>(), self.args(l, ins, outs));
            let took = common::check_ptx(&l.kernel, &args, &before, &same, (0, want), true);
            return assert!(took, "no PTX for {}", l.schedule);
        }
        let code = x86::emit(&l.kernel, t).unwrap_or_else(|e| panic!("{}: {e}", l.schedule));
        let host = Target::host_tier();
        // Tile instructions run by software.
        let by_software = t.tier == Tier::Amx && host.is_some_and(|h| h >= Tier::Avx512Bf16);
        if by_software {
            hub_testrun::amx::install();
        } else if host.is_none_or(|host| host < t.tier) {
            return;
        }
        let mut bufs: Vec<Aligned> =
            ins.iter().chain(outs).map(|p| Aligned::from_bytes(&p.bytes)).collect();
        let args = self.args(l, ins, outs);
        let tiles = interp::tiles(&l.kernel, &args);
        let mut status = Aligned::zeroed(4);
        let block: Vec<u64> = args
            .iter()
            .map(|a| match a {
                Arg::Buf { buf, offset } => bufs[*buf].addr().wrapping_add_signed(*offset),
                Arg::Size(n) => *n as u64,
                Arg::Status => status.addr(),
            })
            .collect();
        let mut scratch = Aligned::zeroed(l.kernel.scratch_bytes as usize);
        let code = JitBuffer::new(&code.bytes).unwrap();
        // SAFETY: the interpreter has just run this kernel on equal buffers without a fault.
        unsafe { code.call(&block, 0, tiles, scratch.addr() as *mut u8) };
        for (i, (b, w)) in bufs.iter().zip(want).enumerate() {
            let d = if i < ins.len() { ins[i].op.dtype } else { outs[i - ins.len()].op.dtype };
            let flat =
                |b: &[u8]| numbers(&Tensor::from_bytes(d, &[b.len() / d.size()], b).unwrap());
            for (at, (x, y)) in flat(b.bytes()).iter().zip(&flat(w)).enumerate() {
                let same = x == y || (x.is_nan() && y.is_nan());
                assert!(same, "{}: native {x}, not {y}, at {at} of operand {i}", l.schedule);
            }
        }
    }

    /// Compares results in buffers with the reference.
    pub fn compare(&self, want: &[Tensor], outs: &[Placed], bufs: &[Vec<u8>], what: &str) {
        for ((w, o), (b, l)) in want.iter().zip(outs).zip(bufs.iter().zip(&self.outputs)) {
            let p = Placed { op: o.op.clone(), bytes: b.clone(), origin: o.origin };
            let got = unplace(&p, w.dims(), l);
            let w_dtype = w.dtype();
            let want = numbers(w);
            let big = want.iter().filter(|x| x.is_finite()).fold(1.0f64, |a, x| a.max(x.abs()));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                let unit = match w_dtype {
                    Dtype::F16 => 1e-3,
                    Dtype::BF16 => 8e-3,
                    _ => 2e-5,
                };
                let same = (g - w).abs() <= unit * big || g == w || (g.is_nan() && w.is_nan());
                assert!(same, "{what}: element {i} is {g}, not {w}");
            }
        }
    }
}

/// Buffers that hold the same but for the order of sums, and the same where nothing was computed.
fn near<'p>(what: &str, ops: impl Iterator<Item = &'p Placed>, got: &[Vec<u8>], want: &[Vec<u8>]) {
    for (i, (p, (g, w))) in ops.zip(got.iter().zip(want)).enumerate() {
        let d = p.op.dtype;
        let flat = |b: &[u8]| numbers(&Tensor::from_bytes(d, &[b.len() / d.size()], b).unwrap());
        let (g, w) = (flat(g), flat(w));
        let big = w.iter().filter(|x| x.is_finite()).fold(1.0f64, |a, x| a.max(x.abs()));
        let unit = if d == Dtype::BF16 { 8e-3 } else { 1e-5 };
        for (at, (x, y)) in g.iter().zip(&w).enumerate() {
            let same = (x - y).abs() <= unit * big || x.is_nan() && y.is_nan();
            assert!(same, "{what}: as PTX {x}, not {y}, at {at} of operand {i}");
        }
    }
}

/// Numbers in −1..1 from a small generator.
pub fn random(seed: &mut u64, dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    let mut next = || {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((*seed >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    Tensor::new(dims, (0..n).map(|_| next()).collect::<Vec<f32>>()).unwrap()
}

/// Numbers of any dtype: integers in −100..100 (unsigned: 0..200), floats in −1..1.
pub fn random_of(seed: &mut u64, dtype: Dtype, dims: &[usize]) -> Tensor {
    let t = random(seed, dims);
    let scale = |x: f64| match dtype {
        d if d.is_float() => x,
        Dtype::U8 => (x * 100.0 + 100.0).trunc(),
        _ => (x * 100.0).trunc(),
    };
    let bytes: Vec<u8> = numbers(&t).iter().flat_map(|&x| encode(dtype, scale(x))).collect();
    Tensor::from_bytes(dtype, dims, &bytes).unwrap()
}

/// A number below `n`.
pub fn pick(seed: &mut u64, n: u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) % n
}
