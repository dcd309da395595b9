//! `best` as a device: drivers in C that say what they are, in a folder that the environment names.
//! Alone in its process, whose environment it changes.

mod common;
use common::{Scratch, triple};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use std::path::Path;
use std::process::Command;

/// A driver of one device of a kind that runs code of tier avx2, or rather refuses all.
const DRIVER: &str = r#"
#include <string.h>
#include "hub_device.h"
static int32_t count(uint32_t *n) { *n = 1; return 0; }
static int32_t open_it(uint32_t i, hub_device **out) { (void)i; *out = (hub_device *)&count; return 0; }
static int32_t kind(hub_device *d, uint32_t *k) { (void)d; *k = KIND; return 0; }
static void last_error(char *text, size_t room) { if (room > 9) strcpy(text, "no thanks"); }
static int32_t memory_new(hub_device *d, uint64_t n, uint64_t *a) { (void)d; (void)n; *a = 256; return 0; }
static int32_t queue_new(hub_device *d, hub_device_queue **q) { (void)d; (void)q; return 9; }
static int32_t put(hub_device_queue *q, uint64_t to, const void *f, uint64_t n) {
    (void)q; (void)to; (void)f; (void)n; return 8; }
static int32_t get(hub_device_queue *q, void *to, uint64_t f, uint64_t n) {
    (void)q; (void)to; (void)f; (void)n; return 8; }
static int32_t module_new(hub_device *d, const char *tier, const void *c, size_t n, hub_device_module **m) {
    (void)d; (void)tier; (void)c; (void)n; (void)m; return 4; }
static int32_t kernel_new(hub_device_module *m, const char *name, const uint8_t *k, size_t n,
                          hub_device_kernel **out) { (void)m; (void)name; (void)k; (void)n; (void)out; return 4; }
static int32_t launch(hub_device_queue *q, const hub_device_kernel *k, uint64_t t, const uint64_t *a) {
    (void)q; (void)k; (void)t; (void)a; return 8; }
int32_t hub_device_get_api(uint32_t major, const hub_device_api **out) {
    static hub_device_api t;
    (void)major;
    t.struct_size = sizeof t; t.major = HUB_DEVICE_MAJOR; t.minor = HUB_DEVICE_MINOR;
    t.caps = HUB_DEVICE_KERNELS; strcpy(t.name, "test"); strcpy(t.tiers, "avx2");
    t.count = count; t.open = open_it; t.kind = kind; t.last_error = last_error; t.memory_new = memory_new;
    t.queue_new = queue_new; t.write = put; t.read = get; t.module_new = module_new;
    t.kernel_new = kernel_new; t.launch = launch;
    *out = &t;
    return 0;
}
"#;

/// Builds the driver as `libhub_NAME.so` of a folder.
fn build(cc: &str, dir: &Path, name: &str, kind: &str) {
    let source = dir.join(format!("{name}.c"));
    std::fs::write(&source, DRIVER).unwrap();
    let mut c = Command::new(cc);
    c.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
    c.arg(format!("-DKIND=HUB_DEVICE_{kind}")).arg("-I");
    c.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    let built =
        c.arg(&source).arg("-o").arg(dir.join(format!("libhub_{name}.so"))).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn the_best_device_is_none_of_the_host() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("SKIPPED the_best_device_is_none_of_the_host: no C compiler '{cc}'");
        return;
    }
    let dir = Scratch::new("best");
    let model = Model::open(dir.write("m.hub", triple()), &OpenOptions::default()).unwrap();
    let best =
        || Session::new(&model, &SessionOptions { device: "best".into(), ..Default::default() });
    // SAFETY: this is the only test of the process.
    unsafe { std::env::set_var("HUB_DEVICES", &dir.0) };
    build(&cc, &dir.0, "ascend", "HOST");
    let s = best().unwrap();
    assert_eq!(s.device(), "cpu");
    // (A driver for CUDA may lie beside this program: the bundle has no code for it.)
    for says in ["running on cpu: cuda: ", "; ascend: it finds the host's own processor only"] {
        assert!(s.warning().contains(says), "{}", s.warning());
    }
    // A device that refuses its code is a failure, not a reason to run elsewhere.
    build(&cc, &dir.0, "cuda", "GPU");
    let e = best().err().expect("it was chosen, and refuses");
    assert!(e.code() == 3 && e.to_string().contains("no thanks"), "{e}");
}
