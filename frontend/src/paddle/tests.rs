//! Import of whole programs: every fixture, and damaged ones.

use super::params::Tensor;
use super::program::Program;
use super::{import, legacy, pir};
use crate::{ErrorKind, FrontendError, Limits, LoadOptions, load};
use bytes::Bytes;
use hub_ir::Graph;
use hub_ir::verify::{Stage, verify};
use hub_models::{Fixture, Format};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// A program from a model file's bytes; JSON is PIR.
fn parse(bytes: &[u8]) -> Result<Program, FrontendError> {
    let limits = Limits::default();
    match bytes.first() {
        Some(b'{') => pir::parse(bytes, &limits).map(|p| p.0),
        _ => legacy::parse(Bytes::copy_from_slice(bytes), &limits).map(|p| p.0),
    }
}

/// Its graph, with zeros for all parameters that are not huge.
fn graph_of(bytes: &[u8]) -> Result<Graph, FrontendError> {
    let program = parse(bytes)?;
    let limits = Limits { tensor_bytes: 1 << 28, ..Limits::default() };
    let zeros = program.params.iter().map(|p| {
        let (dtype, dims) = p.ty.clone();
        let n = crate::options::tensor_bytes(&limits, dtype, &dims)?;
        Ok(Tensor { dtype, dims, data: vec![0; n as usize].into() })
    });
    let zeros = zeros.collect::<Result<Vec<_>, FrontendError>>()?;
    import::import(&program, zeros, &LoadOptions::default()).map(|(g, _)| g)
}

fn folder(name: &str) -> PathBuf {
    hub_models::root().join(name)
}

/// All small model files.
fn small_models() -> Vec<PathBuf> {
    let mut found = vec![];
    let mut todo = vec![folder("paddle_formats")];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                todo.push(path);
            } else if name.ends_with(".pdmodel") || name.ends_with(".json") || name == "__model__" {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "{} models", found.len());
    found
}

#[test]
fn every_fixture_imports_with_its_names_and_types() {
    for fixture in Fixture::all().unwrap() {
        if fixture.format == Format::Onnx {
            continue;
        }
        let skeleton = folder("fixtures").join(&fixture.name).join(fixture.model_file());
        let g = graph_of(&std::fs::read(skeleton).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
        let names = |l: &[hub_models::OutputSpec]| -> Vec<String> {
            l.iter().map(|o| o.name.clone()).collect()
        };
        verify(&g, Stage::Imported).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
        assert_eq!(g.outputs, names(&fixture.outputs), "{}", fixture.name);
        let inputs: Vec<String> = fixture.inputs.iter().map(|i| i.name.clone()).collect();
        assert_eq!(g.inputs, inputs, "{}", fixture.name);
        for (spec, &v) in fixture.outputs.iter().zip(&g.regions[g.root()].results) {
            let dims = g.dims(v);
            assert_eq!(dims.len(), spec.shape.len(), "{}: {}", fixture.name, spec.name);
            let known =
                |(d, &s): (&hub_ir::Dim, &usize)| d.as_const().is_none_or(|d| d == s as i64);
            assert!(dims.iter().zip(&spec.shape).all(known), "{}: {dims:?}", fixture.name);
        }
    }
}

#[test]
fn every_small_model_imports() {
    for path in small_models() {
        let g = graph_of(&std::fs::read(&path).unwrap());
        let g = g.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        verify(&g, Stage::Imported).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

#[test]
fn a_file_that_ends_early_is_an_error_or_a_smaller_program() {
    for path in small_models() {
        let bytes = std::fs::read(&path).unwrap();
        for k in 0..40 {
            let _ = graph_of(&bytes[..bytes.len() * k / 40]);
        }
        if bytes[0] == b'{' {
            let cut = graph_of(&bytes[..bytes.len() - 1]).unwrap_err();
            assert_eq!(cut.kind, ErrorKind::Invalid);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn flipped_bits_never_panic(model in 0usize..20, flips in prop::collection::vec((0usize..1 << 20, 0u32..8), 1..6)) {
        let models = small_models();
        let mut bytes = std::fs::read(&models[model % models.len()]).unwrap();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let _ = graph_of(&bytes);
    }

    #[test]
    fn changed_numbers_in_pir_never_panic(model in 0usize..20, at in 0usize..1 << 20, to in prop::sample::select(
        vec!["0", "-1", "-2", "9223372036854775807", "-9223372036854775808", "4294967296", "1e300", "null", "[]", "\"x\""],
    )) {
        let models: Vec<PathBuf> =
            small_models().into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        let text = std::fs::read_to_string(&models[model % models.len()]).unwrap();
        // The number at or after a position.
        let digit = |c: char| c.is_ascii_digit() || c == '-';
        let from = at % text.len();
        prop_assume!(text.is_char_boundary(from));
        let Some(start) = text[from..].find(digit).map(|i| i + from) else { return Ok(()) };
        let end = text[start..].find(|c: char| !digit(c) && c != '.').map_or(text.len(), |i| i + start);
        let _ = graph_of(format!("{}{to}{}", &text[..start], &text[end..]).as_bytes());
    }
}

fn pir_of(ops: &str) -> String {
    format!(
        r##"{{"base_code":{{"magic":"pir","trainable":true,"version":4}},"program":{{"regions":[{{"#":"r","blocks":[{{"#":"block_0","args":[],"ops":[{ops}]}}]}}]}}}}"##
    )
}

const X: &str = r##"{"#":"1.data","A":[{"AT":{"#":"0.a_str","D":"x"},"N":"name"}],"I":[],"O":[{"%":1,"TT":{"#":"0.t_dtensor","D":[{"#":"0.t_f32"},[-1,4],"NCHW",[],0]}}],"OA":[]}"##;

fn unary(kind: &str, from: i64, to: i64) -> String {
    format!(
        r##"{{"#":"{kind}","A":[],"I":[{{"%":{from}}}],"O":[{{"%":{to},"TT":{{"#":"0.t_dtensor","D":[{{"#":"0.t_f32"}},[-1,4],"NCHW",[],0]}}}}],"OA":[]}}"##
    )
}

fn fails(ops: &[String]) -> FrontendError {
    graph_of(pir_of(&ops.join(",")).as_bytes()).unwrap_err()
}

#[test]
fn operators_without_import_are_listed_all_at_once() {
    let x = X.to_string();
    let e = fails(&[
        x,
        unary("1.foo", 1, 2),
        unary("1.foo", 2, 3),
        unary("3.bar", 3, 4),
        unary("1.fetch", 4, 5),
    ]);
    let ErrorKind::Unsupported(ops) = &e.kind else { panic!("{e}") };
    let seen: Vec<(&str, usize)> = ops.iter().map(|o| (o.op.as_str(), o.count)).collect();
    assert_eq!(seen, [("custom_op.bar", 1), ("pd_op.foo", 2)]);
    assert_eq!(e.exit_code(), 3);
}

#[test]
fn ids_must_be_defined_before_and_once() {
    let x = || X.to_string();
    let dangling = fails(&[x(), unary("1.relu", 7, 2)]);
    assert!(dangling.to_string().contains("%7 is not defined"), "{dangling}");
    assert_eq!(dangling.place.node.as_deref(), Some("block_0, operator 1 (1.relu)"));
    let twice = fails(&[x(), unary("1.relu", 1, 2), unary("1.relu", 2, 2)]);
    assert!(twice.to_string().contains("%2 is defined twice"), "{twice}");
    assert_eq!(twice.exit_code(), 4);
}

#[test]
fn deep_json_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(graph_of(format!("{{\"a\":{deep}}}").as_bytes()).unwrap_err().exit_code(), 4);
}

fn copy(from: &Path, to: &Path, names: &[(&str, &str)]) {
    for (a, b) in names {
        std::fs::copy(from.join(a), to.join(b)).unwrap();
    }
}

#[test]
fn parameter_files_must_be_those_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let from = folder("paddle_formats/pir");
    copy(&from, dir.path(), &[("convnet.json", "m.json")]);
    let model = dir.path().join("m.json");
    let try_load = || load(&model, &LoadOptions::default()).map(|_| ()).unwrap_err();
    let none = try_load();
    assert!(none.to_string().contains("m.pdiparams"), "{none}");
    copy(&from, dir.path(), &[("dbnet.pdiparams", "m.pdiparams")]);
    let other = try_load();
    assert_eq!(other.exit_code(), 4);
    assert!(other.place.node.is_some() && other.place.offset.is_some(), "{other}");
    let right = std::fs::read(from.join("convnet.pdiparams")).unwrap();
    std::fs::write(dir.path().join("m.pdiparams"), &right[..right.len() - 1]).unwrap();
    assert!(try_load().to_string().contains("ends within the data"));
    std::fs::write(dir.path().join("m.pdiparams"), [&right[..], &[0]].concat()).unwrap();
    assert!(try_load().to_string().contains("goes on for 1 bytes"));
}

#[cfg(unix)]
#[test]
fn a_parameter_file_outside_the_folder_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, from) = (dir.path().join("in"), folder("paddle_formats/pir/static_separate"));
    std::fs::create_dir(&inner).unwrap();
    let names = ["__model__.json", "fc_2.b_0", "fc_2.w_0", "fc_3.b_0"].map(|n| (n, n));
    copy(&from, &inner, &names);
    copy(&from, dir.path(), &[("fc_3.w_0", "outside")]);
    std::os::unix::fs::symlink(dir.path().join("outside"), inner.join("fc_3.w_0")).unwrap();
    let e = load(inner.join("__model__.json"), &LoadOptions::default()).unwrap_err();
    assert_eq!((e.exit_code(), e.place.node.as_deref()), (4, Some("fc_3.w_0")), "{e}");
    let text = std::fs::read_to_string(from.join("__model__.json")).unwrap();
    let text = text.replace("fc_3.w_0", "../outside");
    std::fs::write(inner.join("__model__.json"), text).unwrap();
    let e = load(inner.join("__model__.json"), &LoadOptions::default()).unwrap_err();
    assert_eq!((e.exit_code(), e.place.node.as_deref()), (4, Some("../outside")), "{e}");
}

#[test]
fn anonymous_dims_can_be_fixed_and_bounded() {
    let model = folder("paddle_formats/pir/convnet.json");
    let mut options = LoadOptions::default();
    options.fix("x.0=3").unwrap();
    let g = load(&model, &options).unwrap().graph;
    assert!(g.dims(g.regions[g.root()].params[0])[0].is(3));
    assert!(g.dims(g.regions[g.root()].results[0])[0].is(3));
    let mut options = LoadOptions::default();
    options.bound("x.0=1..8").unwrap();
    let g = load(&model, &options).unwrap().graph;
    assert_eq!((g.syms[0].min, g.syms[0].max), (1, 8));
    let mut options = LoadOptions::default();
    options.fix("batch=3").unwrap();
    assert_eq!(load(&model, &options).unwrap_err().exit_code(), 2);
}
