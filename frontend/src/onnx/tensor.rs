//! `TensorProto` to a constant: raw, typed, external or sparse data, checked against the shape.

use super::external::External;
use super::proto::{SparseTensorProto, TensorProto};
use crate::error::FrontendError;
use crate::options::{Limits, tensor_bytes};
use bytes::Bytes;
use hub_abi::shape::TensorType;
use hub_abi::{Dim, Dtype};
use hub_ir::graph::ConstData;

type Got<T> = Result<T, FrontendError>;

/// The dtype of that number, or an error that says what it is.
pub(crate) fn dtype(number: i32) -> Got<Dtype> {
    Dtype::from_onnx(number).ok_or_else(|| match number {
        27.. => FrontendError::unsupported(format!("element type number {number}"))
            .advise("store the tensor as one of ONNX's element types 1 to 26"),
        _ => FrontendError::invalid(format!("{number} is not an element type")),
    })
}

/// Reads a tensor. Row-major raw data is a slice of the file.
pub(crate) fn read(t: &TensorProto, external: &mut External, limits: &Limits) -> Got<ConstData> {
    let dtype = dtype(t.data_type)?;
    tensor_bytes(limits, dtype, &t.dims)?;
    let dims = t.dims.iter().map(|&d| Dim::from(d)).collect();
    let ty = TensorType { dtype, dims };
    let empty = t.dims.contains(&0);
    let count = if empty { 0 } else { t.dims.iter().product::<i64>() as u64 };
    if dtype == Dtype::Str {
        let strings = strings(t, count)?;
        return Ok(ConstData { ty, data: Bytes::new(), strings });
    }
    let stored = match dtype.packed_bits() {
        Some(bits) => count.div_ceil(8 / u64::from(bits)),
        None => count * dtype.size() as u64,
    };
    let data = match (&t.raw_data, t.data_location) {
        (_, 1) => external.read(&t.external_data, stored, limits)?,
        (Some(raw), _) => raw.clone(),
        _ => typed(t, dtype)?,
    };
    if data.len() as u64 != stored {
        return Err(FrontendError::invalid(format!(
            "{} bytes of data for shape {:?} of {dtype}, which takes {stored}",
            data.len(),
            t.dims
        )));
    }
    external.count(data.len(), limits)?;
    let data = match dtype {
        d if d.packed_bits().is_some() => unpack(&data, dtype, count as usize),
        Dtype::Bool if data.iter().any(|&b| b > 1) => {
            data.iter().map(|&b| u8::from(b != 0)).collect::<Vec<u8>>().into()
        }
        _ => data,
    };
    Ok(ConstData { ty, data, strings: vec![] })
}

fn strings(t: &TensorProto, count: u64) -> Got<Vec<String>> {
    if t.string_data.len() as u64 != count {
        return Err(FrontendError::invalid(format!(
            "{} strings for shape {:?}",
            t.string_data.len(),
            t.dims
        )));
    }
    let text = |b: &Bytes| {
        String::from_utf8(b.to_vec()).map_err(|_| FrontendError::invalid("a string is not UTF-8"))
    };
    t.string_data.iter().map(text).collect()
}

/// Several elements a byte, the first in the lowest bits, to one a byte.
fn unpack(data: &[u8], dtype: Dtype, count: usize) -> Bytes {
    let bits = dtype.packed_bits().unwrap_or(8);
    let (signed, gap) = (dtype.is_signed_int(), 8 - bits);
    let part = |b: u8, at: u32| {
        let top = b << (gap - at);
        if signed { ((top as i8) >> gap) as u8 } else { top >> gap }
    };
    let parts = |&b: &u8| (0..8).step_by(bits as usize).map(move |at| part(b, at));
    let mut out: Vec<u8> = data.iter().flat_map(parts).collect();
    out.truncate(count);
    out.into()
}

/// Little-endian bytes of the typed fields.
fn typed(t: &TensorProto, dtype: Dtype) -> Got<Bytes> {
    use Dtype::*;
    let ints = |size: usize| -> Vec<u8> {
        t.int32_data.iter().flat_map(|x| x.to_le_bytes()[..size].to_vec()).collect()
    };
    let bytes: Vec<u8> = match dtype {
        F32 | C64 => t.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        F64 | C128 => t.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        I64 => t.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        U64 => t.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        U32 => t.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        I32 => ints(4),
        I16 | U16 | F16 | BF16 => ints(2),
        I8 | U8 | Bool | U4 | I4 | U2 | I2 | F4E2M1 => ints(1),
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => ints(1),
        Str => return Err(FrontendError::invalid("strings have no bytes")),
    };
    Ok(bytes.into())
}

/// A sparse tensor made dense.
pub(crate) fn read_sparse(
    s: &SparseTensorProto,
    external: &mut External,
    limits: &Limits,
) -> Got<ConstData> {
    let missing = || FrontendError::invalid("a sparse tensor without values or indices");
    let values = read(s.values.as_ref().ok_or_else(missing)?, external, limits)?;
    let indices = read(s.indices.as_ref().ok_or_else(missing)?, external, limits)?;
    let dtype = values.ty.dtype;
    let total = tensor_bytes(limits, dtype, &s.dims)?;
    external.count(usize::try_from(total).unwrap_or(usize::MAX), limits)?;
    // A dense tensor may be far larger than its file; keep that within reason.
    if total > limits.sparse_bytes {
        let what = format!("a sparse tensor of more than {} bytes when dense", limits.sparse_bytes);
        return Err(FrontendError::limit(what));
    }
    let fail = || FrontendError::invalid("a sparse tensor's indices do not fit its shape");
    let (size, rank) = (dtype.size(), s.dims.len());
    let count = values.data.len() / size.max(1);
    let linear = match indices.ty.dims.len() {
        1 => true,
        2 => false,
        _ => return Err(fail()),
    };
    let per = if linear { 1 } else { rank };
    if indices.ty.dtype != Dtype::I64 || indices.data.len() != count * per * 8 || size == 0 {
        return Err(fail());
    }
    let mut out = vec![0u8; total as usize];
    let index: Vec<i64> = indices
        .data
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")))
        .collect();
    for (i, value) in values.data.chunks_exact(size).enumerate() {
        let at = if linear {
            usize::try_from(index[i]).map_err(|_| fail())?
        } else {
            let tuple = &index[i * rank..(i + 1) * rank];
            let fits = tuple.iter().zip(&s.dims).all(|(i, d)| (0..*d).contains(i));
            if !fits {
                return Err(fail());
            }
            tuple.iter().zip(&s.dims).fold(0, |a, (&i, &d)| a * d as usize + i as usize)
        };
        let place = at.checked_mul(size).and_then(|at| out.get_mut(at..at + size));
        place.ok_or_else(fail)?.copy_from_slice(value);
    }
    let dims = s.dims.iter().map(|&d| Dim::from(d)).collect();
    Ok(ConstData { ty: TensorType { dtype, dims }, data: out.into(), strings: vec![] })
}
