//! Constants in the text form: elements where they are few, one element where all are the same
//! bits, else a hash.

use super::parse::{Cursor, Parsed};
use crate::graph::ConstData;
use hub_abi::Dtype;
use hub_abi::shape::TensorType;
use std::fmt::Write;

/// Constants of more elements print as a hash.
const MOST_INLINE: usize = 32;

/// 64 bits that tell constants apart in the text form (FNV-1a over 8-byte words of type and data;
/// no defence against forgery).
pub fn hash(c: &ConstData) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |w: u64| h = (h ^ w).wrapping_mul(PRIME).rotate_left(23);
    eat(c.ty.dtype as u64);
    for d in &c.ty.dims {
        eat(d.as_const().unwrap_or(-1) as u64);
    }
    let mut each = |bytes: &[u8]| {
        eat(bytes.len() as u64);
        for w in bytes.chunks(8) {
            let mut full = [0; 8];
            full[..w.len()].copy_from_slice(w);
            eat(u64::from_le_bytes(full));
        }
    };
    each(&c.data);
    c.strings.iter().for_each(|s| each(s.as_bytes()));
    h
}

/// Appends a constant's elements.
pub(super) fn write(out: &mut String, c: &ConstData) {
    let size = c.ty.dtype.size();
    if c.ty.dtype == Dtype::Str && c.strings.len() <= MOST_INLINE {
        let _ = write!(out, "{}", serde_json::Value::from(c.strings.clone()));
        return;
    }
    let n = c.data.len().checked_div(size).unwrap_or(usize::MAX);
    let whole = size > 0 && Some(n as i64) == c.ty.count().as_const() && n * size == c.data.len();
    if whole && n > 1 && c.data.chunks_exact(size).all(|e| e == &c.data[..size]) {
        out.push_str("all ");
        write_element(out, c.ty.dtype, &c.data[..size]);
    } else if whole && n <= MOST_INLINE {
        let brackets = !c.ty.dims.is_empty();
        out.push_str(if brackets { "[" } else { "" });
        for (i, e) in c.data.chunks_exact(size).enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_element(out, c.ty.dtype, e);
        }
        out.push_str(if brackets { "]" } else { "" });
    } else {
        let _ = write!(out, "#{:016x}", hash(c));
    }
}

macro_rules! number {
    ($t:ty, $e:expr) => {
        <$t>::from_le_bytes($e.try_into().expect("an element of the dtype's size"))
    };
}

fn write_element(out: &mut String, dtype: Dtype, e: &[u8]) {
    use Dtype::*;
    let text = match dtype {
        F32 => format!("{:?}", number!(f32, e)).trim_end_matches(".0").into(),
        F64 => format!("{:?}", number!(f64, e)).trim_end_matches(".0").into(),
        F16 => format!("{}", number!(half::f16, e)),
        BF16 => format!("{}", number!(half::bf16, e)),
        I8 | I4 | I2 => (e[0] as i8).to_string(),
        U8 | U4 | U2 => e[0].to_string(),
        I16 => number!(i16, e).to_string(),
        U16 => number!(u16, e).to_string(),
        I32 => number!(i32, e).to_string(),
        U32 => number!(u32, e).to_string(),
        I64 => number!(i64, e).to_string(),
        U64 => number!(u64, e).to_string(),
        Bool if e[0] < 2 => (e[0] == 1).to_string(),
        _ => String::new(),
    };
    if !text.is_empty() && read_element(dtype, &text).is_some_and(|b| b == e) {
        out.push_str(&text);
    } else {
        out.push_str("0x");
        for b in e {
            let _ = write!(out, "{b:02x}");
        }
    }
}

fn read_element(dtype: Dtype, t: &str) -> Option<Vec<u8>> {
    use Dtype::*;
    if let Some(hex) = t.strip_prefix("0x").filter(|h| h.len() == 2 * dtype.size()) {
        let byte = |i: usize| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
        return (0..hex.len()).step_by(2).map(byte).collect();
    }
    Some(match dtype {
        F32 => t.parse::<f32>().ok()?.to_le_bytes().to_vec(),
        F64 => t.parse::<f64>().ok()?.to_le_bytes().to_vec(),
        F16 => half::f16::from_f32(t.parse().ok()?).to_le_bytes().to_vec(),
        BF16 => half::bf16::from_f32(t.parse().ok()?).to_le_bytes().to_vec(),
        I8 | I4 | I2 => t.parse::<i8>().ok()?.to_le_bytes().to_vec(),
        U8 | U4 | U2 => vec![t.parse::<u8>().ok()?],
        I16 => t.parse::<i16>().ok()?.to_le_bytes().to_vec(),
        U16 => t.parse::<u16>().ok()?.to_le_bytes().to_vec(),
        I32 => t.parse::<i32>().ok()?.to_le_bytes().to_vec(),
        U32 => t.parse::<u32>().ok()?.to_le_bytes().to_vec(),
        I64 => t.parse::<i64>().ok()?.to_le_bytes().to_vec(),
        U64 => t.parse::<u64>().ok()?.to_le_bytes().to_vec(),
        Bool => vec![t.parse::<bool>().ok()?.into()],
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 | C64 | C128 | Str => {
            return None;
        }
    })
}

/// Reads what [`write`] wrote.
pub(super) fn read(c: &mut Cursor<'_>, ty: TensorType) -> Parsed<ConstData> {
    let plain = |data: Vec<u8>| ConstData { ty: ty.clone(), data: data.into(), strings: vec![] };
    if c.eat("#") {
        let word = c.token();
        let key = u64::from_str_radix(word, 16).ok();
        return match key.and_then(|k| c.side_const(k)) {
            Some(found) if found.ty == ty => Ok(found),
            _ => c.fail("a constant that is given beside the text (by its hash)"),
        };
    }
    let Some(n) = ty.count().as_const().and_then(|n| usize::try_from(n).ok()) else {
        return c.fail("a constant of constant dims");
    };
    if ty.dtype == Dtype::Str {
        return Ok(ConstData { strings: read_strings(c)?, ..plain(vec![]) });
    }
    let element = |c: &mut Cursor<'_>| {
        let word = c.token();
        read_element(ty.dtype, word).ok_or_else(|| c.error(format!("'{word}' is no {}", ty.dtype)))
    };
    if c.eat("all ") {
        let e = element(c)?;
        if n > super::parse::MOST_BYTES / e.len().max(1) {
            return c.fail("a constant that fits memory");
        }
        return Ok(plain(e.repeat(n)));
    }
    if ty.dims.is_empty() {
        return Ok(plain(element(c)?));
    }
    c.expect("[")?;
    let mut data = vec![];
    while !c.eat("]") {
        if !data.is_empty() {
            c.expect(",")?;
        }
        data.extend(element(c)?);
    }
    if data.len() / ty.dtype.size() != n {
        return c.fail(&format!("{n} elements"));
    }
    Ok(plain(data))
}

fn read_strings(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    c.expect("[")?;
    let mut out = vec![];
    while !c.eat("]") {
        if !out.is_empty() {
            c.expect(",")?;
        }
        out.push(c.string()?);
    }
    Ok(out)
}
