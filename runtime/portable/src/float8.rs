//! 8-bit floats (OCP E4M3FN and E5M2, and the FNUZ variants): decoding and correctly rounded
//! encoding.

use hub_abi::Dtype;

/// Parameters of an 8-bit format with `mantissa` stored bits and exponent `bias`.
#[derive(Clone, Copy)]
struct Format {
    mantissa: i32,
    bias: i32,
    /// Greatest finite value.
    max: f64,
    /// Code of what overflows when not saturating (infinity, or NaN where there is none).
    overflow: u8,
    /// Code of NaN.
    nan: u8,
    /// 0x80 is NaN: no negative zero.
    fnuz: bool,
}

fn format(d: Dtype) -> Option<Format> {
    let f = |mantissa, bias, max, overflow, nan, fnuz| {
        Some(Format { mantissa, bias, max, overflow, nan, fnuz })
    };
    match d {
        Dtype::F8E4M3FN => f(3, 7, 448.0, 0x7f, 0x7f, false),
        Dtype::F8E4M3FNUZ => f(3, 8, 240.0, 0x80, 0x80, true),
        Dtype::F8E5M2 => f(2, 15, 57344.0, 0x7c, 0x7f, false),
        Dtype::F8E5M2FNUZ => f(2, 16, 57344.0, 0x80, 0x80, true),
        _ => None,
    }
}

/// Values of all 256 codes of an 8-bit float type; `None` for other dtypes.
pub(crate) fn decode_table(d: Dtype) -> Option<[f32; 256]> {
    let f = format(d)?;
    Some(std::array::from_fn(|code| decode(f, code as u8) as f32))
}

fn decode(f: Format, code: u8) -> f64 {
    let magnitude = code & 0x7f;
    if code == f.nan || (!f.fnuz && magnitude == f.nan) {
        return f64::NAN;
    }
    let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
    if f.overflow == 0x7c && magnitude >= 0x7c {
        return if magnitude == 0x7c { sign * f64::INFINITY } else { f64::NAN };
    }
    let (exponent, fraction) =
        (i32::from(magnitude >> f.mantissa), magnitude & ((1 << f.mantissa) - 1));
    let (m, e) = match exponent {
        0 => (f64::from(fraction), 1),
        e => (f64::from(fraction) + f64::from(1u8 << f.mantissa), e),
    };
    sign * m * 2f64.powi(e - f.bias - f.mantissa)
}

/// Rounds to nearest (ties to even) in 8-bit float type `d`; beyond its range, saturates or gives
/// the format's infinity or NaN. 0 for other dtypes.
pub(crate) fn encode(d: Dtype, x: f64, saturate: bool) -> u8 {
    let Some(f) = format(d) else { return 0 };
    if x.is_nan() {
        return f.nan;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let a = x.abs();
    // The exponent of a's binade, no lower than that of subnormals.
    let exponent = ((a.to_bits() >> 52) as i32 - 1023).clamp(1 - f.bias, 1023);
    let quantum = 2f64.powi(exponent - f.mantissa);
    let rounded = if a.is_finite() { (a / quantum).round_ties_even() * quantum } else { a };
    if rounded > f.max {
        if saturate {
            return code_of(f, f.max) | sign;
        }
        return if f.fnuz { f.overflow } else { f.overflow | sign };
    }
    match code_of(f, rounded) {
        0 if f.fnuz => 0,
        c => c | sign,
    }
}

/// The code of a representable non-negative value.
fn code_of(f: Format, x: f64) -> u8 {
    let exponent = (x.to_bits() >> 52) as i32 - 1023;
    if x == 0.0 || exponent < 1 - f.bias {
        return (x / 2f64.powi(1 - f.bias - f.mantissa)) as u8;
    }
    let fraction = x / 2f64.powi(exponent - f.mantissa) - f64::from(1u8 << f.mantissa);
    (((exponent + f.bias) as u8) << f.mantissa) | fraction as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dtype; 4] = [Dtype::F8E4M3FN, Dtype::F8E4M3FNUZ, Dtype::F8E5M2, Dtype::F8E5M2FNUZ];

    #[test]
    fn every_code_round_trips() {
        for d in ALL {
            let table = decode_table(d).unwrap();
            for (code, &x) in table.iter().enumerate() {
                if !x.is_nan() {
                    assert_eq!(encode(d, x.into(), false), code as u8, "{d} {x}");
                }
            }
        }
    }

    #[test]
    fn special_values_of_the_standards() {
        // From the tables of the OCP and FNUZ proposals.
        let at = |d, c: u8| decode_table(d).unwrap()[c as usize];
        assert_eq!(at(Dtype::F8E4M3FN, 0x7e), 448.0);
        assert_eq!(at(Dtype::F8E4M3FN, 0x01), 2f32.powi(-9));
        assert!(at(Dtype::F8E4M3FN, 0xff).is_nan());
        assert_eq!(at(Dtype::F8E5M2, 0x7b), 57344.0);
        assert_eq!(at(Dtype::F8E5M2, 0xfc), f32::NEG_INFINITY);
        assert_eq!(at(Dtype::F8E4M3FNUZ, 0x7f), 240.0);
        assert!(at(Dtype::F8E5M2FNUZ, 0x80).is_nan());
        assert_eq!(at(Dtype::F8E5M2FNUZ, 0x7f), 57344.0);
    }

    #[test]
    fn rounding_and_overflow() {
        let d = Dtype::F8E4M3FN;
        assert_eq!(encode(d, 464.0, false), 0x7e, "a tie goes to the even 448");
        assert_eq!(encode(d, 465.0, false), 0x7f);
        assert_eq!(encode(d, -1e9, true), 0xfe);
        assert_eq!(encode(d, f64::INFINITY, true), 0x7e);
        assert_eq!(encode(Dtype::F8E5M2, f64::INFINITY, false), 0x7c);
        assert_eq!(encode(d, 1.0625, false), encode(d, 1.0, false));
        assert_eq!(encode(Dtype::F8E5M2FNUZ, -0.0, false), 0);
        assert_eq!(encode(d, -0.0, false), 0x80);
        assert_eq!(encode(d, 2f64.powi(-10), false), 0, "half of the least goes to even");
    }
}
