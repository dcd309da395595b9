//! Sequences and optionals.

use crate::error::{ExecFault, Limits, PrimError, misfit};
use crate::exec::{Held, Machine};
use crate::movement::{concat, slice};
use crate::tensor::Tensor;
use crate::value::Value;
use hub_abi::pgraph::Control;
use std::sync::Arc;

/// Greatest nesting of sequences and optionals.
const MAX_NESTING: usize = 32;

fn nesting(v: &Value) -> usize {
    match v {
        Value::Tensor(_) | Value::Opt(None) => 0,
        Value::Seq(s) => 1 + s.iter().map(nesting).max().unwrap_or(0),
        Value::Opt(Some(v)) => 1 + nesting(v),
    }
}

fn may_hold(v: &Value) -> Result<(), ExecFault> {
    match nesting(v) {
        n if n < MAX_NESTING => Ok(()),
        n => Err(ExecFault::Malformed(format!("sequences and optionals nest {n} deep"))),
    }
}

/// Stacks tensors of one shape on a new axis.
pub(crate) fn stack(xs: &[&Tensor], axis: usize, limits: &Limits) -> Result<Tensor, PrimError> {
    let one = |x: &&Tensor| {
        let mut dims = x.dims().to_vec();
        if axis > dims.len() {
            return misfit(format!("axis {axis} is past rank {}", dims.len()));
        }
        dims.insert(axis, 1);
        x.reshaped(&dims)
    };
    let rows = xs.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    concat(&rows.iter().collect::<Vec<_>>(), axis, limits)
}

fn position(at: &Value, len: usize, end: usize) -> Result<usize, ExecFault> {
    let i = at.tensor()?.to_i64()?;
    let j = if i < 0 { i.checked_add(len as i64) } else { Some(i) };
    match j.and_then(|j| usize::try_from(j).ok()) {
        Some(j) if j < end => Ok(j),
        _ => Err(PrimError::Index { index: i, size: len }.into()),
    }
}

fn axis_of(axis: i64, rank: usize) -> Result<usize, PrimError> {
    let at = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    match at.and_then(|a| usize::try_from(a).ok()) {
        Some(a) if a < rank => Ok(a),
        _ => misfit(format!("axis {axis} of {rank} axes")),
    }
}

/// Takes the sequence out of a value.
fn sequence(h: Held) -> Result<(Arc<Vec<Value>>, u64), ExecFault> {
    match h.value {
        Value::Seq(s) => Ok((s, h.bytes)),
        v => Err(ExecFault::Kind { need: "sequence", got: v.kind() }),
    }
}

fn check_len(len: usize, limits: &Limits) -> Result<(), PrimError> {
    let limit = limits.sequence;
    if len as u64 <= limit {
        return Ok(());
    }
    let what = "the number of elements of a sequence";
    Err(PrimError::Limit { what, need: len as u128, limit })
}

impl Machine<'_> {
    /// Counts memory that no value of the frame holds.
    pub(crate) fn hold(&mut self, bytes: u64) -> Result<(), ExecFault> {
        self.frame.count(bytes as i128);
        self.check_live()
    }

    /// Ends what [`Machine::hold`] began.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.frame.count(-(bytes as i128));
    }

    /// Runs what works on sequences and optionals.
    pub(crate) fn values(
        &mut self,
        c: &Control,
        inputs: Vec<Held>,
        limits: &Limits,
    ) -> Result<Vec<Held>, ExecFault> {
        let mut it = inputs.into_iter();
        let mut next =
            || it.next().ok_or_else(|| ExecFault::Malformed("an operand is missing".into()));
        let out: Held = match c {
            Control::SeqNew { .. } => {
                let items: Vec<Held> = it.collect();
                items.iter().try_for_each(|h| may_hold(&h.value))?;
                let bytes = items.iter().map(|h| h.bytes).sum();
                Held { value: Value::seq(items.into_iter().map(|h| h.value).collect()), bytes }
            }
            Control::SeqInsert | Control::SeqSet => {
                let (seq, x) = (next()?, next()?);
                let at = it.next();
                self.write(seq, x, at, matches!(c, Control::SeqSet))?
            }
            Control::SeqErase => {
                let (mut seq, bytes) = sequence(next()?)?;
                let at = match it.next() {
                    Some(at) => position(&at.value, seq.len(), seq.len())?,
                    None if seq.is_empty() => {
                        return Err(PrimError::Index { index: -1, size: 0 }.into());
                    }
                    None => seq.len() - 1,
                };
                let gone = Arc::make_mut(&mut seq).remove(at);
                Held { bytes: bytes.saturating_sub(gone.byte_len()), value: Value::Seq(seq) }
            }
            Control::SeqAt => {
                let (seq, at) = (next()?, next()?);
                let items = seq.value.as_seq()?;
                items[position(&at.value, items.len(), items.len())?].clone().into()
            }
            Control::SeqLen => Tensor::scalar(next()?.value.as_seq()?.len() as i64).into(),
            Control::SeqConcat { axis, stack } => {
                return seq_concat(&next()?.value, *axis, *stack, limits);
            }
            Control::SeqSplit { axis, keep } => {
                let x = next()?;
                let split = it.next();
                let pieces = split_tensor(x.value.tensor()?, split.as_ref(), *axis, *keep, limits)?;
                Value::seq(pieces.into_iter().map(Value::Tensor).collect()).into()
            }
            Control::OptNew { .. } => match it.next() {
                Some(h) => {
                    may_hold(&h.value)?;
                    Held { value: Value::Opt(Some(Arc::new(h.value))), bytes: h.bytes }
                }
                None => Value::Opt(None).into(),
            },
            Control::OptGet => match next()?.value {
                Value::Opt(Some(v)) => (*v).clone().into(),
                Value::Opt(None) => return Err(ExecFault::Empty),
                v => v.into(),
            },
            Control::OptHas => {
                let has = !matches!(next()?.value, Value::Opt(None));
                Tensor::bools(&[], &[has])?.into()
            }
            Control::If { .. } | Control::Loop { .. } | Control::Scan { .. } => {
                return Err(ExecFault::Malformed("a loop where a value is expected".into()));
            }
        };
        Ok(vec![out])
    }

    /// Inserts or replaces an element; in place where nothing else holds the sequence.
    fn write(
        &mut self,
        seq: Held,
        x: Held,
        at: Option<Held>,
        replace: bool,
    ) -> Result<Held, ExecFault> {
        may_hold(&x.value)?;
        let (mut seq, bytes) = sequence(seq)?;
        let at = match at {
            Some(at) => position(&at.value, seq.len(), seq.len() + 1)?,
            None => seq.len(),
        };
        let mut bytes = bytes.saturating_add(x.bytes);
        let items = Arc::make_mut(&mut seq);
        if replace && at < items.len() {
            let old = std::mem::replace(&mut items[at], x.value);
            bytes = bytes.saturating_sub(old.byte_len());
        } else {
            items.insert(at, x.value);
        }
        check_len(seq.len(), self.limits)?;
        Ok(Held { value: Value::Seq(seq), bytes })
    }
}

fn seq_concat(seq: &Value, axis: i64, new: bool, limits: &Limits) -> Result<Vec<Held>, ExecFault> {
    let items = seq.as_seq()?.iter().map(Value::tensor).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = items.first() else {
        return Err(PrimError::Misfit("a concatenation of an empty sequence".into()).into());
    };
    let at = axis_of(axis, first.rank() + usize::from(new))?;
    let joined = if new { stack(&items, at, limits)? } else { concat(&items, at, limits)? };
    let sizes: Vec<i32> = items.iter().map(|t| if new { 1 } else { t.dims()[at] as i32 }).collect();
    Ok(vec![joined.into(), Tensor::new(&[sizes.len()], sizes)?.into()])
}

fn split_tensor(
    x: &Tensor,
    split: Option<&Held>,
    axis: i64,
    keep: bool,
    limits: &Limits,
) -> Result<Vec<Tensor>, ExecFault> {
    let axis = axis_of(axis, x.rank())?;
    let n = x.dims()[axis];
    let sizes: Vec<usize> = match split.map(|h| h.value.tensor()).transpose()? {
        None => {
            check_len(n, limits)?;
            vec![1; n]
        }
        Some(t) if t.rank() == 0 => {
            let size = usize::try_from(t.to_i64()?).ok().filter(|&s| s > 0);
            let Some(size) = size else {
                return Err(PrimError::Misfit("pieces of no elements".into()).into());
            };
            check_len(n.div_ceil(size), limits)?;
            (0..n.div_ceil(size)).map(|i| size.min(n - i * size)).collect()
        }
        Some(t) => {
            let sizes: Option<Vec<usize>> =
                t.to_i64s()?.iter().map(|&s| usize::try_from(s).ok()).collect();
            let total =
                |s: &Vec<usize>| s.iter().try_fold(0usize, |a, &b| a.checked_add(b)) == Some(n);
            let what = || PrimError::Misfit(format!("pieces {t:?} do not make {n} elements"));
            check_len(t.count(), limits)?;
            sizes.filter(total).ok_or_else(what)?
        }
    };
    let (mut from, steps) = (vec![0i64; x.rank()], vec![1i64; x.rank()]);
    let mut len = x.dims().to_vec();
    let mut out = vec![];
    for size in sizes {
        len[axis] = size;
        let mut piece = slice(x, &from, &len, &steps, limits)?;
        from[axis] += size as i64;
        if split.is_none() && !keep {
            let mut dims = len.clone();
            dims.remove(axis);
            piece = piece.reshaped(&dims)?;
        }
        out.push(piece);
    }
    Ok(out)
}
