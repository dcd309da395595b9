//! A run at a known binding allocates nothing. Alone in its process: it counts allocations.

mod common;
use common::*;
use hub_abi::dtype::Dtype;
use hub_runtime::TensorView;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.alloc(l) }
    }
    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(p, l) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Waits for so many workers to sleep: a thread that the system lets start late allocates as it does,
/// in whichever run that is.
fn until_asleep(workers: usize) {
    let asleep = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok());
        stats.filter(|s| s.contains(" (hub-") && s.contains(") S ")).count()
    };
    let start = Instant::now();
    while asleep() < workers {
        assert!(start.elapsed() < Duration::from_secs(60), "the workers never sleep");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn runs_at_known_bindings_allocate_nothing() {
    if !native() {
        return;
    }
    let dir = Scratch::new("quiet");
    let path = dir.write("m.hub", triple());
    for threads in [1, 2] {
        let mut s = session(&path, Some("avx2"), threads);
        until_asleep(threads - 1);
        let data = vec![0u8; 64 * 16];
        let mut run = |n: usize| {
            let before = COUNT.load(Relaxed);
            let dims = [n, 4];
            let view = TensorView { dtype: Dtype::F32, dims: &dims, data: &data };
            let out = s.run(std::slice::from_ref(&view)).unwrap();
            assert_eq!(out.get(0).dims, dims);
            COUNT.load(Relaxed) - before
        };
        // The greatest first: growing the arena forgets bindings.
        assert!(run(64) > 0);
        let first: u64 = [3, 5, 7].map(&mut run).iter().sum();
        assert!(first > 0);
        for round in 0..3 {
            for n in [64, 3, 5, 7, 7, 3] {
                assert_eq!(run(n), 0, "size {n} in round {round} with {threads} threads");
            }
        }
    }
}
