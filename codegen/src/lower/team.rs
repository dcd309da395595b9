//! What comes after a tile's sums where these go through scratch: the epilogue row by row, and teams,
//! whose workers each have a part of the sum and then a part of the rows.

use super::contract_mac::{Mac, PANEL};
use super::contract_tile::{Cols, Pos, Tiler, mem_dtype};
use super::coord::{AtomData, Coord};
use super::cx::{LowerCx, Made};
use crate::kir::{Addr, AxisId, BinOp, CmpOp, Cond, Reg, Stmt};

/// The problem of one worker of a team of so many, which worker it is, and which reduced axis it has
/// its part of; nothing where it works alone.
pub fn part(cx: &mut LowerCx<'_>, mac: &Mac, team: i64) -> (Option<Mac>, Option<(AxisId, usize)>) {
    if team == 1 {
        return (None, None);
    }
    let (axis, len) = mac.part(team).expect("schedules have teams that can share the sum");
    let mut own = mac.clone();
    own.k[axis].dim = len.into();
    (Some(own), Some((cx.b.team(team as u8), axis)))
}

impl Tiler<'_> {
    /// Where this worker's part of the sum begins.
    pub fn member_pos(&self, cx: &mut LowerCx<'_>, pos: Pos) -> Pos {
        let Some((member, axis)) = self.member else { return pos };
        let k = &self.mac.k[axis];
        let at = cx.atom(AtomData::var(member, self.sch.team.into()));
        self.step(&pos, k, &Coord::from(at).times(&k.dim))
    }

    /// Bytes from row to row in scratch.
    pub(super) fn pitch(&self, cols: Cols) -> i64 {
        let whole = self.sch.tiles && self.sch.lanes > 16;
        let vectors = if whole { self.sch.nv } else { cols.vectors(self.sch.lanes) };
        self.sch.pitch(vectors, self.elem.size() as i64)
    }

    /// Bytes from `at` in this worker's staged tile; all have to be done with what was there.
    pub(super) fn own_tile(&self, at: i64) -> Addr {
        let to = Addr::scratch().offset(self.scratch + at);
        match self.member {
            Some((member, _)) => to.plus(member, self.sch.staged_bytes(self.elem.size() as i64)),
            None => to,
        }
    }

    /// All workers of a team have come here.
    pub(super) fn meet(&self, cx: &mut LowerCx<'_>) {
        if self.member.is_some() {
            cx.b.barrier();
        }
    }

    /// Accumulators to scratch, then the epilogue row by row.
    pub(super) fn staged(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
        cols: Cols,
        acc: &[Vec<Reg>],
    ) -> Made {
        let bytes = self.sch.lanes * self.elem.size() as i64;
        let (pitch, dtype) = (self.pitch(cols), mem_dtype(self.elem));
        self.meet(cx);
        for (i, row) in acc.iter().enumerate() {
            for (j, &r) in row.iter().enumerate() {
                let to = self.own_tile(i as i64 * pitch + j as i64 * bytes);
                cx.b.store(r, to, dtype, None);
            }
        }
        self.epilogue(cx, pos, th, tw, cols)
    }

    /// The epilogue of a tile whose sums lie in scratch, row by row; a team's workers take rows in
    /// turn.
    pub(super) fn epilogue(
        &self,
        cx: &mut LowerCx<'_>,
        pos: &Pos,
        th: i64,
        tw: i64,
        cols: Cols,
    ) -> Made {
        self.meet(cx);
        let team = self.sch.team;
        let (ah, aw) = (cx.b.axis("eh"), cx.b.axis("ew"));
        let h = cx.atom(AtomData::var(ah, th.into()));
        let w = match self.member {
            Some((member, _)) => AtomData::konst(0i64, tw.into()).plus(aw, team).plus(member, 1i64),
            None => AtomData::var(aw, tw.into()),
        };
        let w: Coord = cx.atom(w).into();
        let at = self.step(pos, &self.rows[0].clone(), &h.into());
        let at = self.step(&at, &self.rows[1].clone(), &w);
        let masks = self.masks(cx, cols, self.slack);
        cx.b.begin();
        let made = match tw % team {
            0 => self.finish_row(cx, &at, (ah, aw), tw, cols, &masks),
            _ => super::contract_grid::index_reg(cx, &w).and_then(|row| {
                let cond = Cond { op: CmpOp::Lt, a: row, b: tw.into() };
                cx.if_(cond, |cx| self.finish_row(cx, &at, (ah, aw), tw, cols, &masks))
            }),
        };
        let body = cx.b.end();
        // Rows know nothing of one another: several in a row keep a warp busy.
        let unroll = if cx.target.teams { 4 } else { 0 };
        let extent = ((tw + team - 1) / team).into();
        let inner = Stmt::For { axis: aw, extent, unroll, body };
        cx.b.push(Stmt::For { axis: ah, extent: th.into(), unroll: 0, body: vec![inner] });
        made
    }

    /// Row `(ah, aw)` of the tile, whose parts lie in scratch.
    fn finish_row(
        &self,
        cx: &mut LowerCx<'_>,
        at: &Pos,
        (ah, aw): (AxisId, AxisId),
        tw: i64,
        cols: Cols,
        masks: &[Option<Reg>],
    ) -> Made {
        let (size, team) = (self.elem.size() as i64, self.sch.team);
        let (pitch, dtype, ty) = (self.pitch(cols), mem_dtype(self.elem), self.vec_ty());
        // Panels of 16 features may fill half a vector.
        let there = match (self.sch.tiles && self.sch.lanes > PANEL, cols) {
            (true, Cols::First(n)) => self.masks(cx, Cols::First(n), 0),
            _ => vec![None; masks.len()],
        };
        for j in 0..cols.vectors(self.sch.lanes) {
            let mut sum = None;
            for part in 0..team {
                let from = self.scratch + j * self.sch.lanes * size;
                let mut from = Addr::scratch().offset(from + part * self.sch.staged_bytes(size));
                from = from.plus(ah, tw * pitch).plus(aw, team * pitch);
                if let Some((member, _)) = self.member {
                    from = from.plus(member, pitch);
                }
                let x = cx.b.load(ty, from, dtype, there[j as usize]);
                sum = Some(sum.map_or(x, |s| cx.b.bin(BinOp::Add, s, x)));
            }
            let sum = sum.expect("a team has workers");
            self.finish(cx, at, j, sum, masks[j as usize])?;
        }
        Ok(())
    }
}
