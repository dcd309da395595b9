//! Register allocation: liveness over the flat program, linear scan over whole live intervals.
//!
//! Vectors and masks are never spilled. General registers are: loop state that inner loops do not
//! touch goes to the frame, every use reloading it, until the rest fits.

use super::lir::*;
use crate::target::{Target, Tier};
use std::collections::HashMap;

/// A program with physical registers.
#[derive(Clone, Debug)]
pub struct Allocated {
    /// The instructions, spills included.
    pub program: Program,
    /// Physical register of each virtual one (index within its class).
    pub phys: Vec<u8>,
    /// Virtual registers that are used at all.
    pub used: Vec<bool>,
}

/// General registers by preference: those that a function may overwrite first.
/// Numbers are the machine's (rax 0, rcx 1, rdx 2, rbx 3, rsp 4, …).
const GPRS: [u8; 15] = [0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 5, 12, 13, 14, 15];

#[derive(Clone, Copy, Debug)]
struct Interval {
    v: V,
    start: u32,
    end: u32,
    weight: f32,
}

/// Gives every virtual register a physical one.
///
/// # Errors
/// The class that does not fit: `vector` or `mask`.
pub fn allocate(mut p: Program, t: &Target) -> Result<Allocated, &'static str> {
    let mut fixed = vec![false; p.classes.len()];
    loop {
        let intervals = intervals(&p, &fixed);
        match scan(&p, &intervals, t)? {
            Ok(phys) => {
                let mut used = vec![false; p.classes.len()];
                intervals.iter().for_each(|i| used[i.v.0 as usize] = true);
                return Ok(Allocated { program: p, phys, used });
            }
            Err(spilled) => spill(&mut p, &spilled, &mut fixed),
        }
    }
}

/// A set of virtual registers.
#[derive(Clone, PartialEq, Default)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, v: V) {
        self.0[v.0 as usize / 64] |= 1 << (v.0 % 64)
    }
    fn remove(&mut self, v: V) {
        self.0[v.0 as usize / 64] &= !(1 << (v.0 % 64))
    }
    fn union(&mut self, o: &Set) {
        self.0.iter_mut().zip(&o.0).for_each(|(a, b)| *a |= b)
    }
    fn each(&self, mut f: impl FnMut(V)) {
        for (n, w) in self.0.iter().enumerate() {
            let mut w = *w;
            while w != 0 {
                f(V(n as u32 * 64 + w.trailing_zeros()));
                w &= w - 1;
            }
        }
    }
}

/// Live intervals: instruction `i` reads at `2i` and writes at `2i + 1`.
fn intervals(p: &Program, fixed: &[bool]) -> Vec<Interval> {
    let words = p.classes.len().div_ceil(64);
    let mut at_label = vec![Set(vec![0; words]); p.labels as usize];
    loop {
        let before = at_label.clone();
        walk(p, &mut at_label, words, &mut |_, _| {});
        if before == at_label {
            break;
        }
    }
    let mut range = vec![(u32::MAX, 0u32); p.classes.len()];
    let mut weight = vec![0f32; p.classes.len()];
    let mut touch = |v: V, pos: u32| {
        let r = &mut range[v.0 as usize];
        *r = (r.0.min(pos), r.1.max(pos));
    };
    walk(p, &mut at_label, words, &mut |i, live| {
        live.each(|v| {
            touch(v, 2 * i as u32);
            touch(v, 2 * i as u32 + 1);
        })
    });
    for (i, item) in p.items.iter().enumerate() {
        item.each(|v, role| {
            weight[v.0 as usize] += 8f32.powi(p.depth[i].min(8) as i32);
            match role {
                Role::Def | Role::Same => touch(v, 2 * i as u32 + 1),
                Role::Use => touch(v, 2 * i as u32),
                Role::Mod => {
                    touch(v, 2 * i as u32);
                    touch(v, 2 * i as u32 + 1);
                }
            }
        })
    }
    let mut out: Vec<Interval> = range
        .iter()
        .enumerate()
        .filter(|(_, r)| r.0 <= r.1)
        .map(|(n, r)| Interval {
            v: V(n as u32),
            start: r.0,
            end: r.1,
            weight: if fixed[n] { f32::INFINITY } else { weight[n] / (r.1 - r.0 + 1) as f32 },
        })
        .collect();
    out.sort_by_key(|i| (i.start, i.v));
    out
}

/// One backward pass; `f` sees the live set at labels and branches.
fn walk(p: &Program, at_label: &mut [Set], words: usize, f: &mut dyn FnMut(usize, &Set)) {
    let mut live = Set(vec![0; words]);
    for (i, item) in p.items.iter().enumerate().rev() {
        if item.ends() {
            live = Set(vec![0; words]);
        }
        if let Some(l) = item.target() {
            live.union(&at_label[l as usize]);
            f(i, &live);
        }
        if let Item::Label(l) = item {
            f(i, &live);
            at_label[*l as usize] = live.clone();
        }
        item.each(|v, role| {
            if matches!(role, Role::Def | Role::Same) {
                live.remove(v)
            }
        });
        item.each(|v, role| {
            if matches!(role, Role::Use | Role::Mod) {
                live.insert(v)
            }
        });
    }
}

/// Physical registers, or the general registers to spill.
fn scan(
    p: &Program,
    intervals: &[Interval],
    t: &Target,
) -> Result<Result<Vec<u8>, Vec<V>>, &'static str> {
    let mut hints: HashMap<V, V> = HashMap::new();
    for item in &p.items {
        if let Some((s, d)) = item.copy() {
            hints.entry(d).or_insert(s);
        }
    }
    let vecs = if t.tier >= Tier::Avx512 { 32 } else { 16 };
    let vec_order: Vec<u8> = (0..vecs.min(t.vector_regs as u8)).collect();
    let masks: Vec<u8> = (1..8).collect();
    let mut phys = vec![u8::MAX; p.classes.len()];
    let mut active: Vec<Interval> = vec![];
    let mut taken = [0u64; 3];
    let mut spilled = vec![];
    for cur in intervals {
        active.retain(|a| {
            let live = a.end >= cur.start;
            if !live {
                taken[class(p, a.v)] &= !(1 << phys[a.v.0 as usize]);
            }
            live
        });
        let c = class(p, cur.v);
        let order: &[u8] = [&GPRS[..], &vec_order, &masks][c];
        let hint = hints.get(&cur.v).map(|h| phys[h.0 as usize]).filter(|h| order.contains(h));
        let free = |r: &u8| taken[c] & (1 << r) == 0;
        let pick = hint.filter(free).or_else(|| order.iter().copied().find(free));
        let r = match pick {
            Some(r) => r,
            None if c != 0 => return Err(if c == 1 { "vector" } else { "mask" }),
            None => {
                let worst = active
                    .iter()
                    .enumerate()
                    .filter(|(_, a)| class(p, a.v) == 0)
                    .min_by(|a, b| a.1.weight.total_cmp(&b.1.weight))
                    .map(|(n, a)| (n, *a));
                match worst {
                    Some((n, w)) if w.weight < cur.weight => {
                        active.remove(n);
                        spilled.push(w.v);
                        phys[w.v.0 as usize]
                    }
                    _ => {
                        assert!(cur.weight.is_finite(), "one instruction needs too many registers");
                        spilled.push(cur.v);
                        continue;
                    }
                }
            }
        };
        phys[cur.v.0 as usize] = r;
        taken[c] |= 1 << r;
        active.push(*cur);
    }
    Ok(if spilled.is_empty() { Ok(phys) } else { Err(spilled) })
}

fn class(p: &Program, v: V) -> usize {
    p.classes[v.0 as usize] as usize
}

/// Moves registers to the frame: each use reads a fresh register loaded just before, each
/// assignment stores one just after.
fn spill(p: &mut Program, spilled: &[V], fixed: &mut Vec<bool>) {
    let mut slot = HashMap::new();
    for v in spilled {
        slot.insert(*v, p.frame);
        p.frame += 8;
    }
    let (items, depth) = (std::mem::take(&mut p.items), std::mem::take(&mut p.depth));
    for (mut item, d) in items.into_iter().zip(depth) {
        let mut roles: Vec<(V, bool, bool)> = vec![];
        item.each(|v, role| {
            if slot.contains_key(&v) {
                let (reads, writes) = (
                    matches!(role, Role::Use | Role::Mod),
                    matches!(role, Role::Def | Role::Mod | Role::Same),
                );
                match roles.iter_mut().find(|r| r.0 == v) {
                    Some(r) => *r = (v, r.1 | reads, r.2 | writes),
                    None => roles.push((v, reads, writes)),
                }
            }
        });
        let mut after = vec![];
        for (v, reads, writes) in roles {
            p.classes.push(Class::Gpr);
            fixed.push(true);
            let t = V(p.classes.len() as u32 - 1);
            let m = Op::M(Mem::frame(slot[&v]));
            let wide = |ops: [Op; 2], code| {
                Item::Inst(MInst { code, ops: ops.to_vec(), mask: None, zeroing: false })
            };
            if reads {
                let load = [Op::R(t, W::B64, Role::Def), m];
                p.items.push(wide(load, iced_x86::Code::Mov_r64_rm64));
                p.depth.push(d);
            }
            if writes {
                let store = [m, Op::R(t, W::B64, Role::Use)];
                after.push(wide(store, iced_x86::Code::Mov_rm64_r64));
            }
            rename(&mut item, v, t);
        }
        p.items.push(item);
        p.depth.push(d);
        for a in after {
            p.items.push(a);
            p.depth.push(d);
        }
    }
}

fn rename(item: &mut Item, from: V, to: V) {
    let one = |v: &mut V| {
        if *v == from {
            *v = to
        }
    };
    match item {
        Item::Label(_) => {}
        Item::Div { dst, a, b, .. } => [dst, a, b].into_iter().for_each(one),
        Item::Inst(i) => {
            for o in &mut i.ops {
                match o {
                    Op::R(v, ..) => one(v),
                    Op::M(m) => {
                        if let MBase::V(v) = &mut m.base {
                            one(v)
                        }
                        if let Some((v, _)) = &mut m.index {
                            one(v)
                        }
                    }
                    _ => {}
                }
            }
            i.mask.iter_mut().for_each(one);
        }
    }
}
