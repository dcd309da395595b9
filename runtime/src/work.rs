//! The work of steps, as [`hub_portable`] counts that of primitives, against a session's limits.

use hub_abi::dim::{Dim, DimError, SymEnv};
use hub_abi::plan::Step;

/// Every call of a kernel counts as this much work at least.
const CALL_WORK: u64 = 256;

/// Work of steps: half their operations, a multiply-add being two, or the bytes they move; of a branch
/// the greater. What is not known is none; what overflows is all there is. Loops whose end is found while
/// they run are none here: they are counted by iteration.
pub fn of(steps: &[Step], env: &SymEnv) -> u64 {
    steps.iter().fold(0u64, |n, s| n.saturating_add(of_step(s, env)))
}

fn of_step(step: &Step, env: &SymEnv) -> u64 {
    let known = |d: &Dim| match d.eval(env) {
        Ok(n) => u64::try_from(n).unwrap_or(0),
        Err(DimError::Overflow(_)) => u64::MAX,
        Err(_) => 0,
    };
    match step {
        Step::Kernel { flops, bytes, .. } => (known(flops) / 2).max(known(bytes)).max(CALL_WORK),
        Step::Repeat { trip, body } => of(&body.steps, env).saturating_mul(known(trip)),
        Step::Branch { then, orelse, .. } => of(&then.steps, env).max(of(&orelse.steps, env)),
        Step::Host { .. }
        | Step::Loop { .. }
        | Step::Bind { .. }
        | Step::Move { .. }
        | Step::Store { .. } => 0,
    }
}
