//! The table of a device driver: the C header and its Rust form are one layout.

mod common;
use common::Scratch;
use hub_abi::device::{self, Api, OpTensor};
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

#[test]
fn the_header_is_the_table() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("SKIPPED the_header_is_the_table: no C compiler '{cc}'");
        return;
    }
    macro_rules! fields {
        ($t:ident, $c:literal: $($f:ident)*) => {
            [$((concat!($c, ", ", stringify!($f)), offset_of!($t, $f))),*]
        };
    }
    let api = fields!(Api, "hub_device_api": struct_size major minor caps name tiers count open close
        describe last_error memory_new memory_free queue_new queue_free write read wait module_new
        module_free kernel_new launch record recorded replay graph_free op_new op_free op_run
        kind);
    let tensor = fields!(OpTensor, "hub_device_tensor": dtype rank dims strides);
    let mut want = format!("{} {}\n", size_of::<Api>(), size_of::<OpTensor>());
    let mut print = String::new();
    for (field, at) in api.iter().chain(&tensor) {
        want += &format!("{at}\n");
        print += &format!("    printf(\"%zu\\n\", offsetof({field}));\n");
    }
    let kinds = [device::HOST, device::GPU, device::ACCELERATOR].map(u64::from);
    let caps = [device::KERNELS, device::GRAPHS, device::OPS];
    let numbers = [&[device::MAJOR.into(), device::MINOR.into()], &caps[..], &kinds].concat();
    want += &format!("{numbers:?}");
    let text = format!(
        "#include <stdio.h>\n#include \"hub_device.h\"\nint main(void) {{\n    \
         printf(\"%zu %zu\\n\", sizeof(hub_device_api), sizeof(hub_device_tensor));\n{print}    \
         printf(\"[%u, %u, %u, %u, %u, %u, %u, %u]\", HUB_DEVICE_MAJOR, HUB_DEVICE_MINOR, \
         HUB_DEVICE_KERNELS, HUB_DEVICE_GRAPHS, HUB_DEVICE_OPS, HUB_DEVICE_HOST, HUB_DEVICE_GPU, \
         HUB_DEVICE_ACCELERATOR);\n    return 0;\n}}\n"
    );
    let dir = Scratch::new("device-abi");
    let (source, program) = (dir.0.join("abi.c"), dir.0.join("abi"));
    std::fs::write(&source, text).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut build = Command::new(&cc);
    build.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(include);
    let built = build.arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), want);
}
