//! The committed corpora, made again from the repository's own models: `fuzz/corpus/TARGET/…`.

use crate::run::compiled;
use hub_frontend::onnx::proto::*;
use prost::Message;
use std::path::{Path, PathBuf};

/// A seed has this many bytes at most (bundles, which are pages, aside).
const MOST: usize = 12_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("the corpus is writable");
    std::fs::write(folder.join(name), bytes).expect("the corpus is writable");
}

/// Writes all corpora.
pub fn write() {
    onnx();
    paddle();
    for i in 0..24u32 {
        let choices: Vec<u32> =
            (0..4 + i % 9).map(|k| (k + 1).wrapping_mul(i + 7) ^ hash(i * 64 + k)).collect();
        let bytes: Vec<u8> = choices.iter().flat_map(|c| c.to_le_bytes()).collect();
        let head = [i as u8, (i / 4) as u8, i as u8];
        put("differential", &format!("{i:02}"), &[&head[..], &bytes].concat());
        let g = hub_ir::sample::graph(&choices);
        if i % 3 == 0 {
            put("text", &format!("{i:02}"), hub_ir::text::print(&g).as_bytes());
        }
        if i % 12 == 5 {
            let mut g = g;
            hub_passes::optimize(&mut g, &Default::default()).expect("a sound graph");
            put("bundle", &format!("{i:02}"), &compiled(g, &["avx2"]).expect("a small graph"));
        }
    }
}

fn hash(x: u32) -> u32 {
    let x = (x ^ x >> 16).wrapping_mul(0x045d_9f3b);
    (x ^ x >> 16).wrapping_mul(0x045d_9f3b)
}

fn value(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    let dim =
        dims.iter().map(|&d| DimensionProto { dim_value: Some(d), dim_param: None }).collect();
    let tensor_type =
        Some(TensorTypeProto { elem_type: elem, shape: Some(TensorShapeProto { dim }) });
    let r#type = (elem > 0).then(|| TypeProto { tensor_type, ..Default::default() });
    ValueInfoProto { name: name.into(), r#type }
}

/// One model an operator, with operands that many take, and a few whole ones.
fn onnx() {
    let ints = |name: &str, v: &[i64]| TensorProto {
        name: name.into(),
        dims: vec![v.len() as i64],
        data_type: 7,
        int64_data: v.to_vec(),
        ..Default::default()
    };
    let floats = |name: &str, dims: &[i64]| {
        let n: i64 = dims.iter().product();
        let raw: Vec<u8> = (0..n).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect();
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: 1,
            raw_data: Some(raw.into()),
            ..Default::default()
        }
    };
    for (i, op) in hub_frontend::onnx::operators().into_iter().enumerate() {
        let (domain, kind) = op.rsplit_once('.').unwrap_or(("", &op));
        let inputs =
            [&["x"][..], &["x", "w"], &["x", "i"], &["x", "i", "w"], &["x", "w", "b"]][i % 5];
        let node = NodeProto {
            op_type: kind.into(),
            domain: domain.into(),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec!["y".into()],
            attribute: vec![AttributeProto {
                name: "axis".into(),
                r#type: 2,
                i: Some(1),
                ..Default::default()
            }],
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![ints("i", &[1, 2]), floats("w", &[2, 2, 1, 1]), floats("b", &[2])],
            input: vec![value("x", 1, &[-1, 2, 3, 4])],
            output: vec![value("y", 0, &[])],
            ..Default::default()
        };
        let opset =
            |domain: &str, version: i64| OperatorSetIdProto { domain: domain.into(), version };
        let model = ModelProto {
            ir_version: 8,
            graph: Some(graph),
            opset_import: vec![
                opset("", 21),
                opset(domain, if domain.is_empty() { 21 } else { 1 }),
            ],
            ..Default::default()
        };
        put("onnx", &format!("{i:03}"), &model.encode_to_vec());
    }
}

/// Every small program of `models/paddle_formats`, its parameters behind it.
fn paddle() {
    let formats = root().join("../models/paddle_formats");
    let mut todo = vec![formats.clone()];
    while let Some(dir) = todo.pop() {
        let entries = std::fs::read_dir(dir).expect("a folder");
        for path in entries.map(|e| e.expect("an entry").path()) {
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let end = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            let bytes = std::fs::read(&path).expect("a file");
            let (target, program) = match end {
                "json" => {
                    let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
                    ("pir", json.to_string().into_bytes())
                }
                "pdmodel" => ("program", bytes),
                _ => continue,
            };
            let params = std::fs::read(path.with_extension("pdiparams")).unwrap_or_default();
            if program.len() + params.len() > MOST {
                continue;
            }
            let name = path.strip_prefix(&formats).expect("it lies inside").to_string_lossy();
            let name = name.replace(['/', '.'], "_");
            let len = (program.len() as u32).to_le_bytes();
            put(target, &name, &[&len[..], &program, &params].concat());
        }
    }
    let stream = formats.join("pir/static_combined/model.pdiparams");
    put("params", "combined", &std::fs::read(stream).expect("a file"));
}
