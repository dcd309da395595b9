//! 3×3 convolutions of stride 1 by Winograd's minimal filtering: per tile of m×m outputs the input
//! is transformed once, (m+2)² products of matrices do the sums, and the results are transformed
//! back into the epilogue. A kernel does all three for a block of tiles in scratch that stays in a
//! core's cache.
//!
//! Sums are not those of the definition: with m = 4 results are off by about 1e-6 of the greatest,
//! four times what m = 2 loses. A target that is asked to be exact never gets these kernels.

pub mod filter;
mod kernel;
mod schedule;
mod tile;

use super::conv::Conv;
use super::cx::Made;
use super::value::with_lanes;
use crate::target::Target;
use crate::task::{Format, Lowered, Refused};
use filter::Filter;
use hub_abi::{Dim, Dtype};
pub use schedule::{Plan, every, plans};

/// A kernel for a convolution if this is the way to do it: by the model of costs before its filter
/// has a form, and whenever its filter is transformed already. Where it is not, the choice that is
/// left among direct kernels: the two ways take turns as [`Target::choice`] grows.
///
/// # Errors
/// That the filter should be transformed; or, where no kernel with a transformed filter fits, what
/// else cannot be done.
pub fn lower(c: &Conv<'_, '_>, target: &Target) -> Result<Result<Lowered, usize>, Refused> {
    let format = &c.task.inputs[c.w].format;
    if let Format::Transformed(f) = format {
        let (plan, direct) = chosen(c, target);
        return Ok(fitting(c, target, *f, plan)?.ok_or(direct));
    }
    if !eligible(c, target) {
        return Ok(Err(target.choice));
    }
    let (plan, direct) = chosen(c, target);
    match plan {
        Some(p) if *format == Format::Strided => {
            Err(Refused::Transform { input: c.w, filter: p.filter })
        }
        _ => Ok(Err(direct)),
    }
}

/// The plan of the target's choice, if that is one of these; and the choice among direct kernels if
/// it is none.
fn chosen(c: &Conv<'_, '_>, target: &Target) -> (Option<Plan>, usize) {
    let good = plans(c, target, false);
    let (turn, choice) = (target.choice / 2, target.choice);
    let mine = if good.is_empty() { choice % 2 == 1 } else { choice % 2 == 0 };
    if !mine {
        return (None, turn);
    }
    let all = if choice == 0 { good } else { plans(c, target, true) };
    let mut blocks: Vec<Plan> = all.iter().map(|p| Plan { staged: false, ..*p }).collect();
    blocks.dedup();
    (blocks.get(turn).copied(), 0)
}

/// The first kernel that fits of those with a filter of that form, `first` before all others.
fn fitting(
    c: &Conv<'_, '_>,
    target: &Target,
    f: Filter,
    first: Option<Plan>,
) -> Result<Option<Lowered>, Refused> {
    let mut all: Vec<Plan> = plans(c, target, true).into_iter().filter(|p| p.filter == f).collect();
    all.sort_by_key(|p| first != Some(Plan { staged: false, ..*p }));
    for plan in all {
        let made = with_lanes(target.lanes(), |lanes| lower_as(c, target, plan, lanes))?;
        if crate::targets::x86::emit(&made.kernel, target).is_ok() {
            return Ok(Some(made));
        }
    }
    Ok(None)
}

/// The kernel of one plan, fitting or not.
///
/// # Errors
/// What the generator cannot do.
pub fn lower_as(c: &Conv<'_, '_>, target: &Target, plan: Plan, lanes: usize) -> Made<Lowered> {
    kernel::lower(c, target, plan, lanes)
}

/// Is it a convolution that the transforms are for: dense 3×3 with stride 1 of f32, or of bf16 where no
/// tiles multiply that (transforms and sums are f32 then too), a known filter, channels contiguous and
/// in whole vectors?
fn eligible(c: &Conv<'_, '_>, target: &Target) -> bool {
    let (x, w) = (&c.task.inputs[c.x], &c.task.inputs[c.w]);
    let floats = match x.dtype {
        Dtype::F32 => true,
        Dtype::BF16 => !target.has_tiles(),
        _ => false,
    };
    let (Some(n), Some(ch)) = (w.dims[0].as_const(), w.dims[1].as_const()) else { return false };
    let square = w.dims.len() == 4 && w.dims[2].is(3) && w.dims[3].is(3);
    let plain = c.geo.stride.iter().chain(&c.geo.dilation).all(|&s| s == 1);
    let lanes = target.lanes() as i64;
    let whole = ch % lanes == 0 || lanes - ch % lanes <= x.slack;
    let sound = x.strides[1].is(1) && whole && ch >= 16 && n >= 16;
    target.own_core
        && !target.exact
        && floats
        && x.dtype == w.dtype
        && w.constant
        && square
        && plain
        && c.groups == 1
        && sound
}

/// Output rows and columns that a tile of `m` covers an axis with.
fn tiles(d: &Dim, m: i64) -> Dim {
    d.div_ceil(&m.into())
}
