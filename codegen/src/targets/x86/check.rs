//! Checks a register assignment without knowing how it was made: it runs the program symbolically,
//! remembering which virtual register each physical one holds, joins at labels, and asks of every
//! read that the physical register holds what the program meant.

use super::alloc::Allocated;
use super::asm::{encode_one, full_register};
use super::lir::*;
use iced_x86::{InstructionInfoFactory, OpAccess, Register};
use std::collections::VecDeque;

/// What each physical register holds, `None` where paths disagree or nothing was written.
type State = Vec<Option<V>>;

const KINDS: usize = 32;

fn place(a: &Allocated, v: V) -> usize {
    a.program.classes[v.0 as usize] as usize * KINDS + a.phys[v.0 as usize] as usize
}

/// Proves the assignment of `a`.
///
/// # Errors
/// The first read that could see another value.
pub fn check(a: &Allocated) -> Result<(), String> {
    let items = &a.program.items;
    let mut at: Vec<Option<State>> = vec![None; a.program.labels as usize];
    let mut where_is = vec![0usize; a.program.labels as usize];
    for (n, i) in items.iter().enumerate() {
        if let Item::Label(l) = i {
            where_is[*l as usize] = n;
        }
    }
    let mut work = VecDeque::from([(0usize, vec![None; 3 * KINDS] as State)]);
    while let Some((mut n, mut state)) = work.pop_front() {
        while n < items.len() {
            if let Item::Label(l) = &items[n] {
                match join(&mut at[*l as usize], &state) {
                    Some(joined) => state = joined,
                    None => break,
                }
            }
            step(a, n, &mut state)?;
            if let Some(l) = items[n].target() {
                work.push_back((where_is[l as usize], state.clone()));
            }
            if items[n].ends() {
                break;
            }
            n += 1;
        }
    }
    Ok(())
}

/// Joins into a label's state; `None` where that changed nothing.
fn join(at: &mut Option<State>, state: &State) -> Option<State> {
    match at {
        None => *at = Some(state.clone()),
        Some(old) => {
            let mut changed = false;
            for (o, s) in old.iter_mut().zip(state) {
                if o.is_some() && o != s {
                    *o = None;
                    changed = true;
                }
            }
            if !changed {
                return None;
            }
        }
    }
    at.clone()
}

fn step(a: &Allocated, n: usize, state: &mut State) -> Result<(), String> {
    let mut bad = None;
    a.program.items[n].each(|v, role| {
        if matches!(role, Role::Use | Role::Mod) && state[place(a, v)] != Some(v) {
            bad = Some(format!(
                "item {n} ({:?}) reads v{} but its register holds {:?}",
                a.program.items[n],
                v.0,
                state[place(a, v)]
            ));
        }
    });
    let mut written = vec![];
    a.program.items[n].each(|v, role| {
        if matches!(role, Role::Def | Role::Mod | Role::Same) {
            written.push((place(a, v), v));
        }
    });
    for (p, v) in written {
        state[p] = Some(v);
    }
    bad.map_or(Ok(()), Err)
}

/// Compares the roles that selection gave operands with iced's table of what instructions read
/// and write.
///
/// # Errors
/// The first instruction where they differ.
pub fn audit(a: &Allocated) -> Result<(), String> {
    let mut factory = InstructionInfoFactory::new();
    for item in &a.program.items {
        let Item::Inst(i) = item else { continue };
        let x = encode_one(a, i);
        let (mut reads, mut writes): (Vec<Register>, Vec<Register>) = (vec![], vec![]);
        for u in factory.info(&x).used_registers() {
            let r = u.register().full_register();
            if r == Register::RSP || r.is_tmm() {
                continue;
            }
            use OpAccess::*;
            let changes = matches!(u.access(), Write | CondWrite | ReadWrite | ReadCondWrite);
            // what a conditional or partial write leaves of a register is read, in effect
            let keeps = changes && (u.access() == CondWrite || u.register().size() < 4);
            if keeps || matches!(u.access(), Read | CondRead | ReadWrite | ReadCondWrite) {
                reads.push(r);
            }
            if changes {
                writes.push(r);
            }
        }
        let (mut says_reads, mut says_writes, mut same) = (vec![], vec![], vec![]);
        item.each(|v, role| {
            let r = full_register(a, v);
            match role {
                Role::Use => says_reads.push(r),
                Role::Def => says_writes.push(r),
                Role::Mod => {
                    says_reads.push(r);
                    says_writes.push(r);
                }
                Role::Same => same.push(r),
            }
        });
        for v in [&mut reads, &mut writes, &mut says_reads, &mut says_writes] {
            v.sort();
            v.dedup();
        }
        reads.retain(|r| !same.contains(r) || says_reads.contains(r));
        if reads != says_reads || writes != says_writes {
            return Err(format!(
                "{x}: reads {reads:?}, said {says_reads:?}; writes {writes:?}, said {says_writes:?}"
            ));
        }
    }
    Ok(())
}
