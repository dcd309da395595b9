//! Writes buffers, kernels and steps down, and closes the plan.

use super::layout::{Place, Shape, Wish, image_shape, panels_shape, unit_shape};
use super::{PlaceError, Placer, Tier};
use crate::kir::Kernel;
use crate::task::{Lowered, Operand, TaskArg, Which};
use hub_abi::plan::{Arg, Buf, BufId, KernelInfo, OutputSource, Step};
use hub_abi::{Dim, Dtype};
use hub_ir::{Node, Type, Value};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Kernels already emitted, by content: one network repeats its layers.
pub type KernelCache = HashMap<u64, Vec<(Kernel, u32)>>;

/// Name of the steps that fill halos.
pub const HALO: &str = "halo";

/// Code of kernels starts at multiples of this.
const CODE_ALIGN: usize = 64;

impl Placer<'_> {
    /// A new buffer.
    pub(super) fn buffer(&mut self, b: Buf) -> BufId {
        self.tier.plan.bufs.push(b);
        self.tier.plan.bufs.len() as BufId - 1
    }

    /// A new arena buffer; its life is found when the plan closes.
    pub(super) fn arena(&mut self, bytes: Dim) -> BufId {
        self.buffer(Buf::Arena { bytes, first: u32::MAX, last: 0, over: None })
    }

    /// Room for a value: where its consumer planned it, in its concatenation, in the output, or in
    /// a buffer of its own in the layout that suits it.
    pub(super) fn allocate(&mut self, v: Value) -> Result<Place, PlaceError> {
        if let Some(p) = self.places.get(&v) {
            return Ok(p.clone());
        }
        let place = if let Some(p) = self.planned.get(&v) {
            p.clone()
        } else if let Some(part) = self.parts.get(&v).cloned() {
            let whole = self.allocate(part.whole)?;
            let len = self.g.dims(v)[part.axis].clone();
            let mut p = whole.slice(part.axis, &part.start, &len, 1);
            p.slack = 0;
            self.places.insert(part.whole, whole);
            p
        } else if let Some(i) = self.output_of(v) {
            let t = self.g.tensor(v).clone();
            let bytes = t.count().times(t.dtype.size() as i64);
            let buf = self.buffer(Buf::Output { index: i as u32, bytes });
            Place::dense(buf, &t)
        } else if self.facts.is_image(v) {
            let halo = self.facts.halo(v).cloned();
            self.new_place(v, &Wish::Image(halo))?
        } else {
            self.new_place(v, &Wish::Dense)?
        };
        self.places.insert(v, place.clone());
        Ok(place)
    }

    /// May a value lie anywhere?
    pub(super) fn is_free(&self, v: Value) -> bool {
        let bound = self.places.contains(&v) || self.planned.contains(&v);
        !bound && !self.parts.contains_key(&v) && self.output_of(v).is_none()
    }

    /// The model output that a value may be computed straight into: the first that it is, if it
    /// lies row-major.
    fn output_of(&self, v: Value) -> Option<usize> {
        let root = &self.g.regions[self.g.root()];
        let i = root.results.iter().position(|r| *r == v)?;
        let dims = self.g.dims(v);
        let plain = !self.facts.is_image(v) || dims[2..].iter().all(|d| d.is(1));
        (plain && self.facts.halo(v).is_none()).then_some(i)
    }

    /// A new buffer for a value (or a copy of it), its halo filled.
    pub(super) fn new_place(&mut self, v: Value, wish: &Wish) -> Result<Place, PlaceError> {
        let t = self.g.tensor(v).clone();
        let (shape, halo) = match wish {
            Wish::Image(h) => {
                let h = h.clone().filter(|h| !h.is_empty());
                (image_shape(&t, h.as_ref()), h)
            }
            Wish::Unit(a) => (unit_shape(&t, *a), None),
            Wish::Panels(p) => (panels_shape(&t, p), None),
            Wish::Dense => (unit_shape(&t, t.rank().saturating_sub(1)), None),
        };
        let Shape { bytes, offset, strides, slack } = shape;
        let buf = self.arena(bytes);
        let bump = Dim::from(0i64);
        let (dtype, dims) = (t.dtype, t.dims);
        let place = Place { buf, dtype, dims, offset, strides, slack, halo: halo.clone(), bump };
        if let Some(h) = halo {
            self.halos.insert(place.buf, place.clone());
            let lowered = self.backend.halo(&place.operand(false), &h.before, &h.after, h.fill);
            let lowered = lowered
                .map_err(|e| PlaceError::Internal { node: "halo".into(), why: e.to_string() })?;
            self.step(HALO, lowered, &[], std::slice::from_ref(&place))?;
        }
        Ok(place)
    }

    /// Copies elements between places of the same dims.
    pub(super) fn copy(&mut self, n: Node, src: &Place, dst: &Place) -> Result<(), PlaceError> {
        let name = self.g.nodes[n].name.clone();
        self.copy_named(&name, src, dst)
    }

    /// As [`Placer::copy`], with a name for the step.
    pub(super) fn copy_named(
        &mut self,
        name: &str,
        src: &Place,
        dst: &Place,
    ) -> Result<(), PlaceError> {
        let (mut a, mut b): (Operand, Operand) = (src.operand(false), dst.operand(false));
        (a.dtype, b.dtype) = (bits_of(a.dtype), bits_of(b.dtype));
        without_single(&mut a, &mut b);
        let key = format!("{a:?}{b:?}");
        let lowered = match self.copied.get(&key) {
            Some(before) => before.clone(),
            None => {
                self.another_kernel(name)?;
                let lowered = self.backend.copy(&a, &b).map_err(|e| PlaceError::Internal {
                    node: name.to_string(),
                    why: format!("a copy of {:?}: {e}", src.dims),
                })?;
                self.copied.entry(key).or_insert(lowered).clone()
            }
        };
        self.step(name, lowered, std::slice::from_ref(src), std::slice::from_ref(dst))
    }

    /// Counts a kernel that the backend is asked for.
    pub(super) fn another_kernel(&mut self, node: &str) -> Result<(), PlaceError> {
        let limit = self.limits.kernels;
        let none_left = || PlaceError::Kernels { node: node.to_string(), limit };
        self.kernels_left = self.kernels_left.checked_sub(1).ok_or_else(none_left)?;
        Ok(())
    }

    /// Appends a kernel step.
    pub(super) fn step(
        &mut self,
        name: &str,
        l: Lowered,
        ins: &[Place],
        outs: &[Place],
    ) -> Result<(), PlaceError> {
        let arg = |a: &TaskArg| match a {
            TaskArg::Status => Arg::Status,
            TaskArg::Size(d) => Arg::Size(d.clone()),
            TaskArg::Ptr { of, offset, extent } => {
                let (p, write) = match of {
                    Which::In(i) => (&ins[*i], false),
                    Which::Out(i) => (&outs[*i], true),
                };
                Arg::Ptr {
                    buf: p.buf,
                    offset: p.offset.add(offset),
                    extent: extent.clone(),
                    write,
                    bump: p.bump.clone(),
                }
            }
        };
        let args = l.args.iter().map(arg).collect();
        let kernel = self.kernel(name, l.kernel, l.schedule)?;
        let cost = l.flops.div(&100i64.into()).add(&l.bytes.div(&16i64.into()));
        self.steps.push(Step::Kernel {
            kernel,
            args,
            tiles: l.tiles,
            cost,
            flops: l.flops,
            bytes: l.bytes,
            node: name.to_string(),
        });
        Ok(())
    }

    /// The kernel's number, emitting it if no equal one is there.
    fn kernel(&mut self, node: &str, mut k: Kernel, schedule: String) -> Result<u32, PlaceError> {
        let base = std::mem::take(&mut k.name);
        let mut h = DefaultHasher::new();
        format!("{k:?}").hash(&mut h);
        let key = h.finish();
        if let Some((_, at)) = self.cache.get(&key).and_then(|c| c.iter().find(|(x, _)| *x == k)) {
            return Ok(*at);
        }
        let at = self.tier.plan.kernels.len() as u32;
        let name = format!("{base}_{at}");
        let named = Kernel { name: name.clone(), ..k.clone() };
        let code = self
            .backend
            .emit(&named)
            .map_err(|why| PlaceError::Emit { node: node.to_string(), why })?;
        if self.tier.code.is_empty() {
            self.tier.code.extend_from_slice(self.backend.opening());
        }
        let offset = self.tier.code.len().next_multiple_of(CODE_ALIGN);
        self.tier.code.resize(offset, self.backend.filler());
        self.tier.code.extend_from_slice(&code);
        let (offset, len) = (offset as u64, code.len() as u64);
        let scratch = self.backend.scratch(&k);
        let shares = self.backend.shares(&k).into_iter().map(|(r, w)| (r.0, w.0)).collect();
        self.tier.plan.kernels.push(KernelInfo { name, offset, len, schedule, shares, scratch });
        self.tier.kernels.push(named);
        self.cache.entry(key).or_default().push((k, at));
        Ok(at)
    }

    /// Puts every output where the runtime finds it.
    pub(super) fn outputs(&mut self) -> Result<(), PlaceError> {
        let results = self.g.regions[self.g.root()].results.clone();
        for (i, v) in results.into_iter().enumerate() {
            if self.heap.contains(&v) {
                self.tier.plan.outputs.push(OutputSource::Heap(self.ids[&v]));
                continue;
            }
            let Type::Tensor(t) = self.g.ty(v).clone() else {
                unreachable!("what is no tensor lives on the heap")
            };
            let src = self.place(v)?;
            let own = matches!(&self.tier.plan.bufs[src.buf as usize],
                Buf::Output { index, .. } if *index as usize == i);
            let buf = if own && src.is_dense() && src.offset.is(0) {
                src.buf
            } else {
                let bytes = t.count().times(t.dtype.size() as i64);
                let buf = self.buffer(Buf::Output { index: i as u32, bytes });
                let name = self.g.outputs.get(i).cloned().unwrap_or_default();
                self.copy_named(&name, &src, &Place::dense(buf, &t))?;
                buf
            };
            self.tier.plan.outputs.push(OutputSource::Buf(buf));
        }
        Ok(())
    }

    /// Closes the plan: lets dying buffers' room be taken over, finds the lives of buffers, drops
    /// those that no step touches.
    pub(super) fn finish(mut self) -> Result<Tier, PlaceError> {
        let root = self.steps.leave(0);
        self.tier.plan.steps = root.steps;
        self.reuse();
        let plan = &mut self.tier.plan;
        let lives = hub_abi::plan::lives(&plan.steps, plan.bufs.len());
        let given = |i: usize| plan.outputs.contains(&OutputSource::Buf(i as BufId));
        for (i, (b, life)) in plan.bufs.iter_mut().zip(lives).enumerate() {
            match (b, life) {
                (Buf::Arena { first, last, .. }, Some(life)) => (*first, *last) = life,
                // No step touches it (its consumer was taken back): no bytes.
                (Buf::Arena { bytes, first, last, .. }, None) => {
                    (*bytes, *first, *last) = (0i64.into(), 0, 0);
                }
                (Buf::Output { bytes, .. }, None) if !given(i) => *bytes = 0i64.into(),
                _ => {}
            }
        }
        Ok(self.tier)
    }
}

/// What a copy moves: of the types that kernels do not compute with, just the bits.
fn bits_of(d: Dtype) -> Dtype {
    match d.size() {
        _ if matches!(d, Dtype::F32 | Dtype::F64 | Dtype::Bool)
            || d.is_signed_int() && d.packed_bits().is_none() =>
        {
            d
        }
        1 => Dtype::U8,
        2 => Dtype::I16,
        4 => Dtype::I32,
        8 => Dtype::I64,
        _ => d,
    }
}

/// Drops axes of one element, whose strides would tell equal copies apart.
fn without_single(a: &mut Operand, b: &mut Operand) {
    for axis in (0..a.dims.len()).rev() {
        if a.dims[axis].is(1) && !a.strides[axis].is(1) && !b.strides[axis].is(1) {
            for o in [&mut *a, &mut *b] {
                o.dims.remove(axis);
                o.strides.remove(axis);
            }
        }
    }
}
