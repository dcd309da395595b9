//! The error function, from its definition.
//!
//! erf is expanded in Taylor series around multiples of 1/8. With g(x) = 2/√π · e^(−x²), g' = −2x·g
//! gives the coefficients by the recurrence (n+1)·g[n+1] = −2(c·g[n] + g[n−1]), and those of erf
//! are g[n] / (n+1). The constant terms come from the series with positive terms only,
//! erf(x) = 2/√π · e^(−x²) · Σ 2ⁿx^(2n+1)/(2n+1)!!. A few ulp in f64, so correctly rounded in f32
//! but for rare ties.

use std::sync::OnceLock;

const TERMS: usize = 13;
const PER_UNIT: f64 = 8.0;
/// Beyond this, erf is ±1 in f64.
const END: f64 = 6.0;

/// Taylor coefficients around the multiples of 1/8 in 0..=6.
pub(crate) struct Erf(Vec<[f64; TERMS]>);

impl Erf {
    /// The table, made once a process.
    pub(crate) fn get() -> &'static Erf {
        static TABLE: OnceLock<Erf> = OnceLock::new();
        TABLE.get_or_init(|| {
            let centres = 0..=(END * PER_UNIT) as usize;
            Erf(centres.map(|i| taylor(i as f64 / PER_UNIT)).collect())
        })
    }

    /// erf(x).
    pub(crate) fn at(&self, x: f64) -> f64 {
        let a = x.abs();
        if a >= END {
            return 1f64.copysign(x);
        }
        if a.is_nan() {
            return x;
        }
        let near = (a * PER_UNIT).round();
        let h = a - near / PER_UNIT;
        let sum = self.0[near as usize].iter().rev().fold(0.0, |s, c| s * h + c);
        sum.copysign(x)
    }
}

fn taylor(c: f64) -> [f64; TERMS] {
    let g = std::f64::consts::FRAC_2_SQRT_PI * (-c * c).exp();
    let (mut sum, mut term, mut n) = (0.0, c, 0.0);
    while sum + term != sum {
        sum += term;
        n += 1.0;
        term *= 2.0 * c * c / (2.0 * n + 1.0);
    }
    let mut out = [0.0; TERMS];
    out[0] = g * sum;
    let (mut before, mut now) = (0.0, g);
    for (n, out) in out.iter_mut().enumerate().skip(1) {
        *out = now / n as f64;
        (before, now) = (now, -2.0 * (c * now + before) / n as f64);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Abramowitz & Stegun table 7.1 and WolframAlpha, 15 digits.
        let known = [
            (0.0, 0.0),
            (1e-10, 1.128379167095513e-10),
            (0.1, 0.112462916018285),
            (0.5, 0.520499877813047),
            (1.0, 0.842700792949715),
            (1.5, 0.966105146475311),
            (2.0, 0.995322265018953),
            (3.0, 0.999977909503001),
            (4.5, 0.999999999803384),
            (7.0, 1.0),
        ];
        for (x, want) in known {
            assert!((Erf::get().at(x) - want).abs() <= 1e-15 + 1e-15 * want, "erf({x})");
            assert_eq!(Erf::get().at(-x), -Erf::get().at(x));
        }
        assert!(Erf::get().at(f64::NAN).is_nan());
    }

    #[test]
    fn pieces_meet() {
        for i in 0..47 {
            let x = (i as f64 + 0.5) / PER_UNIT;
            let (a, b) = (Erf::get().at(x - 1e-15), Erf::get().at(x + 1e-15));
            assert!((a - b).abs() < 1e-14, "{x}: {a} {b}");
        }
    }
}
