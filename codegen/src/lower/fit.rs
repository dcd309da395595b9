//! Makes kernels fit: what the code generator has too few registers for is lowered again with fewer
//! to plan with, and what it has no form for in full vectors is tried in half.

use crate::target::Target;
use crate::targets::{self, Refused as NoCode};
use crate::task::{Lowered, Refused};

/// Parts (of 8) of the vector registers that lowerings plan with, one attempt each.
const SHARES: [usize; 4] = [8, 5, 3, 1];

/// The first kernel of `make` that the code generator takes.
///
/// # Errors
/// What `make` refuses, or [`Refused::Unsupported`] with the code generator's reason.
pub fn fitted(
    target: &Target,
    make: impl Fn(&Target) -> Result<Lowered, Refused>,
) -> Result<Lowered, Refused> {
    let mut why = String::new();
    for bytes in [target.vector_bytes, target.vector_bytes / 2] {
        for share in SHARES {
            let vector_regs = target.vector_regs * share / 8;
            let plan = Target { vector_regs, vector_bytes: bytes, ..*target };
            let made = make(&plan)?;
            match targets::fits(&made.kernel, target) {
                Ok(_) => return Ok(made),
                Err(e @ NoCode::Registers { .. }) => why = e.to_string(),
                Err(e @ NoCode::Unsupported { .. }) => {
                    why = e.to_string();
                    break;
                }
                Err(NoCode::Malformed(e)) => panic!("{e}"),
            }
        }
    }
    Err(Refused::Unsupported(why))
}
