//! The interpreter: what a kernel means, and the checks that machine code cannot make.
//!
//! [`run`] executes tiles one after another on byte buffers and faults on any access outside them,
//! on reads of registers or scratch never written, on operands outside an instruction's domain, and
//! on races (a byte that one tile writes and another tile touches, or two workers of a tile between
//! two barriers).

mod eval;
mod memory;
mod team;
mod tile;

use super::inst::*;
use super::types::*;
use eval::Lanes;
use memory::Memory;
use std::ops::Range;

/// One entry of the argument block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// For a `Ptr`: byte `offset` of buffer `buf`.
    Buf {
        /// Index into the buffers given to [`run`].
        buf: usize,
        /// Bytes from its start.
        offset: i64,
    },
    /// For a `Size`.
    Size(i64),
    /// For the `Status`.
    Status,
}

/// What a kernel did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}, tile {tile}, `{at}`: {what}")]
pub struct Fault {
    /// The kernel's name.
    pub kernel: String,
    /// The tile that was running.
    pub tile: u64,
    /// The instruction.
    pub at: String,
    /// What happened.
    pub what: String,
}

/// Number of tiles of `k` under `args` (0 if an extent is negative).
pub fn tiles(k: &Kernel, args: &[Arg]) -> u64 {
    k.grid.iter().map(|g| size(args, g.extent).max(0) as u64).product()
}

fn size(args: &[Arg], c: Coef) -> i64 {
    let v = match c.param {
        None => 1,
        Some(p) => match args[p.0 as usize] {
            Arg::Size(n) => n,
            _ => panic!("argument {} is not a size", p.0),
        },
    };
    v.wrapping_mul(c.mul)
}

/// Runs tiles `range` of a verified kernel over `bufs`; returns the status word.
///
/// # Errors
/// The first fault.
///
/// # Panics
/// Where `args` does not match the kernel's parameters.
pub fn run(
    k: &Kernel,
    args: &[Arg],
    bufs: &mut [Vec<u8>],
    range: Range<u64>,
) -> Result<u32, Fault> {
    assert_eq!(args.len(), k.params.len(), "arguments of kernel {}", k.name);
    let mut m = Machine {
        k,
        args,
        mem: Memory::new(bufs, k.scratch_bytes as usize, k.team.is_some()),
        regs: vec![],
        axes: vec![0; k.axes.len()],
        status: 0,
        tiles: vec![],
        at: "",
        tile: 0,
        others: vec![],
    };
    for tile in range {
        m.tile = tile;
        m.regs = vec![None; k.regs.len()];
        m.tiles.clear();
        m.mem.begin_tile(tile);
        let mut rest = tile;
        for g in k.grid.iter().rev() {
            let n = size(args, g.extent).max(1) as u64;
            m.axes[g.axis.0 as usize] = (rest % n) as i64;
            rest /= n;
        }
        if let Err((at, what)) = m.body(&k.body) {
            return Err(Fault { kernel: k.name.clone(), tile, at, what });
        }
    }
    Ok(m.status)
}

type Step<T> = Result<T, (String, String)>;

struct Machine<'a> {
    k: &'a Kernel,
    args: &'a [Arg],
    mem: Memory<'a>,
    regs: Vec<Option<Lanes>>,
    axes: Vec<i64>,
    status: u32,
    tiles: Vec<tile::Tile>,
    at: &'static str,
    tile: u64,
    /// The state of a team's workers that do not run.
    others: Vec<team::Worker>,
}

impl Machine<'_> {
    fn stmts(&mut self, stmts: &[Stmt]) -> Step<()> {
        for s in stmts {
            match s {
                Stmt::Inst(i) => self.inst(i).map_err(|e| (i.to_string(), e))?,
                Stmt::For { axis, extent, body, .. } => {
                    let n = self.scalar(*extent).map_err(|e| ("for".to_string(), e))?;
                    for x in 0..n {
                        self.axes[axis.0 as usize] = x;
                        self.stmts(body)?;
                    }
                }
                Stmt::If { cond, then, els } => {
                    let a = self.scalar(cond.a).map_err(|e| ("if".to_string(), e))?;
                    let b = self.scalar(cond.b).map_err(|e| ("if".to_string(), e))?;
                    let taken = eval::cmp(cond.op, Elem::I64, a as u64, b as u64);
                    self.stmts(if taken { then } else { els })?
                }
            }
        }
        Ok(())
    }

    fn get(&self, r: Reg) -> Result<Lanes, String> {
        self.regs[r.0 as usize].ok_or_else(|| format!("{r} is read before it is assigned"))
    }

    fn set(&mut self, r: Reg, v: Lanes) {
        self.regs[r.0 as usize] = Some(v)
    }

    fn scalar(&self, s: Scalar) -> Result<i64, String> {
        Ok(match s {
            Scalar::Const(n) => n,
            Scalar::Param(p) => size(self.args, p.into()),
            Scalar::Reg(r) => self.get(r)?[0] as i64,
        })
    }

    fn affine(&self, a: &Affine) -> Result<i64, String> {
        let mut sum = a.offset;
        for (v, c) in &a.terms {
            let v = match v {
                Var::One => 1,
                Var::Axis(x) => self.axes[x.0 as usize],
                Var::Reg(r) => self.get(*r)?[0] as i64,
            };
            sum = sum.wrapping_add(v.wrapping_mul(size(self.args, *c)));
        }
        Ok(sum)
    }

    /// Buffer (`None`: scratch) and byte position.
    fn addr(&self, a: &Addr) -> Result<(Option<usize>, i64), String> {
        let at = self.affine(&a.at)?;
        match a.base {
            Base::Scratch => Ok((None, at)),
            Base::Param(p) => match self.args[p.0 as usize] {
                Arg::Buf { buf, offset } => Ok((Some(buf), at.wrapping_add(offset))),
                _ => panic!("argument {} is not a buffer", p.0),
            },
        }
    }

    fn on(&self, mask: Option<Reg>) -> Result<Lanes, String> {
        mask.map_or(Ok([1; MAX_LANES]), |m| self.get(m))
    }

    fn inst(&mut self, i: &Inst) -> Result<(), String> {
        self.at = "";
        if let Some(done) = self.tile_inst(i) {
            return done;
        }
        if i.addr().is_some() {
            return self.memory_inst(i);
        }
        match i {
            Inst::Index { dst, at } => {
                let v = self.affine(at)?;
                self.set(*dst, [v as u64; MAX_LANES]);
                Ok(())
            }
            Inst::Lanes { dst, count } => {
                let n = self.scalar(*count)?;
                self.set(*dst, std::array::from_fn(|i| ((i as i64) < n) as u64));
                Ok(())
            }
            Inst::SetStatus { mask } => {
                let n = self.k.ty(*mask).lanes as usize;
                if self.get(*mask)?[..n].iter().any(|l| *l != 0) {
                    self.status = 1;
                }
                Ok(())
            }
            Inst::CheckIndex { dst, idx, bound } => self.check_index(*dst, *idx, *bound),
            _ => {
                let dst = i.dst().ok_or("no result")?;
                let v = eval::value(self.k, i, |r| self.get(r))?;
                self.set(dst, v);
                Ok(())
            }
        }
    }

    fn check_index(&mut self, dst: Reg, idx: Reg, bound: Scalar) -> Result<(), String> {
        let (t, n, v) = (self.k.ty(dst), self.scalar(bound)?, self.get(idx)?);
        let mut out = v;
        for lane in &mut out[..t.lanes as usize] {
            let signed = eval::signed(t.elem, *lane);
            let wrapped = if signed < 0 { signed.wrapping_add(n) } else { signed };
            let ok = wrapped >= 0 && wrapped < n;
            if !ok {
                self.status = 1;
            }
            *lane = eval::int_bits(t.elem, if ok { wrapped } else { 0 });
        }
        self.set(dst, out);
        Ok(())
    }

    fn memory_inst(&mut self, i: &Inst) -> Result<(), String> {
        use Inst::*;
        let none = Coef::from(0);
        let (reg, addr, step, dtype, mask, idx) = match i {
            Load { dst, addr, dtype, mask } => {
                (*dst, addr, Coef::from(dtype.size() as i64), *dtype, *mask, None)
            }
            LoadSplat { dst, addr, dtype } => (*dst, addr, none, *dtype, None, None),
            LoadStrided { dst, addr, stride, dtype, mask } => {
                (*dst, addr, *stride, *dtype, *mask, None)
            }
            Gather { dst, addr, idx, stride, dtype, mask } => {
                (*dst, addr, *stride, *dtype, *mask, Some(*idx))
            }
            Store { src, addr, dtype, mask } => {
                (*src, addr, Coef::from(dtype.size() as i64), *dtype, *mask, None)
            }
            StoreStrided { src, addr, stride, dtype, mask } => {
                (*src, addr, *stride, *dtype, *mask, None)
            }
            _ => return Ok(()),
        };
        let ((buf, at), step) = (self.addr(addr)?, size(self.args, step));
        let (t, on) = (self.k.ty(reg), self.on(mask)?);
        let store = matches!(i, Store { .. } | StoreStrided { .. });
        let mut lanes = if store { self.get(reg)? } else { [0; MAX_LANES] };
        let idx = match idx {
            Some(r) => Some((self.k.ty(r).elem, self.get(r)?)),
            None => None,
        };
        for (l, lane) in lanes.iter_mut().enumerate().take(t.lanes as usize) {
            if on[l] == 0 {
                continue;
            }
            let n = idx.map_or(l as i64, |(e, v)| eval::signed(e, v[l]));
            let at = at.wrapping_add(n.wrapping_mul(step));
            if store {
                let bits = memory::narrow(t.elem, dtype, *lane);
                self.mem.write(buf, at, dtype.size(), bits)?;
            } else {
                *lane = memory::widen(t.elem, dtype, self.mem.read(buf, at, dtype.size())?);
            }
        }
        if !store {
            self.set(reg, lanes);
        }
        Ok(())
    }
}
