//! What a lowering and a code generator know of the machine that will run a kernel: data, so that
//! the host that compiles need not be the host that runs.

/// Instruction set tiers; those of x86-64 contain the ones before them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// AVX2, FMA, F16C, BMI2.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 BF16: dot products of bf16 pairs.
    Avx512Bf16,
    /// AMX: tile registers and products of bf16 tiles.
    Amx,
    /// CUDA, compute capability 8.0 and above: a warp is a machine of 32 lanes.
    Sm80,
    /// OpenCL 1.2: a group of 32 work-items is such a machine.
    Cl12,
    /// Ascend C for NPU architecture 2201 (Atlas A2): a vector register is the 256 bytes that one
    /// repeat of a vector instruction covers.
    Dav2201,
}

impl Tier {
    /// Those of x86-64, smallest first.
    pub const ALL: [Tier; 4] = [Tier::Avx2, Tier::Avx512, Tier::Avx512Bf16, Tier::Amx];

    /// Name in schedules, bundles and options.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
            Tier::Avx512Bf16 => "avx512bf16",
            Tier::Amx => "amx",
            Tier::Sm80 => "sm80",
            Tier::Cl12 => "cl12",
            Tier::Dav2201 => "dav2201",
        }
    }
}

/// A machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// What it can execute.
    pub tier: Tier,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
    /// Number of vector registers.
    pub vector_regs: usize,
    /// Bytes of L1 data cache.
    pub l1: usize,
    /// Bytes of L2 cache a core.
    pub l2: usize,
    /// A worker has a core with caches of its own: large scratch pays (Winograd, chains), and so do
    /// blocks of lanes × lanes turned in registers.
    pub own_core: bool,
    /// Bytes of scratch that a value kept between the passes over a row may take.
    pub kept: i64,
    /// Fewest elements of a tile of elementwise work.
    pub grain: i64,
    /// Tiles that run at once where there are never fewer: small problems are cut for so many. 1
    /// where a kernel is shaped for one worker.
    pub workers: i64,
    /// Workers may do a tile together ([`crate::kir::Team`]).
    pub teams: bool,
    /// Sums must be those of an operator's definition: no Winograd.
    pub exact: bool,
    /// Which of the kernels that the model of cycles ranks is tried first: the best (0) but for a
    /// tuner, that goes on to the next where it wants another.
    pub choice: usize,
}

impl Target {
    /// The usual machine of a tier.
    pub fn of(tier: Tier) -> Target {
        let (vector_bytes, vector_regs) = if tier == Tier::Avx2 { (32, 16) } else { (64, 32) };
        let (l1, l2) = if tier == Tier::Avx2 { (32 << 10, 512 << 10) } else { (48 << 10, 1 << 20) };
        let mut t = Target {
            tier,
            vector_bytes,
            vector_regs,
            l1,
            l2,
            own_core: true,
            kept: 32 << 10,
            grain: 1024,
            workers: 1,
            teams: tier == Tier::Sm80,
            exact: false,
            choice: 0,
        };
        if matches!(tier, Tier::Sm80 | Tier::Cl12) {
            (t.vector_bytes, t.vector_regs) = (128, 64);
            (t.own_core, t.kept, t.grain, t.workers) = (false, 6 << 10, 128, 432);
        }
        if tier == Tier::Dav2201 {
            (t.vector_bytes, t.vector_regs) = (256, 256);
            (t.own_core, t.kept, t.workers) = (false, 64 << 10, 40);
        }
        t
    }

    /// Has it dot products of bf16 pairs?
    pub fn has_dot2(&self) -> bool {
        matches!(self.tier, Tier::Avx512Bf16 | Tier::Amx)
    }

    /// Has it tile registers?
    pub fn has_tiles(&self) -> bool {
        self.tier == Tier::Amx
    }

    /// Do warps multiply tiles of bf16, spread over their threads?
    pub fn has_mma(&self) -> bool {
        self.tier == Tier::Sm80
    }

    /// f32 lanes of a vector register.
    pub fn lanes(&self) -> usize {
        self.vector_bytes / 4
    }

    /// The best tier that this host runs, if any; AMX, which a process has to ask for, aside.
    pub fn host_tier() -> Option<Tier> {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2");
            let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            match (avx2, wide) {
                (true, true) if has!("avx512bf16") => return Some(Tier::Avx512Bf16),
                (true, true) => return Some(Tier::Avx512),
                (true, false) => return Some(Tier::Avx2),
                _ => {}
            }
        }
        None
    }
}
