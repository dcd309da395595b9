//! Tensors that hold sequences end to end (LoD): data beside the offsets `[0, …, T]` at which the
//! sequences start. Sequences are worked on as rows of `[N, L, …]`, where L is the longest one's
//! length, known when the graph runs.

use crate::options::DIM_MAX;
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::build::{Builder, Built};
use hub_ir::{BinaryOp, Control, Dim, Dtype, Prim, ReduceOp, Region, Type, Value};

/// Gives results that have no offsets of their own those of the first operand that has any, where
/// their rows are as many.
pub fn inherit(c: &mut Ctx<'_, '_>) {
    let operands = c.ins.iter().flat_map(|(_, o)| &o.values);
    let Some((&from, &offsets)) = operands.filter_map(|v| c.lods.get_key_value(v)).next() else {
        return;
    };
    let upper = c.outer.get(&from).cloned().unwrap_or_default();
    let rows = |v: Value| c.b.g.ty(v).as_tensor().and_then(|t| t.dims.first().cloned());
    let want = rows(from);
    for &v in c.outs.iter().flat_map(|(_, vs)| vs) {
        if rows(v) == want && *c.lods.entry(v).or_insert(offsets) == offsets {
            c.outer.entry(v).or_insert_with(|| upper.clone());
        }
    }
}

/// The sequences of a value.
pub struct Sequences {
    /// Int64 `[N + 1]`.
    pub offsets: Value,
    /// Int64 `[N]`: first row, row behind the last, number of rows.
    pub starts: Value,
    pub ends: Value,
    pub lens: Value,
    /// How many.
    pub n: Dim,
    /// Rows of all.
    pub rows: Dim,
}

/// The sequences of an operand, which must have offsets.
pub fn sequences(c: &mut Ctx<'_, '_>, x: Value) -> Res<Sequences> {
    let Some(&offsets) = c.lods.get(&x) else {
        return c.refuse("an operand without offsets of sequences (LoD)");
    };
    let rows = c.dims(x).first().cloned().unwrap_or(1i64.into());
    of_offsets(c, offsets, rows)
}

/// The sequences of a level of an operand's, 0 being the outermost, −1 that of the rows. Those of an
/// upper level consist of the next level's sequences.
pub fn level(c: &mut Ctx<'_, '_>, x: Value, level: i64) -> Res<Sequences> {
    let upper = c.outer.get(&x).cloned().unwrap_or_default();
    let at = if level < 0 { upper.len() } else { level as usize };
    let Some(&offsets) = upper.get(at) else { return sequences(c, x) };
    let next = upper.get(at + 1).or_else(|| c.lods.get(&x)).copied().unwrap_or(offsets);
    let rows = c.dim(next, 0)?.plus(-1);
    of_offsets(c, offsets, rows)
}

/// A result of one row for each sequence of `from` has the offsets of the levels above.
pub fn raised(c: &mut Ctx<'_, '_>, from: Value, v: Value) {
    let mut upper = c.outer.get(&from).cloned().unwrap_or_default();
    if let Some(last) = upper.pop() {
        c.lods.insert(v, last);
        c.outer.insert(v, upper);
    }
}

/// Sequences by their offsets.
pub fn of_offsets(c: &mut Ctx<'_, '_>, offsets: Value, rows: Dim) -> Res<Sequences> {
    c.ranked(&[offsets], 1)?;
    let n = c.dim(offsets, 0)?.plus(-1);
    let starts = c.b.narrow(offsets, 0, 0i64.into(), n.clone())?;
    let ends = c.b.narrow(offsets, 0, 1i64.into(), n.clone())?;
    let lens = c.b.sub(ends, starts)?;
    Ok(Sequences { offsets, starts, ends, lens, n, rows })
}

/// Checks when the graph runs that offsets given from outside are those of sequences of so many
/// rows: the first is 0, none is less than the one before it, the last is `rows`. Operators clamp
/// what they index by, which would otherwise hide such a mistake.
pub fn check(b: &mut Builder<'_>, offsets: Value, rows: &Dim, name: &str) -> Built<()> {
    let n = b.g.dims(offsets)[0].clone();
    let (zero, one) = (Dim::from(0i64), Dim::from(1i64));
    let starts = b.narrow(offsets, 0, zero.clone(), n.plus(-1))?;
    let ends = b.narrow(offsets, 0, one.clone(), n.plus(-1))?;
    let falls = b.bin(BinaryOp::Lt, ends, starts)?;
    let first = b.narrow(offsets, 0, zero, one.clone())?;
    let first = b.bin_scalar(BinaryOp::Ne, first, 0.0)?;
    let last = b.narrow(offsets, 0, n.plus(-1), one)?;
    let rows = b.dim_scalar(rows.clone());
    let last = b.bin(BinaryOp::Ne, last, rows)?;
    let wrong = b.concat(&[falls, first, last], 0)?;
    let wrong = b.cast(wrong, Dtype::I64)?;
    let wrong = b.reduce(ReduceOp::Sum, wrong, &[0], false)?;
    let none = b.g.new_sym(&format!("wrong offsets in {name}"), 0, 0);
    b.prim_n(Prim::BindSyms { syms: vec![none] }, &[wrong])?;
    Ok(())
}

/// The offsets that numbers of rows a sequence make, checked as [`check`] does.
pub fn offsets_of_all(c: &mut Ctx<'_, '_>, lens: Value, rows: &Dim, name: &str) -> Res<Value> {
    let offsets = offsets_of(c, lens)?;
    check(c.b, offsets, rows, name)?;
    Ok(offsets)
}

/// Offsets from lengths, int64 `[N]`.
pub fn offsets_of(c: &mut Ctx<'_, '_>, lens: Value) -> Res<Value> {
    c.ranked(&[lens], 1)?;
    let lens = c.b.cast(lens, Dtype::I64)?;
    let sum = Prim::Cumulative { op: ReduceOp::Sum, axis: 0, exclusive: false, reverse: false };
    let ends = c.b.prim(sum, &[lens])?;
    let zero = c.b.ints(&[0]);
    Ok(c.b.concat(&[zero, ends], 0)?)
}

/// `0, 1, …` as int64.
pub fn iota(c: &mut Ctx<'_, '_>, n: &Dim) -> Res<Value> {
    Ok(c.b.prim(Prim::Iota { dtype: Dtype::I64, shape: vec![n.clone()], axis: 0 }, &[])?)
}

/// Elements of a vector at int64 indices.
pub fn at(c: &mut Ctx<'_, '_>, v: Value, i: Value) -> Res<Value> {
    Ok(c.b.prim(Prim::Gather { axis: 0 }, &[v, i])?)
}

/// A new size: the sum of an int64 vector, bound when the graph runs.
pub fn total(c: &mut Ctx<'_, '_>, v: Value, name: &str) -> Res<Dim> {
    let sum = c.b.reduce(ReduceOp::Sum, v, &[0], false)?;
    Ok(c.b.dims_of(sum, name, 0, DIM_MAX)?.remove(0))
}

impl Sequences {
    /// Of each row: its sequence, and its place there; int64 `[T]`.
    pub fn owners(&self, c: &mut Ctx<'_, '_>) -> Res<(Value, Value)> {
        let row = iota(c, &self.rows)?;
        let column = c.b.unsqueeze(row, 1)?;
        let past = c.b.bin(BinaryOp::Le, self.ends, column)?;
        let past = c.b.cast(past, Dtype::I64)?;
        let owner = c.b.reduce(ReduceOp::Sum, past, &[1], false)?;
        let start = at(c, self.starts, owner)?;
        let place = c.b.sub(row, start)?;
        Ok((owner, place))
    }

    /// The longest one's length.
    pub fn longest(&self, c: &mut Ctx<'_, '_>) -> Res<Dim> {
        let most = c.b.reduce(ReduceOp::Max, self.lens, &[0], false)?;
        let most = c.b.bin_scalar(BinaryOp::Max, most, 1.0)?;
        Ok(c.b.dims_of(most, "longest", 1, DIM_MAX)?.remove(0))
    }

    /// Which places of `[N, L]` a sequence fills.
    pub fn filled(&self, c: &mut Ctx<'_, '_>, longest: &Dim) -> Res<Value> {
        let place = iota(c, longest)?;
        let lens = c.b.unsqueeze(self.lens, 1)?;
        Ok(c.b.bin(BinaryOp::Lt, place, lens)?)
    }

    /// Rows as `[N, L, …]`, places behind the end of a sequence being `fill`; backwards if asked.
    pub fn padded(
        &self,
        c: &mut Ctx<'_, '_>,
        x: Value,
        longest: &Dim,
        fill: Value,
        reverse: bool,
    ) -> Res<Value> {
        let place = iota(c, longest)?;
        let row = if reverse {
            let last = c.b.bin_scalar(BinaryOp::Sub, self.ends, 1.0)?;
            let last = c.b.unsqueeze(last, 1)?;
            c.b.sub(last, place)?
        } else {
            let first = c.b.unsqueeze(self.starts, 1)?;
            c.b.add(first, place)?
        };
        let row = within(c, row, &self.rows)?;
        let v = at(c, x, row)?;
        let mut keep = self.filled(c, longest)?;
        for axis in 2..c.rank(v) {
            keep = c.b.unsqueeze(keep, axis)?;
        }
        Ok(c.b.select(keep, v, fill)?)
    }

    /// Back from `[N, L, …]` to rows.
    pub fn flat(&self, c: &mut Ctx<'_, '_>, padded: Value, reverse: bool) -> Res<Value> {
        let (owner, place) = self.owners(c)?;
        let place = if reverse {
            let len = at(c, self.lens, owner)?;
            let last = c.b.bin_scalar(BinaryOp::Sub, len, 1.0)?;
            c.b.sub(last, place)?
        } else {
            place
        };
        let (owner, place) = (c.b.unsqueeze(owner, 1)?, c.b.unsqueeze(place, 1)?);
        let index = c.b.concat(&[owner, place], 1)?;
        Ok(c.b.prim(Prim::GatherNd { batch: 0 }, &[padded, index])?)
    }
}

/// Int64 indices clamped to `0..n`.
pub fn within(c: &mut Ctx<'_, '_>, i: Value, n: &Dim) -> Res<Value> {
    let last = c.b.dim_scalar(n.plus(-1));
    let i = c.b.min(i, last)?;
    Ok(c.b.bin_scalar(BinaryOp::Max, i, 0.0)?)
}

/// A step of a scan: what is carried, and one row of each operand, give what is carried on, and one
/// row of each result.
pub type Step<'s> =
    dyn FnMut(&mut Ctx<'_, '_>, &[Value], &[Value]) -> Res<(Vec<Value>, Vec<Value>)> + 's;

/// A scan over the first axis of `xs`: `step` gets what is carried and one row of each, and gives
/// what is carried on and one row of each result. Gives the last carried values, then the results.
pub fn scan(
    c: &mut Ctx<'_, '_>,
    carried: &[Value],
    xs: &[Value],
    reverse: bool,
    step: &mut Step<'_>,
) -> Res<Vec<Value>> {
    let Some(&first) = xs.first() else { return c.refuse("a scan over nothing") };
    let trip = c.dim(first, 0)?;
    let body = c.b.g.new_region();
    let mut params = vec![];
    for &v in carried {
        let ty = c.b.g.ty(v).clone();
        params.push(c.b.g.add_param(body, ty));
    }
    for &x in xs {
        let ty = Type::tensor(c.b.g.dtype(x), c.dims_from(x, 1)?);
        params.push(c.b.g.add_param(body, ty));
    }
    let (op, dialect) = (c.op, c.dialect);
    let mut nested = c.b.nested();
    let (ins, declared, outs) = (vec![], vec![], vec![]);
    let mut inner = Ctx {
        b: &mut nested,
        op,
        dialect,
        ins,
        declared,
        outs,
        lods: c.lods,
        outer: c.outer,
        pairs: c.pairs,
    };
    let (state, rows) = params.split_at(carried.len());
    let (next, results) = step(&mut inner, state, rows)?;
    nested.into_region(body);
    let mut types: Vec<Type> = carried.iter().map(|&v| c.b.g.ty(v).clone()).collect();
    for &v in &results {
        let dims = [std::slice::from_ref(&trip), c.b.g.dims(v)].concat();
        types.push(Type::tensor(c.b.g.dtype(v), dims));
    }
    c.b.g.regions[body].results = [next, results].concat();
    let Region(body) = body;
    let control = Control::Scan { body, carried: carried.len() as u32, trip, reverse };
    Ok(c.b.control(control, &[carried, xs].concat(), types))
}
