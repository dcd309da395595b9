//! Memory from the operating system: mapped files, executable code, and large zeroed regions.

use memmap2::{Mmap, MmapMut, MmapOptions};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

/// Opens a file for reading. What is no file (a pipe, say) does not make it wait.
pub fn open(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    let options = {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).custom_flags(libc::O_NONBLOCK).clone()
    };
    #[cfg(not(unix))]
    let options = File::options().read(true).clone();
    options.open(path)
}

/// Maps a whole file of `len` bytes for reading.
pub fn file(f: &File, len: u64) -> io::Result<Mmap> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the mapping is private and read-only. Were the file changed or cut while it is mapped,
    // reads would see other bytes or fault; bundles are replaced by rename, never in place, and what
    // memory safety depends on is decoded into memory of our own and checked there.
    unsafe { MmapOptions::new().len(len).map(f) }
}

/// A copy of a whole file of `len` bytes, in memory of this process.
pub fn copied(f: &File, len: u64) -> io::Result<Mmap> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut copy = MmapMut::map_anon(len)?;
    (&*f).read_exact(&mut copy)?;
    copy.make_read_only()
}

/// How code came to be executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeFrom {
    /// Mapped from the bundle, so that perf and gdb name its functions.
    File,
    /// Copied into a sealed anonymous file, for file systems that refuse executable mappings.
    Memory,
}

/// Machine code, mapped readable and executable, never writable.
pub struct Code {
    map: Mmap,
    /// Where it comes from.
    pub from: CodeFrom,
}

impl Code {
    /// Maps `range` of `f`, whose bytes are `bytes`; an anonymous copy where the file's own mapping
    /// is refused. `range` starts at a page.
    pub fn map(f: &File, range: &Range<usize>, bytes: &[u8]) -> io::Result<Code> {
        match exec(f, range.start, range.len()) {
            Ok(map) => Ok(Code { map, from: CodeFrom::File }),
            Err(_) => Code::copy(bytes),
        }
    }

    /// Copies code into a sealed anonymous file and maps that.
    pub fn copy(bytes: &[u8]) -> io::Result<Code> {
        let f = sealed(bytes)?;
        Ok(Code { map: exec(&f, 0, bytes.len())?, from: CodeFrom::Memory })
    }

    /// The mapped bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

fn exec(f: &File, offset: usize, len: usize) -> io::Result<Mmap> {
    // SAFETY: as in `file`. Nothing here calls into the mapping; who does so has checked its hash.
    unsafe { MmapOptions::new().offset(offset as u64).len(len).map_exec(f) }
}

#[cfg(target_os = "linux")]
fn sealed(bytes: &[u8]) -> io::Result<File> {
    use std::io::Write as _;
    use std::os::fd::{AsRawFd, FromRawFd};
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string. MFD_EXEC is asked for first; older kernels refuse it as an
    // unknown flag and need none.
    let fd = unsafe {
        match libc::memfd_create(c"hub-code".as_ptr(), flags | libc::MFD_EXEC) {
            -1 => libc::memfd_create(c"hub-code".as_ptr(), flags),
            fd => fd,
        }
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and has no other owner.
    let mut f = unsafe { File::from_raw_fd(fd) };
    f.write_all(bytes)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: plain system call on a descriptor that we own.
    if unsafe { libc::fcntl(f.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(f)
}

#[cfg(not(target_os = "linux"))]
fn sealed(_: &[u8]) -> io::Result<File> {
    Err(io::Error::other("executable memory is refused"))
}

const HUGE: usize = 2 << 20;

/// Zeroed memory of this process, aligned to 64 bytes (2 MiB from that size on, in huge pages where
/// the system gives them). Faulted in when touched.
pub struct Region {
    map: *mut u8,
    map_len: usize,
    base: *mut u8,
    len: usize,
}

// SAFETY: a Region owns its memory exclusively; access goes through raw pointers whose users take
// care of synchronisation.
unsafe impl Send for Region {}

impl Region {
    /// Memory of `len` bytes.
    pub fn new(len: usize) -> io::Result<Region> {
        if len == 0 {
            let none = std::ptr::without_provenance_mut(64);
            return Ok(Region { map: none, map_len: 0, base: none, len: 0 });
        }
        let big = len >= HUGE;
        let map_len = len.checked_add(if big { HUGE } else { 0 });
        let map_len = map_len.filter(|&n| n <= isize::MAX as usize);
        let map_len = map_len.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping touches no memory that exists.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), map_len, prot, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = map.cast::<u8>();
        let skip = if big { map.align_offset(HUGE) } else { 0 };
        // SAFETY: `skip` is less than HUGE, which the mapping has beyond `len`.
        let base = unsafe { map.add(skip) };
        #[cfg(target_os = "linux")]
        if big {
            // SAFETY: advice on our own mapping; it is only advice, so its result does not matter.
            unsafe { libc::madvise(base.cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Region { map, map_len, base, len })
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.map_len > 0 {
            // SAFETY: the mapping was made in `new` with this length and is unmapped once.
            unsafe { libc::munmap(self.map.cast(), self.map_len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zero_aligned_and_writable() {
        for len in [0, 1, 5000, HUGE, 3 * HUGE + 1] {
            let r = Region::new(len).unwrap();
            assert_eq!(r.base().addr() % if len >= HUGE { HUGE } else { 64 }, 0);
            for at in (0..len).step_by(4093) {
                // SAFETY: `at` is inside the region.
                unsafe {
                    assert_eq!(*r.base().add(at), 0);
                    *r.base().add(at) = 1;
                }
            }
        }
        assert!(Region::new(usize::MAX).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn copied_code_is_readable() {
        let c = Code::copy(&[0xc3; 100]).unwrap();
        assert_eq!(c.bytes(), [0xc3; 100]);
        assert_eq!(c.from, CodeFrom::Memory);
    }
}
