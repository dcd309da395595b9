//! CUDA: PTX text from the kernel IR.
//!
//! A warp is the vector machine that kernels are lowered for: a vector register is one register of
//! every thread, thread `t` holding lane `t mod lanes`, so that a scalar is the same in all threads
//! and a store is done by the first threads only. A tile of the grid is a warp's, and a block is a few
//! warps that know nothing of one another; a team's tile is a block's, its workers the block's warps.
//! Scratch is shared memory. Tiles of bf16 are multiplied by tensor cores ([`tensor`]).
//!
//! [`super::simt`] rewrites a kernel into what PTX has an instruction for, [`ptx`] writes that down row by
//! row. `ptxas` allocates registers.
//!
//! **Launching.** A kernel's only parameter is its argument block, by value. A block has as many
//! threads as the entry's `.reqntid` says, and `ceil(tiles × 32 / threads)` blocks run all tiles.

mod addr;
mod entry;
mod exchange;
mod memory;
mod ptx;
mod table;
mod tensor;

use super::Refused;
use super::simt::{foreign, legal};
use crate::kir::{Kernel, verify};

/// What a module begins with.
pub const HEADER: &str = ".version 7.0\n.target sm_80\n.address_size 64\n";
/// Bytes of shared memory that a block may have without asking.
const SHARED: u64 = 48 << 10;
/// Warps of a block, where their scratch allows.
const WARPS: u64 = 4;

/// Warps of a block of this kernel: a team's, or so many that know nothing of one another.
///
/// # Errors
/// [`Refused`], with what there is no form for.
pub fn fits(k: &Kernel) -> Result<u64, Refused> {
    verify(k)?;
    let no = |what: String| Refused::Unsupported { kernel: k.name.clone(), what, tier: "sm80" };
    if let Some(i) = foreign(&k.body, true) {
        return Err(no(i.to_string()));
    }
    tensor::fits(&k.body).map_err(no)?;
    if let Some(team) = k.team {
        let room = k.scratch_bytes <= SHARED;
        let small = || no(format!("scratch of {} bytes", k.scratch_bytes));
        return room.then_some(team.size.into()).ok_or_else(small);
    }
    let warps = [WARPS, 2, 1].into_iter().find(|w| w * k.scratch_bytes <= SHARED);
    warps.ok_or_else(|| no(format!("scratch of {} bytes", k.scratch_bytes)))
}

/// PTX of `k`, an entry of its name, to stand after [`HEADER`].
///
/// # Errors
/// As [`fits`].
pub fn emit(k: &Kernel) -> Result<String, Refused> {
    let warps = fits(k)?;
    Ok(ptx::render(&legal(k), warps))
}
