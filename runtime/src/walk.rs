//! The steps of a bound stage: kernels, branches and loops natively, host steps by the interpreter.
//!
//! Invariant: only host steps, and values that lie on the heap, allocate.

use crate::bind::value_dims;
use crate::error::Error;
use crate::native::Native;
use crate::ops::{Bound, Known, LoopOp, Op};
use crate::tensor::Given;
use hub_abi::Sym;
use hub_abi::plan::{Buf, Source, Step};
use hub_portable::{ExecError, PrimError, Tensor, Value};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl Native {
    /// Runs a range of a stage's ops.
    ///
    /// # Safety
    /// The stage is bound, and patched with addresses that are valid now.
    pub(crate) unsafe fn execute(&mut self, k: usize, range: Range<usize>) -> Result<(), Error> {
        let mut i = range.start;
        while i < range.end {
            let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
            let op = b.ops[i];
            i += 1;
            match op {
                // SAFETY: as promised by our caller.
                Op::Call { .. } => unsafe { self.call(k, i - 1)? },
                Op::Host { host, slot } => {
                    let t = self.profile.is_some().then(Instant::now);
                    self.host_step(k, host as usize)?;
                    self.record(slot, t);
                }
                Op::Branch { cond, then, orelse } => {
                    let first = i..i + then as usize;
                    let second = first.end..first.end + orelse as usize;
                    i = second.end;
                    let yes = self.read::<1>(k, cond, 0)?[0] != 0;
                    // SAFETY: as promised by our caller.
                    unsafe { self.execute(k, if yes { first } else { second })? };
                }
                Op::Repeat { trip, len, bumps, info } => {
                    let body = i..i + len as usize;
                    i = body.end;
                    self.rewind(k, bumps);
                    for _ in 0..trip {
                        self.forget(info);
                        self.count(len, 0)?;
                        // SAFETY: as promised by our caller.
                        unsafe { self.execute(k, body.clone())? };
                        self.bump(k, bumps);
                    }
                    self.forget(info);
                }
                Op::Loop(at) => {
                    let l = b.loops[at as usize];
                    let body = i..i + l.len as usize;
                    i = body.end;
                    // SAFETY: as promised by our caller.
                    unsafe { self.repeat(k, l, body)? };
                }
                Op::Bind(first, end) => self.bind_symbols(k, first..end)?,
                Op::Move(at) => self.move_values(k, at as usize)?,
                Op::Store(at) => {
                    let tier = self.tier.clone();
                    self.store(k, &tier.flow.stores[at as usize])?;
                }
                Op::Free(at) => {
                    let tier = self.tier.clone();
                    tier.flow.freed[at as usize].iter().for_each(|&v| self.host.free(v));
                }
                Op::Fail(at) => return Err(Error::Plan(b.faults[at as usize].clone())),
            }
        }
        Ok(())
    }

    /// A loop whose end is found while it runs.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    unsafe fn repeat(&mut self, k: usize, l: LoopOp, body: Range<usize>) -> Result<(), Error> {
        let tier = self.tier.clone();
        let info = &tier.flow.loops[l.info as usize];
        let mut held = vec![];
        for c in &info.carried {
            held.push(self.value(k, &c.init)?);
        }
        let mut trip = match l.trip {
            Some(b) => i64::from_le_bytes(self.read(k, b, 0)?).max(0) as u64,
            None => u64::MAX,
        };
        match l.most {
            // Nothing else may end it.
            Some(most) if l.trip.is_none() && l.cond.is_none() => trip = most,
            _ => {}
        }
        self.rewind(k, l.bumps);
        let mut i = 0;
        let holds = |n: &Native, i: u64| match l.cond {
            Some(b) if l.first || i > 0 => Ok::<_, Error>(n.read::<1>(k, b, 0)?[0] != 0),
            _ => Ok(true),
        };
        while i < trip && holds(self, i)? {
            if l.most.is_some_and(|most| i >= most) {
                let what = format!("iteration {i} of a loop that has room for {i}");
                return Err(Error::plan(what));
            }
            self.forget(l.info);
            self.count(l.len, l.work)?;
            if let Some(b) = l.iteration {
                self.write(k, b, &i.to_le_bytes())?;
            }
            for (c, v) in info.carried.iter().zip(held.drain(..)) {
                self.host.name(self.model.0.shared()?, (c.param, v), &mut self.env)?;
            }
            // SAFETY: as promised by our caller.
            unsafe { self.execute(k, body.clone())? };
            for c in &info.carried {
                held.push(self.value(k, &c.next)?);
            }
            self.bump(k, l.bumps);
            i += 1;
        }
        self.forget(l.info);
        for (c, v) in info.carried.iter().zip(held) {
            self.host.name(self.model.0.shared()?, (c.out, v), &mut self.env)?;
        }
        match l.count {
            Some(s) => self.bind_symbol(s, i as i64),
            None => Ok(()),
        }
    }

    /// Counts an iteration of so many steps and so much work against the session's limits.
    fn count(&mut self, ops: u32, work: u64) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(u64::from(ops) + 1);
        self.work = self.work.saturating_add(work);
        let (steps, work) = (self.limits.steps, self.limits.work);
        if self.steps <= steps && self.work <= work {
            return Ok(());
        }
        Err(self.above_limits())
    }

    /// Why a run has done too much.
    #[cold]
    pub(crate) fn above_limits(&self) -> Error {
        let (steps, work) = (self.limits.steps, self.limits.work);
        let what = match self.steps > steps {
            true => format!("the number of nodes run, {steps} in loops"),
            false => format!("the amount of work of a run, {work} units in loops"),
        };
        Error::Limit(format!("{what}, is above the limit: raise the session's limits"))
    }

    /// Unbinds what a loop's body binds for itself.
    fn forget(&mut self, info: u32) {
        for s in &self.tier.flow.loops[info as usize].locals {
            if let Some(v) = self.env.0.get_mut(s.0 as usize) {
                *v = None;
            }
        }
    }

    fn rewind(&mut self, k: usize, bumps: (u32, u32)) {
        let Some(b) = self.stages[k].bounds.last_mut() else { return };
        for &(w, _) in &b.bumps[bumps.0 as usize..bumps.1 as usize] {
            b.words[w as usize] = b.base[w as usize];
        }
    }

    /// Moves the addresses of a repetition by one iteration.
    fn bump(&mut self, k: usize, bumps: (u32, u32)) {
        let Some(b) = self.stages[k].bounds.last_mut() else { return };
        let Bound { bumps: all, words, .. } = b;
        for &(w, by) in &all[bumps.0 as usize..bumps.1 as usize] {
            let word = &mut words[w as usize];
            *word = word.wrapping_add(by);
        }
    }

    /// Calls one kernel.
    ///
    /// # Safety
    /// As for [`Native::execute`].
    unsafe fn call(&mut self, k: usize, at: usize) -> Result<(), Error> {
        let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
        let Op::Call { kernel, args, tiles, scratch, wide, status, slot } = b.ops[at] else {
            return Ok(());
        };
        let args = &b.words[args as usize..];
        let f = self.tier.kernel(kernel);
        let t = self.profile.is_some().then(Instant::now);
        // SAFETY: the block's addresses were checked against their buffers when the stage was
        // bound, and scratch was placed for as many workers as take part; inputs and outputs are
        // valid by our caller's promise, tiles are independent.
        unsafe {
            match (f, wide, &self.queue) {
                (Some(f), true, _) => self.pool.call_all(f, args.as_ptr(), tiles, scratch),
                (Some(f), false, _) => self.pool.call(f, args.as_ptr(), tiles, scratch),
                (None, _, Some(queue)) => {
                    queue.launch(kernel, args, tiles)?;
                    // A device's time is measured step by step.
                    t.map_or(Ok(()), |_| queue.wait())?;
                }
                (None, ..) => return Err(Error::plan("a kernel of no device")),
            }
        }
        self.record(slot, t);
        if status && self.status.load(Relaxed) != 0 {
            let status = self.status.swap(0, Relaxed);
            return Err(self.node_error(slot, status));
        }
        Ok(())
    }

    fn record(&mut self, slot: u32, since: Option<Instant>) {
        if let (Some(p), Some(t)) = (&mut self.profile, since) {
            p.nanos[slot as usize] += t.elapsed().as_nanos() as u64;
        }
    }

    #[cold]
    pub(crate) fn node_error(&self, slot: u32, status: u32) -> Error {
        let what = match status {
            2 => "an integer is divided by zero",
            _ => "an index is outside its axis, or an integer is divided by zero",
        };
        fn find<'a>(steps: &'a [Step], left: &mut u32) -> Option<&'a Step> {
            for s in steps {
                if matches!(s, Step::Kernel { .. } | Step::Host { .. }) {
                    if *left == 0 {
                        return Some(s);
                    }
                    *left -= 1;
                }
                if let Some(found) = s.blocks().find_map(|b| find(&b.steps, left)) {
                    return Some(found);
                }
            }
            None
        }
        let node = match find(&self.tier.plan.steps, &mut { slot }) {
            Some(Step::Kernel { node, .. }) => node.clone(),
            _ => String::new(),
        };
        Error::Node { node, what: what.into() }
    }

    /// Bytes of a buffer that binding found to hold them.
    fn read<const N: usize>(&self, k: usize, buf: u32, offset: u32) -> Result<[u8; N], Error> {
        let (at, have) = self.place(k, buf);
        let mut out = [0; N];
        if u64::from(offset) + N as u64 > have {
            return Ok(out);
        }
        if let (Some(_), Some(queue)) = (&self.far, &self.queue) {
            queue.read(&mut out, at + u64::from(offset))?;
        } else {
            let from = std::ptr::with_exposed_provenance::<u8>(at as usize + offset as usize);
            // SAFETY: the buffer has `have` bytes, and no kernel runs now.
            unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), N) };
        }
        Ok(out)
    }

    /// Writes to a buffer that has room for it, from its start.
    fn write(&self, k: usize, buf: u32, bytes: &[u8]) -> Result<(), Error> {
        let (at, have) = self.place(k, buf);
        if bytes.len() as u64 > have {
            return Ok(());
        }
        if let (Some(_), Some(queue)) = (&self.far, &self.queue) {
            queue.write(at, bytes)?;
        } else {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(at as usize);
            // SAFETY: the buffer has `have` bytes and may be written, as opening checked; no kernel
            // runs now.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
        Ok(())
    }

    fn bind_symbols(&mut self, k: usize, range: Range<u32>) -> Result<(), Error> {
        for i in range {
            let Some(b) = self.stages[k].bounds.last() else { return Ok(()) };
            let (s, from) = b.binds[i as usize];
            let value = match from {
                Known::Value(v) => v,
                Known::Read { buf, offset, wide: true } => {
                    i64::from_le_bytes(self.read(k, buf, offset)?)
                }
                Known::Read { buf, offset, .. } => {
                    i32::from_le_bytes(self.read(k, buf, offset)?).into()
                }
            };
            self.bind_symbol(s, value)?;
        }
        Ok(())
    }

    fn bind_symbol(&mut self, s: Sym, value: i64) -> Result<(), Error> {
        let info = &self.model.manifest().syms[s.0 as usize];
        if (info.min..=info.max).contains(&value) {
            self.env.set(s, value);
            return Ok(());
        }
        let fault = PrimError::outside(info, value).into();
        Err(ExecError { node: info.name.clone(), op: "Bind".into(), fault }.into())
    }

    /// A value for the heap.
    fn value(&self, k: usize, from: &Source) -> Result<Value, Error> {
        match from {
            Source::Heap(v) => match self.host.get(*v) {
                Some(v) => Ok(v.clone()),
                None => Err(Error::plan(format!("value {v} is not made yet"))),
            },
            Source::Buf { value, buf } => Ok(self.load(k, *value, *buf)?.into()),
        }
    }

    fn move_values(&mut self, k: usize, at: usize) -> Result<(), Error> {
        let tier = self.tier.clone();
        let moves = &tier.flow.moves[at];
        let values = moves.iter().map(|(from, _)| self.value(k, from));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        for ((_, to), v) in moves.iter().zip(values) {
            self.host.name(self.model.0.shared()?, (*to, v), &mut self.env)?;
        }
        Ok(())
    }

    /// A tensor from a buffer: a copy, but for constants.
    fn load(&self, k: usize, v: u32, buf: u32) -> Result<Tensor, Error> {
        let (dtype, dims, len) = value_dims(&self.model.graph()?.values[v as usize], &self.env)?;
        let tensor = match self.tier.plan.bufs[buf as usize] {
            Buf::Const { offset, .. } => {
                self.model.0.shared()?.constant(dtype, &dims, offset as usize, len)
            }
            _ => {
                let (at, have) = self.place(k, buf);
                if (len as u64) > have {
                    return Err(Error::plan(format!("value {v} is not whole in its buffer")));
                }
                if let (Some(_), Some(queue)) = (&self.far, &self.queue) {
                    let mut bytes = vec![0; len];
                    queue.read(&mut bytes, at)?;
                    return Tensor::from_bytes(dtype, &dims, &bytes)
                        .map_err(|e| Error::plan(format!("value {v}: {e}")));
                }
                let at = std::ptr::with_exposed_provenance(at as usize);
                let given = Given { dtype, dims: &dims, at, len };
                // SAFETY: the buffer has `have` bytes, and no kernel runs now.
                Tensor::from_bytes(dtype, &dims, unsafe { given.bytes() })
            }
        };
        tensor.map_err(|e| Error::plan(format!("value {v}: {e}")))
    }

    /// Runs a host step: operands from buffers to the heap, the node, results to buffers.
    fn host_step(&mut self, k: usize, host: usize) -> Result<(), Error> {
        let model = self.model.clone();
        let shared = model.0.shared()?;
        let tier = self.tier.clone();
        let h = &tier.flow.hosts[host];
        for &(v, buf) in &h.inputs {
            let tensor = self.load(k, v, buf)?;
            self.host.set(model.graph()?, v, tensor.into());
        }
        for &(v, region, node) in &h.loads {
            if self.host.get(v).is_none() {
                self.host.step(shared, (region, node), &mut self.env)?;
            }
        }
        self.host.step(shared, (h.region, h.node), &mut self.env)?;
        self.store(k, &h.outputs)
    }

    /// Copies tensors from the heap to those of their buffers that belong to stage `k` or earlier
    /// ones.
    pub(crate) fn store(&mut self, k: usize, values: &[(u32, u32)]) -> Result<(), Error> {
        for &(v, buf) in values {
            if self.tier.flow.buf_stage[buf as usize] > k {
                continue;
            }
            let Some(Value::Tensor(t)) = self.host.get(v) else {
                return Err(Error::plan(format!("no step makes tensor {v}")));
            };
            let (_, dims, len) = value_dims(&self.model.graph()?.values[v as usize], &self.env)?;
            let (at, have) = self.place(k, buf);
            if t.dims() != dims || t.bytes().len() != len || len as u64 > have {
                let what = format!("value {v} is {:?}, {dims:?} fits its buffer", t.dims());
                return Err(Error::plan(what));
            }
            if let (Some(_), Some(queue)) = (&self.far, &self.queue) {
                queue.write(at, t.bytes())?;
                continue;
            }
            let to = std::ptr::with_exposed_provenance_mut::<u8>(at as usize);
            // SAFETY: the buffer has `have` bytes, no kernel runs now, and the heap is elsewhere.
            unsafe { std::ptr::copy_nonoverlapping(t.bytes().as_ptr(), to, len) };
        }
        Ok(())
    }
}
