//! The models that are changed: all that the repository holds of single operators and of formats,
//! and ONNX's suite where its folder is given.

use super::turn::Turn;
use super::{onnx, pir, program};
use base64::Engine;
use bytes::Bytes;
use hub_abi::Dtype;
use hub_frontend::onnx::proto::{ModelProto, TensorProto};
use hub_frontend::paddle::proto::ProgramDesc;
use hub_frontend::{FrontendError, LoadOptions, Loaded};
use prost::Message;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// A model.
#[derive(Clone)]
pub enum Model {
    /// An ONNX file.
    Onnx(Box<ModelProto>),
    /// A ProgramDesc and its parameters.
    Program(ProgramDesc, Bytes),
    /// A PIR program and its parameters.
    Pir(Json, Bytes),
}

/// A model with its name.
pub struct Case {
    /// Where it comes from.
    pub name: String,
    /// What it is.
    pub model: Model,
}

/// What operators have elsewhere and a model leaves out.
#[derive(Default)]
pub struct Known {
    onnx: onnx::Known,
    program: program::Known,
    pir: pir::Known,
}

impl Known {
    /// Of all cases.
    pub fn of(cases: &[Case]) -> Known {
        let mut known = Known::default();
        for c in cases {
            match &c.model {
                Model::Onnx(m) => m.graph.iter().for_each(|g| onnx::learn(g, &mut known.onnx)),
                Model::Program(p, _) => known.program.learn(p),
                Model::Pir(p, _) => pir::learn(p, &mut known.pir),
            }
        }
        known
    }
}

impl Case {
    /// The model with its change number `n`, and what that does; or how many changes too few it has.
    pub fn changed(&self, n: usize, known: &Known) -> Result<(Model, String), usize> {
        let (mut turn, mut model) = (Turn::nth(n), self.model.clone());
        match &mut model {
            Model::Onnx(m) => onnx::model(&mut turn, m, &known.onnx),
            Model::Program(p, _) => program::program(&mut turn, p, &known.program),
            Model::Pir(p, _) => pir::program(&mut turn, p, &known.pir),
        };
        turn.end().map(|what| (model, what))
    }

    /// How many changes it has.
    pub fn changes(&self, known: &Known) -> usize {
        let most = usize::MAX;
        self.changed(most, known).map_or_else(|left| most - left, |_| most)
    }
}

impl Model {
    /// Its file's bytes, and those of its parameters.
    pub fn bytes(&self) -> (Bytes, Bytes) {
        match self {
            Model::Onnx(m) => (m.encode_to_vec().into(), Bytes::new()),
            Model::Program(p, params) => (p.encode_to_vec().into(), params.clone()),
            Model::Pir(p, params) => (p.to_string().into_bytes().into(), params.clone()),
        }
    }

    /// Reads it as a file is read.
    pub fn load(&self) -> Result<Loaded, FrontendError> {
        let (bytes, params) = self.bytes();
        let options = LoadOptions::default();
        match self {
            Model::Onnx(_) => {
                hub_frontend::onnx::load_bytes(bytes, Path::new("/nowhere/at/all/m.onnx"), &options)
            }
            _ => hub_frontend::paddle::load_bytes(bytes, &params, &options),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut all: Vec<PathBuf> = read.filter_map(|e| Some(e.ok()?.path())).collect();
    all.sort();
    all
}

fn read(p: &Path) -> Bytes {
    std::fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display())).into()
}

fn stem(p: &Path) -> String {
    p.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every model of the repository that is small: Paddle's goldens in both forms, its formats, ONNX
/// Runtime's goldens.
pub fn committed() -> Vec<Case> {
    let mut cases = goldens();
    formats(&root().join("models/paddle_formats"), &mut cases);
    for file in entries(&root().join("frontend/tests/ort")) {
        if file.extension().is_some_and(|e| e == "onnx") {
            onnx_cases(&format!("ort/{}", stem(&file)), &file, None, &mut cases);
        }
    }
    cases
}

/// Models of ONNX's suite: a test's name, its model, and its folder. Large ones are left out.
pub fn suite(tests: impl Iterator<Item = (String, PathBuf, PathBuf)>) -> Vec<Case> {
    let mut cases = vec![];
    for (name, model, folder) in tests {
        if model.metadata().is_ok_and(|m| m.len() < 30_000) {
            onnx_cases(&name, &model, Some(&folder), &mut cases);
        }
    }
    cases
}

fn goldens() -> Vec<Case> {
    let mut cases = vec![];
    for file in entries(&root().join("tests/paddle/data")) {
        let text = read(&file);
        for line in String::from_utf8_lossy(&text).lines() {
            let json: Json = serde_json::from_str(line).expect("a golden");
            let case = json["case"].as_str().expect("a name");
            if let Some(text) = json["legacy"].as_str() {
                let raw = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
                let p = ProgramDesc::decode(&raw[..]).expect("a program");
                let model = Model::Program(p, Bytes::new());
                cases.push(Case { name: format!("legacy/{case}"), model });
            }
            if json["pir"].is_object() {
                let model = Model::Pir(json["pir"].clone(), Bytes::new());
                cases.push(Case { name: format!("pir/{case}"), model });
            }
        }
    }
    cases
}

fn formats(dir: &Path, cases: &mut Vec<Case>) {
    for path in entries(dir) {
        if path.is_dir() {
            formats(&path, cases);
            continue;
        }
        let params = path.with_extension("pdiparams");
        let params = if params.is_file() { read(&params) } else { Bytes::new() };
        let name = format!("formats/{}/{}", stem(dir), stem(&path));
        let end = path.extension().and_then(|e| e.to_str());
        let model = match end {
            Some("pdmodel") => {
                Model::Program(ProgramDesc::decode(read(&path)).expect("a program"), params)
            }
            Some("json") => Model::Pir(serde_json::from_slice(&read(&path)).expect("JSON"), params),
            _ => continue,
        };
        // Parameters that lie in files of their own are not read here.
        let case = Case { name, model };
        if case.model.load().is_ok() {
            cases.push(case);
        }
    }
}

/// A model; and one whose inputs of integers, as sizes and axes are, hold what the test gives.
fn onnx_cases(name: &str, file: &Path, test: Option<&Path>, cases: &mut Vec<Case>) {
    let plain = ModelProto::decode(read(file)).expect("a model");
    let mut fixed = plain.clone();
    let Some(g) = &mut fixed.graph else { return };
    let before = g.initializer.len();
    let mut kept = vec![];
    for (i, input) in std::mem::take(&mut g.input).into_iter().enumerate() {
        let given = match test {
            Some(dir) => std::fs::read(dir.join(format!("test_data_set_0/input_{i}.pb")))
                .ok()
                .and_then(|b| TensorProto::decode(&b[..]).ok()),
            None => {
                let name = format!("in:{}", input.name);
                g.initializer[..before].iter().find(|x| x.name == name).cloned()
            }
        };
        let tensor = input.r#type.as_ref().is_some_and(|t| t.tensor_type.is_some());
        let few = |x: &TensorProto| {
            let int = matches!(Dtype::from_onnx(x.data_type), Some(Dtype::I64 | Dtype::I32));
            tensor && int && x.dims.iter().product::<i64>() <= 64
        };
        match given.filter(few) {
            Some(x) => g.initializer.push(TensorProto { name: input.name, ..x }),
            None => kept.push(input),
        }
    }
    g.input = kept;
    if g.initializer.len() > before {
        let model = Model::Onnx(Box::new(fixed));
        cases.push(Case { name: format!("{name} with constants"), model });
    }
    cases.push(Case { name: name.into(), model: Model::Onnx(Box::new(plain)) });
}
