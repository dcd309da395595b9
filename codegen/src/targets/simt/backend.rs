//! A target whose code is text, as placement sees it.

use crate::kir::{Kernel, ParamId};
use crate::place::Backend;
use crate::target::{Target, Tier};
use crate::targets::{Refused, cuda, opencl};

/// The text of a kernel.
type Emit = fn(&Kernel) -> Result<String, Refused>;

/// What text starts with, and how a kernel is written.
const DEVICES: [(Tier, &str, Emit); 2] =
    [(Tier::Sm80, cuda::HEADER, cuda::emit), (Tier::Cl12, opencl::HEADER, opencl::emit)];

/// A device whose threads hold the lanes.
pub struct SimtBackend {
    target: Target,
    opening: &'static str,
    emit: Emit,
}

impl SimtBackend {
    /// The backend of a tier of that name, if there is one; only sums as operators define them, if
    /// `exact`.
    pub fn of_tier(name: &str, exact: bool) -> Option<SimtBackend> {
        let (tier, opening, emit) = DEVICES.into_iter().find(|d| d.0.name() == name)?;
        Some(SimtBackend { target: Target { exact, ..Target::of(tier) }, opening, emit })
    }
}

impl Backend for SimtBackend {
    fn target(&self) -> &Target {
        &self.target
    }

    fn tier(&self) -> &str {
        self.target.tier.name()
    }

    fn chains(&self) -> bool {
        self.target.own_core
    }

    fn opening(&self) -> &[u8] {
        self.opening.as_bytes()
    }

    fn filler(&self) -> u8 {
        b'\n'
    }

    /// None: threads may be at different instructions, so what a lane reads may be another's write that
    /// comes after it.
    fn shares(&self, _: &Kernel) -> Vec<(ParamId, ParamId)> {
        vec![]
    }

    /// None: it is memory of the device's own, a block's or a group's.
    fn scratch(&self, _: &Kernel) -> u64 {
        0
    }

    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        (self.emit)(kernel).map(String::into_bytes).map_err(|e| e.to_string())
    }
}
