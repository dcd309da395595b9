//! Inputs against the model's types: symbols are bound to the dims given, everything else must agree.

use crate::error::Error;
use crate::tensor::Given;
use hub_abi::bundle::Manifest;
use hub_abi::dim::{Dim, SymEnv, SymInfo};

/// Binds the symbols of a value's dims to `dims`, or checks them. `fail` builds the error.
fn bind_dims(
    syms: &[SymInfo],
    types: &[Dim],
    dims: &[usize],
    env: &mut SymEnv,
    fail: &dyn Fn(String) -> Error,
) -> Result<(), Error> {
    if types.len() != dims.len() {
        return Err(fail(format!("rank {} given, {} expected", dims.len(), types.len())));
    }
    for (axis, (d, &n)) in types.iter().zip(dims).enumerate() {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        let fits = match d.as_sym() {
            Some(s) => match env.get(s) {
                Some(v) => v == n,
                None => {
                    let i = &syms[s.0 as usize];
                    env.set(s, n);
                    (i.min..=i.max).contains(&n)
                }
            },
            None => d.as_const().is_none_or(|k| k == n),
        };
        if !fits {
            let want = d.display(syms);
            let (lo, hi) = d.bounds(syms);
            let bounds = if lo < hi { format!(" in {lo}..{hi}") } else { String::new() };
            return Err(fail(format!("axis {axis} is {n}, {want}{bounds} expected")));
        }
    }
    Ok(())
}

/// Checks dims that are expressions, once all symbols are bound.
fn check_dims(
    syms: &[SymInfo],
    types: &[Dim],
    dims: &[usize],
    env: &SymEnv,
    fail: &dyn Fn(String) -> Error,
) -> Result<(), Error> {
    for (axis, (d, &n)) in types.iter().zip(dims).enumerate() {
        if d.as_const().is_some() || d.as_sym().is_some() {
            continue;
        }
        let v = d.eval(env).map_err(|e| fail(format!("axis {axis}: {e}")))?;
        if usize::try_from(v) != Ok(n) {
            let want = d.display(syms);
            return Err(fail(format!("axis {axis} is {n}, {want} = {v} expected")));
        }
    }
    Ok(())
}

/// Binds symbols to the inputs' dims in a cleared `env` and checks those; what is no tensor
/// (`None`) binds nothing.
pub fn accept(m: &Manifest, inputs: &[Option<Given<'_>>], env: &mut SymEnv) -> Result<(), Error> {
    env.0.fill(None);
    for check in [false, true] {
        for (info, given) in m.inputs.iter().zip(inputs) {
            let (Some(t), Some(given)) = (info.ty.as_tensor(), given) else { continue };
            let fail = |what| Error::Input { name: info.name.clone(), what };
            if check {
                check_dims(&m.syms, &t.dims, given.dims, env, &fail)?;
            } else {
                bind_dims(&m.syms, &t.dims, given.dims, env, &fail)?;
            }
        }
    }
    Ok(())
}

/// Equalities that can be decided under `env` must hold.
pub fn check_constraints(m: &Manifest, env: &SymEnv) -> Result<(), Error> {
    for (a, b) in &m.constraints {
        let (Ok(x), Ok(y)) = (a.eval(env), b.eval(env)) else { continue };
        if x != y {
            let (a, b) = (a.display(&m.syms), b.display(&m.syms));
            let what = format!("sizes do not fit together: {a} is {x} and {b} is {y}");
            return Err(Error::Usage(what));
        }
    }
    Ok(())
}
