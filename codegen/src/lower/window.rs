//! Window reductions (pooling): vectors along channels, windows unrolled along the innermost axis.

use super::contract::{anchor, param};
use super::contract_mac::{Body, Mac, lower_mac};
use super::conv::padded;
use super::depthwise::{finish, ordered, window_mac};
use crate::target::Target;
use crate::task::{Lowered, Refused, Task};
use hub_abi::prim::{Prim, ReduceOp};

/// Lowers a group around a [`Prim::Window`].
///
/// # Errors
/// What placement has to do first, or why there is no native kernel.
pub fn lower(task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    lower_mac(task, target, &problem(task)?)
}

/// The problem of a group around a [`Prim::Window`].
///
/// # Errors
/// As [`lower`].
pub fn problem(task: &Task<'_>) -> Result<Mac, Refused> {
    let (node, prim) = anchor(task, |p| matches!(p, Prim::Window { .. }))?;
    let Prim::Window { op, kernel, geo } = prim else { unreachable!("the filter above") };
    let x = param(task, task.g.nodes[node].inputs[0])?;
    let out = task.g.nodes[node].outputs[0];
    padded(task, x, geo)?;
    let body = match op {
        ReduceOp::Sum => Body::Sum,
        ReduceOp::Max if ordered(task.g.dtype(out)) => Body::Max,
        _ => return Err(Refused::Unsupported(format!("a window of {op:?}"))),
    };
    let mut mac = window_mac(task, body, (x, &task.inputs[x]), out, kernel, geo)?;
    if mac.k.is_empty() {
        return Err(Refused::Unsupported("a window without spatial axes".into()));
    }
    finish(&mut mac);
    Ok(mac)
}
