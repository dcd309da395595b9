//! Map groups: elementwise and movement. One nest of loops over the output's shape, flattened where
//! every operand runs through memory evenly, vectors along the output's contiguous axis; a
//! concatenation is one nest a piece.

use super::contract_mac::operations;
use super::coord::Coord;
use super::cx::{LowerCx, Made, Work};
use super::nest::{Span, Tiling, VectorLoop, grid_vars, tile, tiling, vectors};
use super::study::{Domain, Loop, Study, study};
use super::transpose::{self, Cross};
use super::value::with_lanes;
use crate::kir::{Affine, CmpOp, Cond, Reg, RegTy, Scalar, Var};
use crate::target::Target;
use crate::task::{Lowered, Refused, Task};
use hub_abi::Dim;
use hub_abi::prim::Prim;
use hub_ir::Value;

/// Values of one shape that are stored at shifted coordinates of outputs.
pub struct Piece {
    /// Their shape.
    pub shape: Vec<Dim>,
    /// `(value, output)`.
    pub stores: Vec<(Value, usize)>,
    /// Added to the output's coordinates.
    pub shift: Vec<Dim>,
}

/// Lowers a map group.
///
/// # Errors
/// [`Refused::Unsupported`] where the region holds what no kernel does.
pub fn map(task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    lower_pieces(task, target, "map", &pieces(task), &|_| ())
}

/// Lowers pieces that together make a task's outputs; `ready` prepares the context (pointers).
///
/// # Errors
/// As [`map`].
pub fn lower_pieces(
    task: &Task<'_>,
    target: &Target,
    name: &str,
    pieces: &[Piece],
    ready: &dyn Fn(&mut LowerCx<'_>),
) -> Result<Lowered, Refused> {
    with_lanes(target.lanes(), |lanes| {
        let mut cx = LowerCx::new(task, target, name, lanes);
        ready(&mut cx);
        attempt(cx, name, pieces)
    })
}

/// The pieces that make all outputs: one, or one a part of a concatenation.
fn pieces(task: &Task<'_>) -> Vec<Piece> {
    let g = task.g;
    let results = &g.regions[task.region].results;
    let first = results[0];
    if let ([v], Some((n, Prim::Concat { axis }))) = (&results[..], g.as_prim(first)) {
        let mut shift = vec![Dim::from(0i64); g.dims(*v).len()];
        let mut out = vec![];
        for &x in &g.nodes[n].inputs {
            let shape = g.dims(x).to_vec();
            let len = shape[*axis as usize].clone();
            out.push(Piece { shape, stores: vec![(x, 0)], shift: shift.clone() });
            shift[*axis as usize] = shift[*axis as usize].add(&len);
        }
        return out;
    }
    let shape = g.dims(first).to_vec();
    let shift = vec![0i64.into(); shape.len()];
    let stores = results.iter().enumerate().map(|(i, &v)| (v, i)).collect();
    vec![Piece { shape, stores, shift }]
}

/// A piece with its loops.
struct Plan<'p> {
    piece: &'p Piece,
    domain: Domain,
    loops: Vec<Loop>,
    tiling: Tiling,
    grid: Vec<Dim>,
    how: VectorLoop,
    cross: Option<Cross>,
}

fn attempt(mut cx: LowerCx<'_>, name: &str, pieces: &[Piece]) -> Made<Lowered> {
    let plans = pieces.iter().map(|p| plan(&cx, p)).collect::<Made<Vec<_>>>()?;
    let schedule = format!("{name} {}", describe(&plans, cx.lanes));
    let tiles = match &plans[..] {
        [one] => {
            let vars = grid_vars(&mut cx, &one.grid, None);
            run(&mut cx, one, &vars)?;
            Dim::product(&one.grid)
        }
        many => all_pieces(&mut cx, many)?,
    };
    let work = work(cx.task, tiles, plans.iter().map(|p| (&p.piece.shape, p.insts())));
    Ok(cx.finish(work, schedule))
}

impl Plan<'_> {
    fn insts(&self) -> i64 {
        self.piece.stores.len() as i64
    }
}

/// Work of a group: its operands' bytes and `ops` operations an element of each shape.
pub fn work<'a>(
    task: &Task<'_>,
    tiles: Dim,
    parts: impl Iterator<Item = (&'a Vec<Dim>, i64)>,
) -> Work {
    let ops = operations(task, &task.g.regions[task.region].nodes);
    let flops = parts.fold(Dim::from(0i64), |s, (d, _)| s.add(&Dim::product(d).times(ops)));
    let bytes =
        task.inputs.iter().chain(&task.outputs).fold(Dim::from(0i64), |s, o| {
            s.add(&Dim::product(&o.dims).times(o.dtype.size() as i64))
        });
    Work { tiles, flops, bytes }
}

fn plan<'p>(cx: &LowerCx<'_>, piece: &'p Piece) -> Made<Plan<'p>> {
    let roots: Vec<Value> = piece.stores.iter().map(|s| s.0).collect();
    let domain = Domain::new(cx.task, &piece.shape, &roots);
    let found = study(cx.task, cx.target, cx.lanes, &domain, |cx, coords| body(cx, piece, coords))?;
    let reduced = vec![false; domain.dims.len()];
    let mut loops = found.arrange(cx, found.loops(cx, &domain, &reduced));
    let total = loops.iter().map(|l| cx.estimate(&l.extent).max(1)).fold(1, i64::saturating_mul);
    let grain = cx.target.grain;
    let most = if found.insts > 40 { 2 * grain } else { 8 * grain };
    let how = vector_loop(cx, &found, &loops);
    let mut size = (total / 64).clamp(grain, most);
    let mut align = 4 * cx.lanes as i64;
    let cross = transpose::find(cx, &found, &loops);
    if let Some(c) = &cross {
        loops.retain(|l| l.dim != c.along.dim && l.dim != c.vector.dim);
        let cut = c.cut(cx).clone();
        let other = if cut.dim == c.along.dim { &c.vector } else { &c.along };
        size = (size / cx.estimate(&other.extent).max(1)).max(1);
        loops.push(cut);
        align = cx.lanes as i64;
    }
    let tiling = tiling(cx, &loops, size, align);
    let mut grid = tiling.grid(cx, &loops);
    for l in cross.iter().flat_map(|c| [&c.along, &c.vector]) {
        if cx.bounds(&l.extent).0 <= 0 {
            grid[0] = grid[0].mul(&l.extent.min_of(&1i64.into()));
        }
    }
    Ok(Plan { piece, domain, loops, tiling, grid, how, cross })
}

/// How the vector loop of a nest runs: unrolled by weight, without a tail where there is slack.
pub fn vector_loop(cx: &LowerCx<'_>, found: &Study, loops: &[Loop]) -> VectorLoop {
    let unroll = match found.insts {
        0..=12 => 4,
        13..=32 => 2,
        _ => 0,
    };
    let slack = loops.last().is_some_and(|l| {
        let lanes = cx.lanes as i64;
        let extra = l.extent.as_const().map_or(lanes - 1, |n| (lanes - n % lanes) % lanes);
        extra == 0 || found.has_slack(cx, l.dim, extra)
    });
    VectorLoop { unroll, slack, wide: 1 }
}

fn describe(plans: &[Plan<'_>], lanes: usize) -> String {
    let one = |p: &Plan<'_>| {
        let dims: Vec<String> = p.loops.iter().map(|l| l.extent.to_string()).collect();
        let turn =
            p.cross.as_ref().map(|c| format!(" turn {} by {}", c.along.extent, c.vector.extent));
        let (chunk, cut) = (p.tiling.chunk, p.tiling.cut);
        format!("{}{} tile {chunk}@{cut}", dims.join("x"), turn.unwrap_or_default())
    };
    let parts: Vec<String> = plans.iter().map(one).collect();
    format!("v{lanes} {}", parts.join(" + "))
}

/// Values of a piece at coordinates, stored.
fn body(cx: &mut LowerCx<'_>, piece: &Piece, coords: &[Coord]) -> Made {
    let at: Vec<Coord> = coords.iter().zip(&piece.shift).map(|(c, s)| c.plus(s)).collect();
    for &(v, out) in &piece.stores {
        let r = cx.value(cx.unrounded(v), coords, cx.lanes)?;
        cx.store(out, &at, r)?;
    }
    Ok(())
}

fn run<'t>(cx: &mut LowerCx<'t>, p: &Plan<'_>, grid: &[Var]) -> Made {
    let at = vec![Coord::zero(); p.domain.dims.len()];
    if p.loops.is_empty() {
        return single(cx, p, at);
    }
    tile(cx, &p.loops, &p.tiling, grid, at, &mut |cx, at, span: Span| {
        if let Some(c) = &p.cross {
            return c.run(cx, &at, &span, &mut |cx, at| body(cx, p.piece, &p.domain.coords(at)));
        }
        let dim = p.loops[p.loops.len() - 1].dim;
        vectors(cx, &span, p.how, &mut |cx, v| {
            let mut at = at.clone();
            at[dim] = v[0].clone();
            body(cx, p.piece, &p.domain.coords(&at))
        })
    })
}

/// A piece of one element: lane 0 of a vector.
fn single(cx: &mut LowerCx<'_>, p: &Plan<'_>, at: Vec<Coord>) -> Made {
    cx.active = Some(cx.b.first_lanes(cx.lanes, 1));
    let done = body(cx, p.piece, &p.domain.coords(&at));
    cx.active = None;
    done
}

/// Pieces side by side in one grid of tiles.
fn all_pieces(cx: &mut LowerCx<'_>, plans: &[Plan<'_>]) -> Made<Dim> {
    let each = plans.iter().map(|p| Dim::product(&p.grid));
    let total = each.fold(Dim::from(0i64), |a, d| a.add(&d));
    let axis = cx.grid("t", &total);
    let index = cx.b.index(Affine::default().plus(axis, 1));
    one_of(cx, plans, index)?;
    Ok(total)
}

fn one_of(cx: &mut LowerCx<'_>, plans: &[Plan<'_>], index: Reg) -> Made {
    let [first, rest @ ..] = plans else { return Ok(()) };
    let go = |cx: &mut LowerCx<'_>| {
        let vars = grid_vars(cx, &first.grid, Some(index));
        run(cx, first, &vars)
    };
    if rest.is_empty() {
        return go(cx);
    }
    let mine = Dim::product(&first.grid);
    let n = cx.scalar(&mine);
    cx.if_else(Cond { op: CmpOp::Lt, a: Scalar::Reg(index), b: n }, go, |cx| {
        let n = cx.splat_dim(&mine, RegTy::INDEX);
        let left = cx.b.sub(index, n);
        one_of(cx, rest, left)
    })
}
