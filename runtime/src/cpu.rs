//! What this processor can run.

/// Tiers that this build knows, best first.
const TIERS: &[&str] = &["amx", "avx512bf16", "avx512", "avx2"];

/// Does this processor (and its operating system) run code of that tier?
pub fn supports(tier: &str) -> bool {
    match tier {
        "avx2" => avx2(),
        "avx512" => avx512(),
        "avx512bf16" => avx512_bf16(),
        "amx" => amx(),
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

#[cfg(target_arch = "x86_64")]
fn avx512_bf16() -> bool {
    avx512() && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// AMX with bf16: the processor has it, the operating system saves its state, and grants this process
/// its use, which is asked for here, once.
#[cfg(target_arch = "x86_64")]
fn amx() -> bool {
    static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *GRANTED.get_or_init(|| avx512_bf16() && has_amx() && ask_for_tiles())
}

/// What CPUID says (leaf 7: AMX-BF16 is bit 22 of EDX, AMX-TILE bit 24) and XCR0 (bits 17 and 18).
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILES: u32 = 1 << 22 | 1 << 24;
    let saves = __cpuid(1).ecx & 1 << 27 != 0;
    if __cpuid(0).eax < 7 || !saves || __cpuid_count(7, 0).edx & TILES != TILES {
        return false;
    }
    let low: u32;
    // SAFETY: OSXSAVE is on, so XGETBV of register 0 exists; it changes eax and edx alone.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _,
            options(nomem, nostack, preserves_flags));
    }
    low & 3 << 17 == 3 << 17
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`; refused where a thread has a signal stack
/// that is too small for the state.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn ask_for_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let r = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    r == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn ask_for_tiles() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn amx() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512_bf16() -> bool {
    false
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
        assert!(rank("amx") > rank("avx512bf16"));
        assert!(!supports("amx") || supports("avx512bf16"));
        assert!(rank("avx512bf16") > rank("avx512"));
        assert!(rank("avx512") > rank("avx2"));
        assert_eq!(rank("avx1024"), None);
        assert!(!supports("avx512") || supports("avx2"));
    }
}
