//! The CUDA target without a GPU: small models by the interpreter of PTX, by the driver on a stand-in for
//! libcuda, and past `ptxas`.

use hub_abi::plan::Plan;
use hub_models::{Case, Tolerance};
use hub_passes::Precision;
use hub_runtime::device::conform::conform;
use hub_runtime::device::{Driver, of_library};
use hub_runtime::{Error, Model, OpenOptions, Session, SessionOptions};
use hub_tests::{cuda, sample};
use std::process::Command;

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

/// As the model says, and in tiles for tensor cores.
const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

#[test]
fn small_models_match_their_goldens_on_the_software_gpu() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut problems = vec![];
    let ptxas = cuda::ptxas();
    if ptxas.is_none() {
        println!("ignored: ptxas (HUB_PTXAS may name it; it is not on the path)");
    }
    let cases = small();
    for (case, precision) in cases.iter().flat_map(|c| ALL.map(|p| (c, p))) {
        let bundle = dir.path().join("m.hub");
        if let Err(e) = cuda::export(case, &bundle, precision) {
            problems.push(format!("{}: {e}", case.name));
            continue;
        }
        match cuda::check(case, &bundle, Tolerance::default()) {
            Ok(c) => {
                let wrong = cuda::wrong(&c, precision);
                problems.extend(wrong.map(|w| format!("{} {w}", case.name)));
            }
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
    cuda::export(&small()[0], &bundle, Precision::F32).expect("exports");
    let model = Model::open(&bundle, &OpenOptions::default()).expect("opens");
    let start = |device: &str| {
        let options = SessionOptions { device: device.into(), ..Default::default() };
        Session::new(&model, &options)
    };
    match start("cuda:0") {
        // Without CUDA's library, without a GPU.
        Err(Error::Unsupported(why)) => {
            let says = ["no CUDA driver: libcuda.so", "CUDA error 100", "finds 0 device(s)"];
            assert!(says.iter().any(|s| why.contains(s)), "{why}");
        }
        Err(e) => panic!("{e}"),
        Ok(_) => println!("there is a GPU"),
    }
    // A processor has nothing of it to run.
    let cpu = start("cpu").expect("portable");
    assert_eq!(cpu.tier(), "portable");
    assert!(cpu.warning().contains("no code for this processor"), "{}", cpu.warning());
}

/// Runs a test of this program, one that is ignored otherwise, where the driver finds the stand-in; what
/// the stand-in counted, for each time that its last context went.
fn on_the_stand_in(test: &str, capability: &str) -> Vec<[u64; 4]> {
    let dir = tempfile::tempdir().expect("a folder");
    let report = dir.path().join("counts");
    let mut c: Command = cuda::again(dir.path(), true).expect("the driver and the stand-in");
    c.args(["--ignored", "--exact", test, "--nocapture"]).env(hub_cudaemu::REPORT, &report);
    c.env(hub_cudaemu::CAPABILITY, capability);
    let out = c.output().expect("starts");
    let said = String::from_utf8_lossy(&out.stdout);
    let more = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("1 passed"), "{said}\n{more}");
    let text = std::fs::read_to_string(&report).expect("counts");
    let numbers =
        |l: &str| l.split(' ').map(|n| n.parse().expect("a number")).collect::<Vec<u64>>();
    text.lines().map(|l| numbers(l).try_into().expect("four counts")).collect()
}

#[test]
fn the_driver_runs_small_models_on_the_stand_in() {
    let counts = on_the_stand_in("inner_models", "80");
    let [launches, replays, replayed, left] = counts.last().copied().expect("a context");
    assert!(replays > 0 && replayed > replays && launches > replayed, "{counts:?}");
    assert_eq!(left, 0, "not given back");
}

#[test]
#[ignore = "run by the_driver_runs_small_models_on_the_stand_in, in a process of its own"]
fn inner_models() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut problems = vec![];
    let cases = small();
    for (case, precision) in cases.iter().flat_map(|c| ALL.map(|p| (c, p))) {
        let bundle = dir.path().join("m.hub");
        let done = cuda::export(case, &bundle, precision).and_then(|_| {
            let (o, inputs) = cuda::open(case, &bundle)?;
            assert_eq!(o.session.device(), cuda::DEVICE);
            cuda::check_on(case, o, &inputs)
        });
        match done {
            Ok(c) => {
                let wrong = cuda::wrong(&c, precision);
                problems.extend(wrong.map(|w| format!("{} {w}", case.name)));
            }
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Sizes that come back, once, twice, and after larger ones: what was recorded for one has to hold then.
const SIZES: [(i64, i64, u64); 9] = [
    (1, 4, 1),
    (1, 4, 2),
    (3, 6, 3),
    (1, 4, 4),
    (3, 6, 5),
    (3, 6, 6),
    (1, 4, 7),
    (2, 5, 8),
    (2, 5, 9),
];

#[test]
fn recordings_hold_for_their_sizes() {
    let counts = on_the_stand_in("inner_sizes", "80");
    assert!(counts.iter().any(|c| c[1] > 0), "{counts:?}");
    assert!(counts.iter().all(|c| c[3] == 0), "not given back: {counts:?}");
}

#[test]
#[ignore = "run by recordings_hold_for_their_sizes, in a process of its own"]
fn inner_sizes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (bundle, mut problems, mut dynamic) = (dir.path().join("m.hub"), vec![], 0);
    for case in small() {
        cuda::export(&case, &bundle, Precision::F32).expect("exports");
        let model = Model::open(&bundle, &OpenOptions::default()).expect("opens");
        // (Not every model admits these sizes.)
        let admits = || hub_tests::sizes_in_turn(&bundle, &["portable"], &SIZES).is_ok();
        if model.manifest().syms.is_empty() || !admits() {
            continue;
        }
        dynamic += 1;
        match hub_tests::sizes_in_turn(&bundle, &[cuda::DEVICE], &SIZES) {
            Ok(worst) if worst <= 1e-4 => {}
            Ok(worst) => problems.push(format!("{}: off by {worst:.1e}", case.name)),
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(problems.is_empty() && dynamic > 10, "{dynamic} models\n{}", problems.join("\n"));
}

#[test]
fn the_driver_conforms_on_the_stand_in() {
    on_the_stand_in("inner_conform", "80");
}

#[test]
#[ignore = "run by the_driver_conforms_on_the_stand_in, in a process of its own"]
fn inner_conform() {
    let sample = sample::sample(cuda::TIER).expect("a tier");
    let found = conform(&cuda::driver().expect("built"), 0, cuda::TIER, &sample);
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|f| f.result.as_ref().err().map(|why| format!("{}: {why}", f.what)))
        .collect();
    assert!(wrong.is_empty() && found.len() > 9, "{}", wrong.join("\n"));
    // What the JIT compiler says of a text that is none is passed on.
    let driver = cuda::driver().expect("built");
    let device = of_library(&driver, 0).expect("a device");
    let plan = Plan { tier: cuda::TIER.into(), ..Plan::default() };
    let text = b".target sm_80\n.visible .entry x(.param .align 8 .b8 args[8])\n\
        .reqntid 32, 1, 1\n{\n\tadd.nonsense %r0;\n}\n";
    let e = device.load(text, &plan).err().expect("nonsense");
    assert!(e.code() == 3, "{e}");
    for says in ["the device refuses the bundle's code", "CUDA error 218", "PTX line 5"] {
        assert!(e.to_string().contains(says), "{e}");
    }
}

#[test]
fn an_old_gpu_is_not_taken() {
    on_the_stand_in("inner_old", "75");
}

#[test]
#[ignore = "run by an_old_gpu_is_not_taken, in a process of its own"]
fn inner_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    cuda::export(&small()[0], &bundle, Precision::F32).expect("exports");
    let model = Model::open(&bundle, &OpenOptions::default()).expect("opens");
    let start = |device: &str| {
        let options = SessionOptions { device: device.into(), ..Default::default() };
        Session::new(&model, &options)
    };
    let e = start("cuda:0").err().expect("too old");
    assert!(e.code() == 3 && e.to_string().contains("compute capability 7.5"), "{e}");
    let best = start("best").expect("the processor");
    assert!(
        best.device() == "cpu" && best.warning().contains("capability 7.5"),
        "{}",
        best.warning()
    );
}

#[test]
fn sessions_share_a_device() {
    on_the_stand_in("inner_sessions", "80");
}

#[test]
#[ignore = "run by sessions_share_a_device, in a process of its own"]
fn inner_sessions() {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    let case = small().pop().expect("a model");
    cuda::export(&case, &bundle, Precision::F32).expect("exports");
    // Several sessions at once, of two models, on threads of their own.
    let run = || {
        let (o, inputs) = cuda::open(&case, &bundle).expect("opens");
        let c = cuda::check_on(&case, o, &inputs).expect("runs");
        assert!(c.ok(), "{c}");
    };
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(run);
        }
    });
    let name = hub_runtime::device::name_of(&cuda::driver().expect("built"), 0).expect("a name");
    assert!(name.contains("compute capability 8.0, CUDA driver 12.8"), "{name}");
    let model = Model::open(&bundle, &OpenOptions::default()).expect("opens");
    let none = SessionOptions { device: "cuda:1".into(), ..Default::default() };
    let e = Session::new(&model, &none).err().expect("one device");
    assert!(e.code() == 3 && e.to_string().contains("finds 1 device(s)"), "{e}");
    // The best device is this GPU.
    let best = SessionOptions { device: "best".into(), ..Default::default() };
    assert_eq!(Session::new(&model, &best).expect("a session").device(), "cuda:0");
}
