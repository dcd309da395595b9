//! Floats of 8 bits and fewer (OCP E4M3FN, E5M2, E2M1, the scale format E8M0, and the FNUZ variants):
//! decoding and correctly rounded encoding.

use hub_abi::Dtype;

/// Parameters of a format with a sign, `mantissa` stored bits and exponent `bias`.
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
    /// The bit of the sign.
    sign: u8,
}

fn format(d: Dtype) -> Option<Format> {
    let f = |mantissa, bias, max, overflow, nan, fnuz| {
        Some(Format { mantissa, bias, max, overflow, nan, fnuz, sign: 0x80 })
    };
    match d {
        Dtype::F8E4M3FN => f(3, 7, 448.0, 0x7f, 0x7f, false),
        Dtype::F8E4M3FNUZ => f(3, 8, 240.0, 0x80, 0x80, true),
        Dtype::F8E5M2 => f(2, 15, 57344.0, 0x7c, 0x7f, false),
        Dtype::F8E5M2FNUZ => f(2, 16, 57344.0, 0x80, 0x80, true),
        // Neither infinity nor NaN: what is out of range saturates, and NaN becomes -0.
        Dtype::F4E2M1 => f(1, 1, 6.0, 7, 8, false).map(|f| Format { sign: 8, ..f }),
        _ => None,
    }
}

/// What a code of E8M0 means: a power of two; its last code is NaN.
fn scale(code: u8) -> f32 {
    match code {
        0xff => f32::NAN,
        c => 2f64.powi(i32::from(c) - 127) as f32,
    }
}

/// The power of two at or above a magnitude; beyond the range, the nearest or NaN.
fn encode_scale(x: f64, saturate: bool) -> u8 {
    let a = x.abs();
    if a.is_nan() {
        return 0xff;
    }
    let floor = (a.to_bits() >> 52) as i32 - 1023;
    let up = floor + i32::from(a.to_bits() << 12 != 0) + 127;
    match u8::try_from(up) {
        Ok(c) if c < 0xff => c,
        _ if !saturate => 0xff,
        _ if up < 0 => 0,
        _ => 0xfe,
    }
}

/// Values of all 256 codes of such a type (of 4 bits, by the low ones); `None` for other dtypes.
pub(crate) fn decode_table(d: Dtype) -> Option<[f32; 256]> {
    if d == Dtype::F8E8M0 {
        return Some(std::array::from_fn(|code| scale(code as u8)));
    }
    let f = format(d)?;
    Some(std::array::from_fn(|code| decode(f, code as u8) as f32))
}

fn decode(f: Format, code: u8) -> f64 {
    let magnitude = code & (f.sign - 1);
    let has_nan = f.sign == 0x80;
    if has_nan && (code == f.nan || (!f.fnuz && magnitude == f.nan)) {
        return f64::NAN;
    }
    let sign = if code & f.sign != 0 { -1.0 } else { 1.0 };
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

/// Rounds to nearest (ties to even) in such a type `d` (E8M0: up); beyond its range, saturates or
/// gives the format's infinity or NaN. 0 for other dtypes.
pub(crate) fn encode(d: Dtype, x: f64, saturate: bool) -> u8 {
    if d == Dtype::F8E8M0 {
        return encode_scale(x, saturate);
    }
    let Some(f) = format(d) else { return 0 };
    if x.is_nan() {
        return f.nan;
    }
    let sign = if x.is_sign_negative() { f.sign } else { 0 };
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
    fn four_bits_and_scales() {
        let d = Dtype::F4E2M1;
        let values = decode_table(d).unwrap();
        assert_eq!(values[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(values[15], -6.0);
        for (x, code) in [(0.25, 0), (0.75, 2), (2.5, 4), (3.5, 6), (5.0, 6), (7.0, 7), (-0.0, 8)] {
            assert_eq!(encode(d, x, false), code, "{x}");
        }
        assert_eq!(encode(d, f64::NEG_INFINITY, true), 15);
        let d = Dtype::F8E8M0;
        for (x, code) in [(1.0, 127), (1.5, 128), (3.0, 129), (0.0, 0), (2f64.powi(-127), 0)] {
            assert_eq!(encode(d, x, true), code, "{x}");
        }
        assert_eq!(encode(d, f64::INFINITY, true), 0xfe);
        assert_eq!(encode(d, 0.0, false), 0xff);
        assert_eq!(decode_table(d).unwrap()[0], 2f32.powi(-127));
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
