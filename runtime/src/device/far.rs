//! A session's memory on a device that has its own: constants, arenas, inputs and outputs.

use super::{Kernels, Queue};
use crate::error::Error;
use crate::map::Region;
use std::io;
use std::sync::Arc;

/// Memory of a device, given back when it is dropped.
pub struct Held {
    kernels: Arc<dyn Kernels>,
    /// Its address.
    pub at: u64,
    /// Its bytes.
    pub len: usize,
}

impl Held {
    /// Memory of `len` bytes.
    pub fn new(kernels: &Arc<dyn Kernels>, len: usize) -> Result<Held, Error> {
        Ok(Held { at: kernels.reserve(len as u64)?, kernels: kernels.clone(), len })
    }

    /// Memory that holds these bytes.
    pub fn with(kernels: &Arc<dyn Kernels>, bytes: &[u8]) -> Result<Held, Error> {
        let held = Held::new(kernels, bytes.len())?;
        let queue = kernels.queue()?;
        queue.write(held.at, bytes)?;
        queue.wait()?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.kernels.release(self.at);
    }
}

/// Memory of an arena.
pub enum Room {
    /// In this process.
    Here(Region),
    /// On a device.
    There(Held),
}

impl Room {
    /// Memory of `len` bytes, on the device if it has its own.
    pub fn new(far: Option<&Far>, len: usize) -> Result<Room, Error> {
        let Some(far) = far else {
            let none = |e: io::Error| Error::Limit(format!("{len} bytes of arena: {e}"));
            return Ok(Room::Here(Region::new(len).map_err(none)?));
        };
        Ok(Room::There(Held::new(&far.kernels, len)?))
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Room::Here(r) => r.len(),
            Room::There(h) => h.len,
        }
    }

    /// The address that kernels see.
    pub fn at(&self) -> u64 {
        match self {
            Room::Here(r) => r.base().expose_provenance() as u64,
            Room::There(h) => h.at,
        }
    }
}

/// What a session has on a device, beside arenas.
pub struct Far {
    kernels: Arc<dyn Kernels>,
    /// The constants, shared by the model's sessions.
    pub consts: Arc<Held>,
    /// A status word for each profile slot.
    status: Held,
    /// Room for each buffer that is an input, grown as needed.
    inputs: Vec<Option<Held>>,
    /// Outputs, brought back.
    pub outputs: Vec<Vec<u8>>,
}

impl Far {
    /// Memory for a plan of so many buffers, outputs and profile slots.
    pub fn new(
        kernels: &Arc<dyn Kernels>,
        consts: Arc<Held>,
        (bufs, outputs, slots): (usize, usize, usize),
    ) -> Result<Far, Error> {
        Ok(Far {
            kernels: kernels.clone(),
            consts,
            status: Held::with(kernels, &vec![0; 4 * slots.max(1)])?,
            inputs: (0..bufs).map(|_| None).collect(),
            outputs: vec![vec![]; outputs],
        })
    }

    /// Address of the first slot's status word; the others follow.
    pub fn status(&self) -> u64 {
        self.status.at
    }

    /// Room for an input of so many bytes: its address.
    pub fn room(&mut self, buf: usize, bytes: usize) -> Result<u64, Error> {
        let room = &mut self.inputs[buf];
        if room.as_ref().is_none_or(|r| r.len < bytes) {
            *room = None;
            *room = Some(Held::new(&self.kernels, bytes)?);
        }
        Ok(room.as_ref().map_or(0, |r| r.at))
    }

    /// Brings an input to the device: its address there.
    pub fn input(&mut self, queue: &dyn Queue, buf: usize, bytes: &[u8]) -> Result<u64, Error> {
        let at = self.room(buf, bytes.len())?;
        queue.write(at, bytes)?;
        Ok(at)
    }

    /// The first slot whose status was set, and the status; none is set afterwards.
    pub fn failed(&self, queue: &dyn Queue) -> Result<Option<(u32, u32)>, Error> {
        let mut words = vec![0; self.status.len];
        queue.read(&mut words, self.status.at)?;
        let word = |w: &[u8]| u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
        let found = words.chunks_exact(4).map(word).enumerate().find(|(_, w)| *w != 0);
        if found.is_some() {
            queue.write(self.status.at, &vec![0; self.status.len])?;
        }
        Ok(found.map(|(slot, w)| (slot as u32, w)))
    }
}
