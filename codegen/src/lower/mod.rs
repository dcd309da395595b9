//! Lowerings: from what a group computes to a kernel.
//!
//! [`cx::LowerCx`] is the kernel under construction, [`value`] the generator that every lowering
//! shares: asked for a value of the region at coordinates, it emits what makes it. A lowering makes
//! the loops and decides coordinates; prologues and epilogues come from the generator. Values that
//! do not change in a loop are lifted out of it afterwards ([`hoist`]).

mod accum;
mod across;
pub mod chain;
mod chain_plan;
pub mod contract;
mod contract_grid;
pub mod contract_mac;
mod contract_pairs;
mod contract_tile;
pub mod conv;
pub mod coord;
pub mod copy;
pub mod cx;
pub mod depthwise;
pub mod elem;
mod fit;
pub mod hoist;
mod index;
pub mod map;
mod math;
pub mod memo;
mod mma;
pub mod nest;
pub mod row;
mod rows;
pub mod schedule;
pub mod shape;
pub mod stage;
pub mod study;
mod team;
mod tiles;
pub mod transpose;
pub mod value;
pub mod window;
pub mod winograd;

pub use coord::{Atom, AtomData, Coord};
pub use cx::{Fail, LowerCx, Made, Work, unsupported};
pub use value::with_lanes;

use crate::target::Target;
use crate::task::{Lowered, Refused, Task};
use hub_ir::GroupKind;

pub use copy::{lower_copy, lower_halo_fill};

/// A kernel for a group, one that the target's code generator takes.
///
/// # Errors
/// What placement should change about the operands, or that no kernel does this.
pub fn lower(task: &Task<'_>, kind: GroupKind, target: &Target) -> Result<Lowered, Refused> {
    match kind {
        GroupKind::Map => fit::fitted(target, |target| map::map(task, target)),
        GroupKind::Row => fit::fitted(target, |target| row::row(task, target)),
        GroupKind::Contract => contract::lower(task, target),
        GroupKind::Conv => conv::lower(task, target),
        GroupKind::Window => window::lower(task, target),
    }
}
