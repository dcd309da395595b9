//! From a primitive and its operands to the function that is its meaning.

use crate::error::{Limits, PrimError, misfit};
use crate::tensor::Tensor;
use crate::work::work;
use crate::{
    binary, cast, contract, conv, image, index, movement, pad, random, reduce, scan, sort, text,
    unary, window,
};
use hub_abi::dim::{Dim, Sym, SymEnv};
use hub_abi::prim::Prim;
use hub_abi::shape::{Constraints, TensorType};

/// What running a primitive gives.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// Results, in order.
    pub outputs: Vec<Tensor>,
    /// Symbols it binds and their values; bounds are the caller's to check.
    pub bound: Vec<(Sym, i64)>,
}

/// Runs a primitive: its sizes evaluate in `env`, its operands and results are checked.
pub fn eval(
    prim: &Prim,
    env: &SymEnv,
    inputs: &[Tensor],
    limits: &Limits,
) -> Result<Outcome, PrimError> {
    let prim = prim.map_dims(&mut |d: &Dim| d.eval(env).map(Dim::from))?;
    let made = check(&prim, inputs)?;
    within(&prim, inputs, &made, limits)?;
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let mut bound = vec![];
    let outputs = match (&prim, &refs[..]) {
        (Prim::TopK { k, axis, largest, sorted }, [x]) => {
            sort::top_k(x, size(k)?, *axis as usize, [*largest, *sorted], limits)?.to_vec()
        }
        (Prim::BindSyms { syms }, [x]) => {
            let values = x.to_i64s()?;
            if values.len() != syms.len() {
                return misfit(format!("{} sizes for {} symbols", values.len(), syms.len()));
            }
            bound.extend(syms.iter().copied().zip(values));
            vec![]
        }
        (Prim::NonZero { count }, [x]) => {
            let found = sort::non_zero(x, limits)?;
            bound.push((*count, found.dims()[1] as i64));
            vec![found]
        }
        (Prim::DecodeImage { pixel, height, width }, [x]) => {
            let y = image::decode(x, *pixel, limits)?;
            bound.extend([(*height, y.dims()[0] as i64), (*width, y.dims()[1] as i64)]);
            vec![y]
        }
        (Prim::Text(op), refs) => {
            let (outputs, width) = text::text(op, refs, limits)?;
            bound.extend(width);
            outputs
        }
        (_, refs) => vec![single(&prim, refs, limits)?],
    };
    Ok(Outcome { outputs, bound })
}

/// Runs a primitive whose sizes are constants and which binds nothing.
pub fn fold(prim: &Prim, inputs: &[Tensor], limits: &Limits) -> Result<Vec<Tensor>, PrimError> {
    let bytes = inputs.iter().fold(0u64, |n, t| n.saturating_add(t.bytes().len() as u64));
    eval(prim, &SymEnv::default(), inputs, &limits.given(bytes)).map(|o| o.outputs)
}

/// Type inference on the actual shapes refuses what does not fit before anything is computed.
fn check(prim: &Prim, inputs: &[Tensor]) -> Result<Vec<TensorType>, PrimError> {
    if let Some(t) = inputs.iter().find(|t| t.rank() > MAX_RANK) {
        return misfit(format!("a tensor of rank {}, above {MAX_RANK}", t.rank()));
    }
    let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
    Ok(prim.infer(&types, &mut Constraints::default())?)
}

/// Refuses more work than the limit before it is begun. Results whose sizes the data decide count
/// when they are there.
fn within(
    prim: &Prim,
    inputs: &[Tensor],
    made: &[TensorType],
    limits: &Limits,
) -> Result<(), PrimError> {
    let size = |d: &Dim| d.as_const().map_or(1, |k| usize::try_from(k).unwrap_or(0));
    let outs: Vec<Vec<usize>> = made.iter().map(|t| t.dims.iter().map(size).collect()).collect();
    let outs: Vec<&[usize]> = outs.iter().map(|d| &d[..]).collect();
    let ins: Vec<&[usize]> = inputs.iter().map(Tensor::dims).collect();
    limits.admit_work(work(prim, &ins, &outs))
}

/// Greatest rank of an operand.
const MAX_RANK: usize = 64;

fn size(d: &Dim) -> Result<usize, PrimError> {
    match d.as_const().and_then(|k| usize::try_from(k).ok()) {
        Some(k) => Ok(k),
        None => misfit(format!("a size of {d}")),
    }
}

fn sizes(dims: &[Dim]) -> Result<Vec<usize>, PrimError> {
    if dims.len() > MAX_RANK {
        return misfit(format!("a tensor of rank {}, above {MAX_RANK}", dims.len()));
    }
    dims.iter().map(size).collect()
}

fn ints(dims: &[Dim]) -> Result<Vec<i64>, PrimError> {
    let known =
        |d: &Dim| d.as_const().ok_or_else(|| PrimError::Misfit(format!("{d} is not known")));
    dims.iter().map(known).collect()
}

/// Primitives of one output.
fn single(prim: &Prim, ins: &[&Tensor], l: &Limits) -> Result<Tensor, PrimError> {
    match (prim, ins) {
        (Prim::Unary(op), [x]) => unary::unary(*op, x),
        (Prim::Binary(op), [a, b]) => binary::binary(*op, a, b, l),
        (Prim::Select, [c, a, b]) => binary::select(c, a, b, l),
        (Prim::Cast { to, saturate }, [x]) => cast::cast(x, *to, *saturate),
        (Prim::Bitcast { to }, [x]) => x.with_dtype(*to),
        (Prim::Broadcast { shape }, [x]) => movement::broadcast_to(x, &sizes(shape)?, l),
        (Prim::Reshape { shape }, [x]) => x.reshaped(&sizes(shape)?),
        (Prim::Transpose { perm }, [x]) => movement::transpose(x, perm, l),
        (Prim::Slice { start, len, step }, [x]) => {
            movement::slice(x, &ints(start)?, &sizes(len)?, step, l)
        }
        (Prim::Pad { before, after, mode }, [x, value]) => {
            pad::pad(x, value, &ints(before)?, &ints(after)?, *mode, l)
        }
        (Prim::Concat { axis }, xs) => movement::concat(xs, *axis as usize, l),
        (Prim::Iota { dtype, shape, axis }, []) => {
            movement::iota(*dtype, &sizes(shape)?, *axis as usize, l)
        }
        (Prim::Dims { dims, scalar: false }, []) => Tensor::new(&[dims.len()], ints(dims)?),
        (Prim::Dims { dims, scalar: true }, []) => Tensor::new(&[], ints(dims)?),
        (Prim::Gather { axis }, [x, i]) => index::gather(x, i, *axis, l),
        (Prim::GatherElements { axis }, [x, i]) => index::gather_elements(x, i, *axis, l),
        (Prim::GatherNd { batch }, [x, i]) => index::gather_nd(x, i, *batch, l),
        (Prim::ScatterElements { axis, op }, [x, i, u]) => {
            index::scatter_elements([x, i, u], *axis, *op)
        }
        (Prim::ScatterNd { op }, [x, i, u]) => index::scatter_nd([x, i, u], *op, l),
        (Prim::Reduce { op, axes, keep }, [x]) => reduce::reduce(*op, x, axes, *keep, l),
        (Prim::ArgReduce { max, axis, keep, last }, [x]) => {
            reduce::arg_reduce(x, *max, *axis as usize, *keep, *last)
        }
        (Prim::Cumulative { op, axis, exclusive, reverse }, [x]) => {
            scan::cumulative(*op, x, *axis as usize, *exclusive, *reverse)
        }
        (Prim::Contract { a, b, out }, [x, y]) => contract::contract(x, y, [a, b, out], l),
        (Prim::Conv { geo, groups }, [x, w]) => conv::conv(x, w, geo, *groups, false, l),
        (Prim::ConvTranspose { geo, groups }, [x, w]) => conv::conv(x, w, geo, *groups, true, l),
        (Prim::Window { op, kernel, geo }, [x]) => window::window(*op, x, kernel, geo, l),
        (Prim::WindowArgMax { kernel, geo, column_major }, [x]) => {
            window::window_arg_max(x, kernel, geo, *column_major, l)
        }
        (Prim::Find, [x, keys]) => text::find(x, keys),
        (Prim::Random { dist, dtype, shape, seed }, []) => {
            random::random(*dist, *dtype, &sizes(shape)?, *seed, l)
        }
        _ => misfit(format!("{} operands", ins.len())),
    }
}
