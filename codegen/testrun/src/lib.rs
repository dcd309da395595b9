//! Runs emitted machine code, for tests and benchmarks of code generation only (the runtime maps
//! bundles itself).
//!
//! Invariant: memory is never writable and executable at once.

pub mod amx;
pub mod ptx;

use std::ptr;

/// Signature of every kernel: argument block, tile range, worker scratch.
pub type KernelFn = unsafe extern "C" fn(*const u64, u64, u64, *mut u8);

/// Machine code in executable memory, unmapped when dropped.
#[derive(Debug)]
pub struct JitBuffer {
    at: *mut libc::c_void,
    len: usize,
}

// SAFETY: the mapping is immutable after construction.
unsafe impl Send for JitBuffer {}
// SAFETY: as above.
unsafe impl Sync for JitBuffer {}

impl JitBuffer {
    /// Copies `code` to fresh pages and makes them executable.
    ///
    /// # Errors
    /// The system's, when it refuses to map or protect.
    pub fn new(code: &[u8]) -> std::io::Result<JitBuffer> {
        let len = code.len().max(1).next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping of `len` bytes; filled before it becomes executable.
        unsafe {
            let at = libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if at == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error());
            }
            ptr::copy_nonoverlapping(code.as_ptr(), at.cast::<u8>(), code.len());
            let buf = JitBuffer { at, len };
            if libc::mprotect(at, len, libc::PROT_READ | libc::PROT_EXEC) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(buf)
        }
    }

    /// Calls the code at offset 0 as a kernel over tiles `begin..end`.
    ///
    /// # Safety
    /// The bytes are a correct kernel for this host, `args` is its argument block with live
    /// pointers, and `scratch` has the kernel's scratch size and is aligned to 64 bytes.
    pub unsafe fn call(&self, args: &[u64], begin: u64, end: u64, scratch: *mut u8) {
        // SAFETY: upheld by the caller.
        unsafe {
            let f: KernelFn = std::mem::transmute(self.at);
            f(args.as_ptr(), begin, end, scratch)
        }
    }
}

impl Drop for JitBuffer {
    fn drop(&mut self) {
        // SAFETY: `at..at+len` is the mapping that `new` made.
        unsafe {
            libc::munmap(self.at, self.len);
        }
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// A byte buffer aligned to 64 bytes, for tensors and scratch.
#[derive(Clone)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Aligned {
        Aligned { lines: vec![Line([0; 64]); len.div_ceil(64).max(1)], len }
    }

    /// A copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Aligned {
        let mut a = Aligned::zeroed(bytes.len());
        a.bytes_mut().copy_from_slice(bytes);
        a
    }

    /// A copy of `v`'s bytes.
    pub fn from_f32(v: &[f32]) -> Aligned {
        let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Aligned::from_bytes(&bytes)
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        let (p, n) = (self.lines.as_ptr().cast::<u8>(), self.len);
        // SAFETY: the lines own at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(p, n) }
    }

    /// The content, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (p, n) = (self.lines.as_mut_ptr().cast::<u8>(), self.len);
        // SAFETY: the lines own at least `len` initialised bytes, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(p, n) }
    }

    /// The content as f32 (the length is a multiple of 4).
    pub fn to_f32(&self) -> Vec<f32> {
        let le = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        self.bytes().chunks_exact(4).map(le).collect()
    }

    /// Address for an argument block.
    pub fn addr(&mut self) -> u64 {
        self.lines.as_mut_ptr() as u64
    }
}
