//! Convolutions of few output channels: vectors run along the input's channels instead, and the lanes
//! of a sum are added up at the end.
//!
//! Three colours of an image would fill three of sixteen lanes. Here every lane works: a tile holds one
//! vector of partial sums for each of its pixels and output channels, filters lie one after another
//! (`[channel out][tap][channel in]`, a packing with panels of one feature), and a tree of shuffles
//! makes of the sums of a pixel one vector, as other bodies have it.

use super::contract_mac::{Axis, Body, Mac, likely_count};
use super::contract_tile::{Cols, Pos, Tiler};
use super::conv::{Conv, first_window};
use super::cx::LowerCx;
use super::schedule::{Facts, Schedule, Shape, div_ceil};
use crate::kir::{Addr, Reg};
use crate::target::Target;
use crate::task::{Format, Refused};
use hub_abi::pgraph::Packing;
use hub_abi::{Dim, Dtype};

/// Cycles that a pixel's sums cost a channel, to be added up and stored.
const JOIN: i64 = 6;

/// Whether a convolution is of this kind: constant filters, channels that fill vectors, and so few of
/// them come out that broadcasting would waste more than adding lanes up.
pub fn applies(c: &Conv<'_, '_>, target: &Target) -> bool {
    let (x, w) = (&c.task.inputs[c.x], &c.task.inputs[c.w]);
    let floats = [x.dtype, w.dtype, c.task.g.dtype(c.out)].iter().all(|d| *d == Dtype::F32);
    let lanes = (target.vector_bytes / 4) as i64;
    let known = |d: &Dim| d.as_const().filter(|&n| n > 0);
    let sizes = (known(&w.dims[0]), known(&w.dims[1]), known(&Dim::product(&w.dims[2..])));
    let (Some(m), Some(channels), Some(taps)) = sizes else { return false };
    let few = m <= lanes / 2 && m * channels * taps + JOIN * m * lanes <= channels * taps * lanes;
    let fills = channels % lanes == 0 && x.strides[1].is(1) && x.format == Format::Strided;
    floats && w.constant && c.groups == 1 && target.own_core && few && fills
}

/// The problem of a convolution that [`applies`].
///
/// # Errors
/// The filters have to be packed first.
pub fn problem(c: &Conv<'_, '_>) -> Result<Mac, Refused> {
    let (x, w) = (&c.task.inputs[c.x], &c.task.inputs[c.w]);
    let dims = c.task.g.dims(c.out);
    let (channels, zero) = (&w.dims[1], Dim::from(0i64));
    let sum = Dim::product(&w.dims[1..]);
    let count = |d: &Dim| d.as_const().unwrap_or(0) as u64;
    let packing = Packing {
        outer: 1,
        n: count(&w.dims[0]),
        k: count(&sum),
        k_major: false,
        taps: count(&Dim::product(&w.dims[2..])),
        block: 1,
        v: 1,
    };
    if w.format != Format::Packed(packing.clone()) {
        return Err(Refused::Pack { input: c.w, packing });
    }
    let axis = |dim: &Dim, s: Dim, v: Dim, out| Axis { dim: dim.clone(), s, v, out };
    let spatial = 0..c.geo.stride.len();
    let row = |a: usize| {
        let s = x.strides[a + 2].times(c.geo.stride[a]);
        axis(&dims[a + 2], s, zero.clone(), Some((a + 2, 1)))
    };
    let tap = |a: usize| {
        let s = x.strides[a + 2].times(c.geo.dilation[a]);
        axis(&w.dims[a + 2], s, Dim::product(&w.dims[a + 3..]).mul(channels), None)
    };
    let mut k: Vec<Axis> = spatial.clone().map(tap).collect();
    k.push(axis(channels, 1i64.into(), 1i64.into(), None));
    let mut mac = Mac {
        name: "across",
        body: Body::Across,
        anchor: c.out,
        scalar: c.x,
        vector: Some(c.w),
        batch: vec![axis(&dims[0], x.strides[0].clone(), zero.clone(), Some((0, 1)))],
        rows: spatial.map(row).collect(),
        n: axis(&w.dims[0], zero.clone(), sum, Some((1, 1))),
        panel: None,
        pairs: false,
        k,
        start: first_window(x, c.geo),
        footprint: likely_count(&x.dims[1..]),
    };
    mac.simplify();
    Ok(mac)
}

/// Candidates, the most promising first: tiles of pixels along a row.
pub fn candidates(s: &Shape, f: &Facts, staged: bool) -> Vec<Schedule> {
    let most = ((f.regs - 2 - s.n) / s.n).max(1);
    let steps = div_ceil(s.k, f.lanes);
    let cost = |tw: i64| {
        let tile = |w: i64| {
            let step = (w * s.n).max(w + s.n).max(8);
            steps * step / 2 + w * s.n * JOIN / 2 + 24
        };
        let tail = s.w % tw;
        s.w / tw * tile(tw) + if tail > 0 { tile(tail) } else { 0 }
    };
    let mut tiles: Vec<i64> = (1..=most.min(s.w.max(1))).collect();
    tiles.sort_by_key(|&tw| (cost(tw), -tw));
    let of = |tw: i64| {
        let (lanes, unroll) = (f.lanes, if tw * s.n <= 12 { 4 } else { 2 });
        Schedule { th: 1, tw, nv: 1, lanes, unroll, block: 0, staged, team: 1, tiles: false }
    };
    tiles.into_iter().map(of).collect()
}

impl Tiler<'_> {
    /// The sums of a tile, one vector a row: lane `j` is feature `j`'s, those past the last have no
    /// meaning.
    pub(super) fn across(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
        cols: Cols,
    ) -> Vec<Vec<Reg>> {
        let features = match cols {
            Cols::First(n) => n,
            _ => self.sch.lanes,
        };
        let apart = self.mac.n.v.as_const().unwrap_or(0) * self.v.dtype.size() as i64;
        let rows = self.row_addresses(cx, pos, th, tw);
        let first = cx.address(self.v.base, &pos.v).0;
        let filters: Vec<(Addr, Option<Reg>)> =
            (0..features).map(|j| (first.clone().offset(j * apart), None)).collect();
        let ty = self.vec_ty();
        let sums = |_| (0..features).map(|_| cx.b.zero(ty)).collect::<Vec<_>>();
        let acc: Vec<Vec<Vec<Reg>>> = vec![(0..rows.len()).map(sums).collect()];
        self.reduce(cx, 0, &rows, &filters, &[], &acc);
        acc[0].iter().map(|row| vec![self.gathered(cx, row.clone())]).collect()
    }

    /// A product of two vectors for every row and feature.
    pub(super) fn across_products(
        &self,
        cx: &mut LowerCx<'_>,
        rows: &[Addr],
        filters: &[(Addr, Option<Reg>)],
        acc: &[Vec<Reg>],
    ) {
        let ty = self.vec_ty();
        let load = |cx: &mut LowerCx<'_>, at: &Addr, d| cx.b.load(ty, at.clone(), d, None);
        let w: Vec<Reg> = filters.iter().map(|(at, _)| load(cx, at, self.v.dtype)).collect();
        for (at, row) in rows.iter().zip(acc) {
            let x = load(cx, at, self.s.dtype);
            row.iter().zip(&w).for_each(|(&r, &w)| cx.b.fma_acc(r, x, w));
        }
    }

    /// Lane `j` is the sum of all lanes of `sums[j]`. At every level two vectors of `m` blocks of
    /// partial sums become one of `2m` blocks of half the size.
    fn gathered(&self, cx: &mut LowerCx<'_>, mut sums: Vec<Reg>) -> Reg {
        let lanes = self.sch.lanes as usize;
        let mut m = 1;
        while m < lanes {
            let half = lanes / m / 2;
            let half_of = |second: usize| -> Vec<u8> {
                let block = |j: usize| (j % m) * 2 * half + (j / m) * lanes + second * half;
                (0..2 * m).flat_map(|j| (0..half).map(move |t| (block(j) + t) as u8)).collect()
            };
            let pairs: Vec<[Reg; 2]> =
                sums.chunks(2).map(|p| [p[0], p.get(1).copied().unwrap_or(p[0])]).collect();
            sums = pairs
                .into_iter()
                .map(|[a, b]| {
                    let low = cx.b.shuffle(a, b, half_of(0));
                    let high = cx.b.shuffle(a, b, half_of(1));
                    cx.b.add(low, high)
                })
                .collect();
            m *= 2;
        }
        sums[0]
    }
}
