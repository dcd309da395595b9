//! Tile registers on tensor cores: `mma.sync.m16n8k16` on bf16 or f16, sums in f32.
//!
//! A tile register is spread over a warp as fragments. Thread `t` is member `t mod 4` of group
//! `t / 4`. A tile of sums (16 × 16 f32) is two products wide: the thread has columns `2 member` and
//! the next of rows `group` and `group + 8` of each. Of the operands it has the same four (two, where
//! a row has no more than 8 pairs) pairs of the summed axis in a row, of rows `group` and `group + 8`
//! of one operand, of columns `group` and `group + 8` of the other. Which pairs a product takes for
//! its first is free as long as both operands agree: so a thread's are those that lie side by side in
//! memory, and a row is loaded by one instruction where its alignment allows.

use super::addr::Lane;
use super::ptx::Renderer;
use crate::kir::*;
use hub_abi::Dtype;
use std::collections::BTreeMap;

/// What a tile register is in products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Sums,
    Rows,
    Columns,
}

/// A tile register: its role, shape (rows, bytes of one), and the registers of its fragments.
#[derive(Clone, Debug)]
struct Tile {
    role: Role,
    rows: u8,
    bytes: u8,
    regs: Vec<String>,
}

impl Tile {
    /// Pairs of the summed axis, and how many of these a thread has.
    fn pairs(&self) -> (u8, u8) {
        let pairs = if self.role == Role::Columns { self.rows } else { self.bytes / 4 };
        (pairs, words(pairs))
    }
}

/// Tile registers as they are configured.
#[derive(Clone, Default, Debug)]
pub(super) struct Tiles(Vec<Option<Tile>>);

/// Pairs that each of four threads has.
fn words(pairs: u8) -> u8 {
    if pairs > 8 { 4 } else { 2 }
}

/// What products make of tile registers until they are configured anew; none where one would be two
/// things.
fn roles(body: &[Stmt], out: &mut BTreeMap<u8, Role>) -> Option<()> {
    for s in body {
        match s {
            Stmt::Inst(Inst::TileConfig { .. }) => return Some(()),
            Stmt::Inst(Inst::TileDot2 { acc, a, b, .. }) => {
                for (t, role) in [(acc, Role::Sums), (a, Role::Rows), (b, Role::Columns)] {
                    if *out.entry(*t).or_insert(role) != role {
                        return None;
                    }
                }
            }
            Stmt::Inst(_) => {}
            Stmt::For { body, .. } => roles(body, out)?,
            Stmt::If { then, els, .. } => {
                roles(then, out)?;
                roles(els, out)?;
            }
        }
    }
    Some(())
}

/// Whether tile registers are used as fragments can be.
///
/// # Errors
/// What cannot.
pub(super) fn fits(body: &[Stmt]) -> Result<(), String> {
    for (i, s) in body.iter().enumerate() {
        match s {
            Stmt::Inst(Inst::TileConfig { shapes }) => shaped(shapes, &body[i + 1..])?,
            Stmt::Inst(_) => {}
            Stmt::For { body, .. } => fits(body)?,
            Stmt::If { then, els, .. } => {
                fits(then)?;
                fits(els)?;
            }
        }
    }
    Ok(())
}

fn shaped(shapes: &[(u8, u8)], after: &[Stmt]) -> Result<(), String> {
    let mut found = BTreeMap::new();
    roles(after, &mut found).ok_or("a tile register that is two things")?;
    for (t, role) in found {
        let Some(&(rows, bytes)) = shapes.get(t as usize) else {
            return Err(format!("tile register {t} without a shape"));
        };
        let pairs = if role == Role::Columns { rows } else { bytes / 4 };
        let wide = role == Role::Rows || bytes == 64;
        if !wide || role != Role::Sums && !pairs.is_multiple_of(words(pairs)) {
            return Err(format!("a tile of {rows} × {bytes} bytes"));
        }
    }
    Ok(())
}

impl Renderer<'_> {
    /// Gives tile registers their shapes and clears the sums.
    pub(super) fn configure(&mut self, shapes: &[(u8, u8)], after: &[Stmt]) {
        let mut found = BTreeMap::new();
        roles(after, &mut found).expect("seen by `fits`");
        let mut tiles = vec![None; shapes.len()];
        for (t, role) in found {
            let (rows, bytes) = shapes[t as usize];
            let mut tile = Tile { role, rows, bytes, regs: vec![] };
            let (n, e) = match role {
                Role::Sums => (8, Elem::F32),
                _ => (2 * tile.pairs().1, Elem::I32),
            };
            tile.regs = (0..n).map(|_| self.temp(e)).collect();
            if role == Role::Sums {
                tile.regs.iter().for_each(|r| self.line(format!("mov.f32 {r}, 0f00000000")));
            }
            tiles[t as usize] = Some(tile);
        }
        self.tiles = Tiles(tiles);
    }

    fn tile_of(&self, t: u8) -> Option<&Tile> {
        self.tiles.0.get(t as usize)?.as_ref()
    }

    /// How threads differ in the address of a tile instruction.
    pub(super) fn fragment(&self, i: &Inst) -> Option<Lane> {
        Some(match i {
            Inst::TileLoad { tile, stride, .. } => {
                let t = self.tile_of(*tile)?;
                let n = i64::from(t.pairs().1);
                match t.role {
                    Role::Columns => Lane::Fragment(4.into(), stride.times(n)),
                    _ => Lane::Fragment(*stride, (4 * n).into()),
                }
            }
            Inst::TileStore { stride, .. } => Lane::Fragment(*stride, 8.into()),
            _ => return None,
        })
    }

    /// A tile instruction but for the configuration.
    pub(super) fn tile(&mut self, i: &Inst) {
        match i {
            Inst::TileZero { tile } => {
                let t = self.tile_of(*tile).expect("configured").clone();
                let zero = if t.role == Role::Sums { "mov.f32" } else { "mov.b32" };
                let value = if t.role == Role::Sums { "0f00000000" } else { "0" };
                t.regs.iter().for_each(|r| self.line(format!("{zero} {r}, {value}")));
            }
            Inst::TileDot2 { acc, a, b, dtype } => self.product([*acc, *a, *b], *dtype),
            Inst::TileLoad { tile, addr, stride, align } => {
                let lane = self.fragment(i);
                // One that no product uses is not loaded.
                let (Some(t), Some(lane)) = (self.tile_of(*tile).cloned(), lane) else { return };
                self.ordered(addr, false);
                match t.role {
                    Role::Columns => self.columns(&t, addr, *stride, lane),
                    _ => self.rows(&t, addr, *stride, lane, *align),
                }
            }
            Inst::TileStore { tile, addr, stride } => {
                let lane = self.fragment(i).expect("a store has one");
                let t = self.tile_of(*tile).expect("configured").clone();
                self.ordered(addr, true);
                self.sums(&t, addr, *stride, lane);
            }
            i => unreachable!("{i} is no tile instruction"),
        }
    }

    fn ordered(&mut self, addr: &Addr, store: bool) {
        if self.order.access(addr.base, store) {
            self.wait();
        }
    }

    /// `[register+offset]` of an address.
    fn place(&mut self, addr: &Addr, lane: Lane) -> (String, i64, &'static str) {
        let (at, offset) = self.address(addr, lane);
        (at, offset, if addr.base == Base::Scratch { "shared" } else { "global" })
    }

    /// A guard: threads whose `place` is below `n`, where not all of `of` are.
    fn below(&mut self, place: &str, n: i64, of: i64) -> String {
        if n >= of {
            return String::new();
        }
        let p = self.temp(Elem::Mask);
        self.line(format!("setp.lt.s32 {p}, {place}, {n}"));
        format!("@{p} ")
    }

    /// Both halves of a tile's rows: the first address, rows of it, registers.
    fn halves(addr: &Addr, stride: Coef, rows: u8) -> [(Addr, i64); 2] {
        let rows = i64::from(rows);
        [(addr.clone(), rows), (addr.clone().row(8, stride), rows - 8)]
    }

    fn rows(&mut self, t: &Tile, addr: &Addr, stride: Coef, lane: Lane, align: u8) {
        let (pairs, n) = t.pairs();
        let n = usize::from(n);
        for (half, (addr, rows)) in Self::halves(addr, stride, t.rows).into_iter().enumerate() {
            let regs = &t.regs[half * n..(half + 1) * n];
            let whole = rows >= 8 && usize::from(pairs) == 4 * n;
            if !whole {
                regs.iter().for_each(|r| self.line(format!("mov.b32 {r}, 0")));
            }
            if rows <= 0 {
                continue;
            }
            let on = self.both(rows, i64::from(pairs) / n as i64);
            let (at, offset, space) = self.place(&addr, lane);
            let each = usize::from(align / 4).clamp(1, n);
            for (i, part) in regs.chunks(each).enumerate() {
                let at = format!("[{at}{:+}]", offset + (4 * each * i) as i64);
                self.line(match each {
                    1 => format!("{on}ld.{space}.b32 {}, {at}", part[0]),
                    _ => format!("{on}ld.{space}.v{each}.b32 {{{}}}, {at}", part.join(", ")),
                });
            }
        }
    }

    /// A guard: threads of the first `rows` groups that are one of the first `members`.
    fn both(&mut self, rows: i64, members: i64) -> String {
        let (a, b) = (self.below("%group", rows, 8), self.below("%member", members, 4));
        if a.is_empty() || b.is_empty() {
            return a + &b;
        }
        let p = self.temp(Elem::Mask);
        let name = |s: &str| s.trim_start_matches('@').trim().to_string();
        self.line(format!("and.pred {p}, {}, {}", name(&a), name(&b)));
        format!("@{p} ")
    }

    fn columns(&mut self, t: &Tile, addr: &Addr, stride: Coef, lane: Lane) {
        let (pairs, n) = t.pairs();
        let on = self.below("%member", i64::from(pairs / n), 4);
        if !on.is_empty() {
            t.regs.iter().for_each(|r| self.line(format!("mov.b32 {r}, 0")));
        }
        for i in 0..n {
            let (at, offset, space) = self.place(&addr.clone().row(i.into(), stride), lane);
            for half in 0..2 {
                let r = &t.regs[usize::from(half * n + i)];
                let offset = offset + i64::from(half) * 32;
                self.line(format!("{on}ld.{space}.b32 {r}, [{at}{offset:+}]"));
            }
        }
    }

    fn sums(&mut self, t: &Tile, addr: &Addr, stride: Coef, lane: Lane) {
        let paired = addr.base == Base::Scratch;
        for (half, (addr, rows)) in Self::halves(addr, stride, t.rows).into_iter().enumerate() {
            if rows <= 0 {
                continue;
            }
            let on = self.below("%group", rows, 8);
            let (at, offset, space) = self.place(&addr, lane);
            for n in 0..2 {
                let two = &t.regs[4 * n + 2 * half..][..2];
                let offset = offset + 32 * n as i64;
                if paired {
                    let two = two.join(", ");
                    self.line(format!("{on}st.{space}.v2.f32 [{at}{offset:+}], {{{two}}}"));
                    continue;
                }
                for (i, r) in two.iter().enumerate() {
                    let offset = offset + 4 * i as i64;
                    self.line(format!("{on}st.{space}.f32 [{at}{offset:+}], {r}"));
                }
            }
        }
    }

    fn product(&mut self, [acc, a, b]: [u8; 3], dtype: Dtype) {
        let of = |t: u8| self.tile_of(t).expect("configured").clone();
        let (acc, a, b) = (of(acc), of(a), of(b));
        let d = if dtype == Dtype::F16 { "f16" } else { "bf16" };
        let n = usize::from(a.pairs().1);
        for (i, part) in acc.regs.chunks(4).enumerate() {
            for k in 0..n / 2 {
                let a = [0, n, 1, n + 1].map(|at| a.regs[2 * k + at].clone()).join(", ");
                let b = [0, 1].map(|at| b.regs[i * n + 2 * k + at].clone()).join(", ");
                let c = part.join(", ");
                self.line(format!(
                    "mma.sync.aligned.m16n8k16.row.col.f32.{d}.{d}.f32 {{{c}}}, {{{a}}}, {{{b}}}, {{{c}}}"
                ));
            }
        }
    }
}
