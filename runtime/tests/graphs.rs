//! Devices that record what a queue is given: a driver in C that counts launches, recordings and
//! replays, in a folder that the environment names. Alone in its process, whose environment it changes.

mod common;
use common::{Scratch, bytes, dim, f32s, graph, node, plan, ptr, sum_rows, tensor, triple, writer};
use hub_abi::Dtype;
use hub_abi::pgraph::POp;
use hub_abi::plan::{Arg, Buf, OutputSource};
use hub_abi::prim::{BinaryOp, Prim};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions, TensorView};
use std::ffi::{CString, c_void};
use std::path::Path;
use std::process::Command;

/// A driver of one device with memory of its own (its addresses are the host's, with the top bit set),
/// whose only kernel adds.
const DRIVER: &str = r#"
#include <stdlib.h>
#include <string.h>
#include "hub_device.h"
#define FAR (1ull << 63)
struct hub_device_kernel { int known; };
struct done { uint64_t tiles, args[4]; };
struct hub_device_graph { size_t n; struct done list[64]; };
struct hub_device_queue { int records; struct hub_device_graph now; };
/* Launches, recordings, replays, graphs alive, what was wrong. */
uint64_t counts[5];
static void *at(uint64_t a) { if (!(a & FAR)) { counts[4]++; abort(); } return (void *)(uintptr_t)(a & ~FAR); }
static int32_t count(uint32_t *n) { *n = 1; return 0; }
static int32_t open_it(uint32_t i, hub_device **out) { (void)i; *out = (hub_device *)counts; return 0; }
static void last_error(char *text, size_t room) { if (room > 9) strcpy(text, "no thanks"); }
static int32_t memory_new(hub_device *d, uint64_t n, uint64_t *a) {
    void *p = NULL; (void)d;
    if (posix_memalign(&p, 256, n + 1)) return 9;
    *a = (uint64_t)(uintptr_t)p | FAR; return 0; }
static void memory_free(hub_device *d, uint64_t a) { (void)d; free(at(a)); }
static int32_t queue_new(hub_device *d, hub_device_queue **q) { (void)d; *q = calloc(1, sizeof **q); return 0; }
static void queue_free(hub_device_queue *q) { free(q); }
static int32_t put(hub_device_queue *q, uint64_t to, const void *f, uint64_t n) {
    if (q->records) counts[4]++;
    if (n) memcpy(at(to), f, n);
    return 0; }
static int32_t get(hub_device_queue *q, void *to, uint64_t f, uint64_t n) {
    if (q->records) counts[4]++;
    if (n) memcpy(to, at(f), n);
    return 0; }
static int32_t module_new(hub_device *d, const char *tier, const void *c, size_t n, hub_device_module **m) {
    (void)d; (void)tier; (void)c; (void)n; *m = (hub_device_module *)counts; return 0; }
static int32_t kernel_new(hub_device_module *m, const char *name, const uint8_t *k, size_t n,
                          hub_device_kernel **out) {
    static hub_device_kernel add = {1}, other = {0};
    (void)m; (void)k; (void)n; *out = strcmp(name, "add") ? &other : &add; return 0; }
static void run(const struct done *w) {
    const float *x = at(w->args[0]), *y = at(w->args[1]); float *out = at(w->args[2]);
    uint64_t i;
    counts[0]++;
    for (i = 0; i < w->tiles * w->args[3]; ++i) out[i] = x[i] + y[i]; }
static int32_t launch(hub_device_queue *q, const hub_device_kernel *k, uint64_t t, const uint64_t *a) {
    struct done w;
    if (!k->known) return 3;
    w.tiles = t; memcpy(w.args, a, sizeof w.args);
    if (!q->records) { run(&w); return 0; }
    if (q->now.n == 64) return 9;
    q->now.list[q->now.n++] = w;
    return 0; }
static int32_t record(hub_device_queue *q) { if (q->records) return 8; q->records = 1; q->now.n = 0; return 0; }
static int32_t recorded(hub_device_queue *q, hub_device_graph **out) {
    if (!q->records) return 8;
    q->records = 0; counts[1]++; counts[3]++;
    *out = malloc(sizeof **out); **out = q->now; return 0; }
static int32_t replay(hub_device_queue *q, const hub_device_graph *g) {
    size_t i;
    if (q->records) return 8;
    counts[2]++;
    for (i = 0; i < g->n; ++i) run(&g->list[i]);
    return 0; }
static void graph_free(hub_device_graph *g) { counts[3]--; free(g); }
int32_t hub_device_get_api(uint32_t major, const hub_device_api **out) {
    static hub_device_api t;
    (void)major;
    t.struct_size = sizeof t; t.major = HUB_DEVICE_MAJOR; t.minor = HUB_DEVICE_MINOR;
    t.caps = HUB_DEVICE_KERNELS | HUB_DEVICE_GRAPHS; strcpy(t.name, "rec"); strcpy(t.tiers, "avx2");
    t.count = count; t.open = open_it; t.last_error = last_error; t.memory_new = memory_new;
    t.memory_free = memory_free; t.queue_new = queue_new; t.queue_free = queue_free; t.write = put;
    t.read = get; t.module_new = module_new; t.kernel_new = kernel_new; t.launch = launch;
    t.record = record; t.recorded = recorded; t.replay = replay; t.graph_free = graph_free;
    *out = &t;
    return 0;
}
"#;

/// Builds the driver as `librec.so` of a folder; where its counts are.
fn build(cc: &str, dir: &Path) -> *const [u64; 5] {
    let (source, library) = (dir.join("rec.c"), dir.join("libhub_rec.so"));
    std::fs::write(&source, DRIVER).unwrap();
    let mut c = Command::new(cc);
    c.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-shared"]);
    c.arg("-fPIC").arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    let built = c.arg(&source).arg("-o").arg(&library).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let path = CString::new(library.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the library made just now, which is never unloaded.
    let found: *mut c_void = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null());
        libc::dlsym(library, c"counts".as_ptr())
    };
    assert!(!found.is_null());
    found.cast()
}

/// `y = 2x; out = y + x` over 4 numbers: a model of one binding.
fn fixed() -> common::Writer {
    let t = || tensor(Dtype::F32, &[dim(4)]);
    let add = || POp::Prim(Prim::Binary(BinaryOp::Add));
    let nodes = vec![node(add(), &[0, 0], &[1], "a"), node(add(), &[1, 0], &[2], "b")];
    let g = graph(&[], vec![t(), t(), t()], nodes, &[0], &[2]);
    let args = |x, out| {
        let p = |b, write| ptr(b, dim(16), write);
        vec![p(x, false), p(0, false), p(out, true), Arg::Size(dim(4))]
    };
    let bufs = vec![
        Buf::Input(0),
        Buf::Arena { bytes: dim(16), first: 0, last: 1, over: None },
        Buf::Output { index: 0, bytes: dim(16) },
    ];
    let step = |x, out, n| common::call(common::ADD, args(x, out), dim(1), 1, n);
    let steps = vec![step(0, 1, "a"), step(1, 2, "b")];
    writer("fixed", g, Some(plan(bufs, steps, vec![OutputSource::Buf(2)])))
}

struct Trial<'a> {
    dir: &'a Scratch,
    counts: *const [u64; 5],
}

impl Trial<'_> {
    /// Launches, recordings, replays and living graphs since the last call; nothing was wrong.
    fn counted(&self, before: &mut [u64; 5]) -> [u64; 4] {
        // SAFETY: the driver's counts, which nothing writes now.
        let now = unsafe { self.counts.read_volatile() };
        assert_eq!(
            now[4], 0,
            "a copy while the queue recorded, or an address that is not the device's"
        );
        let since = std::mem::replace(before, now);
        [now[0] - since[0], now[1] - since[1], now[2] - since[2], now[3]]
    }

    fn session(&self, name: &str, w: common::Writer, limits: hub_runtime::Limits) -> Session {
        let model = Model::open(self.dir.write(name, w), &OpenOptions::default()).unwrap();
        let options = SessionOptions { device: "rec".into(), limits, ..Default::default() };
        Session::new(&model, &options).unwrap()
    }
}

/// Runs on `rows` by 4 numbers that begin with `from`.
fn rows(s: &mut Session, rows: usize, from: f32) -> Vec<f32> {
    let x: Vec<f32> = (0..rows * 4).map(|i| from + i as f32).collect();
    run(s, &[rows, 4], &x)
}

fn run(s: &mut Session, dims: &[usize], x: &[f32]) -> Vec<f32> {
    let data = bytes(x, f32::to_le_bytes);
    let view = TensorView { dtype: Dtype::F32, dims, data: &data };
    f32s(s.run(&[view]).unwrap().get(0).data)
}

fn thrice(n: usize, from: f32) -> Vec<f32> {
    (0..n * 4).map(|i| 3.0 * (from + i as f32)).collect()
}

#[test]
fn straight_runs_are_recorded_and_replayed() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("SKIPPED straight_runs_are_recorded_and_replayed: no C compiler '{cc}'");
        return;
    }
    let dir = Scratch::new("graphs");
    let t = Trial { counts: build(&cc, &dir.0), dir: &dir };
    // SAFETY: this is the only test of the process.
    unsafe { std::env::set_var("HUB_DEVICES", &dir.0) };
    let (mut seen, limits) = ([0; 5], hub_runtime::Limits::default());

    // One binding: recorded when it is opened, nothing being launched.
    let mut s = t.session("fixed.hub", fixed(), limits);
    assert_eq!(t.counted(&mut seen), [0, 1, 0, 1]);
    for from in [1.0, 5.0] {
        assert_eq!(run(&mut s, &[4], &[from; 4]), [3.0 * from; 4]);
        assert_eq!(t.counted(&mut seen), [2, 0, 1, 1]);
    }
    // Steps that are measured are launched one by one.
    s.set_profile(true);
    assert_eq!(run(&mut s, &[4], &[2.0; 4]), [6.0; 4]);
    assert_eq!(t.counted(&mut seen), [2, 0, 0, 1]);
    drop(s);
    assert_eq!(t.counted(&mut seen), [0, 0, 0, 0]);

    // Sizes: the first run of each is as ever, the second records.
    let mut s = t.session("triple.hub", triple(), limits);
    assert_eq!(rows(&mut s, 3, 1.0), thrice(3, 1.0));
    assert_eq!(t.counted(&mut seen), [2, 0, 0, 0]);
    assert_eq!(rows(&mut s, 3, 2.0), thrice(3, 2.0));
    assert_eq!(t.counted(&mut seen), [2, 1, 1, 1]);
    assert_eq!(rows(&mut s, 3, 3.0), thrice(3, 3.0));
    assert_eq!(t.counted(&mut seen), [2, 0, 1, 1]);
    // A larger input and arena lie elsewhere: what was recorded before is gone with its binding.
    assert_eq!(rows(&mut s, 90, 1.0), thrice(90, 1.0));
    assert_eq!(t.counted(&mut seen), [2, 0, 0, 0]);
    assert_eq!(rows(&mut s, 90, 2.0), thrice(90, 2.0));
    assert_eq!(rows(&mut s, 3, 4.0), thrice(3, 4.0));
    assert_eq!(rows(&mut s, 3, 5.0), thrice(3, 5.0));
    assert_eq!(t.counted(&mut seen), [6, 2, 2, 2]);
    // Both stay.
    for n in [90, 3, 90, 3] {
        assert_eq!(rows(&mut s, n, 7.0), thrice(n, 7.0));
        assert_eq!(t.counted(&mut seen), [2, 0, 1, 2]);
    }
    // A binding that is made ahead of runs is recorded at once.
    s.bind(&[&[5, 4]]).unwrap();
    assert_eq!(t.counted(&mut seen), [0, 1, 0, 3]);
    assert_eq!(rows(&mut s, 5, 1.0), thrice(5, 1.0));
    assert_eq!(t.counted(&mut seen), [2, 0, 1, 3]);
    drop(s);
    assert_eq!(t.counted(&mut seen), [0, 0, 0, 0]);

    // A repetition is one run, its moving addresses included; a limit on steps holds in it too.
    let mut s = t.session("sum.hub", sum_rows(), limits);
    let want = |n: usize| -> Vec<f32> {
        (0..4)
            .map(|c| 10.0 * (c + 1) as f32 + (0..n).map(|r| (4 * r + c) as f32).sum::<f32>())
            .collect()
    };
    for (n, counts) in [(6, [7, 0, 0, 0]), (6, [7, 1, 1, 1]), (6, [7, 0, 1, 1])] {
        assert_eq!(rows(&mut s, n, 0.0), want(n));
        assert_eq!(t.counted(&mut seen), counts);
    }
    // More than this device records at once is launched step by step.
    for _ in 0..3 {
        assert_eq!(rows(&mut s, 80, 0.0), want(80));
        let counted = t.counted(&mut seen);
        assert_eq!([counted[0], counted[2]], [81, 0]);
    }
    drop(s);
    let few = hub_runtime::Limits { steps: 10, ..limits };
    let mut s = t.session("few.hub", sum_rows(), few);
    s.bind(&[&[6, 4]]).unwrap();
    let data = bytes(&[0f32; 24], f32::to_le_bytes);
    let view = TensorView { dtype: Dtype::F32, dims: &[6, 4], data: &data };
    assert_eq!(s.run(&[view]).err().expect("12 steps").code(), 9);
}
