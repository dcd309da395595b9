//! Seeded tensors: the same bytes for the same name, in any language, in any order of elements.
//!
//! ```text
//! seed  = FNV-1a 64 of the tensor's UTF-8 name
//! z(i)  = splitmix64's finaliser of (seed + (i + 1) * 0x9E3779B97F4A7C15), wrapping
//! u(i)  = f32(z(i) >> 40) * 2^-24                                    in [0, 1)
//! float = f32(offset) + f32(scale) * (2 * u(i) - 1)                  each step rounded to f32
//! int   = lo + z(i) % (hi - lo)
//! ```
//!
//! `i` is the row-major index. f16 and bf16 round that f32 to nearest even, f64 widens it.

use half::{bf16, f16};
use serde::Deserialize;
use std::io::{self, Write};

/// How a tensor's values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Spec {
    /// Integers from `lo` up to and without `hi`.
    Int {
        /// The least value.
        lo: i64,
        /// One more than the greatest value.
        hi: i64,
    },
    /// Floats in `offset ± scale`.
    Float {
        /// The middle.
        offset: f64,
        /// The half width.
        scale: f64,
    },
}

/// The dtypes that a seeded tensor may have, by the names that fixtures use (NumPy's, and `bfloat16`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Dtype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float16,
    BFloat16,
    Float32,
    Float64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::Int8 | Dtype::Uint8 => 1,
            Dtype::Int16 | Dtype::Uint16 | Dtype::Float16 | Dtype::BFloat16 => 2,
            Dtype::Int32 | Dtype::Uint32 | Dtype::Float32 => 4,
            Dtype::Int64 | Dtype::Uint64 | Dtype::Float64 => 8,
        }
    }

    /// The name of this dtype in safetensors files.
    pub fn safetensors(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::Int8 => "I8",
            Dtype::Int16 => "I16",
            Dtype::Int32 => "I32",
            Dtype::Int64 => "I64",
            Dtype::Uint8 => "U8",
            Dtype::Uint16 => "U16",
            Dtype::Uint32 => "U32",
            Dtype::Uint64 => "U64",
            Dtype::Float16 => "F16",
            Dtype::BFloat16 => "BF16",
            Dtype::Float32 => "F32",
            Dtype::Float64 => "F64",
        }
    }
}

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// The `i`-th draw of a stream.
fn z(seed: u64, i: u64) -> u64 {
    let mut x = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Writes the little-endian bytes of the tensor `name` of `count` elements, without holding it in memory.
///
/// An integer spec may fill a float tensor and the other way round, as a NumPy cast would (bool is "not zero").
/// Fails only as `out` fails, and for an empty range of integers.
pub fn write(
    out: &mut dyn Write,
    name: &str,
    dtype: Dtype,
    count: u64,
    spec: Spec,
) -> io::Result<()> {
    let seed = fnv1a(name.as_bytes());
    match spec {
        Spec::Int { lo, hi } => {
            let span = u64::try_from(i128::from(hi) - i128::from(lo)).ok().filter(|&s| s > 0);
            let span = span
                .ok_or_else(|| io::Error::other(format!("{name}: no integer is in {lo}..{hi}")))?;
            let draw = move |i| lo.wrapping_add((z(seed, i) % span) as i64);
            match dtype {
                Dtype::Bool => stream(out, count, |i| [u8::from(draw(i) != 0)]),
                Dtype::Int8 | Dtype::Uint8 => stream(out, count, |i| (draw(i) as i8).to_le_bytes()),
                Dtype::Int16 | Dtype::Uint16 => {
                    stream(out, count, |i| (draw(i) as i16).to_le_bytes())
                }
                Dtype::Int32 | Dtype::Uint32 => {
                    stream(out, count, |i| (draw(i) as i32).to_le_bytes())
                }
                Dtype::Int64 | Dtype::Uint64 => stream(out, count, |i| draw(i).to_le_bytes()),
                Dtype::Float16 => {
                    stream(out, count, |i| f16::from_f64(draw(i) as f64).to_le_bytes())
                }
                Dtype::BFloat16 => {
                    stream(out, count, |i| bf16::from_f64(draw(i) as f64).to_le_bytes())
                }
                Dtype::Float32 => stream(out, count, |i| (draw(i) as f32).to_le_bytes()),
                Dtype::Float64 => stream(out, count, |i| (draw(i) as f64).to_le_bytes()),
            }
        }
        Spec::Float { offset, scale } => {
            let (offset, scale) = (offset as f32, scale as f32);
            let draw = move |i| {
                let u = (z(seed, i) >> 40) as f32 * (1.0 / 16_777_216.0);
                offset + scale * (2.0 * u - 1.0)
            };
            match dtype {
                Dtype::Bool => stream(out, count, |i| [u8::from(draw(i) != 0.0)]),
                Dtype::Int8 => stream(out, count, |i| (draw(i) as i8).to_le_bytes()),
                Dtype::Int16 => stream(out, count, |i| (draw(i) as i16).to_le_bytes()),
                Dtype::Int32 => stream(out, count, |i| (draw(i) as i32).to_le_bytes()),
                Dtype::Int64 => stream(out, count, |i| (draw(i) as i64).to_le_bytes()),
                Dtype::Uint8 => stream(out, count, |i| (draw(i) as u8).to_le_bytes()),
                Dtype::Uint16 => stream(out, count, |i| (draw(i) as u16).to_le_bytes()),
                Dtype::Uint32 => stream(out, count, |i| (draw(i) as u32).to_le_bytes()),
                Dtype::Uint64 => stream(out, count, |i| (draw(i) as u64).to_le_bytes()),
                Dtype::Float16 => stream(out, count, |i| f16::from_f32(draw(i)).to_le_bytes()),
                Dtype::BFloat16 => stream(out, count, |i| bf16::from_f32(draw(i)).to_le_bytes()),
                Dtype::Float32 => stream(out, count, |i| draw(i).to_le_bytes()),
                Dtype::Float64 => stream(out, count, |i| f64::from(draw(i)).to_le_bytes()),
            }
        }
    }
}

/// Writes `element(0..count)` through a buffer of fixed size.
fn stream<const N: usize>(
    out: &mut dyn Write,
    count: u64,
    element: impl Fn(u64) -> [u8; N],
) -> io::Result<()> {
    const CHUNK: usize = 16 << 10;
    let mut buffer = vec![[0; N]; CHUNK.min(usize::try_from(count).unwrap_or(CHUNK))];
    let mut at = 0;
    while at < count {
        let n = CHUNK.min(usize::try_from(count - at).unwrap_or(CHUNK));
        for (k, slot) in buffer[..n].iter_mut().enumerate() {
            *slot = element(at + k as u64);
        }
        out.write_all(buffer[..n].as_flattened())?;
        at += n as u64;
    }
    Ok(())
}

/// The bytes of a whole seeded tensor; see [`write`].
pub fn fill(name: &str, dtype: Dtype, shape: &[usize], spec: Spec) -> io::Result<Vec<u8>> {
    let count = elements(shape)
        .ok_or_else(|| io::Error::other(format!("{name}: shape {shape:?} is too large")))?;
    let mut bytes =
        Vec::with_capacity(usize::try_from(count).unwrap_or(0).saturating_mul(dtype.size()));
    write(&mut bytes, name, dtype, count, spec)?;
    Ok(bytes)
}

/// The number of elements of a shape, if it is below 2^40, a bound far above any fixture.
pub(crate) fn elements(shape: &[usize]) -> Option<u64> {
    let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
    (count < 1 << 40).then_some(count)
}
