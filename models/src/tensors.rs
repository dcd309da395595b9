//! Named tensors and the safetensors files that they travel in.
//!
//! Reading trusts nothing: the `safetensors` crate checks offsets, shapes and lengths against each other. Writing is
//! deterministic (that crate's own writer puts metadata in hash order) and by rename.

use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A tensor in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    /// The element type by safetensors' name: `F32`, `F64`, `F16`, `BF16`, `F8_E4M3`, `I64`, `U8`, `BOOL`, `C64`…
    pub dtype: String,
    /// The shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, little-endian, without gaps.
    pub data: Vec<u8>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, NamedTensor>;

/// What a safetensors file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorFile {
    /// The tensors by name.
    pub tensors: Tensors,
    /// The file's `__metadata__`: `stride:NAME` and `dtype:NAME` mean something to [`crate::compare`].
    pub metadata: BTreeMap<String, String>,
}

impl NamedTensor {
    /// A tensor of f32.
    pub fn f32(shape: &[usize], values: &[f32]) -> NamedTensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        NamedTensor { dtype: "F32".into(), shape: shape.to_vec(), data }
    }

    /// A tensor of i64.
    pub fn i64(shape: &[usize], values: &[i64]) -> NamedTensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        NamedTensor { dtype: "I64".into(), shape: shape.to_vec(), data }
    }

    /// The values of an `F32` tensor; `None` for another dtype.
    pub fn as_f32(&self) -> Option<Vec<f32>> {
        let value = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        (self.dtype == "F32").then(|| self.data.chunks_exact(4).map(value).collect())
    }

    /// The values of an `I64` tensor; `None` for another dtype.
    pub fn as_i64(&self) -> Option<Vec<i64>> {
        let value = |c: &[u8]| i64::from_le_bytes(std::array::from_fn(|k| c[k]));
        (self.dtype == "I64").then(|| self.data.chunks_exact(8).map(value).collect())
    }

    /// The safetensors dtype, when there is such a one and the bytes are as many as dtype and shape ask for.
    fn checked(&self, name: &str) -> Result<Dtype> {
        let fail = |problem: String| Error::Tensor { name: name.to_owned(), problem };
        let dtype: Dtype = serde_json::from_value(self.dtype.clone().into())
            .map_err(|_| fail(format!("safetensors has no dtype {:?}", self.dtype)))?;
        let bits = self.shape.iter().try_fold(dtype.bitsize(), |n, &d| n.checked_mul(d));
        if bits != self.data.len().checked_mul(8) {
            let (have, shape) = (self.data.len(), &self.shape);
            return Err(fail(format!("{have} bytes do not make {dtype} of shape {shape:?}")));
        }
        Ok(dtype)
    }
}

impl From<Tensors> for TensorFile {
    fn from(tensors: Tensors) -> TensorFile {
        TensorFile { tensors, metadata: BTreeMap::new() }
    }
}

impl TensorFile {
    /// The tensors whose name begins with `prefix`, under what follows it: `in:x` is `x` of `in:`.
    pub fn with_prefix(&self, prefix: &str) -> Tensors {
        let strip = |(name, t): (&String, &NamedTensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), t.clone()))
        };
        self.tensors.iter().filter_map(strip).collect()
    }

    /// The bytes of a safetensors file of this content: the same content gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut order = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            if name == "__metadata__" {
                let problem = "this name is taken by the file format; rename the tensor".to_owned();
                return Err(Error::Tensor { name: name.clone(), problem });
            }
            order.push((tensor.checked(name)?, name, tensor));
        }
        // The format's own order: widest elements first, so that each tensor is aligned to its elements.
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let mut header = BTreeMap::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__", Entry::Metadata(&self.metadata));
        }
        let mut end = 0;
        for (_, name, t) in &order {
            let begin = end;
            end += t.data.len();
            let (dtype, shape) = (&t.dtype, &t.shape);
            header.insert(name, Entry::Tensor { dtype, shape, data_offsets: [begin, end] });
        }
        let mut json =
            serde_json::to_vec(&header).map_err(Error::malformed(Path::new("header")))?;
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + json.len() + end);
        bytes.extend((json.len() as u64).to_le_bytes());
        bytes.extend(json);
        for (_, _, t) in &order {
            bytes.extend(&t.data);
        }
        Ok(bytes)
    }
}

/// One entry of the header.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: &'a str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Reads a safetensors file. What is no regular file is not opened: that alone may wait for ever
/// (a pipe), or never end (a device).
pub fn read(path: impl AsRef<Path>) -> Result<TensorFile> {
    let path = path.as_ref();
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        return Err(Error::malformed(path)("not a regular file"));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    from_bytes(&bytes).map_err(|e| match e {
        Error::Malformed { problem, .. } => Error::malformed(path)(problem),
        other => other,
    })
}

/// Reads the bytes of a safetensors file.
pub fn from_bytes(bytes: &[u8]) -> Result<TensorFile> {
    let fail = |e: safetensors::SafeTensorError| {
        Error::malformed(Path::new("tensors"))(format!("not a safetensors file: {e}"))
    };
    bounded(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(fail)?;
    let file = SafeTensors::deserialize(bytes).map_err(fail)?;
    let metadata =
        header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let tensors = file.iter().map(|(name, view)| {
        let (dtype, shape, data) =
            (view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), NamedTensor { dtype, shape, data })
    });
    Ok(TensorFile { tensors: tensors.collect(), metadata })
}

/// Refuses offsets beyond the file, which the `safetensors` crate adds up before it compares them.
fn bounded(bytes: &[u8]) -> Result<()> {
    let len = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let end = usize::try_from(len).ok().and_then(|n| n.checked_add(8));
    // A header that is not there or not JSON is that crate's to refuse.
    let Some(header) = end.and_then(|end| bytes.get(8..end)) else { return Ok(()) };
    let Ok(entries) = serde_json::from_slice::<BTreeMap<String, Value>>(header) else {
        return Ok(());
    };
    for (name, entry) in entries {
        if entry["data_offsets"][1].as_u64().is_some_and(|end| end > bytes.len() as u64) {
            return Err(Error::Tensor {
                name,
                problem: "it reaches beyond the file's end".to_owned(),
            });
        }
    }
    Ok(())
}

/// Writes a safetensors file, replacing what is there by rename.
pub fn write(path: impl AsRef<Path>, file: &TensorFile) -> Result<()> {
    let bytes = file.to_bytes()?;
    write_file(path.as_ref(), |out| out.write_all(&bytes))
}

/// Lets `fill` write a file that appears at `path` only when it is whole. What is not a regular file (a pipe, a
/// device) is written in place.
pub(crate) fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let in_place = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
    let aside = if in_place { path.to_owned() } else { beside(path) };
    let attempt = || {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&aside)?);
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        if in_place { Ok(()) } else { std::fs::rename(&aside, path) }
    };
    attempt().map_err(|e| {
        if !in_place {
            let _ = std::fs::remove_file(&aside);
        }
        Error::io(path)(e)
    })
}

/// A name beside `path` that no other thread or process takes.
pub(crate) fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}
