//! What a machine is like, as data: the host that compiles need not be the host that runs.

/// Instruction sets, smallest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// AVX2, FMA, F16C, BMI2.
    Avx2,
    /// AVX-512 F, BW, DQ, VL (and all of the tier below).
    Avx512,
}

impl Tier {
    /// Name in bundles and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
        }
    }
}

/// A target machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// Instruction set.
    pub tier: Tier,
    /// 32-bit lanes of the widest vector.
    pub lanes: usize,
    /// Vector registers.
    pub vregs: usize,
    /// Level-1 data cache, bytes.
    pub l1: usize,
    /// Level-2 cache of a core, bytes.
    pub l2: usize,
    /// Shared level-3 cache, bytes.
    pub l3: usize,
    /// Widest fused multiply-adds started per cycle.
    pub fma_per_cycle: usize,
}

impl Target {
    /// A current machine of that tier, with cache sizes small enough for most.
    pub fn generic(tier: Tier) -> Target {
        let wide = tier == Tier::Avx512;
        Target {
            tier,
            lanes: if wide { 16 } else { 8 },
            vregs: if wide { 32 } else { 16 },
            l1: 32 << 10,
            l2: if wide { 1 << 20 } else { 512 << 10 },
            l3: 16 << 20,
            fma_per_cycle: 2,
        }
    }

    /// The best tier that this host runs, if any.
    pub fn host_tier() -> Option<Tier> {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2");
            let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match (avx2, wide) {
                (true, true) => return Some(Tier::Avx512),
                (true, false) => return Some(Tier::Avx2),
                _ => {}
            }
        }
        None
    }
}

impl From<&crate::target::Target> for Target {
    fn from(t: &crate::target::Target) -> Target {
        let tier = match t.tier {
            crate::target::Tier::Avx2 => Tier::Avx2,
            _ => Tier::Avx512,
        };
        let (lanes, vregs) = (t.vector_bytes / 4, t.vector_regs);
        Target { lanes, vregs, l1: t.l1, l2: t.l2, ..Target::generic(tier) }
    }
}
