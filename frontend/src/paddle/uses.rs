//! What operators read and change, known before the walk: which are needed, which variables blocks
//! change, and whether there is an import for each.

use super::ctx::Res;
use super::import::{CONTROL, Import};
use super::ops;
use super::program::{Dialect, OpDesc, Program, Var};
use crate::{FrontendError, UnsupportedOp};
use std::collections::{BTreeMap, HashMap, HashSet};

/// PIR's operators whose first result is an operand, changed: which operand.
fn in_place(op: &OpDesc) -> Option<usize> {
    match op.kind.as_str() {
        "assign_out_" => Some(1),
        "batch_norm_" | "sync_batch_norm_" => None,
        k if k.ends_with('_') => Some(0),
        _ => None,
    }
}

pub fn aliases(program: &Program) -> HashMap<Var, Var> {
    let mut alias = HashMap::new();
    if program.dialect == Dialect::Legacy {
        return alias;
    }
    for op in program.blocks.iter().flat_map(|b| &b.ops) {
        let target = in_place(op).and_then(|i| op.ins.get(i)).and_then(|(_, v)| v.first());
        let out = op.outs.first().and_then(|(_, v)| v.first());
        if let (Some(&target), Some(&out)) = (target, out)
            && target != out
        {
            alias.insert(out, target);
        }
    }
    alias
}

/// Variables that blocks, or blocks within them, give new values.
pub fn assigned(walk: &Import<'_, '_>, blocks: &[usize]) -> Vec<Var> {
    let mut found = Assigned::default();
    for &b in blocks {
        collect(walk, b, &mut found);
    }
    found.order
}

#[derive(Default)]
struct Assigned {
    order: Vec<Var>,
    seen: HashSet<Var>,
}

fn collect(walk: &Import<'_, '_>, block: usize, found: &mut Assigned) {
    for op in &walk.program.blocks[block].ops {
        let outs: Vec<Var> = match walk.program.dialect {
            Dialect::Legacy => op.outs.iter().flat_map(|(_, v)| v).copied().collect(),
            Dialect::Pir => {
                let target = in_place(op).and_then(|i| op.ins.get(i)).map(|(_, v)| v.clone());
                target.unwrap_or_default().into_iter().map(|v| walk.root(v)).collect()
            }
        };
        for v in outs {
            if found.seen.insert(v) {
                found.order.push(v);
            }
        }
        for &b in &op.blocks {
            collect(walk, b, found);
        }
    }
}

pub fn used_vars(program: &Program) -> HashSet<Var> {
    let ops = program.blocks.iter().flat_map(|b| &b.ops);
    ops.flat_map(|o| &o.ins).flat_map(|(_, v)| v).copied().collect()
}

/// Which operators of the first block an output depends on. Variables are taken as a whole, so this
/// keeps more than it must where they are reused.
pub fn live(program: &Program) -> Vec<bool> {
    let ops = &program.blocks[0].ops;
    let mut needed: HashSet<Var> = HashSet::new();
    let mut keep = vec![false; ops.len()];
    for (k, op) in ops.iter().enumerate().rev() {
        let always = !op.blocks.is_empty()
            || ["fetch", "feed", "data", "builtin.shadow_output"].contains(&op.kind.as_str())
            || (program.dialect == Dialect::Pir && in_place(op).is_some());
        keep[k] = always || op.outs.iter().flat_map(|(_, v)| v).any(|v| needed.contains(v));
        if keep[k] {
            uses(program, op, &mut needed);
        }
    }
    keep
}

fn uses(program: &Program, op: &OpDesc, needed: &mut HashSet<Var>) {
    needed.extend(op.ins.iter().flat_map(|(_, v)| v));
    for &b in &op.blocks {
        for op in &program.blocks[b].ops {
            uses(program, op, needed);
        }
    }
}

/// All operators of the model that have no import, at once.
pub fn check_known(program: &Program, keep: &[bool]) -> Res {
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut todo = vec![0];
    while let Some(block) = todo.pop() {
        for (k, op) in program.blocks[block].ops.iter().enumerate() {
            if block == 0 && !keep[k] {
                continue;
            }
            let kind = op.kind.as_str();
            if !CONTROL.contains(&kind) && ops::find(program.dialect, kind).is_none() {
                unknown.entry(kind).or_default().push(&op.place);
            }
            todo.extend(&op.blocks);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let prefix = if program.dialect == Dialect::Pir { "pd_op." } else { "" };
    let report = |(op, places): (&str, Vec<&str>)| UnsupportedOp {
        op: if op.contains('.') { op.to_string() } else { format!("{prefix}{op}") },
        count: places.len(),
        examples: places.iter().take(3).map(|p| p.to_string()).collect(),
    };
    Err(FrontendError::operators(unknown.into_iter().map(report).collect()))
}
