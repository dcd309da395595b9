//! Parameter files: a stream of tensor records without names, or one record a file.
//!
//! A record: `u32 0 | u64 lod levels | per level {u64 bytes, offsets} | u32 0 | i32 length |
//! TensorDesc | row-major data`, little-endian, without padding. The length of the data follows
//! from the description. Data are slices of the file, not copies.

use super::program::{Param, dtype_of_number};
use super::proto;
use crate::options::tensor_bytes;
use crate::{FrontendError, Limits};
use bytes::Bytes;
use hub_ir::Dtype;
use prost::Message;

/// A parameter's data.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes; none for a scalar.
    pub dims: Vec<i64>,
    /// Row-major little-endian bytes.
    pub data: Bytes,
}

/// Reads the whole of a combined file: one record for each parameter, in their order.
pub fn combined(
    file: &Bytes,
    params: &[Param],
    limits: &Limits,
) -> Result<Vec<Tensor>, FrontendError> {
    let mut at = Cursor { file, at: 0 };
    let tensors = params.iter().map(|p| {
        let t = record(&mut at, limits).map_err(|e| e.at(&p.name))?;
        fits(p, &t, at.at)?;
        Ok(t)
    });
    let tensors = tensors.collect::<Result<Vec<_>, FrontendError>>()?;
    at.end(params.len())?;
    Ok(tensors)
}

/// Reads a file that holds one parameter.
pub fn single(file: &Bytes, param: &Param, limits: &Limits) -> Result<Tensor, FrontendError> {
    let mut at = Cursor { file, at: 0 };
    let t = record(&mut at, limits).map_err(|e| e.at(&param.name))?;
    fits(param, &t, at.at)?;
    at.end(1)?;
    Ok(t)
}

/// The record must be what the program declares; that they are matched by order alone is why.
fn fits(p: &Param, t: &Tensor, end: usize) -> Result<(), FrontendError> {
    let (dtype, dims) = &p.ty;
    let same = dims.len() == t.dims.len()
        && dims.iter().zip(&t.dims).all(|(&want, &have)| want == have || want < 0);
    if *dtype == t.dtype && same {
        return Ok(());
    }
    Err(FrontendError::invalid(format!(
        "the program declares {dtype} {dims:?}, the parameter file has {} {:?}",
        t.dtype, t.dims
    ))
    .at(&p.name)
    .at_byte((end - t.data.len()) as u64)
    .advise("use the parameter file that was saved with this program"))
}

struct Cursor<'f> {
    file: &'f Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, n: u64, what: &str) -> Result<Bytes, FrontendError> {
        let left = (self.file.len() - self.at) as u64;
        if n > left {
            return Err(FrontendError::invalid(format!(
                "the parameter file ends within {what}: {n} bytes are needed, {left} are left"
            ))
            .at_byte(self.at as u64));
        }
        let from = self.at;
        self.at += n as usize;
        Ok(self.file.slice(from..self.at))
    }

    fn u32(&mut self, what: &str) -> Result<u32, FrontendError> {
        let b = self.take(4, what)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self, what: &str) -> Result<u64, FrontendError> {
        let (lo, hi) = (self.u32(what)?, self.u32(what)?);
        Ok(u64::from(lo) | u64::from(hi) << 32)
    }

    fn zero(&mut self, what: &str) -> Result<(), FrontendError> {
        let at = self.at as u64;
        match self.u32(what)? {
            0 => Ok(()),
            v => Err(FrontendError::invalid(format!("{what} is {v}, not 0")).at_byte(at)),
        }
    }

    fn end(&self, count: usize) -> Result<(), FrontendError> {
        let left = self.file.len() - self.at;
        if left == 0 {
            return Ok(());
        }
        Err(FrontendError::invalid(format!(
            "the parameter file goes on for {left} bytes after its {count} tensors"
        ))
        .at_byte(self.at as u64)
        .advise("use the parameter file that was saved with this program"))
    }
}

fn record(at: &mut Cursor<'_>, limits: &Limits) -> Result<Tensor, FrontendError> {
    at.zero("the tensor's version")?;
    let levels = at.u64("the number of LoD levels")?;
    for _ in 0..levels {
        let bytes = at.u64("a LoD level")?;
        at.take(bytes, "a LoD level")?;
    }
    at.zero("the dense tensor's version")?;
    let start = at.at as u64;
    let len = at.u32("the length of the description")?;
    let desc = at.take(len.into(), "the description")?;
    crate::wire::check(&desc, &super::schema::TENSOR, limits)
        .map_err(|e| e.moved(at.at as u64 - u64::from(len)))?;
    let desc = proto::TensorDesc::decode(desc).map_err(|e| {
        FrontendError::invalid(format!("the description cannot be read: {e}")).at_byte(start)
    })?;
    let dtype = dtype_of_number(desc.data_type.into()).ok_or_else(|| {
        let what = format!("element type {} is not one that Hub has", desc.data_type);
        FrontendError::invalid(what).at_byte(start)
    })?;
    let bytes = tensor_bytes(limits, dtype, &desc.dims).map_err(|e| e.at_byte(start))?;
    let data = at.take(bytes, "the data")?;
    Ok(Tensor { dtype, dims: desc.dims, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(dtype: Dtype, dims: &[i64]) -> Param {
        Param { var: 0, name: "w".into(), ty: (dtype, dims.to_vec()) }
    }

    fn bytes(desc: &[u8], lod: &[u8], data: &[u8]) -> Bytes {
        let len = (desc.len() as u32).to_le_bytes();
        [&[0; 4], lod, &[0; 4], &len, desc, data].concat().into()
    }

    #[test]
    fn half_precision_scalars_and_lod_levels() {
        let none = [0; 8];
        let f = bytes(&[8, 4, 16, 2, 16, 2], &none, &[1; 8]);
        let t = single(&f, &param(Dtype::F16, &[2, 2]), &Limits::default()).unwrap();
        assert_eq!((t.dtype, &t.dims[..], t.data.len()), (Dtype::F16, &[2, 2][..], 8));
        assert!(f.as_ptr_range().contains(&t.data.as_ptr()), "data are a slice of the file");
        let f = bytes(&[8, 6], &none, &1.5f64.to_le_bytes());
        let t = single(&f, &param(Dtype::F64, &[]), &Limits::default()).unwrap();
        assert_eq!(&t.data[..], 1.5f64.to_le_bytes());
        let mut lod = vec![1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0];
        lod.extend([0; 16]);
        let f = bytes(&[8, 0x16, 16, 3], &lod, &[7; 6]);
        let t = single(&f, &param(Dtype::BF16, &[3]), &Limits::default()).unwrap();
        assert_eq!(&t.data[..], [7; 6]);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error_or_a_tensor() {
        let f = bytes(&[8, 5, 16, 2], &[0; 8], &[9; 8]);
        let p = param(Dtype::F32, &[2]);
        for n in 0..f.len() {
            assert!(single(&f.slice(..n), &p, &Limits::default()).is_err(), "cut at {n}");
            for bit in 0..8 {
                let mut flipped = f.to_vec();
                flipped[n] ^= 1 << bit;
                let _ = single(&flipped.into(), &p, &Limits::default());
            }
        }
        let longer = Bytes::from([&f[..], &[0]].concat());
        assert!(single(&longer, &p, &Limits::default()).is_err());
    }
}
