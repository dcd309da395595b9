//! The models beside `make.py`, with ONNX Runtime's answers.

use hub_frontend::onnx;
use hub_frontend::onnx::proto::{ModelProto, TensorProto};
use hub_ir::{Prim, Tensor};
use hub_portable::{Limits, Value};
use prost::Message;
use std::path::{Path, PathBuf};

fn tensor(t: &TensorProto) -> Tensor {
    let c = onnx::tensor_of(t).expect("a sound tensor");
    let dims: Vec<usize> = t.dims.iter().map(|&d| d as usize).collect();
    match c.ty.dtype {
        hub_ir::Dtype::Str => Tensor::strings(&dims, c.strings),
        dtype => Tensor::from_bytes(dtype, &dims, &c.data),
    }
    .expect("as many as the shape says")
}

fn floats(t: &Tensor) -> Vec<f64> {
    let to = Prim::Cast { to: hub_ir::Dtype::F64, saturate: true };
    let out = hub_portable::fold(&to, std::slice::from_ref(t), &Limits::default());
    out.expect("numbers")[0].view::<f64>().expect("numbers").into_owned()
}

/// What is wrong, if anything. Quantised results may differ by one step where a value lies between
/// two; others by 1e-4 of the largest. Probabilities of support vector machines are exact here, where
/// ONNX Runtime stops iterating within 0.005 over the number of classes.
fn compare(got: &Tensor, want: &Tensor, iterated: bool) -> Result<(), String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        return Err(format!("{got:?} is not {want:?}"));
    }
    if got.dtype() == hub_ir::Dtype::Str {
        return if got == want { Ok(()) } else { Err(format!("{got:?} is not {want:?}")) };
    }
    let (a, b) = (floats(got), floats(want));
    let top = b.iter().fold(0f64, |m, v| m.max(v.abs()));
    let room = match got.dtype() {
        d if d.is_float() && iterated => 0.005 / 2.0,
        d if d.is_float() => 1e-4 * top + 1e-6,
        d if d.size() == 1 => 1.0,
        _ => 0.0,
    };
    let far = |(x, y): &(&f64, &f64)| !(x == y || (*x - *y).abs() <= room);
    match a.iter().zip(&b).position(|p| far(&p)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} of {:?}: {} is not {}", got.dims(), a[i], b[i])),
    }
}

/// A model with what it is fed, and what ONNX Runtime answers.
pub struct Golden {
    /// The model's file.
    pub path: PathBuf,
    given: Vec<(String, Tensor)>,
    wanted: Vec<(String, Tensor)>,
}

/// All of them, in order of name.
pub fn all() -> Vec<Golden> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend/tests/ort");
    let files = std::fs::read_dir(&dir).expect("a folder");
    let mut files: Vec<PathBuf> = files.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    files.into_iter().map(Golden::read).collect()
}

impl Golden {
    fn read(path: PathBuf) -> Golden {
        let bytes = std::fs::read(&path).expect("a file");
        let model = ModelProto::decode(&bytes[..]).expect("a model");
        let graph = model.graph.expect("a graph");
        let part = |prefix: &str| -> Vec<(String, Tensor)> {
            let own = graph.initializer.iter();
            let own = own.filter_map(|t| Some((t.name.strip_prefix(prefix)?, t)));
            own.map(|(n, t)| (n.to_string(), tensor(t))).collect()
        };
        Golden { given: part("in:"), wanted: part("out:"), path }
    }

    /// The file's name without its end.
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Values for inputs of these names.
    pub fn feeds<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<Value>, String> {
        let find = |n: &str| self.given.iter().find(|g| g.0 == n).map(|g| g.1.clone().into());
        names.map(|n| find(n).ok_or_else(|| format!("the input {n} is missing"))).collect()
    }

    /// What is wrong with the answers of outputs of these names.
    pub fn check(&self, names: &[String], got: &[Value]) -> Result<(), String> {
        let iterated = self.name().ends_with("_prob");
        for (name, want) in &self.wanted {
            let at = names.iter().position(|o| o == name).ok_or("an output is missing")?;
            let got = got[at].tensor().map_err(|e| e.to_string())?;
            compare(got, want, iterated).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }
}

/// Fails with what is wrong, by name.
pub fn judge(run: impl Fn(&Golden) -> Result<(), String>) {
    let all = all();
    assert!(all.len() > 150, "{} files", all.len());
    let failed = |g: &Golden| Some(format!("{}: {}", g.name(), run(g).err()?));
    let wrong: Vec<String> = all.iter().filter_map(failed).collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}
