//! Tensors at the session's boundary.

use crate::error::Error;
use hub_abi::Dtype;
use std::marker::PhantomData;

/// A tensor given to a run: row-major little-endian bytes at any alignment, one value a byte for
/// 4-bit types.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub dims: &'a [usize],
    /// Elements; `dims` elements long at least.
    pub data: &'a [u8],
}

/// A tensor by address: what views and the C interface become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Given<'a> {
    pub dtype: Dtype,
    pub dims: &'a [usize],
    pub at: *const u8,
    pub len: usize,
}

impl<'a> From<&TensorView<'a>> for Given<'a> {
    fn from(v: &TensorView<'a>) -> Self {
        Given { dtype: v.dtype, dims: v.dims, at: v.data.as_ptr(), len: v.data.len() }
    }
}

impl Given<'_> {
    /// Bytes that its dims need.
    pub fn need(&self) -> Option<usize> {
        self.dims.iter().try_fold(self.dtype.size(), |n, &d| n.checked_mul(d))
    }

    /// Its bytes.
    ///
    /// # Safety
    /// `len` bytes at `at` are readable and do not change while the slice lives.
    pub unsafe fn bytes(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: by the caller's promise; not null, since it has bytes.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

/// Memory of the caller's for an output; none if null.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub at: *mut u8,
    pub len: usize,
}

impl Room {
    pub const NONE: Room = Room { at: std::ptr::null_mut(), len: 0 };
}

/// An output of the last run, by address.
#[derive(Debug)]
pub(crate) struct Made {
    pub dtype: Dtype,
    pub dims: Vec<usize>,
    pub at: *const u8,
    pub len: usize,
}

impl Made {
    /// A tensor that something else keeps alive.
    pub fn set(&mut self, t: &hub_portable::Tensor) {
        self.dtype = t.dtype();
        self.dims.clear();
        self.dims.extend_from_slice(t.dims());
        (self.at, self.len) = (t.bytes().as_ptr(), t.bytes().len());
    }

    /// Not a tensor: nothing by address.
    pub fn clear(&mut self) {
        self.dims.clear();
        (self.at, self.len) = (std::ptr::null(), 0);
    }
}

/// The outputs of a run, in session memory until the next run. Sequences, optionals and strings
/// have no bytes here: [`crate::Session::run_values`] gives those.
pub struct Outputs<'s> {
    pub(crate) made: &'s [Made],
    pub(crate) names: &'s [hub_abi::bundle::IoInfo],
    pub(crate) session: PhantomData<&'s mut ()>,
}

impl<'s> Outputs<'s> {
    /// How many.
    pub fn len(&self) -> usize {
        self.made.len()
    }

    /// Has the model no outputs?
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Output `i`.
    ///
    /// # Panics
    /// If `i` is past the end.
    pub fn get(&self, i: usize) -> TensorView<'s> {
        let m = &self.made[i];
        let data = match m.len {
            0 => &[][..],
            // SAFETY: `at` is in memory that the session owns and does not change before the next
            // run, which the borrow of the session forbids while the view lives.
            n => unsafe { std::slice::from_raw_parts(m.at, n) },
        };
        TensorView { dtype: m.dtype, dims: &m.dims, data }
    }

    /// The output of that name.
    pub fn named(&self, name: &str) -> Result<TensorView<'s>, Error> {
        match self.names.iter().position(|n| n.name == name) {
            Some(i) => Ok(self.get(i)),
            None => Err(Error::Usage(format!("the model has no output '{name}'"))),
        }
    }

    /// All outputs in the model's order.
    pub fn iter(&self) -> impl Iterator<Item = TensorView<'s>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}
