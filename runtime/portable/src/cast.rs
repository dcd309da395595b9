//! Value conversion between element types.

use crate::error::{PrimError, undefined};
use crate::float8;
use crate::tensor::{Elem, Tensor};
use half::{bf16, f16};
use hub_abi::Dtype;
use std::borrow::Cow;

/// Elements in the narrowest of four types that holds all values of their dtype exactly.
enum Lane<'a> {
    I64(Cow<'a, [i64]>),
    U64(Cow<'a, [u64]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
}

fn lane(x: &Tensor) -> Result<Lane<'_>, PrimError> {
    fn f32s<T: Elem>(x: &Tensor, f: impl Fn(T) -> f32) -> Lane<'_> {
        Lane::F32(x.cast::<T>().iter().map(|&v| f(v)).collect())
    }
    Ok(match x.dtype() {
        Dtype::F32 => Lane::F32(x.cast()),
        Dtype::F64 => Lane::F64(x.cast()),
        Dtype::F16 => f32s(x, f16::to_f32),
        Dtype::BF16 => f32s(x, bf16::to_f32),
        Dtype::U64 => Lane::U64(x.cast()),
        Dtype::I64 => Lane::I64(x.cast()),
        Dtype::C64 | Dtype::C128 => return undefined("Cast", x.dtype()),
        d => match float8::decode_table(d) {
            Some(table) => f32s(x, |c: u8| table[c as usize]),
            None => Lane::I64(x.to_i64s()?.into()),
        },
    })
}

/// Converts by Rust's `as`; see [`hub_abi::Prim::Cast`].
pub(crate) fn cast(x: &Tensor, to: Dtype, saturate: bool) -> Result<Tensor, PrimError> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    if x.dtype() == Dtype::Str {
        return parse(x, to, saturate);
    }
    if let Some(out) = complex(x, to)? {
        return Ok(out);
    }
    let lane = lane(x)?;
    macro_rules! numbers {
        ($($d:ident => $t:ty),*) => {
            match to {
                $(Dtype::$d => from_lane(x, to, &lane,
                    |v| v as $t, |v| v as $t, |v| v as $t, |v| v as $t),)*
                Dtype::F16 => from_lane(x, to, &lane, |v| f16::from_f32(to_odd(v as f64)),
                    |v| f16::from_f32(to_odd(v as f64)), f16::from_f32, |v| f16::from_f32(to_odd(v))),
                Dtype::BF16 => from_lane(x, to, &lane, |v| bf16::from_f32(to_odd(v as f64)),
                    |v| bf16::from_f32(to_odd(v as f64)), bf16::from_f32, |v| bf16::from_f32(to_odd(v))),
                Dtype::Bool => from_lane(x, to, &lane, |v| u8::from(v != 0), |v| u8::from(v != 0),
                    |v| u8::from(v != 0.0), |v| u8::from(v != 0.0)),
                Dtype::I4 => from_lane(x, to, &lane, |v| low4(v), |v| low4(v as i64),
                    |v| (v as i8).clamp(-8, 7), |v| (v as i8).clamp(-8, 7)),
                Dtype::U4 => from_lane(x, to, &lane, |v| v as u8 & 15, |v| v as u8 & 15,
                    |v| (v as u8).min(15), |v| (v as u8).min(15)),
                Dtype::I2 => from_lane(x, to, &lane, |v| low2(v), |v| low2(v as i64),
                    |v| (v as i8).clamp(-2, 1), |v| (v as i8).clamp(-2, 1)),
                Dtype::U2 => from_lane(x, to, &lane, |v| v as u8 & 3, |v| v as u8 & 3,
                    |v| (v as u8).min(3), |v| (v as u8).min(3)),
                Dtype::Str => print(x, &lane),
                _ => from_lane(x, to, &lane, |v| float8::encode(to, v as f64, saturate),
                    |v| float8::encode(to, v as f64, saturate),
                    |v| float8::encode(to, v.into(), saturate),
                    |v| float8::encode(to, v, saturate)),
            }
        };
    }
    numbers!(F32 => f32, F64 => f64, I8 => i8, I16 => i16, I32 => i32, I64 => i64, U8 => u8,
             U16 => u16, U32 => u32, U64 => u64)
}

/// f32 rounded to odd: rounding it again to a narrower type is as rounding `x` once. (`half`'s own
/// conversion from f64 drops low bits.)
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if x.is_nan() || f64::from(near) == x {
        return near;
    }
    let toward_zero =
        if f64::from(near).abs() > x.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(toward_zero | 1)
}

/// The low four bits, sign-extended.
fn low4(v: i64) -> i8 {
    ((v << 4) as i8) >> 4
}

/// The low two bits, sign-extended.
fn low2(v: i64) -> i8 {
    ((v << 6) as i8) >> 6
}

fn from_lane<T: bytemuck::Pod + Send + Sync>(
    x: &Tensor,
    to: Dtype,
    lane: &Lane,
    i: impl Fn(i64) -> T,
    u: impl Fn(u64) -> T,
    f: impl Fn(f32) -> T,
    d: impl Fn(f64) -> T,
) -> Result<Tensor, PrimError> {
    let out: Vec<T> = match lane {
        Lane::I64(v) => v.iter().map(|&v| i(v)).collect(),
        Lane::U64(v) => v.iter().map(|&v| u(v)).collect(),
        Lane::F32(v) => v.iter().map(|&v| f(v)).collect(),
        Lane::F64(v) => v.iter().map(|&v| d(v)).collect(),
    };
    Tensor::of_words(to, x.dims().to_vec(), out)
}

/// Casts with a complex side: reals get a zero imaginary part; complex only changes width.
fn complex(x: &Tensor, to: Dtype) -> Result<Option<Tensor>, PrimError> {
    let pairs = match (x.dtype(), to) {
        (Dtype::C64, Dtype::C128) => x.cast::<f32>().iter().map(|&v| f64::from(v)).collect(),
        (Dtype::C128, Dtype::C64) => {
            let narrow: Vec<f32> = x.cast::<f64>().iter().map(|&v| v as f32).collect();
            return Tensor::of_words(to, x.dims().to_vec(), narrow).map(Some);
        }
        (_, Dtype::C64 | Dtype::C128) => {
            let real = cast(x, Dtype::F64, false)?;
            real.cast::<f64>().iter().flat_map(|&v| [v, 0.0]).collect::<Vec<f64>>()
        }
        _ => return Ok(None),
    };
    if to == Dtype::C64 {
        let narrow: Vec<f32> = pairs.iter().map(|&v| v as f32).collect();
        return Tensor::of_words(to, x.dims().to_vec(), narrow).map(Some);
    }
    Tensor::of_words(to, x.dims().to_vec(), pairs).map(Some)
}

/// Strings as ONNX reads them: decimal or scientific numbers, `INF`, `-INF`, `NaN` in any case.
fn parse(x: &Tensor, to: Dtype, saturate: bool) -> Result<Tensor, PrimError> {
    let bad = |s: &str| PrimError::Misfit(format!("the string {s:?} is not a number"));
    let strings = x.as_strings();
    if to.is_int() {
        let whole: Vec<i64> = strings
            .iter()
            .map(|s| {
                let t = s.trim();
                t.parse().or_else(|_| t.parse::<f64>().map(|f| f as i64).map_err(|_| bad(s)))
            })
            .collect::<Result<_, _>>()?;
        return cast(&Tensor::new(x.dims(), whole)?, to, saturate);
    }
    let real: Vec<f64> = strings
        .iter()
        .map(|s| s.trim().parse::<f64>().map_err(|_| bad(s)))
        .collect::<Result<_, _>>()?;
    cast(&Tensor::new(x.dims(), real)?, to, saturate)
}

fn print(x: &Tensor, lane: &Lane) -> Result<Tensor, PrimError> {
    fn float<F: std::fmt::Display + Copy + Into<f64>>(v: F) -> String {
        match v.into() {
            f if f.is_nan() => "NaN".into(),
            f if f == f64::INFINITY => "INF".into(),
            f if f == f64::NEG_INFINITY => "-INF".into(),
            _ => v.to_string(),
        }
    }
    let out = match lane {
        Lane::I64(v) => v.iter().map(|v| v.to_string()).collect(),
        Lane::U64(v) => v.iter().map(|v| v.to_string()).collect(),
        Lane::F32(v) => v.iter().map(|&v| float(v)).collect(),
        Lane::F64(v) => v.iter().map(|&v| float(v)).collect(),
    };
    Tensor::strings(x.dims(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_total() {
        let x = Tensor::new(&[5], vec![f32::NAN, -1.9, 300.0, f32::INFINITY, 2.5]).unwrap();
        assert_eq!(cast(&x, Dtype::U8, true).unwrap().bytes(), [0, 0, 255, 255, 2]);
        assert_eq!(cast(&x, Dtype::I8, true).unwrap().to_i64s().unwrap(), [0, -1, 127, 127, 2]);
        assert_eq!(cast(&x, Dtype::Bool, true).unwrap().bytes(), [1; 5]);
        assert_eq!(cast(&x, Dtype::I4, true).unwrap().to_i64s().unwrap(), [0, -1, 7, 7, 2]);
        let x = Tensor::new(&[2], vec![300i64, -1]).unwrap();
        assert_eq!(cast(&x, Dtype::U8, true).unwrap().bytes(), [44, 255]);
        assert_eq!(cast(&x, Dtype::I4, true).unwrap().to_i64s().unwrap(), [-4, -1]);
    }

    #[test]
    fn small_floats_round_once() {
        // 1 + 2^-11 + 2^-30 lies just above a tie of f16; through f32 it would become the tie.
        let x = Tensor::scalar(1.0 + 2f64.powi(-11) + 2f64.powi(-30));
        let y = cast(&x, Dtype::F16, true).unwrap();
        assert_eq!(y.view::<f16>().unwrap()[0].to_f64(), 1.0 + 2f64.powi(-10));
    }

    #[test]
    fn strings_both_ways() {
        let s = Tensor::strings(&[3], ["1.5", "-INF", "1e3"].map(String::from).to_vec()).unwrap();
        let x = cast(&s, Dtype::F32, true).unwrap();
        assert_eq!(&x.view::<f32>().unwrap()[..], [1.5, f32::NEG_INFINITY, 1000.0]);
        assert_eq!(cast(&x, Dtype::Str, true).unwrap().as_strings(), ["1.5", "-INF", "1000"]);
        let bad = Tensor::strings(&[1], vec!["x".into()]).unwrap();
        assert!(cast(&bad, Dtype::I32, true).is_err());
    }
}
