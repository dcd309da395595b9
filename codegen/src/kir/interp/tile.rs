//! Tile registers: up to 16 rows of up to 64 bytes, and what is done with them.

use super::Machine;
use crate::kir::interp::eval::flush;
use crate::kir::{Addr, Coef, Inst, MAX_TILES};
use hub_abi::Dtype;

/// One tile register.
#[derive(Clone, Default)]
pub(super) struct Tile {
    rows: usize,
    bytes: usize,
    /// Row-major, 64 bytes a row.
    data: Vec<u8>,
}

impl Tile {
    fn f32(&self, row: usize, at: usize) -> f32 {
        let i = row * 64 + at * 4;
        f32::from_le_bytes(std::array::from_fn(|k| self.data[i + k]))
    }

    /// Element `at` of a row of bf16 or f16.
    fn half(&self, row: usize, at: usize, dtype: Dtype) -> f32 {
        let i = row * 64 + at * 2;
        let bits = u16::from_le_bytes([self.data[i], self.data[i + 1]]);
        match dtype {
            Dtype::F16 => half::f16::from_bits(bits).to_f32(),
            _ => flush(f32::from_bits(u32::from(bits) << 16)),
        }
    }
}

impl Machine<'_> {
    /// Runs a tile instruction; `None` where it is none.
    pub(super) fn tile_inst(&mut self, i: &Inst) -> Option<Result<(), String>> {
        Some(match i {
            Inst::TileConfig { shapes } => {
                self.tiles = vec![Tile::default(); MAX_TILES];
                for (t, (rows, bytes)) in self.tiles.iter_mut().zip(shapes) {
                    (t.rows, t.bytes) = (*rows as usize, *bytes as usize);
                    t.data = vec![0; 64 * t.rows];
                }
                Ok(())
            }
            Inst::TileZero { tile } => self.configured(*tile).map(|t| t.data.fill(0)),
            Inst::TileLoad { tile, addr, stride, align } => self
                .aligned(addr, *stride, *align)
                .and_then(|()| self.tile_move(*tile, addr, *stride, false)),
            Inst::TileStore { tile, addr, stride } => self.tile_move(*tile, addr, *stride, true),
            Inst::TileDot2 { acc, a, b, dtype } => self.tile_dot2([*acc, *a, *b], *dtype),
            _ => return None,
        })
    }

    fn configured(&mut self, tile: u8) -> Result<&mut Tile, String> {
        let t = self.tiles.get_mut(tile as usize).filter(|t| t.rows > 0);
        t.ok_or_else(|| format!("tile {tile} is not configured"))
    }

    /// Buffers begin at multiples of any alignment.
    fn aligned(&self, a: &Addr, stride: Coef, align: u8) -> Result<(), String> {
        let (at, step) = (self.addr(a)?.1, super::size(self.args, stride));
        let by = i64::from(align.max(1));
        let good = at % by == 0 && step % by == 0;
        if good { Ok(()) } else { Err(format!("rows at {at} + {step} × i, not every {align}")) }
    }

    fn tile_move(&mut self, tile: u8, a: &Addr, stride: Coef, store: bool) -> Result<(), String> {
        let ((buf, at), step) = (self.addr(a)?, super::size(self.args, stride));
        let mut t = std::mem::take(self.configured(tile)?);
        for row in 0..t.rows {
            for k in (0..t.bytes).step_by(2) {
                let from = at.wrapping_add(step.wrapping_mul(row as i64)).wrapping_add(k as i64);
                let i = row * 64 + k;
                if store {
                    let bits = u64::from(t.data[i]) | u64::from(t.data[i + 1]) << 8;
                    self.mem.write(buf, from, 2, bits)?;
                } else {
                    let bits = self.mem.read(buf, from, 2)?;
                    t.data[i..i + 2].copy_from_slice(&bits.to_le_bytes()[..2]);
                }
            }
        }
        self.tiles[tile as usize] = t;
        Ok(())
    }

    fn tile_dot2(&mut self, [acc, a, b]: [u8; 3], dtype: Dtype) -> Result<(), String> {
        let (a, b) = (self.configured(a)?.clone(), self.configured(b)?.clone());
        let acc = self.configured(acc)?;
        let fit = acc.rows == a.rows && acc.bytes == b.bytes && a.bytes == 4 * b.rows;
        if !fit {
            return Err("tiles of shapes that do not fit".into());
        }
        for m in 0..acc.rows {
            for n in 0..acc.bytes / 4 {
                let mut sums = [0f32; 2];
                for k in 0..b.rows {
                    for (h, s) in sums.iter_mut().enumerate() {
                        *s = flush(
                            a.half(m, 2 * k + h, dtype).mul_add(b.half(k, 2 * n + h, dtype), *s),
                        );
                    }
                }
                let sum = flush(sums[0] + sums[1]);
                let x = flush(flush(acc.f32(m, n)) + sum);
                acc.data[m * 64 + n * 4..][..4].copy_from_slice(&x.to_le_bytes());
            }
        }
        Ok(())
    }
}
