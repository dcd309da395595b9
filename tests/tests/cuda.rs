//! The CUDA target without a GPU: small models through the software GPU, and past `ptxas`.

use hub_models::{Case, Tolerance};
use hub_tests::cuda;

/// The formats, and digits on a few images.
fn small() -> Vec<Case> {
    let mut cases = hub_models::formats().expect("the formats");
    for case in cases.iter_mut().filter(|c| c.name.starts_with("digits")) {
        let both = case.inputs.values_mut().chain(case.golden.tensors.values_mut());
        for t in both {
            let one = t.data.len() / t.shape[0];
            t.shape[0] = IMAGES;
            t.data.truncate(IMAGES * one);
        }
    }
    cases
}

const IMAGES: usize = 5;

#[test]
fn small_models_match_their_goldens_on_the_software_gpu() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut problems = vec![];
    let ptxas = cuda::ptxas();
    if ptxas.is_none() {
        println!("ignored: ptxas (HUB_PTXAS may name it; it is not on the path)");
    }
    for case in small() {
        let bundle = dir.path().join("m.hub");
        if let Err(e) = cuda::export(&case, &bundle) {
            problems.push(format!("{}: {e}", case.name));
            continue;
        }
        match cuda::check(&case, &bundle, Tolerance::default()) {
            Ok(c) if c.ok() => {}
            Ok(c) => problems.push(format!("{}: {c}", case.name)),
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
        let text = cuda::ptx(&bundle).expect("PTX");
        if let Some(Err(e)) = ptxas.as_ref().map(|p| cuda::assemble(p, &text, dir.path())) {
            problems.push(format!("{}: {e}", case.name));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_bundle_for_a_gpu_says_what_it_needs() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    cuda::export(&small()[0], &bundle).expect("exports");
    let model = hub_runtime::Model::open(&bundle, &hub_runtime::OpenOptions::default());
    let model = model.expect("opens");
    let start = |device: &str| {
        let options = hub_runtime::SessionOptions { device: device.into(), ..Default::default() };
        hub_runtime::Session::new(&model, &options)
    };
    match start("cuda:0") {
        Err(hub_runtime::Error::Unsupported(why)) => {
            assert!(why.contains("libhub_cuda.so"), "{why}")
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("a session without a driver"),
    }
    // A processor has nothing of it to run.
    let cpu = start("cpu").expect("portable");
    assert_eq!(cpu.tier(), "portable");
    assert!(cpu.warning().contains("no code for this processor"), "{}", cpu.warning());
}
