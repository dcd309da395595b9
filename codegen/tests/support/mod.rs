//! Runs lowered tasks in the interpreter and compares them with the primitives' meaning.
//!
//! The graph of a case *is* the region: its root's params are the task's inputs.

#![allow(dead_code)]

#[path = "../common/mod.rs"]
mod common;

use hub_abi::dim::SymEnv;
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype};
use hub_codegen::kir::interp::{Arg, run, tiles};
use hub_codegen::kir::{ParamId, share, verify};
use hub_codegen::lower::lower;
use hub_codegen::target::{Target, Tier};
use hub_codegen::task::{Format, Lowered, Operand, Task, TaskArg, Which};
use hub_ir::{Builder, Graph, GroupKind, Op, Value};
use hub_portable::{Limits, Tensor, eval};
use std::cell::Cell;
use std::collections::HashMap;

thread_local! {
    static SHARED: Cell<usize> = const { Cell::new(0) };
}

/// Pairs of operands that this test ran in one memory since it last asked.
pub fn shared_pairs() -> usize {
    SHARED.take()
}

/// A small deterministic generator.
pub struct Rng(pub u64);

impl Rng {
    /// The next number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
    /// One of a list.
    pub fn pick<T: Clone>(&mut self, xs: &[T]) -> T {
        xs[self.below(xs.len() as u64) as usize].clone()
    }
}

/// Elements of a dtype that suit most functions.
pub fn data(rng: &mut Rng, dtype: Dtype, dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    let bytes: Vec<u8> = (0..n)
        .flat_map(|_| {
            let x = rng.below(4001) as f64 / 1000.0 - 2.0;
            let i = rng.below(200) as i64 - 100;
            match dtype {
                Dtype::F32 => (x as f32).to_le_bytes().to_vec(),
                Dtype::F64 => x.to_le_bytes().to_vec(),
                Dtype::F16 => half::f16::from_f64(x).to_le_bytes().to_vec(),
                Dtype::BF16 => half::bf16::from_f64(x).to_le_bytes().to_vec(),
                Dtype::Bool => vec![rng.below(2) as u8],
                d => i.to_le_bytes()[..d.size()].to_vec(),
            }
        })
        .collect();
    Tensor::from_bytes(dtype, dims, &bytes).unwrap()
}

/// How an operand is to lie.
#[derive(Clone, Debug)]
pub enum Lay {
    /// Row-major.
    Dense,
    /// Axes in this order of memory, outermost first; each row of the innermost axis followed by
    /// `slack` elements of its own.
    Order { order: Vec<usize>, slack: i64 },
}

/// Strides of a layout over dims.
pub fn strides(dims: &[Dim], lay: &Lay) -> (Vec<Dim>, i64) {
    let dense = Lay::Order { order: (0..dims.len()).collect(), slack: 0 };
    let Lay::Order { order, slack } = (if matches!(lay, Lay::Dense) { &dense } else { lay }) else {
        unreachable!()
    };
    let mut out = vec![Dim::from(1i64); dims.len()];
    let mut at = Dim::from(1i64);
    for (i, &a) in order.iter().rev().enumerate() {
        out[a] = at.clone();
        let n = if i == 0 { dims[a].plus(*slack) } else { dims[a].clone() };
        at = at.mul(&n);
    }
    (out, *slack)
}

/// An operand of a graph's value.
pub fn operand(g: &Graph, v: hub_ir::Value, lay: &Lay) -> Operand {
    let (strides, slack) = strides(g.dims(v), lay);
    Operand {
        dtype: g.dtype(v),
        dims: g.dims(v).to_vec(),
        strides,
        slack,
        halo: false,
        format: Format::Strided,
        align: 1,
        constant: false,
        splat: None,
    }
}

/// The task of a whole graph.
pub fn task<'g>(g: &'g Graph, ins: &[Lay], outs: &[Lay]) -> Task<'g> {
    let r = &g.regions[g.root()];
    let each = |(v, l): (&hub_ir::Value, &Lay)| operand(g, *v, l);
    Task {
        g,
        region: g.root(),
        inputs: r.params.iter().zip(ins).map(each).collect(),
        outputs: r.results.iter().zip(outs).map(each).collect(),
    }
}

/// Results of the graph by the primitives' meaning; an error is a reported status.
pub fn reference(g: &Graph, env: &SymEnv, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let r = &g.regions[g.root()];
    let mut at: HashMap<_, _> = r.params.iter().copied().zip(inputs.iter().cloned()).collect();
    for &n in &r.nodes {
        let node = &g.nodes[n];
        let outs = match &node.op {
            Op::Const(c) => {
                let c = &g.consts[*c];
                let dims: Vec<usize> =
                    c.ty.dims.iter().map(|d| d.as_const().unwrap() as usize).collect();
                vec![Tensor::from_bytes(c.ty.dtype, &dims, &c.data).unwrap()]
            }
            Op::Prim(p) => {
                let ins: Vec<Tensor> = node.inputs.iter().map(|v| at[v].clone()).collect();
                eval(p, env, &ins, &Limits::default()).map_err(|e| e.to_string())?.outputs
            }
            op => panic!("{op:?} in a test region"),
        };
        at.extend(node.outputs.iter().copied().zip(outs));
    }
    Ok(r.results.iter().map(|v| at[v].clone()).collect())
}

/// Memory of an operand: bytes, and where its origin lies in them.
pub struct Memory {
    pub bytes: Vec<u8>,
    pub origin: i64,
    strides: Vec<i64>,
    dims: Vec<usize>,
    dtype: Dtype,
}

impl Memory {
    /// Room for an operand, `pad` bytes more on either side, filled with `fill`.
    pub fn new(op: &Operand, env: &SymEnv, pad: i64, fill: u8) -> Memory {
        let int = |d: &Dim| d.eval(env).unwrap();
        let (lo, extent) = op.span();
        let dims: Vec<usize> = op.dims.iter().map(|d| int(d) as usize).collect();
        let extent = if dims.contains(&0) { 0 } else { int(&extent) };
        Memory {
            bytes: vec![fill; (extent + 2 * pad) as usize],
            origin: pad - int(&lo),
            strides: op.strides.iter().map(int).collect(),
            dims,
            dtype: op.dtype,
        }
    }

    /// The same shape without memory.
    fn like(&self) -> Memory {
        let (strides, dims) = (self.strides.clone(), self.dims.clone());
        Memory { bytes: vec![], origin: self.origin, strides, dims, dtype: self.dtype }
    }

    fn each(&self, mut f: impl FnMut(usize, usize)) {
        let n: usize = self.dims.iter().product();
        let size = self.dtype.size();
        for i in 0..n {
            let (mut rest, mut at) = (i, self.origin);
            for a in (0..self.dims.len()).rev() {
                at += (rest % self.dims[a]) as i64 * self.strides[a] * size as i64;
                rest /= self.dims[a];
            }
            f(i * size, at as usize);
        }
    }

    /// Writes a tensor into place.
    pub fn put(&mut self, t: &Tensor) {
        let (size, mut bytes) = (self.dtype.size(), std::mem::take(&mut self.bytes));
        self.each(|i, at| bytes[at..at + size].copy_from_slice(&t.bytes()[i..i + size]));
        self.bytes = bytes;
    }

    /// Reads the tensor.
    pub fn get(&self) -> Tensor {
        let size = self.dtype.size();
        let mut out = vec![0u8; self.dims.iter().product::<usize>() * size];
        self.each(|i, at| out[i..i + size].copy_from_slice(&self.bytes[at..at + size]));
        Tensor::from_bytes(self.dtype, &self.dims, &out).unwrap()
    }
}

/// Arguments of a lowered task over memories (inputs first, then outputs).
pub fn arguments(l: &Lowered, inputs: usize, mems: &[Memory], env: &SymEnv) -> Vec<Arg> {
    let one = |a: &TaskArg| match a {
        TaskArg::Ptr { of, offset, extent } => {
            let buf = match of {
                Which::In(i) => *i,
                Which::Out(i) => inputs + *i,
            };
            let offset = mems[buf].origin + offset.eval(env).unwrap();
            let extent = extent.eval(env).unwrap();
            let empty = mems[buf].dims.contains(&0);
            assert!(empty || (offset >= 0 && offset + extent <= mems[buf].bytes.len() as i64));
            Arg::Buf { buf, offset }
        }
        TaskArg::Size(d) => Arg::Size(d.eval(env).unwrap()),
        TaskArg::Status => Arg::Status,
    };
    l.args.iter().map(one).collect()
}

/// Runs a lowered task; gives the status word.
pub fn interpret(l: &Lowered, inputs: usize, mems: &mut [Memory], env: &SymEnv) -> u32 {
    verify(&l.kernel).unwrap_or_else(|e| panic!("{e}\n{}", l.kernel));
    let args = arguments(l, inputs, mems, env);
    let n = tiles(&l.kernel, &args);
    assert_eq!(n as i64, l.tiles.eval(env).unwrap(), "tiles of {}", l.schedule);
    let mut bufs: Vec<Vec<u8>> = mems.iter_mut().map(|m| std::mem::take(&mut m.bytes)).collect();
    let status = run(&l.kernel, &args, &mut bufs, 0..n)
        .unwrap_or_else(|e| panic!("{e}\n{}\n{}", l.schedule, l.kernel));
    mems.iter_mut().zip(bufs).for_each(|(m, b)| m.bytes = b);
    status
}

/// Runs the task again for every pair of operands that its kernel lets share memory, in one memory:
/// the output must be the same bytes, and the interpreter sees no race. Gives the number of pairs.
fn check_shared(
    l: &Lowered,
    inputs: usize,
    env: &SymEnv,
    before: &[Vec<u8>],
    after: &[Memory],
) -> usize {
    let args = arguments(l, inputs, after, env);
    let place = |p: ParamId| match (&l.args[p.0 as usize], args[p.0 as usize]) {
        (TaskArg::Ptr { extent, .. }, Arg::Buf { buf, offset }) => {
            (buf, offset, extent.eval(env).unwrap())
        }
        _ => panic!("a pair that is no pointers"),
    };
    let mut pairs = 0;
    for (r, w) in share::shared(&l.kernel) {
        let ((from, at, n), (to, to_at, to_n)) = (place(r), place(w));
        // Placement asks for the same.
        if (at, n) != (to_at, to_n) || before[from].len() != before[to].len() {
            continue;
        }
        let mut one = args.clone();
        for a in &mut one {
            if let Arg::Buf { buf, .. } = a {
                *buf = if *buf == to { from } else { *buf };
            }
        }
        let mut bufs = before.to_vec();
        run(&l.kernel, &one, &mut bufs, 0..tiles(&l.kernel, &args))
            .unwrap_or_else(|e| panic!("{r:?} and {w:?} share: {e}\n{}", l.kernel));
        let got = Memory { bytes: std::mem::take(&mut bufs[from]), ..after[to].like() };
        assert_eq!(got.get().bytes(), after[to].get().bytes(), "{r:?} {w:?}\n{}", l.kernel);
        pairs += 1;
    }
    pairs
}

/// Are two tensors equal (floats within `rel` of the greatest magnitude; NaN equals NaN)?
pub fn close(got: &Tensor, want: &Tensor, rel: f64) -> Result<(), String> {
    if got.dims() != want.dims() || got.dtype() != want.dtype() {
        return Err(format!(
            "{} {:?} for {} {:?}",
            got.dtype(),
            got.dims(),
            want.dtype(),
            want.dims()
        ));
    }
    if !got.dtype().is_float() {
        let at = got.bytes().iter().zip(want.bytes()).position(|(a, b)| a != b);
        let size = got.dtype().size();
        return at.map_or(Ok(()), |i| {
            let e = i / size * size..(i / size + 1) * size;
            Err(format!(
                "element {}: {:?} for {:?}",
                i / size,
                &got.bytes()[e.clone()],
                &want.bytes()[e]
            ))
        });
    }
    let floats = |t: &Tensor| -> Vec<f64> { f64s(t) };
    let (a, b) = (floats(got), floats(want));
    let most = b.iter().filter(|x| x.is_finite()).fold(1e-6f64, |m, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= rel * most;
        if !same {
            return Err(format!("element {i}: {x} for {y}"));
        }
    }
    Ok(())
}

/// Floats of any width as f64.
pub fn f64s(t: &Tensor) -> Vec<f64> {
    let size = t.dtype().size();
    let one = |c: &[u8]| match t.dtype() {
        Dtype::F32 => f32::from_le_bytes(c.try_into().unwrap()) as f64,
        Dtype::F64 => f64::from_le_bytes(c.try_into().unwrap()),
        Dtype::F16 => half::f16::from_le_bytes(c.try_into().unwrap()).to_f64(),
        Dtype::BF16 => half::bf16::from_le_bytes(c.try_into().unwrap()).to_f64(),
        d => panic!("{d} is not a float"),
    };
    t.bytes().chunks_exact(size).map(one).collect()
}

/// Tolerance of a float dtype.
pub fn tolerance(d: Dtype) -> f64 {
    match d {
        Dtype::F16 => 2e-3,
        Dtype::BF16 => 1.6e-2,
        _ => 2e-6,
    }
}

/// The code generator's tier of a target, where this host runs it.
fn host_tier(t: &Target) -> Option<Tier> {
    (Some(t.tier) <= Target::host_tier()).then_some(t.tier)
}

/// Runs a lowered task as machine code on copies of `before` and compares every byte with what the
/// interpreter left in `after`.
pub fn check_native(
    l: &Lowered,
    inputs: usize,
    target: &Target,
    env: &SymEnv,
    (before, after): (&[Vec<u8>], &[Memory]),
    status: u32,
) {
    let args = arguments(l, inputs, after, env);
    let same = |m: &Memory| match m.dtype {
        Dtype::F32 => common::Same::F32,
        Dtype::F64 => common::Same::F64,
        Dtype::F16 => common::Same::F16,
        Dtype::BF16 => common::Same::BF16,
        _ => common::Same::Bits,
    };
    if target.tier == Tier::Sm80 {
        let alike: Vec<_> = after.iter().map(same).collect();
        let want: Vec<Vec<u8>> = after.iter().map(|m| m.bytes.clone()).collect();
        let took = common::check_ptx(&l.kernel, &args, before, &alike, (status, &want), true);
        assert!(took, "no PTX for {}\n{}", l.schedule, l.kernel);
        return;
    }
    let Some(tier) = host_tier(target) else { return };
    let mut bufs = before.to_vec();
    let got = common::native(&l.kernel, tier, &args, &mut bufs).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(got, status, "status of {}", l.schedule);
    for (b, m) in bufs.iter().zip(after) {
        if !common::agree(same(m), b, &m.bytes) {
            let at = b.iter().zip(&m.bytes).position(|(x, y)| x != y);
            panic!("machine code differs at byte {at:?}\n{}\n{}", l.schedule, l.kernel);
        }
    }
}

/// Lowers the graph as a group of `kind`, runs it, compares with the reference.
pub fn check(
    g: &Graph,
    kind: GroupKind,
    target: &Target,
    lays: (&[Lay], &[Lay]),
    env: &SymEnv,
    inputs: &[Tensor],
) -> Lowered {
    let task = task(g, lays.0, lays.1);
    let l = lower(&task, kind, target).unwrap_or_else(|e| panic!("{e}"));
    let mut mems: Vec<Memory> = vec![];
    for (op, t) in task.inputs.iter().zip(inputs) {
        let mut m = Memory::new(op, env, 0, 0xff);
        m.put(t);
        mems.push(m);
    }
    mems.extend(task.outputs.iter().map(|op| Memory::new(op, env, 0, 0xee)));
    let before: Vec<Vec<u8>> = mems.iter().map(|m| m.bytes.clone()).collect();
    let status = interpret(&l, inputs.len(), &mut mems, env);
    check_native(&l, inputs.len(), target, env, (&before, &mems), status);
    if status == 0 && target.own_core {
        SHARED.set(SHARED.get() + check_shared(&l, inputs.len(), env, &before, &mems));
    }
    match reference(g, env, inputs) {
        Err(e) => assert_eq!(status, 1, "{e} was not reported"),
        Ok(want) => {
            assert_eq!(status, 0, "a status without reason");
            for (m, want) in mems[inputs.len()..].iter().zip(&want) {
                close(&m.get(), want, tolerance(want.dtype()))
                    .unwrap_or_else(|e| panic!("{e}\n{}\n{}", l.schedule, l.kernel));
            }
        }
    }
    l
}

/// The tiers that kernels are lowered for.
pub fn targets() -> [Target; 3] {
    [Tier::Avx2, Tier::Avx512, Tier::Sm80].map(Target::of)
}

/// A graph whose root is a region: inputs of these types, `f` builds the results.
pub fn graph(
    ins: &[(Dtype, Vec<Dim>)],
    syms: &[(&str, i64, i64)],
    f: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>,
) -> Graph {
    let mut g = Graph::new();
    for (n, lo, hi) in syms {
        g.new_sym(n, *lo, *hi);
    }
    let xs: Vec<Value> = ins
        .iter()
        .enumerate()
        .map(|(i, (dtype, dims))| {
            let ty = Type::Tensor(TensorType { dtype: *dtype, dims: dims.clone() });
            g.add_input(&format!("x{i}"), ty)
        })
        .collect();
    let mut b = Builder::new(&mut g, "t");
    let outs = f(&mut b, &xs);
    let root = b.g.root();
    b.into_region(root);
    for (i, v) in outs.into_iter().enumerate() {
        g.add_output(&format!("y{i}"), v);
    }
    g
}

/// Constant dimensions.
pub fn dims(d: &[i64]) -> Vec<Dim> {
    d.iter().map(|&x| x.into()).collect()
}

/// Evaluated dimensions.
pub fn size(d: &[Dim], env: &SymEnv) -> Vec<usize> {
    d.iter().map(|x| x.eval(env).unwrap() as usize).collect()
}

/// Checks on all targets with dense operands and random data.
pub fn dense(g: &Graph, kind: GroupKind, env: &SymEnv, seed: u64) -> Vec<String> {
    let r = &g.regions[g.root()];
    let lays = |n| vec![Lay::Dense; n];
    laid(g, kind, (&lays(r.params.len()), &lays(r.results.len())), env, seed)
}

/// Checks on all targets with random data.
pub fn laid(
    g: &Graph,
    kind: GroupKind,
    lays: (&[Lay], &[Lay]),
    env: &SymEnv,
    seed: u64,
) -> Vec<String> {
    let mut rng = Rng(seed);
    let r = &g.regions[g.root()];
    let ins: Vec<Tensor> =
        r.params.iter().map(|&v| data(&mut rng, g.dtype(v), &size(g.dims(v), env))).collect();
    targets().iter().map(|t| check(g, kind, t, lays, env, &ins).schedule).collect()
}

/// The usual dtype.
pub const F: Dtype = Dtype::F32;

/// Channel-last, pixels with slack.
pub fn nhwc(slack: i64) -> Lay {
    Lay::Order { order: vec![0, 2, 3, 1], slack }
}
