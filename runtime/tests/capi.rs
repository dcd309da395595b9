//! The C interface, used by a C program that the system's compiler builds.

mod common;
use common::*;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `libhub_runtime.so` as built for the test programs.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let dirs = [deps, deps.parent().unwrap()];
    let found = dirs.iter().map(|d| d.join("libhub_runtime.so")).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("no libhub_runtime.so beside {}", test.display()))
}

fn run(program: &Path, lib: &Path, bundle: &Path, tier: &str) -> String {
    let out = Command::new(program)
        .arg(bundle)
        .env("LD_LIBRARY_PATH", lib.parent().unwrap())
        .env("HUB_CPU", tier)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{tier}: {err}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_c_program_runs_a_bundle() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("SKIPPED a_c_program_runs_a_bundle: no C compiler '{cc}'");
        return;
    }
    let dir = Scratch::new("capi");
    let bundle = dir.write("m.hub", triple());
    let (here, lib) = (Path::new(env!("CARGO_MANIFEST_DIR")), library());
    let program = dir.0.join("capi");
    let built = Command::new(&cc)
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"])
        .arg(&program)
        .arg(here.join("tests/capi.c"))
        .arg("-I")
        .arg(here.join("include"))
        .arg(&lib)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert_eq!(run(&program, &lib, &bundle, "portable"), "ok\n");
    if native() {
        assert_eq!(run(&program, &lib, &bundle, "avx2"), "ok\n");
    }
}
