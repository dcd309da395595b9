//! Fixtures: skeleton, metadata, golden; and the full model files made from them.

use crate::seed::{self, Dtype, Spec};
use crate::tensors::{beside, write_file};
use crate::{
    Comparison, Error, NamedTensor, Result, TensorFile, Tensors, Tolerance, compare, onnx, read,
};
use base64::Engine;
use serde::Deserialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What wrote a fixture's graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An ONNX file, `model.onnx`.
    Onnx,
    /// Paddle 3's PIR as `.json`, with `.pdiparams`.
    PaddlePir,
    /// Paddle's ProgramDesc as `.pdmodel`, with `.pdiparams`.
    PaddleLegacy,
}

/// An input of a fixture, in the model's order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct InputSpec {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// The shape that the golden was made with; the model itself may allow others.
    pub shape: Vec<usize>,
    /// How its values are drawn.
    #[serde(flatten)]
    pub spec: Spec,
}

/// An output of a fixture, in the model's order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OutputSpec {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape for [`Fixture::inputs`].
    pub shape: Vec<usize>,
    /// The golden holds every `stride`-th element of the flattened output.
    pub stride: usize,
    /// The mean of the whole output, as the engine that made the golden had it.
    pub mean: f64,
    /// The standard deviation of the whole output.
    pub std: f64,
}

/// A parameter of a Paddle model, in file order.
#[derive(Debug, Clone, Deserialize)]
struct Param {
    name: String,
    dtype: Dtype,
    /// Paddle's number for the dtype (`VarType.Type`).
    r#type: u8,
    shape: Vec<usize>,
    /// The bytes in base64, where they are not seeded.
    raw: Option<String>,
    #[serde(flatten)]
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    format: Format,
    #[serde(default)]
    files: Vec<String>,
    params_file: Option<String>,
    #[serde(default)]
    params: Vec<Param>,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
    golden_by: String,
}

/// A real exporter's graph with seeded weights and a golden answer.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Its name, which is its folder's.
    pub name: String,
    /// What wrote the graph.
    pub format: Format,
    /// The inputs in the model's order.
    pub inputs: Vec<InputSpec>,
    /// The outputs in the model's order.
    pub outputs: Vec<OutputSpec>,
    /// The engine that the golden comes from.
    pub golden_by: String,
    dir: PathBuf,
    model: String,
    params_file: Option<String>,
    params: Vec<Param>,
}

impl Fixture {
    /// The names of all fixtures, sorted.
    pub fn names() -> Result<Vec<String>> {
        let dir = crate::root().join("fixtures");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Error::io(&dir))? {
            let entry = entry.map_err(Error::io(&dir))?;
            if entry.path().join("fixture.json").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// All fixtures, by name.
    pub fn all() -> Result<Vec<Fixture>> {
        Self::names()?.iter().map(|name| Self::load(name)).collect()
    }

    /// The fixture called `name`; when there is none, the error lists those there are.
    pub fn load(name: &str) -> Result<Fixture> {
        let known = Self::names()?;
        if !known.iter().any(|n| n == name) {
            return Err(Error::UnknownFixture { name: name.to_owned(), known });
        }
        Self::open(&crate::root().join("fixtures").join(name))
    }

    /// The fixture in a folder that holds `fixture.json`, the skeleton and `golden.safetensors`.
    pub fn open(dir: &Path) -> Result<Fixture> {
        let path = dir.join("fixture.json");
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let m: Metadata = serde_json::from_slice(&text).map_err(Error::malformed(&path))?;
        let model = match m.format {
            Format::Onnx => "model.onnx".to_owned(),
            _ => m
                .files
                .first()
                .cloned()
                .ok_or_else(|| Error::malformed(&path)("`files` is empty"))?,
        };
        if m.format != Format::Onnx && m.params_file.is_none() {
            return Err(Error::malformed(&path)("a Paddle fixture needs `params_file`"));
        }
        Ok(Fixture {
            name: m.name,
            format: m.format,
            inputs: m.inputs,
            outputs: m.outputs,
            golden_by: m.golden_by,
            dir: dir.to_owned(),
            model,
            params_file: m.params_file,
            params: m.params,
        })
    }

    /// The file that names the model, within the folder that [`Fixture::materialise`] fills.
    pub fn model_file(&self) -> &str {
        &self.model
    }

    /// The file that is made rather than copied: the parameters, or the whole ONNX file.
    pub fn weights_file(&self) -> &str {
        self.params_file.as_deref().unwrap_or(&self.model)
    }

    /// The seeded inputs of the golden, by name.
    pub fn inputs(&self) -> Result<Tensors> {
        let seeded = |i: &InputSpec| {
            let data =
                seed::fill(&i.name, i.dtype, &i.shape, i.spec).map_err(Error::io(&self.dir))?;
            Ok((
                i.name.clone(),
                NamedTensor { dtype: i.dtype.safetensors().into(), shape: i.shape.clone(), data },
            ))
        };
        self.inputs.iter().map(seeded).collect()
    }

    /// The golden: `out:NAME` for each output, `stride:NAME` in its metadata.
    pub fn golden(&self) -> Result<TensorFile> {
        read(self.dir.join("golden.safetensors"))
    }

    /// Compares outputs by name with the golden, and their shapes with `fixture.json`, which a thinned golden lacks.
    pub fn compare(&self, got: &Tensors, tolerance: Tolerance) -> Result<Comparison> {
        let mut comparison = compare(&self.golden()?, got, tolerance)?;
        for (spec, tensor) in self.outputs.iter().filter_map(|o| Some((o, got.get(&o.name)?))) {
            if tensor.shape != spec.shape {
                let problem = format!("shape {:?} where {:?} is right", tensor.shape, spec.shape);
                comparison
                    .outputs
                    .iter_mut()
                    .filter(|r| r.name == spec.name)
                    .for_each(|r| r.refuse(&problem));
            }
        }
        Ok(comparison)
    }

    /// Writes the full model into `dir` (made if need be) and returns the path of the file to export.
    pub fn materialise(&self, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        if self.format != Format::Onnx {
            let skeleton = self.skeleton()?;
            write_file(&dir.join(&self.model), |out| out.write_all(&skeleton))?;
        }
        write_file(&dir.join(self.weights_file()), |out| self.write_weights(out))?;
        Ok(dir.join(&self.model))
    }

    /// The path of the full model under the build folder, written there the first time it is asked for.
    pub fn materialised(&self) -> Result<PathBuf> {
        self.materialised_under(&crate::build_folder().join("fixtures"))
    }

    /// As [`Fixture::materialised`], but kept in `base`.
    ///
    /// The folder's name carries a stamp of what it was made from, so a changed fixture is made anew; tests that
    /// ask at once all get a whole folder, since it appears by one rename.
    pub fn materialised_under(&self, base: &Path) -> Result<PathBuf> {
        let dir = base.join(format!("{}-{:016x}", self.name, self.stamp()?));
        if !dir.is_dir() {
            let aside = beside(&dir);
            let made = self.materialise(&aside).and_then(|_| match std::fs::rename(&aside, &dir) {
                Err(e) if !dir.is_dir() => Err(Error::io(&dir)(e)),
                _ => Ok(()),
            });
            let _ = std::fs::remove_dir_all(&aside);
            made?;
        }
        Ok(dir.join(&self.model))
    }

    /// Streams the file [`Fixture::weights_file`] without holding the weights in memory.
    pub fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.format == Format::Onnx {
            let skeleton = self.skeleton().map_err(io::Error::other)?;
            let plan = onnx::Plan::new(&skeleton)
                .map_err(|e| io::Error::other(format!("{}: {e}", self.model)))?;
            return plan.write(out);
        }
        self.params.iter().try_for_each(|p| p.write(out))
    }

    fn skeleton(&self) -> Result<Vec<u8>> {
        let path = self.dir.join(&self.model);
        std::fs::read(&path).map_err(Error::io(&path))
    }

    /// Changes with every byte that the full files depend on; the number at its head is that of the generator.
    fn stamp(&self) -> Result<u64> {
        let path = self.dir.join("fixture.json");
        let mut bytes = vec![1];
        bytes.extend(std::fs::read(&path).map_err(Error::io(&path))?);
        bytes.extend(self.skeleton()?);
        Ok(seed::fnv1a(&bytes))
    }
}

impl Param {
    /// One record of Paddle's parameter stream: version (u32), LoD levels (u64), tensor version (u32), length of the
    /// description (i32), the description (protobuf: dtype, dims), the elements.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let fail = |what: &str| io::Error::other(format!("parameter {}: {what}", self.name));
        let mut desc = vec![0x08, self.r#type];
        for &d in &self.shape {
            desc.push(0x10);
            onnx::push_varint(&mut desc, d as u64);
        }
        out.write_all(&[0; 16])?;
        out.write_all(&(desc.len() as i32).to_le_bytes())?;
        out.write_all(&desc)?;
        let count = seed::elements(&self.shape).ok_or_else(|| fail("its shape is out of range"))?;
        match (&self.raw, self.spec) {
            (Some(raw), _) => {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(raw)
                    .map_err(io::Error::other)?;
                if bytes.len() as u64 != count * self.dtype.size() as u64 {
                    return Err(fail("`raw` is not as long as its shape says"));
                }
                out.write_all(&bytes)
            }
            (None, Some(spec)) => seed::write(out, &self.name, self.dtype, count, spec),
            (None, None) => Err(fail("it has neither `raw` nor a generator")),
        }
    }
}
