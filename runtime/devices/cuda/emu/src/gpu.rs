//! The one GPU: memory, streams of work, modules, graphs.
//!
//! Invariant: addresses are none of this process; a byte is reached through the allocation that holds it.

use hub_testrun::ptx::{Memory, Module, Region};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// A `CUresult`.
pub type Code = i32;

pub const INVALID_VALUE: Code = 1;
pub const OUT_OF_MEMORY: Code = 2;
pub const NOT_INITIALIZED: Code = 3;
pub const INVALID_DEVICE: Code = 101;
pub const INVALID_CONTEXT: Code = 201;
pub const INVALID_PTX: Code = 218;
pub const INVALID_HANDLE: Code = 400;
pub const NOT_FOUND: Code = 500;
pub const ILLEGAL_ADDRESS: Code = 700;
pub const LAUNCH_FAILED: Code = 719;
pub const CAPTURE_UNSUPPORTED: Code = 900;
pub const CAPTURE_INVALIDATED: Code = 901;
pub const ILLEGAL_STATE: Code = 401;

/// Bytes of the GPU's memory.
const MEMORY: u64 = 8 << 30;
/// Where memory begins; allocations lie this far apart at least.
const BASE: u64 = 0x7_0000_0000;
const APART: u64 = 1 << 16;

pub type Done<T = ()> = Result<T, Code>;

/// A kernel.
#[derive(Clone)]
pub struct Function {
    pub module: Arc<Module>,
    pub name: String,
    /// Bytes of shared memory, beside what its text declares, that a launch may ask for.
    pub shared: u32,
}

/// Work of a stream.
#[derive(Clone)]
pub enum Work {
    /// To the device, from pinned memory.
    Up {
        to: u64,
        from: usize,
        bytes: usize,
    },
    /// From the device, to pinned memory.
    Down {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Launch {
        function: Function,
        blocks: u64,
        args: Vec<u64>,
    },
    Event(usize),
    /// Launches of a graph.
    Graph(Arc<Vec<Work>>),
}

#[derive(Default)]
pub struct Stream {
    work: VecDeque<Work>,
    capture: Option<Vec<Work>>,
    invalid: bool,
}

/// What was done.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    /// Kernels run, those of graphs included.
    pub launches: u64,
    /// Graphs launched, and kernels run so.
    pub replays: u64,
    pub replayed: u64,
}

#[derive(Default)]
pub struct Gpu {
    pub started: bool,
    pub retained: u32,
    next: usize,
    memory: BTreeMap<u64, Vec<u8>>,
    free_from: u64,
    /// Pinned memory: its bytes, by address.
    pinned: BTreeMap<usize, usize>,
    streams: HashMap<usize, Stream>,
    /// Is it recorded, and not passed yet?
    events: HashMap<usize, bool>,
    pub modules: HashMap<usize, Arc<Module>>,
    pub functions: HashMap<usize, Function>,
    graphs: HashMap<usize, Vec<Work>>,
    execs: HashMap<usize, Arc<Vec<Work>>>,
    failed: Option<Code>,
    pub counts: Counts,
}

impl Gpu {
    /// A new handle.
    pub fn handle(&mut self) -> usize {
        self.next += 1;
        0x1000 + 16 * self.next
    }

    /// The fault that every call answers with, once a kernel made one.
    pub fn sound(&self) -> Done {
        self.failed.map_or(Ok(()), Err)
    }

    /// Things that were made and not given back.
    pub fn left(&self) -> usize {
        self.memory.len()
            + self.pinned.len()
            + self.streams.len()
            + self.events.len()
            + self.modules.len()
            + self.graphs.len()
            + self.execs.len()
    }

    pub fn alloc(&mut self, bytes: usize) -> Done<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let used: u64 = self.memory.values().map(|m| m.len() as u64).sum();
        if used.saturating_add(bytes as u64) > MEMORY {
            return Err(OUT_OF_MEMORY);
        }
        let at = self.free_from.max(BASE);
        self.free_from = (at + bytes as u64 + APART).next_multiple_of(APART);
        self.memory.insert(at, vec![0xA5; bytes]);
        Ok(at)
    }

    /// Gives memory back, when all streams are done.
    pub fn free(&mut self, at: u64) -> Done {
        let all: Vec<usize> = self.streams.keys().copied().collect();
        all.into_iter().try_for_each(|s| self.drain(s, None))?;
        self.memory.remove(&at).map(|_| ()).ok_or(INVALID_VALUE)
    }

    pub fn pin(&mut self, bytes: usize) -> usize {
        let room = Box::into_raw(vec![0x5A; bytes].into_boxed_slice());
        let at = room.cast::<u8>().expose_provenance();
        self.pinned.insert(at, bytes);
        at
    }

    pub fn unpin(&mut self, at: usize) -> Done {
        let bytes = self.pinned.remove(&at).ok_or(INVALID_VALUE)?;
        let room = std::ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: made by `pin`, of so many bytes, and no longer listed.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(room, bytes)) });
        Ok(())
    }

    pub fn stream(&mut self) -> usize {
        let h = self.handle();
        self.streams.insert(h, Stream::default());
        h
    }

    pub fn end_stream(&mut self, s: usize) -> Done {
        self.drain(s, None)?;
        self.streams.remove(&s).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    pub fn event(&mut self) -> usize {
        let h = self.handle();
        self.events.insert(h, false);
        h
    }

    pub fn end_event(&mut self, e: usize) -> Done {
        self.events.remove(&e).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    /// Puts work into a stream, or what it captures.
    pub fn put(&mut self, s: usize, work: Work) -> Done {
        self.sound()?;
        self.check(&work)?;
        if let Work::Event(e) = work {
            *self.events.get_mut(&e).ok_or(INVALID_HANDLE)? = true;
        }
        let stream = self.streams.get_mut(&s).ok_or(INVALID_HANDLE)?;
        match (&mut stream.capture, &work) {
            (Some(list), Work::Launch { .. }) => list.push(work),
            // (CUDA captures copies too; nobody asks for it.)
            (Some(_), _) => {
                stream.invalid = true;
                return Err(CAPTURE_UNSUPPORTED);
            }
            (None, _) => stream.work.push_back(work),
        }
        Ok(())
    }

    /// Are a copy's addresses and pinned memory there?
    fn check(&self, work: &Work) -> Done {
        let (host, device, bytes) = match *work {
            Work::Up { to, from, bytes } => (from, to, bytes),
            Work::Down { to, from, bytes } => (to, from, bytes),
            _ => return Ok(()),
        };
        if !self.is_pinned(host, bytes) {
            eprintln!("stand-in for libcuda: a copy of {bytes} bytes that are not pinned");
            return Err(INVALID_VALUE);
        }
        let room = self.memory.range(..=device).next_back();
        match room.is_some_and(|(at, m)| (device - at) as usize + bytes <= m.len()) {
            true => Ok(()),
            false => {
                eprintln!("stand-in for libcuda: {bytes} bytes at {device:#x} are in no memory");
                Err(INVALID_VALUE)
            }
        }
    }

    fn is_pinned(&self, at: usize, bytes: usize) -> bool {
        let found = self.pinned.range(..=at).next_back();
        found.is_some_and(|(base, len)| at - base + bytes <= *len)
    }

    /// Waits for a stream.
    pub fn wait(&mut self, s: usize) -> Done {
        self.sound()?;
        self.drain(s, None)
    }

    /// Waits for an event, if it is recorded.
    pub fn wait_event(&mut self, e: usize) -> Done {
        self.sound()?;
        if !*self.events.get(&e).ok_or(INVALID_HANDLE)? {
            return Ok(());
        }
        let holds = |s: &Stream| s.work.iter().any(|w| matches!(w, Work::Event(x) if *x == e));
        let found = self.streams.iter().find(|(_, s)| holds(s)).map(|(h, _)| *h);
        found.map_or(Ok(()), |s| self.drain(s, Some(e)))
    }

    /// Does a stream's work, up to an event.
    fn drain(&mut self, s: usize, until: Option<usize>) -> Done {
        let stream = self.streams.get_mut(&s).ok_or(INVALID_HANDLE)?;
        if stream.capture.is_some() {
            stream.invalid = true;
            return Err(CAPTURE_UNSUPPORTED);
        }
        loop {
            let stream = self.streams.get_mut(&s).ok_or(INVALID_HANDLE)?;
            let Some(work) = stream.work.pop_front() else { return Ok(()) };
            let last = matches!(work, Work::Event(e) if Some(e) == until);
            if let Err(code) = self.act(&work) {
                self.failed = Some(code);
                return Err(code);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn act(&mut self, work: &Work) -> Done {
        match work {
            Work::Up { to, from, bytes } if self.is_pinned(*from, *bytes) => {
                let host = std::ptr::with_exposed_provenance::<u8>(*from);
                let room = place(&mut self.memory, *to, *bytes)?;
                // SAFETY: pinned memory, given back only through `unpin`, holds the bytes; its owner
                // promised not to write them until the copy is done.
                unsafe { std::ptr::copy_nonoverlapping(host, room.as_mut_ptr(), *bytes) };
            }
            Work::Down { to, from, bytes } if self.is_pinned(*to, *bytes) => {
                let host = std::ptr::with_exposed_provenance_mut::<u8>(*to);
                let room = place(&mut self.memory, *from, *bytes)?;
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(room.as_ptr(), host, *bytes) };
            }
            Work::Up { .. } | Work::Down { .. } => return Err(ILLEGAL_ADDRESS),
            Work::Launch { function, blocks, args } => self.launch(function, *blocks, args)?,
            Work::Event(e) => _ = self.events.insert(*e, false),
            Work::Graph(list) => {
                self.counts.replays += 1;
                self.counts.replayed += list.len() as u64;
                list.iter().try_for_each(|w| self.act(w))?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, f: &Function, blocks: u64, args: &[u64]) -> Done {
        self.counts.launches += 1;
        let regions = self.memory.iter_mut().map(|(at, bytes)| Region { at: *at, bytes });
        let mut memory = Memory::new(regions.collect(), false);
        let done = f.module.entries[&f.name].blocks(args, blocks, &mut memory);
        done.map_err(|e| {
            eprintln!("stand-in for libcuda: kernel {}: {e}", f.name);
            match e.what.contains("outside all memory") {
                true => ILLEGAL_ADDRESS,
                false => LAUNCH_FAILED,
            }
        })
    }

    pub fn capture(&mut self, s: usize) -> Done {
        self.sound()?;
        let stream = self.streams.get_mut(&s).ok_or(INVALID_HANDLE)?;
        if stream.capture.is_some() {
            return Err(ILLEGAL_STATE);
        }
        stream.capture = Some(vec![]);
        Ok(())
    }

    pub fn captured(&mut self, s: usize) -> Done<usize> {
        let stream = self.streams.get_mut(&s).ok_or(INVALID_HANDLE)?;
        let list = stream.capture.take().ok_or(ILLEGAL_STATE)?;
        if std::mem::take(&mut stream.invalid) {
            return Err(CAPTURE_INVALIDATED);
        }
        let h = self.handle();
        self.graphs.insert(h, list);
        Ok(h)
    }

    pub fn instantiate(&mut self, g: usize) -> Done<usize> {
        let list = self.graphs.get(&g).ok_or(INVALID_HANDLE)?.clone();
        let h = self.handle();
        self.execs.insert(h, Arc::new(list));
        Ok(h)
    }

    pub fn end_graph(&mut self, g: usize) -> Done {
        self.graphs.remove(&g).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    pub fn end_exec(&mut self, x: usize) -> Done {
        self.execs.remove(&x).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    pub fn exec(&self, x: usize) -> Done<Arc<Vec<Work>>> {
        self.execs.get(&x).cloned().ok_or(INVALID_HANDLE)
    }
}

/// Bytes of the device's memory.
fn place(memory: &mut BTreeMap<u64, Vec<u8>>, at: u64, bytes: usize) -> Done<&mut [u8]> {
    let (base, room) = memory.range_mut(..=at).next_back().ok_or(ILLEGAL_ADDRESS)?;
    let from = (at - base) as usize;
    room.get_mut(from..from + bytes).ok_or(ILLEGAL_ADDRESS)
}
