//! Times native kernels of representative layers, as parts of the multiply-add peak that the same
//! run measures. `cargo run --release -p hub-codegen --example layers [--all] [--winograd] [--avx2]
//! [FILTER]`; with `--all` every schedule of each layer, with `--winograd` a choice of Winograd plans of
//! 3×3 convolutions, beside the cycles that the model expects

#[path = "../tests/placed/mod.rs"]
mod placed;

use hub_abi::prim::{BinaryOp, Geometry, Prim, ReduceOp, UnaryOp};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, SymEnv};
use hub_codegen::kir::interp::{self, Arg};
use hub_codegen::kir::{Access, Addr, Elem, Kernel, KernelBuilder, RegTy};
use hub_codegen::lower::contract_mac::{Mac, lower_as, lower_mac, schedules};
use hub_codegen::lower::schedule::Schedule;
use hub_codegen::lower::winograd::filter::Filter;
use hub_codegen::lower::winograd::{self, Plan};
use hub_codegen::lower::{contract, conv, window, with_lanes};
use hub_codegen::target::{Target, Tier};
use hub_codegen::targets::x86;
use hub_codegen::task::{Format, Lowered, Refused, Task};
use hub_ir::build::{Builder, Built};
use hub_ir::{Graph, Value};
use hub_testrun::{Aligned, JitBuffer};
use placed::{Group, Input, Layout, Placed, random};
use std::time::Instant;

type Problem = fn(&Task<'_>, &Target) -> Result<Mac, Refused>;

/// A layer: a name, its primitive, operand shapes, and how the input and the output lie.
struct Layer {
    name: &'static str,
    prim: Prim,
    x: Vec<usize>,
    w: Option<Vec<usize>>,
    problem: Problem,
    pad: i64,
    act: Act,
    /// The rows of matrices, and the sides of images, are bound late.
    late: bool,
}

/// What follows the bias.
#[derive(Clone, Copy)]
enum Act {
    Relu,
    Gelu,
    Silu,
}

impl Layer {
    fn then(self, act: Act) -> Layer {
        Layer { act, ..self }
    }

    fn late(self) -> Layer {
        Layer { late: true, ..self }
    }
}

fn conv2(
    name: &'static str,
    c: usize,
    m: usize,
    hw: usize,
    k: i64,
    stride: i64,
    groups: i64,
) -> Layer {
    let pad = k / 2;
    let geo = Geometry {
        stride: vec![stride; 2],
        dilation: vec![1; 2],
        before: vec![pad.into(); 2],
        after: vec![pad.into(); 2],
    };
    Layer {
        name,
        prim: Prim::Conv { geo, groups },
        x: vec![1, c, hw, hw],
        w: Some(vec![m, c / groups as usize, k as usize, k as usize]),
        problem: conv::problem,
        pad,
        act: Act::Relu,
        late: false,
    }
}

fn matmul(name: &'static str, m: usize, k: usize, n: usize) -> Layer {
    Layer {
        name,
        prim: Prim::Contract { a: vec![0, 1], b: vec![1, 2], out: vec![0, 2] },
        x: vec![m, k],
        w: Some(vec![k, n]),
        problem: contract::problem,
        pad: 0,
        act: Act::Relu,
        late: false,
    }
}

fn pool(name: &'static str, c: usize, hw: usize, k: i64, stride: i64) -> Layer {
    let pad = k / 2;
    let geo = Geometry {
        stride: vec![stride; 2],
        dilation: vec![1; 2],
        before: vec![pad.into(); 2],
        after: vec![pad.into(); 2],
    };
    Layer {
        name,
        prim: Prim::Window { op: ReduceOp::Max, kernel: vec![k; 2], geo },
        x: vec![1, c, hw, hw],
        w: None,
        problem: |task, _| window::problem(task),
        pad,
        act: Act::Relu,
        late: false,
    }
}

fn layers() -> Vec<Layer> {
    vec![
        conv2("conv 1x1 64->256 @56", 64, 256, 56, 1, 1, 1),
        conv2("conv 1x1 256->64 @56", 256, 64, 56, 1, 1, 1),
        conv2("conv 3x3 32->32 @128", 32, 32, 128, 3, 1, 1),
        conv2("conv 3x3 64->64 @56", 64, 64, 56, 3, 1, 1),
        conv2("conv 3x3 128->128 @28", 128, 128, 28, 3, 1, 1),
        conv2("conv 1x1 128->512 @28", 128, 512, 28, 1, 1, 1),
        conv2("conv 3x3 256->256 @14", 256, 256, 14, 3, 1, 1),
        conv2("conv 1x1 1024->256 @14", 1024, 256, 14, 1, 1, 1),
        conv2("conv 3x3 512->512 @7", 512, 512, 7, 3, 1, 1),
        conv2("conv 1x1 2048->512 @7", 2048, 512, 7, 1, 1, 1),
        conv2("conv 7x7s2 3->64 @224", 3, 64, 224, 7, 2, 1),
        conv2("depthwise 3x3 120 @28", 120, 120, 28, 3, 1, 120),
        conv2("depthwise 5x5 960 @7", 960, 960, 7, 5, 1, 960),
        conv2("depthwise 3x3s2 64 @112", 64, 64, 112, 3, 2, 64),
        conv2("conv 1x1 16->64 @112", 16, 64, 112, 1, 1, 1),
        conv2("conv 1x1 112->672 @14", 112, 672, 14, 1, 1, 1),
        pool("maxpool 3x3s2 64 @112", 64, 112, 3, 2),
        conv2("conv 3x3 1024->512 @20", 1024, 512, 20, 3, 1, 1),
        matmul("matmul 128x768x768", 128, 768, 768),
        matmul("matmul 128x768x3072", 128, 768, 3072),
        matmul("matmul 128x768x3072 gelu", 128, 768, 3072).then(Act::Gelu),
        conv2("conv 1x1 16->96 @112 silu", 16, 96, 112, 1, 1, 1).then(Act::Silu),
        conv2("depthwise 3x3 96 @56 silu", 96, 96, 56, 3, 1, 96).then(Act::Silu),
        matmul("matmul 128x3072x768", 128, 3072, 768),
        matmul("late 128x768x768", 128, 768, 768).late(),
        matmul("late 1x768x768", 1, 768, 768).late(),
        conv2("late 3x3 128->128 @28", 128, 128, 28, 3, 1, 1).late(),
        conv2("late 1x1 64->256 @56", 64, 256, 56, 1, 1, 1).late(),
        conv2("late depthwise 3x3 120 @28", 120, 120, 28, 3, 1, 120).late(),
        matmul("gemv 1x2048x1000", 1, 2048, 1000),
        matmul("lstm 1x128x512", 1, 128, 512),
        matmul("matmul 16x64x64", 16, 64, 64),
    ]
}

/// Channel-last with a halo of `pad` and a pitch that fills lines.
fn image(dims: &[usize], pad: i64, fill: f64) -> Layout {
    let mut l = Layout::unit(4, 1);
    let c = dims[1] as i64;
    if c >= 8 {
        l.slack = (c + 15) / 16 * 16 - c;
        if (c + l.slack) % 1024 == 0 {
            l.slack += 16;
        }
    }
    l.halo = (pad > 0).then_some((pad, fill));
    l
}

/// The layer with a bias and relu.
fn group(l: &Layer) -> Group {
    let mut g = Graph::new();
    let region = g.new_region();
    let mut seed = 1;
    let mut inputs = vec![];
    let mut params = vec![];
    let mut env = SymEnv::new(0);
    let late = if !l.late {
        0..0
    } else if l.x.len() == 4 {
        2..4
    } else {
        0..1
    };
    let mut operand = |g: &mut Graph, dims: &[usize], constant: bool, layout: Layout| {
        let sym: Vec<Dim> = dims
            .iter()
            .enumerate()
            .map(|(a, &d)| {
                if constant || !late.contains(&a) {
                    return d.into();
                }
                let s = g.new_sym("n", 1, 4096);
                env.set(s, d as i64);
                s.into()
            })
            .collect();
        params.push(g.add_param(region, Type::Tensor(TensorType { dtype: Dtype::F32, dims: sym })));
        inputs.push(Input { tensor: random(&mut seed, dims), constant, layout });
    };
    let fill = if l.w.is_none() { f64::NEG_INFINITY } else { 0.0 };
    let x = if l.x.len() == 4 { image(&l.x, l.pad, fill) } else { Layout::dense(2) };
    operand(&mut g, &l.x, false, x);
    if let Some(w) = &l.w {
        operand(&mut g, w, true, Layout::dense(w.len()));
    }
    let features = match (&l.w, l.x.len()) {
        (Some(w), 4) => w[0],
        (Some(w), _) => w[1],
        (None, _) => l.x[1],
    };
    let bias = if l.x.len() == 4 { vec![features, 1, 1] } else { vec![features] };
    operand(&mut g, &bias, true, Layout::dense(bias.len()));
    let mut b = Builder::new(&mut g, "layer");
    let last = params.len() - 1;
    let v = b.prim(l.prim.clone(), &params[..last]).expect("the layer is well formed");
    let v = b.add(v, params[last]).expect("the bias fits");
    let v = activation(&mut b, v, l.act).expect("activations fit");
    b.into_region(region);
    g.regions[region].results.push(v);
    let dims: Vec<usize> =
        g.dims(v).iter().map(|d| d.eval(&env).expect("all symbols are bound") as usize).collect();
    let out = if dims.len() == 4 { image(&dims, 0, 0.0) } else { Layout::dense(2) };
    Group { g, region, inputs, outputs: vec![out], fill, env, poison: false }
}

fn activation(b: &mut Builder<'_>, v: Value, act: Act) -> Built {
    match act {
        Act::Relu => b.bin_scalar(BinaryOp::Max, v, 0.0),
        Act::Silu => {
            let s = b.un(UnaryOp::Sigmoid, v)?;
            b.mul(v, s)
        }
        Act::Gelu => {
            let s = b.bin_scalar(BinaryOp::Mul, v, std::f64::consts::FRAC_1_SQRT_2)?;
            let s = b.un(UnaryOp::Erf, s)?;
            let s = b.bin_scalar(BinaryOp::Add, s, 1.0)?;
            let v = b.bin_scalar(BinaryOp::Mul, v, 0.5)?;
            b.mul(v, s)
        }
    }
}

/// Seconds of one call, the least of several rounds.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    let mut n = 1;
    while start.elapsed().as_secs_f64() < 0.1 {
        let t = Instant::now();
        (0..n).for_each(|_| f());
        let each = t.elapsed().as_secs_f64() / n as f64;
        best = best.min(each);
        n = ((0.01 / each) as usize).clamp(1, 100_000);
    }
    best
}

/// Schedules of a layer; the first is what the compiler takes.
fn choices(l: &Layer, target: &Target) -> Vec<Schedule> {
    let found = std::cell::RefCell::new(vec![]);
    group(l).lower(target, |task, target| {
        let mac = (l.problem)(task, target)?;
        *found.borrow_mut() = schedules(task, target, &mac, target.lanes());
        lower_mac(task, target, &mac)
    });
    found.into_inner()
}

/// Which kernel of a layer.
#[derive(Clone, Copy)]
enum How {
    /// What the compiler takes.
    Best,
    /// One schedule of the direct form.
    Direct(Schedule),
    /// One Winograd plan.
    Winograd(Plan),
}

fn lowered(l: &Layer, how: How, task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    let Prim::Conv { .. } = l.prim else {
        let mac = (l.problem)(task, target)?;
        return match how {
            How::Direct(s) => lower_as(task, target, &mac, s),
            _ => lower_mac(task, target, &mac),
        };
    };
    match how {
        How::Best => conv::lower(task, target),
        How::Direct(s) => lower_as(task, target, &(l.problem)(task, target)?, s),
        How::Winograd(p) => conv::with_conv(task, |c| {
            if task.inputs[c.w].format == Format::Strided {
                return Err(Refused::Transform { input: c.w, filter: p.filter });
            }
            with_lanes(target.lanes(), |lanes| winograd::lower_as(c, target, p, lanes))
        }),
    }
}

/// A choice of Winograd plans with their expected cycles: the best by the model, then some others.
fn winograd_plans(l: &Layer, target: &Target) -> Vec<(f64, Plan)> {
    let found = std::cell::RefCell::new(vec![]);
    group(l).lower(target, |task, target| {
        conv::with_conv(task, |c| {
            let dims = &task.inputs[c.w].dims;
            let size = |a: usize| dims[a].as_const().unwrap_or(0);
            found.borrow_mut().clear();
            for m in [4, 2] {
                let all = winograd::every(c, target, Filter { m, n: size(0), c: size(1) });
                let step = (all.len() / 24).max(1);
                let some = all.iter().enumerate().filter(|(i, _)| *i < 8 || i % step == 0);
                found.borrow_mut().extend(some.map(|(_, p)| *p));
            }
            Ok(())
        })?;
        lower_mac(task, target, &(l.problem)(task, target)?)
    });
    found.into_inner()
}

fn run(l: &Layer, target: &Target, peak: f64, how: How, note: &str) {
    let mut g = group(l);
    let want = g.reference();
    let (low, ins, outs): (Lowered, Vec<Placed>, Vec<Placed>) =
        g.lower(target, |task, target| lowered(l, how, task, target));
    let args = g.args(&low, &ins, &outs);
    let tiles = interp::tiles(&low.kernel, &args);
    let mut bufs: Vec<Aligned> =
        ins.iter().chain(&outs).map(|p| Aligned::from_bytes(&p.bytes)).collect();
    let block: Vec<u64> = args
        .iter()
        .map(|a| match a {
            Arg::Buf { buf, offset } => bufs[*buf].addr().wrapping_add_signed(*offset),
            Arg::Size(n) => *n as u64,
            Arg::Status => 0,
        })
        .collect();
    let mut scratch = Aligned::zeroed(low.kernel.scratch_bytes as usize + 64);
    let code = emitted(&low.kernel, target);
    let s = scratch.addr();
    // SAFETY: the arguments are the kernel's, in buffers that live to the end of this function.
    let one = time(|| unsafe { code.call(&block, 0, tiles, s as *mut u8) });
    let bytes: Vec<Vec<u8>> = bufs[ins.len()..].iter().map(|b| b.bytes().to_vec()).collect();
    g.compare(&want, &outs, &bytes, &low.schedule);
    let flops = low.flops.eval(&g.env).unwrap_or(0) as f64;
    let moved = low.bytes.eval(&g.env).unwrap_or(0) as f64;
    println!(
        "{:26} {:34} {:5} tiles {:9.1} us {:6.1} GFLOP/s {:5.1}% {:6.1} GB/s{note}",
        l.name,
        low.schedule,
        tiles,
        one * 1e6,
        flops / one / 1e9,
        100.0 * flops / one / peak,
        moved / one / 1e9,
    );
}

fn emitted(k: &Kernel, target: &Target) -> JitBuffer {
    let code = x86::emit(k, target).expect("the schedule fits");
    JitBuffer::new(&code.bytes).expect("executable memory")
}

/// Floating-point operations a second of independent multiply-adds, one core.
fn peak(target: &Target) -> f64 {
    let lanes = target.lanes();
    let n = if target.vector_regs == 32 { 24 } else { 12 };
    let ty = RegTy::new(Elem::F32, lanes);
    let mut b = KernelBuilder::new("peak");
    let out = b.ptr("out", Dtype::F32, Access::Write);
    let from = b.ptr("x", Dtype::F32, Access::Read);
    let x = b.load(ty, Addr::param(from), Dtype::F32, None);
    let acc: Vec<_> = (0..n).map(|_| b.zero(ty)).collect();
    b.for_("i", 100_000, 4, |b, _| acc.iter().for_each(|&r| b.fma_acc(r, x, x)));
    for (i, &r) in acc.iter().enumerate() {
        b.store(r, Addr::param(out).offset((i * lanes * 4) as i64), Dtype::F32, None);
    }
    let code = emitted(&b.finish(), target);
    let mut room = Aligned::zeroed(n * lanes * 4);
    let mut x = Aligned::from_f32(&vec![0.5; lanes]);
    let args = [room.addr(), x.addr()];
    // SAFETY: the kernel reads a vector, writes `n` and uses no scratch.
    let each = time(|| unsafe { code.call(&args, 0, 1, std::ptr::null_mut()) });
    (100_000 * n * lanes * 2) as f64 / each
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let all = words.iter().any(|w| w == "--all");
    let filter = words.iter().find(|w| !w.starts_with("--")).cloned().unwrap_or_default();
    let narrow = words.iter().any(|w| w == "--avx2");
    let target = Target::of(if narrow { Tier::Avx2 } else { Tier::Avx512 });
    let peak = peak(&target);
    println!("peak {:.1} GFLOP/s a core", peak / 1e9);
    for l in layers().iter().filter(|l| l.name.contains(&filter)) {
        run(l, &target, peak, How::Best, "");
        if words.iter().any(|w| w == "--winograd") && l.name.contains("3x3") && !l.late {
            for (cycles, p) in winograd_plans(l, &target) {
                let note = format!("  model {:.0} kcycles", cycles / 1e3);
                run(l, &target, peak, How::Winograd(p), &note);
            }
        }
        if all {
            for s in choices(l, &target).into_iter().filter(|s| !s.staged) {
                run(l, &target, peak, How::Direct(s), "");
            }
        }
    }
}
