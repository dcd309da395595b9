//! Groups: from operands in memory to a kernel step, with the copies that the kernel asks for.

use super::consts::Form;
use super::layout::{Halo, Place, Wish, grows};
use super::{Copied, PlaceError, Placer, anchor_halo, panels};
use crate::task::{Format, Lowered, Operand, Refused, Task};
use hub_abi::plan::Buf;
use hub_ir::{ConstId, GroupKind, Node, Op, Region, Value};

/// A kernel may ask for this many copies and packings before it is given up.
const MOST_REQUESTS: usize = 8;

/// A group's operands while its kernel is negotiated.
struct Operands {
    values: Vec<Value>,
    places: Vec<Place>,
    ops: Vec<Operand>,
    /// Constants in packed form, by operand.
    packed: Vec<Option<ConstId>>,
}

impl Operands {
    /// Operand `i` is a copy of the value that lies there.
    fn lies(&mut self, i: usize, place: Place, halo: bool) {
        let (splat, constant) = (self.ops[i].splat, self.ops[i].constant);
        self.ops[i] = Operand { splat, constant, ..place.operand(halo) };
        self.places[i] = place;
    }
}

/// The form that a format stores a constant in, if it is not its own.
fn stored(f: &Format) -> Option<Form> {
    match f {
        Format::Strided => None,
        Format::Packed(p) => Some(Form::Panels(p.clone())),
        Format::Transformed(f) => Some(Form::Winograd(*f)),
    }
}

impl Placer<'_> {
    /// Where a value lies; constants get a buffer when first read.
    pub(super) fn place(&mut self, v: Value) -> Result<Place, PlaceError> {
        if let Some(p) = self.places.get(&v) {
            return Ok(p.clone());
        }
        let Some(c) = self.const_id(v) else {
            return Err(PlaceError::Internal {
                node: v.to_string(),
                why: "a value is read before it has a place".into(),
            });
        };
        let buf = self.buffer(Buf::Const { offset: 0, len: 0 });
        let key = (c, None);
        self.pool.want(&key);
        self.tier.const_bufs.push((buf as usize, key));
        let p = Place::dense(buf, self.g.tensor(v));
        self.places.insert(v, p.clone());
        Ok(p)
    }

    /// The backend's answer; asked once for equal tasks, since one network repeats its layers.
    fn lowered(
        &mut self,
        n: Node,
        task: &Task<'_>,
        kind: GroupKind,
    ) -> Result<Result<Lowered, Refused>, PlaceError> {
        let key = task.key(kind).map(|key| (self.backend.choice(task.region), key));
        if let Some(before) = key.as_ref().and_then(|key| self.answers.get(key)) {
            return Ok(before.clone());
        }
        self.another_kernel(&self.g.nodes[n].name)?;
        let answer = self.backend.lower(task, kind);
        if let Some(key) = key {
            self.answers.insert(key, answer.clone());
        }
        Ok(answer)
    }

    fn const_id(&self, v: Value) -> Option<ConstId> {
        match self.g.nodes[self.g.def(v)?].op {
            Op::Const(c) => Some(c),
            _ => None,
        }
    }

    /// One element that is known.
    fn splat(&self, v: Value) -> Option<f64> {
        let c = self.g.as_const(v)?;
        if !c.ty.count().is(1) {
            return None;
        }
        use hub_abi::Dtype::*;
        let b = &c.data[..];
        Some(match c.ty.dtype {
            F32 => f32::from_le_bytes(b.try_into().ok()?).into(),
            F64 => f64::from_le_bytes(b.try_into().ok()?),
            I32 => i32::from_le_bytes(b.try_into().ok()?).into(),
            Bool => b.first().copied()?.into(),
            _ => return None,
        })
    }

    fn operands(
        &mut self,
        n: Node,
        anchor: Option<&(usize, Halo)>,
    ) -> Result<Operands, PlaceError> {
        let values = self.g.nodes[n].inputs.clone();
        let mut o = Operands { values, places: vec![], ops: vec![], packed: vec![] };
        for (i, &v) in o.values.iter().enumerate() {
            // A constant gets its buffer only when it is known in which form.
            let constant = self.const_id(v).filter(|_| !self.places.contains(&v));
            let place = match constant {
                Some(_) => Place::dense(u32::MAX, self.g.tensor(v)),
                None => self.place(v)?,
            };
            let covered = match anchor {
                Some((at, need)) if *at == i => {
                    need.is_empty() || place.halo.as_ref().is_some_and(|h| h.covers(need))
                }
                _ => false,
            };
            let mut op = place.operand(covered);
            op.splat = self.splat(v);
            op.constant = self.const_id(v).is_some();
            o.ops.push(op);
            o.places.push(place);
            o.packed.push(None);
        }
        Ok(o)
    }

    /// A group becomes a step, or those of the groups that stand for it, or is left to the host.
    pub(super) fn group(
        &mut self,
        n: Node,
        index: usize,
        kind: GroupKind,
        region: Region,
    ) -> Result<(), PlaceError> {
        let mark = self.mark();
        let why = match self.splits.get(&n).cloned() {
            Some(parts) => self.parts_of_group(n, &parts)?,
            None => self.one_group(n, kind, region)?,
        };
        let Some(why) = why else { return Ok(()) };
        self.rewind(n, &mark);
        self.host(n, index, &why)
    }

    /// A group as one step; gives why there is no kernel for it.
    pub(super) fn one_group(
        &mut self,
        n: Node,
        kind: GroupKind,
        region: Region,
    ) -> Result<Option<String>, PlaceError> {
        let anchor = anchor_halo(self.g, region).filter(|_| !self.backend.operators());
        let mut o = self.operands(n, anchor.as_ref())?;
        let outs: Vec<Place> = self.g.nodes[n]
            .outputs
            .clone()
            .into_iter()
            .map(|v| self.allocate(v))
            .collect::<Result<_, _>>()?;
        if kind == GroupKind::Map {
            self.turn_small(n, &mut o, &outs)?;
        }
        for _ in 0..MOST_REQUESTS {
            if self.backend.target().has_mma() {
                o.ops.iter_mut().zip(&o.places).for_each(|(op, p)| op.align = p.align());
            }
            let task = Task {
                g: self.g,
                region,
                inputs: o.ops.clone(),
                outputs: outs.iter().map(|p| p.operand(false)).collect(),
            };
            match self.lowered(n, &task, kind)? {
                Ok(l) => {
                    self.settle_consts(&mut o)?;
                    let name = self.g.nodes[n].name.clone();
                    self.step(&name, l, &o.places, &outs)?;
                    return Ok(None);
                }
                Err(Refused::Relayout { input, axis }) => {
                    let need = anchor.as_ref().filter(|(at, _)| *at == input).map(|(_, h)| h);
                    self.relayout(n, &mut o, input, axis, need)?;
                }
                Err(Refused::Pack { input, packing })
                    if self.const_id(o.values[input]).is_some() =>
                {
                    o.packed[input] = self.const_id(o.values[input]);
                    o.ops[input].format = Format::Packed(packing);
                }
                Err(Refused::Pack { input, packing })
                    if panels::possible(&o.places[input], &packing) =>
                {
                    let wish = Wish::Panels(packing.clone());
                    let place = self.copied_as(n, o.values[input], wish)?;
                    o.lies(input, place, false);
                    o.ops[input].format = Format::Packed(packing);
                }
                Err(Refused::Transform { input, filter })
                    if self.const_id(o.values[input]).is_some() =>
                {
                    let id = self.const_id(o.values[input]);
                    // A tier before this one has transformed it already: once is enough.
                    let old = id.and_then(|c| self.pool.transformed(c));
                    o.packed[input] = id;
                    o.ops[input].format = Format::Transformed(old.unwrap_or(filter));
                }
                Err(e) => return Ok(Some(e.to_string())),
            }
        }
        Err(self.internal(n, "its kernel asks for copies without end"))
    }

    /// Gives constants their buffers, in the form that the kernel settled on.
    fn settle_consts(&mut self, o: &mut Operands) -> Result<(), PlaceError> {
        for i in 0..o.values.len() {
            match (o.packed[i], stored(&o.ops[i].format)) {
                (Some(c), Some(form)) => {
                    let key = (c, Some(form));
                    self.pool.want(&key);
                    let buf = self.buffer(Buf::Const { offset: 0, len: 0 });
                    self.tier.const_bufs.push((buf as usize, key));
                    o.places[i].buf = buf;
                }
                _ if o.places[i].buf == u32::MAX => {
                    o.places[i] = self.place(o.values[i])?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The region that defines a value.
    fn region_of(&self, v: Value) -> Region {
        match self.g.values[v].def {
            hub_ir::graph::Def::Param(r, _) => r,
            hub_ir::graph::Def::Node(n, _) => self.homes.get(&n).copied().unwrap_or(self.g.root()),
        }
    }

    /// Copies an operand so that `axis` has stride 1 (and the anchor's halo is there).
    fn relayout(
        &mut self,
        n: Node,
        o: &mut Operands,
        input: usize,
        axis: usize,
        need: Option<&Halo>,
    ) -> Result<(), PlaceError> {
        let v = o.values[input];
        let image = axis == 1 && self.g.dims(v).len() >= 3 && need.is_some();
        let wish = if image {
            Wish::Image(need.cloned().filter(|h| !h.is_empty()))
        } else {
            Wish::Unit(axis)
        };
        let place = self.copied_as(n, v, wish)?;
        o.lies(input, place, need.is_some());
        Ok(())
    }

    /// Turns channel-last operands over where a map makes much more of them that is not channel-last:
    /// the copy is small, and reading across channels is slow.
    fn turn_small(&mut self, n: Node, o: &mut Operands, outs: &[Place]) -> Result<(), PlaceError> {
        let Some(out) = outs.iter().find(|p| p.dims.len() >= 3 && p.is_dense()) else {
            return Ok(());
        };
        for i in 0..o.values.len() {
            let p = &o.places[i];
            let image = p.dims.len() == out.dims.len() && p.strides[1].is(1) && !p.is_dense();
            if image && p.buf != u32::MAX && grows(&p.dims, &out.dims) {
                let place = self.copied_as(n, o.values[i], Wish::Dense)?;
                o.lies(i, place, false);
            }
        }
        Ok(())
    }

    /// A copy of a value that lies as wished, made once for all who wish it so.
    fn copied_as(&mut self, n: Node, v: Value, wish: Wish) -> Result<Place, PlaceError> {
        if let Some(c) = self.copies.iter().find(|c| c.value == v && c.wish == wish) {
            return Ok(c.place.clone());
        }
        let src = self.place(v)?;
        // What does not change in a loop is copied before it.
        let level = match src.bump.is(0) {
            true => self.steps.home(self.region_of(v)),
            false => self.steps.depth(),
        };
        let before = self.steps.aim(Some(level));
        let place = match &wish {
            Wish::Panels(p) => self.in_panels(n, v, &src, p)?,
            _ => {
                let dst = self.new_place(v, &wish)?;
                self.copy(n, &src, &dst)?;
                dst
            }
        };
        self.steps.aim(before);
        self.copies.push(Copied { value: v, wish, place: place.clone(), level });
        Ok(place)
    }
}
