//! A kernel for trying drivers out: what `hub_runtime::device::conform` asks for.

use crate::{ascend, cuda, opencl};
use hub_abi::plan::{Arg, KernelInfo, Step};
use hub_abi::prim::UnaryOp;
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype};
use hub_codegen::place::Backend;
use hub_codegen::targets::ascend::AscendBackend;
use hub_codegen::targets::simt::SimtBackend;
use hub_codegen::task::{Format, Operand, Task, TaskArg, Which};
use hub_ir::{Builder, Graph, GroupKind};
use hub_runtime::device::conform::Sample;

/// A kernel of a tier whose answer is known: GELU's function of 1000 numbers. None for a tier that no
/// driver of a device runs.
///
/// # Panics
/// If the compiler does not make it.
pub fn sample(tier: &str) -> Option<Sample> {
    match tier {
        ascend::TIER => Some(of(&AscendBackend::of_tier(tier, false)?)),
        cuda::TIER | opencl::TIER => Some(of(&SimtBackend::of_tier(tier, false)?)),
        _ => None,
    }
}

fn of(backend: &dyn Backend) -> Sample {
    const N: i64 = 1000;
    let mut g = Graph::new();
    let dims = vec![Dim::from(N)];
    let x = g.add_input("x", Type::Tensor(TensorType { dtype: Dtype::F32, dims: dims.clone() }));
    let root = g.root();
    let mut b = Builder::new(&mut g, "gelu");
    let made = b.un(UnaryOp::Erf, x).and_then(|e| {
        let one = b.scalar(Dtype::F32, 1.0);
        let e = b.add(e, one)?;
        b.mul(x, e)
    });
    b.into_region(root);
    g.regions[root].results.push(made.expect("a graph"));
    let one = |()| Operand {
        align: 1,
        dtype: Dtype::F32,
        dims: dims.clone(),
        strides: vec![1i64.into()],
        slack: 0,
        halo: false,
        format: Format::Strided,
        constant: false,
        splat: None,
    };
    let task = Task { g: &g, region: root, inputs: vec![one(())], outputs: vec![one(())] };
    let mut l = backend.lower(&task, GroupKind::Map).expect("a kernel");
    l.kernel.name = "gelu".into();
    let mut code = backend.opening().to_vec();
    let text = backend.emit(&l.kernel).expect("a text");
    let (offset, len) = (code.len() as u64, text.len() as u64);
    code.extend(text);
    let arg = |a: &TaskArg| match a {
        TaskArg::Size(d) => Arg::Size(d.clone()),
        TaskArg::Status => Arg::Status,
        TaskArg::Ptr { of, offset, extent } => Arg::Ptr {
            buf: u32::from(matches!(of, Which::Out(_))),
            offset: offset.clone(),
            extent: extent.clone(),
            write: matches!(of, Which::Out(_)),
            bump: 0i64.into(),
        },
    };
    let input: Vec<f32> = (0..N).map(|i| (i - N / 2) as f32 / 100.0).collect();
    let inputs = [hub_portable::Tensor::new(&[N as usize], input.clone()).expect("a tensor")];
    let limits = hub_portable::Limits::default();
    let erf = hub_portable::fold(&hub_abi::Prim::Unary(UnaryOp::Erf), &inputs, &limits);
    let erf = erf.expect("the portable function").remove(0);
    let output = erf.bytes().chunks_exact(4).zip(&input).map(|(e, x)| {
        let e = f32::from_le_bytes(e.try_into().expect("four bytes"));
        x * (e + 1.0)
    });
    Sample {
        code,
        kernel: KernelInfo {
            name: "gelu".into(),
            offset,
            len,
            schedule: l.schedule,
            shares: vec![],
            scratch: 0,
        },
        step: Step::Kernel {
            kernel: 0,
            args: l.args.iter().map(arg).collect(),
            tiles: l.tiles,
            cost: 1i64.into(),
            flops: l.flops,
            bytes: l.bytes,
            node: "gelu".into(),
        },
        output: output.collect(),
        input,
        tolerance: 1e-5,
    }
}
