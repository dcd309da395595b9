//! The full files and the seeded inputs against digests that an independent implementation's bytes have
//! (`fixtures/BLAKE3`), and the folder of ready files under concurrent use.

use hub_models::seed::{Dtype, Spec, fill, fnv1a};
use hub_models::{Case, Digits, Fixture, Tolerance, compare, formats};
use std::collections::BTreeMap;

/// The digests by file or input.
fn digests() -> BTreeMap<String, String> {
    let path = hub_models::root().join("fixtures/BLAKE3");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| l.split_once("  ").unwrap())
        .map(|(h, n)| (n.to_owned(), h.to_owned()))
        .collect()
}

#[test]
fn files_and_inputs_are_those_of_another_implementation() {
    let want = digests();
    let mut seen = 0;
    for f in Fixture::all().unwrap() {
        let mut hasher = blake3::Hasher::new();
        f.write_weights(&mut hasher).unwrap();
        let file = format!("{}/{}", f.name, f.weights_file());
        assert_eq!(hasher.finalize().to_hex().as_str(), want[&file], "{file}");
        for (name, tensor) in f.inputs().unwrap() {
            let input = format!("{}/{name}", f.name);
            assert_eq!(blake3::hash(&tensor.data).to_hex().as_str(), want[&input], "{input}");
            seen += 1;
        }
        seen += 1;
    }
    assert_eq!((seen, Fixture::names().unwrap().len()), (want.len(), 17));
}

/// Digests (FNV-1a) of NumPy's bytes for a tensor called `größe` of shape 3×5×7.
#[test]
fn every_dtype_is_as_numpy_casts_it() {
    use Dtype::*;
    let check = |dtype, spec, want: u64| {
        let got = fnv1a(&fill("größe", dtype, &[3, 5, 7], spec).unwrap());
        assert_eq!(got, want, "{dtype:?} {spec:?}");
    };
    check(Bool, Spec::Int { lo: 0, hi: 2 }, 0x910ec038fbbafd8e);
    for (dtype, want) in [
        (Int8, 0x43dd8efc41757476),
        (Int16, 0x585ce7d77e54beab),
        (Int32, 0x0210a1235621a36d),
        (Int64, 0xe8514bb1c0f2be51),
        (Float16, 0x622c1f33438430e8),
        (Float32, 0xc978fb9d6e9cff08),
        (Float64, 0x5fd7dc39598d6f08),
    ] {
        check(dtype, Spec::Int { lo: -3, hi: 90 }, want);
    }
    for (dtype, want) in [
        (Uint8, 0x93c9d7599346d86e),
        (Uint16, 0x55a9876ef4855594),
        (Uint32, 0x340f4798836e031c),
        (Uint64, 0x3dc7cee79c15360c),
    ] {
        check(dtype, Spec::Int { lo: 0, hi: 90 }, want);
    }
    for (dtype, want) in [
        (Float16, 0x27f74578bcf72add),
        (BFloat16, 0x8c0d81bf0e234ce3),
        (Float32, 0xb52827916e1d4453),
        (Float64, 0x498744800ec96f1b),
    ] {
        check(dtype, Spec::Float { offset: 0.1, scale: 1.7 }, want);
    }
    assert!(fill("x", Int64, &[1], Spec::Int { lo: 3, hi: 3 }).is_err());
}

#[test]
fn everyone_who_asks_at_once_gets_a_whole_file() {
    let base = tempfile::tempdir().unwrap();
    let fixture = Fixture::load("squeezenet1_1_p2o").unwrap();
    let want = &digests()["squeezenet1_1_p2o/model.onnx"];
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let path = fixture.materialised_under(base.path()).unwrap();
                let bytes = std::fs::read(path).unwrap();
                assert_eq!(blake3::hash(&bytes).to_hex().as_str(), want);
            });
        }
    });
    let left: Vec<_> = std::fs::read_dir(base.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something is left beside the fixture: {left:?}");
}

/// Senta is small: its folder under the build folder is what `Case` hands out.
#[test]
fn a_case_has_all_that_a_run_needs() {
    let case = Case::of(Fixture::load("senta_bilstm_pir").unwrap()).unwrap();
    assert!(case.model.is_file() && case.model.with_extension("pdiparams").is_file());
    assert_eq!(case.inputs["x"].shape, [1, 64]);
    assert_eq!(case.golden.tensors["out:fetch_name_0"].shape, [1, 2]);
}

#[test]
fn formats_are_all_there_and_their_goldens_match_themselves() {
    let formats = formats().unwrap();
    let digits = formats.iter().filter(|c| c.name.starts_with("digits/")).count();
    assert_eq!((formats.len(), digits), (25, 3));
    for case in &formats {
        assert!(case.model.is_file() && !case.inputs.is_empty(), "{}", case.name);
        let outputs = case.golden.with_prefix("out:");
        let same = compare(&case.golden, &outputs, Tolerance::default()).unwrap();
        assert!(same.ok() && same.error() == 0.0, "{}: {same}", case.name);
    }
    let name = |c: &Case| c.name.clone();
    assert!(formats.iter().map(name).any(|n| n == "paddle_formats/pir/static_separate/__model__"));
}

#[test]
fn a_fixtures_golden_is_as_its_metadata_says() {
    for f in Fixture::all().unwrap() {
        let golden = f.golden().unwrap();
        assert_eq!(golden.tensors.len(), f.outputs.len(), "{}", f.name);
        for o in &f.outputs {
            let (key, whole) = (format!("out:{}", o.name), o.shape.iter().product::<usize>());
            let have = golden.tensors[&key].shape.iter().product::<usize>();
            assert_eq!(have, whole.div_ceil(o.stride), "{} {key}", f.name);
            assert_eq!(golden.metadata[&format!("stride:{}", o.name)], o.stride.to_string());
        }
    }
}

#[test]
fn the_classifier_reads_its_digits() {
    let digits = Digits::load().unwrap();
    let accuracy = digits.accuracy(&digits.test_logits).unwrap();
    assert_eq!((accuracy * 540.0).round(), 533.0);
    assert_eq!(digits.accuracy(&digits.test_image), None);
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = Fixture::load("resnet").unwrap_err().to_string();
    assert!(error.contains("\"resnet\"") && error.contains("resnet50_pir"), "{error}");
}
