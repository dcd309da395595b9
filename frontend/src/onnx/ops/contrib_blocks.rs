//! com.microsoft: weights of few bits in blocks, each with a scale (and a zero point).

use super::contrib::MS;
use super::contrib_quant::biased;
use crate::onnx::cx::{Cx, Got, invalid, one};
use crate::onnx::table::{Row, op_of};
use hub_abi::prim::{BinaryOp, Prim};
use hub_abi::{Dim, Dtype};
use hub_ir::Value;
use hub_ir::ops::matmul::MatMul;
use hub_ir::ops::quant::Dequantize;

pub(crate) const OPS: &[Row] = &[
    op_of(MS, "MatMulNBits", matmul_bits),
    op_of(MS, "MatMulBnb4", matmul_bnb4),
    op_of(MS, "GatherBlockQuantized", gather),
];

/// Bytes' parts of `bits` bits, the lowest first, along the last axis.
pub(super) fn unpacked(c: &mut Cx<'_, '_, '_>, x: Value, bits: i64) -> Got {
    if bits == 8 {
        return Ok(x);
    }
    let mut dims = c.dims(x);
    let axis = dims.len();
    if axis == 0 {
        return invalid("packed numbers need an axis");
    }
    let mut parts = vec![];
    for i in 0..8 / bits {
        let t = match i {
            0 => x,
            _ => c.bin_scalar(BinaryOp::Shr, x, (bits * i) as f64)?,
        };
        let t = c.bin_scalar(BinaryOp::BitAnd, t, ((1 << bits) - 1) as f64)?;
        parts.push(c.b.unsqueeze(t, axis)?);
    }
    let all = c.b.concat(&parts, axis)?;
    dims[axis - 1] = dims[axis - 1].times(8 / bits);
    c.reshape(all, dims)
}

/// Zero points of `rows` rows with `n` each, as f32 `[rows, n]`: bytes are packed row by row; by
/// default the middle of the range.
fn zeros(c: &mut Cx<'_, '_, '_>, at: Option<Value>, [rows, n]: [i64; 2], bits: i64) -> Got {
    let grid: Vec<Dim> = vec![rows.into(), n.into()];
    match at {
        Some(z) if c.dtype(z) == Dtype::U8 => {
            let row = (n * bits + 7) / 8;
            let z = c.reshape(z, vec![rows.into(), row.into()])?;
            let z = unpacked(c, z, bits)?;
            let z = c.b.narrow(z, 1, 0i64.into(), n.into())?;
            c.cast(z, Dtype::F32)
        }
        Some(z) => {
            let z = c.reshape(z, grid)?;
            c.cast(z, Dtype::F32)
        }
        None => {
            let middle = c.scalar(Dtype::F32, (1 << (bits - 1)) as f64);
            Ok(c.b.broadcast(middle, grid)?)
        }
    }
}

/// `a · wᵀ + bias` with w `[N, K]` in blocks of few bits along K, each with a scale and zero point;
/// `g_idx` says which block's those of each k are, where that is not the block it lies in.
fn matmul_bits(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (a, w, scales) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (k, n) = (c.int("K", 0)?, c.int("N", 0)?);
    let (bits, block) = (c.int("bits", 4)?, c.int("block_size", 0)?);
    let sound = k > 0 && n > 0 && k.max(n) < 1 << 32 && (1..1 << 20).contains(&block);
    if !sound || !matches!(bits, 2 | 4 | 8) {
        return invalid(format!("K {k}, N {n}, {bits} bits in blocks of {block}"));
    }
    let blocks = (k + block - 1) / block;
    let whole: Vec<Dim> = vec![n.into(), (blocks * block).into()];
    let w = unpacked(c, w, bits)?;
    let w = c.reshape(w, whole.clone())?;
    let w = c.b.narrow(w, 1, 0i64.into(), k.into())?;
    let w = c.cast(w, Dtype::F32)?;
    let scales = c.reshape(scales, vec![n.into(), blocks.into()])?;
    let scales = c.cast(scales, Dtype::F32)?;
    let zero = zeros(c, c.opt(3), [n, blocks], bits)?;
    let [zero, scales] = [zero, scales].map(|v| -> Got {
        if let Some(order) = c.opt(4) {
            let order = c.b.narrow(order, 0, 0i64.into(), k.into())?;
            return c.prim(Prim::Gather { axis: 1 }, &[v, order]);
        }
        let v = c.b.unsqueeze(v, 2)?;
        let v = c.b.broadcast(v, vec![n.into(), blocks.into(), block.into()])?;
        let v = c.reshape(v, whole.clone())?;
        Ok(c.b.narrow(v, 1, 0i64.into(), k.into())?)
    });
    let w = c.bin(BinaryOp::Sub, w, zero?)?;
    let w = c.bin(BinaryOp::Mul, w, scales?)?;
    let dtype = c.dtype(a);
    let w = c.cast(w, dtype)?;
    let y = c.source(MatMul { trans_a: false, trans_b: true }, &[a, w])?;
    biased(c, y, 5)
}

/// The sixteen values of bitsandbytes' FP4 and NF4.
const FP4: [f32; 8] = [0.0, 1.0 / 192.0, 2.0 / 3.0, 1.0, 1.0 / 3.0, 0.5, 1.0 / 6.0, 0.25];
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// `a · wᵀ` with w `[N, K]` of four bits (the first of a byte in its high half) that number values of
/// a table, times the greatest magnitude of each block.
fn matmul_bnb4(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (a, w, top) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (k, n, block) = (c.int("K", 0)?, c.int("N", 0)?, c.int("block_size", 0)?);
    let count = k.checked_mul(n).filter(|_| k > 0 && n > 0).unwrap_or(0);
    if count == 0 || count % 2 != 0 || !(1..1 << 20).contains(&block) || count % block != 0 {
        return invalid(format!("K {k}, N {n} in blocks of {block}"));
    }
    let table: Vec<f32> = match c.int("quant_type", 1)? {
        0 => FP4.into_iter().chain(FP4.map(|v| -v)).collect(),
        1 => NF4.to_vec(),
        other => return invalid(format!("quant_type {other}")),
    };
    let w = c.reshape(w, vec![(count / 2).into()])?;
    let high = c.bin_scalar(BinaryOp::Shr, w, 4.0)?;
    let low = c.bin_scalar(BinaryOp::BitAnd, w, 15.0)?;
    let parts = [c.b.unsqueeze(high, 1)?, c.b.unsqueeze(low, 1)?];
    let at = c.b.concat(&parts, 1)?;
    let at = c.cast(at, Dtype::I32)?;
    let table = c.b.floats(&[16], &table);
    let w = c.prim(Prim::Gather { axis: 0 }, &[table, at])?;
    let w = c.reshape(w, vec![(count / block).into(), block.into()])?;
    let top = c.reshape(top, vec![(count / block).into(), 1i64.into()])?;
    let top = c.cast(top, Dtype::F32)?;
    let w = c.bin(BinaryOp::Mul, w, top)?;
    let trans_b = c.flag("transB", true)?;
    let shape = if trans_b { [n, k] } else { [k, n] };
    let w = c.reshape(w, shape.map(Dim::from).to_vec())?;
    let dtype = c.dtype(a);
    let w = c.cast(w, dtype)?;
    one(c.source(MatMul { trans_a: false, trans_b }, &[a, w])?)
}

/// Slices of a quantised table, made real; an index out of range gives zeros.
fn gather(c: &mut Cx<'_, '_, '_>) -> Got<Vec<Value>> {
    let (mut data, at, mut scales) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let mut zero = c.opt(3);
    let bits = c.int("bits", 4)?;
    let bytes = c.dtype(data) == Dtype::U8;
    if bytes && !matches!(bits, 2 | 4 | 8) {
        return invalid(format!("{bits} bits"));
    }
    let rank = c.rank(data);
    let axis = c.axis(c.int("gather_axis", 0)?, rank)?;
    let along = c.axis(c.int("quantize_axis", 1)?, rank)?;
    let block = match c.int("block_size", 128)? {
        0 => c.dim(data, along)?.as_const().unwrap_or(0),
        n => n,
    };
    if block < 1 || c.rank(scales) != rank {
        return invalid(format!("blocks of {block}, scales of rank {}", c.rank(scales)));
    }
    let size = c.dim(data, axis)?;
    let (at, inside) = within(c, at, &size)?;
    // Gathering first makes only what is asked for real.
    let first = axis != along;
    let pick = Prim::Gather { axis: axis as u32 };
    if first {
        data = c.prim(pick.clone(), &[data, at])?;
        if !c.dim(scales, axis)?.is(1) || size.is(1) {
            scales = c.prim(pick.clone(), &[scales, at])?;
            zero = match zero {
                Some(z) => Some(c.prim(pick.clone(), &[z, at])?),
                None => None,
            };
        }
    }
    if bytes {
        let own;
        (data, own) = whole_bytes(c, data, [zero, Some(scales)], bits)?;
        zero = Some(own);
    }
    // The gathered axis became the indices' axes.
    let shift = if first && axis < along { c.rank(at) } else { 1 };
    let along = along + shift - 1;
    let to = c.dtype(scales);
    let mut whole = c.dims(data);
    whole[along] = c.dim(scales, along)?;
    let scales = c.b.broadcast(scales, whole)?;
    let mut ins = vec![data, scales];
    ins.extend(zero);
    let mut y = c.source(Dequantize { axis: along, block: Some(block), to }, &ins)?;
    if !first {
        y = c.prim(pick, &[y, at])?;
    }
    let Some(inside) = inside else { return one(y) };
    let mut shape = vec![Dim::from(1i64); axis];
    shape.extend(c.dims(inside));
    shape.resize(c.rank(y), 1i64.into());
    let inside = c.reshape(inside, shape)?;
    let nothing = c.scalar(to, 0.0);
    one(c.b.select(inside, y, nothing)?)
}

/// Packed numbers one by one, and their zero points `[zero, scales]` in the scales' shape (by default
/// the middle of the range).
fn whole_bytes(
    c: &mut Cx<'_, '_, '_>,
    data: Value,
    [zero, scales]: [Option<Value>; 2],
    bits: i64,
) -> Got<(Value, Value)> {
    let data = unpacked(c, data, bits)?;
    let grid = scales.map_or(vec![], |s| c.dims(s));
    let (Some(z), Some(n)) = (zero, grid.last().cloned()) else {
        let middle = c.scalar(Dtype::U8, (1 << (bits - 1)) as f64);
        return Ok((data, c.b.broadcast(middle, grid)?));
    };
    let z = unpacked(c, z, bits)?;
    let last = c.rank(z) - 1;
    Ok((data, c.b.narrow(z, last, 0i64.into(), n)?))
}

/// Indices that are in range, and which of the given ones were (none where all are known to be).
fn within(c: &mut Cx<'_, '_, '_>, at: Value, size: &Dim) -> Got<(Value, Option<Value>)> {
    let known = c.known_ints(at).zip(size.as_const());
    if known.is_some_and(|(at, n)| at.iter().all(|i| (-n..n).contains(i))) {
        return Ok((at, None));
    }
    let at = c.cast(at, Dtype::I64)?;
    let n = c.b.dim_scalar(size.clone());
    let under = c.bin_scalar(BinaryOp::Lt, at, 0.0)?;
    let wrapped = c.bin(BinaryOp::Add, at, n)?;
    let at = c.b.select(under, wrapped, at)?;
    let (low, high) = (c.bin_scalar(BinaryOp::Ge, at, 0.0)?, c.bin(BinaryOp::Lt, at, n)?);
    let inside = c.bin(BinaryOp::And, low, high)?;
    let nothing = c.scalar(Dtype::I64, 0.0);
    Ok((c.b.select(inside, at, nothing)?, Some(inside)))
}
