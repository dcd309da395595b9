//! Ascend: prepared operators for contractions, convolutions, windows and copies ([`operators`]), Ascend C
//! from the kernel IR for everything else.
//!
//! A core is the vector machine that kernels are lowered for: a vector register is a tensor of 64 lanes
//! in the unified buffer, one repeat of a vector instruction; a scalar is a variable of the scalar unit.
//! What a vector instruction does not compute, the scalar unit computes lane by lane. Loads and stores of
//! neighbouring elements go through queues of two buffers, so that copies run beside instructions;
//! others are single elements. The cores share the tiles of the grid.
//!
//! **Launching.** Parameters of a kernel function are those of the kernel, in order, 8 bytes each (an
//! address or an `int64_t`), then the number of tiles. It may be launched on any number of cores.
//!
//! Not yet run on an NPU: `runtime/devices/ascend` says what stands in for one.

mod backend;
mod legal;
mod memory;
mod operators;
mod render;
mod table;

pub use backend::AscendBackend;

use super::Refused;
use crate::kir::{Base, Elem, Inst, Kernel, Stmt, verify};
use std::collections::BTreeSet;

/// What a program begins with.
pub const HEADER: &str = include_str!("prelude.h");

/// Bytes of a core's unified buffer.
const UNIFIED: u64 = 192 << 10;
/// Bytes of each of the two buffers of a queue.
const BUFFER: u64 = 512;

/// Whether there is a form for every part of a kernel.
///
/// # Errors
/// [`Refused`], with what there is no form for.
pub fn fits(k: &Kernel) -> Result<(), Refused> {
    if k.operator.is_some() {
        return Ok(());
    }
    verify(k)?;
    checked(k).map(|_| ())
}

/// The record of a prepared operator, or Ascend C of `k`, a kernel function of its name, to stand after
/// [`HEADER`].
///
/// # Errors
/// As [`fits`].
pub fn emit(k: &Kernel) -> Result<String, Refused> {
    if let Some(op) = &k.operator {
        return Ok(format!("{op}\n"));
    }
    verify(k)?;
    Ok(render::render(&checked(k)?))
}

/// The kernel in legal instructions, if there is a form and room for all of it.
fn checked(k: &Kernel) -> Result<Kernel, Refused> {
    let no = |what: String| Refused::Unsupported { kernel: k.name.clone(), what, tier: "dav2201" };
    if let Some(i) = super::simt::foreign(&k.body, false) {
        return Err(no(i.to_string()));
    }
    if k.regs.iter().any(|t| t.elem == Elem::F64) {
        return Err(no("f64, which cores do not compute with".into()));
    }
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    accesses(&k.body, &mut |base, store| {
        _ = if store { written.insert(base) } else { read.insert(base) };
    });
    read.remove(&Base::Scratch);
    if read.intersection(&written).next().is_some() {
        return Err(no("memory that is read and written in one kernel".into()));
    }
    let legal = legal::legal(k);
    let room = render::room(&legal) + 4 * BUFFER;
    match room <= UNIFIED {
        true => Ok(legal),
        false => Err(Refused::Registers { kernel: k.name.clone(), class: "vector" }),
    }
}

fn accesses(body: &[Stmt], f: &mut dyn FnMut(Base, bool)) {
    for s in body {
        match s {
            Stmt::Inst(i) => {
                if let Some(a) = i.addr().filter(|_| !matches!(i, Inst::Prefetch { .. })) {
                    f(a.base, i.writes_memory())
                }
            }
            Stmt::For { body, .. } => accesses(body, f),
            Stmt::If { then, els, .. } => {
                accesses(then, f);
                accesses(els, f);
            }
        }
    }
}
