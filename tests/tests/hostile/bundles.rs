//! Bundles: damaged, forged, changed while they are open.

use super::harness::{Folder, Ran, ran, tiers};
use super::onnx_graphs::sound;
use super::reseal::{reseal, sections};
use hub_abi::bundle::Manifest;
use hub_models::NamedTensor;
use hub_runtime::{Dtype, Model, OpenOptions, Session, SessionOptions, TensorView};
use std::ops::Range;
use std::sync::OnceLock;

/// A bundle of relu(x) + w.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let f = Folder::of("m.onnx", sound());
        f.export("m.onnx").succeeds("a sound model");
        std::fs::read(f.0.path().join("m.hub")).expect("a bundle")
    })
}

fn section(name: &str) -> Range<usize> {
    let all = sections(whole()).expect("a sound bundle");
    all.into_iter().find(|s| s.0 == name).expect("it has the section").1
}

fn image() -> [(&'static str, NamedTensor); 1] {
    [("x", NamedTensor::f32(&[2, 3, 8, 8], &[0.5; 384]))]
}

fn run(bytes: &[u8], tier: &str) -> Ran {
    Folder::of("m.hub", bytes).run(tier, &image())
}

/// Refused by `run` and by `inspect`.
#[track_caller]
fn refused(what: &str, bytes: &[u8], codes: &[i32]) {
    let f = Folder::of("m.hub", bytes);
    let r = f.run("portable", &image());
    assert!(codes.contains(&r.code), "{what}: {r:?}");
    r.refuses(what, r.code, &["m.hub"]);
}

#[test]
fn the_sound_bundle_runs() {
    for tier in tiers() {
        run(whole(), tier).succeeds(tier);
    }
    assert_eq!(reseal(whole().to_vec()).as_deref(), Some(whole()), "sealing changes nothing");
}

#[test]
fn cut_and_longer_files() {
    let all = whole();
    for end in [5, 63, 64, 4095, 4096, 5000, all.len() / 2, all.len() - 1] {
        refused(&format!("cut at {end}"), &all[..end], &[4, 7]);
    }
    refused("empty", &[], &[4]);
    refused("no bundle", &sound(), &[4]);
    refused("longer", &[all, &[0]].concat(), &[7]);
    let elf = std::fs::read("/proc/self/exe").expect("this program");
    refused("another ELF file", &elf[..elf.len().min(1 << 20)], &[4, 7, 9]);
}

#[test]
fn a_byte_flipped_in_every_section() {
    let mut places = vec![("the head".to_string(), 0..4096)];
    places.extend(sections(whole()).expect("sections"));
    let end = places.last().expect("some").1.end.next_multiple_of(4096);
    places.push(("the headers".into(), end..whole().len()));
    for (name, r) in places.iter().filter(|p| !p.1.is_empty()) {
        for at in [r.start, (r.start + r.end) / 2, r.end - 1] {
            for bit in [0x01, 0x80] {
                let mut b = whole().to_vec();
                b[at] ^= bit;
                refused(&format!("{name}, byte {at}"), &b, &[4, 7, 9]);
            }
        }
    }
}

/// Sizes and places of sections that wrap, overlap, leave holes, or are not there.
#[test]
fn forged_section_headers() {
    let shoff = u64::from_le_bytes(whole()[40..48].try_into().expect("8 bytes")) as usize;
    let count = sections(whole()).expect("sections").len();
    let page = 4096u64;
    for i in 1..=count {
        let at = shoff + i * 64;
        for (field, name) in [(24, "offset"), (32, "length"), (48, "alignment"), (0, "name")] {
            for v in [u64::MAX, u64::MAX - 4095, 1 << 63, 1 << 40, page, 0, 1] {
                let mut b = whole().to_vec();
                let width = if field == 0 { 4 } else { 8 };
                if b[at + field..][..width] == v.to_le_bytes()[..width] {
                    continue;
                }
                b[at + field..][..width].copy_from_slice(&v.to_le_bytes()[..width]);
                refused(&format!("section {i}, {name} {v}"), &b, &[4, 7, 9]);
            }
        }
    }
    for (at, width, what) in
        [(40, 8, "headers"), (60, 2, "count"), (62, 2, "names"), (58, 2, "size")]
    {
        for v in [0u64, 1, 0xFFFF, u64::MAX] {
            let mut b = whole().to_vec();
            b[at..at + width].copy_from_slice(&v.to_le_bytes()[..width]);
            if b != whole() {
                refused(&format!("{what} {v}"), &b, &[4, 7, 9]);
            }
        }
    }
}

#[test]
fn other_versions() {
    let seal = section(".hub.seal");
    for (at, v) in [(8, 0), (8, 99), (9, 1)] {
        let mut b = whole().to_vec();
        b[seal.start + at] = v;
        refused("another major version", &b, &[4]);
    }
    for (at, v) in [(10, 200), (11, 1), (12, 1), (15, 255)] {
        let mut b = whole().to_vec();
        b[seal.start + at] = v;
        refused("a version that the manifest contradicts", &b, &[7]);
    }
}

/// The manifest says another element type or size than the graph.
#[test]
fn a_manifest_that_lies() {
    let at = section(".hub.manifest");
    let lie = |change: &dyn Fn(&mut Manifest)| {
        let mut m: Manifest = postcard::from_bytes(&whole()[at.clone()]).expect("a manifest");
        change(&mut m);
        let fresh = postcard::to_stdvec(&m).expect("it encodes");
        assert_eq!(fresh.len(), at.len(), "the lie is as long as the truth");
        let mut b = whole().to_vec();
        b[at.clone()].copy_from_slice(&fresh);
        reseal(b).expect("only the manifest differs")
    };
    let confused = lie(&|m| match &mut m.inputs[0].ty {
        hub_abi::shape::Type::Tensor(t) => t.dtype = Dtype::I32,
        _ => unreachable!("the input is a tensor"),
    });
    refused("another element type", &confused, &[7]);
    let resized = lie(&|m| match &mut m.outputs[0].ty {
        hub_abi::shape::Type::Tensor(t) => t.dims[0] = 3i64.into(),
        _ => unreachable!("the output is a tensor"),
    });
    refused("another size", &resized, &[7]);
    refused("another name", &lie(&|m| m.inputs[0].name = "z".into()), &[7]);
    refused("other constants", &lie(&|m| m.const_bytes ^= 1), &[7]);
    // Native code is bound with the manifest alone: what it says is held against the plan's buffers.
    for tier in tiers().into_iter().filter(|t| *t != "portable") {
        let f = Folder::of("m.hub", resized.clone());
        let model = Model::open(f.0.path().join("m.hub"), &OpenOptions::default());
        let options = SessionOptions { threads: 1, tier: Some(tier.into()), ..Default::default() };
        let session = Session::new(&model.expect("the graph is not read"), &options);
        let e = session.err().expect("the output does not fit").to_string();
        assert!(e.contains("lies in a buffer of"), "{e}");
    }
}

/// A graph that does not decode though its hash fits: native code that needs nothing of it runs, and
/// whoever asks for the graph is refused.
#[test]
fn a_forged_graph_is_found_when_it_is_read() {
    let mut b = whole().to_vec();
    b[section(".hub.graph")].fill(0xFF);
    let forged = reseal(b).expect("the manifest has its hash");
    refused("a graph of no sense", &forged, &[7]);
    let f = Folder::of("m.hub", forged);
    let r = ran(f.0.path(), "hubc", &["inspect", "m.hub"]);
    assert_eq!(r.code, 7, "{r:?}");
    let model = Model::open(f.0.path().join("m.hub"), &OpenOptions::default()).expect("it opens");
    assert!(model.graph().is_err() && model.verify().is_err());
    for tier in tiers() {
        let options = SessionOptions { threads: 1, tier: Some(tier.into()), ..Default::default() };
        match Session::new(&model, &options) {
            Err(e) => assert!(tier == "portable" && e.to_string().contains("graph"), "{tier}: {e}"),
            Ok(mut s) => {
                let data: Vec<u8> = [0.5f32; 384].iter().flat_map(|x| x.to_le_bytes()).collect();
                let x = TensorView { dtype: Dtype::F32, dims: &[2, 3, 8, 8], data: &data };
                assert_eq!(s.run(&[x]).expect("it runs").get(0).data[..4], 1.5f32.to_le_bytes());
                assert!(tier != "portable" && !s.steps().is_empty());
            }
        }
    }
}

/// Tables whose hashes fit: what is damaged in them is found when they are read, or when they run.
#[test]
fn forged_tables() {
    for name in [".hub.graph", ".hub.plan.avx2"] {
        let r = section(name);
        let step = (r.len() / 40).max(1);
        for (k, at) in r.step_by(step).enumerate() {
            let mut b = whole().to_vec();
            b[at] = [b[at] ^ 1, 0xFF, b[at].wrapping_add(1), 0x80][k % 4];
            let Some(b) = reseal(b) else { continue };
            let f = Folder::of("m.hub", b);
            let r = f.run("portable", &image());
            assert!(matches!(r.code, 0 | 2 | 4 | 7 | 9), "{name}, byte {at}: {r:?}");
            let r = ran(f.0.path(), "hubc", &["inspect", "m.hub"]);
            assert!(matches!(r.code, 0 | 2 | 4 | 7 | 9), "{name}, byte {at}: {r:?}");
        }
    }
}

/// A length of 2^60 wherever a list of a table may begin, the hashes put right: refused, and no memory
/// is taken for what cannot be there.
#[test]
fn count_bombs() {
    let bomb = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    for name in [".hub.manifest", ".hub.graph", ".hub.plan.avx2"] {
        let r = section(name);
        for at in (r.start..r.end - bomb.len()).step_by((r.len() / 24).max(1)).take(24) {
            let mut b = whole().to_vec();
            b[at..at + bomb.len()].copy_from_slice(&bomb);
            // (A manifest that cannot be read again keeps its old hash.)
            let b = reseal(b.clone()).unwrap_or(b);
            let f = Folder::of("m.hub", b);
            for args in [&["inspect", "m.hub"][..], &["bench", "m.hub", "--seconds", "0"]] {
                let r = ran(f.0.path(), "hubc", args);
                assert!(matches!(r.code, 0 | 2 | 4 | 7 | 9), "{name}, byte {at}: {r:?}");
            }
        }
    }
}

/// A bundle is replaced by renaming; one that is written over gives other numbers, not a crash.
#[test]
fn changed_while_open() {
    let f = Folder::of("m.hub", whole());
    let path = f.0.path().join("m.hub");
    for tier in tiers() {
        std::fs::write(&path, whole()).expect("writable");
        let model = Model::open(&path, &OpenOptions::default()).expect("it opens");
        let options = SessionOptions { threads: 1, tier: Some(tier.into()), ..Default::default() };
        let mut s = Session::new(&model, &options).expect("a session");
        let data: Vec<u8> = [0.5f32; 384].iter().flat_map(|x| x.to_le_bytes()).collect();
        let x = TensorView { dtype: Dtype::F32, dims: &[2, 3, 8, 8], data: &data };
        s.run(&[x]).expect("it runs");
        let mut b = whole().to_vec();
        for name in [".hub.const", ".hub.graph", ".hub.manifest", &format!(".hub.plan.{tier}")] {
            if let Some((_, r)) =
                sections(whole()).expect("sections").into_iter().find(|s| s.0 == *name)
            {
                b[r].fill(0xFF);
            }
        }
        use std::io::{Seek, Write};
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
        file.rewind().expect("a file");
        file.write_all(&b).expect("writable");
        let _numbers = s.run(&[x]);
        assert!(model.verify().is_err(), "what changed is found");
    }
}

/// A program whose bundle is cut while it runs says so; it does not crash.
#[test]
fn cut_while_a_program_runs() {
    for tier in tiers() {
        let f = Folder::of("m.hub", whole());
        let path = f.0.path().join("m.hub");
        let cut = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
            file.set_len(0).expect("it can be cut");
        });
        let args = ["bench", "m.hub", "--seconds", "1", "--threads", "2", "--cpu", tier];
        let r = ran(f.0.path(), "hubc", &args);
        cut.join().expect("it is cut");
        // Cut before it is opened, it is no bundle.
        assert!(matches!(r.code, 0 | 4 | 7), "{r:?}");
    }
}

/// A copy of the file does not care what becomes of it.
#[test]
fn copied_when_opened() {
    let f = Folder::of("m.hub", whole());
    let path = f.0.path().join("m.hub");
    for tier in tiers() {
        std::fs::write(&path, whole()).expect("writable");
        let options = OpenOptions { copy: true, ..OpenOptions::default() };
        let model = Model::open(&path, &options).expect("it opens");
        std::fs::File::create(&path).expect("it can be cut");
        model.verify().expect("the copy is whole");
        let options = SessionOptions { threads: 1, tier: Some(tier.into()), ..Default::default() };
        let mut s = Session::new(&model, &options).expect("a session");
        let data: Vec<u8> = [0.5f32; 384].iter().flat_map(|x| x.to_le_bytes()).collect();
        let x = TensorView { dtype: Dtype::F32, dims: &[2, 3, 8, 8], data: &data };
        let y = s.run(&[x]).expect("it runs");
        let first = y.get(0);
        assert_eq!(first.data[..4], 1.5f32.to_le_bytes());
    }
}

#[test]
fn trust_is_asked_for() {
    let f = Folder::of("m.hub", whole());
    let options = |trust| OpenOptions { trust: Some(trust), ..OpenOptions::default() };
    for trust in [hub_runtime::Trust::Signed, hub_runtime::Trust::Portable] {
        let model = Model::open(f.0.path().join("m.hub"), &options(trust)).expect("it opens");
        let s = Session::new(&model, &SessionOptions::default()).expect("a session");
        assert_eq!(s.tier(), "portable", "code of an unsigned bundle does not run");
    }
}
