//! Blocks of warps, one instruction of a warp at a time.

use super::memory::{Memory, Touch};
use super::parse::{Do, Entry, Inst, Operand, Space, Ty};
use super::{Fault, Lanes, WARP, scalar};

/// A warp at work.
struct Warp {
    regs: Vec<Lanes>,
    /// Threads in which a register has a value.
    known: Vec<u32>,
    at: usize,
    done: bool,
    /// It waits at the block's barrier.
    waits: bool,
    /// Its number in the launch, and barriers passed.
    id: u64,
    epoch: u32,
    first: usize,
}

/// A byte of shared memory.
#[derive(Clone, Copy, Default)]
struct Cell {
    byte: Option<u8>,
    touch: Touch,
}

struct Block<'e, 'm, 'r> {
    e: &'e Entry,
    args: &'e [u64],
    mem: &'m mut Memory<'r>,
    shared: Vec<Cell>,
    block: u64,
}

impl Entry {
    /// Runs as many blocks as `tiles` need.
    ///
    /// # Errors
    /// The first fault.
    pub fn run(&self, args: &[u64], tiles: u64, mem: &mut Memory<'_>) -> Result<(), Fault> {
        self.blocks(args, tiles.div_ceil(self.per_block.max(1) as u64), mem)
    }

    /// Runs so many blocks.
    ///
    /// # Errors
    /// The first fault.
    pub fn blocks(&self, args: &[u64], blocks: u64, mem: &mut Memory<'_>) -> Result<(), Fault> {
        let warps = (self.threads / WARP) as u64;
        if args.len() * 8 > self.args {
            return Err(Fault { line: 0, what: format!("{} arguments", args.len()) });
        }
        for block in 0..blocks {
            let shared = vec![Cell::default(); self.shared];
            Block { e: self, args, mem, shared, block }.run(warps)?;
        }
        Ok(())
    }
}

impl Block<'_, '_, '_> {
    fn run(&mut self, warps: u64) -> Result<(), Fault> {
        let mut all: Vec<Warp> = (0..warps)
            .map(|w| Warp {
                regs: vec![[0; WARP]; self.e.regs],
                known: vec![0; self.e.regs],
                at: 0,
                done: false,
                waits: false,
                id: self.block * warps + w,
                epoch: 0,
                first: w as usize * WARP,
            })
            .collect();
        loop {
            for w in all.iter_mut().filter(|w| !w.done) {
                w.waits = false;
                while !w.done && !w.waits {
                    let i = &self.e.code[w.at];
                    w.at += 1;
                    self.step(w, i).map_err(|what| Fault { line: i.line, what })?;
                }
            }
            if all.iter().all(|w| w.done) {
                return Ok(());
            }
            // What was touched before the block's barrier is in order with what comes after.
            self.shared.iter_mut().for_each(|c| c.touch = Touch::default());
            if all.iter().any(|w| w.done) {
                let line = all.iter().find(|w| !w.done).map_or(0, |w| self.e.code[w.at - 1].line);
                return Err(Fault { line, what: "a barrier that some warps do not reach".into() });
            }
        }
    }

    fn get(&self, w: &Warp, o: &Operand, on: u32) -> Result<Lanes, String> {
        Ok(match *o {
            Operand::Reg(r) => {
                if w.known[r] & on != on {
                    return Err(format!("register {r} is read before it is written"));
                }
                w.regs[r]
            }
            Operand::Imm(x) => [x; WARP],
            Operand::Thread => std::array::from_fn(|t| (w.first + t) as u64),
            Operand::Block => [self.block; WARP],
            Operand::At(None, n) => [n as u64; WARP],
            Operand::At(Some(r), n) => {
                let base = self.get(w, &Operand::Reg(r), on)?;
                base.map(|b| b.wrapping_add_signed(n))
            }
        })
    }

    fn set(&self, w: &mut Warp, r: usize, on: u32, f: impl Fn(usize) -> u64) {
        for t in (0..WARP).filter(|t| on >> t & 1 == 1) {
            w.regs[r][t] = f(t);
        }
        w.known[r] |= on;
    }

    fn step(&mut self, w: &mut Warp, i: &Inst) -> Result<(), String> {
        let mut on = u32::MAX;
        if let Some((p, not)) = i.guard {
            let v = self.get(w, &Operand::Reg(p), on)?;
            on = (0..WARP).fold(0, |m, t| m | u32::from((v[t] != 0) != not) << t);
        }
        if let Do::Mma(half) = i.op {
            return self.mma(w, i, half, on);
        }
        let mut v = [[0; WARP]; 3];
        for (o, v) in i.src.iter().zip(&mut v) {
            *v = self.get(w, o, on)?;
        }
        match &i.op {
            Do::Branch(to) => match on {
                0 => {}
                u32::MAX => w.at = *to,
                _ => return Err("a branch that divides the warp".into()),
            },
            Do::Return => w.done = true,
            Do::WarpBarrier => w.epoch += 1,
            Do::BlockBarrier => {
                w.epoch += 1;
                w.waits = true;
            }
            Do::Mov => self.set(w, i.dst[0], on, |t| v[0][t]),
            Do::Pack => self.set(w, i.dst[0], on, |t| v[0][t] & 0xffff_ffff | v[1][t] << 32),
            Do::Unpack => {
                self.set(w, i.dst[0], on, |t| v[0][t] & 0xffff_ffff);
                self.set(w, i.dst[1], on, |t| v[0][t] >> 32);
            }
            Do::Selp => {
                let r: Lanes =
                    std::array::from_fn(|t| if v[2][t] != 0 { v[0][t] } else { v[1][t] });
                self.set(w, i.dst[0], on, |t| r[t]);
            }
            Do::MadWide => {
                let wide = |t: usize| (v[0][t] as i32 as i64).wrapping_mul(v[1][t] as i32 as i64);
                self.set(w, i.dst[0], on, |t| v[2][t].wrapping_add(wide(t) as u64));
            }
            Do::Shfl(bfly) => {
                let from = |t: usize| match bfly {
                    true => t ^ (v[1][t] as usize & 31),
                    false => v[1][t] as usize & 31,
                };
                self.set(w, i.dst[0], on, |t| v[0][from(t)]);
            }
            Do::Load(space, ty) => self.load(w, i.dst[0], on, (*space, *ty), &v[0])?,
            Do::Store(space, ty) => self.store(w, on, (*space, *ty), &v[0], &v[1])?,
            Do::LoadMany(space, ty, n) => {
                aligned(&v[0], on, n * ty.size())?;
                for k in 0..*n {
                    let at = v[0].map(|a| a + (k * ty.size()) as u64);
                    self.load(w, i.dst[k], on, (*space, *ty), &at)?;
                }
            }
            Do::StoreMany(space, ty) => {
                aligned(&v[0], on, 2 * ty.size())?;
                self.store(w, on, (*space, *ty), &v[0], &v[1])?;
                let at = v[0].map(|a| a + ty.size() as u64);
                self.store(w, on, (*space, *ty), &at, &v[2])?;
            }
            Do::Calc(f) => self.set(w, i.dst[0], on, |t| f(v[0][t], v[1][t], v[2][t])),
            _ => self.values(w, i, on, &v)?,
        }
        Ok(())
    }

    /// The product of a 16 × 16 and a 16 × 8 fragment, added to a 16 × 8 one: thread `4 g + m` has of
    /// the first the pairs at (g, 2 m), (g + 8, 2 m), (g, 2 m + 8), (g + 8, 2 m + 8), of the second those
    /// at (2 m, g), (2 m + 8, g), of the sums (g, 2 m), (g, 2 m + 1) and the same of row g + 8 (PTX ISA,
    /// matrix fragments of mma.m16n8k16). Sums are exact and rounded once.
    fn mma(&self, w: &mut Warp, i: &Inst, half: bool, on: u32) -> Result<(), String> {
        if on != u32::MAX {
            return Err("a product by a part of the warp".into());
        }
        let v: Vec<Lanes> = i.src.iter().map(|o| self.get(w, o, on)).collect::<Result<_, _>>()?;
        let pair = |x: u64, k: usize| {
            let bits = (x >> (16 * k)) as u16;
            match half {
                true => half::f16::from_bits(bits).to_f64(),
                false => half::bf16::from_bits(bits).to_f64(),
            }
        };
        let mut a = [[0f64; 16]; 16];
        let mut b = [[0f64; 8]; 16];
        let places = (0..WARP).flat_map(|t| [(t, 0), (t, 1)]);
        for (t, k) in places {
            let (g, m) = (t / 4, t % 4);
            for (r, x) in v[..4].iter().enumerate() {
                a[g + 8 * (r % 2)][2 * m + k + 8 * (r / 2)] = pair(x[t], k);
            }
            for (r, x) in v[4..6].iter().enumerate() {
                b[2 * m + k + 8 * r][g] = pair(x[t], k);
            }
        }
        for r in 0..4 {
            let sum = |t: usize| {
                let (row, col) = (t / 4 + 8 * (r / 2), 2 * (t % 4) + r % 2);
                let c = f64::from(f32::from_bits(v[6 + r][t] as u32));
                let sum: f64 = c + (0..16).map(|k| a[row][k] * b[k][col]).sum::<f64>();
                u64::from((sum as f32).to_bits())
            };
            self.set(w, i.dst[r], on, sum);
        }
        Ok(())
    }

    fn values(&self, w: &mut Warp, i: &Inst, on: u32, v: &[Lanes]) -> Result<(), String> {
        let mut out = [0; WARP];
        for t in (0..WARP).filter(|t| on >> t & 1 == 1) {
            let r = match &i.op {
                Do::Setp(cmp, ty) => scalar::compare(cmp, *ty, v[0][t], v[1][t]).map(u64::from),
                Do::Cvt(to, from, round) => scalar::convert(*to, *from, round, v[0][t]),
                _ => None,
            };
            out[t] = r.ok_or_else(|| format!("no such instruction: {:?}", i.op))?;
        }
        self.set(w, i.dst[0], on, |t| out[t]);
        Ok(())
    }

    fn load(
        &mut self,
        w: &mut Warp,
        dst: usize,
        on: u32,
        (space, ty): (Space, Ty),
        at: &Lanes,
    ) -> Result<(), String> {
        let mut out = [0; WARP];
        let size = ty.size();
        for t in (0..WARP).filter(|t| on >> t & 1 == 1) {
            let by = (w.id, t as u8, w.epoch);
            let raw = match space {
                Space::Param => {
                    let i = at[t] as usize / 8;
                    *self.args.get(i).ok_or_else(|| format!("argument {i}"))?
                }
                Space::Const => {
                    let i = at[t] as usize;
                    u64::from(*self.e.consts.get(i).ok_or_else(|| format!("constant {i}"))?)
                }
                Space::Global => self.mem.read(at[t], size, by)?,
                Space::Shared => self.shared_read(at[t], size, by)?,
            };
            out[t] = match ty {
                Ty::S8 | Ty::S16 => scalar::signed(ty, raw) as u64,
                _ => raw,
            };
        }
        self.set(w, dst, on, |t| out[t]);
        Ok(())
    }

    fn store(
        &mut self,
        w: &Warp,
        on: u32,
        (space, ty): (Space, Ty),
        at: &Lanes,
        x: &Lanes,
    ) -> Result<(), String> {
        let size = ty.size();
        for t in (0..WARP).filter(|t| on >> t & 1 == 1) {
            let by = (w.id, t as u8, w.epoch);
            match space {
                Space::Global => self.mem.write(at[t], size, x[t], by)?,
                Space::Shared => {
                    let from = self.shared_range(at[t], size)?;
                    for (b, c) in x[t].to_le_bytes().iter().zip(&mut self.shared[from..from + size])
                    {
                        c.touch.note(by, true, self.mem.again)?;
                        c.byte = Some(*b);
                    }
                }
                _ => return Err("a store to memory that is only read".into()),
            }
        }
        Ok(())
    }

    fn shared_range(&self, at: u64, size: usize) -> Result<usize, String> {
        let inside = at.is_multiple_of(size as u64) && at as usize + size <= self.shared.len();
        inside.then_some(at as usize).ok_or_else(|| format!("{size} shared bytes at {at}"))
    }

    fn shared_read(&mut self, at: u64, size: usize, by: (u64, u8, u32)) -> Result<u64, String> {
        let from = self.shared_range(at, size)?;
        let mut out = [0; 8];
        for (o, c) in out.iter_mut().zip(&mut self.shared[from..from + size]) {
            c.touch.note(by, false, false)?;
            *o = c.byte.ok_or_else(|| format!("shared byte {at} is read before it is written"))?;
        }
        Ok(u64::from_le_bytes(out))
    }
}

/// Addresses of several values side by side are multiples of the size of all.
fn aligned(at: &Lanes, on: u32, size: usize) -> Result<(), String> {
    let bad = (0..WARP).find(|t| on >> t & 1 == 1 && !at[*t].is_multiple_of(size as u64));
    bad.map_or(Ok(()), |t| Err(format!("{size} bytes at {:#x}, which is not aligned", at[t])))
}
