//! The executor: one run of a bound plan. At a cached binding it allocates nothing and takes no lock.

use crate::error::Error;
use crate::native::Native;
use crate::ops::Op;
use crate::tensor::{Given, Made, Room};
use hub_abi::plan::{Buf, OutputSource};
use hub_portable::Value;

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
        // SAFETY: by the caller's promise.
        unsafe { self.bring(inputs)? };
        // Memory of the caller that a run may still read, or the device cannot reach, is written at the
        // end only.
        let late = self.far.is_some() || overlap(inputs, rooms);
        let rooms_now = if late { &[] } else { rooms };
        for k in 0..self.stages.len() {
            self.bind_stage(k)?;
            self.begin(k)?;
            self.patch(k, rooms_now);
            if k > 0 {
                let closing = self.tier.flow.stages[k - 1].end - 1;
                if let Some(host) = self.tier.flow.top_hosts[closing] {
                    let tier = self.tier.clone();
                    self.store(k, &tier.flow.hosts[host as usize].outputs)?;
                }
            }
            if k + 1 == self.stages.len() {
                self.describe(rooms, made)?;
            }
            // SAFETY: the stage is bound and patched with this run's addresses.
            unsafe { self.stage(k)? };
        }
        self.fetch()?;
        self.collect(made)?;
        // SAFETY: rooms are writable by the caller's promise.
        unsafe { copy_out(rooms, made)? };
        if let Some(p) = &mut self.profile {
            p.runs += 1;
        }
        Ok(())
    }

    /// Runs a stage's steps.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    unsafe fn stage(&mut self, k: usize) -> Result<(), Error> {
        // SAFETY: as promised by our caller.
        unsafe { self.record_stage(k)? };
        let mut at = 0;
        for step in self.tier.flow.stages[k].clone() {
            let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
            let end = b.ends[step - self.tier.flow.stages[k].start] as usize;
            // (A recorded run may have done several steps.)
            if at < end {
                at = match self.replay(k, at)? {
                    Some(past) => past,
                    None => {
                        // SAFETY: as promised by our caller.
                        unsafe { self.execute(k, at..end)? };
                        end
                    }
                };
            }
            for i in 0..self.tier.flow.drops[step].len() {
                self.host.free(self.tier.flow.drops[step][i]);
            }
        }
        let reports = |op: &Op| matches!(op, Op::Call { status: true, .. });
        if let (Some(far), Some(queue)) = (&self.far, &self.queue)
            && self.stages[k].bounds.last().is_some_and(|b| b.ops.iter().any(reports))
            && let Some((slot, status)) = far.failed(&**queue)?
        {
            return Err(self.node_error(slot, status));
        }
        Ok(())
    }

    /// Makes the inputs' addresses known, bringing them to a device that has memory of its own.
    ///
    /// # Safety
    /// Inputs are readable for their lengths.
    unsafe fn bring(&mut self, inputs: &[Option<Given<'_>>]) -> Result<(), Error> {
        for (i, b) in self.tier.plan.bufs.iter().enumerate() {
            let Buf::Input(n) = b else { continue };
            let given = inputs[*n as usize];
            self.now[i] = match (&mut self.far, &self.queue, given) {
                (Some(far), Some(queue), Some(g)) => {
                    // SAFETY: by the caller's promise.
                    let bytes = unsafe { g.bytes() };
                    far.input(&**queue, i, &bytes[..g.need().unwrap_or(0)])?
                }
                (_, _, given) => given.map_or(0, |g| g.at.expose_provenance() as u64),
            };
        }
        Ok(())
    }

    /// Brings the outputs back from a device that has memory of its own.
    fn fetch(&mut self) -> Result<(), Error> {
        let k = self.stages.len() - 1;
        for (i, source) in self.tier.plan.outputs.iter().enumerate() {
            let OutputSource::Buf(buf) = source else { continue };
            let from = self.place(k, *buf).0;
            if let (Some(far), Some(queue)) = (&mut self.far, &self.queue) {
                queue.read(&mut far.outputs[i], from)?;
            }
        }
        Ok(())
    }

    /// Puts the addresses of this run's inputs and outputs into the stage's argument blocks.
    pub(crate) fn patch(&mut self, k: usize, rooms: &[Room]) {
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
    pub(crate) fn place(&self, k: usize, buf: u32) -> (u64, u64) {
        let i = buf as usize;
        let place = self.stages[k].bounds.last().map(|b| b.places[i]).unwrap_or_default();
        match self.tier.plan.bufs[i] {
            Buf::Input(_) | Buf::Output { .. } => (self.now[i], place.len),
            _ => (place.at, place.len),
        }
    }

    /// Says where outputs in buffers will be, and refuses rooms that are too small for them.
    fn describe(&mut self, rooms: &[Room], made: &mut [Made]) -> Result<(), Error> {
        let k = self.stages.len() - 1;
        for (i, source) in self.tier.plan.outputs.iter().enumerate() {
            let OutputSource::Buf(buf) = source else { continue };
            let at = self.place(k, *buf).0;
            let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
            let (dims, bytes) = &b.outputs[i];
            let m = &mut made[i];
            m.dims.clear();
            m.dims.extend_from_slice(dims);
            m.len = *bytes;
            m.at = match &mut self.far {
                Some(far) => {
                    far.outputs[i].resize(*bytes, 0);
                    far.outputs[i].as_ptr()
                }
                None => std::ptr::with_exposed_provenance(at as usize),
            };
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
