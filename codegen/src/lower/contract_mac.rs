//! Multiply-accumulate problems: what contractions and convolutions have in common.
//!
//! One operand (`scalar`) is read one element at a time and broadcast, the other (`vector`) a vector
//! of output features at a time. Every axis says how far each operand moves along it, so a
//! convolution is a contraction whose scalar operand has overlapping rows.

use super::contract_grid;
use super::coord::Coord;
use super::cx::{Fail, LowerCx, Made, Work, unsupported};
use super::schedule::{self, Facts, Schedule, Shape, Taps};
use super::value::{elem_of, with_lanes};
use crate::kir::{Elem, Reg};
use crate::target::Target;
use crate::task::{self, Lowered, Operand, Refused, Task};
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use hub_ir::{Op, Value};

/// An axis and how far operands move along it, in elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    /// Extent.
    pub dim: Dim,
    /// Stride of the scalar operand.
    pub s: Dim,
    /// Stride of the vector operand.
    pub v: Dim,
    /// Axis of the anchor's result that it counts along, and elements of that a step.
    pub out: Option<(usize, i64)>,
}

/// Features of a panel of a packed operand.
pub const PANEL: i64 = 16;

/// What happens at every step of the reduced axes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// An element of the scalar operand, broadcast, times a vector of the other.
    Broadcast,
    /// A vector of the scalar operand times one of the other (depthwise).
    Lanes,
    /// The same along the innermost summed axis, lanes being added up at the end ([`super::across`]).
    Across,
    /// A vector of the scalar operand, added.
    Sum,
    /// The greatest vector of the scalar operand, NaN being greatest.
    Max,
}

/// A multiply-accumulate problem.
#[derive(Clone, PartialEq, Debug)]
pub struct Mac {
    /// For the schedule's text: `contract` or `conv`.
    pub name: &'static str,
    /// What is done at every step.
    pub body: Body,
    /// The anchor's result.
    pub anchor: Value,
    /// Input that is broadcast (or the only one).
    pub scalar: usize,
    /// Input that is read in vectors, if there are two.
    pub vector: Option<usize>,
    /// Axes of independent problems.
    pub batch: Vec<Axis>,
    /// Row axes (at most two: outer, inner); `v` is 0.
    pub rows: Vec<Axis>,
    /// The feature axis; where `s` is 0 the scalar operand is broadcast, else it is 1. `v` is 1, or
    /// over a packed operand a sixteenth of a panel's elements.
    pub n: Axis,
    /// Elements of a panel of a packed vector operand.
    pub panel: Option<i64>,
    /// The innermost summed axis (even, contiguous in the scalar operand) is walked in pairs of
    /// bf16: a packed operand has them side by side.
    pub pairs: bool,
    /// Summed axes, outermost first.
    pub k: Vec<Axis>,
    /// Elements from the scalar operand's origin to what the first product reads (a halo: negative).
    pub start: Dim,
    /// Elements of the scalar operand that a problem reads, for the schedule's model.
    pub footprint: i64,
}

/// A likely value of a size, for choosing schedules only.
pub fn likely(d: &Dim) -> i64 {
    d.as_const().unwrap_or(128)
}

/// A likely number of elements, likewise.
pub fn likely_count<'d>(dims: impl IntoIterator<Item = &'d Dim>) -> i64 {
    dims.into_iter().fold(1i64, |n, d| n.saturating_mul(likely(d))).min(MOST_LIKELY)
}

/// No more elements than this are likely; the model's arithmetic on them does not overflow.
const MOST_LIKELY: i64 = 1 << 40;

impl Mac {
    /// Folds reduced axes that both operands walk as one, and drops those of one element.
    pub fn simplify(&mut self) {
        self.k.retain(|a| !a.dim.is(1));
        let mut i = 1;
        while i < self.k.len() {
            let (o, x) = (&self.k[i - 1], &self.k[i]);
            if o.s == x.s.mul(&x.dim) && o.v == x.v.mul(&x.dim) {
                self.k[i].dim = o.dim.mul(&x.dim);
                self.k.remove(i - 1);
            } else {
                i += 1;
            }
        }
        self.batch.retain(|a| !a.dim.is(1));
        if self.n.dim.is(1) {
            self.n.out = None;
        }
        self.rows.retain(|a| !a.dim.is(1));
        while self.rows.len() > 2 {
            let a = self.rows.remove(0);
            self.batch.push(a);
        }
    }

    /// What the schedule's model looks at.
    pub fn shape(&self, size: i64) -> Shape {
        let one = Dim::from(1i64);
        let w = self.rows.last().map_or(&one, |a| &a.dim);
        let h = if self.rows.len() > 1 { &self.rows[0].dim } else { &one };
        let k = likely_count(self.k.iter().map(|a| &a.dim));
        let per = if self.pairs { 2 } else { 1 };
        let batch = likely_count(self.batch.iter().map(|a| &a.dim));
        Shape {
            batch,
            h: likely(h),
            w: likely(w),
            h_fixed: h.as_const().is_some(),
            w_fixed: w.as_const().is_some(),
            n: likely(&self.n.dim),
            k: k / per,
            a: self.footprint / per,
            size: size * per,
            panels: self.panel.is_some(),
            splits: (2..=8).filter(|w| self.part(*w).is_some()).fold(0, |m, w| m | 1 << w),
        }
    }

    /// The reduced axis that is cut for a team of so many, and elements of a part: the innermost, in
    /// whole steps of what multiplies tiles, or one before it.
    pub fn part(&self, team: i64) -> Option<(usize, i64)> {
        let last = self.k.len().checked_sub(1)?;
        let fits = |(i, k): (usize, &Axis)| {
            let n = k.dim.as_const()?;
            let unit = if i == last { super::tiles::warp_chunk(self).unwrap_or(4) } else { 1 };
            (n % (unit * team) == 0).then_some((i, n / team))
        };
        self.k.iter().enumerate().rev().find_map(fits)
    }

    /// The reduced axes as a window's taps.
    pub fn taps(&self) -> Taps {
        let last = self.k.last();
        let across = last.map_or(1, |k| likely(&k.dim));
        let all = likely_count(self.k.iter().map(|k| &k.dim));
        let unit = last.and_then(|k| k.s.as_const());
        let step = match (self.rows.last().and_then(|r| r.s.as_const()), unit) {
            (Some(r), Some(k)) if k > 0 && r % k == 0 => r / k,
            _ => across,
        };
        Taps { across, rows: all / across.max(1), step, filter: self.body == Body::Lanes }
    }

    /// Bytes, at most 16, that the start of every step of the scalar operand in tile registers is a
    /// multiple of.
    pub fn alignment(&self, o: &Operand) -> i64 {
        let size = o.dtype.size() as i64;
        let chunk = super::tiles::warp_chunk(self).unwrap_or(1);
        let last = self.k.len().saturating_sub(1);
        let step = |(i, k): (usize, &Axis)| k.s.times(if i == last { chunk } else { 1 });
        let steps = self.k.iter().enumerate().map(step);
        let rows = self.batch.iter().chain(&self.rows).map(|a| a.s.clone());
        let all = steps.chain(rows).chain([self.start.clone()]);
        all.map(|d| task::power_of_two(&d.times(size))).fold(o.align.min(16), i64::min)
    }

    /// Every axis.
    pub fn axes(&self) -> impl Iterator<Item = &Axis> {
        self.batch.iter().chain(&self.rows).chain([&self.n]).chain(&self.k)
    }

    /// Lowest offset (bytes from the scalar operand's origin) and extent in bytes of what is read.
    pub fn scalar_span(&self, size: i64) -> (Dim, Dim) {
        let (mut lo, mut reach) = (self.start.clone(), Dim::from(1i64));
        for a in self.axes() {
            let far = a.dim.plus(-1).mul(&a.s);
            match a.s.as_const() {
                Some(k) if k < 0 => {
                    lo = lo.add(&far);
                    reach = reach.sub(&far);
                }
                _ => reach = reach.add(&far),
            }
        }
        (lo.times(size), reach.times(size))
    }

    /// What the plan is told.
    pub fn work(&self, task: &Task<'_>, tiles: Dim) -> Work {
        let dims: Vec<&Dim> = self.axes().map(|a| &a.dim).collect();
        let ops = operations(task, &task.g.regions[task.region].nodes);
        let made = task.outputs.first().map_or(Dim::from(0i64), |o| Dim::product(&o.dims));
        let flops = Dim::product(dims).times(2).add(&made.times(ops));
        let bytes = |o: &Operand| Dim::product(&o.dims).times(o.dtype.size() as i64);
        let all = task.inputs.iter().chain(&task.outputs).map(bytes);
        Work { tiles, flops, bytes: all.fold(Dim::from(0i64), |a, b| a.add(&b)) }
    }
}

/// Element of the accumulators of an anchor.
///
/// # Errors
/// A type that no register holds.
pub fn elem_for(task: &Task<'_>, anchor: Value) -> Result<Elem, Refused> {
    match elem_of(task.g.dtype(anchor)).map_err(refused)? {
        Elem::Mask => Err(Refused::Unsupported("a contraction of bools".into())),
        e => Ok(e),
    }
}

/// Both operands are of a type whose pairs the target multiplies (bf16, if need be in two steps; f16
/// where warps multiply tiles), and what is summed is not.
pub fn in_pairs(task: &Task<'_>, target: &Target, anchor: Value, a: usize, b: usize) -> bool {
    let dtype = task.inputs[a].dtype;
    let has = match dtype {
        Dtype::BF16 => true,
        Dtype::F16 => target.has_mma() && task.inputs[a].in_words(),
        _ => false,
    };
    has && task.inputs[b].dtype == dtype && task.g.dtype(anchor) == Dtype::F32
}

/// Can so many elements of an operand be taken in pairs (f16: in steps of tiles, their only form)?
pub fn whole_pairs(task: &Task<'_>, input: usize, elements: i64) -> bool {
    match task.inputs[input].dtype {
        Dtype::F16 => elements % 8 == 0,
        _ => elements % 2 == 0,
    }
}

/// Is a matrix that is computed better copied into panels before `rows` rows are multiplied with it?
/// Its own rows lie far apart (each on a page of its own, and at powers of two in few sets of a
/// cache), and it is read many times.
pub fn worth_panels(elements: i64, dtype: Dtype, rows: i64) -> bool {
    elements.saturating_mul(dtype.size() as i64) >= PANELS_BYTES && rows >= PANELS_ROWS
}

/// Matrices of fewer bytes are read where they lie.
const PANELS_BYTES: i64 = 1 << 19;
/// As are those that fewer rows are multiplied with.
const PANELS_ROWS: i64 = 64;

/// Elements of a pair's side in packed form.
pub fn step_of(pairs: bool) -> u64 {
    if pairs { 2 } else { 1 }
}

/// A failure that narrower vectors would not mend.
pub fn refused(f: Fail) -> Refused {
    match f {
        Fail::Narrow => Refused::Unsupported("values wider than a register".into()),
        Fail::Refused(r) => r,
    }
}

/// Computes the group's results at `coords` of the anchor, whose value is `acc`, and stores them.
pub fn store_results(
    cx: &mut LowerCx<'_>,
    anchor: Value,
    coords: &[Coord],
    acc: Reg,
    mask: Option<Reg>,
) -> Made {
    let (g, region) = (cx.task.g, cx.task.region);
    let lanes = cx.b.ty(acc).lanes as usize;
    cx.active = mask;
    cx.scope(|cx| {
        cx.give(anchor, coords, acc);
        for (i, &r) in g.regions[region].results.iter().enumerate() {
            if g.dims(r) != g.dims(anchor) {
                return unsupported("a result of another shape than its anchor's");
            }
            let v = cx.value(cx.unrounded(r), coords, lanes)?;
            cx.store(i, coords, v)?;
        }
        Ok(())
    })
}

/// Whether the elementwise part of a group is better run as a loop of its own than once a register:
/// transcendentals, or many operations.
pub fn heavy(task: &Task<'_>) -> bool {
    heavy_among(task, &task.g.regions[task.region].nodes)
}

/// As [`heavy`], of some of the group's nodes.
pub fn heavy_among(task: &Task<'_>, nodes: &[hub_ir::Node]) -> bool {
    operations(task, nodes) > 8
}

/// Operations an element of elementwise primitives; a function that is computed by a series is as
/// many as its instructions.
pub fn operations(task: &Task<'_>, nodes: &[hub_ir::Node]) -> i64 {
    let weight = |n: &hub_ir::Node| match &task.g.nodes[*n].op {
        Op::Prim(Prim::Unary(op)) => match op {
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Sqrt => 1,
            UnaryOp::Recip => 1,
            _ => 20,
        },
        Op::Prim(Prim::Binary(BinaryOp::Pow | BinaryOp::Mod | BinaryOp::Rem)) => 20,
        Op::Prim(p) if p.is_elementwise() => 1,
        _ => 0,
    };
    nodes.iter().map(weight).sum()
}

/// Features past the last that all operands of the epilogue may be read or written at: the slack of
/// those that vary along features, none where features are not contiguous.
pub fn spare(task: &Task<'_>, mac: &Mac) -> i64 {
    let dims = task.g.dims(mac.anchor);
    let Some((axis, _)) = mac.n.out else { return 0 };
    let room = |o: &Operand| {
        let at = (axis + o.dims.len()).checked_sub(dims.len());
        match at {
            Some(a) if !o.dims[a].is(1) && !o.strides[a].is(1) => 0,
            Some(a) if !o.dims[a].is(1) => o.slack,
            _ => i64::MAX,
        }
    };
    let inner = |i: &usize| *i != mac.scalar && Some(*i) != mac.vector;
    let others = (0..task.inputs.len()).filter(inner).map(|i| &task.inputs[i]);
    let read = others.filter(|o| o.splat.is_none()).map(room).min();
    let written = task.outputs.iter().map(room).min();
    read.unwrap_or(i64::MAX).min(written.unwrap_or(0))
}

/// The schedules of a problem, the most promising first.
pub fn schedules(task: &Task<'_>, target: &Target, mac: &Mac, lanes: usize) -> Vec<Schedule> {
    let facts = Facts::of(target, lanes);
    let shape = mac.shape(task.inputs[mac.scalar].dtype.size() as i64);
    match mac.body {
        Body::Broadcast => {
            let mut all = vec![];
            if target.has_tiles() {
                all = super::tiles::candidates(mac, &shape, &facts);
            }
            if target.has_mma() && mac.alignment(&task.inputs[mac.scalar]) >= 4 {
                all = super::mma::candidates(mac, &shape, &facts);
            }
            // Pairs of f16 have no other form.
            if mac.pairs && task.inputs[mac.scalar].dtype == Dtype::F16 {
                return all;
            }
            all.extend(schedule::candidates(&shape, &facts, heavy(task)));
            all
        }
        Body::Across => super::across::candidates(&shape, &facts, heavy(task)),
        _ => schedule::tap_candidates(&shape, &facts, &mac.taps(), heavy(task)),
    }
}

/// The schedules with the one of that number first, ways of ending a tile not counted; as they are
/// where there are fewer.
fn chosen(mut all: Vec<Schedule>, choice: usize) -> Vec<Schedule> {
    let tile = |s: &Schedule| (s.th, s.tw, s.nv, s.block);
    let mut tiles: Vec<_> = all.iter().map(tile).collect();
    tiles.dedup();
    if let Some(&wanted) = tiles.get(choice) {
        all.sort_by_key(|s| tile(s) != wanted);
    }
    all
}

/// Lowers a problem by the first schedule that the target holds.
///
/// # Errors
/// What the generator cannot do.
pub fn lower_mac(task: &Task<'_>, target: &Target, mac: &Mac) -> Result<Lowered, Refused> {
    let elem = elem_for(task, mac.anchor)?;
    with_lanes(target.vector_bytes / elem.size(), |lanes| {
        let mut last = String::new();
        for sch in chosen(schedules(task, target, mac, lanes), target.choice) {
            let lowered = contract_grid::lower(task, target, mac, sch)?;
            match fits(&lowered.kernel, target) {
                Ok(()) => return Ok(lowered),
                Err(why) => last = format!("{sch}: {why}"),
            }
        }
        unsupported(format!("no schedule fits, not even {last}"))
    })
}

/// Lowers a problem by a given schedule, fitting or not (a tuner's way).
///
/// # Errors
/// What the generator cannot do.
pub fn lower_as(
    task: &Task<'_>,
    target: &Target,
    mac: &Mac,
    sch: Schedule,
) -> Result<Lowered, Refused> {
    contract_grid::lower(task, target, mac, sch).map_err(refused)
}

/// Whether the target can hold the kernel in its registers; if not, why.
fn fits(kernel: &crate::kir::Kernel, target: &Target) -> Result<(), String> {
    crate::targets::fits(kernel, target).map_err(|e| e.to_string())
}
