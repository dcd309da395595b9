//! What placement needs of a target.

use crate::kir::Kernel;
use crate::task::{Lowered, Operand, Refused, Task};
use hub_abi::Dim;
use hub_ir::{GroupKind, Region};

/// A target: lowers tasks to kernels and emits them.
pub trait Backend {
    /// Name of the tier, e.g. `avx512`.
    fn tier(&self) -> &str;

    /// What a group's kernel depends on beside its task: which of several it is to be.
    fn choice(&self, _region: Region) -> usize {
        0
    }

    /// A kernel for a group.
    fn lower(&self, task: &Task<'_>, kind: GroupKind) -> Result<Lowered, Refused>;

    /// A kernel that copies `src` to `dst`: same dims and dtype, any strides.
    fn copy(&self, src: &Operand, dst: &Operand) -> Result<Lowered, Refused>;

    /// A kernel that writes `fill` around a channel-last image: `before` and `after` elements on
    /// each spatial axis, all channels, slack included.
    fn halo(
        &self,
        image: &Operand,
        before: &[Dim],
        after: &[Dim],
        fill: f64,
    ) -> Result<Lowered, Refused>;

    /// Code of a kernel (its name is the symbol).
    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String>;
}
