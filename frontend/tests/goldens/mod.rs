//! Paddle's own answers for single operators (`tests/paddle/`), and Hub's for the same models.

use base64::Engine;
use hub_abi::Dtype;
use hub_frontend::{LoadOptions, load};
use hub_ir::portable::to_portable;
use hub_portable::{BytesStore, Limits, Tensor, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the script, its cases and the recorded data are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/paddle")
}

/// A recorded case.
pub struct Golden {
    /// The operator that it is about, by ProgramDesc's name (PIR's, if only PIR has it).
    #[allow(dead_code)]
    pub op: String,
    /// The operator and a number.
    pub case: String,
    json: Json,
}

/// One of Paddle's two formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Legacy,
    Pir,
}

impl Golden {
    /// Is it recorded in that format?
    pub fn has(&self, form: Form) -> bool {
        self.json.get(key(form)).is_some()
    }

    /// Names of the operators in a model of that format.
    #[allow(dead_code)]
    pub fn operators(&self, form: Form) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        match form {
            Form::Legacy if self.has(form) => {
                names.insert(self.op.clone());
                names.extend(texts(&self.json["ops"]));
            }
            Form::Pir => pir_names(&self.json["pir"], &mut names),
            Form::Legacy => {}
        }
        names
    }

    fn wanted(&self, form: Form) -> &Json {
        match form {
            Form::Pir if self.json.get("out_pir").is_some() => &self.json["out_pir"],
            _ => &self.json["out"],
        }
    }

    /// Writes the model of a format to a folder.
    pub fn write(&self, form: Form, dir: &Path) -> Result<PathBuf, String> {
        let (name, bytes) = match form {
            Form::Legacy => {
                let text = self.json["legacy"].as_str().ok_or("no model")?;
                let raw = base64::engine::general_purpose::STANDARD.decode(text);
                ("m.pdmodel", raw.map_err(|e| e.to_string())?)
            }
            Form::Pir => ("m.json", self.json["pir"].to_string().into_bytes()),
        };
        let model = dir.join(name);
        std::fs::write(&model, bytes).map_err(|e| e.to_string())?;
        Ok(model)
    }

    /// Runs the model's reference meaning; says where an answer is not Paddle's.
    #[allow(dead_code)]
    pub fn check(&self, form: Form) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let model = self.write(form, dir.path())?;
        let loaded = load(&model, &LoadOptions::default()).map_err(|e| e.to_string())?;
        self.judge(form, &self.run(&loaded.graph)?)
    }

    /// Says where an answer is not Paddle's.
    pub fn judge(&self, form: Form, got: &[Tensor]) -> Result<(), String> {
        let want = self.wanted(form).as_array().ok_or("no answers")?;
        if got.len() != want.len() {
            return Err(format!("{} outputs, not {}", got.len(), want.len()));
        }
        for (k, (got, want)) in got.iter().zip(want).enumerate() {
            same(got, &read(want)?).map_err(|e| format!("output {k}: {e}"))?;
        }
        Ok(())
    }

    #[allow(dead_code)]
    fn run(&self, graph: &hub_ir::Graph) -> Result<Vec<Tensor>, String> {
        hub_ir::verify::verify(graph, hub_ir::verify::Stage::Imported)
            .map_err(|e| e.to_string())?;
        let (portable, store) = to_portable(graph).map_err(|e| e.to_string())?;
        let mut bytes = vec![0; store.len as usize];
        for (at, piece) in &store.pieces {
            bytes[*at as usize..*at as usize + piece.len()].copy_from_slice(piece);
        }
        let store = BytesStore::new(Arc::new(bytes));
        let inputs = graph.inputs.iter().map(|n| self.input(n)).collect::<Result<Vec<_>, _>>()?;
        let outs = hub_portable::run(&portable, &store, &inputs, &Limits::default());
        let outs = outs.map_err(|e| e.to_string())?;
        outs.iter().map(|v| v.tensor().cloned().map_err(|e| e.to_string())).collect()
    }

    /// What is given to the input of that name.
    pub fn input(&self, name: &str) -> Result<Value, String> {
        if let Some((of, level)) = name.rsplit_once(".lod") {
            // One list of offsets, or one a level.
            let lod = &self.json["lod"][of];
            let level: usize = level.parse().map_err(|_| format!("no input {name}"))?;
            let lod = if lod[0].is_array() { &lod[level] } else { lod };
            let offsets: Vec<i64> =
                lod.as_array().into_iter().flatten().filter_map(Json::as_i64).collect();
            let t = Tensor::new(&[offsets.len()], offsets).map_err(|e| e.to_string())?;
            return Ok(t.into());
        }
        let given = self.json["in"].get(name).ok_or_else(|| format!("no input {name}"))?;
        Ok(read(given)?.into())
    }
}

fn key(form: Form) -> &'static str {
    match form {
        Form::Legacy => "legacy",
        Form::Pir => "pir",
    }
}

#[allow(dead_code)]
fn texts(j: &Json) -> impl Iterator<Item = String> + '_ {
    j.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_string)
}

#[allow(dead_code)]
/// Names of all operators, those in regions too, without the number of their dialect.
fn pir_names(j: &Json, names: &mut BTreeSet<String>) {
    match j {
        Json::Array(all) => all.iter().for_each(|j| pir_names(j, names)),
        Json::Object(map) => {
            let name = map.get("#").and_then(Json::as_str).filter(|_| map.contains_key("I"));
            if let Some((dialect, name)) = name.and_then(|n| n.split_once('.')) {
                let dialect = match dialect {
                    "0" => "builtin.",
                    "2" => "cf.",
                    _ => "",
                };
                names.insert(format!("{dialect}{name}"));
            }
            map.values().for_each(|j| pir_names(j, names));
        }
        _ => {}
    }
}

/// All recorded cases by family.
pub fn all() -> BTreeMap<String, Vec<Golden>> {
    let mut families = BTreeMap::new();
    for entry in std::fs::read_dir(folder().join("data")).expect("the recorded data") {
        let path = entry.expect("a file").path();
        let Some(name) =
            path.file_stem().filter(|_| path.extension().is_some_and(|e| e == "jsonl"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a text");
        let parse = |line: &str| {
            let json: Json = serde_json::from_str(line).expect("a case");
            let text = |k: &str| json[k].as_str().expect("a name").to_string();
            Golden { op: text("op"), case: text("case"), json }
        };
        let goldens = text.lines().map(parse).collect();
        families.insert(name.to_string_lossy().into_owned(), goldens);
    }
    families
}

/// A tensor from `[dtype, dims, values]`.
fn read(j: &Json) -> Result<Tensor, String> {
    let name = j[0].as_str().unwrap_or_default();
    let dtype = match name {
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        "complex64" => Dtype::C64,
        other => return Err(format!("dtype {other}")),
    };
    let dims: Vec<usize> = j[1]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_u64)
        .map(|d| d as usize)
        .collect();
    let mut data = vec![];
    for v in j[2].as_array().into_iter().flatten() {
        match (dtype, v.as_i64()) {
            (Dtype::I64, Some(k)) => data.extend(k.to_le_bytes()),
            (Dtype::C64, _) => {
                for part in [&v[0], &v[1]] {
                    data.extend((real(part)? as f32).to_le_bytes());
                }
            }
            _ => data.extend(hub_ir::build::scalar_bytes(dtype, real(v)?)),
        }
    }
    Tensor::from_bytes(dtype, &dims, &data).map_err(|e| e.to_string())
}

fn real(v: &Json) -> Result<f64, String> {
    match v.as_str() {
        Some("nan") => Ok(f64::NAN),
        Some("inf") => Ok(f64::INFINITY),
        Some("-inf") => Ok(f64::NEG_INFINITY),
        _ => v.as_f64().ok_or_else(|| format!("{v} is no number")),
    }
}

/// Integers are equal; reals differ by at most 1e-5 of the greatest magnitude, or by the steps of a
/// narrow type.
fn same(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        let of = |t: &Tensor| format!("{}{:?}", t.dtype(), t.dims());
        return Err(format!("{} where Paddle gives {}", of(got), of(want)));
    }
    let (g, w) = (numbers(got)?, numbers(want)?);
    let step = match want.dtype() {
        d if d.is_int() || d == Dtype::Bool => 0.0,
        Dtype::F16 => 1e-3,
        Dtype::BF16 => 8e-3,
        _ => 1e-5,
    };
    let top = w.iter().filter(|x| x.is_finite()).fold(0f64, |a, x| a.max(x.abs()));
    for (k, (g, w)) in g.iter().zip(&w).enumerate() {
        let near = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= step * top;
        if !near {
            return Err(format!("element {k} is {g} where Paddle gives {w}"));
        }
    }
    Ok(())
}

fn numbers(t: &Tensor) -> Result<Vec<f64>, String> {
    let bytes = t.bytes();
    if t.dtype() == Dtype::C64 {
        return Ok(bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
            .collect());
    }
    if t.dtype() == Dtype::I64 {
        return Ok(t.to_i64s().map_err(|e| e.to_string())?.iter().map(|&x| x as f64).collect());
    }
    let to = hub_abi::prim::Prim::Cast { to: Dtype::F64, saturate: true };
    let wide = hub_portable::fold(&to, std::slice::from_ref(t), &Limits::default())
        .map_err(|e| e.to_string())?;
    Ok(wide[0].view::<f64>().map_err(|e| e.to_string())?.to_vec())
}
