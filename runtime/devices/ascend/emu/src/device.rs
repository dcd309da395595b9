//! Memory and queues.
//!
//! Invariant: an access is either of bytes of one living memory, or a failure that says what was asked
//! for; bytes that nothing wrote are not read.

use crate::module::{Kernel, Module};
use crate::operators::Operator;
use hub_abi::device as abi;
use hub_plugin::{self as plugin, DEVICE, Failure, Got, LIMIT};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory of a device starts at multiples of this.
const ALIGN: usize = 256;

struct Memory {
    /// Room for the bytes, and for them to be aligned.
    _room: Vec<u8>,
    len: u64,
    /// A bit a byte: was it written?
    written: Vec<u64>,
}

/// An opened device.
#[derive(Default)]
pub struct Device {
    memories: Mutex<BTreeMap<u64, Memory>>,
    /// Memory that was given back: for messages.
    freed: Mutex<Vec<(u64, u64)>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Checks an access, noting writes.
    pub fn check(&self, at: u64, bytes: u64, write: bool) -> Got<()> {
        let mut memories = lock(&self.memories);
        let found = memories.range_mut(..=at).next_back();
        let Some((base, m)) =
            found.filter(|(b, m)| at - **b <= m.len && bytes <= m.len - (at - **b))
        else {
            let freed = lock(&self.freed).iter().any(|(a, n)| *a <= at && at < a + n);
            let which = if freed { "memory that was given back" } else { "no memory" };
            return Err(Failure::new(DEVICE, format!("{bytes} bytes at {at:#x} are in {which}")));
        };
        let first = (at - base) as usize;
        match (write, unwritten(&mut m.written, first, bytes as usize, write)) {
            (false, Some(i)) => {
                let what = format!("{bytes} bytes at {at:#x}: nothing wrote byte {}", i - first);
                Err(Failure::new(DEVICE, what))
            }
            _ => Ok(()),
        }
    }

    /// Copies bytes out.
    pub fn read(&self, at: u64, to: &mut [u8]) -> Got<()> {
        self.check(at, to.len() as u64, false)?;
        let from = std::ptr::with_exposed_provenance::<u8>(at as usize);
        // SAFETY: the range lies in a living memory, which only this device's queues write.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies bytes in.
    pub fn write(&self, at: u64, from: &[u8]) -> Got<()> {
        self.check(at, from.len() as u64, true)?;
        let to = std::ptr::with_exposed_provenance_mut::<u8>(at as usize);
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }
}

/// Marks bytes as written, or finds the first that is not.
fn unwritten(bits: &mut [u64], first: usize, n: usize, write: bool) -> Option<usize> {
    let mut i = first;
    while i < first + n {
        let (word, bit) = (i / 64, i % 64);
        let k = (64 - bit).min(first + n - i);
        let mask = if k == 64 { u64::MAX } else { ((1 << k) - 1) << bit };
        if write {
            bits[word] |= mask;
        } else if bits[word] & mask != mask {
            return Some(i + ((!bits[word] & mask) >> bit).trailing_zeros() as usize);
        }
        i += k;
    }
    None
}

impl plugin::Device for Device {
    type Queue = Queue;
    type Module = Module;
    type Kernel = Kernel;
    type Graph = Recorded;
    type Operator = Operator;

    fn describe(&self) -> Got<String> {
        Ok("an emulated Ascend NPU of architecture 2201".into())
    }

    fn kind(&self) -> Got<u32> {
        Ok(abi::HOST)
    }

    fn reserve(&self, bytes: u64) -> Got<u64> {
        let none = || Failure::new(LIMIT, format!("no memory of {bytes} bytes"));
        let len = usize::try_from(bytes).ok().and_then(|n| n.checked_add(ALIGN));
        let mut room = Vec::new();
        room.try_reserve_exact(len.ok_or_else(none)?).map_err(|_| none())?;
        room.resize(len.unwrap_or(0), 0xA5);
        let at = (room.as_ptr().expose_provenance().next_multiple_of(ALIGN)) as u64;
        let written = vec![0; (bytes as usize).div_ceil(64)];
        lock(&self.memories).insert(at, Memory { _room: room, len: bytes, written });
        lock(&self.freed).retain(|(a, n)| a + n <= at || at + bytes.max(1) <= *a);
        Ok(at)
    }

    fn release(&self, at: u64) {
        if let Some(m) = lock(&self.memories).remove(&at) {
            lock(&self.freed).push((at, m.len));
        }
    }

    fn queue(self: &Arc<Device>) -> Got<Queue> {
        let (waiting, recording) = (RefCell::default(), RefCell::default());
        Ok(Queue { device: self.clone(), waiting, recording })
    }

    fn write(queue: &Queue, to: u64, from: &[u8]) -> Got<()> {
        queue.steady("a write")?;
        let from = from.to_vec();
        queue.put(move |d| d.write(to, &from));
        Ok(())
    }

    fn read(queue: &Queue, to: &mut [u8], from: u64) -> Got<()> {
        queue.wait()?;
        queue.device.read(from, to)
    }

    fn wait(queue: &Queue) -> Got<()> {
        queue.wait()
    }

    fn module(self: &Arc<Device>, _tier: &str, code: &[u8]) -> Got<Module> {
        Module::new(code)
    }

    fn kernel(module: &Module, name: &str, _kinds: &[u8]) -> Got<Kernel> {
        module.kernel(name)
    }

    unsafe fn launch(queue: &Queue, kernel: &Arc<Kernel>, tiles: u64, args: &[u64]) -> Got<()> {
        kernel.launch(queue, tiles, args);
        Ok(())
    }
}

type Work = Arc<dyn Fn(&Device) -> Got<()> + Send + Sync>;

/// A queue: work waits until somebody does.
pub struct Queue {
    device: Arc<Device>,
    waiting: RefCell<VecDeque<Work>>,
    /// What is recorded, while it is.
    recording: RefCell<Option<Vec<Work>>>,
}

/// Work that a queue recorded.
pub struct Recorded(Vec<Work>);

impl plugin::Graph<Queue> for Recorded {
    fn record(queue: &Queue) -> Got<()> {
        queue.steady("recording")?;
        *queue.recording.borrow_mut() = Some(vec![]);
        Ok(())
    }

    fn recorded(queue: &Queue) -> Got<Recorded> {
        let work = queue.recording.borrow_mut().take();
        work.map(Recorded).ok_or_else(|| Failure::new(DEVICE, "nothing is being recorded"))
    }

    fn replay(&self, queue: &Queue) -> Got<()> {
        queue.steady("a replay")?;
        queue.waiting.borrow_mut().extend(self.0.iter().cloned());
        Ok(())
    }
}

impl Queue {
    /// Puts work into it.
    pub fn put(&self, work: impl Fn(&Device) -> Got<()> + Send + Sync + 'static) {
        let work = Arc::new(work);
        match &mut *self.recording.borrow_mut() {
            Some(list) => list.push(work),
            None => self.waiting.borrow_mut().push_back(work),
        }
    }

    /// Refuses what cannot be recorded.
    fn steady(&self, what: &str) -> Got<()> {
        match *self.recording.borrow() {
            Some(_) => Err(Failure::new(DEVICE, format!("{what} while a queue records"))),
            None => Ok(()),
        }
    }

    /// Does what waits; nothing is left where something fails.
    fn wait(&self) -> Got<()> {
        self.steady("waiting")?;
        let all = std::mem::take(&mut *self.waiting.borrow_mut());
        all.into_iter().try_for_each(|work| work(&self.device))
    }
}

impl Drop for Queue {
    /// What it was given is done first.
    fn drop(&mut self) {
        let _ = self.wait();
    }
}
