//! What this processor can run.

/// Tiers that this build knows, best first.
const TIERS: &[&str] = &["avx512", "avx2"];

/// Does this processor (and its operating system) run code of that tier?
pub fn supports(tier: &str) -> bool {
    match tier {
        "avx2" => avx2(),
        "avx512" => avx512(),
        _ => false,
    }
}

/// Order of preference: greater is better; `None` for a tier unknown to this build.
pub fn rank(tier: &str) -> Option<usize> {
    TIERS.iter().rev().position(|t| *t == tier)
}

/// The best tier that this processor runs.
pub fn best() -> Option<&'static str> {
    TIERS.iter().copied().find(|t| supports(t))
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2")
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

/// Number of cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Puts rounding, flushing and exception masks into the state that kernels and portable code
/// expect, and the caller's state back when dropped.
pub struct FloatState {
    #[cfg(target_arch = "x86_64")]
    before: u32,
}

impl FloatState {
    /// Round to nearest even, denormals kept, exceptions masked: until dropped.
    pub fn set() -> FloatState {
        #[cfg(target_arch = "x86_64")]
        {
            let before = read_mxcsr();
            write_mxcsr(0x1f80);
            FloatState { before }
        }
        #[cfg(not(target_arch = "x86_64"))]
        FloatState {}
    }
}

impl Drop for FloatState {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        write_mxcsr(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
fn read_mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores four bytes into `v`, which lives; SSE is part of x86-64.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack, preserves_flags)) };
    v
}

#[cfg(target_arch = "x86_64")]
fn write_mxcsr(v: u32) {
    // SAFETY: reads four bytes from `v`; callers pass the default state or one read before, so no
    // reserved bit is set.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, readonly, preserves_flags))
    };
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_callers_float_state_comes_back() {
        let before = read_mxcsr();
        write_mxcsr(before | 0x8040); // flush denormals, as audio programs do
        let mine = read_mxcsr();
        {
            let _s = FloatState::set();
            assert_eq!(read_mxcsr() & 0xffc0, 0x1f80);
        }
        assert_eq!(read_mxcsr(), mine);
        write_mxcsr(before);
    }

    #[test]
    fn better_tiers_rank_higher() {
        assert!(rank("avx512") > rank("avx2"));
        assert_eq!(rank("amx"), None);
        assert!(!supports("avx512") || supports("avx2"));
    }
}
