//! Memory and queues.
//!
//! Invariant: an access is either of bytes of one living memory, or a failure that says what was asked
//! for; bytes that nothing wrote are not read.

use crate::{DEVICE, Failure, Got, LIMIT};
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
    /// Reserves memory; its address.
    pub fn reserve(&self, bytes: u64) -> Got<u64> {
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

    /// Gives memory back.
    pub fn release(&self, at: u64) {
        if let Some(m) = lock(&self.memories).remove(&at) {
            lock(&self.freed).push((at, m.len));
        }
    }

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

type Work = Box<dyn FnOnce(&Device) -> Got<()>>;

/// A queue: work waits until somebody does.
pub struct Queue {
    device: Arc<Device>,
    waiting: RefCell<VecDeque<Work>>,
}

impl Queue {
    /// An empty one.
    pub fn new(device: &Arc<Device>) -> Queue {
        Queue { device: device.clone(), waiting: RefCell::default() }
    }

    /// Puts work into it.
    pub fn put(&self, work: impl FnOnce(&Device) -> Got<()> + 'static) {
        self.waiting.borrow_mut().push_back(Box::new(work));
    }

    /// Copies to the device, later.
    pub fn write(&self, to: u64, from: &[u8]) {
        let from = from.to_vec();
        self.put(move |d| d.write(to, &from));
    }

    /// Copies from the device, after everything before.
    pub fn read(&self, to: &mut [u8], from: u64) -> Got<()> {
        self.wait()?;
        self.device.read(from, to)
    }

    /// Does what waits; nothing is left where something fails.
    pub fn wait(&self) -> Got<()> {
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
