//! Tensor files and the rule of comparison.

use hub_models::{
    NamedTensor, TensorFile, Tensors, Tolerance, compare, from_bytes, inputs_of, read, write,
};
use proptest::prelude::*;

fn golden(entries: &[(&str, NamedTensor)], metadata: &[(&str, &str)]) -> TensorFile {
    TensorFile {
        tensors: entries.iter().map(|(k, t)| (k.to_string(), t.clone())).collect(),
        metadata: metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    }
}

/// Compares one output called `y`: whether it matches, the error, and the problem.
fn check(want: NamedTensor, stride: Option<&str>, have: NamedTensor) -> (bool, f64, String) {
    let metadata: Vec<_> = stride.map(|s| ("stride:y", s)).into_iter().collect();
    let got = Tensors::from([("y".to_owned(), have)]);
    let result =
        compare(&golden(&[("out:y", want)], &metadata), &got, Tolerance::default()).unwrap();
    let r = &result.outputs[0];
    (result.ok(), r.error, r.problem.clone().unwrap_or_default())
}

fn floats(values: &[f32]) -> NamedTensor {
    NamedTensor::f32(&[values.len()], values)
}

#[test]
fn floats_match_within_the_greatest_magnitude() {
    let want = || floats(&[0.0, -10.0, 1.0]);
    assert_eq!(check(want(), None, want()), (true, 0.0, String::new()));
    assert!(check(want(), None, floats(&[0.0009, -10.0, 1.0])).0);
    let (ok, error, _) = check(want(), None, floats(&[0.0011, -10.0, 1.0]));
    assert!(!ok && (error - 1.1e-4).abs() < 1e-9, "{error}");
    assert!(!check(floats(&[0.0]), None, floats(&[1e-30])).0, "nothing is near an all-zero golden");
}

#[test]
fn what_is_not_finite_must_be_the_same() {
    let odd = || floats(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.0]);
    assert!(check(odd(), None, odd()).0);
    for k in 0..4 {
        for wrong in [f32::NAN, f32::INFINITY, 2.0] {
            let mut values = odd().as_f32().unwrap();
            let same = values[k] == wrong || values[k].is_nan() && wrong.is_nan();
            values[k] = wrong;
            assert_eq!(check(odd(), None, floats(&values)).0, same, "{k} {wrong}");
        }
    }
}

#[test]
fn a_thinned_golden_is_compared_at_its_stride() {
    let want = || floats(&[0.0, 3.0, 6.0]);
    let have = |wrong: usize| {
        let mut v: Vec<f32> = (0..8).map(|k| k as f32).collect();
        v[wrong] += 100.0;
        NamedTensor::f32(&[2, 4], &v)
    };
    assert!(check(want(), Some("3"), have(1)).0);
    assert!(!check(want(), Some("3"), have(6)).0);
    let (ok, _, problem) = check(want(), Some("2"), have(1));
    assert!(!ok && problem.contains("one element in 2"), "{problem}");
    assert!(!check(want(), None, have(1)).0, "without a stride the shape must be the golden's");
    let shaped = NamedTensor::f32(&[1, 3], &[0.0, 3.0, 6.0]);
    assert!(check(shaped.clone(), Some("1"), shaped.clone()).0);
    assert!(!check(shaped, Some("1"), NamedTensor::f32(&[3, 1], &[0.0, 3.0, 6.0])).0);
    let file = golden(&[("out:y", want())], &[("stride:y", "0")]);
    assert!(compare(&file, &Tensors::new(), Tolerance::default()).is_err());
}

#[test]
fn integers_may_differ_in_one_of_a_thousand() {
    let want = NamedTensor::i64(&[2000], &[7; 2000]);
    let wrong = |n: usize| {
        let values: Vec<i64> = (0..2000).map(|k| if k < n { 8 } else { 7 }).collect();
        NamedTensor::i64(&[2000], &values)
    };
    assert!(check(want.clone(), None, wrong(2)).0);
    assert!(!check(want.clone(), None, wrong(3)).0);
    assert!(!check(NamedTensor::i64(&[1], &[7]), None, NamedTensor::i64(&[1], &[8])).0);
}

#[test]
fn a_wrong_type_shape_or_name_is_wrong() {
    let want = || NamedTensor::f32(&[2, 1], &[1.0, 2.0]);
    assert!(check(want(), None, NamedTensor::f32(&[2], &[1.0, 2.0])).2.contains("shape [2]"));
    assert!(check(want(), None, NamedTensor::i64(&[2, 1], &[1, 2])).2.contains("I64 where F32"));
    let missing =
        compare(&golden(&[("out:z", want())], &[]), &Tensors::new(), Tolerance::default()).unwrap();
    assert!(!missing.ok() && missing.error().is_infinite());
    assert!(
        compare(&golden(&[("in:z", want())], &[]), &Tensors::new(), Tolerance::default()).is_err()
    );
    let short = NamedTensor { data: vec![0; 4], ..want() };
    assert!(!check(want(), None, short).0);
    assert_eq!(inputs_of(&golden(&[("in:z", want())], &[])).keys().collect::<Vec<_>>(), ["z"]);
}

/// Two floats that agree in one 8-bit format and differ by one unit compare as their values do: the values here are
/// the formats' greatest and least, from their specifications.
#[test]
fn small_floats_are_decoded() {
    let one =
        |dtype: &str, b: u8| NamedTensor { dtype: dtype.into(), shape: vec![1], data: vec![b] };
    // (dtype, greatest finite, the one before it, relative difference, a NaN)
    for (dtype, top, below, relative, nan) in [
        ("F8_E4M3", 0x7E, 0x7D, 32.0 / 448.0, 0x7F),
        ("F8_E5M2", 0x7B, 0x7A, 8192.0 / 57344.0, 0x7E),
        ("F8_E4M3FNUZ", 0x7F, 0x7E, 16.0 / 240.0, 0x80),
        ("F8_E5M2FNUZ", 0x7F, 0x7E, 8192.0 / 57344.0, 0x80),
    ] {
        let (ok, error, _) = check(one(dtype, top), None, one(dtype, below));
        assert!(!ok && (error - relative).abs() < 1e-12, "{dtype} {error}");
        assert!(check(one(dtype, nan), None, one(dtype, nan)).0);
        assert!(check(one(dtype, top), None, one(dtype, nan)).1.is_infinite());
        assert_eq!(
            check(one(dtype, 1), None, one(dtype, 2)).1,
            1.0,
            "subnormals are evenly spaced"
        );
    }
    let half = |dtype: &str, bits: u16| NamedTensor {
        dtype: dtype.into(),
        shape: vec![],
        data: bits.to_le_bytes().to_vec(),
    };
    assert_eq!(check(half("F16", 0x3C00), None, half("F16", 0x4000)).1, 1.0);
    assert_eq!(check(half("BF16", 0x3F80), None, half("BF16", 0x4000)).1, 1.0);
}

#[test]
fn files_are_the_same_bytes_each_time_and_replace_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let metadata: Vec<(String, String)> =
        (0..40).map(|k| (format!("stride:{k}"), k.to_string())).collect();
    let metadata: Vec<_> = metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let file = golden(&[("b", floats(&[1.0])), ("a", NamedTensor::i64(&[], &[5]))], &metadata);
    std::fs::write(&path, "older").unwrap();
    write(&path, &file).unwrap();
    assert_eq!(read(&path).unwrap(), file);
    assert_eq!(file.to_bytes().unwrap(), file.clone().to_bytes().unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(read(dir.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let write = |name: &str, t: NamedTensor| {
        TensorFile::from(Tensors::from([(name.to_owned(), t)])).to_bytes()
    };
    assert!(write("__metadata__", floats(&[1.0])).is_err());
    assert!(write("x", NamedTensor { dtype: "F31".into(), ..floats(&[1.0]) }).is_err());
    assert!(write("x", NamedTensor { shape: vec![usize::MAX, 9], ..floats(&[1.0]) }).is_err());
}

/// Offsets whose sum leaves the address space.
#[test]
fn absurd_offsets_are_refused() {
    let step = 1u64 << 60;
    let entry = |k: u64| {
        let (begin, end) = (k * step, if k == 15 { u64::MAX } else { (k + 1) * step });
        format!(
            "\"{k:02}\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
            end - begin
        )
    };
    let json = format!("{{{}}}", (0..16).map(entry).collect::<Vec<_>>().join(","));
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.bytes());
    assert!(from_bytes(&bytes).is_err());
}

fn tensor() -> impl Strategy<Value = NamedTensor> {
    let dtypes = vec![
        ("F32", 4),
        ("I64", 8),
        ("U8", 1),
        ("BOOL", 1),
        ("BF16", 2),
        ("F8_E5M2", 1),
        ("C64", 8),
    ];
    (prop::sample::select(dtypes), prop::collection::vec(0usize..4, 0..4)).prop_flat_map(
        |((dtype, size), shape)| {
            let bytes = size * shape.iter().product::<usize>();
            prop::collection::vec(any::<u8>(), bytes).prop_map(move |data| NamedTensor {
                dtype: dtype.into(),
                shape: shape.clone(),
                data,
            })
        },
    )
}

fn file() -> impl Strategy<Value = TensorFile> {
    let name = "[a-z\"\\\\ü:/ ]{0,6}";
    let tensors = prop::collection::btree_map(name, tensor(), 0..5);
    let metadata = prop::collection::btree_map(name, name, 0..3);
    (tensors, metadata).prop_map(|(tensors, metadata)| TensorFile { tensors, metadata })
}

proptest! {
    #[test]
    fn a_file_reads_as_it_was_written(file in file()) {
        prop_assert_eq!(from_bytes(&file.to_bytes().unwrap()).unwrap(), file);
    }

    #[test]
    fn damaged_files_do_not_panic(file in file(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = file.to_bytes().unwrap();
        let k = at.index(bytes.len());
        bytes[k] = byte;
        let _ = from_bytes(&bytes);
        let _ = from_bytes(&bytes[..cut.index(bytes.len())]);
    }
}
