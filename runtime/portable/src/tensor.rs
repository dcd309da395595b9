//! Tensors: an element type, dimensions and shared bytes.
//!
//! Storage is shared and immutable, so clones and reshapes are cheap, and a constant may lie in a
//! mapped file at any alignment: typed access copies only where the bytes are misaligned. Strings
//! are stored apart. Booleans and 4-bit integers take one byte an element; any byte but 0 is true.

use crate::error::{PrimError, misfit};
use bytemuck::Pod;
use half::{bf16, f16};
use hub_abi::shape::TensorType;
use hub_abi::{Dim, Dtype};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Rust types of elements. (`u8` also stands for bool, `u4` and the 8-bit floats, `i8` for `i4`,
/// where [`Tensor::cast`] is asked for words rather than values.)
pub trait Elem: Pod + Send + Sync + PartialEq {
    /// The dtype whose values it holds.
    const DTYPE: Dtype;
}

macro_rules! elems {
    ($($t:ty => $d:ident),*) => { $(impl Elem for $t { const DTYPE: Dtype = Dtype::$d; })* };
}
elems!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, i16 => I16, i32 => I32,
       i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

/// A vector seen as bytes.
struct Words<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Words<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

#[derive(Clone)]
enum Data {
    Bytes { owner: Owner, offset: usize, len: usize },
    Strings(Arc<Vec<String>>),
}

/// A tensor. Clones share storage.
#[derive(Clone)]
pub struct Tensor {
    dtype: Dtype,
    dims: Vec<usize>,
    data: Data,
}

/// Product of `dims`, `None` if it overflows (a zero wins over any overflow).
pub(crate) fn count_of(dims: &[usize]) -> Option<usize> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))
}

impl Tensor {
    fn checked(dtype: Dtype, dims: Vec<usize>, data: Data) -> Result<Tensor, PrimError> {
        let have = match &data {
            Data::Bytes { len, .. } if dtype != Dtype::Str => *len,
            Data::Strings(s) if dtype == Dtype::Str => s.len(),
            _ => return misfit(format!("elements of type {dtype} do not match their storage")),
        };
        let need = count_of(&dims).and_then(|n| n.checked_mul(dtype.size().max(1)));
        if need != Some(have) {
            return misfit(format!("{have} bytes (or strings) do not make {dtype} {dims:?}"));
        }
        Ok(Tensor { dtype, dims, data })
    }

    /// A tensor of these elements in row-major order.
    pub fn new<T: Elem>(dims: &[usize], data: Vec<T>) -> Result<Tensor, PrimError> {
        Tensor::of_words(T::DTYPE, dims.to_vec(), data)
    }

    /// A scalar.
    pub fn scalar<T: Elem>(x: T) -> Tensor {
        let len = std::mem::size_of::<T>();
        let data = Data::Bytes { owner: Arc::new(Words(vec![x])), offset: 0, len };
        Tensor { dtype: T::DTYPE, dims: vec![], data }
    }

    /// A tensor of booleans.
    pub fn bools(dims: &[usize], data: &[bool]) -> Result<Tensor, PrimError> {
        let bytes: Vec<u8> = data.iter().map(|&b| u8::from(b)).collect();
        Tensor::of_words(Dtype::Bool, dims.to_vec(), bytes)
    }

    /// A tensor of strings.
    pub fn strings(dims: &[usize], data: Vec<String>) -> Result<Tensor, PrimError> {
        Tensor::checked(Dtype::Str, dims.to_vec(), Data::Strings(Arc::new(data)))
    }

    /// A tensor whose elements have these bits.
    pub(crate) fn of_words<T: Pod + Send + Sync>(
        dtype: Dtype,
        dims: Vec<usize>,
        data: Vec<T>,
    ) -> Result<Tensor, PrimError> {
        let len = std::mem::size_of_val(&data[..]);
        let owner: Owner = Arc::new(Words(data));
        Tensor::checked(dtype, dims, Data::Bytes { owner, offset: 0, len })
    }

    /// A tensor of copied little-endian bytes.
    pub fn from_bytes(dtype: Dtype, dims: &[usize], bytes: &[u8]) -> Result<Tensor, PrimError> {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        let owner: Owner = Arc::new(Words(words));
        let data = Data::Bytes { owner, offset: 0, len: bytes.len() };
        Tensor::checked(dtype, dims.to_vec(), data)
    }

    /// A tensor in `len` bytes at `offset` of memory that something else owns (a mapped file), at
    /// any alignment. Nothing is copied.
    pub fn from_owner(
        dtype: Dtype,
        dims: &[usize],
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        offset: usize,
        len: usize,
    ) -> Result<Tensor, PrimError> {
        let size = (*owner).as_ref().len();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return misfit(format!("{len} bytes at {offset} are outside {size} bytes"));
        }
        Tensor::checked(dtype, dims.to_vec(), Data::Bytes { owner, offset, len })
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        count_of(&self.dims).unwrap_or(0)
    }

    /// Row-major little-endian bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes { owner, offset, len } => {
                (**owner).as_ref().get(*offset..*offset + *len).unwrap_or(&[])
            }
            Data::Strings(_) => &[],
        }
    }

    /// The strings where these are its elements, else none.
    pub fn as_strings(&self) -> &[String] {
        match &self.data {
            Data::Strings(s) => s,
            Data::Bytes { .. } => &[],
        }
    }

    /// Memory taken by the elements.
    pub fn byte_len(&self) -> usize {
        match &self.data {
            Data::Bytes { len, .. } => *len,
            Data::Strings(s) => s.iter().map(|s| s.len() + std::mem::size_of::<String>()).sum(),
        }
    }

    /// The elements as `T`, borrowed where aligned. An error if the dtype is not `T`'s.
    pub fn view<T: Elem>(&self) -> Result<Cow<'_, [T]>, PrimError> {
        if self.dtype != T::DTYPE {
            return misfit(format!("a tensor of {} where {} is expected", self.dtype, T::DTYPE));
        }
        Ok(self.cast())
    }

    /// The elements' bits as words of the same size as the dtype.
    pub(crate) fn cast<T: Pod>(&self) -> Cow<'_, [T]> {
        let bytes = self.bytes();
        match bytemuck::try_cast_slice(bytes) {
            Ok(s) => Cow::Borrowed(s),
            Err(_) => {
                let words = bytes.chunks_exact(std::mem::size_of::<T>());
                Cow::Owned(words.map(bytemuck::pod_read_unaligned).collect())
            }
        }
    }

    /// Booleans (also of any one-byte dtype).
    pub fn to_bools(&self) -> Vec<bool> {
        self.bytes().iter().map(|&b| b != 0).collect()
    }

    /// The elements of an integer tensor as int64 (u64 wraps).
    pub fn to_i64s(&self) -> Result<Vec<i64>, PrimError> {
        fn all<T: Elem>(t: &Tensor, f: impl Fn(T) -> i64) -> Vec<i64> {
            t.cast::<T>().iter().map(|&x| f(x)).collect()
        }
        Ok(match self.dtype {
            Dtype::I64 | Dtype::U64 => self.cast::<i64>().into_owned(),
            Dtype::I32 => all(self, |x: i32| x.into()),
            Dtype::U32 => all(self, |x: u32| x.into()),
            Dtype::I16 => all(self, |x: i16| x.into()),
            Dtype::U16 => all(self, |x: u16| x.into()),
            Dtype::I8 | Dtype::I4 | Dtype::I2 => all(self, |x: i8| x.into()),
            Dtype::U8 | Dtype::U4 | Dtype::U2 => all(self, |x: u8| x.into()),
            Dtype::Bool => all(self, |x: u8| i64::from(x != 0)),
            d => return misfit(format!("integers expected, {d} given")),
        })
    }

    /// The only element of an integer tensor of one element.
    pub fn to_i64(&self) -> Result<i64, PrimError> {
        match self.count() {
            1 => Ok(self.to_i64s()?[0]),
            n => misfit(format!("one integer expected, {n} elements given")),
        }
    }

    /// Numbers of any dtype as f64 (64-bit integers round).
    pub fn to_f64s(&self) -> Result<Vec<f64>, PrimError> {
        Ok(crate::cast::cast(self, Dtype::F64, false)?.cast::<f64>().into_owned())
    }

    /// The tensor's type, with constant dims.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, dims: self.dims.iter().map(|&d| Dim::from(d)).collect() }
    }

    /// The same elements under other dimensions of the same count.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Tensor, PrimError> {
        Tensor::checked(self.dtype, dims.to_vec(), self.data.clone())
    }

    /// The same bits as a dtype of the same size.
    pub(crate) fn with_dtype(&self, dtype: Dtype) -> Result<Tensor, PrimError> {
        Tensor::checked(dtype, self.dims.clone(), self.data.clone())
    }

    /// Elements `[at..at+1]` of the first axis, without that axis; storage is shared.
    pub(crate) fn row(&self, at: usize) -> Result<Tensor, PrimError> {
        let Some((&n, rest)) = self.dims.split_first().filter(|(n, _)| at < **n) else {
            return misfit(format!("row {at} of dimensions {:?}", self.dims));
        };
        let data = match &self.data {
            Data::Bytes { owner, offset, len } => {
                let len = len / n;
                Data::Bytes { owner: owner.clone(), offset: offset + at * len, len }
            }
            Data::Strings(s) => {
                let len = s.len() / n;
                Data::Strings(Arc::new(s[at * len..(at + 1) * len].to_vec()))
            }
        };
        Tensor::checked(self.dtype, rest.to_vec(), data)
    }
}

impl PartialEq for Tensor {
    /// Bitwise.
    fn eq(&self, o: &Tensor) -> bool {
        self.dtype == o.dtype
            && self.dims == o.dims
            && self.bytes() == o.bytes()
            && self.as_strings() == o.as_strings()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ", self.dtype, self.dims)?;
        if self.count() > 32 {
            return f.write_str("[…]");
        }
        match self.dtype {
            Dtype::F32 => write!(f, "{:?}", self.cast::<f32>()),
            Dtype::F64 => write!(f, "{:?}", self.cast::<f64>()),
            Dtype::Str => write!(f, "{:?}", self.as_strings()),
            _ => match self.to_i64s() {
                Ok(v) => write!(f, "{v:?}"),
                Err(_) => write!(f, "{:02x?}", self.bytes()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_bytes_read_right() {
        let mut raw = vec![0u8];
        raw.extend([1.5f32, -2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()));
        let t = Tensor::from_owner(Dtype::F32, &[3], Arc::new(raw), 1, 12).unwrap();
        assert_eq!(&t.view::<f32>().unwrap()[..], [1.5, -2.0, 3.0]);
        assert_eq!(t.row(1).unwrap(), Tensor::scalar(-2.0f32));
    }

    #[test]
    fn counts_are_checked() {
        assert!(Tensor::new(&[2, 2], vec![1i32; 3]).is_err());
        assert!(Tensor::new(&[usize::MAX, 3], vec![1i32; 3]).is_err());
        assert!(Tensor::new(&[usize::MAX, 0, 3], Vec::<i32>::new()).is_ok());
        assert!(
            Tensor::from_owner(Dtype::U8, &[2], Arc::new(vec![0u8; 4]), usize::MAX, 2).is_err()
        );
        assert!(Tensor::new(&[1], vec![1i32]).unwrap().view::<f32>().is_err());
    }
}
