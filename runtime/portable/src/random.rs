//! Random tensors. A seed below 2^32 (one that a model gives) draws what NumPy's `RandomState` of
//! that seed draws uniformly, as ONNX's own evaluator does; others take a counter-based generator,
//! where element `i` depends on (seed, i) alone. Both repeat from run to run.

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

/// The Mersenne twister MT19937 of Matsumoto and Nishimura.
struct Twister {
    state: [u32; 624],
    at: usize,
}

impl Twister {
    fn new(seed: u32) -> Twister {
        let mut state = [seed; 624];
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Twister { state, at: 624 }
    }

    fn next(&mut self) -> u32 {
        if self.at == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// In [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        let (a, b) = (u64::from(self.next() >> 5), u64::from(self.next() >> 6));
        (a * (1 << 26) + b) as f64 * (-53f64).exp2()
    }
}

/// `n` elements uniformly from [0, 1).
fn units(seed: u64, n: u64) -> Vec<f64> {
    match u32::try_from(seed) {
        Ok(seed) => {
            let mut twister = Twister::new(seed);
            (0..n).map(|_| twister.unit()).collect()
        }
        Err(_) => (0..n).map(|i| unit(seed, i)).collect(),
    }
}

/// A standard normal number (Box and Muller): the first or the second of a pair.
fn normal(pair: [f64; 2], second: bool) -> f64 {
    let (u, v) = (1.0 - pair[0], pair[1]);
    let angle = std::f64::consts::TAU * v;
    (-2.0 * u.ln()).sqrt() * if second { angle.sin() } else { angle.cos() }
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
    let u = units(seed, count + count % 2);
    let draw = |i: usize| match dist {
        Distribution::Uniform { lo, hi } => lo + (hi - lo) * u[i],
        Distribution::Normal { mean, std } => {
            mean + std * normal([u[i & !1], u[i | 1]], i % 2 == 1)
        }
    };
    let drawn = (0..count as usize).map(draw).collect::<Vec<f64>>();
    let mut out = cast(&Tensor::new(shape, drawn)?, dtype, true)?;
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
    fn a_small_seed_draws_numpys_numbers() {
        // numpy.random.RandomState(0).uniform(size=3)
        let want = [0.5488135039273248, 0.7151893663724195, 0.6027633760716439];
        assert_eq!(units(0, 3), want);
    }

    #[test]
    fn runs_repeat_and_seeds_differ() {
        let d = Distribution::Normal { mean: 0.0, std: 1.0 };
        assert_eq!(draw(d, 7), draw(d, 7));
        assert_ne!(draw(d, 7), draw(d, 8));
    }
}
