//! OpenCL as placement sees it.

use crate::kir::{Kernel, ParamId};
use crate::lower;
use crate::place::Backend;
use crate::target::{Target, Tier};
use crate::task::{Lowered, Operand, Refused, Task};
use hub_abi::Dim;
use hub_ir::{GroupKind, Region};

/// OpenCL 1.2.
pub struct OpenClBackend {
    target: Target,
}

impl OpenClBackend {
    /// The backend; only sums as operators define them, if `exact`.
    pub fn new(exact: bool) -> OpenClBackend {
        OpenClBackend { target: Target { exact, ..Target::of(Tier::Cl12) } }
    }
}

impl Backend for OpenClBackend {
    fn tier(&self) -> &str {
        self.target.tier.name()
    }

    fn choice(&self, _: Region) -> usize {
        0
    }

    fn chains(&self) -> bool {
        self.target.own_core
    }

    fn opening(&self) -> &[u8] {
        super::HEADER.as_bytes()
    }

    fn filler(&self) -> u8 {
        b'\n'
    }

    /// None: it is local memory.
    fn scratch(&self, _: &Kernel) -> u64 {
        0
    }

    /// None: work-items may be at different instructions, so what a lane reads may be another's write
    /// that comes after it.
    fn shares(&self, _: &Kernel) -> Vec<(ParamId, ParamId)> {
        vec![]
    }

    fn lower(&self, task: &Task<'_>, kind: GroupKind) -> Result<Lowered, Refused> {
        lower::lower(task, kind, &self.target)
    }

    fn copy(&self, src: &Operand, dst: &Operand) -> Result<Lowered, Refused> {
        lower::lower_copy(src, dst, &self.target)
    }

    fn halo(
        &self,
        image: &Operand,
        before: &[Dim],
        after: &[Dim],
        fill: f64,
    ) -> Result<Lowered, Refused> {
        lower::lower_halo_fill(image, before, after, fill, &self.target)
    }

    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        super::emit(kernel).map(String::into_bytes).map_err(|e| e.to_string())
    }
}
