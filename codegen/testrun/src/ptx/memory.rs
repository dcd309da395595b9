//! Global memory: ranges of addresses that a kernel may touch, with who touched each byte.

use std::collections::HashMap;

/// Bytes at an address.
#[derive(Debug)]
pub struct Region<'a> {
    /// Address of the first.
    pub at: u64,
    /// The bytes.
    pub bytes: &'a mut [u8],
}

/// Who touched a byte: warp and thread + 1 (0: nobody), and the warp's count of barriers then.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Touch {
    writer: (u64, u8),
    wrote: u32,
    reader: (u64, u8),
    read: u32,
}

/// More than one thread of a warp.
const MANY: u8 = 255;

impl Touch {
    /// Notes an access by a thread of a warp that has passed so many barriers; `again` admits writes
    /// over what another thread of the warp wrote.
    pub(super) fn note(
        &mut self,
        (warp, thread, epoch): (u64, u8, u32),
        write: bool,
        again: bool,
    ) -> Result<(), String> {
        let me = (warp, thread + 1);
        let over = again && write && self.writer.0 == warp;
        let apart =
            |who: (u64, u8), then: u32| who.1 != 0 && who != me && (who.0 != warp || then >= epoch);
        if !over && apart(self.writer, self.wrote) {
            return Err(format!(
                "race with a write of warp {} thread {}",
                self.writer.0, self.writer.1
            ));
        }
        if write && apart(self.reader, self.read) {
            return Err(format!(
                "race with a read of warp {} thread {}",
                self.reader.0, self.reader.1
            ));
        }
        if write {
            (self.writer, self.wrote) = (me, epoch);
            return Ok(());
        }
        let others = self.reader.1 != 0 && self.reader != me && self.read == epoch;
        // Readers of two warps: as a warp that is nobody's.
        self.reader = match self.reader {
            (w, t) if t != 0 && w != warp => (u64::MAX, MANY),
            _ if others => (warp, MANY),
            _ => me,
        };
        self.read = epoch;
        Ok(())
    }
}

/// What a kernel may touch.
#[derive(Debug, Default)]
pub struct Memory<'a> {
    regions: Vec<Region<'a>>,
    touches: Vec<HashMap<u64, Touch>>,
    races: bool,
    pub(super) again: bool,
    /// Addresses that any thread may write at any time (status words).
    free: Vec<u64>,
    /// Addresses are those of this process.
    process: bool,
}

impl<'a> Memory<'a> {
    /// These ranges, which do not overlap; looks for races between threads if asked to.
    pub fn new(mut regions: Vec<Region<'a>>, races: bool) -> Memory<'a> {
        regions.sort_by_key(|r| r.at);
        let touches = regions.iter().map(|_| HashMap::new()).collect();
        Memory { regions, touches, races, again: false, free: vec![], process: false }
    }

    /// All memory of this process, unchecked.
    ///
    /// # Safety
    /// What runs touches only what it may.
    pub unsafe fn process() -> Memory<'a> {
        Memory { process: true, ..Memory::default() }
    }

    /// Threads may write over what another of their warp wrote, the later instruction after the earlier:
    /// no lowering makes such kernels, and hardware promises it only with a barrier between.
    pub fn overwritten(&mut self) {
        self.again = true;
    }

    /// The region at an address may be written by any thread at any time.
    pub fn anyone(&mut self, at: u64) {
        self.free.push(at);
    }

    fn find(&self, at: u64, size: usize) -> Result<(usize, usize), String> {
        aligned(at, size)?;
        let i = self.regions.partition_point(|r| r.at <= at);
        let inside = i.checked_sub(1).filter(|&i| {
            let r = &self.regions[i];
            (at - r.at) as usize + size <= r.bytes.len()
        });
        match inside {
            Some(i) => Ok((i, (at - self.regions[i].at) as usize)),
            None => Err(format!("{size} bytes at {at:#x}, outside all memory")),
        }
    }

    /// Reads `size` bytes.
    pub(super) fn read(&mut self, at: u64, size: usize, by: (u64, u8, u32)) -> Result<u64, String> {
        let mut out = [0; 8];
        if self.process {
            aligned(at, size)?;
            let from = std::ptr::with_exposed_provenance::<u8>(at as usize);
            // SAFETY: the maker of this memory promised that addresses are good.
            unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), size) };
            return Ok(u64::from_le_bytes(out));
        }
        let (i, from) = self.find(at, size)?;
        self.note(i, from, size, by, false)?;
        out[..size].copy_from_slice(&self.regions[i].bytes[from..from + size]);
        Ok(u64::from_le_bytes(out))
    }

    /// Writes the low `size` bytes of `x`.
    pub(super) fn write(
        &mut self,
        at: u64,
        size: usize,
        x: u64,
        by: (u64, u8, u32),
    ) -> Result<(), String> {
        if self.process {
            aligned(at, size)?;
            let to = std::ptr::with_exposed_provenance_mut::<u8>(at as usize);
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(x.to_le_bytes().as_ptr(), to, size) };
            return Ok(());
        }
        let (i, to) = self.find(at, size)?;
        self.note(i, to, size, by, true)?;
        self.regions[i].bytes[to..to + size].copy_from_slice(&x.to_le_bytes()[..size]);
        Ok(())
    }

    fn note(
        &mut self,
        i: usize,
        at: usize,
        size: usize,
        by: (u64, u8, u32),
        write: bool,
    ) -> Result<(), String> {
        if !self.races || self.free.contains(&self.regions[i].at) {
            return Ok(());
        }
        for b in at..at + size {
            self.touches[i].entry(b as u64).or_default().note(by, write, self.again)?;
        }
        Ok(())
    }
}

fn aligned(at: u64, size: usize) -> Result<(), String> {
    match at % size as u64 {
        0 => Ok(()),
        _ => Err(format!("{size} bytes at {at:#x}, which is not aligned")),
    }
}
