//! Groups around one primitive with an epilogue, in memory.

use super::{Group, Input, Layout, pick, random, random_of};
use hub_abi::prim::{BinaryOp, Geometry, Prim, UnaryOp};
use hub_abi::shape::{TensorType, Type};
use hub_abi::{Dim, Dtype, SymEnv};
use hub_codegen::target::{Target, Tier};
use hub_ir::build::Builder;
use hub_ir::{Graph, Value};

/// What follows the anchor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Nothing,
    BiasRelu,
    ResidualSilu,
}

/// A graph whose group is `prim` on `inputs`, then `end`; sizes listed in `late` are symbols.
pub struct Made {
    pub group: Group,
}

pub fn sized(g: &mut Graph, env: &mut SymEnv, n: usize, late: bool) -> Dim {
    if !late {
        return Dim::from(n);
    }
    let known =
        g.syms.iter().position(|s| env.0[g.syms.len() - 1].is_some() && s.name == format!("n{n}"));
    if let Some(i) = known {
        return hub_abi::Sym(i as u32).into();
    }
    let s = g.new_sym(&format!("n{n}"), 1, 4096);
    env.set(s, n as i64);
    s.into()
}

/// Sizes, which of them are bound late, whether it is a constant.
pub type Spec = (Vec<usize>, Vec<bool>, bool);

pub fn group(seed: &mut u64, prim: Prim, specs: &[Spec], end: End, feature: usize) -> Made {
    typed(seed, prim, specs, end, feature, [Dtype::F32; 2])
}

/// As `group`, with the dtypes of the anchor's operands.
pub fn typed(
    seed: &mut u64,
    prim: Prim,
    specs: &[Spec],
    end: End,
    feature: usize,
    dtypes: [Dtype; 2],
) -> Made {
    let mut g = Graph::new();
    let mut env = SymEnv::new(0);
    let region = g.new_region();
    let mut inputs = vec![];
    let mut params: Vec<Value> = vec![];
    for ((dims, late, constant), dtype) in specs.iter().zip(dtypes) {
        let sym: Vec<Dim> =
            dims.iter().zip(late).map(|(&n, &l)| sized(&mut g, &mut env, n, l)).collect();
        params.push(g.add_param(region, Type::Tensor(TensorType { dtype, dims: sym })));
        let layout = Layout::dense(dims.len());
        inputs.push(Input { tensor: random_of(seed, dtype, dims), constant: *constant, layout });
    }
    let ty = {
        let types: Vec<TensorType> = params.iter().map(|v| g.tensor(*v).clone()).collect();
        prim.infer(&types, &mut Default::default()).unwrap().remove(0)
    };
    let sizes: Vec<usize> = ty.dims.iter().map(|d| d.eval(&env).unwrap() as usize).collect();
    let rank = sizes.len();
    let extra = match end {
        End::Nothing => None,
        End::BiasRelu => {
            let shape: Vec<usize> =
                (feature..rank).map(|a| if a == feature { sizes[a] } else { 1 }).collect();
            let sym: Vec<Dim> = (feature..rank)
                .map(|a| if a == feature { ty.dims[a].clone() } else { 1i64.into() })
                .collect();
            Some((shape, sym, true))
        }
        End::ResidualSilu => Some((sizes.clone(), ty.dims.clone(), false)),
    };
    if let Some((shape, dims, constant)) = extra {
        params.push(g.add_param(region, Type::Tensor(TensorType { dtype: Dtype::F32, dims })));
        let mut layout = Layout::dense(shape.len());
        if !constant {
            layout = Layout::unit(rank, feature);
        }
        inputs.push(Input { tensor: random(seed, &shape), constant, layout });
    }
    let mut b = Builder::new(&mut g, "t");
    let mut v = b.prim(prim, &params[..specs.len()]).unwrap();
    match end {
        End::Nothing => {}
        End::BiasRelu => {
            v = b.add(v, params[specs.len()]).unwrap();
            let zero = b.scalar(Dtype::F32, 0.0);
            v = b.bin(BinaryOp::Max, v, zero).unwrap();
        }
        End::ResidualSilu => {
            v = b.add(v, params[specs.len()]).unwrap();
            let s = b.un(UnaryOp::Sigmoid, v).unwrap();
            v = b.mul(v, s).unwrap();
        }
    }
    b.into_region(region);
    g.regions[region].results.push(v);
    let mut layout = if rank == 0 { Layout::dense(0) } else { Layout::unit(rank, feature) };
    layout.slack = if rank == 0 || pick(seed, 2) == 0 { 0 } else { 13 };
    let group = Group { g, region, inputs, outputs: vec![layout], fill: 0.0, env, poison: true };
    Made { group }
}

pub fn targets() -> [Target; 4] {
    [Tier::Avx512Bf16, Tier::Avx512, Tier::Avx2, Tier::Sm80].map(Target::of)
}

pub const ENDS: [End; 3] = [End::Nothing, End::BiasRelu, End::ResidualSilu];

pub fn geometry(stride: &[i64], dilation: &[i64], before: &[i64], after: &[i64]) -> Geometry {
    let dims = |x: &[i64]| x.iter().map(|&d| d.into()).collect();
    Geometry {
        stride: stride.to_vec(),
        dilation: dilation.to_vec(),
        before: dims(before),
        after: dims(after),
    }
}
