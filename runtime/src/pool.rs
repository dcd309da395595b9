//! The thread pool of a session: persistent workers, the caller being worker 0.
//!
//! One call at a time. A call opens a job, raises a generation that workers watch (spinning at
//! most [`SPIN`], then asleep on a futex), takes part itself, closes the job when every tile is taken,
//! and returns when those who are inside have left: a worker whom the system has not let run yet is
//! not waited for. Tiles are divided evenly; a worker that is done early claims leftovers of others in
//! chunks, each by one atomic. Which worker runs a tile never shows in results: tiles are independent.

use crate::cpu::FloatState;
use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// Longest busy wait.
const SPIN: Duration = Duration::from_micros(50);

/// A compiled kernel: argument block, first tile, past the last tile, worker scratch.
pub type Kernel = unsafe extern "C" fn(*const u64, u64, u64, *mut u8);

#[derive(Clone, Copy)]
struct Job {
    kernel: Kernel,
    args: *const u64,
    tiles: u64,
    scratch: Scratch,
}

/// Where the workers of a call have their scratch: worker `i` from `base + i × pitch` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Address of the first worker's, a multiple of 64.
    pub base: u64,
    /// Bytes from one worker's to the next's, a multiple of 64.
    pub pitch: u64,
}

impl Scratch {
    fn of(self, worker: u64) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut((self.base + worker * self.pitch) as usize)
    }
}

/// Next tile of a worker's share; a cache line each.
#[repr(align(128))]
struct Cursor(AtomicU64);

struct Shared {
    job: UnsafeCell<Option<Job>>,
    /// Raised for each job; the futex that workers sleep on.
    generation: AtomicU32,
    sleepers: AtomicU32,
    /// Workers inside the job, and [`OPEN`]; the futex that the caller sleeps on.
    inside: AtomicU32,
    caller_sleeps: AtomicBool,
    stop: AtomicBool,
    cursors: Vec<Cursor>,
}

/// In [`Shared::inside`]: workers may still come in.
const OPEN: u32 = 1 << 31;

// SAFETY: `job` is written only by the caller while it is closed and nobody is inside, and read by
// workers only inside; the rest is atomic.
unsafe impl Sync for Shared {}
// SAFETY: the pointers in a job are used only while the caller waits for that job.
unsafe impl Send for Shared {}

/// The pool.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    pid: u32,
}

impl Pool {
    /// A pool of `workers` (at least 1), the caller included.
    pub fn new(workers: usize) -> io::Result<Pool> {
        let workers = workers.max(1);
        let mut pool = Pool {
            shared: Arc::new(Shared {
                job: UnsafeCell::new(None),
                generation: AtomicU32::new(0),
                sleepers: AtomicU32::new(0),
                inside: AtomicU32::new(0),
                caller_sleeps: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                cursors: (0..workers).map(|_| Cursor(AtomicU64::new(0))).collect(),
            }),
            threads: vec![],
            pid: std::process::id(),
        };
        for w in 1..workers {
            let shared = pool.shared.clone();
            let t = std::thread::Builder::new()
                .name(format!("hub-{w}"))
                .spawn(move || work(&shared, w))?;
            pool.threads.push(t);
        }
        Ok(pool)
    }

    /// Is this still the process that made the pool? Its threads do not survive a fork.
    pub fn usable(&self) -> bool {
        self.threads.is_empty() || self.pid == std::process::id()
    }

    /// Workers, the caller included.
    pub fn workers(&self) -> usize {
        self.shared.cursors.len()
    }

    /// Runs all tiles on the caller, who is worker 0.
    ///
    /// # Safety
    /// `kernel` may be called with this argument block, any of these tiles, and that scratch.
    pub unsafe fn call(&self, kernel: Kernel, args: *const u64, tiles: u64, scratch: Scratch) {
        // SAFETY: by the caller's promise.
        unsafe { kernel(args, 0, tiles, scratch.of(0)) };
    }

    /// Runs all tiles on all workers and returns when they are done.
    ///
    /// # Safety
    /// As for [`Pool::call`], every worker has scratch, tiles may run at once and in any order, and
    /// the pool is `usable`.
    pub unsafe fn call_all(
        &mut self,
        kernel: Kernel,
        args: *const u64,
        tiles: u64,
        scratch: Scratch,
    ) {
        let s = &*self.shared;
        let n = s.cursors.len() as u64;
        if n == 1 || tiles < 2 {
            // SAFETY: by the caller's promise.
            return unsafe { self.call(kernel, args, tiles, scratch) };
        }
        for (w, c) in s.cursors.iter().enumerate() {
            c.0.store(share(tiles, n, w as u64), Relaxed);
        }
        let job = Job { kernel, args, tiles, scratch };
        // SAFETY: no worker reads the job now: the last call closed it and waited for those inside.
        unsafe { *s.job.get() = Some(job) };
        s.inside.store(OPEN, SeqCst);
        s.generation.fetch_add(1, SeqCst);
        if s.sleepers.load(SeqCst) > 0 {
            futex::wake(&s.generation, i32::MAX);
        }
        // SAFETY: by the caller's promise; worker 0 is the caller.
        unsafe { drain(s, job, 0) };
        s.inside.fetch_and(!OPEN, SeqCst);
        wait_until_left(s);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.usable() {
            // A fork's child: the threads do not exist here, waiting for them would never end.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.stop.store(true, SeqCst);
        self.shared.generation.fetch_add(1, SeqCst);
        futex::wake(&self.shared.generation, i32::MAX);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

/// First tile of worker `w` of `n`.
fn share(tiles: u64, n: u64, w: u64) -> u64 {
    (u128::from(tiles) * u128::from(w) / u128::from(n)) as u64
}

/// Takes chunks of its own share, then of the others'.
///
/// # Safety
/// The job may run on worker `me`, and nobody else is that worker.
unsafe fn drain(s: &Shared, job: Job, me: u64) {
    let n = s.cursors.len() as u64;
    for i in 0..n {
        let w = (me + i) % n;
        let (lo, hi) = (share(job.tiles, n, w), share(job.tiles, n, w + 1));
        let chunk = ((hi - lo) / 4).max(1);
        let cursor = &s.cursors[w as usize].0;
        while cursor.load(Relaxed) < hi {
            let at = cursor.fetch_add(chunk, Relaxed);
            if at >= hi {
                break;
            }
            // SAFETY: by the caller's promise; the cursor gives out each tile once.
            unsafe { (job.kernel)(job.args, at, hi.min(at + chunk), job.scratch.of(me)) };
        }
    }
}

/// Comes in, if the job is open.
fn enter(s: &Shared) -> bool {
    let in_one_more = |n: u32| (n & OPEN != 0).then_some(n + 1);
    s.inside.fetch_update(SeqCst, Relaxed, in_one_more).is_ok()
}

/// Goes out; the last one out of a closed job wakes the caller.
fn leave(s: &Shared) {
    if s.inside.fetch_sub(1, SeqCst) == 1 && s.caller_sleeps.load(SeqCst) {
        futex::wake(&s.inside, 1);
    }
}

fn wait_until_left(s: &Shared) {
    if spin(|| s.inside.load(Acquire) == 0) {
        return;
    }
    s.caller_sleeps.store(true, SeqCst);
    loop {
        match s.inside.load(SeqCst) {
            0 => break,
            left => futex::wait(&s.inside, left),
        }
    }
    s.caller_sleeps.store(false, Relaxed);
}

/// Waits for `done` for at most [`SPIN`]; was it?
fn spin(done: impl Fn() -> bool) -> bool {
    let mut since = None;
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}

/// A worker's life.
fn work(s: &Shared, me: usize) {
    let _float = FloatState::set();
    let mut seen = 0;
    loop {
        if !spin(|| s.generation.load(Acquire) != seen) {
            s.sleepers.fetch_add(1, SeqCst);
            while s.generation.load(SeqCst) == seen {
                futex::wait(&s.generation, seen);
            }
            s.sleepers.fetch_sub(1, SeqCst);
        }
        seen = s.generation.load(Acquire);
        if s.stop.load(SeqCst) {
            return;
        }
        if !enter(s) {
            continue;
        }
        // SAFETY: we are inside, so the job is set and not written until we leave.
        if let Some(job) = unsafe { *s.job.get() } {
            // SAFETY: the pool's caller promised that the job may run on every worker.
            unsafe { drain(s, job, me as u64) };
        }
        leave(s);
    }
}

#[cfg(target_os = "linux")]
mod futex {
    use std::sync::atomic::AtomicU32;

    /// Sleeps while the word is `value` (or wakes for no reason).
    pub fn wait(word: &AtomicU32, value: u32) {
        let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the word outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, forever) };
    }

    /// Wakes up to `n` sleepers.
    pub fn wake(word: &AtomicU32, n: i32) {
        let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, n) };
    }
}

#[cfg(not(target_os = "linux"))]
mod futex {
    use std::sync::atomic::AtomicU32;

    /// Gives the processor away: the callers' loops make it a polling wait.
    pub fn wait(_: &AtomicU32, _: u32) {
        std::thread::sleep(std::time::Duration::from_micros(100));
    }

    /// Sleepers poll.
    pub fn wake(_: &AtomicU32, _: i32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Region;

    unsafe extern "C" fn count(args: *const u64, lo: u64, hi: u64, scratch: *mut u8) {
        assert_eq!(scratch.addr() % 64, 0);
        for t in lo..hi {
            // SAFETY: the test passes the address of that many counters and has 64 bytes scratch.
            unsafe {
                *scratch = t as u8;
                let cells = *args as *const AtomicU32;
                (*cells.add(t as usize)).fetch_add(1, Relaxed);
            }
        }
    }

    /// A line of scratch for each worker, and where it is.
    fn scratch(workers: usize) -> (Region, Scratch) {
        let room = Region::new(workers * 64).unwrap();
        let base = room.base().expose_provenance() as u64;
        (room, Scratch { base, pitch: 64 })
    }

    #[test]
    fn every_tile_runs_once_at_any_thread_count() {
        for workers in [1, 2, 3, 7] {
            let mut pool = Pool::new(workers).unwrap();
            let (_room, scratch) = scratch(workers);
            for tiles in [0usize, 1, 2, 3, 8, 100, 1001] {
                let cells: Vec<AtomicU32> = (0..tiles).map(|_| AtomicU32::new(0)).collect();
                let args = [cells.as_ptr() as u64];
                for round in 1..=20 {
                    // SAFETY: `count` touches the cells of its tiles.
                    unsafe { pool.call_all(count, args.as_ptr(), tiles as u64, scratch) };
                    assert!(cells.iter().all(|c| c.load(Relaxed) == round));
                }
            }
        }
    }

    #[test]
    fn workers_wake_after_they_slept() {
        let mut pool = Pool::new(3).unwrap();
        let (_room, scratch) = scratch(3);
        let cells: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
        let args = [cells.as_ptr() as u64];
        for round in 1..=5 {
            std::thread::sleep(Duration::from_millis(2));
            // SAFETY: as above.
            unsafe { pool.call_all(count, args.as_ptr(), 64, scratch) };
            assert!(cells.iter().all(|c| c.load(Relaxed) == round));
        }
    }

    #[test]
    fn shares_cover_all_tiles() {
        assert_eq!((0..=3).map(|w| share(10, 3, w)).collect::<Vec<_>>(), [0, 3, 6, 10]);
        assert_eq!(share(u64::MAX, 2, 2), u64::MAX);
    }
}
