//! Lowerings: from what a group computes to a kernel.
//!
//! [`cx::LowerCx`] is the kernel under construction, [`value`] the generator that every lowering
//! shares: asked for a value of the region at coordinates, it emits what makes it. A lowering makes
//! the loops and decides coordinates; prologues and epilogues come from the generator. Values that
//! do not change in a loop are lifted out of it afterwards ([`hoist`]).

pub mod coord;
pub mod cx;
pub mod elem;
pub mod hoist;
mod math;
pub mod shape;
pub mod value;

pub use coord::{Atom, AtomData, Coord};
pub use cx::{Fail, LowerCx, Made, Work, unsupported};
pub use value::with_lanes;
