//! The transforms of Winograd's minimal filtering F(m×m, 3×3), and filters in transformed form.
//!
//! `Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2015), interpolated at 0, ±1, ∞ for m = 2 and at 0, ±a, ±b, ∞ for m = 4.

use crate::kir::{Elem, KernelBuilder, Reg, RegTy};

/// Features a panel of a transformed filter.
pub const PANEL: usize = 16;

/// The points ±A and ±B of F(4×4, 3×3). Among pairs of few bits these lose least in f32.
const A: f64 = 0.75;
const B: f64 = 1.5;

/// How a filter `[n][c][3][3]` is stored in f32: `[(m+2)²][ceil(n/16)][c][16]`, transformed, zeros
/// past n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    /// Rows and columns of outputs that one tile gives: 2 or 4.
    pub m: i64,
    /// Output features.
    pub n: i64,
    /// Input channels.
    pub c: i64,
}

impl Filter {
    /// Rows of a tile of inputs.
    pub fn side(&self) -> i64 {
        self.m + 2
    }

    /// Products a tile, channel and feature.
    pub fn points(&self) -> i64 {
        self.side() * self.side()
    }

    /// Elements from one point's filters to the next's.
    pub fn plane(&self) -> i64 {
        (self.n + 15) / 16 * 16 * self.c
    }

    /// Bytes of the stored form.
    pub fn bytes(&self) -> i64 {
        self.points() * self.plane() * 4
    }

    /// The stored form of a row-major filter of f32 (`size` 4) or bf16 (2), little endian; computed in
    /// f64 and rounded once. `None` where the bytes are not as many as such a filter has.
    pub fn store(&self, dense: &[u8], size: usize) -> Option<Vec<u8>> {
        let (n, c, side) = (self.n as usize, self.c as usize, self.side() as usize);
        let taps: Vec<f32> = match size {
            4 => dense.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            2 => dense
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&[l, h]| f32::from_le_bytes([0, 0, l, h]))
                .collect(),
            _ => return None,
        };
        if taps.len() != n * c * 9 || dense.len() != taps.len() * size {
            return None;
        }
        let g = rows_of_g(self.m);
        let mut out = vec![0; self.bytes() as usize];
        let to = out.as_chunks_mut::<4>().0;
        for (i, tap) in taps.chunks_exact(9).enumerate() {
            let (feature, channel) = (i / c, i % c);
            let w: Vec<f64> = tap.iter().map(|&x| x.into()).collect();
            let at = |p: usize| {
                let panel = p * n.div_ceil(PANEL) + feature / PANEL;
                (panel * c + channel) * PANEL + feature % PANEL
            };
            for (r, u) in g.iter().enumerate() {
                let row = [0, 1, 2].map(|j| (0..3).map(|i| u[i] * w[i * 3 + j]).sum::<f64>());
                for (s, v) in g.iter().enumerate() {
                    let x: f64 = (0..3).map(|j| row[j] * v[j]).sum();
                    to[at(r * side + s)] = (x as f32).to_le_bytes();
                }
            }
        }
        Some(out)
    }
}

/// The rows of G: powers of each point over the product of its distances from the others.
fn rows_of_g(m: i64) -> Vec<[f64; 3]> {
    let points: Vec<f64> = if m == 2 { vec![0.0, 1.0, -1.0] } else { vec![0.0, A, -A, B, -B] };
    let mut rows: Vec<[f64; 3]> = points
        .iter()
        .map(|&p| {
            let others = points.iter().filter(|q| **q != p);
            let far: f64 = others.map(|q| p - q).product();
            [1.0 / far, p / far, p * p / far]
        })
        .collect();
    rows.push([0.0, 0.0, 1.0]);
    rows
}

/// Emits the transforms on vectors of f32.
pub struct Emit<'b> {
    /// Where to.
    pub b: &'b mut KernelBuilder,
    /// Outputs a side.
    pub m: i64,
    /// Type of the vectors.
    pub ty: RegTy,
}

impl Emit<'_> {
    fn k(&mut self, x: f64) -> Reg {
        debug_assert_eq!(self.ty.elem, Elem::F32);
        self.b.const_f(self.ty, x)
    }

    /// `x·k + y`.
    fn fma(&mut self, x: Reg, k: f64, y: Reg) -> Reg {
        match k {
            1.0 => self.b.add(x, y),
            -1.0 => self.b.sub(y, x),
            _ => {
                let k = self.k(k);
                self.b.fma(x, k, y)
            }
        }
    }

    fn times(&mut self, x: Reg, k: f64) -> Reg {
        let k = self.k(k);
        self.b.mul(x, k)
    }

    /// `Bᵀ d`: m + 2 vectors to as many.
    pub fn input(&mut self, d: &[Reg]) -> Vec<Reg> {
        if self.m == 2 {
            let b = &mut *self.b;
            // Rows of (x² − 1, x(x + 1), x(x − 1), x(x² − 1)) with the signs that G's rows ask.
            return vec![
                b.sub(d[2], d[0]),
                b.add(d[2], d[1]),
                b.sub(d[2], d[1]),
                b.sub(d[3], d[1]),
            ];
        }
        let (a2, b2) = (A * A, B * B);
        let first = {
            let x = self.fma(d[2], -(a2 + b2), d[4]);
            self.fma(d[0], a2 * b2, x)
        };
        let last = {
            let x = self.fma(d[3], -(a2 + b2), d[5]);
            self.fma(d[1], a2 * b2, x)
        };
        // Of a pair ±p with the other pair ±q: (x² − q²)(x ± p)·x.
        let mut pair = |p: f64, q2: f64| {
            let even = self.fma(d[2], -q2, d[4]);
            let odd = self.fma(d[1], -q2, d[3]);
            (self.fma(odd, p, even), self.fma(odd, -p, even))
        };
        let (a, a_) = pair(A, b2);
        let (b, b_) = pair(B, a2);
        vec![first, a, a_, b, b_, last]
    }

    /// `Aᵀ y`: m + 2 vectors to m.
    pub fn output(&mut self, y: &[Reg]) -> Vec<Reg> {
        let (s, d) = (self.b.add(y[1], y[2]), self.b.sub(y[1], y[2]));
        if self.m == 2 {
            return vec![self.b.add(y[0], s), self.b.add(d, y[3])];
        }
        let (t, e) = (self.b.add(y[3], y[4]), self.b.sub(y[3], y[4]));
        let zero = {
            let x = self.b.add(y[0], s);
            self.b.add(x, t)
        };
        let one = {
            let x = self.times(d, A);
            self.fma(e, B, x)
        };
        let two = {
            let x = self.times(s, A * A);
            self.fma(t, B * B, x)
        };
        let three = {
            let x = self.fma(d, A * A * A, y[5]);
            self.fma(e, B * B * B, x)
        };
        vec![zero, one, two, three]
    }
}
