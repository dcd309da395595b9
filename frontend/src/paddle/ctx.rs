//! What an operator's import sees: its operands by slot, its attributes as any numeric kind with
//! defaults, and a builder. One function serves ProgramDesc and PIR: names that differ between the
//! two are given as alternatives, `"keep_dim|keepdim"`.

use super::program::{Attr, Dialect, OpDesc, VarType, dtype_of_name, dtype_of_number};
use crate::FrontendError;
use crate::options::DIM_MAX;
use hub_ir::{Builder, Dim, Dtype, Value};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// Greatest length of a list of sizes, axes or sections.
pub const MOST_SIZES: usize = 4096;

/// What imports give back.
pub type Res<T = ()> = Result<T, FrontendError>;

/// Operands of one slot.
#[derive(Debug, Default, Clone)]
pub struct Operands {
    /// Those that are computed.
    pub values: Vec<Value>,
    /// The name of one that is not.
    pub missing: Option<String>,
    /// Whether the import asked for it.
    pub asked: Cell<bool>,
}

/// Operands that change nothing about an inference.
const WITHOUT_EFFECT: &[&str] =
    &["Seed", "MomentumTensor", "SkipUpdate", "DropoutState", "DropoutIn"];

/// An operator that is being imported.
pub struct Ctx<'a, 'g> {
    /// Where nodes go.
    pub b: &'a mut Builder<'g>,
    /// The operator.
    pub op: &'a OpDesc,
    /// Its format.
    pub dialect: Dialect,
    /// Operands by slot.
    pub ins: Vec<(&'a str, Operands)>,
    /// Declared types of results by slot.
    pub declared: Vec<(&'a str, Vec<VarType>)>,
    /// Results by slot, as the import puts them.
    pub outs: Vec<(&'static str, Vec<Value>)>,
    /// Offsets of the sequences that values hold (LoD).
    pub lods: &'a mut HashMap<Value, Value>,
    /// Offsets of levels above those, outermost first: they count the sequences of the next level.
    pub outer: &'a mut HashMap<Value, Vec<Value>>,
    /// Complex tensors, held as pairs along a last axis.
    pub pairs: &'a mut HashSet<Value>,
}

fn named<'t, T>(list: &'t [(&str, T)], names: &str) -> Option<&'t T> {
    names.split('|').find_map(|n| list.iter().find(|(s, _)| *s == n).map(|(_, t)| t))
}

fn operands<'t>(list: &'t [(&str, Operands)], names: &str) -> Option<&'t Operands> {
    named(list, names).inspect(|o| o.asked.set(true))
}

impl Ctx<'_, '_> {
    /// No operand was left unread: one that an import does not know would change the answer.
    pub fn all_read(&self) -> Res {
        let unread = |(s, o): &&(&str, Operands)| {
            !o.asked.get() && !o.values.is_empty() && !WITHOUT_EFFECT.contains(s)
        };
        match self.ins.iter().position(|slot| unread(&slot)) {
            Some(i) if self.ins[i].0.is_empty() => {
                self.refuse(format!("operand {i} has no meaning here"))
            }
            Some(i) => self.refuse(format!("operand {} has no meaning here", self.ins[i].0)),
            None => Ok(()),
        }
    }

    /// An operand that changes nothing about this answer.
    pub fn ignore(&self, slot: &str) {
        operands(&self.ins, slot);
    }

    /// An operand, if it is given and computed.
    pub fn opt(&self, slot: &str) -> Option<Value> {
        let given = |n| operands(&self.ins, n).and_then(|o| o.values.first().copied());
        slot.split('|').find_map(given)
    }

    /// An operand that must be there.
    pub fn get(&self, slot: &str) -> Res<Value> {
        if let Some(v) = self.opt(slot) {
            return Ok(v);
        }
        let missing = operands(&self.ins, slot).and_then(|o| o.missing.as_ref());
        Err(FrontendError::invalid(match missing {
            Some(name) => format!("uses {name}, which nothing before it computes"),
            None => format!("operand {slot} is missing"),
        }))
    }

    /// All operands of a slot; none where it is absent.
    pub fn all(&self, slot: &str) -> Res<Vec<Value>> {
        match operands(&self.ins, slot) {
            Some(Operands { missing: Some(name), .. }) => {
                let what = format!("uses {name}, which nothing before it computes");
                Err(FrontendError::invalid(what))
            }
            Some(o) => Ok(o.values.clone()),
            None => Ok(vec![]),
        }
    }

    /// Gives a result.
    pub fn put(&mut self, slot: &'static str, v: Value) {
        self.outs.push((slot, vec![v]));
    }

    /// Gives the results of a slot that holds a list.
    pub fn put_all(&mut self, slot: &'static str, vs: Vec<Value>) {
        self.outs.push((slot, vs));
    }

    /// How many results a slot declares (PIR: the length of the list).
    pub fn declared_count(&self, slot: &str) -> usize {
        match named(&self.declared, slot).map(Vec::as_slice) {
            Some([VarType::List(all)]) => all.len(),
            Some(types) => types.len(),
            None => 0,
        }
    }

    /// The declared dtype of a result.
    pub fn declared_dtype(&self, slot: &str) -> Option<Dtype> {
        match named(&self.declared, slot)?.first()? {
            VarType::Tensor(d, _) | VarType::Array(d, _) => Some(*d),
            _ => None,
        }
    }

    /// An attribute.
    pub fn attr(&self, names: &str) -> Option<&Attr> {
        names.split('|').find_map(|n| self.op.attrs.get(n))
    }

    /// An integer attribute of any numeric kind.
    pub fn int(&self, names: &str, default: i64) -> i64 {
        match self.attr(names) {
            Some(Attr::Int(i)) => *i,
            Some(Attr::Float(f)) => *f as i64,
            Some(Attr::Bool(b)) => i64::from(*b),
            Some(Attr::Ints(l)) if l.len() == 1 => l[0],
            _ => default,
        }
    }

    /// A real attribute of any numeric kind.
    pub fn float(&self, names: &str, default: f64) -> f64 {
        match self.attr(names) {
            Some(Attr::Int(i)) => *i as f64,
            Some(Attr::Float(f)) => *f,
            Some(Attr::Bool(b)) => f64::from(u8::from(*b)),
            Some(Attr::Floats(l)) if l.len() == 1 => l[0],
            _ => default,
        }
    }

    /// A truth value of any numeric kind.
    pub fn flag(&self, names: &str, default: bool) -> bool {
        match self.attr(names) {
            Some(Attr::Bool(b)) => *b,
            Some(Attr::Int(i)) => *i != 0,
            _ => default,
        }
    }

    /// Text, or the default.
    pub fn text(&self, names: &str, default: &'static str) -> &str {
        match self.attr(names) {
            Some(Attr::Str(s)) => s,
            _ => default,
        }
    }

    /// A list of integers of any numeric kind; one integer is a list of one.
    pub fn ints(&self, names: &str) -> Option<Vec<i64>> {
        match self.attr(names)? {
            Attr::Ints(l) => Some(l.clone()),
            Attr::Int(i) => Some(vec![*i]),
            Attr::Floats(l) => Some(l.iter().map(|&f| f as i64).collect()),
            Attr::Bools(l) => Some(l.iter().map(|&b| b.into()).collect()),
            _ => None,
        }
    }

    /// A list of reals of any numeric kind; one number is a list of one.
    pub fn floats(&self, names: &str) -> Option<Vec<f64>> {
        match self.attr(names)? {
            Attr::Floats(l) => Some(l.clone()),
            Attr::Float(f) => Some(vec![*f]),
            Attr::Int(i) => Some(vec![*i as f64]),
            Attr::Ints(l) => Some(l.iter().map(|&i| i as f64).collect()),
            _ => None,
        }
    }

    /// A dtype: a number of `VarType.Type`, or a PIR name. Negative and undefined ones are none.
    pub fn dtype(&self, names: &str) -> Res<Option<Dtype>> {
        let (known, text) = match self.attr(names) {
            Some(Attr::Int(i)) if *i >= 0 => (dtype_of_number(*i), i.to_string()),
            Some(Attr::Str(s)) if !s.starts_with("Undefined") => (dtype_of_name(s), s.clone()),
            _ => return Ok(None),
        };
        let bad = || FrontendError::invalid(format!("{names}: element type {text} is unknown"));
        known.ok_or_else(bad).map(Some)
    }

    /// The value of a constant scalar operand.
    pub fn const_scalar(&self, v: Value) -> Option<f64> {
        let c = self.b.g.as_const(v).filter(|c| c.ty.count().is(1))?;
        read_numbers(c.ty.dtype, &c.data)?.first().copied()
    }

    /// An integer given by a constant operand, else by an attribute.
    pub fn int_or(&mut self, slot: &str, attr: &str, default: i64) -> Res<i64> {
        let given = self.opt(slot).or_else(|| self.opt(attr));
        let Some(v) = given else { return Ok(self.int(attr, default)) };
        let known = self.b.g.content.get(&v).and_then(|c| c.first()).and_then(Dim::as_const);
        let known = known.or_else(|| self.const_scalar(v).map(|x| x as i64));
        known.ok_or_else(|| FrontendError::unsupported(format!("{slot} is not constant")))
    }

    /// A real given by a constant operand, else by an attribute.
    pub fn float_or(&mut self, slot: &str, attr: &str, default: f64) -> Res<f64> {
        let given = self.opt(slot).or_else(|| self.opt(attr));
        let Some(v) = given else { return Ok(self.float(attr, default)) };
        let known = self.b.g.content.get(&v).and_then(|c| c.first()).and_then(Dim::as_const);
        let known = known.map(|k| k as f64).or_else(|| self.const_scalar(v));
        known.ok_or_else(|| FrontendError::unsupported(format!("{slot} is not constant")))
    }

    /// Constant integers given by an operand (one tensor, or a list of scalars), else an attribute.
    pub fn ints_or(&mut self, slot: &str, attr: &str) -> Res<Option<Vec<i64>>> {
        let Some(dims) = self.dims_or(slot, attr, (-DIM_MAX, DIM_MAX))? else { return Ok(None) };
        let known: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
        let bad = || FrontendError::unsupported(format!("{slot} is not constant"));
        known.ok_or_else(bad).map(Some)
    }

    /// Sizes given by operands (the first slot of `slots` that holds any: one tensor, or a list of
    /// scalars), else by an attribute. Unknown ones become symbols within `bounds`.
    pub fn dims_or(
        &mut self,
        slots: &str,
        attr: &str,
        bounds: (i64, i64),
    ) -> Res<Option<Vec<Dim>>> {
        // An attribute that ProgramDesc gives as a variable is a slot of its name.
        for slot in slots.split('|').chain(attr.split('|')) {
            let given = self.all(slot)?;
            if given.is_empty() {
                continue;
            }
            let mut dims = vec![];
            for v in given {
                dims.extend(self.b.dims_of(
                    v,
                    &format!("{}.{slot}", self.op.kind),
                    bounds.0,
                    bounds.1,
                )?);
            }
            return self.few(dims);
        }
        match self.ints(attr) {
            Some(l) if l.len() > MOST_SIZES => self.refuse(format!("{} sizes", l.len())),
            l => Ok(l.map(|l| l.into_iter().map(Dim::from).collect())),
        }
    }

    fn few(&self, dims: Vec<Dim>) -> Res<Option<Vec<Dim>>> {
        match dims.len() {
            0..=MOST_SIZES => Ok(Some(dims)),
            n => self.refuse(format!("{n} sizes")),
        }
    }

    /// Dims of an operand.
    pub fn dims(&self, v: Value) -> Vec<Dim> {
        self.b.g.dims(v).to_vec()
    }

    /// One size of an operand, which may have too few axes.
    pub fn dim(&self, v: Value, axis: usize) -> Res<Dim> {
        crate::rank::dim(self.b.g, v, axis)
    }

    /// The sizes of an operand from an axis on.
    pub fn dims_from(&self, v: Value, axis: usize) -> Res<Vec<Dim>> {
        crate::rank::dims_from(self.b.g, v, axis)
    }

    /// The sizes of an operand of at least so many axes.
    pub fn at_least(&self, v: Value, rank: usize) -> Res<Vec<Dim>> {
        crate::rank::at_least(self.b.g, v, rank)
    }

    /// Rank of an operand.
    pub fn rank(&self, v: Value) -> usize {
        self.b.g.dims(v).len()
    }

    /// An axis, counted from the end if negative.
    pub fn axis(&self, axis: i64, rank: usize) -> Res<usize> {
        axis_of(axis, rank)
    }

    /// An operand that is a tensor (not an array).
    pub fn tensor(&self, slot: &str) -> Res<Value> {
        let v = self.get(slot)?;
        match self.b.g.ty(v).as_tensor() {
            Some(_) => Ok(v),
            None => Err(FrontendError::invalid(format!("operand {slot} is a tensor array"))),
        }
    }

    /// The last axis.
    pub fn last(&self, v: Value) -> Res<usize> {
        let last = self.rank(v).checked_sub(1);
        last.ok_or_else(|| FrontendError::invalid("a scalar where an axis is needed"))
    }

    /// Refuses operands of another rank.
    pub fn ranked(&self, operands: &[Value], rank: usize) -> Res {
        match operands.iter().map(|&v| self.rank(v)).find(|&r| r != rank) {
            Some(r) => {
                let what = format!("an operand of rank {r} where {rank} is needed");
                Err(FrontendError::invalid(what))
            }
            None => Ok(()),
        }
    }

    /// Refuses the operator for a reason.
    pub fn refuse<T>(&self, why: impl Into<String>) -> Res<T> {
        Err(FrontendError::unsupported(why))
    }
}

/// An axis, counted from the end if negative.
pub fn axis_of(axis: i64, rank: usize) -> Res<usize> {
    let at = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let fits = usize::try_from(at).ok().filter(|&a| a < rank);
    fits.ok_or_else(|| FrontendError::invalid(format!("axis {axis} is not within rank {rank}")))
}

/// Numbers of a small constant.
pub fn read_numbers(dtype: Dtype, data: &[u8]) -> Option<Vec<f64>> {
    let one: fn(&[u8]) -> f64 = match dtype {
        Dtype::F32 => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        Dtype::F64 => |b| f64::from_le_bytes(std::array::from_fn(|i| b[i])),
        Dtype::F16 => |b| half::f16::from_le_bytes([b[0], b[1]]).into(),
        Dtype::BF16 => |b| half::bf16::from_le_bytes([b[0], b[1]]).into(),
        Dtype::I64 => |b| i64::from_le_bytes(std::array::from_fn(|i| b[i])) as f64,
        Dtype::I32 => |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        Dtype::U8 | Dtype::Bool => |b| b[0].into(),
        Dtype::I8 => |b| f64::from(b[0] as i8),
        _ => return None,
    };
    Some(data.chunks_exact(dtype.size()).map(one).collect())
}
