//! What placement needs of a target.

use crate::kir::{Kernel, ParamId, share};
use crate::lower;
use crate::target::Target;
use crate::task::{Lowered, Operand, Refused, Task};
use hub_abi::Dim;
use hub_ir::{GroupKind, Region};

/// A target: lowers tasks to kernels and emits them.
pub trait Backend {
    /// The machine that kernels are lowered for.
    fn target(&self) -> &Target;

    /// Name of the tier, e.g. `avx512`.
    fn tier(&self) -> &str;

    /// What a group's kernel depends on beside its task: which of several it is to be.
    fn choice(&self, _region: Region) -> usize {
        0
    }

    /// May a convolution be joined with the depthwise one that reads it ([`super::chain`])?
    fn chains(&self) -> bool {
        true
    }

    /// Are anchors of groups operators of the device's own? Then each stands alone, with what a group
    /// does before and after it in groups beside it, and every tensor is row-major, without a halo.
    fn operators(&self) -> bool {
        false
    }

    /// What code starts with, before the first kernel.
    fn opening(&self) -> &[u8] {
        &[]
    }

    /// The byte between kernels.
    fn filler(&self) -> u8 {
        0xCC
    }

    /// Pairs of parameters `(read, written)` that may be given one address.
    fn shares(&self, kernel: &Kernel) -> Vec<(ParamId, ParamId)> {
        share::shared(kernel)
    }

    /// Bytes of scratch that the plan gives a worker of a kernel.
    fn scratch(&self, kernel: &Kernel) -> u64 {
        kernel.scratch_bytes
    }

    /// A kernel for a group.
    fn lower(&self, task: &Task<'_>, kind: GroupKind) -> Result<Lowered, Refused> {
        let choice = self.choice(task.region);
        lower::lower(task, kind, &Target { choice, ..*self.target() })
    }

    /// A kernel that copies `src` to `dst`: same dims and dtype, any strides.
    fn copy(&self, src: &Operand, dst: &Operand) -> Result<Lowered, Refused> {
        lower::lower_copy(src, dst, self.target())
    }

    /// A kernel that writes `fill` around a channel-last image: `before` and `after` elements on
    /// each spatial axis, all channels, slack included.
    fn halo(
        &self,
        image: &Operand,
        before: &[Dim],
        after: &[Dim],
        fill: f64,
    ) -> Result<Lowered, Refused> {
        lower::lower_halo_fill(image, before, after, fill, self.target())
    }

    /// Code of a kernel (its name is the symbol).
    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String>;
}
