//! For programs over this library: two ways to die that become exit codes. The library itself
//! installs no handler and no allocator; a program asks for them.

use std::alloc::{GlobalAlloc, Layout, System};

/// Exit code of a program whose file was cut.
const INTEGRITY: i32 = 7;
/// Exit code of a program that gets no more memory.
const LIMIT: i32 = 9;

/// Writes a message and leaves at once; calls only what signal handlers may.
fn leave(message: &str, code: i32) -> ! {
    // SAFETY: a write from memory that lives for ever, and the end of the process.
    unsafe {
        libc::write(2, message.as_ptr().cast(), message.len());
        libc::_exit(code)
    }
}

extern "C" fn cut(_signal: libc::c_int) {
    leave(
        "error: a file was cut while it was mapped\n  help: replace bundles by renaming, never in place\n",
        INTEGRITY,
    )
}

/// From here on, reading past the end of a mapped file that was cut ends the program with exit code
/// 7. A program that keeps files safe from that sets [`crate::OpenOptions::copy`] instead.
pub fn catch_cut_files() {
    let handler: extern "C" fn(libc::c_int) = cut;
    // SAFETY: the action is zeroed but for its handler, which calls only what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// The system's allocator; where it has no more, the program ends with exit code 9 instead of being
/// aborted.
pub struct Memory;

fn got(p: *mut u8) -> *mut u8 {
    if p.is_null() {
        leave(
            "error: out of memory: the system refuses more to this process\n  help: lower --limit arena=N, or give it more\n",
            LIMIT,
        )
    }
    p
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's promise.
        got(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's promise.
        got(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller's promise.
        got(unsafe { System.realloc(p, layout, size) })
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(p, layout) }
    }
}
