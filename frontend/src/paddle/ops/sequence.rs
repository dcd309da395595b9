//! Operators on sequences (LoD).

use super::lod::{at, iota, of_offsets, offsets_of, sequences, total, within};
use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::norm::Softmax;
use hub_ir::{BinaryOp, Dim, Dtype, PadMode, Prim, ReduceOp, Value};

/// sequence_pool: one row a sequence. An empty one gives `pad_value`.
pub fn pool(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let v = pooled(c, x)?;
    super::lod::raised(c, x, v);
    c.put("Out", v);
    Ok(())
}

fn pooled(c: &mut Ctx<'_, '_>, x: Value) -> Res<Value> {
    let s = sequences(c, x)?;
    let dtype = c.b.g.dtype(x);
    let kind = c.text("pooltype", "AVERAGE").to_string();
    let mut v = match kind.as_str() {
        "LAST" | "FIRST" => {
            let row = match kind.as_str() {
                "LAST" => c.b.bin_scalar(BinaryOp::Sub, s.ends, 1.0)?,
                _ => s.starts,
            };
            let row = within(c, row, &s.rows)?;
            at(c, x, row)?
        }
        "SUM" | "AVERAGE" | "SQRT" | "MAX" => {
            let max = kind == "MAX";
            let longest = s.longest(c)?;
            let fill = c.b.scalar(dtype, if max { f64::NEG_INFINITY } else { 0.0 });
            let rows = s.padded(c, x, &longest, fill, false)?;
            c.b.reduce(if max { ReduceOp::Max } else { ReduceOp::Sum }, rows, &[1], false)?
        }
        other => return c.refuse(format!("pooling by {other}")),
    };
    let mut shape = vec![Dim::from(1i64); c.rank(v)];
    shape[0] = s.n.clone();
    if kind == "AVERAGE" || kind == "SQRT" {
        let n = c.b.cast(s.lens, dtype)?;
        let n = if kind == "SQRT" { c.b.un(hub_ir::UnaryOp::Sqrt, n)? } else { n };
        let n = c.b.reshape(n, shape.clone())?;
        v = c.b.div(v, n)?;
    }
    let some = c.b.bin_scalar(BinaryOp::Gt, s.lens, 0.0)?;
    let some = c.b.reshape(some, shape)?;
    let pad = c.b.scalar(dtype, c.float("pad_value", 0.0));
    Ok(c.b.select(some, v, pad)?)
}

/// fusion_seqpool_concat: pools of several operands, side by side.
pub fn pool_concat(c: &mut Ctx<'_, '_>) -> Res {
    let mut parts = vec![];
    for x in c.all("X")? {
        parts.push(pooled(c, x)?);
    }
    let v = c.b.concat(&parts, 1)?;
    c.put("Out", v);
    Ok(())
}

/// sequence_softmax over each sequence of `[T]` or `[T, 1]`.
pub fn softmax(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let s = sequences(c, x)?;
    let longest = s.longest(c)?;
    let low = c.b.scalar(c.b.g.dtype(x), f64::NEG_INFINITY);
    let rows = s.padded(c, x, &longest, low, false)?;
    let v = c.b.source(Softmax { axis: 1, log: false }, &[rows])?;
    let v = s.flat(c, v, false)?;
    c.put("Out", v);
    Ok(())
}

/// Row `t + shift` of the same sequence, else zeros.
fn shifted(c: &mut Ctx<'_, '_>, x: Value, fill: Value, shift: i64) -> Res<Value> {
    let s = sequences(c, x)?;
    let (owner, place) = s.owners(c)?;
    let there = c.b.bin_scalar(BinaryOp::Add, place, shift as f64)?;
    let len = at(c, s.lens, owner)?;
    let (low, high) =
        (c.b.bin_scalar(BinaryOp::Ge, there, 0.0)?, c.b.bin(BinaryOp::Lt, there, len)?);
    let mut inside = c.b.bin(BinaryOp::And, low, high)?;
    let row = iota(c, &s.rows)?;
    let row = c.b.bin_scalar(BinaryOp::Add, row, shift as f64)?;
    let row = within(c, row, &s.rows)?;
    let v = at(c, x, row)?;
    for axis in 1..c.rank(v) {
        inside = c.b.unsqueeze(inside, axis)?;
    }
    Ok(c.b.select(inside, v, fill)?)
}

fn context(c: &mut Ctx<'_, '_>) -> Res<Value> {
    let (x, w) = (c.tensor("X")?, c.tensor("Filter")?);
    let (n, first) = (c.int("contextLength", 1), c.int("contextStart", 0));
    if !(1..=256).contains(&n) || c.int("contextStride", 1) != 1 {
        return c.refuse(format!("a context of {n} rows"));
    }
    if c.flag("paddingTrainable", false) {
        return c.refuse("learnt rows around sequences");
    }
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let mut taps = vec![];
    for j in 0..n {
        taps.push(shifted(c, x, zero, first.saturating_add(j))?);
    }
    let v = c.b.concat(&taps, 1)?;
    Ok(c.b.matmul(v, w)?)
}

/// sequence_conv: each row with its neighbours in the sequence, side by side, times the filter.
pub fn conv(c: &mut Ctx<'_, '_>) -> Res {
    let v = context(c)?;
    c.put("Out", v);
    Ok(())
}

/// fusion_seqconv_eltadd_relu.
pub fn conv_add_relu(c: &mut Ctx<'_, '_>) -> Res {
    let v = context(c)?;
    let bias = c.tensor("Bias")?;
    let v = c.b.add(v, bias)?;
    let v = c.b.bin_scalar(BinaryOp::Max, v, 0.0)?;
    c.put("Out", v);
    Ok(())
}

/// row_conv: each row and those after it, weighted; sequences, or `[B, T, D]`.
pub fn row_conv(c: &mut Ctx<'_, '_>) -> Res {
    let (x, w) = (c.tensor("X")?, c.tensor("Filter")?);
    let dims = c.at_least(x, 2)?;
    let Some(n @ 1..=256) = c.dims(w).first().and_then(Dim::as_const) else {
        return c.refuse("an unknown number of rows");
    };
    let zero = c.b.scalar(c.b.g.dtype(x), 0.0);
    let batch = dims.len() == 3;
    let padded = if batch {
        let none = Dim::from(0i64);
        let after = vec![none.clone(), (n - 1).into(), none.clone()];
        let pad = Prim::Pad { before: vec![none; 3], after, mode: PadMode::Constant };
        c.b.prim(pad, &[x, zero])?
    } else {
        x
    };
    let mut sum: Option<Value> = None;
    for k in 0..n {
        let tap = match batch {
            true => c.b.narrow(padded, 1, k.into(), dims[1].clone())?,
            false => shifted(c, x, zero, k)?,
        };
        let row = c.b.narrow(w, 0, k.into(), 1i64.into())?;
        let v = c.b.mul(tap, row)?;
        sum = Some(match sum {
            Some(s) => c.b.add(s, v)?,
            None => v,
        });
    }
    if let Some(v) = sum {
        c.put("Out", v);
    }
    Ok(())
}

/// sequence_expand, sequence_expand_as: sequence (or row) i of X as often as sequence i of Y is long.
pub fn expand(c: &mut Ctx<'_, '_>) -> Res {
    let (x, y) = (c.tensor("X")?, c.tensor("Y")?);
    let sy = super::lod::level(c, y, c.int("ref_level", -1))?;
    let (owner, _) = sy.owners(c)?;
    let own = c.lods.contains_key(&x) && c.op.kind == "sequence_expand";
    if !own {
        let v = at(c, x, owner)?;
        c.lods.insert(v, sy.offsets);
        c.put("Out", v);
        return Ok(());
    }
    let sx = sequences(c, x)?;
    let lens = at(c, sx.lens, owner)?;
    let offsets = offsets_of(c, lens)?;
    let rows = total(c, lens, "expanded")?;
    let copies = of_offsets(c, offsets, rows)?;
    let (copy, place) = copies.owners(c)?;
    let of = at(c, owner, copy)?;
    let start = at(c, sx.starts, of)?;
    let row = c.b.add(start, place)?;
    let v = at(c, x, row)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// sequence_pad: `[N, L, …]`, and the lengths.
pub fn pad(c: &mut Ctx<'_, '_>) -> Res {
    let (x, fill) = (c.tensor("X")?, c.tensor("PadValue")?);
    let s = sequences(c, x)?;
    let longest = match c.int("padded_length", -1) {
        n @ 1.. => n.into(),
        _ => s.longest(c)?,
    };
    let fill = match c.b.g.tensor(fill).count().is(1) {
        true => c.b.reshape(fill, vec![])?,
        false => fill,
    };
    let v = s.padded(c, x, &longest, fill, false)?;
    c.put("Out", v);
    c.put("Length", s.lens);
    Ok(())
}

/// sequence_unpad: rows of `[N, L, …]` up to each length, end to end.
pub fn unpad(c: &mut Ctx<'_, '_>) -> Res {
    let (mut x, lens) = (c.tensor("X")?, c.tensor("Length")?);
    let n = c.b.g.tensor(lens).count();
    let lens = c.b.reshape(lens, vec![n])?;
    let lens = c.b.cast(lens, Dtype::I64)?;
    let offsets = offsets_of(c, lens)?;
    let rows = total(c, lens, "unpadded")?;
    let s = of_offsets(c, offsets, rows)?;
    if c.rank(x) == 2 {
        x = c.b.unsqueeze(x, 2)?;
    }
    let v = s.flat(c, x, false)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// sequence_reverse.
pub fn reverse(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let s = sequences(c, x)?;
    let (owner, place) = s.owners(c)?;
    let end = at(c, s.ends, owner)?;
    let last = c.b.bin_scalar(BinaryOp::Sub, end, 1.0)?;
    let row = c.b.sub(last, place)?;
    let v = at(c, x, row)?;
    c.put("Y", v);
    Ok(())
}

/// sequence_concat: sequence i of each operand, one after the other.
pub fn concat(c: &mut Ctx<'_, '_>) -> Res {
    let xs = c.all("X")?;
    let mut all = vec![];
    for &x in &xs {
        all.push(sequences(c, x)?);
    }
    let (Some(first), rows) = (all.first(), c.b.concat(&xs, 0)?) else {
        return c.refuse("a concatenation of nothing");
    };
    let mut lens = first.lens;
    for s in &all[1..] {
        lens = c.b.add(lens, s.lens)?;
    }
    let offsets = offsets_of(c, lens)?;
    let count = c.dim(rows, 0)?;
    let joined = of_offsets(c, offsets, count)?;
    let (owner, mut place) = joined.owners(c)?;
    let mut base = Dim::from(0i64);
    let mut row: Option<Value> = None;
    for s in &all {
        let (start, len) = (at(c, s.starts, owner)?, at(c, s.lens, owner)?);
        let from = c.b.dim_scalar(base.clone());
        let start = c.b.add(start, from)?;
        let here = c.b.add(start, place)?;
        let begun = c.b.bin_scalar(BinaryOp::Ge, place, 0.0)?;
        row = Some(match row {
            Some(before) => c.b.select(begun, here, before)?,
            None => here,
        });
        place = c.b.sub(place, len)?;
        base = base.add(&s.rows);
    }
    if let Some(row) = row {
        let v = at(c, rows, row)?;
        c.lods.insert(v, offsets);
        c.put("Out", v);
    }
    Ok(())
}

/// sequence_slice: a part of each sequence.
pub fn slice(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let s = sequences(c, x)?;
    let mut vector = |slot: &str| -> Res<Value> {
        let v = c.tensor(slot)?;
        let v = c.b.reshape(v, vec![s.n.clone()])?;
        Ok(c.b.cast(v, Dtype::I64)?)
    };
    let (skip, lens) = (vector("Offset")?, vector("Length")?);
    let offsets = offsets_of(c, lens)?;
    let rows = total(c, lens, "sliced")?;
    let parts = of_offsets(c, offsets, rows)?;
    let (owner, place) = parts.owners(c)?;
    let start = c.b.add(s.starts, skip)?;
    let start = at(c, start, owner)?;
    let row = c.b.add(start, place)?;
    let v = at(c, x, row)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// sequence_reshape: rows of another width.
pub fn reshape(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let s = sequences(c, x)?;
    let width = c.dims(x).get(1).and_then(Dim::as_const);
    let (Some(width), new @ 1..) = (width, c.int("new_dim", 0)) else {
        return c.refuse("rows of unknown width");
    };
    let rows = s.rows.times(width).div(&new.into());
    let v = c.b.reshape(x, vec![rows, new.into()])?;
    let offsets = c.b.bin_scalar(BinaryOp::Mul, s.offsets, width as f64)?;
    let offsets = c.b.bin_scalar(BinaryOp::Div, offsets, new as f64)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// sequence_enumerate: each id with those after it in the sequence, else the padding.
pub fn enumerate(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let pad = c.b.scalar(c.b.g.dtype(x), c.int("pad_value", 0) as f64);
    let n = c.int("win_size", 1);
    if !(1..=256).contains(&n) {
        return c.refuse(format!("windows of {n}"));
    }
    let mut taps = vec![];
    for k in 0..n {
        taps.push(shifted(c, x, pad, k)?);
    }
    let v = c.b.concat(&taps, 1)?;
    c.put("Out", v);
    Ok(())
}

/// Rows where `keep` holds (bool `[T]`), and the offsets of what is left of the sequences.
pub fn kept(c: &mut Ctx<'_, '_>, x: Value, offsets: Value, keep: Value) -> Res<(Value, Value)> {
    let count = super::index::count_of_non_zero(c, keep);
    let rows = c.b.prim(Prim::NonZero { count }, &[keep])?;
    let n = c.dim(rows, 1)?;
    let rows = c.b.reshape(rows, vec![n])?;
    let v = at(c, x, rows)?;
    let ones = c.b.cast(keep, Dtype::I64)?;
    let before = offsets_of(c, ones)?;
    let offsets = at(c, before, offsets)?;
    Ok((v, offsets))
}

/// sequence_erase: ids without those that are listed.
pub fn erase(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let s = sequences(c, x)?;
    let flat = c.b.reshape(x, vec![s.rows.clone()])?;
    let mut keep = c.b.bin(BinaryOp::Eq, flat, flat)?;
    for t in c.ints("tokens").unwrap_or_default() {
        let other = c.b.bin_scalar(BinaryOp::Ne, flat, t as f64)?;
        keep = c.b.bin(BinaryOp::And, keep, other)?;
    }
    let (v, offsets) = kept(c, x, s.offsets, keep)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// sequence_scatter: the updates of sequence i are added to row i at its ids.
pub fn scatter(c: &mut Ctx<'_, '_>) -> Res {
    let (x, ids, updates) = (c.tensor("X")?, c.tensor("Ids")?, c.tensor("Updates")?);
    let s = sequences(c, ids)?;
    let (owner, _) = s.owners(c)?;
    let owner = c.b.unsqueeze(owner, 1)?;
    let ids = c.b.cast(ids, Dtype::I64)?;
    let ids = c.b.reshape(ids, vec![s.rows.clone(), 1i64.into()])?;
    let index = c.b.concat(&[owner, ids], 1)?;
    let updates = c.b.reshape(updates, vec![s.rows])?;
    let op = hub_abi::prim::ScatterOp::Add;
    let v = c.b.prim(Prim::ScatterNd { op }, &[x, index, updates])?;
    c.put("Out", v);
    Ok(())
}

/// lod_reset: the same rows with other offsets: Y's, Y itself, or an attribute's.
pub fn lod_reset(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    let rows = c.dims(x).first().cloned().unwrap_or(1i64.into());
    let offsets = match c.opt("Y") {
        Some(y) => match c.lods.get(&y) {
            Some(&offsets) => offsets,
            None if c.rank(y) != 1 => {
                return Err(crate::FrontendError::invalid("offsets that are no vector"));
            }
            None => {
                let offsets = c.b.cast(y, Dtype::I64)?;
                super::lod::check(c.b, offsets, &rows, "Y")?;
                offsets
            }
        },
        None => {
            let list = c.ints("target_lod").unwrap_or_default();
            let falls = list.first() != Some(&0) || list.windows(2).any(|w| w[0] > w[1]);
            let n = rows.as_const().or(list.last().copied());
            if falls || list.last().copied() != n {
                return Err(crate::FrontendError::invalid(format!("offsets {list:?}")));
            }
            let offsets = c.b.ints(&list);
            super::lod::check(c.b, offsets, &rows, "target_lod")?;
            offsets
        }
    };
    // A value of its own, since offsets belong to values.
    let shape = c.dims(x);
    let v = c.b.prim(Prim::Reshape { shape }, &[x])?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}

/// im2sequence: the patches of each image as a sequence of rows.
pub fn im2sequence(c: &mut Ctx<'_, '_>) -> Res {
    let x = c.tensor("X")?;
    if c.opt("Y").is_some() {
        return c.refuse("patches by the images' real sizes (Y)");
    }
    let two = |l: Option<Vec<i64>>| l.and_then(|l| <[i64; 2]>::try_from(l).ok()).unwrap_or([1; 2]);
    let (k, stride) = (two(c.ints("kernels")), two(c.ints("strides")));
    let pads = c.ints("paddings").and_then(|l| <[i64; 4]>::try_from(l).ok()).unwrap_or([0; 4]);
    let v = super::misc::patches(c, x, k, stride, [1, 1], pads)?;
    let d = c.at_least(v, 3)?;
    let v = c.b.transpose(v, &[0, 2, 1])?;
    let v = c.b.reshape(v, vec![d[0].mul(&d[2]), d[1].clone()])?;
    let image = iota(c, &d[0].plus(1))?;
    let each = c.b.dim_scalar(d[2].clone());
    let offsets = c.b.mul(image, each)?;
    c.lods.insert(v, offsets);
    c.put("Out", v);
    Ok(())
}
