//! The executor: one run of a bound plan. At a cached binding it allocates nothing and takes no lock.

use crate::bind::{Bound, Op, value_dims};
use crate::error::Error;
use crate::native::Native;
use crate::tensor::{Given, Made, Room};
use hub_abi::plan::{Buf, OutputSource, Step};
use hub_portable::{Tensor, Value};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl Native {
    /// Runs the model on checked inputs. `rooms` is empty or has memory for each output; outputs
    /// are described in `made`, wherever they lie.
    ///
    /// # Safety
    /// Inputs are readable, and rooms writable, for their lengths while the run lasts.
    pub unsafe fn run(
        &mut self,
        inputs: &[Option<Given<'_>>],
        rooms: &[Room],
        made: &mut [Made],
    ) -> Result<(), Error> {
        if !self.pool.usable() {
            let what = "the session was made before a fork and has no threads here: make a new one";
            return Err(Error::Usage(what.into()));
        }
        self.accept(inputs)?;
        for (now, b) in self.now.iter_mut().zip(&self.tier.plan.bufs) {
            if let Buf::Input(n) = b {
                *now = inputs[*n as usize].map_or(0, |g| g.at.expose_provenance() as u64);
            }
        }
        // Memory of the caller that a run may still read is written at the end only.
        let rooms_now = if overlap(inputs, rooms) { &[] } else { rooms };
        for k in 0..self.stages.len() {
            self.bind_stage(k)?;
            self.patch(k, rooms_now);
            if k > 0 {
                let closing = self.tier.flow.stages[k - 1].end - 1;
                self.store_outputs(k, closing)?;
            }
            if k + 1 == self.stages.len() {
                self.describe(rooms, made)?;
            }
            // SAFETY: the stage is bound and patched with this run's addresses.
            unsafe { self.execute(k)? };
        }
        self.collect(made)?;
        // SAFETY: rooms are writable by the caller's promise.
        unsafe { copy_out(rooms, made)? };
        if let Some(p) = &mut self.profile {
            p.runs += 1;
        }
        Ok(())
    }

    /// Puts the addresses of this run's inputs and outputs into the stage's argument blocks.
    fn patch(&mut self, k: usize, rooms: &[Room]) {
        let Some(b) = self.stages[k].bounds.last_mut() else { return };
        for (i, place) in b.places.iter().enumerate() {
            let known = matches!(self.tier.plan.bufs[i], Buf::Output { .. });
            if !known || self.tier.flow.buf_stage[i] != k {
                continue;
            }
            let room = self.direct[i].and_then(|o| rooms.get(o as usize));
            let room = room.filter(|r| !r.at.is_null() && r.len as u64 >= place.len);
            self.now[i] = room.map_or(place.at, |r| r.at.expose_provenance() as u64);
        }
        for &(word, buf, offset) in &b.patches {
            let at = self.now[buf as usize].wrapping_add(offset);
            b.base[word as usize] = at;
            b.words[word as usize] = at;
        }
    }

    /// Where a buffer lies in the present run.
    fn place(&self, k: usize, buf: u32) -> (u64, u64) {
        let i = buf as usize;
        let place = self.stages[k].bounds.last().map(|b| b.places[i]).unwrap_or_default();
        match self.tier.plan.bufs[i] {
            Buf::Input(_) | Buf::Output { .. } => (self.now[i], place.len),
            _ => (place.at, place.len),
        }
    }

    /// Says where outputs in buffers will be, and refuses rooms that are too small for them.
    fn describe(&self, rooms: &[Room], made: &mut [Made]) -> Result<(), Error> {
        let k = self.stages.len() - 1;
        let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
        for (i, source) in self.tier.plan.outputs.iter().enumerate() {
            let OutputSource::Buf(buf) = source else { continue };
            let (dims, bytes) = &b.outputs[i];
            let m = &mut made[i];
            m.dims.clear();
            m.dims.extend_from_slice(dims);
            m.len = *bytes;
            m.at = std::ptr::with_exposed_provenance(self.place(k, *buf).0 as usize);
        }
        let buffers = self.tier.plan.outputs.iter().map(|o| matches!(o, OutputSource::Buf(_)));
        check_rooms(rooms, made, buffers)
    }

    /// Describes outputs that host steps left on the heap.
    fn collect(&self, made: &mut [Made]) -> Result<(), Error> {
        for (i, source) in self.tier.plan.outputs.iter().enumerate() {
            let OutputSource::Heap(v) = source else { continue };
            match self.host.get(*v) {
                Some(Value::Tensor(t)) => made[i].set(t),
                Some(_) => made[i].clear(),
                None => return Err(Error::plan(format!("no step makes output {i}"))),
            }
        }
        Ok(())
    }

    /// Runs a stage's steps.
    ///
    /// # Safety
    /// The stage is bound, and patched with addresses that are valid now.
    unsafe fn execute(&mut self, k: usize) -> Result<(), Error> {
        let mut i = 0;
        loop {
            let Some(b) = self.stages[k].bounds.last_mut() else { return Ok(()) };
            let Some(&op) = b.ops.get(i) else { return Ok(()) };
            i += 1;
            match op {
                Op::Host { step, slot } => {
                    let t = self.profile.is_some().then(Instant::now);
                    self.host_step(k, step as usize)?;
                    self.record(slot, t);
                }
                Op::Repeat { trip, len, bumps } => {
                    let body = i..i + len as usize;
                    i = body.end;
                    let bumps = bumps.0 as usize..bumps.1 as usize;
                    for &(w, _) in &b.bumps[bumps.clone()] {
                        b.words[w as usize] = b.base[w as usize];
                    }
                    for _ in 0..trip {
                        for at in body.clone() {
                            // SAFETY: as promised by our caller.
                            unsafe { self.call(k, at)? };
                        }
                        if let Some(b) = self.stages[k].bounds.last_mut() {
                            bump(b, bumps.clone());
                        }
                    }
                }
                // SAFETY: as promised by our caller.
                Op::Call { .. } => unsafe { self.call(k, i - 1)? },
            }
        }
    }

    /// Calls one kernel.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    unsafe fn call(&mut self, k: usize, at: usize) -> Result<(), Error> {
        let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
        let Op::Call { kernel, args, tiles, wide, status, slot } = b.ops[at] else { return Ok(()) };
        let args = b.words[args as usize..].as_ptr();
        let f = self.tier.kernel(kernel);
        let t = self.profile.is_some().then(Instant::now);
        // SAFETY: the block's addresses were checked against their buffers when the stage was
        // bound, inputs and outputs are valid by our caller's promise, tiles are independent.
        unsafe {
            match wide {
                true => self.pool.call_all(f, args, tiles),
                false => self.pool.call(f, args, tiles),
            }
        }
        self.record(slot, t);
        if status && self.status.load(Relaxed) != 0 {
            return Err(self.node_error(slot));
        }
        Ok(())
    }

    fn record(&mut self, slot: u32, since: Option<Instant>) {
        if let (Some(p), Some(t)) = (&mut self.profile, since) {
            p.nanos[slot as usize] += t.elapsed().as_nanos() as u64;
        }
    }

    #[cold]
    fn node_error(&mut self, slot: u32) -> Error {
        let what = match self.status.swap(0, Relaxed) {
            2 => "an integer is divided by zero",
            _ => "an index is outside its axis",
        };
        let flat = self.tier.plan.steps.iter().flat_map(|s| match s {
            Step::Repeat { body, .. } => &body[..],
            s => std::slice::from_ref(s),
        });
        let node = match flat.clone().nth(slot as usize) {
            Some(Step::Kernel { node, .. }) => node.clone(),
            _ => String::new(),
        };
        Error::Node { node, what: what.into() }
    }

    /// Runs a host step: operands from buffers to the heap, the node, results to buffers.
    fn host_step(&mut self, k: usize, step: usize) -> Result<(), Error> {
        let model = self.model.clone();
        let shared = model.0.shared()?;
        let tier = self.tier.clone();
        let Step::Host { node, inputs, .. } = &tier.plan.steps[step] else { return Ok(()) };
        for (v, buf) in inputs {
            let (dtype, dims, len) = value_dims(model.graph(), *v, &self.env)?;
            let tensor = match tier.plan.bufs[*buf as usize] {
                Buf::Const { offset, .. } => shared.constant(dtype, &dims, offset as usize, len),
                _ => {
                    let (at, have) = self.place(k, *buf);
                    if (len as u64) > have {
                        return Err(Error::plan(format!("value {v} is not whole in its buffer")));
                    }
                    let given = Given {
                        dtype,
                        dims: &dims,
                        at: std::ptr::with_exposed_provenance(at as usize),
                        len,
                    };
                    // SAFETY: the buffer has `have` bytes, and no kernel runs now.
                    Tensor::from_bytes(dtype, &dims, unsafe { given.bytes() })
                }
            };
            let tensor = tensor.map_err(|e| Error::plan(format!("value {v}: {e}")))?;
            self.host.set(model.graph(), *v, tensor.into());
        }
        for &load in &tier.flow.loads[step] {
            self.host.step(shared, load as usize, &mut self.env)?;
        }
        self.host.step(shared, *node as usize, &mut self.env)?;
        self.store_outputs(k, step)?;
        tier.flow.drops[step].iter().for_each(|&v| self.host.free(v));
        Ok(())
    }

    /// Copies results of a host step to their buffers that belong to stage `k`.
    fn store_outputs(&mut self, k: usize, step: usize) -> Result<(), Error> {
        let Step::Host { outputs, .. } = &self.tier.plan.steps[step] else { return Ok(()) };
        for (v, buf) in outputs {
            if self.tier.flow.buf_stage[*buf as usize] > k {
                continue;
            }
            let Some(Value::Tensor(t)) = self.host.get(*v) else {
                return Err(Error::plan(format!("host step {step} makes no tensor {v}")));
            };
            let (_, dims, len) = value_dims(self.model.graph(), *v, &self.env)?;
            let (at, have) = self.place(k, *buf);
            if t.dims() != dims || t.bytes().len() != len || len as u64 > have {
                let what = format!("value {v} is {:?}, {dims:?} fits its buffer", t.dims());
                return Err(Error::plan(what));
            }
            let to = std::ptr::with_exposed_provenance_mut::<u8>(at as usize);
            // SAFETY: the buffer has `have` bytes, no kernel runs now, and the heap is elsewhere.
            unsafe { std::ptr::copy_nonoverlapping(t.bytes().as_ptr(), to, len) };
        }
        Ok(())
    }
}

/// Moves the addresses of a repetition by one iteration.
fn bump(b: &mut Bound, range: std::ops::Range<usize>) {
    for &(w, by) in &b.bumps[range] {
        let word = &mut b.words[w as usize];
        *word = word.wrapping_add(by);
    }
}

/// Refuses rooms that are too small; only for outputs for which `which` says so.
pub fn check_rooms(
    rooms: &[Room],
    made: &[Made],
    which: impl Iterator<Item = bool>,
) -> Result<(), Error> {
    for (i, ((r, m), check)) in rooms.iter().zip(made).zip(which).enumerate() {
        if check && !r.at.is_null() && r.len < m.len {
            return Err(Error::TooSmall { index: i, need: m.len, have: r.len });
        }
    }
    Ok(())
}

/// Copies outputs that are not there yet into the caller's memory.
///
/// # Safety
/// Rooms are writable for their lengths.
pub unsafe fn copy_out(rooms: &[Room], made: &mut [Made]) -> Result<(), Error> {
    check_rooms(rooms, made, std::iter::repeat(true))?;
    for (m, room) in made.iter_mut().zip(rooms) {
        if room.at.is_null() || m.at == room.at.cast_const() || m.len == 0 {
            continue;
        }
        // SAFETY: the output is readable, the room writable and large enough; overlap is allowed.
        unsafe { std::ptr::copy(m.at, room.at, m.len) };
        m.at = room.at;
    }
    Ok(())
}

/// Does any room share bytes with an input or another room?
fn overlap(inputs: &[Option<Given<'_>>], rooms: &[Room]) -> bool {
    let meet = |a: (usize, usize), b: (usize, usize)| {
        a.1 > 0 && b.1 > 0 && a.0 < b.0.saturating_add(b.1) && b.0 < a.0.saturating_add(a.1)
    };
    rooms.iter().enumerate().filter(|(_, r)| !r.at.is_null()).any(|(i, r)| {
        let mine = (r.at.addr(), r.len);
        inputs.iter().flatten().any(|g| meet(mine, (g.at.addr(), g.len)))
            || rooms[..i].iter().any(|o| meet(mine, (o.at.addr(), o.len)))
    })
}
