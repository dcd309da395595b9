//! Element types. Numbers are ONNX's `TensorProto.DataType`.

use serde::{Deserialize, Serialize};

/// Element type of a tensor; discriminants are ONNX's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Dtype {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    Str = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    C64 = 14,
    C128 = 15,
    BF16 = 16,
    F8E4M3FN = 17,
    F8E4M3FNUZ = 18,
    F8E5M2 = 19,
    F8E5M2FNUZ = 20,
    U4 = 21,
    I4 = 22,
    F4E2M1 = 23,
    F8E8M0 = 24,
    U2 = 25,
    I2 = 26,
}

use Dtype::*;

/// Every dtype with its printed name and size in bytes of one unpacked element (types of 2 and 4 bits
/// are held one value a byte; strings have no fixed size and say 0).
const TABLE: &[(Dtype, &str, usize)] = &[
    (F32, "f32", 4),
    (U8, "u8", 1),
    (I8, "i8", 1),
    (U16, "u16", 2),
    (I16, "i16", 2),
    (I32, "i32", 4),
    (I64, "i64", 8),
    (Str, "str", 0),
    (Bool, "bool", 1),
    (F16, "f16", 2),
    (F64, "f64", 8),
    (U32, "u32", 4),
    (U64, "u64", 8),
    (C64, "c64", 8),
    (C128, "c128", 16),
    (BF16, "bf16", 2),
    (F8E4M3FN, "f8e4m3fn", 1),
    (F8E4M3FNUZ, "f8e4m3fnuz", 1),
    (F8E5M2, "f8e5m2", 1),
    (F8E5M2FNUZ, "f8e5m2fnuz", 1),
    (U4, "u4", 1),
    (I4, "i4", 1),
    (F4E2M1, "f4e2m1", 1),
    (F8E8M0, "f8e8m0", 1),
    (U2, "u2", 1),
    (I2, "i2", 1),
];

impl Dtype {
    /// All dtypes.
    pub fn all() -> impl Iterator<Item = Dtype> {
        TABLE.iter().map(|r| r.0)
    }

    fn row(self) -> &'static (Dtype, &'static str, usize) {
        &TABLE[self as usize - 1]
    }

    /// Bytes of one element in memory (2- and 4-bit types: one value a byte; strings: 0).
    pub fn size(self) -> usize {
        self.row().2
    }

    /// Name in the text form, e.g. `f32`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The dtype with ONNX's number `n`.
    pub fn from_onnx(n: i32) -> Option<Dtype> {
        TABLE.iter().map(|r| r.0).find(|d| *d as i32 == n)
    }

    /// The dtype of that printed name.
    pub fn from_name(s: &str) -> Option<Dtype> {
        TABLE.iter().find(|r| r.1 == s).map(|r| r.0)
    }

    /// Real floating point of any width.
    pub fn is_float(self) -> bool {
        let small = matches!(self, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0);
        small || matches!(self, F32 | F16 | F64 | BF16)
    }

    /// Floats narrower than f32: they compute in f32 and round at source-operator boundaries.
    pub fn is_small_float(self) -> bool {
        self.is_float() && !matches!(self, F32 | F64)
    }

    /// Integer types (bool is not one).
    pub fn is_int(self) -> bool {
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }

    /// Signed integers.
    pub fn is_signed_int(self) -> bool {
        matches!(self, I8 | I16 | I32 | I64 | I4 | I2)
    }

    /// Bits of one element where several share a byte in files.
    pub fn packed_bits(self) -> Option<u32> {
        match self {
            U4 | I4 | F4E2M1 => Some(4),
            U2 | I2 => Some(2),
            _ => None,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_numbers_say() {
        for d in Dtype::all() {
            assert_eq!(d.row().0, d);
            assert_eq!(Dtype::from_onnx(d as i32), Some(d));
            assert_eq!(Dtype::from_name(d.name()), Some(d));
        }
    }
}
