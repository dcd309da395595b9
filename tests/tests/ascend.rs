//! The Ascend target: small models in the emulation of an NPU, and what its driver in C and its checks
//! are worth. Nothing here has run on an NPU.

use hub_models::{Case, Tolerance};
use hub_runtime::device::conform::conform;
use hub_tests::{ascend, check_memory, sample};
use std::path::{Path, PathBuf};
use std::process::Command;

fn small() -> Vec<Case> {
    hub_models::formats().expect("the formats")
}

/// Says why, where nothing can be emulated.
fn ignored(test: &str) -> bool {
    match ascend::absent() {
        Some(why) => println!("ignored: {test} ({why})"),
        None => return false,
    }
    true
}

/// The emulation's library, beside this test's.
fn emulation() -> PathBuf {
    let here = std::env::current_exe().expect("a program");
    here.parent().expect("a folder").join("libhub_ascendemu.so")
}

#[test]
fn small_models_match_their_goldens() {
    if ignored("small_models_match_their_goldens") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    let mut problems = vec![];
    for case in small() {
        let done = ascend::export(&case, &bundle)
            .and_then(|_| check_memory(&bundle))
            .and_then(|_| ascend::check(&case, &bundle, Tolerance::default()));
        match done {
            Ok(c) if c.ok() => {}
            Ok(c) => problems.push(format!("{}: {c}", case.name)),
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_emulation_conforms() {
    if ignored("the_emulation_conforms") {
        return;
    }
    let sample = sample::sample(ascend::TIER).expect("a tier");
    let found = conform(&emulation(), 0, ascend::TIER, &sample);
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|f| f.result.as_ref().err().map(|why| format!("{}: {why}", f.what)))
        .collect();
    assert!(wrong.is_empty() && found.len() > 15, "{}", wrong.join("\n"));
}

#[test]
fn bundles_are_the_same_bytes_twice_and_say_what_is_in_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let case = small().remove(0);
    let [a, b] = ["a.hub", "b.hub"].map(|n| dir.path().join(n));
    ascend::export(&case, &a).expect("exports");
    ascend::export(&case, &b).expect("exports");
    let bytes = std::fs::read(&a).expect("a bundle");
    assert!(bytes == std::fs::read(&b).expect("a bundle"));
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(".ascendc.dav2201") && text.contains("// operator "));
}

#[test]
fn without_a_driver_it_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    ascend::export(&small()[0], &bundle).expect("exports");
    let e = ascend::session(&bundle, "ascend:0").err().expect("no driver for NPUs here");
    assert_eq!(e.code(), 3, "{e}");
    assert!(e.to_string().contains("libhub_ascend.so"), "{e}");
}

/// The driver in C holds to C99, to the header of the device table, and to CANN's calls as we declare them.
#[test]
fn the_driver_in_c_compiles() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&cc).arg("--version").output().is_err() {
        println!("ignored: the_driver_in_c_compiles (no C compiler '{cc}')");
        return;
    }
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let dir = tempfile::tempdir().expect("a folder");
    let made = Command::new(&cc)
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC"])
        .args(["-DHUB_ASCEND_CHECK", "-c", "hub_ascend.c", "-o"])
        .arg(dir.path().join("driver.o"))
        .current_dir(room.join("runtime/devices/ascend"))
        .output()
        .expect("a compiler");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
