//! The OpenCL target: small models on whatever OpenCL device there is.

use hub_models::{Case, Tolerance};
use hub_tests::opencl;

fn small() -> Vec<Case> {
    hub_models::formats().expect("the formats")
}

#[test]
fn small_models_match_their_goldens() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    let mut problems = vec![];
    for case in small() {
        if let Err(e) = opencl::export(&case, &bundle) {
            problems.push(format!("{}: {e}", case.name));
            continue;
        }
        if let Some(why) = opencl::absent(&bundle) {
            println!("ignored: small_models_match_their_goldens on OpenCL ({why})");
            return;
        }
        match opencl::check(&case, &bundle, Tolerance::default()) {
            Ok(c) if c.ok() => {}
            Ok(c) => problems.push(format!("{}: {c}", case.name)),
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_device_without_a_driver_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    opencl::export(&small()[0], &bundle).expect("exports");
    let model = hub_runtime::Model::open(&bundle, &hub_runtime::OpenOptions::default());
    let model = model.expect("opens");
    let start = |device: &str| {
        let options = hub_runtime::SessionOptions { device: device.into(), ..Default::default() };
        hub_runtime::Session::new(&model, &options).err().expect("no such device")
    };
    for (device, code, says) in [
        ("quantum:0", 3, "libhub_quantum.so"),
        ("../x:0", 2, "is no device"),
        ("opencl:x", 2, "is no device"),
        ("opencl:4000000", 3, "opencl:4000000"),
    ] {
        let e = start(device);
        assert_eq!(e.code(), code, "{e}");
        assert!(e.to_string().contains(says), "{e}");
    }
}
