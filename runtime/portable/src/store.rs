//! Where constants come from.

use crate::error::ExecFault;
use crate::tensor::Tensor;
use hub_abi::Dtype;
use hub_abi::pack;
use hub_abi::pgraph::{PConst, PGraph};
use std::sync::{Arc, OnceLock};

/// Gives a graph's constants as tensors.
pub trait ConstStore {
    /// Constant `index` of `graph`.
    fn load(&self, graph: &PGraph, index: u32) -> Result<Tensor, ExecFault>;
}

/// Constants in bytes that something owns (a mapped file). Unpacked ones borrow the bytes, packed
/// ones are unpacked at every load; see [`CachedStore`].
#[derive(Clone)]
pub struct BytesStore {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    base: usize,
    len: usize,
}

impl BytesStore {
    /// The store that is all of `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> BytesStore {
        let len = (*owner).as_ref().len();
        BytesStore { owner, base: 0, len }
    }

    /// The store that is `len` bytes at `base` of `owner`; `None` if they are outside.
    pub fn part(
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        base: usize,
        len: usize,
    ) -> Option<BytesStore> {
        let size = (*owner).as_ref().len();
        base.checked_add(len).filter(|&end| end <= size)?;
        Some(BytesStore { owner, base, len })
    }

    fn tensor(&self, c: &PConst) -> Result<Tensor, String> {
        let dims: Option<Vec<usize>> =
            c.ty.dims.iter().map(|d| d.as_const().and_then(|k| usize::try_from(k).ok())).collect();
        let dims = dims.ok_or("its dims are not constant sizes")?;
        let inside = |v: u64| usize::try_from(v).ok().filter(|&v| v <= self.len);
        let (Some(at), Some(len)) = (inside(c.offset), inside(c.len)) else {
            return Err(format!("{} bytes at {} are outside the store", c.len, c.offset));
        };
        if at + len > self.len {
            return Err(format!("{len} bytes at {at} are outside the store"));
        }
        let at = self.base + at;
        if c.ty.dtype == Dtype::Str {
            return strings(&(*self.owner).as_ref()[at..at + len], &dims);
        }
        match &c.packing {
            None => Tensor::from_owner(c.ty.dtype, &dims, self.owner.clone(), at, len),
            Some(p) => {
                let bytes = &(*self.owner).as_ref()[at..at + len];
                let dense = pack::unpack(bytes, c.ty.dtype.size(), p).map_err(|e| e.to_string())?;
                let n = dense.len();
                Tensor::from_owner(c.ty.dtype, &dims, Arc::new(dense), 0, n)
            }
        }
        .map_err(|e| e.to_string())
    }
}

/// Strings as they lie in a store: each a `u32` length, then UTF-8 bytes.
fn strings(mut bytes: &[u8], dims: &[usize]) -> Result<Tensor, String> {
    let mut out = vec![];
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let text = rest.get(..u32::from_le_bytes(*len) as usize).ok_or("a string is cut off")?;
        out.push(std::str::from_utf8(text).map_err(|_| "a string is not UTF-8")?.to_string());
        bytes = &rest[text.len()..];
    }
    if !bytes.is_empty() {
        return Err("a string's length is cut off".into());
    }
    Tensor::strings(dims, out).map_err(|e| e.to_string())
}

impl ConstStore for BytesStore {
    fn load(&self, graph: &PGraph, index: u32) -> Result<Tensor, ExecFault> {
        let fault = |what: String| ExecFault::Const { index, what };
        let Some(c) = graph.consts.get(index as usize) else {
            return Err(fault("the graph has no such constant".into()));
        };
        self.tensor(c).map_err(fault)
    }
}

/// A store that keeps what it has loaded: packed constants are unpacked once, when first used.
pub struct CachedStore<S> {
    inner: S,
    loaded: Vec<OnceLock<Tensor>>,
}

impl<S: ConstStore> CachedStore<S> {
    /// Caches the constants of `graph`, of which `inner` gives the tensors.
    pub fn new(inner: S, graph: &PGraph) -> CachedStore<S> {
        CachedStore { inner, loaded: graph.consts.iter().map(|_| OnceLock::new()).collect() }
    }
}

impl<S: ConstStore> ConstStore for CachedStore<S> {
    fn load(&self, graph: &PGraph, index: u32) -> Result<Tensor, ExecFault> {
        let Some(slot) = self.loaded.get(index as usize) else {
            return self.inner.load(graph, index);
        };
        if let Some(t) = slot.get() {
            return Ok(t.clone());
        }
        let t = self.inner.load(graph, index)?;
        Ok(slot.get_or_init(|| t).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_abi::pgraph::Packing;
    use hub_abi::shape::TensorType;

    fn graph(offset: u64, len: u64, packing: Option<Packing>) -> PGraph {
        let ty = TensorType { dtype: Dtype::I32, dims: vec![2i64.into(), 3i64.into()] };
        PGraph { consts: vec![PConst { ty, offset, len, packing }], ..PGraph::default() }
    }

    #[test]
    fn plain_and_packed_constants_are_the_same_tensor() {
        let want = Tensor::new(&[2, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let mut bytes = vec![0xee];
        bytes.extend_from_slice(want.bytes());
        let store = BytesStore::new(Arc::new(bytes));
        assert_eq!(store.load(&graph(1, 24, None), 0).unwrap(), want);
        let p = Packing { outer: 1, n: 2, k: 3, k_major: false, taps: 1, block: 16, v: 2 };
        let packed = pack::pack(want.bytes(), 4, &p).unwrap();
        let g = graph(0, packed.len() as u64, Some(p));
        let store = CachedStore::new(BytesStore::new(Arc::new(packed)), &g);
        assert_eq!(store.load(&g, 0).unwrap(), want);
        assert_eq!(store.load(&g, 0).unwrap(), want);
    }

    #[test]
    fn strings_are_read_and_checked() {
        let read = |bytes: &[u8], n| {
            let mut g = graph(0, bytes.len() as u64, None);
            g.consts[0].ty = TensorType { dtype: Dtype::Str, dims: vec![n] };
            BytesStore::new(Arc::new(bytes.to_vec())).load(&g, 0)
        };
        let bytes = b"\x02\0\0\0\xc3\xa9\0\0\0\0";
        assert_eq!(read(bytes, 2i64.into()).unwrap().as_strings(), ["\u{e9}", ""]);
        assert!(read(bytes, 3i64.into()).is_err());
        assert!(read(&bytes[..8], 2i64.into()).is_err());
        assert!(read(b"\xff\xff\xff\xff", 1i64.into()).is_err());
        assert!(read(b"\x01\0\0\0\xff", 1i64.into()).is_err());
    }

    #[test]
    fn ranges_are_checked() {
        let store = BytesStore::new(Arc::new(vec![0u8; 24]));
        for g in [graph(1, 24, None), graph(u64::MAX, 24, None), graph(0, 20, None)] {
            assert!(store.load(&g, 0).is_err());
        }
        assert!(store.load(&graph(0, 24, None), 1).is_err());
    }
}
