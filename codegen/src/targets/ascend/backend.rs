//! Ascend as placement sees it.

use super::operators;
use crate::kir::{Kernel, ParamId};
use crate::lower;
use crate::place::Backend;
use crate::target::{Target, Tier};
use crate::task::{Lowered, Operand, Refused, Task};
use hub_abi::{Dim, Dtype};
use hub_ir::GroupKind;

/// NPU architecture 2201.
pub struct AscendBackend {
    target: Target,
}

impl AscendBackend {
    /// The backend of a tier of that name, if it is this one; only sums as operators define them, if
    /// `exact`.
    pub fn of_tier(name: &str, exact: bool) -> Option<AscendBackend> {
        let target = Target { exact, ..Target::of(Tier::Dav2201) };
        (target.tier.name() == name).then_some(AscendBackend { target })
    }
}

impl Backend for AscendBackend {
    fn target(&self) -> &Target {
        &self.target
    }

    fn tier(&self) -> &str {
        self.target.tier.name()
    }

    fn chains(&self) -> bool {
        false
    }

    fn operators(&self) -> bool {
        true
    }

    fn opening(&self) -> &[u8] {
        super::HEADER.as_bytes()
    }

    fn filler(&self) -> u8 {
        b'\n'
    }

    /// None: copies in and out of a core run beside its instructions.
    fn shares(&self, _: &Kernel) -> Vec<(ParamId, ParamId)> {
        vec![]
    }

    /// None: it is a core's own memory.
    fn scratch(&self, _: &Kernel) -> u64 {
        0
    }

    fn lower(&self, task: &Task<'_>, kind: GroupKind) -> Result<Lowered, Refused> {
        match kind {
            GroupKind::Map | GroupKind::Row => lower::lower(task, kind, &self.target),
            GroupKind::Contract => operators::lower(task)
                .or_else(|why| lower::lower(task, kind, &self.target).map_err(|_| why)),
            GroupKind::Conv | GroupKind::Window => operators::lower(task),
        }
    }

    fn copy(&self, src: &Operand, dst: &Operand) -> Result<Lowered, Refused> {
        let bits = |o: &Operand| match o.dtype {
            Dtype::F64 => Operand { dtype: Dtype::I64, ..o.clone() },
            _ => o.clone(),
        };
        let (src, dst) = (bits(src), bits(dst));
        operators::copy(&src, &dst).or_else(|_| lower::lower_copy(&src, &dst, &self.target))
    }

    fn halo(&self, _: &Operand, _: &[Dim], _: &[Dim], _: f64) -> Result<Lowered, Refused> {
        Err(Refused::Unsupported("operators pad by themselves".into()))
    }

    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        super::emit(kernel).map(String::into_bytes).map_err(|e| e.to_string())
    }
}
