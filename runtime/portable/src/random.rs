//! Random tensors from a counter-based generator: element `i` depends on (seed, i) alone, so runs
//! repeat and any part can be made apart.

use crate::cast::cast;
use crate::error::{Limits, PrimError, undefined};
use crate::tensor::Tensor;
use hub_abi::Dtype;
use hub_abi::prim::Distribution;

/// Two rounds of a 64-bit finaliser (multiply, xor-shift) over seed and counter.
fn bits(seed: u64, counter: u64) -> u64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let step = 0x9e37_79b9_7f4a_7c15u64;
    mix(mix(seed.wrapping_add(step)).wrapping_add(counter.wrapping_mul(step)))
}

/// In [0, 1), 53 bits.
fn unit(seed: u64, counter: u64) -> f64 {
    (bits(seed, counter) >> 11) as f64 * (-53f64).exp2()
}

/// Element `i` of a standard normal stream (Box and Muller).
fn normal(seed: u64, i: u64) -> f64 {
    let (u, v) = (1.0 - unit(seed, 2 * (i / 2)), unit(seed, 2 * (i / 2) + 1));
    let angle = std::f64::consts::TAU * v;
    (-2.0 * u.ln()).sqrt() * if i.is_multiple_of(2) { angle.cos() } else { angle.sin() }
}

/// A tensor drawn from `dist`.
pub(crate) fn random(
    dist: Distribution,
    dtype: Dtype,
    shape: &[usize],
    seed: u64,
    limits: &Limits,
) -> Result<Tensor, PrimError> {
    if !dtype.is_float() && !dtype.is_int() {
        return undefined("Random", dtype);
    }
    let count = limits.count(shape, 8)? as u64;
    let draw = |i| match dist {
        Distribution::Uniform { lo, hi } => lo + (hi - lo) * unit(seed, i),
        Distribution::Normal { mean, std } => mean + std * normal(seed, i),
    };
    let mut out =
        cast(&Tensor::new(shape, (0..count).map(draw).collect::<Vec<f64>>())?, dtype, true)?;
    if let (Distribution::Uniform { lo, hi }, Dtype::F32) = (dist, dtype)
        && lo < hi
    {
        // Rounding to f32 may reach the excluded end.
        let top = (hi as f32).next_down().max(lo as f32);
        let below = out.cast::<f32>().iter().map(|&v| v.min(top)).collect();
        out = Tensor::new(shape, below)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(dist: Distribution, seed: u64) -> Vec<f32> {
        let x = random(dist, Dtype::F32, &[20_000], seed, &Limits::default()).unwrap();
        x.view::<f32>().unwrap().to_vec()
    }

    #[test]
    fn moments_and_range() {
        let x = draw(Distribution::Uniform { lo: -1.0, hi: 3.0 }, 1);
        assert!(x.iter().all(|&v| (-1.0..3.0).contains(&v)));
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        let x = draw(Distribution::Normal { mean: 2.0, std: 0.5 }, 2);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32;
        assert!((mean - 2.0).abs() < 0.02 && (var - 0.25).abs() < 0.02, "{mean} {var}");
    }

    #[test]
    fn runs_repeat_and_seeds_differ() {
        let d = Distribution::Normal { mean: 0.0, std: 1.0 };
        assert_eq!(draw(d, 7), draw(d, 7));
        assert_ne!(draw(d, 7), draw(d, 8));
    }
}
