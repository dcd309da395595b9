//! Buffers with bounds, initialisation and race checks, and element conversion at memory.

use crate::kir::Elem;
use half::{bf16, f16};
use hub_abi::Dtype;

/// Who touched a byte: 0 nobody, `MANY` several tiles, otherwise tile + 1.
#[derive(Clone, Copy, Default)]
struct Touch {
    writer: u64,
    reader: u64,
}

const MANY: u64 = u64::MAX;

pub(super) struct Memory<'a> {
    bufs: &'a mut [Vec<u8>],
    touch: Vec<Vec<Touch>>,
    scratch: Vec<Option<u8>>,
    /// Which workers touched a byte of scratch since the last barrier.
    shared: Vec<Touch>,
    tile: u64,
    /// The worker of the tile's team that runs, and one more.
    worker: u64,
}

impl<'a> Memory<'a> {
    /// These buffers, and so much scratch, of a `team` or a worker alone.
    pub(super) fn new(bufs: &'a mut [Vec<u8>], scratch: usize, team: bool) -> Memory<'a> {
        let touch = bufs.iter().map(|b| vec![Touch::default(); b.len()]).collect();
        let shared = vec![Touch::default(); if team { scratch } else { 0 }];
        Memory { bufs, touch, scratch: vec![None; scratch], shared, tile: 0, worker: 0 }
    }

    pub(super) fn begin_tile(&mut self, tile: u64) {
        self.tile = tile + 1;
        self.scratch.fill(None);
        self.worker = 0;
        self.barrier();
    }

    /// Another worker of the tile goes on. To other tiles and to other workers it is a tile of its own.
    pub(super) fn begin_worker(&mut self, worker: u64) {
        let tile = self.tile & 0xffff_ffff;
        self.worker = worker + 1;
        self.tile = tile | self.worker << 32;
    }

    /// All workers of the tile have waited for one another.
    pub(super) fn barrier(&mut self) {
        self.shared.fill(Touch::default());
    }

    /// Notes that the worker touches bytes of scratch.
    fn share(&mut self, at: usize, size: usize, write: bool) -> Result<(), String> {
        if self.worker == 0 {
            return Ok(());
        }
        for (i, t) in self.shared[at..at + size].iter_mut().enumerate() {
            let apart = |w: u64| w != 0 && w != self.worker;
            if apart(t.writer) || write && apart(t.reader) {
                return Err(format!("race: two workers at byte {} of scratch", at + i));
            }
            let slot = if write { &mut t.writer } else { &mut t.reader };
            *slot = if apart(*slot) { MANY } else { self.worker };
        }
        Ok(())
    }

    fn range(len: usize, at: i64, size: usize) -> Result<usize, String> {
        let ok = at >= 0 && (at as u64).saturating_add(size as u64) <= len as u64;
        if ok { Ok(at as usize) } else { Err(format!("bytes {at}..+{size} outside 0..{len}")) }
    }

    /// `size` bytes at `at` of a buffer (`None`: scratch), little endian.
    pub(super) fn read(&mut self, buf: Option<usize>, at: i64, size: usize) -> Result<u64, String> {
        let mut bits = [0u8; 8];
        match buf {
            None => {
                let s = Self::range(self.scratch.len(), at, size)?;
                self.share(s, size, false)?;
                for (i, b) in bits[..size].iter_mut().enumerate() {
                    *b = self.scratch[s + i]
                        .ok_or_else(|| format!("scratch byte {} is not initialised", s + i))?;
                }
            }
            Some(n) => {
                let s = Self::range(self.bufs[n].len(), at, size)?;
                bits[..size].copy_from_slice(&self.bufs[n][s..s + size]);
                for t in &mut self.touch[n][s..s + size] {
                    if t.writer != 0 && t.writer != self.tile {
                        return Err(format!("race: tile {} wrote byte {s}", t.writer - 1));
                    }
                    t.reader = match t.reader {
                        0 => self.tile,
                        r if r == self.tile => r,
                        _ => MANY,
                    };
                }
            }
        }
        Ok(u64::from_le_bytes(bits))
    }

    /// Writes the low `size` bytes of `bits`.
    pub(super) fn write(
        &mut self,
        buf: Option<usize>,
        at: i64,
        size: usize,
        bits: u64,
    ) -> Result<(), String> {
        let bytes = bits.to_le_bytes();
        match buf {
            None => {
                let s = Self::range(self.scratch.len(), at, size)?;
                self.share(s, size, true)?;
                for (to, b) in self.scratch[s..s + size].iter_mut().zip(bytes) {
                    *to = Some(b);
                }
            }
            Some(n) => {
                let s = Self::range(self.bufs[n].len(), at, size)?;
                self.bufs[n][s..s + size].copy_from_slice(&bytes[..size]);
                for t in &mut self.touch[n][s..s + size] {
                    let others = [t.writer, t.reader].iter().any(|w| *w != 0 && *w != self.tile);
                    if others {
                        return Err(format!("race: another tile touched byte {s}"));
                    }
                    t.writer = self.tile;
                }
            }
        }
        Ok(())
    }
}

/// A register lane from the bits of a memory element.
pub(super) fn widen(e: Elem, d: Dtype, bits: u64) -> u64 {
    let int = |v: i64| super::eval::int_bits(e, v);
    match (e, d) {
        (Elem::F32, Dtype::F16) => f16::from_bits(bits as u16).to_f32().to_bits() as u64,
        (Elem::F32, Dtype::BF16) => ((bits as u32) << 16) as u64,
        (Elem::F64, Dtype::F32) => (f32::from_bits(bits as u32) as f64).to_bits(),
        (Elem::F32, _) | (Elem::F64, _) => bits,
        (_, Dtype::I8) => int(bits as i8 as i64),
        (_, Dtype::I16) => int(bits as i16 as i64),
        (_, Dtype::I32) => int(bits as i32 as i64),
        _ => int(bits as i64),
    }
}

/// The bits of a memory element from a register lane; the caller stores the element's bytes.
pub(super) fn narrow(e: Elem, d: Dtype, lane: u64) -> u64 {
    match (e, d) {
        (Elem::F32, Dtype::F16) => f16::from_f32(f32::from_bits(lane as u32)).to_bits() as u64,
        (Elem::F32, Dtype::BF16) => bf16::from_f32(f32::from_bits(lane as u32)).to_bits() as u64,
        (Elem::F64, Dtype::F32) => (f64::from_bits(lane) as f32).to_bits() as u64,
        _ => lane,
    }
}
