//! Short rows: where the reduced axis is contiguous and only a few elements long, vectors run across
//! rows instead. Blocks of rows are turned in registers into the worker's scratch, one vector an
//! element of the row, and outputs of the full shape are turned back.

use super::coord::{Atom, AtomData, Coord};
use super::cx::{LowerCx, Made};
use super::memo::Kept;
use super::nest::At;
use super::study::{Domain, Loop, Study};
use super::transpose::{turned, turned_rows};
use super::value::elem_of;
use crate::kir::{Addr, Base, Elem, RegTy};
use crate::task::Which;
use hub_abi::{Dim, Dtype};
use hub_ir::Value;

/// What is turned.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The row's dim and length.
    row: (usize, i64),
    /// The dim of the rows side by side.
    pub across: usize,
    /// Inputs, by position, and where they are put.
    inputs: Vec<(usize, Value, Kept)>,
    /// Outputs of the full shape, by position, and where they are made.
    outputs: Vec<(usize, Kept)>,
}

/// Plans staging for a nest whose only reduced loop is `row` and whose vectors should run along
/// `across`; none where it does not serve.
pub fn find(
    cx: &mut LowerCx<'_>,
    found: &Study,
    domain: &Domain,
    row: &Loop,
    across: &Loop,
) -> Option<Stage> {
    let lanes = cx.lanes as i64;
    let n = row.extent.as_const().filter(|n| (2..=2 * lanes + lanes / 2).contains(n))?;
    let few = !cx.target.own_core || cx.target.vector_regs < cx.lanes + cx.lanes / 2;
    let pinned = found.is_pinned(across.dim) || found.notes.traps;
    if few || pinned || cx.estimate(&across.extent) < 2 * lanes {
        return None;
    }
    let axis = domain.axes.iter().position(|a| a[..] == [row.dim])?;
    let mut s = Stage { row: (row.dim, n), across: across.dim, inputs: vec![], outputs: vec![] };
    for a in &found.notes.accesses {
        let op = cx.operand(a.which);
        let size = op.dtype.size() as i64;
        let coef = |l: &Loop| a.bytes.coef(Atom(l.dim as u32));
        let (along, side) = (coef(row), coef(across));
        if side.is(0) || side.is(size) || along.is(0) {
            continue;
        }
        let plain = along.is(size) && elem_of(op.dtype) == Ok(Elem::F32);
        if !plain || op.dims.len() != domain.axes.len() {
            return None;
        }
        let mut strides = vec![0; domain.axes.len()];
        strides[axis] = 4 * lanes;
        match a.which {
            Which::In(i) if s.inputs.iter().all(|x| x.0 != i) => {
                let v = cx.task.g.regions[cx.task.region].params[i];
                let offset = cx.b.scratch((4 * n * lanes) as u64);
                s.inputs.push((i, v, Kept { offset, strides }));
            }
            Which::Out(i) if s.outputs.iter().all(|x| x.0 != i) => {
                let offset = cx.b.scratch((4 * n * lanes) as u64);
                s.outputs.push((i, Kept { offset, strides }));
            }
            _ => {}
        }
    }
    (!s.inputs.is_empty()).then_some(s)
}

impl Stage {
    /// The position of row `j` of a block whose vector index is `v`, `c` elements into the row and
    /// on along the lanes.
    fn row_at(
        &self,
        cx: &mut LowerCx<'_>,
        domain: &Domain,
        at: &At,
        (v, j): (&AtomData, i64),
        c: i64,
    ) -> Vec<Coord> {
        let mut at = at.clone();
        let scalar = AtomData { step: 0, ..v.clone() };
        at[self.across] = cx.atom(scalar.offset(j)).into();
        let row = AtomData::konst(c, Dim::from(self.row.1)).along_lanes();
        at[self.row.0] = cx.atom(row).into();
        domain.coords(&at)
    }

    /// Blocks of a row's elements: first and number.
    fn blocks(&self, lanes: i64) -> Vec<(i64, i64)> {
        let n = self.row.1;
        (0..n).step_by(lanes as usize).map(|c| (c, lanes.min(n - c))).collect()
    }

    /// Turns the inputs of the rows at `v` (an index along the lanes) into scratch.
    pub fn load(&self, cx: &mut LowerCx<'_>, domain: &Domain, at: &At, v: &AtomData) -> Made {
        let lanes = cx.lanes as i64;
        for (i, value, kept) in &self.inputs {
            let of = Which::In(*i);
            let (p, origin) = cx.ptr(of);
            for (c, n) in self.blocks(lanes) {
                let columns = turned_rows(cx, of, lanes, n, |cx, j| {
                    let coords = self.row_at(cx, domain, at, (v, j), c);
                    let bytes = cx.byte_offset(of, &coords).plus(&origin);
                    cx.address(Base::Param(p), &bytes).0
                })?;
                for (k, r) in columns.into_iter().enumerate() {
                    let to = Addr::scratch().offset(kept.offset + 4 * lanes * (c + k as i64));
                    cx.b.store(r, to, Dtype::F32, None);
                }
            }
            cx.keep(*value, kept.clone());
        }
        Ok(())
    }

    /// Inputs are read from memory again.
    pub fn unload(&self, cx: &mut LowerCx<'_>) {
        self.inputs.iter().for_each(|x| cx.unkeep(x.1));
    }

    /// Where output `i` is made, if it is turned back.
    pub fn output(&self, i: usize) -> Option<&Kept> {
        self.outputs.iter().find(|o| o.0 == i).map(|o| &o.1)
    }

    /// Turns outputs back and stores them.
    pub fn store(&self, cx: &mut LowerCx<'_>, domain: &Domain, at: &At, v: &AtomData) -> Made {
        let lanes = cx.lanes as i64;
        let ty = RegTy::new(Elem::F32, cx.lanes);
        for (i, kept) in &self.outputs {
            for (c, n) in self.blocks(lanes) {
                let mut columns = vec![];
                for k in c..c + n {
                    let from = Addr::scratch().offset(kept.offset + 4 * lanes * k);
                    columns.push(cx.b.load(ty, from, Dtype::F32, None));
                }
                let rows = turned(cx, columns, ty);
                if n < lanes && cx.operand(Which::Out(*i)).slack < lanes - n {
                    cx.active = Some(cx.b.first_lanes(cx.lanes, n));
                }
                for (j, r) in rows.into_iter().enumerate() {
                    let coords = self.row_at(cx, domain, at, (v, j as i64), c);
                    cx.store(*i, &coords, r)?;
                }
                cx.active = None;
            }
        }
        Ok(())
    }
}
