//! Transposition in registers: the interleaving network whose every step is one instruction on
//! machines with 128-bit lanes.

use super::build::KernelBuilder;
use super::types::Reg;

/// Columns of a square block given by its rows, all of one vector type with as many lanes as the
/// block has rows; missing rows (fewer given than lanes) leave any value in their lanes.
///
/// Within 128 bits, units of 1, 2… lanes of neighbouring rows are interleaved; then whole 128-bit
/// pieces change places, even and odd ones apart.
///
/// # Panics
/// Without rows.
pub fn transposed(b: &mut KernelBuilder, rows: &[Reg]) -> Vec<Reg> {
    let ty = b.ty(rows[0]);
    let n = ty.lanes as usize;
    let per = (16 / ty.elem.size()).min(n);
    let mut pair = |x: Option<Reg>, y: Option<Reg>, pick: &dyn Fn(usize) -> (usize, usize)| {
        let some = x.or(y)?;
        let sel = (0..n).map(pick).map(|(of, lane)| (of * n + lane) as u8).collect();
        Some(b.shuffle(x.unwrap_or(some), y.unwrap_or(some), sel))
    };
    let mut x: Vec<Option<Reg>> = (0..n).map(|i| rows.get(i).copied()).collect();
    let mut unit = 1;
    while unit < per {
        let mut y = x.clone();
        for at in (0..n).filter(|i| i & unit == 0) {
            for high in 0..2 {
                let pick = |l: usize| {
                    let (piece, k) = (l / per * per, l % per);
                    let from = high * per / 2 + k / (2 * unit) * unit + k % unit;
                    (k / unit % 2, piece + from)
                };
                y[at + high * unit] = pair(x[at], x[at + unit], &pick);
            }
        }
        x = y;
        unit *= 2;
    }
    // register per·q + c now holds, in its piece number p, rows per·q… of column per·p + c', where
    // c' is c with its bits reversed
    let (pieces, bits) = (n / per, per.ilog2());
    let mut out = vec![None; n];
    for c in 0..per {
        let mut group: Vec<Option<Reg>> = (0..pieces).map(|q| x[per * q + c]).collect();
        let mut holds: Vec<Vec<usize>> = vec![(0..pieces).collect(); pieces];
        let mut done = 1;
        while done < pieces {
            let (mut next, mut names) = (vec![None; pieces], vec![vec![]; pieces]);
            for q in (0..pieces).step_by(2 * done) {
                for k in 0..done {
                    for odd in 0..2 {
                        let pick = |l: usize| {
                            let piece = l / per * 2 + odd;
                            (piece / pieces, piece % pieces * per + l % per)
                        };
                        let at = q + 2 * k + odd;
                        next[at] = pair(group[q + k], group[q + done + k], &pick);
                        let kept = holds[q + k].iter().skip(odd).step_by(2);
                        names[at] = kept.copied().collect();
                    }
                }
            }
            (group, holds) = (next, names);
            done *= 2;
        }
        let column = if bits == 0 { 0 } else { c.reverse_bits() >> (usize::BITS - bits) };
        for (g, piece) in group.into_iter().zip(holds) {
            out[per * piece[0] + column] = g;
        }
    }
    let any = rows[0];
    out.into_iter().map(|r| r.unwrap_or(any)).collect()
}
